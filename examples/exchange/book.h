// SPDX-License-Identifier: Apache-2.0
/* book.h: the best prices of both sides, and how they are shown. */
#ifndef EXCHANGE_BOOK_H
#define EXCHANGE_BOOK_H

#include <stdbool.h>
#include <stddef.h>

#include "store.h"

#define DEPTH_MAX 1000u

struct ladder_view { /* the best levels of one side, best first */
    struct level levels[DEPTH_MAX];
    size_t count;
};

struct book_view {
    uint64_t index; /* that all of it was read at */
    struct state state;
    struct ladder_view sides[2];
    bool traded;
    struct trade last;
};

/* The book as of one moment. `ret_view` is undefined after a failure. */
shelf_result book_look(const struct store *store, size_t depth, struct book_view *ret_view);

void book_json(const struct book_view *view);  /* one line */
void book_print(const struct book_view *view); /* a table */

#endif
