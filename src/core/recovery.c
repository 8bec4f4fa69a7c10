// SPDX-License-Identifier: Apache-2.0
/*
 * recovery.c: from a directory to a serving node; and the making of a new shelf, which then is recovered like any other.
 *
 *     FORMAT_*     (new shelf) files with their space, empty roots, superblock; then one rename makes it exist
 *     SUPERBLOCK   of four copies, two that agree; the others are repaired, and all made durable: what was read may have been
 *                  in a cache, and the next checkpoint overwrites what an older superblock reaches
 *     ROOTS, MAP, TABLE, PAGES     the image as of the checkpoint, every level checked against the one above
 *     HINT, LOG_LENGTH, SEGMENTS   what the log consists of
 *     ANEW         after a checkpoint came from a peer: anew.c
 *     REPLAY, EVIDENCE             replay.c: the image as of the last record
 *     WIPE         headers of segments behind the end: their numbers are given out again
 *     LOG_SYNC     what was read may have been in a cache: now it is durable, so it may be built upon
 *     EPOCH        a new epoch from the coordinator (rule C2)
 *     HINT_CLEAR   "closed cleanly" is taken back before anything is appended
 *     OPENING      a record of the new epoch; once it is committed and applied, the node serves (rule T5)
 *
 *   V1  Nothing is served, and nothing written but repairs of bad superblock copies, before all checks have passed.
 *   V2  What fails a check is never used. If it is needed, the core stops and says what, where and why.
 */
#include "core/state.h"

struct recovery_io *recovery_io_take(struct core *core) {
    for (uint32_t i = 0; i < RECOVERY_IOS; i++) {
        if (!core->recovery.ios[i].taken) {
            return &core->recovery.ios[i];
        }
    }
    return NULL;
}

void recovery_send(struct core *core, struct recovery_io *rio, struct io io) {
    io.urgent = 1;
    rio->io = io;
    rio->taken = true;
    core->recovery.busy_count++;
    core_issue(core, &rio->io, PURPOSE_RECOVERY);
}

static void corrupt(struct core *core, const char *what, const char *reason, struct file_id file,
                    uint64_t offset) {
    SOMETIMES(RECOVERY_CHECKPOINT_CORRUPT);
    core_stop(core, SHELF_CORRUPT, what, reason, file, offset, core->superblock.index);
}

/* ---- A new shelf --------------------------------------------------------------------------------------------------- */

#define FORMAT_ROOTS_BYTES ((uint64_t)64 << 10)

static bool format_files_next(struct core *core, struct recovery_io *rio) {
    const uint64_t blocks = divide_up(SYSTEM_REGION_BYTES / PAGE_SIZE, TABLE_BLOCK_PAGES);
    const struct io ios[] = {
        {.kind = IO_RESERVE, .file = {.kind = FILE_LOG}, .size = 2 * LOG_SEGMENT_BYTES},
        {.kind = IO_RESERVE, .file = {.kind = FILE_HINT}, .size = 2 * (uint64_t)core->config.alignment},
        {.kind = IO_RESERVE, .file = {.kind = FILE_ROOTS, .slot = 0}, .size = FORMAT_ROOTS_BYTES},
        {.kind = IO_RESERVE, .file = {.kind = FILE_ROOTS, .slot = 1}, .size = FORMAT_ROOTS_BYTES},
        {.kind = IO_RESERVE,
         .file = {.kind = FILE_TABLE, .region = REGION_SYSTEM},
         .size = blocks * 2 * TABLE_BLOCK_SIZE},
        {.kind = IO_RESERVE,
         .file = {.kind = FILE_PAGES, .slot = 0, .region = REGION_SYSTEM},
         .size = SYSTEM_REGION_BYTES},
        {.kind = IO_RESERVE,
         .file = {.kind = FILE_PAGES, .slot = 1, .region = REGION_SYSTEM},
         .size = SYSTEM_REGION_BYTES},
    };
    if (core->recovery.cursor == ARRAY_COUNT(ios)) {
        return false;
    }
    recovery_send(core, rio, ios[core->recovery.cursor++]);
    return true;
}

