// SPDX-License-Identifier: Apache-2.0
//
// The map: extendible hashing in which a key is found by reading four places, each small and in its own lines:
//
//   head        one line, changed only when the directory doubles
//   directory   8 bytes, by the hash's top bits; some KiB for a million keys
//   bucket      one line of 7 slots, by the hash's low bits, in a segment of 256 buckets
//   entry       sizes, key and value in one allocation, read in one piece where it is small
//
// A slot holds 28 bits of the hash (the top ones: tag), so that entries of other keys are practically never read, and
// the bucket knows the entry's size, so that exactly its lines are read (and prefetched). Because the tag includes the
// bits that choose the segment, a segment is split without reading its entries.
//
// An entry lies in the bucket that its hash says, its home, or when that is full in another bucket of the home's group
// of four; the home counts those (`away`), and only when there are some the others are searched.
//
// I1. A directory entry at index i of depth D leads to a segment of depth d <= D whose keys' hashes begin with the top
//     d bits of i; all 2^(D-d) indexes with these bits lead to it.
// I2. A slot's tag is the top of its key's hash; the slot lies in home xor distance, distance < 4.
// I3. A bucket's `away` is the number of slots in its group whose home it is and which lie elsewhere.
// I4. No key is in the map twice.
// I5. The sum of the head's stripes is the number of entries.

#include "structure/map.h"
#include "client/tx_inline.h"

// ---- Refusals -------------------------------------------------------------------------------------------------------

shelf_result map_refuse(struct map map, uint64_t offset, const char *what) {
    return REFUSE(CORRUPT, "region %u, map at %llu: at offset %llu %s", map.place.region,
                  (unsigned long long)map.head, (unsigned long long)offset, what);
}

void map_refuse_head(shelf_map handle) {
    detail_set("there is no map at address %016llx: was it dropped?", (unsigned long long)handle.header);
}

// ---- Entries --------------------------------------------------------------------------------------------------------

// Copies from what is here of the entry, and reads the rest, which no first line can hold, to where it is wanted.
INLINE shelf_result entry_copy(const struct map *map, const struct entry *entry, uint64_t from,
                               unsigned char *to, size_t size) {
    size_t here = from >= entry->have ? 0 : entry->have - from < size ? entry->have - from : size;
    if (here > 0) {
        memcpy(to, entry->bytes + from, here);
    }
    return size > here ? link_read(map->place, entry->offset + from + here, to + here, size - here)
                       : SHELF_OK;
}

shelf_result map_entry_copy(const struct map *map, const struct entry *entry, uint64_t from, void *to,
                            size_t size) {
    return entry_copy(map, entry, from, to, size);
}

INLINE shelf_result value_copy(const struct map *map, const struct entry *entry, void *to, size_t to_max) {
    size_t size = entry->value_size < to_max ? entry->value_size : to_max;
    return entry_copy(map, entry, sizeof(struct map_entry) + entry->key_size, to, size);
}

shelf_result map_value_copy(const struct map *map, const struct entry *entry, void *to, size_t to_max) {
    return value_copy(map, entry, to, to_max);
}

shelf_result map_key_copy(const struct map *map, const struct entry *entry, void *to, size_t to_max) {
    return entry_copy(map, entry, sizeof(struct map_entry), to,
                      entry->key_size < to_max ? entry->key_size : to_max);
}

static shelf_result key_equal_by_pieces(const struct map *map, const struct entry *entry,
                                        const unsigned char *key, bool *ret_equal) {
    *ret_equal = true;
    for (size_t done = 0; *ret_equal && done < entry->key_size; done += MAP_KEY_PIECE) {
        unsigned char piece[MAP_KEY_PIECE];
        size_t size = entry->key_size - done < sizeof(piece) ? entry->key_size - done : sizeof(piece);
        TRY(map_entry_copy(map, entry, sizeof(struct map_entry) + done, piece, size));
        *ret_equal = memcmp(piece, key + done, size) == 0;
    }
    return SHELF_OK;
}

// Keys of 8 bytes and more: words, the last one overlapping. Shorter ones are left to the library.
INLINE bool bytes_equal(const unsigned char *a, const unsigned char *b, size_t size) {
    if (size < 8) {
        return memcmp(a, b, size) == 0;
    }
    uint64_t differs = hash_load_u64(a + size - 8) ^ hash_load_u64(b + size - 8);
    for (size_t at = 0; at + 8 < size; at += 8) {
        differs |= hash_load_u64(a + at) ^ hash_load_u64(b + at);
    }
    return differs == 0;
}

