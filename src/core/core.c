// SPDX-License-Identifier: Apache-2.0
/*
 * core.c: the entrance. Takes memory apart at the start, hands events to the files that know them, collects effects.
 */
#include "core/state.h"

/* ---- Memory -------------------------------------------------------------------------------------------------------- */

struct sizes { /* what depends on the configuration */
    size_t payload_max;
    uint32_t line_max, slot_max;
    uint32_t copies_max;
    uint64_t roots_max;
};

static struct sizes sizes_of(const struct core_config *config) {
    if (config->cheap_memory) {
        return (struct sizes){.payload_max = min_u64((size_t)1 << 20, LOG_RECORD_BYTES_MAX),
                              .line_max = 1u << 17,
                              .slot_max = 1u << 18,
                              .copies_max = 64,
                              .roots_max = (uint64_t)1 << 20};
    }
    return (struct sizes){.payload_max = LOG_RECORD_BYTES_MAX,
                          .line_max = 1u << 22,
                          .slot_max = 1u << 23,
                          .copies_max = COPIES_MAX,
                          .roots_max = (uint64_t)16 << 20};
}

/* Hands out pieces of the memory, each aligned to a page, for O_DIRECT. */
struct carver {
    uint8_t *base;
    size_t used;
};

static void *carve(struct carver *carver, size_t size) {
    uint8_t *piece = carver->base + carver->used;
    carver->used += align_up(size, PAGE_SIZE);
    return piece;
}

/* A record with what comes before it in a batch's buffer, and its padding. */
static size_t record_bytes(const struct sizes *sizes) {
    return BATCH_RECORD_OFFSET + sizeof(struct record_header) + sizes->payload_max + PAGE_SIZE;
}

static void carve_batch(struct carver *carver, struct batch *batch, const struct sizes *sizes) {
    batch->payload_max = sizes->payload_max;
    batch->buffer = carve(carver, record_bytes(sizes));
    batch->replies = carve(carver, BATCH_REPLIES_MAX * sizeof(struct reply));
    batch->overlay.slots = carve(carver, (size_t)sizes->slot_max * sizeof(uint32_t));
    batch->overlay.lines = carve(carver, (size_t)sizes->line_max * sizeof(struct overlay_line));
    batch->overlay.line_max = sizes->line_max;
    batch->overlay.slot_max = sizes->slot_max;
}

static void carve_copies(struct carver *carver, struct copies *copies, uint32_t max) {
    copies->max = max;
    copies->pages = carve(carver, max * sizeof(struct copied_page));
    copies->heads = carve(carver, max * sizeof(uint32_t));
    uint8_t *bytes = carve(carver, (size_t)max * PAGE_SIZE);
    for (uint32_t i = 0; i < max; i++) {
        copies->pages[i].bytes = bytes + (size_t)i * PAGE_SIZE;
    }
    copies_init(copies);
}

static void carve_cluster(struct carver *carver, struct cluster *cluster, const struct sizes *sizes) {
    for (size_t i = 0; i < RECEIVED_MAX; i++) {
        cluster->received[i].buffer = carve(carver, record_bytes(sizes));
    }
    cluster->serve_buffer = carve(carver, record_bytes(sizes));
    cluster->apply_buffer = carve(carver, record_bytes(sizes));
    cluster->promise_block = carve(carver, PROMISE_BLOCK_SIZE);
    cluster->tail = carve(carver, TAIL_MAX * sizeof(struct tail_record));
    cluster->donate.buffer = carve(carver, PAGE_SIZE + PEER_PART_BYTES_MAX);
    cluster->install.theirs = carve(carver, sizes->roots_max);
    cluster->install.table = carve(carver, (size_t)2 * TABLE_BLOCK_SIZE);
    cluster->forwarding.forwards = carve(carver, FORWARDS_MAX * sizeof(struct forward));
    cluster->forwarders = carve(carver, FORWARDERS_MAX * sizeof(struct forwarder));
    cluster->forwarding.bytes = carve(carver, FORWARD_BYTES);
}

