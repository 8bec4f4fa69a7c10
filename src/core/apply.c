// SPDX-License-Identifier: Apache-2.0
/*
 * apply.c: a durable record changes the image. The only place that writes to regions' memory.
 *
 * Readers look on without locks, by the protocol at the head of wire/image.h; this is its writer. In recovery nobody
 * looks on, but the way is the same.
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

static void pages_changed(struct core *core, struct region *region, uint64_t offset, size_t size) {
    uint64_t last = (offset + size - 1) >> PAGE_SHIFT;
    for (uint64_t page = offset >> PAGE_SHIFT; page <= last; page++) {
        if (region->pending_count > 0 && bit_get(region->pending, page) && !MUTANT(NO_COPY_ON_WRITE)) {
            checkpoint_copy_page(core, region, page);
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
    pages_changed(core, region, offset, size);
    while (size > 0) {
        size_t part = min_u64(size, LINE_SIZE - (offset & (LINE_SIZE - 1)));
        line_store(&region->memory.versions[offset >> LINE_SHIFT], region->memory.data + offset, bytes, part,
                   index);
        offset += part;
        bytes += part;
        size -= part;
    }
}

/* ---- Records ------------------------------------------------------------------------------------------------------- */

void apply_payload(struct core *core, const uint8_t *payload, size_t size, uint64_t index) {
    struct range_walk walk = range_walk(payload, size);
    const struct record_range *range;
    if (MUTANT(APPLIED_BEFORE_BYTES) || MUTANT(VERSION_BEFORE_BYTES)) {
        atomic_store_explicit(&core->image->applied, index, memory_order_release);
    }
    while ((range = range_next(&walk)) != NULL) {
        range_apply(core, range->address, (const uint8_t *)(range + 1), range->size, index);
    }
    walk = range_walk(payload, size);
    while ((range = range_next(&walk)) != NULL) {
        if (shelf_addr_region(range->address) == REGION_SYSTEM) {
            catalog_applied(core, index, shelf_addr_offset(range->address), range + 1, range->size);
        }
    }
}

/* The pages that would have to be copied before this payload could be applied; an upper bound. */
uint64_t apply_pages_pending(const struct core *core, const uint8_t *payload, size_t size) {
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
            count += bit_get(region->pending, page);
        }
    }
    return count;
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

/* Applies the batch whose record is durable (C2), publishes it, and lets its answers out. */
void apply_batch(struct core *core) {
    struct batch *batch = core->log.writing;
    const uint8_t *payload = batch->buffer + BATCH_RECORD_OFFSET + sizeof(struct record_header);
    struct checkpoint *checkpoint = &core->checkpoint;
    core->apply_waits = true;
    if (core->effects->reply_count > 0) {
        return; /* this step's answers are others'; the next step's are ours */
    }
    if (checkpoint->state == CHECKPOINT_PAGES && apply_pages_pending(core, payload, batch->payload_size) >
                                                     checkpoint->pool_max - checkpoint->pool_count) {
        SOMETIMES(CHECKPOINT_COPY_POOL_FULL);
        return; /* tried again whenever the checkpoint has moved */
    }
    core->apply_waits = false;
    apply_payload(core, payload, batch->payload_size, batch->index);
    core->applied = batch->index;
    core->applied_identity = core->log.last;
    core->applied_position = core->log.head;
    core->log.applied_bytes += core->log.write_size;
    atomic_store_explicit(&core->image->applied, batch->index, memory_order_release);
    if (batch->reply_count > 0) { /* else this step may still give immediate ones */
        core->effects->replies = batch->replies;
        core->effects->reply_count = batch->reply_count;
    }
    overlay_reset(&batch->overlay);
    batch->payload_size = 0;
    batch->tx_count = 0;
    batch->reply_count = 0;
    core->log.writing = NULL;
}
