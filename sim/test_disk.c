// SPDX-License-Identifier: Apache-2.0
//
// The simulated disk is what every other simulated test stands on, so it is tested by itself: see D1 to D4 in disk.h.

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include <string.h>

#include "disk.h"

static const struct file_id log_id = {.kind = FILE_LOG};
static const struct file_id superblock_id = {.kind = FILE_SUPERBLOCK};

static int setup(void **state) {
    *state = disk_new();
    return 0;
}

static int teardown(void **state) {
    disk_free(*state);
    return 0;
}

static void write_byte(struct disk *disk, struct file_id id, uint64_t sector, uint8_t value, bool durable,
                       uint64_t stamp) {
    uint8_t bytes[SECTOR_SIZE];
    memset(bytes, value, sizeof(bytes));
    disk_write(disk, id, sector * SECTOR_SIZE, bytes, sizeof(bytes), durable, stamp);
}

// The sector's byte; a sector that is not all of one byte is torn inside, which must never be.
static uint8_t sector_byte(const struct disk *disk, struct file_id id, uint64_t sector, bool durable) {
    uint8_t bytes[SECTOR_SIZE];
    if (durable) {
        disk_read_durable(disk, id, sector * SECTOR_SIZE, bytes, sizeof(bytes));
    } else {
        disk_read(disk, id, sector * SECTOR_SIZE, bytes, sizeof(bytes));
    }
    for (size_t i = 1; i < sizeof(bytes); i++) {
        assert_int_equal(bytes[i], bytes[0]);
    }
    return bytes[0];
}

static void test_disk_reads_zero_where_nothing_is(void **state) {
    assert_int_equal(sector_byte(*state, log_id, 1000, false), 0);
    assert_int_equal(disk_length(*state, log_id), 0);
}

static void test_disk_durable_write_survives(void **state) {
    struct disk *disk = *state;
    struct random random;
    random_seed(&random, 1);
    write_byte(disk, log_id, 3, 'a', true, 0);
    disk_power_cut(disk, &random);
    assert_int_equal(sector_byte(disk, log_id, 3, false), 'a');
    assert_int_equal(disk_length(disk, log_id), 4 * SECTOR_SIZE);
}

static void test_disk_sync_covers_only_what_was_complete(void **state) {
    struct disk *disk = *state;
    write_byte(disk, log_id, 0, 'a', false, 1);
    write_byte(disk, log_id, 1, 'b', false, 3);
    disk_sync(disk, log_id, 2); // issued before the second write was complete
    assert_int_equal(sector_byte(disk, log_id, 0, true), 'a');
    assert_int_equal(sector_byte(disk, log_id, 1, true), 0);
    assert_int_equal(sector_byte(disk, log_id, 1, false), 'b');
    assert_int_equal(disk_unsynced_count(disk), 1);
}

// Each of the fates of an unsynced sector occurs: lost, kept, an older write of it kept.
static void test_disk_power_cut_decides_each_sector(void **state) {
    struct disk *disk = *state;
    struct random random;
    random_seed(&random, 2);
    uint32_t seen_lost = 0;
    uint32_t seen_old = 0;
    uint32_t seen_new = 0;
    uint32_t seen_mixed = 0;
    for (int i = 0; i < 200; i++) {
        for (uint64_t sector = 0; sector < 4; sector++) {
            write_byte(disk, log_id, sector, 'x', true, 0);
            write_byte(disk, log_id, sector, 'y', false, 1);
            write_byte(disk, log_id, sector, 'z', false, 2);
        }
        disk_power_cut(disk, &random);
        assert_int_equal(disk_unsynced_count(disk), 0);
        uint32_t newest = 0;
        for (uint64_t sector = 0; sector < 4; sector++) {
            uint8_t byte = sector_byte(disk, log_id, sector, false);
            assert_int_equal(byte, sector_byte(disk, log_id, sector, true));
            seen_lost += byte == 'x';
            seen_old += byte == 'y';
            seen_new += byte == 'z';
            newest += byte == 'z';
        }
        seen_mixed += newest > 0 && newest < 4;
    }
    assert_true(seen_lost > 0 && seen_old > 0 && seen_new > 0 && seen_mixed > 0);
}

