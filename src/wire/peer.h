// SPDX-License-Identifier: Apache-2.0
/*
 * peer.h: what nodes of a cluster say to each other. All integers are little-endian.
 *
 * A message is a peer_header of 192 bytes and a body, whose kind and largest size follow from the message's kind. The header
 * has a checksum of its own, so that the size may be believed before memory is taken for the body.
 *
 *     kind            from -> to              body
 *     HELLO           both, first             -           version, cluster and node of a new connection
 *     JOIN            learner -> primary      -           "I follow; count me once I have caught up"
 *     APPEND          primary -> all          record or - the next record; without one a heartbeat, a check, a commit index
 *     ACK             all -> primary          -           "my durable log equals yours up to `index`" (rule L2)
 *     SUSPECT_ASK     member -> members       -           "I hear nothing of the primary of `epoch`; do you?"
 *     SUSPECT_ANSWER  member -> member        -
 *     PROMISE_ASK     candidate -> members    set         "I have won `epoch`: what is your last durable record?"
 *     PROMISE         member -> candidate     -           (rules T3, T4)
 *     FETCH           candidate -> member     -           "the record after `index`, please"
 *     FETCHED         member -> candidate     record or -
 *     FORWARD         any -> primary          request or - a program's request, `round` names it; `nonce` is the sender's
 *                                                         process, `link` what both have agreed on (0: nothing yet), rounds
 *                                                         below `done` are settled, `index` is what the sender has applied.
 *                                                         Without a request: a linearizable read; without a round: "a link, please"
 *     ANSWER          primary -> any          reply or -  to FORWARD `round`, when the primary had applied `commit`. BEHIND: no
 *                                                         answer; `link` is the one to be used. NO: not now, send it again soon
 *     OFFER           primary -> peer         checkpoint  "your next record is not in my log any more; I have a checkpoint of `index`"
 *     PART_ASK        peer -> donor           part        "these bytes of your checkpoint of `index`, please"
 *     PART            donor -> peer           part, bytes, or the part alone: "that is not my checkpoint any more" (rule D1)
 *
 * The set is a configuration (wire/configuration.h) whose group is the message's.
 *
 * Every message carries its sender and the sender's incarnation: what it says counts only if the set names both (rule C4).
 * A message has exactly one spelling: fields that its kind does not use are zero, and anything else is refused.
 */
#ifndef WIRE_PEER_H
#define WIRE_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/configuration.h"
#include "wire/limits.h"
#include "wire/log_format.h"

#define PEER_MAGIC   0x52454550u /* "PEER" */
#define PEER_VERSION 1u

enum peer_kind {
    PEER_HELLO = 1,
    PEER_JOIN,
    PEER_APPEND,
    PEER_ACK,
    PEER_SUSPECT_ASK,
    PEER_SUSPECT_ANSWER,
    PEER_PROMISE_ASK,
    PEER_PROMISE,
    PEER_FETCH,
    PEER_FETCHED,
    PEER_FORWARD,
    PEER_ANSWER,
    PEER_OFFER,
    PEER_PART_ASK,
    PEER_PART,
    PEER_KIND_END,
};

enum peer_flag {
    /* ACK, PROMISE: refused, `epoch` is the sender's promise. SUSPECT_ANSWER: it lives. ANSWER: no room now */
    PEER_FLAG_NO = 1,
    /* ACK: the record before the one sent is not here; FETCHED, PART: it is not there any more; ANSWER: the link is another one */
    PEER_FLAG_BEHIND = 2,
    PEER_FLAGS_ALL = 3,
};

struct peer_header {
    uint32_t magic;
    uint32_t header_crc; /* CRC32C of this struct, this field as zero */
    uint32_t body_crc;   /* CRC32C of the body */
    uint32_t body_size;
    uint16_t version;
    uint16_t kind;
    uint16_t group;
    uint16_t flags;
    uint8_t cluster[16]; /* the shelf's random id */
    uint64_t from;       /* node */
    uint8_t incarnation[16];
    uint64_t epoch;
    uint8_t nonce[16]; /* of the process that leads the epoch */
    uint64_t index;
    uint64_t index_epoch;
    uint64_t commit;
    uint64_t last;
    uint64_t last_epoch;
    uint64_t round;
    uint64_t link;
    uint64_t done;
    uint64_t reserved[5];
};
_Static_assert(sizeof(struct peer_header) == 192, "format");

