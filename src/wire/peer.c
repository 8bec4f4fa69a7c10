// SPDX-License-Identifier: Apache-2.0
/*
 * peer.c: see peer.h. One table says which fields a kind uses and what its body is; everything else is refused.
 */
#include "wire/peer.h"

#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/crc.h"
#include "wire/checkpoint_format.h"
#include "wire/request.h"

enum field {
    FIELD_EPOCH = 1,
    FIELD_NONCE = 2,
    FIELD_INDEX = 4, /* with its epoch */
    FIELD_COMMIT = 8,
    FIELD_LAST = 16, /* with its epoch */
    FIELD_ROUND = 32,
    FIELD_LINK = 64,
    FIELD_DONE = 128,
};

enum body {
    BODY_NONE,
    BODY_RECORD,
    BODY_CONFIGURATION,
    BODY_REQUEST,
    BODY_REPLY,
    BODY_CHECKPOINT,
    BODY_PART_ASK,
    BODY_PART,
};

struct kind {
    uint16_t fields;
    uint16_t flags;
    enum body body;
};

static const struct kind kinds[PEER_KIND_END] = {
    [PEER_HELLO] = {0, 0, BODY_NONE},
    [PEER_JOIN] = {FIELD_EPOCH | FIELD_COMMIT, 0, BODY_NONE},
    [PEER_APPEND] = {FIELD_EPOCH | FIELD_NONCE | FIELD_INDEX | FIELD_COMMIT | FIELD_ROUND, 0, BODY_RECORD},
    [PEER_ACK] = {FIELD_EPOCH | FIELD_INDEX | FIELD_COMMIT | FIELD_LAST | FIELD_ROUND,
                  PEER_FLAG_NO | PEER_FLAG_BEHIND, BODY_NONE},
    [PEER_SUSPECT_ASK] = {FIELD_EPOCH | FIELD_NONCE, 0, BODY_NONE},
    [PEER_SUSPECT_ANSWER] = {FIELD_EPOCH | FIELD_NONCE, PEER_FLAG_NO, BODY_NONE},
    [PEER_PROMISE_ASK] = {FIELD_EPOCH | FIELD_NONCE, 0, BODY_CONFIGURATION},
    [PEER_PROMISE] = {FIELD_EPOCH | FIELD_COMMIT | FIELD_LAST, PEER_FLAG_NO, BODY_NONE},
    [PEER_FETCH] = {FIELD_EPOCH | FIELD_INDEX, 0, BODY_NONE},
    [PEER_FETCHED] = {FIELD_EPOCH | FIELD_INDEX | FIELD_LAST, PEER_FLAG_BEHIND, BODY_RECORD},
    [PEER_FORWARD] = {FIELD_EPOCH | FIELD_NONCE | FIELD_INDEX | FIELD_ROUND | FIELD_LINK | FIELD_DONE, 0,
                      BODY_REQUEST},
    [PEER_ANSWER] = {FIELD_EPOCH | FIELD_NONCE | FIELD_COMMIT | FIELD_ROUND | FIELD_LINK,
                     PEER_FLAG_NO | PEER_FLAG_BEHIND, BODY_REPLY},
    [PEER_OFFER] = {FIELD_EPOCH | FIELD_INDEX, 0, BODY_CHECKPOINT},
    [PEER_PART_ASK] = {FIELD_EPOCH | FIELD_INDEX, 0, BODY_PART_ASK},
    [PEER_PART] = {FIELD_EPOCH | FIELD_INDEX, PEER_FLAG_BEHIND, BODY_PART},
};

#define RECORD_ALIGNMENT_MAX 4096u

static size_t body_size_max(enum body body) {
    switch (body) {
    case BODY_RECORD:
        return sizeof(struct record_header) + LOG_RECORD_BYTES_MAX + RECORD_ALIGNMENT_MAX;
    case BODY_CONFIGURATION:
        return sizeof(struct peer_configuration) +
               CONFIGURATION_MEMBERS_MAX * sizeof(struct configuration_member);
    case BODY_REQUEST:
        return PEER_REQUEST_BYTES_MAX;
    case BODY_REPLY:
        return sizeof(struct reply);
    case BODY_CHECKPOINT:
        return sizeof(struct peer_checkpoint);
    case BODY_PART_ASK:
        return sizeof(struct peer_part);
    case BODY_PART:
        return sizeof(struct peer_part) + PEER_PART_BYTES_MAX;
    case BODY_NONE:
        break;
    }
    return 0;
}

