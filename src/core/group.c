// SPDX-License-Identifier: Apache-2.0
/*
 * group.c: the entrance, and what all roles share: messages, promises, the register.
 */
#include "core/group_state.h"

void group_init(struct group_node *group, const struct group_config *config, const struct group_host *host,
                uint64_t promised, uint64_t commit, uint64_t now_ms) {
    *group = (struct group_node){.config = *config,
                                 .host = *host,
                                 .promised = promised,
                                 .promising = promised,
                                 .commit = commit,
                                 .now_ms = now_ms,
                                 .heard_ms = now_ms,
                                 .since_ms = now_ms};
    random_seed(&group->random, config->seed);
    group_look(group);
}

/* ---- Small things ------------------------------------------------------------------------------------------------- */

struct peer_message group_message(const struct group_node *group, enum peer_kind kind, uint64_t epoch) {
    struct peer_message message = {.kind = (uint16_t)kind, .from = group->config.node, .epoch = epoch};
    memcpy(message.incarnation, group->config.incarnation, sizeof(message.incarnation));
    return message;
}

void group_send(struct group_node *group, uint64_t node, const struct peer_message *message) {
    group->host.send(group->host.context, node, message, false);
}

static bool incarnation_is(const struct configuration_member *member, const uint8_t incarnation[16]) {
    return MUTANT(INCARNATION_IGNORED) ||
           memcmp(member->incarnation, incarnation, sizeof(member->incarnation)) == 0;
}

bool group_is_self(const struct group_node *group, const struct configuration_member *member) {
    return member->node == group->config.node && incarnation_is(member, group->config.incarnation);
}

int group_place(const struct group_node *group, uint64_t node, const uint8_t incarnation[16]) {
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        const struct configuration_member *member = &group->known.members[i];
        if (member->node == node && incarnation_is(member, incarnation)) {
            return (int)i;
        }
    }
    return -1;
}

bool group_is_member(const struct group_node *group) {
    return group_place(group, group->config.node, group->config.incarnation) >= 0;
}

uint32_t group_quorum(const struct group_node *group) {
    return group->known.member_count / 2 + 1;
}

uint32_t group_quorum_other(const struct group_node *group) {
    return group->known.member_count - group_quorum(group) + 1;
}

void group_role_set(struct group_node *group, enum group_role role) {
    group->role = role;
    group->since_ms = group->now_ms;
}

struct log_mark group_durable_mark(const struct group_node *group) {
    struct log_mark mark = {0};
    uint64_t durable = group->host.log_durable(group->host.context);
    if (durable > 0 && !group->host.log_mark(group->host.context, durable, &mark)) {
        UNREACHABLE("the last durable record has an epoch");
    }
    return mark;
}

void group_commit_set(struct group_node *group, uint64_t index) {
    if (index > group->commit) { /* N3 */
        group->commit = index;
        group->host.commit(group->host.context, index);
    }
}

/* ---- Promises ----------------------------------------------------------------------------------------------------- */

void group_promise_begin(struct group_node *group, uint64_t epoch, uint64_t asker) {
    if (epoch > group->promising) {
        bool busy = group->promising > group->promised;
        group->promising = epoch;
        group->promise_asker = asker;
        if (!busy) {
            group->host.promise_write(group->host.context, epoch);
        }
    }
    if (MUTANT(PROMISE_BEFORE_DURABLE)) {
        group->promised = group->promising;
    }
}

void group_on_promise(struct group_node *group, uint64_t epoch) {
    if (group->role == GROUP_STOPPED) {
        return;
    }
    group->promised = max_u64(group->promised, epoch);
    if (group->promising > epoch) { /* a higher one came meanwhile */
        group->host.promise_write(group->host.context, group->promising);
        return;
    }
    uint64_t asker = group->promise_asker;
    group->promise_asker = 0;
    if (group->role == GROUP_LEADS) {
        lead_commit(group);
    } else if (group->role == GROUP_ASKS) {
        takeover_own_promise(group);
    } else if (asker != 0) {
        takeover_promise_send(group, asker);
    } else if (group->leader != 0 && group->role != GROUP_FETCHES) {
        follow_ack(group, 0); /* now the primary may send */
    }
}

