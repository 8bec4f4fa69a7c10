// SPDX-License-Identifier: Apache-2.0
//
// powerfs: a file system that writes down what a program asks of its disk. It passes everything through to a backing
// directory and records each write, sync and change of a name or size into a trace (trace.h), from which rebuild makes
// the disks that a loss of power could have left.
//
//   powerfs --back DIR --trace FILE --mount DIR [--delay-us N] [--fail-write N | --fail-sync N] [--fail-errno NUMBER]
//
// It stays in the foreground and ends when the file system is unmounted. A file that is already in the backing directory
// is recorded as written and synced before anything else happens.
//
// How
//   - Every file is opened for direct I/O, so that the kernel's cache never holds a write back or joins two. The program's
//     own O_DIRECT, O_DSYNC and O_SYNC are taken off the backing file: its durability is what the trace says, not what
//     the backing disk does.
//   - O_DSYNC: the kernel hands the flags of the open file, and those of one RWF_DSYNC write, to the write itself. It may
//     send a sync of its own after it as well; that is then recorded like any other.
//   - Requests run in several threads. One lock makes the order of the trace the order of effects. A durable write or a
//     sync waits delay_us between its entry and its DONE, outside of the lock, so that what a program does in parallel is
//     recorded as such.
//   - Text written to /.mark becomes a MARK. When the write returns, the mark has its place in the trace: this is how a
//     program says "from here on this is promised".
//   - --fail-write N: the N-th write (from 1) fails and leaves a WRITE without DONE; likewise --fail-sync. When that has
//     happened there is a file TRACE.failed.
//
// Not supported, and refused: links, renames to another directory, exchanging renames.

#define FUSE_USE_VERSION 32

#include "trace.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

// A file or directory. Never freed: open handles go on naming one that has been removed.
struct node {
    uint32_t number;
    bool removed;
    bool directory;
    struct node *parent; // NULL: the root
    struct node *next;   // of all nodes
    char *name;
};

// What an open file or directory is to us. Owned by the kernel's open file, ended by release.
struct handle {
    int fd; // -1: the mark file
    struct node *node;
};

static struct {
    pthread_mutex_t lock; // guards all below but the constants
    FILE *trace;
    uint64_t entries;
    uint32_t nodes;
    struct node *list;
    uint64_t writes, syncs;

    int back; // constants, set before the threads start
    struct node root;
    long delay_us;
    uint64_t fail_write, fail_sync;
    char *failed_path;
    int fail_errno;
} fs = {.lock = PTHREAD_MUTEX_INITIALIZER,
        .nodes = 1,
        .root = {.directory = true, .name = (char[]){""}},
        .fail_errno = EIO};

// ---- The trace --------------------------------------------------------------------------------------------

// A trace that lacks an entry proves nothing, so the test ends when one cannot be written.
_Noreturn static void trace_failed(const char *what) {
    fprintf(stderr, "powerfs: cannot %s the trace: %s\n", what, strerror(errno));
    _exit(1);
}

// Under the lock. Returns the entry's number.
static uint64_t trace_append(struct trace_entry entry, const void *data, size_t data_size) {
    entry.magic = TRACE_MAGIC;
    entry.data_size = (uint32_t)data_size;
    if (fwrite(&entry, sizeof(entry), 1, fs.trace) != 1 ||
        (data_size > 0 && fwrite(data, data_size, 1, fs.trace) != 1)) {
        trace_failed("write");
    }
    return fs.entries++;
}

static void trace_done(const struct node *node, uint64_t ticket) {
    pthread_mutex_lock(&fs.lock);
    trace_append((struct trace_entry){.kind = TRACE_DONE, .node = node->number, .ticket = ticket}, NULL, 0);
    pthread_mutex_unlock(&fs.lock);
}

// Tells the test that the failure that it asked for has happened.
static void failure_tell(void) {
    int fd = open(fs.failed_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        trace_failed("tell a failure beside");
    }
    close(fd);
}

// Not synchronisation: the time that a disk takes, during which other requests come.
static void disk_delay(void) {
    if (fs.delay_us > 0) {
        struct timespec pause = {.tv_nsec = fs.delay_us * 1000};
        nanosleep(&pause, NULL);
    }
}

