// SPDX-License-Identifier: Apache-2.0
/*
 * donate.c: peers whose next record is not in this log any more get the checkpoint instead, piece by piece.
 *
 * A peer knows from the roots and tables, which it gets first, where each page lies in this node's files, and asks for bytes of
 * them. So nothing is kept about a transfer here, and it goes on after this node has restarted. What is sent is checked by
 * the peer, level by level, against the checksum in the superblock.
 *
 *   D1  Only what the durable superblock reaches is sent, and as it was when that superblock was the present one (P3 of
 *       checkpoint.c). A later checkpoint ends the transfer; the peer is told, and begins anew with the next offer.
 *   D2  While somebody asks, no checkpoint is begun that would overwrite what he reads; unless the log needs one. That is the
 *       bound: commits never wait for a transfer.
 *   D3  One read at a time, in the background, of at most PEER_PART_BYTES_MAX. Who asks for more than fits is not
 *       heard, and asks again.
 */
#include "core/state.h"

#define HOLD_HEARTBEATS 100u /* so long after the last question */

static bool is_present(const struct core *core, struct log_mark mark, uint32_t roots_crc) {
    return core->superblock.index == mark.index && core->superblock.epoch == mark.epoch &&
           core->superblock.roots_crc == roots_crc;
}

void donate_offer(struct core *core, uint64_t node, const struct peer_message *message) {
    const struct superblock *superblock = &core->superblock;
    struct peer_checkpoint *offer = &core->cluster.donate.offer;
    if (superblock->segment_sequence == 0) {
        return; /* nothing is before the log's begin */
    }
    *offer = (struct peer_checkpoint){.chain = superblock->chain,
                                      .record_size = superblock->record_size,
                                      .segment_sequence = superblock->segment_sequence,
                                      .segment_offset = superblock->segment_offset,
                                      .roots_size = superblock->roots_size,
                                      .roots_crc = superblock->roots_crc,
                                      .alignment = superblock->alignment,
                                      .time_ms = superblock->time_ms};
    struct peer_message copy = *message;
    copy.index = superblock->index;
    copy.index_epoch = superblock->epoch;
    copy.body = offer;
    copy.body_size = sizeof(*offer);
    cluster_letter(core, node, &copy);
}

/* ---- Answers ------------------------------------------------------------------------------------------------------ */

static struct peer_message part_message(const struct core *core, struct log_mark mark) {
    struct peer_message message = {.kind = PEER_PART,
                                   .from = core->config.group.node,
                                   .epoch = core->cluster.group.promised,
                                   .index = mark.index,
                                   .index_epoch = mark.epoch};
    memcpy(message.incarnation, core->superblock.incarnation, sizeof(message.incarnation));
    return message;
}

static void refuse(struct core *core, const struct asking *asking) {
    struct donate *donate = &core->cluster.donate;
    SOMETIMES(DONATE_REFUSED);
    donate->refused = asking->part;
    struct peer_message message = part_message(core, asking->mark);
    message.flags = PEER_FLAG_BEHIND;
    message.body = &donate->refused;
    message.body_size = sizeof(donate->refused);
    cluster_letter(core, asking->node, &message);
}

/* Which bytes of which file; false: this checkpoint has no such ones. */
static bool part_place(const struct core *core, const struct peer_part *part, struct file_id *ret_file) {
    const struct region *region = region_find(core, part->region);
    uint64_t end = part->offset + part->size;
    if (part->kind == PEER_PART_ROOTS) {
        *ret_file = (struct file_id){.kind = FILE_ROOTS, .slot = (uint16_t)core->superblock.roots_slot};
        return end <= align_up(core->superblock.roots_size, PAGE_SIZE);
    }
    if (region == NULL || !region->mapped) {
        return false;
    }
    if (part->kind == PEER_PART_TABLE) {
        *ret_file = (struct file_id){.kind = FILE_TABLE, .region = part->region};
        return end <= divide_up(region->size_mapped / PAGE_SIZE, TABLE_BLOCK_PAGES) * 2 * TABLE_BLOCK_SIZE;
    }
    *ret_file = (struct file_id){.kind = FILE_PAGES, .slot = part->slot, .region = part->region};
    return end <= region->size_mapped;
}

void donate_on_ask(struct core *core, const struct peer_message *message) {
    struct donate *donate = &core->cluster.donate;
    struct asking asking = {.node = message->from, .mark = {message->index, message->index_epoch}};
    memcpy(&asking.part, message->body, sizeof(asking.part));
    struct file_id file;
    if (!is_present(core, asking.mark, asking.part.roots_crc) || !part_place(core, &asking.part, &file)) {
        refuse(core, &asking);
        return;
    }
    if (core->cluster.group.role != GROUP_LEADS) {
        SOMETIMES(DONATE_WITHOUT_LEAD);
    }
    donate->asked_ms = max_u64(core->cluster.now_ms, 1);
    for (uint32_t i = 0; i < donate->count; i++) {
        if (donate->askings[i].node == asking.node &&
            memcmp(&donate->askings[i].part, &asking.part, sizeof(asking.part)) == 0) {
            return; /* it will be answered */
        }
    }
    if (donate->count < ARRAY_COUNT(donate->askings)) { /* D3 */
        donate->askings[donate->count++] = asking;
    }
}

static void asking_drop(struct donate *donate) {
    memmove(&donate->askings[0], &donate->askings[1], --donate->count * sizeof(donate->askings[0]));
}

void donate_continue(struct core *core) {
    struct donate *donate = &core->cluster.donate;
    if (donate->count == 0 || donate->io.busy || core->stopped) {
        return;
    }
    const struct asking *asking = &donate->askings[0];
    struct file_id file;
    if (!is_present(core, asking->mark, asking->part.roots_crc) || !part_place(core, &asking->part, &file)) {
        refuse(core, asking); /* (one a step: its description is lent) */
        asking_drop(donate);
        core->effects->more |= donate->count > 0;
        return;
    }
    donate->io = (struct io){.kind = IO_READ,
                             .file = file,
                             .offset = asking->part.offset,
                             .size = asking->part.size,
                             .buffer = donate->buffer + PAGE_SIZE};
    core_issue(core, &donate->io, PURPOSE_DONATE);
}

void donate_on_io(struct core *core, struct io *io) {
    struct donate *donate = &core->cluster.donate;
    if (core_io_failed(core, io, "checkpoint")) {
        return;
    }
    struct asking asking = donate->askings[0];
    asking_drop(donate);
    if (!is_present(core, asking.mark, asking.part.roots_crc)) { /* D1 */
        refuse(core, &asking);
        return;
    }
    struct peer_message message = part_message(core, asking.mark);
    uint8_t *body = donate->buffer + PAGE_SIZE - sizeof(asking.part);
    memcpy(body, &asking.part, sizeof(asking.part));
    message.body = body;
    message.body_size = sizeof(asking.part) + asking.part.size;
    cluster_letter(core, asking.node, &message);
}

/* ---- The checkpoint stays ----------------------------------------------------------------------------------------- */

bool donate_holds_checkpoint(const struct core *core) {
    const struct donate *donate = &core->cluster.donate;
    bool holds =
        core->cluster.running && donate->asked_ms != 0 &&
        core->cluster.now_ms - donate->asked_ms < HOLD_HEARTBEATS * core->config.group.heartbeat_ms; /* D2 */
    if (holds) {
        SOMETIMES(DONATE_HELD_CHECKPOINT);
    }
    return holds;
}

bool donate_reads(const struct core *core, uint32_t region) {
    const struct donate *donate = &core->cluster.donate;
    return donate->io.busy && donate->io.file.region == region;
}
