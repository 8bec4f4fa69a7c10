// SPDX-License-Identifier: Apache-2.0
/*
 * forward.c: requests of this node's programs, until they are settled. See forward.h.
 *
 *     QUEUED --> SENT --> ANSWERED --> told
 *        \         \
 *         +---------+--> ADMITTED (this node leads) --> told
 *                            \--> QUEUED (the lead is lost)
 */
#include "core/group_state.h"
#include "core/state.h"

#define LINK_OWN UINT64_MAX /* in `sent_link`: this node's own leadership has appended it */

/* ---- Bytes of requests -------------------------------------------------------------------------------------------- */

struct block { /* before each body */
    uint64_t size;
    uint64_t taken;
};
#define BLOCK_ALIGNMENT 64u

static struct block *block_at(const struct forwarding *forwarding, uint64_t place) {
    return (struct block *)(forwarding->bytes + place);
}

static void block_mark(struct forwarding *forwarding, uint64_t size, bool taken) {
    *block_at(forwarding, forwarding->head) = (struct block){.size = size, .taken = taken};
    forwarding->head = (forwarding->head + size) % FORWARD_BYTES;
    forwarding->used += size;
}

static bool block_take(struct forwarding *forwarding, size_t body_size, uint64_t *ret_place) {
    uint64_t size = align_up(sizeof(struct block) + body_size, BLOCK_ALIGNMENT);
    if (forwarding->used == 0) {
        forwarding->head = forwarding->tail = 0;
    }
    bool wrapped = forwarding->used > 0 && forwarding->head <= forwarding->tail;
    uint64_t room = (wrapped ? forwarding->tail : FORWARD_BYTES) - forwarding->head;
    if (size > room && !wrapped && size <= forwarding->tail) {
        block_mark(forwarding, room, false); /* from the begin again */
        room = forwarding->tail;
    }
    if (size > room) {
        return false;
    }
    *ret_place = forwarding->head;
    block_mark(forwarding, size, true);
    return true;
}

static void block_give(struct forwarding *forwarding, uint64_t place) {
    block_at(forwarding, place)->taken = false;
    while (forwarding->used > 0 && !block_at(forwarding, forwarding->tail)->taken) {
        uint64_t size = block_at(forwarding, forwarding->tail)->size;
        forwarding->tail = (forwarding->tail + size) % FORWARD_BYTES;
        forwarding->used -= size;
    }
}

static const uint8_t *body_of(const struct forwarding *forwarding, const struct forward *forward) {
    return forwarding->bytes + forward->place + sizeof(struct block);
}

/* ---- Taking and giving -------------------------------------------------------------------------------------------- */

void forward_init(struct core *core) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    list_init(&forwarding->free);
    list_init(&forwarding->queued);
    list_init(&forwarding->answered);
    for (uint32_t i = 0; i < FORWARDS_MAX; i++) {
        list_push_back(&forwarding->free, &forwarding->forwards[i].link);
    }
    forwarding->done = forwarding->next = 1;
}

/* The same place is taken again soon, so that only as much memory is touched as is needed. */
static struct forward *forward_take(struct core *core, uint64_t token, size_t body_size) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    uint64_t place = 0;
    if (list_is_empty(&forwarding->free) || (body_size > 0 && !block_take(forwarding, body_size, &place))) {
        SOMETIMES(FORWARD_NO_ROOM);
        return NULL; /* W6 */
    }
    struct forward *forward = LIST_ENTRY(list_pop_front(&forwarding->free), struct forward, link);
    *forward = (struct forward){.generation = forward->generation + 1,
                                .token = token,
                                .place = place,
                                .body_size = body_size,
                                .begin_ms = core->cluster.now_ms};
    list_init(&forward->link);
    return forward;
}

static void round_done(struct forwarding *forwarding, struct forward *forward) {
    if (forward->round == 0) {
        return;
    }
    forwarding->rounds[forward->round % FORWARD_WINDOW] = NULL;
    forward->round = 0;
    while (forwarding->done < forwarding->next &&
           forwarding->rounds[forwarding->done % FORWARD_WINDOW] == NULL) {
        forwarding->done++;
    }
}

static void bytes_give(struct forwarding *forwarding, struct forward *forward) {
    if (forward->body_size > 0) {
        block_give(forwarding, forward->place);
        forward->body_size = 0;
    }
}

