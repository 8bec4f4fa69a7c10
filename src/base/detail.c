// SPDX-License-Identifier: Apache-2.0
/*
 * detail.c: the sentence behind shelf_detail(), in memory of the thread's own.
 */
#include "base/detail.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char detail[256];

void detail_set(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof(detail), format, arguments);
    va_end(arguments);
}

void detail_clear(void) {
    detail[0] = '\0';
}

const char *detail_text(void) {
    return detail;
}
