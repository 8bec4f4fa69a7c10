// SPDX-License-Identifier: Apache-2.0
//
// Requests of every kind, right and wrong: commits, sessions, regions; and what waits for what.

#include "core_bed.h"

enum { MIB = 1 << 20 };

static struct bed *bed;
static uint32_t region;

static uint64_t at(uint64_t offset) {
    return shelf_addr_make((shelf_region)region, offset);
}

static uint64_t line(uint64_t offset) {
    return at(offset) >> LINE_SHIFT;
}

static int setup(void **state) {
    (void)state;
    bed = bed_new(4096);
    bed_session(bed);
    region = bed_region(bed, "r", MIB);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bed_free(bed);
    return 0;
}

static uint64_t applied(void) {
    return atomic_load(&bed->image->applied);
}

static void refused_with(uint64_t token, shelf_result result, enum reply_reason reason) {
    assert_int_equal(bed_result(bed, token), result);
    assert_int_equal(bed_reply(bed, token)->reason, reason);
}

static void log_hold(bool hold) {
    bed->held = hold ? 1u << FILE_LOG : 0;
}

// ---- Malformed -----------------------------------------------------------------------------------------------------

static void test_malformed_headers(void **state) {
    (void)state;
    uint8_t bytes[4096] = {0};
    for (size_t size = 0; size < 200; size += 7) {
        for (uint16_t kind = 0; kind < 10; kind++) {
            struct request_header header = {.size = (uint32_t)size, .kind = kind};
            memcpy(bytes, &header, sizeof(header));
            bool commit = kind == REQUEST_COMMIT && size == sizeof(struct commit_request); // well-formed
            if (!commit && size != sizeof(struct session_request) && size != sizeof(struct region_request)) {
                refused_with(bed_submit(bed, bytes, size), SHELF_INVALID, REASON_REQUEST_MALFORMED);
            }
        }
    }
    struct session_request session = {.header = {.size = sizeof(session), .kind = REQUEST_SESSION_OPEN}};
    memset(session.name, 'x', sizeof(session.name));
    refused_with(bed_submit(bed, &session, sizeof(session)), SHELF_INVALID, REASON_REQUEST_MALFORMED);
    struct region_request create = {.header = {.size = sizeof(create), .kind = REQUEST_REGION_CREATE}};
    memset(create.name, 'x', sizeof(create.name));
    refused_with(bed_submit(bed, &create, sizeof(create)), SHELF_INVALID, REASON_REQUEST_MALFORMED);
}

static void test_malformed_commits(void **state) {
    (void)state;
    for (uint32_t kind = 0; kind < 14; kind++) {
        struct bed_tx *tx = bed_tx(bed, 1, applied());
        bed_tx_line(tx, line(0));
        bed_tx_operation(tx, at(64), 1, OPERATION_ADD);
        size_t ranges = tx->size;
        bed_tx_range(tx, at(0), 16, 1);
        struct record_range *range = (struct record_range *)(void *)(tx->bytes + ranges);
        struct request_operation *operation =
            (struct request_operation *)(void *)(tx->bytes + ranges - sizeof(*operation));
        uint64_t *first_line = (uint64_t *)(void *)(tx->bytes + sizeof(tx->head));
        switch (kind) {
        case 0:
            tx->head.header.size++;
            break;
        case 1:
            tx->head.ranges_size -= 4;
            break;
        case 2:
            tx->head.line_count = UINT32_MAX;
            break;
        case 3:
            tx->head.operation_count = UINT32_MAX;
            break;
        case 4:
            tx->head.range_count = UINT32_MAX;
            break;
        case 5:
            tx->head.range_count = 2;
            break;
        case 6:
            tx->head.range_count = 0;
            break;
        case 7:
            range->size = 0;
            break;
        case 8:
            range->reserved = 1;
            break;
        case 9:
            range->size = 4000;
            break;
        case 10:
            operation->code = 0;
            break;
        case 11:
            operation->code = OPERATION_OR + 1;
            break;
        case 12:
            operation->address += 4;
            break;
        default:
            *first_line = line(0) + MIB / LINE_SIZE;
            break;
        }
        refused_with(bed_tx_send(bed, tx), SHELF_INVALID, REASON_REQUEST_MALFORMED);
    }
    struct bed_tx *tx = bed_tx(bed, 1, applied());
    bed_tx_line(tx, shelf_addr_make(REGION_SYSTEM, 0) >> LINE_SHIFT);
    refused_with(bed_tx_send(bed, tx), SHELF_INVALID, REASON_REQUEST_MALFORMED);
    tx = bed_tx(bed, 0, applied());
    refused_with(bed_tx_send(bed, tx), SHELF_INVALID, REASON_REQUEST_MALFORMED);
    assert_int_equal(bed_result(bed, bed_write(bed, 1, at(0), 8, 1)), SHELF_OK); // nothing of it has stayed
}

