// SPDX-License-Identifier: Apache-2.0
//
// The spans of a formatted region: descriptors, free runs, growth. See space.c.

#ifndef SHELF_STRUCTURE_SPACE_H
#define SHELF_STRUCTURE_SPACE_H

#include "structure/layout.h"
#include "structure/structure.h"

#include <stdbool.h>

// A formatted region within a transaction. Valid as long as the transaction.
struct space {
    struct place place;
    uint32_t arena_count;
    uint64_t span_count;
    struct span_layout layout;
};

// INVALID: not formatted. FORMAT: by a newer version.
shelf_result space_open(shelf_tx *tx, shelf_region region, struct space *ret_space);

// Takes over what the region has grown by since; `ret_grown` tells whether that was anything.
shelf_result space_grow(struct space *space, bool *ret_grown);

static inline uint64_t span_offset(const struct space *space, uint64_t index) {
    return index << space->layout.shift;
}
static inline uint64_t span_size(const struct space *space) {
    return (uint64_t)1 << space->layout.shift;
}
// Spans that hold so many bytes.
static inline uint64_t spans_of(const struct space *space, uint64_t size) {
    return (size + span_size(space) - 1) >> space->layout.shift;
}
uint64_t span_descriptor_offset(const struct span_layout *layout, uint64_t index);
shelf_result span_read(const struct space *space, uint64_t index, struct span *ret_span);
shelf_result span_write(const struct space *space, uint64_t index, const struct span *span);
shelf_result span_clear(const struct space *space, uint64_t index); // makes it interior

// Takes `length` spans in a row; their descriptors are the caller's to write, as of now all but the first are interior.
// NO_SPACE (without a detail, as the caller has more to try): there is no such run.
shelf_result run_acquire(const struct space *space, uint64_t length, uint64_t *ret_first);
// Gives them back. All descriptors but the first must be interior.
shelf_result run_release(const struct space *space, uint64_t first, uint64_t length);

unsigned run_bin(uint64_t length);

#endif
