// SPDX-License-Identifier: Apache-2.0
//
// The node from below: its life, what happens to requests when time is over, the core has no room, or the disk fails.

#include "node_fixture.h"

static void test_open_refusals_say_why(void **state) {
    struct fixture *fixture = *state;
    struct shelf_options options = node_options(SHELF_BACKEND_AUTO);
    struct node *node = NULL, *second = NULL;
    options.flags = 0;
    assert_int_equal(node_open(fixture->path, &options, &node), SHELF_NOT_FOUND);
    assert_non_null(strstr(shelf_detail(), fixture->path));
    node = node_make(fixture, SHELF_BACKEND_AUTO);
    assert_int_equal(node_open(fixture->path, &options, &second), SHELF_BUSY);
    assert_non_null(strstr(shelf_detail(), "in use by process"));
    assert_int_equal(node_close(node), SHELF_OK);
    options.flags = SHELF_OPEN_CREATE | SHELF_OPEN_EXCLUSIVE;
    assert_int_equal(node_open(fixture->path, &options, &node), SHELF_EXISTS);
    fixture_file_write(fixture, "superblock", "damaged everywhere", 18);
    for (int copy = 1; copy < 4; copy++) {
        char path[600];
        snprintf(path, sizeof(path), "%s/superblock", fixture->path);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, "damaged", 7, copy * 4096), 7);
        close(fd);
    }
    options.flags = 0;
    assert_int_equal(node_open(fixture->path, &options, &node), SHELF_CORRUPT);
    assert_non_null(strstr(shelf_detail(), "superblock"));
}

static void commits_survive(struct fixture *fixture, shelf_backend backend, uint32_t flags) {
    struct shelf_options options = node_options(backend);
    options.flags |= flags;
    struct node *node;
    if (node_open(fixture->path, &options, &node) == SHELF_UNAVAILABLE) {
        skip();
        return;
    }
    struct reply session = session_open(node);
    uint32_t region = region_create(node, "words", 1 << 20);
    for (uint64_t i = 1; i <= 50; i++) {
        struct word_commit commit = word_commit(node, &session, i, region, i * 8, i * i);
        struct reply reply;
        assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
        assert_int_equal(reply.result, SHELF_OK);
        assert_int_equal(word_read(node, region, i * 8), i * i); // visible when it is acknowledged
    }
    uint64_t index = 0;
    assert_int_equal(node_checkpoint(node, &index), SHELF_OK);
    struct shelf_info info;
    node_info(node, &info);
    assert_true(index > 50 && info.checkpoint >= index);
    assert_int_equal(info.state, SHELF_OK);
    assert_true(backend == SHELF_BACKEND_AUTO || info.backend == backend);
    assert_string_equal(node_fault(node), "");
    for (uint64_t i = 51; i <= 60; i++) {
        struct word_commit commit = word_commit(node, &session, i, region, i * 8, i * i);
        struct reply reply;
        assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
        assert_int_equal(reply.result, SHELF_OK);
    }
    assert_int_equal(node_close(node), SHELF_OK);
    assert_int_equal(node_open(fixture->path, &options, &node), SHELF_OK);
    struct shelf_region_info found;
    assert_true(node_region_find(node, "words", &found));
    assert_int_equal(found.region, region);
    assert_true(node_region_get(node, region, &found));
    assert_false(node_region_get(node, region + 1, &found));
    for (uint64_t i = 1; i <= 60; i++) {
        assert_int_equal(word_read(node, region, i * 8), i * i);
    }
    node_info(node, &info);
    assert_int_equal(info.recovered_records > 0, (flags & SHELF_OPEN_NO_CHECKPOINT) != 0);
    assert_int_equal(node_close(node), SHELF_OK);
}

static void test_commits_survive_plain(void **state) {
    commits_survive(*state, SHELF_BACKEND_PLAIN, 0);
}

static void test_commits_survive_uring(void **state) {
    commits_survive(*state, SHELF_BACKEND_URING, 0);
}

static void test_commits_survive_without_checkpoint(void **state) {
    commits_survive(*state, SHELF_BACKEND_AUTO, SHELF_OPEN_NO_CHECKPOINT);
}

