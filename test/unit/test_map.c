// SPDX-License-Identifier: Apache-2.0
//
// The map: a random life against a plain array, all sizes of keys and values, growth, iteration, full regions, misuse,
// damage.

#include "structure_fixture.h"

#include "structure/map.h"

#define MIB ((uint64_t)1 << 20)

static shelf_map map_make(const struct fixture *f, const char *name) {
    shelf_map map;
    shelf_tx *tx = begin_write(f);
    EXPECT_OK(shelf_map_create(tx, f->region, name, &map));
    commit(tx);
    return map;
}

static void verify(const struct fixture *f, shelf_map map, uint64_t count) {
    uint64_t counted;
    shelf_tx *tx = begin_read(f);
    EXPECT_OK(shelf_map_verify(tx, map));
    EXPECT_OK(shelf_map_count(tx, map, &counted));
    shelf_abort(tx);
    assert_true(counted == count);
    (void)audit(f);
}

// ---- Model ----------------------------------------------------------------------------------------------------------

// Key and value follow from a number and the value's version, so the model needs to keep no bytes.
#define KEYS           6000u
#define KEY_SIZE_MAX   70000u
#define VALUE_SIZE_MAX 70000u

static unsigned char expected[VALUE_SIZE_MAX];
static unsigned char got[VALUE_SIZE_MAX];
static unsigned char key_bytes[KEY_SIZE_MAX];

static size_t key_make(unsigned number, unsigned char *key) {
    struct random random;
    random_seed(&random, number);
    size_t size = 4 + random_below(&random, 30);
    if (number % 500 == 7) { // long ones, some alike for a long stretch
        size = 300 + number % 1000;
        random_seed(&random, 7);
    } else if (number == 8) {
        size = MAP_KEY_MAX;
    }
    random_fill(&random, key, size);
    memcpy(key + size - 4, &number, 4); // so that no two are the same
    return size;
}

static size_t value_make(unsigned number, unsigned version, unsigned char *value) {
    struct random random;
    random_seed(&random, (uint64_t)number << 32 | version);
    size_t size = random_below(&random, 200);
    if (random_chance(&random, 1, 10)) {
        size = random_chance(&random, 1, 20) ? random_below(&random, VALUE_SIZE_MAX)
                                             : random_below(&random, 3000);
    }
    if (random_chance(&random, 1, 4)) {
        size = 100; // the same sizes again and again: changes in place
    }
    random_fill(&random, value, size);
    return size;
}

struct model {
    unsigned versions[KEYS]; // 0: not there
    unsigned count;
};

static void model_get(const struct model *model, shelf_tx *tx, shelf_map map, unsigned number) {
    size_t size = 12345;
    size_t key_size = key_make(number, key_bytes);
    shelf_result result = shelf_map_get(tx, map, key_bytes, key_size, got, sizeof(got), &size);
    if (model->versions[number] == 0) {
        EXPECT(SHELF_NOT_FOUND, result);
        assert_int_equal(size, 12345);
        return;
    }
    EXPECT_OK(result);
    assert_int_equal(size, value_make(number, model->versions[number], expected));
    assert_memory_equal(got, expected, size);
}

// All keys, without own writes in the way.
static void model_get_all(const struct model *model, const struct fixture *f, shelf_map map) {
    shelf_tx *tx = begin_read(f);
    for (unsigned number = 0; number < KEYS; number++) {
        model_get(model, tx, map, number);
    }
    shelf_abort(tx);
}

static void model_put(struct model *model, shelf_tx *tx, shelf_map map, unsigned number, unsigned version) {
    size_t key_size = key_make(number, key_bytes);
    size_t size = value_make(number, version, expected);
    EXPECT_OK(shelf_map_put(tx, map, key_bytes, key_size, expected, size));
    model->count += model->versions[number] == 0;
    model->versions[number] = version;
}

static void model_delete(struct model *model, shelf_tx *tx, shelf_map map, unsigned number) {
    size_t key_size = key_make(number, key_bytes);
    EXPECT(model->versions[number] != 0 ? SHELF_OK : SHELF_NOT_FOUND,
           shelf_map_delete(tx, map, key_bytes, key_size));
    model->count -= model->versions[number] != 0;
    model->versions[number] = 0;
}

