// SPDX-License-Identifier: Apache-2.0
/* identity.c: see identity.h. */
#include "member/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "world/register_file.h"
#include "world/world.h"

__attribute__((format(printf, 3, 4))) static shelf_result
refuse(char ret_text[MEMBER_TEXT_MAX], shelf_result result, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(ret_text, MEMBER_TEXT_MAX, format, arguments);
    va_end(arguments);
    return result;
}

static shelf_result result_of(int error) {
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return SHELF_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return SHELF_DENIED;
    case ENOSPC:
    case EDQUOT:
        return SHELF_NO_SPACE;
    case EBADMSG:
        return SHELF_CORRUPT;
    default:
        return SHELF_IO;
    }
}

/* ---- Records ------------------------------------------------------------------------------------------------------- */

static bool id_is_zero(const uint8_t id[16]) {
    static const uint8_t zero[16] = {0};
    return memcmp(id, zero, sizeof(zero)) == 0;
}

const char *member_record_problem(const struct member_record *record) {
    if (record->magic != MEMBER_MAGIC) {
        return "it is something else";
    }
    if (record->format != MEMBER_FORMAT) {
        return "its format is newer than this program";
    }
    bool known = record->state >= MEMBER_NEW && record->state <= MEMBER_BORN;
    bool named = memchr(record->cluster, 0, sizeof(record->cluster)) != NULL && record->cluster[0] != 0;
    uint64_t reserved = 0;
    for (size_t i = 0; i < sizeof(record->reserved) / sizeof(record->reserved[0]); i++) {
        reserved |= record->reserved[i];
    }
    return known && named && reserved == 0 && record->node != 0 && !id_is_zero(record->incarnation) &&
                   !id_is_zero(record->shelf_id)
               ? NULL
               : "it says what cannot be";
}

/* ---- Opening ------------------------------------------------------------------------------------------------------- */

static shelf_result record_load(struct identity_file *file, const char *directory,
                                char ret_text[MEMBER_TEXT_MAX]) {
    struct register_file opened;
    int error = register_file_open(&opened, file->fd_directory, MEMBER_FILE_NAME, false);
    if (error == ENOENT) {
        return SHELF_OK;
    }
    if (error != 0) {
        return refuse(ret_text, result_of(error), "cannot read %.200s/" MEMBER_FILE_NAME ": %s", directory,
                      error == EBADMSG ? "it is damaged; empty the directory, and the node joins anew"
                                       : strerror(error));
    }
    register_file_close(&opened);
    if (opened.found.revision == 0) { /* its making was cut short */
        return SHELF_OK;
    }
    const char *problem =
        opened.found.value_size == sizeof(file->record) ? NULL : "its size is that of no version";
    if (!problem) {
        memcpy(&file->record, opened.value, sizeof(file->record));
        problem = member_record_problem(&file->record);
    }
    if (problem) {
        file->record = (struct member_record){0};
        return refuse(ret_text, SHELF_FORMAT, "cannot use %.200s/" MEMBER_FILE_NAME ": %s", directory,
                      problem);
    }
    return SHELF_OK;
}

static shelf_result record_check(struct identity_file *file, const char *directory, const char *cluster,
                                 uint64_t node, char ret_text[MEMBER_TEXT_MAX]) {
    struct member_record *record = &file->record;
    bool has_shelf = faccessat(file->fd_directory, "superblock", F_OK, 0) == 0;
    if (record->node == 0) {
        return has_shelf
                   ? refuse(
                         ret_text, SHELF_INVALID,
                         "%.200s is the shelf of a single node, not of a cluster's; give an empty directory "
                         "(`shelf dump` and `shelf load` carry the data over)",
                         directory)
                   : SHELF_OK;
    }
    if (node != 0 && record->node != node) {
        return refuse(ret_text, SHELF_INVALID, "%.200s is the directory of node %llu, not of node %llu",
                      directory, (unsigned long long)record->node, (unsigned long long)node);
    }
    if (strcmp(record->cluster, cluster) != 0) {
        return refuse(ret_text, SHELF_INVALID,
                      "%.200s is the directory of a node of the cluster '%s', not of '%s'", directory,
                      record->cluster, cluster);
    }
    if (record->state == MEMBER_BORN && !has_shelf) { /* I3 */
        file->emptied = true;
        record->state = MEMBER_NEW;
        world_random_fill(record->incarnation, sizeof(record->incarnation));
    }
    return SHELF_OK;
}

