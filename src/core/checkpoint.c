// SPDX-License-Identifier: Apache-2.0
/*
 * checkpoint.c: the image as of exactly one index goes to the disk while transactions go on.
 *
 *     begin        the dirty pages become this checkpoint's (`frozen`); none of them is copied yet (`pending`)
 *     PAGES        each is copied out of the image and written to the slot that the durable superblock does not use;
 *                  one that a record is about to change is copied first (copies.c)
 *     PAGES_SYNC
 *     TABLE        table blocks of touched pages to their shadow slots, the roots blob to its other file
 *     TABLE_SYNC
 *     READ_BACK    everything written is read again and checked
 *     SUPERBLOCK   copies 0 and 1, durable; then 2 and 3: at any crash two of the four agree
 *     TRIM         the log before the checkpoint is free; files of dropped regions go
 *
 *   P1  No state is entered before all ios of the one before it are done.
 *   P2  A page is written to the disk as it was at the checkpoint's index: copied either before it changed, or first.
 *   P3  What the durable superblock reaches is not overwritten (C5): writes go to the other slot only.
 *   P4  Nothing is trimmed before all four copies of the superblock are durable.
 *   P5  A full disk makes it wait, not fail: the same io is sent again. (Space is reserved when a region is made, so this
 *       takes a file system that breaks its word.)
 */
#include "core/state.h"

#define IO_PAGES (CHECKPOINT_IO_BYTES / PAGE_SIZE)

void checkpoint_init(struct core *core) {
    core->checkpoint.state = CHECKPOINT_IDLE;
}

bool checkpoint_dirty(const struct core *core) {
    for (uint32_t place = 0; place < REGION_PLACES; place++) {
        const struct region *region = &core->regions[place];
        if (region->mapped && (region->dirty_count > 0 || (!region->applied_live && place != 0))) {
            return true;
        }
    }
    return false;
}

static uint64_t block_count(uint64_t page_count) {
    return divide_up(page_count, TABLE_BLOCK_PAGES);
}

uint64_t roots_size(const struct core *core) {
    uint64_t size = sizeof(struct roots_header);
    for (uint32_t place = 0; place < REGION_PLACES; place++) {
        const struct region *region = &core->regions[place];
        if (region->mapped) {
            size += sizeof(struct roots_region) +
                    block_count(region->size_mapped / PAGE_SIZE) * sizeof(struct block_entry);
        }
    }
    return size;
}

/* ---- Ios ----------------------------------------------------------------------------------------------------------- */

static struct checkpoint_io *io_take(struct core *core) {
    for (uint32_t i = 0; i < CHECKPOINT_IOS; i++) {
        struct checkpoint_io *cio = &core->checkpoint.ios[i];
        if (!cio->taken) {
            return cio;
        }
    }
    return NULL;
}

static void io_send(struct core *core, struct checkpoint_io *cio, struct io io) {
    cio->io = io;
    cio->taken = true;
    core->checkpoint.busy_count++;
    core_issue(core, &cio->io, PURPOSE_CHECKPOINT);
}

static void write_send(struct core *core, struct checkpoint_io *cio, struct file_id file, uint64_t offset,
                       void *buffer, uint64_t size, bool durable) {
    io_send(core, cio,
            (struct io){.kind = IO_WRITE,
                        .file = file,
                        .offset = offset,
                        .size = size,
                        .buffer = buffer,
                        .durable = durable});
}

static void read_send(struct core *core, struct checkpoint_io *cio, struct file_id file, uint64_t offset,
                      uint64_t size) {
    io_send(
        core, cio,
        (struct io){.kind = IO_READ, .file = file, .offset = offset, .size = size, .buffer = cio->buffer});
}

static struct file_id pages_file(const struct region *region, uint32_t slot) {
    return (struct file_id){.kind = FILE_PAGES, .slot = slot == SLOT_B, .region = region->number};
}

static struct file_id table_file(const struct region *region) {
    return (struct file_id){.kind = FILE_TABLE, .region = region->number};
}