/* ---- Configuration -------------------------------------------------------------------------------------------------- */

static size_t configuration_body_encode(const struct configuration *configuration, uint8_t *bytes) {
    ASSERT(configuration_problem(configuration) == NULL);
    struct peer_configuration head = {.epoch = configuration->epoch,
                                      .primary = configuration->primary,
                                      .member_count = configuration->member_count};
    memcpy(head.nonce, configuration->nonce, sizeof(head.nonce));
    memcpy(bytes, &head, sizeof(head));
    memcpy(bytes + sizeof(head), configuration->members,
           configuration->member_count * sizeof(configuration->members[0]));
    return sizeof(head) + configuration->member_count * sizeof(configuration->members[0]);
}

static const char *configuration_body_decode(const uint8_t *bytes, size_t size,
                                             struct configuration *ret_configuration) {
    struct peer_configuration head;
    if (size < sizeof(head)) {
        return "a configuration is cut short";
    }
    memcpy(&head, bytes, sizeof(head));
    if (head.reserved != 0 || head.member_count > CONFIGURATION_MEMBERS_MAX ||
        size != sizeof(head) + head.member_count * sizeof(struct configuration_member)) {
        return "a configuration's size is not that of its members";
    }
    *ret_configuration = (struct configuration){
        .epoch = head.epoch, .primary = head.primary, .member_count = head.member_count};
    memcpy(ret_configuration->nonce, head.nonce, sizeof(head.nonce));
    memcpy(ret_configuration->members, bytes + sizeof(head), size - sizeof(head));
    return configuration_problem(ret_configuration);
}

/* ---- Bytes from a message ----------------------------------------------------------------------------------------- */

static uint32_t header_crc(const struct peer_header *header) {
    struct peer_header copy = *header;
    copy.header_crc = 0;
    return crc32c(0, &copy, sizeof(copy));
}

size_t peer_encode(const struct peer_message *message, const uint8_t cluster[16], uint16_t group,
                   uint8_t ret_bytes[PEER_HEAD_BYTES_MAX]) {
    ASSERT(message->kind >= PEER_HELLO && message->kind < PEER_KIND_END);
    const struct kind *kind = &kinds[message->kind];
    struct peer_header header = {.magic = PEER_MAGIC,
                                 .version = PEER_VERSION,
                                 .kind = message->kind,
                                 .group = group,
                                 .flags = message->flags,
                                 .from = message->from,
                                 .epoch = message->epoch,
                                 .index = message->index,
                                 .index_epoch = message->index_epoch,
                                 .commit = message->commit,
                                 .last = message->last,
                                 .last_epoch = message->last_epoch,
                                 .round = message->round,
                                 .link = message->link,
                                 .done = message->done};
    memcpy(header.cluster, cluster, sizeof(header.cluster));
    memcpy(header.incarnation, message->incarnation, sizeof(header.incarnation));
    memcpy(header.nonce, message->nonce, sizeof(header.nonce));
    size_t size = sizeof(header);
    if (kind->body == BODY_CONFIGURATION) {
        ASSERT(message->configuration.group == group);
        size += configuration_body_encode(&message->configuration, ret_bytes + sizeof(header));
        header.body_size = (uint32_t)(size - sizeof(header));
        header.body_crc = crc32c(0, ret_bytes + sizeof(header), header.body_size);
    } else {
        ASSERT(message->body_size <= body_size_max(kind->body));
        header.body_size = (uint32_t)message->body_size;
        header.body_crc = message->body_size > 0 ? crc32c(0, message->body, message->body_size) : 0;
    }
    header.header_crc = header_crc(&header);
    memcpy(ret_bytes, &header, sizeof(header));
    return size;
}

/* ---- A message from bytes ----------------------------------------------------------------------------------------- */

static bool is_zero(const void *bytes, size_t size) {
    const uint8_t *at = bytes;
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) {
        any |= at[i];
    }
    return any == 0;
}

static bool fields_unused_zero(const struct peer_header *header, uint32_t fields) {
    return ((fields & FIELD_EPOCH) || header->epoch == 0) &&
           ((fields & FIELD_NONCE) || is_zero(header->nonce, sizeof(header->nonce))) &&
           ((fields & FIELD_INDEX) || (header->index == 0 && header->index_epoch == 0)) &&
           ((fields & FIELD_COMMIT) || header->commit == 0) &&
           ((fields & FIELD_LAST) || (header->last == 0 && header->last_epoch == 0)) &&
           ((fields & FIELD_ROUND) || header->round == 0) && ((fields & FIELD_LINK) || header->link == 0) &&
           ((fields & FIELD_DONE) || header->done == 0) &&
           is_zero(header->reserved, sizeof(header->reserved));
}

