// SPDX-License-Identifier: Apache-2.0
/*
 * service_poll.c: programs that poll for their completions take them from the ring themselves.
 *
 *     node -> [ring] -> bell -> the program's poll() -> shelf_completions() -> done()
 *
 * Without it the service's own thread would be woken for every batch of answers, only to wake the program. Once a program has
 * asked for the descriptor (an epoll of the queue's and of the guest's socket), the ring *rests* whenever nobody receives: it
 * says that the client sleeps, so that the next answer rings the bell, which the program hears. Then:
 *
 *   P1  When nobody receives and the ring does not rest, somebody is about to look: the thread was kicked, or is on its way.
 *   P2  A thread that waits for what only answers bring, and cannot take them itself (service_poll_hold), has the service's
 *       thread receive meanwhile, as for programs that never poll.
 *   P3  The bell's packet is read only by who takes the replies then and lets the ring rest again; so what polls readable
 *       stays so until the program has looked.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/detail.h"
#include "client/service_state.h"

static bool watch(const struct service *service, int fd) {
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(service->poll_fd, EPOLL_CTL_ADD, fd, &event) == 0 || errno == EEXIST;
}

bool service_polled(const struct service *service) {
    return service->poll_fd >= 0 && service->poll_holds == 0 && !service->closing;
}

/* A socket that is closed leaves the epoll by itself, so those of retired guests are taken out, which are open for longer. */
void service_poll_guest(struct service *service, const struct guest *before, const struct guest *guest) {
    if (service->poll_fd < 0)
        return;
    if (before)
        (void)epoll_ctl(service->poll_fd, EPOLL_CTL_DEL, before->fd, NULL);
    if (guest && !watch(service, guest->fd))
        service->poll_holds++; /* for good: the thread receives, as without it */
    service_kick(service);
}

bool service_poll_rest(struct service *service) {
    return guest_sleep_begin(service->guest,
                             list_is_empty(&service->unsent) ? 0 : service->guest->submit_tail);
}

/* Takes what there is, until the ring rests. With the mutex. False: the node is gone, or mad. */
static bool take(struct service *service, struct node_request **ret_done) {
    bool sane = true;
    if (!service_polled(service) || service->receiving || service->state != SERVICE_ATTACHED)
        return true;
    do {
        guest_sleep_end(service->guest);
        sane = service_take(service, service->guest, ret_done);
        while (*ret_done)
            ret_done = &(*ret_done)->next;
        if (sane)
            service_pump(service);
    } while (sane && !service_poll_rest(service));
    return sane;
}

void service_poll_look(struct service *service) {
    struct node_request *done = NULL;
    if (atomic_load_explicit(&service->poll_fd, memory_order_relaxed) < 0)
        return;
    pthread_mutex_lock(&service->mutex);
    struct guest *guest = service->guest;
    bool sane = take(service, &done);
    pthread_mutex_unlock(&service->mutex);
    node_requests_deliver(done);
    if (!sane)
        service_lost(service, guest);
}

int service_poll_fd(struct service *service, int queue_fd) {
    pthread_mutex_lock(&service->mutex);
    if (service->poll_fd < 0 && service->state != SERVICE_NODE) {
        service->poll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (service->poll_fd >= 0 && !watch(service, queue_fd)) {
            (void)close(service->poll_fd);
            service->poll_fd = -1;
        }
        if (service->poll_fd >= 0)
            service_poll_guest(service, NULL, service->state == SERVICE_ATTACHED ? service->guest : NULL);
    }
    int fd = service->poll_fd >= 0 ? service->poll_fd : queue_fd;
    pthread_mutex_unlock(&service->mutex);
    return fd;
}

void service_poll_hold(struct service *service, bool on) {
    pthread_mutex_lock(&service->mutex);
    service->poll_holds += on ? 1 : -1u;
    if (service->poll_fd >= 0 && service->poll_holds == (on ? 1 : 0))
        service_kick(service);
    pthread_mutex_unlock(&service->mutex);
}
