// SPDX-License-Identifier: Apache-2.0
/*
 * inbox.c: a stream a gateway, a table of gateways, and a bell.
 *
 * Gateways disturb neither one another nor the engine. Each appends to a stream of its own, and the one word that all of
 * them change, the bell, is changed by shelf_add(), which reads nothing and so conflicts with nothing. The engine sleeps on
 * that word. It reads an inbox in a transaction apart from the one it matches in: what was submitted stays as it is, so it
 * need not be read again when the effects are committed, and submissions in between are no conflict.
 */
#include "inbox.h"

#include <stdio.h>
#include <string.h>

#include "region.h"
#include "try.h"

#define INBOX_BYTES ((uint64_t)4 << 20) /* it grows when it is full */

/* ---- Opening ---- */

static shelf_result gateways_create(shelf_tx *tx, struct inbox *inbox) {
    const struct gateways none = {0};
    TRY(shelf_format(tx, inbox->region));
    TRY(shelf_alloc(tx, inbox->region, sizeof(none), &inbox->gateways));
    TRY(shelf_write(tx, inbox->gateways, &none, sizeof(none)));
    return root_add(tx, inbox->region, ROOT_GATEWAYS, TYPE_GATEWAYS, layout_gateways(), inbox->gateways);
}

static shelf_result gateways_find(shelf_tx *tx, void *context) {
    struct inbox *inbox = context;
    return shelf_root_get(tx, inbox->region, ROOT_GATEWAYS, TYPE_GATEWAYS, layout_gateways(),
                          &inbox->gateways);
}

static shelf_result gateways_take(shelf_tx *tx, void *context) {
    shelf_result result = gateways_find(tx, context);
    /* INVALID: it was never formatted, so this is the first transaction. */
    return result == SHELF_INVALID ? gateways_create(tx, context) : result;
}

shelf_result inbox_open(shelf *s, bool create, struct inbox *ret_inbox) {
    struct inbox inbox = {.s = s};
    TRY(region_take(s, REGION_INBOX, INBOX_BYTES, create, &inbox.region));
    if (create)
        TRY(shelf_run(s, SHELF_READ_WRITE, gateways_take, &inbox, 0, NULL));
    else
        TRY(shelf_run(s, SHELF_READ_ONLY, gateways_find, &inbox, 0, NULL));
    *ret_inbox = inbox;
    return SHELF_OK;
}

shelf_result inbox_grow(const struct inbox *inbox) {
    return region_double(inbox->s, inbox->region);
}

/* ---- Who is there ---- */

struct look {
    const struct inbox *inbox;
    struct gateways *gateways;
};

static shelf_result gateways_read(shelf_tx *tx, void *context) {
    struct look *look = context;
    return shelf_read(tx, look->inbox->gateways, look->gateways, sizeof(*look->gateways));
}

shelf_result inbox_gateways(const struct inbox *inbox, struct gateways *ret_gateways) {
    struct look look = {inbox, ret_gateways};
    return shelf_run(inbox->s, SHELF_READ_ONLY, gateways_read, &look, 0, NULL);
}

struct joining {
    const struct inbox *inbox;
    const struct gateway *wanted;
    struct gateway joined;
};

static shelf_result gateway_add(shelf_tx *tx, struct joining *joining, uint64_t number) {
    const struct inbox *inbox = joining->inbox;
    char name[SHELF_NAME_MAX + 1];
    shelf_stream stream;

    snprintf(name, sizeof(name), "inbox.%s", joining->wanted->name);
    TRY(shelf_stream_create(tx, inbox->region, name, NULL, &stream));
    joining->joined = *joining->wanted;
    joining->joined.inbox = stream.header;
    shelf_addr slot = inbox->gateways + offsetof(struct gateways, list) + number * sizeof(struct gateway);
    TRY(shelf_write(tx, slot, &joining->joined, sizeof(joining->joined)));
    number++;
    return shelf_write(tx, inbox->gateways + offsetof(struct gateways, count), &number, sizeof(number));
}

