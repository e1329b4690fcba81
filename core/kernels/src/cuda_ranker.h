// Ranks documents that are cached on a GPU, a list of its own for each query, in one call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "cuda_driver.h"

namespace muvera::cuda {

// Handles of the kernels of `maxsim.cu`.
struct Kernels {
    Function find_places, split_queries, maxsim, add_chunks, select;
};

// What the kernels are launched with; see `RowLayout` and `engine.py`.
struct Shape {
    int64_t dimension;        // of query vectors
    int64_t query_row_bytes;  // of a query token's coarse row, and of its fine row
    int64_t query_row_width;  // numbers in such a row
    int64_t limit;
    int64_t chunk;             // query tokens that a warp holds
    int64_t warps_together;    // of the MaxSim kernel, on a multiprocessor
    int64_t warps_per_block;   // of all other kernels, and of the MaxSim kernel for few chunks
    int64_t most_warps;        // of the MaxSim kernel, for all lists together
};

// Where the GPU finds the cached documents.
struct Directory {
    Address place_of_key;  // int32, -1 for keys that are not cached
    int64_t n_keys;        // higher keys are not cached
    Address rows_at, scales_at, n_tokens;
};

// A query and the documents to rank for it. Strides are in bytes.
struct Request {
    const char *vectors;  // float32, [token][dimension]
    int64_t n_tokens;
    ptrdiff_t token_stride, number_stride;
    const char *keys;  // int64, ascending
    int64_t n_keys;
    ptrdiff_t key_stride;

    int64_t key(int64_t i) const { return *reinterpret_cast<const int64_t *>(keys + i * key_stride); }
};

// Room for the best documents of requests, one request after the other.
struct Ranking {
    int64_t *keys;
    float *scores;
};

// Used by one thread at a time.
//
// A batch is worked through in slices of requests, each on the next of a few streams. What the processor does for a
// slice (copying queries and keys to pinned memory, and launching) and what it does afterwards (sorting the best) takes
// less time than the GPU's work on it. So:
// - The GPU waits for the first slice to be packed. That one is small. Each next one may be twice as large, because it
//   is packed while the GPU works on the one before.
// - The GPU does not wait for later copies, nor at the end of a slice, when its last blocks leave multiprocessors idle:
//   the next slice is on another stream, and its copy and its kernels run as soon as there is room.
// - The processor waits for the GPU where it needs a slice's memory again, a few slices later, and at the end. It then
//   sorts what that slice has found, while the GPU works on the next ones.
// - Few results are written to pinned memory by the kernel that selects them, so that no copy is waited for.
//
// The kernels are launched one by one, not as a CUDA graph: the GPU begins with the first one while the others are being
// launched, and in a graph every node would need new addresses, sizes and grids in each call.
class Ranker {
  public:
    // Throws OutOfMemory or std::runtime_error, as all methods do.
    Ranker(const std::string &driver, int device_number, const Kernels &kernels, const Shape &shape);
    ~Ranker();
    Ranker(const Ranker &) = delete;
    Ranker &operator=(const Ranker &) = delete;

    // Ranks by falling score, ties by rising key.
    //
    // most: how many documents to return for a request; all if negative. A request with fewer has all of them.
    // ranking: room for the results of all requests.
    //
    // Returns false if a document is not cached. The ranking is then undefined.
    bool rank(const std::vector<Request> &requests, const Directory &directory, int64_t most, Ranking ranking);

    // GPU memory that is held between calls.
    size_t n_bytes() const;

  private:
    struct Slice;
    struct Places;
    struct Slot;

    Slice next_slice(const std::vector<Request> &requests, size_t begin, int64_t most, size_t most_bytes) const;
    void start(Slot &slot, const std::vector<Request> &requests, const Directory &directory) const;
    void launch_all(const Slot &slot, const Places &places, const Directory &directory) const;
    void launch(const Slot &slot, Function kernel, int64_t grid_x, int64_t grid_y, int64_t n_threads,
                std::initializer_list<uint64_t> given) const;
    bool finish(Slot &slot, const std::vector<Request> &requests) const;

    Driver driver_;
    PrimaryContext context_;
    Kernels kernels_;
    Shape shape_;
    std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace muvera::cuda
