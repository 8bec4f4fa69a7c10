// SPDX-License-Identifier: Apache-2.0
// wake.c: how long it takes from a change becoming visible until who waited for it in another process goes on.
//
// Four processes, two groups of CPUs:
//
//   waiter     the last CPU. Sleeps in shelf_wait(), and takes the time when it is awake.
//   observer   the same CPU, of idle class, so the waiter finds the CPU as good as free. Looks at shelf_applied() all the time,
//              and takes the time when it moves: there is no other way to learn from outside when a change became visible.
//   committer  (this process) the other CPUs. Commits one change at a time, when the waiter has slept for PAUSE_US.
//   node       the other CPUs.
//
// The floor is the same with nothing of Shelf: this process makes a durable write (so that it comes from the same kind of
// sleep as the node does), changes a shared word and calls FUTEX_WAKE; the observer looks at the word; the waiter sleeps
// on it by FUTEX_WAIT. The observer keeps its CPU out of idle states on both sides, so what is compared does not depend on
// how deep those are. What it may have seen late, because it did not run at that moment, does not count.
#include "bench.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { WAKES_A_ROUND = 250, PAUSE_US = 200, PATIENCE_MS = 10000, SEEN_LATE_NS = 500 };

// Written by one process each, for all. Wakes count from 1; which side one belongs to follows from its number.
struct wakes_shared {
    _Atomic uint64_t ready;                // processes that have attached
    _Atomic uint64_t begun;                // there is a region, and a session that commits
    _Alignas(128) _Atomic uint32_t word;   // the floor's: number of the wake
    _Alignas(128) _Atomic uint64_t asleep; // the waiter is about to sleep for this wake
    _Atomic uint64_t woken;                // it is awake from it
    uint64_t woken_ns;                     // ... since then
    _Alignas(128) _Atomic uint64_t seen;   // the observer has seen its cause
    uint64_t seen_ns, seen_late_ns, seen_index;
};

struct wakes {
    struct server server;
    shelf *s;
    shelf_region region;
    pid_t waiter, observer;
    cpu_set_t last_one, others;
    struct disk disk;
    struct wakes_shared *shared;
    uint64_t last;              // wake
    struct samples ours, floor; // us
};

static bool is_ours(uint64_t wake) {
    return (wake - 1) / WAKES_A_ROUND % 2 == 0;
}

// ---- CPUs ---------------------------------------------------------------------------------------------------------

static void cpus_split(struct wakes *w) {
    size_t last = 0;
    if (sched_getaffinity(0, sizeof(w->others), &w->others) || CPU_COUNT(&w->others) < 2)
        fail("needs two CPUs");
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        last = CPU_ISSET(cpu, &w->others) ? cpu : last;
    CPU_CLR(last, &w->others);
    CPU_ZERO(&w->last_one);
    CPU_SET(last, &w->last_one);
}

static void cpus_take(const cpu_set_t *cpus) {
    if (sched_setaffinity(0, sizeof(*cpus), cpus))
        fail("cannot choose CPUs");
}

// ---- Order --------------------------------------------------------------------------------------------------------

static void await(const struct wakes *w, _Atomic uint64_t *word, uint64_t value, const char *what) {
    for (uint64_t until = now_ns() + (uint64_t)PATIENCE_MS * 1000000; atomic_load(word) != value;) {
        if (now_ns() > until || !process_lives(w->server.process) || !process_lives(w->observer) ||
            !process_lives(w->waiter))
            fail("%s is overdue", what);
        (void)nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
}

static void begin_await(struct wakes *w) {
    atomic_fetch_add(&w->shared->ready, 1);
    while (!atomic_load(&w->shared->begun))
        (void)usleep(1000);
}

// ---- The waiter ---------------------------------------------------------------------------------------------------

static uint64_t index_now(shelf *s) {
    shelf_tx *tx;
    must(shelf_begin(s, SHELF_READ_ONLY, &tx), "shelf_begin");
    uint64_t index = shelf_tx_index(tx);
    shelf_abort(tx);
    return index;
}

static uint64_t wait_ours(struct wakes *w, uint64_t wake) {
    uint64_t index = index_now(w->s);
    atomic_store(&w->shared->asleep, wake);
    must(shelf_wait(w->s, shelf_addr_make(w->region, 0), 8, index, PATIENCE_MS), "shelf_wait");
    return now_ns();
}

static uint64_t wait_floor(struct wakes *w, uint64_t wake) {
    _Atomic uint32_t *word = &w->shared->word;
    uint32_t before = atomic_load(word);
    atomic_store(&w->shared->asleep, wake);
    while (atomic_load(word) == before)
        (void)syscall(SYS_futex, word, FUTEX_WAIT, before, NULL, NULL, 0);
    return now_ns();
}

_Noreturn static void waiter_main(struct wakes *w) {
    cpus_take(&w->last_one);
    w->s = server_attach(&w->server);
    begin_await(w);
    must(shelf_region_open(w->s, "cells", &w->region), "shelf_region_open");
    for (uint64_t wake = 1;; wake++) {
        w->shared->woken_ns = is_ours(wake) ? wait_ours(w, wake) : wait_floor(w, wake);
        atomic_store(&w->shared->woken, wake);
    }
}

// ---- The observer -------------------------------------------------------------------------------------------------

// The cause came between two looks; `seen_late_ns` is the time between them: much, if the observer had lost its CPU.
static void see_ours(struct wakes *w) {
    uint64_t last = shelf_applied(w->s), index, before, now = now_ns();
    do {
        before = now;
        index = shelf_applied(w->s);
        now = now_ns();
    } while (index == last);
    w->shared->seen_ns = now;
    w->shared->seen_late_ns = now - before;
    w->shared->seen_index = index;
}

static void see_floor(struct wakes *w, uint64_t wake) {
    uint32_t word;
    uint64_t before, now = now_ns();
    do {
        before = now;
        word = atomic_load_explicit(&w->shared->word, memory_order_acquire);
        now = now_ns();
    } while (word != (uint32_t)wake);
    w->shared->seen_ns = now;
    w->shared->seen_late_ns = now - before;
}

_Noreturn static void observer_main(struct wakes *w) {
    cpus_take(&w->last_one);
    w->s = server_attach(&w->server);
    if (sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0}))
        fail("cannot lower the observer's class");
    begin_await(w);
    for (uint64_t wake = 1;; wake++) {
        if (is_ours(wake))
            see_ours(w);
        else
            see_floor(w, wake);
        atomic_store(&w->shared->seen, wake);
    }
}

