// SPDX-License-Identifier: Apache-2.0
/*
 * rules.h: what this exchange does, in words, and the few types that everything in it shares.
 *
 * There are two engines that follow these rules: engine.c, whose state lives in a Shelf region, and plain.c, which keeps
 * everything in ordinary memory and exists only so that `exchange check` can compare the two. They share this file and
 * no code.
 *
 *   R1  A *created* event is a limit order: buy (bid) or sell (ask) up to `volume` at `price` or better. It trades at
 *       once with the resting orders of the other side, best price first, at one price the oldest first, each trade at
 *       the resting order's price. What is left over rests in the book.
 *   R2  A *changed* event has no effect: on the exchange that the events come from it reports a partial fill, and here
 *       fills follow from R1.
 *   R3  A *deleted* event takes the order out of the book. With volume left it was a cancel. With volume 0 the order
 *       was filled over there; if some of it still rests here (we started with an empty book, so whoever filled it may
 *       be missing) the rest is taken out too, because the order's owner does not have it any more. The two are
 *       counted apart: cancelled, filled_elsewhere.
 *   R4  An order that was filled here is remembered until its deleted event comes, which is counted as already_filled.
 *       A deleted event for an id that is not remembered is counted as unknown, a created event for an id that is, as
 *       duplicate; both are without effect. Nothing in a well-formed input is fatal.
 *   R5  Account `id mod ACCOUNTS` owns order `id`. Every account starts with the same endowment. A trade moves coins
 *       from seller to buyer and money from buyer to seller, so their sums over all accounts never change. Credit is
 *       unlimited (balances may be negative), and an account may trade with itself.
 *   R6  All numbers are integers: prices in cents, volumes in 10^-8 coins, money in 10^-8 cents, so that price times
 *       volume is exact and nothing is ever rounded.
 */
#ifndef EXCHANGE_RULES_H
#define EXCHANGE_RULES_H

#include <stdint.h>

enum event_action { EVENT_CREATED, EVENT_CHANGED, EVENT_DELETED };
enum side { SIDE_BID, SIDE_ASK };

#define PRICE_MAX  ((1u << 30) - 1)           /* cents; what a price ladder (ladder.h) can hold */
#define VOLUME_MAX UINT64_C(1000000000000000) /* ten million coins */

struct event {
    uint64_t id;      /* of the order, not 0 */
    uint64_t time_ms; /* since 1970 */
    uint64_t volume;
    uint32_t price;
    uint8_t action; /* enum event_action */
    uint8_t side;   /* enum side */
    uint8_t unused[2];
};

struct trade {
    uint64_t time_ms;
    uint64_t maker; /* the order that rested in the book */
    uint64_t taker; /* the order that came in */
    uint64_t volume;
    uint32_t price;
    uint32_t taker_side; /* enum side */
};

#define ACCOUNTS        64u
#define ENDOWMENT_COINS ((__int128)10000 * 100000000)         /* 10,000 coins */
#define ENDOWMENT_MONEY ((__int128)1000000 * 100 * 100000000) /* 1,000,000.00 */

/* 128 bits, because no flow of events can overflow them. */
struct account {
    __int128 coins; /* 10^-8 coins */
    __int128 money; /* 10^-8 cents */
};

/* What became of the events so far: every event is counted in exactly one of the first seven. */
struct tally {
    uint64_t created;
    uint64_t changed;
    uint64_t cancelled;
    uint64_t filled_elsewhere;
    uint64_t already_filled;
    uint64_t unknown;
    uint64_t duplicate;
    uint64_t trades;  /* not events */
    uint64_t resting; /* orders in the book now */
};

#endif
