// SPDX-License-Identifier: Apache-2.0
//
// The door of a node: programs that attach, commit and go. Those that break rules are in test_door_hostile.c.

#include <grp.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "door/door_state.h"
#include "door_fixture.h"

enum { MIB = 1 << 20 };

static void test_attach_commit_map(void **state) {
    struct house *house = *state;
    uint32_t region = region_create(house->node, "r", MIB);
    struct hand hand = hand_open(house->fixture->path);
    assert_int_equal(hand.welcome.image_bytes, sizeof(struct image));
    assert_int_equal(hand.welcome.ring_bytes, RING_BYTES);
    assert_int_equal(hand.welcome.node_process, getpid());
    hand_session(&hand, "");
    uint64_t size;
    const uint8_t *bytes = hand_map(&hand, region, &size);
    assert_int_equal(size, MIB);
    for (uint64_t i = 0; i < 1000; i++) {
        struct reply reply = hand_commit(&hand, region, i * 64, i + 1);
        assert_int_equal(reply.result, SHELF_OK);
        assert_true(reply.receipt.index <= atomic_load(&hand.image->applied));
        uint64_t word;
        memcpy(&word, bytes + i * 64, sizeof(word));
        assert_int_equal(word, i + 1);
    }
    struct shelf_client_info info;
    assert_int_equal(door_clients(house->door, 0, &info, 1), 1);
    assert_int_equal(info.client, hand.welcome.client);
    assert_int_equal(info.commits, 1000);
    assert_int_equal(info.regions, 1);
    assert_int_equal(info.pending, 0);
    assert_int_equal(info.process, getpid());
    assert_string_equal(info.program, "hand");
    hand_close(&hand);
    house_clients_await(house, 0);
    assert_int_equal(house_logged(house, "client.attached", "user 0"), 1);
    for (int i = 0; i < 10000 && house_logged(house, "client.gone", "") == 0; i++)
        usleep(1000); // it is told beside, not before, what the list shows
    assert_int_equal(house_logged(house, "client.gone", ""), 1);
    assert_int_equal(house_logged(house, "client.broke-rule", ""), 0);
}

static void test_questions(void **state) {
    struct house *house = *state;
    struct hand hand = hand_open(house->fixture->path);
    static struct door_regions regions;
    int fds[REGION_FILES];
    for (uint32_t i = 0; i < DOOR_ITEMS_MAX + 6; i++) {
        char name[16];
        snprintf(name, sizeof(name), "r%u", i);
        region_create(house->node, name, 4096);
    }
    hand_ask(&hand, DOOR_LIST, 0, "", &regions, sizeof(regions), fds);
    assert_int_equal(regions.count, DOOR_ITEMS_MAX);
    assert_int_equal(regions.total, DOOR_ITEMS_MAX + 6);
    hand_ask(&hand, DOOR_LIST, regions.infos[DOOR_ITEMS_MAX - 1].region + 1, "", &regions, sizeof(regions),
             fds);
    assert_int_equal(regions.count, 6);
    assert_string_equal(regions.infos[5].name, "r69");
    struct door_region region;
    hand_ask(&hand, DOOR_FIND, 0, "r7", &region, sizeof(region), fds);
    assert_int_equal(region.result, SHELF_OK);
    assert_string_equal(region.info.name, "r7");
    assert_int_equal(fds[0], -1);
    hand_ask(&hand, DOOR_GET, region.info.region, "", &region, sizeof(region), fds);
    assert_string_equal(region.info.name, "r7");
    const uint64_t wrong[] = {0, REGION_SYSTEM, 999, REGION_NUMBERS, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        hand_ask(&hand, DOOR_GET, wrong[i], "", &region, sizeof(region), fds);
        assert_int_equal(region.result, SHELF_NOT_FOUND);
        hand_ask(&hand, DOOR_MAP, wrong[i], "", &region, sizeof(region), fds);
        assert_int_equal(region.result, SHELF_NOT_FOUND);
        assert_int_equal(fds[0], -1);
    }
    hand_ask(&hand, DOOR_FIND, 0, "none", &region, sizeof(region), fds);
    assert_int_equal(region.result, SHELF_NOT_FOUND);
    struct door_info info;
    hand_ask(&hand, DOOR_INFO, 0, "", &info, sizeof(info), fds);
    assert_true(info.info.applied > 70);
    struct door_index index;
    hand_ask(&hand, DOOR_FRESH, 0, "", &index, sizeof(index), fds);
    assert_int_equal(index.message.kind, DOOR_FRESH);
    assert_int_equal(index.result, SHELF_OK);
    hand_ask(&hand, DOOR_CHECKPOINT, 0, "", &index, sizeof(index), fds);
    assert_int_equal(index.result, SHELF_OK);
    assert_true(index.index >= info.info.applied);
    static struct door_clients clients;
    hand_ask(&hand, DOOR_CLIENTS, 0, "", &clients, sizeof(clients), fds);
    assert_int_equal(clients.count, 1);
    assert_int_equal(clients.infos[0].client, hand.welcome.client);
    hand_close(&hand);
}

