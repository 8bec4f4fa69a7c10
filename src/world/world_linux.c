// SPDX-License-Identifier: Apache-2.0
/*
 * world_linux.c: the directory of a shelf: opening it, its lock, what a making that was cut short has left, forks.
 *
 *     superblock         its presence is what makes the directory a shelf
 *     superblock.new     its presence (without `superblock`) says: a making was begun here, all of it may be thrown away
 *     lock               locked by the node as long as it lives; contains its process id, for people
 *     checkpoint.lock    locked (shared) by whoever copies the checkpoint's files
 *     log, hint, roots.*, table.*, pages.*, configuration
 *
 *   D1  A directory without `superblock` that has other files of ours, but no `superblock.new`, is left alone: the files are
 *       somebody else's, or the shelf has lost its superblock.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bits.h"
#include "wire/member_format.h"
#include "world/world_linux.h"

#define FUSE_MAGIC 0x65735546

/* ---- All worlds of the process, for fork -------------------------------------------------------------------------- */

static pthread_once_t worlds_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t worlds_lock = PTHREAD_MUTEX_INITIALIZER; /* taken before any files_lock */
static struct list worlds;

static void on_fork_prepare(void) {
    (void)pthread_mutex_lock(&worlds_lock);
    LIST_FOREACH(link, &worlds) {
        struct world *world = LIST_ENTRY(link, struct world, link);
        (void)pthread_mutex_lock(&world->files_lock);
        (void)pthread_mutex_lock(&world->memory_lock);
    }
}

static void on_fork_parent(void) {
    LIST_FOREACH(link, &worlds) {
        struct world *world = LIST_ENTRY(link, struct world, link);
        (void)pthread_mutex_unlock(&world->memory_lock);
        (void)pthread_mutex_unlock(&world->files_lock);
    }
    (void)pthread_mutex_unlock(&worlds_lock);
}

/* W3: the locks belong to open files, which a child shares; they would outlive the parent in it. */
static void on_fork_child(void) {
    for (struct list *link; (link = list_pop_front(&worlds)) != NULL;) {
        struct world *world = LIST_ENTRY(link, struct world, link);
        files_close(world);
        (void)close(world->fd_lock);
        (void)close(world->fd_checkpoint_lock);
        (void)close(world->fd_directory);
        memory_fork_child(world);
        (void)pthread_mutex_unlock(&world->memory_lock);
        (void)pthread_mutex_unlock(&world->files_lock);
    }
    (void)pthread_mutex_unlock(&worlds_lock);
}

static void worlds_begin(void) {
    list_init(&worlds);
    (void)pthread_atfork(on_fork_prepare, on_fork_parent, on_fork_child);
}

/* ---- Errors ------------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static shelf_result
refuse(char ret_text[WORLD_TEXT_MAX], shelf_result result, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(ret_text, WORLD_TEXT_MAX, format, arguments);
    va_end(arguments);
    return result;
}

static shelf_result refuse_errno(char ret_text[WORLD_TEXT_MAX], int error, const char *doing,
                                 const char *path) {
    shelf_result result = SHELF_IO;
    switch (error) {
    case EACCES:
    case EPERM:
    case EROFS:
        result = SHELF_DENIED;
        break;
    case ENOENT:
        result = SHELF_NOT_FOUND;
        break;
    case ENOTDIR:
    case ELOOP:
    case ENAMETOOLONG:
    case EISDIR:
        result = SHELF_INVALID;
        break;
    case ENOSPC:
    case EDQUOT:
        result = SHELF_NO_SPACE;
        break;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        result = SHELF_NO_MEMORY;
        break;
    default:
        break;
    }
    return refuse(ret_text, result, "cannot %s %s: %s", doing, path, strerror(error));
}

/* ---- The directory ------------------------------------------------------------------------------------------------ */

