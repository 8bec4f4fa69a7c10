// SPDX-License-Identifier: Apache-2.0
//
// step: runs a program and kills it with SIGKILL before the N-th instruction of chosen functions (x86-64, ptrace).
//
//   step --through FUNCTION[,...] --to FUNCTION|return --in FUNCTION[,...] [--over FUNCTION[,...]] [--at N]
//        [--hold PID [--release N]] -- PROGRAM [ARGUMENT...]
//
// At once if there is --at N, and for each line "N" on stdin: the first thread that enters the functions of --through, one after the other, is stepped
// from there on, instruction by instruction, until the last of them returns, or --to is entered. Instructions in the
// functions of --in count, also in the parts that a compiler splits off (NAME.cold, NAME.part.0). Before the N-th (0: none)
// the program is killed. All its other threads run meanwhile. What does not count and would take long is run through without
// stepping: the functions of --over, and those of libraries. With --hold another process is stopped when the stepping
// begins, and goes on before the N-th counted instruction of --release, when the thread has gone to sleep, or at the end: so that
// what the thread waits for comes late.
//
// stdout: {"pid": P} when the program has begun, and for each line of stdin
// {"counted": C, "killed": true|false, "in": "FUNCTION", "offset": BYTES}, with `in` the function of the last counted
// instruction. The program's stdout is step's stderr, its stdin is empty. Exit code: 0 if it was killed as asked, that of
// the program, or 128 + its signal; 70 if it cannot be traced. When step is killed, the program is as well.
//
// Functions that the compiler has inlined everywhere are not there: naming them does no harm, they count with their callers.

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define RANGES_MAX  512u
#define THROUGH_MAX 4u
#define OVER_MAX    32u
#define EXIT_TEST   70
#define BREAKPOINT  0xccu // int3

struct range {
    uint64_t begin, end;
    const char *name; // in the program's file, which stays mapped
};

struct program {
    const unsigned char *file; // mapped
    size_t file_size;
    uint64_t bias; // where it was loaded, less where it is linked for
    struct range text;
    pid_t pid;
    int memory; // /proc/PID/mem
    bool ended;
    int status;
};

struct step {
    struct program program;
    struct range in[RANGES_MAX];
    unsigned in_count;
    uint64_t through[THROUGH_MAX]; // entries
    unsigned through_count;
    uint64_t to; // entry; 0: the return
    struct range over[OVER_MAX];
    unsigned over_count;

    bool armed;         // a breakpoint is set, or a thread is stepped
    uint64_t at;        // kill before this one
    unsigned stage;     // of `through`
    unsigned char code; // what the breakpoint has replaced
    pid_t stepped;      // 0: none yet
    uint64_t stack, counted;
    uint64_t over_stack;      // not 0: it runs until it has returned to a smaller stack
    bool outside;             // of the program's own code
    const struct range *last; // of the last that counted
    uint64_t last_offset;
    bool killed;

    pid_t hold; // 0: nobody
    uint64_t release;
};

// Of the thread whose sleep ends the hold, for the timer's handler. 0: nobody is held.
static volatile sig_atomic_t held, held_for;

static void die(const char *what) {
    fprintf(stderr, "step: %s: %s\n", what, strerror(errno));
    exit(EXIT_TEST);
}

// ---- Symbols ----------------------------------------------------------------------------------------------

static void file_map(struct program *program, const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) != 0) {
        die(path);
    }
    program->file_size = (size_t)status.st_size;
    void *file = mmap(NULL, program->file_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED) {
        die(path);
    }
    close(fd);
    program->file = file;
    if (program->file_size < sizeof(Elf64_Ehdr) || memcmp(file, ELFMAG, SELFMAG) != 0) {
        errno = ENOEXEC;
        die(path);
    }
}

// Whether the symbol is of that function: itself, or a part or a copy of it.
static bool symbol_is(const char *symbol, const char *name, size_t name_size) {
    return strncmp(symbol, name, name_size) == 0 && (symbol[name_size] == 0 || symbol[name_size] == '.');
}

