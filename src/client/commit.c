// SPDX-License-Identifier: Apache-2.0
/*
 * commit.c: from a transaction to a receipt: a place in a session's window, the encoded request, the node, the answer.
 *
 *   C1  A sequence is answered before its place in the window is free again.
 *   C2  A request is submitted again under another sequence only if the node said that the first one has had no effect and
 *       never will: its session was forgotten (EXPIRED), or the sequence was fenced (ABORTED).
 *   C3  An asynchronous commit is in one place: the node's, `reopen.waiting`, or the queue of completions. It has memory of
 *       its own, given back when the completion is taken; its transaction has ended by then.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/detail.h"
#include "client/handle.h"
#include "world/world.h"

/* New sessions and new sequences that one commit tries; one is the rule. */
enum { ATTEMPTS_MAX = 128 };

/* ---- Common ------------------------------------------------------------------------------------------------------- */

/* Is there anything to send? OK: yes, or not (*ret_empty), and then it is committed as it is: all that it read was exact at
 * its index (R1). */
static shelf_result commit_check(const struct shelf_tx *tx, const struct commit *commit, bool *ret_empty) {
    shelf_result result = handle_check(shelf_tx_shelf(tx));
    if (result == SHELF_OK && tx_failed(tx) != SHELF_OK)
        result = tx_failure_repeat(tx);
    *ret_empty = !tx_has_effects(tx) && commit->sequence_set == 0;
    return result;
}

static struct shelf_receipt receipt_empty(const struct shelf_tx *tx) {
    return (struct shelf_receipt){.index = shelf_tx_index(tx), .durability = SHELF_DURABLE_NOT};
}

/* C2. */
static bool session_forgotten(const struct commit *commit, const struct reply *reply) {
    return !commit->session && reply->result == SHELF_EXPIRED && reply->reason == REASON_SESSION_UNKNOWN;
}
static bool sequence_burnt(const struct commit *commit, const struct reply *reply) {
    return commit->sequence_set == 0 && reply->result == SHELF_ABORTED;
}

/* ---- With waiting ------------------------------------------------------------------------------------------------- */

/* One submission, its place taken. */
static shelf_result commit_call(struct shelf *s, const struct commit *commit,
                                const struct commit_request *request, uint32_t deadline_ms,
                                struct reply *ret_reply) {
    shelf_result result = service_call(s->service, request, request->header.size, deadline_ms, ret_reply);
    if (result != SHELF_OK) {
        *ret_reply = (struct reply){.result = result, .reason = REASON_NONE};
    } else if (ret_reply->result == SHELF_OK) {
        lane_committed(commit->lane, commit->sequence);
    } else {
        reply_explain(ret_reply);
    }
    ret_reply->receipt.sequence = commit->sequence;
    return (shelf_result)ret_reply->result;
}

static shelf_result commit_submit(struct shelf *s, struct shelf_tx *tx, struct commit *commit,
                                  uint32_t deadline_ms, struct reply *ret_reply) {
    for (uint32_t attempt = 0;; attempt++) {
        shelf_result result = place_take(s, commit, deadline_ms);
        if (result != SHELF_OK)
            return result;
        struct lane *lane = commit->lane;
        const struct commit_request *request = (const void *)tx->encoded;
        if (attempt > 0)
            tx_retarget(tx, lane->session, lane->holder, commit->sequence);
        else
            result = tx_encode(tx, lane->session, lane->holder, commit->sequence, &request);
        if (result == SHELF_OK)
            result = commit_call(s, commit, request, deadline_ms, ret_reply);
        else
            *ret_reply = (struct reply){.result = result};
        lane_release(s, lane, commit->sequence);
        if (session_forgotten(commit, ret_reply))
            lane_bury(s, lane);
        else if (!sequence_burnt(commit, ret_reply))
            return result;
        if (attempt == ATTEMPTS_MAX)
            return result;
    }
}

