// SPDX-License-Identifier: Apache-2.0
/*
 * takeover.c: when the primary is silent, another member takes its place.
 *
 *     FOLLOWS  -> SUSPECTS   nothing was heard of the primary, neither of its epoch nor of its process (T1)
 *     SUSPECTS -> SWAPS      r members, this one included, hear nothing
 *     SWAPS    -> ASKS       the swap is known to be won (T2)
 *     ASKS     -> FETCHES    r promises; the best log is another's (T4)
 *     ASKS, FETCHES -> LEADS with an opening record (T5)
 *
 * And back to FOLLOWS whenever a higher epoch is heard of.
 */
#include "core/group_state.h"

/* ---- Suspicion ---------------------------------------------------------------------------------------------------- */

static bool is_silent(const struct group_node *group) {
    return group->now_ms - group->heard_ms >= group->config.suspect_ms;
}

/* Heartbeats will not come any more, so there is nothing to wait for but others who see the same (T1). What is wrong in that, the next
 * heartbeat mends, and those who are asked deny it. */
void group_on_gone(struct group_node *group, uint64_t node) {
    if (group->role != GROUP_FOLLOWS || node != group->known.primary || !group_is_member(group) ||
        is_silent(group)) {
        return;
    }
    SOMETIMES(CLUSTER_PRIMARY_GONE);
    group->heard_ms = group->now_ms - min_u64(group->now_ms, group->config.suspect_ms);
    group->backoff_ms = random_below(&group->random, group->config.heartbeat_ms);
}

/* The register names this node, but not for what this process does: it led in a former life, or gave up. */
static bool is_named(const struct group_node *group) {
    return group->known.primary == group->config.node && group_is_member(group);
}

/* Who cannot write cannot lead (S4). */
static bool disk_hangs(const struct group_node *group) {
    return group->host.log_last(group->host.context).index > group->host.log_durable(group->host.context) ||
           group->promising > group->promised || !group->host.log_settled(group->host.context);
}

static void suspect_ask(struct group_node *group) {
    group->sent_ms = group->now_ms;
    struct peer_message message = group_message(group, PEER_SUSPECT_ASK, group->known.epoch);
    memcpy(message.nonce, group->known.nonce, sizeof(message.nonce));
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        uint64_t node = group->known.members[i].node;
        if (node != group->config.node && !group->agreed[i]) {
            group_send(group, node, &message);
        }
    }
}

static void swap_begin(struct group_node *group) {
    struct configuration wanted = group->known;
    wanted.epoch++;
    wanted.primary = group->config.node;
    memcpy(wanted.nonce, group->config.nonce, sizeof(wanted.nonce)); /* C2 */
    group_role_set(group, GROUP_SWAPS);
    group_swap(group, &wanted);
    if (MUTANT(ASK_BEFORE_SWAP)) { /* T2 */
        group->known = wanted;
        takeover_won(group);
    }
}

static void suspicion_count(struct group_node *group) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        count += group->agreed[i];
    }
    if (count >= group_quorum_other(group) && !group->swapping) {
        swap_begin(group);
    }
}

static void suspect_begin(struct group_node *group) {
    SOMETIMES(GROUP_SUSPECTED);
    memset(group->agreed, 0, sizeof(group->agreed));
    group->agreed[group_place(group, group->config.node, group->config.incarnation)] = true;
    group_role_set(group, GROUP_SUSPECTS);
    suspect_ask(group);
    suspicion_count(group);
}

void takeover_on_suspect_ask(struct group_node *group, const struct peer_message *message) {
    struct peer_message answer = group_message(group, PEER_SUSPECT_ANSWER, message->epoch);
    memcpy(answer.nonce, message->nonce, sizeof(answer.nonce));
    bool newer = group->known.epoch > message->epoch;
    bool leads = group->role == GROUP_LEADS && group->epoch == message->epoch &&
                 memcmp(message->nonce, group->config.nonce, sizeof(message->nonce)) == 0;
    if (newer || leads || !is_silent(group)) {
        answer.flags = PEER_FLAG_NO;
    }
    group_send(group, message->from, &answer);
}

void takeover_on_suspect_answer(struct group_node *group, const struct peer_message *message) {
    int place = group_place(group, message->from, message->incarnation);
    if (group->role != GROUP_SUSPECTS || message->epoch != group->known.epoch || place < 0 ||
        memcmp(message->nonce, group->known.nonce, sizeof(message->nonce)) != 0) {
        return;
    }
    if (message->flags & PEER_FLAG_NO) {
        SOMETIMES(GROUP_SUSPICION_DENIED);
        group->agreed[place] = false;
        return;
    }
    group->agreed[place] = true;
    suspicion_count(group);
}

/* ---- Promises ----------------------------------------------------------------------------------------------------- */

static void promise_ask(struct group_node *group) {
    group->sent_ms = group->now_ms;
    struct peer_message message = group_message(group, PEER_PROMISE_ASK, group->epoch);
    memcpy(message.nonce, group->config.nonce, sizeof(message.nonce));
    message.configuration = group->known;
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        /* Also those that have answered: it tells them that the candidate lives. */
        if (group->known.members[i].node != group->config.node) {
            group_send(group, group->known.members[i].node, &message);
        }
    }
}

