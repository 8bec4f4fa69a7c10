// SPDX-License-Identifier: Apache-2.0
//
// The stream: a random life against an array of all records ever appended, retention, trimming, misuse, damage.

#include "structure_fixture.h"

#include "structure/layout.h"

#define MIB        ((uint64_t)1 << 20)
#define RECORD_MAX 100000u

static unsigned char expected[RECORD_MAX];
static unsigned char got[RECORD_MAX];

// A record follows from its position: size, time, bytes.
static size_t record_make(uint64_t position, unsigned char *bytes) {
    struct random random;
    random_seed(&random, position);
    size_t size = random_below(&random, 400);
    if (random_chance(&random, 1, 50)) {
        size = random_below(&random, RECORD_MAX); // some with chunks of their own
    }
    random_fill(&random, bytes, size);
    return size;
}

static uint64_t record_time(uint64_t position) {
    return 1000 + position * 10 - position % 7; // not quite in order
}

static shelf_stream stream_make(const struct fixture *f, const struct shelf_stream_options *options) {
    shelf_stream stream;
    shelf_tx *tx = begin_write(f);
    EXPECT_OK(shelf_stream_create(tx, f->region, "events", options, &stream));
    commit(tx);
    return stream;
}

static void append(shelf_tx *tx, shelf_stream stream, uint64_t position) {
    uint64_t at = UINT64_MAX;
    size_t size = record_make(position, expected);
    EXPECT_OK(shelf_stream_append(tx, stream, record_time(position), expected, size, &at));
    assert_true(at == position);
}

static void read_one(shelf_tx *tx, shelf_stream stream, uint64_t position, uint64_t first, uint64_t next) {
    size_t size = 999999;
    uint64_t time_ms = 5;
    shelf_result result = shelf_stream_read(tx, stream, position, got, sizeof(got), &size, &time_ms);
    if (position < first || position >= next) {
        EXPECT(position < first ? SHELF_EXPIRED : SHELF_NOT_FOUND, result);
        assert_true(size == 999999 && time_ms == 5);
        return;
    }
    EXPECT_OK(result);
    assert_int_equal(size, record_make(position, expected));
    assert_memory_equal(got, expected, size);
    assert_true(time_ms == record_time(position));
}

static void verify(const struct fixture *f, shelf_stream stream) {
    shelf_tx *tx = begin_read(f);
    EXPECT_OK(shelf_stream_verify(tx, stream));
    shelf_abort(tx);
    (void)audit(f);
}

static void bounds(const struct fixture *f, shelf_stream stream, uint64_t *first, uint64_t *next) {
    shelf_tx *tx = begin_read(f);
    EXPECT_OK(shelf_stream_bounds(tx, stream, first, next));
    shelf_abort(tx);
}

static void drop_leaves_nothing(const struct fixture *f) {
    shelf_tx *tx = begin_write(f);
    EXPECT_OK(shelf_stream_drop(tx, f->region, "events"));
    commit(tx);
    assert_int_equal(audit(f).blocks_live, 0);
}

static void test_stream_against_model(void **state) {
    (void)state;
    struct fixture f = {0};
    struct random random;
    random_seed(&random, 5);
    fixture_open(&f, 32 * MIB, 0);
    shelf_stream stream = stream_make(&f, NULL);
    uint64_t first = 0;
    uint64_t next = 0;
    for (unsigned round = 0; round < 120; round++) {
        uint64_t first_before = first;
        uint64_t next_before = next;
        shelf_tx *tx = begin_write(&f);
        for (unsigned step = 0; step < 40; step++) {
            append(tx, stream, next++);
            read_one(tx, stream, random_below(&random, next + 2), first, next);
        }
        if (round % 20 == 19) {
            uint64_t position = random_between(&random, first, next);
            EXPECT_OK(shelf_stream_trim(tx, stream, position));
            uint64_t kept;
            EXPECT_OK(shelf_stream_bounds(tx, stream, &first, &kept));
            assert_true(first <= position && kept == next);
        }
        if (random_chance(&random, 1, 6)) {
            shelf_abort(tx);
            first = first_before;
            next = next_before;
        } else {
            commit(tx);
        }
        tx = begin_read(&f);
        for (unsigned step = 0; step < 40; step++) {
            read_one(tx, stream, random_below(&random, next + 2), first, next);
        }
        shelf_abort(tx);
        if (round % 10 == 0) {
            verify(&f, stream);
        }
    }
    assert_true(first > 0);
    verify(&f, stream);
    drop_leaves_nothing(&f);
    fixture_close(&f);
}

