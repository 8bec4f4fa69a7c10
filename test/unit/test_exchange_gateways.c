// SPDX-License-Identifier: Apache-2.0
//
// Inboxes and the order of arrivals: nobody submits or takes what somebody else has moved on, and the check notices events that
// are lost, doubled or changed.

#include "exchange/arrivals.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmocka_program.h"
#include "exchange/engine.h"
#include "exchange/input.h"
#include "exchange/plain.h"
#include "exchange/replay.h"

#define SEED   3
#define EVENTS 400
#define LANES  2

struct fixture {
    char path[64];
    char where[80];
    struct store store;
    struct input inputs[LANES];
    struct gateways gateways; // the first LANES of the list: what joined
};

#define OK(call) result_require((call), #call)

static void result_require(shelf_result result, const char *call) {
    if (result != SHELF_OK)
        print_error("%s: %s: %s\n", call, shelf_result_name(result), shelf_detail());
    assert_int_equal(result, SHELF_OK);
}

static shelf_result submit(struct fixture *fixture, unsigned lane, uint64_t position,
                           const struct event *events, size_t count) {
    shelf_tx *tx;
    OK(shelf_begin(fixture->store.s, SHELF_READ_WRITE, &tx));
    shelf_result result =
        inbox_append(tx, &fixture->store.inbox, &fixture->gateways.list[lane], position, events, count);
    if (result == SHELF_OK)
        return shelf_commit(tx, NULL);
    shelf_abort(tx);
    return result;
}

// Each gateway submits all of its lane but the last `but` events.
static void lanes_submit(struct fixture *fixture, size_t but) {
    for (unsigned lane = 0; lane < LANES; lane++)
        OK(submit(fixture, lane, 0, fixture->inputs[lane].events, fixture->inputs[lane].count - but));
}

static void intake_take(struct fixture *fixture, size_t count_max, struct event *events,
                        struct intake *ret_intake) {
    *ret_intake = (struct intake){.events = events, .room = EVENTS};
    OK(taken_get(&fixture->store, &ret_intake->before));
    for (uint32_t lane = 0; lane < LANES; lane++)
        OK(intake_add(ret_intake, &fixture->store, &fixture->gateways, lane, count_max));
}

static shelf_result intake_match(struct fixture *fixture, const struct intake *intake) {
    struct turn turn;
    shelf_tx *tx;
    OK(shelf_begin(fixture->store.s, SHELF_READ_WRITE, &tx));
    shelf_result result = intake_record(tx, &fixture->store, intake);
    if (result != SHELF_OK) {
        shelf_abort(tx);
        return result;
    }
    OK(turn_begin(&turn, &fixture->store, tx));
    for (size_t i = 0; i < intake->count; i++)
        OK(turn_apply(&turn, &intake->events[i]));
    OK(turn_end(&turn));
    return shelf_commit(tx, NULL);
}

static void all_match(struct fixture *fixture) {
    struct event events[EVENTS];
    struct intake intake;
    for (intake_take(fixture, 7, events, &intake); intake.count > 0; intake_take(fixture, 7, events, &intake))
        OK(intake_match(fixture, &intake));
}

// Everything but `bad` (NULL: nothing) must be as it should.
static void findings_require(struct fixture *fixture, const char *bad) {
    const struct options options = {0};
    struct findings findings = {.good = true};
    struct plain plain;
    bool found = false;

    plain_init(&plain);
    assert_int_equal(arrivals_replay(&options, &fixture->store, &plain, &findings), EXIT_CODE_OK);
    OK(exchange_compare(&fixture->store, &plain, &findings));
    plain_free(&plain);
    assert_int_equal(findings.count, FINDINGS_MAX);
    for (unsigned i = 0; i < findings.count; i++) {
        const struct finding *finding = &findings.list[i];
        found |= bad && strcmp(finding->name, bad) == 0 && !finding->good;
        if (!bad && !finding->good)
            fail_msg("%s: %s", finding->name, finding->detail);
    }
    assert_int_equal(findings.good, bad == NULL);
    assert_int_equal(found, bad != NULL);
}

static void gateways_begin(struct fixture *fixture) {
    char error[INPUT_ERROR_MAX];
    for (unsigned lane = 0; lane < LANES; lane++) {
        struct input *input = &fixture->inputs[lane];
        struct gateway *gateway = &fixture->gateways.list[lane];
        assert_true(input_generate(SEED, EVENTS, input, error));
        input_keep_lane(input, lane, LANES);
        *gateway = (struct gateway){.lane = lane, .lanes = LANES, .origin = input->origin};
        snprintf(gateway->name, sizeof(gateway->name), "lane%u", lane);
        OK(inbox_join(&fixture->store.inbox, gateway));
    }
    fixture->gateways.count = LANES;
}

