// SPDX-License-Identifier: Apache-2.0
//
// The allocator: sizes and alignment, a random life against a map of what is taken, misuse, full and growing regions,
// damage.

#include "structure_fixture.h"

#include "structure/alloc.h"

#define MIB            ((uint64_t)1 << 20)
#define SPAN_SIZE      65536u // of regions of 4 MiB and more
#define SPAN_SHIFT     16
#define SPANS_RESERVED 2u
#define SMALL_SIZE     4096u // of smaller ones
#define SMALL_RESERVED 14u

// ---- Sizes ----------------------------------------------------------------------------------------------------------

static void sizes_and_alignment(uint64_t region_size, size_t size_end) {
    bool small = region_size < REGION_SMALL_MAX;
    struct fixture f = {0};
    fixture_open(&f, region_size, 0);
    shelf_tx *tx = begin_write(&f);
    for (size_t size = 1; size < size_end; size += size / 7 + 1) {
        shelf_addr address;
        size_t usable;
        EXPECT_OK(shelf_alloc(tx, f.region, size, &address));
        EXPECT_OK(shelf_alloc_size(tx, address, &usable));
        assert_true(usable >= size);
        assert_int_equal(usable, alloc_capacity(small, size));
        assert_int_equal(shelf_addr_region(address), f.region);
        assert_int_equal(shelf_addr_offset(address) % (size >= 64 ? 64 : 16), 0);
        if (size > 48 && size <= 512) {
            assert_true(usable < size + 64);
        } else if (size > 512) {
            assert_true(usable - size <= size / 4); // 20 % of what is taken
        }
        EXPECT_OK(shelf_free(tx, address));
    }
    shelf_abort(tx);
    fixture_close(&f);
}

static void test_alloc_sizes_and_alignment(void **state) {
    (void)state;
    sizes_and_alignment(64 * MIB, 4 * MIB);
    sizes_and_alignment(3 * MIB, MIB);
}

static void shapes_tile_their_slabs(bool small, uint32_t span_size) {
    for (unsigned class = 0; class < ALLOC_CLASSES; class ++) {
        const struct class_shape *shape = alloc_class_shape(small, class);
        assert_int_equal(shape->size, alloc_class_shape(!small, class)->size);
        if (shape->spans == 0) {
            assert_int_equal(shape->size % span_size, 0);
            continue;
        }
        uint64_t slab = (uint64_t)shape->spans * span_size;
        uint64_t used = shape->head + (uint64_t)shape->blocks * shape->size;
        assert_true(used <= slab && slab - used <= slab / 8);
        assert_true(shape->blocks >= 2);
        assert_int_equal(shape->head % (shape->size >= 64 ? 64 : 16), 0);
        assert_true(alloc_shape_bitmap_words(shape) * 8 <= (shape->head != 0 ? shape->head : 32));
        assert_true(class == 0 || shape->size > alloc_class_shape(small, class - 1)->size);
    }
}

static void test_alloc_class_shapes_tile_their_slabs(void **state) {
    (void)state;
    shapes_tile_their_slabs(false, SPAN_SIZE);
    shapes_tile_their_slabs(true, SMALL_SIZE);
    assert_int_equal(alloc_capacity(false, 124), 128);
    assert_int_equal(alloc_capacity(true, 33000), 36864);
    assert_true(alloc_is_same(100, 128));
    assert_false(alloc_is_same(33000, 40000)); // one class in a large region, two lengths in a small one
}

// ---- Random life ----------------------------------------------------------------------------------------------------

#define BLOCKS_MAX 4000u

struct model {
    struct {
        shelf_addr address;
        size_t size; // usable
    } blocks[BLOCKS_MAX];
    size_t count;
    uint64_t live;
    unsigned char *granules; // one for each 16 bytes of the region: taken?
};

static void model_mark(struct model *model, shelf_addr address, size_t size, bool taken) {
    uint64_t first = shelf_addr_offset(address) / 16;
    for (uint64_t granule = first; granule < first + (size + 15) / 16; granule++) {
        assert_int_equal(model->granules[granule], !taken); // two blocks overlap, or one is freed twice
        model->granules[granule] = taken;
    }
    model->live = taken ? model->live + size : model->live - size;
}