struct post {
    struct node_request request;
    struct word_commit commit;
};

static _Atomic uint32_t posts_done;

static void post_done(struct node_request *first) {
    uint32_t count = 0;
    for (const struct node_request *request = first; request; request = request->next) {
        count++;
    }
    atomic_fetch_add(&posts_done, count);
    futex_wake(&posts_done, 1);
}

static void posts_wait(uint32_t count) {
    for (uint32_t seen; (seen = atomic_load(&posts_done)) < count;) {
        futex_wait(&posts_done, seen, UINT64_MAX);
    }
}

// More than the core has room for: those that it refuses are submitted again.
static void posts_check(struct fixture *fixture, shelf_backend backend) {
    struct node *node = node_make(fixture, backend);
    if (!node) {
        skip();
        return;
    }
    enum { COUNT = 20000, WORDS = 1000 };
    struct reply session = session_open(node);
    uint32_t region = region_create(node, "words", 1 << 20);
    struct post *posts = calloc(COUNT, sizeof(*posts));
    assert_non_null(posts);
    atomic_store(&posts_done, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        posts[i].commit = word_commit(node, &session, i + 1, region, i % WORDS * 8, i);
        posts[i].request = (struct node_request){
            .bytes = &posts[i].commit, .size = sizeof(posts[i].commit), .done = post_done};
        node_post(node, &posts[i].request);
    }
    posts_wait(COUNT);
    uint64_t last[WORDS] = {0}, last_index[WORDS] = {0};
    for (uint32_t i = 0; i < COUNT; i++) {
        const struct reply *reply = &posts[i].request.reply;
        assert_int_equal(reply->result, SHELF_OK);
        assert_true(reply->receipt.index >= last_index[i % WORDS]); // one thread's requests keep their order
        last_index[i % WORDS] = reply->receipt.index;
        last[i % WORDS] = i;
    }
    for (uint32_t i = 0; i < WORDS; i++) {
        assert_int_equal(word_read(node, region, i * 8), last[i]);
    }
    struct shelf_info info;
    node_info(node, &info);
    assert_int_equal(info.commits, COUNT);
    assert_true(info.records < COUNT / 4); // in groups
    assert_int_equal(posts_done, COUNT);
    free(posts);
    assert_int_equal(node_close(node), SHELF_OK);
}

static void test_posts_beyond_the_room_plain(void **state) {
    posts_check(*state, SHELF_BACKEND_PLAIN);
}

static void test_posts_beyond_the_room_uring(void **state) {
    posts_check(*state, SHELF_BACKEND_URING);
}

// As if another commit had been refused for want of room. The end of an io (of the background's) would let both try again,
// therefore several attempts.
static void test_deadline_before_admission(void **state) {
    struct node *node = node_make(*state, SHELF_BACKEND_PLAIN);
    struct reply session = session_open(node), reply;
    uint32_t region = region_create(node, "words", 4096);
    uint64_t sequence = 0, written = 0;
    shelf_result result = SHELF_OK;
    for (int attempt = 0; attempt < 100 && result == SHELF_OK; attempt++) {
        sequence++;
        core_enter(node);
        node->refused_commits = 1;
        (void)core_leave(node, NULL);
        struct word_commit commit = word_commit(node, &session, sequence, region, 0, sequence);
        result = node_call(node, &commit, sizeof(commit), 10, &reply);
        written = result == SHELF_OK ? sequence : written;
        core_enter(node);
        assert_null(node->refused.first);
        node->refused_commits = 0;
        (void)core_leave(node, NULL);
    }
    assert_int_equal(result, SHELF_TIMEOUT);
    assert_int_equal(word_read(node, region, 0), written); // it had no effect, and its sequence is free
    struct word_commit commit = word_commit(node, &session, sequence, region, 0, 1000);
    assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
    assert_int_equal(reply.result, SHELF_OK);
    assert_int_equal(word_read(node, region, 0), 1000);
    assert_int_equal(node_close(node), SHELF_OK);
}

struct late {
    struct node *node;
    struct word_commit commit;
    shelf_result result;
};

static void *late_call(void *context) {
    struct late *late = context;
    struct reply reply;
    late->result = node_call(late->node, &late->commit, sizeof(late->commit), 10, &reply);
    return NULL;
}

