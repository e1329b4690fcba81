#include "maxsim_packing.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace muvera {

namespace {

// The largest code of two planes: 127 * 256 + 127.
constexpr int kMostCode = 32639;
constexpr int kMostCoarseCode = 127;

// Sums of products with codes of -128 to 127 must not leave int32.
int most_code(size_t dimension, bool coarse) {
    const uint64_t most = 0x7fffffffu / (uint64_t{128} * std::max<size_t>(dimension, 1));
    return static_cast<int>(std::min<uint64_t>(std::max<uint64_t>(most, 1), coarse ? kMostCoarseCode : kMostCode));
}

// To the nearest integer, ties to even, for magnitudes below 2**51.
double rounded(double value) {
    constexpr double kShift = 6755399441055744.0;  // 1.5 * 2**52
    return (value + kShift) - kShift;
}

}  // namespace

PackedQueries PackedQueries::of_codes(const MaxSimKernel &kernel, const Queries &queries, bool sliced, bool coarse) {
    const size_t n_tokens = static_cast<size_t>(queries.offsets[queries.n_queries]), d = queries.dimension;
    const size_t width = kernel.form == CodeForm::int16 ? 2 : 1, per_group = 4 / width;
    const size_t n_places = sliced ? multiple(d, 4) : d;
    PackedQueries packed;
    CodeQueries &to = packed.as_codes;
    packed.are_codes = true;
    packed.n_lanes = multiple(n_tokens, kernel.lanes);
    to.n_blocks = packed.n_lanes / kernel.lanes;
    to.n_groups = multiple(multiple(n_places, per_group) / per_group, kernel.group_block);
    to.n_planes = coarse ? 1 : kernel.n_planes;
    const size_t plane = to.n_groups * kernel.lanes * 4, size = to.n_blocks * to.n_planes * plane;
    uint8_t *codes = packed.codes.reserve(size);
    std::memset(codes, 0, size);
    const size_t n_starts = packed.n_lanes * to.n_planes;
    int32_t *start = reinterpret_cast<int32_t *>(packed.start.reserve(n_starts * 4));
    std::memset(start, 0, n_starts * 4);
    packed.steps.assign(n_tokens, 0.0);
    const int most = most_code(d, coarse);
    for (size_t t = 0; t < n_tokens; ++t) {
        const float *token = queries.tokens + t * d;
        float largest = 0;
        for (size_t j = 0; j < d; ++j) largest = std::max(largest, std::fabs(token[j]));
        if (largest == 0) continue;
        packed.steps[t] = static_cast<double>(largest) / most;
        const double inverse = most / static_cast<double>(largest);
        const size_t block = t / kernel.lanes, lane = t % kernel.lanes;
        uint8_t *of_token = codes + block * to.n_planes * plane + lane * 4;
        int32_t sums[2] = {0, 0};
        for (size_t j = 0; j < d; ++j) {
            const int code = static_cast<int>(rounded(token[j] * inverse));
            const size_t place = sliced ? sliced_place(j, d) : j;
            uint8_t *at = of_token + place / per_group * kernel.lanes * 4 + place % per_group * width;
            if (width == 2) {
                const int16_t word = static_cast<int16_t>(code);
                std::memcpy(at, &word, sizeof word);
            } else if (to.n_planes == 1) {
                *at = static_cast<uint8_t>(code);
                sums[0] += code;
            } else {
                // Rounded down: the second part is between -128 and 127.
                const int first = ((code + 128 + 65536) >> 8) - 256, second = code - 256 * first;
                *at = static_cast<uint8_t>(first);
                at[plane] = static_cast<uint8_t>(second);
                sums[0] += first;
                sums[1] += second;
            }
        }
        if (kernel.form == CodeForm::biased_int8)
            for (size_t p = 0; p < to.n_planes; ++p)
                start[(block * to.n_planes + p) * kernel.lanes + lane] = -128 * sums[p];
    }
    to.codes = codes;
    to.start = start;
    return packed;
}

PackedQueries PackedQueries::of_floats(const MaxSimKernel &kernel, const Queries &queries) {
    const size_t n_tokens = static_cast<size_t>(queries.offsets[queries.n_queries]), d = queries.dimension;
    PackedQueries packed;
    packed.n_lanes = multiple(n_tokens, kernel.lanes);
    packed.as_floats.n_blocks = packed.n_lanes / kernel.lanes;
    packed.as_floats.dimension = d;
    float *values = reinterpret_cast<float *>(packed.values.reserve(packed.n_lanes * d * 4));
    std::memset(values, 0, packed.n_lanes * d * 4);
    for (size_t t = 0; t < n_tokens; ++t) {
        float *to = values + t / kernel.lanes * kernel.lanes * d + t % kernel.lanes;
        for (size_t j = 0; j < d; ++j) to[j * kernel.lanes] = queries.tokens[t * d + j];
    }
    packed.as_floats.values = values;
    packed.steps.assign(n_tokens, 1.0);
    return packed;
}

}  // namespace muvera
