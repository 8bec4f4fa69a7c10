// SPDX-License-Identifier: Apache-2.0
//
// Several nodes and one coordinator of any kind: etcd, files, or the simulator's. Each node has its own way to it, which can be cut.

#ifndef SHELF_TEST_COORDINATOR_FIXTURE_H
#define SHELF_TEST_COORDINATOR_FIXTURE_H

#include <sys/file.h>

#include "../../sim/coordinator.h"
#include "base/random.h"
#include "coordinator/coordinator.h"
#include "etcd_fixture.h"
#include "world_fixture.h"

#define NODES_MAX 4u

struct bed;
struct bed_kind {
    const char *name;
    bool remembers; // over a restart of the node
    void (*open)(struct bed *bed, uint32_t node);
    void (*close)(struct bed *bed, uint32_t node);
    void (*cut_set)(struct bed *bed, uint32_t node, bool cut);
    void (*backup)(struct bed *bed);
    void (*restore)(struct bed *bed);
};

struct bed {
    const struct bed_kind *kind;
    struct fixture *fixture;
    struct coordinator *coordinators[NODES_MAX]; // etcd, files
    bool opened[NODES_MAX];
    char cluster[32];
    struct etcd_server *server;
    struct proxy *proxies[NODES_MAX];
    uint32_t timeout_ms, probe_ms;
    int fd_lock; // files: keeps everybody out
    struct random random;
    struct sim_coordinator *sim;
};

static const struct register_id group_0 = {REGISTER_CONFIGURATION, 0};
static const struct register_id node_7 = {REGISTER_NODE, 7};

static bool bed_is_sim(const struct bed *bed) {
    return bed->sim != NULL;
}

// ---- Asks

static void ask_begin(struct bed *bed, uint32_t node, struct coordinator_ask *ask) {
    ask->outcome = 0;
    if (bed_is_sim(bed)) {
        sim_coordinator_start(bed->sim, node, ask);
    } else {
        coordinator_start(bed->coordinators[node], ask);
    }
}

static struct coordinator_ask *ask_take(struct bed *bed, uint32_t node) {
    return bed_is_sim(bed) ? sim_coordinator_take(bed->sim, node) : coordinator_take(bed->coordinators[node]);
}

static bool news_take(struct bed *bed, uint32_t node, struct coordinator_news *ret_news) {
    return bed_is_sim(bed) ? sim_coordinator_news_take(bed->sim, node, ret_news)
                           : coordinator_news_take(bed->coordinators[node], ret_news);
}

// Lets something happen at this node.
static void bed_wait(struct bed *bed, uint32_t node) {
    if (bed_is_sim(bed)) {
        (void)sim_coordinator_step(bed->sim);
        return;
    }
    struct pollfd fd = {.fd = coordinator_fd(bed->coordinators[node]), .events = POLLIN};
    (void)poll(&fd, 1, 20);
}

UNUSED static bool bed_reachable(struct bed *bed, uint32_t node) {
    if (bed_is_sim(bed)) {
        return sim_coordinator_reachable(bed->sim, node);
    }
    struct coordinator_status status;
    coordinator_status_get(bed->coordinators[node], &status);
    return status.reachable;
}

UNUSED static bool bed_refused(struct bed *bed, uint32_t node) {
    if (bed_is_sim(bed)) {
        return sim_coordinator_refused(bed->sim, node);
    }
    struct coordinator_status status;
    coordinator_status_get(bed->coordinators[node], &status);
    return status.refused;
}

