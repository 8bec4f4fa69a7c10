// SPDX-License-Identifier: Apache-2.0
//
// Runs numbered pieces of work in several processes. One that dies by a signal has failed at the piece it was at.

#ifndef SIM_JOBS_H
#define SIM_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOBS_MAX 64u

struct jobs_result {
    uint64_t failed;
};

// Says whether piece `number` (from 0) went well; if not, why.
typedef bool job_function(uint64_t number, char *text, size_t text_size);

// Failures are printed as they happen; after `failures_max` of them no more pieces are begun.
struct jobs_result jobs_run(uint64_t count, uint32_t jobs, job_function *function, uint64_t failures_max);

#endif
