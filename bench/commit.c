// SPDX-License-Identifier: Apache-2.0
// commit.c: what a durable change costs over a bare durable write.
//
// Our side writes COMMIT_SIZE bytes at a random aligned place of a region, one transaction each. The floors hand the
// same bytes to the disk with nothing around them:
//
//   one            the fastest durable overwrite that disk_open() finds
//   16 threads     a group-commit loop, the best one we know that is simple (struct group below)
//   N outstanding  one thread that copies N changes into a buffer and writes it durably, again and again
//
// The benchmarks called .shelfd do the same through a node in another process. Where our side is a cluster, the floors are
// those of a bare program of three processes (see bare.c). Those called cluster.bare have that program in the place of
// Shelf, beside the disk alone and the other databases: what could be had, and what they make of it.
//
// The peers replace the value of a random key, so that key and value together have COMMIT_SIZE bytes, with as many
// threads as there are commits outstanding on our side, up to CREW_MAX (none of them can commit asynchronously); or, if the
// peer is a server, with as many requests under way over one connection.
#include "bench.h"

#include <errno.h>
#include <linux/futex.h>
#include <math.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { COMMIT_SIZE = 256, COMMITS_A_ROUND = 200, OUTSTANDING_MAX = 512 };
static const uint64_t region_size = (uint64_t)64 << 20;
static const double round_s = 0.25;

struct commits {
    struct server server;
    struct cluster cluster;
    shelf *s;
    shelf_region region;
    struct bare bare;  // the floor, or our side if there is no shelf
    struct bare alone; // then the floor: the disk
    struct random random;
    struct samples latencies_ours, latencies_floor; // us, of all rounds but the first
    size_t outstanding;
    struct crew *crew_ours, *crew_floor;
    struct group *group;
    const struct peer *peer;
    void *database;
    void *writers[CREW_MAX];
};

// ---- Our side -----------------------------------------------------------------------------------------------------

static void commits_open(struct commits *c, const struct bench *b) {
    disk_check();
    *c = (struct commits){0};
    random_seed(&c->random, 1);
    if (b->where == BARE)
        return;
    c->s = b->where == CLUSTER ? cluster_make(&c->cluster) : ours_make(b, &c->server);
    c->region = ours_region_fill(c->s, "cells", region_size, false);
    must(shelf_checkpoint(c->s, NULL), "shelf_checkpoint");
}

static void commits_close(struct commits *c, const struct bench *b) {
    samples_free(&c->latencies_ours);
    samples_free(&c->latencies_floor);
    if (b->where == BARE)
        return;
    ours_end(b, &c->server, c->s);
    if (b->where == CLUSTER)
        cluster_end(&c->cluster);
}

// The floor's files, for `payload` bytes a write.
static void floor_open(struct commits *c, const struct bench *b, size_t payload) {
    bare_open(&c->bare, payload, b->where == CLUSTER || b->where == BARE ? FOLLOWERS_MAX : 0);
    if (b->where == BARE)
        disk_open_like(&c->alone.disk, &c->bare.disk, "alone");
    progress("floor: %zu bytes, %s", c->bare.disk.write_size, disk_method_name(c->bare.disk.method));
}

static void floor_close(struct commits *c, const struct bench *b) {
    bare_close(&c->bare);
    if (b->where == BARE)
        bare_close(&c->alone);
}

static void change_make(struct random *random, uint64_t *words, size_t count) {
    uint64_t first = random_next(random);
    for (size_t i = 0; i < count; i++)
        words[i] = first + i;
}

static shelf_tx *change_begin(struct commits *c, struct random *random) {
    uint64_t words[COMMIT_SIZE / 8];
    change_make(random, words, COMMIT_SIZE / 8);
    uint64_t offset = random_below(random, region_size / COMMIT_SIZE) * COMMIT_SIZE;
    shelf_tx *tx;
    must(shelf_begin(c->s, SHELF_READ_WRITE, &tx), "shelf_begin");
    must(shelf_write(tx, shelf_addr_make(c->region, offset), words, sizeof(words)), "shelf_write");
    return tx;
}

