// SPDX-License-Identifier: Apache-2.0
/*
 * cmd_load.c: `shelf load`: a new region out of a dump.
 *
 *   1. A file is read through once and all of its checksums are checked before the shelf is touched. A pipe cannot be.
 *   2. The region is made and filled in transactions of some MiB; each chunk is checked before it is written.
 *   3. Its first chunk is written last, in the transaction after which the region is complete: so a load that is killed
 *      leaves a region without its beginning, which no structure takes for formatted. A load that fails drops it.
 *
 * About numbers: an address that a program has stored contains the number of its region. What Shelf itself stores in a
 * region (allocator, roots, maps, streams) does not. So a region all of whose roots are maps and streams may get
 * another number; any other one is refused, unless the user knows better (--renumber), or has numbers used up until the
 * right one comes (--same-number).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/arguments.h"
#include "cmd/dump_file.h"
#include "cmd/output.h"
#include "cmd/shelf_use.h"
#include "structure/layout.h"
#include "wire/limits.h"

#define TX_CHUNKS 4u

struct load {
    const struct call *call;
    const char *path;
    const char *name; /* of the new region */
    FILE *in;
    const char *source;
    struct dump_reader reader;
    uint8_t *buffer;               /* of the reader */
    uint8_t *first;                /* bytes of the first chunk, kept back */
    struct dump_chunk first_chunk; /* size 0: there is none, all of the region is zero */
    bool movable;                  /* nothing in it depends on its number, as far as can be seen */
    struct progress progress;
    shelf *s;
    shelf_region region;
    bool made;
    uint64_t index; /* of the last commit */
};

static size_t file_read(void *context, void *to, size_t size) {
    return fread(to, 1, size, context);
}

static int dump_refuse(const struct load *load) {
    if (interrupt_seen()) {
        return EXIT_INTERRUPTED;
    }
    if (ferror(load->in)) {
        return fail(load->call, SHELF_IO, "%s cannot be read: %s", load->source, strerror(errno));
    }
    return fail(load->call, SHELF_CORRUPT, "%s: %s; nothing was loaded, make another dump", load->source,
                load->reader.why);
}

/* ---- Before anything is written ------------------------------------------------------------------------------------ */

static int in_open(struct load *load) {
    const char *source = call_argument(load->call, 2);
    if (!source || strcmp(source, "-") == 0) {
        load->in = stdin;
        load->source = "standard input";
        return isatty(STDIN_FILENO)
                   ? fail(load->call, SHELF_INVALID, "a dump does not come from a terminal; name a file")
                   : 0;
    }
    load->in = fopen(source, "rb");
    load->source = source;
    if (!load->in) {
        return fail(load->call, errno == ENOENT ? SHELF_NOT_FOUND : SHELF_IO, "%s: %s", source,
                    strerror(errno));
    }
    return 0;
}

static int header_read(struct load *load) {
    if (!dump_read_begin(&load->reader, file_read, load->in, load->buffer)) {
        return dump_refuse(load);
    }
    const char *wanted = call_argument(load->call, 1);
    if (strcmp(wanted, load->reader.header.name) != 0) {
        return fail(load->call, SHELF_NOT_FOUND,
                    "%s has region '%s'; to load it under another name use `shelf load %s %s %s --as NAME`",
                    load->source, load->reader.header.name, load->path, load->reader.header.name,
                    load->source);
    }
    return 0;
}

/* Reads all of a file that can be read again. */
static int file_check(struct load *load) {
    struct dump_chunk chunk;
    enum dump_step step;
    if (fseek(load->in, 0, SEEK_SET) != 0) {
        return 0; /* a pipe */
    }
    int code = header_read(load);
    if (code != 0) {
        return code;
    }
    progress_begin(&load->progress, "checking", load->reader.header.size);
    do {
        step = dump_read_next(&load->reader, &chunk);
        progress_add(&load->progress, step == DUMP_CHUNK ? chunk.size : 0);
    } while (step == DUMP_CHUNK && !interrupt_seen());
    progress_end(&load->progress);
    if (interrupt_seen()) {
        return EXIT_INTERRUPTED;
    }
    rewind(load->in);
    return step == DUMP_END ? 0 : dump_refuse(load);
}

