// SPDX-License-Identifier: Apache-2.0
/* peer_address.c: see peer_address.h. */
#include "peer/peer_address.h"

#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- The text ----------------------------------------------------------------------------------------------------- */

const char *peer_address_split(const char *address, char ret_host[PEER_HOST_MAX],
                               char ret_port[PEER_PORT_MAX]) {
    const char *colon = strrchr(address, ':'), *host = address, *host_end = colon;
    if (!colon) {
        return "an address is HOST:PORT or [HOST]:PORT";
    }
    if (address[0] == '[') {
        host = address + 1;
        host_end = colon - 1;
        if (host_end < host || *host_end != ']') {
            return "an address is HOST:PORT or [HOST]:PORT";
        }
    } else if (memchr(address, ':', (size_t)(colon - address))) {
        return "an address with more than one colon is written as [HOST]:PORT";
    }
    size_t host_size = (size_t)(host_end - host), port_size = strlen(colon + 1);
    if (host_size == 0 || host_size >= PEER_HOST_MAX) {
        return "an address names a host, of at most 255 bytes";
    }
    if (port_size == 0 || port_size > 5 || strspn(colon + 1, "0123456789") != port_size ||
        strtoul(colon + 1, NULL, 10) > 65535) {
        return "a port is a number from 0 to 65535";
    }
    memcpy(ret_host, host, host_size);
    ret_host[host_size] = 0;
    memcpy(ret_port, colon + 1, port_size + 1);
    return NULL;
}

void peer_address_print(const struct peer_socket_address *address, char *ret_text, size_t size) {
    char host[PEER_HOST_MAX], port[PEER_PORT_MAX];
    if (getnameinfo(&address->any, address->size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        (void)snprintf(ret_text, size, "?");
        return;
    }
    (void)snprintf(ret_text, size, address->any.sa_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

/* ---- What it means ------------------------------------------------------------------------------------------------ */

const char *peer_place_find(const char *host, const char *port, bool numeric, bool passive,
                            struct peer_place *ret_place) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (numeric ? AI_NUMERICHOST : 0) |
                                         (passive ? AI_PASSIVE : 0)};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0) {
        return gai_strerror(error);
    }
    *ret_place = (struct peer_place){0};
    for (struct addrinfo *at = found; at && ret_place->count < PEER_SOCKETS_MAX; at = at->ai_next) {
        struct peer_socket_address *address = &ret_place->addresses[ret_place->count];
        if (at->ai_addrlen <= sizeof(address->storage)) {
            memcpy(&address->storage, at->ai_addr, at->ai_addrlen);
            address->size = at->ai_addrlen;
            ret_place->count++;
        }
    }
    freeaddrinfo(found);
    return ret_place->count > 0 ? NULL : "the name has no address";
}

/* ---- By a thread -------------------------------------------------------------------------------------------------- */

struct peer_lookup {
    atomic_int users; /* the thread and whoever began it; the last one frees it */
    atomic_bool done; /* what follows is not written any more */
    struct peer_place place;
    const char *problem;
    int wake_fd;
    char host[PEER_HOST_MAX], port[PEER_PORT_MAX];
};

void peer_lookup_end(struct peer_lookup *lookup) {
    if (atomic_fetch_sub(&lookup->users, 1) == 1) {
        (void)close(lookup->wake_fd);
        free(lookup);
    }
}

static void *lookup_main(void *context) {
    struct peer_lookup *lookup = context;
    uint64_t one = 1;
    lookup->problem = peer_place_find(lookup->host, lookup->port, false, false, &lookup->place);
    atomic_store(&lookup->done, true);
    (void)!write(lookup->wake_fd, &one, sizeof(one));
    peer_lookup_end(lookup);
    return NULL;
}

static bool thread_detached(void *(*main)(void *), void *context) {
    sigset_t all, before;
    pthread_t thread;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, NULL, main, context);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0) {
        (void)pthread_detach(thread);
    }
    return error == 0;
}

struct peer_lookup *peer_lookup_begin(const char *host, const char *port, int wake_fd) {
    struct peer_lookup *lookup = calloc(1, sizeof(*lookup));
    if (!lookup) {
        return NULL;
    }
    atomic_store(&lookup->users, 2);
    (void)snprintf(lookup->host, sizeof(lookup->host), "%s", host);
    (void)snprintf(lookup->port, sizeof(lookup->port), "%s", port);
    lookup->wake_fd = fcntl(wake_fd, F_DUPFD_CLOEXEC, 0);
    if (lookup->wake_fd < 0 || !thread_detached(lookup_main, lookup)) {
        if (lookup->wake_fd >= 0) {
            (void)close(lookup->wake_fd);
        }
        free(lookup);
        return NULL;
    }
    return lookup;
}

bool peer_lookup_done(const struct peer_lookup *lookup, struct peer_place *ret_place,
                      const char **ret_problem) {
    if (!atomic_load(&lookup->done)) {
        return false;
    }
    *ret_place = lookup->place;
    *ret_problem = lookup->problem;
    return true;
}
