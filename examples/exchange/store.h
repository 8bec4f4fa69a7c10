// SPDX-License-Identifier: Apache-2.0
/* store.h: opening the exchange's regions, or making them. */
#ifndef EXCHANGE_STORE_H
#define EXCHANGE_STORE_H

#include <shelf.h>
#include <stdbool.h>

#include "inbox.h"
#include "records.h"

/* The open exchange: a shelf, and where everything in it begins. Owned by whoever opened it. */
struct store {
    shelf *s;
    shelf_region region;
    shelf_addr state;    /* struct state */
    shelf_addr accounts; /* struct account[ACCOUNTS] */
    shelf_map orders;
    shelf_stream trades;
    bool has_gateways; /* the following three are set */
    shelf_addr taken;  /* struct taken */
    shelf_stream arrivals;
    struct inbox inbox;
    struct shelf_info recovered; /* as the open found it */
};

/* Opens the exchange in the shelf at `where`. With `origin`, one that is not there yet is made, for that input; without
 * it is NOT_FOUND. */
shelf_result store_open(const char *where, const struct origin *origin, struct store *ret_store);
shelf_result store_close(struct store *store);

/* The region is full: make it twice as large. Addresses and handles stay valid. */
shelf_result store_grow(struct store *store);

/* The state as of one moment, in a transaction of its own. */
shelf_result store_state(struct store *store, struct state *ret_state);

#endif
