// SPDX-License-Identifier: Apache-2.0
//
// The allocator: blocks of 16 bytes to 224 KiB (14 KiB in a small region) from slabs, anything larger in whole spans.
//
// A slab is a run of spans divided into blocks of one size class, with a bitmap: 64 KiB or a few times as much, in a small
// region a sixteenth of that. Classes are 16 bytes apart below 64
// bytes, then lines, then four to a doubling, so that at most a fifth is lost to rounding from 512 bytes up. Blocks
// of 64 bytes and more are aligned to lines.
//
// Each slab belongs to an arena. A transaction allocates from the arena that its hint picks, so that transactions of
// different threads read and write different lines, and one that lost against another tries the next arena when it
// runs again. A block is freed to its slab, whosoever that is. An allocation touches the head (read), the arena's list
// (read), the slab's descriptor and one word of its bitmap.
//
// When an arena has no slab with a free block of the class, it tries in this order: a new slab from the free runs
// (growing into what the region has grown by), slabs of other arenas, returning empty slabs, larger classes.
//
// I5. A slab is in the list of its arena and class exactly if it has a free block.
// I6. `used` is the number of set bits in the bitmap, not counting those behind the last block, which are always set.
// I7. An empty slab goes back to the free runs unless it is the only one in its list: a program that allocates and
//     frees one block in turns would otherwise take and return a span each time.
//
// Everything is a change within the caller's transaction: there is nothing to recover after a crash.

#include "structure/alloc.h"

// ---- Classes --------------------------------------------------------------------------------------------------------

// Slabs of several spans are where one span would leave more than an eighth unused.
#define SHAPE(size, spans, head) \
    { (size), (spans), (head), ((spans)*65536u - (head)) / (size) }
static const struct class_shape large_shapes[ALLOC_CLASSES] = {
    SHAPE(16, 1, 512),   SHAPE(32, 1, 256),   SHAPE(48, 1, 192),                        //
    SHAPE(64, 1, 128),   SHAPE(128, 1, 128),  SHAPE(192, 1, 64),   SHAPE(256, 1, 0),    //
    SHAPE(320, 1, 0),    SHAPE(384, 1, 0),    SHAPE(448, 1, 0),    SHAPE(512, 1, 0),    //
    SHAPE(640, 1, 0),    SHAPE(768, 1, 0),    SHAPE(896, 1, 0),    SHAPE(1024, 1, 0),   //
    SHAPE(1280, 1, 0),   SHAPE(1536, 1, 0),   SHAPE(1792, 1, 0),   SHAPE(2048, 1, 0),   //
    SHAPE(2560, 1, 0),   SHAPE(3072, 1, 0),   SHAPE(3584, 1, 0),   SHAPE(4096, 1, 0),   //
    SHAPE(5120, 1, 0),   SHAPE(6144, 1, 0),   SHAPE(7168, 1, 0),   SHAPE(8192, 1, 0),   //
    SHAPE(10240, 1, 0),  SHAPE(12288, 1, 0),  SHAPE(14336, 1, 0),  SHAPE(16384, 1, 0),  //
    SHAPE(20480, 1, 0),  SHAPE(24576, 3, 0),  SHAPE(28672, 1, 0),  SHAPE(32768, 1, 0),  //
    SHAPE(40960, 5, 0),  SHAPE(49152, 3, 0),  SHAPE(57344, 7, 0),  SHAPE(65536, 0, 0),  //
    SHAPE(81920, 5, 0),  SHAPE(98304, 3, 0),  SHAPE(114688, 7, 0), SHAPE(131072, 0, 0), //
    SHAPE(163840, 5, 0), SHAPE(196608, 0, 0), SHAPE(229376, 7, 0),                      //
};
#undef SHAPE
#define SHAPE(size, spans) \
    { (size), (spans), 0, (spans)*4096u / (size) }
