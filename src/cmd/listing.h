// SPDX-License-Identifier: Apache-2.0
/* listing.h: what regions a shelf has: of the node, or, if that cannot be asked, of the last checkpoint's files. */
#ifndef CMD_LISTING_H
#define CMD_LISTING_H

#include "cmd/disk.h"

struct listing {
    uint64_t index, epoch;
    long owner; /* process that runs in the directory: then it is a checkpoint that is listed; 0: none */
    size_t count;
    struct shelf_region_info regions[SHELF_REGIONS_MAX];
};

shelf_result listing_open(shelf *s, struct listing *listing);
/* Reads the checkpoint, again if a node overtakes it. `listing` is zeroed. */
shelf_result listing_checkpoint(const char *path, struct listing *listing, char ret_text[DISK_TEXT_MAX]);

#define LISTING_RIGHTS_MAX 100u
/* "rw-rw---- ada staff"; numbers for ids without a name. */
const char *rights_text(const struct shelf_region_info *info, char ret_text[LISTING_RIGHTS_MAX]);
const char *owner_text(uint32_t owner, char *ret_text, size_t size);
const char *group_text(uint32_t group, char *ret_text, size_t size);

#endif
