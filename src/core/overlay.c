// SPDX-License-Identifier: Apache-2.0
/*
 * overlay.c: the newest bytes of lines that are admitted and not applied yet.
 *
 * There is one overlay a batch: a hash table of lines that only grows, and is emptied as a whole when its batch has been
 * applied. A line looked up is searched in the batch being built, then in the one being written, then in the image.
 *
 * It is an index over the batch's payload, and made when somebody asks: transactions that read nothing and add to nothing
 * never need it.
 *
 *   O1  A batch is indexed only after the one before it, if that is not applied yet: what lies under a part of a line that
 *       it changes is in the image or in the overlay before it.
 *   O2  Results of sessions are in none: session.c finds those of pending records in their payloads.
 *   O3  A payload never has more lines than there is room for (payload_lines_max).
 */
#include "core/state.h"

#define OVERLAY_SLOTS_MIN 1024u

static uint32_t overlay_slot(const struct overlay *overlay, uint64_t line) {
    return (uint32_t)(hash_u64(line) >> 32) & overlay->mask;
}

void overlay_reset(struct overlay *overlay) {
    if (overlay->count > OVERLAY_SLOTS_MIN) {
        memset(overlay->slots, 0, ((size_t)overlay->mask + 1) * sizeof(uint32_t));
    } else {
        for (uint32_t i = 0; i < overlay->count; i++) {
            uint32_t slot = overlay_slot(overlay, overlay->lines[i].line);
            while (overlay->slots[slot] != i + 1) {
                slot = (slot + 1) & overlay->mask;
            }
            /* Later lines of the same run are found through it until they are cleared themselves: mark, don't break. */
            overlay->slots[slot] = UINT32_MAX;
        }
        for (uint32_t i = 0; i < overlay->count; i++) {
            uint32_t slot = overlay_slot(overlay, overlay->lines[i].line);
            while (overlay->slots[slot] == UINT32_MAX) {
                overlay->slots[slot] = 0;
                slot = (slot + 1) & overlay->mask;
            }
        }
    }
    overlay->count = 0;
    overlay->mask = OVERLAY_SLOTS_MIN - 1;
    overlay->indexed = overlay->tx = 0;
}

const struct overlay_line *overlay_find(const struct overlay *overlay, uint64_t line) {
    if (overlay->count == 0) {
        return NULL;
    }
    for (uint32_t slot = overlay_slot(overlay, line);; slot = (slot + 1) & overlay->mask) {
        uint32_t place = overlay->slots[slot];
        if (place == 0) {
            return NULL;
        }
        if (overlay->lines[place - 1].line == line) {
            return &overlay->lines[place - 1];
        }
    }
}

static void overlay_grow(struct overlay *overlay) {
    memset(overlay->slots, 0, ((size_t)overlay->mask + 1) * sizeof(uint32_t));
    overlay->mask = overlay->mask * 2 + 1;
    ASSERT(overlay->mask < overlay->slot_max);
    for (uint32_t i = 0; i < overlay->count; i++) {
        uint32_t slot = overlay_slot(overlay, overlay->lines[i].line);
        while (overlay->slots[slot] != 0) {
            slot = (slot + 1) & overlay->mask;
        }
        overlay->slots[slot] = i + 1;
    }
}

static struct overlay_line *overlay_add(struct overlay *overlay, uint64_t line, bool *ret_is_new) {
    if (overlay->count * 2 > overlay->mask) {
        overlay_grow(overlay);
    }
    uint32_t slot = overlay_slot(overlay, line);
    for (;; slot = (slot + 1) & overlay->mask) {
        uint32_t place = overlay->slots[slot];
        if (place == 0) {
            break;
        }
        if (overlay->lines[place - 1].line == line) {
            *ret_is_new = false;
            return &overlay->lines[place - 1];
        }
    }
    ASSERT(overlay->count < overlay->line_max);
    struct overlay_line *added = &overlay->lines[overlay->count++];
    added->line = line;
    overlay->slots[slot] = overlay->count;
    *ret_is_new = true;
    return added;
}

