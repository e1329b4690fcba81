// Exact search by coarse scores. ``maxsim.cu`` and ``selection.cu`` come before this file.
//
// A coarse score lacks the products with the fine numbers of the query. For a token with scale s and fine numbers f, and
// a document's token with the numbers d and the scale t, that is s * t * f.d, and |s * t * f.d| <= s |f| * t |d|. A
// maximum over document tokens changes by no more than what is maximized. So a coarse score differs from the full one by
// at most B = M * sum of s |f| over the query's tokens, if M is the largest t |d| of all documents' tokens.
//
// k documents have coarse scores of at least c, the k-th best one, so k documents have full scores of at least c - B.
// Hence the full scores of the k best are at least c - B, and their coarse scores at least c - 2 B. Only documents with
// such coarse scores have to be scored in full.
//
// Both scores are rounded, too. Let u = 2**-24 be float32's error, n the number of query tokens, and c a token's coarse
// numbers, times COARSE; s |c| M is about the largest part that the token can have in a score.
// - Scaling, the additions of tokens and chunks, and c - 2 B take at most 22 + n / 8 roundings in both scores together:
//   less than 4 (n + 8) u * s |c| M for each token.
// - int8: a coarse sum that starts at MIDDLE has an error of .75. With COARSE and t <= M / LEAST_LENGTH, this is at most
//   SUM_ERROR * s M.
// - float16: matrix instructions add products with an error of less than 2.5 u |c| |d| each. (They align 17 numbers at
//   a time and cut them off; their order does not matter.) There are w products in a coarse sum of a row of w numbers,
//   and 2 w in a full one: less than 8 w u * s |c| M, or ROUNDINGS = 4 for each byte of the row.
// The bound is a rounded sum itself. A factor of 1.002 covers that for up to 2**18 dimensions. Adding the least normal
// number of float32 to M and to B covers errors below it.

#define LEAST_NORMAL 1.17549435e-38f

// The sum of the squares of the numbers in 4 bytes of a row.
__device__ __forceinline__ float squares(Int8, u32 word) {
    float sum = 0;
    for (int i = 0; i < 32; i += 8) {
        const float number = (float)(signed char)(word >> i & 255);
        sum += number * number;
    }
    return sum;
}

__device__ __forceinline__ float squares(Float16, u32 word) {
    const float first = from_half(word & 0xffff), second = from_half(word >> 16);
    return first * first + second * second;
}

// Packed codes are expanded word by word. Codes behind the last dimension count as well, which makes M no smaller.
template <u32 TABLE>
__device__ __forceinline__ float squares(Packed2<TABLE>, u32 word) {
    u32 part[4];
    Packed2<TABLE>::template expand<2>(part, {word});
    return squares(Int8(), part[0]) + squares(Int8(), part[1]) + squares(Int8(), part[2]) + squares(Int8(), part[3]);
}

template <u32... TABLES>
__device__ __forceinline__ float squares(Packed4<TABLES...>, u32 word) {
    u32 part[2];
    Packed4<TABLES...>::template expand<1>(part, {word});
    return squares(Int8(), part[0]) + squares(Int8(), part[1]);
}

// The length of a row's vector, without the scale. A warp calls this.
template <typename Type>
__device__ __forceinline__ float length(const char *row, i64 row_bytes, int lane) {
    float sum = 0;
    for (i64 i = 4 * lane; i < row_bytes; i += 128) sum += squares(Type(), __ldg((const u32 *)(row + i)));
    for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
    return sqrtf(sum);
}

struct Lengths {
    const char *rows, *scales;
    i64 n_rows, row_bytes;
    float *largest;
};

// Raises ``largest`` to the largest length of the rows' vectors, M above. A length is at least LEAST_LENGTH scales.
template <typename Type>
__global__ void largest_length(const Lengths given) {
    const int lane = threadIdx.x % 32;
    float largest = 0;
    for (i64 row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32; row < given.n_rows;
         row += (i64)gridDim.x * blockDim.x / 32) {
        const float codes = length<Type>(given.rows + row * given.row_bytes, given.row_bytes, lane);
        largest = fmaxf(largest, Type::scale(given.scales, row) * fmaxf(codes, Products<typename Type::Sum>::LEAST_LENGTH));
    }
    // Positive floats have the order of their bits.
    if (lane == 0) atomicMax((u32 *)given.largest, __float_as_uint(largest));
}

