// SPDX-License-Identifier: Apache-2.0
/*
 * lead.c: the primary: its records go to the others, their acknowledgements make commits.
 *
 *   P1  A record is sent to a peer behind one that the peer has, as far as is known; what it really has, it says itself.
 *   P2  To each peer at most flight_records_max records are under way. A slow one is served later, and slows nobody.
 *       Whom the log does not reach any more, gets a checkpoint: but only once it has said that it does not have what comes
 *       before the log's first record. What it has may be more than what it is known to have (D1).
 *   P3  Acknowledgements count for exactly the epoch and the incarnation of the set (L2, C4).
 */
#include "core/group_state.h"

struct group_peer *lead_peer(struct group_node *group, uint64_t node, const uint8_t incarnation[16]) {
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        struct group_peer *peer = &group->peers[i];
        bool same = MUTANT(INCARNATION_IGNORED) ||
                    memcmp(peer->id.incarnation, incarnation, sizeof(peer->id.incarnation)) == 0;
        if (peer->id.node == node && same) {
            return peer;
        }
    }
    return NULL;
}

static struct group_peer *peer_add(struct group_node *group, const struct configuration_member *id) {
    struct group_peer *peer = lead_peer(group, id->node, id->incarnation);
    for (uint32_t i = 0; peer == NULL && i < ARRAY_COUNT(group->peers); i++) {
        if (group->peers[i].id.node == 0) {
            peer = &group->peers[i];
            *peer = (struct group_peer){
                .id = *id, .heard_ms = group->now_ms, .moved_ms = group->now_ms, .even_ms = group->now_ms};
        }
    }
    return peer;
}

/* After each change of epoch: nothing that was acknowledged before counts any more (L2). */
void lead_peers_renew(struct group_node *group) {
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        struct group_peer *peer = &group->peers[i];
        peer->member = false;
        peer->known = peer->probed = peer->far = false;
        peer->acked = 0;
    }
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        if (!group_is_self(group, &group->known.members[i])) {
            struct group_peer *peer = peer_add(group, &group->known.members[i]);
            ASSERT(peer != NULL); /* learners take at most the other half of the places */
            peer->member = true;
        }
    }
}

/* ---- Sending ------------------------------------------------------------------------------------------------------ */

static struct peer_message append(struct group_node *group, uint64_t index, uint64_t index_epoch) {
    struct peer_message message = group_message(group, PEER_APPEND, group->epoch);
    memcpy(message.nonce, group->config.nonce, sizeof(message.nonce));
    message.index = index;
    message.index_epoch = index_epoch;
    message.commit = group->commit;
    message.round = group->round;
    return message;
}

/* Checks that the peer has what comes before `next`; tells it the commit index. */
static void heartbeat(struct group_node *group, const struct group_peer *peer) {
    struct log_mark mark = {0};
    uint64_t index = peer->known ? peer->next - 1 : 0;
    if (index > 0 && !group->host.log_mark(group->host.context, index, &mark)) {
        index = 0; /* far back */
        mark = (struct log_mark){0};
    }
    struct peer_message message = append(group, index, mark.epoch);
    group_send(group, peer->id.node, &message);
    if (peer->far) {
        message = group_message(group, PEER_OFFER, group->epoch);
        group->host.offer(group->host.context, peer->id.node, &message);
    }
}

/* Of what it is known to have, nothing is in this log any more. */
static void beyond(struct group_node *group, struct group_peer *peer, uint64_t first) {
    if (peer->far || peer->probed) {
        return; /* offers go with heartbeats; or it has not answered yet */
    }
    struct peer_message message = append(group, first - 1, 0);
    group->host.send(group->host.context, peer->id.node, &message, true);
    peer->probed = true;
    peer->far_ms = group->now_ms;
}

static void stream(struct group_node *group, struct group_peer *peer) {
    uint64_t last = group->host.log_last(group->host.context).index;
    struct log_mark mark, next;
    uint64_t flight_max = group->config.flight_records_max;
    if (peer->probed && peer->next >= group->host.log_first(group->host.context)) {
        peer->probed = peer->far = false;
    }
    while (peer->known && peer->next <= last &&
           peer->next <= max_u64(peer->acked, peer->commit) + flight_max) { /* P2 */
        uint64_t before = peer->next - 1;
        if (!group->host.log_mark(group->host.context, before, &mark) ||
            !group->host.log_mark(group->host.context, peer->next, &next)) {
            uint64_t first = group->host.log_first(group->host.context);
            if (peer->next < first) {
                beyond(group, peer, first);
                return;
            }
            mark.epoch = 0; /* it is far back: whoever reads it will know */
        }
        struct peer_message message = append(group, before, mark.epoch);
        group->host.send(group->host.context, peer->id.node, &message, true);
        peer->next++;
    }
}

