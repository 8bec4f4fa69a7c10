// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux_files.c: files, and ios on them.
 *
 * Files are opened when first used. Those that the shelf has once (log, superblock, ...) stay open and are found without
 * a lock; those of regions are kept in a list of bounded length, the most recently used first.
 *
 *   F1  The log and the hint are opened O_DSYNC, whatever is written there: also the zeros that prepare the log, so that
 *       no later commit has to write the metadata that they changed.
 *   F2  A file that leaves the list has been synced. If that failed, no later sync of anything succeeds.
 *   F3  O_DIRECT is an optimisation (no second copy in RAM, errors reported by the write that caused them). What it cannot
 *       take goes through the page cache; a durable write is then O_DSYNC or followed by a sync all the same.
 *   F4  A failed write or sync is reported and never tried again. Only EINTR, and EINVAL of O_DIRECT, which say that
 *       nothing was tried, lead to another call.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bits.h"
#include "world/world_linux.h"

static const uint8_t zeros[64 << 10];

/* ---- Names and errors --------------------------------------------------------------------------------------------- */

void file_name(const struct world *world, struct file_id id, char ret_name[64]) {
    char slot = id.slot == 0 ? 'a' : 'b';
    switch ((enum file_kind)id.kind) {
    case FILE_SUPERBLOCK:
        (void)snprintf(ret_name, 64, "%s", world->published ? "superblock" : "superblock.new");
        return;
    case FILE_LOG:
        (void)snprintf(ret_name, 64, "log");
        return;
    case FILE_HINT:
        (void)snprintf(ret_name, 64, "hint");
        return;
    case FILE_PROMISE:
        (void)snprintf(ret_name, 64, "promise");
        return;
    case FILE_ROOTS:
        (void)snprintf(ret_name, 64, "roots.%c", slot);
        return;
    case FILE_TABLE:
        (void)snprintf(ret_name, 64, "table.%u", id.region);
        return;
    case FILE_PAGES:
        (void)snprintf(ret_name, 64, "pages.%u.%c", id.region, slot);
        return;
    }
    UNREACHABLE("kind of file");
}

void world_fail(struct world *world, struct io *io, int error, const char *doing) {
    if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
        io->result = IO_RESULT_NO_SPACE;
        return;
    }
    io->result = IO_RESULT_ERROR;
    char name[64];
    file_name(world, io->file, name);
    (void)pthread_mutex_lock(&world->error_lock);
    if (world->error[0] == 0) { /* what fails later is usually a consequence */
        (void)snprintf(world->error, sizeof(world->error), "cannot %s %s at %llu, %llu bytes: %s (errno %d)",
                       doing, name, (unsigned long long)io->offset, (unsigned long long)io->size,
                       strerror(error), error);
    }
    (void)pthread_mutex_unlock(&world->error_lock);
}

/* ---- Open files --------------------------------------------------------------------------------------------------- */

/* The place in world.singles; -1: a region's file. */
static int single_place(struct file_id id) {
    switch ((enum file_kind)id.kind) {
    case FILE_SUPERBLOCK:
        return 0;
    case FILE_LOG:
        return 1;
    case FILE_HINT:
        return 2;
    case FILE_ROOTS:
        return id.slot == 0 ? 3 : 4;
    case FILE_PROMISE:
        return 5;
    case FILE_TABLE:
    case FILE_PAGES:
        return -1;
    }
    UNREACHABLE("kind of file");
}

static int sync_flag(struct file_id id) {
    return id.kind == FILE_LOG || id.kind == FILE_HINT || id.kind == FILE_PROMISE ? O_DSYNC : 0; /* F1 */
}

static int sync_data(int fd) {
    int result;
    do {
        result = fdatasync(fd);
    } while (result != 0 && errno == EINTR);
    return result;
}

static void file_close(struct file *file) {
    if (file->fd >= 0) {
        (void)close(file->fd);
    }
    if (file->fd_buffered >= 0) {
        (void)close(file->fd_buffered);
    }
    free(file);
}

/* The buffered descriptor, opened when it is needed first. -1: errno says why. */
static int file_buffered(struct world *world, struct file *file) {
    (void)pthread_mutex_lock(&world->files_lock);
    if (file->fd_buffered < 0) {
        char name[64];
        file_name(world, file->id, name);
        file->fd_buffered = openat(world->fd_directory, name, O_RDWR | O_CLOEXEC | sync_flag(file->id));
    }
    int fd = file->fd_buffered;
    (void)pthread_mutex_unlock(&world->files_lock);
    return fd;
}

