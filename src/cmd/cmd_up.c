// SPDX-License-Identifier: Apache-2.0
/*
 * cmd_up.c: `shelf up`, `start`, `kill`, `down`: a cluster on this machine, for trying and for tests: an etcd and some shelfd, each
 * a process of its own, on 127.0.0.1. Calling one again when it is done already says so, and is no error.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/arguments.h"
#include "cmd/cluster_words.h"
#include "cmd/output.h"
#include "cmd/up_run.h"

#define WAIT_MS 60000u

/* ---- What people are told ------------------------------------------------------------------------------------------ */

static json_t *node_json(const struct up_state *state, uint32_t number,
                         const struct shelf_cluster_info *info) {
    char path[UP_PATH_MAX];
    const struct up_node *node = &state->nodes[number - 1];
    bool runs = up_runs(state, number);
    json_t *object =
        json_pack("{s:I, s:s, s:i, s:b}", "node", (json_int_t)number, "path",
                  up_path(state, "node", number, "", path), "port", (int)node->port, "runs", runs);
    if (runs) {
        (void)json_object_set_new(object, "process", json_integer(node->process.process));
    }
    if (runs && info && info->epoch != 0) {
        (void)json_object_set_new(object, "part", json_string(cluster_part_name(info->part)));
    }
    return object;
}

static int cluster_json(const struct up_state *state, const struct shelf_cluster_info *infos) {
    json_t *nodes = json_array();
    json_t *etcd = json_pack("{s:i, s:b, s:I}", "port", (int)state->etcd_client_port, "runs",
                             up_runs(state, UP_ETCD), "process", (json_int_t)state->etcd.process);
    for (uint32_t i = 0; i < state->node_count; i++) {
        (void)json_array_append_new(nodes, node_json(state, i + 1, infos ? &infos[i] : NULL));
    }
    return json_finish(
        stdout, json_pack("{s:s, s:o, s:o}", "directory", state->directory, "etcd", etcd, "nodes", nodes));
}

static uint32_t primary_of(const struct up_state *state, const struct shelf_cluster_info *infos) {
    for (uint32_t i = 0; i < state->node_count; i++) {
        if (infos[i].serves) {
            return i + 1;
        }
    }
    return 1;
}

static void cluster_print(const struct up_state *state, const struct shelf_cluster_info *infos) {
    char path[UP_PATH_MAX];
    (void)printf("  etcd    process %-8lld http://127.0.0.1:%u\n", (long long)state->etcd.process,
                 state->etcd_client_port);
    for (uint32_t i = 0; i < state->node_count; i++) {
        bool runs = up_runs(state, i + 1);
        (void)printf("  node %-2u process %-8lld %-8s %s\n", i + 1,
                     runs ? (long long)state->nodes[i].process.process : 0LL,
                     runs ? cluster_part_name(infos[i].part) : "down",
                     up_path(state, "node", i + 1, "", path));
    }
}

static void suggestions_print(const struct up_state *state, const struct shelf_cluster_info *infos) {
    char option[UP_PATH_MAX + 16];
    uint32_t primary = primary_of(state, infos), other = primary % state->node_count + 1;
    const char *directory = state->directory;
    (void)up_directory_option(state, option, sizeof(option));
    (void)printf("\nto try next:\n"
                 "  shelf create %s/node-%u shop 16M\n"
                 "  shelf put %s/node-%u shop/prices apple 120\n"
                 "  shelf get %s/node-%u shop/prices apple\n"
                 "  shelf status %s/node-%u --watch\n"
                 "  shelf kill %u%s     the others go on; `shelf start %u%s` brings it back\n"
                 "  shelf down%s\n",
                 directory, primary, directory, primary, directory, other, directory, other, primary, option,
                 primary, option, option);
}

/* ---- Arguments ----------------------------------------------------------------------------------------------------- */

static bool number_parse(const char *text, uint32_t *ret_number) {
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    *ret_number = (uint32_t)number;
    return text[0] >= '1' && text[0] <= '9' && *end == 0 && number <= UP_NODES_MAX;
}

/* "2", or "etcd". Returns an exit code. */
static int which_parse(const struct call *call, const struct up_state *state, uint32_t *ret_which) {
    const char *text = call_argument(call, 0);
    if (strcmp(text, "etcd") == 0) {
        *ret_which = UP_ETCD;
        return SHELF_OK;
    }
    if (!number_parse(text, ret_which)) {
        return fail(call, SHELF_INVALID, "'%s' is no node; say its number, or etcd", text);
    }
    return *ret_which <= state->node_count
               ? SHELF_OK
               : fail(call, SHELF_NOT_FOUND, "there is no node %u in %s; its nodes are 1 to %u", *ret_which,
                      state->directory, state->node_count);
}

static const char *which_text(uint32_t which, char *text, size_t size) {
    (void)snprintf(text, size, which == UP_ETCD ? "etcd" : "node %u", which);
    return text;
}

/* ---- up ------------------------------------------------------------------------------------------------------------ */

/* *ret_before: how many there were. */
static int nodes_count(const struct call *call, struct up_state *state, uint32_t *ret_before) {
    *ret_before = state->node_count;
    const char *text = call_argument(call, 0);
    uint32_t count = state->node_count > 0 ? state->node_count : 3;
    if (text && !number_parse(text, &count)) {
        return fail(call, SHELF_INVALID, "'%s' is no number of nodes; from 1 to %u are possible", text,
                    UP_NODES_MAX);
    }
    if (count < state->node_count) {
        return fail(call, SHELF_EXISTS,
                    "the cluster in %s has %u nodes; there can be more of them, not fewer", state->directory,
                    state->node_count);
    }
    state->node_count = count;
    return SHELF_OK;
}

