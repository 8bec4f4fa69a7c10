// SPDX-License-Identifier: Apache-2.0
/*
 * cluster.c: a node of a cluster: the group's orders carried out, and what happens told to it.
 */
#include "core/state.h"

/* ---- The log, as the group sees it -------------------------------------------------------------------------------- */

static struct log_mark mark_of(const struct identity *identity) {
    return (struct log_mark){.index = identity->index, .epoch = identity->epoch};
}

static struct log_mark host_log_last(void *context) {
    struct core *core = context;
    return mark_of(core->cluster.cut_wanted ? &tail_find(core, core->cluster.cut_to)->identity
                                            : &core->log.last);
}

static uint64_t host_log_durable(void *context) {
    const struct core *core = context;
    uint64_t durable = core->log.durable_index;
    return core->cluster.cut_wanted ? min_u64(durable, core->cluster.cut_to) : durable;
}

static bool is_here(const struct core *core, uint64_t index) {
    const struct tail_record *record = tail_find(core, index);
    return record != NULL && tail_on_disk(core, record);
}

/* What was trimmed cannot be sent, so it is not there; but the record before the first one is known. */
static bool host_log_mark(void *context, uint64_t index, struct log_mark *ret_mark) {
    const struct core *core = context;
    const struct tail_record *record = tail_find(core, index);
    if (MUTANT(TRIMMED_LAST_UNKNOWN) && !is_here(core, index)) {
        *ret_mark = (struct log_mark){0};
        return true;
    }
    if (record == NULL ||
        (!is_here(core, index) && !is_here(core, index + 1) && index != core->log.last.index)) {
        return false;
    }
    *ret_mark = mark_of(&record->identity);
    return true;
}

static uint64_t host_log_first(void *context) {
    return far_first(context);
}

bool cluster_settled(const struct core *core) {
    const struct cluster *cluster = &core->cluster;
    return !cluster->cut_wanted && cluster->abdication == ABDICATION_NONE;
}

static bool host_log_settled(void *context) {
    return cluster_settled(context);
}

/* Could an opening record be appended now? */
static bool host_log_ready(void *context) {
    const struct core *core = context;
    bool own_done = core->log.writing == NULL || (!core->log.write.busy && !core->log.write_waits_space);
    bool received_done = core->log.last.index == core->log.durable_index;
    return cluster_settled(core) && own_done && received_done && core->log.parked == NULL &&
           !core->log.zero.busy && log_has_room(core, core->building->payload_size, true) && !core->closing;
}

static bool host_log_same(void *context, const void *bytes, size_t size) {
    const struct core *core = context;
    struct record_header header;
    (void)size;
    memcpy(&header, bytes, sizeof(header));
    const struct tail_record *record = tail_find(core, header.index);
    return record != NULL && record->identity.epoch == header.epoch &&
           record->identity.chain == header.chain && record->identity.size == header.payload_size;
}

static bool host_log_receive(void *context, const void *bytes, size_t size) {
    return receive_record(context, bytes, size);
}

static void host_log_cut(void *context, uint64_t index) {
    receive_cut(context, index);
}

/* The first record of the epoch: an empty one, or what was admitted while commits were held back. */
static void host_log_open(void *context, uint64_t epoch) {
    struct core *core = context;
    struct cluster *cluster = &core->cluster;
    core->epoch = epoch;
    if (!cluster->leading) {
        cluster->leading = true;
        cluster->lead = epoch;
        ASSERT(core->log.writing == NULL && core->building->tx_count == 0);
    } else if (core->log.writing != NULL) { /* it waits for its commit; the next one must not */
        SOMETIMES(CLUSTER_PARKED);
        log_park(core);
    }
    struct batch *batch = core->building;
    if (batch->tx_count == 0) {
        batch->index = core->log.last.index + 1;
    }
    ASSERT(batch->index == core->log.last.index + 1);
    for (uint32_t i = 0; i < batch->reply_count; i++) {
        batch->replies[i].receipt.epoch = epoch;
    }
    log_write(core, batch->tx_count == 0 ? RECORD_OPENING : RECORD_DATA);
    ASSERT(core->log.last.index == batch->index &&
           core->log.last.epoch == epoch); /* as host_log_ready() said */
}

