// SPDX-License-Identifier: Apache-2.0
//
// Clients that break the rules: each is disconnected, and nobody else notices.

#include <sys/resource.h>

#include "door/door_state.h"
#include "door_fixture.h"

enum { MIB = 1 << 20 };

struct yard { // a door, a region, and a client that keeps to the rules
    struct house *house;
    uint32_t region;
    struct hand legal;
    uint64_t commits;
};

static struct yard yard_open(struct house *house) {
    struct yard yard = {.house = house, .region = region_create(house->node, "r", MIB)};
    yard.legal = hand_open(house->fixture->path);
    hand_session(&yard.legal, "legal");
    return yard;
}

static void yard_check(struct yard *yard) {
    yard->commits++;
    assert_int_equal(hand_commit(&yard->legal, yard->region, 0, yard->commits).result, SHELF_OK);
    assert_int_equal(word_read(yard->house->node, yard->region, 0), yard->commits);
}

static void yard_close(struct yard *yard) {
    yard_check(yard);
    assert_int_equal(house_clients(yard->house), 1);
    hand_close(&yard->legal);
}

// ---- The ring

enum ring_fault {
    TAIL_BACK,
    TAIL_AHEAD,
    TAIL_FAR_AHEAD,
    TAIL_ODD,
    REPLY_HEAD_AHEAD,
    REPLY_HEAD_BACK,
    FRAME_EMPTY,
    FRAME_SMALL,
    FRAME_LARGE,
    FRAME_HUGE,
    FRAME_RESERVED,
    RING_FAULTS,
};

static void ring_spoil(struct hand *hand, enum ring_fault fault) {
    struct ring *ring = hand->ring;
    struct ring_frame frame = {.size = 8};
    switch (fault) {
    case TAIL_BACK:
        atomic_store(&ring->submit_tail, hand->tail - 8);
        break;
    case TAIL_AHEAD:
        atomic_store(&ring->submit_tail, hand->tail + RING_SUBMIT_BYTES + 8);
        break;
    case TAIL_FAR_AHEAD:
        atomic_store(&ring->submit_tail, UINT64_MAX & ~(uint64_t)7);
        break;
    case TAIL_ODD:
        atomic_store(&ring->submit_tail, hand->tail + 20);
        break;
    case REPLY_HEAD_AHEAD:
        atomic_store(&ring->reply_head, hand->reply_head + RING_REPLIES + 1);
        break;
    case REPLY_HEAD_BACK:
        atomic_store(&ring->reply_head, 0); // the node has seen 1
        break;
    case FRAME_EMPTY:
        frame.size = 0;
        hand_put(hand, &frame, sizeof(frame));
        break;
    case FRAME_SMALL:
        frame.size = sizeof(struct request_header) - 1;
        hand_put(hand, &frame, sizeof(frame));
        break;
    case FRAME_LARGE:
        frame.size = REQUEST_BYTES_MAX + 1;
        hand_put(hand, &frame, sizeof(frame));
        break;
    case FRAME_HUGE:
        frame.size = UINT32_MAX;
        hand_put(hand, &frame, sizeof(frame));
        break;
    case FRAME_RESERVED:
        frame.reserved = 1;
        hand_put(hand, &frame, sizeof(frame));
        break;
    case RING_FAULTS:
        break;
    }
    (void)send(hand->fd, "", 1, MSG_NOSIGNAL);
}

static void test_ring_rules(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    for (uint32_t fault = 0; fault < RING_FAULTS; fault++) {
        for (int busy = 0; busy < 2 - (fault == TAIL_BACK);
             busy++) { // (a tail that nobody has seen may go back)
            struct hand hand = hand_open(house->fixture->path);
            hand_session(&hand, "");
            assert_int_equal(hand_commit(&hand, yard.region, 64, fault).result, SHELF_OK);
            for (uint64_t i = 0; busy && i < 50; i++) {
                struct word_commit commit = hand_word(&hand, yard.region, 128, i);
                hand_submit(&hand, i, &commit, sizeof(commit));
            }
            ring_spoil(&hand, (enum ring_fault)fault);
            hand_await_cut(hand.fd);
            hand_close(&hand);
            yard_check(&yard);
        }
    }
    house_clients_await(house, 1);
    assert_int_equal(house_logged(house, "client.broke-rule", "ring makes no sense"), 2 * RING_FAULTS - 1);
    yard_close(&yard);
}

