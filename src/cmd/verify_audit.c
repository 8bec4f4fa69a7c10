// SPDX-License-Identifier: Apache-2.0
/*
 * verify_audit.c: the second half of `shelf verify`: opens the shelf and checks what is in its regions.
 */
#include <stdlib.h>
#include <string.h>

#include "cmd/shelf_use.h"
#include "cmd/verify.h"

static const char todo_audit[] =
    "stop changing it; dump what is still readable, drop it, and load a good dump";

struct audit {
    struct verify *verify;
    shelf_tx *tx;
    const struct shelf_region_info *info;
    uint64_t maps, entries, streams, others;
};

static void audit_finding(const struct audit *audit, const char *what, const char *name) {
    char file[64];
    (void)snprintf(file, sizeof(file), "region %u", audit->info->region);
    finding_add(&audit->verify->findings, SEVERITY_DAMAGE, file, FINDING_NOWHERE, shelf_tx_index(audit->tx),
                todo_audit, "%.55s of %.55s: %.80s", what, name, shelf_detail());
}

/* What a root's address leads to is known from its type, which the structures' own open compares. */
static void root_audit(struct audit *audit, const struct shelf_root *root) {
    shelf_map map;
    shelf_stream stream;
    shelf_result result = shelf_map_open(audit->tx, audit->info->region, root->name, &map);
    if (result == SHELF_OK) {
        uint64_t count = 0;
        audit->maps++;
        if (shelf_map_verify(audit->tx, map) != SHELF_OK ||
            shelf_map_count(audit->tx, map, &count) != SHELF_OK) {
            audit_finding(audit, "map", root->name);
        }
        audit->entries += count;
        return;
    }
    if (result == SHELF_LAYOUT) {
        result = shelf_stream_open(audit->tx, audit->info->region, root->name, &stream);
        if (result == SHELF_OK) {
            audit->streams++;
            if (shelf_stream_verify(audit->tx, stream) != SHELF_OK) {
                audit_finding(audit, "stream", root->name);
            }
            return;
        }
    }
    audit->others++; /* a program's own */
    if (result != SHELF_LAYOUT) {
        audit_finding(audit, "root", root->name);
    }
}

static void roots_audit(struct audit *audit) {
    struct shelf_root root;
    for (size_t position = 0; !interrupt_seen(); position++) {
        shelf_result result = shelf_root_at(audit->tx, audit->info->region, position, &root);
        if (result == SHELF_NOT_FOUND) {
            return;
        }
        if (result != SHELF_OK) {
            audit_finding(audit, "directory of roots", audit->info->name);
            return;
        }
        root_audit(audit, &root);
    }
}

static json_t *region_audit(struct audit *audit) {
    struct shelf_alloc_audit alloc = {0};
    shelf_result result = shelf_alloc_audit(audit->tx, audit->info->region, &alloc);
    bool formatted =
        result != SHELF_INVALID; /* INVALID: a region that a program uses without the allocator */
    if (result == SHELF_OK) {
        roots_audit(audit);
    } else if (formatted) {
        audit_finding(audit, "allocator", audit->info->name);
    }
    return json_pack("{s:s, s:i, s:I, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name",
                     audit->info->name, "region", (int)audit->info->region, "size",
                     (json_int_t)audit->info->size, "formatted", formatted, "live", (json_int_t)alloc.live,
                     "free", (json_int_t)alloc.free, "overhead", (json_int_t)alloc.overhead, "blocks",
                     (json_int_t)alloc.blocks_live, "maps", (json_int_t)audit->maps, "map_entries",
                     (json_int_t)audit->entries, "streams", (json_int_t)audit->streams, "others",
                     (json_int_t)audit->others);
}

static shelf_result shelf_audit(struct verify *verify, shelf *s) {
    struct shelf_region_info *infos = calloc(SHELF_REGIONS_MAX, sizeof(*infos));
    size_t count = 0;
    shelf_result result = infos ? shelf_region_list(s, infos, SHELF_REGIONS_MAX, &count) : SHELF_NO_MEMORY;
    for (size_t i = 0; i < count && result == SHELF_OK && !interrupt_seen(); i++) {
        struct audit audit = {.verify = verify, .info = &infos[i]};
        result = shelf_begin(s, SHELF_READ_ONLY, &audit.tx);
        if (result == SHELF_OK) {
            (void)json_array_append_new(verify->regions_report, region_audit(&audit));
            shelf_abort(audit.tx);
        }
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
    result = shelf_audit(verify, s);
    shelf_result closed = shelf_close(s);
    return result != SHELF_OK ? result : closed;
}
