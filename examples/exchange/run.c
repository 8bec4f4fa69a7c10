// SPDX-License-Identifier: Apache-2.0
/*
 * run.c: `exchange run`: works through an input, durably, from wherever the last run got to.
 *
 * There is no start-up case and no recovery case. The position in the input is part of the state, it changes in the same
 * transactions as everything else, and so the first event to work on is always the one at the stored position: after
 * a finished run, after a kill -9 in mid-commit, or after a commit whose outcome the dead process never learned.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "input.h"
#include "life.h"
#include "options.h"
#include "report.h"
#include "settle.h"
#include "trades.h"
#include "try.h"

struct run {
    const struct options *options;
    struct input input;
    struct store store;
    shelf_session *session; /* the engine's: there is one at a time */
    struct state state;     /* as of the last commit; at the end: what the summary reports */
    uint64_t position;      /* durable */
    uint64_t resumed_at;    /* the position that this run began with */
    uint64_t conflicts;
    uint64_t growths; /* times that the region was made larger */
    uint64_t began_ns, ended_ns;
    uint64_t matching_ns; /* in the engine, without commits */
    struct latencies commits;
    struct life life;
};

/* ---- Events ---- */

static shelf_result events_apply(struct run *run, shelf_tx *tx, size_t count, struct turn *turn) {
    TRY(turn_begin(turn, &run->store, tx));
    for (size_t i = 0; i < count; i++)
        TRY(turn_apply(turn, &run->input.events[run->position + i]));
    return turn_end(turn);
}

/* One attempt: begin, apply, commit. `ret_full` tells a full region, which can be helped, from a full disk. */
static shelf_result events_try(struct run *run, size_t count, bool *ret_full) {
    struct turn turn;
    shelf_tx *tx;
    uint64_t began_ns = clock_ns();

    *ret_full = false;
    TRY(shelf_session_begin(run->session, SHELF_READ_WRITE, &tx));
    shelf_result result = events_apply(run, tx, count, &turn);
    if (result != SHELF_OK) {
        *ret_full = result == SHELF_NO_SPACE;
        shelf_abort(tx);
        return result;
    }
    if (run->options->kill_after && run->position + count >= run->resumed_at + run->options->kill_after)
        life_kill_soon(&run->life);

    uint64_t applied_ns = clock_ns();
    TRY(commit_settled(run->session, tx)); /* here it becomes durable */
    uint64_t committed_ns = clock_ns();
    run->matching_ns += applied_ns - began_ns;
    latencies_add(&run->commits, committed_ns - applied_ns);
    run->state = turn.state;
    return SHELF_OK;
}

/* Works on the next `count` events in one transaction. */
static shelf_result events_run(struct run *run, size_t count) {
    for (;;) {
        bool full;
        shelf_result result = events_try(run, count, &full);
        if (full) {
            TRY(store_grow(&run->store));
            run->growths++;
        } else if (result == SHELF_CONFLICT) {
            run->conflicts++; /* somebody else changed what we read: do it again on what is there now */
        } else {
            return result;
        }
    }
}

static void progress_print(const struct run *run, uint64_t *next_ns, bool last) {
    char done[NUMBER_TEXT_MAX], all[NUMBER_TEXT_MAX];
    uint64_t now_ns = clock_ns();
    if (last && *next_ns != run->began_ns)
        fputs("\r\033[K", stderr);
    if (last || now_ns < *next_ns)
        return;
    *next_ns = now_ns + 200000000;
    fprintf(stderr, "\r\033[K  %s of %s events", number_text(run->position, done),
            number_text(run->input.count, all));
}

static shelf_result input_run(struct run *run) {
    bool progress = !run->options->json && isatty(STDERR_FILENO);
    shelf_result result = SHELF_OK;

    run->began_ns = clock_ns();
    uint64_t progress_ns = run->began_ns;
    while (run->position < run->input.count && !stop_wanted) {
        size_t left = run->input.count - run->position;
        size_t count = left < run->options->batch ? left : run->options->batch;
        result = events_run(run, count);
        if (result != SHELF_OK)
            break;
        run->position += count;
        life_promise(&run->life, run->position);
        if (progress)
            progress_print(run, &progress_ns, false);
    }
    run->ended_ns = clock_ns();
    if (progress)
        progress_print(run, &progress_ns, true);
    life_end(&run->life);
    return result;
}

