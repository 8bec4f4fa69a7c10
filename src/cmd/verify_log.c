// SPDX-License-Identifier: Apache-2.0
/*
 * verify_log.c: follows the chain of records from the checkpoint to its end, and judges whether that end is the right one.
 *
 * A record is sent only after the one before it is durable. So an end is wrong if the file `hint` names a later record,
 * or if anywhere in the log there is a trace of one; then something that was acknowledged is lost. Otherwise what
 * lies behind the end is a torn write that nobody was told of.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/crc.h"
#include "cmd/log_read.h"
#include "cmd/verify.h"

#define PLACE_NONE UINT32_MAX

struct segment_info {
    enum segment_state state;
    struct segment_header header; /* if good */
};

/* Traces of records behind the end. */
struct evidence {
    uint64_t count, intact, index_max;
    uint64_t first_offset, first_index; /* in the file */
};

struct log_walk {
    struct verify *verify;
    struct disk_file file;
    uint8_t *bytes;  /* of the segment at `loaded` */
    uint32_t loaded; /* or PLACE_NONE */
    uint32_t count;  /* of segments in the file */
    struct segment_info *segments;
    struct log_cursor cursor;
    uint32_t place; /* of the cursor's segment; PLACE_NONE: there is none */
    enum record_state end_state;
    uint64_t end_offset; /* in the file: where the next record was looked for last */
    uint64_t end_index;  /* of what is there instead, if anything */
    struct hint_block hint;
    bool hint_known;
    uint64_t *sizes; /* of regions by number, as of the cursor; NULL: not known */
    const char *range_wrong;
    bool beside;    /* a node that goes on writing: */
    uint64_t until; /* what lies behind this index is none of our business */
};

/* ---- Hint ---------------------------------------------------------------------------------------------------------- */

static bool hint_is_right(const struct hint_block *block, const struct superblock *superblock) {
    struct hint_block copy = *block;
    copy.crc = 0;
    return block->magic == HINT_MAGIC && crc32c(0, &copy, sizeof(copy)) == block->crc &&
           memcmp(block->shelf_id, superblock->shelf_id, sizeof(block->shelf_id)) == 0;
}

static void hint_verify(struct log_walk *walk) {
    static const struct hint_block blank;
    uint32_t alignment = walk->verify->superblock.alignment;
    struct disk_file file = disk_file_open(&walk->verify->disk, "hint");
    for (uint32_t i = 0; i < 2; i++) {
        struct hint_block block;
        char text[DISK_TEXT_MAX];
        enum disk_result result = disk_read(&file, (uint64_t)i * alignment, &block, sizeof(block));
        const char *why = result == DISK_OK ? "fails its checksum" : disk_result_text(&file, result, text);
        if (result == DISK_OK && hint_is_right(&block, &walk->verify->superblock)) {
            if (!walk->hint_known || block.sequence > walk->hint.sequence) {
                walk->hint = block;
            }
            walk->hint_known = true;
        } else if (result != DISK_OK || memcmp(&block, &blank, sizeof(block)) != 0) {
            finding_add(
                &walk->verify->findings, SEVERITY_HARMLESS, file.name, (uint64_t)i * alignment, 0,
                "nothing has to be done: the end of the log is found without it, and it is written anew",
                "block %u of two %s", i, why);
        }
    }
    disk_file_close(&file);
}

/* ---- Segments ------------------------------------------------------------------------------------------------------ */

static void segment_load(struct log_walk *walk, uint32_t place) {
    char text[DISK_TEXT_MAX];
    if (walk->loaded == place) {
        return;
    }
    enum disk_result result =
        disk_read(&walk->file, place * LOG_SEGMENT_BYTES, walk->bytes, (size_t)LOG_SEGMENT_BYTES);
    if (result != DISK_OK) {
        finding_add(&walk->verify->findings, SEVERITY_DAMAGE, walk->file.name, place * LOG_SEGMENT_BYTES, 0,
                    todo_restore, "segment %u %s", place, disk_result_text(&walk->file, result, text));
    }
    walk->loaded = place;
    progress_add(&walk->verify->progress, LOG_SEGMENT_BYTES);
}

static void segments_examine(struct log_walk *walk) {
    for (uint32_t place = 0; place < walk->count; place++) {
        uint8_t bytes[sizeof(struct segment_header)];
        (void)disk_read(&walk->file, place * LOG_SEGMENT_BYTES, bytes, sizeof(bytes));
        walk->segments[place].state = segment_examine(bytes, sizeof(bytes), walk->verify->superblock.shelf_id,
                                                      place, &walk->segments[place].header);
    }
}

