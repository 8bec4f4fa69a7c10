// SPDX-License-Identifier: Apache-2.0
/*
 * engine.c: price-time priority (rules.h) on a Shelf region (records.h).
 *
 * This reads like any matching engine: follow a link, change a field, append a trade. The difference is what a load and
 * a store are: shelf_read() and shelf_write() inside a transaction. Nothing here thinks about crashes. Either the
 * transaction commits, then all that an event did is durable, its place in the input included; or it does not, then
 * nothing of it has happened.
 */
#include "engine.h"

#include <stddef.h>

#include "ladder.h"
#include "try.h"

shelf_result turn_begin(struct turn *turn, const struct store *store, shelf_tx *tx) {
    turn->tx = tx;
    turn->store = store;
    return shelf_read(tx, store->state, &turn->state, sizeof(turn->state));
}

shelf_result turn_end(struct turn *turn) {
    /* All but the origin, which never changes. */
    return shelf_write(turn->tx, turn->store->state, &turn->state, offsetof(struct state, origin));
}

/* ---- Levels: the orders of one price, oldest first ---- */

static shelf_result order_read(struct turn *turn, shelf_addr at, struct order *ret_order) {
    return shelf_read(turn->tx, at, ret_order, sizeof(*ret_order));
}

static shelf_result order_write(struct turn *turn, shelf_addr at, const struct order *order) {
    return shelf_write(turn->tx, at, order, sizeof(*order));
}

static shelf_result link_write(struct turn *turn, shelf_addr order, size_t link_offset, shelf_addr to) {
    return shelf_write(turn->tx, order + link_offset, &to, sizeof(to));
}

/* The level of a price, made if need be. */
static shelf_result level_take(struct turn *turn, uint32_t side, uint32_t price, shelf_addr *ret_at,
                               struct level *ret_level) {
    shelf_addr ladder = turn->state.ladders[side];
    uint32_t found;
    shelf_result result = ladder_seek(turn->tx, ladder, price, LADDER_UP, &found, ret_at);
    if (result == SHELF_OK && found == price)
        return shelf_read(turn->tx, *ret_at, ret_level, sizeof(*ret_level));
    if (result != SHELF_OK && result != SHELF_NOT_FOUND)
        return result;

    *ret_level = (struct level){.price = price};
    TRY(shelf_alloc(turn->tx, turn->store->region, sizeof(struct level), ret_at));
    return ladder_insert(turn->tx, turn->store->region, ladder, price, *ret_at);
}

/* Puts an order at the end of its level. */
static shelf_result order_rest(struct turn *turn, shelf_addr at, struct order *order) {
    struct level level;
    TRY(level_take(turn, order->side, order->price, &order->level, &level));
    order->previous = level.last;
    order->next = SHELF_NULL;
    if (level.last == SHELF_NULL)
        level.first = at;
    else
        TRY(link_write(turn, level.last, offsetof(struct order, next), at));
    level.last = at;
    level.count++;
    level.volume += order->left;
    turn->state.tally.resting++;
    return shelf_write(turn->tx, order->level, &level, sizeof(level));
}

/* Takes an order out of its level, and the level out of the book if that was the last one. */
static shelf_result order_unlink(struct turn *turn, const struct order *order, struct level *level) {
    level->count--;
    level->volume -= order->left;
    turn->state.tally.resting--;
    if (level->count == 0) {
        TRY(ladder_remove(turn->tx, turn->state.ladders[order->side], order->price));
        return shelf_free(turn->tx, order->level);
    }

    if (order->previous == SHELF_NULL)
        level->first = order->next;
    else
        TRY(link_write(turn, order->previous, offsetof(struct order, next), order->next));
    if (order->next == SHELF_NULL)
        level->last = order->previous;
    else
        TRY(link_write(turn, order->next, offsetof(struct order, previous), order->previous));
    return shelf_write(turn->tx, order->level, level, sizeof(*level));
}

/* ---- Trades ---- */

static shelf_result account_change(struct turn *turn, uint64_t order_id, __int128 coins, __int128 money) {
    shelf_addr at = turn->store->accounts + (order_id % ACCOUNTS) * sizeof(struct account);
    struct account account;
    TRY(shelf_read(turn->tx, at, &account, sizeof(account)));
    account.coins += coins;
    account.money += money;
    return shelf_write(turn->tx, at, &account, sizeof(account));
}

static shelf_result trade_record(struct turn *turn, const struct trade *trade) {
    __int128 value = (__int128)trade->volume * trade->price;
    uint64_t buyer = trade->taker_side == SIDE_BID ? trade->taker : trade->maker;
    uint64_t seller = trade->taker_side == SIDE_BID ? trade->maker : trade->taker;

    TRY(account_change(turn, buyer, (__int128)trade->volume, -value));
    TRY(account_change(turn, seller, -(__int128)trade->volume, value));
    turn->state.tally.trades++;
    return shelf_stream_append(turn->tx, turn->store->trades, trade->time_ms, trade, sizeof(*trade), NULL);
}

