// SPDX-License-Identifier: Apache-2.0
//
// The map's changes: create, put, delete, and how it grows. See map.c for the structure and its invariants.
//
// A put or delete writes the bucket's line, the entry, and lines of the allocator: two of them conflict only if they
// meet in a bucket, in an arena or in a stripe of the count, and stripes are picked like arenas. When a group of
// buckets is full, its segment alone is split (32 KiB of writes); when the segment's depth has reached the
// directory's, that is doubled before.
//
// What needs space takes it first: on NO_SPACE the map is unchanged, but that its directory may have doubled.

#include "structure/alloc.h"
#include "structure/map.h"
#include "structure/roots.h"

static shelf_result place_alloc(struct place place, uint64_t size, uint64_t *ret_offset) {
    shelf_addr address;
    TRY(shelf_alloc(place.tx, place.region, size, &address));
    *ret_offset = shelf_addr_offset(address);
    return SHELF_OK;
}

static shelf_result place_free(struct place place, uint64_t offset) {
    return shelf_free(place.tx, shelf_addr_make(place.region, offset));
}

// After `failed`: gives back what was taken for it.
static shelf_result place_unwind(struct place place, uint64_t offset, shelf_result failed) {
    if (failed == SHELF_NO_SPACE) {
        TRY(place_free(place, offset));
        return REFUSE(NO_SPACE, "region %u has no room for the map to grow: free something or grow it",
                      place.region);
    }
    return failed;
}

// ---- Create ---------------------------------------------------------------------------------------------------------

static shelf_result segment_create(struct place place, uint64_t *ret_offset) {
    uint64_t offset;
    TRY(place_alloc(place, MAP_SEGMENT_SIZE, &offset));
    struct map_bucket buckets[MAP_GROUP] = {0};
    for (unsigned index = 0; index < MAP_GROUP; index++) {
        buckets[index].meta = meta_empty();
    }
    for (uint64_t done = 0; done < MAP_SEGMENT_SIZE; done += sizeof(buckets)) {
        TRY(place_write(place, offset + done, buckets, sizeof(buckets)));
    }
    *ret_offset = offset;
    return SHELF_OK;
}

static uint64_t directory_word(uint32_t depth, uint64_t offset) {
    return (uint64_t)MAP_WORD << 45 | (uint64_t)depth << 40 | offset;
}

static shelf_result directory_create(struct place place, uint64_t *ret_offset) {
    uint64_t offset;
    uint64_t segment;
    TRY(place_alloc(place, sizeof(uint64_t), &offset));
    shelf_result result = segment_create(place, &segment);
    if (result != SHELF_OK) {
        return place_unwind(place, offset, result);
    }
    *ret_offset = offset;
    return place_write(place, offset, &segment, sizeof(segment)); // depth 0
}

shelf_result shelf_map_create(shelf_tx *tx, shelf_region region, const char *name, shelf_map *ret_map) {
    struct place place = {tx, region};
    uint64_t offset;
    uint64_t directory;
    TRY(root_vacant(tx, region, name));
    TRY(place_alloc(place, MAP_HEAD_SIZE, &offset));
    shelf_result result = directory_create(place, &directory);
    if (result != SHELF_OK) {
        return place_unwind(place, offset, result);
    }
    shelf_addr address = shelf_addr_make(region, offset);
    uint64_t salt[] = {address, shelf_tx_index(tx), shelf_tx_hint(tx)};
    struct {
        struct map_head head;
        struct map_stripe stripes[MAP_STRIPES];
    } start = {.head = {.directory = directory_word(0, directory),
                        .seed = hash_bytes(MAP_MAGIC, salt, sizeof(salt)),
                        .magic = MAP_MAGIC,
                        .format = MAP_FORMAT}};
    _Static_assert(sizeof(start) == MAP_HEAD_SIZE, "the stripes follow the head");
    TRY(place_write(place, offset, &start, sizeof(start)));
    struct shelf_root root = {.type = MAP_MAGIC, .layout = MAP_FORMAT, .address = address};
    memcpy(root.name, name, strlen(name));
    TRY(shelf_root_set(tx, region, &root));
    ret_map->header = address;
    return SHELF_OK;
}

// ---- Growth ---------------------------------------------------------------------------------------------------------

