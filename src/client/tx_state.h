// SPDX-License-Identifier: Apache-2.0
/*
 * tx_state.h: the inside of a transaction, for tx.c (life and reads), tx_view.c, tx_write.c (buffered changes, the encoded
 * request) and tx_pool.c (recycling).
 */
#ifndef CLIENT_TX_STATE_H
#define CLIENT_TX_STATE_H

#include "client/line_table.h"
#include "client/tx.h"

#define OFFSET_MASK (((uint64_t)1 << ADDRESS_OFFSET_BITS) - 1)
#define LINE_MASK   ((uint64_t)LINE_SIZE - 1)

/* Why a read cannot take the fast path. */
enum {
    TX_FAILED = 1u << 0,  /* `failed` says how; for good */
    TX_EFFECTS = 1u << 1, /* there are buffered writes or operations to look for */
};

/* A line that was read, with the first and the last of the words that were: (address & ~7) | (last word ^ 7). So the entry
 * of a whole line is its address. */
static inline uint64_t read_entry_make(shelf_addr from, size_t size) {
    return (from & ~(uint64_t)7) | (((from + size - 1) >> 3 & 7) ^ 7);
}
static inline uint64_t read_entry_line(uint64_t entry) {
    return entry >> LINE_SHIFT;
}
/* One bit a word. */
static inline uint8_t read_entry_words(uint64_t entry) {
    return (uint8_t)((2u << ((entry & 7) ^ 7)) - (1u << (entry >> 3 & 7)));
}

/* A range that shelf_view() gave out. */
struct view_range {
    shelf_addr from;
    uint64_t size;
};

/* A line with buffered changes. */
struct write_line {
    uint64_t line;
    uint64_t mask;  /* bit b: byte b was written */
    uint64_t words; /* bit w: word w has operations. Never overlaps with mask */
    uint8_t bytes[LINE_SIZE];
};

/* Memory of private copies, for views of ranges with own writes. */
struct copy_block {
    struct copy_block *next;
    _Alignas(LINE_SIZE) uint8_t bytes[];
};

/*
 * The region that was read last, as reads need it. It is set only once the region was found live and its floor no newer
 * than the index: both stay so, since the index only grows and a region's floor never changes, but for a drop, which
 * every read looks for after its bytes. tx_inline.h reads by it as well.
 */
struct hot_region {
    uint64_t base;        /* address of its first byte */
    uint64_t limit_lines; /* lines that may be read the fast way: all, or 0 while anything is in the way */
    const _Atomic uint64_t *page_versions;
    uintptr_t data_bias; /* added to an address: where its byte is */
    const _Atomic uint32_t *state;
    const _Atomic uint64_t *versions;
    const uint8_t *data;
    uint64_t limit;   /* limit_lines in bytes */
    uint64_t size;    /* 0: there is no hot region */
    uint64_t replica; /* id of the one that it was found in */
};

/* What a structure made of a line that it looks at in each of its calls. That line was recorded as read, and lies in the
 * hot region. */
struct tx_memo {
    shelf_addr address; /* of the line; 0: nothing is kept */
    uint64_t words[3];
};

struct shelf_tx {
    /* What every read needs. */
    struct hot_region hot;
    uint64_t version_max; /* index << 1: the newest version that may be read */
    uint64_t *reads;      /* entries; the same line may be there more than once */
    uint64_t *read_next;  /* where the next entry goes */
    uint64_t *read_end;
    size_t read_capacity;
    uint64_t index; /* all reads are exact at it (R1) */
    uint32_t slow;  /* TX_FAILED etc.; 0: nothing is in the way */
    uint32_t flags;
    struct tx_memo memo;
    const struct region_view *regions; /* of the image */
    _Atomic(const struct replica *)
        replica;                   /* that it reads; NULL: in the pool. tx_replica_used() looks at it */
    const struct region_map *maps; /* of the replica */
    struct tx_host *host;
    shelf_result failed;

    size_t
        read_compacted; /* the first so many entries are of different lines, and read_words has their words */
    uint8_t *read_words;
    size_t read_words_capacity;
    bool
        reads_lost; /* read-only: read more than fits, entries were dropped, and with them the right to extend */
    bool dirty;     /* anything of the following is not empty */
    uint32_t hint_shift;

