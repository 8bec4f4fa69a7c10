// SPDX-License-Identifier: Apache-2.0
/*
 * coordinator_file.c: a directory of register files, for the nodes of one machine.
 *
 *     configuration      of group 0
 *     configuration.N    of group N
 *     node.N             of node N
 *     lock               held (shared) by who reads, (alone) by who swaps
 *
 * A swap reads all registers under the lock and gives the changed one the highest revision plus one, so that revisions
 * order the changes of all registers, as etcd's do. A removed register keeps its file, for its revision.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "coordinator/coordinator_state.h"
#include "world/register_file.h"
#include "world/world.h"

#define LOCK_PAUSE_MS 2

struct coordinator_file {
    struct coordinator base;
    int fd_directory, fd_lock, fd_wake, fd_notify;
    uint32_t timeout_ms, probe_ms;
    bool broken; /* nobody knows what a swap has left; only a restart of the machine can tell */
    struct coordinator_memory memory; /* of this process; a file cannot be told to have gone back otherwise */
    char directory[COORDINATOR_TEXT_MAX];
};

static struct coordinator_file *file_of(struct coordinator *coordinator) {
    return (struct coordinator_file *)(void *)coordinator; /* its first member */
}

/* ---- Names --------------------------------------------------------------------------------------------------------- */

static void id_name(struct register_id id, char ret_name[48]) {
    if (id.kind == REGISTER_NODE) {
        (void)snprintf(ret_name, 48, "node.%" PRIu64, id.number);
    } else if (id.number == 0) {
        (void)snprintf(ret_name, 48, "configuration");
    } else {
        (void)snprintf(ret_name, 48, "configuration.%" PRIu64, id.number);
    }
}

static bool name_id(const char *name, struct register_id *ret_id) {
    char again[48];
    if (strncmp(name, "configuration", 13) == 0) {
        *ret_id =
            (struct register_id){REGISTER_CONFIGURATION, name[13] == '.' ? strtoull(name + 14, NULL, 10) : 0};
    } else if (strncmp(name, "node.", 5) == 0) {
        *ret_id = (struct register_id){REGISTER_NODE, strtoull(name + 5, NULL, 10)};
    } else {
        return false;
    }
    id_name(*ret_id, again); /* one spelling each */
    return strcmp(name, again) == 0;
}

/* ---- Lock ---------------------------------------------------------------------------------------------------------- */

