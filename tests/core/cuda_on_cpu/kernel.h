// What the driver knows of a kernel: how it is called, and the sizes of its arguments.
#pragma once

#include <cstddef>

struct Dim {
    unsigned x = 1, y = 1, z = 1;
};

struct Call {
    void (*run)(void *const *arguments);
    void *const *arguments;
    Dim grid, block;
    size_t shared_bytes;
};

struct Kernel {
    void (*run)(void *const *arguments);
    void (*launch)(const Call &call);
    size_t n_arguments;
    const size_t *sizes;
};
