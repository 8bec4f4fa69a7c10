// SPDX-License-Identifier: Apache-2.0
/*
 * shelf.h: memory that several programs share and that outlives them.
 *
 * A program opens a shelf, finds or creates a *region* (a named range of bytes), reads it with plain loads and
 * changes it in *transactions*. When shelf_commit() returns SHELF_OK, the change is on stable storage.
 *
 * Conventions, valid for every function below unless it says otherwise:
 *
 *   Errors       Functions return a shelf_result. SHELF_OK is 0. shelf_result_text() turns each into a sentence that
 *                says what to do; shelf_detail() adds what exactly went wrong in this thread's last failed call.
 *                Output parameters (ret_...) are untouched on failure.
 *   Units        Sizes and offsets are bytes. Times are milliseconds and say so in their names.
 *   Ownership    The caller owns every buffer it passes, and may reuse it as soon as the call returns. Handles made by
 *                an open/begin function are owned by the caller and released by the named counterpart.
 *   Threads      A `shelf *` may be used by any number of threads at once. A `shelf_tx *` belongs to one thread at a
 *                time. A `shelf_session *` may be used by any number of threads.
 *   Fork         A child made by fork() gets SHELF_INVALID from every call on an inherited handle; the parent is not
 *                affected. The child may open a handle of its own.
 *   Manners      The library never prints, never exits and installs no signal handlers. It keeps two background threads
 *                an open shelf (checkpoints, timers and asynchronous commits; other programs that attach), with all
 *                signals blocked.
 */
#ifndef SHELF_H
#define SHELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHELF_API     __attribute__((visibility("default")))
#define SHELF_CHECKED __attribute__((warn_unused_result))
#else
#define SHELF_API
#define SHELF_CHECKED
#endif

#define SHELF_VERSION "0.1.0"

/* ---- Results ------------------------------------------------------------------------------------------------------ */

/* X(name, code, sentence). Codes are stable: they also appear as exit codes and in files. */
#define SHELF_RESULT_LIST(X)                                                                               \
    X(OK, 0, "Done.")                                                                                      \
    X(CONFLICT, 1,                                                                                         \
      "Another transaction changed what this one read; abort it and run it again (shelf_run does).")       \
    X(UNKNOWN, 2,                                                                                          \
      "The outcome could not be learned; ask shelf_session_outcome() or commit again under the same "      \
      "sequence.")                                                                                         \
    X(UNAVAILABLE, 3,                                                                                      \
      "The node cannot serve now, nothing was changed; wait and try again, or look at its state.")         \
    X(NO_SPACE, 4,                                                                                         \
      "The region, the disk or a table is full, nothing was changed; free or add space and try again.")    \
    X(TOO_LARGE, 5,                                                                                        \
      "Over a limit (the detail names it), nothing was changed; split the work into smaller parts.")       \
    X(DENIED, 6, "You may not do this; check owner, group and mode of the region or directory.")           \
    X(INVALID, 7,                                                                                          \
      "The call makes no sense as it stands (the detail says why); this is an error in the program.")      \
    X(EXPIRED, 8,                                                                                          \
      "The session or sequence is too old to be answered; open a new session and check your data.")        \
    X(CORRUPT, 9,                                                                                          \
      "Stored bytes fail their checks; do not go on, run `shelf verify` and restore from a copy.")         \
    X(NOT_FOUND, 10,                                                                                       \
      "There is nothing under that name, key or position; create it first or check the spelling.")         \
    X(EXISTS, 11, "That name is taken already; open it, or choose another name.")                          \
    X(FENCED, 12, "Another holder has resumed this session; stop using it, or resume it yourself.")        \
    X(LAYOUT, 13,                                                                                          \
      "The data was stored with another type or struct layout; use the program version that fits it.")     \
    X(TIMEOUT, 14,                                                                                         \
      "The deadline passed before it could be done, nothing was changed; try again with more time.")       \
    X(BUSY, 15, "Another process is the node of this directory; end it first, the detail names it.")       \
    X(FORMAT, 16,                                                                                          \
      "Written by a newer or foreign version of Shelf, nothing was touched; use a program that knows it.") \
    X(IO, 17,                                                                                              \
      "The disk failed; the node has stopped. Check the device and the kernel's log, then open again.")    \
    X(NO_MEMORY, 18,                                                                                       \
      "The system has no memory left for this; nothing was changed; free some and try again.")             \
    X(ABORTED, 19,                                                                                         \
      "This sequence has not had and will not have any effect; run the transaction anew if wanted.")

typedef enum shelf_result {
#define X(name, code, text) SHELF_##name = (code),
    SHELF_RESULT_LIST(X)
#undef X
} shelf_result;

/* Of the library that runs, such as "0.1.0"; SHELF_VERSION is that of the header. */
SHELF_API const char *shelf_version(void);

/* "CONFLICT", and the sentence above. Static strings; "?" for a number that is no result. */
SHELF_API const char *shelf_result_name(shelf_result result);
SHELF_API const char *shelf_result_text(shelf_result result);

