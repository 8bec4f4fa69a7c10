// SPDX-License-Identifier: Apache-2.0
//
// The rules of the exchange (rules.h), one by one, on the plain engine, which everything else is compared with.

#include "exchange/plain.h"

#include <stdlib.h>
#include <string.h>

#include "cmocka_program.h"
#include "exchange/flow.h"

#define COIN UINT64_C(100000000)

static void order_create(struct plain *plain, uint64_t id, enum side side, uint32_t price, uint64_t volume) {
    plain_apply(plain, &(struct event){.id = id,
                                       .time_ms = 1000 + id,
                                       .volume = volume,
                                       .price = price,
                                       .action = EVENT_CREATED,
                                       .side = (uint8_t)side});
}

static void order_delete(struct plain *plain, uint64_t id, uint64_t volume) {
    plain_apply(plain, &(struct event){.id = id,
                                       .time_ms = 5000,
                                       .volume = volume,
                                       .price = 1,
                                       .action = EVENT_DELETED,
                                       .side = SIDE_BID});
}

static void trade_is(const struct plain *plain, size_t number, uint64_t maker, uint64_t taker, uint32_t price,
                     uint64_t volume, enum side taker_side) {
    assert_true(number < plain->trade_count);
    const struct trade *trade = &plain->trades[number];
    assert_int_equal(trade->maker, maker);
    assert_int_equal(trade->taker, taker);
    assert_int_equal(trade->price, price);
    assert_int_equal(trade->volume, volume);
    assert_int_equal(trade->taker_side, taker_side);
    assert_int_equal(trade->time_ms, 1000 + taker);
}

// The order that would trade `behind` others of its side.
static const struct plain_order *standing(const struct plain *plain, enum side side, size_t behind) {
    const struct plain_side *orders = &plain->sides[side];
    assert_true(behind < orders->count);
    return orders->orders[orders->count - 1 - behind];
}

static int setup(void **state) {
    struct plain *plain = malloc(sizeof(*plain));
    if (!plain)
        return -1;
    plain_init(plain);
    *state = plain;
    return 0;
}

static int teardown(void **state) {
    plain_free(*state);
    free(*state);
    return 0;
}

static void test_plain_orders_rest_best_first(void **state) {
    struct plain *plain = *state;
    order_create(plain, 1, SIDE_BID, 100, COIN);
    order_create(plain, 2, SIDE_BID, 102, COIN);
    order_create(plain, 3, SIDE_BID, 101, COIN);
    order_create(plain, 4, SIDE_ASK, 110, COIN);
    order_create(plain, 5, SIDE_ASK, 108, COIN);
    order_create(plain, 6, SIDE_ASK, 109, COIN);
    assert_int_equal(plain->trade_count, 0);
    assert_int_equal(plain->tally.resting, 6);
    assert_int_equal(standing(plain, SIDE_BID, 0)->id, 2);
    assert_int_equal(standing(plain, SIDE_BID, 1)->id, 3);
    assert_int_equal(standing(plain, SIDE_BID, 2)->id, 1);
    assert_int_equal(standing(plain, SIDE_ASK, 0)->id, 5);
    assert_int_equal(standing(plain, SIDE_ASK, 1)->id, 6);
    assert_int_equal(standing(plain, SIDE_ASK, 2)->id, 4);
}

static void test_plain_trades_best_price_then_oldest(void **state) {
    struct plain *plain = *state;
    order_create(plain, 1, SIDE_ASK, 110, 1 * COIN);
    order_create(plain, 2, SIDE_ASK, 108, 2 * COIN);
    order_create(plain, 3, SIDE_ASK, 108, 3 * COIN);
    order_create(plain, 4, SIDE_BID, 110, 6 * COIN + 5);
    assert_int_equal(plain->trade_count, 3);
    trade_is(plain, 0, 2, 4, 108, 2 * COIN, SIDE_BID);
    trade_is(plain, 1, 3, 4, 108, 3 * COIN, SIDE_BID);
    trade_is(plain, 2, 1, 4, 110, 1 * COIN, SIDE_BID);
    assert_int_equal(plain->tally.resting, 1);
    assert_int_equal(standing(plain, SIDE_BID, 0)->left, 5);
}

static void test_plain_partly_filled_order_keeps_its_place(void **state) {
    struct plain *plain = *state;
    order_create(plain, 1, SIDE_BID, 100, 3 * COIN);
    order_create(plain, 2, SIDE_BID, 100, 3 * COIN);
    order_create(plain, 3, SIDE_ASK, 90, COIN);
    order_create(plain, 4, SIDE_ASK, 100, 3 * COIN);
    assert_int_equal(plain->trade_count, 3);
    trade_is(plain, 0, 1, 3, 100, COIN, SIDE_ASK); // at the resting order's price, not at 90
    trade_is(plain, 1, 1, 4, 100, 2 * COIN, SIDE_ASK);
    trade_is(plain, 2, 2, 4, 100, COIN, SIDE_ASK);
    assert_int_equal(standing(plain, SIDE_BID, 0)->id, 2);
    assert_int_equal(standing(plain, SIDE_BID, 0)->left, 2 * COIN);
}

static void test_plain_price_out_of_reach_does_not_trade(void **state) {
    struct plain *plain = *state;
    order_create(plain, 1, SIDE_ASK, 101, COIN);
    order_create(plain, 2, SIDE_BID, 100, COIN);
    order_create(plain, 3, SIDE_ASK, 102, COIN);
    assert_int_equal(plain->trade_count, 0);
}

