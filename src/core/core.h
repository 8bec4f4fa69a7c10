// SPDX-License-Identifier: Apache-2.0
/*
 * core.h: the deterministic machine. Everything that decides correctness is behind core_step().
 *
 *     event  ->  core_step()  ->  effects
 *
 * The core makes no system calls, knows no clock, no randomness, no threads, and takes no memory after core_init(). Exactly
 * one thread at a time may be in it; which one is the driver's business. The same sequence of events gives the
 * same sequence of effects, on every machine.
 *
 * Life:  core_init -> EVENT_START -> ... ios ... -> effects.opened (serving) -> submits, ticks -> EVENT_CLOSE -> effects.closed
 * At any time effects.stopped may say that the core has stopped for good, and why (struct core_fault).
 */
#ifndef CORE_CORE_H
#define CORE_CORE_H

#include <stdbool.h>

#include "core/group.h"
#include "core/io.h"
#include "wire/image.h"
#include "wire/request.h"

struct core;

struct core_config {
    bool create;             /* EVENT_START makes a new shelf; the world has seen that there is none */
    uint8_t shelf_id[16];    /* random, for a new shelf */
    uint8_t incarnation[16]; /* random, for a new shelf */
    uint32_t alignment;      /* for a new shelf: 512 or 4096 */
    uint64_t log_bytes_max;
    uint64_t checkpoint_log_bytes;
    uint64_t checkpoint_interval_ms;
    uint64_t session_idle_ms;
    uint64_t session_named_idle_ms;
    uint32_t user; /* as whom the node's own program opens sessions */
    /* A node of a cluster: its log is one of several that are to be the same (core/cluster.h). Else it is a set of one. */
    bool cluster;
    struct group_config group; /* its incarnation is read from the directory */
    uint64_t forward_ms;       /* so long a request waits for a primary that answers; 0: ten seconds */
    bool cheap_memory; /* simulator: smaller buffers (records up to 1 MiB), everything else the same */
};

/* How many bytes core_init() needs, aligned to 4096 and zero; untouched pages of it stay untouched until needed. */
size_t core_size(const struct core_config *config);
/* `maps` has a place for each of REGION_NUMBERS; it is filled with the readers' addresses as regions come. */
struct core *core_init(void *memory, const struct core_config *config, struct image *image,
                       struct region_map *maps);
/* The part of that memory that only recovery uses: once `opened` was told, nothing in it is needed again. */
void *core_recovery_memory(struct core *core, size_t *ret_size);

/* Who submits, as the kernel says. */
struct credentials {
    uint32_t user, group;
    uint32_t group_count; /* of the supplementary ones */
    const uint32_t *groups;
};

enum event_kind {
    EVENT_START = 1,
    EVENT_SUBMIT,  /* request, request_size, token */
    EVENT_IO_DONE, /* io, with result set */
    EVENT_TICK,    /* time has passed; at least once a second while anything is unfinished */
    EVENT_CHECKPOINT, /* token: answered when a checkpoint begun now or later is durable; receipt.index is its index */
    EVENT_CLOSE, /* no submits come any more; `checkpoint` says whether to write one first */
    EVENT_GO_ON, /* nothing has happened; does what was held back or deferred, or is left (effects.more) */
    /* Of a cluster: */
    EVENT_MESSAGE,  /* message: from a peer, as peer_decode() made it */
    EVENT_SWAP,     /* swap_result, configuration: the answer to effects.swap */
    EVENT_REGISTER, /* configuration: what the register holds; the answer to effects.look, or news */
    EVENT_GONE,     /* peer: the process of that node is not there, as far as can be seen */
    EVENT_READ,     /* token: answered when a linearizable read may look at the image (rule R1) */
};
struct event {
    uint32_t kind;
    uint64_t now_ms; /* wall-clock time, in every event; only for expiry and retention, decides no order */
    const void *request; /* SUBMIT: valid during the step only */
    size_t request_size;
    uint64_t token;
    const struct credentials *credentials; /* SUBMIT: NULL: the node's own program, which may do everything */
    struct io *io;
    uint64_t steady_ms; /* TICK of a cluster: a clock that nobody sets; time since any moment */
    bool group_only;    /* TICK: between those of every second; only the group of nodes hears of it */
    uint64_t peer;      /* GONE: node */
    const struct peer_message *message;        /* MESSAGE: valid during the step only */
    uint32_t swap_result;                      /* SWAP: enum swap_result */
    const struct configuration *configuration; /* SWAP, REGISTER: valid during the step only */
    bool checkpoint;                           /* CLOSE */
    bool
        hold_checkpoint; /* TICK: somebody copies the present checkpoint; begin no new one unless the log needs it */
    bool hold_record; /* any: more requests are about to follow; begin no record in this step */
    /* any: a record that is durable need not be applied in this step, so that the next one can be on its way to the disk
     * meanwhile; if effects.apply_due says that there is one, an event without this follows */
    bool defer_apply;
};

