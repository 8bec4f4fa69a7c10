/* SPDX-License-Identifier: Apache-2.0
 *
 * takeover.pml: the set stays as it is; takeovers and restarts follow on one another.
 */
#define SET           7 /* nodes 0, 1, 2 */
#ifndef EPOCHS
#define EPOCHS        3
#endif
#ifndef TAKEOVERS
#define TAKEOVERS     EPOCHS
#endif
#ifndef CRASHES
#define CRASHES       2
#endif
#ifndef CLIENTS
#define CLIENTS       1
#endif
#define CLIENT_EPOCHS 1
#define CHANGES       0
#define RECORDS       5
#define ALIKE
#include "cluster.h"
