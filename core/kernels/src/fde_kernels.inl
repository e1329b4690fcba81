// The encoding of one token set, for vectors of type `Vec`, which the including file defines together with
// PANEL_VECTORS and `rows_at_once(vectors)`. It uses no library templates: the linker could give a copy that was
// compiled for this processor to code that has to run on others.

namespace muvera {
namespace {

constexpr int64_t LANES = Vec::lanes;

// Call `body(first column, panel, vectors)` for each panel of a matrix of padded columns.
template <class Body>
inline void for_each_panel(const float *matrix, int64_t depth, int64_t columns, const Body &body) {
    for (int64_t column = 0; column < columns;) {
        int64_t vectors = (columns - column) / LANES;
        if (vectors > PANEL_VECTORS) vectors = PANEL_VECTORS;
        body(column, matrix + column * depth, static_cast<int>(vectors));
        column += vectors * LANES;
    }
}

// Products of up to ROWS rows with one panel. `use(row, vector of the panel, product)` takes each result.
template <int ROWS, int VECTORS, class Use>
inline void multiply_few(const float *const *rows, int64_t n, const float *panel, int64_t depth, const Use &use) {
    const float *at[ROWS];
    Vec sums[ROWS][VECTORS];
    for (int r = 0; r < ROWS; ++r) {
        at[r] = rows[r < n ? r : n - 1];
        for (int v = 0; v < VECTORS; ++v) sums[r][v] = Vec::zero();
    }
    for (int64_t i = 0; i < depth; ++i, panel += VECTORS * LANES) {
        Vec column[VECTORS];
        for (int v = 0; v < VECTORS; ++v) column[v] = Vec::load(panel + v * LANES);
        for (int r = 0; r < ROWS; ++r) {
            const Vec number = Vec::all(at[r][i]);
            for (int v = 0; v < VECTORS; ++v) sums[r][v] = Vec::multiply_add(number, column[v], sums[r][v]);
        }
    }
    for (int r = 0; r < ROWS && r < n; ++r) {
        for (int v = 0; v < VECTORS; ++v) use(r, v, sums[r][v]);
    }
}

// Products of all rows with one panel.
template <int VECTORS, class Use>
inline void multiply(const float *const *rows, int64_t n, const float *panel, int64_t depth, const Use &use) {
    constexpr int ROWS = rows_at_once(VECTORS);
    for (int64_t start = 0; start < n; start += ROWS) {
        const auto use_here = [&](int64_t r, int v, Vec product) { use(start + r, v, product); };
        if (n - start > ROWS / 2) {
            multiply_few<ROWS, VECTORS>(rows + start, n - start, panel, depth, use_here);
        } else {
            multiply_few<ROWS / 2, VECTORS>(rows + start, n - start, panel, depth, use_here);
        }
    }
}

template <class Use>
inline void multiply(const float *const *rows, int64_t n, const float *panel, int64_t depth, int vectors,
                     const Use &use) {
    switch (vectors) {
        case 1: return multiply<1>(rows, n, panel, depth, use);
        case 2: return multiply<2>(rows, n, panel, depth, use);
#if PANEL_VECTORS > 2
        case 3: return multiply<3>(rows, n, panel, depth, use);
        default: return multiply<4>(rows, n, panel, depth, use);
#endif
    }
}

// On which sides of all hyperplanes the tokens are: one bit each.
void find_sides(const FdePlan &plan, const FdeScratch &s, const float *tokens, int64_t n) {
    const float *rows[64];
    for (int64_t i = 0; i < n * s.words; ++i) s.sides[i] = 0;
    for (int64_t start = 0; start < n; start += 64) {
        const int64_t batch = n - start < 64 ? n - start : 64;
        for (int64_t t = 0; t < batch; ++t) rows[t] = tokens + (start + t) * plan.dimension;
        uint64_t *sides = s.sides + start * s.words;
        for_each_panel(plan.sides, plan.dimension, plan.side_columns,
                       [&](int64_t first, const float *panel, int vectors) {
                           multiply(rows, batch, panel, plan.dimension, vectors, [&](int64_t t, int v, Vec product) {
                               const int64_t column = first + v * LANES;
                               sides[t * s.words + (column >> 6)] |= static_cast<uint64_t>(product.above_zero())
                                                                     << (column & 63);
                           });
                       });
    }
}

// Sort the tokens by their cell in one repetition, in order within a cell.
void sort_by_cell(const FdePlan &plan, const FdeScratch &s, int64_t n, int64_t repetition) {
    const int64_t cells = int64_t{1} << plan.hyperplanes, bit = repetition * plan.hyperplanes;
    const int64_t word = bit >> 6, shift = bit & 63;
    const bool in_two_words = shift + plan.hyperplanes > 64;
    for (int64_t c = 0; c <= cells; ++c) s.starts[c] = 0;
    for (int64_t t = 0; t < n; ++t) {
        const uint64_t *sides = s.sides + t * s.words + word;
        uint64_t bits = plan.hyperplanes ? sides[0] >> shift : 0;
        if (in_two_words) bits |= sides[1] << (64 - shift);
        s.cells[t] = static_cast<uint16_t>(bits & static_cast<uint64_t>(cells - 1));
        ++s.starts[s.cells[t]];
    }
    int32_t start = 0;
    for (int64_t c = 0; c < cells; ++c) {
        const int32_t count = s.starts[c];
        s.starts[c] = start;
        start += count;
    }
    for (int64_t t = 0; t < n; ++t) s.order[s.starts[s.cells[t]]++] = static_cast<int32_t>(t);
    for (int64_t c = cells; c > 0; --c) s.starts[c] = s.starts[c - 1];
    s.starts[0] = 0;
}

void add_up(const float *tokens, int64_t dimension, const int32_t *members, int64_t n, float *sum) {
    constexpr int AT_ONCE = 8;
    int64_t i = 0;
    for (; i + AT_ONCE * LANES <= dimension; i += AT_ONCE * LANES) {
        Vec part[AT_ONCE];
        for (int v = 0; v < AT_ONCE; ++v) part[v] = Vec::zero();
        for (int64_t m = 0; m < n; ++m) {
            const float *token = tokens + members[m] * dimension + i;
            for (int v = 0; v < AT_ONCE; ++v) part[v] = Vec::add(part[v], Vec::load(token + v * LANES));
        }
        for (int v = 0; v < AT_ONCE; ++v) part[v].store(sum + i + v * LANES);
    }
    for (; i + LANES <= dimension; i += LANES) {
        Vec part = Vec::zero();
        for (int64_t m = 0; m < n; ++m) part = Vec::add(part, Vec::load(tokens + members[m] * dimension + i));
        part.store(sum + i);
    }
    for (; i < dimension; ++i) {
        float part = 0;
        for (int64_t m = 0; m < n; ++m) part += tokens[members[m] * dimension + i];
        sum[i] = part;
    }
}

// For each empty cell, the token nearest in Hamming distance, the first of equals. The distance is a sum over bits, so
// it is relaxed one bit at a time. `distance * tokens + token` orders by distance, then by token.
void find_nearest(const FdePlan &plan, const FdeScratch &s, int64_t n) {
    const int64_t cells = int64_t{1} << plan.hyperplanes;
    for (int64_t c = 0; c < cells; ++c) {
        s.nearest[c] = s.starts[c] < s.starts[c + 1] ? s.order[s.starts[c]] : n * (plan.hyperplanes + 1);
    }
    for (int64_t bit = 1; bit < cells; bit <<= 1) {
        for (int64_t low = 0; low < cells; low += 2 * bit) {
            for (int64_t a = low; a < low + bit; ++a) {
                const int64_t here = s.nearest[a], there = s.nearest[a + bit];
                s.nearest[a] = there + n < here ? there + n : here;
                s.nearest[a + bit] = here + n < there ? here + n : there;
            }
        }
    }
}

// Give each cell a row: the sum of its tokens, or, if it is empty and to be filled, the nearest token. Returns the
// number of rows, which is at most that of the tokens twice.
int64_t make_rows(const FdePlan &plan, const FdeScratch &s, const float *tokens, int64_t n, bool is_document) {
    const int64_t cells = int64_t{1} << plan.hyperplanes, d = plan.dimension;
    int64_t n_rows = 0, n_empty = 0;
    float *sum = s.sums;
    for (int64_t c = 0; c < cells; ++c) {
        const int32_t *members = s.order + s.starts[c];
        const int64_t count = s.starts[c + 1] - s.starts[c];
        s.row[c] = s.first_row[c] = -1;
        if (count == 0) {
            ++n_empty;
            continue;
        }
        s.row[c] = static_cast<int32_t>(n_rows);
        s.scale[n_rows] = is_document ? 1.0f / static_cast<float>(count) : 1.0f;
        if (count == 1) {
            s.first_row[c] = s.row[c];
            s.rows[n_rows] = tokens + members[0] * d;
        } else {
            add_up(tokens, d, members, count, sum);
            s.rows[n_rows] = sum;
            sum += d;
        }
        ++n_rows;
    }
    if (!is_document || !plan.fill || n_empty == 0) return n_rows;
    find_nearest(plan, s, n);
    for (int64_t c = 0; c < cells; ++c) {
        if (s.row[c] >= 0 && s.starts[c] < s.starts[c + 1]) continue;
        const int64_t token = s.nearest[c] % n;  // always the first of its cell
        int32_t *row = s.first_row + s.cells[token];
        if (*row < 0) {
            *row = static_cast<int32_t>(n_rows);
            s.scale[n_rows] = 1.0f;
            s.rows[n_rows++] = tokens + token * d;
        }
        s.row[c] = *row;
    }
    return n_rows;
}

// Project the rows of one repetition, and let `rows` point to the results.
void project(const FdePlan &plan, const FdeScratch &s, int64_t n_rows, int64_t repetition) {
    const int64_t d = plan.dimension, columns = plan.value_columns;
    if (plan.sparse_column) {
        const int32_t *column = plan.sparse_column + repetition * d;
        const float *weight = plan.sparse_weight + repetition * d;
        for (int64_t r = 0; r < n_rows; ++r) {
            float *value = s.values + r * columns;
            for (int64_t c = 0; c < columns; ++c) value[c] = 0;
            for (int64_t i = 0; i < d; ++i) value[column[i]] += weight[i] * s.rows[r][i];
        }
    } else {
        for_each_panel(plan.projections + repetition * d * columns, d, columns,
                       [&](int64_t first, const float *panel, int vectors) {
                           multiply(s.rows, n_rows, panel, d, vectors, [&](int64_t r, int v, Vec product) {
                               product.store(s.values + r * columns + first + v * LANES);
                           });
                       });
    }
    for (int64_t r = 0; r < n_rows; ++r) s.rows[r] = s.values + r * columns;
}

// Write the values of one repetition, partition by partition: partition p holds the tokens whose cell is the Gray code
// of p.
void write(const FdePlan &plan, const FdeScratch &s, int64_t repetition, float *encoding) {
    const int64_t cells = int64_t{1} << plan.hyperplanes, width = plan.width;
    for (int64_t p = 0; p < cells; ++p) {
        const int32_t row = s.row[p ^ (p >> 1)];
        const int64_t first = (repetition * cells + p) * width;
        if (plan.sketch_index) {
            if (row < 0) continue;
            const int32_t *index = plan.sketch_index + first;
            const float *sign = plan.sketch_sign + first, *value = s.rows[row];
            const float scale = s.scale[row];
            for (int64_t i = 0; i < width; ++i) encoding[index[i]] += sign[i] * (value[i] * scale);
            continue;
        }
        float *out = encoding + first;
        int64_t i = 0;
        if (row < 0) {
            for (; i < width; ++i) out[i] = 0;
            continue;
        }
        const float *value = s.rows[row];
        const float scale = s.scale[row];
        const Vec scales = Vec::all(scale);
        for (; i + LANES <= width; i += LANES) Vec::multiply(Vec::load(value + i), scales).store(out + i);
        for (; i < width; ++i) out[i] = value[i] * scale;
    }
}

void encode(const FdePlan &plan, const FdeScratch &s, const float *tokens, int64_t n, bool is_document,
            float *encoding) {
    // Tokens are read once per repetition. Vectors that cross a cache line would take twice as long.
    const bool crosses = (reinterpret_cast<uintptr_t>(tokens) & 63) != 0 && plan.dimension % LANES == 0;
    if (plan.mean) {
        for (int64_t t = 0; t < n; ++t) {
            for (int64_t i = 0; i < plan.dimension; ++i) {
                s.tokens[t * plan.dimension + i] = tokens[t * plan.dimension + i] - plan.mean[i];
            }
        }
        tokens = s.tokens;
    } else if (crosses) {
        for (int64_t i = 0; i < n * plan.dimension; ++i) s.tokens[i] = tokens[i];
        tokens = s.tokens;
    }
    if (plan.sketch_index) {
        for (int64_t i = 0; i < plan.output; ++i) encoding[i] = 0;
    }
    find_sides(plan, s, tokens, n);
    for (int64_t repetition = 0; repetition < plan.repetitions; ++repetition) {
        sort_by_cell(plan, s, n, repetition);
        const int64_t n_rows = make_rows(plan, s, tokens, n, is_document);
        if (plan.projections || plan.sparse_column) project(plan, s, n_rows, repetition);
        write(plan, s, repetition, encoding);
    }
}

}  // namespace
}  // namespace muvera