static const struct class_shape small_shapes[ALLOC_CLASSES] = {
    SHAPE(16, 1),     SHAPE(32, 1),     SHAPE(48, 1),                       //
    SHAPE(64, 1),     SHAPE(128, 1),    SHAPE(192, 1),    SHAPE(256, 1),    //
    SHAPE(320, 1),    SHAPE(384, 1),    SHAPE(448, 1),    SHAPE(512, 1),    //
    SHAPE(640, 1),    SHAPE(768, 1),    SHAPE(896, 1),    SHAPE(1024, 1),   //
    SHAPE(1280, 1),   SHAPE(1536, 3),   SHAPE(1792, 1),   SHAPE(2048, 1),   //
    SHAPE(2560, 5),   SHAPE(3072, 3),   SHAPE(3584, 7),   SHAPE(4096, 0),   //
    SHAPE(5120, 5),   SHAPE(6144, 3),   SHAPE(7168, 7),   SHAPE(8192, 0),   //
    SHAPE(10240, 5),  SHAPE(12288, 0),  SHAPE(14336, 7),  SHAPE(16384, 0),  //
    SHAPE(20480, 0),  SHAPE(24576, 0),  SHAPE(28672, 0),  SHAPE(32768, 0),  //
    SHAPE(40960, 0),  SHAPE(49152, 0),  SHAPE(57344, 0),  SHAPE(65536, 0),  //
    SHAPE(81920, 0),  SHAPE(98304, 0),  SHAPE(114688, 0), SHAPE(131072, 0), //
    SHAPE(163840, 0), SHAPE(196608, 0), SHAPE(229376, 0),                   //
};
#undef SHAPE
_Static_assert(ALLOC_CLASSES <= ARENA_CLASSES_MAX, "an arena has a list for each class");

#define SLAB_BLOCK_MAX  229376u
#define SMALL_PER_LARGE 16u // small spans that are as long as a large one

static bool is_small(const struct space *space) {
    return space->layout.shift == SPAN_LAYOUT_SMALL.shift;
}

const struct class_shape *alloc_class_shape(bool small, unsigned class) {
    return small ? &small_shapes[class] : &large_shapes[class];
}

unsigned alloc_shape_bitmap_words(const struct class_shape *shape) {
    return (shape->blocks + 63) / 64;
}

// In a region of small spans that has grown, slabs are as long as in a large one.
const struct class_shape *alloc_slab_shape(const struct space *space, const struct span *slab) {
    if (slab->class >= ALLOC_CLASSES || slab->length == 0) {
        return NULL;
    }
    const struct class_shape *small = &small_shapes[slab->class], *large = &large_shapes[slab->class];
    if (!is_small(space)) {
        return slab->length == large->spans ? large : NULL;
    }
    return small->spans == 0                                ? NULL
           : slab->length == small->spans                   ? small
           : slab->length == large->spans * SMALL_PER_LARGE ? large
                                                            : NULL;
}

// The smallest class of `size` bytes or more, for 1 to SLAB_BLOCK_MAX.
static unsigned class_of(uint64_t size) {
    if (size <= 48) {
        return (unsigned)((size + 15) / 16 - 1);
    }
    uint64_t lines = (size + 63) / 64;
    if (lines <= 8) {
        return (unsigned)lines + 2;
    }
    unsigned log2 = 63u - (unsigned)__builtin_clzll(lines - 1); // 3 and up; four classes for each
    return 11 + (log2 - 3) * 4 + (unsigned)((lines - 1) >> (log2 - 2)) - 4;
}

static uint64_t whole_spans(bool small, uint64_t size) {
    unsigned shift = small ? SPAN_LAYOUT_SMALL.shift : SPAN_LAYOUT_LARGE.shift;
    return ((size - 1) >> shift << shift) + ((uint64_t)1 << shift);
}

// The class that `size` bytes come from; false: they are whole spans.
static bool class_pick(bool small, uint64_t size, unsigned *ret_class) {
    if (size > SLAB_BLOCK_MAX) {
        return false;
    }
    unsigned class = class_of(size);
    const struct class_shape *shape = alloc_class_shape(small, class);
    if (shape->spans == 0 || shape->size >= whole_spans(small, size)) {
        return false;
    }
    *ret_class = class;
    return true;
}

uint64_t alloc_capacity(bool small, uint64_t size) {
    unsigned class;
    return class_pick(small, size, &class) ? large_shapes[class].size : whole_spans(small, size);
}