/* What exactly failed in this thread's last failed call; "" if nothing did. Valid until this thread's next call. */
SHELF_API const char *shelf_detail(void);

/* ---- Addresses ---------------------------------------------------------------------------------------------------- */

/* 64 bits: region number (16) and offset in it (48). 0 is null. Valid on every machine, may be stored in regions. */
typedef uint64_t shelf_addr;
typedef uint16_t shelf_region; /* a region's number; never reused in the life of a shelf */

#define SHELF_NULL      ((shelf_addr)0)
#define SHELF_LINE_SIZE 64u /* the unit of versioning and conflict */

static inline shelf_addr shelf_addr_make(shelf_region region, uint64_t offset) {
    return ((shelf_addr)region << 48) | (offset & (((uint64_t)1 << 48) - 1));
}
static inline shelf_region shelf_addr_region(shelf_addr address) {
    return (shelf_region)(address >> 48);
}
static inline uint64_t shelf_addr_offset(shelf_addr address) {
    return address & (((uint64_t)1 << 48) - 1);
}

/* ---- Limits ------------------------------------------------------------------------------------------------------- */

#define SHELF_NAME_MAX          55u /* bytes of a region's, root's or session's name, without the NUL */
#define SHELF_TX_BYTES_MAX      ((size_t)16 << 20) /* bytes that one transaction may write */
#define SHELF_TX_LINES_READ_MAX ((size_t)1 << 20)  /* lines that one read-write transaction may read */
#define SHELF_TX_OPERATIONS_MAX 4096u              /* add/min/max/and/or in one transaction */
#define SHELF_TX_RESULTS_MAX    12u   /* operations whose results a receipt carries (the first ones) */
#define SHELF_SESSION_WINDOW    64u   /* sequences of a session whose results are remembered */
#define SHELF_SESSIONS_MAX      1024u /* sessions remembered by one shelf */
#define SHELF_REGIONS_MAX       1024u /* regions that exist at one time */
#define SHELF_REGION_BYTES_MAX \
    ((uint64_t)1 << 40) /* largest growth limit that a region can be created with */

/* ---- Open and close ----------------------------------------------------------------------------------------------- */

typedef struct shelf shelf;

typedef enum shelf_backend {                          /* how the log is written */
                             SHELF_BACKEND_AUTO = 0,  /* io_uring where the kernel allows it, else plain */
                             SHELF_BACKEND_URING = 1, /* io_uring, or UNAVAILABLE */
                             SHELF_BACKEND_PLAIN = 2, /* write calls only */
} shelf_backend;

enum {
    SHELF_OPEN_CREATE = 1u << 0,    /* make the directory and an empty shelf if there is none */
    SHELF_OPEN_EXCLUSIVE = 1u << 1, /* with CREATE: EXISTS if there is a shelf already */
    SHELF_OPEN_NO_CHECKPOINT =
        1u << 2, /* shelf_close() writes no checkpoint (the next open replays the log) */
    SHELF_OPEN_ALONE =
        1u << 3, /* dir: only. BUSY if there is a node already; no others may attach to this one */
};

/* Zero means default everywhere; set what you need with designated initialisers. */
struct shelf_options {
    uint32_t flags;         /* SHELF_OPEN_... */
    shelf_backend backend;  /* AUTO */
    uint64_t log_bytes_max; /* space for the log on disk: 1 GiB; at least 128 MiB */
    uint64_t
        checkpoint_log_bytes; /* a checkpoint starts after that much log: 384 MiB; at most half of log_bytes_max */
    uint32_t checkpoint_interval_ms; /* ... or after that time with changes: 300,000 */
    uint32_t commit_deadline_ms;     /* how long a commit may wait: 30,000 */
    uint64_t session_idle_ms; /* unnamed sessions expire after that long without use: 3,600,000 (1 hour) */
    uint64_t session_named_idle_ms; /* named ones: 2,592,000,000 (30 days) */
    uint32_t
        open_deadline_ms; /* how long shelf_open() waits while nobody serves: 10,000; 1: one look. (What listens has 10 s to answer.) */
    uint32_t reserved32;  /* must be 0 */
    uint64_t reserved[7]; /* must be 0 */
};

/* Opens the shelf at `where`. `options` may be NULL.
 *
 *   "dir:PATH"   The first process to open the directory becomes its *node*: it recovers what the last node left (which takes
 *                as long as reading the image and the log), keeps the data, and listens on PATH/sock. Later ones
 *                attach to it: they read from their own read-only mapping of the same memory, and commit through shared
 *                memory. When the node's process dies, one of the others takes its place. A program need not know
 *                which one it is. (Options that concern the node are the first opener's.) A directory that shelfd has
 *                kept is shelfd's: programs attach to it, or wait for it, and never take its place, but for ALONE.
 *   "unix:PATH"  Attaches to the node that listens on the socket (shelfd, or the above), never becomes one.
 *
 * While there is no node (it has died, or is being replaced), reads go on at the last state that was applied; commits wait up
 * to their deadline; then all goes on by itself, without going back in time. A commit that was under way is
 * settled through its session: it has its effect exactly once, or returns UNKNOWN at its deadline.
 *
 * An open waits up to `open_deadline_ms` for a node that nobody is yet, or any more: shelfd may just be (re)started.
 *
 * NOT_FOUND (no shelf there and no CREATE; at the deadline: nobody listens on the socket), BUSY (ALONE, and there is a node; at the
 * deadline: another process holds the directory and does not serve), UNAVAILABLE (the node takes no more clients; at the
 * deadline: the directory is shelfd's, which does not run), TIMEOUT (what listens does not answer), CORRUPT, FORMAT, IO,
 * NO_SPACE, DENIED, INVALID, NO_MEMORY. */