/* With the lock held. NULL: errno says why. */
static struct file *file_open(struct world *world, struct file_id id, bool create) {
    struct file *file = malloc(sizeof(*file));
    if (!file) {
        return NULL;
    }
    *file = (struct file){.id = id, .single = single_place(id) >= 0, .fd = -1, .fd_buffered = -1};
    list_init(&file->link);
    char name[64];
    file_name(world, id, name);
    int flags = O_RDWR | O_CLOEXEC | sync_flag(id);
    int fd = openat(world->fd_directory, name, flags);
    if (fd < 0 && errno == ENOENT && create) {
        fd = openat(world->fd_directory, name, flags | O_CREAT | O_EXCL, 0600);
        file->name_new = true;
    }
    if (fd < 0) {
        free(file);
        return NULL;
    }
    file->fd_buffered = fd;
    if (!atomic_load_explicit(&world->direct_refused, memory_order_relaxed)) {
        file->fd = openat(world->fd_directory, name, flags | O_DIRECT);
        if (file->fd >= 0) { /* one descriptor is enough for most files */
            (void)close(file->fd_buffered);
            file->fd_buffered = -1;
        }
    }
    return file;
}

/* Closes the regions' file that was not used for longest. With the lock held. False: all are in use. */
static bool file_evict(struct world *world) {
    struct file *victim = NULL;
    LIST_FOREACH(link, &world->files) {
        struct file *file = LIST_ENTRY(link, struct file, link);
        if (file->users == 0) {
            victim = file;
        }
    }
    if (!victim) {
        return false;
    }
    if (victim->sync_needed && sync_data(victim->fd >= 0 ? victim->fd : victim->fd_buffered) != 0) {
        world->sync_failed = true; /* F2 */
    }
    list_unlink(&victim->link);
    world->file_count--;
    file_close(victim);
    return true;
}

static struct file *file_find(struct world *world, struct file_id id) {
    LIST_FOREACH(link, &world->files) {
        struct file *file = LIST_ENTRY(link, struct file, link);
        if (file->id.region == id.region && file->id.kind == id.kind && file->id.slot == id.slot) {
            list_unlink(link);
            list_push_front(&world->files, link);
            return file;
        }
    }
    return NULL;
}

/* NULL: errno says why; ENOENT if there is none and it is not to be created. */
static struct file *file_acquire(struct world *world, struct file_id id, bool create) {
    int single = single_place(id);
    struct file *file =
        single >= 0 ? atomic_load_explicit(&world->singles[single], memory_order_acquire) : NULL;
    if (file) {
        return file;
    }
    (void)pthread_mutex_lock(&world->files_lock);
    file = single >= 0 ? atomic_load_explicit(&world->singles[single], memory_order_relaxed)
                       : file_find(world, id);
    if (!file) {
        if (single < 0 && world->file_count >= FILES_OPEN_MAX) {
            (void)file_evict(world);
        }
        do {
            file = file_open(world, id, create);
        } while (!file && (errno == EMFILE || errno == ENFILE) && file_evict(world));
        if (file && single >= 0) {
            atomic_store_explicit(&world->singles[single], file, memory_order_release);
        } else if (file) {
            list_push_front(&world->files, &file->link);
            world->file_count++;
        }
    }
    if (file && single < 0) {
        file->users++;
    }
    int error = errno;
    (void)pthread_mutex_unlock(&world->files_lock);
    errno = error;
    return file;
}

static void file_release(struct world *world, struct file *file) {
    if (file->single) {
        return;
    }
    (void)pthread_mutex_lock(&world->files_lock);
    ASSERT(file->users > 0);
    file->users--;
    (void)pthread_mutex_unlock(&world->files_lock);
}

void files_close(struct world *world) {
    for (size_t i = 0; i < ARRAY_COUNT(world->singles); i++) {
        struct file *file = atomic_exchange(&world->singles[i], NULL);
        if (file) {
            file_close(file);
        }
    }
    LIST_FOREACH(link, &world->files) {
        file_close(LIST_ENTRY(link, struct file, link));
    }
    list_init(&world->files);
    world->file_count = 0;
}

static int file_fd(const struct file *file) {
    return file->fd >= 0 ? file->fd : file->fd_buffered;
}

/* ---- Durability of names ------------------------------------------------------------------------------------------ */

