// SPDX-License-Identifier: Apache-2.0
//
// Any bytes as an input file of the exchange: either every line of it is an event that can be written and read again,
// or one line is refused, by number and with a reason.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "exchange/csv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int good) {
    if (!good)
        abort();
}

static void event_require(const struct event *event) {
    struct event again;
    struct csv_error error;
    char line[CSV_LINE_MAX];
    require(event->id > 0 && event->price > 0 && event->price <= PRICE_MAX && event->volume <= VOLUME_MAX);
    size_t line_size = csv_format(event, line);
    require(line_size < CSV_LINE_MAX && line[line_size - 1] == '\n');
    require(csv_line_parse(line, line_size - 1, &again, &error));
    require(again.id == event->id && again.time_ms == event->time_ms && again.price == event->price &&
            again.volume == event->volume && again.action == event->action && again.side == event->side);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct csv_error error = {0};
    struct event *events = NULL;
    struct event event;
    size_t count = 0;

    if (csv_parse((const char *)data, size, &events, &count, &error)) {
        for (size_t i = 0; i < count; i++)
            event_require(&events[i]);
        free(events);
    } else {
        require(error.line > 0 && error.reason[0] != '\0' &&
                memchr(error.reason, '\0', sizeof(error.reason)));
    }
    // Most bytes fail at the header; so try them as a line too.
    if (csv_line_parse((const char *)data, size, &event, &error))
        event_require(&event);
    return 0;
}
