// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux_memory.c: memory of regions: bytes and versions under two addresses each, and private tables.
 *
 * All shared bytes are in one memfd of 2^57 bytes, of which a region has the stretch that its number gives, so that the
 * number of descriptors does not grow with the regions. Nothing of it exists before it is touched, and only what lies
 * within a region's size is ever mapped. (Its length is set once, at the open, and never again.)
 *
 * Each region has one stretch of address space, reserved for size_max, laid out so:
 *
 *     data, the core's | data, the readers' | versions, the core's | versions, the readers' | pages | blocks | bits 0..2
 *
 *   M1  Pointers stay as they are from the first IO_MAP to world_close(), whatever grows.
 *   M2  What readers could once read stays readable, also after IO_UNMAP and when the stretch has a new region: the
 *       remainder then shows zeros.
 *   M3  Only the core's alias can be written, and a child made by fork() does not have it.
 *   M4  A region's bytes begin as zero: region numbers, and so stretches of the memfd, are never used again; tables are
 *       given back to the system in between.
 *
 * Huge pages: advised, but most systems give none to shared memory by default. Turning pages that are there into a huge one
 * (MADV_COLLAPSE) is allowed everywhere since Linux 6.1. It is done for blocks of 2 MiB that are mostly in use, now and
 * then, and for those that recovery is about to fill.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bits.h"
#include "world/world_linux.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* newer than the C library of some systems that have it */
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define HUGE_PAGE     ((uint64_t)2 << 20)
#define STRETCH_SHIFT 41u /* of one region in the memfd: bytes from 0, versions from VERSIONS_FROM */
#define VERSIONS_FROM SHELF_REGION_BYTES_MAX
_Static_assert(VERSIONS_FROM + VERSIONS_FROM / 8 <= (uint64_t)1 << STRETCH_SHIFT, "both fit");

/* ---- Layout ------------------------------------------------------------------------------------------------------- */

enum part {
    PART_DATA,
    PART_DATA_VIEW,
    PART_VERSIONS,
    PART_VERSIONS_VIEW,
    PART_PAGES,
    PART_BLOCKS,
    PART_BITS
};
#define PART_COUNT (PART_BITS + 3u)

static uint64_t part_size(uint32_t part, uint64_t region_size) {
    uint64_t pages = divide_up(region_size, PAGE_SIZE);
    switch (part) {
    case PART_DATA:
    case PART_DATA_VIEW:
        return pages * PAGE_SIZE;
    case PART_VERSIONS:
    case PART_VERSIONS_VIEW:
        return align_up(pages * LINES_PER_PAGE * sizeof(uint64_t), PAGE_SIZE);
    case PART_PAGES:
        return align_up(pages * sizeof(struct page_entry), PAGE_SIZE);
    case PART_BLOCKS:
        return align_up(divide_up(pages, TABLE_BLOCK_PAGES) * sizeof(struct block_entry), PAGE_SIZE);
    default:
        return align_up(divide_up(pages, 64) * sizeof(uint64_t), PAGE_SIZE);
    }
}

static bool part_is_shared(uint32_t part) {
    return part <= PART_VERSIONS_VIEW;
}

static bool part_is_view(uint32_t part) {
    return part == PART_DATA_VIEW || part == PART_VERSIONS_VIEW;
}

static uint64_t part_offset(uint32_t part, uint64_t size_max) {
    uint64_t offset = 0;
    for (uint32_t i = 0; i < part; i++) {
        offset += align_up(part_size(i, size_max), part_is_shared(i) ? HUGE_PAGE : PAGE_SIZE);
    }
    return offset;
}

static uint64_t file_offset(uint32_t region, uint32_t part) {
    bool versions = part == PART_VERSIONS || part == PART_VERSIONS_VIEW;
    return ((uint64_t)region << STRETCH_SHIFT) + (versions ? VERSIONS_FROM : 0);
}

/* ---- Mapping ------------------------------------------------------------------------------------------------------ */

/* Address space without memory, aligned for huge pages. */
static uint8_t *space_take(uint64_t size) {
    uint8_t *space =
        mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) {
        return NULL;
    }
    uint64_t before = align_up((uint64_t)(uintptr_t)space, HUGE_PAGE) - (uint64_t)(uintptr_t)space;
    if (before > 0) {
        (void)munmap(space, before);
    }
    if (before < HUGE_PAGE) {
        (void)munmap(space + before + size, HUGE_PAGE - before);
    }
    return space + before;
}

static uint8_t *part_base(const struct memory_slot *slot, uint32_t part) {
    return slot->memory.data + part_offset(part, slot->size_max);
}

