// SPDX-License-Identifier: Apache-2.0
/* cluster_words.c: see cluster_words.h. */
#include "cmd/cluster_words.h"

#include <stdio.h>

#include "base/bits.h"

#define SILENT_MS 3000u /* longer than that, a primary is not just slow */

const char *cluster_part_name(enum shelf_part part) {
    switch (part) {
    case SHELF_PART_PRIMARY:
        return "primary";
    case SHELF_PART_BACKUP:
        return "backup";
    case SHELF_PART_LEARNER:
        break;
    }
    return "learner";
}

/* q of the set acknowledge, r = n - q + 1 take over; what is left afterwards may be made the set (docs/protocol.md). */
static bool goes_on(uint32_t in_sync, uint32_t left, uint32_t copies_min) {
    uint32_t take_over = in_sync - in_sync / 2;
    uint64_t set = max_u64(left, min_u64(in_sync, copies_min));
    return left >= take_over && left >= set / 2 + 1;
}

uint32_t cluster_spare(uint32_t in_sync, uint32_t copies_min) {
    uint32_t spare = 0;
    while (spare + 1 < in_sync && goes_on(in_sync, in_sync - spare - 1, copies_min)) {
        spare++;
    }
    return spare;
}

uint32_t cluster_away(const struct shelf_cluster_info *info) {
    uint32_t away = 0;
    for (uint32_t i = 0; i < info->node_count; i++) {
        away += info->nodes[i].part != SHELF_PART_LEARNER && !info->nodes[i].connected;
    }
    return away;
}

bool cluster_is_led(const struct shelf_cluster_info *info) {
    return info->serves || (info->primary != 0 && info->primary != info->node && info->silent_ms < SILENT_MS);
}

bool cluster_state_words(const struct shelf_cluster_info *info, char ret_text[CLUSTER_WORDS_MAX]) {
    bool led = cluster_is_led(info);
    uint32_t wanted = info->copies > info->in_sync ? info->copies - info->in_sync : 0;
    if (info->epoch == 0) {
        (void)snprintf(ret_text, CLUSTER_WORDS_MAX,
                       "it has not found its cluster yet: neither the coordinator nor another node has told; "
                       "what it has can be read");
        return false;
    }
    if (!led && info->primary == info->node) {
        (void)snprintf(ret_text, CLUSTER_WORDS_MAX, "this node is about to lead; commits wait, reads go on");
        return false;
    }
    if (!led) {
        (void)snprintf(
            ret_text, CLUSTER_WORDS_MAX,
            "nothing is heard of a primary since %llu ms: commits wait, reads go on with what is here",
            (unsigned long long)info->silent_ms);
        return false;
    }
    if (info->part == SHELF_PART_LEARNER) {
        (void)snprintf(ret_text, CLUSTER_WORDS_MAX,
                       "this node gets what it lacks; what it has can be read, and may be old");
        return false;
    }
    (void)snprintf(ret_text, CLUSTER_WORDS_MAX, "%s%s",
                   wanted > 0 ? "it works, with fewer copies than are wanted" : "all is well",
                   info->changing ? "; the set is about to change" : "");
    return wanted == 0;
}

static const char *nodes_text(uint32_t count, char *text, size_t size) {
    (void)snprintf(text, size, count == 1 ? "any one node" : "any %u nodes", count);
    return text;
}

void cluster_outlook_words(const struct shelf_cluster_info *info, char ret_text[CLUSTER_WORDS_MAX]) {
    uint32_t spare = cluster_spare(info->in_sync, info->copies_min), away = cluster_away(info);
    char nodes[32];
    if (info->coordinator_refused) {
        (void)snprintf(ret_text, CLUSTER_WORDS_MAX,
                       "none: what the coordinator says cannot be right, so nobody can take over; see "
                       "\"etcd has gone back\" in docs/operations.md");
    } else if (!info->coordinator_reachable) {
        (void)snprintf(
            ret_text, CLUSTER_WORDS_MAX,
            "a minority of backups; but while the coordinator is away nobody can take over: bring it "
            "back before the primary fails");
    } else if (spare > away) {
        (void)snprintf(ret_text, CLUSTER_WORDS_MAX, "%s; the rest goes on by itself, nothing is lost",
                       nodes_text(spare - away, nodes, sizeof(nodes)));
    } else if (info->in_sync == 1 && info->copies > 1) {
        (void)snprintf(ret_text, CLUSTER_WORDS_MAX,
                       "none: only one copy counts; start more nodes (`shelf start N`, or shelfd there)");
    } else if (info->in_sync == 1) {
        (void)snprintf(ret_text, CLUSTER_WORDS_MAX, "none: one copy is all that is wanted (--copies 1)");
    } else {
        (void)snprintf(
            ret_text, CLUSTER_WORDS_MAX,
            "none: with one less, commits would wait until it is back (nothing would be lost); start "
            "another node");
    }
}
