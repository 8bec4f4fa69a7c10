// SPDX-License-Identifier: Apache-2.0
/*
 * apply_log.c: on a node of a cluster: records that are committed change the image, one after the other. Their bytes come
 * from the primary's own batch, from what was just received, or from the log. What a record needs, files and memory of a
 * region that it makes or grows, is there first, as on the primary.
 *
 *   A1  One record that changes anything in a step: its wakes are told with it.
 *   A2  Nothing here decides what is committed; applied <= commit, and <= what is durable (K1).
 */
#include "core/state.h"

static const struct file_id file_log = {.kind = FILE_LOG};

/* ---- Files and memory --------------------------------------------------------------------------------------------- */

enum follow_step { FOLLOW_NONE = 0, FOLLOW_UNMAP, FOLLOW_FILES, FOLLOW_MAP };

static void follow_issue(struct core *core, struct io io) {
    struct cluster *cluster = &core->cluster;
    cluster->follow_ios[cluster->follow_left] = io;
    core_issue(core, &cluster->follow_ios[cluster->follow_left++], PURPOSE_APPLY_FILES);
}

static void files_send(struct core *core) {
    struct cluster *cluster = &core->cluster;
    const struct catalog_entry *entry = &cluster->follow_entry;
    const struct region *region = region_find(core, entry->region);
    cluster->follow_left = 0;
    cluster->follow_failure = IO_RESULT_OK;
    if (cluster->follow_step == FOLLOW_UNMAP) {
        follow_issue(core, (struct io){.kind = IO_UNMAP, .file = {.region = entry->region}});
    } else if (cluster->follow_step == FOLLOW_FILES) {
        uint64_t blocks = divide_up(entry->size, PAGE_SIZE * (uint64_t)TABLE_BLOCK_PAGES);
        uint64_t roots = align_up(
            roots_size(core) + sizeof(struct roots_region) + blocks * sizeof(struct block_entry), PAGE_SIZE);
        for (uint16_t slot = 0; slot < 2; slot++) {
            follow_issue(core,
                         (struct io){.kind = IO_RESERVE,
                                     .file = {.kind = FILE_PAGES, .slot = slot, .region = entry->region},
                                     .size = entry->size});
            follow_issue(
                core,
                (struct io){.kind = IO_RESERVE, .file = {.kind = FILE_ROOTS, .slot = slot}, .size = roots});
        }
        follow_issue(core, (struct io){.kind = IO_RESERVE,
                                       .file = {.kind = FILE_TABLE, .region = entry->region},
                                       .size = blocks * 2 * TABLE_BLOCK_SIZE});
    } else {
        follow_issue(core, (struct io){.kind = IO_MAP,
                                       .file = {.region = entry->region},
                                       .size = max_u64(entry->size, region->size_mapped),
                                       .size_max = entry->size_max});
    }
}

static void files_begin(struct core *core) {
    struct cluster *cluster = &core->cluster;
    const struct catalog_entry *entry = &cluster->follow_entry;
    struct region *region = region_find(core, entry->region);
    bool sane = entry->region > REGION_SYSTEM && entry->region < REGION_NUMBERS &&
                entry->size <= entry->size_max && entry->size % PAGE_SIZE == 0 &&
                entry->size_max % PAGE_SIZE == 0 && entry->size_max <= SHELF_REGION_BYTES_MAX;
    if (sane && region == NULL) {
        region = region_place_take(core, entry->region);
        if (region == NULL) { /* too many dropped ones wait for a checkpoint */
            core->checkpoint.wanted = true;
            return;
        }
    }
    if (!sane || (region->applied_live && region->size_max != entry->size_max)) {
        core_stop(core, SHELF_CORRUPT, "log", "a record creates a region that cannot be", file_log, 0,
                  core->applied + 1);
        return;
    }
    /* No checkpoint is to take it for a dropped one. */
    region->created_index = max_u64(region->created_index, core->applied + 1);
    bool other =
        region->mapped && region->size_max != entry->size_max; /* of a record that was never committed */
    cluster->follow_step = other ? FOLLOW_UNMAP : FOLLOW_FILES;
    files_send(core);
}

