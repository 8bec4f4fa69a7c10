// SPDX-License-Identifier: Apache-2.0
//
// What the tests of the structures share: a shelf in a directory of its own with one formatted region, and short forms
// of what they do all the time. A result that was not expected ends the test and shows the detail.

#ifndef SHELF_TEST_STRUCTURE_FIXTURE_H
#define SHELF_TEST_STRUCTURE_FIXTURE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"
#include "directory.h"
#include "shelf.h"

#include "cmocka_program.h"

struct fixture {
    char path[64];
    shelf *s;
    shelf_region region;
};

static inline void expect_result(shelf_result expected, shelf_result result, const char *call, int line) {
    if (result != expected) {
        print_error("line %d: %s: %s instead of %s: %s\n", line, call, shelf_result_name(result),
                    shelf_result_name(expected), shelf_detail());
        fail();
    }
}
#define EXPECT(result, call) expect_result((result), (call), #call, __LINE__)
#define EXPECT_OK(call)      EXPECT(SHELF_OK, call)

static inline shelf_tx *begin(const struct fixture *fixture, unsigned flags) {
    shelf_tx *tx = NULL;
    EXPECT_OK(shelf_begin(fixture->s, flags, &tx));
    return tx;
}
static inline shelf_tx *begin_read(const struct fixture *fixture) {
    return begin(fixture, SHELF_READ_ONLY);
}
static inline shelf_tx *begin_write(const struct fixture *fixture) {
    return begin(fixture, SHELF_READ_WRITE);
}
static inline void commit(shelf_tx *tx) {
    EXPECT_OK(shelf_commit(tx, NULL));
}

static inline void fixture_open_shelf(struct fixture *fixture) {
    char where[80];
    (void)snprintf(where, sizeof(where), "dir:%s", fixture->path);
    struct shelf_options options = {.flags = SHELF_OPEN_CREATE, .log_bytes_max = (uint64_t)128 << 20};
    EXPECT_OK(shelf_open(where, &options, &fixture->s));
}

// An empty region, not formatted.
static inline void fixture_open_raw(struct fixture *fixture, uint64_t size, uint64_t size_max) {
    const char *parent = getenv("TMPDIR");
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s/shelf-test-XXXXXX",
                   parent != NULL ? parent : "/tmp");
    assert_non_null(mkdtemp(fixture->path));
    fixture_open_shelf(fixture);
    EXPECT_OK(shelf_region_create(fixture->s, "test", size, size_max, &fixture->region));
}

static inline void fixture_open(struct fixture *fixture, uint64_t size, uint64_t size_max) {
    fixture_open_raw(fixture, size, size_max);
    shelf_tx *tx = begin_write(fixture);
    EXPECT_OK(shelf_format(tx, fixture->region));
    commit(tx);
}

static inline void fixture_close(struct fixture *fixture) {
    EXPECT_OK(shelf_close(fixture->s));
    assert_int_equal(directory_remove(fixture->path), 0);
}

// The same shelf, closed and recovered.
static inline void fixture_reopen(struct fixture *fixture) {
    EXPECT_OK(shelf_close(fixture->s));
    fixture_open_shelf(fixture);
    EXPECT_OK(shelf_region_open(fixture->s, "test", &fixture->region));
}

static inline struct shelf_alloc_sums audit(const struct fixture *fixture) {
    struct shelf_alloc_sums result;
    shelf_tx *tx = begin_read(fixture);
    EXPECT_OK(shelf_alloc_audit(tx, fixture->region, &result));
    shelf_abort(tx);
    assert_true(result.live + result.free + result.overhead == result.total);
    return result;
}

#endif
