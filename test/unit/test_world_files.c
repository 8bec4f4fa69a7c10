// SPDX-License-Identifier: Apache-2.0
//
// Ios on files, one at a time and many at once, through both back ends; also on a filesystem without O_DIRECT and under
// a limit that lets writes fail.

#include <signal.h>
#include <sys/resource.h>

#include "base/random.h"
#include "world_fixture.h"

enum { MIB = 1 << 20 };

static uint8_t *aligned(size_t size) {
    uint8_t *bytes = aligned_alloc(4096, size);
    assert_non_null(bytes);
    return bytes;
}

static void test_write_then_read_any_offset_and_size(void **state) {
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    struct file_id files[] = {file_of(FILE_LOG, 0, 0),   file_of(FILE_HINT, 0, 0),
                              file_of(FILE_ROOTS, 0, 1), file_of(FILE_PAGES, 3, 0),
                              file_of(FILE_PAGES, 3, 1), file_of(FILE_TABLE, 3, 0)};
    enum { SIZE = 64 << 10 };
    uint8_t *model = aligned(2 * SIZE), *bytes = aligned(SIZE);
    struct random random;
    random_seed(&random, 5);
    for (size_t f = 0; f < sizeof(files) / sizeof(files[0]); f++) {
        memset(model, 0, 2 * SIZE);
        for (int round = 0; round < 60; round++) {
            uint64_t unit = round % 3 == 0 ? 1 : round % 3 == 1 ? 512 : 4096; // O_DIRECT and not, mixed
            uint64_t offset = random_below(&random, SIZE / unit) * unit;
            uint64_t size = random_between(&random, 1, (SIZE - offset) / unit) * unit;
            random_fill(&random, bytes, size);
            memcpy(model + offset, bytes, size);
            assert_int_equal(run(world, IO_WRITE, files[f], offset, bytes, size, round % 2), IO_RESULT_OK);
            // Beyond the end it reads as zero, as the model does.
            offset = random_below(&random, SIZE / unit) * unit;
            assert_int_equal(run(world, IO_READ, files[f], offset, bytes, SIZE, false), IO_RESULT_OK);
            assert_memory_equal(bytes, model + offset, SIZE);
        }
        assert_int_equal(run(world, IO_SYNC, files[f], 0, NULL, 0, false), IO_RESULT_OK);
    }
    assert_string_equal(world_error(world), "");
    free(model);
    free(bytes);
    world_close(world);
}

static void test_missing_file_is_empty(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    uint8_t bytes[100];
    memset(bytes, 1, sizeof(bytes));
    struct file_id file = file_of(FILE_PAGES, 9, 1);
    assert_int_equal(run(world, IO_READ, file, 4096, bytes, sizeof(bytes), false), IO_RESULT_OK);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        assert_int_equal(bytes[i], 0);
    }
    assert_int_equal(run(world, IO_SYNC, file, 0, NULL, 0, false), IO_RESULT_OK);
    assert_int_equal(run(world, IO_REMOVE, file, 0, NULL, 0, false), IO_RESULT_OK);
    assert_int_equal(fixture_file_size(fixture, "pages.9.b"), -1); // none of these made it
    world_close(world);
}

static void test_reserve_extends_with_zeros_and_keeps_bytes(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    struct file_id file = file_of(FILE_PAGES, 2, 0);
    uint8_t bytes[5] = "12345", back[10];
    assert_int_equal(run(world, IO_RESERVE, file, 0, NULL, MIB, false), IO_RESULT_OK);
    assert_int_equal(fixture_file_size(fixture, "pages.2.a"), MIB);
    assert_int_equal(run(world, IO_WRITE, file, MIB - 5, bytes, 5, false), IO_RESULT_OK);
    assert_int_equal(run(world, IO_RESERVE, file, 0, NULL, 2 * MIB, false), IO_RESULT_OK);
    assert_int_equal(run(world, IO_RESERVE, file, 0, NULL, 4096, false), IO_RESULT_OK); // never shrinks
    assert_int_equal(fixture_file_size(fixture, "pages.2.a"), 2 * MIB);
    assert_int_equal(run(world, IO_READ, file, MIB - 5, back, 10, false), IO_RESULT_OK);
    assert_memory_equal(back, "12345\0\0\0\0\0", 10);
    world_close(world);
}

