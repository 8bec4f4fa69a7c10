// SPDX-License-Identifier: Apache-2.0
// idle.c: what a shelf costs when nothing happens: wake-ups, and memory of the daemon.
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CLIENTS = 10, COMMITS_A_CLIENT = 100 };

// ---- Wake-ups -----------------------------------------------------------------------------------------------------

// How often the process's threads, but this one, have gone to sleep so far: once after each wake-up.
static uint64_t sleeps_count(void) {
    uint64_t sleeps = 0;
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks)
        fail("cannot list the threads: %s", strerror(errno));
    for (struct dirent *e; (e = readdir(tasks));) {
        char path[64 + sizeof(e->d_name)], line[256];
        if (e->d_name[0] == '.' || strtol(e->d_name, NULL, 10) == syscall(SYS_gettid))
            continue;
        (void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", e->d_name);
        FILE *f = fopen(path, "re");
        unsigned long long count;
        while (f && fgets(line, sizeof(line), f))
            if (sscanf(line, "voluntary_ctxt_switches: %llu", &count) == 1)
                sleeps += count;
        if (f)
            (void)fclose(f);
    }
    (void)closedir(tasks);
    return sleeps;
}

// Some work, time to settle (what is done lazily when idle is done within a second or so), then nothing.
void bench_idle(const struct bench *b) {
    const double settle_s = 3;
    shelf *s = ours_open("shelf", SHELF_OPEN_CREATE | SHELF_OPEN_NO_CHECKPOINT, (struct shelf_options){0});
    (void)ours_region_fill(s, "cells", (uint64_t)16 << 20, false);
    progress("doing nothing");
    (void)poll(NULL, 0, (int)(settle_s * 1e3));

    struct samples rates = {0};
    for (size_t i = 0; i < ROUNDS_MIN; i++) {
        uint64_t before = sleeps_count(), start = now_ns();
        (void)poll(NULL, 0, (int)(settings.seconds * 1e3 / ROUNDS_MIN));
        samples_add(&rates, (double)(sleeps_count() - before) / ((double)(now_ns() - start) / 1e9));
    }
    double sum = 0;
    for (size_t i = 0; i < rates.count; i++)
        sum += rates.values[i];
    struct outcome o = {.value = sum / (double)rates.count,
                        .unit = "wakeups/s",
                        .p50 = samples_median(&rates),
                        .p99 = samples_percentile(&rates, 0.99),
                        .floor = (double)NAN,
                        .ratio = (double)NAN};
    outcome_print(b, &o);
    samples_free(&rates);
    must(shelf_close(s), "shelf_close");
}

// ---- Memory -------------------------------------------------------------------------------------------------------

// Pages that the process has in memory, but those of the image (its header, and the regions' bytes and versions), in bytes.
// Pages that it shares with others count in full.
static double resident_beside_image(pid_t process) {
    char path[64], line[512];
    (void)snprintf(path, sizeof(path), "/proc/%d/smaps", process);
    FILE *f = fopen(path, "re");
    if (!f)
        fail("cannot read %s: %s", path, strerror(errno));
    double bytes = 0;
    bool image = false;
    while (fgets(line, sizeof(line), f)) {
        unsigned long from, to, kib;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            image = strstr(line, "memfd:shelf-image") || strstr(line, "memfd:shelf-data") ||
                    strstr(line, "memfd:shelf-versions");
        else if (!image && sscanf(line, "Rss: %lu kB", &kib) == 1)
            bytes += (double)kib * 1024;
    }
    (void)fclose(f);
    return bytes;
}

static void client_work(shelf *s, shelf_region region) {
    for (uint64_t i = 0; i < COMMITS_A_CLIENT; i++) {
        shelf_tx *tx;
        must(shelf_begin(s, SHELF_READ_WRITE, &tx), "shelf_begin");
        must(shelf_write(tx, shelf_addr_make(region, i * SHELF_LINE_SIZE), &i, sizeof(i)), "shelf_write");
        must(shelf_commit(tx, NULL), "shelf_commit");
    }
}

static void clients_come_and_go(const struct server *server) {
    shelf *clients[CLIENTS];
    shelf_region region;
    for (size_t i = 0; i < CLIENTS; i++)
        clients[i] = server_attach(server);
    must(shelf_region_create(clients[0], "cells", (uint64_t)1 << 20, 0, &region), "shelf_region_create");
    for (size_t i = 0; i < CLIENTS; i++)
        client_work(clients[i], region);
    for (size_t i = 0; i < CLIENTS; i++)
        must(shelf_close(clients[i]), "shelf_close");
}

static void resident_print(const struct bench *b, const char *suffix, double mib) {
    struct outcome o = {.suffix = suffix,
                        .value = mib,
                        .unit = "MiB",
                        .p50 = mib,
                        .p99 = mib,
                        .floor = (double)NAN,
                        .ratio = (double)NAN};
    outcome_print(b, &o);
}

// After the open, and after clients; the larger of them is what is judged.
void bench_idle_rss(const struct bench *b) {
    const int settle_ms = 2000;
    struct server server;
    server_begin(&server, "shelf");
    must(shelf_close(server_attach(&server)), "shelf_close");
    progress("doing nothing");
    (void)poll(NULL, 0, settle_ms);
    double opened = resident_beside_image(server.process) / 1048576;
    clients_come_and_go(&server);
    (void)poll(NULL, 0, settle_ms);
    double used = resident_beside_image(server.process) / 1048576;
    resident_print(b, NULL, used > opened ? used : opened);
    resident_print(b, ".open", opened);
    server_end(&server);
}