static int setup(void **state) {
    const struct origin origin = {.kind = ORIGIN_GATEWAYS};
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    if (!fixture)
        return -1;
    const char *parent = getenv("TMPDIR");
    snprintf(fixture->path, sizeof(fixture->path), "%.40s/shelf-gateways.XXXXXX", parent ? parent : "/tmp");
    if (!mkdtemp(fixture->path)) {
        free(fixture);
        return -1;
    }
    snprintf(fixture->where, sizeof(fixture->where), "dir:%s", fixture->path);
    OK(store_open(fixture->where, &origin, &fixture->store));
    gateways_begin(fixture);
    *state = fixture;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fixture = *state;
    char command[128];
    int status = (int)store_close(&fixture->store);
    for (unsigned lane = 0; lane < LANES; lane++)
        input_free(&fixture->inputs[lane]);
    snprintf(command, sizeof(command), "rm -rf '%s'", fixture->path);
    status |= system(command);
    free(fixture);
    return status;
}

static void test_lanes_are_the_input(void **state) {
    struct fixture *fixture = *state;
    char error[INPUT_ERROR_MAX];
    assert_int_equal(fixture->inputs[0].count + fixture->inputs[1].count, EVENTS);
    for (unsigned lane = 0; lane < LANES; lane++) {
        const struct input *whole = &fixture->inputs[lane];
        struct input again;
        for (size_t i = 0; i < whole->count; i++)
            assert_int_equal(whole->events[i].id % LANES, lane);
        assert_true(input_lane_again(&whole->origin, lane, LANES, whole->count, &again, error));
        assert_int_equal(again.count, whole->count);
        assert_memory_equal(again.events, whole->events, whole->count * sizeof(*whole->events));
        input_free(&again);
    }
}

static void test_all_is_found_well(void **state) {
    struct fixture *fixture = *state;
    findings_require(fixture, NULL); // nothing at all yet
    lanes_submit(fixture, 0);
    findings_require(fixture, NULL); // submitted, and not taken
    all_match(fixture);
    findings_require(fixture, NULL);
}

static void test_join_again_is_the_same(void **state) {
    struct fixture *fixture = *state;
    struct gateway again = {.lane = 1, .lanes = 9};
    strcpy(again.name, "lane0");
    OK(inbox_join(&fixture->store.inbox, &again));
    assert_memory_equal(&again, &fixture->gateways.list[0], sizeof(again));
    for (unsigned number = LANES; number <= GATEWAYS_MAX; number++) {
        struct gateway more = {.lanes = 1};
        snprintf(more.name, sizeof(more.name), "more%u", number);
        assert_int_equal(inbox_join(&fixture->store.inbox, &more),
                         number < GATEWAYS_MAX ? SHELF_OK : SHELF_TOO_LARGE);
    }
}

static void test_position_that_moved_is_fenced(void **state) {
    struct fixture *fixture = *state;
    struct event events[EVENTS];
    struct intake first, late;
    lanes_submit(fixture, 2);
    const struct input *input = &fixture->inputs[0];
    assert_int_equal(submit(fixture, 0, 0, input->events, 1), SHELF_FENCED);
    assert_int_equal(submit(fixture, 0, input->count, input->events, 1), SHELF_FENCED);
    intake_take(fixture, 5, events, &first);
    late = first;
    OK(intake_match(fixture, &first));
    assert_int_equal(intake_match(fixture, &late), SHELF_FENCED);
    all_match(fixture);
    findings_require(fixture, NULL);
}

static void test_doubled_event_is_found(void **state) {
    struct fixture *fixture = *state;
    const struct input *input = &fixture->inputs[1];
    lanes_submit(fixture, 1);
    OK(submit(fixture, 1, input->count - 1, &input->events[input->count - 2], 1));
    all_match(fixture);
    findings_require(fixture, "inboxes");
}

static void test_lost_event_is_found(void **state) {
    struct fixture *fixture = *state;
    const struct input *input = &fixture->inputs[0];
    OK(submit(fixture, 0, 0, input->events, 10));
    OK(submit(fixture, 0, 10, input->events + 11, input->count - 11));
    all_match(fixture);
    findings_require(fixture, "inboxes");
}

static void test_false_order_is_found(void **state) {
    struct fixture *fixture = *state;
    struct event events[EVENTS];
    struct intake intake;
    lanes_submit(fixture, 0);
    intake_take(fixture, 20, events, &intake);
    intake.stretches[0].first = 1; // says that it took others than it did
    OK(intake_match(fixture, &intake));
    findings_require(fixture, "arrivals");
}

static void test_event_matched_twice_is_found(void **state) {
    struct fixture *fixture = *state;
    struct event events[EVENTS];
    struct intake intake;
    lanes_submit(fixture, 0);
    intake_take(fixture, 20, events, &intake);
    intake.events[intake.count] = intake.events[0];
    intake.count++;
    OK(intake_match(fixture, &intake));
    findings_require(fixture, "events");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_lanes_are_the_input),    TEST(test_all_is_found_well),
        TEST(test_join_again_is_the_same), TEST(test_position_that_moved_is_fenced),
        TEST(test_doubled_event_is_found), TEST(test_lost_event_is_found),
        TEST(test_false_order_is_found),   TEST(test_event_matched_twice_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
