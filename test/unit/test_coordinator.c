// SPDX-License-Identifier: Apache-2.0
//
// What every coordinator promises (core/coordinator.h, A1 to A7): the same tests for etcd (a real one), for files, and for the
// simulator's.

#include "coordinator_fixture.h"

static void bed_for(void **state, struct bed *bed, uint32_t nodes) {
    bed_make(bed, *state, nodes);
}

// ---- Get, swap, remove

static void test_get_of_nothing(void **state) {
    struct bed bed;
    struct register_state found;
    bed_for(state, &bed, 1);
    get_state(&bed, 0, group_0, &found);
    assert_int_equal(found.revision, 0);
    get_state(&bed, 0, node_7, &found);
    assert_int_equal(found.revision, 0);
    bed_free(&bed);
}

static void test_swap_makes_changes_and_loses(void **state) {
    struct bed bed;
    struct register_state found;
    struct coordinator_ask ask;
    bed_for(state, &bed, 2);
    uint64_t first = swap_won(&bed, 0, group_0, 0, "one");
    get_state(&bed, 1, group_0, &found);
    assert_true(found.revision == first && state_is(&found, "one"));

    swap_make(&ask, group_0, 0, "other"); // it exists already
    assert_int_equal(ask_do(&bed, 1, &ask), COORDINATOR_LOST);
    assert_true(ask.state.revision == first && state_is(&ask.state, "one"));

    uint64_t second = swap_won(&bed, 1, group_0, first, "two");
    swap_make(&ask, group_0, first, "three"); // from an old state
    assert_int_equal(ask_do(&bed, 0, &ask), COORDINATOR_LOST);
    assert_true(ask.state.revision == second && state_is(&ask.state, "two"));
    swap_make(&ask, group_0, second + 1000, "three"); // from one that is not known to anybody
    assert_int_equal(ask_do(&bed, 0, &ask), COORDINATOR_LOST);
    get_state(&bed, 0, group_0, &found);
    assert_true(found.revision == second && state_is(&found, "two"));
    bed_free(&bed);
}

static void test_values_of_all_sizes_and_bytes(void **state) {
    static const uint32_t sizes[] = {1, 2, 3, 255, 256, 1000, REGISTER_VALUE_MAX - 1, REGISTER_VALUE_MAX};
    struct bed bed;
    struct register_state found;
    uint64_t revision = 0;
    bed_for(state, &bed, 1);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct coordinator_ask ask = {
            .act = COORDINATOR_SWAP, .id = group_0, .expected = revision, .size = sizes[i]};
        random_fill(&bed.random, ask.value, sizes[i]);
        assert_int_equal(ask_do(&bed, 0, &ask), COORDINATOR_OK);
        revision = ask.state.revision;
        get_state(&bed, 0, group_0, &found);
        assert_int_equal(found.size, sizes[i]);
        assert_memory_equal(found.value, ask.value, sizes[i]);
    }
    bed_free(&bed);
}

static void test_what_is_not_allowed_is_refused(void **state) {
    struct bed bed;
    struct register_state found;
    bed_for(state, &bed, 1);
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    struct coordinator_ask wrong[] = {
        {.act = COORDINATOR_SWAP, .id = group_0, .expected = revision, .size = REGISTER_VALUE_MAX + 1},
        {.act = COORDINATOR_SWAP, .id = group_0, .expected = revision, .size = UINT32_MAX},
        {.act = COORDINATOR_SWAP, .id = group_0, .expected = revision, .size = 0},
        {.act = COORDINATOR_REMOVE, .id = group_0, .expected = revision},
        {.act = COORDINATOR_REMOVE, .id = node_7, .expected = 0},
        {.act = COORDINATOR_GET, .id = {99, 0}},
        {.act = 99, .id = group_0},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(ask_do(&bed, 0, &wrong[i]), COORDINATOR_REFUSED);
    }
    get_state(&bed, 0, group_0, &found);
    assert_true(found.revision == revision && state_is(&found, "one"));
    bed_free(&bed);
}

static void test_nodes_come_and_go(void **state) {
    struct bed bed;
    struct register_state found;
    bed_for(state, &bed, 2);
    uint64_t first = swap_won(&bed, 0, node_7, 0, "10.0.0.7:7000");
    struct coordinator_ask remove = {.act = COORDINATOR_REMOVE, .id = node_7, .expected = first + 1000};
    assert_int_equal(ask_do(&bed, 1, &remove), COORDINATOR_LOST);
    assert_true(remove.state.revision == first && state_is(&remove.state, "10.0.0.7:7000"));
    remove = (struct coordinator_ask){.act = COORDINATOR_REMOVE, .id = node_7, .expected = first};
    assert_int_equal(ask_do(&bed, 1, &remove), COORDINATOR_OK);
    assert_int_equal(remove.state.revision, 0);
    get_state(&bed, 0, node_7, &found);
    assert_int_equal(found.revision, 0);
    assert_int_equal(ask_do(&bed, 1, &remove), COORDINATOR_LOST); // it is not there any more
    uint64_t second = swap_won(&bed, 0, node_7, 0, "10.0.0.8:7000");
    assert_true(second > first);
    bed_free(&bed);
}