static void test_commits_outside_of_regions(void **state) {
    (void)state;
    refused_with(bed_write(bed, 1, at(MIB - 4), 8, 1), SHELF_INVALID, REASON_REQUEST_RANGE);
    refused_with(bed_write(bed, 1, at(((uint64_t)1 << 48) - 8), 8, 1), SHELF_INVALID, REASON_REQUEST_RANGE);
    refused_with(bed_write(bed, 1, shelf_addr_make(77, 0), 8, 1), SHELF_INVALID, REASON_REQUEST_RANGE);
    refused_with(bed_write(bed, 1, 8, 8, 1), SHELF_INVALID, REASON_REQUEST_RANGE);
    refused_with(bed_write(bed, 1, shelf_addr_make(REGION_SYSTEM, 0), 8, 1), SHELF_DENIED,
                 REASON_REQUEST_SYSTEM);
    struct bed_tx *tx = bed_tx(bed, 1, 0);
    bed_tx_operation(tx, at(MIB), 1, OPERATION_ADD);
    refused_with(bed_tx_send(bed, tx), SHELF_INVALID, REASON_REQUEST_RANGE);
}

static void test_too_large(void **state) {
    (void)state;
    struct bed_tx *tx = bed_tx(bed, 1, 0);
    bed_tx_range(tx, at(0), MIB, 1); // over the payload of the small buffers
    refused_with(bed_tx_send(bed, tx), SHELF_TOO_LARGE, REASON_REQUEST_TOO_LARGE);
    size_t size = sizeof(struct commit_request) + REQUEST_RANGES_BYTES_MAX + 8;
    struct commit_request *large = bed_map(size);
    large->header = (struct request_header){.size = (uint32_t)size, .kind = REQUEST_COMMIT};
    large->ranges_size = REQUEST_RANGES_BYTES_MAX + 8;
    refused_with(bed_submit(bed, large, size), SHELF_TOO_LARGE, REASON_REQUEST_TOO_LARGE);
    munmap(large, size);
}

// ---- Certification -------------------------------------------------------------------------------------------------

static uint64_t read_and_write(uint64_t sequence, uint64_t index, uint64_t read, uint64_t written) {
    struct bed_tx *tx = bed_tx(bed, sequence, index);
    bed_tx_line(tx, read);
    bed_tx_range(tx, at(written), 8, 1);
    return bed_tx_send(bed, tx);
}

static void test_conflicts(void **state) {
    (void)state;
    uint64_t before = applied();
    assert_int_equal(bed_result(bed, read_and_write(1, before, line(0), 0)), SHELF_OK);
    refused_with(read_and_write(2, before, line(0), 0), SHELF_CONFLICT, REASON_CERTIFY);
    assert_int_equal(bed_result(bed, read_and_write(2, applied(), line(0), 0)), SHELF_OK);
    refused_with(read_and_write(3, applied() + 1, line(64), 0), SHELF_CONFLICT, REASON_CERTIFY);
    refused_with(read_and_write(3, applied(), shelf_addr_make(77, 0) >> LINE_SHIFT, 0), SHELF_CONFLICT,
                 REASON_CERTIFY);
    refused_with(read_and_write(3, applied(), UINT64_MAX, 0), SHELF_CONFLICT, REASON_CERTIFY);
    refused_with(read_and_write(3, 0, line(64), 0), SHELF_CONFLICT, REASON_CERTIFY); // before the region was
}

static void test_conflict_with_a_pending_record_waits_for_its_fate(void **state) {
    (void)state;
    log_hold(true);
    uint64_t first = bed_write(bed, 1, at(0), 8, 1); // in flight
    uint64_t second = bed_write(bed, 2, at(64), 8, 1);
    uint64_t on_first = read_and_write(3, applied(), line(0), 128);
    uint64_t on_second = read_and_write(3, applied(), line(64), 128);
    uint64_t invalid = bed_write(bed, 3, at(MIB), 8, 1);
    bed_run(bed);
    for (uint64_t token = first; token <= invalid; token++) {
        assert_false(bed->answered[token]);
    }
    log_hold(false);
    assert_int_equal(bed_result(bed, first), SHELF_OK);
    assert_int_equal(bed_result(bed, second), SHELF_OK);
    refused_with(on_first, SHELF_CONFLICT, REASON_CERTIFY);
    refused_with(on_second, SHELF_CONFLICT, REASON_CERTIFY);
    refused_with(invalid, SHELF_INVALID, REASON_REQUEST_RANGE);
}