bool alloc_is_same(uint64_t size, uint64_t other_size) {
    return alloc_capacity(false, size) == alloc_capacity(false, other_size) &&
           alloc_capacity(true, size) == alloc_capacity(true, other_size);
}

// ---- Slabs and their lists ------------------------------------------------------------------------------------------

static uint64_t list_offset(unsigned arena, unsigned class) {
    return ARENAS_OFFSET + arena * sizeof(struct arena) + class * sizeof(uint32_t);
}

static shelf_result list_first(const struct space *space, unsigned arena, unsigned class,
                               uint32_t *ret_first) {
    return place_read(space->place, list_offset(arena, class), ret_first, sizeof(*ret_first));
}

// A slab's descriptor and its shape.
struct slab {
    struct span span;
    const struct class_shape *shape;
};

// The slab that a list or a block's address promises.
static shelf_result slab_read(const struct space *space, uint64_t index, struct slab *ret_slab) {
    struct span *span = &ret_slab->span;
    TRY(span_read(space, index, span));
    ret_slab->shape = alloc_slab_shape(space, span);
    if (span->kind != SPAN_SLAB || span->arena >= ARENAS_MAX || !ret_slab->shape ||
        span->used > ret_slab->shape->blocks) {
        return REFUSE(CORRUPT, "region %u: span %llu should be a slab and is not", space->place.region,
                      (unsigned long long)index);
    }
    return SHELF_OK;
}

// Puts the slab in front of its list; the caller writes its descriptor.
static shelf_result slab_link(const struct space *space, struct span *slab) {
    uint32_t first;
    TRY(list_first(space, slab->arena, slab->class, &first));
    slab->next = first;
    slab->prev = 0;
    if (first != 0) {
        struct slab next;
        TRY(slab_read(space, first, &next));
        next.span.prev = slab->self;
        TRY(span_write(space, first, &next.span));
    }
    return place_write(space->place, list_offset(slab->arena, slab->class), &slab->self, sizeof(slab->self));
}

// Takes the slab out of its list; the caller writes its descriptor.
static shelf_result slab_unlink(const struct space *space, struct span *slab) {
    struct slab neighbour;
    if (slab->next != 0) {
        TRY(slab_read(space, slab->next, &neighbour));
        neighbour.span.prev = slab->prev;
        TRY(span_write(space, slab->next, &neighbour.span));
    }
    if (slab->prev != 0) {
        TRY(slab_read(space, slab->prev, &neighbour));
        neighbour.span.next = slab->next;
        TRY(span_write(space, slab->prev, &neighbour.span));
    } else {
        TRY(place_write(space->place, list_offset(slab->arena, slab->class), &slab->next,
                        sizeof(slab->next)));
    }
    slab->next = 0;
    slab->prev = 0;
    return SHELF_OK;
}

static void bitmap_tail_set(uint64_t *words, const struct class_shape *shape) {
    if (shape->blocks % 64 != 0) {
        words[alloc_shape_bitmap_words(shape) - 1] = ~(uint64_t)0 << (shape->blocks % 64);
    }
}

// An empty slab out of `length` free spans, in front of the arena's list. NO_SPACE without a detail: there are none.
static shelf_result slab_create_of(const struct space *space, unsigned arena, unsigned class, uint64_t length,
                                   const struct class_shape *shape, uint32_t *ret_index) {
    uint64_t first;
    TRY(run_acquire(space, length, &first));
    struct span slab = {.kind = SPAN_SLAB,
                        .class = (uint8_t) class,
                        .arena = (uint8_t)arena,
                        .length = length,
                        .self = (uint32_t)first};
    if (shape->head == 0) {
        bitmap_tail_set(slab.bitmap, shape);
    } else {
        uint64_t words[64] = {0};
        bitmap_tail_set(words, shape);
        TRY(place_write(space->place, span_offset(space, first), words,
                        alloc_shape_bitmap_words(shape) * sizeof(words[0])));
    }
    for (uint64_t back = 1; back < length; back++) {
        struct span rest = {
            .kind = SPAN_SLAB_REST, .back = (uint8_t)back, .self = (uint32_t)(slab.self + back)};
        TRY(span_write(space, first + back, &rest));
    }
    TRY(slab_link(space, &slab));
    TRY(span_write(space, first, &slab));
    *ret_index = slab.self;
    return SHELF_OK;
}