static void format_build(struct core *core) {
    struct superblock *block = &core->superblock;
    uint8_t *roots = core->checkpoint.roots;
    uint64_t pages = SYSTEM_REGION_BYTES / PAGE_SIZE;
    uint64_t blocks = divide_up(pages, TABLE_BLOCK_PAGES);
    *(struct roots_header *)roots = (struct roots_header){.magic = ROOTS_MAGIC, .region_count = 1};
    *(struct roots_region *)(roots + sizeof(struct roots_header)) =
        (struct roots_region){.region = REGION_SYSTEM,
                              .block_count = (uint32_t)blocks,
                              .page_count = pages,
                              .size_max = SYSTEM_REGION_BYTES};
    uint64_t roots_bytes =
        sizeof(struct roots_header) + sizeof(struct roots_region) + blocks * sizeof(struct block_entry);
    *block = (struct superblock){.magic = SUPERBLOCK_MAGIC,
                                 .format = CHECKPOINT_FORMAT_VERSION,
                                 .sequence = 1,
                                 .segment_offset = LOG_SEGMENT_BYTES,
                                 .time_ms = core->now_ms,
                                 .roots_size = roots_bytes,
                                 .roots_crc = crc32c(0, roots, roots_bytes),
                                 .alignment = core->config.alignment};
    memcpy(block->shelf_id, core->config.shelf_id, sizeof(block->shelf_id));
    memcpy(block->incarnation, core->config.incarnation, sizeof(block->incarnation));
    block->crc = crc32c(0, block, sizeof(*block));
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES; copy++) {
        struct superblock *out =
            (struct superblock *)(core->checkpoint.superblock_buffer + copy * (size_t)SUPERBLOCK_SIZE);
        *out = *block;
        out->copy = copy;
    }
}

static bool format_write_next(struct core *core, struct recovery_io *rio) {
    if (core->recovery.cursor == 0) {
        format_build(core);
        recovery_send(core, rio,
                      (struct io){.kind = IO_WRITE,
                                  .file = {.kind = FILE_ROOTS},
                                  .size = align_up(core->superblock.roots_size, PAGE_SIZE),
                                  .buffer = core->checkpoint.roots});
    } else if (core->recovery.cursor == 1) {
        recovery_send(core, rio,
                      (struct io){.kind = IO_WRITE,
                                  .file = {.kind = FILE_SUPERBLOCK},
                                  .size = SUPERBLOCK_COPIES * SUPERBLOCK_SIZE,
                                  .buffer = core->checkpoint.superblock_buffer});
    } else if (core->recovery.cursor == 2) {
        recovery_send(core, rio, log_hint_io(core, true)); /* nothing has ever been sent after index 0 */
    } else {
        return false;
    }
    core->recovery.cursor++;
    return true;
}

/* One io of a kind that needs nothing but a file. */
static bool once(struct core *core, struct recovery_io *rio, struct io io) {
    if (core->recovery.cursor != 0) {
        return false;
    }
    core->recovery.cursor = 1;
    recovery_send(core, rio, io);
    return true;
}

/* ---- Superblock ---------------------------------------------------------------------------------------------------- */

static bool superblock_valid(const struct superblock *block) {
    struct superblock copy = *block;
    copy.crc = copy.copy = 0;
    return block->magic == SUPERBLOCK_MAGIC && block->format == CHECKPOINT_FORMAT_VERSION &&
           crc32c(0, &copy, sizeof(copy)) == block->crc;
}

static bool superblock_sane(const struct core *core, const struct superblock *block) {
    bool place_sane = block->segment_sequence == 0 ? block->segment_offset == LOG_SEGMENT_BYTES
                                                   : block->segment_offset >= block->alignment;
    return (block->alignment == 512 || block->alignment == 4096) && block->roots_slot <= 1 &&
           block->roots_size >= sizeof(struct roots_header) &&
           block->roots_size <= core->checkpoint.roots_max && place_sane &&
           block->segment_offset <= LOG_SEGMENT_BYTES && block->segment_offset % block->alignment == 0 &&
           block->log_anew <= LOG_ANEW_ALL &&
           (block->log_anew == LOG_ANEW_NO || block->segment_sequence != 0);
}