static bool bytes_are_zero(const char *bytes, size_t size) {
    return size > 0 && bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

static uint64_t trace_write(const struct node *node, const char *bytes, size_t size, off_t offset,
                            bool sync) {
    struct trace_entry entry = {
        .kind = TRACE_WRITE, .node = node->number, .offset = (uint64_t)offset, .size = size};
    if (sync) {
        entry.flags |= TRACE_FLAG_SYNC;
    }
    if (bytes_are_zero(bytes, size)) {
        entry.flags |= TRACE_FLAG_ZERO;
        return trace_append(entry, NULL, 0);
    }
    return trace_append(entry, bytes, size);
}

// ---- Names ------------------------------------------------------------------------------------------------

static struct node *node_child(const struct node *parent, const char *name, size_t name_size) {
    for (struct node *node = fs.list; node != NULL; node = node->next) {
        if (!node->removed && node->parent == parent && strlen(node->name) == name_size &&
            memcmp(node->name, name, name_size) == 0) {
            return node;
        }
    }
    return NULL;
}

// Under the lock. NULL if there is nothing under that path.
static struct node *node_find(const char *path) {
    struct node *node = &fs.root;
    while (node != NULL && *path == '/') {
        path++;
        size_t size = strcspn(path, "/");
        if (size > 0) {
            node = node_child(node, path, size);
        }
        path += size;
    }
    return node;
}

static struct node *node_parent(const char *path, const char **ret_name) {
    const char *slash = strrchr(path, '/');
    char *parent = strndup(path, (size_t)(slash - path));
    if (parent == NULL) {
        return NULL;
    }
    struct node *node = node_find(parent);
    free(parent);
    *ret_name = slash + 1;
    return node;
}

// Under the lock, after the backing directory has it.
static struct node *node_make(const char *path, bool directory) {
    const char *name = NULL;
    struct node *parent = node_parent(path, &name);
    struct node *node = calloc(1, sizeof(*node));
    char *copy = parent != NULL ? strdup(name) : NULL;
    if (node == NULL || copy == NULL) {
        trace_failed("keep names for");
    }
    *node = (struct node){
        .number = fs.nodes++, .directory = directory, .parent = parent, .next = fs.list, .name = copy};
    fs.list = node;
    struct trace_entry entry = {.kind = directory ? TRACE_MAKE_DIRECTORY : TRACE_MAKE_FILE,
                                .node = node->number,
                                .directory = parent->number};
    trace_append(entry, name, strlen(name));
    return node;
}

static bool is_mark(const char *path) {
    return path != NULL && strcmp(path, "/" TRACE_MARK_NAME) == 0;
}

// Paths come as "/a/b"; the backing directory wants "a/b".
static const char *back_path(const char *path) {
    return path[1] == 0 ? "." : path + 1;
}

static struct handle *handle_of(const struct fuse_file_info *info) {
    struct handle *handle;
    memcpy(&handle, &info->fh, sizeof(handle));
    return handle;
}

// The handle takes the descriptor over, also when there is no memory for it.
static int handle_make(struct fuse_file_info *info, int fd, struct node *node) {
    struct handle *handle = malloc(sizeof(*handle));
    if (handle == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return -ENOMEM;
    }
    *handle = (struct handle){.fd = fd, .node = node};
    info->fh = (uintptr_t)handle;
    return 0;
}

// ---- Operations: names ------------------------------------------------------------------------------------

static int on_getattr(const char *path, struct stat *ret_stat, struct fuse_file_info *info) {
    struct handle *handle = info != NULL ? handle_of(info) : NULL;
    if (is_mark(path) || (handle != NULL && handle->fd < 0)) {
        *ret_stat = (struct stat){.st_mode = S_IFREG | 0600, .st_nlink = 1};
        return 0;
    }
    int result = handle != NULL ? fstat(handle->fd, ret_stat)
                                : fstatat(fs.back, back_path(path), ret_stat, AT_SYMLINK_NOFOLLOW);
    return result == 0 ? 0 : -errno;
}

static int open_back(const char *path, int flags, mode_t mode) {
    int kept = flags & ~(O_DIRECT | O_DSYNC | O_SYNC | O_APPEND | O_NOFOLLOW);
    if ((kept & O_ACCMODE) == O_WRONLY) {
        kept = (kept & ~O_ACCMODE) | O_RDWR;
    }
    return openat(fs.back, back_path(path), kept | O_CLOEXEC, mode);
}

static int on_create(const char *path, mode_t mode, struct fuse_file_info *info) {
    pthread_mutex_lock(&fs.lock);
    struct node *node = node_find(path);
    int fd = open_back(path, info->flags | O_CREAT, mode);
    if (fd < 0) {
        int error = errno;
        pthread_mutex_unlock(&fs.lock);
        return -error;
    }
    if (node == NULL) {
        node = node_make(path, false);
    }
    pthread_mutex_unlock(&fs.lock);
    info->direct_io = 1;
    return handle_make(info, fd, node);
}

static int on_open(const char *path, struct fuse_file_info *info) {
    info->direct_io = 1;
    if (is_mark(path)) {
        return handle_make(info, -1, NULL);
    }
    pthread_mutex_lock(&fs.lock);
    struct node *node = node_find(path);
    int fd = open_back(path, info->flags & ~O_TRUNC, 0);
    int error = fd < 0 ? errno : 0;
    if (fd >= 0 && (info->flags & O_TRUNC) != 0) {
        error = ftruncate(fd, 0) == 0 ? 0 : errno;
        trace_append((struct trace_entry){.kind = TRACE_RESIZE, .node = node->number}, NULL, 0);
    }
    pthread_mutex_unlock(&fs.lock);
    if (error != 0) {
        return -error;
    }
    return handle_make(info, fd, node);
}

static int on_release(const char *path, struct fuse_file_info *info) {
    (void)path;
    struct handle *handle = handle_of(info);
    if (handle->fd >= 0) {
        close(handle->fd);
    }
    free(handle);
    return 0;
}

static int on_mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&fs.lock);
    int result = mkdirat(fs.back, back_path(path), mode) == 0 ? 0 : -errno;
    if (result == 0) {
        node_make(path, true);
    }
    pthread_mutex_unlock(&fs.lock);
    return result;
}

