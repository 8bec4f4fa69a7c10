// SPDX-License-Identifier: Apache-2.0
//
// Transactions on an image built by hand: exact reads, extension and conflict, views, buffered changes and the request
// that comes out of them, limits.

#include <stdio.h>

#include "base/random.h"
#include "client/line_table.h"
#include "tx_bed.h"

enum { BED_SIZE = 1 << 20 };
static struct tx_bed *bed;

static int bed_up(void **state) {
    (void)state;
    bed = bed_make(BED_SIZE);
    return 0;
}
static int bed_down(void **state) {
    (void)state;
    bed_free(bed);
    return 0;
}

static shelf_addr in_a(uint64_t offset) {
    return shelf_addr_make(BED_REGION_A, offset);
}
static shelf_addr in_b(uint64_t offset) {
    return shelf_addr_make(BED_REGION_B, offset);
}

static struct shelf_tx *begin(unsigned flags) {
    struct shelf_tx *tx = NULL;
    assert_int_equal(tx_begin(&bed->host, flags, &tx), SHELF_OK);
    return tx;
}

static uint64_t read_u64(struct shelf_tx *tx, shelf_addr from) {
    uint64_t word = 0;
    assert_int_equal(shelf_read(tx, from, &word, sizeof(word)), SHELF_OK);
    return word;
}

static void write_u64(struct shelf_tx *tx, shelf_addr to, uint64_t word) {
    assert_int_equal(shelf_write(tx, to, &word, sizeof(word)), SHELF_OK);
}

static void data_fill(uint64_t seed) {
    struct random random;
    random_seed(&random, seed);
    random_fill(&random, bed->data[BED_REGION_A], BED_SIZE);
    random_fill(&random, bed->data[BED_REGION_B], BED_SIZE);
}

// ---- Begin ----------------------------------------------------------------------------------------------------------

static void test_begin_wants_exactly_one_kind(void **state) {
    (void)state;
    struct shelf_tx *tx = NULL;
    assert_int_equal(tx_begin(&bed->host, 0, &tx), SHELF_INVALID);
    assert_int_equal(tx_begin(&bed->host, SHELF_READ_ONLY | SHELF_READ_WRITE, &tx), SHELF_INVALID);
    assert_int_equal(tx_begin(&bed->host, SHELF_READ_ONLY | 64, &tx), SHELF_INVALID);
    assert_null(tx);
    tx_end(begin(SHELF_READ_ONLY | SHELF_FRESH));
    tx_end(begin(SHELF_READ_WRITE | SHELF_FRESH));
}

static void test_begin_is_at_the_applied_index(void **state) {
    (void)state;
    bed_applied(bed, 77);
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    assert_int_equal(shelf_tx_index(tx), 77);
    assert_ptr_equal(shelf_tx_shelf(tx), &bed->host);
    tx_end(tx);
}

static void test_hint_moves_with_attempts_only(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    uint32_t hint = shelf_tx_hint(tx);
    tx_hint_shift(tx, 3);
    assert_int_equal(shelf_tx_hint(tx), hint + 3);
    tx_end(tx);
    tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_tx_hint(tx), hint);
    tx_end(tx);
}

// ---- Reads ----------------------------------------------------------------------------------------------------------

static void test_read_copies_any_size_and_alignment(void **state) {
    (void)state;
    data_fill(1);
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    for (size_t offset = 0; offset < 2 * LINE_SIZE; offset++) {
        for (size_t size = 0; size < 5 * LINE_SIZE; size++) {
            uint8_t bytes[5 * LINE_SIZE + 16];
            memset(bytes, 0xa5, sizeof(bytes));
            assert_int_equal(shelf_read(tx, in_a(4096 + offset), bytes + 8, size), SHELF_OK);
            assert_memory_equal(bytes + 8, bed->data[BED_REGION_A] + 4096 + offset, size);
            for (size_t i = 0; i < 8; i++) {
                assert_int_equal(bytes[i], 0xa5);
                assert_int_equal(bytes[8 + size + i], 0xa5);
            }
        }
    }
    tx_end(tx);
}

static void test_read_refuses_what_is_outside(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    uint8_t bytes[200];
    assert_int_equal(shelf_read(tx, in_a(BED_SIZE - 64), bytes, 64), SHELF_OK);
    assert_int_equal(shelf_read(tx, in_a(BED_SIZE - 64), bytes, 65), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, in_a(BED_SIZE), bytes, 64), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, in_a(BED_SIZE - 8), bytes, 200), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, in_a(((uint64_t)1 << 48) - 8), bytes, 8), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, in_a(8), bytes, SIZE_MAX), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, SHELF_NULL, bytes, 8), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, 4096, bytes, 8), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, shelf_addr_make(9, 0), bytes, 8), SHELF_NOT_FOUND);
    assert_string_not_equal(shelf_detail(), "");
    /* None of these is the end of the transaction. */
    assert_int_equal(shelf_read(tx, in_a(0), bytes, 64), SHELF_OK);
    tx_end(tx);
}

