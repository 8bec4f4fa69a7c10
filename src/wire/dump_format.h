// SPDX-License-Identifier: Apache-2.0
/*
 * dump_format.h: a region as one portable file, made by `shelf dump` and read by `shelf load`. Little-endian.
 *
 *     dump_header | dump_chunk, its bytes | dump_chunk, its bytes | ... | dump_trailer
 *
 *   F1  Chunks come in order of their offsets, do not overlap, and lie within the region; offsets and sizes are
 *       multiples of 4096. What no chunk covers is zero.
 *   F2  Nothing follows the trailer. A file without one is truncated.
 *   F3  Every byte is covered: the bytes of a chunk by its crc, all headers by their own crc and by the trailer's total.
 *
 * The region's number is in the header because addresses contain it: what a program stored itself in the form of a
 * shelf_addr is right only under the same number. Shelf's own structures store offsets and do not care.
 */
#ifndef WIRE_DUMP_FORMAT_H
#define WIRE_DUMP_FORMAT_H

#include <stdint.h>

#define DUMP_FORMAT_VERSION  1u
#define DUMP_CHUNK_BYTES_MAX (1u << 20)

#define DUMP_MAGIC 0x504d44464c454853ull /* "SHELFDMP" */
struct dump_header {
    uint64_t magic;
    uint32_t crc; /* CRC32C of this struct with crc as zero */
    uint16_t format;
    uint16_t group;
    uint8_t shelf_id[16]; /* of the shelf that it was taken from */
    uint64_t index;       /* the region as of exactly this index */
    uint64_t epoch;       /* of that record */
    uint64_t time_ms;     /* when the checkpoint was begun */
    uint64_t size;        /* of the region */
    uint64_t size_max;
    uint32_t region; /* its number */
    uint32_t reserved0;
    char name[64]; /* NUL-terminated */
    uint64_t reserved[14];
};
_Static_assert(sizeof(struct dump_header) == 256, "format");

#define DUMP_CHUNK_MAGIC 0x4b4843464c454853ull /* "SHELFCHK" */
struct dump_chunk {
    uint64_t magic;
    uint32_t crc;  /* CRC32C of this struct with crc as zero, then of the bytes */
    uint32_t size; /* of the bytes that follow: 4096 to DUMP_CHUNK_BYTES_MAX */
    uint64_t offset;
    uint64_t reserved;
};
_Static_assert(sizeof(struct dump_chunk) == 32, "format");

#define DUMP_TRAILER_MAGIC 0x444e45464c454853ull /* "SHELFEND" */
struct dump_trailer {
    uint64_t magic;
    uint32_t crc; /* CRC32C of this struct with crc as zero */
    uint32_t
        total_crc; /* CRC32C of the dump_header and all dump_chunks (without their bytes) one after the other */
    uint64_t chunk_count;
    uint64_t byte_count; /* in all chunks */
};
_Static_assert(sizeof(struct dump_trailer) == sizeof(struct dump_chunk), "format");

#endif
