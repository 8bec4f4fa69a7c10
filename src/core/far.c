// SPDX-License-Identifier: Apache-2.0
/*
 * far.c: records of the log that are older than the tail, which are to be sent to a peer or applied. Where they lie is not kept in
 * mind: each segment says which record it begins with, and from there each header says where the next one is. Who reads one
 * after the other goes on from where it is.
 *
 * Trimmed segments may be another's by now, and rot must not travel: what is not exactly the record that was asked for is
 * not given out.
 */
#include "core/state.h"

#define WINDOW_BYTES ((uint64_t)64 << 10)

static bool segment_find(const struct core *core, uint64_t sequence, uint32_t *ret_place) {
    for (uint32_t place = 0; place < core->log.segment_count && sequence != 0; place++) {
        if (core->log.segments[place].sequence == sequence) {
            *ret_place = place;
            return true;
        }
    }
    return false;
}

uint64_t far_first(const struct core *core) {
    uint64_t first = core->log.last.index + 1;
    uint32_t place;
    for (uint64_t sequence = core->log.head.segment_sequence; segment_find(core, sequence, &place);
         sequence--) {
        first = core->log.segments[place].index_first;
    }
    return first;
}

void far_forget(struct far *far) {
    far->window_size = 0;
}

/* To the begin of the segment that the record is in. */
static bool seek(const struct core *core, struct far *far, uint64_t index) {
    uint32_t place;
    for (uint64_t sequence = core->log.head.segment_sequence; segment_find(core, sequence, &place);
         sequence--) {
        const struct segment *segment = &core->log.segments[place];
        if (segment->index_first <= index) {
            uint64_t offset = segment->offset_first != 0 ? segment->offset_first : core->superblock.alignment;
            *far = (struct far){.index = segment->index_first,
                                .at = {.segment_sequence = sequence, .offset = offset},
                                .place = place};
            return true;
        }
    }
    return false;
}

static uint64_t record_space(const struct core *core, const struct record_header *header) {
    return align_up(sizeof(*header) + (uint64_t)header->payload_size, core->superblock.alignment);
}

static bool header_right(const struct core *core, const struct far *far, const struct record_header *header) {
    return header->magic == RECORD_MAGIC && header->header_crc == record_header_crc(header) &&
           memcmp(header->shelf_id, core->superblock.shelf_id, sizeof(header->shelf_id)) == 0 &&
           header->segment_sequence == far->at.segment_sequence && header->segment_offset == far->at.offset &&
           header->index == far->index && header->payload_size <= core->batches[0].payload_max &&
           record_space(core, header) <= LOG_SEGMENT_BYTES - far->at.offset;
}

static bool in_window(const struct far *far, uint64_t size) {
    return far->at.offset >= far->window_offset &&
           far->at.offset + size <= far->window_offset + far->window_size;
}

static enum far_step window_read(struct far *far, uint8_t *buffer, uint64_t size, struct io *ret_io) {
    far->window_offset = far->at.offset;
    far->window_size = size;
    *ret_io = (struct io){.kind = IO_READ,
                          .file = {.kind = FILE_LOG},
                          .offset = far->place * LOG_SEGMENT_BYTES + far->at.offset,
                          .size = size,
                          .buffer = buffer};
    return FAR_READS;
}

static bool is_lost(const struct core *core, const struct far *far, uint64_t index) {
    return far->index == 0 || far->index > index ||
           core->log.segments[far->place].sequence != far->at.segment_sequence;
}

enum far_step far_step(const struct core *core, struct far *far, uint64_t index, uint8_t *buffer,
                       struct io *ret_io, const struct record_header **ret_record) {
    bool sought = is_lost(core, far, index);
    if (sought && !seek(core, far, index)) {
        return FAR_GONE;
    }
    for (;;) {
        bool ends = far->at.offset + sizeof(struct record_header) > LOG_SEGMENT_BYTES;
        if (!ends && !in_window(far, sizeof(struct record_header))) {
            return window_read(far, buffer, min_u64(WINDOW_BYTES, LOG_SEGMENT_BYTES - far->at.offset),
                               ret_io);
        }
        const struct record_header *header =
            (const struct record_header *)(buffer + (far->at.offset - far->window_offset));
        if (ends || !header_right(core, far, header)) { /* the segment's end: on in the next one */
            uint64_t sequence = far->at.segment_sequence;
            if (!seek(core, far, index) || far->at.segment_sequence == sequence) {
                *far = (struct far){0};
                return FAR_GONE;
            }
            continue;
        }
        uint64_t space = record_space(core, header);
        if (far->index < index) {
            far->at.offset += space;
            far->index++;
            continue;
        }
        if (!in_window(far, space)) {
            return window_read(far, buffer, space, ret_io);
        }
        if (record_chain(header, header + 1, header->previous_chain) != header->chain) {
            return FAR_GONE;
        }
        *ret_record = header;
        return FAR_HERE;
    }
}
