// Exact MaxSim on tensor cores. One pass computes the products, their maxima over a document's tokens, and the sum of
// the maxima over the query's tokens, so only one number per document is written.
//
// A warp holds chunks of queries (8 * TILES tokens each) in registers and goes through documents, 16 tokens at a time. A
// row is one token's vector, int8 or float16, padded with zeros to a multiple of 32 bytes. Rows of documents may also be
// packed: codes of 2 or 4 bits, which become int8 in registers.
//
// Each number of the query is split into two numbers of the rows' type, coarse and fine, and each query token has a
// scale. With int8, value = scale * (128 * coarse + fine), and the products are exact in int32. With float16,
// value = scale * (coarse + fine), and the products are added up in float32. Without the fine numbers, a pair of tokens
// takes one product instead of two; ``exact.cu`` says how far such coarse scores are from the full ones.
//
// Needs compute capability 8.0. ``instructions.cu`` comes before this file. Each kernel takes one structure of 8-byte
// numbers, because CuPy needs microseconds for every argument.

#define NEGATIVE_INFINITY __int_as_float(0xff800000)

// The types of documents' rows. LOADED: bytes of a row that a lane loads for a step. ``expand`` makes 8 bytes of them,
// which the matrix instructions take.
struct Int8 {
    typedef int Sum;
    static const int LOADED = 8;
    static __device__ __forceinline__ void raise(Sum &coarse) { coarse *= 128; }
    static __device__ __forceinline__ float scale(const char *scales, int row) {
        return __ldg((const float *)scales + row);
    }
    template <int STEPS>
    static __device__ __forceinline__ void expand(u32 (&part)[2 * STEPS], const u32 (&loaded)[2 * STEPS]) {
#pragma unroll
        for (int i = 0; i < 2 * STEPS; i++) part[i] = loaded[i];
    }
};

struct Float16 {
    typedef float Sum;
    static const int LOADED = 8;
    static __device__ __forceinline__ void raise(Sum &coarse) {}
    static __device__ __forceinline__ float scale(const char *scales, int row) { return 1.0f; }
    template <int STEPS>
    static __device__ __forceinline__ void expand(u32 (&part)[2 * STEPS], const u32 (&loaded)[2 * STEPS]) {
        Int8::expand<STEPS>(part, loaded);
    }
};

// Packed codes with scales of float16.
struct Packed {
    typedef int Sum;
    static __device__ __forceinline__ void raise(Sum &coarse) { coarse *= 128; }
    static __device__ __forceinline__ float scale(const char *scales, int row) {
        return from_half(__ldg((const unsigned short *)scales + row));
    }
};

// Codes of 2 bits. TABLE: their levels, a byte each. Of each 4 bits that are loaded, the low two select a byte of
// ``part[2 * i]``, the others one of ``part[2 * i + 1]``.
template <u32 TABLE>
struct Packed2 : Packed {
    static const int LOADED = 2;
    template <int STEPS>
    static __device__ __forceinline__ void expand(u32 (&part)[2 * STEPS], const u32 (&loaded)[(STEPS + 1) / 2]) {
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const u32 low = loaded[i / 2] & 0x33333333, high = loaded[i / 2] >> 2 & 0x33333333;
            part[2 * i] = permute(TABLE, TABLE, i % 2 ? low >> 16 : low);
            part[2 * i + 1] = permute(TABLE, TABLE, i % 2 ? high >> 16 : high);
        }
    }
};

// Codes of 4 bits. Their low three bits select one of 8 bytes: of FIRST_LOW and FIRST_HIGH if the highest bit is 0, of
// SECOND_LOW and SECOND_HIGH if it is 1. ``permute`` itself tells the two cases apart: where the highest bit is 1, it
// gives the sign of the selected byte, 0 or 255. The first table's bytes have the sign of the level in both cases, and
// the second table has no negative bytes. So ``^`` leaves the first table's levels as they are, and inverts the second
// table's bytes of negative levels.
template <u32 FIRST_LOW, u32 FIRST_HIGH, u32 SECOND_LOW, u32 SECOND_HIGH>
struct Packed4 : Packed {
    static const int LOADED = 4;
    template <int STEPS>
    static __device__ __forceinline__ void expand(u32 (&part)[2 * STEPS], const u32 (&loaded)[STEPS]) {
#pragma unroll
        for (int i = 0; i < 2 * STEPS; i++) {
            const u32 codes = loaded[i / 2], other = codes ^ 0x88888888;
            part[i] = permute(FIRST_LOW, FIRST_HIGH, i % 2 ? codes >> 16 : codes)
                      ^ permute(SECOND_LOW, SECOND_HIGH, i % 2 ? other >> 16 : other);
        }
    }
};

