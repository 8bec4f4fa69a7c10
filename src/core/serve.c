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

/* (The checkpoint's record is in the tail after a recovery, but where it lies was not looked for.) */
static bool place_known(const struct tail_record *record) {
    return record != NULL && record->begin.segment_sequence != 0;
}

void serve_record(struct core *core, uint64_t node, const struct peer_message *message) {
    struct cluster *cluster = &core->cluster;
    uint64_t index = message->index + 1;
    const struct tail_record *record = tail_find(core, index);
    const uint8_t *bytes = in_memory(core, index);
    bool far = !place_known(record) && index <= core->log.durable_index && index >= far_first(core);
    if (record != NULL && bytes != NULL) {
        struct peer_message copy = *message;
        copy.index_epoch = ((const struct record_header *)bytes)->previous_epoch;
        copy.body = bytes;
        copy.body_size = record_size(core, record);
        cluster_letter(core, node, &copy);
    } else if (cluster->serving_count < SERVINGS_MAX &&
               (far || (record != NULL && tail_on_disk(core, record)))) {
        cluster->servings[cluster->serving_count++] = (struct serving){.node = node, .message = *message};
        serve_continue(core);
    }
}

static void serving_drop(struct core *core) {
    struct cluster *cluster = &core->cluster;
    memmove(&cluster->servings[0], &cluster->servings[1],
            --cluster->serving_count * sizeof(cluster->servings[0]));
}

/* The body is lent until the next step, or until the next read is begun. */
static void serving_send(struct core *core, const struct record_header *header) {
    struct peer_message message = core->cluster.servings[0].message;
    message.index_epoch = header->previous_epoch;
    message.body = header;
    message.body_size =
        align_up(sizeof(*header) + (uint64_t)header->payload_size, core->superblock.alignment);
    cluster_letter(core, core->cluster.servings[0].node, &message);
    serving_drop(core);
}

/* ---- From far back ------------------------------------------------------------------------------------------------ */

/* The others' windows go: there is one buffer. NULL: of all. */
static void windows_forget(struct cluster *cluster, const struct far *keep) {
    for (uint32_t i = 0; i < FARS_MAX; i++) {
        if (&cluster->serve_fars[i].far != keep) {
            far_forget(&cluster->serve_fars[i].far);
        }
    }
}

static struct far *far_of(struct cluster *cluster, uint64_t node) {
    for (uint32_t i = 0; i < FARS_MAX; i++) {
        if (cluster->serve_fars[i].node == node) {
            return &cluster->serve_fars[i].far;
        }
    }
    struct serving_far *taken = &cluster->serve_fars[cluster->serve_far_next++ % FARS_MAX];
    *taken = (struct serving_far){.node = node};
    return &taken->far;
}

/* False: the first serving is not through, a read is under way. */
static bool far_serve(struct core *core) {
    struct cluster *cluster = &core->cluster;
    struct far *far = far_of(cluster, cluster->servings[0].node);
    const struct record_header *header = NULL;
    struct io io;
    switch (
        far_step(core, far, cluster->servings[0].message.index + 1, cluster->serve_buffer, &io, &header)) {
    case FAR_HERE:
        SOMETIMES(CLUSTER_FAR_SERVED);
        serving_send(core, header);
        return true;
    case FAR_READS:
        windows_forget(cluster, far);
        cluster->serve_io = io;
        core_issue(core, &cluster->serve_io, PURPOSE_SERVE);
        return false;
    case FAR_GONE:
        serving_drop(core);
        break;
    }
    return true;
}

/* ---- From the disk ------------------------------------------------------------------------------------------------ */

void serve_continue(struct core *core) {
    struct cluster *cluster = &core->cluster;
    while (cluster->serving_count > 0 && !cluster->serve_io.busy && !core->stopped) {
        uint64_t index = cluster->servings[0].message.index + 1;
        const struct tail_record *record = tail_find(core, index);
        if (!place_known(record) && index <= core->log.durable_index) {
            far_serve(core);
            continue;
        }
        if (!place_known(record) || !tail_on_disk(core, record) ||
            record->identity.index > core->log.durable_index) {
            serving_drop(core);
            continue;
        }
        windows_forget(cluster, NULL);
        cluster->serve_index = index;
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
    uint64_t index = cluster->servings[0].message.index + 1;
    if (core_io_failed(core, io, "log")) {
        return;
    }
    bool near = cluster->serve_index == index;
    cluster->serve_index = 0;
    if (!near) {
        return; /* serve_continue() looks at it */
    }
    const struct record_header *header = (const struct record_header *)cluster->serve_buffer;
    const struct tail_record *record = tail_find(core, index);
    const struct tail_record *before = tail_find(core, index - 1);
    /* It may have been cut meanwhile; rot must not travel. */
    bool right = record != NULL && io->size == record_size(core, record) &&
                 header->header_crc == record_header_crc(header) && header->index == record->identity.index &&
                 header->payload_size == record->identity.size && header->chain == record->identity.chain &&
                 (before == NULL || before->identity.chain == header->previous_chain) &&
                 record_chain(header, header + 1, header->previous_chain) == header->chain;
    if (right) {
        SOMETIMES(CLUSTER_SERVED_FROM_DISK);
        serving_send(core, header);
    } else {
        serving_drop(core);
    }
}
