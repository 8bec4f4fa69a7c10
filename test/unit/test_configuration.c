// SPDX-License-Identifier: Apache-2.0
//
// Configurations and node records in bytes: there and back, golden bytes, and what is refused.

#include "wire/configuration.h"

#include <string.h>

#include "base/crc.h"
#include "base/random.h"
#include "cmocka_program.h"

static const uint8_t shelf_id[16] = "0123456789abcde";

static struct configuration configuration_make(void) {
    struct configuration configuration = {
        .group = 3, .epoch = 0x1122334455667788, .primary = 7, .member_count = 3};
    memset(configuration.nonce, 0xab, sizeof(configuration.nonce));
    for (uint32_t i = 0; i < 3; i++) {
        configuration.members[i].node = 5 + 2 * i;
        memset(configuration.members[i].incarnation, (int)i + 1, 16);
    }
    return configuration;
}

static struct node_record record_make(void) {
    struct node_record record = {.node = 9, .address = "db1.example:7000"};
    memset(record.incarnation, 0x5a, sizeof(record.incarnation));
    return record;
}

static void crc_repair(uint8_t *bytes, size_t size) {
    uint32_t crc = 0;
    memcpy(bytes + 8, &crc, 4);
    crc = crc32c(0, bytes, size);
    memcpy(bytes + 8, &crc, 4);
}

static void test_configuration_there_and_back(void **state) {
    (void)state;
    struct configuration configuration = configuration_make(), again;
    uint8_t bytes[CONFIGURATION_BYTES_MAX], found_id[16] = {0};
    memset(&again, 0x77, sizeof(again));
    size_t size = configuration_encode(&configuration, shelf_id, bytes);
    assert_int_equal(size, 80 + 3 * 32);
    assert_null(configuration_decode(bytes, size, &again, found_id));
    assert_memory_equal(&again, &configuration, sizeof(again));
    assert_memory_equal(found_id, shelf_id, sizeof(shelf_id));

    configuration.member_count = CONFIGURATION_MEMBERS_MAX;
    for (uint32_t i = 0; i < CONFIGURATION_MEMBERS_MAX; i++) {
        configuration.members[i].node = i + 1;
    }
    size = configuration_encode(&configuration, shelf_id, bytes);
    assert_int_equal(size, CONFIGURATION_BYTES_MAX);
    assert_null(configuration_decode(bytes, size, &again, found_id));
    assert_memory_equal(&again, &configuration, sizeof(again));
}

// These bytes are in other people's etcd.
static void test_configuration_golden(void **state) {
    (void)state;
    struct configuration configuration = configuration_make();
    uint8_t bytes[CONFIGURATION_BYTES_MAX];
    size_t size = configuration_encode(&configuration, shelf_id, bytes);
    assert_memory_equal(bytes, "SHLFCNFG", 8);
    assert_memory_equal(bytes + 12, "\1\0\3\0\x88\x77\x66\x55\x44\x33\x22\x11\7\0\0\0\0\0\0\0\xab\xab", 22);
    assert_memory_equal(bytes + 48,
                        "\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                        "0123456789abcde",
                        32);
    assert_memory_equal(bytes + 80, "\5\0\0\0\0\0\0\0\1\1\1\1", 12);
    assert_memory_equal(bytes + 112, "\7\0\0\0\0\0\0\0\2\2", 10);
    uint32_t crc;
    memcpy(&crc, bytes + 8, 4);
    crc_repair(bytes, size);
    assert_memory_equal(bytes + 8, &crc, 4);
}

static void test_configuration_refuses_every_changed_bit(void **state) {
    (void)state;
    struct configuration configuration = configuration_make(), again;
    uint8_t bytes[CONFIGURATION_BYTES_MAX], found_id[16] = {0};
    size_t size = configuration_encode(&configuration, shelf_id, bytes);
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_non_null(configuration_decode(bytes, size, &again, found_id));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t shorter = 0; shorter < size; shorter++) {
        assert_non_null(configuration_decode(bytes, shorter, &again, found_id));
    }
    assert_null(configuration_decode(bytes, size, &again, found_id));
}

