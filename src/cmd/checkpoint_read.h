// SPDX-License-Identifier: Apache-2.0
/* checkpoint_read.h: from a superblock to the pages of regions, every level checked against the one above it. */
#ifndef CMD_CHECKPOINT_READ_H
#define CMD_CHECKPOINT_READ_H

#include "cmd/disk.h"
#include "wire/checkpoint_format.h"
#include "wire/limits.h"
#include "wire/system_region.h"

/* A region as the roots blob describes it. */
struct disk_region {
    uint32_t number;
    uint32_t block_count;
    uint64_t page_count;
    uint64_t size_max;
    const struct block_entry *blocks; /* within the blob */
};

/* Understands a roots blob of superblock->roots_size bytes (aligned to 8). The regions are the caller's to free. On
 * failure `ret_text` says what and `ret_offset` where. */
bool roots_parse(const uint8_t *roots, const struct superblock *superblock, struct disk_region **ret_regions,
                 size_t *ret_count, char ret_text[DISK_TEXT_MAX], uint64_t *ret_offset);

enum page_state {
    PAGE_GOOD,
    PAGE_ZERO,       /* never written */
    PAGE_CHECKSUM,   /* fails its checksum */
    PAGE_UNREADABLE, /* the file is missing, ends before it, or the device refuses */
    PAGE_SLOT,       /* its entry in the table has a slot that there is not */
    PAGE_UNKNOWN,    /* the table block that describes it is bad */
};

#define REGION_CHUNK_PAGES 256u
struct region_chunk {
    uint64_t page; /* first */
    uint32_t count;
    const uint8_t *bytes;  /* zero where a page is not good */
    const uint8_t *states; /* enum page_state, one a page */
    const uint8_t *slots;  /* enum slot_state */
};

/* Called in order. False ends the walk. */
struct region_walker {
    bool (*on_chunk)(void *context, const struct disk_region *region, const struct region_chunk *chunk);
    /* A block of the table that is bad: result tells whether it could be read at all. May be NULL. */
    void (*on_block)(void *context, const struct disk_region *region, uint64_t block, uint64_t offset,
                     const char *text);
    void *context;
};
/* Reads all pages of a region. False: the walker ended it, or there is no memory. */
bool region_walk(const struct disk *disk, const struct disk_region *region,
                 const struct region_walker *walker);

/* ---- Catalog, in a copy of the system region (SYSTEM_REGION_BYTES) ------------------------------------------------- */

/* The live entry at that place of the catalog, or NULL. */
const struct catalog_entry *catalog_at(const uint8_t *system, uint32_t place);
/* Does a live entry make sense? */
bool catalog_entry_is_sane(const struct catalog_entry *entry);
const struct catalog_entry *catalog_find_number(const uint8_t *system, uint32_t number);
const struct catalog_entry *catalog_find_name(const uint8_t *system, const char *name);

/* ---- A whole checkpoint, for those who need it faultless ----------------------------------------------------------- */

struct checkpoint_files {
    struct superblock superblock;
    uint8_t *roots;
    struct disk_region *regions;
    size_t region_count;
    uint8_t *system;
};
/* CORRUPT, FORMAT, IO, NO_MEMORY, and a sentence that says what is wrong and where. */
shelf_result checkpoint_load(const struct disk *disk, struct checkpoint_files *ret_files,
                             char ret_text[DISK_TEXT_MAX]);
void checkpoint_free(struct checkpoint_files *files);
/* The newest superblock's sequence, 0 if there is none: has the checkpoint been overtaken? */
uint64_t checkpoint_sequence(const struct disk *disk);

#endif
