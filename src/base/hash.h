// SPDX-License-Identifier: Apache-2.0
//
// A fast 64-bit hash of bytes, for hash tables. Hashes are stored in regions, so the function never changes:
// the golden values in its test hold for ever. It is not cryptographic; a table that strangers fill should
// have a secret seed.
//
// How: both factors of a 64 x 64 -> 128 bit multiplication are made from input and secret, and the product's
// halves are folded together, which spreads every input bit over the result. Adding one factor back in keeps
// a factor that happens to be 0 from swallowing the other. Short keys need two multiplications in a row; long
// ones two every 32 bytes, side by side.

#ifndef SHELF_BASE_HASH_H
#define SHELF_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

// The fractional bits of the square roots of 2, 3, 5, 7, made odd.
#define HASH_SECRET_0 0x6a09e667f3bcc909u
#define HASH_SECRET_1 0xbb67ae8584caa73bu
#define HASH_SECRET_2 0x3c6ef372fe94f82bu
#define HASH_SECRET_3 0xa54ff53a5f1d36f1u

static inline uint64_t hash_load_u64(const void *data) {
    uint64_t value;
    memcpy(&value, data, sizeof(value));
    return value;
}

static inline uint64_t hash_load_u32(const void *data) {
    uint32_t value;
    memcpy(&value, data, sizeof(value));
    return value;
}

static inline uint64_t hash_fold(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)a * b;
    return ((uint64_t)product ^ (uint64_t)(product >> 64)) + b;
}

// The last step of every hash: two words of input under the state that the rest left.
static inline uint64_t hash_finish(uint64_t state, uint64_t size, uint64_t a, uint64_t b) {
    uint64_t folded = hash_fold(a ^ HASH_SECRET_0 ^ state, b ^ HASH_SECRET_1);
    return hash_fold(folded ^ HASH_SECRET_2, size ^ state ^ HASH_SECRET_3);
}

uint64_t hash_bytes_long(uint64_t seed, const void *data, size_t size);

static inline uint64_t hash_bytes(uint64_t seed, const void *data, size_t size) {
    const unsigned char *bytes = data;
    if (size > 16) {
        return hash_bytes_long(seed, data, size);
    }
    if (size >= 8) {
        return hash_finish(seed, size, hash_load_u64(bytes), hash_load_u64(bytes + size - 8));
    }
    if (size >= 4) {
        return hash_finish(seed, size, hash_load_u32(bytes), hash_load_u32(bytes + size - 4));
    }
    uint64_t word = 0;
    if (size > 0) {
        word = (uint64_t)bytes[0] << 16 | (uint64_t)bytes[size / 2] << 8 | bytes[size - 1];
    }
    return hash_finish(seed, size, word, 0);
}

// Different values have different hashes: each step can be undone.
static inline uint64_t hash_u64(uint64_t value) {
    value = (value ^ value >> 32) * HASH_SECRET_0;
    value = (value ^ value >> 29) * HASH_SECRET_1;
    return value ^ value >> 32;
}

#endif
