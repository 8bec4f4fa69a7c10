// SPDX-License-Identifier: Apache-2.0
//
// The stream: records in chunks of 32 KiB (a larger record has a chunk of its own), in order, numbered from 0.
//
// An append writes the record, its place in the chunk's table, and a line each of the chunk and of the stream's head.
//
// A record is found by going back from the newest chunk. Each chunk links to the one before it and to one far back,
// chosen so that the distances of jumps form a skew-binary number (Myers, "An applicative random-access stack", 1983):
// any chunk is reached in a logarithmic number of steps, and a new one needs to look at two others. Once in the chunk,
// the record's offset is in its table.
//
// Retention removes whole chunks from the old end: each append at most two, so that its cost stays bounded and the
// stream still shrinks when a bound is passed. Links to removed chunks stay in place and are never followed, as all
// positions that they could be followed for are below `first`.
//
// I1. Chunks from `oldest` to `newest` are linked by `next` and `prev`, their sequences and positions are consecutive.
// I2. `first` is the oldest chunk's first position, `next` the newest's plus its count; both equal in an empty stream.
// I3. A chunk's `jump` is an earlier chunk, or 0 in the first; jump_first and jump_sequence are that chunk's.
// I4. `bytes` and `chunks` are the sums over all chunks that are kept.

#include "structure/alloc.h"
#include "structure/roots.h"

#include <string.h>

#define REMOVE_PER_APPEND 2u

// The second line of the head, and the first together with it.
struct stream {
    struct place place;
    uint64_t offset;
    struct stream_head head;
};

static shelf_result refuse(const struct stream *stream, uint64_t offset, const char *what) {
    return REFUSE(CORRUPT, "region %u, stream at %llu: at offset %llu %s", stream->place.region,
                  (unsigned long long)stream->offset, (unsigned long long)offset, what);
}

// ---- Head and chunks ------------------------------------------------------------------------------------------------

#define STATE_OFFSET offsetof(struct stream_head, first)
#define STATE_SIZE   (sizeof(struct stream_head) - STATE_OFFSET)

static shelf_result stream_load(shelf_tx *tx, shelf_stream handle, struct stream *ret_stream) {
    struct stream stream = {.place = {tx, shelf_addr_region(handle.header)},
                            .offset = shelf_addr_offset(handle.header)};
    const struct stream_head *head = &stream.head;
    TRY(shelf_read(tx, handle.header, &stream.head, sizeof(stream.head)));
    if (head->magic != STREAM_MAGIC) {
        return REFUSE(INVALID, "there is no stream at address %016llx: was it dropped?",
                      (unsigned long long)handle.header);
    }
    if (head->format != STREAM_FORMAT) {
        return REFUSE(FORMAT, "the stream has format %u, this program knows %u", head->format, STREAM_FORMAT);
    }
    if (head->first > head->next || (head->oldest == 0) != (head->newest == 0) ||
        (head->oldest == 0 && head->first != head->next)) {
        return refuse(&stream, stream.offset, "the head contradicts itself");
    }
    *ret_stream = stream;
    return SHELF_OK;
}

static shelf_result state_write(const struct stream *stream) {
    return place_write(stream->place, stream->offset + STATE_OFFSET, &stream->head.first, STATE_SIZE);
}

// A chunk that a link leads to. `whole`: with its second line, else only what never changes but `next`.
static shelf_result chunk_read(const struct stream *stream, uint64_t offset, bool whole,
                               struct stream_chunk *ret_chunk) {
    if (offset == 0) {
        return refuse(stream, stream->offset, "a link to a chunk is missing");
    }
    size_t size = whole ? sizeof(*ret_chunk) : offsetof(struct stream_chunk, count);
    TRY(link_read(stream->place, offset, ret_chunk, size));
    if (ret_chunk->magic != STREAM_CHUNK_MAGIC || ret_chunk->size < sizeof(*ret_chunk) ||
        ret_chunk->first >= stream->head.next) {
        return refuse(stream, offset, "there is no chunk");
    }
    if (whole && (ret_chunk->end < sizeof(*ret_chunk) || ret_chunk->count == 0 ||
                  ret_chunk->end + (uint64_t)ret_chunk->count * sizeof(uint32_t) > ret_chunk->size)) {
        return refuse(stream, offset, "the chunk contradicts itself");
    }
    return SHELF_OK;
}

