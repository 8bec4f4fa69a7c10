// SPDX-License-Identifier: Apache-2.0
/* shelf_use.c: what all commands that work with an open shelf have in common. */
#include "cmd/shelf_use.h"

#include <stdio.h>
#include <string.h>

#include "cmd/output.h"

const char *path_plain(const char *path) {
    return strncmp(path, "dir:", 4) == 0 ? path + 4 : path;
}

shelf_result shelf_use_open(const char *path, uint32_t flags, shelf **ret_shelf) {
    char where[4096];
    struct shelf_options options = {.flags = flags};
    int length = snprintf(where, sizeof(where), "dir:%s", path_plain(path));
    return length < 0 || (size_t)length >= sizeof(where) ? SHELF_INVALID
                                                         : shelf_open(where, &options, ret_shelf);
}

int shelf_use_refuse(const struct call *call, const char *path, shelf_result result) {
    char detail[512];
    path = path_plain(path);
    (void)snprintf(detail, sizeof(detail), "%s", shelf_detail());
    if (detail[0] == 0) {
        (void)snprintf(detail, sizeof(detail), "%s", shelf_result_text(result));
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
