// SPDX-License-Identifier: Apache-2.0
/*
 * disk.h: the files of a shelf's directory, read-only and without a node. For `verify` and `dump`, which read the formats
 * with code of their own: an error in the node's reading cannot hide itself from them.
 */
#ifndef CMD_DISK_H
#define CMD_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shelf.h"

#define DISK_TEXT_MAX 256u

struct disk {
    char path[4000];
    int fd;       /* directory */
    int fd_lock;  /* -1, or the lock of the node, held */
    int fd_holds; /* -1, or the shared lock that keeps the node from beginning checkpoints */
};

/* NOT_FOUND: no directory, or no shelf in it. On failure there is nothing to close. */
shelf_result disk_open(struct disk *disk, const char *path, char ret_text[DISK_TEXT_MAX]);
void disk_close(struct disk *disk);

/* Keeps nodes away. BUSY: there is one; `ret_owner` is its process, 0 if not known. */
shelf_result disk_lock(struct disk *disk, long *ret_owner);
void disk_unlock(struct disk *disk);
/* The process that is the node; 0: there is none, or it is not known. */
long disk_owner(struct disk *disk);
/* Asks the node to begin no checkpoint while this is held. Waits a moment for a node that looks at the lock itself. */
bool disk_hold_checkpoint(struct disk *disk);

enum disk_result { DISK_OK, DISK_MISSING, DISK_SHORT, DISK_UNREADABLE };

struct disk_file {
    char name[64];
    int fd; /* -1: missing, or not to be opened */
    int error;
    uint64_t length;
};
/* Always usable afterwards: reading a missing file says so. */
struct disk_file disk_file_open(const struct disk *disk, const char *name);
void disk_file_close(struct disk_file *file);
/* All of it or an error; what could not be read is zero. */
enum disk_result disk_read(const struct disk_file *file, uint64_t offset, void *to, size_t size);
/* "is missing", "ends before", "cannot be read: Input/output error" */
const char *disk_result_text(const struct disk_file *file, enum disk_result result,
                             char ret_text[DISK_TEXT_MAX]);

#endif
