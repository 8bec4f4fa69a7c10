// SPDX-License-Identifier: Apache-2.0
/*
 * image.h: the replica of all regions in RAM, as its readers see it. One writer (the core), any number of readers, in this
 * process and in others, no locks. `struct image` is shared memory: nothing in it depends on where a process has mapped it;
 * where a process has a region's bytes and versions is in its own `struct region_map`.
 *
 * A version word is `index << 1 | being_written`. Each line has one, and each page one for all of its lines. The protocol is
 * a seqlock for each word, in C11 atomics (after H.-J. Boehm, "Can seqlocks get along with programming language memory
 * models?", MSPC 2012):
 *
 *   writer   page's version := new | 1 (relaxed)
 *            version := new | 1 (relaxed); release fence; bytes (relaxed); version := new (release)   for every line
 *            page's version := new (release)                                                          for every page
 *            applied := index (release)
 *   reader   v := version (acquire); bytes (relaxed); acquire fence; version again (relaxed): the same, and even
 *
 * Readers use the word of the page if it is not too new for them, and that of the line if it is. Both say that the bytes
 * are right. The words of pages are there for speed: those of a GiB stay in the processor's caches, those of its lines
 * do not, and would cost a miss beside the one for the bytes.
 *
 * I1  A reader that saw the same even word of a line twice has bytes of exactly that version.
 * I2  applied == n  =>  every line's bytes and version include all records up to n.
 * I3  A line with version > applied belongs to a record that is being applied right now.
 * I4  A region's pointers never change while it exists; they stay mapped (readable) until the node is closed.
 * I5  A page's version is that of its newest line. It may go through `new` and be odd again while a record is applied
 *     that changes the page in several places; until that record is applied (I2), nobody accepts a version so new.
 * I6  After `applied` has moved to n, `event` of every region that record n changed has moved as well: a futex for those who
 *     wait for a change.
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

struct region_view {        /* one cache line; written by the core, read by everybody */
    _Atomic uint64_t size;  /* only grows */
    _Atomic uint64_t floor; /* index at which every line counts as changed, at least */
    _Atomic uint32_t state; /* enum region_state */
    _Atomic uint32_t event; /* I6 */
    uint32_t reserved[10];
};
_Static_assert(sizeof(struct region_view) == LINE_SIZE, "one line");

struct image {
    _Alignas(LINE_SIZE) _Atomic uint64_t applied; /* index of the last record whose effects are all visible */
    /* Under which the image was opened. A node that has lost its last record gives that one's index to another, so what was
     * read in an image is named by this and the index. */
    _Alignas(LINE_SIZE) _Atomic uint64_t epoch;
    /* Of a node of a cluster: when what is here was last known to be all that is committed, or to come, in milliseconds of
     * CLOCK_MONOTONIC. 0: a lone node's, which always is. */
    _Atomic uint64_t contact_ms;
    _Alignas(LINE_SIZE) struct region_view regions[REGION_NUMBERS];
};

/* A region is so many memfds: its bytes, the versions of its lines, those of its pages. */
#define REGION_FILES 3

/* Where this process reads a region. In the node's process it is there before the region's state becomes REGION_LIVE;
 * elsewhere once the process has asked for the region: `data` is stored last, with release. */
struct region_map {
    const uint8_t *_Atomic data;           /* NULL: not mapped here */
    const _Atomic uint64_t *versions;      /* a line's own word, or 0: then the floor counts */
    const _Atomic uint64_t *page_versions; /* likewise, of pages */
};

/* An image as one process sees it. */
struct replica {
    const struct image *image;
    const struct region_map *maps; /* one for each of REGION_NUMBERS */
    /* Not 0: no other replica in the life of this process has or had this number. */
    uint64_t id;
};

#endif
