// SPDX-License-Identifier: Apache-2.0
//
// No wake-up is lost: two processes answer each other through two words of a shelf, each asleep in shelf_wait() until the other's
// commit, for as many rounds as the first argument says.
//
// A lost wake-up is told from a slow machine. A node wakes sleepers before it answers the commit, and who was woken is no longer in
// the system call. So a side that is asleep in it, on the very event word, while the commit that it waits for has returned
// OK to the other side, has been forgotten: a third process that looks on finds that within two looks, and says which.

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/random.h"
#include "child.h"
#include "client/handle.h"
#include "cmocka_program.h"
#include "directory.h"
#include "shelf.h"
#include "world/world.h"

enum { SIDES = 2, LOOK_MS = 20, STALL_S = 60, LINE = 64 };

static uint64_t rounds = 30000, seed;
static char directory[64];
static char where[96];

// A side's own, for the one that looks on.
struct side {
    _Alignas(128) _Atomic uint64_t committed; // the round of its word that it has the node's OK for
    _Atomic uint64_t awaited;                 // the round of the other's word that it waits for
    _Atomic uint64_t since;                   // ... it has seen the index up to which it has not come
    _Atomic uint64_t sleeps;                  // calls of shelf_wait(); odd: in one
    _Atomic uint64_t event_address, event;    // of the futex, in its memory; the value before the call
    _Atomic uint64_t switches;                // how often it gave up its CPU; set at the end
};
struct board {
    struct side sides[SIDES];
    _Atomic uint32_t served, quit;
};
static struct board *board;

// ---- A place to work

// In memory, if the world can do with it: disks are slow, and not what is tested.
static bool place_make(const char *below) {
    snprintf(directory, sizeof(directory), "%s/shelf-wait-XXXXXX", below);
    if (!mkdtemp(directory))
        return false;
    snprintf(where, sizeof(where), "dir:%s/shelf", directory);
    return true;
}

static int down(void **state) {
    (void)state;
    munmap(board, sizeof(*board));
    (void)directory_remove(directory);
    return 0;
}

static int up(void **state) {
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(board != MAP_FAILED);
    assert_true(place_make("/dev/shm") || place_make("/tmp"));
    shelf *s;
    shelf_region regions[SIDES];
    shelf_result result = shelf_open(where, &(struct shelf_options){.flags = SHELF_OPEN_CREATE}, &s);
    if (result != SHELF_OK && strncmp(directory, "/tmp", 4) != 0) {
        (void)directory_remove(directory);
        assert_true(place_make("/tmp"));
        result = shelf_open(where, &(struct shelf_options){.flags = SHELF_OPEN_CREATE}, &s);
    }
    assert_int_equal(result, SHELF_OK);
    assert_int_equal(shelf_region_create(s, "0", 4096, 0, &regions[0]), SHELF_OK);
    assert_int_equal(shelf_region_create(s, "1", 4096, 0, &regions[1]), SHELF_OK);
    assert_int_equal(shelf_close(s), SHELF_OK);
    (void)state;
    return 0;
}

// ---- Sides

struct player {
    shelf *s;
    uint32_t number;
    shelf_addr words[SIDES];
    struct random random;
    struct side *side;
};

// Of different lengths, so that the two sides meet at every point of going to sleep.
static void dawdle(struct player *player) {
    if (random_chance(&player->random, 1, 4)) {
        uint64_t until_ns = world_monotonic_ns() + random_below(&player->random, 30000);
        while (world_monotonic_ns() < until_ns)
            continue;
    }
}

static void word_set(struct player *player, uint64_t round) {
    shelf_tx *tx;
    CHECK(shelf_begin(player->s, SHELF_READ_WRITE, &tx) == SHELF_OK);
    CHECK(shelf_write(tx, player->words[player->number], &round, sizeof(round)) == SHELF_OK);
    CHECK(shelf_commit(tx, NULL) == SHELF_OK);
    atomic_store(&player->side->committed, round);
}

static uint64_t other_word_get(struct player *player, uint64_t *ret_index) {
    shelf_tx *tx;
    uint64_t round;
    CHECK(shelf_begin(player->s, SHELF_READ_ONLY, &tx) == SHELF_OK);
    CHECK(shelf_read(tx, player->words[1 - player->number], &round, sizeof(round)) == SHELF_OK);
    *ret_index = shelf_tx_index(tx);
    CHECK(shelf_commit(tx, NULL) == SHELF_OK);
    return round;
}

