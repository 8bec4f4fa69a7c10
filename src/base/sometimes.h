// SPDX-License-Identifier: Apache-2.0
//
// Places that a test must reach. SOMETIMES(NAME) counts in the simulator's build (SHELF_SIM) that this was reached; a run
// of many seeds that never reached one fails, because then its checks say nothing about it. INTERLEAVE(NAME) marks a moment
// in the middle of publishing a record, at which the simulator lets readers look at the image. Both are nothing in the products.

#ifndef SHELF_BASE_SOMETIMES_H
#define SHELF_BASE_SOMETIMES_H

#include <stdint.h>

// First those that the core reaches, then those that the simulator itself reaches.
#define SOMETIMES_LIST(X)            \
    X(LOG_SEGMENT_SWITCH)            \
    X(LOG_FULL_WAITS_FOR_CHECKPOINT) \
    X(LOG_NO_SPACE)                  \
    X(LOG_NO_SPACE_RESUMED)          \
    X(HINT_WRITTEN)                  \
    X(APPLY_WHILE_WRITING)           \
    X(APPLY_BEHIND)                  \
    X(CHECKPOINT_BEGUN)              \
    X(CHECKPOINT_DURABLE)            \
    X(CHECKPOINT_COPY_ON_WRITE)      \
    X(CHECKPOINT_COPY_POOL_FULL)     \
    X(CHECKPOINT_NO_SPACE)           \
    X(ADMIT_CONFLICT)                \
    X(ADMIT_CONFLICT_WAITED)         \
    X(ADMIT_DUPLICATE)               \
    X(ADMIT_DUPLICATE_WAITED)        \
    X(ADMIT_OPERATION_ON_OVERLAY)    \
    X(OVERLAY_OF_THREE)              \
    X(ADMIT_REFUSED_NO_ROOM)         \
    X(ADMIT_GROUPED)                 \
    X(ADMIT_DENIED)                  \
    X(SESSION_OPENED)                \
    X(SESSION_RESUMED)               \
    X(SESSION_EXPIRED_IDLE)          \
    X(SESSION_EXPIRED_ASKED)         \
    X(SESSION_HOLDER_FENCED)         \
    X(SESSION_BELOW_WINDOW)          \
    X(SESSION_DENIED)                \
    X(SEQUENCE_FENCED)               \
    X(REGION_CREATED)                \
    X(REGION_GROWN)                  \
    X(REGION_DROPPED)                \
    X(REGION_ACCESS_CHANGED)         \
    X(REGION_NO_SPACE)               \
    X(RECOVERY_REPLAYED)             \
    X(RECOVERY_READ_AHEAD_KEPT)      \
    X(RECOVERY_READ_OUTDATED)        \
    X(RECOVERY_TORN_TAIL_CUT)        \
    X(RECOVERY_LOG_CORRUPT)          \
    X(RECOVERY_HINT_AHEAD)           \
    X(RECOVERY_SUPERBLOCK_COPY_BAD)  \
    X(RECOVERY_SUPERBLOCK_MIXED)     \
    X(RECOVERY_CHECKPOINT_CORRUPT)   \
    X(SIM_CRASH_POWER)               \
    X(SIM_CRASH_PROCESS)             \
    X(SIM_CRASH_DURING_CHECKPOINT)   \
    X(SIM_CRASH_DURING_RECOVERY)     \
    X(SIM_CRASH_TORN_LOG_WRITE)      \
    X(SIM_CRASH_LOST_UNSYNCED)       \
    X(SIM_FAULT_EIO)                 \
    X(SIM_FAULT_NO_SPACE)            \
    X(SIM_FAULT_ROT)                 \
    X(SIM_FAULT_MISDIRECTED)         \
    X(SIM_STRUCTURES_CHECKED)        \
    X(SIM_SESSION_TABLE_FULL)        \
    X(SIM_RETRY_AFTER_CRASH)         \
    X(SIM_RETRY_COMMITTED_BEFORE)    \
    X(SIM_READ_IN_MID_APPLY)         \
    X(SIM_TX_INDEX_EXTENDED)         \
    X(SIM_TX_READ_CONFLICT)

