// Query tokens in the order in which a kernel reads them.
#pragma once

#include <memory>
#include <vector>

#include "maxsim_engine.h"

namespace muvera {

// The smallest multiple of `of` that is at least n.
inline size_t multiple(size_t n, size_t of) { return (n + of - 1) / of * of; }

// Memory that starts at a multiple of 64 bytes. It is not cleared.
class Buffer {
  public:
    uint8_t *reserve(size_t n) {
        if (n > size_) {
            memory_.reset(new uint8_t[n + 64]);
            const auto address = reinterpret_cast<uintptr_t>(memory_.get());
            start_ = memory_.get() + (64 - address % 64) % 64;
            size_ = n;
        }
        return start_;
    }
    uint8_t *get() const { return start_; }

  private:
    std::unique_ptr<uint8_t[]> memory_;
    uint8_t *start_ = nullptr;
    size_t size_ = 0;
};

struct PackedQueries {
    Buffer codes, start, values;
    CodeQueries as_codes{};
    FloatQueries as_floats{};
    bool are_codes = false;
    size_t n_lanes = 0;         // tokens, and lanes that are not used
    std::vector<double> steps;  // what a code of 1 stands for; 1 for floats

    static PackedQueries of_codes(const MaxSimKernel &kernel, const Queries &queries, bool sliced, bool coarse);
    static PackedQueries of_floats(const MaxSimKernel &kernel, const Queries &queries);
};

}  // namespace muvera
