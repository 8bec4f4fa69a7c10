// SPDX-License-Identifier: Apache-2.0
//
// Processes of another user scribble over their own rings while they use them: cursors, headers, bytes, flags, by a thread that races
// with the node's reading. The node lives, regions that they may not write keep every byte, and a client beside them that keeps
// to the rules gets every answer.
//
// Usage: test_door_fuzz [SECONDS [SEED]]

#include <grp.h>

#include "base/crc.h"
#include "base/random.h"
#include "door_fixture.h"

enum { REGION_BYTES = 1 << 20, MUTATORS = 3, COMMITS_A_LIFE = 400 };

static uint64_t seconds = 5, seed;

// ---- One that scribbles

struct scribbler {
    struct hand *hand;
    struct random random;
    bool cursors; // too; such a client does not live long
    _Atomic bool over;
};

static void scribble(struct scribbler *scribbler) {
    struct ring *ring = scribbler->hand->ring;
    struct random *random = &scribbler->random;
    uint64_t tail = atomic_load_explicit(&ring->submit_tail, memory_order_relaxed);
    uint64_t near = (tail - 8 * random_below(random, 64)) % RING_SUBMIT_BYTES & ~(uint64_t)7;
    uint64_t word = random_chance(random, 1, 2) ? random_next(random) : random_below(random, 1 << 12);
    switch (random_below(random, scribbler->cursors ? 12 : 8)) {
    case 0:
    case 1:
    case 2: // bytes of requests that the node may be copying
        __atomic_store_n((uint64_t *)(void *)(ring->submit + near), word, __ATOMIC_RELAXED);
        break;
    case 3: // sizes
        __atomic_store_n((uint32_t *)(void *)(ring->submit + near), (uint32_t)word, __ATOMIC_RELAXED);
        break;
    case 4:
        atomic_store(&ring->client_sleeps, (uint32_t)word);
        break;
    case 5:
        atomic_store(&ring->waiters, (uint32_t)word);
        break;
    case 6:
        atomic_store(&ring->node_sleeps, (uint32_t)word);
        break;
    case 7: // the node does not read them
        atomic_store(&ring->submit_head, word);
        atomic_store(&ring->reply_tail, word);
        memset(&ring->replies[word % RING_REPLIES], (int)word, sizeof(ring->replies[0]));
        break;
    case 8:
        atomic_store(&ring->submit_tail, tail + (word & ~(uint64_t)7) % 4096);
        break;
    case 9:
        atomic_store(&ring->submit_tail, tail - (word & ~(uint64_t)7) % 4096);
        break;
    case 10:
        atomic_store(&ring->reply_head, atomic_load(&ring->reply_head) + word % 8);
        break;
    default:
        atomic_store(&ring->submit_tail, word);
        break;
    }
}

static void *scribbler_main(void *context) {
    struct scribbler *scribbler = context;
    while (!atomic_load(&scribbler->over)) {
        uint64_t rounds = random_below(&scribbler->random, 6);
        for (uint64_t i = 0; i < rounds; i++) {
            scribble(scribbler);
        }
        sched_yield();
    }
    return NULL;
}

// A request somewhere in the ring, room or not.
static void request_put(struct hand *hand, const void *bytes, size_t size) {
    struct ring_frame frame = {.size = (uint32_t)size, .tag = hand->tail};
    uint8_t whole[sizeof(frame) + 256] = {0};
    memcpy(whole, &frame, sizeof(frame));
    memcpy(whole + sizeof(frame), bytes, size);
    size_t padded = align_up(sizeof(frame) + size, 8);
    for (size_t i = 0; i < padded; i++) {
        hand->ring->submit[(hand->tail + i) % RING_SUBMIT_BYTES] = whole[i];
    }
    hand->tail += padded;
    atomic_store(&hand->ring->submit_tail, hand->tail);
    hand_bell(hand);
}

// Until the node has had enough of it. Returns whether it had.
static bool scribbler_life(const char *path, const uint32_t regions[3], struct random *random,
                           uint64_t until_ns) {
    struct hand hand = hand_open(path);
    struct scribbler scribbler = {.hand = &hand, .cursors = random_chance(random, 1, 2)};
    random_seed(&scribbler.random, random_next(random));
    hand_session(&hand, "");
    pthread_t thread;
    HAND_ASSERT(pthread_create(&thread, NULL, scribbler_main, &scribbler) == 0);
    bool cut = false;
    for (uint64_t i = 0; !cut && i < COMMITS_A_LIFE && world_monotonic_ns() < until_ns; i++) {
        // To its own region, or to one that it may not write; now and then a large one of which only the beginning comes.
        struct word_commit commit =
            hand_word(&hand, regions[random_below(random, 3)], 8 * random_below(random, 1000), i);
        request_put(&hand, &commit, sizeof(commit));
        atomic_store(&hand.ring->reply_head, atomic_load(&hand.ring->reply_tail));
        char byte;
        ssize_t size;
        while ((size = recv(hand.fd, &byte, 1, MSG_DONTWAIT)) > 0) {
        }
        cut = size == 0 || (errno != EAGAIN && errno != EINTR);
        if (random_chance(random, 1, 4)) {
            sched_yield();
        }
    }
    atomic_store(&scribbler.over, true);
    pthread_join(thread, NULL);
    hand_close(&hand);
    return cut;
}

