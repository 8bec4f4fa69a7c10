// SPDX-License-Identifier: Apache-2.0
/* life.h: how a process of the exchange ends: in order, on request, or violently; and what it has promised by then. */
#ifndef EXCHANGE_LIFE_H
#define EXCHANGE_LIFE_H

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct life {
    const char *acks_path; /* NULL: nobody wants to know */
    int acks;              /* file descriptor, or -1 */
    pthread_t killer;
    bool killing;
};

/* SIGINT or SIGTERM came; set once life_stoppable() was called. */
extern volatile sig_atomic_t stop_wanted;
void life_stoppable(void);

/* False, after a message, if the file cannot be opened. */
bool life_begin(struct life *life, const char *acks_path);

/* Tells the outside what is durable: a kill cannot take it back, so whoever reads it can check what a restart finds. */
void life_promise(struct life *life, uint64_t position);

/* SIGKILL somewhere in the next moments, which the caller spends committing: before, in the middle of, or after the
 * write to the disk. */
void life_kill_soon(struct life *life);

/* Does not return if it is being killed. */
void life_end(struct life *life);

#endif
