// SPDX-License-Identifier: Apache-2.0
/*
 * cmd_verify.c: `shelf verify`.
 *
 *   1. The files, read by code of its own, under the node's lock: superblock, roots, tables, pages, hint, log. Nothing is
 *      written. It goes on after each problem.
 *   2. If they are in order: opens the shelf (which replays the log and ends in a checkpoint, like any open), and audits the
 *      allocator, the maps and the streams of every region.
 *
 * Beside a node that runs: a new checkpoint, the records of the log from there to what the node has applied, and the structures, each
 * at one index. If the node has written another checkpoint meanwhile, again. With --checkpoint only the last one, without asking.
 */
#include <stdlib.h>
#include <string.h>

#include "cmd/arguments.h"
#include "cmd/shelf_use.h"
#include "cmd/verify.h"
#include "world/world.h"

#define OVERTAKEN_MAX 20
#define ROUNDS_SURE   3 /* that damage beside a node must be there, lest it was read while it was written */

/* ---- Report -------------------------------------------------------------------------------------------------------- */

static json_t *findings_json(const struct findings *findings) {
    json_t *list = json_array();
    for (size_t i = 0; i < findings->count; i++) {
        const struct finding *finding = &findings->items[i];
        json_t *object = json_pack("{s:s, s:s, s:s}", "severity",
                                   finding->severity == SEVERITY_DAMAGE ? "damage" : "harmless", "what",
                                   finding->what, "todo", finding->todo);
        if (finding->file[0]) {
            (void)json_object_set_new(object, "file", json_string(finding->file));
        }
        if (finding->offset != FINDING_NOWHERE) {
            (void)json_object_set_new(object, "offset", json_u64(finding->offset));
        }
        if (finding->index != 0) {
            (void)json_object_set_new(object, "index", json_u64(finding->index));
        }
        (void)json_array_append_new(list, object);
    }
    return list;
}

static void report_json(struct verify *verify, shelf_result result, const char *message) {
    const struct superblock *superblock = &verify->superblock;
    json_t *object =
        json_pack("{s:s, s:i, s:s, s:I, s:I, s:o, s:O}", "result", shelf_result_name(result), "code",
                  (int)result, "message", message, "damage", (json_int_t)verify->findings.damage, "harmless",
                  (json_int_t)verify->findings.harmless, "findings", findings_json(&verify->findings),
                  "regions", verify->regions_report);
    if (verify->superblock_known) {
        (void)json_object_set_new(object, "checkpoint",
                                  json_pack("{s:I, s:I, s:I, s:I}", "index", (json_int_t)superblock->index,
                                            "epoch", (json_int_t)superblock->epoch, "sequence",
                                            (json_int_t)superblock->sequence, "pages",
                                            (json_int_t)verify->pages_checked));
    }
    if (verify->log.index != 0) {
        (void)json_object_set_new(object, "log",
                                  json_pack("{s:I, s:I, s:I, s:b}", "index", (json_int_t)verify->log.index,
                                            "records", (json_int_t)verify->log.records, "bytes",
                                            (json_int_t)verify->log.bytes, "whole", verify->log.is_whole));
    }
    (void)json_finish(stdout, object);
}

static void finding_print(const struct finding *finding) {
    bool damage = finding->severity == SEVERITY_DAMAGE;
    (void)printf("%s%s%s", style(stdout, damage ? STYLE_BAD : STYLE_WARN),
                 damage ? "DAMAGE    " : "harmless  ", style(stdout, STYLE_PLAIN));
    if (finding->file[0]) {
        (void)printf("%s", finding->file);
        if (finding->offset != FINDING_NOWHERE) {
            (void)printf(" at %llu", (unsigned long long)finding->offset);
        }
        (void)printf(": ");
    }
    (void)printf("%s", finding->what);
    if (finding->index != 0) {
        (void)printf(" (index %llu)", (unsigned long long)finding->index);
    }
    (void)printf("\n          -> %s\n", finding->todo);
}

