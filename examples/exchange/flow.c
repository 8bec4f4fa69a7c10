// SPDX-License-Identifier: Apache-2.0
/*
 * flow.c: made-up order events with the habits of real ones.
 *
 * The middle price takes a random walk. Most orders are placed behind it, close by more often than far away, and most
 * are deleted again later; some reach across the middle and trade. As in a real feed there are reports of changes,
 * deletes of orders that the listener never saw, deletes of orders that are filled already (the flow does not know
 * who trades with whom, so this happens by itself), and now and then an id that is created twice.
 *
 * Only integer arithmetic, so that a seed means the same events everywhere.
 */
#include "flow.h"

#include <string.h>

#define FLOW_PRICE_START 23500u
#define FLOW_PRICE_MIN   100u
#define FLOW_PRICE_TOP   10000000u

static uint64_t rotate(uint64_t x, unsigned by) {
    return (x << by) | (x >> (64 - by));
}

/* xoroshiro128+ (Blackman and Vigna), seeded through splitmix64. */
static uint64_t random_next(struct flow *flow) {
    uint64_t a = flow->random[0], b = flow->random[1], result = a + b;
    b ^= a;
    flow->random[0] = rotate(a, 24) ^ b ^ (b << 16);
    flow->random[1] = rotate(b, 37);
    return result;
}

static uint64_t random_scramble(uint64_t x) {
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint32_t random_below(struct flow *flow, uint32_t bound) {
    return (uint32_t)(((random_next(flow) >> 32) * bound) >> 32);
}

/* Small numbers often, large ones seldom: each further doubling is half as likely. */
static uint32_t random_skewed(struct flow *flow, uint32_t unit, unsigned doublings_max) {
    unsigned doublings = (unsigned)__builtin_ctzll(random_next(flow) | (UINT64_C(1) << doublings_max));
    return random_below(flow, unit << doublings) + 1;
}

void flow_init(struct flow *flow, uint64_t seed) {
    memset(flow, 0, sizeof(*flow));
    flow->random[0] = random_scramble(seed + UINT64_C(0x9e3779b97f4a7c15));
    flow->random[1] = random_scramble(seed + UINT64_C(0x3c6ef372fe94f82a)) | 1;
    flow->time_ms = UINT64_C(1700000000000);
    flow->next_id = 1000;
    flow->mid = FLOW_PRICE_START;
}

static void mid_walk(struct flow *flow) {
    if (random_below(flow, 10) != 0)
        return;
    uint32_t step = random_skewed(flow, 1, 5);
    if (random_below(flow, 2) && flow->mid + step < FLOW_PRICE_TOP)
        flow->mid += step;
    else if (flow->mid > FLOW_PRICE_MIN + step)
        flow->mid -= step;
}

static void order_create(struct flow *flow, struct event *event) {
    uint32_t distance = random_skewed(flow, 20, 9);
    bool across = random_below(flow, 100) < 6;
    bool below;

    event->action = EVENT_CREATED;
    event->side = random_below(flow, 2) ? SIDE_ASK : SIDE_BID;
    event->id = random_below(flow, 2000) == 0 && flow->open_count
                    ? flow->open[random_below(flow, flow->open_count)].id /* the same id once more */
                    : flow->next_id++;
    event->volume = (uint64_t)random_skewed(flow, 1000, 8) * (random_below(flow, 3) ? 1000000 : 12345);

    below = (event->side == SIDE_BID) != across;
    if (below)
        event->price = flow->mid > distance ? flow->mid - distance : 1;
    else
        event->price = flow->mid + distance;

    /* When the memory is full an old order is forgotten: it stays in the book, like those of patient people. */
    uint32_t slot = flow->open_count < FLOW_MEMORY ? flow->open_count++ : random_below(flow, FLOW_MEMORY);
    flow->open[slot] = *event;
}

static void order_delete(struct flow *flow, struct event *event) {
    uint64_t time_ms = event->time_ms;
    uint32_t slot = random_below(flow, flow->open_count);
    if (flow->open_count > 64 && random_below(flow, 4))
        slot = flow->open_count - 1 - slot % 64; /* most orders live for a short time only */

    *event = flow->open[slot];
    event->action = EVENT_DELETED;
    event->time_ms = time_ms;
    if (random_below(flow, 40) == 0)
        event->volume = 0; /* filled over there */
    flow->open[slot] = flow->open[--flow->open_count];
}

void flow_next(struct flow *flow, struct event *ret_event) {
    struct event event = {0};
    uint32_t chance = random_below(flow, 1000);
    /* As many deletes as creates in the long run, so that the book grows to some thousand orders and stays there. */
    uint32_t delete_below = flow->open_count < 2000 ? 440 : 490;

    flow->time_ms += random_skewed(flow, 100, 6);
    event.time_ms = flow->time_ms;
    mid_walk(flow);

    if (chance < 6) {
        event = (struct event){.id = random_below(flow, 900) + 1,
                               .time_ms = event.time_ms,
                               .volume = 100000000,
                               .price = flow->mid,
                               .action = EVENT_DELETED,
                               .side = SIDE_BID};
    } else if (chance < 18 && flow->open_count) {
        uint64_t time_ms = event.time_ms;
        event = flow->open[random_below(flow, flow->open_count)];
        event.action = EVENT_CHANGED;
        event.time_ms = time_ms;
        event.volume /= 2;
    } else if (chance < delete_below && flow->open_count) {
        order_delete(flow, &event);
    } else {
        order_create(flow, &event);
    }
    *ret_event = event;
}
