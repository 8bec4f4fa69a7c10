// SPDX-License-Identifier: Apache-2.0
//
// Size classes of the allocator, for its audit and for structures that ask whether a block would be another one.

#ifndef SHELF_STRUCTURE_ALLOC_H
#define SHELF_STRUCTURE_ALLOC_H

#include "structure/space.h"

#define ALLOC_CLASSES 46u

struct class_shape {
    uint32_t size;   // of a block
    uint16_t spans;  // of a slab; 0: such sizes are whole spans
    uint16_t head;   // bytes at the slab's beginning for the bitmap; 0: it lies in the descriptor
    uint32_t blocks; // of a slab
};

// The shape of a class's slabs: in spans of 64 KiB, or in spans of 4 KiB.
const struct class_shape *alloc_class_shape(bool small, unsigned class);
unsigned alloc_shape_bitmap_words(const struct class_shape *shape); // words of its bitmap
// The shape of this slab; NULL: no slab of its class is as long.
const struct class_shape *alloc_slab_shape(const struct space *space, const struct span *slab);

// What an allocation of `size` bytes takes up.
uint64_t alloc_capacity(bool small, uint64_t size);
// Do they take up as much, in any region?
bool alloc_is_same(uint64_t size, uint64_t other_size);

#endif
