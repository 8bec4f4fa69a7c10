// SPDX-License-Identifier: Apache-2.0
/*
 * configuration.h: who leads a group and whose acknowledgements count, as the coordinator's register holds it (rule C1 of
 * the replication), and how a node makes itself known. Bytes of both are little-endian, begin with a magic, a checksum
 * and a version, and have exactly one spelling: what is decoded and encoded again is the same.
 */
#ifndef WIRE_CONFIGURATION_H
#define WIRE_CONFIGURATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/register_format.h"

#define CONFIGURATION_MAGIC       0x47464e43464c4853ull /* "SHLFCNFG" */
#define CONFIGURATION_FORMAT      1u
#define CONFIGURATION_MEMBERS_MAX 16u

#define NODE_RECORD_MAGIC  0x45444f4e464c4853ull /* "SHLFNODE" */
#define NODE_RECORD_FORMAT 1u
#define NODE_ADDRESS_MAX   256u /* with the NUL */

/* ---- In bytes --------------------------------------------------------------------------------------------------- */

struct configuration_header {
    uint64_t magic;
    uint32_t crc; /* CRC32C of everything, this field as zero */
    uint16_t format;
    uint16_t group;
    uint64_t epoch;
    uint64_t primary;
    uint8_t nonce[16];
    uint32_t member_count;
    uint32_t reserved[3];
    uint8_t shelf_id[16]; /* of the shelf that the group keeps: all of its nodes' directories have it */
};
_Static_assert(sizeof(struct configuration_header) == 80, "format");

struct configuration_entry { /* member_count of them follow, in order of their nodes */
    uint64_t node;
    uint8_t incarnation[16];
    uint64_t reserved;
};
_Static_assert(sizeof(struct configuration_entry) == 32, "format");

struct node_record_header { /* the address follows, without a NUL */
    uint64_t magic;
    uint32_t crc; /* as above */
    uint16_t format;
    uint16_t address_size;
    uint64_t node;
    uint8_t incarnation[16];
    uint64_t reserved[3];
};
_Static_assert(sizeof(struct node_record_header) == 64, "format");

#define CONFIGURATION_BYTES_MAX \
    (sizeof(struct configuration_header) + CONFIGURATION_MEMBERS_MAX * sizeof(struct configuration_entry))
#define NODE_RECORD_BYTES_MAX (sizeof(struct node_record_header) + NODE_ADDRESS_MAX - 1)
_Static_assert(CONFIGURATION_BYTES_MAX <= REGISTER_VALUE_MAX, "fits into a register");
_Static_assert(NODE_RECORD_BYTES_MAX <= REGISTER_VALUE_MAX, "fits into a register");

/* ---- In memory ---------------------------------------------------------------------------------------------------- */

struct configuration_member {
    uint64_t node; /* not 0 */
    uint8_t incarnation[16];
};

struct configuration {
    uint16_t group;
    uint64_t epoch;   /* from 1; 0: none is known, and it is not as it must be */
    uint64_t primary; /* a member */
    uint8_t nonce[16];
    uint32_t member_count;                                          /* 1 to CONFIGURATION_MEMBERS_MAX */
    struct configuration_member members[CONFIGURATION_MEMBERS_MAX]; /* by node, ascending, each once */
};

struct node_record {
    uint64_t node; /* not 0 */
    uint8_t incarnation[16];
    char address[NODE_ADDRESS_MAX]; /* HOST:PORT, printable, not empty */
};

/* NULL: it is as the comments above say; else what is wrong. */
const char *configuration_problem(const struct configuration *configuration);
const char *node_record_problem(const struct node_record *record);
bool configuration_equal(const struct configuration *a, const struct configuration *b);

/* Returns the size. The configuration or record is right, see above. The shelf's id is no part of what the core agrees on: it
 * never changes. */
size_t configuration_encode(const struct configuration *configuration, const uint8_t shelf_id[16],
                            uint8_t ret_bytes[CONFIGURATION_BYTES_MAX]);
size_t node_record_encode(const struct node_record *record, uint8_t ret_bytes[NODE_RECORD_BYTES_MAX]);

/* NULL: good; else what is wrong with the bytes, and the output is untouched. */
const char *configuration_decode(const void *bytes, size_t size, struct configuration *ret_configuration,
                                 uint8_t ret_shelf_id[16]);
const char *node_record_decode(const void *bytes, size_t size, struct node_record *ret_record);

#endif