static void test_registers_are_apart(void **state) {
    static const struct register_id ids[] = {{REGISTER_CONFIGURATION, 0},  {REGISTER_CONFIGURATION, 1},
                                             {REGISTER_CONFIGURATION, 10}, {REGISTER_NODE, 0},
                                             {REGISTER_NODE, 1},           {REGISTER_NODE, UINT64_MAX}};
    struct bed bed;
    bed_for(state, &bed, 1);
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        char value[32];
        snprintf(value, sizeof(value), "value %zu", i);
        (void)swap_won(&bed, 0, ids[i], 0, value);
    }
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        struct register_state found;
        char value[32];
        snprintf(value, sizeof(value), "value %zu", i);
        get_state(&bed, 0, ids[i], &found);
        assert_true(state_is(&found, value));
    }
    bed_free(&bed);
}

// ---- Races

// All start at once, from the same revision; exactly one wins, and all others hear of it.
static void test_one_of_racing_swappers_wins(void **state) {
    struct bed bed;
    uint64_t revision = 0;
    bed_for(state, &bed, NODES_MAX);
    int rounds = bed.kind == &kind_etcd ? 25 : 100;
    for (int round = 0; round < rounds; round++) {
        struct coordinator_ask asks[NODES_MAX];
        uint32_t winner = NODES_MAX;
        file_cut_set(&bed, 0, bed.kind == &kind_file); // a starting line
        for (uint32_t i = 0; i < NODES_MAX; i++) {
            char value[32];
            snprintf(value, sizeof(value), "round %d node %u", round, i);
            swap_make(&asks[i], group_0, revision, value);
            ask_begin(&bed, i, &asks[i]);
        }
        file_cut_set(&bed, 0, false);
        for (uint32_t i = 0; i < NODES_MAX; i++) {
            ask_finish(&bed, i, &asks[i]);
            if (asks[i].outcome == COORDINATOR_OK) {
                assert_int_equal(winner, NODES_MAX);
                winner = i;
            } else {
                assert_int_equal(asks[i].outcome, COORDINATOR_LOST);
            }
        }
        assert_true(winner < NODES_MAX);
        for (uint32_t i = 0; i < NODES_MAX; i++) {
            assert_int_equal(asks[i].state.revision, asks[winner].state.revision);
            assert_int_equal(asks[i].state.size, asks[winner].size);
            assert_memory_equal(asks[i].state.value, asks[winner].value, asks[winner].size);
        }
        revision = asks[winner].state.revision;
    }
    bed_free(&bed);
}

// Many asks of one node at once: each is answered once.
static void test_many_asks_at_once(void **state) {
    struct bed bed;
    bed_for(state, &bed, 1);
    struct coordinator_ask *asks = calloc(100, sizeof(*asks));
    assert_non_null(asks);
    for (uint64_t i = 0; i < 100; i++) {
        char value[32];
        snprintf(value, sizeof(value), "%u", (unsigned)i);
        swap_make(&asks[i], (struct register_id){REGISTER_NODE, i % 10}, 0, value);
        ask_begin(&bed, 0, &asks[i]);
    }
    uint32_t won = 0;
    for (int i = 0; i < 100; i++) {
        struct coordinator_ask *taken = NULL;
        BED_UNTIL(&bed, 0, (taken = ask_take(&bed, 0)) != NULL);
        assert_true(taken >= asks && taken < asks + 100 && taken->act == COORDINATOR_SWAP);
        taken->act = 0; // not twice
        won += taken->outcome == COORDINATOR_OK;
        assert_true(taken->outcome == COORDINATOR_OK || taken->outcome == COORDINATOR_LOST);
    }
    assert_int_equal(won, 10);
    assert_null(ask_take(&bed, 0));
    free(asks);
    bed_free(&bed);
}

// ---- News

// What a node has been told.
struct told {
    bool complete;
    struct register_state group, node;
    uint32_t count;
};