SHELF_API SHELF_CHECKED shelf_result shelf_open(const char *where, const struct shelf_options *options,
                                                shelf **ret_shelf);

/* Ends the handle: waits for commits under way, writes a checkpoint (unless told not to), releases the directory.
 * All transactions, sessions and views of the handle must have ended. NULL is allowed. The result tells whether the
 * checkpoint was written; acknowledged commits are durable whatever it says, and the handle is gone in any case. */
SHELF_API shelf_result shelf_close(shelf *s);

/* Writes a checkpoint now and waits for it. `ret_index` (may be NULL) is the index that it is exact at. */
SHELF_API SHELF_CHECKED shelf_result shelf_checkpoint(shelf *s, uint64_t *ret_index);

/* The index of the last record whose effects are visible here. Lock-free. */
SHELF_API uint64_t shelf_applied(const shelf *s);

/* What the node is and does; all values since the open. */
struct shelf_info {
    uint64_t applied;             /* index of the last visible record */
    uint64_t epoch;               /* epoch under which this node orders records */
    uint64_t checkpoint;          /* index of the last durable checkpoint */
    uint64_t records;             /* records written */
    uint64_t commits;             /* transactions committed */
    uint64_t conflicts;           /* transactions refused with CONFLICT at commit */
    uint64_t log_bytes;           /* bytes of log written */
    uint64_t log_bytes_live;      /* bytes of log that the next recovery would replay */
    uint64_t recovered_records;   /* records replayed by the open */
    uint64_t recovered_cut_bytes; /* bytes of a torn tail that the open cut off: never acknowledged */
    shelf_backend backend;        /* the one in use */
    shelf_result state;           /* OK; NO_SPACE: reads only until there is space; IO: stopped */
};
SHELF_API SHELF_CHECKED shelf_result shelf_info_get(shelf *s, struct shelf_info *ret_info);

/* How far behind the local replica may be. While attached to the only node, and in its own process, nothing is newer: age_ms is 0.
 * While the node is gone, age_ms counts from the last contact; on a node of a cluster, from when it last heard of the
 * primary (the primary: of a majority). */
struct shelf_staleness {
    uint64_t index; /* applied here; never goes back in the life of a handle */
    uint64_t age_ms;
    bool connected;
};
SHELF_API SHELF_CHECKED shelf_result shelf_staleness_get(shelf *s, struct shelf_staleness *ret_staleness);

/* What this handle has done since it was opened. Lock-free. */
struct shelf_stats {
    uint64_t commits;       /* that returned OK, asynchronous ones included */
    uint64_t conflicts;     /* ... CONFLICT */
    uint64_t failures;      /* ... anything else */
    uint64_t retries;       /* by shelf_run() */
    uint64_t commit_ns;     /* time spent in commits that were waited for, in all */
    uint64_t commit_ns_max; /* the longest of them */
    uint64_t waits, wakes;  /* shelf_wait() calls, and those that returned because of a change */
    uint64_t reconnects;    /* to another node */
    uint64_t takeovers;     /* this process became the node */
    uint64_t replicas_held; /* images mapped now; over 1 while old transactions keep one that was replaced */
    bool is_node;           /* now */
};
SHELF_API SHELF_CHECKED shelf_result shelf_stats_get(shelf *s, struct shelf_stats *ret_stats);

/* A program that is attached to the node, as the node knows it. */
struct shelf_client_info {
    uint64_t client;        /* its id; never used again by this node */
    uint64_t attached_ms;   /* how long ago it came */
    uint64_t commits;       /* that it committed */
    uint64_t bytes;         /* that it submitted */
    uint64_t pending_bytes; /* of its requests that the node has taken and not answered */
    uint32_t pending;       /* how many those are */
    uint32_t regions;       /* mapped by it */
    uint32_t process;       /* process, user, group of the peer, as the kernel says */
    uint32_t owner, group;
    uint32_t waiters; /* threads of it in shelf_wait() */
    char program[32]; /* what it calls itself */
};
/* Writes up to `count_max` clients in order of their ids; `ret_count` is how many there are. */
SHELF_API SHELF_CHECKED shelf_result shelf_client_list(shelf *s, struct shelf_client_info *ret_infos,
                                                       size_t count_max, size_t *ret_count);

/* The cluster that the node belongs to, as the node knows it. */
#define SHELF_NODES_MAX   32u /* that are listed */
#define SHELF_ADDRESS_MAX 256u

