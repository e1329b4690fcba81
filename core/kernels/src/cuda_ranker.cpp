#include "cuda_ranker.h"

#include <algorithm>
#include <cstring>

namespace muvera::cuda {

namespace {

constexpr size_t kSlots = 3;
// Memory of the first slice: small, because the GPU waits for it. And of the largest ones.
constexpr size_t kFirstBytes = 128 << 10, kMostBytes = 2 << 20;
// Results up to this size are written to the host's memory by the kernel itself.
constexpr size_t kFewBytes = 64 << 10;
constexpr unsigned kNonBlocking = 1;  // CU_STREAM_NON_BLOCKING
constexpr int64_t kThreads = 128;     // per block of the kernels that work on one number per thread
constexpr int64_t kMostThreads = 1024, kWarp = 32;
constexpr size_t kAlignment = 256;

int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Divides a block of memory into aligned parts.
class Parts {
  public:
    // The place of the next part.
    uint64_t add(size_t size) {
        const uint64_t place = next_;
        next_ += (size + kAlignment - 1) / kAlignment * kAlignment;
        return place;
    }
    uint64_t end() const { return next_; }

  private:
    uint64_t next_ = 0;
};

template <class T> void copy(T *to, const char *from, int64_t n, ptrdiff_t stride) {
    if (stride == sizeof(T)) memcpy(to, from, n * sizeof(T));
    else
        for (int64_t i = 0; i < n; ++i) memcpy(to + i, from + i * stride, sizeof(T));
}

void copy_keys(const Request &request, int64_t *keys) { copy(keys, request.keys, request.n_keys, request.key_stride); }

void copy_vectors(const Request &request, int64_t dimension, float *vectors) {
    if (request.token_stride == 4 * dimension && request.number_stride == 4) {
        copy(vectors, request.vectors, request.n_tokens * dimension, 4);
        return;
    }
    for (int64_t token = 0; token < request.n_tokens; ++token)
        copy(vectors + token * dimension, request.vectors + token * request.token_stride, dimension,
             request.number_stride);
}

uint64_t number(int64_t value) { return static_cast<uint64_t>(value); }

// Maps floats to integers so that higher floats have lower integers. The two zeros are equal.
uint32_t falling(float score) {
    score += 0.0f;
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

float score_of(uint32_t falling) {
    const uint32_t bits = falling & 0x80000000u ? falling : ~falling & 0x7fffffffu;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

}  // namespace

// Requests [begin, end) of a batch.
struct Ranker::Slice {
    size_t begin, end;
    int64_t n_tokens = 0, longest_query = 0, n_pairs = 0, longest_list = 0;
    int64_t most;     // documents to return for a request
    Ranking ranking;  // of the first request

    int64_t n_lists() const { return static_cast<int64_t>(end - begin); }
    int64_t n_chunks(const Shape &shape) const {
        return std::max<int64_t>(1, quotient_up(longest_query, shape.chunk));
    }
    int64_t n_query_rows(const Shape &shape) const { return n_lists() * n_chunks(shape) * shape.chunk; }
    bool returns_all() const { return most >= longest_list; }
    size_t result_bytes() const { return returns_all() ? 4 * n_pairs : 8 * n_lists() * most; }
    bool has_few_results() const { return !returns_all() && result_bytes() <= kFewBytes; }

    void add(const Request &request) {
        ++end;
        n_tokens += request.n_tokens, longest_query = std::max(longest_query, request.n_tokens);
        n_pairs += request.n_keys, longest_list = std::max(longest_list, request.n_keys);
    }
    // Memory of the GPU, about.
    size_t n_bytes(const Shape &shape) const {
        return 4 * n_tokens * shape.dimension + n_query_rows(shape) * (2 * shape.query_row_bytes + 4) +
               n_pairs * (16 + 4 * n_chunks(shape)) + result_bytes();
    }
};

// Where the arrays of a slice are in the memory of its slot. What is sent comes first, in the same places on both sides.
struct Ranker::Places {
    uint64_t offsets, lists, keys, vectors, sent_bytes;
    uint64_t found, coarse, fine, scales, scores, sums, results, gpu_bytes;

    Places(const Slice &slice, const Shape &shape) {
        const int64_t n_rows = slice.n_query_rows(shape), n_chunks = slice.n_chunks(shape);
        Parts parts;
        offsets = parts.add(8 * (slice.n_lists() + 1)), lists = parts.add(8 * (slice.n_lists() + 1));
        keys = parts.add(8 * slice.n_pairs), vectors = parts.add(4 * slice.n_tokens * shape.dimension);
        sent_bytes = parts.end();
        found = parts.add(4 * slice.n_pairs);
        coarse = parts.add(n_rows * shape.query_row_bytes), fine = parts.add(n_rows * shape.query_row_bytes);
        scales = parts.add(4 * n_rows);
        scores = parts.add(4 * n_chunks * slice.n_pairs);
        sums = n_chunks > 1 ? parts.add(4 * slice.n_pairs) : scores;
        results = slice.returns_all() ? sums : parts.add(slice.result_bytes());
        gpu_bytes = parts.end();
    }
};

// A stream, and the memory of the slice that is on it.
struct Ranker::Slot {
    explicit Slot(const Driver &of)
        : driver(of), sent(of, Buffer::Where::kHost), received(of, Buffer::Where::kHost), on_gpu(of, Buffer::Where::kGpu) {
        driver.check(driver.cuStreamCreate(&stream, kNonBlocking));
    }
    ~Slot() {
        driver.cuStreamSynchronize(stream);
        driver.cuStreamDestroy(stream);
    }

    const Driver &driver;
    Stream stream = nullptr;
    Buffer sent, received, on_gpu;
    Slice slice{};
    bool is_busy = false;

    // At the beginning of `received`: whether a document is not cached.
    volatile int32_t &is_missing() const { return *received.at<volatile int32_t>(0); }
    // After it.
    static constexpr size_t kResults = kAlignment;
};

Ranker::Ranker(const std::string &driver, int device_number, const Kernels &kernels, const Shape &shape)
    : driver_(driver), context_(driver_, device_number), kernels_(kernels), shape_(shape) {
    const PrimaryContext::Current current(context_);
    for (size_t i = 0; i < kSlots; ++i) slots_.push_back(std::make_unique<Slot>(driver_));
}

Ranker::~Ranker() {
    try {
        const PrimaryContext::Current current(context_);
        slots_.clear();
    } catch (const std::exception &) {  // the context is gone, and its memory with it
    }
}

size_t Ranker::n_bytes() const {
    size_t total = 0;
    for (const auto &slot : slots_) total += slot->on_gpu.size();
    return total;
}

bool Ranker::rank(const std::vector<Request> &requests, const Directory &directory, int64_t most, Ranking ranking) {
    for (const Request &request : requests)
        if (request.n_keys && request.key(request.n_keys - 1) >= directory.n_keys) return false;
    const PrimaryContext::Current current(context_);
    bool are_cached = true;
    try {
        size_t next = 0, most_bytes = kFirstBytes, n_slices = 0;
        while (next < requests.size() && are_cached) {
            Slot &slot = *slots_[n_slices++ % kSlots];
            are_cached = finish(slot, requests);
            slot.slice = next_slice(requests, next, most, most_bytes);
            slot.slice.ranking = ranking;
            for (; next < slot.slice.end; ++next) {
                const int64_t n = std::min(requests[next].n_keys, slot.slice.most);
                ranking.keys += n, ranking.scores += n;
            }
            start(slot, requests, directory);
            most_bytes = std::min(2 * most_bytes, kMostBytes);
        }
        for (size_t i = 0; i < kSlots; ++i)
            are_cached = finish(*slots_[n_slices++ % kSlots], requests) && are_cached;
    } catch (...) {
        for (const auto &slot : slots_) {  // the GPU may still be using their memory
            driver_.cuStreamSynchronize(slot->stream);
            slot->is_busy = false;
        }
        throw;
    }
    return are_cached;
}

// As many requests as need no more than `most_bytes`, at least one.
Ranker::Slice Ranker::next_slice(const std::vector<Request> &requests, size_t begin, int64_t most,
                                 size_t most_bytes) const {
    Slice slice{begin, begin};
    slice.most = most < 0 ? INT64_MAX : most;
    while (slice.end < requests.size()) {
        Slice longer = slice;
        longer.add(requests[slice.end]);
        if (longer.n_lists() > 1 && longer.n_bytes(shape_) > most_bytes) break;
        slice = longer;
    }
    return slice;
}

// Copies a slice's queries and keys to pinned memory, and puts all work on it on the stream.
void Ranker::start(Slot &slot, const std::vector<Request> &requests, const Directory &directory) const {
    const Slice &slice = slot.slice;
    if (slice.n_pairs == 0 || slice.most == 0) return;
    const Places places(slice, shape_);
    slot.sent.reserve(places.sent_bytes);
    slot.received.reserve(Slot::kResults + slice.result_bytes());
    slot.on_gpu.reserve(places.gpu_bytes);

    auto *offsets = slot.sent.at<int64_t>(places.offsets), *lists = slot.sent.at<int64_t>(places.lists);
    auto *keys = slot.sent.at<int64_t>(places.keys);
    auto *vectors = slot.sent.at<float>(places.vectors);
    *offsets = *lists = 0;
    for (size_t i = slice.begin; i < slice.end; ++i) {
        copy_keys(requests[i], keys);
        copy_vectors(requests[i], shape_.dimension, vectors);
        keys += requests[i].n_keys, vectors += requests[i].n_tokens * shape_.dimension;
        offsets[1] = *offsets + requests[i].n_tokens, ++offsets;
        lists[1] = *lists + requests[i].n_keys, ++lists;
    }
    slot.is_missing() = 0;
    slot.is_busy = true;
    driver_.check(driver_.cuMemcpyHtoDAsync(slot.on_gpu.address(), slot.sent.at<void>(0), places.sent_bytes, slot.stream));
    launch_all(slot, places, directory);
    if (!slice.has_few_results())
        driver_.check(driver_.cuMemcpyDtoHAsync(slot.received.at<void>(Slot::kResults),
                                                slot.on_gpu.address() + places.results, slice.result_bytes(),
                                                slot.stream));
}

// The kernels, in the order in which they need each other's results. The grids are those of `CudaSession`.
void Ranker::launch_all(const Slot &slot, const Places &places, const Directory &directory) const {
    const Slice &slice = slot.slice;
    const Address at = slot.on_gpu.address();
    const int64_t n_rows = slice.n_query_rows(shape_), n_chunks = slice.n_chunks(shape_), n_lists = slice.n_lists();
    const uint64_t n_pairs = slice.n_pairs;
    launch(slot, kernels_.find_places, quotient_up(n_pairs, kThreads), 1, kThreads,
           {at + places.keys, n_pairs, directory.place_of_key, number(directory.n_keys), at + places.found,
            slot.received.address()});
    launch(slot, kernels_.split_queries, quotient_up(n_rows, shape_.warps_per_block), 1, kWarp * shape_.warps_per_block,
           {at + places.vectors, at + places.offsets, number(shape_.dimension), number(shape_.query_row_width),
            number(n_chunks * shape_.chunk), number(n_rows), number(shape_.limit), at + places.coarse, at + places.fine,
            at + places.scales});
    const int64_t wanted = std::max(n_chunks, std::min(slice.longest_list * n_chunks, shape_.most_warps / n_lists));
    const int64_t n_warps = n_chunks <= shape_.warps_per_block ? shape_.warps_per_block : shape_.warps_together;
    launch(slot, kernels_.maxsim, quotient_up(wanted, n_warps), n_lists, kWarp * n_warps,
           {at + places.coarse, at + places.fine, at + places.scales, number(n_chunks), number(shape_.query_row_bytes),
            directory.rows_at, directory.scales_at, directory.n_tokens, at + places.found, at + places.lists, n_pairs,
            at + places.scores});
    if (n_chunks > 1)
        launch(slot, kernels_.add_chunks, quotient_up(n_pairs, kThreads), 1, kThreads,
               {at + places.scores, number(n_chunks), n_pairs, at + places.sums});
    if (slice.returns_all()) return;
    const Address results = slice.has_few_results() ? slot.received.address() + Slot::kResults : at + places.results;
    launch(slot, kernels_.select, n_lists, 1, std::min(kMostThreads, quotient_up(slice.longest_list, kWarp) * kWarp),
           {at + places.sums, at + places.lists, number(slice.most), results,
            results + 4 * number(n_lists * slice.most)});
}

// A kernel's argument is one structure of 8-byte numbers.
void Ranker::launch(const Slot &slot, Function kernel, int64_t grid_x, int64_t grid_y, int64_t n_threads,
                    std::initializer_list<uint64_t> given) const {
    void *arguments[] = {const_cast<uint64_t *>(given.begin())};
    driver_.check(driver_.cuLaunchKernel(kernel, static_cast<unsigned>(grid_x), static_cast<unsigned>(grid_y), 1,
                                         static_cast<unsigned>(n_threads), 1, 1, 0, slot.stream, arguments, nullptr));
}

// Waits for the slice that is on the stream, and sorts its results. Returns whether all its documents are cached.
bool Ranker::finish(Slot &slot, const std::vector<Request> &requests) const {
    if (!slot.is_busy) return true;
    driver_.check(driver_.cuStreamSynchronize(slot.stream));
    slot.is_busy = false;
    if (slot.is_missing()) return false;
    const Slice &slice = slot.slice;
    const auto *scores = slot.received.at<float>(Slot::kResults);
    const auto *chosen = slot.received.at<int32_t>(Slot::kResults);
    if (!slice.returns_all()) scores += slice.n_lists() * slice.most;
    Ranking ranking = slice.ranking;
    std::vector<uint64_t> best;
    for (size_t i = slice.begin; i < slice.end; ++i) {
        const int64_t n = std::min(requests[i].n_keys, slice.most);
        best.resize(n);
        for (int64_t j = 0; j < n; ++j) {
            // -1 stands for a score of minus infinity, which no document has.
            const int64_t place = slice.returns_all() ? j : std::max(chosen[j], 0);
            best[j] = uint64_t{falling(scores[j])} << 32 | number(place);
        }
        std::sort(best.begin(), best.end());  // places rise with keys
        for (int64_t j = 0; j < n; ++j) {
            ranking.keys[j] = requests[i].key(best[j] & 0xffffffffu);
            ranking.scores[j] = score_of(static_cast<uint32_t>(best[j] >> 32));
        }
        ranking.keys += n, ranking.scores += n;
        scores += slice.returns_all() ? n : slice.most, chosen += slice.most;
    }
    return true;
}

}  // namespace muvera::cuda
