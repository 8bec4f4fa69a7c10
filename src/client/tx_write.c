// SPDX-License-Identifier: Apache-2.0
/*
 * tx_write.c: what a transaction wants to change, line by line, and the request that says so (wire/request.h).
 *
 *   W1  A byte of a line is in `mask` exactly if it was written; its newest value is in `bytes`.
 *   W2  A word with operations was neither read nor written, nor will be: `mask` and `words` never overlap.
 *   W3  A call that fails has changed nothing: room is made before the first byte.
 */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/detail.h"
#include "client/tx_state.h"

/* Each line becomes at least one range of 16 bytes with 8 of data. */
#define WRITE_LINES_MAX (REQUEST_RANGES_BYTES_MAX / (sizeof(struct record_range) + 8))

/* ---- Lines with changes ------------------------------------------------------------------------------------------- */

/* Bits first..first+count-1; count from 1 to 64. */
static inline uint64_t bits_make(size_t first, size_t count) {
    return (~(uint64_t)0 >> (64 - count)) << first;
}

/* The words that any of these bytes is in, one bit each. */
static inline uint64_t words_of(size_t first, size_t count) {
    return bits_make(first / 8, (first + count - 1) / 8 - first / 8 + 1);
}

static struct write_line *line_find(struct shelf_tx *tx, uint64_t line) {
    if (!tx->writes)
        return NULL;
    if (tx->write_last < tx->write_count && tx->writes[tx->write_last].line == line)
        return &tx->writes[tx->write_last];
    uint32_t position = line_table_find(&tx->write_table, line);
    if (position == LINE_TABLE_NONE)
        return NULL;
    tx->write_last = position;
    return &tx->writes[position];
}

/* Room was made by lines_reserve(). */
static struct write_line *line_find_or_add(struct shelf_tx *tx, uint64_t line) {
    struct write_line *found = line_find(tx, line);
    if (found)
        return found;
    ASSERT(tx->write_count < tx->write_capacity);
    uint32_t position = (uint32_t)tx->write_count++;
    line_table_add(&tx->write_table, line, position);
    tx->write_last = position;
    tx->writes[position].line = line;
    tx->writes[position].mask = 0;
    tx->writes[position].words = 0;
    return &tx->writes[position];
}

/* Room for `count` lines from `first` on, if they are new. */
static shelf_result lines_reserve(struct shelf_tx *tx, uint64_t first, size_t count) {
    size_t more = count;
    if (tx->write_count + more > WRITE_LINES_MAX) {
        for (uint64_t line = first; line < first + count; line++)
            more -= line_find(tx, line) != NULL;
    }
    if (tx->write_count + more > WRITE_LINES_MAX) {
        detail_set("a transaction changes at most %zu lines of %u bytes", WRITE_LINES_MAX, LINE_SIZE);
        return SHELF_TOO_LARGE;
    }
    if (!TX_ARRAY_RESERVE(tx->writes, tx->write_capacity, tx->write_count + more))
        return SHELF_NO_MEMORY;
    if (!line_table_reserve(&tx->write_table, more)) {
        detail_set("no memory for a larger transaction");
        return SHELF_NO_MEMORY;
    }
    return SHELF_OK;
}

/* ---- Reads with own writes on top --------------------------------------------------------------------------------- */

static shelf_result operation_hidden(shelf_addr from) {
    detail_set("the word at region %u, offset %llu has an add/min/max/and/or in this transaction: what it "
               "will be is only "
               "known after the commit",
               shelf_addr_region(from), (unsigned long long)shelf_addr_offset(from));
    return SHELF_INVALID;
}

shelf_result tx_line_read_merged(struct shelf_tx *tx, shelf_addr from, void *to, size_t size) {
    const struct write_line *line = line_find(tx, from >> LINE_SHIFT);
    if (!line)
        return tx_line_read(tx, from, to, size);
    size_t first = from & LINE_MASK;
    uint64_t wanted = bits_make(first, size);
    if (line->words & words_of(first, size))
        return operation_hidden(from);
    if ((line->mask & wanted) == wanted) {
        /* All of it is our own, so nobody else's change matters. */
        shelf_result result = tx_range_check(tx, from, size);
        if (result == SHELF_OK)
            memcpy(to, line->bytes + first, size);
        return result;
    }
    shelf_result result = tx_line_read(tx, from, to, size);
    if (result != SHELF_OK)
        return result;
    uint8_t *bytes = to;
    for (uint64_t rest = line->mask & wanted; rest; rest &= rest - 1) {
        size_t at = (size_t)__builtin_ctzll(rest);
        bytes[at - first] = line->bytes[at];
    }
    return SHELF_OK;
}

