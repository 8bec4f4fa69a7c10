// SPDX-License-Identifier: Apache-2.0
//
// What all coordinators share: the table of registers and its news, and the memory that recognises a store that has gone back.

#include "core/coordinator.h"

#include <stdlib.h>
#include <string.h>

#include "cmocka_program.h"

static const struct register_id group_0 = {REGISTER_CONFIGURATION, 0}, group_1 = {REGISTER_CONFIGURATION, 1},
                                node_1 = {REGISTER_NODE, 1}, node_2 = {REGISTER_NODE, 2};

static struct register_state state_of(uint64_t revision, const char *value) {
    struct register_state state = {.revision = revision, .size = (uint32_t)strlen(value)};
    memcpy(state.value, value, strlen(value));
    return state;
}

static void set(struct coordinator_table *table, struct register_id id, uint64_t revision, bool news) {
    struct register_state state = state_of(revision, "x");
    bool changed = !news;
    assert_true(coordinator_table_set(table, id, &state, &changed));
    assert_int_equal(changed, news);
}

static void expect(struct coordinator_table *table, struct register_id id, uint64_t revision) {
    struct coordinator_news news;
    assert_true(coordinator_table_news_pending(table));
    assert_true(coordinator_table_news(table, &news));
    assert_int_equal(news.kind, NEWS_CHANGED);
    assert_true(register_id_same(news.id, id));
    assert_int_equal(news.state.revision, revision);
}

static void expect_complete(struct coordinator_table *table) {
    struct coordinator_news news;
    assert_true(coordinator_table_news(table, &news));
    assert_int_equal(news.kind, NEWS_COMPLETE);
}

static void expect_nothing(struct coordinator_table *table) {
    struct coordinator_news news;
    assert_false(coordinator_table_news_pending(table));
    assert_false(coordinator_table_news(table, &news));
}

static struct coordinator_table *table_new(void) {
    struct coordinator_table *table = calloc(1, sizeof(*table));
    assert_non_null(table);
    return table;
}

static void test_table_tells_readings_in_order_then_complete(void **state) {
    struct coordinator_table *table = table_new();
    (void)state;
    expect_nothing(table);
    assert_true(coordinator_table_begin(table, 9));
    set(table, group_0, 7, true);
    set(table, node_1, 3, true);
    assert_false(coordinator_table_end(table, 9));
    expect(table, node_1, 3);
    expect(table, group_0, 7);
    expect_complete(table);
    expect_nothing(table);
    assert_true(coordinator_table_begin(table, 9)); // nothing has changed
    set(table, group_0, 7, false);
    set(table, node_1, 3, false);
    assert_false(coordinator_table_end(table, 9));
    expect_nothing(table);
    free(table);
}

static void test_table_never_goes_back(void **state) {
    struct coordinator_table *table = table_new();
    (void)state;
    assert_true(coordinator_table_begin(table, 5));
    set(table, group_0, 5, true);
    assert_false(coordinator_table_end(table, 5));
    set(table, group_0, 8, true); // by a watch
    set(table, group_0, 8, false);
    set(table, group_0, 6, false);
    assert_false(coordinator_table_begin(table, 7)); // a reading that was under way for long
    expect(table, group_0, 8);
    expect_complete(table);
    // A watch that lags behind a reading: what the reading has shown is not told again.
    assert_true(coordinator_table_begin(table, 20));
    set(table, group_0, 8, false);
    assert_false(coordinator_table_end(table, 20));
    set(table, node_1, 15, false); // was made at 15 and removed before 20
    coordinator_table_remove(table, group_0, 19);
    expect_nothing(table);
    set(table, node_1, 21, true);
    expect(table, node_1, 21);
    free(table);
}

static void test_table_tells_removals(void **state) {
    struct coordinator_table *table = table_new();
    (void)state;
    assert_true(coordinator_table_begin(table, 5));
    set(table, node_1, 4, true);
    set(table, node_2, 5, true);
    assert_false(coordinator_table_end(table, 5));
    expect(table, node_1, 4);
    expect(table, node_2, 5);
    expect_complete(table);
    coordinator_table_remove(table, node_1, 6);
    expect(table, node_1, 0);
    expect_nothing(table);
    coordinator_table_remove(table, node_1, 7); // there is none
    expect_nothing(table);
    set(table, node_1, 8, true);
    coordinator_table_remove(table, node_2, 9);
    set(table, node_2, 10, true); // removed and made anew before anybody was told
    expect(table, node_1, 8);
    expect(table, node_2, 10);
    assert_true(coordinator_table_begin(table, 12));
    set(table, node_1, 8, false);
    assert_true(coordinator_table_end(table, 12)); // node 2 is missing
    expect(table, node_2, 0);
    expect_nothing(table);
    free(table);
}

static void test_table_has_an_end(void **state) {
    struct coordinator_table *table = table_new();
    struct register_state one = state_of(1, "x");
    (void)state;
    assert_true(coordinator_table_begin(table, 1000));
    for (uint64_t i = 0; i < REGISTERS_MAX; i++) {
        set(table, (struct register_id){REGISTER_NODE, i}, i + 1, true);
    }
    assert_false(coordinator_table_set(table, (struct register_id){REGISTER_NODE, 1000}, &one, NULL));
    (void)coordinator_table_end(table, 1000);
    coordinator_table_remove(table, (struct register_id){REGISTER_NODE, 5}, 1001);
    for (uint64_t i = 0; i < REGISTERS_MAX - 1; i++) {
        expect(table, (struct register_id){REGISTER_NODE, i + (i >= 5)}, i + (i >= 5) + 1);
    }
    expect(table, (struct register_id){REGISTER_NODE, 5}, 0);
    expect_complete(table);
    set(table, (struct register_id){REGISTER_NODE, 1000}, 1002, true); // its place is free now
    free(table);
}

