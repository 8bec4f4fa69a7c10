// SPDX-License-Identifier: Apache-2.0
/*
 * ring.h: memory that one client and its node share: requests go one way, replies the other. One memfd a client, made by the
 * node, of a fixed size (sealed against shrinking and growing), mapped writable by both. Neither trusts what it finds there:
 *
 *   G1  Each side writes only its own cursors, and believes only its private copies of them. A cursor of the other side that goes
 *       back, or ahead further than there is room, is a fault of the other side and ends the attachment.
 *   G2  Bytes of a request are copied out once, to where the client cannot reach them, and only the copy is looked at. A
 *       frame's header is loaded once.
 *   G3  `submit_tail` moves (release) after the bytes before it were written; `reply_tail` after the replies. So a client that is killed
 *       between two instructions has submitted a request, or has not.
 *   G4  A side that is about to sleep on the socket says so in its `sleeps` word, looks at the other's cursor once more, and only
 *       then sleeps. Who moved a cursor looks at the word afterwards (both with sequential consistency), takes it back to 0
 *       and sends one byte. So no wake-up is lost and few are sent.
 *
 * Submit ring: frames of 8-byte multiples, wrapping around anywhere. A request that is longer than the ring is written
 * piece by piece as the node takes it away. Reply ring: `struct reply`, its token the frame's tag. The node takes no request
 * whose reply would find no place.
 */
#ifndef WIRE_RING_H
#define WIRE_RING_H

#include <stdatomic.h>

#include "wire/request.h"

#define RING_REPLIES      1024u /* so many requests may be without an answer that the client has taken */
#define RING_SUBMIT_BYTES ((uint64_t)1 << 20)

struct ring_frame {
    uint32_t size; /* of the request that follows; zeros up to a multiple of 8 */
    uint32_t reserved;
    uint64_t tag; /* the client's: comes back as the reply's token */
};
_Static_assert(sizeof(struct ring_frame) == 16, "format");

struct ring {
    /* The client's. */
    _Alignas(LINE_SIZE) _Atomic uint64_t submit_tail; /* bytes ever submitted */
    _Alignas(LINE_SIZE) _Atomic uint64_t reply_head;  /* replies ever taken */
    _Atomic uint32_t client_sleeps;                   /* G4: for replies or for room */
    _Alignas(LINE_SIZE) _Atomic uint32_t waiters;     /* threads in shelf_wait(): changes are to be told */
    /* The node's. */
    _Alignas(LINE_SIZE) _Atomic uint64_t submit_head; /* bytes ever taken */
    _Atomic uint32_t node_sleeps;                     /* G4 */
    _Alignas(LINE_SIZE) _Atomic uint64_t reply_tail;  /* replies ever given */
    _Alignas(PAGE_SIZE) struct reply replies[RING_REPLIES];
    _Alignas(PAGE_SIZE) uint8_t submit[RING_SUBMIT_BYTES];
};

#define RING_BYTES sizeof(struct ring)

#endif
