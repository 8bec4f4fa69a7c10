// SPDX-License-Identifier: Apache-2.0
//
// See jobs.h. The processes take the next number from shared memory. A process that met a failure is replaced by a new one,
// because what a failed piece has left behind is of no use.

#include "jobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/assert.h"

#define TEXT_MAX 900u

struct board { // shared by all
    uint64_t next;
    uint64_t failed;
    uint64_t current[JOBS_MAX];
};

static _Noreturn void job_process(struct board *board, uint32_t place, uint64_t count, job_function *function,
                                  uint64_t failures_max) {
    for (;;) {
        uint64_t number = __atomic_fetch_add(&board->next, 1, __ATOMIC_RELAXED);
        if (number >= count || __atomic_load_n(&board->failed, __ATOMIC_RELAXED) >= failures_max) {
            exit(0); // not _exit(): what the coverage counters say is written now
        }
        board->current[place] = number;
        char text[TEXT_MAX] = "";
        if (!function(number, text, sizeof(text))) {
            __atomic_fetch_add(&board->failed, 1, __ATOMIC_RELAXED);
            printf("%s\n", text);
            fflush(stdout);
            exit(1);
        }
    }
}

static pid_t job_start(struct board *board, uint32_t place, uint64_t count, job_function *function,
                       uint64_t failures_max) {
    fflush(stdout);
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0) {
        job_process(board, place, count, function, failures_max);
    }
    return pid;
}

struct jobs_result jobs_run(uint64_t count, uint32_t jobs, job_function *function, uint64_t failures_max) {
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT(board != MAP_FAILED && jobs > 0 && jobs <= JOBS_MAX);
    pid_t pids[JOBS_MAX];
    for (uint32_t i = 0; i < jobs; i++) {
        pids[i] = job_start(board, i, count, function, failures_max);
    }
    for (uint32_t i = 0; i < jobs; i++) {
        for (;;) {
            int status;
            pid_t pid = waitpid(pids[i], &status, 0);
            ASSERT(pid == pids[i]);
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
                break;
            }
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 1) {
                __atomic_fetch_add(&board->failed, 1, __ATOMIC_RELAXED);
                printf("piece %llu ended by signal %d\n", (unsigned long long)board->current[i],
                       WIFSIGNALED(status) ? WTERMSIG(status) : 0);
            }
            pids[i] = job_start(board, i, count, function, failures_max);
        }
    }
    struct jobs_result result = {.failed = board->failed};
    munmap(board, sizeof(*board));
    return result;
}
