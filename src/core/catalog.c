// SPDX-License-Identifier: Apache-2.0
/*
 * catalog.c: regions come, grow and go. The catalog lives in the system region, so a change of it is a transaction like
 * any other; before it is logged, the files have their space and the region its memory, so that nothing that is
 * durable can lack either.
 *
 *   create, grow:  files reserved -> memory mapped -> catalog entry logged -> applied: readers see it -> answer
 *   access:        catalog entry logged -> applied: answer
 *   drop:          catalog entry logged -> applied: readers see it gone -> a checkpoint without it -> files, memory freed
 *
 *   T1  One change at a time. Names and numbers are decided on the admitted state (C4).
 *   T2  A number is given out once; a dropped region keeps its place until no durable superblock needs its files.
 */
#include "core/rights.h"
#include "core/state.h"

/* ---- Places -------------------------------------------------------------------------------------------------------- */

struct region *region_find(const struct core *core, uint32_t number) {
    uint32_t place = number < REGION_NUMBERS ? core->region_places[number] : 0;
    /* The core is only ever held by one, so who may look at it may be given what it holds to change. */
    return place == 0
               ? NULL
               : &((struct core *)(uintptr_t)core)->regions[place - 1]; // NOLINT(performance-no-int-to-ptr)
}

uint32_t region_place(const struct core *core, const struct region *region) {
    return (uint32_t)(region - core->regions);
}

struct region *region_place_take(struct core *core, uint32_t number) {
    ASSERT(number > 0 && number < REGION_NUMBERS && core->region_places[number] == 0);
    for (uint32_t place = number == REGION_SYSTEM ? 0 : 1; place < REGION_PLACES; place++) {
        if (core->regions[place].number == 0) {
            core->regions[place] = (struct region){.number = number};
            core->region_places[number] = (uint16_t)(place + 1);
            return &core->regions[place];
        }
    }
    return NULL;
}

void region_place_release(struct core *core, struct region *region) {
    core->region_places[region->number] = 0;
    *region = (struct region){0};
}

void region_mapped(struct region *region, const struct io *io) {
    if (!region->mapped) {
        region->memory = io->memory;
        region->dirty = io->memory.bits[0];
        region->pending = io->memory.bits[1];
        region->frozen = io->memory.bits[2];
        region->mapped = true;
    }
    region->size_mapped = io->size;
    region->size_max = io->size_max;
}

void region_publish(struct core *core, struct region *region, uint64_t floor) {
    struct region_view *view = &core->image->regions[region->number];
    struct region_map *map = &core->maps[region->number];
    map->versions = region->memory.versions_view;
    map->page_versions = region->memory.page_versions_view;
    atomic_store_explicit(&map->data, region->memory.data_view, memory_order_release);
    atomic_store_explicit(&view->size, region->size_applied, memory_order_relaxed);
    atomic_store_explicit(&view->floor, floor, memory_order_relaxed);
    atomic_store_explicit(&view->state, REGION_LIVE, memory_order_release);
}

/* ---- Requests ------------------------------------------------------------------------------------------------------ */

static uint64_t entry_address(uint32_t place) {
    return shelf_addr_make(REGION_SYSTEM,
                           SYSTEM_CATALOG_OFFSET + (uint64_t)place * sizeof(struct catalog_entry));
}

static struct region *region_named(struct core *core, const char *name) {
    for (uint32_t place = 1; place < REGION_PLACES; place++) {
        struct region *region = &core->regions[place];
        if (region->admitted_live && memcmp(region->name, name, sizeof(region->name)) == 0) {
            return region;
        }
    }
    return NULL;
}

static bool catalog_place_free(struct core *core, uint32_t *ret_place) {
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        struct catalog_entry entry;
        newest_read(core, entry_address(place), &entry, sizeof(entry));
        if (entry.live == 0) {
            *ret_place = place;
            return true;
        }
    }
    return false;
}

static uint64_t table_size(uint64_t size) {
    return divide_up(size, PAGE_SIZE * (uint64_t)TABLE_BLOCK_PAGES) * 2 * TABLE_BLOCK_SIZE;
}

static uint64_t roots_bytes(uint64_t size) {
    return sizeof(struct roots_region) +
           divide_up(size, PAGE_SIZE * (uint64_t)TABLE_BLOCK_PAGES) * sizeof(struct block_entry);
}

