// SPDX-License-Identifier: Apache-2.0
/*
 * match.c: `exchange engine`: takes what the gateways submit, and matches it.
 *
 * A round takes what lies in the inboxes, applies it, and writes down what was taken, in one durable transaction. If there
 * is nothing the engine sleeps until a gateway rings the bell. A crash anywhere leaves a round done or not begun.
 *
 * There is one engine at a time: it holds a named session, and another one that takes it over fences the first, which is told
 * so at its next commit and ends. Nothing of that commit has happened.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "arrivals.h"
#include "engine.h"
#include "life.h"
#include "options.h"
#include "report.h"
#include "settle.h"
#include "trades.h"
#include "try.h"

#define SLEEP_MS 1000u /* of a sleeping engine, until it looks whether it is to stop */

struct engine {
    const struct options *options;
    struct store store;
    shelf_session *session;
    struct gateways gateways; /* as of the last round */
    struct taken taken;       /* durably */
    struct event *events;     /* room for one round */
    struct state state;       /* as of the last round that had any events */
    uint64_t resumed_at;
    uint64_t rounds, conflicts, sleeps;
    uint64_t working_ns; /* in rounds that had any events */
    struct latencies commits;
    struct life life;
};

static uint64_t engine_position(const struct engine *engine) {
    uint64_t position = 0;
    for (unsigned i = 0; i < GATEWAYS_MAX; i++)
        position += engine->taken.counts[i];
    return position;
}

/* ---- A round ---- */

/* Every gateway gets the same share of a round, and a round with few of them is short: nobody waits for the fastest. */
static shelf_result intake_gather(struct engine *engine, struct intake *ret_intake) {
    *ret_intake =
        (struct intake){.events = engine->events, .room = engine->options->batch, .before = engine->taken};
    TRY(inbox_gateways(&engine->store.inbox, &engine->gateways));
    uint32_t count = (uint32_t)engine->gateways.count;
    if (count == 0)
        return SHELF_OK;
    size_t share = ret_intake->room / count + (ret_intake->room < count);
    for (uint32_t i = 0; i < count; i++) /* another one begins each time */
        TRY(intake_add(ret_intake, &engine->store, &engine->gateways,
                       (uint32_t)((i + engine->rounds) % count), share));
    return SHELF_OK;
}

static shelf_result intake_apply(struct engine *engine, const struct intake *intake, shelf_tx *tx,
                                 struct turn *turn) {
    TRY(intake_record(tx, &engine->store, intake));
    TRY(turn_begin(turn, &engine->store, tx));
    for (size_t i = 0; i < intake->count; i++)
        TRY(turn_apply(turn, &intake->events[i]));
    return turn_end(turn);
}

/* One attempt. `ret_full` tells a full region, which can be helped, from a full disk. */
static shelf_result intake_try(struct engine *engine, const struct intake *intake, bool *ret_full) {
    struct turn turn;
    shelf_tx *tx;

    *ret_full = false;
    TRY(shelf_session_begin(engine->session, SHELF_READ_WRITE, &tx));
    shelf_result result = intake_apply(engine, intake, tx, &turn);
    if (result != SHELF_OK) {
        *ret_full = result == SHELF_NO_SPACE;
        shelf_abort(tx);
        return result;
    }
    uint64_t kill_after = engine->options->kill_after;
    if (kill_after && engine_position(engine) + intake->count >= engine->resumed_at + kill_after)
        life_kill_soon(&engine->life);

    uint64_t began_ns = clock_ns();
    TRY(commit_settled(engine->session, tx)); /* here it becomes durable */
    latencies_add(&engine->commits, clock_ns() - began_ns);
    for (size_t i = 0; i < intake->stretch_count; i++)
        engine->taken.counts[intake->stretches[i].gateway] += intake->stretches[i].count;
    engine->state = turn.state;
    return SHELF_OK;
}

static shelf_result intake_match(struct engine *engine, const struct intake *intake) {
    for (;;) {
        bool full;
        shelf_result result = intake_try(engine, intake, &full);
        if (full)
            TRY(store_grow(&engine->store));
        else if (result == SHELF_CONFLICT)
            engine->conflicts++;
        else
            return result;
    }
}

/* Works through what is there, or sleeps until there is something. */
static shelf_result engine_round(struct engine *engine) {
    uint64_t began_ns = clock_ns();
    uint64_t since = shelf_applied(engine->store.s); /* before the look: what comes after it ends the sleep */
    struct intake intake;

    TRY(intake_gather(engine, &intake));
    if (intake.count == 0) {
        engine->sleeps++;
        shelf_result result = inbox_wait(&engine->store.inbox, since, SLEEP_MS);
        return result == SHELF_TIMEOUT ? SHELF_OK : result;
    }
    TRY(intake_match(engine, &intake));
    engine->rounds++;
    engine->working_ns += clock_ns() - began_ns;
    life_promise(&engine->life, engine_position(engine));
    return SHELF_OK;
}

static bool engine_is_done(const struct engine *engine) {
    return stop_wanted || (engine->options->until && engine_position(engine) >= engine->options->until);
}

static shelf_result engine_run(struct engine *engine) {
    shelf_result result = SHELF_OK;
    while (result == SHELF_OK && !engine_is_done(engine)) {
        result = engine_round(engine);
        if (result == SHELF_UNAVAILABLE)
            result = node_await(engine->store.s);
    }
    life_end(&engine->life);
    return result;
}

/* ---- The summary ---- */

