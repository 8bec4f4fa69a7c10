// SPDX-License-Identifier: Apache-2.0
//
// The daemon's watch: a node that hangs does not answer, and whoever asks does not hang with it.

#include "node_fixture.h"

#include "cmd/shelfd_watch.h"
#include "node/node_state.h"

static void test_watch_tells_what_the_node_says(void **state) {
    struct fixture *fixture = *state;
    struct node *node = node_make(fixture, SHELF_BACKEND_AUTO);
    struct watch *watch = watch_open(node);
    struct watch_answer answer;
    assert_non_null(watch);
    for (int i = 0; i < 100; i++) {
        assert_true(watch_ask(watch, 10000, &answer));
        assert_int_equal(answer.info.state, SHELF_OK);
        assert_int_equal(answer.info.epoch, 1);
        assert_string_equal(answer.fault, "");
    }
    watch_close(watch);
    assert_int_equal(node_close(node), SHELF_OK);
}

static void test_watch_does_not_hang_with_the_node(void **state) {
    struct fixture *fixture = *state;
    struct node *node = node_make(fixture, SHELF_BACKEND_AUTO);
    struct watch *watch = watch_open(node);
    struct watch_answer answer = {.fault = "untouched"};
    core_enter(node); // nobody else gets to the core now
    assert_false(watch_ask(watch, 20, &answer));
    assert_false(watch_ask(watch, 20, &answer));
    assert_string_equal(answer.fault, "untouched");
    (void)core_leave(node, NULL);
    assert_true(watch_ask(watch, 10000, &answer));
    assert_string_equal(answer.fault, "");
    watch_close(watch);
    assert_int_equal(node_close(node), SHELF_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_watch_tells_what_the_node_says, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_watch_does_not_hang_with_the_node, fixture_setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
