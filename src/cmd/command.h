// SPDX-License-Identifier: Apache-2.0
/*
 * command.h: one table describes all commands; arguments, help and suggestions are made from it (main.c, arguments.c).
 */
#ifndef CMD_COMMAND_H
#define CMD_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "shelf.h"

#define COMMAND_OPTIONS_MAX  8u
#define COMMAND_EXAMPLES_MAX 6u

struct option_spec {
    const char *name;     /* without the dashes; NULL: the end */
    const char *argument; /* what to call its value in the help; NULL: it takes none */
    const char *help;
};

struct call; /* a command with what the user gave it */

struct command {
    const char *name;
    const char *group;    /* title that the help puts above it; NULL: the one before */
    const char *synopsis; /* its arguments, as the help shows them */
    const char *summary;  /* one line */
    const char *about;    /* more, in lines of up to 100 characters */
    int argument_min, argument_max;
    bool raw; /* takes all of its arguments as they are, options included */
    struct option_spec options[COMMAND_OPTIONS_MAX];
    const char *examples[COMMAND_EXAMPLES_MAX];
    int (*run)(const struct call *call); /* returns the exit code */
};

struct call {
    const struct command *command;
    const char
        *values[COMMAND_OPTIONS_MAX]; /* of the command's options in their order; "" for one without value */
    char **arguments;                 /* what is no option */
    int argument_count;
    bool json;
};

/* The commands; the last one has no name. main.c */
extern const struct command commands[];

/* One function each, in cmd_*.c. */
int cmd_create(const struct call *call);
int cmd_list(const struct call *call);
int cmd_grow(const struct call *call);
int cmd_drop(const struct call *call);
int cmd_access(const struct call *call);
int cmd_put(const struct call *call);
int cmd_get(const struct call *call);
int cmd_del(const struct call *call);
int cmd_scan(const struct call *call);
int cmd_append(const struct call *call);
int cmd_tail(const struct call *call);
int cmd_status(const struct call *call);
int cmd_clients(const struct call *call);
int cmd_verify(const struct call *call);
int cmd_dump(const struct call *call);
int cmd_load(const struct call *call);
int cmd_up(const struct call *call);
int cmd_start(const struct call *call);
int cmd_kill(const struct call *call);
int cmd_down(const struct call *call);
int cmd_bench(const struct call *call);
int cmd_completion(const struct call *call);

#endif
