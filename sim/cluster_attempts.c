// SPDX-License-Identifier: Apache-2.0
//
// What programs have asked for, held against the committed log: Q8, Q10, Q11 of cluster.h. Each commit carries its attempt's number
// in what it writes, so that it is known again in the log, whichever way it went there.

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "cluster.h"

struct cluster_attempt *cluster_attempt_new(struct cluster_world *world, uint32_t client) {
    if (world->attempt_count == world->attempt_max) {
        world->attempt_max = world->attempt_max ? 2 * world->attempt_max : 1024;
        world->attempts = realloc(world->attempts, world->attempt_max * sizeof(world->attempts[0]));
        ASSERT(world->attempts);
    }
    struct cluster_attempt *attempt = &world->attempts[world->attempt_count++];
    *attempt = (struct cluster_attempt){.number = world->attempt_count, .client = client};
    return attempt;
}

struct cluster_attempt *cluster_attempt_of(struct cluster_world *world, uint64_t number) {
    return number > 0 && number <= world->attempt_count ? &world->attempts[number - 1] : NULL;
}

// Of a line of the programs' region: the index of the committed record that changed it last.
static uint64_t *line_version(struct cluster_world *world, uint64_t address) {
    if (world->region == 0 || shelf_addr_region(address) != world->region) {
        return NULL;
    }
    uint64_t line = shelf_addr_offset(address) >> LINE_SHIFT;
    return line < CLUSTER_LINES_MAX ? &world->versions[line] : NULL;
}

static uint64_t newest_read(struct cluster_world *world, const struct cluster_attempt *attempt) {
    uint64_t newest = 0;
    for (uint32_t i = 0; i < attempt->line_count; i++) {
        const uint64_t *version = line_version(world, attempt->lines[i] << LINE_SHIFT);
        newest = version ? max_u64(newest, *version) : newest;
    }
    return newest;
}

void cluster_attempts_tx(struct cluster_world *world, uint64_t index, const struct record_tx *tx) {
    const uint8_t *at = (const uint8_t *)(tx + 1);
    struct cluster_attempt *attempt = NULL;
    for (uint32_t i = 0; i < tx->range_count; i++) {
        const struct record_range *range = (const void *)at;
        if (shelf_addr_region(range->address) == world->region &&
            shelf_addr_offset(range->address) >= 3 * PAGE_SIZE) {
            uint64_t number;
            memcpy(&number, range + 1, sizeof(number));
            attempt = cluster_attempt_of(world, number);
            SIM_CHECK(attempt, "a committed transaction is of no attempt");
        }
        at += sizeof(*range) + align_up(range->size, 8);
    }
    if (attempt) {
        SIM_CHECK(attempt->committed_index == 0 && !attempt->ghost,
                  "Q8: sequence %llu of client %u is committed at %llu though it was before",
                  (unsigned long long)attempt->sequence, attempt->client, (unsigned long long)index);
        SIM_CHECK(!attempt->refused, "Q11: sequence %llu of client %u was refused, and is committed at %llu",
                  (unsigned long long)attempt->sequence, attempt->client, (unsigned long long)index);
        attempt->committed_index = index;
        uint64_t newest = newest_read(world, attempt);
        SIM_CHECK(
            newest <= attempt->index,
            "Q10: sequence %llu of client %u read at %llu what was changed at %llu, and is committed at %llu",
            (unsigned long long)attempt->sequence, attempt->client, (unsigned long long)attempt->index,
            (unsigned long long)newest, (unsigned long long)index);
    }
    at = (const uint8_t *)(tx + 1);
    for (uint32_t i = 0; i < tx->range_count; i++) {
        const struct record_range *range = (const void *)at;
        for (uint64_t line = range->address >> LINE_SHIFT;
             line <= (range->address + range->size - 1) >> LINE_SHIFT; line++) {
            uint64_t *version = line_version(world, line << LINE_SHIFT);
            if (version) {
                *version = index;
            }
        }
        at += sizeof(*range) + align_up(range->size, 8);
    }
}

// (A node that has begun later than what was read counts everything as changed when it began.)
void cluster_attempt_refused(struct cluster_world *world, struct cluster_attempt *attempt) {
    attempt->refused = true;
    SIM_CHECK(
        attempt->committed_index == 0, "Q11: sequence %llu of client %u is refused, but committed at %llu",
        (unsigned long long)attempt->sequence, attempt->client, (unsigned long long)attempt->committed_index);
    SIM_CHECK(attempt->other_life || attempt->index < world->floor_max ||
                  newest_read(world, attempt) > attempt->index,
              "Q11: sequence %llu of client %u lost, but nothing that it read at %llu was changed",
              (unsigned long long)attempt->sequence, attempt->client, (unsigned long long)attempt->index);
}

void cluster_attempts_floor(struct cluster_node *node) {
    struct cluster_world *world = node->world;
    if (world->region != 0) {
        uint64_t floor =
            atomic_load_explicit(&node->image->regions[world->region].floor, memory_order_relaxed);
        world->floor_max = max_u64(world->floor_max, floor);
    }
}
