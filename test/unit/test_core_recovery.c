// SPDX-License-Identifier: Apache-2.0
//
// What a crash, a tear or rot leaves on the disk, and what the core makes of it: the log, the hint, the checkpoint.

#include "core_bed.h"

#include "wire/log_format.h"

enum { ALIGNMENT = 512, MIB = 1 << 20 };

static struct bed *bed;
static uint32_t region;

static uint64_t at(uint64_t offset) {
    return shelf_addr_make((shelf_region)region, offset);
}

static int setup(void **state) {
    (void)state;
    bed = bed_new(ALIGNMENT);
    bed_session(bed);
    region = bed_region(bed, "r", 4 * MIB);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    bed_free(bed);
    return 0;
}

static void write_ok(uint64_t sequence, uint64_t offset, uint32_t size, uint8_t byte) {
    assert_int_equal(bed_result(bed, bed_write(bed, sequence, at(offset), size, byte)), SHELF_OK);
}

// The last record with this index, by its header's place in the log.
static struct record_header *record_find(uint64_t index) {
    uint8_t *log = bed_log(bed);
    uint64_t length = bed_file(bed, (struct file_id){.kind = FILE_LOG})->length;
    struct record_header *found = NULL;
    for (uint64_t offset = 0; offset < length; offset += ALIGNMENT) {
        struct record_header *header = (struct record_header *)(void *)(log + offset);
        if (header->magic == RECORD_MAGIC && header->index == index &&
            (found == NULL || header->epoch > found->epoch)) {
            found = header;
        }
    }
    assert_non_null(found);
    return found;
}

static uint64_t applied(void) {
    return atomic_load(&bed->image->applied);
}

static void test_commits_survive_a_crash(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    write_ok(2, 8, 8, 2);
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(0)), 1);
    assert_int_equal(bed_byte(bed, at(8)), 2);
    // A retry gets its first answer, without effect.
    uint64_t token = bed_write(bed, 2, at(8), 8, 9);
    assert_int_equal(bed_result(bed, token), SHELF_OK);
    assert_true(bed_reply(bed, token)->receipt.replayed);
    assert_int_equal(bed_byte(bed, at(8)), 2);
}

static void test_torn_tail_is_cut(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    write_ok(2, 0, 2000, 2);
    struct record_header *last = record_find(applied());
    ((uint8_t *)last)[1500] ^= 1;
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(0)), 1);
    struct core_status status;
    core_status_get(bed->core, &status);
    assert_true(status.recovered_cut_bytes > 0);
    // Its sequence is free again.
    write_ok(2, 0, 8, 3);
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(0)), 3);
}

// The opening record gets the index of the one that was lost; who has read that one must not commit.
static void test_read_in_a_lost_record_conflicts(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    write_ok(2, 64, 8, 2);
    uint64_t lost = applied();
    struct bed_tx *tx = bed_tx(bed, 3, lost);
    bed_tx_line(tx, at(64) / LINE_SIZE);
    bed_tx_range(tx, at(128), 8, 3);
    ((uint8_t *)record_find(lost))[200] ^= 1;
    bed_reopen(bed);
    assert_int_equal(applied(), lost);
    assert_int_equal(bed_byte(bed, at(64)), 0);
    assert_int_equal(bed_result(bed, bed_tx_send(bed, tx)), SHELF_CONFLICT);
    // Of what has read nothing it can be no matter.
    assert_int_equal(bed_result(bed, bed_write(bed, 3, at(128), 8, 4)), SHELF_OK);
    tx = bed_tx(bed, 4, applied());
    bed_tx_line(tx, at(64) / LINE_SIZE);
    bed_tx_range(tx, at(128), 8, 5);
    assert_int_equal(bed_result(bed, bed_tx_send(bed, tx)), SHELF_OK);
    assert_int_equal(bed_byte(bed, at(128)), 5);
}