static uint64_t table_offset(uint64_t chunk_offset, const struct stream_chunk *chunk, uint64_t index) {
    return chunk_offset + chunk->size - (index + 1) * sizeof(uint32_t);
}

static uint64_t record_space(uint64_t size) {
    return (sizeof(struct stream_record) + size + 7) / 8 * 8;
}

// ---- Create, open ---------------------------------------------------------------------------------------------------

shelf_result shelf_stream_create(shelf_tx *tx, shelf_region region, const char *name,
                                 const struct shelf_stream_options *options, shelf_stream *ret_stream) {
    shelf_addr address;
    TRY(root_vacant(tx, region, name));
    TRY(shelf_alloc(tx, region, sizeof(struct stream_head), &address));
    struct stream_head head = {.magic = STREAM_MAGIC,
                               .format = STREAM_FORMAT,
                               .bytes_max = options != NULL ? options->bytes_max : 0,
                               .age_max_ms = options != NULL ? options->age_max_ms : 0};
    TRY(shelf_write(tx, address, &head, sizeof(head)));
    struct shelf_root root = {.type = STREAM_MAGIC, .layout = STREAM_FORMAT, .address = address};
    memcpy(root.name, name, strlen(name));
    TRY(shelf_root_set(tx, region, &root));
    ret_stream->header = address;
    return SHELF_OK;
}

shelf_result shelf_stream_open(shelf_tx *tx, shelf_region region, const char *name,
                               shelf_stream *ret_stream) {
    shelf_stream handle;
    struct stream stream;
    TRY(shelf_root_get(tx, region, name, STREAM_MAGIC, 0, &handle.header));
    shelf_result result =
        shelf_addr_region(handle.header) == region ? stream_load(tx, handle, &stream) : SHELF_INVALID;
    if (result == SHELF_INVALID) {
        return REFUSE(CORRUPT, "region %u: the root \"%s\" is a stream's and leads to none", region, name);
    }
    TRY(result);
    *ret_stream = handle;
    return SHELF_OK;
}

shelf_result shelf_stream_bounds(shelf_tx *tx, shelf_stream handle, uint64_t *ret_first, uint64_t *ret_next) {
    struct stream stream;
    TRY(stream_load(tx, handle, &stream));
    *ret_first = stream.head.first;
    *ret_next = stream.head.next;
    return SHELF_OK;
}

// ---- Retention ------------------------------------------------------------------------------------------------------

// Removes the oldest chunk, whose head was read. The state is the caller's to write.
static shelf_result oldest_remove(struct stream *stream, const struct stream_chunk *chunk) {
    struct stream_head *head = &stream->head;
    uint64_t offset = head->oldest;
    if (chunk->bytes > head->bytes || head->chunks == 0 || (chunk->next == 0) != (offset == head->newest)) {
        return refuse(stream, offset, "the chunk does not fit the stream's head");
    }
    head->first = chunk->first + chunk->count;
    head->oldest = chunk->next;
    head->newest = chunk->next == 0 ? 0 : head->newest;
    head->bytes -= chunk->bytes;
    head->chunks--;
    return shelf_free(stream->place.tx, shelf_addr_make(stream->place.region, offset));
}

static bool is_beyond(const struct stream_head *head, const struct stream_chunk *chunk) {
    bool too_much = head->bytes_max != 0 && head->bytes - chunk->bytes >= head->bytes_max;
    bool too_old = head->age_max_ms != 0 && head->time_max > head->age_max_ms &&
                   chunk->time_max < head->time_max - head->age_max_ms;
    return too_much || too_old;
}

// Removes the oldest chunks that are beyond a bound, a few at most, and never the one that is appended to.
static shelf_result retain(struct stream *stream) {
    const struct stream_head *head = &stream->head;
    if (head->bytes_max == 0 && head->age_max_ms == 0) {
        return SHELF_OK;
    }
    for (unsigned removed = 0; removed < REMOVE_PER_APPEND && head->oldest != head->newest; removed++) {
        struct stream_chunk chunk;
        TRY(chunk_read(stream, head->oldest, true, &chunk));
        if (!is_beyond(head, &chunk)) {
            break;
        }
        TRY(oldest_remove(stream, &chunk));
    }
    return SHELF_OK;
}

