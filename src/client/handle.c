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

#include "client/detail.h"

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
    const uint32_t flags = SHELF_OPEN_CREATE | SHELF_OPEN_EXCLUSIVE | SHELF_OPEN_NO_CHECKPOINT;
    for (size_t i = 0; i < sizeof(o.reserved) / sizeof(o.reserved[0]); i++) {
        if (o.reserved[i] != 0)
            return options_refuse("reserved is not 0; start from a zeroed struct");
    }
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
            o.log_bytes_max / 4 < (uint64_t)256 << 20 ? o.log_bytes_max / 4 : (uint64_t)256 << 20;
    if (o.checkpoint_log_bytes > o.log_bytes_max / 2)
        return options_refuse("checkpoint_log_bytes is over half of log_bytes_max");
    if (o.checkpoint_interval_ms == 0)
        o.checkpoint_interval_ms = 300000;
    if (o.commit_deadline_ms == 0)
        o.commit_deadline_ms = 30000;
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
    pthread_mutex_destroy(&s->queue_mutex);
    pthread_mutex_destroy(&s->open_mutex);
    pthread_mutex_destroy(&s->lanes_mutex);
    free(s);
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
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wait_condition, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&s->wait_mutex, NULL);
    pthread_mutex_init(&s->queue_mutex, NULL);
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

shelf_result shelf_open(const char *where, const struct shelf_options *options, struct shelf **ret_shelf) {
    static const char scheme[] = "dir:";
    if (!where || strncmp(where, scheme, sizeof(scheme) - 1) != 0 || where[sizeof(scheme) - 1] == '\0') {
        detail_set("a shelf is opened at \"dir:PATH\"");
        return SHELF_INVALID;
    }
    struct shelf_options complete;
    shelf_result result = options_complete(options, &complete);
    if (result != SHELF_OK)
        return result;
    pthread_once(&fork_once, fork_watch);
    struct shelf *s = handle_make(&complete);
    if (!s)
        return SHELF_NO_MEMORY;
    result = node_open(where + sizeof(scheme) - 1, &complete, &s->node);
    if (result != SHELF_OK) {
        handle_free(s);
        return result;
    }
    static _Atomic uint64_t hosts;
    s->host.image = node_image(s->node);
    s->host.id = atomic_fetch_add(&hosts, 1) + 1;
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
    result = node_close(s->node);
    handle_free(s);
    return result;
}

/* ---- Transactions begin ------------------------------------------------------------------------------------------- */

shelf_result handle_begin(struct shelf *s, unsigned flags, struct shelf_session *session,
                          struct shelf_tx **ret_tx) {
    shelf_result result = handle_check(s);
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
    shelf_result result = node_call(s->node, request, size, s->commit_deadline_ms, ret_reply);
    if (result != SHELF_OK)
        return result;
    reply_explain(ret_reply);
    return (shelf_result)ret_reply->result;
}

uint64_t shelf_applied(const struct shelf *s) {
    return atomic_load_explicit(&s->host.image->applied, memory_order_acquire);
}

shelf_result shelf_checkpoint(struct shelf *s, uint64_t *ret_index) {
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    uint64_t index = 0;
    result = node_checkpoint(s->node, &index);
    if (result == SHELF_OK && ret_index)
        *ret_index = index;
    return result;
}

shelf_result shelf_info_get(struct shelf *s, struct shelf_info *ret_info) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK)
        node_info(s->node, ret_info);
    return result;
}
