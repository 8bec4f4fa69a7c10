// SPDX-License-Identifier: Apache-2.0
/*
 * guest.c: the client's half of wire/ring.h and wire/door.h. What comes from the node is checked as well: a program must
 * not fall over a node that has gone mad, or is none.
 */
#include "client/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/detail.h"

enum { HANDSHAKE_MS = 10000 };
#define MAPS_BYTES  (REGION_NUMBERS * sizeof(struct region_map))
#define IMAGE_BYTES align_up(sizeof(struct image), PAGE_SIZE)

/* ---- Connecting --------------------------------------------------------------------------------------------------- */

static shelf_result refuse_errno(shelf_result result, const char *what, const char *path) {
    detail_set("%s %s: %s", what, path, strerror(errno));
    return result;
}

/* A path may be longer than an address has room for; then by way of its directory's descriptor. */
static bool address_make(const char *path, struct sockaddr_un *ret_address, int *ret_directory) {
    *ret_address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *ret_directory = -1;
    if (strlen(path) < sizeof(ret_address->sun_path)) {
        memcpy(ret_address->sun_path, path, strlen(path) + 1);
        return true;
    }
    const char *name = strrchr(path, '/');
    char directory[4096];
    if (!name || (size_t)(name - path) >= sizeof(directory))
        return false;
    memcpy(directory, path, (size_t)(name - path));
    directory[name - path] = '\0';
    *ret_directory = open(directory[0] ? directory : "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int size = snprintf(ret_address->sun_path, sizeof(ret_address->sun_path), "/proc/self/fd/%d/%s",
                        *ret_directory, name + 1);
    return *ret_directory >= 0 && size > 0 && (size_t)size < sizeof(ret_address->sun_path);
}

static shelf_result socket_connect(const char *path, int *ret_fd) {
    struct sockaddr_un address;
    int directory;
    if (!address_make(path, &address, &directory))
        return refuse_errno(errno == ENOENT                      ? SHELF_NOT_FOUND
                            : errno == EMFILE || errno == ENFILE ? SHELF_NO_MEMORY
                                                                 : SHELF_INVALID,
                            "cannot reach", path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    shelf_result result = SHELF_OK;
    if (fd < 0)
        result = refuse_errno(SHELF_NO_MEMORY, "no socket to reach", path);
    else if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0)
        result = refuse_errno(errno == EACCES || errno == EPERM ? SHELF_DENIED : SHELF_NOT_FOUND,
                              "no node answers at", path);
    if (directory >= 0)
        close(directory);
    if (result != SHELF_OK && fd >= 0)
        close(fd);
    else
        *ret_fd = fd;
    return result;
}

static void program_name(char ret_name[32]) {
    const char *name = program_invocation_short_name ? program_invocation_short_name : "";
    size_t size = 0;
    for (size_t size_max = strnlen(name, 31); size < size_max; size++)
        ret_name[size] = (char)(name[size] > ' ' && name[size] <= '~' ? name[size] : '?');
    memset(ret_name + size, 0, 32 - size);
}

static bool readable_within(int fd, int timeout_ms) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    int count;
    do
        count = poll(&poll_fd, 1, timeout_ms);
    while (count < 0 && errno == EINTR);
    return count == 1;
}

static bool welcome_valid(const struct door_welcome *welcome, ssize_t size) {
    return size == (ssize_t)sizeof(*welcome) && welcome->message.size == sizeof(*welcome) &&
           welcome->message.kind == DOOR_WELCOME && welcome->magic == DOOR_MAGIC &&
           welcome->version == DOOR_VERSION && welcome->image_bytes == sizeof(struct image) &&
           welcome->ring_bytes == RING_BYTES;
}

static shelf_result descriptors_refuse(void) {
    detail_set("this process has no descriptors left; raise the limit of open files (ulimit -n)");
    return SHELF_NO_MEMORY;
}