static void test_plain_delete_cancels(void **state) {
    struct plain *plain = *state;
    order_create(plain, 1, SIDE_BID, 100, COIN);
    order_create(plain, 2, SIDE_BID, 100, COIN);
    order_delete(plain, 1, COIN);
    order_create(plain, 3, SIDE_ASK, 100, COIN);
    trade_is(plain, 0, 2, 3, 100, COIN, SIDE_ASK);
    assert_int_equal(plain->tally.cancelled, 1);
    assert_int_equal(plain->tally.resting, 0);
}

static void test_plain_delete_outcomes(void **state) {
    struct plain *plain = *state;
    order_create(plain, 1, SIDE_BID, 100, COIN);
    order_create(plain, 2, SIDE_ASK, 100, COIN); // fills both
    order_delete(plain, 1, 0);
    assert_int_equal(plain->tally.already_filled, 1);
    order_delete(plain, 1, 0); // forgotten by now
    assert_int_equal(plain->tally.unknown, 1);
    order_delete(plain, 99, COIN);
    assert_int_equal(plain->tally.unknown, 2);
    order_create(plain, 3, SIDE_BID, 100, COIN);
    order_delete(plain, 3, 0); // filled over there, resting here
    assert_int_equal(plain->tally.filled_elsewhere, 1);
    assert_int_equal(plain->tally.resting, 0);
    assert_int_equal(plain->tally.cancelled, 0);
}

static void test_plain_changed_is_ignored_and_duplicates_counted(void **state) {
    struct plain *plain = *state;
    order_create(plain, 1, SIDE_BID, 100, COIN);
    plain_apply(plain, &(struct event){.id = 1, .volume = 5, .price = 100, .action = EVENT_CHANGED});
    assert_int_equal(plain->tally.changed, 1);
    assert_int_equal(standing(plain, SIDE_BID, 0)->left, COIN);
    order_create(plain, 1, SIDE_ASK, 50, COIN);
    assert_int_equal(plain->tally.duplicate, 1);
    assert_int_equal(plain->trade_count, 0);
    order_delete(plain, 1, COIN);
    order_create(plain, 1, SIDE_ASK, 50, COIN); // the id is free again
    assert_int_equal(plain->tally.duplicate, 1);
    assert_int_equal(plain->tally.resting, 1);
}

static void test_plain_trade_moves_coins_and_money(void **state) {
    struct plain *plain = *state;
    order_create(plain, 3, SIDE_ASK, 12345, 7);
    order_create(plain, 5, SIDE_BID, 12345, 7);
    assert_true(plain->accounts[3].coins == ENDOWMENT_COINS - 7);
    assert_true(plain->accounts[5].coins == ENDOWMENT_COINS + 7);
    assert_true(plain->accounts[3].money == ENDOWMENT_MONEY + 7 * 12345);
    assert_true(plain->accounts[5].money == ENDOWMENT_MONEY - 7 * 12345);
    // An account that trades with itself neither wins nor loses.
    order_create(plain, 9, SIDE_ASK, 1, 7);
    order_create(plain, 9 + ACCOUNTS, SIDE_BID, 1, 7);
    assert_int_equal(plain->trade_count, 2);
    assert_true(plain->accounts[9].coins == ENDOWMENT_COINS);
    assert_true(plain->accounts[9].money == ENDOWMENT_MONEY);
}

static void sums_check(const struct plain *plain) {
    __int128 coins = 0, money = 0;
    for (size_t i = 0; i < ACCOUNTS; i++) {
        coins += plain->accounts[i].coins;
        money += plain->accounts[i].money;
    }
    assert_true(coins == ENDOWMENT_COINS * ACCOUNTS);
    assert_true(money == ENDOWMENT_MONEY * ACCOUNTS);
}

static void test_plain_flow_keeps_invariants(void **state) {
    struct plain *plain = *state;
    struct flow *flow = malloc(sizeof(*flow));
    assert_non_null(flow);
    flow_init(flow, 11);
    for (int i = 1; i <= 50000; i++) {
        struct event event;
        flow_next(flow, &event);
        plain_apply(plain, &event);
        if (plain->sides[SIDE_BID].count && plain->sides[SIDE_ASK].count)
            assert_true(standing(plain, SIDE_BID, 0)->price < standing(plain, SIDE_ASK, 0)->price);
        const struct tally *t = &plain->tally;
        assert_int_equal(i, t->created + t->changed + t->cancelled + t->filled_elsewhere + t->already_filled +
                                t->unknown + t->duplicate);
    }
    sums_check(plain);
    assert_true(plain->tally.trades > 1000 && plain->tally.cancelled > 1000 &&
                plain->tally.already_filled > 1000);
    assert_true(plain->tally.unknown > 0 && plain->tally.duplicate > 0 && plain->tally.filled_elsewhere > 0);
    free(flow);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_plain_orders_rest_best_first),
        TEST(test_plain_trades_best_price_then_oldest),
        TEST(test_plain_partly_filled_order_keeps_its_place),
        TEST(test_plain_price_out_of_reach_does_not_trade),
        TEST(test_plain_delete_cancels),
        TEST(test_plain_delete_outcomes),
        TEST(test_plain_changed_is_ignored_and_duplicates_counted),
        TEST(test_plain_trade_moves_coins_and_money),
        TEST(test_plain_flow_keeps_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
