// SPDX-License-Identifier: Apache-2.0
/* up_process.c: see up_process.h. */
#include "cmd/up_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool text_read(const char *path, char *text, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, text, size - 1) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    text[length > 0 ? length : 0] = 0;
    return length > 0;
}

static void boot_read(char ret_boot[UP_BOOT_MAX]) {
    if (!text_read("/proc/sys/kernel/random/boot_id", ret_boot, UP_BOOT_MAX)) {
        ret_boot[0] = 0;
    }
    ret_boot[strcspn(ret_boot, "\n")] = 0;
}

/* When it began; 0: there is no such process, or it has ended and waits for its parent. */
static uint64_t began_read(int64_t process) {
    char path[64], text[1024];
    (void)snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)process);
    if (!text_read(path, text, sizeof(text))) {
        return 0;
    }
    char *at = strrchr(text, ')'); /* its name may contain anything */
    if (!at || at[1] != ' ' || at[2] == 'Z' || at[2] == 'X') {
        return 0;
    }
    for (int field = 2; at && field < 22; field++) {
        at = strchr(at + 1, ' ');
    }
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

enum { ARGUMENTS_MAX = 40 };

int up_process_start(const char *const arguments[], const char *log, struct up_process *ret_process) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    pid_t process;
    char *copies[ARGUMENTS_MAX + 1] = {NULL}; /* posix_spawn wants them so, and leaves them alone */
    if (!arguments[0]) {
        return EINVAL;
    }
    for (int i = 0; i < ARGUMENTS_MAX && arguments[i]; i++) {
        memcpy(&copies[i], &arguments[i], sizeof(copies[i]));
    }
    (void)sigemptyset(&none);
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawnattr_init(&attributes);
    (void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0640);
    (void)posix_spawn_file_actions_adddup2(&actions, 1, 2);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    (void)posix_spawnattr_setsigmask(&attributes, &none);
    int error = posix_spawnp(&process, copies[0], &actions, &attributes, copies, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attributes);
    if (error == 0) {
        *ret_process = (struct up_process){.process = process, .began = began_read(process)};
        boot_read(ret_process->boot);
    }
    return error;
}

/* A descriptor of exactly this process; -1: it does not live. */
static int process_open(const struct up_process *process) {
    char boot[UP_BOOT_MAX];
    boot_read(boot);
    if (process->process <= 1 || process->began == 0 || strcmp(boot, process->boot) != 0) {
        return -1;
    }
    int fd = (int)syscall(SYS_pidfd_open, (pid_t)process->process, 0);
    if (fd >= 0 && began_read(process->process) != process->began) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

bool up_process_lives(const struct up_process *process) {
    int fd = process_open(process);
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd >= 0;
}

bool up_process_end(const struct up_process *process, int signal, uint32_t wait_ms) {
    int fd = process_open(process);
    if (fd < 0) {
        return true;
    }
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    if (signal != 0) {
        (void)syscall(SYS_pidfd_send_signal, fd, signal, NULL, 0);
    }
    bool ended = poll(&poll_fd, 1, (int)wait_ms) == 1;
    (void)close(fd);
    if (ended) { /* if it is ours */
        (void)waitpid((pid_t)process->process, NULL, WNOHANG);
    }
    return ended;
}
