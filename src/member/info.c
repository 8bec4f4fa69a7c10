// SPDX-License-Identifier: Apache-2.0
/*
 * info.c: what people ask of a cluster: who leads, who is in sync, how far behind the others are. A node answers from what it
 * knows; only the primary knows how far the others are.
 */
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "member/member_state.h"

static bool is_in_sync(const struct configuration *configuration, const struct node_record *record,
                       const uint8_t incarnation[16]) {
    for (uint32_t i = 0; i < configuration->member_count; i++) {
        const struct configuration_member *member = &configuration->members[i];
        if (member->node == record->node) {
            return !incarnation || memcmp(member->incarnation, incarnation, sizeof(member->incarnation)) == 0;
        }
    }
    return false;
}

static enum shelf_part part_of(const struct configuration *configuration, uint64_t node, bool in_sync) {
    return !in_sync                         ? SHELF_PART_LEARNER
           : configuration->primary == node ? SHELF_PART_PRIMARY
                                            : SHELF_PART_BACKUP;
}

/* The newest incarnation of it that the primary has heard of. */
static const struct core_peer *peer_find(const struct core_cluster *cluster, uint64_t node) {
    const struct core_peer *found = NULL;
    for (uint32_t i = 0; i < cluster->peer_count; i++) {
        const struct core_peer *peer = &cluster->peers[i];
        if (peer->id.node == node && (!found || peer->silent_ms < found->silent_ms)) {
            found = peer;
        }
    }
    return found;
}

static void self_fill(const struct member *member, const struct core_cluster *cluster,
                      struct shelf_node_info *info) {
    uint64_t last = max_u64(cluster->leader_commit, cluster->commit);
    info->part = part_of(&cluster->configuration, info->node, cluster->member);
    info->connected = info->known = true;
    info->index = cluster->durable;
    info->behind_records = last > cluster->applied ? last - cluster->applied : 0;
    (void)snprintf(info->address, sizeof(info->address), "%s", member->own.address);
}

static void other_fill(const struct member *member, const struct core_cluster *cluster,
                       const struct node_record *record, struct shelf_node_info *info) {
    const struct core_peer *peer = peer_find(cluster, record->node);
    bool in_sync = is_in_sync(&cluster->configuration, record, peer ? peer->id.incarnation : NULL);
    struct peer_net_status status;
    peer_net_status_get(member->net, record->node, &status);
    info->part = part_of(&cluster->configuration, record->node, in_sync);
    info->connected = status.connected;
    info->silent_ms = status.heard_ms;
    if (peer && peer->known) {
        info->known = true;
        info->index = peer->acked;
        info->behind_records = cluster->commit > peer->acked ? cluster->commit - peer->acked : 0;
        info->behind_bytes = info->behind_records > 0 ? peer->behind : 0;
    }
    (void)snprintf(info->address, sizeof(info->address), "%s", record->address);
}

/* Those of the book, and those of the set that it lacks, in order of their numbers. */
static void records_collect(struct member *member, const struct core_cluster *cluster,
                            struct address_book *ret_book) {
    const struct configuration *configuration = &cluster->configuration;
    (void)pthread_mutex_lock(&member->lock);
    *ret_book = member->book;
    (void)pthread_mutex_unlock(&member->lock);
    if (!address_book_find(ret_book, member->own.node)) {
        (void)address_book_set(ret_book, &member->own);
    }
    for (uint32_t i = 0; i < configuration->member_count; i++) {
        if (!address_book_find(ret_book, configuration->members[i].node)) {
            (void)address_book_set(ret_book, &(struct node_record){.node = configuration->members[i].node});
        }
    }
    for (uint32_t i = 1; i < ret_book->count; i++) {
        struct node_record record = ret_book->records[i];
        uint32_t at = i;
        for (; at > 0 && ret_book->records[at - 1].node > record.node; at--) {
            ret_book->records[at] = ret_book->records[at - 1];
        }
        ret_book->records[at] = record;
    }
}

static void coordinator_fill(const struct member *member, struct shelf_cluster_info *info) {
    struct coordinator_status status;
    coordinator_status_get(member->coordinator, &status);
    info->coordinator_reachable = status.reachable;
    info->coordinator_refused = status.refused;
    info->coordinator_ms = status.for_ms;
    (void)snprintf(info->coordinator, sizeof(info->coordinator), "%s", status.place);
    (void)snprintf(info->coordinator_text, sizeof(info->coordinator_text), "%s", status.text);
}

void member_info(void *context, struct shelf_cluster_info *ret_info) {
    struct member *member = context;
    struct core_cluster cluster;
    struct address_book book; /* 40 KiB */
    node_cluster_get(member->node, &cluster);
    *ret_info = (struct shelf_cluster_info){
        .node = member->own.node,
        .part = part_of(&cluster.configuration, member->own.node, cluster.member),
        .serves = cluster.serves,
        .changing = cluster.hold,
        .primary = cluster.configuration.primary,
        .epoch = cluster.configuration.epoch,
        .silent_ms = cluster.silent_ms,
        .in_sync = cluster.configuration.member_count,
        .copies = cluster.copies,
        .copies_min = cluster.min_copies,
    };
    (void)snprintf(ret_info->name, sizeof(ret_info->name), "%s", member->options.cluster);
    coordinator_fill(member, ret_info);
    records_collect(member, &cluster, &book);
    for (uint32_t i = 0; i < book.count && ret_info->node_count < SHELF_NODES_MAX; i++) {
        struct shelf_node_info *info = &ret_info->nodes[ret_info->node_count++];
        info->node = book.records[i].node;
        if (info->node == member->own.node) {
            self_fill(member, &cluster, info);
        } else {
            other_fill(member, &cluster, &book.records[i], info);
        }
    }
}
