// SPDX-License-Identifier: Apache-2.0
//
// Planted bugs. The simulator has to find each of them, which shows that it would find others of their kind. In the
// products MUTANT(NAME) is a constant 0 and leaves no trace; in the simulator's own build of the core (SHELF_SIM) it is
// true while `sim --mutant NAME` runs.

#ifndef SHELF_BASE_MUTANT_H
#define SHELF_BASE_MUTANT_H

// X(NAME, what the planted bug does)
#define MUTANT_LIST(X)                                                                                    \
    X(SKIP_LOG_SYNC, "log writes are not durable")                                                        \
    X(ACK_BEFORE_DURABLE, "commits are answered when their record is issued, not when it is durable")     \
    X(SUPERBLOCK_BEFORE_PAGES, "the superblock is written before the pages that it reaches")              \
    X(SKIP_PAGES_SYNC, "pages and tables are not synced before the superblock")                           \
    X(SKIP_READ_BACK, "a checkpoint is not read back before its superblock is written")                   \
    X(ONE_SUPERBLOCK_COPY, "only one of the four copies of the superblock is written")                    \
    X(TRIM_BEFORE_SUPERBLOCK, "log segments are reused before the superblock is durable")                 \
    X(REUSE_SLOT, "a checkpoint overwrites the live slot of a page")                                      \
    X(NO_COPY_ON_WRITE, "a page that changes while it waits for its checkpoint is not copied first")      \
    X(SKIP_DIRTY_BIT, "some changed pages are not marked dirty")                                          \
    X(NO_CERTIFY, "reads are not certified at all")                                                       \
    X(CERTIFY_IGNORES_PENDING, "certification does not see records that are not applied yet")             \
    X(CONFLICT_BEFORE_FATE, "a conflict with a pending record is answered before the record's fate")      \
    X(OPERATION_FROM_IMAGE, "operations ignore the overlay of pending records")                           \
    X(NO_SESSION_CHECK, "retries are not recognised")                                                     \
    X(SESSION_NOT_LOGGED, "the result of a commit is not stored in its record")                           \
    X(NO_FENCE, "an outcome query that finds nothing does not log a fence")                               \
    X(BYTES_BEFORE_VERSION, "a line's bytes change before its version says so")                           \
    X(VERSION_BEFORE_BYTES, "a line's version is published, and its record as applied, before its bytes") \
    X(APPLIED_BEFORE_BYTES, "the applied index is published before the bytes of its record")              \
    X(NO_CHAIN_CHECK, "recovery does not check the chain checksum of records")                            \
    X(CUT_CORRUPT_RECORD, "recovery takes a corrupt record with a valid successor for a torn tail")       \
    X(IGNORE_HINT, "recovery ignores the commit hint")                                                    \
    X(NO_SYNC_AFTER_RECOVERY, "recovery serves records that may be in the cache of the system only")      \
    X(EPOCH_REUSED, "a restarted node goes on in the epoch of its former life")                           \
    X(RETRY_FAILED_WRITE, "a failed write is tried again as if nothing had happened")

enum mutant {
    MUTANT_NONE = 0,
#define X(name, text) MUTANT_##name,
    MUTANT_LIST(X)
#undef X
        MUTANT_COUNT
};

#ifdef SHELF_SIM
extern enum mutant mutant_active; // defined by the simulator
#define MUTANT(name) (mutant_active == MUTANT_##name)
#else
#define MUTANT(name) 0
#endif

#endif
