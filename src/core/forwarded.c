// SPDX-License-Identifier: Apache-2.0
/*
 * forwarded.c: requests of programs on other nodes, at the primary. See forward.h; it keeps W1.
 *
 * Under a link every round has one place of the window until the sender says that it is done. What cannot be admitted now is
 * forgotten again, as if it had got lost on the way, and the sender is told so.
 */
#include "core/group_state.h"
#include "core/state.h"

#define LINK_COUNTER_BITS 24u /* of a link; the rest is the first epoch of the leadership */

/* ---- Tokens: place of the forwarder, link, round ------------------------------------------------------------------ */

static uint64_t token_of(const struct core *core, const struct forwarder *forwarder, uint64_t round) {
    return TOKEN_FORWARDED | (uint64_t)(forwarder - core->cluster.forwarders) << 48 |
           (forwarder->link & 0xffffu) << 32 | (round & 0xffffffffu);
}

/* NULL: it has been given up, or the sender has begun a new life. */
static struct forwarded *forwarded_find(struct core *core, uint64_t token, struct forwarder **ret_forwarder) {
    struct forwarder *forwarder = &core->cluster.forwarders[token >> 48 & 0x7fffu];
    struct forwarded *forwarded = &forwarder->window[token % FORWARD_WINDOW];
    *ret_forwarder = forwarder;
    bool pending = forwarder->lead == core->cluster.lead && forwarded->state == FORWARDED_PENDING;
    return pending && token_of(core, forwarder, forwarded->round) == token ? forwarded : NULL;
}

/* ---- Answers ------------------------------------------------------------------------------------------------------ */

static void answer_due(struct forwarder *forwarder, struct forwarded *forwarded) {
    if (!forwarded->due) {
        forwarded->due = true;
        uint32_t last = (forwarder->due_first + forwarder->due_count++) % FORWARD_WINDOW;
        forwarder->due_places[last] = (uint16_t)(forwarded - forwarder->window);
    }
}

void forwarded_reply(struct core *core, const struct reply *reply) {
    struct forwarder *forwarder;
    struct forwarded *forwarded = forwarded_find(core, reply->token, &forwarder);
    bool lead_lost = reply->result == SHELF_UNAVAILABLE || reply->result == SHELF_UNKNOWN;
    if (forwarded == NULL || lead_lost) {
        return; /* K3: the sender asks the next primary */
    }
    forwarded->state = FORWARDED_ANSWERED;
    forwarded->applied = core->applied;
    forwarded->reply = *reply;
    forwarded->reply.token = 0;
    answer_due(forwarder, forwarded);
}

static struct peer_message answer_message(const struct core *core, const uint8_t nonce[16], uint64_t epoch,
                                          uint64_t link) {
    struct peer_message message = group_message(&core->cluster.group, PEER_ANSWER, epoch);
    memcpy(message.nonce, nonce, sizeof(message.nonce));
    message.link = link;
    return message;
}

void forwarded_drop(struct core *core, uint64_t token) {
    struct forwarder *forwarder;
    struct forwarded *forwarded = forwarded_find(core, token, &forwarder);
    if (forwarded != NULL) {
        forwarded->state = FORWARDED_NONE;
        struct peer_message message =
            answer_message(core, forwarder->nonce, forwarded->epoch, forwarder->link);
        message.flags = PEER_FLAG_NO;
        message.round = forwarded->round;
        cluster_letter(core, forwarder->node, &message);
    }
}

static void answers_send(struct core *core, struct forwarder *forwarder) {
    while (forwarder->due_count > 0 && core->effects->message_count < EFFECT_MESSAGES_MAX / 2) {
        struct forwarded *forwarded = &forwarder->window[forwarder->due_places[forwarder->due_first]];
        forwarder->due_first = (forwarder->due_first + 1) % FORWARD_WINDOW;
        forwarder->due_count--;
        forwarded->due = false;
        if (forwarded->state != FORWARDED_ANSWERED) {
            continue; /* done meanwhile */
        }
        struct peer_message message =
            answer_message(core, forwarder->nonce, forwarded->epoch, forwarder->link);
        message.commit = forwarded->applied;
        message.round = forwarded->round;
        message.body = &forwarded->reply;
        message.body_size = sizeof(forwarded->reply);
        cluster_letter(core, forwarder->node, &message);
    }
    core->effects->more |= forwarder->due_count > 0;
}

void forwarded_continue(struct core *core) {
    struct cluster *cluster = &core->cluster;
    for (uint32_t i = 0; i < FORWARDERS_MAX && core->serving; i++) {
        struct forwarder *forwarder = &cluster->forwarders[i];
        if (forwarder->node != 0 && forwarder->lead == cluster->lead && forwarder->due_count > 0) {
            answers_send(core, forwarder);
        }
    }
}

/* ---- Links -------------------------------------------------------------------------------------------------------- */