static void region_print(const json_t *region) {
    char size[SIZE_TEXT_MAX], live[SIZE_TEXT_MAX];
    json_int_t number = json_integer_value(json_object_get(region, "region"));
    (void)printf("region %s (%lld): %s, ", json_string_value(json_object_get(region, "name")), number,
                 size_text((uint64_t)json_integer_value(json_object_get(region, "size")), size));
    if (!json_is_true(json_object_get(region, "formatted"))) {
        (void)printf("not formatted\n");
        return;
    }
    (void)printf("%s live; blocks %lld, maps %lld (entries %lld), streams %lld, other roots %lld\n",
                 size_text((uint64_t)json_integer_value(json_object_get(region, "live")), live),
                 json_integer_value(json_object_get(region, "blocks")),
                 json_integer_value(json_object_get(region, "maps")),
                 json_integer_value(json_object_get(region, "map_entries")),
                 json_integer_value(json_object_get(region, "streams")),
                 json_integer_value(json_object_get(region, "others")));
}

static void report_text(struct verify *verify, shelf_result result, const char *message) {
    char bytes[SIZE_TEXT_MAX];
    if (verify->superblock_known) {
        (void)printf("checkpoint of index %llu, epoch %llu: %llu pages\n",
                     (unsigned long long)verify->superblock.index,
                     (unsigned long long)verify->superblock.epoch, (unsigned long long)verify->pages_checked);
    }
    if (verify->log.index != 0) {
        (void)printf("log up to index %llu: %llu records after the checkpoint, %s\n",
                     (unsigned long long)verify->log.index, (unsigned long long)verify->log.records,
                     size_text(verify->log.bytes, bytes));
    }
    size_t place;
    json_t *region;
    json_array_foreach(verify->regions_report, place, region) {
        region_print(region);
    }
    for (size_t i = 0; i < verify->findings.count; i++) {
        finding_print(&verify->findings.items[i]);
    }
    size_t more = verify->findings.damage + verify->findings.harmless - verify->findings.count;
    if (more > 0) {
        (void)printf("... and %zu findings more\n", more);
    }
    (void)printf("%s%s%s: %s\n", style(stdout, result == SHELF_OK ? STYLE_GOOD : STYLE_BAD),
                 result == SHELF_OK ? "OK" : shelf_result_name(result), style(stdout, STYLE_PLAIN), message);
}

static shelf_result report(struct verify *verify, shelf_result result, const char *why) {
    char message[512];
    const struct findings *findings = &verify->findings;
    if (findings->damage > 0) {
        result = SHELF_CORRUPT;
        (void)snprintf(message, sizeof(message),
                       "%zu damaged, %zu harmless; keep a copy of the directory before anything else",
                       findings->damage, findings->harmless);
    } else if (result != SHELF_OK) {
        (void)snprintf(message, sizeof(message), "the files are in order, but the shelf cannot be opened: %s",
                       why);
    } else {
        (void)snprintf(message, sizeof(message), "no damage, %zu harmless", findings->harmless);
    }
    if (verify->call->json) {
        report_json(verify, result, message);
    } else {
        report_text(verify, result, message);
    }
    return result;
}

/* ---- What is done -------------------------------------------------------------------------------------------------- */

static void verify_reset(struct verify *verify) {
    findings_free(&verify->findings);
    free(verify->roots);
    free(verify->regions);
    free(verify->system);
    verify->roots = verify->system = NULL;
    verify->regions = NULL;
    verify->region_count = 0;
    verify->pages_checked = 0;
}

static bool is_overtaken(struct verify *verify) {
    return checkpoint_sequence(&verify->disk) != (verify->superblock_known ? verify->superblock.sequence : 0);
}

/* The checkpoint, and with `s` the log behind it. */
static void files_beside(struct verify *verify, shelf *s) {
    struct shelf_info info;
    verify_reset(verify);
    progress_begin(&verify->progress, "checking", 0);
    verify_checkpoint(verify);
    if (s && verify->findings.damage == 0 && verify->superblock_known && !interrupt_seen() &&
        shelf_info_get(s, &info) == SHELF_OK) {
        verify_log_beside(verify, info.applied);
    }
    progress_end(&verify->progress);
}