static uint32_t slot_other(uint32_t slot) {
    if (MUTANT(REUSE_SLOT) && slot != SLOT_NONE) {
        return slot;
    }
    return slot == SLOT_A ? SLOT_B : SLOT_A; /* P3 */
}

/* ---- Begin --------------------------------------------------------------------------------------------------------- */

static void region_freeze(struct region *region) {
    if (!region->applied_live) {
        region->page_count_frozen = 0;
        return;
    }
    region->page_count_frozen = region->size_applied / PAGE_SIZE;
    region->frozen_count = region->pending_count = region->dirty_count;
    if (region->dirty_count == 0) {
        return;
    }
    uint64_t *empty = region->frozen; /* cleared when the last checkpoint ended */
    region->frozen = region->dirty;
    region->dirty = empty;
    region->dirty_count = 0;
    memcpy(region->pending, region->frozen, divide_up(region->page_count_frozen, 64) * sizeof(uint64_t));
}

static void checkpoint_begin(struct core *core) {
    struct checkpoint *checkpoint = &core->checkpoint;
    SOMETIMES(CHECKPOINT_BEGUN);
    checkpoint->wanted = checkpoint->log_needs = false;
    checkpoint->last_start_ms = core->now_ms;
    checkpoint->log_bytes_at_start = core->log.applied_bytes;
    checkpoint->next = core->superblock;
    struct superblock *next = &checkpoint->next;
    next->sequence++;
    next->index = core->applied;
    next->epoch = core->applied_identity.epoch;
    next->chain = core->applied_identity.chain;
    next->record_size = core->applied_identity.size;
    next->segment_sequence = core->applied_position.segment_sequence;
    next->segment_offset = core->applied_position.offset;
    next->time_ms = core->now_ms;
    for (uint32_t place = 0; place < REGION_PLACES; place++) {
        if (core->regions[place].mapped) {
            region_freeze(&core->regions[place]);
        }
    }
    checkpoint->cursor_place = 0;
    checkpoint->cursor_page = 0;
    checkpoint->state = CHECKPOINT_PAGES;
    checkpoint->early = MUTANT(SUPERBLOCK_BEFORE_PAGES);
    if (checkpoint->early) { /* only with MUTANT */
        checkpoint->state = CHECKPOINT_SUPERBLOCK;
    }
    if (MUTANT(TRIM_BEFORE_SUPERBLOCK)) {
        log_trim(core, next->segment_sequence);
    }
}

/* ---- Pages --------------------------------------------------------------------------------------------------------- */

static void page_entry_set(struct region *region, uint64_t page, const uint8_t *bytes) {
    struct page_entry *entry = &region->memory.pages[page];
    entry->slot = slot_other(entry->slot);
    entry->crc = crc32c(0, bytes, PAGE_SIZE);
}

static void pending_clear(struct region *region, uint64_t page) {
    bit_clear(region->pending, page);
    region->pending_count--;
}

bool checkpoint_copies(const struct core *core, const struct region *region, uint64_t page) {
    return bit_get(region->pending, page) && !MUTANT(NO_COPY_ON_WRITE) &&
           !copies_has(&core->checkpoint.copies, region_place(core, region), page);
}

/* A record is about to change a page that waits for its turn: keep it as it was (P2). Room was looked for. */
void checkpoint_page_changes(struct core *core, struct region *region, uint64_t page) {
    SOMETIMES(CHECKPOINT_COPY_ON_WRITE);
    copies_add(&core->checkpoint.copies, region_place(core, region), page,
               region->memory.data + page * PAGE_SIZE);
}

/* The next run of pending pages that go to the same slot. */
static void page_run_send(struct core *core, struct checkpoint_io *cio, struct region *region,
                          uint64_t first) {
    uint32_t slot = slot_other(region->memory.pages[first].slot);
    uint64_t count = 0;
    while (count < IO_PAGES && first + count < region->page_count_frozen &&
           bit_get(region->pending, first + count) &&
           slot_other(region->memory.pages[first + count].slot) == slot) {
        uint64_t page = first + count;
        uint8_t *bytes = cio->buffer + count * PAGE_SIZE;
        if (!copies_take(&core->checkpoint.copies, region_place(core, region), page, bytes)) {
            memcpy(bytes, region->memory.data + page * PAGE_SIZE, PAGE_SIZE);
        }
        page_entry_set(region, page, bytes);
        pending_clear(region, page);
        count++;
    }
    write_send(core, cio, pages_file(region, slot), first * PAGE_SIZE, cio->buffer, count * PAGE_SIZE, false);
}