static void undo(const struct call *call, struct up_state *state, const bool *started) {
    for (uint32_t which = state->node_count + 1; which-- > 0;) {
        if (started[which]) {
            (void)up_end(state, which, SIGTERM);
        }
    }
    (void)up_state_store(call, state);
}

/* More nodes are to have copies: those that run are told so, one after the other, while the others go on. */
static int copies_renew(const struct call *call, struct up_state *state, uint32_t before,
                        struct shelf_cluster_info *infos) {
    int code = SHELF_OK;
    bool started;
    for (uint32_t which = 1; which <= before && before < state->node_count && code == SHELF_OK; which++) {
        if (up_end(state, which, SIGTERM)) {
            code = up_start(call, state, which, &started);
            code = code == SHELF_OK ? up_wait(call, state, 1u << (which - 1), WAIT_MS, infos) : code;
        }
    }
    return code;
}

static int up_run(const struct call *call, struct up_state *state, struct shelf_cluster_info *infos) {
    bool started[UP_NODES_MAX + 1] = {false}, any = false;
    uint32_t before;
    int code = nodes_count(call, state, &before);
    code = code == SHELF_OK ? up_ports_choose(call, state) : code;
    code = code == SHELF_OK ? up_state_store(call, state) : code;
    code = code == SHELF_OK ? up_start(call, state, UP_ETCD, &started[UP_ETCD]) : code;
    code = code == SHELF_OK ? copies_renew(call, state, before, infos) : code;
    for (uint32_t which = UP_ETCD; which <= state->node_count && code == SHELF_OK; which++) {
        code = up_start(call, state, which, &started[which]);
        any |= started[which];
    }
    if (code == SHELF_OK) {
        code = up_wait(call, state, (1u << state->node_count) - 1, WAIT_MS, infos);
    }
    if (code == EXIT_INTERRUPTED) {
        undo(call, state, started);
    }
    if (code != SHELF_OK) {
        return code;
    }
    if (call->json) {
        return cluster_json(state, infos);
    }
    (void)printf("%s%s%s: etcd and %u node%s, %s\n", style(stdout, STYLE_BOLD), state->directory,
                 style(stdout, STYLE_PLAIN), state->node_count, state->node_count > 1 ? "s, all in sync" : "",
                 any ? "up" : "were up already");
    cluster_print(state, infos);
    suggestions_print(state, infos);
    return SHELF_OK;
}

/* Opens the state, and runs what is to be done with it. */
static int with_state(const struct call *call, bool make,
                      int (*run)(const struct call *, struct up_state *, struct shelf_cluster_info *)) {
    struct up_state *state = calloc(1, sizeof(*state));
    struct shelf_cluster_info *infos = calloc(UP_NODES_MAX, sizeof(*infos));
    int code = SHELF_NO_MEMORY;
    if (state && infos) {
        interrupt_watch();
        code = up_state_open(call, make, state);
        if (code == SHELF_OK) {
            code = run(call, state, infos);
            up_state_close(state);
        }
    }
    free(infos);
    free(state);
    return code;
}

int cmd_up(const struct call *call) {
    return with_state(call, true, up_run);
}

/* ---- start, kill, down --------------------------------------------------------------------------------------------- */

static int done_tell(const struct call *call, uint32_t which, bool changed, const char *text,
                     const char *already) {
    char name[16];
    (void)which_text(which, name, sizeof(name));
    if (call->json) {
        return json_finish(stdout, json_pack("{s:s, s:b}", "name", name, "changed", changed));
    }
    (void)printf("%s %s\n", name, changed ? text : already);
    return SHELF_OK;
}

static int start_run(const struct call *call, struct up_state *state, struct shelf_cluster_info *infos) {
    uint32_t which;
    bool started = false;
    int code = which_parse(call, state, &which);
    code = code == SHELF_OK ? up_start(call, state, which, &started) : code;
    if (code == SHELF_OK && which != UP_ETCD) {
        code = up_wait(call, state, 1u << (which - 1), WAIT_MS, infos);
    }
    return code == SHELF_OK
               ? done_tell(call, which, started, which == UP_ETCD ? "is started" : "is started, and in sync",
                           "runs already")
               : code;
}

int cmd_start(const struct call *call) {
    return with_state(call, false, start_run);
}

static int kill_run(const struct call *call, struct up_state *state, struct shelf_cluster_info *infos) {
    uint32_t which;
    (void)infos;
    int code = which_parse(call, state, &which);
    if (code != SHELF_OK) {
        return code;
    }
    bool ran = up_end(state, which, SIGKILL);
    code = up_state_store(call, state);
    return code == SHELF_OK ? done_tell(call, which, ran, "is killed", "does not run") : code;
}

int cmd_kill(const struct call *call) {
    return with_state(call, false, kill_run);
}

static int down_run(const struct call *call, struct up_state *state, struct shelf_cluster_info *infos) {
    uint32_t count = 0;
    (void)infos;
    for (uint32_t which = state->node_count + 1; which-- > 0;) { /* etcd last */
        count += up_end(state, which, SIGTERM);
    }
    int code = up_state_store(call, state);
    if (code != SHELF_OK) {
        return code;
    }
    if (call->json) {
        return json_finish(stdout,
                           json_pack("{s:s, s:i}", "directory", state->directory, "ended", (int)count));
    }
    if (count == 0) {
        (void)printf("%s: nothing ran\n", state->directory);
    } else {
        (void)printf("%s: all is down; `shelf up` starts it again, with what it has\n", state->directory);
    }
    return SHELF_OK;
}

int cmd_down(const struct call *call) {
    return with_state(call, false, down_run);
}
