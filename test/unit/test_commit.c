// SPDX-License-Identifier: Apache-2.0
//
// Commits, windows, sessions and completions over a node that is played by this file, so that every answer can be given,
// and every order of answers.

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/handle.h"
#include "door/door.h"
#include "tx_bed.h"

// ---- The node -------------------------------------------------------------------------------------------------------

enum { POSTED_MAX = 4096 };

struct node {
    struct tx_bed *bed;
    uint64_t sessions_opened, sessions_expired;
    uint64_t commits;  // calls and posts
    uint64_t outcomes; // that were asked for
    shelf_result outcome;
    /* What a call gets: by default OK. */
    shelf_result (*answer)(const struct commit_request *request, struct reply *reply);
    uint32_t open_result, open_reason;
    struct shelf_options options;
    bool closed;
    int waiters;
    /* Posted and not answered yet. */
    struct node_request *posted[POSTED_MAX];
    size_t posted_count;
};
static struct node the_node;

shelf_result node_open(const char *path, const struct shelf_options *options, struct node **ret_node) {
    if (strcmp(path, "missing") == 0)
        return SHELF_NOT_FOUND;
    the_node = (struct node){.bed = bed_make(1 << 16), .outcome = SHELF_ABORTED, .options = *options};
    *ret_node = &the_node;
    return SHELF_OK;
}

shelf_result node_close(struct node *node) {
    assert_int_equal(node->posted_count, 0);
    bed_free(node->bed);
    node->closed = true;
    return SHELF_OK;
}

const struct replica *node_replica(const struct node *node) {
    return &node->bed->replica;
}

static void session_answer(struct node *node, struct reply *reply) {
    reply->result = node->open_result;
    reply->reason = node->open_reason;
    if (reply->result == SHELF_OK) {
        reply->session = ++node->sessions_opened;
        reply->holder = 7;
    }
}

static void request_answer(struct node *node, const void *bytes, struct reply *reply) {
    const struct request_header *header = bytes;
    *reply = (struct reply){0};
    if (header->kind == REQUEST_SESSION_OPEN) {
        session_answer(node, reply);
    } else if (header->kind == REQUEST_SESSION_EXPIRE) {
        node->sessions_expired++;
    } else if (header->kind == REQUEST_SESSION_OUTCOME) {
        node->outcomes++;
        reply->result = node->outcome;
        reply->reason = node->outcome == SHELF_ABORTED ? REASON_SEQUENCE_FENCED : REASON_NONE;
        reply->receipt.index = 77;
    } else {
        reply->receipt.index = 100 + node->commits;
        reply->receipt.durability = SHELF_DURABLE_LOCAL;
    }
}

shelf_result node_call(struct node *node, const void *bytes, size_t size, uint32_t deadline_ms,
                       struct reply *ret_reply) {
    const struct commit_request *request = bytes;
    (void)deadline_ms;
    assert_int_equal(request->header.size, size);
    request_answer(node, bytes, ret_reply);
    if (request->header.kind != REQUEST_COMMIT)
        return SHELF_OK;
    node->commits++;
    return node->answer ? node->answer(request, ret_reply) : SHELF_OK;
}

void node_post(struct node *node, struct node_request *request) {
    assert_true(node->posted_count < POSTED_MAX);
    const struct request_header *header = request->bytes;
    assert_int_equal(header->size, request->size);
    node->commits += header->kind == REQUEST_COMMIT;
    node->posted[node->posted_count++] = request;
}

// Answers the posted request at `place`: OK, or with that result and reason.
static void posted_answer(size_t place, shelf_result result, uint32_t reason) {
    struct node_request *request = the_node.posted[place];
    the_node.posted[place] = the_node.posted[--the_node.posted_count];
    request_answer(&the_node, request->bytes, &request->reply);
    if (result != SHELF_OK) {
        request->reply.result = result;
        request->reply.reason = reason;
    }
    request->next = NULL;
    request->done(request);
}

// Answers all posted requests in one chain, with OK but for one.
static void posted_answer_all(size_t place_other, shelf_result result, uint32_t reason) {
    struct node_request *first = the_node.posted[0];
    for (size_t place = 0; place < the_node.posted_count; place++) {
        struct node_request *request = the_node.posted[place];
        request_answer(&the_node, request->bytes, &request->reply);
        if (place == place_other) {
            request->reply.result = result;
            request->reply.reason = reason;
        }
        request->next = place + 1 < the_node.posted_count ? the_node.posted[place + 1] : NULL;
    }
    the_node.posted_count = 0;
    first->done(first);
}

shelf_result node_checkpoint(struct node *node, uint64_t *ret_index) {
    *ret_index = atomic_load(&node->bed->image->applied);
    return SHELF_OK;
}
void node_info(struct node *node, struct shelf_info *ret_info) {
    *ret_info = (struct shelf_info){.commits = node->commits};
}
bool node_region_find(struct node *node, const char *name, struct shelf_region_info *ret_info) {
    *ret_info =
        (struct shelf_region_info){.region = BED_REGION_A, .size = node->bed->size, .size_max = 1 << 20};
    return strcmp(name, "a") == 0;
}
bool node_region_get(struct node *node, uint32_t region, struct shelf_region_info *ret_info) {
    *ret_info = (struct shelf_region_info){
        .region = (shelf_region)region, .size = node->bed->size, .size_max = 1 << 20};
    return region == BED_REGION_A;
}
size_t node_region_list(struct node *node, struct shelf_region_info *ret_infos, size_t count_max) {
    return count_max > 0 ? (size_t)node_region_find(node, "a", ret_infos) : 1;
}

