// SPDX-License-Identifier: Apache-2.0
/*
 * log_read.c: checks segments and records by wire/log_format.h. Also a fuzz target.
 */
#include "cmd/log_read.h"

#include <string.h>

#include "base/bits.h"
#include "base/crc.h"

/* ---- Segments ------------------------------------------------------------------------------------------------------ */

enum segment_state segment_examine(const uint8_t *bytes, size_t size, const uint8_t shelf_id[16],
                                   uint64_t place, struct segment_header *ret_header) {
    static const struct segment_header blank;
    struct segment_header header;
    if (size < sizeof(header)) {
        return SEGMENT_BLANK;
    }
    memcpy(&header, bytes, sizeof(header));
    if (memcmp(&header, &blank, sizeof(header)) == 0) {
        return SEGMENT_BLANK;
    }
    if (header.magic != SEGMENT_MAGIC) {
        return SEGMENT_FOREIGN;
    }
    struct segment_header copy = header;
    copy.crc = 0;
    if (crc32c(0, &copy, sizeof(copy)) != header.crc) {
        return SEGMENT_CHECKSUM;
    }
    if (header.place != place || memcmp(header.shelf_id, shelf_id, sizeof(header.shelf_id)) != 0) {
        return SEGMENT_FOREIGN;
    }
    *ret_header = header;
    return SEGMENT_GOOD;
}

/* ---- Records ------------------------------------------------------------------------------------------------------- */

uint64_t record_extent(const struct record_header *record, uint32_t alignment) {
    return align_up(sizeof(*record) + (uint64_t)record->payload_size, alignment);
}

static uint32_t chain_of(const struct record_header *record, uint32_t chain_before) {
    struct record_header copy = *record;
    copy.header_crc = 0;
    copy.chain = 0;
    uint32_t chain = crc32c(chain_before, &copy, sizeof(copy));
    return crc32c(chain, record + 1, record->payload_size);
}

/* A header of this shelf whose own checksum is right; NULL if none begins here. */
static const struct record_header *header_at(const uint8_t *segment, size_t size, const uint8_t shelf_id[16],
                                             uint64_t offset) {
    if (!range_within(offset, sizeof(struct record_header), size)) {
        return NULL;
    }
    const struct record_header *record = (const struct record_header *)(segment + offset);
    if (record->magic != RECORD_MAGIC) {
        return NULL;
    }
    struct record_header copy = *record;
    copy.header_crc = 0;
    bool right = crc32c(0, &copy, sizeof(copy)) == record->header_crc &&
                 memcmp(record->shelf_id, shelf_id, sizeof(record->shelf_id)) == 0;
    return right ? record : NULL;
}

static bool is_expected(const struct record_header *record, const struct log_cursor *cursor) {
    return record->index == cursor->index + 1 && record->segment_sequence == cursor->segment_sequence &&
           record->segment_offset == cursor->offset && record->previous_epoch == cursor->epoch &&
           record->previous_size == cursor->size && record->previous_chain == cursor->chain &&
           record->epoch >= cursor->epoch;
}

static bool is_within(const struct record_header *record, uint64_t offset, size_t size, uint32_t alignment) {
    return record->payload_size <= LOG_RECORD_BYTES_MAX &&
           range_within(offset, record_extent(record, alignment), size);
}

enum record_state record_examine(const uint8_t *segment, size_t size, const struct log_cursor *cursor,
                                 const struct record_header **ret_record) {
    const struct record_header *record = header_at(segment, size, cursor->shelf_id, cursor->offset);
    if (!record) {
        return RECORD_NONE;
    }
    *ret_record = record;
    if (record->format > LOG_FORMAT_VERSION) {
        return RECORD_NEWER;
    }
    if (!is_expected(record, cursor)) {
        return RECORD_OTHER;
    }
    if (!is_within(record, cursor->offset, size, cursor->alignment) ||
        chain_of(record, cursor->chain) != record->chain) {
        return RECORD_TORN;
    }
    bool sane =
        payload_walk((const uint8_t *)(record + 1), record->payload_size, record->tx_count, NULL, NULL);
    return sane && record->format == LOG_FORMAT_VERSION ? RECORD_GOOD : RECORD_NONSENSE;
}

void log_cursor_advance(struct log_cursor *cursor, const struct record_header *record) {
    cursor->index = record->index;
    cursor->epoch = record->epoch;
    cursor->size = record->payload_size;
    cursor->chain = record->chain;
    cursor->offset += record_extent(record, cursor->alignment);
}

/* ---- Payloads ------------------------------------------------------------------------------------------------------ */

/* The ranges of one transaction, which fill exactly `size` bytes. */
static bool tx_walk(const uint8_t *at, size_t size, uint32_t range_count, range_visit visit, void *context) {
    for (uint32_t i = 0; i < range_count; i++) {
        if (size < sizeof(struct record_range)) {
            return false;
        }
        const struct record_range *range = (const struct record_range *)at;
        size_t extent = sizeof(*range) + align_up(range->size, 8);
        uint64_t offset = shelf_addr_offset(range->address);
        if (extent > size || shelf_addr_region(range->address) == 0 ||
            !range_within(offset, range->size, SHELF_REGION_BYTES_MAX)) {
            return false;
        }
        if (visit && !visit(context, range, at + sizeof(*range))) {
            return false;
        }
        at += extent;
        size -= extent;
    }
    return size == 0;
}

bool payload_walk(const uint8_t *payload, size_t size, uint32_t tx_count, range_visit visit, void *context) {
    for (uint32_t i = 0; i < tx_count; i++) {
        if (size < sizeof(struct record_tx)) {
            return false;
        }
        const struct record_tx *tx = (const struct record_tx *)payload;
        payload += sizeof(*tx);
        size -= sizeof(*tx);
        if (tx->size > size || tx->size % 8 != 0 ||
            !tx_walk(payload, tx->size, tx->range_count, visit, context)) {
            return false;
        }
        payload += tx->size;
        size -= tx->size;
    }
    return size == 0;
}

/* ---- Search -------------------------------------------------------------------------------------------------------- */

const struct record_header *record_search(const uint8_t *segment, size_t size,
                                          const struct log_cursor *cursor, uint64_t above, uint64_t *offset,
                                          bool *ret_whole) {
    for (uint64_t at = align_up(*offset, cursor->alignment); at < size; at += cursor->alignment) {
        const struct record_header *record = header_at(segment, size, cursor->shelf_id, at);
        if (!record || record->index <= above) {
            continue;
        }
        *offset = at + cursor->alignment;
        *ret_whole = is_within(record, at, size, cursor->alignment) &&
                     chain_of(record, record->previous_chain) == record->chain;
        return record;
    }
    *offset = size;
    return NULL;
}