bool tx_range_written(const struct shelf_tx *tx, shelf_addr from, size_t size) {
    uint64_t first = from >> LINE_SHIFT, last = (from + size - 1) >> LINE_SHIFT;
    if (last - first < tx->write_count) {
        for (uint64_t line = first; line <= last; line++) {
            if (line_table_find(&tx->write_table, line) != LINE_TABLE_NONE)
                return true;
        }
        return false;
    }
    for (size_t i = 0; i < tx->write_count; i++) {
        if (tx->writes[i].line >= first && tx->writes[i].line <= last)
            return true;
    }
    return false;
}

/* ---- Writes ------------------------------------------------------------------------------------------------------- */

/* May this transaction change this range at all? */
static shelf_result change_check(struct shelf_tx *tx, shelf_addr to, size_t size) {
    if (tx->slow & TX_FAILED)
        return tx_failure_repeat(tx);
    if (!(tx->flags & SHELF_READ_WRITE)) {
        detail_set("the transaction was begun with SHELF_READ_ONLY");
        return SHELF_INVALID;
    }
    if (shelf_addr_region(to) == REGION_SYSTEM) {
        detail_set("the system region belongs to the node");
        return SHELF_DENIED;
    }
    return tx_range_check(tx, to, size);
}

/* How many bytes of the range were not written before; INVALID where there are operations. */
static shelf_result write_check(struct shelf_tx *tx, shelf_addr to, size_t size) {
    uint64_t fresh = 0;
    while (size > 0) {
        size_t first = to & LINE_MASK, part = LINE_SIZE - first < size ? LINE_SIZE - first : size;
        const struct write_line *line = line_find(tx, to >> LINE_SHIFT);
        if (line && (line->words & words_of(first, part)))
            return operation_hidden(to);
        uint64_t bits = bits_make(first, part);
        fresh += (uint64_t)__builtin_popcountll(line ? bits & ~line->mask : bits);
        to += part;
        size -= part;
    }
    if (fresh > SHELF_TX_BYTES_MAX - tx->write_bytes) {
        detail_set("a transaction writes at most %zu bytes", SHELF_TX_BYTES_MAX);
        return SHELF_TOO_LARGE;
    }
    return SHELF_OK;
}

shelf_result shelf_write(struct shelf_tx *tx, shelf_addr to, const void *from, size_t size) {
    shelf_result result = change_check(tx, to, size);
    if (result != SHELF_OK || size == 0)
        return result;
    if (tx->operation_count > 0 || size > SHELF_TX_BYTES_MAX - tx->write_bytes) {
        result = write_check(tx, to, size);
        if (result != SHELF_OK)
            return result;
    }
    result = lines_reserve(tx, to >> LINE_SHIFT, ((to & LINE_MASK) + size + LINE_SIZE - 1) / LINE_SIZE);
    if (result != SHELF_OK)
        return result;
    tx_slow_set(tx, TX_EFFECTS);
    tx->dirty = true;
    const uint8_t *bytes = from;
    while (size > 0) {
        size_t first = to & LINE_MASK, part = LINE_SIZE - first < size ? LINE_SIZE - first : size;
        struct write_line *line = line_find_or_add(tx, to >> LINE_SHIFT);
        uint64_t bits = bits_make(first, part);
        tx->write_bytes += line->mask == 0 ? part : (uint64_t)__builtin_popcountll(bits & ~line->mask);
        line->mask |= bits;
        memcpy(line->bytes + first, bytes, part);
        to += part;
        bytes += part;
        size -= part;
    }
    return SHELF_OK;
}

/* ---- Operations --------------------------------------------------------------------------------------------------- */

/* Was the word read, or part of a view? */
static bool word_read(const struct shelf_tx *tx, shelf_addr word) {
    uint8_t bit = (uint8_t)(1u << (word >> 3 & 7));
    for (size_t i = 0; i < tx_read_count(tx); i++) {
        if (read_entry_line(tx->reads[i]) != word >> LINE_SHIFT)
            continue;
        if ((i < tx->read_compacted ? tx->read_words[i] : read_entry_words(tx->reads[i])) & bit)
            return true;
    }
    for (size_t i = 0; i < tx->view_count; i++) {
        if (word + 8 > tx->views[i].from && word < tx->views[i].from + tx->views[i].size)
            return true;
    }
    return false;
}

