// SPDX-License-Identifier: Apache-2.0
/* superblock_read.h: which of the four copies of a superblock are right, and which one counts. */
#ifndef CMD_SUPERBLOCK_READ_H
#define CMD_SUPERBLOCK_READ_H

#include <stdbool.h>

#include "wire/checkpoint_format.h"

enum copy_state {
    COPY_GOOD,
    COPY_BLANK,     /* all zero */
    COPY_FOREIGN,   /* no superblock at all */
    COPY_NEWER,     /* of a format that this program does not know */
    COPY_CHECKSUM,  /* fails its checksum */
    COPY_ELSEWHERE, /* right, but says that it belongs to another place */
    COPY_OLDER,     /* right, but of an earlier checkpoint than the one that counts */
};

struct superblock_report {
    enum copy_state copies[SUPERBLOCK_COPIES];
    int chosen;   /* the copy that counts, or -1 */
    bool newer;   /* two or more copies are of a newer format */
    bool is_sane; /* the chosen one's values make sense */
};

/* Any bytes will do. `ret_block` is filled if a copy was chosen. */
void superblock_examine(const uint8_t bytes[SUPERBLOCK_COPIES * SUPERBLOCK_SIZE],
                        struct superblock_report *ret_report, struct superblock *ret_block);
const char *copy_state_text(enum copy_state state);

#endif
