// SPDX-License-Identifier: Apache-2.0
/*
 * door_listen.c: the sockets that programs connect to.
 *
 *   L1  Who connects to DIR/sock finds a socket that listens: it is bound and listening under another name before it takes that one,
 *       and replaces what an earlier node has left. (Only the node of the directory gets here: it has the lock.)
 *   L2  A path may be longer than an address has room for: the directory is reached through its descriptor.
 *   L3  A connection that would have one of the last descriptors is turned away: the node needs them for its files, and for what
 *       those who are attached ask for. Without a descriptor left for a connection, a reserved one is given up for it, to turn it away; without that either, the
 *       door does not listen for a while. It never spins.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/detail.h"
#include "door/door_state.h"
#include "world/world.h"

enum {
    BACKLOG = 1024,
    ACCEPTS_A_TURN = 32,
    ACCEPT_PAUSE_MS = 100,
};
#define TEMPORARY_NAME ".sock.new"

/* ---- Open and close ----------------------------------------------------------------------------------------------- */

static int reserve_open(void) {
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* L1. -1: errno. */
static int socket_bind(int directory) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" TEMPORARY_NAME, directory);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    (void)unlinkat(directory, TEMPORARY_NAME, 0);
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
        fchmodat(directory, TEMPORARY_NAME, 0666, 0) == 0 && listen(fd, BACKLOG) == 0 &&
        renameat(directory, TEMPORARY_NAME, directory, DOOR_SOCKET_NAME) == 0) {
        return fd;
    }
    int error = errno;
    (void)unlinkat(directory, TEMPORARY_NAME, 0);
    (void)close(fd);
    errno = error;
    return -1;
}

static void listener_add(struct door *door, int fd) {
    door->listeners[door->listener_count++] = (struct source){.kind = SOURCE_LISTENER, .fd = fd};
}

static shelf_result directory_open(struct door *door) {
    const char *path = door->options.directory;
    door->directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC); /* L2 */
    int fd = door->directory < 0 ? -1 : socket_bind(door->directory);
    if (fd < 0) {
        detail_set("cannot listen on %s/" DOOR_SOCKET_NAME ": %s", path, strerror(errno));
        return errno == EACCES || errno == EPERM || errno == EROFS ? SHELF_DENIED : SHELF_UNAVAILABLE;
    }
    listener_add(door, fd);
    return SHELF_OK;
}

void listeners_adopt(struct door *door) {
    for (uint32_t i = 0; i < door->options.fd_count; i++) {
        int flags = fcntl(door->options.fds[i], F_GETFL);
        (void)fcntl(door->options.fds[i], F_SETFL, flags | O_NONBLOCK);
        listener_add(door, door->options.fds[i]);
    }
}

shelf_result listeners_open(struct door *door) {
    door->reserve = reserve_open();
    shelf_result result = door->options.directory ? directory_open(door) : SHELF_OK;
    for (uint32_t i = 0; i < door->listener_count && result == SHELF_OK; i++) {
        if (!door_watch(door, &door->listeners[i], EPOLLIN)) {
            detail_set("cannot listen: %s", strerror(errno));
            result = SHELF_UNAVAILABLE;
        }
    }
    return result;
}

void listeners_close(struct door *door) {
    for (uint32_t i = 0; i < door->listener_count; i++) {
        (void)close(door->listeners[i].fd);
    }
    if (door->listener_count > door->options.fd_count) {
        (void)unlinkat(door->directory, DOOR_SOCKET_NAME, 0);
    }
    if (door->directory >= 0) {
        (void)close(door->directory);
    }
    if (door->reserve >= 0) {
        (void)close(door->reserve);
    }
}

/* ---- Accepting ---------------------------------------------------------------------------------------------------- */

static void listeners_watch(struct door *door, uint32_t events) {
    for (uint32_t i = 0; i < door->listener_count; i++) {
        (void)door_watch(door, &door->listeners[i], events);
    }
}

void listeners_resume(struct door *door, uint64_t now_ns) {
    if (door->accept_pause_ns != 0 && now_ns >= door->accept_pause_ns) {
        door->accept_pause_ns = 0;
        listeners_watch(door, EPOLLIN);
    }
}

static void listeners_pause(struct door *door) {
    if (door->accept_pause_ns == 0) {
        door_log(door, "client.refused", "no connection can be taken now: %s", strerror(errno));
        listeners_watch(door, 0);
    }
    door->accept_pause_ns = world_monotonic_ns() + (uint64_t)ACCEPT_PAUSE_MS * 1000000;
}

/* Says why, if the socket has room for it, and hangs up. */
static void connection_refuse(int fd, const char *text) {
    struct door_refused refused = {.message = {.size = sizeof(refused), .kind = DOOR_REFUSED},
                                   .result = SHELF_UNAVAILABLE};
    uint8_t hello[sizeof(struct door_hello)];
    (void)snprintf(refused.text, sizeof(refused.text), "%s", text);
    (void)send(fd, &refused, sizeof(refused), MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)recv(fd, hello, sizeof(hello), MSG_DONTWAIT); /* or the answer might be lost with it */
    (void)close(fd);
}

static const char no_descriptors[] =
    "the node has no descriptors left for another program; raise its limit of open files (ulimit -n)";

/* L3 */
static void connection_turn_away(struct door *door, const struct source *listener) {
    int fd = -1;
    if (door->reserve >= 0) {
        (void)close(door->reserve);
        fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            connection_refuse(fd, no_descriptors);
        }
        door->reserve = reserve_open();
    }
    if (fd < 0 || door->reserve < 0) {
        listeners_pause(door);
    } else {
        door_log(door, "client.refused", "%s", no_descriptors);
    }
}

static bool accept_is_short(int error) {
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

/* A connection, in the list of clients, or refused, and why. -1: errno. */
static int connection_take(struct door *door, const struct source *listener, struct client **ret_client,
                           const char **ret_refusal) {
    *ret_client = NULL;
    (void)pthread_mutex_lock(&door->lock);
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int error = errno;
    if (fd >= 0 && door->client_count >= door->options.clients_max) {
        *ret_refusal = "the node has as many clients as it takes";
    } else if (fd >= 0 && world_descriptors_short(fd)) {
        *ret_refusal = no_descriptors;
    } else if (fd >= 0) {
        *ret_client = client_make(door, fd);
        *ret_refusal = "the node has no memory left";
    }
    if (fd >= 0 && !*ret_client) {
        connection_refuse(fd, *ret_refusal);
    }
    (void)pthread_mutex_unlock(&door->lock);
    errno = error;
    return fd;
}

void listener_accept(struct door *door, struct source *listener) {
    for (uint32_t i = 0; i < ACCEPTS_A_TURN && door->accept_pause_ns == 0; i++) {
        struct client *client;
        const char *refusal = "";
        int fd = connection_take(door, listener, &client, &refusal);
        if (client) {
            client_come(client);
        } else if (fd >= 0) {
            door_log(door, "client.refused", "%s", refusal);
        } else if (accept_is_short(errno)) {
            connection_turn_away(door, listener);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) { /* a socket that was handed in, and is none */
            listeners_pause(door);
        }
    }
}
