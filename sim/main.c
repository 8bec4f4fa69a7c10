// SPDX-License-Identifier: Apache-2.0
//
// sim: runs seeds, crash sweeps and planted bugs; see usage().

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/mutant.h"
#include "base/sometimes.h"
#include "cluster.h"
#include "group_world.h"
#include "jobs.h"
#include "report.h"
#include "script.h"
#include "sweep.h"
#include "world.h"

#define SOMETIMES_SEEDS 1000u // from so many on, every "sometimes" must have happened
#define MUTANT_SEEDS    1500u // within which each planted bug must be caught

struct options {
    uint64_t first, seeds;
    bool one;
    bool trace, json, sweep, mutants, schedules, group, cluster;
    const char *script;
    bool accept, events;
    uint32_t jobs;
    enum mutant mutant;
};

static void usage(FILE *file) {
    fprintf(
        file,
        "sim: the core of Shelf under a simulated disk, clock, and clients\n"
        "\n"
        "  sim --seeds 1000 --jobs 2   runs seeds 1 to 1000, two at a time; every \"sometimes\" event must "
        "happen\n"
        "  sim --seed 7 --trace        runs seed 7 twice, shows what happens, checks that both runs are the "
        "same\n"
        "  sim --first 500 --seeds 10  runs seeds 500 to 509\n"
        "  sim --cluster ...           the same for several whole nodes that replicate\n"
        "  sim --group ...             ... and for the part of them that agrees, with logs that are models\n"
        "  sim --schedules             known failures of other implementations, step by step\n"
        "  sim --sweep                 a crash at every io of three workloads, and again during recovery\n"
        "  sim --script FILE           compares a golden transcript (sim/script.h); --accept rewrites it\n"
        "  sim --mutants               runs every planted bug until it is caught\n"
        "  sim --mutant NAME ...       the same runs with one planted bug; --list-mutants shows their names\n"
        "  sim ... --events            also how often each \"sometimes\" event happened\n"
        "  sim ... --json              the result as one JSON object\n"
        "\n"
        "Ends with \"N passed, N failed\" and exit code 0 if nothing failed, 1 if something did, 2 for wrong "
        "options.\n");
}

static const char *const mutant_names[] = {"NONE",
#define X(name, text) #name,
                                           MUTANT_LIST(X) MUTANT_GROUP_LIST(X) MUTANT_CLUSTER_LIST(X)
#undef X
};
static const char *const mutant_texts[] = {"",
#define X(name, text) text,
                                           MUTANT_LIST(X) MUTANT_GROUP_LIST(X) MUTANT_CLUSTER_LIST(X)
#undef X
};
static const char *const sometimes_names[] = {
#define X(name) #name,
    SOMETIMES_LIST(X) SOMETIMES_GROUP_LIST(X) SOMETIMES_CLUSTER_LIST(X)
#undef X
};

// What all jobs count together.
struct shared {
    uint64_t sometimes[SOMETIMES_COUNT];
    uint64_t commits, records, crashes;
    uint64_t mutant_seed[MUTANT_COUNT];
    char mutant_failure[MUTANT_COUNT][FAILURE_TEXT_MAX];
};
static struct shared *shared;
static enum { RUNS_NODE, RUNS_GROUP, RUNS_CLUSTER } runs; // what a seed is

static void replay_text(char *text, size_t size, uint64_t seed) {
    snprintf(text, size, "sim %s--seed %llu%s%s --trace",
             runs == RUNS_GROUP     ? "--group "
             : runs == RUNS_CLUSTER ? "--cluster "
                                    : "",
             (unsigned long long)seed, mutant_active ? " --mutant " : "",
             mutant_active ? mutant_names[mutant_active] : "");
}

