// SPDX-License-Identifier: Apache-2.0
/*
 * replay.c: reads the log behind the checkpoint, applies it, and finds its end.
 *
 * The end is where a record is not valid. Whether it is a *torn tail* (the last write before a crash, never acknowledged;
 * cut off) or *corruption* (it was acknowledged; stop) is decided so:
 *
 *   E1  Record n+1 is sent only after n is durable. So any trace of a record after n says that n was durable.
 *   E2  The hint names a record that was durable. An end before it is corruption.
 *   E3  A record that lies in a place other than its header says is a misdirected write: n was sent and is elsewhere.
 *   E4  If the hint says that the node was closed cleanly at n, nothing can follow: no search.
 *
 * (Protocol-Aware Recovery, Alagappan et al., FAST 2018, section 3.3, makes the same distinction with its own means.)
 * Rot of the very last record before the hint was written cannot be told from a tear; see docs/limits.md.
 */
#include "core/state.h"

static const struct file_id file_log = {.kind = FILE_LOG};
#define CHUNK ((uint64_t)RECOVERY_IO_BYTES)

/* ---- Reading ahead ------------------------------------------------------------------------------------------------- */

/*
 * The scan is a ring of chunks. Offsets count from the begin of the segment that is being replayed; what lies behind its
 * end is the begin of the next one. A read that is under way when the replay leaves its segment is waited for only if its
 * place is needed again.
 */
static uint64_t scan_chunk(const struct recovery *recovery, uint64_t offset) {
    return (recovery->scan_base + offset) / CHUNK;
}

static uint32_t segment_find(const struct core *core, uint64_t sequence) {
    uint32_t place = 0;
    while (place < core->log.segment_count && core->log.segments[place].sequence != sequence) {
        place++;
    }
    return place;
}

static void scan_begin(struct core *core, uint32_t place) {
    struct recovery *recovery = &core->recovery;
    bool ahead = place == recovery->scan_next_place && recovery->scan_issued > LOG_SEGMENT_BYTES;
    if (ahead) {
        SOMETIMES(RECOVERY_READ_AHEAD_KEPT);
    }
    /* What was read ahead for another segment, if anything, has numbers of chunks that are skipped. */
    recovery->scan_base += ahead ? LOG_SEGMENT_BYTES : 2 * LOG_SEGMENT_BYTES;
    recovery->scan_issued =
        ahead ? recovery->scan_issued - LOG_SEGMENT_BYTES : align_down(recovery->at.offset, CHUNK);
    recovery->scan_ready = align_down(recovery->at.offset, CHUNK);
    recovery->scan_place = place;
    recovery->scan_next_place = segment_find(core, recovery->at.segment_sequence + 1);
    recovery->scan_window = max_u64(recovery->scan_window, CHUNK);
}

static void scan_issue(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    uint64_t offset = recovery->scan_issued;
    bool next = offset >= LOG_SEGMENT_BYTES;
    uint64_t in_segment = offset % LOG_SEGMENT_BYTES;
    /* Nothing that is still to be replayed is overwritten. */
    ASSERT(offset + CHUNK <= align_down(recovery->at.offset, CHUNK) + LOG_SEGMENT_BYTES);
    rio->page = scan_chunk(recovery, offset);
    recovery->chunk_busy[rio->page % RECOVERY_CHUNKS] = true;
    recovery->scan_issued += CHUNK;
    recovery_send(
        core, rio,
        (struct io){.kind = IO_READ,
                    .file = file_log,
                    .offset = (next ? recovery->scan_next_place : recovery->scan_place) * LOG_SEGMENT_BYTES +
                              in_segment,
                    .size = CHUNK,
                    .buffer = recovery->scan + in_segment});
}

