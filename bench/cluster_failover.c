// SPDX-License-Identifier: Apache-2.0
// cluster_failover.c: how long nobody can commit after the primary is gone.
//
// A client is attached to each node. The primary is killed (or stopped, which is how a machine looks that has been cut off);
// from then on the clients of the others try to commit, and the time ends with the first commit that is acknowledged in a
// later epoch by a primary that is another node. Then the node comes back, and the next round begins when all have everything.
//
// A handover is planned: the primary is told to end (SIGTERM). There the clients commit all the time, through it and beyond, and
// the pause is the longest time between two commits that were acknowledged, to any of them. None may fail.
//
// Each client counts in a word of its own; in the end each must have counted what was acknowledged, and no more than that and
// what was left open (B4).
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { KILLS_MIN = 5, COMMITS_BEFORE = 20, COMMITS_AFTER = 100 };
static const uint64_t region_size = (uint64_t)1 << 20;
static const uint64_t patience_ns = 60000000000u;

struct client {
    struct failover *failover;
    size_t position; // of its node
    shelf *s;        // NULL: its node is gone
    shelf_region region;
    uint64_t acknowledged, open;
    pthread_t thread;
};

struct failover {
    struct cluster cluster;
    struct client clients[CLUSTER_NODES];
    size_t primary;         // of the round
    uint64_t epoch;         // of the round
    _Atomic uint64_t ended; // when the next one acknowledged a commit; 0: not yet
    // Of a handover, since the round began:
    _Atomic uint64_t commits, commits_after,
        failed;                   // acknowledged, also by the next primary; not acknowledged
    _Atomic uint64_t last, pause; // when the last one was; the longest time between two
};

// ---- Clients ------------------------------------------------------------------------------------------------------

// A backup may not know yet of what the primary has made.
static void region_wait(struct client *c) {
    shelf_result result;
    uint64_t until = now_ns() + patience_ns;
    while ((result = shelf_region_open(c->s, "cells", &c->region)) == SHELF_NOT_FOUND && now_ns() < until)
        (void)usleep(1000);
    must(result, "shelf_region_open");
}

static uint64_t counter_read(shelf_tx *tx, shelf_addr address) {
    uint64_t count;
    must(shelf_read(tx, address, &count, sizeof(count)), "shelf_read");
    return count;
}

static shelf_result client_count(struct client *c) {
    shelf_tx *tx;
    shelf_addr address = shelf_addr_make(c->region, c->position * SHELF_LINE_SIZE);
    must(shelf_begin(c->s, SHELF_READ_WRITE, &tx), "shelf_begin");
    uint64_t count = counter_read(tx, address) + 1;
    must(shelf_write(tx, address, &count, sizeof(count)), "shelf_write");
    shelf_result result = shelf_commit(tx, NULL);
    c->acknowledged += result == SHELF_OK;
    c->open += result == SHELF_UNKNOWN;
    if (result != SHELF_OK && result != SHELF_UNKNOWN && result != SHELF_UNAVAILABLE &&
        result != SHELF_CONFLICT)
        must(result, "shelf_commit");
    return result;
}

static bool other_leads(const struct client *c) {
    struct shelf_cluster_info info;
    must(shelf_cluster_get(c->s, &info), "shelf_cluster_get");
    return info.epoch > c->failover->epoch && info.primary != c->failover->primary + 1;
}

static void *client_main(void *argument) {
    struct client *c = argument;
    struct failover *f = c->failover;
    uint64_t until = now_ns() + patience_ns;
    while (atomic_load(&f->ended) == 0) {
        shelf_result result = client_count(c);
        uint64_t now = now_ns(), nothing = 0;
        if (result == SHELF_OK && other_leads(c))
            (void)atomic_compare_exchange_strong(&f->ended, &nothing, now);
        else if (result == SHELF_UNAVAILABLE)
            (void)usleep(100);
        if (now > until)
            fail("no other node has taken over for %.0f s", (double)patience_ns / 1e9);
    }
    return NULL;
}

