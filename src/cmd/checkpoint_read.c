// SPDX-License-Identifier: Apache-2.0
/*
 * checkpoint_read.c: roots, tables, pages and the catalog of regions, read from the files (wire/checkpoint_format.h).
 */
#include "cmd/checkpoint_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/crc.h"
#include "cmd/superblock_read.h"

/* ---- Roots --------------------------------------------------------------------------------------------------------- */

/* The region at `at`, or a sentence about what is wrong with it. */
static const char *roots_region_parse(const uint8_t *roots, uint64_t at, uint64_t size,
                                      uint32_t number_before, struct disk_region *ret_region) {
    struct roots_region entry;
    if (size - at < sizeof(entry)) {
        return "it ends in the middle of a region";
    }
    memcpy(&entry, roots + at, sizeof(entry));
    if (entry.region == 0 || entry.region >= REGION_NUMBERS) {
        return "there is a region whose number cannot be";
    }
    if ((number_before == 0) != (entry.region == REGION_SYSTEM)) {
        return "the first region is not the system region, or it comes again";
    }
    if (entry.size_max > SHELF_REGION_BYTES_MAX || entry.page_count > entry.size_max / PAGE_SIZE ||
        entry.block_count != divide_up(entry.page_count, TABLE_BLOCK_PAGES)) {
        return "the size of a region cannot be";
    }
    if ((size - at - sizeof(entry)) / sizeof(struct block_entry) < entry.block_count) {
        return "it ends in the middle of a region's blocks";
    }
    *ret_region = (struct disk_region){.number = entry.region,
                                       .block_count = entry.block_count,
                                       .page_count = entry.page_count,
                                       .size_max = entry.size_max,
                                       .blocks = (const struct block_entry *)(roots + at + sizeof(entry))};
    return NULL;
}

static bool roots_refuse(char ret_text[DISK_TEXT_MAX], uint64_t *ret_offset, uint64_t offset,
                         const char *what) {
    (void)snprintf(ret_text, DISK_TEXT_MAX, "%s", what);
    *ret_offset = offset;
    return false;
}

static bool number_is_taken(const struct disk_region *regions, size_t count, uint32_t number) {
    for (size_t i = 0; i < count; i++) {
        if (regions[i].number == number) {
            return true;
        }
    }
    return false;
}

bool roots_parse(const uint8_t *roots, const struct superblock *superblock, struct disk_region **ret_regions,
                 size_t *ret_count, char ret_text[DISK_TEXT_MAX], uint64_t *ret_offset) {
    uint64_t size = superblock->roots_size;
    struct roots_header header;
    if (size < sizeof(header) || crc32c(0, roots, size) != superblock->roots_crc) {
        return roots_refuse(ret_text, ret_offset, 0, "its checksum is not the one in the superblock");
    }
    memcpy(&header, roots, sizeof(header));
    if (header.magic != ROOTS_MAGIC || header.index != superblock->index) {
        return roots_refuse(ret_text, ret_offset, 0, "it does not belong to this checkpoint");
    }
    size_t room = size / sizeof(struct roots_region) + 1, count = 0;
    struct disk_region *regions = calloc(room, sizeof(*regions));
    uint64_t at = sizeof(header);
    const char *wrong = regions ? NULL : "no memory for its regions";
    while (!wrong && at < size) {
        wrong =
            roots_region_parse(roots, at, size, count > 0 ? regions[count - 1].number : 0, &regions[count]);
        if (!wrong && number_is_taken(regions, count, regions[count].number)) {
            wrong = "a region comes twice";
        }
        if (!wrong) {
            at += sizeof(struct roots_region) + regions[count].block_count * sizeof(struct block_entry);
            count++;
        }
    }
    if (!wrong && (count != header.region_count || count == 0 ||
                   regions[0].page_count * PAGE_SIZE != SYSTEM_REGION_BYTES)) {
        wrong = "the number of regions, or the size of the system region, is not right";
    }
    if (wrong) {
        free(regions);
        return roots_refuse(ret_text, ret_offset, at, wrong);
    }
    *ret_regions = regions;
    *ret_count = count;
    return true;
}

/* ---- Pages --------------------------------------------------------------------------------------------------------- */

struct walk {
    const struct disk_region *region;
    const struct region_walker *walker;
    struct disk_file table, pages[2];
    struct page_entry entries[TABLE_BLOCK_PAGES];
    uint8_t states[REGION_CHUNK_PAGES];
    uint8_t slots[REGION_CHUNK_PAGES];
    uint8_t bytes[REGION_CHUNK_PAGES * PAGE_SIZE];
};

