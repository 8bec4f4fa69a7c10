// SPDX-License-Identifier: Apache-2.0
/*
 * apply.c: a durable record changes the image. The only place that writes to regions' memory.
 *
 * Readers look on without locks, by the protocol at the head of wire/image.h; this is its writer. In recovery nobody
 * looks on yet: only bytes are copied, and versions stay zero, as they are for what comes from the checkpoint.
 */
#include "core/state.h"

/* A walk over the ranges of a payload. Sizes were checked when the record was built, or by apply_payload_valid(). */
struct range_walk {
    const uint8_t *at, *end;
    const uint8_t *tx_end;
};

static const struct record_range *range_next(struct range_walk *walk) {
    while (walk->at == walk->tx_end) {
        if (walk->at == walk->end) {
            return NULL;
        }
        const struct record_tx *tx = (const struct record_tx *)walk->at;
        walk->at += sizeof(*tx);
        walk->tx_end = walk->at + tx->size;
    }
    const struct record_range *range = (const struct record_range *)walk->at;
    walk->at += sizeof(*range) + align_up(range->size, 8);
    return range;
}

static struct range_walk range_walk(const uint8_t *payload, size_t size) {
    return (struct range_walk){.at = payload, .end = payload + size, .tx_end = payload};
}

/* ---- Copying under the eyes of readers ----------------------------------------------------------------------------- */

/* Within one line. Relaxed atomic stores: a reader may be copying the same bytes out (it will notice). */
static void bytes_store(uint8_t *to, const uint8_t *from, size_t size) {
    while (size > 0 && ((uintptr_t)to & 7u) != 0) {
        __atomic_store_n(to++, *from++, __ATOMIC_RELAXED);
        size--;
    }
    for (; size >= 8; size -= 8, to += 8, from += 8) {
        uint64_t word;
        memcpy(&word, from, sizeof(word));
        __atomic_store_n((uint64_t *)(void *)to, word, __ATOMIC_RELAXED);
    }
    while (size > 0) {
        __atomic_store_n(to++, *from++, __ATOMIC_RELAXED);
        size--;
    }
}

