// SPDX-License-Identifier: Apache-2.0
/* up_state.c: see up_state.h. */
#include "cmd/up_state.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/arguments.h"

#define STATE_NAME   "cluster.json"
#define LOCK_NAME    "cluster.lock"
#define STATE_FORMAT 1

const char *up_path(const struct up_state *state, const char *name, uint32_t number, const char *tail,
                    char ret_path[UP_PATH_MAX]) {
    int length = number > 0
                     ? snprintf(ret_path, UP_PATH_MAX, "%s/%s-%u%s", state->directory, name, number, tail)
                     : snprintf(ret_path, UP_PATH_MAX, "%s/%s%s", state->directory, name, tail);
    if (length < 0 || (size_t)length >= UP_PATH_MAX) {
        ret_path[0] = 0; /* (the directory's own name was checked with room to spare) */
    }
    return ret_path;
}

const char *up_directory_option(const struct up_state *state, char *text, size_t size) {
    bool usual = strcmp(state->directory, UP_DIRECTORY_DEFAULT) == 0;
    (void)snprintf(text, size, "%s%s", usual ? "" : " --dir ", usual ? "" : state->directory);
    return text;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------- */

static json_t *process_json(const struct up_process *process) {
    return json_pack("{s:I, s:I, s:s}", "process", (json_int_t)process->process, "began",
                     (json_int_t)process->began, "boot", process->boot);
}

static bool process_parse(json_t *object, struct up_process *ret_process) {
    json_int_t process, began;
    const char *boot;
    if (json_unpack(object, "{s:I, s:I, s:s}", "process", &process, "began", &began, "boot", &boot) != 0 ||
        process < 0 || process > INT32_MAX || began < 0 || strlen(boot) >= sizeof(ret_process->boot)) {
        return false;
    }
    ret_process->process = process;
    ret_process->began = (uint64_t)began;
    (void)snprintf(ret_process->boot, sizeof(ret_process->boot), "%s", boot);
    return true;
}

static bool port_parse(json_int_t number, uint16_t *ret_port) {
    *ret_port = (uint16_t)number;
    return number > 0 && number <= UINT16_MAX;
}

static json_t *state_json(const struct up_state *state) {
    json_t *nodes = json_array();
    for (uint32_t i = 0; i < state->node_count; i++) {
        (void)json_array_append_new(nodes, json_pack("{s:i, s:i, s:o}", "node", (int)i + 1, "port",
                                                     (int)state->nodes[i].port, "runs",
                                                     process_json(&state->nodes[i].process)));
    }
    return json_pack("{s:i, s:{s:i, s:i, s:o}, s:o}", "format", STATE_FORMAT, "etcd", "client_port",
                     (int)state->etcd_client_port, "peer_port", (int)state->etcd_peer_port, "runs",
                     process_json(&state->etcd), "nodes", nodes);
}

static bool state_parse(json_t *object, struct up_state *state) {
    json_int_t format, client, peer;
    json_t *etcd, *nodes;
    if (json_unpack(object, "{s:I, s:{s:I, s:I, s:o}, s:o}", "format", &format, "etcd", "client_port",
                    &client, "peer_port", &peer, "runs", &etcd, "nodes", &nodes) != 0 ||
        format != STATE_FORMAT || !json_is_array(nodes) || json_array_size(nodes) == 0 ||
        json_array_size(nodes) > UP_NODES_MAX || !port_parse(client, &state->etcd_client_port) ||
        !port_parse(peer, &state->etcd_peer_port) || !process_parse(etcd, &state->etcd)) {
        return false;
    }
    state->node_count = (uint32_t)json_array_size(nodes);
    for (uint32_t i = 0; i < state->node_count; i++) {
        json_int_t node, port;
        json_t *runs;
        if (json_unpack(json_array_get(nodes, i), "{s:I, s:I, s:o}", "node", &node, "port", &port, "runs",
                        &runs) != 0 ||
            node != (json_int_t)i + 1 || !port_parse(port, &state->nodes[i].port) ||
            !process_parse(runs, &state->nodes[i].process)) {
            return false;
        }
    }
    return true;
}

/* ---- Files --------------------------------------------------------------------------------------------------------- */

static int lock_take(const struct call *call, struct up_state *state, bool make) {
    char path[UP_PATH_MAX];
    if (make && mkdir(state->directory, 0755) != 0 && errno != EEXIST) {
        return fail(call, SHELF_DENIED, "cannot make directory %s: %s", state->directory, strerror(errno));
    }
    state->fd_lock =
        open(up_path(state, LOCK_NAME, 0, "", path), O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0644);
    if (state->fd_lock < 0) {
        return errno == ENOENT
                   ? fail(call, SHELF_NOT_FOUND,
                          "%s: no cluster is there; `shelf up 3` starts one (--dir DIR says where)",
                          state->directory)
                   : fail(call, SHELF_DENIED, "%s: %s", path, strerror(errno));
    }
    if (flock(state->fd_lock, LOCK_EX | LOCK_NB) != 0) {
        return fail(call, SHELF_BUSY,
                    "another command is changing the cluster in %s; try again when it is done",
                    state->directory);
    }
    return SHELF_OK;
}

int up_state_open(const struct call *call, bool make, struct up_state *ret_state) {
    const char *directory = call_option(call, "dir");
    char path[UP_PATH_MAX];
    json_error_t error;
    *ret_state = (struct up_state){.fd_lock = -1};
    directory = directory && directory[0] ? directory : UP_DIRECTORY_DEFAULT;
    if (strlen(directory) + 64 > sizeof(ret_state->directory)) {
        return fail(call, SHELF_INVALID, "the directory's name is too long");
    }
    (void)snprintf(ret_state->directory, sizeof(ret_state->directory), "%s", directory);
    int code = lock_take(call, ret_state, make);
    if (code != SHELF_OK) {
        up_state_close(ret_state);
        return code;
    }
    (void)up_path(ret_state, STATE_NAME, 0, "", path);
    if (access(path, F_OK) != 0 && errno == ENOENT && make) {
        return SHELF_OK;
    }
    json_t *object = json_load_file(path, 0, &error);
    if (!object || !state_parse(object, ret_state)) {
        code = fail(call, SHELF_CORRUPT, "%s cannot be understood%s%s; remove %s, and begin anew", path,
                    object ? "" : ": ", object ? "" : error.text, ret_state->directory);
        up_state_close(ret_state);
    }
    json_decref(object);
    return code;
}

void up_state_close(struct up_state *state) {
    if (state->fd_lock >= 0) {
        (void)close(state->fd_lock);
        state->fd_lock = -1;
    }
}

int up_state_store(const struct call *call, const struct up_state *state) {
    char path[UP_PATH_MAX], new_path[UP_PATH_MAX];
    json_t *object = state_json(state);
    (void)up_path(state, STATE_NAME, 0, "", path);
    (void)up_path(state, STATE_NAME, 0, ".new", new_path);
    bool good =
        object && json_dump_file(object, new_path, JSON_INDENT(2)) == 0 && rename(new_path, path) == 0;
    json_decref(object);
    return good ? SHELF_OK : fail(call, SHELF_IO, "%s cannot be written: %s", path, strerror(errno));
}