/* Space in the files for a region of `size` bytes: all ios at once. */
static void control_reserve(struct core *core, uint64_t size) {
    struct control *control = &core->control;
    uint32_t number = control->region->number;
    uint64_t roots = align_up(roots_size(core) + roots_bytes(size), PAGE_SIZE);
    const struct io ios[] = {
        {.kind = IO_RESERVE, .file = {.kind = FILE_PAGES, .slot = 0, .region = number}, .size = size},
        {.kind = IO_RESERVE, .file = {.kind = FILE_PAGES, .slot = 1, .region = number}, .size = size},
        {.kind = IO_RESERVE, .file = {.kind = FILE_TABLE, .region = number}, .size = table_size(size)},
        {.kind = IO_RESERVE, .file = {.kind = FILE_ROOTS, .slot = 0}, .size = roots},
        {.kind = IO_RESERVE, .file = {.kind = FILE_ROOTS, .slot = 1}, .size = roots},
    };
    control->state = CONTROL_FILES;
    control->failure = IO_RESULT_OK;
    control->files_left = ARRAY_COUNT(ios);
    for (uint32_t i = 0; i < ARRAY_COUNT(ios); i++) {
        control->ios[i] = ios[i];
        core_issue(core, &control->ios[i], PURPOSE_CONTROL);
    }
}

static enum reply_reason size_check(const struct core *core, uint64_t size, uint64_t size_max) {
    bool fits = size > 0 && size % PAGE_SIZE == 0 && size <= size_max && size_max % PAGE_SIZE == 0 &&
                size_max <= SHELF_REGION_BYTES_MAX &&
                roots_size(core) + roots_bytes(size) <= core->checkpoint.roots_max;
    return fits ? REASON_NONE : REASON_REGION_SIZE;
}

static void on_create(struct core *core, const struct region_request *request,
                      const struct credentials *credentials, uint64_t token) {
    struct control *control = &core->control;
    struct catalog_entry entry = {.live = 1,
                                  .size = request->size,
                                  .size_max = request->size_max,
                                  .owner = credentials ? credentials->user : request->owner,
                                  .group = credentials ? credentials->group : request->group,
                                  .mode = request->mode & MODE_BITS};
    for (size_t i = 0; request->name[i] != 0; i++) {
        entry.name[i] = request->name[i];
    }
    uint32_t place = 0;
    enum reply_reason reason = size_check(core, request->size, request->size_max);
    if (entry.name[0] == 0) {
        core_reply_result(core, token, SHELF_INVALID, REASON_REQUEST_MALFORMED);
    } else if (region_named(core, entry.name) != NULL) {
        core_refuse(core, token, SHELF_EXISTS, REASON_REGION_NAME);
    } else if (reason != REASON_NONE) {
        core_reply_result(core, token, SHELF_TOO_LARGE, reason);
    } else if (core->region_numbers_used >= REGION_NUMBERS - 2) {
        core_reply_result(core, token, SHELF_NO_SPACE, REASON_REGION_NUMBERS_FULL);
    } else if (!catalog_place_free(core, &place)) {
        core_reply_result(core, token, SHELF_NO_SPACE, REASON_REGION_TABLE_FULL);
    } else {
        entry.region = (uint32_t)(2 + core->region_numbers_used); /* T2: counted when it is logged */
        control->region = region_place_take(core, entry.region);
        if (control->region == NULL) { /* too many dropped ones wait for a checkpoint */
            core->checkpoint.wanted = true;
            core->effects->refused = true;
            return;
        }
        control->region->catalog_place = place;
        control->entry = entry;
        control->token = token;
        control_reserve(core, entry.size);
    }
}

/* What the catalog says of a region now. */
static struct catalog_entry entry_of(struct core *core, const struct region *region) {
    struct catalog_entry entry;
    newest_read(core, entry_address(region->catalog_place), &entry, sizeof(entry));
    return entry;
}

