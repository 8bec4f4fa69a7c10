// SPDX-License-Identifier: Apache-2.0
//
// Base64 with padding (RFC 4648, section 4), as JSON carries bytes.

#ifndef SHELF_BASE_BASE64_H
#define SHELF_BASE_BASE64_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Characters that `size` bytes become, without a NUL.
#define BASE64_SIZE(size) (((size) + 2) / 3 * 4)

// Writes BASE64_SIZE(size) characters and a NUL.
void base64_encode(const void *bytes, size_t size, char *ret_text);

// False, and nothing is known of ret_bytes: the text is not base64 in its one right spelling, or is more than size_max bytes.
bool base64_decode(const char *text, size_t text_size, void *ret_bytes, size_t size_max, size_t *ret_size);

#endif
