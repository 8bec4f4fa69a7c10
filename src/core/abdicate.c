// SPDX-License-Identifier: Apache-2.0
/*
 * abdicate.c: a primary that has lost the lead becomes a backup (rule K3 of the protocol).
 *
 *     ANSWERS  what waits for a record that was appended is UNKNOWN, what waits for one that was not, or for a refusal, is for the next
 *              primary. (forward.c then asks the next primary for the former, too, where that does no harm: W5 of forward.h. Other
 *              nodes hear nothing of theirs, and ask by themselves)
 *     IOS      what is on its way to the disk ends: the last record, files of a region
 *     REGIONS  regions of records that are not committed go. If they are committed by the next primary, they are made as
 *              on any backup
 *
 * Until it is through, nothing is received, cut, promised as a candidate, or led.
 */
#include "core/state.h"

void abdicate_begin(struct core *core) {
    core->serving = false;
    core->cluster.leading = false;
    core->cluster.abdication = ABDICATION_ANSWERS;
}

/* Answers that wait for a refusal, a conflict for example, are of requests that are not in the record. */
static void replies_change(struct batch *batch, bool appended) {
    for (uint32_t i = 0; i < batch->reply_count; i++) {
        struct reply *reply = &batch->replies[i];
        bool in_record = reply->result == SHELF_OK || reply->result == SHELF_ABORTED;
        bool unknown = appended && in_record;
        if (unknown && MUTANT(LOST_LEAD_SAYS_COMMITTED)) {
            continue;
        }
        if (!in_record && MUTANT(LOST_LEAD_SAYS_CONFLICT)) {
            continue;
        }
        *reply = (struct reply){.token = reply->token,
                                .result = unknown ? SHELF_UNKNOWN : SHELF_UNAVAILABLE,
                                .reason = unknown ? REASON_PRIMARY_LOST : REASON_NOT_PRIMARY};
    }
}

/* One batch a step: its memory is lent to the effects. False: none is left. */
static bool answers_next(struct core *core) {
    for (uint32_t i = 0; i < ARRAY_COUNT(core->batches); i++) {
        struct batch *batch = &core->batches[i];
        if (batch->reply_count > 0) {
            if (core->effects->reply_count == 0) {
                replies_change(batch, batch != core->building);
                core->effects->reply_count = forward_replies(core, batch->replies, batch->reply_count);
                core->effects->replies = core->effects->reply_count > 0 ? batch->replies : NULL;
                batch->reply_count = 0;
            }
            core->effects->more = true;
            return true;
        }
    }
    struct cluster *cluster = &core->cluster;
    if (cluster->read_count > 0) {
        uint64_t token = cluster->reads[cluster->read_count - 1].token;
        if ((token & TOKEN_FORWARDED) || core->effects->reply_count == 0) {
            cluster->read_count--;
        }
        if (!(token & TOKEN_FORWARDED) && core->effects->reply_count == 0) {
            core_reply_direct(core, token, SHELF_UNAVAILABLE, REASON_NOT_PRIMARY);
        }
        core->effects->more = true;
        return true;
    }
    return false;
}

static bool ios_busy(struct core *core) {
    struct log *log = &core->log;
    if (log->writing != NULL && (log->write.busy || log->write_waits_space)) {
        return true; /* it may still become durable; then it is a suffix like any other */
    }
    if (core->cluster.follow_step != 0) {
        return true; /* files for a record of before */
    }
    return core->control.state != CONTROL_IDLE; /* catalog_continue() and catalog_on_io() end it */
}

static void batches_reset(struct core *core) {
    for (uint32_t i = 0; i < ARRAY_COUNT(core->batches); i++) {
        struct batch *batch = &core->batches[i];
        overlay_reset(&batch->overlay);
        batch->payload_size = 0;
        batch->tx_count = 0;
        batch->older = NULL;
    }
    core->log.writing = core->log.applying = core->log.parked = NULL;
    core->log.writing_durable = false;
}

/* Of a record that is not applied. */
static bool is_limbo(const struct core *core, const struct region *region) {
    return region->number != 0 && !region->applied_live && region->created_index > core->applied;
}

static bool regions_next(struct core *core) {
    struct cluster *cluster = &core->cluster;
    if (cluster->limbo_io.busy) {
        return true;
    }
    if (cluster->limbo_region != 0) { /* its files are gone; now its memory */
        cluster->limbo_io = (struct io){.kind = IO_UNMAP, .file = {.region = cluster->limbo_region}};
        core_issue(core, &cluster->limbo_io, PURPOSE_LIMBO);
        return true;
    }
    for (uint32_t place = 1; place < REGION_PLACES; place++) {
        if (is_limbo(core, &core->regions[place])) {
            SOMETIMES(CLUSTER_REGION_FORGOTTEN);
            cluster->limbo_region = core->regions[place].number;
            cluster->limbo_io =
                (struct io){.kind = IO_REMOVE, .file = {.kind = FILE_PAGES, .region = cluster->limbo_region}};
            core_issue(core, &cluster->limbo_io, PURPOSE_LIMBO);
            return true;
        }
    }
    return false;
}

void abdicate_on_io(struct core *core, struct io *io) {
    if (core_io_failed(core, io, "files of a region that was never committed")) {
        return;
    }
    if (io->kind == IO_UNMAP) {
        region_place_release(core, region_find(core, core->cluster.limbo_region));
        core->cluster.limbo_region = 0;
    }
}

void abdicate_continue(struct core *core) {
    struct cluster *cluster = &core->cluster;
    if (cluster->abdication == ABDICATION_ANSWERS && !answers_next(core)) {
        cluster->abdication = ABDICATION_IOS;
    }
    if (cluster->abdication == ABDICATION_IOS && !ios_busy(core)) {
        batches_reset(core);
        cluster->abdication = ABDICATION_REGIONS;
    }
    if (cluster->abdication == ABDICATION_REGIONS && !core->stopped && !regions_next(core)) {
        SOMETIMES(CLUSTER_ABDICATED);
        cluster->abdication = ABDICATION_NONE;
        for (uint32_t place = 1; place < REGION_PLACES; place++) {
            core->regions[place].admitted_live = core->regions[place].applied_live;
        }
        cluster_log_changed(core);
    }
}
