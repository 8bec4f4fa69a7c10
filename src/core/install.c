// SPDX-License-Identifier: Apache-2.0
/*
 * install.c: a node that the primary's log does not reach any more gets a peer's checkpoint (rule D1): the transfer.
 *
 *     WAITS   until a checkpoint of its own is through: the same slots, buffers and roots are used
 *     ROOTS   the donor's roots; their checksum was in the offer
 *     FILES   space for all regions
 *     PAGES   block after block: the donor's table block, then its pages; each is checked, and written to the slot that the own
 *             durable superblock does not use, with a table block of its own
 *     ...     install_end.c: durable, read back, superblock. Then this process has nothing left to do but to be started again, and
 *             recovery finds a checkpoint like any other, and begins the log anew (anew.c)
 *
 *   I1  Until the new superblock is durable the old image, checkpoint and log are whole, and the node goes on as what it is: it
 *       promises and acknowledges what it has, no more.
 *   I2  A transfer goes on only with the checkpoint that it began with, by index, epoch and checksum of its roots; whoever
 *       donates. With any other it begins anew.
 *   I3  Nothing is written that was not checked against the level above.
 *   I4  What is behind the checkpoint in the own log conflicts with it, or the transfer is given up: when a record is received,
 *       and once more before the superblock is written. From then on nothing is received.
 *   I5  At most INSTALL_PARTS pieces are asked for at a time.
 */
#include "core/state.h"

_Static_assert(PEER_PART_BYTES_MAX <= CHECKPOINT_IO_BYTES, "a part fits into a checkpoint's buffer");

#define SILENT_RETRIES 40u /* unanswered: the transfer is given up */

static bool same_mark(struct log_mark a, struct log_mark b) {
    return a.index == b.index && a.epoch == b.epoch;
}

static bool follows(const struct core *core) {
    uint32_t role = core->cluster.group.role;
    return core->cluster.running && (role == GROUP_FOLLOWS || role == GROUP_SUSPECTS);
}

static struct install_part *part_free(struct install *install) {
    for (uint32_t i = 0; i < INSTALL_PARTS; i++) {
        if (install->parts[i].state == PART_FREE && !install->parts[i].io.busy) {
            return &install->parts[i];
        }
    }
    return NULL;
}

static bool parts_all_free(const struct install *install) {
    bool all = true;
    for (uint32_t i = 0; i < INSTALL_PARTS; i++) {
        all &= install->parts[i].state == PART_FREE && !install->parts[i].io.busy;
    }
    return all;
}

static void parts_forget(struct core *core) {
    struct install *install = &core->cluster.install;
    for (uint32_t i = 0; i < INSTALL_PARTS; i++) {
        struct install_part *part = &install->parts[i];
        part->state = PART_FREE;
        part->retry = false;
        part->buffer = core->checkpoint.ios[i].buffer;
    }
}

bool install_ends(const struct core *core) {
    const struct install *install = &core->cluster.install;
    return install->state > INSTALL_SUPERBLOCK || (install->state == INSTALL_SUPERBLOCK && install->step > 0);
}

bool install_holds_checkpoint(const struct core *core) {
    return core->cluster.install.state != INSTALL_NONE ||
           (core->cluster.on && !parts_all_free(&core->cluster.install));
}

void install_give_up(struct core *core) {
    struct install *install = &core->cluster.install;
    if (install->state != INSTALL_NONE && !install_ends(core)) {
        SOMETIMES(INSTALL_GIVEN_UP);
        install->state = INSTALL_NONE;
        parts_forget(core); /* (what is under way keeps its buffer until it is done) */
    }
}

/* I4: does the own log hold less than the checkpoint, or what conflicts with it? */
bool install_needed(const struct core *core, struct log_mark mark) {
    const struct tail_record *record = tail_find(core, mark.index);
    if (core->cluster.commit >= mark.index) {
        return false;
    }
    return record != NULL ? record->identity.epoch != mark.epoch : core->log.last.index < mark.index;
}

/* ---- Asking ------------------------------------------------------------------------------------------------------- */

