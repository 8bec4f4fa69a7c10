// SPDX-License-Identifier: Apache-2.0
/*
 * door.h: the door of a node for other programs of the machine: a Unix socket, a thread, a ring for each client.
 *
 *     node_open -> door_open -> ... -> door_close -> node_close
 *
 * It believes nothing that a client says or writes: a client that breaks a rule of wire/ring.h or wire/door.h is disconnected, and
 * nobody else notices. What a client may do to others is bounded: bytes and requests under way, its turn in a round.
 */
#ifndef DOOR_DOOR_H
#define DOOR_DOOR_H

#include "node/node.h"

struct door;

enum { DOOR_LISTEN_MAX = 4 };

struct door_options {
    const char *
        directory; /* of the shelf: DIR/sock is made there (mode 0666: the rights are the regions'); NULL: none */
    int fds[DOOR_LISTEN_MAX]; /* further listening sockets, owned by the door from now on */
    uint32_t fd_count;
    uint32_t clients_max;         /* 0: 1024 */
    uint64_t client_bytes_max;    /* of requests under way, of one client: 0: 64 MiB */
    uint32_t client_requests_max; /* ... their number: 0: RING_REPLIES */
    /* Called by the door's thread; `text` has no users' data. NULL: silence. */
    void (*log)(void *context, const char *event, const char *text);
    void *log_context;
};

/* Sets detail on failure. The node must stay open until door_close(). */
shelf_result door_open(struct node *node, const struct door_options *options, struct door **ret_door);
/* Disconnects all clients; requests that they have submitted are finished first, or will be as the node closes. */
void door_close(struct door *door);

/* Writes up to count_max clients with ids from `from` on, in order; returns how many there are in all. Any thread. */
size_t door_clients(struct door *door, uint64_t from, struct shelf_client_info *ret_infos, size_t count_max);

#endif