struct Bury {
    const int *dead;  // documents
    i64 n_dead, n_queries, n_documents;
    float *scores;  // [query][document]
};

// Lowers the scores of dead documents, so that they are never selected.
extern "C" __global__ void bury(const Bury given) {
    const i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x, query = i / given.n_dead;
    if (query < given.n_queries)
        given.scores[query * given.n_documents + given.dead[i % given.n_dead]] = NEGATIVE_INFINITY;
}

struct Bound {
    const char *coarse, *fine;  // query rows, [query][row]
    const float *query_scales;
    i64 rows_per_query, row_bytes;
    const float *largest;  // M
    const float *best;     // the k best coarse scores of each query, [query][k]
    i64 k;
    float *least;  // of each query
};

// Computes for each query the least coarse score, c - 2 B, of documents that may be among the k best. Each block of up to
// 1,024 threads works on one query.
template <typename Type>
__global__ void least_scores(const Bound given) {
    typedef Products<typename Type::Sum> Of;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    const float u = 1.0f / (1 << 24), n = given.rows_per_query;
    const float roundings = (4 * (n + 8) + Of::ROUNDINGS * given.row_bytes) * u;
    float sum = 0, worst = __int_as_float(0x7f800000);
    for (i64 i = warp; i < given.rows_per_query; i += n_warps) {
        const i64 row = blockIdx.x * given.rows_per_query + i;
        const float coarse = length<Type>(given.coarse + row * given.row_bytes, given.row_bytes, lane) * Of::COARSE;
        const float fine = length<Type>(given.fine + row * given.row_bytes, given.row_bytes, lane);
        sum += given.query_scales[row] * (fine + Of::SUM_ERROR + roundings * coarse);
    }
    for (i64 i = threadIdx.x; i < given.k; i += blockDim.x) worst = fminf(worst, given.best[blockIdx.x * given.k + i]);
    for (int step = 16; step; step /= 2) worst = fminf(worst, __shfl_xor_sync(~0u, worst, step));
    __shared__ float sums[32], worsts[32];
    if (lane == 0) sums[warp] = sum, worsts[warp] = worst;
    __syncthreads();
    if (threadIdx.x) return;
    for (int i = 1; i < n_warps; i++) sum += sums[i], worst = fminf(worst, worsts[i]);
    const float bound = 1.002f * sum * (*given.largest + LEAST_NORMAL) + LEAST_NORMAL;
    given.least[blockIdx.x] = worst - 2 * bound;
}

struct Collect {
    const float *scores;  // [query][document]
    const float *least;   // of each query
    i64 n_documents;
    i64 segment;        // how many scores each block looks at
    int *counts;        // of each query's segments, if ``places`` is null
    const i64 *starts;  // where the places of each segment begin
    int *places;        // indices of documents, ascending for each query
};

// Counts or collects the documents with at least the least score, but without those of minus infinity. A least score
// that is not a number takes in all.
extern "C" __global__ void collect(const Collect given) {
    const float *scores = given.scores + blockIdx.y * given.n_documents;
    const i64 first = blockIdx.x * given.segment, end = min(first + given.segment, given.n_documents);
    const i64 number = (i64)blockIdx.y * gridDim.x + blockIdx.x;
    const float least = given.least[blockIdx.y];
    __shared__ u32 counts[32];
    u32 n = 0;
    for (i64 base = first; base < end; base += blockDim.x) {
        const i64 i = base + threadIdx.x;
        const float score = i < end ? scores[i] : NEGATIVE_INFINITY;
        const bool is_in = score != NEGATIVE_INFINITY && !(score < least);
        u32 all;
        const u32 before = count_before(false, is_in, counts, all);
        if (given.places && is_in) given.places[given.starts[number] + n + before] = i;
        n += all;
    }
    if (!given.places && threadIdx.x == 0) given.counts[number] = n;
}