// As long as is right for the region; where small spans are all that is left, of those.
static shelf_result slab_create(const struct space *space, unsigned arena, unsigned class,
                                uint32_t *ret_index) {
    const struct class_shape *large = &large_shapes[class], *small = &small_shapes[class];
    if (!is_small(space)) {
        return slab_create_of(space, arena, class, large->spans, large, ret_index);
    }
    if (span_offset(space, space->span_count) >= REGION_SMALL_MAX) {
        uint64_t length = (uint64_t)large->spans * SMALL_PER_LARGE;
        shelf_result result = slab_create_of(space, arena, class, length, large, ret_index);
        if (result != SHELF_NO_SPACE) {
            return result;
        }
    }
    return slab_create_of(space, arena, class, small->spans, small, ret_index);
}

// Gives an empty slab back to the free runs.
static shelf_result slab_destroy(const struct space *space, struct span *slab) {
    TRY(slab_unlink(space, slab));
    for (uint64_t back = 1; back < slab->length; back++) {
        TRY(span_clear(space, slab->self + back));
    }
    return run_release(space, slab->self, slab->length);
}

// ---- Blocks ---------------------------------------------------------------------------------------------------------

static uint64_t bitmap_word_offset(const struct space *space, const struct span *slab, unsigned word) {
    return span_offset(space, slab->self) + word * sizeof(uint64_t);
}

// Writes what changed when one block came or went: counts and lists, and the bitmap's word.
static shelf_result slab_write(const struct space *space, const struct slab *slab, unsigned word,
                               uint64_t bits) {
    if (slab->shape->head == 0) {
        return span_write(space, slab->span.self, &slab->span);
    }
    TRY(place_write(space->place, span_descriptor_offset(&space->layout, slab->span.self), &slab->span,
                    offsetof(struct span, length)));
    return place_write(space->place, bitmap_word_offset(space, &slab->span, word), &bits, sizeof(bits));
}

static shelf_result bitmap_word_read(const struct space *space, const struct slab *slab, unsigned word,
                                     uint64_t *ret_bits) {
    if (slab->shape->head == 0) {
        *ret_bits = slab->span.bitmap[word];
        return SHELF_OK;
    }
    return place_read(space->place, bitmap_word_offset(space, &slab->span, word), ret_bits,
                      sizeof(*ret_bits));
}

// Takes a free block of a slab that is in a list.
static shelf_result block_take(const struct space *space, uint32_t index, unsigned class,
                               uint64_t *ret_offset) {
    struct slab slab;
    TRY(slab_read(space, index, &slab));
    unsigned word_count = alloc_shape_bitmap_words(slab.shape);
    unsigned word = slab.span.scan;
    uint64_t bits = ~(uint64_t)0;
    for (; slab.span.class == class && word < word_count; word++) {
        TRY(bitmap_word_read(space, &slab, word, &bits));
        if (~bits != 0) {
            break;
        }
    }
    if (~bits == 0) {
        return REFUSE(CORRUPT,
                      "region %u: the slab at span %u is in the list of class %u and has no free block",
                      space->place.region, index, class);
    }
    unsigned bit = (unsigned)__builtin_ctzll(~bits);
    bits |= (uint64_t)1 << bit;
    if (slab.shape->head == 0) {
        slab.span.bitmap[word] = bits;
    }
    slab.span.scan = (uint16_t)word;
    slab.span.used++;
    if (slab.span.used == slab.shape->blocks) {
        TRY(slab_unlink(space, &slab.span));
    }
    TRY(slab_write(space, &slab, word, bits));
    *ret_offset =
        span_offset(space, index) + slab.shape->head + (uint64_t)(word * 64 + bit) * slab.shape->size;
    return SHELF_OK;
}

