// SPDX-License-Identifier: Apache-2.0
//
// See shop.h.

#include "shop.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/sometimes.h"
#include "report.h"

#define KEYS      40u
#define CALLS_MAX 6u
#define VALUE_MAX 300u
#define MAP_NAME  "goods"

enum note_kind { NOTE_FORMAT, NOTE_PUT, NOTE_DELETE };

struct note { // what one call did
    enum note_kind kind;
    uint32_t key;
    uint64_t value; // its bytes follow from it
};
struct deed { // what one transaction did, if it committed
    struct deed *next;
    const struct submission *submission;
    uint64_t order; // filled in for the replay
    uint32_t note_count;
    struct note notes[CALLS_MAX];
};

struct shop {
    struct world *world;
    struct deed *deeds;
    struct shelf_tx *tx;
    struct deed *deed; // of tx
    uint64_t values;   // given out so far
};

struct shop *shop_new(struct world *world) {
    struct shop *shop = calloc(1, sizeof(*shop));
    ASSERT(shop);
    shop->world = world;
    return shop;
}

void shop_drop(struct shop *shop) {
    if (shop->tx) {
        tx_end(shop->tx);
    }
    free(shop->deed);
    shop->tx = NULL;
    shop->deed = NULL;
}

void shop_free(struct shop *shop) {
    shop_drop(shop);
    while (shop->deeds) {
        struct deed *next = shop->deeds->next;
        free(shop->deeds);
        shop->deeds = next;
    }
    free(shop);
}

uint32_t shop_region(const struct world *world) {
    for (uint32_t i = 2; i < MAPS_MAX; i++) {
        const struct model_region *region = model_region(world->model, i);
        if (region->live && strcmp(region->name, SHOP_REGION_NAME) == 0) {
            return i;
        }
    }
    return 0;
}

// What libshelf has from its node, the structures have here from the image alone.
shelf_result shelf_region_info_get(shelf *s, shelf_region region, struct shelf_region_info *ret_info) {
    const struct tx_host *host = (const void *)s;
    const struct region_view *view = &atomic_load(&host->replica)->image->regions[region];
    if (atomic_load_explicit(&view->state, memory_order_acquire) != REGION_LIVE) {
        return SHELF_NOT_FOUND;
    }
    *ret_info = (struct shelf_region_info){.region = region,
                                           .size = atomic_load_explicit(&view->size, memory_order_relaxed),
                                           .floor = atomic_load_explicit(&view->floor, memory_order_relaxed)};
    return SHELF_OK;
}

// ---- Calls

static size_t key_make(uint32_t key, char text[24]) {
    memset(text, 'k', 24);
    text[0] = (char)('A' + key);
    return 1 + key % 20;
}

static size_t value_make(uint64_t value, uint8_t bytes[VALUE_MAX]) {
    struct random random;
    random_seed(&random, value);
    size_t size = (size_t)random_below(&random, VALUE_MAX + 1);
    random_fill(&random, bytes, size);
    return size;
}

// What a structure may answer while others change the same lines. True: the transaction goes on.
static bool result_check(struct shop *shop, shelf_result result, const char *call) {
    if (result == SHELF_OK || result == SHELF_NOT_FOUND) {
        return true;
    }
    SIM_CHECK(result == SHELF_CONFLICT || result == SHELF_NO_SPACE, "%s: %s (%s)", call,
              shelf_result_name(result), shelf_detail());
    shop_drop(shop);
    return false;
}

static void note_add(struct shop *shop, enum note_kind kind, uint32_t key, uint64_t value) {
    ASSERT(shop->deed->note_count < CALLS_MAX);
    shop->deed->notes[shop->deed->note_count++] = (struct note){.kind = kind, .key = key, .value = value};
}

static bool map_change(struct shop *shop, shelf_map map) {
    struct random *random = &shop->world->random;
    char key[24];
    uint8_t bytes[VALUE_MAX];
    uint32_t number = (uint32_t)random_below(random, KEYS);
    size_t key_size = key_make(number, key);
    if (random_chance(random, 1, 3)) {
        shelf_result result = shelf_map_delete(shop->tx, map, key, key_size);
        if (!result_check(shop, result, "shelf_map_delete")) {
            return false;
        }
        note_add(shop, NOTE_DELETE, number, 0);
        return true;
    }
    uint64_t value = ++shop->values;
    size_t size = value_make(value, bytes);
    if (!result_check(shop, shelf_map_put(shop->tx, map, key, key_size, bytes, size), "shelf_map_put")) {
        return false;
    }
    note_add(shop, NOTE_PUT, number, value);
    return true;
}

static void shop_fill(struct shop *shop, shelf_region region) {
    shelf_map map;
    shelf_result result = shelf_map_open(shop->tx, region, MAP_NAME, &map);
    if (result == SHELF_INVALID || result == SHELF_NOT_FOUND || result == SHELF_LAYOUT) { // not formatted yet
        result = shelf_format(shop->tx, region);
        if (result_check(shop, result, "shelf_format") &&
            result_check(shop, shelf_map_create(shop->tx, region, MAP_NAME, &map), "shelf_map_create")) {
            note_add(shop, NOTE_FORMAT, 0, 0);
        }
        return;
    }
    if (!result_check(shop, result, "shelf_map_open")) {
        return;
    }
    uint64_t count = random_between(&shop->world->random, 1, CALLS_MAX - 1);
    while (count-- > 0 && map_change(shop, map)) {
    }
}

