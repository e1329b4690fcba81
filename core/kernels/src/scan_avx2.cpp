#include <immintrin.h>

#include "scan.h"

namespace muvera {

namespace {

#include "scan_coarsen.inl"

// Coordinates whose products an int32 lane can add up: a lane takes two products below 2**21 of every 16.
constexpr size_t kTogether = 4096;

int64_t total_of(__m256i lanes) {
    alignas(32) int32_t each[8];
    _mm256_store_si256(reinterpret_cast<__m256i *>(each), lanes);
    int64_t total = 0;
    for (int32_t lane : each) total += lane;
    return total;
}

__m256i bytes(const void *place) { return _mm256_loadu_si256(static_cast<const __m256i *>(place)); }

int64_t eight_bits(const int8_t *row, const ScanQuery &query, size_t width) {
    int64_t total = 0;
    size_t i = 0;
    while (i + 16 <= width) {
        const size_t end = width - i < kTogether ? width : i + kTogether;
        __m256i sums = _mm256_setzero_si256();
        for (; i + 16 <= end; i += 16) {
            const __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(row + i)));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(codes, bytes(query.codes + i)));
        }
        total += total_of(sums);
    }
    for (; i < width; ++i) total += static_cast<int32_t>(row[i]) * query.codes[i];
    return total;
}

int64_t two_bits(const uint8_t *row, const ScanQuery &query, size_t width) {
    const int8_t *q[4] = {query.high, query.high + width, query.high + 2 * width, query.high + 3 * width};
    const __m256i three = _mm256_set1_epi8(3), ones = _mm256_set1_epi16(1);
    int64_t total = 0;
    size_t i = 0;
    while (i + 32 <= width) {
        const size_t end = width - i < (1 << 16) ? width : i + (1 << 16);
        __m256i sums = _mm256_setzero_si256();
        for (; i + 32 <= end; i += 32) {
            const __m256i codes = bytes(row + i);
            // A pair of products is at most 6 * 127, so that four of them fit an int16.
            __m256i pairs = _mm256_maddubs_epi16(_mm256_and_si256(codes, three), bytes(q[0] + i));
            pairs = _mm256_add_epi16(
                pairs, _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 2), three), bytes(q[1] + i)));
            pairs = _mm256_add_epi16(
                pairs, _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 4), three), bytes(q[2] + i)));
            pairs = _mm256_add_epi16(
                pairs, _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 6), three), bytes(q[3] + i)));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
        }
        total += total_of(sums);
    }
    for (; i < width; ++i)
        for (int j = 0; j < 4; ++j) total += ((row[i] >> (2 * j)) & 3) * q[j][i];
    return 2 * total - 3 * query.high_sum;
}

}  // namespace

const ScanKernel scan_avx2 = {eight_bits, two_bits, sum_of_squares, put_levels};

}  // namespace muvera
