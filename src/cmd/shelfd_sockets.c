// SPDX-License-Identifier: Apache-2.0
/* shelfd_sockets.c: see shelfd_sockets.h. */
#include "cmd/shelfd_sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

__attribute__((format(printf, 3, 4))) static shelf_result refuse(struct sockets *sockets, shelf_result result,
                                                                 const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(sockets->why, sizeof(sockets->why), format, arguments);
    va_end(arguments);
    return result;
}

static shelf_result errno_refuse(struct sockets *sockets, const char *path, const char *what) {
    int error = errno;
    shelf_result result = error == EACCES || error == EPERM ? SHELF_DENIED
                          : error == ENOENT                 ? SHELF_NOT_FOUND
                          : error == EADDRINUSE             ? SHELF_BUSY
                                                            : SHELF_IO;
    return refuse(sockets, result, "socket %s: %s: %s", path, what, strerror(error));
}

/* ---- Passed by systemd --------------------------------------------------------------------------------------------- */

static shelf_result activated_take(struct sockets *sockets) {
    int count = sd_listen_fds(1);
    if (count < 0) {
        return refuse(sockets, SHELF_INVALID, "LISTEN_FDS: %s", strerror(-count));
    }
    if (count > DOOR_LISTEN_MAX - 1) { /* one is kept for a socket of our own */
        return refuse(sockets, SHELF_INVALID, "LISTEN_FDS passes %d sockets; at most %d are taken", count,
                      DOOR_LISTEN_MAX - 1);
    }
    for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + count; fd++) {
        if (sd_is_socket_unix(fd, SOCK_SEQPACKET, 1, NULL, 0) <= 0) {
            return refuse(sockets, SHELF_INVALID,
                          "descriptor %d of LISTEN_FDS is no listening Unix socket for packets; use "
                          "ListenSequentialPacket= with a path",
                          fd);
        }
        (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        sockets->fds[sockets->count++] = fd;
    }
    return SHELF_OK;
}

/* ---- Our own ------------------------------------------------------------------------------------------------------- */

/* What a daemon that was killed has left is removed; what somebody listens on, or what is no socket, is not. */
static shelf_result stale_remove(struct sockets *sockets, const struct sockaddr_un *address) {
    struct stat status;
    if (lstat(address->sun_path, &status) != 0) {
        return SHELF_OK; /* bind will tell */
    }
    if (!S_ISSOCK(status.st_mode)) {
        return refuse(sockets, SHELF_EXISTS, "socket %s: there is something else of that name, which is kept",
                      address->sun_path);
    }
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return errno_refuse(sockets, address->sun_path, "no socket can be made");
    }
    int result = connect(fd, (const struct sockaddr *)address, sizeof(*address));
    int error = errno;
    (void)close(fd);
    if (result == 0 || error == EAGAIN) { /* EAGAIN: so many that they queue */
        return refuse(sockets, SHELF_BUSY,
                      "socket %s: another process listens on it; end it first, or name another",
                      address->sun_path);
    }
    if (error != ECONNREFUSED) {
        errno = error;
        return errno_refuse(sockets, address->sun_path, "the one that is there cannot be replaced");
    }
    return unlink(address->sun_path) == 0
               ? SHELF_OK
               : errno_refuse(sockets, address->sun_path, "what an earlier process left cannot be removed");
}

static shelf_result own_make(struct sockets *sockets, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        return refuse(sockets, SHELF_INVALID,
                      "socket %s: the path is longer than the %zu bytes that the system allows", path,
                      sizeof(address.sun_path) - 1);
    }
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    shelf_result result = stale_remove(sockets, &address);
    if (result != SHELF_OK) {
        return result;
    }
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return errno_refuse(sockets, path, "no socket can be made");
    }
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        result = errno_refuse(sockets, path, "it cannot be made");
        (void)close(fd);
        return result;
    }
    /* Who may do what is decided by the regions' owners, groups and modes. */
    if (chmod(path, 0666) != 0 || listen(fd, SOMAXCONN) != 0) {
        result = errno_refuse(sockets, path, "it cannot be listened on");
        (void)unlink(path);
        (void)close(fd);
        return result;
    }
    sockets->fds[sockets->count++] = fd;
    sockets->path = path;
    return SHELF_OK;
}

/* ---- The whole ----------------------------------------------------------------------------------------------------- */

shelf_result sockets_open(struct sockets *sockets, const char *path) {
    *sockets = (struct sockets){.count = 0};
    shelf_result result = activated_take(sockets);
    return result == SHELF_OK && path[0] ? own_make(sockets, path) : result;
}

void sockets_close(struct sockets *sockets) {
    if (sockets->path) {
        (void)unlink(sockets->path);
    }
}