static void test_stream_survives_a_restart(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 16 * MIB, 0);
    shelf_stream stream = stream_make(&f, NULL);
    shelf_tx *tx = begin_write(&f);
    for (uint64_t position = 0; position < 1000; position++) {
        append(tx, stream, position);
    }
    commit(tx);
    fixture_reopen(&f);
    tx = begin_write(&f);
    EXPECT_OK(shelf_stream_open(tx, f.region, "events", &stream));
    for (uint64_t position = 0; position < 1002; position++) {
        read_one(tx, stream, position, 0, 1000);
    }
    append(tx, stream, 1000);
    commit(tx);
    verify(&f, stream);
    fixture_close(&f);
}

// How many chunks a search for the position looks at.
static unsigned search_steps(const struct fixture *f, shelf_tx *tx, shelf_stream stream, uint64_t position) {
    struct stream_head head;
    struct stream_chunk chunk;
    EXPECT_OK(shelf_read(tx, stream.header, &head, sizeof(head)));
    unsigned steps = 0;
    for (uint64_t offset = head.newest;; offset = chunk.jump_first >= position ? chunk.jump : chunk.prev) {
        EXPECT_OK(shelf_read(tx, shelf_addr_make(f->region, offset), &chunk, sizeof(chunk)));
        steps++;
        if (chunk.first <= position) {
            return steps;
        }
    }
}

static void test_stream_of_many_chunks(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 96 * MIB, 0);
    shelf_stream stream = stream_make(&f, NULL);
    static unsigned char bytes[16000];
    for (uint64_t position = 0; position < 4000;) { // two records a chunk
        shelf_tx *tx = begin_write(&f);
        for (unsigned step = 0; step < 500; step++, position++) {
            memcpy(bytes, &position, sizeof(position));
            EXPECT_OK(shelf_stream_append(tx, stream, position, bytes, sizeof(bytes), NULL));
        }
        commit(tx);
    }
    shelf_tx *tx = begin_read(&f);
    for (uint64_t position = 0; position < 4000; position++) {
        uint64_t number;
        size_t size;
        EXPECT_OK(shelf_stream_read(tx, stream, position, &number, sizeof(number), &size, NULL));
        assert_true(number == position && size == sizeof(bytes));
        assert_true(search_steps(&f, tx, stream, position) <=
                    3 * 11); // of 2000 chunks: three for each doubling
    }
    shelf_abort(tx);
    verify(&f, stream);
    fixture_close(&f);
}

static void test_stream_retention_by_bytes(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 4 * MIB, 4 * MIB);
    shelf_stream stream = stream_make(&f, &(struct shelf_stream_options){.bytes_max = 200000});
    uint64_t first = 0;
    uint64_t next = 0;
    for (unsigned round = 0; round < 300; round++) { // many times what the region could hold
        shelf_tx *tx = begin_write(&f);
        for (unsigned step = 0; step < 20; step++) {
            static const unsigned char bytes[1000];
            EXPECT_OK(shelf_stream_append(tx, stream, 1, bytes, sizeof(bytes), NULL));
            next++;
        }
        commit(tx);
        uint64_t counted;
        bounds(&f, stream, &first, &counted);
        assert_true(counted == next);
        uint64_t kept = (next - first) * 1000;
        assert_true(kept <= 200000 + STREAM_CHUNK_SIZE);
        assert_true(next <= 200 || kept >= 200000);
    }
    verify(&f, stream);
    size_t size;
    shelf_tx *tx = begin_read(&f);
    EXPECT(SHELF_EXPIRED, shelf_stream_read(tx, stream, first - 1, got, sizeof(got), &size, NULL));
    EXPECT_OK(shelf_stream_read(tx, stream, first, got, sizeof(got), &size, NULL));
    shelf_abort(tx);
    drop_leaves_nothing(&f);
    fixture_close(&f);
}

static void test_stream_retention_by_age(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 8 * MIB, 0);
    shelf_stream stream = stream_make(&f, &(struct shelf_stream_options){.age_max_ms = 5000});
    static const unsigned char bytes[5000];
    uint64_t first, next;
    shelf_tx *tx = begin_write(&f);
    for (uint64_t time_ms = 0; time_ms < 5000; time_ms += 50) {
        EXPECT_OK(shelf_stream_append(tx, stream, time_ms, bytes, sizeof(bytes), NULL));
    }
    commit(tx);
    bounds(&f, stream, &first, &next);
    assert_true(first == 0 && next == 100); // nothing is older than the newest by more than 5 s
    tx = begin_write(&f);
    EXPECT_OK(shelf_stream_append(tx, stream, 100000, bytes, sizeof(bytes), NULL));
    commit(tx);
    bounds(&f, stream, &first, &next);
    assert_true(first > 0 && first < 30 && next == 101); // some chunks an append, not all at once
    for (unsigned step = 0; step < 20; step++) {
        tx = begin_write(&f);
        EXPECT_OK(shelf_stream_append(tx, stream, 100001, bytes, 10, NULL));
        commit(tx);
    }
    bounds(&f, stream, &first, &next);
    assert_true(first >= 94 && first <= 100); // what shares a chunk with the new ones may stay
    verify(&f, stream);
    drop_leaves_nothing(&f);
    fixture_close(&f);
}

