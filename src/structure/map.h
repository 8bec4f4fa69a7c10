// SPDX-License-Identifier: Apache-2.0
//
// The inside of the map, shared by map.c (reads), map_change.c (writes) and map_walk.c (iteration, checks). See map.c.

#ifndef SHELF_STRUCTURE_MAP_H
#define SHELF_STRUCTURE_MAP_H

#include "base/hash.h"
#include "structure/layout.h"
#include "structure/structure.h"

#include <stdbool.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

// A map within a transaction: its head as it was read last.
struct map {
    struct place place;
    uint64_t head; // offset of struct map_head
    uint32_t depth;
    uint64_t directory;
    uint64_t seed;
};

struct segment {
    uint64_t offset;
    uint32_t depth; // how many top bits of the hash its entries share
};

#define MAP_UNIT      16u // entries are measured in these
#define MAP_UNITS_MAX 31u // stands for that many and more

// An entry whose beginning was read: what of it lies in its first line.
struct entry {
    uint64_t offset;
    uint32_t key_size;
    uint32_t value_size;
    uint32_t have; // bytes of the entry that are here
    _Alignas(16) unsigned char bytes[64];
};

// Where a key was found.
struct spot {
    struct segment segment;
    uint32_t number; // of the bucket in the segment
    unsigned slot;
    _Alignas(16) struct map_bucket bucket;
};

// ---- Buckets and slots ----------------------------------------------------------------------------------------------

// Long keys are hashed piece by piece, each with the hash before it as its seed, so that a stored key can be hashed
// without having all of it in memory.
#define MAP_KEY_PIECE 256u
INLINE uint64_t map_hash(uint64_t seed, const void *key, size_t key_size) {
    uint64_t hash = seed;
    const unsigned char *bytes = key;
    for (; __builtin_expect(key_size > MAP_KEY_PIECE, 0); key_size -= MAP_KEY_PIECE, bytes += MAP_KEY_PIECE) {
        hash = hash_bytes(hash, bytes, MAP_KEY_PIECE);
    }
    return hash_bytes(hash, bytes, key_size);
}
static inline uint32_t hash_home(uint64_t hash) {
    return (uint32_t)(hash % MAP_SEGMENT_BUCKETS);
}
static inline uint64_t hash_tag(uint64_t hash) {
    return hash >> 36;
}
static inline uint64_t slot_make(uint64_t tag, uint64_t entry_offset) {
    return tag << 36 | entry_offset / MAP_UNIT;
}
static inline uint64_t slot_tag(uint64_t slot) {
    return slot >> 36;
}
static inline uint64_t slot_entry(uint64_t slot) {
    return (slot & (((uint64_t)1 << 36) - 1)) * MAP_UNIT;
}

static inline uint64_t meta_empty(void) {
    return (uint64_t)MAP_BUCKET_MARK << 56;
}
static inline unsigned meta_units(uint64_t meta, unsigned slot) {
    return (unsigned)(meta >> (slot * 5) & 31);
}
static inline unsigned meta_distance(uint64_t meta, unsigned slot) {
    return (unsigned)(meta >> (35 + slot * 2) & 3);
}
static inline uint64_t meta_set(uint64_t meta, unsigned slot, unsigned units, unsigned distance) {
    meta &= ~((uint64_t)31 << (slot * 5) | (uint64_t)3 << (35 + slot * 2));
    return meta | (uint64_t)units << (slot * 5) | (uint64_t)distance << (35 + slot * 2);
}
static inline unsigned meta_away(uint64_t meta) {
    return (unsigned)(meta >> 49 & 127);
}
#define META_AWAY_ONE ((uint64_t)1 << 49)

// A bucket as vectors, the last of which has the meta word.
#define MAP_PAIRS ((MAP_SLOTS + 1) / 2)
typedef uint64_t map_pair __attribute__((vector_size(16)));

// Bit s: slot s has this tag. Empty slots count as tag 0. Without branches, as nothing can predict them: so the
// processor goes on to the entry, and to what comes after, while the bucket is still on its way from memory.
static inline __attribute__((always_inline)) unsigned pairs_match(const map_pair pairs[MAP_PAIRS],
                                                                  uint64_t tag) {
#ifdef __SSE2__
    __m128i wanted = _mm_set1_epi32((int)tag);
    // The upper halves of four slots each, without their lower 4 bits, are the tags.
    __m128i low =
        _mm_castps_si128(_mm_shuffle_ps((__m128)pairs[0], (__m128)pairs[1], _MM_SHUFFLE(3, 1, 3, 1)));
    __m128i high =
        _mm_castps_si128(_mm_shuffle_ps((__m128)pairs[2], (__m128)pairs[3], _MM_SHUFFLE(3, 1, 3, 1)));
    low = _mm_cmpeq_epi32(_mm_srli_epi32(low, 4), wanted);
    high = _mm_cmpeq_epi32(_mm_srli_epi32(high, 4), wanted);
    __m128i matches = _mm_packs_epi32(low, high);
    return (unsigned)_mm_movemask_epi8(_mm_packs_epi16(matches, matches)) & ((1u << MAP_SLOTS) - 1);
#else
    unsigned match = 0;
    for (unsigned slot = 0; slot < MAP_SLOTS; slot++) {
        match |= (unsigned)(slot_tag(pairs[slot / 2][slot % 2]) == tag) << slot;
    }
    return match;
#endif
}

