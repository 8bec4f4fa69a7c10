// SPDX-License-Identifier: Apache-2.0
/* log_read.h: records of the log in a piece of memory. Knows bytes only: any will do. */
#ifndef CMD_LOG_READ_H
#define CMD_LOG_READ_H

#include <stdbool.h>
#include <stddef.h>

#include "wire/limits.h"
#include "wire/log_format.h"

/* The last record known, and where the next one is expected. */
struct log_cursor {
    uint8_t shelf_id[16];
    uint32_t alignment; /* 512 or 4096 */
    uint32_t size;      /* identity of the last record */
    uint32_t chain;
    uint64_t index;
    uint64_t epoch;
    uint64_t segment_sequence; /* 0: there is no segment yet */
    uint64_t offset;           /* in the segment */
};

enum segment_state { SEGMENT_GOOD, SEGMENT_BLANK, SEGMENT_FOREIGN, SEGMENT_CHECKSUM };
/* What a segment's first bytes say. `place` is where in the file it lies. */
enum segment_state segment_examine(const uint8_t *bytes, size_t size, const uint8_t shelf_id[16],
                                   uint64_t place, struct segment_header *ret_header);

enum record_state {
    RECORD_GOOD,     /* the one that is expected */
    RECORD_NONE,     /* no record of this shelf begins here */
    RECORD_OTHER,    /* the header of another record than the expected one */
    RECORD_TORN,     /* the header is the expected one's, but the contents fail the checksum or are cut off */
    RECORD_NONSENSE, /* all checksums are right, but the contents make no sense */
    RECORD_NEWER,    /* of a newer format */
};
/* The record at the cursor. `ret_record` (not touched for NONE) is its header; its payload follows it if GOOD. */
enum record_state record_examine(const uint8_t *segment, size_t size, const struct log_cursor *cursor,
                                 const struct record_header **ret_record);
/* The record at the cursor was GOOD: on to the next one. */
void log_cursor_advance(struct log_cursor *cursor, const struct record_header *record);
/* Bytes that a record takes up, its padding included. */
uint64_t record_extent(const struct record_header *record, uint32_t alignment);

/* Calls `visit` for each range of a payload until it returns false. False: that, or the payload makes no sense. */
typedef bool (*range_visit)(void *context, const struct record_range *range, const uint8_t *bytes);
bool payload_walk(const uint8_t *payload, size_t size, uint32_t tx_count, range_visit visit, void *context);

/* The next header of this shelf with an index above `above`, from *offset on; moves *offset behind its first block.
 * `ret_whole`: the record lies there completely and its contents fit its checksum. NULL: there is none. */
const struct record_header *record_search(const uint8_t *segment, size_t size,
                                          const struct log_cursor *cursor, uint64_t above, uint64_t *offset,
                                          bool *ret_whole);

#endif