static void line_store(_Atomic uint64_t *version, uint8_t *to, const uint8_t *from, size_t size,
                       uint64_t index) {
    if (MUTANT(BYTES_BEFORE_VERSION)) {
        bytes_store(to, from, size);
        INTERLEAVE(APPLY);
    }
    if (MUTANT(VERSION_BEFORE_BYTES)) {
        atomic_store_explicit(version, index << 1, memory_order_release);
        INTERLEAVE(APPLY);
        bytes_store(to, from, size);
        return;
    }
    atomic_store_explicit(version, index << 1 | VERSION_WRITING, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    INTERLEAVE(APPLY);
    bytes_store(to, from, size);
    atomic_store_explicit(version, index << 1, memory_order_release);
    INTERLEAVE(APPLY);
}

void apply_region_changed(struct core *core, struct region *region) {
    if (!region->changed) {
        region->changed = true;
        core->changed[core->changed_count++] = (uint16_t)region->number;
    }
}

/* Within one page. Its version says so before the first of its bytes changes: line_store() has the fence. */
static void page_store(struct region_memory *memory, uint64_t offset, const uint8_t *from, size_t size,
                       uint64_t index) {
    _Atomic uint64_t *version = &memory->page_versions[offset >> PAGE_SHIFT];
    if (!MUTANT(PAGE_VERSION_LATE)) {
        atomic_store_explicit(version, index << 1 | VERSION_WRITING, memory_order_relaxed);
    }
    while (size > 0) {
        size_t part = min_u64(size, LINE_SIZE - (offset & (LINE_SIZE - 1)));
        line_store(&memory->versions[offset >> LINE_SHIFT], memory->data + offset, from, part, index);
        offset += part;
        from += part;
        size -= part;
    }
    atomic_store_explicit(version, index << 1, memory_order_release);
}

static void pages_changed(struct core *core, struct region *region, uint64_t offset, size_t size) {
    uint64_t last = (offset + size - 1) >> PAGE_SHIFT;
    for (uint64_t page = offset >> PAGE_SHIFT; page <= last; page++) {
        if (region->pending_count > 0 && checkpoint_copies(core, region, page)) {
            checkpoint_page_changes(core, region, page);
        }
        if (!bit_get(region->dirty, page) && !MUTANT(SKIP_DIRTY_BIT)) {
            bit_set(region->dirty, page);
            region->dirty_count++;
        }
    }
}

static void range_apply(struct core *core, uint64_t address, const uint8_t *bytes, size_t size,
                        uint64_t index) {
    struct region *region = region_find(core, shelf_addr_region(address));
    uint64_t offset = shelf_addr_offset(address);
    ASSERT(region != NULL && region->mapped && range_within(offset, size, region->size_mapped));
    apply_region_changed(core, region);
    pages_changed(core, region, offset, size);
    if (core->recovery.state != RECOVERY_DONE) {
        memcpy(region->memory.data + offset, bytes, size);
        return;
    }
    while (size > 0) {
        size_t part = min_u64(size, PAGE_SIZE - (offset & (PAGE_SIZE - 1)));
        page_store(&region->memory, offset, bytes, part, index);
        offset += part;
        bytes += part;
        size -= part;
    }
}

/* ---- Records ------------------------------------------------------------------------------------------------------- */

#define PREFETCH_RANGES 8u /* so far ahead: far enough for memory to answer */
#define PREFETCH_LINES  8u /* of each at most: in longer ones, the processor sees for itself where it goes */

/* Records change memory here and there, so each range would wait for it: its lines, and the words of their versions. */
static void range_prefetch(const struct core *core, const struct record_range *range) {
    const struct region *region = region_find(core, shelf_addr_region(range->address));
    ASSERT(region != NULL && region->mapped);
    uint64_t offset = shelf_addr_offset(range->address);
    uint64_t first = offset >> LINE_SHIFT, last = (offset + range->size - 1) >> LINE_SHIFT;
    const void *version = &region->memory.versions[first];
    __builtin_prefetch(version, 1);
    for (uint64_t line = first; line <= last && line < first + PREFETCH_LINES; line++) {
        __builtin_prefetch(region->memory.data + (line << LINE_SHIFT), 1);
    }
}

void apply_payload(struct core *core, const uint8_t *payload, size_t size, uint64_t index) {
    struct range_walk walk = range_walk(payload, size), ahead = walk;
    const struct record_range *range;
    for (uint32_t i = 0; i < PREFETCH_RANGES && (range = range_next(&ahead)) != NULL; i++) {
        range_prefetch(core, range);
    }
    bool catalog_changed = false;
    if (MUTANT(APPLIED_BEFORE_BYTES) || MUTANT(VERSION_BEFORE_BYTES)) {
        atomic_store_explicit(&core->image->applied, index, memory_order_release);
    }
    while ((range = range_next(&walk)) != NULL) {
        range_apply(core, range->address, (const uint8_t *)(range + 1), range->size, index);
        catalog_changed |= catalog_has(range->address);
        const struct record_range *later = range_next(&ahead);
        if (later != NULL) {
            range_prefetch(core, later);
        }
    }
    if (!catalog_changed) {
        return;
    }
    walk = range_walk(payload, size);
    while ((range = range_next(&walk)) != NULL) {
        if (catalog_has(range->address)) {
            catalog_applied(core, index, range->address, range + 1, range->size);
        }
    }
}

void apply_publish(struct core *core, uint64_t index) {
    atomic_store_explicit(&core->image->applied, index, memory_order_release);
    for (uint32_t i = 0; i < core->changed_count; i++) {
        uint16_t number = core->changed[i];
        struct region *region = region_find(core, number);
        if (region) {
            region->changed = false;
        }
        /* Whoever reads the new word sees all that came before; whoever was counted as a sleeper before is seen by the
         * driver after this step. */
        (void)atomic_fetch_add_explicit(&core->image->regions[number].event, 1, memory_order_seq_cst);
    }
    core->effects->changed = core->changed;
    core->effects->changed_count = core->changed_count;
    core->changed_count = 0;
}

/* The pages that would have to be copied before this payload could be applied; an upper bound. */
static uint64_t pages_pending(const struct core *core, const uint8_t *payload, size_t size) {
    struct range_walk walk = range_walk(payload, size);
    const struct record_range *range;
    uint64_t count = 0;
    while ((range = range_next(&walk)) != NULL) {
        const struct region *region = region_find(core, shelf_addr_region(range->address));
        uint64_t offset = shelf_addr_offset(range->address);
        if (region->pending_count == 0) {
            continue;
        }
        for (uint64_t page = offset >> PAGE_SHIFT; page <= (offset + range->size - 1) >> PAGE_SHIFT; page++) {
            count += checkpoint_copies(core, region, page);
        }
    }
    return count;
}

bool apply_has_room(const struct core *core, const uint8_t *payload, size_t size) {
    const struct checkpoint *checkpoint = &core->checkpoint;
    if (checkpoint->state == CHECKPOINT_PAGES &&
        pages_pending(core, payload, size) > checkpoint->copies.max - checkpoint->copies.count) {
        SOMETIMES(CHECKPOINT_COPY_POOL_FULL);
        return false;
    }
    return true;
}

/* Does a payload from disk make sense? Its checksum is right, so this only fails if a foreign hand wrote it. */
bool apply_payload_valid(const struct core *core, const uint8_t *payload, size_t size, uint32_t tx_count) {
    size_t at = 0;
    for (uint32_t i = 0; i < tx_count; i++) {
        if (size - at < sizeof(struct record_tx)) {
            return false;
        }
        const struct record_tx *tx = (const struct record_tx *)(payload + at);
        at += sizeof(*tx);
        if (tx->size > size - at || tx->size % 8 != 0) {
            return false;
        }
        size_t end = at + tx->size;
        for (uint32_t r = 0; r < tx->range_count; r++) {
            if (end - at < sizeof(struct record_range)) {
                return false;
            }
            const struct record_range *range = (const struct record_range *)(payload + at);
            at += sizeof(*range);
            const struct region *region = region_find(core, shelf_addr_region(range->address));
            if (range->size == 0 || align_up(range->size, 8) > end - at || region == NULL ||
                !region->mapped ||
                !range_within(shelf_addr_offset(range->address), range->size, region->size_mapped)) {
                return false;
            }
            at += align_up(range->size, 8);
        }
        if (at != end) {
            return false;
        }
    }
    return at == size;
}

/* Applies a batch whose record is durable (C2), publishes it, and lets its answers out. */
static void batch_apply(struct core *core, struct batch *batch) {
    apply_payload(core, batch_payload(batch), batch->payload_size, batch->index);
    core->applied = batch->index;
    core->applied_identity = batch->identity;
    core->applied_position = MUTANT(APPLIED_AT_HEAD) ? core->log.head : batch->end;
    core->log.applied_bytes += batch->log_bytes;
    apply_publish(core, batch->index);
    for (uint32_t i = 0; i < batch->reply_count && core->cluster.on; i++) {
        core_durability_say(core, &batch->replies[i]);
    }
    if (batch->reply_count > 0) { /* else this step may still give immediate ones */
        core->effects->reply_count = forward_replies(core, batch->replies, batch->reply_count);
        core->effects->replies = core->effects->reply_count > 0 ? batch->replies : NULL;
    }
    overlay_reset(&batch->overlay);
    batch->payload_size = 0;
    batch->tx_count = 0;
    batch->reply_count = 0;
}

/* May it be applied in this step? */
static bool batch_may_apply(struct core *core, const struct batch *batch) {
    return core->effects->reply_count == 0 && /* this step's answers are others'; the next step's are ours */
           apply_has_room(core, batch_payload(batch), batch->payload_size);
}

bool apply_batch(struct core *core, struct batch *batch) {
    struct log *log = &core->log;
    if (!batch_may_apply(core, batch)) {
        return false;
    }
    if (batch != log->writing && log->writing != NULL) {
        SOMETIMES(APPLY_WHILE_WRITING);
        if (log->writing_durable) {
            SOMETIMES(APPLY_BEHIND);
        }
    }
    batch_apply(core, batch);
    if (batch == log->applying) {
        log->applying = log->parked;
        log->parked = NULL;
    } else {
        log->writing = NULL;
        log->writing_durable = false;
    }
    for (uint32_t i = 0; i < ARRAY_COUNT(core->batches); i++) {
        if (core->batches[i].older == batch) {
            core->batches[i].older = NULL;
        }
    }
    return true;
}

/* The durable batch that is next. With another one behind it there is no time any more. */
static void apply_next(struct core *core) {
    const struct log *log = &core->log;
    if (log->applying != NULL && (!core->defer_apply || log->writing_durable)) {
        (void)apply_batch(core, log->applying);
    }
}

void apply_due(struct core *core) {
    struct log *log = &core->log;
    apply_next(core);
    if (log->applying == NULL && log->writing_durable) {
        log->applying = log->writing;
        log->writing = NULL;
        log->writing_durable = false;
        apply_next(core);
    }
}