static double engine_rate(const struct engine *engine) {
    uint64_t events = engine_position(engine) - engine->resumed_at;
    return engine->working_ns ? (double)events * 1e9 / (double)engine->working_ns : 0;
}

static json_t *gateways_json(const struct engine *engine) {
    json_t *list = json_array();
    for (size_t i = 0; i < engine->gateways.count; i++)
        json_array_append_new(list, json_pack("{s:s, s:I}", "name", engine->gateways.list[i].name, "taken",
                                              (json_int_t)engine->taken.counts[i]));
    return list;
}

static void summary_json(const struct engine *engine, const struct shelf_stats *stats, const char *sha256) {
    json_t *json =
        json_pack("{s:I, s:I, s:I, s:f, s:I, s:I, s:I, s:{s:f, s:f, s:f}, s:I, s:s, s:o, s:b, s:I, s:I}",
                  "events", (json_int_t)(engine_position(engine) - engine->resumed_at), "resumed_at",
                  (json_int_t)engine->resumed_at, "position", (json_int_t)engine_position(engine),
                  "events_per_s", engine_rate(engine), "rounds", (json_int_t)engine->rounds, "sleeps",
                  (json_int_t)engine->sleeps, "conflicts", (json_int_t)engine->conflicts, "commit_us", "p50",
                  latencies_us(&engine->commits, 50), "p99", latencies_us(&engine->commits, 99), "max",
                  latencies_us(&engine->commits, 100), "trades", (json_int_t)engine->state.tally.trades,
                  "trades_sha256", sha256, "gateways", gateways_json(engine), "is_node", stats->is_node,
                  "takeovers", (json_int_t)stats->takeovers, "reconnects", (json_int_t)stats->reconnects);
    json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(json);
}

static void summary_print(const struct engine *engine, const char *sha256) {
    const struct colours c = colours_for(stdout);
    char a[NUMBER_TEXT_MAX], b[NUMBER_TEXT_MAX];

    if (engine->resumed_at > 0)
        printf("%sresumed%s   at event %s\n", c.dim, c.off, number_text(engine->resumed_at, a));
    printf("%sevents%s    %s in %s durable transactions; ", c.dim, c.off,
           number_text(engine_position(engine) - engine->resumed_at, a), number_text(engine->rounds, b));
    printf("%s%s a second%s while there were any\n", c.bold, number_text((uint64_t)engine_rate(engine), a),
           c.off);
    printf("%scommit%s    50%% within %.0f us, 99%% within %.0f us, slowest %.0f us\n", c.dim, c.off,
           latencies_us(&engine->commits, 50), latencies_us(&engine->commits, 99),
           latencies_us(&engine->commits, 100));
    for (size_t i = 0; i < engine->gateways.count; i++)
        printf("%sgateway%s   %s: %s\n", c.dim, c.off, engine->gateways.list[i].name,
               number_text(engine->taken.counts[i], a));
    printf("%strades%s    %s, sha256 %s\n", c.dim, c.off, number_text(engine->state.tally.trades, a), sha256);
}

static int engine_report(struct engine *engine) {
    struct shelf_stats stats;
    char sha256[65];
    shelf_result result = shelf_stats_get(engine->store.s, &stats);
    if (result == SHELF_OK)
        result = trades_digest(&engine->store, sha256);
    if (result != SHELF_OK)
        return shelf_failed("reading the trades", result);
    latencies_sort(&engine->commits);
    if (engine->options->json)
        summary_json(engine, &stats, sha256);
    else
        summary_print(engine, sha256);
    return EXIT_CODE_OK;
}

/* ---- The command ---- */

static int engine_work(struct engine *engine) {
    if (!engine->store.has_gateways)
        return gateways_missing(engine->options->where);
    /* The session first: from then on nobody else takes anything, and what has been taken can be relied on. */
    shelf_result result = shelf_session_open(engine->store.s, SESSION_ENGINE, &engine->session);
    if (result == SHELF_OK)
        result = taken_get(&engine->store, &engine->taken);
    if (result == SHELF_OK)
        result = store_state(&engine->store, &engine->state);
    if (result != SHELF_OK)
        return shelf_failed("taking the engine's place", result);

    engine->resumed_at = engine_position(engine);
    life_promise(&engine->life, engine->resumed_at);
    result = engine_run(engine);
    if (result != SHELF_OK) {
        char doing[128];
        snprintf(doing, sizeof(doing), "after event %" PRIu64 " (the next engine goes on there)",
                 engine_position(engine));
        return shelf_failed(doing, result);
    }
    return engine_report(engine);
}

int command_engine(const struct options *options) {
    const struct origin origin = {.kind = ORIGIN_GATEWAYS};
    struct engine engine = {.options = options};
    int code;

    if (!life_begin(&engine.life, options->acks))
        return EXIT_CODE_USAGE;
    engine.events = calloc(options->batch, sizeof(*engine.events));
    shelf_result result =
        engine.events ? store_open(options->where, &origin, &engine.store) : SHELF_NO_MEMORY;
    if (result != SHELF_OK) {
        code = shelf_failed(options->where, result);
        goto out;
    }
    life_stoppable();
    code = engine_work(&engine);
    shelf_session_close(engine.session);
    result = store_close(&engine.store);
    if (result != SHELF_OK && code == EXIT_CODE_OK)
        code = shelf_failed("closing", result);

out:
    latencies_free(&engine.commits);
    free(engine.events);
    life_end(&engine.life);
    return code;
}
