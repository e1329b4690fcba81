// Compiled for 64-bit ARM processors.
#include <arm_neon.h>

#include "fde.h"

namespace {

struct Vec {
    static constexpr int lanes = 4;
    float32x4_t v;
    static Vec zero() { return {vdupq_n_f32(0)}; }
    static Vec all(float number) { return {vdupq_n_f32(number)}; }
    static Vec load(const float *at) { return {vld1q_f32(at)}; }
    static Vec add(Vec a, Vec b) { return {vaddq_f32(a.v, b.v)}; }
    static Vec multiply(Vec a, Vec b) { return {vmulq_f32(a.v, b.v)}; }
    static Vec multiply_add(Vec a, Vec b, Vec c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
    void store(float *at) const { vst1q_f32(at, v); }
    unsigned above_zero() const {
        static const uint32_t places[4] = {1, 2, 4, 8};
        return vaddvq_u32(vandq_u32(vcgtq_f32(v, vdupq_n_f32(0)), vld1q_u32(places)));
    }
};

// 32 registers hold the sums, one row of the panel and a number.
constexpr int rows_at_once(int vectors) { return vectors == 4 ? 6 : 8; }

}  // namespace

#define PANEL_VECTORS 4
#include "fde_kernels.inl"

const muvera::FdeKernel muvera::fde_neon{Vec::lanes, PANEL_VECTORS, &encode};
