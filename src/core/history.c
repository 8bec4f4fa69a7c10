// SPDX-License-Identifier: Apache-2.0
/*
 * history.c: in the recovery of a node of a cluster: which records from before the checkpoint are still in the log? Peers that
 * are behind are served from them. Segments are kept until their space is needed (log_trim).
 *
 * Only headers are looked at here; a record's checksum is checked when it is read for somebody (serve.c). What does not fit
 * together just ends the history: it is no damage that this node would suffer from.
 */
#include "core/state.h"

static const struct file_id file_log = {.kind = FILE_LOG};

/* The oldest segment from which on there is one after the other up to the checkpoint's. */
static uint64_t oldest(const struct core *core) {
    uint64_t sequence = core->superblock.segment_sequence;
    for (bool found = sequence != 0; found; sequence -= found) {
        found = false;
        for (uint32_t place = 0; place < core->log.segment_count && sequence > 1; place++) {
            found |= core->log.segments[place].sequence == sequence - 1;
        }
    }
    return sequence;
}

static uint32_t place_of(const struct core *core, uint64_t sequence) {
    uint32_t place = 0;
    while (place < core->log.segment_count && core->log.segments[place].sequence != sequence) {
        place++;
    }
    return place;
}

static bool header_right(const struct core *core, const struct record_header *header, uint64_t sequence,
                         uint64_t offset) {
    return header->magic == RECORD_MAGIC && header->header_crc == record_header_crc(header) &&
           memcmp(header->shelf_id, core->superblock.shelf_id, sizeof(header->shelf_id)) == 0 &&
           header->segment_sequence == sequence && header->segment_offset == offset &&
           header->payload_size <= LOG_RECORD_BYTES_MAX;
}

static void record_note(struct core *core, const struct record_header *header, struct position begin,
                        struct position end, uint32_t place) {
    struct cluster *cluster = &core->cluster;
    const struct identity identity = record_identity(header);
    if (header->index !=
        cluster->history_next) { /* the first one, or behind a gap: what comes before it is known, too */
        const struct identity before = {.index = header->index - 1,
                                        .epoch = header->previous_epoch,
                                        .size = header->previous_size,
                                        .chain = header->previous_chain};
        cluster->history_first = header->index - 1;
        tail_history(core, &before, (struct position){0}, begin, 0);
    }
    tail_history(core, &identity, begin, end, place);
    cluster->history_next = header->index + 1;
}

static void segment_look(struct core *core, uint64_t sequence) {
    const uint32_t alignment = core->superblock.alignment;
    uint64_t offset = alignment;
    while (offset + sizeof(struct record_header) <= LOG_SEGMENT_BYTES) {
        const struct record_header *header = (const struct record_header *)(core->recovery.scan + offset);
        uint64_t space = align_up(sizeof(*header) + (uint64_t)header->payload_size, alignment);
        if (!header_right(core, header, sequence, offset) || header->index > core->superblock.index ||
            offset + space > LOG_SEGMENT_BYTES) {
            return;
        }
        record_note(core, header, (struct position){sequence, offset},
                    (struct position){sequence, offset + space}, place_of(core, sequence));
        offset += space;
    }
}

/* A segment after the other, each read as a whole. */
bool history_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    if (!core->cluster.on || core->superblock.segment_sequence == 0) {
        return false;
    }
    if (recovery->cursor == 0) {
        recovery->cursor = oldest(core);
        recovery->cursor_place = 0;
    }
    if (recovery->cursor_place == RECOVERY_CHUNKS) {
        if (recovery->busy_count > 0) {
            return false;
        }
        segment_look(core, recovery->cursor++);
        recovery->cursor_place = 0;
    }
    if (recovery->cursor > core->superblock.segment_sequence) {
        struct cluster *cluster = &core->cluster;
        if (recovery->cursor_place == 0 && cluster->history_next == core->superblock.index + 1) {
            SOMETIMES(CLUSTER_HISTORY);
            tail_reach_back(core, cluster->history_first);
        }
        recovery->cursor_place = RECOVERY_CHUNKS + 1;
        return false;
    }
    uint64_t offset = recovery->cursor_place++ * (uint64_t)RECOVERY_IO_BYTES;
    recovery_send(core, rio,
                  (struct io){.kind = IO_READ,
                              .file = file_log,
                              .offset = place_of(core, recovery->cursor) * LOG_SEGMENT_BYTES + offset,
                              .size = RECOVERY_IO_BYTES,
                              .buffer = recovery->scan + offset});
    return true;
}