/* ---- The register ------------------------------------------------------------------------------------------------- */

void group_look(struct group_node *group) {
    group->look_ms = group->now_ms;
    group->host.look(group->host.context);
}

/* Leads no more, or tries no more to. */
void group_step_down(struct group_node *group) {
    bool led = group->role == GROUP_LEADS;
    if (led && MUTANT(PROMISE_WITHOUT_STEPPING_DOWN)) {
        return;
    }
    if (led) {
        SOMETIMES(GROUP_STEPPED_DOWN);
        lead_read_abort(group);
    }
    if (led && group->swapping) {
        SOMETIMES(GROUP_DEPOSED_IN_CHANGE);
    }
    group->swapping = group->swap_unknown = group->hold = false;
    group_role_set(group, GROUP_FOLLOWS);
    group->heard_ms = group->now_ms;
    if (led) {
        group->host.lead_lost(group->host.context);
    }
}

void group_adopt(struct group_node *group, const struct configuration *present) {
    if (present->epoch <= group->known.epoch) {
        return; /* (an older one may be a delayed answer) */
    }
    group->known = *present;
    group->heard_ms = group->now_ms; /* its primary gets its time */
    group->backoff_ms = random_below(&group->random, group->config.suspect_ms);
    group->resigned = false;
    if (group->role == GROUP_LEADS || group->role == GROUP_ASKS || group->role == GROUP_FETCHES) {
        if (present->epoch > group->epoch) {
            group_step_down(group);
        }
    } else if (group->role != GROUP_STOPPED) {
        group->swapping = group->swap_unknown = false;
        group_role_set(group, GROUP_FOLLOWS);
    }
}

void group_swap(struct group_node *group, const struct configuration *wanted) {
    ASSERT(!group->swapping && configuration_problem(wanted) == NULL);
    group->swapping = true;
    group->swap_unknown = false;
    group->wanted = *wanted;
    group->wanted_from = group->known.epoch;
    group->swap_ms = group->now_ms;
    group->host.swap(group->host.context, group->wanted_from, wanted);
}

static void swap_settled(struct group_node *group, bool won, const struct configuration *present) {
    bool change = group->role == GROUP_LEADS;
    group->swapping = group->swap_unknown = false;
    if (won && change && group->wanted.primary != group->config.node && !MUTANT(HANDED_OVER_LEADS_ON)) {
        group_adopt(group, &group->wanted);
        struct peer_message message = group_message(group, PEER_JOIN, group->known.epoch);
        message.commit = group->commit;
        group_send(group, group->known.primary, &message); /* it learns of it at once */
    } else if (won && change) {
        change_won(group);
    } else if (won) {
        group->known = group->wanted;
        takeover_won(group);
    } else {
        if (change) {
            change_lost(group);
        }
        group_adopt(group, present);
    }
}

void group_on_swap(struct group_node *group, enum swap_result result, const struct configuration *present) {
    if (group->role == GROUP_STOPPED) {
        return;
    }
    if (!group->swapping) {
        if (result != SWAP_UNKNOWN) {
            group_adopt(group, present);
        }
        return; /* (one that was given up and is won all the same: then the register names this node) */
    }
    if (result == SWAP_UNKNOWN) {
        SOMETIMES(GROUP_SWAP_UNKNOWN);
        if (MUTANT(UNKNOWN_SWAP_IS_LOST)) {
            bool change = group->role == GROUP_LEADS;
            group->swapping = false;
            if (change) {
                change_lost(group);
            } else {
                group_role_set(group, GROUP_FOLLOWS);
            }
            return;
        }
        group->swap_unknown = true; /* C3: again at a tick */
        if (MUTANT(UNKNOWN_SWAP_IS_WON)) {
            swap_settled(group, true, NULL);
        }
    } else if (present->epoch <= group->wanted_from) {
        group->swap_unknown = true; /* C3: it settles nothing */
    } else if (configuration_equal(present, &group->wanted)) {
        if (result == SWAP_LOST) {
            SOMETIMES(GROUP_SWAP_WON_BEFORE); /* by an earlier try: the nonce is ours */
        }
        swap_settled(group, true, NULL);
    } else {
        swap_settled(group, false, present);
    }
}

