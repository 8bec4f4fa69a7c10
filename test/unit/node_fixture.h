// SPDX-License-Identifier: Apache-2.0
//
// Requests to a node, made by hand.

#ifndef SHELF_TEST_NODE_FIXTURE_H
#define SHELF_TEST_NODE_FIXTURE_H

#include <stdatomic.h>

#include "base/detail.h"
#include "core/state.h"
#include "node/node.h"
#include "node/node_state.h"
#include "world_fixture.h"

enum { DEADLINE_MS = 20000 };

struct word_commit { // a commit that writes one word
    struct commit_request request;
    struct record_range range;
    uint64_t word;
};

static inline struct shelf_options node_options(shelf_backend backend) {
    return (struct shelf_options){.flags = SHELF_OPEN_CREATE,
                                  .backend = backend,
                                  .log_bytes_max = (uint64_t)128 << 20,
                                  .checkpoint_log_bytes = (uint64_t)32 << 20,
                                  .checkpoint_interval_ms = 300000,
                                  .commit_deadline_ms = DEADLINE_MS,
                                  .session_idle_ms = 3600000,
                                  .session_named_idle_ms = 3600000};
}

static inline struct node *node_make(const struct fixture *fixture, shelf_backend backend) {
    struct shelf_options options = node_options(backend);
    struct node *node = NULL;
    shelf_result result = node_open(fixture->path, &options, &node);
    if (result == SHELF_UNAVAILABLE && backend == SHELF_BACKEND_URING) {
        return NULL; // this kernel or sandbox has no io_uring
    }
    assert_int_equal(result, SHELF_OK);
    return node;
}

UNUSED static struct reply session_open(struct node *node) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = REQUEST_SESSION_OPEN}};
    struct reply reply;
    assert_int_equal(node_call(node, &request, sizeof(request), DEADLINE_MS, &reply), SHELF_OK);
    assert_int_equal(reply.result, SHELF_OK);
    return reply;
}

UNUSED static uint32_t region_create(struct node *node, const char *name, uint64_t size) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = REQUEST_REGION_CREATE},
                                     .size = size,
                                     .size_max = (uint64_t)1 << 30};
    snprintf(request.name, sizeof(request.name), "%s", name);
    struct reply reply;
    assert_int_equal(node_call(node, &request, sizeof(request), DEADLINE_MS, &reply), SHELF_OK);
    assert_int_equal(reply.result, SHELF_OK);
    return reply.region;
}

UNUSED static struct word_commit word_commit(const struct node *node, const struct reply *session,
                                             uint64_t sequence, uint32_t region, uint64_t offset,
                                             uint64_t word) {
    return (struct word_commit){
        .request = {.header = {.size = sizeof(struct word_commit), .kind = REQUEST_COMMIT},
                    .session = session->session,
                    .holder = session->holder,
                    .sequence = sequence,
                    .index = atomic_load(&node_replica(node)->image->applied),
                    .range_count = 1,
                    .ranges_size = sizeof(struct record_range) + sizeof(uint64_t)},
        .range = {.address = shelf_addr_make((shelf_region)region, offset), .size = sizeof(uint64_t)},
        .word = word,
    };
}

UNUSED static uint64_t word_read(struct node *node, uint32_t region, uint64_t offset) {
    const struct region_map *map = &node_replica(node)->maps[region];
    return atomic_load_explicit((const _Atomic uint64_t *)(const void *)(map->data + offset),
                                memory_order_relaxed);
}

// Puts another file in the place of each descriptor that is open on one; how many those were.
UNUSED static int file_replace(const char *path, const char *by, int flags) {
    char link[64], target[600];
    DIR *descriptors = opendir("/proc/self/fd");
    assert_non_null(descriptors);
    int replaced = 0;
    for (struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        snprintf(link, sizeof(link), "/proc/self/fd/%.20s", entry->d_name);
        ssize_t size = readlink(link, target, sizeof(target) - 1);
        target[size > 0 ? size : 0] = 0;
        if (strcmp(target, path) == 0) {
            int other = open(by, flags | O_CLOEXEC);
            assert_true(other >= 0 && dup2(other, atoi(entry->d_name)) >= 0);
            close(other);
            replaced++;
        }
    }
    closedir(descriptors);
    return replaced;
}

// Until the next stretch of the log is prepared: then nothing but a commit writes to it.
UNUSED static void log_prepared_await(struct node *node) {
    for (bool busy = true; busy;) {
        core_enter(node);
        busy = node->core->log.zero.busy || node->core->log.reserve.busy;
        (void)core_leave(node, NULL);
        (void)sched_yield();
    }
}

// Every write to it fails.
UNUSED static void file_break(const struct fixture *fixture, const char *name) {
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", fixture->path, name);
    assert_true(file_replace(path, "/dev/null", O_RDONLY) > 0);
}

#endif
