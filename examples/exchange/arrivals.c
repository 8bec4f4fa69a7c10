// SPDX-License-Identifier: Apache-2.0
/*
 * arrivals.c: see arrivals.h.
 *
 * The order among gateways is decided when the engine takes their events, by nothing but chance and timing. It is written
 * down in the same transaction as the effects. So whatever happened can be worked through once more, event by event, and
 * that is what `exchange check` does.
 */
#include "arrivals.h"

#include <string.h>

#include "try.h"

shelf_result intake_add(struct intake *intake, const struct store *store, const struct gateways *gateways,
                        uint32_t number, size_t count_max) {
    uint64_t first = intake->before.counts[number];
    size_t room = intake->room - intake->count, count;

    TRY(inbox_read(&store->inbox, &gateways->list[number], first, count_max < room ? count_max : room,
                   intake->events + intake->count, &count));
    if (count == 0)
        return SHELF_OK;
    intake->stretches[intake->stretch_count++] =
        (struct stretch){.gateway = number, .count = (uint32_t)count, .first = first};
    intake->count += count;
    return SHELF_OK;
}

static shelf_result taken_read(shelf_tx *tx, const struct store *store, struct taken *ret_taken) {
    return shelf_read(tx, store->taken, ret_taken, sizeof(*ret_taken));
}

shelf_result intake_record(shelf_tx *tx, const struct store *store, const struct intake *intake) {
    struct taken taken;
    TRY(taken_read(tx, store, &taken));
    if (memcmp(&taken, &intake->before, sizeof(taken)) != 0)
        return SHELF_FENCED; /* there is another engine */
    for (size_t i = 0; i < intake->stretch_count; i++)
        taken.counts[intake->stretches[i].gateway] += intake->stretches[i].count;
    TRY(shelf_write(tx, store->taken, &taken, sizeof(taken)));
    return shelf_stream_append(tx, store->arrivals, intake->events[0].time_ms, intake->stretches,
                               intake->stretch_count * sizeof(intake->stretches[0]), NULL);
}

shelf_result arrivals_visit(shelf_tx *tx, const struct store *store, stretch_visitor each, void *context) {
    uint64_t first, next;
    TRY(shelf_stream_bounds(tx, store->arrivals, &first, &next));
    for (uint64_t number = first; number < next; number++) {
        struct stretch stretches[GATEWAYS_MAX];
        size_t size;
        TRY(shelf_stream_read(tx, store->arrivals, number, stretches, sizeof(stretches), &size, NULL));
        if (size > sizeof(stretches) || size % sizeof(stretches[0]) != 0)
            return SHELF_CORRUPT;
        for (size_t i = 0; i < size / sizeof(stretches[0]); i++)
            TRY(each(context, &stretches[i]));
    }
    return SHELF_OK;
}

struct taken_look {
    const struct store *store;
    struct taken *taken;
};

static shelf_result taken_look(shelf_tx *tx, void *context) {
    struct taken_look *look = context;
    return taken_read(tx, look->store, look->taken);
}

shelf_result taken_get(const struct store *store, struct taken *ret_taken) {
    struct taken_look look = {store, ret_taken};
    return shelf_run(store->s, SHELF_READ_ONLY, taken_look, &look, 0, NULL);
}
