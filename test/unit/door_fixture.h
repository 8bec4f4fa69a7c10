// SPDX-License-Identifier: Apache-2.0
//
// A node with a door, and a client of it that is written by hand against the formats, so that it can break their rules.

#ifndef SHELF_TEST_DOOR_FIXTURE_H
#define SHELF_TEST_DOOR_FIXTURE_H

#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/bits.h"
#include "door/door.h"
#include "node_fixture.h"
#include "wire/door.h"
#include "wire/ring.h"

enum { HAND_MS = 20000 };

// Asserts, but also in a child: which then ends with an exit code.
#define HAND_ASSERT(condition)                                                            \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            print_error("%s:%d: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
            hand_fail();                                                                  \
        }                                                                                 \
    } while (0)

static pid_t hand_main_process;
static pthread_t hand_main_thread;

_Noreturn static inline void hand_fail(void) {
    if (getpid() != hand_main_process) {
        _exit(1);
    }
    if (!pthread_equal(pthread_self(), hand_main_thread)) {
        abort();
    }
    fail();
    abort(); // (it does not return)
}

struct hand {
    int fd;
    struct door_welcome welcome;
    const struct image *image;
    struct ring *ring;
    uint64_t tail, reply_head;
    uint64_t session, holder, sequence;
    uint64_t ask_id;
    size_t piece_max; // 0: as much as there is room for
};

// ---- Socket --------------------------------------------------------------------------------------------------------

static inline int hand_connect(const char *directory) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int path = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    HAND_ASSERT(path >= 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" DOOR_SOCKET_NAME, path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    HAND_ASSERT(fd >= 0);
    HAND_ASSERT(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
    close(path);
    return fd;
}

// The next packet, with up to two descriptors; 0 or -1: the end.
static inline ssize_t hand_receive(int fd, void *packet, size_t size_max, int fds[REGION_FILES]) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(REGION_FILES * sizeof(int))];
    struct iovec part = {.iov_base = packet, .iov_len = size_max};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    for (int i = 0; i < REGION_FILES; i++)
        fds[i] = -1;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    HAND_ASSERT(poll(&wait, 1, HAND_MS) == 1);
    ssize_t size = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
    struct cmsghdr *rights = size > 0 ? CMSG_FIRSTHDR(&header) : NULL;
    if (rights) {
        memcpy(fds, CMSG_DATA(rights), min_u64(rights->cmsg_len - CMSG_LEN(0), REGION_FILES * sizeof(int)));
    }
    return size;
}

static inline struct door_hello hand_hello(void) {
    return (struct door_hello){.message = {.size = sizeof(struct door_hello), .kind = DOOR_HELLO},
                               .magic = DOOR_MAGIC,
                               .version = DOOR_VERSION,
                               .program = "hand"};
}

static inline void hand_send(int fd, const void *message, size_t size) {
    HAND_ASSERT(send(fd, message, size, MSG_NOSIGNAL) == (ssize_t)size);
}

static inline struct hand hand_open(const char *directory) {
    struct hand hand = {.fd = hand_connect(directory)};
    struct door_hello hello = hand_hello();
    int fds[REGION_FILES];
    hand_send(hand.fd, &hello, sizeof(hello));
    HAND_ASSERT(hand_receive(hand.fd, &hand.welcome, sizeof(hand.welcome), fds) == sizeof(hand.welcome));
    HAND_ASSERT(hand.welcome.message.kind == DOOR_WELCOME && fds[0] >= 0 && fds[1] >= 0);
    void *image = mmap(NULL, sizeof(struct image), PROT_READ, MAP_SHARED, fds[0], 0);
    void *ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
    HAND_ASSERT(image != MAP_FAILED && ring != MAP_FAILED);
    close(fds[0]);
    close(fds[1]);
    hand.image = image;
    hand.ring = ring;
    return hand;
}

static inline void hand_close(struct hand *hand) {
    munmap((void *)(uintptr_t)hand->image, // NOLINT(performance-no-int-to-ptr): it is not written
           sizeof(struct image));
    munmap(hand->ring, RING_BYTES);
    close(hand->fd);
}

// The node hangs up. What it still says is read; doorbells are, too.
static inline void hand_await_cut(int fd) {
    uint8_t packet[DOOR_MESSAGE_MAX];
    int fds[REGION_FILES];
    while (hand_receive(fd, packet, sizeof(packet), fds) > 0) {
        for (int i = 0; i < REGION_FILES; i++) {
            if (fds[i] >= 0) {
                close(fds[i]);
            }
        }
    }
}

