// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux_queue.c: several ios at once, see world.h.
 *
 *     unprepared  started, and reads into memory that is not there yet: a worker makes it, several reads' at once
 *     waiting     started, executed by whoever comes first: a worker, or the owner in io_queue_wait()
 *     (the ring)  started, executed by the kernel
 *     finished    for the owner to take
 *
 * Ios are chained by `io->world`. The bell is a counter: the owner sleeps only if it has not moved since the last
 * io_queue_wait() ended, and tells that it sleeps, so that ringing costs a system call only then.
 *
 * Reads and the making of memory overlap: as long as there is memory to be made, PREPARERS_MAX workers do that and keep
 * ahead of the others, who find ios that need nothing but the disk. (A read that made its memory itself would leave
 * the disk idle meanwhile.)
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "world/world_linux.h"

#define WORKERS_MAX   8u
#define PREPARERS_MAX 2u /* one keeps up with most disks, but not where memory comes from a hypervisor */
#define PREPARE_BYTES ((uint64_t)8 << 20) /* at a time */

struct chain {
    struct io *first, *last;
};

struct io_queue {
    struct world *world;
    struct uring *uring; /* NULL: plain */
    uint32_t active;     /* the owner's */
    uint32_t bell_seen;  /* the owner's */
    _Atomic uint32_t bell;
    _Atomic uint32_t sleeping; /* the owner is asleep, or about to be */

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t work;
    struct chain unprepared, waiting, finished;
    uint32_t preparer_count; /* workers that prepare */
    uint32_t worker_count;
    bool ending;
    pthread_t workers[WORKERS_MAX];
};

/* ---- Futexes ------------------------------------------------------------------------------------------------------ */

void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                               .tv_nsec = (long)(timeout_ns % 1000000000)};
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout_ns == UINT64_MAX ? NULL : &timeout,
                  NULL, 0);
}

void world_event_wait(const _Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns) {
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000),
                               .tv_nsec = (long)(timeout_ns % 1000000000)};
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL, 0);
}

void world_event_wake(const _Atomic uint32_t *word) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void futex_wake(_Atomic uint32_t *word, int count) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* ---- Chains ------------------------------------------------------------------------------------------------------- */

static void chain_push(struct chain *chain, struct io *io) {
    io->world = NULL;
    if (chain->last) {
        chain->last->world = io;
    } else {
        chain->first = io;
    }
    chain->last = io;
}

static struct io *chain_pop(struct chain *chain) {
    struct io *io = chain->first;
    if (io) {
        chain->first = io->world;
        if (!chain->first) {
            chain->last = NULL;
        }
        io->world = NULL;
    }
    return io;
}

static void locked_push(struct io_queue *queue, struct chain *chain, struct io *io) {
    (void)pthread_mutex_lock(&queue->lock);
    chain_push(chain, io);
    (void)pthread_mutex_unlock(&queue->lock);
}

static struct io *locked_pop(struct io_queue *queue, struct chain *chain) {
    (void)pthread_mutex_lock(&queue->lock);
    struct io *io = chain_pop(chain);
    (void)pthread_mutex_unlock(&queue->lock);
    return io;
}

/* ---- Workers ------------------------------------------------------------------------------------------------------ */

/* Takes reads off the chain that go to one piece of memory, and returns its size. */
static uint64_t run_take(struct chain *chain, struct chain *ret_run) {
    struct io *first = chain_pop(chain);
    uint64_t size = first->size;
    chain_push(ret_run, first);
    for (struct io *io; (io = chain->first) != NULL && size + io->size <= PREPARE_BYTES &&
                        io->buffer == (uint8_t *)first->buffer + size;
         size += io->size) {
        chain_push(ret_run, chain_pop(chain));
    }
    return size;
}

/* With the lock held, as at the end. */
static void worker_prepare(struct io_queue *queue) {
    struct chain run = {NULL, NULL};
    uint64_t size = run_take(&queue->unprepared, &run);
    queue->preparer_count++;
    (void)pthread_mutex_unlock(&queue->lock);
    memory_prepare(queue->world, run.first->buffer, size);
    (void)pthread_mutex_lock(&queue->lock);
    queue->preparer_count--;
    for (struct io *io; (io = chain_pop(&run)) != NULL;) {
        chain_push(&queue->waiting, io);
    }
    (void)pthread_cond_broadcast(&queue->work);
}

/* Likewise. */
static void worker_run(struct io_queue *queue) {
    struct io *io = chain_pop(&queue->waiting);
    (void)pthread_mutex_unlock(&queue->lock);
    world_run(queue->world, io);
    locked_push(queue, &queue->finished, io);
    io_queue_ring(queue);
    (void)pthread_mutex_lock(&queue->lock);
}

