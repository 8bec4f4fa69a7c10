// SPDX-License-Identifier: Apache-2.0
/* cmd_map.c: `shelf put`, `get`, `del`, `scan`: single entries of maps, for people and scripts. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/arguments.h"
#include "cmd/bytes.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"

#define KEY_MAX ((size_t)64 << 10)

/* What a command works on. */
struct entry {
    const struct call *call;
    const char *path;
    char region_name[SHELF_NAME_MAX + 1], map_name[SHELF_NAME_MAX + 1];
    shelf *s;
    shelf_region region;
    bool map_missing; /* the result NOT_FOUND is about the map */
    struct bytes key, value;
    size_t value_max;
    struct shelf_receipt receipt;
    FILE *spool; /* scan's answer */
};

/* ---- Open and close ------------------------------------------------------------------------------------------------ */

static int entry_open(const struct call *call, uint32_t flags, struct entry *ret_entry) {
    *ret_entry = (struct entry){.call = call, .path = path_plain(call_argument(call, 0))};
    const char *place = call_argument(call, 1), *key = call_argument(call, 2);
    if (!place_split(place, ret_entry->region_name, ret_entry->map_name)) {
        return fail(call, SHELF_INVALID,
                    "'%s' is no REGION/MAP: two names with a slash between them, each of 1 to %u bytes",
                    place, SHELF_NAME_MAX);
    }
    int code = key ? bytes_parse(call, key, false, &ret_entry->key) : 0;
    if (code != 0) {
        return code;
    }
    shelf_result result = shelf_use_open(ret_entry->path, flags, &ret_entry->s);
    if (result != SHELF_OK) {
        return shelf_use_refuse(call, ret_entry->path, result);
    }
    result = shelf_region_open(ret_entry->s, ret_entry->region_name, &ret_entry->region);
    return result == SHELF_OK ? 0 : region_refuse(call, ret_entry->path, ret_entry->region_name, result);
}

static int entry_close(struct entry *entry, int code) {
    free(entry->key.at);
    free(entry->value.at);
    return entry->s ? close_finish(entry->call, entry->s, code) : code;
}

static int entry_refuse(const struct entry *entry, shelf_result result) {
    const struct call *call = entry->call;
    if (result == SHELF_NOT_FOUND && entry->map_missing) {
        return fail(call, result, "%s: region '%s' has no map '%s'; `shelf put` makes it", entry->path,
                    entry->region_name, entry->map_name);
    }
    if (result == SHELF_NOT_FOUND) {
        return fail(call, result, "%s: %s/%s has no such key", entry->path, entry->region_name,
                    entry->map_name);
    }
    return fail_call(call, result, "%s: %s/%s", entry->path, entry->region_name, entry->map_name);
}

static shelf_result map_open(shelf_tx *tx, struct entry *entry, shelf_map *ret_map) {
    shelf_result result = shelf_map_open(tx, entry->region, entry->map_name, ret_map);
    entry->map_missing = result == SHELF_NOT_FOUND;
    return result;
}

/* ---- put, del ------------------------------------------------------------------------------------------------------ */

static shelf_result put_body(shelf_tx *tx, void *context) {
    struct entry *entry = context;
    shelf_map map;
    shelf_result result = map_open(tx, entry, &map);
    if (result == SHELF_NOT_FOUND) {
        result = shelf_map_create(tx, entry->region, entry->map_name, &map);
    }
    return result != SHELF_OK
               ? result
               : shelf_map_put(tx, map, entry->key.at, entry->key.size, entry->value.at, entry->value.size);
}

static shelf_result del_body(shelf_tx *tx, void *context) {
    struct entry *entry = context;
    shelf_map map;
    shelf_result result = map_open(tx, entry, &map);
    return result != SHELF_OK ? result : shelf_map_delete(tx, map, entry->key.at, entry->key.size);
}

static int change(struct entry *entry, shelf_body body) {
    shelf_result result = shelf_run(entry->s, SHELF_READ_WRITE, body, entry, 0, &entry->receipt);
    if (result != SHELF_OK) {
        return entry_refuse(entry, result);
    }
    if (entry->call->json) {
        return json_finish(stdout, json_pack("{s:I, s:I, s:I}", "index", (json_int_t)entry->receipt.index,
                                             "epoch", (json_int_t)entry->receipt.epoch, "size",
                                             (json_int_t)entry->value.size));
    }
    return SHELF_OK;
}

