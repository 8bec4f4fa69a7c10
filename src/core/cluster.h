// SPDX-License-Identifier: Apache-2.0
/*
 * cluster.h: what a node of a cluster has beside a lone one. Private to src/core, part of state.h.
 *
 * All members' logs are the same bytes: a record has the same segment, offset and checksums everywhere, since where it lies
 * follows from the sizes of those before it. So a backup writes what it is sent, and what the primary reads from its log can
 * be sent as it is.
 *
 *     group.c      who leads; what is committed
 *     cluster.c    its host: orders of the group, events for it
 *     cluster_look.c  what it knows of the others, for people
 *     tail.c       where the last records lie, and who wrote them
 *     far.c        records from before the tail, in the log
 *     promise.c    the promise, durable
 *     receive.c    records from a primary, into the log; a suffix that another primary never had, out of it
 *     serve.c      records out of the log, for peers
 *     apply_log.c  records that are committed, into the image
 *     abdicate.c   from primary to backup
 *     donate.c     parts of the own checkpoint, for peers that the log does not reach any more
 *     install.c    a peer's checkpoint becomes the own one: the transfer; install_end.c: from the disk to the superblock
 *     anew.c       recovery: the log begins anew behind such a checkpoint
 *     retire.c     the node is closed
 *     forward.c    requests of programs on this node, to whoever leads
 *     forwarded.c  ... and at the primary
 *
 *   K1  applied <= commit, and applied <= what is durable here. Nothing else is shown (C2).
 *   K2  At most one record is on its way to the disk (C1), whoever it came from.
 *   K3  The log is changed by one of: the primary's batches, records received, a cut. cluster_settled() keeps them apart.
 *   K4  A record that is appended is on its way to the others in the same step, and before the own write begins.
 */
#ifndef CORE_CLUSTER_H
#define CORE_CLUSTER_H

#include "core/core.h"
#include "core/forward.h"
#include "core/group.h"
#include "core/record.h"
#include "wire/peer.h"
#include "wire/system_region.h"

#ifdef SHELF_SIM
#define TAIL_MAX 64u
#else
#define TAIL_MAX 8192u /* records whose places are known; what is not committed is always among them */
#endif
struct tail_record {
    struct identity identity;
    struct position begin; /* segment 0: not in this log */
    struct position end;   /* where the next one begins, if it fits there */
    uint32_t place;        /* of its segment */
};

struct far {        /* where a reader of older records is */
    uint64_t index; /* of the record that begins there; 0: nowhere */
    struct position at;
    uint32_t place;
    uint64_t window_offset, window_size; /* of its segment, in the reader's buffer */
};
enum far_step {
    FAR_HERE,  /* in the buffer */
    FAR_READS, /* the io is to be carried out, then the same again */
    FAR_GONE,
};

enum received_state { RECEIVED_FREE = 0, RECEIVED_QUEUED, RECEIVED_WRITING, RECEIVED_DURABLE };
struct received {
    uint8_t *buffer; /* as a batch's */
    uint32_t state;  /* enum received_state */
    uint64_t index;
    uint64_t write_offset;
    size_t write_size;
    uint8_t *write_buffer;
};
#define RECEIVED_MAX 2u

struct serving { /* a record that is to be read for a peer */
    uint64_t node;
    struct peer_message message;
};
#define SERVINGS_MAX 16u
#define FARS_MAX     4u
#define READS_MAX    64u

struct donate { /* donate.c */
    struct asking {
        uint64_t node;
        struct log_mark mark;
        struct peer_part part;
    } askings[16];
    uint32_t count;
    struct io io;
    uint8_t *buffer; /* a page, at whose end the part's description is, and the bytes */
    struct peer_part refused;
    struct peer_checkpoint offer;
    uint64_t asked_ms; /* last; 0: never */
};

