// SPDX-License-Identifier: Apache-2.0
/* detail.h: the sentence behind shelf_detail(), one a thread. */
#ifndef CLIENT_DETAIL_H
#define CLIENT_DETAIL_H

/* printf-like; cut at 255 bytes. Never users' data. */
void detail_set(const char *format, ...) __attribute__((format(printf, 1, 2)));
void detail_clear(void);

#endif
