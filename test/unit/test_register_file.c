// SPDX-License-Identifier: Apache-2.0
//
// A register in a file: both formats, torn slots, and that a single node's `configuration` is what it always was.

#include "world/register_file.h"

#include "base/crc.h"
#include "world_fixture.h"

static int directory_of(const struct fixture *fixture) {
    int fd = open(fixture->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void store(int fd_directory, uint64_t revision, uint16_t format, const char *value) {
    struct register_file file;
    bool unsure = true;
    assert_int_equal(register_file_open(&file, fd_directory, "r", true), 0);
    struct register_slot slot = {
        .format = format, .revision = revision, .value_size = (uint32_t)strlen(value)};
    assert_int_equal(register_file_store(&file, &slot, value, &unsure), 0);
    assert_false(unsure);
    assert_int_equal(file.found.revision, revision);
    assert_memory_equal(file.value, value, strlen(value));
    register_file_close(&file);
}

static int load(int fd_directory, uint64_t *ret_revision, char *ret_value) {
    struct register_file file;
    int error = register_file_open(&file, fd_directory, "r", false);
    if (error == 0) {
        *ret_revision = file.found.revision;
        memcpy(ret_value, file.value, file.found.value_size);
        ret_value[file.found.value_size] = 0;
        register_file_close(&file);
    }
    return error;
}

static void slot_spoil(int fd_directory, off_t offset) {
    uint8_t byte = 0;
    int fd = openat(fd_directory, "r", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, offset), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static void test_nothing_then_something(void **state) {
    int fd = directory_of(*state);
    struct register_file file;
    uint64_t revision = 99;
    char value[REGISTER_VALUE_MAX + 1];
    assert_int_equal(load(fd, &revision, value), ENOENT);
    assert_int_equal(register_file_open(&file, fd, "r", true), 0);
    assert_int_equal(file.found.revision, 0);
    register_file_close(&file);
    assert_int_equal(load(fd, &revision, value), 0); // empty: its making was cut short
    assert_int_equal(revision, 0);
    for (uint64_t i = 1; i < 20; i++) {
        char text[32];
        snprintf(text, sizeof(text), "value %d", (int)i);
        store(fd, i * 3, REGISTER_FORMAT_2, text);
        assert_int_equal(load(fd, &revision, value), 0);
        assert_int_equal(revision, i * 3);
        assert_string_equal(value, text);
    }
    close(fd);
}

// Whatever byte of the newest slot was torn, the one before it counts; if both are, nothing does.
static void test_a_torn_slot_leaves_the_one_before(void **state) {
    int fd = directory_of(*state);
    uint64_t revision = 99;
    char value[REGISTER_VALUE_MAX + 1];
    store(fd, 1, REGISTER_FORMAT_2, "one");
    store(fd, 2, REGISTER_FORMAT_2, "two"); // the first fills both; this is in slot 0
    for (off_t offset = 0; offset < 64 + 3; offset++) {
        slot_spoil(fd, offset);
        assert_int_equal(load(fd, &revision, value), 0);
        assert_int_equal(revision, 1);
        assert_string_equal(value, "one");
        slot_spoil(fd, offset);
    }
    assert_int_equal(load(fd, &revision, value), 0);
    assert_int_equal(revision, 2);
    slot_spoil(fd, 30);
    slot_spoil(fd, 4096 + 30);
    assert_int_equal(load(fd, &revision, value), EBADMSG);
    struct register_file file;
    assert_int_equal(register_file_open(&file, fd, "r", true), EBADMSG);
    close(fd);
}

// No slot of the old format stays behind that an older program would take for the present.
static void test_a_new_format_takes_both_slots(void **state) {
    int fd = directory_of(*state);
    uint8_t bytes[2][REGISTER_SLOT_SIZE];
    store(fd, 1, REGISTER_FORMAT, "");
    store(fd, 2, REGISTER_FORMAT, "");
    store(fd, 3, REGISTER_FORMAT_2, "value");
    int file = openat(fd, "r", O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(file, bytes, sizeof(bytes), 0), sizeof(bytes));
    close(file);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(bytes[i][12], REGISTER_FORMAT_2);
        assert_true(register_slot_valid(bytes[i]));
    }
    close(fd);
}

static uint32_t epoch_swap(struct world *world, uint64_t *epoch) {
    struct io io = {.kind = IO_SWAP_EPOCH, .epoch = *epoch};
    world_run(world, &io);
    *epoch = io.epoch;
    return io.result;
}

// The bytes of the first format, written here from its description.
static void test_a_single_nodes_configuration_is_as_it_was(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    uint8_t slots[2][4096] = {0}, found[2][4096];
    memcpy(slots[1], "SHLFCONF\0\0\0\0\1\0\0\0\x29", 17); // epoch 41
    uint32_t crc = crc32c(0, slots[1], 64);
    memcpy(slots[1] + 8, &crc, 4);
    fixture_file_write(fixture, "configuration", slots, sizeof(slots));
    uint64_t epoch = 41;
    assert_int_equal(epoch_swap(world, &epoch), IO_RESULT_CONFLICT);
    assert_int_equal(epoch, 41);
    epoch = 42;
    assert_int_equal(epoch_swap(world, &epoch), IO_RESULT_OK);

    char path[600];
    snprintf(path, sizeof(path), "%s/configuration", fixture->path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(pread(fd, found, sizeof(found), 0), sizeof(found));
    close(fd);
    memcpy(slots[0], slots[1], 64);
    memset(slots[0] + 8, 0, 4);
    slots[0][16] = 42;
    crc = crc32c(0, slots[0], 64);
    memcpy(slots[0] + 8, &crc, 4);
    assert_memory_equal(found, slots, sizeof(slots));
    world_close(world);
}

static void test_a_clusters_register_is_no_single_nodes(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    struct register_file file;
    bool unsure;
    int fd = open(fixture->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(register_file_open(&file, fd, "configuration", true), 0);
    struct register_slot slot = {.format = REGISTER_FORMAT_2, .revision = 5, .value_size = 3};
    assert_int_equal(register_file_store(&file, &slot, "abc", &unsure), 0);
    register_file_close(&file);
    close(fd);
    uint64_t epoch = 6;
    assert_int_equal(epoch_swap(world, &epoch), IO_RESULT_ERROR);
    assert_non_null(strstr(world_error(world), "register of a cluster"));
    world_close(world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_then_something, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_torn_slot_leaves_the_one_before, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_new_format_takes_both_slots, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_single_nodes_configuration_is_as_it_was, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_a_clusters_register_is_no_single_nodes, fixture_setup,
                                        fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
