// Runs CUDA kernels on the CPU, so that they are tested without a GPU. It is included before a kernel file.
//
// Each thread of a block is a fiber. A fiber runs until it meets a barrier, or an instruction that a warp executes
// together. Fibers go on in a random order, so that a missing barrier shows. The blocks of a launch run one after the
// other. If all fibers of a block wait, the program ends with a message: on a GPU it would hang.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "kernel.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

inline Dim threadIdx, blockIdx, blockDim, gridDim;

namespace fibers {

// A place where execution stopped, with a stack of its own.
class Context {
  public:
    // Leaves ``from`` and goes on in ``to``.
    static void change(Context &from, Context &to);
    // The next change to this context calls ``start``, which does not return.
    void prepare(void (*start)());

  private:
    static constexpr size_t kStack = 256 << 10;
    std::unique_ptr<char[]> stack_;
#if defined(__x86_64__)
    void *top_ = nullptr;
#else
    ucontext_t context_{};
#endif
};

#if defined(__x86_64__)
// Saves the registers that a function must keep, exchanges the stacks, and restores those of the other.
extern "C" void muvera_change_stack(void **from, void *to);
asm(R"(
.weak muvera_change_stack
muvera_change_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
inline void Context::change(Context &from, Context &to) { muvera_change_stack(&from.top_, to.top_); }
inline void Context::prepare(void (*start)()) {
    if (!stack_) stack_.reset(new char[kStack]);
    auto end = reinterpret_cast<uintptr_t>(stack_.get() + kStack) & ~uintptr_t{15};
    auto *words = reinterpret_cast<void **>(end);
    words[-1] = nullptr;  // what ``start`` would return to
    words[-2] = reinterpret_cast<void *>(start);
    for (int i = 3; i <= 8; ++i) words[-i] = nullptr;
    top_ = words - 8;
}
#else
inline void Context::change(Context &from, Context &to) { swapcontext(&from.context_, &to.context_); }
inline void Context::prepare(void (*start)()) {
    if (!stack_) stack_.reset(new char[kStack]);
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_.get();
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    makecontext(&context_, start, 0);
}
#endif

struct Barrier {
    int expected = 0, arrived = 0;
    unsigned generation = 0;

    void release_if_full() {
        if (arrived && arrived == expected) arrived = 0, ++generation;
    }
};

// What the threads of a warp exchange. There are two sets of places, so that a fast thread does not overwrite what a
// slow one has not read.
struct Warp {
    Barrier barrier;
    uint64_t given[2][32][6], result[2][32][4];
};

struct Thread {
    Context context;
    Dim index;
    int lane = 0;
    Warp *warp = nullptr;
    Barrier *waits_for = nullptr;
    unsigned generation = 0, exchanges = 0;
    bool is_done = false;

    bool can_run() const { return !is_done && (!waits_for || waits_for->generation != generation); }
};

struct Block {
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    Barrier barrier;
    Context scheduler;
    Thread *current = nullptr;
    std::vector<char> shared;
    const Call *call = nullptr;
    std::mt19937 random{12345};
};
inline Block block;

// Leaves a thread that waits, for another of its warp that can run, or for the scheduler.
inline void change_from(Thread &thread) {
    Thread *const first = &thread - thread.lane;
    const int n = std::min<int>(32, static_cast<int>(block.threads.data() + block.threads.size() - first));
    for (int i = 1; i < n; ++i) {
        Thread &other = first[(thread.lane + i) % n];
        if (!other.can_run()) continue;
        block.current = &other, threadIdx = other.index;
        Context::change(thread.context, other.context);
        return;
    }
    Context::change(thread.context, block.scheduler);
}

inline void wait(Barrier &barrier) {
    Thread &thread = *block.current;
    thread.waits_for = &barrier, thread.generation = barrier.generation;
    ++barrier.arrived;
    barrier.release_if_full();
    if (!thread.can_run()) change_from(thread);
    thread.waits_for = nullptr;
}

// Gives ``values`` to the warp. The last thread that arrives calls ``combine`` for all. Returns this thread's result.
template <class Combine>
const uint64_t *exchange(std::initializer_list<uint64_t> values, Combine combine) {
    Thread &thread = *block.current;
    Warp &warp = *thread.warp;
    const int set = thread.exchanges++ % 2;
    int i = 0;
    for (const uint64_t value : values) warp.given[set][thread.lane][i++] = value;
    if (warp.barrier.arrived + 1 == warp.barrier.expected) combine(warp.given[set], warp.result[set]);
    wait(warp.barrier);
    return warp.result[set][thread.lane];
}

inline void run_thread() {
    for (;;) {
        block.call->run(block.call->arguments);
        Thread &thread = *block.current;
        thread.is_done = true;
        for (Barrier *barrier : {&block.barrier, &thread.warp->barrier}) {
            --barrier->expected;
            barrier->release_if_full();
        }
        Context::change(thread.context, block.scheduler);
    }
}

inline void start_block(const Dim &size) {
    const size_t n = size_t{size.x} * size.y * size.z;
    if (n > 1024) {
        fprintf(stderr, "a block has %zu threads, more than 1024\n", n);
        abort();
    }
    block.threads.resize(n), block.warps.resize((n + 31) / 32);
    block.barrier = {static_cast<int>(n)};
    for (size_t i = 0; i < block.warps.size(); ++i)
        block.warps[i].barrier = {static_cast<int>(std::min<size_t>(32, n - 32 * i))};
    for (size_t i = 0; i < n; ++i) {
        Thread &thread = block.threads[i];
        thread.index = {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
                        static_cast<unsigned>(i / size.x / size.y)};
        thread.lane = i % 32, thread.warp = &block.warps[i / 32];
        thread.waits_for = nullptr, thread.is_done = false, thread.exchanges = 0;
        thread.context.prepare(run_thread);
    }
}

// Runs the threads of a block to their end.
inline void run_block() {
    const size_t n_warps = block.warps.size(), n = block.threads.size();
    for (bool goes_on = true; goes_on;) {
        goes_on = false;
        bool waits = false;
        const size_t first = block.random() % n_warps;
        for (size_t w = 0; w < n_warps; ++w) {
            const size_t start = (first + w) % n_warps * 32, size = std::min<size_t>(32, n - start);
            for (bool runs = true; runs;) {  // a warp runs until it waits for the others
                runs = false;
                const size_t offset = block.random() % size;
                for (size_t i = 0; i < size; ++i) {
                    Thread &thread = block.threads[start + (offset + i) % size];
                    if (!thread.can_run()) continue;
                    runs = goes_on = true;
                    block.current = &thread, threadIdx = thread.index;
                    Context::change(block.scheduler, thread.context);
                }
            }
        }
        for (const Thread &thread : block.threads) waits = waits || !thread.is_done;
        if (waits && !goes_on) {
            fprintf(stderr, "the threads of a block wait for one another for ever\n");
            abort();
        }
    }
}

inline void launch(const Call &call) {
    block.call = &call;
    blockDim = call.block, gridDim = call.grid;
    for (unsigned z = 0; z < gridDim.z; ++z)
        for (unsigned y = 0; y < gridDim.y; ++y)
            for (unsigned x = 0; x < gridDim.x; ++x) {
                blockIdx = {x, y, z};
                block.shared.assign(call.shared_bytes, '\xff');
                start_block(call.block);
                run_block();
            }
}

// Calls a kernel with arguments that are given by their addresses.
template <class... Arguments, size_t... I>
void call(void (*kernel)(Arguments...), void *const *arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<Arguments> *>(arguments[I])...);
}

template <auto kernel>
struct Described;

template <class... Arguments, void (*kernel)(Arguments...)>
struct Described<kernel> {
    static void run(void *const *arguments) { call(kernel, arguments, std::index_sequence_for<Arguments...>()); }
    static inline const size_t sizes[] = {sizeof(Arguments)...};
    static inline const Kernel value{run, launch, sizeof...(Arguments), sizes};
};

}  // namespace fibers