#define EFFECT_IOS_MAX      64u
#define EFFECT_MESSAGES_MAX 64u
struct peer_letter {
    uint64_t node; /* to */
    struct peer_message message;
};
struct effects {
    uint32_t io_count;
    struct io *ios[EFFECT_IOS_MAX];
    uint32_t reply_count;
    const struct reply *replies; /* valid until the next step */
    uint32_t changed_count;
    const uint16_t
        *changed; /* numbers of the regions whose event word moved in this step; valid until the next */
    /* Messages are to be taken before the ios are begun: their bodies are lent until the next step, or the next io. */
    uint32_t message_count;
    const struct peer_letter *messages;
    const struct configuration
        *swap; /* not NULL: to be the register's, if it holds epoch `swap_from`; until the next step */
    uint64_t swap_from;
    bool look; /* what does the register hold? */
    bool more; /* there is more to do: EVENT_GO_ON is wanted at once */
    bool
        refused; /* SUBMIT, CHECKPOINT: no room now, nothing was changed; submit it again after the next EVENT_IO_DONE */
    bool opened;    /* true in one step: recovery is done */
    bool apply_due; /* there is a durable record that the next step without defer_apply applies */
    bool closed;
    bool stopped; /* from now on in every step */
    /* Of a cluster; from now on in every step: the directory holds a peer's checkpoint, newer than this core's image. Nothing
     * happens here any more. As after a death, whoever waits is told that the node is gone, ios that are under way are
     * ended, memory is given back; then the directory is opened again, by a new core, which has a new image. */
    bool restart;
};

/* Effects are overwritten. Bytes of the image change only inside of this call. */
void core_step(struct core *core, const struct event *event, struct effects *effects);

/* Why the core stopped: for people. `what` and `reason` are static strings. */
struct core_fault {
    shelf_result result; /* CORRUPT, IO, FORMAT, NO_SPACE, NO_MEMORY, INVALID */
    const char *what;    /* "log", "superblock", ... */
    const char *reason;  /* "record fails its checksum, but later records exist" */
    struct file_id file;
    uint64_t offset;
    uint64_t index;
};
const struct core_fault *core_fault_get(const struct core *core);

/* Is a write in flight that commits wait for? Is there anything admitted that waits for the next write? */
bool core_log_busy(const struct core *core);
bool core_work_pending(const struct core *core);
/* Does the shelf know this region, in image, log or checkpoint? Files of others may be deleted (after `opened`). */
bool core_region_known(const struct core *core, uint32_t region);

struct core_status {
    uint64_t applied, epoch, checkpoint, records, commits, conflicts, log_bytes, log_bytes_live;
    uint64_t recovered_records, recovered_cut_bytes;
    uint32_t sessions, regions;
    uint32_t no_space; /* writers are refused now */
    uint32_t stopped;
    uint32_t checkpoint_active;
    uint8_t shelf_id[16], incarnation[16];
    uint32_t role;   /* enum group_role; of a cluster */
    uint32_t serves; /* requests are admitted */
    uint64_t commit, last, durable;
    uint32_t installs; /* a peer's checkpoint is on its way */
};
void core_status_get(const struct core *core, struct core_status *ret_status);

/* Of a node of a cluster: what it knows of the others. */
struct core_peer {
    struct configuration_member id;
    bool member;        /* else a learner */
    bool known;         /* it has acknowledged something in this epoch: what follows counts */
    uint64_t acked;     /* it has everything up to here, durably */
    uint64_t behind;    /* bytes of log that it lacks, as far as the log here tells */
    uint64_t silent_ms; /* since it was last heard of */
};
#define CORE_PEERS_MAX (2 * CONFIGURATION_MEMBERS_MAX)
struct core_cluster {
    bool running;                       /* the log has been read: what follows counts */
    struct configuration configuration; /* the newest that is known; epoch 0: none */
    uint32_t role;                      /* enum group_role */
    bool serves;
    bool member; /* this node is one of the set */
    bool hold;   /* the set is about to change */
    uint64_t applied, commit, last, durable;
    uint64_t leader_commit; /* not leading: what the primary said last is committed */
    uint64_t silent_ms;     /* not leading: since the primary was last heard of */
    uint32_t copies, min_copies;
    uint32_t peer_count; /* leading: the others, learners too */
    struct core_peer peers[CORE_PEERS_MAX];
};
void core_cluster_get(const struct core *core, struct core_cluster *ret_cluster);

/* The state that others may look up between steps (copied out, nothing is lent). */
bool core_region_find(const struct core *core, const char *name, struct shelf_region_info *ret_info);
bool core_region_get(const struct core *core, uint32_t region, struct shelf_region_info *ret_info);
/* Fills up to count_max in order of numbers; returns how many there are. */
size_t core_region_list(const struct core *core, struct shelf_region_info *ret_infos, size_t count_max);

#endif
