// SPDX-License-Identifier: Apache-2.0
//
// What goes through all of a map: open, count, iteration, drop, verification. See map.c for the structure and its
// invariants, which map_verify checks one by one.
//
// Segments are visited in the order of the hashes' top bits, buckets and slots in their own. A cursor is a place in
// that order, so that it stays good while entries are deleted, and also when the directory doubles; entries that a
// split moves within a segment may be met twice or not at all if entries are put in between two steps.

#include "structure/alloc.h"
#include "structure/map.h"
#include "structure/roots.h"

// ---- Open and count -------------------------------------------------------------------------------------------------

shelf_result shelf_map_open(shelf_tx *tx, shelf_region region, const char *name, shelf_map *ret_map) {
    shelf_map handle;
    struct map map;
    TRY(shelf_root_get(tx, region, name, MAP_MAGIC, 0, &handle.header));
    shelf_result result =
        shelf_addr_region(handle.header) == region ? map_load(tx, handle, &map) : SHELF_INVALID;
    if (result == SHELF_INVALID) {
        return REFUSE(CORRUPT, "region %u: the root \"%s\" is a map's and leads to none", region, name);
    }
    TRY(result);
    struct map_head head;
    TRY(place_read(map.place, map.head, &head, sizeof(head)));
    if (head.magic != MAP_MAGIC || map.depth > MAP_DEPTH_MAX || map.directory == 0) {
        return REFUSE(CORRUPT, "region %u: the head of the map \"%s\" contradicts itself", region, name);
    }
    if (head.format != MAP_FORMAT) {
        return REFUSE(FORMAT, "the map \"%s\" has format %u, this program knows %u", name, head.format,
                      MAP_FORMAT);
    }
    *ret_map = handle;
    return SHELF_OK;
}

shelf_result shelf_map_count(shelf_tx *tx, shelf_map handle, uint64_t *ret_count) {
    struct map map;
    struct map_stripe stripes[MAP_STRIPES];
    TRY(map_load(tx, handle, &map));
    TRY(place_read(map.place, map.head + sizeof(struct map_head), stripes, sizeof(stripes)));
    uint64_t count = 0;
    for (unsigned stripe = 0; stripe < MAP_STRIPES; stripe++) {
        count += stripes[stripe].count;
    }
    *ret_count = count;
    return SHELF_OK;
}

// ---- Iteration ------------------------------------------------------------------------------------------------------

// state[0]: first hash of the segment; state[1]: place in it, bucket * 8 + slot; state[2]: 1 past the end.

// The first hash behind the segment; false: it was the last.
static bool segment_next(const struct segment *segment, uint64_t hash, uint64_t *ret_hash) {
    if (segment->depth == 0) {
        return false;
    }
    uint64_t width = (uint64_t)1 << (64 - segment->depth);
    *ret_hash = (hash & ~(width - 1)) + width;
    return *ret_hash != 0;
}

static void bucket_prefetch(const struct map *map, const struct map_bucket *bucket) {
    for (unsigned slot = 0; slot < MAP_SLOTS; slot++) {
        if (bucket->slots[slot] != 0) {
            shelf_prefetch(map->place.tx, shelf_addr_make(map->place.region, slot_entry(bucket->slots[slot])),
                           meta_units(bucket->meta, slot) * MAP_UNIT);
        }
    }
}

// The next taken slot of the segment at or after `place`; NOT_FOUND: there is none.
static shelf_result slot_next(const struct map *map, const struct segment *segment, uint64_t *place,
                              struct map_bucket *ret_bucket) {
    while (*place < MAP_SEGMENT_BUCKETS * 8) {
        TRY(map_bucket_read(map, segment, (uint32_t)(*place / 8), ret_bucket));
        if (*place % 8 == 0) {
            bucket_prefetch(map, ret_bucket);
        }
        for (; *place % 8 < MAP_SLOTS; ++*place) {
            if (ret_bucket->slots[*place % 8] != 0) {
                return SHELF_OK;
            }
        }
        *place = (*place / 8 + 1) * 8;
    }
    return SHELF_NOT_FOUND;
}

// Moves on to the next entry. NOT_FOUND: that was the last.
static shelf_result entry_next(const struct map *map, struct shelf_map_cursor *cursor,
                               struct entry *ret_entry) {
    while (cursor->state[2] == 0) {
        struct segment segment;
        struct map_bucket bucket;
        TRY(map_segment(map, cursor->state[0], &segment));
        shelf_result result = slot_next(map, &segment, &cursor->state[1], &bucket);
        if (result == SHELF_OK) {
            unsigned slot = cursor->state[1] % 8;
            cursor->state[1]++;
            return map_entry_read(map, slot_entry(bucket.slots[slot]), meta_units(bucket.meta, slot),
                                  ret_entry);
        }
        if (result != SHELF_NOT_FOUND) {
            return result;
        }
        cursor->state[1] = 0;
        cursor->state[2] = !segment_next(&segment, cursor->state[0], &cursor->state[0]);
    }
    return SHELF_NOT_FOUND;
}