static int checkpoint_only(struct verify *verify, shelf *s) {
    shelf_result result = SHELF_OK;
    char why[512] = "";
    int sure = 0;
    if (!disk_hold_checkpoint(&verify->disk)) {
        return fail(verify->call, SHELF_DENIED, "%s: the file `checkpoint.lock` cannot be locked",
                    verify->disk.path);
    }
    for (int round = 0; round < OVERTAKEN_MAX && !interrupt_seen(); round++) {
        files_beside(verify, s);
        if (verify->findings.damage > 0 && (is_overtaken(verify) || (s && ++sure < ROUNDS_SURE))) {
            continue;
        }
        if (s && !verify->files_only && verify->findings.damage == 0 && !interrupt_seen()) {
            result = verify_audit_open(verify, s);
            (void)snprintf(why, sizeof(why), "%s",
                           shelf_detail()[0] ? shelf_detail() : shelf_result_text(result));
        }
        return interrupt_seen() ? EXIT_INTERRUPTED : (int)report(verify, result, why);
    }
    return interrupt_seen()
               ? EXIT_INTERRUPTED
               : fail(verify->call, SHELF_CONFLICT,
                      "%s: the node overtook the checkpoint %d times; try again when its program asks for "
                      "fewer checkpoints",
                      verify->disk.path, OVERTAKEN_MAX);
}

/* Asks whoever serves the directory for a checkpoint, then reads that. */
static int beside(struct verify *verify, long owner, bool files_only) {
    shelf *s;
    const char *path = verify->disk.path;
    shelf_result result = shelf_use_attach(path, &s);
    if (result != SHELF_OK) {
        return fail(verify->call, SHELF_BUSY,
                    "%s is in use by process %ld, which lets nobody attach; end it first, or check its last "
                    "checkpoint with "
                    "--checkpoint",
                    path, owner);
    }
    result = shelf_checkpoint(s, NULL);
    if (result != SHELF_OK) {
        return close_finish(verify->call, s,
                            fail_call(verify->call, result, "%s: no checkpoint could be written", path));
    }
    remark(verify->call,
           "%s is served by process %ld: checking its checkpoint of this moment, and what comes after it",
           path, owner);
    verify->files_only = files_only;
    return close_finish(verify->call, s, checkpoint_only(verify, s));
}

static int whole(struct verify *verify, bool files_only) {
    long owner;
    char why[512] = "";
    shelf_result result = disk_lock(&verify->disk, &owner);
    if (result == SHELF_BUSY) {
        return beside(verify, owner, files_only);
    }
    if (result != SHELF_OK) {
        return fail(verify->call, result, "%s: the file `lock` cannot be opened and locked",
                    verify->disk.path);
    }
    progress_begin(&verify->progress, "checking", 0);
    verify_checkpoint(verify);
    if (verify->superblock_known && !interrupt_seen()) {
        verify_log(verify);
    }
    verify_directory(verify);
    progress_end(&verify->progress);
    disk_unlock(&verify->disk);
    if (interrupt_seen()) {
        return EXIT_INTERRUPTED;
    }
    if (world_is_member(verify->disk.path) && !files_only) {
        remark(verify->call,
               "%s is of a node of a cluster: only its shelfd may open it, so its files alone were checked",
               verify->disk.path);
        files_only = true;
    }
    if (verify->findings.damage == 0 && !files_only) {
        result = verify_audit(verify, verify->disk.path);
        (void)snprintf(why, sizeof(why), "%s",
                       shelf_detail()[0] ? shelf_detail() : shelf_result_text(result));
    }
    return interrupt_seen() ? EXIT_INTERRUPTED : (int)report(verify, result, why);
}

int cmd_verify(const struct call *call) {
    char text[DISK_TEXT_MAX];
    const char *path = path_plain(call_argument(call, 0));
    struct verify *verify = calloc(1, sizeof(*verify));
    if (!verify) {
        return fail(call, SHELF_NO_MEMORY, "no memory");
    }
    verify->call = call;
    shelf_result result = disk_open(&verify->disk, path, text);
    if (result != SHELF_OK) {
        free(verify);
        return path_is_socket(path) ? fail(call, SHELF_INVALID,
                                           "%s: the files are checked; name the directory of the shelf", path)
                                    : fail(call, result, "%s: %s", path, text);
    }
    interrupt_watch();
    verify->regions_report = json_array();
    int code = call_option(call, "checkpoint") ? checkpoint_only(verify, NULL)
                                               : whole(verify, call_option(call, "files") != NULL);
    disk_close(&verify->disk);
    verify_reset(verify);
    json_decref(verify->regions_report);
    free(verify);
    return code;
}
