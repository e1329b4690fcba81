// Scans of stage-one vectors: the rows of highest inner product with each of several queries.
#include "scan.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "processor.h"
#include "threads.h"

namespace nb = nanobind;

namespace muvera {

namespace {

template <typename T, size_t N> using Array = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <typename T, size_t N> using Output = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

// Rows of so many bytes are compared with all queries before the next ones are read: they stay in the cache.
constexpr size_t kBlockBytes = 1 << 17;
// Bytes of products that are worth a thread.
constexpr size_t kThreadBytes = 4 << 20;
// Codes of which a kernel makes levels at a time, so that 32 bits hold a sum over them.
constexpr size_t kLevelsTogether = 1 << 16;
// A two-bit code tells whether a coordinate exceeds this share of the standard deviation: the best for normal ones.
constexpr double kThreshold = 0.996;

const ScanKernel &chosen(const std::string &name) {
    const std::vector<std::string> &available = available_kernels();
    const bool known = std::find(available.begin(), available.end(), name) != available.end();
    const std::string &taken = known ? name : available.front();
#if defined(MUVERA_SCAN_X86)
    if (taken == "avx512-vnni") return scan_avx512;
    if (taken == "avx2") return scan_avx2;
#endif
    return scan_portable;
}

size_t useful_threads(size_t n_threads, size_t bytes, size_t parts) {
    return std::max<size_t>(1, std::min({n_threads, bytes / kThreadBytes, parts}));
}

struct Item {
    float score;
    int64_t key;
    int64_t place;
};

bool is_better(const Item &a, const Item &b) { return a.score > b.score || (a.score == b.score && a.key < b.key); }

// Keeps the best k of the items that it is given.
class Best {
  public:
    explicit Best(size_t k) : k_(k), room_(2 * k + 64) { items_.reserve(room_); }

    void add(const Item &item) {
        if (is_full_ && !is_better(item, worst_)) return;
        items_.push_back(item);
        if (items_.size() == room_) shrink();
    }

    void take(const Best &other) {
        for (const Item &item : other.items_) add(item);
    }

    // The kept items, in no order.
    std::vector<Item> &kept() {
        if (items_.size() > k_) shrink();
        return items_;
    }

  private:
    void shrink() {
        std::nth_element(items_.begin(), items_.begin() + (k_ - 1), items_.end(), is_better);
        worst_ = items_[k_ - 1];
        items_.resize(k_);
        is_full_ = true;
    }

    size_t k_, room_;
    std::vector<Item> items_;
    Item worst_{};
    bool is_full_ = false;
};

// Queries split into the parts that the kernels multiply.
class Queries {
  public:
    Queries(const int16_t *codes, size_t n, size_t width) : high_(n * width), low_(n * width), queries_(n) {
        for (size_t q = 0; q < n; ++q) {
            const int16_t *row = codes + q * width;
            int8_t *high = high_.data() + q * width, *low = low_.data() + q * width;
            int64_t sum = 0, high_sum = 0;
            for (size_t i = 0; i < width; ++i) {
                high[i] = static_cast<int8_t>((row[i] + 64 + 16384) / 128 - 128);  // rounds down, also below zero
                low[i] = static_cast<int8_t>(row[i] - 128 * high[i]);
                sum += row[i];
                high_sum += high[i];
            }
            queries_[q] = {row, high, low, sum, high_sum};
        }
    }

    size_t size() const { return queries_.size(); }
    const ScanQuery &operator[](size_t q) const { return queries_[q]; }

