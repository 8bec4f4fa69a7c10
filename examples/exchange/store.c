// SPDX-License-Identifier: Apache-2.0
/*
 * store.c: opens the exchange's region, or makes it.
 *
 * Making it takes two durable steps: the region, then one transaction that formats it and puts everything in place. A
 * crash between the two leaves an empty region, which the next store_open() finds and fills; a crash within either
 * leaves nothing of it.
 */
#include "store.h"

#include <string.h>

#include "ladder.h"
#include "try.h"

#define REGION_BYTES ((uint64_t)4 << 20) /* it grows when it is full */

static shelf_result roots_find(shelf_tx *tx, struct store *store) {
    TRY(shelf_root_get(tx, store->region, ROOT_STATE, TYPE_STATE, layout_state(), &store->state));
    TRY(shelf_root_get(tx, store->region, ROOT_ACCOUNTS, TYPE_ACCOUNTS, layout_accounts(), &store->accounts));
    TRY(shelf_map_open(tx, store->region, MAP_ORDERS, &store->orders));
    return shelf_stream_open(tx, store->region, STREAM_TRADES, &store->trades);
}

static shelf_result root_add(shelf_tx *tx, shelf_region region, const char *name, uint64_t type,
                             uint64_t layout, shelf_addr address) {
    struct shelf_root root = {.type = type, .layout = layout, .address = address};
    strncpy(root.name, name, SHELF_NAME_MAX);
    return shelf_root_set(tx, region, &root);
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

struct creation {
    struct store *store;
    const struct origin *origin;
};

/* The body of a transaction: shelf_run() commits it, and runs it again if another transaction came in between. */
static shelf_result exchange_create(shelf_tx *tx, void *context) {
    struct creation *creation = context;
    struct store *store = creation->store;
    TRY(shelf_format(tx, store->region));
    TRY(shelf_map_create(tx, store->region, MAP_ORDERS, &store->orders));
    TRY(shelf_stream_create(tx, store->region, STREAM_TRADES, NULL, &store->trades));
    TRY(accounts_create(tx, store));
    return state_create(tx, store, creation->origin);
}

static shelf_result exchange_find(shelf_tx *tx, void *context) {
    return roots_find(tx, context);
}

static shelf_result region_fill(struct store *store, const struct origin *origin) {
    shelf_result result = shelf_run(store->s, SHELF_READ_ONLY, exchange_find, store, 0, NULL);
    if (result != SHELF_INVALID || !origin)
        return result;
    /* INVALID: it was never formatted, so the first transaction is still to come. */
    struct creation creation = {store, origin};
    return shelf_run(store->s, SHELF_READ_WRITE, exchange_create, &creation, 0, NULL);
}

shelf_result store_open(const char *where, const struct origin *origin, struct store *ret_store) {
    struct shelf_options options = {.flags = origin ? SHELF_OPEN_CREATE : 0};
    struct store store = {0};

    TRY(shelf_open(where, &options, &store.s));
    shelf_result result = shelf_info_get(store.s, &store.recovered);
    if (result == SHELF_OK)
        result = shelf_region_open(store.s, REGION_NAME, &store.region);
    if (result == SHELF_NOT_FOUND && origin)
        result = shelf_region_create(store.s, REGION_NAME, REGION_BYTES, 0, &store.region);
    if (result == SHELF_OK)
        result = region_fill(&store, origin);
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
    struct shelf_region_info info;
    TRY(shelf_region_info_get(store->s, store->region, &info));
    return shelf_region_grow(store->s, store->region, info.size * 2);
}

shelf_result store_state(struct store *store, struct state *ret_state) {
    shelf_tx *tx;
    TRY(shelf_begin(store->s, SHELF_READ_ONLY, &tx));
    shelf_result result = shelf_read(tx, store->state, ret_state, sizeof(*ret_state));
    shelf_abort(tx);
    return result;
}
