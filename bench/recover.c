// SPDX-License-Identifier: Apache-2.0
// recover.c: how fast a shelf comes back.
#include "bench.h"

#include "base/crc.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK_SIZE = 1 << 20, OPENS_MAX = 100, CREATES_MAX = 30, OUTSTANDING = 512 };

struct recovery {
    struct shelf_options options;
    uint64_t bytes;   // of the image, or of the log
    uint64_t records; // that each open must replay; 0: none
    size_t threads;   // that read the floor's file the fastest
    unsigned char *copy, *buffer;
};

// Opens and closes the shelf; returns how fast its bytes came back.
static double recovery_ours(void *context, size_t round) {
    struct recovery *r = context;
    struct shelf_info info;
    (void)round;
    uint64_t start = now_ns();
    shelf *s = ours_open("shelf", 0, r->options);
    uint64_t end = now_ns();
    must(shelf_info_get(s, &info), "shelf_info_get");
    if (info.recovered_records < r->records)
        fail("%llu records were replayed, %llu expected", (unsigned long long)info.recovered_records,
             (unsigned long long)r->records);
    must(shelf_close(s), "shelf_close");
    return (double)r->bytes / ((double)(end - start) / 1e9) / 1e6;
}

// ---- The image ----------------------------------------------------------------------------------------------------

static double image_floor(void *context, size_t round) {
    struct recovery *r = context;
    (void)round;
    return disk_read_rate(scratch_path("floor"), r->bytes, r->threads) / 1e6;
}

// The candidates take turns, so that a disk that drifts drifts for all of them.
static size_t threads_choose(uint64_t size) {
    static const size_t candidates[] = {1, 2, 4, 8};
    enum { COUNT = sizeof(candidates) / sizeof(candidates[0]), TURNS = 5 };
    struct samples rates[COUNT] = {0};
    size_t best = 0;
    for (size_t n = 0; n < (size_t)TURNS * COUNT; n++)
        samples_add(&rates[n % COUNT], disk_read_rate(scratch_path("floor"), size, candidates[n % COUNT]));
    for (size_t i = 1; i < COUNT; i++)
        if (samples_median(&rates[i]) > samples_median(&rates[best]))
            best = i;
    for (size_t i = 0; i < COUNT; i++)
        samples_free(&rates[i]);
    return candidates[best];
}

void bench_recover_image(const struct bench *b) {
    struct recovery r = {.options = {.flags = SHELF_OPEN_NO_CHECKPOINT}, .bytes = (uint64_t)1 << 30};
    struct rounds rounds;
    disk_check();
    shelf *s = ours_open("shelf", SHELF_OPEN_CREATE, r.options);
    (void)ours_region_fill(s, "lines", r.bytes, false);
    progress("writing the checkpoint");
    must(shelf_checkpoint(s, NULL), "shelf_checkpoint");
    must(shelf_close(s), "shelf_close");
    progress("preparing the floor");
    disk_file_make(scratch_path("floor"), r.bytes);
    r.threads = threads_choose(r.bytes / 4);

    rounds_run(&rounds, recovery_ours, image_floor, &r);
    struct outcome o = rounds_outcome(&rounds, "MB/s");
    outcome_print(b, &o);
    rounds_free(&rounds);
}

// ---- The log ------------------------------------------------------------------------------------------------------

// Commits transactions of `size` bytes at random places until the log to be replayed has `wanted` bytes.
static void log_fill(shelf *s, shelf_region region, uint64_t region_size, size_t size, uint64_t wanted,
                     struct shelf_info *ret_info) {
    static struct shelf_completion completions[OUTSTANDING];
    struct random random;
    random_seed(&random, size);
    unsigned char *bytes = malloc(size);
    if (!bytes)
        fail("no memory");
    record_value(1, bytes, size);
    size_t outstanding = 0;
    for (size_t n = 0;; n++) {
        if (n % 1024 == 0) {
            must(shelf_info_get(s, ret_info), "shelf_info_get");
            if (ret_info->log_bytes_live >= wanted)
                break;
            progress("writing the log: %llu MiB", (unsigned long long)ret_info->log_bytes_live >> 20);
        }
        shelf_tx *tx;
        must(shelf_begin(s, SHELF_READ_WRITE, &tx), "shelf_begin");
        uint64_t offset = random_below(&random, region_size / size) * size;
        memcpy(bytes, &n, sizeof(n));
        must(shelf_write(tx, shelf_addr_make(region, offset), bytes, size), "shelf_write");
        must(shelf_commit_async(tx, n), "shelf_commit_async");
        for (outstanding++; outstanding == OUTSTANDING;) {
            size_t count = shelf_completions(s, completions, OUTSTANDING);
            for (size_t i = 0; i < count; i++)
                must(completions[i].result, "an asynchronous commit");
            outstanding -= count;
            struct pollfd p = {.fd = shelf_completion_fd(s), .events = POLLIN};
            if (count == 0 && poll(&p, 1, 30000) == 0)
                fail("no commit completed for 30 s");
        }
    }
    free(bytes);
}

