// SPDX-License-Identifier: Apache-2.0
/*
 * state.h: what the core is made of. Private to src/core.
 *
 * One transaction flows through the files in this order:
 *
 *     core.c       core_step(): EVENT_SUBMIT
 *     admit.c      check, certify, resolve operations, add to the batch that is being built
 *     session.c    ... looked up, result stored in the same record
 *     overlay.c    ... newest bytes of what is not applied yet
 *     log.c        batch -> record -> write -> EVENT_IO_DONE -> committed
 *     apply.c      record -> image; page -> dirty
 *     checkpoint.c dirty pages -> shadow slots -> superblock -> log trimmed
 *     copies.c     ... those that change before they were sent
 *     recovery.c   superblock -> image, then replay.c: log -> image, opening record
 *
 * Invariants (each file cites the ones it keeps):
 *   C1  At most one record is being written; the next is built meanwhile, and the one before may still be waiting to be
 *       applied (in a cluster: to be committed). Record n+1 is never sent to the disk before record n is durable.
 *   C2  Nothing of a record is shown or answered before it is durable and applied.
 *   C3  Applied records form a prefix of the log; the image between two steps is exact at `applied`.
 *   C4  What `admitted` state says (sessions, catalog, completed overlays) includes every record admitted, applied or not.
 *   C5  No durable superblock reaches a byte that is overwritten; the log is kept from its index on.
 *   C6  After a fault nothing is written, answered with OK, or applied any more.
 */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/crc.h"
#include "base/hash.h"
#include "base/mutant.h"
#include "base/sometimes.h"
#include "core/core.h"
#include "core/record.h"
#include "wire/checkpoint_format.h"
#include "wire/log_format.h"
#include "wire/system_region.h"

/* ---- Overlay: newest bytes of the lines that one batch changes, as far as somebody has asked --------------------- */

struct overlay_line {
    uint64_t line; /* address >> LINE_SHIFT */
    uint8_t bytes[LINE_SIZE];
};
struct overlay {
    uint32_t *slots; /* hash -> place in lines, plus 1; mask + 1 of them are in use */
    uint32_t mask;
    uint32_t slot_max;
    uint32_t count;
    uint32_t line_max;
    struct overlay_line *lines;
    size_t indexed; /* so many bytes of the payload are in it */
    size_t tx;      /* where in the payload the transaction is that they end in */
};

/* ---- Batch: a record while it is built and written, and the answers that wait for it ------------------------------- */

struct batch {
    uint8_t *
        buffer; /* segment header block | record header | payload; the record begins at BATCH_RECORD_OFFSET */
    size_t payload_size;
    size_t payload_max;
    uint64_t index;      /* of the record it becomes */
    struct batch *older; /* the record before it, until that is applied */
    struct identity
        identity; /* once it is sent: the record's, where the next one begins, what it takes in the log */
    struct position end;
    uint64_t log_bytes;
    uint32_t tx_count;
    uint32_t reply_count; /* waiting for this record's fate */
    struct reply *replies;
    struct overlay overlay;
};
#define BATCH_RECORD_OFFSET 4096u
#define BATCHES             3u
#define BATCHES_CLUSTER     4u
#define BATCH_REPLIES_MAX   (2u * RECORD_TXS_MAX)

static inline uint8_t *batch_payload(const struct batch *batch) {
    return batch->buffer + BATCH_RECORD_OFFSET + sizeof(struct record_header);
}

/* A payload has no more lines than this: the shortest range that can be in two of them takes 24 bytes. */
static inline uint64_t payload_lines_max(size_t payload_size) {
    return payload_size / ((sizeof(struct record_range) + 8) / 2);
}

/* ---- Log ----------------------------------------------------------------------------------------------------------- */

struct segment {
    uint64_t sequence; /* 0: never used, or trimmed */
    uint64_t index_first;
    uint64_t offset_first; /* where that record begins; 0: behind the header */
    uint64_t zeroed_bytes; /* written at least once up to here: overwriting is cheap */
    bool stale;            /* recovery: it lies behind the end of the log, and its header on disk must go */
};