void apply_log_on_files(struct core *core, struct io *io) {
    struct cluster *cluster = &core->cluster;
    cluster->follow_left--;
    if (io->result == IO_RESULT_NO_SPACE || io->result == IO_RESULT_NO_MEMORY) {
        cluster->follow_failure = io->result; /* again at a tick */
    } else if (core_io_failed(core, io, "region files")) {
        return;
    }
    if (cluster->follow_left > 0 || cluster->follow_failure != IO_RESULT_OK) {
        return;
    }
    struct region *region = region_find(core, cluster->follow_entry.region);
    if (cluster->follow_step == FOLLOW_UNMAP) {
        region_place_release(core, region);
        region = region_place_take(core, cluster->follow_entry.region);
        region->created_index = core->applied + 1;
    } else if (cluster->follow_step == FOLLOW_MAP) {
        SOMETIMES(CLUSTER_REGION_FOLLOWED);
        region_mapped(region, io);
        cluster->follow_step = FOLLOW_NONE;
        return;
    }
    cluster->follow_step++;
    files_send(core);
}

/* A full disk: the same again. */
void apply_log_tick(struct core *core) {
    struct cluster *cluster = &core->cluster;
    if (cluster->follow_step != FOLLOW_NONE && cluster->follow_left == 0) {
        files_send(core);
    }
}

/* ---- Records ------------------------------------------------------------------------------------------------------ */

static void record_applied(struct core *core, const struct tail_record *record) {
    core->applied = record->identity.index;
    core->applied_identity = record->identity;
    core->applied_position = record->end;
    apply_publish(core, core->applied);
    for (uint32_t i = 0; i < RECEIVED_MAX; i++) {
        struct received *received = &core->cluster.received[i];
        if (received->state == RECEIVED_DURABLE && received->index <= core->applied) {
            received->state = RECEIVED_FREE;
        }
    }
}

static void read_begin(struct core *core, const struct tail_record *record) {
    struct cluster *cluster = &core->cluster;
    if (!tail_on_disk(core, record)) {
        core_stop(core, SHELF_CORRUPT, "log", "a record that is to be applied is not in the log", file_log, 0,
                  record->identity.index);
        return;
    }
    cluster->apply_index = 0;
    far_forget(&cluster->apply_far);
    cluster->apply_io =
        (struct io){.kind = IO_READ,
                    .file = file_log,
                    .offset = record->place * LOG_SEGMENT_BYTES + record->begin.offset,
                    .size = align_up(sizeof(struct record_header) + (uint64_t)record->identity.size,
                                     core->superblock.alignment),
                    .buffer = cluster->apply_buffer,
                    .urgent = 1};
    core_issue(core, &cluster->apply_io, PURPOSE_APPLY_READ);
}

void apply_log_on_read(struct core *core, struct io *io) {
    const struct record_header *header = (const struct record_header *)core->cluster.apply_buffer;
    const struct tail_record *record = tail_find(core, core->applied + 1);
    if (core_io_failed(core, io, "log") || core->cluster.apply_far.window_size > 0 || record == NULL) {
        return; /* far_apply() looks at it, or reads it: the tail may have moved on meanwhile */
    }
    bool right = header->header_crc == record_header_crc(header) && header->index == record->identity.index &&
                 header->payload_size == record->identity.size && header->chain == record->identity.chain &&
                 record_chain(header, header + 1, core->applied_identity.chain) == header->chain;
    if (!right) {
        core_stop(core, SHELF_CORRUPT, "log", "a record reads back differently from what was written",
                  file_log, io->offset, core->applied + 1);
        return;
    }
    core->cluster.apply_index = header->index;
}

enum applied { APPLIED_EMPTY, APPLIED_CHANGES, APPLIED_LATER };

static enum applied own_apply(struct core *core, struct batch *batch) {
    if (!apply_batch(core, batch)) {
        core->effects->more |= core->effects->reply_count > 0;
        return APPLIED_LATER;
    }
    return APPLIED_CHANGES;
}

static enum applied bytes_apply(struct core *core, const struct tail_record *record,
                                const struct record_header *header);

