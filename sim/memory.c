// SPDX-License-Identifier: Apache-2.0
//
// See memory.h.

#include "memory.h"

#include <sys/mman.h>

#include "base/assert.h"
#include "base/bits.h"
#include "report.h"
#include "wire/limits.h"

void *pages_take(size_t size) {
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(memory != MAP_FAILED);
    return memory;
}

void pages_give(void *memory, size_t size) {
    int result = munmap(memory, size);
    ASSERT(result == 0);
}

static void map_make(struct map *map, uint64_t size_max) {
    uint64_t pages = divide_up(size_max, PAGE_SIZE);
    uint64_t blocks = divide_up(pages, TABLE_BLOCK_PAGES);
    *map = (struct map){.size_max = size_max,
                        .data_bytes = size_max,
                        .version_bytes = size_max / LINE_SIZE * sizeof(uint64_t),
                        .page_version_bytes = pages * sizeof(uint64_t),
                        .page_bytes = blocks * TABLE_BLOCK_PAGES * sizeof(struct page_entry),
                        .block_bytes = blocks * sizeof(struct block_entry),
                        .bit_bytes = divide_up(pages, 64) * sizeof(uint64_t)};
    map->memory.data = pages_take(map->data_bytes);
    map->memory.versions = pages_take(map->version_bytes);
    map->memory.page_versions = pages_take(map->page_version_bytes);
    map->memory.data_view = map->memory.data;
    map->memory.versions_view = map->memory.versions;
    map->memory.page_versions_view = map->memory.page_versions;
    map->memory.pages = pages_take(map->page_bytes);
    map->memory.blocks = pages_take(map->block_bytes);
    for (size_t i = 0; i < ARRAY_COUNT(map->memory.bits); i++) {
        map->memory.bits[i] = pages_take(map->bit_bytes);
    }
}

void map_free(struct map *map) {
    if (!map->memory.data) {
        return;
    }
    pages_give(map->memory.data, map->data_bytes);
    pages_give(map->memory.versions, map->version_bytes);
    pages_give(map->memory.page_versions, map->page_version_bytes);
    pages_give(map->memory.pages, map->page_bytes);
    pages_give(map->memory.blocks, map->block_bytes);
    for (size_t i = 0; i < ARRAY_COUNT(map->memory.bits); i++) {
        pages_give(map->memory.bits[i], map->bit_bytes);
    }
    *map = (struct map){0};
}

void map_io(struct map *maps, uint32_t count, struct io *io) {
    SIM_CHECK(io->file.region < count && io->size <= io->size_max, "memory for region %u of %llu bytes",
              io->file.region, (unsigned long long)io->size);
    struct map *map = &maps[io->file.region];
    if (!map->memory.data) {
        map_make(map, io->size_max);
    }
    SIM_CHECK(map->size_max == io->size_max && map->size <= io->size,
              "region %u is mapped anew with other sizes", io->file.region);
    map->size = io->size;
    io->memory = map->memory;
}