struct log {
    struct segment segments[LOG_SEGMENTS_MAX];
    uint32_t segment_count; /* that the file has */
    uint32_t segment_max;
    uint32_t head_place;    /* segment of the head; valid if head.segment_sequence != 0 */
    struct position head;   /* where the next record begins */
    struct identity last;   /* last record written (or being written) */
    uint64_t durable_index; /* last record known to be durable */
    bool reserve_failed;    /* the last try to extend the file met a full disk */
    bool write_waits_space; /* the record in flight met a full disk; it is tried again at each tick */
    struct io write, reserve, zero, hint;
    struct batch *writing;  /* the batch in flight, or durable and behind `applying`; or NULL */
    bool writing_durable;   /* the latter */
    struct batch *applying; /* durable, not applied yet; or NULL */
    struct batch *parked;   /* of a cluster: durable, behind `applying` and before `writing`; or NULL */
    uint64_t write_offset;  /* of the write in flight, in the file, and its buffer and size */
    size_t write_size;
    uint8_t *write_buffer;
    uint64_t applied_bytes; /* log bytes since the checkpoint's position: what recovery would read */
    uint64_t hint_index;    /* the last one stored in `hint` */
    uint64_t tick_index;    /* last.index at the last tick */
    uint64_t hint_sequence;
    uint8_t *hint_block; /* one alignment unit */
    uint8_t *zeros;      /* ZERO_BYTES of them, never written */
    uint32_t zero_place; /* where the zeroing write in flight goes */
    uint64_t zero_from;
};
#define ZERO_BYTES          (LOG_SEGMENT_BYTES / 32)
#define LOG_OPENING_RESERVE ((uint64_t)64 << 10) /* end of the last segment, kept for opening records */

/* ---- Regions ------------------------------------------------------------------------------------------------------- */

struct region {
    uint32_t number; /* 0: this place is free */
    bool mapped;
    bool admitted_live; /* as of everything admitted (C4) */
    bool applied_live;  /* as of the image */
    uint64_t size;      /* admitted */
    uint64_t size_max;
    uint64_t size_mapped;
    uint64_t size_applied;
    uint64_t created_index;
    uint32_t catalog_place;
    uint32_t owner, group, mode;
    char name[64];
    struct region_memory memory;
    uint64_t *dirty;   /* pages changed since the last checkpoint began */
    uint64_t *pending; /* pages of the running checkpoint not sent yet; a subset of frozen */
    uint64_t *frozen;  /* pages of the running checkpoint */
    uint64_t dirty_count, pending_count, frozen_count;
    uint64_t page_count_frozen; /* size at the running checkpoint's index, in pages; 0: not in it */
    bool changed;               /* by the record that is being applied; then it is in core.changed */
};
#define REGION_PLACES (SHELF_REGIONS_MAX + 256u) /* dropped ones stay until a checkpoint without them */

/* ---- Catalog changes: one at a time, because the files come first -------------------------------------------------- */

enum control_state { CONTROL_IDLE = 0, CONTROL_FILES, CONTROL_MAP, CONTROL_APPEND, CONTROL_CLEANUP };
struct control {
    uint32_t state;
    uint64_t token;
    struct region_request request;
    struct region *region;
    struct catalog_entry entry; /* as it will be */
    uint32_t files_left;        /* ios under way */
    uint32_t failure;           /* enum io_result */
    struct io ios[8];
};

/* ---- Sessions ------------------------------------------------------------------------------------------------------ */

struct session {         /* mirror of a session_header, as admitted */
    uint64_t id;         /* 0: free */
    uint64_t expired_id; /* of the last one that was here */
    uint64_t holder;
    uint64_t last_sequence;      /* highest committed or fenced: the window ends here */
    uint64_t window;             /* bit i: last_sequence - i was committed or fenced */
    uint64_t committed_sequence; /* highest committed */
    uint64_t last_used_ms;
    bool named;
    bool seen;      /* somebody has used it since this node began */
    uint32_t owner; /* user */
    char name[64];
};

/* ---- Checkpoint ---------------------------------------------------------------------------------------------------- */

enum checkpoint_state {
    CHECKPOINT_IDLE = 0,
    CHECKPOINT_PAGES,
    CHECKPOINT_PAGES_SYNC,
    CHECKPOINT_TABLE,
    CHECKPOINT_TABLE_SYNC,
    CHECKPOINT_READ_BACK,
    CHECKPOINT_SUPERBLOCK,        /* copies 0, 1 */
    CHECKPOINT_SUPERBLOCK_SECOND, /* copies 2, 3 */
    CHECKPOINT_TRIM,
};

#define CHECKPOINT_IOS      4u
#define CHECKPOINT_IO_BYTES ((size_t)256 << 10)
#define COPIES_MAX          16384u /* 64 MiB, touched as far as needed */

