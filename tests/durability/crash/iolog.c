/* Numbers, logs, stops and fails the file operations of the process it is preloaded into (Linux, glibc).
 *
 * Only what changes files under one root folder counts. Every such operation gets the next number, from 1. A process
 * arms the library through iolog_start, which a preloaded library's user finds with ctypes.CDLL(None); until then all
 * calls pass through. Functions instead of environment variables let one warm process fork a child for each run.
 *
 * What a process changes without these calls isn't seen: shared writable mappings (logged as 'M' so that a reader can
 * refuse the run), stdio other than fwrite, io_uring, raw system calls. A reader that replays the log and compares the
 * result with the folder notices all of them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define REAL(name) ((__typeof__(&name))real(#name))
#define MAX_PATH 4096

struct __attribute__((packed)) record {
    uint32_t magic;
    char kind;
    char pad[3];
    int32_t error;
    uint64_t number, inode, offset, length;
    uint32_t path_length, other_length;
    uint64_t data_length;
};

struct change {
    char kind;
    uint64_t inode, offset, length;
    const char *path, *other;
    const void *data;
    size_t data_length;
};

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static int active, log_fd = -1;
static char root[MAX_PATH], ack_path[MAX_PATH];
static uint64_t number, kill_at;
static int kill_torn;
static uint64_t fail_at, fail_count, failed;
static int fail_errno, fail_short;
static char fail_kinds[16];

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

/* Control */

EXPORT int iolog_start(const char *root_folder, const char *acks, const char *log_file, uint64_t kill_number, int torn) {
    pthread_mutex_lock(&lock);
    snprintf(root, sizeof root, "%s", root_folder);
    snprintf(ack_path, sizeof ack_path, "%s", acks);
    number = 0, kill_at = kill_number, kill_torn = torn, fail_at = 0;
    if (log_fd >= 0) syscall(SYS_close, log_fd);
    log_fd = -1;
    if (*log_file) log_fd = syscall(SYS_openat, AT_FDCWD, log_file, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
    active = 1;
    pthread_mutex_unlock(&lock);
    return *log_file && log_fd < 0 ? -1 : 0;
}

/* From operation `at` on, those whose kind is in `kinds` fail with `error`, `count` of them or all if it is 0. */
EXPORT void iolog_fail(uint64_t at, int error, uint64_t count, const char *kinds, int short_first) {
    pthread_mutex_lock(&lock);
    fail_at = at, fail_errno = error, fail_count = count, fail_short = short_first, failed = 0;
    snprintf(fail_kinds, sizeof fail_kinds, "%s", kinds);
    pthread_mutex_unlock(&lock);
}

/* No more failures. Returns how many there were. */
EXPORT uint64_t iolog_heal(void) {
    pthread_mutex_lock(&lock);
    fail_at = 0;
    uint64_t n = failed;
    pthread_mutex_unlock(&lock);
    return n;
}

EXPORT uint64_t iolog_number(void) { return number; }
EXPORT uint64_t iolog_failed(void) { return failed; }

/* Paths */

static void path_of_fd(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, out, MAX_PATH - 1);
    out[n < 0 ? 0 : n] = 0;
}

static void absolute(int folder_fd, const char *path, char *out) {
    if (path[0] == '/') {
        snprintf(out, MAX_PATH, "%s", path);
        return;
    }
    char folder[MAX_PATH];
    if (folder_fd == AT_FDCWD) {
        if (!getcwd(folder, sizeof folder)) folder[0] = 0;
    } else {
        path_of_fd(folder_fd, folder);
    }
    if (snprintf(out, MAX_PATH, "%s/%s", folder, path) >= MAX_PATH) abort();
}

static int is_below_root(const char *path) {
    size_t n = strlen(root);
    return !strncmp(path, root, n) && (path[n] == '/' || path[n] == 0);
}

/* Whether changes to this descriptor count: 'r' below the root, 'a' the acknowledgements, 0 neither. */
static int fd_counts(int fd) {
    if (!active || fd < 0) return 0;
    char path[MAX_PATH];
    path_of_fd(fd, path);
    if (is_below_root(path)) return 'r';
    return *ack_path && !strcmp(path, ack_path) ? 'a' : 0;
}

static int path_counts(int folder_fd, const char *path, char *out) {
    if (!active || !path) return 0;
    absolute(folder_fd, path, out);
    return is_below_root(out);
}

