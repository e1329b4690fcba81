#include "maxsim_engine.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "maxsim_packing.h"
#include "processor.h"
#include "threads.h"

namespace muvera {

namespace {

// Unpacked rows that are scored at a time: they stay in the fastest cache.
constexpr size_t kBytesUnpacked = 24 << 10;
// Neighbours in a file are read together up to this size. Larger documents are read one by one.
constexpr size_t kBytesRead = 96 << 10;
// A further thread must have at least this much to do, in seconds.
constexpr double kWorthAThread = 3e-4;
constexpr double kBytesPerSecond = 6e9;

// The rows of one document.
struct DocumentRows {
    ByteRows codes;   // leading bits, if sliced
    ByteRows rest;    // further bits, if sliced
    ByteRows scales;  // none for floats
    size_t n_rows;
};

// What one thread needs to score documents.
class Scorer {
  public:
    Scorer(const MaxSimKernel &kernel, const PackedQueries &packed, const Queries &queries, Precision precision,
           int n_rest_bits, const int8_t *levels)
        : kernel_(kernel), packed_(packed), queries_(queries), precision_(precision), n_rest_bits_(n_rest_bits) {
        const size_t d = queries.dimension;
        const size_t width = !packed.are_codes ? 4 : kernel.form == CodeForm::int16 ? 2 : 1;
        const size_t places = precision == Precision::sliced ? multiple(d, 4) : d;
        stride_ = multiple(std::max(places * width, packed.as_codes.n_groups * 4), 64);
        chunk_ = std::max<size_t>(16, kBytesUnpacked / stride_ / 16 * 16);
        const size_t size = stride_ * chunk_ + 4 * kSlack;
        std::memset(rows_.reserve(size), 0, size);
        scales_.reserve(chunk_ * 4 + kSlack);
        best_.reserve(packed.n_lanes * 4);
        if (precision == Precision::sliced) {
            const uint8_t flip = kernel.form == CodeForm::biased_int8 ? 0x80 : 0;
            for (int code = 0; code < (4 << n_rest_bits); ++code) table_[code] = static_cast<uint8_t>(levels[code]) ^ flip;
        }
    }

    // Writes scores[query * n_documents].
    void score(const DocumentRows &document, float *scores, size_t n_documents) {
        float *best = reinterpret_cast<float *>(best_.get());
        std::fill(best, best + packed_.n_lanes, -std::numeric_limits<float>::infinity());
        for (size_t row = 0; row < document.n_rows; row += chunk_)
            score_rows(document, row, std::min(chunk_, document.n_rows - row), best);
        for (size_t q = 0; q < queries_.n_queries; ++q) {
            const size_t end = static_cast<size_t>(queries_.offsets[q + 1]);
            double sums[4] = {0, 0, 0, 0};
            size_t t = static_cast<size_t>(queries_.offsets[q]);
            for (; t + 4 <= end; t += 4)
                for (size_t i = 0; i < 4; ++i) sums[i] += packed_.steps[t + i] * best[t + i];
            for (; t < end; ++t) sums[0] += packed_.steps[t] * best[t];
            scores[q * n_documents] = static_cast<float>((sums[0] + sums[1]) + (sums[2] + sums[3]));
        }
    }

  private:
    // Repeats the last row until the kernel's block of rows is full, which changes no maximum.
    void score_rows(const DocumentRows &document, size_t first, size_t n, float *best) {
        unpack(document, first, n);
        uint8_t *rows = rows_.get();
        const size_t full = multiple(n, kernel_.row_block);
        for (size_t row = n; row < full; ++row) std::memcpy(rows + row * stride_, rows + (n - 1) * stride_, stride_);
        if (!packed_.are_codes) {
            kernel_.score_floats(reinterpret_cast<const float *>(rows), stride_ / 4, full, packed_.as_floats, best);
            return;
        }
        float *scales = reinterpret_cast<float *>(scales_.get());
        std::fill(scales + n, scales + full, scales[n - 1]);
        kernel_.score_codes(rows, stride_, scales, full, packed_.as_codes, best);
    }