static const Elf64_Shdr *symbols_find(const struct program *program, const Elf64_Shdr **ret_strings) {
    const Elf64_Ehdr *header = (const void *)program->file;
    const Elf64_Shdr *sections = (const void *)(program->file + header->e_shoff);
    for (unsigned i = 0; i < header->e_shnum; i++) {
        if (sections[i].sh_type == SHT_SYMTAB) {
            *ret_strings = &sections[sections[i].sh_link];
            return &sections[i];
        }
    }
    errno = ENOEXEC;
    die("the program was stripped of its symbols");
    return NULL;
}

// All ranges of a function. Returns how many there are.
static unsigned ranges_find(const struct program *program, const char *name, size_t name_size,
                            struct range *ret_ranges, unsigned ranges_max) {
    const Elf64_Shdr *strings;
    const Elf64_Shdr *table = symbols_find(program, &strings);
    const Elf64_Sym *symbols = (const void *)(program->file + table->sh_offset);
    unsigned count = 0;
    for (size_t i = 0; i < table->sh_size / sizeof(*symbols) && count < ranges_max; i++) {
        const char *symbol = (const char *)program->file + strings->sh_offset + symbols[i].st_name;
        if (ELF64_ST_TYPE(symbols[i].st_info) == STT_FUNC && symbols[i].st_size > 0 &&
            symbol_is(symbol, name, name_size)) {
            uint64_t begin = program->bias + symbols[i].st_value;
            ret_ranges[count++] =
                (struct range){.begin = begin, .end = begin + symbols[i].st_size, .name = symbol};
        }
    }
    return count;
}

static unsigned names_find(const struct program *program, const char *names, struct range *ret_ranges,
                           unsigned ranges_max) {
    unsigned count = 0;
    for (const char *name = names; *name != 0;) {
        size_t size = strcspn(name, ",");
        count += ranges_find(program, name, size, ret_ranges + count, ranges_max - count);
        name += size + (name[size] == ',');
    }
    if (count == 0) {
        errno = ESRCH;
        die(names);
    }
    return count;
}

static uint64_t entry_find(const struct program *program, const char *name, size_t size) {
    struct range ranges[8];
    unsigned count = ranges_find(program, name, size, ranges, 8);
    for (unsigned i = 0; i < count; i++) {
        if (strstr(ranges[i].name, ".cold") == NULL) {
            return ranges[i].begin;
        }
    }
    errno = ESRCH;
    die(name);
    return 0;
}

static void through_add(struct step *step, const char *names) {
    for (const char *name = names; *name != 0 && step->through_count < THROUGH_MAX;) {
        size_t size = strcspn(name, ",");
        step->through[step->through_count++] = entry_find(&step->program, name, size);
        name += size + (name[size] == ',');
    }
}

static const struct range *range_of(const struct step *step, uint64_t address) {
    for (unsigned i = 0; i < step->in_count; i++) {
        if (address >= step->in[i].begin && address < step->in[i].end) {
            return &step->in[i];
        }
    }
    return NULL;
}

// ---- The program ------------------------------------------------------------------------------------------

static struct range text_of(const struct program *program) {
    const Elf64_Ehdr *header = (const void *)program->file;
    const Elf64_Phdr *parts = (const void *)(program->file + header->e_phoff);
    struct range text = {.begin = UINT64_MAX};
    for (unsigned i = 0; i < header->e_phnum; i++) {
        uint64_t begin = program->bias + parts[i].p_vaddr;
        if (parts[i].p_type == PT_LOAD && (parts[i].p_flags & PF_X) != 0 && begin < text.begin) {
            text = (struct range){.begin = begin, .end = begin + parts[i].p_memsz};
        }
    }
    return text;
}

static uint64_t bias_read(const struct program *program) {
    char path[64];
    uint64_t pair[2] = {AT_NULL, 0};
    snprintf(path, sizeof(path), "/proc/%d/auxv", program->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && read(fd, pair, sizeof(pair)) == (ssize_t)sizeof(pair) && pair[0] != AT_ENTRY) {
    }
    if (pair[0] != AT_ENTRY) {
        die(path);
    }
    close(fd);
    return pair[1] - ((const Elf64_Ehdr *)(const void *)program->file)->e_entry;
}