/* Why there is no welcome. Whoever dies or ends before that was no node for us: as if nobody had listened. */
static shelf_result answer_refuse(const void *answer, ssize_t size) {
    struct door_refused refused;
    struct door_welcome welcome = {0};
    if (size > 0)
        memcpy(&welcome, answer, min_u64((uint64_t)size, sizeof(welcome)));
    if (welcome_valid(&welcome, size)) /* it came without its descriptors */
        return descriptors_refuse();
    if (welcome.message.kind == DOOR_WELCOME && welcome.magic == DOOR_MAGIC &&
        welcome.version != DOOR_VERSION) {
        detail_set("the node has version %u of the protocol between programs and nodes, this program has %u; "
                   "update the older one",
                   welcome.version, DOOR_VERSION);
        return SHELF_FORMAT;
    }
    if (size == (ssize_t)sizeof(refused)) {
        memcpy(&refused, answer, sizeof(refused));
        refused.text[sizeof(refused.text) - 1] = '\0';
        if (refused.message.kind == DOOR_REFUSED && refused.result != SHELF_OK) {
            detail_set("the node says: %s", refused.text);
            return (shelf_result)refused.result;
        }
    }
    detail_set(size < 0 ? "the node went before it answered"
                        : "what answers there is no node of this version");
    return size < 0 ? SHELF_NOT_FOUND : SHELF_FORMAT;
}

static bool file_is(int fd, uint64_t size) {
    struct stat status;
    return fstat(fd, &status) == 0 && (uint64_t)status.st_size >= size;
}

static shelf_result memory_refuse(void) {
    detail_set("the system refuses memory for the attachment: %s", strerror(errno));
    return SHELF_NO_MEMORY;
}

