/* Lets chosen calls of the C library fail with a chosen error number, for files whose path ends in a chosen text.
   Loaded with LD_PRELOAD; a Python process sets the fault through ctypes. Needs no rights. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char operation[16], ending[1024];
static int number, hits;

void set_fault(const char *of, const char *path, int code) {
    strncpy(operation, of, sizeof operation - 1);
    strncpy(ending, path, sizeof ending - 1);
    number = code;
    hits = 0;
}

int num_hits(void) { return hits; }

static int fails(const char *of, const char *path) {
    if (!number || !path || strcmp(of, operation)) return 0;
    size_t length = strlen(path), end = strlen(ending);
    if (length < end || strcmp(path + length - end, ending)) return 0;
    __sync_fetch_and_add(&hits, 1);
    errno = number;
    return 1;
}

static int fails_at(const char *of, int descriptor) {
    char link[64], path[4096];
    if (!number || strcmp(of, operation)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(of, path);
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define MODE(last) va_list rest; va_start(rest, last); mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest)

int open(const char *path, int flags, ...) { REAL(open); MODE(flags); return fails("open", path) ? -1 : real(path, flags, mode); }
int open64(const char *path, int flags, ...) { REAL(open64); MODE(flags); return fails("open", path) ? -1 : real(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { REAL(openat); MODE(flags); return fails("open", path) ? -1 : real(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { REAL(openat64); MODE(flags); return fails("open", path) ? -1 : real(at, path, flags, mode); }
FILE *fopen(const char *path, const char *how) { REAL(fopen); return fails("open", path) ? NULL : real(path, how); }
FILE *fopen64(const char *path, const char *how) { REAL(fopen64); return fails("open", path) ? NULL : real(path, how); }
DIR *opendir(const char *path) { REAL(opendir); return fails("list", path) ? NULL : real(path); }
int stat(const char *path, struct stat *out) { REAL(stat); return fails("stat", path) ? -1 : real(path, out); }
int stat64(const char *path, struct stat64 *out) { REAL(stat64); return fails("stat", path) ? -1 : real(path, out); }
ssize_t read(int file, void *out, size_t count) { REAL(read); return fails_at("read", file) ? -1 : real(file, out, count); }
ssize_t pread(int file, void *out, size_t count, off_t at) { REAL(pread); return fails_at("read", file) ? -1 : real(file, out, count, at); }
ssize_t pread64(int file, void *out, size_t count, off64_t at) { REAL(pread64); return fails_at("read", file) ? -1 : real(file, out, count, at); }
ssize_t preadv(int file, const struct iovec *to, int count, off_t at) { REAL(preadv); return fails_at("read", file) ? -1 : real(file, to, count, at); }
ssize_t preadv64(int file, const struct iovec *to, int count, off64_t at) { REAL(preadv64); return fails_at("read", file) ? -1 : real(file, to, count, at); }
int flock(int file, int how) { static int (*real)(int, int); if (!real) real = dlsym(RTLD_NEXT, "flock"); return fails_at("lock", file) ? -1 : real(file, how); }
