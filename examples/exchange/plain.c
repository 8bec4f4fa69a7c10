// SPDX-License-Identifier: Apache-2.0
/*
 * plain.c: the same rules (rules.h) once more, with nothing in common with engine.c.
 *
 * Each side of the book is one array of orders, sorted by price and age: no price levels, no lists, no running totals
 * that could be wrong in the same way.
 */
#include "plain.h"

#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *memory) {
    if (!memory) {
        fputs("exchange: no memory for the check\n", stderr);
        exit(4);
    }
    return memory;
}

static int id_compare(const void *a, const void *b) {
    uint64_t x = ((const struct plain_order *)a)->id, y = ((const struct plain_order *)b)->id;
    return (x > y) - (x < y);
}

void plain_init(struct plain *plain) {
    memset(plain, 0, sizeof(*plain));
    for (size_t i = 0; i < ACCOUNTS; i++)
        plain->accounts[i] = (struct account){.coins = ENDOWMENT_COINS, .money = ENDOWMENT_MONEY};
}

void plain_free(struct plain *plain) {
    tdestroy(plain->by_id, free);
    free(plain->sides[SIDE_BID].orders);
    free(plain->sides[SIDE_ASK].orders);
    free(plain->trades);
}

/* Does `a` stand behind `b`, that is, trade only after it? */
static bool is_worse(const struct plain_order *a, const struct plain_order *b) {
    if (a->price != b->price)
        return (a->side == SIDE_BID) == (a->price < b->price);
    return a->arrival > b->arrival;
}

/* Where `order` stands or would stand: behind it are exactly the orders that are worse. */
static size_t side_place(const struct plain_side *side, const struct plain_order *order) {
    size_t low = 0, high = side->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (is_worse(side->orders[middle], order))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void side_insert(struct plain_side *side, struct plain_order *order) {
    size_t place = side_place(side, order);
    if (side->count == side->room) {
        side->room = side->room ? side->room * 2 : 256;
        side->orders = must(realloc(side->orders, side->room * sizeof(struct plain_order *)));
    }
    memmove(&side->orders[place + 1], &side->orders[place],
            (side->count - place) * sizeof(struct plain_order *));
    side->orders[place] = order;
    side->count++;
}

static void side_remove(struct plain_side *side, const struct plain_order *order) {
    size_t place = side_place(side, order);
    side->count--;
    memmove(&side->orders[place], &side->orders[place + 1],
            (side->count - place) * sizeof(struct plain_order *));
}

static void trade_make(struct plain *plain, const struct event *event, struct plain_order *maker,
                       struct plain_order *taker) {
    uint64_t volume = maker->left < taker->left ? maker->left : taker->left;
    struct account *buyer = &plain->accounts[(taker->side == SIDE_BID ? taker : maker)->id % ACCOUNTS];
    struct account *seller = &plain->accounts[(taker->side == SIDE_BID ? maker : taker)->id % ACCOUNTS];

    maker->left -= volume;
    taker->left -= volume;
    buyer->coins += volume;
    seller->coins -= volume;
    buyer->money -= (__int128)volume * maker->price;
    seller->money += (__int128)volume * maker->price;

    if (plain->trade_count == plain->trade_room) {
        plain->trade_room = plain->trade_room ? plain->trade_room * 2 : 1024;
        plain->trades = must(realloc(plain->trades, plain->trade_room * sizeof(struct trade)));
    }
    plain->trades[plain->trade_count++] = (struct trade){.time_ms = event->time_ms,
                                                         .maker = maker->id,
                                                         .taker = taker->id,
                                                         .volume = volume,
                                                         .price = maker->price,
                                                         .taker_side = taker->side};
    plain->tally.trades++;
}

static void on_created(struct plain *plain, const struct event *event, struct plain_order *known) {
    if (known) {
        plain->tally.duplicate++;
        return;
    }
    plain->tally.created++;

    struct plain_order *order = must(calloc(1, sizeof(*order)));
    order->id = event->id;
    order->arrival = plain->arrivals;
    order->left = event->volume;
    order->price = event->price;
    order->side = event->side;
    must(tsearch(order, &plain->by_id, id_compare));

    struct plain_side *others = &plain->sides[order->side == SIDE_BID ? SIDE_ASK : SIDE_BID];
    while (order->left > 0 && others->count > 0) {
        struct plain_order *best = others->orders[others->count - 1];
        bool agreed = order->side == SIDE_BID ? best->price <= order->price : best->price >= order->price;
        if (!agreed)
            break;
        trade_make(plain, event, best, order);
        if (best->left == 0)
            others->count--;
    }
    if (order->left > 0)
        side_insert(&plain->sides[order->side], order);
}

static void on_deleted(struct plain *plain, const struct event *event, struct plain_order *known) {
    if (!known) {
        plain->tally.unknown++;
        return;
    }
    if (known->left == 0) {
        plain->tally.already_filled++;
    } else {
        side_remove(&plain->sides[known->side], known);
        if (event->volume > 0)
            plain->tally.cancelled++;
        else
            plain->tally.filled_elsewhere++;
    }
    tdelete(known, &plain->by_id, id_compare);
    free(known);
}

void plain_apply(struct plain *plain, const struct event *event) {
    struct plain_order wanted = {.id = event->id};
    struct plain_order **found = tfind(&wanted, &plain->by_id, id_compare);

    plain->arrivals++;
    if (event->action == EVENT_CREATED)
        on_created(plain, event, found ? *found : NULL);
    else if (event->action == EVENT_DELETED)
        on_deleted(plain, event, found ? *found : NULL);
    else
        plain->tally.changed++;
    plain->tally.resting = plain->sides[SIDE_BID].count + plain->sides[SIDE_ASK].count;
}
