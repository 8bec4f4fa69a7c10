// SPDX-License-Identifier: Apache-2.0
/*
 * register_file.h: one register in one file of two slots (wire/register_format.h). At any crash one of the two is whole, and
 * since the space of both exists from the beginning, a full disk does not matter: a node must be able to recover on one.
 *
 * Whoever opens it for writing has a lock that keeps everybody else away, readers included.
 */
#ifndef WORLD_REGISTER_FILE_H
#define WORLD_REGISTER_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/register_format.h"

struct register_file {
    int fd_directory; /* the caller's */
    int fd;
    uint32_t slot;              /* which counts */
    struct register_slot found; /* what it says; revision 0: there is nothing yet */
    uint8_t value[REGISTER_VALUE_MAX];
};

/* Reads the file, which is made if it is to be written. Returns 0 or an error number; ENOENT; EBADMSG: neither slot is valid. */
int register_file_open(struct register_file *file, int fd_directory, const char *name, bool write);
void register_file_close(struct register_file *file);

/* A higher revision takes the place of the present one, durably. After an error nothing has changed, unless ret_unsure says
 * that nobody can know; then the file must not be trusted before the machine has restarted. */
int register_file_store(struct register_file *file, const struct register_slot *slot, const void *value,
                        bool *ret_unsure);

/* Is this a valid slot? */
bool register_slot_valid(const uint8_t bytes[REGISTER_SLOT_SIZE]);

#endif
