// What an instruction set offers to exact MaxSim. Each one fills a table of functions in its own file, which is compiled
// with its own flags, so these files use nothing of the C++ library: a template of it that is compiled with AVX-512 could
// end up in code that runs everywhere.
//
// Query tokens lie in the lanes of a register. A group of a row's codes is broadcast to all lanes and multiplied with
// the same group of every query token, so that products add up in each lane and no sum across lanes is needed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace muvera {

// How the codes of a row are handed to a kernel: a group is always of 4 bytes.
enum class CodeForm {
    int8,         // 4 codes
    biased_int8,  // 4 codes, each xor 0x80: unsigned, too large by 128
    int16,        // 2 codes
};

// Query tokens in fixed point, packed for one kernel. Unused tokens and places are zero.
struct CodeQueries {
    const uint8_t *codes;  // [block of lanes][plane][group][lane][4 bytes]
    const int32_t *start;  // [block of lanes][plane][lane]: what a sum starts from
    size_t n_blocks;
    size_t n_groups;
    size_t n_planes;  // 2: value = 256 * first + second
};

// Query tokens as float32.
struct FloatQueries {
    const float *values;  // [block of lanes][coordinate][lane]
    size_t n_blocks;
    size_t dimension;
};

// Rows of bytes that are `stride` bytes apart. Bytes from `end` on must not be read.
struct ByteRows {
    const uint8_t *data;
    size_t stride;
    const uint8_t *end;
};

// The rows of a document in slices: two leading bits of each code, then none, two or six more.
struct SlicedRows {
    ByteRows lead;
    ByteRows rest;
    int n_rest_bits;
};

// Rows that a kernel reads are 64-byte aligned; their number is a multiple of `row_block`.
struct MaxSimKernel {
    const char *name;
    size_t lanes;
    size_t row_block;
    size_t group_block;  // the number of groups must be a multiple of it
    size_t n_planes;     // planes of full precision
    CodeForm form;
    double products_per_second;  // roughly, to decide whether another thread is worth its start

    // Raise best[token] to scales[row] * (codes of row · codes of token), for every row.
    void (*score_codes)(const uint8_t *rows, size_t stride, const float *scales, size_t n_rows,
                        const CodeQueries &queries, float *best);
    // Raise best[token] to row · token, for every row. `stride` counts floats.
    void (*score_floats)(const float *rows, size_t stride, size_t n_rows, const FloatQueries &queries, float *best);

    // Each writes rows in the kernel's form. They may write up to 64 bytes beyond a row: later rows must follow it.
    void (*unpack_int8)(const ByteRows &rows, size_t dimension, size_t n_rows, uint8_t *out, size_t stride);
    // The level of a code is table[code]; the table has the kernel's form. Codes are in the order of `sliced_place`.
    void (*unpack_sliced)(const SlicedRows &rows, size_t dimension, size_t n_rows, const uint8_t *table, uint8_t *out,
                          size_t stride);
    void (*unpack_halves)(const ByteRows &rows, size_t dimension, size_t n_rows, float *out, size_t stride);
};

// Where an unpacked row has coordinate j: first all coordinates with j % 4 == 0, and so on, as they lie in the bytes.
inline size_t sliced_place(size_t j, size_t dimension) { return (j % 4) * ((dimension + 3) / 4) + j / 4; }

// Bytes that may be written or read beyond a row.
constexpr size_t kSlack = 128;

extern const MaxSimKernel kPortableMaxSim;
#if defined(__x86_64__) || defined(_M_X64)
extern const MaxSimKernel kAvx2MaxSim;
extern const MaxSimKernel kAvx512MaxSim;
#if defined(MUVERA_AMX)
extern const MaxSimKernel kAmxMaxSim;
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const MaxSimKernel kNeonMaxSim;
extern const MaxSimKernel kNeonDotMaxSim;
#endif

}  // namespace muvera