// An integer n between -2**22 and 2**22, added to the bits of this float, gives the bits of this float plus n.
#define MIDDLE 12582912.0f

// What depends on the type of sums. COARSE: what a coarse number counts. ``exact.cu`` explains the others.
template <typename Sum>
struct Products;

template <>
struct Products<int> {
    static constexpr float COARSE = 128, LEAST_LENGTH = 127, SUM_ERROR = 1, ROUNDINGS = 0;

    // Sums of up to 256 products of numbers up to 127 are small. They start at MIDDLE: then their conversion to float
    // needs no instruction of its own. A sum gets an error of up to .75, because ``MIDDLE * scale`` is rounded.
    static __device__ __forceinline__ int first(bool are_small) { return are_small ? __float_as_int(MIDDLE) : 0; }
    static __device__ __forceinline__ float scaled(int sum, float scale, bool are_small) {
        return are_small ? fmaf(__int_as_float(sum), scale, -(MIDDLE * scale)) : (float)sum * scale;
    }
};

template <>
struct Products<float> {
    static constexpr float COARSE = 1, LEAST_LENGTH = 0, SUM_ERROR = 0, ROUNDINGS = 4;
    static __device__ __forceinline__ float first(bool are_small) { return 0; }
    static __device__ __forceinline__ float scaled(float sum, float scale, bool are_small) { return sum * scale; }
};

// The four lanes of a row take ``bytes`` each, in pieces: 16 consecutive bytes at a time while enough are left, then 8,
// 4 or 2. An inner product does not depend on which bytes belong to which step. This is the size of the piece that
// contains byte ``offset`` of a lane. It divides the size of a row, so that pieces are aligned.
__device__ constexpr int piece_of(int bytes, int offset) {
    int size = bytes % 4 ? 8 : 16;
    while (offset / size * size + size > bytes) size /= 2;
    return size;
}

// The place in the row of byte ``offset`` of a lane's quarter (``lane % 4``).
__device__ __forceinline__ int place_of(int bytes, int quarter, int offset) {
    const int size = piece_of(bytes, offset);
    return 4 * (offset / size * size) + size * quarter + offset % size;
}

// Loads a lane's quarter of a row, or of a slice of a row, of 4 * BYTES bytes.
template <int BYTES, int START = 0>
__device__ __forceinline__ void load(u32 (&part)[(BYTES + 3) / 4], const char *row, int quarter) {
    if constexpr (START < BYTES) {
        constexpr int SIZE = piece_of(BYTES, START), i = START / 4;
        const char *from = row + 4 * START + SIZE * quarter;
        if constexpr (SIZE == 16) {
            const uint4 four = __ldg((const uint4 *)from);
            part[i] = four.x, part[i + 1] = four.y, part[i + 2] = four.z, part[i + 3] = four.w;
        } else if constexpr (SIZE == 8) {
            const uint2 two = __ldg((const uint2 *)from);
            part[i] = two.x, part[i + 1] = two.y;
        } else if constexpr (SIZE == 4) part[i] = __ldg((const u32 *)from);
        else part[i] = __ldg((const unsigned short *)from);
        load<BYTES, START + SIZE>(part, row, quarter);
    }
}

// Loads a lane's quarter of 32 * STEPS bytes of a document's row, as it is stored.
template <typename Type, int STEPS>
struct Loaded {
    u32 words[(Type::LOADED * STEPS + 3) / 4];

    __device__ __forceinline__ void load_from(const char *row, int quarter) {
        load<Type::LOADED * STEPS>(words, row, quarter);
    }
    __device__ __forceinline__ void expand_to(u32 (&part)[2 * STEPS]) const {
        Type::template expand<STEPS>(part, words);
    }
};

// Adds the products of the chunk's tokens and 16 document tokens. The lane holds parts of two of these: upper, lower.
template <typename Type, int STEPS, int TILES>
__device__ __forceinline__ void multiply_all(typename Type::Sum (&sums)[TILES][4], const u32 (&upper)[2 * STEPS],
                                             const u32 (&lower)[2 * STEPS], const u32 (&query)[TILES][2 * STEPS]) {
#pragma unroll
    for (int step = 0; step < STEPS; step++)
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            multiply_add(sums[tile], upper[2 * step], lower[2 * step], upper[2 * step + 1], lower[2 * step + 1],
                         query[tile][2 * step], query[tile][2 * step + 1]);
}