static shelf_result directory_open(struct identity_file *file, const char *directory, bool create,
                                   char ret_text[MEMBER_TEXT_MAX]) {
    if (create && mkdir(directory, 0700) != 0 && errno != EEXIST) {
        return refuse(ret_text, result_of(errno), "cannot make directory %.200s: %s", directory,
                      strerror(errno));
    }
    file->fd_directory = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file->fd_directory < 0) {
        return refuse(ret_text, result_of(errno), "cannot open directory %.200s: %s", directory,
                      strerror(errno));
    }
    file->fd_lock = openat(file->fd_directory, MEMBER_LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->fd_lock < 0) {
        return refuse(ret_text, result_of(errno), "cannot make %.200s/" MEMBER_LOCK_NAME ": %s", directory,
                      strerror(errno));
    }
    if (flock(file->fd_lock, LOCK_EX | LOCK_NB) != 0) { /* I1 */
        return refuse(ret_text, errno == EWOULDBLOCK ? SHELF_BUSY : SHELF_IO,
                      "another process is the node of %.200s; end it first", directory);
    }
    return SHELF_OK;
}

shelf_result identity_open(struct identity_file *file, const char *directory, bool create,
                           const char *cluster, uint64_t node, char ret_text[MEMBER_TEXT_MAX]) {
    *file = (struct identity_file){.fd_directory = -1, .fd_lock = -1};
    shelf_result result = directory_open(file, directory, create, ret_text);
    if (result == SHELF_OK) {
        result = record_load(file, directory, ret_text);
    }
    if (result == SHELF_OK) {
        result = record_check(file, directory, cluster, node, ret_text);
    }
    if (result != SHELF_OK) {
        identity_close(file);
    }
    return result;
}

void identity_close(struct identity_file *file) {
    if (file->fd_lock >= 0) {
        (void)close(file->fd_lock);
    }
    if (file->fd_directory >= 0) {
        (void)close(file->fd_directory);
    }
    file->fd_lock = file->fd_directory = -1;
}

/* ---- Storing ------------------------------------------------------------------------------------------------------- */

/* Returns an error number. */
static int value_store(int fd_directory, const char *name, const void *value, size_t size) {
    struct register_file opened;
    bool unsure = false;
    int error = register_file_open(&opened, fd_directory, name, true);
    if (error != 0) {
        return error;
    }
    const struct register_slot slot = {
        .format = REGISTER_FORMAT_2, .revision = opened.found.revision + 1, .value_size = (uint32_t)size};
    error = register_file_store(&opened, &slot, value, &unsure);
    register_file_close(&opened);
    return error;
}

shelf_result identity_store(struct identity_file *file, const struct member_record *record,
                            char ret_text[MEMBER_TEXT_MAX]) {
    int error = value_store(file->fd_directory, MEMBER_FILE_NAME, record, sizeof(*record));
    if (error != 0) {
        return refuse(ret_text, result_of(error), "cannot write the file " MEMBER_FILE_NAME ": %s",
                      strerror(error));
    }
    file->record = *record;
    return SHELF_OK;
}

void identity_peers_load(const struct identity_file *file, char ret_text[REGISTER_VALUE_MAX + 1]) {
    struct register_file opened;
    ret_text[0] = 0;
    if (register_file_open(&opened, file->fd_directory, MEMBER_PEERS_NAME, false) == 0) {
        register_file_close(&opened);
        memcpy(ret_text, opened.value, opened.found.value_size);
        ret_text[opened.found.value_size] = 0;
    }
}

bool identity_peers_store(const struct identity_file *file, const char *text) {
    return value_store(file->fd_directory, MEMBER_PEERS_NAME, text, strlen(text)) == 0;
}