INLINE shelf_result key_equal(const struct map *map, const struct entry *entry, const void *key,
                              size_t key_size, bool *ret_equal) {
    if (__builtin_expect(entry->key_size != key_size, 0)) {
        *ret_equal = false;
        return SHELF_OK;
    }
    if (__builtin_expect(sizeof(struct map_entry) + key_size > entry->have, 0)) {
        return key_equal_by_pieces(map, entry, key, ret_equal);
    }
    *ret_equal = bytes_equal(entry->bytes + sizeof(struct map_entry), key, key_size);
    return SHELF_OK;
}

// ---- Finding --------------------------------------------------------------------------------------------------------

// Searches the bucket that was read for the key with this tag, among the slots of that distance from their home.
static shelf_result bucket_search(const struct map *map, struct spot *spot, unsigned distance, uint64_t tag,
                                  const void *key, size_t key_size, struct entry *ret_entry) {
    for (unsigned match = bucket_match(&spot->bucket, tag); match != 0; match &= match - 1) {
        unsigned slot = (unsigned)__builtin_ctz(match);
        uint64_t word = spot->bucket.slots[slot];
        if (word == 0 || meta_distance(spot->bucket.meta, slot) != distance) {
            continue;
        }
        bool equal;
        TRY(map_entry_read(map, slot_entry(word), meta_units(spot->bucket.meta, slot), ret_entry));
        TRY(key_equal(map, ret_entry, key, key_size, &equal));
        if (equal) {
            spot->slot = slot;
            return SHELF_OK;
        }
    }
    return SHELF_NOT_FOUND;
}

shelf_result map_find(const struct map *map, uint64_t hash, const void *key, size_t key_size,
                      struct spot *ret_spot, struct entry *ret_entry) {
    TRY(map_segment(map, hash, &ret_spot->segment));
    for (unsigned distance = 0; distance < MAP_GROUP; distance++) {
        ret_spot->number = hash_home(hash) ^ distance;
        TRY(map_bucket_read(map, &ret_spot->segment, ret_spot->number, &ret_spot->bucket));
        shelf_result result =
            bucket_search(map, ret_spot, distance, hash_tag(hash), key, key_size, ret_entry);
        if (result != SHELF_NOT_FOUND || (distance == 0 && meta_away(ret_spot->bucket.meta) == 0)) {
            return result;
        }
    }
    return SHELF_NOT_FOUND;
}

// ---- Get ------------------------------------------------------------------------------------------------------------

// A get goes through three stages, of which the latter two each wait for memory once: segment, bucket, entry. They
// handle what is usual, without calls: the key is in the first slot of its home bucket that has its tag, the entry lies
// within one page, nothing is in the way of reading. For everything else they give up, and get_unusual() begins anew.
struct lookup {
    uint64_t hash;
    uint64_t bucket; // offset
    uint64_t entry;  // offset of the candidate; 0: there is no such key, for certain
    unsigned units;  // its size
    bool is_usual;   // has not given up
};

// What the transaction keeps of a map, as its memo. Every get begins with it.
struct lookup_map {
    uint64_t directory;
    uint64_t seed;
    uint64_t shift; // of a hash's upper 63 bits: what is left is the index of its directory entry
};

#define LOOKUP_KEY_MAX   56u
#define LOOKUP_VALUE_MAX 432u // then no entry is so large that its bucket does not say how large
_Static_assert((8u + LOOKUP_KEY_MAX + LOOKUP_VALUE_MAX + MAP_UNIT - 1) / MAP_UNIT <= MAP_UNITS_MAX,
               "see lookup_value()");
// Lines that one key can need: directory, bucket, entry, which may begin anywhere.
#define LOOKUP_LINES (2u + (8u + LOOKUP_KEY_MAX + LOOKUP_VALUE_MAX + 63u) / 64u + 1u)

static __attribute__((noinline)) shelf_result map_keep(shelf_tx *tx, shelf_map handle) {
    struct map map;
    TRY(map_load(tx, handle, &map));
    if (map.directory % 16 == 0) {
        tx_memo_set(tx, &(struct tx_memo){handle.header, {map.directory, map.seed, 63 - map.depth}});
    }
    return SHELF_OK;
}

INLINE struct lookup_map map_kept(const shelf_tx *tx) {
    return (struct lookup_map){tx->memo.words[0], tx->memo.words[1], tx->memo.words[2]};
}

INLINE uint64_t lookup_directory_offset(const struct lookup_map *map, uint64_t hash) {
    return map->directory + (hash >> 1 >> map->shift) * sizeof(uint64_t);
}

INLINE bool lookup_segment(struct tx_window *window, const struct lookup_map *map, struct lookup *lookup) {
    uint64_t offset = lookup_directory_offset(map, lookup->hash);
    struct tx_piece piece;
    if (!tx_piece_open(window, offset, &piece)) {
        return false;
    }
    uint64_t word = shared_load_u64(tx_bytes(window, offset));
    // Of a word that is none, lookup_bucket() finds no bucket.
    uint64_t segment = word & (((uint64_t)1 << 48) - 64);
    lookup->bucket = segment + hash_home(lookup->hash) * sizeof(struct map_bucket);
    return tx_line_close(window, offset, &piece);
}

