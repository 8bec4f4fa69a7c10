// SPDX-License-Identifier: Apache-2.0
//
// The structures under several threads: writers whose conflicts are retried by shelf_run(), readers that must never
// see half of a transaction, and everything accounted for afterwards.

#include "structure_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#define MIB ((uint64_t)1 << 20)

enum { WRITERS = 4, READERS = 2, ROUNDS = 150, BATCH = 8 };

struct shared {
    struct fixture f;
    shelf_map map;
    shelf_stream stream;
    atomic_uint writers_left;
    atomic_ulong snapshots; // that readers took
};

struct worker {
    struct shared *shared;
    unsigned number;
    unsigned round;
    pthread_t thread;
    struct random random;
};

static void join_all(struct worker *workers, size_t count) {
    for (size_t index = 0; index < count; index++) {
        assert_int_equal(pthread_join(workers[index].thread, NULL), 0);
    }
}

static void start(struct worker *worker, struct shared *shared, unsigned number, void *(*run)(void *)) {
    *worker = (struct worker){.shared = shared, .number = number};
    random_seed(&worker->random, number + 100);
    assert_int_equal(pthread_create(&worker->thread, NULL, run, worker), 0);
}

// ---- Inserts --------------------------------------------------------------------------------------------------------

// Keys of one batch, and the value that all of them have: a reader finds all or none.
static uint64_t batch_key(unsigned number, unsigned round, unsigned index) {
    return ((uint64_t)number << 32 | round) * BATCH + index;
}

static shelf_result batch_insert(shelf_tx *tx, void *context) {
    struct worker *worker = context;
    for (unsigned index = 0; index < BATCH; index++) {
        uint64_t key = batch_key(worker->number, worker->round, index);
        uint64_t value[12] = {worker->round};
        shelf_result result = shelf_map_put(tx, worker->shared->map, &key, sizeof(key), value, sizeof(value));
        if (result != SHELF_OK) {
            return result;
        }
    }
    return SHELF_OK;
}

static shelf_result batch_delete(shelf_tx *tx, void *context) {
    struct worker *worker = context;
    for (unsigned index = 0; index < BATCH; index++) {
        uint64_t key = batch_key(worker->number, worker->round - 1, index);
        shelf_result result = shelf_map_delete(tx, worker->shared->map, &key, sizeof(key));
        if (result != SHELF_OK) {
            return result;
        }
    }
    return SHELF_OK;
}

static void *writer_run(void *argument) {
    struct worker *worker = argument;
    for (worker->round = 0; worker->round < ROUNDS; worker->round++) {
        EXPECT_OK(shelf_run(worker->shared->f.s, SHELF_READ_WRITE, batch_insert, worker, 60000, NULL));
        if (worker->round % 2 == 1) {
            EXPECT_OK(shelf_run(worker->shared->f.s, SHELF_READ_WRITE, batch_delete, worker, 60000, NULL));
        }
    }
    atomic_fetch_sub(&worker->shared->writers_left, 1);
    return NULL;
}

// Reads one batch in one transaction; CONFLICT just means that it was changed meanwhile.
static shelf_result batch_read(shelf_tx *tx, struct shared *shared, unsigned number, unsigned round,
                               bool many, unsigned *ret_found) {
    uint64_t keys[BATCH];
    uint64_t values[BATCH][12];
    struct shelf_map_item items[BATCH];
    *ret_found = 0;
    for (unsigned index = 0; index < BATCH; index++) {
        keys[index] = batch_key(number, round, index);
        items[index] = (struct shelf_map_item){
            .key = &keys[index], .key_size = 8, .value = values[index], .value_max = sizeof(values[index])};
        if (!many) {
            items[index].result = shelf_map_get(tx, shared->map, &keys[index], 8, values[index],
                                                sizeof(values[index]), &items[index].value_size);
            if (items[index].result == SHELF_CONFLICT) {
                return SHELF_CONFLICT;
            }
        }
    }
    shelf_result result = many ? shelf_map_get_many(tx, shared->map, items, BATCH) : SHELF_OK;
    for (unsigned index = 0; index < BATCH && result == SHELF_OK; index++) {
        EXPECT(items[index].result == SHELF_OK ? SHELF_OK : SHELF_NOT_FOUND, items[index].result);
        if (items[index].result == SHELF_OK) {
            assert_true(items[index].value_size == sizeof(values[index]) && values[index][0] == round);
            ++*ret_found;
        }
    }
    return result;
}

