// SPDX-License-Identifier: Apache-2.0
//
// Arithmetic on sizes and offsets, all of which are 64 bits.

#ifndef SHELF_BASE_BITS_H
#define SHELF_BASE_BITS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

static inline bool is_power_of_two(uint64_t value) {
    return value != 0 && (value & (value - 1)) == 0;
}

// The alignment is a power of two.
static inline uint64_t align_down(uint64_t value, uint64_t alignment) {
    ASSERT(is_power_of_two(alignment));
    return value & ~(alignment - 1);
}

static inline uint64_t align_up(uint64_t value, uint64_t alignment) {
    ASSERT(is_power_of_two(alignment));
    ASSERT(value <= UINT64_MAX - (alignment - 1));
    return (value + (alignment - 1)) & ~(alignment - 1);
}

static inline bool is_aligned(uint64_t value, uint64_t alignment) {
    return align_down(value, alignment) == value;
}

static inline uint64_t divide_up(uint64_t value, uint64_t divisor) {
    ASSERT(divisor != 0);
    return value / divisor + (value % divisor != 0);
}

static inline uint64_t min_u64(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

// The largest n with 2^n <= value, and the smallest n with 2^n >= value.
static inline uint32_t log2_down(uint64_t value) {
    ASSERT(value != 0);
    return 63u - (uint32_t)__builtin_clzll(value);
}

static inline uint32_t log2_up(uint64_t value) {
    return log2_down(value) + !is_power_of_two(value);
}

// Does [offset, offset + size) lie within [0, limit)? Safe for any values, so fit for numbers from outside.
static inline bool range_within(uint64_t offset, uint64_t size, uint64_t limit) {
    return size <= limit && offset <= limit - size;
}

#endif
