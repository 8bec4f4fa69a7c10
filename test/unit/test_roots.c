// SPDX-License-Identifier: Apache-2.0
//
// Named roots and layouts; formatting.

#include "structure_fixture.h"

#include "structure/layout.h"

static void name_make(char *name, unsigned number) {
    (void)snprintf(name, SHELF_NAME_MAX + 1, "root %u", number);
}

static shelf_result root_set(shelf_tx *tx, const struct fixture *f, const char *name, uint64_t type,
                             uint64_t layout, shelf_addr address) {
    struct shelf_root root = {.type = type, .layout = layout, .address = address};
    (void)snprintf(root.name, sizeof(root.name), "%s", name);
    return shelf_root_set(tx, f->region, &root);
}

static void test_format_once(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open_raw(&f, 1 << 20, 0);
    shelf_tx *tx = begin_write(&f);
    shelf_addr address = 1;
    EXPECT(SHELF_INVALID, shelf_root_get(tx, f.region, "a", 0, 0, &address));
    EXPECT(SHELF_INVALID, shelf_alloc(tx, f.region, 8, &address));
    assert_true(address == 1);
    EXPECT_OK(shelf_format(tx, f.region));
    EXPECT(SHELF_EXISTS, shelf_format(tx, f.region));
    EXPECT_OK(shelf_alloc(tx, f.region, 8, &address));
    commit(tx);
    tx = begin_write(&f);
    EXPECT(SHELF_EXISTS, shelf_format(tx, f.region));
    shelf_abort(tx);
    (void)audit(&f);
    fixture_close(&f);
}

static void test_format_refuses_other_data_and_small_regions(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open_raw(&f, 1 << 20, 0);
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(shelf_write(tx, shelf_addr_make(f.region, 0), "12345678", 8));
    EXPECT(SHELF_INVALID, shelf_format(tx, f.region));
    shelf_abort(tx);
    shelf_region tiny;
    EXPECT_OK(shelf_region_create(f.s, "tiny", SPAN_LAYOUT_SMALL.reserved * 4096, 0, &tiny));
    tx = begin_write(&f);
    EXPECT(SHELF_NO_SPACE, shelf_format(tx, tiny));
    shelf_abort(tx);
    EXPECT_OK(shelf_region_grow(f.s, tiny, (SPAN_LAYOUT_SMALL.reserved + 1) * 4096));
    tx = begin_write(&f);
    EXPECT_OK(shelf_format(tx, tiny));
    commit(tx);
    fixture_close(&f);
}

static void test_format_newer_is_refused(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 1 << 20, 0);
    shelf_tx *tx = begin_write(&f);
    uint32_t newer = REGION_FORMAT_SMALL + 1;
    shelf_addr address;
    EXPECT_OK(shelf_write(tx, shelf_addr_make(f.region, offsetof(struct region_head, format)), &newer,
                          sizeof(newer)));
    EXPECT(SHELF_FORMAT, shelf_alloc(tx, f.region, 8, &address));
    EXPECT(SHELF_FORMAT, shelf_root_get(tx, f.region, "a", 0, 0, &address));
    shelf_abort(tx);
    fixture_close(&f);
}

static void test_root_set_get_remove(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 1 << 20, 0);
    shelf_tx *tx = begin_write(&f);
    shelf_addr address = 77;
    EXPECT(SHELF_NOT_FOUND, shelf_root_get(tx, f.region, "book", 1, 2, &address));
    EXPECT(SHELF_NOT_FOUND, shelf_root_remove(tx, f.region, "book"));
    assert_true(address == 77);
    EXPECT_OK(root_set(tx, &f, "book", 1, 2, shelf_addr_make(f.region, 4096)));
    EXPECT_OK(shelf_root_get(tx, f.region, "book", 1, 2, &address));
    assert_true(address == shelf_addr_make(f.region, 4096));
    EXPECT_OK(root_set(tx, &f, "book", 3, 4, shelf_addr_make((shelf_region)(f.region + 1), 8)));
    EXPECT(SHELF_LAYOUT, shelf_root_get(tx, f.region, "book", 1, 4, &address));
    EXPECT_OK(shelf_root_get(tx, f.region, "book", 3, 4, &address));
    assert_true(address == shelf_addr_make((shelf_region)(f.region + 1), 8));
    EXPECT_OK(shelf_root_remove(tx, f.region, "book"));
    EXPECT(SHELF_NOT_FOUND, shelf_root_get(tx, f.region, "book", 0, 0, &address));
    commit(tx);
    fixture_close(&f);
}