shelf_result shelf_map_next(shelf_tx *tx, shelf_map handle, struct shelf_map_cursor *cursor, void *key,
                            size_t key_max, size_t *ret_key_size, void *value, size_t value_max,
                            size_t *ret_value_size) {
    struct map map;
    struct entry entry;
    struct shelf_map_cursor next = *cursor;
    TRY(map_load(tx, handle, &map));
    TRY(entry_next(&map, &next, &entry));
    TRY(map_key_copy(&map, &entry, key, key_max));
    TRY(map_value_copy(&map, &entry, value, value_max));
    *ret_key_size = entry.key_size;
    *ret_value_size = entry.value_size;
    *cursor = next;
    return SHELF_OK;
}

// ---- Drop -----------------------------------------------------------------------------------------------------------

static shelf_result entries_free(const struct map *map) {
    struct shelf_map_cursor cursor = {{0}};
    struct entry entry;
    for (;;) {
        shelf_result result = entry_next(map, &cursor, &entry);
        if (result == SHELF_NOT_FOUND) {
            return SHELF_OK;
        }
        TRY(result);
        TRY(shelf_free(map->place.tx, shelf_addr_make(map->place.region, entry.offset)));
    }
}

static shelf_result segments_free(const struct map *map) {
    uint64_t hash = 0;
    struct segment segment;
    do {
        TRY(map_segment(map, hash, &segment));
        TRY(shelf_free(map->place.tx, shelf_addr_make(map->place.region, segment.offset)));
    } while (segment_next(&segment, hash, &hash));
    return SHELF_OK;
}

shelf_result shelf_map_drop(shelf_tx *tx, shelf_region region, const char *name) {
    shelf_map handle;
    struct map map;
    TRY(shelf_map_open(tx, region, name, &handle));
    TRY(map_load(tx, handle, &map));
    TRY(entries_free(&map));
    TRY(segments_free(&map));
    TRY(shelf_free(tx, shelf_addr_make(region, map.directory)));
    uint64_t no_word = 0; // handles that others still have are told
    TRY(place_write(map.place, map.head, &no_word, sizeof(no_word)));
    TRY(shelf_free(tx, handle.header));
    return shelf_root_remove(tx, region, name);
}

// ---- Verification ---------------------------------------------------------------------------------------------------

static size_t piece_size(const struct entry *entry, size_t done) {
    size_t left = entry->key_size - done;
    return left < MAP_KEY_PIECE ? left : MAP_KEY_PIECE;
}

static shelf_result entry_hash(const struct map *map, const struct entry *entry, uint64_t *ret_hash) {
    uint64_t hash = map->seed;
    for (size_t done = 0; done < entry->key_size; done += MAP_KEY_PIECE) {
        unsigned char piece[MAP_KEY_PIECE];
        size_t size = piece_size(entry, done);
        TRY(map_entry_copy(map, entry, sizeof(struct map_entry) + done, piece, size));
        hash = hash_bytes(hash, piece, size);
    }
    *ret_hash = hash;
    return SHELF_OK;
}

static shelf_result entries_key_equal(const struct map *map, const struct entry *a, const struct entry *b,
                                      bool *ret_equal) {
    *ret_equal = a->key_size == b->key_size;
    for (size_t done = 0; *ret_equal && done < a->key_size; done += MAP_KEY_PIECE) {
        unsigned char a_piece[MAP_KEY_PIECE];
        unsigned char b_piece[MAP_KEY_PIECE];
        size_t size = piece_size(a, done);
        TRY(map_entry_copy(map, a, sizeof(struct map_entry) + done, a_piece, size));
        TRY(map_entry_copy(map, b, sizeof(struct map_entry) + done, b_piece, size));
        *ret_equal = memcmp(a_piece, b_piece, size) == 0;
    }
    return SHELF_OK;
}

// I2, I1 for the entry's own hash, and that the entry lies in an allocation that is large enough.
static shelf_result slot_verify(const struct map *map, const struct segment *segment, uint64_t prefix,
                                uint32_t number, const struct map_bucket *bucket, unsigned slot,
                                struct entry *ret_entry) {
    uint64_t word = bucket->slots[slot];
    uint64_t at = bucket_offset(segment, number);
    TRY(map_entry_read(map, slot_entry(word), meta_units(bucket->meta, slot), ret_entry));
    uint64_t hash;
    TRY(entry_hash(map, ret_entry, &hash));
    if (slot_tag(word) != hash_tag(hash)) {
        return map_refuse(*map, at, "a slot's tag is not that of its key");
    }
    if (segment->depth > 0 && hash >> (64 - segment->depth) != prefix >> (64 - segment->depth)) {
        return map_refuse(*map, at, "there is a key that belongs into another segment");
    }
    if ((hash_home(hash) ^ meta_distance(bucket->meta, slot)) != number) {
        return map_refuse(*map, at, "there is a key that belongs into another bucket");
    }
    size_t size;
    shelf_result result =
        shelf_alloc_size(map->place.tx, shelf_addr_make(map->place.region, ret_entry->offset), &size);
    if (result == SHELF_INVALID ||
        (result == SHELF_OK && entry_size(ret_entry->key_size, ret_entry->value_size) > size)) {
        return map_refuse(*map, ret_entry->offset, "an entry does not lie in an allocation of its own");
    }
    return result;
}

