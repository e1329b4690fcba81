// Which instruction sets the processor and the operating system offer.
#pragma once

#include <string>
#include <vector>

namespace muvera {

// Names of the kernels that can run here, the fastest first. "portable" is always the last.
const std::vector<std::string> &available_kernels();

// Extensions that only some functions use.
bool has_amx();                 // tiles of bytes; asks the system for the permission to use them
bool has_carryless_products();  // PCLMULQDQ and SSE4.1
bool has_neon_dot_products();   // of bytes

}  // namespace muvera
