// SPDX-License-Identifier: Apache-2.0
//
// The hash of more than 16 bytes; see hash.h.

#include "base/hash.h"

#include "base/assert.h"

uint64_t hash_bytes_long(uint64_t seed, const void *data, size_t size) {
    ASSERT(size > 16);
    const unsigned char *bytes = data;
    const unsigned char *last = bytes + size - 16;
    uint64_t left = seed;
    uint64_t right = seed ^ HASH_SECRET_3;

    for (; last - bytes > 16; bytes += 32) {
        left =
            hash_fold(hash_load_u64(bytes) ^ HASH_SECRET_0 ^ left, hash_load_u64(bytes + 8) ^ HASH_SECRET_1);
        right = hash_fold(hash_load_u64(bytes + 16) ^ HASH_SECRET_2 ^ right,
                          hash_load_u64(bytes + 24) ^ HASH_SECRET_3);
    }
    if (last > bytes) {
        left =
            hash_fold(hash_load_u64(bytes) ^ HASH_SECRET_0 ^ left, hash_load_u64(bytes + 8) ^ HASH_SECRET_1);
    }
    // The last 16 bytes, which may overlap the ones already in.
    uint64_t state = left ^ (right << 23 | right >> 41);
    return hash_finish(state, size, hash_load_u64(last), hash_load_u64(last + 8));
}
