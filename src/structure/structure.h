// SPDX-License-Identifier: Apache-2.0
//
// What the structures share: short forms of reads and writes within one region, and of refusals.
//
// Rules of the whole directory:
//   - Nothing but the calls of shelf.h, and in the map's lookups client/tx_inline.h, which is shelf_read() in pieces: no
//     globals, threads, clocks or memory of the heap. The same code runs in programs, in the node and in the simulator.
//   - Everything read from a region is checked before it is used; what does not fit is CORRUPT and a detail.
//   - An operation that returns NO_SPACE or NOT_FOUND has left the structure as it was, the transaction may go on and
//     commit. After any other failure the transaction is to be aborted.

#ifndef SHELF_STRUCTURE_STRUCTURE_H
#define SHELF_STRUCTURE_STRUCTURE_H

#include "base/detail.h"
#include "shelf.h"

#define TRY(call)                                          \
    do {                                                   \
        shelf_result try_result = (call);                  \
        if (__builtin_expect(try_result != SHELF_OK, 0)) { \
            return try_result;                             \
        }                                                  \
    } while (0)

// For the few functions that a get of the map consists of: a call would cost more than what they do.
#define INLINE static inline __attribute__((always_inline))

// The result `name` of SHELF_name, with a detail like printf.
#define REFUSE(name, ...) (detail_set(__VA_ARGS__), SHELF_##name)

// A region within a transaction.
struct place {
    shelf_tx *tx;
    shelf_region region;
};

INLINE shelf_result place_read(struct place place, uint64_t offset, void *to, size_t size) {
    return shelf_read(place.tx, shelf_addr_make(place.region, offset), to, size);
}

// What a failed read of a stored link means: one that leads out of the region is damage, not an error of the program.
shelf_result link_refuse(struct place place, shelf_result result, uint64_t offset, size_t size);

// Reads what a stored offset points to.
INLINE shelf_result link_read(struct place place, uint64_t offset, void *to, size_t size) {
    shelf_result result = place_read(place, offset, to, size);
    return __builtin_expect(result == SHELF_OK, 1) ? result : link_refuse(place, result, offset, size);
}

static inline shelf_result place_write(struct place place, uint64_t offset, const void *from, size_t size) {
    return shelf_write(place.tx, shelf_addr_make(place.region, offset), from, size);
}

#endif
