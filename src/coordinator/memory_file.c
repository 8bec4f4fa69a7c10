// SPDX-License-Identifier: Apache-2.0
/* memory_file.c: two slots in turn, as every register file; see memory_file.h. */
#include "coordinator/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "coordinator/coordinator_state.h"
#include "world/register_file.h"

static shelf_result memory_load(struct memory_file *file, const char *directory,
                                char ret_text[COORDINATOR_TEXT_MAX]) {
    struct register_file opened;
    int error = register_file_open(&opened, file->fd_directory, MEMORY_FILE_NAME, true);
    if (error != 0) {
        coordinator_text(ret_text, "cannot read %.120s/" MEMORY_FILE_NAME ": %s", directory,
                         error == EBADMSG ? "it is damaged; see docs/operations.md, \"etcd has gone back\""
                                          : strerror(error));
        return error == EBADMSG ? SHELF_CORRUPT : error == EACCES || error == EROFS ? SHELF_DENIED : SHELF_IO;
    }
    register_file_close(&opened);
    file->memory =
        (struct coordinator_memory){.magic = COORDINATOR_MEMORY_MAGIC, .format = COORDINATOR_MEMORY_FORMAT};
    if (opened.found.revision != 0) {
        const char *problem = opened.found.value_size == sizeof(file->memory) ? NULL : "its size is wrong";
        memcpy(&file->memory, opened.value, sizeof(file->memory));
        problem = problem ? problem : coordinator_memory_problem(&file->memory);
        if (problem) {
            coordinator_text(ret_text, "cannot use %.120s/" MEMORY_FILE_NAME ": %s", directory, problem);
            return SHELF_FORMAT;
        }
    }
    file->stored = file->memory;
    return SHELF_OK;
}

shelf_result memory_file_open(struct memory_file *file, const char *directory,
                              char ret_text[COORDINATOR_TEXT_MAX]) {
    *file = (struct memory_file){
        .fd_directory = -1,
        .memory = {.magic = COORDINATOR_MEMORY_MAGIC, .format = COORDINATOR_MEMORY_FORMAT}};
    if (!directory) {
        return SHELF_OK;
    }
    file->fd_directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file->fd_directory < 0) {
        coordinator_text(ret_text, "cannot open %.150s: %s", directory, strerror(errno));
        return errno == ENOENT ? SHELF_NOT_FOUND : errno == EACCES ? SHELF_DENIED : SHELF_INVALID;
    }
    shelf_result result = memory_load(file, directory, ret_text);
    if (result != SHELF_OK) {
        memory_file_close(file);
    }
    return result;
}

void memory_file_close(struct memory_file *file) {
    if (file->fd_directory >= 0) {
        (void)close(file->fd_directory);
        file->fd_directory = -1;
    }
}

bool memory_file_dirty(const struct memory_file *file) {
    struct coordinator_memory stored = file->stored;
    stored.revision = file->memory.revision;
    return memcmp(&stored, &file->memory, sizeof(stored)) != 0;
}

bool memory_file_store(struct memory_file *file, char ret_text[COORDINATOR_TEXT_MAX]) {
    struct register_file opened;
    bool unsure = false;
    if (file->fd_directory < 0) {
        file->stored = file->memory;
        return true;
    }
    int error = file->broken ? EIO : register_file_open(&opened, file->fd_directory, MEMORY_FILE_NAME, true);
    if (error == 0) {
        const struct register_slot slot = {.format = REGISTER_FORMAT_2,
                                           .revision = opened.found.revision + 1,
                                           .value_size = sizeof(file->memory)};
        error = register_file_store(&opened, &slot, &file->memory, &unsure);
        register_file_close(&opened);
    }
    if (error != 0) {
        file->broken |= unsure;
        coordinator_text(ret_text, "cannot write the file " MEMORY_FILE_NAME " of the node's directory: %s",
                         strerror(error));
        return false;
    }
    file->stored = file->memory;
    return true;
}
