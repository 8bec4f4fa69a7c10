// SPDX-License-Identifier: Apache-2.0
/*
 * install_end.c: a checkpoint that a peer gave is on the disk; now it becomes the own one (rule D1). The order is that of
 * checkpoint.c: what a superblock reaches is durable, and was read back, before it is written.
 *
 *     SYNC         pages and tables of all regions
 *     TOP          the roots, in the file that the durable superblock does not use
 *     TOP_SYNC
 *     READ_BACK    tables, pages, roots, against their checksums
 *     SUPERBLOCK   once more: does the own log conflict with it, or end before it (I4)? Then copies 0 and 1, durable;
 *                  2 and 3. It says that the log begins anew: what the file holds counts from then on no more
 */
#include "core/state.h"

static void part_io(struct core *core, struct install_part *part, struct io io) {
    part->io = io;
    part->state = PART_WRITES;
    core_issue(core, &part->io, PURPOSE_INSTALL);
}

static void read_send(struct core *core, struct install_part *part, struct file_id file, uint64_t offset,
                      uint64_t size) {
    part_io(
        core, part,
        (struct io){.kind = IO_READ, .file = file, .offset = offset, .size = size, .buffer = part->buffer});
}

static struct file_id roots_file(const struct core *core) {
    return (struct file_id){.kind = FILE_ROOTS, .slot = !core->superblock.roots_slot};
}

static uint64_t roots_bytes(const struct core *core) {
    return align_up(core->cluster.install.offer.roots_size, PAGE_SIZE);
}

/* ---- Durable ------------------------------------------------------------------------------------------------------ */

static bool sync_next(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    const struct roots_region *entry = install_region(core, core->checkpoint.roots);
    if (entry == NULL || MUTANT(INSTALL_NOT_SYNCED)) {
        return false;
    }
    uint16_t kind = install->step < 2 ? FILE_PAGES : FILE_TABLE;
    struct file_id file = {.kind = kind, .slot = install->step == 1, .region = entry->region};
    if (++install->step == 3) {
        install_region_pass(core);
    }
    part_io(core, part, (struct io){.kind = IO_SYNC, .file = file});
    return true;
}

static bool top_next(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    if (install->step++ == 0) {
        part_io(core, part,
                (struct io){.kind = IO_WRITE,
                            .file = roots_file(core),
                            .size = roots_bytes(core),
                            .buffer = core->checkpoint.roots});
        return true;
    }
    return false;
}

static bool top_sync_next(struct core *core, struct install_part *part) {
    if (core->cluster.install.step != 0 || MUTANT(INSTALL_NOT_SYNCED)) {
        return false;
    }
    core->cluster.install.step = 1;
    part_io(core, part, (struct io){.kind = IO_SYNC, .file = roots_file(core)});
    return true;
}

/* ---- Read back ---------------------------------------------------------------------------------------------------- */

static struct page_entry *table_ours(const struct install *install) {
    return (struct page_entry *)(install->table + TABLE_BLOCK_SIZE);
}

static const struct block_entry *block_entry(const struct roots_region *entry, uint32_t block) {
    return (const struct block_entry *)(entry + 1) + block;
}

static bool is_alone(const struct install *install, const struct install_part *part) {
    bool alone = true;
    for (uint32_t i = 0; i < INSTALL_PARTS; i++) {
        alone &= &install->parts[i] == part || install->parts[i].state == PART_FREE;
    }
    return alone;
}

static bool roots_read_next(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    uint64_t left = roots_bytes(core) - install->asked;
    if (left == 0 || !is_alone(install, part)) { /* in order: its checksum runs through all of it */
        return false;
    }
    uint64_t size = min_u64(left, CHECKPOINT_IO_BYTES);
    read_send(core, part, roots_file(core), install->asked, size);
    install->asked += size;
    return true;
}

static bool read_back_next(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    const struct roots_region *entry;
    while ((entry = install_region(core, core->checkpoint.roots)) != NULL) {
        if (install->block == entry->block_count) {
            install_region_pass(core);
            continue;
        }
        const struct block_entry *ours = block_entry(entry, install->block);
        uint32_t first = install->page, end = install_block_pages(entry, install->block);
        if (ours->slot == SLOT_NONE) {
            install->block++;
            continue;
        }
        if (!install->table_here) {
            if (!is_alone(install, part)) {
                return false;
            }
            read_send(core, part, (struct file_id){.kind = FILE_TABLE, .region = entry->region},
                      ((uint64_t)install->block * 2 + (ours->slot == SLOT_B)) * TABLE_BLOCK_SIZE,
                      TABLE_BLOCK_SIZE);
            return true;
        }
        uint32_t count = install_run(table_ours(install), &first, end);
        if (count > 0) {
            uint64_t page = (uint64_t)install->block * TABLE_BLOCK_PAGES + first;
            uint32_t slot = table_ours(install)[first].slot;
            install->page = first + count;
            part->page = page;
            part->count = count;
            read_send(core, part,
                      (struct file_id){.kind = FILE_PAGES, .slot = slot == SLOT_B, .region = entry->region},
                      page * PAGE_SIZE, (uint64_t)count * PAGE_SIZE);
            return true;
        }
        if (!is_alone(install, part)) {
            return false;
        }
        install->block++;
        install->table_here = false;
        install->page = 0;
    }
    return roots_read_next(core, part);
}

