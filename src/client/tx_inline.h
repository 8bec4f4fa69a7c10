// SPDX-License-Identifier: Apache-2.0
/*
 * tx_inline.h: shelf_read() in pieces and without calls, for lookups that read a few bytes each from several places.
 *
 * A lookup in a hash table waits twice for memory. What decides its speed is whether the processor gets as far as the
 * next lookup's loads while it waits for this one's, and that is a matter of how few instructions lie between. So what
 * every lookup begins with is kept in the transaction (the memo), the bytes are used where they are instead of copied, and
 * one look at a version serves for all lines of a page.
 *
 *   tx_memo_set()         keeps what was made of a line, if anything may be kept
 *   tx_window_open()      false: nothing is kept of this line; or no room to record so many lines
 *   tx_piece_open()       then load from tx_bytes() by the functions of shared_copy.h only, up to piece.end
 *   tx_piece_close()      true: what was loaded since the open is exact at the transaction's index
 *   tx_line_close()       the same, for a piece of which one line was used
 *   tx_window_close()     true: all of it is recorded as read; only now may a result be returned
 *
 * False from any of them means: forget what was loaded and start again by shelf_read(), which finds out what is wrong. No
 * other call on the transaction may come between open and close of a window: it could move the index, or read.
 *
 * A memo stays right as long as the transaction has no effects, as its line was recorded: the index moves only if all
 * such lines are unchanged.
 */
#ifndef CLIENT_TX_INLINE_H
#define CLIENT_TX_INLINE_H

#include "client/shared_copy.h"
#include "client/tx_state.h"

#define TX_INLINE            static inline __attribute__((always_inline))
#define TX_LIKELY(condition) __builtin_expect(!!(condition), 1)

/* Lives within one function. Offsets are within the region of the memo. */
struct tx_window {
    struct shelf_tx *tx;
    uint64_t *read_next; /* where the next line goes in the transaction's read set */
};

/* What one version answers for: the rest of a page, or where that is too new, of a line. */
struct tx_piece {
    const _Atomic uint64_t *word;
    uint64_t version;
    uint64_t end; /* offset */
};

TX_INLINE bool tx_memo_allowed(const struct shelf_tx *tx) {
    return tx->slow == 0;
}

/* The line at the address must have been read by shelf_read(). */
TX_INLINE void tx_memo_set(struct shelf_tx *tx, const struct tx_memo *memo) {
    if (tx_memo_allowed(tx) && tx->hot.base == shelf_addr_make(shelf_addr_region(memo->address), 0))
        tx->memo = *memo;
}

TX_INLINE bool tx_window_open(struct shelf_tx *tx, shelf_addr address, size_t line_count,
                              struct tx_window *ret_window) {
    if (!TX_LIKELY(tx->memo.address == address))
        return false;
    *ret_window = (struct tx_window){.tx = tx, .read_next = tx->read_next};
    return TX_LIKELY((size_t)(tx->read_end - tx->read_next) >= line_count);
}

TX_INLINE bool tx_window_has_room(const struct tx_window *window, size_t line_count) {
    return TX_LIKELY((size_t)(window->tx->read_end - window->read_next) >= line_count);
}

/* If the region was dropped meanwhile, its memory said nothing. */
TX_INLINE bool tx_window_close(const struct tx_window *window) {
    if (!TX_LIKELY(shared_u32_is(window->tx->hot.state, REGION_LIVE)))
        return false;
    window->tx->read_next = window->read_next;
    return true;
}

/* From `offset` on. */
TX_INLINE bool tx_piece_open(const struct tx_window *window, uint64_t offset, struct tx_piece *ret_piece) {
    const struct shelf_tx *tx = window->tx;
    if (!TX_LIKELY(offset < tx->hot.limit))
        return false;
    ret_piece->word = &tx->hot.page_versions[offset >> PAGE_SHIFT];
    ret_piece->version = atomic_load_explicit(ret_piece->word, memory_order_acquire);
    ret_piece->end = (offset | (PAGE_SIZE - 1)) + 1;
    if (TX_LIKELY(ret_piece->version <= tx->version_max)) /* odd ones are newer than what is applied */
        return true;
    ret_piece->word = &tx->hot.versions[offset >> LINE_SHIFT];
    ret_piece->version = atomic_load_explicit(ret_piece->word, memory_order_acquire);
    ret_piece->end = (offset | LINE_MASK) + 1;
    return ret_piece->version <= tx->version_max;
}

TX_INLINE const uint8_t *tx_bytes(const struct tx_window *window, uint64_t offset) {
    return window->tx->hot.data + offset;
}

/* Used was the line that holds `offset`. */
TX_INLINE bool tx_line_close(struct tx_window *window, uint64_t offset, const struct tx_piece *piece) {
    shared_fence_acquire();
    if (!TX_LIKELY(shared_u64_is(piece->word, piece->version)))
        return false;
    *window->read_next++ = window->tx->hot.base + (offset & ~LINE_MASK); /* as read_entry_make() makes it */
    return true;
}

/* Used were the lines from the one that holds `from` to the one before `end`. One or two are the rule, and two entries
 * are always written, so that nothing depends on which. */
TX_INLINE bool tx_piece_close(struct tx_window *window, uint64_t from, uint64_t end,
                              const struct tx_piece *piece) {
    shared_fence_acquire();
    if (!TX_LIKELY(shared_u64_is(piece->word, piece->version)))
        return false;
    uint64_t entry = window->tx->hot.base + (from & ~LINE_MASK);
    uint64_t count = ((end - 1) >> LINE_SHIFT) - (from >> LINE_SHIFT) + 1;
    window->read_next[0] = entry;
    window->read_next[1] = entry + LINE_SIZE;
    for (uint64_t i = 2; __builtin_expect(i < count, 0); i++)
        window->read_next[i] = entry + i * LINE_SIZE;
    window->read_next += count;
    return true;
}

/* The line will be read soon. (Versions of pages are few and mostly at hand.) */
TX_INLINE void tx_line_prefetch(const struct tx_window *window, uint64_t offset) {
    if (TX_LIKELY(offset < window->tx->hot.limit))
        __builtin_prefetch(tx_bytes(window, offset));
}

#endif
