// Rows of bytes to codes and floats, for AVX2 and what extends it. Include after maxsim_kernel.inl.
#include <immintrin.h>

namespace muvera {
namespace {

// Codes that are stored as int8, xor 0x80 or not: 32 of them at a time.
struct StoreBytes {
    static constexpr size_t kWidth = 1;
    static MUVERA_INLINE void store(uint8_t *out, __m256i codes) {
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out), codes);
    }
};

struct StoreWords {
    static constexpr size_t kWidth = 2;
    static MUVERA_INLINE void store(uint8_t *out, __m256i codes) {
        const __m256i low = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(codes));
        const __m256i high = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(codes, 1));
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out), low);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(out + 32), high);
    }
};

MUVERA_INLINE __m256i load_32(const uint8_t *from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from));
}

// The bytes of a row that loops of 32 at a time read.
MUVERA_INLINE size_t whole(size_t n) { return (n + 31) / 32 * 32; }

constexpr size_t kMostCopied = 256;

template <class Store>
void unpack_int8(const ByteRows &rows, size_t dimension, size_t n_rows, uint8_t *out, size_t stride, __m256i flip) {
    for (size_t r = 0; r < n_rows; ++r) {
        const uint8_t *row = rows.data + r * rows.stride;
        uint8_t *to = out + r * stride;
        for (size_t j = 0; j < dimension; j += 32) {
            uint8_t copy[32];
            const ByteRows here = {row + j, 0, rows.end};
            Store::store(to + j * Store::kWidth, _mm256_xor_si256(load_32(readable(here, 0, 32, copy)), flip));
        }
    }
}

// Looks up tables of 4 or 16 levels.
struct SmallTable {
    __m256i levels;
    explicit SmallTable(const uint8_t *table, int n) {
        alignas(16) uint8_t filled[16];
        for (int i = 0; i < 16; ++i) filled[i] = table[i % n];
        levels = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i *>(filled)));
    }
    MUVERA_INLINE __m256i operator()(__m256i codes) const { return _mm256_shuffle_epi8(levels, codes); }
};

// Looks up a table of 256 levels, as 16 tables of which a code's high bits choose one.
struct LargeTable {
    __m256i parts[16];
    explicit LargeTable(const uint8_t *table) {
        for (int i = 0; i < 16; ++i)
            parts[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(table + 16 * i)));
    }
    MUVERA_INLINE __m256i operator()(__m256i codes) const {
        __m256i result = _mm256_setzero_si256();
        for (int i = 0; i < 16; ++i) {
            // Codes of another table get their highest bit set, for which the shuffle gives 0.
            const __m256i index = _mm256_adds_epu8(_mm256_xor_si256(codes, _mm256_set1_epi8(static_cast<char>(16 * i))),
                                                   _mm256_set1_epi8(0x70));
            result = _mm256_or_si256(result, _mm256_shuffle_epi8(parts[i], index));
        }
        return result;
    }
};

// The pair of bits number s of every byte.
template <int kPair>
MUVERA_INLINE __m256i pairs(__m256i bytes) {
    return _mm256_and_si256(_mm256_srli_epi16(bytes, 2 * kPair), _mm256_set1_epi8(3));
}

// From 64 bytes with the high four bits of codes in nibbles: those of the coordinates with j % 4 == kPair, in bits 4-7.
template <int kPair>
MUVERA_INLINE __m256i high_bits(__m256i first, __m256i second) {
    const __m256i mask = _mm256_set1_epi16(0xff);
    if (kPair >= 2) {
        first = _mm256_srli_epi16(first, 8);
        second = _mm256_srli_epi16(second, 8);
    } else {
        first = _mm256_and_si256(first, mask);
        second = _mm256_and_si256(second, mask);
    }
    __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(first, second), 0xd8);
    if (kPair % 2 == 0) bytes = _mm256_slli_epi16(bytes, 4);
    return _mm256_and_si256(bytes, _mm256_set1_epi8(static_cast<char>(0xf0)));
}