// A socket has a name and no bytes: it is recorded as a file.
static int on_mknod(const char *path, mode_t mode, dev_t device) {
    pthread_mutex_lock(&fs.lock);
    int result = mknodat(fs.back, back_path(path), mode, device) == 0 ? 0 : -errno;
    if (result == 0) {
        node_make(path, false);
    }
    pthread_mutex_unlock(&fs.lock);
    return result;
}

static int name_remove(const char *path, int flags) {
    pthread_mutex_lock(&fs.lock);
    struct node *node = node_find(path);
    int result = unlinkat(fs.back, back_path(path), flags) == 0 ? 0 : -errno;
    if (result == 0 && node != NULL) {
        node->removed = true;
        struct trace_entry entry = {
            .kind = TRACE_REMOVE, .node = node->number, .directory = node->parent->number};
        trace_append(entry, NULL, 0);
    }
    pthread_mutex_unlock(&fs.lock);
    return result;
}

static int on_unlink(const char *path) {
    return name_remove(path, 0);
}

static int on_rmdir(const char *path) {
    return name_remove(path, AT_REMOVEDIR);
}

// Under the lock.
static int rename_locked(const char *from, const char *to, unsigned flags) {
    const char *name = NULL;
    struct node *node = node_find(from);
    struct node *parent = node_parent(to, &name);
    struct node *target = node_find(to);
    if (node == NULL || parent == NULL) {
        return -ENOENT;
    }
    if (node->parent != parent) {
        return -EXDEV;
    }
    if (renameat2(fs.back, back_path(from), fs.back, back_path(to), flags) != 0) {
        return -errno;
    }
    char *copy = strdup(name);
    if (copy == NULL) {
        trace_failed("keep names for");
    }
    if (target != NULL) {
        target->removed = true;
    }
    free(node->name);
    node->name = copy;
    struct trace_entry entry = {.kind = TRACE_RENAME, .node = node->number, .directory = parent->number};
    trace_append(entry, name, strlen(name));
    return 0;
}

static int on_rename(const char *from, const char *to, unsigned flags) {
    if ((flags & ~(unsigned)RENAME_NOREPLACE) != 0) {
        return -EINVAL;
    }
    pthread_mutex_lock(&fs.lock);
    int result = rename_locked(from, to, flags);
    pthread_mutex_unlock(&fs.lock);
    return result;
}

static int on_chmod(const char *path, mode_t mode, struct fuse_file_info *info) {
    int result =
        info != NULL ? fchmod(handle_of(info)->fd, mode) : fchmodat(fs.back, back_path(path), mode, 0);
    return result == 0 ? 0 : -errno;
}

