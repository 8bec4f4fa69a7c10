// SPDX-License-Identifier: Apache-2.0
/* detail.h: the sentence behind shelf_detail(), one a thread. */
#ifndef BASE_DETAIL_H
#define BASE_DETAIL_H

/* printf-like; cut at 255 bytes. Never users' data. */
void detail_set(const char *format, ...) __attribute__((format(printf, 1, 2)));
void detail_clear(void);
const char *detail_text(void); /* valid until the thread's next detail_set() */

#endif