static void child_run(char **arguments) {
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setenv("LD_BIND_NOW", "1", 1); // a call into a library is to go there, not to its loader
    if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(2, 1) < 0 || ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
        die("cannot be traced");
    }
    execv(arguments[0], arguments);
    die(arguments[0]);
}

static void program_start(struct program *program, char **arguments) {
    char path[64];
    int status = 0;
    file_map(program, arguments[0]);
    program->pid = fork();
    if (program->pid == 0) {
        child_run(arguments);
    }
    if (program->pid < 0 || waitpid(program->pid, &status, 0) != program->pid || !WIFSTOPPED(status)) {
        die("the program did not start");
    }
    uintptr_t options = PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    snprintf(path, sizeof(path), "/proc/%d/mem", program->pid);
    program->memory = open(path, O_RDWR | O_CLOEXEC); // now: a daemon may forbid it later
    if (program->memory < 0 || ptrace(PTRACE_SETOPTIONS, program->pid, NULL, options) != 0) {
        die("cannot trace the program");
    }
    program->bias = bias_read(program);
    program->text = text_of(program);
    printf("{\"pid\": %d}\n", program->pid);
    fflush(stdout);
}

static unsigned char code_exchange(const struct program *program, uint64_t address, unsigned char code) {
    unsigned char before;
    if (pread(program->memory, &before, 1, (off_t)address) != 1 ||
        pwrite(program->memory, &code, 1, (off_t)address) != 1) {
        die("cannot write the program's code");
    }
    return before;
}

static void resume(pid_t thread, bool single, int signal_number) {
    // A thread that was killed meanwhile is no error.
    (void)ptrace(single ? PTRACE_SINGLESTEP : PTRACE_CONT, thread, NULL, (uintptr_t)signal_number);
}

// ---- Stepping ---------------------------------------------------------------------------------------------

static void arm(struct step *step, uint64_t at) {
    step->armed = true;
    step->at = at;
    step->stage = 0;
    step->stepped = 0;
    step->counted = 0;
    step->over_stack = 0;
    step->outside = false;
    step->last = NULL;
    step->code = code_exchange(&step->program, step->through[0], BREAKPOINT);
}

// ---- Holding another process ------------------------------------------------------------------------------

#define LOOK_US 1000

static void hold_end(void) {
    if (held != 0) {
        (void)kill(held, SIGCONT);
        held = 0;
    }
}

// Is it in a system call, and waits there? Between two steps it is stopped, which is another state.
static bool is_asleep(pid_t thread) {
    char path[64];
    char text[256];
    snprintf(path, sizeof(path), "/proc/%d/stat", thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (fd >= 0) {
        close(fd);
    }
    text[size > 0 ? size : 0] = 0;
    const char *name_end = strrchr(text, ')');
    return name_end != NULL && strncmp(name_end, ") S", 3) == 0;
}

static void on_look(int number) {
    int error = errno;
    (void)number;
    if (held != 0 && is_asleep(held_for)) {
        hold_end();
    }
    errno = error;
}

static void hold_begin(const struct step *step) {
    if (step->hold == 0) {
        return;
    }
    struct sigaction action = {.sa_handler = on_look, .sa_flags = SA_RESTART};
    struct itimerval period = {{0, LOOK_US}, {0, LOOK_US}};
    held_for = step->stepped;
    held = step->hold;
    if (kill(step->hold, SIGSTOP) != 0 || sigaction(SIGALRM, &action, NULL) != 0 ||
        setitimer(ITIMER_REAL, &period, NULL) != 0) {
        die("cannot hold the process");
    }
}

// ---- Stepping, step by step -------------------------------------------------------------------------------

static void report(struct step *step) {
    hold_end();
    step->armed = false;
    step->stepped = 0;
    printf("{\"counted\": %" PRIu64 ", \"killed\": %s, \"in\": \"%s\", \"offset\": %" PRIu64 "}\n",
           step->counted, step->killed ? "true" : "false", step->last != NULL ? step->last->name : "",
           step->last_offset);
    fflush(stdout);
}

// Tracer and thread take turns: on one processor they do so in a fraction of the time.
static void pin(pid_t thread) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)sched_getcpu(), &set);
    (void)sched_setaffinity(0, sizeof(set), &set);
    (void)sched_setaffinity(thread, sizeof(set), &set);
}

