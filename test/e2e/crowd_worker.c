// SPDX-License-Identifier: Apache-2.0
//
// Programs that use a shelf, as crowd.py and soak.py need them: each role is a command line. What came out is the last line, JSON.
//
//     opens WHERE COUNT [WARM]       opens, commits and closes, again and again; what is left behind in this process
//     kills WHERE COUNT [WARM]       ... in children that are killed instead of closing
//     limit WHERE                    opens with too few descriptors for it, with one more each time
//     hold WHERE                     attached: for each line of its input commits, and says how that went
//     crowd WHERE MODEST GREEDY MS   so many commit one after the other, so many others at once as much as they can, in some way
//     live WHERE C R W               C commit, R read, W wait, until its input ends; every promise is checked meanwhile

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "shelf.h"

enum { LINE = 64, CROWD_MAX = 256, PASSERS_BY = 99, MIB = 1 << 20 };

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "%s:%d: %s; %s\n", __FILE__, __LINE__, #condition, shelf_detail()); \
            _exit(1);                                                                           \
        }                                                                                       \
    } while (0)

static const char *where;

static uint64_t now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void pause_ms(long time_ms) {
    (void)nanosleep(&(struct timespec){.tv_sec = time_ms / 1000, .tv_nsec = time_ms % 1000 * 1000000}, NULL);
}

static void *shared_make(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    return memory;
}

static pid_t child_begin(void) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    return child;
}

static bool ended_well(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static shelf *handle_open(void) {
    shelf *s = NULL;
    CHECK(shelf_open(where, NULL, &s) == SHELF_OK);
    return s;
}

static shelf_region region_open(shelf *s) {
    shelf_region region = 0;
    shelf_result result = shelf_region_open(s, "crowd", &region);
    if (result == SHELF_NOT_FOUND) {
        result = shelf_region_create(s, "crowd", 64 * MIB, 0, &region);
        if (result == SHELF_EXISTS)
            result = shelf_region_open(s, "crowd", &region);
    }
    CHECK(result == SHELF_OK);
    return region;
}

static shelf_result word_add(shelf *s, shelf_region region, uint64_t line) {
    shelf_tx *tx;
    shelf_result result = shelf_begin(s, SHELF_READ_WRITE, &tx);
    if (result != SHELF_OK)
        return result;
    CHECK(shelf_add(tx, shelf_addr_make(region, line * LINE), 1) == SHELF_OK);
    return shelf_commit(tx, NULL);
}

static uint64_t word_get(shelf *s, shelf_region region, uint64_t line) {
    shelf_tx *tx;
    uint64_t word;
    CHECK(shelf_begin(s, SHELF_READ_ONLY, &tx) == SHELF_OK);
    CHECK(shelf_read(tx, shelf_addr_make(region, line * LINE), &word, sizeof(word)) == SHELF_OK);
    CHECK(shelf_commit(tx, NULL) == SHELF_OK);
    return word;
}

// ---- What a process has -------------------------------------------------------------------------------------------

static unsigned long entries_count(const char *path) {
    unsigned long count = 0;
    DIR *directory = opendir(path);
    CHECK(directory);
    while (readdir(directory))
        count++;
    (void)closedir(directory);
    return count;
}

static unsigned long lines_count(const char *path) {
    unsigned long count = 0;
    int c;
    FILE *file = fopen(path, "re");
    CHECK(file);
    while ((c = fgetc(file)) != EOF)
        count += c == '\n';
    (void)fclose(file);
    return count;
}

static unsigned long anonymous_kib(void) {
    unsigned long kib = 0;
    char line[256];
    FILE *file = fopen("/proc/self/status", "re");
    CHECK(file);
    while (fgets(line, sizeof(line), file))
        (void)sscanf(line, "RssAnon: %lu", &kib);
    (void)fclose(file);
    return kib;
}

static void belongings_print(const char *name) {
    printf("\"%s\":{\"fds\":%lu,\"mappings\":%lu,\"threads\":%lu,\"kib\":%lu}", name,
           entries_count("/proc/self/fd"), lines_count("/proc/self/maps"), entries_count("/proc/self/task"),
           anonymous_kib());
}

// ---- Coming and going ---------------------------------------------------------------------------------------------

static void open_once(void) {
    shelf *s = handle_open();
    CHECK(word_add(s, region_open(s), PASSERS_BY) == SHELF_OK);
    CHECK(shelf_close(s) == SHELF_OK);
}

static void kill_once(void) {
    int ready[2];
    char byte;
    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    pid_t child = child_begin();
    if (child == 0) {
        shelf *s = handle_open();
        CHECK(word_add(s, region_open(s), PASSERS_BY) == SHELF_OK);
        CHECK(write(ready[1], "r", 1) == 1);
        for (;;)
            (void)word_add(s, region_open(s), PASSERS_BY); // in the middle of something
    }
    (void)close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    (void)close(ready[0]);
    int status;
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status));
}

