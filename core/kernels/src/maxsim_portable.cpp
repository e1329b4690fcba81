// Exact MaxSim in plain C++.
#include <cstring>

#include "maxsim_kernel.inl"

namespace muvera {
namespace {

struct Portable {
    static constexpr int kLanes = 8;
    static constexpr int kMostSums = 8;
    struct Bytes {
        int16_t x[2 * kLanes];
    };
    struct Int {
        int32_t x[kLanes];
    };
    struct Float {
        float x[kLanes];
    };
    template <class T>
    static T copied(const void *from) {
        T value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
    static Bytes load(const uint8_t *from) { return copied<Bytes>(from); }
    static Int load_ints(const int32_t *from) { return copied<Int>(from); }
    static Float load_floats(const float *from) { return copied<Float>(from); }
    static void store_floats(float *to, const Float &value) { std::memcpy(to, &value, sizeof value); }
    static Bytes broadcast(const uint8_t *from) {
        int16_t pair[2];
        std::memcpy(pair, from, sizeof pair);
        Bytes result;
        for (int i = 0; i < kLanes; ++i) result.x[2 * i] = pair[0], result.x[2 * i + 1] = pair[1];
        return result;
    }
    static Int dot(Int sum, const Bytes &a, const Bytes &b) {
        for (int i = 0; i < kLanes; ++i)
            sum.x[i] += int32_t{a.x[2 * i]} * b.x[2 * i] + int32_t{a.x[2 * i + 1]} * b.x[2 * i + 1];
        return sum;
    }
    static Int add(Int a, const Int &b) {
        for (int i = 0; i < kLanes; ++i) a.x[i] += b.x[i];
        return a;
    }
    static Int times_256(Int a) {
        for (int i = 0; i < kLanes; ++i) a.x[i] *= 256;
        return a;
    }
    static Float to_float(const Int &a) {
        Float result;
        for (int i = 0; i < kLanes; ++i) result.x[i] = static_cast<float>(a.x[i]);
        return result;
    }
    static Float set(float value) {
        Float result;
        for (int i = 0; i < kLanes; ++i) result.x[i] = value;
        return result;
    }
    static Float multiply(Float a, const Float &b) {
        for (int i = 0; i < kLanes; ++i) a.x[i] *= b.x[i];
        return a;
    }
    static Float multiply_add(const Float &a, const Float &b, Float sum) {
        for (int i = 0; i < kLanes; ++i) sum.x[i] += a.x[i] * b.x[i];
        return sum;
    }
    static Float maximum(Float a, const Float &b) {
        for (int i = 0; i < kLanes; ++i) a.x[i] = b.x[i] > a.x[i] ? b.x[i] : a.x[i];
        return a;
    }
};

void put(uint8_t *row, size_t place, int level) {
    const int16_t value = static_cast<int16_t>(level);
    std::memcpy(row + 2 * place, &value, sizeof value);
}

void unpack_int8(const ByteRows &rows, size_t dimension, size_t n_rows, uint8_t *out, size_t stride) {
    for (size_t r = 0; r < n_rows; ++r) {
        const int8_t *codes = reinterpret_cast<const int8_t *>(rows.data + r * rows.stride);
        for (size_t j = 0; j < dimension; ++j) put(out + r * stride, j, codes[j]);
    }
}

void unpack_sliced(const SlicedRows &rows, size_t dimension, size_t n_rows, const uint8_t *table, uint8_t *out,
                   size_t stride) {
    const int8_t *levels = reinterpret_cast<const int8_t *>(table);
    const size_t low_plane = rows.n_rest_bits == 6 ? (dimension + 1) / 2 : 0;
    for (size_t r = 0; r < n_rows; ++r) {
        const uint8_t *lead = rows.lead.data + r * rows.lead.stride;
        const uint8_t *rest = rows.rest.data + r * rows.rest.stride;
        for (size_t j = 0; j < dimension; ++j) {
            const int pair = 2 * (j % 4);
            int code = (lead[j / 4] >> pair) & 3;
            if (rows.n_rest_bits) code |= ((rest[low_plane + j / 4] >> pair) & 3) << 2;
            if (rows.n_rest_bits == 6) code |= ((rest[j / 2] >> (4 * (j % 2))) & 15) << 4;
            put(out + r * stride, sliced_place(j, dimension), levels[code]);
        }
    }
}

float from_half(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t magnitude = half & 0x7fff;
    float value;
    if (magnitude < 0x400) {  // zero or subnormal
        value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;  // 2**-24
    } else {
        const uint32_t bits = (magnitude << 13) + (magnitude >= 0x7c00 ? 0x70000000u : 0x38000000u);
        std::memcpy(&value, &bits, sizeof value);
    }
    return sign ? -value : value;
}

void unpack_halves(const ByteRows &rows, size_t dimension, size_t n_rows, float *out, size_t stride) {
    for (size_t r = 0; r < n_rows; ++r) {
        const uint8_t *data = rows.data + r * rows.stride;
        for (size_t j = 0; j < dimension; ++j)
            out[r * stride + j] = from_half(static_cast<uint16_t>(data[2 * j] | (data[2 * j + 1] << 8)));
    }
}

}  // namespace

extern const MaxSimKernel kPortableMaxSim = {
    "portable",   Portable::kLanes,       4,           1, 1, CodeForm::int16, 8e9, score_codes<Portable>,
    score_floats<Portable>, unpack_int8, unpack_sliced, unpack_halves};

}  // namespace muvera
