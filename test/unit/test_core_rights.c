// SPDX-License-Identifier: Apache-2.0
//
// Who may do what: regions' owner, group and mode, and sessions' users.

#include "core/rights.h"
#include "core_bed.h"

enum { MIB = 1 << 20 };

static struct bed *bed;
static uint32_t region; // of user 100, group 10, mode 0640

static const uint32_t ten[] = {7, 10};
static const struct credentials owner = {.user = 100, .group = 10};
static const struct credentials member = {.user = 101, .group = 5, .group_count = 2, .groups = ten};
static const struct credentials other = {.user = 102, .group = 5};
static const struct credentials root = {.user = 0, .group = 0};

static uint64_t at(uint32_t number, uint64_t offset) {
    return shelf_addr_make((shelf_region)number, offset);
}

static uint64_t applied(void) {
    return atomic_load(&bed->image->applied);
}

static void answered(uint64_t token, shelf_result result, enum reply_reason reason) {
    assert_int_equal(bed_result(bed, token), result);
    assert_int_equal(bed_reply(bed, token)->reason, reason);
}

static void become(const struct credentials *credentials) {
    bed->credentials = credentials;
    bed_session(bed);
}

static uint64_t create(const char *name, uint32_t user, uint32_t group, uint32_t mode) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = REQUEST_REGION_CREATE},
                                     .owner = user,
                                     .group = group,
                                     .mode = mode,
                                     .size = MIB,
                                     .size_max = 4 * MIB};
    strncpy(request.name, name, sizeof(request.name) - 1);
    return bed_submit(bed, &request, sizeof(request));
}

static uint64_t access_change(uint32_t number, uint32_t user, uint32_t group, uint32_t mode) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = REQUEST_REGION_ACCESS},
                                     .region = number,
                                     .owner = user,
                                     .group = group,
                                     .mode = mode};
    return bed_submit(bed, &request, sizeof(request));
}

static void access_is(uint32_t number, uint32_t user, uint32_t group, uint32_t mode) {
    struct shelf_region_info info;
    assert_true(core_region_get(bed->core, number, &info));
    assert_int_equal(info.owner, user);
    assert_int_equal(info.group, group);
    assert_int_equal(info.mode, mode);
}

static int setup(void **state) {
    (void)state;
    bed = bed_new(4096);
    become(&owner);
    uint64_t token = create("r", 1, 2, 0640);
    answered(token, SHELF_OK, REASON_NONE);
    region = bed_reply(bed, token)->region;
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bed_free(bed);
    return 0;
}

static void test_rights_by_class(void **state) {
    (void)state;
    assert_int_equal(rights_of(NULL, 100, 10, 0), RIGHT_ALL);
    assert_int_equal(rights_of(&root, 100, 10, 0), RIGHT_ALL);
    assert_int_equal(rights_of(&owner, 100, 10, 0600), RIGHT_ALL);
    assert_int_equal(rights_of(&owner, 100, 10, 0066), 0); // the first class that fits decides
    assert_int_equal(rights_of(&member, 100, 10, 0640), RIGHT_READ);
    assert_int_equal(rights_of(&member, 100, 5, 0620), RIGHT_WRITE);
    assert_int_equal(rights_of(&member, 100, 10, 0606), 0);
    assert_int_equal(rights_of(&other, 100, 10, 0604), RIGHT_READ);
    assert_int_equal(rights_of(&other, 100, 10, 0660), 0);
}

static void test_create_belongs_to_its_maker(void **state) {
    (void)state;
    access_is(region, 100, 10, 0640); // whatever the request says
    bed->credentials = NULL;
    uint64_t token = create("n", 33, 44, 07777);
    answered(token, SHELF_OK, REASON_NONE);
    access_is(bed_reply(bed, token)->region, 33, 44, 0666);
}

static uint64_t write_to(uint32_t number, uint64_t sequence) {
    return bed_write(bed, sequence, at(number, 0), 8, 1);
}

static uint64_t read_of(uint32_t number, uint64_t sequence, uint32_t target) {
    struct bed_tx *tx = bed_tx(bed, sequence, applied());
    bed_tx_line(tx, at(number, 64) >> LINE_SHIFT);
    bed_tx_range(tx, at(target, 0), 8, 2);
    return bed_tx_send(bed, tx);
}

static uint64_t add_to(uint32_t number, uint64_t sequence) {
    struct bed_tx *tx = bed_tx(bed, sequence, 0);
    bed_tx_operation(tx, at(number, 128), 1, OPERATION_ADD);
    return bed_tx_send(bed, tx);
}

