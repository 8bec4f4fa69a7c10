// SPDX-License-Identifier: Apache-2.0
/*
 * follow.c: a backup or learner takes what the primary of the promised epoch sends.
 *
 *   F1  `checked` is reset with each epoch, and moves only over records that were compared with that epoch's primary (L2).
 *   F2  What is acknowledged is checked and durable; the effective commit index never passes it (L4).
 *   F3  A suffix goes only where a record that the primary sent differs, and never up to the commit index (L3).
 */
#include "core/group_state.h"

static bool previous_matches(const struct group_node *group, uint64_t index, uint64_t epoch) {
    struct log_mark mark;
    if (MUTANT(NO_PREVIOUS_CHECK)) {
        return index <= group->host.log_last(group->host.context).index;
    }
    if (index <= group->commit) {
        return true; /* N3: every later primary has it */
    }
    return index <= group->host.log_last(group->host.context).index &&
           group->host.log_mark(group->host.context, index, &mark) && mark.epoch == epoch;
}

/* There is a record where the one that was sent belongs. */
static enum accept record_compare(struct group_node *group, const struct peer_message *message,
                                  uint64_t *checked) {
    const struct group_host *host = &group->host;
    uint64_t index = message->index + 1;
    bool same = index <= group->commit || host->log_same(host->context, message->body, message->body_size);
    if (same && !MUTANT(CUT_BY_DUPLICATE)) {
        *checked = max_u64(*checked, index);
        return ACCEPT_TAKEN;
    }
    if (index <= *checked && !MUTANT(CUT_BY_DUPLICATE)) {
        return ACCEPT_LATER; /* no primary says two things in one epoch: not to be believed */
    }
    if (index <= group->commit) { /* F3 (cannot be, but with a planted bug) */
        host->stop(host->context, "a record that was committed is another one on the primary");
        group->role = GROUP_STOPPED;
        return ACCEPT_LATER;
    }
    SOMETIMES(GROUP_SUFFIX_CUT);
    host->log_cut(host->context, message->index); /* L3 */
    return ACCEPT_LATER;
}

enum accept follow_accept(struct group_node *group, const struct peer_message *message, uint64_t *checked) {
    const struct group_host *host = &group->host;
    if (!host->log_settled(host->context)) {
        return ACCEPT_LATER;
    }
    if (!previous_matches(group, message->index, message->index_epoch)) {
        return ACCEPT_BEHIND;
    }
    *checked = max_u64(*checked, message->index);
    if (message->body == NULL) {
        return ACCEPT_TAKEN;
    }
    if (message->index < host->log_last(host->context).index) {
        return record_compare(group, message, checked);
    }
    if (!host->log_receive(host->context, message->body, message->body_size)) {
        return ACCEPT_LATER;
    }
    *checked = message->index + 1;
    return ACCEPT_TAKEN;
}

/* F2 */
static uint64_t acknowledged(const struct group_node *group) {
    uint64_t durable = group->host.log_durable(group->host.context);
    if (MUTANT(ACK_LAST_INDEX)) {
        return durable;
    }
    return MUTANT(ACK_RECEIVED) ? group->checked : min_u64(group->checked, durable);
}

static void commit_follow(struct group_node *group) {
    uint64_t index = min_u64(group->leader_commit, acknowledged(group));
    if (MUTANT(COMMIT_UNCHECKED)) {
        index = min_u64(group->leader_commit, group->host.log_durable(group->host.context));
    }
    group_commit_set(group, index);
}

void follow_ack(struct group_node *group, uint16_t flags) {
    struct log_mark last = group->host.log_last(group->host.context);
    uint64_t epoch =
        MUTANT(ACK_AFTER_PROMISE) && group->leader_epoch != 0 ? group->leader_epoch : group->promised;
    struct peer_message message = group_message(group, PEER_ACK, epoch);
    message.flags = flags;
    message.index = acknowledged(group);
    message.commit = group->commit;
    message.last = last.index;
    message.last_epoch = last.epoch;
    message.round = group->leader_round;
    if (flags & PEER_FLAG_NO) {
        message.index = message.commit = message.last = message.last_epoch = message.round = 0;
    }
    group_send(group, group->leader, &message);
}

