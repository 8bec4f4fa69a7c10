// SPDX-License-Identifier: Apache-2.0
/* arguments.h: what the user typed, understood by means of the table of commands. */
#ifndef CMD_ARGUMENTS_H
#define CMD_ARGUMENTS_H

#include <stdint.h>

#include "cmd/command.h"

enum arguments_result {
    ARGUMENTS_RUN,  /* ret_call is filled */
    ARGUMENTS_HELP, /* --help was asked for */
    ARGUMENTS_WRONG /* a message was printed */
};

/* `argv[0]` is the command's name. Reorders argv. */
enum arguments_result arguments_parse(const struct command *command, int argc, char **argv,
                                      struct call *ret_call);

const struct command *command_find(const char *name);
/* The command of the most similar name; NULL if none is close. */
const struct command *command_suggest(const char *name);

/* The value of an option, "" if it takes none, NULL if it was not given. */
const char *call_option(const struct call *call, const char *name);
/* The argument at that place; NULL if there are fewer. */
const char *call_argument(const struct call *call, int place);

#endif