static void test_operations(void **state) {
    (void)state;
    struct bed_tx *tx = bed_tx(bed, 1, 0);
    const uint64_t operands[] = {12, 10, 11, 6, 1};
    for (uint32_t code = OPERATION_ADD; code <= OPERATION_OR; code++) {
        bed_tx_operation(tx, at(0), operands[code - 1], code);
    }
    for (uint32_t i = 0; i < 10; i++) {
        bed_tx_operation(tx, at(8), 1, OPERATION_ADD);
    }
    log_hold(true);
    uint64_t first = bed_tx_send(bed, tx);
    tx = bed_tx(bed, 2, 0);
    bed_tx_operation(tx, at(8), 5, OPERATION_ADD);
    uint64_t second = bed_tx_send(bed, tx); // sees the one in flight
    log_hold(false);
    assert_int_equal(bed_result(bed, second), SHELF_OK);
    const struct shelf_receipt *receipt = &bed_reply(bed, first)->receipt;
    assert_int_equal(receipt->result_count, SHELF_TX_RESULTS_MAX);
    const uint64_t expected[] = {12, 10, 11, 2, 3, 1, 2};
    for (uint32_t i = 0; i < 7; i++) {
        assert_int_equal(receipt->results[i], expected[i]);
    }
    assert_int_equal(bed_reply(bed, second)->receipt.results[0], 15);
    assert_int_equal(bed_byte(bed, at(8)), 15);
}

static void test_batch_has_bounds(void **state) {
    (void)state;
    log_hold(true);
    (void)bed_write(bed, 1, at(0), 8, 1); // in flight
    uint64_t admitted = 1;
    do {
        bed_write(bed, ++admitted, at(64), 8, 2);
    } while (!bed->effects.refused);
    assert_int_equal(admitted - 2, RECORD_TXS_MAX);
    // Refusals that wait have a bound, too.
    uint64_t conflicts = 0;
    for (;;) {
        struct bed_tx *tx = bed_tx(bed, 1, 0);
        tx->head.session = 77;
        bed_tx_send(bed, tx);
        if (bed->effects.refused) {
            break;
        }
        conflicts++;
    }
    assert_true(conflicts > 0);
    (void)bed_write(bed, 5, at(64), 8, 2); // a duplicate that would have to wait
    assert_true(bed->effects.refused);
    log_hold(false);
    bed_run(bed);
    assert_int_equal(bed_result(bed, bed_write(bed, admitted, at(64), 8, 2)), SHELF_OK);
    uint32_t bytes = MIB / 2;
    log_hold(true);
    (void)bed_write(bed, ++admitted, at(0), bytes, 1);
    (void)bed_write(bed, ++admitted, at(0), bytes, 1);
    (void)bed_write(bed, ++admitted, at(0), bytes, 1);
    assert_true(bed->effects.refused);
    log_hold(false);
    bed_run(bed);
    assert_int_equal(bed_result(bed, bed_write(bed, admitted, at(0), bytes, 1)), SHELF_OK);
}

static uint32_t refusals_until_refused(void) {
    for (uint32_t count = 0;; count++) {
        struct bed_tx *tx = bed_tx(bed, 1, 0);
        tx->head.session = 77;
        bed_tx_send(bed, tx);
        if (bed->effects.refused) {
            return count;
        }
    }
}

static void test_answers_that_wait_have_bounds(void **state) {
    (void)state;
    log_hold(true);
    (void)bed_write(bed, 1, at(0), 8, 1); // in flight
    assert_true(refusals_until_refused() > 0);
    (void)read_and_write(2, applied(), line(0), 64); // a conflict with it
    assert_true(bed->effects.refused);
    (void)bed_write(bed, 1, at(0), 8, 1); // its duplicate
    assert_true(bed->effects.refused);
    (void)bed_write(bed, 2, at(64), 8, 1); // goes into the next
    assert_false(bed->effects.refused);
    assert_true(refusals_until_refused() > 0);
    (void)bed_write(bed, 3, at(64), 8, 1);
    assert_true(bed->effects.refused);
    log_hold(false);
    bed_run(bed);
    assert_int_equal(bed_result(bed, bed_write(bed, 3, at(64), 8, 1)), SHELF_OK);
}