/* A new directory is there after a power cut only if its parent has been synced. False: errno says why not. */
static bool parent_sync(const struct world *world, const char *path) {
    char parent[PATH_MAX];
    (void)snprintf(parent, sizeof(parent), "%s", path);
    size_t length = strlen(parent);
    while (length > 1 && parent[length - 1] == '/') {
        parent[--length] = 0;
    }
    char *slash = strrchr(parent, '/');
    if (slash == parent) {
        parent[1] = 0;
    } else if (slash) {
        *slash = 0;
    }
    int fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) { /* a parent that may not be read */
        return syncfs(world->fd_directory) == 0;
    }
    bool synced = fsync(fd) == 0;
    int error = errno;
    (void)close(fd);
    errno = error;
    return synced;
}

static bool entry_exists(const struct world *world, const char *name) {
    struct stat status;
    return fstatat(world->fd_directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0;
}

static shelf_result directory_open(struct world *world, const char *path, const struct world_options *options,
                                   char ret_text[WORLD_TEXT_MAX]) {
    if (strlen(path) >= sizeof(world->path) || path[0] == 0) {
        return refuse(ret_text, SHELF_INVALID, "the path is empty or too long");
    }
    (void)snprintf(world->path, sizeof(world->path), "%s", path);
    if (options->create && mkdir(path, 0700) != 0 && errno != EEXIST) {
        return refuse_errno(ret_text, errno, "make directory", path);
    }
    world->fd_directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (world->fd_directory < 0) {
        return refuse_errno(ret_text, errno, "open directory", path);
    }
    world->exists = world->published = entry_exists(world, "superblock");
    if (world->exists && options->create && options->exclusive) {
        return refuse(ret_text, SHELF_EXISTS, "%s has a shelf already", path);
    }
    if (!world->exists && !options->create) {
        return refuse(ret_text, SHELF_NOT_FOUND, "%s has no shelf (no file `superblock`)", path);
    }
    if (!world->exists &&
        !parent_sync(world, path)) { /* also if an earlier process made it and died before */
        return refuse_errno(ret_text, errno, "sync the directory above", path);
    }
    return SHELF_OK;
}

/* ---- Its lock ----------------------------------------------------------------------------------------------------- */

static shelf_result lock_refused(struct world *world, char ret_text[WORLD_TEXT_MAX]) {
    char owner[32] = "";
    ssize_t size = pread(world->fd_lock, owner, sizeof(owner) - 1, 0);
    owner[size > 0 ? strspn(owner, "0123456789") : 0] = 0;
    return refuse(ret_text, SHELF_BUSY, "%s is in use by process %s", world->path,
                  owner[0] ? owner : "(unknown)");
}

bool world_is_alone(const char *path) {
    char name[4200], owner[32] = "";
    (void)snprintf(name, sizeof(name), "%s/lock", path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t size = pread(fd, owner, sizeof(owner) - 1, 0);
        owner[size > 0 ? size : 0] = 0;
        (void)close(fd);
    }
    return strstr(owner, "alone") != NULL;
}

#define DAEMON_NAME "daemon"
static const char daemon_text[] =
    "shelfd keeps this directory: programs attach to it, and wait while it is away.\n"
    "Remove this file if it is not to come back; then the first program to open the directory keeps it.\n";

/* What is left of a directory whose shelf is gone keeps nobody from making another. */
bool world_has_daemon(const char *path) {
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool found =
        fd >= 0 && faccessat(fd, DAEMON_NAME, F_OK, 0) == 0 && faccessat(fd, "superblock", F_OK, 0) == 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return found;
}

bool world_is_member(const char *path) {
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bool found = fd >= 0 && faccessat(fd, MEMBER_FILE_NAME, F_OK, 0) == 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return found;
}

bool world_daemon_mark(const char *path) {
    bool marked = false;
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) {
        return false;
    }
    int fd = openat(directory, DAEMON_NAME, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0) { /* its name is all that counts */
        (void)!write(fd, daemon_text, sizeof(daemon_text) - 1);
        marked = fsync(fd) == 0 && fsync(directory) == 0;
        (void)close(fd);
    }
    int error = errno;
    (void)close(directory);
    errno = error;
    return marked;
}

