// SPDX-License-Identifier: Apache-2.0
/*
 * handle.c: open and close, and what a handle tells of itself.
 */
#include "client/handle.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/detail.h"
#include "world/world.h"

_Static_assert(offsetof(struct shelf, host) == 0, "shelf_tx_shelf() goes from one to the other");
_Static_assert(sizeof(struct commit) <= TX_HOST_BYTES, "raise TX_HOST_BYTES");

/* ---- Fork --------------------------------------------------------------------------------------------------------- */

/* How many forks this process is away from the first. A handle of an older generation is somebody else's: its locks may
 * be held by threads that are not here, and its node is the parent's. */
static _Atomic uint32_t fork_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void fork_child(void) {
    atomic_fetch_add_explicit(&fork_generation, 1, memory_order_relaxed);
    tx_pool_fork_child();
}

static void fork_watch(void) {
    (void)pthread_atfork(tx_pool_fork_prepare, tx_pool_fork_parent, fork_child);
}

shelf_result handle_check(const struct shelf *s) {
    if (__builtin_expect(s->fork_generation == atomic_load_explicit(&fork_generation, memory_order_relaxed),
                         1))
        return SHELF_OK;
    detail_set("the handle was opened before the fork, in the parent; open another one");
    return SHELF_INVALID;
}

/* ---- Open --------------------------------------------------------------------------------------------------------- */

uint64_t clock_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A line in mid-apply is done in micros, unless the applying thread was put aside; about a second in all. */
static bool reader_wait(struct tx_host *host, uint32_t round) {
    enum { SPINS = 64, YIELDS = 256, SLEEPS = 8000 };
    (void)host;
    if (round < SPINS) {
        for (uint32_t i = 0; i < 16; i++)
#if defined(__x86_64__)
            __builtin_ia32_pause();
#else
            atomic_signal_fence(memory_order_seq_cst);
#endif
    } else if (round < SPINS + YIELDS) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    return round < SPINS + YIELDS + SLEEPS;
}

static shelf_result options_refuse(const char *what) {
    detail_set("option %s", what);
    return SHELF_INVALID;
}

/* Checks the caller's options and puts defaults in for zeros. */
static shelf_result options_complete(const struct shelf_options *given, struct shelf_options *ret_options) {
    struct shelf_options o = given ? *given : (struct shelf_options){0};
    const uint32_t flags =
        SHELF_OPEN_CREATE | SHELF_OPEN_EXCLUSIVE | SHELF_OPEN_NO_CHECKPOINT | SHELF_OPEN_ALONE;
    for (size_t i = 0; i < sizeof(o.reserved) / sizeof(o.reserved[0]); i++) {
        if (o.reserved[i] != 0)
            return options_refuse("reserved is not 0; start from a zeroed struct");
    }
    if (o.reserved32 != 0)
        return options_refuse("reserved32 is not 0; start from a zeroed struct");
    if (o.flags & ~flags)
        return options_refuse("flags has bits that mean nothing");
    if ((o.flags & SHELF_OPEN_EXCLUSIVE) && !(o.flags & SHELF_OPEN_CREATE))
        return options_refuse("SHELF_OPEN_EXCLUSIVE goes with SHELF_OPEN_CREATE only");
    if (o.backend != SHELF_BACKEND_AUTO && o.backend != SHELF_BACKEND_URING &&
        o.backend != SHELF_BACKEND_PLAIN)
        return options_refuse("backend is none of the known ones");
    if (o.log_bytes_max == 0)
        o.log_bytes_max = (uint64_t)1 << 30;
    if (o.log_bytes_max < (uint64_t)128 << 20 || o.log_bytes_max > LOG_SEGMENTS_MAX * LOG_SEGMENT_BYTES)
        return options_refuse("log_bytes_max is below 128 MiB or above 128 GiB");
    if (o.checkpoint_log_bytes == 0)
        o.checkpoint_log_bytes =
            o.log_bytes_max / 8 * 3 < (uint64_t)384 << 20 ? o.log_bytes_max / 8 * 3 : (uint64_t)384 << 20;
    if (o.checkpoint_log_bytes > o.log_bytes_max / 2)
        return options_refuse("checkpoint_log_bytes is over half of log_bytes_max");
    if (o.checkpoint_interval_ms == 0)
        o.checkpoint_interval_ms = 300000;
    if (o.commit_deadline_ms == 0)
        o.commit_deadline_ms = 30000;
    if (o.open_deadline_ms == 0)
        o.open_deadline_ms = 10000;
    if (o.session_idle_ms == 0)
        o.session_idle_ms = 3600000;
    if (o.session_named_idle_ms == 0)
        o.session_named_idle_ms = 2592000000;
    *ret_options = o;
    return SHELF_OK;
}