static uint64_t inode_of_fd(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

static uint64_t inode_of_path(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : found.st_ino;
}

/* Log, kill, fail. The lock is held from before() to after(). */

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

/* Takes the next number. Returns 0 to go on, -1 to fail with errno, 1 to do half of a write. */
static int before(char kind) {
    pthread_mutex_lock(&lock);
    number++;
    if (kill_at && number == kill_at) {
        if (kill_torn && kind == 'W') return 1;
        die();
    }
    int hit = fail_at && number >= fail_at && (!fail_count || failed < fail_count) && kind != 'A';
    if (!hit || !strchr(fail_kinds, kind)) return 0;
    failed++;
    if (fail_short && failed == 1 && kind == 'W') return 1;
    errno = fail_errno;
    return -1;
}

static void after(struct change c, int error) {
    if (log_fd >= 0) {
        const char *path = c.path ? c.path : "", *other = c.other ? c.other : "";
        struct record r = {0x474f4c49, c.kind, {0}, error, number, c.inode, c.offset, c.length,
                           strlen(path), strlen(other), c.data_length};
        struct iovec parts[] = {{&r, sizeof r}, {(void *)path, r.path_length}, {(void *)other, r.other_length},
                                {(void *)c.data, c.data_length}};
        syscall(SYS_writev, log_fd, parts, 4);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
}

/* A call without data, done by the expression `call`. */
#define CHANGE(change, call)                              \
    int step = before((change).kind);                     \
    int result = step < 0 ? -1 : (call);                  \
    after((change), result < 0 ? errno : 0);              \
    return result

/* Opening */

static char opening_changes(int folder_fd, const char *path, int flags, char *full) {
    if (!path_counts(folder_fd, path, full)) return 0;
    struct stat found;
    if (stat(full, &found)) return flags & O_CREAT ? 'C' : 0;
    if ((flags & O_TRUNC) && S_ISREG(found.st_mode) && !((flags & O_CREAT) && (flags & O_EXCL))) return 'T';
    return 0;
}

static int open_counted(int folder_fd, const char *path, int flags, mode_t mode) {
    static int (*real_openat)(int, const char *, int, ...);
    if (!real_openat) real_openat = real("openat64");
    char full[MAX_PATH];
    char kind = opening_changes(folder_fd, path, flags, full);
    if (!kind) return real_openat(folder_fd, path, flags, mode);
    int fd = before(kind) < 0 ? -1 : real_openat(folder_fd, path, flags, mode);
    int error = fd < 0 ? errno : 0;
    after((struct change){.kind = kind, .inode = fd < 0 ? 0 : inode_of_fd(fd), .path = full}, error);
    return fd;
}

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPEN(name)                                          \
    EXPORT int name(const char *path, int flags, ...) {     \
        va_list rest;                                       \
        va_start(rest, flags);                              \
        mode_t mode = mode_of(flags, rest);                 \
        va_end(rest);                                       \
        return open_counted(AT_FDCWD, path, flags, mode);   \
    }
#define OPENAT(name)                                                 \
    EXPORT int name(int folder_fd, const char *path, int flags, ...) { \
        va_list rest;                                                \
        va_start(rest, flags);                                       \
        mode_t mode = mode_of(flags, rest);                          \
        va_end(rest);                                                \
        return open_counted(folder_fd, path, flags, mode);           \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
EXPORT int creat(const char *path, mode_t mode) {
    return open_counted(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
EXPORT int creat64(const char *path, mode_t mode) { return creat(path, mode); }

static FILE *fopen_counted(const char *path, const char *mode) {
    static FILE *(*real_fopen)(const char *, const char *);
    if (!real_fopen) real_fopen = real("fopen64");
    int flags = mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT : 0;
    char full[MAX_PATH];
    char kind = opening_changes(AT_FDCWD, path, flags, full);
    if (!kind) return real_fopen(path, mode);
    FILE *file = before(kind) < 0 ? NULL : real_fopen(path, mode);
    int error = file ? 0 : errno;
    after((struct change){.kind = kind, .inode = file ? inode_of_fd(fileno(file)) : 0, .path = full}, error);
    return file;
}
EXPORT FILE *fopen(const char *path, const char *mode) { return fopen_counted(path, mode); }
EXPORT FILE *fopen64(const char *path, const char *mode) { return fopen_counted(path, mode); }

/* Writing */

static ssize_t write_counted(int fd, const void *data, size_t size, off64_t offset, int counts) {
    static ssize_t (*real_write)(int, const void *, size_t);
    static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
    if (!real_write) real_write = real("write");
    if (!real_pwrite) real_pwrite = real("pwrite64");
    if (!counts) return offset < 0 ? real_write(fd, data, size) : real_pwrite(fd, data, size, offset);
    char kind = counts == 'a' ? 'A' : 'W';
    int step = before(kind);
    off64_t at = offset;
    if (offset < 0) {
        struct stat found;
        at = fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &found) ? found.st_size : lseek64(fd, 0, SEEK_CUR);
    }
    if (step > 0) size /= 2;
    ssize_t done = -1;
    if (step >= 0) done = offset < 0 ? real_write(fd, data, size) : real_pwrite(fd, data, size, offset);
    int error = done < 0 ? errno : 0;
    if (step > 0 && kill_at && number == kill_at) die();
    after((struct change){kind, inode_of_fd(fd), at, 0, NULL, NULL, data, done < 0 ? 0 : done}, error);
    return done;
}

EXPORT ssize_t write(int fd, const void *data, size_t size) { return write_counted(fd, data, size, -1, fd_counts(fd)); }
EXPORT ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return write_counted(fd, data, size, offset, fd_counts(fd));
}
EXPORT ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    return write_counted(fd, data, size, offset, fd_counts(fd));
}

static ssize_t write_joined(int fd, const struct iovec *parts, int n, off64_t offset, int counts) {
    size_t size = 0, at = 0;
    for (int i = 0; i < n; i++) size += parts[i].iov_len;
    char *joined = malloc(size + 1);
    for (int i = 0; i < n; at += parts[i++].iov_len) memcpy(joined + at, parts[i].iov_base, parts[i].iov_len);
    ssize_t done = write_counted(fd, joined, size, offset, counts);
    int error = errno;
    free(joined);
    errno = error;
    return done;
}
EXPORT ssize_t writev(int fd, const struct iovec *parts, int n) {
    int counts = fd_counts(fd);
    return counts ? write_joined(fd, parts, n, -1, counts) : REAL(writev)(fd, parts, n);
}
EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t offset) {
    int counts = fd_counts(fd);
    return counts ? write_joined(fd, parts, n, offset, counts) : REAL(pwritev)(fd, parts, n, offset);
}
EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int n, off64_t offset) {
    int counts = fd_counts(fd);
    return counts ? write_joined(fd, parts, n, offset, counts) : REAL(pwritev64)(fd, parts, n, offset);
}