/* Are the bytes up to `end` there? If not, asks for them; and in any case for some more. */
static bool scan_has(struct core *core, uint64_t end) {
    struct recovery *recovery = &core->recovery;
    bool next = recovery->scan_next_place < core->log.segment_count;
    uint64_t target = max_u64(end, recovery->at.offset + recovery->scan_window);
    target = next ? target : min_u64(target, LOG_SEGMENT_BYTES);
    while (recovery->scan_issued < target &&
           !recovery->chunk_busy[scan_chunk(recovery, recovery->scan_issued) % RECOVERY_CHUNKS]) {
        struct recovery_io *rio = recovery_io_take(core);
        if (rio == NULL) {
            break;
        }
        scan_issue(core, rio);
    }
    while (recovery->scan_ready < recovery->scan_issued &&
           recovery->chunk_read[scan_chunk(recovery, recovery->scan_ready) % RECOVERY_CHUNKS] ==
               scan_chunk(recovery, recovery->scan_ready) + 1) {
        recovery->scan_ready += CHUNK;
    }
    return recovery->scan_ready >= end;
}

static void scan_on_read(struct core *core, const struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    if (rio->page < recovery->scan_base / CHUNK) {
        SOMETIMES(RECOVERY_READ_OUTDATED);
    }
    recovery->chunk_read[rio->page % RECOVERY_CHUNKS] = rio->page + 1;
    recovery->chunk_busy[rio->page % RECOVERY_CHUNKS] = false;
}

/* ---- Records ------------------------------------------------------------------------------------------------------- */

static bool record_header_known(const struct core *core, const struct record_header *header) {
    return header->magic == RECORD_MAGIC && header->header_crc == record_header_crc(header) &&
           memcmp(header->shelf_id, core->superblock.shelf_id, sizeof(header->shelf_id)) == 0;
}

static uint64_t record_space(const struct core *core, const struct record_header *header) {
    return align_up(sizeof(*header) + (uint64_t)header->payload_size, core->superblock.alignment);
}

/* Is this the header of the record that comes next, in its right place? */
static bool record_header_fits(const struct core *core, const struct record_header *header) {
    const struct identity *last = &core->log.last;
    const struct position *at = &core->recovery.at;
    return record_header_known(core, header) && header->format == LOG_FORMAT_VERSION &&
           header->index == last->index + 1 && header->segment_sequence == at->segment_sequence &&
           header->segment_offset == at->offset && header->previous_epoch == last->epoch &&
           header->previous_size == last->size && header->previous_chain == last->chain &&
           header->epoch >= last->epoch && header->payload_size <= LOG_RECORD_BYTES_MAX &&
           record_space(core, header) <= LOG_SEGMENT_BYTES - at->offset;
}

enum step { STEP_APPLIED, STEP_WAITS, STEP_BAD };

/* A region that the payload creates or grows gets its memory first. */
static enum step map_for(struct core *core, const struct catalog_entry *entry) {
    struct recovery_io *rio = recovery_io_take(core);
    if (core->recovery.busy_count > 0 || rio == NULL) {
        return STEP_WAITS; /* read-ahead first; its completion brings us here again */
    }
    struct region *region = region_find(core, entry->region);
    bool sane = entry->region > REGION_SYSTEM && entry->region < REGION_NUMBERS &&
                entry->size <= entry->size_max && entry->size % PAGE_SIZE == 0 &&
                entry->size_max % PAGE_SIZE == 0 && entry->size_max <= SHELF_REGION_BYTES_MAX &&
                (region == NULL || !region->mapped || entry->size_max == region->size_max);
    if (sane && region == NULL) {
        region = region_place_take(core, entry->region);
    }
    if (!sane || region == NULL) {
        core_stop(core, SHELF_CORRUPT, "log", "a record creates a region that cannot be", file_log,
                  core->recovery.at.offset, core->log.last.index + 1);
        return STEP_WAITS;
    }
    rio->region_place = region_place(core, region);
    recovery_send(core, rio,
                  (struct io){.kind = IO_MAP,
                              .file = {.region = region->number},
                              .size = entry->size,
                              .size_max = entry->size_max});
    return STEP_WAITS;
}