void node_waiters_add(struct node *node, int change) {
    node->waiters += change;
}

void node_requests_deliver(struct node_request *answered) {
    assert_null(answered); // nothing comes out of a ring here
}

// Nobody else comes.
shelf_result door_open(struct node *node, const struct door_options *options, struct door **ret_door) {
    (void)node;
    (void)options;
    *ret_door = NULL;
    return SHELF_OK;
}
void door_close(struct door *door) {
    (void)door;
}
size_t door_clients(struct door *door, uint64_t from, struct shelf_client_info *ret_infos, size_t count_max) {
    (void)door;
    (void)from;
    (void)ret_infos;
    (void)count_max;
    return 0;
}

// ---- Help -----------------------------------------------------------------------------------------------------------

static shelf *s;

static int up(void **state) {
    (void)state;
    return shelf_open("dir:here", &(struct shelf_options){.commit_deadline_ms = 50}, &s);
}
static int down(void **state) {
    (void)state;
    if (s && shelf_close(s) != SHELF_OK)
        return -1;
    s = NULL;
    return 0;
}

static shelf_addr word_at(uint64_t offset) {
    return shelf_addr_make(BED_REGION_A, offset);
}

static shelf_tx *change_begin(void) {
    shelf_tx *tx;
    assert_int_equal(shelf_begin(s, SHELF_READ_WRITE, &tx), SHELF_OK);
    assert_int_equal(shelf_write(tx, word_at(0), &(uint64_t){1}, 8), SHELF_OK);
    return tx;
}
static shelf_tx *session_change_begin(shelf_session *session) {
    shelf_tx *tx;
    assert_int_equal(shelf_session_begin(session, SHELF_READ_WRITE, &tx), SHELF_OK);
    assert_int_equal(shelf_write(tx, word_at(0), &(uint64_t){1}, 8), SHELF_OK);
    return tx;
}

static shelf_session *session_open(void) {
    shelf_session *session;
    assert_int_equal(shelf_session_open(s, "name", &session), SHELF_OK);
    return session;
}

static const struct commit_request *posted_request(size_t place) {
    return the_node.posted[place]->bytes;
}

