// SPDX-License-Identifier: Apache-2.0
/*
 * records.h: everything that the exchange keeps in its regions, and how one thing leads to the next.
 *
 *   root "state"    -> struct state       one; position in the input, tally, where the ladders begin
 *   root "accounts" -> struct account[ACCOUNTS]
 *   map  "orders"      order id -> address of struct order
 *   stream "trades"    struct trade, oldest first
 *
 * With gateways (the events come from several processes):
 *
 *   root "taken"    -> struct taken       how far each gateway's inbox has been worked through
 *   stream "arrivals"  struct stretch[]   a record a transaction: which events it took, in this order
 *
 * and in the region "inbox", so that a gateway never writes into the exchange itself:
 *
 *   root "gateways" -> struct gateways    the bell, and who they are
 *   stream "inbox.NAME" struct event      what that gateway submitted; its length is the gateway's position in its input
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
 *   I5  With gateways it is the sum over `taken`, and the stretches of each gateway follow one another from 0 to there.
 */
#ifndef EXCHANGE_RECORDS_H
#define EXCHANGE_RECORDS_H

#include <shelf.h>
#include <stddef.h>

#include "rules.h"

#define REGION_NAME   "exchange"
#define ROOT_STATE    "state"
#define ROOT_ACCOUNTS "accounts"
#define MAP_ORDERS    "orders"
#define STREAM_TRADES "trades"
#define TYPE_STATE    UINT64_C(0x7374617465)     /* "state" */
#define TYPE_ACCOUNTS UINT64_C(0x6163636f756e74) /* "account" */

#define ROOT_TAKEN       "taken"
#define STREAM_ARRIVALS  "arrivals"
#define REGION_INBOX     "inbox"
#define ROOT_GATEWAYS    "gateways"
#define TYPE_TAKEN       UINT64_C(0x74616b656e)     /* "taken" */
#define TYPE_GATEWAYS    UINT64_C(0x67617465776179) /* "gateway" */
#define SESSION_ENGINE   "engine"                   /* whoever holds it matches; an older holder is fenced */
#define GATEWAYS_MAX     16u
#define GATEWAY_NAME_MAX 31u

#define ORIGIN_PATH_MAX 256u

enum origin_kind {
    ORIGIN_FILE = 1,
    ORIGIN_FLOW = 2,
    ORIGIN_GATEWAYS =
        3, /* of the exchange: what comes through its gateways, each of which has an input of its own */
};

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

struct taken {
    uint64_t counts[GATEWAYS_MAX]; /* I5; by number of the gateway */
};

/* `count` events of one gateway, from the one at `first` in its inbox. */
struct stretch {
    uint32_t gateway;
    uint32_t count;
    uint64_t first;
};

struct gateway {
    char name[GATEWAY_NAME_MAX + 1];
    uint32_t lane, lanes; /* it submits the events whose order id leaves `lane` when divided by `lanes` */
    shelf_addr inbox;     /* a shelf_stream */
    struct origin origin; /* of those events */
};

/* The bell counts all events ever submitted. It has a line for itself: whoever rings it disturbs no reader of the rest. */
struct gateways {
    uint64_t bell;
    uint64_t unused[7];
    uint64_t count; /* they are never removed, so a number means the same gateway for ever */
    struct gateway list[GATEWAYS_MAX];
};

#define LADDER_FANOUT 64u /* one bit of a 64-bit word each */

struct ladder_node {
    uint64_t used; /* bit i: slots[i] is set */
    shelf_addr slots[LADDER_FANOUT];
};

_Static_assert(sizeof(struct order) == SHELF_LINE_SIZE, "an order is one line");
_Static_assert(offsetof(struct gateways, count) == SHELF_LINE_SIZE, "the bell has a line for itself");

/* The layout hashes that the roots carry. */
uint64_t layout_state(void);
uint64_t layout_accounts(void);
uint64_t layout_taken(void);
uint64_t layout_gateways(void);

#endif