// A ring that is emptied under the node's eyes, and whose memory is given back, does no harm either.
static void test_ring_without_memory(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "");
    memset(hand.ring, 0, RING_BYTES);
    (void)madvise(hand.ring, RING_BYTES, MADV_REMOVE);
    (void)send(hand.fd, "", 1, MSG_NOSIGNAL);
    hand_await_cut(hand.fd);
    hand_close(&hand);
    yard_close(&yard);
}

static void test_ring_is_sealed(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    struct door_hello hello = hand_hello();
    struct door_welcome welcome;
    int fds[REGION_FILES];
    int fd = hand_connect(house->fixture->path);
    hand_send(fd, &hello, sizeof(hello));
    assert_int_equal(hand_receive(fd, &welcome, sizeof(welcome), fds), sizeof(welcome));
    assert_int_not_equal(ftruncate(fds[1], 0), 0);
    assert_int_not_equal(ftruncate(fds[1], (off_t)RING_BYTES * 2), 0);
    assert_int_not_equal(fcntl(fds[1], F_ADD_SEALS, F_SEAL_WRITE), 0);
    assert_int_not_equal(ftruncate(fds[0], 0), 0);
    assert_true(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fds[0], 0) == MAP_FAILED);
    close(fds[0]);
    close(fds[1]);
    close(fd);
    house_clients_await(house, 1);
    yard_close(&yard);
}

// ---- The socket

static void packet_with_descriptor(int fd, const void *bytes, size_t size, int passed) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): it is not written
    struct iovec part = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &passed, sizeof(passed));
    assert_int_equal(sendmsg(fd, &header, MSG_NOSIGNAL), (ssize_t)size);
}

static void test_messages_that_are_wrong(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    static uint8_t large[65536];
    for (uint32_t fault = 0; fault < 12; fault++) {
        struct hand hand = hand_open(house->fixture->path);
        struct door_ask ask = {.message = {.size = sizeof(ask), .kind = DOOR_INFO, .id = 1}};
        struct door_hello hello = hand_hello();
        int pipes[2];
        switch (fault) {
        case 0:
            hand_send(hand.fd, &ask, sizeof(ask) - 1);
            break;
        case 1:
            ask.message.size--;
            hand_send(hand.fd, &ask, sizeof(ask));
            break;
        case 2:
            ask.message.kind = 99;
            hand_send(hand.fd, &ask, sizeof(ask));
            break;
        case 3:
            ask.message.kind = DOOR_WELCOME;
            hand_send(hand.fd, &ask, sizeof(ask));
            break;
        case 4:
            hand_send(hand.fd, &hello, sizeof(hello)); // again
            break;
        case 5:
            ask.message.kind = 0;
            hand_send(hand.fd, &ask, sizeof(ask));
            break;
        case 6:
            hand_send(hand.fd, large, sizeof(large));
            break;
        case 7:
            hand_send(hand.fd, large, 2);
            break;
        case 8: // descriptors are closed unseen
            assert_int_equal(pipe(pipes), 0);
            packet_with_descriptor(hand.fd, &ask, sizeof(ask), pipes[1]);
            close(pipes[1]);
            assert_int_equal(read(pipes[0], large, 1), 0);
            close(pipes[0]);
            break;
        case 9:
            assert_int_equal(pipe(pipes), 0);
            packet_with_descriptor(hand.fd, "", 1, pipes[1]);
            close(pipes[0]);
            close(pipes[1]);
            break;
        case 10:
            shutdown(hand.fd, SHUT_WR);
            break;
        default:
            ask.message.reserved = 1;
            hand_send(hand.fd, &ask, sizeof(ask));
            break;
        }
        hand_await_cut(hand.fd);
        hand_close(&hand);
        yard_check(&yard);
    }
    assert_int_equal(house_logged(house, "client.broke-rule", ""),
                     11); // a half-closed socket is an end like another
    yard_close(&yard);
}

static void test_socket_that_reads_no_more(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    struct hand hand = hand_open(house->fixture->path);
    struct door_ask ask = {.message = {.size = sizeof(ask), .kind = DOOR_INFO, .id = 1}};
    shutdown(hand.fd, SHUT_RD);
    hand_send(hand.fd, &ask, sizeof(ask));
    house_clients_await(house, 1);
    hand_close(&hand);
    yard_close(&yard);
}

