// SPDX-License-Identifier: Apache-2.0
//
// The library as a program meets it: a shelf in a directory, regions, transactions, sessions, asynchronous commits, many
// threads, fork, and all of it again after the shelf was opened again.

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "cmocka_program.h"
#include "shelf.h"

static char directory[] = "/tmp/shelf-handle-XXXXXX";
static char where[64];
static shelf *s;
static shelf_region region;
static const uint64_t region_size = 1 << 20;

static void shelf_up(void) {
    assert_int_equal(shelf_open(where, &(struct shelf_options){.flags = SHELF_OPEN_CREATE}, &s), SHELF_OK);
}

static void shelf_again(void) {
    assert_int_equal(shelf_close(s), SHELF_OK);
    shelf_up();
    assert_int_equal(shelf_region_open(s, "test", &region), SHELF_OK);
}

static void directory_remove(void) {
    DIR *entries = opendir(directory);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        (void)unlinkat(dirfd(entries), entry->d_name, 0);
    if (entries)
        closedir(entries);
    (void)rmdir(directory);
}

static int up(void **state) {
    (void)state;
    strcpy(directory, "/tmp/shelf-handle-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(where, sizeof(where), "dir:%s", directory);
    shelf_up();
    assert_int_equal(shelf_region_create(s, "test", region_size, 4 * region_size, &region), SHELF_OK);
    return 0;
}

static int down(void **state) {
    (void)state;
    shelf_result result = shelf_close(s);
    s = NULL;
    directory_remove();
    return result == SHELF_OK ? 0 : -1;
}

static shelf_addr at(uint64_t offset) {
    return shelf_addr_make(region, offset);
}

static shelf_tx *begin(unsigned flags) {
    shelf_tx *tx = NULL;
    assert_int_equal(shelf_begin(s, flags, &tx), SHELF_OK);
    return tx;
}

static uint64_t word_get(uint64_t offset) {
    uint64_t word;
    shelf_tx *tx = begin(SHELF_READ_ONLY);
    assert_int_equal(shelf_read(tx, at(offset), &word, 8), SHELF_OK);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    return word;
}

static shelf_result word_put(uint64_t offset, uint64_t word, struct shelf_receipt *ret_receipt) {
    shelf_tx *tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_write(tx, at(offset), &word, 8), SHELF_OK);
    return shelf_commit(tx, ret_receipt);
}

// ---- Transactions ---------------------------------------------------------------------------------------------------

static void test_a_commit_is_seen_and_stays(void **state) {
    (void)state;
    struct shelf_receipt receipt;
    assert_int_equal(word_get(64), 0);
    assert_int_equal(word_put(64, 5, &receipt), SHELF_OK);
    assert_int_equal(receipt.durability, SHELF_DURABLE_LOCAL);
    assert_false(receipt.replayed);
    assert_true(shelf_applied(s) >= receipt.index);
    assert_int_equal(word_get(64), 5);
    shelf_again();
    assert_int_equal(word_get(64), 5);
    assert_true(shelf_applied(s) >= receipt.index);
}

static void test_an_abort_leaves_nothing(void **state) {
    (void)state;
    shelf_tx *tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_write(tx, at(0), "x", 1), SHELF_OK);
    assert_int_equal(shelf_add(tx, at(64), 1), SHELF_OK);
    shelf_abort(tx);
    assert_int_equal(word_get(0), 0);
    assert_int_equal(word_get(64), 0);
}

