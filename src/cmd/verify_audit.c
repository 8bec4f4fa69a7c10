// SPDX-License-Identifier: Apache-2.0
/*
 * verify_audit.c: the second half of `shelf verify`: checks what is in the regions of an open shelf.
 *
 * Each structure is read in a transaction of its own, at one index. Beside a node, programs may change it meanwhile: then again,
 * for a while; what changes faster than it can be read is left out, and said so.
 */
#include <stdlib.h>
#include <string.h>

#include "cmd/shelf_use.h"
#include "cmd/verify.h"
#include "world/world.h"

#define PATIENCE_NS    ((uint64_t)5000000000)
#define ATTEMPTS_LEAST 3

static const char todo_audit[] =
    "stop changing it; dump what is still readable, drop it, and load a good dump";
static const char todo_busy[] = "verify again while less is written";

struct audit {
    struct verify *verify;
    shelf *s;
    shelf_tx *tx;
    const struct shelf_region_info *info;
    bool formatted;
    struct shelf_alloc_sums alloc;
    uint64_t maps, entries, streams, others;
    struct shelf_root root; /* at `position` */
    size_t position;
};

/* No statement about what is stored. */
static bool is_transient(shelf_result result) {
    return result == SHELF_CONFLICT || result == SHELF_UNAVAILABLE;
}

/* OK: there is nothing to find. */
static shelf_result audit_finding(const struct audit *audit, shelf_result result, const char *what,
                                  const char *name) {
    char file[64];
    if (result == SHELF_OK || is_transient(result)) {
        return result;
    }
    (void)snprintf(file, sizeof(file), "region %u", audit->info->region);
    finding_add(&audit->verify->findings, SEVERITY_DAMAGE, file, FINDING_NOWHERE, shelf_tx_index(audit->tx),
                todo_audit, "%.55s of %.55s: %.80s", what, name, shelf_detail());
    return SHELF_OK;
}

static shelf_result map_audit(struct audit *audit, shelf_map map) {
    uint64_t count = 0;
    shelf_result result = shelf_map_verify(audit->tx, map);
    if (result == SHELF_OK) {
        result = shelf_map_count(audit->tx, map, &count);
    }
    if (!is_transient(result)) {
        audit->maps++;
        audit->entries += count;
    }
    return audit_finding(audit, result, "map", audit->root.name);
}

static shelf_result stream_audit(struct audit *audit, shelf_stream stream) {
    shelf_result result = shelf_stream_verify(audit->tx, stream);
    audit->streams += !is_transient(result);
    return audit_finding(audit, result, "stream", audit->root.name);
}

/* What a root's address leads to is known from its type, which the structures' own open compares. NOT_FOUND: that was the last. */
static shelf_result root_audit(struct audit *audit) {
    shelf_map map;
    shelf_stream stream;
    shelf_region region = audit->info->region;
    shelf_result result = shelf_root_at(audit->tx, region, audit->position, &audit->root);
    if (result != SHELF_OK) {
        result = audit_finding(audit, result == SHELF_NOT_FOUND ? SHELF_OK : result, "directory of roots",
                               audit->info->name);
        return result == SHELF_OK ? SHELF_NOT_FOUND : result;
    }
    result = shelf_map_open(audit->tx, region, audit->root.name, &map);
    if (result == SHELF_OK) {
        return map_audit(audit, map);
    }
    if (result == SHELF_LAYOUT) {
        result = shelf_stream_open(audit->tx, region, audit->root.name, &stream);
        if (result == SHELF_OK) {
            return stream_audit(audit, stream);
        }
    }
    if (!is_transient(result)) {
        audit->others++; /* a program's own */
    }
    return result == SHELF_LAYOUT ? SHELF_OK : audit_finding(audit, result, "root", audit->root.name);
}

static shelf_result allocator_audit(struct audit *audit) {
    shelf_result result = shelf_alloc_audit(audit->tx, audit->info->region, &audit->alloc);
    audit->formatted = result != SHELF_INVALID; /* else a region that a program uses without the allocator */
    return audit->formatted ? audit_finding(audit, result, "allocator", audit->info->name) : SHELF_OK;
}

/* One part in a transaction, until nothing comes in between. */
static shelf_result part_audit(struct audit *audit, shelf_result (*part)(struct audit *audit),
                               const char *what) {
    uint64_t until_ns = world_monotonic_ns() + PATIENCE_NS;
    shelf_result result = SHELF_CONFLICT;
    for (int attempt = 0; is_transient(result) && !interrupt_seen() &&
                          (attempt < ATTEMPTS_LEAST || world_monotonic_ns() < until_ns);
         attempt++) {
        result = shelf_begin(audit->s, SHELF_READ_ONLY, &audit->tx);
        if (result != SHELF_OK) {
            return result;
        }
        result = part(audit);
        shelf_abort(audit->tx);
    }
    if (is_transient(result) && !interrupt_seen()) {
        char file[64];
        (void)snprintf(file, sizeof(file), "region %u", audit->info->region);
        finding_add(&audit->verify->findings, SEVERITY_HARMLESS, file, FINDING_NOWHERE, 0, todo_busy,
                    "%.55s of %.55s was changed faster than it could be read, and is not checked", what,
                    audit->info->name);
        return SHELF_OK;
    }
    return result;
}

static shelf_result region_audit(struct audit *audit) {
    shelf_result result = part_audit(audit, allocator_audit, "the allocator");
    while (result == SHELF_OK && audit->formatted && !interrupt_seen()) {
        (void)snprintf(audit->root.name, sizeof(audit->root.name), "root %zu", audit->position);
        result = part_audit(audit, root_audit, audit->root.name);
        audit->position++;
    }
    if (result == SHELF_NOT_FOUND) { /* the last root; or the region was dropped */
        result = SHELF_OK;
    }
    if (result == SHELF_OK) {
        json_t *object = json_pack(
            "{s:s, s:i, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name", audit->info->name,
            "region", (int)audit->info->region, "size", (json_int_t)audit->info->size, "formatted",
            audit->formatted, "live", (json_int_t)audit->alloc.live, "free", (json_int_t)audit->alloc.free,
            "overhead", (json_int_t)audit->alloc.overhead, "blocks", (json_int_t)audit->alloc.blocks_live,
            "maps", (json_int_t)audit->maps, "map_entries", (json_int_t)audit->entries, "streams",
            (json_int_t)audit->streams, "others", (json_int_t)audit->others);
        (void)json_array_append_new(audit->verify->regions_report, object);
    }
    return result;
}

shelf_result verify_audit_open(struct verify *verify, shelf *s) {
    struct shelf_region_info *infos = calloc(SHELF_REGIONS_MAX, sizeof(*infos));
    size_t count = 0;
    shelf_result result = infos ? shelf_region_list(s, infos, SHELF_REGIONS_MAX, &count) : SHELF_NO_MEMORY;
    for (size_t i = 0; i < count && result == SHELF_OK && !interrupt_seen(); i++) {
        struct audit audit = {.verify = verify, .s = s, .info = &infos[i]};
        result = region_audit(&audit);
    }
    free(infos);
    return result;
}

shelf_result verify_audit(struct verify *verify, const char *path) {
    shelf *s;
    shelf_result result = shelf_use_open(path, 0, &s);
    if (result != SHELF_OK) {
        return result;
    }
    result = verify_audit_open(verify, s);
    shelf_result closed = shelf_use_close(s);
    return result != SHELF_OK ? result : closed;
}
