/* SPDX-License-Identifier: Apache-2.0
 *
 * change.pml: the primary changes the set, to any set that has it, takeovers come between.
 */
#define SET           7 /* nodes 0, 1, 2 */
#ifndef EPOCHS
#define EPOCHS        4
#endif
#ifndef TAKEOVERS
#define TAKEOVERS     2
#endif
#ifndef CHANGES
#define CHANGES       2
#endif
#ifndef CRASHES
#define CRASHES       2
#endif
#ifndef CLIENTS
#define CLIENTS       1
#endif
#define CLIENT_EPOCHS 1
#define RECORDS       5
#include "cluster.h"