static size_t cluster_size(const struct sizes *sizes) {
    return (RECEIVED_MAX + 2) * align_up(record_bytes(sizes), PAGE_SIZE) + PROMISE_BLOCK_SIZE +
           align_up(TAIL_MAX * sizeof(struct tail_record), PAGE_SIZE) +
           align_up(FORWARDS_MAX * sizeof(struct forward), PAGE_SIZE) +
           align_up(FORWARDERS_MAX * sizeof(struct forwarder), PAGE_SIZE) + FORWARD_BYTES + PAGE_SIZE +
           PEER_PART_BYTES_MAX + align_up(sizes->roots_max, PAGE_SIZE) + (size_t)2 * TABLE_BLOCK_SIZE;
}

static size_t batch_count(const struct core_config *config) {
    return config->cluster ? BATCHES_CLUSTER : BATCHES;
}

static void carve_core(struct carver *carver, const struct core_config *config, const struct sizes *sizes) {
    struct core *core = carve(carver, sizeof(struct core));
    for (size_t i = 0; i < batch_count(config); i++) {
        carve_batch(carver, &core->batches[i], sizes);
    }
    if (config->cluster) {
        carve_cluster(carver, &core->cluster, sizes);
    }
    core->log.hint_block = carve(carver, PAGE_SIZE);
    core->log.zeros = carve(carver, ZERO_BYTES);
    for (size_t i = 0; i < CHECKPOINT_IOS; i++) {
        core->checkpoint.ios[i].buffer = carve(carver, CHECKPOINT_IO_BYTES);
    }
    core->checkpoint.roots_max = sizes->roots_max;
    core->checkpoint.roots = carve(carver, sizes->roots_max);
    core->checkpoint.superblock_buffer = carve(carver, SUPERBLOCK_COPIES * SUPERBLOCK_SIZE);
    carve_copies(carver, &core->checkpoint.copies, sizes->copies_max);
    core->recovery.scan = carve(carver, LOG_SEGMENT_BYTES); /* core_recovery_memory() begins here */
    for (size_t i = 0; i < RECOVERY_IOS; i++) {
        core->recovery.ios[i].buffer = carve(carver, RECOVERY_IO_BYTES);
    }
}

size_t core_size(const struct core_config *config) {
    struct sizes sizes = sizes_of(config);
    size_t fixed = align_up(sizeof(struct core), PAGE_SIZE);
    size_t batch =
        align_up(BATCH_RECORD_OFFSET + sizeof(struct record_header) + sizes.payload_max + PAGE_SIZE,
                 PAGE_SIZE) +
        align_up(BATCH_REPLIES_MAX * sizeof(struct reply), PAGE_SIZE) +
        align_up((size_t)sizes.slot_max * sizeof(uint32_t), PAGE_SIZE) +
        align_up((size_t)sizes.line_max * sizeof(struct overlay_line), PAGE_SIZE);
    size_t cluster = config->cluster ? cluster_size(&sizes) : 0;
    return fixed + cluster + batch_count(config) * batch + PAGE_SIZE + ZERO_BYTES +
           CHECKPOINT_IOS * CHECKPOINT_IO_BYTES + align_up(sizes.roots_max, PAGE_SIZE) +
           (size_t)SUPERBLOCK_COPIES * SUPERBLOCK_SIZE +
           align_up(sizes.copies_max * sizeof(struct copied_page), PAGE_SIZE) +
           align_up(sizes.copies_max * sizeof(uint32_t), PAGE_SIZE) + (size_t)sizes.copies_max * PAGE_SIZE +
           RECOVERY_IOS * RECOVERY_IO_BYTES + LOG_SEGMENT_BYTES;
}

struct core *core_init(void *memory, const struct core_config *config, struct image *image,
                       struct region_map *maps) {
    struct sizes sizes = sizes_of(config);
    struct carver carver = {.base = memory};
    struct core *core = memory;
    carve_core(&carver, config, &sizes);
    ASSERT(carver.used == core_size(config));
    ASSERT(payload_lines_max(sizes.payload_max) <= sizes.line_max);
    core->config = *config;
    core->cluster.on = config->cluster;
    core->image = image;
    core->maps = maps;
    core->building = &core->batches[0];
    for (size_t i = 0; i < batch_count(config); i++) {
        overlay_reset(&core->batches[i].overlay);
    }
    log_init(core);
    checkpoint_init(core);
    if (config->cluster) {
        forward_init(core);
    }
    return core;
}

