// SPDX-License-Identifier: Apache-2.0
/*
 * tx.c: the life of a transaction and its validated reads; the rules R1 to R3 are in tx.h, the protocol in wire/image.h.
 *
 * The fast path of a read is line_try(): version, bytes, version again, one entry in the read set. It has nothing that
 * waits for the data: comparisons are predicted, the second look at the version finds the first one's cache line, and no
 * instruction locks or fences more than the compiler. The version is the page's if that will do, else the line's. Everything
 * unusual is line_mend()'s, out of the way.
 */
#include <stdlib.h>
#include <string.h>

#include "base/detail.h"
#include "client/shared_copy.h"
#include "client/tx_state.h"

#define LIKELY(condition) __builtin_expect(!!(condition), 1)

enum { ARRAY_ITEMS_MIN = 64, READS_MIN = 512, READS_MERGED_MIN = 1 << 16 };

static const char conflict_text[] = "a line that was read has changed since";

/* ---- Begin and end ------------------------------------------------------------------------------------------------ */

static inline void tx_index_set(struct shelf_tx *tx, uint64_t index) {
    tx->index = index;
    tx->version_max = index << 1;
}

static __attribute__((noinline, cold)) shelf_result flags_refuse(void) {
    detail_set(
        "a transaction is begun with either SHELF_READ_ONLY or SHELF_READ_WRITE, and perhaps SHELF_FRESH");
    return SHELF_INVALID;
}

static void hot_forget(struct shelf_tx *tx) {
    tx->hot = (struct hot_region){0};
}

/* The replica stays as long as the transaction says that it uses it: who has put another one in its place looks for such
 * transactions after a barrier of all threads (tx_replica_used()), so that none is needed here. */
static inline const struct replica *replica_take(struct shelf_tx *tx, struct tx_host *host) {
    const struct replica *replica = atomic_load_explicit(&host->replica, memory_order_acquire);
    for (;;) {
        atomic_store_explicit(&tx->replica, replica, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        const struct replica *again = atomic_load_explicit(&host->replica, memory_order_acquire);
        if (LIKELY(again == replica))
            return replica;
        replica = again;
    }
}

shelf_result tx_begin(struct tx_host *host, unsigned flags, struct shelf_tx **ret_tx) {
    unsigned kind = flags & ~(unsigned)SHELF_FRESH;
    if (kind != SHELF_READ_ONLY && kind != SHELF_READ_WRITE)
        return flags_refuse();
    struct shelf_tx *tx = tx_take();
    if (!tx) {
        detail_set("no memory for a transaction");
        return SHELF_NO_MEMORY;
    }
    const struct replica *replica = replica_take(tx, host);
    /* The same replica's index was no newer when the hot region was found. */
    if (tx->slow || replica->id == 0 || tx->hot.replica != replica->id)
        hot_forget(tx);
    tx->flags = flags;
    tx->slow = 0;
    tx->failed = SHELF_OK;
    tx->regions = replica->image->regions;
    tx->maps = replica->maps;
    tx->host = host;
    tx->read_next = tx->reads;
    tx->read_compacted = 0;
    tx->reads_lost = false;
    tx->dirty = false;
    tx->memo.address = 0;
    tx->hint_shift = 0;
    /* (For FRESH, the node has said that what is applied here is what is newest: service_confirm().) */
    tx_index_set(tx, atomic_load_explicit(&replica->image->applied, memory_order_acquire));
    *ret_tx = tx;
    return SHELF_OK;
}

static __attribute__((noinline)) void effects_clear(struct shelf_tx *tx) {
    tx->view_count = 0;
    tx->write_count = 0;
    tx->write_bytes = 0;
    tx->operation_count = 0;
    line_table_clear(&tx->write_table);
    while (tx->copies) {
        struct copy_block *block = tx->copies;
        tx->copies = block->next;
        free(block);
    }
}

void tx_end(struct shelf_tx *tx) {
    if (tx->dirty)
        effects_clear(tx);
    atomic_store_explicit(&tx->replica, NULL, memory_order_release);
    tx_give(tx);
}

void shelf_abort(struct shelf_tx *tx) {
    if (tx)
        tx_end(tx);
}

void *tx_host_bytes(struct shelf_tx *tx) {
    return tx->host_bytes;
}

shelf_result tx_failed(const struct shelf_tx *tx) {
    return tx->failed;
}

shelf_result tx_fail(struct shelf_tx *tx, shelf_result result, const char *detail) {
    tx_slow_set(tx, TX_FAILED);
    tx->failed = result;
    detail_set("%s", detail);
    return result;
}

shelf_result tx_failure_repeat(const struct shelf_tx *tx) {
    if (tx->failed == SHELF_INVALID)
        detail_set("the transaction was begun before the fork, in the parent");
    else
        detail_set("the transaction has failed before (%s)", shelf_result_name(tx->failed));
    return tx->failed;
}

uint64_t shelf_tx_index(const struct shelf_tx *tx) {
    return tx->index;
}

/* The host of a transaction is the first member of the handle. */
shelf *shelf_tx_shelf(const struct shelf_tx *tx) {
    return (shelf *)(void *)tx->host;
}

uint32_t shelf_tx_hint(const struct shelf_tx *tx) {
    return tx_thread_number() + tx->hint_shift;
}

void tx_hint_shift(struct shelf_tx *tx, uint32_t attempt) {
    tx->hint_shift = attempt;
}

void *tx_array_grow(void *array, size_t *capacity, size_t count, size_t item_size) {
    size_t larger = *capacity ? *capacity : ARRAY_ITEMS_MIN;
    while (larger < count)
        larger *= 2;
    void *moved = realloc(array, larger * item_size);
    if (moved)
        *capacity = larger;
    else
        detail_set("no memory for a larger transaction");
    return moved;
}

/* ---- Extension (R2) ----------------------------------------------------------------------------------------------- */

/* Has no line of `count` from this one changed since the transaction's index? */
static bool lines_unchanged(const struct shelf_tx *tx, uint64_t line, uint64_t count) {
    uint64_t number = line >> (ADDRESS_OFFSET_BITS - LINE_SHIFT);
    const struct region_view *region = &tx->regions[number];
    const _Atomic uint64_t *versions = tx->maps[number].versions + (line & (OFFSET_MASK >> LINE_SHIFT));
    uint64_t newest = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t version = atomic_load_explicit(&versions[i], memory_order_relaxed);
        newest = version > newest ? version : newest;
    }
    /* After the versions: a dropped region's memory says nothing. */
    shared_fence_acquire();
    return newest <= tx->version_max &&
           atomic_load_explicit(&region->state, memory_order_relaxed) == REGION_LIVE;
}