static size_t size_random(struct random *random) {
    switch (random_below(random, 8)) {
    case 0:
        return random_between(random, 1, 64);
    case 1:
        return random_between(random, 1, 64 << 10);
    case 2:
        return random_between(random, 1, 400 << 10);
    default:
        return random_between(random, 1, 1200);
    }
}

static bool model_alloc(struct model *model, shelf_tx *tx, shelf_region region, size_t size) {
    shelf_addr address;
    shelf_result result = shelf_alloc(tx, region, size, &address);
    if (result == SHELF_NO_SPACE) {
        return false;
    }
    EXPECT_OK(result);
    size_t usable;
    EXPECT_OK(shelf_alloc_size(tx, address, &usable));
    assert_true(usable >= size);
    model_mark(model, address, usable, true);
    model->blocks[model->count].address = address;
    model->blocks[model->count++].size = usable;
    return true;
}

static void model_free(struct model *model, shelf_tx *tx, size_t index) {
    EXPECT_OK(shelf_free(tx, model->blocks[index].address));
    model_mark(model, model->blocks[index].address, model->blocks[index].size, false);
    model->blocks[index] = model->blocks[--model->count];
}

static void model_check(const struct model *model, const struct fixture *f) {
    struct shelf_alloc_sums sums = audit(f);
    assert_true(sums.live == model->live);
    assert_true(sums.blocks_live == model->count);
}

static struct model *model_make(uint64_t region_size) {
    struct model *model = calloc(1, sizeof(*model));
    assert_non_null(model);
    model->granules = calloc(region_size / 16, 1);
    assert_non_null(model->granules);
    return model;
}

static void model_end(struct model *model) {
    free(model->granules);
    free(model);
}

// Allocates and frees at random, in transactions of which some are aborted; now and then the region gets full.
static void random_life(uint64_t first_size, uint64_t region_size, uint64_t seed, unsigned rounds) {
    struct fixture f = {0};
    struct random random;
    random_seed(&random, seed);
    fixture_open(&f, first_size, 0);
    struct model *model = model_make(region_size);
    struct model *saved = model_make(region_size);
    unsigned full = 0;
    for (unsigned round = 0; round < rounds; round++) {
        shelf_tx *tx = begin_write(&f);
        unsigned char *granules = saved->granules;
        *saved = *model;
        saved->granules = granules;
        memcpy(saved->granules, model->granules, region_size / 16);
        bool grows = round % 10 < 6;
        if (round == rounds / 3) {
            EXPECT_OK(shelf_region_grow(f.s, f.region, region_size));
        }
        for (unsigned step = 0; step < 60; step++) {
            if (model->count < BLOCKS_MAX &&
                (model->count == 0 || random_chance(&random, grows ? 3 : 1, 4))) {
                full += !model_alloc(model, tx, f.region, size_random(&random));
            } else {
                model_free(model, tx, random_below(&random, model->count));
            }
        }
        if (random_chance(&random, 1, 5)) {
            shelf_abort(tx);
            struct model *swap = model;
            model = saved;
            saved = swap;
        } else {
            commit(tx);
        }
        model_check(model, &f);
    }
    assert_true(full > 0);
    shelf_tx *tx = begin_write(&f);
    while (model->count > 0) {
        model_free(model, tx, model->count - 1);
    }
    commit(tx);
    model_check(model, &f);
    model_end(model);
    model_end(saved);
    fixture_close(&f);
}

static void test_alloc_against_model_small_region(void **state) {
    (void)state;
    random_life(MIB, MIB, 1, 150);
}

static void test_alloc_against_model(void **state) {
    (void)state;
    random_life(12 * MIB, 12 * MIB, 2, 300);
}

static void test_alloc_against_model_growing_region(void **state) {
    (void)state;
    random_life(MIB, 10 * MIB + 40960, 3, 300);
}

// ---- Misuse ---------------------------------------------------------------------------------------------------------

