// SPDX-License-Identifier: Apache-2.0
//
// CRC-32C three ways, chosen when first used.
//
// A CRC is the remainder of the message, read as a polynomial over GF(2), by P. Bits are reflected: the
// lowest bit of a word is its highest power.
//
// Portable: eight bytes a step, each through a table of its own. Remainders of sums are sums of remainders,
// so a table is spanned by its eight entries for single bits, and the compiler works out the rest.
//
// Hardware: one instruction takes eight bytes, but its result is three cycles away while a new one could
// start every cycle. So three adjacent stretches of the message are taken side by side, and joined
// afterwards: the remainder A of a stretch that is followed by n more bytes counts as A * x^8n. Multiplying
// without carries by K = x^(8n - 33) mod P and passing the 64-bit product through the CRC instruction gives
// just that: the product of two reflected 32-bit words sits one power too high in its 64 bits, and the
// instruction multiplies by x^32 before it divides.

#include "base/crc.h"

#include <stdatomic.h>
#include <string.h>

#define ENTRY(byte, b0, b1, b2, b3, b4, b5, b6, b7)                                                      \
    (((byte)&1 ? (b0) : 0u) ^ ((byte)&2 ? (b1) : 0u) ^ ((byte)&4 ? (b2) : 0u) ^ ((byte)&8 ? (b3) : 0u) ^ \
     ((byte)&16 ? (b4) : 0u) ^ ((byte)&32 ? (b5) : 0u) ^ ((byte)&64 ? (b6) : 0u) ^ ((byte)&128 ? (b7) : 0u))
#define ENTRIES_4(byte, ...)                                                                  \
    ENTRY(byte, __VA_ARGS__), ENTRY((byte) + 1, __VA_ARGS__), ENTRY((byte) + 2, __VA_ARGS__), \
        ENTRY((byte) + 3, __VA_ARGS__)
#define ENTRIES_16(byte, ...)                                                                             \
    ENTRIES_4(byte, __VA_ARGS__), ENTRIES_4((byte) + 4, __VA_ARGS__), ENTRIES_4((byte) + 8, __VA_ARGS__), \
        ENTRIES_4((byte) + 12, __VA_ARGS__)
#define ENTRIES_64(byte, ...)                                            \
    ENTRIES_16(byte, __VA_ARGS__), ENTRIES_16((byte) + 16, __VA_ARGS__), \
        ENTRIES_16((byte) + 32, __VA_ARGS__), ENTRIES_16((byte) + 48, __VA_ARGS__)
#define TABLE(...)                                                                             \
    {                                                                                          \
        ENTRIES_64(0, __VA_ARGS__), ENTRIES_64(64, __VA_ARGS__), ENTRIES_64(128, __VA_ARGS__), \
            ENTRIES_64(192, __VA_ARGS__)                                                       \
    }

// table[n][byte] is the remainder of byte followed by n zero bytes.
static const uint32_t table[8][256] = {
    TABLE(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f, 0x20bd8ede, 0x417b1dbc, 0x82f63b78),
    TABLE(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181, 0x7f8be302, 0xff17c604, 0xfbc3faf9),
    TABLE(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a, 0xe144fb14, 0xc76580d9, 0x8b277743),
    TABLE(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d, 0xd725148b, 0xaba65fe7, 0x52a0c93f),
    TABLE(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91, 0x8f2261d3, 0x1ba8b557, 0x37516aae, 0x6ea2d55c),
    TABLE(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f, 0xc00c303e, 0x85f4168d, 0x0e045beb, 0x1c08b7d6),
    TABLE(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53, 0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a, 0xf56e0ef4),
    TABLE(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da, 0x847609b4, 0x0d006599, 0x1a00cb32, 0x34019664),
};

static uint64_t load_u64(const unsigned char *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

uint32_t crc32c_portable(uint32_t seed, const void *data, size_t size) {
    const unsigned char *bytes = data;
    uint32_t crc = ~seed;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t word = load_u64(bytes) ^ crc;
        crc = table[7][word & 0xff] ^ table[6][word >> 8 & 0xff] ^ table[5][word >> 16 & 0xff] ^
              table[4][word >> 24 & 0xff] ^ table[3][word >> 32 & 0xff] ^ table[2][word >> 40 & 0xff] ^
              table[1][word >> 48 & 0xff] ^ table[0][word >> 56];
    }
    for (; size > 0; bytes++, size--) {
        crc = crc >> 8 ^ table[0][(crc ^ *bytes) & 0xff];
    }
    return ~crc;
}

#if defined(__x86_64__)

#include <immintrin.h>