/* The segment of that sequence, from `from` on; PLACE_NONE if there is none. */
static uint32_t segment_find(const struct log_walk *walk, uint64_t sequence, uint32_t from) {
    for (uint32_t place = from; place < walk->count && sequence != 0; place++) {
        if (walk->segments[place].state == SEGMENT_GOOD &&
            walk->segments[place].header.sequence == sequence) {
            return place;
        }
    }
    return PLACE_NONE;
}

/* ---- Records ------------------------------------------------------------------------------------------------------- */

static void sizes_rebuild(struct log_walk *walk) {
    memset(walk->sizes, 0, REGION_NUMBERS * sizeof(*walk->sizes));
    walk->sizes[REGION_SYSTEM] = SYSTEM_REGION_BYTES;
    for (uint32_t i = 0; i < SHELF_REGIONS_MAX; i++) {
        const struct catalog_entry *entry = catalog_at(walk->verify->system, i);
        if (entry && catalog_entry_is_sane(entry)) {
            walk->sizes[entry->region] = entry->size;
        }
    }
}

/* Follows the catalog, so that each range can be checked against the size that its region has at that index. */
static bool on_range(void *context, const struct record_range *range, const uint8_t *bytes) {
    struct log_walk *walk = context;
    uint64_t offset = shelf_addr_offset(range->address);
    shelf_region region = shelf_addr_region(range->address);
    if (!range_within(offset, range->size, walk->sizes[region])) {
        walk->range_wrong = "it writes outside of a region";
        return false;
    }
    if (region == REGION_SYSTEM) {
        memcpy(walk->verify->system + offset, bytes, range->size);
        if (offset < SYSTEM_SESSIONS_OFFSET && offset + range->size > SYSTEM_CATALOG_OFFSET) {
            sizes_rebuild(walk);
        }
    }
    return true;
}

static void record_accept(struct log_walk *walk, const struct record_header *record) {
    struct verify_log_summary *summary = &walk->verify->log;
    if (walk->sizes && !payload_walk((const uint8_t *)(record + 1), record->payload_size, record->tx_count,
                                     on_range, walk)) {
        finding_add(&walk->verify->findings, SEVERITY_DAMAGE, walk->file.name,
                    walk->place * LOG_SEGMENT_BYTES + walk->cursor.offset, record->index, todo_restore,
                    "record %llu has the right checksums, but %s", (unsigned long long)record->index,
                    walk->range_wrong);
    }
    summary->records++;
    summary->bytes += record_extent(record, walk->cursor.alignment);
    log_cursor_advance(&walk->cursor, record);
    summary->index = walk->cursor.index;
}

static enum record_state record_look(struct log_walk *walk, uint32_t place, const struct log_cursor *cursor,
                                     const struct record_header **ret_record) {
    segment_load(walk, place);
    return record_examine(walk->bytes, (size_t)LOG_SEGMENT_BYTES, cursor, ret_record);
}

/* On to the segment that begins with the next record. What it begins with is remembered if it is not the record. */
static bool segment_switch(struct log_walk *walk) {
    struct log_cursor next = walk->cursor;
    next.segment_sequence++;
    next.offset = next.alignment;
    for (uint32_t place = 0; (place = segment_find(walk, next.segment_sequence, place)) != PLACE_NONE;
         place++) {
        const struct record_header *record = NULL;
        if (walk->segments[place].header.index_first != walk->cursor.index + 1) {
            continue;
        }
        enum record_state state = record_look(walk, place, &next, &record);
        if (state == RECORD_GOOD) {
            walk->cursor = next;
            walk->place = place;
            return true;
        }
        walk->end_state = state;
        walk->end_index = record ? record->index : 0;
        walk->end_offset = place * LOG_SEGMENT_BYTES + next.offset;
    }
    return false;
}

static void records_follow(struct log_walk *walk) {
    while (!interrupt_seen() && (!walk->beside || walk->cursor.index < walk->until)) {
        const struct record_header *record = NULL;
        walk->end_state = RECORD_NONE;
        walk->end_index = 0;
        if (walk->place != PLACE_NONE) {
            walk->end_state = record_look(walk, walk->place, &walk->cursor, &record);
            walk->end_index = record ? record->index : 0;
            walk->end_offset = walk->place * LOG_SEGMENT_BYTES + walk->cursor.offset;
            if (record && walk->end_state == RECORD_GOOD) {
                record_accept(walk, record);
                continue;
            }
        }
        if (!segment_switch(walk)) {
            return;
        }
    }
}

/* ---- The end ------------------------------------------------------------------------------------------------------- */

/* A record that lies in a place other than its header says. */
static bool is_elsewhere(const struct log_walk *walk, const struct record_header *record, uint32_t place,
                         uint64_t offset) {
    return record->segment_offset != offset ||
           (place == walk->place && record->segment_sequence != walk->cursor.segment_sequence);
}

