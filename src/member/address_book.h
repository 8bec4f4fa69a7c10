// SPDX-License-Identifier: Apache-2.0
/*
 * address_book.h: where the nodes of a cluster are, as their registers say, or as they said when they were last read: then
 * as text, a line each: NODE ADDRESS.
 */
#ifndef MEMBER_ADDRESS_BOOK_H
#define MEMBER_ADDRESS_BOOK_H

#include "core/coordinator.h"
#include "wire/configuration.h"

struct address_book {
    uint32_t count;
    struct node_record records[REGISTERS_MAX]; /* those from text have no incarnation */
};

const struct node_record *address_book_find(const struct address_book *book, uint64_t node);
/* Returns whether that is news. What finds no room is left out. */
bool address_book_set(struct address_book *book, const struct node_record *record);
bool address_book_remove(struct address_book *book, uint64_t node);

/* Lines that make no sense are left out, and what finds no room in the text. */
void address_book_parse(struct address_book *book, const char *text);
void address_book_print(const struct address_book *book, size_t size, char *ret_text);

/* Splits HOST:PORT or [HOST]:PORT. NULL, or what is wrong with it as an address that others are told. */
const char *address_problem(const char *address);

#endif
