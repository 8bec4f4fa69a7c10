// SPDX-License-Identifier: Apache-2.0
/*
 * peer_address.h: HOST:PORT, and what it means. Numeric hosts are known at once; names are asked for by a thread, as that may
 * take many seconds. A look-up that nobody wants any more ends by itself.
 */
#ifndef PEER_PEER_ADDRESS_H
#define PEER_PEER_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

#define PEER_SOCKETS_MAX 8u
#define PEER_HOST_MAX    256u
#define PEER_PORT_MAX    8u

struct peer_socket_address {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage storage;
    };
    socklen_t size;
};

struct peer_place { /* of one HOST:PORT */
    uint32_t count;
    struct peer_socket_address addresses[PEER_SOCKETS_MAX];
};

/* NULL: good; else what is wrong. */
const char *peer_address_split(const char *address, char ret_host[PEER_HOST_MAX],
                               char ret_port[PEER_PORT_MAX]);
void peer_address_print(const struct peer_socket_address *address, char *ret_text, size_t size);

/* Waits for a name server if `numeric` is false. NULL: at least one was found; else why not. */
const char *peer_place_find(const char *host, const char *port, bool numeric, bool passive,
                            struct peer_place *ret_place);

struct peer_lookup; /* owned by whoever began it */
/* Writes to its own copy of `wake_fd`, an eventfd, when it is done. NULL: no memory or no thread. */
struct peer_lookup *peer_lookup_begin(const char *host, const char *port, int wake_fd);
/* False: not yet. */
bool peer_lookup_done(const struct peer_lookup *lookup, struct peer_place *ret_place,
                      const char **ret_problem);
void peer_lookup_end(struct peer_lookup *lookup);

#endif
