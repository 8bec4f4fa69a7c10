// SPDX-License-Identifier: Apache-2.0
//
// What kind of world a seed is: most have one or two kinds of faults, so that the checks stay sharp; some have none.

#include "base/bits.h"
#include "world.h"

static uint32_t between(struct random *random, uint64_t low, uint64_t high) {
    return (uint32_t)random_between(random, low, high);
}

static void plan_faults(struct plan *plan, struct random *random) {
    uint64_t kind = random_below(random, 100);
    if (kind < 12) {
        return; // only the scheduling is against it
    }
    plan->crashes_max = between(random, 1, 7);
    plan->crash_chance = between(random, 1, 12);
    plan->close_chance = random_chance(random, 1, 3) ? 10 : 1;
    if (kind < 45) {
        return;
    }
    if (kind < 58) {
        plan->no_space_chance = between(random, 1, 6);
    } else if (kind < 68) {
        plan->eio_chance = between(random, 1, 8);
    } else if (kind < 90) {
        plan->rot_chance = 500;
        plan->close_chance = 30; // a clean end leaves a hint: then nothing may be taken for a tear
    } else {
        plan->misdirect_chance = between(random, 2, 60);
    }
    if (random_chance(random, 1, 8)) {
        plan->no_memory_chance = 200;
    }
}

struct plan plan_of_seed(uint64_t seed) {
    struct random random;
    random_seed(&random, seed ^ 0x5eed);
    struct plan plan = {.seed = seed};
    plan.steps = between(&random, 200, random_chance(&random, 1, 10) ? 6000 : 1800);
    plan.clients = between(&random, 1, CLIENTS_MAX);
    plan.alignment = random_chance(&random, 2, 3) ? 512 : 4096;
    plan.log_bytes_max = between(&random, 3, 6) * LOG_SEGMENT_BYTES;
    plan.checkpoint_log_bytes =
        random_chance(&random, 1, 2) ? between(&random, 4096, 65536) : LOG_SEGMENT_BYTES;
    plan.checkpoint_interval_ms = between(&random, 1000, 600000);
    plan.session_idle_ms = random_chance(&random, 1, 4) ? 20000 : 3600000;
    plan.session_named_idle_ms = random_chance(&random, 1, 4) ? 60000 : 36000000;
    plan.region_pages_max = random_chance(&random, 1, 4) ? 600 : between(&random, 1, 40);
    plan.io_chance = between(&random, 100, 700);
    plan.tick_chance = between(&random, 10, 200);
    plan.tick_ms_max = random_chance(&random, 1, 3) ? 5000 : 300;
    plan.large_chance = random_chance(&random, 1, 4) ? between(&random, 50, 500) : 4;
    plan.region_chance = random_chance(&random, 1, 4) ? 60 : 5;
    plan.checkpoint_chance = random_chance(&random, 1, 3) ? 30 : 3;
    plan.hold_chance = random_chance(&random, 1, 3) ? 100 : 0;
    if (random_chance(&random, 1, 40)) {
        plan.flood_chance = 700;
        plan.steps = 7000;
        plan.io_chance = 400;
    }
    plan.shop_chance = random_chance(&random, 1, 3) ? 400 : 0;
    plan_faults(&plan, &random);
    plan.users = seed % 2 == 0; // no dice: what the other seeds are known for stays as it is
    plan.defer_chance = seed % 3 == 0 ? 600 : 0;
    return plan;
}