static shelf_result block_put(const struct space *space, struct slab *slab, unsigned block) {
    struct span *span = &slab->span;
    unsigned word = block / 64;
    uint64_t bits;
    TRY(bitmap_word_read(space, slab, word, &bits));
    bits &= ~((uint64_t)1 << (block % 64));
    if (slab->shape->head == 0) {
        span->bitmap[word] = bits;
    }
    if (span->used == slab->shape->blocks) {
        TRY(slab_link(space, span));
    }
    span->used--;
    span->scan = word < span->scan ? (uint16_t)word : span->scan;
    if (span->used == 0 && (span->next != 0 || span->prev != 0)) { // I7
        return slab_destroy(space, span);
    }
    return slab_write(space, slab, word, bits);
}

// ---- Where space is short -------------------------------------------------------------------------------------------

// A run, after growing into what the region has grown by if need be.
static shelf_result run_acquire_or_grow(struct space *space, uint64_t length, uint64_t *ret_first) {
    shelf_result result = run_acquire(space, length, ret_first);
    if (result != SHELF_NO_SPACE) {
        return result;
    }
    bool grown;
    TRY(space_grow(space, &grown));
    return grown ? run_acquire(space, length, ret_first) : SHELF_NO_SPACE;
}

// Gives the empty slabs of all lists back.
static shelf_result slabs_reclaim(const struct space *space) {
    for (unsigned arena = 0; arena < ARENAS_MAX; arena++) {
        for (unsigned class = 0; class < ALLOC_CLASSES; class ++) {
            uint32_t index;
            TRY(list_first(space, arena, class, &index));
            for (uint64_t steps = 0; index != 0; steps++) {
                struct slab slab;
                TRY(slab_read(space, index, &slab));
                if (steps > space->span_count) {
                    return REFUSE(CORRUPT, "region %u: the slab list of arena %u, class %u has a loop",
                                  space->place.region, arena, class);
                }
                index = slab.span.next;
                if (slab.span.used == 0) {
                    TRY(slab_destroy(space, &slab.span));
                }
            }
        }
    }
    return SHELF_OK;
}

// A block of any arena's slabs, of this class or up to a doubling more.
static shelf_result block_borrow(const struct space *space, unsigned class, unsigned class_end,
                                 uint64_t *ret_offset) {
    for (; class < class_end && class < ALLOC_CLASSES; class ++) {
        for (unsigned arena = 0; arena < ARENAS_MAX; arena++) {
            uint32_t index;
            TRY(list_first(space, arena, class, &index));
            if (index != 0) {
                return block_take(space, index, class, ret_offset);
            }
        }
    }
    return SHELF_NO_SPACE;
}

static shelf_result large_alloc(struct space *space, uint64_t length, uint64_t *ret_offset) {
    uint64_t first;
    shelf_result result = run_acquire_or_grow(space, length, &first);
    if (result == SHELF_NO_SPACE) {
        TRY(slabs_reclaim(space));
        result = run_acquire(space, length, &first);
    }
    TRY(result);
    struct span large = {.kind = SPAN_LARGE, .length = length, .self = (uint32_t)first};
    TRY(span_write(space, first, &large));
    *ret_offset = span_offset(space, first);
    return SHELF_OK;
}

// The arena has no free block of the class.
static shelf_result block_alloc_slowly(struct space *space, unsigned arena, unsigned class,
                                       uint64_t *ret_offset) {
    bool grown;
    uint32_t index;
    shelf_result result = slab_create(space, arena, class, &index);
    if (result == SHELF_NO_SPACE) {
        TRY(space_grow(space, &grown));
        result = grown ? slab_create(space, arena, class, &index) : SHELF_NO_SPACE;
    }
    if (result == SHELF_NO_SPACE) {
        result = block_borrow(space, class, class + 1, ret_offset);
        if (result != SHELF_NO_SPACE) {
            return result;
        }
        TRY(slabs_reclaim(space));
        result = slab_create(space, arena, class, &index);
    }
    if (result == SHELF_NO_SPACE) {
        result = block_borrow(space, class + 1, class + 5, ret_offset);
        const struct class_shape *shape = alloc_class_shape(is_small(space), class);
        if (result == SHELF_NO_SPACE && shape->spans > 1) {
            return large_alloc(space, spans_of(space, shape->size), ret_offset);
        }
        return result;
    }
    TRY(result);
    return block_take(space, index, class, ret_offset);
}