static void acknowledgement_note(struct failover *f) {
    uint64_t now = now_ns(), last = atomic_exchange(&f->last, now);
    uint64_t took = last && now > last ? now - last : 0, before = atomic_load(&f->pause);
    while (took > before && !atomic_compare_exchange_weak(&f->pause, &before, took))
        ;
    (void)atomic_fetch_add(&f->commits, 1);
}

static void *steady_client_main(void *argument) {
    struct client *c = argument;
    struct failover *f = c->failover;
    uint64_t until = now_ns() + patience_ns;
    while (atomic_load(&f->commits_after) < COMMITS_AFTER) {
        if (client_count(c) == SHELF_OK)
            acknowledgement_note(f);
        else
            (void)atomic_fetch_add(&f->failed, 1);
        if (other_leads(c))
            (void)atomic_fetch_add(&f->commits_after, 1);
        if (now_ns() > until)
            fail("no other node has taken over for %.0f s", (double)patience_ns / 1e9);
    }
    return NULL;
}

static void clients_check(struct failover *f) {
    const struct client *asked = &f->clients[f->primary];
    shelf_tx *tx;
    must(shelf_begin(asked->s, SHELF_READ_ONLY, &tx), "shelf_begin");
    for (size_t i = 0; i < f->cluster.count; i++) {
        const struct client *c = &f->clients[i];
        uint64_t count = counter_read(tx, shelf_addr_make(asked->region, i * SHELF_LINE_SIZE));
        if (count < c->acknowledged || count > c->acknowledged + c->open)
            fail("%llu commits were acknowledged and %llu left open, %llu are there",
                 (unsigned long long)c->acknowledged, (unsigned long long)c->open, (unsigned long long)count);
    }
    must(shelf_commit(tx, NULL), "shelf_commit");
}

// ---- Rounds -------------------------------------------------------------------------------------------------------

// Waits until all are in sync and have everything; says who leads.
static void nodes_settle(struct failover *f) {
    for (uint64_t until = now_ns() + patience_ns; now_ns() < until; (void)usleep(5000)) {
        size_t primary = cluster_primary_wait(&f->cluster, f->clients[f->primary].s, f->cluster.count);
        f->primary = primary;
        if (cluster_is_level(&f->cluster, f->clients[primary].s, &f->epoch) &&
            client_count(&f->clients[primary]) == SHELF_OK)
            return;
    }
    fail("a node does not come back");
}

static void clients_begin(struct failover *f, void *(*main)(void *)) {
    for (size_t i = 0; i < f->cluster.count; i++)
        if (i != f->primary && pthread_create(&f->clients[i].thread, NULL, main, &f->clients[i]))
            fail("cannot start a thread");
}

static void clients_join(struct failover *f) {
    for (size_t i = 0; i < f->cluster.count; i++)
        if (i != f->primary)
            (void)pthread_join(f->clients[i].thread, NULL);
}

static void primary_signal(const struct failover *f, int number) {
    if (kill(f->cluster.nodes[f->primary].process, number) != 0)
        fail("cannot signal a node: %s", strerror(errno));
}

// Its client leaves before the node does.
static void client_leave(struct failover *f) {
    must(shelf_close(f->clients[f->primary].s), "shelf_close");
    f->clients[f->primary].s = NULL;
}

static void primary_return(struct failover *f) {
    server_end(&f->cluster.nodes[f->primary]);
    cluster_node_begin(&f->cluster, f->primary);
    f->clients[f->primary].s = cluster_attach(&f->cluster, f->primary);
    region_wait(&f->clients[f->primary]);
}

static double killed_round(struct failover *f) {
    client_leave(f);
    uint64_t begun = now_ns();
    primary_signal(f, SIGKILL);
    clients_begin(f, client_main);
    clients_join(f);
    primary_return(f);
    return (double)(f->ended - begun) / 1e6;
}