static void promises_forget(struct group_node *group) {
    memset(group->promises, 0, sizeof(group->promises));
    group_role_set(group, GROUP_ASKS);
}

/* N2: the swap with this process's nonce is known to be won. */
void takeover_won(struct group_node *group) {
    SOMETIMES(GROUP_EPOCH_WON);
    group->epoch = group->known.epoch;
    promises_forget(group);
    group_promise_begin(group, group->epoch, 0);
    promise_ask(group);
    takeover_own_promise(group);
}

void takeover_promise_send(struct group_node *group, uint64_t node) {
    struct log_mark last = group_durable_mark(group); /* T3: only durable records */
    struct peer_message message = group_message(group, PEER_PROMISE, group->promised);
    message.commit = group->commit;
    message.last = last.index;
    message.last_epoch = last.epoch;
    group_send(group, node, &message);
}

void takeover_on_promise_ask(struct group_node *group, const struct peer_message *message) {
    bool ours = group->role == GROUP_LEADS || group->role == GROUP_ASKS || group->role == GROUP_FETCHES;
    if (ours && message->epoch <= group->epoch) {
        return;
    }
    group_adopt(
        group,
        &message->configuration); /* T3: it is what the register holds, or held later than what is known */
    if (message->epoch == group->known.epoch) {
        group->heard_ms = group->now_ms;
    }
    if (message->epoch < group->promising) {
        struct peer_message refusal = group_message(group, PEER_PROMISE, group->promised);
        refusal.flags = PEER_FLAG_NO;
        group_send(group, message->from, &refusal);
    } else if (message->epoch > group->promised) {
        if (group->role == GROUP_LEADS) {
            group_step_down(group);
        }
        group_promise_begin(group, message->epoch, message->from); /* answered once it is durable */
        group->promise_asker = message->from;
        if (group->promised >= message->epoch) { /* (only with a planted bug) */
            takeover_promise_send(group, message->from);
        }
    } else {
        takeover_promise_send(group, message->from);
    }
}

static bool mark_is_better(const struct log_mark *a, const struct log_mark *b) {
    if (MUTANT(LONGEST_LOG_WINS)) {
        return a->index > b->index;
    }
    return a->epoch > b->epoch || (a->epoch == b->epoch && a->index > b->index);
}

static void fetch_ask(struct group_node *group) {
    struct log_mark mark = {0};
    group->fetch_ms = group->now_ms;
    if (!group->host.log_mark(group->host.context, group->fetch_checked, &mark)) {
        mark =
            (struct log_mark){.index = group->fetch_checked}; /* trimmed: what was committed needs no check */
    }
    struct peer_message message = group_message(group, PEER_FETCH, group->epoch);
    message.index = group->fetch_checked;
    message.index_epoch = mark.epoch;
    group_send(group, group->known.members[group->source].node, &message);
}

/* T4 */
static void promises_count(struct group_node *group) {
    uint32_t count = 0, best = 0;
    int self = group_place(group, group->config.node, group->config.incarnation);
    if (self < 0 || !group->promises[self].given || group->role != GROUP_ASKS) {
        return;
    }
    best = (uint32_t)self;
    for (uint32_t i = 0; i < group->known.member_count; i++) {
        count += group->promises[i].given;
        if (group->promises[i].given &&
            mark_is_better(&group->promises[i].last, &group->promises[best].last)) {
            best = i;
        }
    }
    if (count < (MUTANT(TOO_FEW_PROMISES) ? 1 : group_quorum_other(group))) {
        return;
    }
    if (best == (uint32_t)self || MUTANT(NO_FETCH)) {
        if (group->host.log_ready(group->host.context)) {
            lead_begin(group);
        }
        return;
    }
    SOMETIMES(GROUP_FETCHED);
    group->source = best;
    group->fetch_checked = group->commit;
    group_role_set(group, GROUP_FETCHES);
    fetch_ask(group);
}

void takeover_own_promise(struct group_node *group) {
    int self = group_place(group, group->config.node, group->config.incarnation);
    if (group->promised == group->epoch && self >= 0 && group->host.log_settled(group->host.context)) {
        group->promises[self] = (struct group_promise){.given = true, .last = group_durable_mark(group)};
        promises_count(group);
    }
}

void takeover_on_promise(struct group_node *group, const struct peer_message *message) {
    int place = group_place(group, message->from, message->incarnation); /* C4 */
    bool ours = (group->role == GROUP_ASKS || group->role == GROUP_FETCHES) && message->epoch == group->epoch;
    if (!ours || place < 0 || (message->flags & PEER_FLAG_NO)) {
        return;
    }
    group->promises[place] =
        (struct group_promise){.given = true,
                               .last = {.index = message->last, .epoch = message->last_epoch},
                               .commit = message->commit};
    takeover_own_promise(group);
}

/* ---- Fetching ----------------------------------------------------------------------------------------------------- */

