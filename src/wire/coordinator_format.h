// SPDX-License-Identifier: Apache-2.0
/*
 * coordinator_format.h: what a node remembers of its coordinator, little-endian: the value of the register file `coordinator` in the
 * node's directory (register_format.h, which has the checksum). What it is for is in core/coordinator.h.
 */
#ifndef WIRE_COORDINATOR_FORMAT_H
#define WIRE_COORDINATOR_FORMAT_H

#include <stdint.h>

#include "wire/register_format.h"

#define COORDINATOR_MEMORY_MAGIC         0x4d454d434c4853ull /* "SHLCMEM" */
#define COORDINATOR_MEMORY_FORMAT        1u
#define COORDINATOR_MEMORY_REGISTERS_MAX 32u

struct coordinator_memory_entry {
    uint32_t kind; /* of the register; 0: unused, as all that follow */
    uint32_t crc;  /* CRC32C of its value */
    uint64_t number;
    uint64_t created;
    uint64_t revision;
    uint64_t version;
};
_Static_assert(sizeof(struct coordinator_memory_entry) == 40, "format");

struct coordinator_memory {
    uint64_t magic;
    uint32_t format;
    uint32_t count; /* of the entries in use */
    uint64_t store; /* identity: etcd's cluster id; 0: not known yet */
    uint64_t revision;
    struct coordinator_memory_entry entries[COORDINATOR_MEMORY_REGISTERS_MAX];
};
_Static_assert(sizeof(struct coordinator_memory) == 1312, "format");
_Static_assert(sizeof(struct coordinator_memory) <= REGISTER_VALUE_MAX, "fits into a register");

#endif