/* ---- Numbers ------------------------------------------------------------------------------------------------------- */

/* Are all roots of the region maps and streams? Looks at its first bytes only, and trusts nothing in them. */
static bool is_movable(const uint8_t *bytes, size_t size) {
    struct region_head head;
    if (size < ROOTS_OFFSET + ROOTS_MAX * sizeof(struct root_slot)) {
        return false;
    }
    memcpy(&head, bytes + REGION_HEAD_OFFSET, sizeof(head));
    if (head.magic != REGION_MAGIC) {
        return false;
    }
    for (size_t i = 0; i < ROOTS_MAX; i++) {
        struct root_slot slot;
        memcpy(&slot, bytes + ROOTS_OFFSET + i * sizeof(slot), sizeof(slot));
        bool ours = slot.type == MAP_MAGIC || slot.type == STREAM_MAGIC;
        if (slot.state == ROOT_TAKEN && (!ours || shelf_addr_region(slot.address) != 0)) {
            return false;
        }
    }
    return true;
}

static int number_refuse(const struct load *load) {
    return fail(
        load->call, SHELF_LAYOUT,
        "the region was number %u and would become number %u; it is not made of maps and streams alone, so "
        "addresses in it may contain its number. Use --same-number to use up numbers until %u comes, or "
        "--renumber if its program stores no addresses",
        load->reader.header.region, load->region, load->reader.header.region);
}

static int region_make(struct load *load) {
    const struct dump_header *header = &load->reader.header;
    bool same = call_option(load->call, "same-number") != NULL;
    for (;;) {
        shelf_result result =
            shelf_region_create(load->s, load->name, header->size, header->size_max, &load->region);
        if (result != SHELF_OK) {
            return fail_call(load->call, result, "%s: region '%s' cannot be made", load->path, load->name);
        }
        load->made = true;
        if (!same || load->region == header->region) {
            break;
        }
        bool passed = load->region > header->region;
        result = shelf_region_drop(load->s, load->name);
        load->made = result != SHELF_OK;
        if (passed) {
            return fail(load->call, SHELF_EXISTS,
                        "%s has used number %u already; load it into a new shelf, or see --renumber",
                        load->path, header->region);
        }
        if (result != SHELF_OK || interrupt_seen()) {
            return result == SHELF_OK ? EXIT_INTERRUPTED : fail_call(load->call, result, "%s", load->path);
        }
    }
    bool moves = load->region != header->region;
    return moves && !load->movable && !call_option(load->call, "renumber") ? number_refuse(load) : 0;
}

/* ---- Filling ------------------------------------------------------------------------------------------------------- */

static int write_refuse(const struct load *load, shelf_result result) {
    return fail_call(load->call, result, "%s: region '%s' cannot be filled", load->path, load->name);
}

/* Writes chunks until `ret_end` or a transaction's worth. The first chunk of all is kept back. */
static int chunks_write(struct load *load, shelf_tx *tx, bool *ret_end) {
    for (unsigned i = 0; i < TX_CHUNKS && !*ret_end; i++) {
        struct dump_chunk chunk;
        enum dump_step step = dump_read_next(&load->reader, &chunk);
        if (step == DUMP_BAD) {
            return dump_refuse(load);
        }
        *ret_end = step == DUMP_END;
        if (step == DUMP_CHUNK) {
            shelf_result result =
                shelf_write(tx, shelf_addr_make(load->region, chunk.offset), load->buffer, chunk.size);
            if (result != SHELF_OK) {
                return write_refuse(load, result);
            }
            progress_add(&load->progress, chunk.size);
        }
    }
    if (*ret_end && load->first_chunk.size > 0) {
        shelf_addr to = shelf_addr_make(load->region, load->first_chunk.offset);
        shelf_result result = shelf_write(tx, to, load->first, load->first_chunk.size);
        return result == SHELF_OK ? 0 : write_refuse(load, result);
    }
    return 0;
}