static void handle_free(struct shelf *s) {
    if (s->queue_fd >= 0)
        close(s->queue_fd);
    pthread_cond_destroy(&s->wait_condition);
    pthread_mutex_destroy(&s->wait_mutex);
    pthread_mutex_destroy(&s->pool_mutex);
    pthread_mutex_destroy(&s->queue_mutex);
    pthread_mutex_destroy(&s->open_mutex);
    pthread_mutex_destroy(&s->lanes_mutex);
    free(s->keeps);
    free(s);
}

/* A region that is not mapped in this process yet, because its node is in another. */
static shelf_result region_attach(struct tx_host *host, const struct replica *replica, shelf_region region) {
    return service_region_attach(((struct shelf *)(void *)host)->service, replica, region);
}

static void node_renewed(struct tx_host *host) {
    lanes_keep((struct shelf *)(void *)host);
}

static struct shelf *handle_make(const struct shelf_options *options) {
    struct shelf *s = aligned_alloc(LINE_SIZE, (sizeof(*s) + LINE_SIZE - 1) / LINE_SIZE * LINE_SIZE);
    if (!s) {
        detail_set("no memory for a handle");
        return NULL;
    }
    memset(s, 0, sizeof(*s));
    s->commit_deadline_ms = options->commit_deadline_ms;
    s->fork_generation = atomic_load_explicit(&fork_generation, memory_order_relaxed);
    s->host.wait = reader_wait;
    s->host.attach = region_attach;
    s->host.renewed = node_renewed;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wait_condition, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&s->wait_mutex, NULL);
    pthread_mutex_init(&s->queue_mutex, NULL);
    pthread_mutex_init(&s->pool_mutex, NULL);
    pthread_mutex_init(&s->open_mutex, NULL);
    pthread_mutex_init(&s->lanes_mutex, NULL);
    s->queue_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->queue_fd < 0) {
        detail_set("no descriptor for completions: %s; raise the limit of open files", strerror(errno));
        handle_free(s);
        return NULL;
    }
    return s;
}

/* "dir:PATH", "unix:PATH". */
static bool where_parse(const char *where, bool *ret_directory, const char **ret_path) {
    static const char directory[] = "dir:", socket[] = "unix:";
    if (where && strncmp(where, directory, sizeof(directory) - 1) == 0) {
        *ret_directory = true;
        *ret_path = where + sizeof(directory) - 1;
    } else if (where && strncmp(where, socket, sizeof(socket) - 1) == 0) {
        *ret_directory = false;
        *ret_path = where + sizeof(socket) - 1;
    } else {
        return false;
    }
    return **ret_path != '\0';
}

shelf_result shelf_open(const char *where, const struct shelf_options *options, struct shelf **ret_shelf) {
    bool directory;
    const char *path;
    if (!where_parse(where, &directory, &path)) {
        detail_set("a shelf is opened at \"dir:PATH\" or \"unix:PATH\"");
        return SHELF_INVALID;
    }
    struct shelf_options complete;
    shelf_result result = options_complete(options, &complete);
    if (result == SHELF_OK && !directory && (complete.flags & SHELF_OPEN_ALONE))
        result = options_refuse("SHELF_OPEN_ALONE goes with a directory only");
    if (result != SHELF_OK)
        return result;
    pthread_once(&fork_once, fork_watch);
    struct shelf *s = handle_make(&complete);
    if (!s)
        return SHELF_NO_MEMORY;
    result = service_open(path, directory, &complete, &s->host, &s->service);
    if (result != SHELF_OK) {
        handle_free(s);
        return result;
    }
    *ret_shelf = s;
    return SHELF_OK;
}

static bool async_none(void *context) {
    struct shelf *s = context;
    return atomic_load(&s->async_count) == 0;
}

shelf_result shelf_close(struct shelf *s) {
    if (!s)
        return SHELF_OK;
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    /* Each of them is answered, if only by the node's failure. */
    while (!handle_wait(s, async_none, s, 1000))
        continue;
    completions_discard(s);
    lanes_end(s);
    result = service_close(s->service);
    handle_free(s);
    return result;
}

/* ---- Transactions begin ------------------------------------------------------------------------------------------- */

shelf_result handle_begin(struct shelf *s, unsigned flags, struct shelf_session *session,
                          struct shelf_tx **ret_tx) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK && __builtin_expect((flags & SHELF_FRESH) != 0, 0))
        result = service_confirm(s->service);
    if (result == SHELF_OK)
        result = tx_begin(&s->host, flags, ret_tx);
    if (result != SHELF_OK)
        return result;
    struct commit *commit = tx_commit_of(*ret_tx);
    commit->session = session;
    commit->sequence_set = 0;
    return SHELF_OK;
}