/* The record is good: the next one is expected behind it. */
static void record_pass(struct core *core, const struct record_header *header) {
    struct recovery *recovery = &core->recovery;
    SOMETIMES(RECOVERY_REPLAYED);
    core->log.last = record_identity(header);
    core->log.applied_bytes += record_space(core, header);
    core->now_ms = max_u64(core->now_ms, header->time_ms);
    recovery->at.offset += record_space(core, header);
    recovery->records++;
    recovery->switched = false;
    recovery->cut_bytes = 0;
    recovery->scan_window = min_u64(recovery->scan_window * 2, RECOVERY_IOS_LOG * CHUNK);
}

static void record_apply(struct core *core, const struct record_header *header) {
    const uint8_t *payload = (const uint8_t *)(header + 1);
    apply_payload(core, payload, header->payload_size, header->index);
    record_pass(core, header);
    core->applied = header->index;
    core->applied_identity = core->log.last;
    core->applied_position = core->recovery.at;
    apply_publish(core, header->index);
}

/* On a node of a cluster, records behind the commit index may never have been committed. The log is checked first; what is
 * committed of it is applied afterwards (apply_log.c). */
static void record_keep(struct core *core, const struct record_header *header) {
    const struct recovery *recovery = &core->recovery;
    struct position begin = recovery->at;
    record_pass(core, header);
    core->cluster.commit_found = max_u64(core->cluster.commit_found, header->commit_hint);
    tail_add(core, &core->log.last, begin, recovery->at, recovery->scan_place);
}

static enum step record_step(struct core *core) {
    struct recovery *recovery = &core->recovery;
    if (recovery->at.segment_sequence == 0 ||
        recovery->at.offset + sizeof(struct record_header) > LOG_SEGMENT_BYTES) {
        return STEP_BAD; /* before the first segment; at the end of one */
    }
    if (!scan_has(core, recovery->at.offset + sizeof(struct record_header))) {
        return STEP_WAITS;
    }
    const struct record_header *header = (const struct record_header *)(recovery->scan + recovery->at.offset);
    if (!record_header_fits(core, header)) {
        return STEP_BAD;
    }
    if (!scan_has(core, recovery->at.offset + record_space(core, header))) {
        return STEP_WAITS;
    }
    const uint8_t *payload = (const uint8_t *)(header + 1);
    if (record_chain(header, payload, core->log.last.chain) != header->chain && !MUTANT(NO_CHAIN_CHECK)) {
        recovery->cut_bytes = record_space(core, header);
        return STEP_BAD;
    }
    struct catalog_entry entry;
    if (core->cluster.on) {
        record_keep(core, header);
        return STEP_APPLIED;
    }
    if (catalog_needs_map(core, payload, header->payload_size, &entry)) {
        return map_for(core, &entry);
    }
    if (!apply_payload_valid(core, payload, header->payload_size, header->tx_count)) {
        core_stop(core, SHELF_CORRUPT, "log", "a record's checksum is right, but its contents make no sense",
                  file_log, recovery->scan_place * LOG_SEGMENT_BYTES + recovery->at.offset, header->index);
        return STEP_WAITS;
    }
    record_apply(core, header);
    return STEP_APPLIED;
}

/* The next record is not here: does it begin the next segment? */
static bool segment_step(struct core *core) {
    struct recovery *recovery = &core->recovery;
    if (recovery->switched) {
        return false;
    }
    for (uint32_t place = 0; place < core->log.segment_count; place++) {
        const struct segment *segment = &core->log.segments[place];
        if (segment->sequence == recovery->at.segment_sequence + 1 &&
            segment->index_first == core->log.last.index + 1) {
            recovery->switched = true;
            recovery->switched_from = recovery->at;
            recovery->switched_from_place = recovery->scan_place;
            recovery->at = (struct position){.segment_sequence = segment->sequence,
                                             .offset = core->superblock.alignment};
            scan_begin(core, place);
            return true;
        }
    }
    return false;
}

/* ---- The end ------------------------------------------------------------------------------------------------------- */

static void log_corrupt(struct core *core, const char *reason) {
    SOMETIMES(RECOVERY_LOG_CORRUPT);
    core_stop(core, SHELF_CORRUPT, "log", reason, file_log,
              core->recovery.scan_place * LOG_SEGMENT_BYTES + core->recovery.at.offset,
              core->log.last.index + 1);
}

