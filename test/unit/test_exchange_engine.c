// SPDX-License-Identifier: Apache-2.0
//
// The engine on Shelf against the plain one, on made-up flows; the ladder against a sorted array; and that the comparison
// notices when something is wrong.

#include "exchange/engine.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmocka_program.h"
#include "exchange/compare.h"
#include "exchange/flow.h"
#include "exchange/input.h"
#include "exchange/ladder.h"

struct fixture {
    char path[64];
    char where[80];
    struct origin origin;
    struct store store;
    struct plain plain;
    struct flow flow;
};

#define OK(call) result_require((call), #call)

static void result_require(shelf_result result, const char *call) {
    if (result != SHELF_OK)
        print_error("%s: %s: %s\n", call, shelf_result_name(result), shelf_detail());
    assert_int_equal(result, SHELF_OK);
}

static int setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    if (!fixture)
        return -1;
    const char *parent = getenv("TMPDIR");
    snprintf(fixture->path, sizeof(fixture->path), "%.40s/shelf-exchange.XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(fixture->path)) {
        free(fixture);
        return -1;
    }
    snprintf(fixture->where, sizeof(fixture->where), "dir:%s", fixture->path);
    fixture->origin = (struct origin){.kind = ORIGIN_FLOW, .flow_version = FLOW_VERSION, .seed = 1};
    plain_init(&fixture->plain);
    flow_init(&fixture->flow, 1);
    *state = fixture;
    return store_open(fixture->where, &fixture->origin, &fixture->store) == SHELF_OK ? 0 : -1;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    char command[128];
    int status = fixture->store.s ? (int)store_close(&fixture->store) : 0;
    plain_free(&fixture->plain);
    snprintf(command, sizeof(command), "rm -rf '%s'", fixture->path);
    status |= system(command);
    free(fixture);
    return status;
}

// `count` events of the flow through both engines, `batch` a transaction.
static void events_run(struct fixture *fixture, size_t count, size_t batch) {
    while (count > 0) {
        struct turn turn;
        shelf_tx *tx;
        size_t part = count < batch ? count : batch;
        OK(shelf_begin(fixture->store.s, SHELF_READ_WRITE, &tx));
        OK(turn_begin(&turn, &fixture->store, tx));
        for (size_t i = 0; i < part; i++) {
            struct event event;
            flow_next(&fixture->flow, &event);
            plain_apply(&fixture->plain, &event);
            OK(turn_apply(&turn, &event));
        }
        OK(turn_end(&turn));
        OK(shelf_commit(tx, NULL));
        count -= part;
    }
}

static struct findings compared(struct fixture *fixture) {
    struct findings findings = {.good = true};
    OK(exchange_compare(&fixture->store, &fixture->plain, &findings));
    return findings;
}

static void same_require(struct fixture *fixture) {
    struct findings findings = compared(fixture);
    for (unsigned i = 0; i < findings.count; i++) {
        if (!findings.list[i].good)
            print_error("%s: %s\n", findings.list[i].name, findings.list[i].detail);
    }
    assert_true(findings.good);
    assert_int_equal(findings.count, 6);
}

static void reopen(struct fixture *fixture) {
    OK(store_close(&fixture->store));
    OK(store_open(fixture->where, &fixture->origin, &fixture->store));
}

static void test_engine_equals_plain_event_by_event(void **state) {
    struct fixture *fixture = *state;
    for (int i = 0; i < 10; i++) {
        events_run(fixture, 60, 1);
        same_require(fixture);
    }
    assert_true(fixture->plain.tally.trades > 10);
}

static void test_engine_equals_plain_in_batches(void **state) {
    struct fixture *fixture = *state;
    static const size_t batches[] = {2, 7, 100, 1000, 4000};
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        events_run(fixture, 4 * batches[i], batches[i]);
        same_require(fixture);
    }
}

static void test_engine_goes_on_after_reopening(void **state) {
    struct fixture *fixture = *state;
    for (int i = 0; i < 4; i++) {
        events_run(fixture, 2000, 50);
        reopen(fixture);
        same_require(fixture);
    }
    struct state now;
    OK(store_state(&fixture->store, &now));
    assert_int_equal(now.position, 8000);
    assert_true(origin_equal(&now.origin, &fixture->origin));
}

// What a transaction that was given up has done is nothing.
static void test_engine_abort_leaves_nothing(void **state) {
    struct fixture *fixture = *state;
    events_run(fixture, 1000, 100);
    struct flow ahead = fixture->flow;
    struct turn turn;
    shelf_tx *tx;
    OK(shelf_begin(fixture->store.s, SHELF_READ_WRITE, &tx));
    OK(turn_begin(&turn, &fixture->store, tx));
    for (int i = 0; i < 500; i++) {
        struct event event;
        flow_next(&ahead, &event);
        OK(turn_apply(&turn, &event));
    }
    OK(turn_end(&turn));
    shelf_abort(tx);
    same_require(fixture);
    events_run(fixture, 1000, 100);
    same_require(fixture);
}

