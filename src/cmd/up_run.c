// SPDX-License-Identifier: Apache-2.0
/* up_run.c: see up_run.h. */
#include "cmd/up_run.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "cmd/shelf_use.h"
#include "world/world.h"

#ifndef SHELF_SBIN_DIR
#define SHELF_SBIN_DIR "/usr/local/sbin"
#endif

enum {
    TERM_MS = 10000, /* that a process may take to end before it is killed */
    KILL_MS = 5000,
    LOOK_MS = 20,
    URL_MAX = 64,
};

/* ---- Ports --------------------------------------------------------------------------------------------------------- */

/* A socket bound to a port that is free; it stays so until the socket is closed. -1: none. */
static int port_bind(uint16_t *ret_port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return -1;
    }
    *ret_port = ntohs(address.sin_port);
    return fd;
}

int up_ports_choose(const struct call *call, struct up_state *state) {
    uint16_t *ports[UP_NODES_MAX + 2] = {&state->etcd_client_port, &state->etcd_peer_port};
    int fds[UP_NODES_MAX + 2];
    uint32_t count = 2;
    bool good = true;
    for (uint32_t i = 0; i < state->node_count; i++) {
        ports[count++] = &state->nodes[i].port;
    }
    for (uint32_t i = 0; i < count; i++) { /* all are held until the last is chosen, so they differ */
        fds[i] = *ports[i] == 0 ? port_bind(ports[i]) : -2;
        good &= fds[i] != -1;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    return good ? SHELF_OK
                : fail(call, SHELF_UNAVAILABLE, "there is no free port on 127.0.0.1: %s", strerror(errno));
}

/* ---- Starting ------------------------------------------------------------------------------------------------------ */

static bool is_program(const char *directory, const char *tail, char ret_path[UP_PATH_MAX]) {
    int length = snprintf(ret_path, UP_PATH_MAX, "%s/%s", directory, tail);
    return length > 0 && (size_t)length < UP_PATH_MAX && access(ret_path, X_OK) == 0;
}

/* Beside this program, in a build directory; or where it is installed. */
static bool shelfd_find(char ret_path[UP_PATH_MAX]) {
    char own[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);
    if (length > 0) {
        own[length] = 0;
        *strrchr(own, '/') = 0;
        if (is_program(own, "shelfd", ret_path) || is_program(own, "../sbin/shelfd", ret_path)) {
            return true;
        }
    }
    return is_program(SHELF_SBIN_DIR, "shelfd", ret_path);
}

static void etcd_url(const struct up_state *state, bool peer, char ret_url[URL_MAX]) {
    (void)snprintf(ret_url, URL_MAX, "http://127.0.0.1:%u",
                   (unsigned)(peer ? state->etcd_peer_port : state->etcd_client_port));
}

static int etcd_start(const struct call *call, struct up_state *state) {
    char data[UP_PATH_MAX], log[UP_PATH_MAX], client[URL_MAX], peer[URL_MAX], cluster[URL_MAX + 16];
    etcd_url(state, false, client);
    etcd_url(state, true, peer);
    (void)snprintf(cluster, sizeof(cluster), "shelf=%s", peer);
    const char *const arguments[] = {"etcd",
                                     "--name",
                                     "shelf",
                                     "--data-dir",
                                     up_path(state, "etcd", 0, "", data),
                                     "--listen-client-urls",
                                     client,
                                     "--advertise-client-urls",
                                     client,
                                     "--listen-peer-urls",
                                     peer,
                                     "--initial-advertise-peer-urls",
                                     peer,
                                     "--initial-cluster",
                                     cluster,
                                     "--logger",
                                     "zap",
                                     "--log-level",
                                     "warn",
                                     NULL};
    int error = up_process_start(arguments, up_path(state, "etcd", 0, ".log", log), &state->etcd);
    if (error == ENOENT) {
        return fail(
            call, SHELF_NOT_FOUND,
            "etcd is not installed; its Debian package is etcd-server (for a cluster of several machines, "
            "see docs/operations.md)");
    }
    return error == 0 ? SHELF_OK : fail(call, SHELF_IO, "etcd cannot be started: %s", strerror(error));
}

static int node_start(const struct call *call, struct up_state *state, uint32_t number) {
    struct up_node *node = &state->nodes[number - 1];
    char program[UP_PATH_MAX], data[UP_PATH_MAX], log[UP_PATH_MAX], url[URL_MAX], address[32], id[16],
        copies[16];
    if (!shelfd_find(program)) {
        return fail(call, SHELF_NOT_FOUND, "shelfd is neither beside this program nor in " SHELF_SBIN_DIR);
    }
    etcd_url(state, false, url);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", node->port);
    (void)snprintf(id, sizeof(id), "%u", number);
    (void)snprintf(copies, sizeof(copies), "%u", state->node_count);
    /* Of two, the one that is left goes on alone: that is what people want to see. */
    const char *least = state->node_count >= 3 ? "2" : "1";
    const char *const arguments[] = {program,    "--data",    up_path(state, "node", number, "", data),
                                     "--etcd",   url,         "--node-address",
                                     address,    "--node-id", id,
                                     "--copies", copies,      "--min-copies",
                                     least,      NULL};
    int error = up_process_start(arguments, up_path(state, "node", number, ".log", log), &node->process);
    return error == 0 ? SHELF_OK
                      : fail(call, SHELF_IO, "shelfd (%s) cannot be started: %s", program, strerror(error));
}

static struct up_process *process_of(struct up_state *state, uint32_t which) {
    return which == UP_ETCD ? &state->etcd : &state->nodes[which - 1].process;
}

bool up_runs(const struct up_state *state, uint32_t which) {
    return up_process_lives(which == UP_ETCD ? &state->etcd : &state->nodes[which - 1].process);
}

int up_start(const struct call *call, struct up_state *state, uint32_t which, bool *ret_started) {
    *ret_started = false;
    if (up_runs(state, which)) {
        return SHELF_OK;
    }
    int code = which == UP_ETCD ? etcd_start(call, state) : node_start(call, state, which);
    if (code == SHELF_OK) {
        *ret_started = true;
        code = up_state_store(call, state); /* at once: what runs must not be forgotten */
    }
    return code;
}

bool up_end(struct up_state *state, uint32_t which, int signal) {
    struct up_process *process = process_of(state, which);
    bool ran = up_process_lives(process);
    if (ran && !up_process_end(process, signal, TERM_MS)) {
        (void)up_process_end(process, SIGKILL, KILL_MS);
    }
    *process = (struct up_process){0};
    return ran;
}

/* ---- Waiting ------------------------------------------------------------------------------------------------------- */

struct waiting {
    const struct up_state *state;
    uint32_t nodes; /* a bit each */
    shelf *shelves[UP_NODES_MAX];
    struct shelf_cluster_info *infos;
};

static bool node_look(struct waiting *waiting, uint32_t place) {
    char path[UP_PATH_MAX];
    (void)up_path(waiting->state, "node", place + 1, "", path);
    if (!waiting->shelves[place] && shelf_use_attach(path, &waiting->shelves[place]) != SHELF_OK) {
        return false;
    }
    return shelf_cluster_get(waiting->shelves[place], &waiting->infos[place]) == SHELF_OK;
}

static bool sees_as_in_sync(const struct shelf_cluster_info *info, uint64_t node) {
    for (uint32_t i = 0; i < info->node_count; i++) {
        if (info->nodes[i].node == node) {
            return info->nodes[i].part != SHELF_PART_LEARNER && info->nodes[i].connected;
        }
    }
    return false;
}

/* All that are asked for agree on the epoch, and one that takes commits sees the others in sync. */
static bool all_in_sync(struct waiting *waiting) {
    const struct shelf_cluster_info *primary = NULL;
    uint64_t epoch = 0;
    for (uint32_t place = 0; place < waiting->state->node_count; place++) {
        if (!up_runs(waiting->state, place + 1)) {
            continue;
        }
        if (!node_look(waiting, place)) {
            if (waiting->nodes >> place & 1u) {
                return false;
            }
            continue;
        }
        const struct shelf_cluster_info *info = &waiting->infos[place];
        primary = info->serves && (!primary || info->epoch > primary->epoch) ? info : primary;
        epoch = max_u64(epoch, info->epoch);
    }
    for (uint32_t place = 0; primary && place < waiting->state->node_count; place++) {
        bool wanted = waiting->nodes >> place & 1u;
        if (wanted && (waiting->infos[place].epoch != epoch || !sees_as_in_sync(primary, place + 1))) {
            return false;
        }
    }
    return primary != NULL && primary->epoch == epoch;
}

#define LINE_MAX_SHOWN 600

static void last_line(const struct up_state *state, uint32_t number, char ret_line[LINE_MAX_SHOWN]) {
    char path[UP_PATH_MAX], line[LINE_MAX_SHOWN];
    FILE *file = fopen(up_path(state, "node", number, ".log", path), "re");
    ret_line[0] = 0;
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0]) {
            memcpy(ret_line, line, sizeof(line));
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

/* Has one of those that are waited for ended? Returns an exit code. */
static int ended_check(const struct call *call, const struct waiting *waiting) {
    const struct up_state *state = waiting->state;
    char line[LINE_MAX_SHOWN];
    for (uint32_t place = 0; place < state->node_count; place++) {
        if ((waiting->nodes >> place & 1u) && !up_runs(state, place + 1)) {
            last_line(state, place + 1, line);
            return fail(call, SHELF_UNAVAILABLE, "node %u has ended: %s (%s/node-%u.log)", place + 1, line,
                        state->directory, place + 1);
        }
    }
    return SHELF_OK;
}

static int wait_loop(const struct call *call, struct waiting *waiting, uint32_t wait_ms) {
    uint64_t until_ns = world_monotonic_ns() + (uint64_t)wait_ms * 1000000;
    while (!all_in_sync(waiting)) {
        int code = ended_check(call, waiting);
        if (code != SHELF_OK) {
            return code;
        }
        if (interrupt_seen()) {
            return EXIT_INTERRUPTED;
        }
        if (world_monotonic_ns() > until_ns) {
            return fail(
                call, SHELF_TIMEOUT,
                "not all nodes are in sync after %u s; `shelf status %s/node-1` tells how far they are, and "
                "%s/*.log why",
                wait_ms / 1000, waiting->state->directory, waiting->state->directory);
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
    }
    return SHELF_OK;
}

int up_wait(const struct call *call, const struct up_state *state, uint32_t nodes, uint32_t wait_ms,
            struct shelf_cluster_info *ret_infos) {
    struct waiting waiting = {.state = state, .nodes = nodes, .infos = ret_infos};
    int code = wait_loop(call, &waiting, wait_ms);
    for (uint32_t place = 0; place < state->node_count; place++) {
        if (waiting.shelves[place]) {
            (void)shelf_use_close(waiting.shelves[place]);
        }
    }
    return code;
}