void descriptors_close(const int fds[GUEST_FDS_MAX]) {
    for (int i = 0; i < GUEST_FDS_MAX; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
}

static shelf_result shared_map(struct guest *guest, const int fds[2]) {
    if (!file_is(fds[0], IMAGE_BYTES) || !file_is(fds[1], RING_BYTES)) {
        detail_set("the node's memory is shorter than it says");
        return SHELF_FORMAT;
    }
    void *image = mmap(NULL, IMAGE_BYTES, PROT_READ, MAP_SHARED, fds[0], 0);
    void *ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
    void *maps =
        mmap(NULL, MAPS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    guest->image = image == MAP_FAILED ? NULL : image;
    guest->ring = ring == MAP_FAILED ? NULL : ring;
    guest->maps = maps == MAP_FAILED ? NULL : maps;
    if (!guest->image || !guest->ring || !guest->maps ||
        madvise(ring, RING_BYTES, MADV_DONTFORK) != 0) /* a child would share our cursors */
        return memory_refuse();
    guest->replica.image = guest->image;
    guest->replica.maps = guest->maps;
    return SHELF_OK;
}

static shelf_result handshake(struct guest *guest) {
    struct door_hello hello = {
        .message = {.size = sizeof(hello), .kind = DOOR_HELLO}, .magic = DOOR_MAGIC, .version = DOOR_VERSION};
    program_name(hello.program);
    _Alignas(8) uint8_t answer[DOOR_MESSAGE_MAX];
    int fds[GUEST_FDS_MAX] = {-1, -1, -1};
    ssize_t size = -1;
    if (guest_send(guest, &hello, sizeof(hello))) {
        if (!readable_within(guest->fd, HANDSHAKE_MS)) {
            detail_set("the node does not answer");
            return SHELF_TIMEOUT;
        }
        size = guest_receive(guest, answer, sizeof(answer), fds);
    }
    if (size > 0 && fds[1] >= 0)
        memcpy(&guest->welcome, answer, min_u64((uint64_t)size, sizeof(guest->welcome)));
    shelf_result result = size > 0 && fds[1] >= 0 && welcome_valid(&guest->welcome, size)
                              ? shared_map(guest, fds)
                              : answer_refuse(answer, size);
    descriptors_close(fds);
    return result;
}

shelf_result guest_open(const char *socket_path, struct guest **ret_guest) {
    static _Atomic uint64_t replicas;
    struct guest *guest = aligned_alloc(LINE_SIZE, align_up(sizeof(*guest), LINE_SIZE));
    if (!guest)
        return memory_refuse();
    *guest = (struct guest){.fd = -1};
    list_init(&guest->link);
    list_init(&guest->regions);
    pthread_mutex_init(&guest->regions_mutex, NULL);
    /* Odd ones are guests', even ones a node's own. */
    guest->replica.id = 2 * atomic_fetch_add(&replicas, 1) + 1;
    shelf_result result = socket_connect(socket_path, &guest->fd);
    if (result == SHELF_OK)
        result = handshake(guest);
    if (result != SHELF_OK) {
        guest_free(guest);
        return result;
    }
    *ret_guest = guest;
    return SHELF_OK;
}

/* Not closed: threads may be looking at it. */
void guest_hang_up(struct guest *guest) {
    (void)shutdown(guest->fd, SHUT_RDWR);
}

static void unmap(void *memory, uint64_t size) {
    if (memory)
        (void)munmap(memory, size);
}

/* Of one part of a region that may grow, or has, to so many bytes. */
static uint64_t part_bytes(uint32_t part, uint64_t region_size) {
    const uint64_t bytes[REGION_FILES] = {region_size, region_size / LINE_SIZE * sizeof(uint64_t),
                                          region_size / PAGE_SIZE * sizeof(uint64_t)};
    return align_up(bytes[part], PAGE_SIZE);
}

void guest_free(struct guest *guest) {
    if (guest->fd >= 0)
        close(guest->fd);
    for (struct list *link; (link = list_pop_front(&guest->regions)) != NULL;) {
        struct guest_region *region = LIST_ENTRY(link, struct guest_region, link);
        for (uint32_t part = 0; part < REGION_FILES; part++)
            unmap(region->parts[part], part_bytes(part, region->size_max));
        free(region);
    }
    unmap(guest->image, IMAGE_BYTES);
    unmap(guest->ring, RING_BYTES);
    unmap(guest->maps, MAPS_BYTES);
    pthread_mutex_destroy(&guest->regions_mutex);
    free(guest);
}

/* ---- Ring --------------------------------------------------------------------------------------------------------- */

/* Bytes at a position of the endless stream. */
static void submit_copy(struct ring *ring, uint64_t position, const void *from, size_t size) {
    size_t at = position % RING_SUBMIT_BYTES;
    size_t first = min_u64(size, RING_SUBMIT_BYTES - at);
    memcpy(ring->submit + at, from, first);
    memcpy(ring->submit, (const uint8_t *)from + first, size - first);
}

bool guest_put(struct guest *guest, struct guest_cargo *cargo) {
    static const uint8_t zeros[8];
    const struct ring_frame frame = {.size = (uint32_t)cargo->size, .tag = cargo->tag};
    const struct {
        const void *bytes;
        size_t size;
    } parts[] = {{&frame, sizeof(frame)}, {cargo->bytes, cargo->size}, {zeros, -cargo->size & 7u}};
    uint64_t head = atomic_load_explicit(&guest->ring->submit_head, memory_order_acquire);
    uint64_t used = guest->submit_tail - head;
    if (used > RING_SUBMIT_BYTES) /* a mad node: nothing goes there any more, and its replies will tell */
        return false;
    uint64_t room = RING_SUBMIT_BYTES - used, begin = 0;
    bool all = true;
    for (size_t i = 0; i < 3; i++) {
        uint64_t from = max_u64(cargo->done, begin) - begin;
        size_t size = from < parts[i].size ? min_u64(parts[i].size - from, room) : 0;
        submit_copy(guest->ring, guest->submit_tail, (const uint8_t *)parts[i].bytes + from, size);
        guest->submit_tail += size;
        cargo->done += size;
        room -= size;
        begin += parts[i].size;
        all = cargo->done >= begin;
        if (!all)
            break;
    }
    atomic_store_explicit(&guest->ring->submit_tail, guest->submit_tail, memory_order_release); /* G3 */
    return all;
}

void guest_bell(struct guest *guest) {
    atomic_thread_fence(memory_order_seq_cst); /* G4 */
    if (atomic_load_explicit(&guest->ring->submit_head, memory_order_relaxed) == guest->submit_tail)
        return;
    if (atomic_load_explicit(&guest->ring->node_sleeps, memory_order_relaxed) &&
        atomic_exchange(&guest->ring->node_sleeps, 0))
        (void)send(guest->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* full: it has enough to wake up for */
}

bool guest_has_news(const struct guest *guest, uint64_t full_tail) {
    const struct ring *ring = guest->ring;
    return atomic_load_explicit(&ring->reply_tail, memory_order_acquire) != guest->reply_head ||
           (full_tail != 0 &&
            full_tail - atomic_load_explicit(&ring->submit_head, memory_order_acquire) < RING_SUBMIT_BYTES);
}

enum guest_news guest_reply_take(struct guest *guest, struct reply *ret_reply) {
    uint64_t tail = atomic_load_explicit(&guest->ring->reply_tail, memory_order_acquire);
    if (tail == guest->reply_head)
        return GUEST_NOTHING;
    if (tail - guest->reply_head > RING_REPLIES)
        return GUEST_BROKEN;
    memcpy(ret_reply, &guest->ring->replies[guest->reply_head % RING_REPLIES], sizeof(*ret_reply));
    guest->reply_head++;
    atomic_store_explicit(&guest->ring->reply_head, guest->reply_head, memory_order_release);
    return GUEST_REPLY;
}

bool guest_sleep_begin(struct guest *guest, uint64_t full_tail) {
    atomic_store(&guest->ring->client_sleeps, 1);
    atomic_thread_fence(memory_order_seq_cst);
    return !guest_has_news(guest, full_tail);
}

void guest_sleep_end(struct guest *guest) {
    atomic_store_explicit(&guest->ring->client_sleeps, 0, memory_order_relaxed);
}

/* ---- Socket ------------------------------------------------------------------------------------------------------- */

bool guest_send(struct guest *guest, const void *message, size_t size) {
    ssize_t sent;
    do
        sent = send(guest->fd, message, size, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)size;
}

/* The descriptors of a packet; more than there is room for are closed. Returns how many came. */
static int descriptors_take(struct msghdr *header, int ret_fds[GUEST_FDS_MAX]) {
    int count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = c->cmsg_len - CMSG_LEN(0);
        for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int), count++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
            if (count < GUEST_FDS_MAX)
                ret_fds[count] = fd;
            else
                close(fd);
        }
    }
    return count;
}

