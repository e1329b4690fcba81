// Compiled for every processor.
#include "fde.h"

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#endif

namespace {

#if defined(__SSE2__) || defined(_M_X64)
// Every 64-bit x86 processor has SSE2.
struct Vec {
    static constexpr int lanes = 4;
    __m128 v;
    static Vec zero() { return {_mm_setzero_ps()}; }
    static Vec all(float number) { return {_mm_set1_ps(number)}; }
    static Vec load(const float *at) { return {_mm_loadu_ps(at)}; }
    static Vec add(Vec a, Vec b) { return {_mm_add_ps(a.v, b.v)}; }
    static Vec multiply(Vec a, Vec b) { return {_mm_mul_ps(a.v, b.v)}; }
    static Vec multiply_add(Vec a, Vec b, Vec c) { return add(multiply(a, b), c); }
    void store(float *at) const { _mm_storeu_ps(at, v); }
    unsigned above_zero() const { return static_cast<unsigned>(_mm_movemask_ps(_mm_cmpgt_ps(v, _mm_setzero_ps()))); }
};
#else
struct Vec {
    static constexpr int lanes = 4;
    float v[4];
    static Vec zero() { return {{0, 0, 0, 0}}; }
    static Vec all(float x) { return {{x, x, x, x}}; }
    static Vec load(const float *at) { return {{at[0], at[1], at[2], at[3]}}; }
    static Vec add(Vec a, Vec b) {
        return {{a.v[0] + b.v[0], a.v[1] + b.v[1], a.v[2] + b.v[2], a.v[3] + b.v[3]}};
    }
    static Vec multiply(Vec a, Vec b) {
        return {{a.v[0] * b.v[0], a.v[1] * b.v[1], a.v[2] * b.v[2], a.v[3] * b.v[3]}};
    }
    static Vec multiply_add(Vec a, Vec b, Vec c) { return add(multiply(a, b), c); }
    void store(float *at) const {
        for (int i = 0; i < 4; ++i) at[i] = v[i];
    }
    unsigned above_zero() const {
        unsigned bits = 0;
        for (int i = 0; i < 4; ++i) bits |= static_cast<unsigned>(v[i] > 0) << i;
        return bits;
    }
};
#endif

// 16 registers hold the sums, one row of the panel and a number.
constexpr int rows_at_once(int vectors) { return vectors == 2 ? 4 : 8; }

}  // namespace

#define PANEL_VECTORS 2
#include "fde_kernels.inl"

const muvera::FdeKernel muvera::fde_portable{Vec::lanes, PANEL_VECTORS, &encode};
