// SPDX-License-Identifier: Apache-2.0
//
// What must be true of all nodes together: see cluster.h. It is learned from what the nodes send to their disks and from
// what they say of themselves.

#include "cluster.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/sometimes.h"
#include "wire/system_region.h"

// The record that a write to the log carries; NULL: none.
static const struct record_header *record_of(const struct cluster_node *node, const struct io *io) {
    const uint8_t *bytes = io->buffer;
    if (io->kind != IO_WRITE || io->file.kind != FILE_LOG || !io->durable ||
        io->size < sizeof(struct record_header)) {
        return NULL;
    }
    uint64_t segment_magic;
    memcpy(&segment_magic, bytes, sizeof(segment_magic));
    const struct record_header *header =
        (const void *)(segment_magic == SEGMENT_MAGIC ? bytes + node->world->plan.alignment : bytes);
    return header->magic == RECORD_MAGIC ? header : NULL;
}

void cluster_facts_write(struct cluster_node *node, const struct io *io) {
    struct cluster_world *world = node->world;
    const struct record_header *header = record_of(node, io);
    if (!header) {
        return;
    }
    SIM_CHECK(header->index < CLUSTER_RECORDS_MAX, "too many records");
    struct seen_record *seen = &node->log[header->index];
    if (seen->chain == header->chain && seen->epoch == header->epoch && seen->payload) {
        return; // again: a full disk
    }
    *seen =
        (struct seen_record){.epoch = header->epoch, .chain = header->chain, .size = header->payload_size};
    seen->payload = malloc(header->payload_size + 1u);
    ASSERT(seen->payload);
    memcpy(seen->payload, header + 1, header->payload_size);
    if (world->payload_count == world->payload_max) {
        world->payload_max = world->payload_max ? 2 * world->payload_max : 1024;
        world->payloads = realloc(world->payloads, world->payload_max * sizeof(world->payloads[0]));
        ASSERT(world->payloads);
    }
    world->payloads[world->payload_count++] = seen->payload;
}

void cluster_facts_written(struct cluster_node *node, const struct io *io) {
    const struct record_header *header = record_of(node, io);
    if (header && node->log[header->index].chain == header->chain) {
        node->log[header->index].durable = true;
    }
}

// ---- The committed log

static void replay(struct cluster_world *world, uint64_t index, const struct seen_record *record) {
    size_t at = 0;
    while (at < record->size) {
        const struct record_tx *tx = (const void *)(record->payload + at);
        at += sizeof(*tx);
        cluster_attempts_tx(world, index, tx);
        for (uint32_t i = 0; i < tx->range_count; i++) {
            const struct record_range *range = (const void *)(record->payload + at);
            uint32_t number = shelf_addr_region(range->address);
            uint64_t offset = shelf_addr_offset(range->address);
            SIM_CHECK(number < CLUSTER_REGIONS_MAX && at + sizeof(*range) + range->size <= record->size,
                      "a committed record makes no sense");
            uint64_t end = align_up(offset + range->size, PAGE_SIZE);
            if (end > world->image_size[number]) {
                world->image[number] = realloc(world->image[number], end);
                ASSERT(world->image[number]);
                memset(world->image[number] + world->image_size[number], 0, end - world->image_size[number]);
                world->image_size[number] = end;
            }
            memcpy(world->image[number] + offset, range + 1, range->size);
            at += sizeof(*range) + align_up(range->size, 8);
        }
    }
}

static uint32_t holders(const struct cluster_world *world, const struct configuration *set, uint64_t index,
                        const struct seen_record *record) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < set->member_count; i++) {
        const struct cluster_node *node = &world->nodes[set->members[i].node - 1];
        const uint8_t *incarnation = set->members[i].incarnation;
        bool has = memcmp(node->incarnation, incarnation, 16) == 0 && node->log[index].durable &&
                   node->log[index].chain == record->chain && node->log[index].epoch == record->epoch;
        for (uint32_t j = 0; j < world->grave_count && !has; j++) {
            has = memcmp(world->graves[j].incarnation, incarnation, 16) == 0 &&
                  world->graves[j].chains[index] == record->chain;
        }
        count += has;
    }
    return count;
}

