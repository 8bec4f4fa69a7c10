// SPDX-License-Identifier: Apache-2.0
/* shelfd_sockets.h: the sockets that shelfd listens on besides DIR/sock: its own (--socket), and those that systemd passes. */
#ifndef CMD_SHELFD_SOCKETS_H
#define CMD_SHELFD_SOCKETS_H

#include "door/door.h"

struct sockets {
    int fds[DOOR_LISTEN_MAX];
    uint32_t count;
    const char *path; /* of our own, to be removed at the end; NULL: none */
    char why[512];    /* after a failure */
};

/* `path` may be "". INVALID, BUSY (somebody listens there), DENIED, NOT_FOUND, IO; then nothing is left to undo. */
shelf_result sockets_open(struct sockets *sockets, const char *path);
/* Removes the socket's name. The descriptors belong to the door. */
void sockets_close(struct sockets *sockets);

#endif