void lead_on_appended(struct group_node *group) {
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        if (group->peers[i].id.node != 0) {
            stream(group, &group->peers[i]);
        }
    }
}

static void heartbeats(struct group_node *group) {
    group->sent_ms = group->now_ms;
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        if (group->peers[i].id.node != 0) {
            heartbeat(group, &group->peers[i]);
        }
    }
}

/* ---- Commit ------------------------------------------------------------------------------------------------------- */

/* The highest index that q members of the set have durably, as far as they have said so in this epoch (P3). */
static uint64_t quorum_index(struct group_node *group) {
    uint64_t indexes[CONFIGURATION_MEMBERS_MAX] = {0};
    uint32_t count = 0;
    uint64_t durable = group->host.log_durable(group->host.context);
    if (MUTANT(OWN_DISK_NOT_AWAITED)) {
        durable = group->host.log_last(group->host.context).index;
    }
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        const struct configuration_member *member = &group->known.members[i];
        uint64_t index = 0;
        if (group_is_self(group, member)) {
            index = group->promised == group->epoch || MUTANT(PROMISE_WITHOUT_STEPPING_DOWN)
                        ? durable
                        : 0; /* L1 holds for its own disk, too */
        } else {
            const struct group_peer *peer = lead_peer(group, member->node, member->incarnation);
            index = peer != NULL ? peer->acked : 0;
        }
        uint32_t at = count++;
        for (; at > 0 && indexes[at - 1] < index; at--) {
            indexes[at] = indexes[at - 1];
        }
        indexes[at] = index;
    }
    uint32_t quorum = MUTANT(QUORUM_TOO_SMALL) && count > 1 ? group_quorum(group) - 1 : group_quorum(group);
    return indexes[quorum - 1];
}

/* L4: q members have a record of the current epoch, or one before it. */
void lead_commit(struct group_node *group) {
    uint64_t index = quorum_index(group);
    bool held = group->hold && !MUTANT(NO_HOLD); /* S1 */
    bool current = index >= group->opening || MUTANT(COMMIT_OLD_EPOCH);
    if (held || !current || index <= group->commit) {
        return;
    }
    group_commit_set(group,
                     index); /* <- THE COMMIT. Nowhere else is a record of a cluster declared committed. */
    if (!group->opened && index >= group->opening) {
        SOMETIMES(GROUP_OPENED);
        group->opened = true; /* T5 */
    }
    heartbeats(group); /* they learn of it at once */
    lead_on_appended(group);
}

/* ---- Reading ------------------------------------------------------------------------------------------------------ */

void lead_read_abort(struct group_node *group) {
    if (group->round > group->round_confirmed) {
        SOMETIMES(GROUP_READ_ABORTED);
        uint64_t round = group->round;
        group->round_confirmed = round;
        group->host.read_answer(group->host.context, round, 0, false);
    }
}

static void read_count(struct group_node *group) {
    uint32_t count = 0;
    if (group->round == group->round_confirmed) {
        return;
    }
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        const struct configuration_member *member = &group->known.members[i];
        const struct group_peer *peer = lead_peer(group, member->node, member->incarnation);
        bool self = group_is_self(group, member);
        count += self ? group->promised == group->epoch && group->promising == group->epoch
                      : peer != NULL && peer->round == group->round;
    }
    if (count >= group_quorum(group) || MUTANT(READ_UNCONFIRMED)) {
        SOMETIMES(GROUP_READ_CONFIRMED);
        group->round_confirmed = group->round;
        group->host.read_answer(group->host.context, group->round, group->round_index, true);
    }
}

uint64_t group_read(struct group_node *group) {
    if (!group_serves(group) || (group->hold && !MUTANT(NO_HOLD_OF_READS))) {
        return 0;
    }
    group->round++; /* R1: a fresh one */
    group->round_index = group->commit;
    heartbeats(group);
    uint64_t round = group->round;
    read_count(group); /* a set of one */
    return round;
}

/* ---- Acknowledgements --------------------------------------------------------------------------------------------- */