static bool same(const struct seen_record *a, const struct seen_record *b) {
    return a->epoch == b->epoch && a->chain == b->chain && a->size == b->size;
}

static void on_commit(struct cluster_node *node, uint64_t index) {
    struct cluster_world *world = node->world;
    const struct seen_record *record = &node->log[index];
    SIM_CHECK(record->payload, "node %llu commits record %llu, which it does not have",
              (unsigned long long)node->id, (unsigned long long)index);
    if (index <= world->committed_last) {
        SIM_CHECK(same(record, &world->committed[index]),
                  "Q2: record %llu is of epoch %llu on node %llu, but the one of epoch %llu was committed",
                  (unsigned long long)index, (unsigned long long)record->epoch, (unsigned long long)node->id,
                  (unsigned long long)world->committed[index].epoch);
        return;
    }
    SIM_CHECK(node->status.role == GROUP_LEADS, "Q3: node %llu, which leads nobody, commits record %llu",
              (unsigned long long)node->id, (unsigned long long)index);
    const struct configuration *set = &world->net.sets[node->status.epoch];
    uint32_t count = holders(world, set, index, record);
    SIM_CHECK(count > set->member_count / 2,
              "Q3: record %llu is committed in epoch %llu, but on the disks of %u of %u members only",
              (unsigned long long)index, (unsigned long long)node->status.epoch, count, set->member_count);
    world->committed[index] = *record;
    world->committed_in[index] = node->status.epoch;
    world->committed_last = index;
    replay(world, index, record);
}

static void on_lead(struct cluster_node *node, uint64_t epoch) {
    struct cluster_world *world = node->world;
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        if (world->nodes[i].alive && world->nodes[i].status.installs) {
            SOMETIMES(CLUSTER_SIM_TAKEOVER_IN_INSTALL);
        }
    }
    register_lead(&world->net, node->id, node->config.group.nonce, epoch);
    node->led_epoch = epoch;
    // (A later primary may have committed more: this one will find that out before it commits anything.)
    for (uint64_t i = 1; i <= world->committed_last && world->committed_in[i] < epoch; i++) {
        SIM_CHECK(i < node->status.last && same(&node->log[i], &world->committed[i]),
                  "Q4: node %llu leads epoch %llu without record %llu of epoch %llu, which was committed",
                  (unsigned long long)node->id, (unsigned long long)epoch, (unsigned long long)i,
                  (unsigned long long)world->committed[i].epoch);
    }
    sim_trace("node %llu leads epoch %llu from record %llu on", (unsigned long long)node->id,
              (unsigned long long)epoch, (unsigned long long)node->status.last);
}

// What a checkpoint from a peer brought is there, as if it were in the log; what the log lost is not.
void cluster_facts_recovered(struct cluster_node *node) {
    struct cluster_world *world = node->world;
    const struct core_status *status = &node->status;
    core_status_get(node->core, &node->status);
    SIM_CHECK(status->checkpoint <= world->committed_last,
              "D1: node %llu has a checkpoint of record %llu, which is not committed",
              (unsigned long long)node->id, (unsigned long long)status->checkpoint);
    for (uint64_t i = 1; i <= status->checkpoint; i++) {
        if (!same(&node->log[i], &world->committed[i])) {
            node->log[i] = world->committed[i];
        }
    }
    for (uint64_t i = 1; i < CLUSTER_RECORDS_MAX; i++) {
        node->log[i].durable = i <= status->durable;
        if (i > status->durable) {
            node->log[i] = (struct seen_record){0};
        }
    }
}

// A node that has closed leaves nothing under way; and if its hint says that nothing follows, nothing does.
void cluster_facts_closed(struct cluster_node *node) {
    struct hint_block newest = {0};
    for (uint64_t i = 0; i < 2; i++) {
        struct hint_block block;
        disk_read(node->disk, (struct file_id){.kind = FILE_HINT}, i * node->world->plan.alignment, &block,
                  sizeof(block));
        newest = block.magic == HINT_MAGIC && block.sequence > newest.sequence ? block : newest;
    }
    SOMETIMES(CLUSTER_SIM_CLOSED);
    SIM_CHECK(node->flight_count == 0, "node %llu has closed, and its disk is at work",
              (unsigned long long)node->id);
    SIM_CHECK(!newest.clean || (newest.index == node->status.last && newest.index == node->status.applied),
              "X2: node %llu closes clean at record %llu; its log ends at %llu", (unsigned long long)node->id,
              (unsigned long long)newest.index, (unsigned long long)node->status.last);
    if (newest.clean) {
        SOMETIMES(CLUSTER_SIM_CLOSED_CLEAN);
    }
}