/* Is it of the epoch that this node follows, or will from now on? */
static bool epoch_followed(struct group_node *group, const struct peer_message *message) {
    if (message->epoch < group->promising && !MUTANT(OLD_EPOCH_ACCEPTED)) {
        if (message->epoch < group->promised) {
            struct peer_message refusal = group_message(group, PEER_ACK, group->promised);
            refusal.flags = PEER_FLAG_NO;
            group_send(group, message->from, &refusal);
        }
        return false; /* L1 */
    }
    if (message->epoch > group->promised) {
        group->leader = message->from;
        group->leader_epoch = 0; /* the next one begins it; the acknowledgement of the promise asks for it */
        group->leader_commit = group->leader_round = 0;
        group->checked = MUTANT(CHECKED_KEPT) ? group->checked : 0;
        group_promise_begin(group, message->epoch, 0);
        return message->epoch == group->promised; /* (only with a planted bug) */
    }
    return true;
}

void follow_on_append(struct group_node *group, const struct peer_message *message) {
    if (group->role == GROUP_LEADS || group->role == GROUP_ASKS || group->role == GROUP_FETCHES) {
        if (message->epoch < group->epoch) { /* an older primary, which does not know yet */
            struct peer_message refusal = group_message(group, PEER_ACK, group->promised);
            refusal.flags = PEER_FLAG_NO;
            group_send(group, message->from, &refusal);
        }
        return;
    }
    if (message->epoch == group->known.epoch && message->from == group->known.primary &&
        memcmp(message->nonce, group->known.nonce, sizeof(message->nonce)) == 0) { /* T1: this very process */
        group->heard_ms = group->now_ms;
        if (group->role == GROUP_SUSPECTS) {
            group_role_set(group, GROUP_FOLLOWS);
        }
    }
    if (!epoch_followed(group, message)) {
        return;
    }
    if (group->leader_epoch != message->epoch) { /* F1 */
        group->leader_epoch = message->epoch;
        group->leader_commit = 0;
        group->leader_round = 0;
        group->checked = MUTANT(CHECKED_KEPT) ? group->checked : 0;
    }
    group->leader = message->from;
    group->leader_round = max_u64(group->leader_round, message->round);
    enum accept accept = follow_accept(group, message, &group->checked);
    if (group->role == GROUP_STOPPED) {
        return;
    }
    group->leader_commit = max_u64(group->leader_commit, message->commit);
    commit_follow(group);
    follow_ack(group, accept == ACCEPT_BEHIND ? PEER_FLAG_BEHIND : 0);
}

void follow_on_log(struct group_node *group) {
    bool follows = group->leader_epoch == group->promised && group->promising == group->promised &&
                   group->leader_epoch != 0;
    if (follows || (MUTANT(ACK_AFTER_PROMISE) && group->leader_epoch != 0)) { /* N1 */
        commit_follow(group);
        follow_ack(group, 0);
    }
}

void follow_tick(struct group_node *group) {
    bool due = group->now_ms - group->sent_ms >= group->config.heartbeat_ms;
    if (group->known.epoch != 0 && !group_is_member(group) && group->known.primary != group->config.node &&
        due) {
        group->sent_ms = group->now_ms;
        struct peer_message message = group_message(group, PEER_JOIN, group->known.epoch);
        message.commit = group->commit;
        group_send(group, group->known.primary, &message);
    }
    bool silent = group->now_ms - group->heard_ms >= group->config.suspect_ms;
    if ((silent || group->known.epoch == 0) && group->now_ms - group->look_ms >= group->config.suspect_ms) {
        group_look(group); /* it may be another's by now */
    }
}