// Asks; doorbells in between are skipped.
static inline ssize_t hand_ask(struct hand *hand, uint16_t kind, uint64_t number, const char *name,
                               void *answer, size_t size_max, int fds[REGION_FILES]) {
    struct door_ask ask = {.message = {.size = sizeof(ask), .kind = kind, .id = ++hand->ask_id},
                           .number = number};
    snprintf(ask.name, sizeof(ask.name), "%s", name);
    hand_send(hand->fd, &ask, sizeof(ask));
    for (;;) {
        ssize_t size = hand_receive(hand->fd, answer, size_max, fds);
        if (size != 1) {
            struct door_message message;
            HAND_ASSERT(size >= (ssize_t)sizeof(message));
            memcpy(&message, answer, sizeof(message));
            HAND_ASSERT(message.size == size && message.kind == kind && message.id == hand->ask_id);
            return size;
        }
    }
}

// ---- Ring ----------------------------------------------------------------------------------------------------------

static inline void hand_bell(struct hand *hand) {
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load(&hand->ring->node_sleeps) && atomic_exchange(&hand->ring->node_sleeps, 0)) {
        (void)send(hand->fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
}

// Sleeps until the node has done something; true: it has.
static inline void hand_sleep(struct hand *hand, uint64_t head_seen) {
    struct ring *ring = hand->ring;
    char byte;
    atomic_store(&ring->client_sleeps, 1);
    if (atomic_load(&ring->submit_head) == head_seen && atomic_load(&ring->reply_tail) == hand->reply_head) {
        struct pollfd wait = {.fd = hand->fd, .events = POLLIN};
        HAND_ASSERT(poll(&wait, 1, HAND_MS) == 1); // no wake-up is lost
        HAND_ASSERT(recv(hand->fd, &byte, 1, MSG_DONTWAIT) == 1);
    }
    atomic_store(&ring->client_sleeps, 0);
}

// A stream of bytes into the ring, as there is room.
static inline void hand_put(struct hand *hand, const void *bytes, size_t size) {
    struct ring *ring = hand->ring;
    const uint8_t *from = bytes;
    while (size > 0) {
        uint64_t head = atomic_load(&ring->submit_head);
        size_t at = hand->tail % RING_SUBMIT_BYTES;
        size_t part = min_u64(min_u64(size, RING_SUBMIT_BYTES - (hand->tail - head)), RING_SUBMIT_BYTES - at);
        part = hand->piece_max ? min_u64(part, hand->piece_max) : part;
        if (part == 0) {
            hand_sleep(hand, head);
            continue;
        }
        memcpy(ring->submit + at, from, part);
        from += part;
        size -= part;
        hand->tail += part;
        if (hand->tail % 8 == 0) {
            atomic_store(&ring->submit_tail, hand->tail);
            hand_bell(hand);
        }
    }
}

static inline void hand_submit(struct hand *hand, uint64_t tag, const void *bytes, size_t size) {
    struct ring_frame frame = {.size = (uint32_t)size, .tag = tag};
    hand_put(hand, &frame, sizeof(frame));
    size_t even = size & ~(size_t)7;
    uint8_t last[8] = {0};
    memcpy(last, (const uint8_t *)bytes + even, size - even);
    hand_put(hand, bytes, even);
    if (size > even) {
        hand_put(hand, last, 8);
    }
}

static inline bool hand_replied(const struct hand *hand) {
    return atomic_load(&hand->ring->reply_tail) != hand->reply_head;
}

// The next reply; spins a little, then sleeps.
static inline struct reply hand_reply(struct hand *hand) {
    for (int i = 0; i < 100 && !hand_replied(hand); i++) {
        sched_yield();
    }
    while (!hand_replied(hand)) {
        hand_sleep(hand, atomic_load(&hand->ring->submit_head));
    }
    struct reply reply = hand->ring->replies[hand->reply_head % RING_REPLIES];
    atomic_store(&hand->ring->reply_head, ++hand->reply_head);
    hand_bell(hand);
    return reply;
}

static inline struct reply hand_call(struct hand *hand, const void *bytes, size_t size) {
    uint64_t tag = hand->tail + 7;
    hand_submit(hand, tag, bytes, size);
    struct reply reply = hand_reply(hand);
    HAND_ASSERT(reply.token == tag);
    return reply;
}

static inline struct reply hand_session_call(struct hand *hand, uint16_t kind, uint64_t session,
                                             uint64_t holder, const char *name) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = kind},
                                      .session = session,
                                      .holder = holder,
                                      .sequence = 1};
    snprintf(request.name, sizeof(request.name), "%s", name);
    return hand_call(hand, &request, sizeof(request));
}

static inline void hand_session(struct hand *hand, const char *name) {
    struct reply reply = hand_session_call(hand, REQUEST_SESSION_OPEN, 0, 0, name);
    HAND_ASSERT(reply.result == SHELF_OK);
    hand->session = reply.session;
    hand->holder = reply.holder;
    hand->sequence = reply.session_last;
}