struct copied_page {
    uint32_t next; /* in its chain, or the next free one */
    uint32_t region_place;
    uint64_t page;
    uint8_t *bytes;
};
struct copies {
    struct copied_page *pages; /* max of them, a power of two; in chains this number is the end */
    uint32_t *heads;           /* as many */
    uint32_t max, count, free_first;
};

struct checkpoint_io {
    struct io io;
    uint8_t *buffer;
    bool taken; /* from issue until done, waiting for space included */
    bool retry; /* met a full disk; again at the next tick */
    uint32_t region_place;
    uint64_t page; /* first page or table block */
    uint32_t count;
};

#define CHECKPOINT_WAITERS_MAX 32u /* each of them, answered in one step */

struct checkpoint {
    uint32_t state;
    bool wanted;
    bool log_needs;         /* the log is full: no hold can put it off */
    bool answer;            /* it is done, and the waiters have to be told */
    bool early;             /* planted bug only */
    struct superblock next; /* what will be published */
    uint32_t cursor_place;  /* where the walk over regions and pages is */
    uint64_t cursor_page;
    uint32_t step; /* of states with several stages */
    uint32_t busy_count;
    struct checkpoint_io ios[CHECKPOINT_IOS];
    uint8_t *roots; /* blob of the checkpoint */
    uint64_t roots_max;
    uint64_t roots_checked; /* read back so far */
    uint32_t roots_crc;     /* of what was read back */
    bool roots_busy;
    uint8_t *superblock_buffer; /* four copies */
    struct copies copies;
    uint64_t last_start_ms;
    uint64_t log_bytes_at_start;
    uint64_t waiters[CHECKPOINT_WAITERS_MAX]; /* tokens of EVENT_CHECKPOINT */
    uint32_t waiter_count;
    uint32_t waiter_count_next; /* came after the running one began: they wait for the next */
    uint64_t waiters_next[CHECKPOINT_WAITERS_MAX];
};

/* ---- Recovery ------------------------------------------------------------------------------------------------------ */

enum recovery_state {
    RECOVERY_NONE = 0,
    RECOVERY_FORMAT_FILES, /* a new shelf */
    RECOVERY_FORMAT_WRITE,
    RECOVERY_FORMAT_SYNC,
    RECOVERY_FORMAT_PUBLISH,
    RECOVERY_SUPERBLOCK,
    RECOVERY_SUPERBLOCK_REPAIR,
    RECOVERY_SUPERBLOCK_SYNC,
    RECOVERY_ROOTS,
    RECOVERY_MAP,
    RECOVERY_TABLE,
    RECOVERY_PAGES,
    RECOVERY_HINT,
    RECOVERY_LOG_LENGTH,
    RECOVERY_SEGMENTS,
    RECOVERY_ANEW, /* behind a checkpoint that came from a peer */
    RECOVERY_REPLAY,
    RECOVERY_EVIDENCE,
    RECOVERY_WIPE,
    RECOVERY_LOG_SYNC,
    RECOVERY_EPOCH,
    RECOVERY_HINT_CLEAR,
    RECOVERY_PROMISE, /* of a cluster */
    RECOVERY_OPENING,
    RECOVERY_DONE,
};

#define RECOVERY_IOS \
    32u /* under way at once: more than the disk can use, so that memory is made ahead of the reads */
#define RECOVERY_IOS_LOG  8u  /* of the log, which is read into memory that is there */
#define RECOVERY_CHUNKS   32u /* of a segment */
#define RECOVERY_IO_BYTES ((size_t)LOG_SEGMENT_BYTES / RECOVERY_CHUNKS)

struct recovery_io {
    struct io io;
    uint8_t *buffer;
    bool taken;
    uint32_t region_place;
    uint64_t page; /* first page / block / segment / chunk */
    uint32_t count;
    uint32_t
        stage; /* RECOVERY_PAGES: 0: the slot with more pages, into the image; 1: the other, into the buffer */
    uint32_t slot_first; /* enum slot_state of stage 0 */
};

