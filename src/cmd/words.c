// SPDX-License-Identifier: Apache-2.0
/* words.c: see words.h. */
#include "cmd/words.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

/* Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other. */
static size_t word_distance(const char *a, const char *b) {
    size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > WORD_MAX || b_length > WORD_MAX) {
        return WORD_MAX;
    }
    size_t rows[WORD_MAX + 1][WORD_MAX + 1];
    for (size_t i = 0; i <= a_length; i++) {
        for (size_t j = 0; j <= b_length; j++) {
            if (i == 0 || j == 0) {
                rows[i][j] = i + j;
                continue;
            }
            size_t replaced = rows[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            rows[i][j] = min_u64(replaced, min_u64(rows[i - 1][j], rows[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                rows[i][j] = min_u64(rows[i][j], rows[i - 2][j - 2] + 1);
            }
        }
    }
    return rows[a_length][b_length];
}

bool word_is_close(const char *typed, const char *word, size_t *best) {
    size_t distance = word_distance(typed, word);
    if (distance >= *best || distance > strlen(word) / 2) {
        return false;
    }
    *best = distance;
    return true;
}

/* A number; *ret_rest is what follows it. */
static bool number_parse(const char *text, uint64_t *ret_number, const char **ret_rest) {
    char *end;
    if (!isdigit((unsigned char)text[0])) {
        return false;
    }
    errno = 0;
    *ret_number = strtoull(text, &end, 10);
    *ret_rest = end;
    return errno == 0;
}

bool size_parse(const char *text, uint64_t *ret_size) {
    static const char units[] = "KMGT";
    const char *rest;
    uint64_t size;
    if (!number_parse(text, &size, &rest)) {
        return false;
    }
    unsigned shift = 0;
    if (*rest != 0) {
        const char *unit = strchr(units, toupper((unsigned char)*rest));
        if (!unit || rest[1] != 0) {
            return false;
        }
        shift = 10 * ((unsigned)(unit - units) + 1);
    }
    if (size > UINT64_MAX >> shift) {
        return false;
    }
    *ret_size = size << shift;
    return true;
}

bool time_parse(const char *text, uint64_t *ret_ms) {
    static const struct {
        const char *name;
        uint64_t ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    const char *rest;
    uint64_t number;
    if (!number_parse(text, &number, &rest)) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
        if (strcmp(rest, units[i].name) == 0 && number <= UINT64_MAX / units[i].ms) {
            *ret_ms = number * units[i].ms;
            return true;
        }
    }
    return false;
}
