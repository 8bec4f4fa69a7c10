// SPDX-License-Identifier: Apache-2.0
/*
 * tx_pool.c: transactions are used again, with the arrays they have grown, so that a steady program takes no memory.
 *
 * Each thread keeps a few; what it has too many of (an asynchronous commit may end in another thread than it began in)
 * goes to a common list, and beyond that back to the system.
 *
 * P1  A transaction is in exactly one place: a thread's list, the common list, or a caller's hands (host is set).
 * P2  All of them are in the list `all`, so that the child of a fork can fail those that it inherited.
 */
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/tx_state.h"

enum {
    THREAD_TXS_MAX = 16,
    COMMON_TXS_MAX = 1024,
    KEPT_BYTES_MAX = 4 << 20, /* a single array larger than that is given back, but by one transaction */
};

/* A word of the initial-exec kind costs one load to reach; begin and end of small reads would feel more. */
struct thread_pool {
    struct shelf_tx *first;
    uint32_t count;
    uint32_t number; /* the thread's, plus one; 0: has none yet */
};
static _Thread_local struct thread_pool thread_pool __attribute__((tls_model("initial-exec")));

static pthread_mutex_t pool_mutex = PTHREAD_MUTEX_INITIALIZER; /* the following */
static struct shelf_tx *all_first;
static struct shelf_tx *common_first;
static uint32_t common_count;
static uint32_t threads_seen;

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;
static bool thread_key_made;

static void array_trim(void **array, size_t *capacity, size_t item_size) {
    if (*capacity * item_size > KEPT_BYTES_MAX) {
        free(*array);
        *array = NULL;
        *capacity = 0;
    }
}

static void table_trim(struct line_table *table) {
    if (table->capacity * sizeof(table->slots[0]) > KEPT_BYTES_MAX)
        line_table_free(table);
}

/* One transaction may keep what it has, so that a program that loads much in large pieces does not get its memory new from
 * the system each time. */
static _Atomic bool large_kept;

static bool large_keep(struct shelf_tx *tx) {
    if (!tx->large)
        tx->large = !atomic_exchange(&large_kept, true);
    return tx->large;
}

static bool arrays_large(const struct shelf_tx *tx) {
    return tx->read_capacity * sizeof(tx->reads[0]) > KEPT_BYTES_MAX ||
           tx->write_capacity * sizeof(tx->writes[0]) > KEPT_BYTES_MAX ||
           tx->encoded_capacity > KEPT_BYTES_MAX;
}

static void arrays_trim(struct shelf_tx *tx) {
    if (!arrays_large(tx) || large_keep(tx))
        return;
    array_trim((void **)&tx->reads, &tx->read_capacity, sizeof(tx->reads[0]));
    tx->read_next = tx->reads;
    tx->read_end = tx->reads + tx->read_capacity;
    array_trim((void **)&tx->read_words, &tx->read_words_capacity, 1);
    array_trim((void **)&tx->views, &tx->view_capacity, sizeof(tx->views[0]));
    array_trim((void **)&tx->writes, &tx->write_capacity, sizeof(tx->writes[0]));
    array_trim((void **)&tx->encoded, &tx->encoded_capacity, 1);
    table_trim(&tx->write_table);
    table_trim(&tx->seen);
}

/* Holds pool_mutex. */
static void all_unlink(struct shelf_tx *tx) {
    if (tx->all_next)
        tx->all_next->all_previous = tx->all_previous;
    if (tx->all_previous)
        tx->all_previous->all_next = tx->all_next;
    else
        all_first = tx->all_next;
}

static void tx_free(struct shelf_tx *tx) {
    if (tx->large)
        atomic_store(&large_kept, false);
    free(tx->reads);
    free(tx->read_words);
    free(tx->views);
    free(tx->writes);
    free(tx->operations);
    free(tx->encoded);
    line_table_free(&tx->write_table);
    line_table_free(&tx->seen);
    free(tx);
}

