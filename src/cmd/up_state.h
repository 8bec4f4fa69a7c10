// SPDX-License-Identifier: Apache-2.0
/*
 * up_state.h: a cluster on this machine, for trying: DIR/cluster.json says what it is made of. Commands that change it hold
 * DIR/cluster.lock.
 *
 *     DIR/etcd, DIR/etcd.log         the coordinator
 *     DIR/node-N, DIR/node-N.log     node N; DIR/node-N/sock is its socket
 */
#ifndef CMD_UP_STATE_H
#define CMD_UP_STATE_H

#include "cmd/output.h"
#include "cmd/up_process.h"

#define UP_DIRECTORY_DEFAULT "./shelf-cluster"
#define UP_NODES_MAX         16u
#define UP_PATH_MAX          4096u

struct up_node {
    uint16_t port; /* for other nodes */
    struct up_process process;
};

struct up_state {
    char directory[UP_PATH_MAX];
    int fd_lock; /* -1: not held */
    uint16_t etcd_client_port, etcd_peer_port;
    struct up_process etcd;
    uint32_t node_count; /* nodes 1 to that */
    struct up_node nodes[UP_NODES_MAX];
};

/* Takes the lock and reads what there is. With `make`, makes the directory. Returns an exit code, 0 if all is well; node_count 0:
 * there is no cluster yet (only with `make`, else NOT_FOUND is told). */
int up_state_open(const struct call *call, bool make, struct up_state *ret_state);
void up_state_close(struct up_state *state);
/* Durably in place of what was there. */
int up_state_store(const struct call *call, const struct up_state *state);

/* DIR/NAME-N, or DIR/NAME if N is 0, with `tail` behind it. */
const char *up_path(const struct up_state *state, const char *name, uint32_t number, const char *tail,
                    char ret_path[UP_PATH_MAX]);
/* "", or " --dir DIR": what the user has to repeat. */
const char *up_directory_option(const struct up_state *state, char *text, size_t size);

#endif