// Iterates: every entry once, with its bytes.
static void model_walk(const struct model *model, const struct fixture *f, shelf_map map) {
    static bool seen[KEYS];
    memset(seen, 0, sizeof(seen));
    struct shelf_map_cursor cursor = {{0}};
    size_t key_size, value_size;
    unsigned count = 0;
    shelf_tx *tx = begin_read(f);
    shelf_result result;
    static unsigned char key[KEY_SIZE_MAX];
    while ((result = shelf_map_next(tx, map, &cursor, key, sizeof(key), &key_size, got, sizeof(got),
                                    &value_size)) == SHELF_OK) {
        unsigned number;
        memcpy(&number, key + key_size - 4, 4);
        assert_true(number < KEYS && model->versions[number] != 0 && !seen[number]);
        assert_int_equal(key_size, key_make(number, key_bytes));
        assert_memory_equal(key, key_bytes, key_size);
        assert_int_equal(value_size, value_make(number, model->versions[number], expected));
        assert_memory_equal(got, expected, value_size);
        seen[number] = true;
        count++;
    }
    EXPECT(SHELF_NOT_FOUND, result);
    EXPECT(SHELF_NOT_FOUND,
           shelf_map_next(tx, map, &cursor, key, sizeof(key), &key_size, got, 1, &value_size));
    assert_int_equal(count, model->count);
    shelf_abort(tx);
}

// All keys, in bunches of every size up to 100.
static void model_get_many(const struct model *model, const struct fixture *f, shelf_map map) {
    static unsigned char keys[100][2000], values[100][3000];
    struct shelf_map_item items[100];
    shelf_tx *tx = begin_read(f);
    for (unsigned first = 0, bunch = 1; first < KEYS; first += bunch, bunch = bunch % 100 + 1) {
        unsigned count = 0;
        unsigned numbers[100];
        for (unsigned number = first; number < first + bunch && number < KEYS; number++) {
            if (number != 8) {
                numbers[count] = number;
                items[count] = (struct shelf_map_item){.key = keys[count],
                                                       .key_size = key_make(number, keys[count]),
                                                       .value = values[count],
                                                       .value_max = sizeof(values[count])};
                count++;
            }
        }
        EXPECT_OK(shelf_map_get_many(tx, map, items, count));
        for (unsigned index = 0; index < count; index++) {
            unsigned version = model->versions[numbers[index]];
            EXPECT(version != 0 ? SHELF_OK : SHELF_NOT_FOUND, items[index].result);
            if (version != 0) {
                size_t size = value_make(numbers[index], version, expected);
                assert_int_equal(items[index].value_size, size);
                assert_memory_equal(values[index], expected, size < 3000 ? size : 3000);
            }
        }
    }
    shelf_abort(tx);
}

static void test_map_against_model(void **state) {
    (void)state;
    struct fixture f = {0};
    struct random random;
    random_seed(&random, 3);
    fixture_open(&f, 48 * MIB, 0);
    struct shelf_alloc_sums before = audit(&f);
    shelf_map map = map_make(&f, "model");
    static struct model model, saved;
    for (unsigned round = 0; round < 200; round++) {
        saved = model;
        shelf_tx *tx = begin_write(&f);
        unsigned puts = round % 50 < 35 ? 7 : 2;
        for (unsigned step = 0; step < 120; step++) {
            unsigned number = (unsigned)random_below(&random, KEYS);
            unsigned kind = (unsigned)random_below(&random, 10);
            if (kind < puts) {
                model_put(&model, tx, map, number, round + 1);
            } else if (kind < 9) {
                model_delete(&model, tx, map, number);
            }
            model_get(&model, tx, map, (unsigned)random_below(&random, KEYS));
            model_get(&model, tx, map, number); // what it did itself
        }
        if (random_chance(&random, 1, 6)) {
            shelf_abort(tx);
            model = saved;
        } else {
            commit(tx);
        }
        if (round % 10 == 0) {
            verify(&f, map, model.count);
            model_get_all(&model, &f, map);
            model_walk(&model, &f, map);
            model_get_many(&model, &f, map);
        }
    }
    assert_true(model.count > 1500); // several segments
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(shelf_map_drop(tx, f.region, "model"));
    commit(tx);
    struct shelf_alloc_sums after = audit(&f);
    assert_true(after.live == before.live && after.blocks_live == before.blocks_live);
    fixture_close(&f);
}

