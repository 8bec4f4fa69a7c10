// SPDX-License-Identifier: Apache-2.0
/*
 * guest.h: one attachment to a node in another process: socket, ring, and what is mapped of its memory. Mechanism only; who
 * may call what and when, and what happens when it ends, is service.c's business.
 */
#ifndef CLIENT_GUEST_H
#define CLIENT_GUEST_H

#include <pthread.h>
#include <sys/types.h>

#include "base/list.h"
#include "shelf.h"
#include "wire/door.h"
#include "wire/image.h"
#include "wire/ring.h"

/* A region of the node in this process: readable for as long as the guest is. */
struct guest_region {
    struct list link; /* in guest.regions */
    uint32_t number;
    uint64_t size_max;
    void *parts[REGION_FILES]; /* data, versions of lines, of pages */
};

struct guest {
    struct list link; /* service.c's */
    struct replica replica;
    struct region_map *maps; /* of the replica */
    struct image *image;
    int fd;
    struct ring *ring;
    uint64_t submit_tail, reply_head; /* G1: our copies */
    struct door_welcome welcome;
    pthread_mutex_t regions_mutex;
    struct list regions;
};

/* Connects and shakes hands. NOT_FOUND (nobody listens), DENIED, FORMAT, UNAVAILABLE, NO_MEMORY; sets detail. */
shelf_result guest_open(const char *socket_path, struct guest **ret_guest);
/* Ends the attachment; memory stays mapped until guest_free(). The first may be called more than once. */
void guest_hang_up(struct guest *guest);
void guest_free(struct guest *guest);

/* ---- Ring: one thread at a time on each side of it ---- */

/* A request on its way into the ring. */
struct guest_cargo {
    uint64_t tag;
    const void *bytes;
    size_t size;
    size_t done; /* of frame and bytes together, padded */
};
/* Puts in as much as there is room for; true: all of it. */
bool guest_put(struct guest *guest, struct guest_cargo *cargo);
/* After one or more puts, or replies taken: rings the node's bell if it sleeps and there is something for it. */
void guest_bell(struct guest *guest);

enum guest_news { GUEST_NOTHING, GUEST_REPLY, GUEST_BROKEN };
enum guest_news guest_reply_take(struct guest *guest, struct reply *ret_reply);
/* What is worth waking up for: replies, and, if the ring was full up to `full_tail`, room in it (0: not asked for). */
bool guest_has_news(const struct guest *guest, uint64_t full_tail);
/* G4: says that we are about to sleep; then false: do not, there is something. */
bool guest_sleep_begin(struct guest *guest, uint64_t full_tail);
void guest_sleep_end(struct guest *guest);

/* ---- Socket ---- */

/* False: the node is gone. */
bool guest_send(struct guest *guest, const void *message, size_t size);
/* A packet, if there is one. Its size; 0: none now; -1: the node is gone or mad. Those of `ret_fds` that no
 * descriptor came for are -1. */
enum { GUEST_FDS_MAX = REGION_FILES };
ssize_t guest_receive(struct guest *guest, void *message, size_t size_max, int ret_fds[GUEST_FDS_MAX]);

void descriptors_close(const int fds[GUEST_FDS_MAX]);

/* ---- Memory ---- */

/* Maps what an answer to DOOR_MAP has brought, and owns the descriptors from now on. Any thread. */
shelf_result guest_region_map(struct guest *guest, const struct shelf_region_info *info,
                              const int fds[REGION_FILES]);
/* Maps all that `before` has mapped and that there still is, before anybody else uses this one. So who has read a region once can go on
 * reading it when this node goes, too. False: it has gone already. */
bool guest_regions_follow(struct guest *guest, struct guest *before);
/* Lets go of the memory of regions that were dropped; they read as zero from now on. Any thread. */
void guest_regions_tidy(struct guest *guest);

#endif