static void test_first_words(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    for (uint32_t fault = 0; fault < 6; fault++) {
        int fd = hand_connect(house->fixture->path), fds[REGION_FILES];
        struct door_hello hello = hand_hello();
        struct door_refused refused;
        struct door_ask ask = {.message = {.size = sizeof(ask), .kind = DOOR_INFO}};
        switch (fault) {
        case 0:
            hello.version++;
            hand_send(fd, &hello, sizeof(hello));
            break;
        case 1:
            hello.magic = 7;
            hand_send(fd, &hello, sizeof(hello));
            break;
        case 2:
            hand_send(fd, &hello, sizeof(hello) - 8);
            break;
        case 3:
            hand_send(fd, &ask, sizeof(ask));
            break;
        case 4:
            hand_send(fd, "GET / HTTP/1.1\r\n\r\n", 18);
            break;
        default:
            hand_send(fd, "", 1); // a bell, without a ring
            hand_send(fd, "x", 1);
            hand_send(fd, "xy", 2);
            break;
        }
        if (fault < 2) {
            assert_int_equal(hand_receive(fd, &refused, sizeof(refused), fds), sizeof(refused));
            assert_int_equal(refused.message.kind, DOOR_REFUSED);
            assert_int_equal(refused.result, SHELF_FORMAT);
            assert_non_null(strstr(refused.text, "version"));
        }
        hand_await_cut(fd);
        close(fd);
        yard_check(&yard);
    }
    assert_int_equal(house_logged(house, "client.refused", "version"), 2);
    yard_close(&yard);
}

static void test_silence(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    house->door->hello_ms = 100;
    int fd = hand_connect(house->fixture->path);
    hand_await_cut(fd);
    close(fd);
    assert_int_equal(house_logged(house, "client.broke-rule", "HELLO"), 1);
    yard_close(&yard);
}

static void test_flood_of_connections(void **state) {
    struct house *house = *state;
    house_close(house);
    house_open(house, (struct door_options){.clients_max = 100});
    struct yard yard = yard_open(house);
    int fds[500];
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        fds[i] = hand_connect(house->fixture->path);
        if (i % 50 == 0) {
            struct hand hand = hand_open(house->fixture->path);
            hand_session(&hand, "");
            hand_close(&hand);
            yard_check(&yard);
        }
    }
    hand_await_cut(fds[0]); // the oldest
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        close(fds[i]);
    }
    house_clients_await(house, 1);
    yard_close(&yard);
}

// More connect at once than may be silent, and all have said HELLO by the time that they are looked at: none is cut.
static void test_crowd(void **state) {
    struct house *house = *state;
    house_close(house);
    house_open(house, (struct door_options){.clients_max = 64});
    struct yard yard = yard_open(house);
    int fds[60], none[REGION_FILES];
    struct door_hello hello = hand_hello();
    struct door_welcome welcome;
    pthread_mutex_lock(&house->door->lock); // it takes no connection meanwhile
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        fds[i] = hand_connect(house->fixture->path);
        hand_send(fds[i], &hello, sizeof(hello));
    }
    pthread_mutex_unlock(&house->door->lock);
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        assert_int_equal(hand_receive(fds[i], &welcome, sizeof(welcome), none), sizeof(welcome));
        assert_int_equal(welcome.message.kind, DOOR_WELCOME);
        close(none[0]);
        close(none[1]);
    }
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        close(fds[i]);
    }
    house_clients_await(house, 1);
    yard_close(&yard);
}

static void test_more_clients_than_it_takes(void **state) {
    struct house *house = *state;
    house_close(house);
    house_open(house, (struct door_options){.clients_max = 3});
    struct yard yard = yard_open(house);
    struct hand second = hand_open(house->fixture->path), third = hand_open(house->fixture->path);
    struct door_refused refused;
    int fds[REGION_FILES];
    int fd = hand_connect(house->fixture->path);
    assert_int_equal(hand_receive(fd, &refused, sizeof(refused), fds), sizeof(refused));
    assert_int_equal(refused.result, SHELF_UNAVAILABLE);
    hand_await_cut(fd);
    close(fd);
    hand_close(&third);
    house_clients_await(house, 2);
    third = hand_open(house->fixture->path);
    hand_close(&second);
    hand_close(&third);
    house_clients_await(house, 1);
    yard_close(&yard);
}