enum { BURST = 512, BURST_TAKEN_MAX = 8 };

// The library as the client: submits a burst, and is stopped until the node can go no further. 0: all of it was answered.
static int burst(const char *path, uint32_t region) {
    char where[400];
    shelf *s;
    snprintf(where, sizeof(where), "unix:%s/sock", path);
    if (shelf_open(where, NULL, &s) != SHELF_OK)
        return 1;
    for (uint64_t i = 0; i < BURST; i++) {
        shelf_tx *tx;
        if (shelf_begin(s, SHELF_READ_WRITE, &tx) != SHELF_OK ||
            shelf_add(tx, shelf_addr_make((shelf_region)region, 0), 1) != SHELF_OK ||
            shelf_commit_async(tx, i) != SHELF_OK)
            return 2;
    }
    raise(SIGSTOP);
    for (size_t done = 0; done < BURST;) {
        struct shelf_completion completions[64];
        struct pollfd wait = {.fd = shelf_completion_fd(s), .events = POLLIN};
        if (poll(&wait, 1, 20000) != 1)
            return 3;
        done += shelf_completions(s, completions, 64);
    }
    return shelf_close(s) == SHELF_OK ? 0 : 4;
}

// The node takes no more until its answers were taken, and sleeps: whoever takes them has to tell it.
static void test_taking_replies_makes_room(void **state) {
    struct house *house = *state;
    house_close(house);
    house_open(house, (struct door_options){.client_requests_max = BURST_TAKEN_MAX});
    uint32_t region = region_create(house->node, "r", 4096);
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(burst(house->fixture->path, region));
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    uint64_t before, now = word_read(house->node, region, 0);
    do { // until it has come to a stand
        before = now;
        usleep(50000);
        now = word_read(house->node, region, 0);
    } while (now != before);
    assert_true(now < BURST);
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(word_read(house->node, region, 0), BURST);
}

// ---- The socket

static void test_path_longer_than_an_address(void **state) {
    struct house *house = *state;
    house_close(house);
    char long_path[sizeof(house->fixture->path)];
    snprintf(long_path, sizeof(long_path), "%.60s/%0200d", house->fixture->directory, 7);
    assert_int_equal(rename(house->fixture->path, long_path), 0);
    snprintf(house->fixture->path, sizeof(house->fixture->path), "%s", long_path);
    house_open(house, (struct door_options){0});
    struct hand hand = hand_open(long_path);
    hand_session(&hand, "");
    hand_close(&hand);
}

static void test_stale_socket_is_replaced(void **state) {
    struct house *house = *state;
    house_close(house);
    assert_int_equal(fixture_file_size(house->fixture, "sock"), -1);
    fixture_file_write(house->fixture, "sock", "old", 3);
    fixture_file_write(house->fixture, ".sock.new", "old", 3);
    house_open(house, (struct door_options){0});
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "");
    hand_close(&hand);
    struct stat status;
    char path[600];
    snprintf(path, sizeof(path), "%s/sock", house->fixture->path);
    assert_int_equal(stat(path, &status), 0);
    assert_true(S_ISSOCK(status.st_mode) && (status.st_mode & 0777) == 0666);
    assert_int_equal(fixture_file_size(house->fixture, ".sock.new"), -1);
}

