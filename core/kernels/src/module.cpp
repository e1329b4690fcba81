#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "processor.h"

namespace nb = nanobind;

namespace muvera {
void register_maxsim(nb::module_ &m);
void register_fde(nb::module_ &m);
void register_scan(nb::module_ &m);
void register_cuda(nb::module_ &m);
}

NB_MODULE(_native, m) {
    nb::set_leak_warnings(false);  // encoders may live until Python ends, where nanobind would print a warning
    m.def("available_kernels", &muvera::available_kernels);
    muvera::register_maxsim(m);
    muvera::register_fde(m);
    muvera::register_scan(m);
    muvera::register_cuda(m);
}
