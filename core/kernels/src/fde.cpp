// The encoder that Python sees: it packs the matrices once, and shares documents out among threads.
#include "fde.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "processor.h"
#include "threads.h"

namespace nb = nanobind;

namespace muvera {
namespace {

template <class T, int AXES>
using Array = nb::ndarray<const T, nb::ndim<AXES>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

// A thread costs about 0.02 ms. It has to save a multiple: this many multiplications take about 0.3 ms.
constexpr int64_t MULTIPLICATIONS_PER_THREAD = 6'000'000;
// From this width on, a count-sketch is faster number by number than as a product with a matrix of mostly zeros.
constexpr int64_t SPARSE_WIDTH = 32;

const FdeKernel &kernel_named(const std::string &name) {
#if defined(__x86_64__) || defined(_M_X64)
    if (name == "avx512-vnni") return fde_avx512;
    if (name == "avx2") return fde_avx2;
#elif defined(__aarch64__) || defined(_M_ARM64)
    if (name == "neon") return fde_neon;
#endif
    return fde_portable;
}

// Append a matrix (depth, columns) to `packed`, in panels. `column(i, c)` is the number in row i of padded column c.
template <class Number>
void pack(const FdeKernel &kernel, int64_t depth, int64_t columns, std::vector<float> &packed, const Number &number) {
    for (int64_t first = 0; first < columns;) {
        const int64_t width = std::min<int64_t>(columns - first, int64_t{kernel.lanes} * kernel.vectors);
        for (int64_t i = 0; i < depth; ++i) {
            for (int64_t c = first; c < first + width; ++c) packed.push_back(number(i, c));
        }
        first += width;
    }
}

// Numbers that begin at a multiple of 64 bytes, the width of a cache line and of the widest vector.
class AlignedFloats {
  public:
    float *resize(int64_t size) {
        memory_.resize(static_cast<size_t>(size) + 16);
        const auto address = reinterpret_cast<uintptr_t>(memory_.data());
        start_ = memory_.data() + (64 - address % 64) % 64 / sizeof(float);
        return start_;
    }
    const float *copy(const std::vector<float> &values) {
        std::copy(values.begin(), values.end(), resize(static_cast<int64_t>(values.size())));
        return values.empty() ? nullptr : start_;
    }

  private:
    std::vector<float> memory_;
    float *start_ = nullptr;
};

// The memory behind an FdeScratch, which grows with the longest document.
class Scratch {
  public:
    const FdeScratch &sized(const FdePlan &plan, int64_t n) {
        if (n <= tokens_) return pointers_;
        const int64_t cells = int64_t{1} << plan.hyperplanes, several = std::min(n / 2, cells);
        const int64_t rows = std::min(2 * n, 2 * cells), values = plan.projections || plan.sparse_column ? rows : 0;
        const int64_t words = plan.side_columns / 64 + 1;
        pointers_ = {words,
                     tokens_copy_.resize(n * plan.dimension),
                     at(sides_, n * words),
                     at(cells_, n),
                     at(order_, n),
                     at(starts_, cells + 1),
                     at(nearest_, cells),
                     at(row_, cells),
                     at(first_row_, cells),
                     at(scale_, rows),
                     at(rows_, rows),
                     sums_.resize(several * plan.dimension),
                     values_.resize(values * plan.value_columns)};
        tokens_ = n;
        return pointers_;
    }

  private:
    template <class T>
    static T *at(std::vector<T> &memory, int64_t size) {
        memory.resize(static_cast<size_t>(size));
        return memory.data();
    }

    int64_t tokens_ = 0;
    FdeScratch pointers_{};
    AlignedFloats tokens_copy_, sums_, values_;
    std::vector<float> scale_;
    std::vector<uint64_t> sides_;
    std::vector<uint16_t> cells_;
    std::vector<int32_t> order_, starts_, row_, first_row_;
    std::vector<int64_t> nearest_;
    std::vector<const float *> rows_;
};

class FdeEncoder {
  public:
    FdeEncoder(const std::string &kernel, Array<float, 3> hyperplanes, std::optional<Array<float, 3>> projection,
               std::optional<Array<int32_t, 1>> sketch_index, std::optional<Array<float, 1>> sketch_sign,
               std::optional<Array<float, 1>> mean, int64_t output, bool fill)
        : kernel_(kernel_named(kernel)) {
        const auto R = static_cast<int64_t>(hyperplanes.shape(0)), d = static_cast<int64_t>(hyperplanes.shape(1));
        const auto k = static_cast<int64_t>(hyperplanes.shape(2));
        plan_.repetitions = R;
        plan_.dimension = d;
        plan_.hyperplanes = static_cast<int>(k);
        plan_.fill = fill;
        plan_.output = output;
        plan_.side_columns = padded(R * k);
        std::vector<float> sides, projections;
        pack(kernel_, d, plan_.side_columns, sides, [&](int64_t i, int64_t c) {
            return c < R * k ? hyperplanes.data()[(c / k * d + i) * k + k - 1 - c % k] : 0.0f;
        });
        plan_.width = projection ? static_cast<int64_t>(projection->shape(2)) : d;
        plan_.value_columns = padded(plan_.width);
        if (projection && !(plan_.width >= SPARSE_WIDTH && pack_sparse(projection->data()))) {
            for (int64_t r = 0; r < R; ++r) {
                pack(kernel_, d, plan_.value_columns, projections, [&](int64_t i, int64_t c) {
                    return c < plan_.width ? projection->data()[(r * d + i) * plan_.width + c] : 0.0f;
                });
            }
        }
        if (sketch_index) {
            sketch_index_.assign(sketch_index->data(), sketch_index->data() + sketch_index->size());
            sketch_sign_.assign(sketch_sign->data(), sketch_sign->data() + sketch_sign->size());
        }
        if (mean) mean_.assign(mean->data(), mean->data() + mean->size());
        plan_.sides = sides_.copy(sides);
        plan_.projections = projections_.copy(projections);
        plan_.sparse_column = or_null(sparse_column_);
        plan_.sparse_weight = or_null(sparse_weight_);
        plan_.sketch_index = or_null(sketch_index_);
        plan_.sketch_sign = or_null(sketch_sign_);
        plan_.mean = or_null(mean_);
    }
    FdeEncoder(const FdeEncoder &) = delete;
    FdeEncoder &operator=(const FdeEncoder &) = delete;