static shelf_result word_check(struct shelf_tx *tx, shelf_addr word) {
    if (word & 7) {
        detail_set("the word at offset %llu of region %u is not aligned to 8",
                   (unsigned long long)shelf_addr_offset(word), shelf_addr_region(word));
        return SHELF_INVALID;
    }
    const struct write_line *line = line_find(tx, word >> LINE_SHIFT);
    uint64_t bit = words_of(word & LINE_MASK, 8);
    if (line && (line->words & bit))
        return SHELF_OK; /* it has operations already: checked then, and refused to reads and writes since (W2) */
    if ((line && (line->mask & bits_make(word & LINE_MASK, 8))) || word_read(tx, word)) {
        detail_set("the word at region %u, offset %llu was read or written by this transaction: write its "
                   "new value instead",
                   shelf_addr_region(word), (unsigned long long)shelf_addr_offset(word));
        return SHELF_INVALID;
    }
    return SHELF_OK;
}

static shelf_result operation_add(struct shelf_tx *tx, uint32_t code, shelf_addr word, uint64_t operand) {
    shelf_result result = change_check(tx, word, 8);
    if (result == SHELF_OK)
        result = word_check(tx, word);
    if (result != SHELF_OK)
        return result;
    if (tx->operation_count == SHELF_TX_OPERATIONS_MAX) {
        detail_set("a transaction has at most %u operations", SHELF_TX_OPERATIONS_MAX);
        return SHELF_TOO_LARGE;
    }
    result = lines_reserve(tx, word >> LINE_SHIFT, 1);
    if (result != SHELF_OK)
        return result;
    if (!TX_ARRAY_RESERVE(tx->operations, tx->operation_capacity, tx->operation_count + 1))
        return SHELF_NO_MEMORY;
    tx_slow_set(tx, TX_EFFECTS);
    tx->dirty = true;
    line_find_or_add(tx, word >> LINE_SHIFT)->words |= words_of(word & LINE_MASK, 8);
    tx->operations[tx->operation_count++] =
        (struct request_operation){.address = word, .operand = operand, .code = code};
    return SHELF_OK;
}

shelf_result shelf_add(struct shelf_tx *tx, shelf_addr word, uint64_t operand) {
    return operation_add(tx, OPERATION_ADD, word, operand);
}
shelf_result shelf_min(struct shelf_tx *tx, shelf_addr word, uint64_t operand) {
    return operation_add(tx, OPERATION_MIN, word, operand);
}
shelf_result shelf_max(struct shelf_tx *tx, shelf_addr word, uint64_t operand) {
    return operation_add(tx, OPERATION_MAX, word, operand);
}
shelf_result shelf_and(struct shelf_tx *tx, shelf_addr word, uint64_t operand) {
    return operation_add(tx, OPERATION_AND, word, operand);
}
shelf_result shelf_or(struct shelf_tx *tx, shelf_addr word, uint64_t operand) {
    return operation_add(tx, OPERATION_OR, word, operand);
}

/* ---- The request -------------------------------------------------------------------------------------------------- */

bool tx_has_effects(const struct shelf_tx *tx) {
    return tx->slow & TX_EFFECTS;
}

/* The most that one line can add: every other byte of it written, and the end of the range before. */
#define LINE_ENCODED_MAX ((LINE_SIZE / 2) * (sizeof(struct record_range) + 8) + 8)

static shelf_result encode_reserve(struct shelf_tx *tx, size_t size) {
    return TX_ARRAY_RESERVE(tx->encoded, tx->encoded_capacity, size) ? SHELF_OK : SHELF_NO_MEMORY;
}

/* Line numbers of the read set and of all views. */
static shelf_result lines_encode(struct shelf_tx *tx, size_t *at, uint32_t *ret_count) {
    if (!tx_reads_compact(tx))
        return SHELF_NO_MEMORY;
    uint64_t count = tx_read_count(tx);
    for (size_t i = 0; i < tx->view_count; i++) {
        const struct view_range *view = &tx->views[i];
        count += ((view->from + view->size - 1) >> LINE_SHIFT) - (view->from >> LINE_SHIFT) + 1;
    }
    if (count > SHELF_TX_LINES_READ_MAX) {
        detail_set("a read-write transaction reads at most %zu lines of %u bytes, views included",
                   SHELF_TX_LINES_READ_MAX, LINE_SIZE);
        return SHELF_TOO_LARGE;
    }
    shelf_result result = encode_reserve(tx, *at + (size_t)count * sizeof(uint64_t));
    if (result != SHELF_OK)
        return result;
    uint64_t *lines = (uint64_t *)(void *)(tx->encoded + *at);
    for (size_t i = 0; i < tx_read_count(tx); i++)
        *lines++ = read_entry_line(tx->reads[i]);
    for (size_t i = 0; i < tx->view_count; i++) {
        uint64_t last = (tx->views[i].from + tx->views[i].size - 1) >> LINE_SHIFT;
        for (uint64_t line = tx->views[i].from >> LINE_SHIFT; line <= last; line++)
            *lines++ = line;
    }
    *at += (size_t)count * sizeof(uint64_t);
    *ret_count = (uint32_t)count;
    return SHELF_OK;
}