// The region is made twice as large under the engine's feet.
static void test_engine_goes_on_in_a_larger_region(void **state) {
    struct fixture *fixture = *state;
    struct shelf_region_info before, after;
    events_run(fixture, 1000, 100);
    OK(shelf_region_info_get(fixture->store.s, fixture->store.region, &before));
    OK(store_grow(&fixture->store));
    OK(shelf_region_info_get(fixture->store.s, fixture->store.region, &after));
    assert_int_equal(after.size, before.size * 2);
    events_run(fixture, 1000, 100);
    same_require(fixture);
}

// ---- The comparison finds what is wrong ----

static void bytes_change(struct fixture *fixture, shelf_addr at, unsigned char flip) {
    unsigned char byte;
    shelf_tx *tx;
    OK(shelf_begin(fixture->store.s, SHELF_READ_WRITE, &tx));
    OK(shelf_read(tx, at, &byte, 1));
    byte ^= flip;
    OK(shelf_write(tx, at, &byte, 1));
    OK(shelf_commit(tx, NULL));
}

// Flips a bit, sees that this finding and no other reports it, and flips it back.
static void difference_require(struct fixture *fixture, shelf_addr at, const char *name) {
    bytes_change(fixture, at, 1);
    struct findings findings = compared(fixture);
    assert_false(findings.good);
    for (unsigned i = 0; i < findings.count; i++) {
        bool expected = strcmp(findings.list[i].name, name) != 0;
        if (findings.list[i].good != expected && strcmp(findings.list[i].name, "conservation") != 0)
            fail_msg("%s: %s", findings.list[i].name, findings.list[i].detail);
    }
    bytes_change(fixture, at, 1);
    same_require(fixture);
}

static void best_level(struct fixture *fixture, shelf_addr *ret_at, struct level *ret_level) {
    struct state now;
    uint32_t price;
    shelf_tx *tx;
    OK(store_state(&fixture->store, &now));
    OK(shelf_begin(fixture->store.s, SHELF_READ_ONLY, &tx));
    OK(ladder_seek(tx, now.ladders[SIDE_BID], PRICE_MAX, LADDER_DOWN, &price, ret_at));
    OK(shelf_read(tx, *ret_at, ret_level, sizeof(*ret_level)));
    assert_int_equal(ret_level->price, price);
    shelf_abort(tx);
}

static void test_compare_finds_differences(void **state) {
    struct fixture *fixture = *state;
    shelf_addr level_at;
    struct level level;
    events_run(fixture, 3000, 100);
    same_require(fixture);
    best_level(fixture, &level_at, &level);
    difference_require(fixture, level_at + offsetof(struct level, volume), "book");
    difference_require(fixture, level_at + offsetof(struct level, count), "book");
    difference_require(fixture, level.first + offsetof(struct order, left), "book");
    difference_require(fixture, level.first + offsetof(struct order, id), "book");
    difference_require(fixture, fixture->store.accounts, "balances");
    difference_require(fixture, fixture->store.accounts + offsetof(struct account, money), "balances");
    difference_require(fixture, fixture->store.state + offsetof(struct state, tally.changed), "events");

    // And a trade that only one of the two has.
    fixture->plain.trades[5].volume++;
    assert_false(compared(fixture).good);
    fixture->plain.trades[5].volume--;
    fixture->plain.trade_count--;
    assert_false(compared(fixture).good);
    fixture->plain.trade_count++;
    same_require(fixture);
}

// A program with other structs is told, and changes nothing.
static void test_store_of_another_layout_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct shelf_root root = {
        .type = TYPE_STATE, .layout = layout_state() + 2, .address = fixture->store.state};
    struct store store;
    shelf_tx *tx;
    snprintf(root.name, sizeof(root.name), "%s", ROOT_STATE);
    OK(shelf_begin(fixture->store.s, SHELF_READ_WRITE, &tx));
    OK(shelf_root_set(tx, fixture->store.region, &root));
    OK(shelf_commit(tx, NULL));
    OK(store_close(&fixture->store));
    assert_int_equal(store_open(fixture->where, &fixture->origin, &store), SHELF_LAYOUT);
    assert_int_equal(store_open(fixture->where, NULL, &store), SHELF_LAYOUT);
}

// A crash between the making of the region and its first transaction.
static void test_store_fills_a_blank_region(void **state) {
    struct fixture *fixture = *state;
    struct store store;
    OK(shelf_region_drop(fixture->store.s, REGION_NAME));
    OK(shelf_region_create(fixture->store.s, REGION_NAME, 1 << 20, 0, &fixture->store.region));
    OK(store_close(&fixture->store));
    assert_int_equal(store_open(fixture->where, NULL, &store), SHELF_INVALID);
    OK(store_open(fixture->where, &fixture->origin, &fixture->store));
    events_run(fixture, 200, 10);
    same_require(fixture);
}