static void part_ask_again(struct core *core, struct install_part *part) {
    const struct install *install = &core->cluster.install;
    struct peer_message message = {.kind = PEER_PART_ASK,
                                   .from = core->config.group.node,
                                   .epoch = core->cluster.group.promised,
                                   .index = install->mark.index,
                                   .index_epoch = install->mark.epoch,
                                   .body = &part->part,
                                   .body_size = sizeof(part->part)};
    memcpy(message.incarnation, core->superblock.incarnation, sizeof(message.incarnation));
    part->asked_ms = core->cluster.now_ms;
    cluster_letter(core, install->donor, &message);
}

static void part_ask(struct core *core, struct install_part *part, struct peer_part what) {
    what.roots_crc = core->cluster.install.offer.roots_crc;
    part->part = what;
    part->state = PART_ASKED;
    part_ask_again(core, part);
}

/* ---- Begin -------------------------------------------------------------------------------------------------------- */

void install_on_offer(struct core *core, const struct peer_message *message) {
    struct install *install = &core->cluster.install;
    const struct group_node *group = &core->cluster.group;
    const struct log_mark mark = {.index = message->index, .epoch = message->index_epoch};
    struct peer_checkpoint offer;
    memcpy(&offer, message->body, sizeof(offer));
    bool leader = message->from == group->leader && message->epoch == group->promised &&
                  group->leader_epoch == group->promised;
    if (!follows(core) || !leader || core->closing || install_ends(core) ||
        offer.alignment != core->superblock.alignment || offer.roots_size > core->checkpoint.roots_max) {
        return;
    }
    if (!install_needed(core, mark)) {
        SOMETIMES(INSTALL_NOT_NEEDED);
        return;
    }
    if (install->state != INSTALL_NONE && same_mark(mark, install->mark) &&
        offer.roots_crc == install->offer.roots_crc) { /* I2 */
        install->donor = message->from;
        return;
    }
    if (install->state != INSTALL_NONE) {
        SOMETIMES(INSTALL_ANEW);
    }
    install->mixed = MUTANT(INSTALL_MIXED) && install->state == INSTALL_PAGES &&
                     offer.roots_size == install->offer.roots_size; /* only with MUTANT */
    install->state = INSTALL_WAITS;
    install->donor = message->from;
    install->mark = mark;
    install->offer = offer;
    install->moved_ms = core->cluster.now_ms;
    parts_forget(core);
}

static bool may_begin(const struct core *core) {
    return core->checkpoint.state == CHECKPOINT_IDLE && !core->remove_io.busy && cluster_settled(core) &&
           parts_all_free(&core->cluster.install);
}

/* ---- Roots -------------------------------------------------------------------------------------------------------- */

static bool roots_next(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    uint64_t left = align_up(install->offer.roots_size, PAGE_SIZE) - install->asked;
    if (left == 0) {
        return false;
    }
    struct peer_part what = {.kind = PEER_PART_ROOTS,
                             .offset = install->asked,
                             .size = (uint32_t)min_u64(left, PEER_PART_BYTES_MAX)};
    install->asked += what.size;
    part_ask(core, part, what);
    return true;
}

struct roots_region *install_region(const struct core *core, uint8_t *roots) {
    const struct install *install = &core->cluster.install;
    return install->entry < install->offer.roots_size ? (struct roots_region *)(roots + install->entry)
                                                      : NULL;
}

static uint64_t entry_size(const struct roots_region *entry) {
    return sizeof(*entry) + (uint64_t)entry->block_count * sizeof(struct block_entry);
}

void install_region_pass(struct core *core) {
    struct install *install = &core->cluster.install;
    install->entry += entry_size(install_region(core, install->theirs));
    install->block = install->step = 0;
}

/* As recovery will look at them: what it would refuse is never installed. */
static bool roots_sane(const struct install *install) {
    const struct roots_header *header = (const struct roots_header *)install->theirs;
    uint64_t at = sizeof(*header), size = install->offer.roots_size;
    uint32_t count = 0;
    bool sane = header->magic == ROOTS_MAGIC && header->index == install->mark.index && at < size;
    for (; sane && at < size; count++) {
        const struct roots_region *entry = (const struct roots_region *)(install->theirs + at);
        sane = roots_region_sane(entry, size - at, at == sizeof(*header));
        for (uint64_t before = sizeof(*header); sane && before < at;) {
            const struct roots_region *other = (const struct roots_region *)(install->theirs + before);
            sane = other->region != entry->region;
            before += entry_size(other);
        }
        at += sane ? entry_size(entry) : 0;
    }
    return sane && count == header->region_count && count <= REGION_PLACES;
}

