// SPDX-License-Identifier: Apache-2.0
/*
 * store.c: opens the exchange's region, or makes it.
 *
 * Making it takes two durable steps: the region, then one transaction that formats it and puts everything in place. A
 * crash between the two leaves an empty region, which the next store_open() finds and fills; a crash within either
 * leaves nothing of it. Several processes may do so at once: one of them makes the region, the transaction of one
 * fills it, and the others find both.
 */
#include "store.h"

#include "ladder.h"
#include "region.h"
#include "try.h"

#define REGION_BYTES ((uint64_t)4 << 20) /* it grows when it is full */

static shelf_result roots_find(shelf_tx *tx, struct store *store) {
    TRY(shelf_root_get(tx, store->region, ROOT_STATE, TYPE_STATE, layout_state(), &store->state));
    TRY(shelf_root_get(tx, store->region, ROOT_ACCOUNTS, TYPE_ACCOUNTS, layout_accounts(), &store->accounts));
    TRY(shelf_map_open(tx, store->region, MAP_ORDERS, &store->orders));
    TRY(shelf_stream_open(tx, store->region, STREAM_TRADES, &store->trades));

    struct state state;
    TRY(shelf_read(tx, store->state, &state, sizeof(state)));
    store->has_gateways = state.origin.kind == ORIGIN_GATEWAYS;
    if (!store->has_gateways)
        return SHELF_OK;
    TRY(shelf_root_get(tx, store->region, ROOT_TAKEN, TYPE_TAKEN, layout_taken(), &store->taken));
    return shelf_stream_open(tx, store->region, STREAM_ARRIVALS, &store->arrivals);
}

static shelf_result accounts_create(shelf_tx *tx, struct store *store) {
    struct account accounts[ACCOUNTS];
    for (unsigned i = 0; i < ACCOUNTS; i++)
        accounts[i] = (struct account){.coins = ENDOWMENT_COINS, .money = ENDOWMENT_MONEY};
    TRY(shelf_alloc(tx, store->region, sizeof(accounts), &store->accounts));
    TRY(shelf_write(tx, store->accounts, accounts, sizeof(accounts)));
    return root_add(tx, store->region, ROOT_ACCOUNTS, TYPE_ACCOUNTS, layout_accounts(), store->accounts);
}

static shelf_result state_create(shelf_tx *tx, struct store *store, const struct origin *origin) {
    struct state state = {.origin = *origin};
    TRY(ladder_create(tx, store->region, &state.ladders[SIDE_BID]));
    TRY(ladder_create(tx, store->region, &state.ladders[SIDE_ASK]));
    TRY(shelf_alloc(tx, store->region, sizeof(state), &store->state));
    TRY(shelf_write(tx, store->state, &state, sizeof(state)));
    return root_add(tx, store->region, ROOT_STATE, TYPE_STATE, layout_state(), store->state);
}

static shelf_result arrivals_create(shelf_tx *tx, struct store *store) {
    struct taken taken = {0};
    store->has_gateways = true;
    TRY(shelf_stream_create(tx, store->region, STREAM_ARRIVALS, NULL, &store->arrivals));
    TRY(shelf_alloc(tx, store->region, sizeof(taken), &store->taken));
    TRY(shelf_write(tx, store->taken, &taken, sizeof(taken)));
    return root_add(tx, store->region, ROOT_TAKEN, TYPE_TAKEN, layout_taken(), store->taken);
}

struct creation {
    struct store *store;
    const struct origin *origin;
};

static shelf_result exchange_create(shelf_tx *tx, struct store *store, const struct origin *origin) {
    TRY(shelf_format(tx, store->region));
    TRY(shelf_map_create(tx, store->region, MAP_ORDERS, &store->orders));
    TRY(shelf_stream_create(tx, store->region, STREAM_TRADES, NULL, &store->trades));
    TRY(accounts_create(tx, store));
    if (origin->kind == ORIGIN_GATEWAYS)
        TRY(arrivals_create(tx, store));
    return state_create(tx, store, origin);
}

/* The body of a transaction: shelf_run() commits it, and runs it again if another transaction came in between. */
static shelf_result exchange_find(shelf_tx *tx, void *context) {
    struct creation *creation = context;
    shelf_result result = roots_find(tx, creation->store);
    if (result == SHELF_INVALID &&
        creation->origin) /* it was never formatted: this is the first transaction */
        result = exchange_create(tx, creation->store, creation->origin);
    return result;
}

static shelf_result exchange_open(struct store *store, const struct origin *origin) {
    struct creation creation = {store, origin};
    unsigned flags = origin ? SHELF_READ_WRITE : SHELF_READ_ONLY;
    TRY(region_take(store->s, REGION_NAME, REGION_BYTES, origin, &store->region));
    return shelf_run(store->s, flags, exchange_find, &creation, 0, NULL);
}

/* The inbox is made first: whoever finds an exchange with gateways finds their inbox as well. */
static shelf_result regions_open(struct store *store, const struct origin *origin) {
    if (origin && origin->kind == ORIGIN_GATEWAYS)
        TRY(inbox_open(store->s, true, &store->inbox));
    TRY(exchange_open(store, origin));
    if (store->has_gateways && !origin)
        TRY(inbox_open(store->s, false, &store->inbox));
    return SHELF_OK;
}

shelf_result store_open(const char *where, const struct origin *origin, struct store *ret_store) {
    struct shelf_options options = {.flags = origin ? SHELF_OPEN_CREATE : 0};
    struct store store = {0};

    TRY(shelf_open(where, &options, &store.s));
    shelf_result result = shelf_info_get(store.s, &store.recovered);
    if (result == SHELF_OK)
        result = regions_open(&store, origin);
    if (result != SHELF_OK) {
        shelf_close(store.s);
        return result;
    }
    *ret_store = store;
    return SHELF_OK;
}

shelf_result store_close(struct store *store) {
    shelf_result result = shelf_close(store->s);
    store->s = NULL;
    return result;
}

shelf_result store_grow(struct store *store) {
    return region_double(store->s, store->region);
}

shelf_result store_state(struct store *store, struct state *ret_state) {
    shelf_tx *tx;
    TRY(shelf_begin(store->s, SHELF_READ_ONLY, &tx));
    shelf_result result = shelf_read(tx, store->state, ret_state, sizeof(*ret_state));
    shelf_abort(tx);
    return result;
}