static void told_update(struct bed *bed, uint32_t node, struct told *told) {
    struct coordinator_news news;
    while (news_take(bed, node, &news)) {
        told->count++;
        if (news.kind == NEWS_COMPLETE) {
            assert_false(told->complete);
            told->complete = true;
        } else if (register_id_same(news.id, group_0)) {
            assert_true(news.state.revision > told->group.revision);
            told->group = news.state;
        } else if (register_id_same(news.id, node_7)) {
            told->node = news.state;
        } else {
            fail_msg("news of a register that nobody has made");
        }
    }
}

static bool told_group(struct bed *bed, uint32_t node, struct told *told, uint64_t revision,
                       const char *value) {
    told_update(bed, node, told);
    assert_true(told->group.revision <= revision);
    return told->group.revision == revision && state_is(&told->group, value);
}

static bool told_node(struct bed *bed, uint32_t node, struct told *told, uint64_t revision) {
    told_update(bed, node, told);
    return told->node.revision == revision;
}

static bool told_complete(struct bed *bed, uint32_t node, struct told *told) {
    told_update(bed, node, told);
    return told->complete;
}

static void test_news_of_what_there_is_then_complete(void **state) {
    struct bed bed;
    struct told told[2] = {0};
    bed_for(state, &bed, 1);
    BED_UNTIL(&bed, 0, told_complete(&bed, 0, &told[0]));
    assert_int_equal(told[0].count, 1); // there was nothing
    uint64_t revision = swap_won(&bed, 0, group_0, 0, "one");
    uint64_t revision_node = swap_won(&bed, 0, node_7, 0, "address");
    node_open(&bed, 1);
    BED_UNTIL(&bed, 1, told_complete(&bed, 1, &told[1]));
    assert_int_equal(told[1].count, 3);
    assert_int_equal(told[1].group.revision, revision);
    assert_int_equal(told[1].node.revision, revision_node);
    bed_free(&bed);
}

static void test_news_of_each_change_or_the_latest(void **state) {
    struct bed bed;
    struct told told[3] = {0};
    uint64_t revision = 0;
    bed_for(state, &bed, 3);
    for (int i = 0; i < 20; i++) {
        char value[32];
        snprintf(value, sizeof(value), "state %d", i);
        revision = swap_won(&bed, (uint32_t)i % 2, group_0, revision, value);
        if (i % 3 == 0) { // waits for it; in between it may miss some
            BED_UNTIL(&bed, 2, told_group(&bed, 2, &told[2], revision, value));
        }
    }
    for (uint32_t i = 0; i < 3; i++) { // the swapper itself, too
        BED_UNTIL(&bed, i, told_group(&bed, i, &told[i], revision, "state 19"));
    }
    bed_free(&bed);
}

static void test_news_of_a_removal(void **state) {
    struct bed bed;
    struct told told = {0};
    bed_for(state, &bed, 2);
    for (int i = 0; i < 5; i++) {
        uint64_t revision = swap_won(&bed, 0, node_7, 0, "address");
        BED_UNTIL(&bed, 1, told_node(&bed, 1, &told, revision));
        struct coordinator_ask remove = {.act = COORDINATOR_REMOVE, .id = node_7, .expected = revision};
        assert_int_equal(ask_do(&bed, 0, &remove), COORDINATOR_OK);
        BED_UNTIL(&bed, 1, told_node(&bed, 1, &told, 0));
    }
    bed_free(&bed);
}

// ---- Faults

static bool is_failure(uint32_t outcome, bool swap) {
    return outcome == COORDINATOR_UNAVAILABLE || (swap && outcome == COORDINATOR_UNKNOWN);
}

static void test_unreachable_says_so_and_comes_back(void **state) {
    struct bed bed;
    struct told told = {0};
    struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0}, swap;
    bed_make(&bed, *state, 0);
    node_open(&bed, 0);
    bed.timeout_ms =
        bed.kind == &kind_file ? 300 : bed.timeout_ms; // so long its asks take while it is locked out
    node_open(&bed, 1);
    uint64_t first = swap_won(&bed, 0, group_0, 0, "one");
    BED_UNTIL(&bed, 1, told_group(&bed, 1, &told, first, "one"));
    BED_UNTIL(&bed, 1, bed_reachable(&bed, 1));
    for (int i = 0; i < 3; i++) {
        bed.kind->cut_set(&bed, 1, true);
        assert_true(is_failure(ask_do(&bed, 1, &get), false));
        swap_make(&swap, node_7, 0, "never");
        assert_true(is_failure(ask_do(&bed, 1, &swap), true));
        BED_UNTIL(&bed, 1, !bed_reachable(&bed, 1));
        assert_false(bed_refused(&bed, 1));
        if (bed.kind != &kind_file) { // others go on, and it hears of that later
            first = swap_won(&bed, 0, group_0, first, "next");
        }
        bed.kind->cut_set(&bed, 1, false);
        if (bed.kind == &kind_file) {
            first = swap_won(&bed, 0, group_0, first, "next");
        }
        BED_UNTIL(&bed, 1, told_group(&bed, 1, &told, first, "next"));
        BED_UNTIL(&bed, 1, bed_reachable(&bed, 1));
        struct register_state found;
        get_state(&bed, 1, group_0, &found);
        assert_int_equal(found.revision, first);
    }
    bed_free(&bed);
}