/* ---- The summary ---- */

static double run_seconds(const struct run *run) {
    return (double)(run->ended_ns - run->began_ns) / 1e9;
}

static double run_rate(const struct run *run) {
    double seconds = run_seconds(run);
    return seconds > 0 ? (double)(run->position - run->resumed_at) / seconds : 0;
}

static double run_matching_us(const struct run *run) {
    uint64_t events = run->position - run->resumed_at;
    return events ? (double)run->matching_ns / 1e3 / (double)events : 0;
}

static void summary_json(const struct run *run, const char *sha256) {
    const struct tally *tally = &run->state.tally;
    json_t *json = json_pack(
        "{s:I, s:I, s:I, s:I, s:b, s:f, s:f, s:{s:f, s:f, s:f}, s:f, s:I, s:s, s:I}", "events",
        (json_int_t)(run->position - run->resumed_at), "resumed_at", (json_int_t)run->resumed_at, "position",
        (json_int_t)run->position, "input_events", (json_int_t)run->input.count, "complete",
        run->position >= run->input.count, "seconds", run_seconds(run), "events_per_s", run_rate(run),
        "commit_us", "p50", latencies_us(&run->commits, 50), "p99", latencies_us(&run->commits, 99), "max",
        latencies_us(&run->commits, 100), "matching_us", run_matching_us(run), "trades",
        (json_int_t)tally->trades, "trades_sha256", sha256, "batch", (json_int_t)run->options->batch);
    json_t *counts =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "created", (json_int_t)tally->created,
                  "changed", (json_int_t)tally->changed, "cancelled", (json_int_t)tally->cancelled,
                  "filled_elsewhere", (json_int_t)tally->filled_elsewhere, "already_filled",
                  (json_int_t)tally->already_filled, "unknown", (json_int_t)tally->unknown, "duplicate",
                  (json_int_t)tally->duplicate, "resting", (json_int_t)tally->resting);
    json_t *recovery = json_pack("{s:I, s:I}", "records", (json_int_t)run->store.recovered.recovered_records,
                                 "cut_bytes", (json_int_t)run->store.recovered.recovered_cut_bytes);
    json_object_set_new(json, "tally", counts);
    json_object_set_new(json, "recovery", recovery);
    json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
}

static void summary_print(const struct run *run, const char *sha256) {
    const struct colours c = colours_for(stdout);
    const struct tally *t = &run->state.tally;
    char input[ORIGIN_TEXT_MAX], a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX], d[NUMBER_TEXT_MAX];

    origin_text(&run->input.origin, input);
    printf("%sinput%s     %s\n", c.dim, c.off, input);
    if (run->resumed_at > 0)
        printf("%sresumed%s   at event %s; %s log records replayed\n", c.dim, c.off,
               number_text(run->resumed_at, a), number_text(run->store.recovered.recovered_records, b));
    printf("%sevents%s    %s in %.2f s = %s%s a second%s, %s\n", c.dim, c.off,
           number_text(run->position - run->resumed_at, a), run_seconds(run), c.bold,
           number_text((uint64_t)run_rate(run), b), c.off,
           run->options->batch == 1 ? "one durable transaction each" : "in batches");
    printf("%scommit%s    50%% within %.0f us, 99%% within %.0f us, slowest %.0f us; matching %.1f us an "
           "event\n",
           c.dim, c.off, latencies_us(&run->commits, 50), latencies_us(&run->commits, 99),
           latencies_us(&run->commits, 100), run_matching_us(run));
    printf("%sposition%s  %s of %s%s\n", c.dim, c.off, number_text(run->position, a),
           number_text(run->input.count, b),
           run->position < run->input.count ? ", the same command goes on" : "");
    printf("%sorders%s    %s created, %s cancelled, %s resting;", c.dim, c.off, number_text(t->created, a),
           number_text(t->cancelled, b), number_text(t->resting, d));
    printf(" deleted when already filled: %s, filled elsewhere: %s\n", number_text(t->already_filled, a),
           number_text(t->filled_elsewhere, b));
    printf("%signored%s   %s changes, %s unknown orders, %s duplicates\n", c.dim, c.off,
           number_text(t->changed, a), number_text(t->unknown, b), number_text(t->duplicate, d));
    printf("%strades%s    %s, sha256 %s\n", c.dim, c.off, number_text(t->trades, a), sha256);
    if (run->growths)
        printf("%sregion%s    full and made larger: %s\n", c.dim, c.off,
               run->growths == 1 ? "once" : number_text(run->growths, a));
}

