// SPDX-License-Identifier: Apache-2.0
/*
 * output.c: messages, JSON, colours, progress and interruption, see output.h.
 */
#include "cmd/output.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"

#define MESSAGE_MAX 1024u

/* ---- Messages ------------------------------------------------------------------------------------------------------ */

static int message_print(const struct call *call, shelf_result result, const char *message) {
    if (call->json) {
        json_t *object = json_pack("{s:s, s:i, s:s}", "result", shelf_result_name(result), "code",
                                   (int)result, "message", message);
        (void)json_finish(stdout, object);
    } else {
        const char *name = call->command->name;
        (void)fprintf(stderr, "%sshelf%s%s:%s %s\n", style(stderr, STYLE_BAD), name[0] ? " " : "", name,
                      style(stderr, STYLE_PLAIN), message);
    }
    return (int)result;
}

int fail(const struct call *call, shelf_result result, const char *format, ...) {
    char message[MESSAGE_MAX];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    return message_print(call, result, message);
}

int fail_call(const struct call *call, shelf_result result, const char *format, ...) {
    char message[MESSAGE_MAX];
    char detail[MESSAGE_MAX / 2];
    (void)snprintf(detail, sizeof(detail), "%s", shelf_detail());
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    size_t used = length < 0 ? 0 : (size_t)min_u64((uint64_t)length, sizeof(message) - 1);
    (void)snprintf(message + used, sizeof(message) - used, ": %s",
                   detail[0] ? detail : shelf_result_text(result));
    return message_print(call, result, message);
}

void remark(const struct call *call, const char *format, ...) {
    if (call->json) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------- */

int json_finish(FILE *out, json_t *object) {
    if (object && !json_object_get(object, "result")) {
        (void)json_object_set_new(object, "result", json_string("OK"));
    }
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text) { /* memory, or bytes that are no text where text was expected: names, paths */
        (void)fputs(
            "{\"result\":\"NO_MEMORY\",\"code\":18,\"message\":\"the answer cannot be written as JSON\"}\n",
            out);
        return SHELF_NO_MEMORY;
    }
    (void)fprintf(out, "%s\n", text);
    free(text);
    return SHELF_OK;
}

static json_t *json_hex(const uint8_t *bytes, size_t size) {
    static const char digits[] = "0123456789abcdef";
    char *text = malloc(size * 2 + 1);
    if (!text) {
        return NULL;
    }
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    json_t *value = json_stringn(text, size * 2);
    free(text);
    return value;
}

json_t *json_bytes(const void *bytes, size_t size, const char **ret_encoding) {
    json_t *value = json_stringn(bytes, size);
    *ret_encoding = value ? "utf-8" : "hex";
    return value ? value : json_hex(bytes, size);
}

json_t *json_u64(uint64_t value) {
    return json_integer((json_int_t)value);
}

/* ---- Colours and numbers ------------------------------------------------------------------------------------------- */

static bool is_terminal(FILE *out) {
    const char *term = getenv("TERM");
    return isatty(fileno(out)) && term && strcmp(term, "dumb") != 0;
}

const char *style(FILE *out, enum style style) {
    static const char *const codes[] = {"\033[0m", "\033[1m", "\033[32m", "\033[33m", "\033[1;31m"};
    const char *no_color = getenv("NO_COLOR");
    return is_terminal(out) && !(no_color && no_color[0]) ? codes[style] : "";
}

const char *size_text(uint64_t size, char ret_text[SIZE_TEXT_MAX]) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    double value = (double)size;
    while (value >= 1024 && unit + 1 < ARRAY_COUNT(units)) {
        value /= 1024;
        unit++;
    }
    bool whole = unit == 0 || size % ((uint64_t)1 << (10 * unit)) == 0;
    (void)snprintf(ret_text, SIZE_TEXT_MAX, whole ? "%.0f %s" : "%.1f %s", value, units[unit]);
    return ret_text;
}

/* ---- Progress ------------------------------------------------------------------------------------------------------ */

static uint64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void progress_draw(struct progress *progress) {
    enum { WIDTH = 30 };
    char bar[WIDTH + 1], done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX];
    uint64_t filled = progress->total ? progress->done * WIDTH / progress->total : 0;
    for (uint64_t i = 0; i < WIDTH; i++) {
        bar[i] = i < filled ? '#' : '.';
    }
    bar[WIDTH] = 0;
    (void)fprintf(stderr, "\r%-9s [%s] %3u %%  %s of %s\033[K", progress->title, bar,
                  (unsigned)(progress->total ? progress->done * 100 / progress->total : 0),
                  size_text(progress->done, done), size_text(progress->total, total));
    progress->drawn = true;
}

void progress_begin(struct progress *progress, const char *title, uint64_t total) {
    *progress = (struct progress){
        .title = title, .total = total, .shown_ms = now_ms(), .visible = is_terminal(stderr)};
}

/* Not drawn in the first third of a second: most of what is done is done by then. */
void progress_add(struct progress *progress, uint64_t done) {
    progress->done = min_u64(progress->done + done, progress->total);
    if (!progress->visible) {
        return;
    }
    uint64_t now = now_ms();
    if (now - progress->shown_ms >= (progress->drawn ? 100u : 333u)) {
        progress->shown_ms = now;
        progress_draw(progress);
    }
}

void progress_end(struct progress *progress) {
    if (progress->drawn) {
        (void)fputs("\r\033[K", stderr);
        progress->drawn = false;
    }
    progress->visible = false;
}

/* ---- Interruption -------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    interrupted = 1;
}

void interrupt_watch(void) {
    struct sigaction action = {.sa_handler =
                                   on_signal}; /* no SA_RESTART: what waits for input is to end, too */
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);
}

bool interrupt_seen(void) {
    return interrupted != 0;
}
