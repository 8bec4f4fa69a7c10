// SPDX-License-Identifier: Apache-2.0
// measure.c: clocks, samples, alternating rounds, memory, crews of threads.
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// ---- Samples ------------------------------------------------------------------------------------------------------

static void samples_reserve(struct samples *s, size_t count) {
    if (count <= s->count_max)
        return;
    size_t count_max = s->count_max ? s->count_max : 1024;
    while (count_max < count)
        count_max *= 2;
    s->values = realloc(s->values, count_max * sizeof(s->values[0]));
    if (!s->values)
        fail("no memory for %zu samples", count_max);
    s->count_max = count_max;
}

void samples_add(struct samples *s, double value) {
    samples_reserve(s, s->count + 1);
    s->values[s->count++] = value;
}

void samples_append(struct samples *s, const struct samples *more) {
    if (more->count == 0)
        return;
    samples_reserve(s, s->count + more->count);
    memcpy(s->values + s->count, more->values, more->count * sizeof(s->values[0]));
    s->count += more->count;
}

static int double_compare(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

double samples_percentile(struct samples *s, double fraction) {
    if (s->count == 0)
        return (double)NAN;
    qsort(s->values, s->count, sizeof(s->values[0]), double_compare);
    double position = fraction * (double)(s->count - 1);
    size_t below = (size_t)position;
    size_t above = below + 1 < s->count ? below + 1 : below;
    return s->values[below] + (s->values[above] - s->values[below]) * (position - (double)below);
}

void samples_free(struct samples *s) {
    free(s->values);
    *s = (struct samples){0};
}

// ---- Rounds -------------------------------------------------------------------------------------------------------

void rounds_run(struct rounds *r, side ours, side floor, void *context) {
    *r = (struct rounds){0};
    (void)ours(context, 0);
    (void)floor(context, 0);

    uint64_t end = now_ns() + (uint64_t)(settings.seconds * 1e9);
    for (size_t round = 1; round <= ROUNDS_MIN || now_ns() < end; round++) {
        progress("round %zu", round);
        double a = ours(context, round);
        double b = floor(context, round);
        samples_add(&r->ours, a);
        samples_add(&r->floor, b);
        samples_add(&r->ratio, a / b);
    }
}

struct outcome rounds_outcome(struct rounds *r, const char *unit) {
    return (struct outcome){
        .value = samples_median(&r->ours),
        .unit = unit,
        .p50 = samples_median(&r->ours),
        .p99 = samples_percentile(&r->ours, 0.99),
        .floor = samples_median(&r->floor),
        .ratio = samples_median(&r->ratio),
    };
}

void rounds_free(struct rounds *r) {
    samples_free(&r->ours);
    samples_free(&r->floor);
    samples_free(&r->ratio);
}

// ---- Memory -------------------------------------------------------------------------------------------------------

void *memory_make(size_t size, bool huge) {
    const size_t huge_size = (size_t)2 << 20;
    size = (size + huge_size - 1) & ~(huge_size - 1);
    char *space = mmap(NULL, size + huge_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (space == MAP_FAILED)
        fail("no memory: %zu MiB wanted: %s", size >> 20, strerror(errno));
    char *memory = space + (huge_size - 1 - ((uintptr_t)space + huge_size - 1) % huge_size);
    // Kernels without huge pages refuse the advice; then there is nothing to advise.
    (void)madvise(memory, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (size_t at = 0; at < size; at += 4096)
        ((volatile char *)memory)[at] = 0;
    return memory;
}

bool memory_is_huge(const void *address) {
    FILE *f = fopen("/proc/self/smaps", "re");
    if (!f)
        return false;
    char line[512];
    bool inside = false, huge = false;
    while (fgets(line, sizeof(line), f)) {
        unsigned long from, to, kib;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = from <= (uintptr_t)address && (uintptr_t)address < to;
        else if (inside && (sscanf(line, "AnonHugePages: %lu", &kib) == 1 ||
                            sscanf(line, "ShmemPmdMapped: %lu", &kib) == 1))
            huge = huge || kib > 0;
    }
    (void)fclose(f);
    return huge;
}

// ---- Threads ------------------------------------------------------------------------------------------------------

bool thread_pin(size_t position) {
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof(allowed), &allowed))
        return false;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &allowed) || position-- != 0)
            continue;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        return pthread_setaffinity_np(pthread_self(), sizeof(one), &one) == 0;
    }
    return false;
}

struct
    crew_member { // owned by the crew; written by its thread between the barriers, read by the caller outside
    struct crew *crew;
    size_t position;
    pthread_t thread;
    struct random random;
    struct samples latencies;
    uint64_t operations;
} __attribute__((aligned(128)));

struct crew {
    size_t count;
    crew_operation operation;
    void *context;
    pthread_barrier_t start, end;
    bool leave;        // set by the caller before the start barrier
    uint64_t until_ns; // likewise
    struct crew_member members[CREW_MAX];
};

static void *crew_member_main(void *argument) {
    struct crew_member *m = argument;
    struct crew *c = m->crew;
    for (;;) {
        (void)pthread_barrier_wait(&c->start);
        if (c->leave)
            return NULL;
        for (uint64_t before = now_ns(); before < c->until_ns;) {
            c->operation(c->context, m->position, &m->random);
            uint64_t after = now_ns();
            samples_add(&m->latencies, (double)(after - before) / 1e3);
            m->operations++;
            before = after;
        }
        (void)pthread_barrier_wait(&c->end);
    }
}

struct crew *crew_make(size_t count, crew_operation operation, void *context) {
    struct crew *c = aligned_alloc(_Alignof(struct crew), sizeof(*c));
    if (!c)
        fail("no memory for a crew");
    memset(c, 0, sizeof(*c));
    c->count = count;
    c->operation = operation;
    c->context = context;
    (void)pthread_barrier_init(&c->start, NULL, (unsigned)count + 1);
    (void)pthread_barrier_init(&c->end, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count; i++) {
        c->members[i] = (struct crew_member){
            .crew = c,
            .position = i,
        };
        random_seed(&c->members[i].random, i);
        int error = pthread_create(&c->members[i].thread, NULL, crew_member_main, &c->members[i]);
        if (error)
            fail("cannot start thread %zu of %zu: %s", i + 1, count, strerror(error));
    }
    return c;
}

double crew_run(struct crew *c, double seconds, struct samples *latencies) {
    uint64_t start = now_ns();
    c->until_ns = start + (uint64_t)(seconds * 1e9);
    (void)pthread_barrier_wait(&c->start);
    (void)pthread_barrier_wait(&c->end);
    uint64_t end = now_ns();

    uint64_t operations = 0;
    for (size_t i = 0; i < c->count; i++) {
        struct crew_member *m = &c->members[i];
        operations += m->operations;
        if (latencies)
            samples_append(latencies, &m->latencies);
        m->operations = 0;
        m->latencies.count = 0;
    }
    return (double)operations / ((double)(end - start) / 1e9);
}

void crew_end(struct crew *c) {
    c->leave = true;
    (void)pthread_barrier_wait(&c->start);
    for (size_t i = 0; i < c->count; i++) {
        (void)pthread_join(c->members[i].thread, NULL);
        samples_free(&c->members[i].latencies);
    }
    (void)pthread_barrier_destroy(&c->start);
    (void)pthread_barrier_destroy(&c->end);
    free(c);
}
