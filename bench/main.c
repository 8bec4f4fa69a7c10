// SPDX-License-Identifier: Apache-2.0
// main.c: the benchmark program, started by `shelf bench`. Says what there is to measure, runs each benchmark in a process
// of its own (so that none inherits another's memory and threads) with a scratch directory of its own, prints results.
#include "bench.h"

#include <errno.h>
#include <fnmatch.h>
#include <ftw.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct settings settings = {.seconds = 8, .missed = (uint64_t)128 << 20};

#define COMMIT_PEERS(count, threads)                                                              \
    {"commit." #count ".lmdb",                                                                    \
     #count " commits outstanding: rate / LMDB's with " threads,                                  \
     bench_commit_peer,                                                                           \
     count,                                                                                       \
     &peer_lmdb,                                                                                  \
     JUDGE_RATIO,                                                                                 \
     AT_LEAST,                                                                                    \
     1,                                                                                           \
     HERE},                                                                                       \
        {"commit." #count ".rocksdb",                                                             \
         #count " commits outstanding: rate / RocksDB's with " threads,                           \
         bench_commit_peer,                                                                       \
         count,                                                                                   \
         &peer_rocksdb,                                                                           \
         JUDGE_RATIO,                                                                             \
         AT_LEAST,                                                                                \
         1,                                                                                       \
         HERE},                                                                                   \
    {                                                                                             \
        "commit." #count ".sqlite", #count " commits outstanding: rate / SQLite's with " threads, \
            bench_commit_peer, count, &peer_sqlite, JUDGE_RATIO, AT_LEAST, 1, HERE                \
    }

