// SPDX-License-Identifier: Apache-2.0
/* ladder.h: the prices of one side of the book in order, each with the address of its level. */
#ifndef EXCHANGE_LADDER_H
#define EXCHANGE_LADDER_H

#include <shelf.h>

#include "records.h"

enum ladder_direction { LADDER_UP, LADDER_DOWN };

/* A ladder is known by its address, which never changes. Prices are 0 to PRICE_MAX. */
shelf_result ladder_create(shelf_tx *tx, shelf_region region, shelf_addr *ret_ladder);

/* The entry at `price`, or else the nearest one above it (UP) or below it (DOWN). NOT_FOUND if there is none. */
shelf_result ladder_seek(shelf_tx *tx, shelf_addr ladder, uint32_t price, enum ladder_direction direction,
                         uint32_t *ret_price, shelf_addr *ret_level);

/* `price` must not be there yet / must be there. */
shelf_result ladder_insert(shelf_tx *tx, shelf_region region, shelf_addr ladder, uint32_t price,
                           shelf_addr level);
shelf_result ladder_remove(shelf_tx *tx, shelf_addr ladder, uint32_t price);

#endif