static void test_sockets_that_were_handed_in(void **state) {
    struct house *house = *state;
    struct door *second;
    struct door_options options = {.fd_count = 1};
    char path[108];
    snprintf(path, sizeof(path), "%.60s/sock", house->fixture->directory);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    options.fds[0] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(options.fds[0], (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(options.fds[0], 5), 0);
    assert_int_equal(door_open(house->node, &options, &second), SHELF_OK);
    struct hand hand = hand_open(house->fixture->directory), other = hand_open(house->fixture->path);
    hand_session(&hand, "");
    hand_session(&other, "");
    assert_int_equal(door_clients(second, 0, NULL, 0), 1);
    hand_close(&hand);
    hand_close(&other);
    door_close(second);
    unlink(path);
}

static void test_directory_that_is_none(void **state) {
    struct house *house = *state;
    struct door *door = NULL;
    struct door_options options = {.directory = "/nonexistent/shelf"};
    assert_int_equal(door_open(house->node, &options, &door), SHELF_UNAVAILABLE);
    assert_non_null(strstr(detail_text(), "/nonexistent/shelf/sock"));
}

static int sockets_open(void) {
    int count = 0;
    DIR *descriptors = opendir("/proc/self/fd");
    HAND_ASSERT(descriptors);
    for (struct dirent *entry; (entry = readdir(descriptors)) != NULL;) {
        char link[300], target[64] = "";
        snprintf(link, sizeof(link), "/proc/self/fd/%.200s", entry->d_name);
        (void)!readlink(link, target, sizeof(target) - 1);
        count += strncmp(target, "socket:", 7) == 0 || strncmp(target, "anon_inode:", 11) == 0;
    }
    closedir(descriptors);
    return count;
}

// Else clients would not see the node die as long as one of its children lives.
static void test_children_have_no_descriptors(void **state) {
    struct house *house = *state;
    struct hand hand = hand_open(house->fixture->path);
    pid_t child = fork();
    if (child == 0) {
        close(hand.fd);
        for (int fd = 0; fd < 3; fd++) {
            close(fd); // (the test's own may be sockets)
        }
        _exit(sockets_open() == 0 ? 0 : 1);
    }
    child_await(child);
    hand_session(&hand, "");
    hand_close(&hand);
}

// ---- The ring

// Brings the ring's end to the given distance, by a request that makes no sense.
static void ring_advance(struct hand *hand, uint64_t distance) {
    static uint8_t bytes[RING_SUBMIT_BYTES];
    uint64_t size = (2 * RING_SUBMIT_BYTES - distance - hand->tail % RING_SUBMIT_BYTES) % RING_SUBMIT_BYTES;
    size = size < 64 ? size + RING_SUBMIT_BYTES : size;
    while (size > 0) {
        uint64_t part = size > RING_SUBMIT_BYTES / 2 + 64 ? RING_SUBMIT_BYTES / 2 : size;
        struct request_header header = {.size = (uint32_t)(part - sizeof(struct ring_frame)), .kind = 77};
        memcpy(bytes, &header, sizeof(header));
        assert_int_equal(hand_call(hand, bytes, header.size).result, SHELF_INVALID);
        size -= part;
    }
    assert_int_equal(hand->tail % RING_SUBMIT_BYTES, (RING_SUBMIT_BYTES - distance) % RING_SUBMIT_BYTES);
}

static void test_wraps_anywhere(void **state) {
    struct house *house = *state;
    uint32_t region = region_create(house->node, "r", MIB);
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "");
    const uint64_t whole = sizeof(struct ring_frame) + sizeof(struct word_commit);
    for (uint64_t distance = 0; distance <= whole + 8; distance += 8) {
        ring_advance(&hand, distance);
        assert_int_equal(hand_commit(&hand, region, distance * 8, 1000 + distance).result, SHELF_OK);
        assert_int_equal(word_read(house->node, region, distance * 8), 1000 + distance);
    }
    hand_close(&hand);
}

// A commit of `size` bytes at the beginning of the region, of the given byte.
static struct commit_request *large_commit(struct hand *hand, uint32_t region, size_t size, uint8_t byte) {
    size_t padded = (size + 7) & ~(size_t)7;
    struct commit_request *request = calloc(1, sizeof(*request) + sizeof(struct record_range) + padded);
    assert_non_null(request);
    struct record_range *range = (struct record_range *)(request + 1);
    *request = (struct commit_request){
        .header = {.size = (uint32_t)(sizeof(*request) + sizeof(*range) + padded), .kind = REQUEST_COMMIT},
        .session = hand->session,
        .holder = hand->holder,
        .sequence = ++hand->sequence,
        .range_count = 1,
        .ranges_size = (uint32_t)(sizeof(*range) + padded)};
    *range =
        (struct record_range){.address = shelf_addr_make((shelf_region)region, 0), .size = (uint32_t)size};
    memset(range + 1, byte, size);
    return request;
}

static void test_large_requests_in_pieces(void **state) {
    struct house *house = *state;
    uint32_t region = region_create(house->node, "r", 16 * MIB);
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "");
    const uint8_t *bytes = node_replica(house->node)->maps[region].data;
    const size_t sizes[] = {16 * MIB, MIB, MIB + 1, MIB - 16, 3 * MIB + 5, 70001};
    const size_t pieces[] = {0, 0, 8, 24, 65536, 7 * 8};
    for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
        hand.piece_max = pieces[i];
        struct commit_request *request = large_commit(&hand, region, sizes[i], (uint8_t)(i + 1));
        assert_int_equal(hand_call(&hand, request, request->header.size).result, SHELF_OK);
        free(request);
        for (size_t at = 0; at < sizes[i]; at++) {
            assert_int_equal(bytes[at], i + 1);
        }
    }
    hand_close(&hand);
}

