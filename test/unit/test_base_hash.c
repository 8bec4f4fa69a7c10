// SPDX-License-Identifier: Apache-2.0
//
// The hash: the same for ever, every input bit moves half of the output, few collisions in ordinary sets of
// keys.

#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "cmocka_program.h"

static const char text[] = "One transaction from the call to the disk and back, in reading order; "
                           "a hundred bytes and a bit more.";

static const struct {
    size_t size;
    uint64_t hash;
} golden[] = {
    {0, 0x8100609f7e534cf7u},  {1, 0x998a2a8da83c4587u},  {3, 0xccf6ed9d6eaa34b7u},
    {4, 0xbcdb9587dc77fdeeu},  {8, 0x0baafac8d3704ba1u},  {15, 0xbcf1c006228d5e94u},
    {16, 0xa697b81c0401078fu}, {17, 0xce431091235af8e4u}, {32, 0xc46ba50579b0703bu},
    {33, 0x2aff75242d08d373u}, {48, 0xf12c34584213ab2du}, {100, 0x0903f017d0318fe5u},
};

// Hashes are stored in regions. If this test fails, the function is wrong, not the numbers.
static void test_hash_bytes_golden(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
        uint64_t hash = hash_bytes(7, text, golden[i].size);
        if (hash != golden[i].hash) {
            print_error("size %zu: 0x%016llx\n", golden[i].size, (unsigned long long)hash);
        }
        assert_true(hash == golden[i].hash);
    }
    assert_true(hash_u64(1) == 0xb5129dbb8d1d79c9u);
}

// Flipping any one bit of key or seed flips each output bit about half of the time.
static void avalanche_check(size_t size) {
    enum { ROUNDS = 2000 };
    static uint32_t flips[64];
    unsigned char key[80];
    struct random random;
    random_seed(&random, size);
    for (size_t bit = 0; bit < (size + 8) * 8; bit++) {
        memset(flips, 0, sizeof(flips));
        for (int round = 0; round < ROUNDS; round++) {
            random_fill(&random, key, size);
            uint64_t seed = random_next(&random);
            uint64_t before = hash_bytes(seed, key, size);
            if (bit < size * 8) {
                key[bit / 8] ^= (unsigned char)(1 << bit % 8);
            } else {
                seed ^= 1ull << (bit - size * 8);
            }
            uint64_t changed = before ^ hash_bytes(seed, key, size);
            for (int i = 0; i < 64; i++) {
                flips[i] += (uint32_t)(changed >> i & 1);
            }
        }
        for (int i = 0; i < 64; i++) {
            assert_in_range(flips[i], ROUNDS * 42 / 100, ROUNDS * 58 / 100);
        }
    }
}

static void test_hash_bytes_avalanche(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 4, 7, 8, 12, 16, 17, 24, 32, 33, 48, 49, 72};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        avalanche_check(sizes[i]);
    }
}

static void test_hash_bytes_knows_its_size(void **state) {
    (void)state;
    static const unsigned char zeros[128];
    for (size_t a = 0; a < sizeof(zeros); a++) {
        for (size_t b = 0; b < a; b++) {
            assert_true(hash_bytes(0, zeros, a) != hash_bytes(0, zeros, b));
        }
    }
}

static int compare_u64(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Counted keys must fill buckets like random ones, by their low bits and by their high bits, and never
// collide in full.
static void test_hash_spreads_counted_keys(void **state) {
    (void)state;
    enum { COUNT = 1 << 16 };
    uint64_t *hashes = malloc(COUNT * sizeof(*hashes));
    uint32_t *low = calloc(COUNT, sizeof(*low));
    uint32_t *high = calloc(COUNT, sizeof(*high));
    assert_true(hashes && low && high);
    for (int kind = 0; kind < 3; kind++) {
        memset(low, 0, COUNT * sizeof(*low));
        memset(high, 0, COUNT * sizeof(*high));
        for (uint64_t i = 0; i < COUNT; i++) {
            char key[17];
            snprintf(key, sizeof(key), "key%013llu", (unsigned long long)i);
            uint64_t shifted = i << 40;
            hashes[i] = kind == 0   ? hash_bytes(0, key, 16)
                        : kind == 1 ? hash_u64(i)
                                    : hash_bytes(0, &shifted, 8);
            low[hashes[i] % COUNT]++;
            high[hashes[i] >> 48]++;
        }
        qsort(hashes, COUNT, sizeof(*hashes), compare_u64);
        for (size_t i = 1; i < COUNT; i++) {
            assert_true(hashes[i] != hashes[i - 1]);
        }
        size_t low_empty = 0;
        size_t high_empty = 0;
        for (size_t i = 0; i < COUNT; i++) {
            low_empty += low[i] == 0;
            high_empty += high[i] == 0;
        }
        // One in e stays empty when keys fall at random: 24109 of 65536, give or take 100.
        assert_in_range(low_empty, 23400, 24800);
        assert_in_range(high_empty, 23400, 24800);
    }
    free(hashes);
    free(low);
    free(high);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash_bytes_golden),
        cmocka_unit_test(test_hash_bytes_avalanche),
        cmocka_unit_test(test_hash_bytes_knows_its_size),
        cmocka_unit_test(test_hash_spreads_counted_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