shelf_result shelf_stream_trim(shelf_tx *tx, shelf_stream handle, uint64_t position) {
    struct stream stream;
    TRY(stream_load(tx, handle, &stream));
    while (stream.head.oldest != 0) {
        struct stream_chunk chunk;
        TRY(chunk_read(&stream, stream.head.oldest, true, &chunk));
        if (chunk.first + chunk.count > position) {
            break;
        }
        TRY(oldest_remove(&stream, &chunk));
    }
    return state_write(&stream);
}

// ---- Append ---------------------------------------------------------------------------------------------------------

// Fills in the links of a chunk that follows `newest`.
static shelf_result chunk_connect(const struct stream *stream, const struct stream_chunk *newest,
                                  struct stream_chunk *chunk) {
    chunk->sequence = newest->sequence + 1;
    chunk->prev = stream->head.newest;
    chunk->jump = stream->head.newest;
    chunk->jump_first = newest->first;
    chunk->jump_sequence = newest->sequence;
    if (newest->jump == 0 || newest->jump_first < stream->head.first) {
        return SHELF_OK; // what lies further back is gone
    }
    struct stream_chunk far;
    TRY(chunk_read(stream, newest->jump, false, &far));
    if (far.jump != 0 && newest->sequence - far.sequence == far.sequence - far.jump_sequence) {
        chunk->jump = far.jump; // two jumps of one length become one of twice the length and one
        chunk->jump_first = far.jump_first;
        chunk->jump_sequence = far.jump_sequence;
    }
    return SHELF_OK;
}

// Puts a new chunk behind the newest, with room for a record of `size` bytes. It is empty: the caller fills and writes
// it.
static shelf_result chunk_create(struct stream *stream, uint64_t size, struct stream_chunk *newest) {
    struct stream_head *head = &stream->head;
    uint64_t needed = sizeof(struct stream_chunk) + record_space(size) + sizeof(uint32_t);
    needed = needed < STREAM_CHUNK_SIZE ? STREAM_CHUNK_SIZE : (needed + 7) / 8 * 8;
    shelf_addr address;
    TRY(shelf_alloc(stream->place.tx, stream->place.region, needed, &address));
    uint64_t offset = shelf_addr_offset(address);
    struct stream_chunk chunk = {.magic = STREAM_CHUNK_MAGIC,
                                 .size = (uint32_t)needed,
                                 .first = head->next,
                                 .end = sizeof(struct stream_chunk)};
    if (head->newest != 0) {
        TRY(chunk_connect(stream, newest, &chunk));
        TRY(place_write(stream->place, head->newest + offsetof(struct stream_chunk, next), &offset,
                        sizeof(offset)));
    } else {
        head->oldest = offset;
    }
    TRY(place_write(stream->place, offset, &chunk, sizeof(chunk)));
    head->newest = offset;
    head->chunks++;
    *newest = chunk;
    return SHELF_OK;
}

static bool chunk_has_room(const struct stream_chunk *chunk, uint64_t size) {
    return chunk->end + record_space(size) + (uint64_t)(chunk->count + 1) * sizeof(uint32_t) <= chunk->size;
}

static shelf_result record_write(const struct stream *stream, const struct stream_chunk *chunk,
                                 uint64_t time_ms, const void *bytes, size_t size) {
    uint64_t offset = stream->head.newest + chunk->end;
    struct stream_record record = {time_ms, (uint32_t)size, (uint32_t)stream->head.next};
    unsigned char piece[512];
    if (size <= sizeof(piece) - sizeof(record)) { // one write
        memcpy(piece, &record, sizeof(record));
        if (size > 0) {
            memcpy(piece + sizeof(record), bytes, size);
        }
        TRY(place_write(stream->place, offset, piece, sizeof(record) + size));
    } else {
        TRY(place_write(stream->place, offset, &record, sizeof(record)));
        TRY(place_write(stream->place, offset + sizeof(record), bytes, size));
    }
    return place_write(stream->place, table_offset(stream->head.newest, chunk, chunk->count), &chunk->end,
                       sizeof(chunk->end));
}

