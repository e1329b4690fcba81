// Exact MaxSim on tensor cores. One pass computes the products, their maxima over a document's tokens, and the sum of
// the maxima over the query's tokens, so only one number per document is written.
//
// A warp holds one chunk of a query (8 * TILES tokens) in registers and goes through documents, 16 tokens at a time. A
// row is one token's vector, int8 or float16, padded with zeros to a multiple of 32 bytes.
//
// Each number of the query is split into two numbers of the rows' type, coarse and fine, and each query token has a
// scale. With int8, value = scale * (128 * coarse + fine), and the products are exact in int32. With float16,
// value = scale * (coarse + fine), and the products are added up in float32.
//
// Needs compute capability 8.0. No header is included, because CuPy is often installed without them. Each kernel takes
// one structure of 8-byte numbers, because CuPy needs microseconds for every argument.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define NEGATIVE_INFINITY __int_as_float(0xff800000)

struct Int8 {
    typedef int Sum;
    static __device__ __forceinline__ void multiply(Sum (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
        asm(
            "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }
    static __device__ __forceinline__ void raise(Sum &coarse) { coarse *= 128; }
    static __device__ __forceinline__ float scale(const float *scales, int row) { return __ldg(scales + row); }
};

struct Float16 {
    typedef float Sum;
    static __device__ __forceinline__ void multiply(Sum (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
        asm(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }
    static __device__ __forceinline__ void raise(Sum &coarse) {}
    static __device__ __forceinline__ float scale(const float *scales, int row) { return 1.0f; }
};

// Loads a lane's quarter (``lane % 4``) of 32 * STEPS bytes of a row. An inner product does not depend on which bytes
// belong to which step, so a lane takes 16 consecutive bytes at a time as long as enough are left.
template <int STEPS>
__device__ __forceinline__ void load(u32 (&part)[2 * STEPS], const char *row, int quarter) {
#pragma unroll
    for (int i = 0; i < STEPS / 2; i++) {
        const uint4 four = __ldg((const uint4 *)(row + 64 * i + 16 * quarter));
        part[4 * i] = four.x, part[4 * i + 1] = four.y, part[4 * i + 2] = four.z, part[4 * i + 3] = four.w;
    }
    if (STEPS % 2) {
        const uint2 two = __ldg((const uint2 *)(row + 32 * (STEPS - 1) + 8 * quarter));
        part[2 * STEPS - 2] = two.x, part[2 * STEPS - 1] = two.y;
    }
}

// Adds the products of the chunk's tokens and 16 document tokens. The lane holds parts of two of these: upper, lower.
template <typename Type, int STEPS, int TILES>
__device__ __forceinline__ void multiply_all(typename Type::Sum (&sums)[TILES][4], const u32 (&upper)[2 * STEPS],
                                             const u32 (&lower)[2 * STEPS], const u32 (&query)[TILES][2 * STEPS]) {
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            Type::multiply(sums[tile], upper[2 * step], lower[2 * step], upper[2 * step + 1], lower[2 * step + 1],
                           query[tile][2 * step], query[tile][2 * step + 1]);
}

struct MaxSim {
    const char *coarse, *fine;  // query rows, [query][chunk][8 * TILES]
    const float *query_scales;
    i64 n_chunks, row_bytes;
    const u64 *rows_at, *scales_at;  // addresses of each document's first row and scale
    const int *n_tokens;             // of each document, at least 1
    const int *places;               // the document of each pair; null if pair i has document i
    const i64 *lists;                // query i has the pairs lists[i] .. lists[i + 1]
    i64 n_pairs;
    float *scores;  // [chunk][pair]; the sum over chunks is MaxSim
};

// A document's rows and scales. Beyond its end, the last token is repeated, which changes no maximum.
template <typename Type>
struct Document {
    const char *rows;
    const float *scales;
    int n;

    __device__ __forceinline__ Document(const MaxSim &given, i64 pair) {
        const i64 place = given.places ? __ldg(given.places + pair) : pair;
        rows = (const char *)__ldg(given.rows_at + place), scales = (const float *)__ldg(given.scales_at + place);
        n = __ldg(given.n_tokens + place);
    }
    __device__ __forceinline__ const char *row(int token, int stride) const {
        return rows + (i64)min(token, n - 1) * stride;
    }
    __device__ __forceinline__ float scale(int token) const { return Type::scale(scales, min(token, n - 1)); }
};

// Scores lists of documents.
//
// STEPS: how many steps of 32 bytes of a row are held in registers. A row has 32 * STEPS bytes or, if SLICED, a
// multiple of that; then the query's parts are loaded again for every 16 document tokens.
// WARPS: how many warps should fit on a multiprocessor, in blocks of any size.
// Neighbouring warps score the same documents.
template <typename Type, int STEPS, int TILES, bool SLICED, int WARPS>
__global__ void __launch_bounds__(32 * WARPS) maxsim(const MaxSim given) {
    const int lane = threadIdx.x % 32, group = lane / 4, quarter = lane % 4;
    const i64 warp = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const i64 step = (i64)gridDim.x * blockDim.x / 32 / given.n_chunks;
    if (warp >= step * given.n_chunks) return;
    const int chunk = warp % given.n_chunks;
    const i64 first_row = ((i64)blockIdx.y * given.n_chunks + chunk) * 8 * TILES;
    const int stride = SLICED ? (int)given.row_bytes : 32 * STEPS;
    const int n_slices = SLICED ? stride / (32 * STEPS) : 1;
    const bool loads_ahead = !SLICED && STEPS <= 8;  // wider rows leave too few registers

    float query_scale[TILES][2];
    bool is_empty = true;
    u32 high[TILES][2 * STEPS], low[TILES][2 * STEPS];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        query_scale[tile][0] = given.query_scales[first_row + 8 * tile + 2 * quarter];
        query_scale[tile][1] = given.query_scales[first_row + 8 * tile + 2 * quarter + 1];
        is_empty = is_empty && query_scale[tile][0] == 0 && query_scale[tile][1] == 0;
        if (!SLICED) {
            load<STEPS>(high[tile], given.coarse + (first_row + 8 * tile + group) * stride, quarter);
            load<STEPS>(low[tile], given.fine + (first_row + 8 * tile + group) * stride, quarter);
        }
    }
    i64 pair = given.lists[blockIdx.y] + warp / given.n_chunks;
    const i64 end = given.lists[blockIdx.y + 1];
    float *scores = given.scores + chunk * given.n_pairs;
    if (__all_sync(~0u, is_empty)) {  // the query has fewer chunks than others
        for (; pair < end && lane == 0; pair += step) scores[pair] = 0;
        return;
    }
    if (pair >= end) return;
    Document<Type> document(given, pair);
    u32 upper[2 * STEPS], lower[2 * STEPS], next_upper[2 * STEPS], next_lower[2 * STEPS];
    float next_upper_scale = document.scale(group), next_lower_scale = document.scale(group + 8);
    if (loads_ahead) {
        load<STEPS>(next_upper, document.row(group, stride), quarter);
        load<STEPS>(next_lower, document.row(group + 8, stride), quarter);
    }
    while (pair < end) {
        const i64 next_pair = pair + step < end ? pair + step : pair;
        const Document<Type> next_document(given, next_pair);
        float best[TILES][2];
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) best[tile][0] = best[tile][1] = NEGATIVE_INFINITY;

        for (int token = 0; token < document.n; token += 16) {
            // Load the next 16 tokens now, or the first ones of the next document.
            const bool is_last = token + 16 >= document.n;
            const Document<Type> source = is_last ? next_document : document;
            const int next_token = is_last ? group : token + 16 + group;
            const float upper_scale = next_upper_scale, lower_scale = next_lower_scale;
            next_upper_scale = source.scale(next_token), next_lower_scale = source.scale(next_token + 8);
            if (loads_ahead) {
#pragma unroll
                for (int i = 0; i < 2 * STEPS; i++) upper[i] = next_upper[i], lower[i] = next_lower[i];
                load<STEPS>(next_upper, source.row(next_token, stride), quarter);
                load<STEPS>(next_lower, source.row(next_token + 8, stride), quarter);
            } else if (!SLICED) {
                load<STEPS>(upper, document.row(token + group, stride), quarter);
                load<STEPS>(lower, document.row(token + group + 8, stride), quarter);
            }
            typename Type::Sum sums[TILES][4] = {};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                for (int slice = 0; slice < n_slices; slice++) {
                    if (SLICED) {
                        load<STEPS>(upper, document.row(token + group, stride) + 32 * STEPS * slice, quarter);
                        load<STEPS>(lower, document.row(token + group + 8, stride) + 32 * STEPS * slice, quarter);
#pragma unroll
                        for (int tile = 0; tile < TILES; tile++)
                            load<STEPS>(high[tile],
                                        (half ? given.fine : given.coarse) + (first_row + 8 * tile + group) * stride
                                            + 32 * STEPS * slice,
                                        quarter);
                    }
                    multiply_all<Type, STEPS, TILES>(sums, upper, lower, half && !SLICED ? low : high);
                }
#pragma unroll
                for (int tile = 0; tile < TILES && !half; tile++)
#pragma unroll
                    for (int i = 0; i < 4; i++) Type::raise(sums[tile][i]);
            }
#pragma unroll
            for (int tile = 0; tile < TILES; tile++)
#pragma unroll
                for (int i = 0; i < 2; i++)
                    best[tile][i] = fmaxf(best[tile][i], fmaxf((float)sums[tile][i] * upper_scale,
                                                               (float)sums[tile][i + 2] * lower_scale));
        }
        float total = 0;
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float most = best[tile][i];
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 4));
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 8));
                most = fmaxf(most, __shfl_xor_sync(~0u, most, 16));
                total += query_scale[tile][i] ? most * query_scale[tile][i] : 0;
            }
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        if (lane == 0) scores[pair] = total;
        pair += step, document = next_document;
    }
}

