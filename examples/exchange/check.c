// SPDX-License-Identifier: Apache-2.0
/*
 * check.c: `exchange check`: replays the input in ordinary memory and compares. With gateways the order in which their
 * inputs were taken is part of what is stored; replay.c works through it.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "compare.h"
#include "input.h"
#include "options.h"
#include "plain.h"
#include "replay.h"
#include "report.h"

static bool input_take(const struct options *options, const struct state *state, struct input *ret_input) {
    char error[INPUT_ERROR_MAX];
    bool good;
    if (options->generate)
        good = input_generate(options->seed, state->position, ret_input, error);
    else if (options->input)
        good = input_load(options->input, ret_input, error);
    else
        good = input_again(&state->origin, state->position, ret_input, error);
    if (!good)
        fprintf(stderr, "exchange: %s\n", error);
    return good;
}

static bool input_fits(const struct options *options, const struct state *state, const struct input *input) {
    char here[ORIGIN_TEXT_MAX], given[ORIGIN_TEXT_MAX];
    if (origin_equal(&state->origin, &input->origin) && state->position <= input->count)
        return true;
    origin_text(&state->origin, here);
    origin_text(&input->origin, given);
    fprintf(stderr, "exchange: %s follows from %s, not from %s\n", options->where, here, given);
    return false;
}

static void findings_json(const struct findings *findings) {
    json_t *list = json_array();
    for (unsigned i = 0; i < findings->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "name", findings->list[i].name, "ok",
                                              findings->list[i].good, "detail", findings->list[i].detail));
    json_t *json =
        json_pack("{s:b, s:I, s:s, s:o}", "ok", findings->good, "position", (json_int_t)findings->position,
                  "trades_sha256", findings->trades_sha256, "checks", list);
    json_dumpf(json, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(json);
}

static void findings_print(const struct findings *findings) {
    const struct colours c = colours_for(stdout);
    for (unsigned i = 0; i < findings->count; i++) {
        const struct finding *finding = &findings->list[i];
        printf("%s%-9s%s %s%-13s%s %s\n", finding->good ? c.good : c.bad,
               finding->good ? "same" : "DIFFERENT", c.off, c.bold, finding->name, c.off, finding->detail);
    }
}

/* Works through the one input, up to the position. */
static int input_replay(const struct options *options, const struct state *state, struct plain *plain) {
    struct input input;
    if (!input_take(options, state, &input))
        return EXIT_CODE_INPUT;
    bool fits = input_fits(options, state, &input);
    for (uint64_t i = 0; fits && i < state->position; i++)
        plain_apply(plain, &input.events[i]);
    input_free(&input);
    return fits ? EXIT_CODE_OK : EXIT_CODE_INPUT;
}

/* What was replayed led to `position`; the rest is compared if the exchange is still there. */
static int store_compare(const struct options *options, struct store *store, const struct plain *plain,
                         uint64_t position, struct findings *findings) {
    shelf_result result = exchange_compare(store, plain, findings);
    if (result == SHELF_CONFLICT || (result == SHELF_OK && findings->position != position)) {
        fputs("exchange: it went on while it was compared; stop the engine for the time of the check\n",
              stderr);
        return EXIT_CODE_SHELF;
    }
    if (result != SHELF_OK)
        return shelf_failed("comparing", result);
    if (options->json)
        findings_json(findings);
    else
        findings_print(findings);
    return findings->good ? EXIT_CODE_OK : EXIT_CODE_DIFFERENT;
}

static int store_check(const struct options *options, struct store *store) {
    struct findings findings = {.good = true};
    struct state state;
    struct plain plain;

    shelf_result result = store_state(store, &state);
    if (result != SHELF_OK)
        return shelf_failed("reading the state", result);
    plain_init(&plain);
    int code = store->has_gateways ? arrivals_replay(options, store, &plain, &findings)
                                   : input_replay(options, &state, &plain);
    if (code == EXIT_CODE_OK)
        code = store_compare(options, store, &plain, state.position, &findings);
    plain_free(&plain);
    return code;
}

int command_check(const struct options *options) {
    struct store store;
    shelf_result result = store_open(options->where, NULL, &store);
    if (result != SHELF_OK)
        return shelf_failed(options->where, result);
    int code = store_check(options, &store);
    result = store_close(&store);
    if (result != SHELF_OK && code == EXIT_CODE_OK)
        code = shelf_failed("closing", result);
    return code;
}