static void on_grow(struct core *core, struct region *region, const struct region_request *request,
                    uint64_t token) {
    struct control *control = &core->control;
    if (request->size <=
        region->size) { /* large enough, or about to be: then the answer waits for that (C2) */
        core_refuse(core, token, SHELF_OK, REASON_NONE);
    } else if (size_check(core, request->size, region->size_max) != REASON_NONE) {
        core_reply_result(core, token, SHELF_TOO_LARGE, REASON_REGION_SIZE);
    } else {
        control->region = region;
        control->token = token;
        control->entry = entry_of(core, region);
        control->entry.size = request->size;
        control_reserve(core, request->size);
    }
}

static void on_drop(struct core *core, struct region *region, uint64_t token) {
    struct control *control = &core->control;
    control->region = region;
    control->token = token;
    control->entry = entry_of(core, region);
    control->entry.live = 0;
    control->state = CONTROL_APPEND;
}

/* May they, and does it make sense? Only root gives a region away; an owner gives it to groups of its own. */
static enum reply_reason access_check(const struct region *region, const struct region_request *request,
                                      const struct credentials *credentials) {
    if (request->mode != SHELF_KEEP && (request->mode & ~MODE_BITS) != 0) {
        return REASON_REQUEST_MALFORMED;
    }
    if (rights_unlimited(credentials)) {
        return REASON_NONE;
    }
    bool owner_stays = request->owner == SHELF_KEEP || request->owner == region->owner;
    bool group_ours = request->group == SHELF_KEEP || request->group == region->group ||
                      rights_in_group(credentials, request->group);
    return credentials->user == region->owner && owner_stays && group_ours ? REASON_NONE : REASON_DENIED;
}

static uint32_t kept(uint32_t wanted, uint32_t present) {
    return wanted == SHELF_KEEP ? present : wanted;
}

static void on_access(struct core *core, struct region *region, const struct region_request *request,
                      const struct credentials *credentials, uint64_t token) {
    struct control *control = &core->control;
    enum reply_reason reason = access_check(region, request, credentials);
    if (reason == REASON_REQUEST_MALFORMED) {
        core_reply_result(core, token, SHELF_INVALID, reason);
    } else if (reason != REASON_NONE) {
        core_refuse(core, token, SHELF_DENIED, reason);
    } else {
        SOMETIMES(REGION_ACCESS_CHANGED);
        control->region = region;
        control->token = token;
        control->entry = entry_of(core, region);
        control->entry.owner = kept(request->owner, region->owner);
        control->entry.group = kept(request->group, region->group);
        control->entry.mode = kept(request->mode, region->mode);
        control->state = CONTROL_APPEND;
    }
}

/* Of those that exist already. */
static void on_change(struct core *core, struct region *region, const struct region_request *request,
                      const struct credentials *credentials, uint64_t token) {
    bool writes = (rights_of(credentials, region->owner, region->group, region->mode) & RIGHT_WRITE) != 0;
    if (request->header.kind == REQUEST_REGION_ACCESS) {
        on_access(core, region, request, credentials, token);
    } else if (request->header.kind == REQUEST_REGION_GROW && writes) {
        on_grow(core, region, request, token);
    } else if (request->header.kind == REQUEST_REGION_DROP && rights_owns(credentials, region->owner)) {
        on_drop(core, region, token);
    } else {
        core_refuse(core, token, SHELF_DENIED, REASON_DENIED);
    }
}

void catalog_on_request(struct core *core, const struct region_request *request,
                        const struct credentials *credentials, uint64_t token) {
    if (core->control.state != CONTROL_IDLE) { /* T1: submitted again when an io is done */
        core->effects->refused = true;
        return;
    }
    core->control.request = *request;
    if (request->header.kind == REQUEST_REGION_CREATE) {
        on_create(core, request, credentials, token);
        return;
    }
    struct region *region = request->region == REGION_SYSTEM ? NULL : region_find(core, request->region);
    if (region == NULL || !region->admitted_live) {
        core_refuse(core, token, SHELF_NOT_FOUND, REASON_REGION_UNKNOWN);
    } else {
        on_change(core, region, request, credentials, token);
    }
}

/* ---- Files, memory, log -------------------------------------------------------------------------------------------- */

static bool control_creates(const struct control *control) {
    return control->request.header.kind == REQUEST_REGION_CREATE;
}

