// SPDX-License-Identifier: Apache-2.0
/* report.h: numbers as people read them, latencies, and what went wrong. */
#ifndef EXCHANGE_REPORT_H
#define EXCHANGE_REPORT_H

#include <shelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define NUMBER_TEXT_MAX 64u

/* 1234567 -> "1,234,567" */
const char *number_text(uint64_t number, char ret_text[NUMBER_TEXT_MAX]);

/* A fixed-point number with `digits` digits after the point, of which `shown` are printed (the rest is cut off):
 * (123456, 3, 2) -> "123.45". */
const char *fixed_text(__int128 number, unsigned digits, unsigned shown, char ret_text[NUMBER_TEXT_MAX]);

/* Escape sequences, or "" where colours are not wanted (no terminal, or NO_COLOR is set). */
struct colours {
    const char *bid, *ask, *good, *bad, *dim, *bold, *off;
};
struct colours colours_for(FILE *file);

/* Monotonic time. */
uint64_t clock_ns(void);

/* How long each of many things took. Keeps them all (4 bytes each), so that the percentiles are exact. */
struct latencies {
    uint32_t *ns; /* owned */
    size_t count, room;
};
void latencies_add(struct latencies *latencies, uint64_t ns);
void latencies_sort(struct latencies *latencies);
/* Sorted: the time in microseconds that `percent` of them did not exceed; 0 if there are none. */
double latencies_us(const struct latencies *latencies, double percent);
void latencies_free(struct latencies *latencies);

/* Prints "exchange: DOING: what happened. What to do." for a failed call and returns the exit code for it. */
int shelf_failed(const char *doing, shelf_result result);

/* The same for an exchange that follows from a single input. */
int gateways_missing(const char *where);

#endif
