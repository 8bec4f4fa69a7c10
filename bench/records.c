// SPDX-License-Identifier: Apache-2.0
// records.c: the records that all databases are compared with. Keys and values are functions of the record's position,
// so that every side stores the same and any of them can be asked for any.
#include "bench.h"

#include <stdlib.h>
#include <string.h>

struct key record_key(size_t position) {
    uint64_t halves[2] = {mix64(position), mix64(~(uint64_t)position)};
    struct key key;
    memcpy(key.bytes, halves, sizeof(key.bytes));
    return key;
}

void record_value(size_t position, void *value, size_t size) {
    unsigned char *to = value;
    for (size_t at = 0; at < size; at += 8) {
        uint64_t word = mix64(position + at * 0x9e3779b97f4a7c15u);
        memcpy(to + at, &word, size - at < 8 ? size - at : 8);
    }
}

struct lookups lookups_make(const struct records *records, size_t count, uint64_t seed) {
    struct lookups l = {malloc(count * sizeof(struct key)), count};
    if (!l.keys)
        fail("no memory for %zu keys", count);
    struct random random;
    random_seed(&random, seed);
    for (size_t i = 0; i < count; i++)
        l.keys[i] = record_key(random_below(&random, records->count));
    return l;
}
