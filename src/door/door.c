// SPDX-License-Identifier: Apache-2.0
/*
 * door.c: the life of a door, and its thread.
 *
 *     wake -> events (connections, messages, bells) -> rounds (rings -> node) until nothing comes -> linger -> rest
 *
 * The thread drives the node itself (node_drive): in a node that serves others it is where requests come from, and every
 * hand-over to another thread would cost as much as half a write to the disk. After an answer a client that commits in a
 * loop is back within microseconds; so the thread lingers a moment, looking at the rings of active clients, before it
 * sleeps, and those clients need not wake it.
 *
 * Events for the log: client.attached, client.gone; client.refused (no more room, another version), client.broke-rule (what it
 * did that ended it).
 */
#include "door/door.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/detail.h"
#include "door/door_state.h"
#include "world/world.h"

enum {
    EVENTS_A_TURN = 64,
    LINGER_NS = 50000, /* nothing came for so long: the thread sleeps */
    LOOK_NS = 20000,   /* between two looks at the sockets while there is much to do */
    WATCH_MS = 250,    /* between two looks at clocks, if one runs */
    SHARE_MS = 1,      /* ... at clients that wait for their shares */
    DRAIN_MS = 10000,  /* how long a closing door waits for requests under way */
};

/* ---- Small things ------------------------------------------------------------------------------------------------- */

void door_log(const struct door *door, const char *event, const char *format, ...) {
    char text[256];
    va_list arguments;
    if (!door->options.log) {
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    door->options.log(door->options.log_context, event, text);
}

bool door_watch(struct door *door, struct source *source, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(door->epoll, EPOLL_CTL_MOD, source->fd, &event) == 0 ||
           (errno == ENOENT && epoll_ctl(door->epoll, EPOLL_CTL_ADD, source->fd, &event) == 0);
}

void door_unwatch(struct door *door, struct source *source) {
    (void)epoll_ctl(door->epoll, EPOLL_CTL_DEL, source->fd, NULL);
}

void bell_ring(struct door *door) {
    uint64_t one = 1;
    (void)!write(door->bell.fd, &one, sizeof(one));
}

/* ---- Events ------------------------------------------------------------------------------------------------------- */

/* Somebody has something for this thread; who, is told by flags. */
static void bell_answer(struct door *door) {
    uint64_t count;
    (void)!read(door->bell.fd, &count, sizeof(count));
    LIST_FOREACH(link, &door->clients) {
        struct client *client = LIST_ENTRY(link, struct client, link);
        if (client->blocked == BLOCKED_BYTES) {
            ring_activate(client);
        }
        if (atomic_load(&client->told) && !client->broken) {
            asks_finish(client);
        }
    }
}

static void socket_event(struct client *client, uint32_t events) {
    if (client->broken) {
        return;
    }
    if (!list_is_empty(&client->unsent)) {
        if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
            client_break(client, "");
        } else {
            unsent_send(client);
        }
        return;
    }
    uint64_t begin_ns = world_thread_ns();
    messages_take(client);
    share_charge(client, world_thread_ns() - begin_ns);
}

static void event_take(struct door *door, const struct epoll_event *event) {
    struct source *source = event->data.ptr;
    switch (source->kind) {
    case SOURCE_LISTENER:
        listener_accept(door, source);
        break;
    case SOURCE_BELL:
        bell_answer(door);
        break;
    case SOURCE_SOCKET:
        socket_event(source->client, event->events);
        break;
    case SOURCE_PROCESS:
        client_break(source->client, "");
        break;
    }
}

static void broken_disconnect(struct door *door) {
    if (door->broken_count > 0) {
        LIST_FOREACH(link, &door->clients) {
            struct client *client = LIST_ENTRY(link, struct client, link);
            if (client->broken) {
                client_disconnect(client);
            }
        }
    }
}

static void ghosts_release(struct door *door) {
    LIST_FOREACH(link, &door->ghosts) {
        struct client *client = LIST_ENTRY(link, struct client, link);
        if (atomic_load(&client->references) == 1) {
            list_unlink(link);
            client_release(client);
        }
    }
}

static bool clock_runs(const struct door *door) {
    return door->silent_count > 0 || door->unsent_count > 0 || door->ask_count > 0 ||
           door->accept_pause_ns != 0 || !list_is_empty(&door->ghosts);
}

static void clocks_look(struct door *door) {
    uint64_t now_ns = world_monotonic_ns();
    if (now_ns >= door->watch_ns) {
        door->watch_ns = now_ns + (uint64_t)WATCH_MS * 1000000;
        clients_watch(door, now_ns);
        rings_settle(door);
    }
    listeners_resume(door, now_ns);
}

/* Sleeps for an event if `sleep`; then takes what there is. */
static void events_take(struct door *door, bool sleep) {
    struct epoll_event events[EVENTS_A_TURN];
    int timeout_ms = !sleep                                               ? 0
                     : door->waiting > 0 && !list_is_empty(&door->active) ? SHARE_MS
                     : clock_runs(door)                                   ? WATCH_MS
                                                                          : -1;
    int count = epoll_wait(door->epoll, events, EVENTS_A_TURN, timeout_ms);
    if (sleep) {
        rings_wake(door);
    }
    for (int i = 0; i < count; i++) {
        event_take(door, &events[i]);
    }
    clocks_look(door);
    broken_disconnect(door);
    ghosts_release(door);
}