static void test_the_second_of_two_conflicts(void **state) {
    (void)state;
    uint64_t word;
    shelf_tx *first = begin(SHELF_READ_WRITE), *second = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_read(first, at(0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_read(second, at(0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_write(first, at(0), &(uint64_t){1}, 8), SHELF_OK);
    assert_int_equal(shelf_write(second, at(0), &(uint64_t){2}, 8), SHELF_OK);
    assert_int_equal(shelf_commit(second, NULL), SHELF_OK);
    assert_int_equal(shelf_commit(first, NULL), SHELF_CONFLICT);
    assert_string_not_equal(shelf_detail(), "");
    assert_int_equal(word_get(0), 2);
    struct shelf_info info;
    assert_int_equal(shelf_info_get(s, &info), SHELF_OK);
    assert_int_equal(info.conflicts, 1);
}

static void test_operations_return_their_results(void **state) {
    (void)state;
    struct shelf_receipt receipt;
    shelf_tx *tx = begin(SHELF_READ_WRITE);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(shelf_add(tx, at(i * 8), i), SHELF_OK);
    assert_int_equal(shelf_max(tx, at(8), 9), SHELF_OK);
    assert_int_equal(shelf_commit(tx, &receipt), SHELF_OK);
    assert_int_equal(receipt.result_count, SHELF_TX_RESULTS_MAX);
    for (uint64_t i = 0; i < SHELF_TX_RESULTS_MAX; i++)
        assert_int_equal(receipt.results[i], i);
    assert_int_equal(word_get(8), 9);
    assert_int_equal(word_get(19 * 8), 19);
    tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_min(tx, at(8), 4), SHELF_OK);
    assert_int_equal(shelf_or(tx, at(8), 3), SHELF_OK);
    assert_int_equal(shelf_and(tx, at(8), 5), SHELF_OK);
    assert_int_equal(shelf_commit(tx, &receipt), SHELF_OK);
    assert_int_equal(receipt.result_count, 3);
    assert_int_equal(receipt.results[0], 4);
    assert_int_equal(receipt.results[1], 7);
    assert_int_equal(receipt.results[2], 5);
}

static void test_the_largest_transaction(void **state) {
    (void)state;
    shelf_region large;
    assert_int_equal(shelf_region_create(s, "large", SHELF_TX_BYTES_MAX, 0, &large), SHELF_OK);
    uint8_t *bytes = malloc(SHELF_TX_BYTES_MAX), *back = malloc(SHELF_TX_BYTES_MAX);
    assert_non_null(bytes);
    assert_non_null(back);
    struct random random;
    random_seed(&random, 1);
    random_fill(&random, bytes, SHELF_TX_BYTES_MAX);
    shelf_tx *tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_write(tx, shelf_addr_make(large, 0), bytes, SHELF_TX_BYTES_MAX), SHELF_OK);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    for (int round = 0; round < 2; round++) {
        tx = begin(SHELF_READ_ONLY);
        assert_int_equal(shelf_read(tx, shelf_addr_make(large, 0), back, SHELF_TX_BYTES_MAX), SHELF_OK);
        assert_memory_equal(back, bytes, SHELF_TX_BYTES_MAX);
        shelf_abort(tx);
        shelf_again();
    }
    free(bytes);
    free(back);
}

// ---- Regions --------------------------------------------------------------------------------------------------------

static void test_a_region_grows_under_views(void **state) {
    (void)state;
    const void *view;
    uint64_t word = 7;
    assert_int_equal(word_put(0, 7, NULL), SHELF_OK);
    shelf_tx *tx = begin(SHELF_READ_ONLY);
    assert_int_equal(shelf_view(tx, at(0), region_size, &view), SHELF_OK);
    assert_int_equal(shelf_read(tx, at(region_size), &word, 8), SHELF_INVALID);
    assert_int_equal(shelf_region_grow(s, region, 3 * region_size - 1), SHELF_OK);
    assert_int_equal(shelf_read(tx, at(3 * region_size - 8), &word, 8), SHELF_OK);
    assert_int_equal(word, 0);
    assert_int_equal(*(const uint64_t *)view, 7);
    assert_int_equal(shelf_check(tx), SHELF_OK);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    assert_int_equal(word_put(3 * region_size - 8, 8, NULL), SHELF_OK);
    struct shelf_region_info info;
    assert_int_equal(shelf_region_info_get(s, region, &info), SHELF_OK);
    assert_int_equal(info.size, 3 * region_size);
    assert_int_equal(info.size_max, 4 * region_size);
    assert_int_equal(shelf_region_grow(s, region, 4 * region_size + 1), SHELF_TOO_LARGE);
    assert_int_equal(shelf_region_grow(s, region, 10), SHELF_OK); /* never shrinks */
    shelf_again();
    assert_int_equal(word_get(0), 7);
    assert_int_equal(word_get(3 * region_size - 8), 8);
}

static void test_regions_come_and_go(void **state) {
    (void)state;
    shelf_region other, again = 0;
    size_t count;
    struct shelf_region_info infos[3];
    uint64_t word;
    assert_int_equal(shelf_region_create(s, "test", 4096, 0, &other), SHELF_EXISTS);
    assert_int_equal(shelf_region_create(s, "other", 100, 0, &other), SHELF_OK);
    assert_int_equal(shelf_region_list(s, infos, 3, &count), SHELF_OK);
    assert_int_equal(count, 2);
    assert_int_equal(infos[0].region, region);
    assert_string_equal(infos[1].name, "other");
    assert_int_equal(infos[1].size, 4096);
    shelf_tx *seen = begin(SHELF_READ_WRITE), *fresh = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_read(seen, shelf_addr_make(other, 0), &word, 8), SHELF_OK);
    assert_int_equal(shelf_write(seen, at(0), &(uint64_t){1}, 8), SHELF_OK);
    assert_int_equal(shelf_region_drop(s, "other"), SHELF_OK);
    assert_int_equal(shelf_read(fresh, shelf_addr_make(other, 0), &word, 8), SHELF_NOT_FOUND);
    shelf_abort(fresh);
    assert_int_equal(shelf_commit(seen, NULL), SHELF_CONFLICT);
    assert_int_equal(shelf_region_open(s, "other", &again), SHELF_NOT_FOUND);
    assert_int_equal(shelf_region_drop(s, "other"), SHELF_NOT_FOUND);
    assert_int_equal(shelf_region_create(s, "other", 4096, 0, &again), SHELF_OK);
    assert_int_not_equal(again, other); /* numbers are never used again */
    shelf_again();
    assert_int_equal(shelf_region_open(s, "other", &other), SHELF_OK);
    assert_int_equal(again, other);
    assert_int_equal(shelf_region_list(s, infos, 1, &count), SHELF_OK);
    assert_int_equal(count, 2);
}