/* To the common list, or out of existence. */
static void common_give(struct shelf_tx *tx) {
    pthread_mutex_lock(&pool_mutex);
    bool keep = common_count < COMMON_TXS_MAX;
    if (keep) {
        tx->pool_next = common_first;
        common_first = tx;
        common_count++;
    } else {
        all_unlink(tx);
    }
    pthread_mutex_unlock(&pool_mutex);
    if (!keep)
        tx_free(tx);
}

/* The thread ends: its transactions go to the common list. */
static void thread_end(void *value) {
    (void)value;
    while (thread_pool.first) {
        struct shelf_tx *tx = thread_pool.first;
        thread_pool.first = tx->pool_next;
        common_give(tx);
    }
    thread_pool.count = 0;
    thread_pool.number = 0; /* what another destructor still ends goes to the common list at once */
}

static void thread_key_make(void) {
    thread_key_made = pthread_key_create(&thread_key, thread_end) == 0;
}

static void thread_begin(void) {
    pthread_once(&key_once, thread_key_make);
    if (thread_key_made)
        (void)pthread_setspecific(thread_key, &thread_pool);
    pthread_mutex_lock(&pool_mutex);
    thread_pool.number = ++threads_seen;
    pthread_mutex_unlock(&pool_mutex);
}

uint32_t tx_thread_number(void) {
    if (thread_pool.number == 0)
        thread_begin();
    return thread_pool.number - 1;
}

static __attribute__((noinline)) struct shelf_tx *common_take(void) {
    if (thread_pool.number == 0)
        thread_begin();
    pthread_mutex_lock(&pool_mutex);
    struct shelf_tx *tx = common_first;
    if (tx) {
        common_first = tx->pool_next;
        common_count--;
    }
    pthread_mutex_unlock(&pool_mutex);
    if (tx)
        return tx;
    tx = aligned_alloc(LINE_SIZE, (sizeof(*tx) + LINE_SIZE - 1) / LINE_SIZE * LINE_SIZE);
    if (!tx)
        return NULL;
    *tx = (struct shelf_tx){0};
    pthread_mutex_lock(&pool_mutex);
    tx->all_next = all_first;
    if (all_first)
        all_first->all_previous = tx;
    all_first = tx;
    pthread_mutex_unlock(&pool_mutex);
    return tx;
}

struct shelf_tx *tx_take(void) {
    struct shelf_tx *tx = thread_pool.first;
    if (__builtin_expect(tx == NULL, 0))
        return common_take();
    thread_pool.first = tx->pool_next;
    thread_pool.count--;
    return tx;
}

void tx_give(struct shelf_tx *tx) {
    if (__builtin_expect(tx->dirty || tx->read_capacity > KEPT_BYTES_MAX / sizeof(tx->reads[0]), 0))
        arrays_trim(tx);
    if (__builtin_expect(thread_pool.count == THREAD_TXS_MAX || thread_pool.number == 0, 0)) {
        common_give(tx);
        return;
    }
    tx->pool_next = thread_pool.first;
    thread_pool.first = tx;
    thread_pool.count++;
}

/* After the barrier every thread has either said which replica it took, or sees the new one. A kernel without the call
 * is one on which nothing is ever given back. */
bool tx_replica_used(const struct replica *replica) {
    static _Atomic bool registered;
    if (!atomic_load(&registered)) {
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0)
            return true;
        atomic_store(&registered, true);
    }
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0)
        return true;
    bool used = false;
    pthread_mutex_lock(&pool_mutex);
    for (struct shelf_tx *tx = all_first; tx && !used; tx = tx->all_next)
        used = atomic_load_explicit(&tx->replica, memory_order_acquire) == replica;
    pthread_mutex_unlock(&pool_mutex);
    return used;
}

void tx_pool_fork_prepare(void) {
    pthread_mutex_lock(&pool_mutex);
}

void tx_pool_fork_parent(void) {
    pthread_mutex_unlock(&pool_mutex);
}

void tx_pool_fork_child(void) {
    for (struct shelf_tx *tx = all_first; tx; tx = tx->all_next) {
        tx_slow_set(tx, TX_FAILED);
        tx->failed = SHELF_INVALID;
    }
    pthread_mutex_unlock(&pool_mutex);
}