// Replaces N numbers of each lane by their maxima over the eight lanes of the same quarter, and divides these among the
// eight: in each step, a lane gives one half of its numbers away and keeps the other. Lane ``group`` gets the maxima
// from ``group * N / 8`` on. If N is less than 8, neighbouring groups get the same one. SIZE is that of the array.
template <int N, int STEP = 16, int SIZE>
__device__ __forceinline__ void divide_maxima(float (&values)[SIZE], int lane) {
#pragma unroll
    for (int i = 0; i < (N + 1) / 2; i++) {
        const float kept = N > 1 && lane & STEP ? values[N / 2 + i] : values[i];
        const float given = N > 1 && !(lane & STEP) ? values[N / 2 + i] : values[i];
        values[i] = fmaxf(kept, __shfl_xor_sync(~0u, given, STEP));
    }
    if constexpr (STEP > 4) divide_maxima<(N + 1) / 2, STEP / 2>(values, lane);
}

struct MaxSim {
    const char *coarse, *fine;  // query rows, [query][chunk][8 * TILES]
    const float *query_scales;
    i64 n_chunks, row_bytes;         // of query rows
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
    const char *rows, *scales;
    int n;

    __device__ __forceinline__ Document(const MaxSim &given, i64 pair) {
        const i64 place = given.places ? __ldg(given.places + pair) : pair;
        rows = (const char *)__ldg(given.rows_at + place), scales = (const char *)__ldg(given.scales_at + place);
        n = __ldg(given.n_tokens + place);
    }
    __device__ __forceinline__ const char *row(int token, int stride) const {
        return rows + (i64)min(token, n - 1) * stride;
    }
    __device__ __forceinline__ float scale(int token) const { return Type::scale(scales, min(token, n - 1)); }
};

// Scores lists of documents.
//
// STEPS: how many steps of 32 bytes of a row are held in registers. A query row has 32 * STEPS bytes or, if SLICED, a
// multiple of that; then the query's parts are loaded again for every 16 document tokens.
// WARPS: how many warps should fit on a multiprocessor, in blocks of any size. The 1 behind it keeps the compiler from
// aiming at more warps: to save registers, it would load rows only when they are needed.
// IS_COARSE: use the coarse numbers alone. The registers for the fine numbers then hold a second chunk.
// Neighbouring warps score the same documents.
template <typename Type, int STEPS, int TILES, bool SLICED, int WARPS, bool IS_COARSE>
__global__ void __launch_bounds__(32 * WARPS, 1) maxsim(const MaxSim given) {
    typedef typename Type::Sum Sum;
    const int CHUNKS = IS_COARSE ? 2 : 1, MAXIMA = 2 * TILES * CHUNKS, KEPT = MAXIMA > 8 ? MAXIMA / 8 : 1;
    const int lane = threadIdx.x % 32, group = lane / 4, quarter = lane % 4;
    const int n_warps = (int)(given.n_chunks + CHUNKS - 1) / CHUNKS;  // that score the same document
    const i64 warp = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const i64 step = (i64)gridDim.x * blockDim.x / 32 / n_warps;
    if (warp >= step * n_warps) return;
    constexpr int slice_bytes = 4 * Type::LOADED * STEPS;  // of a document's row
    const int query_stride = SLICED ? (int)given.row_bytes : 32 * STEPS;
    const int n_slices = SLICED ? query_stride / (32 * STEPS) : 1, stride = n_slices * slice_bytes;
    // The registers that the query, rows and the next rows take per step. Wider rows leave too few for the rest.
    const bool loads_ahead = !SLICED && STEPS * (4 * TILES + 4 + Type::LOADED / 2) <= 200;
    const bool are_small = IS_COARSE && !SLICED && STEPS <= 8;

    int chunks[CHUNKS];
    i64 first_row[CHUNKS];
    u32 high[CHUNKS][TILES][2 * STEPS], low[TILES][2 * STEPS];
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        // If the number of chunks is odd, the last warp has the last one twice.
        chunks[chunk] = min((int)(warp % n_warps) * CHUNKS + chunk, (int)given.n_chunks - 1);
        first_row[chunk] = (blockIdx.y * given.n_chunks + chunks[chunk]) * 8 * TILES;
#pragma unroll
        for (int tile = 0; tile < TILES && !SLICED; tile++) {
            const i64 row = first_row[chunk] + 8 * tile + group;
            load<8 * STEPS>(high[chunk][tile], given.coarse + row * query_stride, quarter);
            if (!IS_COARSE) load<8 * STEPS>(low[tile], given.fine + row * query_stride, quarter);
        }
    }
    // The lane adds up the maxima that ``divide_maxima`` leaves to it. They all belong to one chunk.
    const int own = CHUNKS == 2 ? lane / 16 : 0;
    float own_scale[KEPT];
    bool is_empty = true;