static bool views_unchanged(const struct shelf_tx *tx) {
    for (size_t i = 0; i < tx->view_count; i++) {
        const struct view_range *view = &tx->views[i];
        uint64_t first = view->from >> LINE_SHIFT, last = (view->from + view->size - 1) >> LINE_SHIFT;
        if (!lines_unchanged(tx, first, last - first + 1))
            return false;
    }
    return true;
}

static bool reads_unchanged(const struct shelf_tx *tx) {
    if (tx->reads_lost)
        return false;
    for (size_t i = 0; i < tx_read_count(tx); i++) {
        if (!lines_unchanged(tx, read_entry_line(tx->reads[i]), 1))
            return false;
    }
    return true;
}

/* Moves to `applied`, an index that was sampled before this call. */
static shelf_result tx_extend(struct shelf_tx *tx, uint64_t applied) {
    if (!views_unchanged(tx) || !reads_unchanged(tx))
        return tx_fail(tx, SHELF_CONFLICT, conflict_text);
    tx_index_set(tx, applied);
    return SHELF_OK;
}

/* Was anything of the region read or viewed? */
static bool region_seen(const struct shelf_tx *tx, shelf_region region) {
    if (tx->reads_lost)
        return true;
    for (size_t i = 0; i < tx_read_count(tx); i++) {
        if (shelf_addr_region(tx->reads[i]) == region)
            return true;
    }
    for (size_t i = 0; i < tx->view_count; i++) {
        if (shelf_addr_region(tx->views[i].from) == region)
            return true;
    }
    return false;
}

static shelf_result region_missing(struct shelf_tx *tx, shelf_addr from, uint32_t state) {
    shelf_region number = shelf_addr_region(from);
    if (number == 0) {
        detail_set("address 0x%llx is null, or an offset without its region", (unsigned long long)from);
        return SHELF_INVALID;
    }
    if (state == REGION_DROPPED && region_seen(tx, number))
        return tx_fail(tx, SHELF_CONFLICT, "a region that was read has been dropped since");
    detail_set("region %u %s", number, state == REGION_DROPPED ? "has been dropped" : "does not exist");
    return SHELF_NOT_FOUND;
}

