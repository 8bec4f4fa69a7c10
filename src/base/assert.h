// SPDX-License-Identifier: Apache-2.0
//
// Assertions, which stay on in releases: a program that goes on after a broken invariant writes the damage to
// disk. They are for bugs only. Bytes from a disk, a peer or a caller are checked and refused, never
// asserted; a full disk is an outcome and a failed write is a fault, not a bug.

#ifndef SHELF_BASE_ASSERT_H
#define SHELF_BASE_ASSERT_H

#define STATIC_ASSERT(condition, reason) _Static_assert(condition, reason)

#define ASSERT(condition) \
    (__builtin_expect(!!(condition), 1) ? (void)0 : shelf_assert_failed(__FILE__, __LINE__, #condition))

// A place that no execution reaches.
#define UNREACHABLE(reason) shelf_assert_failed(__FILE__, __LINE__, reason)

// Calls the handler and then aborts, also when the handler returns.
_Noreturn void shelf_assert_failed(const char *file, int line, const char *expression) __attribute__((cold));

// The handler may leave by longjmp (tests do) or add what it knows to the report. It is called by the thread
// that found the bug, with whatever locks that thread holds. NULL restores the default, which prints one line
// to stderr.
typedef void shelf_assert_handler(const char *file, int line, const char *expression);
void shelf_assert_handler_set(shelf_assert_handler *handler);

#endif