int cmd_put(const struct call *call) {
    struct entry entry = {0};
    struct bytes value = {0};
    int code = bytes_parse(call, call_argument(call, 3), true, &value);
    if (code != 0) {
        return code;
    }
    code = entry_open(call, 0, &entry);
    entry.value = value;
    return entry_close(&entry, code != 0 ? code : change(&entry, put_body));
}

int cmd_del(const struct call *call) {
    struct entry entry;
    int code = entry_open(call, 0, &entry);
    return entry_close(&entry, code != 0 ? code : change(&entry, del_body));
}

/* ---- get ----------------------------------------------------------------------------------------------------------- */

static shelf_result get_body(shelf_tx *tx, void *context) {
    struct entry *entry = context;
    shelf_map map;
    shelf_result result = map_open(tx, entry, &map);
    return result != SHELF_OK ? result
                              : shelf_map_get(tx, map, entry->key.at, entry->key.size, entry->value.at,
                                              entry->value_max, &entry->value.size);
}

static json_t *entry_json(const struct bytes *key, const struct bytes *value) {
    json_t *object = json_pack("{s:I}", "size", (json_int_t)value->size);
    bytes_json(object, "key", key);
    bytes_json(object, "value", value);
    return object;
}

static int value_print(const struct entry *entry) {
    bool hex = call_option(entry->call, "hex") != NULL;
    if (entry->call->json) {
        return json_finish(stdout, entry_json(&entry->key, &entry->value));
    }
    bytes_print(stdout, &entry->value, hex);
    if (hex || isatty(STDOUT_FILENO)) {
        (void)putchar('\n');
    }
    return SHELF_OK;
}

int cmd_get(const struct call *call) {
    struct entry entry;
    int code = entry_open(call, SHELF_OPEN_NO_CHECKPOINT, &entry);
    entry.value_max = SHELF_TX_BYTES_MAX;
    entry.value.at = code == 0 ? malloc(entry.value_max) : NULL;
    if (code == 0 && !entry.value.at) {
        code = fail(call, SHELF_NO_MEMORY, "no memory for the value");
    }
    if (code == 0) {
        shelf_result result = shelf_run(entry.s, SHELF_READ_ONLY, get_body, &entry, 0, NULL);
        code = result == SHELF_OK ? value_print(&entry) : entry_refuse(&entry, result);
    }
    return entry_close(&entry, code);
}

/* ---- scan ---------------------------------------------------------------------------------------------------------- */

static void pair_print(const struct entry *entry) {
    bool hex = call_option(entry->call, "hex") != NULL;
    if (entry->call->json) {
        (void)json_finish(entry->spool, entry_json(&entry->key, &entry->value));
        return;
    }
    bytes_print(entry->spool, &entry->key, hex);
    (void)fputc('\t', entry->spool);
    bytes_print(entry->spool, &entry->value, hex);
    (void)fputc('\n', entry->spool);
}

/* Other programs may change the map meanwhile, which ends the transaction. Then it starts anew, a few times; after that it goes on, in
 * another transaction, with the part of the map that was not finished; and if that does not help, with the entry. */
enum { WHOLE_ATTEMPTS = 3, PART_ATTEMPTS = 20, IDLE_ATTEMPTS = 1000 };

struct place {
    struct shelf_map_cursor cursor;
    off_t spooled;
};
struct scan {
    struct entry *entry;
    struct place start; /* of the next transaction */
    struct place part;  /* where the part of the map begins that is being read */
    struct place last;  /* behind the last entry */
    unsigned whole_attempts, part_attempts, idle_attempts;
    unsigned moments; /* transactions whose entries are kept */
};

