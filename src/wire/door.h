// SPDX-License-Identifier: Apache-2.0
/*
 * door.h: what a client and its node say over the socket (Unix, SOCK_SEQPACKET): everything that is not a request in the ring.
 *
 *   client                              node
 *   HELLO                          ->
 *                                  <-   WELCOME, descriptors {image, ring}; or REFUSED, and the end
 *   FIND, GET, LIST, MAP, INFO, ... ->
 *                                  <-   an ANSWER to each, with its id, in any order; to MAP with descriptors {data, versions of lines, of pages}
 *   one byte, whatever it is       <->  doorbell (ring.h, G4)
 *
 * A message is one packet: door_message, then what its kind says. All sizes are fixed but for LIST and CLIENTS, whose answers hold as
 * many items as `count` says. Every message is checked against the size that its kind has; a wrong one ends the attachment.
 * The node answers within its loop, so at most DOOR_ASKS_MAX may be outstanding.
 *
 * Programs and nodes of different versions meet whenever one of them is updated. So that each can say what is wrong, these stay as
 * they are in every version: what HELLO and WELCOME have before and including `version`, and REFUSED.
 */
#ifndef WIRE_DOOR_H
#define WIRE_DOOR_H

#include "shelf.h"
#include "wire/limits.h"

#define DOOR_MAGIC 0x31524f4f44464853ull /* "SHFDOOR1" */
#ifndef DOOR_VERSION                     /* tests build programs of another version */
#define DOOR_VERSION 3u
#endif
#define DOOR_ASKS_MAX    64u
#define DOOR_ITEMS_MAX   64u
#define DOOR_MESSAGE_MAX 16384u
#define DOOR_SOCKET_NAME "sock" /* in the directory of the shelf */

enum door_kind {
    DOOR_HELLO = 1, /* door_hello */
    DOOR_WELCOME,   /* door_welcome */
    DOOR_REFUSED,   /* door_refused */
    DOOR_FIND,      /* door_ask: region by name -> door_region */
    DOOR_GET,       /* door_ask: region by number -> door_region */
    DOOR_MAP,       /* door_ask: region by number -> door_region and descriptors, if the client may read it */
    DOOR_LIST,      /* door_ask: regions from that number on -> door_regions */
    DOOR_INFO,      /* door_ask -> door_info */
    DOOR_CHECKPOINT, /* door_ask -> door_index, when it is durable */
    DOOR_CLIENTS,    /* door_ask: clients from that id on -> door_clients */
    DOOR_CLUSTER,    /* door_ask -> door_cluster */
    DOOR_FRESH,      /* door_ask -> door_index, when a linearizable read may begin in the replica */
};

struct door_message {
    uint32_t size; /* of the packet */
    uint16_t kind; /* an answer has its question's */
    uint16_t reserved;
    uint64_t id; /* chosen by the client */
};

struct door_hello {
    struct door_message message;
    uint64_t magic;
    uint32_t version; /* of ring.h and this file; the node refuses others than its own with FORMAT */
    uint32_t reserved;
    char program[32]; /* for people: the client's name for itself, printable ASCII */
};

struct door_welcome {
    struct door_message message;
    uint64_t magic;
    uint32_t version;
    uint32_t image_bytes; /* sizeof(struct image), sizeof(struct ring): of the builds, which must agree */
    uint32_t ring_bytes;
    uint32_t node_process; /* its id */
    uint64_t client;       /* the client's id with this node */
    uint8_t shelf_id[16];
    uint64_t epoch;
};

struct door_refused {
    struct door_message message;
    uint32_t result; /* shelf_result */
    char text[148];
};

struct door_ask {
    struct door_message message;
    uint64_t number; /* GET, MAP, LIST, CLIENTS */
    char name[64];   /* FIND */
};

struct door_region {
    struct door_message message;
    uint32_t result;
    uint32_t reserved;
    struct shelf_region_info info;
};

struct door_regions {
    struct door_message message;
    uint32_t count; /* of those that follow */
    uint32_t total; /* in the shelf */
    struct shelf_region_info infos[DOOR_ITEMS_MAX];
};

struct door_info {
    struct door_message message;
    struct shelf_info info;
};

struct door_cluster {
    struct door_message message;
    uint32_t result; /* NOT_FOUND: the node is alone; `info` is zero */
    uint32_t reserved;
    struct shelf_cluster_info info;
};

struct door_index {
    struct door_message message;
    uint32_t result;
    uint32_t reason;
    uint64_t index;
};

struct door_clients {
    struct door_message message;
    uint32_t count;
    uint32_t total;
    struct shelf_client_info infos[DOOR_ITEMS_MAX];
};
_Static_assert(sizeof(struct door_clients) <= DOOR_MESSAGE_MAX &&
                   sizeof(struct door_regions) <= DOOR_MESSAGE_MAX &&
                   sizeof(struct door_cluster) <= DOOR_MESSAGE_MAX,
               "one packet");

#endif