struct recovery {
    uint32_t state;
    uint32_t busy_count;
    uint32_t cursor_place;
    uint64_t cursor;
    struct recovery_io ios[RECOVERY_IOS];
    struct hint_block hint; /* the newest valid one, or index 0 */
    bool hint_found;
    uint8_t *
        scan; /* LOG_SEGMENT_BYTES: a ring; the segment that is being replayed, and behind it the next one's begin */
    uint32_t scan_place;
    uint32_t scan_next_place; /* of the segment that is probably the next; segment_count: none */
    uint64_t scan_base;       /* of the segment, counted over all that was ever scanned */
    uint64_t scan_issued;     /* bytes from there on asked for, read and contiguous */
    uint64_t scan_ready;
    uint64_t scan_window; /* read-ahead, grows while records are found */
    uint64_t chunk_read
        [RECOVERY_CHUNKS]; /* which chunk of all that was ever scanned is in this place of the ring, + 1 */
    bool chunk_busy[RECOVERY_CHUNKS]; /* it is being read into */
    struct position at;               /* where record last.index + 1 is expected */
    struct position
        switched_from; /* at the first record of a segment: where it would be if that record is torn */
    uint32_t switched_from_place;
    bool switched;
    uint64_t segment_count; /* that the file has */
    bool tail_found;
    uint64_t cut_bytes;
    uint64_t records;
    uint32_t evidence_place; /* segment that is searched for later records */
    uint64_t evidence_from;
};

#include "core/cluster.h"

/* ---- The core ------------------------------------------------------------------------------------------------------ */

enum io_purpose {
    PURPOSE_LOG_WRITE = 1,
    PURPOSE_LOG_RESERVE,
    PURPOSE_LOG_ZERO,
    PURPOSE_LOG_HINT,
    PURPOSE_CONTROL,
    PURPOSE_CHECKPOINT,
    PURPOSE_RECOVERY,
    PURPOSE_REMOVE,
    PURPOSE_PROMISE,
    PURPOSE_RECEIVE,
    PURPOSE_CUT,
    PURPOSE_SERVE,
    PURPOSE_APPLY_READ,
    PURPOSE_APPLY_FILES,
    PURPOSE_LIMBO,
    PURPOSE_DONATE,
    PURPOSE_INSTALL,
};

struct core {
    struct core_config config;
    struct image *image;
    struct region_map *maps; /* the readers' addresses in this process */
    struct effects *effects; /* of the step that is running */
    uint64_t now_ms;
    struct superblock superblock; /* the durable one */
    uint64_t epoch;
    uint64_t applied;
    struct identity applied_identity; /* of the record `applied`, and where the next one begins */
    struct position applied_position;
    bool open;    /* recovery is over: the image may be read, checkpoints are made */
    bool serving; /* requests are admitted */
    bool closing, close_checkpoint, closed;
    bool closing_hint; /* the last one is on its way */
    bool defer_apply;  /* in this step */
    bool hold_checkpoint;
    struct core_fault fault;
    bool stopped;

    struct batch
        batches[BATCHES_CLUSTER]; /* one being built, one being written, one being applied, one parked */
    struct batch *building;
    struct log log;
    struct region regions[REGION_PLACES];   /* place 0 is the system region */
    uint16_t region_places[REGION_NUMBERS]; /* number -> place + 1 */
    uint16_t changed[REGION_PLACES]; /* numbers of the regions that the record being applied has changed */
    uint32_t changed_count;
    uint32_t region_count;        /* live, the system region not counted */
    uint64_t region_numbers_used; /* admitted */
    struct control control;
    struct session sessions[SHELF_SESSIONS_MAX];
    uint32_t session_count;
    uint64_t session_scan_ms;
    uint64_t opened_ms; /* when this node began to serve */
    struct checkpoint checkpoint;
    struct recovery recovery;
    struct io remove_io;
    struct cluster cluster;
    const struct reader *reader; /* while a request of another node is admitted */
    struct request_operation operations[SHELF_TX_OPERATIONS_MAX]; /* of the request being admitted */
    struct reply immediate[64];
    struct core_status status;
};

/* core.c */
void core_issue(struct core *core, struct io *io, uint32_t purpose);
/* An answer to what was admitted, in this step. In a cluster it may be for another node (forward.h). */
void core_reply(struct core *core, const struct reply *reply);
void core_reply_result(struct core *core, uint64_t token, shelf_result result, enum reply_reason reason);
/* What was acknowledged is on q disks of the set (rule L4); in a set of one, on this one's only. */
void core_durability_say(const struct core *core, struct reply *reply);
/* With the program's own token. */
void core_reply_out(struct core *core, const struct reply *reply);
void core_reply_direct(struct core *core, uint64_t token, shelf_result result, enum reply_reason reason);
/* The newest record whose fate is open, or NULL. A refusal that rests on what is admitted waits for it (rule K2). */
struct batch *core_batch_open(struct core *core);
void core_refuse(struct core *core, uint64_t token, shelf_result result, enum reply_reason reason);
void core_stop(struct core *core, shelf_result result, const char *what, const char *reason,
               struct file_id file, uint64_t offset, uint64_t index);