// ---- Sessions ------------------------------------------------------------------------------------------------------

static void test_duplicate_of_a_pending_commit_waits(void **state) {
    (void)state;
    log_hold(true);
    uint64_t first = bed_write(bed, 1, at(0), 8, 1);
    uint64_t again = bed_write(bed, 1, at(0), 8, 2);
    bed_run(bed);
    assert_false(bed->answered[again]);
    log_hold(false);
    assert_int_equal(bed_result(bed, first), SHELF_OK);
    assert_int_equal(bed_result(bed, again), SHELF_OK);
    assert_true(bed_reply(bed, again)->receipt.replayed);
    assert_int_equal(bed_byte(bed, at(0)), 1);
}

static void test_session_window(void **state) {
    (void)state;
    for (uint64_t sequence = 1; sequence <= 100; sequence++) {
        assert_int_equal(bed_result(bed, bed_write(bed, sequence, at(0), 8, 1)), SHELF_OK);
    }
    for (uint32_t life = 0; life < 2; life++) {
        refused_with(bed_write(bed, 36, at(0), 8, 1), SHELF_EXPIRED, REASON_SESSION_WINDOW);
        refused_with(bed_session_send(bed, REQUEST_SESSION_OUTCOME, bed->session, bed->holder, 36, ""),
                     SHELF_EXPIRED, REASON_SESSION_WINDOW);
        assert_int_equal(bed_result(bed, bed_write(bed, 37, at(0), 8, 1)), SHELF_OK);
        bed_reopen(bed);
    }
}

static void test_outcome_fences(void **state) {
    (void)state;
    uint64_t outcome = bed_session_send(bed, REQUEST_SESSION_OUTCOME, bed->session, bed->holder, 1, "");
    refused_with(outcome, SHELF_ABORTED, REASON_SEQUENCE_FENCED);
    refused_with(bed_write(bed, 1, at(0), 8, 1), SHELF_ABORTED, REASON_SEQUENCE_FENCED);
    bed_reopen(bed);
    refused_with(bed_write(bed, 1, at(0), 8, 1), SHELF_ABORTED, REASON_SEQUENCE_FENCED);
    assert_int_equal(bed_result(bed, bed_write(bed, 2, at(0), 8, 1)), SHELF_OK);
    outcome = bed_session_send(bed, REQUEST_SESSION_OUTCOME, bed->session, bed->holder, 2, "");
    assert_int_equal(bed_result(bed, outcome), SHELF_OK);
    outcome = bed_session_send(bed, REQUEST_SESSION_OUTCOME, bed->session, bed->holder, 0, "");
    refused_with(outcome, SHELF_EXPIRED, REASON_SESSION_WINDOW);
}

static void test_named_session_is_resumed_and_fences(void **state) {
    (void)state;
    uint64_t first = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "name");
    assert_int_equal(bed_result(bed, first), SHELF_OK);
    bed->session = bed_reply(bed, first)->session;
    bed->holder = bed_reply(bed, first)->holder;
    assert_int_equal(bed_result(bed, bed_write(bed, 7, at(0), 8, 1)), SHELF_OK);
    uint64_t session = bed->session, holder = bed->holder;
    bed_reopen(bed);
    uint64_t again = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "name");
    assert_int_equal(bed_result(bed, again), SHELF_OK);
    assert_true(bed_reply(bed, again)->session == session && bed_reply(bed, again)->holder == holder + 1);
    assert_int_equal(bed_reply(bed, again)->session_last, 7);
    refused_with(bed_write(bed, 8, at(0), 8, 1), SHELF_FENCED, REASON_SESSION_FENCED);
    refused_with(bed_session_send(bed, REQUEST_SESSION_OUTCOME, session, holder, 8, ""), SHELF_FENCED,
                 REASON_SESSION_FENCED);
}

