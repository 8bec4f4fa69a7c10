// SPDX-License-Identifier: Apache-2.0
/* cmd_map.c: `shelf put`, `get`, `del`, `scan`: single entries of maps, for people and scripts. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/arguments.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"

#define KEY_MAX ((size_t)64 << 10)

struct bytes {
    uint8_t *at; /* owned */
    size_t size;
};

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
};

/* ---- Bytes of arguments -------------------------------------------------------------------------------------------- */

static int hex_digit(char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    if (digit >= 'a' && digit <= 'f') {
        return digit - 'a' + 10;
    }
    return digit >= 'A' && digit <= 'F' ? digit - 'A' + 10 : -1;
}

static bool bytes_of_hex(const char *text, struct bytes *ret_bytes) {
    size_t length = strlen(text);
    uint8_t *at = malloc(length / 2 + 1);
    bool right = at && length % 2 == 0;
    for (size_t i = 0; right && i < length; i += 2) {
        int high = hex_digit(text[i]), low = hex_digit(text[i + 1]);
        right = high >= 0 && low >= 0;
        at[i / 2] = (uint8_t)((unsigned)high << 4 | (unsigned)low);
    }
    if (!right) {
        free(at);
        return false;
    }
    *ret_bytes = (struct bytes){at, length / 2};
    return true;
}

static bool bytes_of_text(const char *text, struct bytes *ret_bytes) {
    ret_bytes->at = (uint8_t *)strdup(text);
    ret_bytes->size = strlen(text);
    return ret_bytes->at != NULL;
}

/* All of standard input, up to one byte more than a value can have. */
static bool bytes_of_stdin(struct bytes *ret_bytes) {
    uint8_t *at = malloc(SHELF_TX_BYTES_MAX + 1);
    if (!at) {
        return false;
    }
    size_t size = fread(at, 1, SHELF_TX_BYTES_MAX + 1, stdin);
    if (ferror(stdin)) {
        free(at);
        return false;
    }
    ret_bytes->at = at;
    ret_bytes->size = size;
    return true;
}

static int bytes_parse(const struct call *call, const char *text, bool from_stdin, struct bytes *ret_bytes) {
    bool hex = call_option(call, "hex") != NULL;
    if (from_stdin && strcmp(text, "-") == 0) {
        return bytes_of_stdin(ret_bytes) ? 0 : fail(call, SHELF_IO, "standard input cannot be read");
    }
    if (hex ? bytes_of_hex(text, ret_bytes) : bytes_of_text(text, ret_bytes)) {
        return 0;
    }
    return fail(call, hex ? SHELF_INVALID : SHELF_NO_MEMORY,
                hex ? "'%s' is no even number of hexadecimal digits" : "no memory for '%s'", text);
}

static void hex_print(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++) {
        (void)printf("%02x", bytes[i]);
    }
}

/* ---- Open and close ------------------------------------------------------------------------------------------------ */

static int entry_open(const struct call *call, uint32_t flags, struct entry *ret_entry) {
    *ret_entry = (struct entry){.call = call, .path = path_plain(call_argument(call, 0))};
    const char *place = call_argument(call, 1), *key = call_argument(call, 2);
    if (!place_split(place, ret_entry->region_name, ret_entry->map_name)) {
        return fail(call, SHELF_INVALID, "'%s' is no REGION/MAP, with names of 1 to %u bytes", place,
                    SHELF_NAME_MAX);
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
    shelf_result result = entry->s ? shelf_close(entry->s) : SHELF_OK;
    free(entry->key.at);
    free(entry->value.at);
    return code != 0 || result == SHELF_OK ? code
                                           : fail_call(entry->call, result, "%s: closing it", entry->path);
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
    const char *key_encoding, *value_encoding;
    json_t *key_json = key->at ? json_bytes(key->at, key->size, &key_encoding) : NULL;
    json_t *value_json = json_bytes(value->at, value->size, &value_encoding);
    json_t *object = json_pack("{s:o, s:s, s:I}", "value", value_json, "value_encoding", value_encoding,
                               "size", (json_int_t)value->size);
    if (key_json) {
        (void)json_object_set_new(object, "key", key_json);
        (void)json_object_set_new(object, "key_encoding", json_string(key_encoding));
    }
    return object;
}

static int value_print(const struct entry *entry) {
    if (entry->call->json) {
        return json_finish(stdout, entry_json(&entry->key, &entry->value));
    }
    bool hex = call_option(entry->call, "hex") != NULL;
    if (hex) {
        hex_print(entry->value.at, entry->value.size);
    } else {
        (void)fwrite(entry->value.at, 1, entry->value.size, stdout);
    }
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
    if (entry->call->json) {
        (void)json_finish(stdout, entry_json(&entry->key, &entry->value));
    } else if (call_option(entry->call, "hex")) {
        hex_print(entry->key.at, entry->key.size);
        (void)putchar('\t');
        hex_print(entry->value.at, entry->value.size);
        (void)putchar('\n');
    } else {
        (void)fwrite(entry->key.at, 1, entry->key.size, stdout);
        (void)putchar('\t');
        (void)fwrite(entry->value.at, 1, entry->value.size, stdout);
        (void)putchar('\n');
    }
}

/* This process is the node and changes nothing meanwhile, so the walk never has to start over. */
static shelf_result scan_run(shelf_tx *tx, struct entry *entry) {
    shelf_map map;
    struct shelf_map_cursor cursor = {0};
    shelf_result result = map_open(tx, entry, &map);
    while (result == SHELF_OK) {
        result = shelf_map_next(tx, map, &cursor, entry->key.at, KEY_MAX, &entry->key.size, entry->value.at,
                                entry->value_max, &entry->value.size);
        if (result == SHELF_OK) {
            pair_print(entry);
        } else if (result == SHELF_NOT_FOUND) {
            return SHELF_OK;
        }
    }
    return result;
}

int cmd_scan(const struct call *call) {
    struct entry entry;
    shelf_tx *tx;
    int code = entry_open(call, SHELF_OPEN_NO_CHECKPOINT, &entry);
    if (code != 0) {
        return entry_close(&entry, code);
    }
    entry.value_max = SHELF_TX_BYTES_MAX;
    entry.key.at = malloc(KEY_MAX);
    entry.value.at = malloc(entry.value_max);
    if (!entry.key.at || !entry.value.at) {
        return entry_close(&entry, fail(call, SHELF_NO_MEMORY, "no memory for an entry"));
    }
    shelf_result result = shelf_begin(entry.s, SHELF_READ_ONLY, &tx);
    if (result == SHELF_OK) {
        result = scan_run(tx, &entry);
        code = result == SHELF_OK ? SHELF_OK : entry_refuse(&entry, result);
        shelf_abort(tx);
    } else {
        code = entry_refuse(&entry, result);
    }
    return entry_close(&entry, code);
}
