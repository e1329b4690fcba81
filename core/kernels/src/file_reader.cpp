#include "file_reader.h"

#include <cerrno>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <io.h>
#include <windows.h>
#else
#include <unistd.h>
#endif

namespace muvera {

namespace {

// Systems read at most 2 GiB at a time.
constexpr size_t kMostAtOnce = size_t{1} << 30;

size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

}  // namespace

#if defined(_WIN32)

// A read at a place moves the position of its handle, with which Python may be writing. So the file is opened again.
FileReader::FileReader(int descriptor) : handle_(INVALID_HANDLE_VALUE), error_(0) {
    const intptr_t original = _get_osfhandle(descriptor);
    if (original != -1)
        handle_ = ReOpenFile(reinterpret_cast<HANDLE>(original), GENERIC_READ,
                             FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, 0);
    if (handle_ == INVALID_HANDLE_VALUE) error_ = EBADF;
}

FileReader::~FileReader() {
    if (handle_ != INVALID_HANDLE_VALUE) CloseHandle(handle_);
}

int FileReader::read(uint8_t *to, size_t size, uint64_t place) const {
    if (error_) return error_;
    while (size > 0) {
        OVERLAPPED where = {};
        where.Offset = static_cast<DWORD>(place & 0xffffffffu);
        where.OffsetHigh = static_cast<DWORD>(place >> 32);
        DWORD n = 0;
        if (!ReadFile(handle_, to, static_cast<DWORD>(smaller(size, kMostAtOnce)), &n, &where))
            return GetLastError() == ERROR_HANDLE_EOF ? kEndOfFile : EIO;
        if (n == 0) return kEndOfFile;
        to += n, size -= n, place += n;
    }
    return 0;
}

#else

FileReader::FileReader(int descriptor) : descriptor_(descriptor) {}

FileReader::~FileReader() {}

int FileReader::read(uint8_t *to, size_t size, uint64_t place) const {
    while (size > 0) {
        const ssize_t n = pread(descriptor_, to, smaller(size, kMostAtOnce), static_cast<off_t>(place));
        if (n < 0) {
            if (errno == EINTR) continue;
            return errno;
        }
        if (n == 0) return kEndOfFile;
        to += n, size -= static_cast<size_t>(n), place += static_cast<uint64_t>(n);
    }
    return 0;
}

#endif

}  // namespace muvera
