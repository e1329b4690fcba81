// Operations on NEON registers, 4 query tokens in each, and how rows are unpacked for them.
#include <arm_neon.h>

#include "maxsim_kernel.inl"

namespace muvera {
namespace {

struct NeonBase {
    static constexpr int kLanes = 4;
    static constexpr int kMostSums = 16;
    using Int = int32x4_t;
    using Float = float32x4_t;
    static MUVERA_INLINE Int load_ints(const int32_t *from) { return vld1q_s32(from); }
    static MUVERA_INLINE Float load_floats(const float *from) { return vld1q_f32(from); }
    static MUVERA_INLINE void store_floats(float *to, Float value) { vst1q_f32(to, value); }
    static MUVERA_INLINE Int add(Int a, Int b) { return vaddq_s32(a, b); }
    static MUVERA_INLINE Int times_256(Int a) { return vshlq_n_s32(a, 8); }
    static MUVERA_INLINE Float to_float(Int a) { return vcvtq_f32_s32(a); }
    static MUVERA_INLINE Float set(float value) { return vdupq_n_f32(value); }
    static MUVERA_INLINE Float multiply(Float a, Float b) { return vmulq_f32(a, b); }
    static MUVERA_INLINE Float multiply_add(Float a, Float b, Float sum) { return vfmaq_f32(sum, a, b); }
    static MUVERA_INLINE Float maximum(Float a, Float b) { return vmaxq_f32(a, b); }
};

struct StoreBytes {
    static constexpr size_t kWidth = 1;
    static MUVERA_INLINE void store(uint8_t *out, int8x16_t codes) { vst1q_s8(reinterpret_cast<int8_t *>(out), codes); }
};

struct StoreWords {
    static constexpr size_t kWidth = 2;
    static MUVERA_INLINE void store(uint8_t *out, int8x16_t codes) {
        int16_t *to = reinterpret_cast<int16_t *>(out);
        vst1q_s16(to, vmovl_s8(vget_low_s8(codes)));
        vst1q_s16(to + 8, vmovl_s8(vget_high_s8(codes)));
    }
};

template <class Store>
void unpack_int8(const ByteRows &rows, size_t dimension, size_t n_rows, uint8_t *out, size_t stride) {
    for (size_t r = 0; r < n_rows; ++r)
        for (size_t j = 0; j < dimension; j += 16) {
            uint8_t copy[16];
            const uint8_t *from = readable({rows.data + r * rows.stride + j, 0, rows.end}, 0, 16, copy);
            Store::store(out + r * stride + j * Store::kWidth, vreinterpretq_s8_u8(vld1q_u8(from)));
        }
}

MUVERA_INLINE uint8x16_t pair_of(uint8x16_t bytes, int pair) {
    return vandq_u8(vshlq_u8(bytes, vdupq_n_s8(static_cast<int8_t>(-2 * pair))), vdupq_n_u8(3));
}

// The levels of 16 codes: four tables of 64 levels, of which a code's highest bits choose one.
MUVERA_INLINE int8x16_t look_up(const uint8x16x4_t *table, int n_tables, uint8x16_t codes) {
    uint8x16_t found = vqtbl4q_u8(table[0], codes);
    for (int i = 1; i < n_tables; ++i) {
        codes = vsubq_u8(codes, vdupq_n_u8(64));
        found = vqtbx4q_u8(found, table[i], codes);
    }
    return vreinterpretq_s8_u8(found);
}

template <class Store>
void unpack_sliced(const SlicedRows &rows, size_t dimension, size_t n_rows, const uint8_t *levels, uint8_t *out,
                   size_t stride) {
    const int bits = rows.n_rest_bits, n_tables = bits == 6 ? 4 : 1;
    const size_t n = (dimension + 3) / 4, low_plane = bits == 6 ? (dimension + 1) / 2 : 0;
    uint8_t filled[256] = {};
    for (int i = 0; i < (4 << bits); ++i) filled[i] = levels[i];
    uint8x16x4_t table[4];
    for (int i = 0; i < n_tables; ++i) table[i] = vld1q_u8_x4(filled + 64 * i);
    for (size_t r = 0; r < n_rows; ++r) {
        const uint8_t *lead = rows.lead.data + r * rows.lead.stride;
        const uint8_t *rest = rows.rest.data + r * rows.rest.stride;
        // Places are written in rising order, because each write may run over the places that follow.
        for (int pair = 0; pair < 4; ++pair)
            for (size_t b = 0; b < n; b += 16) {
                uint8_t copy[32];
                uint8x16_t codes = pair_of(vld1q_u8(readable({lead + b, 0, rows.lead.end}, 0, 16, copy)), pair);
                if (bits) {
                    const uint8_t *from = readable({rest + low_plane + b, 0, rows.rest.end}, 0, 16, copy);
                    codes = vorrq_u8(codes, vshlq_n_u8(pair_of(vld1q_u8(from), pair), 2));
                }
                if (bits == 6) {
                    const uint8x16x2_t nibbles = vld2q_u8(readable({rest + 2 * b, 0, rows.rest.end}, 0, 32, copy));
                    const uint8x16_t both = nibbles.val[pair / 2];
                    codes = vorrq_u8(codes, pair % 2 ? vandq_u8(both, vdupq_n_u8(0xf0)) : vshlq_n_u8(both, 4));
                }
                Store::store(out + r * stride + (pair * n + b) * Store::kWidth, look_up(table, n_tables, codes));
            }
    }
}

void unpack_halves(const ByteRows &rows, size_t dimension, size_t n_rows, float *out, size_t stride) {
    for (size_t r = 0; r < n_rows; ++r)
        for (size_t j = 0; j < dimension; j += 4) {
            uint8_t copy[8];
            const uint8_t *from = readable({rows.data + r * rows.stride + 2 * j, 0, rows.end}, 0, 8, copy);
            vst1q_f32(out + r * stride + j, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from))));
        }
}

}  // namespace
}  // namespace muvera