/* Sends the next write; false if there is none left. */
static bool pages_next(struct core *core, struct checkpoint_io *cio) {
    struct checkpoint *checkpoint = &core->checkpoint;
    for (; checkpoint->cursor_place < REGION_PLACES;
         checkpoint->cursor_place++, checkpoint->cursor_page = 0) {
        struct region *region = &core->regions[checkpoint->cursor_place];
        if (!region->mapped || region->pending_count == 0) {
            continue;
        }
        uint64_t page = bit_next(region->pending, checkpoint->cursor_page, region->page_count_frozen);
        ASSERT(page < region->page_count_frozen); /* the cursor has never passed a pending page */
        checkpoint->cursor_page = page;
        page_run_send(core, cio, region, page);
        return true;
    }
    return false;
}

/* ---- Tables and roots ---------------------------------------------------------------------------------------------- */

/* The next table block from the cursor on that has a frozen page; advances the cursor past it. */
static struct region *block_next(struct core *core, uint64_t *ret_block) {
    struct checkpoint *checkpoint = &core->checkpoint;
    for (; checkpoint->cursor_place < REGION_PLACES;
         checkpoint->cursor_place++, checkpoint->cursor_page = 0) {
        struct region *region = &core->regions[checkpoint->cursor_place];
        if (region->frozen_count == 0) {
            continue;
        }
        uint64_t page = bit_next(region->frozen, checkpoint->cursor_page, region->page_count_frozen);
        if (page < region->page_count_frozen) {
            *ret_block = page / TABLE_BLOCK_PAGES;
            checkpoint->cursor_page = (*ret_block + 1) * TABLE_BLOCK_PAGES;
            return region;
        }
    }
    return NULL;
}

static uint64_t block_offset(const struct region *region, uint64_t block) {
    return (block * 2 + (region->memory.blocks[block].slot == SLOT_B)) * TABLE_BLOCK_SIZE;
}

static void roots_build(struct core *core) {
    struct checkpoint *checkpoint = &core->checkpoint;
    struct roots_header *header = (struct roots_header *)checkpoint->roots;
    *header = (struct roots_header){.magic = ROOTS_MAGIC, .index = checkpoint->next.index};
    uint64_t size = sizeof(*header);
    for (uint32_t place = 0; place < REGION_PLACES; place++) {
        const struct region *region = &core->regions[place];
        if (!region->mapped || region->page_count_frozen == 0) {
            continue;
        }
        uint64_t blocks = block_count(region->page_count_frozen);
        struct roots_region *entry = (struct roots_region *)(checkpoint->roots + size);
        *entry = (struct roots_region){.region = region->number,
                                       .block_count = (uint32_t)blocks,
                                       .page_count = region->page_count_frozen,
                                       .size_max = region->size_max};
        size += sizeof(*entry);
        ASSERT(size + blocks * sizeof(struct block_entry) <= checkpoint->roots_max);
        memcpy(checkpoint->roots + size, region->memory.blocks, blocks * sizeof(struct block_entry));
        size += blocks * sizeof(struct block_entry);
        header->region_count++;
    }
    memset(checkpoint->roots + size, 0, align_up(size, PAGE_SIZE) - size);
    checkpoint->next.roots_size = size;
    checkpoint->next.roots_crc = crc32c(0, checkpoint->roots, size);
    checkpoint->next.roots_slot = !core->superblock.roots_slot; /* P3 */
}

static struct file_id roots_file(const struct core *core) {
    return (struct file_id){.kind = FILE_ROOTS, .slot = (uint16_t)core->checkpoint.next.roots_slot};
}

