// SPDX-License-Identifier: Apache-2.0
/*
 * wait.c: sleeping until memory changes. A futex on the event word of the region, in memory that is only readable here.
 *
 *   E1  Registered, then the event word, then the lines, then asleep: a change that the look at the lines has missed has moved the
 *       word since, or will find the sleeper registered (image.h I6). So no change is slept through.
 */
#include <time.h>

#include "base/detail.h"
#include "client/handle.h"
#include "client/shared_copy.h"
#include "client/tx_state.h"
#include "world/world.h"

struct wait {
    struct shelf *s;
    struct shelf_tx *tx; /* keeps the replica */
    const struct region_view *region;
    const _Atomic uint64_t *versions; /* of the first line of the range */
    uint64_t line_count;
    uint64_t since; /* index */
    uint64_t until_ns;
};

/* The newest version in the range, being written or not. */
static uint64_t range_newest(const struct wait *wait) {
    uint64_t newest = 0;
    for (uint64_t i = 0; i < wait->line_count; i++) {
        uint64_t version = atomic_load_explicit(&wait->versions[i], memory_order_relaxed);
        newest = version > newest ? version : newest;
    }
    shared_fence_acquire();
    uint64_t floor = atomic_load_explicit(&wait->region->floor, memory_order_relaxed) << 1;
    return floor > newest ? floor : newest;
}

static bool is_dropped(const struct wait *wait) {
    return atomic_load_explicit(&wait->region->state, memory_order_acquire) != REGION_LIVE;
}

static bool is_changed(const struct wait *wait) {
    return version_index(range_newest(wait)) > wait->since;
}

/* A change was seen; its record is applied in a moment, and a transaction begun after that sees it. */
static shelf_result visible_await(const struct wait *wait) {
    const struct replica *replica = tx_replica(wait->tx);
    struct tx_host *host = &wait->s->host;
    for (uint32_t round = 0; version_index(range_newest(wait)) >
                             atomic_load_explicit(&replica->image->applied, memory_order_acquire);
         round++) {
        if (!host->wait(host, round)) {
            detail_set("a change has begun and does not end");
            return SHELF_UNAVAILABLE;
        }
    }
    return SHELF_OK;
}

/* In the present replica: OK, TIMEOUT, ...; CONFLICT: there is another one now. */
static shelf_result replica_wait(const struct wait *wait) {
    struct service_sleeper sleeper = {.replica = tx_replica(wait->tx)};
    sleeper.region = (shelf_region)(wait->region - sleeper.replica->image->regions);
    if (is_changed(wait))
        return visible_await(wait);
    if (!service_sleep_begin(wait->s->service, &sleeper))
        return SHELF_CONFLICT;
    shelf_result result = SHELF_TIMEOUT;
    for (;;) { /* E1 */
        uint32_t event = atomic_load(&wait->region->event);
        atomic_thread_fence(memory_order_seq_cst);
        uint64_t now_ns = world_monotonic_ns();
        if (is_dropped(wait)) {
            detail_set("region %u has been dropped", sleeper.region);
            result = SHELF_NOT_FOUND;
        } else if (is_changed(wait)) {
            result = visible_await(wait);
        } else if (sleeper.replica != atomic_load(&wait->s->host.replica)) {
            result = SHELF_CONFLICT;
        } else if (now_ns < wait->until_ns) {
            world_event_wait(&wait->region->event, event, wait->until_ns - now_ns);
            continue;
        }
        break;
    }
    service_sleep_end(wait->s->service, &sleeper);
    return result;
}

static shelf_result wait_once(struct wait *wait, shelf_addr address, uint64_t length) {
    shelf_result result = tx_begin(&wait->s->host, SHELF_READ_ONLY, &wait->tx);
    if (result != SHELF_OK)
        return result;
    result = tx_range_check(wait->tx, address, length);
    if (result == SHELF_OK) {
        uint64_t first = shelf_addr_offset(address) >> LINE_SHIFT;
        wait->region = &tx_replica(wait->tx)->image->regions[shelf_addr_region(address)];
        wait->versions = wait->tx->maps[shelf_addr_region(address)].versions + first;
        wait->line_count = ((shelf_addr_offset(address) + length - 1) >> LINE_SHIFT) - first + 1;
        result = replica_wait(wait);
    }
    tx_end(wait->tx);
    return result;
}

shelf_result shelf_wait(struct shelf *s, shelf_addr address, uint64_t length, uint64_t since_index,
                        uint32_t timeout_ms) {
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    if (length == 0) {
        detail_set("a range of no bytes never changes");
        return SHELF_INVALID;
    }
    struct wait wait = {.s = s, .since = since_index, .until_ns = UINT64_MAX};
    if (timeout_ms != UINT32_MAX)
        wait.until_ns = world_monotonic_ns() + (uint64_t)timeout_ms * 1000000;
    atomic_fetch_add_explicit(&s->stats.waits, 1, memory_order_relaxed);
    do
        result = wait_once(&wait, address, length);
    while (result == SHELF_CONFLICT);
    if (result == SHELF_OK)
        atomic_fetch_add_explicit(&s->stats.wakes, 1, memory_order_relaxed);
    else if (result == SHELF_TIMEOUT)
        detail_set("nothing has changed within %u ms", timeout_ms);
    return result;
}
