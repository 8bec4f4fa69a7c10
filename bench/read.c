// SPDX-License-Identifier: Apache-2.0
// read.c: what a validated read costs over a plain load.
//
// Both sides read the same 64-byte lines of the same 1 GiB, through the same mapping (the floor takes its address from
// shelf_view()), so that pages, caches and their misses are alike and the difference is the validation. Our side reads
// READS_A_TX lines in a read-only transaction and then begins another. Both copy the whole line out. In the round that
// does not count both read the same lines, so that what they found can be compared; in the others they read different
// ones, so that neither finds in the cache what the other has brought there.
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READS_A_TX = 64 };
static const uint64_t region_size = (uint64_t)1 << 30;
static const uint64_t region_size_backup = (uint64_t)256 << 20;
static const size_t line_count = (1u << 30) / SHELF_LINE_SIZE;
static const size_t reads_independent = 1u << 20; // a side of a round
static const size_t reads_chase = 1u << 18;
static const size_t reads_scale = 1u << 13; // an operation of a crew

struct reads {
    shelf *s;
    shelf_region region;
    const unsigned char *plain;         // the region's bytes
    uint32_t *lines;                    // line_count random ones
    uint64_t digest_ours, digest_floor; // of round 0
    struct crew *one, *two;             // crews of read.scale
    struct server server;               // of read.processes
    struct team *team;                  // likewise
    shelf *backup;                      // of cluster.read.backup: another node of the cluster
};

// The address of the region's bytes. The manual promises pointers to ranges, not that the ranges of a region lie beside
// one another, so this is checked.
static const unsigned char *region_plain(shelf *s, shelf_region region) {
    shelf_tx *tx;
    const void *first, *last;
    must(shelf_begin(s, SHELF_READ_ONLY, &tx), "shelf_begin");
    must(shelf_view(tx, shelf_addr_make(region, 0), SHELF_LINE_SIZE, &first), "shelf_view");
    must(shelf_view(tx, shelf_addr_make(region, region_size - SHELF_LINE_SIZE), SHELF_LINE_SIZE, &last),
         "shelf_view");
    must(shelf_commit(tx, NULL), "shelf_commit");
    if ((const unsigned char *)last - (const unsigned char *)first !=
        (ptrdiff_t)(region_size - SHELF_LINE_SIZE))
        fail("the region is not mapped in one piece");
    return first;
}

static void lines_draw(struct reads *r, uint64_t size) {
    r->lines = malloc(line_count * sizeof(r->lines[0]));
    if (!r->lines)
        fail("no memory for the addresses");
    struct random random;
    random_seed(&random, 1);
    for (size_t i = 0; i < line_count; i++)
        r->lines[i] = (uint32_t)random_below(&random, size / SHELF_LINE_SIZE);
}

static void reads_open(struct reads *r) {
    *r = (struct reads){0};
    r->s = ours_open("shelf", SHELF_OPEN_CREATE | SHELF_OPEN_NO_CHECKPOINT, (struct shelf_options){0});
    r->region = ours_region_fill(r->s, "lines", region_size, true);
    must(shelf_checkpoint(r->s, NULL), "shelf_checkpoint");
    r->plain = region_plain(r->s, r->region);
    lines_draw(r, region_size);
}

// The part of the random lines that a side reads in a round.
static const uint32_t *lines_of(const struct reads *r, size_t round, size_t side_number) {
    size_t part = round == 0 ? 0 : 2 * round + side_number;
    return r->lines + part * reads_independent % line_count;
}

static void reads_close(struct reads *r) {
    if (r->digest_ours != r->digest_floor)
        fail("Shelf read other bytes than plain loads did");
    free(r->lines);
    must(shelf_close(r->s), "shelf_close");
}

static inline uint64_t line_digest(const unsigned char *line) {
    return value_digest(line, SHELF_LINE_SIZE);
}

// The copy must really be made, as it is on our side.
static inline void line_copy(unsigned char *to, const unsigned char *from) {
    memcpy(to, from, SHELF_LINE_SIZE);
    __asm__ volatile("" : : "r"(to) : "memory");
}

// ---- Independent addresses ----------------------------------------------------------------------------------------

static uint64_t lines_read(const struct reads *r, const uint32_t *lines, size_t count) {
    uint64_t digest = 0;
    unsigned char line[SHELF_LINE_SIZE] __attribute__((aligned(64)));
    for (size_t at = 0; at < count; at += READS_A_TX) {
        shelf_tx *tx;
        must(shelf_begin(r->s, SHELF_READ_ONLY, &tx), "shelf_begin");
        for (size_t i = at; i < at + READS_A_TX; i++) {
            shelf_result result = shelf_read(
                tx, shelf_addr_make(r->region, (uint64_t)lines[i] * SHELF_LINE_SIZE), line, sizeof(line));
            if (result != SHELF_OK)
                must(result, "shelf_read");
            digest += line_digest(line);
        }
        must(shelf_commit(tx, NULL), "shelf_commit");
    }
    return digest;
}

