// SPDX-License-Identifier: Apache-2.0
/*
 * coordinator_state.h: what a coordinator's thread and its users share. Private to src/coordinator.
 *
 *     coordinator.c         asks, answers, news, status; the thread
 *     coordinator_file.c    a directory of register files
 *     coordinator_etcd.c    etcd: asks, readings and the watch as flights over libcurl
 *     etcd_transfer.c       one request and its answer
 *     etcd_message.c        requests and answers in JSON
 *     memory_file.c         what is remembered of etcd, durably
 */
#ifndef COORDINATOR_COORDINATOR_STATE_H
#define COORDINATOR_COORDINATOR_STATE_H

#include <pthread.h>

#include "coordinator/coordinator.h"

struct coordinator_backend {
    void (*run)(struct coordinator *coordinator);  /* the thread's life, until coordinator_closing() */
    void (*wake)(struct coordinator *coordinator); /* from any thread: there is an ask, or the end */
    void (*free)(struct coordinator *coordinator);
};

/* The first member of each implementation's own structure. */
struct coordinator {
    const struct coordinator_backend *backend;
    pthread_t thread;
    int fd;               /* an eventfd */
    pthread_mutex_t lock; /* what follows */
    bool closing;
    bool fd_set;
    struct list asked, answered;
    struct coordinator_table *table;
    struct coordinator_status status; /* for_ms is not kept */
    uint64_t since_ns;                /* of status.reachable */
};

/* Opening: init, then begin; after a failure of begin, or instead of it, free. */
bool coordinator_init(struct coordinator *coordinator, const struct coordinator_backend *backend);
bool coordinator_begin(struct coordinator *coordinator);
void coordinator_free(struct coordinator *coordinator);

/* For the thread. */
bool coordinator_closing(struct coordinator *coordinator);
struct coordinator_ask *coordinator_next(struct coordinator *coordinator); /* NULL: nothing to do */
void coordinator_answer(struct coordinator *coordinator, struct coordinator_ask *ask, uint32_t outcome);
/* Locks the table; unlocking tells the users of the news in it. */
struct coordinator_table *coordinator_table_lock(struct coordinator *coordinator);
void coordinator_table_unlock(struct coordinator *coordinator);
void coordinator_reached(struct coordinator *coordinator, const char *place, uint64_t revision);
void coordinator_lost(struct coordinator *coordinator, bool refused, const char *text);
void coordinator_remark(struct coordinator *coordinator,
                        const char *text); /* for an ask that is not allowed */
void coordinator_watching_set(struct coordinator *coordinator, bool watching);

/* printf into a text of COORDINATOR_TEXT_MAX. */
void coordinator_text(char ret_text[COORDINATOR_TEXT_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
