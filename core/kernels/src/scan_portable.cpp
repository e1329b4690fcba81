#include "scan.h"

namespace muvera {

namespace {

#include "scan_coarsen.inl"

// Products that an int32 can add up: each is below 2**7 * 2**14.
constexpr size_t kTogether = 512;

int64_t eight_bits(const int8_t *row, const ScanQuery &query, size_t width) {
    int64_t total = 0;
    for (size_t start = 0; start < width; start += kTogether) {
        const size_t end = width - start < kTogether ? width : start + kTogether;
        int32_t sum = 0;
        for (size_t i = start; i < end; ++i) sum += static_cast<int32_t>(row[i]) * query.codes[i];
        total += sum;
    }
    return total;
}

int64_t two_bits(const uint8_t *row, const ScanQuery &query, size_t width) {
    const int8_t *q0 = query.high, *q1 = q0 + width, *q2 = q1 + width, *q3 = q2 + width;
    int64_t total = 0;
    for (size_t start = 0; start < width; start += 1 << 16) {
        const size_t end = width - start < (1 << 16) ? width : start + (1 << 16);
        int32_t sum = 0;
        for (size_t i = start; i < end; ++i) {
            const int16_t byte = row[i];  // 16 bits hold the four products, and compilers put eight of them together
            const int16_t a = static_cast<int16_t>((byte & 3) * q0[i]);
            const int16_t b = static_cast<int16_t>(((byte >> 2) & 3) * q1[i]);
            const int16_t c = static_cast<int16_t>(((byte >> 4) & 3) * q2[i]);
            const int16_t d = static_cast<int16_t>((byte >> 6) * q3[i]);
            sum += static_cast<int16_t>(a + b + c + d);
        }
        total += sum;
    }
    return 2 * total - 3 * query.high_sum;
}

}  // namespace

const ScanKernel scan_portable = {eight_bits, two_bits, sum_of_squares, put_levels};

}  // namespace muvera