static void test_commit_needs_rights(void **state) {
    (void)state;
    uint64_t token = create("all", 0, 0, 0666);
    answered(token, SHELF_OK, REASON_NONE);
    uint32_t open_region = bed_reply(bed, token)->region;
    answered(write_to(region, 1), SHELF_OK, REASON_NONE);
    answered(add_to(region, 2), SHELF_OK, REASON_NONE);
    become(&member);
    answered(write_to(region, 1), SHELF_DENIED, REASON_DENIED);
    answered(add_to(region, 2), SHELF_DENIED, REASON_DENIED);
    answered(read_of(region, 3, open_region), SHELF_OK, REASON_NONE);
    become(&other);
    answered(read_of(region, 1, open_region), SHELF_DENIED, REASON_DENIED);
    answered(write_to(open_region, 1), SHELF_OK, REASON_NONE); // the sequence was not used up
    become(&root);
    answered(write_to(region, 1), SHELF_OK, REASON_NONE);
    become(NULL);
    answered(write_to(region, 1), SHELF_OK, REASON_NONE);
}

// Its result tells what was there.
static void test_operation_needs_both_rights(void **state) {
    (void)state;
    uint64_t token = create("letterbox", 0, 0, 0622);
    answered(token, SHELF_OK, REASON_NONE);
    uint32_t letterbox = bed_reply(bed, token)->region;
    token = create("notice", 0, 0, 0644);
    answered(token, SHELF_OK, REASON_NONE);
    uint32_t notice = bed_reply(bed, token)->region;
    become(&other);
    answered(write_to(letterbox, 1), SHELF_OK, REASON_NONE);
    answered(add_to(letterbox, 2), SHELF_DENIED, REASON_DENIED);
    answered(add_to(notice, 2), SHELF_DENIED, REASON_DENIED);
    become(&owner);
    answered(add_to(letterbox, 1), SHELF_OK, REASON_NONE);
}

static void test_commit_of_many_regions_is_whole(void **state) {
    (void)state;
    uint64_t token = create("all", 0, 0, 0666);
    answered(token, SHELF_OK, REASON_NONE);
    uint32_t open_region = bed_reply(bed, token)->region;
    become(&other);
    struct bed_tx *tx = bed_tx(bed, 1, 0);
    bed_tx_range(tx, at(open_region, 0), 8, 7);
    bed_tx_range(tx, at(open_region, 64), 8, 7);
    bed_tx_range(tx, at(region, 0), 8, 7);
    bed_tx_range(tx, at(open_region, 128), 8, 7);
    answered(bed_tx_send(bed, tx), SHELF_DENIED, REASON_DENIED);
    assert_int_equal(bed_byte(bed, at(open_region, 0)), 0);
}

static void test_changes_need_rights(void **state) {
    (void)state;
    bed->credentials = &member;
    answered(bed_region_send(bed, REQUEST_REGION_GROW, region, 2 * MIB, 0, ""), SHELF_DENIED, REASON_DENIED);
    answered(bed_region_send(bed, REQUEST_REGION_DROP, region, 0, 0, ""), SHELF_DENIED, REASON_DENIED);
    answered(access_change(region, SHELF_KEEP, SHELF_KEEP, 0666), SHELF_DENIED, REASON_DENIED);
    bed->credentials = &owner;
    answered(access_change(region, SHELF_KEEP, SHELF_KEEP, 0660), SHELF_OK, REASON_NONE);
    access_is(region, 100, 10, 0660);
    bed->credentials = &member;
    answered(bed_region_send(bed, REQUEST_REGION_GROW, region, 2 * MIB, 0, ""), SHELF_OK, REASON_NONE);
    answered(bed_region_send(bed, REQUEST_REGION_DROP, region, 0, 0, ""), SHELF_DENIED, REASON_DENIED);
    access_is(region, 100, 10, 0660);
    bed->credentials = &owner;
    answered(bed_region_send(bed, REQUEST_REGION_DROP, region, 0, 0, ""), SHELF_OK, REASON_NONE);
}

