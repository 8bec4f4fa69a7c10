// SPDX-License-Identifier: Apache-2.0
/*
 * run.c: a transaction again and again until it commits.
 *
 * The first retry comes at once: the other one has committed, that is what made this one fail. Then random waits from a
 * range that doubles, so that many who want the same line find an order among themselves.
 */
#include <sched.h>
#include <time.h>

#include "client/detail.h"
#include "client/handle.h"

enum {
    WAIT_US_MIN = 8,
    WAIT_US_MAX = 8192,
    YIELD_US_MAX = 32, /* a shorter sleep takes longer than it says */
};

/* xorshift64, each thread on a path of its own. */
static uint64_t jitter_next(void) {
    static _Thread_local uint64_t state;
    if (state == 0)
        state = (tx_thread_number() + 1) * 0x9e3779b97f4a7c15u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void backoff(uint32_t attempt) {
    if (attempt == 0)
        return;
    uint32_t doublings = attempt < 10 ? attempt : 10;
    uint64_t limit_us = (uint64_t)WAIT_US_MIN << doublings;
    limit_us = limit_us < WAIT_US_MAX ? limit_us : WAIT_US_MAX;
    uint64_t wait_us = jitter_next() % limit_us;
    if (wait_us <= YIELD_US_MAX)
        sched_yield();
    else
        nanosleep(&(struct timespec){.tv_nsec = (long)wait_us * 1000}, NULL);
}

/* CONFLICT: again. */
static shelf_result attempt_run(struct shelf *s, unsigned flags, shelf_body body, void *context,
                                uint32_t attempt, uint32_t deadline_ms, struct shelf_receipt *ret_receipt) {
    struct shelf_tx *tx;
    shelf_result result = shelf_begin(s, flags, &tx);
    if (result != SHELF_OK)
        return result;
    tx_hint_shift(tx, attempt);
    result = body(tx, context);
    if (result == SHELF_OK)
        return commit_run(tx, deadline_ms, ret_receipt);
    shelf_abort(tx);
    return result;
}

shelf_result shelf_run(struct shelf *s, unsigned flags, shelf_body body, void *context, uint32_t deadline_ms,
                       struct shelf_receipt *ret_receipt) {
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    uint32_t total_ms = deadline_ms ? deadline_ms : s->commit_deadline_ms;
    uint64_t until_ms = 0; /* not looked at the clock yet */
    uint32_t left_ms = total_ms;
    for (uint32_t attempt = 0;; attempt++) {
        if (until_ms == 0)
            until_ms = clock_now_ms() + total_ms;
        result = attempt_run(s, flags, body, context, attempt, left_ms, ret_receipt);
        if (result != SHELF_CONFLICT)
            return result;
        backoff(attempt);
        uint64_t now_ms = clock_now_ms();
        if (now_ms >= until_ms) {
            detail_set("still in conflict with others after %u attempts in %u ms", attempt + 1, total_ms);
            return SHELF_TIMEOUT;
        }
        left_ms = (uint32_t)(until_ms - now_ms);
    }
}