static void test_stream_trimmed_to_nothing_goes_on(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 8 * MIB, 0);
    shelf_stream stream = stream_make(&f, NULL);
    uint64_t first, next;
    for (uint64_t position = 0; position < 900; position += 300) {
        shelf_tx *tx = begin_write(&f);
        for (uint64_t step = 0; step < 300; step++) {
            append(tx, stream, position + step);
        }
        EXPECT_OK(shelf_stream_trim(tx, stream, UINT64_MAX));
        commit(tx);
        bounds(&f, stream, &first, &next);
        assert_true(first == position + 300 && next == first);
        verify(&f, stream);
        assert_int_equal(audit(&f).blocks_live, 1);
    }
    fixture_close(&f);
}

static void test_stream_in_a_full_region(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, MIB, MIB);
    shelf_stream stream = stream_make(&f, NULL);
    uint64_t next = 0;
    shelf_tx *tx = begin_write(&f);
    shelf_result result;
    for (;;) {
        size_t size = record_make(next, expected);
        result = shelf_stream_append(tx, stream, record_time(next), expected, size, NULL);
        if (result != SHELF_OK) {
            break;
        }
        next++;
    }
    EXPECT(SHELF_NO_SPACE, result);
    commit(tx);
    verify(&f, stream);
    uint64_t first, counted;
    bounds(&f, stream, &first, &counted);
    assert_true(first == 0 && counted == next && next > 100);
    tx = begin_write(&f);
    EXPECT_OK(shelf_stream_trim(tx, stream, next / 2));
    append(tx, stream, next);
    commit(tx);
    verify(&f, stream);
    bounds(&f, stream, &first, &counted);
    tx = begin_read(&f);
    for (uint64_t position = 0; position <= next; position++) {
        read_one(tx, stream, position, first, next + 1);
    }
    shelf_abort(tx);
    fixture_close(&f);
}

static void test_stream_misuse_and_limits(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 32 * MIB, 0);
    shelf_stream stream = {0};
    size_t size;
    shelf_tx *tx = begin_write(&f);
    EXPECT(SHELF_NOT_FOUND, shelf_stream_open(tx, f.region, "events", &stream));
    EXPECT(SHELF_NOT_FOUND, shelf_stream_drop(tx, f.region, "events"));
    EXPECT(SHELF_INVALID, shelf_stream_create(tx, f.region, "", NULL, &stream));
    assert_true(stream.header == 0);
    EXPECT_OK(shelf_stream_create(tx, f.region, "events", NULL, &stream));
    EXPECT(SHELF_EXISTS, shelf_stream_create(tx, f.region, "events", NULL, &stream));
    EXPECT(SHELF_NOT_FOUND, shelf_stream_read(tx, stream, 0, got, 1, &size, NULL));
    EXPECT(SHELF_TOO_LARGE, shelf_stream_append(tx, stream, 1, got, SHELF_TX_BYTES_MAX + 1, NULL));
    EXPECT_OK(shelf_stream_append(tx, stream, 1, NULL, 0, NULL));
    EXPECT_OK(shelf_stream_read(tx, stream, 0, NULL, 0, &size, NULL));
    assert_int_equal(size, 0);
    EXPECT_OK(shelf_stream_append(tx, stream, 2, "abcdef", 6, NULL));
    memset(got, 0, 8);
    EXPECT_OK(shelf_stream_read(tx, stream, 1, got, 3, &size, NULL)); // cut
    assert_int_equal(size, 6);
    assert_memory_equal(got, "abc\0", 4);
    EXPECT_OK(shelf_stream_drop(tx, f.region, "events"));
    EXPECT(SHELF_INVALID, shelf_stream_append(tx, stream, 3, "x", 1, NULL)); // the old handle
    EXPECT(SHELF_INVALID, shelf_stream_read(tx, stream, 0, got, 1, &size, NULL));
    commit(tx);
    size_t large = 12 << 20;
    unsigned char *bytes = malloc(large);
    unsigned char *back = malloc(large);
    assert_non_null(bytes);
    assert_non_null(back);
    struct random random;
    random_seed(&random, 6);
    random_fill(&random, bytes, large);
    stream = stream_make(&f, NULL);
    tx = begin_write(&f);
    EXPECT_OK(shelf_stream_append(tx, stream, 1, bytes, large, NULL));
    commit(tx);
    tx = begin_read(&f);
    EXPECT_OK(shelf_stream_read(tx, stream, 0, back, large, &size, NULL));
    assert_memory_equal(back, bytes, large);
    shelf_abort(tx);
    verify(&f, stream);
    free(bytes);
    free(back);
    fixture_close(&f);
}