// It asks and does not read the answers.
static void test_answers_that_nobody_reads(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    house->door->unread_ms = 300;
    for (uint32_t i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof(name), "x%u", i);
        region_create(house->node, name, 4096);
    }
    struct hand hand = hand_open(house->fixture->path);
    struct door_ask ask = {.message = {.size = sizeof(ask), .kind = DOOR_LIST, .id = 1}};
    fcntl(hand.fd, F_SETFL, O_NONBLOCK);
    uint64_t sent = 0, until_ns = world_monotonic_ns() + (uint64_t)HAND_MS * 1000000;
    while (world_monotonic_ns() < until_ns) {
        ssize_t size = send(hand.fd, &ask, sizeof(ask), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && errno != EAGAIN) {
            break;
        }
        sent += size > 0;
        yard_check(&yard);
    }
    assert_true(sent > 10 && sent < 5000);
    assert_true(errno == EPIPE || errno == ECONNRESET);
    assert_int_equal(house_logged(house, "client.broke-rule", "does not read"), 1);
    hand_close(&hand);
    yard_close(&yard);
}

// It reads late, but it does: nothing is lost.
static void test_answers_that_are_read_late(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    for (uint32_t i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof(name), "x%u", i);
        region_create(house->node, name, 4096);
    }
    struct hand hand = hand_open(house->fixture->path);
    for (uint64_t id = 1; id <= DOOR_ASKS_MAX; id++) {
        struct door_ask ask = {
            .message = {.size = sizeof(ask), .kind = id % 8 == 0 ? DOOR_MAP : DOOR_LIST, .id = id},
            .number = yard.region};
        hand_send(hand.fd, &ask, sizeof(ask));
    }
    usleep(50000);
    static struct door_regions answer;
    int fds[REGION_FILES];
    for (uint64_t id = 1; id <= DOOR_ASKS_MAX; id++) {
        ssize_t size = hand_receive(hand.fd, &answer, sizeof(answer), fds);
        assert_int_equal(answer.message.id, id);
        assert_int_equal(answer.message.size, size);
        assert_int_equal(fds[0] >= 0, id % 8 == 0);
        for (int i = 0; i < REGION_FILES && fds[0] >= 0; i++) {
            close(fds[i]);
        }
    }
    hand_session(&hand, "");
    hand_close(&hand);
    house_clients_await(house, 1);
    yard_close(&yard);
}

// ---- Descriptors

static double seconds_used(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void descriptors_limit(rlim_t limit) {
    struct rlimit limits;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limits), 0);
    limits.rlim_cur = limit == 0 ? limits.rlim_max : limit;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limits), 0);
}

// Another process connects while this one has no descriptors left.
static void test_no_descriptors(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    int go[2];
    assert_int_equal(pipe(go), 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        HAND_ASSERT(read(go[0], &byte, 1) == 1);
        for (int i = 0; i < 20; i++) {
            int fd = hand_connect(house->fixture->path);
            hand_await_cut(fd);
            close(fd);
        }
        _exit(0);
    }
    int first = open("/dev/null", O_RDONLY);
    descriptors_limit((rlim_t)first); // from here on there are none
    close(first);
    int filler = open("/dev/null", O_RDONLY);
    assert_true(filler < 0 || filler < first);
    double before = seconds_used();
    assert_int_equal(write(go[1], "g", 1), 1);
    child_await(child);
    yard_check(&yard);
    usleep(200000);
    assert_true(seconds_used() - before < 0.5);
    descriptors_limit(0);
    close(filler);
    close(go[0]);
    close(go[1]);
    assert_true(house_logged(house, "client.refused", "descriptors") > 0);
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "");
    hand_close(&hand);
    house_clients_await(house, 1);
    yard_close(&yard);
}

// Bells without end keep nobody from being served.
static void test_bells_without_end(void **state) {
    struct house *house = *state;
    struct yard yard = yard_open(house);
    pid_t child = fork();
    if (child == 0) {
        struct hand hand = hand_open(house->fixture->path);
        uint64_t until_ns = world_monotonic_ns() + 500000000;
        while (world_monotonic_ns() < until_ns) {
            (void)send(hand.fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        _exit(0);
    }
    for (int i = 0; i < 200; i++) {
        yard_check(&yard);
    }
    child_await(child);
    house_clients_await(house, 1);
    yard_close(&yard);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_ring_rules),
        TEST(test_ring_without_memory),
        TEST(test_ring_is_sealed),
        TEST(test_messages_that_are_wrong),
        TEST(test_socket_that_reads_no_more),
        TEST(test_first_words),
        TEST(test_silence),
        TEST(test_flood_of_connections),
        TEST(test_crowd),
        TEST(test_more_clients_than_it_takes),
        TEST(test_answers_that_nobody_reads),
        TEST(test_answers_that_are_read_late),
        TEST(test_no_descriptors),
        TEST(test_bells_without_end),
    };
    return cmocka_run_group_tests_name("door-hostile", tests, NULL, NULL);
}
