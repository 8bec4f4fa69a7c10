// SPDX-License-Identifier: Apache-2.0
//
// Named roots: a hash table of 256 slots in the region's first span, open addressing by linear steps.
//
// A removed slot goes on to be stepped over until the slot behind it is empty. Addresses in the own region are stored
// without its number, so that they hold where the region is loaded under another one.

#include "structure/roots.h"
#include "base/hash.h"

#include <string.h>

// The seed is part of the format, like the hash itself.
#define ROOT_SEED 0x726f6f7473u

static uint64_t slot_offset(unsigned slot) {
    return ROOTS_OFFSET + slot * sizeof(struct root_slot);
}

static shelf_result name_check(const char *name) {
    size_t size = name != NULL ? strnlen(name, SHELF_NAME_MAX + 1) : 0;
    if (size == 0 || size > SHELF_NAME_MAX) {
        return REFUSE(INVALID, "a root's name has 1 to %u bytes", SHELF_NAME_MAX);
    }
    return SHELF_OK;
}

static shelf_result slot_read(const struct space *space, unsigned slot, struct root_slot *ret_root) {
    TRY(place_read(space->place, slot_offset(slot), ret_root, sizeof(*ret_root)));
    if (ret_root->state > ROOT_REMOVED ||
        (ret_root->state == ROOT_TAKEN && memchr(ret_root->name, 0, sizeof(ret_root->name)) == NULL)) {
        return REFUSE(CORRUPT, "region %u: slot %u of the roots is none", space->place.region, slot);
    }
    return SHELF_OK;
}

// Where a name is, and where it would go.
struct found {
    bool is_there;
    bool has_room;
    unsigned slot; // where it is
    unsigned room; // where it would go
    struct root_slot root;
};

static shelf_result root_find(const struct space *space, const char *name, struct found *ret_found) {
    struct found found = {0};
    unsigned start = (unsigned)hash_bytes(ROOT_SEED, name, strlen(name)) % ROOTS_MAX;
    for (unsigned step = 0; step < ROOTS_MAX && !found.is_there; step++) {
        unsigned slot = (start + step) % ROOTS_MAX;
        TRY(slot_read(space, slot, &found.root));
        if (found.root.state == ROOT_TAKEN) {
            found.is_there = strcmp(found.root.name, name) == 0;
            found.slot = slot;
            continue;
        }
        if (!found.has_room) {
            found.has_room = true;
            found.room = slot;
        }
        if (found.root.state == ROOT_EMPTY) {
            break;
        }
    }
    *ret_found = found;
    return SHELF_OK;
}

static shelf_result root_not_found(const struct space *space, const char *name) {
    return REFUSE(NOT_FOUND, "region %u has no root \"%s\"", space->place.region, name);
}

static uint64_t address_store(const struct space *space, shelf_addr address) {
    return shelf_addr_region(address) == space->place.region ? shelf_addr_offset(address) : address;
}

static shelf_addr address_load(const struct space *space, uint64_t stored) {
    return stored != 0 && shelf_addr_region(stored) == 0 ? shelf_addr_make(space->place.region, stored)
                                                         : stored;
}

static shelf_result refuse_full(const struct space *space) {
    return REFUSE(NO_SPACE, "region %u has %u roots already, there cannot be more", space->place.region,
                  ROOTS_MAX);
}

shelf_result shelf_root_set(shelf_tx *tx, shelf_region region, const struct shelf_root *root) {
    struct space space;
    TRY(space_open(tx, region, &space));
    TRY(name_check(root->name));
    struct found found;
    TRY(root_find(&space, root->name, &found));
    if (!found.is_there && !found.has_room) {
        return refuse_full(&space);
    }
    struct root_slot slot = {.type = root->type,
                             .layout = root->layout,
                             .address = address_store(&space, root->address),
                             .state = ROOT_TAKEN};
    memcpy(slot.name, root->name, strlen(root->name));
    return place_write(space.place, slot_offset(found.is_there ? found.slot : found.room), &slot,
                       sizeof(slot));
}