// Runs one seed. The hash of its trace comes back, too.
static bool seed_run(uint64_t seed, bool trace, uint64_t *ret_hash) {
    report_begin(seed, trace ? stdout : NULL);
    if (setjmp(report.escape) != 0) {
        return false;
    }
    if (runs == RUNS_CLUSTER) {
        struct cluster_plan cluster_plan = cluster_plan_of_seed(seed);
        struct cluster_result cluster_result = cluster_world_run(&cluster_plan);
        *ret_hash = report.hash;
        __atomic_fetch_add(&shared->commits, cluster_result.commits, __ATOMIC_RELAXED);
        __atomic_fetch_add(&shared->records, cluster_result.epochs, __ATOMIC_RELAXED);
        return true;
    }
    if (runs == RUNS_GROUP) {
        struct group_plan group_plan = group_plan_of_seed(seed);
        struct group_result group_result = group_world_run(&group_plan);
        *ret_hash = report.hash;
        __atomic_fetch_add(&shared->commits, group_result.commits, __ATOMIC_RELAXED);
        __atomic_fetch_add(&shared->records, group_result.epochs, __ATOMIC_RELAXED);
        return true;
    }
    struct plan plan = plan_of_seed(seed);
    struct world_result result = world_run(&plan);
    *ret_hash = report.hash;
    __atomic_fetch_add(&shared->commits, result.commits, __ATOMIC_RELAXED);
    __atomic_fetch_add(&shared->records, result.records, __ATOMIC_RELAXED);
    __atomic_fetch_add(&shared->crashes, result.crashes, __ATOMIC_RELAXED);
    return true;
}

static void sometimes_share(void) {
    for (size_t i = 0; i < SOMETIMES_COUNT; i++) {
        __atomic_fetch_add(&shared->sometimes[i], sometimes_counts[i], __ATOMIC_RELAXED);
        sometimes_counts[i] = 0;
    }
}

// ---- Seeds

static uint64_t seeds_first;

static bool seed_job(uint64_t number, char *text, size_t text_size) {
    uint64_t hash;
    if (seed_run(seeds_first + number, false, &hash)) {
        sometimes_share();
        return true;
    }
    uint64_t seed = seeds_first + number;
    char replay[120];
    replay_text(replay, sizeof(replay), seed);
    snprintf(text, text_size, "seed %llu, step %llu: %s\n    replay: %s", (unsigned long long)seed,
             (unsigned long long)report.step, report.failure, replay);
    return false;
}

static size_t sometimes_begin(void) {
    return runs == RUNS_NODE ? 0 : runs == RUNS_GROUP ? SOMETIMES_GROUP_FIRST : SOMETIMES_CLUSTER_FIRST;
}

static size_t sometimes_end(void) {
    return runs == RUNS_NODE    ? SOMETIMES_GROUP_FIRST
           : runs == RUNS_GROUP ? SOMETIMES_CLUSTER_FIRST
                                : SOMETIMES_COUNT;
}

static uint32_t sometimes_missing(bool show) {
    uint32_t missing = 0;
    for (size_t i = sometimes_begin(); i < sometimes_end(); i++) {
        if (shared->sometimes[i] == 0) {
            missing++;
            if (show) {
                printf("never happened: %s\n", sometimes_names[i]);
            }
        }
    }
    return missing;
}

static void sometimes_show(void) {
    for (size_t i = sometimes_begin(); i < sometimes_end(); i++) {
        printf("%10llu %s\n", (unsigned long long)shared->sometimes[i], sometimes_names[i]);
    }
}

static int seeds_run(const struct options *options) {
    seeds_first = options->first;
    struct timespec begin;
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    struct jobs_result result = jobs_run(options->seeds, options->jobs, seed_job, 20);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    bool judge = options->seeds >= SOMETIMES_SEEDS && !mutant_active && result.failed == 0;
    uint32_t missing = sometimes_missing(judge);
    uint32_t events = (uint32_t)(sometimes_end() - sometimes_begin());
    if (options->events) {
        sometimes_show();
    }
    if (options->json) {
        printf("{\"seeds\": %llu, \"failed\": %llu, \"commits\": %llu, \"records\": %llu, \"crashes\": %llu, "
               "\"sometimes\": %u, \"sometimes_missing\": %u, \"seconds\": %.1f}\n",
               (unsigned long long)options->seeds, (unsigned long long)result.failed,
               (unsigned long long)shared->commits, (unsigned long long)shared->records,
               (unsigned long long)shared->crashes, events - missing, missing, seconds);
    } else {
        printf("%llu seeds in %.1f s: %llu commits in %llu %s, %llu crashes, %u of %u \"sometimes\" "
               "events\n",
               (unsigned long long)options->seeds, seconds, (unsigned long long)shared->commits,
               (unsigned long long)shared->records, runs == RUNS_NODE ? "records" : "epochs",
               (unsigned long long)shared->crashes, events - missing, events);
    }
    uint64_t failed = result.failed + (judge ? missing : 0);
    printf("%llu passed, %llu failed\n", (unsigned long long)(options->seeds - result.failed),
           (unsigned long long)failed);
    return failed ? 1 : 0;
}

