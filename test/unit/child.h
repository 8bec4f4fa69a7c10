// SPDX-License-Identifier: Apache-2.0
//
// For tests of several processes: a child ends with its parent, and when something is not as it must be, it says so and ends.

#ifndef TEST_CHILD_H
#define TEST_CHILD_H

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "cmocka_program.h"
#include "shelf.h"

// In a child a failed assertion must end the child, and tell.
#define CHECK(condition)                                                                                    \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            fprintf(stderr, "%s:%d: in a child: %s; %s\n", __FILE__, __LINE__, #condition, shelf_detail()); \
            _exit(1);                                                                                       \
        }                                                                                                   \
    } while (0)

// As fork(), which has succeeded.
static inline pid_t child_begin(void) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
    return child;
}

static inline void pause_ms(long time_ms) {
    (void)nanosleep(&(struct timespec){.tv_sec = time_ms / 1000, .tv_nsec = time_ms % 1000 * 1000000}, NULL);
}

#endif