static const struct bench benches[] = {
    {"read.independent", "64 B validated reads at random lines of 1 GiB / plain loads",
     bench_read_independent, 1, NULL, JUDGE_RATIO, AT_MOST, 1.75, HERE},
    {"read.chase", "the same where each address depends on the last / plain loads", bench_read_chase, 1, NULL,
     JUDGE_RATIO, AT_MOST, 1.08, HERE},
    {"read.scale", "reads of two threads / of one", bench_read_scale, 2, NULL, JUDGE_RATIO, AT_LEAST, 1.9,
     HERE},
    {"read.processes", "reads of two processes that are attached to a node / of one", bench_read_processes, 2,
     NULL, JUDGE_RATIO, AT_LEAST, 1.9, ATTACHED},
    {"map.get.lmdb", "random gets in 1,000,000 records: rate / LMDB's", bench_map_get, 1, &peer_lmdb,
     JUDGE_RATIO, AT_LEAST, 6, HERE},
    {"map.get.rocksdb", "the same / RocksDB's", bench_map_get, 1, &peer_rocksdb, JUDGE_RATIO, AT_LEAST, 1,
     HERE},
    {"map.get.sqlite", "the same / SQLite's", bench_map_get, 1, &peer_sqlite, JUDGE_RATIO, AT_LEAST, 1, HERE},
    {"map.get.plain", "the same / an unsynchronised hash table's", bench_map_get, 1, &peer_plain, JUDGE_RATIO,
     AT_LEAST, 0.65, HERE},
    {"map.get.redis", "the same, attached to a node / Redis's GETs over a socket, 16 at a time",
     bench_map_get, 1, &peer_redis, JUDGE_RATIO, AT_LEAST, 10, ATTACHED},
    {"map.get_many.lmdb", "64 keys a call: rate / LMDB's (one by one)", bench_map_get_many, 64, &peer_lmdb,
     JUDGE_RATIO, AT_LEAST, 12, HERE},
    {"commit.1", "256 B commits, one at a time: latency / a bare durable overwrite", bench_commit_one, 1,
     NULL, JUDGE_RATIO, AT_MOST, 1.08, HERE},
    COMMIT_PEERS(1, "1 thread"),
    {"commit.1.shelfd", "as commit.1, through a node in another process", bench_commit_one, 1, NULL,
     JUDGE_RATIO, AT_MOST, 1.5, ATTACHED},
    {"commit.16", "16 threads: rate / a bare group-commit loop's", bench_commit_threads, 16, NULL,
     JUDGE_RATIO, AT_LEAST, 0.9, HERE},
    COMMIT_PEERS(16, "16 threads"),
    {"commit.64", "64 outstanding: rate / a bare loop of writes of 64 changes", bench_commit_outstanding, 64,
     NULL, JUDGE_RATIO, AT_LEAST, 0.5, HERE},
    COMMIT_PEERS(64, "64 threads"),
    {"commit.64.shelfd", "as commit.64, through a node in another process", bench_commit_outstanding, 64,
     NULL, JUDGE_RATIO, AT_LEAST, 0.4, ATTACHED},
    {"commit.64.redis", "the same / Redis's with 64 SETs under way, appendfsync always", bench_commit_peer,
     64, &peer_redis, JUDGE_RATIO, AT_LEAST, 2, ATTACHED},
    {"commit.512", "512 outstanding: rate / a bare loop of writes of 512 changes", bench_commit_outstanding,
     512, NULL, JUDGE_RATIO, AT_LEAST, 0.35, HERE},
    COMMIT_PEERS(512, "64 threads"),
    {"cluster.commit.1", "three nodes, a client of the primary: latency / the bare program's",
     bench_commit_one, 1, NULL, JUDGE_RATIO, AT_MOST, 1.4, CLUSTER},
    {"cluster.commit.64", "64 outstanding: rate / that of the bare program with writes of 64 changes",
     bench_commit_outstanding, 64, NULL, JUDGE_RATIO, AT_LEAST, 0.5, CLUSTER},
    {"cluster.commit.512", "512 outstanding: the same with writes of 512 changes", bench_commit_outstanding,
     512, NULL, JUDGE_RATIO, AT_LEAST, 0.35, CLUSTER},
    {"cluster.commit.64.etcd", "64 outstanding: rate / etcd's, three members, with 64 puts under way",
     bench_commit_peer, 64, &peer_etcd, JUDGE_RATIO, AT_LEAST, 10, CLUSTER},
    {"cluster.commit.64.redis", "the same / Redis's, two replicas, appendfsync always, WAIT 1",
     bench_commit_peer, 64, &peer_redis_replicas, JUDGE_RATIO, AT_LEAST, 3, CLUSTER},
    {"cluster.failover.kill",
     "from SIGKILL of the primary to the first commit that the next one acknowledges", bench_failover_kill, 1,
     NULL, JUDGE_VALUE, AT_MOST, 20, CLUSTER},
    {"cluster.failover.silent", "the same where the primary is stopped (SIGSTOP)", bench_failover_silent, 1,
     NULL, JUDGE_VALUE, AT_MOST, 400, CLUSTER},
    {"cluster.handover", "the primary is told to end (SIGTERM): longest time without an acknowledged commit",
     bench_handover, 1, NULL, JUDGE_VALUE, AT_MOST, 20, CLUSTER},
    {"cluster.read.backup", "reads of 64 B at random lines of 256 MiB on a backup: rate / on the primary",
     bench_read_backup, 1, NULL, JUDGE_RATIO, AT_LEAST, 0.95, CLUSTER},
    {"cluster.catchup", "a node returns that missed 128 MiB of changes: rate / slower of disk and loopback",
     bench_catchup, 1, NULL, JUDGE_RATIO, AT_LEAST, 0.7, CLUSTER},
    {"cluster.bare.1", "a bare program of three processes: latency / the disk alone", bench_commit_one, 1,
     NULL, JUDGE_NOTHING, AT_MOST, 0, BARE},
    {"cluster.bare.1.etcd", "its rate, one write at a time / that of etcd with three members",
     bench_commit_peer, 1, &peer_etcd, JUDGE_NOTHING, AT_LEAST, 0, BARE},
    {"cluster.bare.1.redis", "the same / Redis's with two replicas, appendfsync always, WAIT 1",
     bench_commit_peer, 1, &peer_redis_replicas, JUDGE_NOTHING, AT_LEAST, 0, BARE},
    {"cluster.bare.64", "its rate, writes of 64 changes / that of the disk alone", bench_commit_outstanding,
     64, NULL, JUDGE_NOTHING, AT_LEAST, 0, BARE},
    {"cluster.bare.64.etcd", "the same / etcd's with 64 puts under way", bench_commit_peer, 64, &peer_etcd,
     JUDGE_NOTHING, AT_LEAST, 0, BARE},
    {"cluster.bare.64.redis", "the same / Redis's with 64 SETs under way", bench_commit_peer, 64,
     &peer_redis_replicas, JUDGE_NOTHING, AT_LEAST, 0, BARE},
    {"wait.wake", "from a visible change until shelf_wait() returns elsewhere / a bare futex wake",
     bench_wait_wake, 1, NULL, JUDGE_RATIO, AT_MOST, 1.3, ATTACHED},
    {"recover.image", "open with an image of 1 GiB: rate / sequential O_DIRECT reads", bench_recover_image, 1,
     NULL, JUDGE_RATIO, AT_LEAST, 0.8, HERE},
    {"recover.log", "open with 256 MiB of log, 4 KiB changes / read, CRC, copy", bench_recover_log, 4096,
     NULL, JUDGE_RATIO, AT_LEAST, 0.8, HERE},
    {"recover.log.256", "open with 128 MiB of log, 256 B changes / read, CRC, copy", bench_recover_log, 256,
     NULL, JUDGE_NOTHING, AT_LEAST, 0, HERE},
    {"open.empty", "open of an existing empty shelf", bench_open_empty, 1, NULL, JUDGE_VALUE, AT_MOST, 20,
     HERE},
    {"open.create", "creation of an empty shelf", bench_open_create, 1, NULL, JUDGE_NOTHING, AT_MOST, 0,
     HERE},
    {"idle", "wake-ups a second of an open shelf that nobody uses", bench_idle, 1, NULL, JUDGE_VALUE, AT_MOST,
     1, HERE},
    {"idle.rss", "memory of an idle shelfd beside the image, also after ten clients", bench_idle_rss, 1, NULL,
     JUDGE_VALUE, AT_MOST, 20, ATTACHED},
};
enum { BENCH_COUNT = sizeof(benches) / sizeof(benches[0]) };

