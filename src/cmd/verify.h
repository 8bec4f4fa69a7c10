// SPDX-License-Identifier: Apache-2.0
/*
 * verify.h: what the parts of `shelf verify` share.
 *
 *     cmd_verify.c         the order of things, the report
 *     verify_checkpoint.c  superblock, roots, tables, pages, catalog, other files of the directory
 *     verify_log.c         hint, segments, records
 *     verify_audit.c       allocator, maps and streams, through the library
 */
#ifndef CMD_VERIFY_H
#define CMD_VERIFY_H

#include "cmd/checkpoint_read.h"
#include "cmd/findings.h"
#include "cmd/output.h"

struct verify_log_summary {
    uint64_t records; /* after the checkpoint */
    uint64_t bytes;
    uint64_t index; /* of the last one; of the checkpoint if there is none */
    bool is_whole;  /* the end was found, and nothing that was durable is missing */
};

struct verify {
    const struct call *call;
    struct disk disk;
    struct findings findings;
    struct progress progress;

    bool files_only;

    bool superblock_known;
    struct superblock superblock;
    uint8_t *roots; /* owned, like the two that follow; NULL if they could not be read */
    struct disk_region *regions;
    size_t region_count;
    uint8_t *system; /* region 1: as of the checkpoint, then with the log applied */
    bool system_whole;
    uint64_t pages_checked;
    struct verify_log_summary log;
    json_t *regions_report; /* owned; what the audit found out of each region */
};

/* What is to be done about damage that only a copy helps against. */
extern const char *const todo_restore;
extern const char *const todo_nothing;
extern const char *const todo_repaired;

void verify_checkpoint(struct verify *verify);
/* Needs verify->superblock_known. */
void verify_log(struct verify *verify);
void verify_directory(struct verify *verify);
/* Beside a node: the records up to `index`, which the node says are durable. Needs verify->superblock_known. */
void verify_log_beside(struct verify *verify, uint64_t index);
/* Opens the shelf. OK, or the result of the open; findings as always. */
shelf_result verify_audit(struct verify *verify, const char *path);
shelf_result verify_audit_open(struct verify *verify, shelf *s);

#endif
