// Exact MaxSim with AMX: a tile holds 16 rows or 16 query tokens, and one instruction multiplies 16,384 pairs of bytes.
#include "maxsim_avx512.inl"

namespace muvera {
namespace {

constexpr size_t kTileRows = 16;
constexpr size_t kTileBytes = 1024;

struct alignas(64) TileConfig {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Raises the best scores of 16 query tokens by the products of 16 rows, which are in memory.
template <int kPlanes>
MUVERA_INLINE __m512 raised(__m512 best, const int32_t *products, const float *scales) {
    for (size_t r = 0; r < kTileRows; ++r) {
        __m512i sum = _mm512_load_si512(products + 16 * r);
        if (kPlanes == 2) {
            const __m512i low = _mm512_load_si512(products + kTileBytes / 4 + 16 * r);
            sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 8), low);
        }
        best = _mm512_max_ps(best, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(scales[r])));
    }
    return best;
}

// Scores one or two blocks of 16 query tokens. Tiles 0-3: products of the blocks with the first and the second plane.
// Tile 4: rows. Tiles 5, 6: tokens.
template <int kPlanes, int kBlocks>
MUVERA_INLINE void score_blocks(const uint8_t *rows, size_t stride, const float *scales, size_t n_rows,
                                const uint8_t *query, size_t n_groups, float *best) {
    alignas(64) int32_t products[2 * kBlocks * kTileBytes / 4];
    const size_t plane = n_groups * 64, n_steps = n_groups / 16;
    __m512 first = _mm512_loadu_ps(best), second = kBlocks == 2 ? _mm512_loadu_ps(best + 16) : first;
    for (size_t r = 0; r < n_rows; r += kTileRows) {
        _tile_zero(0);
        _tile_zero(1);
        if (kBlocks == 2) {
            _tile_zero(2);
            _tile_zero(3);
        }
        for (size_t step = 0; step < n_steps; ++step) {
            const uint8_t *tokens = query + step * kTileBytes;
            _tile_loadd(4, rows + r * stride + 64 * step, static_cast<int>(stride));
            _tile_loadd(5, tokens, 64);
            _tile_dpbssd(0, 4, 5);
            if (kPlanes == 2) {
                _tile_loadd(6, tokens + plane, 64);
                _tile_dpbssd(1, 4, 6);
            }
            if (kBlocks == 2) {
                _tile_loadd(5, tokens + kPlanes * plane, 64);
                _tile_dpbssd(2, 4, 5);
            }
            if (kBlocks == 2 && kPlanes == 2) {
                _tile_loadd(6, tokens + 3 * plane, 64);
                _tile_dpbssd(3, 4, 6);
            }
        }
        _tile_stored(0, products, 64);
        if (kPlanes == 2) _tile_stored(1, products + kTileBytes / 4, 64);
        first = raised<kPlanes>(first, products, scales + r);
        if (kBlocks == 2) {
            int32_t *others = products + 2 * (kBlocks - 1) * kTileBytes / 4;
            _tile_stored(2, others, 64);
            if (kPlanes == 2) _tile_stored(3, others + kTileBytes / 4, 64);
            second = raised<kPlanes>(second, others, scales + r);
        }
    }
    _mm512_storeu_ps(best, first);
    if (kBlocks == 2) _mm512_storeu_ps(best + 16, second);
}

template <int kPlanes>
MUVERA_INLINE void score_all(const uint8_t *rows, size_t stride, const float *scales, size_t n_rows,
                             const CodeQueries &queries, float *best) {
    const size_t size = kPlanes * queries.n_groups * 64;
    size_t block = 0;
    for (; block + 2 <= queries.n_blocks; block += 2)
        score_blocks<kPlanes, 2>(rows, stride, scales, n_rows, queries.codes + block * size, queries.n_groups,
                                 best + 16 * block);
    if (block < queries.n_blocks)
        score_blocks<kPlanes, 1>(rows, stride, scales, n_rows, queries.codes + block * size, queries.n_groups,
                                 best + 16 * block);
}

void score_codes_in_tiles(const uint8_t *rows, size_t stride, const float *scales, size_t n_rows,
                          const CodeQueries &queries, float *best) {
    const TileConfig config;
    _tile_loadconfig(&config);
    if (queries.n_planes == 2)
        score_all<2>(rows, stride, scales, n_rows, queries, best);
    else
        score_all<1>(rows, stride, scales, n_rows, queries, best);
    _tile_release();
}

// Looks up a table of 256 levels in registers. Every processor with AMX has AVX-512 VBMI.
struct PermutedTable {
    __m512i parts[4];
    explicit PermutedTable(const uint8_t *table) {
        for (int i = 0; i < 4; ++i) parts[i] = _mm512_loadu_si512(table + 64 * i);
    }
    MUVERA_INLINE __m256i operator()(__m256i codes) const {
        const __m512i wide = _mm512_castsi256_si512(codes);
        const __m512i low = _mm512_permutex2var_epi8(parts[0], wide, parts[1]);
        const __m512i high = _mm512_permutex2var_epi8(parts[2], wide, parts[3]);
        return _mm512_castsi512_si256(_mm512_mask_blend_epi8(_mm512_movepi8_mask(wide), low, high));
    }
};

void unpack_signed(const ByteRows &rows, size_t dimension, size_t n_rows, uint8_t *out, size_t stride) {
    unpack_int8<StoreBytes>(rows, dimension, n_rows, out, stride, _mm256_setzero_si256());
}

}  // namespace

extern const MaxSimKernel kAmxMaxSim = {"amx",
                                        Avx512::kLanes,
                                        kTileRows,
                                        16,
                                        2,
                                        CodeForm::int8,
                                        5e11,
                                        score_codes_in_tiles,
                                        score_floats<Avx512>,
                                        unpack_signed,
                                        unpack_sliced_any<StoreBytes, PermutedTable>,
                                        unpack_halves};

}  // namespace muvera
