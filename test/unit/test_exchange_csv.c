// SPDX-License-Identifier: Apache-2.0
//
// Order events as text: what is read, what is refused and with which words.

#include "exchange/csv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmocka_program.h"
#include "exchange/flow.h"

#define HEADER CSV_HEADER "\n"
#define GOOD   "65595247,1430438404518,1430438404000,236.47,200000000,created,bid"

static void event_is(const struct event *event, uint64_t id, uint64_t time_ms, uint32_t price,
                     uint64_t volume, int action, int side) {
    assert_int_equal(event->id, id);
    assert_int_equal(event->time_ms, time_ms);
    assert_int_equal(event->price, price);
    assert_int_equal(event->volume, volume);
    assert_int_equal(event->action, action);
    assert_int_equal(event->side, side);
}

static struct event line_read(const char *line) {
    struct csv_error error = {.reason = ""};
    struct event event = {0};
    if (!csv_line_parse(line, strlen(line), &event, &error)) {
        print_error("%s: %s\n", line, error.reason);
        fail();
    }
    return event;
}

static void test_csv_line_reads_all_fields(void **state) {
    (void)state;
    struct event event = line_read(GOOD);
    event_is(&event, 65595247, 1430438404518, 23647, 200000000, EVENT_CREATED, SIDE_BID);
    event = line_read("1,2,3,4,0,deleted,ask");
    event_is(&event, 1, 2, 400, 0, EVENT_DELETED, SIDE_ASK);
    event =
        line_read("18446744073709551615,9223372036854775807,0,10737418.23,1000000000000000,changed,ask\r");
    event_is(&event, UINT64_MAX, INT64_MAX, PRICE_MAX, VOLUME_MAX, EVENT_CHANGED, SIDE_ASK);
}

static void test_csv_price_in_cents(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint32_t cents;
    } prices[] = {{"236", 23600}, {"236.4", 23640}, {"236.04", 23604},
                  {"0.01", 1},    {"0.1", 10},      {"000236.47", 23647}};
    for (size_t i = 0; i < sizeof(prices) / sizeof(prices[0]); i++) {
        char line[128];
        snprintf(line, sizeof(line), "1,2,3,%s,5,created,bid", prices[i].text);
        assert_int_equal(line_read(line).price, prices[i].cents);
    }
}

static const struct {
    const char *line;
    const char *reason; // a part of it
} refused[] = {
    {"", "1 fields instead of 7"},
    {"1,2,3,4,5,created", "6 fields instead of 7"},
    {GOOD ",", "8 fields instead of 7"},
    {",2,3,4,5,created,bid", "id is empty"},
    {"0,2,3,4,5,created,bid", "id 0"},
    {"-1,2,3,4,5,created,bid", "id '-1' is not a number"},
    {"1e3,2,3,4,5,created,bid", "id '1e3' is not a number"},
    {"18446744073709551616,2,3,4,5,created,bid", "id '18446744073709551616' is larger than"},
    {"1, 2,3,4,5,created,bid", "timestamp ' 2' is not a number"},
    {"1,9223372036854775808,3,4,5,created,bid", "timestamp '9223372036854775808' is larger"},
    {"1,2,x,4,5,created,bid", "exchange.timestamp 'x' is not a number"},
    {"1,2,3,,5,created,bid", "price is empty"},
    {"1,2,3,4.,5,created,bid", "price '4.' needs one or two digits"},
    {"1,2,3,.5,5,created,bid", "price is empty"},
    {"1,2,3,4.123,5,created,bid", "price '4.123' needs one or two digits"},
    {"1,2,3,4.1.2,5,created,bid", "price '4.1.2' needs one or two digits"},
    {"1,2,3,4.-1,5,created,bid", "price after the point '-1' is not a number"},
    {"1,2,3,0,5,created,bid", "price '0' is not between"},
    {"1,2,3,0.00,5,created,bid", "price '0.00' is not between"},
    {"1,2,3,10737418.24,5,created,bid", "price '10737418.24' is not between"},
    {"1,2,3,99999999999999999999999,5,created,bid", "price '99999999999999999999999' is larger"},
    {"1,2,3,999999999999999999999999999,5,created,bid", "price '999999999999999999999999...' is larger"},
    {"1,2,3,4,1000000000000001,created,bid", "volume '1000000000000001' is larger"},
    {"1,2,3,4,0,created,bid", "order 1 is created with volume 0"},
    {"1,2,3,4,5,Created,bid", "action 'Created' is unknown"},
    {"1,2,3,4,5,,bid", "action '' is unknown"},
    {"1,2,3,4,5,created,buy", "direction 'buy' is unknown"},
    {"1,2,3,4,5,created,bid ", "direction 'bid ' is unknown"},
    {"1,2,3,4,5,created,b\x01\xff"
     "d",
     "direction 'b??d' is unknown"},
};

