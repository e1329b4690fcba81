// Fixed dimensional encodings and best matches of ragged token sets, a document at a time.

#define TOKENS_AT_ONCE 1024
#define THREADS 128

// Partition that holds the tokens of a cell: the cell's bits are the Gray code of the partition's number.
__device__ __forceinline__ int partition_of(int cell) {
    for (int shift = 1; shift < 32; shift *= 2) cell ^= cell >> shift;
    return cell;
}

// One repetition of a document's or query's encoding: per partition the mean or sum of its tokens' values.
//
// ``products``: [token][repetition * n_bits | repetition * width], sides of the hyperplanes and projected values; where
// there is no projection, the values are the tokens themselves, [token][width]. Values are added in the order of the
// tokens, by one thread for each number, so the result depends on nothing else.
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

    // A thread has a column, or several, and every ``n_groups``-th cell.
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
    // Hamming distance is a sum over bits, so it is relaxed one bit at a time; what is relaxed is
    // distance * n + first token.
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

// The final projection: each output is a signed sum over the inputs that go to it, ``starts[i] .. starts[i + 1]`` of
// ``sources``, which are in ascending order.
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

// Each document's highest product with each anchor: [token][anchor] to [document][anchor].
extern "C" __global__ void highest(const float *__restrict__ products, int n_anchors,
                                   const long long *__restrict__ offsets, float *__restrict__ matches) {
    const int anchor = blockIdx.y * blockDim.x + threadIdx.x;
    if (anchor >= n_anchors) return;
    float best = __int_as_float(0xff800000);
    for (long long token = offsets[blockIdx.x]; token < offsets[blockIdx.x + 1]; token++)
        best = fmaxf(best, products[token * n_anchors + anchor]);
    matches[(long long)blockIdx.x * n_anchors + anchor] = best;
}
