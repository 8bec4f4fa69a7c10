// SPDX-License-Identifier: Apache-2.0
/* cmd_create.c: `shelf create`: a directory, and a region in it that is ready for maps and streams. */
#include <string.h>

#include "cmd/arguments.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"
#include "cmd/words.h"

struct wanted {
    const char *name;
    uint64_t size, size_max;
    bool raw;
};

static shelf_result region_format(shelf_tx *tx, void *context) {
    return shelf_format(tx, *(const shelf_region *)context);
}

static int region_make(const struct call *call, shelf *s, const char *path, const struct wanted *wanted) {
    shelf_region region;
    shelf_result result = shelf_region_create(s, wanted->name, wanted->size, wanted->size_max, &region);
    if (result != SHELF_OK) {
        return fail_call(call, result, "%s: region '%s' cannot be made", path, wanted->name);
    }
    result = wanted->raw ? SHELF_OK : shelf_run(s, SHELF_READ_WRITE, region_format, &region, 0, NULL);
    if (result != SHELF_OK) {
        int code = fail_call(call, result, "%s: region '%s' cannot be formatted", path, wanted->name);
        region_undo(call, s, wanted->name);
        return code;
    }
    struct shelf_region_info info;
    result = shelf_region_info_get(s, region, &info);
    if (result != SHELF_OK) {
        return fail_call(call, result, "%s: region '%s'", path, wanted->name);
    }
    if (call->json) {
        return json_finish(stdout, json_pack("{s:s, s:s, s:i, s:I, s:I}", "path", path, "name", info.name,
                                             "region", (int)info.region, "size", (json_int_t)info.size,
                                             "size_max", (json_int_t)info.size_max));
    }
    char size[SIZE_TEXT_MAX], size_max[SIZE_TEXT_MAX];
    (void)printf("%s: region '%s', number %u, %s, can grow to %s\n", path, info.name, info.region,
                 size_text(info.size, size), size_text(info.size_max, size_max));
    return SHELF_OK;
}

/* 0, or the exit code of a message. */
static int wanted_parse(const struct call *call, struct wanted *ret_wanted) {
    const char *size_max = call_option(call, "max");
    *ret_wanted = (struct wanted){.name = call_argument(call, 1), .raw = call_option(call, "raw") != NULL};
    if (ret_wanted->name && !call_argument(call, 2)) {
        return fail(call, SHELF_INVALID, "region '%s' needs a size, such as 64M", ret_wanted->name);
    }
    if (ret_wanted->name &&
        (!size_parse(call_argument(call, 2), &ret_wanted->size) || ret_wanted->size == 0)) {
        return fail(call, SHELF_INVALID, "'%s' is no size; write bytes, or a number with K, M, G or T",
                    call_argument(call, 2));
    }
    if (size_max && !size_parse(size_max, &ret_wanted->size_max)) {
        return fail(call, SHELF_INVALID, "'%s' is no size; write bytes, or a number with K, M, G or T",
                    size_max);
    }
    if (!ret_wanted->name && (size_max || ret_wanted->raw)) {
        return fail(call, SHELF_INVALID, "--max and --raw are about a region; name one");
    }
    return 0;
}

int cmd_create(const struct call *call) {
    const char *path = path_plain(call_argument(call, 0));
    struct wanted wanted;
    int code = wanted_parse(call, &wanted);
    if (code != 0) {
        return code;
    }
    shelf *s;
    uint32_t flags = SHELF_OPEN_CREATE | (wanted.name ? 0 : SHELF_OPEN_EXCLUSIVE);
    shelf_result result = shelf_use_open(path, flags, &s);
    if (result != SHELF_OK) {
        return shelf_use_refuse(call, path, result);
    }
    if (wanted.name) {
        code = region_make(call, s, path, &wanted);
    } else if (call->json) {
        code = json_finish(stdout, json_pack("{s:s}", "path", path));
    } else {
        (void)printf("%s: a new shelf; `shelf create %s REGION SIZE` makes a region in it\n", path, path);
    }
    return close_finish(call, s, code);
}