/* Of the copies that agree in at least two, the newest. */
static void superblock_choose(struct core *core, const struct superblock *copies) {
    const struct file_id file = {.kind = FILE_SUPERBLOCK};
    const struct superblock *chosen = NULL;
    uint32_t newer_format = 0, agree_all = 0;
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        newer_format += copies[i].magic == SUPERBLOCK_MAGIC && copies[i].format > CHECKPOINT_FORMAT_VERSION;
        uint32_t agree = 0;
        for (uint32_t j = 0; j < SUPERBLOCK_COPIES && superblock_valid(&copies[i]); j++) {
            agree += superblock_valid(&copies[j]) && copies[j].crc == copies[i].crc &&
                     copies[j].sequence == copies[i].sequence;
        }
        if (agree >= (MUTANT(ONE_SUPERBLOCK_COPY) ? 1 : SUPERBLOCK_QUORUM) &&
            (chosen == NULL || copies[i].sequence > chosen->sequence)) {
            chosen = &copies[i];
            agree_all = agree;
        }
    }
    if (newer_format >= SUPERBLOCK_QUORUM) {
        core_stop(core, SHELF_FORMAT, "superblock", "it was written by a newer version of Shelf", file, 0, 0);
    } else if (chosen == NULL) {
        corrupt(core, "superblock", "no two of its four copies are valid and agree", file, 0);
    } else if (!superblock_sane(core, chosen)) {
        corrupt(core, "superblock", "its checksum is right, but its values make no sense", file, 0);
    } else {
        core->superblock = *chosen;
        core->superblock.copy = 0;
        if (agree_all < SUPERBLOCK_COPIES) {
            SOMETIMES(RECOVERY_SUPERBLOCK_COPY_BAD);
        }
    }
}

/* Keeps for each copy whether it is to be repaired; only bad ones are touched, so the good ones stay. */
static void superblock_on_read(struct core *core, const uint8_t *buffer) {
    const struct superblock *copies = (const struct superblock *)buffer;
    superblock_choose(core, copies);
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES && !core->stopped; i++) {
        struct superblock *out =
            (struct superblock *)(core->checkpoint.superblock_buffer + i * (size_t)SUPERBLOCK_SIZE);
        bool good =
            superblock_valid(&copies[i]) && copies[i].crc == core->superblock.crc && copies[i].copy == i;
        if (!good && superblock_valid(&copies[i])) {
            SOMETIMES(RECOVERY_SUPERBLOCK_MIXED);
        }
        *out = core->superblock;
        out->copy = i;
        out->magic = good ? 0 : SUPERBLOCK_MAGIC; /* 0: nothing to do */
    }
}

static bool superblock_repair_next(struct core *core, struct recovery_io *rio) {
    while (core->recovery.cursor < SUPERBLOCK_COPIES) {
        uint64_t copy = core->recovery.cursor++;
        uint8_t *block = core->checkpoint.superblock_buffer + copy * SUPERBLOCK_SIZE;
        if (((const struct superblock *)block)->magic != 0) {
            recovery_send(core, rio,
                          (struct io){.kind = IO_WRITE,
                                      .file = {.kind = FILE_SUPERBLOCK},
                                      .offset = copy * SUPERBLOCK_SIZE,
                                      .size = SUPERBLOCK_SIZE,
                                      .buffer = block,
                                      .durable = 1});
            return true;
        }
    }
    return false;
}

/* ---- Roots and maps ------------------------------------------------------------------------------------------------ */

static struct file_id roots_file(const struct core *core) {
    return (struct file_id){.kind = FILE_ROOTS, .slot = (uint16_t)core->superblock.roots_slot};
}

static void roots_on_read(struct core *core) {
    const struct roots_header *header = (const struct roots_header *)core->checkpoint.roots;
    if (crc32c(0, core->checkpoint.roots, core->superblock.roots_size) != core->superblock.roots_crc) {
        corrupt(core, "roots", "the checksum in the superblock is another one", roots_file(core), 0);
    } else if (header->magic != ROOTS_MAGIC || header->index != core->superblock.index) {
        corrupt(core, "roots", "it does not belong to this checkpoint", roots_file(core), 0);
    }
}

bool roots_region_sane(const struct roots_region *entry, uint64_t left, bool first) {
    return left >= sizeof(*entry) && entry->region > 0 && entry->region < REGION_NUMBERS &&
           entry->block_count == divide_up(entry->page_count, TABLE_BLOCK_PAGES) &&
           left >= sizeof(*entry) + (uint64_t)entry->block_count * sizeof(struct block_entry) &&
           entry->size_max <= SHELF_REGION_BYTES_MAX && entry->page_count <= entry->size_max / PAGE_SIZE &&
           entry->size_max % PAGE_SIZE == 0 && first == (entry->region == REGION_SYSTEM) &&
           (!first || entry->page_count == SYSTEM_REGION_BYTES / PAGE_SIZE);
}