// ---- Growth ---------------------------------------------------------------------------------------------------------

static void numbers_put(const struct fixture *f, shelf_map map, uint64_t first, uint64_t end) {
    for (uint64_t number = first; number < end;) {
        shelf_tx *tx = begin_write(f);
        for (unsigned step = 0; step < 2000 && number < end; step++, number++) {
            uint64_t value = number * 3;
            EXPECT_OK(shelf_map_put(tx, map, &number, sizeof(number), &value, sizeof(value)));
        }
        commit(tx);
    }
}

static void numbers_check(const struct fixture *f, shelf_map map, uint64_t end) {
    shelf_tx *tx = begin_read(f);
    for (uint64_t number = 0; number < end + 100; number++) {
        uint64_t value = 0;
        size_t size;
        shelf_result result = shelf_map_get(tx, map, &number, sizeof(number), &value, sizeof(value), &size);
        EXPECT(number < end ? SHELF_OK : SHELF_NOT_FOUND, result);
        assert_true(value == (number < end ? number * 3 : 0));
    }
    shelf_abort(tx);
}

static void test_map_grows_through_many_splits_and_a_restart(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 16 * MIB, 0);
    shelf_map map = map_make(&f, "numbers");
    numbers_put(&f, map, 0, 40000); // some 40 segments
    verify(&f, map, 40000);
    numbers_check(&f, map, 40000);
    fixture_reopen(&f);
    shelf_tx *tx = begin_read(&f);
    EXPECT_OK(shelf_map_open(tx, f.region, "numbers", &map));
    shelf_abort(tx);
    verify(&f, map, 40000);
    numbers_put(&f, map, 40000, 60000);
    numbers_check(&f, map, 60000);
    verify(&f, map, 60000);
    fixture_close(&f);
}

static void test_map_created_and_filled_in_one_transaction(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open_raw(&f, 4 * MIB, 0);
    shelf_map map;
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(shelf_format(tx, f.region));
    EXPECT_OK(shelf_map_create(tx, f.region, "numbers", &map));
    for (uint64_t number = 0; number < 5000; number++) {
        uint64_t value = number * 3;
        EXPECT_OK(shelf_map_put(tx, map, &number, sizeof(number), &value, sizeof(value)));
    }
    uint64_t count;
    EXPECT_OK(shelf_map_count(tx, map, &count));
    assert_int_equal(count, 5000);
    EXPECT_OK(shelf_map_verify(tx, map));
    commit(tx);
    verify(&f, map, 5000);
    numbers_check(&f, map, 5000);
    fixture_close(&f);
}

static void test_map_aborted_leaves_nothing(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 0);
    shelf_map map = map_make(&f, "numbers");
    numbers_put(&f, map, 0, 500);
    struct shelf_alloc_sums before = audit(&f);
    shelf_tx *tx = begin_write(&f);
    for (uint64_t number = 0; number < 5000; number++) {
        EXPECT_OK(shelf_map_put(tx, map, &number, sizeof(number), "something else", 14));
    }
    shelf_abort(tx);
    struct shelf_alloc_sums after = audit(&f);
    assert_memory_equal(&before, &after, sizeof(before));
    verify(&f, map, 500);
    numbers_check(&f, map, 500);
    fixture_close(&f);
}