static uint64_t lines_load(const struct reads *r, const uint32_t *lines, size_t count) {
    uint64_t digest = 0;
    unsigned char line[SHELF_LINE_SIZE] __attribute__((aligned(64)));
    for (size_t i = 0; i < count; i++) {
        line_copy(line, r->plain + (uint64_t)lines[i] * SHELF_LINE_SIZE);
        digest += line_digest(line);
    }
    return digest;
}

static double independent_ours(void *context, size_t round) {
    struct reads *r = context;
    uint64_t start = now_ns();
    uint64_t digest = lines_read(r, lines_of(r, round, 0), reads_independent);
    double took = (double)(now_ns() - start);
    if (round == 0)
        r->digest_ours = digest;
    return took / (double)reads_independent;
}

static double independent_floor(void *context, size_t round) {
    struct reads *r = context;
    uint64_t start = now_ns();
    uint64_t digest = lines_load(r, lines_of(r, round, 1), reads_independent);
    double took = (double)(now_ns() - start);
    if (round == 0)
        r->digest_floor = digest;
    return took / (double)reads_independent;
}

static void reads_bench(const struct bench *b, side ours, side floor) {
    struct reads r;
    struct rounds rounds;
    reads_open(&r);
    (void)thread_pin(0);
    rounds_run(&rounds, ours, floor, &r);
    struct outcome o = rounds_outcome(&rounds, "ns/read");
    outcome_print(b, &o);
    rounds_free(&rounds);
    reads_close(&r);
}

void bench_read_independent(const struct bench *b) {
    reads_bench(b, independent_ours, independent_floor);
}

// ---- Each address depends on the last -----------------------------------------------------------------------------

// Each walks a stretch of the one cycle from a random line on.
static double chase_ours(void *context, size_t round) {
    struct reads *r = context;
    uint64_t offset = (uint64_t)*lines_of(r, round, 0) * SHELF_LINE_SIZE, digest = 0;
    unsigned char line[SHELF_LINE_SIZE] __attribute__((aligned(64)));
    uint64_t start = now_ns();
    for (size_t at = 0; at < reads_chase; at += READS_A_TX) {
        shelf_tx *tx;
        must(shelf_begin(r->s, SHELF_READ_ONLY, &tx), "shelf_begin");
        for (size_t i = 0; i < READS_A_TX; i++) {
            shelf_result result = shelf_read(tx, shelf_addr_make(r->region, offset), line, sizeof(line));
            if (result != SHELF_OK)
                must(result, "shelf_read");
            memcpy(&offset, line, sizeof(offset));
            digest += line_digest(line);
        }
        must(shelf_commit(tx, NULL), "shelf_commit");
    }
    double took = (double)(now_ns() - start);
    if (round == 0)
        r->digest_ours = digest;
    return took / (double)reads_chase;
}

static double chase_floor(void *context, size_t round) {
    struct reads *r = context;
    uint64_t offset = (uint64_t)*lines_of(r, round, 1) * SHELF_LINE_SIZE, digest = 0;
    unsigned char line[SHELF_LINE_SIZE] __attribute__((aligned(64)));
    uint64_t start = now_ns();
    for (size_t i = 0; i < reads_chase; i++) {
        const unsigned char *from = r->plain + offset;
        // The next address straight from memory, not by way of the copy.
        memcpy(&offset, from, sizeof(offset));
        line_copy(line, from);
        digest += line_digest(line);
    }
    double took = (double)(now_ns() - start);
    if (round == 0)
        r->digest_floor = digest;
    return took / (double)reads_chase;
}

void bench_read_chase(const struct bench *b) {
    reads_bench(b, chase_ours, chase_floor);
}

// ---- Two threads against one --------------------------------------------------------------------------------------

static void scale_operation(void *context, size_t position, struct random *random) {
    struct reads *r = context;
    static _Thread_local bool pinned;
    if (!pinned)
        (void)thread_pin(position);
    pinned = true;
    size_t from = random_below(random, line_count / reads_scale) * reads_scale;
    uint64_t digest = lines_read(r, r->lines + from, reads_scale);
    __asm__ volatile("" : : "r"(digest));
}

static double scale_two(void *context, size_t round) {
    (void)round;
    return crew_run(((struct reads *)context)->two, 0.2, NULL) * (double)reads_scale;
}
static double scale_one(void *context, size_t round) {
    (void)round;
    return crew_run(((struct reads *)context)->one, 0.2, NULL) * (double)reads_scale;
}

