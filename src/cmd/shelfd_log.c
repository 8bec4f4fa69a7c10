// SPDX-License-Identifier: Apache-2.0
/* shelfd_log.c: see shelfd_log.h. A line is put together in one buffer and goes out by one write. */
#include "cmd/shelfd_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"

/* Eight fields of FIELD_TEXT_MAX bytes fit, each byte told by six. */
#define LINE_MAX_BYTES 32768u
#define FIELD_TEXT_MAX 500u

const char *const log_level_words[] = {"error", "warning", "info", "debug", NULL};
const char *const log_format_words[] = {"auto", "text", "journal", "json", NULL};

static const struct {
    const char *name;
    enum log_level level;
} events[LOG_EVENT_COUNT] = {
#define X(id, name, level, meaning) [LOG_EVENT_##id] = {name, LOG_LEVEL_##level},
    LOG_EVENT_LIST(X)
#undef X
};

enum log_event log_event_find(const char *name, enum log_event otherwise) {
    for (int event = 0; event < LOG_EVENT_COUNT; event++) {
        if (strcmp(events[event].name, name) == 0) {
            return (enum log_event)event;
        }
    }
    return otherwise;
}

static struct {
    enum log_format format;
    enum log_level level;
    bool priorities; /* the journal reads what we write, and takes "<3>" for the level */
} style = {LOG_FORMAT_TEXT, LOG_LEVEL_INFO, false};

struct line {
    char bytes[LINE_MAX_BYTES];
    size_t size;
};

/* Is standard error what JOURNAL_STREAM ("device:inode") says? */
static bool is_journal(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat status;
    char *rest;
    if (!stream || fstat(STDERR_FILENO, &status) != 0) {
        return false;
    }
    unsigned long long device = strtoull(stream, &rest, 10);
    unsigned long long inode = *rest == ':' ? strtoull(rest + 1, NULL, 10) : 0;
    return device == status.st_dev && inode == status.st_ino;
}

void log_begin(enum log_format format, enum log_level level) {
    if (format == LOG_FORMAT_AUTO) {
        format = isatty(STDERR_FILENO) ? LOG_FORMAT_TEXT : LOG_FORMAT_JOURNAL;
    }
    style.format = format;
    style.level = level;
    style.priorities = format == LOG_FORMAT_JOURNAL && is_journal();
}

__attribute__((format(printf, 2, 3))) static void line_add(struct line *line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    size_t room = sizeof(line->bytes) - 1 - line->size; /* one is kept for the line end */
    int length = vsnprintf(line->bytes + line->size, room, format, arguments);
    va_end(arguments);
    line->size += length < 0 ? 0 : min_u64((uint64_t)length, room - 1);
}

/* In double quotes, as JSON does it: so any bytes stay within their line and their quotes. What is not ASCII is told by
 * its bytes: a file's name need not be text. */
static void line_add_quoted(struct line *line, const char *text) {
    line_add(line, "\"");
    const unsigned char *end = (const unsigned char *)text + strnlen(text, FIELD_TEXT_MAX);
    for (const unsigned char *at = (const unsigned char *)text; at < end; at++) {
        if (*at == '"' || *at == '\\') {
            line_add(line, "\\%c", *at);
        } else if (*at < 0x20 || *at >= 0x7f) {
            line_add(line, "\\u%04x", *at);
        } else {
            line_add(line, "%c", *at);
        }
    }
    line_add(line, "\"");
}

static bool is_plain(const char *text) {
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at <= 0x20 || *at >= 0x7f || *at == '"' || *at == '\\' || *at == '=') {
            return false;
        }
    }
    return text[0] != 0;
}

static void line_add_time(struct line *line, bool whole) {
    struct timespec now;
    struct tm parts;
    char text[40];
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)(whole ? gmtime_r(&now.tv_sec, &parts) : localtime_r(&now.tv_sec, &parts));
    (void)strftime(text, sizeof(text), whole ? "%Y-%m-%dT%H:%M:%S" : "%H:%M:%S", &parts);
    line_add(line, "%s.%03ld%s", text, now.tv_nsec / 1000000, whole ? "Z" : "");
}

static void line_add_fields(struct line *line, const struct log_field *fields, size_t count) {
    bool json = style.format == LOG_FORMAT_JSON;
    for (size_t i = 0; i < count; i++) {
        line_add(line, json ? ",\"%s\":" : " %s=", fields[i].name);
        if (!fields[i].text) {
            line_add(line, "%llu", (unsigned long long)fields[i].number);
        } else if (json || !is_plain(fields[i].text)) {
            line_add_quoted(line, fields[i].text);
        } else {
            line_add(line, "%.*s", (int)FIELD_TEXT_MAX, fields[i].text);
        }
    }
}

void log_fields(enum log_event event, const struct log_field *fields, size_t count) {
    static const int priorities[] = {3, 4, 6, 7};
    enum log_level level = events[event].level;
    struct line line = {.size = 0};
    if (level > style.level) {
        return;
    }
    switch (style.format) {
    case LOG_FORMAT_JSON:
        line_add(&line, "{\"time\":\"");
        line_add_time(&line, true);
        line_add(&line, "\",\"level\":\"%s\",\"event\":\"%s\"", log_level_words[level], events[event].name);
        break;
    case LOG_FORMAT_JOURNAL:
        if (style.priorities) {
            line_add(&line, "<%d>", priorities[level]);
        }
        line_add(&line, "level=%s event=%s", log_level_words[level], events[event].name);
        break;
    default:
        line_add_time(&line, false);
        line_add(&line, " %-7s %-17s", log_level_words[level], events[event].name);
    }
    line_add_fields(&line, fields, count);
    line_add(&line, style.format == LOG_FORMAT_JSON ? "}" : "");
    line.bytes[line.size++] = '\n';
    ssize_t written = write(STDERR_FILENO, line.bytes, line.size);
    (void)written; /* nobody is left to be told */
}