static shelf_result lock_take(struct world *world, char ret_text[WORLD_TEXT_MAX]) {
    world->fd_lock = openat(world->fd_directory, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (world->fd_lock < 0) {
        return refuse_errno(ret_text, errno, "open the file `lock` in", world->path);
    }
    if (flock(world->fd_lock, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK ? lock_refused(world, ret_text)
                                    : refuse_errno(ret_text, errno, "lock", world->path);
    }
    char owner[32]; /* always as long: a file of an earlier node is overwritten without needing space */
    int size = snprintf(owner, sizeof(owner), "%-14ld%-6s\n", (long)getpid(), world->alone ? "alone" : "");
    if (pwrite(world->fd_lock, owner, (size_t)size, 0) != size) {
        return refuse_errno(ret_text, errno, "write the file `lock` in", world->path);
    }
    world->fd_checkpoint_lock =
        openat(world->fd_directory, "checkpoint.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (world->fd_checkpoint_lock < 0) {
        return refuse_errno(ret_text, errno, "open the file `checkpoint.lock` in", world->path);
    }
    return SHELF_OK;
}

bool world_checkpoint_held(struct world *world) {
    if (flock(world->fd_checkpoint_lock, LOCK_EX | LOCK_NB) != 0) {
        return errno == EWOULDBLOCK;
    }
    (void)flock(world->fd_checkpoint_lock, LOCK_UN);
    return false;
}

/* ---- What is in it ------------------------------------------------------------------------------------------------ */

/* The number behind "table.", or in "pages.N.a"; 0: the name is none of these. */
static uint32_t name_region(const char *name) {
    bool table = strncmp(name, "table.", 6) == 0;
    if (!table && strncmp(name, "pages.", 6) != 0) {
        return 0;
    }
    char *end;
    if (name[6] < '1' || name[6] > '9') {
        return 0;
    }
    errno = 0;
    unsigned long region = strtoul(name + 6, &end, 10);
    bool whole = table ? *end == 0 : strcmp(end, ".a") == 0 || strcmp(end, ".b") == 0;
    return whole && errno == 0 && region < REGION_NUMBERS ? (uint32_t)region : 0;
}

static bool name_is_ours(const char *name) {
    static const char *const names[] = {"log", "hint", "roots.a", "roots.b", "configuration"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return name_region(name) != 0;
}

/* Calls `visit` with each name until it returns false. */
static bool entries_visit(struct world *world, bool (*visit)(struct world *, const char *name, void *),
                          void *context) {
    int fd = openat(world->fd_directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (!directory) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return false;
    }
    bool going = true;
    errno = 0;
    for (struct dirent *entry; going && (entry = readdir(directory)) != NULL;) {
        going = visit(world, entry->d_name, context);
    }
    (void)closedir(directory);
    return going;
}

static bool visit_foreign(struct world *world, const char *name, void *context) {
    (void)world;
    if (!name_is_ours(name)) {
        return true;
    }
    (void)snprintf(context, NAME_MAX + 1, "%s", name);
    return false;
}

static bool visit_leftover(struct world *world, const char *name, void *context) {
    (void)context;
    return !name_is_ours(name) || unlinkat(world->fd_directory, name, 0) == 0;
}

/* Makes the place ready for a new shelf. */
static shelf_result leftovers_clear(struct world *world, char ret_text[WORLD_TEXT_MAX]) {
    if (entry_exists(world, "superblock.new")) {
        if (!entries_visit(world, visit_leftover, NULL)) {
            return refuse_errno(ret_text, errno, "remove an unfinished shelf in", world->path);
        }
    } else {
        char name[NAME_MAX + 1] = "";
        if (!entries_visit(world, visit_foreign, name)) { /* D1 */
            return name[0] == 0
                       ? refuse_errno(ret_text, errno, "list", world->path)
                       : refuse(
                             ret_text, SHELF_EXISTS,
                             "%.150s has a file `%.40s`, but no `superblock`: choose an empty directory, or "
                             "restore the superblock",
                             world->path, name);
        }
    }
    int fd = openat(world->fd_directory, "superblock.new", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return refuse_errno(ret_text, errno, "make a file in", world->path);
    }
    (void)close(fd);
    return SHELF_OK;
}

struct sweep {
    bool (*known)(void *context, uint32_t region);
    void *context;
};

static bool visit_sweep(struct world *world, const char *name, void *context) {
    const struct sweep *sweep = context;
    uint32_t region = name_region(name);
    if (region != 0 && !sweep->known(sweep->context, region)) {
        (void)unlinkat(world->fd_directory, name, 0); /* if not now, then at the next open */
    }
    return true;
}

void world_sweep(struct world *world, bool (*known)(void *context, uint32_t region), void *context) {
    struct sweep sweep = {known, context};
    (void)entries_visit(world, visit_sweep, &sweep);
    atomic_store(&world->serves, true);
}

enum { DESCRIPTORS_KEPT = 32 };

bool world_descriptors_short(int fd) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
        return false;
    }
    return (rlim_t)fd + min_u64(DESCRIPTORS_KEPT, limit.rlim_cur / 4) >= limit.rlim_cur;
}

/* ---- How files are to be written ---------------------------------------------------------------------------------- */

static uint32_t number_read(const char *path) {
    char text[32] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t size = read(fd, text, sizeof(text) - 1);
    (void)close(fd);
    return size > 0 ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

/* What the device writes in one piece. A smaller write makes it rewrite its neighbours, which a power cut can tear, and
 * which may be records that were acknowledged; so where this is not known, the larger of the usual sizes is right. */
static uint32_t sector_size(dev_t device) {
    char path[96];
    static const char *const places[] = {"queue", "../queue"}; /* of a disk; of a partition */
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/physical_block_size", major(device),
                       minor(device), places[i]);
        uint32_t size = number_read(path);
        if (size != 0) {
            return size <= 512 ? 512 : 4096;
        }
    }
    return 4096;
}

