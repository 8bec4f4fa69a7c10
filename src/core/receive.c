// SPDX-License-Identifier: Apache-2.0
/*
 * receive.c: a backup's log: records from the primary are written where the primary wrote them; a suffix that the primary does
 * not have is taken out.
 *
 *   E1  A record is taken only if it continues the chain of checksums, and belongs exactly where it says (K3).
 *   E2  One write at a time (C1, K2): recovery's evidence about the log's end holds on backups, too.
 *   E3  A cut wipes the headers of the records that go, the last one first, each durably. At any crash what is left is a whole
 *       log, and no trace of an abandoned record can be taken for a sign that something before it is missing.
 */
#include "core/state.h"

static const struct file_id file_log = {.kind = FILE_LOG};

static struct record_header *record_in(const struct received *received) {
    return (struct record_header *)(received->buffer + BATCH_RECORD_OFFSET);
}

const struct record_header *received_record(const struct core *core, uint64_t index) {
    for (uint32_t i = 0; i < RECEIVED_MAX; i++) {
        const struct received *received = &core->cluster.received[i];
        if (received->state != RECEIVED_FREE && received->index == index) {
            return record_in(received);
        }
    }
    return NULL;
}

static struct received *in_state(struct core *core, enum received_state state) {
    struct received *found = NULL;
    for (uint32_t i = 0; i < RECEIVED_MAX; i++) {
        struct received *received = &core->cluster.received[i];
        if (received->state == state && (found == NULL || received->index < found->index)) {
            found = received;
        }
    }
    return found;
}

/* ---- Taking a record ---------------------------------------------------------------------------------------------- */

/* E1 */
static bool continues(const struct core *core, const struct record_header *header, const void *payload) {
    const struct identity *last = &core->log.last;
    return header->index == last->index + 1 && header->previous_epoch == last->epoch &&
           header->previous_size == last->size && header->previous_chain == last->chain &&
           memcmp(header->shelf_id, core->superblock.shelf_id, sizeof(header->shelf_id)) == 0 &&
           record_chain(header, payload, last->chain) == header->chain;
}

static void segment_begin(struct core *core, struct received *received, uint32_t place,
                          const struct record_header *header) {
    struct log *log = &core->log;
    log->head_place = place;
    log->head =
        (struct position){.segment_sequence = header->segment_sequence, .offset = core->superblock.alignment};
    log->segments[place].sequence = header->segment_sequence;
    log->segments[place].index_first = header->index;
    log->segments[place].offset_first = 0;
    received->write_buffer -= core->superblock.alignment;
    received->write_size += core->superblock.alignment;
    log_segment_header_fill(core, (struct segment_header *)received->write_buffer, place,
                            header->segment_sequence, header->index);
}

bool receive_record(struct core *core, const void *bytes, size_t size) {
    struct log *log = &core->log;
    struct record_header header;
    memcpy(&header, bytes, sizeof(header));
    struct received *received = in_state(core, RECEIVED_FREE);
    if (received == NULL) {
        received = in_state(core, RECEIVED_DURABLE); /* it can be read again */
    }
    if (received == NULL || size > sizeof(header) + core->batches[0].payload_max + PAGE_SIZE ||
        size != align_up(sizeof(header) + (uint64_t)header.payload_size, core->superblock.alignment) ||
        !continues(core, &header, (const uint8_t *)bytes + sizeof(header))) {
        return false;
    }
    bool new_segment = log->head.offset + size > LOG_SEGMENT_BYTES;
    uint32_t place = log->head_place;
    uint64_t sequence = log->head.segment_sequence + new_segment;
    uint64_t offset = new_segment ? core->superblock.alignment : log->head.offset;
    if (header.segment_sequence != sequence || header.segment_offset != offset) {
        return false;
    }
    if (new_segment && !log_free_segment(core, &place)) {
        core->checkpoint.log_needs = true; /* no hold can put it off */
        install_give_up(core);
        return false;
    }
    if (log_zeroing_overlaps(log, place, new_segment ? 0 : offset, offset + size)) {
        return false;
    }
    if (!MUTANT(INSTALL_DROPS_LATER)) {
        install_give_up(core); /* the log is served after all (D1) */
    }
    received->state = RECEIVED_QUEUED;
    received->index = header.index;
    received->write_buffer = received->buffer + BATCH_RECORD_OFFSET;
    received->write_size = size;
    memcpy(received->write_buffer, bytes, size);
    if (new_segment) {
        segment_begin(core, received, place, &header);
    }
    received->write_offset =
        place * LOG_SEGMENT_BYTES + log->head.offset - (new_segment ? core->superblock.alignment : 0);
    struct position begin = log->head;
    log->head.offset += size;
    log->segments[place].zeroed_bytes = max_u64(log->segments[place].zeroed_bytes, log->head.offset);
    log->last = record_identity(&header);
    tail_add(core, &log->last, begin, log->head, place);
    core->now_ms = max_u64(core->now_ms, header.time_ms);
    core->status.records++;
    receive_continue(core);
    return true;
}