static void other_word_await(struct player *player, uint64_t round) {
    struct side *side = player->side;
    shelf_addr address = player->words[1 - player->number];
    uint64_t index, found;
    atomic_store(&side->awaited, round);
    while ((found = other_word_get(player, &index)) != round) {
        CHECK(found == round - 1);
        const struct replica *replica = atomic_load(&player->s->host.replica);
        const _Atomic uint32_t *event = &replica->image->regions[shelf_addr_region(address)].event;
        atomic_store(&side->event_address, (uint64_t)(uintptr_t)event);
        atomic_store(&side->event, atomic_load(event));
        atomic_store(&side->since, index);
        dawdle(player);
        atomic_fetch_add(&side->sleeps, 1);
        CHECK(shelf_wait(player->s, address, sizeof(round), index, UINT32_MAX) == SHELF_OK);
        atomic_fetch_add(&side->sleeps, 1);
    }
}

static void play(shelf *s, uint32_t number, bool one_region) {
    struct player player = {.s = s, .number = number, .side = &board->sides[number]};
    shelf_region regions[SIDES];
    struct rusage usage;
    CHECK(shelf_region_open(s, "0", &regions[0]) == SHELF_OK);
    CHECK(shelf_region_open(s, "1", &regions[1]) == SHELF_OK);
    player.words[0] = shelf_addr_make(regions[0], 0);
    player.words[1] = shelf_addr_make(regions[!one_region], LINE);
    random_seed(&player.random, seed + number);
    for (uint64_t round = 1; round <= rounds; round++) {
        if (number == 1)
            other_word_await(&player, round);
        dawdle(&player);
        word_set(&player, round);
        if (number == 0)
            other_word_await(&player, round);
    }
    (void)getrusage(RUSAGE_THREAD, &usage);
    atomic_store(&player.side->switches, (uint64_t)usage.ru_nvcsw + 1);
}

static shelf *handle_open(void) {
    shelf *s = NULL;
    CHECK(shelf_open(where, NULL, &s) == SHELF_OK);
    return s;
}

// ---- Processes

static pid_t side_begin(uint32_t number, bool one_region, bool is_node) {
    pid_t child = child_begin();
    if (child == 0) {
        shelf *s = handle_open();
        struct shelf_stats stats;
        CHECK(shelf_stats_get(s, &stats) == SHELF_OK && stats.is_node == is_node);
        if (is_node)
            atomic_store(&board->served, 1);
        play(s, number, one_region);
        while (is_node && !atomic_load(&board->quit)) // the other one has to close first
            pause_ms(1);
        CHECK(shelf_close(s) == SHELF_OK);
        _exit(0);
    }
    return child;
}

static pid_t node_begin(void) {
    pid_t child = child_begin();
    if (child == 0) {
        shelf *s = handle_open();
        atomic_store(&board->served, 1);
        while (!atomic_load(&board->quit))
            pause_ms(1);
        CHECK(shelf_close(s) == SHELF_OK);
        _exit(0);
    }
    return child;
}

static bool ended_well(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// ---- Looking on

// Is its main thread in FUTEX_WAIT at that address? Its registers are not for everybody: then whether it sleeps has to do, and
// is asked more than once.
static bool asleep_at(pid_t process, uint64_t address) {
    char path[64], text[256] = "";
    snprintf(path, sizeof(path), "/proc/%d/syscall", (int)process);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (fd >= 0)
        close(fd);
    if (size > 0) {
        long number = 0;
        unsigned long long first = 0;
        return sscanf(text, "%ld 0x%llx", &number, &first) == 2 && number == SYS_futex && first == address;
    }
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)process);
    FILE *file = fopen(path, "re");
    bool found = file && fgets(text, sizeof(text), file) && strstr(text, ") S ");
    if (file)
        fclose(file);
    return found;
}

static bool forgotten(const pid_t sides[SIDES], uint32_t number) {
    const struct side *side = &board->sides[number], *other = &board->sides[1 - number];
    uint64_t sleeps = atomic_load(&side->sleeps);
    for (int look = 0; look < 5; look++) {
        bool due = sleeps % 2 == 1 && atomic_load(&other->committed) >= atomic_load(&side->awaited);
        if (!due || !asleep_at(sides[number], atomic_load(&side->event_address)) ||
            atomic_load(&side->sleeps) != sleeps)
            return false;
        pause_ms(2);
    }
    return true;
}

