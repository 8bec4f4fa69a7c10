// SPDX-License-Identifier: Apache-2.0
/* replay.h: works through the gateways' events once more, in the order in which the engine took them. */
#ifndef EXCHANGE_REPLAY_H
#define EXCHANGE_REPLAY_H

#include "compare.h"
#include "options.h"

/* Takes the gateways' inputs, not what they submitted; that is compared with them, and so is the order ("inboxes",
 * "arrivals"). Returns an exit code; DIFFERENT is in the findings. */
int arrivals_replay(const struct options *options, struct store *store, struct plain *plain,
                    struct findings *findings);

#endif
