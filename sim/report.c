// SPDX-License-Identifier: Apache-2.0
//
// See report.h.

#include "report.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/mutant.h"
#include "base/sometimes.h"

struct report report;
enum mutant mutant_active = MUTANT_NONE;
static uint64_t counts_default[SOMETIMES_COUNT];
uint64_t *sometimes_counts = counts_default;

void sim_trace(const char *format, ...) {
    char line[400];
    int size = report.numbered ? snprintf(line, sizeof(line), "%6llu  ", (unsigned long long)report.step) : 0;
    va_list arguments;
    va_start(arguments, format);
    int more = vsnprintf(line + size, sizeof(line) - (size_t)size, format, arguments);
    va_end(arguments);
    size += more < 0 ? 0 : more;
    size_t length = (size_t)size < sizeof(line) ? (size_t)size : sizeof(line) - 1;
    report.hash = hash_bytes(report.hash, line, length);
    if (report.out) {
        fprintf(report.out, "%s\n", line);
    }
}

void sim_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(report.failure, sizeof(report.failure), format, arguments);
    va_end(arguments);
    longjmp(report.escape, 1);
}

static void on_assertion(const char *file, int line, const char *expression) {
    sim_fail("assertion failed: %s:%d: %s", file, line, expression);
}

void report_init(void) {
    shelf_assert_handler_set(on_assertion);
}

void report_begin(uint64_t seed, FILE *out) {
    report.out = out;
    report.hidden = false;
    report.numbered = true;
    report.seed = seed;
    report.step = 0;
    report.hash = 0;
    report.failure[0] = 0;
}
