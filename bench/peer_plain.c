// SPDX-License-Identifier: Apache-2.0
// peer_plain.c: the floor of the map: a hash table of one process and one thread, with no promise at all.
//
// Buckets of one cache line hold eight words, each a 16-bit tag of the hash and the 48-bit address of a record (sizes,
// key, value in one piece, 64-byte aligned as an allocator of lines would have them); a full bucket overflows into the
// next. Half of the words are in use, so that nearly every lookup costs two misses: its bucket and its record. The
// memory has huge pages if the image of the shelf beside it got them. The value is copied out, as on our side.
#include "bench.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKET_WORDS = 8 };

struct bucket {
    uint64_t words[BUCKET_WORDS]; // 0: empty
} __attribute__((aligned(64)));

struct record {
    uint32_t key_size, value_size;
    unsigned char bytes[]; // the key, then the value
};

struct table {
    struct bucket *buckets;
    uint64_t bucket_mask;
    size_t value_size;
};

// Two multiplications, folded: the keys are 16 bytes, and nobody attacks this table.
static inline uint64_t key_hash(const void *key) {
    uint64_t halves[2];
    memcpy(halves, key, sizeof(halves));
    unsigned __int128 product =
        (unsigned __int128)(halves[0] ^ 0x9e3779b97f4a7c15u) * (halves[1] ^ 0xd1b54a32d192ed03u);
    return (uint64_t)(product >> 64) ^ (uint64_t)product;
}

static inline const struct record *word_record(uint64_t word) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a packed pointer is what makes a bucket one line
    return (const struct record *)(uintptr_t)(word & (((uint64_t)1 << 48) - 1));
}

static void table_put(struct table *t, struct record *r) {
    uint64_t hash = key_hash(r->bytes);
    for (uint64_t b = hash & t->bucket_mask;; b = (b + 1) & t->bucket_mask) {
        for (size_t i = 0; i < BUCKET_WORDS; i++) {
            if (t->buckets[b].words[i] == 0) {
                t->buckets[b].words[i] = (hash >> 48) << 48 | (uintptr_t)r;
                return;
            }
        }
    }
}

// All words of a bucket are compared without a branch: where a key lies in its bucket is anybody's guess, and a guess
// gone wrong would keep the processor from starting the next lookup while this one waits for memory.
static inline unsigned bucket_match(const struct bucket *b, uint64_t hash) {
    unsigned match = 0;
#pragma GCC unroll 8
    for (size_t i = 0; i < BUCKET_WORDS; i++)
        match |= (unsigned)(b->words[i] >> 48 == hash >> 48) << i;
    return match;
}

static inline const struct record *table_find(const struct table *t, const struct key *key) {
    uint64_t hash = key_hash(key);
    for (uint64_t at = hash & t->bucket_mask;; at = (at + 1) & t->bucket_mask) {
        const struct bucket *b = &t->buckets[at];
        for (unsigned match = bucket_match(b, hash); match; match &= match - 1) {
            const struct record *r = word_record(b->words[__builtin_ctz(match)]);
            if (r && r->key_size == KEY_SIZE && memcmp(r->bytes, key, KEY_SIZE) == 0)
                return r;
        }
        if (b->words[BUCKET_WORDS - 1] == 0)
            return NULL;
    }
}

static void *table_open(const struct records *records) {
    bool huge = settings.image_is_huge;
    struct table *t = calloc(1, sizeof(*t));
    if (!t)
        fail("no memory");
    size_t buckets = 1;
    while (buckets * BUCKET_WORDS < records->count * 2)
        buckets *= 2;
    t->bucket_mask = buckets - 1;
    t->value_size = records->value_size;
    if (t->value_size > VALUE_SIZE)
        fail("the plain table takes values of up to %d bytes", VALUE_SIZE);
    t->buckets = memory_make(buckets * sizeof(struct bucket), huge);

    size_t record_size = (sizeof(struct record) + KEY_SIZE + records->value_size + 63) / 64 * 64;
    unsigned char *space = memory_make(records->count * record_size, huge);
    for (size_t i = 0; i < records->count; i++) {
        struct record *r = (void *)(space + i * record_size);
        struct key key = record_key(i);
        r->key_size = KEY_SIZE;
        r->value_size = (uint32_t)records->value_size;
        memcpy(r->bytes, &key, sizeof(key));
        record_value(i, r->bytes + KEY_SIZE, records->value_size);
        table_put(t, r);
    }
    return t;
}

static void table_close(void *database) {
    free(database);
}

static uint64_t table_get(void *database, const struct key *keys, size_t count) {
    const struct table *t = database;
    uint64_t digest = 0;
    unsigned char value[VALUE_SIZE];
    for (size_t i = 0; i < count; i++) {
        const struct record *r = table_find(t, &keys[i]);
        if (!r || r->value_size != t->value_size)
            fail("the plain table has lost a key");
        memcpy(value, r->bytes + KEY_SIZE, r->value_size);
        __asm__ volatile("" : : "r"(value) : "memory");
        digest += value_digest(value, r->value_size);
    }
    return digest;
}

const struct peer peer_plain = {
    .name = "a plain hash table",
    .open = table_open,
    .close = table_close,
    .get = table_get,
};