void cluster_facts_step(struct cluster_node *node) {
    core_status_get(node->core, &node->status);
    const struct core_status *status = &node->status;
    if (status->role == GROUP_LEADS && status->epoch != node->led_epoch) {
        on_lead(node, status->epoch);
    }
    for (; node->commit_seen < status->commit; node->commit_seen++) {
        on_commit(node, node->commit_seen + 1);
    }
    uint64_t applied = atomic_load_explicit(&node->image->applied, memory_order_relaxed);
    SIM_CHECK(applied <= max_u64(status->commit, node->applied_seen) || status->commit == 0 || !node->opened,
              "node %llu shows record %llu, but knows %llu as committed", (unsigned long long)node->id,
              (unsigned long long)applied, (unsigned long long)status->commit);
    SIM_CHECK(applied >= node->applied_seen, "Q9: node %llu goes back from record %llu to %llu",
              (unsigned long long)node->id, (unsigned long long)node->applied_seen,
              (unsigned long long)applied);
    node->applied_seen = applied;
    cluster_attempts_floor(node);
}

// Q7, as far as it can be seen now.
void cluster_facts_image(const struct cluster_node *node) {
    const struct cluster_world *world = node->world;
    if (!node->alive || node->applied_seen != world->committed_last) {
        return;
    }
    for (uint32_t number = 1; number < CLUSTER_REGIONS_MAX; number++) {
        uint64_t size = world->image_size[number];
        const struct map *map = &node->maps[number];
        SIM_CHECK(size == 0 || (map->memory.data && map->size >= size), "Q7: node %llu has no region %u",
                  (unsigned long long)node->id, number);
        for (uint64_t page = 0; page < size; page += PAGE_SIZE) {
            SIM_CHECK(memcmp(map->memory.data + page, world->image[number] + page, PAGE_SIZE) == 0,
                      "Q7: page %llu of region %u on node %llu is not what the log gives at %llu",
                      (unsigned long long)(page / PAGE_SIZE), number, (unsigned long long)node->id,
                      (unsigned long long)node->applied_seen);
        }
    }
}

// ---- Directories that are lost

void cluster_facts_wiped(struct cluster_node *node) {
    struct cluster_world *world = node->world;
    world->graves = realloc(world->graves, (world->grave_count + 1) * sizeof(world->graves[0]));
    ASSERT(world->graves);
    struct grave_record *grave = &world->graves[world->grave_count++];
    memcpy(grave->incarnation, node->incarnation, sizeof(grave->incarnation));
    for (uint32_t i = 0; i < CLUSTER_RECORDS_MAX; i++) {
        grave->chains[i] = node->log[i].durable ? node->log[i].chain : 0;
    }
    memset(node->log, 0, sizeof(node->log));
}

// Only while no change of the set is under way: what a primary wants and has not sent is not known here.
bool cluster_facts_may_wipe(const struct cluster_world *world, const struct cluster_node *wiped) {
    return register_survives(&world->net, wiped->id);
}

// Q6
bool cluster_facts_healed(const struct cluster_world *world) {
    const struct cluster_node *primary = &world->nodes[world->net.present.primary - 1];
    uint64_t wanted = min_u64(world->plan.nodes, world->plan.copies);
    if (!primary->alive || world->net.present.member_count < wanted || !primary->status.serves ||
        primary->status.epoch != world->net.present.epoch) {
        return false;
    }
    for (uint32_t i = 0; i < world->plan.nodes; i++) {
        const struct cluster_node *node = &world->nodes[i];
        if (!node->alive || !node->opened || node->status.last != primary->status.last ||
            node->status.applied != primary->status.last || node->status.durable != primary->status.last) {
            return false;
        }
    }
    for (uint32_t i = 0; i < world->plan.clients; i++) {
        if (!cluster_client_idle(world, i)) {
            return false;
        }
    }
    return true;
}
