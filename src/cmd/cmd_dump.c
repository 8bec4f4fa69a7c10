// SPDX-License-Identifier: Apache-2.0
/*
 * cmd_dump.c: `shelf dump`: a region as of a checkpoint, while the program that owns the directory goes on.
 *
 *   1. Open the shelf. If another process serves it, ask that one for a checkpoint; else closing it again writes one. (A process
 *      that lets nobody attach cannot be asked: then the last checkpoint has to do.)
 *   2. Hold `checkpoint.lock`: the node begins no checkpoint unless its log is full, it closes, or its program asks for one.
 *   3. Superblock, roots, table, pages, each checked against the level above. What a superblock reaches is not overwritten
 *      before the next one is durable; so if a check fails and the superblock is another one by now, the checkpoint was
 *      overtaken, not damaged: start over with the newer one.
 *
 * A file is written under a temporary name and renamed when it is complete and durable. What has gone into a pipe cannot
 * be taken back: there a dump that was overtaken ends without trailer, and `load` refuses it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/arguments.h"
#include "cmd/checkpoint_read.h"
#include "cmd/dump_file.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"

#define ATTEMPTS_MAX 20

struct dump {
    const struct call *call;
    const char *path, *region_name;
    const char *target; /* file; NULL: standard output */
    char part[4096];    /* temporary name of the file */
    FILE *out;
    struct disk disk;
    long owner;   /* process that runs in the directory, 0: none */
    bool is_last; /* it could not be asked for a checkpoint */
    struct dump_writer writer;
    struct dump_header header;
    struct progress progress;
    bool page_bad; /* the walk ended because of a page or table block, not of the output */
    bool out_failed;
};

/* ---- Output -------------------------------------------------------------------------------------------------------- */

static int out_refuse(const struct dump *dump) {
    return fail(dump->call, errno == ENOSPC || errno == EDQUOT ? SHELF_NO_SPACE : SHELF_IO,
                "%s cannot be written: %s", dump->target ? dump->target : "standard output", strerror(errno));
}

static int part_open(struct dump *dump) {
    int length = snprintf(dump->part, sizeof(dump->part), "%s.XXXXXX", dump->target);
    if (length < 0 || (size_t)length >= sizeof(dump->part)) {
        dump->part[0] = 0;
        return fail(dump->call, SHELF_INVALID, "the name of the file is too long");
    }
    int fd = mkstemp(dump->part);
    if (fd < 0) {
        dump->part[0] = 0;
        return out_refuse(dump);
    }
    dump->out = fdopen(fd, "wb");
    if (!dump->out) {
        (void)close(fd);
        return out_refuse(dump);
    }
    return 0;
}

static int out_open(struct dump *dump) {
    const struct call *call = dump->call;
    const char *target = call_argument(call, 2);
    if (!target || strcmp(target, "-") == 0) {
        dump->out = stdout;
        return isatty(STDOUT_FILENO)
                   ? fail(call, SHELF_INVALID, "a dump is no text for a terminal; name a file, or use a pipe")
                   : 0;
    }
    struct stat status;
    bool is_there = lstat(target, &status) == 0;
    if (is_there && !S_ISREG(status.st_mode)) { /* a rename over it would take a device or a link away */
        return fail(call, SHELF_INVALID,
                    "%s is no regular file; to write into it use `shelf dump %s %s > %s`", target, dump->path,
                    dump->region_name, target);
    }
    if (is_there && !call_option(call, "force")) {
        return fail(call, SHELF_EXISTS, "%s is there already; --force replaces it", target);
    }
    dump->target = target;
    return part_open(dump);
}

/* Empty again, for another attempt. False: that cannot be done. */
static bool out_restart(struct dump *dump) {
    if (!dump->target) {
        return dump->writer.written == 0;
    }
    return fflush(dump->out) == 0 && ftruncate(fileno(dump->out), 0) == 0 &&
           fseek(dump->out, 0, SEEK_SET) == 0;
}

/* Complete and durable under its real name. */
static bool out_publish(struct dump *dump) {
    if (!dump->target) {
        return true;
    }
    bool good = fsync(fileno(dump->out)) == 0;
    good = fclose(dump->out) == 0 && good;
    dump->out = NULL;
    return good && rename(dump->part, dump->target) == 0;
}

