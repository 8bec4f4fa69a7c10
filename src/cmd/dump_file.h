// SPDX-License-Identifier: Apache-2.0
/* dump_file.h: dump files (wire/dump_format.h), written and read as streams. */
#ifndef CMD_DUMP_FILE_H
#define CMD_DUMP_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "wire/dump_format.h"

/* ---- Writing: false is an error of the stream ---------------------------------------------------------------------- */

struct dump_writer {
    FILE *out;
    uint32_t total_crc;
    uint64_t chunk_count, byte_count, written;
};

/* Fills in magic, format and checksum of the header. */
bool dump_write_begin(struct dump_writer *writer, FILE *out, struct dump_header *header);
/* Leaves zeros out. Offset and size are multiples of 4096, the size is DUMP_CHUNK_BYTES_MAX at most. */
bool dump_write(struct dump_writer *writer, uint64_t offset, const uint8_t *bytes, size_t size);
bool dump_write_end(struct dump_writer *writer);

/* ---- Reading: trusts nothing --------------------------------------------------------------------------------------- */

/* Reads up to `size` bytes; fewer only at the end of the input or after an error. */
typedef size_t (*dump_read_function)(void *context, void *to, size_t size);

struct dump_reader {
    dump_read_function read;
    void *context;
    uint8_t *buffer; /* the caller's, DUMP_CHUNK_BYTES_MAX bytes: the last chunk's bytes */
    struct dump_header header;
    uint64_t position;    /* in the input */
    uint64_t next_offset; /* no chunk begins before it */
    uint32_t total_crc;
    uint64_t chunk_count, byte_count;
    char why[200]; /* after DUMP_BAD: what and where */
};

enum dump_step {
    DUMP_CHUNK, /* ret_chunk is filled, its bytes are in the buffer */
    DUMP_END,   /* everything was there, and right */
    DUMP_BAD,
};

/* Reads the header. False: it is none, see why. */
bool dump_read_begin(struct dump_reader *reader, dump_read_function read, void *context, uint8_t *buffer);
enum dump_step dump_read_next(struct dump_reader *reader, struct dump_chunk *ret_chunk);

#endif