INLINE bool lookup_bucket(struct tx_window *window, struct lookup *lookup) {
    struct tx_piece piece;
    if (!tx_piece_open(window, lookup->bucket, &piece)) {
        return false;
    }
    const uint8_t *bytes = tx_bytes(window, lookup->bucket);
    map_pair pairs[MAP_PAIRS];
#pragma GCC unroll 4
    for (unsigned i = 0; i < MAP_PAIRS; i++) {
        pairs[i] = shared_load_pair(bytes + i * sizeof(pairs[0]));
    }
    uint64_t match = pairs_match(pairs, hash_tag(lookup->hash));
    // Words again, from memory: pairs[] shall stay in registers.
    uint64_t slot = (uint64_t)__builtin_ctzll(match | 1u << MAP_SLOTS);
    uint64_t word = shared_load_u64(bytes + slot * sizeof(uint64_t));
    uint64_t meta = shared_load_u64(bytes + MAP_SLOTS * sizeof(uint64_t));
    if (!tx_line_close(window, lookup->bucket, &piece) || meta >> 56 != MAP_BUCKET_MARK) {
        return false;
    }
    if (__builtin_expect(match == 0, 0)) {
        lookup->entry = 0;
        lookup->units = 0;
        return meta_away(meta) == 0;
    }
    lookup->entry = slot_entry(word);
    lookup->units = meta_units(meta, (unsigned)slot);
    return lookup->entry != 0;
}

INLINE bool lookup_is_absent(const struct lookup *lookup) {
    return __builtin_expect(lookup->entry == 0, 0);
}

// Is it the key?
INLINE bool key_is(const uint8_t *stored, const unsigned char *key, size_t key_size) {
    if (__builtin_expect(key_size >= 8, 1)) {
        return shared_equal(stored, key, key_size);
    }
    // An aligned word, which may reach beyond the key but not beyond the unit that it lies in.
    uint64_t word = shared_load_u64(stored), wanted = 0;
    memcpy(&wanted, key, key_size);
    return key_size > 0 && (word ^ wanted) << (8 * (8 - key_size)) == 0;
}

// Copies the value of an entry with this key. Nothing is read outside of its page, whatever the entry's sizes say; if its
// bucket says another, get_unusual() finds out what is wrong.
INLINE bool lookup_value(struct tx_window *window, const struct lookup *lookup, const void *key,
                         size_t key_size, unsigned char *value, size_t value_max, size_t *ret_size) {
    uint64_t offset = lookup->entry;
    uint64_t key_at = offset + sizeof(struct map_entry), value_at = key_at + key_size;
    struct tx_piece piece;
    if (!tx_piece_open(window, offset, &piece)) { // its first unit is always in one piece
        return false;
    }
    uint64_t head = shared_load_u64(tx_bytes(window, offset));
    size_t value_size = head >> 32;
    // As the bucket cannot say more than 31 units, value_size is bounded, too.
    if ((uint32_t)head != key_size || value_size > value_max || value_at + value_size > piece.end ||
        offset + lookup->units * MAP_UNIT - (value_at + value_size) >= MAP_UNIT ||
        !key_is(tx_bytes(window, key_at), key, key_size)) {
        return false;
    }
    shared_copy_any(value, tx_bytes(window, value_at), value_size);
    *ret_size = value_size;
    return tx_piece_close(window, offset, value_at + value_size, &piece);
}

static __attribute__((noinline)) shelf_result get_unusual(shelf_tx *tx, shelf_map handle, const void *key,
                                                          size_t key_size, void *value, size_t value_max,
                                                          size_t *ret_size) {
    struct map map;
    struct spot spot;
    struct entry entry;
    TRY(map_load(tx, handle, &map));
    if (key_size - 1 >= MAP_KEY_MAX) {
        return SHELF_NOT_FOUND;
    }
    TRY(map_find(&map, map_hash(map.seed, key, key_size), key, key_size, &spot, &entry));
    TRY(value_copy(&map, &entry, value, value_max));
    *ret_size = entry.value_size;
    return SHELF_OK;
}

