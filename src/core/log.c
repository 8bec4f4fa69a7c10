// SPDX-License-Identifier: Apache-2.0
/*
 * log.c: batches become records, records become durable.
 *
 * Format: wire/log_format.h. Group commit: everything admitted while one record is on its way to the disk is the next
 * record. Segments are written from end to end, in place, and used again once a checkpoint has made them superfluous;
 * the next one is reserved and filled with zeros ahead of need, because overwriting is cheaper than allocating.
 *
 * Keeps C1 (one record in flight), and:
 *   G1  A record begins at the head; the head moves when the record is sent, never back.
 *   G2  A segment's header goes out in the same write as its first record.
 *   G3  Admission has made sure that the batch being built fits: sending it needs no decision.
 *   G4  Zeros are written only where no record is: free segments, or well ahead of the head.
 *   G5  A failed write is never tried again (the page cache or device may lie about what happened). A full disk is no
 *       failure: the very same bytes are sent again to the very same place until there is space.
 */
#include "core/state.h"

static const struct file_id file_log = {.kind = FILE_LOG};

void log_init(struct core *core) {
    struct log *log = &core->log;
    log->segment_max = (uint32_t)min_u64(core->config.log_bytes_max / LOG_SEGMENT_BYTES, LOG_SEGMENTS_MAX);
    log->segment_max = (uint32_t)max_u64(log->segment_max, 3);
    log->head.offset = LOG_SEGMENT_BYTES;
}

/* ---- Room ---------------------------------------------------------------------------------------------------------- */

bool log_zeroing_overlaps(const struct log *log, uint32_t place, uint64_t from, uint64_t to) {
    return log->zero.busy && log->zero_place == place && from < log->zero_from + ZERO_BYTES &&
           log->zero_from < to;
}

/* The free segment that is best prepared. */
bool log_free_segment(const struct core *core, uint32_t *ret_place) {
    const struct log *log = &core->log;
    bool found = false;
    uint64_t best = 0;
    for (uint32_t place = 0; place < log->segment_count; place++) {
        const struct segment *segment = &log->segments[place];
        bool zeroing = log->zero.busy && log->zero_place == place;
        uint64_t worth = segment->zeroed_bytes * 2 + !zeroing;
        if (segment->sequence == 0 && (!found || worth > best)) {
            found = true;
            best = worth;
            *ret_place = place;
        }
    }
    return found;
}

static uint64_t record_space(const struct core *core, size_t payload_size) {
    return align_up(sizeof(struct record_header) + payload_size, core->superblock.alignment);
}

bool log_has_room(const struct core *core, size_t payload_size, bool opening) {
    const struct log *log = &core->log;
    uint64_t space = record_space(core, payload_size);
    uint32_t place;
    if (log_free_segment(core, &place)) {
        return true; /* any record fits into a whole segment */
    }
    return log->head.offset + space + (opening ? 0 : LOG_OPENING_RESERVE) <= LOG_SEGMENT_BYTES;
}

/* ---- Sending a record ---------------------------------------------------------------------------------------------- */

uint32_t record_header_crc(const struct record_header *header) {
    struct record_header copy = *header;
    copy.header_crc = 0;
    return crc32c(0, &copy, sizeof(copy));
}

uint32_t record_chain(const struct record_header *header, const void *payload, uint32_t previous_chain) {
    struct record_header copy = *header;
    copy.header_crc = 0;
    copy.chain = 0;
    return crc32c(crc32c(previous_chain, &copy, sizeof(copy)), payload, header->payload_size);
}

void log_segment_header_fill(const struct core *core, struct segment_header *header, uint32_t place,
                             uint64_t sequence, uint64_t index_first) {
    memset(header, 0, core->superblock.alignment);
    header->magic = SEGMENT_MAGIC;
    header->format = LOG_FORMAT_VERSION;
    memcpy(header->shelf_id, core->superblock.shelf_id, sizeof(header->shelf_id));
    header->sequence = sequence;
    header->index_first = index_first;
    header->place = place;
    header->crc = crc32c(0, header, sizeof(*header));
}

