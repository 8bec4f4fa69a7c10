// SPDX-License-Identifier: Apache-2.0
/* bytes.h: keys, values and records, as people type and see them: as they are, or in hexadecimal digits (--hex). */
#ifndef CMD_BYTES_H
#define CMD_BYTES_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "cmd/command.h"

struct bytes {
    uint8_t *at; /* owned */
    size_t size;
};

/* An argument, or all of standard input for "-", up to one byte more than a value can have. 0, or the exit code of a message. */
int bytes_parse(const struct call *call, const char *text, bool from_stdin, struct bytes *ret_bytes);
void bytes_print(FILE *out, const struct bytes *bytes, bool hex);
/* Sets NAME and NAME_encoding. */
void bytes_json(json_t *object, const char *name, const struct bytes *bytes);

#endif