    struct view_range *views;
    size_t view_count;
    size_t view_capacity;
    struct copy_block *copies;

    struct line_table write_table; /* line -> position in writes */
    struct write_line *writes;     /* in the order of first use */
    size_t write_count;
    size_t write_capacity;
    uint64_t write_bytes; /* that are set in masks */
    uint32_t write_last;  /* position used last */

    struct request_operation *operations;
    size_t operation_count;
    size_t operation_capacity;

    struct line_table seen; /* scratch: finds lines that were read repeatedly */
    uint8_t *encoded;
    size_t encoded_capacity;

    /* The pool's. */
    bool large; /* the one that keeps large arrays */
    struct shelf_tx *pool_next;
    struct shelf_tx *all_next, *all_previous;

    _Alignas(16) uint8_t host_bytes[TX_HOST_BYTES];
};

static inline size_t tx_read_count(const struct shelf_tx *tx) {
    return (size_t)(tx->read_next - tx->reads);
}
static inline void tx_read_count_set(struct shelf_tx *tx, size_t count) {
    tx->read_next = tx->reads + count;
}

static inline const struct replica *tx_replica(const struct shelf_tx *tx) {
    return atomic_load_explicit(&tx->replica, memory_order_relaxed);
}

/* Something is in the way of fast reads from now on. */
static inline void tx_slow_set(struct shelf_tx *tx, uint32_t why) {
    tx->slow |= why;
    tx->hot.limit_lines = 0;
    tx->hot.limit = 0;
}

/* ---- tx_pool.c ---------------------------------------------------------------------------------------------------- */

/* An empty transaction without a host; NULL: no memory. */
struct shelf_tx *tx_take(void);
void tx_give(struct shelf_tx *tx);
/* In the child of a fork: fails all transactions that it inherited. The other two surround fork() in the parent. */
void tx_pool_fork_prepare(void);
void tx_pool_fork_parent(void);
void tx_pool_fork_child(void);
/* The calling thread's number, from 0 in the order of first use. */
uint32_t tx_thread_number(void);

/* ---- tx.c --------------------------------------------------------------------------------------------------------- */

/* Makes the transaction fail for good; and what it says from then on. */
shelf_result tx_fail(struct shelf_tx *tx, shelf_result result, const char *detail);
shelf_result tx_failure_repeat(const struct shelf_tx *tx);
/* INVALID, NOT_FOUND, CONFLICT unless the range lies in a live region. */
shelf_result tx_range_check(struct shelf_tx *tx, shelf_addr from, size_t size);
/* A read that lies within one line and ignores own writes; recorded unless `to` is NULL (then just verified). */
shelf_result tx_line_read(struct shelf_tx *tx, shelf_addr from, void *to, size_t size);
/* The array, moved to where `count` items have room; NULL: no memory, and it is where and as it was. */
void *tx_array_grow(void *array, size_t *capacity, size_t count, size_t item_size);
/* Sees that the array has room for `count` items; false: no memory. */
#define TX_ARRAY_RESERVE(array, capacity, count)                                                    \
    ({                                                                                              \
        size_t reserve_count = (count);                                                             \
        void *reserve_moved = (array);                                                              \
        if (reserve_count > (capacity)) {                                                           \
            reserve_moved = tx_array_grow((array), &(capacity), reserve_count, sizeof((array)[0])); \
            if (reserve_moved)                                                                      \
                (array) = reserve_moved;                                                            \
        }                                                                                           \
        reserve_count <= (capacity);                                                                \
    })
/* Merges repeated lines in the read set: read_compacted == tx_read_count(). False: no memory. */
bool tx_reads_compact(struct shelf_tx *tx);

/* ---- tx_write.c --------------------------------------------------------------------------------------------------- */

/* A read within one line, with own writes on top. */
shelf_result tx_line_read_merged(struct shelf_tx *tx, shelf_addr from, void *to, size_t size);
/* Does any own write or operation touch the range? */
bool tx_range_written(const struct shelf_tx *tx, shelf_addr from, size_t size);

#endif
