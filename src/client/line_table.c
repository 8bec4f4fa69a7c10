// SPDX-License-Identifier: Apache-2.0
/*
 * line_table.c: growth of the hash table; see line_table.h.
 */
#include "client/line_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { SLOTS_MIN = 64 };

static void generation_next(struct line_table *table) {
    if (++table->generation == 0) {
        memset(table->slots, 0, table->capacity * sizeof(table->slots[0]));
        table->generation = 1;
    }
}

static void slot_put(struct line_table *table, uint64_t line, uint32_t position) {
    size_t i = line_table_start(table, line);
    while (table->slots[i].generation == table->generation)
        i = (i + 1) & table->mask;
    table->slots[i] = (struct line_slot){.line = line, .generation = table->generation, .position = position};
}

/* Moves everything into a new array of `slots`; a much larger one that was in use in small part is given back. */
static bool table_resize(struct line_table *table, size_t slots) {
    struct line_table larger = {.capacity = slots, .mask = slots - 1, .count = table->count, .generation = 1};
    larger.slots = calloc(slots, sizeof(larger.slots[0]));
    if (!larger.slots)
        return false;
    if (table->slots && table->count > 0) {
        for (size_t i = 0; i <= table->mask; i++) {
            const struct line_slot *slot = &table->slots[i];
            if (slot->generation == table->generation)
                slot_put(&larger, slot->line, slot->position);
        }
    }
    free(table->slots);
    *table = larger;
    return true;
}

bool line_table_reserve(struct line_table *table, size_t more) {
    size_t slots = table->slots ? table->mask + 1 : SLOTS_MIN;
    while (slots / 2 < table->count + more)
        slots *= 2;
    if (table->slots && slots == table->mask + 1)
        return true;
    if (table->slots && table->count == 0 && slots <= table->capacity) {
        table->mask = slots - 1;
        return true;
    }
    return table_resize(table, slots);
}

void line_table_add(struct line_table *table, uint64_t line, uint32_t position) {
    ASSERT(table->slots && table->count < (table->mask + 1) / 2);
    slot_put(table, line, position);
    table->count++;
}

void line_table_clear(struct line_table *table) {
    if (!table->slots)
        return;
    generation_next(table);
    /* Use less of it if little of it was needed this time. */
    size_t slots = table->mask + 1;
    if (table->count < slots / 16)
        table->mask = (slots / 8 > SLOTS_MIN ? slots / 8 : SLOTS_MIN) - 1;
    table->count = 0;
}

void line_table_free(struct line_table *table) {
    free(table->slots);
    *table = (struct line_table){0};
}
