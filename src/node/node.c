// SPDX-License-Identifier: Apache-2.0
/*
 * node.c: the life of a node: open, the background thread, close. How requests get through it is in node_drive.c.
 *
 * While it opens, the opening thread is the only one. Afterwards the background thread executes whatever no commit waits
 * for (checkpoints, preparing the log, files of regions), ticks once a second, and writes records that have no waiting
 * thread. It never holds the core while it executes something.
 */
#include "node/node.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/detail.h"
#include "node/node_state.h"

enum {
    RECOVERY_WORKERS =
        6, /* enough reads at once for any disk, while two make memory and the opening thread checks */
    TICK_MS = 1000,
    DOZE_MS = 10000,      /* between ticks when nothing goes on */
    LINGER_NS = 40000,    /* the background thread looks for more that long, before it sleeps */
    NO_SPACE_GIVE_UP = 3, /* ios that met a full disk, in a row, before somebody who waits is told */
    SETTLE_LOOKS = 128,   /* at memory, and for how long, after which there is nothing to settle */
    SETTLE_NS = 5000000,
    SETTLE_REST = 3,
    SETTLE_APART_NS = 100000000,
    /* All nodes of a cluster write the same bytes to their logs, so it is that of the least of disks. */
    CLUSTER_ALIGNMENT = 4096,
};

#define MAPS_BYTES (REGION_NUMBERS * sizeof(struct region_map))

/* ---- Faults ------------------------------------------------------------------------------------------------------- */

void fault_describe(struct node *node) {
    const struct core_fault *fault = core_fault_get(node->core);
    const char *error = world_error(node->world);
    if (node->renewed) {
        (void)snprintf(
            node->fault, sizeof(node->fault),
            "a checkpoint of another node was installed, and the directory has to be opened again");
    } else if (!fault) {
        (void)snprintf(node->fault, sizeof(node->fault), "the node has stopped");
    } else if (error[0] != 0) {
        (void)snprintf(node->fault, sizeof(node->fault), "%s: %s", fault->what, error);
    } else {
        (void)snprintf(node->fault, sizeof(node->fault), "%s: %s (region %u, offset %llu, index %llu)",
                       fault->what, fault->reason, fault->file.region, (unsigned long long)fault->offset,
                       (unsigned long long)fault->index);
    }
}

const char *node_fault(struct node *node) {
    core_enter(node);
    const char *fault = node->stopped ? node->fault : "";
    (void)core_leave(node, NULL);
    return fault;
}

bool node_outdated(struct node *node) {
    core_enter(node);
    bool renewed = node->renewed;
    (void)core_leave(node, NULL);
    return renewed;
}

/* ---- Background thread -------------------------------------------------------------------------------------------- */

static struct io *chores_take(struct node *node) {
    struct io *first = node->chores.first;
    node->chores = (struct io_chain){NULL, NULL};
    return first;
}

static void chores_start(struct io_queue *queue, struct io *io) {
    while (io) {
        struct io *next = io->world;
        io_queue_start(queue, io);
        io = next;
    }
}

/* A flight goes into the ring if there is something else in it to wait for; see the head of node_drive.c. */
static bool flight_overlaps(const struct node *node) {
    return world_backend(node->world) == SHELF_BACKEND_URING && io_queue_active(node->queue) > 0;
}

/* Returns whether it had a duty. */
static bool background_duty(struct node *node) {
    struct call *self = &node->background;
    core_enter(node);
    struct io *chores = chores_take(node);
    enum duty duty = core_leave(node, self);
    chores_start(node->queue, chores);
    if (duty == DUTY_FLY && flight_overlaps(node)) {
        node->flight_ns = world_monotonic_ns();
        io_queue_start(node->queue, self->io);
        return true;
    }
    duty_do(node, self, duty);
    if (duty != DUTY_NONE) {
        node->duty_ns = world_monotonic_ns();
    }
    return duty != DUTY_NONE;
}