/* Maps a part from one size of the region up to another. */
static bool part_grow(struct world *world, struct memory_slot *slot, uint32_t part, uint64_t size) {
    uint64_t from = part_size(part, slot->size);
    uint64_t to = part_size(part, size);
    uint8_t *base = part_base(slot, part);
    if (from == to) {
        return true;
    }
    if (!part_is_shared(part)) {
        return mprotect(base + from, to - from, PROT_READ | PROT_WRITE) == 0 &&
               madvise(base + from, to - from, MADV_DONTFORK) == 0;
    }
    if (part_is_view(part) && world->alias_single) {
        return true;
    }
    int protection = part_is_view(part) ? PROT_READ : PROT_READ | PROT_WRITE;
    void *mapped = mmap(base + from, to - from, protection, MAP_SHARED | MAP_FIXED, world->fd_memory,
                        (off_t)(file_offset(slot->region, part) + from));
    if (mapped == MAP_FAILED) {
        return false;
    }
    (void)madvise(base, to, MADV_HUGEPAGE); /* only advice: not every kernel has it for shared memory */
    return part_is_view(part) || world->alias_single || madvise(base, to, MADV_DONTFORK) == 0; /* M3 */
}

static bool slot_grow(struct world *world, struct memory_slot *slot, uint64_t size) {
    for (uint32_t part = 0; part < PART_COUNT; part++) {
        if (!part_grow(world, slot, part, size)) {
            return false;
        }
    }
    slot->size = size;
    return true;
}

