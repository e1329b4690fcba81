// Fixed Dimensional Encodings (MUVERA, arXiv 2405.19504) of token sets.
//
// How an encoding is computed, so that its bits depend on nothing but the text and the kernel:
// - The product of a token with a hyperplane adds the dimensions up in order, in float32. Kernels with fused
//   multiply-add ("avx512-vnni", "avx2", "neon") round once per dimension and agree in every bit, "portable" rounds
//   twice. NumPy adds up in another order. So a token that is within rounding of a hyperplane can be on another side.
// - Tokens of a partition are added up in order. The sum is projected, not each token: a projection is linear.
#pragma once

#include <cstdint>

namespace muvera {

// The settings and matrices of an encoder. Matrices are cut into panels of columns, the widest first; a panel holds
// its columns row by row, so that a kernel reads it from beginning to end. Columns are padded with zeros to whole
// vectors of the kernel.
struct FdePlan {
    int64_t dimension;     // of a token
    int64_t repetitions;
    int hyperplanes;       // per repetition
    bool fill;             // empty partitions of documents take the nearest token
    int64_t side_columns;  // all hyperplanes, padded
    const float *sides;    // panels; those of one repetition are in reversed order, so the first gives the highest bit
    int64_t width;         // of a partition's value
    int64_t value_columns; // width, padded
    const float *projections;       // panels of each repetition; null if tokens are kept whole or sparse
    const int32_t *sparse_column;   // (repetitions, dimension): where a count-sketch puts a dimension; null otherwise
    const float *sparse_weight;     // (repetitions, dimension)
    int64_t output;                 // width of an encoding
    const int32_t *sketch_index;    // (repetitions, partitions, width): final projection; null if there is none
    const float *sketch_sign;
    const float *mean;              // subtracted from each token; null if nothing is
};

// Memory of one thread; floats are aligned to 64 bytes. `words` is the number of 64-bit words with the sides of one token.
struct FdeScratch {
    int64_t words;
    float *tokens;       // (tokens, dimension): a copy, less the mean
    uint64_t *sides;     // (tokens, words)
    uint16_t *cells;     // (tokens): the cell of each token in one repetition
    int32_t *order;      // (tokens): tokens by cell
    int32_t *starts;     // (partitions + 1): where a cell begins in `order`
    int64_t *nearest;    // (partitions)
    int32_t *row;        // (partitions): the row with the value of a cell, or -1
    int32_t *first_row;  // (partitions): the row with the first token of a cell, or -1
    float *scale;        // (rows)
    const float **rows;  // (rows)
    float *sums;         // (partitions that hold several tokens, dimension)
    float *values;       // (rows, value_columns)
};

// One kernel. It encodes `n` tokens to `plan.output` numbers.
struct FdeKernel {
    int lanes;    // numbers in a vector
    int vectors;  // vectors in the widest panel
    void (*encode)(const FdePlan &plan, const FdeScratch &scratch, const float *tokens, int64_t n, bool is_document,
                   float *encoding);
};

extern const FdeKernel fde_avx512, fde_avx2, fde_neon, fde_portable;

}  // namespace muvera