// What any replay must do: read, check, copy.
static double log_floor(void *context, size_t round) {
    struct recovery *r = context;
    uint32_t crc = 0;
    (void)round;
    uint64_t start = now_ns();
    int fd = open(scratch_path("floor"), O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (fd < 0)
        fail("cannot open the floor's file: %s", strerror(errno));
    for (uint64_t at = 0; at < r->bytes; at += CHUNK_SIZE) {
        size_t size = r->bytes - at < CHUNK_SIZE ? (size_t)(r->bytes - at) : CHUNK_SIZE;
        if (pread(fd, r->buffer, CHUNK_SIZE, (off_t)at) < (ssize_t)size)
            fail("cannot read the floor's file: %s", strerror(errno));
        crc = crc32c(crc, r->buffer, size);
        memcpy(r->copy + at % ((uint64_t)64 << 20), r->buffer, size);
    }
    (void)close(fd);
    double took_s = (double)(now_ns() - start) / 1e9;
    __asm__ volatile("" : : "r"(crc), "r"(r->copy) : "memory");
    return (double)r->bytes / took_s / 1e6;
}

// b->parallel is the size of the transactions in the log.
void bench_recover_log(const struct bench *b) {
    const uint64_t region_size = (uint64_t)64 << 20;
    const uint64_t wanted = (uint64_t)(b->parallel < 4096 ? 128 : 256) << 20;
    struct recovery r = {.options = {.flags = SHELF_OPEN_NO_CHECKPOINT,
                                     .log_bytes_max = (uint64_t)2 << 30,
                                     .checkpoint_log_bytes = (uint64_t)1 << 30,
                                     .checkpoint_interval_ms = 3600000}};
    struct rounds rounds;
    struct shelf_info info;
    shelf_region region;
    disk_check();
    shelf *s = ours_open("shelf", SHELF_OPEN_CREATE, r.options);
    must(shelf_region_create(s, "cells", region_size, 0, &region), "shelf_region_create");
    log_fill(s, region, region_size, b->parallel, wanted, &info);
    must(shelf_close(s), "shelf_close");
    r.bytes = info.log_bytes_live;
    r.records = info.records / 2;

    progress("preparing the floor");
    disk_file_make(scratch_path("floor"), (r.bytes + CHUNK_SIZE - 1) / CHUNK_SIZE * CHUNK_SIZE);
    r.copy = memory_make((size_t)64 << 20, false);
    r.buffer = memory_make(CHUNK_SIZE, false);
    rounds_run(&rounds, recovery_ours, log_floor, &r);
    struct outcome o = rounds_outcome(&rounds, "MB/s");
    outcome_print(b, &o);
    rounds_free(&rounds);
}

// ---- Open ---------------------------------------------------------------------------------------------------------

static void opens_print(const struct bench *b, struct samples *times) {
    double median = samples_median(times);
    struct outcome o = {.value = median,
                        .unit = "ms",
                        .p50 = median,
                        .p99 = samples_percentile(times, 0.99),
                        .floor = (double)NAN,
                        .ratio = (double)NAN};
    outcome_print(b, &o);
    samples_free(times);
}

void bench_open_empty(const struct bench *b) {
    struct samples times = {0};
    disk_check();
    must(shelf_close(ours_open("shelf", SHELF_OPEN_CREATE, (struct shelf_options){0})), "shelf_close");
    uint64_t until = now_ns() + (uint64_t)(settings.seconds * 1e9);
    for (size_t i = 0; i < ROUNDS_MIN || (i < OPENS_MAX && now_ns() < until); i++) {
        progress("open %zu", i + 1);
        uint64_t before = now_ns();
        shelf *s = ours_open("shelf", 0, (struct shelf_options){0});
        samples_add(&times, (double)(now_ns() - before) / 1e6);
        must(shelf_close(s), "shelf_close");
    }
    opens_print(b, &times);
}

void bench_open_create(const struct bench *b) {
    struct samples times = {0};
    disk_check();
    uint64_t until = now_ns() + (uint64_t)(settings.seconds * 1e9);
    for (size_t i = 0; i < ROUNDS_MIN || (i < CREATES_MAX && now_ns() < until); i++) {
        progress("create %zu", i + 1);
        uint64_t before = now_ns();
        shelf *s = ours_open("shelf", SHELF_OPEN_CREATE | SHELF_OPEN_EXCLUSIVE, (struct shelf_options){0});
        samples_add(&times, (double)(now_ns() - before) / 1e6);
        must(shelf_close(s), "shelf_close");
        scratch_remove("shelf");
    }
    opens_print(b, &times);
}
