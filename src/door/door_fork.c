// SPDX-License-Identifier: Apache-2.0
/*
 * door_fork.c: a child of this process has none of the door's descriptors.
 *
 * A child shares what its parent has open. It would keep the sockets of clients open when the node dies, so that they never
 * learn of it; and the listening one, at which programs would connect to nobody.
 */
#include <unistd.h>

#include "door/door_state.h"

static pthread_mutex_t doors_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list doors;

static void on_prepare(void) {
    (void)pthread_mutex_lock(&doors_lock);
    LIST_FOREACH(link, &doors) {
        (void)pthread_mutex_lock(&LIST_ENTRY(link, struct door, fork_link)->lock);
    }
}

static void on_parent(void) {
    LIST_FOREACH(link, &doors) {
        (void)pthread_mutex_unlock(&LIST_ENTRY(link, struct door, fork_link)->lock);
    }
    (void)pthread_mutex_unlock(&doors_lock);
}

static void fd_close(int fd) {
    if (fd >= 0) {
        (void)close(fd);
    }
}

static void door_close_all(const struct door *door) {
    for (uint32_t i = 0; i < door->listener_count; i++) {
        fd_close(door->listeners[i].fd);
    }
    LIST_FOREACH(link, &door->clients) {
        const struct client *client = LIST_ENTRY(link, struct client, link);
        fd_close(client->socket.fd);
        fd_close(client->process.fd);
    }
    fd_close(door->epoll);
    fd_close(door->bell.fd);
    fd_close(door->directory);
    fd_close(door->reserve);
}

static void on_child(void) {
    for (struct list *link; (link = list_pop_front(&doors)) != NULL;) {
        struct door *door = LIST_ENTRY(link, struct door, fork_link);
        door_close_all(door);
        (void)pthread_mutex_unlock(&door->lock);
    }
    (void)pthread_mutex_unlock(&doors_lock);
}

static void doors_begin(void) {
    list_init(&doors);
    (void)pthread_atfork(on_prepare, on_parent, on_child);
}

void fork_begin(struct door *door) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, doors_begin);
    (void)pthread_mutex_lock(&doors_lock);
    list_push_back(&doors, &door->fork_link);
    (void)pthread_mutex_unlock(&doors_lock);
}

void fork_end(struct door *door) {
    (void)pthread_mutex_lock(&doors_lock);
    list_unlink(&door->fork_link);
    (void)pthread_mutex_unlock(&doors_lock);
}
