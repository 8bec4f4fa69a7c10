// SPDX-License-Identifier: Apache-2.0
/*
 * shared_copy.h: the reader's half of the seqlock of wire/image.h: bytes that may change while they are copied.
 *
 * What was copied counts only after the version was found unchanged, so the copy may be torn in any way but must really
 * happen between the two looks at the version:
 *
 *   - Every access is volatile, so the compiler neither drops, repeats nor invents one, and moves none across the
 *     acquire load before or the acquire fence after it. On x86-64 loads are not reordered with loads, whatever their
 *     width and alignment; so the copy may use whole vectors.
 *   - On other processors, and under sanitizers (ThreadSanitizer is to see that both sides are atomic), the copy is made of
 *     relaxed atomic words, bytes at the edges.
 */
#ifndef CLIENT_SHARED_COPY_H
#define CLIENT_SHARED_COPY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "wire/limits.h"

#if defined(__SANITIZE_THREAD__)
#define SHARED_THREAD_SANITIZER 1
#define SHARED_SANITIZER        1
#elif defined(__SANITIZE_ADDRESS__)
#define SHARED_SANITIZER 1 /* is to see the caller's buffer written */
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SHARED_THREAD_SANITIZER 1
#define SHARED_SANITIZER        1
#elif __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SHARED_SANITIZER 1
#endif
#endif

/* ThreadSanitizer knows no fences; it runs on processors on which this one is a matter of the compiler alone. */
static inline void shared_fence_acquire(void) {
#ifdef SHARED_THREAD_SANITIZER
    atomic_signal_fence(memory_order_acquire);
#else
    atomic_thread_fence(memory_order_acquire);
#endif
}

/* Two words, for comparisons side by side. */
typedef uint64_t shared_pair __attribute__((vector_size(16)));

#if defined(__x86_64__) && !defined(SHARED_SANITIZER)

typedef shared_pair shared_vector __attribute__((aligned(1), may_alias));
typedef uint64_t shared_u64 __attribute__((aligned(1), may_alias));
typedef uint32_t shared_u32 __attribute__((aligned(1), may_alias));

// NOLINTBEGIN(bugprone-macro-parentheses): a type cannot be in parentheses
#define SHARED_MOVE(type, at)                                           \
    do {                                                                \
        type shared_move_value = *(const volatile type *)(from + (at)); \
        *(type *)(to + (at)) = shared_move_value;                       \
    } while (0)
// NOLINTEND(bugprone-macro-parentheses)