/* A segment's header comes with its first record (G2): one that begins behind the next record is a trace, too (E1). */
static bool segment_later(const struct core *core) {
    for (uint32_t place = 0; place < core->log.segment_count; place++) {
        const struct segment *segment = &core->log.segments[place];
        if (segment->sequence > core->recovery.at.segment_sequence &&
            segment->index_first > core->log.last.index + 1) {
            return true;
        }
    }
    return false;
}

/* Must traces of later records be looked for, or is the end proven? */
static bool evidence_needed(struct core *core) {
    const struct hint_block *hint = &core->recovery.hint;
    const struct identity *last = &core->log.last;
    if (MUTANT(IGNORE_HINT) || !core->recovery.hint_found) {
        return true;
    }
    if (hint->index > last->index) {
        SOMETIMES(RECOVERY_HINT_AHEAD);
        log_corrupt(core, "a record that was durable is missing or fails its checks");
        return false;
    }
    if (hint->index == last->index && (hint->chain != last->chain || hint->epoch != last->epoch)) {
        log_corrupt(core, "the last record is not the one that was durable");
        return false;
    }
    return !(hint->clean && hint->index == last->index); /* E4 */
}

/* The head is where the next record goes; what lies in segments after it was never acknowledged. */
static void head_settle(struct core *core) {
    struct recovery *recovery = &core->recovery;
    struct log *log = &core->log;
    log->head = recovery->at;
    log->head_place = recovery->scan_place;
    log->durable_index = log->last.index;
    log->hint_index = recovery->hint.index;
    for (uint32_t place = 0; place < log->segment_count; place++) {
        struct segment *segment = &log->segments[place];
        bool head = place == log->head_place && log->head.segment_sequence != 0;
        bool old = segment->sequence < core->superblock.segment_sequence && !core->cluster.on;
        if (!head && (segment->sequence >= log->head.segment_sequence || old)) {
            segment->stale = segment->sequence != 0 && segment->sequence >= log->head.segment_sequence;
            segment->sequence = 0;
        }
    }
    if (recovery->cut_bytes > 0) {
        SOMETIMES(RECOVERY_TORN_TAIL_CUT);
    }
}

static bool tail_reached(struct core *core) {
    struct recovery *recovery = &core->recovery;
    if (recovery->switched) { /* the first record of a segment is torn: so is the segment */
        recovery->at = recovery->switched_from;
        recovery->scan_place = recovery->switched_from_place;
        recovery->switched = false;
    }
    recovery->tail_found = true;
    if (!evidence_needed(core) || core->stopped) {
        recovery->evidence_place = core->log.segment_count; /* nothing to search */
    } else if (segment_later(core) && !MUTANT(CUT_CORRUPT_RECORD)) {
        log_corrupt(core, "a record that was durable fails its checks: a later segment has been begun");
    } else {
        recovery->evidence_place = 0;
        recovery->evidence_from = 0;
    }
    return !core->stopped;
}

/* In which stretch of a segment could a later record be? All of it, unless it is known to hold earlier ones. */
static bool evidence_stretch(const struct core *core, uint32_t place, uint64_t *ret_from) {
    const struct recovery *recovery = &core->recovery;
    bool head = place == recovery->scan_place && recovery->at.segment_sequence != 0;
    if (head) {
        *ret_from = align_down(recovery->at.offset, CHUNK);
        return recovery->at.offset < LOG_SEGMENT_BYTES;
    }
    *ret_from = 0;
    uint64_t left = LOG_SEGMENT_BYTES - recovery->at.offset;
    bool could_have_switched = left < LOG_RECORD_BYTES_MAX + 2 * PAGE_SIZE;
    uint64_t sequence = core->log.segments[place].sequence;
    bool earlier = sequence >= core->superblock.segment_sequence && sequence != 0 &&
                   sequence <= recovery->at.segment_sequence;
    return could_have_switched && !earlier;
}

