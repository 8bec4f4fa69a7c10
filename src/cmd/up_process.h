// SPDX-License-Identifier: Apache-2.0
/*
 * up_process.h: processes that a command starts and leaves behind, and finds again later: by number, the time when it began,
 * and the boot of the machine. A number that has become another process's is never taken for it, and nothing else is ever
 * ended.
 */
#ifndef CMD_UP_PROCESS_H
#define CMD_UP_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#define UP_BOOT_MAX 40u

struct up_process {
    int64_t process; /* 0: none was started */
    uint64_t began;  /* in ticks of the machine */
    char boot[UP_BOOT_MAX];
};

/* Up to 40 arguments. Starts a program without a terminal, in a session of its own; what it says is appended to `log`. 0, or an error number. */
int up_process_start(const char *const arguments[], const char *log, struct up_process *ret_process);
bool up_process_lives(const struct up_process *process);
/* Returns whether it has ended within that time; if it did not live, at once. Without `signal` (0) only waits. */
bool up_process_end(const struct up_process *process, int signal, uint32_t wait_ms);

#endif
