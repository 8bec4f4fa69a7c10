// SPDX-License-Identifier: Apache-2.0
/*
 * session.c: exactly once. A session's table entry and its last 64 results live in the system region; the record
 * that carries a transaction carries its result, so both survive or neither.
 *
 * `core->sessions` mirrors the headers as of everything admitted (C4), with a bit for each sequence of the window, so that
 * a new one is known without a look at any result. Results of repeated ones are looked up in pending records and image.
 *
 *   S1  A sequence is admitted at most once: its result is stored by the same record, and looked up before admission.
 *   S2  An answer from the memory of a record that is not applied yet waits for it (rule K1).
 *   S3  Who asks for the outcome of a sequence that is not there has a fence logged in its place: it can never commit.
 *   S4  Ids are never reused: index of creation and place.
 *   S5  A session belongs to the user who opened it first. Nobody else (but root and the node's own program) can use, resume or
 *       end it, so it does no harm that ids can be guessed and names are known.
 *   S6  A user has at most SHARE times as many sessions as there are free places (or one), so nobody can fill the table for all,
 *       however many want it, and one alone has three quarters of it. (Choudhury, Hahne, "Dynamic queue length thresholds for
 *       shared-memory packet switches", IEEE/ACM Transactions on Networking 6(2), 1998.)
 *   S7  An unnamed session that was opened under an earlier node is kept for its client to come back. Who has used it or said
 *       KEEP has; if nobody has within SESSION_RETURN_MS, its client is no more, and it expires. (Not in a cluster: clients of other
 *       nodes do not see that the primary has changed.)
 */
#include "core/rights.h"
#include "core/state.h"

static uint64_t header_address(uint32_t place) {
    return shelf_addr_make(REGION_SYSTEM,
                           SYSTEM_SESSIONS_OFFSET + (uint64_t)place * sizeof(struct session_header));
}

static uint64_t result_address(uint32_t place, uint64_t sequence) {
    uint64_t number = (uint64_t)place * SHELF_SESSION_WINDOW + sequence % SHELF_SESSION_WINDOW;
    return shelf_addr_make(REGION_SYSTEM, SYSTEM_RESULTS_OFFSET + number * sizeof(struct session_result));
}

static uint32_t session_place(uint64_t id) {
    return (uint32_t)(id & 0xffffu);
}

static uint64_t session_created_index(uint64_t id) {
    return id >> 16;
}

struct session *session_find(struct core *core, uint64_t id) {
    uint32_t place = session_place(id);
    if (id == 0 || place >= SHELF_SESSIONS_MAX || core->sessions[place].id != id) {
        return NULL;
    }
    return &core->sessions[place];
}

