// SPDX-License-Identifier: Apache-2.0
//
// See sweep.h.

#include "sweep.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/bits.h"
#include "jobs.h"
#include "report.h"
#include "world.h"

#define POINTS_MAX 200000u
#define SAMPLE     40u // recoveries out of which one is crashed at all its ios, in the larger workloads

struct point {
    uint32_t workload;
    uint32_t mode;
    uint64_t at, again;
};
static struct point points[POINTS_MAX];
static uint64_t point_count;

static const char *const workload_names[] = {"commits", "regions and checkpoints", "large transactions"};

static struct plan workload(uint32_t number) {
    struct plan plan = {.seed = 4711 + number,
                        .steps = 110,
                        .clients = 2,
                        .alignment = 512,
                        .log_bytes_max = 4 * LOG_SEGMENT_BYTES,
                        .checkpoint_log_bytes = LOG_SEGMENT_BYTES,
                        .checkpoint_interval_ms = 600000,
                        .session_idle_ms = 3600000,
                        .session_named_idle_ms = 36000000,
                        .region_pages_max = 8,
                        .io_chance = 400,
                        .tick_chance = 40,
                        .tick_ms_max = 300,
                        .region_chance = 5};
    if (number == 1) {
        plan.steps = 400;
        plan.clients = 3;
        plan.region_chance = 80;
        plan.checkpoint_chance = 60;
        plan.region_pages_max = 20;
    } else if (number == 2) {
        plan.steps = 500;
        plan.clients = 3;
        plan.alignment = 4096;
        plan.region_pages_max = 80;
        plan.large_chance = 500;
        plan.checkpoint_log_bytes = LOG_SEGMENT_BYTES / 2;
    }
    return plan;
}

static bool point_run(const struct point *point, struct world_result *ret_result) {
    struct plan plan = workload(point->workload);
    plan.crash_at = point->at;
    plan.crash_again_at = point->again;
    plan.crash_mode = (enum crash_mode)point->mode;
    report_begin(plan.seed, NULL);
    if (setjmp(report.escape) != 0) {
        return false;
    }
    *ret_result = world_run(&plan);
    return true;
}

static bool point_job(uint64_t number, char *text, size_t text_size) {
    static const char *const modes[] = {"before", "in", "after"};
    const struct point *point = &points[number];
    struct world_result result;
    if (point_run(point, &result)) {
        return true;
    }
    snprintf(text, text_size, "workload %s, crash %s io %llu, then %s io %llu of the recovery, step %llu: %s",
             workload_names[point->workload], modes[point->mode], (unsigned long long)point->at,
             modes[point->mode], (unsigned long long)point->again, (unsigned long long)report.step,
             report.failure);
    return false;
}

static void point_add(uint32_t workload_number, uint32_t mode, uint64_t at, uint64_t again) {
    ASSERT(point_count < POINTS_MAX);
    points[point_count++] =
        (struct point){.workload = workload_number, .mode = mode, .at = at, .again = again};
}

// How many ios recovery makes after a crash at `at`, so that each can be crashed.
static bool recovery_points_add(uint32_t workload_number, uint64_t at) {
    struct point point = {.workload = workload_number, .mode = CRASH_DURING, .at = at, .again = UINT64_MAX};
    struct world_result result;
    if (!point_run(&point, &result)) {
        printf("workload %s, crash in io %llu: %s\n", workload_names[workload_number], (unsigned long long)at,
               report.failure);
        return false;
    }
    for (uint64_t again = 1; again <= result.ios_recovery; again++) {
        point_add(workload_number, CRASH_DURING, at, again);
    }
    return true;
}

int sweep_run(uint32_t jobs) {
    for (uint32_t i = 0; i < ARRAY_COUNT(workload_names); i++) {
        struct point point = {.workload = i};
        struct world_result result;
        if (!point_run(&point, &result)) {
            printf("workload %s without a crash: %s\n0 passed, 1 failed\n", workload_names[i],
                   report.failure);
            return 1;
        }
        uint64_t ios = result.ios_first_life;
        for (uint64_t at = 1; at <= ios; at++) {
            for (uint32_t mode = 0; mode < CRASH_MODES; mode++) {
                point_add(i, mode, at, 0);
            }
            if ((i == 0 || at % SAMPLE == 0) && !recovery_points_add(i, at)) {
                printf("0 passed, 1 failed\n");
                return 1;
            }
        }
        printf("workload %s: %llu ios, %llu crash points so far\n", workload_names[i],
               (unsigned long long)ios, (unsigned long long)point_count);
    }
    struct jobs_result result = jobs_run(point_count, jobs, point_job, 20);
    printf("%llu passed, %llu failed\n", (unsigned long long)(point_count - result.failed),
           (unsigned long long)result.failed);
    return result.failed ? 1 : 0;
}