static void out_abandon(struct dump *dump) {
    if (!dump->target) {
        return;
    }
    if (dump->out) {
        (void)fclose(dump->out);
    }
    if (dump->part[0]) {
        (void)unlink(dump->part);
    }
}

/* ---- The region ---------------------------------------------------------------------------------------------------- */

static bool on_chunk(void *context, const struct disk_region *region, const struct region_chunk *chunk) {
    struct dump *dump = context;
    (void)region;
    for (uint32_t i = 0; i < chunk->count; i++) {
        if (chunk->states[i] != PAGE_GOOD && chunk->states[i] != PAGE_ZERO) {
            dump->page_bad = true;
            return false;
        }
    }
    size_t size = (size_t)chunk->count * PAGE_SIZE;
    if (!dump_write(&dump->writer, chunk->page * PAGE_SIZE, chunk->bytes, size)) {
        dump->out_failed = true;
        return false;
    }
    progress_add(&dump->progress, size);
    return !interrupt_seen();
}

static void header_fill(struct dump *dump, const struct checkpoint_files *files,
                        const struct catalog_entry *entry) {
    dump->header = (struct dump_header){.index = files->superblock.index,
                                        .epoch = files->superblock.epoch,
                                        .time_ms = files->superblock.time_ms,
                                        .size = entry->size,
                                        .size_max = entry->size_max,
                                        .region = entry->region};
    memcpy(dump->header.shelf_id, files->superblock.shelf_id, sizeof(dump->header.shelf_id));
    (void)snprintf(dump->header.name, sizeof(dump->header.name), "%.*s", (int)SHELF_NAME_MAX, entry->name);
}

static const struct disk_region *region_find(const struct checkpoint_files *files,
                                             const struct catalog_entry *entry) {
    for (size_t i = 0; entry && i < files->region_count; i++) {
        if (files->regions[i].number == entry->region &&
            files->regions[i].page_count == entry->size / PAGE_SIZE) {
            return &files->regions[i];
        }
    }
    return NULL;
}

/* OK, NOT_FOUND, CORRUPT (perhaps overtaken), or IO (output). */
static shelf_result region_write(struct dump *dump, const struct checkpoint_files *files,
                                 char ret_text[DISK_TEXT_MAX]) {
    const struct catalog_entry *entry = catalog_find_name(files->system, dump->region_name);
    const struct disk_region *region = region_find(files, entry);
    struct region_walker walker = {.on_chunk = on_chunk, .context = dump};
    if (!entry || !region) {
        (void)snprintf(ret_text, DISK_TEXT_MAX, "the catalog and the checkpoint contradict each other");
        return entry ? SHELF_CORRUPT : SHELF_NOT_FOUND;
    }
    header_fill(dump, files, entry);
    dump->page_bad = false;
    progress_begin(&dump->progress, "dumping", entry->size);
    dump->out_failed = !dump_write_begin(&dump->writer, dump->out, &dump->header);
    bool whole = !dump->out_failed && region_walk(&dump->disk, region, &walker);
    dump->out_failed = dump->out_failed || (whole && !dump_write_end(&dump->writer));
    progress_end(&dump->progress);
    (void)snprintf(ret_text, DISK_TEXT_MAX, "pages of region '%s' fail their checks", dump->header.name);
    return dump->out_failed ? SHELF_IO : whole ? SHELF_OK : dump->page_bad ? SHELF_CORRUPT : SHELF_ABORTED;
}

static shelf_result attempt(struct dump *dump, uint64_t *ret_sequence, char ret_text[DISK_TEXT_MAX]) {
    struct checkpoint_files files;
    *ret_sequence = checkpoint_sequence(&dump->disk);
    shelf_result result = checkpoint_load(&dump->disk, &files, ret_text);
    if (result == SHELF_OK) {
        *ret_sequence = files.superblock.sequence;
        dump->header.index = files.superblock.index;
        result = region_write(dump, &files, ret_text);
        checkpoint_free(&files);
    }
    return result;
}

static int region_missing(const struct dump *dump) {
    if (!dump->is_last) {
        return region_refuse(dump->call, dump->path, dump->region_name, SHELF_NOT_FOUND);
    }
    return fail(dump->call, SHELF_NOT_FOUND,
                "%s: no region named '%s' in the last checkpoint (index %llu) of process %ld, which writes "
                "one every few "
                "minutes; `shelf list %s` shows what there is",
                dump->path, dump->region_name, (unsigned long long)dump->header.index, dump->owner,
                dump->path);
}

