// SPDX-License-Identifier: Apache-2.0
/*
 * lane.c: places in the windows of sessions, so that any number of threads and asynchronous commits find one without a lock.
 *
 * A handle begins with one unnamed session (lane) and opens another when all windows are full: 64 commits at one time need one
 * lane, 512 need eight. The node forgets unnamed sessions that were idle for long; then the lane is dead and another one
 * takes its place. A node that has just begun forgets those that nobody speaks for, so each is told of the lanes.
 */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/detail.h"
#include "client/handle.h"

static uint64_t window_bit(uint64_t sequence) {
    return (uint64_t)1 << (sequence % SHELF_SESSION_WINDOW);
}

void lane_begin(struct lane *lane, const struct reply *opened) {
    *lane = (struct lane){.session = opened->session, .holder = opened->holder};
    atomic_init(&lane->next, opened->session_last + 1);
    atomic_init(&lane->last, opened->session_committed);
}

/* ---- Waiting ------------------------------------------------------------------------------------------------------ */

bool handle_wait(struct shelf *s, bool (*condition)(void *context), void *context, uint32_t deadline_ms) {
    uint64_t until_ms = clock_now_ms() + deadline_ms;
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
    bool held = false;
    pthread_mutex_lock(&s->wait_mutex);
    /* First counted, then looked: who changes something looks at the count afterwards. */
    atomic_fetch_add(&s->waiter_count, 1);
    bool holds = condition(context);
    if (!holds) { /* answers may be needed, and whoever polls for them be in here */
        pthread_mutex_unlock(&s->wait_mutex);
        service_poll_hold(s->service, true);
        pthread_mutex_lock(&s->wait_mutex);
        held = true;
        holds = condition(context);
    }
    int error = 0;
    while (!holds && error != ETIMEDOUT) {
        error = pthread_cond_timedwait(&s->wait_condition, &s->wait_mutex, &until);
        holds = condition(context);
    }
    atomic_fetch_sub(&s->waiter_count, 1);
    pthread_mutex_unlock(&s->wait_mutex);
    if (held)
        service_poll_hold(s->service, false);
    return holds;
}

void handle_wake(struct shelf *s) {
    if (atomic_load(&s->waiter_count) == 0)
        return;
    pthread_mutex_lock(&s->wait_mutex);
    pthread_cond_broadcast(&s->wait_condition);
    pthread_mutex_unlock(&s->wait_mutex);
}

/* ---- Windows ------------------------------------------------------------------------------------------------------ */

/* Places after these ones may have looked taken to others meanwhile, so one that was never used is given back as any other. */
static void places_return(struct shelf *s, struct lane *lane, uint64_t bits) {
    atomic_fetch_and(&lane->pending, ~bits);
    handle_wake(s);
}

/* L1: first the bit, then the sequence. */
static bool lane_take(struct shelf *s, struct lane *lane, uint64_t *ret_sequence) {
    for (;;) {
        uint64_t sequence = atomic_load(&lane->next);
        uint64_t bit = window_bit(sequence);
        if (atomic_load_explicit(&lane->pending, memory_order_relaxed) &
            bit) /* (most are full, with many lanes) */
            return false;
        if (atomic_fetch_or(&lane->pending, bit) & bit)
            return false;
        if (atomic_compare_exchange_strong(&lane->next, &(uint64_t){sequence}, sequence + 1)) {
            *ret_sequence = sequence;
            return true;
        }
        places_return(s, lane, bit);
    }
}

void lane_skip(struct lane *lane, uint64_t sequence) {
    uint64_t next = atomic_load(&lane->next);
    while (next <= sequence && !atomic_compare_exchange_weak(&lane->next, &next, sequence + 1))
        continue;
}

static bool lane_take_given(struct lane *lane, uint64_t sequence) {
    uint64_t bit = window_bit(sequence);
    if (atomic_fetch_or(&lane->pending, bit) & bit)
        return false;
    lane_skip(lane, sequence);
    return true;
}

void lane_release(struct shelf *s, struct lane *lane, uint64_t sequence) {
    places_return(s, lane, window_bit(sequence));
}

