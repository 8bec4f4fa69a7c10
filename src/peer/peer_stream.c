// SPDX-License-Identifier: Apache-2.0
/* peer_stream.c: see peer_stream.h. Small messages are read where they lie; a large body gets memory of its own. */
#include "peer/peer_stream.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define HEADER_SIZE    sizeof(struct peer_header)
#define BODY_ALIGNMENT 8u
#define MOVED_BYTES    4096u

bool peer_stream_init(struct peer_stream *stream, const uint8_t cluster[16], uint16_t group) {
    *stream = (struct peer_stream){.group = group};
    memcpy(stream->cluster, cluster, sizeof(stream->cluster));
    stream->buffer = malloc(PEER_STREAM_BYTES);
    return stream->buffer != NULL;
}

static void body_free(struct peer_stream *stream) {
    free(stream->body);
    stream->body = NULL;
    stream->body_size = stream->body_end = 0;
    stream->body_lent = false;
}

void peer_stream_free(struct peer_stream *stream) {
    body_free(stream);
    free(stream->buffer);
    stream->buffer = NULL;
}

uint8_t *peer_stream_space(struct peer_stream *stream, size_t *ret_size) {
    if (stream->body && !stream->body_lent) {
        *ret_size = stream->body_size - stream->body_end;
        return stream->body + stream->body_end;
    }
    ASSERT(stream->end < PEER_STREAM_BYTES);
    *ret_size = PEER_STREAM_BYTES - stream->end;
    return stream->buffer + stream->end;
}

void peer_stream_put(struct peer_stream *stream, size_t size) {
    if (stream->body && !stream->body_lent) {
        ASSERT(size <= stream->body_size - stream->body_end);
        stream->body_end += size;
    } else {
        ASSERT(size <= PEER_STREAM_BYTES - stream->end);
        stream->end += size;
    }
}

static enum peer_stream_result bad(struct peer_stream *stream, const char *problem) {
    stream->problem = problem;
    return PEER_STREAM_BAD;
}

static void move_to_front(struct peer_stream *stream) {
    memmove(stream->buffer, stream->buffer + stream->begin, stream->end - stream->begin);
    stream->end -= stream->begin;
    stream->begin = 0;
}

/* What was begun and is not whole must have room to become so, and a little of it is better moved than read on at the end. */
static enum peer_stream_result more(struct peer_stream *stream, size_t size) {
    if (stream->begin == stream->end) {
        stream->begin = stream->end = 0;
    } else if (stream->begin + size > PEER_STREAM_BYTES || stream->end - stream->begin <= MOVED_BYTES) {
        move_to_front(stream);
    }
    return PEER_STREAM_MORE;
}

static enum peer_stream_result handed_out(struct peer_stream *stream, const uint8_t *header,
                                          const uint8_t *body, struct peer_message *ret_message) {
    const char *problem = peer_decode(header, body, ret_message);
    return problem ? bad(stream, problem) : PEER_STREAM_MESSAGE;
}

/* What of the body is in the buffer already comes along; nothing of the next message can be there. */
static enum peer_stream_result large_begin(struct peer_stream *stream, size_t body_size) {
    size_t there = stream->end - stream->begin - HEADER_SIZE;
    stream->body = malloc(body_size);
    if (!stream->body) {
        return bad(stream, "there is no memory for a message");
    }
    memcpy(stream->header, stream->buffer + stream->begin, HEADER_SIZE);
    memcpy(stream->body, stream->buffer + stream->begin + HEADER_SIZE, there);
    stream->body_size = body_size;
    stream->body_end = there;
    stream->begin = stream->end = 0;
    return PEER_STREAM_MORE;
}

enum peer_stream_result peer_stream_next(struct peer_stream *stream, struct peer_message *ret_message) {
    if (stream->problem) {
        return PEER_STREAM_BAD;
    }
    if (stream->body_lent) {
        body_free(stream);
    }
    if (stream->body) {
        if (stream->body_end < stream->body_size) {
            return PEER_STREAM_MORE;
        }
        stream->body_lent = true;
        return handed_out(stream, stream->header, stream->body, ret_message);
    }
    if (stream->end - stream->begin < HEADER_SIZE) {
        return more(stream, HEADER_SIZE);
    }
    size_t body_size = 0;
    const char *problem =
        peer_header_decode(stream->buffer + stream->begin, stream->cluster, stream->group, &body_size);
    if (problem) {
        return bad(stream, problem);
    }
    if (stream->end - stream->begin < HEADER_SIZE + body_size) {
        return HEADER_SIZE + body_size > PEER_STREAM_BYTES ? large_begin(stream, body_size)
                                                           : more(stream, HEADER_SIZE + body_size);
    }
    if (stream->begin % BODY_ALIGNMENT != 0) {
        move_to_front(stream);
    }
    const uint8_t *header = stream->buffer + stream->begin;
    stream->begin += HEADER_SIZE + body_size;
    return handed_out(stream, header, header + HEADER_SIZE, ret_message);
}