static void test_expired_sessions_stay_so(void **state) {
    (void)state;
    uint64_t token = bed_session_send(bed, REQUEST_SESSION_EXPIRE, bed->session, bed->holder, 0, "");
    assert_int_equal(bed_result(bed, token), SHELF_OK);
    refused_with(bed_write(bed, 1, at(0), 8, 1), SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
    refused_with(bed_session_send(bed, REQUEST_SESSION_EXPIRE, bed->session, bed->holder, 0, ""),
                 SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
    uint64_t session = bed->session;
    bed_session(bed); // in the same place
    assert_true(bed->session != session && (bed->session & 0xffff) == (session & 0xffff));
    bed_reopen(bed);
    bed->session = session;
    refused_with(bed_write(bed, 1, at(0), 8, 1), SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
}

static void test_session_opened_and_expired_within_one_record(void **state) {
    (void)state;
    log_hold(true);
    (void)bed_write(bed, 1, at(0), 8, 1); // in flight
    uint64_t open = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "");
    uint64_t id = (applied() + 2) << 16 | 1; // guessed: not usable before it is there
    uint64_t expire = bed_session_send(bed, REQUEST_SESSION_EXPIRE, id, 1, 0, "");
    log_hold(false);
    assert_int_equal(bed_result(bed, open), SHELF_OK);
    assert_int_equal(bed_reply(bed, open)->session, id);
    refused_with(expire, SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
}

static void test_idle_sessions_expire(void **state) {
    (void)state;
    uint64_t named = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "name");
    assert_int_equal(bed_result(bed, named), SHELF_OK);
    bed_tick(bed, 3700000);
    bed_run(bed);
    refused_with(bed_write(bed, 1, at(0), 8, 1), SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
    struct core_status status;
    core_status_get(bed->core, &status);
    assert_int_equal(status.sessions, 1);
    bed_tick(bed, 3700000);
    bed_run(bed);
    core_status_get(bed->core, &status);
    assert_int_equal(status.sessions, 0);
}

static void test_session_table_full(void **state) {
    (void)state;
    uint64_t token = 0;
    for (uint32_t i = 1; i < SHELF_SESSIONS_MAX; i++) {
        token = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "");
    }
    assert_int_equal(bed_result(bed, token), SHELF_OK);
    refused_with(bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, ""), SHELF_NO_SPACE,
                 REASON_SESSION_TABLE_FULL);
    bed->now_ms += 11000; // the one that has been idle for longest makes room
    assert_int_equal(bed_result(bed, bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "")), SHELF_OK);
    refused_with(bed_write(bed, 1, at(0), 8, 1), SHELF_EXPIRED, REASON_SESSION_UNKNOWN);
}

// ---- Regions -------------------------------------------------------------------------------------------------------

static uint64_t create(const char *name, uint64_t size, uint64_t size_max) {
    return bed_region_send(bed, REQUEST_REGION_CREATE, 0, size, size_max, name);
}

static void test_region_life(void **state) {
    (void)state;
    uint32_t number = bed_region(bed, "a", 8192);
    assert_int_equal(bed_result(bed, bed_write(bed, 1, shelf_addr_make((shelf_region)number, 8184), 8, 5)),
                     SHELF_OK);
    uint64_t index = applied();
    assert_int_equal(bed_result(bed, bed_region_send(bed, REQUEST_REGION_GROW, number, MIB, 0, "")),
                     SHELF_OK);
    assert_int_equal(bed_result(bed, bed_region_send(bed, REQUEST_REGION_GROW, number, 8192, 0, "")),
                     SHELF_OK);
    assert_int_equal(bed_result(bed, bed_write(bed, 2, shelf_addr_make((shelf_region)number, MIB - 8), 8, 6)),
                     SHELF_OK);
    for (uint32_t life = 0; life < 3; life++) {
        struct shelf_region_info info;
        assert_true(core_region_find(bed->core, "a", &info));
        assert_true(info.region == number && info.size == MIB);
        assert_int_equal(bed_byte(bed, shelf_addr_make((shelf_region)number, 8184)), 5);
        assert_int_equal(bed_byte(bed, shelf_addr_make((shelf_region)number, MIB - 8)), 6);
        if (life == 1) {
            assert_int_equal(bed_checkpoint(bed), SHELF_OK);
        }
        bed_reopen(bed);
    }
    assert_int_equal(bed_result(bed, bed_region_send(bed, REQUEST_REGION_DROP, number, 0, 0, "")), SHELF_OK);
    refused_with(bed_write(bed, 3, shelf_addr_make((shelf_region)number, 0), 8, 5), SHELF_INVALID,
                 REASON_REQUEST_RANGE);
    struct bed_tx *tx = bed_tx(bed, 3, index);
    bed_tx_line(tx, shelf_addr_make((shelf_region)number, 0) >> LINE_SHIFT);
    bed_tx_range(tx, at(0), 8, 1);
    refused_with(bed_tx_send(bed, tx), SHELF_CONFLICT, REASON_CERTIFY);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    assert_false(core_region_known(bed->core, number));
    assert_null(bed->memories[number]);
    bed_reopen(bed);
    assert_int_equal(bed_region(bed, "a", 4096), number + 1); // numbers are given out once
}

