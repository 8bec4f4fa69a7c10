// SPDX-License-Identifier: Apache-2.0
/* listing.c: see listing.h. */
#include "cmd/listing.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>

#include "cmd/checkpoint_read.h"

shelf_result listing_open(shelf *s, struct listing *listing) {
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
        *info = (struct shelf_region_info){.region = (shelf_region)entry->region,
                                           .size = entry->size,
                                           .size_max = entry->size_max,
                                           .owner = entry->owner,
                                           .group = entry->group,
                                           .mode = entry->mode};
        (void)snprintf(info->name, sizeof(info->name), "%.*s", (int)SHELF_NAME_MAX, entry->name);
    }
    qsort(listing->regions, listing->count, sizeof(listing->regions[0]), region_compare);
}

/* Reads the checkpoint of a directory that is in use, again if the node overtakes it. */
shelf_result listing_checkpoint(const char *path, struct listing *listing, char ret_text[DISK_TEXT_MAX]) {
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

/* "rw-rw----" */
static void mode_text(uint32_t mode, char ret_text[LISTING_RIGHTS_MAX]) {
    static const char letters[] = "rwxrwxrwx";
    for (unsigned i = 0; i < 9; i++) {
        ret_text[i] = letters[i];
        if (!(mode & (0400u >> i))) {
            ret_text[i] = '-';
        }
    }
    ret_text[9] = 0;
}

static void id_text(bool is_group, uint32_t id, char *ret_text, size_t size) {
    const struct passwd *user = is_group ? NULL : getpwuid(id);
    const struct group *group = is_group ? getgrgid(id) : NULL;
    const char *name = user ? user->pw_name : group ? group->gr_name : NULL;
    if (name) {
        (void)snprintf(ret_text, size, "%s", name);
    } else {
        (void)snprintf(ret_text, size, "%u", id);
    }
}

const char *owner_text(uint32_t owner, char *ret_text, size_t size) {
    id_text(false, owner, ret_text, size);
    return ret_text;
}

const char *group_text(uint32_t group, char *ret_text, size_t size) {
    id_text(true, group, ret_text, size);
    return ret_text;
}

const char *rights_text(const struct shelf_region_info *info, char ret_text[LISTING_RIGHTS_MAX]) {
    char owner[40], group[40];
    mode_text(info->mode, ret_text);
    (void)snprintf(ret_text + 9, LISTING_RIGHTS_MAX - 9, " %s %s",
                   owner_text(info->owner, owner, sizeof(owner)),
                   group_text(info->group, group, sizeof(group)));
    return ret_text;
}