/* The change cannot be made: answer, and remove what a creation has made so far. */
static void control_fail(struct core *core, shelf_result result, enum reply_reason reason) {
    struct control *control = &core->control;
    SOMETIMES(REGION_NO_SPACE);
    core_reply_result(core, control->token, result, reason);
    if (!control_creates(control)) {
        control->state = CONTROL_IDLE;
        return;
    }
    control->state = CONTROL_CLEANUP;
    control->files_left = 1;
    control->ios[0] =
        (struct io){.kind = IO_REMOVE, .file = {.kind = FILE_PAGES, .region = control->region->number}};
    core_issue(core, &control->ios[0], PURPOSE_CONTROL);
    if (control->region->mapped) {
        control->files_left++;
        control->ios[1] = (struct io){.kind = IO_UNMAP, .file = {.region = control->region->number}};
        core_issue(core, &control->ios[1], PURPOSE_CONTROL);
    }
}

static void control_map(struct core *core) {
    struct control *control = &core->control;
    control->state = CONTROL_MAP;
    control->files_left = 1;
    control->ios[0] = (struct io){.kind = IO_MAP,
                                  .file = {.region = control->region->number},
                                  .size = max_u64(control->entry.size, control->region->size_mapped),
                                  .size_max = control->entry.size_max};
    core_issue(core, &control->ios[0], PURPOSE_CONTROL);
}

void catalog_on_io(struct core *core, struct io *io) {
    struct control *control = &core->control;
    control->files_left--;
    if (io->result == IO_RESULT_NO_SPACE || io->result == IO_RESULT_NO_MEMORY) {
        control->failure = io->result;
    } else if (core_io_failed(core, io, "region files")) {
        return;
    }
    if (control->files_left > 0) {
        return;
    }
    if (control->state == CONTROL_CLEANUP) {
        region_place_release(core, control->region);
        control->state = CONTROL_IDLE;
    } else if (control->failure == IO_RESULT_NO_SPACE) {
        control_fail(core, SHELF_NO_SPACE, REASON_DISK_FULL);
    } else if (control->failure == IO_RESULT_NO_MEMORY) {
        control_fail(core, SHELF_NO_MEMORY, REASON_MEMORY);
    } else if (control->state == CONTROL_FILES) {
        control_map(core);
    } else {
        region_mapped(control->region, io);
        control->state = CONTROL_APPEND;
    }
}

/* Logs the change, and makes it the admitted state. */
static void control_append(struct core *core) {
    struct control *control = &core->control;
    struct region *region = control->region;
    struct record_tx *tx = batch_tx_begin(core, 0, 0);
    if (control_creates(control)) {
        SOMETIMES(REGION_CREATED);
        core->region_numbers_used++;
        uint64_t address =
            shelf_addr_make(REGION_SYSTEM, offsetof(struct system_header, region_numbers_used));
        batch_range_add(core, tx, address, &core->region_numbers_used, sizeof(core->region_numbers_used));
        control->entry.created_index = core->building->index;
        memcpy(region->name, control->entry.name, sizeof(region->name));
        region->created_index = control->entry.created_index;
        core->region_count++;
    }
    region->owner = control->entry.owner;
    region->group = control->entry.group;
    region->mode = control->entry.mode;
    batch_range_add(core, tx, entry_address(region->catalog_place), &control->entry, sizeof(control->entry));
    batch_tx_end(core, tx);
    if (control->entry.live == 0) {
        SOMETIMES(REGION_DROPPED);
        core->region_count--;
    } else if (control->request.header.kind == REQUEST_REGION_GROW) {
        SOMETIMES(REGION_GROWN);
    }
    region->admitted_live = control->entry.live != 0;
    region->size = control->entry.size;
    struct reply *reply = batch_reply_add(core->building, control->token);
    reply->region = region->number;
    reply->receipt.index = core->building->index;
    reply->receipt.epoch = core->epoch;
    control->state = CONTROL_IDLE;
}

void catalog_continue(struct core *core) {
    struct control *control = &core->control;
    if (control->state != CONTROL_APPEND || cluster_held(core)) {
        return;
    }
    if (core->cluster.on && !core->serving) { /* the lead was lost */
        if (core->effects->replies == NULL || core->effects->replies == core->immediate) {
            control_fail(core, SHELF_UNAVAILABLE, REASON_NOT_PRIMARY);
        } else {
            core->effects->more = true;
        }
        return;
    }
    size_t bytes = sizeof(struct record_tx) + 2 * sizeof(struct record_range) + sizeof(control->entry) + 8;
    switch (batch_room(core, bytes)) {
    case ROOM_YES:
        control_append(core);
        break;
    case ROOM_WAIT:
        break; /* tried again in the next step */
    case ROOM_NO_SPACE:
    case ROOM_NEVER:
        if (core->effects->replies == NULL || core->effects->replies == core->immediate) {
            control_fail(core, SHELF_NO_SPACE, REASON_LOG_FULL);
        }
        break;
    }
}