/* Where the region's bytes are; NULL: not in this process yet. */
static inline const uint8_t *map_data(const struct shelf_tx *tx, shelf_addr from) {
    return atomic_load_explicit(&tx->maps[shelf_addr_region(from)].data, memory_order_acquire);
}

shelf_result tx_range_check(struct shelf_tx *tx, shelf_addr from, size_t size) {
    const struct region_view *region = &tx->regions[shelf_addr_region(from)];
    uint32_t state = atomic_load_explicit(&region->state, memory_order_acquire);
    if (state != REGION_LIVE)
        return region_missing(tx, from, state);
    uint64_t region_size = atomic_load_explicit(&region->size, memory_order_relaxed);
    uint64_t offset = shelf_addr_offset(from);
    if (size > region_size || offset > region_size - size) {
        detail_set("%zu bytes at offset %llu are not all inside of region %u, which has %llu bytes", size,
                   (unsigned long long)offset, shelf_addr_region(from), (unsigned long long)region_size);
        return SHELF_INVALID;
    }
    if (!map_data(tx, from))
        return tx->host->attach(tx->host, tx_replica(tx), shelf_addr_region(from));
    return SHELF_OK;
}

static bool range_within_hot(const struct shelf_tx *tx, shelf_addr from, size_t size) {
    uint64_t offset = from - tx->hot.base;
    return offset < tx->hot.limit && size <= tx->hot.limit - offset;
}

/* ---- Read set ----------------------------------------------------------------------------------------------------- */

/* Puts one entry into the part that is compacted. */
static bool read_merge(struct shelf_tx *tx, uint64_t entry) {
    uint64_t line = read_entry_line(entry);
    uint32_t position = line_table_find(&tx->seen, line);
    if (position != LINE_TABLE_NONE) {
        tx->read_words[position] |= read_entry_words(entry);
        return true;
    }
    if (!line_table_reserve(&tx->seen, 1))
        return false;
    line_table_add(&tx->seen, line, (uint32_t)tx->read_compacted);
    tx->read_words[tx->read_compacted] = read_entry_words(entry);
    tx->reads[tx->read_compacted++] = entry;
    return true;
}

bool tx_reads_compact(struct shelf_tx *tx) {
    if (!TX_ARRAY_RESERVE(tx->read_words, tx->read_words_capacity, tx_read_count(tx)))
        return false;
    if (tx->read_compacted == 0)
        line_table_clear(&tx->seen);
    size_t count = tx_read_count(tx);
    for (size_t i = tx->read_compacted; i < count; i++) {
        if (!read_merge(tx, tx->reads[i])) {
            /* As if nothing had been merged: what was is at the front, what was not follows. */
            memmove(tx->reads + tx->read_compacted, tx->reads + i, (count - i) * sizeof(tx->reads[0]));
            tx_read_count_set(tx, tx->read_compacted + (count - i));
            detail_set("no memory to go through the lines read");
            return false;
        }
    }
    tx_read_count_set(tx, tx->read_compacted);
    return true;
}

/* Makes room for one more line: while the array is small, just a larger one, then by merging, if that frees half of it. So
 * there may be entries beyond the limit for a while; tx_encode() counts again. */
static __attribute__((noinline)) shelf_result reads_grow(struct shelf_tx *tx) {
    const size_t lines_max = SHELF_TX_LINES_READ_MAX;
    if (tx->read_capacity >= READS_MERGED_MIN && !tx_reads_compact(tx))
        return SHELF_NO_MEMORY;
    if (tx_read_count(tx) >= lines_max) {
        if (tx->flags & SHELF_READ_WRITE) {
            detail_set("a read-write transaction reads at most %zu lines of %u bytes", lines_max, LINE_SIZE);
            return SHELF_TOO_LARGE;
        }
        tx->reads_lost = true;
        tx_read_count_set(tx, 0);
        tx->read_compacted = 0;
        return SHELF_OK;
    }
    if (tx->read_capacity > 0 && tx_read_count(tx) < tx->read_capacity / 2)
        return SHELF_OK;
    size_t target = tx->read_capacity == 0 ? READS_MIN : tx->read_capacity * 2;
    size_t count = tx_read_count(tx);
    if (!TX_ARRAY_RESERVE(tx->reads, tx->read_capacity, target))
        return SHELF_NO_MEMORY;
    tx_read_count_set(tx, count);
    tx->read_end = tx->reads + tx->read_capacity;
    return SHELF_OK;
}

/* ---- Reading a line ----------------------------------------------------------------------------------------------- */

