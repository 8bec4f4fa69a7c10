// SPDX-License-Identifier: Apache-2.0
/*
 * fuzz_dump.c: any bytes as a dump of a region: either all of it is within the rules of wire/dump_format.h, or it is
 * refused with a sentence. If the last byte is odd, checksums are put right first, so that what they protect is tried, too.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/crc.h"
#include "cmd/dump_file.h"
#include "wire/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good) {
    if (!good) {
        abort();
    }
}

struct input {
    const uint8_t *bytes;
    size_t size, at;
};

static size_t input_read(void *context, void *to, size_t size) {
    struct input *input = context;
    size_t part = (size_t)min_u64(size, input->size - input->at);
    memcpy(to, input->bytes + input->at, part);
    input->at += part;
    return part;
}

static void checksums_repair(uint8_t *bytes, size_t size) {
    struct dump_header header;
    if (size < sizeof(header)) {
        return;
    }
    memcpy(&header, bytes, sizeof(header));
    header.crc = 0;
    header.crc = crc32c(0, &header, sizeof(header));
    memcpy(bytes, &header, sizeof(header));
    uint32_t total = crc32c(0, &header, sizeof(header));
    struct dump_chunk chunk;
    for (size_t at = sizeof(header); size - at >= sizeof(chunk);) {
        memcpy(&chunk, bytes + at, sizeof(chunk));
        chunk.crc = 0;
        if (chunk.magic != DUMP_CHUNK_MAGIC || chunk.size > size - at - sizeof(chunk)) {
            struct dump_trailer trailer;
            memcpy(&trailer, &chunk, sizeof(trailer));
            trailer.total_crc = total;
            trailer.crc = 0;
            trailer.crc = crc32c(0, &trailer, sizeof(trailer));
            memcpy(bytes + at, &trailer, sizeof(trailer));
            return;
        }
        chunk.crc = crc32c(crc32c(0, &chunk, sizeof(chunk)), bytes + at + sizeof(chunk), chunk.size);
        memcpy(bytes + at, &chunk, sizeof(chunk));
        total = crc32c(total, &chunk, sizeof(chunk));
        at += sizeof(chunk) + chunk.size;
    }
}

/* Reads all of it. True: it is a whole dump. */
static bool dump_try(const uint8_t *bytes, size_t size, uint8_t *buffer) {
    struct input input = {.bytes = bytes, .size = size};
    struct dump_reader reader;
    struct dump_chunk chunk;
    uint64_t end = 0, count = 0;
    if (!dump_read_begin(&reader, input_read, &input, buffer)) {
        require(reader.why[0] != 0);
        return false;
    }
    enum dump_step step;
    while ((step = dump_read_next(&reader, &chunk)) == DUMP_CHUNK) {
        require(chunk.offset >= end && chunk.size > 0 && chunk.size <= DUMP_CHUNK_BYTES_MAX &&
                range_within(chunk.offset, chunk.size, reader.header.size) && chunk.offset % PAGE_SIZE == 0);
        end = chunk.offset + chunk.size;
        count++;
    }
    require(step == DUMP_END ? reader.chunk_count == count && input.at == size : reader.why[0] != 0);
    return step == DUMP_END;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t buffer[DUMP_CHUNK_BYTES_MAX];
    uint8_t *bytes = malloc(size + 1);
    if (!bytes) {
        return 0;
    }
    memcpy(bytes, data, size);
    if (size > 0 && (data[size - 1] & 1) != 0) {
        checksums_repair(bytes, size);
    }
    if (dump_try(bytes, size, buffer)) {
        bytes[size] = 0; /* F2: not a byte more, nor one less */
        require(!dump_try(bytes, size + 1, buffer) && !dump_try(bytes, size - 1, buffer));
    }
    free(bytes);
    return 0;
}