static void ours_commit(void *context, size_t position, struct random *random) {
    (void)position;
    must(shelf_commit(change_begin(context, random), NULL), "shelf_commit");
}

// ---- One commit at a time -----------------------------------------------------------------------------------------

static double one_ours(void *context, size_t round) {
    struct commits *c = context;
    struct samples times = {0};
    for (size_t i = 0; i < COMMITS_A_ROUND; i++) {
        uint64_t before = now_ns();
        ours_commit(c, 0, &c->random);
        samples_add(&times, (double)(now_ns() - before) / 1e3);
    }
    if (round > 0)
        samples_append(&c->latencies_ours, &times);
    double median = samples_median(&times);
    samples_free(&times);
    return median;
}

static double one_of(struct bare *bare, size_t round, struct samples *latencies) {
    struct samples times = {0};
    for (size_t i = 0; i < COMMITS_A_ROUND; i++) {
        uint64_t before = now_ns();
        for (size_t at = 0; at < COMMIT_SIZE; at += 8)
            memcpy(bare->disk.buffer + at, &before, 8);
        bare_write(bare, bare->disk.buffer, bare->disk.write_size);
        samples_add(&times, (double)(now_ns() - before) / 1e3);
    }
    bare_settle(bare);
    if (round > 0)
        samples_append(latencies, &times);
    double median = samples_median(&times);
    samples_free(&times);
    return median;
}

static double one_floor(void *context, size_t round) {
    struct commits *c = context;
    return one_of(&c->bare, round, &c->latencies_floor);
}
static double one_bare(void *context, size_t round) {
    struct commits *c = context;
    return one_of(&c->bare, round, &c->latencies_ours);
}
static double one_alone(void *context, size_t round) {
    struct commits *c = context;
    return one_of(&c->alone, round, &c->latencies_floor);
}

void bench_commit_one(const struct bench *b) {
    struct commits c;
    struct rounds rounds;
    commits_open(&c, b);
    floor_open(&c, b, COMMIT_SIZE);
    if (b->where == BARE)
        rounds_run(&rounds, one_bare, one_alone, &c);
    else
        rounds_run(&rounds, one_ours, one_floor, &c);

    struct outcome o = rounds_outcome(&rounds, "us");
    o.p50 = samples_median(&c.latencies_ours);
    o.p99 = samples_percentile(&c.latencies_ours, 0.99);
    outcome_print(b, &o);
    double floor_p99 = samples_percentile(&c.latencies_floor, 0.99);
    struct outcome tail = {.suffix = ".p99",
                           .value = o.p99,
                           .unit = "us",
                           .p50 = o.p50,
                           .p99 = o.p99,
                           .floor = floor_p99,
                           .ratio = o.p99 / floor_p99};
    if (b->where == HERE || b->where == CLUSTER) // else it has no target, and the line above says as much
        outcome_print_judged(b, &tail, JUDGE_RATIO, AT_MOST, b->where == CLUSTER ? 1.5 : 1.3);

    rounds_free(&rounds);
    floor_close(&c, b);
    commits_close(&c, b);
}

// ---- Threads: the bare group commit -------------------------------------------------------------------------------

// Each thread copies its change into the batch that is being filled. The first one that finds no write under way leads:
// it closes the batch, writes it with one durable write, and wakes first one thread of the batch that has filled up
// meanwhile, which leads in turn (so that the disk does not wait), then all threads of its own. Sleepers of the two
// batches alive at one time have a futex each.
//
//   G1  batch `filling` is the only one that is added to; batches are written one at a time, in order.
//   G2  a thread whose batch is at or below `done` has its change on the disk.
struct group {
    pthread_mutex_t lock; // protects what follows up to `done`
    struct disk *disk;
    unsigned char *buffers[2]; // of batch & 1
    size_t count;              // of changes in the batch being filled
    uint64_t filling;
    bool writing;
    _Atomic uint64_t done;
    _Atomic uint32_t doorbells[2]; // of batch & 1
};