static void test_root_names(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 1 << 20, 0);
    shelf_tx *tx = begin_write(&f);
    shelf_addr address;
    struct shelf_root root = {.type = 1};
    EXPECT(SHELF_INVALID, shelf_root_set(tx, f.region, &root)); // empty
    memset(root.name, 'n', SHELF_NAME_MAX);
    EXPECT_OK(shelf_root_set(tx, f.region, &root)); // the longest
    EXPECT_OK(shelf_root_get(tx, f.region, root.name, 1, 0, &address));
    memset(root.name, 'n', SHELF_NAME_MAX + 1);
    EXPECT(SHELF_INVALID, shelf_root_set(tx, f.region, &root)); // no NUL
    EXPECT(SHELF_INVALID, shelf_root_get(tx, f.region, "", 1, 0, &address));
    EXPECT(SHELF_INVALID, shelf_root_get(tx, f.region, NULL, 1, 0, &address));
    shelf_abort(tx);
    tx = begin_read(&f);
    struct shelf_root none;
    EXPECT(SHELF_NOT_FOUND, shelf_root_at(tx, f.region, 0, &none)); // the abort left nothing
    shelf_abort(tx);
    fixture_close(&f);
}

// Sets and removes at random, full table included, against an array.
static void test_roots_against_model(void **state) {
    (void)state;
    enum { NAMES = 400 };
    struct fixture f = {0};
    struct random random;
    random_seed(&random, 1);
    fixture_open(&f, 1 << 20, 0);
    uint64_t model[NAMES] = {0}; // address; 0: not there
    unsigned count = 0;
    unsigned full = 0;
    for (unsigned round = 0; round < 40; round++) {
        shelf_tx *tx = begin_write(&f);
        bool grows = round % 8 < 5;
        for (unsigned step = 0; step < 100; step++) {
            char name[SHELF_NAME_MAX + 1];
            unsigned number = (unsigned)random_below(&random, NAMES);
            name_make(name, number);
            shelf_addr address = shelf_addr_make(f.region, 64 + random_below(&random, 1000) * 16);
            if (random_chance(&random, grows ? 4 : 1, 5)) {
                bool has_room = model[number] != 0 || count < ROOTS_MAX;
                EXPECT(has_room ? SHELF_OK : SHELF_NO_SPACE, root_set(tx, &f, name, 5, number + 1, address));
                count += has_room && model[number] == 0;
                model[number] = has_room ? address : 0;
                full += !has_room;
            } else {
                EXPECT(model[number] != 0 ? SHELF_OK : SHELF_NOT_FOUND,
                       shelf_root_remove(tx, f.region, name));
                count -= model[number] != 0;
                model[number] = 0;
            }
        }
        commit(tx);
        tx = begin_read(&f);
        for (unsigned number = 0; number < NAMES; number++) {
            char name[SHELF_NAME_MAX + 1];
            shelf_addr address = 0;
            name_make(name, number);
            EXPECT(model[number] != 0 ? SHELF_OK : SHELF_NOT_FOUND,
                   shelf_root_get(tx, f.region, name, 5, number + 1, &address));
            assert_true(address == model[number]);
        }
        size_t listed = 0;
        struct shelf_root root;
        while (shelf_root_at(tx, f.region, listed, &root) == SHELF_OK) {
            assert_true(root.layout >= 1 && root.layout <= NAMES && model[root.layout - 1] == root.address);
            listed++;
        }
        assert_int_equal(listed, count);
        shelf_abort(tx);
    }
    assert_true(full > 0);
    fixture_close(&f);
}

static void test_roots_survive_a_restart(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 1 << 20, 0);
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(root_set(tx, &f, "kept", 1, 2, shelf_addr_make(f.region, 128)));
    commit(tx);
    fixture_reopen(&f);
    tx = begin_read(&f);
    shelf_addr address;
    EXPECT_OK(shelf_root_get(tx, f.region, "kept", 1, 2, &address));
    assert_true(address == shelf_addr_make(f.region, 128));
    shelf_abort(tx);
    fixture_close(&f);
}

struct account {
    uint64_t owner;
    int64_t cents;
    uint32_t flags;
};
struct account_changed {
    uint64_t owner;
    uint32_t flags;
    int64_t cents;
};