bool evidence_next(struct core *core, struct recovery_io *rio) {
    struct recovery *recovery = &core->recovery;
    for (; recovery->evidence_place < core->log.segment_count && !MUTANT(CUT_CORRUPT_RECORD);
         recovery->evidence_place++) {
        uint64_t from;
        if (evidence_stretch(core, recovery->evidence_place, &from) &&
            recovery->evidence_from < LOG_SEGMENT_BYTES) {
            from = max_u64(from, recovery->evidence_from);
            recovery->evidence_from = from + CHUNK;
            rio->page = recovery->evidence_place;
            recovery_send(core, rio,
                          (struct io){.kind = IO_READ,
                                      .file = file_log,
                                      .offset = recovery->evidence_place * LOG_SEGMENT_BYTES + from,
                                      .size = CHUNK,
                                      .buffer = rio->buffer});
            return true;
        }
        recovery->evidence_from = 0;
    }
    if (recovery->busy_count == 0 && !core->stopped) {
        head_settle(core);
    }
    return false;
}

static void evidence_on_read(struct core *core, const struct recovery_io *rio) {
    const struct recovery *recovery = &core->recovery;
    uint64_t expected = core->log.last.index + 1;
    uint64_t base = rio->io.offset % LOG_SEGMENT_BYTES;
    for (uint64_t at = 0; at < CHUNK; at += core->superblock.alignment) {
        const struct record_header *header = (const struct record_header *)(rio->buffer + at);
        bool head = rio->page == recovery->scan_place && recovery->at.segment_sequence != 0;
        if (header->magic != RECORD_MAGIC || (head && base + at < recovery->at.offset) ||
            !record_header_known(core, header) || header->index < expected) {
            continue;
        }
        bool elsewhere = header->segment_offset != base + at ||
                         (head && header->segment_sequence != recovery->at.segment_sequence);
        if (header->index > expected || elsewhere) { /* E1, E3 */
            log_corrupt(core, "a record that was durable fails its checks: there are later ones");
            return;
        }
    }
}

/* ---- Entrances ----------------------------------------------------------------------------------------------------- */

void replay_start(struct core *core) {
    struct recovery *recovery = &core->recovery;
    const struct superblock *superblock = &core->superblock;
    core->log.last = (struct identity){.index = superblock->index,
                                       .epoch = superblock->epoch,
                                       .size = superblock->record_size,
                                       .chain = superblock->chain};
    core->applied = superblock->index;
    core->applied_identity = core->log.last;
    recovery->at = (struct position){.segment_sequence = superblock->segment_sequence,
                                     .offset = superblock->segment_offset};
    core->applied_position = recovery->at;
    if (core->cluster.on) {
        tail_begin(core, &core->log.last, recovery->at);
        core->cluster.commit_found = max_u64(superblock->index, recovery->hint.index);
    }
    atomic_store_explicit(&core->image->applied, core->applied, memory_order_release);
    if (superblock->segment_sequence == 0) {
        return; /* before the first segment */
    }
    uint32_t place = segment_find(core, superblock->segment_sequence);
    if (place == core->log.segment_count) {
        log_corrupt(core, "the segment that the checkpoint ends in has no valid header");
        return;
    }
    scan_begin(core, place);
}

void replay_on_io(struct core *core, struct recovery_io *rio) {
    if (core->recovery.state == RECOVERY_EVIDENCE) {
        evidence_on_read(core, rio);
    } else {
        scan_on_read(core, rio);
    }
}

bool replay_continue(struct core *core) {
    struct recovery *recovery = &core->recovery;
    while (!core->stopped && !recovery->tail_found) {
        switch (record_step(core)) {
        case STEP_APPLIED:
            break;
        case STEP_WAITS:
            return false;
        case STEP_BAD:
            if (segment_step(core)) {
                break;
            }
            if (recovery->busy_count > 0) {
                return false; /* the end of the read-ahead first */
            }
            tail_reached(core);
            break;
        }
    }
    return !core->stopped;
}
