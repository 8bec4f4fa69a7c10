// SPDX-License-Identifier: Apache-2.0
//
// Memory of regions: two addresses for the same bytes, growth without movement, and what is left when a region goes.

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "wire/limits.h"
#include "world_fixture.h"

static const uint64_t mib = (uint64_t)1 << 20;

static struct region_memory map(struct world *world, uint32_t region, uint64_t size, uint64_t size_max) {
    struct io io = {
        .kind = IO_MAP, .file = {.region = region}, .size = size, .size_max = size_max, .result = 99};
    world_run(world, &io);
    assert_int_equal(io.result, IO_RESULT_OK);
    return io.memory;
}

static void unmap(struct world *world, uint32_t region) {
    struct io io = {.kind = IO_UNMAP, .file = {.region = region}, .result = 99};
    world_run(world, &io);
    assert_int_equal(io.result, IO_RESULT_OK);
}

static void ends_check(const struct region_memory *memory, uint64_t size, uint8_t mark) {
    uint64_t lines = size / LINE_SIZE, pages = size / PAGE_SIZE;
    assert_int_equal(memory->data[size - 1], 0);
    assert_int_equal(memory->versions[lines - 1], 0);
    assert_int_equal(memory->page_versions[pages - 1], 0);
    assert_int_equal(memory->pages[pages - 1].slot, 0);
    assert_int_equal(memory->blocks[(pages - 1) / TABLE_BLOCK_PAGES].slot, 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(memory->bits[i][(pages - 1) / 64], 0);
        memory->bits[i][(pages - 1) / 64] = mark;
    }
    memory->pages[pages - 1].slot = mark;
    memory->blocks[(pages - 1) / TABLE_BLOCK_PAGES].slot = mark;
    memory->data[size - 1] = mark;
    memory->versions[lines - 1] = mark;
    memory->page_versions[pages - 1] = mark;
    assert_int_equal(memory->data_view[size - 1], mark);
    assert_int_equal(memory->versions_view[lines - 1], mark);
    assert_int_equal(memory->page_versions_view[pages - 1], mark);
}

static void test_map_shows_the_same_bytes_twice(void **state) {
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    struct region_memory one = map(world, 2, PAGE_SIZE, 64ull << 30);
    struct region_memory two = map(world, 3, 3 * mib + PAGE_SIZE, 4 * mib);
    ends_check(&one, PAGE_SIZE, 7);
    ends_check(&two, 3 * mib + PAGE_SIZE, 9);
    assert_ptr_not_equal(one.data, one.data_view);
    assert_int_equal(one.data[PAGE_SIZE - 1], 7);
    assert_int_equal((uintptr_t)two.data % (2 * mib), 0);
    world_close(world);
}

static void test_growth_moves_nothing(void **state) {
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    uint64_t size = PAGE_SIZE;
    struct region_memory first = map(world, 2, size, 1ull << 36);
    ends_check(&first, size, 1);
    for (uint8_t mark = 2; mark < 15; mark++) {
        uint64_t before = size;
        size = size * 2 + PAGE_SIZE * (mark % 3);
        struct region_memory memory = map(world, 2, size, 1ull << 36);
        assert_memory_equal(&memory, &first, sizeof(memory));
        assert_int_equal(memory.data_view[before - 1], mark - 1);
        // Its page table was in use up to there; the next page is untouched.
        assert_int_equal(memory.pages[before / PAGE_SIZE].slot, 0);
        memory.data[size - 1] = 0;
        memory.versions[size / LINE_SIZE - 1] = mark;
        memory.data[size - 1] = mark;
        assert_int_equal(memory.versions_view[size / LINE_SIZE - 1], mark);
    }
    world_close(world);
}

static int child_signal(void (*act)(const struct region_memory *), const struct region_memory *memory) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)signal(SIGSEGV, SIG_DFL);
        act(memory);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : WIFEXITED(status) && WEXITSTATUS(status) != 0 ? -1 : 0;
}

static void write_view(const struct region_memory *memory) {
    volatile uint8_t *byte;
    memcpy(&byte, &memory->data_view, sizeof(byte)); // no cast takes the const away
    *byte = 1;
}

static void write_version_view(const struct region_memory *memory) {
    volatile uint64_t *version;
    memcpy(&version, &memory->versions_view, sizeof(version));
    *version = 1;
}

static void write_page_version_view(const struct region_memory *memory) {
    volatile uint64_t *version;
    memcpy(&version, &memory->page_versions_view, sizeof(version));
    *version = 1;
}

static void write_core(const struct region_memory *memory) {
    *(volatile uint8_t *)memory->data = 1;
}