static void *reader_run(void *argument) {
    struct worker *worker = argument;
    struct shared *shared = worker->shared;
    while (atomic_load(&shared->writers_left) > 0) {
        unsigned number = (unsigned)random_below(&worker->random, WRITERS);
        unsigned round = (unsigned)random_below(&worker->random, ROUNDS);
        unsigned found;
        shelf_tx *tx = begin_read(&shared->f);
        shelf_result result =
            batch_read(tx, shared, number, round, random_chance(&worker->random, 1, 2), &found);
        shelf_abort(tx);
        if (result == SHELF_OK) {
            assert_true(found == 0 || found == BATCH);
            atomic_fetch_add(&shared->snapshots, 1);
        } else {
            EXPECT(SHELF_CONFLICT, result);
        }
    }
    return NULL;
}

static void test_map_inserts_and_deletes_in_threads(void **state) {
    (void)state;
    struct shared shared = {.writers_left = WRITERS};
    fixture_open(&shared.f, 32 * MIB, 0);
    shelf_tx *tx = begin_write(&shared.f);
    EXPECT_OK(shelf_map_create(tx, shared.f.region, "map", &shared.map));
    commit(tx);
    struct worker writers[WRITERS];
    struct worker readers[READERS];
    for (unsigned number = 0; number < READERS; number++) {
        start(&readers[number], &shared, number, reader_run);
    }
    for (unsigned number = 0; number < WRITERS; number++) {
        start(&writers[number], &shared, number, writer_run);
    }
    join_all(writers, WRITERS);
    join_all(readers, READERS);
    assert_true(atomic_load(&shared.snapshots) > 0);

    uint64_t count;
    tx = begin_read(&shared.f);
    EXPECT_OK(shelf_map_verify(tx, shared.map));
    EXPECT_OK(shelf_map_count(tx, shared.map, &count));
    assert_int_equal(count, WRITERS * ROUNDS / 2 * BATCH);
    for (unsigned number = 0; number < WRITERS; number++) {
        for (unsigned round = 0; round < ROUNDS; round++) {
            unsigned found;
            EXPECT_OK(batch_read(tx, &shared, number, round, true, &found));
            assert_int_equal(found, round % 2 == 1 ? BATCH : 0);
        }
    }
    shelf_abort(tx);
    (void)audit(&shared.f);
    tx = begin_write(&shared.f);
    EXPECT_OK(shelf_map_drop(tx, shared.f.region, "map"));
    commit(tx);
    assert_int_equal(audit(&shared.f).blocks_live, 0);
    fixture_close(&shared.f);
}

// ---- Values that are overwritten ------------------------------------------------------------------------------------

// All bytes of a value are alike; a torn one would have two kinds. Sizes change, so that values move as well.
static shelf_result value_change(shelf_tx *tx, void *context) {
    struct worker *worker = context;
    static const size_t sizes[] = {100, 100, 100, 104, 300, 20};
    unsigned char value[300];
    size_t size = sizes[worker->round % 6];
    memset(value, (int)(worker->round % 251), size);
    return shelf_map_put(tx, worker->shared->map, "0123456789abcdef", 16, value, size);
}

static void *value_writer_run(void *argument) {
    struct worker *worker = argument;
    for (worker->round = 0; worker->round < 2000; worker->round++) {
        EXPECT_OK(shelf_run(worker->shared->f.s, SHELF_READ_WRITE, value_change, worker, 60000, NULL));
    }
    atomic_fetch_sub(&worker->shared->writers_left, 1);
    return NULL;
}

