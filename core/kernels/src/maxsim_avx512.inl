// Operations on registers of 512 bits, and how rows are unpacked for them.
#include "maxsim_kernel.inl"
#include "maxsim_x86_unpack.inl"

namespace muvera {
namespace {

struct Avx512 {
    static constexpr int kLanes = 16;
    static constexpr int kMostSums = 16;
    using Bytes = __m512i;
    using Int = __m512i;
    using Float = __m512;
    static MUVERA_INLINE Bytes load(const uint8_t *from) { return _mm512_loadu_si512(from); }
    static MUVERA_INLINE Int load_ints(const int32_t *from) { return _mm512_loadu_si512(from); }
    static MUVERA_INLINE Float load_floats(const float *from) { return _mm512_loadu_ps(from); }
    static MUVERA_INLINE void store_floats(float *to, Float value) { _mm512_storeu_ps(to, value); }
    static MUVERA_INLINE Bytes broadcast(const uint8_t *from) {
        return _mm512_set1_epi32(*reinterpret_cast<const int32_t *>(from));
    }
    static MUVERA_INLINE Int dot(Int sum, Bytes a, Bytes b) {
#if defined(__GNUC__) && !defined(__clang__)
        // GCC copies the sums around the intrinsic, which takes as long as the products.
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
        return sum;
#else
        return _mm512_dpbusd_epi32(sum, a, b);
#endif
    }
    static MUVERA_INLINE Int add(Int a, Int b) { return _mm512_add_epi32(a, b); }
    static MUVERA_INLINE Int times_256(Int a) { return _mm512_slli_epi32(a, 8); }
    static MUVERA_INLINE Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
    static MUVERA_INLINE Float set(float value) { return _mm512_set1_ps(value); }
    static MUVERA_INLINE Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
    static MUVERA_INLINE Float multiply_add(Float a, Float b, Float sum) { return _mm512_fmadd_ps(a, b, sum); }
    static MUVERA_INLINE Float maximum(Float a, Float b) { return _mm512_max_ps(a, b); }
};

}  // namespace
}  // namespace muvera