/* The next region of the roots blob gets its memory. cursor: offset in the blob. */
static bool map_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    if (recovery->cursor == 0) {
        recovery->cursor = sizeof(struct roots_header);
    }
    if (recovery->cursor >= core->superblock.roots_size && recovery->cursor > sizeof(struct roots_header)) {
        return false; /* (there is at least one: the system region) */
    }
    const struct roots_region *entry =
        (const struct roots_region *)(core->checkpoint.roots + recovery->cursor);
    bool first = recovery->cursor == sizeof(struct roots_header);
    bool sane = roots_region_sane(entry, core->superblock.roots_size - recovery->cursor, first) &&
                region_find(core, entry->region) == NULL;
    struct region *region = sane ? region_place_take(core, entry->region) : NULL;
    if (region == NULL) {
        corrupt(core, "roots", "its checksum is right, but its values make no sense", roots_file(core),
                recovery->cursor);
        return true;
    }
    rio->region_place = region_place(core, region);
    rio->page = recovery->cursor;
    recovery->cursor += sizeof(*entry) + entry->block_count * sizeof(struct block_entry);
    recovery_send(core, rio,
                  (struct io){.kind = IO_MAP,
                              .file = {.region = entry->region},
                              .size = entry->page_count * PAGE_SIZE,
                              .size_max = entry->size_max});
    return true;
}

static void map_on_done(struct core *core, struct recovery_io *rio) {
    struct region *region = &core->regions[rio->region_place];
    region_mapped(region, &rio->io);
    region->size = region->size_applied = rio->io.size;
    region->applied_live = true;
    if (core->recovery.state != RECOVERY_MAP) {
        return; /* mapped for the replay of its creation: no blocks yet */
    }
    const struct roots_region *entry = (const struct roots_region *)(core->checkpoint.roots + rio->page);
    memcpy(region->memory.blocks, entry + 1, entry->block_count * sizeof(struct block_entry));
}

/* ---- Table --------------------------------------------------------------------------------------------------------- */

#define TABLE_IO_BLOCKS (RECOVERY_IO_BYTES / (2 * (uint64_t)TABLE_BLOCK_SIZE)) /* both slots are read */

static uint64_t region_pages(const struct region *region) {
    return region->size_mapped / PAGE_SIZE;
}

static bool table_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    for (; recovery->cursor_place < REGION_PLACES; recovery->cursor_place++, recovery->cursor = 0) {
        const struct region *region = &core->regions[recovery->cursor_place];
        uint64_t blocks = region->mapped ? divide_up(region_pages(region), TABLE_BLOCK_PAGES) : 0;
        while (recovery->cursor < blocks && region->memory.blocks[recovery->cursor].slot == SLOT_NONE) {
            recovery->cursor++;
        }
        if (recovery->cursor < blocks) {
            rio->region_place = recovery->cursor_place;
            rio->page = recovery->cursor;
            rio->count = (uint32_t)min_u64(blocks - recovery->cursor, TABLE_IO_BLOCKS);
            recovery->cursor += rio->count;
            recovery_send(core, rio,
                          (struct io){.kind = IO_READ,
                                      .file = {.kind = FILE_TABLE, .region = region->number},
                                      .offset = rio->page * 2 * TABLE_BLOCK_SIZE,
                                      .size = (uint64_t)rio->count * 2 * TABLE_BLOCK_SIZE,
                                      .buffer = rio->buffer});
            return true;
        }
    }
    return false;
}