shelf_result shelf_stream_append(shelf_tx *tx, shelf_stream handle, uint64_t time_ms, const void *bytes,
                                 size_t size, uint64_t *ret_position) {
    if (size > SHELF_TX_BYTES_MAX) {
        return REFUSE(TOO_LARGE, "a stream's record has up to %zu bytes", SHELF_TX_BYTES_MAX);
    }
    struct stream stream;
    struct stream_chunk chunk = {0};
    TRY(stream_load(tx, handle, &stream));
    struct stream_head *head = &stream.head;
    if (head->newest != 0) {
        TRY(chunk_read(&stream, head->newest, true, &chunk));
    }
    if (head->newest == 0 || !chunk_has_room(&chunk, size)) {
        TRY(chunk_create(&stream, size, &chunk));
    }
    TRY(record_write(&stream, &chunk, time_ms, bytes, size));
    chunk.end += (uint32_t)record_space(size);
    chunk.count++;
    chunk.bytes += size;
    chunk.time_max = time_ms > chunk.time_max ? time_ms : chunk.time_max;
    TRY(place_write(stream.place, head->newest + offsetof(struct stream_chunk, count), &chunk.count,
                    offsetof(struct stream_chunk, reserved) - offsetof(struct stream_chunk, count)));
    uint64_t position = head->next++;
    head->bytes += size;
    head->time_max = time_ms > head->time_max ? time_ms : head->time_max;
    TRY(retain(&stream));
    TRY(state_write(&stream));
    if (ret_position != NULL) {
        *ret_position = position;
    }
    return SHELF_OK;
}

// ---- Read -----------------------------------------------------------------------------------------------------------

// The chunk that holds `position`, which is not below `first`, so that every link followed leads to a kept chunk.
static shelf_result chunk_find(const struct stream *stream, uint64_t position, uint64_t *ret_offset,
                               struct stream_chunk *ret_chunk) {
    uint64_t offset = stream->head.newest;
    TRY(chunk_read(stream, offset, false, ret_chunk));
    while (ret_chunk->first > position) {
        uint64_t first_before = ret_chunk->first;
        bool is_far = ret_chunk->jump != 0 && ret_chunk->jump_first >= position;
        offset = is_far ? ret_chunk->jump : ret_chunk->prev;
        TRY(chunk_read(stream, offset, false, ret_chunk));
        if (ret_chunk->first >= first_before) { // or it would never end
            return refuse(stream, offset, "the chunks are out of order");
        }
    }
    *ret_offset = offset;
    return SHELF_OK;
}

static shelf_result record_read(const struct stream *stream, uint64_t offset,
                                const struct stream_chunk *chunk, uint64_t position, uint64_t *ret_offset,
                                struct stream_record *ret_record) {
    uint64_t index = position - chunk->first;
    uint32_t at;
    if (index >= (chunk->size - sizeof(*chunk)) / sizeof(uint32_t)) {
        return refuse(stream, offset, "the chunk does not reach up to a record that it should have");
    }
    TRY(link_read(stream->place, table_offset(offset, chunk, index), &at, sizeof(at)));
    if (at < sizeof(*chunk) || at % 8 != 0 || at > chunk->size - sizeof(*ret_record)) {
        return refuse(stream, offset, "the chunk's table leads out of it");
    }
    TRY(link_read(stream->place, offset + at, ret_record, sizeof(*ret_record)));
    if (ret_record->position != (uint32_t)position ||
        record_space(ret_record->size) > chunk->size - (uint64_t)at) {
        return refuse(stream, offset + at, "there is no record");
    }
    *ret_offset = offset + at;
    return SHELF_OK;
}

shelf_result shelf_stream_read(shelf_tx *tx, shelf_stream handle, uint64_t position, void *bytes,
                               size_t bytes_max, size_t *ret_size, uint64_t *ret_time_ms) {
    struct stream stream;
    TRY(stream_load(tx, handle, &stream));
    if (position >= stream.head.next) {
        return SHELF_NOT_FOUND; // readers ask for the next record all the time: no detail
    }
    if (position < stream.head.first) {
        return REFUSE(EXPIRED, "record %llu was removed, the oldest kept is %llu",
                      (unsigned long long)position, (unsigned long long)stream.head.first);
    }
    uint64_t offset;
    struct stream_chunk chunk;
    struct stream_record record;
    TRY(chunk_find(&stream, position, &offset, &chunk));
    TRY(record_read(&stream, offset, &chunk, position, &offset, &record));
    size_t count = record.size < bytes_max ? record.size : bytes_max;
    if (count > 0) {
        TRY(link_read(stream.place, offset + sizeof(record), bytes, count));
    }
    *ret_size = record.size;
    if (ret_time_ms != NULL) {
        *ret_time_ms = record.time_ms;
    }
    return SHELF_OK;
}

// ---- Drop, verify ---------------------------------------------------------------------------------------------------