void *core_recovery_memory(struct core *core, size_t *ret_size) {
    *ret_size = LOG_SEGMENT_BYTES + RECOVERY_IOS * RECOVERY_IO_BYTES;
    return core->recovery.scan;
}

/* ---- Effects ------------------------------------------------------------------------------------------------------- */

void core_issue(struct core *core, struct io *io, uint32_t purpose) {
    struct effects *effects = core->effects;
    ASSERT(!io->busy && effects->io_count < EFFECT_IOS_MAX);
    ASSERT(!core->stopped); /* C6 */
    io->busy = 1;
    io->purpose = purpose;
    io->result = IO_RESULT_OK;
    effects->ios[effects->io_count++] = io;
}

void core_reply_out(struct core *core, const struct reply *reply) {
    struct effects *effects = core->effects;
    ASSERT(effects->replies == NULL || effects->replies == core->immediate);
    ASSERT(effects->reply_count < ARRAY_COUNT(core->immediate));
    core->immediate[effects->reply_count++] = *reply;
    effects->replies = core->immediate;
}

void core_reply_direct(struct core *core, uint64_t token, shelf_result result, enum reply_reason reason) {
    struct reply reply = {.token = token, .result = (uint32_t)result, .reason = (uint32_t)reason};
    core_reply_out(core, &reply);
}

void core_durability_say(const struct core *core, struct reply *reply) {
    if (core->cluster.on && reply->receipt.durability == SHELF_DURABLE_LOCAL &&
        core->cluster.group.known.member_count > 1) {
        reply->receipt.durability = SHELF_DURABLE_MAJORITY;
    }
}

void core_reply(struct core *core, const struct reply *reply) {
    struct reply copy = *reply;
    core_durability_say(core, &copy);
    if (forward_reply(core, &copy)) {
        core_reply_out(core, &copy);
    }
}

void core_reply_result(struct core *core, uint64_t token, shelf_result result, enum reply_reason reason) {
    struct reply reply = {.token = token, .result = (uint32_t)result, .reason = (uint32_t)reason};
    core_reply(core, &reply);
}

struct batch *core_batch_open(struct core *core) {
    return core->building->tx_count > 0 ? core->building : core->building->older;
}

void core_refuse(struct core *core, uint64_t token, shelf_result result, enum reply_reason reason) {
    struct batch *batch = core_batch_open(core);
    if (batch == NULL) {
        core_reply_result(core, token, result, reason);
    } else if (batch->reply_count == BATCH_REPLIES_MAX) {
        core->effects->refused = true;
    } else {
        struct reply *reply = batch_reply_add(batch, token);
        reply->result = (uint32_t)result;
        reply->reason = (uint32_t)reason;
    }
}

void core_stop(struct core *core, shelf_result result, const char *what, const char *reason,
               struct file_id file, uint64_t offset, uint64_t index) {
    if (core->stopped) {
        return; /* the first cause counts */
    }
    core->stopped = true;
    core->serving = core->open = false;
    core->fault = (struct core_fault){
        .result = result, .what = what, .reason = reason, .file = file, .offset = offset, .index = index};
}

bool core_io_failed(struct core *core, const struct io *io, const char *what) {
    if (io->result == IO_RESULT_OK) {
        return false;
    }
    const char *reason = "the device reported an error";
    shelf_result result = SHELF_IO;
    if (io->result == IO_RESULT_NO_SPACE) {
        reason = "the disk is full";
        result = SHELF_NO_SPACE;
    } else if (io->result == IO_RESULT_NO_MEMORY) {
        reason = "the system refused memory";
        result = SHELF_NO_MEMORY;
    }
    core_stop(core, result, what, reason, io->file, io->offset, core->log.last.index);
    return true;
}

/* ---- Events -------------------------------------------------------------------------------------------------------- */

static void on_submit(struct core *core, const struct event *event) {
    if (core->stopped) {
        core_reply_direct(core, event->token, SHELF_IO, REASON_NODE_STOPPED);
    } else if (core->cluster.on) {
        forward_submit(core, event);
    } else if (!core->serving) {
        core_reply_direct(core, event->token, SHELF_UNAVAILABLE, REASON_NODE_NOT_READY);
    } else {
        admit_request(core, event);
    }
}