#define HARDWARE      __attribute__((target("sse4.2,pclmul")))
#define HARDWARE_NAME "sse4.2+pclmul"

static int hardware_is_there(void) {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}

HARDWARE static inline uint32_t crc_byte(uint32_t crc, unsigned char byte) {
    return _mm_crc32_u8(crc, byte);
}

HARDWARE static inline uint64_t crc_word(uint64_t crc, uint64_t word) {
    return _mm_crc32_u64(crc, word);
}

HARDWARE static inline uint64_t multiply(uint64_t a, uint32_t b) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)a), _mm_cvtsi32_si128((int)b), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

#elif defined(__aarch64__) && defined(__linux__)

#include <arm_acle.h>
#include <arm_neon.h>
#include <sys/auxv.h>

#define HARDWARE      __attribute__((target("+crc+crypto")))
#define HARDWARE_NAME "armv8 crc+pmull"

static int hardware_is_there(void) {
    const unsigned long pmull = 1ul << 4;
    const unsigned long crc32 = 1ul << 7;
    return (getauxval(AT_HWCAP) & (pmull | crc32)) == (pmull | crc32);
}

HARDWARE static inline uint32_t crc_byte(uint32_t crc, unsigned char byte) {
    return __crc32cb(crc, byte);
}

HARDWARE static inline uint64_t crc_word(uint64_t crc, uint64_t word) {
    return __crc32cd((uint32_t)crc, word);
}

HARDWARE static inline uint64_t multiply(uint64_t a, uint32_t b) {
    return vgetq_lane_u64(vreinterpretq_u64_p128(vmull_p64(a, b)), 0);
}

#endif

#if defined(HARDWARE)

// Three stretches of stretch_size bytes; after_1 and after_2 are K for one and two stretches that follow.
HARDWARE static inline uint64_t crc_three(uint64_t crc, const unsigned char *bytes, size_t stretch_size,
                                          uint32_t after_1, uint32_t after_2) {
    uint64_t first = crc;
    uint64_t second = 0;
    uint64_t third = 0;
    for (const unsigned char *end = bytes + stretch_size; bytes < end; bytes += 8) {
        first = crc_word(first, load_u64(bytes));
        second = crc_word(second, load_u64(bytes + stretch_size));
        third = crc_word(third, load_u64(bytes + 2 * stretch_size));
    }
    return crc_word(0, multiply(first, after_2) ^ multiply(second, after_1)) ^ third;
}

// Three times 1360 is a 4 KiB page but for 16 bytes, three times 168 a sector but for 8.
HARDWARE static uint32_t crc32c_by_hardware(uint32_t seed, const void *data, size_t size) {
    const unsigned char *bytes = data;
    uint64_t crc = ~seed;
    for (; size >= 3 * 1360; bytes += 3 * 1360, size -= 3 * 1360) {
        crc = crc_three(crc, bytes, 1360, 0x3f70cc6f, 0x5aa1f3cf);
    }
    for (; size >= 3 * 168; bytes += 3 * 168, size -= 3 * 168) {
        crc = crc_three(crc, bytes, 168, 0x1b3d8f29, 0xa60ce07b);
    }
    for (; size >= 3 * 40; bytes += 3 * 40, size -= 3 * 40) {
        crc = crc_three(crc, bytes, 40, 0x3da6d0cb, 0x39d3b296);
    }
    for (; size >= 8; bytes += 8, size -= 8) {
        crc = crc_word(crc, load_u64(bytes));
    }
    for (; size > 0; bytes++, size--) {
        crc = crc_byte((uint32_t)crc, *bytes);
    }
    return ~(uint32_t)crc;
}

crc32c_function *crc32c_hardware(void) {
    return hardware_is_there() ? crc32c_by_hardware : NULL;
}

#else

#define HARDWARE_NAME "none"

crc32c_function *crc32c_hardware(void) {
    return NULL;
}

#endif

static crc32c_function crc32c_choose;

// Threads that race to choose choose the same, so relaxed order is enough.
static crc32c_function *_Atomic chosen = crc32c_choose;

static uint32_t crc32c_choose(uint32_t seed, const void *data, size_t size) {
    crc32c_function *function = crc32c_hardware() ? crc32c_hardware() : crc32c_portable;
    atomic_store_explicit(&chosen, function, memory_order_relaxed);
    return function(seed, data, size);
}

uint32_t crc32c(uint32_t seed, const void *data, size_t size) {
    return atomic_load_explicit(&chosen, memory_order_relaxed)(seed, data, size);
}

const char *crc32c_name(void) {
    return crc32c_hardware() ? HARDWARE_NAME : "portable";
}
