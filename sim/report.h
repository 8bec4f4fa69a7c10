// SPDX-License-Identifier: Apache-2.0
//
// What a run tells: a trace of readable lines, whose hash identifies the run, and the one failure that ends it. One
// process runs one seed at a time, so this is the process's.

#ifndef SIM_REPORT_H
#define SIM_REPORT_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define FAILURE_TEXT_MAX 600u

struct report {
    FILE *out;     // where the trace goes as well; NULL: nowhere
    bool hidden;   // lines of ios are left out
    bool numbered; // its lines begin with the step
    uint64_t seed;
    uint64_t step;
    uint64_t hash;  // of all trace lines so far
    jmp_buf escape; // where sim_fail() goes
    char failure[FAILURE_TEXT_MAX];
};
extern struct report report;

// Adds a line to the trace: the step's number comes first.
void sim_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Ends the run: what was violated.
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
#define SIM_CHECK(condition, ...)  \
    do {                           \
        if (!(condition)) {        \
            sim_fail(__VA_ARGS__); \
        }                          \
    } while (0)

// Makes assertions of the core end the run as failures, too.
void report_init(void);
void report_begin(uint64_t seed, FILE *out);

#endif