static void test_corrupt_middle_record_stops(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    uint64_t index = applied();
    write_ok(2, 0, 8, 2);
    ((uint8_t *)record_find(index))[200] ^= 1;
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "log", "there are later ones");
}

static void test_misdirected_last_record_stops(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    struct record_header *last = record_find(applied());
    memcpy((uint8_t *)last + 4 * ALIGNMENT, last, 2 * ALIGNMENT);
    memset(last, 0, 2 * ALIGNMENT);
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "log", "there are later ones");
}

static void test_hint_ahead_stops(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    bed_tick(bed, 1000);
    bed_tick(bed, 1000);
    bed_run(bed);
    ((uint8_t *)record_find(applied()))[200] ^= 1;
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "log", "missing or fails");
}

static void test_hint_with_another_chain_stops(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    bed_tick(bed, 1000);
    bed_tick(bed, 1000);
    bed_run(bed);
    uint8_t *hints = bed_file(bed, (struct file_id){.kind = FILE_HINT})->bytes;
    for (uint32_t slot = 0; slot < 2; slot++) {
        struct hint_block *hint = (struct hint_block *)(void *)(hints + slot * ALIGNMENT);
        hint->chain ^= 1;
        hint->crc = 0;
        hint->crc = crc32c(0, hint, sizeof(*hint));
    }
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "log", "not the one that was durable");
}

static void test_no_hint_is_no_harm(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    memset(bed_file(bed, (struct file_id){.kind = FILE_HINT})->bytes, 7, 2 * ALIGNMENT);
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(0)), 1);
}

static void close_core(bool checkpoint) {
    bed_step(bed, (struct event){.kind = EVENT_CLOSE, .checkpoint = checkpoint});
    bed_run(bed);
    assert_true(bed->closed);
}

static void test_close_with_and_without_checkpoint(void **state) {
    (void)state;
    for (uint32_t round = 0; round < 3; round++) {
        write_ok(1 + round, 0, 8, (uint8_t)(round + 1));
        close_core(round != 1);
        bed_reopen(bed);
        assert_int_equal(bed_byte(bed, at(0)), round + 1);
    }
}

static void test_hint_without_space_does_not_keep_from_closing(void **state) {
    (void)state;
    bed->fail_kind = IO_WRITE;
    bed->fail_file = FILE_HINT;
    bed->fail_result = IO_RESULT_NO_SPACE;
    bed->fail_count = 1;
    close_core(false);
    bed_reopen(bed);
}

// ---- Segments ------------------------------------------------------------------------------------------------------

static uint64_t sequence_next;

static void fill_until(uint64_t segment_sequence) {
    while (record_find(applied())->segment_sequence < segment_sequence) {
        write_ok(sequence_next, 0, MIB - 8192, (uint8_t)sequence_next);
        sequence_next++;
    }
}

static void test_full_log_waits_for_checkpoint(void **state) {
    (void)state;
    sequence_next = 1;
    bed->held = 1u << FILE_SUPERBLOCK; // checkpoints do not get to their end
    bool refused = false;
    while (!refused) {
        uint64_t token = bed_write(bed, sequence_next, at(0), MIB - 8192, 1);
        refused = bed->effects.refused;
        bed_run(bed);
        assert_true(bed->answered[token] != refused);
        sequence_next += !refused;
    }
    bed->held = 0;
    bed_run(bed);
    write_ok(sequence_next++, 0, 8, 77);
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(0)), 77);
    assert_true(bed_file(bed, (struct file_id){.kind = FILE_LOG})->length == 3 * LOG_SEGMENT_BYTES);
}

static void test_log_goes_round_and_is_replayed(void **state) {
    (void)state;
    sequence_next = 1;
    for (uint64_t segment = 2; segment < 6; segment++) {
        fill_until(segment);
        write_ok(sequence_next++, 64, 8, (uint8_t)segment);
        bed_reopen(bed);
        assert_int_equal(bed_byte(bed, at(64)), segment);
        assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    }
}