// I4 within a group: does an earlier slot hold the same key?
static shelf_result unique_verify(const struct map *map, const struct map_bucket group[MAP_GROUP],
                                  unsigned position, const struct entry *entry) {
    uint64_t word = group[position / MAP_SLOTS].slots[position % MAP_SLOTS];
    for (unsigned other = 0; other < position; other++) {
        const struct map_bucket *bucket = &group[other / MAP_SLOTS];
        uint64_t other_word = bucket->slots[other % MAP_SLOTS];
        if (other_word == 0 || slot_tag(other_word) != slot_tag(word)) {
            continue;
        }
        struct entry other_entry;
        bool equal;
        TRY(map_entry_read(map, slot_entry(other_word), meta_units(bucket->meta, other % MAP_SLOTS),
                           &other_entry));
        TRY(entries_key_equal(map, entry, &other_entry, &equal));
        if (equal) {
            return map_refuse(*map, entry->offset, "a key is in the map twice");
        }
    }
    return SHELF_OK;
}

static shelf_result group_verify(const struct map *map, const struct segment *segment, uint64_t prefix,
                                 uint32_t first, uint64_t *entries) {
    struct map_bucket group[MAP_GROUP];
    unsigned away[MAP_GROUP] = {0};
    for (unsigned index = 0; index < MAP_GROUP; index++) {
        TRY(map_bucket_read(map, segment, first + index, &group[index]));
    }
    for (unsigned position = 0; position < MAP_GROUP * MAP_SLOTS; position++) {
        unsigned index = position / MAP_SLOTS;
        unsigned slot = position % MAP_SLOTS;
        struct entry entry;
        if (group[index].slots[slot] == 0) {
            continue;
        }
        TRY(slot_verify(map, segment, prefix, first + index, &group[index], slot, &entry));
        TRY(unique_verify(map, group, position, &entry));
        unsigned distance = meta_distance(group[index].meta, slot);
        away[index ^ distance] += distance != 0;
        ++*entries;
    }
    for (unsigned index = 0; index < MAP_GROUP; index++) { // I3
        if (away[index] != meta_away(group[index].meta)) {
            return map_refuse(*map, bucket_offset(segment, first + index),
                              "a bucket counts its entries elsewhere wrongly");
        }
    }
    return SHELF_OK;
}

// I1: all entries of the directory that share the segment's top bits lead to it.
static shelf_result directory_verify(const struct map *map, const struct segment *segment, uint64_t hash) {
    uint64_t step = map->depth > 0 ? (uint64_t)1 << (64 - map->depth) : 0;
    uint64_t end;
    bool more = segment_next(segment, hash, &end);
    for (uint64_t at = hash + step; step != 0 && (more ? at < end : at != 0); at += step) {
        struct segment same;
        TRY(map_segment(map, at, &same));
        if (same.offset != segment->offset || same.depth != segment->depth) {
            return map_refuse(*map, map->directory, "the directory's entries of one segment differ");
        }
    }
    return SHELF_OK;
}

static shelf_result segment_verify(const struct map *map, const struct segment *segment, uint64_t hash,
                                   uint64_t *entries) {
    size_t size;
    shelf_result result =
        shelf_alloc_size(map->place.tx, shelf_addr_make(map->place.region, segment->offset), &size);
    if (result == SHELF_INVALID || (result == SHELF_OK && size < MAP_SEGMENT_SIZE)) {
        return map_refuse(*map, segment->offset, "a segment does not lie in an allocation of its own");
    }
    TRY(result);
    TRY(directory_verify(map, segment, hash));
    for (uint32_t first = 0; first < MAP_SEGMENT_BUCKETS; first += MAP_GROUP) {
        TRY(group_verify(map, segment, hash, first, entries));
    }
    return SHELF_OK;
}

shelf_result shelf_map_verify(shelf_tx *tx, shelf_map handle) {
    struct map map;
    uint64_t count;
    TRY(map_load(tx, handle, &map));
    TRY(shelf_map_count(tx, handle, &count));
    uint64_t entries = 0;
    uint64_t hash = 0;
    struct segment segment;
    do {
        TRY(map_segment(&map, hash, &segment));
        TRY(segment_verify(&map, &segment, hash, &entries));
    } while (segment_next(&segment, hash, &hash));
    if (entries != count) { // I5
        return REFUSE(CORRUPT, "region %u, map at %llu: it counts %llu entries and has %llu",
                      map.place.region, (unsigned long long)map.head, (unsigned long long)count,
                      (unsigned long long)entries);
    }
    return SHELF_OK;
}
