// SPDX-License-Identifier: Apache-2.0
/*
 * watch.c: what people are told of a cluster: this node's part in it, the set, connections, the coordinator. It looks, ten times a
 * second, and tells what has changed; nothing depends on it.
 */
#include <stdio.h>
#include <string.h>

#include "member/member_state.h"
#include "world/world.h"

#define APART_NS ((uint64_t)100 * 1000000)

/* ---- This node, the set -------------------------------------------------------------------------------------------- */

enum part { PART_LEARNER, PART_BACKUP, PART_PRIMARY };

static enum part part_of(bool member, bool serves) {
    return serves ? PART_PRIMARY : member ? PART_BACKUP : PART_LEARNER;
}

static void part_tell(struct member *member, const struct core_cluster *now) {
    static const char *const events[] = {"role-learner", "role-backup", "role-primary"};
    static const char *const texts[] = {"this node gets what it lacks; it does not count yet",
                                        "this node keeps a copy that counts", "this node takes commits"};
    struct watched *before = &member->watched;
    if (now->configuration.epoch == 0) {
        return; /* nobody has said yet what it is */
    }
    enum part part = part_of(now->member, now->serves);
    if (!before->began || part != part_of(before->member, before->serves)) {
        member_log(member, events[part], "%s; epoch %llu, index %llu", texts[part],
                   (unsigned long long)now->configuration.epoch, (unsigned long long)now->applied);
    }
    before->began = true;
    before->member = now->member;
    before->serves = now->serves;
}

static void set_tell(struct member *member, const struct configuration *now) {
    struct configuration *before = &member->watched.configuration;
    char nodes[CONFIGURATION_MEMBERS_MAX * 22] = "";
    size_t used = 0;
    if (now->epoch == before->epoch) {
        return;
    }
    for (uint32_t i = 0; i < now->member_count && used < sizeof(nodes); i++) {
        used += (size_t)snprintf(nodes + used, sizeof(nodes) - used, " %llu",
                                 (unsigned long long)now->members[i].node);
    }
    member_log(member, "set-changed", "epoch %llu: primary %llu, in sync:%s", (unsigned long long)now->epoch,
               (unsigned long long)now->primary, nodes);
    *before = *now;
}

/* ---- Others -------------------------------------------------------------------------------------------------------- */

static bool *peer_place(struct watched *watched, uint64_t node) {
    for (uint32_t i = 0; i < watched->peer_count; i++) {
        if (watched->peers[i].node == node) {
            return &watched->peers[i].connected;
        }
    }
    if (watched->peer_count == REGISTERS_MAX) {
        return NULL;
    }
    watched->peers[watched->peer_count].node = node;
    watched->peers[watched->peer_count].connected = false;
    return &watched->peers[watched->peer_count++].connected;
}

static void peer_tell(struct member *member, const struct node_record *record) {
    struct peer_net_status status;
    char text[NODE_ADDRESS_MAX + 64];
    bool *connected = peer_place(&member->watched, record->node);
    peer_net_status_get(member->net, record->node, &status);
    if (!connected || status.connected == *connected) {
        return;
    }
    *connected = status.connected;
    if (status.connected) {
        member_log(member, "peer-connected", "node %llu at %s", (unsigned long long)record->node,
                   record->address);
    } else {
        (void)snprintf(text, sizeof(text), "node %llu at %s is not connected",
                       (unsigned long long)record->node, record->address);
        member_log(member, "peer-lost", "%s", status.text[0] ? status.text : text);
    }
}

static void coordinator_tell(struct member *member) {
    struct coordinator_status status;
    struct watched *before = &member->watched;
    coordinator_status_get(member->coordinator, &status);
    if (status.refused != before->refused && status.refused) {
        member_log(member, "coordinator-refused", "%s", status.text);
    } else if (status.reachable != before->reachable && status.reachable) {
        member_log(member, "coordinator-back", "%s answers", status.place);
    } else if (status.reachable != before->reachable) {
        member_log(member, "coordinator-lost",
                   "%s; commits go on, but nobody can take over and the set cannot change",
                   status.text[0] ? status.text : "it does not answer");
    }
    before->refused = status.refused;
    before->reachable = status.reachable;
}

void watch_work(struct member *member) {
    struct core_cluster now;
    uint64_t now_ns = world_monotonic_ns();
    if (now_ns < member->watched.after_ns) {
        return;
    }
    member->watched.after_ns = now_ns + APART_NS;
    node_cluster_get(member->node, &now);
    set_tell(member, &now.configuration);
    part_tell(member, &now);
    for (uint32_t i = 0; i < member->book.count; i++) {
        if (member->book.records[i].node != member->identity.record.node) {
            peer_tell(member, &member->book.records[i]);
        }
    }
    coordinator_tell(member);
}