static void doorbell_ring(struct group *g, uint64_t batch, int count) {
    atomic_fetch_add(&g->doorbells[batch & 1], 1);
    (void)syscall(SYS_futex, &g->doorbells[batch & 1], FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

// Called with the lock held, by a thread of the batch being filled; releases it.
static void group_lead(struct group *g) {
    uint64_t batch = g->filling++;
    size_t size = (g->count * COMMIT_SIZE + 511) / 512 * 512;
    g->count = 0;
    g->writing = true;
    (void)pthread_mutex_unlock(&g->lock);

    disk_write(g->disk, g->buffers[batch & 1], size);

    (void)pthread_mutex_lock(&g->lock);
    g->writing = false;
    bool next = g->count > 0;
    atomic_store(&g->done, batch);
    (void)pthread_mutex_unlock(&g->lock);
    if (next)
        doorbell_ring(g, batch + 1, 1);
    doorbell_ring(g, batch, CREW_MAX);
}

static void group_commit(void *context, size_t position, struct random *random) {
    struct group *g = ((struct commits *)context)->group;
    (void)position;
    uint64_t words[COMMIT_SIZE / 8];
    change_make(random, words, COMMIT_SIZE / 8);

    (void)pthread_mutex_lock(&g->lock);
    uint64_t batch = g->filling;
    memcpy(g->buffers[batch & 1] + g->count++ * COMMIT_SIZE, words, COMMIT_SIZE);
    if (!g->writing) {
        group_lead(g);
        return;
    }
    (void)pthread_mutex_unlock(&g->lock);

    for (;;) {
        uint32_t seen = atomic_load(&g->doorbells[batch & 1]);
        if (atomic_load(&g->done) >= batch)
            return;
        (void)pthread_mutex_lock(&g->lock);
        if (!g->writing && g->filling == batch) {
            group_lead(g);
            return;
        }
        (void)pthread_mutex_unlock(&g->lock);
        (void)syscall(SYS_futex, &g->doorbells[batch & 1], FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
}

static struct group *group_make(struct disk *disk) {
    struct group *g = calloc(1, sizeof(*g));
    if (!g)
        fail("no memory for the group");
    (void)pthread_mutex_init(&g->lock, NULL);
    g->disk = disk;
    g->filling = 1;
    for (size_t i = 0; i < 2; i++) {
        g->buffers[i] = aligned_alloc(4096, (size_t)CREW_MAX * COMMIT_SIZE);
        if (!g->buffers[i])
            fail("no memory for the group");
        memset(g->buffers[i], 1, (size_t)CREW_MAX * COMMIT_SIZE);
    }
    return g;
}

static void group_free(struct group *g) {
    (void)pthread_mutex_destroy(&g->lock);
    free(g->buffers[0]);
    free(g->buffers[1]);
    free(g);
}

static double threads_ours(void *context, size_t round) {
    struct commits *c = context;
    return crew_run(c->crew_ours, round_s, round > 0 ? &c->latencies_ours : NULL);
}

static double threads_floor(void *context, size_t round) {
    struct commits *c = context;
    return crew_run(c->crew_floor, round_s, round > 0 ? &c->latencies_floor : NULL);
}

// For rates, p50 and p99 are the latencies of single commits of ours, in us.
static void rate_print(const struct bench *b, struct rounds *rounds, struct commits *c) {
    struct outcome o = rounds_outcome(rounds, "commits/s");
    o.p50 = samples_median(&c->latencies_ours);
    o.p99 = samples_percentile(&c->latencies_ours, 0.99);
    outcome_print(b, &o);
}

void bench_commit_threads(const struct bench *b) {
    struct commits c;
    struct rounds rounds;
    commits_open(&c, b);
    floor_open(&c, b, b->parallel * COMMIT_SIZE);
    c.group = group_make(&c.bare.disk);
    c.crew_ours = crew_make(b->parallel, ours_commit, &c);
    c.crew_floor = crew_make(b->parallel, group_commit, &c);
    rounds_run(&rounds, threads_ours, threads_floor, &c);
    rate_print(b, &rounds, &c);

    rounds_free(&rounds);
    crew_end(c.crew_floor);
    crew_end(c.crew_ours);
    group_free(c.group);
    floor_close(&c, b);
    commits_close(&c, b);
}

// ---- Outstanding commits of one thread ----------------------------------------------------------------------------

static void completion_wait(shelf *s) {
    struct pollfd p = {.fd = shelf_completion_fd(s), .events = POLLIN};
    int ready = poll(&p, 1, 30000);
    if (ready == 0)
        fail("no commit completed for 30 s");
    if (ready < 0 && errno != EINTR)
        fail("cannot poll for completions: %s", strerror(errno));
}

// Keeps `outstanding` commits under way for `seconds`, then waits for the last; returns commits a second.
static double outstanding_run(struct commits *c, double seconds, struct samples *latencies) {
    static uint64_t begun[OUTSTANDING_MAX]; // by tag
    static uint64_t tags[OUTSTANDING_MAX];  // free ones: the first free_count
    static struct shelf_completion completions[OUTSTANDING_MAX];
    size_t free_count = c->outstanding, done = 0;
    for (size_t i = 0; i < c->outstanding; i++)
        tags[i] = i;

    uint64_t start = now_ns(), now = start, until = start + (uint64_t)(seconds * 1e9);
    while (now < until || free_count < c->outstanding) {
        while (now < until && free_count > 0) {
            uint64_t tag = tags[--free_count];
            begun[tag] = now_ns();
            must(shelf_commit_async(change_begin(c, &c->random), tag), "shelf_commit_async");
        }
        size_t count = shelf_completions(c->s, completions, OUTSTANDING_MAX);
        if (count == 0)
            completion_wait(c->s);
        now = now_ns();
        for (size_t i = 0; i < count; i++) {
            must(completions[i].result, "an asynchronous commit");
            if (latencies)
                samples_add(latencies, (double)(now - begun[completions[i].tag]) / 1e3);
            tags[free_count++] = completions[i].tag;
        }
        done += count;
    }
    return (double)done / ((double)(now_ns() - start) / 1e9);
}

static double outstanding_ours(void *context, size_t round) {
    struct commits *c = context;
    return outstanding_run(c, round_s, round > 0 ? &c->latencies_ours : NULL);
}

// A batch of all that is outstanding after the other.
static double outstanding_of(struct commits *c, struct bare *bare, struct samples *latencies) {
    size_t done = 0;
    uint64_t start = now_ns(), until = start + (uint64_t)(round_s * 1e9), before = start, now;
    do {
        for (size_t i = 0; i < c->outstanding; i++) {
            uint64_t words[COMMIT_SIZE / 8];
            change_make(&c->random, words, COMMIT_SIZE / 8);
            memcpy(bare->disk.buffer + i * COMMIT_SIZE, words, COMMIT_SIZE);
        }
        bare_write(bare, bare->disk.buffer, bare->disk.write_size);
        done += c->outstanding;
        now = now_ns();
        if (latencies)
            samples_add(latencies, (double)(now - before) / 1e3);
        before = now;
    } while (now < until);
    double rate = (double)done / ((double)(now - start) / 1e9);
    bare_settle(bare);
    return rate;
}

static double outstanding_floor(void *context, size_t round) {
    struct commits *c = context;
    (void)round;
    return outstanding_of(c, &c->bare, NULL);
}
static double outstanding_bare(void *context, size_t round) {
    struct commits *c = context;
    return outstanding_of(c, &c->bare, round > 0 ? &c->latencies_ours : NULL);
}
static double outstanding_alone(void *context, size_t round) {
    struct commits *c = context;
    (void)round;
    return outstanding_of(c, &c->alone, NULL);
}

void bench_commit_outstanding(const struct bench *b) {
    struct commits c;
    struct rounds rounds;
    commits_open(&c, b);
    c.outstanding = b->parallel;
    floor_open(&c, b, b->parallel * COMMIT_SIZE);
    if (b->where == BARE)
        rounds_run(&rounds, outstanding_bare, outstanding_alone, &c);
    else
        rounds_run(&rounds, outstanding_ours, outstanding_floor, &c);
    rate_print(b, &rounds, &c);
    rounds_free(&rounds);
    floor_close(&c, b);
    commits_close(&c, b);
}

// ---- Peers --------------------------------------------------------------------------------------------------------

static void peer_commit(void *context, size_t position, struct random *random) {
    struct commits *c = context;
    uint64_t words[(COMMIT_SIZE - KEY_SIZE) / 8];
    change_make(random, words, sizeof(words) / 8);
    struct key key = record_key(random_below(random, region_size / COMMIT_SIZE));
    c->peer->put(c->writers[position], &key, words, sizeof(words));
}

static void peer_append(struct commits *c) {
    uint64_t words[(COMMIT_SIZE - KEY_SIZE) / 8];
    change_make(&c->random, words, sizeof(words) / 8);
    struct key key = record_key(random_below(&c->random, region_size / COMMIT_SIZE));
    c->peer->put_append(c->writers[0], &key, words, sizeof(words));
}

static double outstanding_peer(void *context, size_t round) {
    struct commits *c = context;
    size_t begun = 0, done = 0;
    (void)round;
    uint64_t start = now_ns(), until = start + (uint64_t)(round_s * 1e9);
    for (bool more = true; more || done < begun; more = more && now_ns() < until) {
        for (; more && begun - done < c->outstanding; begun++)
            peer_append(c);
        c->peer->put_await(c->writers[0]);
        done++;
    }
    return (double)done / ((double)(now_ns() - start) / 1e9);
}

// Up to 16, ours commits from threads as the peer does; with more outstanding, asynchronously from one.
void bench_commit_peer(const struct bench *b) {
    const struct records records = {region_size / COMMIT_SIZE, COMMIT_SIZE - KEY_SIZE};
    struct commits c;
    struct rounds rounds;
    bool threads = b->parallel <= 16 && b->where != BARE, serves = b->peer->put_append;
    size_t peer_threads = serves ? 1 : b->parallel < CREW_MAX ? b->parallel : CREW_MAX;
    commits_open(&c, b);
    c.outstanding = b->parallel;
    c.peer = b->peer;
    progress("loading %s", c.peer->name);
    c.database = c.peer->open(&records);
    for (size_t i = 0; i < peer_threads; i++)
        c.writers[i] = c.peer->writer_open(c.database);
    if (b->where == BARE)
        floor_open(&c, b, b->parallel * COMMIT_SIZE);
    if (threads)
        c.crew_ours = crew_make(b->parallel, ours_commit, &c);
    if (!serves)
        c.crew_floor = crew_make(peer_threads, peer_commit, &c);

    side ours = b->where == BARE ? outstanding_bare : threads ? threads_ours : outstanding_ours;
    rounds_run(&rounds, ours, serves ? outstanding_peer : threads_floor, &c);
    rate_print(b, &rounds, &c);

    rounds_free(&rounds);
    if (!serves)
        crew_end(c.crew_floor);
    if (threads)
        crew_end(c.crew_ours);
    for (size_t i = 0; i < peer_threads; i++)
        c.peer->writer_close(c.writers[i]);
    c.peer->close(c.database);
    if (b->where == BARE)
        floor_close(&c, b);
    commits_close(&c, b);
}
