// SPDX-License-Identifier: Apache-2.0
/*
 * admit.c: a request becomes part of the batch that is being built, or gets its answer.
 *
 *   A1  Nothing of a request is believed: its sizes add up, its copy is checked, each word is loaded once.
 *   A2  A transaction is certified against everything admitted (versions of the image, lines of both overlays): all
 *       lines it read are unchanged since the index it read at. (Backward certification over a log: Bernstein, Reid,
 *       Das, "Hyder", CIDR 2011, section 3.) An index names what was read only together with the image: of this life of this
 *       node, or of another node that has applied the same log, which the identity of the last record it had applied proves.
 *   A3  A refusal that rests on a record whose fate is open waits for that fate (rule K2); one that rests on the image
 *       is answered at once.
 *   A4  What is added to the batch is physical: operations are resolved to bytes here, against everything admitted.
 *   A5  Either all of a transaction enters the batch, or nothing of it.
 *   A6  What it reads it may read, what it changes it may write, as of everything admitted. (An operation is a change: that its
 *       result is told is no more than who may change a word can find out.)
 */
#include "core/rights.h"
#include "core/state.h"

/* ---- Building a batch ---------------------------------------------------------------------------------------------- */

static uint8_t *batch_end(struct batch *batch) {
    return batch_payload(batch) + batch->payload_size;
}

struct record_tx *batch_tx_begin(struct core *core, uint64_t session, uint64_t sequence) {
    struct batch *batch = core->building;
    struct record_tx *tx = (struct record_tx *)batch_end(batch);
    *tx = (struct record_tx){.session = session, .sequence = sequence};
    batch->payload_size += sizeof(*tx);
    return tx;
}

void batch_range_add(struct core *core, struct record_tx *tx, uint64_t address, const void *bytes,
                     uint32_t size) {
    struct batch *batch = core->building;
    struct record_range *range = (struct record_range *)batch_end(batch);
    size_t padded = align_up(size, 8);
    ASSERT(batch->payload_size + sizeof(*range) + padded <= batch->payload_max);
    *range = (struct record_range){.address = address, .size = size};
    memset((uint8_t *)(range + 1) + size, 0, padded - size);
    memcpy(range + 1, bytes, size);
    batch->payload_size += sizeof(*range) + padded;
    tx->range_count++;
    tx->size += (uint32_t)(sizeof(*range) + padded);
}

void batch_tx_end(struct core *core, struct record_tx *tx) {
    ASSERT((uint8_t *)(tx + 1) + tx->size == batch_end(core->building));
    core->building->tx_count++;
    if (core->building->tx_count > 1) {
        SOMETIMES(ADMIT_GROUPED);
    }
}

struct reply *batch_reply_add(struct batch *batch, uint64_t token) {
    ASSERT(batch->reply_count < BATCH_REPLIES_MAX);
    struct reply *reply = &batch->replies[batch->reply_count++];
    *reply = (struct reply){.token = token};
    return reply;
}

static enum room log_room(struct core *core) {
    struct log *log = &core->log;
    bool checkpoint_helps = log->head.segment_sequence > core->superblock.segment_sequence;
    if (core->checkpoint.state != CHECKPOINT_IDLE || log->reserve.busy) {
        SOMETIMES(LOG_FULL_WAITS_FOR_CHECKPOINT);
        return ROOM_WAIT;
    }
    if (checkpoint_helps) {
        core->checkpoint.wanted = true;
        core->checkpoint.log_needs = true;
        return ROOM_WAIT;
    }
    if (!log->reserve_failed && log->segment_count < log->segment_max) {
        return ROOM_WAIT; /* log_background() asks for it in this very step */
    }
    SOMETIMES(LOG_NO_SPACE);
    return ROOM_NO_SPACE;
}

enum room batch_room(struct core *core, size_t payload_bytes) {
    struct batch *batch = core->building;
    if (core->log.write_waits_space) {
        return ROOM_NO_SPACE;
    }
    bool fits = batch->tx_count < RECORD_TXS_MAX &&
                batch->reply_count < BATCH_REPLIES_MAX - RECORD_TXS_MAX / 2 &&
                payload_bytes <= batch->payload_max - batch->payload_size;
    if (!fits) {
        return batch->tx_count > 0 ? ROOM_WAIT : ROOM_NEVER;
    }
    if (!log_has_room(core, batch->payload_size + payload_bytes, false)) {
        return log_room(core);
    }
    return ROOM_YES;
}

