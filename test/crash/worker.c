// SPDX-License-Identifier: Apache-2.0
//
// worker: the program that is killed, loses its power or its disk space, and the checker of what it left.
//
//   worker run   --dir DIR --marks FILE [--mirror FILE] [--tellers N] [--transfers N] [--seconds N] [--backend B]
//                [--checkpoint-bytes N] [--checkpoint-every N] [--regions-every N] [--hoard N] [--space-wait-ms N]
//                [--leave]
//   worker check --dir DIR --marks FILE [--tellers N] [--transfers N] [--backend B]
//
// run: opens the shelf (making it if it was never there), compares it with what the marks of earlier runs promise, and
// goes on with the bank (bank.h): N transfers for each teller (0: until it is killed), each teller in a thread of its
// own. --mirror: lines are appended to that file too. --checkpoint-every, --regions-every: the first teller writes a
// checkpoint, or does the next step with a scratch region, after that many of its transfers. --hoard: in the meantime one
// more thread appends to the hoard until it has N records, and the run ends when it has. --space-wait-ms: how long to wait
// for space on a full disk. --leave: ends without a checkpoint.
//
// check: the same, but the lines of the marks file are only read; with --transfers it goes on with so many transfers,
// closes, opens and compares again. (The marks do not know of these: it must be the last that is done with the store.)
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
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EXIT_BROKEN_PROMISE 64
#define EXIT_USAGE          65
#define TRIES_AFTER_STOP    3u
#define SCRATCH_SIZE        65536u

struct options {
    bool run, leave;
    char *where; // owned
    const char *marks, *mirror;
    unsigned tellers;
    uint64_t transfers, seconds, checkpoint_bytes, checkpoint_every, regions_every, hoard, space_wait_ms;
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
    struct shelf_info info;                         // at the end
    uint64_t recovered_records, recovered_cut_bytes;
};

struct teller {
    struct worker *worker;
    unsigned number;
    pthread_t thread;
};

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
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
    struct timespec pause = {.tv_nsec =
                                 5000000}; // between tries: we wait for the disk, which has no condition
    nanosleep(&pause, NULL);
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
    shelf_result result = shelf_session_outcome(worker->bank.sessions[t], *sequence, &receipt);
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
        if (receipt.replayed || receipt.sequence != *sequence || receipt.durability != SHELF_DURABLE_LOCAL) {
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
           !atomic_load(&worker->ended);
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
    int64_t deadline_ms = start_ms + (int64_t)options->space_wait_ms;
    while (go_on(worker) && (options->transfers == 0 || done < options->transfers)) {
        enum verdict verdict = transfer(worker, teller->number, n, &sequence, deadline_ms);
        if (verdict == GO_ON) {
            n++;
            sequence++;
            done++;
            deadline_ms = now_ms() + (int64_t)options->space_wait_ms;
            if (teller->number == 0) {
                duties(worker, done);
            }
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
        tellers[t] = (struct teller){.worker = worker, .number = t};
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

// Opens the shelf, which must work whatever happened before. With no earlier "open" it need not exist.
static shelf_result store_open(struct worker *worker) {
    const struct options *options = &worker->options;
    struct shelf_options open = {
        .flags = (options->leave || !options->run ? SHELF_OPEN_NO_CHECKPOINT : 0u) |
                 (worker->book.open ? 0u : (unsigned)SHELF_OPEN_CREATE),
        .backend = options->backend,
        .log_bytes_max = (uint64_t)128 << 20,
        .checkpoint_log_bytes = options->checkpoint_bytes,
    };
    shelf_result result = shelf_open(options->where, &open, &worker->bank.s);
    if (result != SHELF_OK) {
        fprintf(stderr, "worker: cannot open %s: %s: %s\n", options->where, shelf_result_name(result),
                shelf_detail());
        return result;
    }
    book_note(&worker->book, "open");
    worker->bank.book = &worker->book;
    worker->bank.tellers = options->tellers;
    if (shelf_info_get(worker->bank.s, &worker->info) == SHELF_OK) {
        worker->recovered_records = worker->info.recovered_records;
        worker->recovered_cut_bytes = worker->info.recovered_cut_bytes;
    }
    worker->hoard = (struct hoard){.s = worker->bank.s, .book = &worker->book};
    result = hoard_open(&worker->hoard, false);
    return result == SHELF_OK ? bank_open(&worker->bank, false) : result;
}

// Compares the store with the book, and if there is to be more, makes what is missing.
static shelf_result store_check(struct worker *worker, bool more) {
    bool good = bank_check(&worker->bank) && hoard_check(&worker->hoard);
    if (good && more && !worker->bank.ready) {
        shelf_result result = bank_open(&worker->bank, true);
        if (result != SHELF_OK) {
            fprintf(stderr, "worker: cannot make the bank: %s: %s\n", shelf_result_name(result),
                    shelf_detail());
            return result;
        }
    }
    good = good && (!worker->bank.ready || bank_settle(&worker->bank));
    atomic_store(&worker->broken, !good && bank_check_refusal() == SHELF_OK);
    return good ? SHELF_OK : bank_check_refusal();
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

static int work(struct worker *worker) {
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

static bool option_parse(struct options *options, const char *name, const char *value) {
    uint64_t tellers = 0;
    if (strcmp(name, "--dir") == 0) {
        char *where = NULL;
        options->where = asprintf(&where, "dir:%s", value) >= 0 ? where : NULL;
        return options->where != NULL;
    }
    if (strcmp(name, "--marks") == 0) {
        options->marks = value;
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
    if (argc < 2 || (!options->run && strcmp(argv[1], "check") != 0)) {
        return false;
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--leave") == 0) {
            options->leave = true;
        } else if (i + 1 == argc || !option_parse(options, argv[i], argv[i + 1])) {
            fprintf(stderr, "worker: what is %s?\n", argv[i]);
            return false;
        } else {
            i++;
        }
    }
    return options->where != NULL && options->marks != NULL;
}

static void summary_print(const struct worker *worker, int code) {
    printf("{\"code\": %d, \"acked\": %" PRIuFAST64 ", \"checkpoints\": %" PRIuFAST64
           ", \"waits\": %" PRIuFAST64 ", \"records\": %" PRIu64 ", \"checkpoint\": %" PRIu64
           ", \"recovered_records\": %" PRIu64 ", \"recovered_cut_bytes\": %" PRIu64
           ", \"backend\": \"%s\"}\n",
           code, atomic_load(&worker->acked), atomic_load(&worker->checkpoints), atomic_load(&worker->waits),
           worker->info.records, worker->info.checkpoint, worker->recovered_records,
           worker->recovered_cut_bytes, worker->info.backend == SHELF_BACKEND_URING ? "uring" : "plain");
}

int main(int argc, char **argv) {
    static struct worker worker;
    if (!options_parse(&worker.options, argc, argv)) {
        fprintf(
            stderr,
            "usage: worker run|check --dir DIR --marks FILE [OPTION VALUE...]; see the head of worker.c\n");
        return EXIT_USAGE;
    }
    const struct options *options = &worker.options;
    book_init(&worker.book);
    bool good = book_load(&worker.book, options->marks) &&
                (!options->run || book_mark_to(&worker.book, options->marks)) &&
                (options->mirror == NULL || book_mark_to(&worker.book, options->mirror));
    int code = good ? work(&worker) : 70;
    summary_print(&worker, code);
    book_end(&worker.book);
    free(worker.options.where);
    return code;
}
