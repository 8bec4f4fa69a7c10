// SPDX-License-Identifier: Apache-2.0
/*
 * log_format.h: the log on disk. All integers are little-endian.
 *
 * The file `log` is an array of segments of LOG_SEGMENT_BYTES. A segment starts with a header block (one alignment
 * unit), then records, each starting on an alignment unit (512 or 4096 bytes, chosen when the shelf is made). The
 * order of segments is that of their sequence numbers, not of their places. What follows the last record of a segment
 * is older bytes, to be ignored.
 *
 *     record:   record_header | payload | zeros up to the alignment
 *     payload:  record_tx, its ranges, record_tx, its ranges, ...
 *     range:    record_range | bytes | zeros up to 8
 *
 * `chain` of a record is CRC32C, seeded with the chain of the record before it, over its header with chain and
 * header_crc as zero, and its payload. Index, epoch, size and chain are a record's *identity*; the next record repeats it.
 * Headers carry the shelf's own random id and their own place, so that foreign, older and misdirected bytes are known
 * as what they are.
 */
#ifndef WIRE_LOG_FORMAT_H
#define WIRE_LOG_FORMAT_H

#include <stdint.h>

#define LOG_FORMAT_VERSION 1u

#define SEGMENT_MAGIC 0x474553464c454853ull /* "SHELFSEG" */
struct segment_header {
    uint64_t magic;
    uint32_t crc; /* CRC32C of this struct with crc as zero */
    uint16_t format;
    uint16_t group;
    uint8_t shelf_id[16];
    uint64_t sequence;    /* 1, 2, 3, ...: the order of segments */
    uint64_t index_first; /* of the first record */
    uint64_t place;       /* which segment of the file this is */
    uint64_t
        offset_first; /* where that record begins; 0: behind this header. Else a checkpoint of a peer ends before it */
};
_Static_assert(sizeof(struct segment_header) == 64, "format");

#define RECORD_MAGIC 0x434552464c454853ull /* "SHELFREC" */
enum record_kind {
    RECORD_DATA = 1,
    RECORD_OPENING = 2, /* the first record of an epoch; carries no transactions of clients */
};
struct record_header {
    uint64_t magic;
    uint32_t header_crc; /* CRC32C of this struct with header_crc as zero */
    uint32_t chain;
    uint8_t shelf_id[16];
    uint64_t index;
    uint64_t epoch;
    uint64_t commit_hint;      /* commit index known to the writer */
    uint64_t segment_sequence; /* own place */
    uint64_t segment_offset;
    uint64_t time_ms;
    uint64_t previous_epoch; /* identity of record index - 1 */
    uint32_t previous_size;
    uint32_t previous_chain;
    uint32_t payload_size; /* without the final zeros */
    uint32_t tx_count;
    uint16_t kind;
    uint16_t format;
    uint16_t group;
    uint16_t reserved[9];
};
_Static_assert(sizeof(struct record_header) == 128, "format");

struct record_tx {
    uint64_t session; /* 0: the node itself */
    uint64_t sequence;
    uint32_t range_count;
    uint32_t size; /* of its ranges, in bytes */
};
_Static_assert(sizeof(struct record_tx) == 24, "format");

struct record_range {
    uint64_t address;
    uint32_t size; /* bytes that follow, before padding to 8 */
    uint32_t reserved;
};
_Static_assert(sizeof(struct record_range) == 16, "format");

/* The file `promise`, of a node of a cluster: two blocks of PROMISE_BLOCK_SIZE, written in turn: the highest epoch that it
 * has promised to acknowledge nothing below of. */
#define PROMISE_MAGIC      0x4d4f5250464c4853ull /* "SHLFPROM" */
#define PROMISE_BLOCK_SIZE 4096u
struct promise_block {
    uint64_t magic;
    uint32_t crc; /* CRC32C of this struct with crc as zero */
    uint16_t format;
    uint16_t group;
    uint8_t shelf_id[16];
    uint64_t epoch; /* the higher one is the newer */
    uint64_t reserved[3];
};
_Static_assert(sizeof(struct promise_block) == 64, "format");

/* The file `hint`: two blocks of one alignment unit, written in turn: the commit index when the node is idle. */
#define HINT_MAGIC 0x544e48464c454853ull /* "SHELFHNT" */
struct hint_block {
    uint64_t magic;
    uint32_t crc; /* CRC32C of this struct with crc as zero */
    uint16_t format;
    uint16_t group;
    uint8_t shelf_id[16];
    uint64_t index;
    uint64_t epoch;
    uint32_t chain;
    uint32_t clean;    /* 1: the node was closed; no record after this one was ever sent */
    uint64_t sequence; /* counts hints: the higher one is the newer */
};
_Static_assert(sizeof(struct hint_block) == 64, "format");

#endif
