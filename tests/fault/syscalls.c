/* Loaded before the C library: counts what a process does to the files of one folder, and at the n-th such call
   kills it, tears the write, or lets the disk refuse; also lets the wall clock jump. Nothing happens until armed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, RENAME = 4, UNLINK = 8, TRUNCATE = 16 };
enum { COUNT = 0, KILL_BEFORE = 1, KILL_AFTER = 2, KILL_TORN = 3, REFUSE = 4 };

static atomic_int seen;
static atomic_int clock_reads;
static int kinds, nth, mode, refusal, armed;
static double jump;
static char folder[512], healed[512];

/* From the nth call of these kinds on files under `where`: do `how`. A refusing disk is well once `cure` exists. */
void faults_arm(int which, int n, int how, int error, const char *where, const char *cure) {
    kinds = which, nth = n, mode = how, refusal = error;
    snprintf(folder, sizeof folder, "%s", where);
    snprintf(healed, sizeof healed, "%s", cure);
    atomic_store(&seen, 0);
    armed = 1;
}

int faults_seen(void) { return atomic_load(&seen); }

/* Every reading of the wall clock is `seconds` late, right, or `seconds` early, in turn by a fixed pattern. */
void faults_clock(double seconds) { jump = seconds; }

static int ours(const char *path) { return strncmp(path, folder, strlen(folder)) == 0; }

static int ours_fd(int fd) {
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return ours(path);
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* What to do about this call: COUNT for nothing. Before the real call. */
static int decide(int kind) {
    if (!(kinds & kind)) return COUNT;
    int number = atomic_fetch_add(&seen, 1) + 1;
    if (mode == REFUSE) return number >= nth && access(healed, F_OK) != 0 ? REFUSE : COUNT;
    if (number != nth) return COUNT;
    if (mode == KILL_BEFORE) die();
    return mode;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define BEFORE(kind, mine) \
    int what = armed && (mine) ? decide(kind) : COUNT; \
    if (what == REFUSE) { errno = refusal; return -1; }
#define AFTER \
    if (what == KILL_AFTER || what == KILL_TORN) die(); \
    return result;
/* A torn write ends at a sector, about in the middle. */
#define SOME(size) (what == KILL_TORN && (size) > 512 ? (size) / 1024 * 512 + ((size) < 1024 ? 512 : 0) : (size))

ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = REAL(write);
    BEFORE(WRITE, ours_fd(fd))
    ssize_t result = real(fd, data, SOME(size));
    AFTER
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = REAL(pwrite);
    BEFORE(WRITE, ours_fd(fd))
    ssize_t result = real(fd, data, SOME(size), at);
    AFTER
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = REAL(pwrite64);
    BEFORE(WRITE, ours_fd(fd))
    ssize_t result = real(fd, data, SOME(size), at);
    AFTER
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = REAL(fsync);
    BEFORE(SYNC, ours_fd(fd))
    int result = real(fd);
    AFTER
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = REAL(fdatasync);
    BEFORE(SYNC, ours_fd(fd))
    int result = real(fd);
    AFTER
}

int ftruncate(int fd, off_t size) {
    static int (*real)(int, off_t);
    if (!real) real = REAL(ftruncate);
    BEFORE(TRUNCATE, ours_fd(fd))
    int result = real(fd, size);
    AFTER
}

int ftruncate64(int fd, off64_t size) {
    static int (*real)(int, off64_t);
    if (!real) real = REAL(ftruncate64);
    BEFORE(TRUNCATE, ours_fd(fd))
    int result = real(fd, size);
    AFTER
}

int rename(const char *from, const char *to) {
    static int (*real)(const char *, const char *);
    if (!real) real = REAL(rename);
    BEFORE(RENAME, ours(from))
    int result = real(from, to);
    AFTER
}

int unlink(const char *path) {
    static int (*real)(const char *);
    if (!real) real = REAL(unlink);
    BEFORE(UNLINK, ours(path))
    int result = real(path);
    AFTER
}

static void shift(time_t *seconds) {
    if (jump == 0) return;
    unsigned number = (unsigned)atomic_fetch_add(&clock_reads, 1) * 2654435761u;
    *seconds += (time_t)(((int)(number >> 16) % 3 - 1) * jump);
}

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = REAL(clock_gettime);
    int result = real(which, now);
    if (result == 0 && which == CLOCK_REALTIME) shift(&now->tv_sec);
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static int (*real)(struct timeval *restrict, void *restrict);
    if (!real) real = (int (*)(struct timeval *restrict, void *restrict))dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(now, zone);
    if (result == 0) shift(&now->tv_sec);
    return result;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
