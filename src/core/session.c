// SPDX-License-Identifier: Apache-2.0
/*
 * session.c: exactly once. A session's table entry and its last 64 results live in the system region; the record
 * that carries a transaction carries its result, so both survive or neither.
 *
 * `core->sessions` mirrors the headers as of everything admitted (C4); results are looked up in overlay and image.
 *
 *   S1  A sequence is admitted at most once: its result is stored by the same record, and looked up before admission.
 *   S2  An answer from the memory of a record that is not applied yet waits for it (rule K1).
 *   S3  Who asks for the outcome of a sequence that is not there has a fence logged in its place: it can never commit.
 *   S4  Ids are never reused: index of creation and place.
 */
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
static struct session *session_for(struct core *core, uint64_t id, uint64_t holder, uint64_t token) {
    struct session *session = session_find(core, id);
    if (session == NULL || session_created_index(id) > core->applied) {
        core_refuse(core, token, SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
        return NULL;
    }
    if (session->holder != holder) {
        SOMETIMES(SESSION_HOLDER_FENCED);
        core_refuse(core, token, SHELF_FENCED, REASON_SESSION_FENCED);
        return NULL;
    }
    return session;
}

/* ---- What is remembered of a sequence ------------------------------------------------------------------------------ */

enum memory { MEMORY_NONE, MEMORY_STORED, MEMORY_GONE };

static enum memory sequence_recall(const struct core *core, const struct session *session, uint64_t sequence,
                                   struct session_result *ret_result) {
    newest_read(core, result_address(session_place(session->id), sequence), ret_result, sizeof(*ret_result));
    bool ours =
        ret_result->outcome != SESSION_OUTCOME_NONE && ret_result->index > session_created_index(session->id);
    if (ours && ret_result->sequence == sequence) {
        return MEMORY_STORED;
    }
    bool below = session->last_sequence >= SHELF_SESSION_WINDOW &&
                 sequence <= session->last_sequence - SHELF_SESSION_WINDOW;
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
    struct batch *batch = result->index == core->building->index ? core->building : core->log.writing;
    ASSERT(batch != NULL && batch->index == result->index);
    if (batch->reply_count == BATCH_REPLIES_MAX) {
        core->effects->refused = true;
        return;
    }
    SOMETIMES(ADMIT_DUPLICATE_WAITED);
    *batch_reply_add(batch, token) = reply;
}

bool session_admits(struct core *core, uint64_t id, uint64_t holder, uint64_t sequence, uint64_t token) {
    struct session *session = session_for(core, id, holder, token);
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
    session->last_sequence = max_u64(session->last_sequence, result->sequence);
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

/* A free place; if there is none, the unnamed session that has been idle for longest makes room (at least 10 s idle). */
#define SESSION_EVICT_IDLE_MS 10000u
static struct session *session_place_take(struct core *core) {
    struct session *oldest = NULL;
    for (uint32_t place = 0; place < SHELF_SESSIONS_MAX; place++) {
        struct session *session = &core->sessions[place];
        uint64_t id = core->building->index << 16 | place;
        if (session->id == 0 && session->expired_id != id) { /* S4 */
            return session;
        }
        if (session->id != 0 && !session->named && session->id != id &&
            core->now_ms - session->last_used_ms >= SESSION_EVICT_IDLE_MS &&
            (oldest == NULL || session->last_used_ms < oldest->last_used_ms)) {
            oldest = session;
        }
    }
    if (oldest != NULL) {
        session_forget(core, oldest);
    }
    return oldest;
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

void session_on_open(struct core *core, const struct session_request *request, uint64_t token) {
    struct session_header header = {
        .holder = 1, .created_time_ms = core->now_ms, .named = request->name[0] != 0};
    for (size_t i = 0; request->name[i] != 0; i++) {
        header.name[i] = request->name[i];
    }
    size_t bytes = 2 * sizeof(struct record_tx) + 2 * sizeof(struct record_range) + sizeof(header) + 8;
    if (!admit_has_room(core, token, bytes, 8)) {
        return;
    }
    struct session *session = header.named ? session_named(core, header.name) : NULL;
    if (session != NULL) {
        session_resume(core, session, token);
        return;
    }
    session = session_place_take(core);
    if (session == NULL) {
        core_reply_result(core, token, SHELF_NO_SPACE, REASON_SESSION_TABLE_FULL);
        return;
    }
    SOMETIMES(SESSION_OPENED);
    uint32_t place = (uint32_t)(session - core->sessions);
    header.id = core->building->index << 16 | place; /* S4 */
    *session = (struct session){
        .id = header.id, .holder = header.holder, .last_used_ms = core->now_ms, .named = header.named != 0};
    memcpy(session->name, header.name, sizeof(header.name));
    core->session_count++;
    struct record_tx *tx = batch_tx_begin(core, 0, 0);
    batch_range_add(core, tx, header_address(place), &header, sizeof(header));
    batch_tx_end(core, tx);
    session_opened_reply(core, session, token);
}

void session_on_expire(struct core *core, const struct session_request *request, uint64_t token) {
    struct session *session = session_for(core, request->session, request->holder, token);
    if (session == NULL ||
        !admit_has_room(core, token, sizeof(struct record_tx) + sizeof(struct record_range) + 8, 2)) {
        return;
    }
    SOMETIMES(SESSION_EXPIRED_ASKED);
    session_forget(core, session);
    batch_reply_add(core->building, token)->receipt.index = core->building->index;
}

void session_on_outcome(struct core *core, const struct session_request *request, uint64_t token) {
    struct session *session = session_for(core, request->session, request->holder, token);
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
    if (!admit_has_room(core, token, sizeof(struct record_tx) + SESSION_RANGE_BYTES_MAX, 4)) {
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

void session_expire_idle(struct core *core) {
    if (core->closing || core->now_ms - core->session_scan_ms < SESSION_SCAN_INTERVAL_MS) {
        return;
    }
    core->session_scan_ms = core->now_ms;
    for (uint32_t place = 0; place < SHELF_SESSIONS_MAX; place++) {
        struct session *session = &core->sessions[place];
        uint64_t idle_max =
            session->named ? core->config.session_named_idle_ms : core->config.session_idle_ms;
        if (session->id == 0 || core->now_ms - session->last_used_ms < idle_max) {
            continue;
        }
        if (batch_room(core, sizeof(struct record_tx) + sizeof(struct record_range) + 8, 2) != ROOM_YES) {
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
                session->last_sequence = max_u64(session->last_sequence, result.sequence);
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
