// SPDX-License-Identifier: Apache-2.0
/*
 * change.c: the primary changes the set: a silent or slow member goes, a learner that has caught up comes, a member whose
 * directory is new takes its own place.
 *
 *     hold (S1) -> check (S2) -> swap (C3) -> opening record of the new epoch -> go on (S3)
 */
#include "core/group_state.h"

/* What the new set must have durably at least (S2). */
static uint64_t floor_index(const struct group_node *group) {
    if (MUTANT(FLOOR_IS_COMMIT_INDEX)) {
        return group->commit;
    }
    return group->opened ? group->commit : max_u64(group->commit, group->recovered);
}

static bool has_floor(struct group_node *group, const struct configuration_member *member) {
    uint64_t floor = floor_index(group);
    if (MUTANT(NO_FLOOR_CHECK)) {
        return true;
    }
    if (group_is_self(group, member)) {
        if (MUTANT(NO_OWN_FLOOR_CHECK)) {
            return true;
        }
        return group->promised == group->epoch && group->host.log_durable(group->host.context) >= floor;
    }
    const struct group_peer *peer = lead_peer(group, member->node, member->incarnation);
    return peer != NULL && peer->known && peer->acked >= floor;
}

static bool set_has_floor(struct group_node *group, const struct configuration *set) {
    for (uint32_t i = 0; i < set->member_count; i++) {
        if (!has_floor(group, &set->members[i])) {
            return false;
        }
    }
    return true;
}

static void member_remove(struct configuration *set, uint64_t node) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < set->member_count; i++) {
        if (set->members[i].node != node) {
            set->members[kept++] = set->members[i];
        }
    }
    set->member_count = kept;
}

static void member_add(struct configuration *set, const struct configuration_member *member) {
    uint32_t at = set->member_count++;
    for (; at > 0 && set->members[at - 1].node > member->node; at--) {
        set->members[at] = set->members[at - 1];
    }
    set->members[at] = *member;
}

static bool has_node(const struct configuration *set, uint64_t node) {
    for (uint32_t i = 0; i < set->member_count; i++) {
        if (set->members[i].node == node) {
            return true;
        }
    }
    return false;
}

/* A learner that follows, and has what it must have. */
static bool is_ready(struct group_node *group, const struct group_peer *peer) {
    return peer->id.node != 0 && !peer->member && peer->id.node != group->config.node &&
           group->now_ms - peer->heard_ms < 3 * group->config.heartbeat_ms && has_floor(group, &peer->id);
}

/* A member that is silent, or has been behind for long (S4). */
static bool is_lost(const struct group_node *group, const struct group_peer *peer) {
    bool silent = group->now_ms - peer->heard_ms >= group->config.remove_ms;
    bool slow = group->now_ms - peer->even_ms >= 4 * group->config.remove_ms && peer->acked < group->commit;
    return peer->id.node != 0 && peer->member && (silent || slow);
}

/* All at once, since the new set as a whole must pass the check. False: the set is as it should be, or as good as it can be. */
static bool set_wanted(struct group_node *group, struct configuration *wanted) {
    *wanted = group->known;
    wanted->epoch = group->epoch + 1;
    bool changed = false;
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers);
         i++) { /* first those that take their own place again */
        const struct group_peer *peer = &group->peers[i];
        if (is_ready(group, peer) && has_node(wanted, peer->id.node)) {
            member_remove(wanted, peer->id.node);
            member_add(wanted, &peer->id);
            changed = true;
        }
    }
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        const struct group_peer *peer = &group->peers[i];
        bool room = wanted->member_count < min_u64(group->config.copies, CONFIGURATION_MEMBERS_MAX);
        if (is_ready(group, peer) && room && !has_node(wanted, peer->id.node)) {
            member_add(wanted, &peer->id);
            changed = true;
        }
    }
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        const struct group_peer *peer = &group->peers[i];
        bool named = false; /* this very incarnation, still */
        for (uint32_t j = 0; j < wanted->member_count; j++) {
            named |= memcmp(&wanted->members[j], &peer->id, sizeof(peer->id)) == 0;
        }
        if (named && is_lost(group, peer) && wanted->member_count > max_u64(group->config.min_copies, 1)) {
            member_remove(wanted, peer->id.node);
            changed = true;
        }
    }
    return changed;
}

