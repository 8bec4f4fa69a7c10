// SPDX-License-Identifier: Apache-2.0
/* cluster_look.c: what a node of a cluster knows of itself and the others, for people: nothing here decides anything. */
#include "core/group_state.h"
#include "core/state.h"

/* Of the log after that index. Where it was trimmed, all that is here counts. */
static uint64_t bytes_after(const struct core *core, uint64_t index) {
    const struct tail_record *record = tail_find(core, index);
    const struct position *head = &core->log.head;
    if (record == NULL || index >= core->log.last.index || record->end.segment_sequence == 0) {
        return index >= core->log.last.index ? 0 : core->log.applied_bytes;
    }
    return (head->segment_sequence - record->end.segment_sequence) * LOG_SEGMENT_BYTES + head->offset -
           record->end.offset;
}

static void peers_get(const struct core *core, struct core_cluster *ret_cluster) {
    const struct group_node *group = &core->cluster.group;
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers); i++) {
        const struct group_peer *peer = &group->peers[i];
        if (peer->id.node != 0) {
            ret_cluster->peers[ret_cluster->peer_count++] =
                (struct core_peer){.id = peer->id,
                                   .member = peer->member,
                                   .known = peer->known,
                                   .acked = peer->acked,
                                   .behind = bytes_after(core, peer->acked),
                                   .silent_ms = group->now_ms - peer->heard_ms};
        }
    }
}

void core_cluster_get(const struct core *core, struct core_cluster *ret_cluster) {
    const struct cluster *cluster = &core->cluster;
    const struct group_node *group = &cluster->group;
    *ret_cluster = (struct core_cluster){.running = cluster->running};
    if (!cluster->running) {
        return;
    }
    bool leads = group->role == GROUP_LEADS;
    ret_cluster->configuration = group->known;
    ret_cluster->role = (uint32_t)group->role;
    ret_cluster->serves = core->serving;
    ret_cluster->member = group_is_member(group);
    ret_cluster->hold = group->hold;
    ret_cluster->applied = core->applied;
    ret_cluster->commit = cluster->commit;
    ret_cluster->last = core->log.last.index;
    ret_cluster->durable = core->log.durable_index;
    ret_cluster->leader_commit = leads ? cluster->commit : group->leader_commit;
    ret_cluster->silent_ms = leads ? 0 : group->now_ms - group->heard_ms;
    ret_cluster->copies = group->config.copies;
    ret_cluster->min_copies = group->config.min_copies;
    if (leads) {
        peers_get(core, ret_cluster);
    }
}

/* When the primary was last heard of; of the primary itself: when q members, this one among them, have been since. */
static uint64_t contact_of(const struct group_node *group) {
    uint64_t heard[CONFIGURATION_MEMBERS_MAX] = {group->now_ms};
    uint32_t count = 1;
    if (group->role != GROUP_LEADS) {
        return group->heard_ms;
    }
    for (uint32_t i = 0; i < ARRAY_COUNT(group->peers) && count < CONFIGURATION_MEMBERS_MAX; i++) {
        const struct group_peer *peer = &group->peers[i];
        if (peer->id.node != 0 && peer->member) {
            uint32_t at = count++;
            for (; at > 0 && heard[at - 1] < peer->heard_ms; at--) {
                heard[at] = heard[at - 1];
            }
            heard[at] = peer->heard_ms;
        }
    }
    return heard[min_u64(group_quorum(group), count) - 1];
}

void cluster_contact(struct core *core) {
    atomic_store_explicit(&core->image->contact_ms, max_u64(contact_of(&core->cluster.group), 1),
                          memory_order_relaxed);
}