/* Makes the region of `from` the one that reads are fast in, if it may be. */
static void hot_set(struct shelf_tx *tx, shelf_addr from) {
    const struct region_view *region = &tx->regions[shelf_addr_region(from)];
    /* State first: until it is LIVE, the rest is not there. */
    if (atomic_load_explicit(&region->state, memory_order_acquire) != REGION_LIVE ||
        atomic_load_explicit(&region->floor, memory_order_relaxed) > tx->index)
        return;
    const uint8_t *data = map_data(tx, from);
    if (!data)
        return;
    uint64_t size = atomic_load_explicit(&region->size, memory_order_relaxed);
    uint64_t base = shelf_addr_make(shelf_addr_region(from), 0);
    const struct region_map *map = &tx->maps[shelf_addr_region(from)];
    if (base != tx->hot.base)
        tx->memo.address = 0;
    tx->hot = (struct hot_region){
        .base = base,
        .limit_lines = tx->slow ? 0 : size / LINE_SIZE,
        .page_versions = map->page_versions,
        .data_bias = (uintptr_t)data - base,
        .state = &region->state,
        .versions = map->versions,
        .data = data,
        .limit = tx->slow ? 0 : size,
        .size = size,
        .replica = tx_replica(tx)->id,
    };
}

/* Where the byte at this address of the hot region is. */
static inline const uint8_t *hot_data(const struct shelf_tx *tx, shelf_addr from) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): one addition instead of two
    return (const uint8_t *)(tx->hot.data_bias + from);
}

/* One attempt; true: the bytes are exact at the index, and recorded. The range lies within one line, below `limit` in the
 * hot region (whose size is a multiple of lines); other regions' offsets wrap around to far beyond any limit. */
static inline __attribute__((always_inline)) bool line_try(struct shelf_tx *tx, shelf_addr from, void *to,
                                                           size_t size, uint64_t limit) {
    uint64_t offset = from - tx->hot.base;
    if (!LIKELY(offset < limit))
        return false;
    const _Atomic uint64_t *word = &tx->hot.page_versions[offset >> PAGE_SHIFT];
    uint64_t version = atomic_load_explicit(word, memory_order_acquire);
    /* Odd words are newer than what is applied (I3), so one comparison sees them as well. */
    if (!LIKELY(version <= tx->version_max)) {
        word = &tx->hot.versions[offset >> LINE_SHIFT];
        version = atomic_load_explicit(word, memory_order_acquire);
        if (!LIKELY(version <= tx->version_max))
            return false;
    }
    uint64_t *entry = tx->read_next;
    if (!LIKELY(entry != tx->read_end))
        return false;
    shared_copy(to, hot_data(tx, from), size);
    shared_fence_acquire();
    if (!LIKELY(shared_u64_is(word, version)) || !LIKELY(shared_u32_is(tx->hot.state, REGION_LIVE)))
        return false;
    *entry = read_entry_make(from, size);
    tx->read_next = entry + 1;
    return true;
}

/* The same for all of a line, by its page's version alone. Written out, because every instruction counts here: while a read
 * waits for memory, how many of the reads after it are under way is decided by how many instructions fit into the
 * processor's window. */
static inline __attribute__((always_inline)) bool whole_line_try(struct shelf_tx *tx, shelf_addr from,
                                                                 void *to) {
    uint64_t offset = from - tx->hot.base;
    /* Rotated, an offset that is not a multiple of lines is larger than any number of lines. */
    uint64_t line = offset >> LINE_SHIFT | offset << (64 - LINE_SHIFT);
    if (!LIKELY(line < tx->hot.limit_lines))
        return false;
    const _Atomic uint64_t *versions = tx->hot.page_versions;
    uint64_t page = line >> (PAGE_SHIFT - LINE_SHIFT);
    uint64_t version = atomic_load_explicit(&versions[page], memory_order_acquire);
    if (!LIKELY(version <= tx->version_max))
        return false;
    shared_copy_line(to, tx->hot.data_bias, from);
    shared_fence_acquire();
    if (!LIKELY(shared_item_is(versions, page, version)) ||
        !LIKELY(shared_u32_is(tx->hot.state, REGION_LIVE)))
        return false;
    uint64_t *entry = tx->read_next;
    if (!LIKELY(entry != tx->read_end))
        return false;
    *entry = from; /* as read_entry_make() makes it */
    private_pointer_advance(&tx->read_next);
    return true;
}

