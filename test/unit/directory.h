// SPDX-License-Identifier: Apache-2.0
//
// Directories of tests go with all that is in them.

#ifndef TEST_DIRECTORY_H
#define TEST_DIRECTORY_H

#include <ftw.h>
#include <stdio.h>

static inline int directory_entry_remove(const char *path, const struct stat *status, int type,
                                         struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

// 0: all of it is gone.
static inline int directory_remove(const char *path) {
    return nftw(path, directory_entry_remove, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
