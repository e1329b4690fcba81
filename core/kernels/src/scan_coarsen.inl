// Two-bit codes of a row of 8-bit codes: plain loops, which each file that includes this compiles for its processor.

int64_t sum_of_squares(const int8_t *codes, size_t n) {
    int64_t total = 0;
    for (size_t start = 0; start < n; start += 1 << 16) {
        const size_t end = n - start < (1 << 16) ? n : start + (1 << 16);
        int32_t sum = 0;
        for (size_t i = start; i < end; ++i) sum += static_cast<int16_t>(codes[i] * codes[i]);
        total += sum;
    }
    return total;
}

// Puts the levels of n <= 2**16 codes into two bits of each byte. Returns the product of the codes and 2 * level - 3.
int32_t put_levels(const int8_t *codes, size_t n, int8_t threshold, int shift, uint8_t *row) {
    const int8_t low = static_cast<int8_t>(-threshold);
    int32_t sum = 0;
    for (size_t i = 0; i < n; ++i) {
        const int8_t code = codes[i];
        const uint8_t level = static_cast<uint8_t>((code >= low) + (code >= 0) + (code >= threshold));
        row[i] = static_cast<uint8_t>(row[i] | (level << shift));
        sum += static_cast<int16_t>(static_cast<int16_t>(code) * static_cast<int16_t>(2 * level - 3));
    }
    return sum;
}