static inline unsigned bucket_match(const struct map_bucket *bucket, uint64_t tag) {
    map_pair pairs[MAP_PAIRS];
    memcpy(pairs, bucket, sizeof(pairs));
    return pairs_match(pairs, tag);
}

static inline uint64_t entry_size(uint64_t key_size, uint64_t value_size) {
    return sizeof(struct map_entry) + key_size + value_size;
}
static inline unsigned entry_units(uint64_t size) {
    uint64_t units = (size + MAP_UNIT - 1) / MAP_UNIT;
    return units < MAP_UNITS_MAX ? (unsigned)units : MAP_UNITS_MAX;
}

static inline uint64_t bucket_offset(const struct segment *segment, uint32_t number) {
    return segment->offset + number * sizeof(struct map_bucket);
}

// ---- Reading, inline for the sake of map.c's hot path ---------------------------------------------------------------

// Refusals, out of the way. They take the map by value: its address would force it out of the registers.
shelf_result map_refuse(struct map map, uint64_t offset, const char *what);
void map_refuse_head(shelf_map handle);

INLINE shelf_result map_load(shelf_tx *tx, shelf_map handle, struct map *ret_map) {
    uint64_t words[2]; // the beginning of struct map_head
    TRY(shelf_read(tx, handle.header, words, sizeof(words)));
    if (__builtin_expect(words[0] >> 45 != MAP_WORD, 0)) {
        map_refuse_head(handle);
        return SHELF_INVALID;
    }
    ret_map->place.tx = tx;
    ret_map->place.region = shelf_addr_region(handle.header);
    ret_map->head = shelf_addr_offset(handle.header);
    ret_map->depth = (uint32_t)(words[0] >> 40 & 31);
    ret_map->directory = words[0] & (((uint64_t)1 << 40) - 1);
    ret_map->seed = words[1];
    return SHELF_OK;
}

INLINE uint64_t map_directory_offset(const struct map *map, uint64_t hash) {
    uint64_t index = hash >> 1 >> (63 - map->depth); // depth 0: index 0
    return map->directory + index * sizeof(uint64_t);
}

// The segment for the hash.
INLINE shelf_result map_segment(const struct map *map, uint64_t hash, struct segment *ret_segment) {
    uint64_t word;
    uint64_t offset = map_directory_offset(map, hash);
    TRY(link_read(map->place, offset, &word, sizeof(word)));
    ret_segment->offset = word & (((uint64_t)1 << 48) - 1);
    ret_segment->depth = (uint32_t)(word >> 48);
    if (__builtin_expect(ret_segment->offset == 0 || ret_segment->depth > map->depth, 0)) {
        return map_refuse(*map, offset, "the directory has an entry that is none");
    }
    return SHELF_OK;
}

INLINE shelf_result map_bucket_read(const struct map *map, const struct segment *segment, uint32_t number,
                                    struct map_bucket *ret_bucket) {
    uint64_t offset = bucket_offset(segment, number);
    TRY(link_read(map->place, offset, ret_bucket, sizeof(*ret_bucket)));
    if (__builtin_expect(ret_bucket->meta >> 56 != MAP_BUCKET_MARK, 0)) {
        return map_refuse(*map, offset, "there is no bucket");
    }
    return SHELF_OK;
}

INLINE shelf_result map_entry_read(const struct map *map, uint64_t offset, unsigned units,
                                   struct entry *ret_entry) {
    unsigned to_line_end = 64 - (unsigned)offset % 64;
    unsigned have = units * MAP_UNIT < to_line_end ? units * MAP_UNIT : to_line_end;
    TRY(link_read(map->place, offset, ret_entry->bytes, have));
    struct map_entry head;
    memcpy(&head, ret_entry->bytes, sizeof(head)); // for 0 units, which are refused, this is anything
    if (__builtin_expect(units == 0 || head.key_size - 1 >= MAP_KEY_MAX ||
                             head.value_size > SHELF_TX_BYTES_MAX ||
                             entry_units(entry_size(head.key_size, head.value_size)) != units,
                         0)) {
        return map_refuse(*map, offset, "there is no entry of the size that its bucket says");
    }
    ret_entry->offset = offset;
    ret_entry->key_size = head.key_size;
    ret_entry->value_size = head.value_size;
    ret_entry->have = have;
    return SHELF_OK;
}

// ---- map.c ----------------------------------------------------------------------------------------------------------

// Copies `size` bytes of the entry, from byte `from` of it.
shelf_result map_entry_copy(const struct map *map, const struct entry *entry, uint64_t from, void *to,
                            size_t size);
// The key and the value, up to `to_max` bytes of it.
shelf_result map_key_copy(const struct map *map, const struct entry *entry, void *to, size_t to_max);
shelf_result map_value_copy(const struct map *map, const struct entry *entry, void *to, size_t to_max);
// NOT_FOUND (without a detail): no such key.
shelf_result map_find(const struct map *map, uint64_t hash, const void *key, size_t key_size,
                      struct spot *ret_spot, struct entry *ret_entry);

#endif
