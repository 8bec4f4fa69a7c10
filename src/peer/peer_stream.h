// SPDX-License-Identifier: Apache-2.0
/*
 * peer_stream.h: messages from a stream of bytes that arrives in any pieces. It knows buffers, no sockets:
 *
 *     peer_stream_space   where the next bytes may be put
 *     peer_stream_put     so many were put there
 *     peer_stream_next    the next message of what is there, until PEER_STREAM_MORE
 *
 *  Q1  Memory for a body is taken only after the header's checksum was right and its kind allows the size.
 *  Q2  A message that was handed out lies in the stream's memory, its body at a multiple of 8, until the next call.
 *  Q3  After PEER_STREAM_BAD nothing more comes: where the next message begins is not known.
 */
#ifndef PEER_PEER_STREAM_H
#define PEER_PEER_STREAM_H

#include "wire/peer.h"

#define PEER_STREAM_BYTES \
    ((size_t)256 << 10) /* what is read at once; larger messages get memory of their own */

struct peer_stream {
    uint8_t cluster[16];
    uint16_t group;
    const char *problem; /* Q3 */
    uint8_t *buffer;     /* of PEER_STREAM_BYTES */
    size_t begin, end;   /* what is in it and was not handed out */
    uint8_t *body;       /* of the large message whose header is in `header`; NULL: none */
    size_t body_size, body_end;
    bool body_lent; /* it was handed out, and is freed by the next call */
    uint8_t header[sizeof(struct peer_header)];
};

enum peer_stream_result { PEER_STREAM_MORE, PEER_STREAM_MESSAGE, PEER_STREAM_BAD };

/* False: no memory. */
bool peer_stream_init(struct peer_stream *stream, const uint8_t cluster[16], uint16_t group);
void peer_stream_free(struct peer_stream *stream);

/* After PEER_STREAM_MORE; there is always some. */
uint8_t *peer_stream_space(struct peer_stream *stream, size_t *ret_size);
void peer_stream_put(struct peer_stream *stream, size_t size);
/* BAD: `problem` says what is wrong. */
enum peer_stream_result peer_stream_next(struct peer_stream *stream, struct peer_message *ret_message);

#endif
