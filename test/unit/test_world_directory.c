// SPDX-License-Identifier: Apache-2.0
//
// The directory of a shelf: who may open it, what it must look like, what a crash may have left in it.

#include <sys/file.h>
#include <sys/wait.h>

#include "world_fixture.h"

static shelf_result open_result(const char *path, struct world_options options, struct world **ret_world,
                                char *text) {
    text[0] = 0;
    return world_open(path, &options, ret_world, text);
}

static void test_open_without_create_finds_nothing(void **state) {
    struct fixture *fixture = *state;
    struct world *world = NULL;
    char text[WORLD_TEXT_MAX];
    assert_int_equal(open_result(fixture->path, (struct world_options){0}, &world, text), SHELF_NOT_FOUND);
    assert_non_null(strstr(text, fixture->path));
    // An existing directory is not made into anything either.
    assert_int_equal(open_result(fixture->directory, (struct world_options){0}, &world, text),
                     SHELF_NOT_FOUND);
    assert_int_equal(rmdir(fixture->directory), 0);
    assert_int_equal(mkdir(fixture->directory, 0700), 0);
    assert_null(world);
}

static void test_open_refuses_what_is_no_directory(void **state) {
    struct fixture *fixture = *state;
    struct world *world = NULL;
    char text[WORLD_TEXT_MAX];
    struct world_options create = {.create = true};
    int fd = open(fixture->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(open_result(fixture->path, create, &world, text), SHELF_INVALID);
    assert_non_null(strstr(text, "Not a directory"));
    assert_int_equal(open_result("", create, &world, text), SHELF_INVALID);
    char below[400];
    snprintf(below, sizeof(below), "%s/none/shelf", fixture->directory);
    assert_int_equal(open_result(below, create, &world, text), SHELF_NOT_FOUND);
}

static void publish(struct world *world) {
    static _Alignas(4096) uint8_t block[4096] = {1, 2, 3};
    struct file_id superblock = file_of(FILE_SUPERBLOCK, 0, 0);
    assert_int_equal(run(world, IO_WRITE, superblock, 0, block, sizeof(block), false), IO_RESULT_OK);
    assert_int_equal(run(world, IO_PUBLISH, superblock, 0, NULL, 0, false), IO_RESULT_OK);
}

static void test_publish_makes_the_shelf(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    assert_false(world_shelf_exists(world));
    assert_int_equal(fixture_file_size(fixture, "superblock"), -1);
    publish(world);
    assert_int_equal(fixture_file_size(fixture, "superblock"), 4096);
    assert_int_equal(fixture_file_size(fixture, "superblock.new"), -1);
    world_close(world);

    char text[WORLD_TEXT_MAX];
    struct world_options exclusive = {.create = true, .exclusive = true};
    assert_int_equal(open_result(fixture->path, exclusive, &world, text), SHELF_EXISTS);
    assert_int_equal(open_result(fixture->path, (struct world_options){0}, &world, text), SHELF_OK);
    assert_true(world_shelf_exists(world));
    _Alignas(4096) uint8_t block[4096];
    assert_int_equal(run(world, IO_READ, file_of(FILE_SUPERBLOCK, 0, 0), 0, block, 4096, false),
                     IO_RESULT_OK);
    assert_int_equal(block[2], 3);
    world_close(world);
}

static void test_second_open_is_busy_and_names_the_process(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_AUTO);
    publish(world);
    struct world *second = NULL;
    char text[WORLD_TEXT_MAX], expected[64];
    assert_int_equal(open_result(fixture->path, (struct world_options){0}, &second, text), SHELF_BUSY);
    snprintf(expected, sizeof(expected), "in use by process %ld", (long)getpid());
    assert_non_null(strstr(text, expected));
    world_close(world);
    assert_int_equal(open_result(fixture->path, (struct world_options){0}, &second, text), SHELF_OK);
    world_close(second);
}

