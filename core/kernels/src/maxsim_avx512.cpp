// Exact MaxSim with AVX-512 VNNI: 16 query tokens in a register, 64 products of bytes in an instruction.
#include "maxsim_avx512.inl"

namespace muvera {
namespace {

void unpack_biased(const ByteRows &rows, size_t dimension, size_t n_rows, uint8_t *out, size_t stride) {
    unpack_int8<StoreBytes>(rows, dimension, n_rows, out, stride, _mm256_set1_epi8(static_cast<char>(0x80)));
}

}  // namespace

extern const MaxSimKernel kAvx512MaxSim = {"avx512-vnni",
                                           Avx512::kLanes,
                                           4,
                                           1,
                                           2,
                                           CodeForm::biased_int8,
                                           1.2e11,
                                           score_codes<Avx512>,
                                           score_floats<Avx512>,
                                           unpack_biased,
                                           unpack_sliced_any<StoreBytes, LargeTable>,
                                           unpack_halves};

}  // namespace muvera