static void table_on_read(struct core *core, const struct recovery_io *rio) {
    struct region *region = &core->regions[rio->region_place];
    for (uint32_t i = 0; i < rio->count; i++) {
        uint64_t block = rio->page + i;
        const struct block_entry *entry = &region->memory.blocks[block];
        if (entry->slot == SLOT_NONE) {
            continue;
        }
        const uint8_t *bytes = rio->buffer + (2 * i + (entry->slot == SLOT_B)) * (size_t)TABLE_BLOCK_SIZE;
        if (entry->slot > SLOT_B || crc32c(0, bytes, TABLE_BLOCK_SIZE) != entry->crc) {
            corrupt(core, "table", "a block of page checksums fails its own checksum", rio->io.file,
                    (2 * block + (entry->slot == SLOT_B)) * TABLE_BLOCK_SIZE);
            return;
        }
        memcpy(&region->memory.pages[block * TABLE_BLOCK_PAGES], bytes, TABLE_BLOCK_SIZE);
    }
}

/* ---- Pages --------------------------------------------------------------------------------------------------------- */

#define PAGES_IO_PAGES (RECOVERY_IO_BYTES / PAGE_SIZE)

/* First and last page of [first, first + count) that has this slot; false if none has. */
static bool slot_span(const struct region *region, uint64_t first, uint64_t count, uint32_t slot,
                      uint64_t *ret_first, uint64_t *ret_count) {
    uint64_t from = first, to = first + count;
    while (from < to && region->memory.pages[from].slot != slot) {
        from++;
    }
    while (to > from && region->memory.pages[to - 1].slot != slot) {
        to--;
    }
    *ret_first = from;
    *ret_count = to - from;
    return to > from;
}

/* Reads the span of one slot: of the more frequent slot straight into the image, of the other into the buffer. */
static void pages_send(struct core *core, struct recovery_io *rio, uint32_t slot, bool into_image) {
    const struct region *region = &core->regions[rio->region_place];
    uint64_t first, count;
    if (!slot_span(region, rio->page, rio->count, slot, &first, &count)) {
        return;
    }
    recovery_send(core, rio,
                  (struct io){.kind = IO_READ,
                              .file = {.kind = FILE_PAGES, .slot = slot == SLOT_B, .region = region->number},
                              .offset = first * PAGE_SIZE,
                              .size = count * PAGE_SIZE,
                              .buffer = into_image ? region->memory.data + first * PAGE_SIZE : rio->buffer});
}

static bool pages_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    for (; recovery->cursor_place < REGION_PLACES; recovery->cursor_place++, recovery->cursor = 0) {
        const struct region *region = &core->regions[recovery->cursor_place];
        uint64_t pages = region->mapped ? region_pages(region) : 0;
        while (recovery->cursor < pages) {
            uint64_t count =
                min_u64(pages - recovery->cursor, PAGES_IO_PAGES - recovery->cursor % PAGES_IO_PAGES);
            uint64_t in_slot[3] = {0};
            for (uint64_t page = recovery->cursor; page < recovery->cursor + count; page++) {
                in_slot[min_u64(region->memory.pages[page].slot, 2)]++;
            }
            rio->region_place = recovery->cursor_place;
            rio->page = recovery->cursor;
            rio->count = (uint32_t)count;
            rio->stage = 0;
            rio->slot_first = in_slot[SLOT_B] > in_slot[SLOT_A] ? SLOT_B : SLOT_A;
            recovery->cursor += count;
            if (in_slot[SLOT_A] + in_slot[SLOT_B] > 0) {
                pages_send(core, rio, rio->slot_first, true);
                return true;
            }
        }
    }
    return false;
}

static bool page_check(struct core *core, const struct region *region, uint64_t page, const uint8_t *bytes,
                       struct file_id file) {
    if (crc32c(0, bytes, PAGE_SIZE) == region->memory.pages[page].crc) {
        return true;
    }
    corrupt(core, "page", "it fails its checksum", file, page * PAGE_SIZE);
    return false;
}

/* What a span brought along of pages that have no slot, or another one, is wiped: the image is zero there so far. */
static void pages_on_read(struct core *core, struct recovery_io *rio) {
    struct region *region = &core->regions[rio->region_place];
    uint64_t first = rio->io.offset / PAGE_SIZE;
    uint64_t count = rio->io.size / PAGE_SIZE;
    uint32_t slot = rio->io.file.slot == 0 ? SLOT_A : SLOT_B;
    for (uint64_t page = first; page < first + count; page++) {
        uint8_t *image = region->memory.data + page * PAGE_SIZE;
        const uint8_t *bytes = (const uint8_t *)rio->io.buffer + (page - first) * PAGE_SIZE;
        if (region->memory.pages[page].slot > SLOT_B) {
            corrupt(core, "table", "a page's slot makes no sense", rio->io.file, page * PAGE_SIZE);
            return;
        }
        if (region->memory.pages[page].slot == slot) {
            if (!page_check(core, region, page, bytes, rio->io.file)) {
                return;
            }
            if (rio->stage == 1) {
                memcpy(image, bytes, PAGE_SIZE);
            }
        } else if (rio->stage == 0) {
            memset(image, 0, PAGE_SIZE);
        }
    }
    if (rio->stage == 0) {
        rio->stage = 1;
        pages_send(core, rio, rio->slot_first == SLOT_A ? SLOT_B : SLOT_A, false);
    }
}