static void test_access_by_owner(void **state) {
    (void)state;
    answered(access_change(region, 101, SHELF_KEEP, SHELF_KEEP), SHELF_DENIED, REASON_DENIED);
    answered(access_change(region, SHELF_KEEP, 11, SHELF_KEEP), SHELF_DENIED, REASON_DENIED);
    answered(access_change(region, SHELF_KEEP, SHELF_KEEP, 01666), SHELF_INVALID, REASON_REQUEST_MALFORMED);
    answered(access_change(region + 1, SHELF_KEEP, SHELF_KEEP, 0666), SHELF_NOT_FOUND, REASON_REGION_UNKNOWN);
    answered(access_change(REGION_SYSTEM, 100, 10, 0666), SHELF_NOT_FOUND, REASON_REGION_UNKNOWN);
    answered(access_change(region, 100, 10, 0), SHELF_OK, REASON_NONE); // as they are
    access_is(region, 100, 10, 0);
    bed->credentials = &root;
    answered(access_change(region, 101, 11, SHELF_KEEP), SHELF_OK, REASON_NONE);
    access_is(region, 101, 11, 0);
    bed->credentials = &member;
    answered(access_change(region, SHELF_KEEP, 7, 0606), SHELF_OK, REASON_NONE); // a group of its own
    access_is(region, 101, 7, 0606);
    bed_reopen(bed);
    access_is(region, 101, 7, 0606);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    bed_reopen(bed);
    access_is(region, 101, 7, 0606);
}

// What is admitted counts; what is durable is shown, and answered (C2, K2).
static void test_access_counts_when_admitted(void **state) {
    (void)state;
    become(&member);
    bed->held = 1u << FILE_LOG;
    bed->credentials = &owner;
    uint64_t change = access_change(region, SHELF_KEEP, SHELF_KEEP, 0600);
    access_is(region, 100, 10, 0640);
    bed->credentials = &member;
    uint64_t denied = read_of(region, 1, region);
    assert_false(bed->answered[change]);
    assert_false(bed->answered[denied]);
    bed->held = 0;
    answered(denied, SHELF_DENIED, REASON_DENIED);
    answered(change, SHELF_OK, REASON_NONE);
    access_is(region, 100, 10, 0600);
}

static void test_sessions_belong_to_users(void **state) {
    (void)state;
    uint64_t token = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "engine");
    answered(token, SHELF_OK, REASON_NONE);
    uint64_t session = bed_reply(bed, token)->session, holder = bed_reply(bed, token)->holder;
    bed->session = session;
    bed->holder = holder;
    answered(write_to(region, 1), SHELF_OK, REASON_NONE);
    for (int life = 0; life < 2; life++) {
        bed->credentials = &member;
        answered(bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "engine"), SHELF_DENIED,
                 REASON_SESSION_DENIED);
        answered(bed_session_send(bed, REQUEST_SESSION_OUTCOME, session, holder, 1, ""), SHELF_DENIED,
                 REASON_SESSION_DENIED);
        answered(bed_session_send(bed, REQUEST_SESSION_EXPIRE, session, holder, 0, ""), SHELF_DENIED,
                 REASON_SESSION_DENIED);
        answered(read_of(region, 9, region), SHELF_DENIED, REASON_SESSION_DENIED);
        answered(write_to(region, 1), SHELF_DENIED, REASON_SESSION_DENIED); // nor is its stored answer told
        bed_reopen(bed);
    }
    bed->credentials = &root;
    answered(bed_session_send(bed, REQUEST_SESSION_OUTCOME, session, holder, 1, ""), SHELF_OK, REASON_NONE);
    bed->credentials = &owner;
    answered(bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "engine"), SHELF_OK, REASON_NONE);
    answered(bed_session_send(bed, REQUEST_SESSION_EXPIRE, session, holder + 1, 0, ""), SHELF_OK,
             REASON_NONE);
    bed->credentials = &member; // the name is free
    answered(bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "engine"), SHELF_OK, REASON_NONE);
}

// A program keeps its named sessions, whether it is the node or attached to it.
static void test_sessions_of_the_nodes_program(void **state) {
    (void)state;
    bed->config.user = 100;
    bed_reopen(bed);
    bed->credentials = NULL;
    answered(bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "p"), SHELF_OK, REASON_NONE);
    bed->credentials = &member;
    answered(bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "p"), SHELF_DENIED, REASON_SESSION_DENIED);
    bed->credentials = &owner;
    answered(bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "p"), SHELF_OK, REASON_NONE);
    bed->config.user = 0;
}

static uint32_t sessions_open(uint32_t count_max, shelf_result *ret_last) {
    uint32_t count = 0;
    for (*ret_last = SHELF_OK; count < count_max && *ret_last == SHELF_OK; count += *ret_last == SHELF_OK) {
        *ret_last = bed_result(bed, bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, ""));
    }
    return count;
}

