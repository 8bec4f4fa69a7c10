// SPDX-License-Identifier: Apache-2.0
/* status_cluster.c: see status_cluster.h. */
#include "cmd/status_cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cluster_words.h"
#include "cmd/output.h"

/* ---- For people ---------------------------------------------------------------------------------------------------- */

static const struct shelf_node_info *node_find(const struct shelf_cluster_info *info, uint64_t node) {
    for (uint32_t i = 0; i < info->node_count; i++) {
        if (info->nodes[i].node == node) {
            return &info->nodes[i];
        }
    }
    return NULL;
}

static void lag_print(const struct shelf_node_info *node) {
    char size[SIZE_TEXT_MAX];
    if (!node->known && node->part == SHELF_PART_PRIMARY) {
        (void)printf("takes the commits");
    } else if (!node->known) {
        (void)printf("how far it is, the primary knows");
    } else if (node->behind_records == 0) {
        (void)printf("has everything, up to %" PRIu64, node->index);
    } else if (node->behind_bytes > 0) {
        (void)printf("%" PRIu64 " records (%s) behind", node->behind_records,
                     size_text(node->behind_bytes, size));
    } else {
        (void)printf("%" PRIu64 " records behind", node->behind_records);
    }
}

static void node_print(const struct shelf_cluster_info *info, const struct shelf_node_info *node) {
    bool self = node->node == info->node;
    enum style colour = node->part == SHELF_PART_LEARNER ? STYLE_WARN
                        : node->connected                ? STYLE_GOOD
                                                         : STYLE_BAD;
    (void)printf("    %s%-6" PRIu64 " %-8s%s ", style(stdout, colour), node->node,
                 node->connected || node->part != SHELF_PART_LEARNER ? cluster_part_name(node->part) : "away",
                 style(stdout, STYLE_PLAIN));
    if (self) {
        lag_print(node);
        (void)printf("; this node");
    } else if (!node->connected && node->silent_ms != UINT64_MAX) {
        (void)printf("not connected, silent for %" PRIu64 " ms", node->silent_ms);
    } else if (!node->connected) {
        (void)printf("not connected");
    } else {
        lag_print(node);
    }
    (void)printf("%s%s\n", node->address[0] ? "; " : "", node->address);
}

static void coordinator_print(const struct shelf_cluster_info *info) {
    if (info->coordinator_refused) {
        (void)printf("%s%s: %s", style(stdout, STYLE_BAD), info->coordinator, info->coordinator_text);
    } else if (info->coordinator_reachable) {
        (void)printf("%s%s answers", style(stdout, STYLE_GOOD), info->coordinator);
    } else {
        (void)printf("%s%s does not answer since %" PRIu64 " s: commits go on, the set cannot change",
                     style(stdout, STYLE_BAD), info->coordinator, info->coordinator_ms / 1000);
    }
    (void)printf("%s\n", style(stdout, STYLE_PLAIN));
}

void status_cluster_print(const struct shelf_cluster_info *info) {
    char text[CLUSTER_WORDS_MAX];
    const struct shelf_node_info *primary = node_find(info, info->primary);
    bool well = cluster_state_words(info, text);
    (void)printf("  cluster     '%s', epoch %" PRIu64 "; this is node %" PRIu64 ", %s%s%s\n", info->name,
                 info->epoch, info->node, style(stdout, STYLE_BOLD), cluster_part_name(info->part),
                 style(stdout, STYLE_PLAIN));
    (void)printf("  state       %s%s%s\n", style(stdout, well ? STYLE_GOOD : STYLE_WARN), text,
                 style(stdout, STYLE_PLAIN));
    if (info->primary != 0 && info->primary != info->node) {
        (void)printf("  primary     node %" PRIu64 "%s%s, heard of %" PRIu64 " ms ago\n", info->primary,
                     primary && primary->address[0] ? " at " : "", primary ? primary->address : "",
                     info->silent_ms);
    }
    (void)printf("  in sync     %" PRIu32 " of %" PRIu32 " that are wanted\n", info->in_sync, info->copies);
    (void)printf("  nodes       %" PRIu32 "\n", info->node_count);
    for (uint32_t i = 0; i < info->node_count; i++) {
        node_print(info, &info->nodes[i]);
    }
    (void)printf("  coordinator ");
    coordinator_print(info);
    cluster_outlook_words(info, text);
    (void)printf("  may fail    %s\n", text);
}

/* ---- As JSON ------------------------------------------------------------------------------------------------------- */

static json_t *node_json(const struct shelf_node_info *node) {
    json_t *object = json_pack("{s:o, s:s, s:b, s:b, s:s}", "node", json_u64(node->node), "part",
                               cluster_part_name(node->part), "in_sync", node->part != SHELF_PART_LEARNER,
                               "connected", node->connected, "address", node->address);
    if (node->known) {
        (void)json_object_set_new(object, "index", json_u64(node->index));
        (void)json_object_set_new(object, "behind_records", json_u64(node->behind_records));
        (void)json_object_set_new(object, "behind_bytes", json_u64(node->behind_bytes));
    }
    if (node->silent_ms != UINT64_MAX) {
        (void)json_object_set_new(object, "silent_ms", json_u64(node->silent_ms));
    }
    return object;
}

json_t *status_cluster_json(const struct shelf_cluster_info *info) {
    char state[CLUSTER_WORDS_MAX], outlook[CLUSTER_WORDS_MAX];
    bool well = cluster_state_words(info, state);
    uint32_t spare = cluster_spare(info->in_sync, info->copies_min), away = cluster_away(info);
    bool settled = info->coordinator_reachable && !info->coordinator_refused;
    json_t *nodes = json_array();
    cluster_outlook_words(info, outlook);
    for (uint32_t i = 0; i < info->node_count; i++) {
        (void)json_array_append_new(nodes, node_json(&info->nodes[i]));
    }
    json_t *coordinator =
        json_pack("{s:s, s:b, s:b, s:I, s:s}", "place", info->coordinator, "reachable",
                  info->coordinator_reachable, "refused", info->coordinator_refused, "for_ms",
                  (json_int_t)info->coordinator_ms, "text", info->coordinator_text);
    return json_pack("{s:s, s:I, s:s, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s, s:I, s:s, s:o, s:o}",
                     "name", info->name, "node", (json_int_t)info->node, "part",
                     cluster_part_name(info->part), "serves", info->serves, "changing", info->changing,
                     "primary", (json_int_t)info->primary, "epoch", (json_int_t)info->epoch, "silent_ms",
                     (json_int_t)info->silent_ms, "in_sync", (json_int_t)info->in_sync, "copies",
                     (json_int_t)info->copies, "copies_min", (json_int_t)info->copies_min, "well", well,
                     "state", state, "may_fail", (json_int_t)(settled && spare > away ? spare - away : 0),
                     "outlook", outlook, "coordinator", coordinator, "nodes", nodes);
}