static void evidence_search(struct log_walk *walk, struct evidence *evidence) {
    for (uint32_t place = 0; place < walk->count && !interrupt_seen(); place++) {
        const struct record_header *record;
        uint64_t at = 0;
        bool whole;
        segment_load(walk, place);
        while ((record = record_search(walk->bytes, (size_t)LOG_SEGMENT_BYTES, &walk->cursor,
                                       walk->cursor.index, &at, &whole)) != NULL) {
            uint64_t offset = at - walk->cursor.alignment;
            if (record->index == walk->cursor.index + 1 && !is_elsewhere(walk, record, place, offset)) {
                continue; /* the torn one itself */
            }
            if (evidence->count == 0 || record->index < evidence->first_index) {
                evidence->first_index = record->index;
                evidence->first_offset = place * LOG_SEGMENT_BYTES + offset;
            }
            evidence->count++;
            evidence->intact += whole;
            evidence->index_max = max_u64(evidence->index_max, record->index);
        }
    }
}

static const char *end_text(const struct log_walk *walk) {
    switch (walk->end_state) {
    case RECORD_TORN:
        return "its contents fail the checksum";
    case RECORD_OTHER:
        return "another record lies there";
    case RECORD_NONSENSE:
        return "its checksums are right, but its contents make no sense";
    case RECORD_NEWER:
        return "it is of a newer format than this program knows";
    case RECORD_NONE:
    case RECORD_GOOD:
        break;
    }
    return "no record begins there";
}

static void end_damage(struct log_walk *walk, const char *how_known, uint64_t how_index) {
    uint64_t missing = walk->cursor.index + 1;
    walk->verify->log.is_whole = false;
    finding_add(&walk->verify->findings, SEVERITY_DAMAGE, walk->file.name, walk->end_offset, missing,
                todo_restore, "record %llu was durable, and %s; it is known from %s %llu",
                (unsigned long long)missing, end_text(walk), how_known, (unsigned long long)how_index);
}

static void evidence_report(struct log_walk *walk, const struct evidence *evidence) {
    end_damage(walk, "a trace of record", evidence->index_max);
    finding_add(&walk->verify->findings, SEVERITY_DAMAGE, walk->file.name, evidence->first_offset,
                evidence->first_index, todo_restore,
                "%llu records up to %llu lie behind the gap, %llu of them intact; the first is %llu",
                (unsigned long long)evidence->count, (unsigned long long)evidence->index_max,
                (unsigned long long)evidence->intact, (unsigned long long)evidence->first_index);
}

/* Was the end of the chain written by a node that closed in peace? Then nothing can follow. */
static bool end_is_clean(const struct log_walk *walk) {
    return walk->hint_known && walk->hint.clean != 0 && walk->hint.index == walk->cursor.index &&
           walk->hint.chain == walk->cursor.chain && walk->hint.epoch == walk->cursor.epoch;
}

static bool end_is_torn(const struct log_walk *walk) {
    uint64_t magic = 0;
    if (walk->end_state == RECORD_NONE && walk->place != PLACE_NONE &&
        walk->cursor.offset + sizeof(magic) <= LOG_SEGMENT_BYTES) {
        (void)disk_read(&walk->file, walk->end_offset, &magic, sizeof(magic));
    }
    return walk->end_state == RECORD_TORN || magic == RECORD_MAGIC;
}

static void end_judge(struct log_walk *walk) {
    struct evidence evidence = {0};
    const struct hint_block *hint = &walk->hint;
    uint64_t next = walk->cursor.index + 1;
    if (!end_is_clean(walk)) {
        evidence_search(walk, &evidence);
    }
    if (evidence.count > 0) {
        evidence_report(walk, &evidence);
    } else if (walk->hint_known && hint->index > walk->cursor.index) {
        end_damage(walk, "the file `hint`, which names record", hint->index);
    } else if (walk->end_state == RECORD_NONSENSE || walk->end_state == RECORD_NEWER) {
        end_damage(walk, "its own header, which says", walk->end_index);
    } else if (walk->hint_known && hint->index == walk->cursor.index &&
               (hint->chain != walk->cursor.chain || hint->epoch != walk->cursor.epoch)) {
        walk->verify->log.is_whole = false;
        finding_add(&walk->verify->findings, SEVERITY_DAMAGE, walk->file.name, walk->end_offset, hint->index,
                    todo_restore, "the last record, %llu, is not the one that the file `hint` names",
                    (unsigned long long)hint->index);
    } else if (end_is_torn(walk)) {
        finding_add(&walk->verify->findings, SEVERITY_HARMLESS, walk->file.name, walk->end_offset, next,
                    "nothing has to be done: it was never acknowledged, the next open cuts it off",
                    "record %llu is torn: the last write before a crash", (unsigned long long)next);
    }
}