/* ---- Other orders ------------------------------------------------------------------------------------------------- */

void cluster_letter(struct core *core, uint64_t node, const struct peer_message *message) {
    struct effects *effects = core->effects;
    if (effects->message_count < EFFECT_MESSAGES_MAX) { /* (the group sends again what got lost) */
        core->cluster.letters[effects->message_count++] =
            (struct peer_letter){.node = node, .message = *message};
        effects->messages = core->cluster.letters;
    }
}

static void host_send(void *context, uint64_t node, const struct peer_message *message, bool record) {
    if (record) {
        serve_record(context, node, message);
    } else {
        cluster_letter(context, node, message);
    }
}

static void host_offer(void *context, uint64_t node, const struct peer_message *message) {
    donate_offer(context, node, message);
}

static void host_promise_write(void *context, uint64_t epoch) {
    promise_write(context, epoch);
}

static void host_swap(void *context, uint64_t epoch, const struct configuration *wanted) {
    struct core *core = context;
    core->cluster.swap = *wanted;
    core->effects->swap = &core->cluster.swap;
    core->effects->swap_from = epoch;
}

static void host_look(void *context) {
    ((struct core *)context)->effects->look = true;
}

static void host_commit(void *context, uint64_t index) {
    ((struct core *)context)->cluster.commit = index; /* applied in cluster_go_on() */
}

static void host_lead_lost(void *context) {
    abdicate_begin(context);
}

static void host_read_answer(void *context, uint64_t round, uint64_t index, bool confirmed) {
    struct cluster *cluster = &((struct core *)context)->cluster;
    for (uint32_t i = 0; i < cluster->read_count; i++) {
        struct waiting_read *read = &cluster->reads[i];
        if (read->round <= round && read->index == UINT64_MAX) {
            read->index = confirmed ? index : 0; /* 0: not confirmed */
        }
    }
}

static void host_stop(void *context, const char *reason) {
    struct core *core = context;
    core_stop(core, SHELF_CORRUPT, "log", reason, (struct file_id){.kind = FILE_LOG}, 0,
              core->cluster.commit);
}

/* ---- Begin -------------------------------------------------------------------------------------------------------- */

void cluster_start(struct core *core) {
    struct cluster *cluster = &core->cluster;
    const struct group_host host = {.context = core,
                                    .log_last = host_log_last,
                                    .log_durable = host_log_durable,
                                    .log_mark = host_log_mark,
                                    .log_first = host_log_first,
                                    .log_settled = host_log_settled,
                                    .log_ready = host_log_ready,
                                    .log_same = host_log_same,
                                    .log_receive = host_log_receive,
                                    .log_cut = host_log_cut,
                                    .log_open = host_log_open,
                                    .offer = host_offer,
                                    .send = host_send,
                                    .promise_write = host_promise_write,
                                    .swap = host_swap,
                                    .look = host_look,
                                    .commit = host_commit,
                                    .lead_lost = host_lead_lost,
                                    .read_answer = host_read_answer,
                                    .stop = host_stop};
    struct group_config config = core->config.group;
    memcpy(config.incarnation, core->superblock.incarnation, sizeof(config.incarnation));
    core->recovery.state = RECOVERY_DONE;
    core->open = true;
    for (uint32_t place = 1; place < REGION_PLACES; place++) {
        if (core->regions[place].mapped && core->regions[place].applied_live) {
            region_publish(core, &core->regions[place], core->applied);
        }
    }
    core->checkpoint.last_start_ms = core->opened_ms = core->now_ms;
    cluster->running = true;
    cluster->commit_found = min_u64(max_u64(cluster->commit_found, core->applied), core->log.last.index);
    if (MUTANT(RECOVERY_APPLIES_ALL)) {
        cluster->commit_found = core->log.last.index;
    }
    cluster->commit = cluster->commit_found;
    /* What was read in this life's image is named by an index alone (A2 of admit.c): of the life, any number will do. */
    uint64_t life;
    memcpy(&life, config.nonce, sizeof(life));
    atomic_store_explicit(&core->image->epoch, life, memory_order_relaxed);
    group_init(&cluster->group, &config, &host, cluster->promised, cluster->commit, cluster->now_ms);
}