static void read_view(const struct region_memory *memory) {
    _exit(*(const volatile uint8_t *)memory->data_view == 5 ? 0 : 1);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FAULTS false /* sanitizers turn the signal into a report and an exit code */
#else
#define FAULTS true
#endif

static void test_readers_and_children_cannot_write(void **state) {
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    struct region_memory memory = map(world, 2, PAGE_SIZE, mib);
    memory.data[0] = 5;
    if (FAULTS) {
        assert_int_equal(child_signal(write_view, &memory), SIGSEGV);
        assert_int_equal(child_signal(write_version_view, &memory), SIGSEGV);
        assert_int_equal(child_signal(write_page_version_view, &memory), SIGSEGV);
        assert_int_equal(child_signal(write_core, &memory), SIGSEGV); // not even there in a child
    }
    assert_int_equal(child_signal(read_view, &memory), 0);
    assert_int_equal(memory.data_view[0], 5);
    world_close(world);
}

static void test_unmap_gives_memory_back_and_stays_readable(void **state) {
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    uint64_t size = 8 * mib;
    struct region_memory old = map(world, 2, size, 16 * mib);
    memset(old.data, 1, size);
    memset(old.pages, 1, 64);
    atomic_store(&old.versions[100], 5);
    atomic_store(&old.page_versions[size / PAGE_SIZE - 1], 5);
    unmap(world, 2);
    unsigned char resident[2048] = {0};
    assert_int_equal(mincore(old.data, size, resident), 0);
    for (size_t i = 0; i < size / PAGE_SIZE; i++) {
        assert_int_equal(resident[i] & 1, 0);
    }
    // The stretch goes to the next region that fits; late readers of the old one see zeros, or the new one's bytes.
    struct region_memory larger = map(world, 3, PAGE_SIZE, 32 * mib);
    assert_ptr_not_equal(larger.data, old.data);
    struct region_memory next = map(world, 4, PAGE_SIZE, 4 * mib);
    assert_ptr_equal(next.data, old.data);
    assert_int_equal(next.data[0], 0);
    assert_int_equal(next.versions[0], 0);
    assert_int_equal(next.pages[0].slot, 0);
    next.data[0] = 2;
    const volatile uint8_t *late = old.data_view;
    assert_int_equal(late[0], 2);
    uint64_t sum = 0;
    for (uint64_t offset = PAGE_SIZE; offset < size; offset += PAGE_SIZE) {
        sum += late[offset];
    }
    assert_int_equal(sum, 0);
    assert_int_equal(old.versions_view[100], 0);
    assert_int_equal(old.versions_view[size / LINE_SIZE - 1], 0);
    assert_int_equal(old.page_versions_view[size / PAGE_SIZE - 1], 0);
    // It grows into what was covered.
    (void)map(world, 4, 4 * mib, 4 * mib);
    next.data[4 * mib - 1] = 3;
    assert_int_equal(late[4 * mib - 1], 3);
    assert_int_equal(late[8 * mib - 1], 0);
    world_close(world);
}

// Address space is finite: without reuse, a thousand of these would not fit.
static void test_create_and_drop_for_ever(void **state) {
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    for (uint32_t region = 2; region < 1500; region++) {
        struct region_memory memory = map(world, region, PAGE_SIZE, 1ull << 36);
        assert_int_equal(memory.data[0], 0);
        memory.data[0] = 1;
        unmap(world, region);
    }
    world_close(world);
}

static void test_too_much_is_no_memory(void **state) {
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    struct io io = {0};
    for (uint32_t region = 2; region < 1000 && io.result == IO_RESULT_OK; region++) {
        io = (struct io){
            .kind = IO_MAP, .file = {.region = region}, .size = PAGE_SIZE, .size_max = 1ull << 40};
        world_run(world, &io);
    }
    assert_int_equal(io.result, IO_RESULT_NO_MEMORY);
    // Small ones still find a place.
    (void)map(world, 2000, PAGE_SIZE, PAGE_SIZE);
    world_close(world);
}

static void test_single_alias(void **state) {
    struct fixture *fixture = *state;
    struct world_options options = {.create = true, .alias_single = true};
    struct world *world = NULL;
    char text[WORLD_TEXT_MAX];
    assert_int_equal(world_open(fixture->path, &options, &world, text), SHELF_OK);
    struct region_memory memory = map(world, 2, 2 * mib, 4 * mib);
    assert_ptr_equal(memory.data, memory.data_view);
    assert_ptr_equal(memory.versions, memory.versions_view);
    assert_ptr_equal(memory.page_versions, memory.page_versions_view);
    ends_check(&memory, 2 * mib, 3);
    unmap(world, 2);
    struct region_memory next = map(world, 3, mib, 4 * mib);
    assert_ptr_equal(next.data, memory.data);
    ends_check(&next, mib, 4);
    assert_int_equal(memory.data_view[2 * mib - 1], 0);
    world_close(world);
}

static uint8_t pattern(uint64_t offset) {
    return (uint8_t)(offset * 31 + (offset >> 12));
}

static void pattern_check(const uint8_t *bytes, uint64_t size) {
    for (uint64_t offset = 0; offset < size; offset++) {
        if (bytes[offset] != pattern(offset)) {
            fail_msg("byte %llu has changed", (unsigned long long)offset);
        }
    }
}

// Full blocks of data and versions are turned once; sparse ones are left until they fill up. No byte changes.
static void test_settling_changes_no_byte(void **state) {
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    uint64_t size = 20 * mib, filled = 16 * mib;
    struct region_memory memory = map(world, 2, size, 64 * mib);
    (void)map(world, 3, size, 64 * mib); // all of it untouched
    assert_false(world_memory_settle(world));
    for (uint64_t offset = 0; offset < filled; offset++) {
        memory.data[offset] = pattern(offset);
    }
    for (uint64_t line = 0; line < 16 * mib / LINE_SIZE; line++) {
        atomic_store(&memory.versions[line], line);
    }
    uint32_t found = 0;
    for (int quiet = 0; quiet < 4; quiet++) {
        while (world_memory_settle(world)) {
            found++;
            quiet = 0;
        }
    }
    assert_int_equal(found, 8 + 1); // versions of 16 MiB are 2 MiB
    pattern_check(memory.data, filled);
    pattern_check(memory.data_view, filled);
    for (uint64_t line = 0; line < 16 * mib / LINE_SIZE; line++) {
        assert_int_equal(memory.versions_view[line], line);
    }
    assert_int_equal(memory.data_view[filled], 0);
    memory.data[5] = 1; // still one memory under two addresses
    assert_int_equal(memory.data_view[5], 1);
    unmap(world, 2);
    unmap(world, 3);
    world_close(world);
}

// A file of the pattern.
static struct file_id pattern_file(struct world *world, uint64_t size) {
    struct file_id file = file_of(FILE_PAGES, 2, 0);
    uint8_t *bytes = aligned_alloc(4096, size);
    assert_non_null(bytes);
    for (uint64_t offset = 0; offset < size; offset++) {
        bytes[offset] = pattern(offset);
    }
    assert_int_equal(run(world, IO_WRITE, file, 0, bytes, size, false), IO_RESULT_OK);
    free(bytes);
    return file;
}

// Large reads into a region have huge pages made for them, several reads' at a time; small ones do not. The bytes are
// the file's, in whatever order and sizes the reads come, however many helpers there are.
static void test_reads_into_regions(void **state) {
    enum { READS = 25 };
    const uint64_t size = READS * mib + 3 * PAGE_SIZE;
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    struct file_id file = pattern_file(world, size);
    for (uint32_t turn = 0; turn < 3; turn++) {
        static const uint64_t strides[] = {1, READS - 1, 7}; // forwards, backwards, here and there
        struct region_memory memory = map(world, 2 + turn, size, 64 * mib);
        struct io_queue *queue = io_queue_open(world, turn == 0 ? 1 : 3 * turn);
        struct io ios[READS + 1];
        for (uint64_t i = 0; i <= READS; i++) {
            uint64_t offset = i < READS ? i * strides[turn] % READS * mib : READS * mib;
            ios[i] = (struct io){.kind = IO_READ,
                                 .file = file,
                                 .offset = offset,
                                 .size = i < READS ? mib : 3 * PAGE_SIZE,
                                 .buffer = memory.data + offset};
            io_queue_start(queue, &ios[i]);
        }
        while (io_queue_active(queue) > 0) {
            struct io *io = io_queue_wait(queue, -1);
            assert_true(!io || io->result == IO_RESULT_OK);
        }
        io_queue_close(queue);
        pattern_check(memory.data_view, size);
        unmap(world, 2 + turn);
    }
    world_close(world);
}

// A read that ends in the midst of a block, and of the region, makes no more than the region has; what was not read is zero.
static void test_reads_into_part_of_a_region(void **state) {
    const uint64_t size = 5 * mib;
    struct world *world = world_make(*state, SHELF_BACKEND_PLAIN);
    struct file_id file = pattern_file(world, size);
    struct region_memory memory = map(world, 2, size, 64 * mib);
    struct io_queue *queue = io_queue_open(world, 3);
    struct io read = {
        .kind = IO_READ, .file = file, .offset = mib, .size = 2 * mib, .buffer = memory.data + mib};
    io_queue_start(queue, &read);
    while (io_queue_active(queue) > 0) {
        (void)io_queue_wait(queue, -1);
    }
    assert_int_equal(read.result, IO_RESULT_OK);
    io_queue_close(queue);
    for (uint64_t offset = 0; offset < size; offset++) {
        bool inside = offset >= mib && offset < 3 * mib;
        assert_int_equal(memory.data_view[offset], inside ? pattern(offset) : 0);
    }
    world_close(world);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_map_shows_the_same_bytes_twice),
        TEST(test_growth_moves_nothing),
        TEST(test_readers_and_children_cannot_write),
        TEST(test_unmap_gives_memory_back_and_stays_readable),
        TEST(test_create_and_drop_for_ever),
        TEST(test_too_much_is_no_memory),
        TEST(test_single_alias),
        TEST(test_settling_changes_no_byte),
        TEST(test_reads_into_regions),
        TEST(test_reads_into_part_of_a_region),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