static void forward_give(struct core *core, struct forward *forward) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    round_done(forwarding, forward);
    bytes_give(forwarding, forward);
    list_unlink(&forward->link);
    forward->state = FORWARD_FREE;
    list_push_front(&forwarding->free, &forward->link);
}

static void forward_queue(struct core *core, struct forward *forward) {
    round_done(&core->cluster.forwarding, forward);
    forward->state = FORWARD_QUEUED;
    list_unlink(&forward->link);
    list_push_back(&core->cluster.forwarding.queued, &forward->link);
}

/* W4: told in forward_continue(). */
static void settle(struct core *core, struct forward *forward, const struct reply *reply, uint64_t applied) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    forward->reply = *reply;
    forward->reply.token = forward->token;
    forward->applied = MUTANT(ANSWERED_BEFORE_APPLIED) ? 0 : applied;
    forward->state = FORWARD_ANSWERED;
    round_done(forwarding, forward);
    bytes_give(forwarding, forward);
    list_unlink(&forward->link);
    list_push_back(&forwarding->answered, &forward->link);
}

/* What nobody can have done is UNAVAILABLE, what somebody may have done UNKNOWN. */
static void settle_unanswered(struct core *core, struct forward *forward) {
    bool nothing = forward->reads || forward->sent_link == 0;
    const struct reply reply = {.result = nothing ? SHELF_UNAVAILABLE : SHELF_UNKNOWN,
                                .reason = nothing ? REASON_NOT_PRIMARY : REASON_PRIMARY_LOST};
    if (!nothing) {
        SOMETIMES(FORWARD_UNKNOWN);
    }
    settle(core, forward, &reply, 0);
}

/* ---- Admission on this node --------------------------------------------------------------------------------------- */

static uint64_t own_token(const struct core *core, const struct forward *forward) {
    return (uint64_t)(forward->generation & 0x7fffffffu) << 32 |
           (uint64_t)(forward - core->cluster.forwarding.forwards);
}

/* False: not now. */
static bool admit(struct core *core, struct forward *forward) {
    struct peer_request_parts parts;
    const char *problem =
        peer_request_parse(body_of(&core->cluster.forwarding, forward), forward->body_size, &parts);
    ASSERT(problem == NULL); /* it was built here */
    const struct credentials credentials = {.user = parts.head.user,
                                            .group = parts.head.group,
                                            .group_count = parts.head.group_count,
                                            .groups = parts.groups};
    const struct event event = {.kind = EVENT_SUBMIT,
                                .request = parts.request,
                                .request_size = parts.request_size,
                                .token = own_token(core, forward),
                                .credentials = parts.head.flags & PEER_REQUEST_NODE ? NULL : &credentials};
    list_unlink(&forward->link);
    round_done(&core->cluster.forwarding, forward);
    forward->state = FORWARD_ADMITTED;
    admit_request(core, &event);
    return !core->effects->refused;
}

bool forward_reply(struct core *core, struct reply *reply) {
    if (!core->cluster.on) {
        return true;
    }
    if (reply->token & TOKEN_FORWARDED) {
        forwarded_reply(core, reply);
        return false;
    }
    struct forward *forward = &core->cluster.forwarding.forwards[reply->token & 0xffffffffu];
    ASSERT(forward->state == FORWARD_ADMITTED && own_token(core, forward) == reply->token);
    if (reply->result == SHELF_UNAVAILABLE && reply->reason == REASON_NOT_PRIMARY) {
        SOMETIMES(FORWARD_OF_OLD_PRIMARY);
        forward_queue(core, forward); /* W5 */
        return false;
    }
    if (reply->result == SHELF_UNKNOWN && reply->reason == REASON_PRIMARY_LOST && forward->twice) {
        SOMETIMES(FORWARD_APPENDED_BEFORE);
        forward->sent_link = LINK_OWN; /* W5: what was appended here may be in the next primary's log */
        forward_queue(core, forward);
        return false;
    }
    reply->token = forward->token;
    forward_give(core, forward);
    return true;
}

uint32_t forward_replies(struct core *core, struct reply *replies, uint32_t count) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (forward_reply(core, &replies[i])) {
            replies[left] = replies[i];
            left++;
        }
    }
    return left;
}

/* ---- Programs ----------------------------------------------------------------------------------------------------- */

