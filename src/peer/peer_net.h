// SPDX-License-Identifier: Apache-2.0
/*
 * peer_net.h: messages between nodes over TCP. It knows connections, not the protocol: what a message means is src/core's.
 *
 *     peer_net_open      listens at the node's own address
 *     peer_net_peer_set  a peer and where it is; connections are made, and made again, by themselves
 *     peer_net_send      queues a message and sends what fits at once; from any thread
 *     peer_net_fd        a descriptor to poll(): something is to be done
 *     peer_net_work      does it, and delivers what has come; one thread, the owner's
 *
 *  P1  Messages may be lost (a connection breaks, a queue is full), never altered, never delivered twice by this part. Between two
 *      nodes they are delivered in the order of sending as long as nothing is lost.
 *  P2  A peer that does not read costs at most `queue_bytes_max` and never makes anybody wait.
 *  P3  A connection is worth nothing until its HELLO has told version, cluster and a known node; whoever says anything else is
 *      cut off. Memory for a body is taken only after the header's checksum was right.
 */
#ifndef PEER_PEER_NET_H
#define PEER_PEER_NET_H

#include "shelf.h"
#include "wire/peer.h"

#define PEER_TEXT_MAX    256u
#define PEER_ADDRESS_MAX 300u /* HOST:PORT or [HOST]:PORT, with the NUL */

struct peer_net;

struct peer_net_options {
    uint8_t cluster[16];
    uint16_t group;
    uint64_t node;
    uint8_t incarnation[16];
    const char *address;    /* HOST:PORT to listen at; port 0: any, see peer_net_address() */
    size_t queue_bytes_max; /* of one peer, that wait to be sent; 0: 64 MiB */
    uint32_t connect_ms;    /* between two attempts to connect, at least; 0: 100 */
};

/* INVALID, IO, NO_MEMORY; ret_text says why and what to do. */
shelf_result peer_net_open(const struct peer_net_options *options, struct peer_net **ret_net,
                           char ret_text[PEER_TEXT_MAX]);
/* Nobody may be in another call. */
void peer_net_close(struct peer_net *net);
/* Where it listens really, with the port that was chosen. */
const char *peer_net_address(const struct peer_net *net);

/* From any thread. A peer that is set again with another address is connected there anew. INVALID, NO_MEMORY. */
shelf_result peer_net_peer_set(struct peer_net *net, uint64_t node, const char *address);
void peer_net_peer_remove(struct peer_net *net, uint64_t node);

/* Copies the message, which is from this node and no HELLO; does not wait. False: it was dropped (no such peer, not connected, queue full). */
bool peer_net_send(struct peer_net *net, uint64_t node, const struct peer_message *message);

int peer_net_fd(const struct peer_net *net);
/* Returns after whatever was there when it was called. `deliver` is called without any lock held; the message and its body are
 * lent until it returns. Returns after how many milliseconds it wants to be called again though peer_net_fd() is silent (for
 * connecting again); -1: never. */
int peer_net_work(struct peer_net *net, void (*deliver)(void *context, const struct peer_message *message),
                  void *context);

/* A node whose machine has refused a connection: its process is not there. Told once for each attempt, to the thread that works; 0:
 * none. (What listens elsewhere by now, or a fence in between, may look so.) */
uint64_t peer_net_gone_take(struct peer_net *net);

struct peer_net_status {   /* of one peer */
    bool known, connected; /* in both directions */
    uint64_t for_ms;       /* so long it is connected, or not */
    uint64_t heard_ms;     /* since the last message from it; UINT64_MAX: never */
    uint64_t queued_bytes, dropped;
    char text[PEER_TEXT_MAX]; /* why it is not connected; "" */
};
void peer_net_status_get(struct peer_net *net, uint64_t node, struct peer_net_status *ret_status);
/* How many connections to this node were cut off, and why the last one was: "" if none. */
void peer_net_refused_get(struct peer_net *net, uint64_t *ret_count, char ret_text[PEER_TEXT_MAX]);

#endif