/* Fills walk->entries; false: nothing is known of the block's pages. */
static bool block_load(struct walk *walk, uint64_t block) {
    const struct block_entry *entry = &walk->region->blocks[block];
    char text[DISK_TEXT_MAX] = "";
    const char *wrong = NULL;
    uint64_t offset = (2 * block + (entry->slot == SLOT_B)) * TABLE_BLOCK_SIZE;
    memset(walk->entries, 0, sizeof(walk->entries));
    if (entry->slot == SLOT_NONE) {
        return true;
    }
    if (entry->slot > SLOT_B) {
        wrong = "has a slot that there is not";
    } else {
        enum disk_result result = disk_read(&walk->table, offset, walk->entries, sizeof(walk->entries));
        if (result != DISK_OK) {
            wrong = disk_result_text(&walk->table, result, text);
        } else if (crc32c(0, walk->entries, sizeof(walk->entries)) != entry->crc) {
            wrong = "fails its checksum";
        }
    }
    if (wrong && walk->walker->on_block) {
        walk->walker->on_block(walk->walker->context, walk->region, block, offset, wrong);
    }
    return !wrong;
}

/* Reads `count` pages of one slot and checks them; places are within the chunk. */
static void span_load(struct walk *walk, uint64_t page, const struct page_entry *entries, uint32_t place,
                      uint32_t count) {
    const struct disk_file *file = &walk->pages[entries[place].slot == SLOT_B];
    uint8_t *bytes = walk->bytes + (size_t)place * PAGE_SIZE;
    bool whole = disk_read(file, (page + place) * PAGE_SIZE, bytes, (size_t)count * PAGE_SIZE) == DISK_OK;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *at = bytes + (size_t)i * PAGE_SIZE;
        bool readable = whole || disk_read(file, (page + place + i) * PAGE_SIZE, at, PAGE_SIZE) == DISK_OK;
        bool right = readable && crc32c(0, at, PAGE_SIZE) == entries[place + i].crc;
        walk->states[place + i] = right ? PAGE_GOOD : readable ? PAGE_CHECKSUM : PAGE_UNREADABLE;
        if (!right) {
            memset(at, 0, PAGE_SIZE);
        }
    }
}

static bool chunk_walk(struct walk *walk, uint64_t page, uint32_t count, bool block_known) {
    const struct page_entry *entries = &walk->entries[page % TABLE_BLOCK_PAGES];
    memset(walk->bytes, 0, (size_t)count * PAGE_SIZE);
    for (uint32_t place = 0; place < count;) {
        uint32_t slot = entries[place].slot, end = place + 1;
        while (end < count && entries[end].slot == slot) {
            end++;
        }
        memset(walk->slots + place, (int)min_u64(slot, UINT8_MAX), end - place);
        if (!block_known || slot == SLOT_NONE || slot > SLOT_B) {
            memset(walk->states + place,
                   !block_known        ? PAGE_UNKNOWN
                   : slot == SLOT_NONE ? PAGE_ZERO
                                       : PAGE_SLOT,
                   end - place);
        } else {
            span_load(walk, page, entries, place, end - place);
        }
        place = end;
    }
    struct region_chunk chunk = {
        .page = page, .count = count, .bytes = walk->bytes, .states = walk->states, .slots = walk->slots};
    return walk->walker->on_chunk(walk->walker->context, walk->region, &chunk);
}

static struct disk_file region_file_open(const struct disk *disk, const char *kind, uint32_t number,
                                         const char *slot) {
    char name[64];
    (void)snprintf(name, sizeof(name), "%s.%u%s", kind, number, slot);
    return disk_file_open(disk, name);
}

bool region_walk(const struct disk *disk, const struct disk_region *region,
                 const struct region_walker *walker) {
    struct walk *walk = malloc(sizeof(*walk));
    if (!walk) {
        return false;
    }
    walk->region = region;
    walk->walker = walker;
    walk->table = region_file_open(disk, "table", region->number, "");
    walk->pages[0] = region_file_open(disk, "pages", region->number, ".a");
    walk->pages[1] = region_file_open(disk, "pages", region->number, ".b");
    bool going = true;
    for (uint64_t block = 0; block < region->block_count && going; block++) {
        bool known = block_load(walk, block);
        uint64_t end = min_u64(region->page_count, (block + 1) * TABLE_BLOCK_PAGES);
        for (uint64_t page = block * TABLE_BLOCK_PAGES; page < end && going; page += REGION_CHUNK_PAGES) {
            going = chunk_walk(walk, page, (uint32_t)min_u64(end - page, REGION_CHUNK_PAGES), known);
        }
    }
    disk_file_close(&walk->table);
    disk_file_close(&walk->pages[0]);
    disk_file_close(&walk->pages[1]);
    free(walk);
    return going;
}

/* ---- Catalog ------------------------------------------------------------------------------------------------------- */

const struct catalog_entry *catalog_at(const uint8_t *system, uint32_t place) {
    const struct catalog_entry *entry =
        (const struct catalog_entry *)(system + SYSTEM_CATALOG_OFFSET) + place;
    return entry->live != 0 ? entry : NULL;
}

bool catalog_entry_is_sane(const struct catalog_entry *entry) {
    size_t length = strnlen(entry->name, sizeof(entry->name));
    return entry->live == 1 && entry->region > REGION_SYSTEM && entry->region < REGION_NUMBERS &&
           entry->size > 0 && entry->size % PAGE_SIZE == 0 && entry->size <= entry->size_max &&
           entry->size_max <= SHELF_REGION_BYTES_MAX && length > 0 && length <= SHELF_NAME_MAX;
}