// The first record of a segment is torn, the segment's header is not. Its number is given out again, to another place:
// the next recovery must not take the one for the other.
static void test_torn_segment_is_not_mistaken_for_its_successor(void **state) {
    (void)state;
    sequence_next = 1;
    bed->held = 1u << FILE_SUPERBLOCK; // no checkpoint yet
    fill_until(3);                     // places 0, 1, 2 have segments 1, 2, 3
    struct record_header *last = record_find(applied());
    uint8_t *torn = (uint8_t *)last - ALIGNMENT;
    assert_int_equal((uint64_t)(torn - bed_log(bed)) % LOG_SEGMENT_BYTES, 0);
    ((uint8_t *)last)[1000] ^= 1;
    sequence_next--;
    bed_reopen(bed);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK); // segment 1's place is free again, and comes first
    fill_until(3);
    assert_true((uint8_t *)record_find(applied()) < torn);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK); // begins in segment 3
    write_ok(sequence_next++, 128, 8, 99);
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(128)), 99);
}

// The successor of a large record that rots may lie in the next segment, although there seems to be room before.
static void test_rot_before_a_segment_switch_stops(void **state) {
    (void)state;
    bed_free(bed);
    bed = bed_new(ALIGNMENT);
    bed->config.cheap_memory = false; // records of up to 26 MiB
    bed_reopen(bed);
    bed_session(bed);
    region = bed_region(bed, "r", 4 * MIB);
    uint64_t index = 0;
    for (uint32_t large = 0; large < 2; large++) {
        bed->hold_record = true; // 17 MiB in one record
        for (uint64_t i = 0; i < 17; i++) {
            bed->hold_record = i < 16;
            bed_write(bed, 1 + large * 17 + i, at(0), MIB - 8, 5);
        }
        bed_run(bed);
        index = large == 0 ? applied() : index;
    }
    assert_int_equal(record_find(index + 1)->segment_sequence, 2);
    ((uint8_t *)record_find(index))[4096] ^= 1;
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "log", "a later segment has been begun");
}

static void test_rotten_segment_header_stops(void **state) {
    (void)state;
    sequence_next = 1;
    fill_until(2);
    write_ok(sequence_next++, 0, 8, 1);
    bed_log(bed)[LOG_SEGMENT_BYTES + 20] ^= 1;
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "log", "there are later ones");
    bed_log(bed)[LOG_SEGMENT_BYTES + 20] ^= 1;
    bed_reopen(bed);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    bed_log(bed)[LOG_SEGMENT_BYTES + 20] ^= 1;
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "log", "no valid header");
}

static void test_many_openings_find_their_place_in_a_full_log(void **state) {
    (void)state;
    sequence_next = 1;
    bed->held = bed->held_next = 1u << FILE_SUPERBLOCK;
    for (uint32_t size = MIB - 8192; size > 64; size /= 2) {
        for (bool refused = false; !refused;) {
            bed_write(bed, sequence_next, at(0), size, 1);
            refused = bed->effects.refused;
            bed_run(bed);
            sequence_next += !refused;
        }
    }
    for (uint32_t i = 0; i < 140; i++) { // 64 KiB are kept for them; then the file grows
        bed_reopen(bed);
    }
    assert_true(bed_file(bed, (struct file_id){.kind = FILE_LOG})->length > 3 * LOG_SEGMENT_BYTES);
}

// ---- Disk full, disk broken ----------------------------------------------------------------------------------------

static void fail_next(uint32_t kind, uint32_t file, uint32_t result) {
    bed->fail_kind = kind;
    bed->fail_file = file;
    bed->fail_result = result;
    bed->fail_count = 1;
}