static int seed_run_twice(const struct options *options) {
    uint64_t hashes[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        if (!seed_run(options->first, options->trace && i == 0, &hashes[i])) {
            printf("seed %llu, step %llu: %s\n0 passed, 1 failed\n", (unsigned long long)options->first,
                   (unsigned long long)report.step, report.failure);
            return 1;
        }
    }
    bool same = hashes[0] == hashes[1];
    printf("seed %llu: trace %016llx%s\n", (unsigned long long)options->first, (unsigned long long)hashes[0],
           same ? "" : ", but another one the second time");
    printf("%d passed, %d failed\n", same, !same);
    return same ? 0 : 1;
}

// ---- Planted bugs

// ---- Schedules

static bool schedule_run(uint32_t number, bool trace, const char **ret_name) {
    report_begin(number, trace ? stdout : NULL);
    if (setjmp(report.escape) != 0) {
        return false;
    }
    uint32_t group_count = group_schedule_count();
    *ret_name = number < group_count ? group_schedule_run(number)
                : number - group_count < cluster_schedule_count()
                    ? cluster_schedule_run(number - group_count)
                    : trim_schedule_run(number - group_count - cluster_schedule_count());
    return true;
}

// Those of the group first, then those of whole nodes.
static uint32_t schedule_count(void) {
    return group_schedule_count() + cluster_schedule_count() + trim_schedule_count();
}

static int schedules_run(bool trace) {
    uint32_t failed = 0;
    for (uint32_t i = 0; i < schedule_count(); i++) {
        const char *name = "";
        bool passed = schedule_run(i, trace, &name);
        failed += !passed;
        printf("%s: %s\n", passed ? name : "failed", passed ? "passed" : report.failure);
    }
    printf("%u passed, %u failed\n", schedule_count() - failed, failed);
    return failed ? 1 : 0;
}

// The schedules first: they are quick.
static bool mutant_found_by_schedule(void) {
    const char *name;
    uint32_t first = runs == RUNS_CLUSTER ? group_schedule_count() : 0;
    uint32_t end = runs == RUNS_CLUSTER ? schedule_count() : group_schedule_count();
    for (uint32_t i = first; i < end; i++) {
        if (!schedule_run(i, false, &name)) {
            return true;
        }
    }
    return false;
}

static bool mutant_job(uint64_t number, char *text, size_t text_size) {
    mutant_active = (enum mutant)(number + 1);
    runs = mutant_active >= MUTANT_APPLY_UNCOMMITTED    ? RUNS_CLUSTER
           : mutant_active >= MUTANT_LEADS_WITHOUT_SWAP ? RUNS_GROUP
                                                        : RUNS_NODE;
    uint64_t hash;
    if (runs != RUNS_NODE && mutant_found_by_schedule()) {
        shared->mutant_seed[mutant_active] = UINT64_MAX;
        snprintf(shared->mutant_failure[mutant_active], FAILURE_TEXT_MAX, "%s", report.failure);
        return true;
    }
    for (uint64_t seed = 1; seed <= MUTANT_SEEDS; seed++) {
        if (!seed_run(seed, false, &hash)) {
            shared->mutant_seed[mutant_active] = seed;
            snprintf(shared->mutant_failure[mutant_active], FAILURE_TEXT_MAX, "%s", report.failure);
            return true;
        }
    }
    snprintf(text, text_size, "%s survived %u seeds: %s", mutant_names[mutant_active], MUTANT_SEEDS,
             mutant_texts[mutant_active]);
    return false;
}

static int mutants_run(const struct options *options) {
    struct jobs_result result = jobs_run(MUTANT_COUNT - 1, options->jobs, mutant_job, MUTANT_COUNT);
    for (uint32_t i = 1; i < MUTANT_COUNT; i++) {
        if (shared->mutant_seed[i] == UINT64_MAX) {
            printf("%-24s caught by a schedule: %.150s\n", mutant_names[i], shared->mutant_failure[i]);
        } else if (shared->mutant_seed[i] != 0) {
            printf("%-24s caught by seed %4llu: %.150s\n", mutant_names[i],
                   (unsigned long long)shared->mutant_seed[i], shared->mutant_failure[i]);
        }
    }
    printf("%llu passed, %llu failed\n", (unsigned long long)(MUTANT_COUNT - 1 - result.failed),
           (unsigned long long)result.failed);
    return result.failed ? 1 : 0;
}