/* After an attempt has failed: finds out why, and either makes the next one promising (OK) or says what is wrong. */
static shelf_result line_mend(struct shelf_tx *tx, shelf_addr from, size_t size, uint32_t *round) {
    shelf_result result = tx_range_check(tx, from, size);
    if (result != SHELF_OK)
        return result;
    if (tx->read_next == tx->read_end)
        return reads_grow(tx);
    hot_set(tx, from);
    const struct region_view *region = &tx->regions[from >> ADDRESS_OFFSET_BITS];
    const _Atomic uint64_t *versions = tx->maps[from >> ADDRESS_OFFSET_BITS].versions;
    uint64_t version =
        atomic_load_explicit(&versions[(from & OFFSET_MASK) >> LINE_SHIFT], memory_order_acquire);
    uint64_t floor = atomic_load_explicit(&region->floor, memory_order_relaxed);
    uint64_t needed = version_index(version) > floor ? version_index(version) : floor;
    uint64_t applied = atomic_load_explicit(&tx_replica(tx)->image->applied, memory_order_acquire);
    if (needed > applied || (version & VERSION_WRITING)) {
        /* I3: its record is being applied right now, which takes micros, unless the node died in it. */
        if (tx->host->wait(tx->host, (*round)++))
            return SHELF_OK;
        detail_set("region %u, offset %llu: a change of this line has begun and does not end",
                   shelf_addr_region(from), (unsigned long long)shelf_addr_offset(from));
        return SHELF_UNAVAILABLE;
    }
    *round = 0;
    return needed > tx->index ? tx_extend(tx, applied) : SHELF_OK;
}

static __attribute__((noinline)) shelf_result line_read_slow(struct shelf_tx *tx, shelf_addr from, void *to,
                                                             size_t size) {
    hot_set(tx, from);
    for (uint32_t round = 0;;) {
        if (line_try(tx, from, to, size, tx->hot.size))
            return SHELF_OK;
        shelf_result result = line_mend(tx, from, size, &round);
        if (result != SHELF_OK)
            return result;
    }
}

shelf_result tx_line_read(struct shelf_tx *tx, shelf_addr from, void *to, size_t size) {
    return LIKELY(line_try(tx, from, to, size, tx->hot.size)) ? SHELF_OK : line_read_slow(tx, from, to, size);
}

/* Several lines, own writes, another region than last time, errors. */
static __attribute__((noinline)) shelf_result range_read(struct shelf_tx *tx, shelf_addr from, uint8_t *to,
                                                         size_t size) {
    if (tx->slow & TX_FAILED)
        return tx_failure_repeat(tx);
    if (size > LINE_SIZE && !range_within_hot(tx, from, size)) {
        shelf_result result = tx_range_check(tx, from, size);
        if (result != SHELF_OK)
            return result;
    }
    bool merged = tx->slow & TX_EFFECTS;
    while (size > 0) {
        size_t part = LINE_SIZE - (from & LINE_MASK);
        part = part < size ? part : size;
        shelf_result result = SHELF_OK;
        if (merged)
            result = tx_line_read_merged(tx, from, to, part);
        else if (!LIKELY(line_try(tx, from, to, part, tx->hot.limit)))
            result = line_read_slow(tx, from, to, part);
        if (!LIKELY(result == SHELF_OK))
            return result;
        from += part;
        to += part;
        size -= part;
    }
    return SHELF_OK;
}

/* 1 to 64 bytes within a line; 0 wraps and is not. */
static __attribute__((noinline)) shelf_result part_read(struct shelf_tx *tx, shelf_addr from, void *to,
                                                        size_t size) {
    if (LIKELY(size - 1 < LINE_SIZE - (from & LINE_MASK)) &&
        LIKELY(line_try(tx, from, to, size, tx->hot.limit)))
        return SHELF_OK;
    return range_read(tx, from, to, size);
}

shelf_result shelf_read(struct shelf_tx *tx, shelf_addr from, void *to, size_t size) {
    if (LIKELY(size == LINE_SIZE) && LIKELY(whole_line_try(tx, from, to)))
        return SHELF_OK;
    return part_read(tx, from, to, size);
}