// Nobody fills the table for others; one who is alone has three quarters.
static void test_sessions_of_a_user_have_a_share(void **state) {
    (void)state;
    shelf_result last;
    uint32_t first = sessions_open(SHELF_SESSIONS_MAX, &last); // one is there already
    assert_int_equal(first + 1, 3 * SHELF_SESSIONS_MAX / 4);
    uint64_t token = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "engine");
    answered(token, SHELF_NO_SPACE, REASON_SESSION_SHARE_USER); // named ones count as well
    uint32_t left = SHELF_SESSIONS_MAX - first - 1;
    bed->credentials = &member;
    uint32_t second = sessions_open(SHELF_SESSIONS_MAX, &last);
    assert_int_equal(last, SHELF_NO_SPACE);
    assert_true(second >= left / 2 && second < left);
    bed->credentials = &other;
    assert_true(sessions_open(SHELF_SESSIONS_MAX, &last) >= 1);
    bed->credentials =
        &owner; // ... who has far more than its share now: its own idle ones make room, nobody else's
    struct core_status before, after;
    core_status_get(bed->core, &before);
    bed->now_ms += 11000;
    token = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "engine");
    answered(token, SHELF_OK, REASON_NONE);
    core_status_get(bed->core, &after);
    assert_int_equal(before.sessions, after.sessions);
    answered(write_to(region, 1), SHELF_EXPIRED, REASON_SESSION_UNKNOWN); // the oldest
    bed->credentials = NULL; // the node's own program takes what is left, and then what is idle
    assert_true(sessions_open(SHELF_SESSIONS_MAX, &last) >= SHELF_SESSIONS_MAX - 1 - after.sessions);
}

static uint64_t keep(uint64_t session, uint64_t holder) {
    return bed_session_send(bed, REQUEST_SESSION_KEEP, session, holder, 0, "");
}

// Unnamed sessions of an earlier node are kept for a minute, unless somebody speaks for them.
static void test_sessions_wait_for_their_clients(void **state) {
    (void)state;
    enum { KEPT, USED, LEFT, OTHERS, COUNT };
    uint64_t sessions[COUNT];
    for (int i = 0; i < COUNT; i++) {
        bed_session(bed);
        sessions[i] = bed->session;
        answered(write_to(region, 1), SHELF_OK, REASON_NONE);
    }
    answered(keep(sessions[KEPT], 2), SHELF_FENCED, REASON_SESSION_FENCED);
    answered(bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "engine"), SHELF_OK, REASON_NONE);
    bed_tick(bed, 100000); // under the node that they were opened with, nothing happens to them
    bed_run(bed);
    bed_reopen(bed);
    struct core_status status;
    core_status_get(bed->core, &status);
    assert_int_equal(status.sessions, COUNT + 2);
    uint64_t token = keep(sessions[KEPT], 1);
    answered(token, SHELF_OK, REASON_NONE);
    assert_int_equal(bed_reply(bed, token)->session, sessions[KEPT]);
    bed->session = sessions[USED];
    answered(write_to(region, 2), SHELF_OK, REASON_NONE);
    bed->credentials = &member;
    answered(keep(sessions[OTHERS], 1), SHELF_DENIED, REASON_SESSION_DENIED);
    bed->credentials = &owner;
    for (int i = 0; i < 5; i++) {
        core_status_get(bed->core, &status);
        assert_int_equal(status.sessions, COUNT + 2);
        bed_tick(bed, 11000);
        bed_run(bed);
    }
    bed_tick(bed, 11000);
    bed_run(bed);
    core_status_get(bed->core, &status);
    assert_int_equal(status.sessions, 3); // and the named one
    for (int i = 0; i < COUNT; i++) {
        bool lives = i == KEPT || i == USED;
        answered(keep(sessions[i], 1), lives ? SHELF_OK : SHELF_EXPIRED,
                 lives ? REASON_NONE : REASON_SESSION_UNKNOWN);
    }
}

// A drop moves the event word, so that those who wait for changes of the region learn of it.
static void test_drop_moves_the_event_word(void **state) {
    (void)state;
    uint32_t event = atomic_load(&bed->image->regions[region].event);
    answered(bed_region_send(bed, REQUEST_REGION_DROP, region, 0, 0, ""), SHELF_OK, REASON_NONE);
    assert_int_not_equal(atomic_load(&bed->image->regions[region].event), event);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rights_by_class, setup, teardown),
        cmocka_unit_test_setup_teardown(test_create_belongs_to_its_maker, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_needs_rights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_operation_needs_both_rights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_of_many_regions_is_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_changes_need_rights, setup, teardown),
        cmocka_unit_test_setup_teardown(test_access_by_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_access_counts_when_admitted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sessions_belong_to_users, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sessions_of_the_nodes_program, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sessions_of_a_user_have_a_share, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sessions_wait_for_their_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_moves_the_event_word, setup, teardown),
    };
    return cmocka_run_group_tests_name("core-rights", tests, NULL, NULL);
}