// ---- Sessions -------------------------------------------------------------------------------------------------------

static shelf_session *session_open(void) {
    shelf_session *session = NULL;
    assert_int_equal(shelf_session_open(s, "writer", &session), SHELF_OK);
    return session;
}

// Adds 1 to the word at 0 under `sequence` (0: the next).
static shelf_result session_add(shelf_session *session, uint64_t sequence,
                                struct shelf_receipt *ret_receipt) {
    shelf_tx *tx;
    assert_int_equal(shelf_session_begin(session, 0, &tx), SHELF_OK);
    assert_int_equal(shelf_add(tx, at(0), 1), SHELF_OK);
    if (sequence)
        assert_int_equal(shelf_tx_sequence_set(tx, sequence), SHELF_OK);
    return shelf_commit(tx, ret_receipt);
}

static void test_a_sequence_has_its_effect_once(void **state) {
    (void)state;
    struct shelf_receipt first, again;
    shelf_session *session = session_open();
    assert_int_equal(shelf_session_last(session), 0);
    assert_int_equal(session_add(session, 0, &first), SHELF_OK);
    assert_int_equal(first.sequence, 1);
    assert_int_equal(first.results[0], 1);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(session_add(session, 1, &again), SHELF_OK);
        assert_true(again.replayed);
        assert_int_equal(again.index, first.index);
        assert_int_equal(again.results[0], 1);
        assert_int_equal(word_get(0), 1);
        /* Also by who comes back to it, also after the shelf was closed. */
        shelf_session_close(session);
        if (round == 1)
            shelf_again();
        session = session_open();
        assert_int_equal(shelf_session_last(session), 1);
    }
    assert_int_equal(session_add(session, 0, &again), SHELF_OK);
    assert_int_equal(again.sequence, 2);
    assert_false(again.replayed);
    shelf_session_close(session);
}

static void test_the_window_is_64_sequences(void **state) {
    (void)state;
    struct shelf_receipt receipt;
    shelf_session *session = session_open();
    for (uint64_t i = 1; i <= 65; i++)
        assert_int_equal(session_add(session, 0, &receipt), SHELF_OK);
    assert_int_equal(session_add(session, 1, &receipt), SHELF_EXPIRED);
    assert_int_equal(session_add(session, 2, &receipt), SHELF_OK);
    assert_true(receipt.replayed);
    assert_int_equal(receipt.results[0], 2);
    assert_int_equal(shelf_session_outcome(session, 1, &receipt), SHELF_EXPIRED);
    assert_int_equal(session_add(session, 1000, &receipt), SHELF_OK);
    assert_int_equal(session_add(session, 0, &receipt), SHELF_OK);
    assert_int_equal(receipt.sequence, 1001);
    assert_int_equal(session_add(session, 900, &receipt), SHELF_EXPIRED);
    assert_int_equal(session_add(session, 938, &receipt), SHELF_OK); /* a gap within the window */
    assert_int_equal(word_get(0), 68);
    shelf_session_close(session);
}