__device__ __forceinline__ void split(float value, float largest, int limit, signed char &coarse, signed char &fine) {
    const int whole = __float2int_rn(value / largest * limit);
    const int high = (whole + (whole >= 0 ? 64 : -64)) / 128;
    coarse = (signed char)high, fine = (signed char)(whole - 128 * high);
}

__device__ __forceinline__ void split(float value, float largest, int limit, unsigned short &coarse,
                                      unsigned short &fine) {
    const float share = value / largest;
    float rounded;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(coarse) : "f"(share));
    asm("cvt.f32.f16 %0, %1;" : "=f"(rounded) : "h"(coarse));
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(fine) : "f"(share - rounded));
}

template <typename Number>
struct Split {
    const float *vectors;  // [token][dimension]
    const i64 *offsets;    // query i has the tokens offsets[i] .. offsets[i + 1]
    i64 dimension, width;  // of vectors and of rows
    i64 rows_per_query;    // rows beyond a query's tokens are zeros
    i64 n_rows;
    i64 limit;  // for int8, the integer that a token's largest value is scaled to
    Number *coarse, *fine;
    float *scales;
};

// Splits token vectors into coarse and fine query rows. Each warp works on one row.
template <typename Number>
__global__ void split_queries(const Split<Number> given) {
    const int lane = threadIdx.x % 32;
    const i64 row = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= given.n_rows) return;
    const i64 query = row / given.rows_per_query, token = given.offsets[query] + row % given.rows_per_query;
    const float *vector = given.vectors + token * given.dimension;
    const bool is_there = token < given.offsets[query + 1];
    float largest = 0;
    if (is_there)
        for (int i = lane; i < given.dimension; i += 32) largest = fmaxf(largest, fabsf(vector[i]));
    for (int step = 16; step; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    for (int i = lane; i < given.width; i += 32) {
        Number high = 0, low = 0;
        if (largest > 0 && i < given.dimension) split(vector[i], largest, given.limit, high, low);
        given.coarse[row * given.width + i] = high, given.fine[row * given.width + i] = low;
    }
    if (lane == 0) given.scales[row] = sizeof(Number) == 1 ? largest / given.limit : largest;
}