// The deadline passes while the core is taken. When it is released the request is admitted, and the caller, who wanted the
// lock to withdraw, learns that it is too late for that. (If it had not got round to wanting the lock, it is answered:
// therefore several attempts.) The record is written all the same.
static void test_deadline_after_admission(void **state) {
    struct node *node = node_make(*state, SHELF_BACKEND_PLAIN);
    struct reply session = session_open(node), reply;
    uint32_t region = region_create(node, "words", 4096);
    struct late late = {.node = node, .result = SHELF_OK};
    uint64_t sequence = 0;
    for (int attempt = 0; attempt < 100 && late.result == SHELF_OK; attempt++) {
        sequence++;
        late.commit = word_commit(node, &session, sequence, region, 0, sequence);
        pthread_t thread;
        core_enter(node);
        assert_int_equal(pthread_create(&thread, NULL, late_call, &late), 0);
        uint64_t begin_ns = world_monotonic_ns();
        while (!atomic_load(&node->posted) || atomic_load(&node->lock) != 2 ||
               world_monotonic_ns() - begin_ns < 20000000) { // posted, late, and somebody wants the lock
            sched_yield();
        }
        (void)core_leave(node, NULL);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    assert_int_equal(late.result, SHELF_UNKNOWN);
    struct session_request outcome = {.header = {.size = sizeof(outcome), .kind = REQUEST_SESSION_OUTCOME},
                                      .session = session.session,
                                      .holder = session.holder,
                                      .sequence = sequence};
    assert_int_equal(node_call(node, &outcome, sizeof(outcome), DEADLINE_MS, &reply), SHELF_OK);
    assert_int_equal(reply.result, SHELF_OK);
    assert_int_equal(word_read(node, region, 0), sequence);
    assert_int_equal(node_close(node), SHELF_OK);
}

static void stop_check(struct fixture *fixture, shelf_backend backend) {
    struct node *node = node_make(fixture, backend);
    if (!node) {
        skip();
        return;
    }
    struct reply session = session_open(node), reply;
    uint32_t region = region_create(node, "words", 4096);
    struct word_commit commit = word_commit(node, &session, 1, region, 0, 1);
    assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
    log_prepared_await(node);
    file_break(fixture, "log");
    commit = word_commit(node, &session, 2, region, 0, 2);
    assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_UNKNOWN);
    assert_non_null(strstr(node_fault(node), "cannot write log"));
    assert_int_equal(word_read(node, region, 0), 1); // reads go on
    commit = word_commit(node, &session, 3, region, 0, 3);
    assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
    assert_int_equal(reply.result, SHELF_IO);
    assert_int_equal(reply.reason, REASON_NODE_STOPPED);
    assert_non_null(strstr(node_fault(node), "Bad file descriptor"));
    struct post post = {.commit = commit,
                        .request = {.bytes = &commit, .size = sizeof(commit), .done = post_done}};
    atomic_store(&posts_done, 0);
    node_post(node, &post.request);
    posts_wait(1);
    assert_int_equal(post.request.reply.result, SHELF_IO);
    assert_int_equal(node_checkpoint(node, NULL), SHELF_IO);
    struct shelf_info info;
    node_info(node, &info);
    assert_int_equal(info.state, SHELF_IO);
    assert_int_equal(node_close(node), SHELF_IO);

    node = node_make(fixture, SHELF_BACKEND_PLAIN);
    assert_int_equal(word_read(node, region, 0), 1);
    assert_int_equal(node_close(node), SHELF_OK);
}

