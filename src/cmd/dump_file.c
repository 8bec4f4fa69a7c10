// SPDX-License-Identifier: Apache-2.0
/* dump_file.c: see dump_file.h; the format and its rules F1 to F3 are in wire/dump_format.h. Also a fuzz target. */
#include "cmd/dump_file.h"

#include <string.h>

#include "base/bits.h"
#include "base/crc.h"
#include "wire/limits.h"

/* Stretches of zeros shorter than this are not worth a chunk's header. */
#define ZEROS_WORTH ((size_t)64 << 10)

/* ---- Checksums ----------------------------------------------------------------------------------------------------- */

static uint32_t header_crc(struct dump_header header) {
    header.crc = 0;
    return crc32c(0, &header, sizeof(header));
}

static uint32_t chunk_crc(struct dump_chunk chunk, const uint8_t *bytes) {
    chunk.crc = 0;
    return crc32c(crc32c(0, &chunk, sizeof(chunk)), bytes, chunk.size);
}

static uint32_t trailer_crc(struct dump_trailer trailer) {
    trailer.crc = 0;
    return crc32c(0, &trailer, sizeof(trailer));
}

/* ---- Writing ------------------------------------------------------------------------------------------------------- */

static bool put(struct dump_writer *writer, const void *bytes, size_t size) {
    writer->written += size;
    return fwrite(bytes, 1, size, writer->out) == size;
}

bool dump_write_begin(struct dump_writer *writer, FILE *out, struct dump_header *header) {
    *writer = (struct dump_writer){.out = out};
    header->magic = DUMP_MAGIC;
    header->format = DUMP_FORMAT_VERSION;
    header->crc = header_crc(*header);
    writer->total_crc = crc32c(0, header, sizeof(*header));
    return put(writer, header, sizeof(*header));
}

static bool chunk_write(struct dump_writer *writer, uint64_t offset, const uint8_t *bytes, size_t size) {
    struct dump_chunk chunk = {.magic = DUMP_CHUNK_MAGIC, .size = (uint32_t)size, .offset = offset};
    chunk.crc = chunk_crc(chunk, bytes);
    writer->total_crc = crc32c(writer->total_crc, &chunk, sizeof(chunk));
    writer->chunk_count++;
    writer->byte_count += size;
    return put(writer, &chunk, sizeof(chunk)) && put(writer, bytes, size);
}