void takeover_on_fetch(struct group_node *group, const struct peer_message *message) {
    const struct group_host *host = &group->host;
    if (message->epoch != group->promised || group->promising != group->promised) {
        return; /* T4: the promise is checked again */
    }
    struct log_mark mark = {0}, last = group_durable_mark(group);
    struct peer_message answer = group_message(group, PEER_FETCHED, group->promised);
    answer.index = message->index;
    answer.last = last.index;
    answer.last_epoch = last.epoch;
    bool marked = message->index <= last.index && host->log_mark(host->context, message->index, &mark);
    bool far = !marked && message->index < last.index && message->index + 1 >= host->log_first(host->context);
    if (!marked && !far) {
        answer.flags = PEER_FLAG_BEHIND;
        group_send(group, message->from, &answer);
        return;
    }
    answer.index_epoch = mark.epoch;
    host->send(host->context, message->from, &answer, message->index < last.index);
}

/* What the source knows as committed is, and up to `fetch_checked` its log is the own one. (A log that is full of what may be
 * committed or not has no room for more.) */
static void fetch_commit(struct group_node *group) {
    uint64_t known = min_u64(group->promises[group->source].commit, group->fetch_checked);
    group_commit_set(group, min_u64(known, group->host.log_durable(group->host.context)));
}

/* Everything that the best log had is here? */
static void fetch_end(struct group_node *group) {
    fetch_commit(group);
    uint64_t end = group->promises[group->source].last.index;
    if (group->fetch_checked >= end && group->host.log_durable(group->host.context) >= end &&
        group->host.log_ready(group->host.context)) {
        lead_begin(group);
    }
}

void takeover_on_fetched(struct group_node *group, const struct peer_message *message) {
    if (group->role != GROUP_FETCHES || message->epoch != group->epoch ||
        group_place(group, message->from, message->incarnation) != (int)group->source) {
        return;
    }
    if (message->flags & PEER_FLAG_BEHIND) {
        group_step_down(
            group); /* its log does not reach back so far. The node that has it needs nothing: others first */
        group->resigned = true;
        return;
    }
    uint64_t before = group->fetch_checked;
    if (follow_accept(group, message, &group->fetch_checked) == ACCEPT_BEHIND) {
        group->fetch_checked = group->commit; /* what was checked is not there: from the begin */
    }
    if (group->role != GROUP_FETCHES) {
        return;
    }
    fetch_end(group);
    if (group->role == GROUP_FETCHES && group->fetch_checked > before &&
        group->fetch_checked < group->promises[group->source].last.index) {
        fetch_ask(group);
    }
}

void takeover_on_log(struct group_node *group) {
    if (group->role == GROUP_ASKS) {
        takeover_own_promise(group);
        return;
    }
    fetch_end(group);
    if (group->role == GROUP_FETCHES && group->fetch_checked < group->promises[group->source].last.index) {
        fetch_ask(group);
    }
}

/* ---- Time --------------------------------------------------------------------------------------------------------- */

void takeover_tick(struct group_node *group) {
    bool due = group->now_ms - group->sent_ms >= group->config.heartbeat_ms;
    switch (group->role) {
    case GROUP_FOLLOWS:
        if (!group_is_member(group) || disk_hangs(group) || group->retires) {
            break;
        }
        if (is_named(group) && !group->resigned) {
            SOMETIMES(GROUP_NAMED_WITHOUT_LEADING);
            if (MUTANT(LEADS_WITHOUT_SWAP) && group->known.epoch > 1) {
                takeover_won(group);
                break;
            }
            swap_begin(group);
        } else if (group->now_ms - group->heard_ms >=
                   group->config.suspect_ms + group->backoff_ms +
                       (group->resigned ? 4 * group->config.suspect_ms : 0)) {
            suspect_begin(group);
        }
        break;
    case GROUP_SUSPECTS:
        if (!is_silent(group) || group->now_ms - group->since_ms >= group->config.suspect_ms) {
            group->backoff_ms = random_below(&group->random, group->config.suspect_ms);
            group->heard_ms =
                group->now_ms - group->config.suspect_ms; /* still silent; again after the back-off */
            group_role_set(group, GROUP_FOLLOWS);
        } else if (due) {
            suspect_ask(group);
        }
        break;
    case GROUP_ASKS:
        if (group->now_ms - group->since_ms >= 8 * group->config.suspect_ms) {
            group_step_down(group); /* nobody answers; its questions must not keep the others quiet */
            group->resigned = true;
        } else if (due) {
            promise_ask(group);
            takeover_own_promise(group);
        }
        break;
    case GROUP_FETCHES:
        if (due) {
            promise_ask(group);
            fetch_end(group);
            if (group->role == GROUP_LEADS) {
                break;
            }
        }
        if (group->now_ms - group->since_ms >= 4 * group->config.suspect_ms) {
            promises_forget(group); /* the source is gone: any other r will do */
            takeover_own_promise(group);
        } else if (group->now_ms - group->fetch_ms >= group->config.retry_ms) {
            fetch_ask(group);
        }
        break;
    case GROUP_SWAPS:
    case GROUP_LEADS:
    case GROUP_STOPPED:
        break;
    }
}