/* ---- Writing ------------------------------------------------------------------------------------------------------ */

static void cut_continue(struct core *core);

void receive_continue(struct core *core) {
    struct cluster *cluster = &core->cluster;
    struct received *received = in_state(core, RECEIVED_QUEUED);
    if (cluster->write_io.busy || cluster->write_waits || core->stopped) {
        return; /* E2 */
    }
    if (cluster->cut_wanted) {
        cut_continue(core);
    } else if (received != NULL) {
        received->state = RECEIVED_WRITING;
        cluster->write_io = (struct io){.kind = IO_WRITE,
                                        .file = file_log,
                                        .offset = received->write_offset,
                                        .size = received->write_size,
                                        .buffer = received->write_buffer,
                                        .durable = 1,
                                        .urgent = 1};
        core_issue(core, &cluster->write_io, PURPOSE_RECEIVE);
    }
}

void receive_on_io(struct core *core, struct io *io) {
    struct cluster *cluster = &core->cluster;
    cluster->write_waits = io->result == IO_RESULT_NO_SPACE; /* G5 of log.c */
    if (cluster->write_waits || core_io_failed(core, io, "log")) {
        return;
    }
    struct received *received = in_state(core, RECEIVED_WRITING);
    received->state = RECEIVED_DURABLE;
    core->log.durable_index = received->index;
    core->log.applied_bytes += received->write_size; /* what recovery would read */
    receive_continue(core);
    cluster_log_changed(core);
}

/* ---- Cutting ------------------------------------------------------------------------------------------------------ */

void receive_cut(struct core *core, uint64_t index) {
    struct cluster *cluster = &core->cluster;
    ASSERT(!cluster->cut_wanted && index >= core->applied && tail_find(core, index) != NULL);
    cluster->cut_wanted = true;
    cluster->cut_to = index;
    receive_continue(core);
}

/* The log ends with the record before this one, in memory; on the disk already, or it was never sent there. */
static void end_move_back(struct core *core, const struct tail_record *record) {
    struct log *log = &core->log;
    const struct tail_record *before = tail_find(core, record->identity.index - 1);
    ASSERT(before != NULL);
    if (record->begin.offset == core->superblock.alignment) { /* the first of its segment */
        log->segments[record->place].sequence = 0;
    }
    for (uint32_t i = 0; i < RECEIVED_MAX; i++) {
        if (core->cluster.received[i].index == record->identity.index) {
            core->cluster.received[i].state = RECEIVED_FREE;
        }
    }
    log->head = before->end;
    log->head_place = before->begin.segment_sequence != 0 ? before->place : log->head_place;
    for (uint32_t place = 0; place < log->segment_count && log->head.segment_sequence != 0; place++) {
        if (log->segments[place].sequence == log->head.segment_sequence) {
            log->head_place = place;
        }
    }
    log->last = before->identity;
    log->durable_index = min_u64(log->durable_index, log->last.index);
}

/* E3 */
static void cut_continue(struct core *core) {
    struct cluster *cluster = &core->cluster;
    struct log *log = &core->log;
    while (log->last.index > cluster->cut_to && !cluster->cut_io.busy) {
        const struct tail_record *record = tail_find(core, log->last.index);
        ASSERT(record != NULL);
        if (log->last.index > log->durable_index) {
            end_move_back(core, record); /* it was never sent to the disk */
            continue;
        }
        SOMETIMES(CLUSTER_CUT);
        bool first = record->begin.offset == core->superblock.alignment;
        uint64_t offset = record->place * LOG_SEGMENT_BYTES + (first ? 0 : record->begin.offset);
        cluster->cut_io = (struct io){.kind = IO_WRITE,
                                      .file = file_log,
                                      .offset = offset,
                                      .size = (first ? 2 : 1) * (uint64_t)core->superblock.alignment,
                                      .buffer = log->zeros,
                                      .durable = 1,
                                      .urgent = 1};
        core_issue(core, &cluster->cut_io, PURPOSE_CUT);
    }
    if (log->last.index == cluster->cut_to) {
        cluster->cut_wanted = false;
        cluster_log_changed(core);
    }
}

void receive_on_cut(struct core *core, struct io *io) {
    struct cluster *cluster = &core->cluster;
    cluster->cut_waits = io->result == IO_RESULT_NO_SPACE;
    if (cluster->cut_waits || core_io_failed(core, io, "log")) {
        return;
    }
    end_move_back(core, tail_find(core, core->log.last.index));
    receive_continue(core);
}
