// SPDX-License-Identifier: Apache-2.0
/* records.c: the layouts of what is in the region, as the roots remember them. */
#include "records.h"

static uint64_t layout_origin(void) {
    return SHELF_LAYOUT(struct origin, SHELF_FIELD(struct origin, kind),
                        SHELF_FIELD(struct origin, flow_version), SHELF_FIELD(struct origin, seed),
                        SHELF_FIELD(struct origin, size), SHELF_FIELD(struct origin, sha256),
                        SHELF_FIELD(struct origin, path));
}

/* 0 would mean "do not compare". */
static uint64_t layouts_fold(const uint64_t *hashes, size_t count) {
    uint64_t folded = 0;
    for (size_t i = 0; i < count; i++)
        folded = (folded ^ hashes[i]) * UINT64_C(0x9e3779b97f4a7c15);
    return folded | 1;
}

/* Everything that is reached from the state is part of its layout, so the hashes are folded into one. */
uint64_t layout_state(void) {
    const uint64_t hashes[] = {
        layout_origin(),
        SHELF_LAYOUT(struct tally, SHELF_FIELD(struct tally, created), SHELF_FIELD(struct tally, changed),
                     SHELF_FIELD(struct tally, cancelled), SHELF_FIELD(struct tally, filled_elsewhere),
                     SHELF_FIELD(struct tally, already_filled), SHELF_FIELD(struct tally, unknown),
                     SHELF_FIELD(struct tally, duplicate), SHELF_FIELD(struct tally, trades),
                     SHELF_FIELD(struct tally, resting)),
        SHELF_LAYOUT(struct state, SHELF_FIELD(struct state, position), SHELF_FIELD(struct state, ladders),
                     SHELF_FIELD(struct state, tally), SHELF_FIELD(struct state, origin)),
        SHELF_LAYOUT(struct order, SHELF_FIELD(struct order, id), SHELF_FIELD(struct order, left),
                     SHELF_FIELD(struct order, volume), SHELF_FIELD(struct order, price),
                     SHELF_FIELD(struct order, side), SHELF_FIELD(struct order, level),
                     SHELF_FIELD(struct order, previous), SHELF_FIELD(struct order, next),
                     SHELF_FIELD(struct order, time_ms)),
        SHELF_LAYOUT(struct level, SHELF_FIELD(struct level, price), SHELF_FIELD(struct level, count),
                     SHELF_FIELD(struct level, volume), SHELF_FIELD(struct level, first),
                     SHELF_FIELD(struct level, last)),
        SHELF_LAYOUT(struct ladder_node, SHELF_FIELD(struct ladder_node, used),
                     SHELF_FIELD(struct ladder_node, slots)),
        SHELF_LAYOUT(struct trade, SHELF_FIELD(struct trade, time_ms), SHELF_FIELD(struct trade, maker),
                     SHELF_FIELD(struct trade, taker), SHELF_FIELD(struct trade, volume),
                     SHELF_FIELD(struct trade, price), SHELF_FIELD(struct trade, taker_side)),
    };
    return layouts_fold(hashes, sizeof(hashes) / sizeof(hashes[0]));
}

uint64_t layout_accounts(void) {
    return SHELF_LAYOUT(struct account, SHELF_FIELD(struct account, coins),
                        SHELF_FIELD(struct account, money)) |
           1;
}

uint64_t layout_taken(void) {
    const uint64_t hashes[] = {
        SHELF_LAYOUT(struct taken, SHELF_FIELD(struct taken, counts)),
        SHELF_LAYOUT(struct stretch, SHELF_FIELD(struct stretch, gateway), SHELF_FIELD(struct stretch, count),
                     SHELF_FIELD(struct stretch, first)),
    };
    return layouts_fold(hashes, sizeof(hashes) / sizeof(hashes[0]));
}

uint64_t layout_gateways(void) {
    const uint64_t hashes[] = {
        layout_origin(),
        SHELF_LAYOUT(struct event, SHELF_FIELD(struct event, id), SHELF_FIELD(struct event, time_ms),
                     SHELF_FIELD(struct event, volume), SHELF_FIELD(struct event, price),
                     SHELF_FIELD(struct event, action), SHELF_FIELD(struct event, side)),
        SHELF_LAYOUT(struct gateway, SHELF_FIELD(struct gateway, name), SHELF_FIELD(struct gateway, lane),
                     SHELF_FIELD(struct gateway, lanes), SHELF_FIELD(struct gateway, inbox),
                     SHELF_FIELD(struct gateway, origin)),
        SHELF_LAYOUT(struct gateways, SHELF_FIELD(struct gateways, bell), SHELF_FIELD(struct gateways, count),
                     SHELF_FIELD(struct gateways, list)),
    };
    return layouts_fold(hashes, sizeof(hashes) / sizeof(hashes[0]));
}
