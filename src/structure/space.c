// SPDX-License-Identifier: Apache-2.0
//
// The spans of a formatted region.
//
// A region is divided into spans of 64 KiB, a small one of 4 KiB, each with a descriptor of one line. Spans are handed out in runs; what is
// free is kept in runs as long as possible, with a descriptor at either end, so that a run which is given back finds its
// neighbours in two reads. Free runs are in lists by length, four bins a doubling.
//
// Only this file changes the bins, so only who takes or returns spans conflicts on them: about once in 500
// allocations of 128 bytes.
//
// I1. Each span below span_count belongs to exactly one run: reserved, free, large or slab.
// I2. A descriptor that is not the first (free: or last) of a run, or a slab's rest, is interior.
// I3. No two free runs are adjacent, except across a table of descriptors.
// I4. A free run is in the list of the bin of its length, and the bin's bit is set exactly if the list is not empty.

#include "structure/space.h"

#define ARENA_REGION_BYTES ((uint64_t)2 << 20) // of the region, for each arena

shelf_result link_refuse(struct place place, shelf_result result, uint64_t offset, size_t size) {
    if (result != SHELF_INVALID) {
        return result;
    }
    return REFUSE(CORRUPT, "region %u: a stored link leads to offset %llu, %zu bytes, where nothing is",
                  place.region, (unsigned long long)offset, size);
}

// ---- Descriptors ----------------------------------------------------------------------------------------------------

static unsigned log2_floor(uint64_t value) {
    return 63u - (unsigned)__builtin_clzll(value);
}

uint64_t span_descriptor_offset(const struct span_layout *layout, uint64_t index) {
    if (index < layout->base) {
        return layout->table_offset + index * sizeof(struct span);
    }
    uint64_t table = (uint64_t)1 << log2_floor(index);
    return (table << layout->shift) + (index - table) * sizeof(struct span);
}

shelf_result span_read(const struct space *space, uint64_t index, struct span *ret_span) {
    if (index >= space->span_count) {
        return REFUSE(CORRUPT, "region %u: a link to span %llu, but there are only %llu", space->place.region,
                      (unsigned long long)index, (unsigned long long)space->span_count);
    }
    TRY(place_read(space->place, span_descriptor_offset(&space->layout, index), ret_span, sizeof(*ret_span)));
    if (ret_span->kind > SPAN_SLAB_REST || (ret_span->kind != SPAN_INTERIOR && ret_span->self != index)) {
        return REFUSE(CORRUPT, "region %u: the descriptor of span %llu is none", space->place.region,
                      (unsigned long long)index);
    }
    return SHELF_OK;
}

shelf_result span_write(const struct space *space, uint64_t index, const struct span *span) {
    return place_write(space->place, span_descriptor_offset(&space->layout, index), span, sizeof(*span));
}

shelf_result span_clear(const struct space *space, uint64_t index) {
    struct span interior = {.kind = SPAN_INTERIOR};
    return span_write(space, index, &interior);
}

// The descriptor of a run that the lists or a neighbour promise to be free.
static shelf_result free_read(const struct space *space, uint64_t first, struct span *ret_span) {
    TRY(span_read(space, first, ret_span));
    if (ret_span->kind != SPAN_FREE || ret_span->length == 0 ||
        ret_span->length > space->span_count - first) {
        return REFUSE(CORRUPT, "region %u: span %llu is in the free list but not the first of a free run",
                      space->place.region, (unsigned long long)first);
    }
    return SHELF_OK;
}

// ---- Bins -----------------------------------------------------------------------------------------------------------

// Lengths up to 7 have a bin of their own, then four bins a doubling. Every run in a higher bin is longer.
unsigned run_bin(uint64_t length) {
    if (length < 4) {
        return (unsigned)length;
    }
    unsigned log2 = log2_floor(length);
    return (log2 - 1) * 4 + (unsigned)(length >> (log2 - 2) & 3);
}