static void test_free_of_what_is_no_allocation(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 0);
    shelf_tx *tx = begin_write(&f);
    shelf_addr small, slab, large;
    size_t size;
    EXPECT_OK(shelf_alloc(tx, f.region, 100, &small));
    EXPECT_OK(shelf_alloc(tx, f.region, 90000, &slab)); // from a slab of several spans
    EXPECT_OK(shelf_alloc(tx, f.region, 300000, &large));
    const shelf_addr wrong[] = {
        small + 16,
        small + 128, // a block, but a free one
        slab + 65536,
        large + 64,
        large + SPAN_SIZE,
        shelf_addr_make(f.region, 0),
        shelf_addr_make(f.region, SPAN_LAYOUT_LARGE.table_offset),
        shelf_addr_make(f.region, 4 * MIB - 64),
        shelf_addr_make(f.region, 4 * MIB),
        shelf_addr_make(f.region, (uint64_t)1 << 47),
    };
    for (size_t index = 0; index < sizeof(wrong) / sizeof(wrong[0]); index++) {
        EXPECT(SHELF_INVALID, shelf_free(tx, wrong[index]));
        EXPECT(SHELF_INVALID, shelf_alloc_size(tx, wrong[index], &size));
    }
    const shelf_addr right[] = {small, slab, large};
    for (size_t index = 0; index < 3; index++) {
        EXPECT_OK(shelf_free(tx, right[index]));
        EXPECT(SHELF_INVALID, shelf_free(tx, right[index]));
        EXPECT(SHELF_INVALID, shelf_alloc_size(tx, right[index], &size));
    }
    commit(tx);
    assert_int_equal(audit(&f).blocks_live, 0);
    fixture_close(&f);
}

static void test_alloc_too_large(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 0);
    shelf_tx *tx = begin_write(&f);
    shelf_addr address;
    EXPECT(SHELF_TOO_LARGE, shelf_alloc(tx, f.region, SHELF_REGION_BYTES_MAX + 1, &address));
    EXPECT(SHELF_TOO_LARGE, shelf_alloc(tx, f.region, SIZE_MAX, &address));
    EXPECT(SHELF_NO_SPACE, shelf_alloc(tx, f.region, 4 * MIB, &address));
    EXPECT_OK(shelf_alloc(tx, f.region, 0, &address));
    EXPECT_OK(shelf_free(tx, address));
    shelf_abort(tx);
    fixture_close(&f);
}

static void test_alloc_in_read_only_transaction(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, MIB, 0);
    shelf_tx *tx = begin_read(&f);
    shelf_addr address;
    EXPECT(SHELF_INVALID, shelf_alloc(tx, f.region, 100, &address));
    shelf_abort(tx);
    fixture_close(&f);
}

// ---- Space ----------------------------------------------------------------------------------------------------------

static void test_alloc_aborted_leaves_nothing(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 0);
    struct shelf_alloc_sums before = audit(&f);
    shelf_tx *tx = begin_write(&f);
    for (unsigned index = 0; index < 500; index++) {
        shelf_addr address;
        EXPECT_OK(shelf_alloc(tx, f.region, 1 + index * 7, &address));
    }
    shelf_abort(tx);
    struct shelf_alloc_sums after = audit(&f);
    assert_memory_equal(&before, &after, sizeof(before));
    fixture_close(&f);
}

static unsigned fill(const struct fixture *f, size_t size, shelf_addr *blocks, unsigned blocks_max) {
    shelf_tx *tx = begin_write(f);
    unsigned count = 0;
    shelf_result result = SHELF_OK;
    while (count < blocks_max && (result = shelf_alloc(tx, f->region, size, &blocks[count])) == SHELF_OK) {
        count++;
    }
    EXPECT(SHELF_NO_SPACE, result);
    commit(tx); // what was allocated before stays
    return count;
}

