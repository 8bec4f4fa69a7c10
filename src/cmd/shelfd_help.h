// SPDX-License-Identifier: Apache-2.0
/* shelfd_help.h: `shelfd --help`. */
#ifndef CMD_SHELFD_HELP_H
#define CMD_SHELFD_HELP_H

#include <stdio.h>

void shelfd_help(FILE *out);

#endif