static bool completions_ready(void) {
    struct pollfd p = {.fd = shelf_completion_fd(s), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static size_t completions_take(struct shelf_completion *completions, size_t count_max) {
    size_t count = shelf_completions(s, completions, count_max);
    for (size_t i = 0; i < count; i++)
        assert_int_not_equal(completions[i].tag, 0);
    return count;
}

// ---- Open -----------------------------------------------------------------------------------------------------------

static void test_open_refuses_what_makes_no_sense(void **state) {
    (void)state;
    shelf *other = NULL;
    assert_int_equal(shelf_open(NULL, NULL, &other), SHELF_INVALID);
    assert_int_equal(shelf_open("", NULL, &other), SHELF_INVALID);
    assert_int_equal(shelf_open("dir:", NULL, &other), SHELF_INVALID);
    assert_int_equal(shelf_open("/tmp", NULL, &other), SHELF_INVALID);
    assert_int_equal(shelf_open("dir:missing", NULL, &other), SHELF_NOT_FOUND);
    const struct shelf_options bad[] = {
        {.flags = 1u << 20},
        {.flags = SHELF_OPEN_EXCLUSIVE},
        {.backend = (shelf_backend)9},
        {.log_bytes_max = 1000},
        {.log_bytes_max = (uint64_t)1 << 60},
        {.log_bytes_max = (uint64_t)128 << 20, .checkpoint_log_bytes = (uint64_t)65 << 20},
        {.reserved = {[6] = 1}},
        {.reserved32 = 1},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(shelf_open("dir:here", &bad[i], &other), SHELF_INVALID);
    assert_null(other);
}

static void test_open_completes_options(void **state) {
    (void)state;
    assert_int_equal(the_node.options.commit_deadline_ms, 50);
    assert_int_equal(the_node.options.log_bytes_max, 1 << 30);
    assert_int_equal(the_node.options.checkpoint_log_bytes, 384 << 20);
    assert_int_equal(the_node.options.checkpoint_interval_ms, 300000);
    assert_int_equal(the_node.options.session_idle_ms, 3600000);
    assert_int_equal(the_node.options.session_named_idle_ms, 2592000000);
}

// ---- Commits with waiting -------------------------------------------------------------------------------------------

static void test_commit_without_effect_needs_no_node(void **state) {
    (void)state;
    shelf_tx *tx;
    struct shelf_receipt receipt;
    assert_int_equal(shelf_begin(s, SHELF_READ_WRITE, &tx), SHELF_OK);
    assert_int_equal(shelf_read(tx, word_at(0), &(uint64_t){0}, 8), SHELF_OK);
    assert_int_equal(shelf_commit(tx, &receipt), SHELF_OK);
    assert_int_equal(receipt.durability, SHELF_DURABLE_NOT);
    assert_int_equal(receipt.index, 1);
    assert_int_equal(the_node.commits + the_node.sessions_opened, 0);
}

static void test_commits_of_a_lane_count_up(void **state) {
    (void)state;
    for (uint64_t i = 1; i <= 200; i++) {
        struct shelf_receipt receipt;
        assert_int_equal(shelf_commit(change_begin(), &receipt), SHELF_OK);
        assert_int_equal(receipt.sequence, i);
    }
    assert_int_equal(the_node.sessions_opened, 1);
}

static void test_commit_of_a_failed_transaction_goes_nowhere(void **state) {
    (void)state;
    shelf_tx *tx = change_begin();
    assert_int_equal(shelf_read(tx, word_at(64), &(uint64_t){0}, 8), SHELF_OK);
    bed_set(the_node.bed, word_at(64), 1);
    assert_int_equal(shelf_read(tx, word_at(64), &(uint64_t){0}, 8), SHELF_CONFLICT);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_CONFLICT);
    tx = change_begin();
    assert_int_equal(shelf_read(tx, word_at(64), &(uint64_t){0}, 8), SHELF_OK);
    bed_set(the_node.bed, word_at(64), 2);
    assert_int_equal(shelf_read(tx, word_at(64), &(uint64_t){0}, 8), SHELF_CONFLICT);
    assert_int_equal(shelf_commit_async(tx, 1), SHELF_CONFLICT);
    assert_int_equal(the_node.commits, 0);
    assert_false(completions_ready());
}

static shelf_result answer_conflict(const struct commit_request *request, struct reply *reply) {
    (void)request;
    reply->result = SHELF_CONFLICT;
    reply->reason = REASON_CERTIFY;
    return SHELF_OK;
}

static void test_commit_says_why_it_was_refused(void **state) {
    (void)state;
    struct shelf_receipt receipt = {.index = 5};
    the_node.answer = answer_conflict;
    assert_int_equal(shelf_commit(change_begin(), &receipt), SHELF_CONFLICT);
    assert_string_equal(shelf_detail(), "a line that was read has changed since");
    assert_int_equal(receipt.index, 5); /* untouched */
}

static shelf_result answer_timeout(const struct commit_request *request, struct reply *reply) {
    (void)request;
    (void)reply;
    return SHELF_TIMEOUT;
}
static shelf_result answer_unknown(const struct commit_request *request, struct reply *reply) {
    (void)request;
    (void)reply;
    return SHELF_UNKNOWN;
}

static void test_unknown_commit_tells_its_sequence(void **state) {
    (void)state;
    struct shelf_receipt receipt = {.index = 5};
    assert_int_equal(shelf_commit(change_begin(), NULL), SHELF_OK);
    the_node.answer = answer_timeout;
    assert_int_equal(shelf_commit(change_begin(), &receipt), SHELF_TIMEOUT);
    assert_int_equal(receipt.index, 5);
    the_node.answer = answer_unknown;
    for (uint64_t i = 3; i < 200; i++) { /* and none of them keeps its place */
        assert_int_equal(shelf_commit(change_begin(), &receipt), SHELF_UNKNOWN);
        assert_int_equal(receipt.sequence, i);
    }
    assert_int_equal(the_node.sessions_opened, 1);
}

static uint64_t forgotten_session; // that, and all before
static shelf_result answer_forgotten(const struct commit_request *request, struct reply *reply) {
    if (request->session <= forgotten_session) {
        reply->result = SHELF_EXPIRED;
        reply->reason = REASON_SESSION_UNKNOWN;
    }
    return SHELF_OK;
}

static void test_forgotten_lane_is_replaced(void **state) {
    (void)state;
    struct shelf_receipt receipt;
    the_node.answer = answer_forgotten;
    forgotten_session = 0;
    for (int i = 0; i < 10; i++)
        assert_int_equal(shelf_commit(change_begin(), NULL), SHELF_OK);
    forgotten_session = 1;
    assert_int_equal(shelf_commit(change_begin(), &receipt), SHELF_OK);
    assert_int_equal(receipt.sequence, 1);
    assert_int_equal(the_node.sessions_opened, 2);
    forgotten_session = UINT64_MAX; /* a node out of its mind is not asked for ever */
    assert_int_equal(shelf_commit(change_begin(), NULL), SHELF_EXPIRED);
}

static shelf_result answer_below_window(const struct commit_request *request, struct reply *reply) {
    (void)request;
    reply->result = SHELF_EXPIRED;
    reply->reason = REASON_SESSION_WINDOW;
    return SHELF_OK;
}

static void test_sequence_below_the_window_is_not_tried_again(void **state) {
    (void)state;
    the_node.answer = answer_below_window;
    assert_int_equal(shelf_commit(change_begin(), NULL), SHELF_EXPIRED);
    assert_int_equal(the_node.commits, 1);
}

static void test_no_session_no_commit(void **state) {
    (void)state;
    the_node.open_result = SHELF_NO_SPACE;
    the_node.open_reason = REASON_SESSION_TABLE_FULL;
    assert_int_equal(shelf_commit(change_begin(), NULL), SHELF_NO_SPACE);
    assert_string_equal(shelf_detail(), "all 1024 places of the table of sessions are in use");
    assert_int_equal(shelf_commit_async(change_begin(), 1), SHELF_NO_SPACE);
    the_node.open_result = SHELF_OK;
    assert_int_equal(shelf_commit(change_begin(), NULL), SHELF_OK);
}

// ---- Windows --------------------------------------------------------------------------------------------------------

static void test_full_windows_open_lanes(void **state) {
    (void)state;
    enum { OUTSTANDING = 512 };
    static struct shelf_completion completions[OUTSTANDING];
    for (uint64_t i = 1; i <= OUTSTANDING; i++) {
        assert_int_equal(shelf_commit_async(change_begin(), i), SHELF_OK);
        assert_int_equal(the_node.sessions_opened, (i + 63) / 64);
    }
    assert_false(completions_ready());
    for (size_t i = 0; i < OUTSTANDING; i++) {
        for (size_t k = 0; k < i; k++)
            assert_false(posted_request(i)->session == posted_request(k)->session &&
                         posted_request(i)->sequence == posted_request(k)->sequence);
    }
    while (the_node.posted_count > 0)
        posted_answer(the_node.posted_count / 2, SHELF_OK, 0);
    assert_true(completions_ready());
    assert_int_equal(completions_take(completions, OUTSTANDING), OUTSTANDING);
    bool seen[OUTSTANDING + 1] = {false};
    for (size_t i = 0; i < OUTSTANDING; i++) {
        assert_false(seen[completions[i].tag]);
        seen[completions[i].tag] = true;
        assert_int_equal(completions[i].result, SHELF_OK);
    }
    /* The lanes stay: no more are needed next time. */
    for (uint64_t i = 1; i <= OUTSTANDING; i++)
        assert_int_equal(shelf_commit_async(change_begin(), i), SHELF_OK);
    assert_int_equal(the_node.sessions_opened, 8);
    while (the_node.posted_count > 0)
        posted_answer(0, SHELF_OK, 0);
    assert_int_equal(completions_take(completions, OUTSTANDING), OUTSTANDING);
}

// L1: while sequence 1 is out, 65 is not taken, however many others are answered.
static void test_a_straggler_holds_its_window(void **state) {
    (void)state;
    struct shelf_completion completion;
    shelf_session *session = session_open();
    assert_int_equal(shelf_commit_async(session_change_begin(session), 1), SHELF_OK);
    for (uint64_t i = 2; i <= 64; i++) {
        assert_int_equal(shelf_commit_async(session_change_begin(session), i), SHELF_OK);
        posted_answer(1, SHELF_OK, 0);
        assert_int_equal(completions_take(&completion, 1), 1);
    }
    assert_int_equal(shelf_session_last(session), 64);
    assert_int_equal(shelf_commit(session_change_begin(session), NULL), SHELF_TIMEOUT);
    assert_int_equal(shelf_commit_async(session_change_begin(session), 99), SHELF_TIMEOUT);
    posted_answer(0, SHELF_OK, 0);
    assert_int_equal(completions_take(&completion, 1), 1);
    struct shelf_receipt receipt;
    assert_int_equal(shelf_commit(session_change_begin(session), &receipt), SHELF_OK);
    assert_int_equal(receipt.sequence, 65);
    shelf_session_close(session);
}

static void *answer_later(void *context) {
    while (atomic_load(&s->waiter_count) == 0)
        sched_yield();
    posted_answer(0, SHELF_OK, 0);
    return context;
}

static void test_commit_waits_for_a_place(void **state) {
    (void)state;
    struct shelf_completion completions[64];
    shelf_session *session = session_open();
    s->commit_deadline_ms = 60000;
    for (uint64_t i = 1; i <= 64; i++)
        assert_int_equal(shelf_commit_async(session_change_begin(session), i), SHELF_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_later, NULL), 0);
    struct shelf_receipt receipt;
    assert_int_equal(shelf_commit(session_change_begin(session), &receipt), SHELF_OK);
    assert_int_equal(receipt.sequence, 65);
    assert_int_equal(pthread_join(thread, NULL), 0);
    while (the_node.posted_count > 0)
        posted_answer(0, SHELF_OK, 0);
    assert_int_equal(completions_take(completions, 64), 64);
    shelf_session_close(session);
}

// ---- Completions ----------------------------------------------------------------------------------------------------

static void test_descriptor_is_readable_exactly_while_completions_wait(void **state) {
    (void)state;
    struct shelf_completion completions[4];
    shelf_tx *tx;
    assert_false(completions_ready());
    assert_int_equal(shelf_begin(s, SHELF_READ_ONLY, &tx), SHELF_OK);
    assert_int_equal(shelf_commit_async(tx, 5), SHELF_OK); /* nothing to do: completes at once */
    assert_true(completions_ready());
    assert_int_equal(completions_take(completions, 0), 0);
    assert_int_equal(completions_take(completions, 4), 1);
    assert_int_equal(completions[0].tag, 5);
    assert_int_equal(completions[0].receipt.durability, SHELF_DURABLE_NOT);
    assert_false(completions_ready());
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(shelf_commit_async(change_begin(), i), SHELF_OK);
    assert_false(completions_ready());
    for (int i = 0; i < 3; i++)
        posted_answer(0, SHELF_OK, 0);
    assert_int_equal(completions_take(completions, 2), 2);
    assert_true(completions_ready());
    assert_int_equal(completions_take(completions, 2), 1);
    assert_false(completions_ready());
    assert_int_equal(completions_take(completions, 4), 0);
}

static void test_a_look_at_no_completions_changes_nothing(void **state) {
    (void)state;
    struct shelf_completion completions[4];
    for (uint64_t round = 1; round <= 3; round++) {
        for (size_t i = 0; i < 2; i++)
            assert_int_equal(shelf_commit_async(change_begin(), round), SHELF_OK);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(completions_take(completions, 4), 0);
            posted_answer(0, SHELF_OK, 0);
            assert_true(completions_ready());
            assert_int_equal(completions_take(completions, 4), 1);
            assert_int_equal(completions[0].tag, round);
        }
        assert_int_equal(completions_take(completions, 4), 0);
    }
}