// Every change to the stream's own bytes must be found by the verification.
static void test_stream_verify_finds_damage(void **state) {
    (void)state;
    struct fixture f = {0};
    fixture_open(&f, 8 * MIB, 0);
    shelf_stream stream = stream_make(&f, NULL);
    shelf_tx *tx = begin_write(&f);
    for (unsigned step = 0; step < 100; step++) {
        static const unsigned char bytes[1000];
        EXPECT_OK(shelf_stream_append(tx, stream, 7, bytes, sizeof(bytes), NULL));
    }
    commit(tx);
    struct stream_head head;
    struct stream_chunk chunk;
    tx = begin_read(&f);
    EXPECT_OK(shelf_read(tx, stream.header, &head, sizeof(head)));
    EXPECT_OK(shelf_read(tx, shelf_addr_make(f.region, head.newest), &chunk, sizeof(chunk)));
    shelf_abort(tx);
    uint64_t head_at = shelf_addr_offset(stream.header);
    const struct {
        const char *what;
        uint64_t offset;
    } damages[] = {
        {"first", head_at + offsetof(struct stream_head, first)},
        {"next", head_at + offsetof(struct stream_head, next)},
        {"oldest", head_at + offsetof(struct stream_head, oldest)},
        {"oldest, out of the region", head_at + offsetof(struct stream_head, oldest) + 5},
        {"newest", head_at + offsetof(struct stream_head, newest)},
        {"bytes", head_at + offsetof(struct stream_head, bytes)},
        {"chunks", head_at + offsetof(struct stream_head, chunks)},
        {"the chunk's magic", head.newest + offsetof(struct stream_chunk, magic)},
        {"the chunk's size", head.newest + offsetof(struct stream_chunk, size)},
        {"the chunk's number", head.newest + offsetof(struct stream_chunk, sequence)},
        {"the chunk's first position", head.newest + offsetof(struct stream_chunk, first)},
        {"the link back", head.newest + offsetof(struct stream_chunk, prev)},
        {"the jump", head.newest + offsetof(struct stream_chunk, jump)},
        {"the jump's position", head.newest + offsetof(struct stream_chunk, jump_first)},
        {"the jump's number", head.newest + offsetof(struct stream_chunk, jump_sequence)},
        {"the link on", head.newest + offsetof(struct stream_chunk, next)},
        {"the chunk's count", head.newest + offsetof(struct stream_chunk, count)},
        {"the chunk's end", head.newest + offsetof(struct stream_chunk, end)},
        {"the chunk's bytes", head.newest + offsetof(struct stream_chunk, bytes)},
        {"the chunk's time", head.newest + offsetof(struct stream_chunk, time_max)},
        {"the table", head.newest + chunk.size - 4},
        {"a record's size", head.newest + sizeof(chunk) + offsetof(struct stream_record, size)},
        {"a record's size, by much", head.newest + sizeof(chunk) + offsetof(struct stream_record, size) + 3},
        {"a record's position", head.newest + sizeof(chunk) + offsetof(struct stream_record, position)},
        {"a record's time", head.newest + sizeof(chunk) + offsetof(struct stream_record, time_ms) + 1},
    };
    for (size_t index = 0; index < sizeof(damages) / sizeof(damages[0]); index++) {
        shelf_addr address = shelf_addr_make(f.region, damages[index].offset);
        unsigned char byte;
        tx = begin_write(&f);
        EXPECT_OK(shelf_read(tx, address, &byte, 1));
        byte ^= 1;
        EXPECT_OK(shelf_write(tx, address, &byte, 1));
        shelf_result result = shelf_stream_verify(tx, stream);
        if (result != SHELF_CORRUPT || shelf_detail()[0] == 0) {
            fail_msg("%s: %s", damages[index].what, shelf_result_name(result));
        }
        shelf_abort(tx);
    }
    verify(&f, stream);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_against_model),
        cmocka_unit_test(test_stream_survives_a_restart),
        cmocka_unit_test(test_stream_of_many_chunks),
        cmocka_unit_test(test_stream_retention_by_bytes),
        cmocka_unit_test(test_stream_retention_by_age),
        cmocka_unit_test(test_stream_trimmed_to_nothing_goes_on),
        cmocka_unit_test(test_stream_in_a_full_region),
        cmocka_unit_test(test_stream_misuse_and_limits),
        cmocka_unit_test(test_stream_verify_finds_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
