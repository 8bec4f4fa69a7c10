// SPDX-License-Identifier: Apache-2.0
//
// One shelf, several processes: the first one is the node, others attach, and go on when it dies. Every process opens its own
// handle by the same call. Children are forked before the parent has a handle, or have nothing to do with that one.

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "child.h"
#include "client/handle.h"
#include "client/service_state.h"
#include "cmocka_program.h"
#include "directory.h"
#include "shelf.h"

static char directory[64];
static char where[80];
static const uint64_t region_size = 1 << 20;

// What parent and children tell each other.
struct board {
    _Atomic uint32_t stage;        // children wait for it
    _Atomic uint32_t ready;        // children that have come so far
    _Atomic uint64_t acknowledged; // additions that a commit has returned OK for
    _Atomic uint32_t quit;
};
static struct board *board;

static int up(void **state) {
    (void)state;
    strcpy(directory, "/tmp/shelf-attach-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(where, sizeof(where), "dir:%s/shelf", directory);
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(board != MAP_FAILED);
    return 0;
}

static int down(void **state) {
    (void)state;
    munmap(board, sizeof(*board));
    (void)directory_remove(directory);
    return 0;
}

// Waits for a condition, which must come within a minute.
#define AWAIT(condition)                                            \
    do {                                                            \
        for (int await = 0; !(condition) && await < 60000; await++) \
            pause_ms(1);                                            \
        assert_true(condition);                                     \
    } while (0)

// ---- Processes

static pid_t child_start(void (*body)(void)) {
    pid_t child = child_begin();
    if (child == 0) {
        body();
        _exit(0);
    }
    return child;
}

static void child_join(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void child_kill(pid_t child) {
    int status;
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

static void stage_await(uint32_t stage) {
    while (atomic_load(&board->stage) < stage)
        pause_ms(1);
}

// ---- A shelf with one region

static shelf *open_shelf(void) {
    shelf *s = NULL;
    shelf_result result = shelf_open(where, &(struct shelf_options){.flags = SHELF_OPEN_CREATE}, &s);
    CHECK(result == SHELF_OK);
    return s;
}

static shelf_region open_region(shelf *s) {
    shelf_region region = 0;
    shelf_result result = shelf_region_open(s, "test", &region);
    if (result == SHELF_NOT_FOUND)
        result = shelf_region_create(s, "test", region_size, 64 * region_size, &region);
    CHECK(result == SHELF_OK);
    return region;
}

static bool is_node(shelf *s) {
    struct shelf_stats stats;
    CHECK(shelf_stats_get(s, &stats) == SHELF_OK);
    return stats.is_node;
}

static uint64_t word_get(shelf *s, shelf_region region, uint64_t offset) {
    shelf_tx *tx;
    uint64_t word = 0;
    CHECK(shelf_begin(s, SHELF_READ_ONLY, &tx) == SHELF_OK);
    CHECK(shelf_read(tx, shelf_addr_make(region, offset), &word, 8) == SHELF_OK);
    CHECK(shelf_commit(tx, NULL) == SHELF_OK);
    return word;
}

static void word_set(shelf *s, shelf_region region, uint64_t offset, uint64_t word) {
    shelf_tx *tx;
    CHECK(shelf_begin(s, SHELF_READ_WRITE, &tx) == SHELF_OK);
    CHECK(shelf_write(tx, shelf_addr_make(region, offset), &word, 8) == SHELF_OK);
    CHECK(shelf_commit(tx, NULL) == SHELF_OK);
}

// CONFLICT before the commit: the node went before this process had mapped the region.
static shelf_result word_add(shelf *s, shelf_region region, uint64_t offset) {
    for (;;) {
        shelf_tx *tx;
        CHECK(shelf_begin(s, SHELF_READ_WRITE, &tx) == SHELF_OK);
        shelf_result result = shelf_add(tx, shelf_addr_make(region, offset), 1);
        if (result == SHELF_OK)
            return shelf_commit(tx, NULL);
        CHECK(result == SHELF_CONFLICT);
        shelf_abort(tx);
    }
}

// ---- One more process

static void guest_body(void) {
    stage_await(1);
    shelf *s = open_shelf();
    CHECK(!is_node(s));
    shelf_region region = open_region(s);
    CHECK(word_get(s, region, 0) == 7);
    word_set(s, region, 8, 8);
    CHECK(word_get(s, region, 8) == 8); // its own writes
    atomic_store(&board->stage, 2);
    stage_await(3);
    CHECK(word_get(s, region, 16) == 9);
    CHECK(shelf_close(s) == SHELF_OK);
}

static void test_guest_reads_and_commits(void **state) {
    (void)state;
    pid_t child = child_start(guest_body);
    shelf *s = open_shelf();
    assert_true(is_node(s));
    shelf_region region = open_region(s);
    word_set(s, region, 0, 7);
    atomic_store(&board->stage, 1);
    AWAIT(atomic_load(&board->stage) == 2);
    assert_int_equal(word_get(s, region, 8), 8);
    word_set(s, region, 16, 9);
    atomic_store(&board->stage, 3);
    child_join(child);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

static void test_second_handle_of_the_same_process(void **state) {
    (void)state;
    shelf *first = open_shelf(), *second = open_shelf();
    assert_true(is_node(first) && !is_node(second));
    shelf_region region = open_region(first);
    assert_int_equal(open_region(second), region);
    word_set(second, region, 0, 1);
    assert_int_equal(word_get(first, region, 0), 1);
    assert_int_equal(shelf_close(second), SHELF_OK);
    word_set(first, region, 0, 2);
    assert_int_equal(shelf_close(first), SHELF_OK);
}

static void test_growth_is_seen_and_pointers_stay(void **state) {
    (void)state;
    shelf *node = open_shelf(), *guest = open_shelf();
    shelf_region region = open_region(node);
    shelf_tx *tx;
    const void *before, *after;
    (void)open_region(guest);
    assert_int_equal(shelf_begin(guest, SHELF_READ_ONLY, &tx), SHELF_OK);
    assert_int_equal(shelf_view(tx, shelf_addr_make(region, 0), 64, &before), SHELF_OK);
    assert_int_equal(shelf_region_grow(node, region, 8 * region_size), SHELF_OK);
    word_set(node, region, 8 * region_size - 8, 5);
    assert_int_equal(shelf_view(tx, shelf_addr_make(region, 0), 64, &after), SHELF_OK);
    assert_ptr_equal(before, after);
    shelf_abort(tx);
    assert_int_equal(word_get(guest, region, 8 * region_size - 8), 5);
    assert_int_equal(shelf_region_grow(guest, region, 16 * region_size), SHELF_OK);
    word_set(guest, region, 16 * region_size - 8, 6);
    assert_int_equal(word_get(node, region, 16 * region_size - 8), 6);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

static void test_drop_under_a_guest(void **state) {
    (void)state;
    shelf *node = open_shelf(), *guest = open_shelf();
    shelf_region region = open_region(node), other;
    shelf_tx *tx;
    uint64_t word;
    assert_int_equal(word_get(guest, region, 0), 0);
    assert_int_equal(shelf_begin(guest, SHELF_READ_ONLY, &tx), SHELF_OK);
    assert_int_equal(shelf_read(tx, shelf_addr_make(region, 0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_region_drop(node, "test"), SHELF_OK);
    assert_int_equal(shelf_read(tx, shelf_addr_make(region, 64), &word, 8), SHELF_CONFLICT);
    shelf_abort(tx);
    assert_int_equal(shelf_region_open(guest, "test", &other), SHELF_NOT_FOUND);
    assert_int_equal(shelf_region_create(guest, "test", region_size, 0, &other), SHELF_OK);
    assert_int_not_equal(other, region);
    word_set(guest, other, 0, 3);
    assert_int_equal(word_get(node, other, 0), 3);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

static void test_list_info_and_clients(void **state) {
    (void)state;
    shelf *node = open_shelf(), *guest = open_shelf();
    struct shelf_region_info infos[200];
    size_t count;
    for (unsigned i = 0; i < 150; i++) {
        char name[16];
        shelf_region region;
        snprintf(name, sizeof(name), "r%u", i);
        assert_int_equal(shelf_region_create(guest, name, 4096, 4096, &region), SHELF_OK);
    }
    assert_int_equal(shelf_region_list(guest, infos, 200, &count), SHELF_OK);
    assert_int_equal(count, 150);
    assert_string_equal(infos[149].name, "r149");
    assert_int_equal(shelf_region_list(guest, infos, 100, &count), SHELF_OK);
    assert_int_equal(count, 150);
    struct shelf_info info;
    uint64_t index;
    assert_int_equal(shelf_checkpoint(guest, &index), SHELF_OK);
    assert_int_equal(shelf_info_get(guest, &info), SHELF_OK);
    assert_int_equal(info.checkpoint, index);
    struct shelf_client_info clients[4];
    assert_int_equal(shelf_client_list(guest, clients, 4, &count), SHELF_OK);
    assert_int_equal(count, 1);
    assert_int_equal(clients[0].process, getpid());
    assert_true(clients[0].commits <= 150);
    assert_int_equal(shelf_client_list(node, clients, 4, &count), SHELF_OK);
    assert_int_equal(count, 1);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

// A handle whose calls give up at once.
static shelf *open_hasty(void) {
    shelf *s = NULL;
    shelf_result result = SHELF_UNAVAILABLE;
    for (int i = 0; result != SHELF_OK && i < 60000; i++) {
        result = shelf_open(where, &(struct shelf_options){.commit_deadline_ms = 1}, &s);
    }
    CHECK(result == SHELF_OK);
    return s;
}

static void stopped_node_body(void) {
    shelf *s = open_shelf();
    (void)open_region(s);
    atomic_store(&board->stage, 1);
    stage_await(2);
    CHECK(shelf_close(s) == SHELF_OK);
}

// Questions to a node that does not run end at their deadline, however many they are, and leave the handle usable.
static void test_questions_to_a_node_that_stands_still(void **state) {
    (void)state;
    enum { QUESTIONS = 600 }; // more than the socket has room for
    pid_t child = child_start(stopped_node_body);
    AWAIT(atomic_load(&board->stage) == 1);
    shelf *s = open_hasty();
    shelf_region region;
    int status;
    assert_int_equal(kill(child, SIGSTOP), 0);
    assert_int_equal(waitpid(child, &status, WUNTRACED), child); // it stops a moment after the signal
    assert_true(WIFSTOPPED(status));
    for (unsigned i = 0; i < QUESTIONS; i++)
        assert_int_equal(shelf_region_open(s, "test", &region), SHELF_UNAVAILABLE);
    assert_int_equal(kill(child, SIGCONT), 0);
    shelf_result result = SHELF_UNAVAILABLE;
    for (int i = 0; result == SHELF_UNAVAILABLE && i < 60000; i++)
        result = shelf_region_open(s, "test", &region);
    assert_int_equal(result, SHELF_OK);
    assert_int_equal(shelf_close(s), SHELF_OK);
    atomic_store(&board->stage, 2);
    child_join(child);
}

// Somebody is the node, or is about to be.
static bool lock_is_held(void) {
    char path[96];
    snprintf(path, sizeof(path), "%s/shelf/lock", directory);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0;
    close(fd);
    return held;
}

// A handle that is closed while it is about to become the node.
static void test_close_during_a_takeover(void **state) {
    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        shelf *node = open_shelf(), *guest = open_hasty();
        assert_int_equal(shelf_close(node), SHELF_OK);
        while (!lock_is_held())
            continue;
        assert_int_equal(shelf_close(guest), SHELF_OK);
    }
}

// ---- Much at once

static void test_large_transactions(void **state) {
    (void)state;
    shelf *node = open_shelf(), *guest = open_shelf();
    shelf_region region = open_region(node);
    assert_int_equal(shelf_region_grow(guest, region, 32 * region_size), SHELF_OK);
    size_t size = SHELF_TX_BYTES_MAX;
    unsigned char *bytes = malloc(size), *back = malloc(size);
    for (unsigned round = 1; round <= 3; round++) {
        shelf_tx *tx;
        for (size_t i = 0; i < size; i++)
            bytes[i] = (unsigned char)(i * round >> 3);
        assert_int_equal(shelf_begin(guest, SHELF_READ_WRITE, &tx), SHELF_OK);
        assert_int_equal(shelf_write(tx, shelf_addr_make(region, 4096), bytes, size), SHELF_OK);
        assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
        assert_int_equal(shelf_begin(node, SHELF_READ_ONLY, &tx), SHELF_OK);
        assert_int_equal(shelf_read(tx, shelf_addr_make(region, 4096), back, size), SHELF_OK);
        shelf_abort(tx);
        assert_memory_equal(bytes, back, size);
    }
    free(bytes);
    free(back);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

struct crew {
    shelf *s;
    shelf_region region;
    unsigned number, rounds;
};

static void *adder(void *context) {
    struct crew *crew = context;
    for (unsigned i = 0; i < crew->rounds; i++)
        CHECK(word_add(crew->s, crew->region, 64) == SHELF_OK);
    return NULL;
}

static void test_threads_of_a_guest(void **state) {
    (void)state;
    enum { THREADS = 8, ROUNDS = 100 };
    shelf *node = open_shelf(), *guest = open_shelf();
    struct crew crews[THREADS];
    pthread_t threads[THREADS];
    shelf_region region = open_region(node);
    for (unsigned i = 0; i < THREADS; i++) {
        crews[i] = (struct crew){i % 4 == 0 ? node : guest, region, i, ROUNDS};
        pthread_create(&threads[i], NULL, adder, &crews[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(word_get(guest, region, 64), THREADS * ROUNDS);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

// Sends asynchronous commits and polls for their ends.
static void commits_polled(shelf *s, shelf_region region, unsigned commits, unsigned window) {
    unsigned sent = 0, done = 0;
    while (done < commits) {
        while (sent < commits && sent - done < window) {
            shelf_tx *tx;
            CHECK(shelf_begin(s, SHELF_READ_WRITE, &tx) == SHELF_OK);
            CHECK(shelf_add(tx, shelf_addr_make(region, 0), 1) == SHELF_OK);
            CHECK(shelf_commit_async(tx, sent++) == SHELF_OK);
        }
        struct pollfd fd = {.fd = shelf_completion_fd(s), .events = POLLIN};
        CHECK(poll(&fd, 1, 30000) == 1);
        struct shelf_completion completions[64];
        size_t count = shelf_completions(s, completions, 64);
        for (size_t i = 0; i < count; i++)
            CHECK(completions[i].result == SHELF_OK);
        done += (unsigned)count;
    }
}

static void test_asynchronous_commits_of_a_guest(void **state) {
    (void)state;
    enum { COMMITS = 5000, WINDOW = 256 };
    shelf *node = open_shelf(), *guest = open_shelf();
    shelf_region region = open_region(node);
    commits_polled(guest, region, COMMITS, WINDOW);
    assert_int_equal(word_get(node, region, 0), COMMITS);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

static void *poller(void *context) {
    struct crew *crew = context;
    commits_polled(crew->s, crew->region, crew->rounds, 40);
    return NULL;
}

// Who polls takes answers itself, unless somebody else is at it; nobody's answer may stay behind.
static void test_polling_beside_waiting(void **state) {
    (void)state;
    enum { THREADS = 4, ROUNDS = 400, POLLED = 2000 };
    shelf *node = open_shelf(), *guest = open_shelf();
    shelf_region region = open_region(node);
    struct crew crews[THREADS];
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        crews[i] = (struct crew){guest, region, i, i == 0 ? POLLED : ROUNDS};
        pthread_create(&threads[i], NULL, i == 0 ? poller : adder, &crews[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(word_get(guest, region, 0), POLLED);
    assert_int_equal(word_get(guest, region, 64), (THREADS - 1) * ROUNDS);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

// Nobody polls any more: a close, and a full window, do not need it.
static void test_polling_once(void **state) {
    (void)state;
    enum { COMMITS = 300 };
    shelf *node = open_shelf(), *guest = open_shelf();
    shelf_region region = open_region(node);
    assert_true(shelf_completion_fd(guest) >= 0);
    shelf_session *session;
    assert_int_equal(shelf_session_open(guest, "polls once", &session), SHELF_OK);
    for (unsigned i = 0; i < COMMITS; i++) {
        shelf_tx *tx;
        assert_int_equal(shelf_session_begin(session, SHELF_READ_WRITE, &tx), SHELF_OK);
        assert_int_equal(shelf_add(tx, shelf_addr_make(region, 0), 1), SHELF_OK);
        assert_int_equal(shelf_commit_async(tx, i), SHELF_OK);
    }
    shelf_session_close(session);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(word_get(node, region, 0), COMMITS);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

// ---- The node dies

// Is the node until it is killed.
static void node_body(void) {
    shelf *s = open_shelf();
    shelf_region region = open_region(s);
    CHECK(is_node(s));
    word_set(s, region, 0, 41);
    atomic_fetch_add(&board->ready, 1);
    for (;;)
        pause_ms(1000);
}

static void test_another_takes_over(void **state) {
    (void)state;
    pid_t node = child_start(node_body);
    AWAIT(atomic_load(&board->ready) == 1);
    shelf *s = open_shelf();
    shelf_region region = open_region(s);
    assert_false(is_node(s));
    assert_int_equal(word_get(s, region, 0), 41);
    uint64_t index = shelf_applied(s);
    shelf_tx *old;
    uint64_t word;
    assert_int_equal(shelf_begin(s, SHELF_READ_WRITE, &old), SHELF_OK);
    assert_int_equal(shelf_read(old, shelf_addr_make(region, 0), &word, 8), SHELF_OK);
    child_kill(node);
    assert_int_equal(word_get(s, region, 0), 41); // whoever serves
    word_set(s, region, 8, 42);
    struct shelf_stats stats;
    assert_int_equal(shelf_stats_get(s, &stats), SHELF_OK);
    assert_true(stats.is_node);
    assert_int_equal(stats.takeovers, 1);
    assert_int_equal(stats.replicas_held, 2); // of the open transaction
    assert_true(shelf_applied(s) > index);
    // The transaction still reads what it read; it cannot commit: its region began anew.
    assert_int_equal(shelf_read(old, shelf_addr_make(region, 0), &word, 8), SHELF_OK);
    assert_int_equal(word, 41);
    assert_int_equal(shelf_write(old, shelf_addr_make(region, 0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_commit(old, NULL), SHELF_CONFLICT);
    do
        assert_int_equal(shelf_stats_get(s, &stats), SHELF_OK);
    while (stats.replicas_held > 1);
    assert_int_equal(word_get(s, region, 8), 42);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

// The node is killed while commits of one who polls are on their way, who is the next one: each ends once, with OK.
static void test_polling_across_a_takeover(void **state) {
    (void)state;
    enum { COMMITS = 3000 };
    pid_t node = child_start(node_body);
    AWAIT(atomic_load(&board->ready) == 1);
    shelf *s = open_shelf();
    struct crew crew = {s, open_region(s), 0, COMMITS};
    pthread_t thread;
    pthread_create(&thread, NULL, poller, &crew);
    uint64_t begun = shelf_applied(s);
    AWAIT(shelf_applied(s) > begun + 3);
    child_kill(node);
    pthread_join(thread, NULL);
    assert_true(is_node(s));
    assert_int_equal(word_get(s, crew.region, 0), 41 + COMMITS);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

// Adds ones until told to quit, and counts those that were acknowledged. Every commit must come to an end.
static void adder_body(void) {
    shelf *s = open_shelf();
    shelf_region region = open_region(s);
    atomic_fetch_add(&board->ready, 1);
    while (!atomic_load(&board->quit)) {
        shelf_result result = word_add(s, region, 64);
        CHECK(result == SHELF_OK);
        atomic_fetch_add(&board->acknowledged, 1);
    }
    CHECK(shelf_close(s) == SHELF_OK);
}

// Whoever is the node is killed, again and again, while two others commit: each addition has its effect exactly once.
static void test_no_addition_is_lost_or_doubled(void **state) {
    (void)state;
    enum { KILLS = 15, CHILDREN = 2 };
    pid_t adders[CHILDREN];
    pid_t node = child_start(node_body);
    AWAIT(atomic_load(&board->ready) == 1);
    for (unsigned i = 0; i < CHILDREN; i++)
        adders[i] = child_start(adder_body);
    AWAIT(atomic_load(&board->ready) == 1 + CHILDREN);
    child_kill(node);
    // From here on one of the adders is the node: it is asked to stop, and another takes its place, and so on.
    for (unsigned kill = 0; kill < KILLS; kill++) {
        uint64_t before = atomic_load(&board->acknowledged);
        AWAIT(atomic_load(&board->acknowledged) > before + 20);
        uint32_t ready = atomic_load(&board->ready);
        pid_t more = child_start(adder_body);
        AWAIT(atomic_load(&board->ready) > ready);
        // An adder's own count is exact only if it ends by itself.
        (void)more;
        atomic_store(&board->quit, 1);
        child_join(more);
        for (unsigned i = 0; i < CHILDREN; i++)
            child_join(adders[i]);
        atomic_store(&board->quit, 0);
        ready = atomic_load(&board->ready);
        node = child_start(node_body);
        AWAIT(atomic_load(&board->ready) > ready);
        ready = atomic_load(&board->ready);
        for (unsigned i = 0; i < CHILDREN; i++)
            adders[i] = child_start(adder_body);
        AWAIT(atomic_load(&board->ready) >= ready + CHILDREN);
        before = atomic_load(&board->acknowledged);
        AWAIT(atomic_load(&board->acknowledged) > before + 5);
        child_kill(node); // in mid-flow of both
        before = atomic_load(&board->acknowledged);
        AWAIT(atomic_load(&board->acknowledged) > before + 5);
    }
    atomic_store(&board->quit, 1);
    for (unsigned i = 0; i < CHILDREN; i++)
        child_join(adders[i]);
    shelf *s = open_shelf();
    assert_int_equal(word_get(s, open_region(s), 64), atomic_load(&board->acknowledged));
    assert_int_equal(shelf_close(s), SHELF_OK);
}

// Commits once, and does nothing more.
static void idler_body(void) {
    shelf *s;
    char socket[96];
    snprintf(socket, sizeof(socket), "unix:%s/sock", where + 4);
    CHECK(shelf_open(socket, NULL, &s) == SHELF_OK);
    CHECK(word_add(s, open_region(s), 64) == SHELF_OK);
    atomic_fetch_add(&board->ready, 1);
    for (;;)
        pause_ms(1000);
}

// A program tells the next node of its sessions though it has nothing to commit; so they do not stay when it goes.
static void test_sessions_follow_their_program_to_the_next_node(void **state) {
    (void)state;
    pid_t node = child_start(node_body);
    AWAIT(atomic_load(&board->ready) == 1);
    pid_t idler = child_start(idler_body);
    AWAIT(atomic_load(&board->ready) == 2);
    shelf *s = open_shelf();
    child_kill(node);
    word_set(s, open_region(s), 8, 1);
    assert_true(is_node(s));
    struct shelf_client_info client = {0};
    size_t count = 0;
    AWAIT(shelf_client_list(s, &client, 1, &count) == SHELF_OK && count == 1 && client.bytes > 0 &&
          client.pending == 0);
    uint32_t before = node_session_count(atomic_load(&s->service->node));
    child_kill(idler);
    AWAIT(node_session_count(atomic_load(&s->service->node)) == before - 1);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

// ---- Waiting

struct waiting {
    shelf *s;
    shelf_region region;
    uint64_t since;
    uint32_t timeout_ms;
    shelf_result result;
};

static void *wait_run(void *context) {
    struct waiting *waiting = context;
    waiting->result = shelf_wait(waiting->s, shelf_addr_make(waiting->region, 128), 64, waiting->since,
                                 waiting->timeout_ms);
    return NULL;
}

static void waiters_await(shelf *node, uint32_t count) {
    struct shelf_client_info clients[4];
    size_t have = 0;
    do {
        assert_int_equal(shelf_client_list(node, clients, 4, &have), SHELF_OK);
        pause_ms(1);
    } while (have < 1 || clients[0].waiters != count);
}

static void test_wait_across_processes(void **state) {
    (void)state;
    shelf *node = open_shelf(), *guest = open_shelf();
    shelf_region region = open_region(node);
    struct waiting waiting = {guest, region, shelf_applied(guest), 60000, SHELF_INVALID};
    pthread_t thread;
    pthread_create(&thread, NULL, wait_run, &waiting);
    waiters_await(node, 1);
    word_set(node, region, 0, 1); // another line
    assert_int_equal(shelf_wait(guest, shelf_addr_make(region, 128), 64, waiting.since, 20), SHELF_TIMEOUT);
    word_set(node, region, 128, 1);
    pthread_join(thread, NULL);
    assert_int_equal(waiting.result, SHELF_OK);
    assert_int_equal(word_get(guest, region, 128), 1);
    // At once, if it has changed already.
    assert_int_equal(shelf_wait(node, shelf_addr_make(region, 128), 64, waiting.since, 0), SHELF_OK);
    waiting = (struct waiting){guest, region, shelf_applied(guest), UINT32_MAX, SHELF_INVALID};
    pthread_create(&thread, NULL, wait_run, &waiting);
    waiters_await(node, 1);
    assert_int_equal(shelf_region_drop(node, "test"), SHELF_OK);
    pthread_join(thread, NULL);
    assert_int_equal(waiting.result, SHELF_NOT_FOUND);
    assert_int_equal(shelf_close(guest), SHELF_OK);
    assert_int_equal(shelf_close(node), SHELF_OK);
}

// The sleeper wakes in the next life of the shelf: everything counts as changed.
static void test_wait_across_a_takeover(void **state) {
    (void)state;
    pid_t node = child_start(node_body);
    AWAIT(atomic_load(&board->ready) == 1);
    shelf *s = open_shelf();
    struct waiting waiting = {s, open_region(s), shelf_applied(s), UINT32_MAX, SHELF_INVALID};
    pthread_t thread;
    pthread_create(&thread, NULL, wait_run, &waiting);
    waiters_await(s, 1);
    child_kill(node);
    pthread_join(thread, NULL);
    assert_int_equal(waiting.result, SHELF_OK);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

// ---- Alone, and rights

static void test_alone(void **state) {
    (void)state;
    shelf *s, *other;
    const struct shelf_options alone = {.flags = SHELF_OPEN_CREATE | SHELF_OPEN_ALONE};
    assert_int_equal(shelf_open(where, &alone, &s), SHELF_OK);
    assert_int_equal(shelf_open(where, NULL, &other), SHELF_BUSY);
    assert_int_equal(shelf_open(where, &alone, &other), SHELF_BUSY);
    assert_int_equal(shelf_close(s), SHELF_OK);
    s = open_shelf();
    assert_int_equal(shelf_open(where, &alone, &other), SHELF_BUSY);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

// ---- While nobody serves

static struct sockaddr_un door_address(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/shelf/sock", directory);
    return address;
}

static void waiting_body(void) {
    shelf *s;
    char path[100];
    snprintf(path, sizeof(path), "unix:%s/shelf/sock", directory);
    CHECK(shelf_open(path, &(struct shelf_options){.open_deadline_ms = 60000}, &s) == SHELF_OK);
    CHECK(word_get(s, open_region(s), 0) == 41);
    CHECK(shelf_close(s) == SHELF_OK);
}

// It finds one that goes as it comes, then none at all, then the node.
static void test_open_waits_for_a_node(void **state) {
    (void)state;
    shelf *s;
    struct sockaddr_un address = door_address();
    char path[130];
    snprintf(path, sizeof(path), "unix:%s", address.sun_path);
    assert_int_equal(shelf_open(path, &(struct shelf_options){.open_deadline_ms = 1}, &s), SHELF_NOT_FOUND);
    s = open_shelf();
    word_set(s, open_region(s), 0, 41);
    assert_int_equal(shelf_close(s), SHELF_OK);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    pid_t child = child_start(waiting_body);
    int first = accept(fd, NULL, NULL);
    assert_true(first >= 0);
    close(first);
    close(fd);
    assert_int_equal(unlink(address.sun_path), 0);
    s = open_shelf();
    assert_true(is_node(s));
    child_join(child);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

// Programs leave it to the daemon, also those that are attached already, until its mark is gone.
static void test_a_daemons_directory_is_not_taken(void **state) {
    (void)state;
    char mark[100];
    snprintf(mark, sizeof(mark), "%s/shelf/daemon", directory);
    pid_t node = child_start(node_body);
    AWAIT(atomic_load(&board->ready) == 1);
    FILE *file = fopen(mark, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    shelf *s = open_shelf(), *other;
    child_kill(node);
    const struct shelf_options patient = {.flags = SHELF_OPEN_CREATE, .open_deadline_ms = 500};
    assert_int_equal(shelf_open(where, &patient, &other), SHELF_UNAVAILABLE);
    assert_non_null(strstr(shelf_detail(), "start it"));
    const struct shelf_options exclusive = {.flags = SHELF_OPEN_CREATE | SHELF_OPEN_EXCLUSIVE};
    assert_int_equal(shelf_open(where, &exclusive, &other), SHELF_EXISTS);
    const struct shelf_options alone = {.flags = SHELF_OPEN_ALONE};
    assert_int_equal(shelf_open(where, &alone, &other), SHELF_OK);
    assert_true(is_node(other));
    assert_int_equal(shelf_close(other), SHELF_OK);
    assert_false(is_node(s));
    assert_int_equal(unlink(mark), 0);
    AWAIT(is_node(s));
    assert_int_equal(word_get(s, open_region(s), 0), 41);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

static void stranger_body(void) {
    stage_await(1);
    CHECK(setgid(60001) == 0 && setuid(60001) == 0);
    shelf *s;
    shelf_region region;
    shelf_tx *tx;
    uint64_t word;
    CHECK(shelf_open(where, NULL, &s) == SHELF_OK);
    CHECK(shelf_region_open(s, "private", &region) == SHELF_DENIED);
    CHECK(shelf_region_open(s, "test", &region) == SHELF_OK);
    CHECK(shelf_begin(s, SHELF_READ_WRITE, &tx) == SHELF_OK);
    CHECK(shelf_read(tx, shelf_addr_make(region, 0), &word, 8) == SHELF_OK);
    CHECK(shelf_write(tx, shelf_addr_make(region, 0), &word, 8) == SHELF_OK);
    CHECK(shelf_commit(tx, NULL) == SHELF_DENIED);
    CHECK(shelf_region_access(s, region, SHELF_KEEP, SHELF_KEEP, 0666) == SHELF_DENIED);
    CHECK(shelf_region_drop(s, "test") == SHELF_DENIED);
    CHECK(shelf_region_create(s, "mine", 4096, 4096, &region) == SHELF_OK);
    word_set(s, region, 0, 5);
    CHECK(shelf_close(s) == SHELF_OK);
}

static void test_rights(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    pid_t stranger = child_start(stranger_body);
    shelf *s = open_shelf();
    shelf_region region = open_region(s), other;
    char path[100];
    assert_int_equal(chmod(directory, 0755), 0);
    snprintf(path, sizeof(path), "%s/shelf", directory);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(shelf_region_create(s, "private", 4096, 4096, &other), SHELF_OK);
    assert_int_equal(shelf_region_access(s, region, SHELF_KEEP, SHELF_KEEP, 0664), SHELF_OK);
    atomic_store(&board->stage, 1);
    child_join(stranger);
    assert_int_equal(shelf_region_open(s, "mine", &other), SHELF_OK);
    struct shelf_region_info info;
    assert_int_equal(shelf_region_info_get(s, other, &info), SHELF_OK);
    assert_int_equal(info.owner, 60001);
    assert_int_equal(word_get(s, other, 0), 5);
    assert_int_equal(shelf_close(s), SHELF_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_guest_reads_and_commits),
        TEST(test_second_handle_of_the_same_process),
        TEST(test_growth_is_seen_and_pointers_stay),
        TEST(test_drop_under_a_guest),
        TEST(test_list_info_and_clients),
        TEST(test_questions_to_a_node_that_stands_still),
        TEST(test_close_during_a_takeover),
        TEST(test_large_transactions),
        TEST(test_threads_of_a_guest),
        TEST(test_asynchronous_commits_of_a_guest),
        TEST(test_polling_beside_waiting),
        TEST(test_polling_once),
        TEST(test_polling_across_a_takeover),
        TEST(test_another_takes_over),
        TEST(test_no_addition_is_lost_or_doubled),
        TEST(test_sessions_follow_their_program_to_the_next_node),
        TEST(test_wait_across_processes),
        TEST(test_wait_across_a_takeover),
        TEST(test_alone),
        TEST(test_open_waits_for_a_node),
        TEST(test_a_daemons_directory_is_not_taken),
        TEST(test_rights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