static shelf_result directory_double(struct map *map) {
    if (map->depth == MAP_DEPTH_MAX) {
        return REFUSE(NO_SPACE, "region %u, map at %llu: its directory cannot grow any more",
                      map->place.region, (unsigned long long)map->head);
    }
    uint64_t count = (uint64_t)1 << map->depth;
    uint64_t doubled;
    TRY(place_alloc(map->place, 2 * count * sizeof(uint64_t), &doubled));
    for (uint64_t done = 0; done < count;) {
        uint64_t from[64];
        uint64_t to[128];
        uint64_t batch = count - done < 64 ? count - done : 64;
        TRY(link_read(map->place, map->directory + done * sizeof(uint64_t), from, batch * sizeof(uint64_t)));
        for (uint64_t index = 0; index < batch; index++) {
            to[2 * index] = from[index];
            to[2 * index + 1] = from[index];
        }
        TRY(place_write(map->place, doubled + 2 * done * sizeof(uint64_t), to, 2 * batch * sizeof(uint64_t)));
        done += batch;
    }
    TRY(place_free(map->place, map->directory));
    map->directory = doubled;
    map->depth++;
    uint64_t word = directory_word(map->depth, map->directory);
    return place_write(map->place, map->head + offsetof(struct map_head, directory), &word, sizeof(word));
}

// Puts a slot into its home bucket of the group or another one; false: all are full.
static bool group_add(struct map_bucket group[MAP_GROUP], unsigned home, uint64_t word, unsigned units) {
    for (unsigned distance = 0; distance < MAP_GROUP; distance++) {
        struct map_bucket *bucket = &group[home ^ distance];
        for (unsigned slot = 0; slot < MAP_SLOTS; slot++) {
            if (bucket->slots[slot] == 0) {
                bucket->slots[slot] = word;
                bucket->meta = meta_set(bucket->meta, slot, units, distance);
                group[home].meta += distance != 0 ? META_AWAY_ONE : 0;
                return true;
            }
        }
    }
    return false;
}

// Divides a group's entries by one bit of their tags. First those that are at home, so that they stay there. Each half
// has room for all, so nothing can be left over.
static void group_divide(const struct map_bucket from[MAP_GROUP], uint64_t tag_bit,
                         struct map_bucket to[2][MAP_GROUP]) {
    memset(to, 0, 2 * MAP_GROUP * sizeof(struct map_bucket));
    for (unsigned index = 0; index < MAP_GROUP; index++) {
        to[0][index].meta = meta_empty();
        to[1][index].meta = meta_empty();
    }
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned position = 0; position < MAP_GROUP * MAP_SLOTS; position++) {
            unsigned index = position / MAP_SLOTS;
            unsigned slot = position % MAP_SLOTS;
            uint64_t word = from[index].slots[slot];
            unsigned distance = meta_distance(from[index].meta, slot);
            if (word != 0 && (distance != 0) == (pass != 0)) {
                bool upper = (slot_tag(word) & tag_bit) != 0;
                (void)group_add(to[upper], index ^ distance, word, meta_units(from[index].meta, slot));
            }
        }
    }
}

// Leads the directory's entries for the upper half of the segment's hashes to `upper`, and deepens those of the lower.
static shelf_result directory_divide(const struct map *map, uint64_t hash, const struct segment *segment,
                                     uint64_t upper) {
    unsigned below = map->depth - segment->depth; // the segment has 2^below entries; at least 2
    uint64_t first = map->depth > 0 ? hash >> (64 - map->depth) >> below << below : 0;
    uint64_t count = (uint64_t)1 << below;
    uint64_t depth_word = (uint64_t)(segment->depth + 1) << 48;
    for (uint64_t done = 0; done < count;) {
        uint64_t words[64];
        uint64_t batch = count - done < 64 ? count - done : 64;
        for (uint64_t index = 0; index < batch; index++) {
            words[index] = depth_word | (done + index < count / 2 ? segment->offset : upper);
        }
        TRY(place_write(map->place, map->directory + (first + done) * sizeof(uint64_t), words,
                        batch * sizeof(uint64_t)));
        done += batch;
    }
    return SHELF_OK;
}