struct Unpack {
    const char *stored;  // [row][scale of 4 bytes, if there are scales; codes]
    i64 n_rows, code_bytes, row_bytes;
    char *codes;
    float *scales;  // null if rows have no scales
};

// Separates stored rows into codes, padded with zeros, and scales. Each warp works on one row.
extern "C" __global__ void unpack_rows(const Unpack given) {
    const int lane = threadIdx.x % 32, header = given.scales ? 4 : 0;
    const i64 row = (i64)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= given.n_rows) return;
    const char *from = given.stored + row * (header + given.code_bytes);
    char *codes = given.codes + row * given.row_bytes;
    for (int i = lane; i < given.row_bytes; i += 32) codes[i] = i < given.code_bytes ? from[header + i] : 0;
    if (given.scales && lane < 4) ((char *)(given.scales + row))[lane] = from[lane];
}

struct Add {
    const float *scores;  // [query][chunk][pair]
    i64 n_chunks, n_pairs;
    float *sums;  // [query][pair]
};

// Adds up the scores of each query's chunks.
extern "C" __global__ void add_chunks(const Add given) {
    const i64 pair = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= given.n_pairs) return;
    const float *scores = given.scores + blockIdx.y * given.n_chunks * given.n_pairs + pair;
    float sum = 0;
    for (i64 chunk = 0; chunk < given.n_chunks; chunk++) sum += scores[chunk * given.n_pairs];
    given.sums[blockIdx.y * given.n_pairs + pair] = sum;
}