/* ---- Events ------------------------------------------------------------------------------------------------------- */

static void read_refuse(struct core *core, uint64_t token) {
    if (token & TOKEN_FORWARDED) {
        forwarded_drop(core, token);
    } else {
        core_reply_direct(core, token, SHELF_UNAVAILABLE, REASON_NOT_PRIMARY);
    }
}

void cluster_read_begin(struct core *core, uint64_t token) {
    struct cluster *cluster = &core->cluster;
    if (!core->serving || cluster->read_count == READS_MAX) {
        read_refuse(core, token);
        return;
    }
    struct waiting_read *read = &cluster->reads[cluster->read_count++];
    *read = (struct waiting_read){.token = token, .round = 0, .index = UINT64_MAX};
    uint64_t round = group_read(&cluster->group);
    if (round == 0) {
        cluster->read_count--;
        read_refuse(core, token);
        return;
    }
    read->round = round;
}

static void on_message(struct core *core, const struct peer_message *message) {
    if (message->kind == PEER_PART_ASK) {
        donate_on_ask(core, message);
    } else if (message->kind == PEER_PART) {
        install_on_part(core, message);
    } else if (message->kind == PEER_OFFER) {
        install_on_offer(core, message);
    } else {
        group_on_message(&core->cluster.group, message);
    }
    if (message->kind == PEER_FORWARD) {
        forwarded_on_message(core, message);
    } else if (message->kind == PEER_ANSWER) {
        forward_on_answer(core, message);
    }
}

static void on_read(struct core *core, uint64_t token) {
    if (core->stopped || !core->cluster.running) {
        core_reply_direct(core, token, SHELF_UNAVAILABLE, REASON_NOT_PRIMARY);
    } else if (core->serving) {
        cluster_read_begin(core, token);
    } else {
        forward_read(core, token);
    }
}

void cluster_on_event(struct core *core, const struct event *event) {
    struct cluster *cluster = &core->cluster;
    if (event->kind == EVENT_READ) {
        on_read(core, event->token);
    } else if (!cluster->running || core->stopped || install_ends(core) || retire_rests(core)) {
        return;
    } else if (event->kind == EVENT_MESSAGE) {
        on_message(core, event->message);
        cluster_contact(core);
    } else if (event->kind == EVENT_GONE) {
        group_on_gone(&cluster->group, event->peer);
    } else if (event->kind == EVENT_SWAP) {
        group_on_swap(&cluster->group, (enum swap_result)event->swap_result, event->configuration);
    } else {
        group_on_register(&cluster->group, event->configuration);
    }
}

/* What met a full disk is tried again. */
static void retries(struct core *core) {
    struct cluster *cluster = &core->cluster;
    if (cluster->promise_waits && !cluster->promise_io.busy) {
        core_issue(core, &cluster->promise_io, PURPOSE_PROMISE);
    }
    if (cluster->write_waits && !cluster->write_io.busy) {
        core_issue(core, &cluster->write_io, PURPOSE_RECEIVE);
    }
    if (cluster->cut_waits && !cluster->cut_io.busy) {
        core_issue(core, &cluster->cut_io, PURPOSE_CUT);
    }
    apply_log_tick(core);
}

