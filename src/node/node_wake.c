// SPDX-License-Identifier: Apache-2.0
/*
 * node_wake.c: telling those who wait for changes.
 *
 *   sleeper   counts itself (seq_cst), reads the event word, looks at the lines, sleeps on the word if it is as it was
 *   driver    lines, applied, event word (seq_cst), fence, then the counts
 *
 * So either the sleeper sees the new word, or the driver sees the sleeper: no wake-up is lost, and while nobody waits a record
 * costs a load for each client.
 */
#include "node/node.h"
#include "node/node_state.h"

void node_waiters_join(struct node *node, struct node_waiters *waiters) {
    core_enter(node);
    list_push_back(&node->waiters, &waiters->link);
    (void)core_leave(node, NULL);
}

void node_waiters_leave(struct node *node, struct node_waiters *waiters) {
    core_enter(node);
    list_unlink(&waiters->link);
    (void)core_leave(node, NULL);
}

void node_waiters_add(struct node *node, int change) {
    (void)atomic_fetch_add(&node->waiters_here, (uint32_t)change);
}

static bool somebody_waits(const struct node *node) {
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&node->waiters_here, memory_order_relaxed) > 0) {
        return true;
    }
    LIST_FOREACH(link, &node->waiters) {
        const struct node_waiters *waiters = LIST_ENTRY(link, struct node_waiters, link);
        if (atomic_load_explicit(waiters->count, memory_order_relaxed) > 0) {
            return true;
        }
    }
    return false;
}

/* By the core's address: the kernel first tries to find a page that it may write, and takes much longer if it may not. */
void wakes_do(struct node *node, const struct wakes *wakes) {
    const struct image *image = world_image(node->world);
    for (uint32_t i = 0; i < wakes->count; i++) {
        world_event_wake(&image->regions[wakes->regions[i]].event);
    }
}

void wakes_note(struct node *node) {
    const struct effects *effects = &node->effects;
    if (effects->changed_count == 0 || !somebody_waits(node)) {
        return;
    }
    struct wakes *wakes = &node->wakes;
    for (uint32_t i = 0; i < effects->changed_count; i++) {
        if (effects->changed[i] == REGION_SYSTEM) { /* nobody can wait for it */
            continue;
        }
        if (wakes->count == WAKES_MAX) { /* so many at once are rare enough to do it here */
            wakes_do(node, wakes);
            wakes->count = 0;
        }
        wakes->regions[wakes->count++] = effects->changed[i];
    }
}
