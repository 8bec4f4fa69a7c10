// SPDX-License-Identifier: Apache-2.0
//
// Arithmetic on sizes, at its edges.

#include "base/bits.h"

#include "cmocka_program.h"

static void test_align(void **state) {
    (void)state;
    assert_int_equal(align_down(0, 64), 0);
    assert_int_equal(align_down(63, 64), 0);
    assert_int_equal(align_down(64, 64), 64);
    assert_int_equal(align_up(0, 64), 0);
    assert_int_equal(align_up(1, 64), 64);
    assert_int_equal(align_up(64, 64), 64);
    assert_int_equal(align_up(65, 64), 128);
    assert_int_equal(align_up(7, 1), 7);
    assert_true(align_up(UINT64_MAX - 4095, 4096) == UINT64_MAX - 4095);
    assert_true(align_up((1ull << 40) + 1, 4096) == (1ull << 40) + 4096);
    assert_true(is_aligned(8192, 4096));
    assert_false(is_aligned(8191, 4096));
}

static void test_power_of_two_and_log2(void **state) {
    (void)state;
    assert_false(is_power_of_two(0));
    assert_false(is_power_of_two(UINT64_MAX));
    for (uint32_t n = 0; n < 64; n++) {
        uint64_t power = 1ull << n;
        assert_true(is_power_of_two(power));
        assert_int_equal(log2_down(power), n);
        assert_int_equal(log2_up(power), n);
        if (n > 1) {
            assert_false(is_power_of_two(power - 1));
            assert_int_equal(log2_down(power - 1), n - 1);
            assert_int_equal(log2_up(power - 1), n);
            assert_int_equal(log2_up(power + 1), n + 1);
        }
    }
}

static void test_divide_min_max(void **state) {
    (void)state;
    assert_int_equal(divide_up(0, 7), 0);
    assert_int_equal(divide_up(7, 7), 1);
    assert_int_equal(divide_up(8, 7), 2);
    assert_true(divide_up(UINT64_MAX, 1) == UINT64_MAX);
    assert_true(divide_up(UINT64_MAX, 2) == 1ull << 63);
    assert_int_equal(min_u64(1, 2), 1);
    assert_int_equal(min_u64(2, 1), 1);
    assert_int_equal(max_u64(1, 2), 2);
    assert_int_equal(max_u64(2, 1), 2);
}

static void test_range_within(void **state) {
    (void)state;
    assert_true(range_within(0, 0, 0));
    assert_true(range_within(10, 0, 10));
    assert_true(range_within(0, 10, 10));
    assert_false(range_within(1, 10, 10));
    assert_false(range_within(11, 0, 10));
    assert_false(range_within(UINT64_MAX, 2, 10));
    assert_false(range_within(2, UINT64_MAX, 10));
    assert_true(range_within(UINT64_MAX - 1, 1, UINT64_MAX));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_align),
        cmocka_unit_test(test_power_of_two_and_log2),
        cmocka_unit_test(test_divide_min_max),
        cmocka_unit_test(test_range_within),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