// The limit stands for a full disk: the system reports it in the same places.
static void test_no_space_is_an_outcome(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    struct file_id file = file_of(FILE_PAGES, 2, 0);
    assert_int_equal(run(world, IO_RESERVE, file, 0, NULL, MIB, false), IO_RESULT_OK);
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 2 * MIB;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);

    uint8_t *bytes = aligned(MIB);
    memset(bytes, 3, MIB);
    uint32_t reserved = run(world, IO_RESERVE, file, 0, NULL, 4 * MIB, false);
    uint32_t written = run(world, IO_WRITE, file, 2 * MIB - 4096, bytes, MIB, false); // the first page fits
    uint32_t durable = run(world, IO_WRITE, file_of(FILE_LOG, 0, 0), 3 * MIB, bytes, 4096, true);
    uint32_t fits = run(world, IO_WRITE, file, 0, bytes, MIB, false);

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(reserved, IO_RESULT_NO_SPACE);
    assert_int_equal(written, IO_RESULT_NO_SPACE);
    assert_int_equal(durable, IO_RESULT_NO_SPACE);
    assert_int_equal(fits, IO_RESULT_OK);
    assert_string_equal(world_error(world), ""); // no fault
    // The same ios succeed when there is space.
    assert_int_equal(run(world, IO_RESERVE, file, 0, NULL, 4 * MIB, false), IO_RESULT_OK);
    assert_int_equal(run(world, IO_WRITE, file, 2 * MIB - 4096, bytes, MIB, false), IO_RESULT_OK);
    free(bytes);
    world_close(world);
}

static void test_fault_is_an_error_and_told(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    char path[600];
    snprintf(path, sizeof(path), "%s/hint", fixture->path);
    assert_int_equal(mkdir(path, 0700), 0);
    uint8_t byte = 0;
    assert_int_equal(run(world, IO_WRITE, file_of(FILE_HINT, 0, 0), 512, &byte, 1, true), IO_RESULT_ERROR);
    assert_non_null(strstr(world_error(world), "cannot open hint at 512"));
    assert_non_null(strstr(world_error(world), "Is a directory"));
    char first[WORLD_TEXT_MAX];
    snprintf(first, sizeof(first), "%s", world_error(world));
    assert_int_equal(run(world, IO_READ, file_of(FILE_HINT, 0, 0), 0, &byte, 1, false), IO_RESULT_ERROR);
    assert_string_equal(world_error(world), first); // the first cause is kept
    world_close(world);
}

// More files than are kept open.
static void test_many_regions(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    enum { REGIONS = 130 };
    for (uint32_t region = 2; region < 2 + REGIONS; region++) {
        for (uint16_t slot = 0; slot < 2; slot++) {
            uint32_t number = region * 2 + slot;
            assert_int_equal(run(world, IO_WRITE, file_of(FILE_PAGES, region, slot), region * 10, &number,
                                 sizeof(number), false),
                             IO_RESULT_OK);
        }
    }
    for (uint32_t region = 2; region < 2 + REGIONS; region++) {
        for (uint16_t slot = 0; slot < 2; slot++) {
            struct file_id file = file_of(FILE_PAGES, region, slot);
            uint32_t number = 0;
            assert_int_equal(run(world, IO_SYNC, file, 0, NULL, 0, false), IO_RESULT_OK);
            assert_int_equal(run(world, IO_READ, file, region * 10, &number, sizeof(number), false),
                             IO_RESULT_OK);
            assert_int_equal(number, region * 2 + slot);
        }
        assert_int_equal(run(world, IO_REMOVE, file_of(FILE_TABLE, region, 0), 0, NULL, 0, false),
                         IO_RESULT_OK);
    }
    size_t open_count = 0;
    DIR *descriptors = opendir("/proc/self/fd");
    assert_non_null(descriptors);
    while (readdir(descriptors)) {
        open_count++;
    }
    closedir(descriptors);
    assert_true(open_count < 120);
    assert_int_equal(fixture_file_size(fixture, "pages.2.a"), -1);
    world_close(world);
}