shelf_result commit_run(struct shelf_tx *tx, uint32_t deadline_ms, struct shelf_receipt *ret_receipt) {
    struct shelf *s = shelf_tx_shelf(tx);
    struct commit *commit = tx_commit_of(tx);
    bool empty;
    shelf_result result = commit_check(tx, commit, &empty);
    if (result == SHELF_OK && empty) {
        if (ret_receipt)
            *ret_receipt = receipt_empty(tx);
    } else if (result == SHELF_OK) {
        struct reply reply;
        uint64_t begin_ns = world_monotonic_ns();
        result = commit_submit(s, tx, commit, deadline_ms, &reply);
        stats_time(s, world_monotonic_ns() - begin_ns);
        stats_count(s, result);
        if (ret_receipt && result == SHELF_OK)
            *ret_receipt = reply.receipt;
        else if (ret_receipt && result == SHELF_UNKNOWN)
            *ret_receipt = (struct shelf_receipt){.sequence = commit->sequence};
    }
    tx_end(tx);
    return result;
}

shelf_result shelf_commit(struct shelf_tx *tx, struct shelf_receipt *ret_receipt) {
    /* Only read, and did not fail: the common end of small transactions, kept short. */
    if (tx->slow == 0 && tx_commit_of(tx)->sequence_set == 0) {
        if (ret_receipt)
            *ret_receipt = receipt_empty(tx);
        tx_end(tx);
        return SHELF_OK;
    }
    return commit_run(tx, shelf_tx_shelf(tx)->commit_deadline_ms, ret_receipt);
}

/* ---- Memory of asynchronous commits ------------------------------------------------------------------------------- */

/* One piece fits most commits. Larger ones are not kept. There are never more than places in all windows. */
enum { COMMIT_POOLED_BYTES = 1024 };

static struct commit *commit_make(struct shelf *s, size_t request_size) {
    struct commit *commit;
    if (sizeof(*commit) + request_size > COMMIT_POOLED_BYTES) {
        commit = malloc(sizeof(*commit) + request_size);
        if (commit)
            commit->pooled = false;
        return commit;
    }
    pthread_mutex_lock(&s->pool_mutex);
    commit = s->pool;
    if (commit)
        s->pool = commit->next;
    pthread_mutex_unlock(&s->pool_mutex);
    if (!commit)
        commit = aligned_alloc(LINE_SIZE, COMMIT_POOLED_BYTES);
    if (commit)
        commit->pooled = true;
    return commit;
}

static void chain_push(struct commit_chain *chain, struct commit *commit) {
    commit->next = NULL;
    if (chain->first)
        chain->last->next = commit;
    else
        chain->first = commit;
    chain->last = commit;
    chain->count++;
}

static void commits_free(struct commit *first) {
    for (struct commit *commit = first, *next; commit; commit = next) {
        next = commit->next;
        free(commit);
    }
}

static void commits_give(struct shelf *s, struct commit *first) {
    struct commit_chain kept = {0};
    for (struct commit *commit = first, *next; commit; commit = next) {
        next = commit->next;
        if (commit->pooled)
            chain_push(&kept, commit);
        else
            free(commit);
    }
    if (!kept.first)
        return;
    pthread_mutex_lock(&s->pool_mutex);
    kept.last->next = s->pool;
    s->pool = kept.first;
    pthread_mutex_unlock(&s->pool_mutex);
}

/* ---- The queue of completions ------------------------------------------------------------------------------------- */