// Who asks for a checkpoint on a full disk is told; commits go on; once there is space, it comes to its end by itself.
static void test_checkpoint_on_a_full_disk(void **state) {
    struct fixture *fixture = *state;
    struct node *node = node_make(fixture, SHELF_BACKEND_PLAIN);
    struct reply session = session_open(node), reply;
    uint32_t region = region_create(node, "words", 4096);
    struct word_commit commit;
    uint64_t sequence = 0, index = 0;
    for (; sequence < 2; sequence++) { // each kind of file is in use
        commit = word_commit(node, &session, sequence + 1, region, 0, sequence + 1);
        assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
        assert_int_equal(node_checkpoint(node, &index), SHELF_OK);
    }
    char next[600]; // the blob of roots that was not written last
    struct stat first, second;
    snprintf(next, sizeof(next), "%s/roots.b", fixture->path);
    assert_int_equal(stat(next, &second), 0);
    next[strlen(next) - 1] = 'a';
    assert_int_equal(stat(next, &first), 0);
    if (first.st_mtim.tv_sec > second.st_mtim.tv_sec ||
        (first.st_mtim.tv_sec == second.st_mtim.tv_sec && first.st_mtim.tv_nsec > second.st_mtim.tv_nsec)) {
        next[strlen(next) - 1] = 'b';
    }
    sequence++;
    commit = word_commit(node, &session, sequence, region, 0, sequence);
    assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
    assert_true(file_replace(next, "/dev/full", O_RDWR) > 0);
    assert_int_equal(node_checkpoint(node, NULL), SHELF_NO_SPACE);
    assert_non_null(strstr(shelf_detail(), "the disk is full"));
    sequence++;
    commit = word_commit(node, &session, sequence, region, 0, sequence);
    assert_int_equal(node_call(node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
    assert_int_equal(reply.result, SHELF_OK);
    assert_true(file_replace("/dev/full", next, O_RDWR) > 0);
    struct shelf_info info = {0};
    for (int i = 0; i < DEADLINE_MS && info.checkpoint <= index; i++) {
        usleep(1000);
        node_info(node, &info);
    }
    assert_true(info.checkpoint > index);
    assert_int_equal(node_checkpoint(node, &index), SHELF_OK);
    assert_int_equal(node_close(node), SHELF_OK);
    node = node_make(fixture, SHELF_BACKEND_PLAIN);
    assert_int_equal(word_read(node, region, 0), sequence);
    assert_int_equal(node_close(node), SHELF_OK);
}

static void test_fault_stops_the_node_plain(void **state) {
    stop_check(*state, SHELF_BACKEND_PLAIN);
}

static void test_fault_stops_the_node_uring(void **state) {
    stop_check(*state, SHELF_BACKEND_URING);
}

// Nobody loses an answer when the disk fails under many.
static void test_fault_answers_everybody(void **state) {
    struct fixture *fixture = *state;
    struct node *node = node_make(fixture, SHELF_BACKEND_AUTO);
    enum { COUNT = 6000 };
    struct reply session = session_open(node);
    uint32_t region = region_create(node, "words", 4096);
    struct post *posts = calloc(COUNT, sizeof(*posts));
    assert_non_null(posts);
    atomic_store(&posts_done, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        if (i == COUNT / 2) {
            file_break(fixture, "log");
        }
        posts[i].commit = word_commit(node, &session, i + 1, region, 0, i + 1);
        posts[i].request = (struct node_request){
            .bytes = &posts[i].commit, .size = sizeof(posts[i].commit), .done = post_done};
        node_post(node, &posts[i].request);
    }
    posts_wait(COUNT);
    uint32_t counts[32] = {0};
    uint64_t committed = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t result = posts[i].request.reply.result;
        counts[result]++;
        committed = result == SHELF_OK ? i + 1 : committed;
    }
    assert_int_equal(counts[SHELF_OK] + counts[SHELF_UNKNOWN] + counts[SHELF_IO], COUNT);
    assert_true(counts[SHELF_UNKNOWN] > 0);
    assert_int_equal(counts[SHELF_OK], committed); // the first ones
    assert_int_equal(word_read(node, region, 0), committed);
    free(posts);
    assert_int_equal(node_close(node), SHELF_IO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_open_refusals_say_why),       TEST(test_commits_survive_plain),
        TEST(test_commits_survive_uring),       TEST(test_commits_survive_without_checkpoint),
        TEST(test_posts_beyond_the_room_plain), TEST(test_posts_beyond_the_room_uring),
        TEST(test_deadline_before_admission),   TEST(test_deadline_after_admission),
        TEST(test_fault_stops_the_node_plain),  TEST(test_fault_stops_the_node_uring),
        TEST(test_fault_answers_everybody),     TEST(test_checkpoint_on_a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
