// SPDX-License-Identifier: Apache-2.0
/*
 * service.c: the life of a service: opening, and what happens when the node goes.
 *
 *     open ──> NODE                              ┌────────────────┐
 *       └────> ATTACHED ── node gone ──> DOWN ───┤ found another  ├──> ATTACHED
 *                                                │ has the lock   ├──> NODE      (a directory only)
 *                                                └────────────────┘
 *
 * Its thread sleeps on the socket, for nothing but its end, while programs' threads take what comes themselves. When the node has
 * gone it looks for the next one: the operating system releases a dead node's lock, so whoever gets it is the next
 * node; the others find that one's socket.
 */
#include "client/service.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/detail.h"
#include "client/service_state.h"
#include "world/world.h"

enum {
    SEARCH_MS_MIN = 1, /* between two looks for a node, doubling */
    SEARCH_MS_MAX = 100,
    RETIRE_MS = 100,
    TIDY_MS = 10000,
};

/* ---- Waking ------------------------------------------------------------------------------------------------------- */

void service_kick(struct service *service) {
    (void)!write(service->kick_fd, &(uint64_t){1}, sizeof(uint64_t));
}

/* With the mutex. */
void waiter_wake(struct waiter *waiter) {
    if (list_is_empty(&waiter->link)) /* it does not sleep */
        return;
    atomic_store(&waiter->word, 1);
    futex_wake(&waiter->word, 1);
}

void waiters_wake_all(struct service *service) {
    LIST_FOREACH(link, &service->waiters) {
        waiter_wake(LIST_ENTRY(link, struct waiter, link));
    }
}

void service_lost(struct service *service, struct guest *guest) {
    pthread_mutex_lock(&service->mutex);
    if (service->guest == guest && service->state == SERVICE_ATTACHED) {
        service->state = SERVICE_DOWN;
        service->lost_ns = world_monotonic_ns();
        (void)snprintf(service->fault, sizeof(service->fault),
                       "the node has gone, and no other is there yet");
        service_poll_guest(service, guest, NULL);
        guest_hang_up(guest);
        asks_end(service);
        waiters_wake_all(service);
        service_kick(service);
    }
    pthread_mutex_unlock(&service->mutex);
}

/* ---- Replicas ----------------------------------------------------------------------------------------------------- */

static uint64_t replica_applied(const struct replica *replica) {
    return atomic_load_explicit(&replica->image->applied, memory_order_acquire);
}

static const struct replica *replica_now(struct service *service) {
    return atomic_load_explicit(&service->host->replica, memory_order_acquire);
}

/* Transactions begin with it from now on (S2). Sleepers of the one before begin again. With the mutex. */
static void replica_switch(struct service *service, const struct replica *replica) {
    atomic_store(&service->host->replica, replica);
    LIST_FOREACH(link, &service->sleepers) {
        const struct service_sleeper *sleeper = LIST_ENTRY(link, struct service_sleeper, link);
        if (sleeper->replica != replica)
            world_event_wake(&sleeper->replica->image->regions[sleeper->region].event);
    }
}

/* S3. With the mutex. Returns whether any are left. */
static bool guests_retire(struct service *service) {
    struct list kept;
    list_init(&kept);
    for (struct list *link; (link = list_pop_front(&service->retired)) != NULL;) {
        struct guest *guest = LIST_ENTRY(link, struct guest, link);
        if (guest == service->in_use || tx_replica_used(&guest->replica))
            list_push_back(&kept, link);
        else
            guest_free(guest);
    }
    for (struct list *link; (link = list_pop_front(&kept)) != NULL;)
        list_push_back(&service->retired, link);
    return !list_is_empty(&service->retired);
}

/* ---- The next node ------------------------------------------------------------------------------------------------ */

/* With the mutex. */
static void guest_begin(struct service *service, struct guest *guest) {
    struct guest *before = service->guest;
    service->guest = guest;
    service->state = SERVICE_ATTACHED;
    service_poll_guest(service, NULL, guest);
    replica_switch(service, &guest->replica);
    if (before) {
        service->reconnects++;
        list_push_back(&service->retired, &before->link);
        pendings_resend(service);
        service_pump(service);
        waiters_wake_all(service);
    }
}

/* S2: a node that came back older than what was read here is left alone until it has caught up. */
static bool is_older(struct service *service, const struct replica *replica) {
    const struct replica *now = replica_now(service);
    return now && replica_applied(replica) < replica_applied(now);
}