void shelf_prefetch(struct shelf_tx *tx, shelf_addr from, size_t size) {
    enum { LINES_MAX = 64 };
    const struct region_view *region = &tx->regions[from >> ADDRESS_OFFSET_BITS];
    if (size == 0 || atomic_load_explicit(&region->state, memory_order_acquire) != REGION_LIVE)
        return;
    const uint8_t *data = map_data(tx, from);
    const _Atomic uint64_t *page_versions = tx->maps[from >> ADDRESS_OFFSET_BITS].page_versions;
    if (!data)
        return;
    uint64_t region_size = atomic_load_explicit(&region->size, memory_order_relaxed);
    uint64_t first = (from & OFFSET_MASK) >> LINE_SHIFT;
    uint64_t last = ((from & OFFSET_MASK) + size - 1) >> LINE_SHIFT;
    for (uint64_t line = first; line <= last && line - first < LINES_MAX && line < region_size >> LINE_SHIFT;
         line++) {
        __builtin_prefetch(data + (line << LINE_SHIFT));
        const void *version = &page_versions[line >> (PAGE_SHIFT - LINE_SHIFT)];
        __builtin_prefetch(version);
    }
}

/* ---- Views -------------------------------------------------------------------------------------------------------- */

/* A copy of the range with own writes on top, placed as the range is within its line. */
static shelf_result view_copy(struct shelf_tx *tx, shelf_addr from, size_t size, const void **ret_bytes) {
    size_t lead = from & LINE_MASK;
    size_t total = (sizeof(struct copy_block) + lead + size + LINE_SIZE - 1) & ~(size_t)LINE_MASK;
    struct copy_block *block = aligned_alloc(LINE_SIZE, total);
    if (!block) {
        detail_set("no memory for a private copy of %zu bytes", size);
        return SHELF_NO_MEMORY;
    }
    block->next = tx->copies;
    tx->copies = block;
    tx->dirty = true;
    shelf_result result = range_read(tx, from, block->bytes + lead, size);
    if (result == SHELF_OK)
        *ret_bytes = block->bytes + lead;
    return result;
}

/* All lines of the range exact at the index, at this moment. */
static shelf_result view_verify(struct shelf_tx *tx, shelf_addr from, size_t size) {
    uint64_t first = from >> LINE_SHIFT, last = (from + size - 1) >> LINE_SHIFT;
    const struct region_view *region = &tx->regions[shelf_addr_region(from)];
    if (atomic_load_explicit(&region->floor, memory_order_relaxed) <= tx->index &&
        lines_unchanged(tx, first, last - first + 1))
        return SHELF_OK;
    uint32_t round = 0;
    for (uint64_t line = first; line <= last;) {
        if (atomic_load_explicit(&region->floor, memory_order_relaxed) <= tx->index &&
            lines_unchanged(tx, line, 1)) {
            line++;
            continue;
        }
        shelf_result result = line_mend(tx, line << LINE_SHIFT, LINE_SIZE, &round);
        if (result != SHELF_OK)
            return result;
    }
    return SHELF_OK;
}

shelf_result shelf_view(struct shelf_tx *tx, shelf_addr from, size_t size, const void **ret_bytes) {
    if (tx->slow & TX_FAILED)
        return tx_failure_repeat(tx);
    shelf_result result = tx_range_check(tx, from, size);
    if (result != SHELF_OK)
        return result;
    const uint8_t *bytes = map_data(tx, from) + shelf_addr_offset(from);
    if (size == 0) {
        *ret_bytes = bytes;
        return SHELF_OK;
    }
    if ((tx->slow & TX_EFFECTS) && tx_range_written(tx, from, size))
        return view_copy(tx, from, size, ret_bytes);
    if (tx->view_count >= SHELF_TX_LINES_READ_MAX) {
        detail_set("a transaction has at most %zu views", SHELF_TX_LINES_READ_MAX);
        return SHELF_TOO_LARGE;
    }
    if (!TX_ARRAY_RESERVE(tx->views, tx->view_capacity, tx->view_count + 1))
        return SHELF_NO_MEMORY;
    result = view_verify(tx, from, size);
    if (result != SHELF_OK)
        return result;
    /* From here on part of what extensions and shelf_check() find unchanged, or not. */
    tx->dirty = true;
    tx->views[tx->view_count++] = (struct view_range){.from = from, .size = size};
    *ret_bytes = bytes;
    return SHELF_OK;
}

shelf_result shelf_check(struct shelf_tx *tx) {
    if (tx->slow & TX_FAILED)
        return tx_failure_repeat(tx);
    shared_fence_acquire(); /* the caller's loads come before */
    if (tx->view_count > 0 && !views_unchanged(tx))
        return tx_fail(tx, SHELF_CONFLICT, conflict_text);
    return SHELF_OK;
}
