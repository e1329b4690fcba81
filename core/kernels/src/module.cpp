#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "processor.h"

namespace nb = nanobind;

namespace muvera {
void register_maxsim(nb::module_ &m);
void register_fde(nb::module_ &m);
void register_scan(nb::module_ &m);
}

NB_MODULE(_native, m) {
    m.def("available_kernels", &muvera::available_kernels);
    muvera::register_maxsim(m);
    muvera::register_fde(m);
    muvera::register_scan(m);
}