enum install_state {
    INSTALL_NONE = 0,
    INSTALL_WAITS, /* for a checkpoint of its own that is under way */
    INSTALL_ROOTS,
    INSTALL_FILES,
    INSTALL_PAGES,
    INSTALL_SYNC,
    INSTALL_TOP, /* the roots */
    INSTALL_TOP_SYNC,
    INSTALL_READ_BACK,
    INSTALL_SUPERBLOCK,        /* copies 0, 1 */
    INSTALL_SUPERBLOCK_SECOND, /* copies 2, 3 */
    INSTALL_DONE,              /* nothing is left to this process but to be started again */
};
enum install_part_state { PART_FREE = 0, PART_ASKED, PART_WRITES };
struct install_part {
    struct io io; /* first: what is to be done with what came */
    struct peer_part part;
    uint8_t *buffer; /* of a checkpoint's io */
    uint32_t state;  /* enum install_part_state */
    bool retry;      /* met a full disk; again at the next tick */
    uint64_t asked_ms;
    uint64_t page;           /* the first one in it */
    uint32_t count, written; /* pages */
};
#define INSTALL_PARTS 4u
struct install { /* install.c */
    uint32_t state;
    uint64_t donor;
    struct log_mark mark; /* of the checkpoint */
    struct peer_checkpoint offer;
    uint8_t *theirs; /* the donor's roots; the own ones are built where a checkpoint of its own builds them */
    uint8_t *table;  /* the donor's block and the own one, of the pages that are under way */
    struct install_part parts[INSTALL_PARTS];
    uint64_t asked, done; /* bytes of the roots */
    uint64_t entry;       /* place of the present region in the roots */
    uint32_t block, step, page;
    bool table_here;
    bool mixed; /* planted bug only, as the next two are */
    uint64_t kept_entry;
    uint32_t kept_block;
    uint32_t roots_crc;
    uint64_t moved_ms; /* when something came last */
    struct superblock next;
};

struct waiting_read { /* EVENT_READ */
    uint64_t token;
    uint64_t round;
    uint64_t index; /* confirmed: answered when it is applied; UINT64_MAX: not yet */
};

enum abdication { ABDICATION_NONE = 0, ABDICATION_ANSWERS, ABDICATION_IOS, ABDICATION_REGIONS };

enum retire_state { RETIRE_NONE = 0, RETIRE_DRAINS, RETIRE_HANDS_OVER, RETIRE_LINGERS, RETIRE_RESTS };

struct cluster {
    bool on;
    bool running; /* the log's end is known: the group lives */
    struct group_node group;
    uint64_t now_ms;
    uint64_t commit;       /* the group's */
    uint64_t commit_found; /* by recovery */
    struct tail_record *tail;
    uint64_t tail_first; /* index of the oldest that is known; its own place may not be */
    /* promise.c */
    struct io promise_io;
    uint8_t *promise_block;
    uint64_t promised;
    uint32_t promise_place;
    bool promise_waits; /* a full disk */
    /* receive.c */
    struct received received[RECEIVED_MAX];
    struct io write_io;
    bool write_waits;
    bool cut_wanted;
    uint64_t cut_to;
    struct io cut_io;
    bool cut_waits;
    /* serve.c */
    struct serving servings[SERVINGS_MAX];
    uint32_t serving_count;
    struct io serve_io;
    uint8_t *serve_buffer;
    struct serving_far { /* of the peers that are served from far back */
        uint64_t node;
        struct far far;
    } serve_fars[FARS_MAX];
    uint32_t serve_far_next;
    uint64_t serve_index; /* the record in serve_io, if it is one of the tail's */
    struct peer_letter letters[EFFECT_MESSAGES_MAX];
    struct configuration swap;
    /* apply_log.c */
    struct io apply_io;
    uint8_t *apply_buffer;
    uint64_t apply_index; /* the record in it; 0: none */
    struct far apply_far;
    struct io follow_ios[6]; /* files and memory of a region that a record makes or grows */
    uint32_t follow_left, follow_step, follow_failure;
    struct catalog_entry follow_entry;
    bool opened; /* told */
    /* Leading. */
    bool leading;
    uint64_t lead; /* the first epoch of this leadership, or the last one */
    struct waiting_read reads[READS_MAX];
    uint32_t read_count;
    /* abdicate.c */
    uint32_t abdication; /* enum abdication */
    struct io limbo_io;
    uint32_t limbo_region;
    struct donate donate;
    struct install install;
    /* retire.c */
    uint32_t retire; /* enum retire_state */
    uint64_t retire_ms, retire_last;
    /* forward.c, forwarded.c */
    struct forwarding forwarding;
    struct forwarder *forwarders; /* FORWARDERS_MAX */
    uint64_t link_counter;
};