  private:
    std::vector<int8_t> high_, low_;
    std::vector<ScanQuery> queries_;
};

// What is scanned: rows of `width` bytes, a factor and a key for each, and which of them may be found.
struct Table {
    const uint8_t *rows;
    const float *factors;
    const int64_t *keys;
    const uint8_t *admitted;  // null admits all
    size_t n, width;
    bool two_bits;
};

float score(const Table &table, size_t place, const ScanQuery &query, const ScanKernel &kernel) {
    const uint8_t *row = table.rows + place * table.width;
    const int64_t product = table.two_bits ? kernel.two_bits(row, query, table.width)
                                           : kernel.eight_bits(reinterpret_cast<const int8_t *>(row), query, table.width);
    return static_cast<float>(static_cast<double>(product) * static_cast<double>(table.factors[place]));
}

// The best k rows for each query.
std::vector<Best> scan(const Table &table, const Queries &queries, size_t k, size_t n_threads,
                       const ScanKernel &kernel) {
    const size_t block = std::max<size_t>(1, kBlockBytes / table.width);
    const size_t n_blocks = (table.n + block - 1) / block;
    const size_t n_parts = useful_threads(n_threads, table.n * table.width * queries.size(), n_blocks);
    std::vector<std::vector<Best>> found(n_parts, std::vector<Best>(queries.size(), Best(k)));
    in_threads(n_parts, [&](size_t part) {
        std::vector<size_t> places;
        for (size_t b = part * n_blocks / n_parts; b < (part + 1) * n_blocks / n_parts; ++b) {
            places.clear();
            for (size_t i = b * block; i < std::min(table.n, (b + 1) * block); ++i)
                if (table.admitted == nullptr || table.admitted[i]) places.push_back(i);
            for (size_t q = 0; q < queries.size(); ++q)
                for (const size_t i : places)
                    found[part][q].add({score(table, i, queries[q], kernel), table.keys[i], static_cast<int64_t>(i)});
        }
    });
    for (size_t part = 1; part < n_parts; ++part)
        for (size_t q = 0; q < queries.size(); ++q) found[0][q].take(found[part][q]);
    return std::move(found[0]);
}

void find_best(Array<int8_t, 2> codes, Array<float, 1> scales, std::optional<Array<uint8_t, 2>> coarse,
               std::optional<Array<float, 1>> coarse_scales, Array<int64_t, 1> keys,
               std::optional<Array<uint8_t, 1>> admitted, Array<int16_t, 2> query_codes, size_t n_kept,
               Output<int64_t, 2> found, size_t n_threads, const std::string &name) {
    const size_t k = found.shape(1);
    const uint8_t *mask = admitted ? admitted->data() : nullptr;
    nb::gil_scoped_release release;
    const ScanKernel &kernel = chosen(name);
    const Queries queries(query_codes.data(), query_codes.shape(0), query_codes.shape(1));
    const Table fine{reinterpret_cast<const uint8_t *>(codes.data()),
                     scales.data(),
                     keys.data(),
                     mask,
                     codes.shape(0),
                     codes.shape(1),
                     false};
    std::vector<Best> best;
    if (coarse) {
        const Table first{coarse->data(), coarse_scales->data(), keys.data(), mask, fine.n, coarse->shape(1), true};
        best = scan(first, queries, n_kept, n_threads, kernel);
        const size_t n_parts = useful_threads(n_threads, queries.size() * n_kept * fine.width, queries.size());
        in_threads(n_parts, [&](size_t part) {
            for (size_t q = part; q < queries.size(); q += n_parts)
                for (Item &item : best[q].kept())
                    item.score = score(fine, static_cast<size_t>(item.place), queries[q], kernel);
        });
    } else {
        best = scan(fine, queries, k, n_threads, kernel);
    }
    for (size_t q = 0; q < queries.size(); ++q) {
        std::vector<Item> &items = best[q].kept();
        const size_t n = std::min(k, items.size());
        std::partial_sort(items.begin(), items.begin() + n, items.end(), is_better);
        for (size_t i = 0; i < n; ++i) found.data()[q * k + i] = items[i].place;
    }
}

// One row's two-bit codes, and the factor that makes its product with itself right.
float coarsen(const ScanKernel &kernel, const int8_t *codes, size_t n_codes, float scale, uint8_t *row, size_t width) {
    const int64_t squares = kernel.sum_of_squares(codes, n_codes);
    const double deviation = std::sqrt(static_cast<double>(squares) / static_cast<double>(n_codes));
    const auto threshold = static_cast<int8_t>(std::nearbyint(kThreshold * deviation));
    std::fill(row, row + width, static_cast<uint8_t>(0));
    int64_t product = 0;
    for (int j = 0; j < 4; ++j) {
        for (size_t start = 0; start < width; start += kLevelsTogether) {
            const size_t first = j * width + start;
            if (first >= n_codes) break;
            const size_t n = std::min({kLevelsTogether, width - start, n_codes - first});
            product += kernel.put_levels(codes + first, n, threshold, 2 * j, row + start);
        }
    }
    return product > 0 ? static_cast<float>(static_cast<double>(scale) * static_cast<double>(squares) /
                                            static_cast<double>(product))
                       : 0.0f;
}

void coarsen_rows(Array<int8_t, 2> codes, Array<float, 1> scales, Output<uint8_t, 2> coarse,
                  Output<float, 1> coarse_scales, size_t n_threads, const std::string &name) {
    nb::gil_scoped_release release;
    const ScanKernel &kernel = chosen(name);
    const size_t n = codes.shape(0), n_codes = codes.shape(1), width = coarse.shape(1);
    const size_t n_parts = useful_threads(n_threads, n * n_codes, std::max<size_t>(1, n));
    in_threads(n_parts, [&](size_t part) {
        for (size_t i = part * n / n_parts; i < (part + 1) * n / n_parts; ++i)
            coarse_scales.data()[i] = coarsen(kernel, codes.data() + i * n_codes, n_codes, scales.data()[i],
                                              coarse.data() + i * width, width);
    });
}

}  // namespace

void register_scan(nb::module_ &m) {
    m.def("find_best", &find_best, nb::arg("codes"), nb::arg("scales"), nb::arg("coarse").none(),
          nb::arg("coarse_scales").none(), nb::arg("keys"), nb::arg("admitted").none(), nb::arg("queries"),
          nb::arg("n_kept"), nb::arg("found"), nb::arg("n_threads"), nb::arg("kernel"));
    m.def("coarsen", &coarsen_rows, nb::arg("codes"), nb::arg("scales"), nb::arg("coarse"), nb::arg("coarse_scales"),
          nb::arg("n_threads"), nb::arg("kernel"));
}

}  // namespace muvera