/* ---- Thread ------------------------------------------------------------------------------------------------------- */

/* Rounds, until it is time to look at the sockets again. */
static void rings_serve(struct door *door) {
    uint64_t begin_ns = world_monotonic_ns();
    do {
        struct node_request *first = rings_take(door);
        if (first) {
            node_drive(door->driver, first);
            door->busy_ns = world_monotonic_ns();
        } else {
            (void)sched_yield();
        }
    } while (world_monotonic_ns() - begin_ns < LOOK_NS && door->broken_count == 0);
}

static bool nothing_to_do(const struct door *door) {
    return door->broken_count == 0 &&
           (list_is_empty(&door->active) || world_monotonic_ns() - door->busy_ns > LINGER_NS);
}

static void *door_main(void *context) {
    struct door *door = context;
    while (!atomic_load(&door->quit)) {
        events_take(door, nothing_to_do(door) && rings_rest(door));
        if (!list_is_empty(&door->active)) {
            rings_serve(door);
        }
    }
    LIST_FOREACH(link, &door->clients) {
        client_break(LIST_ENTRY(link, struct client, link), "");
    }
    broken_disconnect(door);
    return NULL;
}

/* ---- Open and close ----------------------------------------------------------------------------------------------- */

static struct door *door_make(struct node *node, const struct door_options *options) {
    struct door *door = calloc(1, sizeof(*door));
    for (uint32_t i = 0; !door && i < options->fd_count; i++) {
        (void)close(options->fds[i]);
    }
    if (!door) {
        return NULL;
    }
    door->node = node;
    door->options = *options;
    if (options->clients_max == 0) {
        door->options.clients_max = CLIENTS_MAX;
    }
    if (options->client_bytes_max == 0) {
        door->options.client_bytes_max = CLIENT_BYTES_MAX;
    }
    if (options->client_requests_max == 0 || options->client_requests_max > RING_REPLIES) {
        door->options.client_requests_max = RING_REPLIES;
    }
    door->directory = door->reserve = -1;
    door->hello_ms = HELLO_MS;
    door->unread_ms = UNREAD_MS;
    list_init(&door->fork_link);
    list_init(&door->clients);
    list_init(&door->active);
    list_init(&door->ghosts);
    (void)pthread_mutex_init(&door->lock, NULL);
    door->epoll = epoll_create1(EPOLL_CLOEXEC);
    door->bell = (struct source){.kind = SOURCE_BELL, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    door->driver = node_driver_open(node, rings_take, door);
    listeners_adopt(door);
    return door;
}

static void door_free(struct door *door) {
    fork_end(door);
    listeners_close(door);
    if (door->driver) {
        node_driver_close(door->driver);
    }
    if (door->bell.fd >= 0) {
        (void)close(door->bell.fd);
    }
    if (door->epoll >= 0) {
        (void)close(door->epoll);
    }
    (void)pthread_mutex_destroy(&door->lock);
    free(door);
}

shelf_result door_open(struct node *node, const struct door_options *options, struct door **ret_door) {
    struct door *door = door_make(node, options);
    if (!door) {
        detail_set("no memory for the door");
        return SHELF_NO_MEMORY;
    }
    shelf_result result = SHELF_OK;
    if (!door->driver || door->epoll < 0 || door->bell.fd < 0 || !door_watch(door, &door->bell, EPOLLIN)) {
        detail_set("the system refuses what the door needs: %s", strerror(errno));
        result = SHELF_NO_MEMORY;
    }
    if (result == SHELF_OK) {
        result = listeners_open(door);
    }
    fork_begin(door);
    if (result == SHELF_OK && !world_thread_begin(&door->thread, "shelf-door", door_main, door)) {
        detail_set("the system refuses a thread");
        result = SHELF_NO_MEMORY;
    }
    if (result != SHELF_OK) {
        door_free(door);
        return result;
    }
    *ret_door = door;
    return SHELF_OK;
}

/* What clients have submitted is finished. A node that cannot finish it (a full disk) does not keep the door open for ever. */
static void ghosts_wait(struct door *door) {
    uint64_t until_ns = world_monotonic_ns() + (uint64_t)DRAIN_MS * 1000000;
    for (ghosts_release(door); !list_is_empty(&door->ghosts); ghosts_release(door)) {
        if (world_monotonic_ns() > until_ns) {
            return;
        }
        (void)usleep(1000);
    }
}

void door_close(struct door *door) {
    atomic_store(&door->quit, true);
    bell_ring(door);
    (void)pthread_join(door->thread, NULL);
    ghosts_wait(door);
    LIST_FOREACH(link, &door->ghosts) { /* parcel_done() frees them, if ever */
        list_unlink(link);
        client_release(LIST_ENTRY(link, struct client, link));
    }
    door_free(door);
}