static void full_region_recovers(uint64_t region_size, uint64_t reserved) {
    enum { BLOCKS = 40000 };
    static shelf_addr blocks[BLOCKS];
    struct fixture f = {0};
    fixture_open(&f, region_size, region_size);
    unsigned count = fill(&f, 128, blocks, BLOCKS);
    assert_true(count > (region_size - reserved) / 128 * 9 / 10);
    assert_int_equal(audit(&f).blocks_live, count);
    shelf_addr address;
    shelf_tx *tx = begin_write(&f);
    EXPECT(SHELF_NO_SPACE, shelf_alloc(tx, f.region, 5000, &address));
    EXPECT_OK(shelf_free(tx, blocks[count / 2]));
    EXPECT_OK(shelf_alloc(tx, f.region, 128, &address));
    assert_true(address == blocks[count / 2]);
    EXPECT(SHELF_NO_SPACE, shelf_alloc(tx, f.region, 128, &address));
    for (unsigned index = 0; index < count; index++) {
        EXPECT_OK(shelf_free(tx, blocks[index]));
    }
    // Everything is one piece again, the kept empty slab included.
    EXPECT_OK(shelf_alloc(tx, f.region, region_size - reserved, &address));
    EXPECT(SHELF_NO_SPACE, shelf_alloc(tx, f.region, 1, &address));
    commit(tx);
    assert_int_equal(audit(&f).free, 0);
    fixture_close(&f);
}

static void test_alloc_full_region_recovers(void **state) {
    (void)state;
    full_region_recovers(4 * MIB, SPANS_RESERVED * SPAN_SIZE);
    full_region_recovers(MIB, SMALL_RESERVED * SMALL_SIZE);
}

// A class without a slab of its own takes from larger ones when there are no spans left.
static void borrows_larger_blocks(uint64_t region_size, size_t block, size_t size) {
    static shelf_addr blocks[600];
    struct fixture f = {0};
    fixture_open(&f, region_size, region_size);
    unsigned count = fill(&f, block, blocks, 600);
    assert_true(count > 20 && count < 600);
    shelf_addr address;
    size_t usable;
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(shelf_free(tx, blocks[count - 1]));
    EXPECT_OK(shelf_alloc(tx, f.region, size, &address));
    EXPECT_OK(shelf_alloc_size(tx, address, &usable));
    assert_int_equal(usable, block);
    EXPECT(SHELF_NO_SPACE, shelf_alloc(tx, f.region, size, &address));
    commit(tx);
    (void)audit(&f);
    fixture_close(&f);
}

static void test_alloc_borrows_larger_blocks(void **state) {
    (void)state;
    borrows_larger_blocks(4 * MIB, 8192, 7000);
    borrows_larger_blocks(MIB, 2048, 1700);
}

static void test_alloc_uses_what_the_region_grew_by(void **state) {
    (void)state;
    enum { BLOCKS = 400 };
    static shelf_addr blocks[BLOCKS];
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 200 * MIB);
    unsigned count = fill(&f, 32768, blocks, BLOCKS);
    EXPECT_OK(shelf_region_grow(f.s, f.region, 6 * MIB + 8192));
    (void)audit(&f); // the allocator does not know yet
    count += fill(&f, 32768, blocks + count, BLOCKS - count);
    assert_int_equal(count, (6 * MIB - SPANS_RESERVED * SPAN_SIZE) / 32768);
    EXPECT_OK(shelf_region_grow(f.s, f.region, 9 * MIB));
    shelf_tx *tx = begin_write(&f);
    shelf_addr large;
    EXPECT_OK(shelf_alloc(tx, f.region, 3 * MIB, &large));
    EXPECT(SHELF_NO_SPACE, shelf_alloc(tx, f.region, SPAN_SIZE, &large));
    commit(tx);
    (void)audit(&f);
    fixture_close(&f);
}