static shelf_result bins_filled(const struct space *space, uint64_t ret_filled[2]) {
    return place_read(space->place, RUN_BINS_OFFSET + offsetof(struct run_bins, filled), ret_filled, 16);
}

static shelf_result bin_mark(const struct space *space, unsigned bin, bool filled) {
    uint64_t words[2];
    TRY(bins_filled(space, words));
    uint64_t bit = (uint64_t)1 << (bin & 63);
    words[bin / 64] = filled ? words[bin / 64] | bit : words[bin / 64] & ~bit;
    return place_write(space->place, RUN_BINS_OFFSET + offsetof(struct run_bins, filled), words,
                       sizeof(words));
}

static uint64_t bin_offset(unsigned bin) {
    return RUN_BINS_OFFSET + offsetof(struct run_bins, first) + bin * sizeof(uint32_t);
}

// Makes `length` spans from `first` a free run and puts it into its list. It must not have free neighbours (I3).
static shelf_result run_link(const struct space *space, uint64_t first, uint64_t length) {
    unsigned bin = run_bin(length);
    uint32_t old_first;
    TRY(place_read(space->place, bin_offset(bin), &old_first, sizeof(old_first)));
    if (old_first != 0) {
        struct span old;
        TRY(free_read(space, old_first, &old));
        old.prev = (uint32_t)first;
        TRY(span_write(space, old_first, &old));
    } else {
        TRY(bin_mark(space, bin, true));
    }
    struct span head = {.kind = SPAN_FREE, .length = length, .next = old_first, .self = (uint32_t)first};
    TRY(span_write(space, first, &head));
    if (length > 1) {
        struct span end = {.kind = SPAN_FREE_END, .length = length, .self = (uint32_t)(first + length - 1)};
        TRY(span_write(space, first + length - 1, &end));
    }
    return place_write(space->place, bin_offset(bin), &head.self, sizeof(head.self));
}

// Takes the run out of its list; its descriptors stay as they are.
static shelf_result run_unlink(const struct space *space, const struct span *run) {
    unsigned bin = run_bin(run->length);
    if (run->next != 0) {
        struct span next;
        TRY(free_read(space, run->next, &next));
        next.prev = run->prev;
        TRY(span_write(space, run->next, &next));
    }
    if (run->prev != 0) {
        struct span prev;
        TRY(free_read(space, run->prev, &prev));
        prev.next = run->next;
        return span_write(space, run->prev, &prev);
    }
    TRY(place_write(space->place, bin_offset(bin), &run->next, sizeof(run->next)));
    return run->next == 0 ? bin_mark(space, bin, false) : SHELF_OK;
}

// ---- Runs -----------------------------------------------------------------------------------------------------------

// Looks through one bin for a run that is long enough; its own bin may hold shorter ones.
static shelf_result bin_search(const struct space *space, unsigned bin, uint64_t length,
                               struct span *ret_run) {
    uint32_t first;
    TRY(place_read(space->place, bin_offset(bin), &first, sizeof(first)));
    for (uint64_t steps = 0; first != 0; steps++) {
        TRY(free_read(space, first, ret_run));
        if (ret_run->length >= length) {
            return SHELF_OK;
        }
        if (steps > space->span_count) {
            return REFUSE(CORRUPT, "region %u: the list of free runs %u has a loop", space->place.region,
                          bin);
        }
        first = ret_run->next;
    }
    return SHELF_NO_SPACE;
}

static shelf_result run_search(const struct space *space, uint64_t length, struct span *ret_run) {
    uint64_t filled[2];
    TRY(bins_filled(space, filled));
    for (unsigned bin = run_bin(length); bin < RUN_BINS; bin++) {
        if (filled[bin / 64] >> (bin & 63) & 1) {
            shelf_result result = bin_search(space, bin, length, ret_run);
            if (result != SHELF_NO_SPACE) {
                return result;
            }
        }
    }
    return SHELF_NO_SPACE;
}