/* ---- From the log -------------------------------------------------------------------------------------------------- */

/* On a backup what is applied is all that there is. */
static void entry_follow(struct region *region, const struct catalog_entry *entry, uint64_t address) {
    region->admitted_live = entry->live != 0;
    region->catalog_place = (uint32_t)((shelf_addr_offset(address) - SYSTEM_CATALOG_OFFSET) / sizeof(*entry));
    region->size = entry->size;
    region->created_index = entry->created_index;
    region->owner = entry->owner;
    region->group = entry->group;
    region->mode = entry->mode;
    memcpy(region->name, entry->name, sizeof(region->name));
    region->name[sizeof(region->name) - 1] = 0;
}

/* A catalog entry has been applied at `index`: readers see the change from now on. */
static void entry_applied(struct core *core, uint64_t index, uint64_t address,
                          const struct catalog_entry *entry) {
    struct region *region = entry->region == REGION_SYSTEM ? NULL : region_find(core, entry->region);
    if (region == NULL) {
        return;
    }
    if (core->cluster.on && !core->serving) {
        entry_follow(region, entry, address);
    }
    struct region_view *view = &core->image->regions[region->number];
    if (entry->live == 0) {
        region->applied_live = false;
        apply_region_changed(core, region); /* who waits for changes of it waits no longer */
        core->checkpoint.wanted = true;     /* so that files and memory are freed soon */
        atomic_store_explicit(&view->state, REGION_DROPPED, memory_order_release);
        return;
    }
    region->size_applied = entry->size;
    if (!region->applied_live) {
        region->applied_live = true;
        region_publish(core, region, index);
    } else {
        atomic_store_explicit(&view->size, entry->size, memory_order_release);
    }
}

bool catalog_has(uint64_t address) {
    uint64_t offset = shelf_addr_offset(address);
    return shelf_addr_region(address) == REGION_SYSTEM && offset >= SYSTEM_CATALOG_OFFSET &&
           offset < SYSTEM_SESSIONS_OFFSET;
}

/* From the record's bytes, not the image's: within one record a place may be freed and taken by another region. */
void catalog_applied(struct core *core, uint64_t index, uint64_t address, const void *bytes, uint32_t size) {
    if (size != sizeof(struct catalog_entry)) {
        return;
    }
    struct catalog_entry entry;
    memcpy(&entry, bytes, sizeof(entry));
    entry_applied(core, index, address, &entry);
}

bool catalog_needs_map(struct core *core, const uint8_t *payload, size_t size,
                       struct catalog_entry *ret_entry) {
    size_t at = 0;
    while (size - at >= sizeof(struct record_tx)) {
        const struct record_tx *tx = (const struct record_tx *)(payload + at);
        at += sizeof(*tx);
        size_t end = at + min_u64(tx->size, size - at);
        while (end - at >= sizeof(struct record_range)) {
            const struct record_range *range = (const struct record_range *)(payload + at);
            at += sizeof(*range);
            if (align_up(range->size, 8) > end - at) {
                return false; /* apply_payload_valid() will say so */
            }
            if (catalog_has(range->address) && range->size == sizeof(*ret_entry)) {
                memcpy(ret_entry, range + 1, sizeof(*ret_entry));
                const struct region *region = region_find(core, ret_entry->region);
                if (ret_entry->live != 0 &&
                    (region == NULL || !region->mapped || region->size_mapped < ret_entry->size)) {
                    return true;
                }
            }
            at += align_up(range->size, 8);
        }
        at = end;
    }
    return false;
}

/* Numbers given out are counted: no region may have one that is to be given out yet (T2). */
static bool numbers_sane(const struct core *core) {
    uint64_t used = core->region_numbers_used;
    for (uint32_t place = 1; place < REGION_PLACES && used <= REGION_NUMBERS - 2; place++) {
        if (core->regions[place].number >= 2 + used) {
            return false;
        }
    }
    return used <= REGION_NUMBERS - 2;
}