static const char help[] =
    "Usage: shelf bench [OPTION]... [NAME]...\n"
    "\n"
    "Measures Shelf beside the floors of this machine and other databases, in alternating rounds.\n"
    "NAME is a benchmark or a pattern (--list shows them); `all`, or no name, runs all of them (about 20 "
    "minutes).\n"
    "\n"
    "  --list         show the benchmarks and their targets\n"
    "  --json         one JSON object a line: name, value, unit, p50, p99, floor, ratio\n"
    "  --dir DIR      work in a new directory under DIR, which must be on the disk to be measured (default: "
    ".);\n"
    "                 up to 6 GiB, removed at the end\n"
    "  --seconds S    time for the rounds of a benchmark (default: 8; at least five rounds are run)\n"
    "  --kills N      failovers to measure, at least five (default: as many as the time allows)\n"
    "  --missed MIB   changes that the node of cluster.catchup has missed (default: 128)\n"
    "  --help         this text\n"
    "\n"
    "value is Shelf's, floor the other side's, both medians of the rounds; ratio = value / floor, the median "
    "of the\n"
    "rounds' ratios. p50 and p99 are percentiles of our operations: of commits in us (single commits, also "
    "where the\n"
    "value is a rate), of opens in ms, else of the rounds in the value's unit.\n"
    "\n"
    "Exit code: 0 all were measured (whether or not a target was met), 1 one failed, 2 wrong usage.\n"
    "\n"
    "Examples:\n"
    "  shelf bench read.chase\n"
    "  shelf bench --json 'commit.16*' --dir /var/tmp\n";

// ---- Output -------------------------------------------------------------------------------------------------------

static const char *current_name; // of the benchmark that this process runs; NULL in the parent

static void progress_clear(void) {
    if (isatty(STDERR_FILENO))
        (void)fputs("\r\033[K", stderr);
}

void progress(const char *format, ...) {
    if (!isatty(STDERR_FILENO))
        return;
    va_list arguments;
    (void)fprintf(stderr, "\r\033[K%s: ", current_name);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fflush(stderr);
}

void fail(const char *format, ...) {
    va_list arguments;
    progress_clear();
    (void)fprintf(stderr, "shelf bench: %s: ", current_name ? current_name : "error");
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    (void)fflush(stdout);
    _exit(1);
}