static void test_log_write_without_space_is_tried_again(void **state) {
    (void)state;
    fail_next(IO_WRITE, FILE_LOG, IO_RESULT_NO_SPACE);
    uint64_t first = bed_write(bed, 1, at(0), 8, 1);
    bed_run(bed);
    assert_false(bed->answered[first]);
    assert_int_equal(bed_result(bed, bed_write(bed, 2, at(0), 8, 2)), SHELF_NO_SPACE);
    assert_int_equal(bed_result(bed, bed_region_send(bed, REQUEST_REGION_DROP, region, 0, 0, "")),
                     SHELF_NO_SPACE);
    assert_int_equal(bed_result(bed, bed_region_send(bed, REQUEST_REGION_CREATE, 0, 4096, 4096, "n")),
                     SHELF_NO_SPACE);
    bed_tick(bed, 1000);
    assert_int_equal(bed_result(bed, first), SHELF_OK);
    write_ok(2, 0, 8, 2);
}

static void test_failed_log_write_stops(void **state) {
    (void)state;
    fail_next(IO_WRITE, FILE_LOG, IO_RESULT_ERROR);
    uint64_t first = bed_write(bed, 1, at(0), 8, 1);
    bed_run(bed);
    assert_false(bed->answered[first]);
    assert_int_equal(core_fault_get(bed->core)->result, SHELF_IO);
    assert_int_equal(bed_result(bed, bed_write(bed, 2, at(0), 8, 1)), SHELF_IO);
    assert_int_equal(bed_checkpoint(bed), SHELF_IO);
    bed_tick(bed, 1000);
    assert_int_equal(bed->queue_count, 0);
    bed_reopen(bed);
}

static void test_each_failing_io_of_the_background_stops(void **state) {
    (void)state;
    const struct {
        uint32_t kind, file;
    } ios[] = {{IO_WRITE, FILE_PAGES}, {IO_SYNC, FILE_PAGES},      {IO_WRITE, FILE_TABLE},
               {IO_SYNC, FILE_TABLE},  {IO_WRITE, FILE_ROOTS},     {IO_SYNC, FILE_ROOTS},
               {IO_READ, FILE_PAGES},  {IO_WRITE, FILE_SUPERBLOCK}};
    for (uint32_t i = 0; i < sizeof(ios) / sizeof(ios[0]); i++) {
        write_ok(1 + i, 0, 8, (uint8_t)(1 + i));
        fail_next(ios[i].kind, ios[i].file, IO_RESULT_ERROR);
        bed->token++;
        bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = bed->token});
        bed_run(bed);
        assert_int_equal(core_fault_get(bed->core)->result, SHELF_IO);
        bed_reopen(bed);
        assert_int_equal(bed_byte(bed, at(0)), 1 + i);
    }
}

static void test_checkpoint_without_space_waits(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    fail_next(IO_WRITE, FILE_PAGES, IO_RESULT_NO_SPACE);
    bed->token++;
    uint64_t token = bed->token;
    bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = token});
    bed_run(bed);
    assert_false(bed->answered[token]);
    bed_tick(bed, 1000);
    assert_int_equal(bed_result(bed, token), SHELF_OK);
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(0)), 1);
}

// What was written reads back differently: at each level.
static void test_checkpoint_reads_back(void **state) {
    (void)state;
    const uint32_t kinds[] = {FILE_PAGES, FILE_TABLE, FILE_ROOTS};
    for (uint32_t i = 0; i < 3; i++) {
        write_ok(1 + i, 0, 8, (uint8_t)(1 + i));
        bed->token++;
        bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = bed->token});
        bool read = false;
        while (!read) {
            for (uint32_t q = 0; q < bed->queue_count && !read; q++) {
                const struct io *io = bed->queue[q];
                read = io->kind == IO_READ && io->file.kind == kinds[i];
                if (read) {
                    bed_file(bed, io->file)->bytes[io->offset] ^= 1;
                }
            }
            assert_true(bed_run_one(bed));
        }
        bed_run(bed);
        assert_non_null(strstr(core_fault_get(bed->core)->reason, "reads back differently"));
        bed_reopen(bed);
        assert_int_equal(bed_byte(bed, at(0)), 1 + i);
    }
}