static size_t body_write(uint8_t *body, const struct event *event, uint32_t group_count) {
    const struct credentials *credentials = event->credentials;
    struct peer_request head = {.group_count = group_count};
    if (credentials != NULL) {
        head.user = credentials->user;
        head.group = credentials->group;
    } else {
        head.flags = PEER_REQUEST_NODE;
    }
    size_t groups_size = align_up(group_count * sizeof(uint32_t), 8);
    if (body != NULL) {
        memcpy(body, &head, sizeof(head));
        memset(body + sizeof(head), 0, groups_size);
        if (group_count > 0) {
            memcpy(body + sizeof(head), credentials->groups, group_count * sizeof(uint32_t));
        }
        memcpy(body + sizeof(head) + groups_size, event->request, event->request_size);
    }
    return sizeof(head) + groups_size + event->request_size;
}

/* W2 */
static void request_classify(const struct core *core, const struct event *event, struct forward *forward) {
    struct request_header header;
    memcpy(&header, event->request, sizeof(header));
    forward->twice = header.kind < REQUEST_REGION_CREATE || header.kind > REQUEST_REGION_ACCESS;
    struct commit_request head;
    if (header.kind == REQUEST_COMMIT && event->request_size >= sizeof(head)) {
        memcpy(&head, event->request, sizeof(head));
        forward->other_life = head.line_count > 0 &&
                              (head.index > core->applied ||
                               head.epoch != atomic_load_explicit(&core->image->epoch, memory_order_relaxed));
    }
}

static void request_take(struct core *core, const struct event *event) {
    uint32_t group_count = event->credentials ? event->credentials->group_count : 0;
    size_t size = body_write(NULL, event, group_count);
    if (group_count > PEER_GROUPS_MAX || size + sizeof(struct block) > FORWARD_BYTES) {
        core_reply_direct(core, event->token, SHELF_TOO_LARGE, REASON_REQUEST_TOO_LARGE);
        return;
    }
    struct forward *forward = forward_take(core, event->token, size);
    if (forward == NULL) {
        core->effects->refused = true;
        return;
    }
    (void)body_write(core->cluster.forwarding.bytes + forward->place + sizeof(struct block), event,
                     group_count);
    request_classify(core, event, forward);
    if (!core->serving) {
        forward_queue(core, forward);
    } else if (!admit(core, forward)) {
        forward_give(core, forward);
    }
}

void forward_submit(struct core *core, const struct event *event) {
    struct request_header header = {0};
    if (event->request_size >= sizeof(header)) {
        memcpy(&header, event->request, sizeof(header));
    }
    if (!core->cluster.running) {
        core_reply_direct(core, event->token, SHELF_UNAVAILABLE, REASON_NODE_NOT_READY);
    } else if (header.size != event->request_size || header.size > REQUEST_BYTES_MAX) {
        core_reply_direct(core, event->token, SHELF_INVALID, REASON_REQUEST_MALFORMED);
    } else if (core->serving && cluster_held(core)) {
        core->effects->refused = true;
    } else {
        request_take(core, event);
    }
}

void forward_read(struct core *core, uint64_t token) {
    struct forward *forward = forward_take(core, token, 0);
    if (forward == NULL) {
        core_reply_direct(core, token, SHELF_UNAVAILABLE, REASON_NOT_PRIMARY);
        return;
    }
    forward->reads = forward->twice = true;
    forward_queue(core, forward);
}

/* ---- To the primary ----------------------------------------------------------------------------------------------- */

static void all_due(struct forwarding *forwarding) {
    for (uint64_t round = forwarding->done; round < forwarding->next; round++) {
        struct forward *forward = forwarding->rounds[round % FORWARD_WINDOW];
        if (forward != NULL) {
            forward->due = forwarding->due = true;
        }
    }
}

/* Who leads, as far as is known here. */
static void primary_look(struct core *core) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    const struct group_node *group = &core->cluster.group;
    bool followed = group->leader != 0 && group->leader_epoch >= group->known.epoch;
    uint64_t primary = followed ? group->leader : group->known.primary;
    uint64_t epoch = followed ? group->leader_epoch : group->known.epoch;
    if (epoch <= forwarding->epoch) {
        return; /* never back */
    }
    if (primary != forwarding->primary) {
        forwarding->link = 0;
    }
    forwarding->primary = primary;
    forwarding->epoch = epoch;
    forwarding->asked_ms = 0;
    all_due(forwarding);
}

