// Fixed dimensional encodings, and each document's best matches. Each block works on one token set.

#define TOKENS_AT_ONCE 1024
#define THREADS 128

// The partition of a cell. The cell's bits are the Gray code of the partition's number.
__device__ __forceinline__ int partition_of(int cell) {
    for (int shift = 1; shift < 32; shift *= 2) cell ^= cell >> shift;
    return cell;
}

// One repetition of an encoding: for each partition, the mean (documents) or sum (queries) of its tokens' values.
//
// ``products`` is [token][repetition * n_bits | repetition * width]: the sides of the hyperplanes, then the projected
// values. Without a projection, the values are the tokens themselves, [token][width]. One thread adds up each number,
// in the order of the tokens, so the result is always the same.
extern "C" __global__ void __launch_bounds__(THREADS)
    encode(const float *__restrict__ products, int n_columns, const float *__restrict__ tokens,
           const long long *__restrict__ offsets, int n_bits, int width, bool is_query, bool fills,
           float *__restrict__ encodings) {
    extern __shared__ int shared[];
    const int n_cells = 1 << n_bits, n_repetitions = gridDim.y, repetition = blockIdx.y;
    int *counts = shared, *nearest = shared + n_cells, *cells = shared + 2 * n_cells;
    const long long start = offsets[blockIdx.x];
    const int n = offsets[blockIdx.x + 1] - start;
    float *encoding = encodings + ((long long)blockIdx.x * n_repetitions + repetition) * n_cells * width;

    // A thread works on one or more columns, and on every ``n_groups``-th cell.
    const int n_groups = max(1, THREADS / width), group = threadIdx.x / width;
    const int first_column = n_groups > 1 ? threadIdx.x % width : threadIdx.x, step = n_groups > 1 ? width : THREADS;
    const bool has_cells = n_groups == 1 || group < n_groups;
    const int first_cell = n_groups > 1 ? group : 0;
    const float *values = tokens ? tokens + start * width
                                 : products + start * n_columns + n_repetitions * n_bits + repetition * width;
    const long long stride = tokens ? width : n_columns;

    for (int cell = threadIdx.x; cell < n_cells; cell += THREADS) counts[cell] = 0, nearest[cell] = n * (n_bits + 1);
    for (int cell = first_cell; has_cells && cell < n_cells; cell += n_groups)
        for (int column = first_column; column < width; column += step) encoding[cell * width + column] = 0;
    for (int tile = 0; tile < n; tile += TOKENS_AT_ONCE) {
        const int size = min(TOKENS_AT_ONCE, n - tile);
        __syncthreads();
        for (int token = threadIdx.x; token < size; token += THREADS) {
            int cell = 0;
            for (int bit = 0; bit < n_bits; bit++)
                cell = 2 * cell + (products[(start + tile + token) * n_columns + repetition * n_bits + bit] > 0);
            cells[token] = cell;
            atomicAdd(counts + cell, 1);
            atomicMin(nearest + cell, tile + token);
        }
        __syncthreads();
        for (int token = 0; has_cells && token < size; token++)
            if (n_groups == 1 || cells[token] % n_groups == group)
                for (int column = first_column; column < width; column += step)
                    encoding[partition_of(cells[token]) * width + column] += values[(tile + token) * stride + column];
    }
    if (is_query) return;
    // Find the nearest token of each cell. Hamming distance is a sum over bits, so one bit is relaxed at a time. The
    // relaxed value is distance * n + number of the first token at that distance.
    for (int bit = 0; bit < n_bits && fills; bit++) {
        __syncthreads();
        for (int cell = threadIdx.x; cell < n_cells; cell += THREADS)
            if (!(cell >> bit & 1)) {
                const int here = nearest[cell], there = nearest[cell ^ 1 << bit];
                nearest[cell] = min(here, there + n), nearest[cell ^ 1 << bit] = min(there, here + n);
            }
    }
    __syncthreads();
    for (int cell = first_cell; has_cells && cell < n_cells; cell += n_groups)
        for (int column = first_column; column < width; column += step) {
            float &value = encoding[partition_of(cell) * width + column];
            if (counts[cell]) value /= counts[cell];
            else if (fills) value = values[(nearest[cell] % n) * stride + column];
        }
}

// The final projection, a count sketch. Output i is the signed sum of its inputs, whose numbers are ``sources`` from
// ``starts[i]`` to ``starts[i + 1]``, in ascending order.
extern "C" __global__ void sketch(const float *__restrict__ encodings, long long n, int width_before, int width,
                                  const int *__restrict__ starts, const int *__restrict__ sources,
                                  const float *__restrict__ signs, float *__restrict__ sketched) {
    const long long place = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= n * width) return;
    const float *encoding = encodings + place / width * width_before;
    double sum = 0;
    for (int i = starts[place % width]; i < starts[place % width + 1]; i++)
        sum += encoding[sources[i]] * signs[sources[i]];
    sketched[place] = sum;
}

// Vectors as precision int8 stores them: codes from -127 to 127, and a scale for each vector. A warp works on each
// vector, with the operations of TokenCodec.encode and decode in their order, so the results are equal bit by bit.
extern "C" __global__ void __launch_bounds__(THREADS)
    round_to_int8(const float *__restrict__ vectors, long long n, int width, float *__restrict__ rounded) {
    const long long row = (long long)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (row >= n) return;
    const float *vector = vectors + row * width;
    float largest = 0;
    for (int column = threadIdx.x % 32; column < width; column += 32) largest = fmaxf(largest, fabsf(vector[column]));
    for (int step = 16; step; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, step));
    const float scale = largest / 127, divisor = scale > 0 ? scale : 1;
    for (int column = threadIdx.x % 32; column < width; column += 32)
        rounded[row * width + column] = (int)fminf(fmaxf(rintf(vector[column] / divisor), -127), 127) * scale;
}

// The highest product of each document's tokens with each anchor: [token][anchor] to [document][anchor].
extern "C" __global__ void highest(const float *__restrict__ products, int n_anchors,
                                   const long long *__restrict__ offsets, float *__restrict__ matches) {
    const int anchor = blockIdx.y * blockDim.x + threadIdx.x;
    if (anchor >= n_anchors) return;
    float best = __int_as_float(0xff800000);
    for (long long token = offsets[blockIdx.x]; token < offsets[blockIdx.x + 1]; token++)
        best = fmaxf(best, products[token * n_anchors + anchor]);
    matches[(long long)blockIdx.x * n_anchors + anchor] = best;
}