/* NumPy saves arrays through fwrite, whose own write the C library doesn't let anyone replace. */
EXPORT size_t fwrite(const void *data, size_t size, size_t n, FILE *file) {
    static size_t (*real_fwrite)(const void *, size_t, size_t, FILE *);
    if (!real_fwrite) real_fwrite = real("fwrite");
    int fd = active ? fileno(file) : -1, counts = fd_counts(fd);
    if (counts != 'r') return real_fwrite(data, size, n, file);
    fflush(file);
    size_t done = 0, total = size * n;
    while (done < total) {
        ssize_t some = write_counted(fd, (const char *)data + done, total - done, -1, counts);
        if (some < 0) break;
        done += some;
    }
    int error = errno;
    fseeko(file, lseek(fd, 0, SEEK_CUR), SEEK_SET);
    errno = error;
    return size ? done / size : 0;
}

/* These would change files unseen; refused, their callers fall back on write. */
#define REFUSE_ON(fd, error) if (fd_counts(fd) == 'r') return errno = error, -1
EXPORT ssize_t sendfile(int out, int in, off_t *offset, size_t n) {
    REFUSE_ON(out, ENOSYS);
    return ((ssize_t(*)(int, int, off_t *, size_t))real("sendfile"))(out, in, offset, n);
}
EXPORT ssize_t sendfile64(int out, int in, off64_t *offset, size_t n) {
    REFUSE_ON(out, ENOSYS);
    return ((ssize_t(*)(int, int, off64_t *, size_t))real("sendfile64"))(out, in, offset, n);
}
EXPORT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n, unsigned flags) {
    REFUSE_ON(out, ENOSYS);
    return REAL(copy_file_range)(in, in_at, out, out_at, n, flags);
}
EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t size) {
    REFUSE_ON(fd, EOPNOTSUPP);
    return REAL(fallocate64)(fd, mode, offset, size);
}
EXPORT int fallocate(int fd, int mode, off_t offset, off_t size) { return fallocate64(fd, mode, offset, size); }
EXPORT int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    return fd_counts(fd) == 'r' ? EOPNOTSUPP : REAL(posix_fallocate64)(fd, offset, size);
}
EXPORT int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

