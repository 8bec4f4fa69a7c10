// SPDX-License-Identifier: Apache-2.0
/* bytes.c: see bytes.h. */
#include "cmd/bytes.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/arguments.h"
#include "cmd/output.h"

static int hex_digit(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    if (digit >= 'a' && digit <= 'f') {
        return digit - 'a' + 10;
    }
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

static bool bytes_of_hex(const char *text, struct bytes *ret_bytes) {
    size_t length = strlen(text);
    uint8_t *at = malloc(length / 2 + 1);
    bool right = at && length % 2 == 0;
    for (size_t i = 0; right && i < length; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        right = high >= 0 && low >= 0;
        at[i / 2] = (uint8_t)((unsigned)high << 4 | (unsigned)low);
    }
    if (!right) {
        free(at);
        return false;
    }
    *ret_bytes = (struct bytes){at, length / 2};
    return true;
}

static bool bytes_of_text(const char *text, struct bytes *ret_bytes) {
    ret_bytes->at = (uint8_t *)strdup(text);
    ret_bytes->size = strlen(text);
    return ret_bytes->at != NULL;
}

/* All of standard input, up to one byte more than a value can have. */
static bool bytes_of_stdin(struct bytes *ret_bytes) {
    uint8_t *at = malloc(SHELF_TX_BYTES_MAX + 1);
    if (!at) {
        return false;
    }
    size_t size = fread(at, 1, SHELF_TX_BYTES_MAX + 1, stdin);
    if (ferror(stdin)) {
        free(at);
        return false;
    }
    ret_bytes->at = at;
    ret_bytes->size = size;
    return true;
}

int bytes_parse(const struct call *call, const char *text, bool from_stdin, struct bytes *ret_bytes) {
    bool hex = call_option(call, "hex") != NULL;
    if (from_stdin && strcmp(text, "-") == 0) {
        return bytes_of_stdin(ret_bytes) ? 0 : fail(call, SHELF_IO, "standard input cannot be read");
    }
    if (hex ? bytes_of_hex(text, ret_bytes) : bytes_of_text(text, ret_bytes)) {
        return 0;
    }
    return fail(call, hex ? SHELF_INVALID : SHELF_NO_MEMORY,
                hex ? "'%s' is no even number of hexadecimal digits" : "no memory for '%s'", text);
}

static void hex_print(FILE *out, const struct bytes *bytes) {
    for (size_t i = 0; i < bytes->size; i++) {
        (void)fprintf(out, "%02x", bytes->at[i]);
    }
}

void bytes_print(FILE *out, const struct bytes *bytes, bool hex) {
    if (hex) {
        hex_print(out, bytes);
    } else {
        (void)fwrite(bytes->at, 1, bytes->size, out);
    }
}

void bytes_json(json_t *object, const char *name, const struct bytes *bytes) {
    char encoding_name[32];
    const char *encoding;
    (void)snprintf(encoding_name, sizeof(encoding_name), "%s_encoding", name);
    (void)json_object_set_new(object, name, json_bytes(bytes->at, bytes->size, &encoding));
    (void)json_object_set_new(object, encoding_name, json_string(encoding));
}