template <int kBits, int kPair, class Table>
MUVERA_INLINE __m256i levels_of(const Table &table, __m256i lead, __m256i low, __m256i high_1, __m256i high_2) {
    __m256i codes = pairs<kPair>(lead);
    if (kBits > 0) codes = _mm256_or_si256(codes, _mm256_slli_epi16(pairs<kPair>(low), 2));
    if (kBits == 6) codes = _mm256_or_si256(codes, high_bits<kPair>(high_1, high_2));
    return table(codes);
}

// Places are written in rising order, because each write may run over the places that follow.
template <class Store, int kBits, class Table>
MUVERA_INLINE void unpack_sliced(const SlicedRows &rows, size_t dimension, size_t n_rows, const Table &table,
                                 uint8_t *out, size_t stride) {
    const size_t n = (dimension + 3) / 4, low_plane = kBits == 6 ? (dimension + 1) / 2 : 0;
    const size_t segment = n * Store::kWidth;
    for (size_t r = 0; r < n_rows; ++r) {
        const uint8_t *lead = rows.lead.data + r * rows.lead.stride;
        const uint8_t *rest = rows.rest.data + r * rows.rest.stride;
        uint8_t *to = out + r * stride;
        const __m256i zero = _mm256_setzero_si256();
        auto part = [&](size_t b, int pair) {
            uint8_t copy[4][32];
            const __m256i a = load_32(readable({lead + b, 0, rows.lead.end}, 0, 32, copy[0]));
            const __m256i low = kBits ? load_32(readable({rest + low_plane + b, 0, rows.rest.end}, 0, 32, copy[1])) : zero;
            const __m256i high_1 = kBits == 6 ? load_32(readable({rest + 2 * b, 0, rows.rest.end}, 0, 32, copy[2])) : zero;
            const __m256i high_2 =
                kBits == 6 ? load_32(readable({rest + 2 * b + 32, 0, rows.rest.end}, 0, 32, copy[3])) : zero;
            const size_t at = b * Store::kWidth;
            if (pair < 0) {  // all four, where none runs over the next
                Store::store(to + at, levels_of<kBits, 0>(table, a, low, high_1, high_2));
                Store::store(to + segment + at, levels_of<kBits, 1>(table, a, low, high_1, high_2));
                Store::store(to + 2 * segment + at, levels_of<kBits, 2>(table, a, low, high_1, high_2));
                Store::store(to + 3 * segment + at, levels_of<kBits, 3>(table, a, low, high_1, high_2));
            } else if (pair == 0) {
                Store::store(to + at, levels_of<kBits, 0>(table, a, low, high_1, high_2));
            } else if (pair == 1) {
                Store::store(to + segment + at, levels_of<kBits, 1>(table, a, low, high_1, high_2));
            } else if (pair == 2) {
                Store::store(to + 2 * segment + at, levels_of<kBits, 2>(table, a, low, high_1, high_2));
            } else {
                Store::store(to + 3 * segment + at, levels_of<kBits, 3>(table, a, low, high_1, high_2));
            }
        };
        if (n <= 32) {
            part(0, -1);
        } else {
            for (int pair = 0; pair < 4; ++pair)
                for (size_t b = 0; b < n; b += 32) part(b, pair);
        }
    }
}

template <class Store, class Large>
void unpack_sliced_any(const SlicedRows &rows, size_t dimension, size_t n_rows, const uint8_t *table, uint8_t *out,
                       size_t stride) {
    if (rows.n_rest_bits == 0)
        unpack_sliced<Store, 0>(rows, dimension, n_rows, SmallTable(table, 4), out, stride);
    else if (rows.n_rest_bits == 2)
        unpack_sliced<Store, 2>(rows, dimension, n_rows, SmallTable(table, 16), out, stride);
    else
        unpack_sliced<Store, 6>(rows, dimension, n_rows, Large(table), out, stride);
}

void unpack_halves(const ByteRows &rows, size_t dimension, size_t n_rows, float *out, size_t stride) {
    for (size_t r = 0; r < n_rows; ++r) {
        const uint8_t *row = rows.data + r * rows.stride;
        for (size_t j = 0; j < dimension; j += 8) {
            uint8_t copy[16];
            const uint8_t *from = readable({row + 2 * j, 0, rows.end}, 0, 16, copy);
            _mm256_storeu_ps(out + r * stride + j,
                             _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from))));
        }
    }
}

}  // namespace
}  // namespace muvera
