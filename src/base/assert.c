// SPDX-License-Identifier: Apache-2.0
//
// What happens when an assertion fails. The only place where the library writes to stderr.

#include "base/assert.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

static shelf_assert_handler *_Atomic handler_current;

static void report(const char *file, int line, const char *expression) {
    fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expression);
}

void shelf_assert_handler_set(shelf_assert_handler *handler) {
    atomic_store_explicit(&handler_current, handler, memory_order_release);
}

void shelf_assert_failed(const char *file, int line, const char *expression) {
    shelf_assert_handler *handler = atomic_load_explicit(&handler_current, memory_order_acquire);
    (handler ? handler : report)(file, line, expression);
    abort();
}
