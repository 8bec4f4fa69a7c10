// SPDX-License-Identifier: Apache-2.0
/*
 * register.c: what the core wants of the configuration's register is asked of the coordinator, and what registers say is told to
 * the core and the transport.
 *
 *   R1  One ask about the configuration is under way at a time. A swap is sent with the revision that held the epoch which the
 *       core expects; if that revision is not known here yet (the core has heard of the epoch from a peer), a get comes first.
 *   R2  Whatever does not settle a swap is told as SWAP_UNKNOWN; the core repeats it (C3).
 *   R3  A configuration of another shelf is none of ours: nothing of it is told to the core.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "member/member_state.h"
#include "world/world.h"

#define PUBLISH_APART_NS ((uint64_t)500 * 1000000)

static const struct register_id id_configuration = {.kind = REGISTER_CONFIGURATION, .number = GROUP_NUMBER};

/* ---- The configuration --------------------------------------------------------------------------------------------- */

const char *register_configuration(const struct member *member, const struct register_state *state,
                                   struct configuration *ret_configuration) {
    uint8_t shelf_id[16];
    if (state->revision == 0) {
        return "there is none";
    }
    const char *problem = configuration_decode(state->value, state->size, ret_configuration, shelf_id);
    if (!problem && memcmp(shelf_id, member->identity.record.shelf_id, sizeof(shelf_id)) != 0) {
        problem = "it is that of another shelf"; /* R3 */
    }
    return problem;
}

/* Returns whether it can be used; then `present` is that, or newer. */
static bool present_learn(struct member *member, const struct register_state *state) {
    struct configuration configuration;
    const char *problem = register_configuration(member, state, &configuration);
    if (problem) {
        if (!member->foreign && state->revision != 0) {
            member_log(member, "coordinator-refused", "the cluster's configuration cannot be used: %s",
                       problem);
            member->foreign = true;
        }
        return false;
    }
    member->foreign = false;
    if (state->revision > member->revision) { /* B3 */
        (void)pthread_mutex_lock(&member->lock);
        member->revision = state->revision;
        member->present = configuration;
        (void)pthread_mutex_unlock(&member->lock);
    }
    return true;
}

static void ask_start(struct member *member, enum asking asking) {
    member->asking = asking;
    member->ask = (struct coordinator_ask){.act = COORDINATOR_GET, .id = id_configuration};
    if (asking == ASKING_SWAP) {
        uint8_t bytes[CONFIGURATION_BYTES_MAX];
        member->ask.act = COORDINATOR_SWAP;
        member->ask.expected = member->revision;
        member->ask.size =
            (uint32_t)configuration_encode(&member->wanted, member->identity.record.shelf_id, bytes);
        memcpy(member->ask.value, bytes, member->ask.size);
    }
    coordinator_start(member->coordinator, &member->ask);
}

/* R1. `asked`: the register has just been read for this. */
static void swap_go_on(struct member *member, bool asked) {
    if (member->revision != 0 && member->present.epoch == member->swap_from) {
        ask_start(member, ASKING_SWAP);
    } else if (member->revision != 0 && member->present.epoch > member->swap_from) {
        node_cluster_swap(member->node, SWAP_LOST, &member->present);
    } else if (!asked) {
        ask_start(member, ASKING_FIRST);
    } else {
        node_cluster_swap(member->node, SWAP_UNKNOWN, &member->present); /* R2 */
    }
}

static void answer_take(struct member *member) {
    const struct coordinator_ask *ask = &member->ask;
    enum asking asking = member->asking;
    bool told = ask->outcome == COORDINATOR_OK || ask->outcome == COORDINATOR_LOST;
    bool known = told && present_learn(member, &ask->state);
    member->asking = ASKING_NOTHING;
    if (asking == ASKING_LOOK) {
        if (known) {
            node_cluster_register(member->node, &member->present);
        }
    } else if (asking == ASKING_FIRST) {
        swap_go_on(member, true);
    } else if (known && ask->outcome == COORDINATOR_OK) {
        node_cluster_swap(member->node, SWAP_WON, &member->wanted);
    } else if (known) {
        node_cluster_swap(member->node, SWAP_LOST, &member->present);
    } else {
        node_cluster_swap(member->node, SWAP_UNKNOWN, &member->present); /* R2 */
    }
}

static void orders_take(struct member *member) {
    while (member->asking == ASKING_NOTHING) {
        (void)pthread_mutex_lock(&member->lock);
        struct orders *orders = &member->orders;
        bool swap = orders->swap, look = orders->look;
        if (swap) {
            member->swap_from = orders->swap_from;
            member->wanted = orders->wanted;
            orders->swap = false;
        } else {
            orders->look = false;
        }
        (void)pthread_mutex_unlock(&member->lock);
        if (swap) {
            swap_go_on(member, false);
        } else if (look) {
            ask_start(member, ASKING_LOOK);
        } else {
            return;
        }
    }
}

/* ---- Addresses ----------------------------------------------------------------------------------------------------- */

static bool is_self(const struct member *member, uint64_t node) {
    return node == member->identity.record.node;
}

