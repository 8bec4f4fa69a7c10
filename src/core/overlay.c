// SPDX-License-Identifier: Apache-2.0
/*
 * overlay.c: the newest bytes of lines that are admitted and not applied yet.
 *
 * There is one overlay a batch: a hash table of lines that only grows, and is emptied as a whole when its batch has been
 * applied. A line looked up is searched in the batch being built, then in the one being written, then in the image.
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

struct overlay_line *overlay_add(struct overlay *overlay, uint64_t line, bool *ret_is_new) {
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

bool overlay_has_room(const struct overlay *overlay, uint64_t line_count) {
    return line_count <= overlay->line_max - overlay->count;
}

/* The newest bytes of one line: in the batch being built, in the one being written, or in the image. */
static const uint8_t *newest_line(const struct core *core, uint64_t line) {
    if (!MUTANT(OPERATION_FROM_IMAGE)) {
        const struct overlay_line *found = overlay_find(&core->building->overlay, line);
        if (found == NULL && core->log.writing != NULL) {
            found = overlay_find(&core->log.writing->overlay, line);
        }
        if (found != NULL) {
            return found->bytes;
        }
    }
    const struct region *region = region_find(core, (uint32_t)(line >> (ADDRESS_OFFSET_BITS - LINE_SHIFT)));
    ASSERT(region != NULL && region->mapped);
    return region->memory.data + (shelf_addr_offset(line << LINE_SHIFT));
}

void newest_read(const struct core *core, uint64_t address, void *to, size_t size) {
    uint8_t *out = to;
    while (size > 0) {
        size_t begin = address & (LINE_SIZE - 1);
        size_t part = min_u64(size, LINE_SIZE - begin);
        memcpy(out, newest_line(core, address >> LINE_SHIFT) + begin, part);
        address += part;
        out += part;
        size -= part;
    }
}

void newest_write(struct core *core, uint64_t address, const void *from, size_t size) {
    const uint8_t *in = from;
    while (size > 0) {
        size_t begin = address & (LINE_SIZE - 1);
        size_t part = min_u64(size, LINE_SIZE - begin);
        const uint8_t *base = part < LINE_SIZE ? newest_line(core, address >> LINE_SHIFT) : NULL;
        bool is_new;
        struct overlay_line *line = overlay_add(&core->building->overlay, address >> LINE_SHIFT, &is_new);
        if (is_new && base != NULL) {
            memcpy(line->bytes, base, LINE_SIZE);
        }
        memcpy(line->bytes + begin, in, part);
        address += part;
        in += part;
        size -= part;
    }
}
