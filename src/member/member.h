// SPDX-License-Identifier: Apache-2.0
/*
 * member.h: the driver of one node of a cluster: it brings together the node (src/node), its peers (src/peer) and the
 * coordinator (src/coordinator). It decides nothing: the core does.
 *
 *     member_open    who the node is: its directory's identity; a new one is made known to the coordinator, and gets the
 *                    cluster's shelf, or makes the cluster
 *     node_open_cluster(..., member_cluster(), ...)
 *     member_run     connections, news, time: from here on the node takes part
 *     member_halt    no more of that
 *     node_close, member_close
 *
 * Two threads: one is told messages by the peers, and writes the records that come of them; the other does what has to go on
 * while a disk is slow: heartbeats, the coordinator, addresses.
 */
#ifndef MEMBER_MEMBER_H
#define MEMBER_MEMBER_H

#include "member/identity.h"
#include "node/node.h"

struct member;

struct member_options { /* texts stay where they are until member_close() */
    const char *directory;
    bool create;
    const char *address;     /* HOST:PORT to listen at, and that others are told; port 0: any */
    const char *coordinator; /* URL[,URL...] of etcd, or file:DIR */
    const char *cluster;     /* its name there */
    const char *etcd_user, *etcd_password_file, *etcd_ca_file, *etcd_certificate_file,
        *etcd_key_file; /* NULL */
    uint64_t node;      /* 0: chosen */
    uint32_t copies, min_copies;
    uint32_t heartbeat_ms, suspect_ms;
    /* What has happened: an event of the daemon's log, and more about it. Any thread; must not call the node. */
    void (*log)(void *context, const char *event, const char *text);
    void *log_context;
};

/* A new directory waits here for the coordinator. Sets ret_text on failure: as identity_open(), and INVALID, EXISTS (another node has
 * that number), UNAVAILABLE. */
shelf_result member_open(const struct member_options *options, struct member **ret_member,
                         char ret_text[MEMBER_TEXT_MAX]);
const struct node_cluster *member_cluster(const struct member *member);
shelf_result member_run(struct member *member, struct node *node, char ret_text[MEMBER_TEXT_MAX]);
void member_halt(struct member *member);
void member_close(struct member *member);

#endif