static void repeat(void (*once)(void), unsigned long count, unsigned long warm) {
    for (unsigned long i = 0; i < warm; i++)
        once();
    printf("{");
    belongings_print("before");
    for (unsigned long i = 0; i < count; i++)
        once();
    printf(",");
    belongings_print("after");
    printf("}\n");
}

// ---- Too few descriptors ------------------------------------------------------------------------------------------

// From none to enough. Whatever is missing, the result says so, and nothing stays behind; in the end it works.
static void limit(void) {
    struct rlimit whole;
    unsigned long refused = 0, refused_regions = 0;
    bool done = false;
    open_once(); // (the library's own, once a process)
    CHECK(getrlimit(RLIMIT_NOFILE, &whole) == 0);
    unsigned long fds = entries_count("/proc/self/fd"), mappings = lines_count("/proc/self/maps"),
                  threads = entries_count("/proc/self/task");
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)close(next);
    for (rlim_t extra = 0; !done && extra < 64; extra++) {
        struct rlimit little = {.rlim_cur = (rlim_t)next + extra, .rlim_max = whole.rlim_max};
        shelf *s = NULL;
        shelf_region region;
        CHECK(setrlimit(RLIMIT_NOFILE, &little) == 0);
        shelf_result result = shelf_open(where, NULL, &s);
        char text[256];
        (void)snprintf(text, sizeof(text), "%s", shelf_detail());
        if (result != SHELF_OK) {
            CHECK(setrlimit(RLIMIT_NOFILE, &whole) == 0);
            if (result != SHELF_NO_MEMORY || (!strstr(text, "descriptor") && !strstr(text, "open files"))) {
                fprintf(stderr, "with %lu descriptors: %s %s\n", (unsigned long)extra,
                        shelf_result_name(result), text);
                _exit(1);
            }
            refused++;
        } else {
            result = shelf_region_open(s, "crowd", &region);
            (void)snprintf(text, sizeof(text), "%s", shelf_detail());
            CHECK(result == SHELF_OK || (result == SHELF_NO_MEMORY && strstr(text, "descriptor")));
            refused_regions += result != SHELF_OK;
            done = result == SHELF_OK;
            CHECK(setrlimit(RLIMIT_NOFILE, &whole) == 0);
            CHECK(word_add(s, region_open(s), 0) == SHELF_OK); // as soon as there are some
            struct shelf_stats stats;
            CHECK(shelf_stats_get(s, &stats) == SHELF_OK && stats.reconnects == 0);
            CHECK(shelf_close(s) == SHELF_OK);
        }
        CHECK(entries_count("/proc/self/fd") == fds);
        CHECK(entries_count("/proc/self/task") == threads);
    }
    CHECK(done);
    open_once();
    CHECK(entries_count("/proc/self/fd") == fds);
    printf("{\"refused\":%lu,\"refused_regions\":%lu,\"mappings\":%ld}\n", refused, refused_regions,
           (long)lines_count("/proc/self/maps") - (long)mappings);
}