static void probe_files(struct world *world) {
    struct statx status;
    struct statfs filesystem;
    world->alignment = 4096;
    world->alignment_direct =
        512; /* if that is too little, transfers are refused with EINVAL, and go on without O_DIRECT */
    if (statx(world->fd_lock, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_DIOALIGN, &status) == 0) {
        world->alignment = sector_size(makedev(status.stx_dev_major, status.stx_dev_minor));
        if ((status.stx_mask & STATX_DIOALIGN) && status.stx_dio_offset_align != 0) {
            uint64_t needed = max_u64(status.stx_dio_offset_align, status.stx_dio_mem_align);
            world->alignment_direct = is_power_of_two(needed) ? (uint32_t)max_u64(needed, 512) : 4096;
        }
        world->alignment = world->alignment_direct <= 512 ? world->alignment : 4096;
    }
    /* A filesystem in user space sees O_DSYNC only as a flag, and many do not look at it; a sync cannot be overlooked. */
    world->sync_explicitly =
        fstatfs(world->fd_directory, &filesystem) != 0 || filesystem.f_type == FUSE_MAGIC;
}

static shelf_result backend_choose(struct world *world, shelf_backend wanted, char ret_text[WORLD_TEXT_MAX]) {
    world->backend = SHELF_BACKEND_PLAIN;
    if (wanted == SHELF_BACKEND_PLAIN) {
        return SHELF_OK;
    }
    struct uring *uring = uring_open(world);
    if (uring) {
        uring_close(uring);
        world->backend = SHELF_BACKEND_URING;
    } else if (wanted == SHELF_BACKEND_URING) {
        return refuse(ret_text, SHELF_UNAVAILABLE, "the kernel refuses io_uring here: %s", strerror(errno));
    }
    return SHELF_OK;
}

/* ---- Open and close ----------------------------------------------------------------------------------------------- */

static void world_init(struct world *world, const struct world_options *options) {
    *world = (struct world){.alone = options->alone,
                            .alias_single = options->alias_single,
                            .fd_directory = -1,
                            .fd_lock = -1,
                            .fd_checkpoint_lock = -1,
                            .fd_image = -1};
    list_init(&world->link);
    list_init(&world->files);
    list_init(&world->memory_used);
    list_init(&world->memory_free);
    (void)pthread_mutex_init(&world->files_lock, NULL);
    (void)pthread_mutex_init(&world->memory_lock, NULL);
    (void)pthread_mutex_init(&world->error_lock, NULL);
}

