// SPDX-License-Identifier: Apache-2.0
//
// See random.h.

#include "base/random.h"

#include <string.h>

#include "base/assert.h"

static uint64_t rotate_left(uint64_t value, uint32_t count) {
    return value << count | value >> (64 - count);
}

static uint64_t splitmix_next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void random_seed(struct random *random, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        random->state[i] = splitmix_next(&seed);
    }
}

uint64_t random_next(struct random *random) {
    uint64_t *s = random->state;
    uint64_t result = rotate_left(s[1] * 5, 7) * 9;
    uint64_t shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate_left(s[3], 45);
    return result;
}

// The high half of number * count is uniform once the few numbers are left out that would make some results
// more likely than others: those whose low half is below 2^64 mod count.
uint64_t random_below(struct random *random, uint64_t count) {
    ASSERT(count != 0);
    unsigned __int128 product = (unsigned __int128)random_next(random) * count;
    if ((uint64_t)product < count) {
        uint64_t left_out = -count % count;
        while ((uint64_t)product < left_out) {
            product = (unsigned __int128)random_next(random) * count;
        }
    }
    return (uint64_t)(product >> 64);
}

uint64_t random_between(struct random *random, uint64_t low, uint64_t high) {
    ASSERT(low <= high);
    uint64_t count = high - low + 1;
    return count == 0 ? random_next(random) : low + random_below(random, count);
}

bool random_chance(struct random *random, uint64_t numerator, uint64_t denominator) {
    return random_below(random, denominator) < numerator;
}

void random_fill(struct random *random, void *data, size_t size) {
    unsigned char *bytes = data;
    while (size > 0) {
        uint64_t number = random_next(random);
        size_t part = size < sizeof(number) ? size : sizeof(number);
        memcpy(bytes, &number, part);
        bytes += part;
        size -= part;
    }
}