static void background_finished(struct node *node, struct io *io) {
    core_enter(node);
    if (io == node->flight) {
        flight_end(node, &node->background, io, node->flight_ns);
    } else {
        if (io->kind == IO_WRITE || io->kind == IO_RESERVE) {
            node->no_space_count = io->result == IO_RESULT_NO_SPACE ? node->no_space_count + 1 : 0;
        }
        if (!node->stopped) {
            node_io_done(node, io);
        }
    }
    (void)core_leave(node, NULL);
}

static uint64_t tick_period_ns(const struct node *node, bool dozing) {
    uint64_t period_ms = min_u64(dozing ? DOZE_MS : TICK_MS, node->options.checkpoint_interval_ms);
    period_ms =
        min_u64(period_ms, min_u64(node->options.session_idle_ms, node->options.session_named_idle_ms));
    return max_u64(period_ms, 10) * 1000000;
}

/* With the core held: is there nothing that the next tick could be needed for soon? */
static bool is_quiet(const struct node *node) {
    struct core_status status;
    core_status_get(node->core, &status);
    return status.applied == node->settle_applied && !status.no_space && !status.checkpoint_active &&
           !core_log_busy(node->core) && !core_work_pending(node->core) && !node->chores.first &&
           list_is_empty(&node->callers) && !node->refused.first && io_queue_active(node->queue) == 0;
}

static void background_tick(struct node *node) {
    uint64_t now_ns = world_monotonic_ns();
    if (now_ns < node->tick_ns) {
        return;
    }
    struct event event = {.kind = EVENT_TICK, .hold_checkpoint = world_checkpoint_held(node->world)};
    core_enter(node);
    if (!node->stopped && !node->closed) {
        node_step(node, &event, node->held);
    }
    node->dozing = is_quiet(node);
    node->tick_ns = now_ns + tick_period_ns(node, node->dozing);
    (void)core_leave(node, NULL);
    uint64_t applied = atomic_load_explicit(&node->replica.image->applied, memory_order_relaxed);
    if (applied != node->settle_applied) {
        node->settle_applied = applied;
        node->settle_ns = now_ns;
    }
}

/* Commits often follow upon answers: for a moment, staying awake is cheaper for both sides than to be woken. */
static void background_linger(struct node *node) {
    uint64_t until_ns = world_monotonic_ns() + LINGER_NS;
    while (!atomic_load_explicit(&node->background_told, memory_order_relaxed) &&
           world_monotonic_ns() < until_ns) {
        (void)sched_yield();
    }
}

/* A quarter of its time at most, and until there is nothing left to find. */
static void background_settle(struct node *node) {
    uint64_t begin_ns = world_monotonic_ns(), end_ns = begin_ns;
    if (begin_ns < node->settle_ns) {
        return;
    }
    if (begin_ns - node->duty_ns < SETTLE_APART_NS) { /* commits depend on this thread: not now */
        node->settle_ns = begin_ns + SETTLE_APART_NS;
        return;
    }
    bool found = false;
    for (uint32_t i = 0; i < SETTLE_LOOKS && !found && end_ns - begin_ns < SETTLE_NS; i++) {
        found = world_memory_settle(node->world);
        end_ns = world_monotonic_ns();
    }
    node->settle_ns = found ? end_ns + SETTLE_REST * (end_ns - begin_ns) : UINT64_MAX;
}

static int background_timeout_ms(const struct node *node) {
    uint64_t now_ns = world_monotonic_ns(), next_ns = min_u64(node->tick_ns, node->settle_ns);
    return now_ns >= next_ns ? 0 : (int)((next_ns - now_ns) / 1000000 + 1);
}

