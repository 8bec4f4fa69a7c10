// SPDX-License-Identifier: Apache-2.0
/*
 * fuzz_peer.c: any bytes as a message from another node. If the last byte is odd, checksums are put right first, so that
 * what they protect is tried, too. What is accepted must be spelled exactly like that.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "wire/peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good) {
    if (!good) {
        abort();
    }
}

static void checksums_repair(uint8_t *bytes, size_t size) {
    struct peer_header header;
    memcpy(&header, bytes, sizeof(header));
    header.magic = PEER_MAGIC;
    header.version = PEER_VERSION;
    header.group = 0;
    memset(header.cluster, 0, sizeof(header.cluster));
    header.body_size = (uint32_t)(size - sizeof(header));
    struct record_header record;
    if (header.body_size >= sizeof(record)) {
        memcpy(&record, bytes + sizeof(header), sizeof(record));
        if (record.magic == RECORD_MAGIC) {
            record.header_crc = 0;
            record.header_crc = crc32c(0, &record, sizeof(record));
            memcpy(bytes + sizeof(header), &record, sizeof(record));
        }
    }
    header.body_crc = header.body_size > 0 ? crc32c(0, bytes + sizeof(header), header.body_size) : 0;
    header.header_crc = 0;
    header.header_crc = crc32c(0, &header, sizeof(header));
    memcpy(bytes, &header, sizeof(header));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t cluster[16];
    struct peer_message message;
    size_t body_size = 0;
    if (size < sizeof(struct peer_header)) {
        return 0;
    }
    uint8_t *bytes = malloc(size);
    if (!bytes) {
        return 0;
    }
    memcpy(bytes, data, size);
    if ((bytes[size - 1] & 1) != 0) {
        checksums_repair(bytes, size);
    }
    const uint8_t *body = bytes + sizeof(struct peer_header);
    if (peer_header_decode(bytes, cluster, 0, &body_size) == NULL &&
        body_size == size - sizeof(struct peer_header) && peer_decode(bytes, body, &message) == NULL) {
        uint8_t again[PEER_HEAD_BYTES_MAX];
        size_t head = peer_encode(&message, cluster, 0, again);
        require(head <= size && memcmp(again, bytes, head) == 0);
        require(head + message.body_size == size);
    }
    free(bytes);
    return 0;
}