shelf_result root_vacant(shelf_tx *tx, shelf_region region, const char *name) {
    struct space space;
    TRY(space_open(tx, region, &space));
    TRY(name_check(name));
    struct found found;
    TRY(root_find(&space, name, &found));
    if (found.is_there) {
        return REFUSE(EXISTS, "region %u has a root \"%s\" already", region, name);
    }
    return found.has_room ? SHELF_OK : refuse_full(&space);
}

shelf_result shelf_root_get(shelf_tx *tx, shelf_region region, const char *name, uint64_t type,
                            uint64_t layout, shelf_addr *ret_address) {
    struct space space;
    TRY(space_open(tx, region, &space));
    TRY(name_check(name));
    struct found found;
    TRY(root_find(&space, name, &found));
    if (!found.is_there) {
        return root_not_found(&space, name);
    }
    if (type != 0 && type != found.root.type) {
        return REFUSE(LAYOUT, "region %u, root \"%s\": stored with type %016llx, asked for %016llx", region,
                      name, (unsigned long long)found.root.type, (unsigned long long)type);
    }
    if (layout != 0 && layout != found.root.layout) {
        return REFUSE(LAYOUT, "region %u, root \"%s\": stored with layout %016llx, this program has %016llx",
                      region, name, (unsigned long long)found.root.layout, (unsigned long long)layout);
    }
    *ret_address = address_load(&space, found.root.address);
    return SHELF_OK;
}

// The removed slots before an empty one need not be stepped over any longer.
static shelf_result slots_tidy(const struct space *space, unsigned slot) {
    struct root_slot root;
    TRY(slot_read(space, (slot + 1) % ROOTS_MAX, &root));
    if (root.state != ROOT_EMPTY) {
        return SHELF_OK;
    }
    for (unsigned step = 0; step < ROOTS_MAX; step++) {
        TRY(slot_read(space, slot, &root));
        if (root.state != ROOT_REMOVED) {
            break;
        }
        struct root_slot empty = {.state = ROOT_EMPTY};
        TRY(place_write(space->place, slot_offset(slot), &empty, sizeof(empty)));
        slot = (slot + ROOTS_MAX - 1) % ROOTS_MAX;
    }
    return SHELF_OK;
}

shelf_result shelf_root_remove(shelf_tx *tx, shelf_region region, const char *name) {
    struct space space;
    TRY(space_open(tx, region, &space));
    TRY(name_check(name));
    struct found found;
    TRY(root_find(&space, name, &found));
    if (!found.is_there) {
        return root_not_found(&space, name);
    }
    struct root_slot removed = {.state = ROOT_REMOVED};
    TRY(place_write(space.place, slot_offset(found.slot), &removed, sizeof(removed)));
    return slots_tidy(&space, found.slot);
}

shelf_result shelf_root_at(shelf_tx *tx, shelf_region region, size_t position, struct shelf_root *ret_root) {
    struct space space;
    TRY(space_open(tx, region, &space));
    size_t seen = 0;
    for (unsigned slot = 0; slot < ROOTS_MAX; slot++) {
        struct root_slot root;
        TRY(slot_read(&space, slot, &root));
        if (root.state == ROOT_TAKEN && seen++ == position) {
            *ret_root = (struct shelf_root){
                .type = root.type, .layout = root.layout, .address = address_load(&space, root.address)};
            memcpy(ret_root->name, root.name, sizeof(ret_root->name));
            return SHELF_OK;
        }
    }
    return REFUSE(NOT_FOUND, "region %u has %zu roots", region, seen);
}

// Order matters, as it does in the layout itself; the hash is stored, so its steps never change.
uint64_t shelf_layout_hash(const char *type, size_t size, const struct shelf_field *fields, size_t count) {
    uint64_t hash = hash_bytes(size, type, strlen(type));
    for (size_t index = 0; index < count; index++) {
        hash = hash_bytes(hash, fields[index].name, strlen(fields[index].name));
        hash = hash_u64(hash ^ ((uint64_t)fields[index].offset << 32 | fields[index].size));
    }
    return hash != 0 ? hash : 1; // 0 means "not compared"
}
