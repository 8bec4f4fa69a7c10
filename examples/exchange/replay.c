// SPDX-License-Identifier: Apache-2.0
/*
 * replay.c: see replay.h.
 *
 * Three things are independent of one another: the inputs as they lie on the disk, what the gateways submitted, and what the
 * engine says it took. Here they meet. The replay is fed from the inputs, so an event that was lost, doubled or changed on
 * its way leads to another exchange, besides being found at once where it happened.
 */
#include "replay.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "arrivals.h"
#include "input.h"
#include "plain.h"
#include "report.h"
#include "try.h"

struct replay {
    const struct options *options;
    struct store *store;
    struct plain *plain;
    struct findings *findings;
    struct gateways gateways;
    struct input inputs[GATEWAYS_MAX];
    uint64_t submitted[GATEWAYS_MAX];
    struct taken taken;    /* as stored */
    struct taken replayed; /* so far */
};

/* ---- What the gateways submitted ---- */

/* The named file stands in for each gateway's whose input it is: a file may have been moved since. */
static bool input_take(struct replay *replay, unsigned number) {
    const struct gateway *gateway = &replay->gateways.list[number];
    struct origin origin = gateway->origin;
    char error[INPUT_ERROR_MAX];

    if (replay->options->input && origin.kind == ORIGIN_FILE) {
        memset(origin.path, 0, sizeof(origin.path));
        strncpy(origin.path, replay->options->input, sizeof(origin.path) - 1);
    }
    struct input *input = &replay->inputs[number];
    if (!input_lane_again(&origin, gateway->lane, gateway->lanes, replay->submitted[number], input, error)) {
        fprintf(stderr, "exchange: gateway %s: %s\n", gateway->name, error);
        return false;
    }
    if (!origin_equal(&input->origin, &gateway->origin)) {
        fprintf(stderr, "exchange: %s is not the input that gateway %s submitted\n", origin.path,
                gateway->name);
        return false;
    }
    return true;
}

static void inbox_compare(struct replay *replay, unsigned number, const struct event *submitted,
                          size_t count) {
    const struct input *input = &replay->inputs[number];
    const char *name = replay->gateways.list[number].name;

    if (count > input->count)
        differ(replay->findings, "gateway %s submitted %zu events of %zu", name, count, input->count);
    for (size_t i = 0; i < count && i < input->count; i++) {
        if (memcmp(&submitted[i], &input->events[i], sizeof(submitted[i])) != 0)
            differ(replay->findings,
                   "event %zu of gateway %s is of order %" PRIu64 ", in its input of %" PRIu64, i + 1, name,
                   submitted[i].id, input->events[i].id);
    }
}

static int inbox_check(struct replay *replay, unsigned number) {
    const struct inbox *inbox = &replay->store->inbox;
    const struct gateway *gateway = &replay->gateways.list[number];
    size_t count = 0;

    shelf_result result = inbox_count(inbox, gateway, &replay->submitted[number]);
    if (result != SHELF_OK)
        return shelf_failed("reading an inbox", result);
    if (!input_take(replay, number))
        return EXIT_CODE_INPUT;
    struct event *events = calloc(replay->submitted[number] + 1, sizeof(*events));
    result =
        events ? inbox_read(inbox, gateway, 0, replay->submitted[number], events, &count) : SHELF_NO_MEMORY;
    if (result == SHELF_OK)
        inbox_compare(replay, number, events, count);
    free(events);
    return result == SHELF_OK ? EXIT_CODE_OK : shelf_failed("reading an inbox", result);
}

static int inboxes_check(struct replay *replay) {
    char text[NUMBER_TEXT_MAX];
    struct gateways after;
    uint64_t sum = 0;

    shelf_result result = inbox_gateways(&replay->store->inbox, &replay->gateways);
    if (result != SHELF_OK)
        return shelf_failed("reading who the gateways are", result);
    finding_begin(replay->findings, "inboxes");
    for (unsigned i = 0; i < replay->gateways.count; i++) {
        int code = inbox_check(replay, i);
        if (code != EXIT_CODE_OK)
            return code;
        sum += replay->submitted[i];
    }
    result = inbox_gateways(&replay->store->inbox, &after);
    if (result != SHELF_OK)
        return shelf_failed("reading who the gateways are", result);
    if (sum < replay->gateways.bell || sum > after.bell) /* more may have come meanwhile */
        differ(replay->findings, "the bell has rung for %" PRIu64 " events, and %" PRIu64 " are there",
               after.bell, sum);
    agree(replay->findings, "%s events of %" PRIu64 " gateways, each once and in order",
          number_text(sum, text), replay->gateways.count);
    return EXIT_CODE_OK;
}

/* ---- What the engine took ---- */

static shelf_result stretch_replay(void *context, const struct stretch *stretch) {
    struct replay *replay = context;
    uint32_t number = stretch->gateway;

    if (number >= replay->gateways.count || stretch->first != replay->replayed.counts[number] ||
        stretch->count > replay->inputs[number].count - stretch->first) {
        differ(replay->findings,
               "%" PRIu32 " events from %" PRIu64 " of gateway %" PRIu32 " are out of order", stretch->count,
               stretch->first, number);
        return SHELF_OK;
    }
    for (uint32_t i = 0; i < stretch->count; i++)
        plain_apply(replay->plain, &replay->inputs[number].events[stretch->first + i]);
    replay->replayed.counts[number] += stretch->count;
    return SHELF_OK;
}

static shelf_result stretches_replay(struct replay *replay) {
    shelf_tx *tx;
    TRY(taken_get(replay->store, &replay->taken));
    TRY(shelf_begin(replay->store->s, SHELF_READ_ONLY, &tx));
    shelf_result result = arrivals_visit(tx, replay->store, stretch_replay, replay);
    shelf_abort(tx);
    return result;
}

static int arrivals_check(struct replay *replay) {
    char text[NUMBER_TEXT_MAX];

    finding_begin(replay->findings, "arrivals");
    shelf_result result = stretches_replay(replay);
    if (result != SHELF_OK)
        return shelf_failed("reading the order of arrivals", result);
    for (unsigned i = 0; i < GATEWAYS_MAX; i++) {
        if (replay->taken.counts[i] != replay->replayed.counts[i])
            differ(replay->findings,
                   "of gateway %u %" PRIu64 " events were taken, and %" PRIu64 " are in the order", i,
                   replay->taken.counts[i], replay->replayed.counts[i]);
    }
    agree(replay->findings, "%s taken, in an order that is written down",
          number_text(replay->plain->arrivals, text));
    return EXIT_CODE_OK;
}

int arrivals_replay(const struct options *options, struct store *store, struct plain *plain,
                    struct findings *findings) {
    struct replay replay = {.options = options, .store = store, .plain = plain, .findings = findings};
    int code = inboxes_check(&replay);
    if (code == EXIT_CODE_OK)
        code = arrivals_check(&replay);
    for (unsigned i = 0; i < GATEWAYS_MAX; i++)
        input_free(&replay.inputs[i]);
    return code;
}
