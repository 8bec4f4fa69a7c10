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

const struct class_shape *alloc_class_shape(unsigned class);
unsigned alloc_class_blocks(unsigned class);
unsigned alloc_class_bitmap_words(unsigned class); // words of its bitmap

// What an allocation of `size` bytes takes up.
uint64_t alloc_capacity(uint64_t size);

#endif
