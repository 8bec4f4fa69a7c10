// SPDX-License-Identifier: Apache-2.0
/*
 * cmd_list.c: `shelf list`: what regions there are. If a program that lets nobody attach runs in the directory, the answer comes
 * from its last checkpoint, and says so.
 */
#include <stdlib.h>

#include "cmd/arguments.h"
#include "cmd/listing.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"

static json_t *listing_json(const char *path, const struct listing *listing) {
    json_t *regions = json_array();
    for (size_t i = 0; i < listing->count; i++) {
        const struct shelf_region_info *info = &listing->regions[i];
        (void)json_array_append_new(regions, json_pack("{s:s, s:i, s:I, s:I, s:i, s:i, s:i}", "name",
                                                       info->name, "region", (int)info->region, "size",
                                                       (json_int_t)info->size, "size_max",
                                                       (json_int_t)info->size_max, "owner", (int)info->owner,
                                                       "group", (int)info->group, "mode", (int)info->mode));
    }
    json_t *object = json_pack("{s:s, s:s, s:I, s:I, s:o}", "path", path, "as_of",
                               listing->owner ? "checkpoint" : "now", "index", (json_int_t)listing->index,
                               "epoch", (json_int_t)listing->epoch, "regions", regions);
    if (listing->owner) {
        (void)json_object_set_new(object, "process", json_integer(listing->owner));
    }
    return object;
}

static void listing_print(const char *path, const struct listing *listing) {
    char size[SIZE_TEXT_MAX], size_max[SIZE_TEXT_MAX], rights[LISTING_RIGHTS_MAX];
    if (listing->owner) {
        (void)printf("%s: in use by process %ld; as of its last checkpoint, index %llu, epoch %llu\n", path,
                     listing->owner, (unsigned long long)listing->index, (unsigned long long)listing->epoch);
    } else {
        (void)printf("%s: index %llu, epoch %llu\n", path, (unsigned long long)listing->index,
                     (unsigned long long)listing->epoch);
    }
    if (listing->count == 0) {
        (void)printf("no regions yet; `shelf create %s REGION SIZE` makes one\n", path);
        return;
    }
    (void)printf("%s%6s  %12s  %12s  %-24s  %s%s\n", style(stdout, STYLE_BOLD), "number", "size",
                 "can grow to", "rights", "name", style(stdout, STYLE_PLAIN));
    for (size_t i = 0; i < listing->count; i++) {
        const struct shelf_region_info *info = &listing->regions[i];
        (void)printf("%6u  %12s  %12s  %-24s  %s\n", info->region, size_text(info->size, size),
                     size_text(info->size_max, size_max), rights_text(info, rights), info->name);
    }
}

int cmd_list(const struct call *call) {
    const char *path = path_plain(call_argument(call, 0));
    char text[DISK_TEXT_MAX] = "";
    shelf *s;
    struct listing *listing = calloc(1, sizeof(*listing));
    if (!listing) {
        return fail(call, SHELF_NO_MEMORY, "no memory");
    }
    int code = SHELF_OK;
    shelf_result result = shelf_use_open(path, SHELF_OPEN_NO_CHECKPOINT, &s);
    if (result == SHELF_OK) {
        result = listing_open(s, listing);
        code = result == SHELF_OK ? SHELF_OK : fail_call(call, result, "%s", path);
        (void)shelf_use_close(s);
    } else if (result == SHELF_BUSY) {
        result = listing_checkpoint(path, listing, text);
        code = result == SHELF_OK ? SHELF_OK : fail(call, result, "%s: %s", path, text);
    } else {
        code = shelf_use_refuse(call, path, result);
    }
    if (code == SHELF_OK && call->json) {
        code = json_finish(stdout, listing_json(path, listing));
    } else if (code == SHELF_OK) {
        listing_print(path, listing);
    }
    free(listing);
    return code;
}