// ---- The checkpoint ------------------------------------------------------------------------------------------------

static struct superblock *copies(void) {
    return (struct superblock *)(void *)bed_file(bed, (struct file_id){.kind = FILE_SUPERBLOCK})->bytes;
}

static void superblock_seal(struct superblock *block) {
    uint32_t copy = block->copy;
    block->crc = block->copy = 0;
    block->crc = crc32c(0, block, sizeof(*block));
    block->copy = copy;
}

static void test_two_bad_superblock_copies_are_repaired(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    copies()[1].index ^= 1;
    copies()[3].magic = 0;
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(0)), 1);
    assert_true(copies()[1].crc == copies()[0].crc && copies()[3].crc == copies()[0].crc);
}

static void test_mixed_superblock_copies(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    static struct superblock old[4];
    memcpy(old, copies(), sizeof(old));
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    copies()[2] = old[2];
    copies()[3] = old[3];
    bed_reopen(bed); // the newer pair counts
    assert_true(copies()[3].sequence == copies()[0].sequence);
    struct core_status status;
    core_status_get(bed->core, &status);
    assert_true(status.checkpoint > 0);
    copies()[0].crc ^= 1;
    copies()[1].crc ^= 1;
    copies()[2].crc ^= 1;
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "superblock", "no two");
}

static void test_newer_format_is_refused(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        copies()[i].format = CHECKPOINT_FORMAT_VERSION + 1;
        superblock_seal(&copies()[i]);
    }
    bed_start(bed);
    bed_stopped(bed, SHELF_FORMAT, "superblock", "newer version");
    assert_int_equal(bed->queue_count, 0);
}

static void test_superblock_without_sense_is_refused(void **state) {
    (void)state;
    static struct superblock good[4];
    memcpy(good, copies(), sizeof(good));
    for (uint32_t kind = 0; kind < 7; kind++) {
        memcpy(copies(), good, sizeof(good));
        for (uint32_t i = 0; i < 4; i++) {
            struct superblock *block = &copies()[i];
            block->alignment = kind == 0 ? 1024 : block->alignment;
            block->roots_slot = kind == 1 ? 2 : block->roots_slot;
            block->roots_size = kind == 2 ? 8 : kind == 3 ? (uint64_t)1 << 40 : block->roots_size;
            block->segment_offset = kind == 4 ? 0 : kind == 5 ? 2 * LOG_SEGMENT_BYTES : block->segment_offset;
            block->segment_sequence = kind == 6 ? 1 : block->segment_sequence;
            block->segment_offset = kind == 6 ? 700 : block->segment_offset;
            superblock_seal(block);
        }
        bed_start(bed);
        bed_stopped(bed, SHELF_CORRUPT, "superblock", "make no sense");
    }
}

static struct bed_file *roots_file(void) {
    return bed_file(bed, (struct file_id){.kind = FILE_ROOTS, .slot = (uint16_t)copies()[0].roots_slot});
}

static void roots_seal(uint64_t size) {
    for (uint32_t i = 0; i < 4; i++) {
        copies()[i].roots_size = size;
        copies()[i].roots_crc = crc32c(0, roots_file()->bytes, size);
        superblock_seal(&copies()[i]);
    }
}

