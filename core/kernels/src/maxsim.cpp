// Python's view of exact MaxSim and of checksums.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cerrno>
#include <optional>

#include "crc32.h"
#include "maxsim_engine.h"
#include "maxsim_packing.h"

namespace nb = nanobind;

namespace muvera {

namespace {

template <class T>
using Vector = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Scores = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using AnyRows = nb::ndarray<nb::ro, nb::ndim<2>, nb::device::cpu>;
using AnyScales = nb::ndarray<const float, nb::ndim<1>, nb::device::cpu>;

const MaxSimKernel &kernel_called(const std::string &name) {
    for (const MaxSimKernel *kernel : maxsim_kernels())
        if (name == kernel->name) return *kernel;
    throw nb::value_error("no such kernel here");
}

// A file, by its descriptor, or bytes in memory.
class Source {
  public:
    explicit Source(nb::handle source) {
        if (PyLong_Check(source.ptr())) {
            file_.emplace(nb::cast<int>(source));
        } else {
            bytes_ = nb::cast<Vector<uint8_t>>(source);
        }
    }
    const FileReader *file() const { return file_ ? &*file_ : nullptr; }
    const uint8_t *data() const { return bytes_.data(); }
    uint64_t size() const { return file_ ? 0 : bytes_.size(); }

  private:
    std::optional<FileReader> file_;
    Vector<uint8_t> bytes_;
};

[[noreturn]] void raise(const Failure &failure) {
    if (failure.error == FileReader::kEndOfFile) {
        PyErr_Format(PyExc_EOFError, "the rows of document %zu end beyond the source", failure.document);
    } else {
        errno = failure.error;
        PyErr_SetFromErrno(PyExc_OSError);
    }
    throw nb::python_error();
}

void require(bool holds, const char *message) {
    if (!holds) throw nb::value_error(message);
}

Queries queries_of(const Matrix<float> &tokens, const Vector<int64_t> &offsets) {
    require(offsets.size() > 0, "query_offsets is empty");
    require(offsets.data()[offsets.size() - 1] == static_cast<int64_t>(tokens.shape(0)), "query_offsets do not fit");
    return {tokens.data(), offsets.data(), offsets.size() - 1, tokens.shape(1)};
}

void check(const Scores &scores, const Queries &queries, size_t n_documents) {
    require(scores.shape(0) == queries.n_queries && scores.shape(1) == n_documents, "scores have another shape");
}

void score_documents(nb::handle source, Vector<int64_t> first, Vector<int64_t> count, const std::string &layout,
                     Vector<int8_t> levels, Matrix<float> tokens, Vector<int64_t> query_offsets, size_t n_threads,
                     bool coarse, const std::string &kernel, Scores scores) {
    const Source from(source);
    StoredDocuments documents{from.file(),  from.data(), from.size(),        first.data(),  count.data(),
                              first.size(), Precision::sliced, 0, levels.data(), coarse};
    if (layout == "int8")
        documents.precision = Precision::int8;
    else if (layout == "float16")
        documents.precision = Precision::float16;
    else if (layout == "float32")
        documents.precision = Precision::float32;
    else if (layout == "4bit")
        documents.n_rest_bits = 2;
    else if (layout == "8bit")
        documents.n_rest_bits = 6;
    else
        require(layout == "2bit", "unknown layout");
    const bool sliced = documents.precision == Precision::sliced;
    require(sliced || !coarse, "only sliced rows have leading bits");
    require(!sliced || levels.size() == (coarse ? size_t{4} : size_t{4} << documents.n_rest_bits),
            "levels have another length");
    require(count.size() == first.size(), "first and count differ in length");
    for (size_t i = 0; i < first.size(); ++i)
        require(first.data()[i] >= 0 && count.data()[i] > 0 && first.data()[i] < (int64_t{1} << 48) &&
                    count.data()[i] < (int64_t{1} << 32),
                "a document has no rows");
    const Queries queries = queries_of(tokens, query_offsets);
    check(scores, queries, first.size());
    const MaxSimKernel &chosen = kernel_called(kernel);
    Failure failure;
    {
        nb::gil_scoped_release release;
        failure = score_stored(chosen, documents, queries, n_threads, scores.data());
    }
    if (failure.error) raise(failure);
}

// Rows end where the last one does: bytes after it may belong to nobody.
ByteRows bytes_of(const void *data, size_t n, int64_t stride, size_t width) {
    const uint8_t *start = static_cast<const uint8_t *>(data);
    require(stride >= 0, "rows lie in falling order");
    return {start, static_cast<size_t>(stride), n ? start + (n - 1) * static_cast<size_t>(stride) + width : start};
}

void score_rows(AnyRows rows, std::optional<AnyScales> scales, Vector<int64_t> offsets, Matrix<float> tokens,
                Vector<int64_t> query_offsets, size_t n_threads, const std::string &kernel, Scores scores) {
    const auto type = rows.dtype();
    const size_t width = type.bits / 8, n = rows.shape(0);
    LooseDocuments documents{};
    if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Int) && width == 1)
        documents.precision = Precision::int8;
    else if (type.code == static_cast<uint8_t>(nb::dlpack::dtype_code::Float) && (width == 2 || width == 4))
        documents.precision = width == 2 ? Precision::float16 : Precision::float32;
    else
        throw nb::value_error("rows must be int8, float16 or float32");
    require(rows.shape(1) <= 1 || rows.stride(1) == 1, "the numbers of a row must be neighbours");
    documents.rows = bytes_of(rows.data(), n, rows.stride(0) * static_cast<int64_t>(width), rows.shape(1) * width);
    require(documents.precision != Precision::int8 || scales.has_value(), "int8 rows need scales");
    if (scales) {
        require(scales->shape(0) == n, "a row has no scale");
        documents.scales = bytes_of(scales->data(), n, scales->stride(0) * 4, 4);
    }
    const Queries queries = queries_of(tokens, query_offsets);
    require(queries.dimension == rows.shape(1), "rows and queries differ in width");
    require(offsets.size() > 0, "offsets are empty");
    documents.offsets = offsets.data();
    documents.n_documents = offsets.size() - 1;
    for (size_t i = 0; i < documents.n_documents; ++i)
        require(offsets.data()[i] >= 0 && offsets.data()[i] < offsets.data()[i + 1], "a document has no rows");
    require(offsets.data()[documents.n_documents] <= static_cast<int64_t>(n), "offsets exceed the rows");
    check(scores, queries, documents.n_documents);
    const MaxSimKernel &chosen = kernel_called(kernel);
    nb::gil_scoped_release release;
    score_loose(chosen, documents, queries, n_threads, scores.data());
}

