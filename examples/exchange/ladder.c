// SPDX-License-Identifier: Apache-2.0
/*
 * ladder.c: an ordered map from prices to levels, on the transaction interface alone.
 *
 * A radix tree of five floors. A price is a number of 30 bits, and each floor decides on six of them: a node has 64
 * slots and a word with one bit for each slot in use, so "the next price up" is one bit instruction. The shape follows
 * from the contents alone; nothing needs to be balanced, and an insert touches only the nodes on its own path. Nodes
 * that become empty are freed, all but the top one.
 *
 *   floor 0      bits 29..24      the top node, which is the ladder's address
 *   ...
 *   floor 4      bits 5..0        slots hold addresses of levels
 */
#include "ladder.h"

#include <stddef.h>

#include "try.h"

#define FLOORS 5u
#define BITS   6u

static unsigned shift_of(unsigned floor) {
    return (FLOORS - 1 - floor) * BITS;
}

static unsigned digit_of(uint32_t price, unsigned floor) {
    return (price >> shift_of(floor)) & (LADDER_FANOUT - 1);
}

static shelf_result used_read(shelf_tx *tx, shelf_addr node, uint64_t *ret_used) {
    return shelf_read(tx, node + offsetof(struct ladder_node, used), ret_used, sizeof(*ret_used));
}

static shelf_result used_write(shelf_tx *tx, shelf_addr node, uint64_t used) {
    return shelf_write(tx, node + offsetof(struct ladder_node, used), &used, sizeof(used));
}

static shelf_addr slot_at(shelf_addr node, unsigned digit) {
    return node + offsetof(struct ladder_node, slots) + digit * sizeof(shelf_addr);
}

static shelf_result slot_read(shelf_tx *tx, shelf_addr node, unsigned digit, shelf_addr *ret_address) {
    return shelf_read(tx, slot_at(node, digit), ret_address, sizeof(*ret_address));
}

static shelf_result slot_set(shelf_tx *tx, shelf_addr node, uint64_t used, unsigned digit,
                             shelf_addr address) {
    TRY(shelf_write(tx, slot_at(node, digit), &address, sizeof(address)));
    return used_write(tx, node, used | UINT64_C(1) << digit);
}

/* Slots that are not in use are never read, so a new node is one word. */
shelf_result ladder_create(shelf_tx *tx, shelf_region region, shelf_addr *ret_ladder) {
    shelf_addr node;
    TRY(shelf_alloc(tx, region, sizeof(struct ladder_node), &node));
    TRY(used_write(tx, node, 0));
    *ret_ladder = node;
    return SHELF_OK;
}

/* The slots that come after `digit` in this direction. */
static uint64_t beyond(uint64_t used, unsigned digit, enum ladder_direction direction) {
    uint64_t bit = UINT64_C(1) << digit;
    return direction == LADDER_UP ? used & ~(bit | (bit - 1)) : used & (bit - 1);
}

/* The first of them; `used` is not 0. */
static unsigned nearest(uint64_t used, enum ladder_direction direction) {
    return (unsigned)(direction == LADDER_UP ? __builtin_ctzll(used) : 63 - __builtin_clzll(used));
}

shelf_result ladder_seek(shelf_tx *tx, shelf_addr ladder, uint32_t price, enum ladder_direction direction,
                         uint32_t *ret_price, shelf_addr *ret_level) {
    shelf_addr path[FLOORS + 1] = {ladder};
    uint64_t used[FLOORS];
    unsigned floor, digit;

    /* Follow the price as far down as it exists. */
    for (floor = 0; floor < FLOORS; floor++) {
        digit = digit_of(price, floor);
        TRY(used_read(tx, path[floor], &used[floor]));
        if (!(used[floor] >> digit & 1))
            break;
        TRY(slot_read(tx, path[floor], digit, &path[floor + 1]));
    }
    if (floor == FLOORS) {
        *ret_price = price;
        *ret_level = path[FLOORS];
        return SHELF_OK;
    }

    /* Back up to the lowest floor with something beyond ... */
    uint64_t rest;
    while ((rest = beyond(used[floor], digit_of(price, floor), direction)) == 0) {
        if (floor-- == 0)
            return SHELF_NOT_FOUND;
    }

    /* ... and from there take the nearest slot all the way down. */
    uint32_t found = price >> shift_of(floor) >> BITS;
    shelf_addr node = path[floor];
    for (;;) {
        digit = nearest(rest, direction);
        found = found << BITS | digit;
        TRY(slot_read(tx, node, digit, &node));
        if (++floor == FLOORS)
            break;
        TRY(used_read(tx, node, &rest));
    }
    *ret_price = found;
    *ret_level = node;
    return SHELF_OK;
}

shelf_result ladder_insert(shelf_tx *tx, shelf_region region, shelf_addr ladder, uint32_t price,
                           shelf_addr level) {
    shelf_addr node = ladder;
    for (unsigned floor = 0;; floor++) {
        unsigned digit = digit_of(price, floor);
        uint64_t used;
        TRY(used_read(tx, node, &used));
        if (floor == FLOORS - 1)
            return slot_set(tx, node, used, digit, level);
        if (used >> digit & 1) {
            TRY(slot_read(tx, node, digit, &node));
        } else {
            shelf_addr child;
            TRY(ladder_create(tx, region, &child));
            TRY(slot_set(tx, node, used, digit, child));
            node = child;
        }
    }
}

shelf_result ladder_remove(shelf_tx *tx, shelf_addr ladder, uint32_t price) {
    shelf_addr path[FLOORS] = {ladder};
    for (unsigned floor = 0; floor + 1 < FLOORS; floor++)
        TRY(slot_read(tx, path[floor], digit_of(price, floor), &path[floor + 1]));

    for (unsigned floor = FLOORS - 1;; floor--) {
        uint64_t used;
        TRY(used_read(tx, path[floor], &used));
        used &= ~(UINT64_C(1) << digit_of(price, floor));
        if (used != 0 || floor == 0)
            return used_write(tx, path[floor], used);
        TRY(shelf_free(tx, path[floor]));
    }
}