static void record_header_fill(const struct core *core, struct batch *batch, enum record_kind kind,
                               struct record_header *header) {
    const struct log *log = &core->log;
    memset(header, 0, sizeof(*header));
    header->magic = RECORD_MAGIC;
    memcpy(header->shelf_id, core->superblock.shelf_id, sizeof(header->shelf_id));
    header->index = batch->index;
    header->epoch = core->epoch;
    header->commit_hint = core->cluster.on ? core->cluster.commit : log->durable_index;
    header->segment_sequence = log->head.segment_sequence;
    header->segment_offset = log->head.offset;
    header->time_ms = core->now_ms;
    header->previous_epoch = log->last.epoch;
    header->previous_size = log->last.size;
    header->previous_chain = log->last.chain;
    header->payload_size = (uint32_t)batch->payload_size;
    header->tx_count = batch->tx_count;
    header->kind = (uint16_t)kind;
    header->format = LOG_FORMAT_VERSION;
    header->chain = record_chain(header, (const uint8_t *)(header + 1), log->last.chain);
    header->header_crc = record_header_crc(header);
}

static void log_send(struct core *core) {
    struct log *log = &core->log;
    log->write = (struct io){.kind = IO_WRITE,
                             .file = file_log,
                             .offset = log->write_offset,
                             .size = log->write_size,
                             .buffer = log->write_buffer,
                             .durable = MUTANT(SKIP_LOG_SYNC) ? 0 : 1,
                             .urgent = 1};
    core_issue(core, &log->write, PURPOSE_LOG_WRITE);
}

/* Where the record goes: at the head, or at the start of a free segment, which becomes the head's. */
static bool log_place(struct core *core, uint64_t space, bool *ret_new_segment) {
    struct log *log = &core->log;
    *ret_new_segment = log->head.offset + space > LOG_SEGMENT_BYTES;
    uint32_t place = log->head_place;
    uint64_t from = log->head.offset;
    if (*ret_new_segment) {
        bool found = log_free_segment(core, &place);
        ASSERT(found); /* G3 */
        from = 0;
    }
    if (log_zeroing_overlaps(log, place, from, from + core->superblock.alignment + space)) {
        return false; /* G4: sent when the zeros are there */
    }
    if (*ret_new_segment) {
        SOMETIMES(LOG_SEGMENT_SWITCH);
        log->head_place = place;
        log->head.segment_sequence++;
        log->head.offset = core->superblock.alignment;
        log->segments[place].sequence = log->head.segment_sequence;
        log->segments[place].index_first = core->building->index;
        log->segments[place].offset_first = 0;
    }
    return true;
}

/* The next batch: the one that is neither being written nor applied. */
static void building_begin(struct core *core, struct batch *before) {
    struct batch *next = core->batches;
    while (next == before || next == core->log.applying || next == core->log.parked) {
        next++;
    }
    next->index = before->index + 1;
    next->older = before;
    core->building = next;
}

void log_park(struct core *core) {
    struct log *log = &core->log;
    ASSERT(log->writing != NULL && !log->write.busy && log->parked == NULL);
    if (log->applying == NULL) {
        log->applying = log->writing;
    } else {
        log->parked = log->writing;
    }
    log->writing = NULL;
}

/* One place stays free for host_log_open(), which must be obeyed while no commit makes room. */
bool log_may_go_on(const struct core *core) {
    const struct log *log = &core->log;
    return core->cluster.on && log->writing != NULL && log->durable_index >= log->writing->index &&
           log->applying == NULL && log->parked == NULL;
}

void log_go_on(struct core *core) {
    if (log_may_go_on(core)) {
        SOMETIMES(CLUSTER_WRITES_AHEAD);
        log_park(core);
    }
}

