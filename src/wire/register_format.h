// SPDX-License-Identifier: Apache-2.0
/*
 * register_format.h: a register in a file: two slots of 4096 bytes, each of which begins with this struct (little-endian) and
 * goes on with the value. The valid one with the larger revision counts; a new revision overwrites the other one.
 *
 * The file `configuration` of a shelf on one machine is such a file of format 1: no value, and the revision is the epoch. One
 * of format 2 has a value; the first change from 1 to 2 overwrites both slots, so that no older program takes
 * what is left of format 1 for the present.
 */
#ifndef WIRE_REGISTER_FORMAT_H
#define WIRE_REGISTER_FORMAT_H

#include <stdint.h>

#define REGISTER_VALUE_MAX 2048u /* bytes, in files as in etcd */

#define REGISTER_MAGIC      0x464e4f43464c4853ull /* "SHLFCONF" */
#define REGISTER_FORMAT     1u                    /* without a value */
#define REGISTER_FORMAT_2   2u                    /* with one, or removed */
#define REGISTER_SLOT_SIZE  4096u
#define REGISTER_SLOT_COUNT 2u

#define REGISTER_FLAG_REMOVED 1u /* there is no register; the revision goes on from here */

struct register_slot {
    uint64_t magic;
    uint32_t crc; /* CRC32C of this struct with crc as zero, and of the value */
    uint16_t format;
    uint16_t group;
    uint64_t revision;
    uint32_t value_size; /* format 1: 0 */
    uint32_t flags;      /* format 1: 0 */
    uint64_t reserved[4];
};
_Static_assert(sizeof(struct register_slot) == 64, "format");
_Static_assert(sizeof(struct register_slot) + REGISTER_VALUE_MAX <= REGISTER_SLOT_SIZE, "format");

#endif
