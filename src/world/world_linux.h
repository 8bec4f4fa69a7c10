// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux.h: what the world is made of. Private to src/world.
 *
 *     world_linux.c         the directory: opening, lock, leftovers, fork; clock and randomness
 *     world_linux_coordinator.c  the file `configuration`
 *     world_linux_files.c   files, and ios on them, synchronously
 *     world_linux_memory.c  memory of regions
 *     world_linux_queue.c    several ios at once: what both back ends share, and the plain one
 *     world_linux_uring.c   the same through io_uring
 */
#ifndef WORLD_WORLD_LINUX_H
#define WORLD_WORLD_LINUX_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "wire/limits.h"
#include "world/world.h"

/* ---- Files --------------------------------------------------------------------------------------------------------- */

#define FILES_OPEN_MAX 96u /* regions' files kept open; the others are opened again when needed */

/* An open file. `fd` is O_DIRECT where the filesystem can, and O_DSYNC for the log and the hint: whatever is written
 * there is durable. `fd_buffered` is for what O_DIRECT cannot take: odd sizes, addresses and filesystems. */
struct file {
    struct list link; /* in world.files (those of regions), the most recently used first */
    struct file_id id;
    bool single; /* in world.singles */
    int fd;      /* -1: the filesystem refuses O_DIRECT */
    int fd_buffered;
    uint32_t users;           /* ios under way on it, under files_lock; not counted for single ones */
    _Atomic bool sync_needed; /* something was written since the last sync */
    _Atomic bool name_new;    /* created by this process, its name not made durable yet */
};

/* How the bytes of one read or write go to the file. */
struct transfer {
    struct file *file; /* NULL: there is none, which reads as zero */
    int fd;
    bool sync_after; /* durable, and the descriptor does not see to it */
};

/* ---- Memory -------------------------------------------------------------------------------------------------------- */

struct memory_slot {  /* a range of address space, one a region; kept and used again after IO_UNMAP */
    struct list link; /* in world.memory_used or memory_free */
    uint32_t region;
    uint64_t size;        /* of the region: so much of it exists */
    uint64_t size_max;    /* reserved and mapped for */
    uint64_t size_before; /* of earlier regions at this place, the largest: readable for good (image.h, I4) */
    int fds[REGION_FILES]; /* memfds: data, versions of lines, of pages; -1 while there is no region */
    struct region_memory memory;
    uint64_t *
        huge_tried; /* a bit a block of 2 MiB of data, versions, versions of pages: no further try is worth it */
};

/* ---- The world ----------------------------------------------------------------------------------------------------- */

struct world {
    struct list link; /* in the list of all worlds, for fork */
    char path[4096];
    bool alone;
    bool alias_single;
    bool exists;          /* there was a shelf at the open */
    _Atomic bool serves;  /* new regions come from programs, not from recovery */
    bool published;       /* the superblock has its real name */
    bool sync_explicitly; /* durable writes get a sync of their own: O_DSYNC is not to be relied on here */
    _Atomic bool direct_refused; /* the filesystem or device has refused an O_DIRECT transfer */
    shelf_backend backend;
    uint32_t alignment;        /* for new shelves */
    uint32_t alignment_direct; /* of offset, size and buffer for O_DIRECT */
    int fd_directory, fd_lock, fd_checkpoint_lock;

    struct file *_Atomic
        singles[6]; /* superblock, log, hint, roots.a, roots.b, promise: NULL, or open until the end */
    pthread_mutex_t files_lock; /* files, file_count, sync_failed, and opening */
    struct list files;          /* of regions */
    uint32_t file_count;
    _Atomic bool
        sync_failed; /* a file that was closed to make room could not be synced: no later sync may succeed */

    pthread_mutex_t memory_lock; /* what follows, up to the slots */
    int fd_image;                /* memfd of the image's header */
    struct image *image;
    const struct image *image_view;
    struct list memory_used, memory_free;
    uint32_t settle_region; /* where the search for full blocks goes on */
    uint64_t settle_block;
    _Atomic uint32_t huge_failures; /* in a row */

    pthread_mutex_t error_lock;
    char error[WORLD_TEXT_MAX];
};

/* world_linux_files.c */
void file_name(const struct world *world, struct file_id id, char ret_name[64]);
void files_close(struct world *world);
/* Chooses the descriptor. false: io->result is set, the io is over. */
bool transfer_begin(struct world *world, struct io *io, struct transfer *ret_transfer);
/* Goes on from `done` bytes on, whatever is left, and ends the io. */
void transfer_finish(struct world *world, struct io *io, struct transfer *transfer, uint64_t done);
/* Ends an IO_SYNC whose sync has succeeded. */
void transfer_synced(struct world *world, struct io *io, struct transfer *transfer);
/* Ends the io with what the error number says. */
void transfer_fail(struct world *world, struct io *io, struct transfer *transfer, int error);
void world_fail(struct world *world, struct io *io, int error, const char *doing);
bool directory_sync(struct world *world);
void file_run(struct world *world, struct io *io);

/* world_linux_coordinator.c */
void coordinator_run(struct world *world, struct io *io);

/* world_linux_memory.c */
bool memory_open(struct world *world, char ret_text[WORLD_TEXT_MAX]);
void memory_close(struct world *world);
void memory_fork_child(struct world *world); /* with memory_lock held */
void memory_run(struct world *world, struct io *io);
/* Does a read go to memory of a region that huge pages should be made for first? */
bool memory_is_unprepared(struct world *world, const void *buffer, uint64_t size);
/* Makes them, those that nobody has tried to make. */
void memory_prepare(struct world *world, void *buffer, uint64_t size);

/* world_linux_uring.c */
struct uring;
struct uring *uring_open(struct world *world);
void uring_close(struct uring *uring);
/* false: not for a ring, or it is full. *ret_over: the io had nothing to wait for and has ended. */
bool uring_start(struct uring *uring, struct io *io, bool *ret_over);
struct io *uring_wait(struct uring *uring, int timeout_ms, bool *ret_rung);
void uring_ring(struct uring *uring);

#endif
