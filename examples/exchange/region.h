// SPDX-License-Identifier: Apache-2.0
/* region.h: the few steps that every region needs, whatever is kept in it. */
#ifndef EXCHANGE_REGION_H
#define EXCHANGE_REGION_H

#include <shelf.h>
#include <stdbool.h>

/* Opens a region; with `create`, one that is not there yet is made. Of several that make it at once one does, and all
 * have it. */
shelf_result region_take(shelf *s, const char *name, uint64_t size, bool create, shelf_region *ret_region);

/* It is full: make it twice as large. Addresses and handles stay valid. */
shelf_result region_double(shelf *s, shelf_region region);

shelf_result root_add(shelf_tx *tx, shelf_region region, const char *name, uint64_t type, uint64_t layout,
                      shelf_addr address);

#endif
