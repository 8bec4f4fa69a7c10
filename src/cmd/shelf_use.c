// SPDX-License-Identifier: Apache-2.0
/* shelf_use.c: what all commands that work with an open shelf have in common. */
#include "cmd/shelf_use.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/output.h"
#include "world/world.h"

#define WHERE_MAX   4200u
#define ONE_LOOK_MS 1u
#define RESTART_MS  2000u /* of a daemon; a person waits as well */

const char *path_plain(const char *path) {
    return strncmp(path, "dir:", 4) == 0 ? path + 4 : path;
}

bool path_is_socket(const char *path) {
    struct stat status;
    return strncmp(path, "unix:", 5) == 0 || (stat(path, &status) == 0 && S_ISSOCK(status.st_mode));
}

static void owner_leave(void) {
    if ((geteuid() != getuid() && seteuid(getuid()) != 0) ||
        (getegid() != getgid() && setegid(getgid()) != 0)) {
        abort(); /* root gets back what it has put aside */
    }
}

/* The same directory, as its owner would work in it: files that root leaves behind, a daemon of another user could not open.
 * Only what is opened from here on is meant; the process can go back. */
static void owner_assume(const char *path) {
    struct stat status;
    if (geteuid() == 0 && stat(path, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid != 0 &&
        (setegid(status.st_gid) != 0 || seteuid(status.st_uid) != 0)) {
        owner_leave();
    }
}

static shelf_result where_open(const char *kind, const char *path, const char *tail, uint32_t flags,
                               uint32_t deadline_ms, shelf **ret_shelf) {
    char where[WHERE_MAX];
    const struct shelf_options options = {.flags = flags, .open_deadline_ms = deadline_ms};
    int length = snprintf(where, sizeof(where), "%s%s%s", kind, path, tail);
    return length < 0 || (size_t)length >= sizeof(where) ? SHELF_INVALID
                                                         : shelf_open(where, &options, ret_shelf);
}

shelf_result shelf_use_attach(const char *path, shelf **ret_shelf) {
    path = path_plain(path);
    if (path_is_socket(path)) {
        return where_open(strncmp(path, "unix:", 5) == 0 ? "" : "unix:", path, "", 0, RESTART_MS, ret_shelf);
    }
    return where_open("unix:", path, "/sock", 0, ONE_LOOK_MS, ret_shelf);
}

/* A command that attached to a daemon does not take its place when it is restarted: so first by the socket. Where a daemon has
 * been stopped, the command has the directory for itself, and for a moment only. */
shelf_result shelf_use_open(const char *path, uint32_t flags, shelf **ret_shelf) {
    path = path_plain(path);
    if (path_is_socket(path)) {
        return shelf_use_attach(path, ret_shelf);
    }
    if (!(flags & SHELF_OPEN_EXCLUSIVE) && shelf_use_attach(path, ret_shelf) == SHELF_OK) {
        return SHELF_OK;
    }
    if (!(flags & SHELF_OPEN_EXCLUSIVE) && world_has_daemon(path)) {
        flags |= SHELF_OPEN_ALONE;
    }
    owner_assume(path);
    shelf_result result = where_open("dir:", path, "", flags, 0, ret_shelf);
    if (result != SHELF_OK) {
        owner_leave();
    }
    return result;
}

shelf_result shelf_use_close(shelf *s) {
    shelf_result result = shelf_close(s);
    owner_leave();
    return result;
}

int close_finish(const struct call *call, shelf *s, int code) {
    shelf_result result = shelf_use_close(s);
    return code != 0 || result == SHELF_OK
               ? code
               : fail_call(call, result, "%s: closing it", path_plain(call->arguments[0]));
}

bool shelf_use_is_node(shelf *s) {
    struct shelf_stats stats = {0};
    return shelf_stats_get(s, &stats) == SHELF_OK && stats.is_node;
}

int shelf_use_refuse(const struct call *call, const char *path, shelf_result result) {
    char detail[512];
    path = path_plain(path);
    (void)snprintf(detail, sizeof(detail), "%s", shelf_detail());
    if (detail[0] == 0) {
        (void)snprintf(detail, sizeof(detail), "%s", shelf_result_text(result));
    }
    if (result == SHELF_NOT_FOUND && path_is_socket(path)) {
        return fail(call, result,
                    "%s: nobody listens there; start shelfd, or name the directory of the shelf", path);
    }
    switch (result) {
    case SHELF_NOT_FOUND:
        return fail(call, result, "%s: no shelf is there; `shelf create %s` makes one", path, path);
    case SHELF_BUSY:
        return fail(
            call, result,
            "%s; end it first (`shelf list`, `shelf dump` and `shelf verify --checkpoint` work meanwhile)",
            detail);
    case SHELF_CORRUPT:
        return fail(call, result, "%s: %s; `shelf verify %s` says more", path, detail, path);
    case SHELF_EXISTS:
        return fail(call, result, "%s", detail);
    default:
        return fail(call, result, "%s: %s", path, detail);
    }
}

int region_refuse(const struct call *call, const char *path, const char *name, shelf_result result) {
    path = path_plain(path);
    if (result == SHELF_NOT_FOUND) {
        return fail(call, result, "%s: no region named '%s'; `shelf list %s` shows what there is", path, name,
                    path);
    }
    return fail_call(call, result, "%s: region '%s'", path, name);
}

void region_undo(const struct call *call, shelf *s, const char *name) {
    shelf_result result = shelf_region_drop(s, name);
    if (result != SHELF_OK) {
        remark(call, "shelf %s: the unfinished region '%s' is still there: %s", call->command->name, name,
               shelf_result_text(result));
    }
}

static bool part_copy(const char *from, size_t size, char ret_part[SHELF_NAME_MAX + 1]) {
    if (size == 0 || size > SHELF_NAME_MAX) {
        return false;
    }
    memcpy(ret_part, from, size);
    ret_part[size] = 0;
    return true;
}

bool place_split(const char *text, char ret_region[SHELF_NAME_MAX + 1], char ret_map[SHELF_NAME_MAX + 1]) {
    const char *slash = strchr(text, '/');
    return slash && part_copy(text, (size_t)(slash - text), ret_region) &&
           part_copy(slash + 1, strlen(slash + 1), ret_map);
}