shelf_result run_acquire(const struct space *space, uint64_t length, uint64_t *ret_first) {
    if (length >= space->span_count) {
        return SHELF_NO_SPACE;
    }
    struct span run;
    TRY(run_search(space, length, &run));
    TRY(run_unlink(space, &run));
    if (run.length > length) {
        TRY(run_link(space, run.self + length, run.length - length));
    } else if (length > 1) {
        TRY(span_clear(space, run.self + length - 1));
    }
    *ret_first = run.self;
    return SHELF_OK;
}

// Joins the free run that ends just before `first`, if there is one.
static shelf_result join_left(const struct space *space, uint64_t *first, uint64_t *length) {
    struct span left;
    TRY(span_read(space, *first - 1, &left));
    if (left.kind != SPAN_FREE && left.kind != SPAN_FREE_END) {
        return SHELF_OK;
    }
    uint64_t left_length = left.kind == SPAN_FREE ? 1 : left.length;
    if (left_length >= *first) {
        return REFUSE(CORRUPT, "region %u: the free run that ends at span %llu is too long",
                      space->place.region, (unsigned long long)(*first - 1));
    }
    TRY(free_read(space, *first - left_length, &left));
    if (left.length != left_length) {
        return REFUSE(CORRUPT, "region %u: the two ends of the free run at span %u differ",
                      space->place.region, left.self);
    }
    TRY(run_unlink(space, &left));
    TRY(span_clear(space, *first - 1));
    *first -= left_length;
    *length += left_length;
    return SHELF_OK;
}

// Joins the free run that begins just behind.
static shelf_result join_right(const struct space *space, uint64_t first, uint64_t *length) {
    uint64_t behind = first + *length;
    if (behind >= space->span_count) {
        return SHELF_OK;
    }
    struct span right;
    TRY(span_read(space, behind, &right));
    if (right.kind != SPAN_FREE) {
        return SHELF_OK;
    }
    TRY(free_read(space, behind, &right));
    TRY(run_unlink(space, &right));
    TRY(span_clear(space, behind));
    *length += right.length;
    return SHELF_OK;
}

shelf_result run_release(const struct space *space, uint64_t first, uint64_t length) {
    TRY(span_clear(space, first));
    TRY(join_left(space, &first, &length));
    TRY(join_right(space, first, &length));
    return run_link(space, first, length);
}

// ---- Region ---------------------------------------------------------------------------------------------------------

shelf_result space_open(shelf_tx *tx, shelf_region region, struct space *ret_space) {
    struct {
        uint64_t magic;
        uint32_t format, arena_count;
        uint64_t span_count;
    } head; // the part of struct region_head that is needed
    struct place place = {tx, region};
    TRY(place_read(place, REGION_HEAD_OFFSET, &head, sizeof(head)));
    if (head.magic != REGION_MAGIC) {
        return REFUSE(INVALID, "region %u is not formatted: call shelf_format() in its first transaction",
                      region);
    }
    if (head.format != REGION_FORMAT_LARGE && head.format != REGION_FORMAT_SMALL) {
        return REFUSE(FORMAT, "region %u has format %u, this program knows up to %u", region, head.format,
                      REGION_FORMAT_SMALL);
    }
    struct span_layout layout = head.format == REGION_FORMAT_SMALL ? SPAN_LAYOUT_SMALL : SPAN_LAYOUT_LARGE;
    if (head.arena_count == 0 || head.arena_count > ARENAS_MAX || head.span_count < layout.reserved ||
        head.span_count > SPANS_MAX) {
        return REFUSE(CORRUPT, "region %u: its head counts %u arenas and %llu spans", region,
                      head.arena_count, (unsigned long long)head.span_count);
    }
    *ret_space = (struct space){place, head.arena_count, head.span_count, layout};
    return SHELF_OK;
}

