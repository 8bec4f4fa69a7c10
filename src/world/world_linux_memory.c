// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux_memory.c: memory of regions: bytes and versions under two addresses each, and private tables.
 *
 * Each region has three memfds, for its bytes and for the versions of lines and of pages, as long as the region is now: whoever else maps them can
 * make no page exist that does not belong to it. They are mapped up to size_max at once, so that growing is nothing but a
 * longer file, for every process that has mapped it. Their seals: they never get shorter (reading them never fails), and nobody
 * can map or write them any more but through the mapping that was there before (M3). The image's header has a memfd of the
 * same kind. Other processes are handed descriptors that can only be read.
 *
 * Each region has one stretch of address space, reserved for size_max, laid out so:
 *
 *     data, the core's | data, the readers' | versions, the core's | versions, the readers' |
 *     versions of pages, the core's | versions of pages, the readers' | pages | blocks | bits 0..2
 *
 *   M1  Pointers stay as they are from the first IO_MAP to world_close(), whatever grows.
 *   M2  What readers could once read stays readable, also after IO_UNMAP and when the stretch has a new region: the
 *       remainder then shows zeros.
 *   M3  Only the core's alias can be written, and a child made by fork() does not have it.
 *   M4  A region's bytes begin as zero: each has memfds of its own; tables are given back to the system in between.
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
#include <sys/stat.h>
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

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define HUGE_PAGE ((uint64_t)2 << 20)

/* ---- Layout ------------------------------------------------------------------------------------------------------- */

enum part {
    PART_DATA,
    PART_DATA_VIEW,
    PART_VERSIONS,
    PART_VERSIONS_VIEW,
    PART_PAGE_VERSIONS,
    PART_PAGE_VERSIONS_VIEW,
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
    case PART_PAGE_VERSIONS:
    case PART_PAGE_VERSIONS_VIEW:
        return align_up(pages * sizeof(uint64_t), PAGE_SIZE);
    case PART_PAGES:
        return align_up(pages * sizeof(struct page_entry), PAGE_SIZE);
    case PART_BLOCKS:
        return align_up(divide_up(pages, TABLE_BLOCK_PAGES) * sizeof(struct block_entry), PAGE_SIZE);
    default:
        return align_up(divide_up(pages, 64) * sizeof(uint64_t), PAGE_SIZE);
    }
}

/* Whole blocks of a huge page's size. */
static uint64_t blocks_of(uint32_t part, uint64_t region_size) {
    return part_size(part, region_size) / HUGE_PAGE;
}

static bool part_is_shared(uint32_t part) {
    return part <= PART_PAGE_VERSIONS_VIEW;
}

static bool part_is_view(uint32_t part) {
    return part == PART_DATA_VIEW || part == PART_VERSIONS_VIEW || part == PART_PAGE_VERSIONS_VIEW;
}

static uint64_t part_offset(uint32_t part, uint64_t size_max) {
    uint64_t offset = 0;
    for (uint32_t i = 0; i < part; i++) {
        offset += align_up(part_size(i, size_max), part_is_shared(i) ? HUGE_PAGE : PAGE_SIZE);
    }
    return offset;
}

/* ---- Memfds ------------------------------------------------------------------------------------------------------- */

