// SPDX-License-Identifier: Apache-2.0
/*
 * output.h: how the command speaks: messages, JSON, colours on terminals, progress.
 *
 * With --json every command prints one JSON object a line on standard output, errors included. Otherwise results go to
 * standard output, everything else to standard error.
 */
#ifndef CMD_OUTPUT_H
#define CMD_OUTPUT_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "cmd/command.h"

#define EXIT_INTERRUPTED 130

/* "shelf NAME: text" on standard error, or an object {result, code, message} with --json. Returns the exit code. */
int fail(const struct call *call, shelf_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* For a failed call of the library: `format` says what was tried on what, the rest is in shelf_detail(). */
int fail_call(const struct call *call, shelf_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A remark on standard error; nothing with --json. */
void remark(const struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prints the object (which it takes) on a line of its own, with "result": "OK" unless it has a result. Exit code 0. */
int json_finish(FILE *out, json_t *object);
/* A string if the bytes are UTF-8, else hexadecimal digits; `ret_encoding` says which. */
json_t *json_bytes(const void *bytes, size_t size, const char **ret_encoding);
json_t *json_u64(uint64_t value);

enum style { STYLE_PLAIN, STYLE_BOLD, STYLE_GOOD, STYLE_WARN, STYLE_BAD };
/* The escape sequence; "" if the stream is no terminal, or NO_COLOR is set. */
const char *style(FILE *out, enum style style);

#define SIZE_TEXT_MAX 32u
/* "64 MiB", "4096 bytes"; returns ret_text. */
const char *size_text(uint64_t size, char ret_text[SIZE_TEXT_MAX]);

/* A bar on standard error while something takes long; shown only on a terminal. */
struct progress {
    const char *title;
    uint64_t total, done;
    uint64_t shown_ms;
    bool visible, drawn;
};
void progress_begin(struct progress *progress, const char *title, uint64_t total);
void progress_add(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress);

/* From now on SIGINT, SIGTERM and SIGHUP are noted, so that the command can clean up. */
void interrupt_watch(void);
bool interrupt_seen(void);

#endif