enum shelf_part {                         /* that a node has in its cluster */
                  SHELF_PART_LEARNER = 0, /* gets what it lacks; does not count yet, or not any more */
                  SHELF_PART_BACKUP = 1,  /* in sync: its copy counts */
                  SHELF_PART_PRIMARY = 2, /* orders the commits of all; in sync */
};

struct shelf_node_info {
    uint64_t node;
    enum shelf_part part;
    bool connected; /* to the node that was asked, which is so to itself */
    bool known;     /* what follows is known: the primary knows it of all, others only of themselves */
    uint64_t index; /* it has durably everything up to here */
    uint64_t behind_records, behind_bytes; /* of the log that the node lacks */
    uint64_t silent_ms;                    /* since something came from it; UINT64_MAX: nothing has */
    char address[SHELF_ADDRESS_MAX];       /* HOST:PORT for other nodes; "" if it is not known */
};

struct shelf_cluster_info {
    char name[64];
    uint64_t node; /* that was asked */
    enum shelf_part part;
    bool serves;                 /* it takes commits now */
    bool changing;               /* the set of nodes that are in sync is about to change; commits wait */
    uint64_t primary;            /* as far as is known; 0: nobody has said */
    uint64_t epoch;              /* of the newest configuration that is known; 0: none is */
    uint64_t silent_ms;          /* since it heard of the primary; the primary: 0 */
    uint32_t in_sync;            /* nodes whose copies count */
    uint32_t copies, copies_min; /* as many as are wanted; fewer than these are never left */
    bool coordinator_reachable;  /* else commits go on, but nobody can take over and the set cannot change */
    bool coordinator_refused;    /* what it answers cannot be right: people have to look */
    uint64_t coordinator_ms;     /* so long it is reachable, or not */
    char coordinator[256];       /* where it is */
    char coordinator_text[256];  /* what is wrong with it, "" if nothing is */
    uint32_t node_count;         /* of those that follow */
    struct shelf_node_info nodes[SHELF_NODES_MAX]; /* by number; the one that was asked among them */
};
/* NOT_FOUND: the node is alone, of no cluster. */
SHELF_API SHELF_CHECKED shelf_result shelf_cluster_get(shelf *s, struct shelf_cluster_info *ret_info);

/* ---- Regions ------------------------------------------------------------------------------------------------------ */

struct shelf_region_info {
    char name[SHELF_NAME_MAX + 1];
    shelf_region region;
    uint64_t size;     /* bytes, a multiple of 4096 */
    uint64_t size_max; /* up to which it can grow */
    uint64_t floor; /* index of its creation or of this node's recovery: every line counts as changed then */
    uint32_t owner, group; /* user and group ids */
    uint32_t
        mode; /* as a file's: 0400 and 0200 let the owner read and change it, 040, 020 the group, 04, 02 others */
    uint32_t reserved;
};

/* Creates a region of `size` bytes (rounded up to 4096; all zero), growable online up to `size_max` (0: 64 GiB, or
 * `size` if larger). Disk space for both slots of every page (2 * size) is reserved now, so that a checkpoint never
 * lacks it. Belongs to the caller's user and group, mode 0660. Durable when it returns. EXISTS, NO_SPACE, TOO_LARGE,
 * INVALID. */
SHELF_API SHELF_CHECKED shelf_result shelf_region_create(shelf *s, const char *name, uint64_t size,
                                                         uint64_t size_max, shelf_region *ret_region);
SHELF_API SHELF_CHECKED shelf_result shelf_region_open(shelf *s, const char *name, shelf_region *ret_region);
/* Grows to at least `size` bytes; pointers from shelf_view(), addresses and handles stay valid. Never shrinks. */
SHELF_API SHELF_CHECKED shelf_result shelf_region_grow(shelf *s, shelf_region region, uint64_t size);
/* Changes owner, group and mode, each unless it is SHELF_KEEP; the owner may do so, only root may give it away. DENIED. Rights are
 * checked when a program first touches a region, and at every commit. */
#define SHELF_KEEP UINT32_MAX
SHELF_API SHELF_CHECKED shelf_result shelf_region_access(shelf *s, shelf_region region, uint32_t owner,
                                                         uint32_t group, uint32_t mode);
/* Removes the region and all that is in it. Running transactions that touch it get CONFLICT or NOT_FOUND. */
SHELF_API SHELF_CHECKED shelf_result shelf_region_drop(shelf *s, const char *name);
SHELF_API SHELF_CHECKED shelf_result shelf_region_info_get(shelf *s, shelf_region region,
                                                           struct shelf_region_info *ret_info);
/* Writes up to `count_max` regions in order of their numbers; `ret_count` is how many there are. */
SHELF_API SHELF_CHECKED shelf_result shelf_region_list(shelf *s, struct shelf_region_info *ret_infos,
                                                       size_t count_max, size_t *ret_count);

/* ---- Transactions ------------------------------------------------------------------------------------------------- */

typedef struct shelf_tx shelf_tx;

enum {
    SHELF_READ_ONLY =
        1u << 0, /* may not write; needs no commit to be valid: every read is exact at one index */
    SHELF_READ_WRITE = 1u << 1, /* exactly one of these two */
    SHELF_FRESH = 1u << 2, /* linearizable reads: sees everything acknowledged anywhere before the begin */
};