static void test_region_refusals(void **state) {
    (void)state;
    refused_with(create("", 4096, 4096), SHELF_INVALID, REASON_REQUEST_MALFORMED);
    refused_with(create("r", 4096, 4096), SHELF_EXISTS, REASON_REGION_NAME);
    const uint64_t sizes[][2] = {{0, 4096},
                                 {100, 4096},
                                 {8192, 4096},
                                 {4096, 5000},
                                 {4096, SHELF_REGION_BYTES_MAX * 2},
                                 {SHELF_REGION_BYTES_MAX, SHELF_REGION_BYTES_MAX}};
    for (uint32_t i = 0; i < 6; i++) {
        refused_with(create("x", sizes[i][0], sizes[i][1]), SHELF_TOO_LARGE, REASON_REGION_SIZE);
    }
    refused_with(bed_region_send(bed, REQUEST_REGION_GROW, region, 2 * BED_MEMORY_MAX, 0, ""),
                 SHELF_TOO_LARGE, REASON_REGION_SIZE);
    const uint32_t unknown[] = {0, REGION_SYSTEM, 500, REGION_NUMBERS, UINT32_MAX};
    for (uint32_t i = 0; i < 5; i++) {
        refused_with(bed_region_send(bed, REQUEST_REGION_GROW, unknown[i], MIB, 0, ""), SHELF_NOT_FOUND,
                     REASON_REGION_UNKNOWN);
        refused_with(bed_region_send(bed, REQUEST_REGION_DROP, unknown[i], 0, 0, ""), SHELF_NOT_FOUND,
                     REASON_REGION_UNKNOWN);
    }
}

static void test_region_without_space_leaves_nothing(void **state) {
    (void)state;
    const struct {
        uint32_t kind, file, result;
    } fails[] = {{IO_RESERVE, FILE_PAGES, IO_RESULT_NO_SPACE},
                 {IO_RESERVE, FILE_ROOTS, IO_RESULT_NO_SPACE},
                 {IO_MAP, 0, IO_RESULT_NO_MEMORY}};
    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t grow = 0; grow < 2; grow++) {
            bed->fail_kind = fails[i].kind;
            bed->fail_file = fails[i].file;
            bed->fail_result = fails[i].result;
            bed->fail_count = 1;
            shelf_result expected = i == 2 ? SHELF_NO_MEMORY : SHELF_NO_SPACE;
            uint64_t token = grow ? bed_region_send(bed, REQUEST_REGION_GROW, region, 2 * MIB, 0, "")
                                  : create("x", 4096, 4096);
            refused_with(token, expected, i == 2 ? REASON_MEMORY : REASON_DISK_FULL);
        }
    }
    assert_int_equal(bed_region(bed, "x", 4096), region + 1);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    bed_reopen(bed);
}

static void test_one_change_of_the_catalog_at_a_time(void **state) {
    (void)state;
    bed->held = 1u << FILE_PAGES;
    uint64_t first = create("x", 4096, 4096);
    (void)create("y", 4096, 4096);
    assert_true(bed->effects.refused);
    bed->held = 0;
    assert_int_equal(bed_result(bed, first), SHELF_OK);
    assert_int_equal(bed_result(bed, create("y", 4096, 4096)), SHELF_OK);
}

// The answer to a growth that is on its way already may not come before it.
static void test_second_growth_waits_for_the_first(void **state) {
    (void)state;
    uint64_t first = bed_region_send(bed, REQUEST_REGION_GROW, region, 2 * MIB, 0, "");
    log_hold(true);
    bed_run(bed);
    uint64_t second = bed_region_send(bed, REQUEST_REGION_GROW, region, 2 * MIB, 0, "");
    bed_run(bed);
    assert_false(bed->answered[first] || bed->answered[second]);
    log_hold(false);
    assert_int_equal(bed_result(bed, first), SHELF_OK);
    assert_int_equal(bed_result(bed, second), SHELF_OK);
}