/* cluster.c */
void cluster_init(struct core *core);
void cluster_start(struct core *core); /* recovery knows the log */
void cluster_on_event(struct core *core, const struct event *event);
void cluster_tick(struct core *core, const struct event *event);
void cluster_log_changed(struct core *core); /* durable further, or settled */
void cluster_appended(struct core *core);    /* log_write() has made a record of the building batch */
void cluster_sent(struct core *core);        /* ... outside of an order of the group: peers get it at once */
void cluster_go_on(struct core *core);
bool cluster_held(const struct core *core); /* nothing is admitted or sent to the log for the moment */
void cluster_letter(struct core *core, uint64_t node, const struct peer_message *message);
bool cluster_settled(const struct core *core);
void cluster_read_begin(struct core *core, uint64_t token); /* of this node's program, or of another node */

/* cluster_look.c */
void cluster_contact(
    struct core *core); /* something came, or time has passed: how old may be what is here? */

/* tail.c */
void tail_begin(struct core *core, const struct identity *identity, struct position end);
void tail_add(struct core *core, const struct identity *identity, struct position begin, struct position end,
              uint32_t place);
const struct tail_record *tail_find(const struct core *core, uint64_t index);
bool tail_on_disk(const struct core *core, const struct tail_record *record);

/* promise.c */
struct recovery_io;
bool promise_next(struct core *core, struct recovery_io *rio);
void promise_on_read(struct core *core, const struct recovery_io *rio);
void promise_write(struct core *core, uint64_t epoch);
void promise_on_io(struct core *core, struct io *io);

/* far.c */
uint64_t far_first(const struct core *core); /* index of the first record that is in this log */
void far_forget(struct far *far);            /* the buffer was used for something else */
enum far_step far_step(const struct core *core, struct far *far, uint64_t index, uint8_t *buffer,
                       struct io *ret_io, const struct record_header **ret_record);

/* donate.c */
void donate_offer(struct core *core, uint64_t node, const struct peer_message *message);
void donate_on_ask(struct core *core, const struct peer_message *message);
void donate_continue(struct core *core);
void donate_on_io(struct core *core, struct io *io);
bool donate_holds_checkpoint(const struct core *core);
bool donate_reads(const struct core *core, uint32_t region);

/* install.c */
void install_on_offer(struct core *core, const struct peer_message *message);
void install_on_part(struct core *core, const struct peer_message *message);
void install_on_io(struct core *core, struct io *io);
void install_continue(struct core *core);
void install_tick(struct core *core);
void install_give_up(struct core *core);                /* while it may be */
bool install_holds_checkpoint(const struct core *core); /* it uses what a checkpoint would */
bool install_ends(const struct core *core);             /* nothing else may happen any more */
/* install_end.c */
bool install_end_next(struct core *core,
                      struct install_part *part); /* false: the state has nothing left to be sent */
void install_end_on_io(struct core *core, struct install_part *part);
bool install_needed(const struct core *core, struct log_mark mark);
struct roots_region *install_region(const struct core *core, uint8_t *roots); /* NULL: behind the last */
void install_region_pass(struct core *core);
uint32_t install_block_pages(const struct roots_region *entry, uint32_t block);
/* From the next page in [*from, end) that has a slot: so many have the same. 0: none has one. */
uint32_t install_run(const struct page_entry *pages, uint32_t *from, uint32_t end);

/* retire.c */
void retire_continue(struct core *core);
bool retire_rests(const struct core *core); /* nothing is heard or said any more */
bool retire_done(const struct core *core);
bool retire_clean(const struct core *core); /* may the hint say that nothing follows? */

/* anew.c */
bool anew_next(struct core *core, struct recovery_io *rio);

/* receive.c */
bool receive_record(struct core *core, const void *bytes, size_t size);
void receive_cut(struct core *core, uint64_t index);
void receive_continue(struct core *core);
void receive_on_io(struct core *core, struct io *io);
void receive_on_cut(struct core *core, struct io *io);
const struct record_header *received_record(const struct core *core, uint64_t index);

/* serve.c */
void serve_record(struct core *core, uint64_t node, const struct peer_message *message);
void serve_continue(struct core *core);
void serve_on_io(struct core *core, struct io *io);

/* apply_log.c */
void apply_log_continue(struct core *core);
void apply_log_on_read(struct core *core, struct io *io);
void apply_log_on_files(struct core *core, struct io *io);
void apply_log_tick(struct core *core);

/* abdicate.c */
void abdicate_begin(struct core *core);
void abdicate_continue(struct core *core);
void abdicate_on_io(struct core *core, struct io *io);

#endif