static void test_an_outcome_is_final(void **state) {
    (void)state;
    struct shelf_receipt receipt;
    shelf_session *session = session_open();
    assert_int_equal(session_add(session, 0, NULL), SHELF_OK);
    assert_int_equal(shelf_session_outcome(session, 1, &receipt), SHELF_OK);
    assert_int_equal(receipt.sequence, 1);
    assert_int_equal(shelf_session_outcome(session, 2, &receipt), SHELF_ABORTED);
    assert_int_equal(session_add(session, 2, &receipt), SHELF_ABORTED);
    shelf_session_close(session);
    shelf_again();
    session = session_open();
    assert_int_equal(session_add(session, 2, &receipt), SHELF_ABORTED);
    assert_int_equal(word_get(0), 1);
    assert_int_equal(session_add(session, 0, &receipt), SHELF_OK);
    assert_int_equal(receipt.sequence, 3);
    shelf_session_close(session);
}

static void test_resuming_fences_the_older_holder(void **state) {
    (void)state;
    shelf_session *older = session_open();
    assert_int_equal(session_add(older, 0, NULL), SHELF_OK);
    shelf_session *newer = session_open();
    assert_int_equal(session_add(older, 0, NULL), SHELF_FENCED);
    assert_int_equal(session_add(older, 1, NULL), SHELF_FENCED);
    assert_int_equal(shelf_session_outcome(older, 1, NULL), SHELF_FENCED);
    assert_int_equal(session_add(newer, 0, NULL), SHELF_OK);
    assert_int_equal(word_get(0), 2);
    shelf_session_close(older);
    assert_int_equal(shelf_session_expire(newer), SHELF_OK);
}

static void test_an_expired_session_is_gone(void **state) {
    (void)state;
    shelf_session *session = session_open(), *other = session_open();
    assert_int_equal(session_add(other, 0, NULL), SHELF_OK);
    assert_int_equal(shelf_session_expire(other), SHELF_OK);
    assert_int_equal(session_add(session, 1, NULL), SHELF_EXPIRED);
    shelf_session_close(session);
    session = session_open(); /* another of that name */
    assert_int_equal(shelf_session_last(session), 0);
    shelf_session_close(session);
}

// ---- Structures -----------------------------------------------------------------------------------------------------

// Values over many lines: one call reads more lines than a transaction's read set has room for at first.
static void test_one_call_reads_more_than_the_read_set_holds(void **state) {
    (void)state;
    enum { KEYS = 1000, VALUE_SIZE = 400 };
    static uint64_t keys[KEYS];
    static uint8_t values[KEYS][VALUE_SIZE];
    static struct shelf_map_item items[KEYS];
    shelf_map map;
    shelf_tx *tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_region_grow(s, region, 4 * region_size), SHELF_OK);
    assert_int_equal(shelf_format(tx, region), SHELF_OK);
    assert_int_equal(shelf_map_create(tx, region, "map", &map), SHELF_OK);
    for (uint64_t i = 0; i < KEYS; i++) {
        keys[i] = i;
        memset(values[0], (int)i, VALUE_SIZE);
        assert_int_equal(shelf_map_put(tx, map, &keys[i], 8, values[0], VALUE_SIZE), SHELF_OK);
        items[i] = (struct shelf_map_item){
            .key = &keys[i], .key_size = 8, .value = values[i], .value_max = VALUE_SIZE};
    }
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    for (int round = 0; round < 3; round++) {
        memset(values, 0xff, sizeof(values));
        tx = begin(SHELF_READ_ONLY);
        assert_int_equal(shelf_map_get_many(tx, map, items, KEYS), SHELF_OK);
        for (uint64_t i = 0; i < KEYS; i++) {
            assert_int_equal(items[i].result, SHELF_OK);
            assert_int_equal(values[i][0], (uint8_t)i);
            assert_int_equal(values[i][VALUE_SIZE - 1], (uint8_t)i);
        }
        assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    }
}