enum shelf_durability {                             /* what a receipt says was really achieved */
                        SHELF_DURABLE_NOT = 0,      /* nothing was written (a transaction without effect) */
                        SHELF_DURABLE_LOCAL = 1,    /* on this machine's stable storage, the only member */
                        SHELF_DURABLE_MAJORITY = 2, /* on stable storage of a majority of the in-sync set */
};

struct shelf_receipt {
    uint64_t index;    /* of the record that carries the transaction; reads at or after it see the change */
    uint64_t epoch;    /* of that record */
    uint64_t sequence; /* in the session */
    enum shelf_durability durability;
    bool replayed;         /* the stored answer of an earlier commit under the same sequence: no new effect */
    uint32_t result_count; /* how many of the results are set */
    uint64_t
        results[SHELF_TX_RESULTS_MAX]; /* new values left by add/min/max/and/or, in the order of the calls */
};

/* Begins a transaction at the newest visible index. `flags`: READ_ONLY or READ_WRITE, or-ed with FRESH if wanted.
 * Ends by shelf_commit(), shelf_commit_async() or shelf_abort(), after which the pointer is invalid. Begin of a
 * read-only transaction is a few loads; it registers nowhere and blocks nobody, however long it runs. */
SHELF_API SHELF_CHECKED shelf_result shelf_begin(shelf *s, unsigned flags, shelf_tx **ret_tx);

/* Reads copy bytes that are exact at the transaction's index, with the transaction's own writes on top. The index
 * moves forward by itself while everything read so far is unchanged; otherwise CONFLICT. After a CONFLICT the
 * transaction stays failed: every further call returns CONFLICT, so code may check once, at the end of a stretch.
 * UNAVAILABLE: the line's writer died in the middle of it. INVALID: outside of the region. */
SHELF_API SHELF_CHECKED shelf_result shelf_read(shelf_tx *tx, shelf_addr from, void *to, size_t size);

/* A pointer to the bytes themselves, valid until the transaction ends. They may change under the reader: what was
 * computed from them is certain only once shelf_check() has returned OK *after* the last load. Own writes are
 * visible only as of the time of the call, through a private copy. */
SHELF_API SHELF_CHECKED shelf_result shelf_view(shelf_tx *tx, shelf_addr from, size_t size,
                                                const void **ret_bytes);
SHELF_API SHELF_CHECKED shelf_result shelf_check(shelf_tx *tx);

/* A hint that the range will be read soon: fetches data and versions into the cache. Never fails. */
SHELF_API void shelf_prefetch(shelf_tx *tx, shelf_addr from, size_t size);

/* Buffers a change; visible to others only after the commit. TOO_LARGE over SHELF_TX_BYTES_MAX. */
SHELF_API SHELF_CHECKED shelf_result shelf_write(shelf_tx *tx, shelf_addr to, const void *from, size_t size);

/* Operations on an aligned 64-bit word (little-endian, unsigned; add wraps). They are commutative: they read nothing
 * and never conflict with one another. Their results are in the receipt, so the commit needs the right to read the region as well as to
 * change it. A transaction that used one on a word
 * cannot also read or write that word (INVALID). */
SHELF_API SHELF_CHECKED shelf_result shelf_add(shelf_tx *tx, shelf_addr word, uint64_t operand);
SHELF_API SHELF_CHECKED shelf_result shelf_min(shelf_tx *tx, shelf_addr word, uint64_t operand);
SHELF_API SHELF_CHECKED shelf_result shelf_max(shelf_tx *tx, shelf_addr word, uint64_t operand);
SHELF_API SHELF_CHECKED shelf_result shelf_and(shelf_tx *tx, shelf_addr word, uint64_t operand);
SHELF_API SHELF_CHECKED shelf_result shelf_or(shelf_tx *tx, shelf_addr word, uint64_t operand);

/* Commits and ends the transaction, whatever the result. `ret_receipt` may be NULL. Returns when the change is durable
 * and visible. OK; CONFLICT; UNKNOWN (it may or may not become durable; the receipt's sequence is set); UNAVAILABLE,
 * NO_SPACE, TOO_LARGE, EXPIRED, FENCED, IO: it has had and will have no effect. A read-only transaction always
 * commits. */
SHELF_API SHELF_CHECKED shelf_result shelf_commit(shelf_tx *tx, struct shelf_receipt *ret_receipt);
/* Ends the transaction without effect. NULL is allowed. */
SHELF_API void shelf_abort(shelf_tx *tx);

/* Commits without waiting. OK means: submitted, and exactly one completion with `tag` will be delivered by
 * shelf_completions(). Otherwise it has had and will have no effect, and no completion comes. Ends the transaction.
 * What is outstanding is not visible yet: a transaction that is begun meanwhile and reads a line that an outstanding one changes
 * gets CONFLICT, also if both are of one thread. Keep such apart by their lines, change them by operations, or wait. */