// Something goes wrong with this node's way, or all is well again.
static void fault_change(struct bed *bed, uint32_t node, bool heal) {
    uint64_t dice = heal ? 0 : random_below(&bed->random, 6);
    if (bed->kind == &kind_etcd) {
        static const int modes[] = {PROXY_PASS,       PROXY_PASS,        PROXY_REFUSE,
                                    PROXY_CUT_ANSWER, PROXY_CUT_REQUEST, PROXY_CUT_ANSWER};
        atomic_store(&bed->proxies[node]->mode, modes[dice]);
    } else if (bed->kind == &kind_file) {
        if (node == 0) { // one lock for all
            file_cut_set(bed, node, dice == 5);
        }
    } else {
        const struct sim_coordinator_plan bad = {.request_lost = 150, .answer_lost = 150, .late = 150};
        const struct sim_coordinator_plan good = {0};
        sim_coordinator_plan_set(bed->sim, dice >= 2 ? &bad : &good);
        sim_coordinator_cut_set(bed->sim, node, dice == 5);
    }
}

// Rule C3: a swap of unknown outcome is repeated until the register has moved on; then what it says counts. Several nodes do so
// at once over a bad way, for many epochs. Each epoch must have one owner, whom all agree on, and no swap may come
// through that its sender has seen lose to another one.
static void test_unknown_outcomes_settle_by_repeating(void **state) {
    enum { EPOCHS = 16, EPOCHS_MAX = 1000 }; // more until all has been seen that matters
    struct bed bed;
    bed_make(&bed, *state, 0);
    bed.timeout_ms = bed.kind == &kind_file ? 20 : bed.timeout_ms; // every fault of a file is one
    for (uint32_t i = 0; i < 3; i++) {
        node_open(&bed, i);
    }
    struct {
        struct coordinator_ask ask;
        uint64_t expected; // of the ask under way
        uint32_t epoch;    // that it goes for
        bool repeats;
    } swappers[3] = {0};
    uint64_t revisions[EPOCHS_MAX + 2] = {0};
    uint32_t owners[EPOCHS_MAX + 2] = {0}, won[EPOCHS_MAX + 2] = {0}, repeated = 0, late_wins = 0;
    for (uint32_t i = 0; i < 3; i++) {
        swappers[i].epoch = 1;
    }
    uint32_t last_epoch = 0;
    bool enough = false;
    while (!enough) {
        for (uint32_t i = 0; i < 3; i++) {
            char value[64];
            fault_change(&bed, i, false);
            snprintf(value, sizeof(value), "epoch %u owner %u", swappers[i].epoch, i);
            swap_make(&swappers[i].ask, group_0, swappers[i].expected, value);
            ask_begin(&bed, i, &swappers[i].ask);
        }
        for (uint32_t i = 0; i < 3; i++) {
            struct coordinator_ask *ask = &swappers[i].ask;
            ask_finish(&bed, i, ask);
            assert_int_not_equal(ask->outcome, COORDINATOR_REFUSED);
            if (ask->outcome != COORDINATOR_OK && ask->outcome != COORDINATOR_LOST) {
                repeated++;
                swappers[i].repeats |= ask->outcome == COORDINATOR_UNKNOWN;
                continue; // again, the same
            }
            unsigned epoch = 0, owner = 99;
            char text[REGISTER_VALUE_MAX + 1];
            memcpy(text, ask->state.value, ask->state.size);
            text[ask->state.size] = 0;
            assert_int_equal(sscanf(text, "epoch %u owner %u", &epoch, &owner), 2);
            assert_true(epoch >= swappers[i].epoch && epoch <= EPOCHS_MAX && owner < 3);
            assert_true(revisions[epoch] == 0 ||
                        (revisions[epoch] == ask->state.revision && owners[epoch] == owner));
            revisions[epoch] = ask->state.revision;
            owners[epoch] = owner;
            if (ask->outcome == COORDINATOR_OK) {
                assert_true(epoch == swappers[i].epoch && owner == i && won[epoch] == 0);
                won[epoch]++;
            } else if (epoch == swappers[i].epoch && owner == i) {
                assert_true(swappers[i].repeats || bed.kind == &kind_etcd); // its own, from before
                late_wins++;
            }
            last_epoch = epoch > last_epoch ? epoch : last_epoch;
            swappers[i].epoch = epoch + 1;
            swappers[i].expected = ask->state.revision;
            swappers[i].repeats = false;
        }
        enough = last_epoch >= EPOCHS && repeated > 0 && (late_wins > 0 || bed.kind == &kind_file);
        assert_true(last_epoch < EPOCHS_MAX);
    }
    for (uint32_t i = 0; i < 3; i++) {
        fault_change(&bed, i, true);
    }
    struct register_state found;
    get_state(&bed, 0, group_0, &found);
    assert_true(found.revision >= revisions[last_epoch]);
    for (uint32_t epoch = 2, last = 1; epoch <= last_epoch; epoch++) { // they were seen in their order
        if (revisions[epoch] != 0) {
            assert_true(revisions[epoch] > revisions[last]);
            last = epoch;
        }
    }
    bed_free(&bed);
}

