// SPDX-License-Identifier: Apache-2.0
//
// Messages between nodes: there and back for each kind; and everything that is not exactly a message is refused.

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/crc.h"
#include "base/random.h"
#include "cmocka_program.h"
#include "wire/peer.h"
#include "wire/request.h"

static const uint8_t cluster[16] = "the shelf's id.";
static const uint8_t other_cluster[16] = "another's id...";

static uint32_t header_crc_of(struct peer_header header) {
    header.header_crc = 0;
    return crc32c(0, &header, sizeof(header));
}

static struct configuration configuration_three(uint64_t epoch) {
    struct configuration configuration = {
        .epoch = epoch, .primary = 7, .nonce = "process", .member_count = 3};
    for (uint64_t i = 0; i < 3; i++) {
        configuration.members[i].node = 3 + 2 * i;
        configuration.members[i].incarnation[0] = (uint8_t)i;
    }
    return configuration;
}

// A record as it lies in a log: with a payload of `size` bytes.
static size_t record_make(uint8_t *bytes, uint64_t index, uint64_t epoch, uint64_t previous_epoch,
                          uint32_t size) {
    struct record_header header = {.magic = RECORD_MAGIC,
                                   .index = index,
                                   .epoch = epoch,
                                   .previous_epoch = previous_epoch,
                                   .payload_size = size,
                                   .kind = RECORD_DATA,
                                   .format = LOG_FORMAT_VERSION};
    memcpy(header.shelf_id, cluster, sizeof(header.shelf_id));
    header.header_crc = crc32c(0, &header, sizeof(header));
    size_t whole = align_up(sizeof(header) + size, 512);
    memset(bytes, 0x5a, whole);
    memcpy(bytes, &header, sizeof(header));
    return whole;
}

static struct peer_checkpoint checkpoint_make(void) {
    return (struct peer_checkpoint){.chain = 1,
                                    .record_size = 2,
                                    .segment_sequence = 3,
                                    .segment_offset = 1024,
                                    .roots_size = 500,
                                    .roots_crc = 6,
                                    .alignment = 512,
                                    .time_ms = 7};
}

// A message of the kind with all the fields that it may have.
static struct peer_message message_of(uint16_t kind, uint8_t *body) {
    struct peer_message message = {.kind = kind, .from = 7, .incarnation = "directory"};
    if (kind != PEER_HELLO) {
        message.epoch = 12;
    }
    if (kind == PEER_APPEND || kind == PEER_SUSPECT_ASK || kind == PEER_SUSPECT_ANSWER ||
        kind == PEER_PROMISE_ASK || kind == PEER_FORWARD || kind == PEER_ANSWER) {
        memcpy(message.nonce, "process", 8);
    }
    if (kind == PEER_APPEND || kind == PEER_ACK || kind == PEER_FETCH || kind == PEER_FETCHED ||
        kind == PEER_FORWARD || kind >= PEER_OFFER) {
        message.index = 41;
        message.index_epoch = 9;
    }
    if (kind == PEER_APPEND || kind == PEER_ACK || kind == PEER_PROMISE || kind == PEER_JOIN ||
        kind == PEER_ANSWER) {
        message.commit = 40;
    }
    if (kind == PEER_ACK || kind == PEER_PROMISE || kind == PEER_FETCHED) {
        message.last = 55;
        message.last_epoch = 11;
    }
    if (kind == PEER_APPEND || kind == PEER_ACK || kind == PEER_FORWARD || kind == PEER_ANSWER) {
        message.round = 3;
    }
    if (kind == PEER_FORWARD || kind == PEER_ANSWER) {
        message.link = 77;
    }
    if (kind == PEER_FORWARD) {
        message.done = 2;
    }
    if (kind == PEER_ACK || kind == PEER_PROMISE || kind == PEER_SUSPECT_ANSWER) {
        message.flags = PEER_FLAG_NO;
    }
    if (kind == PEER_APPEND || kind == PEER_FETCHED) {
        message.body = body;
        message.body_size = record_make(body, 42, 12, 9, 700);
    } else if (kind == PEER_PROMISE_ASK) {
        message.configuration = configuration_three(12);
    } else if (kind == PEER_FORWARD) {
        struct request_header request = {.size = 100, .kind = REQUEST_COMMIT};
        struct peer_request who = {.user = 1000, .group = 100, .group_count = 3};
        memset(body, 0, 132);
        memcpy(body, &who, sizeof(who));
        memcpy(body + sizeof(who) + 16, &request, sizeof(request));
        message.body = body;
        message.body_size = 132;
    } else if (kind == PEER_ANSWER) {
        struct reply reply = {.result = SHELF_CONFLICT, .reason = REASON_CERTIFY, .session = 9};
        memset(body, 0, sizeof(reply));
        memcpy(body, &reply, sizeof(reply));
        message.body = body;
        message.body_size = sizeof(struct reply);
    } else if (kind == PEER_OFFER) {
        struct peer_checkpoint checkpoint = checkpoint_make();
        memcpy(body, &checkpoint, sizeof(checkpoint));
        message.body = body;
        message.body_size = sizeof(checkpoint);
    } else if (kind == PEER_PART_ASK || kind == PEER_PART) {
        struct peer_part part = {
            .roots_crc = 9, .kind = PEER_PART_TABLE, .region = 3, .size = 4096, .offset = 8192};
        memset(body, 0x77, 4096 + sizeof(part));
        memcpy(body, &part, sizeof(part));
        message.body = body;
        message.body_size = sizeof(part) + (kind == PEER_PART ? part.size : 0);
    }
    return message;
}