static shelf_result world_begin(struct world *world, const char *path, const struct world_options *options,
                                char ret_text[WORLD_TEXT_MAX]) {
    shelf_result result = directory_open(world, path, options, ret_text);
    if (result == SHELF_OK) {
        result = lock_take(world, ret_text);
    }
    if (result == SHELF_OK) { /* another node may have published a shelf before we had the lock */
        world->exists = world->published = entry_exists(world, "superblock");
        if (!world->exists) {
            result = leftovers_clear(world, ret_text);
        }
    }
    if (result == SHELF_OK &&
        !directory_sync(world)) { /* names that the last process may not have got round to */
        result = refuse_errno(ret_text, errno, "sync", path);
    }
    if (result == SHELF_OK) {
        probe_files(world);
        result = backend_choose(world, options->backend, ret_text);
    }
    if (result == SHELF_OK && !memory_open(world, ret_text)) {
        result = SHELF_NO_MEMORY;
    }
    return result;
}

shelf_result world_open(const char *path, const struct world_options *options, struct world **ret_world,
                        char ret_text[WORLD_TEXT_MAX]) {
    (void)pthread_once(&worlds_once, worlds_begin);
    struct world *world = malloc(sizeof(*world));
    if (!world) {
        return refuse(ret_text, SHELF_NO_MEMORY, "no memory for the node");
    }
    world_init(world, options);
    /* From here on a fork closes our descriptors in the child, so that it cannot keep the lock. */
    (void)pthread_mutex_lock(&worlds_lock);
    list_push_back(&worlds, &world->link);
    (void)pthread_mutex_unlock(&worlds_lock);
    shelf_result result = world_begin(world, path, options, ret_text);
    if (result != SHELF_OK) {
        world_close(world);
        return result;
    }
    *ret_world = world;
    return SHELF_OK;
}

static void descriptor_close(int fd) {
    if (fd >= 0) {
        (void)close(fd);
    }
}

void world_close(struct world *world) {
    (void)pthread_mutex_lock(&worlds_lock);
    list_unlink(&world->link);
    (void)pthread_mutex_unlock(&worlds_lock);
    files_close(world);
    memory_close(world);
    if (world->fd_lock >= 0) { /* a child that was forked just now may not have got round to closing it */
        (void)flock(world->fd_lock, LOCK_UN);
    }
    descriptor_close(world->fd_checkpoint_lock);
    descriptor_close(world->fd_lock);
    descriptor_close(world->fd_directory);
    (void)pthread_mutex_destroy(&world->files_lock);
    (void)pthread_mutex_destroy(&world->memory_lock);
    (void)pthread_mutex_destroy(&world->error_lock);
    free(world);
}

/* ---- The rest ----------------------------------------------------------------------------------------------------- */

bool world_shelf_exists(const struct world *world) {
    return world->exists;
}

shelf_backend world_backend(const struct world *world) {
    return world->backend;
}

uint32_t world_alignment(const struct world *world) {
    return world->alignment;
}

const char *world_error(const struct world *world) {
    return world->error;
}

uint64_t world_clock_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &now); /* a few ms old; asked for with every event */
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t world_thread_ns(void) {
    struct timespec ran;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ran);
    return (uint64_t)ran.tv_sec * 1000000000 + (uint64_t)ran.tv_nsec;
}

bool world_thread_begin(pthread_t *thread, const char *name, void *(*function)(void *), void *context) {
    enum { STACK_BYTES = 256 << 10 };
    sigset_t all, before;
    pthread_attr_t attributes;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int error = pthread_create(thread, &attributes, function, context);
    (void)pthread_attr_destroy(&attributes);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        (void)pthread_setname_np(*thread, name);
    }
    return error == 0;
}

uint64_t world_monotonic_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void world_random_fill(void *bytes, size_t size) {
    uint8_t *at = bytes;
    while (size > 0) {
        ssize_t filled = getrandom(at, size, 0);
        ASSERT(filled > 0 || errno == EINTR); /* cannot fail otherwise, by its manual */
        if (filled > 0) {
            at += filled;
            size -= (size_t)filled;
        }
    }
}

void world_run(struct world *world, struct io *io) {
    switch ((enum io_kind)io->kind) {
    case IO_MAP:
    case IO_UNMAP:
        memory_run(world, io);
        return;
    case IO_SWAP_EPOCH:
        coordinator_run(world, io);
        return;
    default:
        file_run(world, io);
    }
}