bool peer_header_whole(const void *bytes) {
    struct peer_header header;
    memcpy(&header, bytes, sizeof(header));
    return header.magic == PEER_MAGIC && header.header_crc == header_crc(&header);
}

const char *peer_header_decode(const void *bytes, const uint8_t cluster[16], uint16_t group,
                               size_t *ret_body_size) {
    struct peer_header header;
    memcpy(&header, bytes, sizeof(header));
    if (!peer_header_whole(bytes)) {
        return "this is no message, or it was damaged on its way";
    }
    if (header.version != PEER_VERSION) {
        return "the other side speaks another version";
    }
    if (memcmp(header.cluster, cluster, sizeof(header.cluster)) != 0 || header.group != group) {
        return "it is of another cluster";
    }
    if (header.kind < PEER_HELLO || header.kind >= PEER_KIND_END) {
        return "there is no such kind of message";
    }
    const struct kind *kind = &kinds[header.kind];
    if (header.from == 0 || (header.flags & ~kind->flags) != 0 ||
        !fields_unused_zero(&header, kind->fields)) {
        return "a field has a value that its kind of message does not have";
    }
    if (header.body_size > body_size_max(kind->body)) {
        return "its body is larger than its kind of message allows";
    }
    *ret_body_size = header.body_size;
    return NULL;
}

/* A record as it lies in the log: the one after the record `index`. Its chain is for the log to check. */
static const char *record_problem(const struct peer_header *message, const uint8_t *bytes, size_t size) {
    struct record_header header;
    if (size == 0) {
        return NULL;
    }
    if (size < sizeof(header)) {
        return "a record is cut short";
    }
    memcpy(&header, bytes, sizeof(header));
    struct record_header zeroed = header;
    zeroed.header_crc = 0;
    if (header.magic != RECORD_MAGIC || header.format != LOG_FORMAT_VERSION ||
        header.header_crc != crc32c(0, &zeroed, sizeof(zeroed))) {
        return "a record's header fails its checksum";
    }
    uint64_t used = sizeof(header) + (uint64_t)header.payload_size;
    if (header.payload_size > LOG_RECORD_BYTES_MAX || used > size ||
        (size != align_up(used, 512) && size != align_up(used, RECORD_ALIGNMENT_MAX))) {
        return "a record's size is not that of its message";
    }
    if (message->index == UINT64_MAX || header.index != message->index + 1 ||
        header.previous_epoch != message->index_epoch || header.epoch < header.previous_epoch ||
        header.epoch > message->epoch ||
        memcmp(header.shelf_id, message->cluster, sizeof(header.shelf_id)) != 0) {
        return "a record is not the one that its message says";
    }
    return NULL;
}

const char *peer_request_parse(const void *body, size_t size, struct peer_request_parts *ret_parts) {
    const uint8_t *bytes = body;
    struct peer_request_parts parts = {0};
    struct request_header header;
    if (size < sizeof(parts.head)) {
        return "a request is cut short";
    }
    memcpy(&parts.head, bytes, sizeof(parts.head));
    if (parts.head.group_count > PEER_GROUPS_MAX || (parts.head.flags & ~PEER_REQUEST_FLAGS_ALL) != 0) {
        return "who asks is not to be understood";
    }
    size_t groups_size = align_up(parts.head.group_count * sizeof(uint32_t), 8);
    if (size - sizeof(parts.head) < groups_size + sizeof(header)) {
        return "a request is cut short";
    }
    parts.groups = (const uint32_t *)(const void *)(bytes + sizeof(parts.head));
    parts.request = bytes + sizeof(parts.head) + groups_size;
    parts.request_size = size - sizeof(parts.head) - groups_size;
    memcpy(&header, parts.request, sizeof(header));
    *ret_parts = parts;
    return header.size == parts.request_size ? NULL : "a request's size is not that of its message";
}

static const char *request_problem(const void *body, size_t size) {
    struct peer_request_parts parts;
    return size == 0 ? NULL : peer_request_parse(body, size, &parts);
}

