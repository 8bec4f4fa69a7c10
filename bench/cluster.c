// SPDX-License-Identifier: Apache-2.0
// cluster.c: a cluster of shelfd processes on this machine, with an etcd of one member. They die with the benchmark.
//
// All settings are the usual ones, but where no takeover is measured none shall happen only because the machine is busy:
// there the nodes are patient.
#include "bench.h"

#include <stdio.h>
#include <unistd.h>

static const uint64_t patience_ns = 30000000000u;

void cluster_node_begin(struct cluster *c, size_t position) {
    char etcd[64], address[64], number[16], name[16];
    (void)snprintf(etcd, sizeof(etcd), "http://127.0.0.1:%u", c->etcd.members[0].port);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", c->ports[position]);
    (void)snprintf(number, sizeof(number), "%zu", position + 1);
    (void)snprintf(name, sizeof(name), "node.%zu", position + 1);
    const struct server_setting settings_of_it[] = {{"SHELF_ETCD", etcd},
                                                    {"SHELF_NODE_ADDRESS", address},
                                                    {"SHELF_NODE_ID", number},
                                                    {c->patient ? "SHELF_SUSPECT" : NULL, "5s"},
                                                    {NULL, NULL}};
    server_begin_with(&c->nodes[position], name, settings_of_it);
}

shelf *cluster_attach(const struct cluster *c, size_t position) {
    return server_attach(&c->nodes[position]);
}

size_t cluster_primary_wait(const struct cluster *c, shelf *s, size_t in_sync) {
    for (uint64_t until = now_ns() + patience_ns; now_ns() < until; (void)usleep(2000)) {
        struct shelf_cluster_info info;
        must(shelf_cluster_get(s, &info), "shelf_cluster_get");
        if (info.primary > 0 && info.primary <= c->count && info.in_sync >= in_sync && !info.changing)
            return (size_t)info.primary - 1;
    }
    fail("the nodes do not come together");
}

bool cluster_is_level(const struct cluster *c, shelf *s, uint64_t *ret_epoch) {
    struct shelf_cluster_info info;
    must(shelf_cluster_get(s, &info), "shelf_cluster_get");
    size_t level = 0;
    for (size_t i = 0; i < info.node_count; i++) {
        const struct shelf_node_info *n = &info.nodes[i];
        level += n->connected && n->known && n->part != SHELF_PART_LEARNER && n->behind_records == 0;
    }
    if (info.part != SHELF_PART_PRIMARY || !info.serves || level != c->count)
        return false;
    *ret_epoch = info.epoch;
    return true;
}

void cluster_begin(struct cluster *c, bool patient) {
    *c = (struct cluster){.count = CLUSTER_NODES, .patient = patient};
    etcd_begin(&c->etcd, 1);
    progress("starting the nodes");
    for (size_t i = 0; i < c->count; i++) {
        c->ports[i] = loopback_port();
        cluster_node_begin(c, i);
    }
}

shelf *cluster_make(struct cluster *c) {
    cluster_begin(c, true);
    shelf *s = cluster_attach(c, 0);
    c->primary = cluster_primary_wait(c, s, c->count);
    if (c->primary == 0)
        return s;
    must(shelf_close(s), "shelf_close");
    return cluster_attach(c, c->primary);
}

void cluster_end(struct cluster *c) {
    for (size_t i = 0; i < c->count; i++)
        server_end(&c->nodes[i]);
    etcd_end(&c->etcd);
}
