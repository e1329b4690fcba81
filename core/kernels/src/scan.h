// Products of stage-one vectors with a query, in integers, so that every kernel gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace muvera {

// A query's coordinates, each 128 * high + low, and zeros up to four times the width of a row of two-bit codes.
struct ScanQuery {
    const int16_t *codes;
    const int8_t *high;
    const int8_t *low;
    int64_t sum;       // of the codes
    int64_t high_sum;  // of the high parts
};

struct ScanKernel {
    // The product of a row of `width` 8-bit codes with the query.
    int64_t (*eight_bits)(const int8_t *row, const ScanQuery &query, size_t width);
    // The product of a row of `width` bytes with the high parts of the query. A two-bit code u stands for 2u - 3. Bits
    // 2j and 2j + 1 of byte i are coordinate j * width + i.
    int64_t (*two_bits)(const uint8_t *row, const ScanQuery &query, size_t width);
    // See scan_coarsen.inl.
    int64_t (*sum_of_squares)(const int8_t *codes, size_t n);
    int32_t (*put_levels)(const int8_t *codes, size_t n, int8_t threshold, int shift, uint8_t *row);
};

extern const ScanKernel scan_portable;
#if defined(MUVERA_SCAN_X86)
extern const ScanKernel scan_avx2;
extern const ScanKernel scan_avx512;
#endif

}  // namespace muvera
