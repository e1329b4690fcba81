// Exact MaxSim with AVX2, FMA and F16C: 8 query tokens in a register.
#include "maxsim_kernel.inl"
#include "maxsim_x86_unpack.inl"

namespace muvera {
namespace {

struct Avx2 {
    static constexpr int kLanes = 8;
    static constexpr int kMostSums = 8;
    using Bytes = __m256i;
    using Int = __m256i;
    using Float = __m256;
    static MUVERA_INLINE Bytes load(const uint8_t *from) { return load_32(from); }
    static MUVERA_INLINE Int load_ints(const int32_t *from) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
    }
    static MUVERA_INLINE Float load_floats(const float *from) { return _mm256_loadu_ps(from); }
    static MUVERA_INLINE void store_floats(float *to, Float value) { _mm256_storeu_ps(to, value); }
    static MUVERA_INLINE Bytes broadcast(const uint8_t *from) {
        return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float *>(from)));
    }
    static MUVERA_INLINE Int dot(Int sum, Bytes a, Bytes b) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    }
    static MUVERA_INLINE Int add(Int a, Int b) { return _mm256_add_epi32(a, b); }
    static MUVERA_INLINE Int times_256(Int a) { return _mm256_slli_epi32(a, 8); }
    static MUVERA_INLINE Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
    static MUVERA_INLINE Float set(float value) { return _mm256_set1_ps(value); }
    static MUVERA_INLINE Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static MUVERA_INLINE Float multiply_add(Float a, Float b, Float sum) { return _mm256_fmadd_ps(a, b, sum); }
    static MUVERA_INLINE Float maximum(Float a, Float b) { return _mm256_max_ps(a, b); }
};

void unpack_int8_words(const ByteRows &rows, size_t dimension, size_t n_rows, uint8_t *out, size_t stride) {
    unpack_int8<StoreWords>(rows, dimension, n_rows, out, stride, _mm256_setzero_si256());
}

}  // namespace

extern const MaxSimKernel kAvx2MaxSim = {"avx2",
                                         Avx2::kLanes,
                                         4,
                                         1,
                                         1,
                                         CodeForm::int16,
                                         4e10,
                                         score_codes<Avx2>,
                                         score_floats<Avx2>,
                                         unpack_int8_words,
                                         unpack_sliced_any<StoreWords, LargeTable>,
                                         unpack_halves};

}  // namespace muvera