struct peer_configuration { /* the body of PROMISE_ASK; member_count entries follow */
    uint64_t epoch;
    uint64_t primary;
    uint8_t nonce[16];
    uint32_t member_count;
    uint32_t reserved;
};
_Static_assert(sizeof(struct peer_configuration) == 40, "format");
_Static_assert(sizeof(struct configuration_member) == 24, "format: as in memory");

/* The body of FORWARD begins with who asks; the supplementary groups, zeros up to 8 bytes, and the request follow. */
struct peer_request {
    uint32_t user, group;
    uint32_t group_count;
    uint32_t flags; /* enum peer_request_flag */
};
_Static_assert(sizeof(struct peer_request) == 16, "format");
enum peer_request_flag {
    PEER_REQUEST_NODE = 1, /* the node itself, which may do everything */
};
#define PEER_REQUEST_FLAGS_ALL ((uint32_t)PEER_REQUEST_NODE)
#define PEER_GROUPS_MAX        65536u /* that Linux allows */
#define PEER_REQUEST_BYTES_MAX \
    (sizeof(struct peer_request) + PEER_GROUPS_MAX * sizeof(uint32_t) + REQUEST_BYTES_MAX)

struct peer_checkpoint { /* the body of OFFER: what the donor's superblock says of the checkpoint `index` */
    uint32_t chain;
    uint32_t record_size;
    uint64_t segment_sequence; /* where the record after it begins, if it fits there */
    uint64_t segment_offset;
    uint64_t roots_size;
    uint32_t roots_crc;
    uint32_t alignment;
    uint64_t time_ms;
    uint64_t reserved[2];
};
_Static_assert(sizeof(struct peer_checkpoint) == 64, "format");

enum peer_part_kind {
    PEER_PART_ROOTS = 1,
    PEER_PART_TABLE, /* offsets are those of the donor's files (wire/checkpoint_format.h) */
    PEER_PART_PAGES,
    PEER_PART_KIND_END,
};
/* The body of PART_ASK; PART repeats it, and has the bytes behind it. Offset and size are multiples of a page's. */
struct peer_part {
    uint32_t roots_crc; /* with index and epoch: of which checkpoint */
    uint16_t kind;      /* enum peer_part_kind */
    uint16_t slot;      /* PAGES: 0, 1: of file a, b */
    uint32_t region;    /* TABLE, PAGES */
    uint32_t size;
    uint64_t offset;
    uint64_t reserved;
};
_Static_assert(sizeof(struct peer_part) == 32, "format");
#define PEER_PART_BYTES_MAX ((uint32_t)256 << 10)

/* ---- In memory ---------------------------------------------------------------------------------------------------- */

struct peer_message {
    uint16_t kind;
    uint16_t flags;
    uint64_t from;
    uint8_t incarnation[16];
    uint64_t epoch;
    uint8_t nonce[16];
    uint64_t index, index_epoch;
    uint64_t commit;
    uint64_t last, last_epoch;
    uint64_t round;
    uint64_t link, done;
    const void *body; /* lent by whoever made the message */
    size_t body_size;
    struct configuration configuration; /* PROMISE_ASK: instead of a body */
};

/* The body of FORWARD, taken apart; lent from it. NULL, or what is wrong with it. */
struct peer_request_parts {
    struct peer_request head;
    const uint32_t *groups;
    const void *request;
    size_t request_size;
};
const char *peer_request_parse(const void *body, size_t size, struct peer_request_parts *ret_parts);

/* Header and, for PROMISE_ASK, the configuration as bytes; a body of other kinds follows as it is, and is only checksummed. */
#define PEER_HEAD_BYTES_MAX                                           \
    (sizeof(struct peer_header) + sizeof(struct peer_configuration) + \
     CONFIGURATION_MEMBERS_MAX * sizeof(struct configuration_member))
size_t peer_encode(const struct peer_message *message, const uint8_t cluster[16], uint16_t group,
                   uint8_t ret_bytes[PEER_HEAD_BYTES_MAX]);

/* Was this written as a header, of whatever version and cluster? (Magic, checksum, version and size stay where they are.) */
bool peer_header_whole(const void *bytes);
/* Is this a header, of this cluster and group? NULL, and how many bytes of body follow; else what is wrong. */
const char *peer_header_decode(const void *bytes, const uint8_t cluster[16], uint16_t group,
                               size_t *ret_body_size);
/* A header that was decoded, with its body. The body is lent to the message. NULL, or what is wrong: then the output is
 * not to be used. */
const char *peer_decode(const void *header, const void *body, struct peer_message *ret_message);

#endif