// Splits the segment of `hash` into two. The only place where entries move.
static shelf_result segment_split(struct map *map, uint64_t hash, const struct segment *segment) {
    if (segment->depth == map->depth) {
        TRY(directory_double(map));
    }
    uint64_t upper;
    TRY(place_alloc(map->place, MAP_SEGMENT_SIZE, &upper));
    uint64_t tag_bit = (uint64_t)1 << (27 - segment->depth); // the first bit that the entries do not share
    for (uint32_t number = 0; number < MAP_SEGMENT_BUCKETS; number += MAP_GROUP) {
        struct map_bucket group[MAP_GROUP];
        struct map_bucket halves[2][MAP_GROUP];
        uint64_t within = number * sizeof(struct map_bucket);
        TRY(link_read(map->place, segment->offset + within, group, sizeof(group)));
        group_divide(group, tag_bit, halves);
        TRY(place_write(map->place, segment->offset + within, halves[0], sizeof(halves[0])));
        TRY(place_write(map->place, upper + within, halves[1], sizeof(halves[1])));
    }
    return directory_divide(map, hash, segment, upper);
}

// ---- Put ------------------------------------------------------------------------------------------------------------

struct item {
    const void *key;
    size_t key_size;
    const void *value;
    size_t value_size;
};

static shelf_result bytes_write(struct place place, uint64_t offset, const void *bytes, size_t size) {
    return size > 0 ? place_write(place, offset, bytes, size) : SHELF_OK;
}

static shelf_result entry_write(struct place place, uint64_t offset, const struct item *item) {
    struct map_entry head = {(uint32_t)item->key_size, (uint32_t)item->value_size};
    uint64_t size = entry_size(item->key_size, item->value_size);
    unsigned char bytes[512];
    if (size <= sizeof(bytes)) { // one write
        memcpy(bytes, &head, sizeof(head));
        memcpy(bytes + sizeof(head), item->key, item->key_size);
        if (item->value_size > 0) {
            memcpy(bytes + sizeof(head) + item->key_size, item->value, item->value_size);
        }
        return place_write(place, offset, bytes, size);
    }
    TRY(place_write(place, offset, &head, sizeof(head)));
    TRY(place_write(place, offset + sizeof(head), item->key, item->key_size));
    return bytes_write(place, offset + sizeof(head) + item->key_size, item->value, item->value_size);
}

static shelf_result bucket_write(const struct map *map, const struct segment *segment, uint32_t number,
                                 const struct map_bucket *bucket) {
    return place_write(map->place, bucket_offset(segment, number), bucket, sizeof(*bucket));
}

// A new value for a key that is there: in place if the entry needs no other size of block.
static shelf_result entry_replace(const struct map *map, struct spot *spot, const struct entry *entry,
                                  const struct item *item) {
    uint64_t size_before = entry_size(entry->key_size, entry->value_size);
    uint64_t size = entry_size(item->key_size, item->value_size);
    unsigned distance = meta_distance(spot->bucket.meta, spot->slot);
    uint64_t meta = meta_set(spot->bucket.meta, spot->slot, entry_units(size), distance);
    bool in_place = alloc_is_same(size, size_before);
    if (!in_place) {
        uint64_t offset;
        TRY(place_alloc(map->place, size, &offset));
        TRY(place_free(map->place, entry->offset));
        TRY(entry_write(map->place, offset, item));
        spot->bucket.slots[spot->slot] = slot_make(slot_tag(spot->bucket.slots[spot->slot]), offset);
    } else if (size != size_before) {
        struct map_entry head = {(uint32_t)item->key_size, (uint32_t)item->value_size};
        TRY(place_write(map->place, entry->offset, &head, sizeof(head)));
    }
    if (in_place) {
        TRY(bytes_write(map->place, entry->offset + sizeof(struct map_entry) + item->key_size, item->value,
                        item->value_size));
    }
    if (in_place && meta == spot->bucket.meta) {
        return SHELF_OK; // the bucket's line is not touched
    }
    spot->bucket.meta = meta;
    return bucket_write(map, &spot->segment, spot->number, &spot->bucket);
}

// Reads and writes no more buckets than it must: mostly the home alone.
static shelf_result slot_insert(const struct map *map, const struct segment *segment, uint64_t hash,
                                uint64_t entry, unsigned units, bool *ret_inserted) {
    uint32_t home = hash_home(hash);
    for (unsigned distance = 0; distance < MAP_GROUP; distance++) {
        struct map_bucket bucket;
        TRY(map_bucket_read(map, segment, home ^ distance, &bucket));
        unsigned slot = 0;
        while (slot < MAP_SLOTS && bucket.slots[slot] != 0) {
            slot++;
        }
        if (slot == MAP_SLOTS) {
            continue;
        }
        bucket.slots[slot] = slot_make(hash_tag(hash), entry);
        bucket.meta = meta_set(bucket.meta, slot, units, distance);
        TRY(bucket_write(map, segment, home ^ distance, &bucket));
        if (distance != 0) {
            TRY(map_bucket_read(map, segment, home, &bucket));
            bucket.meta += META_AWAY_ONE;
            TRY(bucket_write(map, segment, home, &bucket));
        }
        *ret_inserted = true;
        return SHELF_OK;
    }
    *ret_inserted = false;
    return SHELF_OK;
}