static bool letter_room(const struct core *core) {
    return core->effects->message_count < EFFECT_MESSAGES_MAX / 2; /* the rest is the group's */
}

static struct peer_message forward_message(const struct core *core) {
    const struct forwarding *forwarding = &core->cluster.forwarding;
    const struct group_node *group = &core->cluster.group;
    struct peer_message message = group_message(group, PEER_FORWARD, forwarding->epoch);
    memcpy(message.nonce, group->config.nonce, sizeof(message.nonce));
    message.link = forwarding->link;
    message.done = forwarding->done;
    return message;
}

static void forward_send(struct core *core, struct forward *forward) {
    const struct forwarding *forwarding = &core->cluster.forwarding;
    struct peer_message message = forward_message(core);
    message.round = forward->round;
    if (!forward->other_life && core->applied > 0) {
        message.index = core->applied;
        message.index_epoch = core->applied_identity.epoch;
    }
    if (!forward->reads) {
        message.body = body_of(forwarding, forward);
        message.body_size = forward->body_size;
    }
    cluster_letter(core, forwarding->primary, &message);
    if (forward->sent_link != 0 && forward->sent_link != forwarding->link) {
        SOMETIMES(FORWARD_RESENT);
    }
    forward->due = false;
    forward->sent_link = forwarding->link;
    forward->sent_epoch = forwarding->epoch;
    forward->sent_ms = core->cluster.now_ms;
}

static void window_fill(struct core *core) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    while (!list_is_empty(&forwarding->queued) && forwarding->next - forwarding->done < FORWARD_WINDOW) {
        struct forward *forward = LIST_ENTRY(list_pop_front(&forwarding->queued), struct forward, link);
        forward->round = forwarding->next++;
        forwarding->rounds[forward->round % FORWARD_WINDOW] = forward;
        forward->state = FORWARD_SENT;
        forward->due = forwarding->due = true;
    }
}

static void window_send(struct core *core) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    const struct group_node *group = &core->cluster.group;
    if (forwarding->primary == 0 || forwarding->primary == group->config.node || !forwarding->due) {
        return;
    }
    if (forwarding->link == 0) { /* an empty one asks for the link */
        if (forwarding->asked_ms == 0 ||
            core->cluster.now_ms - forwarding->asked_ms >= group->config.retry_ms) {
            const struct peer_message message = forward_message(core);
            cluster_letter(core, forwarding->primary, &message);
            forwarding->asked_ms = core->cluster.now_ms;
        }
        return;
    }
    forwarding->due = false;
    for (uint64_t round = forwarding->done; round < forwarding->next; round++) {
        struct forward *forward = forwarding->rounds[round % FORWARD_WINDOW];
        if (forward != NULL && forward->due && letter_room(core)) {
            forward_send(core, forward);
        } else if (forward != NULL && forward->due) {
            forwarding->due = core->effects->more = true;
        }
    }
}

/* W2 */
static void link_set(struct core *core, uint64_t link) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    forwarding->link = link;
    for (uint64_t round = forwarding->done; round < forwarding->next; round++) {
        struct forward *forward = forwarding->rounds[round % FORWARD_WINDOW];
        if (forward == NULL) {
            continue;
        }
        bool lost = forward->sent_link != 0 && forward->sent_link != link;
        if (lost && !forward->twice && !MUTANT(CATALOG_SENT_AGAIN)) {
            settle_unanswered(core, forward);
        } else {
            forward->due = forwarding->due = true;
        }
    }
}

void forward_on_answer(struct core *core, const struct peer_message *message) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    const uint8_t *nonce = core->cluster.group.config.nonce;
    if (memcmp(message->nonce, nonce, sizeof(message->nonce)) != 0) {
        return; /* to an earlier life */
    }
    if (message->flags & PEER_FLAG_BEHIND) {
        if (message->from == forwarding->primary && message->epoch == forwarding->epoch &&
            message->link != forwarding->link) {
            link_set(core, message->link);
        }
        return;
    }
    struct forward *forward = forwarding->rounds[message->round % FORWARD_WINDOW];
    if (forward == NULL || forward->round != message->round) {
        return;
    }
    struct reply reply = {0};
    if (message->body != NULL) {
        memcpy(&reply, message->body, sizeof(reply));
    }
    bool old = message->link != forward->sent_link || message->epoch < forward->sent_epoch;
    if (old && !MUTANT(OLD_REFUSAL_TAKEN)) { /* W3 */
        SOMETIMES(FORWARD_OLD_ANSWER_IGNORED);
        return;
    }
    if (message->flags & PEER_FLAG_NO) { /* there was no room for it */
        forward->sent_ms = 0;            /* again at the next tick */
        return;
    }
    if (message->commit > core->applied) {
        SOMETIMES(FORWARD_WAITED_FOR_APPLIED);
    }
    settle(core, forward, &reply, message->commit);
}