// With a right checksum, but against the rules.
static void test_configuration_refuses_what_cannot_be(void **state) {
    (void)state;
    static const struct {
        size_t offset;
        uint8_t value;
    } changes[] = {
        {12, 0},  // format: none
        {12, 2},  // newer
        {24, 6},  // the primary is no member
        {48, 2},  // one member fewer than bytes
        {48, 4},  // one more
        {49, 1},  // 259 of them
        {52, 1},  // reserved
        {80, 7},  // the same node twice
        {80, 0},  // no node
        {112, 4}, // not in order
        {104, 1}, // reserved of a member
    };
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct configuration configuration = configuration_make(), again = {0};
        uint8_t bytes[CONFIGURATION_BYTES_MAX], found_id[16] = {0};
        size_t size = configuration_encode(&configuration, shelf_id, bytes);
        bytes[changes[i].offset] = changes[i].value;
        crc_repair(bytes, size);
        assert_non_null(configuration_decode(bytes, size, &again, found_id));
        assert_int_equal(again.epoch, 0);
    }
    uint8_t bytes[CONFIGURATION_BYTES_MAX], id[16] = {0};
    struct configuration nameless = configuration_make(), none;
    size_t size = configuration_encode(&nameless, id, bytes); // of no shelf
    assert_non_null(configuration_decode(bytes, size, &none, id));
    struct configuration wrong = configuration_make();
    wrong.epoch = 0;
    assert_non_null(configuration_problem(&wrong));
    wrong = configuration_make();
    wrong.member_count = 0;
    assert_non_null(configuration_problem(&wrong));
    wrong.member_count = CONFIGURATION_MEMBERS_MAX + 1;
    assert_non_null(configuration_problem(&wrong));
}

static void test_node_record_there_and_back(void **state) {
    (void)state;
    struct node_record record = record_make(), again = {0};
    uint8_t bytes[NODE_RECORD_BYTES_MAX];
    size_t size = node_record_encode(&record, bytes);
    assert_int_equal(size, 64 + 16);
    assert_null(node_record_decode(bytes, size, &again));
    assert_memory_equal(&again, &record, sizeof(again));
    memset(record.address, 'x', NODE_ADDRESS_MAX - 1);
    size = node_record_encode(&record, bytes);
    assert_int_equal(size, NODE_RECORD_BYTES_MAX);
    assert_null(node_record_decode(bytes, size, &again));
    assert_string_equal(again.address, record.address);
}

static void test_node_record_refuses(void **state) {
    (void)state;
    struct node_record record = record_make(), again = {0};
    uint8_t bytes[NODE_RECORD_BYTES_MAX + 1], found_id[16];
    size_t size = node_record_encode(&record, bytes);
    for (size_t bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_non_null(node_record_decode(bytes, size, &again));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    static const uint8_t characters[] = {0, ' ', '\n', 0x7f, 0xff};
    for (size_t i = 0; i < sizeof(characters); i++) {
        (void)node_record_encode(&record, bytes);
        bytes[70] = characters[i];
        crc_repair(bytes, size);
        assert_non_null(node_record_decode(bytes, size, &again));
    }
    (void)node_record_encode(&record, bytes);
    bytes[14] = 15; // one character fewer than there are
    crc_repair(bytes, size);
    assert_non_null(node_record_decode(bytes, size, &again));
    (void)node_record_encode(&record, bytes);
    assert_non_null(
        configuration_decode(bytes, size, &(struct configuration){0}, found_id)); // one for the other
    record.address[0] = 0;
    assert_non_null(node_record_problem(&record));
}

static void test_random_bytes(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 4);
    for (int i = 0; i < 20000; i++) {
        struct configuration configuration = configuration_make(), again;
        uint8_t bytes[CONFIGURATION_BYTES_MAX], found_id[16] = {0}, once_more[CONFIGURATION_BYTES_MAX];
        size_t size = configuration_encode(&configuration, shelf_id, bytes);
        for (uint64_t changes = random_between(&random, 1, 4); changes > 0; changes--) {
            bytes[random_between(&random, 12, size - 1)] = (uint8_t)random_next(&random);
        }
        crc_repair(bytes, size);
        if (!configuration_decode(bytes, size, &again, found_id)) { // one spelling
            assert_int_equal(configuration_encode(&again, found_id, once_more), size);
            assert_memory_equal(once_more, bytes, size);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_configuration_there_and_back),
        cmocka_unit_test(test_configuration_golden),
        cmocka_unit_test(test_configuration_refuses_every_changed_bit),
        cmocka_unit_test(test_configuration_refuses_what_cannot_be),
        cmocka_unit_test(test_node_record_there_and_back),
        cmocka_unit_test(test_node_record_refuses),
        cmocka_unit_test(test_random_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