static void *value_reader_run(void *argument) {
    struct worker *worker = argument;
    struct shared *shared = worker->shared;
    while (atomic_load(&shared->writers_left) > 0) {
        unsigned char value[300];
        struct shelf_map_item item = {
            .key = "0123456789abcdef", .key_size = 16, .value = value, .value_max = sizeof(value)};
        shelf_tx *tx = begin_read(&shared->f);
        shelf_result result;
        if (worker->number % 2 == 0) {
            result = shelf_map_get(tx, shared->map, item.key, 16, value, sizeof(value), &item.value_size);
        } else {
            result = shelf_map_get_many(tx, shared->map, &item, 1);
            result = result == SHELF_OK ? item.result : result;
        }
        shelf_abort(tx);
        if (result != SHELF_CONFLICT) {
            EXPECT_OK(result);
            for (size_t index = 1; index < item.value_size; index++) {
                assert_int_equal(value[index], value[0]);
            }
            atomic_fetch_add(&shared->snapshots, 1);
        }
    }
    return NULL;
}

static void test_map_values_are_never_torn_in_threads(void **state) {
    (void)state;
    struct shared shared = {.writers_left = 1};
    fixture_open(&shared.f, 8 * MIB, 0);
    struct worker writer = {.shared = &shared};
    struct worker readers[READERS];
    shelf_tx *tx = begin_write(&shared.f);
    EXPECT_OK(shelf_map_create(tx, shared.f.region, "map", &shared.map));
    EXPECT_OK(value_change(tx, &writer));
    commit(tx);
    for (unsigned number = 0; number < READERS; number++) {
        start(&readers[number], &shared, number, value_reader_run);
    }
    start(&writer, &shared, 0, value_writer_run);
    join_all(&writer, 1);
    join_all(readers, READERS);
    assert_true(atomic_load(&shared.snapshots) > 0);
    (void)audit(&shared.f);
    fixture_close(&shared.f);
}

// ---- One key, one stream --------------------------------------------------------------------------------------------

// Every thread adds to the same number and appends what it made of it: the records must be 1, 2, 3, ... in order.
static shelf_result count_and_append(shelf_tx *tx, void *context) {
    struct worker *worker = context;
    uint64_t number = 0;
    size_t size;
    shelf_result result = shelf_map_get(tx, worker->shared->map, "number", 6, &number, sizeof(number), &size);
    if (result != SHELF_OK && result != SHELF_NOT_FOUND) {
        return result;
    }
    number++;
    result = shelf_map_put(tx, worker->shared->map, "number", 6, &number, sizeof(number));
    return result != SHELF_OK
               ? result
               : shelf_stream_append(tx, worker->shared->stream, number, &number, sizeof(number), NULL);
}

static void *counter_run(void *argument) {
    struct worker *worker = argument;
    for (unsigned round = 0; round < ROUNDS; round++) {
        EXPECT_OK(shelf_run(worker->shared->f.s, SHELF_READ_WRITE, count_and_append, worker, 60000, NULL));
    }
    return NULL;
}

static void test_map_and_stream_stay_in_step_in_threads(void **state) {
    (void)state;
    struct shared shared = {.writers_left = WRITERS};
    fixture_open(&shared.f, 8 * MIB, 0);
    shelf_tx *tx = begin_write(&shared.f);
    EXPECT_OK(shelf_map_create(tx, shared.f.region, "map", &shared.map));
    EXPECT_OK(shelf_stream_create(tx, shared.f.region, "stream", NULL, &shared.stream));
    commit(tx);
    struct worker writers[WRITERS];
    for (unsigned number = 0; number < WRITERS; number++) {
        start(&writers[number], &shared, number, counter_run);
    }
    join_all(writers, WRITERS);
    uint64_t first, next;
    tx = begin_read(&shared.f);
    EXPECT_OK(shelf_stream_verify(tx, shared.stream));
    EXPECT_OK(shelf_stream_bounds(tx, shared.stream, &first, &next));
    assert_true(first == 0 && next == (uint64_t)WRITERS * ROUNDS);
    for (uint64_t position = 0; position < next; position++) {
        uint64_t number, time_ms;
        size_t size;
        EXPECT_OK(shelf_stream_read(tx, shared.stream, position, &number, sizeof(number), &size, &time_ms));
        assert_true(size == sizeof(number) && number == position + 1 && time_ms == number);
    }
    shelf_abort(tx);
    (void)audit(&shared.f);
    fixture_close(&shared.f);
}

