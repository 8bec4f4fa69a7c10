// SPDX-License-Identifier: Apache-2.0
//
// Clients, committing threads of the node's own process, those who look, and doors that open and close: all at once.

#include "door_fixture.h"

enum { CLIENTS = 4, CALLERS = 2, COMMITS = 150, ROUNDS = 3, REGION_BYTES = 1 << 20 };

struct party {
    struct house *house;
    uint32_t region;
    uint64_t number;
    _Atomic bool over;
};

static void *client_main(void *context) {
    struct party *party = context;
    struct hand hand = hand_open(party->house->fixture->path);
    hand_session(&hand, "");
    for (uint64_t i = 1; i <= COMMITS; i++) {
        if (i % 10 == 0) { // several under way
            for (uint64_t k = 0; k < 5; k++) {
                struct word_commit commit = hand_word(&hand, party->region, 4096 + 64 * k, i);
                hand_submit(&hand, k, &commit, sizeof(commit));
            }
            for (uint64_t k = 0; k < 5; k++) {
                HAND_ASSERT(hand_reply(&hand).result == SHELF_OK);
            }
        }
        HAND_ASSERT(hand_commit(&hand, party->region, 64 * party->number, i).result == SHELF_OK);
    }
    if (party->number % 2 == 0) {
        struct door_info info;
        int fds[REGION_FILES];
        hand_ask(&hand, DOOR_INFO, 0, "", &info, sizeof(info), fds);
        HAND_ASSERT(info.info.commits >= COMMITS);
    }
    hand_close(&hand);
    return NULL;
}

static void *caller_main(void *context) {
    struct party *party = context;
    struct reply session = session_open(party->house->node), reply;
    for (uint64_t i = 1; i <= COMMITS; i++) {
        struct word_commit commit =
            word_commit(party->house->node, &session, i, party->region, 64 * party->number, i);
        HAND_ASSERT(node_call(party->house->node, &commit, sizeof(commit), DEADLINE_MS, &reply) == SHELF_OK);
        HAND_ASSERT(reply.result == SHELF_OK);
    }
    return NULL;
}

static void *looker_main(void *context) {
    struct party *party = context;
    while (!atomic_load(&party->over)) {
        struct shelf_client_info infos[CLIENTS];
        struct shelf_region_info region;
        HAND_ASSERT(door_clients(party->house->door, 0, infos, CLIENTS) <= CLIENTS);
        HAND_ASSERT(node_region_get(party->house->node, party->region, &region));
        node_waiters_add(party->house->node, 1);
        sched_yield();
        node_waiters_add(party->house->node, -1);
        usleep(500);
    }
    return NULL;
}

static void test_all_at_once(void **state) {
    struct house *house = *state;
    uint32_t region = region_create(house->node, "r", REGION_BYTES);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[CLIENTS + CALLERS + 1];
        struct party parties[CLIENTS + CALLERS + 1];
        for (uint64_t i = 0; i < ARRAY_COUNT(threads); i++) {
            parties[i] = (struct party){.house = house, .region = region, .number = i};
            assert_int_equal(pthread_create(&threads[i], NULL,
                                            i < CLIENTS             ? client_main
                                            : i < CLIENTS + CALLERS ? caller_main
                                                                    : looker_main,
                                            &parties[i]),
                             0);
        }
        for (uint64_t i = 0; i < CLIENTS + CALLERS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(word_read(house->node, region, 64 * i), COMMITS);
        }
        atomic_store(&parties[CLIENTS + CALLERS].over, true);
        pthread_join(threads[CLIENTS + CALLERS], NULL);
        house_close(house);
        house_open(house, (struct door_options){0});
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_at_once, house_setup, house_teardown),
    };
    return cmocka_run_group_tests_name("door-threads", tests, NULL, NULL);
}
