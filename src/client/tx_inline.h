// SPDX-License-Identifier: Apache-2.0
/*
 * tx_inline.h: shelf_read() in pieces and without calls, for lookups that read a few bytes each from several lines.
 *
 * A lookup in a hash table waits twice for memory. What decides its speed is whether the processor gets as far as the
 * next lookup's loads while it waits for this one's, and that is a matter of how few instructions lie between. So what is
 * the same for all lines of a lookup is done once (the window), and the bytes are used where they are instead of copied.
 *
 *   tx_window_open()      false: something is in the way, use shelf_read()
 *   tx_window_has_room()  is asked before every so many lines
 *   tx_line_open()        then load from tx_line_bytes() by shared_load_u64() and shared_copy() only
 *   tx_line_close()       true: what was loaded since the open is exact at the transaction's index
 *   tx_window_close()     true: all of it is recorded as read; only now may a result be returned
 *
 * False from any of them means: forget what was loaded and start again by shelf_read(), which finds out what is wrong. No
 * other call on the transaction may come between open and close of a window: it could move the index, or read.
 */
#ifndef CLIENT_TX_INLINE_H
#define CLIENT_TX_INLINE_H

#include "client/shared_copy.h"
#include "client/tx_state.h"

#define TX_INLINE            static inline __attribute__((always_inline))
#define TX_LIKELY(condition) __builtin_expect(!!(condition), 1)

/* The region that the transaction read last, by what reads need of it. Lives within one function. */
struct tx_window {
    const uint8_t *data;
    const _Atomic uint64_t *versions;
    uint64_t limit;        /* offsets below it may be read */
    uint64_t version_max;  /* the newest version that may be read */
    uint64_t *read_next;   /* where the next line goes in the transaction's read set */
    uint64_t read_entry_0; /* entry of line 0 of the region, all words of it */
    struct shelf_tx *tx;
};

TX_INLINE bool tx_window_open(struct shelf_tx *tx, shelf_region region, struct tx_window *ret_window) {
    uint64_t base = (uint64_t)region << ADDRESS_OFFSET_BITS;
    if (!TX_LIKELY(tx->hot.base == base) || !TX_LIKELY(tx->hot.limit != 0))
        return false;
    /* The address of the region's first byte in this process. */
    ret_window->data = (const uint8_t *)(tx->hot.data_bias + base); // NOLINT(performance-no-int-to-ptr)
    ret_window->versions = tx->hot.versions;
    ret_window->limit = tx->hot.limit;
    ret_window->version_max = tx->version_max;
    ret_window->read_next = tx->read_next;
    ret_window->read_entry_0 = read_entry_make(base, LINE_SIZE);
    ret_window->tx = tx;
    return true;
}

TX_INLINE bool tx_window_has_room(const struct tx_window *window, size_t line_count) {
    return TX_LIKELY((size_t)(window->tx->read_end - window->read_next) >= line_count);
}

/* If the region was dropped meanwhile, its memory said nothing. */
TX_INLINE bool tx_window_close(const struct tx_window *window) {
    if (!TX_LIKELY(atomic_load_explicit(window->tx->hot.state, memory_order_relaxed) == REGION_LIVE))
        return false;
    window->tx->read_next = window->read_next;
    return true;
}

/* The line that holds `offset`. */
TX_INLINE bool tx_line_open(const struct tx_window *window, uint64_t offset, uint64_t *ret_version) {
    if (!TX_LIKELY(offset < window->limit))
        return false;
    *ret_version = atomic_load_explicit(&window->versions[offset >> LINE_SHIFT], memory_order_acquire);
    return TX_LIKELY(*ret_version <= window->version_max); /* odd ones are newer than what is applied */
}

TX_INLINE const uint8_t *tx_line_bytes(const struct tx_window *window, uint64_t offset) {
    return window->data + offset;
}

TX_INLINE bool tx_line_close(struct tx_window *window, uint64_t offset, uint64_t version) {
    shared_fence_acquire();
    if (!TX_LIKELY(atomic_load_explicit(&window->versions[offset >> LINE_SHIFT], memory_order_relaxed) ==
                   version))
        return false;
    *window->read_next++ = window->read_entry_0 + (offset & ~LINE_MASK);
    return true;
}

/* The line and its version will be read soon. */
TX_INLINE void tx_line_prefetch(const struct tx_window *window, uint64_t offset) {
    if (TX_LIKELY(offset < window->limit)) {
        __builtin_prefetch(window->data + offset);
        const void *version = &window->versions[offset >> LINE_SHIFT];
        __builtin_prefetch(version);
    }
}

/* An aligned word of a line that is open. */
TX_INLINE uint64_t shared_load_u64(const uint8_t *from) {
    return __atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_RELAXED);
}

#endif