static void *background_main(void *context) {
    struct node *node = context;
    while (!atomic_load(&node->quit)) {
        if (atomic_exchange(&node->background_told, false)) {
            node->tick_ns = min_u64(node->tick_ns, world_monotonic_ns() + tick_period_ns(node, false));
            if (background_duty(node) && io_queue_active(node->queue) == 0) {
                background_linger(node);
            }
            continue;
        }
        background_tick(node);
        background_settle(node);
        struct io *io = io_queue_wait(node->queue, background_timeout_ms(node));
        if (io) {
            background_finished(node, io);
            atomic_store(&node->background_told, true); /* more chores, or a duty, may have come of it */
        }
    }
    while (io_queue_active(node->queue) > 0) { /* of a stopped core: whatever comes of them */
        (void)io_queue_wait(node->queue, -1);
    }
    return NULL;
}

static bool background_begin(struct node *node) {
    node->background.request.state = REQUEST_ADMITTED; /* it has time */
    node->tick_ns = world_monotonic_ns() + (uint64_t)TICK_MS * 1000000;
    node->settle_ns = UINT64_MAX;
    node->queue = io_queue_open(node->world, 0);
    if (!node->queue) {
        return false;
    }
    return world_thread_begin(&node->thread, "shelf", background_main, node);
}

static void background_end(struct node *node) {
    atomic_store(&node->quit, true);
    io_queue_ring(node->queue);
    (void)pthread_join(node->thread, NULL);
}

/* ---- Open --------------------------------------------------------------------------------------------------------- */

