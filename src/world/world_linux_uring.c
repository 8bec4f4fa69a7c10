// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux_uring.c: reads, writes and syncs through io_uring, as many as the ring has places.
 *
 * A completion that did less than was asked for (short, interrupted, refused by O_DIRECT) is finished by the synchronous
 * code, which knows all the rules. One place is the doorbell: a read of an eventfd.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "world/world_linux.h"

#define URING_PLACES 32u
#define BELL_PLACE   URING_PLACES
#define ASYNC_BYTES \
    (128u << 10) /* from here on, reads are begun by a worker of the kernel: finding (and first of all
                                    making) so many pages takes long, and the owner has checksums to compute */

struct place {
    struct io *io; /* NULL: free */
    struct transfer transfer;
};

struct uring {
    struct io_uring ring;
    struct world *world;
    struct place places[URING_PLACES];
    int fd_bell;
    uint64_t bell_count; /* where the doorbell is read to */
    bool bell_armed;
};

static void bell_arm(struct uring *uring) {
    struct io_uring_sqe *sqe = uring->bell_armed ? NULL : io_uring_get_sqe(&uring->ring);
    if (sqe) {
        io_uring_prep_read(sqe, uring->fd_bell, &uring->bell_count, sizeof(uring->bell_count), 0);
        sqe->user_data = BELL_PLACE;
        uring->bell_armed = io_uring_submit(&uring->ring) >= 0;
    }
}

struct uring *uring_open(struct world *world) {
    struct uring *uring = calloc(1, sizeof(*uring));
    if (!uring) {
        errno = ENOMEM;
        return NULL;
    }
    uring->world = world;
    uring->fd_bell = eventfd(0, EFD_CLOEXEC);
    int error = uring->fd_bell < 0 ? errno : -io_uring_queue_init(2 * URING_PLACES, &uring->ring, 0);
    if (error != 0) {
        if (uring->fd_bell >= 0) {
            (void)close(uring->fd_bell);
        }
        free(uring);
        errno = error;
        return NULL;
    }
    (void)io_uring_ring_dontfork(&uring->ring);
    bell_arm(uring);
    return uring;
}

void uring_close(struct uring *uring) {
    io_uring_queue_exit(&uring->ring);
    (void)close(uring->fd_bell);
    free(uring);
}

static struct place *place_find(struct uring *uring) {
    for (size_t i = 0; i < URING_PLACES; i++) {
        if (!uring->places[i].io) {
            return &uring->places[i];
        }
    }
    return NULL;
}

static void place_prepare(struct io_uring_sqe *sqe, const struct place *place) {
    const struct io *io = place->io;
    switch (io->kind) {
    case IO_READ:
        io_uring_prep_read(sqe, place->transfer.fd, io->buffer, (unsigned)io->size, io->offset);
        break;
    case IO_WRITE:
        io_uring_prep_write(sqe, place->transfer.fd, io->buffer, (unsigned)io->size, io->offset);
        break;
    default:
        io_uring_prep_fsync(sqe, place->transfer.fd, IORING_FSYNC_DATASYNC);
        break;
    }
}

bool uring_start(struct uring *uring, struct io *io, bool *ret_over) {
    struct place *place = place_find(uring);
    if (!place || (io->kind != IO_READ && io->kind != IO_WRITE && io->kind != IO_SYNC) ||
        io->size > (1u << 30)) {
        return false;
    }
    *ret_over = !transfer_begin(uring->world, io, &place->transfer);
    if (*ret_over) {
        return true;
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
    ASSERT(sqe); /* each entry is submitted at once, and there are more of them than places */
    place->io = io;
    place_prepare(sqe, place);
    sqe->user_data = (uint64_t)(place - uring->places);
    int submitted;
    do {
        submitted = io_uring_submit(&uring->ring);
    } while (submitted == -EINTR || submitted == -EAGAIN || submitted == -EBUSY);
    ASSERT(submitted >= 0); /* anything else is a ring used wrongly */
    return true;
}

/* Ends the io of a completion. NULL: it was the doorbell's. */
static struct io *completion_take(struct uring *uring, struct io_uring_cqe *cqe, bool *ret_rung) {
    uint64_t number = cqe->user_data;
    int result = cqe->res;
    io_uring_cqe_seen(&uring->ring, cqe);
    if (number == BELL_PLACE) {
        uring->bell_armed = false;
        *ret_rung = true;
        return NULL;
    }
    ASSERT(number < URING_PLACES);
    struct place *place = &uring->places[number];
    struct io *io = place->io;
    place->io = NULL;
    bool again = result == -EINTR || result == -EAGAIN || result == -EINVAL;
    if (io->kind == IO_SYNC && result == 0) {
        transfer_synced(uring->world, io, &place->transfer);
    } else if (result < 0 && !again) {
        transfer_fail(uring->world, io, &place->transfer, -result);
    } else {
        transfer_finish(uring->world, io, &place->transfer, result > 0 ? (uint64_t)result : 0);
    }
    return io;
}

struct io *uring_wait(struct uring *uring, int timeout_ms, bool *ret_rung) {
    *ret_rung = false;
    bell_arm(uring);
    struct __kernel_timespec timeout = {.tv_sec = timeout_ms / 1000,
                                        .tv_nsec = timeout_ms % 1000 * 1000000LL};
    for (;;) {
        struct io_uring_cqe *cqe = NULL;
        int result = timeout_ms == 0  ? io_uring_peek_cqe(&uring->ring, &cqe)
                     : timeout_ms < 0 ? io_uring_wait_cqe(&uring->ring, &cqe)
                                      : io_uring_wait_cqe_timeout(&uring->ring, &cqe, &timeout);
        if (result == -EINTR) {
            continue;
        }
        if (result != 0 || !cqe) {
            return NULL;
        }
        struct io *io = completion_take(uring, cqe, ret_rung);
        if (io || *ret_rung) {
            return io;
        }
    }
}

void uring_ring(struct uring *uring) {
    uint64_t one = 1;
    ssize_t written = write(uring->fd_bell, &one, sizeof(one));
    ASSERT(written == sizeof(one)); /* it blocks only at 2^64 - 1 */
}