bool admit_has_room(struct core *core, uint64_t token, size_t payload_bytes) {
    switch (batch_room(core, payload_bytes)) {
    case ROOM_YES:
        return true;
    case ROOM_WAIT:
        SOMETIMES(ADMIT_REFUSED_NO_ROOM);
        core->effects->refused = true;
        return false;
    case ROOM_NO_SPACE:
        core_reply_result(core, token, SHELF_NO_SPACE, REASON_LOG_FULL);
        return false;
    case ROOM_NEVER:
        core_reply_result(core, token, SHELF_TOO_LARGE, REASON_REQUEST_TOO_LARGE);
        return false;
    }
    return false;
}

/* ---- Checking a commit --------------------------------------------------------------------------------------------- */

struct commit { /* a commit request, its header copied, its parts found */
    struct commit_request head;
    const uint8_t *lines;
    const uint8_t *operations;
    const uint8_t *ranges;
    uint64_t token;
    const struct credentials *credentials;
    const struct region
        *known; /* the region looked at last, and what may be done to it: ranges and lines come in runs */
    uint32_t rights;
};

static bool commit_parse(const struct event *event, struct commit *commit) {
    const uint8_t *bytes = event->request;
    if (event->request_size < sizeof(commit->head)) {
        return false;
    }
    memcpy(&commit->head, bytes, sizeof(commit->head)); /* A1: once */
    const struct commit_request *head = &commit->head;
    uint64_t lines_size = (uint64_t)head->line_count * sizeof(uint64_t);
    uint64_t operations_size = (uint64_t)head->operation_count * sizeof(struct request_operation);
    commit->lines = bytes + sizeof(*head);
    commit->operations = commit->lines + lines_size;
    commit->ranges = commit->operations + operations_size;
    commit->token = event->token;
    commit->credentials = event->credentials;
    commit->known = NULL;
    return head->header.size == event->request_size && head->ranges_size % 8 == 0 &&
           head->line_count <= SHELF_TX_LINES_READ_MAX && head->operation_count <= SHELF_TX_OPERATIONS_MAX &&
           head->range_count <= head->ranges_size / sizeof(struct record_range) &&
           sizeof(*head) + lines_size + operations_size + head->ranges_size == event->request_size;
}

/* A6 */
static bool may(struct commit *commit, const struct region *region, uint32_t rights) {
    if (commit->known != region) {
        commit->known = region;
        commit->rights = MUTANT(SKIP_RIGHTS)
                             ? RIGHT_ALL
                             : rights_of(commit->credentials, region->owner, region->group, region->mode);
    }
    return (commit->rights & rights) == rights;
}

/* May a client change what is there, with these rights? */
static enum reply_reason address_check(const struct core *core, struct commit *commit, uint64_t address,
                                       uint64_t size, uint32_t rights) {
    uint32_t number = shelf_addr_region(address);
    if (number == REGION_SYSTEM) {
        return REASON_REQUEST_SYSTEM;
    }
    const struct region *region = region_find(core, number);
    if (region == NULL || !region->admitted_live ||
        !range_within(shelf_addr_offset(address), size, region->size)) {
        return REASON_REQUEST_RANGE;
    }
    return may(commit, region, rights) ? REASON_NONE : REASON_DENIED;
}

/* Checks the ranges in the node's own copy (A1). */
static enum reply_reason ranges_check(const struct core *core, struct commit *commit, const uint8_t *ranges) {
    size_t at = 0, size = commit->head.ranges_size;
    for (uint32_t i = 0; i < commit->head.range_count; i++) {
        const struct record_range *range = (const struct record_range *)(ranges + at);
        if (size - at < sizeof(*range) || align_up(range->size, 8) > size - at - sizeof(*range) ||
            range->size == 0 || range->reserved != 0) {
            return REASON_REQUEST_MALFORMED;
        }
        enum reply_reason reason = address_check(core, commit, range->address, range->size, RIGHT_WRITE);
        if (reason != REASON_NONE) {
            return reason;
        }
        at += sizeof(*range) + align_up(range->size, 8);
    }
    return at == size ? REASON_NONE : REASON_REQUEST_MALFORMED;
}

static enum reply_reason operations_check(struct core *core, struct commit *commit) {
    memcpy(core->operations, commit->operations,
           commit->head.operation_count * sizeof(struct request_operation));
    for (uint32_t i = 0; i < commit->head.operation_count; i++) {
        const struct request_operation *operation = &core->operations[i];
        if (operation->code < OPERATION_ADD || operation->code > OPERATION_OR ||
            operation->address % 8 != 0) {
            return REASON_REQUEST_MALFORMED;
        }
        enum reply_reason reason =
            address_check(core, commit, operation->address, 8, RIGHT_ALL); /* its result is told */
        if (reason != REASON_NONE) {
            return reason;
        }
    }
    return REASON_NONE;
}

