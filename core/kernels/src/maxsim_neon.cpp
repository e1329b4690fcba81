// Exact MaxSim with NEON, as every 64-bit ARM processor has it.
#include "maxsim_neon.inl"

namespace muvera {
namespace {

struct Neon : NeonBase {
    using Bytes = int16x8_t;
    static MUVERA_INLINE Bytes load(const uint8_t *from) { return vreinterpretq_s16_u8(vld1q_u8(from)); }
    static MUVERA_INLINE Bytes broadcast(const uint8_t *from) {
        return vreinterpretq_s16_s32(vld1q_dup_s32(reinterpret_cast<const int32_t *>(from)));
    }
    static MUVERA_INLINE Int dot(Int sum, Bytes a, Bytes b) {
        const int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
        return vaddq_s32(sum, vpaddq_s32(low, vmull_high_s16(a, b)));
    }
};

}  // namespace

extern const MaxSimKernel kNeonMaxSim = {"neon",
                                         Neon::kLanes,
                                         4,
                                         1,
                                         1,
                                         CodeForm::int16,
                                         1.5e10,
                                         score_codes<Neon>,
                                         score_floats<Neon>,
                                         unpack_int8<StoreWords>,
                                         unpack_sliced<StoreWords>,
                                         unpack_halves};

}  // namespace muvera