/* Trades `taker` with the oldest order of a level, once. */
static shelf_result trade_once(struct turn *turn, const struct event *event, shelf_addr level_at,
                               struct order *taker) {
    struct level level;
    struct order maker;
    TRY(shelf_read(turn->tx, level_at, &level, sizeof(level)));
    shelf_addr maker_at = level.first;
    TRY(order_read(turn, maker_at, &maker));

    uint64_t volume = maker.left < taker->left ? maker.left : taker->left;
    taker->left -= volume;
    maker.left -= volume;
    level.volume -= volume;
    TRY(trade_record(turn, &(struct trade){.time_ms = event->time_ms,
                                           .maker = maker.id,
                                           .taker = taker->id,
                                           .volume = volume,
                                           .price = maker.price,
                                           .taker_side = taker->side}));
    if (maker.left > 0) {
        TRY(shelf_write(turn->tx, level_at, &level, sizeof(level)));
    } else {
        TRY(order_unlink(turn, &maker, &level));
        maker.level = maker.previous = maker.next = SHELF_NULL; /* it stays known until it is deleted: R4 */
    }
    return order_write(turn, maker_at, &maker);
}

/* R1: trades `taker` for as long as the other side has an acceptable price. */
static shelf_result order_match(struct turn *turn, const struct event *event, struct order *taker) {
    bool buys = taker->side == SIDE_BID;
    shelf_addr others = turn->state.ladders[buys ? SIDE_ASK : SIDE_BID];

    while (taker->left > 0) {
        shelf_addr best_level;
        uint32_t best_price;
        /* Lowest offer for a buyer, highest bid for a seller. */
        shelf_result result = ladder_seek(turn->tx, others, buys ? 0 : PRICE_MAX,
                                          buys ? LADDER_UP : LADDER_DOWN, &best_price, &best_level);
        if (result == SHELF_NOT_FOUND)
            return SHELF_OK;
        if (result != SHELF_OK)
            return result;
        if (buys ? best_price > taker->price : best_price < taker->price)
            return SHELF_OK;
        TRY(trade_once(turn, event, best_level, taker));
    }
    return SHELF_OK;
}

/* ---- Events ---- */

static shelf_result order_find(struct turn *turn, uint64_t id, shelf_addr *ret_at) {
    size_t size;
    return shelf_map_get(turn->tx, turn->store->orders, &id, sizeof(id), ret_at, sizeof(*ret_at), &size);
}

static shelf_result on_created(struct turn *turn, const struct event *event) {
    struct order order = {.id = event->id,
                          .left = event->volume,
                          .volume = event->volume,
                          .price = event->price,
                          .side = event->side,
                          .time_ms = event->time_ms};
    shelf_addr at;

    shelf_result result = order_find(turn, event->id, &at);
    if (result == SHELF_OK) {
        turn->state.tally.duplicate++;
        return SHELF_OK;
    }
    if (result != SHELF_NOT_FOUND)
        return result;
    turn->state.tally.created++;
    TRY(shelf_alloc(turn->tx, turn->store->region, sizeof(order), &at));
    TRY(shelf_map_put(turn->tx, turn->store->orders, &event->id, sizeof(event->id), &at, sizeof(at)));
    TRY(order_match(turn, event, &order));
    if (order.left > 0)
        TRY(order_rest(turn, at, &order));
    return order_write(turn, at, &order);
}

static shelf_result on_deleted(struct turn *turn, const struct event *event) {
    struct tally *tally = &turn->state.tally;
    struct order order;
    struct level level;
    shelf_addr at;

    shelf_result result = order_find(turn, event->id, &at);
    if (result == SHELF_NOT_FOUND) {
        tally->unknown++;
        return SHELF_OK;
    }
    if (result != SHELF_OK)
        return result;
    TRY(order_read(turn, at, &order));
    if (order.left == 0) {
        tally->already_filled++;
    } else {
        (*(event->volume > 0 ? &tally->cancelled : &tally->filled_elsewhere))++;
        TRY(shelf_read(turn->tx, order.level, &level, sizeof(level)));
        TRY(order_unlink(turn, &order, &level));
    }
    TRY(shelf_map_delete(turn->tx, turn->store->orders, &event->id, sizeof(event->id)));
    return shelf_free(turn->tx, at);
}

shelf_result turn_apply(struct turn *turn, const struct event *event) {
    turn->state.position++; /* I4: in the same transaction as the effects */
    switch (event->action) {
    case EVENT_CREATED:
        return on_created(turn, event);
    case EVENT_DELETED:
        return on_deleted(turn, event);
    default:
        turn->state.tally.changed++; /* R2 */
        return SHELF_OK;
    }
}