static shelf_result gateway_join(shelf_tx *tx, void *context) {
    struct joining *joining = context;
    shelf_addr at = joining->inbox->gateways;
    uint64_t count;

    TRY(shelf_read(tx, at + offsetof(struct gateways, count), &count, sizeof(count)));
    at += offsetof(struct gateways, list);
    for (uint64_t i = 0; i < count; i++, at += sizeof(struct gateway)) {
        TRY(shelf_read(tx, at, &joining->joined, sizeof(joining->joined)));
        if (strcmp(joining->joined.name, joining->wanted->name) == 0)
            return SHELF_OK;
    }
    return count < GATEWAYS_MAX ? gateway_add(tx, joining, count) : SHELF_TOO_LARGE;
}

shelf_result inbox_join(const struct inbox *inbox, struct gateway *gateway) {
    struct joining joining = {.inbox = inbox, .wanted = gateway};
    TRY(shelf_run(inbox->s, SHELF_READ_WRITE, gateway_join, &joining, 0, NULL));
    *gateway = joining.joined;
    return SHELF_OK;
}

/* ---- Events ---- */

static shelf_stream stream_of(const struct gateway *gateway) {
    return (shelf_stream){.header = gateway->inbox};
}

shelf_result inbox_append(shelf_tx *tx, const struct inbox *inbox, const struct gateway *gateway,
                          uint64_t position, const struct event *events, size_t count) {
    uint64_t first, next;
    TRY(shelf_stream_bounds(tx, stream_of(gateway), &first, &next));
    if (next != position)
        return SHELF_FENCED; /* there is another process that submits as this gateway */
    for (size_t i = 0; i < count; i++)
        TRY(shelf_stream_append(tx, stream_of(gateway), events[i].time_ms, &events[i], sizeof(events[i]),
                                NULL));
    return shelf_add(tx, inbox->gateways + offsetof(struct gateways, bell), count);
}

struct reading {
    const struct gateway *gateway;
    uint64_t first;
    size_t count_max;
    struct event *events;
    uint64_t next; /* the gateway's position */
    size_t count;
};

static shelf_result events_read(shelf_tx *tx, void *context) {
    struct reading *reading = context;
    uint64_t first;

    TRY(shelf_stream_bounds(tx, stream_of(reading->gateway), &first, &reading->next));
    uint64_t count = reading->next > reading->first ? reading->next - reading->first : 0;
    reading->count = count < reading->count_max ? (size_t)count : reading->count_max;
    for (size_t i = 0; i < reading->count; i++) {
        size_t size;
        TRY(shelf_stream_read(tx, stream_of(reading->gateway), reading->first + i, &reading->events[i],
                              sizeof(reading->events[i]), &size, NULL));
        if (size != sizeof(reading->events[i]))
            return SHELF_CORRUPT;
    }
    return SHELF_OK;
}

shelf_result inbox_count(const struct inbox *inbox, const struct gateway *gateway, uint64_t *ret_count) {
    struct reading reading = {.gateway = gateway};
    TRY(shelf_run(inbox->s, SHELF_READ_ONLY, events_read, &reading, 0, NULL));
    *ret_count = reading.next;
    return SHELF_OK;
}

shelf_result inbox_read(const struct inbox *inbox, const struct gateway *gateway, uint64_t first,
                        size_t count_max, struct event *ret_events, size_t *ret_count) {
    struct reading reading = {
        .gateway = gateway, .first = first, .count_max = count_max, .events = ret_events};
    TRY(shelf_run(inbox->s, SHELF_READ_ONLY, events_read, &reading, 0, NULL));
    *ret_count = reading.count;
    return SHELF_OK;
}

shelf_result inbox_wait(const struct inbox *inbox, uint64_t since, uint32_t timeout_ms) {
    return shelf_wait(inbox->s, inbox->gateways + offsetof(struct gateways, bell), sizeof(uint64_t), since,
                      timeout_ms);
}
