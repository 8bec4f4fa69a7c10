// SPDX-License-Identifier: Apache-2.0
// map.c: lookups of random keys in 1,000,000 records, all in memory, one thread.
//
// Shelf reads GETS_A_TX keys in a read-only transaction and copies the values out. The peers look up a whole round in
// one read transaction, and leave the value where it is where their interface can; both loads of value_digest() are
// made from each value on both sides.
#include "bench.h"

#include <stdlib.h>

enum { GETS_A_TX = 64 };
static const size_t gets_a_round = (size_t)GETS_A_TX * 2048;
static const size_t gets_drawn = (size_t)GETS_A_TX * 2048 * 8;

struct gets {
    shelf *s;
    shelf_map map;
    const struct peer *peer;
    void *database;
    struct lookups lookups;
    uint64_t digest_ours, digest_peer;
};

static const struct key *round_keys(const struct gets *g, size_t round) {
    return g->lookups.keys + round % (gets_drawn / gets_a_round) * gets_a_round;
}

static uint64_t get_single(struct gets *g, const struct key *keys) {
    uint64_t digest = 0;
    unsigned char value[VALUE_SIZE];
    for (size_t at = 0; at < gets_a_round; at += GETS_A_TX) {
        shelf_tx *tx;
        must(shelf_begin(g->s, SHELF_READ_ONLY, &tx), "shelf_begin");
        for (size_t i = at; i < at + GETS_A_TX; i++) {
            size_t size;
            shelf_result result = shelf_map_get(tx, g->map, &keys[i], KEY_SIZE, value, sizeof(value), &size);
            if (result != SHELF_OK)
                must(result, "shelf_map_get");
            digest += value_digest(value, size);
        }
        must(shelf_commit(tx, NULL), "shelf_commit");
    }
    return digest;
}

static uint64_t get_many(struct gets *g, const struct key *keys) {
    uint64_t digest = 0;
    static unsigned char values[GETS_A_TX][VALUE_SIZE];
    static struct shelf_map_item items[GETS_A_TX];
    for (size_t at = 0; at < gets_a_round; at += GETS_A_TX) {
        shelf_tx *tx;
        must(shelf_begin(g->s, SHELF_READ_ONLY, &tx), "shelf_begin");
        for (size_t i = 0; i < GETS_A_TX; i++)
            items[i] = (struct shelf_map_item){
                .key = &keys[at + i], .key_size = KEY_SIZE, .value = values[i], .value_max = VALUE_SIZE};
        must(shelf_map_get_many(tx, g->map, items, GETS_A_TX), "shelf_map_get_many");
        for (size_t i = 0; i < GETS_A_TX; i++) {
            if (items[i].result != SHELF_OK)
                must(items[i].result, "shelf_map_get_many");
            digest += value_digest(items[i].value, items[i].value_size);
        }
        must(shelf_commit(tx, NULL), "shelf_commit");
    }
    return digest;
}

static double rate_since(uint64_t start) {
    return (double)gets_a_round / ((double)(now_ns() - start) / 1e9);
}

static double side_single(void *context, size_t round) {
    struct gets *g = context;
    uint64_t start = now_ns();
    g->digest_ours += get_single(g, round_keys(g, round));
    return rate_since(start);
}

static double side_many(void *context, size_t round) {
    struct gets *g = context;
    uint64_t start = now_ns();
    g->digest_ours += get_many(g, round_keys(g, round));
    return rate_since(start);
}

static double side_peer(void *context, size_t round) {
    struct gets *g = context;
    uint64_t start = now_ns();
    g->digest_peer += g->peer->get(g->database, round_keys(g, round), gets_a_round);
    return rate_since(start);
}

static bool map_is_huge(shelf *s, shelf_map map) {
    shelf_tx *tx;
    const void *bytes;
    must(shelf_begin(s, SHELF_READ_ONLY, &tx), "shelf_begin");
    must(shelf_view(tx, map.header, 8, &bytes), "shelf_view");
    bool huge = memory_is_huge(bytes);
    must(shelf_commit(tx, NULL), "shelf_commit");
    return huge;
}

static void gets_bench(const struct bench *b, side ours) {
    const struct records records = {RECORD_COUNT, VALUE_SIZE};
    struct gets g = {.peer = b->peer};
    struct rounds rounds;
    struct server server;
    g.s = ours_make(b, &server);
    g.map = ours_map_load(g.s, &records);
    settings.image_is_huge = map_is_huge(g.s, g.map);
    progress("loading %s", g.peer->name);
    g.database = g.peer->open(&records);
    g.lookups = lookups_make(&records, gets_drawn, 1);

    rounds_run(&rounds, ours, side_peer, &g);
    if (g.digest_ours != g.digest_peer)
        fail("Shelf and %s found different values", g.peer->name);
    struct outcome o = rounds_outcome(&rounds, "gets/s");
    outcome_print(b, &o);

    rounds_free(&rounds);
    free(g.lookups.keys);
    g.peer->close(g.database);
    ours_end(b, &server, g.s);
}

void bench_map_get(const struct bench *b) {
    gets_bench(b, side_single);
}

void bench_map_get_many(const struct bench *b) {
    gets_bench(b, side_many);
}