void lead_on_ack(struct group_node *group, const struct peer_message *message) {
    struct group_peer *peer = lead_peer(group, message->from, message->incarnation);
    bool current = message->epoch == group->epoch || MUTANT(ACK_OF_ANY_EPOCH);
    if (group->role != GROUP_LEADS || !current || peer == NULL || (message->flags & PEER_FLAG_NO)) {
        return; /* P3 */
    }
    struct log_mark last = group->host.log_last(group->host.context);
    if (message->commit > last.index || message->index > last.index) {
        return; /* not to be believed */
    }
    peer->heard_ms = group->now_ms;
    peer->commit = max_u64(peer->commit, message->commit);
    peer->next = max_u64(peer->next, peer->commit + 1);
    if (!peer->known) {
        peer->known = true;
        peer->next = max_u64(message->index, message->commit) + 1;
        peer->moved_ms = group->now_ms;
    }
    if (message->index > peer->acked) {
        peer->acked = message->index;
        peer->next = max_u64(peer->next, peer->acked + 1);
        peer->moved_ms = group->now_ms;
        peer->probed = peer->far = false;
    }
    if (peer->acked >= group->commit) {
        peer->even_ms = group->now_ms;
    }
    if (message->flags & PEER_FLAG_BEHIND) {
        SOMETIMES(GROUP_PEER_BEHIND);
        peer->next = max_u64(peer->acked, peer->commit) + 1;
        peer->moved_ms = group->now_ms;
        if (peer->probed && !peer->far) {
            SOMETIMES(GROUP_PEER_FAR);
            peer->far = true;
            peer->far_ms = group->now_ms;
        }
    }
    peer->round = MUTANT(ANY_ROUND_CONFIRMS) && message->round > 0 ? group->round
                                                                   : max_u64(peer->round, message->round);
    read_count(group);
    lead_commit(group);
    stream(group, peer);
}

void lead_on_join(struct group_node *group, const struct peer_message *message) {
    if (group->role != GROUP_LEADS) {
        return;
    }
    uint32_t learners = 0;
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        learners += group->peers[i].id.node != 0 && !group->peers[i].member;
    }
    struct configuration_member id = {.node = message->from};
    memcpy(id.incarnation, message->incarnation, sizeof(id.incarnation));
    if (lead_peer(group, id.node, id.incarnation) == NULL && learners < CONFIGURATION_MEMBERS_MAX) {
        SOMETIMES(GROUP_LEARNER_JOINED);
        peer_add(group, &id);
    }
}

/* ---- Begin and time ----------------------------------------------------------------------------------------------- */

void lead_begin(struct group_node *group) {
    group_role_set(group, GROUP_LEADS);
    group->opened = group->hold = false;
    group->recovered = group->host.log_last(group->host.context).index;
    group->host.log_open(group->host.context, group->epoch); /* T5 */
    group->opening = group->host.log_last(group->host.context).index;
    group->round_confirmed = group->round;
    group->durable_seen = 0;
    group->durable_ms = group->now_ms;
    memset(group->peers, 0, sizeof(group->peers));
    lead_peers_renew(group);
    heartbeats(group);
    lead_commit(group);
}

static bool disk_hangs(struct group_node *group) {
    uint64_t durable = group->host.log_durable(group->host.context);
    if (durable != group->durable_seen || durable == group->host.log_last(group->host.context).index) {
        group->durable_seen = durable;
        group->durable_ms = group->now_ms;
    }
    return group->now_ms - group->durable_ms >= group->config.disk_ms;
}

static void peers_tick(struct group_node *group) {
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        struct group_peer *peer = &group->peers[i];
        if (peer->id.node == 0) {
            continue;
        }
        if (!peer->member && group->now_ms - peer->heard_ms >= 2 * group->config.remove_ms) {
            *peer = (struct group_peer){0}; /* it joins again when it is back */
            continue;
        }
        if (peer->known && peer->next > peer->acked + 1 &&
            group->now_ms - peer->moved_ms >= group->config.retry_ms) {
            peer->next = max_u64(peer->acked, peer->commit) + 1; /* something got lost */
            peer->moved_ms = group->now_ms;
        }
        uint64_t patience_ms = peer->far ? group->config.remove_ms : group->config.retry_ms;
        if (peer->probed && group->now_ms - peer->far_ms >= patience_ms) {
            peer->probed = peer->far = false; /* once more: it may have answered something else */
        }
        stream(group, peer);
    }
}

/* Its messages may arrive and keep others quiet, while theirs do not. */
static bool is_deaf(struct group_node *group) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        const struct configuration_member *member = &group->known.members[i];
        const struct group_peer *peer = lead_peer(group, member->node, member->incarnation);
        count += group_is_self(group, member) ||
                 (peer != NULL && group->now_ms - peer->heard_ms < 4 * group->config.remove_ms);
    }
    return count < group_quorum(group) && !group->swapping;
}

void lead_tick(struct group_node *group) {
    if (disk_hangs(group) || is_deaf(group)) { /* S4 */
        SOMETIMES(GROUP_RESIGNED);
        group_step_down(group);
        group->resigned = true;
        return;
    }
    if (group->now_ms - group->sent_ms >= group->config.heartbeat_ms) {
        heartbeats(group);
    }
    peers_tick(group);
    lead_commit(group);
    change_tick(group);
}
