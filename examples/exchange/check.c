// SPDX-License-Identifier: Apache-2.0
/* check.c: `exchange check`: replays the input in ordinary memory and compares. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "compare.h"
#include "input.h"
#include "options.h"
#include "plain.h"
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

static void findings_json(const struct findings *findings, uint64_t position) {
    json_t *list = json_array();
    for (unsigned i = 0; i < findings->count; i++)
        json_array_append_new(list, json_pack("{s:s, s:b, s:s}", "name", findings->list[i].name, "ok",
                                              findings->list[i].good, "detail", findings->list[i].detail));
    json_t *json = json_pack("{s:b, s:I, s:s, s:o}", "ok", findings->good, "position", (json_int_t)position,
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

static int store_check(const struct options *options, struct store *store) {
    struct findings findings;
    struct input input;
    struct state state;
    struct plain plain;

    shelf_result result = store_state(store, &state);
    if (result != SHELF_OK)
        return shelf_failed("reading the state", result);
    if (!input_take(options, &state, &input))
        return EXIT_CODE_INPUT;
    if (!input_fits(options, &state, &input)) {
        input_free(&input);
        return EXIT_CODE_INPUT;
    }
    plain_init(&plain);
    for (uint64_t i = 0; i < state.position; i++)
        plain_apply(&plain, &input.events[i]);
    result = exchange_compare(store, &plain, &findings);
    plain_free(&plain);
    input_free(&input);
    if (result != SHELF_OK)
        return shelf_failed("comparing", result);

    if (options->json)
        findings_json(&findings, state.position);
    else
        findings_print(&findings);
    return findings.good ? EXIT_CODE_OK : EXIT_CODE_DIFFERENT;
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