// The condition must come.
#define BED_UNTIL(bed, node, condition)                                                \
    do {                                                                               \
        uint64_t until_end = world_monotonic_ns() + PATIENCE_NS;                       \
        while (!(condition)) {                                                         \
            if (world_monotonic_ns() > until_end) {                                    \
                fail_msg("%s: waited in vain for: %s", (bed)->kind->name, #condition); \
            }                                                                          \
            bed_wait(bed, node);                                                       \
        }                                                                              \
    } while (0)

static void ask_finish(struct bed *bed, uint32_t node, struct coordinator_ask *ask) {
    struct coordinator_ask *taken = NULL;
    BED_UNTIL(bed, node, (taken = ask_take(bed, node)) != NULL);
    assert_ptr_equal(taken, ask);
    assert_true(ask->outcome >= COORDINATOR_OK && ask->outcome <= COORDINATOR_REFUSED);
}

static uint32_t ask_do(struct bed *bed, uint32_t node, struct coordinator_ask *ask) {
    ask_begin(bed, node, ask);
    ask_finish(bed, node, ask);
    return ask->outcome;
}

static void swap_make(struct coordinator_ask *ask, struct register_id id, uint64_t expected,
                      const char *value) {
    *ask = (struct coordinator_ask){
        .act = COORDINATOR_SWAP, .id = id, .expected = expected, .size = (uint32_t)strlen(value)};
    memcpy(ask->value, value, strlen(value));
}

// A swap that must succeed; returns the new revision.
static uint64_t swap_won(struct bed *bed, uint32_t node, struct register_id id, uint64_t expected,
                         const char *value) {
    struct coordinator_ask ask;
    swap_make(&ask, id, expected, value);
    assert_int_equal(ask_do(bed, node, &ask), COORDINATOR_OK);
    assert_true(ask.state.revision > expected);
    assert_int_equal(ask.state.size, strlen(value));
    assert_memory_equal(ask.state.value, value, strlen(value));
    return ask.state.revision;
}

UNUSED static void get_state(struct bed *bed, uint32_t node, struct register_id id,
                             struct register_state *ret_state) {
    struct coordinator_ask ask = {.act = COORDINATOR_GET, .id = id};
    assert_int_equal(ask_do(bed, node, &ask), COORDINATOR_OK);
    *ret_state = ask.state;
}

UNUSED static bool state_is(const struct register_state *state, const char *value) {
    return state->size == strlen(value) && memcmp(state->value, value, state->size) == 0;
}

// ---- Kinds

static void node_directory(const struct bed *bed, uint32_t node, char ret_path[400]) {
    snprintf(ret_path, 400, "%s/node%u", bed->fixture->directory, node);
    (void)mkdir(ret_path, 0700);
}

static void etcd_open(struct bed *bed, uint32_t node) {
    char path[400], endpoint[64], text[COORDINATOR_TEXT_MAX] = "";
    node_directory(bed, node, path);
    if (!bed->proxies[node]) {
        bed->proxies[node] = proxy_start(bed->server->port);
    }
    snprintf(endpoint, sizeof(endpoint), "http://127.0.0.1:%u", bed->proxies[node]->port);
    struct coordinator_etcd_options options = {.endpoints = {endpoint},
                                               .endpoint_count = 1,
                                               .cluster = bed->cluster,
                                               .directory = path,
                                               .timeout_ms = bed->timeout_ms,
                                               .probe_ms = bed->probe_ms};
    shelf_result result = coordinator_open_etcd(&options, &bed->coordinators[node], text);
    assert_string_equal(text, "");
    assert_int_equal(result, SHELF_OK);
}

static void real_close(struct bed *bed, uint32_t node) {
    coordinator_close(bed->coordinators[node]);
    bed->coordinators[node] = NULL;
}

static void etcd_cut_set(struct bed *bed, uint32_t node, bool cut) {
    atomic_store(&bed->proxies[node]->mode, cut ? PROXY_REFUSE : PROXY_PASS);
    atomic_store(&bed->proxies[node]->cut, cut);
}

static void command_run(const char *command) {
    int status = system(command);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void etcd_backup(struct bed *bed) {
    char command[1024];
    snprintf(command, sizeof(command),
             "rm -f %s/snapshot; ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:%u snapshot save "
             "%s/snapshot >/dev/null 2>&1",
             bed->fixture->directory, bed->server->port, bed->fixture->directory);
    command_run(command);
}

static void etcd_restore(struct bed *bed) {
    char command[2048];
    etcd_stop(bed->server, SIGKILL);
    snprintf(
        command, sizeof(command),
        "rm -rf %s && ETCDCTL_API=3 etcdctl snapshot restore %s/snapshot --data-dir %s --initial-cluster "
        "default=http://127.0.0.1:%u --initial-advertise-peer-urls http://127.0.0.1:%u >/dev/null 2>&1",
        bed->server->directory, bed->fixture->directory, bed->server->directory, bed->server->peer_port,
        bed->server->peer_port);
    command_run(command);
    etcd_start(bed->server);
}

static void file_open(struct bed *bed, uint32_t node) {
    char path[400], text[COORDINATOR_TEXT_MAX] = "";
    snprintf(path, sizeof(path), "%s/coordinator", bed->fixture->directory);
    struct coordinator_file_options options = {
        .directory = path, .timeout_ms = bed->timeout_ms, .probe_ms = bed->probe_ms};
    shelf_result result = coordinator_open_file(&options, &bed->coordinators[node], text);
    assert_string_equal(text, "");
    assert_int_equal(result, SHELF_OK);
}

// One machine: if one cannot reach it, nobody can. A stopped process that has the lock is how that happens.
static void file_cut_set(struct bed *bed, uint32_t node, bool cut) {
    char path[400];
    struct flock lock = {.l_type = cut ? F_WRLCK : F_UNLCK, .l_whence = SEEK_SET};
    (void)node;
    if (cut && bed->fd_lock < 0) {
        snprintf(path, sizeof(path), "%s/coordinator/lock", bed->fixture->directory);
        bed->fd_lock = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(fcntl(bed->fd_lock, F_OFD_SETLKW, &lock), 0);
    } else if (!cut && bed->fd_lock >= 0) {
        close(bed->fd_lock);
        bed->fd_lock = -1;
    }
}

static void file_backup(struct bed *bed) {
    char command[1024];
    snprintf(command, sizeof(command), "rm -rf %s/backup && cp -r %s/coordinator %s/backup",
             bed->fixture->directory, bed->fixture->directory, bed->fixture->directory);
    command_run(command);
}

static void file_restore(struct bed *bed) {
    char command[1024];
    snprintf(command, sizeof(command),
             "for f in %s/backup/[cn]*; do cat $f >%s/coordinator/${f##*/} || exit 1; done",
             bed->fixture->directory, bed->fixture->directory);
    file_cut_set(bed, 0, true); // not under the eyes of the nodes
    command_run(command);
    file_cut_set(bed, 0, false);
}

static void sim_open(struct bed *bed, uint32_t node) {
    sim_coordinator_node_start(bed->sim, node, false);
}

static void sim_close(struct bed *bed, uint32_t node) {
    (void)bed;
    (void)node;
}

static void sim_cut_set(struct bed *bed, uint32_t node, bool cut) {
    sim_coordinator_cut_set(bed->sim, node, cut);
}

static void sim_backup(struct bed *bed) {
    sim_coordinator_backup(bed->sim);
}

static void sim_restore(struct bed *bed) {
    sim_coordinator_restore(bed->sim);
}

UNUSED static struct bed_kind kind_etcd = {"etcd",       true,        etcd_open,   real_close,
                                           etcd_cut_set, etcd_backup, etcd_restore};
UNUSED static struct bed_kind kind_file = {"file",       false,       file_open,   real_close,
                                           file_cut_set, file_backup, file_restore};
UNUSED static struct bed_kind kind_sim = {"sim",       true,       sim_open,   sim_close,
                                          sim_cut_set, sim_backup, sim_restore};

static void node_open(struct bed *bed, uint32_t node) {
    bed->kind->open(bed, node);
    bed->opened[node] = true;
}

static void node_close(struct bed *bed, uint32_t node) {
    bed->kind->close(bed, node);
    bed->opened[node] = false;
}

// The etcd of this program: one for all tests that do it no harm which would last.
static struct etcd_server shared_server;
static char shared_directory[300];

static void bed_make(struct bed *bed, const struct bed_kind *kind, uint32_t nodes) {
    static uint32_t number;
    const struct sim_coordinator_plan calm = {0};
    void *fixture = NULL;
    *bed = (struct bed){.kind = kind, .timeout_ms = 10000, .probe_ms = 100, .fd_lock = -1};
    snprintf(bed->cluster, sizeof(bed->cluster), "test-%u", ++number);
    fixture_setup(&fixture);
    bed->fixture = fixture;
    random_seed(&bed->random, number);
    if (kind == &kind_etcd) {
        bed->server = &shared_server;
        if (bed->server->pid == 0) {
            const char *base = getenv("TMPDIR");
            snprintf(shared_directory, sizeof(shared_directory), "%s/shelf-etcd-XXXXXX",
                     base ? base : "/tmp");
            assert_non_null(mkdtemp(shared_directory));
            snprintf(bed->server->directory, sizeof(bed->server->directory), "%s/data", shared_directory);
            etcd_start(bed->server);
        }
        assert_int_equal(kill(bed->server->pid, SIGCONT), 0); // a test that failed may have left it stopped
    } else if (kind == &kind_sim) {
        bed->sim = sim_coordinator_new(&bed->random, &calm);
    }
    for (uint32_t i = 0; i < nodes; i++) {
        node_open(bed, i);
    }
}

static void bed_free(struct bed *bed) {
    file_cut_set(bed, 0, false);
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        if (bed->opened[i]) {
            node_close(bed, i);
        }
        if (bed->proxies[i]) {
            proxy_stop(bed->proxies[i]);
        }
    }
    if (bed->sim) {
        sim_coordinator_free(bed->sim);
    }
    void *fixture = bed->fixture;
    fixture_teardown(&fixture);
}

UNUSED static int shared_server_end(void **state) {
    (void)state;
    if (shared_server.pid > 0) {
        char command[600];
        etcd_stop(&shared_server, SIGKILL);
        snprintf(command, sizeof(command), "rm -rf %s", shared_directory);
        command_run(command);
    }
    return 0;
}

#endif
