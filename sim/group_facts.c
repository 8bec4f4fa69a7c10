// SPDX-License-Identifier: Apache-2.0
//
// What must be true of all nodes together: see group_world.h.

#include <string.h>

#include "base/sometimes.h"
#include "group_world.h"

static bool same(const struct sim_record *a, const struct sim_record *b) {
    return a->epoch == b->epoch && a->value == b->value;
}

void facts_lead(struct group_world *world, struct sim_node *node, uint64_t epoch) {
    register_lead(&world->net, node->id, node->group.config.nonce, epoch);
    node->led_epoch = epoch;
    // (A later primary may have committed more: this one will find that out before it commits anything.)
    for (uint64_t i = 1; i <= world->committed_last && world->committed_in[i] < epoch; i++) {
        SIM_CHECK(i <= node->last && same(&node->log[i], &world->committed[i]),
                  "Q4: node %llu leads epoch %llu without record %llu of epoch %llu, which was committed",
                  (unsigned long long)node->id, (unsigned long long)epoch, (unsigned long long)i,
                  (unsigned long long)world->committed[i].epoch);
    }
    sim_trace("node %llu leads epoch %llu from record %llu on", (unsigned long long)node->id,
              (unsigned long long)epoch, (unsigned long long)node->last + 1);
}

static uint32_t holders(const struct group_world *world, const struct configuration *set, uint64_t index,
                        const struct sim_record *record) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < set->member_count; i++) {
        const struct sim_node *node = &world->nodes[set->members[i].node - 1];
        const uint8_t *incarnation = set->members[i].incarnation;
        bool has = memcmp(node->incarnation, incarnation, sizeof(node->incarnation)) == 0 &&
                   node->disk_last >= index && same(&node->disk[index], record);
        for (uint32_t j = 0; j < world->grave_count && !has; j++) {
            const struct grave *grave = &world->graves[j];
            has = memcmp(grave->incarnation, incarnation, sizeof(node->incarnation)) == 0 &&
                  grave->disk_last >= index && same(&grave->disk[index], record);
        }
        count += has;
    }
    return count;
}

void facts_commit(struct group_world *world, const struct sim_node *node, uint64_t from, uint64_t to) {
    for (uint64_t i = from; i <= to; i++) {
        const struct sim_record *record = &node->log[i];
        bool durable = i <= node->durable && i <= node->disk_last && same(&node->disk[i], record);
        SIM_CHECK(durable || node->group.role == GROUP_LEADS, // (whose own disk is not specially needed)
                  "Q2: node %llu takes record %llu for committed, but does not have it durably",
                  (unsigned long long)node->id, (unsigned long long)i);
        if (i <= world->committed_last) {
            SIM_CHECK(
                same(record, &world->committed[i]),
                "Q2: record %llu is of epoch %llu on node %llu, but the one of epoch %llu was committed",
                (unsigned long long)i, (unsigned long long)record->epoch, (unsigned long long)node->id,
                (unsigned long long)world->committed[i].epoch);
            continue;
        }
        SIM_CHECK(node->group.role == GROUP_LEADS, "Q3: node %llu, which leads nobody, commits record %llu",
                  (unsigned long long)node->id, (unsigned long long)i);
        const struct configuration *set = &world->net.sets[node->group.epoch];
        uint32_t count = holders(world, set, i, record);
        SIM_CHECK(count > set->member_count / 2,
                  "Q3: record %llu is committed in epoch %llu, but on the disks of %u of %u members only",
                  (unsigned long long)i, (unsigned long long)node->group.epoch, count, set->member_count);
        if (set->member_count == 1 && world->plan.nodes > 1) {
            SOMETIMES(GROUP_SIM_COMMITS_ALONE);
        }
        world->committed[i] = *record;
        world->committed_in[i] = node->group.epoch;
        world->committed_last = i;
    }
}

void facts_answer(struct group_world *world, const struct sim_node *node, uint64_t index, uint64_t value) {
    SIM_CHECK(index <= world->committed_last && world->committed[index].value == value,
              "node %llu answers that value %llu is record %llu, which it is not",
              (unsigned long long)node->id, (unsigned long long)value, (unsigned long long)index);
    world->answered_count++;
    if (index > world->answered_last) {
        world->answered_last = index;
    }
}

// Is what would be left of the directories enough to go on without loss? Of those of the present set, and of any that it may
// become without being looked at again.
bool facts_may_wipe(const struct group_world *world, const struct sim_node *wiped) {
    bool survives = register_survives(&world->net, wiped->id);
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        const struct group_node *group = &world->nodes[i].group;
        survives &= !world->nodes[i].alive || !group->swapping ||
                    register_set_survives(&world->net, &group->wanted, wiped->id);
    }
    return survives;
}

// Q6
bool facts_healed(const struct group_world *world) {
    const struct sim_node *primary = &world->nodes[world->net.present.primary - 1];
    uint64_t wanted = world->plan.nodes < world->plan.copies ? world->plan.nodes : world->plan.copies;
    if (world->net.present.member_count < wanted || !group_serves(&primary->group) ||
        primary->group.epoch != world->net.present.epoch || primary->pending_count > 0) {
        return false;
    }
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        const struct sim_node *node = &world->nodes[i];
        if (!node->alive || node->last != primary->last || node->durable != node->last ||
            node->group.commit != node->last || node->reading) {
            return false;
        }
    }
    return true;
}
