// SPDX-License-Identifier: Apache-2.0
//
// See audit.h.

#include "audit.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/crc.h"
#include "report.h"
#include "wire/checkpoint_format.h"

#define REGIONS   256u
#define BLOCKS    16u // of a region: the largest that is simulated
#define PAGES_MAX (BLOCKS * TABLE_BLOCK_PAGES)

struct live_region { // which slots the durable checkpoint uses
    uint8_t block_slots[BLOCKS];
    uint8_t page_slots[PAGES_MAX];
};

struct audit {
    const struct disk *disk;
    struct model *model;
    bool off;
    struct superblock superblock;
    struct live_region *live[REGIONS];
};

struct audit *audit_new(const struct disk *disk, struct model *model) {
    struct audit *audit = calloc(1, sizeof(*audit));
    ASSERT(audit);
    audit->disk = disk;
    audit->model = model;
    return audit;
}

static void live_clear(struct audit *audit) {
    for (size_t i = 0; i < REGIONS; i++) {
        free(audit->live[i]);
        audit->live[i] = NULL;
    }
}

void audit_free(struct audit *audit) {
    live_clear(audit);
    free(audit);
}

static bool superblock_read(const struct audit *audit, uint32_t copy, struct superblock *ret_superblock) {
    struct file_id id = {.kind = FILE_SUPERBLOCK};
    disk_read_durable(audit->disk, id, (uint64_t)copy * SUPERBLOCK_SIZE, ret_superblock,
                      sizeof(*ret_superblock));
    struct superblock *zeroed = malloc(sizeof(*zeroed));
    ASSERT(zeroed);
    *zeroed = *ret_superblock;
    zeroed->crc = 0;
    zeroed->copy = 0;
    bool valid = ret_superblock->magic == SUPERBLOCK_MAGIC && ret_superblock->copy == copy &&
                 crc32c(0, zeroed, sizeof(*zeroed)) == ret_superblock->crc;
    free(zeroed);
    return valid;
}

// The newest superblock that enough copies hold.
static bool superblock_find(const struct audit *audit, struct superblock *ret_superblock) {
    struct superblock copies[SUPERBLOCK_COPIES];
    bool valid[SUPERBLOCK_COPIES];
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        valid[i] = superblock_read(audit, i, &copies[i]);
    }
    const struct superblock *best = NULL;
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        uint32_t count = 0;
        for (uint32_t j = 0; j < SUPERBLOCK_COPIES; j++) {
            count += valid[i] && valid[j] && copies[i].crc == copies[j].crc;
        }
        if (count >= SUPERBLOCK_QUORUM && (!best || copies[i].sequence > best->sequence)) {
            best = &copies[i];
        }
    }
    if (best) {
        *ret_superblock = *best;
    }
    return best != NULL;
}

static void page_check(const struct audit *audit, uint32_t region, uint64_t page,
                       const struct page_entry *entry, uint64_t index) {
    if (entry->slot == SLOT_NONE && !model_page_changed(audit->model, region, page)) {
        return;
    }
    uint8_t stored[PAGE_SIZE] = {0};
    if (entry->slot != SLOT_NONE) {
        struct file_id id = {.kind = FILE_PAGES, .slot = (uint16_t)(entry->slot - 1), .region = region};
        disk_read_durable(audit->disk, id, page * PAGE_SIZE, stored, sizeof(stored));
        SIM_CHECK(crc32c(0, stored, sizeof(stored)) == entry->crc,
                  "checkpoint %llu: page %llu of region %u fails its checksum in slot %u",
                  (unsigned long long)index, (unsigned long long)page, region, entry->slot);
    }
    uint8_t right[PAGE_SIZE];
    model_read(audit->model, shelf_addr_make((shelf_region)region, page * PAGE_SIZE), index, right,
               sizeof(right));
    SIM_CHECK(memcmp(stored, right, sizeof(right)) == 0,
              "checkpoint %llu: page %llu of region %u is not as of that index", (unsigned long long)index,
              (unsigned long long)page, region);
}

