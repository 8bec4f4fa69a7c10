// SPDX-License-Identifier: Apache-2.0
/*
 * configuration_format.h: the coordinator of a single machine is the file `configuration`: two slots, each of which begins
 * with this struct (little-endian). The valid one with the larger epoch counts; a new epoch overwrites the other one.
 */
#ifndef WIRE_CONFIGURATION_FORMAT_H
#define WIRE_CONFIGURATION_FORMAT_H

#include <stdint.h>

#define CONFIGURATION_MAGIC      0x464e4f43464c4853ull /* "SHLFCONF" */
#define CONFIGURATION_FORMAT     1u
#define CONFIGURATION_SLOT_SIZE  4096u
#define CONFIGURATION_SLOT_COUNT 2u
struct configuration {
    uint64_t magic;
    uint32_t crc; /* CRC32C of this struct with crc as zero */
    uint16_t format;
    uint16_t group;
    uint64_t epoch;
    uint64_t reserved[5];
};
_Static_assert(sizeof(struct configuration) == 64, "format");

#endif