static bool is_zero(const uint8_t *bytes, size_t size) {
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

bool dump_write(struct dump_writer *writer, uint64_t offset, const uint8_t *bytes, size_t size) {
    size_t from = 0;
    bool good = true;
    for (size_t at = 0; at < size && good; at += ZEROS_WORTH) {
        size_t part = (size_t)min_u64(ZEROS_WORTH, size - at);
        if (!is_zero(bytes + at, part)) {
            continue;
        }
        good = at == from || chunk_write(writer, offset + from, bytes + from, at - from);
        from = at + part;
    }
    return good && (from >= size || chunk_write(writer, offset + from, bytes + from, size - from));
}

bool dump_write_end(struct dump_writer *writer) {
    struct dump_trailer trailer = {.magic = DUMP_TRAILER_MAGIC,
                                   .total_crc = writer->total_crc,
                                   .chunk_count = writer->chunk_count,
                                   .byte_count = writer->byte_count};
    trailer.crc = trailer_crc(trailer);
    return put(writer, &trailer, sizeof(trailer)) && fflush(writer->out) == 0;
}

/* ---- Reading ------------------------------------------------------------------------------------------------------- */

static enum dump_step bad(struct dump_reader *reader, uint64_t position, const char *what) {
    (void)snprintf(reader->why, sizeof(reader->why), "at byte %llu: %s", (unsigned long long)position, what);
    return DUMP_BAD;
}

static bool take(struct dump_reader *reader, void *to, size_t size) {
    size_t done = reader->read(reader->context, to, size);
    reader->position += done;
    return done == size;
}

static bool header_is_sane(const struct dump_header *header) {
    size_t length = strnlen(header->name, sizeof(header->name));
    return header->size > 0 && header->size % PAGE_SIZE == 0 && header->size <= header->size_max &&
           header->size_max <= SHELF_REGION_BYTES_MAX && length > 0 && length <= SHELF_NAME_MAX &&
           header->region > REGION_SYSTEM && header->region < REGION_NUMBERS;
}

bool dump_read_begin(struct dump_reader *reader, dump_read_function read, void *context, uint8_t *buffer) {
    *reader = (struct dump_reader){.read = read, .context = context, .buffer = buffer};
    struct dump_header *header = &reader->header;
    if (!take(reader, header, sizeof(*header))) {
        (void)bad(reader, reader->position,
                  "it ends within its header, so it is truncated or no dump at all");
    } else if (header->magic != DUMP_MAGIC) {
        (void)bad(reader, 0, "it is no dump of a region");
    } else if (header->format > DUMP_FORMAT_VERSION) {
        (void)bad(reader, 0, "it was made by a newer version of Shelf");
    } else if (header_crc(*header) != header->crc) {
        (void)bad(reader, 0, "its header fails its checksum");
    } else if (header->format != DUMP_FORMAT_VERSION || !header_is_sane(header)) {
        (void)bad(reader, 0, "its header makes no sense");
    } else {
        reader->total_crc = crc32c(0, header, sizeof(*header));
        return true;
    }
    return false;
}

static enum dump_step trailer_check(struct dump_reader *reader, const struct dump_chunk *bytes,
                                    uint64_t position) {
    struct dump_trailer trailer;
    memcpy(&trailer, bytes, sizeof(trailer));
    if (trailer_crc(trailer) != trailer.crc) {
        return bad(reader, position, "its trailer fails its checksum");
    }
    if (trailer.total_crc != reader->total_crc || trailer.chunk_count != reader->chunk_count ||
        trailer.byte_count != reader->byte_count) {
        return bad(reader, position, "pieces are missing before it, or there are too many");
    }
    uint8_t more;
    if (reader->read(reader->context, &more, 1) != 0) {
        return bad(reader, reader->position, "something follows its end"); /* F2 */
    }
    return DUMP_END;
}

enum dump_step dump_read_next(struct dump_reader *reader, struct dump_chunk *ret_chunk) {
    struct dump_chunk chunk;
    uint64_t position = reader->position;
    if (!take(reader, &chunk, sizeof(chunk))) {
        return bad(reader, reader->position, "it ends there, so it is truncated");
    }
    if (chunk.magic == DUMP_TRAILER_MAGIC) {
        return trailer_check(reader, &chunk, position);
    }
    if (chunk.magic != DUMP_CHUNK_MAGIC) {
        return bad(reader, position, "neither a piece nor the end begins there");
    }
    if (chunk.size == 0 || chunk.size > DUMP_CHUNK_BYTES_MAX ||
        (chunk.size | chunk.offset) % PAGE_SIZE != 0 || chunk.offset < reader->next_offset ||
        !range_within(chunk.offset, chunk.size, reader->header.size)) { /* F1 */
        return bad(reader, position, "a piece has an impossible place or size");
    }
    if (!take(reader, reader->buffer, chunk.size)) {
        return bad(reader, reader->position, "it ends within a piece, so it is truncated");
    }
    if (chunk_crc(chunk, reader->buffer) != chunk.crc) { /* F3 */
        return bad(reader, position, "a piece fails its checksum");
    }
    reader->total_crc = crc32c(reader->total_crc, &chunk, sizeof(chunk));
    reader->next_offset = chunk.offset + chunk.size;
    reader->chunk_count++;
    reader->byte_count += chunk.size;
    *ret_chunk = chunk;
    return DUMP_CHUNK;
}
