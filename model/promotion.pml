/* SPDX-License-Identifier: Apache-2.0
 *
 * promotion.pml: the set begins as nodes 0 and 1, node 2 is a learner; a node may come back with an empty directory, as a
 * stranger, and be promoted.
 */
#define SET           3 /* nodes 0, 1 */
#ifndef WIPES
#define WIPES         1
#endif
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
