// SPDX-License-Identifier: Apache-2.0
/*
 * retire.c: a node of a cluster is closed (EVENT_CLOSE).
 *
 *     DRAINS      a primary admits nothing more; what it has admitted is committed and applied
 *     HANDS_OVER  it has the register name another member, one that has all of its log. Nobody leads that epoch: it carries no
 *                 nonce of a process (C2), and whoever finds itself named takes the next one at once (T1). So the old primary leads
 *                 on until others promise, as before any other takeover
 *     LINGERS     it follows, since its acknowledgement may be needed, until the next primary has committed something
 *     RESTS       it hears and says nothing more; what is committed is applied; then it closes as a lone node does
 *
 *   X1  None of this takes longer than the bound: if nobody is there to take over, it closes all the same, as if it had died.
 *   X2  The hint says "clean" only if all that is in the log is applied. A record whose fate is open stays in the log.
 *   X3  A node that retires never tries to lead.
 */
#include "core/state.h"

static bool is_late(const struct core *core, uint64_t part) {
    const struct cluster *cluster = &core->cluster;
    return cluster->now_ms - cluster->retire_ms >= part * 3 * core->config.group.suspect_ms;
}

static void enter(struct core *core, enum retire_state state) {
    core->cluster.retire = state;
    core->effects->more = true;
}

/* Everything that was admitted has been answered. */
static bool is_drained(const struct core *core) {
    return core->building->tx_count == 0 && core->log.writing == NULL && core->log.applying == NULL &&
           core->control.state == CONTROL_IDLE;
}

static void rest(struct core *core) {
    group_let_go(&core->cluster.group); /* nobody is there to take over: who waits is told UNKNOWN */
    enter(core, RETIRE_RESTS);
}

static void drain(struct core *core) {
    if (!core->cluster.leading) {
        rest(core);
    } else if (is_drained(core) || is_late(core, 1)) { /* X1 */
        enter(core, RETIRE_HANDS_OVER);
    }
}

static void hand_over(struct core *core) {
    struct cluster *cluster = &core->cluster;
    if (!cluster->leading) {
        SOMETIMES(CLUSTER_HANDED_OVER);
        cluster->retire_last = core->log.last.index;
        enter(core, RETIRE_LINGERS);
    } else if (is_late(core, 2) || cluster->group.known.member_count == 1) {
        rest(core);
    } else {
        group_hand_over(&cluster->group);
    }
}

static bool log_rests(const struct core *core) {
    const struct cluster *cluster = &core->cluster;
    bool writes = cluster->write_io.busy || cluster->write_waits || cluster->cut_io.busy ||
                  cluster->cut_wanted || core->log.write.busy || core->log.write_waits_space ||
                  core->log.last.index != core->log.durable_index;
    return !writes && cluster->abdication == ABDICATION_NONE;
}

void retire_continue(struct core *core) {
    struct cluster *cluster = &core->cluster;
    if (!core->closing || !cluster->running) {
        return;
    }
    switch ((enum retire_state)cluster->retire) {
    case RETIRE_NONE:
        cluster->retire_ms = cluster->now_ms;
        group_retire(&cluster->group); /* X3 */
        enter(core, RETIRE_DRAINS);
        break;
    case RETIRE_DRAINS:
        drain(core);
        break;
    case RETIRE_HANDS_OVER:
        hand_over(core);
        break;
    case RETIRE_LINGERS:
        if (cluster->commit > cluster->retire_last || is_late(core, 3)) {
            rest(core);
        }
        break;
    case RETIRE_RESTS:
        break;
    }
}

bool retire_rests(const struct core *core) {
    return core->cluster.retire == RETIRE_RESTS;
}

/* May the core close now? Of a lone node: always. */
bool retire_done(const struct core *core) {
    const struct cluster *cluster = &core->cluster;
    if (!cluster->on) {
        return true;
    }
    uint64_t limit = min_u64(cluster->commit, core->log.durable_index);
    bool ios = cluster->apply_io.busy || cluster->follow_left > 0 || cluster->serve_io.busy ||
               cluster->donate.io.busy || cluster->promise_io.busy;
    return retire_rests(core) && log_rests(core) && (core->applied >= limit || is_late(core, 4)) && !ios;
}

/* X2 */
bool retire_clean(const struct core *core) {
    return !core->cluster.on || core->applied == core->log.last.index || MUTANT(CLOSED_CLEAN_ALWAYS);
}
