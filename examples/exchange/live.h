// SPDX-License-Identifier: Apache-2.0
/* live.h: `exchange book --live`. */
#ifndef EXCHANGE_LIVE_H
#define EXCHANGE_LIVE_H

#include "options.h"
#include "store.h"

/* Shows the book again whenever it has changed. Returns the exit code. */
int book_follow(const struct options *options, struct store *store);

#endif
