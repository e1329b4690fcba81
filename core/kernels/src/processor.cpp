#include "processor.h"

#if defined(__x86_64__) || defined(_M_X64)
#define MUVERA_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#include <immintrin.h>
#endif
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#endif
#elif defined(_M_ARM64)
#include <windows.h>
#endif

namespace muvera {

#ifdef MUVERA_X86

namespace {

struct Registers {
    unsigned a, b, c, d;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers r{0, 0, 0, 0};
#if defined(_MSC_VER)
    int values[4];
    __cpuidex(values, static_cast<int>(leaf), static_cast<int>(subleaf));
    r = {static_cast<unsigned>(values[0]), static_cast<unsigned>(values[1]), static_cast<unsigned>(values[2]),
         static_cast<unsigned>(values[3])};
#else
    __cpuid_count(leaf, subleaf, r.a, r.b, r.c, r.d);
#endif
    return r;
}

// The registers that the operating system saves when it switches threads.
unsigned long long saved_registers() {
#if defined(_MSC_VER)
    return _xgetbv(0);
#else
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<unsigned long long>(high) << 32) | low;
#endif
}

bool bit(unsigned word, int place) { return (word >> place) & 1; }

}  // namespace

namespace {

std::vector<std::string> find_kernels() {
    std::vector<std::string> found;
    const unsigned most = cpuid(0, 0).a;
    const Registers basic = cpuid(1, 0);
    if (most >= 7 && bit(basic.c, 27)) {  // OSXSAVE
        const Registers extended = cpuid(7, 0);
        const unsigned long long saved = saved_registers();
        const bool avx_state = (saved & 0x6) == 0x6;
        const bool avx512_state = avx_state && (saved & 0xe0) == 0xe0;
        const bool avx2 = avx_state && bit(extended.b, 5) && bit(basic.c, 12) && bit(basic.c, 29);  // with FMA, F16C
        const bool avx512 = avx512_state && bit(extended.b, 16) && bit(extended.b, 17) && bit(extended.b, 30) &&
                            bit(extended.b, 31);                  // F, DQ, BW, VL
        if (avx512 && bit(extended.c, 11)) found.push_back("avx512-vnni");
        if (avx2) found.push_back("avx2");
    }
    found.push_back("portable");
    return found;
}

}  // namespace

bool has_amx() {
#if defined(__linux__)
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool has = [] {
        if (available_kernels().front() != "avx512-vnni") return false;
        const Registers extended = cpuid(7, 0);
        const bool tiles = bit(extended.d, 24) && bit(extended.d, 25) && (saved_registers() & 0x60000) == 0x60000;
        const bool vbmi = bit(extended.c, 1);
        return tiles && vbmi && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    }();
    return has;
#else
    return false;
#endif
}

bool has_carryless_products() {
    const Registers basic = cpuid(1, 0);
    return bit(basic.c, 1) && bit(basic.c, 19);
}

bool has_neon_dot_products() { return false; }

#elif defined(__aarch64__) || defined(_M_ARM64)

bool has_amx() { return false; }
bool has_carryless_products() { return false; }

bool has_neon_dot_products() {
#if defined(__APPLE__)
    return true;
#elif defined(__linux__)
    return (getauxval(AT_HWCAP) >> 20) & 1;  // HWCAP_ASIMDDP
#elif defined(_WIN32)
    return IsProcessorFeaturePresent(43);  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
#else
    return false;
#endif
}

namespace {

std::vector<std::string> find_kernels() { return {"neon", "portable"}; }

}  // namespace

#else

bool has_amx() { return false; }
bool has_carryless_products() { return false; }
bool has_neon_dot_products() { return false; }

namespace {

std::vector<std::string> find_kernels() { return {"portable"}; }

}  // namespace

#endif

const std::vector<std::string> &available_kernels() {
    static const std::vector<std::string> found = find_kernels();  // asking takes long on virtual machines
    return found;
}

}  // namespace muvera