static void test_roots_without_sense_are_refused(void **state) {
    (void)state;
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    uint8_t *roots = roots_file()->bytes;
    uint64_t size = copies()[0].roots_size;
    static uint8_t good[PAGE_SIZE];
    memcpy(good, roots, sizeof(good));
    struct roots_header *header = (struct roots_header *)(void *)roots;
    struct roots_region *first = (struct roots_region *)(void *)(roots + sizeof(*header));
    struct roots_region *second =
        (struct roots_region *)(void *)((uint8_t *)(first + 1) + first->block_count * 8);
    for (uint32_t kind = 0; kind < 14; kind++) {
        memcpy(roots, good, sizeof(good));
        uint64_t sealed = kind == 9 ? sizeof(*header) : kind == 10 ? size - 8 : size;
        switch (kind) {
        case 0:
            header->magic ^= 1;
            break;
        case 1:
            header->index ^= 1;
            break;
        case 2:
            first->region = 5;
            break;
        case 3:
            first->page_count -= 1;
            break;
        case 4:
            second->region = 0;
            break;
        case 5:
            second->region = REGION_NUMBERS;
            break;
        case 6:
            second->region = REGION_SYSTEM;
            break;
        case 7:
            second->block_count++;
            break;
        case 8:
            second->size_max = SHELF_REGION_BYTES_MAX * 2;
            break;
        case 11:
            second->page_count = second->size_max / PAGE_SIZE + 1;
            break;
        case 12:
            second->size_max += 1;
            break;
        case 13:
            sealed = sizeof(*header) + sizeof(*first) + first->block_count * 8 + 8;
            break;
        default:
            break;
        }
        roots_seal(sealed);
        bed_start(bed);
        bed_stopped(bed, SHELF_CORRUPT, "roots", kind < 2 ? "does not belong" : "make no sense");
    }
    memcpy(roots, good, sizeof(good));
    roots_seal(size);
    roots[40] ^= 1;
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "roots", "another one");
}

static void test_rot_of_tables_and_pages_stops(void **state) {
    (void)state;
    write_ok(1, 0, 8, 1);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    write_ok(2, 4096, 8, 1);
    assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    struct bed_file *table = bed_file(bed, (struct file_id){.kind = FILE_TABLE, .region = region});
    struct bed_file *pages[] = {
        bed_file(bed, (struct file_id){.kind = FILE_PAGES, .region = region}),
        bed_file(bed, (struct file_id){.kind = FILE_PAGES, .slot = 1, .region = region})};
    table->bytes[4096 + 8] ^= 1; // of the second checkpoint
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "table", "fails its own checksum");
    table->bytes[4096 + 8] ^= 1;
    pages[0]->bytes[4096] ^= 1;
    bed_start(bed);
    bed_stopped(bed, SHELF_CORRUPT, "page", "fails its checksum");
    pages[0]->bytes[4096] ^= 1;
    pages[1]->bytes[0] ^= 1; // nobody's
    bed_reopen(bed);
    assert_int_equal(bed_byte(bed, at(4096)), 1);
}

// Many pages of both slots, with holes: the reader's way of fetching them.
static void test_pages_of_both_slots(void **state) {
    (void)state;
    for (uint64_t round = 0; round < 3; round++) {
        for (uint64_t page = round; page < 900; page += 3 + round) {
            write_ok(1 + round * 1000 + page, page * PAGE_SIZE, 8, (uint8_t)(page + round));
        }
        assert_int_equal(bed_checkpoint(bed), SHELF_OK);
    }
    bed_reopen(bed);
    for (uint64_t page = 0; page < 900; page++) {
        uint8_t expected = 0;
        for (uint64_t round = 0; round < 3; round++) {
            expected =
                page >= round && (page - round) % (3 + round) == 0 ? (uint8_t)(page + round) : expected;
        }
        assert_int_equal(bed_byte(bed, at(page * PAGE_SIZE)), expected);
    }
}

