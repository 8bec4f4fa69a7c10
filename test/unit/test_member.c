// SPDX-License-Identifier: Apache-2.0
//
// Who a node is, as its directory says; where the others are.

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "member/address_book.h"
#include "member/identity.h"
#include "world/register_file.h"
#include "world_fixture.h"

// ---- Identity

static struct member_record record_make(uint32_t state) {
    struct member_record record = {
        .magic = MEMBER_MAGIC, .format = MEMBER_FORMAT, .state = state, .node = 7, .cluster = "shop"};
    memset(record.incarnation, 1, sizeof(record.incarnation));
    memset(record.shelf_id, 2, sizeof(record.shelf_id));
    return record;
}

static void identity_expect(const struct fixture *fixture, const char *cluster, uint64_t node,
                            shelf_result expected, const char *says) {
    struct identity_file file;
    char text[MEMBER_TEXT_MAX] = "";
    assert_int_equal(identity_open(&file, fixture->path, true, cluster, node, text), expected);
    if (expected == SHELF_OK) {
        identity_close(&file);
    } else if (!strstr(text, says)) {
        fail_msg("'%s' does not say '%s'", text, says);
    }
}

static void superblock_make(const struct fixture *fixture, bool there) {
    char path[400];
    snprintf(path, sizeof(path), "%s/superblock", fixture->path);
    if (there) {
        close(open(path, O_CREAT | O_WRONLY, 0600));
    } else {
        assert_int_equal(unlink(path), 0);
    }
}

static void test_identity_is_kept(void **state) {
    const struct fixture *fixture = *state;
    struct identity_file file;
    char text[MEMBER_TEXT_MAX] = "", peers[REGISTER_VALUE_MAX + 1];
    struct member_record record = record_make(MEMBER_JOINED);
    assert_int_equal(identity_open(&file, fixture->path, true, "shop", 0, text), SHELF_OK);
    assert_int_equal(file.record.node, 0);
    identity_expect(fixture, "shop", 0, SHELF_BUSY, "another process");
    assert_int_equal(identity_store(&file, &record, text), SHELF_OK);
    identity_peers_load(&file, peers);
    assert_string_equal(peers, "");
    assert_true(identity_peers_store(&file, "1 a:1\n"));
    identity_close(&file);

    assert_true(world_is_member(fixture->path));
    assert_int_equal(identity_open(&file, fixture->path, false, "shop", 7, text), SHELF_OK);
    assert_memory_equal(&file.record, &record, sizeof(record));
    assert_false(file.emptied);
    identity_peers_load(&file, peers);
    assert_string_equal(peers, "1 a:1\n");
    identity_close(&file);
    identity_expect(fixture, "shop", 8, SHELF_INVALID, "of node 7, not of node 8");
    identity_expect(fixture, "else", 0, SHELF_INVALID, "of the cluster 'shop', not of 'else'");
}

static void test_identity_of_an_emptied_directory(void **state) {
    const struct fixture *fixture = *state;
    struct identity_file file;
    char text[MEMBER_TEXT_MAX] = "";
    struct member_record record = record_make(MEMBER_BORN);
    assert_int_equal(identity_open(&file, fixture->path, true, "shop", 0, text), SHELF_OK);
    assert_int_equal(identity_store(&file, &record, text), SHELF_OK);
    identity_close(&file);
    superblock_make(fixture, true);
    assert_int_equal(identity_open(&file, fixture->path, true, "shop", 0, text), SHELF_OK);
    assert_memory_equal(&file.record, &record, sizeof(record));
    identity_close(&file);
    superblock_make(fixture, false);
    assert_int_equal(identity_open(&file, fixture->path, true, "shop", 0, text), SHELF_OK);
    assert_true(file.emptied);
    assert_int_equal(file.record.state, MEMBER_NEW);
    assert_int_equal(file.record.node, 7);
    assert_memory_not_equal(file.record.incarnation, record.incarnation, sizeof(record.incarnation));
    identity_close(&file);
}