// NO_SPACE leaves the map intact even if what was done before in the same transaction is committed.
static void test_map_in_a_full_region(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, MIB, MIB);
    shelf_map map = map_make(&f, "numbers");
    uint64_t end = 0;
    for (shelf_result result = SHELF_OK; result == SHELF_OK;) {
        shelf_tx *tx = begin_write(&f);
        for (unsigned step = 0; step < 300 && result == SHELF_OK; step++) {
            uint64_t value = end * 3;
            result = shelf_map_put(tx, map, &end, sizeof(end), &value, sizeof(value));
            end += result == SHELF_OK;
        }
        EXPECT(result == SHELF_OK ? SHELF_OK : SHELF_NO_SPACE, result);
        commit(tx);
    }
    assert_true(end > 8000);
    verify(&f, map, end);
    numbers_check(&f, map, end);
    shelf_tx *tx = begin_write(&f);
    static const unsigned char large[100000];
    EXPECT(SHELF_NO_SPACE, shelf_map_put(tx, map, "large", 5, large, sizeof(large)));
    EXPECT_OK(shelf_map_put(tx, map, &(uint64_t){0}, 8, &(uint64_t){0}, 8)); // in place
    for (uint64_t number = end; number-- > end / 2;) {
        EXPECT_OK(shelf_map_delete(tx, map, &number, sizeof(number)));
    }
    commit(tx);
    verify(&f, map, end / 2);
    numbers_put(&f, map, end / 2, end / 2 + 1000);
    numbers_check(&f, map, end / 2 + 1000);
    verify(&f, map, end / 2 + 1000);
    fixture_close(&f);
}

static void test_map_create_without_room_leaves_nothing(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 17 * 4096,
                 0); // three spans to give away: head and directory take one each, a segment needs four
    struct shelf_alloc_sums before = audit(&f);
    shelf_map map = {12345};
    shelf_tx *tx = begin_write(&f);
    EXPECT(SHELF_NO_SPACE, shelf_map_create(tx, f.region, "m", &map));
    assert_true(map.header == 12345);
    EXPECT(SHELF_NOT_FOUND, shelf_map_open(tx, f.region, "m", &map));
    commit(tx);
    assert_true(audit(&f).live == before.live);
    fixture_close(&f);
}

// What a region of 1 MiB holds, in entries of 100 bytes.
static void test_map_fills_a_small_region(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, MIB, MIB);
    shelf_map map = map_make(&f, "m");
    char key[17], value[84] = "";
    unsigned count = 0;
    for (shelf_result result = SHELF_OK; result == SHELF_OK;) {
        shelf_tx *tx = begin_write(&f);
        for (unsigned step = 0; step < 100 && result == SHELF_OK; step++) {
            (void)snprintf(key, sizeof(key), "key %012u", count);
            result = shelf_map_put(tx, map, key, 16, value, sizeof(value));
            count += result == SHELF_OK;
        }
        assert_true(result == SHELF_OK || result == SHELF_NO_SPACE);
        commit(tx);
    }
    assert_true((uint64_t)count * 100 > MIB * 60 / 100);
    verify(&f, map, count);
    fixture_close(&f);
}

// ---- Iteration and change -------------------------------------------------------------------------------------------

// A cursor goes on where it was while entries are deleted, over several transactions.
static void test_map_emptied_in_steps(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 8 * MIB, 0);
    shelf_map map = map_make(&f, "numbers");
    numbers_put(&f, map, 0, 10000);
    struct shelf_map_cursor cursor = {{0}};
    uint64_t deleted = 0;
    for (shelf_result result = SHELF_OK; result == SHELF_OK;) {
        shelf_tx *tx = begin_write(&f);
        for (unsigned step = 0; step < 1000; step++) {
            uint64_t key, value;
            size_t key_size, value_size;
            result = shelf_map_next(tx, map, &cursor, &key, sizeof(key), &key_size, &value, sizeof(value),
                                    &value_size);
            if (result != SHELF_OK) {
                break;
            }
            assert_true(value == key * 3);
            EXPECT_OK(shelf_map_delete(tx, map, &key, sizeof(key)));
            deleted++;
        }
        commit(tx);
    }
    assert_int_equal(deleted, 10000);
    verify(&f, map, 0);
    fixture_close(&f);
}

// ---- Limits and misuse ----------------------------------------------------------------------------------------------