/* Headers that fail their checksum hide their segment; where the chain is whole, they only ever were torn writes. */
static void segments_report(struct log_walk *walk) {
    bool whole = walk->verify->log.is_whole;
    for (uint32_t place = 0; place < walk->count; place++) {
        if (walk->segments[place].state == SEGMENT_CHECKSUM) {
            finding_add(&walk->verify->findings, whole ? SEVERITY_HARMLESS : SEVERITY_DAMAGE, walk->file.name,
                        place * LOG_SEGMENT_BYTES, 0, whole ? todo_nothing : todo_restore,
                        "the header of segment %u fails its checksum", place);
        }
    }
}

static void start_find(struct log_walk *walk) {
    const struct superblock *superblock = &walk->verify->superblock;
    walk->cursor = (struct log_cursor){.alignment = superblock->alignment,
                                       .size = superblock->record_size,
                                       .chain = superblock->chain,
                                       .index = superblock->index,
                                       .epoch = superblock->epoch,
                                       .segment_sequence = superblock->segment_sequence,
                                       .offset = superblock->segment_offset};
    memcpy(walk->cursor.shelf_id, superblock->shelf_id, sizeof(walk->cursor.shelf_id));
    walk->verify->log = (struct verify_log_summary){.index = superblock->index, .is_whole = true};
    walk->place = segment_find(walk, superblock->segment_sequence, 0);
    if (walk->place == PLACE_NONE && superblock->segment_sequence != 0) {
        walk->verify->log.is_whole = false;
        finding_add(&walk->verify->findings, SEVERITY_DAMAGE, walk->file.name, FINDING_NOWHERE,
                    superblock->index, todo_restore,
                    "segment number %llu, in which the checkpoint ends, has no valid header",
                    (unsigned long long)superblock->segment_sequence);
    }
}

static void log_walk_run(struct log_walk *walk) {
    struct verify *verify = walk->verify;
    if (verify->superblock.log_anew != LOG_ANEW_NO) {
        verify->log = (struct verify_log_summary){.index = verify->superblock.index, .is_whole = true};
        finding_add(&verify->findings, SEVERITY_HARMLESS, walk->file.name, FINDING_NOWHERE, verify->log.index,
                    "nothing has to be done: the next open begins it anew behind the checkpoint",
                    "the checkpoint came from another node, and what the log holds counts no more");
        return;
    }
    if (!walk->beside) {
        hint_verify(walk);
    }
    segments_examine(walk);
    start_find(walk);
    if (verify->system_whole && walk->sizes) {
        sizes_rebuild(walk);
    } else {
        free(walk->sizes);
        walk->sizes = NULL;
    }
    records_follow(walk);
    if (walk->beside && walk->cursor.index < walk->until && !interrupt_seen()) {
        end_damage(walk, "the node, which says that it has applied record", walk->until);
    } else if (!walk->beside && !interrupt_seen()) {
        end_judge(walk);
        segments_report(walk);
    }
}

static void log_verify(struct verify *verify, bool beside, uint64_t until) {
    struct log_walk *walk = calloc(1, sizeof(*walk));
    if (!walk) {
        return;
    }
    walk->verify = verify;
    walk->beside = beside;
    walk->until = until;
    walk->loaded = walk->place = PLACE_NONE;
    walk->file = disk_file_open(&verify->disk, "log");
    if (beside && walk->file.fd >= 0) { /* the node goes around the system's cache */
        (void)posix_fadvise(walk->file.fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    walk->count = (uint32_t)min_u64(walk->file.length / LOG_SEGMENT_BYTES, LOG_SEGMENTS_MAX);
    verify->progress.total += walk->count * LOG_SEGMENT_BYTES;
    walk->bytes = aligned_alloc(PAGE_SIZE, (size_t)LOG_SEGMENT_BYTES);
    walk->segments = calloc(walk->count + 1u, sizeof(*walk->segments));
    walk->sizes = calloc(REGION_NUMBERS, sizeof(*walk->sizes));
    if (walk->file.fd < 0) {
        char text[DISK_TEXT_MAX];
        finding_add(&verify->findings, SEVERITY_DAMAGE, walk->file.name, FINDING_NOWHERE, 0, todo_restore,
                    "it %s", disk_result_text(&walk->file, disk_read(&walk->file, 0, text, 1), text));
    } else if (walk->bytes && walk->segments) {
        log_walk_run(walk);
    } else {
        finding_add(&verify->findings, SEVERITY_DAMAGE, walk->file.name, FINDING_NOWHERE, 0,
                    "try it with more memory", "there is no memory to read it");
    }
    disk_file_close(&walk->file);
    free(walk->bytes);
    free(walk->segments);
    free(walk->sizes);
    free(walk);
}

void verify_log(struct verify *verify) {
    log_verify(verify, false, 0);
}

void verify_log_beside(struct verify *verify, uint64_t index) {
    log_verify(verify, true, index);
}
