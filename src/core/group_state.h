// SPDX-License-Identifier: Apache-2.0
/*
 * group_state.h: what the files of the group share. Private to them.
 *
 *   N1  promised <= promising. Nothing is acknowledged, confirmed or promised for an epoch other than `promised`, and not
 *       for that one while a higher one is on its way to the disk.
 *   N2  A role beyond GROUP_SWAPS goes with an epoch whose swap carried this process's nonce and is known to have been won.
 *   N3  commit never goes back. Every record up to it is in the log, and durably in that of every later primary. (Here it is durable,
 *       too, unless this node is the primary, whose own disk may be the last.)
 */
#ifndef CORE_GROUP_STATE_H
#define CORE_GROUP_STATE_H

#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/mutant.h"
#include "base/sometimes.h"
#include "core/group.h"

/* group.c */
struct peer_message group_message(const struct group_node *group, enum peer_kind kind, uint64_t epoch);
void group_send(struct group_node *group, uint64_t node, const struct peer_message *message);
bool group_is_self(const struct group_node *group, const struct configuration_member *member);
/* The member's place in the newest set, by node and incarnation (rule C4); -1: it is not in it. */
int group_place(const struct group_node *group, uint64_t node, const uint8_t incarnation[16]);
bool group_is_member(const struct group_node *group);
uint32_t group_quorum(const struct group_node *group);       /* q: for commits */
uint32_t group_quorum_other(const struct group_node *group); /* r: for a takeover */
void group_role_set(struct group_node *group, enum group_role role);
void group_promise_begin(struct group_node *group, uint64_t epoch, uint64_t asker);
void group_step_down(struct group_node *group);
void group_look(struct group_node *group);
void group_adopt(struct group_node *group, const struct configuration *present);
/* The register is to hold this one; the end is told to takeover.c or change.c by the role. */
void group_swap(struct group_node *group, const struct configuration *wanted);
struct log_mark group_durable_mark(const struct group_node *group);
void group_commit_set(struct group_node *group, uint64_t index);

/* follow.c */
enum accept {
    ACCEPT_TAKEN,  /* *checked says up to where the logs are equal now */
    ACCEPT_BEHIND, /* the record before it is not here, or another */
    ACCEPT_LATER,  /* the log is busy: again later */
};
enum accept follow_accept(struct group_node *group, const struct peer_message *message, uint64_t *checked);
void follow_on_append(struct group_node *group, const struct peer_message *message);
void follow_on_log(struct group_node *group);
void follow_ack(struct group_node *group, uint16_t flags);
void follow_tick(struct group_node *group);

/* takeover.c */
void takeover_tick(struct group_node *group);
void takeover_on_suspect_ask(struct group_node *group, const struct peer_message *message);
void takeover_on_suspect_answer(struct group_node *group, const struct peer_message *message);
void takeover_won(struct group_node *group);
void takeover_on_promise_ask(struct group_node *group, const struct peer_message *message);
void takeover_on_promise(struct group_node *group, const struct peer_message *message);
void takeover_promise_send(struct group_node *group, uint64_t node);
void takeover_on_fetch(struct group_node *group, const struct peer_message *message);
void takeover_on_fetched(struct group_node *group, const struct peer_message *message);
void takeover_on_log(struct group_node *group);
void takeover_own_promise(struct group_node *group);

/* lead.c */
void lead_begin(struct group_node *group);
void lead_peers_renew(struct group_node *group);
void lead_on_ack(struct group_node *group, const struct peer_message *message);
void lead_on_join(struct group_node *group, const struct peer_message *message);
void lead_on_appended(struct group_node *group);
void lead_commit(struct group_node *group);
void lead_read_abort(struct group_node *group);
void lead_tick(struct group_node *group);
struct group_peer *lead_peer(struct group_node *group, uint64_t node, const uint8_t incarnation[16]);

/* change.c */
void change_tick(struct group_node *group);
void change_won(struct group_node *group);
void change_lost(struct group_node *group);

#endif