// ---- Asynchronous commits -------------------------------------------------------------------------------------------

enum { OUTSTANDING = 512, ASYNC_TOTAL = 8192 };

// One thread keeps 512 commits under way; each adds to a word of its tag.
// Waits until at least one commit has completed, checks all that have, and returns how many.
static size_t completions_take(struct shelf_completion *completions, size_t count_max) {
    struct pollfd p = {.fd = shelf_completion_fd(s), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 60000), 1);
    size_t count = shelf_completions(s, completions, count_max);
    assert_true(count > 0); /* it polls readable only if there are some */
    for (size_t i = 0; i < count; i++)
        assert_int_equal(completions[i].result, SHELF_OK);
    return count;
}

static void test_many_commits_are_outstanding(void **state) {
    (void)state;
    static struct shelf_completion completions[OUTSTANDING];
    static uint32_t seen[ASYNC_TOTAL];
    memset(seen, 0, sizeof(seen));
    size_t begun = 0, done = 0;
    while (done < ASYNC_TOTAL) {
        while (begun < ASYNC_TOTAL && begun - done < OUTSTANDING) {
            shelf_tx *tx = begin(SHELF_READ_WRITE);
            assert_int_equal(shelf_add(tx, at(begun % 1000 * 64), begun), SHELF_OK);
            assert_int_equal(shelf_commit_async(tx, begun++), SHELF_OK);
        }
        size_t count = completions_take(completions, OUTSTANDING);
        for (size_t i = 0; i < count; i++)
            seen[completions[i].tag]++;
        done += count;
    }
    uint64_t sums[1000] = {0};
    for (size_t i = 0; i < ASYNC_TOTAL; i++) {
        assert_int_equal(seen[i], 1);
        sums[i % 1000] += i;
    }
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(word_get(i * 64), sums[i]);
    assert_int_equal(shelf_completions(s, completions, OUTSTANDING), 0);
}

// Records that change more pages of a running checkpoint than the core can copy wait for it, and nobody comes who would
// remind the background thread of it.
static void test_commits_outrun_a_checkpoint(void **state) {
    (void)state;
    enum { COMMITS = 100000 };
    static struct shelf_completion completions[OUTSTANDING];
    const uint64_t pages = 16384;
    shelf_region wide;
    assert_int_equal(shelf_close(s), SHELF_OK);
    const struct shelf_options often = {.checkpoint_log_bytes = 1 << 20};
    assert_int_equal(shelf_open(where, &often, &s), SHELF_OK);
    assert_int_equal(shelf_region_create(s, "wide", pages * 4096, 0, &wide), SHELF_OK);
    for (size_t begun = 0, done = 0; done < COMMITS;) {
        for (; begun < COMMITS && begun - done < OUTSTANDING; begun++) {
            shelf_tx *tx = begin(SHELF_READ_WRITE);
            shelf_addr page = shelf_addr_make(wide, begun * 7919 % pages * 4096);
            assert_int_equal(shelf_write(tx, page, &(uint64_t){begun}, 8), SHELF_OK);
            assert_int_equal(shelf_commit_async(tx, begun), SHELF_OK);
        }
        done += completions_take(completions, OUTSTANDING);
    }
}

static void test_close_waits_for_outstanding_commits(void **state) {
    (void)state;
    for (uint64_t i = 0; i < 300; i++) {
        shelf_tx *tx = begin(SHELF_READ_WRITE);
        assert_int_equal(shelf_write(tx, at(i * 64), &(uint64_t){i + 1}, 8), SHELF_OK);
        assert_int_equal(shelf_commit_async(tx, i), SHELF_OK);
    }
    shelf_again();
    for (uint64_t i = 0; i < 300; i++)
        assert_int_equal(word_get(i * 64), i + 1);
}

static void completions_await(size_t count) {
    struct shelf_completion completions[8];
    while (count > 0)
        count -= completions_take(completions, 8);
}

static int log_open(void) {
    char path[96];
    snprintf(path, sizeof(path), "%s/log", directory);
    return open(path, O_RDONLY | O_CLOEXEC);
}