// ---- Gone back

static void test_restored_from_a_backup_is_refused(void **state) {
    struct bed bed;
    struct register_state found;
    struct coordinator_ask get = {.act = COORDINATOR_GET, .id = group_0}, swap;
    bed_for(state, &bed, 2);
    uint64_t first = swap_won(&bed, 0, group_0, 0, "one");
    bed.kind->backup(&bed);
    uint64_t second = swap_won(&bed, 0, group_0, first, "two");
    BED_UNTIL(&bed, 1, (get_state(&bed, 1, group_0, &found), found.revision == second));
    bed.kind->restore(&bed);
    for (uint32_t i = 0; i < 2; i++) { // both, though only one has made the change
        BED_UNTIL(&bed, i, ask_do(&bed, i, &get) == COORDINATOR_REFUSED);
        BED_UNTIL(&bed, i, bed_refused(&bed, i));
    }
    swap_make(&swap, group_0, second, "three");
    assert_int_equal(ask_do(&bed, 0, &swap), COORDINATOR_REFUSED);
    if (bed.kind != &kind_sim) {
        struct coordinator_status status;
        coordinator_status_get(bed.coordinators[1], &status);
        assert_false(status.reachable);
        assert_non_null(strstr(status.text, "has gone back"));
    }
    if (bed.kind->remembers) { // after a restart as well
        node_close(&bed, 1);
        node_open(&bed, 1);
        BED_UNTIL(&bed, 1, ask_do(&bed, 1, &get) != COORDINATOR_UNAVAILABLE);
        assert_int_equal(get.outcome, COORDINATOR_REFUSED);
    }
    // Who knows no better believes it; the history that then begins is recognised as another one.
    node_open(&bed, 3);
    for (uint64_t revision = first; revision <= second + 3;) {
        revision = swap_won(&bed, 3, group_0, revision, "other");
        BED_UNTIL(&bed, 0, ask_do(&bed, 0, &get) != COORDINATOR_UNAVAILABLE);
        // (With more changes than were ever seen it looks like what came after; coordinator.h says so.)
        assert_true(get.outcome == COORDINATOR_REFUSED || revision > second);
    }
    bed_free(&bed);
}

#define CONFORMANCE(function, kind) \
    { #function " (" #kind ")", function, NULL, NULL, &kind_##kind }
#define CONFORMANCES(function) \
    CONFORMANCE(function, sim), CONFORMANCE(function, file), CONFORMANCE(function, etcd)

int main(void) {
    const struct CMUnitTest tests[] = {
        CONFORMANCES(test_get_of_nothing),
        CONFORMANCES(test_swap_makes_changes_and_loses),
        CONFORMANCES(test_values_of_all_sizes_and_bytes),
        CONFORMANCES(test_what_is_not_allowed_is_refused),
        CONFORMANCES(test_nodes_come_and_go),
        CONFORMANCES(test_registers_are_apart),
        CONFORMANCES(test_one_of_racing_swappers_wins),
        CONFORMANCES(test_many_asks_at_once),
        CONFORMANCES(test_news_of_what_there_is_then_complete),
        CONFORMANCES(test_news_of_each_change_or_the_latest),
        CONFORMANCES(test_news_of_a_removal),
        CONFORMANCES(test_unreachable_says_so_and_comes_back),
        CONFORMANCES(test_unknown_outcomes_settle_by_repeating),
        CONFORMANCES(test_restored_from_a_backup_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, shared_server_end);
}