void must(shelf_result result, const char *what) {
    if (__builtin_expect(result != SHELF_OK, 0))
        fail("%s: %s: %s %s", what, shelf_result_name(result), shelf_result_text(result), shelf_detail());
}

static void json_number(const char *name, double number) {
    if (isfinite(number))
        (void)printf(", \"%s\": %.6g", name, number);
    else
        (void)printf(", \"%s\": null", name);
}

struct cell {
    char text[24];
};

static struct cell cell_number(double number) {
    struct cell c;
    if (!isfinite(number))
        (void)snprintf(c.text, sizeof(c.text), "-");
    else if (fabs(number) >= 1e6)
        (void)snprintf(c.text, sizeof(c.text), "%.3g M", number / 1e6);
    else if (fabs(number) >= 1e4)
        (void)snprintf(c.text, sizeof(c.text), "%.3g k", number / 1e3);
    else if (fabs(number) >= 1e3)
        (void)snprintf(c.text, sizeof(c.text), "%.0f", number);
    else
        (void)snprintf(c.text, sizeof(c.text), "%.3g", number);
    return c;
}

static const char table_format[] = "%-24s %9s %9s  %-10s %9s %9s  %7s %8s  %s\n";

static void outcome_line(const struct bench *b, const struct outcome *o, enum judged judged, enum sense sense,
                         double target) {
    char name[64];
    (void)snprintf(name, sizeof(name), "%s%s", b->name, o->suffix ? o->suffix : "");
    progress_clear();
    if (settings.json) {
        (void)printf("{\"name\": \"%s\"", name);
        json_number("value", o->value);
        (void)printf(", \"unit\": \"%s\"", o->unit);
        json_number("p50", o->p50);
        json_number("p99", o->p99);
        json_number("floor", o->floor);
        json_number("ratio", o->ratio);
        (void)printf("}\n");
    } else {
        double number = judged == JUDGE_VALUE ? o->value : o->ratio;
        bool met = sense == AT_MOST ? number <= target : number >= target;
        char wanted[32] = "";
        if (judged != JUDGE_NOTHING)
            (void)snprintf(wanted, sizeof(wanted), "%s %g", sense == AT_MOST ? "<=" : ">=", target);
        (void)printf(table_format, name, cell_number(o->value).text, cell_number(o->floor).text, o->unit,
                     cell_number(o->p50).text, cell_number(o->p99).text, cell_number(o->ratio).text, wanted,
                     judged == JUDGE_NOTHING ? ""
                     : met                   ? "yes"
                                             : "NO");
    }
    (void)fflush(stdout);
}

void outcome_print(const struct bench *b, const struct outcome *o) {
    outcome_line(b, o, b->judged, b->sense, b->target);
}

void outcome_print_judged(const struct bench *b, const struct outcome *o, enum judged judged,
                          enum sense sense, double target) {
    outcome_line(b, o, judged, sense, target);
}

static void list_print(void) {
    for (size_t i = 0; i < BENCH_COUNT; i++) {
        const struct bench *b = &benches[i];
        char wanted[32] = "";
        if (b->judged != JUDGE_NOTHING)
            (void)snprintf(wanted, sizeof(wanted), "%s %g", b->sense == AT_MOST ? "<=" : ">=", b->target);
        (void)printf("%-24s %-9s %s\n", b->name, wanted, b->what);
    }
}

// ---- Scratch ------------------------------------------------------------------------------------------------------

const char *scratch_path(const char *name) {
    static _Thread_local char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/%s", settings.dir, name) >= (int)sizeof(path))
        fail("the path of the scratch directory is too long");
    return path;
}

static int entry_remove(const char *path, const struct stat *status, int type, struct FTW *walk) {
    (void)status;
    (void)type;
    (void)walk;
    return remove(path);
}