/* The mode keeps other users from opening it anew through /proc, other than as they were given it. */
static int memfd_make(const char *name) {
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && fchmod(fd, 0400) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* Once it is mapped for the core. */
static bool memfd_seal(int fd) {
    return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0;
}

/* Both aliases of `size_max` bytes of the memfd, at fixed places. */
static bool memfd_map(const struct world *world, int fd, void *core, void *view, uint64_t size_max) {
    int flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
    if (mmap(core, size_max, PROT_READ | PROT_WRITE, flags, fd, 0) == MAP_FAILED) {
        return false;
    }
    (void)madvise(core, size_max, MADV_HUGEPAGE); /* only advice: not every kernel has it for shared memory */
    if (world->alias_single) {
        return memfd_seal(fd);
    }
    if (madvise(core, size_max, MADV_DONTFORK) != 0 /* M3 */ ||
        mmap(view, size_max, PROT_READ, flags, fd, 0) == MAP_FAILED) {
        return false;
    }
    (void)madvise(view, size_max, MADV_HUGEPAGE);
    return memfd_seal(fd);
}

/* A descriptor for others, who can only read. -1: errno. */
static int memfd_share(int fd) {
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC);
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

/* Makes a part as long as a larger size of the region asks for. */
static bool part_grow(struct memory_slot *slot, uint32_t part, uint64_t size) {
    uint64_t from = part_size(part, slot->size);
    uint64_t to = part_size(part, size);
    uint8_t *base = part_base(slot, part);
    if (from == to || part_is_view(part)) {
        return true;
    }
    if (part_is_shared(part)) { /* M2: nothing that was ever readable here may be past the end */
        return ftruncate(slot->fds[part / 2], (off_t)max_u64(to, part_size(part, slot->size_before))) == 0;
    }
    return mprotect(base + from, to - from, PROT_READ | PROT_WRITE) == 0 &&
           madvise(base + from, to - from, MADV_DONTFORK) == 0;
}

static bool slot_grow(struct memory_slot *slot, uint64_t size) {
    for (uint32_t part = 0; part < PART_COUNT; part++) {
        if (!part_grow(slot, part, size)) {
            return false;
        }
    }
    slot->size = size;
    return true;
}

static void slot_files_close(struct memory_slot *slot) {
    for (uint32_t i = 0; i < REGION_FILES; i++) {
        if (slot->fds[i] >= 0) {
            (void)close(slot->fds[i]);
        }
        slot->fds[i] = -1;
    }
}

/* A memfd for each shared part; its view is the part after it. */
static bool slot_files_make(struct world *world, struct memory_slot *slot) {
    static const char *const names[REGION_FILES] = {"shelf-data", "shelf-versions", "shelf-page-versions"};
    for (uint32_t i = 0; i < REGION_FILES; i++) {
        slot->fds[i] = memfd_make(names[i]);
        bool few = slot->fds[i] >= 0 && atomic_load(&world->serves) && world_descriptors_short(slot->fds[i]);
        if (slot->fds[i] < 0 || few ||
            !memfd_map(world, slot->fds[i], part_base(slot, 2 * i), part_base(slot, 2 * i + 1),
                       part_size(2 * i, slot->size_max))) {
            return false;
        }
    }
    return true;
}

/* M2: zeros for readers of the region that was here; its memory goes once nobody else has it mapped. */
static void slot_cover(const struct world *world, struct memory_slot *slot) {
    for (uint32_t part = 0; part_is_shared(part); part++) {
        bool readers = part_is_view(part) != world->alias_single;
        (void)mmap(part_base(slot, part), part_size(part, slot->size_max), readers ? PROT_READ : PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    }
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
static struct memory_slot *slot_reuse(const struct world *world, uint64_t size_max) {
    struct memory_slot *best = NULL;
    LIST_FOREACH(link, &world->memory_free) {
        struct memory_slot *slot = LIST_ENTRY(link, struct memory_slot, link);
        if (slot->size_max >= size_max && (!best || slot->size_max < best->size_max)) {
            best = slot;
        }
    }
    return best;
}

static size_t huge_words(uint64_t size_max) {
    return (blocks_of(PART_DATA, size_max) + blocks_of(PART_VERSIONS, size_max) +
            blocks_of(PART_PAGE_VERSIONS, size_max)) /
               64 +
           1;
}

static struct memory_slot *slot_make(struct world *world, uint64_t size_max) {
    struct memory_slot *slot = calloc(1, sizeof(*slot));
    if (!slot) {
        return NULL;
    }
    slot->size_max = size_max;
    for (uint32_t i = 0; i < REGION_FILES; i++) {
        slot->fds[i] = -1;
    }
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
    memory->page_versions = (_Atomic uint64_t *)(void *)part_base(slot, PART_PAGE_VERSIONS);
    uint32_t view = world->alias_single ? 0 : 1; /* each view follows the part that it shows */
    memory->data_view = part_base(slot, PART_DATA + view);
    memory->versions_view = (const _Atomic uint64_t *)(const void *)part_base(slot, PART_VERSIONS + view);
    memory->page_versions_view =
        (const _Atomic uint64_t *)(const void *)part_base(slot, PART_PAGE_VERSIONS + view);
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
#define PREPARE_BYTES_MIN ((uint64_t)512 << 10) /* smaller reads are of sparse pages, and not worth 2 MiB */

static bool bit_take(uint64_t *bits, uint64_t place) {
    uint64_t mask = (uint64_t)1 << (place & 63);
    bool was = (bits[place >> 6] & mask) != 0;
    bits[place >> 6] |= mask;
    return !was;
}

/* EINVAL says as well that there is nothing in a block. Each call waits for all processors, so it better be for several. */
static void blocks_collapse(struct world *world, uint8_t *first, uint64_t count) {
    if (madvise(first, count * HUGE_PAGE, MADV_COLLAPSE) == 0) {
        world->huge_failures = 0;
    } else {
        world->huge_failures++;
    }
}

/* Of all shared memory of a region, by number from 0. NULL: past the last. */
static uint8_t *block_at(const struct memory_slot *slot, uint64_t number, uint64_t *ret_bit) {
    static const uint32_t parts[] = {PART_DATA, PART_VERSIONS, PART_PAGE_VERSIONS};
    uint64_t bits = 0; /* of the parts before */
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        uint64_t count = blocks_of(parts[i], slot->size);
        if (number < count) {
            *ret_bit = bits + number;
            return part_base(slot, parts[i]) + number * HUGE_PAGE;
        }
        number -= count;
        bits += blocks_of(parts[i], slot->size_max);
    }
    return NULL;
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
            blocks_collapse(world, block, 1);
            found = true;
        }
    }
    (void)pthread_mutex_unlock(&world->memory_lock);
    return found;
}

/* The region whose data the bytes are in, with the lock held. NULL: they are elsewhere. */
static struct memory_slot *slot_around(struct world *world, const void *bytes, uint64_t size) {
    LIST_FOREACH(link, &world->memory_used) {
        struct memory_slot *slot = LIST_ENTRY(link, struct memory_slot, link);
        if (range_within((uint64_t)((uintptr_t)bytes - (uintptr_t)slot->memory.data), size, slot->size)) {
            return slot;
        }
    }
    return NULL;
}

bool memory_is_unprepared(struct world *world, const void *buffer, uint64_t size) {
    if (size < PREPARE_BYTES_MIN || world->huge_failures >= HUGE_FAILURES_MAX) {
        return false;
    }
    (void)pthread_mutex_lock(&world->memory_lock);
    bool found = slot_around(world, buffer, size) != NULL;
    (void)pthread_mutex_unlock(&world->memory_lock);
    return found;
}

/* The next whole blocks side by side that the bytes touch and nobody has tried: marked as tried, and taken off the bytes. */
static uint64_t blocks_take(struct world *world, uint8_t **bytes, uint64_t *size, uint8_t **ret_first) {
    uint64_t count = 0;
    (void)pthread_mutex_lock(&world->memory_lock);
    struct memory_slot *slot = slot_around(world, *bytes, *size);
    if (slot) {
        uint8_t *data = slot->memory.data;
        uint64_t offset = (uint64_t)(*bytes - data), end = offset + *size;
        uint64_t number = offset / HUGE_PAGE;
        uint64_t number_end = min_u64(divide_up(end, HUGE_PAGE), blocks_of(PART_DATA, slot->size));
        while (number < number_end && !bit_take(slot->huge_tried, number)) {
            number++;
        }
        *ret_first = data + number * HUGE_PAGE;
        if (number < number_end) {
            do {
                count++;
            } while (number + count < number_end && bit_take(slot->huge_tried, number + count));
        }
        uint64_t next = min_u64(max_u64((number + count) * HUGE_PAGE, offset), end);
        *bytes = data + next;
        *size = end - next;
    }
    (void)pthread_mutex_unlock(&world->memory_lock);
    return count;
}

void memory_prepare(struct world *world, void *buffer, uint64_t size) {
    uint8_t *bytes = buffer, *first;
    uint64_t count;
    while (size > 0 && (count = blocks_take(world, &bytes, &size, &first)) > 0) {
        /* Without the lock: this is much of the work of recovery. A block must have something to begin with. (Not by a
         * load: another thread may be reading a file into it.) */
        for (uint64_t i = 0; i < count; i++) {
            (void)madvise(first + i * HUGE_PAGE, PAGE_SIZE, MADV_POPULATE_READ);
        }
        blocks_collapse(world, first, count);
    }
}

/* ---- Ios ---------------------------------------------------------------------------------------------------------- */

static void slot_release(struct world *world, struct memory_slot *slot) {
    slot_cover(world, slot);
    slot->size_before = max_u64(slot->size_before, slot->size);
    slot_files_close(slot);
    for (uint32_t part = PART_PAGES; part < PART_COUNT; part++) {
        (void)madvise(part_base(slot, part), part_size(part, slot->size), MADV_DONTNEED); /* M4 */
    }
    list_unlink(&slot->link);
    list_push_front(&world->memory_free, &slot->link);
}

/* A slot for a new region. */
static struct memory_slot *slot_take(struct world *world, uint32_t region, uint64_t size_max) {
    struct memory_slot *slot = slot_reuse(world, size_max);
    if (!slot) {
        slot = slot_make(world, size_max);
    }
    if (!slot) {
        return NULL;
    }
    list_unlink(&slot->link);
    list_push_front(&world->memory_used, &slot->link);
    slot->region = region;
    slot->size = 0;
    memset(slot->huge_tried, 0, huge_words(slot->size_max) * sizeof(uint64_t));
    if (!slot_files_make(world, slot)) {
        slot_release(world, slot);
        return NULL;
    }
    return slot;
}

static uint32_t region_map(struct world *world, struct io *io) {
    struct memory_slot *slot = slot_find(&world->memory_used, io->file.region);
    if (!slot) {
        slot = slot_take(world, io->file.region, io->size_max);
        if (!slot) {
            return IO_RESULT_NO_MEMORY;
        }
    }
    ASSERT(io->size <= slot->size_max && io->file.region < REGION_NUMBERS);
    if (io->size > slot->size && !slot_grow(slot, io->size)) {
        return IO_RESULT_NO_MEMORY;
    }
    io->memory = slot->memory;
    return IO_RESULT_OK;
}

static void region_unmap(struct world *world, struct io *io) {
    struct memory_slot *slot = slot_find(&world->memory_used, io->file.region);
    if (slot) {
        slot_release(world, slot);
    }
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

/* ---- Others ------------------------------------------------------------------------------------------------------- */

bool world_region_share(struct world *world, uint32_t region, int ret_fds[REGION_FILES]) {
    bool shared = true;
    (void)pthread_mutex_lock(&world->memory_lock);
    const struct memory_slot *slot = slot_find(&world->memory_used, region);
    for (uint32_t i = 0; i < REGION_FILES; i++) {
        ret_fds[i] = slot ? memfd_share(slot->fds[i]) : -1;
        shared = shared && ret_fds[i] >= 0;
    }
    (void)pthread_mutex_unlock(&world->memory_lock);
    for (uint32_t i = 0; i < REGION_FILES && !shared; i++) {
        if (ret_fds[i] >= 0) {
            (void)close(ret_fds[i]);
        }
    }
    return shared;
}

int world_image_share(const struct world *world) {
    return memfd_share(world->fd_image);
}

struct image *world_image(const struct world *world) {
    return world->image;
}

const struct image *world_image_view(const struct world *world) {
    return world->image_view;
}

/* ---- Open and close ----------------------------------------------------------------------------------------------- */

#define IMAGE_BYTES align_up(sizeof(struct image), HUGE_PAGE)

static bool image_make(struct world *world) {
    world->fd_image = memfd_make("shelf-image");
    uint8_t *space = world->fd_image < 0 ? NULL : space_take(2 * IMAGE_BYTES);
    if (!space) {
        return false;
    }
    world->image = (struct image *)(void *)space;
    world->image_view =
        world->alias_single ? world->image : (const struct image *)(const void *)(space + IMAGE_BYTES);
    return ftruncate(world->fd_image, (off_t)align_up(sizeof(struct image), PAGE_SIZE)) == 0 &&
           memfd_map(world, world->fd_image, space, space + IMAGE_BYTES,
                     align_up(sizeof(struct image), PAGE_SIZE));
}

bool memory_open(struct world *world, char ret_text[WORLD_TEXT_MAX]) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
        (void)snprintf(ret_text, WORLD_TEXT_MAX,
                       "this process has a limit on the size of files, which also counts for memory; lift it "
                       "(ulimit -f)");
        return false;
    }
    if (!image_make(world)) {
        (void)snprintf(ret_text, WORLD_TEXT_MAX, "the system refuses shared memory: %s", strerror(errno));
        return false;
    }
    return true;
}

static void slots_free(struct list *slots) {
    LIST_FOREACH(link, slots) {
        struct memory_slot *slot = LIST_ENTRY(link, struct memory_slot, link);
        slot_files_close(slot);
        (void)munmap(slot->memory.data, part_offset(PART_COUNT, slot->size_max));
        free(slot->huge_tried);
        free(slot);
    }
    list_init(slots);
}

void memory_close(struct world *world) {
    slots_free(&world->memory_used);
    slots_free(&world->memory_free);
    if (world->image) {
        (void)munmap(world->image, 2 * IMAGE_BYTES);
    }
    if (world->fd_image >= 0) {
        (void)close(world->fd_image);
    }
}

void memory_fork_child(struct world *world) {
    (void)close(world->fd_image);
    LIST_FOREACH(link, &world->memory_used) {
        slot_files_close(LIST_ENTRY(link, struct memory_slot, link));
    }
}