static void test_read_extends_over_changes_elsewhere(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    assert_int_equal(read_u64(tx, in_a(0)), 0);
    uint64_t index = bed_set(bed, in_b(640), 5);
    assert_int_equal(read_u64(tx, in_a(64)), 0);
    assert_int_equal(shelf_tx_index(tx), index - 1); /* nothing newer was met */
    assert_int_equal(read_u64(tx, in_b(640)), 5);
    assert_int_equal(shelf_tx_index(tx), index);
    tx_end(tx);
}

static void test_read_conflicts_if_what_was_read_changed(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    uint64_t word;
    const void *view;
    assert_int_equal(read_u64(tx, in_a(0)), 0);
    bed_set(bed, in_a(8), 1); /* another word of the line */
    bed_set(bed, in_b(0), 2);
    assert_int_equal(shelf_read(tx, in_b(0), &word, 8), SHELF_CONFLICT);
    assert_int_equal(tx_failed(tx), SHELF_CONFLICT);
    /* For good. */
    assert_int_equal(shelf_read(tx, in_a(4096), &word, 8), SHELF_CONFLICT);
    assert_int_equal(shelf_read(tx, in_a(4096), &word, 0), SHELF_CONFLICT);
    assert_int_equal(shelf_view(tx, in_a(4096), 8, &view), SHELF_CONFLICT);
    assert_int_equal(shelf_check(tx), SHELF_CONFLICT);
    tx_end(tx);
    tx = begin(SHELF_READ_ONLY);
    assert_int_equal(read_u64(tx, in_b(0)), 2);
    assert_int_equal(tx_failed(tx), SHELF_OK);
    tx_end(tx);
}

static void test_read_of_the_same_line_again_conflicts(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    uint64_t word;
    (void)read_u64(tx, in_a(0));
    bed_set(bed, in_a(0), 1);
    assert_int_equal(shelf_read(tx, in_a(0), &word, 8), SHELF_CONFLICT);
    assert_int_equal(shelf_write(tx, in_a(0), &word, 8), SHELF_CONFLICT);
    assert_int_equal(shelf_add(tx, in_a(0), 1), SHELF_CONFLICT);
    tx_end(tx);
}

static void test_read_of_old_lines_goes_on_without_extension(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    (void)read_u64(tx, in_a(0));
    bed_set(bed, in_a(0), 1);
    for (uint64_t offset = 64; offset < 64 * 1000; offset += 64)
        assert_int_equal(read_u64(tx, in_a(offset)), 0);
    assert_int_equal(shelf_tx_index(tx), 1);
    tx_end(tx);
}