shelf_result shelf_stream_drop(shelf_tx *tx, shelf_region region, const char *name) {
    shelf_stream handle;
    struct stream stream;
    TRY(shelf_stream_open(tx, region, name, &handle));
    TRY(stream_load(tx, handle, &stream));
    while (stream.head.oldest != 0) {
        struct stream_chunk chunk;
        TRY(chunk_read(&stream, stream.head.oldest, true, &chunk));
        TRY(oldest_remove(&stream, &chunk));
    }
    uint64_t no_magic = 0; // handles that others still have are told
    TRY(place_write(stream.place, stream.offset, &no_magic, sizeof(no_magic)));
    TRY(shelf_free(tx, handle.header));
    return shelf_root_remove(tx, region, name);
}

// What a walk from the oldest chunk to the newest expects and adds up.
struct walk {
    uint64_t offset, prev;
    uint64_t position, sequence;
    uint64_t bytes, chunks;
};

static shelf_result records_verify(const struct stream *stream, const struct walk *walk,
                                   const struct stream_chunk *chunk) {
    uint64_t at = walk->offset + sizeof(*chunk);
    uint64_t bytes = 0;
    uint64_t time_max = 0;
    for (uint32_t index = 0; index < chunk->count; index++) {
        uint64_t offset;
        struct stream_record record;
        TRY(record_read(stream, walk->offset, chunk, chunk->first + index, &offset, &record));
        if (offset != at) {
            return refuse(stream, offset, "a record does not follow the one before it");
        }
        at += record_space(record.size);
        bytes += record.size;
        time_max = record.time_ms > time_max ? record.time_ms : time_max;
    }
    if (at != walk->offset + chunk->end || bytes != chunk->bytes || time_max != chunk->time_max) {
        return refuse(stream, walk->offset, "the chunk's sums are not those of its records");
    }
    return SHELF_OK;
}

static shelf_result links_verify(const struct stream *stream, const struct walk *walk,
                                 const struct stream_chunk *chunk) {
    bool is_first = walk->chunks == 0; // what it links to may be gone, and its sequence is anything
    if (chunk->first != walk->position ||
        (!is_first && (chunk->prev != walk->prev || chunk->sequence != walk->sequence))) {
        return refuse(stream, walk->offset, "the chunk does not follow the one before it");
    }
    if (chunk->jump == 0 || chunk->jump_first < stream->head.first) {
        return SHELF_OK;
    }
    struct stream_chunk far;
    TRY(chunk_read(stream, chunk->jump, false, &far));
    if (far.first != chunk->jump_first || far.sequence != chunk->jump_sequence ||
        far.sequence >= chunk->sequence) {
        return refuse(stream, walk->offset, "the chunk's jump leads to another one than it says");
    }
    return SHELF_OK;
}

static shelf_result chunk_verify(const struct stream *stream, struct walk *walk, uint64_t *ret_next) {
    struct stream_chunk chunk;
    size_t size;
    TRY(chunk_read(stream, walk->offset, true, &chunk));
    shelf_result result =
        shelf_alloc_size(stream->place.tx, shelf_addr_make(stream->place.region, walk->offset), &size);
    if (result == SHELF_INVALID || (result == SHELF_OK && size < chunk.size)) {
        return refuse(stream, walk->offset, "a chunk does not lie in an allocation of its own");
    }
    TRY(result);
    TRY(links_verify(stream, walk, &chunk));
    TRY(records_verify(stream, walk, &chunk));
    walk->prev = walk->offset;
    walk->position = chunk.first + chunk.count;
    walk->sequence = chunk.sequence + 1;
    walk->bytes += chunk.bytes;
    walk->chunks++;
    *ret_next = chunk.next;
    return SHELF_OK;
}

shelf_result shelf_stream_verify(shelf_tx *tx, shelf_stream handle) {
    struct stream stream;
    TRY(stream_load(tx, handle, &stream));
    const struct stream_head *head = &stream.head;
    struct walk walk = {.offset = head->oldest, .position = head->first};
    while (walk.offset != 0 && walk.chunks <= head->chunks) {
        TRY(chunk_verify(&stream, &walk, &walk.offset));
    }
    if (walk.chunks != head->chunks || walk.bytes != head->bytes || walk.position != head->next ||
        walk.prev != head->newest) {
        return refuse(&stream, stream.offset, "the stream's sums are not those of its chunks");
    }
    return SHELF_OK;
}
