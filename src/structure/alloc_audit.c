// SPDX-License-Identifier: Apache-2.0
//
// The audit of the allocator: walks every run from the first span to the last, then every list, and refuses the first
// thing that breaks an invariant of space.c (I1 to I4) or alloc.c (I5, I6). As each list holds only what belongs there,
// in the right order backwards too, lists and runs agree if they are equally many.

#include "structure/alloc.h"

struct walk {
    struct space space;
    struct shelf_alloc_sums sums;
    uint64_t free_runs;     // met in the walk, not yet in a list
    uint64_t partial_slabs; // the same
};

static shelf_result refuse(const struct walk *walk, uint64_t span, const char *what) {
    return REFUSE(CORRUPT, "region %u, span %llu: %s", walk->space.place.region, (unsigned long long)span,
                  what);
}

static shelf_result slab_check(struct walk *walk, const struct span *slab) {
    if (slab->class >= ALLOC_CLASSES || slab->arena >= ARENAS_MAX) {
        return refuse(walk, slab->self, "a slab of no known class or arena");
    }
    const struct class_shape *shape = alloc_slab_shape(&walk->space, slab);
    if (!shape) {
        return refuse(walk, slab->self, "a slab that is not as long as its class");
    }
    unsigned block_count = shape->blocks;
    unsigned word_count = alloc_shape_bitmap_words(shape);
    uint64_t words[64];
    const uint64_t *bitmap = slab->bitmap;
    if (shape->head != 0) {
        TRY(place_read(walk->space.place, span_offset(&walk->space, slab->self), words,
                       word_count * sizeof(words[0])));
        bitmap = words;
    }
    unsigned set = 0;
    for (unsigned word = 0; word < word_count; word++) {
        set += (unsigned)__builtin_popcountll(bitmap[word]);
        if (word < slab->scan && ~bitmap[word] != 0) {
            return refuse(walk, slab->self, "a free block before the place where the search begins");
        }
    }
    if (set != slab->used + (word_count * 64 - block_count)) {
        return refuse(walk, slab->self, "the slab's count and its bitmap differ");
    }
    uint64_t live = (uint64_t)slab->used * shape->size;
    walk->sums.live += live;
    walk->sums.free += (uint64_t)block_count * shape->size - live;
    walk->sums.overhead += span_offset(&walk->space, slab->length) - (uint64_t)block_count * shape->size;
    walk->sums.blocks_live += slab->used;
    walk->partial_slabs += slab->used < block_count;
    return SHELF_OK;
}

// The descriptors between the first and the end of a run.
static shelf_result interior_check(const struct walk *walk, const struct span *run) {
    for (uint64_t back = 1; back < run->length; back++) {
        struct span span;
        TRY(span_read(&walk->space, run->self + back, &span));
        bool good = run->kind == SPAN_SLAB ? span.kind == SPAN_SLAB_REST && span.back == back
                    : run->kind == SPAN_FREE && back == run->length - 1
                        ? span.kind == SPAN_FREE_END && span.length == run->length
                        : span.kind == SPAN_INTERIOR;
        if (!good) {
            return refuse(walk, run->self + back, "lies within a run, and its descriptor says otherwise");
        }
    }
    return SHELF_OK;
}

static shelf_result run_check(struct walk *walk, const struct span *run, bool after_free) {
    uint64_t bytes = span_offset(&walk->space, run->length);
    switch (run->kind) {
    case SPAN_RESERVED:
        walk->sums.overhead += bytes;
        return SHELF_OK; // the inside of a table is never described
    case SPAN_FREE:
        if (after_free) {
            return refuse(walk, run->self, "two free runs side by side");
        }
        walk->sums.free += bytes;
        walk->free_runs++;
        break;
    case SPAN_LARGE:
        walk->sums.live += bytes;
        walk->sums.blocks_live++;
        break;
    case SPAN_SLAB:
        TRY(slab_check(walk, run));
        break;
    default:
        return refuse(walk, run->self, "belongs to nothing");
    }
    return interior_check(walk, run);
}

static shelf_result runs_check(struct walk *walk) {
    bool after_free = false;
    for (uint64_t index = 0; index < walk->space.span_count;) {
        struct span run;
        TRY(span_read(&walk->space, index, &run));
        if (run.kind == SPAN_INTERIOR) {
            return refuse(walk, index, "belongs to nothing");
        }
        if (run.length == 0 || run.length > walk->space.span_count - index) {
            return refuse(walk, index, "a run of an impossible length");
        }
        TRY(run_check(walk, &run, after_free));
        after_free = run.kind == SPAN_FREE;
        index += run.length;
    }
    return SHELF_OK;
}

