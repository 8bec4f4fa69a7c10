// SPDX-License-Identifier: Apache-2.0
/*
 * node_cluster.c: how what happens in a cluster gets through the core: messages of peers, the coordinator's answers, time.
 *
 *   M1  Messages that a step makes are handed over before its ios are begun, and before the next step: their bodies are lent
 *       (core.h). So whoever drives the core sends them, at once.
 *   M2  What a step leaves to be done (effects.more) is done before the core is released, up to a bound; then it falls to the
 *       background thread.
 *   M3  A request that found no room is tried again after every one of these events: an acknowledgement of a peer makes
 *       room as an io does.
 */
#include "node/node_state.h"

enum { MORE_MAX = 256 }; /* steps in a row, while others wait for the core */

void cluster_effects(struct node *node) {
    const struct effects *effects = &node->effects;
    const struct node_cluster *cluster = node->cluster;
    for (uint32_t i = 0; i < effects->message_count; i++) { /* M1 */
        cluster->send(cluster->context, effects->messages[i].node, &effects->messages[i].message);
    }
    if (effects->swap) {
        cluster->swap(cluster->context, effects->swap_from, effects->swap);
    }
    if (effects->look) {
        cluster->look(cluster->context);
    }
    node->more = effects->more;
}

void cluster_go_on_more(struct node *node) {
    for (uint32_t i = 0; node->more && i < MORE_MAX && !node->stopped; i++) {
        node_step(node, &(struct event){.kind = EVENT_GO_ON}, node->held);
    }
    node->more = node->more && !node->stopped;
    node->told_background |= node->more; /* M2 */
}

static void cluster_step(struct node *node, struct node_driver *driver, struct event *event) {
    core_enter(node);
    if (!node->stopped) {
        node_step(node, event, node->held);
        refused_retry(node); /* M3 */
    }
    struct call *self = driver ? &driver->call : NULL;
    duty_do(node, self, core_leave(node, self));
}

void node_cluster_message(struct node_driver *driver, const struct peer_message *message) {
    cluster_step(driver->node, driver, &(struct event){.kind = EVENT_MESSAGE, .message = message});
}

void node_cluster_gone(struct node_driver *driver, uint64_t peer) {
    cluster_step(driver->node, driver, &(struct event){.kind = EVENT_GONE, .peer = peer});
}

void node_cluster_swap(struct node *node, enum swap_result result, const struct configuration *present) {
    cluster_step(node, NULL,
                 &(struct event){.kind = EVENT_SWAP, .swap_result = result, .configuration = present});
}

void node_cluster_register(struct node *node, const struct configuration *present) {
    cluster_step(node, NULL, &(struct event){.kind = EVENT_REGISTER, .configuration = present});
}

void node_cluster_tick(struct node *node) {
    cluster_step(node, NULL, &(struct event){.kind = EVENT_TICK, .group_only = true});
}

void node_cluster_end(struct node *node, bool checkpoint) {
    cluster_step(node, NULL, &(struct event){.kind = EVENT_CLOSE, .checkpoint = checkpoint});
}

void node_cluster_get(struct node *node, struct core_cluster *ret_cluster) {
    core_enter(node);
    core_cluster_get(node->core, ret_cluster);
    (void)core_leave(node, NULL);
}

bool node_is_alone(const struct node *node) {
    return node->cluster == NULL;
}

bool node_cluster_info(struct node *node, struct shelf_cluster_info *ret_info) {
    if (node->cluster) {
        node->cluster->info(node->cluster->context, ret_info);
    }
    return node->cluster != NULL;
}
