// SPDX-License-Identifier: Apache-2.0
/*
 * shelfd.c: the daemon: a node, a door, and, of a cluster, what drives the node there (src/member).
 *
 *   OPENING     settings, process, identity in a cluster, node (recovery), sockets, door. A signal ends it at once: nothing has been served yet.
 *   SERVING     until a signal or a fault of the disk. Every few seconds the node is asked how it is; the watchdog of
 *               systemd is only told that all is well when it has answered.
 *   STOPPING    the door is closed, then the node, with a last checkpoint; in a cluster without one, at once. Another signal ends it at once: acknowledged
 *               commits are in the log, so all that is lost is the time to replay it.
 *
 * Signals are blocked in all threads and taken by one that waits for nothing else.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/detail.h"
#include "cmd/shelfd_config.h"
#include "cmd/shelfd_help.h"
#include "cmd/shelfd_log.h"
#include "cmd/shelfd_sockets.h"
#include "cmd/shelfd_watch.h"
#include "door/door.h"
#include "member/member.h"
#include "world/world.h"

#define EXIT_AT_ONCE   130
#define ONE_SIGNAL_MS  500u /* terminals and wrappers send the same wish to a process and to its group */
#define LOOK_PERIOD_MS 2000u
#define ANSWER_MS      5000u /* that the node may take, if no watchdog asks for less */

enum phase { PHASE_OPENING, PHASE_SERVING, PHASE_STOPPING };

struct shelfd {
    struct config *config;
    struct member *member; /* NULL: a lone node */
    struct node *node;
    struct sockets sockets;
    struct watch *watch;
    struct door *door;
    uint64_t watchdog_ms; /* 0: nobody waits for pings */
    shelf_result state;   /* of the node, as was told last */
    bool silent;
    bool renewed;     /* the directory is to be opened again */
    char status[128]; /* that systemd was told last */
};

/* ---- Signals ------------------------------------------------------------------------------------------------------- */

static _Atomic int phase = PHASE_OPENING;
static sem_t stop_asked;
static _Atomic int stop_signal;

static void signals_choose(sigset_t *ret_set) {
    (void)sigemptyset(ret_set);
    (void)sigaddset(ret_set, SIGTERM);
    (void)sigaddset(ret_set, SIGINT);
    (void)sigaddset(ret_set, SIGHUP);
}

static uint64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void *signals_main(void *context) {
    sigset_t set;
    int number;
    uint64_t stop_ms = 0;
    (void)context;
    signals_choose(&set);
    for (;;) {
        int before = PHASE_SERVING;
        if (sigwait(&set, &number) != 0 || (stop_ms != 0 && now_ms() < stop_ms + ONE_SIGNAL_MS)) {
            continue;
        }
        stop_ms = now_ms();
        if (!atomic_compare_exchange_strong(&phase, &before, PHASE_STOPPING)) {
            log_event(LOG_EVENT_QUIT, FIELD_TEXT("signal", sigabbrev_np(number)),
                      FIELD_TEXT("while", before == PHASE_OPENING ? "opening" : "stopping"));
            _exit(EXIT_AT_ONCE);
        }
        atomic_store(&stop_signal, number);
        (void)sem_post(&stop_asked);
    }
    return NULL;
}

static shelf_result signals_begin(void) {
    pthread_t thread;
    sigset_t set;
    signals_choose(&set);
    (void)sem_init(&stop_asked, 0, 0);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, signals_main, NULL) != 0) {
        detail_set("the system refuses a thread");
        return SHELF_NO_MEMORY;
    }
    (void)pthread_setname_np(thread, "shelfd-signals");
    (void)pthread_detach(thread);
    return SHELF_OK;
}

/* True: a signal came within that time. */
static bool stop_wait(uint32_t timeout_ms) {
    uint64_t until_ms = now_ms() + timeout_ms;
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
    return sem_clockwait(&stop_asked, CLOCK_MONOTONIC, &until) == 0;
}