// More than the reply ring holds, of which nothing is taken for long.
static void test_many_requests_under_way(void **state) {
    struct house *house = *state;
    enum { COUNT = 3 * RING_REPLIES };
    uint32_t region = region_create(house->node, "r", MIB);
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "");
    for (uint64_t i = 0; i < COUNT; i++) {
        struct word_commit commit = hand_word(&hand, region, i % 1000 * 64, i);
        hand_submit(&hand, i, &commit, sizeof(commit));
    }
    for (int i = 0; i < 2000 && atomic_load(&hand.ring->reply_tail) - hand.reply_head < RING_REPLIES; i++) {
        usleep(1000);
    }
    usleep(20000);
    assert_int_equal(atomic_load(&hand.ring->reply_tail) - hand.reply_head, RING_REPLIES);
    for (uint64_t i = 0; i < COUNT; i++) {
        struct reply reply = hand_reply(&hand);
        assert_int_equal(reply.token, i); // (commits of one client are answered in their order)
        assert_int_equal(reply.result, SHELF_OK);
    }
    hand_close(&hand);
}

static void test_limits_of_a_client(void **state) {
    struct house *house = *state;
    house_close(house);
    house_open(house, (struct door_options){.client_bytes_max = 65536, .client_requests_max = 4});
    uint32_t region = region_create(house->node, "r", MIB);
    struct hand hand = hand_open(house->fixture->path), other = hand_open(house->fixture->path);
    hand_session(&hand, "");
    hand_session(&other, "");
    for (uint64_t i = 0; i < 40; i++) {
        struct commit_request *request = large_commit(&hand, region, i % 8 == 0 ? 300000 : 30000, (uint8_t)i);
        hand_submit(&hand, i, request, request->header.size);
        free(request);
        if (i % 4 == 3) {
            struct shelf_client_info info;
            door_clients(house->door, hand.welcome.client, &info, 1);
            assert_true(info.pending <= 4);
            assert_true(info.pending_bytes <= 65536 || info.pending == 1);
            assert_int_equal(hand_commit(&other, region, MIB - 64, i).result, SHELF_OK);
            for (int k = 0; k < 4; k++) {
                assert_int_equal(hand_reply(&hand).result, SHELF_OK);
            }
        }
    }
    hand_close(&hand);
    hand_close(&other);
}

// ---- Who may what

static void as_user(uint32_t user, uint32_t group) {
    HAND_ASSERT(setgroups(0, NULL) == 0 && setgid(group) == 0 && setuid(user) == 0);
}

static void region_access(struct house *house, uint32_t region, uint32_t owner, uint32_t group,
                          uint32_t mode) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = REQUEST_REGION_ACCESS},
                                     .region = region,
                                     .owner = owner,
                                     .group = group,
                                     .mode = mode};
    struct reply reply;
    assert_int_equal(node_call(house->node, &request, sizeof(request), DEADLINE_MS, &reply), SHELF_OK);
    assert_int_equal(reply.result, SHELF_OK);
}

static void stranger(const char *path, uint32_t region, bool reads, bool writes, uint64_t session) {
    as_user(4321, 4322);
    struct hand hand = hand_open(path);
    struct door_region answer;
    int fds[REGION_FILES];
    hand_ask(&hand, DOOR_MAP, region, "", &answer, sizeof(answer), fds);
    HAND_ASSERT(answer.result == (reads ? SHELF_OK : SHELF_DENIED) && (fds[0] >= 0) == reads);
    if (reads) { // and no more than that: neither here nor through /proc
        char proc[64];
        snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fds[0]);
        HAND_ASSERT(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fds[0], 0) == MAP_FAILED);
        HAND_ASSERT(open(proc, O_RDWR) < 0);
        HAND_ASSERT(ftruncate(fds[0], 0) != 0);
    }
    hand_session(&hand, "");
    HAND_ASSERT(hand_commit(&hand, region, 0, 5).result == (writes ? SHELF_OK : SHELF_DENIED));
    hand.session = session; // somebody else's
    hand.holder = 1;
    HAND_ASSERT(hand_commit(&hand, region, 0, 6).reason == REASON_SESSION_DENIED);
    HAND_ASSERT(hand_session_call(&hand, REQUEST_SESSION_OPEN, 0, 0, "engine").reason ==
                REASON_SESSION_DENIED);
    hand_close(&hand);
}

