// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux_coordinator.c: the coordinator of a single machine is the file `configuration`: two slots of 4096 bytes, of which
 * the first 64 are used (little-endian).
 *
 * The valid slot with the larger epoch counts. A new epoch overwrites the other slot, and is synced: at any crash one of the
 * two is whole, and a full disk does not matter (a node must be able to recover on one). The lock of the directory makes
 * the compare-and-swap atomic.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/crc.h"
#include "wire/configuration_format.h"
#include "world/world_linux.h"

struct coordinator { /* what the file says */
    int fd;
    uint64_t epoch; /* 0: none yet */
    uint32_t slot;  /* which says so */
};

static uint32_t configuration_crc(struct configuration configuration) {
    configuration.crc = 0;
    return crc32c(0, &configuration, sizeof(configuration));
}

static bool configuration_valid(const struct configuration *configuration) {
    return configuration->magic == CONFIGURATION_MAGIC && configuration->format == CONFIGURATION_FORMAT &&
           configuration->crc == configuration_crc(*configuration);
}

/* Returns 0 or an error number; EBADMSG: neither slot is valid. */
static int coordinator_load(struct coordinator *coordinator) {
    bool valid = false, empty = true;
    for (uint32_t slot = 0; slot < CONFIGURATION_SLOT_COUNT; slot++) {
        struct configuration configuration = {0};
        ssize_t size = pread(coordinator->fd, &configuration, sizeof(configuration),
                             (off_t)slot * CONFIGURATION_SLOT_SIZE);
        if (size < 0) {
            return errno;
        }
        empty &= memcmp(&configuration, &(struct configuration){0}, sizeof(configuration)) == 0;
        if (configuration_valid(&configuration) && configuration.epoch >= coordinator->epoch) {
            coordinator->epoch = configuration.epoch;
            coordinator->slot = slot;
            valid = true;
        }
    }
    return valid || empty ? 0
                          : EBADMSG; /* empty, or zeros: a crash came between its making and its first sync */
}

static int slot_store(const struct coordinator *coordinator, uint32_t slot, uint64_t epoch) {
    uint8_t bytes[CONFIGURATION_SLOT_SIZE] = {0};
    struct configuration configuration = {
        .magic = CONFIGURATION_MAGIC, .format = CONFIGURATION_FORMAT, .epoch = epoch};
    configuration.crc = configuration_crc(configuration);
    memcpy(bytes, &configuration, sizeof(configuration));
    ssize_t size = pwrite(coordinator->fd, bytes, sizeof(bytes), (off_t)slot * CONFIGURATION_SLOT_SIZE);
    return size == CONFIGURATION_SLOT_SIZE ? 0 : size < 0 ? errno : ENOSPC;
}

static int coordinator_store(struct world *world, const struct coordinator *coordinator, uint64_t epoch) {
    bool first = coordinator->epoch == 0;
    int error = slot_store(coordinator, !coordinator->slot, epoch);
    if (error == 0 && first) { /* both, so that no later one needs space */
        error = slot_store(coordinator, coordinator->slot, epoch);
    }
    if (error == 0 && fsync(coordinator->fd) != 0) {
        error = errno;
    }
    if (error == 0 && first && !directory_sync(world)) {
        error = errno;
    }
    return error;
}

static int coordinator_swap(struct world *world, uint64_t epoch, uint64_t *ret_present) {
    struct coordinator coordinator = {0};
    coordinator.fd = openat(world->fd_directory, "configuration", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (coordinator.fd < 0) {
        return errno;
    }
    int error = coordinator_load(&coordinator);
    *ret_present = coordinator.epoch;
    if (error == 0 && coordinator.epoch < epoch) {
        error = coordinator_store(world, &coordinator, epoch);
    }
    (void)close(coordinator.fd);
    return error;
}

void coordinator_run(struct world *world, struct io *io) {
    uint64_t present = 0;
    int error = coordinator_swap(world, io->epoch, &present);
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
                           error == EBADMSG ? "it is damaged; remove the file, the log has what is needed"
                                            : strerror(error));
        }
        (void)pthread_mutex_unlock(&world->error_lock);
    }
}
