// The processor's instructions that C++ has no words for. They stand alone, so that tests can compile the kernels for a
// machine without a GPU. No header is included, because CuPy is often installed without them.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// Adds the products of 16 rows and 8 columns of 32 bytes, int8, to sums in int32. The lane has parts of rows ``lane / 4``
// (a0, a2) and 8 more (a1, a3), and of column ``lane / 4`` (b0, b1); the PTX manual says which.
__device__ __forceinline__ void multiply_add(int (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same with 16 numbers of float16 in 32 bytes, and sums in float32.
__device__ __forceinline__ void multiply_add(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The bits of the float16 nearest to a number.
__device__ __forceinline__ unsigned short to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ float from_half(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// Four bytes, each selected by 4 bits of ``selector``: the low three bits number a byte of the eight of ``low`` and
// ``high``. If the highest bit is set, the result is 255 or 0 instead: eight times that byte's highest bit.
__device__ __forceinline__ u32 permute(u32 low, u32 high, u32 selector) {
    u32 bytes;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(low), "r"(high), "r"(selector));
    return bytes;
}