shelf_result shelf_begin(struct shelf *s, unsigned flags, struct shelf_tx **ret_tx) {
    return handle_begin(s, flags, NULL, ret_tx);
}

/* ---- What the node tells ------------------------------------------------------------------------------------------ */

void reply_explain(const struct reply *reply) {
    static const char *const texts[] = {
#define X(name, text) text,
        REPLY_REASON_LIST(X)
#undef X
    };
    if (reply->result == SHELF_OK)
        return;
    const char *text = reply->reason < REASON_COUNT ? texts[reply->reason] : "";
    detail_set("%s", text[0] != '\0' ? text : shelf_result_text((shelf_result)reply->result));
}

shelf_result handle_call(struct shelf *s, const void *request, size_t size, struct reply *ret_reply) {
    shelf_result result = service_call(s->service, request, size, s->commit_deadline_ms, ret_reply);
    if (result != SHELF_OK)
        return result;
    reply_explain(ret_reply);
    return (shelf_result)ret_reply->result;
}

uint64_t shelf_applied(const struct shelf *s) {
    return service_look(s->service).applied;
}

shelf_result shelf_checkpoint(struct shelf *s, uint64_t *ret_index) {
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    uint64_t index = 0;
    result = service_checkpoint(s->service, &index);
    if (result == SHELF_OK && ret_index)
        *ret_index = index;
    return result;
}

shelf_result shelf_info_get(struct shelf *s, struct shelf_info *ret_info) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK)
        result = service_info(s->service, ret_info);
    return result;
}

/* On a node of a cluster. */
static uint64_t contact_age_ms(uint64_t contact_ms) {
    uint64_t now_ms = world_monotonic_ns() / 1000000;
    return contact_ms == 0 || now_ms < contact_ms ? 0 : now_ms - contact_ms;
}

shelf_result shelf_staleness_get(struct shelf *s, struct shelf_staleness *ret_staleness) {
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    struct service_status status;
    service_status_get(s->service, &status);
    struct service_look look = service_look(s->service);
    *ret_staleness =
        (struct shelf_staleness){.index = look.applied,
                                 .age_ms = max_u64(status.away_ms, contact_age_ms(look.contact_ms)),
                                 .connected = status.connected};
    return SHELF_OK;
}

shelf_result shelf_cluster_get(struct shelf *s, struct shelf_cluster_info *ret_info) {
    shelf_result result = handle_check(s);
    return result == SHELF_OK ? service_cluster(s->service, ret_info) : result;
}

static uint64_t counter_get(const _Atomic uint64_t *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

shelf_result shelf_stats_get(struct shelf *s, struct shelf_stats *ret_stats) {
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    struct service_status status;
    service_status_get(s->service, &status);
    *ret_stats = (struct shelf_stats){
        .commits = counter_get(&s->stats.commits),
        .conflicts = counter_get(&s->stats.conflicts),
        .failures = counter_get(&s->stats.failures),
        .retries = counter_get(&s->stats.retries),
        .commit_ns = counter_get(&s->stats.commit_ns),
        .commit_ns_max = counter_get(&s->stats.commit_ns_max),
        .waits = counter_get(&s->stats.waits),
        .wakes = counter_get(&s->stats.wakes),
        .reconnects = status.reconnects,
        .takeovers = status.takeovers,
        .replicas_held = status.replicas,
        .is_node = status.is_node,
    };
    return SHELF_OK;
}

void stats_count(struct shelf *s, shelf_result result) {
    _Atomic uint64_t *counter = result == SHELF_OK         ? &s->stats.commits
                                : result == SHELF_CONFLICT ? &s->stats.conflicts
                                                           : &s->stats.failures;
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

void stats_time(struct shelf *s, uint64_t took_ns) {
    atomic_fetch_add_explicit(&s->stats.commit_ns, took_ns, memory_order_relaxed);
    uint64_t most = counter_get(&s->stats.commit_ns_max);
    while (took_ns > most &&
           !atomic_compare_exchange_weak_explicit(&s->stats.commit_ns_max, &most, took_ns,
                                                  memory_order_relaxed, memory_order_relaxed))
        continue;
}

shelf_result shelf_client_list(struct shelf *s, struct shelf_client_info *ret_infos, size_t count_max,
                               size_t *ret_count) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK)
        result = service_clients(s->service, ret_infos, count_max, ret_count);
    return result;
}
