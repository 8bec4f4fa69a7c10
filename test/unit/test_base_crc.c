// SPDX-License-Identifier: Apache-2.0
//
// CRC-32C: the vectors of RFC 3720 B.4, and all implementations against the definition, bit by bit. With the
// argument "speed" it measures instead.

#include "base/crc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/random.h"
#include "cmocka_program.h"

static crc32c_function *const public_function = crc32c;

// Straight from the definition: one bit after the other, reflected.
static uint32_t crc32c_defined(uint32_t seed, const void *data, size_t size) {
    const unsigned char *bytes = data;
    uint32_t crc = ~seed;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
        }
    }
    return ~crc;
}

static void vectors_check(crc32c_function *function) {
    unsigned char bytes[32];
    memset(bytes, 0, sizeof(bytes));
    assert_int_equal(function(0, bytes, 32), 0x8a9136aa);
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(function(0, bytes, 32), 0x62a8ab43);
    for (unsigned char i = 0; i < 32; i++) {
        bytes[i] = i;
    }
    assert_int_equal(function(0, bytes, 32), 0x46dd794e);
    for (unsigned char i = 0; i < 32; i++) {
        bytes[i] = (unsigned char)(31 - i);
    }
    assert_int_equal(function(0, bytes, 32), 0x113fdb5c);

    static const unsigned char read_command[48] = {
        0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, 0x28, [40] = 0x02,
    };
    assert_int_equal(function(0, read_command, 48), 0xd9963a56);
    assert_int_equal(function(0, "123456789", 9), 0xe3069283);
    assert_int_equal(function(0, "", 0), 0);
    assert_int_equal(function(0x12345678, "", 0), 0x12345678);
}

// Every size up to beyond two of the hardware's largest steps' edges, at every alignment in turn, cut in two.
static void random_check(crc32c_function *function) {
    static unsigned char bytes[16384 + 8];
    struct random random;
    random_seed(&random, 1);
    random_fill(&random, bytes, sizeof(bytes));
    for (size_t size = 0; size < 1200; size++) {
        const unsigned char *start = bytes + size % 8;
        assert_int_equal(function(0, start, size), crc32c_defined(0, start, size));
    }
    for (int i = 0; i < 1500; i++) {
        const unsigned char *start = bytes + random_below(&random, 8);
        size_t size = random_below(&random, 16384);
        size_t cut = random_below(&random, size + 1);
        uint32_t seed = (uint32_t)random_next(&random);
        uint32_t expected = crc32c_defined(seed, start, size);
        assert_int_equal(function(seed, start, size), expected);
        assert_int_equal(function(function(seed, start, cut), start + cut, size - cut), expected);
    }
}

static void test_crc32c_vectors(void **state) {
    (void)state;
    vectors_check(public_function);
    vectors_check(crc32c_portable);
    if (crc32c_hardware()) {
        vectors_check(crc32c_hardware());
    }
}

static void test_crc32c_portable_as_defined(void **state) {
    (void)state;
    random_check(crc32c_portable);
}

static void test_crc32c_in_use_as_defined(void **state) {
    (void)state;
    random_check(public_function);
}

// Not only the remainder of random bytes: each single bit that flips must show.
static void test_crc32c_notices_each_flipped_bit(void **state) {
    (void)state;
    static unsigned char page[4096];
    struct random random;
    random_seed(&random, 2);
    random_fill(&random, page, sizeof(page));
    uint32_t expected = crc32c(0, page, sizeof(page));
    for (size_t bit = 0; bit < sizeof(page) * 8; bit++) {
        page[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_not_equal(crc32c(0, page, sizeof(page)), expected);
        page[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void speed_print(const char *name, crc32c_function *function, size_t size) {
    static unsigned char bytes[1 << 20];
    uint64_t count = (1ull << 30) / size;
    uint32_t crc = 0;
    double start = seconds_now();
    for (uint64_t i = 0; i < count; i++) {
        crc = function(crc, bytes, size);
    }
    double seconds = seconds_now() - start;
    printf("%-16s %8zu B  %6.2f GB/s  %7.1f ns  (%08x)\n", name, size,
           (double)(count * size) / seconds * 1e-9, seconds / (double)count * 1e9, crc);
}

static int speed(void) {
    static const size_t sizes[] = {16, 64, 256, 512, 4096, 65536, 1 << 20};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        speed_print(crc32c_name(), public_function, sizes[i]);
        speed_print("portable", crc32c_portable, sizes[i]);
    }
    return 0;
}

int main(int count, char **arguments) {
    if (count == 2 && strcmp(arguments[1], "speed") == 0) {
        return speed();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_vectors),
        cmocka_unit_test(test_crc32c_portable_as_defined),
        cmocka_unit_test(test_crc32c_in_use_as_defined),
        cmocka_unit_test(test_crc32c_notices_each_flipped_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