void places_add(struct shelf *s, struct places *places, struct lane *lane, uint64_t sequence,
                bool committed) {
    if (places->lane != lane) {
        places_release(s, places);
        places->lane = lane;
    }
    places->bits |= window_bit(sequence);
    if (committed && sequence > places->committed)
        places->committed = sequence;
}

void places_release(struct shelf *s, struct places *places) {
    if (places->bits == 0)
        return;
    lane_committed(places->lane, places->committed);
    places_return(s, places->lane, places->bits);
    *places = (struct places){0};
}

void lane_committed(struct lane *lane, uint64_t sequence) {
    uint64_t last = atomic_load_explicit(&lane->last, memory_order_relaxed);
    while (last < sequence && !atomic_compare_exchange_weak(&lane->last, &last, sequence))
        continue;
}

bool place_try(struct shelf *s, struct commit *commit) {
    if (commit->session) {
        commit->lane = &commit->session->lane;
        commit->sequence = commit->sequence_set;
        return commit->sequence_set ? lane_take_given(commit->lane, commit->sequence_set)
                                    : lane_take(s, commit->lane, &commit->sequence);
    }
    uint32_t count = atomic_load_explicit(&s->lane_count, memory_order_acquire), start = tx_thread_number();
    for (uint32_t i = 0; i < count; i++) {
        struct lane *lane = atomic_load_explicit(&s->lanes[(start + i) % count], memory_order_acquire);
        if (!atomic_load_explicit(&lane->dead, memory_order_relaxed) &&
            lane_take(s, lane, &commit->sequence)) {
            commit->lane = lane;
            return true;
        }
    }
    return false;
}

/* ---- Lanes -------------------------------------------------------------------------------------------------------- */

void lane_bury(struct shelf *s, struct lane *lane) {
    pthread_mutex_lock(&s->lanes_mutex);
    atomic_store(&lane->dead, true);
    pthread_mutex_unlock(&s->lanes_mutex);
}

/* Where the next lane goes; LANES_MAX: nowhere. Holds lanes_mutex. */
static uint32_t slot_find(struct shelf *s) {
    uint32_t count = atomic_load(&s->lane_count);
    for (uint32_t i = 0; i < count; i++) {
        if (atomic_load(&atomic_load(&s->lanes[i])->dead))
            return i;
    }
    return count;
}

shelf_result lanes_add(struct shelf *s, const struct reply *opened) {
    struct lane *lane = aligned_alloc(LINE_SIZE, sizeof(*lane));
    if (!lane) {
        detail_set("no memory for a session");
        return SHELF_NO_MEMORY;
    }
    lane_begin(lane, opened);
    pthread_mutex_lock(&s->lanes_mutex);
    uint32_t slot = slot_find(s);
    if (slot < LANES_MAX) {
        struct lane *old = atomic_load(&s->lanes[slot]);
        if (old) {
            old->retired_next = s->retired;
            s->retired = old;
        }
        atomic_store(&s->lanes[slot], lane);
        if (slot == atomic_load(&s->lane_count))
            atomic_store(&s->lane_count, slot + 1);
    }
    pthread_mutex_unlock(&s->lanes_mutex);
    if (slot < LANES_MAX) {
        handle_wake(s);
        return SHELF_OK;
    }
    free(lane);
    detail_set("all %d sessions of the handle have a full window", LANES_MAX);
    return SHELF_UNAVAILABLE;
}

/* Can another lane be opened, and is there a live one? */
static bool lane_addable(struct shelf *s, bool *ret_live) {
    pthread_mutex_lock(&s->lanes_mutex);
    uint32_t count = atomic_load(&s->lane_count);
    *ret_live = false;
    for (uint32_t i = 0; i < count; i++)
        *ret_live |= !atomic_load(&atomic_load(&s->lanes[i])->dead);
    bool addable = slot_find(s) < LANES_MAX;
    pthread_mutex_unlock(&s->lanes_mutex);
    return addable;
}