static int dump_report(const struct dump *dump) {
    const struct dump_header *header = &dump->header;
    const char *as_of = dump->is_last ? "last checkpoint" : "present state";
    if (dump->call->json) {
        return json_finish(dump->target ? stdout : stderr,
                           json_pack("{s:s, s:i, s:I, s:I, s:I, s:I, s:s, s:s}", "region", header->name,
                                     "number", (int)header->region, "size", (json_int_t)header->size, "index",
                                     (json_int_t)header->index, "epoch", (json_int_t)header->epoch, "bytes",
                                     (json_int_t)dump->writer.written, "as_of", as_of, "file",
                                     dump->target ? dump->target : "-"));
    }
    char size[SIZE_TEXT_MAX], written[SIZE_TEXT_MAX];
    remark(dump->call, "region '%s' (%s) as of index %llu, epoch %llu (the %s): %s written to %s",
           header->name, size_text(header->size, size), (unsigned long long)header->index,
           (unsigned long long)header->epoch, as_of, size_text(dump->writer.written, written),
           dump->target ? dump->target : "standard output");
    return SHELF_OK;
}

static int dump_run(struct dump *dump) {
    char text[DISK_TEXT_MAX] = "";
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        uint64_t sequence = 0;
        shelf_result result = attempt(dump, &sequence, text);
        if (interrupt_seen()) {
            return EXIT_INTERRUPTED;
        }
        if (result == SHELF_OK) {
            return out_publish(dump) ? dump_report(dump) : out_refuse(dump);
        }
        if (result == SHELF_NOT_FOUND) {
            return region_missing(dump);
        }
        if (dump->out_failed) {
            return out_refuse(dump);
        }
        if (result != SHELF_CORRUPT || checkpoint_sequence(&dump->disk) == sequence) {
            return fail(dump->call, result, "%s: %s; `shelf verify %s` says more", dump->path, text,
                        dump->path);
        }
        if (!out_restart(dump)) {
            return fail(dump->call, SHELF_CONFLICT,
                        "%s: the node overtook the checkpoint; what was written is incomplete, try again (or "
                        "into a file)",
                        dump->path);
        }
    }
    return fail(dump->call, SHELF_CONFLICT,
                "%s: the node overtook the checkpoint %d times; try again when its program writes less",
                dump->path, ATTEMPTS_MAX);
}

/* 0: the checkpoint is as new as it can be. */
static int checkpoint_refresh(struct dump *dump) {
    shelf *s;
    if (path_is_socket(dump->path)) {
        return fail(dump->call, SHELF_INVALID,
                    "%s: a dump is made from the files; name the directory of the shelf", dump->path);
    }
    shelf_result result = shelf_use_open(dump->path, 0, &s);
    if (result == SHELF_BUSY) {
        dump->is_last = true;
        return 0;
    }
    if (result != SHELF_OK) {
        return shelf_use_refuse(dump->call, dump->path, result);
    }
    result = shelf_use_is_node(s) ? SHELF_OK : shelf_checkpoint(s, NULL);
    int code = result == SHELF_OK
                   ? 0
                   : fail_call(dump->call, result, "%s: no checkpoint could be written", dump->path);
    return close_finish(dump->call, s, code);
}

int cmd_dump(const struct call *call) {
    char text[DISK_TEXT_MAX];
    struct dump *dump = calloc(1, sizeof(*dump));
    if (!dump) {
        return fail(call, SHELF_NO_MEMORY, "no memory");
    }
    dump->call = call;
    dump->path = path_plain(call_argument(call, 0));
    dump->region_name = call_argument(call, 1);
    interrupt_watch();
    int code = checkpoint_refresh(dump);
    shelf_result result = code == 0 ? disk_open(&dump->disk, dump->path, text) : SHELF_OK;
    if (result != SHELF_OK) {
        code = fail(call, result, "%s: %s", dump->path, text);
    } else if (code == 0) {
        dump->owner = disk_owner(&dump->disk);
        (void)disk_hold_checkpoint(&dump->disk);
        code = out_open(dump);
        code = code == 0 ? dump_run(dump) : code;
        if (code != 0) {
            out_abandon(dump);
        }
        disk_close(&dump->disk);
    }
    free(dump);
    return code;
}
