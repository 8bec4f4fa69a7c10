// SPDX-License-Identifier: Apache-2.0
/* cmd_grow.c: `shelf grow` and `shelf drop`: a region's size, and its end. */
#include "cmd/arguments.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"
#include "cmd/words.h"

static int region_find(const struct call *call, shelf *s, struct shelf_region_info *ret_info) {
    const char *path = call_argument(call, 0), *name = call_argument(call, 1);
    shelf_region region;
    shelf_result result = shelf_region_open(s, name, &region);
    if (result == SHELF_OK) {
        result = shelf_region_info_get(s, region, ret_info);
    }
    return result == SHELF_OK ? 0 : region_refuse(call, path, name, result);
}

static int grow_run(const struct call *call, shelf *s, uint64_t size) {
    struct shelf_region_info before = {0}, info;
    char text[SIZE_TEXT_MAX], text_max[SIZE_TEXT_MAX];
    const char *path = path_plain(call_argument(call, 0));
    int code = region_find(call, s, &before);
    if (code != 0) {
        return code;
    }
    if (size < before.size) {
        return fail(call, SHELF_INVALID, "%s: region '%s' has %s already, and regions do not shrink", path,
                    before.name, size_text(before.size, text));
    }
    if (size > before.size_max) {
        return fail(
            call, SHELF_TOO_LARGE,
            "%s: region '%s' can grow to %s; its limit was set when it was made (`shelf create --max`)", path,
            before.name, size_text(before.size_max, text));
    }
    shelf_result result = shelf_region_grow(s, before.region, size);
    if (result == SHELF_OK) {
        result = shelf_region_info_get(s, before.region, &info);
    }
    if (result != SHELF_OK) {
        return fail_call(call, result, "%s: region '%s' cannot grow", path, before.name);
    }
    if (call->json) {
        return json_finish(stdout, json_pack("{s:s, s:i, s:I, s:I, s:I}", "name", info.name, "region",
                                             (int)info.region, "size_before", (json_int_t)before.size, "size",
                                             (json_int_t)info.size, "size_max", (json_int_t)info.size_max));
    }
    (void)printf("%s: region '%s' has %s now, can grow to %s\n", path, info.name, size_text(info.size, text),
                 size_text(info.size_max, text_max));
    return SHELF_OK;
}

int cmd_grow(const struct call *call) {
    uint64_t size;
    shelf *s;
    const char *path = call_argument(call, 0);
    if (!size_parse(call_argument(call, 2), &size) || size == 0) {
        return fail(call, SHELF_INVALID, "'%s' is no size; write bytes, or a number with K, M, G or T",
                    call_argument(call, 2));
    }
    shelf_result result = shelf_use_open(path, 0, &s);
    if (result != SHELF_OK) {
        return shelf_use_refuse(call, path, result);
    }
    return close_finish(call, s, grow_run(call, s, size));
}

static int drop_run(const struct call *call, shelf *s) {
    struct shelf_region_info info = {0};
    char size[SIZE_TEXT_MAX];
    const char *path = path_plain(call_argument(call, 0));
    int code = region_find(call, s, &info);
    if (code != 0) {
        return code;
    }
    if (!call_option(call, "yes")) {
        return fail(
            call, SHELF_INVALID,
            "%s: region '%s' (%s) and all that is in it would be gone for good; say --yes if you mean it "
            "(`shelf dump` keeps a copy)",
            path, info.name, size_text(info.size, size));
    }
    shelf_result result = shelf_region_drop(s, info.name);
    if (result != SHELF_OK) {
        return region_refuse(call, path, info.name, result);
    }
    if (call->json) {
        return json_finish(stdout, json_pack("{s:s, s:i}", "name", info.name, "region", (int)info.region));
    }
    (void)printf("%s: region '%s' is gone\n", path, info.name);
    return SHELF_OK;
}

int cmd_drop(const struct call *call) {
    shelf *s;
    const char *path = call_argument(call, 0);
    shelf_result result = shelf_use_open(path, 0, &s);
    return result == SHELF_OK ? close_finish(call, s, drop_run(call, s))
                              : shelf_use_refuse(call, path, result);
}