// Has the log's second segment been begun?
static bool second_segment_begun(int fd) {
    uint64_t magic = 0;
    assert_int_equal(pread(fd, &magic, sizeof(magic), 32 << 20), sizeof(magic));
    return magic != 0;
}

// The second of two commits goes into a record that is begun when the first one's is durable: by the background thread, in
// which nobody waits. What else comes of that step (here: space for a third segment of the log, as the second is begun)
// is done although nothing follows; without it the shelf could not close.
static void test_close_after_the_log_has_grown(void **state) {
    (void)state;
    static unsigned char bytes[512 << 10];
    const struct shelf_options options = {.flags =
                                              SHELF_OPEN_NO_CHECKPOINT}; // which would wake the thread, too
    bool paused = false;
    assert_int_equal(shelf_close(s), SHELF_OK);
    assert_int_equal(shelf_open(where, &options, &s), SHELF_OK);
    assert_int_equal(shelf_region_open(s, "test", &region), SHELF_OK);
    struct shelf_info info;
    int fd = log_open();
    assert_true(fd >= 0);
    while (!second_segment_begun(fd)) {
        assert_int_equal(shelf_info_get(s, &info), SHELF_OK);
        if (!paused && info.log_bytes > 28 << 20) {
            (void)poll(NULL, 0,
                       1500); // until the log is prepared: the end of each write of zeros wakes the thread
            paused = true;
        }
        for (uint64_t i = 0; i < 2; i++) {
            shelf_tx *tx = begin(SHELF_READ_WRITE);
            assert_int_equal(shelf_write(tx, at(0), bytes, sizeof(bytes)), SHELF_OK);
            assert_int_equal(shelf_commit_async(tx, i), SHELF_OK);
        }
        completions_await(2);
    }
    (void)close(fd);
    shelf_again();
}

// ---- Threads --------------------------------------------------------------------------------------------------------

enum {
    ACCOUNTS = 64,
    TELLERS = 6,
    AUDITORS = 2,
    TRANSFERS = 150, /* a teller */
};
static const uint64_t start_amount = 1000;
static _Atomic uint32_t tellers_left;
static _Atomic uint64_t audits, fractured;

struct transfer {
    uint64_t from, to, amount;
};

// Three reads, two of one account; two writes, a count.
static shelf_result transfer_body(shelf_tx *tx, void *context) {
    const struct transfer *t = context;
    uint64_t from, to;
    shelf_result result = shelf_read(tx, at(t->from * 64), &from, 8);
    if (result == SHELF_OK)
        result = shelf_read(tx, at(t->to * 64), &to, 8);
    if (result != SHELF_OK)
        return result;
    uint64_t amount = from < t->amount ? from : t->amount;
    from -= amount;
    result = shelf_write(tx, at(t->from * 64), &from, 8);
    if (result == SHELF_OK)
        result = shelf_read(tx, at(t->to * 64), &to, 8); /* its own, if both are the same account */
    to += amount;
    if (result == SHELF_OK)
        result = shelf_write(tx, at(t->to * 64), &to, 8);
    if (result == SHELF_OK)
        result = shelf_add(tx, at(ACCOUNTS * 64), 1);
    return result;
}

static void *teller_main(void *argument) {
    struct random random;
    random_seed(&random, *(const uint64_t *)argument);
    uint64_t failures = 0;
    for (int i = 0; i < TRANSFERS; i++) {
        struct transfer t = {random_below(&random, ACCOUNTS), random_below(&random, ACCOUNTS),
                             random_below(&random, 100)};
        failures += shelf_run(s, SHELF_READ_WRITE, transfer_body, &t, 60000, NULL) != SHELF_OK;
    }
    atomic_fetch_sub(&tellers_left, 1);
    return failures == 0 ? NULL : argument;
}

static void *auditor_main(void *argument) {
    while (atomic_load(&tellers_left) > 0) {
        shelf_tx *tx;
        uint64_t sum = 0, amount;
        shelf_result result = shelf_begin(s, SHELF_READ_ONLY, &tx);
        for (uint64_t i = 0; i < ACCOUNTS && result == SHELF_OK; i++) {
            result = shelf_read(tx, at(i * 64), &amount, 8);
            sum += amount;
        }
        if (result == SHELF_OK) {
            atomic_fetch_add(&audits, 1);
            atomic_fetch_add(&fractured, sum != ACCOUNTS * start_amount);
        } else if (result != SHELF_CONFLICT) {
            return argument;
        }
        shelf_abort(tx);
    }
    return NULL;
}