/* ---- Process ------------------------------------------------------------------------------------------------------- */

static void limit_raise(__rlimit_resource_t resource) {
    struct rlimit limit;
    if (getrlimit(resource, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(resource, &limit);
    }
}

/* Nobody attaches a debugger or reads our memory through /proc, which would go around the rights of regions. Descriptors
 * are needed by the thousand: two a region, two a client. Shared memory counts as a file. */
static void process_prepare(void) {
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    (void)umask(0027);
    limit_raise(RLIMIT_NOFILE);
    limit_raise(RLIMIT_FSIZE);
}

/* ---- Opening ------------------------------------------------------------------------------------------------------- */

static const char *text_of(const struct shelfd *d, enum setting_id id) {
    return d->config->values[id].text;
}

static uint64_t number_of(const struct shelfd *d, enum setting_id id) {
    return d->config->values[id].number;
}

static void on_member_log(void *context, const char *event, const char *text) {
    (void)context;
    log_event(log_event_find(event, LOG_EVENT_DOOR), FIELD_TEXT("text", text));
}

static const char *text_or_null(const struct shelfd *d, enum setting_id id) {
    return text_of(d, id)[0] ? text_of(d, id) : NULL;
}

static shelf_result member_begin(struct shelfd *d) {
    char text[MEMBER_TEXT_MAX] = "";
    const struct member_options options = {
        .directory = text_of(d, SETTING_DATA),
        .create = number_of(d, SETTING_CREATE) != 0,
        .address = text_of(d, SETTING_NODE_ADDRESS),
        .coordinator = text_of(d, SETTING_ETCD),
        .cluster = text_of(d, SETTING_CLUSTER),
        .etcd_user = text_or_null(d, SETTING_ETCD_USER),
        .etcd_password_file = text_or_null(d, SETTING_ETCD_PASSWORD_FILE),
        .etcd_ca_file = text_or_null(d, SETTING_ETCD_CA_FILE),
        .etcd_certificate_file = text_or_null(d, SETTING_ETCD_CERTIFICATE_FILE),
        .etcd_key_file = text_or_null(d, SETTING_ETCD_KEY_FILE),
        .node = number_of(d, SETTING_NODE_ID),
        .copies = (uint32_t)number_of(d, SETTING_COPIES),
        .min_copies = (uint32_t)number_of(d, SETTING_MIN_COPIES),
        .heartbeat_ms = (uint32_t)number_of(d, SETTING_HEARTBEAT),
        .suspect_ms = (uint32_t)number_of(d, SETTING_SUSPECT),
        .log = on_member_log,
    };
    if (options.coordinator[0] == 0) {
        return SHELF_OK;
    }
    (void)sd_notify(0, "STATUS=finding the cluster");
    shelf_result result = member_open(&options, &d->member, text);
    if (result != SHELF_OK) {
        detail_set("%s", text);
    }
    return result;
}

static shelf_result member_take_part(struct shelfd *d) {
    char text[MEMBER_TEXT_MAX] = "";
    shelf_result result = d->member ? member_run(d->member, d->node, text) : SHELF_OK;
    if (result != SHELF_OK) {
        detail_set("%s", text);
    }
    return result;
}

static shelf_result node_begin(struct shelfd *d) {
    const struct shelf_options options = {
        .flags = number_of(d, SETTING_CREATE) ? SHELF_OPEN_CREATE : 0,
        .backend = (shelf_backend)number_of(d, SETTING_BACKEND),
        .log_bytes_max = number_of(d, SETTING_LOG_BYTES_MAX),
        .checkpoint_log_bytes = number_of(d, SETTING_CHECKPOINT_LOG_BYTES),
        .checkpoint_interval_ms = (uint32_t)number_of(d, SETTING_CHECKPOINT_INTERVAL),
        .session_idle_ms = number_of(d, SETTING_SESSION_IDLE),
        .session_named_idle_ms = number_of(d, SETTING_SESSION_NAMED_IDLE),
    };
    struct shelf_info info;
    (void)sd_notify(0, "STATUS=reading the shelf");
    shelf_result result =
        d->member ? node_open_cluster(text_of(d, SETTING_DATA), &options, member_cluster(d->member), &d->node)
                  : node_open(text_of(d, SETTING_DATA), &options, &d->node);
    if (result == SHELF_OK) {
        node_info(d->node, &info);
        log_event(LOG_EVENT_RECOVERED, FIELD_NUMBER("index", info.applied), FIELD_NUMBER("epoch", info.epoch),
                  FIELD_NUMBER("records", info.recovered_records),
                  FIELD_NUMBER("cut_bytes", info.recovered_cut_bytes),
                  FIELD_TEXT("backend", info.backend == SHELF_BACKEND_URING ? "uring" : "plain"));
    }
    return result;
}

static shelf_result sockets_begin(struct shelfd *d) {
    shelf_result result = sockets_open(&d->sockets, text_of(d, SETTING_SOCKET));
    if (result != SHELF_OK) {
        detail_set("%s", d->sockets.why);
    }
    return result;
}

static shelf_result watch_begin(struct shelfd *d) {
    uint64_t watchdog_us = 0;
    if (sd_watchdog_enabled(0, &watchdog_us) > 0) {
        d->watchdog_ms = max_u64(watchdog_us / 1000, 1);
    }
    d->watch = watch_open(d->node);
    if (!d->watch) {
        detail_set("the system refuses a thread");
    }
    return d->watch ? SHELF_OK : SHELF_NO_MEMORY;
}

static void on_door_log(void *context, const char *event, const char *text) {
    (void)context;
    log_event(log_event_find(event, LOG_EVENT_DOOR), FIELD_TEXT("text", text));
}

static shelf_result door_begin(struct shelfd *d) {
    struct door_options options = {
        .directory = text_of(d, SETTING_DATA),
        .fd_count = d->sockets.count,
        .clients_max = (uint32_t)number_of(d, SETTING_CLIENTS_MAX),
        .client_bytes_max = number_of(d, SETTING_CLIENT_BYTES_MAX),
        .client_requests_max = (uint32_t)number_of(d, SETTING_CLIENT_REQUESTS_MAX),
        .log = on_door_log,
    };
    memcpy(options.fds, d->sockets.fds, sizeof(options.fds));
    return door_open(d->node, &options, &d->door);
}

/* ---- Serving ------------------------------------------------------------------------------------------------------- */

static void status_tell(struct shelfd *d, const struct watch_answer *answer) {
    char status[sizeof(d->status)];
    size_t clients = door_clients(d->door, 0, NULL, 0);
    (void)snprintf(status, sizeof(status), "%s; index %llu, %zu programs attached",
                   answer->info.state == SHELF_NO_SPACE ? "reads only, the disk is full" : "serving",
                   (unsigned long long)answer->info.applied, clients);
    if (strcmp(status, d->status) != 0) {
        memcpy(d->status, status, sizeof(status));
        (void)sd_notifyf(0, "STATUS=%s", status);
    }
}

static void state_tell(struct shelfd *d, shelf_result state) {
    if (state != d->state) {
        log_event(state == SHELF_NO_SPACE ? LOG_EVENT_NO_SPACE : LOG_EVENT_SPACE_AGAIN,
                  FIELD_TEXT("data", text_of(d, SETTING_DATA)));
        d->state = state;
    }
}

static void silence_tell(struct shelfd *d, bool silent, uint32_t waited_ms) {
    if (silent != d->silent) {
        log_event(silent ? LOG_EVENT_NODE_SILENT : LOG_EVENT_NODE_ANSWERS,
                  FIELD_NUMBER("waited_ms", waited_ms));
        d->silent = silent;
    }
}

/* Not OK: the node has stopped. UNAVAILABLE: the directory holds a newer image, and is to be opened again. */
static shelf_result node_look(struct shelfd *d) {
    struct watch_answer answer;
    uint32_t limit_ms = d->watchdog_ms ? (uint32_t)min_u64(d->watchdog_ms / 4 + 1, ANSWER_MS) : ANSWER_MS;
    bool answered = watch_ask(d->watch, limit_ms, &answer);
    silence_tell(d, !answered, limit_ms);
    if (!answered) {
        return SHELF_OK;
    }
    if (answer.renewed) {
        log_event(LOG_EVENT_REOPENING, FIELD_TEXT("reason", answer.fault));
        (void)sd_notifyf(0, "STATUS=%s", answer.fault);
        d->renewed = true;
        return SHELF_UNAVAILABLE;
    }
    if (answer.fault[0] || answer.info.state == SHELF_IO) {
        log_event(LOG_EVENT_DISK_FAULT, FIELD_TEXT("data", text_of(d, SETTING_DATA)),
                  FIELD_TEXT("reason", answer.fault), FIELD_NUMBER("exit", SHELF_IO));
        (void)sd_notifyf(0, "STATUS=the disk failed: %s\nERRNO=5", answer.fault);
        return SHELF_IO;
    }
    state_tell(d, answer.info.state);
    status_tell(d, &answer);
    if (d->watchdog_ms) {
        (void)sd_notify(0, "WATCHDOG=1");
    }
    return SHELF_OK;
}

static shelf_result serve(struct shelfd *d) {
    uint32_t period_ms =
        d->watchdog_ms ? (uint32_t)min_u64(d->watchdog_ms / 4 + 1, LOOK_PERIOD_MS) : LOOK_PERIOD_MS;
    shelf_result result = SHELF_OK;
    bool stop = false;
    log_event(LOG_EVENT_SERVING, FIELD_TEXT("data", text_of(d, SETTING_DATA)),
              FIELD_TEXT("socket", text_of(d, SETTING_SOCKET)),
              FIELD_NUMBER("activated", d->sockets.count - (d->sockets.path != NULL)));
    (void)sd_notify(0, "READY=1");
    atomic_store(&phase, PHASE_SERVING);
    while (!stop && result == SHELF_OK) {
        result = node_look(d);
        stop = result == SHELF_OK && stop_wait(period_ms);
    }
    atomic_store(&phase, PHASE_STOPPING);
    (void)sd_notify(0, d->member ? "STOPPING=1" : "STOPPING=1\nSTATUS=writing a checkpoint");
    if (stop) {
        log_event(LOG_EVENT_STOPPING, FIELD_TEXT("signal", sigabbrev_np(atomic_load(&stop_signal))));
    }
    return result;
}

/* ---- Stopping ------------------------------------------------------------------------------------------------------ */

static void member_end(struct shelfd *d) {
    if (d->member) {
        member_close(d->member);
    }
}

static shelf_result node_end(struct shelfd *d, shelf_result result) {
    shelf_result closed = SHELF_OK;
    if (d->member) {
        closed = result == SHELF_OK ? node_cluster_retire(d->node) : SHELF_OK;
        member_halt(d->member);
    }
    shelf_result node_closed = node_close(d->node);
    closed = closed == SHELF_OK ? node_closed : closed;
    member_end(d);
    if (result != SHELF_OK) {
        return result; /* was told already */
    }
    if (closed != SHELF_OK) {
        log_event(LOG_EVENT_CHECKPOINT_FAILED, FIELD_TEXT("reason", detail_text()),
                  FIELD_NUMBER("exit", (uint64_t)closed));
        return closed;
    }
    log_event(LOG_EVENT_STOPPED, FIELD_TEXT("data", text_of(d, SETTING_DATA)));
    return SHELF_OK;
}

static shelf_result failure_tell(shelf_result result) {
    const char *detail = detail_text();
    log_event(LOG_EVENT_FAILED, FIELD_TEXT("result", shelf_result_name(result)),
              FIELD_TEXT("reason", detail[0] ? detail : shelf_result_text(result)),
              FIELD_NUMBER("exit", (uint64_t)result));
    (void)sd_notifyf(0, "STATUS=%s", detail[0] ? detail : shelf_result_text(result));
    return result;
}

/* ---- The ladder ---------------------------------------------------------------------------------------------------- */

static shelf_result shelfd_run(struct shelfd *d) {
    shelf_result result = signals_begin();
    if (result != SHELF_OK) {
        return failure_tell(result);
    }
    log_event(LOG_EVENT_STARTING, FIELD_TEXT("version", shelf_version()),
              FIELD_NUMBER("process", (uint64_t)getpid()), FIELD_TEXT("data", text_of(d, SETTING_DATA)));
    result = member_begin(d);
    if (result != SHELF_OK) {
        return failure_tell(result);
    }
    result = node_begin(d);
    if (result != SHELF_OK) {
        (void)failure_tell(result);
        goto undo_member;
    }
    result = member_take_part(d);
    if (result != SHELF_OK) {
        (void)failure_tell(result);
        goto undo_node;
    }
    result = sockets_begin(d);
    if (result != SHELF_OK) {
        (void)failure_tell(result);
        goto undo_node;
    }
    result = watch_begin(d);
    if (result != SHELF_OK) {
        (void)failure_tell(result);
        goto undo_sockets;
    }
    result = door_begin(d);
    if (result != SHELF_OK) {
        (void)failure_tell(result);
        goto undo_watch;
    }
    if (!world_daemon_mark(text_of(d, SETTING_DATA))) {
        log_event(LOG_EVENT_MARK_FAILED, FIELD_TEXT("reason", strerror(errno)));
    }
    result = serve(d);
    door_close(d->door);
undo_watch:
    watch_close(d->watch);
undo_sockets:
    sockets_close(&d->sockets);
undo_node:
    return node_end(d, result);
undo_member:
    member_end(d);
    return result;
}

/* The same process begins anew: whoever looks after it by its number need not know. Sockets that systemd has passed would be lost on the
 * way, so then it ends, and is started again. */
static void begin_anew(const struct shelfd *d, char **argv) {
    uint32_t passed = d->sockets.count - (d->sockets.path != NULL);
    if (d->renewed && passed == 0) {
        (void)execv("/proc/self/exe", argv);
    }
}

static int config_wrong(const struct config *config) {
    (void)fprintf(stderr, "shelfd: %s\n", config->why);
    return SHELF_INVALID;
}

static int config_show(const struct config *config) {
    config_print(config, stdout);
    if (config->unknown[0]) {
        (void)fprintf(stderr, "shelfd: note: %s\n", config->unknown);
    }
    return fflush(stdout) == 0 && !ferror(stdout) ? SHELF_OK : SHELF_IO;
}

int main(int argc, char **argv) {
    static struct config config;
    struct shelfd shelfd = {.config = &config};
    switch (config_read(&config, argc, argv, environ)) {
    case CONFIG_WRONG:
        return config_wrong(&config);
    case CONFIG_CHECK:
        return config_show(&config);
    case CONFIG_HELP:
        shelfd_help(stdout);
        return SHELF_OK;
    case CONFIG_SHOW_VERSION:
        (void)printf("shelfd %s\n", shelf_version());
        return SHELF_OK;
    case CONFIG_RUN:
        break;
    }
    log_begin((enum log_format)config.values[SETTING_LOG_FORMAT].number,
              (enum log_level)config.values[SETTING_LOG_LEVEL].number);
    if (config.unknown[0]) {
        log_event(LOG_EVENT_VARIABLE_UNKNOWN, FIELD_TEXT("text", config.unknown));
    }
    process_prepare();
    shelf_result result = shelfd_run(&shelfd);
    begin_anew(&shelfd, argv);
    return (int)result;
}