static struct forwarder *forwarder_of(struct core *core, uint64_t node) {
    struct cluster *cluster = &core->cluster;
    struct forwarder *found = NULL;
    for (uint32_t i = 0; i < FORWARDERS_MAX; i++) {
        struct forwarder *forwarder = &cluster->forwarders[i];
        if (forwarder->node == node) {
            found = forwarder;
            break;
        }
        bool of_no_use = forwarder->node == 0 || forwarder->lead != cluster->lead;
        if (found == NULL && of_no_use) {
            found = forwarder;
        }
    }
    if (found != NULL && (found->node != node || found->lead != cluster->lead)) {
        found->node = node;
        found->lead = cluster->lead;
        found->link = found->offer = found->done = 0;
        found->due_first = found->due_count = 0;
    }
    return found;
}

static void link_offer(struct core *core, struct forwarder *forwarder, const struct peer_message *message) {
    uint64_t link = forwarder->link;
    if (link == 0 || memcmp(forwarder->nonce, message->nonce, sizeof(message->nonce)) != 0) {
        if (forwarder->offer == 0 ||
            memcmp(forwarder->offered, message->nonce, sizeof(message->nonce)) != 0) {
            uint64_t counter = ++core->cluster.link_counter & (((uint64_t)1 << LINK_COUNTER_BITS) - 1);
            forwarder->offer = core->cluster.lead << LINK_COUNTER_BITS | counter;
            memcpy(forwarder->offered, message->nonce, sizeof(message->nonce));
        }
        link = forwarder->offer;
    }
    struct peer_message answer = answer_message(core, message->nonce, message->epoch, link);
    answer.flags = PEER_FLAG_BEHIND;
    cluster_letter(core, message->from, &answer);
}

static void link_take(struct forwarder *forwarder) {
    forwarder->link = forwarder->offer;
    forwarder->offer = 0;
    memcpy(forwarder->nonce, forwarder->offered, sizeof(forwarder->nonce));
    forwarder->done = 0;
    forwarder->due_first = forwarder->due_count = 0;
    for (uint32_t i = 0; i < FORWARD_WINDOW; i++) {
        forwarder->window[i].state = FORWARDED_NONE;
        forwarder->window[i].due = false;
    }
}

static void rounds_done(struct forwarder *forwarder, uint64_t done) {
    uint64_t first =
        done > FORWARD_WINDOW ? max_u64(forwarder->done, done - FORWARD_WINDOW) : forwarder->done;
    for (uint64_t round = first; round < done; round++) {
        forwarder->window[round % FORWARD_WINDOW].state = FORWARDED_NONE;
    }
    forwarder->done = max_u64(forwarder->done, done);
}

/* ---- Requests ----------------------------------------------------------------------------------------------------- */

static void request_admit(struct core *core, const struct peer_message *message, uint64_t token) {
    struct peer_request_parts parts;
    if (cluster_held(core) || core->closing ||
        peer_request_parse(message->body, message->body_size, &parts) != NULL) {
        forwarded_drop(core, token);
        return;
    }
    const struct credentials credentials = {.user = parts.head.user,
                                            .group = parts.head.group,
                                            .group_count = parts.head.group_count,
                                            .groups = parts.groups};
    const struct event event = {.kind = EVENT_SUBMIT,
                                .request = parts.request,
                                .request_size = parts.request_size,
                                .token = token,
                                .credentials = parts.head.flags & PEER_REQUEST_NODE ? NULL : &credentials};
    const struct reader reader = {.index = message->index, .epoch = message->index_epoch};
    core->reader = &reader;
    admit_request(core, &event);
    core->reader = NULL;
    if (core->effects->refused) {
        core->effects->refused = false; /* (that was not about the event) */
        SOMETIMES(FORWARDED_NO_ROOM);
        forwarded_drop(core, token);
    }
}

void forwarded_on_message(struct core *core, const struct peer_message *message) {
    struct cluster *cluster = &core->cluster;
    if (!core->serving || message->epoch < cluster->lead || message->epoch > core->epoch) {
        return; /* W1 */
    }
    struct forwarder *forwarder = forwarder_of(core, message->from);
    if (forwarder == NULL) {
        return;
    }
    if (forwarder->offer != 0 && message->link == forwarder->offer) {
        link_take(forwarder);
    }
    bool linked = message->link == forwarder->link || MUTANT(LINK_IGNORED);
    if (message->link == 0 || !linked) {
        link_offer(core, forwarder, message);
        return;
    }
    rounds_done(forwarder, message->done);
    if (message->round < forwarder->done || message->round >= forwarder->done + FORWARD_WINDOW) {
        return;
    }
    struct forwarded *forwarded = &forwarder->window[message->round % FORWARD_WINDOW];
    if (forwarded->state != FORWARDED_NONE && !MUTANT(FORWARDED_TWICE)) {
        SOMETIMES(FORWARDED_AGAIN);
        forwarded->epoch = max_u64(forwarded->epoch, message->epoch);
        if (forwarded->state == FORWARDED_ANSWERED) {
            answer_due(forwarder, forwarded);
        }
        return;
    }
    forwarded->state = FORWARDED_PENDING;
    forwarded->round = message->round;
    forwarded->epoch = message->epoch;
    uint64_t token = token_of(core, forwarder, message->round);
    if (message->body == NULL) {
        cluster_read_begin(core, token);
    } else {
        request_admit(core, message, token);
    }
}