/* NOT_FOUND: that was all. */
static shelf_result scan_stretch(struct scan *scan, shelf_tx *tx, shelf_map map) {
    struct entry *entry = scan->entry;
    shelf_result result = SHELF_OK;
    scan->last = scan->start;
    if (fseeko(entry->spool, scan->start.spooled, SEEK_SET) != 0) {
        return SHELF_IO;
    }
    while (result == SHELF_OK && !interrupt_seen()) {
        struct shelf_map_cursor cursor = scan->last.cursor;
        result = shelf_map_next(tx, map, &cursor, entry->key.at, KEY_MAX, &entry->key.size, entry->value.at,
                                entry->value_max, &entry->value.size);
        if (result != SHELF_OK) {
            break;
        }
        if (cursor.state[0] != scan->part.cursor.state[0]) {
            scan->part = (struct place){.cursor = {{cursor.state[0]}}, .spooled = scan->last.spooled};
            scan->part_attempts = 0;
        }
        pair_print(entry);
        scan->last = (struct place){.cursor = cursor, .spooled = ftello(entry->spool)};
        scan->idle_attempts = 0;
    }
    return result;
}

/* After a conflict. False: it makes no progress. */
static bool scan_again(struct scan *scan) {
    if (++scan->whole_attempts < WHOLE_ATTEMPTS) {
        *scan = (struct scan){.entry = scan->entry, .whole_attempts = scan->whole_attempts};
        return true;
    }
    scan->start = ++scan->part_attempts < PART_ATTEMPTS ? scan->part : scan->last;
    scan->moments += scan->start.spooled > 0;
    return ++scan->idle_attempts < IDLE_ATTEMPTS;
}

static shelf_result scan_whole(struct scan *scan) {
    struct entry *entry = scan->entry;
    for (;;) {
        shelf_tx *tx;
        shelf_map map;
        shelf_result result = shelf_begin(entry->s, SHELF_READ_ONLY, &tx);
        if (result != SHELF_OK) {
            return result;
        }
        result = map_open(tx, entry, &map);
        if (result == SHELF_OK) {
            result = scan_stretch(scan, tx, map);
        }
        shelf_abort(tx);
        if (result == SHELF_NOT_FOUND && !entry->map_missing) {
            return fflush(entry->spool) == 0 && ftruncate(fileno(entry->spool), scan->last.spooled) == 0
                       ? SHELF_OK
                       : SHELF_IO;
        }
        if (interrupt_seen() || result != SHELF_CONFLICT || !scan_again(scan)) {
            return result;
        }
    }
}

static int spool_show(FILE *spool) {
    char part[65536];
    size_t size;
    rewind(spool);
    while ((size = fread(part, 1, sizeof(part), spool)) > 0) {
        (void)fwrite(part, 1, size, stdout);
    }
    return ferror(spool) ? SHELF_IO : SHELF_OK;
}

static int scan_run(struct entry *entry) {
    entry->value_max = SHELF_TX_BYTES_MAX;
    entry->key.at = malloc(KEY_MAX);
    entry->value.at = malloc(entry->value_max);
    entry->spool = tmpfile();
    if (!entry->key.at || !entry->value.at || !entry->spool) {
        return fail(entry->call, SHELF_NO_MEMORY, "no memory for an entry, or no temporary file");
    }
    interrupt_watch();
    struct scan scan = {.entry = entry};
    shelf_result result = scan_whole(&scan);
    if (interrupt_seen()) {
        return EXIT_INTERRUPTED;
    }
    if (result == SHELF_IO || (result == SHELF_OK && ferror(entry->spool))) {
        return fail(entry->call, SHELF_IO, "the temporary file for the answer cannot be written");
    }
    if (result == SHELF_OK && scan.moments > 0) {
        remark(entry->call,
               "the map was changed meanwhile: what follows is of %u moments, each part of it of one",
               scan.moments + 1);
    }
    if (result == SHELF_CONFLICT) {
        return fail(entry->call, result,
                    "%s: %s/%s is changed faster than it can be read; `shelf dump` takes a copy", entry->path,
                    entry->region_name, entry->map_name);
    }
    return result == SHELF_OK ? spool_show(entry->spool) : entry_refuse(entry, result);
}

int cmd_scan(const struct call *call) {
    struct entry entry;
    int code = entry_open(call, SHELF_OPEN_NO_CHECKPOINT, &entry);
    code = code == 0 ? scan_run(&entry) : code;
    if (entry.spool) {
        (void)fclose(entry.spool);
    }
    return entry_close(&entry, code);
}