// Eight writes, then eight reads under way at once, of each kind of completion: aligned, odd, past the end, no file.
static void queue_check(struct fixture *fixture, shelf_backend backend, uint32_t workers) {
    struct world *world = world_make(fixture, backend);
    if (!world) {
        skip();
        return;
    }
    assert_int_equal(world_backend(world), backend);
    struct io_queue *queue = io_queue_open(world, workers);
    assert_non_null(queue);
    enum { COUNT = 40, SIZE = 256 << 10 };
    static struct io ios[COUNT];
    uint8_t *buffers[COUNT];
    struct random random;
    random_seed(&random, 11);
    for (size_t i = 0; i < COUNT; i++) {
        buffers[i] = aligned(SIZE);
        random_fill(&random, buffers[i], SIZE);
        uint64_t odd = i % 5 == 0;
        ios[i] = (struct io){.kind = IO_WRITE,
                             .file = i % 2 ? file_of(FILE_PAGES, 2, 0) : file_of(FILE_LOG, 0, 0),
                             .offset = i * (uint64_t)SIZE + odd,
                             .size = SIZE - 2 * odd,
                             .buffer = buffers[i] + odd,
                             .durable = i % 3 == 0};
        io_queue_start(queue, &ios[i]);
    }
    assert_int_equal(io_queue_active(queue), COUNT);
    for (size_t done = 0; done < COUNT; done++) {
        struct io *io = NULL;
        while (!io) { // a worker's bell may come first
            io = io_queue_wait(queue, -1);
        }
        assert_int_equal(io->result, IO_RESULT_OK);
    }
    assert_int_equal(io_queue_active(queue), 0);
    assert_null(io_queue_wait(queue, 0));

    struct io sync = {.kind = IO_SYNC, .file = file_of(FILE_PAGES, 2, 0), .result = 99};
    struct io missing = {
        .kind = IO_READ, .file = file_of(FILE_HINT, 0, 0), .buffer = &random, .size = 8, .result = 99};
    struct io reserve = {.kind = IO_RESERVE, .file = file_of(FILE_TABLE, 2, 0), .size = 4096, .result = 99};
    io_queue_start(queue, &sync);
    io_queue_start(queue, &missing);
    io_queue_start(queue, &reserve);
    uint8_t *expected[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        uint64_t odd = i % 5 == 0;
        expected[i] = buffers[i];
        buffers[i] = aligned(2 * SIZE);
        ios[i] = (struct io){.kind = IO_READ,
                             .file = i % 2 ? file_of(FILE_PAGES, 2, 0) : file_of(FILE_LOG, 0, 0),
                             .offset = i * (uint64_t)SIZE + odd,
                             .size = SIZE - 2 * odd,
                             .buffer = buffers[i] + odd};
        if (i == COUNT - 1) {
            ios[i].size = 2 * SIZE; // half of it past the end
        }
        io_queue_start(queue, &ios[i]);
    }
    while (io_queue_active(queue) > 0) {
        struct io *io = io_queue_wait(queue, -1);
        assert_true(!io || io->result == IO_RESULT_OK);
    }
    assert_int_equal(sync.result, IO_RESULT_OK);
    assert_int_equal(reserve.result, IO_RESULT_OK);
    assert_int_equal(random.state[0], 0);
    for (size_t i = 0; i < COUNT; i++) {
        uint64_t odd = i % 5 == 0;
        assert_memory_equal(buffers[i] + odd, expected[i] + odd, SIZE - 2 * odd);
    }
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(buffers[COUNT - 1][SIZE + i], 0);
    }
    for (size_t i = 0; i < COUNT; i++) {
        free(buffers[i]);
        free(expected[i]);
    }
    assert_string_equal(world_error(world), "");
    io_queue_close(queue);
    world_close(world);
}

static void test_queue_uring(void **state) {
    queue_check(*state, SHELF_BACKEND_URING, 0);
}