// ---- The ladder ----

#define ENTRIES 300u

struct sorted { // the reference: prices in order; the level of a price is the price plus one
    uint32_t prices[ENTRIES];
    size_t count;
};

static size_t sorted_place(const struct sorted *sorted, uint32_t price) {
    size_t place = 0;
    while (place < sorted->count && sorted->prices[place] < price)
        place++;
    return place;
}

static bool sorted_has(const struct sorted *sorted, uint32_t price) {
    size_t place = sorted_place(sorted, price);
    return place < sorted->count && sorted->prices[place] == price;
}

static void sorted_toggle(struct sorted *sorted, uint32_t price) {
    size_t place = sorted_place(sorted, price);
    uint32_t *at = &sorted->prices[place];
    if (sorted_has(sorted, price)) {
        memmove(at, at + 1, (--sorted->count - place) * sizeof(*at));
    } else {
        memmove(at + 1, at, (sorted->count++ - place) * sizeof(*at));
        *at = price;
    }
}

static void seek_require(shelf_tx *tx, shelf_addr ladder, const struct sorted *sorted, uint32_t price) {
    uint32_t found;
    shelf_addr level;
    size_t place = sorted_place(sorted, price);
    shelf_result result = ladder_seek(tx, ladder, price, LADDER_UP, &found, &level);
    assert_int_equal(result, place < sorted->count ? SHELF_OK : SHELF_NOT_FOUND);
    if (result == SHELF_OK) {
        assert_int_equal(found, sorted->prices[place]);
        assert_int_equal(level, (shelf_addr)found + 1);
    }
    place += sorted_has(sorted, price);
    result = ladder_seek(tx, ladder, price, LADDER_DOWN, &found, &level);
    assert_int_equal(result, place > 0 ? SHELF_OK : SHELF_NOT_FOUND);
    if (result == SHELF_OK) {
        assert_int_equal(found, sorted->prices[place - 1]);
        assert_int_equal(level, (shelf_addr)found + 1);
    }
}

// Prices in a few clusters, at both ends of the range, and anywhere.
static uint32_t random_price(uint64_t *random) {
    *random = *random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint32_t bits = (uint32_t)(*random >> 33);
    switch (bits % 5) {
    case 0:
        return bits / 5 % 40;
    case 1:
        return PRICE_MAX - bits / 5 % 40;
    case 2:
        return bits / 5 % (PRICE_MAX + 1);
    default:
        return 23500 + bits / 5 % 200;
    }
}

static void test_ladder_equals_sorted_array(void **state) {
    struct fixture *fixture = *state;
    struct sorted sorted = {0};
    struct shelf_alloc_sums before, after;
    uint64_t random = 7;
    shelf_addr ladder;
    shelf_tx *tx;

    OK(shelf_begin(fixture->store.s, SHELF_READ_WRITE, &tx));
    OK(ladder_create(tx, fixture->store.region, &ladder));
    OK(shelf_alloc_audit(tx, fixture->store.region, &before));
    for (int i = 0; i < 6000; i++) {
        uint32_t price = random_price(&random);
        if (sorted_has(&sorted, price))
            OK(ladder_remove(tx, ladder, price));
        else if (sorted.count < ENTRIES)
            OK(ladder_insert(tx, fixture->store.region, ladder, price, (shelf_addr)price + 1));
        else
            continue;
        sorted_toggle(&sorted, price);
        seek_require(tx, ladder, &sorted, price);
        seek_require(tx, ladder, &sorted, random_price(&random));
        seek_require(tx, ladder, &sorted, 0);
        seek_require(tx, ladder, &sorted, PRICE_MAX);
    }
    assert_true(sorted.count > 100);
    // An empty ladder gives all its nodes back.
    while (sorted.count > 0) {
        OK(ladder_remove(tx, ladder, sorted.prices[sorted.count / 2]));
        sorted_toggle(&sorted, sorted.prices[sorted.count / 2]);
    }
    seek_require(tx, ladder, &sorted, 5);
    OK(shelf_alloc_audit(tx, fixture->store.region, &after));
    assert_int_equal(after.blocks_live, before.blocks_live);
    shelf_abort(tx);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_ladder_equals_sorted_array),     TEST(test_engine_equals_plain_event_by_event),
        TEST(test_engine_equals_plain_in_batches), TEST(test_engine_goes_on_after_reopening),
        TEST(test_engine_abort_leaves_nothing),    TEST(test_engine_goes_on_in_a_larger_region),
        TEST(test_compare_finds_differences),      TEST(test_store_of_another_layout_is_refused),
        TEST(test_store_fills_a_blank_region),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