static void test_layout_hash_tells_layouts_apart(void **state) {
    (void)state;
    uint64_t layout = SHELF_LAYOUT(struct account, SHELF_FIELD(struct account, owner),
                                   SHELF_FIELD(struct account, cents), SHELF_FIELD(struct account, flags));
    struct shelf_field moved[] = {SHELF_FIELD(struct account_changed, owner),
                                  SHELF_FIELD(struct account_changed, cents),
                                  SHELF_FIELD(struct account_changed, flags)};
    struct shelf_field renamed[] = {SHELF_FIELD(struct account, owner), SHELF_FIELD(struct account, cents),
                                    SHELF_FIELD(struct account, flags)};
    renamed[1].name = "dollars";
    assert_true(layout != shelf_layout_hash("struct account", sizeof(struct account), moved, 3));
    assert_true(layout != shelf_layout_hash("struct account", sizeof(struct account), renamed, 3));
    renamed[1].name = "cents";
    assert_true(layout == shelf_layout_hash("struct account", sizeof(struct account), renamed, 3));
    assert_true(layout != shelf_layout_hash("struct account", sizeof(struct account), renamed, 2));
    assert_true(layout != shelf_layout_hash("struct account", sizeof(struct account) + 8, renamed, 3));
    assert_true(layout != shelf_layout_hash("struct accounts", sizeof(struct account), renamed, 3));
    // Hashes are stored: this one never changes.
    assert_true(shelf_layout_hash("t", 8, NULL, 0) == 0xb42dad5659f925feu);
    assert_true(layout == 0xb55f7f084bc46702u);
}

static void test_root_of_another_layout_is_refused(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 1 << 20, 0);
    uint64_t layout = SHELF_LAYOUT(struct account, SHELF_FIELD(struct account, owner));
    uint64_t other = SHELF_LAYOUT(struct account_changed, SHELF_FIELD(struct account_changed, owner));
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(root_set(tx, &f, "accounts", 9, layout, shelf_addr_make(f.region, 64)));
    shelf_addr address = 5;
    EXPECT(SHELF_LAYOUT, shelf_root_get(tx, f.region, "accounts", 9, other, &address));
    assert_non_null(strstr(shelf_detail(), "accounts"));
    EXPECT(SHELF_LAYOUT, shelf_root_get(tx, f.region, "accounts", 8, layout, &address));
    assert_true(address == 5);
    EXPECT_OK(shelf_root_get(tx, f.region, "accounts", 0, 0, &address));
    shelf_map map;
    shelf_stream stream;
    EXPECT(SHELF_LAYOUT, shelf_map_open(tx, f.region, "accounts", &map));
    EXPECT(SHELF_LAYOUT, shelf_stream_open(tx, f.region, "accounts", &stream));
    EXPECT(SHELF_EXISTS, shelf_map_create(tx, f.region, "accounts", &map));
    EXPECT(SHELF_EXISTS, shelf_stream_create(tx, f.region, "accounts", NULL, &stream));
    shelf_abort(tx);
    fixture_close(&f);
}

static void test_root_slot_damage_is_told(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 1 << 20, 0);
    shelf_tx *tx = begin_write(&f);
    for (unsigned slot = 0; slot < ROOTS_MAX; slot++) {
        struct root_slot damaged;
        memset(&damaged, 'x', sizeof(damaged));
        damaged.state = slot % 2 ? ROOT_TAKEN : 7; // no NUL in the name; no such state
        EXPECT_OK(shelf_write(tx, shelf_addr_make(f.region, ROOTS_OFFSET + slot * sizeof(damaged)), &damaged,
                              sizeof(damaged)));
    }
    shelf_addr address;
    struct shelf_root root;
    EXPECT(SHELF_CORRUPT, shelf_root_get(tx, f.region, "a", 0, 0, &address));
    EXPECT(SHELF_CORRUPT, shelf_root_get(tx, f.region, "b", 0, 0, &address));
    EXPECT(SHELF_CORRUPT, shelf_root_at(tx, f.region, 0, &root));
    shelf_abort(tx);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_once),
        cmocka_unit_test(test_format_refuses_other_data_and_small_regions),
        cmocka_unit_test(test_format_newer_is_refused),
        cmocka_unit_test(test_root_set_get_remove),
        cmocka_unit_test(test_root_names),
        cmocka_unit_test(test_roots_against_model),
        cmocka_unit_test(test_roots_survive_a_restart),
        cmocka_unit_test(test_layout_hash_tells_layouts_apart),
        cmocka_unit_test(test_root_of_another_layout_is_refused),
        cmocka_unit_test(test_root_slot_damage_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