// A region whose number was guessed is created, written and dropped before anything of it is applied, while a checkpoint
// cleans up: its place must stay.
static void test_region_created_and_dropped_before_it_is_applied(void **state) {
    (void)state;
    assert_int_equal(
        bed_result(bed, bed_region_send(bed, REQUEST_REGION_DROP, bed_region(bed, "old", 4096), 0, 0, "")),
        SHELF_OK);
    bed->held = 1u << FILE_SUPERBLOCK;
    bed_write(bed, 1, at(0), 8, 1);
    bed->token++;
    bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = bed->token});
    bed_run(bed);
    uint32_t number = region + 2;
    uint64_t made = create("x", 4096, 4096);
    bed->held |= 1u << FILE_LOG;
    bed_run(bed); // its record is in flight now
    uint64_t written = bed_write(bed, 2, shelf_addr_make((shelf_region)number, 0), 8, 1);
    uint64_t dropped = bed_region_send(bed, REQUEST_REGION_DROP, number, 0, 0, "");
    bed->held = 1u << FILE_LOG; // the checkpoint ends first
    bed_run(bed);
    assert_true(core_region_known(bed->core, number));
    bed->held = 0;
    assert_int_equal(bed_result(bed, made), SHELF_OK);
    assert_int_equal(bed_result(bed, written), SHELF_OK);
    assert_int_equal(bed_result(bed, dropped), SHELF_OK);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    assert_false(core_region_known(bed->core, number));
    bed_reopen(bed);
}

static void test_files_of_a_dropped_region_cannot_be_removed(void **state) {
    (void)state;
    bed->fail_kind = IO_REMOVE;
    bed->fail_result = IO_RESULT_ERROR;
    bed->fail_count = 1;
    bed_region_send(bed, REQUEST_REGION_DROP, region, 0, 0, "");
    bed_run(bed); // a checkpoint follows by itself
    assert_int_equal(core_fault_get(bed->core)->result, SHELF_IO);
    bed_reopen(bed);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    assert_false(core_region_known(bed->core, region));
}

static void test_checkpoint_leaves_a_failed_creation_to_its_cleanup(void **state) {
    (void)state;
    bed->fail_kind = IO_WRITE;
    bed->fail_file = FILE_LOG;
    bed->fail_result = IO_RESULT_NO_SPACE;
    bed->fail_count = 1;
    uint64_t waiting = bed_write(bed, 1, at(0), 8, 1);
    bed_run(bed);
    uint64_t token = create("x", 4096, 4096);
    while (!bed->answered[token]) {
        assert_true(bed_run_one(bed));
    }
    assert_int_equal(bed_reply(bed, token)->result, SHELF_NO_SPACE);
    bed->held = 1; // the memory is not given back yet
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    assert_true(core_region_known(bed->core, region + 1));
    bed->held = 0;
    bed_tick(bed, 1000);
    assert_int_equal(bed_result(bed, waiting), SHELF_OK);
    assert_false(core_region_known(bed->core, region + 1));
}

static void test_nothing_is_taken_before_recovery_is_done(void **state) {
    (void)state;
    bed->held_next = 1u << FILE_LOG;
    bed_start(bed);
    assert_false(bed->opened);
    refused_with(bed_write(bed, 1, at(0), 8, 1), SHELF_UNAVAILABLE, REASON_NODE_NOT_READY);
    assert_int_equal(bed_checkpoint(bed), SHELF_UNAVAILABLE);
    bed_tick(bed, 1000);
    bed->held = 0;
    bed_run(bed);
    assert_true(bed->opened);
}

static void test_close_waits_for_a_region_under_way(void **state) {
    (void)state;
    bed->held = 1u << FILE_PAGES;
    uint64_t token = create("x", 4096, 4096);
    bed_run(bed);
    bed_step(bed, (struct event){.kind = EVENT_CLOSE, .checkpoint = true});
    bed_run(bed);
    assert_false(bed->closed);
    bed->held = 0;
    assert_int_equal(bed_result(bed, token), SHELF_OK);
    assert_true(bed->closed);
    bed_reopen(bed);
    assert_true(core_region_known(bed->core, region + 1));
}