// The lock would belong to the child as well, if the child had kept the descriptor.
static void test_child_of_fork_does_not_keep_the_lock(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_AUTO);
    publish(world);
    int hold[2];
    assert_int_equal(pipe(hold), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) { // lives until the parent lets go of the pipe
        char byte;
        close(hold[1]);
        (void)!read(hold[0], &byte, 1);
        _exit(0);
    }
    close(hold[0]);
    // The parent goes on working, and can hand the directory to the next while the child lives.
    _Alignas(4096) uint8_t block[4096] = {9};
    assert_int_equal(run(world, IO_WRITE, file_of(FILE_LOG, 0, 0), 0, block, 4096, true), IO_RESULT_OK);
    world_close(world);
    char text[WORLD_TEXT_MAX];
    assert_int_equal(open_result(fixture->path, (struct world_options){0}, &world, text), SHELF_OK);
    world_close(world);
    close(hold[1]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_unfinished_making_is_thrown_away(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    struct file_id log = file_of(FILE_LOG, 0, 0);
    uint8_t byte = 7;
    assert_int_equal(run(world, IO_RESERVE, log, 0, NULL, 8192, false), IO_RESULT_OK);
    assert_int_equal(run(world, IO_WRITE, log, 100, &byte, 1, true), IO_RESULT_OK);
    assert_int_equal(run(world, IO_WRITE, file_of(FILE_TABLE, 7, 0), 0, &byte, 1, true), IO_RESULT_OK);
    world_close(world); // as a crash before the publication would leave it

    world = world_make(fixture, SHELF_BACKEND_PLAIN);
    assert_false(world_shelf_exists(world));
    struct io length = {.kind = IO_LENGTH, .file = log, .size = 1};
    world_run(world, &length);
    assert_int_equal(length.result, IO_RESULT_OK);
    assert_int_equal(length.size, 0);
    assert_int_equal(fixture_file_size(fixture, "table.7"), -1);
    world_close(world);
}

static void test_files_without_superblock_are_left_alone(void **state) {
    struct fixture *fixture = *state;
    struct world *world = NULL;
    char text[WORLD_TEXT_MAX];
    struct world_options create = {.create = true};
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    fixture_file_write(fixture, "log", "mine", 4);
    assert_int_equal(open_result(fixture->path, create, &world, text), SHELF_EXISTS);
    assert_non_null(strstr(text, "`log`"));
    assert_int_equal(fixture_file_size(fixture, "log"), 4);
    // Files with other names do not matter.
    char path[600];
    snprintf(path, sizeof(path), "%s/log", fixture->path);
    assert_int_equal(unlink(path), 0);
    fixture_file_write(fixture, "pages.of.mine", "mine", 4);
    fixture_file_write(fixture, "table.", "mine", 4);
    assert_int_equal(open_result(fixture->path, create, &world, text), SHELF_OK);
    world_close(world);
    assert_int_equal(fixture_file_size(fixture, "pages.of.mine"), 4);
}

static bool known_odd(void *context, uint32_t region) {
    (void)context;
    return region % 2 == 1;
}

static void test_sweep_removes_unknown_regions_only(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    static const char *const kept[] = {"table.3",  "pages.3.a", "pages.65535.b", "pages.4.c",
                                       "table.04", "tables.4",  "table.4x",      "pages.4"};
    static const char *const removed[] = {"table.4", "pages.4.a", "pages.4.b", "pages.65534.a"};
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        fixture_file_write(fixture, kept[i], "x", 1);
    }
    for (size_t i = 0; i < sizeof(removed) / sizeof(removed[0]); i++) {
        fixture_file_write(fixture, removed[i], "x", 1);
    }
    world_sweep(world, known_odd, NULL);
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        assert_int_equal(fixture_file_size(fixture, kept[i]), 1);
    }
    for (size_t i = 0; i < sizeof(removed) / sizeof(removed[0]); i++) {
        assert_int_equal(fixture_file_size(fixture, removed[i]), -1);
    }
    world_close(world);
}

static void test_checkpoint_is_held_by_a_shared_lock(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    assert_false(world_checkpoint_held(world));
    char path[600];
    snprintf(path, sizeof(path), "%s/checkpoint.lock", fixture->path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), 0);
    assert_true(world_checkpoint_held(world));
    close(fd);
    assert_false(world_checkpoint_held(world));
    world_close(world);
}

static struct io swap(struct world *world, uint64_t epoch) {
    struct io io = {.kind = IO_SWAP_EPOCH, .epoch = epoch};
    world_run(world, &io);
    return io;
}

static void test_epoch_is_swapped_once(void **state) {
    struct fixture *fixture = *state;
    struct world *world = world_make(fixture, SHELF_BACKEND_PLAIN);
    assert_int_equal(swap(world, 1).result, IO_RESULT_OK);
    publish(world);
    assert_int_equal(swap(world, 5).result, IO_RESULT_OK);
    world_close(world);
    world = world_make(fixture, SHELF_BACKEND_PLAIN);
    struct io again = swap(world, 5);
    assert_int_equal(again.result, IO_RESULT_CONFLICT);
    assert_int_equal(again.epoch, 5);
    assert_int_equal(swap(world, 4).result, IO_RESULT_CONFLICT);
    assert_int_equal(swap(world, 6).result, IO_RESULT_OK);
    assert_string_equal(world_error(world), "");

    // Either slot may be lost: the other is at most one swap older. It never needs more space.
    assert_int_equal(fixture_file_size(fixture, "configuration"), 8192);
    uint8_t damage[4096 + 24];
    memset(damage, 0xd6, sizeof(damage));
    fixture_file_write(fixture, "configuration", "damaged!damaged!damaged!", 24);
    uint64_t present = swap(world, 1).epoch;
    assert_true(present == 5 || present == 6);
    assert_int_equal(swap(world, 7).result, IO_RESULT_OK);
    assert_int_equal(swap(world, 7).epoch, 7);
    assert_int_equal(fixture_file_size(fixture, "configuration"), 8192);
    fixture_file_write(fixture, "configuration", damage, sizeof(damage));
    assert_int_equal(swap(world, 8).result, IO_RESULT_ERROR);
    assert_non_null(strstr(world_error(world), "configuration"));
    assert_non_null(strstr(world_error(world), "damaged"));
    world_close(world);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_open_without_create_finds_nothing),
        TEST(test_open_refuses_what_is_no_directory),
        TEST(test_publish_makes_the_shelf),
        TEST(test_second_open_is_busy_and_names_the_process),
        TEST(test_child_of_fork_does_not_keep_the_lock),
        TEST(test_unfinished_making_is_thrown_away),
        TEST(test_files_without_superblock_are_left_alone),
        TEST(test_sweep_removes_unknown_regions_only),
        TEST(test_checkpoint_is_held_by_a_shared_lock),
        TEST(test_epoch_is_swapped_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
