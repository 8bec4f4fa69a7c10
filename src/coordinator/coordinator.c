// SPDX-License-Identifier: Apache-2.0
/* coordinator.c: between a coordinator's thread and its users. */
#include "coordinator/coordinator.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/assert.h"
#include "coordinator/coordinator_state.h"
#include "world/world.h"

void coordinator_text(char ret_text[COORDINATOR_TEXT_MAX], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(ret_text, COORDINATOR_TEXT_MAX, format, arguments);
    va_end(arguments);
}

/* ---- Opening and closing ------------------------------------------------------------------------------------------- */

bool coordinator_init(struct coordinator *coordinator, const struct coordinator_backend *backend) {
    coordinator->backend = backend;
    coordinator->since_ns = world_monotonic_ns();
    list_init(&coordinator->asked);
    list_init(&coordinator->answered);
    (void)pthread_mutex_init(&coordinator->lock, NULL);
    coordinator->table = calloc(1, sizeof(*coordinator->table));
    coordinator->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return coordinator->table != NULL && coordinator->fd >= 0;
}

static void *thread_main(void *context) {
    struct coordinator *coordinator = context;
    coordinator->backend->run(coordinator);
    return NULL;
}

/* Signals are for the program's own threads. */
bool coordinator_begin(struct coordinator *coordinator) {
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&coordinator->thread, NULL, thread_main, coordinator);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error == 0;
}

void coordinator_free(struct coordinator *coordinator) {
    if (coordinator->fd >= 0) {
        (void)close(coordinator->fd);
    }
    free(coordinator->table);
    (void)pthread_mutex_destroy(&coordinator->lock);
    coordinator->backend->free(coordinator);
}

void coordinator_close(struct coordinator *coordinator) {
    (void)pthread_mutex_lock(&coordinator->lock);
    coordinator->closing = true;
    (void)pthread_mutex_unlock(&coordinator->lock);
    coordinator->backend->wake(coordinator);
    (void)pthread_join(coordinator->thread, NULL);
    coordinator_free(coordinator);
}

/* ---- For the users -------------------------------------------------------------------------------------------------- */

/* With the lock: the descriptor can be read exactly as long as there is something to take. */
static void fd_update(struct coordinator *coordinator) {
    bool wanted =
        !list_is_empty(&coordinator->answered) || coordinator_table_news_pending(coordinator->table);
    uint64_t count = 1;
    if (wanted != coordinator->fd_set) {
        ssize_t size = wanted ? write(coordinator->fd, &count, sizeof(count))
                              : read(coordinator->fd, &count, sizeof(count));
        ASSERT(size == sizeof(count));
        coordinator->fd_set = wanted;
    }
}

void coordinator_start(struct coordinator *coordinator, struct coordinator_ask *ask) {
    const char *problem = coordinator_ask_problem(ask);
    list_init(&ask->link);
    if (problem) {
        coordinator_remark(coordinator, problem);
        coordinator_answer(coordinator, ask, COORDINATOR_REFUSED);
        return;
    }
    (void)pthread_mutex_lock(&coordinator->lock);
    list_push_back(&coordinator->asked, &ask->link);
    (void)pthread_mutex_unlock(&coordinator->lock);
    coordinator->backend->wake(coordinator);
}

int coordinator_fd(const struct coordinator *coordinator) {
    return coordinator->fd;
}

struct coordinator_ask *coordinator_take(struct coordinator *coordinator) {
    (void)pthread_mutex_lock(&coordinator->lock);
    struct list *link = list_pop_front(&coordinator->answered);
    fd_update(coordinator);
    (void)pthread_mutex_unlock(&coordinator->lock);
    return link ? LIST_ENTRY(link, struct coordinator_ask, link) : NULL;
}

bool coordinator_news_take(struct coordinator *coordinator, struct coordinator_news *ret_news) {
    (void)pthread_mutex_lock(&coordinator->lock);
    bool found = coordinator_table_news(coordinator->table, ret_news);
    fd_update(coordinator);
    (void)pthread_mutex_unlock(&coordinator->lock);
    return found;
}

void coordinator_status_get(struct coordinator *coordinator, struct coordinator_status *ret_status) {
    (void)pthread_mutex_lock(&coordinator->lock);
    *ret_status = coordinator->status;
    ret_status->for_ms = (world_monotonic_ns() - coordinator->since_ns) / 1000000;
    (void)pthread_mutex_unlock(&coordinator->lock);
}

/* ---- For the thread ------------------------------------------------------------------------------------------------ */

bool coordinator_closing(struct coordinator *coordinator) {
    (void)pthread_mutex_lock(&coordinator->lock);
    bool closing = coordinator->closing;
    (void)pthread_mutex_unlock(&coordinator->lock);
    return closing;
}

struct coordinator_ask *coordinator_next(struct coordinator *coordinator) {
    (void)pthread_mutex_lock(&coordinator->lock);
    struct list *link = list_pop_front(&coordinator->asked);
    (void)pthread_mutex_unlock(&coordinator->lock);
    return link ? LIST_ENTRY(link, struct coordinator_ask, link) : NULL;
}

void coordinator_answer(struct coordinator *coordinator, struct coordinator_ask *ask, uint32_t outcome) {
    ask->outcome = outcome;
    if (outcome != COORDINATOR_OK && outcome != COORDINATOR_LOST) {
        ask->state = (struct register_state){0};
    }
    (void)pthread_mutex_lock(&coordinator->lock);
    list_push_back(&coordinator->answered, &ask->link);
    fd_update(coordinator);
    (void)pthread_mutex_unlock(&coordinator->lock);
}

struct coordinator_table *coordinator_table_lock(struct coordinator *coordinator) {
    (void)pthread_mutex_lock(&coordinator->lock);
    return coordinator->table;
}

void coordinator_table_unlock(struct coordinator *coordinator) {
    fd_update(coordinator);
    (void)pthread_mutex_unlock(&coordinator->lock);
}

static void reachable_set(struct coordinator *coordinator, bool reachable) {
    if (coordinator->status.reachable != reachable) {
        coordinator->status.reachable = reachable;
        coordinator->since_ns = world_monotonic_ns();
    }
}

void coordinator_reached(struct coordinator *coordinator, const char *place, uint64_t revision) {
    (void)pthread_mutex_lock(&coordinator->lock);
    struct coordinator_status *status = &coordinator->status;
    reachable_set(coordinator, true);
    status->refused = false;
    status->revision = revision > status->revision ? revision : status->revision;
    status->text[0] = 0;
    coordinator_text(status->place, "%s", place);
    (void)pthread_mutex_unlock(&coordinator->lock);
}

void coordinator_lost(struct coordinator *coordinator, bool refused, const char *text) {
    (void)pthread_mutex_lock(&coordinator->lock);
    reachable_set(coordinator, false);
    coordinator->status.refused = refused;
    coordinator_text(coordinator->status.text, "%s", text);
    (void)pthread_mutex_unlock(&coordinator->lock);
}

void coordinator_remark(struct coordinator *coordinator, const char *text) {
    (void)pthread_mutex_lock(&coordinator->lock);
    coordinator_text(coordinator->status.text, "%s", text);
    (void)pthread_mutex_unlock(&coordinator->lock);
}

void coordinator_watching_set(struct coordinator *coordinator, bool watching) {
    (void)pthread_mutex_lock(&coordinator->lock);
    coordinator->status.watching = watching;
    (void)pthread_mutex_unlock(&coordinator->lock);
}
