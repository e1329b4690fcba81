// Exact MaxSim of queries with documents: packs the queries, reads and unpacks rows, and shares the work among threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "file_reader.h"
#include "maxsim_kernel.h"

namespace muvera {

enum class Precision { int8, float16, float32, sliced };

// Query tokens, end to end. Query i owns tokens offsets[i] to offsets[i + 1].
struct Queries {
    const float *tokens;
    const int64_t *offsets;
    size_t n_queries;
    size_t dimension;
};

// Blocks of bytes, one per document, in a file or in memory.
struct StoredDocuments {
    const FileReader *file;  // null: in memory
    const uint8_t *data;
    uint64_t size;  // bytes in memory
    const int64_t *first;
    const int64_t *count;
    size_t n_documents;
    Precision precision;
    int n_rest_bits;        // of sliced rows
    const int8_t *levels;   // of sliced rows: the level of each code
    bool coarse;            // score leading bits only; `levels` has 4 entries then
};

// Rows in memory: codes, and a scale for each row if they are int8. Document i owns rows offsets[i] to offsets[i + 1].
struct LooseDocuments {
    ByteRows rows;
    ByteRows scales;
    const int64_t *offsets;
    size_t n_documents;
    Precision precision;
};

// What went wrong with which document; error 0 means nothing did.
struct Failure {
    size_t document;
    int error;
};

// Bytes of one row of a document.
size_t row_bytes(Precision precision, int n_rest_bits, size_t dimension);

// Each writes scores[query * n_documents + document]. The same results for any number of threads.
Failure score_stored(const MaxSimKernel &kernel, const StoredDocuments &documents, const Queries &queries,
                     size_t n_threads, float *scores);
void score_loose(const MaxSimKernel &kernel, const LooseDocuments &documents, const Queries &queries,
                 size_t n_threads, float *scores);

// Kernels that run here, the fastest first.
const std::vector<const MaxSimKernel *> &maxsim_kernels();

}  // namespace muvera
