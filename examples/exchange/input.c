// SPDX-License-Identifier: Apache-2.0
/*
 * input.c: reads a whole input before the first event is worked on.
 *
 * So a file with a bad line is refused as it stands, with nothing changed, and its hash is known from the start: the
 * position that the region remembers means something only together with the very same input.
 */
#include "input.h"

#include <errno.h>
#include <inttypes.h>
#include <lzma.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "csv.h"
#include "flow.h"

#define TEXT_BYTES_MAX  ((size_t)1 << 30)
#define LZMA_MEMORY_MAX ((uint64_t)256 << 20)
#define FLOW_EVENTS_MAX ((size_t)100 * 1000 * 1000)

struct text {
    char *bytes; /* owned */
    size_t size, room;
};

__attribute__((format(printf, 2, 3))) static bool refuse(char *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, INPUT_ERROR_MAX, format, arguments);
    va_end(arguments);
    return false;
}

/* Makes room for at least one more byte. */
static bool text_reserve(struct text *text, const char *path, char *error) {
    if (text->size < text->room)
        return true;
    size_t room = text->room ? text->room * 2 : (size_t)1 << 20;
    char *bytes = room <= TEXT_BYTES_MAX ? realloc(text->bytes, room) : NULL;
    if (!bytes)
        return refuse(error, "%s: too large, the limit is %zu MiB of text", path, TEXT_BYTES_MAX >> 20);
    text->bytes = bytes;
    text->room = room;
    return true;
}

static bool file_read(const char *path, struct text *text, char *error) {
    FILE *file = fopen(path, "rbe");
    if (!file)
        return refuse(error, "%s: cannot be opened: %s", path, strerror(errno));
    bool good = true;
    while (good && !feof(file)) {
        good = text_reserve(text, path, error);
        if (good)
            text->size += fread(text->bytes + text->size, 1, text->room - text->size, file);
        if (good && ferror(file))
            good = refuse(error, "%s: cannot be read: %s", path, strerror(errno));
    }
    fclose(file);
    return good;
}

static const char *xz_reason(lzma_ret result) {
    switch (result) {
    case LZMA_DATA_ERROR:
    case LZMA_FORMAT_ERROR:
        return "the compressed data is damaged";
    case LZMA_BUF_ERROR:
        return "the file ends too early";
    case LZMA_MEMLIMIT_ERROR:
        return "unpacking it takes too much memory";
    default:
        return "it cannot be unpacked";
    }
}

/* Replaces compressed bytes by what they stand for. */
static bool xz_unpack(const char *path, struct text *text, char *error) {
    struct text plain = {0};
    lzma_stream stream = LZMA_STREAM_INIT;
    lzma_ret result = lzma_stream_decoder(&stream, LZMA_MEMORY_MAX, LZMA_CONCATENATED);
    bool good = true;

    stream.next_in = (const uint8_t *)text->bytes;
    stream.avail_in = text->size;
    while (good && result == LZMA_OK) {
        good = text_reserve(&plain, path, error);
        if (good) {
            stream.next_out = (uint8_t *)plain.bytes + plain.size;
            stream.avail_out = plain.room - plain.size;
            result = lzma_code(&stream, LZMA_FINISH);
            plain.size = plain.room - stream.avail_out;
        }
    }
    lzma_end(&stream);
    if (good && result != LZMA_STREAM_END)
        good = refuse(error, "%s: %s", path, xz_reason(result));
    free(text->bytes);
    *text = plain;
    return good;
}

static bool is_xz(const struct text *text) {
    static const char magic[6] = {'\xFD', '7', 'z', 'X', 'Z', '\0'};
    return text->size >= sizeof(magic) && memcmp(text->bytes, magic, sizeof(magic)) == 0;
}

static void file_origin(const char *path, const struct text *text, struct origin *ret_origin) {
    *ret_origin = (struct origin){.kind = ORIGIN_FILE, .size = text->size};
    EVP_Digest(text->bytes, text->size, ret_origin->sha256, NULL, EVP_sha256(), NULL);

    /* A path too long to remember is left out; `check --input` still finds the file. */
    char *absolute = realpath(path, NULL);
    if (absolute && strlen(absolute) < ORIGIN_PATH_MAX)
        memcpy(ret_origin->path, absolute, strlen(absolute) + 1);
    free(absolute);
}