void checksums(nb::handle source, Vector<int64_t> first, Vector<int64_t> count, size_t row_bytes,
               nb::ndarray<uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> found) {
    const Source from(source);
    require(count.size() == first.size() && found.size() == first.size(), "first and count differ in length");
    for (size_t i = 0; i < first.size(); ++i) require(first.data()[i] >= 0 && count.data()[i] >= 0, "a negative row");
    Failure failure{0, 0};
    {
        nb::gil_scoped_release release;
        Buffer read;
        for (size_t i = 0; i < first.size() && !failure.error; ++i) {
            const uint64_t place = static_cast<uint64_t>(first.data()[i]) * row_bytes;
            const uint64_t size = static_cast<uint64_t>(count.data()[i]) * row_bytes;
            if (from.file()) {
                failure = {i, from.file()->read(read.reserve(size + 1), size, place)};
                if (!failure.error) found.data()[i] = crc32(read.get(), size);
            } else if (place > from.size() || size > from.size() - place) {
                failure = {i, FileReader::kEndOfFile};
            } else {
                found.data()[i] = crc32(from.data() + place, size);
            }
        }
    }
    if (failure.error) raise(failure);
}

}  // namespace

void register_maxsim(nb::module_ &m) {
    m.def("maxsim_kernels", [] {
        std::vector<std::string> names;
        for (const MaxSimKernel *kernel : maxsim_kernels()) names.emplace_back(kernel->name);
        return names;
    });
    m.def("score_documents", &score_documents);
    m.def("score_rows", &score_rows);
    m.def("crc32", &checksums);
}

}  // namespace muvera