// What CUDA C++ has and C++ lacks

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __restrict__

struct uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }

template <class To, class From>
inline To same_bits(From value) {
    static_assert(sizeof(To) >= sizeof(From), "a number does not fit");
    To bits{};
    memcpy(&bits, &value, sizeof value);
    return bits;
}
inline float __int_as_float(int value) { return same_bits<float>(value); }
inline float __uint_as_float(unsigned value) { return same_bits<float>(value); }
inline int __float_as_int(float value) { return same_bits<int>(value); }
inline unsigned __float_as_uint(float value) { return same_bits<unsigned>(value); }
inline int __float2int_rn(float value) { return static_cast<int>(std::nearbyint(value)); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) { return value ? __builtin_clz(value) : 32; }
inline float __fadd_ru(float a, float b) { return std::nextafter(a + b, INFINITY); }
inline float __fmul_ru(float a, float b) { return std::nextafter(a * b, INFINITY); }
// A load of several bytes at once fails on a GPU unless its address is a multiple of their number.
template <class T> T __ldg(const T *at) {
    if (reinterpret_cast<uintptr_t>(at) % sizeof(T)) {
        fprintf(stderr, "a load of %zu bytes at %p is not aligned\n", sizeof(T), static_cast<const void *>(at));
        abort();
    }
    return *at;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Each byte of the result is the byte of (b, a) that its nibble of the selector names, or copies of that byte's sign.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned nibble = selector >> (4 * i) & 15, byte = bytes >> (8 * (nibble & 7)) & 255;
        result |= (nibble & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
    }
    return result;
}