/* ---- Hint and segments --------------------------------------------------------------------------------------------- */

static void hint_on_read(struct core *core, const uint8_t *buffer) {
    struct recovery *recovery = &core->recovery;
    for (uint32_t slot = 0; slot < 2; slot++) {
        struct hint_block block;
        memcpy(&block, buffer + slot * (size_t)core->superblock.alignment, sizeof(block));
        uint32_t crc = block.crc;
        block.crc = 0;
        bool valid = block.magic == HINT_MAGIC && crc32c(0, &block, sizeof(block)) == crc &&
                     memcmp(block.shelf_id, core->superblock.shelf_id, sizeof(block.shelf_id)) == 0;
        if (valid && (!recovery->hint_found || block.sequence > recovery->hint.sequence)) {
            recovery->hint = block;
            recovery->hint_found = true;
            core->log.hint_sequence = block.sequence;
        }
    }
}

static bool segments_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    if (recovery->cursor >= recovery->segment_count) {
        return false;
    }
    rio->page = recovery->cursor++;
    recovery_send(core, rio,
                  (struct io){.kind = IO_READ,
                              .file = {.kind = FILE_LOG},
                              .offset = rio->page * LOG_SEGMENT_BYTES,
                              .size = core->superblock.alignment,
                              .buffer = rio->buffer});
    return true;
}

static void segment_on_read(struct core *core, const struct recovery_io *rio) {
    struct segment_header header;
    memcpy(&header, rio->buffer, sizeof(header));
    uint32_t crc = header.crc;
    header.crc = 0;
    if (header.magic == SEGMENT_MAGIC && crc32c(0, &header, sizeof(header)) == crc &&
        header.place == rio->page &&
        memcmp(header.shelf_id, core->superblock.shelf_id, sizeof(header.shelf_id)) == 0) {
        core->log.segments[rio->page] = (struct segment){.sequence = header.sequence,
                                                         .index_first = header.index_first,
                                                         .offset_first = header.offset_first,
                                                         .zeroed_bytes = LOG_SEGMENT_BYTES};
    }
}

/* ---- The machine --------------------------------------------------------------------------------------------------- */

static bool epoch_next(struct core *core, struct recovery_io *rio) {
    if (core->recovery.cursor != 0 || core->cluster.on) {
        return false; /* (a cluster's epochs are the group's) */
    }
    core->recovery.cursor = 1;
    uint64_t known = max_u64(core->epoch, max_u64(core->log.last.epoch, core->superblock.epoch));
    if (MUTANT(EPOCH_REUSED)) {
        core->epoch = max_u64(known, 1);
        return false;
    }
    core->epoch = known + 1;
    recovery_send(core, rio, (struct io){.kind = IO_SWAP_EPOCH, .epoch = core->epoch});
    return true;
}

/*
 * A segment whose first record was torn keeps its header. Its number is going to be another segment's, and the next
 * recovery could not tell the two apart, so it goes; durably, because LOG_SYNC follows.
 */
static bool wipe_next(struct core *core, struct recovery_io *rio) {
    while (core->recovery.cursor < core->log.segment_count) {
        uint64_t place = core->recovery.cursor++;
        if (core->log.segments[place].stale) {
            core->log.segments[place].stale = false;
            recovery_send(core, rio,
                          (struct io){.kind = IO_WRITE,
                                      .file = {.kind = FILE_LOG},
                                      .offset = place * LOG_SEGMENT_BYTES,
                                      .size = core->superblock.alignment,
                                      .buffer = core->log.zeros});
            return true;
        }
    }
    return false;
}