static void roots_here(struct core *core) {
    struct install *install = &core->cluster.install;
    uint64_t size = install->offer.roots_size, keep = sizeof(struct roots_header);
    bool right = crc32c(0, install->theirs, size) == install->offer.roots_crc;
    if (!right) { /* I3: once more */
        SOMETIMES(INSTALL_DAMAGED);
        install->asked = install->done = 0;
        return;
    }
    if (!roots_sane(install)) {
        install_give_up(core);
        return;
    }
    memcpy(core->checkpoint.roots, install->theirs, keep);
    if (install->mixed) { /* only with MUTANT */
        const struct roots_region *entry = install_region(core, install->theirs);
        keep = entry == NULL ? size
                             : install->entry + sizeof(*entry) + install->block * sizeof(struct block_entry);
    } else {
        install->entry = sizeof(struct roots_header);
        install->block = 0;
    }
    memcpy(core->checkpoint.roots + keep, install->theirs + keep, size - keep);
    memset(core->checkpoint.roots + size, 0, align_up(size, PAGE_SIZE) - size);
    install->kept_entry = install->entry;
    install->kept_block = install->block;
    install->entry = sizeof(struct roots_header);
    install->step = 0;
    install->state = INSTALL_FILES;
}

/* ---- Files -------------------------------------------------------------------------------------------------------- */

static void part_io(struct core *core, struct install_part *part, struct io io) {
    part->io = io;
    part->state = PART_WRITES;
    core_issue(core, &part->io, PURPOSE_INSTALL);
}

static bool files_next(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    const struct roots_region *entry = install_region(core, install->theirs);
    uint32_t step = install->step;
    struct io io = {.kind = IO_RESERVE};
    if (entry == NULL && step == 2 && MUTANT(INSTALL_LOG_EARLY)) { /* only with MUTANT */
        install->step++;
        part_io(core, part,
                (struct io){.kind = IO_WRITE,
                            .file = {.kind = FILE_LOG},
                            .offset = core->log.head_place * LOG_SEGMENT_BYTES,
                            .size = ZERO_BYTES,
                            .buffer = core->log.zeros,
                            .durable = 1});
        return true;
    }
    if (entry == NULL && step >= 2) {
        return false;
    }
    if (entry == NULL) {
        io.file = (struct file_id){.kind = FILE_ROOTS, .slot = (uint16_t)step};
        io.size = align_up(install->offer.roots_size, PAGE_SIZE);
    } else if (step < 2) {
        io.file = (struct file_id){.kind = FILE_PAGES, .slot = (uint16_t)step, .region = entry->region};
        io.size = entry->page_count * PAGE_SIZE;
    } else {
        io.file = (struct file_id){.kind = FILE_TABLE, .region = entry->region};
        io.size = (uint64_t)entry->block_count * 2 * TABLE_BLOCK_SIZE;
    }
    install->step++;
    if (entry != NULL && install->step == 3) {
        install_region_pass(core);
    }
    part_io(core, part, io);
    return true;
}

/* ---- Pages -------------------------------------------------------------------------------------------------------- */

static struct page_entry *table_theirs(const struct install *install) {
    return (struct page_entry *)install->table;
}

static struct page_entry *table_ours(const struct install *install) {
    return (struct page_entry *)(install->table + TABLE_BLOCK_SIZE);
}

static struct block_entry *block_entry(struct roots_region *entry, uint32_t block) {
    return (struct block_entry *)(entry + 1) + block;
}

static uint32_t slot_other(uint32_t slot) {
    if (MUTANT(INSTALL_LIVE_SLOT) && slot != SLOT_NONE) {
        return slot;
    }
    return slot == SLOT_A ? SLOT_B : SLOT_A;
}

/* What the durable superblock does not use (I1). */
static uint32_t page_slot(const struct core *core, uint32_t number, uint64_t page) {
    const struct region *region = region_find(core, number);
    bool known = region != NULL && region->mapped && page < region->size_mapped / PAGE_SIZE;
    return slot_other(known ? region->memory.pages[page].slot : SLOT_NONE);
}

