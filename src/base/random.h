// SPDX-License-Identifier: Apache-2.0
//
// Pseudo-random numbers for simulation, tests, benchmarks and back-off: the same seed gives the same numbers
// everywhere and for ever. Not for secrets. The generator is xoshiro256**, seeded through splitmix64 as its
// authors advise.

#ifndef SHELF_BASE_RANDOM_H
#define SHELF_BASE_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// One generator belongs to one thread.
struct random {
    uint64_t state[4];
};

void random_seed(struct random *random, uint64_t seed);
uint64_t random_next(struct random *random);

// Uniform in [0, count), without bias; count is not 0.
uint64_t random_below(struct random *random, uint64_t count);

// Uniform in [low, high], both included.
uint64_t random_between(struct random *random, uint64_t low, uint64_t high);

// True numerator times out of denominator.
bool random_chance(struct random *random, uint64_t numerator, uint64_t denominator);

void random_fill(struct random *random, void *data, size_t size);

#endif
