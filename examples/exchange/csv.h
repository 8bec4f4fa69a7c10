// SPDX-License-Identifier: Apache-2.0
/* csv.h: order events as lines of text, `id,timestamp,exchange.timestamp,price,volume,action,direction`. */
#ifndef EXCHANGE_CSV_H
#define EXCHANGE_CSV_H

#include <stdbool.h>
#include <stddef.h>

#include "rules.h"

#define CSV_HEADER   "id,timestamp,exchange.timestamp,price,volume,action,direction"
#define CSV_LINE_MAX 256u /* bytes of the longest line that csv_format() writes, with its newline and NUL */

struct csv_error {
    size_t line;      /* from 1; the header is line 1 */
    char reason[160]; /* a sentence that names the field and what is wrong with it */
};

/* Reads one line without its newline. */
bool csv_line_parse(const char *line, size_t size, struct event *ret_event, struct csv_error *ret_error);

/* Reads a whole file: header, then one event a line; the last newline may be missing. `*ret_events` is the caller's to
 * free(). False: `ret_error` says which line is refused and why. */
bool csv_parse(const char *text, size_t size, struct event **ret_events, size_t *ret_count,
               struct csv_error *ret_error);

/* Writes an event as a line with newline and NUL; returns its length without the NUL. */
size_t csv_format(const struct event *event, char ret_line[CSV_LINE_MAX]);

#endif
