// SPDX-License-Identifier: Apache-2.0
/* compare.h: compares what is in a region with what the same events lead to in ordinary memory. */
#ifndef EXCHANGE_COMPARE_H
#define EXCHANGE_COMPARE_H

#include <stdbool.h>

#include "plain.h"
#include "store.h"

struct finding {
    const char *name;
    bool good;
    char detail[256]; /* the first difference, or what was compared */
};

#define FINDINGS_MAX 8u

struct findings {
    struct finding list[FINDINGS_MAX];
    unsigned count;
    bool good; /* all of them */
    char trades_sha256[65];
    struct account sum; /* of all accounts */
};

/* Compares everything, exact at one moment. A result other than OK: the region cannot be read. */
shelf_result exchange_compare(struct store *store, const struct plain *plain, struct findings *ret_findings);

#endif
