// SPDX-License-Identifier: Apache-2.0
/*
 * fuzz_peer_stream.c: any bytes as a stream from another node, in any pieces. The first byte says in which pieces they come, and
 * whether the checksums of what looks like messages are put right first. In other pieces the same stream must give the same
 * messages, and each of them is spelled exactly as it came.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "peer/peer_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HEADER_SIZE sizeof(struct peer_header)

static const uint8_t cluster[16];

struct outcome {
    size_t messages, bytes; /* that they are made of */
    uint32_t crc;           /* of those bytes */
    bool bad;
};

static void require(bool good) {
    if (!good) {
        abort();
    }
}

static void checksums_repair(uint8_t *bytes, size_t size) {
    for (size_t at = 0; size - at >= HEADER_SIZE;) {
        struct peer_header header;
        memcpy(&header, bytes + at, HEADER_SIZE);
        header.magic = PEER_MAGIC;
        header.version = PEER_VERSION;
        size_t left = size - at - HEADER_SIZE, body = header.body_size < left ? header.body_size : left;
        header.body_crc = body > 0 ? crc32c(0, bytes + at + HEADER_SIZE, body) : 0;
        header.header_crc = 0;
        header.header_crc = crc32c(0, &header, HEADER_SIZE);
        memcpy(bytes + at, &header, HEADER_SIZE);
        at += HEADER_SIZE + body;
    }
}

static void message_take(struct outcome *outcome, const struct peer_message *message) {
    uint8_t head[PEER_HEAD_BYTES_MAX];
    size_t head_size = peer_encode(message, cluster, 0, head);
    require((uintptr_t)message->body % 8 == 0);
    outcome->messages++;
    outcome->bytes += head_size + message->body_size;
    outcome->crc = crc32c(outcome->crc, head, head_size);
    if (message->body_size > 0) {
        outcome->crc = crc32c(outcome->crc, message->body, message->body_size);
    }
}

/* Pieces of at most `piece` bytes, or of changing sizes if it is 0. */
static struct outcome stream_run(const uint8_t *bytes, size_t size, size_t piece) {
    struct outcome outcome = {0};
    struct peer_stream stream;
    struct peer_message message;
    require(peer_stream_init(&stream, cluster, 0));
    enum peer_stream_result result = peer_stream_next(&stream, &message);
    for (size_t at = 0, turn = 1; at < size && result == PEER_STREAM_MORE; turn = turn * 5 % 257) {
        size_t space = 0, wanted = piece ? piece : turn;
        uint8_t *to = peer_stream_space(&stream, &space);
        require(space > 0);
        wanted = wanted < space ? wanted : space;
        wanted = wanted < size - at ? wanted : size - at;
        memcpy(to, bytes + at, wanted);
        peer_stream_put(&stream, wanted);
        at += wanted;
        while ((result = peer_stream_next(&stream, &message)) == PEER_STREAM_MESSAGE) {
            message_take(&outcome, &message);
        }
    }
    outcome.bad = result == PEER_STREAM_BAD;
    require(outcome.bad == (stream.problem != NULL));
    require(!outcome.bad || peer_stream_next(&stream, &message) == PEER_STREAM_BAD);
    peer_stream_free(&stream);
    require(outcome.bytes <= size &&
            outcome.crc == (outcome.bytes > 0 ? crc32c(0, bytes, outcome.bytes) : 0));
    return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    uint8_t how = data[0];
    size_t count = size - 1;
    uint8_t *bytes = malloc(count + 1);
    if (!bytes) {
        return 0;
    }
    memcpy(bytes, data + 1, count);
    if ((how & 1) != 0) {
        checksums_repair(bytes, count);
    }
    struct outcome whole = stream_run(bytes, count, count + 1), pieces = stream_run(bytes, count, how >> 1);
    require(whole.messages == pieces.messages && whole.bytes == pieces.bytes && whole.bad == pieces.bad);
    free(bytes);
    return 0;
}