void group_on_register(struct group_node *group, const struct configuration *present) {
    if (group->role == GROUP_STOPPED) {
        return;
    }
    if (group->swapping && present->epoch > group->wanted_from) {
        group_on_swap(group, SWAP_LOST, present); /* C3: it is settled */
    } else {
        group_adopt(group, present);
    }
}

/* ---- Messages ----------------------------------------------------------------------------------------------------- */

/* Somebody knows of a later epoch. What it is, the register says. */
static void higher_epoch(struct group_node *group, const struct peer_message *message) {
    bool ours = group->role == GROUP_LEADS || group->role == GROUP_ASKS || group->role == GROUP_FETCHES;
    if (ours && message->epoch > group->epoch) {
        group_step_down(group);
        group_look(group);
    } else if (group->role == GROUP_SWAPS && message->epoch > group->wanted.epoch) {
        group_step_down(group); /* if it is won yet, it is superseded */
        group_look(group);
    } else if (message->epoch > group->known.epoch &&
               group->now_ms - group->look_ms >= group->config.retry_ms) {
        group_look(group);
    }
}

void group_on_message(struct group_node *group, const struct peer_message *message) {
    if (group->role == GROUP_STOPPED || message->from == group->config.node) {
        return;
    }
    higher_epoch(group, message);
    switch ((enum peer_kind)message->kind) {
    case PEER_APPEND:
        follow_on_append(group, message);
        break;
    case PEER_ACK:
        lead_on_ack(group, message);
        break;
    case PEER_JOIN:
        lead_on_join(group, message);
        break;
    case PEER_SUSPECT_ASK:
        takeover_on_suspect_ask(group, message);
        break;
    case PEER_SUSPECT_ANSWER:
        takeover_on_suspect_answer(group, message);
        break;
    case PEER_PROMISE_ASK:
        takeover_on_promise_ask(group, message);
        break;
    case PEER_PROMISE:
        takeover_on_promise(group, message);
        break;
    case PEER_FETCH:
        takeover_on_fetch(group, message);
        break;
    case PEER_FETCHED:
        takeover_on_fetched(group, message);
        break;
    case PEER_HELLO: /* the transport's */
    case PEER_FORWARD:
    case PEER_ANSWER:
    case PEER_OFFER: /* install.c, donate.c */
    case PEER_PART_ASK:
    case PEER_PART:
    case PEER_KIND_END:
        break;
    }
}

/* ---- The log and time --------------------------------------------------------------------------------------------- */

void group_on_log(struct group_node *group) {
    switch (group->role) {
    case GROUP_LEADS:
        lead_commit(group);
        break;
    case GROUP_ASKS:
    case GROUP_FETCHES:
        takeover_on_log(group);
        break;
    case GROUP_FOLLOWS:
    case GROUP_SUSPECTS:
    case GROUP_SWAPS:
        follow_on_log(group);
        break;
    case GROUP_STOPPED:
        break;
    }
}

void group_on_appended(struct group_node *group) {
    if (group->role == GROUP_LEADS) {
        lead_on_appended(group);
    }
}

void group_tick(struct group_node *group, uint64_t now_ms) {
    group->now_ms = max_u64(group->now_ms, now_ms);
    if (group->role == GROUP_STOPPED) {
        return;
    }
    uint64_t swap_age_ms = group->now_ms - group->swap_ms;
    if (group->swapping && swap_age_ms >= (group->swap_unknown ? 1 : 20) * group->config.retry_ms) {
        group->swap_ms = group->now_ms;
        group->swap_unknown = false;
        group->host.swap(group->host.context, group->wanted_from, &group->wanted); /* C3 */
    }
    if (group->role == GROUP_LEADS) {
        lead_tick(group);
    } else {
        follow_tick(group);
        takeover_tick(group);
    }
}

bool group_serves(const struct group_node *group) {
    return group->role == GROUP_LEADS && (group->opened || MUTANT(SERVES_BEFORE_OPENING));
}
