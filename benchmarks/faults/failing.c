/* A disk that fails: what writes below a folder gets an error, from its k-th call on.

   Loaded before libc (LD_PRELOAD), so that SQLite, Arrow and Rust meet it as Python does. Calls are
   counted from `fails` on; see played.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

enum { ROOM = 1, NAMES = 2, SYNC = 4 }; /* what takes room; what changes names; what syncs */

static char root[PATH_MAX];
static size_t length;
static long first = -1, most, seen;
static int concerned, number;

/* Let calls of some kinds fail below a folder: `count` of them, from the first-th on. */
void fails(const char *folder, long from, long count, int kinds, int error) {
    snprintf(root, sizeof root, "%s", folder);
    length = strlen(root);
    seen = 0, most = count, concerned = kinds, number = error;
    __atomic_store_n(&first, from, __ATOMIC_SEQ_CST);
}

/* How many calls there were. */
long calls(void) { return seen; }

static int below(const char *path) {
    return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int here(int folder, const char *path) {
    char whole[2 * PATH_MAX], link[64];
    if (first < 0 || path == NULL) return 0;
    if (path[0] == '/') return below(path);
    if (folder == AT_FDCWD) {
        if (getcwd(whole, PATH_MAX) == NULL) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, whole, PATH_MAX - 1);
        if (n < 0) return 0;
        whole[n] = 0;
    }
    return below(whole);
}

static int at(int handle) {
    char link[64], path[PATH_MAX];
    if (first < 0) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = before;
    if (n < 0) return 0;
    path[n] = 0;
    return below(path);
}

/* Count a call; 0: it works, 1: it fails, 2: it is the first that does. */
static int tripped(int kind) {
    if (!(concerned & kind)) return 0;
    long now = __atomic_fetch_add(&seen, 1, __ATOMIC_SEQ_CST);
    if (now < first || now >= first + most) return 0;
    errno = number;
    return now == first ? 2 : 1;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int opening(int folder, const char *path, int flags) {
    if (!here(folder, path)) return 0;
    if (flags & O_CREAT) {
        struct stat about;
        int before = errno, there = fstatat(folder, path, &about, 0) == 0;
        errno = before;
        return !there && tripped(ROOM);
    }
    return (flags & O_ACCMODE) != O_RDONLY && number != ENOSPC && tripped(NAMES);
}

#define OPEN(name)                                                                                \
    int name(const char *path, int flags, ...) {                                                  \
        va_list more;                                                                             \
        va_start(more, flags);                                                                    \
        mode_t mode = va_arg(more, mode_t);                                                       \
        va_end(more);                                                                             \
        REAL(name);                                                                               \
        return opening(AT_FDCWD, path, flags) ? -1 : real(path, flags, mode);                     \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                              \
    int name(int folder, const char *path, int flags, ...) {                                      \
        va_list more;                                                                             \
        va_start(more, flags);                                                                    \
        mode_t mode = va_arg(more, mode_t);                                                       \
        va_end(more);                                                                             \
        REAL(name);                                                                               \
        return opening(folder, path, flags) ? -1 : real(folder, path, flags, mode);               \
    }
OPENAT(openat)
OPENAT(openat64)

/* A disk that runs full takes the first half of what does not fit. */
static int writing(int handle, size_t *n) {
    int how = at(handle) ? tripped(ROOM) : 0;
    if (how == 2 && number == ENOSPC && *n > 1) {
        *n /= 2;
        return 0;
    }
    return how;
}

ssize_t write(int handle, const void *bytes, size_t n) {
    REAL(write);
    return writing(handle, &n) ? -1 : real(handle, bytes, n);
}

#define PWRITE(name, offset)                                                                      \
    ssize_t name(int handle, const void *bytes, size_t n, offset place) {                         \
        REAL(name);                                                                               \
        return writing(handle, &n) ? -1 : real(handle, bytes, n, place);                          \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int handle, const struct iovec *parts, int n) {
    REAL(writev);
    return at(handle) && tripped(ROOM) ? -1 : real(handle, parts, n);
}

#define SPREAD(name, offset)                                                                      \
    ssize_t name(int to, int from, offset *place, size_t n) {                                     \
        REAL(name);                                                                               \
        return at(to) && tripped(ROOM) ? -1 : real(to, from, place, n);                           \
    }
#include <sys/sendfile.h>
SPREAD(sendfile, off_t)
SPREAD(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t n, unsigned int flags) {
    REAL(copy_file_range);
    return at(to) && tripped(ROOM) ? -1 : real(from, a, to, b, n, flags);
}

#define ON_HANDLE(name, kind, given, passed)                                                      \
    int name given {                                                                              \
        REAL(name);                                                                               \
        return at(handle) && tripped(kind) ? -1 : real passed;                                    \
    }
ON_HANDLE(fsync, SYNC, (int handle), (handle))
ON_HANDLE(fdatasync, SYNC, (int handle), (handle))
ON_HANDLE(ftruncate, NAMES, (int handle, off_t size), (handle, size))
ON_HANDLE(ftruncate64, NAMES, (int handle, off64_t size), (handle, size))
ON_HANDLE(fallocate, ROOM, (int handle, int mode, off_t from, off_t n), (handle, mode, from, n))
ON_HANDLE(fallocate64, ROOM, (int handle, int mode, off64_t a, off64_t n), (handle, mode, a, n))

#define ON_PATH(name, kind, folder, path, given, passed)                                          \
    int name given {                                                                              \
        REAL(name);                                                                               \
        return here(folder, path) && tripped(kind) ? -1 : real passed;                            \
    }
ON_PATH(mkdir, ROOM, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))
ON_PATH(mkdirat, ROOM, at, path, (int at, const char *path, mode_t mode), (at, path, mode))
ON_PATH(link, ROOM, AT_FDCWD, to, (const char *from, const char *to), (from, to))
ON_PATH(linkat, ROOM, b, to, (int a, const char *from, int b, const char *to, int flags),
        (a, from, b, to, flags))
ON_PATH(rename, NAMES, AT_FDCWD, to, (const char *from, const char *to), (from, to))
ON_PATH(renameat, NAMES, b, to, (int a, const char *from, int b, const char *to), (a, from, b, to))
ON_PATH(unlink, NAMES, AT_FDCWD, path, (const char *path), (path))
ON_PATH(unlinkat, NAMES, at, path, (int at, const char *path, int flags), (at, path, flags))
ON_PATH(rmdir, NAMES, AT_FDCWD, path, (const char *path), (path))
ON_PATH(chmod, NAMES, AT_FDCWD, path, (const char *path, mode_t mode), (path, mode))

/* What a full disk says of itself. */
#define ROOM_LEFT(name, kind)                                                                     \
    int name(const char *path, struct kind *found) {                                              \
        REAL(name);                                                                               \
        int code = real(path, found);                                                             \
        if (code == 0 && number == ENOSPC && here(AT_FDCWD, path) && seen > first)                \
            found->f_bfree = found->f_bavail = 0;                                                 \
        return code;                                                                              \
    }
ROOM_LEFT(statvfs, statvfs)
ROOM_LEFT(statvfs64, statvfs64)