struct frame {
    uint8_t bytes[16384];
    size_t size;
};

static void frame_make(const struct peer_message *message, struct frame *frame) {
    frame->size = peer_encode(message, cluster, 0, frame->bytes);
    if (message->body_size > 0) {
        memcpy(frame->bytes + frame->size, message->body, message->body_size);
        frame->size += message->body_size;
    }
}

// As a node reads it: the header first, then as many bytes as it says.
static const char *frame_read(const struct frame *frame, struct peer_message *ret_message) {
    size_t body_size = 0;
    const char *problem = peer_header_decode(frame->bytes, cluster, 0, &body_size);
    if (problem == NULL && sizeof(struct peer_header) + body_size != frame->size) {
        problem = "another size";
    }
    return problem ? problem
                   : peer_decode(frame->bytes, frame->bytes + sizeof(struct peer_header), ret_message);
}

static void test_there_and_back(void **state) {
    (void)state;
    for (uint32_t kind = PEER_HELLO; kind < PEER_KIND_END; kind++) {
        uint8_t body[8192];
        struct peer_message message = message_of((uint16_t)kind, body), read = {0};
        struct frame frame;
        frame_make(&message, &frame);
        assert_null(frame_read(&frame, &read));
        assert_int_equal(read.kind, kind);
        assert_int_equal(read.flags, message.flags);
        assert_int_equal(read.from, 7);
        assert_memory_equal(read.incarnation, message.incarnation, 16);
        assert_memory_equal(read.nonce, message.nonce, 16);
        assert_int_equal(read.epoch, message.epoch);
        assert_int_equal(read.index, message.index);
        assert_int_equal(read.index_epoch, message.index_epoch);
        assert_int_equal(read.commit, message.commit);
        assert_int_equal(read.last, message.last);
        assert_int_equal(read.last_epoch, message.last_epoch);
        assert_int_equal(read.round, message.round);
        assert_int_equal(read.link, message.link);
        assert_int_equal(read.done, message.done);
        assert_int_equal(read.body_size, message.body_size);
        assert_true(read.body_size == 0 || memcmp(read.body, message.body, read.body_size) == 0);
        assert_true(kind != PEER_PROMISE_ASK ||
                    configuration_equal(&read.configuration, &message.configuration));
        struct frame again; // exactly one spelling
        frame_make(&read, &again);
        assert_int_equal(again.size, frame.size);
        assert_memory_equal(again.bytes, frame.bytes, frame.size);
    }
}