static uint32_t block_slot(const struct core *core, uint32_t number, uint64_t block) {
    const struct region *region = region_find(core, number);
    bool known = region != NULL && region->mapped &&
                 block < divide_up(region->size_mapped / PAGE_SIZE, TABLE_BLOCK_PAGES);
    return slot_other(known ? region->memory.blocks[block].slot : SLOT_NONE);
}

uint32_t install_block_pages(const struct roots_region *entry, uint32_t block) {
    return (uint32_t)min_u64(TABLE_BLOCK_PAGES, entry->page_count - (uint64_t)block * TABLE_BLOCK_PAGES);
}

uint32_t install_run(const struct page_entry *pages, uint32_t *from, uint32_t end) {
    uint32_t count = 0;
    while (*from < end && pages[*from].slot == SLOT_NONE) {
        (*from)++;
    }
    while (*from + count < end && count < PEER_PART_BYTES_MAX / PAGE_SIZE &&
           pages[*from + count].slot == pages[*from].slot) {
        count++;
    }
    return count;
}

static void table_ask(struct core *core, struct install_part *part, const struct roots_region *entry,
                      uint32_t slot) {
    uint32_t block = core->cluster.install.block;
    part_ask(core, part,
             (struct peer_part){.kind = PEER_PART_TABLE,
                                .region = entry->region,
                                .offset = ((uint64_t)block * 2 + (slot == SLOT_B)) * TABLE_BLOCK_SIZE,
                                .size = TABLE_BLOCK_SIZE});
}

static void table_write(struct core *core, struct install_part *part, const struct roots_region *entry) {
    struct install *install = &core->cluster.install;
    struct block_entry *ours = block_entry(install_region(core, core->checkpoint.roots), install->block);
    ours->slot = block_slot(core, entry->region, install->block);
    ours->crc = crc32c(0, table_ours(install), TABLE_BLOCK_SIZE);
    part_io(core, part,
            (struct io){.kind = IO_WRITE,
                        .file = {.kind = FILE_TABLE, .region = entry->region},
                        .offset = ((uint64_t)install->block * 2 + (ours->slot == SLOT_B)) * TABLE_BLOCK_SIZE,
                        .size = TABLE_BLOCK_SIZE,
                        .buffer = table_ours(install)});
}

/* The next question or, behind a block's last page, its table. False: nothing to be done before something has come. */
static bool pages_next(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    struct roots_region *entry;
    while ((entry = install_region(core, install->theirs)) != NULL) {
        if (install->block == entry->block_count) {
            install_region_pass(core);
            continue;
        }
        const struct block_entry *theirs = block_entry(entry, install->block);
        if (theirs->slot == SLOT_NONE) {
            install->block++;
            continue;
        }
        if (!install->table_here) {
            if (!parts_all_free(install)) {
                return false;
            }
            table_ask(core, part, entry, theirs->slot);
            return true;
        }
        uint32_t first = install->page, end = install_block_pages(entry, install->block);
        uint32_t count = install_run(table_theirs(install), &first, end);
        if (count > 0) {
            part->page = (uint64_t)install->block * TABLE_BLOCK_PAGES + first;
            part->count = count;
            part->written = 0;
            install->page = first + count;
            part_ask(core, part,
                     (struct peer_part){.kind = PEER_PART_PAGES,
                                        .slot = table_theirs(install)[first].slot == SLOT_B,
                                        .region = entry->region,
                                        .offset = part->page * PAGE_SIZE,
                                        .size = count * PAGE_SIZE});
            return true;
        }
        if (!parts_all_free(install)) {
            return false;
        }
        table_write(core, part, entry);
        return true;
    }
    return false;
}

/* ---- What comes --------------------------------------------------------------------------------------------------- */

static bool table_take(struct core *core, const uint8_t *bytes) {
    struct install *install = &core->cluster.install;
    const struct block_entry *theirs = block_entry(install_region(core, install->theirs), install->block);
    if (crc32c(0, bytes, TABLE_BLOCK_SIZE) != theirs->crc) {
        return false; /* I3 */
    }
    memcpy(table_theirs(install), bytes, TABLE_BLOCK_SIZE);
    memset(table_ours(install), 0, TABLE_BLOCK_SIZE);
    install->table_here = true;
    install->page = 0;
    for (uint32_t i = 0; i < TABLE_BLOCK_PAGES; i++) {
        if (table_theirs(install)[i].slot > SLOT_B) {
            install_give_up(core); /* its checksum is right, but it makes no sense */
            break;
        }
    }
    return true;
}