// ---- One that stays -----------------------------------------------------------------------------------------------

static void say(shelf_result result) {
    printf("%s %s\n", shelf_result_name(result), result == SHELF_OK ? "" : shelf_detail());
    (void)fflush(stdout);
}

static void hold(void) {
    shelf *s = NULL;
    shelf_region region = 0;
    char line[64];
    shelf_result result = shelf_open(where, &(struct shelf_options){.commit_deadline_ms = 2000}, &s);
    say(result);
    if (result != SHELF_OK)
        return;
    while (fgets(line, sizeof(line), stdin)) {
        if (line[0] == 'r') { // reads only, of what it has mapped
            say(word_get(s, region, 0) > 0 ? SHELF_OK : SHELF_CORRUPT);
        } else if (line[0] == 'n') { // a region of its own
            char name[32];
            shelf_region other;
            (void)snprintf(name, sizeof(name), "own-%d-%.8s", (int)getpid(), line + 2);
            name[strcspn(name, "\n")] = 0;
            say(shelf_region_create(s, name, MIB, 0, &other));
        } else if (line[0] == 'k') {
            say(shelf_checkpoint(s, NULL));
        } else {
            if (region == 0)
                region = region_open(s);
            result = word_add(s, region, 0);
            say(result);
            (void)word_get(s, region, 0);
        }
    }
    (void)shelf_close(s);
}

// ---- A crowd ------------------------------------------------------------------------------------------------------

struct member {
    _Alignas(128) _Atomic uint64_t commits; // that were answered with OK while the clock ran
    _Atomic uint64_t longest_ns;
    _Atomic uint64_t total_ns;
};
struct stadium {
    _Atomic uint32_t ready, begun, over;
    struct member members[CROWD_MAX];
};
static struct stadium *stadium;

static void kick_off(void) {
    atomic_fetch_add(&stadium->ready, 1);
    while (!atomic_load(&stadium->begun))
        pause_ms(1);
}

static void modest(unsigned number) {
    struct member *member = &stadium->members[number];
    shelf *s = handle_open();
    shelf_region region = region_open(s);
    CHECK(word_add(s, region, 1 + number) == SHELF_OK);
    kick_off();
    uint64_t commits = 1;
    while (!atomic_load(&stadium->over)) {
        uint64_t begin_ns = now_ns();
        CHECK(word_add(s, region, 1 + number) == SHELF_OK);
        uint64_t took_ns = now_ns() - begin_ns;
        commits++;
        member->longest_ns = took_ns > member->longest_ns ? took_ns : member->longest_ns;
        member->total_ns += took_ns;
        atomic_fetch_add(&member->commits, 1);
    }
    CHECK(word_get(s, region, 1 + number) >= commits);
    CHECK(shelf_close(s) == SHELF_OK);
}

enum greed { GREED_MANY, GREED_LINES, GREED_OPERATIONS, GREED_BYTES };
static enum greed greed;

// A transaction that costs the node much.
static void greedy_fill(shelf_tx *tx, shelf_region region, unsigned number) {
    static unsigned char bytes[4 * MIB];
    uint64_t base = (uint64_t)(1 + number) * LINE, far = 16 * MIB;
    switch (greed) {
    case GREED_MANY:
        CHECK(shelf_add(tx, shelf_addr_make(region, base), 1) == SHELF_OK);
        break;
    case GREED_LINES: // a large read set
        CHECK(shelf_read(tx, shelf_addr_make(region, far), bytes, sizeof(bytes)) == SHELF_OK);
        CHECK(shelf_add(tx, shelf_addr_make(region, base), 1) == SHELF_OK);
        break;
    case GREED_OPERATIONS:
        for (unsigned i = 0; i < SHELF_TX_OPERATIONS_MAX; i++)
            CHECK(shelf_add(tx, shelf_addr_make(region, far + (uint64_t)i * LINE), 1) == SHELF_OK);
        break;
    case GREED_BYTES:
        CHECK(shelf_write(tx, shelf_addr_make(region, far), bytes, sizeof(bytes)) == SHELF_OK);
        break;
    }
}