static void on_io_done(struct core *core, struct io *io) {
    ASSERT(io->busy);
    io->busy = 0;
    if (core->stopped) {
        return; /* C6 */
    }
    switch ((enum io_purpose)io->purpose) {
    case PURPOSE_LOG_WRITE:
        log_on_write(core, io);
        break;
    case PURPOSE_LOG_RESERVE:
        log_on_reserve(core, io);
        break;
    case PURPOSE_LOG_ZERO:
        log_on_zero(core, io);
        break;
    case PURPOSE_LOG_HINT:
        log_on_hint(core, io);
        break;
    case PURPOSE_CONTROL:
        catalog_on_io(core, io);
        break;
    case PURPOSE_CHECKPOINT:
    case PURPOSE_REMOVE:
        checkpoint_on_io(core, io);
        break;
    case PURPOSE_RECOVERY:
        recovery_on_io(core, io);
        break;
    case PURPOSE_PROMISE:
        promise_on_io(core, io);
        break;
    case PURPOSE_RECEIVE:
        receive_on_io(core, io);
        break;
    case PURPOSE_CUT:
        receive_on_cut(core, io);
        break;
    case PURPOSE_SERVE:
        serve_on_io(core, io);
        break;
    case PURPOSE_APPLY_READ:
        apply_log_on_read(core, io);
        break;
    case PURPOSE_APPLY_FILES:
        apply_log_on_files(core, io);
        break;
    case PURPOSE_LIMBO:
        abdicate_on_io(core, io);
        break;
    case PURPOSE_DONATE:
        donate_on_io(core, io);
        break;
    case PURPOSE_INSTALL:
        install_on_io(core, io);
        break;
    }
}

static void on_tick(struct core *core, const struct event *event) {
    core->hold_checkpoint = event->hold_checkpoint;
    if (core->stopped) {
        return;
    }
    if (!core->open) {
        log_retry(core);
        return;
    }
    log_on_tick(core);
    checkpoint_on_tick(core);
    if (core->serving && !cluster_held(core)) {
        session_expire_idle(core);
    }
}

/* A request that joined a record does not set anything in motion if the record has to wait anyway: for the one before it,
 * or for the step that ends the hold. That step goes on with all that there is. */
static bool joined_only(const struct core *core, const struct event *event, uint32_t tx_count_before) {
    return event->kind == EVENT_SUBMIT && core->building->tx_count > tx_count_before &&
           ((core->log.writing != NULL && !log_may_go_on(core)) || event->hold_record) &&
           (core->log.applying == NULL || core->defer_apply);
}

/* What goes on by itself, whichever event came: the next record, the next step of a checkpoint, the end. */
static void go_on(struct core *core, const struct event *event) {
    if (!core->stopped && core->recovery.state == RECOVERY_OPENING && core->recovery.cursor == 1 &&
        !core_log_busy(core) && core->log.applying == NULL) {
        recovery_opened(core);
    }
    if (core->stopped || core->recovery.state != RECOVERY_DONE) {
        return;
    }
    cluster_go_on(core);
    core->closed |= core->closing && core->effects->restart;
    if (core->stopped || core->effects->restart) {
        return;
    }
    catalog_continue(core);
    checkpoint_continue(core);
    if (!core->cluster.on) {
        apply_due(core);
    }
    bool may_write = !core->cluster.on || (core->serving && !cluster_held(core));
    if (core->building->tx_count > 0 && !event->hold_record && may_write) {
        log_go_on(core);
        log_write(core, RECORD_DATA);
        cluster_sent(core);
    }
    if (!core->stopped) {
        log_background(core);
    }
    bool idle = !core_log_busy(core) && core->log.applying == NULL && !core_work_pending(core) &&
                core->control.state == CONTROL_IDLE && core->checkpoint.state == CHECKPOINT_IDLE &&
                !core->checkpoint.wanted && !core->remove_io.busy && !install_holds_checkpoint(core) &&
                retire_done(core);
    if (core->closing && !core->closed && idle && !core->stopped) {
        if (core->close_checkpoint && checkpoint_dirty(core)) {
            core->close_checkpoint = false;
            core->checkpoint.wanted = true;
            checkpoint_continue(core);
        } else if (!core->closing_hint && !core->log.hint.busy && !core->log.zero.busy &&
                   !core->log.reserve.busy) {
            log_hint_write(core, retire_clean(core)); /* log_on_hint() sets closed */
            core->closing_hint = true;
        }
    }
}