/* All of a line, from bias + address. Loads first, so that none waits for a store; the sum is left to the loads. */
static inline __attribute__((always_inline)) void shared_copy_line(uint8_t *to, uintptr_t bias,
                                                                   uint64_t address) {
    __asm__ volatile("movups (%[bias],%[address]), %%xmm0\n\t"
                     "movups 16(%[bias],%[address]), %%xmm1\n\t"
                     "movups 32(%[bias],%[address]), %%xmm2\n\t"
                     "movups 48(%[bias],%[address]), %%xmm3\n\t"
                     "movups %%xmm0, (%[to])\n\t"
                     "movups %%xmm1, 16(%[to])\n\t"
                     "movups %%xmm2, 32(%[to])\n\t"
                     "movups %%xmm3, 48(%[to])"
                     :
                     : [to] "r"(to), [bias] "r"(bias), [address] "r"(address)
                     : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
}

/* 1 to 64 bytes, as two or four pieces that may overlap. The last bytes come last: a load of them that follows can then be
 * served from the store, whereas one from two stores has to wait until both are through. */
static inline __attribute__((always_inline)) void shared_copy(uint8_t *to, const uint8_t *from, size_t size) {
    if (size > 16) {
        if (size > 32) {
            SHARED_MOVE(shared_vector, 16);
            SHARED_MOVE(shared_vector, size - 32);
        }
        SHARED_MOVE(shared_vector, 0);
        SHARED_MOVE(shared_vector, size - 16);
    } else if (size >= 8) {
        SHARED_MOVE(shared_u64, 0);
        SHARED_MOVE(shared_u64, size - 8);
    } else if (size >= 4) {
        SHARED_MOVE(shared_u32, 0);
        SHARED_MOVE(shared_u32, size - 4);
    } else {
        SHARED_MOVE(uint8_t, 0);
        SHARED_MOVE(uint8_t, size / 2);
        SHARED_MOVE(uint8_t, size - 1);
    }
}

/* 0 to any number of bytes. */
static inline __attribute__((always_inline)) void shared_copy_any(uint8_t *to, const uint8_t *from,
                                                                  size_t size) {
    for (; __builtin_expect(size > 128, 0); size -= 16, to += 16, from += 16)
        SHARED_MOVE(shared_vector, 0);
    if (size > 64) {
        SHARED_MOVE(shared_vector, 0);
        SHARED_MOVE(shared_vector, 16);
        SHARED_MOVE(shared_vector, 32);
        SHARED_MOVE(shared_vector, 48);
        to += size;
        from += size;
        SHARED_MOVE(shared_vector, -64);
        SHARED_MOVE(shared_vector, -48);
        SHARED_MOVE(shared_vector, -32);
        SHARED_MOVE(shared_vector, -16);
    } else if (size > 0) {
        shared_copy(to, from, size);
    }
}

#undef SHARED_MOVE

/* Two aligned words. */
static inline __attribute__((always_inline)) shared_pair shared_load_pair(const uint8_t *from) {
    return *(const volatile shared_vector *)from;
}

/* Are 8 and more bytes the same as those of `mine`? By words, the last of which may overlap the one before. */
static inline __attribute__((always_inline)) bool shared_equal(const uint8_t *from, const uint8_t *mine,
                                                               size_t size) {
    uint64_t differs = *(const volatile shared_u64 *)from ^ *(const shared_u64 *)mine;
    differs |= *(const volatile shared_u64 *)(from + size - 8) ^ *(const shared_u64 *)(mine + size - 8);
    for (size_t at = 8; __builtin_expect(at + 8 < size, 0); at += 8)
        differs |= *(const volatile shared_u64 *)(from + at) ^ *(const shared_u64 *)(mine + at);
    return differs == 0;
}

/* Relaxed loads and comparisons, in one instruction each, which compilers do not make of atomic ones. */
static inline __attribute__((always_inline)) bool shared_u64_is(const _Atomic uint64_t *word,
                                                                uint64_t value) {
    bool same;
    __asm__ volatile("cmpq %[value], %[word]"
                     : "=@cce"(same)
                     : [value] "r"(value), [word] "m"(*word)
                     : "memory");
    return same;
}
static inline __attribute__((always_inline)) bool shared_item_is(const _Atomic uint64_t *items,
                                                                 uint64_t index, uint64_t value) {
    bool same;
    __asm__ volatile("cmpq %[value], (%[items],%[index],8)"
                     : "=@cce"(same)
                     : [value] "r"(value), [items] "r"(items), [index] "r"(index)
                     : "memory");
    return same;
}
static inline __attribute__((always_inline)) bool shared_u32_is(const _Atomic uint32_t *word,
                                                                uint32_t value) {
    bool same;
    __asm__ volatile("cmpl %[value], %[word]"
                     : "=@cce"(same)
                     : [value] "ri"(value), [word] "m"(*word)
                     : "memory");
    return same;
}

/* Not shared; here because it is for the same reason not left to the compiler. */
static inline __attribute__((always_inline)) void private_pointer_advance(uint64_t **pointer) {
    __asm__("addq $8, %[pointer]" : [pointer] "+m"(*pointer) : : "cc");
}

#else

static inline void private_pointer_advance(uint64_t **pointer) {
    ++*pointer;
}

static inline void shared_copy(uint8_t *to, const uint8_t *from, size_t size) {
    size_t at = 0;
    while (at < size) {
        const uint8_t *source = from + at;
        if (((uintptr_t)source & 7) == 0 && size - at >= 8) {
            uint64_t word = __atomic_load_n((const uint64_t *)(const void *)source, __ATOMIC_RELAXED);
            memcpy(to + at, &word, sizeof(word));
            at += 8;
        } else {
            to[at++] = __atomic_load_n(source, __ATOMIC_RELAXED);
        }
    }
}
static inline void shared_copy_any(uint8_t *to, const uint8_t *from, size_t size) {
    shared_copy(to, from, size);
}
static inline shared_pair shared_load_pair(const uint8_t *from) {
    const uint64_t *words = (const uint64_t *)(const void *)from;
    return (shared_pair){__atomic_load_n(words, __ATOMIC_RELAXED),
                         __atomic_load_n(words + 1, __ATOMIC_RELAXED)};
}
static inline bool shared_equal(const uint8_t *from, const uint8_t *mine, size_t size) {
    uint8_t differs = 0;
    for (size_t at = 0; at < size; at++)
        differs |= (uint8_t)(__atomic_load_n(from + at, __ATOMIC_RELAXED) ^ mine[at]);
    return differs == 0;
}
static inline void shared_copy_line(uint8_t *to, uintptr_t bias, uint64_t address) {
    shared_copy(to, (const uint8_t *)(bias + address), LINE_SIZE); // NOLINT(performance-no-int-to-ptr)
}

static inline bool shared_u64_is(const _Atomic uint64_t *word, uint64_t value) {
    return atomic_load_explicit(word, memory_order_relaxed) == value;
}
static inline bool shared_item_is(const _Atomic uint64_t *items, uint64_t index, uint64_t value) {
    return shared_u64_is(&items[index], value);
}
static inline bool shared_u32_is(const _Atomic uint32_t *word, uint32_t value) {
    return atomic_load_explicit(word, memory_order_relaxed) == value;
}

#endif

/* An aligned word. */
static inline __attribute__((always_inline)) uint64_t shared_load_u64(const uint8_t *from) {
    return __atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_RELAXED);
}

#endif
