// SPDX-License-Identifier: Apache-2.0
/*
 * service.h: the node as a handle needs it, wherever it is: in this process, or in another one to which this is attached. Which
 * of them it is may change under way: a node dies, another one is found, or this process becomes it.
 *
 *     NODE       it is in this process: everything goes straight to node.h
 *     ATTACHED   requests go through the ring of a guest, questions over its socket
 *     DOWN       nobody serves: requests wait, reads go on in the last replica
 *
 *   S1  A request is answered once: by the node that took it, or, if that one died before it answered, by the next. It is sent
 *       again under the same session and sequence, so its effect is not doubled (architecture, rule K3).
 *   S2  The replica that transactions begin with never shows an older index than the one before it (rule R2).
 *   S3  A guest is freed only when no transaction reads from it, and no thread waits at it.
 */
#ifndef CLIENT_SERVICE_H
#define CLIENT_SERVICE_H

#include "base/list.h"
#include "client/tx.h"
#include "node/node.h"

struct service;

/* `host` is told the replica, now and whenever it changes, and how to map a region. Sets detail on failure. */
shelf_result service_open(const char *path, bool directory, const struct shelf_options *options,
                          struct tx_host *host, struct service **ret_service);
/* No request may be under way and none come any more. */
shelf_result service_close(struct service *service);

/* As node_post() and node_call() (node.h); UNAVAILABLE as well: nobody serves, and the request was not taken. */
void service_post(struct service *service, struct node_request *request);
shelf_result service_call(struct service *service, const void *bytes, size_t size, uint32_t deadline_ms,
                          struct reply *ret_reply);

/* For programs that poll. A descriptor that polls readable when `queue_fd` does, or there may be replies to be taken by
 * service_poll_look(), from the first call on. While a thread holds, replies are taken without anybody who polls. */
int service_poll_fd(struct service *service, int queue_fd);
void service_poll_look(struct service *service);
void service_poll_hold(struct service *service, bool on);

/* Looking up. UNAVAILABLE: nobody serves within the handle's deadline. */
shelf_result service_checkpoint(struct service *service, uint64_t *ret_index);
/* The node that the replica is of was the node at some moment after the call began: so what was acknowledged before is there.
 * (A dead node's memory looks no different, and there may be a next one already.) In a cluster: a majority has confirmed that the
 * primary leads, after the call began, and all that was committed then is here. */
shelf_result service_confirm(struct service *service);
shelf_result service_info(struct service *service, struct shelf_info *ret_info);
shelf_result service_cluster(struct service *service, struct shelf_cluster_info *ret_info);
shelf_result service_region_find(struct service *service, const char *name,
                                 struct shelf_region_info *ret_info);
shelf_result service_region_get(struct service *service, uint32_t region, struct shelf_region_info *ret_info);
shelf_result service_region_list(struct service *service, struct shelf_region_info *ret_infos,
                                 size_t count_max, size_t *ret_count);
shelf_result service_clients(struct service *service, struct shelf_client_info *ret_infos, size_t count_max,
                             size_t *ret_count);
/* Maps the region in this process, if it is not. */
shelf_result service_region_attach(struct service *service, const struct replica *replica,
                                   shelf_region region);

/* A thread that is going to sleep on an event word of the replica, and has stopped to. False: the replica is not the present one
 * any more, begin again with that. While it is registered it is woken when the replica is replaced. */
struct service_sleeper {
    struct list link;
    const struct replica *replica;
    shelf_region region;
};
bool service_sleep_begin(struct service *service, struct service_sleeper *sleeper);
void service_sleep_end(struct service *service, struct service_sleeper *sleeper);

/* What the replica's image says, for a thread without a transaction: nothing else keeps the image of a node that is gone. */
struct service_look {
    uint64_t applied, contact_ms;
};
struct service_look service_look(struct service *service);

struct service_status {
    bool connected, is_node;
    uint64_t away_ms; /* since the last contact; 0 while connected */
    uint64_t reconnects, takeovers, replicas;
};
void service_status_get(struct service *service, struct service_status *ret_status);

#endif