static void block_check(struct audit *audit, const struct roots_region *region, uint64_t block,
                        const struct block_entry *block_entry, uint64_t index) {
    struct page_entry entries[TABLE_BLOCK_PAGES] = {0};
    struct live_region *live = audit->live[region->region];
    SIM_CHECK(block_entry->slot <= SLOT_B, "checkpoint %llu: table block in slot %u",
              (unsigned long long)index, block_entry->slot);
    if (block_entry->slot != SLOT_NONE) {
        struct file_id id = {.kind = FILE_TABLE, .region = region->region};
        disk_read_durable(audit->disk, id, (2 * block + block_entry->slot - 1) * TABLE_BLOCK_SIZE, entries,
                          sizeof(entries));
        SIM_CHECK(crc32c(0, entries, sizeof(entries)) == block_entry->crc,
                  "checkpoint %llu: table block %llu of region %u fails its checksum",
                  (unsigned long long)index, (unsigned long long)block, region->region);
    }
    live->block_slots[block] = (uint8_t)block_entry->slot;
    for (uint64_t i = 0; i < TABLE_BLOCK_PAGES; i++) {
        uint64_t page = block * TABLE_BLOCK_PAGES + i;
        SIM_CHECK(entries[i].slot <= SLOT_B, "checkpoint %llu: page in slot %u", (unsigned long long)index,
                  entries[i].slot);
        live->page_slots[page] = (uint8_t)entries[i].slot;
        if (page < region->page_count) {
            page_check(audit, region->region, page, &entries[i], index);
        }
    }
}

// Is every region in the checkpoint that the catalog has at that index?
static void catalog_check(const struct audit *audit, uint64_t index) {
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        uint64_t address = shelf_addr_make(REGION_SYSTEM, SYSTEM_CATALOG_OFFSET +
                                                              place * (uint32_t)sizeof(struct catalog_entry));
        if (model_line_index(audit->model, address >> LINE_SHIFT, index) == 0) {
            continue;
        }
        struct catalog_entry entry;
        model_read(audit->model, address, index, &entry, sizeof(entry));
        SIM_CHECK(!entry.live || (entry.region < REGIONS && audit->live[entry.region]),
                  "checkpoint %llu: region %u is missing", (unsigned long long)index, entry.region);
    }
}

static void roots_check(struct audit *audit, const struct superblock *superblock, const uint8_t *roots) {
    const struct roots_header *header = (const void *)roots;
    uint64_t index = superblock->index;
    SIM_CHECK(superblock->roots_size >= sizeof(*header) && header->magic == ROOTS_MAGIC &&
                  header->index == index,
              "checkpoint %llu: the roots are not its own", (unsigned long long)index);
    uint64_t offset = sizeof(*header);
    for (uint32_t i = 0; i < header->region_count; i++) {
        const struct roots_region *region = (const void *)(roots + offset);
        SIM_CHECK(offset + sizeof(*region) <= superblock->roots_size && region->region < REGIONS &&
                      region->block_count <= BLOCKS &&
                      offset + sizeof(*region) + region->block_count * sizeof(struct block_entry) <=
                          superblock->roots_size,
                  "checkpoint %llu: the roots are cut off", (unsigned long long)index);
        const struct block_entry *blocks = (const void *)(region + 1);
        audit->live[region->region] = calloc(1, sizeof(struct live_region));
        ASSERT(audit->live[region->region]);
        for (uint32_t block = 0; block < region->block_count; block++) {
            block_check(audit, region, block, &blocks[block], index);
        }
        offset += sizeof(*region) + region->block_count * sizeof(struct block_entry);
    }
    catalog_check(audit, index);
}

void audit_look(struct audit *audit) {
    struct superblock found;
    if (audit->off || !disk_published(audit->disk) || !superblock_find(audit, &found) ||
        found.sequence <= audit->superblock.sequence) {
        return;
    }
    SIM_CHECK(found.index <= model_known(audit->model),
              "a superblock of index %llu is durable, but record %llu is the last",
              (unsigned long long)found.index, (unsigned long long)model_known(audit->model));
    SIM_CHECK(found.roots_size <= (uint64_t)1 << 24, "checkpoint %llu: roots of %llu bytes",
              (unsigned long long)found.index, (unsigned long long)found.roots_size);
    uint8_t *roots = malloc(found.roots_size + 8);
    ASSERT(roots);
    struct file_id id = {.kind = FILE_ROOTS, .slot = (uint16_t)found.roots_slot};
    disk_read_durable(audit->disk, id, 0, roots, found.roots_size);
    bool right = crc32c(0, roots, found.roots_size) == found.roots_crc;
    if (!right) {
        free(roots);
    }
    SIM_CHECK(right, "checkpoint %llu: the roots fail their checksum", (unsigned long long)found.index);
    live_clear(audit);
    if (found.index > 0) {
        roots_check(audit, &found, roots);
    }
    free(roots);
    audit->superblock = found;
    model_alignment_set(audit->model, found.alignment);
    sim_trace("audit: superblock %llu, checkpoint %llu is whole", (unsigned long long)found.sequence,
              (unsigned long long)found.index);
}

