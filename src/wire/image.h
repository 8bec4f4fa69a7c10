// SPDX-License-Identifier: Apache-2.0
/*
 * image.h: the replica of all regions in RAM, as its readers see it. One writer (the core), any number of readers, no locks.
 *
 * A line's version word is `index << 1 | being_written`. The protocol is a seqlock for each line, in C11 atomics (after
 * H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC 2012):
 *
 *   writer   version := new | 1 (relaxed); release fence; bytes (relaxed); version := new (release)   for every line,
 *            then applied := index (release)
 *   reader   v := version (acquire); bytes (relaxed); acquire fence; version again (relaxed): the same, and even
 *
 * I1  A reader that saw the same even word twice has bytes of exactly that version.
 * I2  applied == n  =>  every line's bytes and version include all records up to n.
 * I3  A line with version > applied belongs to a record that is being applied right now.
 * I4  A region's pointers never change while it exists; they stay mapped (readable) until the node is closed.
 */
#ifndef WIRE_IMAGE_H
#define WIRE_IMAGE_H

#include <stdatomic.h>
#include <stdint.h>

#include "wire/limits.h"

#define VERSION_WRITING 1u
static inline uint64_t version_index(uint64_t version) {
    return version >> 1;
}

enum region_state {
    REGION_ABSENT = 0,
    REGION_LIVE = 1,
    REGION_DROPPED = 2, /* its memory reads as zero or anything; no transaction that saw it may commit */
};

struct region_view {                  /* one cache line; written by the core, read by everybody */
    const uint8_t *data;              /* read-only alias */
    const _Atomic uint64_t *versions; /* read-only alias; a line's own word, or 0: then the floor counts */
    _Atomic uint64_t size;            /* only grows */
    _Atomic uint64_t floor;           /* index at which every line counts as changed, at least */
    _Atomic uint32_t state;           /* enum region_state */
    uint32_t reserved[7];
};
_Static_assert(sizeof(struct region_view) == LINE_SIZE, "one line");

struct image {
    _Alignas(LINE_SIZE) _Atomic uint64_t applied; /* index of the last record whose effects are all visible */
    _Alignas(LINE_SIZE) struct region_view regions[REGION_NUMBERS];
};

#endif
