// SPDX-License-Identifier: Apache-2.0
/*
 * rights.h: what owner, group and mode of a region allow to whom: as for files. The first class that fits decides: the
 * owner's, the group's (supplementary ones count), that of others. Root, and the node's own program, may do everything.
 */
#ifndef CORE_RIGHTS_H
#define CORE_RIGHTS_H

#include <stdbool.h>

#include "core/core.h"

enum right { RIGHT_WRITE = 2, RIGHT_READ = 4, RIGHT_ALL = RIGHT_READ | RIGHT_WRITE };

#define MODE_BITS 0666u

static inline bool rights_unlimited(const struct credentials *credentials) {
    return credentials == NULL || credentials->user == 0;
}

static inline bool rights_in_group(const struct credentials *credentials, uint32_t group) {
    bool found = credentials->group == group;
    for (uint32_t i = 0; i < credentials->group_count && !found; i++) {
        found = credentials->groups[i] == group;
    }
    return found;
}

/* Bits of enum right. */
static inline uint32_t rights_of(const struct credentials *credentials, uint32_t owner, uint32_t group,
                                 uint32_t mode) {
    if (credentials == NULL || rights_unlimited(credentials)) {
        return RIGHT_ALL;
    }
    if (credentials->user == owner) {
        return mode >> 6 & RIGHT_ALL;
    }
    return (rights_in_group(credentials, group) ? mode >> 3 : mode) & RIGHT_ALL;
}

/* May it change owner, group and mode, and drop the region? */
static inline bool rights_owns(const struct credentials *credentials, uint32_t owner) {
    return rights_unlimited(credentials) || credentials->user == owner;
}

#endif
