// The instructions of ``instructions.cu`` in C++.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

inline float half_value(unsigned short bits) {
    _Float16 value;
    memcpy(&value, &bits, 2);
    return static_cast<float>(value);
}

inline unsigned short to_half(float value) { return same_bits<unsigned short>(static_cast<_Float16>(value)); }
inline float from_half(unsigned short bits) { return half_value(bits); }

struct OfInt8 {
    typedef signed char Stored;
    typedef int Sum;
    static Sum number(Stored stored) { return stored; }
};
struct OfHalf {
    typedef unsigned short Stored;
    typedef float Sum;
    static Sum number(Stored stored) { return half_value(stored); }
};

// The product of a matrix of 16 rows and one of 8 columns, each row and column of 32 bytes. PTX divides them like this:
// lane 4 * group + quarter has of row ``group`` (registers 0, 2) and row ``group + 8`` (1, 3), and of column ``group``
// (4, 5), the bytes from 4 * quarter and from 16 + 4 * quarter. It gets the results of these rows and of the columns
// 2 * quarter and 2 * quarter + 1.
template <class Type>
void multiply_add_warp(typename Type::Sum (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    constexpr int n = 32 / sizeof(typename Type::Stored);
    const uint64_t *result = fibers::exchange({a0, a1, a2, a3, b0, b1}, [](auto &given, auto &results) {
        typename Type::Stored rows[16][n], columns[8][n];
        for (int lane = 0; lane < 32; ++lane)
            for (int half = 0; half < 2; ++half) {
                const int group = lane / 4, byte = 16 * half + 4 * (lane % 4);
                memcpy(reinterpret_cast<char *>(rows[group]) + byte, &given[lane][2 * half], 4);
                memcpy(reinterpret_cast<char *>(rows[group + 8]) + byte, &given[lane][2 * half + 1], 4);
                memcpy(reinterpret_cast<char *>(columns[group]) + byte, &given[lane][4 + half], 4);
            }
        typename Type::Sum right[n][8], products[16][8] = {};
        for (int k = 0; k < n; ++k)
            for (int column = 0; column < 8; ++column) right[k][column] = Type::number(columns[column][k]);
        for (int row = 0; row < 16; ++row)
            for (int k = 0; k < n; ++k) {
                const typename Type::Sum left = Type::number(rows[row][k]);
                for (int column = 0; column < 8; ++column) products[row][column] += left * right[k][column];
            }
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 4; ++i)
                results[lane][i] = same_bits<uint64_t>(products[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2]);
    });
    for (int i = 0; i < 4; ++i) {
        typename Type::Sum product;
        memcpy(&product, &result[i], sizeof product);
        sum[i] += product;
    }
}

inline void multiply_add(int (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    multiply_add_warp<OfInt8>(sum, a0, a1, a2, a3, b0, b1);
}
inline void multiply_add(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    multiply_add_warp<OfHalf>(sum, a0, a1, a2, a3, b0, b1);
}

inline u32 permute(u32 low, u32 high, u32 selector) { return __byte_perm(low, high, selector); }