bool core_io_failed(struct core *core, const struct io *io, const char *what); /* stops the core on a fault */

/* overlay.c */
void overlay_reset(struct overlay *overlay);
/* Brings the overlays up to everything admitted; before lines are looked up. */
void overlays_complete(struct core *core);
const struct overlay_line *overlay_find(const struct overlay *overlay, uint64_t line);
/* As of this batch: its own, or of an older one that is not applied yet. */
const struct overlay_line *batch_line(const struct batch *batch, uint64_t line);
/* Newest admitted bytes (C4), but not of session_results. The range lies within its region. */
void newest_read(struct core *core, uint64_t address, void *to, size_t size);

/* admit.c */
void admit_request(struct core *core, const struct event *event);
/* Is there room for a transaction of that many payload bytes in the batch and in the log? */
enum room { ROOM_YES, ROOM_WAIT, ROOM_NO_SPACE, ROOM_NEVER };
enum room batch_room(struct core *core, size_t payload_bytes);
/* The same for a request: if there is none, it has been answered, or effects.refused is set. */
bool admit_has_room(struct core *core, uint64_t token, size_t payload_bytes);
/* The pieces of a transaction of the node itself; always preceded by a look for room. */
struct record_tx *batch_tx_begin(struct core *core, uint64_t session, uint64_t sequence);
void batch_range_add(struct core *core, struct record_tx *tx, uint64_t address, const void *bytes,
                     uint32_t size);
void batch_tx_end(struct core *core, struct record_tx *tx);
struct reply *batch_reply_add(struct batch *batch, uint64_t token); /* answered with the batch */

/* session.c */
void session_on_open(struct core *core, const struct session_request *request,
                     const struct credentials *credentials, uint64_t token);
void session_on_expire(struct core *core, const struct session_request *request,
                       const struct credentials *credentials, uint64_t token);
void session_on_outcome(struct core *core, const struct session_request *request,
                        const struct credentials *credentials, uint64_t token);
void session_on_keep(struct core *core, const struct session_request *request,
                     const struct credentials *credentials, uint64_t token);
struct session *session_find(struct core *core, uint64_t id);
/* True if the sequence may be admitted; otherwise it has been answered from what is stored. */
bool session_admits(struct core *core, const struct commit_request *head,
                    const struct credentials *credentials, uint64_t token);
#define SESSION_RANGE_BYTES_MAX (sizeof(struct record_range) + sizeof(struct session_result))
void session_result_add(struct core *core, struct record_tx *tx, uint64_t id, struct session_result *result);
void session_expire_idle(struct core *core);
void session_mirror_rebuild(struct core *core);

/* catalog.c */
struct region *region_find(const struct core *core, uint32_t number); /* live or not; NULL if there is none */
struct region *region_place_take(struct core *core, uint32_t number);
void region_place_release(struct core *core, struct region *region);
uint32_t region_place(const struct core *core, const struct region *region);
void region_mapped(struct region *region, const struct io *io);
void region_publish(struct core *core, struct region *region,
                    uint64_t floor); /* readers see it from now on */
void catalog_on_request(struct core *core, const struct region_request *request,
                        const struct credentials *credentials, uint64_t token);
void catalog_on_io(struct core *core, struct io *io);
void catalog_continue(struct core *core);
bool catalog_has(uint64_t address); /* is it one of its entries? */
void catalog_applied(struct core *core, uint64_t index, uint64_t address, const void *bytes, uint32_t size);
/* The first catalog entry in the payload whose region needs memory before the payload can be applied. */
bool catalog_needs_map(struct core *core, const uint8_t *payload, size_t size,
                       struct catalog_entry *ret_entry);
void catalog_mirror_rebuild(struct core *core);