void log_write(struct core *core, enum record_kind kind) {
    struct log *log = &core->log;
    struct batch *batch = core->building;
    uint32_t alignment = core->superblock.alignment;
    if (log->writing != NULL) {
        return; /* C1 */
    }
    uint64_t space = record_space(core, batch->payload_size);
    bool new_segment;
    if (!log_place(core, space, &new_segment)) {
        return;
    }
    struct record_header *header = (struct record_header *)(batch->buffer + BATCH_RECORD_OFFSET);
    record_header_fill(core, batch, kind, header);
    size_t used = sizeof(*header) + batch->payload_size;
    memset((uint8_t *)header + used, 0, space - used);
    log->write_buffer = (uint8_t *)header;
    log->write_offset = (uint64_t)log->head_place * LOG_SEGMENT_BYTES + log->head.offset;
    log->write_size = space;
    if (new_segment) { /* G2 */
        log->write_buffer -= alignment;
        log->write_offset -= alignment;
        log->write_size += alignment;
        log_segment_header_fill(core, (struct segment_header *)log->write_buffer, log->head_place,
                                log->head.segment_sequence, batch->index);
    }
    struct segment *segment = &log->segments[log->head_place];
    log->head.offset += space; /* G1 */
    segment->zeroed_bytes = max_u64(segment->zeroed_bytes, log->head.offset);
    log->last = record_identity(header);
    batch->identity = log->last;
    batch->end = log->head;
    batch->log_bytes = log->write_size;
    log->writing = batch;
    building_begin(core, batch);
    core->status.records++;
    core->status.log_bytes += log->write_size;
    log_send(core);
    if (core->cluster.on) {
        cluster_appended(core);
    }
    if (MUTANT(ACK_BEFORE_DURABLE) && core->effects->reply_count == 0) {
        core->effects->replies = batch->replies;
        core->effects->reply_count = batch->reply_count;
        batch->reply_count = 0;
    }
}

void log_on_write(struct core *core, struct io *io) {
    struct log *log = &core->log;
    if (io->result == IO_RESULT_NO_SPACE || (MUTANT(RETRY_FAILED_WRITE) && io->result == IO_RESULT_ERROR)) {
        SOMETIMES(LOG_NO_SPACE);
        log->write_waits_space = true; /* G5 */
        return;
    }
    if (core_io_failed(core, io, "log")) {
        return;
    }
    if (log->write_waits_space) {
        SOMETIMES(LOG_NO_SPACE_RESUMED);
        log->write_waits_space = false;
    }
    /* The record is on stable storage of q = 1 of 1 members: this makes it committed. (Rule L4: on a majority.) */
    log->durable_index = log->writing->index;
    if (core->cluster.on) {
        cluster_log_changed(core); /* committed where lead.c says so */
        return;
    }
    log->writing_durable = true;
    apply_due(core);
}

/* ---- Ahead of need ------------------------------------------------------------------------------------------------- */

static void log_reserve(struct core *core) {
    struct log *log = &core->log;
    log->reserve = (struct io){
        .kind = IO_RESERVE, .file = file_log, .size = (log->segment_count + 1) * LOG_SEGMENT_BYTES};
    core_issue(core, &log->reserve, PURPOSE_LOG_RESERVE);
}

void log_on_reserve(struct core *core, struct io *io) {
    struct log *log = &core->log;
    if (io->result == IO_RESULT_NO_SPACE) {
        SOMETIMES(LOG_NO_SPACE);
        log->reserve_failed = true; /* tried again at the next tick; checkpoints free segments meanwhile */
        return;
    }
    if (core_io_failed(core, io, "log")) {
        return;
    }
    log->reserve_failed = false;
    log->segments[log->segment_count++] = (struct segment){0};
}

/* A place for the next zeros: the rest of the head's segment, well ahead of the head, then free segments. */
static bool zeroing_target(const struct core *core, uint32_t *ret_place, uint64_t *ret_from) {
    const struct log *log = &core->log;
    if (log->head.segment_sequence != 0) {
        uint64_t ahead = align_up(log->head.offset, ZERO_BYTES) + 4 * ZERO_BYTES;
        uint64_t from = max_u64(log->segments[log->head_place].zeroed_bytes, ahead);
        if (log->segments[log->head_place].zeroed_bytes < LOG_SEGMENT_BYTES && from < LOG_SEGMENT_BYTES) {
            *ret_place = log->head_place;
            *ret_from = align_down(from, ZERO_BYTES);
            return true;
        }
    }
    for (uint32_t place = 0; place < log->segment_count; place++) {
        if (log->segments[place].sequence == 0 && log->segments[place].zeroed_bytes < LOG_SEGMENT_BYTES) {
            *ret_place = place;
            *ret_from = align_down(log->segments[place].zeroed_bytes, ZERO_BYTES);
            return true;
        }
    }
    return false;
}