static const char *reply_problem(const struct peer_header *header, const void *body) {
    struct reply reply;
    if (header->body_size != (header->flags != 0 ? 0 : sizeof(reply))) {
        return "an answer has the wrong size";
    }
    if (header->body_size == 0) {
        return NULL;
    }
    uint8_t replayed = ((const uint8_t *)body)[offsetof(struct reply, receipt.replayed)];
    memcpy(&reply, body, sizeof(reply));
    return reply.reason < REASON_COUNT && replayed <= 1 && reply.receipt.result_count <= SHELF_TX_RESULTS_MAX
               ? NULL
               : "an answer says what no answer says";
}

static const char *checkpoint_problem(const uint8_t *bytes, size_t size) {
    struct peer_checkpoint body;
    if (size != sizeof(body)) {
        return "a checkpoint's description has the wrong size";
    }
    memcpy(&body, bytes, sizeof(body));
    bool sane = body.reserved[0] == 0 && body.reserved[1] == 0 &&
                (body.alignment == 512 || body.alignment == 4096) && body.segment_sequence > 0 &&
                body.segment_offset >= body.alignment && body.segment_offset <= LOG_SEGMENT_BYTES &&
                body.segment_offset % body.alignment == 0 && body.roots_size >= sizeof(struct roots_header);
    return sane ? NULL : "a checkpoint's description makes no sense";
}

static const char *part_problem(const struct peer_header *message, const uint8_t *bytes, size_t size) {
    struct peer_part part;
    if (size < sizeof(part)) {
        return "what part of a checkpoint is meant is cut short";
    }
    memcpy(&part, bytes, sizeof(part));
    bool roots = part.kind == PEER_PART_ROOTS;
    bool sane = part.reserved == 0 && part.kind >= PEER_PART_ROOTS && part.kind < PEER_PART_KIND_END &&
                part.slot <= (part.kind == PEER_PART_PAGES) && part.region < REGION_NUMBERS &&
                roots == (part.region == 0) && part.size > 0 && part.size <= PEER_PART_BYTES_MAX &&
                part.size % PAGE_SIZE == 0 && part.offset % PAGE_SIZE == 0 &&
                part.offset < (uint64_t)1 << ADDRESS_OFFSET_BITS;
    if (!sane) {
        return "there is no such part of a checkpoint";
    }
    bool bytes_come = message->kind == PEER_PART && (message->flags & PEER_FLAG_BEHIND) == 0;
    return size == sizeof(part) + (bytes_come ? part.size : 0) ? NULL
                                                               : "a part of a checkpoint has another size";
}

static const char *body_problem(const struct peer_header *header, const void *body,
                                struct peer_message *message) {
    switch (kinds[header->kind].body) {
    case BODY_RECORD:
        return record_problem(header, body, header->body_size);
    case BODY_CONFIGURATION: {
        const char *problem = configuration_body_decode(body, header->body_size, &message->configuration);
        if (problem == NULL &&
            (message->configuration.epoch != header->epoch ||
             message->configuration.primary != header->from ||
             memcmp(message->configuration.nonce, header->nonce, sizeof(header->nonce)) != 0)) {
            problem = "a candidate asks for the epoch of another";
        }
        message->configuration.group = header->group;
        return problem;
    }
    case BODY_REQUEST:
        return request_problem(body, header->body_size);
    case BODY_REPLY:
        return reply_problem(header, body);
    case BODY_CHECKPOINT:
        return checkpoint_problem(body, header->body_size);
    case BODY_PART_ASK:
    case BODY_PART:
        return part_problem(header, body, header->body_size);
    case BODY_NONE:
        break;
    }
    return NULL;
}

const char *peer_decode(const void *header_bytes, const void *body, struct peer_message *ret_message) {
    struct peer_header header;
    memcpy(&header, header_bytes, sizeof(header));
    if ((header.body_size > 0 ? crc32c(0, body, header.body_size) : 0) != header.body_crc) {
        return "its body was damaged on its way";
    }
    *ret_message = (struct peer_message){.kind = header.kind,
                                         .flags = header.flags,
                                         .from = header.from,
                                         .epoch = header.epoch,
                                         .index = header.index,
                                         .index_epoch = header.index_epoch,
                                         .commit = header.commit,
                                         .last = header.last,
                                         .last_epoch = header.last_epoch,
                                         .round = header.round,
                                         .link = header.link,
                                         .done = header.done};
    memcpy(ret_message->incarnation, header.incarnation, sizeof(header.incarnation));
    memcpy(ret_message->nonce, header.nonce, sizeof(header.nonce));
    if (kinds[header.kind].body != BODY_CONFIGURATION) {
        ret_message->body = header.body_size > 0 ? body : NULL;
        ret_message->body_size = header.body_size;
    }
    return body_problem(&header, body, ret_message);
}