static shelf_result reserve(const struct space *space, uint64_t first, uint64_t length) {
    struct span span = {.kind = SPAN_RESERVED, .length = length, .self = (uint32_t)first};
    return span_write(space, first, &span);
}

// Takes over the spans up to `count`, with a table of descriptors at each power of two. A table that does not fit yet
// waits for more growth.
static shelf_result space_extend(struct space *space, uint64_t count) {
    while (space->span_count < count) {
        uint64_t first = space->span_count;
        if (first >= space->layout.base && (first & (first - 1)) == 0) {
            uint64_t table_spans = spans_of(space, first * sizeof(struct span));
            if (first + table_spans >= count) {
                break;
            }
            space->span_count = first + table_spans;
            TRY(reserve(space, first, table_spans));
            first += table_spans;
        }
        uint64_t range_end =
            first < space->layout.base ? space->layout.base : (uint64_t)2 << log2_floor(first);
        uint64_t end = count < range_end ? count : range_end;
        space->span_count = end;
        TRY(run_release(space, first, end - first));
    }
    // A small region would be used up by slabs of many arenas, each with little in it.
    uint64_t arenas = span_offset(space, space->span_count) / ARENA_REGION_BYTES;
    space->arena_count = arenas < 1 ? 1 : arenas > ARENAS_MAX ? ARENAS_MAX : (uint32_t)arenas;
    struct region_head head = {.magic = REGION_MAGIC,
                               .format = space->layout.shift == SPAN_LAYOUT_SMALL.shift ? REGION_FORMAT_SMALL
                                                                                        : REGION_FORMAT_LARGE,
                               .arena_count = space->arena_count,
                               .span_count = space->span_count};
    return place_write(space->place, REGION_HEAD_OFFSET, &head, sizeof(head));
}

shelf_result space_grow(struct space *space, bool *ret_grown) {
    struct shelf_region_info info;
    TRY(shelf_region_info_get(shelf_tx_shelf(space->place.tx), space->place.region, &info));
    uint64_t count = info.size >> space->layout.shift;
    uint64_t count_before = space->span_count;
    if (count > count_before) {
        TRY(space_extend(space, count < SPANS_MAX ? count : SPANS_MAX));
    }
    *ret_grown = space->span_count > count_before;
    return SHELF_OK;
}

// Small spans for a small region, where each slab of 64 KiB would be much; unless it may grow beyond as many as there can be.
static struct span_layout layout_choose(const struct shelf_region_info *info) {
    bool small = info->size < REGION_SMALL_MAX && info->size_max <= SPANS_MAX << SPAN_LAYOUT_SMALL.shift;
    return small ? SPAN_LAYOUT_SMALL : SPAN_LAYOUT_LARGE;
}

shelf_result shelf_format(shelf_tx *tx, shelf_region region) {
    struct place place = {tx, region};
    struct shelf_region_info info;
    uint64_t magic;
    TRY(place_read(place, REGION_HEAD_OFFSET, &magic, sizeof(magic)));
    if (magic != 0) {
        return magic == REGION_MAGIC
                   ? REFUSE(EXISTS, "region %u is formatted already", region)
                   : REFUSE(INVALID, "region %u holds other data: only a new one can be formatted", region);
    }
    TRY(shelf_region_info_get(shelf_tx_shelf(tx), region, &info));
    struct space space = {place, 1, 0, layout_choose(&info)};
    uint64_t count = info.size >> space.layout.shift;
    if (count <= space.layout.reserved) {
        return REFUSE(NO_SPACE, "region %u is too small to be formatted: it needs %llu bytes or more", region,
                      (unsigned long long)span_offset(&space, space.layout.reserved + 1));
    }
    space.span_count = space.layout.reserved;
    TRY(reserve(&space, 0, space.layout.reserved));
    return space_extend(&space, count < SPANS_MAX ? count : SPANS_MAX);
}
