// Compiled for processors with AVX-512.
#include <immintrin.h>

#include "fde.h"

namespace {

struct Vec {
    static constexpr int lanes = 16;
    __m512 v;
    static Vec zero() { return {_mm512_setzero_ps()}; }
    static Vec all(float number) { return {_mm512_set1_ps(number)}; }
    static Vec load(const float *at) { return {_mm512_loadu_ps(at)}; }
    static Vec add(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
    static Vec multiply(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
    static Vec multiply_add(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
    void store(float *at) const { _mm512_storeu_ps(at, v); }
    unsigned above_zero() const { return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GT_OQ); }
};

// 32 registers hold the sums, one row of the panel and a number.
constexpr int rows_at_once(int vectors) { return vectors == 4 ? 6 : 8; }

}  // namespace

#define PANEL_VECTORS 4
#include "fde_kernels.inl"

const muvera::FdeKernel muvera::fde_avx512{Vec::lanes, PANEL_VECTORS, &encode};