static void test_floor_counts_as_the_version_of_every_line(void **state) {
    (void)state;
    struct shelf_tx *empty = begin(SHELF_READ_ONLY), *seen = begin(SHELF_READ_ONLY);
    (void)read_u64(seen, in_a(0));
    bed_set(bed, in_a(0), 1);
    bed_region_add(bed, 4, bed_next(bed));
    bed_applied(bed, bed_next(bed));
    uint64_t word;
    assert_int_equal(shelf_read(empty, shelf_addr_make(4, 0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_tx_index(empty), 3);
    assert_int_equal(shelf_read(seen, shelf_addr_make(4, 0), &word, 8), SHELF_CONFLICT);
    tx_end(empty);
    tx_end(seen);
}

static void test_dropped_region(void **state) {
    (void)state;
    struct shelf_tx *seen = begin(SHELF_READ_ONLY), *viewed = begin(SHELF_READ_ONLY),
                    *fresh = begin(SHELF_READ_ONLY);
    struct shelf_tx *other = begin(SHELF_READ_ONLY);
    uint64_t word;
    const void *view;
    (void)read_u64(seen, in_b(0));
    (void)read_u64(other, in_b(0));
    assert_int_equal(shelf_view(viewed, in_b(0), 8, &view), SHELF_OK);
    atomic_store(&bed->image->regions[BED_REGION_B].state, REGION_DROPPED);
    assert_int_equal(shelf_read(fresh, in_b(0), &word, 8), SHELF_NOT_FOUND);
    assert_int_equal(shelf_view(fresh, in_b(0), 8, &view), SHELF_NOT_FOUND);
    assert_int_equal(shelf_read(fresh, in_a(0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_read(seen, in_b(64), &word, 8), SHELF_CONFLICT);
    assert_int_equal(shelf_check(viewed), SHELF_CONFLICT);
    /* An extension sees it as well. */
    bed_set(bed, in_a(0), 1);
    assert_int_equal(shelf_read(other, in_a(0), &word, 8), SHELF_CONFLICT);
    tx_end(seen);
    tx_end(viewed);
    tx_end(fresh);
    tx_end(other);
}

// ---- Lines in mid-apply ---------------------------------------------------------------------------------------------

static void finish_on_wait(struct tx_bed *b, uint32_t round) {
    if (round == 2) {
        bed_word_store(b, in_a(0), 42);
        bed_line_end(b, in_a(0), 2);
    }
    if (round == 4)
        bed_applied(b, 2);
}

static void test_read_waits_for_a_line_in_mid_apply(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    (void)read_u64(tx, in_b(0));
    bed_line_begin(bed, in_a(0), 2);
    bed->on_wait = finish_on_wait;
    assert_int_equal(read_u64(tx, in_a(0)), 42);
    assert_int_equal(shelf_tx_index(tx), 2);
    assert_int_equal(atomic_load(&bed->waits), 5);
    tx_end(tx);
}

// What the version of a page is too coarse for, those of its lines still answer.
static void test_read_beside_a_line_in_mid_apply(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    bed_line_begin(bed, in_a(64), 2);
    unsigned char line[LINE_SIZE];
    assert_int_equal(shelf_read(tx, in_a(0), line, sizeof(line)), SHELF_OK);
    assert_int_equal(read_u64(tx, in_a(PAGE_SIZE - 8)), 0);
    assert_int_equal(read_u64(tx, in_a(PAGE_SIZE)), 0);
    assert_int_equal(shelf_tx_index(tx), 1);
    assert_int_equal(atomic_load(&bed->waits), 0);
    // Of the line itself nothing is served, whatever the size of the read.
    assert_int_equal(shelf_read(tx, in_a(64), line, sizeof(line)), SHELF_UNAVAILABLE);
    assert_int_equal(shelf_read(tx, in_a(72), line, 8), SHELF_UNAVAILABLE);
    tx_end(tx);
}

// By whichever version a line was read: it is a line that was read, not its page.
static void test_read_by_the_page_conflicts_by_the_line(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    unsigned char line[LINE_SIZE];
    assert_int_equal(shelf_read(tx, in_a(128), line, sizeof(line)), SHELF_OK);
    bed_set(bed, in_a(192), 1); // of the same page
    assert_int_equal(read_u64(tx, in_a(192)), 1);
    assert_int_equal(shelf_tx_index(tx), 2);
    bed_set(bed, in_a(128), 1);
    bed_set(bed, in_a(256), 1);
    assert_int_equal(shelf_read(tx, in_a(256), line, 8), SHELF_CONFLICT);
    tx_end(tx);
}

static void test_view_waits_for_a_line_in_mid_apply(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    const void *view;
    bed_line_begin(bed, in_a(0), 2);
    bed->on_wait = finish_on_wait;
    assert_int_equal(shelf_view(tx, in_a(0), 4096, &view), SHELF_OK);
    assert_int_equal(*(const uint64_t *)view, 42);
    assert_int_equal(shelf_check(tx), SHELF_OK);
    tx_end(tx);
}

static void test_read_of_an_unfinished_line_is_unavailable(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    uint64_t word;
    bed_line_begin(bed, in_a(64), 2);
    assert_int_equal(shelf_read(tx, in_a(64), &word, 8), SHELF_UNAVAILABLE);
    assert_int_equal(shelf_read(tx, in_a(0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_read(tx, in_a(128), &word, 8), SHELF_OK);
    assert_int_equal(shelf_read(tx, in_a(0), (uint8_t[256]){0}, 256), SHELF_UNAVAILABLE);
    tx_end(tx);
}

// ---- Views ----------------------------------------------------------------------------------------------------------

static void test_view_is_the_memory_itself(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    const void *view;
    assert_int_equal(shelf_view(tx, in_a(100), 100000, &view), SHELF_OK);
    assert_ptr_equal(view, bed->data[BED_REGION_A] + 100);
    assert_int_equal(shelf_view(tx, in_a(BED_SIZE), 0, &view), SHELF_OK);
    assert_int_equal(shelf_view(tx, in_a(BED_SIZE), 1, &view), SHELF_INVALID);
    assert_int_equal(shelf_check(tx), SHELF_OK);
    tx_end(tx);
}

static void test_check_finds_a_changed_line_of_any_view(void **state) {
    (void)state;
    const uint64_t changed[] = {0, 64, 127, 5000, 5000 + 4095 - 8};
    const void *view;
    for (size_t i = 0; i < sizeof(changed) / sizeof(changed[0]); i++) {
        struct shelf_tx *tx = begin(SHELF_READ_ONLY);
        assert_int_equal(shelf_view(tx, in_a(0), 128, &view), SHELF_OK);
        assert_int_equal(shelf_view(tx, in_a(5000), 4095, &view), SHELF_OK);
        bed_set(bed, in_a(20000), 1); /* in no view */
        assert_int_equal(shelf_check(tx), SHELF_OK);
        bed_set(bed, in_a(changed[i] & ~(uint64_t)7), 1);
        assert_int_equal(shelf_check(tx), SHELF_CONFLICT);
        tx_end(tx);
    }
}

static void test_check_is_about_views_only(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    (void)read_u64(tx, in_a(0));
    bed_set(bed, in_a(0), 1);
    assert_int_equal(shelf_check(tx), SHELF_OK); /* what was read is exact at the index, still */
    tx_end(tx);
}

static void test_extension_looks_at_views(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    const void *view;
    uint64_t word;
    assert_int_equal(shelf_view(tx, in_a(0), 128, &view), SHELF_OK);
    bed_set(bed, in_a(64), 1);
    bed_set(bed, in_b(0), 1);
    assert_int_equal(shelf_read(tx, in_b(0), &word, 8), SHELF_CONFLICT);
    tx_end(tx);
}

static void test_view_of_a_newer_line_extends_or_conflicts(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY), *seen = begin(SHELF_READ_ONLY);
    const void *view;
    (void)read_u64(seen, in_a(0));
    bed_set(bed, in_a(0), 1);
    bed_set(bed, in_a(4096), 2);
    assert_int_equal(shelf_view(tx, in_a(0), 8192, &view), SHELF_OK);
    assert_int_equal(shelf_tx_index(tx), 3);
    assert_int_equal(shelf_check(tx), SHELF_OK);
    assert_int_equal(shelf_view(seen, in_a(0), 8192, &view), SHELF_CONFLICT);
    tx_end(tx);
    tx_end(seen);
}

static void test_view_of_own_writes_is_a_private_copy(void **state) {
    (void)state;
    data_fill(2);
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    const void *view, *other;
    write_u64(tx, in_a(1000), 7);
    assert_int_equal(shelf_view(tx, in_a(900), 300, &view), SHELF_OK);
    assert_int_equal((uintptr_t)view % LINE_SIZE, 900 % LINE_SIZE);
    assert_memory_equal(view, bed->data[BED_REGION_A] + 900, 100);
    assert_int_equal(*(const uint64_t *)(const void *)((const uint8_t *)view + 100), 7);
    assert_memory_equal((const uint8_t *)view + 108, bed->data[BED_REGION_A] + 1008, 192);
    write_u64(tx, in_a(1000), 8); /* as of the time of the call */
    assert_int_equal(*(const uint64_t *)(const void *)((const uint8_t *)view + 100), 7);
    assert_int_equal(shelf_view(tx, in_a(4096), 64, &other), SHELF_OK);
    assert_ptr_equal(other, bed->data[BED_REGION_A] + 4096);
    assert_int_equal(shelf_check(tx), SHELF_OK);
    tx_end(tx);
}

// ---- Own writes -----------------------------------------------------------------------------------------------------

static void test_reads_see_own_writes_on_top(void **state) {
    (void)state;
    enum { SPAN = 1024, STEPS = 4000 };
    data_fill(3);
    struct random random;
    random_seed(&random, 4);
    for (int round = 0; round < 5; round++) {
        uint8_t model[SPAN], bytes[SPAN];
        memcpy(model, bed->data[BED_REGION_A], SPAN);
        struct shelf_tx *tx = begin(SHELF_READ_WRITE);
        for (int step = 0; step < STEPS; step++) {
            size_t offset = random_below(&random, SPAN), size = random_below(&random, 150);
            size = size < SPAN - offset ? size : SPAN - offset;
            if (random_chance(&random, 1, 8)) {
                random_fill(&random, bytes, size);
                memcpy(model + offset, bytes, size);
                assert_int_equal(shelf_write(tx, in_a(offset), bytes, size), SHELF_OK);
            } else {
                assert_int_equal(shelf_read(tx, in_a(offset), bytes, size), SHELF_OK);
                assert_memory_equal(bytes, model + offset, size);
            }
        }
        assert_true(tx_has_effects(tx));
        tx_end(tx);
    }
}

static void test_write_is_refused(void **state) {
    (void)state;
    uint64_t word = 1;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    assert_int_equal(shelf_write(tx, in_a(0), &word, 8), SHELF_INVALID);
    assert_int_equal(shelf_add(tx, in_a(0), 8), SHELF_INVALID);
    tx_end(tx);
    tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_write(tx, shelf_addr_make(1, 0), &word, 8), SHELF_DENIED);
    assert_int_equal(shelf_or(tx, shelf_addr_make(1, 0), 8), SHELF_DENIED);
    assert_int_equal(shelf_write(tx, in_a(BED_SIZE - 4), &word, 8), SHELF_INVALID);
    assert_int_equal(shelf_write(tx, SHELF_NULL, &word, 8), SHELF_INVALID);
    assert_int_equal(shelf_write(tx, shelf_addr_make(7, 0), &word, 8), SHELF_NOT_FOUND);
    assert_int_equal(shelf_add(tx, in_a(BED_SIZE), 1), SHELF_INVALID);
    assert_int_equal(shelf_add(tx, in_a(4), 1), SHELF_INVALID);
    assert_int_equal(shelf_write(tx, in_a(0), &word, 0), SHELF_OK);
    assert_false(tx_has_effects(tx));
    tx_end(tx);
}

static void test_operations_exclude_reads_and_writes_of_their_word(void **state) {
    (void)state;
    uint64_t word;
    const void *view;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_add(tx, in_a(8), 1), SHELF_OK);
    assert_int_equal(shelf_max(tx, in_a(8), 9), SHELF_OK);
    assert_int_equal(shelf_read(tx, in_a(8), &word, 8), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, in_a(15), &word, 1), SHELF_INVALID);
    assert_int_equal(shelf_read(tx, in_a(0), (uint8_t[128]){0}, 128), SHELF_INVALID);
    assert_int_equal(shelf_view(tx, in_a(0), 64, &view), SHELF_INVALID);
    assert_int_equal(shelf_write(tx, in_a(8), &word, 8), SHELF_INVALID);
    assert_int_equal(shelf_write(tx, in_a(0), (uint8_t[128]){0}, 128), SHELF_INVALID);
    /* The words beside it are free. */
    assert_int_equal(shelf_read(tx, in_a(0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_write(tx, in_a(16), &word, 8), SHELF_OK);
    assert_int_equal(shelf_read(tx, in_a(16), &word, 8), SHELF_OK);
    /* The reverse: first read, viewed or written. */
    assert_int_equal(shelf_add(tx, in_a(16), 1), SHELF_INVALID);
    assert_int_equal(shelf_add(tx, in_a(0), 1), SHELF_INVALID);
    assert_int_equal(shelf_add(tx, in_a(24), 1), SHELF_OK);
    assert_int_equal(shelf_read(tx, in_b(4), &word, 8), SHELF_OK);
    assert_int_equal(shelf_and(tx, in_b(0), 1), SHELF_INVALID);
    assert_int_equal(shelf_and(tx, in_b(8), 1), SHELF_INVALID);
    assert_int_equal(shelf_and(tx, in_b(16), 1), SHELF_OK);
    assert_int_equal(shelf_view(tx, in_b(4096), 65, &view), SHELF_OK);
    assert_int_equal(shelf_min(tx, in_b(4096 + 56), 1), SHELF_INVALID);
    assert_int_equal(shelf_min(tx, in_b(4096 + 64), 1), SHELF_INVALID);
    assert_int_equal(shelf_min(tx, in_b(4096 + 72), 1), SHELF_OK);
    tx_end(tx);
}

static void test_operations_remember_words_read_long_ago(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    for (uint64_t i = 0; i < 1000; i++) {
        (void)read_u64(tx, in_a(i * 64 + 8));
        (void)read_u64(tx, in_a(i * 64 + 24));
    }
    for (uint64_t i = 0; i < 1000; i += 37) {
        assert_int_equal(shelf_add(tx, in_a(i * 64 + 8), 1), SHELF_INVALID);
        assert_int_equal(shelf_add(tx, in_a(i * 64 + 24), 1), SHELF_INVALID);
        assert_int_equal(shelf_add(tx, in_a(i * 64 + 16), 1), SHELF_OK);
    }
    tx_end(tx);
}

// ---- The request ----------------------------------------------------------------------------------------------------

struct parsed {
    const struct commit_request *request;
    const uint64_t *lines;
    const struct request_operation *operations;
    const uint8_t *ranges;
};

static struct parsed encode(struct shelf_tx *tx) {
    struct parsed p = {0};
    assert_int_equal(tx_encode(tx, 11, 12, 13, &p.request), SHELF_OK);
    const struct commit_request *r = p.request;
    assert_int_equal(r->header.kind, REQUEST_COMMIT);
    assert_int_equal(r->session, 11);
    assert_int_equal(r->holder, 12);
    assert_int_equal(r->sequence, 13);
    assert_int_equal(r->index, shelf_tx_index(tx));
    assert_int_equal(r->header.size, sizeof(*r) + r->line_count * sizeof(uint64_t) +
                                         r->operation_count * sizeof(struct request_operation) +
                                         r->ranges_size);
    p.lines = (const void *)(r + 1);
    p.operations = (const void *)(p.lines + r->line_count);
    p.ranges = (const void *)(p.operations + r->operation_count);
    return p;
}

// Checks the next range and returns where the one after it is.
static const uint8_t *range_expect(const uint8_t *at, shelf_addr address, const void *bytes, uint32_t size) {
    const struct record_range *range = (const void *)at;
    assert_int_equal(range->address, address);
    assert_int_equal(range->size, size);
    assert_int_equal(range->reserved, 0);
    assert_memory_equal(range + 1, bytes, size);
    at = (const uint8_t *)(range + 1) + size;
    for (uint32_t i = size; i % 8 != 0; i++)
        assert_int_equal(*at++, 0);
    return at;
}

static void test_encode_lists_each_line_read_once(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    const void *view;
    (void)read_u64(tx, in_a(64));
    (void)read_u64(tx, in_b(0));
    (void)read_u64(tx, in_a(72));
    assert_int_equal(shelf_read(tx, in_a(100), (uint8_t[100]){0}, 100), SHELF_OK);
    assert_int_equal(shelf_view(tx, in_b(130), 100, &view), SHELF_OK);
    write_u64(tx, in_a(8192), 1);
    (void)read_u64(tx, in_a(8192)); /* its own */
    struct parsed p = encode(tx);
    const uint64_t expected[] = {in_a(64) >> 6,  in_b(0) >> 6,   in_a(128) >> 6,
                                 in_a(192) >> 6, in_b(128) >> 6, in_b(192) >> 6};
    assert_int_equal(p.request->line_count, 6);
    assert_memory_equal(p.lines, expected, sizeof(expected));
    tx_end(tx);
}

static void test_encode_merges_what_is_contiguous(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    uint8_t bytes[4096];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 7 + 1);
    assert_int_equal(shelf_write(tx, in_a(10), bytes, 300), SHELF_OK);      /* parts of six lines */
    assert_int_equal(shelf_write(tx, in_a(310), bytes + 300, 9), SHELF_OK); /* and on */
    assert_int_equal(shelf_write(tx, in_b(3), bytes, 1), SHELF_OK);         /* three pieces of one line */
    assert_int_equal(shelf_write(tx, in_b(20), bytes, 5), SHELF_OK);
    assert_int_equal(shelf_write(tx, in_b(63), bytes, 1), SHELF_OK);
    assert_int_equal(shelf_write(tx, in_b(64), bytes + 1, 2), SHELF_OK); /* which goes on */
    assert_int_equal(shelf_write(tx, in_a(4096), bytes, 4096), SHELF_OK);
    assert_int_equal(shelf_write(tx, in_a(12), bytes + 2, 1), SHELF_OK); /* again */
    struct parsed p = encode(tx);
    assert_int_equal(p.request->range_count, 5);
    const uint8_t *at = range_expect(p.ranges, in_a(10), bytes, 309);
    at = range_expect(at, in_b(3), bytes, 1);
    at = range_expect(at, in_b(20), bytes, 5);
    at = range_expect(at, in_b(63), bytes, 3);
    at = range_expect(at, in_a(4096), bytes, 4096);
    assert_int_equal(at - p.ranges, p.request->ranges_size);
    tx_end(tx);
}

static void test_encode_lists_operations_in_order(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_add(tx, in_a(64), 5), SHELF_OK);
    assert_int_equal(shelf_min(tx, in_b(8), 6), SHELF_OK);
    assert_int_equal(shelf_max(tx, in_a(64), 7), SHELF_OK);
    assert_int_equal(shelf_and(tx, in_a(0), 8), SHELF_OK);
    assert_int_equal(shelf_or(tx, in_a(8), 9), SHELF_OK);
    assert_true(tx_has_effects(tx));
    struct parsed p = encode(tx);
    const struct request_operation expected[] = {
        {.address = in_a(64), .operand = 5, .code = OPERATION_ADD},
        {.address = in_b(8), .operand = 6, .code = OPERATION_MIN},
        {.address = in_a(64), .operand = 7, .code = OPERATION_MAX},
        {.address = in_a(0), .operand = 8, .code = OPERATION_AND},
        {.address = in_a(8), .operand = 9, .code = OPERATION_OR},
    };
    assert_int_equal(p.request->operation_count, 5);
    assert_int_equal(p.request->range_count, 0);
    assert_int_equal(p.request->ranges_size, 0);
    assert_memory_equal(p.operations, expected, sizeof(expected));
    tx_end(tx);
}

static void test_retarget_changes_the_header_only(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    write_u64(tx, in_a(0), 1);
    struct parsed p = encode(tx);
    tx_retarget(tx, 21, 22, 23);
    assert_int_equal(p.request->session, 21);
    assert_int_equal(p.request->holder, 22);
    assert_int_equal(p.request->sequence, 23);
    range_expect(p.ranges, in_a(0), &(uint64_t){1}, 8);
    tx_end(tx);
}

// Random writes, encoded, put onto a copy: the same bytes as a model, nothing beside them.
static void test_encoded_ranges_are_the_writes(void **state) {
    (void)state;
    enum { SPAN = 4096 };
    struct random random;
    random_seed(&random, 5);
    for (int round = 0; round < 300; round++) {
        static uint8_t model[SPAN], copy[SPAN], bytes[SPAN];
        memset(model, 0, SPAN);
        memset(copy, 0, SPAN);
        struct shelf_tx *tx = begin(SHELF_READ_WRITE);
        for (uint64_t step = random_below(&random, 30) + 1; step > 0; step--) {
            size_t offset = random_below(&random, SPAN), size = random_below(&random, round % 2 ? 20 : 700);
            size = size < SPAN - offset ? size : SPAN - offset;
            random_fill(&random, bytes, size);
            memcpy(model + offset, bytes, size);
            assert_int_equal(shelf_write(tx, in_a(offset), bytes, size), SHELF_OK);
        }
        struct parsed p = encode(tx);
        const uint8_t *at = p.ranges;
        for (uint32_t i = 0; i < p.request->range_count; i++) {
            const struct record_range *range = (const void *)at;
            assert_true(range->size > 0);
            memcpy(copy + shelf_addr_offset(range->address), range + 1, range->size);
            at += sizeof(*range) + (range->size + 7) / 8 * 8;
        }
        assert_int_equal(at - p.ranges, p.request->ranges_size);
        assert_memory_equal(copy, model, SPAN);
        tx_end(tx);
    }
}

// ---- Limits ---------------------------------------------------------------------------------------------------------

static void test_bytes_written_are_limited(void **state) {
    (void)state;
    struct tx_bed *small = bed;
    bed = bed_make((uint64_t)64 << 20);
    const size_t half = SHELF_TX_BYTES_MAX / 2;
    uint8_t *bytes = calloc(1, SHELF_TX_BYTES_MAX + 1);
    assert_non_null(bytes);
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_write(tx, in_a(0), bytes, SHELF_TX_BYTES_MAX + 1), SHELF_TOO_LARGE);
    assert_false(tx_has_effects(tx));
    assert_int_equal(shelf_write(tx, in_a(0), bytes, half), SHELF_OK);
    assert_int_equal(shelf_write(tx, in_a(half + 1), bytes, half), SHELF_OK);
    assert_int_equal(shelf_write(tx, in_a(0), bytes, half), SHELF_OK); /* again: no more bytes */
    assert_int_equal(shelf_write(tx, in_a(half), bytes, 1), SHELF_TOO_LARGE);
    assert_int_equal(shelf_write(tx, in_a(half - 8), bytes, 9), SHELF_TOO_LARGE);
    struct parsed p = encode(tx);
    assert_int_equal(p.request->range_count, 2);
    tx_end(tx);
    /* What comes after is as small as if nothing had been. */
    tx = begin(SHELF_READ_WRITE);
    assert_false(tx_has_effects(tx));
    write_u64(tx, in_a(0), 9);
    assert_int_equal(encode(tx).request->ranges_size, 24);
    tx_end(tx);
    free(bytes);
    bed_free(bed);
    bed = small;
}

static void test_scattered_bytes_are_limited_by_their_encoding(void **state) {
    (void)state;
    struct tx_bed *small = bed;
    bed = bed_make((uint64_t)128 << 20);
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    shelf_result result = SHELF_OK;
    uint64_t count = 0;
    while (count < bed->size / 64 &&
           (result = shelf_write(tx, in_a(count * 64), &(uint8_t){1}, 1)) == SHELF_OK)
        count++;
    assert_int_equal(result, SHELF_TOO_LARGE);
    assert_int_equal(count, REQUEST_RANGES_BYTES_MAX / 24);
    assert_int_equal(encode(tx).request->range_count, count);
    /* One more range in a line that is there already. */
    assert_int_equal(shelf_write(tx, in_a(32), &(uint8_t){1}, 1), SHELF_OK);
    const struct commit_request *request;
    assert_int_equal(tx_encode(tx, 1, 1, 1, &request), SHELF_TOO_LARGE);
    tx_end(tx);
    bed_free(bed);
    bed = small;
}

static void test_operations_are_limited(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    for (uint64_t i = 0; i < SHELF_TX_OPERATIONS_MAX; i++)
        assert_int_equal(shelf_add(tx, in_a(i * 8), 1), SHELF_OK);
    assert_int_equal(shelf_add(tx, in_a(0), 1), SHELF_TOO_LARGE);
    assert_int_equal(encode(tx).request->operation_count, SHELF_TX_OPERATIONS_MAX);
    tx_end(tx);
}

static void test_lines_read_are_limited(void **state) {
    (void)state;
    struct tx_bed *small = bed;
    bed = bed_make(((uint64_t)SHELF_TX_LINES_READ_MAX + 4096) * LINE_SIZE);
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    uint64_t word;
    for (uint64_t i = 0; i < SHELF_TX_LINES_READ_MAX; i++) {
        if (shelf_read(tx, in_a(i * 64), &word, 8) != SHELF_OK)
            fail_msg("line %llu: %s", (unsigned long long)i, shelf_detail());
    }
    assert_int_equal(shelf_read(tx, in_a(SHELF_TX_LINES_READ_MAX * 64), &word, 8), SHELF_TOO_LARGE);
    write_u64(tx, in_a(0), 1);
    assert_int_equal(encode(tx).request->line_count, SHELF_TX_LINES_READ_MAX);
    tx_end(tx);
    bed_free(bed);
    bed = small;
}

static void test_repeated_reads_count_once(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    struct random random;
    random_seed(&random, 6);
    for (uint64_t i = 0; i < 3 * SHELF_TX_LINES_READ_MAX; i++)
        (void)read_u64(tx, in_a(random_below(&random, 3000) * 64 + random_below(&random, 8) * 8));
    write_u64(tx, in_b(0), 1);
    struct parsed p = encode(tx);
    assert_int_equal(p.request->line_count, 3000);
    static bool seen[3000];
    for (uint32_t i = 0; i < 3000; i++) {
        uint64_t line = p.lines[i] - (in_a(0) >> 6);
        assert_true(line < 3000 && !seen[line]);
        seen[line] = true;
    }
    tx_end(tx);
}

static void test_views_count_as_lines_read(void **state) {
    (void)state;
    struct tx_bed *small = bed;
    bed = bed_make(((uint64_t)SHELF_TX_LINES_READ_MAX + 4096) * LINE_SIZE);
    struct shelf_tx *tx = begin(SHELF_READ_WRITE);
    const void *view;
    const struct commit_request *request;
    write_u64(tx, in_b(0), 1);
    assert_int_equal(shelf_view(tx, in_a(0), bed->size, &view), SHELF_OK);
    assert_int_equal(tx_encode(tx, 1, 1, 1, &request), SHELF_TOO_LARGE);
    tx_end(tx);
    bed_free(bed);
    bed = small;
}

static void test_read_only_reads_on_beyond_the_read_set(void **state) {
    (void)state;
    struct tx_bed *small = bed;
    bed = bed_make(((uint64_t)2 * SHELF_TX_LINES_READ_MAX + 4096) * LINE_SIZE);
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    uint64_t word;
    for (uint64_t i = 0; i < SHELF_TX_LINES_READ_MAX - 1; i++)
        (void)read_u64(tx, in_a(i * 64));
    bed_set(bed, in_b(0), 1); /* can still extend */
    assert_int_equal(read_u64(tx, in_b(0)), 1);
    for (uint64_t i = SHELF_TX_LINES_READ_MAX; i < 2 * SHELF_TX_LINES_READ_MAX; i++)
        (void)read_u64(tx, in_a(i * 64));
    assert_int_equal(shelf_tx_index(tx), 2);
    bed_set(bed, in_b(64), 1); /* and now no more, though nothing that was read changed */
    (void)read_u64(tx, in_a(64));
    assert_int_equal(shelf_read(tx, in_b(64), &word, 8), SHELF_CONFLICT);
    tx_end(tx);
    bed_free(bed);
    bed = small;
}

static void test_prefetch_takes_any_range(void **state) {
    (void)state;
    struct shelf_tx *tx = begin(SHELF_READ_ONLY);
    shelf_prefetch(tx, in_a(0), 64);
    shelf_prefetch(tx, in_a(BED_SIZE - 1), 100000);
    shelf_prefetch(tx, in_a(BED_SIZE * 2), SIZE_MAX);
    shelf_prefetch(tx, SHELF_NULL, 64);
    shelf_prefetch(tx, UINT64_MAX, 64);
    shelf_prefetch(tx, in_a(10), 0);
    assert_int_equal(read_u64(tx, in_a(0)), 0);
    tx_end(tx);
}

static void test_line_table_finds_what_was_added(void **state) {
    (void)state;
    struct line_table table = {0};
    for (int round = 0; round < 4; round++) {
        const uint32_t count = round == 2 ? 10 : 20000;
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(line_table_find(&table, (uint64_t)i * 4096), LINE_TABLE_NONE);
            assert_true(line_table_reserve(&table, 1));
            line_table_add(&table, (uint64_t)i * 4096, i);
        }
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(line_table_find(&table, (uint64_t)i * 4096), i);
        assert_int_equal(line_table_find(&table, 1), LINE_TABLE_NONE);
        line_table_clear(&table);
        assert_int_equal(line_table_find(&table, 0), LINE_TABLE_NONE);
    }
    line_table_free(&table);
}