SHELF_API SHELF_CHECKED shelf_result shelf_commit_async(shelf_tx *tx, uint64_t tag);
struct shelf_completion {
    uint64_t tag;
    shelf_result result;
    struct shelf_receipt receipt;
};
/* A descriptor of the handle (not the caller's to read, write or close) that polls readable while completions wait. */
SHELF_API int shelf_completion_fd(shelf *s);
/* Takes up to `count_max` completions without waiting; returns how many. Any thread may call it. */
SHELF_API size_t shelf_completions(shelf *s, struct shelf_completion *ret_completions, size_t count_max);

/* Runs `body` in a transaction and commits it; on CONFLICT again, with random exponential back-off, until it commits,
 * fails otherwise, or `deadline_ms` (0: the handle's commit deadline) has passed (TIMEOUT). `body` returns OK to
 * commit; anything else but CONFLICT aborts and is returned. It must be free of side effects outside of the
 * transaction, and must not commit or abort it. */
typedef shelf_result (*shelf_body)(shelf_tx *tx, void *context);
SHELF_API SHELF_CHECKED shelf_result shelf_run(shelf *s, unsigned flags, shelf_body body, void *context,
                                               uint32_t deadline_ms, struct shelf_receipt *ret_receipt);

/* Sleeps until a line of the range has changed after `since_index` (an index that the caller has read at, such as
 * shelf_tx_index()), at most `timeout_ms` (UINT32_MAX: for ever). OK: one has, and a transaction begun now sees it; returns
 * at once if it had already. When another node has taken over, everything counts as changed once. TIMEOUT; NOT_FOUND (no
 * such region, or it was dropped); DENIED; INVALID. Costs the writer nothing while nobody waits. Works in any process that
 * has the shelf open. */
SHELF_API SHELF_CHECKED shelf_result shelf_wait(shelf *s, shelf_addr address, uint64_t length,
                                                uint64_t since_index, uint32_t timeout_ms);

/* The index that a transaction reads at, and the handle it belongs to. */
SHELF_API uint64_t shelf_tx_index(const shelf_tx *tx);
SHELF_API shelf *shelf_tx_shelf(const shelf_tx *tx);
/* A number for spreading concurrent work (arenas, stripes): the same in a thread's transactions, another after each
 * retry by shelf_run(). */
SHELF_API uint32_t shelf_tx_hint(const shelf_tx *tx);

/* ---- Sessions: exactly once --------------------------------------------------------------------------------------- */

/* Every read-write transaction commits under a session and a sequence. The last 64 sequences of a session and their
 * results are stored by the same record as the change itself, so that a retry has its effect exactly once, also after
 * a crash. Handles make unnamed sessions by themselves; a named one can be resumed by a program that was restarted. */
typedef struct shelf_session shelf_session;

/* Opens or resumes a named session. Resuming fences the older holder: its commits return FENCED from then on. */
SHELF_API SHELF_CHECKED shelf_result shelf_session_open(shelf *s, const char *name,
                                                        shelf_session **ret_session);
/* Ends the handle; the session itself stays and can be resumed. NULL is allowed. */
SHELF_API void shelf_session_close(shelf_session *session);
/* Forgets the session for good (logged); later use of it is EXPIRED. Ends the handle. */
SHELF_API SHELF_CHECKED shelf_result shelf_session_expire(shelf_session *session);
/* The highest sequence that has committed; 0 if none. */
SHELF_API uint64_t shelf_session_last(const shelf_session *session);
/* Begins a read-write transaction in the session. It takes the next sequence when it is committed. */
SHELF_API SHELF_CHECKED shelf_result shelf_session_begin(shelf_session *session, unsigned flags,
                                                         shelf_tx **ret_tx);
/* Sets the sequence that the transaction commits under, for a retry: if that sequence has committed already, commit
 * has no effect and returns the stored receipt with `replayed` set. Above the window: admitted. Below: EXPIRED. */
SHELF_API SHELF_CHECKED shelf_result shelf_tx_sequence_set(shelf_tx *tx, uint64_t sequence);
/* shelf_run() in the session, with its effect exactly once also where a commit's outcome is UNKNOWN: that is settled, and the body
 * runs again only if it had no effect. UNKNOWN is left only where that cannot be learned before the deadline; the receipt has the
 * sequence. `sequence`: 0 for the next one; or the one to commit under, such as a message's number. If that has committed already (in
 * an earlier life of the program, or before an UNKNOWN), the body runs without effect, and the receipt is the stored one, `replayed`. */
SHELF_API SHELF_CHECKED shelf_result shelf_session_run(shelf_session *session, uint64_t sequence,
                                                       shelf_body body, void *context, uint32_t deadline_ms,
                                                       struct shelf_receipt *ret_receipt);
/* Settles an UNKNOWN: OK and the receipt if the sequence committed; else a fence is logged, so that it can never
 * commit from now on, and the result is ABORTED. EXPIRED below the window. */
SHELF_API SHELF_CHECKED shelf_result shelf_session_outcome(shelf_session *session, uint64_t sequence,
                                                           struct shelf_receipt *ret_receipt);

/* ---- Allocator ---------------------------------------------------------------------------------------------------- */

