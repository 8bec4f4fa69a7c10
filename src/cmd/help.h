// SPDX-License-Identifier: Apache-2.0
/* help.h: help texts, made from the table of commands. */
#ifndef CMD_HELP_H
#define CMD_HELP_H

#include <stdio.h>

#include "cmd/command.h"

/* What there is; everything. */
void help_short(FILE *out);
void help_program(FILE *out);
void help_command(FILE *out, const struct command *command);

#endif
