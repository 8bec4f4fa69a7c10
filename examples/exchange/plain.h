// SPDX-License-Identifier: Apache-2.0
/* plain.h: the exchange in ordinary memory, as plainly as possible, to compare the real one with. */
#ifndef EXCHANGE_PLAIN_H
#define EXCHANGE_PLAIN_H

#include <stddef.h>

#include "rules.h"

struct plain_order {
    uint64_t id;
    uint64_t arrival; /* number of the event that created it: older is smaller */
    uint64_t left;
    uint32_t price;
    uint32_t side;
};

/* The orders of one side that rest in the book, worst first, so that the best one is taken off the end. */
struct plain_side {
    struct plain_order **orders;
    size_t count, room;
};

struct plain {
    struct plain_side sides[2];
    void *by_id; /* tsearch() tree of struct plain_order, whose memory it owns */
    struct trade *trades;
    size_t trade_count, trade_room;
    struct account accounts[ACCOUNTS];
    struct tally tally;
    uint64_t arrivals;
};

/* Ends the program if there is no memory; it is a tool for checking and has nothing to lose. */
void plain_init(struct plain *plain);
void plain_apply(struct plain *plain, const struct event *event);
void plain_free(struct plain *plain);

#endif
