// SPDX-License-Identifier: Apache-2.0
/*
 * session.c: named sessions: a window (lane.c) that a program can come back to after it was restarted.
 */
#include <stdlib.h>
#include <string.h>

#include "base/detail.h"
#include "client/handle.h"

shelf_result shelf_session_open(struct shelf *s, const char *name, struct shelf_session **ret_session) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK)
        result = name_check("session", name);
    if (result != SHELF_OK)
        return result;
    struct shelf_session *session =
        aligned_alloc(LINE_SIZE, (sizeof(*session) + LINE_SIZE - 1) / LINE_SIZE * LINE_SIZE);
    if (!session) {
        detail_set("no memory for a session");
        return SHELF_NO_MEMORY;
    }
    struct session_request request = {.header = {.size = sizeof(request), .kind = REQUEST_SESSION_OPEN}};
    memcpy(request.name, name, strlen(name) + 1);
    struct reply reply;
    result = handle_call(s, &request, sizeof(request), &reply);
    if (result != SHELF_OK) {
        free(session);
        return result;
    }
    session->s = s;
    lane_begin(&session->lane, &reply);
    memcpy(session->name, name, strlen(name) + 1);
    *ret_session = session;
    return SHELF_OK;
}

static bool session_quiet(void *context) {
    struct shelf_session *session = context;
    return atomic_load(&session->lane.pending) == 0;
}

void shelf_session_close(struct shelf_session *session) {
    /* In the child of a fork, the commits under way are the parent's and never end here. */
    if (!session || handle_check(session->s) != SHELF_OK)
        return;
    while (!handle_wait(session->s, session_quiet, session, 1000))
        continue;
    free(session);
}

shelf_result shelf_session_expire(struct shelf_session *session) {
    shelf_result result = handle_check(session->s);
    if (result != SHELF_OK)
        return result;
    struct session_request request = {
        .header = {.size = sizeof(request), .kind = REQUEST_SESSION_EXPIRE},
        .session = session->lane.session,
        .holder = session->lane.holder,
    };
    struct reply reply;
    result = handle_call(session->s, &request, sizeof(request), &reply);
    shelf_session_close(session);
    return result;
}

uint64_t shelf_session_last(const struct shelf_session *session) {
    return atomic_load(&session->lane.last);
}

shelf_result shelf_session_begin(struct shelf_session *session, unsigned flags, struct shelf_tx **ret_tx) {
    if (flags & SHELF_READ_ONLY) {
        detail_set("a session is for read-write transactions");
        return SHELF_INVALID;
    }
    return handle_begin(session->s, flags | SHELF_READ_WRITE, session, ret_tx);
}

shelf_result shelf_tx_sequence_set(struct shelf_tx *tx, uint64_t sequence) {
    shelf_result result = handle_check(shelf_tx_shelf(tx));
    if (result != SHELF_OK)
        return result;
    struct commit *commit = tx_commit_of(tx);
    if (!commit->session || sequence == 0 || sequence == UINT64_MAX) {
        detail_set(commit->session ? "sequences count from 1"
                                   : "only transactions of a named session have a sequence to set");
        return SHELF_INVALID;
    }
    commit->sequence_set = sequence;
    return SHELF_OK;
}

shelf_result session_outcome(struct shelf_session *session, uint64_t sequence, uint32_t deadline_ms,
                             struct shelf_receipt *ret_receipt) {
    struct session_request request = {
        .header = {.size = sizeof(request), .kind = REQUEST_SESSION_OUTCOME},
        .session = session->lane.session,
        .holder = session->lane.holder,
        .sequence = sequence,
    };
    struct reply reply;
    shelf_result result = service_call(session->s->service, &request, sizeof(request), deadline_ms, &reply);
    if (result == SHELF_OK) {
        reply_explain(&reply);
        result = (shelf_result)reply.result;
    }
    /* What was fenced is no sequence for a new commit. */
    if (result == SHELF_OK || result == SHELF_ABORTED)
        lane_skip(&session->lane, sequence);
    if (result == SHELF_OK) {
        lane_committed(&session->lane, sequence);
        if (ret_receipt)
            *ret_receipt = reply.receipt;
    }
    return result;
}

shelf_result shelf_session_outcome(struct shelf_session *session, uint64_t sequence,
                                   struct shelf_receipt *ret_receipt) {
    shelf_result result = handle_check(session->s);
    if (result != SHELF_OK)
        return result;
    if (sequence == 0 || sequence == UINT64_MAX) {
        detail_set("sequences count from 1");
        return SHELF_INVALID;
    }
    return session_outcome(session, sequence, session->s->commit_deadline_ms, ret_receipt);
}