/* After recovery: the admitted state is what the image's catalog says. */
void catalog_mirror_rebuild(struct core *core) {
    const uint8_t *system = core->regions[0].memory.data;
    struct system_header header;
    memcpy(&header, system, sizeof(header));
    core->region_numbers_used = header.region_numbers_used;
    core->region_count = 0;
    if (!numbers_sane(core)) {
        core_stop(core, SHELF_CORRUPT, "catalog", "its count of region numbers makes no sense",
                  (struct file_id){.kind = FILE_PAGES, .region = REGION_SYSTEM}, 0, core->applied);
        return;
    }
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        struct catalog_entry entry;
        memcpy(&entry, system + SYSTEM_CATALOG_OFFSET + place * sizeof(entry), sizeof(entry));
        struct region *region = entry.live != 0 ? region_find(core, entry.region) : NULL;
        if (entry.live == 0) {
            continue;
        }
        if (region == NULL || entry.region == REGION_SYSTEM || !region->mapped ||
            region->size_mapped < entry.size) {
            core_stop(core, SHELF_CORRUPT, "catalog",
                      "a region of the catalog has no image in the checkpoint",
                      (struct file_id){.kind = FILE_ROOTS, .region = entry.region}, 0, core->applied);
            return;
        }
        region->admitted_live = region->applied_live = true;
        region->catalog_place = place;
        region->size = region->size_applied = entry.size;
        region->size_max = entry.size_max;
        region->created_index = entry.created_index;
        region->owner = entry.owner;
        region->group = entry.group;
        region->mode = entry.mode;
        memcpy(region->name, entry.name, sizeof(region->name));
        region->name[sizeof(region->name) - 1] = 0;
        core->region_count++;
    }
}

/* ---- Look-ups ------------------------------------------------------------------------------------------------------ */

static void info_fill(const struct core *core, const struct region *region,
                      struct shelf_region_info *ret_info) {
    struct catalog_entry entry; /* as applied: what is admitted is nobody's business yet (C2) */
    memcpy(&entry, core->regions[0].memory.data + shelf_addr_offset(entry_address(region->catalog_place)),
           sizeof(entry));
    *ret_info = (struct shelf_region_info){
        .region = (shelf_region)region->number,
        .size = region->size_applied,
        .size_max = region->size_max,
        .floor = atomic_load_explicit(&core->image->regions[region->number].floor, memory_order_relaxed),
        .owner = entry.owner,
        .group = entry.group,
        .mode = entry.mode};
    memcpy(ret_info->name, region->name, sizeof(ret_info->name));
    ret_info->name[SHELF_NAME_MAX] = 0;
}

bool core_region_get(const struct core *core, uint32_t number, struct shelf_region_info *ret_info) {
    const struct region *region = number == REGION_SYSTEM ? NULL : region_find(core, number);
    if (region == NULL || !region->applied_live) {
        return false;
    }
    info_fill(core, region, ret_info);
    return true;
}

static bool names_equal(const char *a, const char *b) {
    for (size_t i = 0; i <= SHELF_NAME_MAX; i++) {
        if (a[i] != b[i]) {
            return false;
        }
        if (a[i] == 0) {
            return true;
        }
    }
    return false;
}

bool core_region_find(const struct core *core, const char *name, struct shelf_region_info *ret_info) {
    for (uint32_t place = 1; place < REGION_PLACES; place++) {
        if (core->regions[place].applied_live && names_equal(core->regions[place].name, name)) {
            info_fill(core, &core->regions[place], ret_info);
            return true;
        }
    }
    return false;
}

size_t core_region_list(const struct core *core, struct shelf_region_info *ret_infos, size_t count_max) {
    size_t count = 0;
    for (uint32_t number = REGION_SYSTEM + 1; number < 2 + core->region_numbers_used; number++) {
        const struct region *region = region_find(core, number);
        if (region == NULL || !region->applied_live) {
            continue;
        }
        if (count < count_max) {
            info_fill(core, region, &ret_infos[count]);
        }
        count++;
    }
    return count;
}

bool core_region_known(const struct core *core, uint32_t number) {
    return region_find(core, number) != NULL;
}