static int run_report(struct run *run) {
    char sha256[65];
    latencies_sort(&run->commits);
    shelf_result result = trades_digest(&run->store, sha256);
    if (result != SHELF_OK)
        return shelf_failed("reading the trades", result);
    if (run->options->json)
        summary_json(run, sha256);
    else
        summary_print(run, sha256);
    if (run->options->kill_after && !run->life.killing)
        fputs("exchange: the input ended before --kill-after was reached; nothing was killed\n", stderr);
    return EXIT_CODE_OK;
}

/* ---- The command ---- */

static bool input_take(struct run *run) {
    const struct options *options = run->options;
    char error[INPUT_ERROR_MAX];
    bool good = options->generate ? input_generate(options->seed, options->generate_count, &run->input, error)
                                  : input_load(options->input, &run->input, error);
    if (!good)
        fprintf(stderr, "exchange: %s\n", error);
    return good;
}

static int origin_check(const struct run *run) {
    char here[ORIGIN_TEXT_MAX], given[ORIGIN_TEXT_MAX];
    if (origin_equal(&run->state.origin, &run->input.origin))
        return EXIT_CODE_OK;
    origin_text(&run->state.origin, here);
    origin_text(&run->input.origin, given);
    fprintf(stderr,
            "exchange: %s is at event %" PRIu64
            " of another input, %s; it cannot go on with %s. Give it that input, or "
            "start this one in another directory.\n",
            run->options->where, run->state.position, here, given);
    return EXIT_CODE_INPUT;
}

static int store_run(struct run *run) {
    shelf_result result = store_state(&run->store, &run->state);
    if (result != SHELF_OK)
        return shelf_failed("reading the state", result);
    int code = origin_check(run);
    if (code != EXIT_CODE_OK)
        return code;

    /* With the session in hand nobody else moves the position any more, so now it is worth looking at. */
    result = shelf_session_open(run->store.s, SESSION_ENGINE, &run->session);
    if (result == SHELF_OK)
        result = store_state(&run->store, &run->state);
    if (result != SHELF_OK)
        return shelf_failed("taking the engine's place", result);
    run->position = run->resumed_at = run->state.position;
    life_promise(&run->life, run->position);
    result = input_run(run);
    if (result != SHELF_OK) {
        char doing[128];
        snprintf(doing, sizeof(doing),
                 "event %" PRIu64 " (all before it are durable, the same command goes on there)",
                 run->position + 1);
        return shelf_failed(doing, result);
    }
    return run_report(run);
}

int command_run(const struct options *options) {
    struct run run = {.options = options};
    int code = EXIT_CODE_INPUT;

    if (!life_begin(&run.life, options->acks))
        return EXIT_CODE_USAGE;
    if (!input_take(&run))
        goto out_life;

    shelf_result result = store_open(options->where, &run.input.origin, &run.store);
    if (result != SHELF_OK) {
        code = shelf_failed(options->where, result);
        goto out_input;
    }
    /* Ctrl-C ends the run after the transaction under way; anything harder is fine as well. */
    life_stoppable();
    code = store_run(&run);
    shelf_session_close(run.session);
    result = store_close(&run.store);
    if (result != SHELF_OK && code == EXIT_CODE_OK)
        code = shelf_failed("closing", result);

out_input:
    latencies_free(&run.commits);
    input_free(&run.input);
out_life:
    life_end(&run.life);
    return code;
}