static void greedy(unsigned number) {
    struct member *member = &stadium->members[number];
    shelf *s = handle_open();
    shelf_region region = region_open(s);
    unsigned outstanding = 0, outstanding_max = greed == GREED_MANY ? 512 : 32;
    CHECK(word_add(s, region, 1 + number) == SHELF_OK);
    kick_off();
    while (!atomic_load(&stadium->over) || outstanding > 0) {
        struct shelf_completion completions[64];
        if (!atomic_load(&stadium->over) && outstanding < outstanding_max) {
            shelf_tx *tx;
            CHECK(shelf_begin(s, SHELF_READ_WRITE, &tx) == SHELF_OK);
            greedy_fill(tx, region, number);
            CHECK(shelf_commit_async(tx, 0) == SHELF_OK);
            outstanding++;
        }
        bool full = outstanding == outstanding_max || atomic_load(&stadium->over);
        struct pollfd ready = {.fd = shelf_completion_fd(s), .events = POLLIN};
        if (full)
            (void)poll(&ready, 1, 1000);
        size_t count = shelf_completions(s, completions, 64);
        for (size_t i = 0; i < count; i++) {
            CHECK(completions[i].result == SHELF_OK || completions[i].result == SHELF_CONFLICT);
            atomic_fetch_add(&member->commits, 1);
            outstanding--;
        }
    }
    CHECK(shelf_close(s) == SHELF_OK);
}

