#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "processor.h"

namespace nb = nanobind;

NB_MODULE(_native, m) {
    m.def("available_kernels", &muvera::available_kernels);
}