void core_step(struct core *core, const struct event *event, struct effects *effects) {
    effects->io_count = 0;
    effects->reply_count = 0;
    effects->replies = NULL;
    effects->changed_count = 0;
    effects->message_count = 0;
    effects->messages = NULL;
    effects->swap = NULL;
    effects->look = effects->more = effects->restart = false;
    effects->refused = effects->opened = effects->closed = false;
    core->effects = effects;
    core->now_ms = max_u64(core->now_ms, event->now_ms);
    core->defer_apply = event->defer_apply && core->recovery.state == RECOVERY_DONE;
    uint32_t tx_count_before = core->building->tx_count;
    switch ((enum event_kind)event->kind) {
    case EVENT_START:
        recovery_start(core);
        break;
    case EVENT_SUBMIT:
        on_submit(core, event);
        break;
    case EVENT_IO_DONE:
        on_io_done(core, event->io);
        break;
    case EVENT_TICK:
        if (!event->group_only) {
            on_tick(core, event);
        }
        cluster_tick(core, event);
        break;
    case EVENT_CHECKPOINT:
        checkpoint_on_event(core, event->token);
        break;
    case EVENT_CLOSE:
        core->closing = true;
        core->close_checkpoint = event->checkpoint;
        break;
    case EVENT_GO_ON:
        break;
    case EVENT_MESSAGE:
    case EVENT_SWAP:
    case EVENT_REGISTER:
    case EVENT_GONE:
    case EVENT_READ:
        cluster_on_event(core, event);
        break;
    }
    if (!joined_only(core, event, tx_count_before)) {
        go_on(core, event);
    }
    effects->apply_due = !core->stopped && !core->cluster.on && core->log.applying != NULL &&
                         (core->defer_apply || effects->reply_count > 0);
    effects->stopped = core->stopped;
    effects->restart = core->cluster.install.state == INSTALL_DONE && !core->stopped;
    effects->closed = core->closed;
    core->effects = NULL;
}

/* ---- What others may look up --------------------------------------------------------------------------------------- */

const struct core_fault *core_fault_get(const struct core *core) {
    return core->stopped ? &core->fault : NULL;
}

bool core_log_busy(const struct core *core) {
    return core->log.writing != NULL;
}

bool core_work_pending(const struct core *core) {
    return core->building->tx_count > 0;
}

void core_status_get(const struct core *core, struct core_status *ret_status) {
    *ret_status = core->status;
    ret_status->applied = core->applied;
    ret_status->epoch = core->epoch;
    ret_status->checkpoint = core->superblock.index;
    ret_status->log_bytes_live = core->log.applied_bytes;
    ret_status->recovered_records = core->recovery.records;
    ret_status->recovered_cut_bytes = core->recovery.cut_bytes;
    ret_status->sessions = core->session_count;
    ret_status->regions = core->region_count;
    ret_status->no_space = core->log.write_waits_space || core->log.reserve_failed;
    ret_status->stopped = core->stopped;
    memcpy(ret_status->shelf_id, core->superblock.shelf_id, sizeof(ret_status->shelf_id));
    memcpy(ret_status->incarnation, core->superblock.incarnation, sizeof(ret_status->incarnation));
    ret_status->role = core->cluster.running ? (uint32_t)core->cluster.group.role : 0;
    ret_status->serves = core->serving;
    ret_status->commit = core->cluster.on ? core->cluster.commit : core->applied;
    ret_status->last = core->log.last.index;
    ret_status->durable = core->log.durable_index;
    ret_status->installs = core->cluster.install.state != INSTALL_NONE;
    ret_status->checkpoint_active = core->checkpoint.state != CHECKPOINT_IDLE;
}
