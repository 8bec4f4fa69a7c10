// SPDX-License-Identifier: Apache-2.0
/*
 * anew.c: in recovery, when the checkpoint came from a peer (install.c): what the log holds is older, or conflicts with what was
 * committed, and the log begins anew where the checkpoint ends (rule D1).
 *
 *     headers of all segments are wiped; sync    no record of before can be taken for one of this log
 *     the header of the checkpoint's segment     durable: it says that its first record is the one behind the checkpoint
 *     superblock without the mark                copies 0 and 1, durable; then 2 and 3
 *
 *   A1  A crash at any moment leaves the mark, so that all of this is done again, or nothing of it to be done. No record is
 *       received before.
 *   A2  If the old log reached as far as the checkpoint, all of its bytes go: the headers of its last records would look like
 *       a sign that something before them is missing.
 */
#include "core/state.h"

static const struct file_id file_log = {.kind = FILE_LOG};

enum anew_step { ANEW_WIPE, ANEW_SYNC, ANEW_SEGMENT, ANEW_SUPERBLOCK, ANEW_SUPERBLOCK_SECOND, ANEW_END };

static bool wipe_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    uint64_t place = recovery->cursor / LOG_SEGMENT_BYTES, offset = recovery->cursor % LOG_SEGMENT_BYTES;
    bool all = core->superblock.log_anew == LOG_ANEW_ALL;
    if (place >= core->log.segment_count) {
        return false;
    }
    if (offset == 0) {
        core->log.segments[place] = (struct segment){.zeroed_bytes = LOG_SEGMENT_BYTES};
    }
    uint64_t size = all ? ZERO_BYTES : core->superblock.alignment;
    recovery->cursor += all ? size : LOG_SEGMENT_BYTES;
    recovery_send(core, rio,
                  (struct io){.kind = IO_WRITE,
                              .file = file_log,
                              .offset = place * LOG_SEGMENT_BYTES + offset,
                              .size = size,
                              .buffer = core->log.zeros});
    return true;
}

static void segment_send(struct core *core, struct recovery_io *rio) {
    const struct superblock *superblock = &core->superblock;
    struct segment *segment = &core->log.segments[0];
    segment->sequence = superblock->segment_sequence;
    segment->index_first = superblock->index + 1;
    segment->offset_first = superblock->segment_offset;
    struct segment_header *header = (struct segment_header *)rio->buffer;
    log_segment_header_fill(core, header, 0, segment->sequence, segment->index_first);
    header->offset_first = segment->offset_first;
    header->crc = 0;
    header->crc = crc32c(0, header, sizeof(*header));
    recovery_send(core, rio,
                  (struct io){.kind = IO_WRITE,
                              .file = file_log,
                              .size = superblock->alignment,
                              .buffer = rio->buffer,
                              .durable = 1});
}

static void superblock_send(struct core *core, struct recovery_io *rio, uint64_t first_copy) {
    if (first_copy == 0) {
        core->superblock.log_anew = 0;
        core->superblock.sequence++;
        checkpoint_copies_fill(core, &core->superblock);
    }
    recovery_send(core, rio,
                  (struct io){.kind = IO_WRITE,
                              .file = {.kind = FILE_SUPERBLOCK},
                              .offset = first_copy * SUPERBLOCK_SIZE,
                              .size = 2 * (uint64_t)SUPERBLOCK_SIZE,
                              .buffer = core->checkpoint.superblock_buffer + first_copy * SUPERBLOCK_SIZE,
                              .durable = 1});
}

bool anew_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    if (recovery->cursor == 0 && recovery->cursor_place == ANEW_WIPE && core->superblock.log_anew == 0) {
        return false;
    }
    if (recovery->cursor_place == ANEW_WIPE && wipe_next(core, rio)) {
        return true;
    }
    if (recovery->busy_count > 0 || recovery->cursor_place >= ANEW_END) {
        return false;
    }
    switch ((enum anew_step)++ recovery->cursor_place) { /* each behind the end of the one before */
    case ANEW_SYNC:
        recovery_send(core, rio, (struct io){.kind = IO_SYNC, .file = file_log});
        return true;
    case ANEW_SEGMENT:
        segment_send(core, rio);
        return true;
    case ANEW_SUPERBLOCK:
        superblock_send(core, rio, 0);
        return true;
    case ANEW_SUPERBLOCK_SECOND:
        superblock_send(core, rio, 2);
        return true;
    case ANEW_WIPE:
    case ANEW_END:
        break;
    }
    SOMETIMES(INSTALL_LOG_BEGUN);
    return false;
}
