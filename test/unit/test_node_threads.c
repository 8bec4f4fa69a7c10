// SPDX-License-Identifier: Apache-2.0
//
// Many threads at one node: commits, asynchronous ones, regions that come and go, checkpoints, and deadlines so short that
// some are missed. Each commit that was acknowledged is there, and none twice.

#include <pthread.h>

#include "node_fixture.h"

enum { THREADS = 8, COMMITS = 150, ASYNC = 600, REGIONS = 12, CHECKPOINTS = 4 };

struct crowd {
    struct node *node;
    uint32_t region;
    _Atomic uint32_t next;
    _Atomic uint32_t async_done;
};

// Writes 1, 2, 3, ... into its own word.
static void *committer(void *context) {
    struct crowd *crowd = context;
    uint64_t place = atomic_fetch_add(&crowd->next, 1);
    struct reply session = session_open(crowd->node);
    for (uint64_t i = 1; i <= COMMITS; i++) {
        struct word_commit commit = word_commit(crowd->node, &session, i, crowd->region, place * 64, i);
        struct reply reply;
        assert_int_equal(node_call(crowd->node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
        assert_int_equal(reply.result, SHELF_OK);
        assert_int_equal(word_read(crowd->node, crowd->region, place * 64), i);
    }
    return NULL;
}

// The same with next to no time: what timed out had no effect; what is unknown is asked for.
static void *hasty(void *context) {
    struct crowd *crowd = context;
    uint64_t place = atomic_fetch_add(&crowd->next, 1);
    struct reply session = session_open(crowd->node), reply;
    for (uint64_t i = 1; i <= COMMITS; i++) {
        struct word_commit commit = word_commit(crowd->node, &session, i, crowd->region, place * 64, i);
        shelf_result result = node_call(crowd->node, &commit, sizeof(commit), 0, &reply);
        if (result == SHELF_UNKNOWN) {
            struct session_request outcome = {
                .header = {.size = sizeof(outcome), .kind = REQUEST_SESSION_OUTCOME},
                .session = session.session,
                .holder = session.holder,
                .sequence = i};
            assert_int_equal(node_call(crowd->node, &outcome, sizeof(outcome), DEADLINE_MS, &reply),
                             SHELF_OK);
            result = (shelf_result)reply.result;
            assert_int_equal(result, SHELF_OK); // it was admitted before it was asked for
        }
        uint64_t seen = word_read(crowd->node, crowd->region, place * 64);
        if (result == SHELF_OK) {
            assert_int_equal(seen, i);
        } else {
            assert_int_equal(result, SHELF_TIMEOUT);
            assert_true(seen < i);
        }
    }
    return NULL;
}

struct crowd_post {
    struct node_request request;
    struct word_commit commit;
    struct crowd *crowd;
};

static void crowd_post_done(struct node_request *first) {
    struct crowd *crowd = ((struct crowd_post *)(void *)first)->crowd;
    uint32_t count = 0;
    for (const struct node_request *request = first; request; request = request->next) {
        assert_ptr_equal(((const struct crowd_post *)(const void *)request)->crowd, crowd);
        count++;
    }
    atomic_fetch_add(&crowd->async_done, count);
    futex_wake(&crowd->async_done, 1);
}

static void *poster(void *context) {
    struct crowd *crowd = context;
    uint64_t place = atomic_fetch_add(&crowd->next, 1);
    struct reply session = session_open(crowd->node);
    struct crowd_post *posts = calloc(ASYNC, sizeof(*posts));
    assert_non_null(posts);
    for (uint64_t i = 0; i < ASYNC; i++) {
        posts[i].crowd = crowd;
        posts[i].commit = word_commit(crowd->node, &session, i + 1, crowd->region, place * 64, i + 1);
        posts[i].request = (struct node_request){
            .bytes = &posts[i].commit, .size = sizeof(posts[i].commit), .done = crowd_post_done};
        node_post(crowd->node, &posts[i].request);
    }
    for (uint32_t seen; (seen = atomic_load(&crowd->async_done)) < ASYNC;) {
        futex_wait(&crowd->async_done, seen, UINT64_MAX);
    }
    for (uint64_t i = 0; i < ASYNC; i++) {
        assert_int_equal(posts[i].request.reply.result, SHELF_OK);
    }
    assert_int_equal(word_read(crowd->node, crowd->region, place * 64), ASYNC);
    free(posts);
    return NULL;
}

static void *region_maker(void *context) {
    struct crowd *crowd = context;
    for (int i = 0; i < REGIONS; i++) {
        char name[32];
        snprintf(name, sizeof(name), "region %p %d", (void *)&name, i);
        struct region_request request = {.header = {.size = sizeof(request), .kind = REQUEST_REGION_DROP},
                                         .region = region_create(crowd->node, name, 8192)};
        struct reply reply;
        assert_int_equal(node_call(crowd->node, &request, sizeof(request), DEADLINE_MS, &reply), SHELF_OK);
        assert_int_equal(reply.result, SHELF_OK);
    }
    return NULL;
}

static void *checkpointer(void *context) {
    struct crowd *crowd = context;
    for (int i = 0; i < CHECKPOINTS; i++) {
        uint64_t before = atomic_load(&node_replica(crowd->node)->image->applied), index = 0;
        assert_int_equal(node_checkpoint(crowd->node, &index), SHELF_OK);
        assert_true(index >= before);
    }
    return NULL;
}

static void crowd_check(struct fixture *fixture, shelf_backend backend) {
    struct crowd crowd = {.node = node_make(fixture, backend)};
    if (!crowd.node) {
        skip();
        return;
    }
    crowd.region = region_create(crowd.node, "words", 1 << 20);
    void *(*const others[])(void *) = {poster, hasty, hasty, region_maker, region_maker, checkpointer};
    enum { OTHERS = sizeof(others) / sizeof(others[0]) };
    pthread_t threads[THREADS + OTHERS];
    for (size_t i = 0; i < THREADS + OTHERS; i++) {
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < THREADS ? committer : others[i - THREADS], &crowd), 0);
    }
    for (size_t i = 0; i < THREADS + OTHERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    uint64_t before[THREADS + 3];
    for (uint64_t place = 0; place < THREADS + 3; place++) {
        before[place] = word_read(crowd.node, crowd.region, place * 64);
    }
    assert_int_equal(node_region_list(crowd.node, NULL, 0), 1);
    assert_int_equal(node_close(crowd.node), SHELF_OK);
    crowd.node = node_make(fixture, backend);
    for (uint64_t place = 0; place < THREADS + 3; place++) {
        assert_int_equal(word_read(crowd.node, crowd.region, place * 64), before[place]);
    }
    assert_int_equal(node_close(crowd.node), SHELF_OK);
}

struct asker {
    struct node *node;
    pthread_barrier_t *barrier;
};

static void *asker(void *context) {
    const struct asker *asker = context;
    for (int i = 0; i < 3; i++) {
        uint64_t before = atomic_load(&node_replica(asker->node)->image->applied), index = 0;
        (void)pthread_barrier_wait(asker->barrier);
        assert_int_equal(node_checkpoint(asker->node, &index), SHELF_OK);
        assert_true(index >= before);
    }
    return NULL;
}

// More than the core remembers at a time.
static void test_many_ask_for_a_checkpoint(void **state) {
    enum { ASKERS = 150 };
    pthread_barrier_t barrier;
    pthread_t threads[ASKERS];
    struct asker context = {.node = node_make(*state, SHELF_BACKEND_PLAIN), .barrier = &barrier};
    (void)region_create(context.node, "words", 1 << 20);
    assert_int_equal(pthread_barrier_init(&barrier, NULL, ASKERS), 0);
    for (size_t i = 0; i < ASKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, asker, &context), 0);
    }
    for (size_t i = 0; i < ASKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    pthread_barrier_destroy(&barrier);
    assert_int_equal(node_close(context.node), SHELF_OK);
}

static void test_crowd_plain(void **state) {
    crowd_check(*state, SHELF_BACKEND_PLAIN);
}

static void test_crowd_uring(void **state) {
    crowd_check(*state, SHELF_BACKEND_URING);
}

static void test_crowd_auto(void **state) {
    crowd_check(*state, SHELF_BACKEND_AUTO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_crowd_plain),
        TEST(test_crowd_uring),
        TEST(test_crowd_auto),
        TEST(test_many_ask_for_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