static void mutants_list(void) {
    for (uint32_t i = 1; i < MUTANT_COUNT; i++) {
        printf("%-24s %s\n", mutant_names[i], mutant_texts[i]);
    }
}

static bool mutant_find(const char *name, enum mutant *ret_mutant) {
    for (uint32_t i = 1; i < MUTANT_COUNT; i++) {
        if (strcmp(name, mutant_names[i]) == 0) {
            *ret_mutant = (enum mutant)i;
            return true;
        }
    }
    return false;
}

// ---- Options

static bool number_parse(const char *text, uint64_t *ret_number) {
    char *end;
    errno = 0;
    *ret_number = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == 0;
}

static int run(const struct options *options) {
    mutant_active = options->mutant;
    runs = options->cluster ? RUNS_CLUSTER : options->group ? RUNS_GROUP : RUNS_NODE;
    if (options->mutants) {
        return mutants_run(options);
    }
    if (options->schedules) {
        return schedules_run(options->trace);
    }
    if (options->script) {
        return script_run(options->script, options->accept);
    }
    if (options->sweep) {
        return sweep_run(options->jobs);
    }
    return options->one ? seed_run_twice(options) : seeds_run(options);
}

int main(int argc, char **argv) {
    enum {
        SEEDS = 256,
        SEED,
        FIRST,
        MUTANT_NAME,
        LIST,
        SWEEP,
        SCHEDULES,
        GROUP,
        CLUSTER,
        TRACE,
        JSON,
        JOBS,
        MUTANTS,
        SCRIPT,
        EVENTS,
        ACCEPT,
        HELP
    };
    static const struct option names[] = {
        {"seeds", required_argument, NULL, SEEDS},   {"seed", required_argument, NULL, SEED},
        {"first", required_argument, NULL, FIRST},   {"mutant", required_argument, NULL, MUTANT_NAME},
        {"list-mutants", no_argument, NULL, LIST},   {"sweep", no_argument, NULL, SWEEP},
        {"trace", no_argument, NULL, TRACE},         {"json", no_argument, NULL, JSON},
        {"jobs", required_argument, NULL, JOBS},     {"mutants", no_argument, NULL, MUTANTS},
        {"script", required_argument, NULL, SCRIPT}, {"events", no_argument, NULL, EVENTS},
        {"accept", no_argument, NULL, ACCEPT},       {"schedules", no_argument, NULL, SCHEDULES},
        {"group", no_argument, NULL, GROUP},         {"cluster", no_argument, NULL, CLUSTER},
        {"help", no_argument, NULL, HELP},           {0},
    };
    struct options options = {.first = 1, .seeds = 100, .jobs = 2};
    uint64_t number = options.jobs;
    bool right = true;
    int option;
    while (right && (option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case SEEDS:
            right = number_parse(optarg, &options.seeds);
            break;
        case SEED:
            options.one = true;
            right = number_parse(optarg, &options.first);
            break;
        case FIRST:
            right = number_parse(optarg, &options.first);
            break;
        case MUTANT_NAME:
            right = mutant_find(optarg, &options.mutant);
            break;
        case LIST:
            mutants_list();
            return 0;
        case SWEEP:
            options.sweep = true;
            break;
        case SCHEDULES:
            options.schedules = true;
            break;
        case GROUP:
            options.group = true;
            break;
        case CLUSTER:
            options.cluster = true;
            break;
        case TRACE:
            options.trace = true;
            break;
        case JSON:
            options.json = true;
            break;
        case JOBS:
            right = number_parse(optarg, &number) && number > 0 && number <= JOBS_MAX;
            options.jobs = (uint32_t)number;
            break;
        case MUTANTS:
            options.mutants = true;
            break;
        case SCRIPT:
            options.script = optarg;
            break;
        case EVENTS:
            options.events = true;
            break;
        case ACCEPT:
            options.accept = true;
            break;
        case HELP:
            usage(stdout);
            return 0;
        default:
            right = false;
            break;
        }
    }
    if (!right || optind != argc) {
        usage(stderr);
        return 2;
    }
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(shared != MAP_FAILED);
    report_init();
    return run(&options);
}
