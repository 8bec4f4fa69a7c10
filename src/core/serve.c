// SPDX-License-Identifier: Apache-2.0
/*
 * serve.c: records out of the log, for peers: from memory where they are still there, else read from the disk, one after the
 * other. What cannot be served now is dropped: the group asks again.
 */
#include "core/state.h"

/* Of the primary's own batches. */
static const uint8_t *batch_record(const struct batch *batch, uint64_t index) {
    return batch != NULL && batch->index == index ? batch->buffer + BATCH_RECORD_OFFSET : NULL;
}

static const uint8_t *in_memory(const struct core *core, uint64_t index) {
    const uint8_t *bytes = batch_record(core->log.writing, index);
    if (bytes == NULL) {
        bytes = batch_record(core->log.applying, index);
    }
    if (bytes == NULL) {
        bytes = batch_record(core->log.parked, index);
    }
    return bytes != NULL ? bytes : (const uint8_t *)received_record(core, index);
}

static size_t record_size(const struct core *core, const struct tail_record *record) {
    return align_up(sizeof(struct record_header) + (uint64_t)record->identity.size,
                    core->superblock.alignment);
}

void serve_record(struct core *core, uint64_t node, const struct peer_message *message) {
    struct cluster *cluster = &core->cluster;
    const struct tail_record *record = tail_find(core, message->index + 1);
    const uint8_t *bytes = in_memory(core, message->index + 1);
    if (record == NULL) {
        return;
    }
    if (bytes != NULL) {
        struct peer_message copy = *message;
        copy.body = bytes;
        copy.body_size = record_size(core, record);
        cluster_letter(core, node, &copy);
    } else if (cluster->serving_count < SERVINGS_MAX && tail_on_disk(core, record)) {
        cluster->servings[cluster->serving_count++] = (struct serving){.node = node, .message = *message};
        serve_continue(core);
    }
}

static void serving_drop(struct core *core) {
    struct cluster *cluster = &core->cluster;
    memmove(&cluster->servings[0], &cluster->servings[1],
            --cluster->serving_count * sizeof(cluster->servings[0]));
}

void serve_continue(struct core *core) {
    struct cluster *cluster = &core->cluster;
    while (cluster->serving_count > 0 && !cluster->serve_io.busy && !core->stopped) {
        const struct tail_record *record = tail_find(core, cluster->servings[0].message.index + 1);
        if (record == NULL || !tail_on_disk(core, record) ||
            record->identity.index > core->log.durable_index) {
            serving_drop(core);
            continue;
        }
        cluster->serve_io = (struct io){.kind = IO_READ,
                                        .file = {.kind = FILE_LOG},
                                        .offset = record->place * LOG_SEGMENT_BYTES + record->begin.offset,
                                        .size = record_size(core, record),
                                        .buffer = cluster->serve_buffer};
        core_issue(core, &cluster->serve_io, PURPOSE_SERVE);
    }
}

void serve_on_io(struct core *core, struct io *io) {
    struct cluster *cluster = &core->cluster;
    if (core_io_failed(core, io, "log")) {
        return;
    }
    const struct record_header *header = (const struct record_header *)cluster->serve_buffer;
    const struct tail_record *record = tail_find(core, cluster->servings[0].message.index + 1);
    const struct tail_record *before = tail_find(core, cluster->servings[0].message.index);
    /* It may have been cut meanwhile; rot must not travel. */
    bool right = record != NULL && before != NULL && io->size == record_size(core, record) &&
                 header->header_crc == record_header_crc(header) && header->index == record->identity.index &&
                 header->payload_size == record->identity.size && header->chain == record->identity.chain &&
                 record_chain(header, header + 1, before->identity.chain) == header->chain;
    if (right) {
        SOMETIMES(CLUSTER_SERVED_FROM_DISK);
        struct peer_message message = cluster->servings[0].message;
        message.body = cluster->serve_buffer;
        message.body_size = io->size;
        cluster_letter(core, cluster->servings[0].node, &message);
    }
    serving_drop(core); /* the next one is read in a later step: the body is lent until then */
}
