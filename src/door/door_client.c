// SPDX-License-Identifier: Apache-2.0
/*
 * door_client.c: a client comes and goes.
 *
 *     accept -> [silent] -> HELLO -> [attached: ring, socket] -> broken -> disconnected -> ghost, until its requests are done
 *
 * It goes when its process dies (the process's own descriptor tells, also if a child still has the socket), when it closes the
 * socket, and when it breaks a rule: all the same. What it submitted completely is finished; nobody is told. The unnamed sessions
 * that it opened are expired, so that programs that come and go leave nothing behind.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bits.h"
#include "door/door_state.h"
#include "wire/image.h"
#include "world/world.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* ---- Who it is ---------------------------------------------------------------------------------------------------- */

static bool groups_read(struct client *client) {
    socklen_t size = 0;
    (void)getsockopt(client->socket.fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size);
    if (size == 0) {
        return true;
    }
    client->groups = malloc(size);
    if (!client->groups ||
        getsockopt(client->socket.fd, SOL_SOCKET, SO_PEERGROUPS, client->groups, &size) != 0) {
        return false;
    }
    client->credentials.groups = client->groups;
    client->credentials.group_count = (uint32_t)(size / sizeof(client->groups[0]));
    return true;
}

/* Tells of its process's death. Without one (an older kernel, or it is dead already) the socket has to do. */
static int process_open(const struct client *client) {
    int fd = -1;
    socklen_t size = sizeof(fd);
    if (getsockopt(client->socket.fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0) {
        return fd;
    }
    return errno == ENOPROTOOPT ? (int)syscall(SYS_pidfd_open, (pid_t)client->process_id, 0) : -1;
}

static bool credentials_read(struct client *client) {
    struct ucred peer;
    socklen_t size = sizeof(peer);
    if (getsockopt(client->socket.fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
        return false;
    }
    client->credentials.user = peer.uid;
    client->credentials.group = peer.gid;
    client->process_id = (uint32_t)peer.pid;
    client->process.fd = process_open(client);
    return groups_read(client);
}

/* ---- Coming ------------------------------------------------------------------------------------------------------- */

struct client *client_make(struct door *door, int fd) {
    struct client *client = calloc(1, sizeof(*client));
    if (!client) {
        return NULL;
    }
    client->door = door;
    client->node = door->node;
    client->id = ++door->id_next;
    client->socket = (struct source){.kind = SOURCE_SOCKET, .fd = fd, .client = client};
    client->process = (struct source){.kind = SOURCE_PROCESS, .fd = -1, .client = client};
    client->begin_ns = world_monotonic_ns();
    atomic_init(&client->references, 1);
    (void)pthread_mutex_init(&client->lock, NULL);
    list_init(&client->link);
    list_init(&client->active_link);
    list_init(&client->asks);
    list_init(&client->asks_done);
    list_init(&client->unsent);
    list_push_back(&door->clients, &client->link);
    door->client_count++;
    return client;
}

void client_release(struct client *client) {
    if (atomic_fetch_sub(&client->references, 1) > 1) {
        return;
    }
    (void)pthread_mutex_destroy(&client->lock);
    free(client->groups);
    free(client->owned);
    free(client);
}

/* Of the places for clients, so many may be taken by connections that have not said HELLO. */
static uint32_t silent_max(const struct door *door) {
    return door->options.clients_max / 2 + 1;
}

/* Those who connect and say nothing must not keep others out: the oldest of them goes. What it has said may lie here unread,
 * though: a crowd comes faster than it is listened to. */
static void silent_bound(struct door *door) {
    LIST_FOREACH(link, &door->clients) {
        struct client *client = LIST_ENTRY(link, struct client, link);
        if (door->silent_count <= silent_max(door)) {
            return;
        }
        if (!client->attached && !client->broken) {
            messages_take(client);
            if (!client->attached && !client->broken) {
                client_break(client, "it has not said HELLO");
            }
            if (client->broken) {
                client_disconnect(client);
            }
        }
    }
}

void client_come(struct client *client) {
    struct door *door = client->door;
    door->silent_count++;
    if (!credentials_read(client) || !door_watch(door, &client->socket, EPOLLIN) ||
        (client->process.fd >= 0 && !door_watch(door, &client->process, EPOLLIN))) {
        client_break(client, "the system refuses memory for it");
        client_disconnect(client);
        return;
    }
    silent_bound(door);
}

static void client_refuse(struct client *client, shelf_result result, const char *text) {
    struct door_refused refused = {.message = {.size = sizeof(refused), .kind = DOOR_REFUSED},
                                   .result = (uint32_t)result};
    (void)snprintf(refused.text, sizeof(refused.text), "%s", text);
    door_log(client->door, "client.refused", "client %llu, process %u, user %u: %s",
             (unsigned long long)client->id, client->process_id, client->credentials.user, text);
    message_send(client, &refused, sizeof(refused), NULL, 0);
    client_break(client, "");
}

static void client_welcome(struct client *client, int ring_fd) {
    struct node_identity identity = node_identity(client->node);
    struct door_welcome welcome = {
        .message = {.size = sizeof(welcome), .kind = DOOR_WELCOME},
        .magic = DOOR_MAGIC,
        .version = DOOR_VERSION,
        .image_bytes = sizeof(struct image),
        .ring_bytes = RING_BYTES,
        .node_process = (uint32_t)getpid(),
        .client = client->id,
        .epoch = identity.epoch,
    };
    memcpy(welcome.shelf_id, identity.shelf_id, sizeof(welcome.shelf_id));
    int fds[2] = {node_image_share(client->node), ring_fd};
    if (fds[0] < 0) {
        (void)close(ring_fd);
        client_refuse(client, SHELF_UNAVAILABLE, "the node has no descriptors left");
        return;
    }
    message_send(client, &welcome, sizeof(welcome), fds, 2);
}

/* Printable ASCII, whatever came. */
static void program_copy(struct client *client, const struct door_hello *hello) {
    for (size_t i = 0; i + 1 < sizeof(client->program) && hello->program[i] != 0; i++) {
        char c = hello->program[i];
        client->program[i] = (char)(c >= ' ' && c <= '~' ? c : '?');
    }
}

void client_attach(struct client *client, const struct door_hello *hello) {
    struct door *door = client->door;
    if (hello->magic != DOOR_MAGIC || hello->version != DOOR_VERSION) {
        char text[128];
        (void)snprintf(text, sizeof(text),
                       "it has version %u of the protocol between programs and nodes, the program has %u; "
                       "update the older one",
                       DOOR_VERSION, hello->version);
        client_refuse(client, SHELF_FORMAT, text);
        return;
    }
    int ring_fd = ring_make(client);
    if (ring_fd < 0) {
        client_refuse(client, SHELF_UNAVAILABLE, "the node has no memory or descriptors left for a ring");
        return;
    }
    (void)pthread_mutex_lock(&door->lock);
    program_copy(client, hello);
    client->waiters.count = &client->ring->waiters;
    client->attached = true;
    (void)pthread_mutex_unlock(&door->lock);
    door->silent_count--;
    node_waiters_join(client->node, &client->waiters);
    door_log(door, "client.attached", "client %llu, process %u, user %u", (unsigned long long)client->id,
             client->process_id, client->credentials.user);
    client_welcome(client, ring_fd);
}

/* ---- Going -------------------------------------------------------------------------------------------------------- */

void client_break(struct client *client, const char *rule) {
    if (!client->broken) {
        client->broken = rule;
        list_unlink(&client->active_link);
        client->door->broken_count++;
    }
}

static void source_close(struct door *door, struct source *source) {
    if (source->fd >= 0) {
        door_unwatch(door, source);
        (void)close(source->fd);
        source->fd = -1;
    }
}

/* From now on nobody is told of anything. */
static void client_part(struct client *client, struct owned_session **ret_owned, uint32_t *ret_count) {
    (void)pthread_mutex_lock(&client->lock);
    client->gone = true;
    ring_unmap(client);
    *ret_owned = client->owned;
    *ret_count = client->owned_count;
    client->owned = NULL;
    client->owned_count = client->owned_max = 0;
    LIST_FOREACH(link, &client->asks_done) {
        free(LIST_ENTRY(link, struct ask, link));
    }
    list_init(&client->asks_done);
    (void)pthread_mutex_unlock(&client->lock);
}

/* It is nobody's any more: no descriptor of it remains. */
static void client_unlist(struct client *client) {
    struct door *door = client->door;
    (void)pthread_mutex_lock(&door->lock);
    source_close(door, &client->socket);
    source_close(door, &client->process);
    list_unlink(&client->link);
    door->client_count--;
    (void)pthread_mutex_unlock(&door->lock);
}

/* Nobody looks at its ring any more but those who have its lock. */
static void client_detach(struct client *client) {
    struct door *door = client->door;
    (void)pthread_mutex_lock(&door->lock);
    client->attached = false;
    (void)pthread_mutex_unlock(&door->lock);
    node_waiters_leave(client->node, &client->waiters);
    door_log(door, "client.gone", "client %llu, process %u, user %u", (unsigned long long)client->id,
             client->process_id, client->credentials.user);
}

void client_disconnect(struct client *client) {
    struct door *door = client->door;
    struct owned_session *owned;
    uint32_t owned_count;
    if (client->broken[0] != 0) {
        door_log(door, "client.broke-rule", "client %llu, process %u, user %u: %s",
                 (unsigned long long)client->id, client->process_id, client->credentials.user,
                 client->broken);
    }
    door->broken_count--;
    door->ask_count -= client->ask_count;
    door->silent_count -= !client->attached;
    if (client->attached) {
        client_detach(client);
    }
    messages_free(client);
    client_part(client, &owned, &owned_count);
    client_unlist(client);
    free(client->partial);
    client->partial = NULL;
    if (!atomic_load(
            &door->quit)) { /* it is the node that goes: programs take their sessions to the next one */
        sessions_orphan(client, owned, owned_count);
    }
    free(owned);
    list_push_back(&door->ghosts, &client->link);
}

void clients_watch(struct door *door, uint64_t now_ns) {
    bool full = door->ask_count > 0 && node_disk_full(door->node);
    LIST_FOREACH(link, &door->clients) {
        struct client *client = LIST_ENTRY(link, struct client, link);
        if (!client->attached && now_ns - client->begin_ns > (uint64_t)door->hello_ms * 1000000) {
            client_break(client, "it has not said HELLO");
        }
        if (!list_is_empty(&client->unsent) &&
            now_ns - client->unsent_ns > (uint64_t)door->unread_ms * 1000000) {
            client_break(client, "it does not read the answers to it");
        }
        if (full) {
            asks_give_up(client);
        }
    }
}

/* ---- For those who look ------------------------------------------------------------------------------------------- */

static struct shelf_client_info info_of(const struct client *client, uint64_t now_ns) {
    struct shelf_client_info info = {
        .client = client->id,
        .attached_ms = (now_ns - client->begin_ns) / 1000000,
        .commits = atomic_load_explicit(&client->commits, memory_order_relaxed),
        .bytes = atomic_load_explicit(&client->bytes, memory_order_relaxed),
        .pending_bytes = atomic_load_explicit(&client->pending_bytes, memory_order_relaxed),
        .pending = atomic_load_explicit(&client->pending, memory_order_relaxed),
        .regions = atomic_load_explicit(&client->regions, memory_order_relaxed),
        .process = client->process_id,
        .owner = client->credentials.user,
        .group = client->credentials.group,
        .waiters = atomic_load_explicit(client->waiters.count, memory_order_relaxed),
    };
    memcpy(info.program, client->program, sizeof(info.program));
    return info;
}

size_t door_clients(struct door *door, uint64_t from, struct shelf_client_info *ret_infos, size_t count_max) {
    uint64_t now_ns = world_monotonic_ns();
    size_t count = 0, filled = 0;
    (void)pthread_mutex_lock(&door->lock);
    LIST_FOREACH(link, &door->clients) {
        const struct client *client = LIST_ENTRY(link, struct client, link);
        if (!client->attached) {
            continue;
        }
        count++;
        if (client->id >= from && filled < count_max) {
            ret_infos[filled++] = info_of(client, now_ns);
        }
    }
    (void)pthread_mutex_unlock(&door->lock);
    return count;
}