// 200 commits are in four lanes. One of them is answered otherwise, in the middle of a lane.
static void chain_of_answers(shelf_result result, uint32_t reason, size_t expected) {
    enum { COUNT = 200, OTHER = 100 };
    static struct shelf_completion completions[COUNT];
    for (uint64_t i = 0; i < COUNT; i++)
        assert_int_equal(shelf_commit_async(change_begin(), i + 1), SHELF_OK);
    posted_answer_all(OTHER, result, reason);
    assert_int_equal(completions_take(completions, COUNT), expected);
    for (uint64_t i = 0; i < expected; i++) {
        bool behind = expected < COUNT && i >= OTHER; /* where one is missing */
        assert_int_equal(completions[i].tag, i + 1 + behind);
        assert_int_equal(completions[i].result, completions[i].tag == OTHER + 1 ? result : SHELF_OK);
    }
}

static void test_a_chain_of_answers_completes_in_order(void **state) {
    (void)state;
    chain_of_answers(SHELF_CONFLICT, REASON_CERTIFY, 200);
    for (size_t i = 0; i < 4; i++) /* all places are free again */
        assert_int_equal(atomic_load(&s->lanes[i]->pending), 0);
    assert_int_equal(atomic_load(&s->lane_count), 4);
    chain_of_answers(SHELF_OK, 0, 200);
    assert_int_equal(atomic_load(&s->lane_count), 4);
}