static bool read_back_right(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    bool right = true;
    if (part->io.file.kind == FILE_TABLE) {
        const struct roots_region *entry = install_region(core, core->checkpoint.roots);
        right = crc32c(0, part->buffer, TABLE_BLOCK_SIZE) == block_entry(entry, install->block)->crc;
        memcpy(table_ours(install), part->buffer, TABLE_BLOCK_SIZE);
        install->table_here = true;
        install->page = 0;
    } else if (part->io.file.kind == FILE_PAGES) {
        for (uint32_t i = 0; i < part->count; i++) {
            const struct page_entry *page = &table_ours(install)[(part->page + i) % TABLE_BLOCK_PAGES];
            right &= crc32c(0, part->buffer + (size_t)i * PAGE_SIZE, PAGE_SIZE) == page->crc;
        }
    } else {
        uint64_t size = min_u64(install->offer.roots_size - install->done, part->io.size);
        install->roots_crc = crc32c(install->done == 0 ? 0 : install->roots_crc, part->buffer, size);
        install->done += size;
        right = install->done < install->offer.roots_size ||
                install->roots_crc == crc32c(0, core->checkpoint.roots, install->offer.roots_size);
    }
    return right;
}

/* ---- Superblock --------------------------------------------------------------------------------------------------- */

/* Nothing of the log is under way. */
static bool log_rests(const struct core *core) {
    const struct cluster *cluster = &core->cluster;
    return core->log.durable_index == core->log.last.index && !cluster->write_io.busy &&
           !cluster->write_waits && !cluster->cut_io.busy && cluster_settled(core) &&
           core->log.writing == NULL && core->log.applying == NULL && !core->log.zero.busy;
}

static void superblock_fill(struct core *core) {
    const struct install *install = &core->cluster.install;
    const struct peer_checkpoint *offer = &install->offer;
    struct superblock *next = &core->cluster.install.next;
    *next = core->superblock;
    next->sequence++;
    next->index = install->mark.index;
    next->epoch = install->mark.epoch;
    next->chain = offer->chain;
    next->record_size = offer->record_size;
    next->segment_sequence = offer->segment_sequence;
    next->segment_offset = offer->segment_offset;
    next->time_ms = offer->time_ms;
    next->roots_size = offer->roots_size;
    next->roots_crc = crc32c(0, core->checkpoint.roots, offer->roots_size);
    next->roots_slot = !core->superblock.roots_slot;
    /* Records that were cut or torn may have been a little further on. */
    bool reached = core->log.last.index + 2 * TAIL_MAX >= next->index;
    next->log_anew = reached ? LOG_ANEW_ALL : LOG_ANEW_HEADERS;
    checkpoint_copies_fill(core, next);
}

static bool superblock_next(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    bool second = install->state == INSTALL_SUPERBLOCK_SECOND;
    if (install->step != 0 || (!second && !log_rests(core))) {
        return false;
    }
    if (!second && !install_needed(core, install->mark) && !MUTANT(INSTALL_DROPS_LATER)) { /* I4 */
        SOMETIMES(INSTALL_NOT_NEEDED);
        install_give_up(core);
        return false;
    }
    install->step = 1; /* from now on nothing else happens here */
    if (!second) {
        superblock_fill(core);
    }
    part_io(core, part,
            (struct io){.kind = IO_WRITE,
                        .file = {.kind = FILE_SUPERBLOCK},
                        .offset = (second ? 2 : 0) * (uint64_t)SUPERBLOCK_SIZE,
                        .size = 2 * (uint64_t)SUPERBLOCK_SIZE,
                        .buffer = core->checkpoint.superblock_buffer + (second ? 2 : 0) * SUPERBLOCK_SIZE,
                        .durable = 1});
    return true;
}

/* ---- Entrances ---------------------------------------------------------------------------------------------------- */

bool install_end_next(struct core *core, struct install_part *part) {
    switch ((enum install_state)core->cluster.install.state) {
    case INSTALL_SYNC:
        return sync_next(core, part);
    case INSTALL_TOP:
        return top_next(core, part);
    case INSTALL_TOP_SYNC:
        return top_sync_next(core, part);
    case INSTALL_READ_BACK:
        return read_back_next(core, part);
    case INSTALL_SUPERBLOCK:
    case INSTALL_SUPERBLOCK_SECOND:
        return superblock_next(core, part);
    default:
        return false;
    }
}

void install_end_on_io(struct core *core, struct install_part *part) {
    if (core->cluster.install.state == INSTALL_READ_BACK && !read_back_right(core, part)) {
        core_stop(core, SHELF_IO, "checkpoint", "what was just written reads back differently", part->io.file,
                  part->io.offset, core->cluster.install.mark.index);
    }
}