static void scribbler_process(const char *path, const uint32_t regions[3], uint64_t number,
                              uint64_t until_ns) {
    if (getuid() == 0) {
        HAND_ASSERT(setgroups(0, NULL) == 0 && setgid(4322) == 0 && setuid(4321) == 0);
    }
    struct random random;
    random_seed(&random, seed + number);
    uint64_t lives = 0, cuts = 0;
    for (; world_monotonic_ns() < until_ns; lives++) {
        cuts += scribbler_life(path, regions, &random, until_ns);
    }
    print_message("  process %llu: %llu lives, %llu of them cut short\n", (unsigned long long)number,
                  (unsigned long long)lives, (unsigned long long)cuts);
    _exit(lives > 0 && cuts > 0 ? 0 : 1);
}

// ---- The others

static void region_mode(struct house *house, uint32_t region, uint32_t mode) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = REQUEST_REGION_ACCESS},
                                     .region = region,
                                     .owner = SHELF_KEEP,
                                     .group = SHELF_KEEP,
                                     .mode = mode};
    struct reply reply;
    assert_int_equal(node_call(house->node, &request, sizeof(request), DEADLINE_MS, &reply), SHELF_OK);
    assert_int_equal(reply.result, SHELF_OK);
}

static uint32_t region_digest(struct house *house, uint32_t region) {
    return crc32c(0, node_replica(house->node)->maps[region].data, REGION_BYTES);
}

static void test_scribblers(void **state) {
    struct house *house = *state;
    // Theirs, one that they may only read, one that they may not touch, and the legal client's.
    uint32_t regions[4];
    const uint32_t modes[4] = {0666, 0644, 0600, 0600};
    if (getuid() != 0) {
        skip();
    }
    chmod(house->fixture->directory, 0755);
    chmod(house->fixture->path, 0755);
    struct hand legal = hand_open(house->fixture->path);
    hand_session(&legal, "legal");
    for (uint32_t i = 0; i < 4; i++) {
        char name[2] = {(char)('a' + i), 0};
        regions[i] = region_create(house->node, name, REGION_BYTES);
        region_mode(house, regions[i], modes[i]);
        for (uint64_t k = 0; k < 100; k++) {
            assert_int_equal(hand_commit(&legal, regions[i], k * 1000 * 8 % REGION_BYTES, k + i).result,
                             SHELF_OK);
        }
    }
    uint32_t digests[2] = {region_digest(house, regions[1]), region_digest(house, regions[2])};
    uint64_t until_ns = world_monotonic_ns() + seconds * 1000000000;
    pid_t children[MUTATORS];
    for (uint64_t i = 0; i < MUTATORS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            scribbler_process(house->fixture->path, regions, i, until_ns);
        }
    }
    uint64_t commits = 0, worst_ns = 0;
    for (; world_monotonic_ns() < until_ns; commits++) {
        uint64_t begin_ns = world_monotonic_ns();
        assert_int_equal(hand_commit(&legal, regions[3], 8 * (commits % 1000), commits).result, SHELF_OK);
        assert_int_equal(word_read(house->node, regions[3], 8 * (commits % 1000)), commits);
        worst_ns = max_u64(worst_ns, world_monotonic_ns() - begin_ns);
    }
    for (uint64_t i = 0; i < MUTATORS; i++) {
        child_await(children[i]);
    }
    house_clients_await(house, 1);
    assert_int_equal(region_digest(house, regions[1]), digests[0]);
    assert_int_equal(region_digest(house, regions[2]), digests[1]);
    print_message("  %llu commits beside them, the slowest took %llu us; seed %llu\n",
                  (unsigned long long)commits, (unsigned long long)worst_ns / 1000, (unsigned long long)seed);
    assert_true(worst_ns < 2000000000);
    hand_close(&legal);
}

int main(int argc, char **argv) {
    seed = world_monotonic_ns();
    if (argc > 1) {
        seconds = strtoull(argv[1], NULL, 10);
    }
    if (argc > 2) {
        seed = strtoull(argv[2], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_scribblers, house_setup, house_teardown),
    };
    return cmocka_run_group_tests_name("door-fuzz", tests, NULL, NULL);
}