void bench_read_scale(const struct bench *b) {
    struct reads r;
    struct rounds rounds;
    reads_open(&r);
    r.one = crew_make(1, scale_operation, &r);
    r.two = crew_make(2, scale_operation, &r);
    rounds_run(&rounds, scale_two, scale_one, &r);
    struct outcome o = rounds_outcome(&rounds, "reads/s");
    outcome_print(b, &o);
    rounds_free(&rounds);
    crew_end(r.one);
    crew_end(r.two);
    reads_close(&r);
}

// ---- Two processes against one ------------------------------------------------------------------------------------

static void *processes_open(void *argument, size_t position) {
    struct reads *r = argument;
    (void)position;
    r->s = server_attach(&r->server);
    must(shelf_region_open(r->s, "lines", &r->region), "shelf_region_open");
    return r;
}

static void processes_operation(void *context, size_t position, struct random *random) {
    struct reads *r = context;
    (void)position;
    size_t from = random_below(random, line_count / reads_scale) * reads_scale;
    uint64_t digest = lines_read(r, r->lines + from, reads_scale);
    __asm__ volatile("" : : "r"(digest));
}

static double processes_two(void *context, size_t round) {
    (void)round;
    return team_run(((struct reads *)context)->team, 2, 0.2) * (double)reads_scale;
}
static double processes_one(void *context, size_t round) {
    (void)round;
    return team_run(((struct reads *)context)->team, 1, 0.2) * (double)reads_scale;
}

// The processes attach to the node, and have nothing else to do with one another.
void bench_read_processes(const struct bench *b) {
    struct reads r = {0};
    struct rounds rounds;
    server_begin(&r.server, "shelf");
    shelf *s = server_attach(&r.server);
    r.region = ours_region_fill(s, "lines", region_size, true);
    must(shelf_checkpoint(s, NULL), "shelf_checkpoint");
    must(shelf_close(s), "shelf_close");
    lines_draw(&r, region_size);
    r.team = team_make(2, &(struct team_work){processes_open, processes_operation, &r});
    rounds_run(&rounds, processes_two, processes_one, &r);
    struct outcome o = rounds_outcome(&rounds, "reads/s");
    outcome_print(b, &o);
    rounds_free(&rounds);
    team_end(r.team);
    server_end(&r.server);
    free(r.lines);
}

// ---- A backup against the primary ---------------------------------------------------------------------------------

static double node_read(const struct reads *r, shelf *s, size_t round, size_t side_number,
                        uint64_t *ret_digest) {
    struct reads there = *r;
    there.s = s;
    uint64_t start = now_ns();
    uint64_t digest = lines_read(&there, lines_of(r, round, side_number), reads_independent);
    double took_s = (double)(now_ns() - start) / 1e9;
    if (round == 0)
        *ret_digest = digest;
    return (double)reads_independent / took_s;
}

static double backup_read(void *context, size_t round) {
    struct reads *r = context;
    return node_read(r, r->backup, round, 0, &r->digest_ours);
}
static double primary_read(void *context, size_t round) {
    struct reads *r = context;
    return node_read(r, r->s, round, 1, &r->digest_floor);
}

// Until it shows all that the primary shows.
static void backup_wait(const struct reads *r) {
    struct shelf_staleness wanted, there;
    must(shelf_staleness_get(r->s, &wanted), "shelf_staleness_get");
    for (uint64_t until = now_ns() + 60000000000u; now_ns() < until; (void)usleep(5000)) {
        must(shelf_staleness_get(r->backup, &there), "shelf_staleness_get");
        if (there.index >= wanted.index)
            return;
    }
    fail("the backup does not get what the primary has");
}

void bench_read_backup(const struct bench *b) {
    struct cluster cluster;
    struct reads r = {0};
    struct rounds rounds;
    r.s = cluster_make(&cluster);
    r.region = ours_region_fill(r.s, "lines", region_size_backup, false);
    r.backup = cluster_attach(&cluster, (cluster.primary + 1) % cluster.count);
    backup_wait(&r);
    must(shelf_checkpoint(r.s, NULL), "shelf_checkpoint");
    lines_draw(&r, region_size_backup);
    (void)thread_pin(0);
    rounds_run(&rounds, backup_read, primary_read, &r);
    struct outcome o = rounds_outcome(&rounds, "reads/s");
    outcome_print(b, &o);
    rounds_free(&rounds);
    must(shelf_close(r.backup), "shelf_close");
    reads_close(&r);
    cluster_end(&cluster);
}
