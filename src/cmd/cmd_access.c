// SPDX-License-Identifier: Apache-2.0
/* cmd_access.c: `shelf access`: who may read and change a region. */
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>

#include "cmd/arguments.h"
#include "cmd/listing.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"

struct wish {
    uint32_t owner, group, mode; /* or SHELF_KEEP */
};

static bool number_parse(const char *text, int base, uint32_t most, uint32_t *ret_number) {
    char *end;
    unsigned long number = strtoul(text, &end, base);
    if (text[0] < '0' || text[0] > '9' || *end != 0 || number > most) {
        return false;
    }
    *ret_number = (uint32_t)number;
    return true;
}

static bool owner_parse(const char *text, uint32_t *ret_owner) {
    const struct passwd *user = getpwnam(text);
    if (user) {
        *ret_owner = user->pw_uid;
    }
    return user || number_parse(text, 10, SHELF_KEEP - 1, ret_owner);
}

static bool group_parse(const char *text, uint32_t *ret_group) {
    const struct group *group = getgrnam(text);
    if (group) {
        *ret_group = group->gr_gid;
    }
    return group || number_parse(text, 10, SHELF_KEEP - 1, ret_group);
}

/* 0, or the exit code of a message. */
static int wish_parse(const struct call *call, struct wish *ret_wish) {
    const char *owner = call_option(call, "owner"), *group = call_option(call, "group"),
               *mode = call_option(call, "mode");
    *ret_wish = (struct wish){SHELF_KEEP, SHELF_KEEP, SHELF_KEEP};
    if (owner && !owner_parse(owner, &ret_wish->owner)) {
        return fail(call, SHELF_NOT_FOUND, "there is no user '%s' on this machine", owner);
    }
    if (group && !group_parse(group, &ret_wish->group)) {
        return fail(call, SHELF_NOT_FOUND, "there is no group '%s' on this machine", group);
    }
    if (mode && !number_parse(mode, 8, 0666, &ret_wish->mode)) {
        return fail(call, SHELF_INVALID,
                    "'%s' is no mode; write octal digits: 4 read, 2 change, for owner, group and others, "
                    "such as 0640",
                    mode);
    }
    return 0;
}

static int access_report(const struct call *call, const struct shelf_region_info *info) {
    char rights[LISTING_RIGHTS_MAX], owner[40], group[40];
    if (call->json) {
        return json_finish(stdout,
                           json_pack("{s:s, s:i, s:i, s:s, s:i, s:s, s:i}", "name", info->name, "region",
                                     (int)info->region, "owner", (int)info->owner, "owner_name",
                                     owner_text(info->owner, owner, sizeof(owner)), "group", (int)info->group,
                                     "group_name", group_text(info->group, group, sizeof(group)), "mode",
                                     (int)info->mode));
    }
    (void)printf("%s %s (mode %04o)\n", rights_text(info, rights), info->name, info->mode);
    return SHELF_OK;
}

static int access_run(const struct call *call, shelf *s, const struct wish *wish) {
    const char *path = path_plain(call_argument(call, 0)), *name = call_argument(call, 1);
    struct shelf_region_info info;
    shelf_region region;
    shelf_result result = shelf_region_open(s, name, &region);
    if (result == SHELF_OK &&
        (wish->owner != SHELF_KEEP || wish->group != SHELF_KEEP || wish->mode != SHELF_KEEP)) {
        result = shelf_region_access(s, region, wish->owner, wish->group, wish->mode);
    }
    if (result == SHELF_OK) {
        result = shelf_region_info_get(s, region, &info);
    }
    return result == SHELF_OK ? access_report(call, &info) : region_refuse(call, path, name, result);
}

int cmd_access(const struct call *call) {
    struct wish wish;
    shelf *s;
    const char *path = call_argument(call, 0);
    int code = wish_parse(call, &wish);
    if (code != 0) {
        return code;
    }
    shelf_result result = shelf_use_open(path, 0, &s);
    return result == SHELF_OK ? close_finish(call, s, access_run(call, s, &wish))
                              : shelf_use_refuse(call, path, result);
}
