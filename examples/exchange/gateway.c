// SPDX-License-Identifier: Apache-2.0
/*
 * gateway.c: `exchange gateway`: submits its part of an input, one of several processes that do so at once.
 *
 * Where to go on after any kind of end is not written down anywhere: a gateway has submitted as many events as its inbox
 * holds. The session adds two things. The outcome of a commit is learned even if the node died in the middle of it; and if the
 * same gateway is started twice, the younger process fences the older one, which is told so at its next commit.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "input.h"
#include "life.h"
#include "options.h"
#include "report.h"
#include "settle.h"
#include "store.h"
#include "try.h"

struct gateway_run {
    const struct options *options;
    struct input input; /* only what is on our lane */
    struct store store;
    struct gateway gateway;
    shelf_session *session;
    uint64_t position;   /* events submitted, durably */
    uint64_t resumed_at; /* the position that this run began with */
    uint64_t conflicts;
    uint64_t began_ns, ended_ns;
    struct latencies commits;
    struct life life;
};

/* ---- Submitting ---- */

/* One attempt. `ret_full` tells a full region, which can be helped, from a full disk. */
static shelf_result events_try(struct gateway_run *run, size_t count, bool *ret_full) {
    shelf_tx *tx;
    *ret_full = false;
    TRY(shelf_session_begin(run->session, SHELF_READ_WRITE, &tx));
    shelf_result result = inbox_append(tx, &run->store.inbox, &run->gateway, run->position,
                                       &run->input.events[run->position], count);
    if (result != SHELF_OK) {
        *ret_full = result == SHELF_NO_SPACE;
        shelf_abort(tx);
        return result;
    }
    if (run->options->kill_after && run->position + count >= run->resumed_at + run->options->kill_after)
        life_kill_soon(&run->life);

    uint64_t began_ns = clock_ns();
    TRY(commit_settled(run->session, tx)); /* here it becomes durable */
    latencies_add(&run->commits, clock_ns() - began_ns);
    return SHELF_OK;
}

static shelf_result events_submit(struct gateway_run *run, size_t count) {
    for (;;) {
        bool full;
        shelf_result result = events_try(run, count, &full);
        if (full)
            TRY(inbox_grow(&run->store.inbox));
        else if (result == SHELF_CONFLICT)
            run->conflicts++; /* another gateway allocated where we did: once more */
        else if (result == SHELF_UNAVAILABLE)
            TRY(node_await(run->store.s));
        else
            return result;
    }
}

/* With a rate, each event has its time; waiting for that of the next one makes up for a commit that took long. */
static void pace(const struct gateway_run *run) {
    uint64_t done = run->position - run->resumed_at;
    if (run->options->rate == 0)
        return;
    uint64_t at_ns = run->began_ns + (uint64_t)((double)done * 1e9 / (double)run->options->rate);
    struct timespec at = {.tv_sec = (time_t)(at_ns / 1000000000), .tv_nsec = (long)(at_ns % 1000000000)};
    while (!stop_wanted && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) != 0)
        continue;
}

static shelf_result input_submit(struct gateway_run *run) {
    shelf_result result = SHELF_OK;
    run->began_ns = clock_ns();
    while (run->position < run->input.count && !stop_wanted) {
        size_t left = run->input.count - run->position;
        size_t count = left < run->options->batch ? left : run->options->batch;
        result = events_submit(run, count);
        if (result != SHELF_OK)
            break;
        run->position += count;
        life_promise(&run->life, run->position);
        pace(run);
    }
    run->ended_ns = clock_ns();
    life_end(&run->life);
    return result;
}

/* ---- The summary ---- */

static double run_rate(const struct gateway_run *run) {
    double seconds = (double)(run->ended_ns - run->began_ns) / 1e9;
    return seconds > 0 ? (double)(run->position - run->resumed_at) / seconds : 0;
}

static void summary_json(const struct gateway_run *run, const struct shelf_stats *stats) {
    json_t *json = json_pack(
        "{s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:b, s:f, s:f, s:{s:f, s:f, s:f}, s:I, s:b, s:I, s:I}", "name",
        run->gateway.name, "lane", (int)run->gateway.lane, "lanes", (int)run->gateway.lanes, "events",
        (json_int_t)(run->position - run->resumed_at), "resumed_at", (json_int_t)run->resumed_at, "position",
        (json_int_t)run->position, "input_events", (json_int_t)run->input.count, "complete",
        run->position >= run->input.count, "seconds", (double)(run->ended_ns - run->began_ns) / 1e9,
        "events_per_s", run_rate(run), "commit_us", "p50", latencies_us(&run->commits, 50), "p99",
        latencies_us(&run->commits, 99), "max", latencies_us(&run->commits, 100), "conflicts",
        (json_int_t)run->conflicts, "is_node", stats->is_node, "takeovers", (json_int_t)stats->takeovers,
        "reconnects", (json_int_t)stats->reconnects);
    json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
}

