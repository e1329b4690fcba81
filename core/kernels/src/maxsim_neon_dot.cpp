// Exact MaxSim with NEON and the dot products of bytes that processors have since ARMv8.2.
#include "maxsim_neon.inl"

namespace muvera {
namespace {

struct NeonDot : NeonBase {
    using Bytes = int8x16_t;
    static MUVERA_INLINE Bytes load(const uint8_t *from) { return vreinterpretq_s8_u8(vld1q_u8(from)); }
    static MUVERA_INLINE Bytes broadcast(const uint8_t *from) {
        return vreinterpretq_s8_s32(vld1q_dup_s32(reinterpret_cast<const int32_t *>(from)));
    }
    static MUVERA_INLINE Int dot(Int sum, Bytes a, Bytes b) { return vdotq_s32(sum, a, b); }
};

}  // namespace

extern const MaxSimKernel kNeonDotMaxSim = {"neon-dotprod",
                                            NeonDot::kLanes,
                                            4,
                                            1,
                                            2,
                                            CodeForm::int8,
                                            4e10,
                                            score_codes<NeonDot>,
                                            score_floats<NeonDot>,
                                            unpack_int8<StoreBytes>,
                                            unpack_sliced<StoreBytes>,
                                            unpack_halves};

}  // namespace muvera