/* The descriptor is touched under the lock, so it never disagrees with the queue. */
static void completions_push(struct shelf *s, const struct commit_chain *chain) {
    if (chain->count == 0)
        return;
    pthread_mutex_lock(&s->queue_mutex);
    if (s->queue.first) {
        s->queue.last->next = chain->first;
    } else {
        s->queue.first = chain->first;
        (void)!write(s->queue_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
    s->queue.last = chain->last;
    s->queue.count += chain->count;
    pthread_mutex_unlock(&s->queue_mutex);
    atomic_fetch_sub(&s->async_count, chain->count);
    handle_wake(s);
}

static void completion_push(struct shelf *s, struct commit *commit) {
    struct commit_chain chain = {0};
    chain_push(&chain, commit);
    completions_push(s, &chain);
}

/* Unlinks up to `count_max`, in order. */
static struct commit *completions_pop(struct shelf *s, size_t count_max) {
    pthread_mutex_lock(&s->queue_mutex);
    struct commit *first = s->queue.first, *last = first ? s->queue.last : NULL;
    if (count_max < s->queue.count) {
        last = NULL;
        for (size_t count = 0; count < count_max; count++)
            last = last ? last->next : first;
    }
    if (last) {
        s->queue.first = last->next;
        s->queue.count -= count_max < s->queue.count ? count_max : s->queue.count;
        last->next = NULL;
        if (!s->queue.first)
            (void)!read(s->queue_fd, &(uint64_t){0}, sizeof(uint64_t));
    }
    pthread_mutex_unlock(&s->queue_mutex);
    return last ? first : NULL;
}

size_t shelf_completions(struct shelf *s, struct shelf_completion *ret_completions, size_t count_max) {
    if (handle_check(s) != SHELF_OK)
        return 0;
    size_t count = 0;
    service_poll_look(s->service);
    struct commit *first = completions_pop(s, count_max);
    for (const struct commit *commit = first; commit; commit = commit->next) {
        ret_completions[count++] = (struct shelf_completion){
            .tag = commit->tag,
            .result = (shelf_result)commit->request.reply.result,
            .receipt = commit->request.reply.receipt,
        };
    }
    commits_give(s, first);
    return count;
}

int shelf_completion_fd(struct shelf *s) {
    return handle_check(s) == SHELF_OK ? service_poll_fd(s->service, s->queue_fd) : -1;
}

void completions_discard(struct shelf *s) {
    commits_free(completions_pop(s, SIZE_MAX));
    commits_free(s->pool);
    s->pool = NULL;
}

/* ---- Without waiting ---------------------------------------------------------------------------------------------- */

static void commit_done(struct node_request *first);

static struct commit *commit_of(struct node_request *request) {
    return (struct commit *)(void *)((char *)request - offsetof(struct commit, request));
}

static struct commit_request *commit_bytes(struct commit *commit) {
    return (struct commit_request *)(void *)(commit + 1);
}

/* The place is taken, the request encoded for it. */
static void commit_post(struct shelf *s, struct commit *commit) {
    const struct commit_request *bytes = commit_bytes(commit);
    commit->request.bytes = bytes;
    commit->request.size = bytes->header.size;
    commit->request.done = commit_done;
    commit->request.credentials = NULL;
    service_post(s->service, &commit->request);
}

/* Tries a new place; false: there is none now. */
static bool commit_repost(struct shelf *s, struct commit *commit) {
    if (!place_try(s, commit))
        return false;
    struct commit_request *bytes = commit_bytes(commit);
    bytes->session = commit->lane->session;
    bytes->holder = commit->lane->holder;
    bytes->sequence = commit->sequence;
    commit_post(s, commit);
    return true;
}

/* The waiting ones get places in the new lane, or the reason why there is none. */
static void reopen_done(struct node_request *request) {
    struct shelf *s = (struct shelf *)(void *)((char *)request - offsetof(struct shelf, reopen.request));
    struct reply reply = request->reply;
    if (reply.result == SHELF_OK)
        reply.result = lanes_add(s, &reply);
    pthread_mutex_lock(&s->lanes_mutex);
    struct commit *waiting = s->reopen.waiting;
    s->reopen.waiting = NULL;
    s->reopen.busy = false;
    pthread_mutex_unlock(&s->lanes_mutex);
    for (struct commit *commit = waiting, *next; commit; commit = next) {
        next = commit->next;
        if (reply.result == SHELF_OK && commit_repost(s, commit))
            continue;
        commit->request.reply.result = reply.result == SHELF_OK ? (uint32_t)SHELF_UNAVAILABLE : reply.result;
        completion_push(s, commit);
    }
}

/* Puts the commit aside until there is a new lane. */
static void reopen_wait(struct shelf *s, struct commit *commit) {
    pthread_mutex_lock(&s->lanes_mutex);
    commit->next = s->reopen.waiting;
    s->reopen.waiting = commit;
    bool mine = !s->reopen.busy;
    s->reopen.busy = true;
    pthread_mutex_unlock(&s->lanes_mutex);
    if (!mine)
        return;
    s->reopen.bytes =
        (struct session_request){.header = {.size = sizeof(s->reopen.bytes), .kind = REQUEST_SESSION_OPEN}};
    s->reopen.request = (struct node_request){
        .bytes = &s->reopen.bytes, .size = sizeof(s->reopen.bytes), .done = reopen_done};
    service_post(s->service, &s->reopen.request);
}

/* An answer that may have been about the session or the place instead of the commit. True: it is submitted again, or will
 * be. A session may be closed as soon as its window is empty, so the old place is given back last. */
static bool commit_again(struct shelf *s, struct commit *commit) {
    struct lane *lane = commit->lane;
    uint64_t sequence = commit->sequence;
    bool forgotten = session_forgotten(commit, &commit->request.reply);
    if (forgotten)
        lane_bury(s, lane);
    bool again = (forgotten || sequence_burnt(commit, &commit->request.reply)) && commit_repost(s, commit);
    if (!again)
        commit->request.reply.receipt.sequence = sequence;
    lane_release(s, lane, sequence);
    if (!again && forgotten)
        reopen_wait(s, commit);
    return again || forgotten;
}

/* In the thread that drives the node: short, never blocking. */
static void commit_done(struct node_request *first) {
    struct shelf *s = commit_of(first)->s; /* one handle has one node */
    struct places places = {0};
    struct commit_chain ended = {0};
    for (struct node_request *request = first, *next; request; request = next) {
        next = request->next;
        struct commit *commit = commit_of(request);
        if (request->reply.result == SHELF_OK) {
            request->reply.receipt.sequence = commit->sequence;
            places_add(s, &places, commit->lane, commit->sequence, true);
        } else {
            places_release(s, &places);
            if (commit_again(s, commit))
                continue;
        }
        stats_count(s, (shelf_result)request->reply.result);
        chain_push(&ended, commit);
    }
    places_release(s, &places);
    completions_push(s, &ended);
}

/* A commit of its own, so that the transaction, with all the memory it has touched, can serve the next one at once. */
static struct commit *commit_detach(struct shelf *s, const struct commit *own,
                                    const struct commit_request *request, uint64_t tag) {
    size_t size = request ? request->header.size : 0;
    struct commit *commit = commit_make(s, size);
    if (commit) {
        commit->session = own->session;
        commit->sequence_set = own->sequence_set;
        commit->lane = own->lane;
        commit->sequence = own->sequence;
        commit->s = s;
        commit->tag = tag;
        if (request)
            memcpy(commit_bytes(commit), request, size);
    } else {
        detail_set("no memory for a request of %zu bytes", size);
    }
    return commit;
}

/* Nothing to send: its completion comes at once. */
static shelf_result commit_async_empty(struct shelf *s, struct shelf_tx *tx, uint64_t tag) {
    struct commit *commit = commit_detach(s, tx_commit_of(tx), NULL, tag);
    if (!commit)
        return SHELF_NO_MEMORY;
    commit->request.reply = (struct reply){.result = SHELF_OK, .receipt = receipt_empty(tx)};
    atomic_fetch_add(&s->async_count, 1);
    completion_push(s, commit);
    return SHELF_OK;
}

static shelf_result commit_async(struct shelf *s, struct shelf_tx *tx, uint64_t tag) {
    struct commit *own = tx_commit_of(tx);
    shelf_result result = place_take(s, own, s->commit_deadline_ms);
    if (result != SHELF_OK)
        return result;
    const struct commit_request *request;
    struct commit *commit = NULL;
    result = tx_encode(tx, own->lane->session, own->lane->holder, own->sequence, &request);
    if (result == SHELF_OK) {
        commit = commit_detach(s, own, request, tag);
        result = commit ? SHELF_OK : SHELF_NO_MEMORY;
    }
    if (result != SHELF_OK) {
        lane_release(s, own->lane, own->sequence);
        return result;
    }
    atomic_fetch_add(&s->async_count, 1);
    commit_post(s, commit);
    return SHELF_OK;
}

shelf_result shelf_commit_async(struct shelf_tx *tx, uint64_t tag) {
    struct shelf *s = shelf_tx_shelf(tx);
    bool empty;
    shelf_result result = commit_check(tx, tx_commit_of(tx), &empty);
    if (result == SHELF_OK)
        result = empty ? commit_async_empty(s, tx, tag) : commit_async(s, tx, tag);
    tx_end(tx);
    return result;
}