shelf_result shelf_map_get(shelf_tx *tx, shelf_map handle, const void *key, size_t key_size, void *value,
                           size_t value_max, size_t *ret_size) {
    struct tx_window window;
    if (__builtin_expect(tx->memo.address != handle.header, 0) && tx_memo_allowed(tx)) {
        TRY(map_keep(tx, handle));
    }
    if (key_size <= LOOKUP_KEY_MAX && tx_window_open(tx, handle.header, LOOKUP_LINES, &window)) {
        struct lookup_map map = map_kept(tx);
        struct lookup lookup = {.hash = map_hash(map.seed, key, key_size)};
        size_t size = 0;
        if (lookup_segment(&window, &map, &lookup) && lookup_bucket(&window, &lookup) &&
            (lookup_is_absent(&lookup) ||
             lookup_value(&window, &lookup, key, key_size, value, value_max, &size)) &&
            tx_window_close(&window)) {
            if (lookup_is_absent(&lookup)) {
                return SHELF_NOT_FOUND;
            }
            *ret_size = size;
            return SHELF_OK;
        }
    }
    return get_unusual(tx, handle, key, key_size, value, value_max, ret_size);
}

// ---- Many at once ---------------------------------------------------------------------------------------------------

// Keys go through the stages side by side, each stage asking for the memory that the next one needs, so that the
// cache misses overlap. As many keys as the processor can have misses under way are enough.
#define MANY                  32u
#define DIRECTORY_DEPTH_SMALL 12u // 32 KiB stay in the caches by themselves

static void many_segments(struct tx_window *window, const struct lookup_map *map,
                          const struct shelf_map_item *items, struct lookup *lookups, size_t count) {
    for (size_t index = 0; index < count; index++) {
        const struct shelf_map_item *item = &items[index];
        bool is_usual = item->key_size <= LOOKUP_KEY_MAX;
        lookups[index] = (struct lookup){.is_usual = is_usual};
        lookups[index].hash = is_usual ? map_hash(map->seed, item->key, item->key_size) : 0;
        if (map->shift < 63 - DIRECTORY_DEPTH_SMALL) {
            tx_line_prefetch(window, lookup_directory_offset(map, lookups[index].hash));
        }
    }
    for (size_t index = 0; index < count; index++) {
        lookups[index].is_usual = lookups[index].is_usual && tx_window_has_room(window, LOOKUP_LINES) &&
                                  lookup_segment(window, map, &lookups[index]);
        tx_line_prefetch(window, lookups[index].bucket);
    }
}

static void many_buckets(struct tx_window *window, struct lookup *lookups, size_t count) {
    for (size_t index = 0; index < count; index++) {
        struct lookup *lookup = &lookups[index];
        lookup->is_usual =
            lookup->is_usual && tx_window_has_room(window, LOOKUP_LINES) && lookup_bucket(window, lookup);
        for (uint64_t offset = lookup->entry; offset < lookup->entry + lookup->units * MAP_UNIT;
             offset += 64) {
            tx_line_prefetch(window, offset);
        }
    }
}

static void many_values(struct tx_window *window, struct lookup *lookups, struct shelf_map_item *items,
                        size_t count) {
    for (size_t index = 0; index < count; index++) {
        struct lookup *lookup = &lookups[index];
        struct shelf_map_item *item = &items[index];
        lookup->is_usual =
            lookup->is_usual && tx_window_has_room(window, LOOKUP_LINES) &&
            (lookup_is_absent(lookup) || lookup_value(window, lookup, item->key, item->key_size, item->value,
                                                      item->value_max, &item->value_size));
        item->result = lookup_is_absent(lookup) ? SHELF_NOT_FOUND : SHELF_OK;
    }
}

// All stages for up to MANY keys. Those that gave up, or all if anything came in the way, are left unusual.
static bool many_lookup(shelf_tx *tx, shelf_map handle, struct shelf_map_item *items, struct lookup *lookups,
                        size_t count) {
    struct tx_window window;
    if (!tx_window_open(tx, handle.header, LOOKUP_LINES, &window)) {
        return false;
    }
    struct lookup_map map = map_kept(tx);
    many_segments(&window, &map, items, lookups, count);
    many_buckets(&window, lookups, count);
    many_values(&window, lookups, items, count);
    return tx_window_close(&window);
}

shelf_result shelf_map_get_many(shelf_tx *tx, shelf_map handle, struct shelf_map_item *items, size_t count) {
    if (tx->memo.address != handle.header) {
        TRY(map_keep(tx, handle)); // with no keys at all, too, the map must be one
    }
    for (size_t done = 0; done < count;) {
        struct lookup lookups[MANY];
        size_t batch = count - done < MANY ? count - done : MANY;
        bool looked = many_lookup(tx, handle, items + done, lookups, batch);
        for (size_t index = 0; index < batch; index++) {
            struct shelf_map_item *item = &items[done + index];
            if (__builtin_expect(looked && lookups[index].is_usual, 1)) {
                continue;
            }
            item->result = get_unusual(tx, handle, item->key, item->key_size, item->value, item->value_max,
                                       &item->value_size);
            if (item->result != SHELF_OK && item->result != SHELF_NOT_FOUND) {
                return item->result;
            }
        }
        done += batch;
    }
    return SHELF_OK;
}