static shelf_result operations_encode(struct shelf_tx *tx, size_t *at) {
    size_t size = tx->operation_count * sizeof(tx->operations[0]);
    shelf_result result = encode_reserve(tx, *at + size);
    if (result == SHELF_OK && size > 0) {
        memcpy(tx->encoded + *at, tx->operations, size);
        *at += size;
    }
    return result;
}

/* The range that is being written out: it goes on as long as addresses follow one another. */
struct open_range {
    size_t head; /* where its record_range is */
    shelf_addr end;
    uint32_t count; /* of ranges, this one included */
};

static void range_close(struct shelf_tx *tx, struct open_range *open, size_t *at) {
    if (open->count == 0)
        return;
    struct record_range *range = (struct record_range *)(void *)(tx->encoded + open->head);
    size_t size = *at - open->head - sizeof(*range);
    range->size = (uint32_t)size;
    size_t padding = -size & 7;
    memset(tx->encoded + *at, 0, padding);
    *at += padding;
}

static void run_encode(struct shelf_tx *tx, struct open_range *open, size_t *at, shelf_addr address,
                       const uint8_t *bytes, size_t size) {
    if (open->count == 0 || open->end != address) {
        range_close(tx, open, at);
        *(struct record_range *)(void *)(tx->encoded + *at) = (struct record_range){.address = address};
        open->head = *at;
        open->count++;
        *at += sizeof(struct record_range);
    }
    memcpy(tx->encoded + *at, bytes, size);
    *at += size;
    open->end = address + size;
}

static shelf_result ranges_encode(struct shelf_tx *tx, size_t *at, uint32_t *ret_count) {
    struct open_range open = {0};
    size_t start = *at;
    for (size_t i = 0; i < tx->write_count; i++) {
        const struct write_line *line = &tx->writes[i];
        if (tx->encoded_capacity - *at < LINE_ENCODED_MAX) {
            shelf_result result = encode_reserve(tx, *at + LINE_ENCODED_MAX);
            if (result != SHELF_OK)
                return result;
        }
        for (uint64_t rest = line->mask; rest;) {
            size_t first = (size_t)__builtin_ctzll(rest);
            uint64_t shifted = ~(rest >> first);
            size_t count = shifted ? (size_t)__builtin_ctzll(shifted) : LINE_SIZE;
            count = count < LINE_SIZE - first ? count : LINE_SIZE - first;
            run_encode(tx, &open, at, (line->line << LINE_SHIFT) + first, line->bytes + first, count);
            rest &= ~bits_make(first, count);
        }
        if (*at - start > REQUEST_RANGES_BYTES_MAX) {
            detail_set("the encoded transaction is over %zu bytes; write fewer or larger pieces",
                       REQUEST_RANGES_BYTES_MAX);
            return SHELF_TOO_LARGE;
        }
    }
    range_close(tx, &open, at);
    *ret_count = open.count;
    return SHELF_OK;
}

shelf_result tx_encode(struct shelf_tx *tx, uint64_t session, uint64_t holder, uint64_t sequence,
                       const struct commit_request **ret_request) {
    struct commit_request request = {
        .header = {.kind = REQUEST_COMMIT},
        .session = session,
        .holder = holder,
        .sequence = sequence,
        .index = tx->index,
        .epoch = atomic_load_explicit(&tx_replica(tx)->image->epoch, memory_order_relaxed),
        .operation_count = (uint32_t)tx->operation_count,
    };
    size_t at = sizeof(request);
    shelf_result result = encode_reserve(tx, at + LINE_ENCODED_MAX);
    if (result == SHELF_OK)
        result = lines_encode(tx, &at, &request.line_count);
    if (result == SHELF_OK)
        result = operations_encode(tx, &at);
    size_t ranges = at;
    if (result == SHELF_OK)
        result = ranges_encode(tx, &at, &request.range_count);
    if (result != SHELF_OK)
        return result;
    if (at - ranges > REQUEST_RANGES_BYTES_MAX) {
        detail_set("the encoded transaction is over %zu bytes; write fewer or larger pieces",
                   REQUEST_RANGES_BYTES_MAX);
        return SHELF_TOO_LARGE;
    }
    request.ranges_size = (uint32_t)(at - ranges);
    request.header.size = (uint32_t)at;
    memcpy(tx->encoded, &request, sizeof(request));
    *ret_request = (const struct commit_request *)(const void *)tx->encoded;
    return SHELF_OK;
}

void tx_retarget(struct shelf_tx *tx, uint64_t session, uint64_t holder, uint64_t sequence) {
    struct commit_request *request = (struct commit_request *)(void *)tx->encoded;
    request->session = session;
    request->holder = holder;
    request->sequence = sequence;
}