/* The opening record needs a place: at worst the file grows by a segment. */
static bool opening_next(struct core *core, struct recovery_io *rio) {
    if (core->recovery.cursor != 0) {
        return false;
    }
    if (!log_has_room(core, 0, true)) {
        if (core->log.segment_count == LOG_SEGMENTS_MAX) {
            core_stop(core, SHELF_CORRUPT, "log", "it is full, and as long as it may be",
                      (struct file_id){.kind = FILE_LOG}, 0, core->log.last.index);
            return false;
        }
        recovery_send(core, rio,
                      (struct io){.kind = IO_RESERVE,
                                  .file = {.kind = FILE_LOG},
                                  .size = (core->log.segment_count + 1) * LOG_SEGMENT_BYTES});
        return true;
    }
    core->recovery.cursor = 1;
    core->building->index = core->log.last.index + 1;
    log_write(core, RECORD_OPENING);
    return true;
}

/* Sends the next io of the state; false if it has none left. */
static bool state_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    const struct superblock *superblock = &core->superblock;
    switch ((enum recovery_state)recovery->state) {
    case RECOVERY_FORMAT_FILES:
        return format_files_next(core, rio);
    case RECOVERY_FORMAT_WRITE:
        return format_write_next(core, rio);
    case RECOVERY_FORMAT_SYNC:
        return once(core, rio, (struct io){.kind = IO_SYNC, .file = {.kind = FILE_ROOTS}});
    case RECOVERY_FORMAT_PUBLISH:
        return once(core, rio, (struct io){.kind = IO_PUBLISH, .file = {.kind = FILE_SUPERBLOCK}});
    case RECOVERY_SUPERBLOCK:
        return once(core, rio,
                    (struct io){.kind = IO_READ,
                                .file = {.kind = FILE_SUPERBLOCK},
                                .size = SUPERBLOCK_COPIES * SUPERBLOCK_SIZE,
                                .buffer = rio->buffer});
    case RECOVERY_SUPERBLOCK_REPAIR:
        return superblock_repair_next(core, rio);
    case RECOVERY_SUPERBLOCK_SYNC:
        return once(core, rio, (struct io){.kind = IO_SYNC, .file = {.kind = FILE_SUPERBLOCK}});
    case RECOVERY_ROOTS:
        return once(core, rio,
                    (struct io){.kind = IO_READ,
                                .file = roots_file(core),
                                .size = align_up(superblock->roots_size, PAGE_SIZE),
                                .buffer = core->checkpoint.roots});
    case RECOVERY_MAP:
        return map_next(core, rio);
    case RECOVERY_TABLE:
        return table_next(core, rio);
    case RECOVERY_PAGES:
        return pages_next(core, rio);
    case RECOVERY_HINT:
        return once(core, rio,
                    (struct io){.kind = IO_READ,
                                .file = {.kind = FILE_HINT},
                                .size = 2 * (uint64_t)superblock->alignment,
                                .buffer = rio->buffer});
    case RECOVERY_LOG_LENGTH:
        return once(core, rio, (struct io){.kind = IO_LENGTH, .file = {.kind = FILE_LOG}});
    case RECOVERY_SEGMENTS:
        return segments_next(core, rio);
    case RECOVERY_ANEW:
        return anew_next(core, rio);
    case RECOVERY_EVIDENCE:
        return evidence_next(core, rio);
    case RECOVERY_WIPE:
        return wipe_next(core, rio);
    case RECOVERY_LOG_SYNC:
        return !MUTANT(NO_SYNC_AFTER_RECOVERY) &&
               once(core, rio, (struct io){.kind = IO_SYNC, .file = {.kind = FILE_LOG}});
    case RECOVERY_EPOCH:
        return epoch_next(core, rio);
    case RECOVERY_HINT_CLEAR:
        return recovery->cursor == 0 && recovery->hint.clean && once(core, rio, log_hint_io(core, false));
    case RECOVERY_PROMISE:
        return promise_next(core, rio);
    case RECOVERY_NONE:
    case RECOVERY_REPLAY:
    case RECOVERY_OPENING:
    case RECOVERY_DONE:
        break;
    }
    return false;
}