static inline struct word_commit hand_word(struct hand *hand, uint32_t region, uint64_t offset,
                                           uint64_t word) {
    return (struct word_commit){
        .request = {.header = {.size = sizeof(struct word_commit), .kind = REQUEST_COMMIT},
                    .session = hand->session,
                    .holder = hand->holder,
                    .sequence = ++hand->sequence,
                    .index = atomic_load(&hand->image->applied),
                    .range_count = 1,
                    .ranges_size = sizeof(struct record_range) + sizeof(uint64_t)},
        .range = {.address = shelf_addr_make((shelf_region)region, offset), .size = sizeof(uint64_t)},
        .word = word,
    };
}

static inline struct reply hand_commit(struct hand *hand, uint32_t region, uint64_t offset, uint64_t word) {
    struct word_commit commit = hand_word(hand, region, offset, word);
    return hand_call(hand, &commit, sizeof(commit));
}

// A region's bytes, as another process reads them.
static inline const uint8_t *hand_map(struct hand *hand, uint32_t region, uint64_t *ret_size) {
    struct door_region answer;
    int fds[REGION_FILES];
    HAND_ASSERT(hand_ask(hand, DOOR_MAP, region, "", &answer, sizeof(answer), fds) == sizeof(answer));
    HAND_ASSERT(answer.result == SHELF_OK && fds[0] >= 0 && fds[1] >= 0 && fds[2] >= 0);
    void *bytes = mmap(NULL, answer.info.size, PROT_READ, MAP_SHARED, fds[0], 0);
    HAND_ASSERT(bytes != MAP_FAILED);
    HAND_ASSERT(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0) == MAP_FAILED);
    for (int i = 0; i < REGION_FILES; i++)
        close(fds[i]);
    if (ret_size) {
        *ret_size = answer.info.size;
    }
    return bytes;
}

// ---- Node and door -------------------------------------------------------------------------------------------------

enum { LOG_MAX = 4096 };

struct house {
    struct fixture *fixture;
    struct node *node;
    struct door *door;
    pthread_mutex_t lock;
    char log[LOG_MAX][128]; // "event text"
    uint32_t log_count;
};

static inline void house_log(void *context, const char *event, const char *text) {
    struct house *house = context;
    pthread_mutex_lock(&house->lock);
    if (house->log_count < LOG_MAX) {
        snprintf(house->log[house->log_count++], sizeof(house->log[0]), "%s %s", event, text);
    }
    pthread_mutex_unlock(&house->lock);
}

// How many lines begin with the event and contain the text.
static inline uint32_t house_logged(struct house *house, const char *event, const char *text) {
    uint32_t count = 0;
    pthread_mutex_lock(&house->lock);
    for (uint32_t i = 0; i < house->log_count; i++) {
        count += strncmp(house->log[i], event, strlen(event)) == 0 && strstr(house->log[i], text) != NULL;
    }
    pthread_mutex_unlock(&house->lock);
    return count;
}

static inline void house_open(struct house *house, struct door_options options) {
    house->node = node_make(house->fixture, SHELF_BACKEND_PLAIN);
    options.directory = house->fixture->path;
    options.log = house_log;
    options.log_context = house;
    assert_int_equal(door_open(house->node, &options, &house->door), SHELF_OK);
}

static inline void house_close(struct house *house) {
    door_close(house->door);
    assert_int_equal(node_close(house->node), SHELF_OK);
}

static inline int house_setup(void **state) {
    struct house *house = calloc(1, sizeof(*house));
    assert_non_null(house);
    hand_main_process = getpid();
    hand_main_thread = pthread_self();
    pthread_mutex_init(&house->lock, NULL);
    void *fixture;
    fixture_setup(&fixture);
    house->fixture = fixture;
    *state = house;
    house_open(house, (struct door_options){0});
    return 0;
}

static inline int house_teardown(void **state) {
    struct house *house = *state;
    house_close(house);
    void *fixture = house->fixture;
    fixture_teardown(&fixture);
    pthread_mutex_destroy(&house->lock);
    free(house);
    return 0;
}

static inline size_t house_clients(struct house *house) {
    return door_clients(house->door, 0, NULL, 0);
}

// In a process of its own. It returns when the child has ended well.
static inline void child_await(pid_t child) {
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static inline uint32_t house_sessions(struct house *house) {
    struct core_status status;
    core_enter(house->node);
    core_status_get(house->node->core, &status);
    (void)core_leave(house->node, NULL);
    return status.sessions;
}

// Until so many are attached.
static inline void house_clients_await(struct house *house, size_t count) {
    for (int i = 0; i < HAND_MS && house_clients(house) != count; i++) {
        usleep(1000);
    }
    assert_int_equal(house_clients(house), count);
}

#endif