static shelf_result attach(struct service *service) {
    struct guest *guest;
    shelf_result result = guest_open(service->socket_path, &guest);
    if (result != SHELF_OK)
        return result;
    if (is_older(service, &guest->replica)) {
        guest_free(guest);
        detail_set("the node is older than what was read here");
        return SHELF_UNAVAILABLE;
    }
    if (service->guest && !guest_regions_follow(guest, service->guest)) {
        guest_free(guest);
        detail_set("the node went before its regions were mapped");
        return SHELF_NOT_FOUND;
    }
    pthread_mutex_lock(&service->mutex);
    guest_begin(service, guest);
    pthread_mutex_unlock(&service->mutex);
    return SHELF_OK;
}

/* The lock is ours, and the door open. */
static void node_begin(struct service *service, struct node *node, struct door *door) {
    pthread_mutex_lock(&service->mutex);
    struct guest *before = service->guest;
    service->guest = NULL;
    service->door = door;
    service->state = SERVICE_NODE;
    replica_switch(service, node_replica(node));
    atomic_store_explicit(&service->node, node, memory_order_release);
    struct node_request *posts = NULL;
    if (before) {
        service->takeovers++;
        list_push_back(&service->retired, &before->link);
        posts = pendings_hand_over(service);
        waiters_wake_all(service);
    }
    pthread_mutex_unlock(&service->mutex);
    while (posts) {
        struct node_request *next = posts->next;
        node_post(node, posts);
        posts = next;
    }
}

static shelf_result become_node(struct service *service) {
    struct node *node;
    struct door *door = NULL;
    struct shelf_options options = service->options;
    if (service->guest) /* there was a shelf, whoever made it */
        options.flags &= ~(uint32_t)(SHELF_OPEN_CREATE | SHELF_OPEN_EXCLUSIVE);
    shelf_result result = node_open(service->path, &options, &node);
    if (result != SHELF_OK)
        return result;
    if (!(options.flags & SHELF_OPEN_ALONE)) {
        struct door_options door_options = {.directory = service->path};
        result = door_open(node, &door_options, &door);
    }
    if (result == SHELF_OK && is_older(service, node_replica(node))) {
        detail_set("the shelf is older than what was read here");
        result = SHELF_CORRUPT;
    }
    if (result != SHELF_OK) {
        char text[200];
        (void)snprintf(text, sizeof(text), "%s", detail_text());
        if (door)
            door_close(door);
        (void)node_close(node);
        detail_set("%s", text);
        return result;
    }
    node_begin(service, node, door);
    return SHELF_OK;
}

/* A directory that a daemon keeps is never taken, but by who wants to be alone: a daemon that is restarted finds it free. */
static shelf_result daemon_search(struct service *service) {
    if (service->options.flags & SHELF_OPEN_EXCLUSIVE) {
        detail_set("%s has a shelf already", service->path);
        return SHELF_EXISTS;
    }
    shelf_result result = attach(service);
    if (result == SHELF_NOT_FOUND) {
        detail_set("%s belongs to shelfd, which is not running: start it, or remove the file `daemon` there, "
                   "or open with "
                   "SHELF_OPEN_ALONE",
                   service->path);
        return SHELF_UNAVAILABLE;
    }
    return result;
}

/* One look for somebody who serves. NOT_FOUND, BUSY, TIMEOUT, of a daemon's directory UNAVAILABLE: nobody yet. */
static shelf_result node_search(struct service *service) {
    if (!service->directory)
        return attach(service);
    if (!(service->options.flags & SHELF_OPEN_ALONE) && world_has_daemon(service->path))
        return daemon_search(service);
    shelf_result result = become_node(service);
    if (result != SHELF_BUSY && result != SHELF_DENIED)
        return result;
    if ((service->options.flags & SHELF_OPEN_ALONE) || world_is_alone(service->path))
        return result;
    shelf_result attached = attach(service);
    return attached == SHELF_NOT_FOUND ? result : attached;
}

static void sleep_ms(uint32_t time_ms) {
    (void)nanosleep(&(struct timespec){.tv_sec = time_ms / 1000, .tv_nsec = (long)(time_ms % 1000) * 1000000},
                    NULL);
}

/* ---- The thread --------------------------------------------------------------------------------------------------- */

static bool searches(struct service *service) {
    pthread_mutex_lock(&service->mutex);
    bool on = service->state == SERVICE_DOWN && !service->closing;
    pthread_mutex_unlock(&service->mutex);
    return on;
}

static void fault_note(struct service *service) {
    pthread_mutex_lock(&service->mutex);
    (void)snprintf(service->fault, sizeof(service->fault), "%s", detail_text());
    pthread_mutex_unlock(&service->mutex);
}