static void test_checkpoint_can_be_held_and_waited_for(void **state) {
    (void)state;
    bed->config.checkpoint_interval_ms = 1000;
    bed_reopen(bed);
    struct core_status before, after;
    core_status_get(bed->core, &before);
    assert_int_equal(bed_result(bed, bed_write(bed, 1, at(0), 8, 1)), SHELF_OK);
    bed->hold_checkpoint = true;
    bed_tick(bed, 5000);
    bed_run(bed);
    core_status_get(bed->core, &after);
    assert_int_equal(after.checkpoint, before.checkpoint);
    bed->hold_checkpoint = false;
    bed_tick(bed, 1000);
    bed_run(bed);
    core_status_get(bed->core, &after);
    assert_true(after.checkpoint > before.checkpoint);
    bed->held = 1u << FILE_SUPERBLOCK; // those who come while one runs wait for the next
    enum { ASKED = 200 };
    uint64_t first = bed->token + 1;
    bool refused[ASKED] = {false};
    uint32_t left = 0;
    for (uint32_t i = 0; i < ASKED; i++) {
        bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = first + i});
        refused[i] = bed->effects.refused;
        left += refused[i];
        bed_run(bed);
        assert_false(bed->answered[first + i]);
    }
    assert_true(left > 0 && !refused[0] && !refused[20]);
    bed->token = first + ASKED - 1;
    bed->held = 0;
    while (left > 0) { // as the driver does, after each io
        assert_true(bed_run_one(bed));
        for (uint32_t i = 0; i < ASKED; i++) {
            if (refused[i]) {
                bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = first + i});
                refused[i] = bed->effects.refused;
                left -= !refused[i];
            }
        }
    }
    bed_run(bed);
    for (uint32_t i = 0; i < ASKED; i++) {
        assert_int_equal(bed_reply(bed, first + i)->result, SHELF_OK);
        assert_true(bed_reply(bed, first + i)->receipt.index >= before.applied);
    }
}

// Whatever part of it finds no space: it is tried again until there is some, and commits go on.
static void test_checkpoint_on_a_full_disk(void **state) {
    (void)state;
    const enum file_kind kinds[] = {FILE_PAGES, FILE_TABLE, FILE_ROOTS, FILE_SUPERBLOCK};
    for (uint64_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct core_status status;
        assert_int_equal(bed_result(bed, bed_write(bed, 2 * i + 1, at(0), 8, (uint8_t)(i + 1))), SHELF_OK);
        uint64_t index = atomic_load(&bed->image->applied);
        bed->fail_kind = IO_WRITE;
        bed->fail_file = kinds[i];
        bed->fail_result = IO_RESULT_NO_SPACE;
        bed->fail_count = 1000;
        uint64_t token = ++bed->token;
        bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = token});
        for (int tick = 0; tick < 3; tick++) {
            bed_run(bed);
            bed_tick(bed, 1000);
        }
        bed_run(bed);
        assert_true(bed->fail_count < 998); // it was tried again
        assert_false(bed->answered[token]);
        assert_int_equal(bed_result(bed, bed_write(bed, 2 * i + 2, at(64), 8, (uint8_t)(i + 1))), SHELF_OK);
        core_status_get(bed->core, &status);
        assert_true(status.checkpoint < index);
        bed->fail_count = 0;
        bed_tick(bed, 1000);
        assert_int_equal(bed_result(bed, token), SHELF_OK);
        assert_int_equal(bed_reply(bed, token)->receipt.index, index);
    }
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(0)), sizeof(kinds) / sizeof(kinds[0]));
    assert_int_equal(bed_byte(bed, at(64)), sizeof(kinds) / sizeof(kinds[0]));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_malformed_headers),
        TEST(test_malformed_commits),
        TEST(test_commits_outside_of_regions),
        TEST(test_too_large),
        TEST(test_conflicts),
        TEST(test_conflict_with_a_pending_record_waits_for_its_fate),
        TEST(test_operations),
        TEST(test_batch_has_bounds),
        TEST(test_duplicate_of_a_pending_commit_waits),
        TEST(test_session_window),
        TEST(test_outcome_fences),
        TEST(test_named_session_is_resumed_and_fences),
        TEST(test_expired_sessions_stay_so),
        TEST(test_session_opened_and_expired_within_one_record),
        TEST(test_idle_sessions_expire),
        TEST(test_session_table_full),
        TEST(test_region_life),
        TEST(test_region_refusals),
        TEST(test_region_without_space_leaves_nothing),
        TEST(test_one_change_of_the_catalog_at_a_time),
        TEST(test_second_growth_waits_for_the_first),
        TEST(test_region_created_and_dropped_before_it_is_applied),
        TEST(test_files_of_a_dropped_region_cannot_be_removed),
        TEST(test_answers_that_wait_have_bounds),
        TEST(test_checkpoint_leaves_a_failed_creation_to_its_cleanup),
        TEST(test_nothing_is_taken_before_recovery_is_done),
        TEST(test_close_waits_for_a_region_under_way),
        TEST(test_checkpoint_can_be_held_and_waited_for),
        TEST(test_checkpoint_on_a_full_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