static void test_queue_plain_workers(void **state) {
    queue_check(*state, SHELF_BACKEND_PLAIN, 3);
}

static void test_queue_plain_alone(void **state) {
    queue_check(*state, SHELF_BACKEND_PLAIN, 0);
}

static void test_queue_on_memory_filesystem(void **state) {
    struct fixture *fixture = *state;
    char directory[] = "/dev/shm/shelf-test-XXXXXX";
    if (!mkdtemp(directory)) {
        skip();
        return;
    }
    struct fixture memory = *fixture;
    snprintf(memory.path, sizeof(memory.path), "%s/shelf", directory);
    snprintf(memory.directory, sizeof(memory.directory), "%s", directory);
    queue_check(&memory, SHELF_BACKEND_PLAIN, 2);
    (void)directory_remove(directory);
}

// A fault reaches the io that it belongs to, and no other.
static void queue_fault_check(struct fixture *fixture, shelf_backend backend) {
    struct world *world = world_make(fixture, backend);
    if (!world) {
        skip();
        return;
    }
    struct rlimit before, limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = MIB;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    struct io_queue *queue = io_queue_open(world, 0); // after world_open(), which wants no limit
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    uint8_t *bytes = aligned(8192);
    memset(bytes, 1, 8192);
    struct io ios[3] = {{.kind = IO_WRITE, .offset = 0},
                        {.kind = IO_WRITE, .offset = MIB - 4096},
                        {.kind = IO_WRITE, .offset = MIB}};
    for (size_t i = 0; i < 3; i++) {
        ios[i].file = file_of(FILE_LOG, 0, 0);
        ios[i].buffer = bytes;
        ios[i].size = 8192;
        ios[i].durable = 1;
        io_queue_start(queue, &ios[i]);
    }
    while (io_queue_active(queue) > 0) {
        (void)io_queue_wait(queue, -1);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    (void)signal(SIGXFSZ, handler);
    free(bytes);
    assert_int_equal(ios[0].result, IO_RESULT_OK);
    assert_int_equal(ios[1].result, IO_RESULT_NO_SPACE); // half of it fitted
    assert_int_equal(ios[2].result, IO_RESULT_NO_SPACE);
    io_queue_close(queue);
    world_close(world);
}

static void test_queue_no_space_uring(void **state) {
    queue_fault_check(*state, SHELF_BACKEND_URING);
}

static void test_queue_no_space_plain(void **state) {
    queue_fault_check(*state, SHELF_BACKEND_PLAIN);
}

static void queue_bell_check(struct fixture *fixture, shelf_backend backend) {
    struct world *world = world_make(fixture, backend);
    if (!world) {
        skip();
        return;
    }
    struct io_queue *queue = io_queue_open(world, 0);
    for (int i = 0; i < 3; i++) {
        io_queue_ring(queue);
        io_queue_ring(queue);
        assert_null(io_queue_wait(queue, -1)); // returns for both together
    }
    uint64_t before = world_monotonic_ns();
    assert_null(io_queue_wait(queue, 20)); // not rung since
    assert_true(world_monotonic_ns() - before >= 15 * 1000000ull);
    io_queue_close(queue);
    world_close(world);
}

static void test_queue_bell_uring(void **state) {
    queue_bell_check(*state, SHELF_BACKEND_URING);
}

static void test_queue_bell_plain(void **state) {
    queue_bell_check(*state, SHELF_BACKEND_PLAIN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_write_then_read_any_offset_and_size),
        TEST(test_missing_file_is_empty),
        TEST(test_reserve_extends_with_zeros_and_keeps_bytes),
        TEST(test_no_space_is_an_outcome),
        TEST(test_fault_is_an_error_and_told),
        TEST(test_many_regions),
        TEST(test_queue_uring),
        TEST(test_queue_plain_workers),
        TEST(test_queue_plain_alone),
        TEST(test_queue_on_memory_filesystem),
        TEST(test_queue_no_space_uring),
        TEST(test_queue_no_space_plain),
        TEST(test_queue_bell_uring),
        TEST(test_queue_bell_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