static int on_chown(const char *path, uid_t user, gid_t group, struct fuse_file_info *info) {
    int result = info != NULL ? fchown(handle_of(info)->fd, user, group)
                              : fchownat(fs.back, back_path(path), user, group, AT_SYMLINK_NOFOLLOW);
    return result == 0 ? 0 : -errno;
}

static int on_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *info) {
    if (is_mark(path) || (info != NULL && handle_of(info)->fd < 0)) {
        return 0;
    }
    int result = info != NULL ? futimens(handle_of(info)->fd, times)
                              : utimensat(fs.back, back_path(path), times, AT_SYMLINK_NOFOLLOW);
    return result == 0 ? 0 : -errno;
}

static int on_statfs(const char *path, struct statvfs *ret_stat) {
    (void)path;
    return fstatvfs(fs.back, ret_stat) == 0 ? 0 : -errno;
}

static int on_opendir(const char *path, struct fuse_file_info *info) {
    int fd = openat(fs.back, back_path(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    pthread_mutex_lock(&fs.lock);
    struct node *node = node_find(path);
    pthread_mutex_unlock(&fs.lock);
    return handle_make(info, fd, node);
}

static int on_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *info, enum fuse_readdir_flags flags) {
    (void)path;
    (void)offset;
    (void)flags;
    int fd = openat(handle_of(info)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (directory == NULL) {
        int error = errno;
        if (fd >= 0) {
            close(fd);
        }
        return -error;
    }
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        struct stat hint = {.st_ino = entry->d_ino, .st_mode = (mode_t)entry->d_type << 12};
        if (fill(buffer, entry->d_name, &hint, 0, 0) != 0) {
            break;
        }
    }
    closedir(directory);
    return 0;
}

// ---- Operations: bytes ------------------------------------------------------------------------------------

static int on_read(const char *path, char *buffer, size_t size, off_t offset, struct fuse_file_info *info) {
    (void)path;
    struct handle *handle = handle_of(info);
    if (handle->fd < 0) {
        return 0;
    }
    ssize_t count = pread(handle->fd, buffer, size, offset);
    return count >= 0 ? (int)count : -errno;
}

static int mark_write(const char *bytes, size_t size) {
    pthread_mutex_lock(&fs.lock);
    trace_append((struct trace_entry){.kind = TRACE_MARK}, bytes, size);
    pthread_mutex_unlock(&fs.lock);
    return (int)size;
}

static int on_write(const char *path, const char *bytes, size_t size, off_t offset,
                    struct fuse_file_info *info) {
    (void)path;
    struct handle *handle = handle_of(info);
    if (handle->fd < 0) {
        return mark_write(bytes, size);
    }
    bool sync = (info->flags & (O_DSYNC | O_SYNC)) != 0;
    pthread_mutex_lock(&fs.lock);
    uint64_t ticket = trace_write(handle->node, bytes, size, offset, sync);
    bool fail = ++fs.writes == fs.fail_write;
    ssize_t count = fail ? -1 : pwrite(handle->fd, bytes, size, offset);
    int error = fail ? fs.fail_errno : errno;
    pthread_mutex_unlock(&fs.lock);
    if (fail) {
        failure_tell();
    }
    if (count < 0) {
        return -error;
    }
    if (sync) {
        disk_delay();
    }
    trace_done(handle->node, ticket);
    return (int)count;
}

static int node_sync(struct handle *handle) {
    pthread_mutex_lock(&fs.lock);
    uint64_t ticket =
        trace_append((struct trace_entry){.kind = TRACE_SYNC, .node = handle->node->number}, NULL, 0);
    bool fail = ++fs.syncs == fs.fail_sync;
    pthread_mutex_unlock(&fs.lock);
    if (fail) {
        failure_tell();
        return -fs.fail_errno;
    }
    disk_delay();
    trace_done(handle->node, ticket);
    return 0;
}

static int on_fsync(const char *path, int data_only, struct fuse_file_info *info) {
    (void)path;
    (void)data_only; // a size that reading back needs is part of fdatasync, and we record nothing else
    struct handle *handle = handle_of(info);
    return handle->fd < 0 ? 0 : node_sync(handle);
}

static int on_truncate(const char *path, off_t size, struct fuse_file_info *info) {
    if (is_mark(path) || (info != NULL && handle_of(info)->fd < 0)) {
        return 0; // a shell's "> .mark"
    }
    pthread_mutex_lock(&fs.lock);
    struct node *node = info != NULL ? handle_of(info)->node : node_find(path);
    int fd = info != NULL ? handle_of(info)->fd : openat(fs.back, back_path(path), O_WRONLY | O_CLOEXEC);
    int result = fd >= 0 && ftruncate(fd, size) == 0 ? 0 : -errno;
    if (result == 0) {
        struct trace_entry entry = {.kind = TRACE_RESIZE, .node = node->number, .size = (uint64_t)size};
        trace_append(entry, NULL, 0);
    }
    if (info == NULL && fd >= 0) {
        close(fd);
    }
    pthread_mutex_unlock(&fs.lock);
    return result;
}

// Under the lock. Reserving changes at most the size; zeroing and punching are a write of zeros that nobody has synced.
static int fallocate_locked(const struct handle *handle, int mode, off_t offset, off_t size) {
    struct stat before;
    struct stat after;
    if (fstat(handle->fd, &before) != 0 || fallocate(handle->fd, mode, offset, size) != 0 ||
        fstat(handle->fd, &after) != 0) {
        return -errno;
    }
    off_t end = offset + size < after.st_size ? offset + size : after.st_size;
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0 && end > offset) {
        struct trace_entry zeros = {.kind = TRACE_WRITE,
                                    .flags = TRACE_FLAG_ZERO,
                                    .node = handle->node->number,
                                    .offset = (uint64_t)offset,
                                    .size = (uint64_t)(end - offset)};
        uint64_t ticket = trace_append(zeros, NULL, 0);
        trace_append((struct trace_entry){.kind = TRACE_DONE, .node = handle->node->number, .ticket = ticket},
                     NULL, 0);
    }
    if (before.st_size != after.st_size) {
        struct trace_entry resize = {
            .kind = TRACE_RESIZE, .node = handle->node->number, .size = (uint64_t)after.st_size};
        trace_append(resize, NULL, 0);
    }
    return 0;
}