static bool table_next(struct core *core, struct checkpoint_io *cio) {
    struct checkpoint *checkpoint = &core->checkpoint;
    uint64_t block;
    struct region *region = block_next(core, &block);
    if (region != NULL) {
        memcpy(cio->buffer, &region->memory.pages[block * TABLE_BLOCK_PAGES], TABLE_BLOCK_SIZE);
        struct block_entry *entry = &region->memory.blocks[block];
        entry->slot = slot_other(entry->slot);
        entry->crc = crc32c(0, cio->buffer, TABLE_BLOCK_SIZE);
        write_send(core, cio, table_file(region), block_offset(region, block), cio->buffer, TABLE_BLOCK_SIZE,
                   false);
        return true;
    }
    if (checkpoint->step == 0) { /* all blocks are sent: their entries are final */
        checkpoint->step = 1;
        roots_build(core);
        write_send(core, cio, roots_file(core), 0, checkpoint->roots,
                   align_up(checkpoint->next.roots_size, PAGE_SIZE), false);
        return true;
    }
    return false;
}

/* Syncs, one file after the other. step counts the files of a region. */
static bool sync_next(struct core *core, struct checkpoint_io *cio, bool tables) {
    struct checkpoint *checkpoint = &core->checkpoint;
    if (MUTANT(SKIP_PAGES_SYNC)) {
        return false;
    }
    for (; checkpoint->cursor_place < REGION_PLACES; checkpoint->cursor_place++) {
        const struct region *region = &core->regions[checkpoint->cursor_place];
        if (region->frozen_count == 0) {
            continue;
        }
        struct file_id file =
            tables ? table_file(region) : pages_file(region, checkpoint->step == 0 ? SLOT_A : SLOT_B);
        checkpoint->step = tables ? 0 : !checkpoint->step;
        checkpoint->cursor_place += checkpoint->step == 0;
        io_send(core, cio, (struct io){.kind = IO_SYNC, .file = file});
        return true;
    }
    if (tables && checkpoint->step == 0) {
        checkpoint->step = 1;
        io_send(core, cio, (struct io){.kind = IO_SYNC, .file = roots_file(core)});
        return true;
    }
    return false;
}

/* ---- Reading back -------------------------------------------------------------------------------------------------- */

enum read_back { READ_BACK_PAGES, READ_BACK_TABLE, READ_BACK_ROOTS };

static bool read_back_pages_next(struct core *core, struct checkpoint_io *cio) {
    struct checkpoint *checkpoint = &core->checkpoint;
    for (; checkpoint->cursor_place < REGION_PLACES;
         checkpoint->cursor_place++, checkpoint->cursor_page = 0) {
        struct region *region = &core->regions[checkpoint->cursor_place];
        if (region->frozen_count == 0) {
            continue;
        }
        uint64_t first = bit_next(region->frozen, checkpoint->cursor_page, region->page_count_frozen);
        if (first == region->page_count_frozen) {
            continue;
        }
        uint32_t slot = region->memory.pages[first].slot;
        uint64_t count = 1;
        while (count < IO_PAGES && first + count < region->page_count_frozen &&
               bit_get(region->frozen, first + count) && region->memory.pages[first + count].slot == slot) {
            count++;
        }
        checkpoint->cursor_page = first + count;
        cio->region_place = checkpoint->cursor_place;
        cio->page = first;
        cio->count = (uint32_t)count;
        read_send(core, cio, pages_file(region, slot), first * PAGE_SIZE, count * PAGE_SIZE);
        return true;
    }
    return false;
}