static int lock_set(const struct coordinator_file *file, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    return fcntl(file->fd_lock, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

/* Somebody who holds it may have been stopped, so there is an end to waiting. */
static int lock_take(struct coordinator_file *file, short type) {
    uint64_t end_ns = world_monotonic_ns() + (uint64_t)file->timeout_ms * 1000000;
    int error;
    while ((error = lock_set(file, type)) == EAGAIN || error == EACCES || error == EINTR) {
        if (world_monotonic_ns() >= end_ns || coordinator_closing(&file->base)) {
            return ETIMEDOUT;
        }
        (void)poll(NULL, 0, LOCK_PAUSE_MS);
    }
    return error;
}

/* ---- All registers ---------------------------------------------------------------------------------------------------- */

struct reading {
    uint64_t revision; /* the highest, of removed ones too */
    uint32_t count;
    struct {
        struct register_id id;
        struct register_state state;
    } registers[REGISTERS_MAX];
};

/* Returns an error number; ENOENT: there is none. ret_at: its revision, or that of its removal. */
static int register_read(const struct coordinator_file *file, struct register_id id,
                         struct register_state *ret_state, uint64_t *ret_at) {
    char name[48];
    struct register_file opened;
    id_name(id, name);
    *ret_state = (struct register_state){0};
    *ret_at = 0;
    int error = register_file_open(&opened, file->fd_directory, name, false);
    if (error != 0) {
        return error;
    }
    *ret_at = opened.found.revision;
    if (opened.found.revision == 0 || (opened.found.flags & REGISTER_FLAG_REMOVED)) {
        error = ENOENT;
    } else {
        ret_state->revision = opened.found.revision;
        ret_state->size = opened.found.value_size;
        memcpy(ret_state->value, opened.value, opened.found.value_size);
    }
    register_file_close(&opened);
    return error;
}

static int reading_add(const struct coordinator_file *file, struct reading *reading, struct register_id id) {
    struct register_state state;
    uint64_t at;
    int error = register_read(file, id, &state, &at);
    reading->revision = max_u64(reading->revision, at);
    if (error != 0) {
        return error == ENOENT ? 0 : error;
    }
    if (reading->count == REGISTERS_MAX) {
        return EOVERFLOW;
    }
    reading->registers[reading->count].id = id;
    reading->registers[reading->count].state = state;
    reading->count++;
    return 0;
}

/* With the lock. */
static int registers_read(const struct coordinator_file *file, struct reading *reading) {
    reading->revision = reading->count = 0;
    int fd = openat(file->fd_directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    int error = directory ? 0 : errno;
    if (!directory) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return error;
    }
    errno = 0;
    for (struct dirent *entry; error == 0 && (entry = readdir(directory)) != NULL;) {
        struct register_id id;
        if (name_id(entry->d_name, &id)) {
            error = reading_add(file, reading, id);
        }
    }
    (void)closedir(directory);
    return error;
}

/* NULL, or why the reading cannot be right. */
static const char *reading_problem(struct coordinator_file *file, const struct reading *reading) {
    const char *problem =
        coordinator_memory_store(&file->memory, 1, reading->revision, file->memory.revision);
    for (uint32_t i = 0; !problem && i < reading->count; i++) {
        const struct register_state *state = &reading->registers[i].state;
        problem =
            coordinator_memory_register(&file->memory, reading->registers[i].id, state,
                                        (struct register_history){1, state->revision}, reading->revision);
    }
    return problem;
}

static void reading_tell(struct coordinator_file *file, const struct reading *reading) {
    struct coordinator_table *table = coordinator_table_lock(&file->base);
    if (coordinator_table_begin(table, reading->revision)) {
        for (uint32_t i = 0; i < reading->count; i++) {
            (void)coordinator_table_set(table, reading->registers[i].id, &reading->registers[i].state, NULL);
        }
        (void)coordinator_table_end(table, reading->revision);
    }
    coordinator_table_unlock(&file->base);
}

static const char *error_words(int error) {
    switch (error) {
    case ETIMEDOUT:
        return "another process holds its lock";
    case EBADMSG:
        return "a register is damaged; restore the directory from a copy that is as new";
    case EOVERFLOW:
        return "it has more registers than this program knows";
    default:
        return strerror(error);
    }
}

/* Says what is wrong; returns what an ask is answered. */
static uint32_t file_fail(struct coordinator_file *file, int error, const char *problem) {
    char text[COORDINATOR_TEXT_MAX];
    bool refused = problem != NULL || error == EBADMSG || error == EOVERFLOW || file->broken;
    if (file->broken) {
        problem = "a write to it has failed; check the disk and start the machine again";
    }
    coordinator_text(text, "the coordinator's directory %.100s: %s", file->directory,
                     problem ? problem : error_words(error));
    coordinator_lost(&file->base, refused, text);
    return refused ? COORDINATOR_REFUSED : COORDINATOR_UNAVAILABLE;
}

/* Reads and judges everything, with the lock. 0: an outcome is not needed. */
static uint32_t file_look(struct coordinator_file *file, struct reading *reading) {
    int error = registers_read(file, reading);
    const char *problem = error == 0 && !file->broken ? reading_problem(file, reading) : NULL;
    if (error != 0 || problem || file->broken) {
        return file_fail(file, error, problem);
    }
    coordinator_reached(&file->base, file->directory, reading->revision);
    reading_tell(file, reading);
    return 0;
}

/* ---- Asks ---------------------------------------------------------------------------------------------------------- */

static uint32_t register_store(struct coordinator_file *file, struct coordinator_ask *ask,
                               uint64_t revision) {
    char name[48];
    struct register_file opened;
    bool unsure = false;
    id_name(ask->id, name);
    int error = register_file_open(&opened, file->fd_directory, name, true);
    if (error == 0) {
        bool removes = ask->act == COORDINATOR_REMOVE;
        const struct register_slot slot = {
            .format = REGISTER_FORMAT_2,
            .group = ask->id.kind == REGISTER_CONFIGURATION ? (uint16_t)ask->id.number : 0,
            .revision = revision,
            .value_size = removes ? 0 : ask->size,
            .flags = removes ? REGISTER_FLAG_REMOVED : 0};
        error = register_file_store(&opened, &slot, ask->value, &unsure);
        register_file_close(&opened);
    }
    if (error == 0) {
        return COORDINATOR_OK;
    }
    file->broken |= unsure;
    (void)file_fail(file, error, NULL);
    return unsure ? COORDINATOR_UNKNOWN : COORDINATOR_UNAVAILABLE;
}

/* With the lock, and everything read. */
static uint32_t ask_run(struct coordinator_file *file, struct coordinator_ask *ask, struct reading *reading) {
    uint64_t at;
    int error = register_read(file, ask->id, &ask->state, &at);
    if (error != 0 && error != ENOENT) {
        return file_fail(file, error, NULL);
    }
    if (ask->act == COORDINATOR_GET) {
        return COORDINATOR_OK;
    }
    if (ask->state.revision != ask->expected) {
        return COORDINATOR_LOST;
    }
    bool makes = ask->expected == 0;
    if (makes && reading->count == REGISTERS_MAX) {
        return file_fail(file, EOVERFLOW, NULL);
    }
    uint32_t outcome = register_store(file, ask, reading->revision + 1);
    if (outcome == COORDINATOR_OK) {
        outcome = file_look(file, reading);
        outcome = outcome == 0 ? COORDINATOR_OK : COORDINATOR_UNKNOWN;
        (void)register_read(file, ask->id, &ask->state, &at);
    }
    return outcome;
}

static void ask_answer(struct coordinator_file *file, struct coordinator_ask *ask, struct reading *reading) {
    int error = lock_take(file, ask->act == COORDINATOR_GET ? F_RDLCK : F_WRLCK);
    uint32_t outcome = error != 0 ? file_fail(file, error, NULL) : file_look(file, reading);
    if (outcome == 0) {
        outcome = ask_run(file, ask, reading);
    }
    (void)lock_set(file, F_UNLCK);
    coordinator_answer(&file->base, ask, outcome);
}

static void registers_look(struct coordinator_file *file, struct reading *reading) {
    int error = lock_take(file, F_RDLCK);
    if (error != 0) {
        (void)file_fail(file, error, NULL);
    } else {
        (void)file_look(file, reading);
    }
    (void)lock_set(file, F_UNLCK);
}

/* ---- The thread ---------------------------------------------------------------------------------------------------- */

static void fd_drain(int fd) {
    char bytes[4096];
    while (read(fd, bytes, sizeof(bytes)) > 0) {
    }
}

static void file_run(struct coordinator *coordinator) {
    struct coordinator_file *file = file_of(coordinator);
    struct reading *reading = calloc(1, sizeof(*reading));
    while (reading && !coordinator_closing(coordinator)) {
        struct pollfd fds[2] = {{.fd = file->fd_wake, .events = POLLIN},
                                {.fd = file->fd_notify, .events = POLLIN}};
        struct coordinator_ask *ask = coordinator_next(coordinator);
        if (ask) {
            ask_answer(file, ask, reading);
            continue;
        }
        registers_look(file, reading);
        (void)poll(fds, 2, (int)file->probe_ms);
        fd_drain(file->fd_wake);
        fd_drain(file->fd_notify);
    }
    free(reading);
}

static void file_wake(struct coordinator *coordinator) {
    uint64_t one = 1;
    ssize_t size = write(file_of(coordinator)->fd_wake, &one, sizeof(one));
    (void)size; /* full: it is awake */
}

static void file_free(struct coordinator *coordinator) {
    struct coordinator_file *file = file_of(coordinator);
    const int fds[] = {file->fd_directory, file->fd_lock, file->fd_wake, file->fd_notify};
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    free(file);
}

static const struct coordinator_backend backend = {file_run, file_wake, file_free};

static shelf_result errno_result(int error) {
    return error == EACCES || error == EPERM || error == EROFS ? SHELF_DENIED
           : error == ENOENT                                   ? SHELF_NOT_FOUND
           : error == ENOTDIR                                  ? SHELF_INVALID
           : error == ENOMEM                                   ? SHELF_NO_MEMORY
                                                               : SHELF_IO;
}

static int directory_prepare(struct coordinator_file *file, const char *path) {
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return errno;
    }
    file->fd_directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file->fd_directory < 0) {
        return errno;
    }
    file->fd_lock = openat(file->fd_directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->fd_lock < 0) {
        return errno;
    }
    file->fd_notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK); /* without it there is the probe */
    file->base.status.watching =
        file->fd_notify >= 0 && inotify_add_watch(file->fd_notify, path, IN_CLOSE_WRITE | IN_MOVED_TO) >= 0;
    return 0;
}