static int on_fallocate(const char *path, int mode, off_t offset, off_t size, struct fuse_file_info *info) {
    (void)path;
    if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
        return -EOPNOTSUPP;
    }
    pthread_mutex_lock(&fs.lock);
    int result = fallocate_locked(handle_of(info), mode, offset, size);
    pthread_mutex_unlock(&fs.lock);
    return result;
}

static off_t on_lseek(const char *path, off_t offset, int whence, struct fuse_file_info *info) {
    (void)path;
    off_t place = lseek(handle_of(info)->fd, offset, whence);
    return place >= 0 ? place : -errno;
}

static void *on_init(struct fuse_conn_info *connection, struct fuse_config *config) {
    connection->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
    config->hard_remove = 1; // else a removed open file would be recorded as renamed
    config->nullpath_ok = 1;
    config->entry_timeout = 0;
    config->attr_timeout = 0;
    config->negative_timeout = 0;
    return NULL;
}

static const struct fuse_operations operations = {
    .init = on_init,
    .getattr = on_getattr,
    .mkdir = on_mkdir,
    .mknod = on_mknod,
    .unlink = on_unlink,
    .rmdir = on_rmdir,
    .rename = on_rename,
    .chmod = on_chmod,
    .chown = on_chown,
    .utimens = on_utimens,
    .statfs = on_statfs,
    .create = on_create,
    .open = on_open,
    .release = on_release,
    .read = on_read,
    .write = on_write,
    .fsync = on_fsync,
    .truncate = on_truncate,
    .fallocate = on_fallocate,
    .lseek = on_lseek,
    .opendir = on_opendir,
    .readdir = on_readdir,
    .releasedir = on_release,
    .fsyncdir = on_fsync,
};

// ---- What was there before --------------------------------------------------------------------------------

static void record_content(const char *path, const struct node *node) {
    int fd = openat(fs.back, back_path(path), O_RDONLY | O_CLOEXEC);
    struct stat stat;
    static char bytes[1 << 16];
    if (fd < 0 || fstat(fd, &stat) != 0) {
        trace_failed("read a file for");
    }
    struct trace_entry entry = {.kind = TRACE_RESIZE, .node = node->number, .size = (uint64_t)stat.st_size};
    trace_append(entry, NULL, 0);
    off_t offset = lseek(fd, 0, SEEK_DATA);
    while (offset >= 0 && offset < stat.st_size) {
        ssize_t count = pread(fd, bytes, sizeof(bytes), offset);
        if (count <= 0) {
            trace_failed("read a file for");
        }
        trace_write(node, bytes, (size_t)count, offset, false);
        trace_append((struct trace_entry){.kind = TRACE_DONE, .node = node->number, .ticket = fs.entries - 1},
                     NULL, 0);
        offset = lseek(fd, offset + count, SEEK_DATA);
    }
    close(fd);
}

