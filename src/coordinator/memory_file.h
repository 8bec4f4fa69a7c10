// SPDX-License-Identifier: Apache-2.0
/* memory_file.h: what a node remembers of its coordinator, in the register file `coordinator` of its directory. */
#ifndef COORDINATOR_MEMORY_FILE_H
#define COORDINATOR_MEMORY_FILE_H

#include "coordinator/coordinator.h"

#define MEMORY_FILE_NAME "coordinator"

struct memory_file {
    int fd_directory; /* -1: none */
    bool broken;      /* nobody knows what a write has left */
    struct coordinator_memory memory;
    struct coordinator_memory stored; /* what is on the disk */
};

/* Without a directory nothing is kept. */
shelf_result memory_file_open(struct memory_file *file, const char *directory,
                              char ret_text[COORDINATOR_TEXT_MAX]);
void memory_file_close(struct memory_file *file);
/* Has anything changed that must not be forgotten? (That the store's revision alone has grown can wait.) */
bool memory_file_dirty(const struct memory_file *file);
/* Makes the memory durable. False: ret_text says why not. */
bool memory_file_store(struct memory_file *file, char ret_text[COORDINATOR_TEXT_MAX]);

#endif
