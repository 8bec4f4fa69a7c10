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
    bool good;         /* all of them */
    uint64_t position; /* of the exchange, as compared */
    char trades_sha256[65];
    struct account sum; /* of all accounts */
};

/* Start with {.good = true}. The first difference of a finding stays, as later ones follow from it; agree() says what was
 * compared, if there was none. */
void finding_begin(struct findings *findings, const char *name);
bool finding_is_good(const struct findings *findings);
__attribute__((format(printf, 2, 3))) void differ(struct findings *findings, const char *format, ...);
__attribute__((format(printf, 2, 3))) void agree(struct findings *findings, const char *format, ...);

/* Compares everything, exact at one moment, and adds what it finds. A result other than OK: the region cannot be read. */
shelf_result exchange_compare(struct store *store, const struct plain *plain, struct findings *findings);

#endif