static void test_rights_of_another_user(void **state) {
    struct house *house = *state;
    if (getuid() != 0) {
        skip();
    }
    assert_int_equal(chmod(house->fixture->directory, 0755), 0);
    assert_int_equal(chmod(house->fixture->path, 0755), 0);
    uint32_t region = region_create(house->node, "r", MIB);
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "engine");
    const struct {
        uint32_t owner, group, mode;
        bool reads, writes;
    } cases[] = {
        {0, 0, 0660, false, false},   {0, 0, 0664, true, false},        {0, 0, 0666, true, true},
        {0, 4322, 0640, true, false}, {4321, 4322, 0066, false, false}, {4321, 0, 0600, true, true},
        {0, 0, 0602, false, true},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        region_access(house, region, cases[i].owner, cases[i].group, cases[i].mode);
        pid_t child = fork();
        if (child == 0) {
            stranger(house->fixture->path, region, cases[i].reads, cases[i].writes, hand.session);
            _exit(0);
        }
        child_await(child);
        assert_int_equal(hand_commit(&hand, region, 64, i).result, SHELF_OK);
    }
    assert_int_equal(house_logged(house, "client.attached", "user 4321"), ARRAY_COUNT(cases));
    hand_close(&hand);
}

// ---- Shares

enum { COSTLY_LINES = 50000, MODEST = 3 };

struct costly {
    struct hand hand;
    uint32_t region;
    _Atomic uint32_t answered, over;
};

// Commits that read much, as fast as the node takes them.
static void *costly_run(void *context) {
    struct costly *costly = context;
    static struct {
        struct commit_request request;
        uint64_t lines[COSTLY_LINES];
        struct record_range range;
        uint64_t word;
    } commit;
    for (uint32_t i = 0; i < COSTLY_LINES; i++) {
        commit.lines[i] = (shelf_addr_make((shelf_region)costly->region, MIB) >> LINE_SHIFT) + i;
    }
    commit.range =
        (struct record_range){.address = shelf_addr_make((shelf_region)costly->region, 0), .size = 8};
    while (!atomic_load(&costly->over)) {
        commit.request = hand_word(&costly->hand, costly->region, 0, 1).request;
        commit.request.header.size = sizeof(commit);
        commit.request.line_count = COSTLY_LINES;
        commit.request.epoch = atomic_load(&costly->hand.image->epoch);
        struct reply reply = hand_call(&costly->hand, &commit, sizeof(commit));
        if (reply.result != SHELF_OK) {
            print_error("a costly request: %u, reason %u\n", reply.result, reply.reason);
        }
        HAND_ASSERT(reply.result == SHELF_OK);
        atomic_fetch_add(&costly->answered, 1);
    }
    return NULL;
}

// Who submits what costs much gets no more of the door's time than its share, while others want something; else all of it.
static void test_costly_requests_have_a_share(void **state) {
    struct house *house = *state;
    struct costly costly = {.region = region_create(house->node, "r", 16 * MIB)};
    struct hand hands[MODEST];
    pthread_t thread;
    costly.hand = hand_open(house->fixture->path);
    hand_session(&costly.hand, "");
    for (int i = 0; i < MODEST; i++) {
        hands[i] = hand_open(house->fixture->path);
        hand_session(&hands[i], "");
    }
    const struct client *client = NULL;
    LIST_FOREACH(link, &house->door->clients) {
        const struct client *found = LIST_ENTRY(link, struct client, link);
        client = found->id == costly.hand.welcome.client ? found : client;
    }
    HAND_ASSERT(client != NULL);
    pthread_create(&thread, NULL, costly_run, &costly);
    uint64_t begin_ns = world_monotonic_ns(), took_ns = 0;
    uint32_t rounds = 0;
    for (; took_ns < 1500000000; rounds++) {
        for (int i = 0; i < MODEST; i++) {
            assert_int_equal(hand_commit(&hands[i], costly.region, 64u * (unsigned)(1 + i), rounds).result,
                             SHELF_OK);
        }
        took_ns = world_monotonic_ns() - begin_ns;
    }
    uint32_t beside = atomic_load(&costly.answered);
    uint64_t charged_ns = client->charged_ns, usual_ns = client->usual_ns;
    // Alone it may have everything: there is no reason to wait.
    while (atomic_load(&costly.answered) < beside + 50) {
        usleep(1000);
    }
    atomic_store(&costly.over, 1);
    pthread_join(thread, NULL);
    print_message("%u costly requests of %llu us beside %u rounds of others: %llu ms of %llu\n", beside,
                  (unsigned long long)usual_ns / 1000, rounds, (unsigned long long)charged_ns / 1000000,
                  (unsigned long long)took_ns / 1000000);
    assert_true(beside > 0);
    // What it is due, what it may be ahead, and what was not known before: a request.
    assert_true(charged_ns <=
                took_ns * 2 / 5 + 20000000); // (a quarter, and when nobody else came for a while)
    hand_close(&costly.hand);
    for (int i = 0; i < MODEST; i++) {
        hand_close(&hands[i]);
    }
    house_clients_await(house, 0);
}

// ---- Going