bool input_load(const char *path, struct input *ret_input, char ret_error[INPUT_ERROR_MAX]) {
    struct input input = {0};
    struct csv_error refused;
    struct text text = {0};

    bool good = file_read(path, &text, ret_error) && (!is_xz(&text) || xz_unpack(path, &text, ret_error));
    if (good) {
        file_origin(path, &text, &input.origin);
        good = csv_parse(text.bytes, text.size, &input.events, &input.count, &refused);
        if (!good)
            refuse(ret_error, "%s: line %zu: %s", path, refused.line, refused.reason);
    }
    free(text.bytes);
    if (good)
        *ret_input = input;
    return good;
}

bool input_generate(uint64_t seed, size_t count, struct input *ret_input, char ret_error[INPUT_ERROR_MAX]) {
    struct flow *flow = malloc(sizeof(*flow));
    struct event *events = count <= FLOW_EVENTS_MAX ? malloc((count + 1) * sizeof(*events)) : NULL;
    if (!flow || !events) {
        free(flow);
        free(events);
        return refuse(ret_error, "no memory for %zu events; the limit is %zu", count, FLOW_EVENTS_MAX);
    }
    flow_init(flow, seed);
    for (size_t i = 0; i < count; i++)
        flow_next(flow, &events[i]);
    free(flow);
    ret_input->origin = (struct origin){.kind = ORIGIN_FLOW, .flow_version = FLOW_VERSION, .seed = seed};
    ret_input->events = events;
    ret_input->count = count;
    return true;
}

bool input_again(const struct origin *origin, size_t position, struct input *ret_input,
                 char ret_error[INPUT_ERROR_MAX]) {
    if (origin->kind == ORIGIN_FLOW)
        return input_generate(origin->seed, position, ret_input, ret_error);
    if (origin->path[0] == '\0')
        return refuse(ret_error, "where the input file lies is not recorded; name it with --input");
    return input_load(origin->path, ret_input, ret_error);
}

void input_keep_lane(struct input *input, uint32_t lane, uint32_t lanes) {
    size_t kept = 0;
    for (size_t i = 0; i < input->count; i++) {
        if (input->events[i].id % lanes == lane)
            input->events[kept++] = input->events[i];
    }
    input->count = kept;
}

/* How much of the flow it takes to fill a lane is found out by taking more and more of it. */
bool input_lane_again(const struct origin *origin, uint32_t lane, uint32_t lanes, size_t count,
                      struct input *ret_input, char ret_error[INPUT_ERROR_MAX]) {
    for (size_t whole = count * lanes;; whole *= 2) {
        struct input input = {0};
        if (!input_again(origin, whole, &input, ret_error))
            return false;
        input_keep_lane(&input, lane, lanes);
        if (input.count >= count || origin->kind == ORIGIN_FILE) {
            input.count = input.count < count ? input.count : count;
            *ret_input = input;
            return true;
        }
        input_free(&input);
    }
}

void input_free(struct input *input) {
    free(input->events);
    input->events = NULL;
}

bool origin_equal(const struct origin *a, const struct origin *b) {
    if (a->kind != b->kind)
        return false;
    if (a->kind == ORIGIN_GATEWAYS)
        return true;
    if (a->kind == ORIGIN_FLOW)
        return a->seed == b->seed && a->flow_version == b->flow_version;
    return a->size == b->size && memcmp(a->sha256, b->sha256, sizeof(a->sha256)) == 0;
}

void origin_text(const struct origin *origin, char ret_text[ORIGIN_TEXT_MAX]) {
    if (origin->kind == ORIGIN_FLOW) {
        snprintf(ret_text, ORIGIN_TEXT_MAX, "the generated flow of seed %" PRIu64, origin->seed);
        return;
    }
    if (origin->kind == ORIGIN_GATEWAYS) {
        snprintf(ret_text, ORIGIN_TEXT_MAX, "what its gateways submit");
        return;
    }
    const char *name = strrchr(origin->path, '/');
    snprintf(ret_text, ORIGIN_TEXT_MAX, "%s (%" PRIu64 " bytes of text, sha256 %02x%02x%02x%02x...)",
             name ? name + 1 : "a file", origin->size, origin->sha256[0], origin->sha256[1],
             origin->sha256[2], origin->sha256[3]);
}