// A thread has come to the breakpoint.
static void on_breakpoint(struct step *step, pid_t thread, struct user_regs_struct *registers) {
    registers->rip--;
    (void)ptrace(PTRACE_SETREGS, thread, NULL, registers);
    (void)code_exchange(&step->program, step->through[step->stage], step->code);
    if (++step->stage < step->through_count) {
        step->code = code_exchange(&step->program, step->through[step->stage], BREAKPOINT);
        return;
    }
    step->stepped = thread;
    step->stack = registers->rsp;
    pin(thread);
    hold_begin(step);
}

// The processor's own breakpoint, of this thread alone. 0: none.
static bool breakpoint_set(pid_t thread, uint64_t address) {
    return ptrace(PTRACE_POKEUSER, thread, offsetof(struct user, u_debugreg[0]), address) == 0 &&
           ptrace(PTRACE_POKEUSER, thread, offsetof(struct user, u_debugreg[7]), address != 0 ? 1ul : 0ul) ==
               0;
}

static bool is_over(const struct step *step, uint64_t address) {
    for (unsigned i = 0; i < step->over_count; i++) {
        if (address == step->over[i].begin) {
            return true;
        }
    }
    return false;
}

// Whether the thread may run until what it is about to begin has returned.
static bool over_begin(struct step *step, const struct user_regs_struct *registers) {
    const struct range *text = &step->program.text;
    bool was_outside = step->outside;
    uint64_t back = 0;
    step->outside = registers->rip < text->begin || registers->rip >= text->end;
    if (!(step->outside && !was_outside) && !is_over(step, registers->rip)) {
        return false;
    }
    if (pread(step->program.memory, &back, sizeof(back), (off_t)registers->rsp) != (ssize_t)sizeof(back) ||
        back < text->begin || back >= text->end || !breakpoint_set(step->stepped, back)) {
        return false;
    }
    step->over_stack = registers->rsp;
    return true;
}

// Whether it has. A function may come by its own return again, further down the stack.
static bool over_end(struct step *step, const struct user_regs_struct *registers) {
    if (registers->rsp <= step->over_stack) {
        return false;
    }
    (void)breakpoint_set(step->stepped, 0);
    step->over_stack = 0;
    step->outside = false;
    return true;
}

// Before an instruction of the stepped thread. False: no further steps.
static bool on_step(struct step *step, const struct user_regs_struct *registers) {
    bool over = step->to != 0 ? registers->rip == step->to : registers->rsp > step->stack;
    const struct range *range = range_of(step, registers->rip);
    if (!over && range != NULL) {
        step->last = range;
        step->last_offset = registers->rip - range->begin;
        step->counted++;
        if (step->counted == step->release) {
            hold_end();
        }
        if (step->counted == step->at) {
            step->killed = true;
            (void)kill(step->program.pid, SIGKILL);
            over = true;
        }
    }
    if (over) {
        report(step);
    }
    return !over;
}

static void on_trap(struct step *step, pid_t thread) {
    struct user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, thread, NULL, &registers) != 0) {
        return; // killed
    }
    bool waits = step->armed && step->stepped == 0;
    bool was = false;
    for (unsigned i = 0; i < step->through_count; i++) {
        was |= registers.rip - 1 == step->through[i];
    }
    if (waits && registers.rip - 1 == step->through[step->stage]) {
        on_breakpoint(step, thread, &registers);
    } else if (was && thread != step->stepped) { // it was there when another thread was, too
        registers.rip--;
        (void)ptrace(PTRACE_SETREGS, thread, NULL, &registers);
    }
    bool single = false;
    if (thread == step->stepped && (step->over_stack == 0 || over_end(step, &registers))) {
        single = on_step(step, &registers) && !over_begin(step, &registers);
    }
    resume(thread, single, 0);
}

static bool is_single(const struct step *step, pid_t thread) {
    return thread == step->stepped && step->over_stack == 0;
}

