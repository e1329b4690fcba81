// CUDA's driver without a GPU: every function returns at once, and nothing is computed. For gpu_host_share.py.
#include <cstdint>
#include <cstdlib>

namespace {
char object;
}

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDeviceGet(int *device, int number) { return *device = number, 0; }
int cuDevicePrimaryCtxRetain(void **context, int) { return *context = &object, 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxPushCurrent_v2(void *) { return 0; }
int cuCtxPopCurrent_v2(void **context) { return *context = &object, 0; }
int cuMemAlloc_v2(uint64_t *address, size_t size) { return *address = reinterpret_cast<uint64_t>(calloc(size, 1)), 0; }
int cuMemFree_v2(uint64_t address) { return free(reinterpret_cast<void *>(address)), 0; }
int cuMemHostAlloc(void **memory, size_t size, unsigned) { return *memory = calloc(size, 1), 0; }
int cuMemFreeHost(void *memory) { return free(memory), 0; }
int cuMemcpyHtoDAsync_v2(uint64_t, const void *, size_t, void *) { return 0; }
int cuMemcpyDtoHAsync_v2(void *, uint64_t, size_t, void *) { return 0; }
int cuStreamCreate(void **stream, unsigned) { return *stream = &object, 0; }
int cuStreamDestroy_v2(void *) { return 0; }
int cuStreamSynchronize(void *) { return 0; }
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **) {
    return 0;
}
int cuGetErrorName(int, const char **name) { return *name = "CUDA_SUCCESS", 0; }
int cuGetErrorString(int, const char **text) { return *text = "no error", 0; }

}