/* Of records that are behind the checkpoint, and before the tail. */
static enum applied far_apply(struct core *core) {
    struct cluster *cluster = &core->cluster;
    const struct record_header *header = NULL;
    struct io io;
    enum far_step step =
        far_step(core, &cluster->apply_far, core->applied + 1, cluster->apply_buffer, &io, &header);
    if (step == FAR_READS) {
        cluster->apply_index = 0;
        cluster->apply_io = io;
        cluster->apply_io.urgent = 1;
        core_issue(core, &cluster->apply_io, PURPOSE_APPLY_READ);
        return APPLIED_LATER;
    }
    if (step == FAR_GONE || header->previous_chain != core->applied_identity.chain ||
        header->previous_epoch != core->applied_identity.epoch) {
        core_stop(core, SHELF_CORRUPT, "log", "a record that is to be applied is not in the log", file_log, 0,
                  core->applied + 1);
        return APPLIED_LATER;
    }
    SOMETIMES(CLUSTER_FAR_APPLIED);
    struct tail_record record = {.identity = record_identity(header),
                                 .begin = cluster->apply_far.at,
                                 .end = cluster->apply_far.at,
                                 .place = cluster->apply_far.place};
    record.end.offset +=
        align_up(sizeof(*header) + (uint64_t)header->payload_size, core->superblock.alignment);
    if (record.identity.size == 0) {
        record_applied(core, &record);
        return APPLIED_EMPTY;
    }
    return bytes_apply(core, &record, header);
}

static enum applied record_apply(struct core *core, const struct tail_record *record) {
    const struct cluster *cluster = &core->cluster;
    const struct record_header *header = received_record(core, record->identity.index);
    if (record->identity.size == 0) {
        record_applied(core, record);
        return APPLIED_EMPTY;
    }
    if (header == NULL && cluster->apply_index == record->identity.index) {
        SOMETIMES(CLUSTER_APPLIED_FROM_DISK);
        header = (const struct record_header *)cluster->apply_buffer;
    } else if (header != NULL) {
        SOMETIMES(CLUSTER_APPLIED_FROM_MEMORY);
    }
    if (header == NULL) {
        read_begin(core, record);
        return APPLIED_LATER;
    }
    return bytes_apply(core, record, header);
}

static enum applied bytes_apply(struct core *core, const struct tail_record *record,
                                const struct record_header *header) {
    const uint8_t *payload = (const uint8_t *)(header + 1);
    if (catalog_needs_map(core, payload, header->payload_size, &core->cluster.follow_entry)) {
        files_begin(core);
        return APPLIED_LATER;
    }
    if (!apply_payload_valid(core, payload, header->payload_size, header->tx_count)) {
        core_stop(core, SHELF_CORRUPT, "log", "a record's checksum is right, but its contents make no sense",
                  file_log, 0, header->index);
        return APPLIED_LATER;
    }
    if (!apply_has_room(core, payload, header->payload_size)) {
        return APPLIED_LATER;
    }
    apply_payload(core, payload, header->payload_size, header->index);
    record_applied(core, record);
    return APPLIED_CHANGES;
}

/* (While a primary abdicates, regions of records that are not committed go; they must not come at the same time.) */
static bool is_busy(const struct core *core) {
    const struct cluster *cluster = &core->cluster;
    return core->stopped || core->closing_hint || cluster->apply_io.busy ||
           cluster->follow_step != FOLLOW_NONE || cluster->abdication != ABDICATION_NONE;
}

void apply_log_continue(struct core *core) {
    struct cluster *cluster = &core->cluster;
    uint64_t limit =
        min_u64(MUTANT(APPLY_UNCOMMITTED) ? UINT64_MAX : cluster->commit, core->log.durable_index); /* A2 */
    while (core->applied < limit && !is_busy(core)) {
        struct batch *batch = core->log.applying != NULL ? core->log.applying : core->log.writing;
        const struct tail_record *record = tail_find(core, core->applied + 1);
        if (core->effects->changed_count > 0) { /* A1 */
            core->effects->more = true;
            return;
        }
        bool own = batch != NULL && batch->index == core->applied + 1;
        enum applied applied = own              ? own_apply(core, batch)
                               : record != NULL ? record_apply(core, record)
                                                : far_apply(core);
        if (applied == APPLIED_LATER) {
            return;
        }
    }
}
