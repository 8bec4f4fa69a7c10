// SPDX-License-Identifier: Apache-2.0
/* configuration.c: encodes and checks, see configuration.h. */
#include "wire/configuration.h"

#include <string.h>

#include "base/assert.h"
#include "base/crc.h"

#define CRC_OFFSET offsetof(struct configuration_header, crc)
_Static_assert(offsetof(struct node_record_header, crc) == CRC_OFFSET, "both begin alike");
_Static_assert(offsetof(struct node_record_header, format) == offsetof(struct configuration_header, format),
               "both begin alike");

/* The checksum of bytes that contain one at CRC_OFFSET. */
static uint32_t bytes_crc(const uint8_t *bytes, size_t size) {
    static const uint8_t zero[sizeof(uint32_t)] = {0};
    uint32_t crc = crc32c(0, bytes, CRC_OFFSET);
    crc = crc32c(crc, zero, sizeof(zero));
    return crc32c(crc, bytes + CRC_OFFSET + sizeof(zero), size - CRC_OFFSET - sizeof(zero));
}

static void bytes_seal(uint8_t *bytes, size_t size) {
    uint32_t crc = bytes_crc(bytes, size);
    memcpy(bytes + CRC_OFFSET, &crc, sizeof(crc));
}

/* What both have in common: size_least bytes at least, magic, version, checksum. */
static const char *bytes_problem(const uint8_t *bytes, size_t size, size_t size_least, size_t size_max,
                                 uint64_t magic, uint16_t format) {
    struct configuration_header start;
    if (size < size_least) {
        return "it is too short";
    }
    memcpy(&start, bytes, offsetof(struct configuration_header, group));
    if (start.magic != magic) {
        return "it is something else";
    }
    if (start.format > format) {
        return "its format is newer than this program";
    }
    if (start.format != format || size > size_max) {
        return "its format is unknown";
    }
    return start.crc == bytes_crc(bytes, size) ? NULL : "its checksum is wrong";
}

/* ---- Configurations ----------------------------------------------------------------------------------------------- */

const char *configuration_problem(const struct configuration *configuration) {
    bool primary_found = false;
    if (configuration->epoch == 0) {
        return "it has no epoch";
    }
    if (configuration->member_count == 0 || configuration->member_count > CONFIGURATION_MEMBERS_MAX) {
        return "the number of its members is out of bounds";
    }
    for (uint32_t i = 0; i < configuration->member_count; i++) {
        uint64_t before = i > 0 ? configuration->members[i - 1].node : 0;
        if (configuration->members[i].node <= before) {
            return "its members are not in order";
        }
        primary_found |= configuration->members[i].node == configuration->primary;
    }
    return primary_found ? NULL : "its primary is no member";
}

bool configuration_equal(const struct configuration *a, const struct configuration *b) {
    return a->group == b->group && a->epoch == b->epoch && a->primary == b->primary &&
           memcmp(a->nonce, b->nonce, sizeof(a->nonce)) == 0 && a->member_count == b->member_count &&
           memcmp(a->members, b->members, a->member_count * sizeof(a->members[0])) == 0;
}

size_t configuration_encode(const struct configuration *configuration, const uint8_t shelf_id[16],
                            uint8_t ret_bytes[CONFIGURATION_BYTES_MAX]) {
    ASSERT(!configuration_problem(configuration));
    struct configuration_header header = {.magic = CONFIGURATION_MAGIC,
                                          .format = CONFIGURATION_FORMAT,
                                          .group = configuration->group,
                                          .epoch = configuration->epoch,
                                          .primary = configuration->primary,
                                          .member_count = configuration->member_count};
    memcpy(header.nonce, configuration->nonce, sizeof(header.nonce));
    memcpy(header.shelf_id, shelf_id, sizeof(header.shelf_id));
    memcpy(ret_bytes, &header, sizeof(header));
    size_t size = sizeof(header);
    for (uint32_t i = 0; i < configuration->member_count; i++) {
        struct configuration_entry entry = {.node = configuration->members[i].node};
        memcpy(entry.incarnation, configuration->members[i].incarnation, sizeof(entry.incarnation));
        memcpy(ret_bytes + size, &entry, sizeof(entry));
        size += sizeof(entry);
    }
    bytes_seal(ret_bytes, size);
    return size;
}