static void test_identity_refuses(void **state) {
    const struct fixture *fixture = *state;
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    superblock_make(fixture, true); // without `member`
    identity_expect(fixture, "shop", 0, SHELF_INVALID, "single node");
    superblock_make(fixture, false);

    static const struct {
        size_t offset;
        uint8_t value;
    } changes[] = {
        {offsetof(struct member_record, magic), 1},         {offsetof(struct member_record, format), 2},
        {offsetof(struct member_record, state), 0},         {offsetof(struct member_record, state), 4},
        {offsetof(struct member_record, node), 0},          {offsetof(struct member_record, cluster), 0},
        {offsetof(struct member_record, reserved) + 31, 1},
    };
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct member_record record = record_make(MEMBER_JOINED);
        assert_null(member_record_problem(&record));
        ((uint8_t *)&record)[changes[i].offset] = changes[i].value;
        assert_non_null(member_record_problem(&record));
    }
    struct member_record record = record_make(MEMBER_JOINED);
    memset(record.cluster, 'x', sizeof(record.cluster)); // without an end
    assert_non_null(member_record_problem(&record));
    record = record_make(MEMBER_JOINED);
    memset(record.shelf_id, 0, sizeof(record.shelf_id));
    assert_non_null(member_record_problem(&record));

    struct identity_file file;
    char text[MEMBER_TEXT_MAX] = "";
    assert_int_equal(identity_open(&file, fixture->path, true, "shop", 0, text), SHELF_OK);
    record = record_make(9); // what is stored is checked when it is read
    assert_int_equal(identity_store(&file, &record, text), SHELF_OK);
    identity_close(&file);
    identity_expect(fixture, "shop", 0, SHELF_FORMAT, "cannot be");
    char path[400];
    snprintf(path, sizeof(path), "%s/" MEMBER_FILE_NAME, fixture->path);
    int fd = open(path, O_WRONLY);
    for (uint32_t slot = 0; slot < REGISTER_SLOT_COUNT; slot++) {
        assert_int_equal(pwrite(fd, "x", 1, slot * REGISTER_SLOT_SIZE + 70), 1);
    }
    close(fd);
    identity_expect(fixture, "shop", 0, SHELF_CORRUPT, "damaged");
}

// ---- Addresses

static void test_address_book(void **state) {
    static struct address_book book, again;
    struct node_record record = {.node = 5, .address = "b:2"};
    char text[REGISTER_VALUE_MAX + 1];
    (void)state;
    address_book_parse(
        &book,
        "3 a:1\n\nx\n4 \n0 zero:1\n-1 a:1\n5 b b:2\n6 [::1]:7\n18446744073709551616 c:1\n3 c:9\n7 end:1");
    assert_int_equal(book.count, 3);
    assert_string_equal(address_book_find(&book, 3)->address, "c:9");
    assert_string_equal(address_book_find(&book, 6)->address, "[::1]:7");
    assert_string_equal(address_book_find(&book, 7)->address, "end:1");
    assert_null(address_book_find(&book, 4));
    assert_true(address_book_set(&book, &record));
    assert_false(address_book_set(&book, &record));
    record.incarnation[0] = 1;
    assert_true(address_book_set(&book, &record));
    assert_true(address_book_remove(&book, 3));
    assert_false(address_book_remove(&book, 3));
    address_book_print(&book, sizeof(text), text);
    address_book_parse(&again, text);
    assert_int_equal(again.count, book.count);
    assert_string_equal(address_book_find(&again, 5)->address, "b:2");
}

// What has no room is left out; nothing is cut in two.
static void test_address_book_is_full(void **state) {
    static struct address_book book, again;
    char text[REGISTER_VALUE_MAX + 1];
    (void)state;
    for (uint64_t node = 1; node <= REGISTERS_MAX + 5; node++) {
        struct node_record record = {.node = node};
        memset(record.address, 'x', 100);
        assert_int_equal(address_book_set(&book, &record), node <= REGISTERS_MAX);
    }
    assert_int_equal(book.count, REGISTERS_MAX);
    address_book_print(&book, sizeof(text), text);
    assert_true(strlen(text) <= REGISTER_VALUE_MAX && text[strlen(text) - 1] == '\n');
    address_book_parse(&again, text);
    assert_true(again.count > 15 && again.count < 20);
    assert_int_equal(strlen(again.records[again.count - 1].address), 100);
}

static void test_address_problem(void **state) {
    static const char *const good[] = {"a:1", "db1.example:7000", "[::1]:0", "10.0.0.1:65535"};
    static const char *const bad[] = {"",        "a",     ":1",        "a:",     "a:b", "a:1x",
                                      "a:65536", "a b:1", "0.0.0.0:1", "[::]:1", "*:1"};
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_null(address_problem(good[i]));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_non_null(address_problem(bad[i]));
    }
    char text[NODE_ADDRESS_MAX + 2];
    memset(text, 'x', sizeof(text));
    memcpy(text + sizeof(text) - 3, ":1", 3);
    assert_non_null(address_problem(text));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_identity_is_kept, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_identity_of_an_emptied_directory, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_identity_refuses, fixture_setup, fixture_teardown),
        cmocka_unit_test(test_address_book),
        cmocka_unit_test(test_address_book_is_full),
        cmocka_unit_test(test_address_problem),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
