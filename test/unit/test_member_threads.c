// SPDX-License-Identifier: Apache-2.0
//
// Three nodes of a cluster in one process, with a coordinator of files: they find each other, commit, lose the primary, and
// get it back. (Real processes with a real etcd are in test/cluster.)

#include <pthread.h>
#include <time.h>

#include "member/member.h"
#include "node_fixture.h"

enum { NODES = 3, WORDS = 64, PATIENCE_MS = 60000 };

struct machine {
    char path[320];
    struct member *member;
    struct node *node; // NULL: it does not run
};

struct bed {
    char register_path[320];
    struct machine machines[NODES];
    _Atomic uint32_t events;
};

static void on_log(void *context, const char *event, const char *text) {
    struct bed *bed = context;
    assert_true(event[0] != 0 && text[0] != 0);
    atomic_fetch_add(&bed->events, 1);
}

static void machine_start(struct bed *bed, uint32_t place) {
    struct machine *machine = &bed->machines[place];
    char text[MEMBER_TEXT_MAX] = "";
    const struct member_options options = {.directory = machine->path,
                                           .create = true,
                                           .address = "127.0.0.1:0",
                                           .coordinator = bed->register_path,
                                           .cluster = "test",
                                           .copies = NODES,
                                           .min_copies = 2,
                                           .heartbeat_ms = 50,
                                           .suspect_ms = 600,
                                           .log = on_log,
                                           .log_context = bed};
    const struct shelf_options node_settings = node_options(SHELF_BACKEND_PLAIN);
    if (member_open(&options, &machine->member, text) != SHELF_OK) {
        fail_msg("%s", text);
    }
    assert_int_equal(
        node_open_cluster(machine->path, &node_settings, member_cluster(machine->member), &machine->node),
        SHELF_OK);
    if (member_run(machine->member, machine->node, text) != SHELF_OK) {
        fail_msg("%s", text);
    }
}

static void machine_stop(struct machine *machine) {
    if (machine->node) {
        member_halt(machine->member);
        assert_int_equal(node_close(machine->node), SHELF_OK);
        member_close(machine->member);
        machine->node = NULL;
    }
}

static struct bed *bed_make(const struct fixture *fixture) {
    struct bed *bed = calloc(1, sizeof(*bed));
    assert_non_null(bed);
    snprintf(bed->register_path, sizeof(bed->register_path), "file:%s-register", fixture->path);
    for (uint32_t i = 0; i < NODES; i++) {
        snprintf(bed->machines[i].path, sizeof(bed->machines[i].path), "%s-%u", fixture->path, i);
        machine_start(bed, i);
    }
    return bed;
}

static void bed_free(struct bed *bed) {
    for (uint32_t i = 0; i < NODES; i++) {
        machine_stop(&bed->machines[i]);
    }
    free(bed);
}

// The node that takes commits and has all that run in its set; NULL: not yet.
static struct node *led(const struct bed *bed) {
    uint32_t running = 0;
    struct node *found = NULL;
    for (uint32_t i = 0; i < NODES; i++) {
        running += bed->machines[i].node != NULL;
    }
    for (uint32_t i = 0; i < NODES; i++) {
        struct core_cluster cluster = {0};
        if (bed->machines[i].node) {
            node_cluster_get(bed->machines[i].node, &cluster);
        }
        if (cluster.serves && cluster.configuration.member_count == running) {
            found = bed->machines[i].node;
        }
    }
    return found;
}