static int number_compare(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

// The region is there, and all of it that anybody reads.
static void region_prepare(void) {
    shelf *s = handle_open();
    (void)region_open(s);
    CHECK(shelf_close(s) == SHELF_OK);
}

static void crowd(unsigned modest_count, unsigned greedy_count, long time_ms) {
    pid_t children[CROWD_MAX] = {0};
    unsigned count = modest_count + greedy_count;
    CHECK(count <= CROWD_MAX);
    stadium = shared_make(sizeof(*stadium));
    region_prepare();
    for (unsigned i = 0; i < count; i++) {
        children[i] = child_begin();
        if (children[i] == 0) {
            if (i < modest_count)
                modest(i);
            else
                greedy(i);
            _exit(0);
        }
    }
    while (atomic_load(&stadium->ready) < count) {
        int status;
        CHECK(waitpid(-1, &status, WNOHANG) == 0);
        pause_ms(1);
    }
    atomic_store(&stadium->begun, 1);
    pause_ms(time_ms);
    atomic_store(&stadium->over, 1);
    for (unsigned i = 0; i < count; i++)
        CHECK(ended_well(children[i]));
    uint64_t commits[CROWD_MAX] = {0}, longest_ns = 0, all = 0, taken = 0;
    for (unsigned i = 0; i < modest_count; i++) {
        const struct member *member = &stadium->members[i];
        commits[i] = member->commits;
        all += member->commits;
        longest_ns = member->longest_ns > longest_ns ? member->longest_ns : longest_ns;
    }
    for (unsigned i = modest_count; i < count; i++)
        taken += stadium->members[i].commits;
    qsort(commits, modest_count, sizeof(commits[0]), number_compare);
    printf(
        "{\"least\":%llu,\"median\":%llu,\"most\":%llu,\"all\":%llu,\"greedy\":%llu,\"longest_ms\":%llu}\n",
        (unsigned long long)commits[0], (unsigned long long)commits[modest_count / 2],
        (unsigned long long)commits[modest_count > 0 ? modest_count - 1 : 0], (unsigned long long)all,
        (unsigned long long)taken, (unsigned long long)(longest_ns / 1000000));
}

// ---- Living on while nodes come and go ----------------------------------------------------------------------------

// Line 0 counts what the committers' own lines count together, by the same transactions.
struct life {
    _Atomic uint32_t ready, over;
    _Atomic uint64_t commits, reads, wakes, again, reconnects;
};
static struct life *life;
enum { OWN = 100 };

static void stats_note(shelf *s) {
    struct shelf_stats stats;
    CHECK(shelf_stats_get(s, &stats) == SHELF_OK);
    atomic_fetch_add(&life->reconnects, stats.reconnects);
}

static void live_commit(unsigned number) {
    shelf *s = handle_open();
    shelf_region region = region_open(s);
    uint64_t mine = word_get(s, region, OWN + number), before = 0;
    atomic_fetch_add(&life->ready, 1);
    while (!atomic_load(&life->over)) {
        shelf_tx *tx;
        struct shelf_receipt receipt;
        CHECK(shelf_begin(s, SHELF_READ_WRITE, &tx) == SHELF_OK);
        CHECK(shelf_add(tx, shelf_addr_make(region, 0), 1) == SHELF_OK);
        CHECK(shelf_add(tx, shelf_addr_make(region, (uint64_t)(OWN + number) * LINE), 1) == SHELF_OK);
        CHECK(shelf_commit(tx, &receipt) == SHELF_OK); // once: nobody else adds to the second one
        CHECK(receipt.result_count == 2 && receipt.results[1] == ++mine && receipt.index > before);
        before = receipt.index;
        CHECK(word_get(s, region, OWN + number) == mine); // it sees its own
        atomic_fetch_add(&life->commits, 1);
    }
    stats_note(s);
    CHECK(shelf_close(s) == SHELF_OK);
}

// The sum, and the parts of it, at one moment. False: the transaction is to be begun again.
static bool live_look(shelf *s, shelf_region region, unsigned committers, uint64_t words[CROWD_MAX],
                      uint64_t *ret_index) {
    shelf_tx *tx;
    shelf_result result;
    CHECK(shelf_begin(s, SHELF_READ_ONLY, &tx) == SHELF_OK);
    result = shelf_read(tx, shelf_addr_make(region, 0), &words[0], sizeof(words[0]));
    for (unsigned i = 0; i < committers && result == SHELF_OK; i++)
        result = shelf_read(tx, shelf_addr_make(region, (uint64_t)(OWN + i) * LINE), &words[1 + i],
                            sizeof(words[0]));
    *ret_index = shelf_tx_index(tx);
    if (result == SHELF_OK)
        result = shelf_commit(tx, NULL);
    else
        shelf_abort(tx);
    CHECK(result == SHELF_OK || result == SHELF_CONFLICT);
    return result == SHELF_OK;
}

static void live_read(unsigned committers) {
    shelf *s = handle_open();
    shelf_region region = region_open(s);
    uint64_t seen[CROWD_MAX] = {0}, words[CROWD_MAX], index, index_seen = 0;
    atomic_fetch_add(&life->ready, 1);
    while (!atomic_load(&life->over)) {
        if (!live_look(s, region, committers, words, &index)) {
            atomic_fetch_add(&life->again, 1);
            continue;
        }
        uint64_t sum = 0;
        for (unsigned i = 0; i <= committers; i++) {
            CHECK(words[i] >= seen[i]);
            seen[i] = words[i];
            sum += i > 0 ? words[i] : 0;
        }
        CHECK(sum == words[0] && index >= index_seen);
        index_seen = index;
        atomic_fetch_add(&life->reads, 1);
    }
    stats_note(s);
    CHECK(shelf_close(s) == SHELF_OK);
}

static void live_wait(void) {
    shelf *s = handle_open();
    shelf_region region = region_open(s);
    uint64_t seen = 0;
    atomic_fetch_add(&life->ready, 1);
    while (!atomic_load(&life->over)) {
        uint64_t since = shelf_applied(s), word = word_get(s, region, 0);
        CHECK(word >= seen);
        seen = word;
        shelf_result result = shelf_wait(s, shelf_addr_make(region, 0), 8, since, 60000);
        CHECK(result == SHELF_OK || atomic_load(&life->over));
        atomic_fetch_add(&life->wakes, 1);
    }
    stats_note(s);
    CHECK(shelf_close(s) == SHELF_OK);
}

static void live(unsigned committers, unsigned readers, unsigned waiters) {
    pid_t children[CROWD_MAX] = {0};
    unsigned count = committers + readers + waiters;
    char line[64];
    CHECK(count < CROWD_MAX && committers > 0);
    life = shared_make(sizeof(*life));
    region_prepare();
    for (unsigned i = 0; i < count; i++) {
        children[i] = child_begin();
        if (children[i] == 0) {
            if (i < waiters)
                live_wait();
            else if (i < waiters + readers)
                live_read(committers);
            else
                live_commit(i - waiters - readers);
            _exit(0);
        }
    }
    while (atomic_load(&life->ready) < count)
        pause_ms(1);
    printf("ready\n");
    (void)fflush(stdout);
    while (fgets(line, sizeof(line), stdin)) { // how far it is
        printf("%llu %llu %llu\n", (unsigned long long)life->commits, (unsigned long long)life->reads,
               (unsigned long long)life->wakes);
        (void)fflush(stdout);
    }
    atomic_store(&life->over, 1);
    {
        shelf *s = handle_open();
        CHECK(word_add(s, region_open(s), CROWD_MAX + OWN) == SHELF_OK);
        for (unsigned i = count; i-- > waiters;)
            CHECK(ended_well(children[i]));
        shelf_tx *tx; // the waiters wake
        shelf_region region = region_open(s);
        uint64_t zero = 0;
        CHECK(shelf_begin(s, SHELF_READ_WRITE, &tx) == SHELF_OK);
        CHECK(shelf_add(tx, shelf_addr_make(region, 0), zero) == SHELF_OK);
        CHECK(shelf_commit(tx, NULL) == SHELF_OK);
        for (unsigned i = 0; i < waiters; i++)
            CHECK(ended_well(children[i]));
        CHECK(shelf_close(s) == SHELF_OK);
    }
    printf("{\"commits\":%llu,\"reads\":%llu,\"wakes\":%llu,\"again\":%llu,\"reconnects\":%llu}\n",
           (unsigned long long)life->commits, (unsigned long long)life->reads,
           (unsigned long long)life->wakes, (unsigned long long)life->again,
           (unsigned long long)life->reconnects);
}

// ---- Main ---------------------------------------------------------------------------------------------------------

static unsigned long number_of(int argc, char **argv, int place, unsigned long otherwise) {
    return place < argc ? strtoul(argv[place], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    static const char *const greeds[] = {"many", "lines", "operations", "bytes"};
    const char *role = argc > 2 ? argv[1] : "";
    where = argc > 2 ? argv[2] : "";
    if (strcmp(role, "opens") == 0) {
        repeat(open_once, number_of(argc, argv, 3, 1), number_of(argc, argv, 4, 100));
    } else if (strcmp(role, "kills") == 0) {
        repeat(kill_once, number_of(argc, argv, 3, 1), number_of(argc, argv, 4, 100));
    } else if (strcmp(role, "limit") == 0) {
        limit();
    } else if (strcmp(role, "hold") == 0) {
        hold();
    } else if (strcmp(role, "crowd") == 0) {
        for (unsigned i = 0; argc > 6 && i < 4; i++)
            greed = strcmp(argv[6], greeds[i]) == 0 ? (enum greed)i : greed;
        crowd((unsigned)number_of(argc, argv, 3, 1), (unsigned)number_of(argc, argv, 4, 0),
              (long)number_of(argc, argv, 5, 1000));
    } else if (strcmp(role, "live") == 0) {
        live((unsigned)number_of(argc, argv, 3, 1), (unsigned)number_of(argc, argv, 4, 1),
             (unsigned)number_of(argc, argv, 5, 1));
    } else {
        fprintf(stderr, "usage: crowd-worker ROLE WHERE ...\n");
        return 2;
    }
    return 0;
}
