#include <immintrin.h>

#include "scan.h"

namespace muvera {

namespace {

#include "scan_coarsen.inl"

// Coordinates whose products, below 2**15 each, an int32 can add up.
constexpr size_t kTogether = 1 << 16;

__mmask64 first(size_t n) { return n >= 64 ? ~static_cast<__mmask64>(0) : (static_cast<__mmask64>(1) << n) - 1; }

// VNNI multiplies unsigned by signed bytes, so 128 is added to the codes and taken off the result.
int64_t eight_bits(const int8_t *row, const ScanQuery &query, size_t width) {
    const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
    int64_t total = -128 * query.sum;
    for (size_t i = 0; i < width;) {
        const size_t end = width - i < kTogether ? width : i + kTogether;
        __m512i high = _mm512_setzero_si512(), low = high;
        for (; i + 64 <= end; i += 64) {
            const __m512i codes = _mm512_xor_si512(_mm512_loadu_si512(row + i), flip);
            high = _mm512_dpbusd_epi32(high, codes, _mm512_loadu_si512(query.high + i));
            low = _mm512_dpbusd_epi32(low, codes, _mm512_loadu_si512(query.low + i));
        }
        if (i < end) {
            const __mmask64 mask = first(end - i);
            const __m512i codes = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, row + i), flip);
            high = _mm512_dpbusd_epi32(high, codes, _mm512_maskz_loadu_epi8(mask, query.high + i));
            low = _mm512_dpbusd_epi32(low, codes, _mm512_maskz_loadu_epi8(mask, query.low + i));
            i = end;
        }
        total += 128 * static_cast<int64_t>(_mm512_reduce_add_epi32(high)) + _mm512_reduce_add_epi32(low);
    }
    return total;
}

int64_t two_bits(const uint8_t *row, const ScanQuery &query, size_t width) {
    const int8_t *q0 = query.high, *q1 = q0 + width, *q2 = q1 + width, *q3 = q2 + width;
    const __m512i three = _mm512_set1_epi8(3);
    int64_t total = 0;
    for (size_t i = 0; i < width;) {
        const size_t end = width - i < kTogether ? width : i + kTogether;
        __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
        for (; i + 64 <= end; i += 64) {
            const __m512i codes = _mm512_loadu_si512(row + i);
            a = _mm512_dpbusd_epi32(a, _mm512_and_si512(codes, three), _mm512_loadu_si512(q0 + i));
            b = _mm512_dpbusd_epi32(b, _mm512_and_si512(_mm512_srli_epi16(codes, 2), three),
                                    _mm512_loadu_si512(q1 + i));
            c = _mm512_dpbusd_epi32(c, _mm512_and_si512(_mm512_srli_epi16(codes, 4), three),
                                    _mm512_loadu_si512(q2 + i));
            d = _mm512_dpbusd_epi32(d, _mm512_and_si512(_mm512_srli_epi16(codes, 6), three),
                                    _mm512_loadu_si512(q3 + i));
        }
        if (i < end) {
            const __mmask64 mask = first(end - i);
            const __m512i codes = _mm512_maskz_loadu_epi8(mask, row + i);
            a = _mm512_dpbusd_epi32(a, _mm512_and_si512(codes, three), _mm512_maskz_loadu_epi8(mask, q0 + i));
            b = _mm512_dpbusd_epi32(b, _mm512_and_si512(_mm512_srli_epi16(codes, 2), three),
                                    _mm512_maskz_loadu_epi8(mask, q1 + i));
            c = _mm512_dpbusd_epi32(c, _mm512_and_si512(_mm512_srli_epi16(codes, 4), three),
                                    _mm512_maskz_loadu_epi8(mask, q2 + i));
            d = _mm512_dpbusd_epi32(d, _mm512_and_si512(_mm512_srli_epi16(codes, 6), three),
                                    _mm512_maskz_loadu_epi8(mask, q3 + i));
        }
        i = end;
        total += _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d)));
    }
    return 2 * total - 3 * query.high_sum;
}

}  // namespace

const ScanKernel scan_avx512 = {eight_bits, two_bits, sum_of_squares, put_levels};

}  // namespace muvera