static double silent_round(struct failover *f) {
    uint64_t begun = now_ns();
    primary_signal(f, SIGSTOP);
    clients_begin(f, client_main);
    clients_join(f);
    primary_signal(f, SIGCONT);
    return (double)(f->ended - begun) / 1e6;
}

static double handover_round(struct failover *f) {
    client_leave(f);
    f->commits = f->commits_after = 0;
    clients_begin(f, steady_client_main);
    for (uint64_t until = now_ns() + patience_ns; atomic_load(&f->commits) < COMMITS_BEFORE;
         (void)usleep(1000))
        if (now_ns() > until)
            fail("nobody commits");
    f->pause = 0;
    primary_signal(f, SIGTERM);
    clients_join(f);
    double pause_ms = (double)f->pause / 1e6;
    for (uint64_t until = now_ns() + patience_ns; process_lives(f->cluster.nodes[f->primary].process);
         (void)usleep(1000))
        if (now_ns() > until)
            fail("a node does not end");
    primary_return(f);
    return pause_ms;
}

static void failover_open(struct failover *f) {
    shelf_region region;
    *f = (struct failover){0};
    cluster_begin(&f->cluster, false);
    for (size_t i = 0; i < f->cluster.count; i++) {
        f->clients[i] = (struct client){.failover = f, .position = i};
        f->clients[i].s = cluster_attach(&f->cluster, i);
    }
    f->primary = cluster_primary_wait(&f->cluster, f->clients[0].s, f->cluster.count);
    must(shelf_region_create(f->clients[f->primary].s, "cells", region_size, 0, &region),
         "shelf_region_create");
    for (size_t i = 0; i < f->cluster.count; i++)
        region_wait(&f->clients[i]);
}

static void failover_close(struct failover *f) {
    nodes_settle(f);
    clients_check(f);
    for (size_t i = 0; i < f->cluster.count; i++)
        must(shelf_close(f->clients[i].s), "shelf_close");
    cluster_end(&f->cluster);
}

// Returns the time of each round, in ms.
static struct samples failovers_run(struct failover *f, double (*round_run)(struct failover *f)) {
    struct samples times = {0};
    disk_check();
    failover_open(f);
    uint64_t until = now_ns() + (uint64_t)(settings.seconds * 1e9);
    while (times.count < KILLS_MIN || (settings.kills ? times.count < settings.kills : now_ns() < until)) {
        progress("%zu", times.count + 1);
        nodes_settle(f);
        f->ended = f->last = 0;
        samples_add(&times, round_run(f));
        f->primary = (f->primary + 1) % f->cluster.count; // one that was there all the time can be asked
    }
    failover_close(f);
    return times;
}

// Prints the median; returns the outcome.
static struct outcome median_print(const struct bench *b, struct samples *times) {
    struct outcome o = {.unit = "ms", .floor = (double)NAN, .ratio = (double)NAN};
    o.value = o.p50 = samples_median(times);
    o.p99 = samples_percentile(times, 0.99);
    outcome_print(b, &o);
    samples_free(times);
    return o;
}

void bench_failover_kill(const struct bench *b) {
    struct failover f;
    struct samples times = failovers_run(&f, killed_round);
    struct outcome o = median_print(b, &times);
    o.suffix = ".p99";
    o.value = o.p99;
    outcome_print_judged(b, &o, JUDGE_VALUE, AT_MOST, 100);
}

void bench_failover_silent(const struct bench *b) {
    struct failover f;
    struct samples times = failovers_run(&f, silent_round);
    (void)median_print(b, &times);
}

void bench_handover(const struct bench *b) {
    struct failover f;
    struct samples times = failovers_run(&f, handover_round);
    struct outcome o = median_print(b, &times);
    o.suffix = ".failed";
    o.unit = "commits";
    o.value = (double)f.failed;
    o.p50 = o.p99 = (double)NAN;
    outcome_print_judged(b, &o, JUDGE_VALUE, AT_MOST, 0);
}