static void test_map_sizes_at_the_limits(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 64 * MIB, 0);
    shelf_map map = map_make(&f, "limits");
    size_t large = 12 << 20;
    unsigned char *bytes = malloc(large);
    unsigned char *back = malloc(large);
    assert_non_null(bytes);
    assert_non_null(back);
    struct random random;
    random_seed(&random, 4);
    random_fill(&random, bytes, large);
    size_t size;
    shelf_tx *tx = begin_write(&f);
    EXPECT(SHELF_INVALID, shelf_map_put(tx, map, "", 0, "v", 1));
    EXPECT(SHELF_NOT_FOUND, shelf_map_get(tx, map, "", 0, back, 1, &size));
    EXPECT(SHELF_NOT_FOUND, shelf_map_get(tx, map, bytes, MAP_KEY_MAX + 1, back, 1, &size));
    EXPECT(SHELF_NOT_FOUND, shelf_map_delete(tx, map, "", 0));
    EXPECT(SHELF_NOT_FOUND, shelf_map_delete(tx, map, bytes, MAP_KEY_MAX + 1));
    EXPECT(SHELF_TOO_LARGE, shelf_map_put(tx, map, bytes, MAP_KEY_MAX + 1, "v", 1));
    EXPECT(SHELF_TOO_LARGE, shelf_map_put(tx, map, "k", 1, bytes, SHELF_TX_BYTES_MAX + 1));
    EXPECT_OK(shelf_map_put(tx, map, "k", 1, NULL, 0));
    EXPECT_OK(shelf_map_get(tx, map, "k", 1, NULL, 0, &size));
    assert_int_equal(size, 0);
    EXPECT_OK(shelf_map_put(tx, map, bytes, MAP_KEY_MAX, bytes, 100));
    EXPECT_OK(shelf_map_put(tx, map, "large", 5, bytes, large));
    commit(tx);
    tx = begin_read(&f);
    EXPECT_OK(shelf_map_get(tx, map, "large", 5, back, large, &size));
    assert_int_equal(size, large);
    assert_memory_equal(back, bytes, large);
    memset(back, 0, 64);
    EXPECT_OK(shelf_map_get(tx, map, "large", 5, back, 10, &size)); // cut
    assert_int_equal(size, large);
    assert_memory_equal(back, bytes, 10);
    assert_int_equal(back[10], 0);
    EXPECT_OK(shelf_map_get(tx, map, bytes, MAP_KEY_MAX, back, 100, &size));
    assert_memory_equal(back, bytes, 100);
    bytes[MAP_KEY_MAX - 1] ^= 1;
    EXPECT(SHELF_NOT_FOUND, shelf_map_get(tx, map, bytes, MAP_KEY_MAX, back, 100, &size));
    shelf_abort(tx);
    verify(&f, map, 3);
    free(bytes);
    free(back);
    fixture_close(&f);
}

static void test_map_misuse(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 0);
    shelf_map map = {0};
    size_t size;
    shelf_tx *tx = begin_write(&f);
    EXPECT(SHELF_NOT_FOUND, shelf_map_open(tx, f.region, "m", &map));
    EXPECT(SHELF_NOT_FOUND, shelf_map_drop(tx, f.region, "m"));
    EXPECT(SHELF_INVALID, shelf_map_create(tx, f.region, "", &map));
    assert_true(map.header == 0);
    EXPECT_OK(shelf_map_create(tx, f.region, "m", &map));
    EXPECT(SHELF_EXISTS, shelf_map_create(tx, f.region, "m", &map));
    EXPECT_OK(shelf_map_put(tx, map, "k", 1, "v", 1));
    EXPECT_OK(shelf_map_drop(tx, f.region, "m"));
    EXPECT(SHELF_NOT_FOUND, shelf_map_open(tx, f.region, "m", &map));
    EXPECT(SHELF_INVALID, shelf_map_get(tx, map, "k", 1, NULL, 0, &size)); // the old handle
    EXPECT(SHELF_INVALID, shelf_map_put(tx, map, "k", 1, "v", 1));
    EXPECT(SHELF_INVALID, shelf_map_verify(tx, map));
    commit(tx);
    assert_int_equal(audit(&f).blocks_live, 0);
    fixture_close(&f);
}

static void test_maps_do_not_disturb_each_other(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 16 * MIB, 0);
    shelf_map a = map_make(&f, "a");
    shelf_map b = map_make(&f, "b");
    numbers_put(&f, a, 0, 3000);
    numbers_put(&f, b, 0, 5000);
    numbers_check(&f, a, 3000);
    numbers_check(&f, b, 5000);
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(shelf_map_drop(tx, f.region, "a"));
    commit(tx);
    verify(&f, b, 5000);
    numbers_check(&f, b, 5000);
    fixture_close(&f);
}