/* ---- What goes on ------------------------------------------------------------------------------------------------- */

static bool replies_room(struct core *core) {
    bool ours = core->effects->reply_count == 0 || core->effects->replies == core->immediate;
    bool room = ours && core->effects->reply_count < ARRAY_COUNT(core->immediate);
    core->effects->more |= !room;
    return room;
}

/* This node leads now: what waits is for itself to admit. False: not all of it now. */
static bool self_admit(struct core *core, struct forward *forward) {
    if (cluster_held(core) || !replies_room(core)) {
        return false;
    }
    if (forward->sent_link != 0 && !forward->twice) { /* W2 */
        settle_unanswered(core, forward);
    } else if (forward->reads) {
        uint64_t token = forward->token;
        forward_give(core, forward);
        cluster_read_begin(core, token);
    } else {
        bool refused = core->effects->refused; /* that is about the event */
        core->effects->refused = false;
        bool admitted = admit(core, forward);
        core->effects->refused = refused;
        if (!admitted) {
            forward_queue(core, forward);
            return false;
        }
        SOMETIMES(FORWARD_TO_SELF);
    }
    return true;
}

static void self_admit_all(struct core *core) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    bool goes_on = true;
    for (uint64_t round = forwarding->done; round < forwarding->next && goes_on; round++) {
        struct forward *forward = forwarding->rounds[round % FORWARD_WINDOW];
        goes_on = forward == NULL || self_admit(core, forward);
    }
    while (goes_on && !list_is_empty(&forwarding->queued)) {
        goes_on = self_admit(core, LIST_ENTRY(list_first(&forwarding->queued), struct forward, link));
    }
}

static void answered_tell(struct core *core) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    LIST_FOREACH(link, &forwarding->answered) {
        struct forward *forward = LIST_ENTRY(link, struct forward, link);
        if (forward->applied > core->applied) {
            continue;
        }
        if (!replies_room(core)) {
            return;
        }
        core_reply_out(core, &forward->reply);
        forward_give(core, forward);
    }
}

void forward_continue(struct core *core) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    bool waits = forwarding->done < forwarding->next || !list_is_empty(&forwarding->queued);
    if (waits && core->serving) {
        self_admit_all(core);
    } else if (waits && !core->cluster.leading && core->cluster.abdication == ABDICATION_NONE) {
        primary_look(core);
        window_fill(core);
        window_send(core);
    }
    if (!list_is_empty(&forwarding->answered)) {
        answered_tell(core);
    }
}

void forward_tick(struct core *core) {
    struct forwarding *forwarding = &core->cluster.forwarding;
    const uint64_t now_ms = core->cluster.now_ms;
    const uint64_t wait_ms = core->config.forward_ms > 0 ? core->config.forward_ms : FORWARD_MS;
    for (uint64_t round = forwarding->done; round < forwarding->next; round++) {
        struct forward *forward = forwarding->rounds[round % FORWARD_WINDOW];
        if (forward != NULL && now_ms - forward->begin_ms >= wait_ms) {
            settle_unanswered(core, forward);
        } else if (forward != NULL && now_ms - forward->sent_ms >= 2 * core->config.group.retry_ms) {
            forward->due = forwarding->due = true; /* it may have got lost, or there was no room for it */
        }
    }
    LIST_FOREACH(link, &forwarding->queued) {
        struct forward *forward = LIST_ENTRY(link, struct forward, link);
        if (now_ms - forward->begin_ms >= wait_ms) {
            settle_unanswered(core, forward);
        }
    }
    LIST_FOREACH(link, &forwarding->answered) { /* it is committed, and this node does not get it */
        struct forward *forward = LIST_ENTRY(link, struct forward, link);
        if (forward->applied > core->applied && now_ms - forward->begin_ms >= wait_ms) {
            settle_unanswered(core, forward);
        }
    }
}