/* The next of a part's pages that go to the same slot. */
static void pages_write(struct core *core, struct install_part *part) {
    struct install *install = &core->cluster.install;
    uint32_t region = part->part.region, count = 1;
    uint64_t first = part->page + part->written;
    uint32_t slot = table_ours(install)[first % TABLE_BLOCK_PAGES].slot;
    while (part->written + count < part->count &&
           table_ours(install)[(first + count) % TABLE_BLOCK_PAGES].slot == slot) {
        count++;
    }
    part_io(core, part,
            (struct io){.kind = IO_WRITE,
                        .file = {.kind = FILE_PAGES, .slot = slot == SLOT_B, .region = region},
                        .offset = first * PAGE_SIZE,
                        .size = (uint64_t)count * PAGE_SIZE,
                        .buffer = part->buffer + (size_t)part->written * PAGE_SIZE});
    part->written += count;
}

static bool pages_take(struct core *core, struct install_part *part, const uint8_t *bytes) {
    struct install *install = &core->cluster.install;
    for (uint32_t i = 0; i < part->count; i++) {
        uint32_t at = (uint32_t)((part->page + i) % TABLE_BLOCK_PAGES);
        if (crc32c(0, bytes + (size_t)i * PAGE_SIZE, PAGE_SIZE) != table_theirs(install)[at].crc &&
            !MUTANT(INSTALL_UNCHECKED)) {
            return false; /* I3 */
        }
    }
    memcpy(part->buffer, bytes, (size_t)part->count * PAGE_SIZE);
    for (uint32_t i = 0; i < part->count; i++) {
        uint32_t at = (uint32_t)((part->page + i) % TABLE_BLOCK_PAGES);
        table_ours(install)[at].crc = crc32c(0, part->buffer + (size_t)i * PAGE_SIZE, PAGE_SIZE);
        table_ours(install)[at].slot = page_slot(core, part->part.region, part->page + i);
    }
    pages_write(core, part);
    return true;
}

static bool roots_take(struct install *install, const struct peer_part *part, const uint8_t *bytes) {
    memcpy(install->theirs + part->offset, bytes, part->size);
    install->done += part->size;
    return true;
}

void install_on_part(struct core *core, const struct peer_message *message) {
    struct install *install = &core->cluster.install;
    const struct log_mark mark = {.index = message->index, .epoch = message->index_epoch};
    struct peer_part what;
    memcpy(&what, message->body, sizeof(what));
    if (install->state < INSTALL_ROOTS || install->state > INSTALL_PAGES || !same_mark(mark, install->mark)) {
        return;
    }
    struct install_part *part = NULL;
    for (uint32_t i = 0; i < INSTALL_PARTS; i++) {
        if (install->parts[i].state == PART_ASKED &&
            memcmp(&install->parts[i].part, &what, sizeof(what)) == 0) {
            part = &install->parts[i];
        }
    }
    if (part == NULL || part->io.busy) {
        return; /* twice, or too late */
    }
    if (message->flags & PEER_FLAG_BEHIND) {
        install_give_up(core); /* the next offer is of a later one */
        return;
    }
    const uint8_t *bytes = (const uint8_t *)message->body + sizeof(what);
    bool taken;
    part->state = PART_FREE;
    if (what.kind == PEER_PART_ROOTS) {
        taken = roots_take(install, &what, bytes);
    } else if (what.kind == PEER_PART_TABLE) {
        taken = table_take(core, bytes);
    } else {
        taken = pages_take(core, part, bytes);
    }
    if (!taken) {
        SOMETIMES(INSTALL_DAMAGED);
        part->state = PART_ASKED; /* again, in a while */
        return;
    }
    if (core->cluster.now_ms - install->moved_ms >= 2 * core->config.group.retry_ms) {
        SOMETIMES(INSTALL_RESUMED);
    }
    install->moved_ms = core->cluster.now_ms;
}

/* ---- The machine -------------------------------------------------------------------------------------------------- */