static bool overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size) {
    return a < b + b_size && b < a + a_size;
}

static const char *needed_by(const struct audit *audit, struct file_id id, uint64_t offset, uint64_t size,
                             uint64_t *ret_number) {
    const struct live_region *live = id.region < REGIONS ? audit->live[id.region] : NULL;
    if (audit->superblock.sequence == 0) {
        return NULL;
    }
    if (id.kind == FILE_ROOTS && id.slot == audit->superblock.roots_slot &&
        overlap(offset, size, 0, audit->superblock.roots_size)) {
        return "the live roots";
    }
    for (uint64_t i = 0; live && id.kind == FILE_PAGES && i < PAGES_MAX; i++) {
        *ret_number = i;
        if (live->page_slots[i] == id.slot + 1 && overlap(offset, size, i * PAGE_SIZE, PAGE_SIZE)) {
            return "a live page";
        }
    }
    for (uint64_t i = 0; live && id.kind == FILE_TABLE && i < BLOCKS; i++) {
        *ret_number = i;
        if (live->block_slots[i] != SLOT_NONE &&
            overlap(offset, size, (2 * i + live->block_slots[i] - 1) * TABLE_BLOCK_SIZE, TABLE_BLOCK_SIZE)) {
            return "a live table block";
        }
    }
    for (uint64_t i = model_known(audit->model); id.kind == FILE_LOG && i > audit->superblock.index; i--) {
        const struct model_position *position = model_position(audit->model, i);
        *ret_number = i;
        if (overlap(offset, size, position->offset, position->size)) {
            return "a record after the checkpoint";
        }
    }
    return NULL;
}

// The same bytes again do no harm: a record whose write met a full disk may be there all the same.
static bool is_there(const struct audit *audit, uint64_t index, uint64_t offset, const uint8_t *bytes,
                     uint64_t size) {
    const struct model_position *position = model_position(audit->model, index);
    uint64_t whole = sizeof(struct record_header) + position->payload_size;
    if (position->offset < offset || position->offset + whole > offset + size) {
        return false;
    }
    uint8_t *stored = malloc(whole);
    ASSERT(stored);
    disk_read_durable(audit->disk, (struct file_id){.kind = FILE_LOG}, position->offset, stored, whole);
    bool same = memcmp(stored, bytes + (position->offset - offset), whole) == 0;
    free(stored);
    return same;
}

void audit_write(const struct audit *audit, struct file_id id, uint64_t offset, const void *bytes,
                 uint64_t size) {
    uint64_t number = 0;
    const char *what = audit->off ? NULL : needed_by(audit, id, offset, size, &number);
    if (what && id.kind == FILE_LOG && is_there(audit, number, offset, bytes, size)) {
        return;
    }
    SIM_CHECK(!what, "a write of %llu bytes at %llu goes over %s (region %u, number %llu)",
              (unsigned long long)size, (unsigned long long)offset, what, id.region,
              (unsigned long long)number);
}

bool audit_needs(const struct audit *audit, struct file_id id, uint64_t offset, uint64_t size) {
    uint64_t number = 0;
    return needed_by(audit, id, offset, size, &number) != NULL;
}

void audit_restart(struct audit *audit) {
    struct superblock found = {0};
    live_clear(audit);
    if (!superblock_find(audit, &found)) {
        found = (struct superblock){0};
    }
    audit->superblock = found; // believed unseen: if what it reaches is damaged, the node must notice
}

void audit_off(struct audit *audit) {
    audit->off = true;
}

uint64_t audit_index(const struct audit *audit) {
    return audit->superblock.index;
}

uint64_t audit_sequence(const struct audit *audit) {
    return audit->superblock.sequence;
}

uint64_t audit_hint(const struct audit *audit) {
    uint64_t best = 0;
    for (uint32_t i = 0; i < 2; i++) {
        struct hint_block block;
        disk_read_durable(audit->disk, (struct file_id){.kind = FILE_HINT},
                          (uint64_t)i * model_alignment(audit->model), &block, sizeof(block));
        struct hint_block zeroed = block;
        zeroed.crc = 0;
        if (block.magic == HINT_MAGIC && crc32c(0, &zeroed, sizeof(zeroed)) == block.crc &&
            block.index > best) {
            best = block.index;
        }
    }
    return best;
}
