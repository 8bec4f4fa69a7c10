// SPDX-License-Identifier: Apache-2.0
/* engine.h: the matching engine whose memory is a Shelf region. */
#ifndef EXCHANGE_ENGINE_H
#define EXCHANGE_ENGINE_H

#include <shelf.h>

#include "store.h"

/* The work of one transaction: any number of events, which become durable together or not at all. */
struct turn {
    shelf_tx *tx;
    const struct store *store;
    struct state state; /* read by turn_begin(), changed by turn_apply(), written back by turn_end() */
};

/* The caller begins the transaction, and commits or aborts it. After a failure of any of these it must abort. */
shelf_result turn_begin(struct turn *turn, const struct store *store, shelf_tx *tx);
shelf_result turn_apply(struct turn *turn, const struct event *event);
shelf_result turn_end(struct turn *turn);

#endif