static void shop_begin(struct shop *shop, struct tx_host *host, shelf_region region) {
    shop->deed = calloc(1, sizeof(*shop->deed));
    ASSERT(shop->deed);
    shelf_result result = tx_begin(host, SHELF_READ_WRITE, &shop->tx);
    SIM_CHECK(result == SHELF_OK, "begin: %s", shelf_result_name(result));
    shop_fill(shop, region);
}

const struct commit_request *shop_step(struct shop *shop, struct tx_host *host, uint64_t session,
                                       uint64_t holder, uint64_t sequence) {
    uint32_t region = shop_region(shop->world);
    if (region == 0) {
        return NULL;
    }
    if (!shop->tx) {
        shop_begin(shop, host, (shelf_region)region);
        return NULL;
    }
    const struct commit_request *request = NULL;
    if (tx_has_effects(shop->tx)) {
        shelf_result result = tx_encode(shop->tx, session, holder, sequence, &request);
        SIM_CHECK(result == SHELF_OK, "encode: %s", shelf_result_name(result));
    } else {
        shop_drop(shop);
    }
    return request;
}

void shop_submitted(struct shop *shop, const struct submission *submission) {
    shop->deed->submission = submission;
    shop->deed->next = shop->deeds;
    shop->deeds = shop->deed;
    shop->deed = NULL;
    shop_drop(shop);
}

// ---- The end

static int deed_compare(const void *a, const void *b) {
    const struct deed *const *left = a;
    const struct deed *const *right = b;
    return (*left)->order < (*right)->order ? -1 : (*left)->order > (*right)->order;
}

// Replays committed deeds. `ret_values`: what each key must have; 0: nothing. Returns whether there is a map at all.
static bool deeds_replay(const struct shop *shop, uint64_t ret_values[KEYS]) {
    size_t count = 0;
    for (const struct deed *deed = shop->deeds; deed; deed = deed->next) {
        count++;
    }
    struct deed **list = calloc(count + 1, sizeof(*list));
    ASSERT(list);
    count = 0;
    for (struct deed *deed = shop->deeds; deed; deed = deed->next) {
        if (model_commit_order(shop->world->model, deed->submission, &deed->order)) {
            list[count++] = deed;
        }
    }
    qsort(list, count, sizeof(*list), deed_compare);
    bool formatted = false;
    memset(ret_values, 0, KEYS * sizeof(ret_values[0]));
    for (size_t i = 0; i < count; i++) {
        for (uint32_t n = 0; n < list[i]->note_count; n++) {
            const struct note *note = &list[i]->notes[n];
            SIM_CHECK((note->kind == NOTE_FORMAT) != formatted,
                      "the shop was formatted twice, or used before");
            formatted = true;
            ret_values[note->key] = note->kind == NOTE_PUT      ? note->value
                                    : note->kind == NOTE_DELETE ? 0
                                                                : ret_values[note->key];
        }
    }
    free(list);
    return formatted;
}

static void key_check(struct shelf_tx *tx, shelf_map map, uint32_t number, uint64_t value) {
    char key[24];
    uint8_t right[VALUE_MAX];
    uint8_t found[VALUE_MAX];
    size_t found_size = 0;
    size_t size = value ? value_make(value, right) : 0;
    shelf_result result =
        shelf_map_get(tx, map, key, key_make(number, key), found, sizeof(found), &found_size);
    SIM_CHECK(result == (value ? SHELF_OK : SHELF_NOT_FOUND),
              "key %u of the map: %s, but value %llu was committed", number, shelf_result_name(result),
              (unsigned long long)value);
    SIM_CHECK(!value || (found_size == size && memcmp(found, right, size) == 0),
              "key %u of the map has another value than was committed", number);
}

void shop_check(struct shop *shop, struct tx_host *host) {
    uint64_t values[KEYS];
    uint32_t region = shop_region(shop->world);
    if (region == 0 || !deeds_replay(shop, values)) {
        return;
    }
    SOMETIMES(SIM_STRUCTURES_CHECKED);
    struct shelf_tx *tx;
    shelf_map map;
    struct shelf_alloc_sums audit;
    uint64_t count = 0;
    uint64_t right = 0;
    shelf_result result = tx_begin(host, SHELF_READ_ONLY, &tx);
    SIM_CHECK(result == SHELF_OK, "begin: %s", shelf_result_name(result));
    result = shelf_map_open(tx, (shelf_region)region, MAP_NAME, &map);
    SIM_CHECK(result == SHELF_OK, "the map is gone: %s (%s)", shelf_result_name(result), shelf_detail());
    for (uint32_t i = 0; i < KEYS; i++) {
        key_check(tx, map, i, values[i]);
        right += values[i] != 0;
    }
    result = shelf_map_count(tx, map, &count);
    SIM_CHECK(result == SHELF_OK && count == right, "the map counts %llu entries, there are %llu",
              (unsigned long long)count, (unsigned long long)right);
    result = shelf_map_verify(tx, map);
    SIM_CHECK(result == SHELF_OK, "the map: %s (%s)", shelf_result_name(result), shelf_detail());
    result = shelf_alloc_audit(tx, (shelf_region)region, &audit);
    SIM_CHECK(result == SHELF_OK && audit.live + audit.free + audit.overhead == audit.total,
              "the allocator: %s (%s)", shelf_result_name(result), shelf_detail());
    tx_end(tx);
}
