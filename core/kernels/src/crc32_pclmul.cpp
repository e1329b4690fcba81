// CRC-32 by carry-less products: V. Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ, Intel
// 2009. The constants are powers of x modulo the polynomial, bits reversed, as in the paper.
#include <immintrin.h>

#include "crc32.h"

namespace muvera {

namespace {

inline __m128i load(const uint8_t *from) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from)); }

// Moves `state` forward by the distance of the constants, and adds what is there.
inline __m128i folded(__m128i state, __m128i constants, __m128i next) {
    const __m128i low = _mm_clmulepi64_si128(state, constants, 0x00);
    const __m128i high = _mm_clmulepi64_si128(state, constants, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

}  // namespace

uint32_t crc32_folded(const uint8_t *data, size_t size, uint32_t state) {
    const __m128i by_64_bytes = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by_16_bytes = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i by_8_bytes = _mm_set_epi64x(0, 0x0163cd6124);
    const __m128i polynomial = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    __m128i a = _mm_xor_si128(load(data), _mm_cvtsi32_si128(static_cast<int>(state)));
    __m128i b = load(data + 16), c = load(data + 32), d = load(data + 48);
    for (data += 64, size -= 64; size >= 64; data += 64, size -= 64) {
        a = folded(a, by_64_bytes, load(data));
        b = folded(b, by_64_bytes, load(data + 16));
        c = folded(c, by_64_bytes, load(data + 32));
        d = folded(d, by_64_bytes, load(data + 48));
    }
    a = folded(a, by_16_bytes, b);
    a = folded(a, by_16_bytes, c);
    a = folded(a, by_16_bytes, d);
    for (; size >= 16; data += 16, size -= 16) a = folded(a, by_16_bytes, load(data));

    // 128 bits to 64, then Barrett's reduction to 32.
    const __m128i low_32 = _mm_setr_epi32(~0, 0, ~0, 0);
    a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, by_16_bytes, 0x10));
    a = _mm_xor_si128(_mm_srli_si128(a, 4), _mm_clmulepi64_si128(_mm_and_si128(a, low_32), by_8_bytes, 0x00));
    __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(a, low_32), polynomial, 0x10);
    quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, low_32), polynomial, 0x00);
    return static_cast<uint32_t>(_mm_extract_epi32(_mm_xor_si128(a, quotient), 1));
}

}  // namespace muvera