static void note_mapping(int protection, int flags, int fd) {
    if (!(flags & MAP_SHARED) || !(protection & PROT_WRITE) || fd_counts(fd) != 'r') return;
    char path[MAX_PATH];
    path_of_fd(fd, path);
    before('M');
    after((struct change){.kind = 'M', .inode = inode_of_fd(fd), .path = path}, 0);
}
EXPORT void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    if (active && fd >= 0) note_mapping(protection, flags, fd);
    return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}
EXPORT void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) {
    return mmap(at, size, protection, flags, fd, offset);
}

/* Sizes and syncs */

static int truncate_fd(int fd, off64_t size) {
    static int (*real_ftruncate)(int, off64_t);
    if (!real_ftruncate) real_ftruncate = real("ftruncate64");
    if (fd_counts(fd) != 'r') return real_ftruncate(fd, size);
    struct change c = {.kind = 'T', .inode = inode_of_fd(fd), .length = size};
    CHANGE(c, real_ftruncate(fd, size));
}
EXPORT int ftruncate(int fd, off_t size) { return truncate_fd(fd, size); }
EXPORT int ftruncate64(int fd, off64_t size) { return truncate_fd(fd, size); }
EXPORT int truncate64(const char *path, off64_t size) {
    char full[MAX_PATH];
    if (!path_counts(AT_FDCWD, path, full)) return REAL(truncate64)(path, size);
    struct change c = {.kind = 'T', .inode = inode_of_path(full), .length = size};
    CHANGE(c, REAL(truncate64)(path, size));
}
EXPORT int truncate(const char *path, off_t size) { return truncate64(path, size); }

/* What a sync is good for is simulated, so nobody waits for the disk. */
#define SYNC(name)                                                          \
    EXPORT int name(int fd) {                                               \
        if (fd_counts(fd) != 'r') return REAL(name)(fd);                    \
        char path[MAX_PATH];                                                \
        path_of_fd(fd, path);                                               \
        struct change c = {.kind = 'S', .inode = inode_of_fd(fd), .path = path}; \
        CHANGE(c, 0);                                                       \
    }
SYNC(fsync)
SYNC(fdatasync)

/* Names */

static int rename_counted(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    static int (*real_rename)(int, const char *, int, const char *, unsigned);
    if (!real_rename) real_rename = real("renameat2");
    char full[MAX_PATH], other[MAX_PATH];
    int counts = path_counts(from_fd, from, full) | path_counts(to_fd, to, other);
    if (!counts) return real_rename(from_fd, from, to_fd, to, flags);
    struct change c = {.kind = 'R', .length = flags, .path = full, .other = other};
    CHANGE(c, real_rename(from_fd, from, to_fd, to, flags));
}
EXPORT int rename(const char *from, const char *to) { return rename_counted(AT_FDCWD, from, AT_FDCWD, to, 0); }
EXPORT int renameat(int from_fd, const char *from, int to_fd, const char *to) {
    return rename_counted(from_fd, from, to_fd, to, 0);
}
EXPORT int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    return rename_counted(from_fd, from, to_fd, to, flags);
}

EXPORT int unlinkat(int folder_fd, const char *path, int flags) {
    char full[MAX_PATH];
    if (!path_counts(folder_fd, path, full)) return REAL(unlinkat)(folder_fd, path, flags);
    struct change c = {.kind = flags & AT_REMOVEDIR ? 'X' : 'U', .path = full};
    CHANGE(c, REAL(unlinkat)(folder_fd, path, flags));
}
EXPORT int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
EXPORT int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
EXPORT int remove(const char *path) {
    struct stat found;
    return unlinkat(AT_FDCWD, path, !lstat(path, &found) && S_ISDIR(found.st_mode) ? AT_REMOVEDIR : 0);
}

EXPORT int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags) {
    char full[MAX_PATH], other[MAX_PATH];
    int counts = path_counts(from_fd, from, full) | path_counts(to_fd, to, other);
    if (!counts) return REAL(linkat)(from_fd, from, to_fd, to, flags);
    struct change c = {.kind = 'L', .path = full, .other = other};
    CHANGE(c, REAL(linkat)(from_fd, from, to_fd, to, flags));
}
EXPORT int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

EXPORT int mkdirat(int folder_fd, const char *path, mode_t mode) {
    char full[MAX_PATH];
    if (!path_counts(folder_fd, path, full)) return REAL(mkdirat)(folder_fd, path, mode);
    int result = before('D') < 0 ? -1 : REAL(mkdirat)(folder_fd, path, mode);
    int error = result < 0 ? errno : 0;
    after((struct change){.kind = 'D', .inode = inode_of_path(full), .path = full}, error);
    return result;
}
EXPORT int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