static void record_sync(const struct node *node) {
    uint64_t ticket = trace_append((struct trace_entry){.kind = TRACE_SYNC, .node = node->number}, NULL, 0);
    trace_append((struct trace_entry){.kind = TRACE_DONE, .node = node->number, .ticket = ticket}, NULL, 0);
}

static void record_directory(const char *path, const struct node *node) {
    int fd = openat(fs.back, back_path(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (directory == NULL) {
        trace_failed("read a directory for");
    }
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        char *child = NULL;
        if (asprintf(&child, "%s/%s", path[1] == 0 ? "" : path, entry->d_name) < 0) {
            trace_failed("keep names for");
        }
        struct node *made = node_make(child, entry->d_type == DT_DIR);
        if (entry->d_type == DT_DIR) {
            record_directory(child, made);
        } else if (entry->d_type == DT_REG) {
            record_content(child, made);
            record_sync(made);
        }
        free(child);
    }
    closedir(directory);
    record_sync(node);
}

// ---- Start ------------------------------------------------------------------------------------------------

static int usage(void) {
    fprintf(stderr, "usage: powerfs --back DIR --trace FILE --mount DIR [--delay-us N]\n"
                    "               [--fail-write N | --fail-sync N] [--fail-errno NUMBER]\n");
    return 2;
}

static int serve(const char *mount) {
    char *arguments[] = {(char[]){"powerfs"}, (char[]){"-o"}, (char[]){"fsname=powerfs"}, NULL};
    struct fuse_args fuse_args = FUSE_ARGS_INIT(3, arguments);
    struct fuse *fuse = fuse_new(&fuse_args, &operations, sizeof(operations), NULL);
    if (fuse == NULL || fuse_mount(fuse, mount) != 0) {
        fprintf(stderr, "powerfs: cannot mount %s\n", mount);
        return 1;
    }
    struct fuse_session *session = fuse_get_session(fuse);
    fuse_set_signal_handlers(session);
    struct fuse_loop_config loop = {.clone_fd = 0, .max_idle_threads = 8};
    int result = fuse_loop_mt(fuse, &loop);
    fuse_remove_signal_handlers(session);
    fuse_unmount(fuse);
    fuse_destroy(fuse);
    fuse_opt_free_args(&fuse_args);
    return result == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    const char *back = NULL;
    const char *trace = NULL;
    const char *mount = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--back") == 0) {
            back = value;
        } else if (strcmp(argv[i], "--trace") == 0) {
            trace = value;
        } else if (strcmp(argv[i], "--mount") == 0) {
            mount = value;
        } else if (strcmp(argv[i], "--delay-us") == 0) {
            fs.delay_us = strtol(value, NULL, 10);
        } else if (strcmp(argv[i], "--fail-write") == 0) {
            fs.fail_write = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--fail-sync") == 0) {
            fs.fail_sync = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--fail-errno") == 0) {
            fs.fail_errno = (int)strtol(value, NULL, 10);
        } else {
            return usage();
        }
    }
    if (back == NULL || trace == NULL || mount == NULL || argc % 2 == 0 || fs.delay_us < 0 ||
        fs.delay_us > 999999) {
        return usage();
    }
    umask(0);
    fs.back = open(back, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    fs.trace = fopen(trace, "we");
    if (asprintf(&fs.failed_path, "%s.failed", trace) < 0) {
        return 1;
    }
    if (fs.back < 0 || fs.trace == NULL) {
        fprintf(stderr, "powerfs: cannot open %s: %s\n", fs.back < 0 ? back : trace, strerror(errno));
        return 1;
    }
    record_directory("/", &fs.root);
    trace_append((struct trace_entry){.kind = TRACE_START}, NULL, 0);
    int result = serve(mount);
    if (fclose(fs.trace) != 0) {
        trace_failed("close");
    }
    return result;
}
