// Ranking on a GPU, for Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>
#include <vector>

#include "cuda_ranker.h"

namespace nb = nanobind;

namespace muvera {

namespace {

// Arrays of Python, in place. They stay as they are for as long as this object lives.
class Views {
  public:
    explicit Views(size_t n) { views_.reserve(n); }  // so that no view is moved: some have pointers to themselves
    ~Views() {
        for (Py_buffer &view : views_) PyBuffer_Release(&view);
    }
    Views(const Views &) = delete;
    Views &operator=(const Views &) = delete;

    const Py_buffer &vectors(nb::handle array) { return add(array, 2, "f", 4, PyBUF_STRIDES); }
    const Py_buffer &keys(nb::handle array) { return add(array, 1, "lq", 8, PyBUF_STRIDES); }
    template <class T> T *results(nb::handle array) {
        const bool are_keys = sizeof(T) == 8;
        return static_cast<T *>(add(array, 0, are_keys ? "lq" : "f", sizeof(T), PyBUF_ND | PyBUF_WRITABLE).buf);
    }

  private:
    // Throws a TypeError if the array has another number of dimensions (any if 0), or numbers of another format.
    const Py_buffer &add(nb::handle array, int n_dimensions, const std::string &formats, int size, int flags) {
        Py_buffer view;
        if (PyObject_GetBuffer(array.ptr(), &view, flags | PyBUF_FORMAT) != 0) throw nb::python_error();
        views_.push_back(view);
        const bool is_known = view.format && view.format[0] && !view.format[1] &&
                              formats.find(view.format[0]) != std::string::npos;
        if ((n_dimensions && view.ndim != n_dimensions) || view.itemsize != size || !is_known)
            throw nb::type_error("query vectors and scores must be arrays of float32, keys of int64");
        return views_.back();
    }

    std::vector<Py_buffer> views_;
};

bool rank(cuda::Ranker &ranker, nb::list queries, nb::list lists, uint64_t place_of_key, int64_t n_keys,
          uint64_t rows_at, uint64_t scales_at, uint64_t n_tokens, int64_t most, nb::handle keys, nb::handle scores) {
    const size_t n = queries.size();
    if (lists.size() != n) throw nb::value_error("each query must have a list of keys");
    Views views(2 * n + 2);
    std::vector<cuda::Request> requests;
    requests.reserve(n);
    for (size_t i = 0; i < n; ++i) {
        const Py_buffer &query = views.vectors(queries[i]), &list = views.keys(lists[i]);
        requests.push_back({static_cast<const char *>(query.buf), query.shape[0], query.strides[0], query.strides[1],
                            static_cast<const char *>(list.buf), list.shape[0], list.strides[0]});
    }
    const cuda::Ranking ranking{views.results<int64_t>(keys), views.results<float>(scores)};
    nb::gil_scoped_release release;
    return ranker.rank(requests, {place_of_key, n_keys, rows_at, scales_at, n_tokens}, most, ranking);
}

cuda::Function function(uint64_t handle) { return reinterpret_cast<cuda::Function>(handle); }

}  // namespace

void register_cuda(nb::module_ &m) {
    nb::class_<cuda::Ranker>(m, "CudaRanker")
        .def(
            "__init__",
            [](cuda::Ranker *self, const std::string &driver, int device, uint64_t find_places, uint64_t split_queries,
               uint64_t maxsim, uint64_t add_chunks, uint64_t select, int64_t dimension, int64_t query_row_bytes,
               int64_t query_row_width, int64_t limit, int64_t chunk, int64_t warps_together, int64_t warps_per_block,
               int64_t most_warps) {
                const cuda::Kernels kernels{function(find_places), function(split_queries), function(maxsim),
                                            function(add_chunks), function(select)};
                const cuda::Shape shape{dimension, query_row_bytes, query_row_width, limit,
                                        chunk,     warps_together,  warps_per_block, most_warps};
                nb::gil_scoped_release release;
                new (self) cuda::Ranker(driver, device, kernels, shape);
            },
            nb::arg("driver"), nb::arg("device"), nb::kw_only(), nb::arg("find_places"), nb::arg("split_queries"),
            nb::arg("maxsim"), nb::arg("add_chunks"), nb::arg("select"), nb::arg("dimension"),
            nb::arg("query_row_bytes"), nb::arg("query_row_width"), nb::arg("limit"), nb::arg("chunk"),
            nb::arg("warps_together"), nb::arg("warps_per_block"), nb::arg("most_warps"))
        .def("rank", &rank, nb::arg("queries"), nb::arg("lists"), nb::arg("place_of_key"), nb::arg("n_keys"),
             nb::arg("rows_at"), nb::arg("scales_at"), nb::arg("n_tokens"), nb::arg("most"), nb::arg("keys"),
             nb::arg("scores"))
        .def_prop_ro("n_bytes", &cuda::Ranker::n_bytes);
}

}  // namespace muvera