static bool read_back_next(struct core *core, struct checkpoint_io *cio) {
    struct checkpoint *checkpoint = &core->checkpoint;
    if (MUTANT(SKIP_READ_BACK)) {
        return false;
    }
    if (checkpoint->step == READ_BACK_PAGES) {
        if (read_back_pages_next(core, cio)) {
            return true;
        }
        checkpoint->step = READ_BACK_TABLE;
        checkpoint->cursor_place = 0;
        checkpoint->cursor_page = 0;
    }
    if (checkpoint->step == READ_BACK_TABLE) {
        uint64_t block;
        struct region *region = block_next(core, &block);
        if (region != NULL) {
            cio->region_place = region_place(core, region);
            cio->page = block;
            cio->count = 0;
            read_send(core, cio, table_file(region), block_offset(region, block), TABLE_BLOCK_SIZE);
            return true;
        }
        checkpoint->step = READ_BACK_ROOTS;
        checkpoint->roots_checked = 0;
        checkpoint->roots_crc = 0;
    }
    if (checkpoint->roots_checked < checkpoint->next.roots_size && !checkpoint->roots_busy) {
        checkpoint->roots_busy = true; /* in order, because its checksum runs through all of it */
        uint64_t size = align_up(checkpoint->next.roots_size, PAGE_SIZE) - checkpoint->roots_checked;
        read_send(core, cio, roots_file(core), checkpoint->roots_checked, min_u64(size, CHECKPOINT_IO_BYTES));
        return true;
    }
    return false;
}

static void read_back_check(struct core *core, struct checkpoint_io *cio) {
    struct checkpoint *checkpoint = &core->checkpoint;
    const struct region *region = &core->regions[cio->region_place];
    bool right = true;
    if (cio->io.file.kind == FILE_PAGES) {
        for (uint32_t i = 0; i < cio->count; i++) {
            right = right && crc32c(0, cio->buffer + i * PAGE_SIZE, PAGE_SIZE) ==
                                 region->memory.pages[cio->page + i].crc;
        }
    } else if (cio->io.file.kind == FILE_TABLE) {
        right = crc32c(0, cio->buffer, TABLE_BLOCK_SIZE) == region->memory.blocks[cio->page].crc;
    } else {
        uint64_t part = min_u64(checkpoint->next.roots_size - checkpoint->roots_checked, cio->io.size);
        checkpoint->roots_crc = crc32c(checkpoint->roots_crc, cio->buffer, part);
        checkpoint->roots_checked += part;
        checkpoint->roots_busy = false;
        right = checkpoint->roots_checked < checkpoint->next.roots_size ||
                checkpoint->roots_crc == checkpoint->next.roots_crc;
    }
    if (!right) {
        core_stop(core, SHELF_IO, "checkpoint", "what was just written reads back differently", cio->io.file,
                  cio->io.offset, checkpoint->next.index);
    }
}

/* ---- Superblock and end -------------------------------------------------------------------------------------------- */

void checkpoint_copies_fill(struct core *core, struct superblock *block) {
    block->crc = block->copy = 0;
    block->crc = crc32c(0, block, sizeof(*block));
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES; copy++) {
        struct superblock *out =
            (struct superblock *)(core->checkpoint.superblock_buffer + copy * SUPERBLOCK_SIZE);
        *out = *block;
        out->copy = copy;
    }
}

static bool superblock_next(struct core *core, struct checkpoint_io *cio, uint32_t first_copy) {
    struct checkpoint *checkpoint = &core->checkpoint;
    if (checkpoint->step != 0) {
        return false;
    }
    checkpoint->step = 1;
    if (first_copy == 0) {
        checkpoint_copies_fill(core, &checkpoint->next);
    }
    uint32_t copies = MUTANT(ONE_SUPERBLOCK_COPY) ? 1 : 2;
    if (copies == 1 && first_copy != 0) { /* only with MUTANT */
        return false;
    }
    write_send(core, cio, (struct file_id){.kind = FILE_SUPERBLOCK}, first_copy * SUPERBLOCK_SIZE,
               checkpoint->superblock_buffer + first_copy * SUPERBLOCK_SIZE, copies * SUPERBLOCK_SIZE, true);
    return true;
}