    void unpack(const DocumentRows &document, size_t first, size_t n) {
        const size_t d = queries_.dimension;
        const ByteRows codes = from(document.codes, first), scales = from(document.scales, first);
        uint8_t *rows = rows_.get();
        float *to = reinterpret_cast<float *>(scales_.get());
        switch (precision_) {
            case Precision::float32:
                for (size_t r = 0; r < n; ++r) std::memcpy(rows + r * stride_, codes.data + r * codes.stride, 4 * d);
                break;
            case Precision::float16:
                kernel_.unpack_halves(codes, d, n, reinterpret_cast<float *>(rows), stride_ / 4);
                break;
            case Precision::int8:
                for (size_t r = 0; r < n; ++r) std::memcpy(to + r, scales.data + r * scales.stride, 4);
                kernel_.unpack_int8(codes, d, n, rows, stride_);
                break;
            case Precision::sliced:
                kernel_.unpack_halves(scales, n, 1, to, 0);
                kernel_.unpack_sliced({codes, from(document.rest, first), n_rest_bits_}, d, n, table_, rows, stride_);
                break;
        }
    }

    static ByteRows from(ByteRows rows, size_t first) {
        rows.data += first * rows.stride;
        return rows;
    }

    const MaxSimKernel &kernel_;
    const PackedQueries &packed_;
    const Queries &queries_;
    Precision precision_;
    int n_rest_bits_;
    size_t stride_, chunk_;
    Buffer rows_, scales_, best_;
    uint8_t table_[256];
};

// Documents that one thread reads and scores at once.
struct Run {
    size_t begin, end;
};

size_t threads_for(const MaxSimKernel &kernel, const Queries &queries, double n_rows, double n_bytes, size_t limit) {
    const double tokens = static_cast<double>(queries.offsets[queries.n_queries]);
    const double products = n_rows * tokens * static_cast<double>(queries.dimension);
    const double seconds = products / kernel.products_per_second + n_bytes / kBytesPerSecond;
    return std::max<size_t>(1, std::min(limit, static_cast<size_t>(seconds / kWorthAThread)));
}

PackedQueries pack(const MaxSimKernel &kernel, const Queries &queries, Precision precision, bool coarse) {
    if (precision == Precision::int8 || precision == Precision::sliced)
        return PackedQueries::of_codes(kernel, queries, precision == Precision::sliced, coarse);
    return PackedQueries::of_floats(kernel, queries);
}

size_t lead_bytes(size_t dimension) { return (dimension + 3) / 4; }

size_t rest_bytes(int n_rest_bits, size_t dimension) {
    return n_rest_bits == 0 ? 0 : n_rest_bits == 2 ? (dimension + 3) / 4 : (dimension + 1) / 2 + (dimension + 3) / 4;
}

// The parts of a document's block of bytes.
DocumentRows parts(const StoredDocuments &documents, size_t dimension, const uint8_t *block, const uint8_t *end,
                   size_t n) {
    if (documents.precision == Precision::int8)
        return {{block + 4, dimension + 4, end}, {block, 0, end}, {block, dimension + 4, end}, n};
    if (documents.precision != Precision::sliced) {
        const size_t size = row_bytes(documents.precision, 0, dimension);
        return {{block, size, end}, {block, 0, end}, {block, 0, end}, n};
    }
    const size_t lead = lead_bytes(dimension), rest = rest_bytes(documents.n_rest_bits, dimension);
    const uint8_t *codes = block + 2 * n, *further = documents.coarse ? codes : codes + n * lead;
    return {{codes, lead, end}, {further, rest, end}, {block, 2, end}, n};
}

}  // namespace

size_t row_bytes(Precision precision, int n_rest_bits, size_t dimension) {
    switch (precision) {
        case Precision::int8: return 4 + dimension;
        case Precision::float16: return 2 * dimension;
        case Precision::float32: return 4 * dimension;
        default: return 2 + lead_bytes(dimension) + rest_bytes(n_rest_bits, dimension);
    }
}

Failure score_stored(const MaxSimKernel &kernel, const StoredDocuments &documents, const Queries &queries,
                     size_t n_threads, float *scores) {
    const size_t n = documents.n_documents, d = queries.dimension;
    const size_t row = row_bytes(documents.precision, documents.n_rest_bits, d);
    const size_t read_row = documents.coarse ? row_bytes(Precision::sliced, 0, d) : row;
    const PackedQueries packed = pack(kernel, queries, documents.precision, documents.coarse);
    std::vector<Run> runs;
    size_t n_rows = 0;
    for (size_t i = 0, rows = 0; i < n; ++i) {
        const size_t count = static_cast<size_t>(documents.count[i]);
        const bool joins = !documents.coarse && i > 0 && documents.first[i] == documents.first[i - 1] + documents.count[i - 1] &&
                           (rows + count) * row <= kBytesRead;
        if (joins)
            ++runs.back().end, rows += count;
        else
            runs.push_back({i, i + 1}), rows = count;
        n_rows += count;
    }
    std::atomic<size_t> next{0};
    std::atomic<size_t> failed{n};
    std::vector<int> errors(runs.size(), 0);
    const auto work = [&](size_t) {
        Scorer scorer(kernel, packed, queries, documents.precision, documents.coarse ? 0 : documents.n_rest_bits,
                      documents.levels);
        Buffer read;
        for (size_t r; failed.load(std::memory_order_relaxed) == n && (r = next.fetch_add(1)) < runs.size();) {
            const Run run = runs[r];
            const uint64_t place = static_cast<uint64_t>(documents.first[run.begin]) * row;
            uint64_t size = 0;
            for (size_t i = run.begin; i < run.end; ++i) size += static_cast<uint64_t>(documents.count[i]) * read_row;
            const uint8_t *block, *end;
            int error = 0;
            if (documents.file) {
                uint8_t *to = read.reserve(size + kSlack);
                error = documents.file->read(to, size, place);
                block = to, end = to + size + kSlack;
            } else {
                if (place > documents.size || size > documents.size - place) error = FileReader::kEndOfFile;
                block = documents.data + place, end = documents.data + documents.size;
            }
            if (error) {
                errors[r] = error;
                failed = run.begin;
                return;
            }
            for (size_t i = run.begin; i < run.end; ++i) {
                const size_t count = static_cast<size_t>(documents.count[i]);
                scorer.score(parts(documents, d, block, end, count), scores + i, n);
                block += count * read_row;
            }
        }
    };
    in_threads(threads_for(kernel, queries, static_cast<double>(n_rows), static_cast<double>(n_rows * read_row), n_threads),
               work);
    for (size_t r = 0; r < runs.size(); ++r)
        if (errors[r]) return {runs[r].begin, errors[r]};
    return {0, 0};
}

void score_loose(const MaxSimKernel &kernel, const LooseDocuments &documents, const Queries &queries,
                 size_t n_threads, float *scores) {
    const PackedQueries packed = pack(kernel, queries, documents.precision, false);
    const size_t n = documents.n_documents;
    std::atomic<size_t> next{0};
    const auto work = [&](size_t) {
        Scorer scorer(kernel, packed, queries, documents.precision, 0, nullptr);
        for (size_t i; (i = next.fetch_add(1)) < n;) {
            const size_t first = static_cast<size_t>(documents.offsets[i]);
            const size_t count = static_cast<size_t>(documents.offsets[i + 1]) - first;
            ByteRows rows = documents.rows, scales = documents.scales;
            rows.data += first * rows.stride;
            if (scales.data) scales.data += first * scales.stride;
            scorer.score({rows, rows, scales, count}, scores + i, n);
        }
    };
    const double n_rows = n ? static_cast<double>(documents.offsets[n]) : 0;
    in_threads(threads_for(kernel, queries, n_rows, n_rows * static_cast<double>(documents.rows.stride), n_threads), work);
}

namespace {

std::vector<const MaxSimKernel *> find_maxsim_kernels() {
    std::vector<const MaxSimKernel *> found;
#if defined(MUVERA_AMX)
    if (has_amx()) found.push_back(&kAmxMaxSim);
#endif
    for (const std::string &name : available_kernels()) {
#if defined(__x86_64__) || defined(_M_X64)
        if (name == "avx512-vnni") found.push_back(&kAvx512MaxSim);
        if (name == "avx2") found.push_back(&kAvx2MaxSim);
#elif defined(__aarch64__) || defined(_M_ARM64)
        if (name == "neon" && has_neon_dot_products()) found.push_back(&kNeonDotMaxSim);
        if (name == "neon") found.push_back(&kNeonMaxSim);
#endif
        if (name == "portable") found.push_back(&kPortableMaxSim);
    }
    return found;
}

}  // namespace

const std::vector<const MaxSimKernel *> &maxsim_kernels() {
    static const std::vector<const MaxSimKernel *> found = find_maxsim_kernels();
    return found;
}

}  // namespace muvera