// Maps floats to unsigned integers in the same order.
__device__ __forceinline__ u32 ordered(float value) {
    const u32 bits = __float_as_uint(value);
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

struct Select {
    const float *scores;
    const i64 *lists;  // list i has the scores lists[i] .. lists[i + 1]
    i64 k;
    int *places;    // [list][k], index in the list
    float *values;  // [list][k]
};

// Selects the ``k`` highest scores of each list, in the order of the list. Of equal scores, the first are taken. If a
// list is shorter than k, the rest is -1 and minus infinity. Each block works on one list.
extern "C" __global__ void __launch_bounds__(1024) select(const Select given) {
    const i64 start = given.lists[blockIdx.x];
    const int n = given.lists[blockIdx.x + 1] - start, k = given.k, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float *list = given.scores + start;
    int *chosen = given.places + blockIdx.x * given.k;
    float *value = given.values + blockIdx.x * given.k;
    __shared__ int counts[32];

    // Find the k-th highest score, bit by bit, and how many scores are higher.
    u32 threshold = 0;
    int n_higher = 0;
    for (u32 bit = n > k ? 0x80000000 : 0; bit; bit /= 2) {
        int count = 0;
        for (int i = threadIdx.x; i < n; i += blockDim.x) count += ordered(list[i]) >= (threshold | bit);
        for (int step = 16; step; step /= 2) count += __shfl_xor_sync(~0u, count, step);
        __syncthreads();
        if (lane == 0) counts[warp] = count;
        __syncthreads();
        int total = 0;
        for (int i = 0; i < blockDim.x / 32; i++) total += counts[i];
        if (total >= k) threshold |= bit;
        else n_higher = total;
    }
    // In the order of the list, take all higher scores, and as many equal ones as are still needed.
    int n_chosen = 0, n_equal = k - n_higher;
    for (int base = 0; base < n; base += blockDim.x) {
        const int i = base + threadIdx.x;
        const float score = i < n ? list[i] : 0;
        const bool is_higher = i < n && (n <= k || ordered(score) > threshold);
        const bool is_equal = i < n && !is_higher && ordered(score) == threshold;
        // Count higher scores in the upper half of an integer, equal ones in the lower half.
        const u32 higher = __ballot_sync(~0u, is_higher), equal = __ballot_sync(~0u, is_equal);
        __syncthreads();
        if (lane == 0) counts[warp] = __popc(higher) << 16 | __popc(equal);
        __syncthreads();
        int before = 0, all = 0;
        for (int j = 0; j < blockDim.x / 32; j++) {
            if (j == warp) before = all;
            all += counts[j];
        }
        const u32 below = (1u << lane) - 1;
        const int equal_before = (before & 0xffff) + __popc(equal & below);
        const int place = n_chosen + (before >> 16) + __popc(higher & below) + min(equal_before, n_equal);
        if (is_higher || (is_equal && equal_before < n_equal)) chosen[place] = i, value[place] = score;
        n_chosen += (all >> 16) + min(all & 0xffff, n_equal);
        n_equal -= min(all & 0xffff, n_equal);
    }
    for (int i = n_chosen + threadIdx.x; i < k; i += blockDim.x) chosen[i] = -1, value[i] = NEGATIVE_INFINITY;
}
