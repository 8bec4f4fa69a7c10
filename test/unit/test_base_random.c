// SPDX-License-Identifier: Apache-2.0
//
// Random numbers: the same for ever, and evenly spread.

#include "base/random.h"

#include <string.h>

#include "cmocka_program.h"

// The first numbers of the published algorithm with state 1, 2, 3, 4 (worked out by hand for the first two: 2
// * 5 rotated by 7, times 9; then 0), and the same for a seed, so that old seeds go on replaying.
static void test_random_golden(void **state) {
    (void)state;
    struct random random = {{1, 2, 3, 4}};
    assert_int_equal(random_next(&random), 11520);
    assert_int_equal(random_next(&random), 0);
    assert_int_equal(random_next(&random), 1509978240);
    assert_int_equal(random_next(&random), 1215971899390074240);

    random_seed(&random, 0); // splitmix64 from 0 is published too
    assert_true(random.state[0] == 0xe220a8397b1dcdafu);
    assert_true(random.state[1] == 0x6e789e6aa1b965f4u);
    assert_true(random.state[2] == 0x06c45d188009454fu);
    assert_true(random.state[3] == 0xf88bb8a8724c81ecu);
}

static void test_random_below_is_even(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 4);
    for (uint64_t count = 1; count <= 12; count++) {
        uint64_t seen[12] = {0};
        for (uint64_t i = 0; i < 10000 * count; i++) {
            uint64_t number = random_below(&random, count);
            assert_true(number < count);
            seen[number]++;
        }
        for (uint64_t i = 0; i < count; i++) {
            assert_in_range(seen[i], 9500, 10500);
        }
    }
    // With a count of three quarters of the range, taking the remainder would give the lower third double the
    // weight.
    uint64_t lower = 0;
    for (int i = 0; i < 30000; i++) {
        lower += random_below(&random, 3ull << 62) < 1ull << 62;
    }
    assert_in_range(lower, 9500, 10500);
}

static void test_random_between_and_chance(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 5);
    uint64_t seen[3] = {0};
    uint64_t hits = 0;
    for (int i = 0; i < 30000; i++) {
        uint64_t number = random_between(&random, 7, 9);
        assert_in_range(number, 7, 9);
        seen[number - 7]++;
        hits += random_chance(&random, 1, 3);
        assert_false(random_chance(&random, 0, 5));
        assert_true(random_chance(&random, 5, 5));
    }
    assert_in_range(seen[0], 9500, 10500);
    assert_in_range(seen[2], 9500, 10500);
    assert_in_range(hits, 9500, 10500);
    assert_int_equal(random_between(&random, 42, 42), 42);
    assert_true(random_between(&random, 0, UINT64_MAX) != random_between(&random, 0, UINT64_MAX));
}

static void test_random_fill_stays_inside(void **state) {
    (void)state;
    struct random random;
    for (size_t size = 0; size < 40; size++) {
        unsigned char bytes[48];
        unsigned char again[48];
        memset(bytes, 0xee, sizeof(bytes));
        memset(again, 0x11, sizeof(again));
        random_seed(&random, size);
        random_fill(&random, bytes, size);
        random_seed(&random, size);
        random_fill(&random, again, size);
        assert_memory_equal(bytes, again, size);
        for (size_t i = size; i < sizeof(bytes); i++) {
            assert_int_equal(bytes[i], 0xee);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_golden),
        cmocka_unit_test(test_random_below_is_even),
        cmocka_unit_test(test_random_between_and_chance),
        cmocka_unit_test(test_random_fill_stays_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