// ---- Calls ----------------------------------------------------------------------------------------------------------

shelf_result shelf_alloc(shelf_tx *tx, shelf_region region, size_t size, shelf_addr *ret_address) {
    struct space space;
    TRY(space_open(tx, region, &space));
    if (size > SHELF_REGION_BYTES_MAX) {
        return REFUSE(TOO_LARGE, "an allocation of %zu bytes, more than a region can have", size);
    }
    size = size > 0 ? size : 1;
    uint64_t offset;
    unsigned class;
    shelf_result result;
    if (class_pick(is_small(&space), size, &class)) {
        unsigned arena = shelf_tx_hint(tx) % space.arena_count;
        uint32_t index;
        TRY(list_first(&space, arena, class, &index));
        result = index != 0 ? block_take(&space, index, class, &offset)
                            : block_alloc_slowly(&space, arena, class, &offset);
    } else {
        result = large_alloc(&space, spans_of(&space, size), &offset);
    }
    if (result == SHELF_NO_SPACE) {
        return REFUSE(NO_SPACE, "region %u has no room for %zu bytes more: free something or grow it", region,
                      size);
    }
    TRY(result);
    *ret_address = shelf_addr_make(region, offset);
    return SHELF_OK;
}

// Finds the allocation that begins at `offset`: its span, and its block if that is a slab. INVALID if there is none.
static shelf_result allocation_find(const struct space *space, uint64_t offset, struct slab *ret_slab,
                                    unsigned *ret_block) {
    uint64_t index = offset >> space->layout.shift;
    struct slab slab = {.shape = NULL};
    if (index < space->layout.reserved || index >= space->span_count) {
        goto none;
    }
    TRY(span_read(space, index, &slab.span));
    if (slab.span.kind == SPAN_SLAB_REST && slab.span.back <= index) {
        index -= slab.span.back;
        TRY(span_read(space, index, &slab.span));
    }
    if (slab.span.kind == SPAN_LARGE && offset == span_offset(space, index)) {
        *ret_slab = slab;
        return SHELF_OK;
    }
    if (slab.span.kind != SPAN_SLAB) {
        goto none;
    }
    TRY(slab_read(space, index, &slab));
    const struct class_shape *shape = slab.shape;
    uint64_t within = offset - span_offset(space, index);
    if (within < shape->head || (within - shape->head) % shape->size != 0) {
        goto none;
    }
    uint64_t block = (within - shape->head) / shape->size;
    if (block >= shape->blocks) {
        goto none;
    }
    uint64_t bits;
    TRY(bitmap_word_read(space, &slab, (unsigned)(block / 64), &bits));
    if ((bits >> (block % 64) & 1) == 0 || slab.span.used == 0) {
        goto none;
    }
    *ret_slab = slab;
    *ret_block = (unsigned)block;
    return SHELF_OK;

none:
    return REFUSE(INVALID, "region %u: there is no allocation at offset %llu (freed already, or never made)",
                  space->place.region, (unsigned long long)offset);
}

shelf_result shelf_free(shelf_tx *tx, shelf_addr address) {
    struct space space;
    TRY(space_open(tx, shelf_addr_region(address), &space));
    struct slab slab;
    unsigned block = 0;
    TRY(allocation_find(&space, shelf_addr_offset(address), &slab, &block));
    if (slab.shape) {
        return block_put(&space, &slab, block);
    }
    return run_release(&space, slab.span.self, slab.span.length);
}

shelf_result shelf_alloc_size(shelf_tx *tx, shelf_addr address, size_t *ret_size) {
    struct space space;
    TRY(space_open(tx, shelf_addr_region(address), &space));
    struct slab slab;
    unsigned block = 0;
    TRY(allocation_find(&space, shelf_addr_offset(address), &slab, &block));
    *ret_size = slab.shape ? slab.shape->size : (size_t)span_offset(&space, slab.span.length);
    return SHELF_OK;
}