static void test_a_burnt_sequence_in_a_chain_is_submitted_again(void **state) {
    (void)state;
    struct shelf_completion completion;
    chain_of_answers(SHELF_ABORTED, REASON_SEQUENCE_FENCED, 199);
    assert_int_equal(the_node.posted_count, 1);
    posted_answer(0, SHELF_OK, 0);
    assert_int_equal(completions_take(&completion, 1), 1);
    assert_int_equal(completion.tag, 101);
    assert_int_equal(completion.result, SHELF_OK);
}

static void test_completion_carries_the_refusal(void **state) {
    (void)state;
    struct shelf_completion completion;
    assert_int_equal(shelf_commit_async(change_begin(), 1), SHELF_OK);
    posted_answer(0, SHELF_CONFLICT, REASON_CERTIFY);
    assert_int_equal(completions_take(&completion, 1), 1);
    assert_int_equal(completion.result, SHELF_CONFLICT);
    assert_int_equal(completion.receipt.sequence, 1);
}

static void test_forgotten_lane_is_replaced_under_asynchronous_commits(void **state) {
    (void)state;
    static struct shelf_completion completions[64];
    for (uint64_t i = 1; i <= 64; i++)
        assert_int_equal(shelf_commit_async(change_begin(), i), SHELF_OK);
    for (int i = 0; i < 64; i++) { /* the last in the list is the one that answering moves to the front */
        size_t place = 0;
        while (posted_request(place)->header.kind != REQUEST_COMMIT || posted_request(place)->session != 1)
            place++;
        posted_answer(place, SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
    }
    assert_false(completions_ready());
    assert_int_equal(the_node.posted_count, 1); /* one opening for all */
    assert_int_equal(posted_request(0)->header.kind, REQUEST_SESSION_OPEN);
    posted_answer(0, SHELF_OK, 0);
    assert_int_equal(the_node.posted_count, 64);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(posted_request(i)->session, 2);
    while (the_node.posted_count > 0)
        posted_answer(0, SHELF_OK, 0);
    assert_int_equal(completions_take(completions, 64), 64);
    for (size_t i = 0; i < 64; i++)
        assert_int_equal(completions[i].result, SHELF_OK);
}

static void test_failed_replacement_fails_asynchronous_commits(void **state) {
    (void)state;
    struct shelf_completion completions[3];
    for (uint64_t i = 1; i <= 3; i++)
        assert_int_equal(shelf_commit_async(change_begin(), i), SHELF_OK);
    for (size_t i = 0; i < 3; i++)
        posted_answer(i == 2 ? 1 : 0, SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
    assert_int_equal(the_node.posted_count, 1);
    posted_answer(0, SHELF_NO_SPACE, REASON_LOG_FULL);
    assert_int_equal(completions_take(completions, 3), 3);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(completions[i].result, SHELF_NO_SPACE);
}

static void *answer_all_later(void *context) {
    while (atomic_load(&s->waiter_count) == 0)
        sched_yield();
    while (the_node.posted_count > 0)
        posted_answer(0, SHELF_OK, 0);
    return context;
}

static void test_close_waits_for_commits_and_expires_lanes(void **state) {
    (void)state;
    for (uint64_t i = 1; i <= 130; i++)
        assert_int_equal(shelf_commit_async(change_begin(), i), SHELF_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, answer_all_later, NULL), 0);
    assert_int_equal(shelf_close(s), SHELF_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    s = NULL;
    assert_true(the_node.closed);
    assert_int_equal(the_node.sessions_opened, 3);
    assert_int_equal(the_node.sessions_expired, 3);
}

// ---- Named sessions -------------------------------------------------------------------------------------------------

static uint64_t fenced_sequence;
static uint64_t submitted_sequence;
static shelf_result answer_fenced(const struct commit_request *request, struct reply *reply) {
    submitted_sequence = request->sequence;
    if (request->sequence == fenced_sequence) {
        reply->result = SHELF_ABORTED;
        reply->reason = REASON_SEQUENCE_FENCED;
    }
    return SHELF_OK;
}

static void test_fenced_sequence_is_skipped_unless_asked_for(void **state) {
    (void)state;
    struct shelf_receipt receipt;
    struct shelf_completion completion;
    shelf_session *session = session_open();
    the_node.answer = answer_fenced;
    fenced_sequence = 1;
    assert_int_equal(shelf_commit(session_change_begin(session), &receipt), SHELF_OK);
    assert_int_equal(receipt.sequence, 2);
    shelf_tx *tx = session_change_begin(session);
    assert_int_equal(shelf_tx_sequence_set(tx, 1), SHELF_OK);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_ABORTED);
    /* Without waiting, too. */
    assert_int_equal(shelf_commit_async(session_change_begin(session), 7), SHELF_OK);
    assert_int_equal(posted_request(0)->sequence, 3);
    posted_answer(0, SHELF_ABORTED, REASON_SEQUENCE_FENCED);
    assert_int_equal(posted_request(0)->sequence, 4);
    posted_answer(0, SHELF_OK, 0);
    assert_int_equal(completions_take(&completion, 1), 1);
    assert_int_equal(completion.result, SHELF_OK);
    assert_int_equal(completion.receipt.sequence, 4);
    assert_int_equal(shelf_session_last(session), 4);
    shelf_session_close(session);
}

static void test_given_sequence_is_used_and_passed_over(void **state) {
    (void)state;
    shelf_session *session = session_open();
    the_node.answer = answer_fenced;
    fenced_sequence = 0;
    shelf_tx *tx = session_change_begin(session);
    assert_int_equal(shelf_tx_sequence_set(tx, 10), SHELF_OK);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    assert_int_equal(submitted_sequence, 10);
    assert_int_equal(shelf_commit(session_change_begin(session), NULL), SHELF_OK);
    assert_int_equal(submitted_sequence, 11);
    tx = session_change_begin(session); /* a retry of an older one */
    assert_int_equal(shelf_tx_sequence_set(tx, 10), SHELF_OK);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    assert_int_equal(submitted_sequence, 10);
    assert_int_equal(shelf_session_last(session), 11);
    /* A retry that has nothing to write this time still asks for its first answer. */
    uint64_t commits = the_node.commits;
    assert_int_equal(shelf_session_begin(session, 0, &tx), SHELF_OK);
    assert_int_equal(shelf_tx_sequence_set(tx, 10), SHELF_OK);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    assert_int_equal(the_node.commits, commits + 1);
    /* What was fenced by asking for it is passed over, too. */
    assert_int_equal(shelf_session_outcome(session, 12, NULL), SHELF_ABORTED);
    assert_int_equal(shelf_commit(session_change_begin(session), NULL), SHELF_OK);
    assert_int_equal(submitted_sequence, 13);
    shelf_session_close(session);
}

static void test_sessions_refuse_what_makes_no_sense(void **state) {
    (void)state;
    shelf_session *session = NULL;
    shelf_tx *tx;
    char name[SHELF_NAME_MAX + 2];
    memset(name, 'x', sizeof(name));
    name[SHELF_NAME_MAX + 1] = '\0';
    assert_int_equal(shelf_session_open(s, NULL, &session), SHELF_INVALID);
    assert_int_equal(shelf_session_open(s, "", &session), SHELF_INVALID);
    assert_int_equal(shelf_session_open(s, name, &session), SHELF_INVALID);
    assert_int_equal(shelf_session_open(s, "a\nb", &session), SHELF_INVALID);
    assert_null(session);
    name[SHELF_NAME_MAX] = '\0';
    assert_int_equal(shelf_session_open(s, name, &session), SHELF_OK);
    assert_int_equal(shelf_session_begin(session, SHELF_READ_ONLY, &tx), SHELF_INVALID);
    assert_int_equal(shelf_session_outcome(session, 0, NULL), SHELF_INVALID);
    tx = session_change_begin(session);
    assert_int_equal(shelf_tx_sequence_set(tx, 0), SHELF_INVALID);
    shelf_abort(tx);
    tx = change_begin();
    assert_int_equal(shelf_tx_sequence_set(tx, 1), SHELF_INVALID);
    shelf_abort(tx);
    assert_int_equal(shelf_session_expire(session), SHELF_OK);
    assert_int_equal(the_node.sessions_expired, 1);
    shelf_session_close(NULL);
    shelf_abort(NULL);
}

// ---- Run ------------------------------------------------------------------------------------------------------------

static uint32_t hints[4], runs;
static shelf_result body_write(shelf_tx *tx, void *context) {
    if (runs < 4)
        hints[runs] = shelf_tx_hint(tx);
    runs++;
    shelf_result result = shelf_write(tx, word_at(0), &(uint64_t){1}, 8);
    return context ? *(shelf_result *)context : result;
}

static uint32_t conflicts_left;
static shelf_result answer_conflicts(const struct commit_request *request, struct reply *reply) {
    if (conflicts_left > 0) {
        conflicts_left--;
        return answer_conflict(request, reply);
    }
    return SHELF_OK;
}

static void test_run_goes_on_until_it_commits(void **state) {
    (void)state;
    struct shelf_receipt receipt;
    the_node.answer = answer_conflicts;
    conflicts_left = 5;
    runs = 0;
    assert_int_equal(shelf_run(s, SHELF_READ_WRITE, body_write, NULL, 60000, &receipt), SHELF_OK);
    assert_int_equal(runs, 6);
    assert_int_equal(receipt.sequence, 6);
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(hints[i], hints[0] + i);
}

// Commits in turn: CONFLICT, UNKNOWN, then as they come.
static shelf_result answer_lost(const struct commit_request *request, struct reply *reply) {
    return the_node.commits == 1   ? answer_conflict(request, reply)
           : the_node.commits == 2 ? SHELF_UNKNOWN
                                   : SHELF_OK;
}
static uint64_t sequence_seen;
static shelf_result answer_lost_once(const struct commit_request *request, struct reply *reply) {
    (void)reply;
    sequence_seen = request->sequence;
    return the_node.commits == 1 ? SHELF_UNKNOWN : SHELF_OK;
}
static shelf_result answer_lost_then_denied(const struct commit_request *request, struct reply *reply) {
    (void)request;
    reply->result = the_node.commits == 1 ? SHELF_OK : SHELF_DENIED;
    return the_node.commits == 1 ? SHELF_UNKNOWN : SHELF_OK;
}

static void test_session_run_settles_what_is_unknown(void **state) {
    (void)state;
    struct shelf_session *session;
    struct shelf_receipt receipt = {0};
    assert_int_equal(shelf_session_open(s, "s", &session), SHELF_OK);
    // It had no effect: again, under another sequence.
    the_node.answer = answer_lost;
    the_node.outcome = SHELF_ABORTED;
    runs = 0;
    assert_int_equal(shelf_session_run(session, 0, body_write, NULL, 60000, &receipt), SHELF_OK);
    assert_int_equal(runs, 3);
    assert_int_equal(the_node.outcomes, 1);
    assert_int_equal(receipt.index, 100 + 2);
    // It had: the body does not run again.
    the_node.commits = the_node.outcomes = 0;
    the_node.answer = answer_lost_once;
    the_node.outcome = SHELF_OK;
    runs = 0;
    assert_int_equal(shelf_session_run(session, 0, body_write, NULL, 60000, &receipt), SHELF_OK);
    assert_int_equal(runs, 1);
    assert_int_equal(receipt.index, 77);
    // Nobody can tell.
    the_node.commits = the_node.outcomes = 0;
    the_node.outcome = SHELF_UNAVAILABLE;
    assert_int_equal(shelf_session_run(session, 0, body_write, NULL, 60000, &receipt), SHELF_UNKNOWN);
    assert_int_equal(receipt.sequence, sequence_seen);
    // A sequence of the caller's is not fenced, but committed again.
    the_node.commits = the_node.outcomes = 0;
    runs = 0;
    assert_int_equal(shelf_session_run(session, 40, body_write, NULL, 60000, &receipt), SHELF_OK);
    assert_int_equal(runs, 2);
    assert_int_equal(sequence_seen, 40);
    assert_int_equal(the_node.outcomes, 0);
    // What becomes of the second commit says nothing of the first.
    the_node.commits = 0;
    the_node.answer = answer_lost_then_denied;
    assert_int_equal(shelf_session_run(session, 41, body_write, NULL, 60000, &receipt), SHELF_UNKNOWN);
    assert_int_equal(receipt.sequence, 41);
    shelf_result error = SHELF_NOT_FOUND;
    assert_int_equal(shelf_session_run(session, 0, body_write, &error, 60000, NULL), SHELF_NOT_FOUND);
    assert_int_equal(shelf_session_run(session, UINT64_MAX, body_write, NULL, 60000, NULL), SHELF_INVALID);
    shelf_session_close(session);
}

static void test_run_ends_at_its_deadline(void **state) {
    (void)state;
    the_node.answer = answer_conflict;
    runs = 0;
    assert_int_equal(shelf_run(s, SHELF_READ_WRITE, body_write, NULL, 20, NULL), SHELF_TIMEOUT);
    assert_true(runs > 1);
    assert_string_not_equal(shelf_detail(), "");
}

static void test_run_returns_what_the_body_returns(void **state) {
    (void)state;
    shelf_result result = SHELF_NOT_FOUND;
    runs = 0;
    assert_int_equal(shelf_run(s, SHELF_READ_WRITE, body_write, &result, 0, NULL), SHELF_NOT_FOUND);
    assert_int_equal(runs, 1);
    assert_int_equal(the_node.commits, 0);
    result = SHELF_CONFLICT;
    assert_int_equal(shelf_run(s, SHELF_READ_WRITE, body_write, &result, 10, NULL), SHELF_TIMEOUT);
    assert_true(runs > 2);
}

// ---- Regions --------------------------------------------------------------------------------------------------------

static void test_regions_refuse_what_makes_no_sense(void **state) {
    (void)state;
    shelf_region region = 0;
    struct shelf_region_info info;
    size_t count;
    assert_int_equal(shelf_region_create(s, "", 4096, 0, &region), SHELF_INVALID);
    assert_int_equal(shelf_region_create(s, "x", 0, 0, &region), SHELF_INVALID);
    assert_int_equal(shelf_region_create(s, "x", 8192, 4096, &region), SHELF_INVALID);
    assert_int_equal(shelf_region_create(s, "x", SHELF_REGION_BYTES_MAX + 1, 0, &region), SHELF_TOO_LARGE);
    assert_int_equal(shelf_region_create(s, "x", 1, SHELF_REGION_BYTES_MAX + 1, &region), SHELF_TOO_LARGE);
    assert_int_equal(shelf_region_open(s, "b", &region), SHELF_NOT_FOUND);
    assert_int_equal(shelf_region_grow(s, 9, 4096), SHELF_NOT_FOUND);
    assert_int_equal(shelf_region_grow(s, BED_REGION_A, 2 << 20), SHELF_TOO_LARGE);
    assert_int_equal(shelf_region_drop(s, "b"), SHELF_NOT_FOUND);
    assert_int_equal(shelf_region_info_get(s, 9, &info), SHELF_NOT_FOUND);
    assert_int_equal(region, 0);
    assert_int_equal(shelf_region_open(s, "a", &region), SHELF_OK);
    assert_int_equal(region, BED_REGION_A);
    assert_int_equal(shelf_region_list(s, &info, 1, &count), SHELF_OK);
    assert_int_equal(count, 1);
}

// ---- Fork -----------------------------------------------------------------------------------------------------------

// What a child finds; the number of the first check that fails, or 0.
static int child_checks(shelf_session *session, shelf_tx *tx, shelf_tx *other) {
    shelf_tx *fresh;
    uint64_t word;
    const void *view;
    struct shelf_info info;
    struct shelf_completion completion;
    shelf_region region;
    const bool checks[] = {
        shelf_begin(s, SHELF_READ_ONLY, &fresh) == SHELF_INVALID,
        shelf_read(tx, word_at(0), &word, 8) == SHELF_INVALID,
        shelf_view(tx, word_at(0), 8, &view) == SHELF_INVALID,
        shelf_check(tx) == SHELF_INVALID,
        shelf_write(tx, word_at(0), &word, 8) == SHELF_INVALID,
        shelf_add(tx, word_at(8), 1) == SHELF_INVALID,
        shelf_commit(tx, NULL) == SHELF_INVALID,
        shelf_commit_async(other, 1) == SHELF_INVALID,
        shelf_session_begin(session, 0, &fresh) == SHELF_INVALID,
        shelf_session_outcome(session, 1, NULL) == SHELF_INVALID,
        shelf_info_get(s, &info) == SHELF_INVALID,
        shelf_region_open(s, "a", &region) == SHELF_INVALID,
        shelf_completions(s, &completion, 1) == 0,
        shelf_completion_fd(s) == -1,
        shelf_run(s, SHELF_READ_WRITE, body_write, NULL, 0, NULL) == SHELF_INVALID,
        shelf_checkpoint(s, NULL) == SHELF_INVALID,
        shelf_close(s) == SHELF_INVALID,
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        if (!checks[i])
            return (int)i + 1;
    }
    /* A handle of its own. */
    shelf *own;
    if (shelf_open("dir:here", NULL, &own) != SHELF_OK ||
        shelf_begin(own, SHELF_READ_ONLY, &fresh) != SHELF_OK ||
        shelf_read(fresh, word_at(0), &word, 8) != SHELF_OK || shelf_commit(fresh, NULL) != SHELF_OK ||
        shelf_close(own) != SHELF_OK)
        return 100;
    return 0;
}

static void test_fork_leaves_handles_to_the_parent(void **state) {
    (void)state;
    shelf_session *session = session_open();
    shelf_tx *tx = change_begin(), *other = change_begin();
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0)
        _exit(child_checks(session, tx, other));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    shelf_abort(other);
    shelf_session_close(session);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_open_completes_options),
        cmocka_unit_test(test_open_refuses_what_makes_no_sense),
        TEST(test_commit_without_effect_needs_no_node),
        TEST(test_commits_of_a_lane_count_up),
        TEST(test_commit_of_a_failed_transaction_goes_nowhere),
        TEST(test_commit_says_why_it_was_refused),
        TEST(test_unknown_commit_tells_its_sequence),
        TEST(test_forgotten_lane_is_replaced),
        TEST(test_sequence_below_the_window_is_not_tried_again),
        TEST(test_no_session_no_commit),
        TEST(test_full_windows_open_lanes),
        TEST(test_a_straggler_holds_its_window),
        TEST(test_commit_waits_for_a_place),
        TEST(test_descriptor_is_readable_exactly_while_completions_wait),
        TEST(test_a_look_at_no_completions_changes_nothing),
        TEST(test_a_chain_of_answers_completes_in_order),
        TEST(test_a_burnt_sequence_in_a_chain_is_submitted_again),
        TEST(test_completion_carries_the_refusal),
        TEST(test_forgotten_lane_is_replaced_under_asynchronous_commits),
        TEST(test_failed_replacement_fails_asynchronous_commits),
        TEST(test_close_waits_for_commits_and_expires_lanes),
        TEST(test_fenced_sequence_is_skipped_unless_asked_for),
        TEST(test_given_sequence_is_used_and_passed_over),
        TEST(test_sessions_refuse_what_makes_no_sense),
        TEST(test_run_goes_on_until_it_commits),
        TEST(test_session_run_settles_what_is_unknown),
        TEST(test_run_ends_at_its_deadline),
        TEST(test_run_returns_what_the_body_returns),
        TEST(test_regions_refuse_what_makes_no_sense),
        TEST(test_fork_leaves_handles_to_the_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