static void test_sessions_go_with_their_client(void **state) {
    struct house *house = *state;
    uint32_t region = region_create(house->node, "r", MIB);
    uint32_t before = house_sessions(house);
    for (int i = 0; i < 2000; i++) {
        struct hand hand = hand_open(house->fixture->path);
        hand_session(&hand, "");
        assert_int_equal(hand_commit(&hand, region, 0, 1).result, SHELF_OK);
        if (i % 3 == 0) { // as a program does that ends well
            hand_session_call(&hand, REQUEST_SESSION_EXPIRE, hand.session, hand.holder, "");
        } else if (i % 3 == 1) { // under way when it goes
            struct session_request request = {
                .header = {.size = sizeof(request), .kind = REQUEST_SESSION_OPEN}};
            hand_submit(&hand, 1, &request, sizeof(request));
        }
        hand_close(&hand);
    }
    house_clients_await(house, 0);
    for (int i = 0; i < HAND_MS && house_sessions(house) > before; i++) {
        usleep(1000);
    }
    assert_int_equal(house_sessions(house), before);
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "engine");
    hand_close(&hand);
    house_clients_await(house, 0);
    usleep(10000);
    assert_int_equal(house_sessions(house), before + 1); // a named one stays
}

// How many unnamed ones it can open, at most so many.
static uint32_t sessions_open(struct hand *hand, uint32_t count_max, enum reply_reason *ret_reason) {
    for (uint32_t count = 0; count < count_max; count++) {
        struct reply reply = hand_session_call(hand, REQUEST_SESSION_OPEN, 0, 0, "");
        if (reply.result != SHELF_OK) {
            assert_int_equal(reply.result, SHELF_NO_SPACE);
            *ret_reason = (enum reply_reason)reply.reason;
            return count;
        }
        hand->session = reply.session;
        hand->holder = reply.holder;
        hand->sequence = reply.session_last;
    }
    *ret_reason = REASON_NONE;
    return count_max;
}

// Programs that open sessions without end get fewer the more of them there are; one more program always gets its own.
static void test_sessions_of_a_client_have_a_share(void **state) {
    struct house *house = *state;
    enum { GREEDY = 40 };
    struct hand hands[GREEDY];
    enum reply_reason reason;
    uint32_t region = region_create(house->node, "r", MIB), before = house_sessions(house),
             least = UINT32_MAX;
    for (int i = 0; i < GREEDY; i++) {
        hands[i] = hand_open(house->fixture->path);
        uint32_t count = sessions_open(&hands[i], SHELF_SESSIONS_MAX, &reason);
        // One is enough to commit without a wait; the node's user has a share, too, which ends at three quarters.
        assert_true(count >= 1 || reason == REASON_SESSION_SHARE_USER);
        least = (uint32_t)min_u64(least, count);
        assert_true(i > 0 || (reason == REASON_SESSION_SHARE_PROGRAM && count > 64 && count < 128));
    }
    assert_true(house_sessions(house) < SHELF_SESSIONS_MAX);
    assert_int_equal(hand_commit(&hands[0], region, 0, 1).result, SHELF_OK);
    // What one gives back another one may have.
    hand_session_call(&hands[0], REQUEST_SESSION_EXPIRE, hands[0].session, hands[0].holder, "");
    assert_int_equal(sessions_open(&hands[0], 2, &reason), 0); // it has far more than its share by now
    assert_true(sessions_open(&hands[GREEDY - 1], 2, &reason) <= 1);
    for (int i = 0; i < GREEDY; i++) {
        hand_close(&hands[i]);
    }
    house_clients_await(house, 0);
    for (int i = 0; i < HAND_MS && house_sessions(house) > before; i++) {
        usleep(1000);
    }
    assert_int_equal(house_sessions(house), before);
    struct hand hand = hand_open(house->fixture->path);
    assert_int_equal(sessions_open(&hand, 64, &reason), 64);
    hand_close(&hand);
    house_clients_await(house, 0);
}

// What a client says KEEP of goes with it, though it was opened with another node.
static void test_kept_sessions_go_with_their_client(void **state) {
    struct house *house = *state;
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "");
    uint64_t session = hand.session, holder = hand.holder;
    hand_session(&hand, "engine");
    uint64_t engine = hand.session, engine_holder = hand.holder;
    uint32_t before = house_sessions(house);
    house_close(house);
    hand_close(&hand);
    house_open(house, (struct door_options){0});
    assert_int_equal(house_sessions(house), before); // it is the node that went
    hand = hand_open(house->fixture->path);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(hand_session_call(&hand, REQUEST_SESSION_KEEP, session, holder, "").result,
                         SHELF_OK);
        assert_int_equal(hand_session_call(&hand, REQUEST_SESSION_KEEP, engine, engine_holder, "").result,
                         SHELF_OK);
    }
    assert_int_equal(hand_session_call(&hand, REQUEST_SESSION_KEEP, session, holder + 1, "").result,
                     SHELF_FENCED);
    hand_close(&hand);
    house_clients_await(house, 0);
    for (int i = 0; i < HAND_MS && house_sessions(house) >= before; i++) {
        usleep(1000);
    }
    usleep(10000);
    assert_int_equal(house_sessions(house), before - 1); // the named one stays
}