/* A region whose space is managed: call once, in the region's first transaction. All structures need it. Takes 60 KiB or more;
 * how fine space is divided is decided here, by whether the region has less than 4 MiB. Arenas (a
 * fixed number a region) let concurrent transactions allocate without conflict. Crash-safe by nature: an allocation is
 * part of its transaction. */
SHELF_API SHELF_CHECKED shelf_result shelf_format(shelf_tx *tx, shelf_region region);
/* At least `size` bytes, 64-byte aligned from 64 bytes up (16 below). Contents undefined. NO_SPACE, TOO_LARGE. */
SHELF_API SHELF_CHECKED shelf_result shelf_alloc(shelf_tx *tx, shelf_region region, size_t size,
                                                 shelf_addr *ret_address);
SHELF_API SHELF_CHECKED shelf_result shelf_free(shelf_tx *tx, shelf_addr address);
/* Usable bytes of an allocation. INVALID if the address is none. */
SHELF_API SHELF_CHECKED shelf_result shelf_alloc_size(shelf_tx *tx, shelf_addr address, size_t *ret_size);

struct shelf_alloc_sums { /* in bytes; live + free + overhead == total, else CORRUPT */
    uint64_t total, live, free, overhead;
    uint64_t blocks_live;
};
/* Walks all of the region's allocator state and checks it. Run in a read-only transaction. */
SHELF_API SHELF_CHECKED shelf_result shelf_alloc_audit(shelf_tx *tx, shelf_region region,
                                                       struct shelf_alloc_sums *ret_audit);

/* ---- Named roots -------------------------------------------------------------------------------------------------- */

/* The directory of a formatted region: name -> address, with a type tag and a hash of the stored layout, so that a
 * program that was built with another layout is told (LAYOUT) instead of misreading. */
struct shelf_root {
    char name[SHELF_NAME_MAX + 1];
    uint64_t type;   /* a tag chosen by the owner; 0 never matches */
    uint64_t layout; /* SHELF_LAYOUT(...) */
    shelf_addr address;
};
SHELF_API SHELF_CHECKED shelf_result shelf_root_set(shelf_tx *tx, shelf_region region,
                                                    const struct shelf_root *root);
/* NOT_FOUND; LAYOUT if type or layout differ (0 for either: not compared). */
SHELF_API SHELF_CHECKED shelf_result shelf_root_get(shelf_tx *tx, shelf_region region, const char *name,
                                                    uint64_t type, uint64_t layout, shelf_addr *ret_address);
SHELF_API SHELF_CHECKED shelf_result shelf_root_remove(shelf_tx *tx, shelf_region region, const char *name);
/* The `position`-th root (from 0) in no particular order; NOT_FOUND past the last. */
SHELF_API SHELF_CHECKED shelf_result shelf_root_at(shelf_tx *tx, shelf_region region, size_t position,
                                                   struct shelf_root *ret_root);

struct shelf_field {
    const char *name;
    uint32_t offset, size;
};
SHELF_API uint64_t shelf_layout_hash(const char *type, size_t size, const struct shelf_field *fields,
                                     size_t count);
/* uint64_t l = SHELF_LAYOUT(struct account, SHELF_FIELD(struct account, owner), SHELF_FIELD(struct account, cents));
 * The hash includes the name of the type as it is written: where programs in C and C++ share it, `struct account` in both. */
#ifdef __cplusplus
#define SHELF_FIELD(type, field)                                                  \
    {                                                                             \
#field, static_cast < uint32_t>(offsetof(type, field)),                   \
            static_cast < uint32_t>(sizeof(static_cast <type *>(nullptr)->field)) \
    }
#define SHELF_LAYOUT(type, ...)                                                   \
    ([]() {                                                                       \
        const struct shelf_field shelf_fields[] = {__VA_ARGS__};                  \
        return shelf_layout_hash(#type, sizeof(type), shelf_fields,               \
                                 sizeof(shelf_fields) / sizeof(shelf_fields[0])); \
    }())
