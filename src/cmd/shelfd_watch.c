// SPDX-License-Identifier: Apache-2.0
/* shelfd_watch.c: see shelfd_watch.h. One question at a time: `asked` and `answered` count them. */
#include "cmd/shelfd_watch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct watch {
    struct node *node;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* Under the mutex. */
    uint64_t asked, answered;
    bool quit;
    struct watch_answer answer;
};

static void node_ask(struct node *node, struct watch_answer *ret_answer) {
    node_info(node, &ret_answer->info);
    (void)snprintf(ret_answer->fault, sizeof(ret_answer->fault), "%s", node_fault(node));
    ret_answer->renewed = node_outdated(node);
}

static void *watch_main(void *context) {
    struct watch *watch = context;
    (void)pthread_mutex_lock(&watch->mutex);
    while (!watch->quit) {
        if (watch->asked == watch->answered) {
            (void)pthread_cond_wait(&watch->changed, &watch->mutex);
            continue;
        }
        struct watch_answer answer;
        (void)pthread_mutex_unlock(&watch->mutex);
        node_ask(watch->node, &answer);
        (void)pthread_mutex_lock(&watch->mutex);
        watch->answer = answer;
        watch->answered = watch->asked;
        (void)pthread_cond_broadcast(&watch->changed);
    }
    (void)pthread_mutex_unlock(&watch->mutex);
    return NULL;
}

struct watch *watch_open(struct node *node) {
    struct watch *watch = calloc(1, sizeof(*watch));
    if (!watch) {
        return NULL;
    }
    pthread_condattr_t attributes;
    watch->node = node;
    (void)pthread_condattr_init(&attributes);
    (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&watch->changed, &attributes);
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_mutex_init(&watch->mutex, NULL);
    if (pthread_create(&watch->thread, NULL, watch_main, watch) != 0) {
        (void)pthread_cond_destroy(&watch->changed);
        (void)pthread_mutex_destroy(&watch->mutex);
        free(watch);
        return NULL;
    }
    (void)pthread_setname_np(watch->thread, "shelfd-watch");
    return watch;
}

static struct timespec time_after(uint32_t timeout_ms) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += timeout_ms / 1000;
    time.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    time.tv_sec += time.tv_nsec / 1000000000;
    time.tv_nsec %= 1000000000;
    return time;
}

bool watch_ask(struct watch *watch, uint32_t timeout_ms, struct watch_answer *ret_answer) {
    struct timespec until = time_after(timeout_ms);
    int error = 0;
    (void)pthread_mutex_lock(&watch->mutex);
    if (watch->asked == watch->answered) {
        watch->asked++;
        (void)pthread_cond_broadcast(&watch->changed);
    }
    while (watch->asked != watch->answered && error == 0) {
        error = pthread_cond_timedwait(&watch->changed, &watch->mutex, &until);
    }
    bool is_answered = watch->asked == watch->answered;
    if (is_answered) {
        *ret_answer = watch->answer;
    }
    (void)pthread_mutex_unlock(&watch->mutex);
    return is_answered;
}

void watch_close(struct watch *watch) {
    (void)pthread_mutex_lock(&watch->mutex);
    watch->quit = true;
    bool is_stuck = watch->asked != watch->answered;
    (void)pthread_cond_broadcast(&watch->changed);
    (void)pthread_mutex_unlock(&watch->mutex);
    if (is_stuck) {
        (void)pthread_detach(watch->thread);
        return;
    }
    (void)pthread_join(watch->thread, NULL);
    (void)pthread_cond_destroy(&watch->changed);
    (void)pthread_mutex_destroy(&watch->mutex);
    free(watch);
}
