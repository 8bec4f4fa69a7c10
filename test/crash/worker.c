// SPDX-License-Identifier: Apache-2.0
//
// worker: the program that is killed, loses its power or its disk space, and the checker of what it left.
//
//   worker run   --dir DIR --marks FILE [--mirror FILE] [--tellers N] [--transfers N] [--seconds N] [--backend B]
//                [--checkpoint-bytes N] [--checkpoint-every N] [--regions-every N] [--hoard N] [--space-wait-ms N]
//                [--leave] [--deadline-ms N] [--pause-ms N] [--wait-ms N]
//   worker run   --where WHERE [--first N] [--resend] [--gone PROCESS] ...
//   worker check --dir DIR --marks FILE [--marks FILE...] [--tellers N] [--transfers N] [--backend B]
//   worker read  --where WHERE [--reads N] [--pause-ms N]
//
// run: opens the shelf (making it if it was never there), compares it with what the marks of earlier runs promise, and
// goes on with the bank (bank.h): N transfers for each teller (0: until it is killed), each teller in a thread of its
// own. --mirror: lines are appended to that file too. --checkpoint-every, --regions-every: the first teller writes a
// checkpoint, or does the next step with a scratch region, after that many of its transfers. --hoard: in the meantime one
// more thread appends to the hoard until it has N records, and the run ends when it has. --space-wait-ms: how long to wait
// for space on a full disk. --leave: ends without a checkpoint. --deadline-ms: of a commit. --pause-ms: after each transfer.
// --wait-ms: before each, waits so long for one of others.
// SIGTERM ends it as the time does.
//
// --where (dir:PATH, unix:PATH) instead of --dir: other workers use the shelf at the same time, each with tellers of its own,
// from --first on, and marks of its own. Whoever is the node may die at any time; it is waited for. One worker must have run
// alone before, to make the bank. --resend: what an earlier life had in flight is submitted again instead of asked for.
// --gone: first waits until that process, an earlier life, is not among the node's clients any more.
//
// check: the same, but the lines of the marks file are only read; with --transfers it goes on with so many transfers,
// closes, opens and compares again. (The marks do not know of these: it must be the last that is done with the store.) The
// marks files are those of workers that have shared it.
//
// read: reads all accounts in one transaction after the other, until it has read N of them and is sent SIGTERM, and compares
// each with what the ledgers say (bank_view_next). It says when it begins.
//
// The last line on stdout is an object of JSON. Exit codes: 0 done; 64 the store is not as promised (stderr says what);
// 65 arguments; 70 the test's own files failed; else the shelf_result that made it stop: 17 is IO.
//
// After a result that stops the node, each teller tries a few transfers more: none may be acknowledged.

#include "bank.h"
#include "book.h"
#include "hoard.h"
#include "shelf.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXIT_BROKEN_PROMISE 64
#define EXIT_USAGE          65
#define TRIES_AFTER_STOP    3u
#define SCRATCH_SIZE        65536u
#define NODE_WAIT_MS        60000
#define MARKS_MAX           8u

struct options {
    bool run, read, leave, shared, resend;
    char *where; // owned
    const char *marks[MARKS_MAX], *mirror;
    unsigned marks_count, tellers;
    uint64_t first, transfers, seconds, checkpoint_bytes, checkpoint_every, regions_every, hoard,
        space_wait_ms;
    uint64_t deadline_ms, pause_ms, wait_ms, gone, reads;
    shelf_backend backend;
};

struct worker {
    struct options options;
    struct book book;
    struct bank bank;
    struct hoard hoard;
    atomic_bool broken;                             // a promise
    atomic_int stopped;                             // the shelf_result that stops all tellers; OK: go on
    atomic_bool ended;                              // of the time
    atomic_uint_fast64_t acked, checkpoints, waits; // waits: for space
    atomic_uint_fast64_t unknown, replayed,
        away;                // commits without an outcome, with one of before, and none at all
    uint64_t reads, refused; // accounts read; times that they could not be
    struct shelf_info info;  // at the end
    struct shelf_stats stats;
    uint64_t recovered_records, recovered_cut_bytes;
};

struct teller {
    struct worker *worker;
    unsigned number;
    pthread_t thread;
};

static volatile sig_atomic_t told_to_end;