#else
#define SHELF_FIELD(type, field) \
    { #field, (uint32_t)offsetof(type, field), (uint32_t)sizeof(((type *)0)->field) }
#define SHELF_LAYOUT(type, ...)                                                       \
    shelf_layout_hash(#type, sizeof(type), (const struct shelf_field[]){__VA_ARGS__}, \
                      sizeof((const struct shelf_field[]){__VA_ARGS__}) / sizeof(struct shelf_field))
#endif

/* ---- Map: bytes to bytes ------------------------------------------------------------------------------------------ */

typedef struct shelf_map { /* a small value; copy it freely */
    shelf_addr header;
} shelf_map;

/* Opens the map `name` of a formatted region, NOT_FOUND if there is none; create makes it (EXISTS). */
SHELF_API SHELF_CHECKED shelf_result shelf_map_open(shelf_tx *tx, shelf_region region, const char *name,
                                                    shelf_map *ret_map);
SHELF_API SHELF_CHECKED shelf_result shelf_map_create(shelf_tx *tx, shelf_region region, const char *name,
                                                      shelf_map *ret_map);
/* Removes the map, its entries and its name. Large maps: delete the entries in several transactions first. */
SHELF_API SHELF_CHECKED shelf_result shelf_map_drop(shelf_tx *tx, shelf_region region, const char *name);

/* Copies up to `value_max` bytes of the value; `ret_size` is its whole size (more than value_max: truncated). */
SHELF_API SHELF_CHECKED shelf_result shelf_map_get(shelf_tx *tx, shelf_map map, const void *key,
                                                   size_t key_size, void *value, size_t value_max,
                                                   size_t *ret_size);
struct shelf_map_item { /* in: key, key_size, value, value_max. out: value's bytes, value_size, result. */
    const void *key;
    size_t key_size;
    void *value;
    size_t value_max;
    size_t value_size;
    shelf_result result; /* OK or NOT_FOUND */
};
/* Many keys at once; cache misses of different keys overlap. OK if no item failed but by NOT_FOUND. */
SHELF_API SHELF_CHECKED shelf_result shelf_map_get_many(shelf_tx *tx, shelf_map map,
                                                        struct shelf_map_item *items, size_t count);
/* Inserts or replaces. Keys 1 byte to 64 KiB, values 0 bytes to the transaction's limit. */
SHELF_API SHELF_CHECKED shelf_result shelf_map_put(shelf_tx *tx, shelf_map map, const void *key,
                                                   size_t key_size, const void *value, size_t value_size);
SHELF_API SHELF_CHECKED shelf_result shelf_map_delete(shelf_tx *tx, shelf_map map, const void *key,
                                                      size_t key_size);
/* Walks all entries in no particular order, exact at the transaction's index. Start with a zeroed cursor; NOT_FOUND
 * at the end. Copies up to key_max / value_max bytes; the sizes are whole.
 * A cursor is good in other transactions, too; but of entries that are put in between, growth moves some. So where the map is changed
 * meanwhile, read it in parts: one is what is walked while state[0] stays the same, and a cursor with that state[0], and zeros, begins it anew.
 * Then each entry that is there all the time is met once. */
struct shelf_map_cursor {
    uint64_t state[4];
};
SHELF_API SHELF_CHECKED shelf_result shelf_map_next(shelf_tx *tx, shelf_map map,
                                                    struct shelf_map_cursor *cursor, void *key,
                                                    size_t key_max, size_t *ret_key_size, void *value,
                                                    size_t value_max, size_t *ret_value_size);
/* Number of entries. Conflicts with every insert and delete: for read-only transactions. */
SHELF_API SHELF_CHECKED shelf_result shelf_map_count(shelf_tx *tx, shelf_map map, uint64_t *ret_count);
/* Checks every bucket and entry; CORRUPT and a detail that says where. For read-only transactions. */
SHELF_API SHELF_CHECKED shelf_result shelf_map_verify(shelf_tx *tx, shelf_map map);

/* ---- Stream: records in order ------------------------------------------------------------------------------------- */

typedef struct shelf_stream {
    shelf_addr header;
} shelf_stream;

struct
    shelf_stream_options { /* retention: what is beyond either bound is removed by later appends; 0: no bound */
    uint64_t bytes_max;    /* bytes of records kept, rounded up to whole chunks */
    uint64_t age_max_ms;   /* records older than the newest by more than that are removed */
};
SHELF_API SHELF_CHECKED shelf_result shelf_stream_open(shelf_tx *tx, shelf_region region, const char *name,
                                                       shelf_stream *ret_stream);
SHELF_API SHELF_CHECKED shelf_result shelf_stream_create(shelf_tx *tx, shelf_region region, const char *name,
                                                         const struct shelf_stream_options *options,
                                                         shelf_stream *ret_stream);
SHELF_API SHELF_CHECKED shelf_result shelf_stream_drop(shelf_tx *tx, shelf_region region, const char *name);
/* Appends one record with the caller's time; `ret_position` (may be NULL) is its position: 0, 1, 2, ... */
SHELF_API SHELF_CHECKED shelf_result shelf_stream_append(shelf_tx *tx, shelf_stream stream, uint64_t time_ms,
                                                         const void *bytes, size_t size,
                                                         uint64_t *ret_position);
/* Reads the record at `position`. NOT_FOUND at or past the end; EXPIRED if retention has removed it. */
SHELF_API SHELF_CHECKED shelf_result shelf_stream_read(shelf_tx *tx, shelf_stream stream, uint64_t position,
                                                       void *bytes, size_t bytes_max, size_t *ret_size,
                                                       uint64_t *ret_time_ms);
/* Positions of the oldest record kept and of the next append. */
SHELF_API SHELF_CHECKED shelf_result shelf_stream_bounds(shelf_tx *tx, shelf_stream stream,
                                                         uint64_t *ret_first, uint64_t *ret_next);
/* Removes all records before `position` that fill whole chunks. */
SHELF_API SHELF_CHECKED shelf_result shelf_stream_trim(shelf_tx *tx, shelf_stream stream, uint64_t position);
SHELF_API SHELF_CHECKED shelf_result shelf_stream_verify(shelf_tx *tx, shelf_stream stream);

#ifdef __cplusplus
}
#endif

#endif