const struct catalog_entry *catalog_find_number(const uint8_t *system, uint32_t number) {
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        const struct catalog_entry *entry = catalog_at(system, place);
        if (entry && entry->region == number) {
            return entry;
        }
    }
    return NULL;
}

const struct catalog_entry *catalog_find_name(const uint8_t *system, const char *name) {
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        const struct catalog_entry *entry = catalog_at(system, place);
        if (entry && catalog_entry_is_sane(entry) && strcmp(entry->name, name) == 0) {
            return entry;
        }
    }
    return NULL;
}

/* ---- A whole checkpoint -------------------------------------------------------------------------------------------- */

static shelf_result superblock_load(const struct disk *disk, struct superblock *ret_superblock,
                                    char ret_text[DISK_TEXT_MAX]) {
    uint8_t bytes[SUPERBLOCK_COPIES * SUPERBLOCK_SIZE];
    struct superblock_report report;
    struct disk_file file = disk_file_open(disk, "superblock");
    enum disk_result result = disk_read(&file, 0, bytes, sizeof(bytes));
    superblock_examine(bytes, &report, ret_superblock);
    char text[DISK_TEXT_MAX];
    const char *why = disk_result_text(&file, result, text);
    disk_file_close(&file);
    if (report.newer) {
        (void)snprintf(ret_text, DISK_TEXT_MAX, "the superblock was written by a newer version of Shelf");
        return SHELF_FORMAT;
    }
    if (report.chosen < 0 || !report.is_sane) {
        (void)snprintf(ret_text, DISK_TEXT_MAX, "file superblock: %s",
                       result != DISK_OK   ? why
                       : report.chosen < 0 ? "no two of its four copies are right and agree"
                                           : "its values make no sense");
        return SHELF_CORRUPT;
    }
    return SHELF_OK;
}

uint64_t checkpoint_sequence(const struct disk *disk) {
    struct superblock superblock;
    char text[DISK_TEXT_MAX];
    return superblock_load(disk, &superblock, text) == SHELF_OK ? superblock.sequence : 0;
}

static bool on_system_chunk(void *context, const struct disk_region *region,
                            const struct region_chunk *chunk) {
    (void)region;
    for (uint32_t i = 0; i < chunk->count; i++) {
        if (chunk->states[i] != PAGE_GOOD && chunk->states[i] != PAGE_ZERO) {
            return false;
        }
    }
    memcpy((uint8_t *)context + chunk->page * PAGE_SIZE, chunk->bytes, (size_t)chunk->count * PAGE_SIZE);
    return true;
}

static shelf_result roots_load(const struct disk *disk, struct checkpoint_files *files,
                               char ret_text[DISK_TEXT_MAX]) {
    char text[DISK_TEXT_MAX];
    uint64_t offset = 0;
    struct disk_file file = disk_file_open(disk, files->superblock.roots_slot == 0 ? "roots.a" : "roots.b");
    files->roots = file.length >= files->superblock.roots_size ? malloc(files->superblock.roots_size) : NULL;
    enum disk_result result =
        files->roots ? disk_read(&file, 0, files->roots, files->superblock.roots_size) : DISK_SHORT;
    const char *why = disk_result_text(&file, result, text);
    bool right = result == DISK_OK && roots_parse(files->roots, &files->superblock, &files->regions,
                                                  &files->region_count, text, &offset);
    (void)snprintf(ret_text, DISK_TEXT_MAX, "file %.20s at %llu: %.200s", file.name,
                   (unsigned long long)offset, result == DISK_OK ? text : why);
    disk_file_close(&file);
    return right ? SHELF_OK : SHELF_CORRUPT;
}

shelf_result checkpoint_load(const struct disk *disk, struct checkpoint_files *ret_files,
                             char ret_text[DISK_TEXT_MAX]) {
    *ret_files = (struct checkpoint_files){0};
    shelf_result result = superblock_load(disk, &ret_files->superblock, ret_text);
    if (result == SHELF_OK) {
        result = roots_load(disk, ret_files, ret_text);
    }
    if (result == SHELF_OK) {
        ret_files->system = calloc(1, SYSTEM_REGION_BYTES);
        struct region_walker walker = {.on_chunk = on_system_chunk, .context = ret_files->system};
        if (!ret_files->system || !region_walk(disk, &ret_files->regions[0], &walker)) {
            (void)snprintf(ret_text, DISK_TEXT_MAX, "pages of the catalog of regions fail their checks");
            result = ret_files->system ? SHELF_CORRUPT : SHELF_NO_MEMORY;
        }
    }
    if (result != SHELF_OK) {
        checkpoint_free(ret_files);
    }
    return result;
}

void checkpoint_free(struct checkpoint_files *files) {
    free(files->system);
    free(files->regions);
    free(files->roots);
    *files = (struct checkpoint_files){0};
}