static void on_stop(struct step *step, pid_t thread, int status) {
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
        if (thread == step->program.pid) {
            step->program.ended = true;
            step->program.status = status;
        }
        return;
    }
    int number = WSTOPSIG(status);
    if (status >> 16 != 0) {
        resume(thread, is_single(step, thread), 0);
    } else if (number == SIGTRAP) {
        on_trap(step, thread);
    } else { // a thread begins with SIGSTOP
        resume(thread, is_single(step, thread), number == SIGSTOP ? 0 : number);
    }
}

// ---- Both at once: the program and stdin ------------------------------------------------------------------

static bool line_read(struct step *step) {
    char line[64];
    ssize_t size = read(0, line, sizeof(line) - 1);
    if (size <= 0) {
        return false;
    }
    line[size] = 0;
    if (!step->armed) {
        arm(step, strtoull(line, NULL, 10));
    }
    return true;
}

static void stops_take(struct step *step) {
    int status;
    pid_t thread;
    while (!step->program.ended &&
           (thread = waitpid(-1, &status, __WALL | (step->stepped != 0 ? 0 : WNOHANG))) > 0) {
        on_stop(step, thread, status);
    }
}

static void watch(struct step *step, int signals) {
    struct pollfd fds[2] = {{.fd = signals, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
    struct signalfd_siginfo info;
    while (stops_take(step), !step->program.ended) {
        if (poll(fds, 2, -1) < 0) {
            if (errno == EINTR) {
                continue;
            }
            die("poll");
        }
        if (fds[0].revents != 0) {
            (void)!read(signals, &info, sizeof(info));
        }
        if (fds[1].revents != 0 && !line_read(step)) {
            fds[1].fd = -1;
        }
    }
}

// ---- Start ------------------------------------------------------------------------------------------------

int main(int argc, char **argv) {
    static struct step step;
    const char *through = NULL;
    const char *to = "return";
    const char *in = NULL;
    const char *over = NULL;
    const char *at = NULL;
    const char *hold = NULL;
    const char *release = NULL;
    int i = 1;
    for (; i + 1 < argc && strcmp(argv[i], "--") != 0; i += 2) {
        const char **place = strcmp(argv[i], "--through") == 0   ? &through
                             : strcmp(argv[i], "--to") == 0      ? &to
                             : strcmp(argv[i], "--in") == 0      ? &in
                             : strcmp(argv[i], "--over") == 0    ? &over
                             : strcmp(argv[i], "--at") == 0      ? &at
                             : strcmp(argv[i], "--hold") == 0    ? &hold
                             : strcmp(argv[i], "--release") == 0 ? &release
                                                                 : NULL;
        if (place == NULL) {
            break;
        }
        *place = argv[i + 1];
    }
    if (through == NULL || in == NULL || i + 1 >= argc || strcmp(argv[i], "--") != 0) {
        fprintf(
            stderr,
            "usage: step --through FUNCTIONS --to FUNCTION|return --in FUNCTIONS -- PROGRAM [ARGUMENT...]\n");
        return 65;
    }
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0) {
        die("signalfd");
    }
    program_start(&step.program, argv + i + 1);
    through_add(&step, through);
    step.in_count = names_find(&step.program, in, step.in, RANGES_MAX);
    step.over_count = over != NULL ? names_find(&step.program, over, step.over, OVER_MAX) : 0;
    step.hold = hold != NULL ? (pid_t)strtol(hold, NULL, 10) : 0;
    step.release = release != NULL ? strtoull(release, NULL, 10) : 0;
    step.to = strcmp(to, "return") == 0 ? 0 : entry_find(&step.program, to, strlen(to));
    if (at != NULL) {
        arm(&step, strtoull(at, NULL, 10));
    }
    resume(step.program.pid, false, 0);
    watch(&step, signals);
    if (step.armed) {
        report(&step); // it has ended before
    }
    if (step.killed) {
        return 0;
    }
    return WIFEXITED(step.program.status) ? WEXITSTATUS(step.program.status)
                                          : 128 + WTERMSIG(step.program.status);
}