// ---- The committer ------------------------------------------------------------------------------------------------

// Returns the index at which the change is visible.
static uint64_t change_ours(struct wakes *w, uint64_t wake) {
    struct shelf_receipt receipt;
    shelf_tx *tx;
    must(shelf_begin(w->s, SHELF_READ_WRITE, &tx), "shelf_begin");
    must(shelf_write(tx, shelf_addr_make(w->region, 0), &wake, sizeof(wake)), "shelf_write");
    must(shelf_commit(tx, &receipt), "shelf_commit");
    return receipt.index;
}

static void change_floor(struct wakes *w, uint64_t wake) {
    disk_write(&w->disk, w->disk.buffer, w->disk.write_size);
    atomic_store(&w->shared->word, (uint32_t)wake);
    (void)syscall(SYS_futex, &w->shared->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static double wakes_run(struct wakes *w, struct samples *all, size_t round) {
    struct samples times = {0};
    for (size_t i = 0; i < WAKES_A_ROUND; i++) {
        uint64_t wake = ++w->last, index = 0;
        await(w, &w->shared->asleep, wake, "the waiter");
        (void)nanosleep(&(struct timespec){.tv_nsec = PAUSE_US * 1000}, NULL);
        if (is_ours(wake))
            index = change_ours(w, wake);
        else
            change_floor(w, wake);
        await(w, &w->shared->woken, wake, "the wake-up");
        await(w, &w->shared->seen, wake, "the observer");
        if (is_ours(wake) && w->shared->seen_index != index)
            fail("the observer has seen another change than the one that was made");
        if (w->shared->seen_late_ns <= SEEN_LATE_NS)
            samples_add(&times, ((double)w->shared->woken_ns - (double)w->shared->seen_ns) / 1e3);
    }
    if (times.count < WAKES_A_ROUND / 4)
        fail("other work takes the observer's CPU away");
    if (round > 0)
        samples_append(all, &times);
    double median = samples_median(&times);
    samples_free(&times);
    return median;
}

static double wakes_ours(void *context, size_t round) {
    struct wakes *w = context;
    return wakes_run(w, &w->ours, round);
}

static double wakes_floor(void *context, size_t round) {
    struct wakes *w = context;
    return wakes_run(w, &w->floor, round);
}

static void wakes_open(struct wakes *w) {
    disk_check();
    *w = (struct wakes){0};
    w->shared = mmap(NULL, sizeof(*w->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w->shared == MAP_FAILED)
        fail("no memory");
    cpus_split(w);
    cpus_take(&w->others);
    disk_open(&w->disk, 512);
    server_begin(&w->server, "shelf");
    w->observer = process_begin();
    if (w->observer == 0)
        observer_main(w);
    w->waiter = process_begin();
    if (w->waiter == 0)
        waiter_main(w);
    w->s = server_attach(&w->server);
    w->region = ours_region_fill(w->s, "cells", (uint64_t)1 << 20, false);
    (void)change_ours(w, 0);
    await(w, &w->shared->ready, 2, "a process");
    atomic_store(&w->shared->begun, 1);
}

void bench_wait_wake(const struct bench *b) {
    struct wakes w;
    struct rounds rounds;
    wakes_open(&w);
    rounds_run(&rounds, wakes_ours, wakes_floor, &w);
    struct outcome o = rounds_outcome(&rounds, "us");
    o.p50 = samples_median(&w.ours);
    o.p99 = samples_percentile(&w.ours, 0.99);
    outcome_print(b, &o);

    rounds_free(&rounds);
    samples_free(&w.ours);
    samples_free(&w.floor);
    process_end(w.waiter);
    process_end(w.observer);
    must(shelf_close(w.s), "shelf_close");
    server_end(&w.server);
    disk_close(&w.disk);
}