#pragma unroll
    for (int i = 0; i < KEPT; i++) {
        const int maximum = (group * MAXIMA / 8 + i) % (2 * TILES);
        const int row = 8 * (maximum / 2) + 2 * quarter + maximum % 2;
        own_scale[i] = given.query_scales[(own ? first_row[CHUNKS - 1] : first_row[0]) + row];
        is_empty = is_empty && own_scale[i] == 0;
        if (IS_COARSE) own_scale[i] *= Products<Sum>::COARSE;
    }
    const bool writes = lane % (32 / CHUNKS) == 0;
    float *scores = given.scores + (own ? chunks[CHUNKS - 1] : chunks[0]) * given.n_pairs;
    i64 pair = given.lists[blockIdx.y] + warp / n_warps;
    const i64 end = given.lists[blockIdx.y + 1];
    if (__all_sync(~0u, is_empty)) {  // the query has fewer chunks than others
        for (; pair < end && writes; pair += step) scores[pair] = 0;
        return;
    }
    if (pair >= end) return;
    Document<Type> document(given, pair);
    u32 upper[2 * STEPS], lower[2 * STEPS];
    Loaded<Type, STEPS> next_upper, next_lower;
    float next_upper_scale = document.scale(group), next_lower_scale = document.scale(group + 8);
    if (loads_ahead) {
        next_upper.load_from(document.row(group, stride), quarter);
        next_lower.load_from(document.row(group + 8, stride), quarter);
    }
    while (pair < end) {
        const i64 next_pair = pair + step < end ? pair + step : pair;
        const Document<Type> next_document(given, next_pair);
        float best[MAXIMA];  // of each chunk, tile, and column
#pragma unroll
        for (int i = 0; i < MAXIMA; i++) best[i] = NEGATIVE_INFINITY;

#pragma unroll 1
        for (int token = 0; token < document.n; token += 16) {
            // Load the next 16 tokens now, or the first ones of the next document.
            const bool is_last = token + 16 >= document.n;
            const Document<Type> source = is_last ? next_document : document;
            const int next_token = is_last ? group : token + 16 + group;
            const float upper_scale = next_upper_scale, lower_scale = next_lower_scale;
            next_upper_scale = source.scale(next_token), next_lower_scale = source.scale(next_token + 8);
            if (loads_ahead) {
                next_upper.expand_to(upper), next_lower.expand_to(lower);
                next_upper.load_from(source.row(next_token, stride), quarter);
                next_lower.load_from(source.row(next_token + 8, stride), quarter);
            } else if (!SLICED) {
                next_upper.load_from(document.row(token + group, stride), quarter);
                next_lower.load_from(document.row(token + group + 8, stride), quarter);
                next_upper.expand_to(upper), next_lower.expand_to(lower);
            }
#pragma unroll
            for (int chunk = 0; chunk < CHUNKS; chunk++) {
                Sum sums[TILES][4];
#pragma unroll
                for (int tile = 0; tile < TILES; tile++)
#pragma unroll
                    for (int i = 0; i < 4; i++) sums[tile][i] = Products<Sum>::first(are_small);
#pragma unroll
                for (int half = 0; half < (IS_COARSE ? 1 : 2); half++) {
#pragma unroll 1
                    for (int slice = 0; slice < n_slices; slice++) {
                        if (SLICED) {
                            next_upper.load_from(document.row(token + group, stride) + slice * slice_bytes, quarter);
                            next_lower.load_from(document.row(token + group + 8, stride) + slice * slice_bytes, quarter);
                            next_upper.expand_to(upper), next_lower.expand_to(lower);
                            const char *query = (half ? given.fine : given.coarse) + 32 * STEPS * slice;
#pragma unroll
                            for (int tile = 0; tile < TILES; tile++) {
                                const i64 row = first_row[chunk] + 8 * tile + group;
                                load<8 * STEPS>(high[chunk][tile], query + row * query_stride, quarter);
                            }
                        }
                        multiply_all<Type, STEPS, TILES>(sums, upper, lower, half && !SLICED ? low : high[chunk]);
                    }
#pragma unroll
                    for (int tile = 0; tile < TILES && !half && !IS_COARSE; tile++)
#pragma unroll
                        for (int i = 0; i < 4; i++) Type::raise(sums[tile][i]);
                }
#pragma unroll
                for (int i = 0; i < 2 * TILES; i++) {
                    const float above = Products<Sum>::scaled(sums[i / 2][i % 2], upper_scale, are_small);
                    const float below = Products<Sum>::scaled(sums[i / 2][i % 2 + 2], lower_scale, are_small);
                    best[2 * TILES * chunk + i] = fmaxf(best[2 * TILES * chunk + i], fmaxf(above, below));
                }
            }
        }
        divide_maxima<MAXIMA>(best, lane);
        float total = 0;
#pragma unroll
        for (int i = 0; i < KEPT; i++) total += own_scale[i] ? best[i] * own_scale[i] : 0;
#pragma unroll
        for (int other = 1; other < 32 / CHUNKS; other *= 2)
            if (other != 4 || MAXIMA >= 8) total += __shfl_xor_sync(~0u, total, other);
        if (writes) scores[pair] = total;
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
    coarse = to_half(share), fine = to_half(share - from_half(coarse));
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

struct Pack {
    const char *stored;    // documents: scales of 2 bytes, then rows of leading bits, then rows of remaining bits
    const i64 *offsets;    // document i has the tokens offsets[i] .. offsets[i + 1]
    i64 dimension, bits;   // of a code, 2 (there are no remaining bits) or 4
    i64 steps, n_slices;   // of a row
    char *codes, *scales;  // scales of 2 bytes
};

// Lays the codes of stored documents out as lanes load them. They expand to the order in which query rows have their
// dimensions. Each block works on one document, each lane on two bytes at a time.
extern "C" __global__ void pack_rows(const Pack given) {
    const int lane = threadIdx.x % 32, bits = given.bits, steps = given.steps, dimension = given.dimension;
    const int width = (dimension + 3) / 4, n_planes = bits / 2;
    const i64 first = given.offsets[blockIdx.x], n = given.offsets[blockIdx.x + 1] - first;
    const char *scales = given.stored + first * (2 + n_planes * width), *planes = scales + 2 * n;
    for (i64 i = threadIdx.x; i < 2 * n; i += blockDim.x) given.scales[2 * first + i] = scales[i];
    const int slice = 4 * bits * steps, row_bytes = given.n_slices * slice;
    for (i64 token = threadIdx.x / 32; token < n; token += blockDim.x / 32)
        for (int at = 2 * lane; at < row_bytes; at += 64) {
            const int pair = at % slice / 2, quarter = pair % 4, offset = pair / 4 * 2;
            u32 packed = 0;
            for (int shift = 0; shift < 16; shift += bits) {
                const int word = offset / 2 * (4 / bits) + shift % 4 / bits;  // of the lane's expanded quarter
                const int i = at / slice * 32 * steps + place_of(8 * steps, quarter, 4 * word + shift / 4);
                for (int plane = 0; plane < n_planes && i < dimension; plane++)
                    packed |= (planes[(plane * n + token) * width + i / 4] >> i % 4 * 2 & 3) << (shift + 2 * plane);
            }
            char *slice_at = given.codes + (first + token) * row_bytes + at / slice * slice;
            *(unsigned short *)(slice_at + place_of(bits * steps, quarter, offset)) = packed;
        }
}

struct Find {
    const i64 *keys;  // of each pair
    i64 n_pairs;
    const int *place_of_key;  // -1 for keys that are not cached
    i64 n_keys;               // higher keys are not cached
    int *places;              // of each pair
    int *is_missing;          // becomes 1 if a document is not cached; its place is then 0
};

// Finds cached documents by their keys.
extern "C" __global__ void find_places(const Find given) {
    const i64 pair = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (pair >= given.n_pairs) return;
    const i64 key = given.keys[pair];
    const int place = key < given.n_keys ? given.place_of_key[key] : -1;
    given.places[pair] = max(place, 0);
    if (place < 0) *given.is_missing = 1;
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