/* Removes what belongs to dropped regions, one io after the other. */
static bool trim_next(struct core *core) {
    if (core->checkpoint.step == 1) {
        core->remove_io = (struct io){.kind = IO_UNMAP, .file = core->remove_io.file};
        core_issue(core, &core->remove_io, PURPOSE_REMOVE);
        return true;
    }
    for (uint32_t place = 1; place < REGION_PLACES; place++) {
        struct region *region = &core->regions[place];
        if (region->number == 0 || !region->mapped || region->applied_live || region->admitted_live ||
            region->page_count_frozen != 0 ||
            region->created_index > core->superblock.index || /* its records may not even be applied */
            donate_reads(core, region->number) ||
            (core->control.state != CONTROL_IDLE && core->control.region == region)) {
            continue;
        }
        core->remove_io =
            (struct io){.kind = IO_REMOVE, .file = {.kind = FILE_PAGES, .region = region->number}};
        core_issue(core, &core->remove_io, PURPOSE_REMOVE);
        return true;
    }
    return false;
}

static void on_removed(struct core *core, struct io *io) {
    if (core_io_failed(core, io, "files of a dropped region")) {
        return;
    }
    if (core->checkpoint.step == 0) {
        core->checkpoint.step = 1;
        return;
    }
    core->checkpoint.step = 0;
    region_place_release(core, region_find(core, io->file.region));
}

static void checkpoint_published(struct core *core) {
    struct checkpoint *checkpoint = &core->checkpoint;
    SOMETIMES(CHECKPOINT_DURABLE);
    core->superblock = checkpoint->next;
    log_trim(core, core->superblock.segment_sequence); /* P4 */
    core->log.applied_bytes -= checkpoint->log_bytes_at_start;
    for (uint32_t place = 0; place < REGION_PLACES; place++) {
        struct region *region = &core->regions[place];
        if (region->mapped && region->frozen_count > 0) {
            memset(region->frozen, 0, divide_up(region->page_count_frozen, 64) * sizeof(uint64_t));
            region->frozen_count = 0;
        }
    }
}

static void checkpoint_ended(struct core *core) {
    core->checkpoint.state = CHECKPOINT_IDLE;
    core->checkpoint.answer = true;
}

/* Tells who waited, in a step that has no other answers to give. */
static void waiters_answer(struct core *core) {
    struct checkpoint *checkpoint = &core->checkpoint;
    if (!checkpoint->answer || core->effects->reply_count > 0) {
        return;
    }
    checkpoint->answer = false;
    for (uint32_t i = 0; i < checkpoint->waiter_count; i++) {
        struct reply reply = {.token = checkpoint->waiters[i],
                              .receipt = {.index = core->superblock.index, .epoch = core->epoch}};
        core_reply_out(core, &reply);
    }
    memcpy(checkpoint->waiters, checkpoint->waiters_next, sizeof(checkpoint->waiters));
    checkpoint->waiter_count = checkpoint->waiter_count_next;
    checkpoint->waiter_count_next = 0;
    checkpoint->wanted = checkpoint->wanted || checkpoint->waiter_count > 0;
}

/* ---- The machine --------------------------------------------------------------------------------------------------- */

/* Sends the next io of the state; false if it has none left to send. */
static bool state_next(struct core *core, struct checkpoint_io *cio) {
    switch ((enum checkpoint_state)core->checkpoint.state) {
    case CHECKPOINT_PAGES:
        return pages_next(core, cio);
    case CHECKPOINT_PAGES_SYNC:
        return sync_next(core, cio, false);
    case CHECKPOINT_TABLE:
        return table_next(core, cio);
    case CHECKPOINT_TABLE_SYNC:
        return sync_next(core, cio, true);
    case CHECKPOINT_READ_BACK:
        return read_back_next(core, cio);
    case CHECKPOINT_SUPERBLOCK:
        return superblock_next(core, cio, 0);
    case CHECKPOINT_SUPERBLOCK_SECOND:
        return superblock_next(core, cio, 2);
    case CHECKPOINT_IDLE:
    case CHECKPOINT_TRIM:
        break;
    }
    return false;
}

static void state_enter_next(struct core *core) {
    struct checkpoint *checkpoint = &core->checkpoint;
    if (checkpoint->state == CHECKPOINT_SUPERBLOCK_SECOND && checkpoint->early) { /* only with MUTANT */
        checkpoint->early = false;
        checkpoint->state = CHECKPOINT_PAGES;
    } else {
        checkpoint->state++;
    }
    checkpoint->step = 0;
    checkpoint->cursor_place = 0;
    checkpoint->cursor_page = 0;
    if (checkpoint->state == CHECKPOINT_TRIM) {
        checkpoint_published(core);
    }
}

