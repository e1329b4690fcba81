// The functions of CUDA's driver that muvera uses, for a GPU that is simulated on the CPU.
//
// As on a GPU, work that is put on a stream is done later: here, when somebody waits for it. So a result that is read
// too early, and a buffer that is filled again too early, give wrong results in every run. Memory is full of 0xff when
// it is allocated. The pages before and behind it cannot be touched, nor can it when it has been freed. Functions that
// begin with ``simulated_`` are for tests.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "kernel.h"

namespace {

using Address = unsigned long long;
enum : int { kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kInvalidContext = 201, kLaunchFailed = 719 };

std::recursive_mutex lock;

struct Stream {
    std::deque<std::function<void()>> work;
    uint64_t n_put = 0, n_done = 0;

    void put(std::function<void()> piece) {
        work.push_back(std::move(piece));
        ++n_put;
    }
    void run(uint64_t until) {
        while (n_done < until && !work.empty()) {
            auto piece = std::move(work.front());
            work.pop_front();
            piece();
            ++n_done;
        }
    }
    void run() { run(n_put); }
};

struct Event {
    Stream *stream = nullptr;
    uint64_t place = 0;
    std::chrono::steady_clock::time_point time;
};

Stream default_stream;
std::set<Stream *> streams{&default_stream};
std::map<Address, size_t> allocated, pinned;
size_t n_bytes = 0, n_bytes_most = size_t{1} << 30;
uint64_t n_sent = 0, n_received = 0, n_launches = 0;
int n_contexts = 0;
int64_t calls_until_failure = -1;
int failure = 0;

Stream &stream_of(Stream *stream) { return stream ? *stream : default_stream; }

// Whether a test wants the call that begins to fail.
bool fails() {
    if (calls_until_failure > 0) return --calls_until_failure, false;
    return calls_until_failure == 0;
}

#define BEGIN_TO_FREE const std::lock_guard<std::recursive_mutex> hold(lock)
#define BEGIN      \
    BEGIN_TO_FREE; \
    if (fails()) return failure

bool holds(const std::map<Address, size_t> &blocks, Address address, size_t n) {
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return false;
    const auto &[start, size] = *--after;
    return address + n <= start + size;
}

void run_all() {
    for (Stream *stream : streams) stream->run();
}

// A block of memory for ``n`` bytes, rounded up to a multiple of 16, at the end of the pages that can be used.
struct Guarded {
    size_t page = sysconf(_SC_PAGESIZE), bytes, used, all;