static void state_enter(struct core *core, enum recovery_state state) {
    struct recovery *recovery = &core->recovery;
    recovery->state = state;
    recovery->cursor = 0;
    recovery->cursor_place = 0;
    if (state == RECOVERY_REPLAY) {
        replay_start(core);
    } else if (state == RECOVERY_WIPE) { /* the last checks (V1) */
        core->building->index = core->log.last.index + 1;
        catalog_mirror_rebuild(core);
        session_mirror_rebuild(core);
    }
}

static void recovery_continue(struct core *core) {
    struct recovery *recovery = &core->recovery;
    while (!core->stopped && recovery->state != RECOVERY_DONE) {
        if (recovery->state == RECOVERY_REPLAY) {
            if (!replay_continue(core)) {
                return;
            }
        } else {
            struct recovery_io *rio = recovery_io_take(core);
            if (rio == NULL) {
                return;
            }
            if (recovery->state == RECOVERY_OPENING && core->cluster.on) {
                cluster_start(core);
                return;
            }
            if (recovery->state == RECOVERY_OPENING) {
                if (recovery->busy_count == 0) {
                    opening_next(core, rio);
                }
                return; /* go_on() sees when the opening record is applied */
            }
            if (state_next(core, rio)) {
                continue;
            }
        }
        if (recovery->busy_count > 0) {
            return;
        }
        state_enter(core, recovery->state + 1);
    }
}

void recovery_start(struct core *core) {
    core->epoch = 0;
    state_enter(core, core->config.create ? RECOVERY_FORMAT_FILES : RECOVERY_SUPERBLOCK);
    recovery_continue(core);
}

static void on_done(struct core *core, struct recovery_io *rio) {
    switch ((enum recovery_state)core->recovery.state) {
    case RECOVERY_SUPERBLOCK:
        superblock_on_read(core, rio->buffer);
        break;
    case RECOVERY_ROOTS:
        roots_on_read(core);
        break;
    case RECOVERY_MAP:
        map_on_done(core, rio);
        break;
    case RECOVERY_TABLE:
        table_on_read(core, rio);
        break;
    case RECOVERY_PAGES:
        pages_on_read(core, rio);
        break;
    case RECOVERY_HINT:
        hint_on_read(core, rio->buffer);
        break;
    case RECOVERY_LOG_LENGTH:
        core->recovery.segment_count = min_u64(rio->io.size / LOG_SEGMENT_BYTES, LOG_SEGMENTS_MAX);
        core->log.segment_count = (uint32_t)core->recovery.segment_count;
        core->log.segment_max = (uint32_t)max_u64(core->log.segment_max, core->log.segment_count);
        break;
    case RECOVERY_SEGMENTS:
        segment_on_read(core, rio);
        break;
    case RECOVERY_REPLAY:
        if (rio->io.kind == IO_MAP) {
            map_on_done(core, rio);
        } else {
            replay_on_io(core, rio);
        }
        break;
    case RECOVERY_EVIDENCE:
        replay_on_io(core, rio);
        break;
    case RECOVERY_PROMISE:
        promise_on_read(core, rio);
        break;
    case RECOVERY_OPENING:
        core->log.segments[core->log.segment_count++] = (struct segment){0};
        break;
    default:
        break;
    }
}

void recovery_on_io(struct core *core, struct io *io) {
    struct recovery *recovery = &core->recovery;
    recovery->busy_count--;
    struct recovery_io *rio = (struct recovery_io *)io; /* its first member */
    rio->taken = false;
    if (io->kind == IO_SWAP_EPOCH && io->result == IO_RESULT_CONFLICT) {
        core->epoch = max_u64(core->epoch, io->epoch);
        recovery->cursor = 0; /* again, above the one that is there */
    } else if (core_io_failed(core, io,
                              recovery->state <= RECOVERY_FORMAT_PUBLISH ? "new shelf" : "recovery")) {
        return;
    } else {
        on_done(core, rio);
    }
    recovery_continue(core);
}

void recovery_opened(struct core *core) {
    core->recovery.state = RECOVERY_DONE;
    for (uint32_t place = 1; place < REGION_PLACES; place++) {
        struct region *region = &core->regions[place];
        if (region->mapped && region->applied_live) {
            region_publish(core, region, core->applied);
        }
    }
    atomic_store_explicit(&core->image->epoch, core->epoch, memory_order_relaxed);
    core->checkpoint.last_start_ms = core->opened_ms = core->now_ms;
    core->open = core->serving = true;
    core->effects->opened = true;
}