enum verdict {
    VERDICT_PASSES,
    VERDICT_CONFLICT,
    VERDICT_CONFLICT_PENDING,
    VERDICT_MALFORMED,
    VERDICT_DENIED,
    VERDICT_LATER, /* cannot be told yet */
};

/* One line that was read: is it unchanged since `index`, as far as it can be known? (A2) */
static enum verdict line_certify(struct core *core, struct commit *commit, uint64_t line,
                                 struct batch **ret_pending) {
    const struct region *region = region_find(core, (uint32_t)(line >> (ADDRESS_OFFSET_BITS - LINE_SHIFT)));
    uint64_t place = line & (((uint64_t)1 << (ADDRESS_OFFSET_BITS - LINE_SHIFT)) - 1);
    bool ahead = commit->head.index > core->applied; /* the reader has applied what is not applied here yet */
    if (region == NULL || !region->applied_live) {
        return ahead ? VERDICT_LATER : VERDICT_CONFLICT; /* dropped since */
    }
    if (region->number == REGION_SYSTEM) { /* clients never see it */
        return VERDICT_MALFORMED;
    }
    if (!region->admitted_live) { /* is being dropped */
        *ret_pending = core_batch_open(core);
        return VERDICT_CONFLICT_PENDING;
    }
    if (place >= region->size_applied >> LINE_SHIFT) {
        return ahead ? VERDICT_LATER : VERDICT_MALFORMED;
    }
    if (!may(commit, region, RIGHT_READ)) {
        return VERDICT_DENIED;
    }
    uint64_t version =
        version_index(atomic_load_explicit(&region->memory.versions[place], memory_order_relaxed));
    uint64_t floor = atomic_load_explicit(&core->image->regions[region->number].floor, memory_order_relaxed);
    if (max_u64(version, floor) > commit->head.index) {
        return VERDICT_CONFLICT;
    }
    if (MUTANT(CERTIFY_IGNORES_PENDING)) {
        return VERDICT_PASSES;
    }
    for (struct batch *batch = core->building; batch != NULL; batch = batch->older) {
        bool seen = batch->index <= commit->head.index || /* by a reader that is ahead */
                    (MUTANT(PENDING_IS_SEEN) && core->reader != NULL);
        if (!seen && overlay_find(&batch->overlay, line) != NULL) {
            *ret_pending = batch;
            return VERDICT_CONFLICT_PENDING;
        }
    }
    return VERDICT_PASSES;
}

/* Has the node from which the request comes applied the records of this log, up to where it read? */
static enum verdict reader_check(const struct core *core, const struct commit *commit) {
    const struct reader *reader = core->reader;
    if (reader->epoch == 0 || commit->head.index > reader->index) {
        return VERDICT_CONFLICT; /* read in another life of that node */
    }
    if (reader->index > core->log.last.index) {
        return VERDICT_LATER; /* (a primary that is none any more, and does not know) */
    }
    if (commit->head.index > core->applied) {
        SOMETIMES(FORWARDED_AHEAD); /* its disk was quicker than this one's */
    }
    const struct tail_record *record = tail_find(core, reader->index);
    if (record == NULL) { /* one of the same epoch that is later proves it as well */
        record = tail_find(core, core->cluster.tail_first);
    }
    return record != NULL && record->identity.epoch == reader->epoch ? VERDICT_PASSES : VERDICT_CONFLICT;
}

/* Do the indexes of what was read mean the same here? */
static enum verdict image_check(const struct core *core, const struct commit *commit) {
    if (core->reader != NULL) {
        return commit->head.line_count > 0 ? reader_check(core, commit) : VERDICT_PASSES;
    }
    if (commit->head.index > core->applied) {
        return VERDICT_CONFLICT; /* read from an image that this node has not reached */
    }
    /* Of an earlier life of the node. Floors tell that, too, unless it was read in a record that was lost. */
    return commit->head.line_count == 0 ||
                   commit->head.epoch == atomic_load_explicit(&core->image->epoch, memory_order_relaxed)
               ? VERDICT_PASSES
               : VERDICT_CONFLICT;
}

