// SPDX-License-Identifier: Apache-2.0
/*
 * run.c: a transaction again and again until it commits.
 *
 * The first retry comes at once: the other one has committed, that is what made this one fail. Then random waits from a
 * range that doubles, so that many who want the same line find an order among themselves.
 */
#include <sched.h>
#include <time.h>

#include "base/detail.h"
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

/* The transaction ends. CONFLICT: again. */
static shelf_result attempt_run(struct shelf_tx *tx, shelf_body body, void *context, uint32_t attempt,
                                uint32_t deadline_ms, struct shelf_receipt *ret_receipt) {
    tx_hint_shift(tx, attempt);
    shelf_result result = body(tx, context);
    if (result == SHELF_OK)
        return commit_run(tx, deadline_ms, ret_receipt);
    shelf_abort(tx);
    return result;
}

/* The time that attempts have. */
struct patience {
    uint64_t until_ms;
    uint32_t total_ms, left_ms;
};

static struct patience patience_begin(const struct shelf *s, uint32_t deadline_ms) {
    uint32_t total_ms = deadline_ms ? deadline_ms : s->commit_deadline_ms;
    return (struct patience){
        .until_ms = clock_now_ms() + total_ms, .total_ms = total_ms, .left_ms = total_ms};
}

static bool patience_left(struct patience *patience) {
    uint64_t now_ms = clock_now_ms();
    patience->left_ms = now_ms < patience->until_ms ? (uint32_t)(patience->until_ms - now_ms) : 0;
    return patience->left_ms > 0;
}

/* After a conflict. False: the time is over. */
static bool conflict_wait(struct shelf *s, struct patience *patience, uint32_t attempt) {
    atomic_fetch_add_explicit(&s->stats.retries, 1, memory_order_relaxed);
    backoff(attempt);
    if (patience_left(patience))
        return true;
    detail_set("still in conflict with others after %u attempts in %u ms", attempt + 1, patience->total_ms);
    return false;
}

shelf_result shelf_run(struct shelf *s, unsigned flags, shelf_body body, void *context, uint32_t deadline_ms,
                       struct shelf_receipt *ret_receipt) {
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    struct patience patience = patience_begin(s, deadline_ms);
    for (uint32_t attempt = 0;; attempt++) {
        struct shelf_tx *tx;
        result = shelf_begin(s, flags, &tx);
        if (result == SHELF_OK)
            result = attempt_run(tx, body, context, attempt, patience.left_ms, ret_receipt);
        if (result != SHELF_CONFLICT)
            return result;
        if (!conflict_wait(s, &patience, attempt))
            return SHELF_TIMEOUT;
    }
}

static shelf_result session_attempt(struct shelf_session *session, uint64_t sequence, shelf_body body,
                                    void *context, uint32_t attempt, uint32_t deadline_ms,
                                    struct shelf_receipt *ret_receipt) {
    struct shelf_tx *tx;
    shelf_result result = shelf_session_begin(session, SHELF_READ_WRITE, &tx);
    if (result != SHELF_OK)
        return result;
    if (sequence != 0)
        result = shelf_tx_sequence_set(tx, sequence);
    if (result == SHELF_OK)
        return attempt_run(tx, body, context, attempt, deadline_ms, ret_receipt);
    shelf_abort(tx);
    return result;
}

/* An UNKNOWN under a sequence of ours is settled before anything else: the body would meet its own effects. Under the caller's
 * sequence it runs again, as a fence would end that sequence for good. */
shelf_result shelf_session_run(struct shelf_session *session, uint64_t sequence, shelf_body body,
                               void *context, uint32_t deadline_ms, struct shelf_receipt *ret_receipt) {
    struct shelf *s = session->s;
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    struct patience patience = patience_begin(s, deadline_ms);
    struct shelf_receipt receipt = {0};
    bool unknown = false; /* the caller's sequence may have committed */
    for (uint32_t attempt = 0;; attempt++) {
        result = session_attempt(session, sequence, body, context, attempt, patience.left_ms, &receipt);
        if (result == SHELF_CONFLICT) {
            if (conflict_wait(s, &patience, attempt))
                continue;
            result = SHELF_TIMEOUT;
        } else if (result == SHELF_UNKNOWN && patience_left(&patience)) {
            if (sequence != 0) {
                unknown = true;
                continue;
            }
            uint64_t asked = receipt.sequence;
            result = session_outcome(session, asked, patience.left_ms, &receipt);
            if (result == SHELF_ABORTED && patience_left(&patience))
                continue;
            if (result != SHELF_OK && result != SHELF_ABORTED) {
                receipt = (struct shelf_receipt){.sequence = asked};
                result = SHELF_UNKNOWN;
            }
        }
        if (unknown && result != SHELF_OK) {
            receipt = (struct shelf_receipt){.sequence = sequence};
            result = SHELF_UNKNOWN;
        }
        if (ret_receipt && (result == SHELF_OK || result == SHELF_UNKNOWN))
            *ret_receipt = receipt;
        return result;
    }
}