void change_tick(struct group_node *group) {
    struct configuration wanted;
    if (group->swapping || group->promised != group->epoch || group->retires) {
        return;
    }
    bool any = set_wanted(group, &wanted);
    if (group->hold && (!any || group->now_ms - group->hold_ms >= group->config.change_ms)) {
        SOMETIMES(GROUP_HOLD_GIVEN_UP); /* S1: it may be, as nothing was sent */
        group->hold = false;
        lead_commit(group);
        return;
    }
    if (!any) {
        return;
    }
    if (!group->hold) {
        group->hold = true; /* S1 */
        group->hold_ms = group->now_ms;
        if (!MUTANT(NO_HOLD_OF_READS)) {
            lead_read_abort(group);
        }
    }
    if (set_has_floor(group, &wanted) && group->host.log_ready(group->host.context)) { /* S2 */
        group_swap(group, &wanted);
    }
}

/* S3 */
void change_won(struct group_node *group) {
    if (group->wanted.member_count < group->known.member_count) {
        SOMETIMES(GROUP_MEMBER_REMOVED);
    } else if (group->wanted.member_count > group->known.member_count) {
        SOMETIMES(GROUP_MEMBER_ADDED);
    } else {
        SOMETIMES(GROUP_MEMBER_REPLACED);
    }
    if (!group->opened) {
        SOMETIMES(GROUP_CHANGED_BEFORE_OPENING);
    }
    group->known = group->wanted;
    group->epoch = group->known.epoch;
    group_promise_begin(group, group->epoch, 0);
    lead_peers_renew(group);
    group->host.log_open(group->host.context, group->epoch);
    group->opening = group->host.log_last(group->host.context).index;
    group->hold = false;
    lead_commit(group);
    lead_on_appended(group);
}

void change_lost(struct group_node *group) {
    group->hold = false; /* a higher epoch is known now: it steps down, or a planted bug is at work */
}

/* ---- Another primary ---------------------------------------------------------------------------------------------- */

void group_retire(struct group_node *group) {
    group->retires = true;
    if (group->hold && !group->swapping) {
        group->hold = false; /* S1: nothing was sent */
        lead_commit(group);
    }
    if (group->role == GROUP_SUSPECTS || group->role == GROUP_ASKS || group->role == GROUP_FETCHES) {
        group_step_down(group);
    }
}

/* No change of the set, and nothing to be held or checked: nobody leads the epoch of this swap, and the takeover that follows
 * asks r members as any other. The member that is named should have everything, or it would have to fetch it. */
void group_hand_over(struct group_node *group) {
    uint64_t last = group->host.log_last(group->host.context).index;
    const struct group_peer *best = NULL;
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        const struct group_peer *peer = &group->peers[i];
        bool alive = peer->id.node != 0 && peer->member && peer->known &&
                     group->now_ms - peer->heard_ms < 3 * group->config.heartbeat_ms;
        if (alive && peer->acked >= last && (best == NULL || peer->heard_ms > best->heard_ms)) {
            best = peer;
        }
    }
    if (group->role != GROUP_LEADS || group->swapping || best == NULL) {
        return;
    }
    struct configuration wanted = group->known;
    wanted.epoch = group->epoch + 1;
    wanted.primary = best->id.node;
    memset(wanted.nonce, 0, sizeof(wanted.nonce)); /* C2: of no process */
    group_swap(group, &wanted);
}

void group_let_go(struct group_node *group) {
    if (group->role == GROUP_LEADS) {
        group_step_down(group);
    }
}