static void *worker_main(void *context) {
    struct io_queue *queue = context;
    (void)pthread_mutex_lock(&queue->lock);
    while (!queue->ending) {
        if (queue->unprepared.first && queue->preparer_count < PREPARERS_MAX) {
            worker_prepare(queue);
        } else if (queue->waiting.first) {
            worker_run(queue);
        } else {
            (void)pthread_cond_wait(&queue->work, &queue->lock);
        }
    }
    (void)pthread_mutex_unlock(&queue->lock);
    return NULL;
}

/* Signals are the program's business: no thread of ours takes any. */
static void workers_start(struct io_queue *queue, uint32_t count) {
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (queue->worker_count < count && queue->worker_count < WORKERS_MAX &&
           pthread_create(&queue->workers[queue->worker_count], NULL, worker_main, queue) == 0) {
        queue->worker_count++; /* if there are none at all, the owner does the work */
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* ---- The owner ---------------------------------------------------------------------------------------------------- */

struct io_queue *io_queue_open(struct world *world, uint32_t workers) {
    struct io_queue *queue = calloc(1, sizeof(*queue));
    if (!queue) {
        return NULL;
    }
    queue->world = world;
    (void)pthread_mutex_init(&queue->lock, NULL);
    (void)pthread_cond_init(&queue->work, NULL);
    workers_start(queue, workers);
    if (queue->worker_count == 0 && world->backend == SHELF_BACKEND_URING) {
        queue->uring =
            uring_open(world); /* may be refused for want of locked memory: then the plain way does */
    }
    return queue;
}

void io_queue_close(struct io_queue *queue) {
    ASSERT(queue->active == 0);
    (void)pthread_mutex_lock(&queue->lock);
    queue->ending = true;
    (void)pthread_cond_broadcast(&queue->work);
    (void)pthread_mutex_unlock(&queue->lock);
    for (uint32_t i = 0; i < queue->worker_count; i++) {
        (void)pthread_join(queue->workers[i], NULL);
    }
    if (queue->uring) {
        uring_close(queue->uring);
    }
    (void)pthread_cond_destroy(&queue->work);
    (void)pthread_mutex_destroy(&queue->lock);
    free(queue);
}

void io_queue_start(struct io_queue *queue, struct io *io) {
    bool over;
    queue->active++;
    if (queue->uring && uring_start(queue->uring, io, &over)) {
        if (over) {
            locked_push(queue, &queue->finished, io);
        }
        return;
    }
    bool unprepared = queue->worker_count > 0 && io->kind == IO_READ &&
                      memory_is_unprepared(queue->world, io->buffer, io->size);
    locked_push(queue, unprepared ? &queue->unprepared : &queue->waiting, io);
    if (queue->worker_count > 0) {
        (void)pthread_cond_signal(&queue->work);
    }
}

/* What can be had without waiting for anybody else: finished ones, then work that nobody else does. */
static struct io *queue_take(struct io_queue *queue) {
    struct io *io = locked_pop(queue, &queue->finished);
    bool rung;
    if (!io && queue->uring) {
        io = uring_wait(queue->uring, 0, &rung);
    }
    if (!io && queue->worker_count == 0) {
        io = locked_pop(queue, &queue->waiting);
        if (io) {
            world_run(queue->world, io);
        }
    }
    if (io) {
        queue->active--;
    }
    return io;
}

static bool queue_rung(struct io_queue *queue) {
    uint32_t bell = atomic_load(&queue->bell);
    bool rung = bell != queue->bell_seen;
    queue->bell_seen = bell;
    return rung;
}

static struct io *queue_sleep(struct io_queue *queue, int timeout_ms) {
    struct io *io = NULL;
    bool rung;
    atomic_store(&queue->sleeping, 1);
    if (atomic_load(&queue->bell) == queue->bell_seen) {
        if (queue->uring) {
            io = uring_wait(queue->uring, timeout_ms, &rung);
        } else {
            futex_wait(&queue->bell, queue->bell_seen,
                       timeout_ms < 0 ? UINT64_MAX : (uint64_t)timeout_ms * 1000000);
        }
    }
    atomic_store(&queue->sleeping, 0);
    if (io) {
        queue->active--;
    }
    return io;
}

struct io *io_queue_wait(struct io_queue *queue, int timeout_ms) {
    for (;;) {
        struct io *io = queue_take(queue);
        if (io || queue_rung(queue)) {
            /* The bell may have been a worker's, whose io is there now. */
            return io ? io : queue_take(queue);
        }
        if (timeout_ms == 0) {
            return NULL;
        }
        io = queue_sleep(queue, timeout_ms);
        if (io || timeout_ms > 0) {
            return io ? io : queue_take(queue);
        }
    }
}

uint32_t io_queue_active(const struct io_queue *queue) {
    return queue->active;
}

void io_queue_ring(struct io_queue *queue) {
    atomic_fetch_add(&queue->bell, 1);
    if (atomic_load(&queue->sleeping) == 0) {
        return;
    }
    if (queue->uring) {
        uring_ring(queue->uring);
    } else {
        futex_wake(&queue->bell, INT_MAX);
    }
}
