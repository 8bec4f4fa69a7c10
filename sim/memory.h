// SPDX-License-Identifier: Apache-2.0
//
// Memory of simulated nodes and of their regions.

#ifndef SIM_MEMORY_H
#define SIM_MEMORY_H

#include "core/io.h"

struct map { // memory of a region
    struct region_memory memory;
    size_t data_bytes, version_bytes, page_version_bytes, page_bytes, block_bytes, bit_bytes;
    uint64_t size, size_max;
};

// Zero, and taken only where it is touched.
void *pages_take(size_t size);
void pages_give(void *memory, size_t size);
void map_free(struct map *map);
// IO_MAP, with room for `count` regions.
void map_io(struct map *maps, uint32_t count, struct io *io);

#endif