static enum verdict commit_certify(struct core *core, struct commit *commit, struct batch **ret_pending) {
    enum verdict verdict = image_check(core, commit);
    if (verdict != VERDICT_PASSES) {
        return verdict;
    }
    if (commit->head.line_count > 0) {
        overlays_complete(core);
    }
    uint32_t line_count = MUTANT(NO_CERTIFY) ? 0 : commit->head.line_count;
    line_count = MUTANT(FORWARDED_UNCERTIFIED) ? 0 : line_count;
    for (uint32_t i = 0; i < line_count; i++) {
        uint64_t line;
        memcpy(&line, commit->lines + i * sizeof(line), sizeof(line));
        enum verdict found = line_certify(core, commit, line, ret_pending);
        if (found == VERDICT_CONFLICT_PENDING) {
            verdict = found;
        } else if (found != VERDICT_PASSES) {
            return found;
        }
    }
    return verdict;
}

/* ---- Adding it ----------------------------------------------------------------------------------------------------- */

static uint64_t operation_result(uint32_t code, uint64_t value, uint64_t operand) {
    switch (code) {
    case OPERATION_ADD:
        return value + operand;
    case OPERATION_MIN:
        return min_u64(value, operand);
    case OPERATION_MAX:
        return max_u64(value, operand);
    case OPERATION_AND:
        return value & operand;
    default:
        return value | operand;
    }
}

/* A4. The results go into the receipt and into the session's memory. */
static void operations_add(struct core *core, struct record_tx *tx, uint32_t count,
                           struct session_result *result) {
    for (uint32_t i = 0; i < count; i++) {
        const struct request_operation *operation = &core->operations[i];
        uint64_t value;
        newest_read(core, operation->address, &value, sizeof(value));
        if (overlay_find(&core->building->overlay, operation->address >> LINE_SHIFT) != NULL) {
            SOMETIMES(ADMIT_OPERATION_ON_OVERLAY);
        }
        value = operation_result(operation->code, value, operation->operand);
        batch_range_add(core, tx, operation->address, &value, sizeof(value));
        if (result->result_count < SHELF_TX_RESULTS_MAX) {
            result->results[result->result_count++] = value;
        }
    }
}

/* The ranges are in the record already, right behind tx. */
static void ranges_adopt(struct core *core, struct record_tx *tx, const struct commit *commit) {
    core->building->payload_size += commit->head.ranges_size;
    tx->range_count = commit->head.range_count;
    tx->size = commit->head.ranges_size;
}

static void commit_add(struct core *core, struct record_tx *tx, const struct commit *commit) {
    struct batch *batch = core->building;
    struct session_result result = {
        .sequence = commit->head.sequence, .index = batch->index, .outcome = SESSION_OUTCOME_COMMITTED};
    ranges_adopt(core, tx, commit);
    operations_add(core, tx, commit->head.operation_count, &result);
    session_result_add(core, tx, commit->head.session, &result);
    batch_tx_end(core, tx);
    core->status.commits++;
    struct reply *reply = batch_reply_add(batch, commit->token);
    reply->receipt = (struct shelf_receipt){.index = batch->index,
                                            .epoch = core->epoch,
                                            .sequence = commit->head.sequence,
                                            .durability = SHELF_DURABLE_LOCAL,
                                            .result_count = result.result_count};
    memcpy(reply->receipt.results, result.results, result.result_count * sizeof(result.results[0]));
}

static void conflict_answer(struct core *core, enum verdict verdict, struct batch *pending, uint64_t token) {
    core->status.conflicts++;
    bool waits = verdict == VERDICT_CONFLICT_PENDING && !MUTANT(CONFLICT_BEFORE_FATE);
    waits = MUTANT(REFUSED_BEFORE_FATE) ? false : waits;
    if (waits) {
        if (pending->reply_count == BATCH_REPLIES_MAX) {
            core->effects->refused = true;
            return;
        }
        SOMETIMES(ADMIT_CONFLICT_WAITED);
        struct reply *reply = batch_reply_add(pending, token); /* A3 */
        reply->result = SHELF_CONFLICT;
        reply->reason = REASON_CERTIFY;
        return;
    }
    SOMETIMES(ADMIT_CONFLICT);
    core_reply_result(core, token, SHELF_CONFLICT, REASON_CERTIFY);
}

static enum reply_reason verdict_reason(enum verdict verdict) {
    return verdict == VERDICT_MALFORMED ? REASON_REQUEST_MALFORMED
           : verdict == VERDICT_DENIED  ? REASON_DENIED
                                        : REASON_NONE;
}