// A checkpoint is exact although all its pages change while it waits; the pool of copies is smaller than that.
static void test_checkpoint_is_exact_while_pages_change(void **state) {
    (void)state;
    uint64_t sequence = 1;
    for (uint64_t page = 0; page < 200; page++) {
        write_ok(sequence++, page * PAGE_SIZE, 8, 1);
    }
    uint64_t index = applied();
    bed->held = 1u << FILE_PAGES;
    bed->token++;
    uint64_t checkpoint = bed->token;
    bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = checkpoint});
    static uint64_t tokens[200];
    for (uint64_t page = 0; page < 200; page++) {
        tokens[page] = bed_write(bed, sequence++, at(page * PAGE_SIZE), 8, 2);
        bed_run(bed);
    }
    assert_false(bed->answered[tokens[199]]);
    bed->held = 1u << FILE_SUPERBLOCK;
    bed_run(bed);
    assert_true(bed->answered[tokens[199]]);
    bed->held = 0;
    assert_int_equal(bed_result(bed, checkpoint), SHELF_OK);
    assert_int_equal(bed_reply(bed, checkpoint)->receipt.index, index);
    for (uint64_t offset = 0; offset < 3 * LOG_SEGMENT_BYTES;
         offset += ALIGNMENT) { // without the log behind it
        struct record_header *header = (struct record_header *)(void *)(bed_log(bed) + offset);
        if (header->magic == RECORD_MAGIC && header->index > index) {
            header->magic = 0;
        }
    }
    bed_reopen(bed);
    for (uint64_t page = 0; page < 200; page++) {
        assert_int_equal(bed_byte(bed, at(page * PAGE_SIZE)), 1);
    }
}

// ---- A foreign hand ------------------------------------------------------------------------------------------------

// A record whose checksums are right and whose payload is changed.
static void record_forge(uint64_t index, void (*change)(uint8_t *payload, struct record_header *header)) {
    struct record_header *header = record_find(index);
    struct record_header *before = record_find(index - 1);
    change((uint8_t *)(header + 1), header);
    header->header_crc = 0;
    header->chain = 0;
    header->chain = crc32c(crc32c(before->chain, header, sizeof(*header)), header + 1, header->payload_size);
    struct record_header copy = *header;
    header->header_crc = crc32c(0, &copy, sizeof(copy));
}

static uint32_t forge_kind;

static void forge(uint8_t *payload, struct record_header *header) {
    struct record_tx *tx = (struct record_tx *)(void *)payload;
    struct record_range *range = (struct record_range *)(void *)(tx + 1);
    switch (forge_kind) {
    case 0:
        tx->size += 8;
        break;
    case 1:
        tx->size += 4;
        break;
    case 2:
        tx->range_count++;
        break;
    case 3:
        tx->range_count--;
        break;
    case 4:
        range->size = 4096;
        break;
    case 5:
        range->address = shelf_addr_make(999, 0);
        break;
    case 6:
        range->address = shelf_addr_make((shelf_region)region, 4 * MIB);
        break;
    case 7:
        header->tx_count++;
        break;
    case 8:
        header->tx_count--;
        break;
    case 9:
        range->address = shelf_addr_make((shelf_region)region, 4 * MIB - 4);
        break;
    case 10:
        tx->size -= 4;
        break;
    case 11:
        range->size = 0;
        break;
    default:
        break;
    }
}

static void test_forged_records_are_refused(void **state) {
    (void)state;
    for (forge_kind = 0; forge_kind < 12; forge_kind++) {
        write_ok(1, 0, 8, 1);
        record_forge(applied(), forge);
        bed_start(bed);
        bed_stopped(bed, SHELF_CORRUPT, "log", "make no sense");
        teardown(NULL);
        setup(NULL);
    }
}

static void forge_entry(uint8_t *payload, struct record_header *header) {
    (void)header;
    struct record_tx *tx = (struct record_tx *)(void *)payload;
    struct record_range *count = (struct record_range *)(void *)(tx + 1);
    struct record_range *range = (struct record_range *)(void *)((uint8_t *)(count + 1) + 8);
    struct catalog_entry *entry = (struct catalog_entry *)(void *)(range + 1);
    uint64_t *used = (uint64_t *)(void *)(count + 1);
    switch (forge_kind) {
    case 0:
        entry->region = 0;
        break;
    case 1:
        entry->region = REGION_NUMBERS;
        break;
    case 2:
        entry->size_max = entry->size - PAGE_SIZE;
        break;
    case 3:
        entry->size_max = SHELF_REGION_BYTES_MAX * 2;
        break;
    case 4:
        entry->size += 1;
        break;
    case 5:
        *used = REGION_NUMBERS;
        break;
    case 6:
        *used = 0;
        break;
    case 7:
        entry->region = REGION_SYSTEM;
        entry->size = PAGE_SIZE;
        break;
    case 8:
        range->size = 4096;
        break;
    default:
        break;
    }
}