/* Something to be sent or asked for. */
static bool state_next(struct core *core, struct install_part *part) {
    switch ((enum install_state)core->cluster.install.state) {
    case INSTALL_ROOTS:
        return roots_next(core, part);
    case INSTALL_FILES:
        return files_next(core, part);
    case INSTALL_PAGES:
        return pages_next(core, part);
    case INSTALL_SYNC:
    case INSTALL_TOP:
    case INSTALL_TOP_SYNC:
    case INSTALL_READ_BACK:
    case INSTALL_SUPERBLOCK:
    case INSTALL_SUPERBLOCK_SECOND:
        return install_end_next(core, part);
    case INSTALL_NONE:
    case INSTALL_WAITS:
    case INSTALL_DONE:
        break;
    }
    return false;
}

static void state_enter(struct core *core, enum install_state state) {
    struct install *install = &core->cluster.install;
    install->state = state;
    install->step = install->page = 0;
    install->table_here = false;
    install->asked = install->done = 0;
    install->block = 0;
    install->entry = state == INSTALL_ROOTS && install->mixed ? install->entry : sizeof(struct roots_header);
    if (state == INSTALL_PAGES && install->mixed) { /* only with MUTANT */
        install->entry = install->kept_entry;
        install->block = install->kept_block;
    }
}

/* The state has nothing under way and nothing left. */
static bool state_pass(struct core *core) {
    struct install *install = &core->cluster.install;
    if (install->state == INSTALL_NONE) {
        return false;
    }
    if (install->state == INSTALL_WAITS) {
        if (!may_begin(core)) {
            return false;
        }
        SOMETIMES(INSTALL_BEGUN);
        uint32_t block = install->block;
        state_enter(core, INSTALL_ROOTS);
        install->block = block; /* (only used with MUTANT) */
    } else if (install->state == INSTALL_ROOTS) {
        roots_here(core);
    } else if (install->state == INSTALL_SUPERBLOCK && install->step == 0) {
        return false; /* the log is not at rest */
    } else {
        state_enter(core, install->state + 1);
    }
    return install->state != INSTALL_NONE && install->state != INSTALL_DONE;
}

void install_continue(struct core *core) {
    struct install *install = &core->cluster.install;
    if (install->state == INSTALL_NONE || install->state == INSTALL_DONE || core->stopped) {
        return;
    }
    if (!install_ends(core) && (!follows(core) || core->closing)) {
        install_give_up(core);
        return;
    }
    while (install->state != INSTALL_NONE && !core->stopped) {
        struct install_part *part = part_free(install);
        if (part != NULL && state_next(core, part)) {
            continue;
        }
        if (!parts_all_free(install) || !state_pass(core)) {
            break;
        }
    }
    if (install->state == INSTALL_DONE) {
        SOMETIMES(INSTALL_DONE);
    }
}

void install_on_io(struct core *core, struct io *io) {
    struct install *install = &core->cluster.install;
    struct install_part *part = (struct install_part *)io; /* its first member */
    bool outdated = part->state != PART_WRITES;            /* given up meanwhile */
    if (outdated && io->result == IO_RESULT_NO_SPACE) {
        return;
    }
    if (io->result == IO_RESULT_NO_SPACE) {
        part->retry = true;
        return;
    }
    if (core_io_failed(core, io, "checkpoint") || outdated) {
        return;
    }
    part->state = PART_FREE;
    if (install->state == INSTALL_PAGES && io->file.kind == FILE_TABLE) {
        install->block++;
        install->table_here = false;
    } else if (install->state == INSTALL_PAGES && part->written < part->count) {
        pages_write(core, part);
    } else if (install->state > INSTALL_PAGES) {
        install_end_on_io(core, part);
    }
}

void install_tick(struct core *core) {
    struct install *install = &core->cluster.install;
    bool waits = false;
    for (uint32_t i = 0; i < INSTALL_PARTS && install->state != INSTALL_NONE; i++) {
        struct install_part *part = &install->parts[i];
        waits |= part->state == PART_ASKED;
        if (part->retry) {
            part->retry = false;
            core_issue(core, &part->io, PURPOSE_INSTALL);
        } else if (part->state == PART_ASKED &&
                   core->cluster.now_ms - part->asked_ms >= core->config.group.retry_ms) {
            part_ask_again(core, part);
        }
    }
    if (waits && core->cluster.now_ms - install->moved_ms >= SILENT_RETRIES * core->config.group.retry_ms) {
        install_give_up(core); /* whoever leads will offer again */
    }
}
