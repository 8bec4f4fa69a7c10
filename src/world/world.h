// SPDX-License-Identifier: Apache-2.0
/*
 * world.h: the one interface to the operating system. It executes what the core asks for (struct io) on one directory,
 * and knows the clock, randomness and locks; it decides nothing.
 *
 *     world_open     the directory, its lock, the way files are written, address space
 *     world_run      one io, to its end, in the calling thread
 *     io_queue_...       many ios at once, for a thread that wants to do something else or wait for whichever is first
 *
 * W1  A directory has one world at a time, in all processes (file `lock`).
 * W2  A result of OK means what io.h says, also on filesystems that refuse O_DIRECT. Short transfers, interrupts and
 *     misaligned buffers are the world's business; errors are told once, never tried again.
 * W3  A child made by fork() has none of the world's descriptors and no writable mapping; it keeps no lock alive.
 */
#ifndef WORLD_WORLD_H
#define WORLD_WORLD_H

#include <pthread.h>
#include <stdbool.h>

#include "core/io.h"
#include "shelf.h"
#include "wire/image.h"

#define WORLD_TEXT_MAX 256u /* bytes of a sentence that says what went wrong, with the NUL */

struct world;

struct world_options {
    bool create;       /* make the directory if there is none */
    bool exclusive;    /* with create: EXISTS if there is a shelf */
    bool alone;        /* says in the lock that nobody can attach to this node */
    bool alias_single; /* readers and the core use one mapping (race detectors need to see one address) */
    shelf_backend backend;
};

/* Opens the directory and takes its lock. After a failure `ret_text` says what went wrong. NOT_FOUND, EXISTS, BUSY,
 * DENIED, UNAVAILABLE (no io_uring), NO_SPACE, NO_MEMORY, INVALID, IO. */
shelf_result world_open(const char *path, const struct world_options *options, struct world **ret_world,
                        char ret_text[WORLD_TEXT_MAX]);
/* Does the directory belong to a node that was opened `alone`? */
bool world_is_alone(const char *path);
/* A directory that a daemon keeps: a file in it says so, also while the daemon is away. Who opens it waits for the daemon. */
bool world_has_daemon(const char *path);
/* Says so from now on. After a failure errno says why. */
bool world_daemon_mark(const char *path);
/* Is the directory that of a node of a cluster? Then a file in it says which (wire/member_format.h). */
bool world_is_member(const char *path);
/* No io may be under way, no queue open. Pointers from IO_MAP end here. */
void world_close(struct world *world);

bool world_shelf_exists(const struct world *world); /* as of the open: a superblock had been published */
shelf_backend world_backend(const struct world *world);
uint32_t
world_alignment(const struct world *world); /* of writes that a power cut does not tear into neighbours */

/* The first io that failed by a fault of the device (IO_RESULT_ERROR), in words; "" if none did. Static until close. */
const char *world_error(const struct world *world);

uint64_t world_clock_ms(void); /* wall clock */
/* A thread of ours in a program that is not: it takes no signals, and little stack. False: the system refuses it. */
bool world_thread_begin(pthread_t *thread, const char *name, void *(*function)(void *), void *context);

uint64_t world_monotonic_ns(void); /* never goes back */
uint64_t world_thread_ns(void);    /* how long this thread has run; a system call */
void world_random_fill(void *bytes, size_t size);

/* Does somebody copy the checkpoint's files right now (shared lock on `checkpoint.lock`)? Two system calls. */
bool world_checkpoint_held(struct world *world);

/* Is `fd`, the lowest number that was free, one of the last that this process may have? Those are left to the node, which has to
 * open files for checkpoints and for the log, and would have to stop without. */
bool world_descriptors_short(int fd);

/* Removes the files of regions that are not known any more. The node serves from now on. */
void world_sweep(struct world *world, bool (*known)(void *context, uint32_t region), void *context);

/* The header of the image, zero at first: the core's address of it, and the readers'. Until the close. */
struct image *world_image(const struct world *world);
const struct image *world_image_view(const struct world *world);
/* Descriptors for other processes, which can only map and read: of the header (-1: none left), of a region's bytes and
 * versions of lines and of pages (false: no such region, or none left). The caller closes them. */
int world_image_share(const struct world *world);
bool world_region_share(struct world *world, uint32_t region, int ret_fds[REGION_FILES]);

/* Turns memory of regions that has filled up into huge pages: random reads are a third faster with them. Looks at a few
 * megabytes; returns whether it found any to turn, so that it is worth calling again. */
bool world_memory_settle(struct world *world);

/* Executes the io and sets its result. Any number of threads at once. */
void world_run(struct world *world, struct io *io);

/* ---- Queues of ios -------------------------------------------------------------------------------------------------------- */

/*
 * A queue belongs to one thread, which starts ios and waits for whichever ends first. They overlap: through io_uring,
 * or, if `workers` are asked for, by so many helper threads, with either back end: for large reads into a region's new
 * memory they are faster, because some of them make the memory ahead of the reads. A plain queue without
 * workers executes in io_queue_wait(), one after the other.
 */
struct io_queue;

/* NULL: no memory, threads or ring. */
struct io_queue *io_queue_open(struct world *world, uint32_t workers);
void io_queue_close(struct io_queue *queue); /* nothing may be under way */

void io_queue_start(struct io_queue *queue, struct io *io);
/* A finished io; NULL after timeout_ms (-1: never), or because of io_queue_ring() since the last io_queue_wait(). */
struct io *io_queue_wait(struct io_queue *queue, int timeout_ms);
uint32_t io_queue_active(const struct io_queue *queue); /* started and not returned by io_queue_wait() */
void io_queue_ring(struct io_queue *queue);             /* any thread: ends the owner's io_queue_wait() */

/* ---- Sleeping and waking ------------------------------------------------------------------------------------------ */

/* Sleeps while *word == value, at most timeout_ns (UINT64_MAX: for ever). May return early for no reason. */
void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
void futex_wake(_Atomic uint32_t *word, int count);

/* The same on words that processes share; a mapping that can only be read is enough. Wakes all. */
void world_event_wait(const _Atomic uint32_t *word, uint32_t value, uint64_t timeout_ns);
void world_event_wake(const _Atomic uint32_t *word);

#endif