static void side_print(uint32_t number) {
    const struct side *side = &board->sides[number];
    print_error(
        "side %u: its word committed up to round %llu; waits for round %llu of the other's since index "
        "%llu, event word %llu when it began, call %llu of shelf_wait(), %s\n",
        number, (unsigned long long)side->committed, (unsigned long long)side->awaited,
        (unsigned long long)side->since, (unsigned long long)side->event,
        (unsigned long long)(side->sleeps + 1) / 2, side->sleeps % 2 ? "in it" : "not in it");
}

static uint64_t progress(void) {
    return board->sides[0].committed + board->sides[1].committed + board->sides[0].sleeps +
           board->sides[1].sleeps;
}

// Until both have ended; false: something has gone wrong, and was told.
static bool look_on(const pid_t sides[SIDES]) {
    uint64_t seen = UINT64_MAX, seen_ns = world_monotonic_ns();
    for (;;) {
        siginfo_t infos[SIDES] = {{0}};
        int ended = 0, over = 0;
        for (uint32_t i = 0; i < SIDES; i++) {
            assert_int_equal(waitid(P_PID, (id_t)sides[i], &infos[i], WEXITED | WNOHANG | WNOWAIT), 0);
            ended += infos[i].si_pid != 0;
            over += board->sides[i].switches > 0;
            if (infos[i].si_pid != 0 && (infos[i].si_code != CLD_EXITED || infos[i].si_status != 0)) {
                print_error("side %u has failed\n", i);
                return false;
            }
        }
        if (ended == SIDES || over == SIDES) // one may wait to be let go
            return true;
        pause_ms(LOOK_MS);
        uint64_t now_ns = world_monotonic_ns();
        if (progress() != seen) {
            seen = progress();
            seen_ns = now_ns;
            continue;
        }
        for (uint32_t i = 0; i < SIDES; i++) {
            if (forgotten(sides, i)) {
                print_error(
                    "a lost wake-up: side %u sleeps on, though side %u has the answer to its commit\n", i,
                    1 - i);
                side_print(0);
                side_print(1);
                return false;
            }
        }
        if (now_ns - seen_ns > (uint64_t)STALL_S * 1000000000) {
            print_error("nothing has moved for %d s\n", STALL_S);
            side_print(0);
            side_print(1);
            return false;
        }
    }
}

static void rounds_run(bool one_region, bool third_is_node) {
    pid_t sides[SIDES], node = 0;
    uint64_t begin_ns = world_monotonic_ns();
    if (third_is_node) {
        node = node_begin();
        while (!atomic_load(&board->served))
            pause_ms(1);
    }
    for (uint32_t i = 0; i < SIDES; i++) {
        sides[i] = side_begin(i, one_region, i == 0 && !third_is_node);
        while (i == 0 && !atomic_load(&board->served))
            pause_ms(1);
    }
    bool good = look_on(sides);
    atomic_store(&board->quit, 1);
    for (uint32_t i = SIDES; i-- > 0;) { // the node closes last
        if (!good)
            kill(sides[i], SIGKILL);
        good &= ended_well(sides[i]);
    }
    if (node > 0) {
        if (!good)
            kill(node, SIGKILL);
        good &= ended_well(node);
    }
    assert_true(good);
    double seconds = (double)(world_monotonic_ns() - begin_ns) / 1e9;
    for (uint32_t i = 0; i < SIDES; i++) {
        const struct side *side = &board->sides[i];
        assert_int_equal(side->committed, rounds);
        assert_int_equal(side->awaited, rounds);
        print_message("side %u: %llu waits, %llu times off its CPU\n", i,
                      (unsigned long long)side->sleeps / 2, (unsigned long long)side->switches);
    }
    // They did sleep. (One of them may find its answer there, each time it comes back from its commit.)
    assert_true(board->sides[0].switches + board->sides[1].switches > rounds / 50);
    print_message("%llu rounds in %.1f s\n", (unsigned long long)rounds, seconds);
}

static void test_two_guests_one_region(void **state) {
    (void)state;
    rounds_run(true, true);
}

static void test_two_guests_two_regions(void **state) {
    (void)state;
    rounds_run(false, true);
}

// The node's own program waits by another count than its guests.
static void test_node_and_guest(void **state) {
    (void)state;
    rounds_run(true, false);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, up, down)

int main(int argc, char **argv) {
    if (argc > 1)
        rounds = strtoull(argv[1], NULL, 10);
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : world_monotonic_ns();
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        TEST(test_two_guests_one_region),
        TEST(test_two_guests_two_regions),
        TEST(test_node_and_guest),
    };
    return cmocka_run_group_tests_name("wait-rounds", tests, NULL, NULL);
}
