// The highest scores of lists. ``maxsim.cu`` comes before this file.

// Maps floats to unsigned integers in the same order.
__device__ __forceinline__ u32 ordered(float value) {
    const u32 bits = __float_as_uint(value);
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

// Counts two kinds of threads of the block, ``is_first`` in the upper 16 bits of the results, ``is_second`` in the
// lower ones: how many come before this thread, and how many there are. ``counts`` is shared memory.
__device__ __forceinline__ u32 count_before(bool is_first, bool is_second, u32 (&counts)[32], u32 &all) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u32 first = __ballot_sync(~0u, is_first), second = __ballot_sync(~0u, is_second);
    __syncthreads();
    if (lane == 0) counts[warp] = __popc(first) << 16 | __popc(second);
    __syncthreads();
    u32 before = 0;
    all = 0;
    for (int i = 0; i < blockDim.x / 32; i++) {
        if (i == warp) before = all;
        all += counts[i];
    }
    const u32 below = (1u << lane) - 1;
    return before + (__popc(first & below) << 16 | __popc(second & below));
}

// Adds the warp's numbers to bins. Scores are often alike in their leading bits, so those that have the bin of the first
// one are added at once.
__device__ __forceinline__ void count_in_bins(u32 *bins, u32 bin, bool is_there) {
    const u32 there = __ballot_sync(~0u, is_there);
    if (!there) return;
    const int first = __ffs(there) - 1;
    const u32 bin_of_first = __shfl_sync(~0u, bin, first);
    const bool is_same = is_there && bin == bin_of_first;
    const u32 same = __ballot_sync(~0u, is_same);
    if (threadIdx.x % 32 == first) atomicAdd(bins + bin, __popc(same));
    else if (is_there && !is_same) atomicAdd(bins + bin, 1);
}

// Finds the bin of the number that is ``rank``-th from the highest, and how many numbers are in higher bins. One warp
// calls this.
__device__ __forceinline__ void find_bin(const u32 *bins, u32 rank, u32 &bin, u32 &n_higher) {
    const int lane = threadIdx.x % 32;
    u32 count = 0;  // in the lane's eight bins; the first lane has the highest ones
    for (int i = 0; i < 8; i++) count += bins[255 - 8 * lane - i];
    u32 until = count;
    for (int step = 1; step < 32; step *= 2) {
        const u32 before = __shfl_up_sync(~0u, until, step);
        if (lane >= step) until += before;
    }
    u32 higher = until - count;
    if (higher >= rank || until < rank) return;
    for (int i = 255 - 8 * lane;; i--) {
        if (higher + bins[i] >= rank) {
            bin = i, n_higher = higher;
            return;
        }
        higher += bins[i];
    }
}

struct Select {
    const float *scores;
    const i64 *lists;  // list i has the scores lists[i] .. lists[i + 1]
    i64 k;
    int *places;    // [list][k], index in the list
    float *values;  // [list][k]
};

// Selects the ``k`` highest scores of each list, in the order of the list. Of equal scores, the first are taken, and of
// minus infinities none. If a list has fewer scores than k, the rest is -1 and minus infinity. Each block works on one
// list.
extern "C" __global__ void __launch_bounds__(1024) select(const Select given) {
    const i64 start = given.lists[blockIdx.x];
    const int n = given.lists[blockIdx.x + 1] - start, k = given.k;
    const float *list = given.scores + start;
    int *chosen = given.places + blockIdx.x * given.k;
    float *value = given.values + blockIdx.x * given.k;
    __shared__ u32 bins[256], counts[32], found, n_higher;

    // Find the k-th highest score, eight bits at a time, and how many scores that equal it are wanted.
    u32 threshold = 0, n_equal = k;
    for (int shift = 24; shift >= 0 && n > k; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += blockDim.x) bins[i] = 0;
        __syncthreads();
        for (int base = 0; base < n; base += blockDim.x) {
            const int i = base + threadIdx.x;
            const u32 score = i < n ? ordered(list[i]) : 0;
            const u32 mask = shift == 24 ? 0 : ~0u << (shift + 8);
            count_in_bins(bins, score >> shift & 255, i < n && (score & mask) == threshold);
        }
        __syncthreads();
        if (threadIdx.x < 32) find_bin(bins, n_equal, found, n_higher);
        __syncthreads();
        threshold |= found << shift, n_equal -= n_higher;
    }
    const u32 nothing = ordered(NEGATIVE_INFINITY);
    if (threshold <= nothing) threshold = nothing, n_equal = 0;
    // In the order of the list, take all higher scores, and as many equal ones as are still wanted.
    int n_chosen = 0;
    for (int base = 0; base < n; base += blockDim.x) {
        const int i = base + threadIdx.x;
        const float score = i < n ? list[i] : NEGATIVE_INFINITY;
        const bool is_higher = ordered(score) > threshold, is_equal = ordered(score) == threshold;
        u32 all;
        const u32 before = count_before(is_higher, is_equal, counts, all), equal_before = before & 0xffff;
        const int place = n_chosen + (before >> 16) + min(equal_before, n_equal);
        if (is_higher || (is_equal && equal_before < n_equal)) chosen[place] = i, value[place] = score;
        n_chosen += (all >> 16) + min(all & 0xffff, n_equal);
        n_equal -= min(all & 0xffff, n_equal);
    }
    for (int i = n_chosen + threadIdx.x; i < k; i += blockDim.x) chosen[i] = -1, value[i] = NEGATIVE_INFINITY;
}

struct LookUp {
    int *places;       // [list][k], index in the list; -1 stays
    const i64 *lists;  // list i has the numbers lists[i] .. lists[i + 1] of the table
    i64 n_lists, k;
    const int *table;
    const i64 *origins;  // added to the numbers of the table; null if there are none
    i64 per_origin;      // of how many numbers of the table each origin is
};

// Replaces each place in a list by the number that the table has there.
extern "C" __global__ void look_up(const LookUp given) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= given.n_lists * given.k || given.places[i] < 0) return;
    const i64 at = given.lists[i / given.k] + given.places[i];
    given.places[i] = given.table[at] + (given.origins ? (int)given.origins[at / given.per_origin] : 0);
}