    explicit Guarded(size_t n)
        : bytes((n + 15) / 16 * 16), used((bytes + page - 1) / page * page), all(used + 2 * page) {}
    void *allocate() const {
        void *const start = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (start == MAP_FAILED) return nullptr;
        if (mprotect(static_cast<char *>(start) + page, used, PROT_READ | PROT_WRITE)) abort();
        void *const block = static_cast<char *>(start) + page + used - bytes;
        return memset(block, 0xff, bytes);
    }
    void free(Address block) const { munmap(reinterpret_cast<char *>(block) + bytes - used - page, all); }
};

void free_block(Address address) {
    const auto found = allocated.find(address);
    const size_t n = found->second;
    n_bytes -= n;
    allocated.erase(found);
    Guarded(n).free(address);
}

int copy(Address to, Address from, size_t n, bool from_host, bool to_host, Stream *stream) {
    if (!n) return kSuccess;
    if ((!from_host && !holds(allocated, from, n)) || (!to_host && !holds(allocated, to, n))) return kInvalidValue;
    auto *target = reinterpret_cast<char *>(to);
    const auto *source = reinterpret_cast<const char *>(from);
    n_sent += from_host && !to_host ? n : 0, n_received += to_host && !from_host ? n : 0;
    if (from_host && !holds(pinned, from, n)) {  // ordinary memory is read before the call returns
        std::vector<char> bytes(source, source + n);
        stream_of(stream).put([=] { memcpy(target, bytes.data(), n); });
        return kSuccess;
    }
    stream_of(stream).put([=] { memcpy(target, source, n); });
    if (to_host && !holds(pinned, to, n)) stream_of(stream).run();  // ... and is full when the call returns
    return kSuccess;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return kSuccess; }
int cuDriverGetVersion(int *version) { return *version = 13000, kSuccess; }
int cuDeviceGetCount(int *n) { return *n = 1, kSuccess; }
int cuDeviceGet(int *device, int number) { return *device = number, number ? 101 : kSuccess; }

int cuDevicePrimaryCtxRetain(void **context, int) {
    BEGIN;
    ++n_contexts;
    *context = &default_stream;
    return kSuccess;
}
int cuDevicePrimaryCtxRelease_v2(int) {
    BEGIN_TO_FREE;
    --n_contexts;
    return kSuccess;
}
namespace {
thread_local std::vector<void *> contexts;
}
int cuCtxPushCurrent_v2(void *context) { return contexts.push_back(context), kSuccess; }
int cuCtxPopCurrent_v2(void **context) {
    if (contexts.empty()) return kInvalidContext;
    if (context) *context = contexts.back();
    contexts.pop_back();
    return kSuccess;
}
int cuCtxGetCurrent(void **context) { return *context = contexts.empty() ? nullptr : contexts.back(), kSuccess; }
int cuCtxSetCurrent(void *context) {
    if (contexts.empty()) contexts.push_back(context);
    else contexts.back() = context;
    return kSuccess;
}
int cuCtxSynchronize() {
    BEGIN;
    run_all();
    return kSuccess;
}

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    BEGIN;
    *total = n_bytes_most, *free_bytes = n_bytes_most - n_bytes;
    return kSuccess;
}
int cuMemAlloc_v2(Address *address, size_t n) {
    BEGIN;
    if (!n) return kInvalidValue;
    if (n_bytes + n > n_bytes_most) run_all();  // memory may be waiting to be freed
    if (n_bytes + n > n_bytes_most) return kOutOfMemory;
    void *memory = Guarded(n).allocate();
    if (!memory) return kOutOfMemory;
    *address = reinterpret_cast<Address>(memory);
    allocated[*address] = n, n_bytes += n;
    return kSuccess;
}
int cuMemFree_v2(Address address) {
    BEGIN_TO_FREE;
    if (!allocated.count(address)) return kInvalidValue;
    run_all();
    free_block(address);
    return kSuccess;
}
int cuMemFreeAsync(Address address, Stream *stream) {
    BEGIN_TO_FREE;
    if (!allocated.count(address)) return kInvalidValue;
    stream_of(stream).put([=] { free_block(address); });
    return kSuccess;
}
int cuMemHostAlloc(void **memory, size_t n, unsigned) {
    BEGIN;
    if (!n || !(*memory = aligned_alloc(4096, (n + 4095) / 4096 * 4096))) return n ? kOutOfMemory : kInvalidValue;
    memset(*memory, 0xff, n);
    pinned[reinterpret_cast<Address>(*memory)] = n;
    return kSuccess;
}
int cuMemFreeHost(void *memory) {
    BEGIN_TO_FREE;
    const auto found = pinned.find(reinterpret_cast<Address>(memory));
    if (found == pinned.end()) return kInvalidValue;
    run_all();
    pinned.erase(found);
    free(memory);
    return kSuccess;
}

int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t n, Stream *stream) {
    BEGIN;
    return copy(to, reinterpret_cast<Address>(from), n, true, false, stream);
}
int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t n, Stream *stream) {
    BEGIN;
    return copy(reinterpret_cast<Address>(to), from, n, false, true, stream);
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t n, Stream *stream) {
    BEGIN;
    return copy(to, from, n, false, false, stream);
}
// The direction follows from the addresses.
int cuMemcpyAsync(Address to, Address from, size_t n, Stream *stream) {
    BEGIN;
    return copy(to, from, n, !holds(allocated, from, 1), !holds(allocated, to, 1), stream);
}
int cuMemsetD8Async(Address to, unsigned char value, size_t n, Stream *stream) {
    BEGIN;
    if (n && !holds(allocated, to, n)) return kInvalidValue;
    stream_of(stream).put([=] { memset(reinterpret_cast<void *>(to), value, n); });
    return kSuccess;
}
int cuMemsetD32Async(Address to, unsigned value, size_t n, Stream *stream) {
    BEGIN;
    if (n && !holds(allocated, to, 4 * n)) return kInvalidValue;
    stream_of(stream).put([=] { std::fill_n(reinterpret_cast<unsigned *>(to), n, value); });
    return kSuccess;
}