const struct overlay_line *batch_line(const struct batch *batch, uint64_t line) {
    for (uint32_t count = 1; batch != NULL; batch = batch->older, count++) {
        const struct overlay_line *found = overlay_find(&batch->overlay, line);
        if (found != NULL) {
            if (count == 3) {
                SOMETIMES(OVERLAY_OF_THREE);
            }
            return found;
        }
        if (MUTANT(OVERLAY_OF_ONE)) {
            return NULL;
        }
    }
    return NULL;
}

/* ---- From the payload --------------------------------------------------------------------------------------------- */

/* The bytes of one line before this batch adds to them: its own so far, or those of the batches before, or the image's. */
static const uint8_t *line_before(const struct core *core, const struct batch *batch, uint64_t line) {
    if (!MUTANT(OPERATION_FROM_IMAGE)) {
        const struct overlay_line *found = batch_line(batch, line);
        if (found != NULL) {
            return found->bytes;
        }
    }
    const struct region *region = region_find(core, (uint32_t)(line >> (ADDRESS_OFFSET_BITS - LINE_SHIFT)));
    ASSERT(region != NULL && region->mapped);
    return region->memory.data + (shelf_addr_offset(line << LINE_SHIFT));
}

static void range_index(const struct core *core, struct batch *batch, const struct record_range *range) {
    const uint8_t *in = (const uint8_t *)(range + 1);
    uint64_t address = range->address;
    for (size_t size = range->size, part; size > 0; address += part, in += part, size -= part) {
        size_t begin = address & (LINE_SIZE - 1);
        part = min_u64(size, LINE_SIZE - begin);
        const uint8_t *base = part < LINE_SIZE ? line_before(core, batch, address >> LINE_SHIFT) : NULL;
        bool is_new;
        struct overlay_line *line = overlay_add(&batch->overlay, address >> LINE_SHIFT, &is_new);
        if (is_new && base != NULL) {
            memcpy(line->bytes, base, LINE_SIZE);
        }
        memcpy(line->bytes + begin, in, part);
    }
}

/* O2 */
static bool is_session_result(uint64_t address) {
    return shelf_addr_region(address) == REGION_SYSTEM && shelf_addr_offset(address) >= SYSTEM_RESULTS_OFFSET;
}

/* The last transaction of a batch may still be growing: then its ranges so far are indexed, the others later. */
static void batch_index(const struct core *core, struct batch *batch) {
    struct overlay *overlay = &batch->overlay;
    const uint8_t *payload = batch_payload(batch);
    while (overlay->indexed < batch->payload_size) {
        const struct record_tx *tx = (const struct record_tx *)(payload + overlay->tx);
        if (overlay->indexed == 0 || overlay->indexed == overlay->tx + sizeof(*tx) + tx->size) {
            overlay->tx = overlay->indexed;
            overlay->indexed += sizeof(*tx);
            continue;
        }
        const struct record_range *range = (const struct record_range *)(payload + overlay->indexed);
        if (!is_session_result(range->address)) {
            range_index(core, batch, range);
        }
        overlay->indexed += sizeof(*range) + align_up(range->size, 8);
    }
}

/* The oldest first (O1). */
static void batches_index(const struct core *core, struct batch *newest) {
    if (newest->older != NULL) {
        batches_index(core, newest->older);
    }
    batch_index(core, newest);
}

void overlays_complete(struct core *core) {
    batches_index(core, core->building);
}

void newest_read(struct core *core, uint64_t address, void *to, size_t size) {
    uint8_t *out = to;
    overlays_complete(core);
    while (size > 0) {
        size_t begin = address & (LINE_SIZE - 1);
        size_t part = min_u64(size, LINE_SIZE - begin);
        memcpy(out, line_before(core, core->building, address >> LINE_SHIFT) + begin, part);
        address += part;
        out += part;
        size -= part;
    }
}