static bool checkpoint_should_begin(const struct core *core) {
    const struct checkpoint *checkpoint = &core->checkpoint;
    bool ends = core->closed || core->closing_hint;
    if (!core->open || checkpoint->state != CHECKPOINT_IDLE || checkpoint->answer || ends) {
        return false;
    }
    bool due = checkpoint->wanted || core->log.applied_bytes >= core->config.checkpoint_log_bytes;
    bool held = (core->hold_checkpoint || donate_holds_checkpoint(core)) && !checkpoint->log_needs &&
                checkpoint->waiter_count == 0 && !core->closing;
    return due && !held && !install_holds_checkpoint(core);
}

void checkpoint_continue(struct core *core) {
    struct checkpoint *checkpoint = &core->checkpoint;
    if (checkpoint_should_begin(core)) {
        checkpoint_begin(core);
    }
    while (checkpoint->state != CHECKPOINT_IDLE && checkpoint->state != CHECKPOINT_TRIM) {
        struct checkpoint_io *cio = io_take(core);
        if (cio != NULL && state_next(core, cio)) {
            continue;
        }
        if (checkpoint->busy_count > 0) {
            break; /* P1 */
        }
        state_enter_next(core);
    }
    if (checkpoint->state == CHECKPOINT_TRIM && !core->remove_io.busy && !trim_next(core)) {
        checkpoint_ended(core);
    }
    waiters_answer(core);
    if (checkpoint_should_begin(core)) {
        checkpoint_continue(core); /* for those who came too late for this one: no other event may follow */
    }
}

void checkpoint_on_io(struct core *core, struct io *io) {
    struct checkpoint *checkpoint = &core->checkpoint;
    if (io->purpose == PURPOSE_REMOVE) {
        on_removed(core, io);
        return;
    }
    struct checkpoint_io *cio = (struct checkpoint_io *)io; /* its first member */
    if (io->result == IO_RESULT_NO_SPACE) {
        SOMETIMES(CHECKPOINT_NO_SPACE);
        cio->retry = true; /* P5 */
        return;
    }
    if (core_io_failed(core, io, "checkpoint")) {
        return;
    }
    cio->taken = false;
    checkpoint->busy_count--;
    if (io->kind == IO_READ) {
        read_back_check(core, cio);
    }
}

void checkpoint_on_tick(struct core *core) {
    struct checkpoint *checkpoint = &core->checkpoint;
    for (uint32_t i = 0; i < CHECKPOINT_IOS; i++) {
        if (checkpoint->ios[i].retry) {
            checkpoint->ios[i].retry = false;
            core_issue(core, &checkpoint->ios[i].io, PURPOSE_CHECKPOINT);
        }
    }
    if (checkpoint->state == CHECKPOINT_IDLE && core->applied > core->superblock.index &&
        core->now_ms - checkpoint->last_start_ms >= core->config.checkpoint_interval_ms &&
        checkpoint_dirty(core)) {
        checkpoint->wanted = true;
    }
}

void checkpoint_on_event(struct core *core, uint64_t token) {
    struct checkpoint *checkpoint = &core->checkpoint;
    if (core->stopped || !core->open) {
        core_reply_direct(core, token, core->stopped ? SHELF_IO : SHELF_UNAVAILABLE,
                          core->stopped ? REASON_NODE_STOPPED : REASON_NODE_NOT_READY);
        return;
    }
    bool idle = checkpoint->state == CHECKPOINT_IDLE && !checkpoint->answer;
    uint32_t *count = idle ? &checkpoint->waiter_count : &checkpoint->waiter_count_next;
    uint64_t *waiters = idle ? checkpoint->waiters : checkpoint->waiters_next;
    if (*count == ARRAY_COUNT(checkpoint->waiters)) {
        core->effects->refused = true; /* those before it have set ios in motion */
        return;
    }
    waiters[(*count)++] = token;
    checkpoint->wanted = checkpoint->wanted || idle;
}
