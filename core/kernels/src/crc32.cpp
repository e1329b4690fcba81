#include "crc32.h"

#include <cstring>

#include "processor.h"

namespace muvera {

namespace {

// tables[k][b]: the checksum's state after byte b and k zero bytes.
struct Tables {
    uint32_t entries[8][256];
    Tables() {
        for (uint32_t byte = 0; byte < 256; ++byte) {
            uint32_t state = byte;
            for (int bit = 0; bit < 8; ++bit) state = (state >> 1) ^ (state & 1 ? 0xedb88320u : 0);
            entries[0][byte] = state;
        }
        for (int k = 1; k < 8; ++k)
            for (uint32_t byte = 0; byte < 256; ++byte) {
                const uint32_t before = entries[k - 1][byte];
                entries[k][byte] = (before >> 8) ^ entries[0][before & 0xff];
            }
    }
};

uint32_t little_endian(const uint8_t *from) {
    return uint32_t{from[0]} | uint32_t{from[1]} << 8 | uint32_t{from[2]} << 16 | uint32_t{from[3]} << 24;
}

uint32_t by_tables(const uint8_t *data, size_t size, uint32_t state) {
    static const Tables tables;
    const auto &t = tables.entries;
    for (; size >= 8; data += 8, size -= 8) {
        const uint32_t a = state ^ little_endian(data), b = little_endian(data + 4);
        state = t[7][a & 0xff] ^ t[6][(a >> 8) & 0xff] ^ t[5][(a >> 16) & 0xff] ^ t[4][a >> 24] ^ t[3][b & 0xff] ^
                t[2][(b >> 8) & 0xff] ^ t[1][(b >> 16) & 0xff] ^ t[0][b >> 24];
    }
    for (; size > 0; ++data, --size) state = (state >> 8) ^ t[0][(state ^ *data) & 0xff];
    return state;
}

}  // namespace

uint32_t crc32(const uint8_t *data, size_t size) {
    uint32_t state = 0xffffffffu;
#if defined(__x86_64__) || defined(_M_X64)
    static const bool can_fold = has_carryless_products();
    if (can_fold && size >= 64) {
        const size_t whole = size & ~size_t{15};
        state = crc32_folded(data, whole, state);
        data += whole, size -= whole;
    }
#endif
    return ~by_tables(data, size, state);
}

}  // namespace muvera