static shelf_result count_add(const struct map *map, uint64_t operand) {
    uint64_t stripe = shelf_tx_hint(map->place.tx) % MAP_STRIPES;
    uint64_t offset = map->head + sizeof(struct map_head) + stripe * sizeof(struct map_stripe);
    uint64_t count;
    TRY(place_read(map->place, offset, &count, sizeof(count)));
    count += operand;
    return place_write(map->place, offset, &count, sizeof(count));
}

static shelf_result entry_insert(struct map *map, uint64_t hash, const struct item *item) {
    uint64_t size = entry_size(item->key_size, item->value_size);
    uint64_t offset;
    TRY(place_alloc(map->place, size, &offset));
    for (bool inserted = false;
         !inserted;) { // each round divides the keys further, up to MAP_DEPTH_MAX times
        struct segment segment;
        TRY(map_segment(map, hash, &segment));
        TRY(slot_insert(map, &segment, hash, offset, entry_units(size), &inserted));
        if (!inserted) {
            shelf_result result = segment_split(map, hash, &segment);
            if (result != SHELF_OK) {
                return place_unwind(map->place, offset, result);
            }
        }
    }
    TRY(entry_write(map->place, offset, item));
    return count_add(map, 1);
}

shelf_result shelf_map_put(shelf_tx *tx, shelf_map handle, const void *key, size_t key_size,
                           const void *value, size_t value_size) {
    if (key_size == 0) {
        return REFUSE(INVALID, "a map's key has 1 byte or more");
    }
    if (key_size > MAP_KEY_MAX || value_size > SHELF_TX_BYTES_MAX) {
        return REFUSE(TOO_LARGE, "a map's key has up to %u bytes, a value up to %zu", MAP_KEY_MAX,
                      SHELF_TX_BYTES_MAX);
    }
    struct map map;
    struct spot spot;
    struct entry entry;
    struct item item = {key, key_size, value, value_size};
    TRY(map_load(tx, handle, &map));
    uint64_t hash = map_hash(map.seed, key, key_size);
    shelf_result result = map_find(&map, hash, key, key_size, &spot, &entry);
    if (result == SHELF_NOT_FOUND) {
        return entry_insert(&map, hash, &item);
    }
    TRY(result);
    return entry_replace(&map, &spot, &entry, &item);
}

// ---- Delete ---------------------------------------------------------------------------------------------------------

static shelf_result away_subtract(const struct map *map, const struct segment *segment, uint32_t home) {
    struct map_bucket bucket;
    TRY(map_bucket_read(map, segment, home, &bucket));
    if (meta_away(bucket.meta) == 0) {
        return REFUSE(CORRUPT,
                      "region %u, map at %llu: bucket at offset %llu counts too few entries elsewhere",
                      map->place.region, (unsigned long long)map->head,
                      (unsigned long long)bucket_offset(segment, home));
    }
    bucket.meta -= META_AWAY_ONE;
    return bucket_write(map, segment, home, &bucket);
}

shelf_result shelf_map_delete(shelf_tx *tx, shelf_map handle, const void *key, size_t key_size) {
    struct map map;
    struct spot spot;
    struct entry entry;
    TRY(map_load(tx, handle, &map));
    if (key_size - 1 >= MAP_KEY_MAX) {
        return SHELF_NOT_FOUND;
    }
    TRY(map_find(&map, map_hash(map.seed, key, key_size), key, key_size, &spot, &entry));
    unsigned distance = meta_distance(spot.bucket.meta, spot.slot);
    spot.bucket.slots[spot.slot] = 0;
    spot.bucket.meta = meta_set(spot.bucket.meta, spot.slot, 0, 0);
    TRY(bucket_write(&map, &spot.segment, spot.number, &spot.bucket));
    if (distance != 0) {
        TRY(away_subtract(&map, &spot.segment, spot.number ^ distance));
    }
    TRY(place_free(map.place, entry.offset));
    return count_add(&map, (uint64_t)-1);
}
