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
    X(OVERLAY_OF_ONE, "pending bytes are looked for in the newest record only")                           \
    X(APPLIED_AT_HEAD, "what is applied is said to reach to the end of what is sent")                     \
    X(NO_SESSION_CHECK, "retries are not recognised")                                                     \
    X(SESSION_NOT_LOGGED, "the result of a commit is not stored in its record")                           \
    X(NO_FENCE, "an outcome query that finds nothing does not log a fence")                               \
    X(BYTES_BEFORE_VERSION, "a line's bytes change before its version says so")                           \
    X(VERSION_BEFORE_BYTES, "a line's version is published, and its record as applied, before its bytes") \
    X(PAGE_VERSION_LATE, "a page's version is set after the bytes of its lines only")                     \
    X(APPLIED_BEFORE_BYTES, "the applied index is published before the bytes of its record")              \
    X(NO_CHAIN_CHECK, "recovery does not check the chain checksum of records")                            \
    X(CUT_CORRUPT_RECORD, "recovery takes a corrupt record with a valid successor for a torn tail")       \
    X(IGNORE_HINT, "recovery ignores the commit hint")                                                    \
    X(NO_SYNC_AFTER_RECOVERY, "recovery serves records that may be in the cache of the system only")      \
    X(EPOCH_REUSED, "a restarted node goes on in the epoch of its former life")                           \
    X(RETRY_FAILED_WRITE, "a failed write is tried again as if nothing had happened")                     \
    X(SKIP_RIGHTS, "commits are not checked against owner, group and mode of the regions they touch")

// Of the rules by which nodes agree (docs/protocol.md): `sim --group` has to find them.
#define MUTANT_GROUP_LIST(X)                                                                              \
    X(LEADS_WITHOUT_SWAP, "C2: a restarted primary that the register names leads on in its epoch")        \
    X(INCARNATION_IGNORED, "C4: a directory that is new counts for the one that was lost")                \
    X(UNKNOWN_SWAP_IS_LOST, "C3: a swap of unknown outcome is given up for lost")                         \
    X(UNKNOWN_SWAP_IS_WON, "C3: a swap of unknown outcome is taken for won")                              \
    X(OLD_EPOCH_ACCEPTED, "L1: records of an epoch below the promise are taken")                          \
    X(NO_PREVIOUS_CHECK, "L1: the record before the one sent is not compared")                            \
    X(ACK_LAST_INDEX, "L2: the last durable index is acknowledged, checked or not")                       \
    X(ACK_OF_ANY_EPOCH, "L2: a primary counts what was acknowledged in an earlier epoch")                 \
    X(ACK_RECEIVED, "L2: records are acknowledged before they are durable")                               \
    X(CHECKED_KEPT, "L2: what was checked against one primary counts for the next")                       \
    X(CUT_BY_DUPLICATE, "L3: a delayed record that is there already cuts what follows it")                \
    X(COMMIT_OLD_EPOCH, "L4: records of older epochs are committed by counting")                          \
    X(COMMIT_UNCHECKED, "L4: a backup believes the commit index for records that it has not checked")     \
    X(OWN_DISK_NOT_AWAITED, "L4: the primary counts itself before its own disk has the record")           \
    X(QUORUM_TOO_SMALL, "L4: one member too few is enough for a commit")                                  \
    X(ASK_BEFORE_SWAP, "T2: promises are asked for before the swap is known to be won")                   \
    X(PROMISE_BEFORE_DURABLE, "T3: a promise is answered before it is durable")                           \
    X(ACK_AFTER_PROMISE,                                                                                  \
      "T3: a record that becomes durable after a promise is acknowledged for the older epoch")            \
    X(PROMISE_WITHOUT_STEPPING_DOWN, "T3: a primary promises a later epoch, and its own disk counts on")  \
    X(LONGEST_LOG_WINS, "T4: the longest log is taken, whatever its last epoch")                          \
    X(TOO_FEW_PROMISES, "T4: a candidate's own promise is enough")                                        \
    X(NO_FETCH, "T4: a candidate does not fetch what its log lacks")                                      \
    X(SERVES_BEFORE_OPENING, "T5: a new primary answers before its opening record is committed")          \
    X(NO_HOLD, "S1: commits go on while the set is being changed")                                        \
    X(NO_HOLD_OF_READS, "S1: rounds of linearizable reads go on while the set is being changed")          \
    X(NO_FLOOR_CHECK, "S2: the new set's logs are not looked at")                                         \
    X(NO_OWN_FLOOR_CHECK, "S2: the new set's logs are looked at, but for the primary's own")              \
    X(FLOOR_IS_COMMIT_INDEX, "S2: before the opening record is committed, the commit index is the floor") \
    X(READ_UNCONFIRMED, "R1: a linearizable read is not confirmed by anybody")                            \
    X(ANY_ROUND_CONFIRMS, "R1: a confirmation of an earlier round counts")