static bool is_zero(const uint8_t id[16]) {
    static const uint8_t zero[16] = {0};
    return memcmp(id, zero, sizeof(zero)) == 0;
}

const char *configuration_decode(const void *bytes, size_t size, struct configuration *ret_configuration,
                                 uint8_t ret_shelf_id[16]) {
    struct configuration_header header;
    const char *problem = bytes_problem(bytes, size, sizeof(header), CONFIGURATION_BYTES_MAX,
                                        CONFIGURATION_MAGIC, CONFIGURATION_FORMAT);
    if (problem) {
        return problem;
    }
    memcpy(&header, bytes, sizeof(header));
    if (header.member_count > CONFIGURATION_MEMBERS_MAX ||
        size != sizeof(header) + header.member_count * sizeof(struct configuration_entry)) {
        return "its size is not that of its members";
    }
    struct configuration configuration = {.group = header.group,
                                          .epoch = header.epoch,
                                          .primary = header.primary,
                                          .member_count = header.member_count};
    uint64_t reserved = header.reserved[0] | header.reserved[1] | header.reserved[2];
    memcpy(configuration.nonce, header.nonce, sizeof(header.nonce));
    for (uint32_t i = 0; i < header.member_count; i++) {
        struct configuration_entry entry;
        memcpy(&entry, (const uint8_t *)bytes + sizeof(header) + i * sizeof(entry), sizeof(entry));
        configuration.members[i].node = entry.node;
        memcpy(configuration.members[i].incarnation, entry.incarnation, sizeof(entry.incarnation));
        reserved |= entry.reserved;
    }
    problem = reserved != 0              ? "reserved bytes of it are not zero"
              : is_zero(header.shelf_id) ? "it names no shelf"
                                         : configuration_problem(&configuration);
    if (!problem) {
        *ret_configuration = configuration;
        memcpy(ret_shelf_id, header.shelf_id, sizeof(header.shelf_id));
    }
    return problem;
}

/* ---- Nodes --------------------------------------------------------------------------------------------------------- */

const char *node_record_problem(const struct node_record *record) {
    size_t size = 0;
    while (size < NODE_ADDRESS_MAX && record->address[size] > ' ' && record->address[size] <= '~') {
        size++;
    }
    if (record->node == 0) {
        return "it has no node";
    }
    return size > 0 && size < NODE_ADDRESS_MAX && record->address[size] == 0 ? NULL : "its address is none";
}

size_t node_record_encode(const struct node_record *record, uint8_t ret_bytes[NODE_RECORD_BYTES_MAX]) {
    ASSERT(!node_record_problem(record));
    uint16_t address_size = 0;
    while (record->address[address_size] != 0) {
        address_size++;
    }
    struct node_record_header header = {.magic = NODE_RECORD_MAGIC,
                                        .format = NODE_RECORD_FORMAT,
                                        .address_size = address_size,
                                        .node = record->node};
    memcpy(header.incarnation, record->incarnation, sizeof(header.incarnation));
    memcpy(ret_bytes, &header, sizeof(header));
    memcpy(ret_bytes + sizeof(header), record->address, address_size);
    bytes_seal(ret_bytes, sizeof(header) + address_size);
    return sizeof(header) + address_size;
}

const char *node_record_decode(const void *bytes, size_t size, struct node_record *ret_record) {
    struct node_record_header header;
    const char *problem = bytes_problem(bytes, size, sizeof(header), NODE_RECORD_BYTES_MAX, NODE_RECORD_MAGIC,
                                        NODE_RECORD_FORMAT);
    if (problem) {
        return problem;
    }
    memcpy(&header, bytes, sizeof(header));
    if (size != sizeof(header) + header.address_size) {
        return "its size is not that of its address";
    }
    struct node_record record = {.node = header.node};
    memcpy(record.incarnation, header.incarnation, sizeof(record.incarnation));
    memcpy(record.address, (const uint8_t *)bytes + sizeof(header), header.address_size);
    if (memchr(record.address, 0, header.address_size)) {
        return "its address is none";
    }
    problem = (header.reserved[0] | header.reserved[1] | header.reserved[2]) != 0
                  ? "reserved bytes of it are not zero"
                  : node_record_problem(&record);
    if (!problem) {
        *ret_record = record;
    }
    return problem;
}
