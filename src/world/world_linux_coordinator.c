// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux_coordinator.c: the coordinator of a single machine is the register file `configuration` in the shelf's
 * directory (register_file.h): no value, and the revision is the epoch. The lock of the directory makes the
 * compare-and-swap atomic. (A cluster's coordinator is in src/coordinator.)
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "world/register_file.h"
#include "world/world_linux.h"

static int epoch_swap(struct world *world, uint64_t epoch, uint64_t *ret_present) {
    struct register_file file;
    bool unsure; /* a fault stops the node, so it makes no difference */
    int error = register_file_open(&file, world->fd_directory, "configuration", true);
    if (error != 0) {
        return error;
    }
    *ret_present = file.found.revision;
    if (file.found.revision != 0 && file.found.format != REGISTER_FORMAT) {
        error = EPROTO;
    } else if (file.found.revision < epoch) {
        const struct register_slot slot = {.format = REGISTER_FORMAT, .revision = epoch};
        error = register_file_store(&file, &slot, NULL, &unsure);
    }
    register_file_close(&file);
    return error;
}

static const char *epoch_problem(int error) {
    switch (error) {
    case EBADMSG:
        return "it is damaged; remove the file, the log has what is needed";
    case EPROTO:
        return "it is the register of a cluster, not of a single node";
    default:
        return strerror(error);
    }
}

void coordinator_run(struct world *world, struct io *io) {
    uint64_t present = 0;
    int error = epoch_swap(world, io->epoch, &present);
    io->result = IO_RESULT_OK;
    if (error == 0 && present >= io->epoch) {
        io->epoch = present;
        io->result = IO_RESULT_CONFLICT;
    } else if (error == ENOSPC || error == EDQUOT) {
        io->result = IO_RESULT_NO_SPACE;
    } else if (error != 0) {
        io->result = IO_RESULT_ERROR;
        (void)pthread_mutex_lock(&world->error_lock);
        if (world->error[0] == 0) {
            (void)snprintf(world->error, sizeof(world->error), "cannot replace configuration: %s",
                           epoch_problem(error));
        }
        (void)pthread_mutex_unlock(&world->error_lock);
    }
}
