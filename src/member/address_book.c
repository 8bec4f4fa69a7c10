// SPDX-License-Identifier: Apache-2.0
/* address_book.c: see address_book.h. */
#include "member/address_book.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Its place; `count` if it is not there. */
static uint32_t place(const struct address_book *book, uint64_t node) {
    uint32_t at = 0;
    while (at < book->count && book->records[at].node != node) {
        at++;
    }
    return at;
}

const struct node_record *address_book_find(const struct address_book *book, uint64_t node) {
    uint32_t at = place(book, node);
    return at < book->count ? &book->records[at] : NULL;
}

bool address_book_set(struct address_book *book, const struct node_record *record) {
    uint32_t at = place(book, record->node);
    const struct node_record *known = at < book->count ? &book->records[at] : NULL;
    if (known && strcmp(known->address, record->address) == 0 &&
        memcmp(known->incarnation, record->incarnation, sizeof(known->incarnation)) == 0) {
        return false;
    }
    if (at == REGISTERS_MAX) {
        return false;
    }
    book->count = at < book->count ? book->count : at + 1;
    book->records[at] = *record;
    return true;
}

bool address_book_remove(struct address_book *book, uint64_t node) {
    uint32_t at = place(book, node);
    if (at == book->count) {
        return false;
    }
    book->records[at] = book->records[--book->count];
    return true;
}

/* ---- As text ------------------------------------------------------------------------------------------------------- */

static void line_parse(struct address_book *book, char *line) {
    struct node_record record = {0};
    char *end;
    errno = 0;
    record.node = strtoull(line, &end, 10);
    if (errno != 0 || line[0] < '0' || line[0] > '9' || *end != ' ' || strlen(end + 1) >= NODE_ADDRESS_MAX) {
        return;
    }
    (void)snprintf(record.address, sizeof(record.address), "%s", end + 1);
    if (!node_record_problem(&record)) {
        (void)address_book_set(book, &record);
    }
}

void address_book_parse(struct address_book *book, const char *text) {
    char line[NODE_ADDRESS_MAX + 32];
    while (*text) {
        size_t length = strcspn(text, "\n");
        if (length < sizeof(line)) {
            memcpy(line, text, length);
            line[length] = 0;
            line_parse(book, line);
        }
        text += length + (text[length] == '\n');
    }
}

void address_book_print(const struct address_book *book, size_t size, char *ret_text) {
    size_t used = 0;
    ret_text[0] = 0;
    for (uint32_t i = 0; i < book->count; i++) {
        char line[NODE_ADDRESS_MAX + 32];
        int length = snprintf(line, sizeof(line), "%llu %s\n", (unsigned long long)book->records[i].node,
                              book->records[i].address);
        if (used + (size_t)length < size) {
            memcpy(ret_text + used, line, (size_t)length + 1);
            used += (size_t)length;
        }
    }
}

/* ---- Addresses ----------------------------------------------------------------------------------------------------- */

const char *address_problem(const char *address) {
    const char *colon = strrchr(address, ':');
    struct node_record record = {.node = 1};
    if (strlen(address) >= sizeof(record.address)) {
        return "it is too long";
    }
    (void)snprintf(record.address, sizeof(record.address), "%s", address);
    if (node_record_problem(&record) || !colon || colon == address) {
        return "write HOST:PORT, as other nodes reach this one";
    }
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || port > 65535) {
        return "its port is no number up to 65535";
    }
    size_t host = (size_t)(colon - address);
    bool everywhere = (host == 7 && memcmp(address, "0.0.0.0", host) == 0) ||
                      (host == 4 && memcmp(address, "[::]", host) == 0) || (host == 1 && address[0] == '*');
    return everywhere ? "others are told it, so it must say which of this machine's addresses" : NULL;
}
