// SPDX-License-Identifier: Apache-2.0
/*
 * promise.c: the highest epoch that this node has promised, in the file `promise`: two blocks, written in turn, durably.
 */
#include "core/state.h"

static const struct file_id file_promise = {.kind = FILE_PROMISE};

/* In recovery: makes sure that there is a file, and reads it. */
bool promise_next(struct core *core, struct recovery_io *rio) {
    if (!core->cluster.on || core->recovery.cursor > 1 || core->recovery.busy_count > 0) {
        return false;
    }
    bool reserve = core->recovery.cursor++ == 0;
    recovery_send(core, rio,
                  (struct io){.kind = reserve ? IO_RESERVE : IO_READ,
                              .file = file_promise,
                              .size = (uint64_t)2 * PROMISE_BLOCK_SIZE,
                              .buffer = rio->buffer});
    return true;
}

void promise_on_read(struct core *core, const struct recovery_io *rio) {
    struct cluster *cluster = &core->cluster;
    for (uint32_t i = 0; rio->io.kind == IO_READ && i < 2; i++) {
        struct promise_block block;
        memcpy(&block, rio->buffer + i * (size_t)PROMISE_BLOCK_SIZE, sizeof(block));
        uint32_t crc = block.crc;
        block.crc = 0;
        bool valid = block.magic == PROMISE_MAGIC && crc32c(0, &block, sizeof(block)) == crc &&
                     memcmp(block.shelf_id, core->superblock.shelf_id, sizeof(block.shelf_id)) == 0;
        if (valid && block.epoch > cluster->promised) {
            cluster->promised = block.epoch;
            cluster->promise_place = !i; /* the other one is written next */
        }
    }
}

void promise_write(struct core *core, uint64_t epoch) {
    struct cluster *cluster = &core->cluster;
    struct promise_block *block = (struct promise_block *)cluster->promise_block;
    memset(block, 0, PROMISE_BLOCK_SIZE);
    block->magic = PROMISE_MAGIC;
    block->format = LOG_FORMAT_VERSION;
    memcpy(block->shelf_id, core->superblock.shelf_id, sizeof(block->shelf_id));
    block->epoch = epoch;
    block->crc = crc32c(0, block, sizeof(*block));
    cluster->promise_io = (struct io){.kind = IO_WRITE,
                                      .file = file_promise,
                                      .offset = cluster->promise_place * (uint64_t)PROMISE_BLOCK_SIZE,
                                      .size = PROMISE_BLOCK_SIZE,
                                      .buffer = block,
                                      .durable = 1,
                                      .urgent = 1};
    cluster->promise_place = !cluster->promise_place;
    core_issue(core, &cluster->promise_io, PURPOSE_PROMISE);
}

void promise_on_io(struct core *core, struct io *io) {
    struct cluster *cluster = &core->cluster;
    cluster->promise_waits = io->result == IO_RESULT_NO_SPACE; /* the very same bytes again, at a tick */
    if (cluster->promise_waits || core_io_failed(core, io, "promise")) {
        return;
    }
    cluster->promised = ((const struct promise_block *)cluster->promise_block)->epoch;
    group_on_promise(&cluster->group, cluster->promised);
}