static void on_sigterm(int number) {
    (void)number;
    told_to_end = 1;
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void pause_ms(uint64_t time_ms) {
    struct timespec pause = {.tv_sec = (time_t)(time_ms / 1000), .tv_nsec = (long)(time_ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

// Of a shelf that others share: the node has gone, or is going. Nothing is wrong, it is to be tried again.
static bool node_away(const struct worker *worker, shelf_result result) {
    return worker->options.shared &&
           (result == SHELF_UNAVAILABLE || result == SHELF_TIMEOUT || result == SHELF_UNKNOWN ||
            result == SHELF_BUSY || result == SHELF_NOT_FOUND);
}

static void complain(struct worker *worker, const char *what, shelf_result result) {
    fprintf(stderr, "worker: %s: %s: %s\n", what, shelf_result_name(result), shelf_detail());
    atomic_store(&worker->broken, true);
}

// ---- Tellers ----------------------------------------------------------------------------------------------

enum verdict { GO_ON, AGAIN, STOP };

// The disk is full: reading goes on, and the same transfer succeeds once there is space.
static enum verdict space_wait(struct worker *worker, int64_t deadline_ms) {
    uint64_t sum = 0;
    book_note(&worker->book, "full");
    shelf_result result = bank_sum(&worker->bank, &sum);
    if (result != SHELF_OK || sum != (uint64_t)BANK_ACCOUNTS * BANK_START) {
        complain(worker, "reading while there is no space", result);
        return STOP;
    }
    if (now_ms() > deadline_ms) {
        return STOP;
    }
    atomic_fetch_add(&worker->waits, 1);
    pause_ms(5); // between tries: we wait for the disk, which has no condition
    return AGAIN;
}

static void stop(struct worker *worker, shelf_result result) {
    int expected = SHELF_OK;
    if (atomic_compare_exchange_strong(&worker->stopped, &expected, (int)result)) {
        fprintf(stderr, "worker: stopped: %s: %s\n", shelf_result_name(result), shelf_detail());
    }
}

// A commit that did not say what became of it.
static enum verdict unknown_settle(struct worker *worker, unsigned t, uint64_t n, uint64_t *sequence) {
    struct shelf_receipt receipt = {0};
    int64_t until_ms = now_ms() + NODE_WAIT_MS;
    shelf_result result;
    atomic_fetch_add(&worker->unknown, 1);
    do {
        result = shelf_session_outcome(worker->bank.sessions[t], *sequence, &receipt);
    } while (node_away(worker, result) && now_ms() < until_ms);
    if (result == SHELF_OK) {
        book_note(&worker->book, "ack %u %" PRIu64 " %" PRIu64 " %" PRIu64, t, n, *sequence, receipt.index);
        return GO_ON;
    }
    if (result == SHELF_ABORTED) {
        book_note(&worker->book, "dead %u %" PRIu64, t, *sequence);
        *sequence += 1;
        return AGAIN;
    }
    stop(worker, result);
    return STOP;
}

static enum verdict transfer(struct worker *worker, unsigned t, uint64_t n, uint64_t *sequence,
                             int64_t deadline_ms) {
    struct shelf_receipt receipt = {0};
    book_note(&worker->book, "submit %u %" PRIu64 " %" PRIu64, t, n, *sequence);
    shelf_result result = bank_transfer(&worker->bank, t, n, *sequence, &receipt);
    switch (result) {
    case SHELF_OK:
        atomic_fetch_add(&worker->replayed, receipt.replayed);
        if ((receipt.replayed && !worker->options.shared) || receipt.sequence != *sequence ||
            receipt.durability != SHELF_DURABLE_LOCAL) {
            complain(worker, "a receipt that cannot be", result);
            return STOP;
        }
        book_note(&worker->book, "ack %u %" PRIu64 " %" PRIu64 " %" PRIu64, t, n, *sequence, receipt.index);
        atomic_fetch_add(&worker->acked, 1);
        return GO_ON;
    case SHELF_UNKNOWN:
        return unknown_settle(worker, t, n, sequence);
    case SHELF_NO_SPACE:
        return space_wait(worker, deadline_ms);
    default:
        book_note(&worker->book, "dead %u %" PRIu64, t, *sequence);
        if (node_away(worker, result) && now_ms() < deadline_ms) {
            atomic_fetch_add(&worker->away, 1);
            *sequence += 1;
            return AGAIN;
        }
        stop(worker, result);
        return STOP;
    }
}

static void after_stop(struct worker *worker, unsigned t, uint64_t n, uint64_t sequence) {
    for (unsigned i = 1; i <= TRIES_AFTER_STOP; i++) {
        book_note(&worker->book, "submit %u %" PRIu64 " %" PRIu64, t, n, sequence + i);
        shelf_result result = bank_transfer(&worker->bank, t, n, sequence + i, NULL);
        if (result == SHELF_OK) {
            complain(worker, "a commit was acknowledged after the node had stopped", result);
        } else if (result != SHELF_UNKNOWN) {
            book_note(&worker->book, "dead %u %" PRIu64, t, sequence + i);
        }
    }
}

static void checkpoint(struct worker *worker) {
    uint64_t index = 0;
    shelf_result result = shelf_checkpoint(worker->bank.s, &index);
    if (result == SHELF_OK) {
        atomic_fetch_add(&worker->checkpoints, 1);
    } else if (result != SHELF_NO_SPACE) {
        stop(worker, result);
    }
}

// ---- Scratch regions --------------------------------------------------------------------------------------

static shelf_result scratch_create(struct worker *worker, uint64_t number, const char *name) {
    shelf_region region;
    book_note(&worker->book, "creating %" PRIu64 " %u", number, SCRATCH_SIZE);
    shelf_result result =
        shelf_region_create(worker->bank.s, name, SCRATCH_SIZE, 16 * (uint64_t)SCRATCH_SIZE, &region);
    if (result == SHELF_OK) {
        book_note(&worker->book, "created %" PRIu64 " %u", number, SCRATCH_SIZE);
    } else if (result == SHELF_NO_SPACE) {
        book_note(&worker->book, "refused %" PRIu64 " %u", number, SCRATCH_SIZE);
    }
    return result;
}

static shelf_result scratch_grow(struct worker *worker, uint64_t number, shelf_region region) {
    uint64_t size = worker->book.scratch[number].size_acked * 2;
    book_note(&worker->book, "growing %" PRIu64 " %" PRIu64, number, size);
    shelf_result result = shelf_region_grow(worker->bank.s, region, size);
    if (result == SHELF_OK) {
        book_note(&worker->book, "grown %" PRIu64 " %" PRIu64, number, size);
    } else if (result == SHELF_NO_SPACE) {
        book_note(&worker->book, "refused %" PRIu64 " %" PRIu64, number, size);
    }
    return result;
}

static shelf_result scratch_fill(struct worker *worker, uint64_t number, shelf_region region) {
    book_note(&worker->book, "filling %" PRIu64, number);
    shelf_result result = bank_scratch_fill(&worker->bank, region, number);
    if (result == SHELF_OK) {
        book_note(&worker->book, "filled %" PRIu64, number);
    }
    return result;
}

static shelf_result scratch_drop(struct worker *worker, uint64_t number, const char *name) {
    book_note(&worker->book, "dropping %" PRIu64, number);
    shelf_result result = shelf_region_drop(worker->bank.s, name);
    if (result == SHELF_OK) {
        book_note(&worker->book, "dropped %" PRIu64, number);
    }
    return result;
}

// The next step with the newest scratch region: create, fill, grow, drop; then the next region.
static shelf_result scratch_step(struct worker *worker) {
    struct book *book = &worker->book;
    uint64_t number = book->scratch_next - 1;
    char name[SHELF_NAME_MAX + 1];
    const struct book_scratch *scratch = &book->scratch[number];
    if (number == 0 || scratch->exists == BOOK_NO) {
        bank_scratch_name(number + 1, name);
        return number + 1 < BOOK_SCRATCH_MAX ? scratch_create(worker, number + 1, name) : SHELF_OK;
    }
    shelf_region region;
    bank_scratch_name(number, name);
    shelf_result result = shelf_region_open(worker->bank.s, name, &region);
    if (result != SHELF_OK) {
        return result;
    }
    if (scratch->dropping || scratch->size_acked > SCRATCH_SIZE) {
        return scratch_drop(worker, number, name);
    }
    return scratch->filled == BOOK_NO ? scratch_fill(worker, number, region)
                                      : scratch_grow(worker, number, region);
}

// What the first teller does besides.
static void duties(struct worker *worker, uint64_t done) {
    const struct options *options = &worker->options;
    if (options->checkpoint_every > 0 && done % options->checkpoint_every == 0) {
        checkpoint(worker);
    }
    if (options->regions_every > 0 && done % options->regions_every == 0) {
        shelf_result result = scratch_step(worker);
        if (result != SHELF_OK && result != SHELF_NO_SPACE) {
            stop(worker, result);
        }
    }
}

// ---- A run ------------------------------------------------------------------------------------------------

static bool go_on(struct worker *worker) {
    return atomic_load(&worker->stopped) == SHELF_OK && !atomic_load(&worker->broken) &&
           !atomic_load(&worker->ended) && !told_to_end;
}

static void others_wait(struct worker *worker) {
    shelf_result result = bank_wait(&worker->bank, (uint32_t)worker->options.wait_ms);
    if (result != SHELF_OK && result != SHELF_TIMEOUT && !node_away(worker, result)) {
        complain(worker, "waiting for a change", result);
    }
}

static void *teller_main(void *argument) {
    struct teller *teller = argument;
    struct worker *worker = teller->worker;
    const struct options *options = &worker->options;
    const struct book_teller *known = &worker->book.tellers[teller->number];
    uint64_t n = known->acked + 1;
    uint64_t sequence = known->sequence_max + 1;
    uint64_t done = 0;
    int64_t start_ms = now_ms();
    int64_t patience_ms = options->shared ? NODE_WAIT_MS : (int64_t)options->space_wait_ms;
    int64_t deadline_ms = start_ms + patience_ms;
    while (go_on(worker) && (options->transfers == 0 || done < options->transfers)) {
        if (options->wait_ms > 0) {
            others_wait(worker);
        }
        enum verdict verdict = transfer(worker, teller->number, n, &sequence, deadline_ms);
        if (verdict == GO_ON) {
            n++;
            sequence++;
            done++;
            deadline_ms = now_ms() + patience_ms;
            if (teller->number == options->first) {
                duties(worker, done);
            }
            pause_ms(options->pause_ms);
        } else if (verdict == STOP) {
            stop(worker, SHELF_NO_SPACE); // unless stopped for another reason
        }
        if (options->seconds > 0 && now_ms() > start_ms + (int64_t)options->seconds * 1000) {
            atomic_store(&worker->ended, true);
        }
    }
    if (atomic_load(&worker->stopped) == SHELF_IO || atomic_load(&worker->stopped) == SHELF_UNKNOWN) {
        after_stop(worker, teller->number, n, sequence);
    }
    return NULL;
}

static void *hoard_main(void *argument) {
    struct worker *worker = argument;
    struct hoard *hoard = &worker->hoard;
    int64_t deadline_ms = now_ms() + (int64_t)worker->options.space_wait_ms;
    while (go_on(worker) && hoard->count < worker->options.hoard) {
        shelf_result result = hoard->ready ? hoard_add(hoard) : hoard_open(hoard, true);
        if (result == SHELF_OK) {
            deadline_ms = now_ms() + (int64_t)worker->options.space_wait_ms;
        } else if (result != SHELF_NO_SPACE || space_wait(worker, deadline_ms) == STOP) {
            stop(worker, result);
        }
    }
    atomic_store(&worker->ended, true);
    return NULL;
}

static void tellers_run(struct worker *worker) {
    struct teller tellers[BOOK_TELLERS_MAX];
    pthread_t hoarder;
    bool hoard = worker->options.hoard > 0;
    if (hoard && pthread_create(&hoarder, NULL, hoard_main, worker) != 0) {
        fprintf(stderr, "worker: cannot start a thread\n");
        exit(70);
    }
    for (unsigned t = 0; t < worker->options.tellers; t++) {
        tellers[t] = (struct teller){.worker = worker, .number = (unsigned)worker->options.first + t};
        if (pthread_create(&tellers[t].thread, NULL, teller_main, &tellers[t]) != 0) {
            fprintf(stderr, "worker: cannot start a thread\n");
            exit(70);
        }
    }
    for (unsigned t = 0; t < worker->options.tellers; t++) {
        pthread_join(tellers[t].thread, NULL);
    }
    if (hoard) {
        pthread_join(hoarder, NULL);
    }
}

// The node may go meanwhile.
static shelf_result bank_find_shared(struct worker *worker) {
    int64_t until_ms = now_ms() + NODE_WAIT_MS;
    shelf_result result;
    do {
        result = bank_open(&worker->bank, false);
    } while (node_away(worker, result) && now_ms() < until_ms);
    return result;
}

// Opens the shelf, which must work whatever happened before. With no earlier "open" it need not exist.
static shelf_result store_open(struct worker *worker) {
    const struct options *options = &worker->options;
    struct shelf_options open = {
        .flags =
            (options->leave || !options->run ? SHELF_OPEN_NO_CHECKPOINT : 0u) |
            (options->run || options->shared ? 0u : (unsigned)SHELF_OPEN_ALONE) | // also what was a daemon's
            (worker->book.open ? 0u : (unsigned)SHELF_OPEN_CREATE),
        .backend = options->backend,
        .log_bytes_max = (uint64_t)128 << 20,
        .checkpoint_log_bytes = options->checkpoint_bytes,
        .commit_deadline_ms = (uint32_t)options->deadline_ms,
    };
    int64_t until_ms = now_ms() + NODE_WAIT_MS;
    shelf_result result = shelf_open(options->where, &open, &worker->bank.s);
    while (node_away(worker, result) && now_ms() < until_ms) {
        pause_ms(2);
        result = shelf_open(options->where, &open, &worker->bank.s);
    }
    if (result != SHELF_OK) {
        fprintf(stderr, "worker: cannot open %s: %s: %s\n", options->where, shelf_result_name(result),
                shelf_detail());
        return result;
    }
    book_note(&worker->book, "open");
    worker->bank.book = &worker->book;
    worker->bank.first = (unsigned)options->first;
    worker->bank.tellers = options->tellers;
    worker->bank.shared = options->shared;
    worker->bank.resend = options->resend;
    if (shelf_info_get(worker->bank.s, &worker->info) == SHELF_OK) {
        worker->recovered_records = worker->info.recovered_records;
        worker->recovered_cut_bytes = worker->info.recovered_cut_bytes;
    }
    worker->hoard = (struct hoard){.s = worker->bank.s, .book = &worker->book};
    if (options->shared) {
        return bank_find_shared(worker);
    }
    result = hoard_open(&worker->hoard, false);
    return result == SHELF_OK ? bank_open(&worker->bank, false) : result;
}

// Compares the store with the book, and if there is to be more, makes what is missing.
static shelf_result store_check_once(struct worker *worker, bool more) {
    bool good = bank_check(&worker->bank) && (worker->options.shared || hoard_check(&worker->hoard));
    if (good && more && !worker->bank.ready) {
        shelf_result result = bank_open(&worker->bank, true);
        if (result != SHELF_OK) {
            fprintf(stderr, "worker: cannot make the bank: %s: %s\n", shelf_result_name(result),
                    shelf_detail());
            return result;
        }
    }
    good = good && (!worker->bank.ready || bank_settle(&worker->bank));
    shelf_result refusal = bank_check_refusal();
    atomic_store(&worker->broken, !good && refusal == SHELF_OK);
    return good ? SHELF_OK : refusal;
}

// An earlier life that was killed: nothing of it is left with the node.
static bool gone_check(struct worker *worker) {
    struct shelf_client_info infos[64];
    int64_t until_ms = now_ms() + NODE_WAIT_MS;
    bool there = worker->options.gone != 0;
    while (there && now_ms() < until_ms) {
        size_t count = 0;
        shelf_result result = shelf_client_list(worker->bank.s, infos, 64, &count);
        there = result != SHELF_OK || count > 64;
        for (size_t i = 0; result == SHELF_OK && i < count && i < 64; i++) {
            there |= infos[i].process == worker->options.gone;
        }
    }
    if (there) {
        complain(worker, "a process that was killed is still attached", SHELF_OK);
    }
    return !there;
}

static shelf_result store_check(struct worker *worker, bool more) {
    int64_t until_ms = now_ms() + NODE_WAIT_MS;
    if (!gone_check(worker)) {
        return SHELF_OK;
    }
    shelf_result result = store_check_once(worker, more);
    while (node_away(worker, result) && now_ms() < until_ms) {
        result = store_check_once(worker, more);
    }
    return result;
}

// A node that has stopped says so, also to those whose commit was under way.
static shelf_result stop_reason(struct worker *worker, shelf_result result) {
    struct shelf_info info;
    bool stopped = result == SHELF_UNKNOWN && worker->bank.s != NULL &&
                   shelf_info_get(worker->bank.s, &info) == SHELF_OK;
    return stopped && info.state == SHELF_IO ? SHELF_IO : result;
}

static shelf_result store_close(struct worker *worker) {
    bank_close(&worker->bank);
    (void)!shelf_info_get(worker->bank.s, &worker->info);
    (void)!shelf_stats_get(worker->bank.s, &worker->stats);
    shelf_result result = shelf_close(worker->bank.s);
    worker->bank = (struct bank){0};
    return result;
}

// One life of the store: open, compare, work, close.
static int life(struct worker *worker, bool more) {
    shelf_result result = store_open(worker);
    if (result == SHELF_OK) {
        result = store_check(worker, more);
    }
    if (result == SHELF_OK && more && !atomic_load(&worker->broken)) {
        tellers_run(worker);
    }
    shelf_result stopped = stop_reason(worker, (shelf_result)atomic_load(&worker->stopped));
    result = stop_reason(worker, result);
    shelf_result closed = worker->bank.s != NULL ? store_close(worker) : SHELF_OK;
    if (result == SHELF_OK) {
        result = stopped;
    }
    if (result == SHELF_OK && closed != SHELF_OK && closed != SHELF_NO_SPACE) {
        fprintf(stderr, "worker: closing: %s: %s\n", shelf_result_name(closed), shelf_detail());
        result = closed;
    }
    return atomic_load(&worker->broken) ? EXIT_BROKEN_PROMISE : (int)result;
}

// The accounts, again and again.
static shelf_result reader_run(struct worker *worker) {
    struct bank_view view;
    int64_t until_ms = now_ms() + NODE_WAIT_MS;
    shelf_result result = worker->bank.ready ? SHELF_OK : SHELF_NOT_FOUND;
    bank_view_begin(&view);
    if (result == SHELF_OK) {
        printf("{\"reading\": true}\n");
        fflush(stdout);
    }
    while (result == SHELF_OK && (worker->reads < worker->options.reads || !told_to_end)) {
        result = bank_view_next(&worker->bank, &view);
        if (result == SHELF_OK) {
            worker->reads += BANK_ACCOUNTS;
            until_ms = now_ms() + NODE_WAIT_MS;
            pause_ms(worker->options.pause_ms);
        } else if (node_away(worker, result) && now_ms() < until_ms) {
            worker->refused++; // a line that a dead node was writing
            result = SHELF_OK;
        } else if (result == SHELF_INVALID) {
            atomic_store(&worker->broken, true);
        }
    }
    return result;
}

static int read_life(struct worker *worker) {
    shelf_result result = store_open(worker);
    if (result == SHELF_OK) {
        result = reader_run(worker);
        if (result != SHELF_OK) {
            fprintf(stderr, "worker: reading: %s: %s\n", shelf_result_name(result), shelf_detail());
        }
    }
    if (worker->bank.s != NULL) {
        (void)store_close(worker);
    }
    return atomic_load(&worker->broken) ? EXIT_BROKEN_PROMISE : (int)result;
}

static int work(struct worker *worker) {
    if (worker->options.read) {
        return read_life(worker);
    }
    if (worker->options.run) {
        return life(worker, true);
    }
    int code = life(worker, worker->options.transfers > 0);
    return code == 0 && worker->options.transfers > 0 ? life(worker, false) : code;
}

// ---- Start ------------------------------------------------------------------------------------------------

static bool number_parse(const char *value, uint64_t *ret_number) {
    char *end = NULL;
    *ret_number = strtoull(value, &end, 10);
    return *value >= '0' && *value <= '9' && *end == 0;
}

static bool backend_parse(const char *value, shelf_backend *ret_backend) {
    static const char *const names[] = {"auto", "uring", "plain"};
    for (unsigned i = 0; i < 3; i++) {
        if (strcmp(value, names[i]) == 0) {
            *ret_backend = (shelf_backend)i;
            return true;
        }
    }
    return false;
}

static bool where_parse(struct options *options, const char *name, const char *value) {
    char *where = NULL;
    options->shared = strcmp(name, "--where") == 0;
    free(options->where);
    options->where = asprintf(&where, options->shared ? "%s" : "dir:%s", value) >= 0 ? where : NULL;
    return options->where != NULL;
}

static bool option_parse(struct options *options, const char *name, const char *value) {
    uint64_t tellers = 0;
    if (strcmp(name, "--dir") == 0 || strcmp(name, "--where") == 0) {
        return where_parse(options, name, value);
    }
    if (strcmp(name, "--marks") == 0 && options->marks_count < MARKS_MAX) {
        options->marks[options->marks_count++] = value;
        return true;
    }
    if (strcmp(name, "--mirror") == 0) {
        options->mirror = value;
        return true;
    }
    if (strcmp(name, "--backend") == 0) {
        return backend_parse(value, &options->backend);
    }
    if (strcmp(name, "--tellers") == 0) {
        bool good = number_parse(value, &tellers) && tellers > 0 && tellers <= BOOK_TELLERS_MAX;
        options->tellers = (unsigned)tellers;
        return good;
    }
    struct {
        const char *name;
        uint64_t *number;
    } numbers[] = {
        {"--transfers", &options->transfers},
        {"--seconds", &options->seconds},
        {"--checkpoint-bytes", &options->checkpoint_bytes},
        {"--checkpoint-every", &options->checkpoint_every},
        {"--regions-every", &options->regions_every},
        {"--hoard", &options->hoard},
        {"--space-wait-ms", &options->space_wait_ms},
        {"--deadline-ms", &options->deadline_ms},
        {"--pause-ms", &options->pause_ms},
        {"--wait-ms", &options->wait_ms},
        {"--first", &options->first},
        {"--gone", &options->gone},
        {"--reads", &options->reads},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            return number_parse(value, numbers[i].number);
        }
    }
    return false;
}

static bool options_parse(struct options *options, int argc, char **argv) {
    *options = (struct options){.tellers = 1};
    options->run = argc > 1 && strcmp(argv[1], "run") == 0;
    options->read = argc > 1 && strcmp(argv[1], "read") == 0;
    if (argc < 2 || (!options->run && !options->read && strcmp(argv[1], "check") != 0)) {
        return false;
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--leave") == 0) {
            options->leave = true;
        } else if (strcmp(argv[i], "--resend") == 0) {
            options->resend = true;
        } else if (i + 1 == argc || !option_parse(options, argv[i], argv[i + 1])) {
            fprintf(stderr, "worker: what is %s?\n", argv[i]);
            return false;
        } else {
            i++;
        }
    }
    return options->where != NULL && (options->read || options->marks_count > 0) &&
           (!options->run || options->marks_count == 1) &&
           options->first + options->tellers <= BOOK_TELLERS_MAX;
}

static void summary_print(const struct worker *worker, int code) {
    printf("{\"code\": %d, \"acked\": %" PRIuFAST64 ", \"checkpoints\": %" PRIuFAST64
           ", \"waits\": %" PRIuFAST64 ", \"records\": %" PRIu64 ", \"checkpoint\": %" PRIu64
           ", \"recovered_records\": %" PRIu64 ", \"recovered_cut_bytes\": %" PRIu64
           ", \"unknown\": %" PRIuFAST64 ", \"replayed\": %" PRIuFAST64 ", \"away\": %" PRIuFAST64
           ", \"reads\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"reconnects\": %" PRIu64
           ", \"takeovers\": %" PRIu64 ", \"backend\": \"%s\"}\n",
           code, atomic_load(&worker->acked), atomic_load(&worker->checkpoints), atomic_load(&worker->waits),
           worker->info.records, worker->info.checkpoint, worker->recovered_records,
           worker->recovered_cut_bytes, atomic_load(&worker->unknown), atomic_load(&worker->replayed),
           atomic_load(&worker->away), worker->reads, worker->refused, worker->stats.reconnects,
           worker->stats.takeovers, worker->info.backend == SHELF_BACKEND_URING ? "uring" : "plain");
}

int main(int argc, char **argv) {
    static struct worker worker;
    if (!options_parse(&worker.options, argc, argv)) {
        fprintf(stderr, "usage: worker run|check|read --dir DIR|--where WHERE --marks FILE [OPTION "
                        "VALUE...]; see the head of worker.c\n");
        return EXIT_USAGE;
    }
    const struct options *options = &worker.options;
    struct sigaction end = {.sa_handler = on_sigterm};
    sigaction(SIGTERM, &end, NULL);
    book_init(&worker.book);
    bool good = true;
    for (unsigned i = 0; good && i < options->marks_count; i++) {
        good = book_load(&worker.book, options->marks[i]);
    }
    good = good && (!options->run || book_mark_to(&worker.book, options->marks[0])) &&
           (options->mirror == NULL || book_mark_to(&worker.book, options->mirror));
    int code = good ? work(&worker) : 70;
    summary_print(&worker, code);
    book_end(&worker.book);
    free(worker.options.where);
    return code;
}