/* M2: what readers of earlier regions may still look at. */
static bool slot_cover(struct world *world, struct memory_slot *slot) {
    for (uint32_t part = 0; part <= PART_VERSIONS_VIEW; part++) {
        uint64_t size = part_size(part, slot->size_before);
        bool readers = part_is_view(part) != world->alias_single;
        if (size > 0 && mmap(part_base(slot, part), size, readers ? PROT_READ : PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
            return false;
        }
    }
    return true;
}

static struct memory_slot *slot_find(struct list *slots, uint32_t region) {
    LIST_FOREACH(link, slots) {
        struct memory_slot *slot = LIST_ENTRY(link, struct memory_slot, link);
        if (slot->region == region) {
            return slot;
        }
    }
    return NULL;
}

/* The smallest free stretch that is large enough; a much larger one is left for those who need it. */
static struct memory_slot *slot_reuse(struct world *world, uint64_t size_max) {
    struct memory_slot *best = NULL;
    LIST_FOREACH(link, &world->memory_free) {
        struct memory_slot *slot = LIST_ENTRY(link, struct memory_slot, link);
        if (slot->size_max >= size_max && (!best || slot->size_max < best->size_max)) {
            best = slot;
        }
    }
    if (best && !slot_cover(world, best)) {
        return NULL;
    }
    return best;
}

static size_t huge_words(uint64_t size_max) {
    return (part_size(PART_DATA, size_max) + part_size(PART_VERSIONS, size_max)) / HUGE_PAGE / 64 + 1;
}

static struct memory_slot *slot_make(struct world *world, uint64_t size_max) {
    struct memory_slot *slot = calloc(1, sizeof(*slot));
    if (!slot) {
        return NULL;
    }
    slot->size_max = size_max;
    slot->huge_tried = calloc(huge_words(size_max), sizeof(uint64_t));
    uint8_t *space = slot->huge_tried ? space_take(part_offset(PART_COUNT, size_max)) : NULL;
    if (!space) {
        free(slot->huge_tried);
        free(slot);
        return NULL;
    }
    struct region_memory *memory = &slot->memory;
    memory->data = space; /* part_base() counts from here */
    memory->versions = (_Atomic uint64_t *)(void *)part_base(slot, PART_VERSIONS);
    memory->data_view = world->alias_single ? space : part_base(slot, PART_DATA_VIEW);
    memory->versions_view = world->alias_single
                                ? memory->versions
                                : (const _Atomic uint64_t *)(const void *)part_base(slot, PART_VERSIONS_VIEW);
    memory->pages = (struct page_entry *)(void *)part_base(slot, PART_PAGES);
    memory->blocks = (struct block_entry *)(void *)part_base(slot, PART_BLOCKS);
    for (uint32_t i = 0; i < 3; i++) {
        memory->bits[i] = (uint64_t *)(void *)part_base(slot, PART_BITS + i);
    }
    list_init(&slot->link);
    return slot;
}

/* ---- Huge pages --------------------------------------------------------------------------------------------------- */

enum {
    HUGE_FAILURES_MAX = 8, /* in a row: this system does not do it */
    HUGE_PAGES_MIN = 384,  /* of the 512 pages of a block that must be in use */
    SETTLE_BLOCKS = 64,    /* looked at by one world_memory_settle() */
};
#define PREPARE_BLOCKS 4u                    /* in one read */
#define PREPARE_BYTES  ((uint64_t)512 << 10) /* smaller reads are of sparse pages, and not worth 2 MiB */

static uint64_t blocks_of(uint32_t part, uint64_t region_size) {
    return part_size(part, region_size) / HUGE_PAGE; /* whole ones */
}

static bool bit_take(uint64_t *bits, uint64_t place) {
    uint64_t mask = (uint64_t)1 << (place & 63);
    bool was = (bits[place >> 6] & mask) != 0;
    bits[place >> 6] |= mask;
    return !was;
}

/* EINVAL says as well that there is nothing in the block. */
static void block_collapse(struct world *world, uint8_t *block) {
    if (madvise(block, HUGE_PAGE, MADV_COLLAPSE) == 0) {
        world->huge_failures = 0;
    } else {
        world->huge_failures++;
    }
}

/* Of the data and the versions of a region, by number from 0. NULL: past the last. */
static uint8_t *block_at(const struct memory_slot *slot, uint64_t number, uint64_t *ret_bit) {
    uint64_t data_count = blocks_of(PART_DATA, slot->size), data_max = blocks_of(PART_DATA, slot->size_max);
    if (number < data_count) {
        *ret_bit = number;
        return part_base(slot, PART_DATA) + number * HUGE_PAGE;
    }
    number -= data_count;
    *ret_bit = data_max + number;
    return number < blocks_of(PART_VERSIONS, slot->size) ? part_base(slot, PART_VERSIONS) + number * HUGE_PAGE
                                                         : NULL;
}

static bool block_is_full(uint8_t *block) {
    unsigned char resident[HUGE_PAGE / PAGE_SIZE];
    if (mincore(block, HUGE_PAGE, resident) != 0) {
        return false;
    }
    uint32_t count = 0;
    for (size_t i = 0; i < sizeof(resident); i++) {
        count += resident[i] & 1u;
    }
    return count >= HUGE_PAGES_MIN;
}

/* The region of the cursor, or else the one with the next larger number, or else none: then it starts over. */
static struct memory_slot *settle_slot(struct world *world) {
    struct memory_slot *next = NULL;
    LIST_FOREACH(link, &world->memory_used) {
        struct memory_slot *slot = LIST_ENTRY(link, struct memory_slot, link);
        if (slot->region >= world->settle_region && (!next || slot->region < next->region)) {
            next = slot;
        }
    }
    if (!next || next->region != world->settle_region) {
        world->settle_block = 0;
    }
    world->settle_region = next ? next->region : 0;
    return next;
}

bool world_memory_settle(struct world *world) {
    bool found = false;
    (void)pthread_mutex_lock(&world->memory_lock);
    struct memory_slot *slot = settle_slot(world);
    for (uint32_t i = 0; slot && !found && i < SETTLE_BLOCKS && world->huge_failures < HUGE_FAILURES_MAX;
         i++) {
        uint64_t bit;
        uint8_t *block = block_at(slot, world->settle_block++, &bit);
        if (!block) {
            world->settle_region++;
            slot = settle_slot(world);
        } else if ((slot->huge_tried[bit >> 6] >> (bit & 63) & 1) == 0 && block_is_full(block)) {
            (void)bit_take(slot->huge_tried, bit);
            block_collapse(world, block);
            found = true;
        }
    }
    (void)pthread_mutex_unlock(&world->memory_lock);
    return found;
}

/* The blocks of a region's data that the buffer touches, and nobody has tried: marked as tried. */
static uint32_t blocks_take(struct world *world, const void *buffer, uint64_t size,
                            uint8_t *ret_blocks[PREPARE_BLOCKS]) {
    uint32_t count = 0;
    (void)pthread_mutex_lock(&world->memory_lock);
    LIST_FOREACH(link, &world->memory_used) {
        struct memory_slot *slot = LIST_ENTRY(link, struct memory_slot, link);
        uint64_t offset = (uint64_t)((uintptr_t)buffer - (uintptr_t)slot->memory.data);
        if (!range_within(offset, size, slot->size)) {
            continue;
        }
        uint64_t end = min_u64(divide_up(offset + size, HUGE_PAGE), blocks_of(PART_DATA, slot->size));
        for (uint64_t number = offset / HUGE_PAGE; number < end && count < PREPARE_BLOCKS; number++) {
            if (bit_take(slot->huge_tried, number)) {
                ret_blocks[count++] = slot->memory.data + number * HUGE_PAGE;
            }
        }
        break;
    }
    (void)pthread_mutex_unlock(&world->memory_lock);
    return count;
}

void memory_prepare(struct world *world, const void *buffer, uint64_t size) {
    if (size < PREPARE_BYTES || world->huge_failures >= HUGE_FAILURES_MAX) {
        return;
    }
    uint8_t *blocks[PREPARE_BLOCKS];
    uint32_t count = blocks_take(world, buffer, size, blocks);
    for (uint32_t i = 0; i < count; i++) { /* without the lock: this is most of the work of recovery */
        /* There must be something to begin with. (Not by a load: another thread may be reading a file into the block.) */
        (void)madvise(blocks[i], PAGE_SIZE, MADV_POPULATE_READ);
        block_collapse(world, blocks[i]);
    }
}

/* ---- Ios ---------------------------------------------------------------------------------------------------------- */

static uint32_t region_map(struct world *world, struct io *io) {
    struct memory_slot *slot = slot_find(&world->memory_used, io->file.region);
    if (!slot) {
        slot = slot_reuse(world, io->size_max);
        if (!slot) {
            slot = slot_make(world, io->size_max);
        }
        if (!slot) {
            return IO_RESULT_NO_MEMORY;
        }
        list_unlink(&slot->link);
        list_push_front(&world->memory_used, &slot->link);
        slot->region = io->file.region;
        slot->size = 0;
        memset(slot->huge_tried, 0, huge_words(slot->size_max) * sizeof(uint64_t));
    }
    ASSERT(io->size <= slot->size_max && io->file.region < REGION_NUMBERS);
    if (io->size > slot->size && !slot_grow(world, slot, io->size)) {
        return IO_RESULT_NO_MEMORY;
    }
    io->memory = slot->memory;
    return IO_RESULT_OK;
}

/* Gives pages back; what cannot be given back merely stays until the end. */
static void region_unmap(struct world *world, struct io *io) {
    struct memory_slot *slot = slot_find(&world->memory_used, io->file.region);
    if (!slot) {
        return;
    }
    for (uint32_t part = 0; part < PART_COUNT; part++) {
        uint64_t size = part_size(part, slot->size);
        if (part_is_shared(part) && !part_is_view(part)) {
            (void)fallocate(world->fd_memory, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            (off_t)file_offset(slot->region, part), (off_t)size);
        } else if (!part_is_shared(part)) {
            (void)madvise(part_base(slot, part), size, MADV_DONTNEED); /* M4 */
        }
    }
    slot->size_before = max_u64(slot->size_before, slot->size);
    list_unlink(&slot->link);
    list_push_front(&world->memory_free, &slot->link);
}

void memory_run(struct world *world, struct io *io) {
    io->result = IO_RESULT_OK;
    (void)pthread_mutex_lock(&world->memory_lock);
    if (io->kind == IO_MAP) {
        io->result = region_map(world, io);
    } else {
        region_unmap(world, io);
    }
    (void)pthread_mutex_unlock(&world->memory_lock);
}

/* ---- Open and close ----------------------------------------------------------------------------------------------- */

bool memory_open(struct world *world, char ret_text[WORLD_TEXT_MAX]) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        (void)snprintf(ret_text, WORLD_TEXT_MAX,
                       "this process has a limit on the size of files, which also counts for memory; lift it "
                       "(ulimit -f)");
        return false;
    }
    world->fd_memory = memfd_create("shelf", MFD_CLOEXEC);
    if (world->fd_memory < 0 ||
        ftruncate(world->fd_memory, (off_t)((uint64_t)REGION_NUMBERS << STRETCH_SHIFT)) != 0) {
        (void)snprintf(ret_text, WORLD_TEXT_MAX, "the system refuses shared memory: %s", strerror(errno));
        return false;
    }
    return true;
}

static void slots_free(struct list *slots) {
    LIST_FOREACH(link, slots) {
        struct memory_slot *slot = LIST_ENTRY(link, struct memory_slot, link);
        (void)munmap(slot->memory.data, part_offset(PART_COUNT, slot->size_max));
        free(slot->huge_tried);
        free(slot);
    }
    list_init(slots);
}

void memory_close(struct world *world) {
    slots_free(&world->memory_used);
    slots_free(&world->memory_free);
    if (world->fd_memory >= 0) {
        (void)close(world->fd_memory);
    }
}
