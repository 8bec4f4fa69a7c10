// SPDX-License-Identifier: Apache-2.0
//
// See base64.h.

#include "base/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *bytes, size_t size, char *ret_text) {
    const uint8_t *at = bytes;
    while (size > 0) {
        size_t part = size < 3 ? size : 3;
        uint32_t word = (uint32_t)at[0] << 16;
        word |= part > 1 ? (uint32_t)at[1] << 8 : 0;
        word |= part > 2 ? at[2] : 0;
        *ret_text++ = digits[word >> 18];
        *ret_text++ = digits[word >> 12 & 63];
        *ret_text++ = part > 1 ? digits[word >> 6 & 63] : '=';
        *ret_text++ = part > 2 ? digits[word & 63] : '=';
        at += part;
        size -= part;
    }
    *ret_text = 0;
}

// The value of a digit; 64: it is none.
static uint32_t digit_value(char digit) {
    if (digit >= 'A' && digit <= 'Z') {
        return (uint32_t)(digit - 'A');
    }
    if (digit >= 'a' && digit <= 'z') {
        return (uint32_t)(digit - 'a') + 26;
    }
    if (digit >= '0' && digit <= '9') {
        return (uint32_t)(digit - '0') + 52;
    }
    return digit == '+' ? 62 : digit == '/' ? 63 : 64;
}

// Three bytes, or fewer in the last group. Returns how many; 0: wrong.
static size_t group_decode(const char *text, bool last, uint8_t ret_bytes[3]) {
    size_t count = last && text[3] == '=' ? text[2] == '=' ? 1 : 2 : 3;
    uint32_t word = 0;
    for (size_t i = 0; i < 4; i++) {
        uint32_t value = i <= count ? digit_value(text[i]) : 0;
        if (value > 63) {
            return 0;
        }
        word = word << 6 | value;
    }
    ret_bytes[0] = (uint8_t)(word >> 16);
    ret_bytes[1] = (uint8_t)(word >> 8);
    ret_bytes[2] = (uint8_t)word;
    // Bits beyond the last byte are zero in the right spelling.
    bool right = count == 3 || (count == 2 ? ret_bytes[2] == 0 : ret_bytes[1] == 0 && ret_bytes[2] == 0);
    return right ? count : 0;
}

bool base64_decode(const char *text, size_t text_size, void *ret_bytes, size_t size_max, size_t *ret_size) {
    uint8_t *to = ret_bytes;
    size_t size = 0;
    if (text_size % 4 != 0) {
        return false;
    }
    for (size_t at = 0; at < text_size; at += 4) {
        uint8_t group[3];
        size_t count = group_decode(text + at, at + 4 == text_size, group);
        if (count == 0 || count > size_max - size) {
            return false;
        }
        for (size_t i = 0; i < count; i++) {
            to[size++] = group[i];
        }
    }
    *ret_size = size;
    return true;
}
