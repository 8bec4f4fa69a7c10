// SPDX-License-Identifier: Apache-2.0
//
// A directory of one's own for each test, and ios on the world without ceremony.

#ifndef SHELF_TEST_WORLD_FIXTURE_H
#define SHELF_TEST_WORLD_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmocka_program.h"
#include "directory.h"
#include "world/world.h"

#define UNUSED __attribute__((unused))

struct fixture {
    char directory[256]; // exists
    char path[300];      // of the shelf, below it
};

UNUSED static int fixture_setup(void **state) {
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    const char *base = getenv("TMPDIR");
    snprintf(fixture->directory, sizeof(fixture->directory), "%s/shelf-test-XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(fixture->directory));
    snprintf(fixture->path, sizeof(fixture->path), "%s/shelf", fixture->directory);
    *state = fixture;
    return 0;
}

UNUSED static int fixture_teardown(void **state) {
    struct fixture *fixture = *state;
    (void)directory_remove(fixture->directory);
    free(fixture);
    return 0;
}

UNUSED static void fixture_file_write(const struct fixture *fixture, const char *name, const void *bytes,
                                      size_t size) {
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", fixture->path, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, 0), (ssize_t)size);
    close(fd);
}

// -1: there is none.
UNUSED static long long fixture_file_size(const struct fixture *fixture, const char *name) {
    char path[600];
    struct stat status;
    snprintf(path, sizeof(path), "%s/%s", fixture->path, name);
    return stat(path, &status) == 0 ? (long long)status.st_size : -1;
}

UNUSED static struct world *world_make(const struct fixture *fixture, shelf_backend backend) {
    struct world_options options = {.create = true, .backend = backend};
    struct world *world = NULL;
    char text[WORLD_TEXT_MAX] = "";
    shelf_result result = world_open(fixture->path, &options, &world, text);
    if (result == SHELF_UNAVAILABLE && backend == SHELF_BACKEND_URING) {
        return NULL; // this kernel or sandbox has no io_uring
    }
    assert_string_equal(text, "");
    assert_int_equal(result, SHELF_OK);
    return world;
}

static inline struct file_id file_of(enum file_kind kind, uint32_t region, uint16_t slot) {
    return (struct file_id){.kind = (uint16_t)kind, .slot = slot, .region = region};
}

UNUSED static uint32_t run(struct world *world, enum io_kind kind, struct file_id file, uint64_t offset,
                           void *buffer, uint64_t size, bool durable) {
    struct io io = {.kind = kind,
                    .file = file,
                    .offset = offset,
                    .size = size,
                    .buffer = buffer,
                    .durable = durable,
                    .result = 99};
    world_run(world, &io);
    return io.result;
}

#endif