// A region that was small has slabs as long as a large one has, once it has grown, and short ones where those do not fit.
static void test_alloc_small_region_grows(void **state) {
    (void)state;
    enum { BLOCKS = 70000 };
    static shelf_addr blocks[BLOCKS];
    struct fixture f = {0};
    fixture_open(&f, MIB, 0);
    unsigned count = fill(&f, 128, blocks, BLOCKS), before = count;
    assert_true(count * 128 > MIB * 9 / 10);
    EXPECT_OK(shelf_region_grow(f.s, f.region, 8 * MIB));
    count += fill(&f, 128, blocks + count, BLOCKS - count);
    assert_true(count < BLOCKS && count * 128 > 8 * MIB * 9 / 10);
    assert_true(audit(&f).free < 128 * 32);
    uint64_t within = shelf_addr_offset(blocks[before]) % SMALL_SIZE; // its slab's bitmap lies before it
    assert_int_equal(within, 128);
    shelf_tx *tx = begin_write(&f);
    for (unsigned index = 0; index < count; index++) {
        EXPECT_OK(shelf_free(tx, blocks[index]));
    }
    commit(tx);
    assert_int_equal(audit(&f).live, 0);
    fixture_reopen(&f);
    assert_int_equal(audit(&f).live, 0);
    fixture_close(&f);
}

// Beyond 64 MiB there is a second table of descriptors, and beyond 128 MiB a third.
static void test_alloc_beyond_the_first_table(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 60 * MIB, 400 * MIB);
    EXPECT_OK(shelf_region_grow(f.s, f.region, 64 * MIB + SPAN_SIZE)); // the second table alone would fit
    shelf_tx *tx = begin_write(&f);
    shelf_addr a, b, c, d;
    EXPECT_OK(shelf_alloc(tx, f.region, 64 * MIB - SPANS_RESERVED * SPAN_SIZE, &a));
    EXPECT(SHELF_NO_SPACE, shelf_alloc(tx, f.region, 1, &b));
    commit(tx);
    (void)audit(&f);
    EXPECT_OK(shelf_region_grow(f.s, f.region, 160 * MIB));
    tx = begin_write(&f);
    EXPECT_OK(shelf_alloc(tx, f.region, 64 * MIB - SPAN_SIZE, &b)); // all between two tables
    EXPECT_OK(shelf_alloc(tx, f.region, 32 * MIB - 3 * SPAN_SIZE, &c));
    EXPECT_OK(shelf_alloc(tx, f.region, 100, &d));
    EXPECT(SHELF_NO_SPACE, shelf_alloc(tx, f.region, SPAN_SIZE, &d));
    commit(tx);
    (void)audit(&f);
    tx = begin_write(&f);
    EXPECT_OK(shelf_free(tx, a));
    EXPECT_OK(shelf_free(tx, c));
    EXPECT_OK(shelf_free(tx, b));
    EXPECT_OK(shelf_free(tx, d));
    commit(tx);
    assert_int_equal(audit(&f).live, 0);
    fixture_close(&f);
}

static void test_alloc_survives_a_restart(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 0);
    shelf_addr a, b;
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(shelf_alloc(tx, f.region, 1000, &a));
    commit(tx);
    struct shelf_alloc_sums before = audit(&f);
    fixture_reopen(&f);
    struct shelf_alloc_sums after = audit(&f);
    assert_memory_equal(&before, &after, sizeof(before));
    tx = begin_write(&f);
    EXPECT_OK(shelf_alloc(tx, f.region, 1000, &b));
    assert_true(a != b);
    EXPECT_OK(shelf_free(tx, a));
    commit(tx);
    fixture_close(&f);
}

// ---- Damage ---------------------------------------------------------------------------------------------------------

