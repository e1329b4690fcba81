// Compiled for processors with AVX2 and FMA.
#include <immintrin.h>

#include "fde.h"

namespace {

struct Vec {
    static constexpr int lanes = 8;
    __m256 v;
    static Vec zero() { return {_mm256_setzero_ps()}; }
    static Vec all(float number) { return {_mm256_set1_ps(number)}; }
    static Vec load(const float *at) { return {_mm256_loadu_ps(at)}; }
    static Vec add(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
    static Vec multiply(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
    static Vec multiply_add(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
    void store(float *at) const { _mm256_storeu_ps(at, v); }
    unsigned above_zero() const {
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GT_OQ)));
    }
};

// 16 registers hold the sums, one row of the panel and a number.
constexpr int rows_at_once(int vectors) { return vectors == 2 ? 6 : 8; }

}  // namespace

#define PANEL_VECTORS 2
#include "fde_kernels.inl"

const muvera::FdeKernel muvera::fde_avx2{Vec::lanes, PANEL_VECTORS, &encode};
