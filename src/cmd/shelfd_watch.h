// SPDX-License-Identifier: Apache-2.0
/*
 * shelfd_watch.h: is the node alive? A thread of its own asks it, so that the main one is not stuck if the node is.
 */
#ifndef CMD_SHELFD_WATCH_H
#define CMD_SHELFD_WATCH_H

#include "node/node.h"

struct watch;

struct watch_answer {
    struct shelf_info info;
    char fault[256]; /* "" while the node goes on */
    bool renewed;    /* it has stopped only to be started again */
};

/* NULL: no thread, or no memory. */
struct watch *watch_open(struct node *node);
/* Asks, and waits for the answer up to that time. False: none came; it is waited for again the next time. */
bool watch_ask(struct watch *watch, uint32_t timeout_ms, struct watch_answer *ret_answer);
/* If an answer is still owed, the thread is left behind. */
void watch_close(struct watch *watch);

#endif