static void test_killed_clients(void **state) {
    struct house *house = *state;
    uint32_t region = region_create(house->node, "r", MIB);
    uint32_t before = house_sessions(house);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            struct hand hand = hand_open(house->fixture->path);
            hand_session(&hand, "");
            if (i % 5 == 0 && fork() > 0) { // a child of it has the socket, and lives on
                _exit(0);
            }
            for (uint64_t k = 0;; k++) {
                struct word_commit commit = hand_word(&hand, region, k % 1000 * 64, k);
                hand_submit(&hand, k, &commit, sizeof(commit));
                while (hand_replied(&hand)) {
                    (void)hand_reply(&hand);
                }
                if (i % 5 == 0) {
                    usleep(10000);
                    if (send(hand.fd, "", 1, MSG_NOSIGNAL) < 0) {
                        _exit(0);
                    }
                }
            }
        }
        usleep((useconds_t)(1000 + 100 * i));
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
    }
    house_clients_await(house, 0);
    for (int i = 0; i < HAND_MS && house_sessions(house) > before; i++) {
        usleep(1000);
    }
    assert_int_equal(house_sessions(house), before);
    assert_int_equal(house_logged(house, "client.broke-rule", ""), 0);
}

static void test_close_with_clients(void **state) {
    struct house *house = *state;
    uint32_t region = region_create(house->node, "r", MIB);
    struct hand hand = hand_open(house->fixture->path), idle = hand_open(house->fixture->path);
    int silent = hand_connect(house->fixture->path);
    hand_session(&hand, "engine");
    for (uint64_t i = 0; i < 500; i++) {
        struct word_commit commit = hand_word(&hand, region, i * 64, i + 1);
        hand_submit(&hand, i, &commit, sizeof(commit));
    }
    uint64_t head = atomic_load(&hand.ring->submit_head);
    house_close(house);
    hand_await_cut(hand.fd);
    hand_await_cut(idle.fd);
    hand_await_cut(silent);
    uint64_t taken =
        atomic_load(&hand.ring->submit_head) / (sizeof(struct word_commit) + sizeof(struct ring_frame));
    assert_true(atomic_load(&hand.ring->submit_head) >= head);
    uint64_t session = hand.session, holder = hand.holder;
    hand_close(&hand);
    hand_close(&idle);
    close(silent);
    house_open(house, (struct door_options){0});
    for (uint64_t i = 2; i < taken; i++) { // what was taken has been finished
        assert_int_equal(word_read(house->node, region, (i - 2) * 64), i - 1);
    }
    hand = hand_open(house->fixture->path);
    hand.session = session;
    hand.holder = holder;
    hand.sequence = 600;
    assert_int_equal(hand_commit(&hand, region, 0, 7).result, SHELF_OK);
    hand_close(&hand);
}

// Commits that were under way are told so, later ones that nothing has happened; looking goes on.
static void test_node_that_stops(void **state) {
    struct house *house = *state;
    uint32_t region = region_create(house->node, "r", MIB);
    struct hand hand = hand_open(house->fixture->path);
    hand_session(&hand, "");
    assert_int_equal(hand_commit(&hand, region, 0, 1).result, SHELF_OK);
    log_prepared_await(house->node);
    file_break(house->fixture, "log");
    struct reply reply = hand_commit(&hand, region, 0, 2);
    assert_int_equal(reply.result, SHELF_UNKNOWN);
    assert_int_equal(reply.reason, REASON_NODE_STOPPED);
    reply = hand_commit(&hand, region, 0, 3);
    assert_int_equal(reply.result, SHELF_IO);
    assert_int_equal(reply.reason, REASON_NODE_STOPPED);
    struct door_info info;
    struct door_index index;
    int fds[REGION_FILES];
    hand_ask(&hand, DOOR_INFO, 0, "", &info, sizeof(info), fds);
    assert_int_equal(info.info.state, SHELF_IO);
    hand_ask(&hand, DOOR_CHECKPOINT, 0, "", &index, sizeof(index), fds);
    assert_int_equal(index.result, SHELF_IO);
    hand_close(&hand);
    door_close(house->door);
    assert_int_equal(node_close(house->node), SHELF_IO);
    house_open(house, (struct door_options){0});
}

