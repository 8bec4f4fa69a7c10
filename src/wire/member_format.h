// SPDX-License-Identifier: Apache-2.0
/*
 * member_format.h: what a node of a cluster keeps in its directory beside the shelf, little-endian: values of register files
 * (register_format.h, which has the checksum).
 *
 *     member       member_record: which node this is, of which cluster
 *     peers        text: where the others were last, a line each: NODE ADDRESS
 *     member.lock  empty; locked (flock) by the process that is the node
 *
 * An incarnation is a life of the directory: one that was emptied is another incarnation (rule D2 of the replication), since
 * the node has forgotten what it promised and acknowledged. That is why `born` is durable before the node says anything
 * to others: a directory that says so and has no shelf was emptied.
 */
#ifndef WIRE_MEMBER_FORMAT_H
#define WIRE_MEMBER_FORMAT_H

#include <stdint.h>

#include "wire/register_format.h"

#define MEMBER_FILE_NAME  "member"
#define MEMBER_LOCK_NAME  "member.lock"
#define MEMBER_PEERS_NAME "peers"

#define MEMBER_MAGIC       0x424d454d4c4853ull /* "SHLMEMB" */
#define MEMBER_FORMAT      1u
#define MEMBER_CLUSTER_MAX 64u /* of the cluster's name, with the NUL */

enum member_state {
    MEMBER_NEW = 1, /* node and incarnation are chosen; the shelf's id is a proposal */
    MEMBER_JOINED,  /* the shelf's id is the cluster's */
    MEMBER_BORN,    /* the shelf has been made here */
};

struct member_record {
    uint64_t magic;
    uint32_t format;
    uint32_t state; /* enum member_state */
    uint64_t node;
    uint8_t incarnation[16];
    uint8_t shelf_id[16];
    char cluster[MEMBER_CLUSTER_MAX];
    uint64_t reserved[4];
};
_Static_assert(sizeof(struct member_record) == 152, "format");
_Static_assert(sizeof(struct member_record) <= REGISTER_VALUE_MAX, "fits into a register");

#endif
