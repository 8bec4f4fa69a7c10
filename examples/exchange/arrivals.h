// SPDX-License-Identifier: Apache-2.0
/* arrivals.h: in which order the engine took the gateways' events, for ever. */
#ifndef EXCHANGE_ARRIVALS_H
#define EXCHANGE_ARRIVALS_H

#include "store.h"

/* What one transaction takes: events in the order in which they are applied, and the stretches that they are. */
struct intake {
    struct event *events; /* of the caller, room for `room` */
    size_t count, room;
    struct stretch stretches[GATEWAYS_MAX];
    size_t stretch_count;
    struct taken before; /* what had been taken until then */
};

/* Takes the next events of one gateway, `count_max` at most, if there are any. */
shelf_result intake_add(struct intake *intake, const struct store *store, const struct gateways *gateways,
                        uint32_t number, size_t count_max);

/* Records the intake, as a part of the transaction that applies its events. FENCED if another engine has taken events
 * since. */
shelf_result intake_record(shelf_tx *tx, const struct store *store, const struct intake *intake);

/* Calls `each` for all stretches in order, until it returns something else than OK. */
typedef shelf_result (*stretch_visitor)(void *context, const struct stretch *stretch);
shelf_result arrivals_visit(shelf_tx *tx, const struct store *store, stretch_visitor each, void *context);

shelf_result taken_get(const struct store *store, struct taken *ret_taken);

#endif