/* Opens a lane, unless others did meanwhile. UNAVAILABLE with *ret_wait set: wait for a place instead. */
static shelf_result lane_open(struct shelf *s, struct commit *commit, bool *ret_taken, bool *ret_wait) {
    shelf_result result = SHELF_OK;
    pthread_mutex_lock(&s->open_mutex);
    *ret_taken = place_try(s, commit);
    *ret_wait = false;
    bool live;
    if (!*ret_taken && !lane_addable(s, &live)) {
        *ret_wait = true;
    } else if (!*ret_taken) {
        struct session_request request = {.header = {.size = sizeof(request), .kind = REQUEST_SESSION_OPEN}};
        struct reply reply;
        result = handle_call(s, &request, sizeof(request), &reply);
        if (result == SHELF_OK)
            result = lanes_add(s, &reply);
        *ret_wait = result != SHELF_OK && live;
    }
    pthread_mutex_unlock(&s->open_mutex);
    return result;
}

struct place_wait {
    struct shelf *s;
    struct commit *commit;
};

static bool place_wait_try(void *context) {
    struct place_wait *wait = context;
    return place_try(wait->s, wait->commit);
}

shelf_result place_take(struct shelf *s, struct commit *commit, uint32_t deadline_ms) {
    if (place_try(s, commit))
        return SHELF_OK;
    bool taken = false, wait = commit->session != NULL;
    while (!wait) {
        shelf_result result = lane_open(s, commit, &taken, &wait);
        if (taken || (result == SHELF_OK && place_try(s, commit)))
            return SHELF_OK;
        if (result != SHELF_OK && !wait)
            return result;
    }
    if (handle_wait(s, place_wait_try, &(struct place_wait){s, commit}, deadline_ms))
        return SHELF_OK;
    detail_set("no place in the window of %u outstanding commits became free within %u ms",
               SHELF_SESSION_WINDOW, deadline_ms);
    return SHELF_TIMEOUT;
}

static void keep_done(struct node_request *first) {
    for (struct node_request *request = first, *next; request; request = next) {
        next = request->next;
        atomic_store(&LIST_ENTRY(request, struct keep, request)->busy, false);
    }
}

/* Chosen with the mutex, sent without it: the answers may come at once. One that is still under way goes to the new node by itself. */
void lanes_keep(struct shelf *s) {
    bool chosen[LANES_MAX] = {false};
    pthread_mutex_lock(&s->lanes_mutex);
    if (!s->keeps)
        s->keeps = calloc(LANES_MAX, sizeof(*s->keeps));
    uint32_t count = s->keeps ? atomic_load(&s->lane_count) : 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct lane *lane = atomic_load(&s->lanes[i]);
        struct keep *keep = &s->keeps[i];
        if (atomic_load(&lane->dead) || atomic_exchange(&keep->busy, true))
            continue;
        keep->bytes = (struct session_request){
            .header = {.size = sizeof(keep->bytes), .kind = REQUEST_SESSION_KEEP},
            .session = lane->session,
            .holder = lane->holder,
        };
        keep->request =
            (struct node_request){.bytes = &keep->bytes, .size = sizeof(keep->bytes), .done = keep_done};
        chosen[i] = true;
    }
    pthread_mutex_unlock(&s->lanes_mutex);
    for (uint32_t i = 0; i < count; i++) {
        if (chosen[i])
            service_post(s->service, &s->keeps[i].request);
    }
}

void lanes_end(struct shelf *s) {
    bool willing = true;
    pthread_mutex_lock(&s->lanes_mutex);
    uint32_t count = atomic_exchange(&s->lane_count, 0); /* (lanes_keep() may be about to look) */
    pthread_mutex_unlock(&s->lanes_mutex);
    for (uint32_t i = 0; i < count; i++) {
        struct lane *lane = atomic_load(&s->lanes[i]);
        struct session_request request = {
            .header = {.size = sizeof(request), .kind = REQUEST_SESSION_EXPIRE},
            .session = lane->session,
            .holder = lane->holder,
        };
        struct reply reply;
        if (willing && !atomic_load(&lane->dead))
            willing = service_call(s->service, &request, sizeof(request), s->commit_deadline_ms, &reply) ==
                          SHELF_OK &&
                      reply.result == SHELF_OK;
        free(lane);
    }
    while (s->retired) {
        struct lane *lane = s->retired;
        s->retired = lane->retired_next;
        free(lane);
    }
}