static void tree_remove(const char *path) {
    if (nftw(path, entry_remove, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        (void)fprintf(stderr, "shelf bench: cannot remove %s: %s\n", path, strerror(errno));
}

void scratch_remove(const char *name) {
    tree_remove(scratch_path(name));
}

// ---- Running ------------------------------------------------------------------------------------------------------

static volatile sig_atomic_t interrupted; // the signal that ended the run, or 0
static volatile sig_atomic_t child;       // process that runs a benchmark, or 0

static void on_signal(int number) {
    interrupted = number;
    if (child > 0)
        (void)kill((pid_t)child, SIGKILL);
}

_Noreturn static void bench_process(const struct bench *b, pid_t parent) {
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    current_name = b->name;
    b->run(b);
    (void)fflush(stdout);
    _exit(0);
}

// Runs one benchmark in a child with a fresh scratch directory; true if it went well.
static bool bench_run(const struct bench *b, const char *where) {
    char dir[PATH_MAX];
    if (snprintf(dir, sizeof(dir), "%s/.shelf-bench-XXXXXX", where) >= (int)sizeof(dir) || !mkdtemp(dir))
        fail("cannot make a scratch directory in %s: %s", where, strerror(errno));
    settings.dir = dir;

    (void)fflush(stdout); // or the child would print it again
    int status = 1;
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        bench_process(b, parent);
    child = pid;
    if (pid > 0 && interrupted)
        (void)kill(pid, SIGKILL);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    child = 0;
    progress_clear();
    tree_remove(dir);
    settings.dir = NULL;
    if (pid < 0)
        fail("cannot start a process: %s", strerror(errno));
    if (!interrupted && WIFSIGNALED(status))
        (void)fprintf(stderr, "shelf bench: %s: ended by signal %d\n", b->name, WTERMSIG(status));
    return status == 0;
}

static bool bench_selected(const struct bench *b, char *const *patterns, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(patterns[i], "all") == 0 || fnmatch(patterns[i], b->name, 0) == 0)
            return true;
    return count == 0;
}

static void patterns_check(char *const *patterns, size_t count) {
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        for (size_t n = 0; n < BENCH_COUNT; n++)
            found = found || bench_selected(&benches[n], &patterns[i], 1);
        if (found)
            continue;
        (void)fprintf(stderr, "shelf bench: no benchmark is called %s; see `shelf bench --list`\n",
                      patterns[i]);
        exit(2);
    }
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"list", no_argument, NULL, 'l'},        {"json", no_argument, NULL, 'j'},
        {"dir", required_argument, NULL, 'd'},   {"seconds", required_argument, NULL, 's'},
        {"kills", required_argument, NULL, 'k'}, {"missed", required_argument, NULL, 'm'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0}};
    const char *where = ".";
    char *end;
    for (int option; (option = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (option) {
        case 'l':
            list_print();
            return 0;
        case 'j':
            settings.json = true;
            break;
        case 'd':
            where = optarg;
            break;
        case 's':
            settings.seconds = strtod(optarg, &end);
            if (*end || end == optarg || !(settings.seconds > 0 && settings.seconds <= 30)) {
                (void)fputs("shelf bench: --seconds takes a number above 0, up to 30\n", stderr);
                return 2;
            }
            break;
        case 'k':
            settings.kills = strtoul(optarg, &end, 10);
            if (*end || end == optarg || settings.kills == 0 || settings.kills > 1000) {
                (void)fputs("shelf bench: --kills takes a number from 1 to 1000\n", stderr);
                return 2;
            }
            break;
        case 'm':
            settings.missed = strtoull(optarg, &end, 10);
            if (*end || end == optarg || settings.missed == 0 || settings.missed > 4096) {
                (void)fputs("shelf bench: --missed takes a number of MiB from 1 to 4096\n", stderr);
                return 2;
            }
            settings.missed <<= 20;
            break;
        case 'h':
            (void)fputs(help, stdout);
            return 0;
        default:
            (void)fputs("shelf bench: see `shelf bench --help`\n", stderr);
            return 2;
        }
    }
    char *const *patterns = argv + optind;
    size_t pattern_count = (size_t)(argc - optind);
    patterns_check(patterns, pattern_count);

    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    if (!settings.json)
        (void)printf(table_format, "name", "Shelf", "floor", "unit", "p50", "p99", "ratio", "target", "met");
    bool well = true;
    for (size_t i = 0; i < BENCH_COUNT && !interrupted; i++)
        if (bench_selected(&benches[i], patterns, pattern_count))
            well = bench_run(&benches[i], where) && well;
    if (interrupted)
        return 128 + interrupted;
    return well ? 0 : 1;
}