// ---- Allocator ------------------------------------------------------------------------------------------------------

enum { SLOTS = 40 };

struct slots {
    struct worker worker;
    shelf_addr addresses[SLOTS];
    shelf_addr changed[SLOTS]; // what the transaction makes of them
    uint64_t seed;
};

// Frees and allocates some; each block carries its own address and its owner, so that two owners of one are noticed.
static shelf_result slots_change(shelf_tx *tx, void *context) {
    struct slots *slots = context;
    struct random random;
    random_seed(&random, slots->seed); // the same in each attempt
    memcpy(slots->changed, slots->addresses, sizeof(slots->changed));
    for (unsigned step = 0; step < 6; step++) {
        shelf_addr *slot = &slots->changed[random_below(&random, SLOTS)];
        shelf_result result;
        if (*slot != SHELF_NULL) {
            uint64_t mark[2];
            if ((result = shelf_read(tx, *slot, mark, sizeof(mark))) != SHELF_OK) {
                return result;
            }
            assert_true(mark[0] == *slot && mark[1] == slots->worker.number);
            result = shelf_free(tx, *slot);
            *slot = SHELF_NULL;
        } else {
            size_t size = random_between(&random, 16, random_chance(&random, 1, 10) ? 200000 : 2000);
            result = shelf_alloc(tx, slots->worker.shared->f.region, size, slot);
            if (result == SHELF_OK) {
                uint64_t mark[2] = {*slot, slots->worker.number};
                result = shelf_write(tx, *slot, mark, sizeof(mark));
            }
        }
        if (result != SHELF_OK) {
            return result;
        }
    }
    return SHELF_OK;
}

static void *slots_run(void *argument) {
    struct slots *slots = (struct slots *)argument;
    for (unsigned round = 0; round < ROUNDS; round++) {
        slots->seed = random_next(&slots->worker.random);
        EXPECT_OK(shelf_run(slots->worker.shared->f.s, SHELF_READ_WRITE, slots_change, slots, 60000, NULL));
        memcpy(slots->addresses, slots->changed, sizeof(slots->addresses));
    }
    return NULL;
}

static void test_alloc_and_free_in_threads(void **state) {
    (void)state;
    struct shared shared = {.writers_left = WRITERS};
    fixture_open(&shared.f, 64 * MIB, 0);
    static struct slots slots[WRITERS];
    for (unsigned number = 0; number < WRITERS; number++) {
        slots[number].worker = (struct worker){.shared = &shared, .number = number};
        random_seed(&slots[number].worker.random, number);
        assert_int_equal(pthread_create(&slots[number].worker.thread, NULL, slots_run, &slots[number]), 0);
    }
    uint64_t live = 0;
    for (unsigned number = 0; number < WRITERS; number++) {
        assert_int_equal(pthread_join(slots[number].worker.thread, NULL), 0);
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            live += slots[number].addresses[slot] != SHELF_NULL;
        }
    }
    assert_int_equal(audit(&shared.f).blocks_live, live);
    shelf_tx *tx = begin_write(&shared.f);
    for (unsigned number = 0; number < WRITERS; number++) {
        for (unsigned slot = 0; slot < SLOTS; slot++) {
            if (slots[number].addresses[slot] != SHELF_NULL) {
                EXPECT_OK(shelf_free(tx, slots[number].addresses[slot]));
            }
        }
    }
    commit(tx);
    assert_int_equal(audit(&shared.f).live, 0);
    fixture_close(&shared.f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_inserts_and_deletes_in_threads),
        cmocka_unit_test(test_map_values_are_never_torn_in_threads),
        cmocka_unit_test(test_map_and_stream_stay_in_step_in_threads),
        cmocka_unit_test(test_alloc_and_free_in_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