/* The session if it may be used by this holder; otherwise it has been answered. */
static struct session *session_for(struct core *core, uint64_t id, uint64_t holder,
                                   const struct credentials *credentials, uint64_t token) {
    struct session *session = session_find(core, id);
    if (session == NULL || session_created_index(id) > core->applied) {
        core_refuse(core, token, SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
        return NULL;
    }
    if (!rights_owns(credentials, session->owner)) { /* S5 */
        SOMETIMES(SESSION_DENIED);
        core_refuse(core, token, SHELF_DENIED, REASON_SESSION_DENIED);
        return NULL;
    }
    if (session->holder != holder) {
        SOMETIMES(SESSION_HOLDER_FENCED);
        core_refuse(core, token, SHELF_FENCED, REASON_SESSION_FENCED);
        return NULL;
    }
    session->seen = true; /* S7 */
    return session;
}

/* ---- What is remembered of a sequence ------------------------------------------------------------------------------ */

/* It has a result from now on. */
static void sequence_note(struct session *session, uint64_t sequence) {
    if (sequence > session->last_sequence) {
        uint64_t shift = sequence - session->last_sequence;
        session->window = shift < SHELF_SESSION_WINDOW ? session->window << shift : 0;
        session->last_sequence = sequence;
    }
    uint64_t back = session->last_sequence - sequence;
    if (back < SHELF_SESSION_WINDOW) {
        session->window |= (uint64_t)1 << back;
    }
}
_Static_assert(SHELF_SESSION_WINDOW == 64, "a bit each");

/* The common case: nothing was heard of it yet, and nothing that would say otherwise has been forgotten. */
static bool sequence_is_new(const struct session *session, uint64_t sequence) {
    uint64_t back = session->last_sequence - sequence;
    return sequence > session->last_sequence ||
           (back < SHELF_SESSION_WINDOW && (session->window >> back & 1) == 0);
}

/* The result in this batch's payload; false: there is none. A sequence has at most one (S1). */
static bool result_pending(const struct batch *batch, uint64_t id, uint64_t sequence,
                           struct session_result *ret_result) {
    const uint8_t *at = batch_payload(batch), *end = at + batch->payload_size;
    uint64_t address = result_address(session_place(id), sequence);
    while (at < end) {
        const struct record_tx *tx = (const struct record_tx *)at;
        at += sizeof(*tx);
        const uint8_t *tx_end = at + tx->size;
        while (at < tx_end && tx->session == id && tx->sequence == sequence) {
            const struct record_range *range = (const struct record_range *)at;
            if (range->address == address) {
                memcpy(ret_result, range + 1, range->size);
                return true;
            }
            at += sizeof(*range) + align_up(range->size, 8);
        }
        at = tx_end;
    }
    return false;
}

static void result_read(const struct core *core, uint64_t id, uint64_t sequence,
                        struct session_result *ret_result) {
    *ret_result = (struct session_result){0};
    const struct batch *batch = core->building;
    while (batch != NULL && !result_pending(batch, id, sequence, ret_result)) {
        batch = batch->older;
    }
    if (batch == NULL) {
        uint64_t offset = shelf_addr_offset(result_address(session_place(id), sequence));
        memcpy(ret_result, core->regions[0].memory.data + offset, sizeof(*ret_result));
    }
}

enum memory { MEMORY_NONE, MEMORY_STORED, MEMORY_GONE };

static enum memory sequence_recall(const struct core *core, const struct session *session, uint64_t sequence,
                                   struct session_result *ret_result) {
    if (sequence_is_new(session, sequence)) {
        return MEMORY_NONE;
    }
    if (MUTANT(PENDING_NOT_LOOKED_UP)) {
        memcpy(ret_result,
               core->regions[0].memory.data +
                   shelf_addr_offset(result_address(session_place(session->id), sequence)),
               sizeof(*ret_result));
        return ret_result->sequence == sequence && ret_result->outcome != SESSION_OUTCOME_NONE ? MEMORY_STORED
                                                                                               : MEMORY_NONE;
    }
    result_read(core, session->id, sequence, ret_result);
    bool ours =
        ret_result->outcome != SESSION_OUTCOME_NONE && ret_result->index > session_created_index(session->id);
    if (ours && ret_result->sequence == sequence) {
        return MEMORY_STORED;
    }
    bool below = session->last_sequence >= SHELF_SESSION_WINDOW &&
                 sequence <= session->last_sequence - SHELF_SESSION_WINDOW;
    if (MUTANT(BELOW_WINDOW_ADMITTED)) {
        return MEMORY_NONE;
    }
    return below || (ours && ret_result->sequence > sequence) ? MEMORY_GONE : MEMORY_NONE;
}

/* Answers with what is stored; if its record is not applied yet, with that record (S2). */
static void stored_answer(struct core *core, const struct session_result *result, uint64_t token) {
    struct reply reply = {.token = token};
    if (result->outcome == SESSION_OUTCOME_ABORTED) {
        reply.result = SHELF_ABORTED;
        reply.reason = REASON_SEQUENCE_FENCED;
    }
    reply.receipt =
        (struct shelf_receipt){.index = result->index,
                               .epoch = core->epoch,
                               .sequence = result->sequence,
                               .durability = SHELF_DURABLE_LOCAL,
                               .replayed = true,
                               .result_count = (uint32_t)min_u64(result->result_count, SHELF_TX_RESULTS_MAX)};
    memcpy(reply.receipt.results, result->results, sizeof(reply.receipt.results));
    SOMETIMES(ADMIT_DUPLICATE);
    if (result->index <= core->applied) {
        core_reply(core, &reply);
        return;
    }
    struct batch *batch = core->building;
    while (batch != NULL && batch->index != result->index) {
        batch = batch->older;
    }
    ASSERT(batch != NULL);
    if (batch->reply_count == BATCH_REPLIES_MAX) {
        core->effects->refused = true;
        return;
    }
    SOMETIMES(ADMIT_DUPLICATE_WAITED);
    *batch_reply_add(batch, token) = reply;
}

bool session_admits(struct core *core, const struct commit_request *head,
                    const struct credentials *credentials, uint64_t token) {
    uint64_t sequence = head->sequence;
    struct session *session = session_for(core, head->session, head->holder, credentials, token);
    if (session == NULL) {
        return false;
    }
    if (sequence == 0) {
        core_reply_result(core, token, SHELF_INVALID, REASON_REQUEST_MALFORMED);
        return false;
    }
    struct session_result result;
    switch (sequence_recall(core, session, sequence, &result)) {
    case MEMORY_STORED:
        if (MUTANT(NO_SESSION_CHECK)) {
            return true;
        }
        stored_answer(core, &result, token); /* S1 */
        return false;
    case MEMORY_GONE:
        SOMETIMES(SESSION_BELOW_WINDOW);
        core_refuse(core, token, SHELF_EXPIRED, REASON_SESSION_WINDOW);
        return false;
    case MEMORY_NONE:
        return true;
    }
    return false;
}

void session_result_add(struct core *core, struct record_tx *tx, uint64_t id, struct session_result *result) {
    struct session *session = session_find(core, id);
    ASSERT(session != NULL);
    sequence_note(session, result->sequence);
    if (result->outcome == SESSION_OUTCOME_COMMITTED) {
        session->committed_sequence = max_u64(session->committed_sequence, result->sequence);
    }
    session->last_used_ms = core->now_ms;
    result->time_ms = core->now_ms;
    if (MUTANT(SESSION_NOT_LOGGED)) {
        return;
    }
    uint32_t size =
        (uint32_t)(offsetof(struct session_result, results) + result->result_count * sizeof(uint64_t));
    batch_range_add(core, tx, result_address(session_place(id), result->sequence), result, size);
}

/* ---- Open, expire, outcome ----------------------------------------------------------------------------------------- */

static struct session *session_named(struct core *core, const char name[64]) {
    for (uint32_t place = 0; place < SHELF_SESSIONS_MAX; place++) {
        struct session *session = &core->sessions[place];
        if (session->id != 0 && session->named && memcmp(session->name, name, sizeof(session->name)) == 0) {
            return session;
        }
    }
    return NULL;
}

static void session_forget(struct core *core, struct session *session) {
    struct record_tx *tx = batch_tx_begin(core, 0, 0);
    uint64_t zero = 0;
    batch_range_add(core, tx, header_address(session_place(session->id)), &zero, sizeof(zero));
    batch_tx_end(core, tx);
    *session = (struct session){.expired_id = session->id};
    core->session_count--;
}

#define SESSION_EVICT_IDLE_MS 10000u
#define SESSION_USER_SHARE    3u

/* May it make room for another one? Rather than `than`? */
static bool session_is_idler(const struct core *core, const struct session *session,
                             const struct session *than) {
    uint64_t id = core->building->index << 16 | (uint64_t)(session - core->sessions);
    return !session->named && session->id != id && /* S4 */
           core->now_ms - session->last_used_ms >= SESSION_EVICT_IDLE_MS &&
           (than == NULL || session->last_used_ms < than->last_used_ms);
}

/* A free place. If there is none, or the user has its share (S6), the unnamed session that has been idle for longest makes room, if
 * that is long enough: any, or one of the user's. `user` NULL: the node's own program, which has no share. */
static struct session *session_place_take(struct core *core, const uint32_t *user,
                                          enum reply_reason *ret_reason) {
    struct session *room = NULL, *oldest = NULL, *oldest_own = NULL;
    uint32_t own_count = 0;
    for (uint32_t place = 0; place < SHELF_SESSIONS_MAX; place++) {
        struct session *session = &core->sessions[place];
        if (session->id == 0) {
            if (room == NULL && session->expired_id != (core->building->index << 16 | place)) { /* S4 */
                room = session;
            }
            continue;
        }
        bool own = user != NULL && session->owner == *user;
        own_count += own;
        if (session_is_idler(core, session, oldest)) {
            oldest = session;
        }
        if (own && session_is_idler(core, session, oldest_own)) {
            oldest_own = session;
        }
    }
    bool over = own_count > 0 && own_count >= SESSION_USER_SHARE * (SHELF_SESSIONS_MAX - core->session_count);
    struct session *session = over ? oldest_own : room != NULL ? room : oldest;
    if (session != NULL && session->id != 0) {
        session_forget(core, session);
    }
    *ret_reason = over ? REASON_SESSION_SHARE_USER : REASON_SESSION_TABLE_FULL;
    return session;
}

static void session_opened_reply(struct core *core, const struct session *session, uint64_t token) {
    struct reply *reply = batch_reply_add(core->building, token);
    reply->receipt.index = core->building->index;
    reply->receipt.epoch = core->epoch;
    reply->session = session->id;
    reply->holder = session->holder;
    reply->session_last = session->last_sequence;
    reply->session_committed = session->committed_sequence;
}

static void session_resume(struct core *core, struct session *session, uint64_t token) {
    SOMETIMES(SESSION_RESUMED);
    session->holder++;
    session->last_used_ms = core->now_ms;
    struct record_tx *tx = batch_tx_begin(core, 0, 0);
    uint64_t address = header_address(session_place(session->id)) + offsetof(struct session_header, holder);
    batch_range_add(core, tx, address, &session->holder, sizeof(session->holder));
    batch_tx_end(core, tx);
    session_opened_reply(core, session, token);
}

void session_on_open(struct core *core, const struct session_request *request,
                     const struct credentials *credentials, uint64_t token) {
    struct session_header header = {.holder = 1,
                                    .created_time_ms = core->now_ms,
                                    .named = request->name[0] != 0,
                                    .owner = credentials ? credentials->user : core->config.user};
    for (size_t i = 0; request->name[i] != 0; i++) {
        header.name[i] = request->name[i];
    }
    size_t bytes = 2 * sizeof(struct record_tx) + 2 * sizeof(struct record_range) + sizeof(header) + 8;
    if (!admit_has_room(core, token, bytes)) {
        return;
    }
    struct session *session = header.named ? session_named(core, header.name) : NULL;
    if (session != NULL && !rights_owns(credentials, session->owner)) { /* S5 */
        SOMETIMES(SESSION_DENIED);
        core_refuse(core, token, SHELF_DENIED, REASON_SESSION_DENIED);
        return;
    }
    if (session != NULL) {
        session_resume(core, session, token);
        return;
    }
    enum reply_reason reason;
    session = session_place_take(core, credentials ? &credentials->user : NULL, &reason);
    if (session == NULL) {
        core_reply_result(core, token, SHELF_NO_SPACE, reason);
        return;
    }
    SOMETIMES(SESSION_OPENED);
    uint32_t place = (uint32_t)(session - core->sessions);
    header.id = core->building->index << 16 | place; /* S4 */
    *session = (struct session){.id = header.id,
                                .holder = header.holder,
                                .last_used_ms = core->now_ms,
                                .named = header.named != 0,
                                .seen = true,
                                .owner = header.owner};
    memcpy(session->name, header.name, sizeof(header.name));
    core->session_count++;
    struct record_tx *tx = batch_tx_begin(core, 0, 0);
    batch_range_add(core, tx, header_address(place), &header, sizeof(header));
    batch_tx_end(core, tx);
    session_opened_reply(core, session, token);
}

void session_on_expire(struct core *core, const struct session_request *request,
                       const struct credentials *credentials, uint64_t token) {
    struct session *session = session_for(core, request->session, request->holder, credentials, token);
    if (session == NULL ||
        !admit_has_room(core, token, sizeof(struct record_tx) + sizeof(struct record_range) + 8)) {
        return;
    }
    SOMETIMES(SESSION_EXPIRED_ASKED);
    session_forget(core, session);
    batch_reply_add(core->building, token)->receipt.index = core->building->index;
}

void session_on_keep(struct core *core, const struct session_request *request,
                     const struct credentials *credentials, uint64_t token) {
    const struct session *session = session_for(core, request->session, request->holder, credentials, token);
    if (session == NULL) {
        return;
    }
    const struct reply reply = {.token = token,
                                .session = session->named ? 0 : session->id,
                                .holder = session->holder,
                                .session_last = session->last_sequence,
                                .session_committed = session->committed_sequence};
    core_reply(core, &reply);
}

void session_on_outcome(struct core *core, const struct session_request *request,
                        const struct credentials *credentials, uint64_t token) {
    struct session *session = session_for(core, request->session, request->holder, credentials, token);
    if (session == NULL) {
        return;
    }
    struct session_result result;
    switch (request->sequence == 0 ? MEMORY_GONE
                                   : sequence_recall(core, session, request->sequence, &result)) {
    case MEMORY_STORED:
        stored_answer(core, &result, token);
        return;
    case MEMORY_GONE:
        core_refuse(core, token, SHELF_EXPIRED, REASON_SESSION_WINDOW);
        return;
    case MEMORY_NONE:
        break;
    }
    if (!admit_has_room(core, token, sizeof(struct record_tx) + SESSION_RANGE_BYTES_MAX)) {
        return;
    }
    SOMETIMES(SEQUENCE_FENCED);
    if (MUTANT(NO_FENCE)) {
        core_reply_result(core, token, SHELF_ABORTED, REASON_SEQUENCE_FENCED);
        return;
    }
    result = (struct session_result){
        .sequence = request->sequence, .index = core->building->index, .outcome = SESSION_OUTCOME_ABORTED};
    struct record_tx *tx = batch_tx_begin(core, request->session, request->sequence);
    session_result_add(core, tx, request->session, &result); /* S3 */
    batch_tx_end(core, tx);
    struct reply *reply = batch_reply_add(core->building, token);
    reply->result = SHELF_ABORTED;
    reply->reason = REASON_SEQUENCE_FENCED;
    reply->receipt.sequence = request->sequence;
    reply->receipt.index = core->building->index;
}

/* ---- Time and recovery --------------------------------------------------------------------------------------------- */

#define SESSION_SCAN_INTERVAL_MS 10000u
#define SESSION_RETURN_MS        60000u /* clients look for the next node ten times a second */

static bool session_is_over(const struct core *core, const struct session *session) {
    if (session->id == 0) {
        return false;
    }
    if (session->named) {
        return core->now_ms - session->last_used_ms >= core->config.session_named_idle_ms;
    }
    return core->now_ms - session->last_used_ms >= core->config.session_idle_ms ||
           (!session->seen && !core->cluster.on &&
            core->now_ms - core->opened_ms >= SESSION_RETURN_MS); /* S7 */
}

void session_expire_idle(struct core *core) {
    if (core->closing || core->now_ms - core->session_scan_ms < SESSION_SCAN_INTERVAL_MS) {
        return;
    }
    core->session_scan_ms = core->now_ms;
    for (uint32_t place = 0; place < SHELF_SESSIONS_MAX; place++) {
        struct session *session = &core->sessions[place];
        if (!session_is_over(core, session)) {
            continue;
        }
        if (batch_room(core, sizeof(struct record_tx) + sizeof(struct record_range) + 8) != ROOM_YES) {
            return; /* at a later tick */
        }
        SOMETIMES(SESSION_EXPIRED_IDLE);
        session_forget(core, session);
    }
}

/* The page's checksum is right, so only a foreign hand can have written it. */
static void sessions_corrupt(struct core *core, uint64_t address) {
    core_stop(core, SHELF_CORRUPT, "sessions", "an entry of the table makes no sense",
              (struct file_id){.kind = FILE_PAGES, .region = REGION_SYSTEM}, shelf_addr_offset(address),
              core->applied);
}

void session_mirror_rebuild(struct core *core) {
    core->session_count = 0;
    core->session_scan_ms = core->now_ms;
    for (uint32_t place = 0; place < SHELF_SESSIONS_MAX; place++) {
        struct session_header header;
        newest_read(core, header_address(place), &header, sizeof(header));
        struct session *session = &core->sessions[place];
        *session = (struct session){0};
        if (header.id == 0) {
            continue;
        }
        if (session_place(header.id) != place || session_created_index(header.id) > core->applied) {
            sessions_corrupt(core, header_address(place));
            return;
        }
        core->session_count++;
        session->id = header.id;
        session->holder = header.holder;
        session->named = header.named != 0;
        session->owner = header.owner;
        session->last_used_ms = header.created_time_ms;
        memcpy(session->name, header.name, sizeof(session->name));
        for (uint64_t slot = 0; slot < SHELF_SESSION_WINDOW; slot++) {
            struct session_result result;
            newest_read(core, result_address(place, slot), &result, sizeof(result));
            if (result.outcome != SESSION_OUTCOME_NONE && result.index > core->applied) {
                sessions_corrupt(core, result_address(place, slot));
                return;
            }
            if (result.outcome != SESSION_OUTCOME_NONE && result.index > session_created_index(header.id)) {
                sequence_note(session, result.sequence);
                if (result.outcome == SESSION_OUTCOME_COMMITTED) {
                    session->committed_sequence = max_u64(session->committed_sequence, result.sequence);
                }
                session->last_used_ms = max_u64(session->last_used_ms, result.time_ms);
            }
        }
        core->now_ms =
            max_u64(core->now_ms, session->last_used_ms); /* a clock set back expires nobody early */
    }
}
