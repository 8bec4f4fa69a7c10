// SPDX-License-Identifier: Apache-2.0
// disk.c: what the disk can do with nothing around it. Durable overwrites of a file that has been written in full before
// (one that is only preallocated would pay for the conversion of its extents), and sequential reads past the page cache.
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { DISK_ALIGN = 4096, CHUNK_SIZE = 1 << 20, CALIBRATION_WRITES = 100, CALIBRATION_ROUNDS = 7 };
static const uint64_t disk_file_size = (uint64_t)256 << 20;

void disk_check(void) {
    struct statfs fs;
    if (statfs(settings.dir, &fs))
        fail("cannot look at %s: %s", settings.dir, strerror(errno));
    if (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC)
        fail("%s is in memory, not on a disk; give a directory that is on one with --dir", settings.dir);
}

static void *buffer_make(size_t size) {
    unsigned char *buffer = aligned_alloc(DISK_ALIGN, size);
    if (!buffer)
        fail("no memory for a buffer of %zu bytes", size);
    record_value(size, buffer, size);
    return buffer;
}

void disk_file_make(const char *path, uint64_t size) {
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        fail("cannot make %s: %s", path, strerror(errno));
    int error = posix_fallocate(fd, 0, (off_t)size);
    if (error)
        fail("cannot reserve %llu MiB for %s: %s", (unsigned long long)size >> 20, path, strerror(error));
    unsigned char *buffer = buffer_make(CHUNK_SIZE);
    for (uint64_t at = 0; at < size; at += CHUNK_SIZE) {
        memcpy(buffer, &at, sizeof(at));
        if (pwrite(fd, buffer, CHUNK_SIZE, (off_t)at) != CHUNK_SIZE)
            fail("cannot write %s: %s", path, strerror(errno));
    }
    if (fsync(fd))
        fail("cannot sync %s: %s", path, strerror(errno));
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)close(fd);
    free(buffer);
}

// ---- Durable overwrites -------------------------------------------------------------------------------------------

const char *disk_method_name(enum disk_method method) {
    static const char *const names[DISK_METHOD_COUNT] = {
        "O_DIRECT|O_DSYNC",
        "O_DIRECT, fdatasync",
        "cached, fdatasync",
    };
    return names[method];
}

static int disk_method_open(const char *path, enum disk_method method) {
    static const int flags[DISK_METHOD_COUNT] = {O_DIRECT | O_DSYNC, O_DIRECT, 0};
    int fd = open(path, O_RDWR | O_CLOEXEC | flags[method]);
    if (fd < 0)
        fail("cannot open %s (%s): %s", path, disk_method_name(method), strerror(errno));
    return fd;
}

void disk_write(struct disk *d, const void *buffer, size_t size) {
    if (d->position + size > d->size)
        d->position = 0;
    if (pwrite(d->fd, buffer, size, (off_t)d->position) != (ssize_t)size)
        fail("cannot write %zu bytes to the file of the floor: %s", size, strerror(errno));
    if (d->method != DISK_DSYNC_DIRECT && fdatasync(d->fd))
        fail("cannot sync the file of the floor: %s", strerror(errno));
    d->position += size;
}

// The candidates take turns, so that a disk that drifts drifts for all of them.
void disk_open(struct disk *d, size_t payload) {
    const char *path = scratch_path("floor");
    size_t sizes[] = {(payload + 511) / 512 * 512, (payload + 512 + 1023) / 1024 * 1024,
                      (payload + 4095) / 4096 * 4096};
    enum { SIZES = sizeof(sizes) / sizeof(sizes[0]), CANDIDATES = SIZES * DISK_METHOD_COUNT };
    struct disk candidates[CANDIDATES];
    struct samples times[CANDIDATES] = {0};

    progress("preparing the floor");
    disk_file_make(path, disk_file_size);
    for (size_t i = 0; i < CANDIDATES; i++) {
        enum disk_method method = (enum disk_method)(i % DISK_METHOD_COUNT);
        size_t size = sizes[i / DISK_METHOD_COUNT];
        candidates[i] =
            (struct disk){method, size, disk_method_open(path, method), disk_file_size, 0, buffer_make(size)};
    }
    for (size_t n = 0; n < (size_t)CALIBRATION_ROUNDS * CANDIDATES; n++) {
        struct disk *c = &candidates[n % CANDIDATES];
        struct samples round = {0};
        size_t writes = payload > 16384 ? CALIBRATION_WRITES / 4 : CALIBRATION_WRITES;
        for (size_t i = 0; i < writes; i++) {
            uint64_t before = now_ns();
            disk_write(c, c->buffer, c->write_size);
            samples_add(&round, (double)(now_ns() - before));
        }
        samples_add(&times[n % CANDIDATES], samples_median(&round));
        samples_free(&round);
    }
    size_t best = 0;
    for (size_t i = 1; i < CANDIDATES; i++)
        if (samples_median(&times[i]) < samples_median(&times[best]))
            best = i;
    for (size_t i = 0; i < CANDIDATES; i++) {
        if (i != best)
            disk_close(&candidates[i]);
        samples_free(&times[i]);
    }
    *d = candidates[best];
}

void disk_open_like(struct disk *d, const struct disk *pattern, const char *name) {
    const char *path = scratch_path(name);
    disk_file_make(path, disk_file_size);
    *d = (struct disk){pattern->method,
                       pattern->write_size,
                       disk_method_open(path, pattern->method),
                       disk_file_size,
                       0,
                       buffer_make(pattern->write_size)};
}

double disk_write_rate(const char *name, uint64_t size) {
    const struct disk pattern = {.method = DISK_DSYNC_DIRECT, .write_size = CHUNK_SIZE};
    struct disk d;
    disk_open_like(&d, &pattern, name);
    uint64_t start = now_ns(), written = 0;
    for (; written < size; written += CHUNK_SIZE)
        disk_write(&d, d.buffer, CHUNK_SIZE);
    double rate = (double)written / ((double)(now_ns() - start) / 1e9);
    disk_close(&d);
    return rate;
}

void disk_close(struct disk *d) {
    (void)close(d->fd);
    free(d->buffer);
}

// ---- Sequential reads ---------------------------------------------------------------------------------------------

struct reading {
    const char *path;
    uint64_t size;
    _Atomic uint64_t next; // offset of the next chunk that nobody reads yet
};

static void *reading_main(void *argument) {
    struct reading *r = argument;
    int fd = open(r->path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        fail("cannot open %s: %s", r->path, strerror(errno));
    unsigned char *buffer = buffer_make(CHUNK_SIZE);
    for (;;) {
        uint64_t at = atomic_fetch_add(&r->next, CHUNK_SIZE);
        if (at >= r->size)
            break;
        if (pread(fd, buffer, CHUNK_SIZE, (off_t)at) != CHUNK_SIZE)
            fail("cannot read %s: %s", r->path, strerror(errno));
    }
    free(buffer);
    (void)close(fd);
    return NULL;
}

double disk_read_rate(const char *path, uint64_t size, size_t threads) {
    struct reading r = {.path = path, .size = size};
    pthread_t ids[CREW_MAX];
    uint64_t start = now_ns();
    for (size_t i = 0; i < threads; i++) {
        int error = pthread_create(&ids[i], NULL, reading_main, &r);
        if (error)
            fail("cannot start a reading thread: %s", strerror(error));
    }
    for (size_t i = 0; i < threads; i++)
        (void)pthread_join(ids[i], NULL);
    return (double)size / ((double)(now_ns() - start) / 1e9);
}
