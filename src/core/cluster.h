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
 *     history.c    recovery: what is still there from before the checkpoint
 *     promise.c    the promise, durable
 *     receive.c    records from a primary, into the log; a suffix that another primary never had, out of it
 *     serve.c      records out of the log, for peers
 *     apply_log.c  records that are committed, into the image
 *     abdicate.c   from primary to backup
 *     forward.c    requests of programs on this node, to whoever leads
 *     forwarded.c  ... and at the primary
 *
 *   K1  applied <= commit, and applied <= what is durable here. Nothing else is shown (C2).
 *   K2  At most one record is on its way to the disk (C1), whoever it came from.
 *   K3  The log is changed by one of: the primary's batches, records received, a cut. cluster_settled() keeps them apart.
 */
#ifndef CORE_CLUSTER_H
#define CORE_CLUSTER_H

#include "core/core.h"
#include "core/forward.h"
#include "core/group.h"
#include "core/record.h"
#include "wire/peer.h"
#include "wire/system_region.h"

#define TAIL_MAX 8192u /* records whose places are known */
struct tail_record {
    struct identity identity;
    struct position begin; /* segment 0: not in this log */
    struct position end;   /* where the next one begins, if it fits there */
    uint32_t place;        /* of its segment */
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
#define READS_MAX    64u

struct waiting_read { /* EVENT_READ */
    uint64_t token;
    uint64_t round;
    uint64_t index; /* confirmed: answered when it is applied; UINT64_MAX: not yet */
};

enum abdication { ABDICATION_NONE = 0, ABDICATION_ANSWERS, ABDICATION_IOS, ABDICATION_REGIONS };

struct cluster {
    bool on;
    bool running; /* the log's end is known: the group lives */
    struct group_node group;
    uint64_t now_ms;
    uint64_t commit;       /* the group's */
    uint64_t commit_found; /* by recovery */
    struct tail_record *tail;
    uint64_t history_first, history_next; /* history.c */
    uint64_t tail_first;                  /* index of the oldest that is known; its own place may not be */
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
    struct peer_letter letters[EFFECT_MESSAGES_MAX];
    struct configuration swap;
    /* apply_log.c */
    struct io apply_io;
    uint8_t *apply_buffer;
    uint64_t apply_index;    /* the record in it; 0: none */
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
/* From before the checkpoint, in recovery; they count once tail_reach_back() says so. */
void tail_history(struct core *core, const struct identity *identity, struct position begin,
                  struct position end, uint32_t place);
void tail_reach_back(struct core *core, uint64_t index);
const struct tail_record *tail_find(const struct core *core, uint64_t index);
bool tail_on_disk(const struct core *core, const struct tail_record *record);

/* promise.c */
struct recovery_io;
bool promise_next(struct core *core, struct recovery_io *rio);
void promise_on_read(struct core *core, const struct recovery_io *rio);
void promise_write(struct core *core, uint64_t epoch);
void promise_on_io(struct core *core, struct io *io);

/* history.c */
bool history_next(struct core *core, struct recovery_io *rio);

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
