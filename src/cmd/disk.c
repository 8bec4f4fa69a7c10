// SPDX-License-Identifier: Apache-2.0
/*
 * disk.c: opening, locking and reading the files of a shelf, see disk.h.
 */
#include "cmd/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static shelf_result errno_result(int error) {
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return SHELF_NOT_FOUND;
    case EACCES:
    case EPERM:
        return SHELF_DENIED;
    default:
        return SHELF_IO;
    }
}

shelf_result disk_open(struct disk *disk, const char *path, char ret_text[DISK_TEXT_MAX]) {
    *disk = (struct disk){.fd = -1, .fd_lock = -1, .fd_holds = -1};
    (void)snprintf(disk->path, sizeof(disk->path), "%s", path);
    disk->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk->fd < 0) {
        int error = errno;
        (void)snprintf(ret_text, DISK_TEXT_MAX, "cannot open the directory: %s", strerror(error));
        return errno_result(error);
    }
    struct stat status;
    if (fstatat(disk->fd, "superblock", &status, 0) != 0) {
        int error = errno;
        (void)snprintf(ret_text, DISK_TEXT_MAX, "%s",
                       error == ENOENT ? "there is no shelf in it (no file `superblock`)" : strerror(error));
        disk_close(disk);
        return errno_result(error);
    }
    return SHELF_OK;
}

static void fd_close(int *fd) {
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

void disk_close(struct disk *disk) {
    fd_close(&disk->fd_lock);
    fd_close(&disk->fd_holds);
    fd_close(&disk->fd);
}

/* ---- Locks --------------------------------------------------------------------------------------------------------- */

static long owner_read(int fd) {
    char text[32] = "";
    ssize_t size = pread(fd, text, sizeof(text) - 1, 0);
    return size > 0 ? strtol(text, NULL, 10) : 0;
}

/* A directory that was copied without its lock, or that is read-only, has no node either. */
shelf_result disk_lock(struct disk *disk, long *ret_owner) {
    *ret_owner = 0;
    int fd = openat(disk->fd, "lock", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? SHELF_OK : errno_result(errno);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int error = errno;
        *ret_owner = owner_read(fd);
        (void)close(fd);
        return error == EWOULDBLOCK ? SHELF_BUSY : SHELF_IO;
    }
    disk->fd_lock = fd;
    return SHELF_OK;
}

void disk_unlock(struct disk *disk) {
    fd_close(&disk->fd_lock);
}

long disk_owner(struct disk *disk) {
    long owner = 0;
    if (disk_lock(disk, &owner) == SHELF_OK) {
        disk_unlock(disk);
    }
    return owner;
}

bool disk_hold_checkpoint(struct disk *disk) {
    int fd = openat(disk->fd, "checkpoint.lock", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT; /* never had a node that would look at it */
    }
    disk->fd_holds = fd;
    int result;
    do {
        result = flock(fd, LOCK_SH);
    } while (result != 0 && errno == EINTR);
    return result == 0;
}

/* ---- Files --------------------------------------------------------------------------------------------------------- */

struct disk_file disk_file_open(const struct disk *disk, const char *name) {
    struct disk_file file = {.fd = -1};
    (void)snprintf(file.name, sizeof(file.name), "%s", name);
    file.fd = openat(disk->fd, file.name, O_RDONLY | O_CLOEXEC);
    if (file.fd < 0) {
        file.error = errno;
        return file;
    }
    struct stat status;
    if (fstat(file.fd, &status) == 0) {
        file.length = (uint64_t)status.st_size;
    }
    return file;
}

void disk_file_close(struct disk_file *file) {
    fd_close(&file->fd);
}

enum disk_result disk_read(const struct disk_file *file, uint64_t offset, void *to, size_t size) {
    size_t done = 0;
    enum disk_result result = DISK_OK;
    if (file->fd < 0) {
        result = file->error == ENOENT ? DISK_MISSING : DISK_UNREADABLE;
    }
    while (done < size && result == DISK_OK) {
        ssize_t part = pread(file->fd, (char *)to + done, size - done, (off_t)(offset + done));
        if (part > 0) {
            done += (size_t)part;
        } else if (part == 0) {
            result = DISK_SHORT;
        } else if (errno != EINTR) {
            result = DISK_UNREADABLE;
        }
    }
    memset((char *)to + done, 0, size - done);
    return result;
}

const char *disk_result_text(const struct disk_file *file, enum disk_result result,
                             char ret_text[DISK_TEXT_MAX]) {
    switch (result) {
    case DISK_OK:
        return "is as it should be";
    case DISK_MISSING:
        return "is missing";
    case DISK_SHORT:
        return "ends too early";
    case DISK_UNREADABLE:
        break;
    }
    (void)snprintf(ret_text, DISK_TEXT_MAX, "cannot be read: %s", strerror(file->error ? file->error : EIO));
    return ret_text;
}