bool directory_sync(struct world *world) {
    int result;
    do {
        result = fsync(world->fd_directory);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

/* Before the shelf is published it is nothing, whatever names are there; publishing makes them all durable. */
static bool name_sync(struct world *world, struct file *file) {
    if (!atomic_load(&file->name_new) || !world->published) {
        return true;
    }
    if (!directory_sync(world)) {
        return false;
    }
    atomic_store(&file->name_new, false);
    return true;
}

/* ---- Reads and writes --------------------------------------------------------------------------------------------- */

static bool direct_fits(const struct world *world, const struct io *io, uint64_t done) {
    uint64_t mask = world->alignment_direct - 1;
    return ((io->offset | io->size | (uint64_t)(uintptr_t)io->buffer | done) & mask) == 0 &&
           !atomic_load_explicit(&world->direct_refused, memory_order_relaxed);
}

/* Which descriptor takes the rest of the io? -1: errno says why there is none. */
static int transfer_fd(struct world *world, const struct io *io, struct file *file, uint64_t done) {
    return file->fd >= 0 && direct_fits(world, io, done) ? file->fd : file_buffered(world, file);
}

static void transfer_end(struct world *world, struct transfer *transfer) {
    file_release(world, transfer->file);
    transfer->file = NULL;
}

void transfer_fail(struct world *world, struct io *io, struct transfer *transfer, int error) {
    world_fail(world, io, error, io->kind == IO_READ ? "read" : io->kind == IO_WRITE ? "write" : "sync");
    transfer_end(world, transfer);
}

bool transfer_begin(struct world *world, struct io *io, struct transfer *ret_transfer) {
    io->result = IO_RESULT_OK;
    struct file *file = file_acquire(world, io->file, io->kind == IO_WRITE);
    if (!file) {
        if (errno == ENOENT) { /* not opened files are empty, and have nothing to sync */
            if (io->kind == IO_READ) {
                memset(io->buffer, 0, io->size);
            }
        } else {
            world_fail(world, io, errno, "open");
        }
        return false;
    }
    *ret_transfer = (struct transfer){.file = file};
    if (io->kind == IO_SYNC) {
        atomic_store(&file->sync_needed, false); /* writes that come during the sync need another */
        ret_transfer->fd = file_fd(file);
        return true;
    }
    ret_transfer->fd = transfer_fd(world, io, file, 0);
    if (ret_transfer->fd < 0) {
        transfer_fail(world, io, ret_transfer, errno);
        return false;
    }
    if (io->kind == IO_WRITE) {
        bool synced_by_flag = sync_flag(io->file) != 0 && !world->sync_explicitly;
        ret_transfer->sync_after = io->durable && !synced_by_flag;
        if (!io->durable) {
            atomic_store(&file->sync_needed, true);
        }
    }
    return true;
}

/* One read or write call. Returns 0, or an error number. */
static int transfer_step(struct world *world, struct io *io, struct transfer *transfer, uint64_t *done) {
    uint8_t *bytes = (uint8_t *)io->buffer + *done;
    size_t size = io->size - *done;
    off_t offset = (off_t)(io->offset + *done);
    ssize_t moved = io->kind == IO_READ ? pread(transfer->fd, bytes, size, offset)
                                        : pwrite(transfer->fd, bytes, size, offset);
    if (moved > 0) {
        *done += (uint64_t)moved;
        if (*done < io->size && !direct_fits(world, io, *done)) {
            transfer->fd = file_buffered(world, transfer->file);
            return transfer->fd < 0 ? errno : 0;
        }
        return 0;
    }
    if (moved == 0) {
        if (io->kind == IO_WRITE) {
            return EIO;
        }
        memset(bytes, 0, size); /* past the end of the file */
        *done = io->size;
        return 0;
    }
    if (errno == EINTR) {
        return 0;
    }
    if (errno == EINVAL && transfer->fd == transfer->file->fd) { /* F4 */
        atomic_store_explicit(&world->direct_refused, true, memory_order_relaxed);
        transfer->fd = file_buffered(world, transfer->file);
        return transfer->fd < 0 ? errno : 0;
    }
    return errno;
}

/* After the bytes: what makes them and the file's name durable. */
static int transfer_settle(struct world *world, struct io *io, struct transfer *transfer) {
    if (transfer->sync_after && sync_data(transfer->fd) != 0) {
        return errno;
    }
    if ((io->kind == IO_SYNC || io->durable) && !name_sync(world, transfer->file)) {
        return errno;
    }
    return io->kind == IO_SYNC && atomic_load(&world->sync_failed) ? EIO : 0; /* F2 */
}

void transfer_finish(struct world *world, struct io *io, struct transfer *transfer, uint64_t done) {
    int error = 0;
    if (io->kind == IO_SYNC) {
        error = sync_data(transfer->fd) == 0 ? 0 : errno;
    }
    while (io->kind != IO_SYNC && done < io->size && error == 0) {
        error = transfer_step(world, io, transfer, &done);
    }
    if (error == 0 && io->kind != IO_READ) {
        error = transfer_settle(world, io, transfer);
    }
    if (error != 0) {
        transfer_fail(world, io, transfer, error);
    } else {
        transfer_end(world, transfer);
    }
}

void transfer_synced(struct world *world, struct io *io, struct transfer *transfer) {
    int error = transfer_settle(world, io, transfer);
    if (error != 0) {
        transfer_fail(world, io, transfer, error);
    } else {
        transfer_end(world, transfer);
    }
}

static void transfer_run(struct world *world, struct io *io) {
    struct transfer transfer;
    if (transfer_begin(world, io, &transfer)) {
        transfer_finish(world, io, &transfer, 0);
    }
}

/* ---- Space -------------------------------------------------------------------------------------------------------- */

/* For filesystems without fallocate. Returns 0 or an error number. */
static int space_fill(int fd, uint64_t from, uint64_t to) {
    while (from < to) {
        ssize_t written = pwrite(fd, zeros, min_u64(to - from, sizeof(zeros)), (off_t)from);
        if (written < 0 && errno != EINTR) {
            return errno;
        }
        from += written > 0 ? (uint64_t)written : 0;
    }
    return 0;
}

static int space_reserve(int fd, uint64_t length, uint64_t size) {
    int error;
    do {
        error = fallocate(fd, 0, 0, (off_t)size) == 0 ? 0 : errno;
    } while (error == EINTR);
    if (error == EOPNOTSUPP || error == ENOSYS) {
        error = space_fill(fd, length, size);
    }
    if (error != 0 && ftruncate(fd, (off_t)length) != 0) { /* leave nothing half done behind */
        return errno;
    }
    return error;
}

/* On a descriptor of its own: O_DSYNC and O_DIRECT are of no use to it. */
static int file_reserve(struct world *world, struct file *file, uint64_t size) {
    char name[64];
    file_name(world, file->id, name);
    int fd = openat(world->fd_directory, name, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    struct stat status;
    int error = fstat(fd, &status) == 0 ? space_reserve(fd, (uint64_t)status.st_size, size) : errno;
    if (error == 0 && (fsync(fd) != 0 || !name_sync(world, file))) {
        error = errno;
    }
    (void)close(fd);
    return error;
}

static void reserve_run(struct world *world, struct io *io) {
    io->result = IO_RESULT_OK;
    struct file *file = file_acquire(world, io->file, true);
    if (!file) {
        world_fail(world, io, errno, "create");
        return;
    }
    int error = file_reserve(world, file, io->size);
    if (error != 0) {
        world_fail(world, io, error, "reserve space for");
    }
    file_release(world, file);
}

static void length_run(struct world *world, struct io *io) {
    io->result = IO_RESULT_OK;
    char name[64];
    file_name(world, io->file, name);
    struct stat status;
    if (fstatat(world->fd_directory, name, &status, 0) == 0) {
        io->size = (uint64_t)status.st_size;
    } else if (errno == ENOENT) {
        io->size = 0;
    } else {
        world_fail(world, io, errno, "look at");
    }
}

/* ---- Names -------------------------------------------------------------------------------------------------------- */

/* Everything that the superblock leads to has been synced by the core; here its own bytes and all the names follow, and
 * only then the rename that makes a shelf of it. */
static void publish_run(struct world *world, struct io *io) {
    io->result = IO_RESULT_OK;
    struct file *file = file_acquire(world, io->file, false);
    if (!file) {
        world_fail(world, io, errno, "open");
        return;
    }
    if (fsync(file_fd(file)) != 0 || !directory_sync(world) ||
        renameat(world->fd_directory, "superblock.new", world->fd_directory, "superblock") != 0 ||
        !directory_sync(world)) {
        world_fail(world, io, errno, "publish");
        return;
    }
    world->published = true;
}

static void file_remove(struct world *world, struct file_id id, struct io *io) {
    (void)pthread_mutex_lock(&world->files_lock);
    struct file *file = file_find(world, id);
    if (file && file->users == 0) {
        list_unlink(&file->link);
        world->file_count--;
        file_close(file);
    }
    (void)pthread_mutex_unlock(&world->files_lock);
    char name[64];
    file_name(world, id, name);
    if (unlinkat(world->fd_directory, name, 0) != 0 && errno != ENOENT) {
        world_fail(world, io, errno, "remove");
    }
}

static void remove_run(struct world *world, struct io *io) {
    io->result = IO_RESULT_OK;
    uint32_t region = io->file.region;
    file_remove(world, (struct file_id){.kind = FILE_TABLE, .region = region}, io);
    for (uint16_t slot = 0; slot < 2; slot++) {
        file_remove(world, (struct file_id){.kind = FILE_PAGES, .slot = slot, .region = region}, io);
    }
}

void file_run(struct world *world, struct io *io) {
    switch ((enum io_kind)io->kind) {
    case IO_READ:
    case IO_WRITE:
    case IO_SYNC:
        transfer_run(world, io);
        return;
    case IO_RESERVE:
        reserve_run(world, io);
        return;
    case IO_LENGTH:
        length_run(world, io);
        return;
    case IO_PUBLISH:
        publish_run(world, io);
        return;
    case IO_REMOVE:
        remove_run(world, io);
        return;
    case IO_MAP:
    case IO_UNMAP:
    case IO_SWAP_EPOCH:
        break;
    }
    UNREACHABLE("kind of io");
}
