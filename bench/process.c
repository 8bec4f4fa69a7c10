// SPDX-License-Identifier: Apache-2.0
// process.c: other processes: the node that is attached to, and teams that work side by side.
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SHELF_SBIN_DIR
#define SHELF_SBIN_DIR "/usr/local/sbin"
#endif

// ---- Processes ----------------------------------------------------------------------------------------------------

pid_t process_begin(void) {
    (void)fflush(stdout); // or the child would print it again
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        fail("cannot start a process: %s", strerror(errno));
    if (pid > 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    return 0;
}

bool process_lives(pid_t process) {
    siginfo_t info = {0};
    if (waitid(P_PID, (id_t)process, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
        return info.si_pid == 0;
    return kill(process, 0) == 0; // another's child
}

void process_quiet(void) {
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        (void)dup2(nothing, fd);
}

void process_end(pid_t process) {
    (void)kill(process, SIGKILL);
    while (waitpid(process, NULL, 0) < 0 && errno == EINTR)
        ;
}

// ---- The node in another process ----------------------------------------------------------------------------------

static void shelfd_exec(const char *directory, const char *data) {
    char program[PATH_MAX];
    if (snprintf(program, sizeof(program), "%s/shelfd", directory) < (int)sizeof(program))
        (void)execl(program, "shelfd", "--data", data, "--log-level", "error", (char *)NULL);
}

// The daemon lies beside this program (in a build directory), or where it was installed to. If there is none, this
// process does the same: the code of the node and its door is the library's.
_Noreturn static void server_main(const char *name, const struct server_setting *list) {
    for (size_t i = 0; list && list[i].name; i++)
        (void)setenv(list[i].name, list[i].value, 1);
    char own[PATH_MAX], data[PATH_MAX];
    (void)snprintf(data, sizeof(data), "%s", scratch_path(name));
    ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);
    if (length > 0) {
        own[length] = 0;
        *strrchr(own, '/') = 0;
        shelfd_exec(own, data);
    }
    shelfd_exec(SHELF_SBIN_DIR, data);
    if (list)
        fail("there is no shelfd beside this program, nor in " SHELF_SBIN_DIR);
    (void)ours_open(name, SHELF_OPEN_CREATE, (struct shelf_options){0});
    for (;;)
        (void)pause();
}

void server_begin_with(struct server *server, const char *name, const struct server_setting *list) {
    *server = (struct server){0};
    if (snprintf(server->where, sizeof(server->where), "unix:%s/sock", scratch_path(name)) >=
        (int)sizeof(server->where))
        fail("the path of the scratch directory is too long");
    server->process = process_begin();
    if (server->process == 0)
        server_main(name, list);
}

void server_begin(struct server *server, const char *name) {
    server_begin_with(server, name, NULL);
}

shelf *server_attach(const struct server *server) {
    shelf *s = NULL;
    shelf_result result;
    uint64_t until = now_ns() + 20000000000u;
    while ((result = shelf_open(server->where, NULL, &s)) == SHELF_NOT_FOUND && now_ns() < until) {
        if (!process_lives(server->process))
            fail("the node's process has ended");
        (void)usleep(5000);
    }
    must(result, "shelf_open");
    return s;
}

void server_end(struct server *server) {
    process_end(server->process);
}

// ---- Teams --------------------------------------------------------------------------------------------------------

struct team_member {
    pid_t process;
    int order_fd, result_fd; // uint64_t: work until that time; uint64_t: operations done
};

struct team {
    size_t count;
    struct team_member members[TEAM_MAX];
};

static void word_send(int fd, uint64_t word) {
    if (write(fd, &word, sizeof(word)) != (ssize_t)sizeof(word))
        fail("a process of the team has gone");
}

static bool word_receive(int fd, uint64_t *ret_word) {
    ssize_t size;
    do
        size = read(fd, ret_word, sizeof(*ret_word));
    while (size < 0 && errno == EINTR);
    return size == (ssize_t)sizeof(*ret_word);
}

_Noreturn static void member_main(size_t position, const struct team_work *work, int order_fd,
                                  int result_fd) {
    struct random random;
    random_seed(&random, position);
    (void)thread_pin(position);
    void *context = work->open(work->argument, position);
    word_send(result_fd, 0);
    for (uint64_t until, done = 0; word_receive(order_fd, &until); done = 0) {
        for (; now_ns() < until; done++)
            work->operation(context, position, &random);
        word_send(result_fd, done);
    }
    _exit(0);
}

static void member_begin(struct team_member *m, size_t position, const struct team_work *work) {
    int orders[2], results[2];
    if (pipe(orders) || pipe(results))
        fail("cannot make pipes: %s", strerror(errno));
    m->process = process_begin();
    if (m->process == 0) {
        (void)close(orders[1]);
        (void)close(results[0]);
        member_main(position, work, orders[0], results[1]);
    }
    (void)close(orders[0]);
    (void)close(results[1]);
    m->order_fd = orders[1];
    m->result_fd = results[0];
}

static uint64_t member_result(const struct team_member *m) {
    uint64_t result;
    if (!word_receive(m->result_fd, &result))
        fail("a process of the team has ended");
    return result;
}

struct team *team_make(size_t count, const struct team_work *work) {
    struct team *t = calloc(1, sizeof(*t));
    if (!t || count > TEAM_MAX)
        fail("no memory for a team");
    (void)signal(SIGPIPE, SIG_IGN);
    t->count = count;
    for (size_t i = 0; i < count; i++)
        member_begin(&t->members[i], i, work);
    for (size_t i = 0; i < count; i++)
        (void)member_result(&t->members[i]);
    return t;
}

double team_run(struct team *t, size_t count, double seconds) {
    uint64_t start = now_ns(), until = start + (uint64_t)(seconds * 1e9), operations = 0;
    for (size_t i = 0; i < count; i++)
        word_send(t->members[i].order_fd, until);
    for (size_t i = 0; i < count; i++)
        operations += member_result(&t->members[i]);
    return (double)operations / ((double)(now_ns() - start) / 1e9);
}

void team_end(struct team *t) {
    for (size_t i = 0; i < t->count; i++)
        process_end(t->members[i].process);
    free(t);
}
