// SPDX-License-Identifier: Apache-2.0
/* try.h: hand a failed result to the caller. Inside a transaction nothing needs to be undone: the caller aborts it. */
#ifndef EXCHANGE_TRY_H
#define EXCHANGE_TRY_H

#include <shelf.h>

#define TRY(call)                         \
    do {                                  \
        shelf_result try_result = (call); \
        if (try_result != SHELF_OK)       \
            return try_result;            \
    } while (0)

#endif
