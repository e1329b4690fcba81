// Reads at a place of a file that is open elsewhere, without moving that file's own position.
#pragma once

#include <cstddef>
#include <cstdint>

namespace muvera {

class FileReader {
  public:
    // `descriptor` is one of the C library's. It must stay open as long as the reader is used.
    explicit FileReader(int descriptor);
    ~FileReader();
    FileReader(const FileReader &) = delete;
    FileReader &operator=(const FileReader &) = delete;

    // Reads `size` bytes. Returns 0, an errno, or kEndOfFile. Any number of threads may read.
    int read(uint8_t *to, size_t size, uint64_t place) const;

    static constexpr int kEndOfFile = -1;

  private:
#if defined(_WIN32)
    void *handle_;
    int error_;
#else
    int descriptor_;
#endif
};

}  // namespace muvera
