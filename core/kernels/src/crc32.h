// CRC-32 as zlib computes it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace muvera {

uint32_t crc32(const uint8_t *data, size_t size);

#if defined(__x86_64__) || defined(_M_X64)
// Continues with whole blocks of 16 bytes, at least four, from and to the inverted checksum.
uint32_t crc32_folded(const uint8_t *data, size_t size, uint32_t state);
#endif

}  // namespace muvera