void log_background(struct core *core) {
    struct log *log = &core->log;
    uint32_t place;
    uint64_t from;
    if ((core->closing && core->control.state == CONTROL_IDLE) || core->cluster.group.hold) {
        return; /* (a change of the catalog that is under way may still need a segment) */
    }
    if (!log->reserve.busy && !log->reserve_failed && !log_free_segment(core, &place)) {
        if (log->segment_count < log->segment_max) {
            log_reserve(core);
        } else {
            core->checkpoint.wanted = true;
        }
    }
    if (!log->zero.busy && zeroing_target(core, &place, &from)) {
        log->zero_place = place;
        log->zero_from = from;
        log->zero = (struct io){.kind = IO_WRITE,
                                .file = file_log,
                                .offset = place * LOG_SEGMENT_BYTES + from,
                                .size = ZERO_BYTES,
                                .buffer = log->zeros};
        core_issue(core, &log->zero, PURPOSE_LOG_ZERO);
    }
}

void log_on_zero(struct core *core, struct io *io) {
    struct log *log = &core->log;
    if (io->result != IO_RESULT_NO_SPACE && core_io_failed(core, io, "log")) {
        return;
    }
    /* A full disk only means that this stretch will be slower the first time. */
    struct segment *segment = &log->segments[log->zero_place];
    segment->zeroed_bytes = max_u64(segment->zeroed_bytes, log->zero_from + ZERO_BYTES);
}

void log_trim(struct core *core, uint64_t segment_sequence) {
    struct log *log = &core->log;
    uint32_t free_place;
    if (core->cluster.on && (log->segment_count < log->segment_max || log_free_segment(core, &free_place))) {
        return; /* peers may need it; at a checkpoint when there is no other space, it goes */
    }
    for (uint32_t place = 0; place < log->segment_count; place++) {
        if (log->segments[place].sequence < segment_sequence) {
            log->segments[place].sequence = 0;
        }
    }
}

/* ---- Hint and time ------------------------------------------------------------------------------------------------- */

/* The next hint, built and ready to be sent. The two blocks of the file are written in turn. */
struct io log_hint_io(struct core *core, bool clean) {
    struct log *log = &core->log;
    uint32_t alignment = core->superblock.alignment;
    struct hint_block *block = (struct hint_block *)log->hint_block;
    memset(block, 0, alignment);
    block->magic = HINT_MAGIC;
    block->format = LOG_FORMAT_VERSION;
    memcpy(block->shelf_id, core->superblock.shelf_id, sizeof(block->shelf_id));
    block->index = core->applied_identity.index;
    block->epoch = core->applied_identity.epoch;
    block->chain = core->applied_identity.chain;
    block->clean = clean;
    block->sequence = ++log->hint_sequence;
    block->crc = crc32c(0, block, sizeof(*block));
    return (struct io){.kind = IO_WRITE,
                       .file = {.kind = FILE_HINT},
                       .offset = log->hint_sequence % 2 * alignment,
                       .size = alignment,
                       .buffer = log->hint_block,
                       .durable = 1};
}

void log_hint_write(struct core *core, bool clean) {
    core->log.hint = log_hint_io(core, clean);
    core->log.hint_index = core->applied_identity.index;
    core_issue(core, &core->log.hint, PURPOSE_LOG_HINT);
}

void log_on_hint(struct core *core, struct io *io) {
    if (io->result == IO_RESULT_NO_SPACE) {
        core->log.hint_index = 0; /* again at a later tick; it is only a hint */
    } else if (core_io_failed(core, io, "hint")) {
        return;
    }
    if (core->closing_hint) {
        core->closed = true;
    }
}

/* A record that met a full disk, the opening record too: the same bytes again (G5). */
void log_retry(struct core *core) {
    if (core->log.write_waits_space && !core->log.write.busy) {
        log_send(core);
    }
}

void log_on_tick(struct core *core) {
    struct log *log = &core->log;
    log->reserve_failed = false;
    log_retry(core);
    bool idle = log->tick_index == log->last.index && log->writing == NULL && log->applying == NULL;
    if (idle && log->hint_index < core->applied && !log->hint.busy && !core->closing) {
        SOMETIMES(HINT_WRITTEN);
        log_hint_write(core, false);
    }
    log->tick_index = log->last.index;
}
