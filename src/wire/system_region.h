// SPDX-License-Identifier: Apache-2.0
/*
 * system_region.h: what region 1 holds: the catalog of regions and the table of sessions. It is written by the same log
 * and covered by the same checkpoints as everybody's data; all zero is its valid empty state.
 *
 *     offset 0          system_header
 *     offset 4096       catalog_entry x SHELF_REGIONS_MAX
 *     then              session_header x SHELF_SESSIONS_MAX
 *     then              session_result x SHELF_SESSION_WINDOW x SHELF_SESSIONS_MAX
 */
#ifndef WIRE_SYSTEM_REGION_H
#define WIRE_SYSTEM_REGION_H

#include "shelf.h"
#include "wire/limits.h"

struct system_header {
    uint64_t region_numbers_used; /* numbers given out so far, region 1 not counted: the next is 2 + this */
    uint64_t reserved[7];
};
_Static_assert(sizeof(struct system_header) == LINE_SIZE, "format");

struct catalog_entry {
    uint32_t live;   /* 0: free, 1: the region exists */
    uint32_t region; /* number */
    uint64_t size;
    uint64_t size_max;
    uint64_t created_index; /* index of the record that created it */
    uint32_t owner, group, mode;
    uint32_t reserved[5];
    char name[64]; /* at most SHELF_NAME_MAX bytes, NUL-terminated */
};
_Static_assert(sizeof(struct catalog_entry) == 2 * LINE_SIZE, "format");

enum session_outcome {
    SESSION_OUTCOME_NONE = 0,
    SESSION_OUTCOME_COMMITTED = 1,
    SESSION_OUTCOME_ABORTED = 2, /* fenced: asked for before it was seen */
};
/* Of sequence s, in slot s % SHELF_SESSION_WINDOW of its session. It counts only if its index is after the session's
 * creation: what an earlier session left in the same place does not. */
struct session_result {
    uint64_t sequence;
    uint64_t index;
    uint64_t time_ms;
    uint32_t outcome;
    uint32_t result_count;
    uint64_t results[SHELF_TX_RESULTS_MAX];
};
_Static_assert(sizeof(struct session_result) == 2 * LINE_SIZE, "format");

struct session_header {
    uint64_t id;     /* 0: free; created index << 16 | place in the table */
    uint64_t holder; /* counts the openings: an older holder is fenced */
    uint64_t created_time_ms;
    uint64_t named; /* 1: the name counts */
    uint32_t owner; /* user who opened it first; 0 in shelves that are older than this field */
    uint32_t reserved_owner;
    uint64_t reserved[3];
    char name[64];
};
_Static_assert(sizeof(struct session_header) == 2 * LINE_SIZE, "format");

#define SYSTEM_CATALOG_OFFSET 4096u
#define SYSTEM_SESSIONS_OFFSET \
    (SYSTEM_CATALOG_OFFSET + SHELF_REGIONS_MAX * (uint32_t)sizeof(struct catalog_entry))
#define SYSTEM_RESULTS_OFFSET \
    (SYSTEM_SESSIONS_OFFSET + SHELF_SESSIONS_MAX * (uint32_t)sizeof(struct session_header))
#define SYSTEM_REGION_BYTES                                                                                  \
    ((SYSTEM_RESULTS_OFFSET +                                                                                \
      (uint64_t)SHELF_SESSIONS_MAX * SHELF_SESSION_WINDOW * sizeof(struct session_result) + PAGE_SIZE - 1) / \
     PAGE_SIZE * PAGE_SIZE)

#endif