// ---- Memory

static struct coordinator_memory memory_make(void) {
    struct coordinator_memory memory = {0};
    struct register_state state = state_of(90, "ninety");
    assert_null(coordinator_memory_store(&memory, 7, 100, 0));
    assert_null(coordinator_memory_register(&memory, group_0, &state, (struct register_history){10, 5}, 100));
    assert_null(coordinator_memory_problem(&memory));
    return memory;
}

static void test_memory_refuses_another_or_older_store(void **state) {
    struct coordinator_memory memory = memory_make(), before = memory;
    (void)state;
    assert_non_null(coordinator_memory_store(&memory, 8, 200, 0));
    assert_non_null(coordinator_memory_store(&memory, 7, 99, 100));
    assert_memory_equal(&memory, &before, sizeof(memory));
    assert_null(coordinator_memory_store(&memory, 7, 99, 98)); // it was under way for long
    assert_int_equal(memory.revision, 100);
    assert_null(coordinator_memory_store(&memory, 7, 120, 100));
    assert_int_equal(memory.revision, 120);
}

static void test_memory_knows_the_history_of_a_configuration(void **state) {
    static const struct {
        uint64_t revision, created, version, at;
        const char *value;
        bool good;
    } cases[] = {
        {90, 10, 5, 100, "ninety", true},  // as it was
        {95, 10, 6, 100, "other", true},   // one change further
        {95, 10, 9, 100, "other", true},   // several
        {80, 10, 4, 85, "eighty", true},   // an old answer
        {80, 10, 4, 90, "eighty", false},  // no old answer: at 90 it was changed
        {80, 10, 4, 100, "eighty", false}, // gone back
        {90, 10, 5, 100, "NINETY", false}, // another content
        {90, 10, 6, 100, "ninety", false}, // another history
        {95, 10, 5, 100, "other", false},  // as many changes, but another one
        {95, 10, 4, 100, "other", false},  // fewer
        {95, 91, 1, 100, "other", false},  // made anew
        {95, 11, 6, 100, "other", false},  // the same
        {101, 10, 6, 100, "other", false}, // of the future
        {0, 10, 6, 100, "other", false},   // none
        {95, 96, 6, 100, "other", false},  // changed before it was made
        {95, 10, 0, 100, "other", false},  // never changed
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct coordinator_memory memory = memory_make(), before = memory;
        struct register_state now = state_of(cases[i].revision, cases[i].value);
        const char *problem = coordinator_memory_register(
            &memory, group_0, &now, (struct register_history){cases[i].created, cases[i].version},
            cases[i].at);
        if ((problem == NULL) != cases[i].good) {
            fail_msg("case %zu: %s", i, problem ? problem : "taken for good");
        }
        bool further = cases[i].good && cases[i].revision > 90;
        assert_int_equal(memory.entries[0].revision, further ? cases[i].revision : 90);
        assert_true(further || memcmp(&memory, &before, sizeof(memory)) == 0);
    }
}

static void test_memory_misses_a_configuration_that_is_gone(void **state) {
    struct coordinator_memory memory = memory_make();
    (void)state;
    assert_non_null(coordinator_memory_absent(&memory, group_0, 100));
    assert_non_null(coordinator_memory_absent(&memory, group_0, 90));
    assert_null(coordinator_memory_absent(&memory, group_0, 89)); // from before it was seen
    assert_null(coordinator_memory_absent(&memory, group_1, 100));
    assert_null(coordinator_memory_absent(&memory, node_1, 100));
}

static void test_memory_has_an_end(void **state) {
    struct coordinator_memory memory = {0};
    struct register_state one = state_of(5, "x");
    (void)state;
    assert_null(coordinator_memory_store(&memory, 7, 100, 0));
    for (uint64_t i = 0; i <= COORDINATOR_MEMORY_REGISTERS_MAX; i++) {
        const char *problem =
            coordinator_memory_register(&memory, (struct register_id){REGISTER_CONFIGURATION, i}, &one,
                                        (struct register_history){5, 1}, 100);
        assert_int_equal(problem == NULL, i < COORDINATOR_MEMORY_REGISTERS_MAX);
    }
    assert_null(coordinator_memory_register(&memory, node_1, &one, (struct register_history){5, 1}, 100));
    assert_int_equal(memory.count, COORDINATOR_MEMORY_REGISTERS_MAX);
    memory.count++;
    assert_non_null(coordinator_memory_problem(&memory));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_tells_readings_in_order_then_complete),
        cmocka_unit_test(test_table_never_goes_back),
        cmocka_unit_test(test_table_tells_removals),
        cmocka_unit_test(test_table_has_an_end),
        cmocka_unit_test(test_memory_refuses_another_or_older_store),
        cmocka_unit_test(test_memory_knows_the_history_of_a_configuration),
        cmocka_unit_test(test_memory_misses_a_configuration_that_is_gone),
        cmocka_unit_test(test_memory_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