static void test_csv_line_refusals(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct csv_error error = {.reason = ""};
        struct event event = {.id = 77};
        bool good = csv_line_parse(refused[i].line, strlen(refused[i].line), &event, &error);
        if (good || !strstr(error.reason, refused[i].reason))
            print_error("%s: \"%s\" instead of \"%s\"\n", refused[i].line, error.reason, refused[i].reason);
        assert_false(good);
        assert_non_null(strstr(error.reason, refused[i].reason));
        assert_int_equal(event.id, 77); // untouched
    }
}

static void test_csv_file_reads_events(void **state) {
    (void)state;
    static const char *const texts[] = {
        HEADER GOOD "\n1,2,3,4,0,deleted,ask\n",
        HEADER GOOD "\n1,2,3,4,0,deleted,ask",
        CSV_HEADER "\r\n" GOOD "\r\n1,2,3,4,0,deleted,ask\r\n",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct csv_error error;
        struct event *events = NULL;
        size_t count = 0;
        assert_true(csv_parse(texts[i], strlen(texts[i]), &events, &count, &error));
        assert_int_equal(count, 2);
        assert_int_equal(events[0].price, 23647);
        assert_int_equal(events[1].id, 1);
        free(events);
    }
}

static void file_refused(const char *text, size_t size, size_t line, const char *reason) {
    struct csv_error error = {0};
    struct event *events = NULL;
    size_t count = 0;
    assert_false(csv_parse(text, size, &events, &count, &error));
    assert_null(events);
    if (!strstr(error.reason, reason))
        print_error("\"%s\" instead of \"%s\"\n", error.reason, reason);
    assert_non_null(strstr(error.reason, reason));
    assert_int_equal(error.line, line);
}

static void test_csv_file_refusals_name_the_line(void **state) {
    (void)state;
    static const char nul[] = HEADER GOOD "\n1,2,3\0,4,5,created,bid\n";
#define REFUSED(text, line, reason) file_refused(text, strlen(text), line, reason)
    REFUSED("", 1, "empty");
    REFUSED("\n", 1, "the header is ''");
    REFUSED(GOOD "\n", 1, "the header is '65595247,");
    REFUSED("id,price\n", 1, "the header is 'id,price'");
    REFUSED(HEADER "\n", 2, "1 fields");
    REFUSED(HEADER GOOD "\n\n" GOOD "\n", 3, "1 fields");
    REFUSED(HEADER GOOD "\n" GOOD "\n1,2\n", 4, "2 fields");
    REFUSED(HEADER GOOD "\n" GOOD "\n" GOOD ",", 4, "8 fields");
#undef REFUSED
    file_refused(nul, sizeof(nul) - 1, 3, "exchange.timestamp '3?' is not a number");
}

static void test_csv_header_alone_is_no_event(void **state) {
    (void)state;
    struct csv_error error;
    struct event *events = NULL;
    size_t count = 9;
    assert_true(csv_parse(HEADER, strlen(HEADER), &events, &count, &error));
    assert_int_equal(count, 0);
    free(events);
}

static void test_csv_format_reads_back(void **state) {
    (void)state;
    struct flow *flow = malloc(sizeof(*flow));
    assert_non_null(flow);
    flow_init(flow, 5);
    for (int i = 0; i < 20000; i++) {
        struct event event, again;
        struct csv_error error;
        char line[CSV_LINE_MAX];
        flow_next(flow, &event);
        size_t size = csv_format(&event, line);
        assert_int_equal(line[size - 1], '\n');
        assert_true(csv_line_parse(line, size - 1, &again, &error));
        event_is(&again, event.id, event.time_ms, event.price, event.volume, event.action, event.side);
    }
    free(flow);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv_line_reads_all_fields),
        cmocka_unit_test(test_csv_price_in_cents),
        cmocka_unit_test(test_csv_line_refusals),
        cmocka_unit_test(test_csv_file_reads_events),
        cmocka_unit_test(test_csv_file_refusals_name_the_line),
        cmocka_unit_test(test_csv_header_alone_is_no_event),
        cmocka_unit_test(test_csv_format_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