static void test_threads_move_money_and_lose_none(void **state) {
    (void)state;
    pthread_t threads[TELLERS + AUDITORS];
    uint64_t seeds[TELLERS + AUDITORS];
    atomic_store(&tellers_left, TELLERS);
    shelf_tx *tx = begin(SHELF_READ_WRITE);
    for (uint64_t i = 0; i < ACCOUNTS; i++)
        assert_int_equal(shelf_write(tx, at(i * 64), &start_amount, 8), SHELF_OK);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    for (uint64_t i = 0; i < TELLERS + AUDITORS; i++) {
        seeds[i] = i + 1;
        assert_int_equal(
            pthread_create(&threads[i], NULL, i < TELLERS ? teller_main : auditor_main, &seeds[i]), 0);
    }
    for (int i = 0; i < TELLERS + AUDITORS; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_true(atomic_load(&audits) > 0);
    assert_int_equal(atomic_load(&fractured), 0);
    for (int round = 0; round < 2; round++) {
        uint64_t sum = 0;
        for (uint64_t i = 0; i < ACCOUNTS; i++)
            sum += word_get(i * 64);
        assert_int_equal(sum, ACCOUNTS * start_amount);
        assert_int_equal(word_get(ACCOUNTS * 64), TELLERS * TRANSFERS);
        shelf_again();
    }
}

// ---- Fork -----------------------------------------------------------------------------------------------------------

// What a child finds: 0 if all is as promised.
static int child_main(shelf_tx *tx) {
    shelf_tx *own = NULL;
    uint64_t word;
    if (shelf_begin(s, SHELF_READ_ONLY, &own) != SHELF_INVALID)
        return 1;
    if (shelf_read(tx, at(0), &word, 8) != SHELF_INVALID || shelf_commit(tx, NULL) != SHELF_INVALID)
        return 2;
#ifndef __SANITIZE_THREAD__ /* which does not let the child of a process with threads start one, as a guest does */
    shelf *guest = NULL;
    if (shelf_open(where, NULL, &guest) != SHELF_OK) /* the parent is its node, the child a guest */
        return 3;
    if (shelf_begin(guest, SHELF_READ_ONLY, &own) != SHELF_OK || shelf_read(own, at(0), &word, 8) != SHELF_OK)
        return 5;
    shelf_abort(own);
    if (word != 1 || shelf_close(guest) != SHELF_OK)
        return 6;
#endif
    return shelf_close(s) == SHELF_INVALID ? 0 : 4;
}

static void test_fork_does_not_disturb_the_parent(void **state) {
    (void)state;
    assert_int_equal(word_put(0, 1, NULL), SHELF_OK);
    shelf_tx *tx = begin(SHELF_READ_WRITE);
    assert_int_equal(shelf_write(tx, at(0), &(uint64_t){2}, 8), SHELF_OK);
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0)
        _exit(child_main(tx));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(shelf_commit(tx, NULL), SHELF_OK);
    assert_int_equal(word_get(0), 2);
    shelf_again();
    assert_int_equal(word_get(0), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_a_commit_is_seen_and_stays),
        TEST(test_an_abort_leaves_nothing),
        TEST(test_the_second_of_two_conflicts),
        TEST(test_operations_return_their_results),
        TEST(test_the_largest_transaction),
        TEST(test_a_region_grows_under_views),
        TEST(test_regions_come_and_go),
        TEST(test_a_sequence_has_its_effect_once),
        TEST(test_the_window_is_64_sequences),
        TEST(test_an_outcome_is_final),
        TEST(test_resuming_fences_the_older_holder),
        TEST(test_an_expired_session_is_gone),
        TEST(test_one_call_reads_more_than_the_read_set_holds),
        TEST(test_many_commits_are_outstanding),
        TEST(test_commits_outrun_a_checkpoint),
        TEST(test_close_waits_for_outstanding_commits),
        TEST(test_close_after_the_log_has_grown),
        TEST(test_threads_move_money_and_lose_none),
        TEST(test_fork_does_not_disturb_the_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