// Threads of a block run one at a time, so that a read and a write are not interrupted.
template <class T, class V> T atomicAdd(T *at, V value) { const T old = *at; *at = old + value; return old; }
template <class T, class V> T atomicMin(T *at, V value) { const T old = *at; if (value < old) *at = value; return old; }
template <class T, class V> T atomicMax(T *at, V value) { const T old = *at; if (old < value) *at = value; return old; }
template <class T, class V> T atomicOr(T *at, V value) { const T old = *at; *at = old | value; return old; }
template <class T, class V> T atomicExch(T *at, V value) { const T old = *at; *at = value; return old; }

inline void __syncthreads() { fibers::wait(fibers::block.barrier); }
inline void __syncwarp(unsigned = ~0u) { fibers::wait(fibers::block.current->warp->barrier); }
inline char *dynamic_shared_memory() { return fibers::block.shared.data(); }

// The value of the lane that ``source`` gives for each lane.
template <class T, class Source>
T from_lane(T value, Source source) {
    const uint64_t *result = fibers::exchange({same_bits<uint64_t>(value)}, [&](auto &given, auto &results) {
        for (int lane = 0; lane < 32; ++lane) {
            const int other = source(lane);
            results[lane][0] = given[other >= 0 && other < 32 ? other : lane][0];
        }
    });
    T found;
    memcpy(&found, result, sizeof found);
    return found;
}
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return from_lane(value, [=](int lane) { return lane ^ mask; });
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned step) {
    return from_lane(value, [=](int lane) { return lane - static_cast<int>(step); });
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned step) {
    return from_lane(value, [=](int lane) { return lane + static_cast<int>(step); });
}
template <class T> T __shfl_sync(unsigned, T value, int source) {
    // Each lane may name another source, so the sources are exchanged as well.
    const uint64_t *result =
        fibers::exchange({same_bits<uint64_t>(value), static_cast<uint64_t>(source & 31)}, [&](auto &given, auto &results) {
            for (int lane = 0; lane < 32; ++lane) results[lane][0] = given[given[lane][1]][0];
        });
    T found;
    memcpy(&found, result, sizeof found);
    return found;
}
inline unsigned __ballot_sync(unsigned, int holds) {
    const int n = fibers::block.current->warp->barrier.expected;
    return fibers::exchange({static_cast<uint64_t>(holds != 0)}, [&](auto &given, auto &results) {
        uint64_t bits = 0;
        for (int lane = 0; lane < n; ++lane) bits |= given[lane][0] << lane;
        for (auto &result : results) result[0] = bits;
    })[0];
}
inline int __any_sync(unsigned mask, int holds) { return __ballot_sync(mask, holds) != 0; }
inline int __all_sync(unsigned mask, int holds) { return __ballot_sync(mask, !holds) == 0; }