static void summary_print(const struct gateway_run *run, const struct shelf_stats *stats) {
    const struct colours c = colours_for(stdout);
    char input[ORIGIN_TEXT_MAX], a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX];

    origin_text(&run->input.origin, input);
    printf("%sgateway%s   %s%s%s, lane %" PRIu32 " of %" PRIu32 " of %s\n", c.dim, c.off, c.bold,
           run->gateway.name, c.off, run->gateway.lane, run->gateway.lanes, input);
    if (run->resumed_at > 0)
        printf("%sresumed%s   at event %s\n", c.dim, c.off, number_text(run->resumed_at, a));
    printf("%ssubmitted%s %s, %s%s a second%s; commits: 50%% within %.0f us, 99%% within %.0f us\n", c.dim,
           c.off, number_text(run->position - run->resumed_at, a), c.bold,
           number_text((uint64_t)run_rate(run), b), c.off, latencies_us(&run->commits, 50),
           latencies_us(&run->commits, 99));
    printf("%sposition%s  %s of %s%s\n", c.dim, c.off, number_text(run->position, a),
           number_text(run->input.count, b),
           run->position < run->input.count ? ", the same command goes on" : "");
    if (stats->takeovers)
        puts("The node ended meanwhile; this process took its place.");
    else if (stats->reconnects)
        puts("The node ended meanwhile; another process took its place.");
}

static int run_report(struct gateway_run *run) {
    struct shelf_stats stats;
    shelf_result result = shelf_stats_get(run->store.s, &stats);
    if (result != SHELF_OK)
        return shelf_failed("asking for statistics", result);
    latencies_sort(&run->commits);
    if (run->options->json)
        summary_json(run, &stats);
    else
        summary_print(run, &stats);
    return EXIT_CODE_OK;
}

/* ---- The command ---- */

static bool input_take(struct gateway_run *run) {
    const struct options *options = run->options;
    char error[INPUT_ERROR_MAX];
    bool good = options->generate ? input_generate(options->seed, options->generate_count, &run->input, error)
                                  : input_load(options->input, &run->input, error);
    if (good)
        input_keep_lane(&run->input, options->lane, options->lanes);
    else
        fprintf(stderr, "exchange: %s\n", error);
    return good;
}

static int input_refuse(const struct gateway_run *run) {
    char before[ORIGIN_TEXT_MAX], given[ORIGIN_TEXT_MAX];
    origin_text(&run->gateway.origin, before);
    origin_text(&run->input.origin, given);
    fprintf(stderr,
            "exchange: gateway %s submits lane %" PRIu32 " of %" PRIu32 " of %s; it cannot go on with lane "
            "%" PRIu32 " of %" PRIu32 " of %s. Give it that input, or another name.\n",
            run->gateway.name, run->gateway.lane, run->gateway.lanes, before, run->options->lane,
            run->options->lanes, given);
    return EXIT_CODE_INPUT;
}

/* Finds or takes our place among the gateways, and where we are. */
static int gateway_begin(struct gateway_run *run) {
    char session[SHELF_NAME_MAX + 1];
    struct gateway *gateway = &run->gateway;

    *gateway = (struct gateway){
        .lane = run->options->lane, .lanes = run->options->lanes, .origin = run->input.origin};
    strncpy(gateway->name, run->options->name, GATEWAY_NAME_MAX);
    shelf_result result = inbox_join(&run->store.inbox, gateway);
    if (result != SHELF_OK)
        return shelf_failed(result == SHELF_TOO_LARGE ? "one gateway more than there can be" : "joining",
                            result);
    if (!origin_equal(&gateway->origin, &run->input.origin) || gateway->lane != run->options->lane ||
        gateway->lanes != run->options->lanes)
        return input_refuse(run);

    /* The session first: from then on nobody else appends to our inbox, and its length can be relied on. */
    snprintf(session, sizeof(session), "gateway.%s", gateway->name);
    result = shelf_session_open(run->store.s, session, &run->session);
    if (result == SHELF_OK)
        result = inbox_count(&run->store.inbox, gateway, &run->position);
    if (result != SHELF_OK)
        return shelf_failed("taking the gateway's place", result);
    run->resumed_at = run->position;
    return EXIT_CODE_OK;
}

static int gateway_work(struct gateway_run *run) {
    if (!run->store.has_gateways)
        return gateways_missing(run->options->where);
    int code = gateway_begin(run);
    if (code != EXIT_CODE_OK)
        return code;
    life_promise(&run->life, run->position);
    shelf_result result = input_submit(run);
    if (result != SHELF_OK) {
        char doing[128];
        snprintf(doing, sizeof(doing),
                 "submitting event %" PRIu64 " (all before it are durable, the same command goes on there)",
                 run->position + 1);
        return shelf_failed(doing, result);
    }
    return run_report(run);
}

int command_gateway(const struct options *options) {
    const struct origin origin = {.kind = ORIGIN_GATEWAYS};
    struct gateway_run run = {.options = options};
    int code = EXIT_CODE_INPUT;

    if (!life_begin(&run.life, options->acks))
        return EXIT_CODE_USAGE;
    if (!input_take(&run))
        goto out_life;
    shelf_result result = store_open(options->where, &origin, &run.store);
    if (result != SHELF_OK) {
        code = shelf_failed(options->where, result);
        goto out_input;
    }
    life_stoppable();
    code = gateway_work(&run);
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
