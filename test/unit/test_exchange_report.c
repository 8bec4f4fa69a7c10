// SPDX-License-Identifier: Apache-2.0
//
// Numbers as people read them, and percentiles.

#include "exchange/report.h"

#include <stdlib.h>

#include "cmocka_program.h"

static void test_number_text_groups_digits(void **state) {
    (void)state;
    char text[NUMBER_TEXT_MAX];
    assert_string_equal(number_text(0, text), "0");
    assert_string_equal(number_text(999, text), "999");
    assert_string_equal(number_text(1000, text), "1,000");
    assert_string_equal(number_text(50414, text), "50,414");
    assert_string_equal(number_text(UINT64_MAX, text), "18,446,744,073,709,551,615");
}

static void test_fixed_text_places_the_point(void **state) {
    (void)state;
    char text[NUMBER_TEXT_MAX];
    assert_string_equal(fixed_text(0, 2, 2, text), "0.00");
    assert_string_equal(fixed_text(5, 2, 2, text), "0.05");
    assert_string_equal(fixed_text(-5, 2, 2, text), "-0.05");
    assert_string_equal(fixed_text(23647, 2, 2, text), "236.47");
    assert_string_equal(fixed_text(123456, 3, 2, text), "123.45");
    assert_string_equal(fixed_text(123456, 3, 0, text), "123");
    assert_string_equal(fixed_text(7, 0, 0, text), "7");
    __int128 large = (__int128)INT64_MAX * 1000000;
    assert_string_equal(fixed_text(large, 6, 6, text), "9223372036854775807.000000");
}

static void test_latencies_percentiles(void **state) {
    (void)state;
    struct latencies latencies = {0};
    assert_true(latencies_us(&latencies, 50) == 0);
    for (uint64_t i = 10000; i > 0; i--)
        latencies_add(&latencies, i * 1000);
    latencies_add(&latencies, UINT64_MAX); // cut off at what 32 bits hold
    latencies_sort(&latencies);
    assert_int_equal(latencies.count, 10001);
    assert_true(latencies_us(&latencies, 0) == 1);
    assert_true(latencies_us(&latencies, 50) == 5001);
    assert_true(latencies_us(&latencies, 99) == 9901);
    assert_true(latencies_us(&latencies, 100) == UINT32_MAX / 1000.0);
    latencies_free(&latencies);
}

static void test_colours_only_on_terminals(void **state) {
    (void)state;
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_string_equal(colours_for(file).good, "");
    assert_string_equal(colours_for(file).off, "");
    fclose(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_number_text_groups_digits),
        cmocka_unit_test(test_fixed_text_places_the_point),
        cmocka_unit_test(test_latencies_percentiles),
        cmocka_unit_test(test_colours_only_on_terminals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
