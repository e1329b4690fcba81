// Which instruction sets the processor and the operating system offer.
#pragma once

#include <string>
#include <vector>

namespace muvera {

// Names of the kernels that can run here, the fastest first. "portable" is always the last.
std::vector<std::string> available_kernels();

}  // namespace muvera
