// SPDX-License-Identifier: Apache-2.0
/*
 * cmd_list.c: `shelf list`: what regions there are. While a program runs in the directory the answer comes from its last
 * checkpoint, and says so.
 */
#include <stdlib.h>
#include <string.h>

#include "cmd/arguments.h"
#include "cmd/checkpoint_read.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"

struct listing {
    uint64_t index, epoch;
    long owner; /* process that runs in the directory: then it is a checkpoint that is listed; 0: none */
    size_t count;
    struct shelf_region_info regions[SHELF_REGIONS_MAX];
};

static shelf_result listing_open(shelf *s, struct listing *listing) {
    struct shelf_info info;
    shelf_result result = shelf_info_get(s, &info);
    if (result == SHELF_OK) {
        listing->index = info.applied;
        listing->epoch = info.epoch;
        result = shelf_region_list(s, listing->regions, SHELF_REGIONS_MAX, &listing->count);
    }
    return result;
}

static int region_compare(const void *a, const void *b) {
    const struct shelf_region_info *x = a, *y = b;
    return x->region < y->region ? -1 : x->region > y->region;
}

static void listing_of_catalog(const struct checkpoint_files *files, struct listing *listing) {
    listing->index = files->superblock.index;
    listing->epoch = files->superblock.epoch;
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        const struct catalog_entry *entry = catalog_at(files->system, place);
        if (!entry || !catalog_entry_is_sane(entry)) {
            continue;
        }
        struct shelf_region_info *info = &listing->regions[listing->count++];
        *info = (struct shelf_region_info){
            .region = (shelf_region)entry->region, .size = entry->size, .size_max = entry->size_max};
        (void)snprintf(info->name, sizeof(info->name), "%.*s", (int)SHELF_NAME_MAX, entry->name);
    }
    qsort(listing->regions, listing->count, sizeof(listing->regions[0]), region_compare);
}

/* Reads the checkpoint of a directory that is in use, again if the node overtakes it. */
static shelf_result listing_checkpoint(const char *path, struct listing *listing,
                                       char ret_text[DISK_TEXT_MAX]) {
    struct disk disk;
    struct checkpoint_files files;
    shelf_result result = disk_open(&disk, path, ret_text);
    if (result != SHELF_OK) {
        return result;
    }
    listing->owner = disk_owner(&disk);
    (void)disk_hold_checkpoint(&disk);
    for (int round = 0; round < 20; round++) {
        result = checkpoint_load(&disk, &files, ret_text);
        if (result == SHELF_OK) {
            listing_of_catalog(&files, listing);
            checkpoint_free(&files);
            break;
        }
    }
    disk_close(&disk);
    return result;
}

static json_t *listing_json(const char *path, const struct listing *listing) {
    json_t *regions = json_array();
    for (size_t i = 0; i < listing->count; i++) {
        const struct shelf_region_info *info = &listing->regions[i];
        (void)json_array_append_new(regions, json_pack("{s:s, s:i, s:I, s:I}", "name", info->name, "region",
                                                       (int)info->region, "size", (json_int_t)info->size,
                                                       "size_max", (json_int_t)info->size_max));
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
    char size[SIZE_TEXT_MAX], size_max[SIZE_TEXT_MAX];
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
    (void)printf("%s%6s  %12s  %12s  %s%s\n", style(stdout, STYLE_BOLD), "number", "size", "can grow to",
                 "name", style(stdout, STYLE_PLAIN));
    for (size_t i = 0; i < listing->count; i++) {
        const struct shelf_region_info *info = &listing->regions[i];
        (void)printf("%6u  %12s  %12s  %s\n", info->region, size_text(info->size, size),
                     size_text(info->size_max, size_max), info->name);
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
        (void)shelf_close(s);
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