// Every one of these changes to the allocator's own lines must be found by the audit.
static void test_audit_finds_damage(void **state) {
    (void)state;
    const struct span_layout layout = SPAN_LAYOUT_LARGE;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 0);
    shelf_tx *tx = begin_write(&f);
    shelf_addr small, inlined, slab, large;
    EXPECT_OK(shelf_alloc(tx, f.region, 128, &small));
    EXPECT_OK(shelf_alloc(tx, f.region, 1024, &inlined));
    EXPECT_OK(shelf_alloc(tx, f.region, 90000, &slab));
    EXPECT_OK(shelf_alloc(tx, f.region, 5 * SPAN_SIZE, &large));
    commit(tx);
    uint64_t small_span = span_descriptor_offset(&layout, shelf_addr_offset(small) >> SPAN_SHIFT);
    uint64_t inlined_span = span_descriptor_offset(&layout, shelf_addr_offset(inlined) >> SPAN_SHIFT);
    uint64_t slab_span = span_descriptor_offset(&layout, shelf_addr_offset(slab) >> SPAN_SHIFT);
    uint64_t large_span = span_descriptor_offset(&layout, shelf_addr_offset(large) >> SPAN_SHIFT);
    const struct {
        const char *what;
        uint64_t offset;
        unsigned char flip;
    } damages[] = {
        {"a bit of a bitmap at the slab's beginning", shelf_addr_offset(small) >> SPAN_SHIFT << SPAN_SHIFT,
         2},
        {"a bit behind the last block", (shelf_addr_offset(small) >> SPAN_SHIFT << SPAN_SHIFT) + 63, 128},
        {"a bit of a bitmap in the descriptor", inlined_span + offsetof(struct span, bitmap), 4},
        {"the count", small_span + offsetof(struct span, used), 1},
        {"the place where the search begins", small_span + offsetof(struct span, scan), 1},
        {"the class", inlined_span + offsetof(struct span, class), 1},
        {"the arena", inlined_span + offsetof(struct span, arena), 1},
        {"an impossible class", inlined_span + offsetof(struct span, class), 64},
        {"the kind", inlined_span + offsetof(struct span, kind), 1},
        {"an impossible kind", inlined_span + offsetof(struct span, kind), 64},
        {"the own number", large_span + offsetof(struct span, self), 1},
        {"the length of a slab", slab_span + offsetof(struct span, length), 1},
        {"the length of a large one", large_span + offsetof(struct span, length), 1},
        {"an impossible length", large_span + offsetof(struct span, length) + 7, 1},
        {"the distance of a slab's rest", slab_span + sizeof(struct span) + offsetof(struct span, back), 1},
        {"a link forwards", inlined_span + offsetof(struct span, next), 1},
        {"a link backwards", inlined_span + offsetof(struct span, prev), 1},
        {"the bits of the bins", RUN_BINS_OFFSET, 2},
        {"the number of spans", offsetof(struct region_head, span_count), 1},
        {"the number of arenas", offsetof(struct region_head, arena_count), 64},
    };
    (void)audit(&f);
    for (size_t index = 0; index < sizeof(damages) / sizeof(damages[0]); index++) {
        shelf_addr at = shelf_addr_make(f.region, damages[index].offset);
        struct shelf_alloc_sums sums;
        unsigned char byte;
        tx = begin_write(&f);
        EXPECT_OK(shelf_read(tx, at, &byte, 1));
        byte ^= damages[index].flip;
        EXPECT_OK(shelf_write(tx, at, &byte, 1));
        shelf_result result = shelf_alloc_audit(tx, f.region, &sums);
        if (result != SHELF_CORRUPT || shelf_detail()[0] == 0) {
            fail_msg("%s: %s", damages[index].what, shelf_result_name(result));
        }
        shelf_abort(tx);
    }
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc_sizes_and_alignment),
        cmocka_unit_test(test_alloc_class_shapes_tile_their_slabs),
        cmocka_unit_test(test_alloc_against_model_small_region),
        cmocka_unit_test(test_alloc_against_model),
        cmocka_unit_test(test_alloc_against_model_growing_region),
        cmocka_unit_test(test_free_of_what_is_no_allocation),
        cmocka_unit_test(test_alloc_too_large),
        cmocka_unit_test(test_alloc_in_read_only_transaction),
        cmocka_unit_test(test_alloc_aborted_leaves_nothing),
        cmocka_unit_test(test_alloc_full_region_recovers),
        cmocka_unit_test(test_alloc_borrows_larger_blocks),
        cmocka_unit_test(test_alloc_uses_what_the_region_grew_by),
        cmocka_unit_test(test_alloc_small_region_grows),
        cmocka_unit_test(test_alloc_beyond_the_first_table),
        cmocka_unit_test(test_alloc_survives_a_restart),
        cmocka_unit_test(test_audit_finds_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