int cuStreamCreate(Stream **stream, unsigned) {
    BEGIN;
    streams.insert(*stream = new Stream);
    return kSuccess;
}
int cuStreamDestroy_v2(Stream *stream) {
    BEGIN_TO_FREE;
    if (!streams.count(stream)) return kInvalidValue;
    stream->run();
    streams.erase(stream);  // events may still refer to it
    return kSuccess;
}
int cuStreamSynchronize(Stream *stream) {
    BEGIN;
    stream_of(stream).run();
    return kSuccess;
}
int cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
    BEGIN;
    if (Stream *other = event->stream) {
        const uint64_t place = event->place;
        stream_of(stream).put([=] { other->run(place); });
    }
    return kSuccess;
}

int cuEventCreate(Event **event, unsigned) { return *event = new Event, kSuccess; }
int cuEventDestroy_v2(Event *event) { return delete event, kSuccess; }
int cuEventRecord(Event *event, Stream *stream) {
    BEGIN;
    event->stream = &stream_of(stream);
    event->stream->put([=] { event->time = std::chrono::steady_clock::now(); });
    event->place = event->stream->n_put;
    return kSuccess;
}
int cuEventSynchronize(Event *event) {
    BEGIN;
    if (event->stream) event->stream->run(event->place);
    return kSuccess;
}
int cuEventElapsedTime(float *milliseconds, Event *start, Event *end) {
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return kSuccess;
}

int cuLaunchKernel(const Kernel *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream *stream, void **arguments,
                   void **extra) {
    BEGIN;
    const size_t n_threads = size_t{block_x} * block_y * block_z;
    if (!grid_x || !grid_y || !grid_z || grid_y > 65535 || grid_z > 65535 || !n_threads || n_threads > 1024 ||
        shared_bytes > 48 << 10)
        return kInvalidValue;
    // Arguments are copied now: the caller may change them.
    std::vector<std::vector<char>> copies(kernel->n_arguments);
    if (extra) {  // CU_LAUNCH_PARAM_BUFFER_POINTER (1), its value, ..._BUFFER_SIZE (2), its address, ..._END (0)
        const char *buffer = nullptr;
        size_t size = 0;
        for (; *extra; extra += 2) {
            if (extra[0] == reinterpret_cast<void *>(1)) buffer = static_cast<const char *>(extra[1]);
            if (extra[0] == reinterpret_cast<void *>(2)) size = *static_cast<const size_t *>(extra[1]);
        }
        if (!buffer || kernel->n_arguments != 1 || size != kernel->sizes[0]) return kInvalidValue;
        copies[0].assign(buffer, buffer + size);
    } else {
        for (size_t i = 0; i < copies.size(); ++i) {
            const char *value = static_cast<const char *>(arguments[i]);
            copies[i].assign(value, value + kernel->sizes[i]);
        }
    }
    ++n_launches;
    stream_of(stream).put([=]() mutable {
        std::vector<void *> addresses;
        for (auto &bytes : copies) addresses.push_back(bytes.data());
        kernel->launch({kernel->run, addresses.data(), {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes});
    });
    return kSuccess;
}

int cuGetErrorName(int error, const char **name) {
    *name = error == kOutOfMemory    ? "CUDA_ERROR_OUT_OF_MEMORY"
            : error == kInvalidValue ? "CUDA_ERROR_INVALID_VALUE"
            : error == kLaunchFailed ? "CUDA_ERROR_LAUNCH_FAILED"
                                     : "CUDA_ERROR_UNKNOWN";
    return kSuccess;
}
int cuGetErrorString(int error, const char **text) {
    *text = error == kOutOfMemory    ? "out of memory"
            : error == kInvalidValue ? "invalid argument"
            : error == kLaunchFailed ? "unspecified launch failure"
                                     : "unknown error";
    return kSuccess;
}

// For tests

void simulated_memory(size_t most) { n_bytes_most = most; }
size_t simulated_bytes() { return n_bytes; }
uint64_t simulated_sent() { return n_sent; }
uint64_t simulated_received() { return n_received; }
uint64_t simulated_launches() { return n_launches; }
int simulated_contexts() { return n_contexts; }
size_t simulated_pinned() {
    size_t total = 0;
    for (const auto &[address, size] : pinned) total += size;
    return total;
}
// After ``n_calls`` more calls, all calls that do not free anything return ``error``; none does if n_calls is -1.
void simulated_failure(int64_t n_calls, int error) { calls_until_failure = n_calls, failure = error; }

}  // extern "C"
