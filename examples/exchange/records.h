// SPDX-License-Identifier: Apache-2.0
/*
 * records.h: everything that the exchange keeps in its region, and how one thing leads to the next.
 *
 *   root "state"    -> struct state       one; position in the input, tally, where the ladders begin
 *   root "accounts" -> struct account[ACCOUNTS]
 *   map  "orders"      order id -> address of struct order
 *   stream "trades"    struct trade, oldest first
 *
 *   state.ladders[side] -> ladder (ladder.h): price -> address of struct level
 *   struct level -> first order -> next -> ... -> last order, oldest first
 *
 * Addresses (shelf_addr) stay valid on every machine and after every restart, so structures link to each other as they
 * would in ordinary memory. The layout of all of them is hashed into the roots: a program that was built with other
 * structs is told so when it opens the region, and misreads nothing.
 *
 * Invariants, checked by `exchange check`:
 *   I1  An order is linked into exactly one level, of its price and side, if and only if its `left` is not 0.
 *   I2  A level exists if and only if it has orders; `count` and `volume` are sums over them.
 *   I3  The map holds exactly the orders that rest or wait for their deleted event (rule R4).
 *   I4  state.position counts the events whose effects are here, all of each, and each exactly once.
 */
#ifndef EXCHANGE_RECORDS_H
#define EXCHANGE_RECORDS_H

#include <shelf.h>

#include "rules.h"

#define REGION_NAME   "exchange"
#define ROOT_STATE    "state"
#define ROOT_ACCOUNTS "accounts"
#define MAP_ORDERS    "orders"
#define STREAM_TRADES "trades"
#define TYPE_STATE    UINT64_C(0x7374617465)     /* "state" */
#define TYPE_ACCOUNTS UINT64_C(0x6163636f756e74) /* "account" */

#define ORIGIN_PATH_MAX 256u

enum origin_kind { ORIGIN_FILE = 1, ORIGIN_FLOW = 2 };

/* Which input the state follows from. Another one is refused. */
struct origin {
    uint32_t kind;
    uint32_t flow_version;      /* flow only */
    uint64_t seed;              /* flow only */
    uint64_t size;              /* file only: bytes of the text, uncompressed */
    uint8_t sha256[32];         /* file only: of the text, uncompressed */
    char path[ORIGIN_PATH_MAX]; /* file only: where it was found at first; a help, not checked */
};

struct state {
    uint64_t position;     /* I4 */
    shelf_addr ladders[2]; /* by side */
    struct tally tally;
    struct origin origin;
};

/* One line of memory, so that touching an order is touching one line. */
struct order {
    uint64_t id;
    uint64_t left; /* volume that has not traded yet */
    uint64_t volume;
    uint32_t price;
    uint32_t side;
    shelf_addr level;    /* SHELF_NULL when filled */
    shelf_addr previous; /* the next older one of the level */
    shelf_addr next;     /* the next younger one */
    uint64_t time_ms;
};

struct level {
    uint32_t price;
    uint32_t count;
    uint64_t volume;
    shelf_addr first; /* oldest */
    shelf_addr last;  /* youngest */
};

#define LADDER_FANOUT 64u /* one bit of a 64-bit word each */

struct ladder_node {
    uint64_t used; /* bit i: slots[i] is set */
    shelf_addr slots[LADDER_FANOUT];
};

_Static_assert(sizeof(struct order) == SHELF_LINE_SIZE, "an order is one line");

/* The layout hashes that the roots carry. */
uint64_t layout_state(void);
uint64_t layout_accounts(void);

#endif
