// SPDX-License-Identifier: Apache-2.0
// ours.c: shelves, regions and maps for the benchmarks to work on.
#include "bench.h"

#include <stdlib.h>
#include <string.h>

shelf *ours_open(const char *name, unsigned flags, struct shelf_options options) {
    char where[4096 + 8] = "dir:";
    strncat(where, scratch_path(name), sizeof(where) - sizeof("dir:"));
    options.flags |= flags;
    shelf *s = NULL;
    must(shelf_open(where, &options, &s), "shelf_open");
    return s;
}

shelf *ours_make(const struct bench *b, struct server *server) {
    if (b->where == HERE)
        return ours_open("shelf", SHELF_OPEN_CREATE | SHELF_OPEN_NO_CHECKPOINT, (struct shelf_options){0});
    server_begin(server, "shelf");
    return server_attach(server);
}

void ours_end(const struct bench *b, struct server *server, shelf *s) {
    must(shelf_close(s), "shelf_close");
    if (b->where == ATTACHED)
        server_end(server);
}

// A random cyclic permutation of the lines (Sattolo's shuffle): following it visits each of them.
static uint32_t *cycle_make(size_t lines) {
    uint32_t *next = calloc(lines, sizeof(next[0]));
    if (!next)
        fail("no memory for a chain of %zu lines", lines);
    for (size_t i = 0; i < lines; i++)
        next[i] = (uint32_t)i;
    struct random random;
    random_seed(&random, lines);
    for (size_t i = lines - 1; i > 0; i--) {
        size_t j = random_below(&random, i);
        uint32_t swapped = next[i];
        next[i] = next[j];
        next[j] = swapped;
    }
    return next;
}

shelf_region ours_region_fill(shelf *s, const char *name, uint64_t size, bool chain) {
    const size_t step = (size_t)8 << 20;
    shelf_region region;
    progress("making a region of %llu MiB", (unsigned long long)size >> 20);
    must(shelf_region_create(s, name, size, 0, &region), "shelf_region_create");

    uint32_t *next = chain ? cycle_make((size_t)(size / SHELF_LINE_SIZE)) : NULL;
    unsigned char *bytes = malloc(step);
    if (!bytes)
        fail("no memory for a buffer");
    for (uint64_t at = 0; at < size; at += step) {
        progress("filling the region: %llu MiB", (unsigned long long)at >> 20);
        size_t part = size - at < step ? (size_t)(size - at) : step;
        record_value(at, bytes, part);
        for (size_t line = 0; chain && line < part / SHELF_LINE_SIZE; line++) {
            uint64_t offset = (uint64_t)next[at / SHELF_LINE_SIZE + line] * SHELF_LINE_SIZE;
            memcpy(bytes + line * SHELF_LINE_SIZE, &offset, sizeof(offset));
        }
        shelf_tx *tx;
        must(shelf_begin(s, SHELF_READ_WRITE, &tx), "shelf_begin");
        must(shelf_write(tx, shelf_addr_make(region, at), bytes, part), "shelf_write");
        must(shelf_commit(tx, NULL), "shelf_commit");
    }
    free(bytes);
    free(next);
    return region;
}

shelf_map ours_map_load(shelf *s, const struct records *records) {
    const size_t batch = 2000;
    shelf_region region;
    shelf_map map;
    shelf_tx *tx;
    must(shelf_region_create(s, "records", (uint64_t)512 << 20, 0, &region), "shelf_region_create");
    must(shelf_begin(s, SHELF_READ_WRITE, &tx), "shelf_begin");
    must(shelf_format(tx, region), "shelf_format");
    must(shelf_map_create(tx, region, "records", &map), "shelf_map_create");
    must(shelf_commit(tx, NULL), "shelf_commit");

    unsigned char *value = malloc(records->value_size);
    if (!value)
        fail("no memory for a value");
    for (size_t at = 0; at < records->count; at += batch) {
        progress("loading Shelf: %zu", at);
        must(shelf_begin(s, SHELF_READ_WRITE, &tx), "shelf_begin");
        for (size_t i = at; i < at + batch && i < records->count; i++) {
            struct key key = record_key(i);
            record_value(i, value, records->value_size);
            must(shelf_map_put(tx, map, &key, sizeof(key), value, records->value_size), "shelf_map_put");
        }
        must(shelf_commit(tx, NULL), "shelf_commit");
    }
    free(value);
    // So that no checkpoint of the load runs while something else is measured.
    must(shelf_checkpoint(s, NULL), "shelf_checkpoint");
    return map;
}