static int region_fill(struct load *load, bool end) {
    progress_begin(&load->progress, "loading", load->reader.header.size);
    while (!end) {
        shelf_tx *tx;
        struct shelf_receipt receipt = {0};
        if (interrupt_seen()) {
            return EXIT_INTERRUPTED;
        }
        shelf_result result = shelf_begin(load->s, SHELF_READ_WRITE, &tx);
        if (result != SHELF_OK) {
            return write_refuse(load, result);
        }
        int code = chunks_write(load, tx, &end);
        if (code != 0) {
            shelf_abort(tx);
            return code;
        }
        result = shelf_commit(tx, &receipt);
        if (result != SHELF_OK) {
            return write_refuse(load, result);
        }
        load->index = receipt.index;
    }
    progress_end(&load->progress);
    return 0;
}

/* The first chunk tells what the region is made of. `ret_end`: there is no chunk at all. */
static int first_read(struct load *load, bool *ret_end) {
    struct dump_chunk *chunk = &load->first_chunk;
    enum dump_step step = dump_read_next(&load->reader, chunk);
    if (step == DUMP_BAD) {
        return dump_refuse(load);
    }
    *ret_end = step == DUMP_END;
    if (step == DUMP_END) {
        load->movable = true; /* all zero: there are no addresses in it */
        return 0;
    }
    memcpy(load->first, load->buffer, chunk->size);
    load->movable = chunk->offset == 0 && is_movable(load->first, chunk->size);
    return 0;
}

/* ---- The whole ----------------------------------------------------------------------------------------------------- */

static int load_report(const struct load *load) {
    const struct dump_header *header = &load->reader.header;
    bool moved = load->region != header->region;
    if (load->call->json) {
        return json_finish(stdout,
                           json_pack("{s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:b}", "region", load->name,
                                     "number", (int)load->region, "number_before", (int)header->region,
                                     "size", (json_int_t)header->size, "dump_index",
                                     (json_int_t)header->index, "dump_epoch", (json_int_t)header->epoch,
                                     "index", (json_int_t)load->index, "renumbered", (int)moved));
    }
    char size[SIZE_TEXT_MAX];
    (void)printf(
        "%s: region '%s', number %u, %s, as it was at index %llu of the shelf that it was dumped from\n",
        load->path, load->name, load->region, size_text(header->size, size),
        (unsigned long long)header->index);
    if (moved) {
        remark(load->call,
               "note: it was number %u. Shelf's own structures do not depend on it; addresses that a program "
               "stored as "
               "values do, and were not changed",
               header->region);
    }
    return SHELF_OK;
}

static int load_run(struct load *load) {
    bool end = false;
    int code = file_check(load);
    code = code == 0 ? header_read(load) : code;
    code = code == 0 ? first_read(load, &end) : code;
    if (code != 0) {
        return code;
    }
    shelf_result result = shelf_use_open(load->path, 0, &load->s);
    if (result != SHELF_OK) {
        return shelf_use_refuse(load->call, load->path, result);
    }
    code = region_make(load);
    code = code == 0 ? region_fill(load, end) : code;
    progress_end(&load->progress);
    if (code != 0 && load->made) {
        region_undo(load->call, load->s, load->name);
    }
    result = shelf_use_close(load->s);
    if (code == 0 && result != SHELF_OK) {
        code = fail_call(load->call, result, "%s: closing it", load->path);
    }
    return code == 0 ? load_report(load) : code;
}

int cmd_load(const struct call *call) {
    struct load load = {.call = call, .path = path_plain(call_argument(call, 0))};
    const char *as = call_option(call, "as");
    load.name = as ? as : call_argument(call, 1);
    load.buffer = malloc(DUMP_CHUNK_BYTES_MAX);
    load.first = malloc(DUMP_CHUNK_BYTES_MAX);
    interrupt_watch();
    int code = load.buffer && load.first ? in_open(&load) : fail(call, SHELF_NO_MEMORY, "no memory");
    if (code == 0) {
        code = load_run(&load);
    }
    if (load.in && load.in != stdin) {
        (void)fclose(load.in);
    }
    free(load.buffer);
    free(load.first);
    return code;
}
