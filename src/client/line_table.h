// SPDX-License-Identifier: Apache-2.0
/*
 * line_table.h: a hash table from line numbers to positions, that is emptied at no cost.
 *
 * Open addressing, at most half full. A slot counts only if it carries the present generation, so emptying is counting
 * up; and a table that was once large is used in smaller and smaller part, so that what fits into cache stays there.
 */
#ifndef CLIENT_LINE_TABLE_H
#define CLIENT_LINE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct line_slot {
    uint64_t line;
    uint32_t generation;
    uint32_t position;
};

/* All zero is a valid empty table. */
struct line_table {
    struct line_slot *slots;
    size_t capacity; /* slots there are: a power of two */
    size_t mask;     /* slots in use, less one */
    size_t count;
    uint32_t generation; /* never 0 once there are slots */
};

#define LINE_TABLE_NONE UINT32_MAX

/* Fibonacci hashing (the high bits of the product are the well mixed ones) of eight lines at a time: lines that follow one
 * another are mostly used together, and so are their slots. */
static inline size_t line_table_start(const struct line_table *table, uint64_t line) {
    uint64_t eight = ((line >> 3) * 0x9e3779b97f4a7c15u) >> 32;
    return (size_t)(eight << 3 | (line & 7)) & table->mask;
}

/* The position of the line, or LINE_TABLE_NONE. */
static inline uint32_t line_table_find(const struct line_table *table, uint64_t line) {
    if (table->count == 0)
        return LINE_TABLE_NONE;
    for (size_t i = line_table_start(table, line);; i = (i + 1) & table->mask) {
        const struct line_slot *slot = &table->slots[i];
        if (slot->generation != table->generation)
            return LINE_TABLE_NONE;
        if (slot->line == line)
            return slot->position;
    }
}

/* Makes room for `more` lines; false: no memory, and the table is as it was. */
bool line_table_reserve(struct line_table *table, size_t more);
/* The line is not in the table, and room was reserved. */
void line_table_add(struct line_table *table, uint64_t line, uint32_t position);
void line_table_clear(struct line_table *table);
void line_table_free(struct line_table *table);

#endif