static void *memory_take(size_t size) {
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static void memory_give(void *memory, size_t size) {
    if (memory) {
        (void)munmap(memory, size);
    }
}

static void node_free(struct node *node) {
    if (node->queue) {
        io_queue_close(node->queue);
    }
    if (node->log_queue) {
        io_queue_close(node->log_queue);
    }
    world_close(node->world);
    memory_give(node->core, node->core_bytes);
    memory_give(node->maps, MAPS_BYTES);
    memory_give(node->slots, SLOTS_MAX * sizeof(struct slot));
    free(node);
}

/* The node without a core yet. NULL: no memory. */
static struct node *node_make(struct world *world, const struct shelf_options *options) {
    struct node *node = aligned_alloc(LINE_SIZE, align_up(sizeof(*node), LINE_SIZE));
    if (!node) {
        return NULL;
    }
    memset(node, 0, sizeof(*node));
    node->world = world;
    node->options = *options;
    static _Atomic uint64_t replicas;
    node->maps = memory_take(MAPS_BYTES);
    node->replica = (struct replica){.image = world_image_view(world),
                                     .maps = node->maps,
                                     .id = 2 * atomic_fetch_add(&replicas, 1) + 2}; /* odd ones are guests' */
    node->slots = memory_take(SLOTS_MAX * sizeof(struct slot));
    list_init(&node->callers);
    list_init(&node->waiters);
    list_init(&node->background.link);
    if (!node->maps || !node->slots) {
        memory_give(node->maps, MAPS_BYTES);
        memory_give(node->slots, SLOTS_MAX * sizeof(struct slot));
        free(node);
        return NULL;
    }
    for (uint32_t place = 0; place < SLOTS_MAX; place++) {
        node->slots[place].next_free = place + 1;
    }
    return node;
}

static bool core_make(struct node *node) {
    struct core_config config = {
        .create = !world_shelf_exists(node->world),
        .alignment = world_alignment(node->world),
        .log_bytes_max = node->options.log_bytes_max,
        .checkpoint_log_bytes = node->options.checkpoint_log_bytes,
        .checkpoint_interval_ms = node->options.checkpoint_interval_ms,
        .session_idle_ms = node->options.session_idle_ms,
        .session_named_idle_ms = node->options.session_named_idle_ms,
        .user = geteuid(),
    };
    world_random_fill(config.shelf_id, sizeof(config.shelf_id));
    world_random_fill(config.incarnation, sizeof(config.incarnation));
    if (node->cluster) {
        const struct group_config *group = &node->cluster->group;
        config.cluster = true;
        config.group = *group;
        config.alignment = CLUSTER_ALIGNMENT;
        memcpy(config.shelf_id, node->cluster->shelf_id, sizeof(config.shelf_id));
        memcpy(config.incarnation, group->incarnation, sizeof(config.incarnation));
    }
    node->core_bytes = core_size(&config);
    void *memory = memory_take(node->core_bytes);
    if (!memory) {
        return false;
    }
    (void)madvise(memory, node->core_bytes, MADV_DONTFORK);
    node->core = core_init(memory, &config, world_image(node->world), node->maps);
    return true;
}

/* From EVENT_START until the core serves. Ios that come with or after `opened` are left for the background thread. */
static void recover_run(struct node *node, struct io_queue *queue) {
    if (node->cluster) { /* what time it is, before anything is judged by it */
        node_step(node, &(struct event){.kind = EVENT_TICK, .group_only = true}, false);
    }
    node_step(node, &(struct event){.kind = EVENT_START}, false);
    for (;;) {
        while (node->more && !node->opened && !node->stopped) {
            node_step(node, &(struct event){.kind = EVENT_GO_ON}, false);
        }
        if (!node->opened) {
            chores_start(queue, chores_take(node));
        }
        if (io_queue_active(queue) == 0) {
            return;
        }
        struct io *io = io_queue_wait(queue, -1);
        if (io && !node->stopped) {
            node_step(node, &(struct event){.kind = EVENT_IO_DONE, .io = io}, false);
        }
    }
}

static void recover(struct node *node, struct io_queue *queue) {
    size_t size;
    void *memory = core_recovery_memory(node->core, &size);
    (void)madvise(memory, size, MADV_HUGEPAGE); /* the log goes through it, 32 MiB at a time */
    recover_run(node, queue);
    (void)madvise(memory, size, MADV_DONTNEED);
}

static bool region_known(void *context, uint32_t region) {
    const struct node *node = context;
    return core_region_known(node->core, region);
}

static shelf_result node_begin(struct node *node) {
    struct io_queue *queue = core_make(node) ? io_queue_open(node->world, RECOVERY_WORKERS) : NULL;
    if (!queue) {
        detail_set("no memory for the node");
        return SHELF_NO_MEMORY;
    }
    recover(node, queue);
    io_queue_close(queue);
    if (node->stopped || !node->opened) {
        const struct core_fault *fault = core_fault_get(node->core);
        if (!fault) { /* nothing has failed and nothing is under way: the first record waits for space */
            detail_set("the disk is full: there is no space for the log's next record");
            return SHELF_NO_SPACE;
        }
        detail_set("%s", node->fault);
        return fault->result;
    }
    world_sweep(node->world, region_known, node);
    node->uring_always = node->options.backend == SHELF_BACKEND_URING;
    if (node->uring_always) {
        node->log_queue = io_queue_open(node->world, 0);
    }
    if ((node->uring_always && !node->log_queue) || !background_begin(node)) {
        detail_set("the system refuses a thread or a ring");
        return SHELF_NO_MEMORY;
    }
    core_enter(node); /* gives what recovery has left to the background thread */
    (void)core_leave(node, NULL);
    return SHELF_OK;
}

static shelf_result open_any(const char *path, const struct shelf_options *options,
                             const struct node_cluster *cluster, struct node **ret_node) {
    char text[WORLD_TEXT_MAX] = "";
    struct world_options world_options = {
        .create = (options->flags & SHELF_OPEN_CREATE) != 0,
        .exclusive = (options->flags & SHELF_OPEN_EXCLUSIVE) != 0,
        .alone = (options->flags & SHELF_OPEN_ALONE) != 0,
        .backend = options->backend,
#if defined(__SANITIZE_THREAD__)
        .alias_single = true, /* a race through two addresses would not be seen */
#endif
    };
    struct world *world;
    shelf_result result = world_open(path, &world_options, &world, text);
    if (result != SHELF_OK) {
        detail_set("%s", text);
        return result;
    }
    struct node *node = node_make(world, options);
    if (!node) {
        world_close(world);
        detail_set("no memory for the node");
        return SHELF_NO_MEMORY;
    }
    node->cluster = cluster;
    result = node_begin(node);
    if (result != SHELF_OK) {
        node_free(node);
        return result;
    }
    *ret_node = node;
    return SHELF_OK;
}

shelf_result node_open(const char *path, const struct shelf_options *options, struct node **ret_node) {
    if (world_is_member(path)) {
        detail_set("%s is the directory of a node of a cluster: `shelfd --etcd ...` serves it", path);
        return SHELF_INVALID;
    }
    return open_any(path, options, NULL, ret_node);
}

shelf_result node_open_cluster(const char *path, const struct shelf_options *options,
                               const struct node_cluster *cluster, struct node **ret_node) {
    return open_any(path, options, cluster, ret_node);
}

/* ---- Close -------------------------------------------------------------------------------------------------------- */

/* Until the core has closed. A checkpoint that finds no room on the disk would try for ever; then it is left. */
static shelf_result close_wait(struct node *node) {
    for (;;) {
        core_enter(node);
        bool full = node->no_space_count >= NO_SPACE_GIVE_UP;
        bool over = node->closed || node->stopped;
        shelf_result result = node->stopped ? SHELF_IO : SHELF_OK;
        (void)core_leave(node, NULL);
        if (over) {
            return result;
        }
        if (full) {
            return SHELF_NO_SPACE;
        }
        futex_wait(&node->over, 0, (uint64_t)TICK_MS * 1000000);
    }
}

/* While its peers and the coordinator are there: hands over if it leads, writes a checkpoint, closes. */
shelf_result node_cluster_retire(struct node *node) {
    node_cluster_end(node, (node->options.flags & SHELF_OPEN_NO_CHECKPOINT) == 0);
    shelf_result result = close_wait(node);
    if (result == SHELF_NO_SPACE) {
        detail_set("no checkpoint was written: the disk is full");
    }
    return result;
}

/* Else, or after that: as if it were killed, which is always safe. Ios that are under way end, and nobody hears of them. */
static void cluster_close(struct node *node) {
    core_enter(node);
    if (!node->stopped) {
        node_stop(node);
    }
    (void)core_leave(node, NULL);
    background_end(node);
    node_free(node);
}

shelf_result node_close(struct node *node) {
    if (node->cluster) {
        cluster_close(node);
        return SHELF_OK;
    }
    core_enter(node);
    node->no_space_count = 0;
    if (!node->stopped) {
        struct event event = {.kind = EVENT_CLOSE,
                              .checkpoint = (node->options.flags & SHELF_OPEN_NO_CHECKPOINT) == 0};
        node_step(node, &event, false);
    }
    (void)core_leave(node, NULL);
    shelf_result result = close_wait(node);
    if (result != SHELF_OK) {
        detail_set("no checkpoint was written: %s",
                   result == SHELF_NO_SPACE ? "the disk is full" : node->fault);
    }
    background_end(node);
    node_free(node);
    return result;
}

/* ---- Calls -------------------------------------------------------------------------------------------------------- */

static uint64_t after_ms(uint64_t time_ms) {
    return world_monotonic_ns() + time_ms * 1000000;
}

shelf_result node_call(struct node *node, const void *bytes, size_t size, uint32_t deadline_ms,
                       struct reply *ret_reply) {
    struct call call;
    uint64_t deadline_ns = after_ms(deadline_ms);
    call_begin(node, &call, bytes, size);
    if (!call_wait(node, &call, deadline_ns)) {
        shelf_result result = call_withdraw(node, &call);
        if (result != SHELF_OK) {
            detail_set(result == SHELF_TIMEOUT ? "the node did not take the request within %u ms"
                                               : "the node took the request and did not answer within %u ms",
                       deadline_ms);
            return result;
        }
    }
    if (call.request.reply.reason == REASON_NODE_STOPPED) {
        detail_set("the node has stopped: %s", node_fault(node));
        if (call.request.reply.result == SHELF_UNKNOWN) {
            return SHELF_UNKNOWN;
        }
    }
    *ret_reply = call.request.reply;
    return SHELF_OK;
}

bool node_disk_full(struct node *node) {
    core_enter(node);
    bool full = node->no_space_count >= NO_SPACE_GIVE_UP;
    (void)core_leave(node, NULL);
    return full;
}

void node_disk_hope(struct node *node) {
    core_enter(node);
    node->no_space_count = 0;
    (void)core_leave(node, NULL);
}

/* It takes as long as it takes; but on a full disk it would be tried for ever. */
shelf_result node_checkpoint(struct node *node, uint64_t *ret_index) {
    struct call call;
    node_disk_hope(node);
    call_begin(node, &call, NULL, 0);
    while (!call_wait(node, &call, after_ms(TICK_MS))) {
        if (node_disk_full(node) && call_withdraw(node, &call) != SHELF_OK) {
            detail_set("the disk is full; the checkpoint is completed when there is space");
            return SHELF_NO_SPACE;
        }
    }
    const struct reply *reply = &call.request.reply;
    if (reply->reason == REASON_NODE_STOPPED) {
        detail_set("the node has stopped: %s", node_fault(node));
        return SHELF_IO;
    }
    if (reply->result == SHELF_OK && ret_index) {
        *ret_index = reply->receipt.index;
    }
    return (shelf_result)reply->result;
}

/* ---- Looking up --------------------------------------------------------------------------------------------------- */

const struct replica *node_replica(const struct node *node) {
    return &node->replica;
}

void node_info(struct node *node, struct shelf_info *ret_info) {
    struct core_status status;
    core_enter(node);
    core_status_get(node->core, &status);
    (void)core_leave(node, NULL);
    *ret_info = (struct shelf_info){
        .applied = status.applied,
        .epoch = status.epoch,
        .checkpoint = status.checkpoint,
        .records = status.records,
        .commits = status.commits,
        .conflicts = status.conflicts,
        .log_bytes = status.log_bytes,
        .log_bytes_live = status.log_bytes_live,
        .recovered_records = status.recovered_records,
        .recovered_cut_bytes = status.recovered_cut_bytes,
        .backend = world_backend(node->world),
        .state = status.stopped    ? SHELF_IO
                 : status.no_space ? SHELF_NO_SPACE
                                   : SHELF_OK,
    };
}

bool node_region_find(struct node *node, const char *name, struct shelf_region_info *ret_info) {
    core_enter(node);
    bool found = core_region_find(node->core, name, ret_info);
    (void)core_leave(node, NULL);
    return found;
}

bool node_region_get(struct node *node, uint32_t region, struct shelf_region_info *ret_info) {
    core_enter(node);
    bool found = core_region_get(node->core, region, ret_info);
    (void)core_leave(node, NULL);
    return found;
}

size_t node_region_list(struct node *node, struct shelf_region_info *ret_infos, size_t count_max) {
    core_enter(node);
    size_t count = core_region_list(node->core, ret_infos, count_max);
    (void)core_leave(node, NULL);
    return count;
}

uint32_t node_session_count(struct node *node) {
    struct core_status status;
    core_enter(node);
    core_status_get(node->core, &status);
    (void)core_leave(node, NULL);
    return status.sessions;
}

int node_image_share(struct node *node) {
    return world_image_share(node->world);
}

bool node_region_share(struct node *node, uint32_t region, int ret_fds[REGION_FILES]) {
    return world_region_share(node->world, region, ret_fds);
}

struct node_identity node_identity(struct node *node) {
    struct core_status status;
    core_enter(node);
    core_status_get(node->core, &status);
    (void)core_leave(node, NULL);
    struct node_identity identity = {.epoch = status.epoch};
    memcpy(identity.shelf_id, status.shelf_id, sizeof(identity.shelf_id));
    memcpy(identity.incarnation, status.incarnation, sizeof(identity.incarnation));
    return identity;
}
