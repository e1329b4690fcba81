// The loops of exact MaxSim, for one instruction set. The including file defines the class V of its operations.
//
// V has: Bytes, Int, Float; kLanes; load, load_ints, broadcast, dot, add, times_256, to_float; load_floats, store_floats,
// set, multiply, multiply_add, maximum.

#include "maxsim_kernel.h"

#if defined(_MSC_VER)
#define MUVERA_INLINE __forceinline
#else
#define MUVERA_INLINE inline __attribute__((always_inline))
#endif

namespace muvera {
namespace {

// Compares kRows rows with kVectors vectors of query tokens.
template <class V, int kRows, int kVectors, int kPlanes>
MUVERA_INLINE void score_code_block(const uint8_t *rows, size_t stride, const float *scales, const uint8_t *query,
                                    const int32_t *start, size_t n_groups, typename V::Float *best) {
    typename V::Int sums[kRows][kVectors][kPlanes];
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v)
            for (int p = 0; p < kPlanes; ++p) sums[r][v][p] = V::load_ints(start + (v * kPlanes + p) * V::kLanes);
    const size_t plane = n_groups * V::kLanes * 4;
    for (size_t g = 0; g < n_groups; ++g) {
        typename V::Bytes tokens[kVectors][kPlanes];
        for (int v = 0; v < kVectors; ++v)
            for (int p = 0; p < kPlanes; ++p)
                tokens[v][p] = V::load(query + (v * kPlanes + p) * plane + g * V::kLanes * 4);
        for (int r = 0; r < kRows; ++r) {
            const typename V::Bytes codes = V::broadcast(rows + r * stride + 4 * g);
            for (int v = 0; v < kVectors; ++v)
                for (int p = 0; p < kPlanes; ++p) sums[r][v][p] = V::dot(sums[r][v][p], codes, tokens[v][p]);
        }
    }
    for (int r = 0; r < kRows; ++r) {
        const typename V::Float scale = V::set(scales[r]);
        for (int v = 0; v < kVectors; ++v) {
            typename V::Int sum = sums[r][v][0];
            if (kPlanes == 2) sum = V::add(V::times_256(sum), sums[r][v][kPlanes - 1]);
            best[v] = V::maximum(best[v], V::multiply(V::to_float(sum), scale));
        }
    }
}

// Wide blocks of rows keep enough sums in flight where there are few vectors and planes.
template <class V, int kVectors, int kPlanes>
MUVERA_INLINE void score_code_rows(const uint8_t *rows, size_t stride, const float *scales, size_t n_rows,
                                   const CodeQueries &queries, size_t block, float *best) {
    constexpr int kRows = kVectors * kPlanes * 8 <= V::kMostSums ? 8 : 4;
    const uint8_t *query = queries.codes + block * kPlanes * queries.n_groups * V::kLanes * 4;
    const int32_t *start = queries.start + block * kPlanes * V::kLanes;
    typename V::Float highest[kVectors];
    for (int v = 0; v < kVectors; ++v) highest[v] = V::load_floats(best + (block + v) * V::kLanes);
    size_t r = 0;
    for (; r + kRows <= n_rows; r += kRows)
        score_code_block<V, kRows, kVectors, kPlanes>(rows + r * stride, stride, scales + r, query, start,
                                                      queries.n_groups, highest);
    for (; r < n_rows; r += 4)
        score_code_block<V, 4, kVectors, kPlanes>(rows + r * stride, stride, scales + r, query, start,
                                                  queries.n_groups, highest);
    for (int v = 0; v < kVectors; ++v) V::store_floats(best + (block + v) * V::kLanes, highest[v]);
}

template <class V>
void score_codes(const uint8_t *rows, size_t stride, const float *scales, size_t n_rows, const CodeQueries &queries,
                 float *best) {
    size_t block = 0;
    if (queries.n_planes == 2) {
        for (; block + 2 <= queries.n_blocks; block += 2)
            score_code_rows<V, 2, 2>(rows, stride, scales, n_rows, queries, block, best);
        if (block < queries.n_blocks) score_code_rows<V, 1, 2>(rows, stride, scales, n_rows, queries, block, best);
    } else {
        for (; block + 2 <= queries.n_blocks; block += 2)
            score_code_rows<V, 2, 1>(rows, stride, scales, n_rows, queries, block, best);
        if (block < queries.n_blocks) score_code_rows<V, 1, 1>(rows, stride, scales, n_rows, queries, block, best);
    }
}

template <class V, int kRows, int kVectors>
MUVERA_INLINE void score_float_block(const float *rows, size_t stride, const float *query, size_t dimension,
                                     typename V::Float *best) {
    typename V::Float sums[kRows][kVectors];
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) sums[r][v] = V::set(0.0f);
    for (size_t j = 0; j < dimension; ++j) {
        typename V::Float tokens[kVectors];
        for (int v = 0; v < kVectors; ++v) tokens[v] = V::load_floats(query + (v * dimension + j) * V::kLanes);
        for (int r = 0; r < kRows; ++r) {
            const typename V::Float value = V::set(rows[r * stride + j]);
            for (int v = 0; v < kVectors; ++v) sums[r][v] = V::multiply_add(value, tokens[v], sums[r][v]);
        }
    }
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) best[v] = V::maximum(best[v], sums[r][v]);
}

template <class V, int kVectors>
MUVERA_INLINE void score_float_rows(const float *rows, size_t stride, size_t n_rows, const FloatQueries &queries,
                                    size_t block, float *best) {
    constexpr int kRows = kVectors * 8 <= V::kMostSums ? 8 : 4;
    const float *query = queries.values + block * queries.dimension * V::kLanes;
    typename V::Float highest[kVectors];
    for (int v = 0; v < kVectors; ++v) highest[v] = V::load_floats(best + (block + v) * V::kLanes);
    size_t r = 0;
    for (; r + kRows <= n_rows; r += kRows)
        score_float_block<V, kRows, kVectors>(rows + r * stride, stride, query, queries.dimension, highest);
    for (; r < n_rows; r += 4)
        score_float_block<V, 4, kVectors>(rows + r * stride, stride, query, queries.dimension, highest);
    for (int v = 0; v < kVectors; ++v) V::store_floats(best + (block + v) * V::kLanes, highest[v]);
}

template <class V>
void score_floats(const float *rows, size_t stride, size_t n_rows, const FloatQueries &queries, float *best) {
    size_t block = 0;
    for (; block + 2 <= queries.n_blocks; block += 2) score_float_rows<V, 2>(rows, stride, n_rows, queries, block, best);
    if (block < queries.n_blocks) score_float_rows<V, 1>(rows, stride, n_rows, queries, block, best);
}

// A row's first byte, from where `n` bytes can be read: the row itself, or a copy of what can be read.
MUVERA_INLINE const uint8_t *readable(const ByteRows &rows, size_t row, size_t n, uint8_t *copy) {
    const uint8_t *data = rows.data + row * rows.stride;
    if (data + n <= rows.end) return data;
    for (size_t i = 0; i < n; ++i) copy[i] = data + i < rows.end ? data[i] : 0;
    return copy;
}

}  // namespace
}  // namespace muvera