/* log.c */
void log_init(struct core *core);
bool log_has_room(const struct core *core, size_t record_bytes, bool opening);
bool log_free_segment(const struct core *core, uint32_t *ret_place);
/* Of a cluster: could the next record be sent to the disk, though the one that is durable is not committed yet? */
bool log_may_go_on(const struct core *core);
void log_go_on(struct core *core);
void log_park(struct core *core); /* what is being written is durable, and makes room */
void log_write(struct core *core, enum record_kind kind); /* sends the building batch, if none is in flight */
void log_on_write(struct core *core, struct io *io);
void log_on_reserve(struct core *core, struct io *io);
void log_on_zero(struct core *core, struct io *io);
void log_on_hint(struct core *core, struct io *io);
void log_on_tick(struct core *core);
void log_retry(struct core *core);
void log_background(struct core *core); /* extends and zeroes segments ahead of need */
void log_hint_write(struct core *core, bool clean);
struct io log_hint_io(struct core *core, bool clean);
bool log_zeroing_overlaps(const struct log *log, uint32_t place, uint64_t from, uint64_t to);
void log_segment_header_fill(const struct core *core, struct segment_header *header, uint32_t place,
                             uint64_t sequence, uint64_t index_first);
void log_trim(struct core *core, uint64_t segment_sequence); /* segments before it are free */
uint32_t record_chain(const struct record_header *header, const void *payload, uint32_t previous_chain);
uint32_t record_header_crc(const struct record_header *header);

/* apply.c */
/* A batch that is committed. False: not in this step. */
bool apply_batch(struct core *core, struct batch *batch);
/* Of a lone node: whatever is durable, unless it is deferred or has to wait. */
void apply_due(struct core *core);
bool apply_payload_valid(const struct core *core, const uint8_t *payload, size_t size, uint32_t tx_count);
void apply_payload(struct core *core, const uint8_t *payload, size_t size, uint64_t index);
/* Its event word is to move with this record. */
void apply_region_changed(struct core *core, struct region *region);
/* `index` is visible from now on; wakes are due for the regions that changed (I6). */
void apply_publish(struct core *core, uint64_t index);
/* Can the pages be kept that a checkpoint still needs as they are? If not, again whenever the checkpoint has moved. */
bool apply_has_room(const struct core *core, const uint8_t *payload, size_t size);

/* copies.c */
void copies_init(struct copies *copies);
bool copies_has(const struct copies *copies, uint32_t region_place, uint64_t page);
void copies_add(struct copies *copies, uint32_t region_place, uint64_t page, const uint8_t *bytes);
bool copies_take(struct copies *copies, uint32_t region_place, uint64_t page,
                 uint8_t *to); /* false: not there */

/* checkpoint.c */
void checkpoint_init(struct core *core);
void checkpoint_on_event(struct core *core, uint64_t token);
void checkpoint_on_io(struct core *core, struct io *io);
void checkpoint_on_tick(struct core *core);
void checkpoint_continue(struct core *core);
void checkpoint_page_changes(struct core *core, struct region *region, uint64_t page);
/* Would it have to be copied first? */
bool checkpoint_copies(const struct core *core, const struct region *region, uint64_t page);
bool checkpoint_dirty(const struct core *core);
/* The four copies of it, in checkpoint.superblock_buffer; it gets its checksum. */
void checkpoint_copies_fill(struct core *core, struct superblock *block);
uint64_t roots_size(const struct core *core);
/* Does an entry of a roots blob make sense, with so many bytes left from it on? */
bool roots_region_sane(const struct roots_region *entry, uint64_t left, bool first);

/* recovery.c, replay.c */
void recovery_start(struct core *core);
void recovery_on_io(struct core *core, struct io *io);
void recovery_opened(struct core *core);
void replay_start(struct core *core);
void replay_on_io(struct core *core, struct recovery_io *rio);
bool replay_continue(struct core *core); /* true: done, the head of the log is known */
bool evidence_next(struct core *core, struct recovery_io *rio);
struct recovery_io *recovery_io_take(struct core *core);
void recovery_send(struct core *core, struct recovery_io *rio, struct io io);

/* bitmaps, a bit a page */
static inline bool bit_get(const uint64_t *bits, uint64_t place) {
    return (bits[place >> 6] >> (place & 63)) & 1u;
}
static inline void bit_set(uint64_t *bits, uint64_t place) {
    bits[place >> 6] |= (uint64_t)1 << (place & 63);
}
static inline void bit_clear(uint64_t *bits, uint64_t place) {
    bits[place >> 6] &= ~((uint64_t)1 << (place & 63));
}
/* The first set bit in [from, to), or `to`. */
static inline uint64_t bit_next(const uint64_t *bits, uint64_t from, uint64_t to) {
    while (from < to) {
        uint64_t word = bits[from >> 6] >> (from & 63);
        if (word != 0) {
            uint64_t found = from + (uint64_t)__builtin_ctzll(word);
            return found < to ? found : to;
        }
        from = (from | 63) + 1;
    }
    return to;
}

#endif