shelf_result coordinator_open_file(const struct coordinator_file_options *options,
                                   struct coordinator **ret_coordinator,
                                   char ret_text[COORDINATOR_TEXT_MAX]) {
    struct coordinator_file *file = calloc(1, sizeof(*file));
    if (!file) {
        coordinator_text(ret_text, "no memory for the coordinator");
        return SHELF_NO_MEMORY;
    }
    file->fd_directory = file->fd_lock = file->fd_notify = -1;
    file->timeout_ms = options->timeout_ms ? options->timeout_ms : 2000;
    file->probe_ms = options->probe_ms ? options->probe_ms : 1000;
    file->fd_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    coordinator_text(file->directory, "%s", options->directory);
    int error = coordinator_init(&file->base, &backend) && file->fd_wake >= 0 ? 0 : ENOMEM;
    if (error == 0) {
        error = directory_prepare(file, options->directory);
    }
    if (error == 0 && !coordinator_begin(&file->base)) {
        error = ENOMEM;
    }
    if (error != 0) {
        coordinator_text(ret_text, "cannot open the coordinator's directory %.120s: %s", options->directory,
                         strerror(error));
        coordinator_free(&file->base);
        return errno_result(error);
    }
    *ret_coordinator = &file->base;
    return SHELF_OK;
}
