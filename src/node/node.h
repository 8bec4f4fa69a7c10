// SPDX-License-Identifier: Apache-2.0
/*
 * node.h: the node inside of a program: it owns the core and the world of one directory and drives them from whichever
 * thread needs it (flat combining: Hendler, Incze, Shavit, Tzafrir, SPAA 2010).
 *
 * N1  Exactly one thread at a time is in the core: the holder of the node's lock, the *driver*.
 * N2  A thread that commits and finds the core free drives it itself, log write included, and takes the others' requests
 *     along. It leaves when its own request is answered; if others wait, one of them (or the background thread, for
 *     asynchronous ones) is told to go on, so no request is ever left without a driver. A thread that brings the requests of
 *     others (node_drive) has none of its own, and leaves when there is nothing to do.
 * N3  A request belongs to the node from node_post() until its `done` was called with it, exactly once.
 */
#ifndef CLIENT_NODE_H
#define CLIENT_NODE_H

#include "base/list.h"
#include "core/core.h"
#include "shelf.h"
#include "wire/image.h"
#include "wire/request.h"

struct node;

struct node_request {
    struct node_request *next; /* the node's; in `done`, the next one of the chain */
    const void *bytes; /* a request of wire/request.h; valid until it is done. NULL: a checkpoint, or */
    bool fresh;        /* ... that a linearizable read may begin in the image (rule R1), of a cluster only */
    size_t size;
    const struct credentials
        *credentials; /* of who submits, valid until it is done; NULL: the node's own program */
    /* Called by the driving thread, without any lock held that node_post() needs; must be short and not block. Requests
     * that are answered together and have the same `done` come as one chain: what is to be done once for all of them
     * (a lock, a bell) is done once. */
    void (*done)(struct node_request *first);
    uint64_t *cost_ns;  /* where node_drive() adds what it has cost to admit this one; NULL: nobody asks */
    struct reply reply; /* set before `done` */
    uint32_t state;     /* the node's */
};

/* Opens the directory, recovers, serves. Sets detail on failure. */
shelf_result node_open(const char *path, const struct shelf_options *options, struct node **ret_node);
/* No request may be under way and none come any more. */
shelf_result node_close(struct node *node);

/* For reading, until the close. */
const struct replica *node_replica(const struct node *node);

/* Calls `done` for a chain of answered requests, once for each stretch of them that has the same. */
void node_requests_deliver(struct node_request *answered);

/* Submits without waiting; the background thread or another committer drives it. */
void node_post(struct node *node, struct node_request *request);

/* Submits and waits. OK: *ret_reply is filled (its `result` is the outcome). TIMEOUT: the deadline passed and the request
 * was withdrawn before it was admitted, no effect. UNKNOWN: it was admitted, and the deadline passed or the node
 * stopped before its fate was known. The request's bytes may be reused on return in all cases. */
shelf_result node_call(struct node *node, const void *bytes, size_t size, uint32_t deadline_ms,
                       struct reply *ret_reply);

shelf_result node_checkpoint(struct node *node, uint64_t *ret_index);
void node_info(struct node *node, struct shelf_info *ret_info);
/* Why the node has stopped; "" while it has not. Valid until the close. */
const char *node_fault(struct node *node);
/* Of a cluster: it has stopped because the directory holds another node's checkpoint now, newer than its image: the directory is
 * to be opened again. */
bool node_outdated(struct node *node);
bool node_region_find(struct node *node, const char *name, struct shelf_region_info *ret_info);
bool node_region_get(struct node *node, uint32_t region, struct shelf_region_info *ret_info);
size_t node_region_list(struct node *node, struct shelf_region_info *ret_infos, size_t count_max);

uint32_t node_session_count(struct node *node);

/* Both descriptors of a region, to be read by another process (world_region_share), and of the image. */
int node_image_share(struct node *node);
bool node_region_share(struct node *node, uint32_t region, int ret_fds[REGION_FILES]);
/* Of the shelf, of the directory, and of this life of the node. */
struct node_identity {
    uint8_t shelf_id[16];
    uint8_t incarnation[16];
    uint64_t epoch;
};
struct node_identity node_identity(struct node *node);

/* Has the disk been full, time and again, since node_disk_hope()? Then a checkpoint would be tried for ever. */
bool node_disk_full(struct node *node);
void node_disk_hope(struct node *node);

/* ---- Those who bring the requests of others -------------------------------------------------------------------------- */

/*
 * A driver is a thread's: what it submits, and whatever it finds in the core, it carries through itself as a thread in node_call()
 * does, until nothing is left that falls to it. While it holds a record back for more requests, it asks `more` for
 * them: a chain by `next`, or NULL.
 */
struct node_driver;
struct node_driver *node_driver_open(struct node *node, struct node_request *(*more)(void *context),
                                     void *context); /* NULL: no memory */
void node_driver_close(struct node_driver *driver);
void node_drive(struct node_driver *driver, struct node_request *first);

/* ---- Those who wait for changes -------------------------------------------------------------------------------------- */

/* Whenever a record has changed regions, the driver looks at these counts; if any is not zero, it wakes those who sleep on the
 * event words of these regions (wire/image.h, I6). */
struct node_waiters {
    struct list link; /* the node's */
    const _Atomic uint32_t *count;
};
void node_waiters_join(struct node *node, struct node_waiters *waiters);
void node_waiters_leave(struct node *node, struct node_waiters *waiters);
/* Of this process. */
void node_waiters_add(struct node *node, int change);

/* ---- A node of a cluster ---------------------------------------------------------------------------------------------- */

/*
 * The functions are called by whichever thread drives the core, with the core held: they must be short, must not block, and
 * must not call the node. They may be called from node_open_cluster() on, until node_close() has returned.
 */
struct node_cluster {
    void *context;
    struct group_config group;
    uint8_t shelf_id[16]; /* of the shelf that is made if there is none, as group.incarnation is */
    void (*send)(void *context, uint64_t node,
                 const struct peer_message *message); /* lent until it returns */
    void (*swap)(void *context, uint64_t epoch, const struct configuration *wanted); /* likewise */
    void (*look)(void *context);
    void (*info)(void *context, struct shelf_cluster_info *ret_info); /* without the core */
};

/* As node_open(); `cluster` is owned by the caller until node_close(). Nothing is served before the peers agree that it may
 * be, but what was committed can be read. Its close waits for no peer and writes no checkpoint: requests that are under way
 * are UNKNOWN. */
shelf_result node_open_cluster(const char *path, const struct shelf_options *options,
                               const struct node_cluster *cluster, struct node **ret_node);

/* What has happened. A message is told by one thread, whose driver also writes what falls to it; the others by any. */
void node_cluster_message(struct node_driver *driver, const struct peer_message *message);
void node_cluster_gone(struct node_driver *driver, uint64_t peer); /* its process is not there */
void node_cluster_swap(struct node *node, enum swap_result result, const struct configuration *present);
void node_cluster_register(struct node *node, const struct configuration *present);
void node_cluster_tick(struct node *node); /* at least every half heartbeat */
/* Before the driver ends, if the node is to be closed and not only left: it hands the lead over, writes a checkpoint, and takes no
 * part any more. No call may come any more. Returns when that is done, or cannot be; node_close() is still to be called. */
shelf_result node_cluster_retire(struct node *node);

void node_cluster_get(struct node *node, struct core_cluster *ret_cluster);
bool node_is_alone(const struct node *node);
/* False: it is. */
bool node_cluster_info(struct node *node, struct shelf_cluster_info *ret_info);

#endif
