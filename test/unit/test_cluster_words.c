// SPDX-License-Identifier: Apache-2.0
//
// What people are told of a cluster, and processes that a command finds again.

#include "cmd/cluster_words.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/up_process.h"
#include "cmocka_program.h"

static struct shelf_cluster_info info_make(uint32_t in_sync, uint32_t copies, uint32_t copies_min) {
    struct shelf_cluster_info info = {.node = 1,
                                      .part = SHELF_PART_PRIMARY,
                                      .serves = true,
                                      .primary = 1,
                                      .epoch = 3,
                                      .in_sync = in_sync,
                                      .copies = copies,
                                      .copies_min = copies_min,
                                      .coordinator_reachable = true,
                                      .node_count = in_sync};
    for (uint32_t i = 0; i < in_sync; i++) {
        info.nodes[i] = (struct shelf_node_info){
            .node = i + 1, .part = i == 0 ? SHELF_PART_PRIMARY : SHELF_PART_BACKUP, .connected = true};
    }
    return info;
}

static void test_spare(void **state) {
    static const struct {
        uint32_t in_sync, copies_min, spare;
    } cases[] = {
        {1, 1, 0}, {1, 2, 0}, {2, 1, 1}, {2, 2, 0}, {3, 2, 1}, {3, 3, 1},
        {3, 1, 1}, {4, 2, 2}, {4, 4, 1}, {5, 2, 2}, {5, 3, 2}, {16, 2, 8},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(cluster_spare(cases[i].in_sync, cases[i].copies_min), cases[i].spare);
    }
}

static void says(const struct shelf_cluster_info *info, bool well, const char *state_words,
                 const char *outlook_words) {
    char state[CLUSTER_WORDS_MAX], outlook[CLUSTER_WORDS_MAX];
    assert_int_equal(cluster_state_words(info, state), well);
    cluster_outlook_words(info, outlook);
    if (!strstr(state, state_words) || !strstr(outlook, outlook_words)) {
        fail_msg("'%s' and '%s' do not say '%s' and '%s'", state, outlook, state_words, outlook_words);
    }
}

static void test_words(void **state) {
    (void)state;
    struct shelf_cluster_info info = info_make(3, 3, 2);
    says(&info, true, "all is well", "any one node");
    info.nodes[2].connected = false;
    says(&info, true, "all is well", "none");
    info = info_make(5, 5, 2);
    says(&info, true, "all is well", "any 2 nodes");
    info = info_make(2, 3, 2);
    says(&info, false, "fewer copies", "commits would wait");
    info = info_make(1, 3, 1);
    says(&info, false, "fewer copies", "only one copy");
    info = info_make(1, 1, 1);
    says(&info, true, "all is well", "--copies 1");
    info = info_make(3, 3, 2);
    info.coordinator_reachable = false;
    says(&info, true, "all is well", "minority of backups");
    info.nodes[1].connected = false;
    says(&info, true, "all is well", "bring it back");
    info.coordinator_refused = true;
    says(&info, true, "all is well", "gone back");
    info = info_make(3, 3, 2);
    info.serves = false;
    says(&info, false, "about to lead", "");
    info.primary = 2;
    info.silent_ms = 10;
    says(&info, true, "all is well", "");
    info.silent_ms = 9000;
    says(&info, false, "since 9000 ms", "");
    info.silent_ms = 0;
    info.part = SHELF_PART_LEARNER;
    says(&info, false, "gets what it lacks", "");
    info.epoch = 0;
    says(&info, false, "not found its cluster", "");
}

static void test_process(void **state) {
    const char *const arguments[] = {"cat", NULL};
    const char *const sleeper[] = {"sleep", "1000", NULL};
    const char *const nothing[] = {"/no/such/program", NULL};
    struct up_process process, other;
    (void)state;
    assert_int_not_equal(up_process_start(nothing, "/dev/null", &process), 0);
    assert_int_equal(up_process_start(arguments, "/dev/null", &process),
                     0); // ends at once: there is no input
    assert_true(up_process_end(&process, 0, 10000));
    assert_false(up_process_lives(&process));

    assert_int_equal(up_process_start(sleeper, "/dev/null", &process), 0);
    assert_true(up_process_lives(&process));
    assert_false(up_process_end(&process, 0, 1));
    other = process;
    other.began++; // the same number, of another process
    assert_false(up_process_lives(&other));
    assert_true(up_process_end(&other, SIGKILL, 0));
    other = process;
    other.boot[0] ^= 1; // of another boot
    assert_false(up_process_lives(&other));
    assert_true(up_process_end(&other, SIGKILL, 0));
    assert_true(up_process_lives(&process));
    assert_true(up_process_end(&process, SIGTERM, 10000));
    assert_false(up_process_lives(&process));
    assert_true(up_process_end(&(struct up_process){0}, SIGKILL, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spare),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