static void test_forged_catalog_is_refused(void **state) {
    (void)state;
    for (forge_kind = 0; forge_kind < 9; forge_kind++) {
        bed_region(bed, "another", MIB);
        record_forge(applied(), forge_entry);
        bed_start(bed);
        assert_false(bed->opened);
        assert_int_equal(core_fault_get(bed->core)->result, SHELF_CORRUPT);
        teardown(NULL);
        setup(NULL);
    }
}

static void forge_session(uint8_t *payload, struct record_header *header) {
    struct record_range *range = (struct record_range *)(void *)(payload + sizeof(struct record_tx));
    struct session_header *session = (struct session_header *)(void *)(range + 1);
    session->id = forge_kind == 0 ? session->id + 1 : (header->index + 1) << 16 | (session->id & 0xffff);
}

static void forge_result(uint8_t *payload, struct record_header *header) {
    struct record_range *range = (struct record_range *)(void *)(payload + sizeof(struct record_tx));
    struct session_result *result =
        (struct session_result *)(void *)((uint8_t *)(range + 1) + 8 + sizeof(*range));
    assert_int_equal(result->index, header->index);
    result->index++;
}

static void test_forged_sessions_are_refused(void **state) {
    (void)state;
    for (forge_kind = 0; forge_kind < 3; forge_kind++) {
        if (forge_kind < 2) {
            bed_session(bed);
        } else {
            write_ok(1, 0, 8, 1);
        }
        record_forge(applied(), forge_kind < 2 ? forge_session : forge_result);
        bed_start(bed);
        bed_stopped(bed, SHELF_CORRUPT, "sessions", "makes no sense");
        teardown(NULL);
        setup(NULL);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_commits_survive_a_crash),
        TEST(test_torn_tail_is_cut),
        TEST(test_corrupt_middle_record_stops),
        TEST(test_read_in_a_lost_record_conflicts),
        TEST(test_misdirected_last_record_stops),
        TEST(test_hint_ahead_stops),
        TEST(test_hint_with_another_chain_stops),
        TEST(test_no_hint_is_no_harm),
        TEST(test_close_with_and_without_checkpoint),
        TEST(test_hint_without_space_does_not_keep_from_closing),
        TEST(test_full_log_waits_for_checkpoint),
        TEST(test_log_goes_round_and_is_replayed),
        TEST(test_torn_segment_is_not_mistaken_for_its_successor),
        TEST(test_rot_before_a_segment_switch_stops),
        TEST(test_rotten_segment_header_stops),
        TEST(test_many_openings_find_their_place_in_a_full_log),
        TEST(test_log_write_without_space_is_tried_again),
        TEST(test_failed_log_write_stops),
        TEST(test_each_failing_io_of_the_background_stops),
        TEST(test_checkpoint_without_space_waits),
        TEST(test_checkpoint_reads_back),
        TEST(test_two_bad_superblock_copies_are_repaired),
        TEST(test_mixed_superblock_copies),
        TEST(test_newer_format_is_refused),
        TEST(test_superblock_without_sense_is_refused),
        TEST(test_roots_without_sense_are_refused),
        TEST(test_rot_of_tables_and_pages_stops),
        TEST(test_pages_of_both_slots),
        TEST(test_checkpoint_is_exact_while_pages_change),
        TEST(test_forged_records_are_refused),
        TEST(test_forged_catalog_is_refused),
        TEST(test_forged_sessions_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