static void search(struct service *service) {
    for (uint32_t pause_ms = SEARCH_MS_MIN; searches(service);) {
        if (node_search(service) == SHELF_OK) {
            if (service->host->renewed)
                service->host->renewed(service->host);
            return;
        }
        fault_note(service);
        sleep_ms(pause_ms);
        pause_ms = pause_ms * 2 > SEARCH_MS_MAX ? SEARCH_MS_MAX : pause_ms * 2;
    }
}

/* Until it is kicked, or the node goes. */
static void thread_sleep(struct service *service, int guest_fd, int timeout_ms) {
    struct pollfd fds[2] = {{.fd = service->kick_fd, .events = POLLIN}, {.fd = guest_fd, .events = 0}};
    (void)poll(fds, 2, timeout_ms);
    if (fds[0].revents)
        (void)!read(service->kick_fd, &(uint64_t){0}, sizeof(uint64_t));
}

static bool hung_up(const struct guest *guest) {
    struct pollfd fd = {.fd = guest->fd, .events = 0};
    return poll(&fd, 1, 0) == 1;
}

static void *thread_main(void *context) {
    struct service *service = context;
    pthread_mutex_lock(&service->mutex);
    while (!service->closing) {
        if (service->state == SERVICE_DOWN) {
            pthread_mutex_unlock(&service->mutex);
            search(service);
            pthread_mutex_lock(&service->mutex);
            continue;
        }
        if (service_polled(service)) {
            pthread_mutex_unlock(&service->mutex);
            service_poll_look(service);
            pthread_mutex_lock(&service->mutex);
        } else if (service->async_count > 0) {
            service_receive_async(service);
        }
        bool retiring = guests_retire(service);
        struct guest *guest = service->state == SERVICE_ATTACHED ? service->guest : NULL;
        pthread_mutex_unlock(&service->mutex);
        thread_sleep(service, guest ? guest->fd : -1, retiring ? RETIRE_MS : guest ? TIDY_MS : -1);
        if (guest && hung_up(guest))
            service_lost(service, guest);
        else if (guest)
            guest_regions_tidy(guest);
        pthread_mutex_lock(&service->mutex);
    }
    pthread_mutex_unlock(&service->mutex);
    return NULL;
}

static bool thread_begin(struct service *service) {
    service->thread_begun = world_thread_begin(&service->thread, "shelf-guest", thread_main, service);
    return service->thread_begun;
}

/* ---- Open and close ----------------------------------------------------------------------------------------------- */

static void service_free(struct service *service) {
    for (struct list *link; (link = list_pop_front(&service->retired)) != NULL;)
        guest_free(LIST_ENTRY(link, struct guest, link));
    if (service->guest)
        guest_free(service->guest);
    if (service->pendings)
        (void)munmap(service->pendings, PENDINGS_MAX * sizeof(struct pending));
    if (service->kick_fd >= 0)
        (void)close(service->kick_fd);
    if (service->poll_fd >= 0)
        (void)close(service->poll_fd);
    (void)pthread_mutex_destroy(&service->mutex);
    free(service);
}

