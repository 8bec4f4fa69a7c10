// SPDX-License-Identifier: Apache-2.0
/*
 * identity.h: who a node is, and where it last knew the others to be: the files `member` and `peers` of its directory
 * (wire/member_format.h).
 *
 *   I1  One process at a time has a directory's identity (file `member.lock`).
 *   I2  What was stored is durable when the call returns. Bytes from the disk are checked, and refused.
 *   I3  A directory that was born and has no shelf any more gets a new incarnation (rule D2).
 */
#ifndef MEMBER_IDENTITY_H
#define MEMBER_IDENTITY_H

#include <stdbool.h>

#include "shelf.h"
#include "wire/member_format.h"

#define MEMBER_TEXT_MAX 512u /* bytes of a sentence, with the NUL */

struct identity_file {
    int fd_directory; /* -1: none */
    int fd_lock;
    struct member_record record; /* as it is stored; node 0: nothing is */
    bool emptied;                /* I3 has happened */
};

/* Makes the directory if it is to be made. `node`: 0, or which one it must be. Sets ret_text on failure: NOT_FOUND, INVALID (it is
 * another node's, of another cluster, or the directory of a lone shelf), BUSY, DENIED, CORRUPT, FORMAT, IO, NO_SPACE. */
shelf_result identity_open(struct identity_file *file, const char *directory, bool create,
                           const char *cluster, uint64_t node, char ret_text[MEMBER_TEXT_MAX]);
void identity_close(struct identity_file *file);

/* Stores these. IO, NO_SPACE. */
shelf_result identity_store(struct identity_file *file, const struct member_record *record,
                            char ret_text[MEMBER_TEXT_MAX]);

/* The text of `peers`; "" if there is none, or it is damaged (it is only a help). */
void identity_peers_load(const struct identity_file *file, char ret_text[REGISTER_VALUE_MAX + 1]);
bool identity_peers_store(const struct identity_file *file, const char *text);

/* NULL, or what is wrong with a record from outside. */
const char *member_record_problem(const struct member_record *record);

#endif
