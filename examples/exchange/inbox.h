// SPDX-License-Identifier: Apache-2.0
/* inbox.h: where gateways leave events for the engine: durable, in order, and apart from the exchange itself. */
#ifndef EXCHANGE_INBOX_H
#define EXCHANGE_INBOX_H

#include <shelf.h>
#include <stdbool.h>

#include "records.h"

/* A small value; copy it freely. */
struct inbox {
    shelf *s;
    shelf_region region;
    shelf_addr gateways; /* struct gateways */
};

/* With `create`, what is not there yet is made; without it that is NOT_FOUND. */
shelf_result inbox_open(shelf *s, bool create, struct inbox *ret_inbox);
shelf_result inbox_grow(const struct inbox *inbox);

/* Finds the gateway that is named as `gateway` is, or adds it as `gateway` describes it (all but its inbox). On return
 * `gateway` is what is stored, which may follow from another input. TOO_LARGE if there are too many. */
shelf_result inbox_join(const struct inbox *inbox, struct gateway *gateway);

/* All gateways as of one moment. */
shelf_result inbox_gateways(const struct inbox *inbox, struct gateways *ret_gateways);

/* How many events the gateway has submitted, ever: its position in its input. */
shelf_result inbox_count(const struct inbox *inbox, const struct gateway *gateway, uint64_t *ret_count);

/* Submits events, as a part of the transaction, and rings the bell. `position` is the gateway's, before them; FENCED
 * if it is not there, because another process has moved it. */
shelf_result inbox_append(shelf_tx *tx, const struct inbox *inbox, const struct gateway *gateway,
                          uint64_t position, const struct event *events, size_t count);

/* Copies up to `count_max` events from `first` on; events stay as they are once submitted. */
shelf_result inbox_read(const struct inbox *inbox, const struct gateway *gateway, uint64_t first,
                        size_t count_max, struct event *ret_events, size_t *ret_count);

/* Sleeps until something has been submitted after `since` (an index), `timeout_ms` at most: OK or TIMEOUT. */
shelf_result inbox_wait(const struct inbox *inbox, uint64_t since, uint32_t timeout_ms);

#endif