static void test_disk_torn_write_is_any_part(void **state) {
    struct disk *disk = *state;
    struct random random;
    random_seed(&random, 3);
    uint8_t bytes[8 * SECTOR_SIZE];
    memset(bytes, 'n', sizeof(bytes));
    uint32_t seen[9] = {0};
    uint32_t holes = 0;
    for (int i = 0; i < 400; i++) {
        for (uint64_t sector = 0; sector < 8; sector++) {
            write_byte(disk, log_id, sector, 'o', true, 0);
        }
        uint32_t written = disk_write_torn(disk, &random, log_id, 0, bytes, sizeof(bytes), 1);
        uint32_t found = 0;
        for (uint64_t sector = 0; sector < 8; sector++) {
            found += sector_byte(disk, log_id, sector, false) == 'n';
        }
        assert_int_equal(found, written);
        seen[written]++;
        holes += written < 8 && sector_byte(disk, log_id, 7, false) == 'n';
        disk_power_cut(disk, &random);
    }
    for (size_t i = 0; i < 9; i++) {
        assert_true(seen[i] > 0);
    }
    assert_true(holes > 0); // not only prefixes
}

static void test_disk_unpublished_superblock_is_gone(void **state) {
    struct disk *disk = *state;
    struct random random;
    random_seed(&random, 4);
    write_byte(disk, superblock_id, 0, 's', true, 0);
    disk_power_cut(disk, &random);
    assert_int_equal(disk_length(disk, superblock_id), 0);
    write_byte(disk, superblock_id, 0, 't', false, 1);
    disk_publish(disk);
    disk_power_cut(disk, &random);
    assert_true(disk_published(disk));
    assert_int_equal(sector_byte(disk, superblock_id, 0, false), 't');
}

static void test_disk_rot_changes_one_sector(void **state) {
    struct disk *disk = *state;
    struct random random;
    random_seed(&random, 5);
    for (uint64_t sector = 0; sector < 8; sector++) {
        write_byte(disk, log_id, sector, 'r', true, 0);
    }
    uint64_t before = disk_hash(disk);
    assert_true(disk_rot(disk, &random, log_id, 5 * SECTOR_SIZE));
    assert_true(disk_hash(disk) != before);
    for (uint64_t sector = 0; sector < 8; sector++) {
        if (sector != 5) {
            assert_int_equal(sector_byte(disk, log_id, sector, false), 'r');
        }
    }
    assert_false(disk_rot(disk, &random, log_id, (uint64_t)1 << 24)); // nothing is there
}

static void test_disk_remove_takes_all_files_of_a_region(void **state) {
    struct disk *disk = *state;
    const struct file_id table = {.kind = FILE_TABLE, .region = 7};
    const struct file_id pages = {.kind = FILE_PAGES, .slot = 1, .region = 7};
    const struct file_id other = {.kind = FILE_PAGES, .slot = 1, .region = 8};
    write_byte(disk, table, 0, 'a', true, 0);
    write_byte(disk, pages, 0, 'b', false, 0);
    write_byte(disk, other, 0, 'c', true, 0);
    disk_remove_region(disk, 7);
    assert_int_equal(disk_length(disk, table) + disk_length(disk, pages), 0);
    assert_int_equal(sector_byte(disk, pages, 0, false), 0);
    assert_int_equal(sector_byte(disk, other, 0, false), 'c');
    assert_int_equal(disk_unsynced_count(disk), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_disk_reads_zero_where_nothing_is, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_durable_write_survives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_sync_covers_only_what_was_complete, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_power_cut_decides_each_sector, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_torn_write_is_any_part, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_unpublished_superblock_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_rot_changes_one_sector, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_remove_takes_all_files_of_a_region, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
