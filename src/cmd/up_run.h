// SPDX-License-Identifier: Apache-2.0
/* up_run.h: starting the parts of a cluster on this machine, waiting for them, and ending them. */
#ifndef CMD_UP_RUN_H
#define CMD_UP_RUN_H

#include "cmd/up_state.h"

enum { UP_ETCD = 0 }; /* else: the number of a node */

/* Ports for those that have none. Returns an exit code. */
int up_ports_choose(const struct call *call, struct up_state *state);
/* Starts it, if it does not run; *ret_started says whether. Stores the state. Returns an exit code. */
int up_start(const struct call *call, struct up_state *state, uint32_t which, bool *ret_started);
/* Ends it. Returns whether it ran. */
bool up_end(struct up_state *state, uint32_t which, int signal);
bool up_runs(const struct up_state *state, uint32_t which);

/* Until all nodes that are asked for (a bit each) are in sync, as the primary sees it and they themselves. Ends early with an exit
 * code that is not 0: one has ended, it takes too long, or the user is tired of it. `ret_infos` has a place for each node. */
int up_wait(const struct call *call, const struct up_state *state, uint32_t nodes, uint32_t wait_ms,
            struct shelf_cluster_info *ret_infos);

#endif