static void test_results_have_names_and_sentences(void **state) {
    (void)state;
    assert_string_equal(shelf_result_name(SHELF_CONFLICT), "CONFLICT");
    assert_string_equal(shelf_result_text(SHELF_OK), "Done.");
    assert_string_equal(shelf_result_name((shelf_result)1000), "?");
    assert_string_equal(shelf_result_text((shelf_result)1000), "?");
    detail_set("%0300d", 1);
    assert_int_equal(strlen(shelf_detail()), 255);
    detail_clear();
    assert_string_equal(shelf_detail(), "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bed_up, bed_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_begin_wants_exactly_one_kind),
        TEST(test_begin_is_at_the_applied_index),
        TEST(test_hint_moves_with_attempts_only),
        TEST(test_read_copies_any_size_and_alignment),
        TEST(test_read_refuses_what_is_outside),
        TEST(test_read_extends_over_changes_elsewhere),
        TEST(test_read_conflicts_if_what_was_read_changed),
        TEST(test_read_of_the_same_line_again_conflicts),
        TEST(test_read_of_old_lines_goes_on_without_extension),
        TEST(test_floor_counts_as_the_version_of_every_line),
        TEST(test_dropped_region),
        TEST(test_read_waits_for_a_line_in_mid_apply),
        TEST(test_read_beside_a_line_in_mid_apply),
        TEST(test_read_by_the_page_conflicts_by_the_line),
        TEST(test_view_waits_for_a_line_in_mid_apply),
        TEST(test_read_of_an_unfinished_line_is_unavailable),
        TEST(test_view_is_the_memory_itself),
        TEST(test_check_finds_a_changed_line_of_any_view),
        TEST(test_check_is_about_views_only),
        TEST(test_extension_looks_at_views),
        TEST(test_view_of_a_newer_line_extends_or_conflicts),
        TEST(test_view_of_own_writes_is_a_private_copy),
        TEST(test_reads_see_own_writes_on_top),
        TEST(test_write_is_refused),
        TEST(test_operations_exclude_reads_and_writes_of_their_word),
        TEST(test_operations_remember_words_read_long_ago),
        TEST(test_encode_lists_each_line_read_once),
        TEST(test_encode_merges_what_is_contiguous),
        TEST(test_encode_lists_operations_in_order),
        TEST(test_retarget_changes_the_header_only),
        TEST(test_encoded_ranges_are_the_writes),
        TEST(test_bytes_written_are_limited),
        TEST(test_scattered_bytes_are_limited_by_their_encoding),
        TEST(test_operations_are_limited),
        TEST(test_lines_read_are_limited),
        TEST(test_repeated_reads_count_once),
        TEST(test_views_count_as_lines_read),
        TEST(test_read_only_reads_on_beyond_the_read_set),
        TEST(test_prefetch_takes_any_range),
        TEST(test_line_table_finds_what_was_added),
        TEST(test_results_have_names_and_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