// ---- Damage ---------------------------------------------------------------------------------------------------------

struct places {
    uint64_t head, directory, bucket, entry;
};

// Where the key lies, found by the map's own means.
static struct places places_find(shelf_tx *tx, shelf_map handle, const char *key, unsigned *ret_slot) {
    struct map map = {0};
    struct spot spot;
    struct entry entry;
    EXPECT_OK(map_load(tx, handle, &map));
    EXPECT_OK(map_find(&map, map_hash(map.seed, key, strlen(key)), key, strlen(key), &spot, &entry));
    *ret_slot = spot.slot;
    return (struct places){map.head, map.directory, bucket_offset(&spot.segment, spot.number), entry.offset};
}

static void byte_flip(const struct fixture *f, uint64_t offset, unsigned char flip) {
    shelf_addr address = shelf_addr_make(f->region, offset);
    unsigned char byte;
    shelf_tx *tx = begin_write(f);
    EXPECT_OK(shelf_read(tx, address, &byte, 1));
    byte ^= flip;
    EXPECT_OK(shelf_write(tx, address, &byte, 1));
    commit(tx);
}

// A transaction that has written looks things up with all checks, one that has not by the quick way; and many at once.
static void test_map_verify_finds_damage(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 0);
    shelf_map map = map_make(&f, "m");
    shelf_tx *tx = begin_write(&f);
    EXPECT_OK(shelf_map_put(tx, map, "damaged", 7, "value", 5));
    commit(tx);
    unsigned slot;
    tx = begin_read(&f);
    struct places at = places_find(tx, map, "damaged", &slot);
    shelf_abort(tx);
    uint64_t slot_at = at.bucket + slot * 8;
    const struct {
        const char *what;
        uint64_t offset;
        unsigned char flip;
        shelf_result get, quick; // differ where the quick way is right although something is wrong
    } damages[] = {
        {"the directory's place", at.head, 64, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the directory's depth", at.head + 5, 31, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the seed", at.head + 8, 1, SHELF_NOT_FOUND, SHELF_NOT_FOUND},
        {"the count", at.head + 64, 1, SHELF_OK, SHELF_OK},
        {"the segment's place", at.directory + 1, 64, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the segment's place, out of the region", at.directory + 5, 1, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the segment's depth", at.directory + 6, 1, SHELF_CORRUPT, SHELF_OK},
        {"the bucket's mark", at.bucket + 63, 1, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the number of entries elsewhere", at.bucket + 62, 2, SHELF_OK, SHELF_OK},
        {"the tag", slot_at + 7, 1, SHELF_NOT_FOUND, SHELF_NOT_FOUND},
        {"the entry's place", slot_at, 64, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the entry's place, out of the region", slot_at + 4, 7, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the size in the bucket", at.bucket + 56 + slot * 5 / 8, (unsigned char)(1u << (slot * 5 % 8)),
         SHELF_CORRUPT, SHELF_CORRUPT},
        {"the key's size", at.entry, 128, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the key's size, by little", at.entry, 1, SHELF_NOT_FOUND, SHELF_NOT_FOUND},
        {"the value's size, by a unit", at.entry + 4, 16, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the value's size", at.entry + 7, 1, SHELF_CORRUPT, SHELF_CORRUPT},
        {"the key", at.entry + 8, 1, SHELF_NOT_FOUND, SHELF_NOT_FOUND},
    };
    for (size_t index = 0; index < sizeof(damages) / sizeof(damages[0]); index++) {
        unsigned char value[64] = "", many_value[64] = "";
        size_t size, many_size;
        byte_flip(&f, damages[index].offset, damages[index].flip);
        tx = begin_read(&f);
        shelf_result quick = shelf_map_get(tx, map, "damaged", 7, value, sizeof(value), &size);
        shelf_abort(tx);
        tx = begin_read(&f);
        struct shelf_map_item item = {
            .key = "damaged", .key_size = 7, .value = many_value, .value_max = sizeof(many_value)};
        shelf_result many = shelf_map_get_many(tx, map, &item, 1);
        many = many == SHELF_OK ? item.result : many;
        many_size = item.value_size;
        shelf_abort(tx);
        tx = begin_write(&f);
        EXPECT_OK(shelf_write(tx, shelf_addr_make(f.region, 4 * MIB - 8), "effects", 8));
        shelf_result get = shelf_map_get(tx, map, "damaged", 7, value, sizeof(value), &size);
        shelf_result verified = shelf_map_verify(tx, map);
        if (get != damages[index].get || quick != damages[index].quick || many != quick ||
            verified != SHELF_CORRUPT || shelf_detail()[0] == 0) {
            fail_msg("%s: get %s, quickly %s, among many %s, verify %s", damages[index].what,
                     shelf_result_name(get), shelf_result_name(quick), shelf_result_name(many),
                     shelf_result_name(verified));
        }
        if (quick == SHELF_OK) {
            assert_true(many_size == 5 && memcmp(many_value, "value", 5) == 0);
        }
        shelf_abort(tx);
        byte_flip(&f, damages[index].offset, damages[index].flip);
    }
    fixture_close(&f);
}

static void map_set(const struct fixture *f, shelf_map map, const char *key, const char *value) {
    shelf_tx *tx = begin_write(f);
    EXPECT_OK(shelf_map_put(tx, map, key, strlen(key), value, strlen(value)));
    commit(tx);
}

static void value_expect(shelf_tx *tx, shelf_map map, const char *key, const char *value) {
    char found[16];
    size_t size;
    EXPECT_OK(shelf_map_get(tx, map, key, strlen(key), found, sizeof(found), &size));
    assert_true(size == strlen(value) && memcmp(found, value, size) == 0);
}

// What a transaction keeps of a map is of its own moment, of that map, and gone with its effects and with its end.
static void test_map_kept_in_a_transaction(void **state) {
    (void)state;
    struct fixture f;
    fixture_open(&f, 4 * MIB, 4 * MIB);
    shelf_map one = map_make(&f, "one"), two = map_make(&f, "two");
    map_set(&f, one, "key", "first");
    map_set(&f, two, "key", "second");

    shelf_tx *tx = begin_write(&f);
    for (int round = 0; round < 3; round++) {
        value_expect(tx, one, "key", "first");
        value_expect(tx, two, "key", "second");
        value_expect(tx, two, "key", "second");
    }
    EXPECT_OK(shelf_map_put(tx, two, "key", 3, "own", 3));
    value_expect(tx, two, "key", "own");
    shelf_abort(tx);

    tx = begin_read(&f);
    value_expect(tx, one, "key", "first");
    value_expect(tx, two, "key", "second");
    shelf_tx *other = begin_write(&f);
    EXPECT_OK(shelf_map_drop(other, f.region, "two"));
    EXPECT_OK(shelf_map_put(other, one, "key", 3, "third", 5));
    commit(other);
    char value[16];
    size_t size;
    EXPECT(SHELF_CONFLICT, shelf_map_get(tx, two, "key", 3, value, sizeof(value), &size));
    EXPECT(SHELF_CONFLICT, shelf_map_get(tx, one, "key", 3, value, sizeof(value), &size));
    shelf_abort(tx);

    tx = begin_read(&f); // may be the very same transaction, used again
    value_expect(tx, one, "key", "third");
    EXPECT(SHELF_INVALID, shelf_map_get(tx, two, "key", 3, value, sizeof(value), &size));
    shelf_abort(tx);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_against_model),
        cmocka_unit_test(test_map_grows_through_many_splits_and_a_restart),
        cmocka_unit_test(test_map_created_and_filled_in_one_transaction),
        cmocka_unit_test(test_map_aborted_leaves_nothing),
        cmocka_unit_test(test_map_in_a_full_region),
        cmocka_unit_test(test_map_create_without_room_leaves_nothing),
        cmocka_unit_test(test_map_emptied_in_steps),
        cmocka_unit_test(test_map_sizes_at_the_limits),
        cmocka_unit_test(test_map_misuse),
        cmocka_unit_test(test_maps_do_not_disturb_each_other),
        cmocka_unit_test(test_map_fills_a_small_region),
        cmocka_unit_test(test_map_verify_finds_damage),
        cmocka_unit_test(test_map_kept_in_a_transaction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