// Both kinds of lists are followed in the same way; they differ in what they may hold.
struct list {
    uint64_t first_offset;
    enum span_kind kind;
    unsigned bin;          // of free runs
    unsigned arena, class; // of slabs
};

static bool list_fits(const struct space *space, const struct list *list, const struct span *span) {
    if (span->kind != list->kind) {
        return false;
    }
    if (list->kind == SPAN_FREE) {
        return span->length != 0 && run_bin(span->length) == list->bin;
    }
    const struct class_shape *shape = alloc_slab_shape(space, span);
    return span->arena == list->arena && span->class == list->class && shape && span->used < shape->blocks;
}

static shelf_result list_check(const struct walk *walk, const struct list *list, uint64_t *left) {
    uint32_t index;
    TRY(place_read(walk->space.place, list->first_offset, &index, sizeof(index)));
    uint32_t prev = 0;
    while (index != 0) {
        struct span span;
        TRY(span_read(&walk->space, index, &span));
        if (!list_fits(&walk->space, list, &span)) {
            return refuse(walk, index, "is in a list where it does not belong");
        }
        if (span.prev != prev) {
            return refuse(walk, index, "its list's links forwards and backwards differ");
        }
        if (*left == 0) {
            return refuse(walk, index, "there is more in the lists than in the region");
        }
        --*left;
        prev = index;
        index = span.next;
    }
    return SHELF_OK;
}

static shelf_result lists_check(struct walk *walk) {
    uint64_t filled[2];
    TRY(place_read(walk->space.place, RUN_BINS_OFFSET, filled, sizeof(filled)));
    for (unsigned bin = 0; bin < RUN_BINS; bin++) {
        struct list list = {.kind = SPAN_FREE, .bin = bin};
        list.first_offset = RUN_BINS_OFFSET + offsetof(struct run_bins, first) + bin * sizeof(uint32_t);
        uint64_t before = walk->free_runs;
        TRY(list_check(walk, &list, &walk->free_runs));
        if ((walk->free_runs < before) != (filled[bin / 64] >> (bin & 63) & 1)) {
            return REFUSE(CORRUPT, "region %u: the bit of the free runs' list %u is wrong",
                          walk->space.place.region, bin);
        }
    }
    for (unsigned arena = 0; arena < ARENAS_MAX; arena++) {
        for (unsigned class = 0; class < ALLOC_CLASSES; class ++) {
            struct list list = {.kind = SPAN_SLAB, .arena = arena, .class = class};
            list.first_offset = ARENAS_OFFSET + arena * sizeof(struct arena) + class * sizeof(uint32_t);
            TRY(list_check(walk, &list, &walk->partial_slabs));
        }
    }
    if (walk->free_runs != 0 || walk->partial_slabs != 0) {
        return REFUSE(CORRUPT, "region %u: %llu free runs and %llu slabs with free blocks are in no list",
                      walk->space.place.region, (unsigned long long)walk->free_runs,
                      (unsigned long long)walk->partial_slabs);
    }
    return SHELF_OK;
}

shelf_result shelf_alloc_audit(shelf_tx *tx, shelf_region region, struct shelf_alloc_sums *ret_audit) {
    struct walk walk = {0};
    TRY(space_open(tx, region, &walk.space));
    struct shelf_region_info info;
    TRY(shelf_region_info_get(shelf_tx_shelf(tx), region, &info));
    uint64_t managed = span_offset(&walk.space, walk.space.span_count);
    if (managed > info.size) {
        return REFUSE(CORRUPT, "region %u: the allocator manages %llu bytes, the region has %llu", region,
                      (unsigned long long)managed, (unsigned long long)info.size);
    }
    TRY(runs_check(&walk));
    TRY(lists_check(&walk));
    // What the region has grown by is free as soon as it is needed, but for less than a span at its end.
    uint64_t grown = span_offset(&walk.space, info.size >> walk.space.layout.shift) - managed;
    walk.sums.free += grown;
    walk.sums.overhead += info.size - managed - grown;
    walk.sums.total = info.size;
    if (walk.sums.live + walk.sums.free + walk.sums.overhead != walk.sums.total) {
        return REFUSE(CORRUPT, "region %u: live, free and overhead do not add up to the region's size",
                      region);
    }
    *ret_audit = walk.sums;
    return SHELF_OK;
}