// Of `sim --group`.
#define SOMETIMES_GROUP_LIST(X)     \
    X(GROUP_SUSPECTED)              \
    X(GROUP_SUSPICION_DENIED)       \
    X(GROUP_NAMED_WITHOUT_LEADING)  \
    X(GROUP_EPOCH_WON)              \
    X(GROUP_SWAP_UNKNOWN)           \
    X(GROUP_SWAP_WON_BEFORE)        \
    X(GROUP_FETCHED)                \
    X(GROUP_OPENED)                 \
    X(GROUP_STEPPED_DOWN)           \
    X(GROUP_DEPOSED_IN_CHANGE)      \
    X(GROUP_RESIGNED)               \
    X(GROUP_SUFFIX_CUT)             \
    X(GROUP_PEER_BEHIND)            \
    X(GROUP_LEARNER_JOINED)         \
    X(GROUP_MEMBER_REMOVED)         \
    X(GROUP_MEMBER_ADDED)           \
    X(GROUP_MEMBER_REPLACED)        \
    X(GROUP_CHANGED_BEFORE_OPENING) \
    X(GROUP_HOLD_GIVEN_UP)          \
    X(GROUP_READ_CONFIRMED)         \
    X(GROUP_READ_ABORTED)           \
    X(GROUP_SIM_CRASHED)            \
    X(GROUP_SIM_CRASHED_IN_CUT)     \
    X(GROUP_SIM_WIPED)              \
    X(GROUP_SIM_LATE_SWAP)          \
    X(GROUP_SIM_LATE_SWAP_LANDED)   \
    X(GROUP_SIM_OLD_RECORD_LANDED)  \
    X(GROUP_SIM_COMMITS_ALONE)

// Of `sim --cluster`.
#define SOMETIMES_CLUSTER_LIST(X)         \
    X(CLUSTER_LEADS)                      \
    X(CLUSTER_PRIMARY_GONE)               \
    X(GROUP_PEER_FAR)                     \
    X(CLUSTER_ABDICATED)                  \
    X(CLUSTER_REGION_FORGOTTEN)           \
    X(CLUSTER_PARKED)                     \
    X(CLUSTER_WRITES_AHEAD)               \
    X(CLUSTER_CUT)                        \
    X(CLUSTER_SERVED_FROM_DISK)           \
    X(CLUSTER_APPLIED_FROM_DISK)          \
    X(CLUSTER_APPLIED_FROM_MEMORY)        \
    X(CLUSTER_REGION_FOLLOWED)            \
    X(CLUSTER_FAR_SERVED)                 \
    X(CLUSTER_HANDED_OVER)                \
    X(CLUSTER_SIM_CLOSED)                 \
    X(CLUSTER_SIM_CLOSED_CLEAN)           \
    X(CLUSTER_FAR_APPLIED)                \
    X(INSTALL_BEGUN)                      \
    X(INSTALL_RESUMED)                    \
    X(INSTALL_ANEW)                       \
    X(INSTALL_NOT_NEEDED)                 \
    X(INSTALL_GIVEN_UP)                   \
    X(INSTALL_DAMAGED)                    \
    X(INSTALL_DONE)                       \
    X(INSTALL_LOG_BEGUN)                  \
    X(DONATE_REFUSED)                     \
    X(DONATE_HELD_CHECKPOINT)             \
    X(DONATE_WITHOUT_LEAD)                \
    X(CLUSTER_SIM_TAKEOVER_IN_INSTALL)    \
    X(CLUSTER_SIM_CRASHED_IN_INSTALL)     \
    X(FORWARD_NO_ROOM)                    \
    X(FORWARD_UNKNOWN)                    \
    X(FORWARD_RESENT)                     \
    X(FORWARD_OLD_ANSWER_IGNORED)         \
    X(FORWARD_OF_OLD_PRIMARY)             \
    X(FORWARD_APPENDED_BEFORE)            \
    X(FORWARD_TO_SELF)                    \
    X(FORWARD_WAITED_FOR_APPLIED)         \
    X(FORWARDED_AGAIN)                    \
    X(FORWARDED_AHEAD)                    \
    X(FORWARDED_NO_ROOM)                  \
    X(CLUSTER_SIM_CRASHED)                \
    X(CLUSTER_SIM_CRASHED_IN_RECOVERY)    \
    X(CLUSTER_SIM_WIPED)                  \
    X(CLUSTER_SIM_EIO)                    \
    X(CLUSTER_SIM_UNKNOWN)                \
    X(CLUSTER_SIM_RETRY_COMMITTED_BEFORE) \
    X(CLUSTER_SIM_SENT_AGAIN)             \
    X(CLUSTER_SIM_CONFLICT)               \
    X(CLUSTER_SIM_BELOW_WINDOW)           \
    X(CLUSTER_SIM_READ)

enum sometimes {
#define X(name) SOMETIMES_##name,
    SOMETIMES_LIST(X) SOMETIMES_GROUP_LIST(X) SOMETIMES_CLUSTER_LIST(X)
#undef X
        SOMETIMES_COUNT
};
#define SOMETIMES_GROUP_FIRST   SOMETIMES_GROUP_SUSPECTED
#define SOMETIMES_CLUSTER_FIRST SOMETIMES_CLUSTER_LEADS

#ifdef SHELF_SIM
extern uint64_t *sometimes_counts; // SOMETIMES_COUNT of them, owned by the simulator
void sim_interleave(void);
#define SOMETIMES(name)  ((void)sometimes_counts[SOMETIMES_##name]++)
#define INTERLEAVE(name) sim_interleave()
#else
#define SOMETIMES(name)  ((void)0)
#define INTERLEAVE(name) ((void)0)
#endif

#endif
