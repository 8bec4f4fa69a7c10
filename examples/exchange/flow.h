// SPDX-License-Identifier: Apache-2.0
/* flow.h: an endless seeded stream of made-up order events, for machines without real data. */
#ifndef EXCHANGE_FLOW_H
#define EXCHANGE_FLOW_H

#include <stdbool.h>

#include "rules.h"

#define FLOW_VERSION 1u    /* of what a seed produces; a change of the generator is a new version */
#define FLOW_MEMORY  4096u /* orders that the flow remembers creating, and may delete */

struct flow {
    uint64_t random[2];
    uint64_t time_ms;
    uint64_t next_id;
    uint32_t mid; /* the price that the flow moves around */
    uint32_t open_count;
    struct event open[FLOW_MEMORY]; /* created and not yet deleted by the flow, in no order */
};

/* Equal seeds give equal events, on every machine, however many are taken. */
void flow_init(struct flow *flow, uint64_t seed);
void flow_next(struct flow *flow, struct event *ret_event);

#endif
