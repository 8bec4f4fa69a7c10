// SPDX-License-Identifier: Apache-2.0
/*
 * csv.c: reads and writes order events as text.
 *
 * The input is foreign: every byte of it is checked, and what is refused is named by line, field and reason. Seven
 * fields, no quoting, no blanks, decimal digits only. A line may end in CR LF.
 */
#include "csv.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD_COUNT 7

struct field {
    const char *bytes;
    size_t size;
};

static const char *const action_names[] = {"created", "changed", "deleted"};
static const char *const side_names[] = {"bid", "ask"};

__attribute__((format(printf, 2, 3))) static bool refuse(struct csv_error *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is, in the line above
    vsnprintf(error->reason, sizeof(error->reason), format, arguments);
    va_end(arguments);
    return false;
}

/* Foreign bytes in an error message: cut short, and anything but plain characters becomes '?'. */
static const char *quoted(struct field field, char ret_text[32]) {
    size_t size = field.size < 24 ? field.size : 24;
    for (size_t i = 0; i < size; i++)
        ret_text[i] = field.bytes[i] >= ' ' && field.bytes[i] <= '~' ? field.bytes[i] : '?';
    memcpy(ret_text + size, "...", sizeof("..."));
    if (field.size <= size)
        ret_text[size] = '\0';
    return ret_text;
}

static bool field_is(struct field field, const char *word) {
    return field.size == strlen(word) && memcmp(field.bytes, word, field.size) == 0;
}

static bool number_parse(struct field field, const char *name, uint64_t max, uint64_t *ret_number,
                         struct csv_error *error) {
    char text[32];
    uint64_t number = 0;

    if (field.size == 0)
        return refuse(error, "%s is empty", name);
    for (size_t i = 0; i < field.size; i++) {
        if (field.bytes[i] < '0' || field.bytes[i] > '9')
            return refuse(error, "%s '%s' is not a number in digits", name, quoted(field, text));
        unsigned digit = (unsigned)(field.bytes[i] - '0');
        if (number > (max - digit) / 10)
            return refuse(error, "%s '%s' is larger than %" PRIu64, name, quoted(field, text), max);
        number = number * 10 + digit;
    }
    *ret_number = number;
    return true;
}

/* "236.47", "236.4" or "236" to cents. */
static bool price_parse(struct field field, uint32_t *ret_price, struct csv_error *error) {
    char text[32];
    const char *point = memchr(field.bytes, '.', field.size);
    struct field whole = {field.bytes, point ? (size_t)(point - field.bytes) : field.size};
    uint64_t units = 0, cents = 0;

    if (!number_parse(whole, "price", PRICE_MAX / 100, &units, error))
        return false;
    if (point) {
        struct field fraction = {point + 1, field.size - whole.size - 1};
        if (fraction.size < 1 || fraction.size > 2)
            return refuse(error, "price '%s' needs one or two digits after the point", quoted(field, text));
        if (!number_parse(fraction, "price after the point", 99, &cents, error))
            return false;
        if (fraction.size == 1)
            cents *= 10;
    }
    uint64_t price = units * 100 + cents;
    if (price == 0 || price > PRICE_MAX)
        return refuse(error, "price '%s' is not between 0.01 and %u.%02u", quoted(field, text),
                      PRICE_MAX / 100, PRICE_MAX % 100);
    *ret_price = (uint32_t)price;
    return true;
}

static bool word_parse(struct field field, const char *name, const char *const *words, unsigned count,
                       uint8_t *ret_value, struct csv_error *error) {
    char text[32];
    for (unsigned i = 0; i < count; i++) {
        if (field_is(field, words[i])) {
            *ret_value = (uint8_t)i;
            return true;
        }
    }
    return refuse(error, "%s '%s' is unknown", name, quoted(field, text));
}

static bool line_split(const char *line, size_t size, struct field ret_fields[FIELD_COUNT],
                       struct csv_error *error) {
    size_t count = 0, start = 0;
    for (size_t i = 0; i < FIELD_COUNT; i++)
        ret_fields[i] = (struct field){line, 0};
    for (size_t i = 0; i <= size; i++) {
        if (i < size && line[i] != ',')
            continue;
        if (count < FIELD_COUNT)
            ret_fields[count] = (struct field){line + start, i - start};
        count++;
        start = i + 1;
    }
    if (count != FIELD_COUNT)
        return refuse(error, "%zu fields instead of %d (%s)", count, FIELD_COUNT, CSV_HEADER);
    return true;
}

bool csv_line_parse(const char *line, size_t size, struct event *ret_event, struct csv_error *ret_error) {
    struct field fields[FIELD_COUNT];
    struct event event = {0};
    uint64_t time_there_ms;

    if (size > 0 && line[size - 1] == '\r')
        size--;
    if (!line_split(line, size, fields, ret_error) ||
        !number_parse(fields[0], "id", UINT64_MAX, &event.id, ret_error) ||
        !number_parse(fields[1], "timestamp", INT64_MAX, &event.time_ms, ret_error) ||
        !number_parse(fields[2], "exchange.timestamp", INT64_MAX, &time_there_ms, ret_error) ||
        !price_parse(fields[3], &event.price, ret_error) ||
        !number_parse(fields[4], "volume", VOLUME_MAX, &event.volume, ret_error) ||
        !word_parse(fields[5], "action", action_names, 3, &event.action, ret_error) ||
        !word_parse(fields[6], "direction", side_names, 2, &event.side, ret_error))
        return false;
    if (event.id == 0)
        return refuse(ret_error, "id 0 is not an order");
    if (event.action == EVENT_CREATED && event.volume == 0)
        return refuse(ret_error, "order %" PRIu64 " is created with volume 0", event.id);
    *ret_event = event;
    return true;
}

static bool header_parse(const char *line, size_t size, struct csv_error *error) {
    struct field header = {line, size > 0 && line[size - 1] == '\r' ? size - 1 : size};
    char text[32];
    if (field_is(header, CSV_HEADER))
        return true;
    return refuse(error, "the header is '%s' instead of '%s'", quoted(header, text), CSV_HEADER);
}

/* Room for one event a newline; generous by the header's and the last line's. */
static size_t lines_max(const char *text, size_t size) {
    size_t count = 1;
    for (size_t i = 0; i < size; i++)
        count += text[i] == '\n';
    return count;
}

bool csv_parse(const char *text, size_t size, struct event **ret_events, size_t *ret_count,
               struct csv_error *ret_error) {
    const char *end = text + size;
    size_t count = 0;

    struct event *events = malloc(lines_max(text, size) * sizeof(*events));
    ret_error->line = 1;
    if (!events)
        return refuse(ret_error, "no memory for the events of this file");
    if (size == 0) {
        free(events);
        return refuse(ret_error, "the file is empty");
    }
    for (const char *line = text; line < end; ret_error->line++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t line_size = (size_t)((newline ? newline : end) - line);
        bool good = ret_error->line == 1 ? header_parse(line, line_size, ret_error)
                                         : csv_line_parse(line, line_size, &events[count], ret_error);
        if (!good) {
            free(events);
            return false;
        }
        count += ret_error->line > 1;
        line += line_size + 1;
    }
    *ret_events = events;
    *ret_count = count;
    return true;
}

size_t csv_format(const struct event *event, char ret_line[CSV_LINE_MAX]) {
    int size =
        snprintf(ret_line, CSV_LINE_MAX, "%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%u.%02u,%" PRIu64 ",%s,%s\n",
                 event->id, event->time_ms, event->time_ms, event->price / 100, event->price % 100,
                 event->volume, action_names[event->action], side_names[event->side]);
    return (size_t)size;
}