static struct node *led_await(const struct bed *bed) {
    struct node *node = NULL;
    for (int ms = 0; (node = led(bed)) == NULL; ms++) {
        assert_true(ms < PATIENCE_MS);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return node;
}

static void applied_await(const struct node *node, uint64_t index) {
    for (int ms = 0; atomic_load(&node_replica(node)->image->applied) < index; ms++) {
        assert_true(ms < PATIENCE_MS);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

struct committer {
    struct node *node;
    uint32_t region, first;
    uint64_t index; // of the last that was acknowledged
    uint32_t count; // acknowledged
    shelf_result end;
};

// Words first, first + 1, ... get their numbers, until one is not acknowledged.
static void *committer_main(void *context) {
    struct committer *committer = context;
    struct reply session = session_open(committer->node);
    for (uint32_t i = 0; i < WORDS; i++) {
        struct reply reply = {0};
        struct word_commit commit = word_commit(committer->node, &session, i + 1, committer->region,
                                                (committer->first + i) * 64u, committer->first + i + 1u);
        committer->end = node_call(committer->node, &commit, sizeof(commit), DEADLINE_MS, &reply);
        committer->end = committer->end == SHELF_OK ? (shelf_result)reply.result : committer->end;
        if (committer->end != SHELF_OK) {
            break;
        }
        committer->index = reply.receipt.index;
        committer->count++;
    }
    return NULL;
}

static void words_check(struct node *node, const struct committer *committer) {
    applied_await(node, committer->index);
    for (uint32_t i = 0; i < committer->count; i++) {
        assert_int_equal(word_read(node, committer->region, (committer->first + i) * 64u),
                         committer->first + i + 1u);
    }
}

static void test_commit_takeover_return(void **state) {
    struct bed *bed = bed_make(*state);
    struct node *primary = led_await(bed);
    uint32_t region = region_create(primary, "words", 1 << 20);
    struct committer committers[2] = {{.node = primary, .region = region},
                                      {.node = primary, .region = region, .first = 1000}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, committer_main, &committers[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(committers[i].count, WORDS);
        for (uint32_t place = 0; place < NODES; place++) {
            words_check(bed->machines[place].node, &committers[i]);
        }
    }

    uint32_t gone = 0;
    while (bed->machines[gone].node != primary) {
        gone++;
    }
    struct committer forwarded = {
        .node = bed->machines[(gone + 1) % NODES].node, .region = region, .first = 3000};
    committer_main(&forwarded); // at a backup
    assert_int_equal(forwarded.count, WORDS);
    words_check(forwarded.node, &forwarded);
    machine_stop(&bed->machines[gone]);
    struct committer after = {.node = led_await(bed), .region = region, .first = 2000};
    committer_main(&after);
    assert_int_equal(after.count, WORDS);

    machine_start(bed, gone);
    (void)led_await(bed);
    words_check(bed->machines[gone].node, &after);
    words_check(bed->machines[gone].node, &committers[0]);
    assert_true(atomic_load(&bed->events) > 0);
    bed_free(bed);
}

// What is under way when a node closes is answered; nobody waits for peers.
static void test_close_under_way(void **state) {
    struct bed *bed = bed_make(*state);
    struct node *primary = led_await(bed);
    struct committer committer = {.node = primary, .region = region_create(primary, "words", 1 << 20)};
    struct reply session = session_open(primary);
    uint32_t place = 0;
    while (bed->machines[place].node != primary) {
        place++;
    }
    for (uint32_t i = 1; i < NODES; i++) { // nobody acknowledges any more
        machine_stop(&bed->machines[(place + i) % NODES]);
    }
    struct word_commit commit = word_commit(primary, &session, 1, committer.region, 0, 7);
    struct reply reply = {0};
    shelf_result result = node_call(primary, &commit, sizeof(commit), 50, &reply);
    assert_true(result == SHELF_UNKNOWN || result == SHELF_TIMEOUT ||
                (result == SHELF_OK && reply.result != SHELF_OK));
    bed_free(bed);
}

static void test_info(void **state) {
    struct bed *bed = bed_make(*state);
    struct node *primary = led_await(bed);
    struct shelf_cluster_info info;
    for (int ms = 0;; ms++) { // until all have acknowledged what there is, and are connected
        assert_true(ms < PATIENCE_MS);
        assert_true(node_cluster_info(primary, &info));
        uint32_t good = 0;
        for (uint32_t i = 0; i < info.node_count; i++) {
            good += info.nodes[i].connected && info.nodes[i].known && info.nodes[i].behind_records == 0 &&
                    info.nodes[i].part != SHELF_PART_LEARNER;
        }
        if (good == NODES) {
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_string_equal(info.name, "test");
    assert_true(info.serves && info.part == SHELF_PART_PRIMARY && info.primary == info.node);
    assert_int_equal(info.node_count, NODES);
    assert_int_equal(info.in_sync, NODES);
    assert_true(info.coordinator_reachable && !info.coordinator_refused);
    for (uint32_t i = 1; i < NODES; i++) {
        assert_true(info.nodes[i].node > info.nodes[i - 1].node);
    }
    bed_free(bed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_commit_takeover_return, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_close_under_way, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_info, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