static struct service *service_make(const char *path, bool directory, const struct shelf_options *options,
                                    struct tx_host *host) {
    struct service *service = calloc(1, sizeof(*service));
    if (!service)
        return NULL;
    service->host = host;
    service->directory = directory;
    service->options = *options;
    service->state = SERVICE_DOWN;
    service->poll_fd = -1;
    (void)pthread_mutex_init(&service->mutex, NULL);
    struct list *lists[] = {&service->retired, &service->waiters, &service->sleepers,
                            &service->unsent,  &service->sent,    &service->asks};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        list_init(lists[i]);
    (void)snprintf(service->path, sizeof(service->path), "%s", path);
    (void)snprintf(service->socket_path, sizeof(service->socket_path), directory ? "%s/%s" : "%s", path,
                   DOOR_SOCKET_NAME);
    service->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    void *pendings = mmap(NULL, PENDINGS_MAX * sizeof(struct pending), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    service->pendings = pendings == MAP_FAILED ? NULL : pendings;
    if (service->kick_fd >= 0 && service->pendings)
        return service;
    service_free(service);
    return NULL;
}

/* Another node may be about to come up, or to go: worth waiting for. */
static bool worth_waiting(const struct service *service, shelf_result result) {
    switch (result) {
    case SHELF_TIMEOUT: /* it listens and does not answer, yet */
        return true;
    case SHELF_NOT_FOUND:
        return !service->directory;
    case SHELF_UNAVAILABLE:
        return service->directory && world_has_daemon(service->path);
    case SHELF_BUSY:
        return !(service->options.flags & SHELF_OPEN_ALONE) && !world_is_alone(service->path);
    default:
        return false;
    }
}

shelf_result service_open(const char *path, bool directory, const struct shelf_options *options,
                          struct tx_host *host, struct service **ret_service) {
    if (strlen(path) >= sizeof(((struct service *)0)->path)) {
        detail_set("the path is longer than %zu bytes", sizeof(((struct service *)0)->path) - 1);
        return SHELF_INVALID;
    }
    struct service *service = service_make(path, directory, options, host);
    if (!service) {
        detail_set("no memory or descriptors for a handle");
        return SHELF_NO_MEMORY;
    }
    uint64_t until_ns = world_monotonic_ns() + (uint64_t)options->open_deadline_ms * 1000000;
    shelf_result result = node_search(service);
    for (uint32_t pause_ms = SEARCH_MS_MIN;
         worth_waiting(service, result) && world_monotonic_ns() < until_ns;) {
        sleep_ms(pause_ms);
        pause_ms = pause_ms * 2 > SEARCH_MS_MAX ? SEARCH_MS_MAX : pause_ms * 2;
        result = node_search(service);
    }
    if (result == SHELF_OK && !atomic_load(&service->node) && !thread_begin(service)) {
        detail_set("the system refuses a thread");
        result = SHELF_NO_MEMORY;
    }
    if (result != SHELF_OK) {
        service_free(service);
        return result;
    }
    *ret_service = service;
    return SHELF_OK;
}

shelf_result service_close(struct service *service) {
    pthread_mutex_lock(&service->mutex);
    service->closing = true;
    service_kick(service);
    pthread_mutex_unlock(&service->mutex);
    if (service->thread_begun)
        (void)pthread_join(service->thread, NULL);
    struct node *node = atomic_load(&service->node);
    if (service->door)
        door_close(service->door);
    shelf_result result = node ? node_close(node) : SHELF_OK;
    service_free(service);
    return result;
}

/* ---- Sleepers, and what there is to say --------------------------------------------------------------------------- */

static struct guest *guest_of(struct service *service, const struct replica *replica) {
    struct guest *found = service->guest;
    LIST_FOREACH(link, &service->retired) {
        struct guest *guest = LIST_ENTRY(link, struct guest, link);
        found = &guest->replica == replica ? guest : found;
    }
    return found;
}

static void waiters_count(struct service *service, const struct replica *replica, int change) {
    struct node *node = atomic_load(&service->node);
    if (node && replica == node_replica(node))
        node_waiters_add(node, change);
    else
        (void)atomic_fetch_add(&guest_of(service, replica)->ring->waiters, (uint32_t)change);
}

bool service_sleep_begin(struct service *service, struct service_sleeper *sleeper) {
    pthread_mutex_lock(&service->mutex);
    bool present = sleeper->replica == replica_now(service);
    if (present) {
        list_push_back(&service->sleepers, &sleeper->link);
        waiters_count(service, sleeper->replica, 1);
    }
    pthread_mutex_unlock(&service->mutex);
    return present;
}

void service_sleep_end(struct service *service, struct service_sleeper *sleeper) {
    pthread_mutex_lock(&service->mutex);
    list_unlink(&sleeper->link);
    waiters_count(service, sleeper->replica, -1);
    pthread_mutex_unlock(&service->mutex);
}

static struct service_look image_look(const struct image *image) {
    return (struct service_look){
        .applied = atomic_load_explicit(&image->applied, memory_order_acquire),
        .contact_ms = atomic_load_explicit(&image->contact_ms, memory_order_relaxed),
    };
}

struct service_look service_look(struct service *service) {
    const struct node *node = atomic_load_explicit(&service->node, memory_order_acquire);
    if (node) /* stays */
        return image_look(node_replica(node)->image);
    pthread_mutex_lock(&service->mutex); /* S3: who retires a guest holds it */
    struct service_look look = image_look(replica_now(service)->image);
    pthread_mutex_unlock(&service->mutex);
    return look;
}

void service_status_get(struct service *service, struct service_status *ret_status) {
    pthread_mutex_lock(&service->mutex);
    bool down = service->state == SERVICE_DOWN;
    uint64_t replicas = 1;
    LIST_FOREACH(link, &service->retired) {
        replicas++;
    }
    *ret_status = (struct service_status){
        .connected = !down,
        .is_node = service->state == SERVICE_NODE,
        .away_ms = down ? (world_monotonic_ns() - service->lost_ns) / 1000000 : 0,
        .reconnects = service->reconnects,
        .takeovers = service->takeovers,
        .replicas = replicas,
    };
    pthread_mutex_unlock(&service->mutex);
}