ssize_t guest_receive(struct guest *guest, void *message, size_t size_max, int ret_fds[GUEST_FDS_MAX]) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE((GUEST_FDS_MAX + 1) * sizeof(int))];
    struct iovec part = {.iov_base = message, .iov_len = size_max};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    for (int i = 0; i < GUEST_FDS_MAX; i++)
        ret_fds[i] = -1;
    ssize_t size;
    do
        size = recvmsg(guest->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        return errno == EAGAIN ? 0 : -1;
    int count = descriptors_take(&header, ret_fds);
    if (size > 0 && count <= GUEST_FDS_MAX && !(header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return size;
    descriptors_close(ret_fds);
    for (int i = 0; i < GUEST_FDS_MAX; i++)
        ret_fds[i] = -1;
    /* This process had no descriptors left for them: that is no fault of the node, and the message is whole. */
    bool lost = (header.msg_flags & MSG_CTRUNC) && !(header.msg_flags & MSG_TRUNC) && count < GUEST_FDS_MAX;
    return size > 0 && lost ? size : -1;
}

/* ---- Memory ------------------------------------------------------------------------------------------------------- */

/* Up to the growth limit at once: what lies past the present size comes to be as the region grows. */
static void *view_map(int fd, uint64_t size) {
    void *memory = mmap(NULL, size, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (memory == MAP_FAILED)
        return NULL;
    (void)madvise(memory, size, MADV_HUGEPAGE);
    return memory;
}

static shelf_result region_add(struct guest *guest, const struct shelf_region_info *info,
                               const int fds[REGION_FILES]) {
    struct guest_region *region = calloc(1, sizeof(*region));
    if (!region)
        return memory_refuse();
    region->number = info->region;
    region->size_max = info->size_max;
    list_init(&region->link);
    list_push_back(&guest->regions, &region->link);
    for (uint32_t part = 0; part < REGION_FILES; part++) {
        region->parts[part] = view_map(fds[part], part_bytes(part, info->size_max));
        if (!region->parts[part])
            return memory_refuse(); /* what there is goes with the guest */
    }
    struct region_map *map = &guest->maps[info->region];
    map->versions = region->parts[1];
    map->page_versions = region->parts[2];
    atomic_store_explicit(&map->data, region->parts[0], memory_order_release);
    return SHELF_OK;
}

static bool region_is_sane(const struct shelf_region_info *info, const int fds[REGION_FILES]) {
    bool sane = info->size > 0 && info->size <= info->size_max && info->size_max <= SHELF_REGION_BYTES_MAX &&
                info->size % PAGE_SIZE == 0 && info->size_max % PAGE_SIZE == 0;
    for (uint32_t part = 0; part < REGION_FILES; part++)
        sane = sane && fds[part] >= 0 && file_is(fds[part], part_bytes(part, info->size));
    return sane;
}

shelf_result guest_region_map(struct guest *guest, const struct shelf_region_info *info,
                              const int fds[REGION_FILES]) {
    shelf_result result = SHELF_OK;
    pthread_mutex_lock(&guest->regions_mutex);
    if (fds[0] < 0) {
        result = descriptors_refuse();
    } else if (!region_is_sane(info, fds)) {
        detail_set("the node's description of region %u makes no sense", info->region);
        result = SHELF_CORRUPT;
    } else if (!atomic_load(&guest->maps[info->region].data)) { /* another thread may have been here */
        result = region_add(guest, info, fds);
    }
    pthread_mutex_unlock(&guest->regions_mutex);
    descriptors_close(fds);
    return result;
}

/* Asks for one, and waits. Nobody else talks to the node yet. False: it is gone, or mad. */
static bool region_follow(struct guest *guest, uint32_t number) {
    struct door_ask ask = {.message = {.size = sizeof(ask), .kind = DOOR_MAP, .id = number},
                           .number = number};
    _Alignas(8) uint8_t packet[DOOR_MESSAGE_MAX];
    int fds[GUEST_FDS_MAX];
    ssize_t size = 1;
    if (!guest_send(guest, &ask, sizeof(ask)))
        return false;
    while (size >= 0 && size <= 1) /* nothing, or a bell */
        size =
            readable_within(guest->fd, HANDSHAKE_MS) ? guest_receive(guest, packet, sizeof(packet), fds) : -1;
    struct door_region answer;
    if (size < 0)
        return false;
    if (size != (ssize_t)sizeof(answer)) {
        descriptors_close(fds);
        return false;
    }
    memcpy(&answer, packet, sizeof(answer));
    if (answer.message.kind != DOOR_MAP || answer.message.id != number ||
        (answer.result == SHELF_OK && answer.info.region != number)) {
        descriptors_close(fds);
        return false;
    }
    if (answer.result ==
        SHELF_OK) /* else it was dropped, or is not for us any more: who reads it will be told */
        (void)guest_region_map(guest, &answer.info, fds);
    else
        descriptors_close(fds);
    return true;
}

bool guest_regions_follow(struct guest *guest, struct guest *before) {
    bool there = true;
    pthread_mutex_lock(&before->regions_mutex);
    LIST_FOREACH(link, &before->regions) {
        const struct guest_region *region = LIST_ENTRY(link, struct guest_region, link);
        there = there && (region->number == 0 || region_follow(guest, region->number));
    }
    pthread_mutex_unlock(&before->regions_mutex);
    return there;
}

static void region_cover(struct guest_region *region) {
    for (uint32_t part = 0; part < REGION_FILES; part++) {
        if (region->parts[part])
            (void)mmap(region->parts[part], part_bytes(part, region->size_max), PROT_READ,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    }
    region->number = 0;
}

void guest_regions_tidy(struct guest *guest) {
    pthread_mutex_lock(&guest->regions_mutex);
    LIST_FOREACH(link, &guest->regions) {
        struct guest_region *region = LIST_ENTRY(link, struct guest_region, link);
        const struct region_view *view = &guest->image->regions[region->number];
        if (region->number != 0 && atomic_load_explicit(&view->state, memory_order_relaxed) == REGION_DROPPED)
            region_cover(region);
    }
    pthread_mutex_unlock(&guest->regions_mutex);
}
