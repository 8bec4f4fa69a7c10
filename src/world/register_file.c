// SPDX-License-Identifier: Apache-2.0
/* register_file.c: two slots in turn, see register_file.h. */
#include "world/register_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/crc.h"

static uint32_t slot_crc(struct register_slot slot, const void *value) {
    slot.crc = 0;
    return crc32c(crc32c(0, &slot, sizeof(slot)), value, slot.value_size);
}

bool register_slot_valid(const uint8_t bytes[REGISTER_SLOT_SIZE]) {
    struct register_slot slot;
    memcpy(&slot, bytes, sizeof(slot));
    bool plain = slot.value_size == 0 && slot.flags == 0;
    return slot.magic == REGISTER_MAGIC &&
           (slot.format == REGISTER_FORMAT_2 || (slot.format == REGISTER_FORMAT && plain)) &&
           slot.value_size <= REGISTER_VALUE_MAX && slot.crc == slot_crc(slot, bytes + sizeof(slot));
}

/* A short file reads as zeros at its end. */
static int slot_read(int fd, uint32_t number, uint8_t ret_bytes[REGISTER_SLOT_SIZE]) {
    size_t done = 0;
    memset(ret_bytes, 0, REGISTER_SLOT_SIZE);
    while (done < REGISTER_SLOT_SIZE) {
        ssize_t size = pread(fd, ret_bytes + done, REGISTER_SLOT_SIZE - done,
                             (off_t)number * REGISTER_SLOT_SIZE + (off_t)done);
        if (size < 0 && errno == EINTR) {
            continue;
        }
        if (size <= 0) {
            return size < 0 ? errno : 0;
        }
        done += (size_t)size;
    }
    return 0;
}

/* Empty, or zeros, is a file whose making was cut short by a crash. */
static int file_load(struct register_file *file) {
    static const uint8_t zeros[sizeof(struct register_slot)] = {0};
    bool empty = true, valid = false;
    for (uint32_t number = 0; number < REGISTER_SLOT_COUNT; number++) {
        uint8_t bytes[REGISTER_SLOT_SIZE];
        struct register_slot slot;
        int error = slot_read(file->fd, number, bytes);
        if (error != 0) {
            return error;
        }
        memcpy(&slot, bytes, sizeof(slot));
        empty &= memcmp(bytes, zeros, sizeof(zeros)) == 0;
        if (register_slot_valid(bytes) && slot.revision >= file->found.revision) {
            file->found = slot;
            file->slot = number;
            memcpy(file->value, bytes + sizeof(slot), sizeof(file->value));
            valid = true;
        }
    }
    return valid || empty ? 0 : EBADMSG;
}

int register_file_open(struct register_file *file, int fd_directory, const char *name, bool write) {
    *file = (struct register_file){.fd_directory = fd_directory};
    file->fd = openat(fd_directory, name, (write ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0600);
    if (file->fd < 0) {
        return errno;
    }
    int error = file_load(file);
    if (error != 0) {
        register_file_close(file);
    }
    return error;
}

void register_file_close(struct register_file *file) {
    (void)close(file->fd);
    file->fd = -1;
}

static int slot_write(const struct register_file *file, uint32_t number,
                      const uint8_t bytes[REGISTER_SLOT_SIZE]) {
    ssize_t size;
    do {
        size = pwrite(file->fd, bytes, REGISTER_SLOT_SIZE, (off_t)number * REGISTER_SLOT_SIZE);
    } while (size < 0 && errno == EINTR);
    return size == REGISTER_SLOT_SIZE ? 0 : size < 0 ? errno : ENOSPC;
}

static int synced(int fd) {
    int result;
    do {
        result = fsync(fd);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
}

int register_file_store(struct register_file *file, const struct register_slot *slot, const void *value,
                        bool *ret_unsure) {
    struct register_slot whole = *slot;
    uint8_t bytes[REGISTER_SLOT_SIZE] = {0};
    ASSERT(whole.revision > file->found.revision && whole.value_size <= REGISTER_VALUE_MAX);
    whole.magic = REGISTER_MAGIC;
    whole.crc = slot_crc(whole, value);
    memcpy(bytes, &whole, sizeof(whole));
    if (whole.value_size > 0) {
        memcpy(bytes + sizeof(whole), value, whole.value_size);
    }
    bool first = file->found.revision == 0;
    *ret_unsure = false;
    int error = slot_write(file, !file->slot, bytes);
    if (error != 0) {
        return error;
    }
    /* Both at first, so that no later one needs space; and when the format changes, so that no older program finds one of its own.
     * From here on the new revision may be there after a crash, whatever is answered. */
    *ret_unsure = true;
    if (first || whole.format != file->found.format) {
        error = slot_write(file, file->slot, bytes);
    }
    if (error == 0) {
        error = synced(file->fd);
    }
    if (error == 0 && first) {
        error = synced(file->fd_directory);
    }
    if (error == 0) {
        *ret_unsure = false;
        file->slot = !file->slot;
        file->found = whole;
        memset(file->value, 0, sizeof(file->value));
        memcpy(file->value, bytes + sizeof(whole), whole.value_size);
    }
    return error;
}
