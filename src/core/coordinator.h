// SPDX-License-Identifier: Apache-2.0
/*
 * coordinator.h: what a node asks of the coordinator and is told by it: the place where configurations live. It decides who
 * leads a group; it is never on the path of a commit, and it may be down as long as nothing has to change.
 *
 * The coordinator holds registers: a few bytes under a name, with a revision that grows with every change. There is one for
 * the configuration of each group, and one for the address of each node (wire/configuration.h has both encodings; here
 * values are bytes).
 *
 *     ask     a get, a swap or a removal; owned by the asker, who must leave it alone from its start to its answer. Every ask is
 *             answered exactly once, in any order, and never from within the call that started it.
 *     news    a register has changed. They come by themselves from the opening on, first for every register that there is.
 *
 *  A1  A swap is won only by the one ask whose bytes are then in the register under the revision that its answer tells. Of
 *      several swaps that expect the same revision one at most takes effect.
 *  A2  LOST, and the answer of a get, tell a state that the register was in after the ask was started (linearizable). What a
 *      LOST shows may be the asker's own bytes: an earlier swap of unknown outcome came through, or the network repeated this
 *      one. The nonce in the value tells.
 *  A3  UNKNOWN: the swap may have happened, or may yet happen, or not. It is settled only by repeating it until the register's
 *      revision is not the expected one any more (rule C3); a get that shows the old revision settles nothing.
 *  A4  UNAVAILABLE: no effect, now or later; the coordinator cannot be reached, or not in time.
 *  A5  REFUSED: the coordinator answered something that cannot be right (it has gone back in time, it is another one, it sent
 *      garbage), or the ask is not allowed. Nothing is to be concluded, as after UNKNOWN; people have to look.
 *  A6  News of one register never go back and end with its last state; states in between may be left out. When the first
 *      reading of all registers has been told, NEWS_COMPLETE follows, once.
 *  A7  What was seen of a configuration is remembered durably before it is told (struct coordinator_memory), so that a
 *      coordinator that was restored from an old copy is recognised, also after a restart of the node.
 *
 * There are three: etcd and files (src/coordinator), and the simulator's (sim/coordinator.h). They all pass
 * test/unit/test_coordinator.c.
 */
#ifndef CORE_COORDINATOR_H
#define CORE_COORDINATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "wire/coordinator_format.h"
#include "wire/register_format.h"

#define REGISTERS_MAX 128u /* that one cluster may have */

enum register_kind {
    REGISTER_CONFIGURATION = 1, /* number: the group. Never removed */
    REGISTER_NODE,              /* number: the node's id */
};

struct register_id {
    uint32_t kind;
    uint64_t number;
};

struct register_state {
    uint64_t revision; /* 0: there is no such register */
    uint32_t size;
    uint8_t value[REGISTER_VALUE_MAX];
};

enum coordinator_act {
    COORDINATOR_GET = 1,
    COORDINATOR_SWAP,   /* from the revision `expected` (0: there is none) to `value` */
    COORDINATOR_REMOVE, /* the same, to none; only a REGISTER_NODE */
};

enum coordinator_outcome {
    COORDINATOR_OK = 1, /* `state` is what there is, or what the swap made of it */
    COORDINATOR_LOST,   /* the revision was another one; `state` is what there is */
    COORDINATOR_UNKNOWN,
    COORDINATOR_UNAVAILABLE,
    COORDINATOR_REFUSED,
};

struct coordinator_ask {
    uint32_t act;
    uint32_t size; /* SWAP: of the value, from 1 */
    struct register_id id;
    uint64_t expected;
    uint8_t value[REGISTER_VALUE_MAX];

    uint32_t outcome;
    struct register_state state; /* after OK and LOST */

    struct list link; /* the coordinator's own, from start to answer */
};

enum coordinator_news_kind {
    NEWS_CHANGED = 1, /* state.revision 0: it was removed */
    NEWS_COMPLETE,
};

struct coordinator_news {
    uint32_t kind;
    struct register_id id;
    struct register_state state;
};

/* ---- What implementations share ----------------------------------------------------------------------------------- */

static inline bool register_id_same(struct register_id a, struct register_id b) {
    return a.kind == b.kind && a.number == b.number;
}

/* NULL: the ask may be carried out; else why it is REFUSED. */
const char *coordinator_ask_problem(const struct coordinator_ask *ask);

/*
 * The registers as far as they are known here, and what of that has not been told yet. A reading of all registers as of the
 * store's revision `at`: begin (false: it is older than what is known, leave it), set each, end, which removes the others.
 * Between readings, changes in their order, each alone: set or remove; what the last reading has shown already is left out.
 */
struct coordinator_table_entry {
    struct register_id id;
    struct register_state state; /* revision 0: removed, and that is not told yet */
    uint64_t removed_at;
    bool used, told, seen; /* seen: by the reading */
};
struct coordinator_table {
    uint64_t changed_at; /* the newest change here */
    uint64_t read_at;    /* the last reading */
    bool reading, complete, complete_told;
    struct coordinator_table_entry entries[REGISTERS_MAX];
};

bool coordinator_table_begin(struct coordinator_table *table, uint64_t at);
/* False: there are too many registers. ret_changed (may be NULL): was it news? */
bool coordinator_table_set(struct coordinator_table *table, struct register_id id,
                           const struct register_state *state, bool *ret_changed);
void coordinator_table_remove(struct coordinator_table *table, struct register_id id, uint64_t at);
/* Returns whether one was removed. */
bool coordinator_table_end(struct coordinator_table *table, uint64_t at);
bool coordinator_table_news_pending(const struct coordinator_table *table);
/* The next news, the oldest change first. False: there are none. */
bool coordinator_table_news(struct coordinator_table *table, struct coordinator_news *ret_news);

/*
 * How a coordinator that has gone back is recognised. Remembered are the store's identity, its highest revision, and of each
 * configuration: when the register was made, its revision, how many changes that was (its version), and a checksum of it.
 * Every function returns NULL, or what cannot be; then nothing has changed.
 *
 * An answer carries the store's revision `at`. A register that was last changed before what is remembered may be an answer
 * that was under way for long (at < remembered), but not if the store had reached the remembered revision. The same
 * revision with other bytes, a later one with no larger version, or another birth, are another history. (A store that went
 * back, and was then changed more often than anybody here had seen, by nodes that had seen less, looks like a true one.)
 */
/* `floor`: the highest revision known when the ask was started; an honest answer to it is not older. */
const char *coordinator_memory_store(struct coordinator_memory *memory, uint64_t store, uint64_t at,
                                     uint64_t floor);
struct register_history {
    uint64_t created, version; /* revision of its making; count of changes, from 1 */
};
const char *coordinator_memory_register(struct coordinator_memory *memory, struct register_id id,
                                        const struct register_state *state, struct register_history history,
                                        uint64_t at);
/* There is none, though one may be remembered. */
const char *coordinator_memory_absent(const struct coordinator_memory *memory, struct register_id id,
                                      uint64_t at);
/* NULL, or what is wrong with a memory from outside. */
const char *coordinator_memory_problem(const struct coordinator_memory *memory);

#endif