static void test_every_bit_counts(void **state) {
    (void)state;
    for (uint32_t kind = PEER_HELLO; kind < PEER_KIND_END; kind++) {
        uint8_t body[8192];
        struct peer_message message = message_of((uint16_t)kind, body), read = {0};
        struct frame frame;
        frame_make(&message, &frame);
        for (size_t bit = 0; bit < frame.size * 8; bit++) {
            frame.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_non_null(frame_read(&frame, &read));
            frame.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        assert_null(frame_read(&frame, &read));
    }
}

// Changed by somebody who puts the checksums right.
static void test_forged_headers(void **state) {
    (void)state;
    struct random random;
    random_seed(&random, 1);
    uint64_t refused = 0;
    for (uint32_t round = 0; round < 200000; round++) {
        uint8_t body[8192];
        struct peer_message message =
            message_of((uint16_t)random_between(&random, PEER_HELLO, PEER_KIND_END - 1), body);
        struct frame frame;
        frame_make(&message, &frame);
        struct peer_header header;
        memcpy(&header, frame.bytes, sizeof(header));
        ((uint8_t *)&header)[random_below(&random, sizeof(header))] ^=
            (uint8_t)random_between(&random, 1, 255);
        header.header_crc = header_crc_of(header);
        memcpy(frame.bytes, &header, sizeof(header));
        struct peer_message read;
        if (frame_read(&frame, &read) != NULL) {
            refused++;
            continue;
        }
        struct frame again;
        frame_make(&read, &again);
        assert_int_equal(again.size, frame.size);
        assert_memory_equal(again.bytes, frame.bytes, frame.size);
    }
    assert_in_range(refused, 50000, 199999);
}

static void test_foreign(void **state) {
    (void)state;
    struct peer_message message = {.kind = PEER_HELLO, .from = 1};
    uint8_t bytes[PEER_HEAD_BYTES_MAX];
    size_t size;
    peer_encode(&message, cluster, 0, bytes);
    assert_null(peer_header_decode(bytes, cluster, 0, &size));
    assert_int_equal(size, 0);
    assert_string_equal(peer_header_decode(bytes, other_cluster, 0, &size), "it is of another cluster");
    assert_string_equal(peer_header_decode(bytes, cluster, 1, &size), "it is of another cluster");
    struct peer_header header;
    memcpy(&header, bytes, sizeof(header));
    header.version++;
    header.header_crc = header_crc_of(header);
    assert_string_equal(peer_header_decode(&header, cluster, 0, &size),
                        "the other side speaks another version");
}

// A size is refused before anybody takes memory for it.
static void test_bounds(void **state) {
    (void)state;
    static const struct {
        uint16_t kind;
        size_t max;
    } bounds[] = {
        {PEER_HELLO, 0},
        {PEER_ACK, 0},
        {PEER_APPEND, sizeof(struct record_header) + LOG_RECORD_BYTES_MAX + 4096},
        {PEER_FORWARD, PEER_REQUEST_BYTES_MAX},
        {PEER_ANSWER, sizeof(struct reply)},
        {PEER_PROMISE_ASK, sizeof(struct peer_configuration) + 16 * sizeof(struct configuration_member)},
        {PEER_OFFER, sizeof(struct peer_checkpoint)},
        {PEER_PART_ASK, sizeof(struct peer_part)},
        {PEER_PART, sizeof(struct peer_part) + PEER_PART_BYTES_MAX}};
    for (size_t i = 0; i < ARRAY_COUNT(bounds); i++) {
        struct peer_header header = {
            .magic = PEER_MAGIC, .version = PEER_VERSION, .kind = bounds[i].kind, .from = 1};
        memcpy(header.cluster, cluster, sizeof(header.cluster));
        size_t size = 1;
        header.body_size = (uint32_t)bounds[i].max;
        header.header_crc = header_crc_of(header);
        assert_null(peer_header_decode(&header, cluster, 0, &size));
        assert_int_equal(size, bounds[i].max);
        header.body_size++;
        header.header_crc = header_crc_of(header);
        assert_non_null(peer_header_decode(&header, cluster, 0, &size));
    }
}

static const char *append_read(uint64_t index, uint64_t index_epoch, uint64_t epoch, const uint8_t *record,
                               size_t size) {
    struct peer_message read, message = {.kind = PEER_APPEND,
                                         .from = 1,
                                         .epoch = epoch,
                                         .index = index,
                                         .index_epoch = index_epoch,
                                         .body = record,
                                         .body_size = size};
    struct frame frame;
    frame_make(&message, &frame);
    return frame_read(&frame, &read);
}

static void test_records(void **state) {
    (void)state;
    uint8_t record[8192];
    size_t size = record_make(record, 42, 11, 9, 700);
    assert_null(append_read(41, 9, 11, record, size));
    assert_null(append_read(41, 9, 12, record, size)); // an older epoch's
    assert_null(append_read(41, 9, 12, record, 4096)); // of a log with larger units
    assert_non_null(append_read(41, 9, 10, record, size));
    assert_non_null(append_read(40, 9, 11, record, size));
    assert_non_null(append_read(41, 8, 11, record, size));
    assert_non_null(append_read(UINT64_MAX, 9, 11, record, size));
    assert_non_null(append_read(41, 9, 11, record, size - 512));
    assert_non_null(append_read(41, 9, 11, record, size + 512));
    assert_non_null(append_read(41, 9, 11, record, 100));
    size = record_make(record, 42, 8, 9, 700); // epochs do not go back
    assert_non_null(append_read(41, 9, 11, record, size));
    size = record_make(record, 42, 11, 9, 0);
    ((struct record_header *)(void *)record)->shelf_id[3] ^= 1;
    assert_non_null(append_read(41, 9, 11, record, size));
}

static const char *body_read(uint16_t kind, uint16_t flags, const void *body, size_t size) {
    struct peer_message read, message = {.kind = kind,
                                         .flags = flags,
                                         .from = 1,
                                         .epoch = 2,
                                         .index = 3,
                                         .index_epoch = 2,
                                         .body = body,
                                         .body_size = size};
    struct frame frame;
    frame_make(&message, &frame);
    return frame_read(&frame, &read);
}

static void test_checkpoints(void **state) {
    (void)state;
    struct peer_checkpoint good = checkpoint_make(), bad = good;
    assert_null(body_read(PEER_OFFER, 0, &good, sizeof(good)));
    assert_non_null(body_read(PEER_OFFER, 0, &good, sizeof(good) - 1));
    bad.alignment = 1024;
    assert_non_null(body_read(PEER_OFFER, 0, &bad, sizeof(bad)));
    bad = good;
    bad.segment_sequence = 0;
    assert_non_null(body_read(PEER_OFFER, 0, &bad, sizeof(bad)));
    bad = good;
    bad.segment_offset = 100;
    assert_non_null(body_read(PEER_OFFER, 0, &bad, sizeof(bad)));
    bad.segment_offset = LOG_SEGMENT_BYTES + 512;
    assert_non_null(body_read(PEER_OFFER, 0, &bad, sizeof(bad)));
    bad = good;
    bad.roots_size = 3;
    assert_non_null(body_read(PEER_OFFER, 0, &bad, sizeof(bad)));
    bad = good;
    bad.reserved[1] = 1;
    assert_non_null(body_read(PEER_OFFER, 0, &bad, sizeof(bad)));
}

static void test_parts(void **state) {
    (void)state;
    static _Alignas(8) uint8_t bytes[sizeof(struct peer_part) + 4096];
    const struct peer_part good = {
        .roots_crc = 1, .kind = PEER_PART_PAGES, .slot = 1, .region = 2, .size = 4096, .offset = 4096};
    memcpy(bytes, &good, sizeof(good));
    assert_null(body_read(PEER_PART_ASK, 0, bytes, sizeof(good)));
    assert_non_null(body_read(PEER_PART_ASK, 0, bytes, sizeof(good) - 1));
    assert_null(body_read(PEER_PART, 0, bytes, sizeof(bytes)));
    assert_non_null(body_read(PEER_PART, 0, bytes, sizeof(good)));
    assert_null(body_read(PEER_PART, PEER_FLAG_BEHIND, bytes, sizeof(good)));
    assert_non_null(body_read(PEER_PART, PEER_FLAG_BEHIND, bytes, sizeof(bytes)));
    static const struct peer_part bads[] = {
        {.kind = 0, .region = 2, .size = 4096},
        {.kind = PEER_PART_KIND_END, .region = 2, .size = 4096},
        {.kind = PEER_PART_ROOTS, .region = 2, .size = 4096},
        {.kind = PEER_PART_TABLE, .region = 0, .size = 4096},
        {.kind = PEER_PART_TABLE, .region = 2, .size = 4096, .slot = 1},
        {.kind = PEER_PART_PAGES, .region = REGION_NUMBERS, .size = 4096},
        {.kind = PEER_PART_PAGES, .region = 2, .size = 4096, .slot = 2},
        {.kind = PEER_PART_PAGES, .region = 2, .size = 0},
        {.kind = PEER_PART_PAGES, .region = 2, .size = 4095},
        {.kind = PEER_PART_PAGES, .region = 2, .size = PEER_PART_BYTES_MAX + 4096},
        {.kind = PEER_PART_PAGES, .region = 2, .size = 4096, .offset = 512},
        {.kind = PEER_PART_PAGES, .region = 2, .size = 4096, .offset = (uint64_t)1 << 48},
        {.kind = PEER_PART_PAGES, .region = 2, .size = 4096, .reserved = 1},
    };
    for (size_t i = 0; i < ARRAY_COUNT(bads); i++) {
        assert_non_null(body_read(PEER_PART_ASK, 0, &bads[i], sizeof(bads[i])));
    }
}

static void test_configurations(void **state) {
    (void)state;
    struct configuration good = configuration_three(5);
    assert_null(configuration_problem(&good));
    struct configuration bad = good;
    bad.epoch = 0;
    assert_non_null(configuration_problem(&bad));
    bad = good;
    bad.member_count = 0;
    assert_non_null(configuration_problem(&bad));
    bad = good;
    bad.member_count = CONFIGURATION_MEMBERS_MAX + 1;
    assert_non_null(configuration_problem(&bad));
    bad = good;
    bad.members[1].node = bad.members[0].node;
    assert_non_null(configuration_problem(&bad));
    bad = good;
    bad.members[0].node = 0;
    assert_non_null(configuration_problem(&bad));
    bad = good;
    bad.primary = 4;
    assert_non_null(configuration_problem(&bad));
    bad = good;
    bad.members[2].incarnation[15]++;
    assert_null(configuration_problem(&bad));
    assert_false(configuration_equal(&good, &bad));
    assert_true(configuration_equal(&good, &good));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back), cmocka_unit_test(test_every_bit_counts),
        cmocka_unit_test(test_forged_headers), cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_bounds),         cmocka_unit_test(test_records),
        cmocka_unit_test(test_configurations), cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
