// SPDX-License-Identifier: Apache-2.0
/*
 * node.h: the node inside of a program: it owns the core and the world of one directory and drives them from whichever
 * thread needs it (flat combining: Hendler, Incze, Shavit, Tzafrir, SPAA 2010).
 *
 * N1  Exactly one thread at a time is in the core: the holder of the node's lock, the *driver*.
 * N2  A thread that commits and finds the core free drives it itself, log write included, and takes the others' requests
 *     along. It leaves when its own request is answered; if others wait, one of them (or the background thread, for
 *     asynchronous ones) is told to go on, so no request is ever left without a driver.
 * N3  A request belongs to the node from node_post() until its `done` was called, exactly once.
 */
#ifndef CLIENT_NODE_H
#define CLIENT_NODE_H

#include "shelf.h"
#include "wire/image.h"
#include "wire/request.h"

struct node;

struct node_request {
    struct node_request *next; /* the node's */
    const void *bytes;         /* a request of wire/request.h; valid until it is done */
    size_t size;
    void (*done)(
        struct node_request *request); /* called once, by the driving thread, without any lock held that
                                                   node_post() needs; must be short and not block */
    struct reply reply;                /* set before `done` */
    uint32_t state;                    /* the node's */
};

/* Opens the directory, recovers, serves. Sets detail on failure. */
shelf_result node_open(const char *path, const struct shelf_options *options, struct node **ret_node);
/* No request may be under way and none come any more. */
shelf_result node_close(struct node *node);

struct image *node_image(struct node *node);

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
bool node_region_find(struct node *node, const char *name, struct shelf_region_info *ret_info);
bool node_region_get(struct node *node, uint32_t region, struct shelf_region_info *ret_info);
size_t node_region_list(struct node *node, struct shelf_region_info *ret_infos, size_t count_max);

#endif
