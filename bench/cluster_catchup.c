// SPDX-License-Identifier: Apache-2.0
// cluster_catchup.c: how fast a node that was away gets what it has missed.
//
// A backup is killed, the others go on, and it is started again: the time is from its start (so that its own recovery is in it, and a
// second one after a checkpoint came, for which a supervisor would start it again)
// until the primary knows that it lacks nothing but what is under way. The floor: as many bytes written to the disk in order,
// or sent over loopback, whichever is slower. Meanwhile somebody commits on the primary, who is to notice little of it; he is
// measured before and during.
#include "bench.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHANGE_SIZE = 256 << 10, SMALL_SIZE = 256, UNDER_WAY = 4 };
static const uint64_t region_size = (uint64_t)64 << 20;
static const uint64_t patience_ns = 120000000000u;

struct catchup {
    struct cluster cluster;
    size_t away; // position of the node that is killed
    shelf *s;    // of the primary
    shelf_region region;
    // Somebody else who commits.
    pthread_t other;
    _Atomic bool other_leaves;
    uint64_t other_commits;
    struct rounds others;
};

static void change_commit(struct catchup *c, uint64_t offset, const void *bytes, size_t size) {
    shelf_tx *tx;
    must(shelf_begin(c->s, SHELF_READ_WRITE, &tx), "shelf_begin");
    must(shelf_write(tx, shelf_addr_make(c->region, offset), bytes, size), "shelf_write");
    must(shelf_commit(tx, NULL), "shelf_commit");
}

static void changes_make(struct catchup *c) {
    unsigned char *bytes = malloc(CHANGE_SIZE);
    if (!bytes)
        fail("no memory for a change");
    for (uint64_t at = 0; at < settings.missed; at += CHANGE_SIZE) {
        progress("changes: %llu MiB", (unsigned long long)at >> 20);
        record_value(at, bytes, CHANGE_SIZE);
        change_commit(c, at % region_size, bytes, CHANGE_SIZE);
    }
    free(bytes);
}

// ---- Somebody else ------------------------------------------------------------------------------------------------

static void *other_main(void *argument) {
    struct catchup *c = argument;
    unsigned char bytes[SMALL_SIZE];
    for (uint64_t i = 0; !atomic_load(&c->other_leaves); i++) {
        record_value(i, bytes, sizeof(bytes));
        change_commit(c, mix64(i) % (region_size / SMALL_SIZE) * SMALL_SIZE, bytes, sizeof(bytes));
        c->other_commits++;
    }
    return NULL;
}

static void other_begin(struct catchup *c) {
    c->other_commits = 0;
    c->other_leaves = false;
    if (pthread_create(&c->other, NULL, other_main, c))
        fail("cannot start a thread");
}

// Returns commits a second since that time.
static double other_end(struct catchup *c, uint64_t begun) {
    c->other_leaves = true;
    (void)pthread_join(c->other, NULL);
    return (double)c->other_commits / ((double)(now_ns() - begun) / 1e9);
}

// ---- Rounds -------------------------------------------------------------------------------------------------------

// What the primary knows of the node that was away.
static bool is_back(const struct catchup *c) {
    struct shelf_cluster_info info;
    must(shelf_cluster_get(c->s, &info), "shelf_cluster_get");
    for (size_t i = 0; i < info.node_count; i++) {
        const struct shelf_node_info *n = &info.nodes[i];
        if (n->node == c->away + 1)
            return n->connected && n->known && n->silent_ms < 100 && n->behind_records <= UNDER_WAY;
    }
    return false;
}

static void level_wait(const struct catchup *c) {
    uint64_t epoch;
    for (uint64_t until = now_ns() + patience_ns; !cluster_is_level(&c->cluster, c->s, &epoch);
         (void)usleep(2000))
        if (now_ns() > until)
            fail("a node does not get what it lacks");
}

static double catchup_ours(void *context, size_t round) {
    struct catchup *c = context;
    level_wait(c);
    uint64_t begun = now_ns();
    other_begin(c);
    (void)usleep(300000);
    double rate_before = other_end(c, begun);

    server_end(&c->cluster.nodes[c->away]);
    changes_make(c);
    progress("round %zu: the node returns", round);
    begun = now_ns();
    other_begin(c);
    cluster_node_begin(&c->cluster, c->away);
    for (uint64_t until = begun + patience_ns; !is_back(c); (void)usleep(1000)) {
        if (!process_lives(
                c->cluster.nodes[c->away].process)) { // it wants that after a checkpoint from another node
            server_end(&c->cluster.nodes[c->away]);
            cluster_node_begin(&c->cluster, c->away);
        }
        if (now_ns() > until)
            fail("the node does not get what it lacks");
    }
    double took_s = (double)(now_ns() - begun) / 1e9;
    double rate_during = other_end(c, begun);
    if (round > 0) {
        samples_add(&c->others.ours, rate_during);
        samples_add(&c->others.floor, rate_before);
        samples_add(&c->others.ratio, rate_during / rate_before);
    }
    return (double)settings.missed / took_s / 1e6;
}

static double catchup_floor(void *context, size_t round) {
    (void)context;
    (void)round;
    double disk = disk_write_rate("sequential", settings.missed), loopback = loopback_rate(settings.missed);
    return (disk < loopback ? disk : loopback) / 1e6;
}

void bench_catchup(const struct bench *b) {
    struct catchup c = {0};
    struct rounds rounds;
    disk_check();
    c.s = cluster_make(&c.cluster);
    c.away = (c.cluster.primary + 1) % c.cluster.count;
    c.region = ours_region_fill(c.s, "cells", region_size, false);
    rounds_run(&rounds, catchup_ours, catchup_floor, &c);
    struct outcome o = rounds_outcome(&rounds, "MB/s");
    outcome_print(b, &o);
    struct outcome others = rounds_outcome(&c.others, "commits/s");
    others.suffix = ".others";
    outcome_print_judged(b, &others, JUDGE_RATIO, AT_LEAST, 0.85);
    rounds_free(&c.others);
    rounds_free(&rounds);
    must(shelf_close(c.s), "shelf_close");
    cluster_end(&c.cluster);
}
