// SPDX-License-Identifier: Apache-2.0
//
// A doubly linked list whose links live inside the listed structures. The list owns nothing.
//
// I1  A head and the links of its members form one ring in both directions.
// I2  A link that is in no list is a ring of its own (so unlinking it again does no harm), or has never been
// initialised.

#ifndef SHELF_BASE_LIST_H
#define SHELF_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next;
    struct list *previous;
};

// The structure that contains this link.
#define LIST_ENTRY(link, type, member) ((type *)(void *)((char *)(link)-offsetof(type, member)))

// The body may unlink the current link, and no other.
// NOLINTBEGIN(bugprone-macro-parentheses): link is a name to declare, not an expression.
#define LIST_FOREACH(link, head)                                                      \
    for (struct list *link = (head)->next, *link##_next = link->next; link != (head); \
         link = link##_next, link##_next = link->next)
// NOLINTEND(bugprone-macro-parentheses)

static inline void list_init(struct list *link) {
    link->next = link;
    link->previous = link;
}

static inline bool list_is_empty(const struct list *head) {
    return head->next == head;
}

static inline void list_insert_between(struct list *link, struct list *previous, struct list *next) {
    link->previous = previous;
    link->next = next;
    previous->next = link;
    next->previous = link;
}

static inline void list_push_front(struct list *head, struct list *link) {
    list_insert_between(link, head, head->next);
}

static inline void list_push_back(struct list *head, struct list *link) {
    list_insert_between(link, head->previous, head);
}

static inline void list_unlink(struct list *link) {
    link->previous->next = link->next;
    link->next->previous = link->previous;
    list_init(link);
}

// The first or last link, NULL when there is none.
static inline struct list *list_first(const struct list *head) {
    // The analyzer does not see that a member which was unlinked and freed in a loop is not the first one any more.
    return list_is_empty(head) ? NULL : head->next; // NOLINT(clang-analyzer-unix.Malloc)
}

static inline struct list *list_last(const struct list *head) {
    return list_is_empty(head) ? NULL : head->previous;
}

static inline struct list *list_pop_front(struct list *head) {
    struct list *link = list_first(head);
    if (link) {
        list_unlink(link);
    }
    return link;
}

#endif