// Of nodes of a cluster: `sim --cluster` has to find them.
#define MUTANT_CLUSTER_LIST(X)                                                                        \
    X(APPLY_UNCOMMITTED, "L5: a backup shows records that are durable and not committed")             \
    X(RECOVERY_APPLIES_ALL, "L5: a restarted member takes its whole log for committed")               \
    X(MIRRORS_NOT_REBUILT, "K1: a new primary does not look into the image for sessions")             \
    X(LOST_LEAD_SAYS_COMMITTED, "K3: a deposed primary answers OK for records that others lack")      \
    X(SERVES_BEFORE_APPLIED, "T5: a new primary serves before older records are applied")             \
    X(INSTALL_NOT_SYNCED, "D1: the superblock comes before the pages that were received are durable") \
    X(INSTALL_LIVE_SLOT, "D1: what is received overwrites the old checkpoint")                        \
    X(INSTALL_DROPS_LATER, "D1: records behind the checkpoint go, conflicting or not")                \
    X(INSTALL_MIXED, "D1: a transfer goes on with another checkpoint than it began with")             \
    X(INSTALL_LOG_EARLY, "D1: the old log goes before the new superblock is durable")                 \
    X(INSTALL_UNCHECKED, "D1: what arrives is not compared with its checksum")                        \
    X(HANDED_OVER_LEADS_ON, "C2: a primary that has handed over leads the epoch of another")          \
    X(CLOSED_CLEAN_ALWAYS, "X2: a hint says clean though a record is not applied")                    \
    X(TRIMMED_LAST_UNKNOWN, "D1: a log that was trimmed does not know the epoch of its last record")  \
    X(PENDING_NOT_LOOKED_UP, "K1: sequences are looked up in the image only")                         \
    X(FORWARDED_TWICE, "W1: a primary takes a round that it has taken already")                       \
    X(LINK_IGNORED, "W1: a primary takes rounds of an earlier life of a node")                        \
    X(FORWARDED_UNCERTIFIED, "K2: what was read on another node is not certified")                    \
    X(PENDING_IS_SEEN, "K2: what is pending at the primary counts as seen by every reader elsewhere") \
    X(REFUSED_BEFORE_FATE, "K2: a conflict with a pending record is answered before its fate")        \
    X(OLD_REFUSAL_TAKEN, "W3: a refusal of an older epoch counts after the request was sent again")   \
    X(LOST_LEAD_SAYS_CONFLICT, "K3: refusals that rest on records which are not committed")           \
    X(CATALOG_SENT_AGAIN, "W2: a change of the catalog that may be done is sent to the next primary") \
    X(BELOW_WINDOW_ADMITTED, "K4: a sequence below the window is taken for a new one")                \
    X(ANSWERED_BEFORE_APPLIED, "W4: an answer is told before the node has applied its record")        \
    X(APPENDED_WAITS, "a record that is appended is sent with the next acknowledgement or tick only")

enum mutant {
    MUTANT_NONE = 0,
#define X(name, text) MUTANT_##name,
    MUTANT_LIST(X) MUTANT_GROUP_LIST(X) MUTANT_CLUSTER_LIST(X)
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
