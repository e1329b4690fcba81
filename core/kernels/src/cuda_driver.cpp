#include "cuda_driver.h"

#include <stdexcept>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace muvera::cuda {

namespace {

constexpr int kOutOfMemory = 2;
constexpr unsigned kPortableMapped = 1 | 2;  // CU_MEMHOSTALLOC_PORTABLE, ..._DEVICEMAP

#if defined(_WIN32)
void *opened(const std::string &path) { return reinterpret_cast<void *>(LoadLibraryA(path.c_str())); }
void *found(void *library, const char *name) {
    return reinterpret_cast<void *>(GetProcAddress(reinterpret_cast<HMODULE>(library), name));
}
#else
void *opened(const std::string &path) { return dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL); }
void *found(void *library, const char *name) { return dlsym(library, name); }
#endif

template <class F> void load(F *&function, void *library, const char *name) {
    function = reinterpret_cast<F *>(found(library, name));
    if (function == nullptr) throw std::runtime_error("CUDA's driver has no function " + std::string(name));
}

}  // namespace

Driver::Driver(const std::string &path) {
    void *library = opened(path);
    if (library == nullptr) throw std::runtime_error("CUDA's driver cannot be loaded: there is no " + path);
    load(cuInit, library, "cuInit");
    load(cuDeviceGet, library, "cuDeviceGet");
    load(cuDevicePrimaryCtxRetain, library, "cuDevicePrimaryCtxRetain");
    load(cuDevicePrimaryCtxRelease, library, "cuDevicePrimaryCtxRelease_v2");
    load(cuCtxPushCurrent, library, "cuCtxPushCurrent_v2");
    load(cuCtxPopCurrent, library, "cuCtxPopCurrent_v2");
    load(cuMemAlloc, library, "cuMemAlloc_v2");
    load(cuMemFree, library, "cuMemFree_v2");
    load(cuMemHostAlloc, library, "cuMemHostAlloc");
    load(cuMemFreeHost, library, "cuMemFreeHost");
    load(cuMemcpyHtoDAsync, library, "cuMemcpyHtoDAsync_v2");
    load(cuMemcpyDtoHAsync, library, "cuMemcpyDtoHAsync_v2");
    load(cuStreamCreate, library, "cuStreamCreate");
    load(cuStreamDestroy, library, "cuStreamDestroy_v2");
    load(cuStreamSynchronize, library, "cuStreamSynchronize");
    load(cuLaunchKernel, library, "cuLaunchKernel");
    load(cuGetErrorName, library, "cuGetErrorName");
    load(cuGetErrorString, library, "cuGetErrorString");
    check(cuInit(0));
}

void Driver::check(int error) const {
    if (error == 0) return;
    const char *name = nullptr, *words = nullptr;
    cuGetErrorName(error, &name);
    cuGetErrorString(error, &words);
    std::string text = name ? name : "CUDA error " + std::to_string(error);
    if (words) text += std::string(": ") + words;
    if (error == kOutOfMemory) throw OutOfMemory(text);
    throw std::runtime_error(text);
}

PrimaryContext::PrimaryContext(const Driver &driver, int device_number) : driver_(driver) {
    driver_.check(driver_.cuDeviceGet(&device_, device_number));
    driver_.check(driver_.cuDevicePrimaryCtxRetain(&context_, device_));
}

PrimaryContext::~PrimaryContext() { driver_.cuDevicePrimaryCtxRelease(device_); }

PrimaryContext::Current::Current(const PrimaryContext &of) : driver_(of.driver_) {
    driver_.check(driver_.cuCtxPushCurrent(of.context_));
}

PrimaryContext::Current::~Current() {
    Context popped = nullptr;
    driver_.cuCtxPopCurrent(&popped);
}

void Buffer::reserve(size_t size) {
    if (size <= size_) return;
    free();
    const size_t wanted = size + size / 2;
    if (where_ == Where::kGpu) {
        driver_.check(driver_.cuMemAlloc(&address_, wanted));
    } else {
        void *memory = nullptr;
        driver_.check(driver_.cuMemHostAlloc(&memory, wanted, kPortableMapped));
        address_ = reinterpret_cast<Address>(memory);
    }
    size_ = wanted;
}

void Buffer::free() {
    if (size_ == 0) return;
    if (where_ == Where::kGpu) driver_.cuMemFree(address_);
    else driver_.cuMemFreeHost(at<void>(0));
    address_ = 0, size_ = 0;
}

}  // namespace muvera::cuda