    void encode(Array<float, 2> tokens, Array<int64_t, 1> offsets, Output encodings, bool are_documents,
                int n_threads) const {
        nb::gil_scoped_release release;
        const int64_t *at = offsets.data();
        const auto n_sets = static_cast<int64_t>(encodings.shape(0));
        std::atomic<int64_t> next{0};
        const int64_t worth = multiplications(static_cast<int64_t>(tokens.shape(0)), n_sets) / MULTIPLICATIONS_PER_THREAD;
        const int64_t most = std::max<int64_t>(1, std::min({worth, int64_t{n_threads}, n_sets}));
        in_threads(static_cast<size_t>(most), [&](size_t) {
            Scratch scratch;
            for (int64_t i = next++; i < n_sets; i = next++) {
                const int64_t n = at[i + 1] - at[i];
                kernel_.encode(plan_, scratch.sized(plan_, n), tokens.data() + at[i] * plan_.dimension, n,
                               are_documents, encodings.data() + i * plan_.output);
            }
        });
    }

  private:
    int64_t padded(int64_t columns) const { return (columns + kernel_.lanes - 1) / kernel_.lanes * kernel_.lanes; }

    template <class T>
    static const T *or_null(const std::vector<T> &values) {
        return values.empty() ? nullptr : values.data();
    }

    // About how many multiplications, or memory accesses that take as long, an encoding needs.
    int64_t multiplications(int64_t n_tokens, int64_t n_sets) const {
        const int64_t per_token = plan_.dimension * (plan_.side_columns + 2 * plan_.repetitions);
        const int64_t cells = plan_.repetitions << plan_.hyperplanes;
        const int64_t per_set = cells * plan_.width + (plan_.projections ? cells * plan_.dimension * plan_.width / 2 : 0);
        return n_tokens * per_token + n_sets * per_set;
    }

    // Pack a projection that puts each dimension into at most one column. False if it is not of this form.
    bool pack_sparse(const float *projection) {
        const int64_t rows = plan_.repetitions * plan_.dimension;
        std::vector<int32_t> columns(static_cast<size_t>(rows), 0);
        std::vector<float> weights(static_cast<size_t>(rows), 0.0f);
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t c = 0; c < plan_.width; ++c) {
                const float weight = projection[row * plan_.width + c];
                if (weight == 0) continue;
                if (weights[static_cast<size_t>(row)] != 0) return false;
                columns[static_cast<size_t>(row)] = static_cast<int32_t>(c);
                weights[static_cast<size_t>(row)] = weight;
            }
        }
        sparse_column_ = std::move(columns);
        sparse_weight_ = std::move(weights);
        return true;
    }

    const FdeKernel &kernel_;
    FdePlan plan_{};
    AlignedFloats sides_, projections_;
    std::vector<float> sparse_weight_, sketch_sign_, mean_;
    std::vector<int32_t> sparse_column_, sketch_index_;
};

}  // namespace

void register_fde(nb::module_ &m) {
    nb::class_<FdeEncoder>(m, "FdeEncoder")
        .def(nb::init<const std::string &, Array<float, 3>, std::optional<Array<float, 3>>,
                      std::optional<Array<int32_t, 1>>, std::optional<Array<float, 1>>,
                      std::optional<Array<float, 1>>, int64_t, bool>(),
             nb::arg("kernel"), nb::arg("hyperplanes"), nb::arg("projection").none(), nb::arg("sketch_index").none(),
             nb::arg("sketch_sign").none(), nb::arg("mean").none(), nb::arg("output_dimension"), nb::arg("fill"))
        .def("encode", &FdeEncoder::encode, nb::arg("tokens"), nb::arg("offsets"), nb::arg("encodings").noconvert(),
             nb::arg("are_documents"), nb::arg("n_threads"));
}

}  // namespace muvera
