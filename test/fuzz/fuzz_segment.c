// SPDX-License-Identifier: Apache-2.0
/*
 * fuzz_segment.c: any bytes as a segment of the log: its header, the chain of records from its first one on, and the search
 * for later ones. If the last byte is odd, checksums are put right on the way, so that what they protect is tried, too.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/crc.h"
#include "cmd/log_read.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good) {
    if (!good) {
        abort();
    }
}

struct bounds {
    const uint8_t *begin, *end;
};

static bool on_range(void *context, const struct record_range *range, const uint8_t *bytes) {
    const struct bounds *bounds = context;
    require((const uint8_t *)range >= bounds->begin && bytes + range->size <= bounds->end);
    return true;
}

/* Makes a record of what lies at the cursor. */
static void record_repair(uint8_t *segment, size_t size, const struct log_cursor *cursor) {
    if (!range_within(cursor->offset, sizeof(struct record_header), size)) {
        return;
    }
    struct record_header *record = (struct record_header *)(segment + cursor->offset);
    record->magic = RECORD_MAGIC;
    memcpy(record->shelf_id, cursor->shelf_id, sizeof(record->shelf_id));
    record->index = cursor->index + 1;
    record->segment_sequence = cursor->segment_sequence;
    record->segment_offset = cursor->offset;
    record->previous_epoch = record->epoch = cursor->epoch;
    record->previous_size = cursor->size;
    record->previous_chain = cursor->chain;
    record->format = LOG_FORMAT_VERSION;
    uint64_t room = size - cursor->offset - sizeof(*record);
    record->payload_size = (uint32_t)min_u64(record->payload_size, room);
    record->chain = record->header_crc = 0;
    record->chain = crc32c(crc32c(cursor->chain, record, sizeof(*record)), record + 1, record->payload_size);
    record->header_crc = crc32c(0, record, sizeof(*record));
}

static void records_follow(uint8_t *segment, size_t size, struct log_cursor cursor, bool repair) {
    for (;;) {
        const struct record_header *record = NULL;
        uint64_t before = cursor.offset;
        if (repair) {
            record_repair(segment, size, &cursor);
        }
        if (record_examine(segment, size, &cursor, &record) != RECORD_GOOD) {
            return;
        }
        const uint8_t *payload = (const uint8_t *)(record + 1);
        struct bounds bounds = {payload, payload + record->payload_size};
        require(bounds.end <= segment + size);
        require(payload_walk(payload, record->payload_size, record->tx_count, on_range, &bounds));
        log_cursor_advance(&cursor, record);
        require(cursor.offset > before && cursor.offset <= size);
    }
}

static void records_search(const uint8_t *segment, size_t size, const struct log_cursor *cursor) {
    uint64_t offset = 0, before = 0;
    bool whole;
    const struct record_header *record;
    while ((record = record_search(segment, size, cursor, 0, &offset, &whole)) != NULL) {
        require(offset > before && (const uint8_t *)(record + 1) <= segment + size);
        before = offset;
    }
    require(offset >= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t nobody[16];
    struct segment_header header = {0};
    uint8_t *segment = malloc(size + 1);
    if (!segment || size == 0 || size > LOG_SEGMENT_BYTES) {
        free(segment);
        return 0;
    }
    memcpy(segment, data, size);
    if (size >= sizeof(header)) {
        memcpy(&header, segment, sizeof(header));
    }
    (void)segment_examine(segment, size, nobody, 0, &header);
    (void)segment_examine(segment, size, header.shelf_id, header.place, &header);
    for (uint32_t alignment = 512; alignment <= 4096; alignment *= 8) {
        struct record_header first = {.index = 1};
        if (size >= alignment + sizeof(first)) {
            memcpy(&first, segment + alignment, sizeof(first));
        }
        struct log_cursor cursor = {.alignment = alignment,
                                    .index = first.index - 1,
                                    .epoch = first.previous_epoch,
                                    .size = first.previous_size,
                                    .chain = first.previous_chain,
                                    .segment_sequence = header.sequence,
                                    .offset = alignment};
        memcpy(cursor.shelf_id, header.shelf_id, sizeof(cursor.shelf_id));
        records_follow(segment, size, cursor, (data[size - 1] & 1) != 0);
        records_search(segment, size, &cursor);
    }
    free(segment);
    return 0;
}
