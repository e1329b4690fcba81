// The functions of CUDA's driver that reranking needs. Its library is loaded at run time, so that the package is built and
// installed without CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <string>

namespace muvera::cuda {

using Address = uint64_t;  // of the GPU's memory
using Context = struct ContextOfDriver *;
using Stream = struct StreamOfDriver *;
using Function = struct FunctionOfDriver *;

// Too little memory, of the GPU or pinned. Becomes Python's MemoryError.
class OutOfMemory : public std::bad_alloc {
  public:
    explicit OutOfMemory(std::string text) : text_(std::move(text)) {}
    const char *what() const noexcept override { return text_.c_str(); }

  private:
    std::string text_;
};

// The functions have the driver's names, without the versions of their interfaces. They return 0 or an error, see `check`.
struct Driver {
    // Throws std::runtime_error if there is no such library, or if it lacks a function. It stays loaded.
    explicit Driver(const std::string &path);

    // Throws OutOfMemory or std::runtime_error, with the driver's words, if a function has returned an error.
    void check(int error) const;

    int (*cuInit)(unsigned flags);
    int (*cuDeviceGet)(int *device, int number);
    int (*cuDevicePrimaryCtxRetain)(Context *context, int device);
    int (*cuDevicePrimaryCtxRelease)(int device);
    int (*cuCtxPushCurrent)(Context context);
    int (*cuCtxPopCurrent)(Context *context);
    int (*cuMemAlloc)(Address *address, size_t size);
    int (*cuMemFree)(Address address);
    int (*cuMemHostAlloc)(void **memory, size_t size, unsigned flags);
    int (*cuMemFreeHost)(void *memory);
    int (*cuMemcpyHtoDAsync)(Address to, const void *from, size_t size, Stream stream);
    int (*cuMemcpyDtoHAsync)(void *to, Address from, size_t size, Stream stream);
    int (*cuStreamCreate)(Stream *stream, unsigned flags);
    int (*cuStreamDestroy)(Stream stream);
    int (*cuStreamSynchronize)(Stream stream);
    int (*cuLaunchKernel)(Function kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream stream, void **arguments,
                          void **extra);
    int (*cuGetErrorName)(int error, const char **name);
    int (*cuGetErrorString)(int error, const char **text);
};

// Keeps the context that CUDA's runtime uses alive. It is used within the scope of a `Current`.
class PrimaryContext {
  public:
    PrimaryContext(const Driver &driver, int device_number);
    ~PrimaryContext();
    PrimaryContext(const PrimaryContext &) = delete;
    PrimaryContext &operator=(const PrimaryContext &) = delete;

    class Current {
      public:
        // Throws if the context is gone.
        explicit Current(const PrimaryContext &of);
        ~Current();
        Current(const Current &) = delete;
        Current &operator=(const Current &) = delete;

      private:
        const Driver &driver_;
    };

  private:
    const Driver &driver_;
    int device_ = 0;
    Context context_ = nullptr;
};

// Memory of the GPU, or pinned memory of the host, which the GPU reads and writes by itself. Needs a current context.
class Buffer {
  public:
    enum class Where { kGpu, kHost };

    Buffer(const Driver &driver, Where where) : driver_(driver), where_(where) {}
    ~Buffer() { free(); }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;

    // Makes room. If the memory is replaced, its contents are lost. The GPU may not be using it.
    void reserve(size_t size);

    size_t size() const { return size_; }
    // The host's memory has the same address for the GPU.
    Address address() const { return address_; }
    template <class T> T *at(size_t offset) const { return reinterpret_cast<T *>(address_ + offset); }

  private:
    void free();

    const Driver &driver_;
    Where where_;
    Address address_ = 0;
    size_t size_ = 0;
};

}  // namespace muvera::cuda