// A thread that has nothing to do sleeps, however many are attached.
static void test_idle_costs_nothing(void **state) {
    struct house *house = *state;
    enum { IDLE = 50 };
    struct hand hands[IDLE];
    struct rusage before, after;
    for (int i = 0; i < IDLE; i++) {
        hands[i] = hand_open(house->fixture->path);
        hand_session(&hands[i], "");
    }
    usleep(300000);
    getrusage(RUSAGE_SELF, &before);
    usleep(1000000);
    getrusage(RUSAGE_SELF, &after);
    assert_true(after.ru_nvcsw - before.ru_nvcsw < 40);
    long used_us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 +
                   (after.ru_utime.tv_usec - before.ru_utime.tv_usec);
    assert_true(used_us < 50000);
    for (int i = 0; i < IDLE; i++) {
        hand_close(&hands[i]);
    }
}

// ---- Many

static void test_many_clients(void **state) {
    struct house *house = *state;
    enum { CLIENTS = 100, COMMITS = 30 };
    uint32_t region = region_create(house->node, "r", MIB);
    pid_t children[CLIENTS];
    for (uint64_t i = 0; i < CLIENTS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            struct hand hand = hand_open(house->fixture->path);
            hand_session(&hand, "");
            for (uint64_t k = 1; k <= COMMITS; k++) {
                HAND_ASSERT(hand_commit(&hand, region, i * 64, k).result == SHELF_OK);
            }
            _exit(0);
        }
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        child_await(children[i]);
        assert_int_equal(word_read(house->node, region, i * 64), COMMITS);
    }
    house_clients_await(house, 0);
    assert_int_equal(house_logged(house, "client.attached", ""), CLIENTS);
}

static void wait_for_change(const struct image *image, uint32_t region, uint32_t event) {
    const _Atomic uint32_t *word = &image->regions[region].event;
    struct timespec timeout = {.tv_sec = HAND_MS / 1000};
    while (atomic_load(word) == event) {
        long result = syscall(SYS_futex, word, FUTEX_WAIT, event, &timeout, NULL, 0);
        HAND_ASSERT(result == 0 || errno == EAGAIN || errno == EINTR);
    }
}

// Two processes take turns, each woken by the other's commit.
static void test_waiting_for_changes(void **state) {
    struct house *house = *state;
    enum { ROUNDS = 500 };
    uint32_t regions[2] = {region_create(house->node, "a", 4096), region_create(house->node, "b", 4096)};
    pid_t child = fork();
    if (child == 0) {
        struct hand hand = hand_open(house->fixture->path);
        hand_session(&hand, "");
        uint32_t event = 0;
        for (uint64_t i = 0; i < ROUNDS; i++) {
            atomic_fetch_add(&hand.ring->waiters, 1);
            wait_for_change(hand.image, regions[0], event);
            event = atomic_load(&hand.image->regions[regions[0]].event);
            atomic_fetch_sub(&hand.ring->waiters, 1);
            HAND_ASSERT(hand_commit(&hand, regions[1], 0, i).result == SHELF_OK);
        }
        _exit(0);
    }
    struct reply session = session_open(house->node), reply;
    const struct image *image = node_replica(house->node)->image;
    uint32_t event = atomic_load(&image->regions[regions[1]].event);
    for (uint64_t i = 0; i < ROUNDS; i++) {
        struct word_commit commit = word_commit(house->node, &session, i + 1, regions[0], 0, i);
        assert_int_equal(node_call(house->node, &commit, sizeof(commit), DEADLINE_MS, &reply), SHELF_OK);
        node_waiters_add(house->node, 1);
        wait_for_change(image, regions[1], event);
        event = atomic_load(&image->regions[regions[1]].event);
        node_waiters_add(house->node, -1);
    }
    child_await(child);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_attach_commit_map),
        TEST(test_questions),
        TEST(test_taking_replies_makes_room),
        TEST(test_path_longer_than_an_address),
        TEST(test_stale_socket_is_replaced),
        TEST(test_sockets_that_were_handed_in),
        TEST(test_directory_that_is_none),
        TEST(test_children_have_no_descriptors),
        TEST(test_wraps_anywhere),
        TEST(test_large_requests_in_pieces),
        TEST(test_many_requests_under_way),
        TEST(test_limits_of_a_client),
        TEST(test_rights_of_another_user),
        TEST(test_sessions_go_with_their_client),
        TEST(test_sessions_of_a_client_have_a_share),
        TEST(test_kept_sessions_go_with_their_client),
        TEST(test_killed_clients),
        TEST(test_costly_requests_have_a_share),
        TEST(test_close_with_clients),
        TEST(test_node_that_stops),
        TEST(test_idle_costs_nothing),
        TEST(test_many_clients),
        TEST(test_waiting_for_changes),
    };
    return cmocka_run_group_tests_name("door", tests, NULL, NULL);
}