static void on_commit(struct core *core, const struct event *event) {
    struct commit commit;
    if (!commit_parse(event, &commit)) {
        core_reply_result(core, event->token, SHELF_INVALID, REASON_REQUEST_MALFORMED);
        return;
    }
    const struct commit_request *head = &commit.head;
    if (head->ranges_size > REQUEST_RANGES_BYTES_MAX) {
        core_reply_result(core, commit.token, SHELF_TOO_LARGE, REASON_REQUEST_TOO_LARGE);
        return;
    }
    if (!session_admits(core, head, commit.credentials, commit.token)) {
        return;
    }
    size_t operation_bytes = head->operation_count * (sizeof(struct record_range) + sizeof(uint64_t));
    if (!admit_has_room(core, commit.token,
                        sizeof(struct record_tx) + head->ranges_size + operation_bytes +
                            SESSION_RANGE_BYTES_MAX)) {
        return;
    }
    struct batch *pending = NULL;
    enum verdict verdict = commit_certify(core, &commit, &pending);
    if (verdict == VERDICT_CONFLICT || verdict == VERDICT_CONFLICT_PENDING) {
        conflict_answer(core, verdict, pending, commit.token);
        return;
    }
    if (verdict == VERDICT_LATER) {
        core->effects->refused = true;
        return;
    }
    struct batch *batch = core->building;
    size_t payload_before = batch->payload_size;
    struct record_tx *tx = batch_tx_begin(core, head->session, head->sequence);
    memcpy(tx + 1, commit.ranges, head->ranges_size); /* the one copy */
    enum reply_reason reason = verdict_reason(verdict);
    if (reason == REASON_NONE) {
        reason = operations_check(core, &commit);
    }
    if (reason == REASON_NONE) {
        reason = ranges_check(core, &commit, (const uint8_t *)(tx + 1));
    }
    if (reason != REASON_NONE) {
        batch->payload_size = payload_before; /* A5 */
        bool denied = reason == REASON_REQUEST_SYSTEM || reason == REASON_DENIED;
        if (reason == REASON_DENIED) {
            SOMETIMES(ADMIT_DENIED);
        }
        core_refuse(core, commit.token, denied ? SHELF_DENIED : SHELF_INVALID, reason); /* A3 */
        return;
    }
    commit_add(core, tx, &commit);
}

/* ---- All kinds of requests ----------------------------------------------------------------------------------------- */

static bool name_valid(const char name[64]) {
    for (uint32_t i = 0; i <= SHELF_NAME_MAX; i++) {
        if (name[i] == 0) {
            return true;
        }
    }
    return false;
}

static void on_session_request(struct core *core, const struct event *event, uint16_t kind) {
    struct session_request request;
    memcpy(&request, event->request, sizeof(request));
    if (!name_valid(request.name)) {
        core_reply_result(core, event->token, SHELF_INVALID, REASON_REQUEST_MALFORMED);
    } else if (kind == REQUEST_SESSION_OPEN) {
        session_on_open(core, &request, event->credentials, event->token);
    } else if (kind == REQUEST_SESSION_KEEP) {
        session_on_keep(core, &request, event->credentials, event->token);
    } else if (kind == REQUEST_SESSION_EXPIRE) {
        session_on_expire(core, &request, event->credentials, event->token);
    } else {
        session_on_outcome(core, &request, event->credentials, event->token);
    }
}

void admit_request(struct core *core, const struct event *event) {
    struct request_header header = {0};
    if (event->request_size >= sizeof(header)) {
        memcpy(&header, event->request, sizeof(header));
    }
    if (header.kind == REQUEST_COMMIT) {
        on_commit(core, event);
    } else if (((header.kind >= REQUEST_SESSION_OPEN && header.kind <= REQUEST_SESSION_OUTCOME) ||
                header.kind == REQUEST_SESSION_KEEP) &&
               event->request_size == sizeof(struct session_request)) {
        on_session_request(core, event, header.kind);
    } else if (header.kind >= REQUEST_REGION_CREATE && header.kind <= REQUEST_REGION_ACCESS &&
               event->request_size == sizeof(struct region_request)) {
        struct region_request request;
        memcpy(&request, event->request, sizeof(request));
        request.header = header;
        if (name_valid(request.name)) {
            catalog_on_request(core, &request, event->credentials, event->token);
        } else {
            core_reply_result(core, event->token, SHELF_INVALID, REASON_REQUEST_MALFORMED);
        }
    } else {
        core_reply_result(core, event->token, SHELF_INVALID, REASON_REQUEST_MALFORMED);
    }
}