static void own_learn(struct member *member, const struct register_state *state) {
    struct node_record record = {0};
    if (!member->node) { /* it is not decided yet what it should be */
        return;
    }
    bool there = state->revision != 0 && !node_record_decode(state->value, state->size, &record);
    bool ours = there && memcmp(record.incarnation, member->identity.record.incarnation, 16) == 0;
    bool was_replaced = member->replaced;
    member->own_known = true;
    member->own_revision = state->revision;
    member->own_right = ours && strcmp(record.address, member->own.address) == 0;
    member->replaced = there && !ours;
    if (member->replaced && !was_replaced) {
        member_log(member, "node-replaced",
                   "another directory has become node %llu, at %s; this one is no longer asked for",
                   (unsigned long long)member->identity.record.node, record.address);
    }
}

static void peer_learn(struct member *member, uint64_t node, const struct register_state *state) {
    struct node_record record;
    const char *problem =
        state->revision == 0 ? NULL : node_record_decode(state->value, state->size, &record);
    if (problem || (state->revision != 0 && record.node != node)) {
        member_log(member, "coordinator-refused", "the register of node %llu cannot be used: %s",
                   (unsigned long long)node, problem ? problem : "it is another node's");
        return;
    }
    (void)pthread_mutex_lock(&member->lock);
    bool news = state->revision == 0 ? address_book_remove(&member->book, node)
                                     : address_book_set(&member->book, &record);
    (void)pthread_mutex_unlock(&member->lock);
    member->book_new |= news;
    if (state->revision != 0 && strcmp(record.address, member->own.address) == 0) {
        member->former = node;
        member->former_revision = state->revision;
    }
    if (member->net && state->revision == 0) {
        peer_net_peer_remove(member->net, node);
    } else if (member->net && peer_net_peer_set(member->net, node, record.address) != SHELF_OK) {
        member_log(member, "peer-lost", "the address of node %llu cannot be used: %s",
                   (unsigned long long)node, record.address);
    }
}

static void own_publish(struct member *member) {
    bool right = member->own_known && (member->own_right || member->replaced);
    if (member->publishing || right || world_monotonic_ns() < member->publish_after_ns) {
        return;
    }
    member->publish = (struct coordinator_ask){.act = COORDINATOR_GET,
                                               .id = {.kind = REGISTER_NODE, .number = member->own.node}};
    if (member->own_known) {
        uint8_t bytes[NODE_RECORD_BYTES_MAX];
        member->publish.act = COORDINATOR_SWAP;
        member->publish.expected = member->own_revision;
        member->publish.size = (uint32_t)node_record_encode(&member->own, bytes);
        memcpy(member->publish.value, bytes, member->publish.size);
    }
    member->publishing = true;
    member->publish_after_ns = world_monotonic_ns() + PUBLISH_APART_NS;
    coordinator_start(member->coordinator, &member->publish);
}

/* Who had our address cannot have it any more: a directory that was removed, and got another number. */
static void former_forget(struct member *member) {
    if (member->former == 0 || member->publishing || !member->own_known || !member->own_right) {
        return;
    }
    member_log(member, "node-forgotten", "node %llu was at the address of this one, and is no more",
               (unsigned long long)member->former);
    member->publish = (struct coordinator_ask){.act = COORDINATOR_REMOVE,
                                               .id = {.kind = REGISTER_NODE, .number = member->former},
                                               .expected = member->former_revision};
    member->former = 0;
    member->publishing = true;
    coordinator_start(member->coordinator, &member->publish);
}

static void published(struct member *member) {
    member->publishing = false;
    if (member->publish.act == COORDINATOR_REMOVE) {
        return; /* if it was not removed, that does no harm */
    }
    if (member->publish.outcome == COORDINATOR_OK || member->publish.outcome == COORDINATOR_LOST) {
        own_learn(member, &member->publish.state);
        member->publish_after_ns = 0;
    } /* else again, after a while */
}

static void book_store(struct member *member) {
    char text[REGISTER_VALUE_MAX + 1];
    if (member->book_new && member->node) {
        member->book_new = false;
        address_book_print(&member->book, sizeof(text), text);
        if (!identity_peers_store(&member->identity, text)) {
            member_log(member, "peers-not-stored",
                       "the addresses of the other nodes cannot be written to the directory; a restart needs "
                       "the coordinator");
        }
    }
}

/* ---- News ---------------------------------------------------------------------------------------------------------- */

static void news_take(struct member *member, const struct coordinator_news *news) {
    if (news->kind != NEWS_CHANGED) {
        return;
    }
    if (news->id.kind == REGISTER_NODE && is_self(member, news->id.number)) {
        own_learn(member, &news->state);
    } else if (news->id.kind == REGISTER_NODE) {
        peer_learn(member, news->id.number, &news->state);
    } else if (news->id.number == GROUP_NUMBER && member->node && present_learn(member, &news->state)) {
        node_cluster_register(member->node, &member->present);
    }
}

static void news_take_all(struct member *member) {
    struct coordinator_news news;
    while (coordinator_news_take(member->coordinator, &news)) {
        news_take(member, &news);
    }
}

void registers_work(struct member *member) {
    for (struct coordinator_ask *ask; (ask = coordinator_take(member->coordinator)) != NULL;) {
        if (ask == &member->publish) {
            published(member);
        } else {
            answer_take(member);
        }
    }
    news_take_all(member);
    orders_take(member);
    own_publish(member);
    former_forget(member);
    book_store(member);
}

void register_ask(struct member *member, struct coordinator_ask *ask) {
    struct pollfd poll_fd = {.fd = coordinator_fd(member->coordinator), .events = POLLIN};
    coordinator_start(member->coordinator, ask);
    while (coordinator_take(member->coordinator) != ask) {
        (void)poll(&poll_fd, 1, -1);
        news_take_all(member);
    }
}