void cluster_tick(struct core *core, const struct event *event) {
    core->cluster.now_ms = max_u64(core->cluster.now_ms, event->steady_ms);
    if (core->cluster.running && !core->stopped) {
        retries(core);
        forward_tick(core);
        install_tick(core);
        if (!install_ends(core) && !retire_rests(core)) {
            group_tick(&core->cluster.group, core->cluster.now_ms);
        }
        cluster_contact(core);
    }
}

void cluster_log_changed(struct core *core) {
    if (core->cluster.running && !core->stopped) {
        group_on_log(&core->cluster.group);
    }
}

void cluster_appended(struct core *core) {
    const struct batch *batch = core->log.writing;
    struct position begin = core->log.head;
    begin.offset -= align_up(sizeof(struct record_header) + batch->payload_size, core->superblock.alignment);
    tail_add(core, &core->log.last, begin, core->log.head, core->log.head_place);
}

/* K4. Before it is on this node's own disk: that counts by what is durable there (L4), as every other. */
void cluster_sent(struct core *core) {
    if (core->cluster.running && !core->stopped && !MUTANT(APPENDED_WAITS)) {
        group_on_appended(&core->cluster.group);
    }
}

bool cluster_held(const struct core *core) {
    const struct cluster *cluster = &core->cluster;
    return cluster->leading && (cluster->group.hold || core->log.parked != NULL);
}

/* A new primary, everything of before it is in the image: what is admitted is what is applied. */
static void serve_begin(struct core *core) {
    for (uint32_t place = 1; place < REGION_PLACES; place++) {
        core->regions[place].admitted_live = false;
    }
    core->building->index = core->log.last.index + 1;
    core->opened_ms = core->now_ms;
    catalog_mirror_rebuild(core);
    if (!MUTANT(MIRRORS_NOT_REBUILT)) {
        session_mirror_rebuild(core);
    }
    core->serving = !core->stopped;
    SOMETIMES(CLUSTER_LEADS);
}

static void reads_answer(struct core *core) {
    struct cluster *cluster = &core->cluster;
    bool room = core->effects->reply_count == 0 || core->effects->replies == core->immediate;
    for (uint32_t i = 0; i < cluster->read_count && room; i++) {
        const struct waiting_read *read = &cluster->reads[i];
        if (read->index == UINT64_MAX || read->index > core->applied) {
            continue;
        }
        if (core->effects->reply_count == ARRAY_COUNT(core->immediate)) {
            core->effects->more = true;
            return;
        }
        const struct reply reply = {.token = read->token,
                                    .receipt = {.index = read->index, .epoch = core->epoch}};
        if (read->index == 0) {
            read_refuse(core, read->token);
        } else if (read->token & TOKEN_FORWARDED) {
            forwarded_reply(core, &reply);
        } else {
            core_reply_out(core, &reply);
        }
        cluster->reads[i--] = cluster->reads[--cluster->read_count];
    }
    core->effects->more |= !room && cluster->read_count > 0;
}

void cluster_go_on(struct core *core) {
    struct cluster *cluster = &core->cluster;
    if (!cluster->running || core->stopped) {
        return;
    }
    install_continue(core);
    if (core->stopped || install_ends(core)) {
        core->effects->restart = cluster->install.state == INSTALL_DONE;
        return;
    }
    abdicate_continue(core);
    receive_continue(core);
    serve_continue(core);
    donate_continue(core);
    apply_log_continue(core);
    if (core->stopped) {
        return;
    }
    if (cluster->leading && !core->serving && group_serves(&cluster->group) &&
        (core->applied == core->log.last.index || MUTANT(SERVES_BEFORE_APPLIED))) {
        serve_begin(core);
    }
    if (!cluster->opened && core->applied >= cluster->commit_found) {
        cluster->opened = core->effects->opened = true;
    }
    if (cluster->abdication == ABDICATION_NONE) {
        reads_answer(core);
    }
    forward_continue(core);
    forwarded_continue(core);
    retire_continue(core);
}
