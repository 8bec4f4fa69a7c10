// SPDX-License-Identifier: Apache-2.0
//
// The made-up flow: a seed means the same events for ever, and they have the habits that make a good test.

#include "exchange/flow.h"

#include <stdlib.h>
#include <string.h>

#include "cmocka_program.h"
#include "exchange/csv.h"

static uint64_t flow_hash(uint64_t seed, size_t count) {
    struct flow *flow = malloc(sizeof(*flow));
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    assert_non_null(flow);
    flow_init(flow, seed);
    for (size_t i = 0; i < count; i++) {
        struct event event;
        char line[CSV_LINE_MAX];
        flow_next(flow, &event);
        size_t size = csv_format(&event, line);
        for (size_t j = 0; j < size; j++)
            hash = (hash ^ (unsigned char)line[j]) * UINT64_C(0x100000001b3); // FNV-1a
    }
    free(flow);
    return hash;
}

// Regions remember that they follow from a flow and a seed. If this fails, FLOW_VERSION must change with it.
static void test_flow_golden(void **state) {
    (void)state;
    assert_int_equal(FLOW_VERSION, 1);
    assert_int_equal(flow_hash(7, 100000), UINT64_C(0x4cab0b8248d8336a));
}

static void test_flow_follows_from_the_seed(void **state) {
    (void)state;
    assert_int_equal(flow_hash(1, 5000), flow_hash(1, 5000));
    assert_int_not_equal(flow_hash(1, 5000), flow_hash(2, 5000));
    assert_int_not_equal(flow_hash(0, 5000), flow_hash(UINT64_MAX, 5000));
}

static void test_flow_has_all_kinds_of_events(void **state) {
    (void)state;
    struct flow *flow = malloc(sizeof(*flow));
    size_t actions[3] = {0}, sides[2] = {0}, deleted_empty = 0, foreign = 0;
    uint64_t time_ms = 0;
    assert_non_null(flow);
    flow_init(flow, 3);
    for (int i = 0; i < 50000; i++) {
        struct event event;
        flow_next(flow, &event);
        assert_true(event.id > 0 && event.price > 0 && event.price <= PRICE_MAX &&
                    event.volume <= VOLUME_MAX);
        assert_true(event.time_ms >= time_ms);
        assert_true(event.action != EVENT_CREATED || event.volume > 0);
        time_ms = event.time_ms;
        actions[event.action]++;
        sides[event.side]++;
        deleted_empty += event.action == EVENT_DELETED && event.volume == 0;
        foreign += event.id < 1000;
    }
    assert_in_range(actions[EVENT_CREATED], 20000, 30000);
    assert_in_range(actions[EVENT_DELETED], 20000, 30000);
    assert_in_range(actions[EVENT_CHANGED], 200, 2000);
    assert_in_range(sides[SIDE_BID], 20000, 30000);
    assert_in_range(deleted_empty, 200, 2000);
    assert_in_range(foreign, 100, 1000);
    free(flow);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flow_golden),
        cmocka_unit_test(test_flow_follows_from_the_seed),
        cmocka_unit_test(test_flow_has_all_kinds_of_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
