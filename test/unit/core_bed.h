// SPDX-License-Identifier: Apache-2.0
//
// A world for one core, in memory and in one thread: files are arrays, ios are done in order when bed_run() is called, a crash
// forgets the core and keeps the files. Ios of chosen files can be held back or made to fail.

#ifndef SHELF_TEST_CORE_BED_H
#define SHELF_TEST_CORE_BED_H

#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "base/crc.h"
#include "core/core.h"
#include "wire/system_region.h"

#include "cmocka_program.h"

#define BED_FILES      64u
#define BED_FILE_BYTES ((uint64_t)320 << 20)
#define BED_QUEUE      256u
#define BED_TOKENS     20000u
#define BED_REGIONS    1400u
#define BED_MEMORY_MAX ((uint64_t)64 << 20)

struct bed_file {
    struct file_id id;
    uint8_t *bytes; // NULL: this place is free
    uint64_t length;
};

struct bed {
    struct core_config config;
    struct core *core;
    size_t core_bytes;
    struct image *image;
    struct region_map *maps;
    struct bed_file files[BED_FILES];
    uint8_t *memories[BED_REGIONS];
    struct io *queue[BED_QUEUE];
    uint32_t queue_count;
    struct effects effects;
    struct reply replies[BED_TOKENS];
    bool answered[BED_TOKENS];
    uint64_t token; // the last one
    uint64_t now_ms;
    uint64_t epoch;
    bool opened, closed;
    bool hold_record, hold_checkpoint; // in the next events
    uint32_t held;      // bit k: ios of file kind k are not done now, but for reads and the opening
    uint32_t held_next; // ... in the next life
    uint32_t fail_kind; // io kind and file kind (0: any) that fail with fail_result, fail_count times
    uint32_t fail_file;
    uint32_t fail_result;
    uint32_t fail_count;
    uint64_t session, holder;
    const struct credentials *credentials; // who submits; NULL: the node's own program
};

static inline void *bed_map(size_t size) {
    void *bytes =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(bytes != MAP_FAILED);
    return bytes;
}

// ---- Files ---------------------------------------------------------------------------------------------------------

static inline struct bed_file *bed_file(struct bed *bed, struct file_id id) {
    struct bed_file *free_place = NULL;
    for (uint32_t i = 0; i < BED_FILES; i++) {
        struct bed_file *file = &bed->files[i];
        if (file->bytes != NULL && memcmp(&file->id, &id, sizeof(id)) == 0) {
            return file;
        }
        free_place = file->bytes == NULL && free_place == NULL ? file : free_place;
    }
    assert_non_null(free_place);
    *free_place = (struct bed_file){.id = id, .bytes = bed_map(BED_FILE_BYTES)};
    return free_place;
}

static inline uint8_t *bed_log(struct bed *bed) {
    return bed_file(bed, (struct file_id){.kind = FILE_LOG})->bytes;
}

static inline void bed_remove(struct bed *bed, uint32_t region) {
    for (uint32_t i = 0; i < BED_FILES; i++) {
        struct bed_file *file = &bed->files[i];
        if (file->bytes != NULL && file->id.region == region && region != 0) {
            munmap(file->bytes, BED_FILE_BYTES);
            *file = (struct bed_file){0};
        }
    }
}

// ---- Memory --------------------------------------------------------------------------------------------------------

enum { BED_PAGES = BED_MEMORY_MAX / PAGE_SIZE };
// Data, versions of lines and of pages, two tables, three bitmaps.
#define BED_MEMORY_BYTES \
    (BED_MEMORY_MAX + (size_t)BED_PAGES * (LINES_PER_PAGE * 8u + 8u + 2 * 8u) + 3 * (BED_PAGES / 8u))

static inline void bed_memory(struct bed *bed, struct io *io) {
    assert_in_range(io->file.region, 1, BED_REGIONS - 1);
    assert_true(io->size <= BED_MEMORY_MAX);
    size_t versions = BED_MEMORY_MAX / LINE_SIZE * 8, entries = BED_PAGES * 8u, bits = BED_PAGES / 8;
    uint8_t **memory = &bed->memories[io->file.region];
    if (*memory == NULL) {
        *memory = bed_map(BED_MEMORY_BYTES);
    }
    uint8_t *at = *memory;
    io->memory.data = at;
    io->memory.data_view = at;
    at += BED_MEMORY_MAX;
    io->memory.versions = (_Atomic uint64_t *)(void *)at;
    io->memory.versions_view = io->memory.versions;
    at += versions;
    io->memory.page_versions = (_Atomic uint64_t *)(void *)at;
    io->memory.page_versions_view = io->memory.page_versions;
    at += entries;
    io->memory.pages = (struct page_entry *)(void *)at;
    at += entries;
    io->memory.blocks = (struct block_entry *)(void *)at;
    at += entries;
    for (uint32_t i = 0; i < 3; i++, at += bits) {
        io->memory.bits[i] = (uint64_t *)(void *)at;
    }
}

static inline void bed_memory_free(struct bed *bed, uint32_t region) {
    if (bed->memories[region] != NULL) {
        munmap(bed->memories[region], BED_MEMORY_BYTES);
        bed->memories[region] = NULL;
    }
}

// ---- Ios and steps -------------------------------------------------------------------------------------------------

static inline void bed_io_do(struct bed *bed, struct io *io) {
    if (bed->fail_count > 0 && io->kind == bed->fail_kind &&
        (bed->fail_file == 0 || io->file.kind == bed->fail_file)) {
        bed->fail_count--;
        io->result = bed->fail_result;
        return;
    }
    static struct bed_file none; /* of ios without a file */
    struct bed_file *file = io->file.kind != 0 && io->kind <= IO_LENGTH ? bed_file(bed, io->file) : &none;
    uint64_t end = io->offset + io->size;
    switch ((enum io_kind)io->kind) {
    case IO_READ:
        assert_true(end <= BED_FILE_BYTES);
        memcpy(io->buffer, file->bytes + io->offset, io->size);
        break;
    case IO_WRITE:
        assert_true(end <= BED_FILE_BYTES);
        memcpy(file->bytes + io->offset, io->buffer, io->size);
        file->length = file->length > end ? file->length : end;
        break;
    case IO_RESERVE:
        assert_true(io->size <= BED_FILE_BYTES);
        file->length = file->length > io->size ? file->length : io->size;
        break;
    case IO_LENGTH:
        io->size = file->length;
        break;
    case IO_REMOVE:
        bed_remove(bed, io->file.region);
        break;
    case IO_MAP:
        bed_memory(bed, io);
        break;
    case IO_UNMAP:
        bed_memory_free(bed, io->file.region);
        break;
    case IO_SWAP_EPOCH:
        if (io->epoch <= bed->epoch) {
            io->result = IO_RESULT_CONFLICT;
            io->epoch = bed->epoch;
        } else {
            bed->epoch = io->epoch;
        }
        break;
    case IO_SYNC:
    case IO_PUBLISH:
        break;
    }
}

static inline void bed_step(struct bed *bed, struct event event) {
    event.now_ms = bed->now_ms;
    event.hold_record = bed->hold_record;
    core_step(bed->core, &event, &bed->effects);
    for (uint32_t i = 0; i < bed->effects.io_count; i++) {
        assert_true(bed->queue_count < BED_QUEUE);
        bed->queue[bed->queue_count++] = bed->effects.ios[i];
    }
    for (uint32_t i = 0; i < bed->effects.reply_count; i++) {
        const struct reply *reply = &bed->effects.replies[i];
        assert_in_range(reply->token, 1, BED_TOKENS - 1);
        assert_false(bed->answered[reply->token]); // once
        bed->answered[reply->token] = true;
        bed->replies[reply->token] = *reply;
    }
    bed->opened |= bed->effects.opened;
    bed->closed |= bed->effects.closed;
}

// One io that is not held back; false if there is none.
static inline bool bed_run_one(struct bed *bed) {
    for (uint32_t i = 0; i < bed->queue_count; i++) {
        struct io *io = bed->queue[i];
        bool opening =
            io->kind == IO_SYNC && io->file.kind == FILE_SUPERBLOCK; // recovery only; checkpoints write
        if (io->kind != IO_READ && !opening && (bed->held >> io->file.kind & 1u)) {
            continue;
        }
        bed->queue_count--;
        memmove(&bed->queue[i], &bed->queue[i + 1], (bed->queue_count - i) * sizeof(bed->queue[0]));
        bed_io_do(bed, io);
        bed_step(bed, (struct event){.kind = EVENT_IO_DONE, .io = io});
        return true;
    }
    return false;
}

static inline void bed_run(struct bed *bed) {
    while (bed_run_one(bed)) {
    }
}

static inline void bed_tick(struct bed *bed, uint64_t ms) {
    bed->now_ms += ms;
    bed_step(bed, (struct event){.kind = EVENT_TICK, .hold_checkpoint = bed->hold_checkpoint});
}

// ---- Life ----------------------------------------------------------------------------------------------------------

static inline void bed_forget(struct bed *bed) {
    if (bed->core != NULL) {
        munmap(bed->core, bed->core_bytes);
        munmap(bed->image, sizeof(struct image));
        munmap(bed->maps, REGION_NUMBERS * sizeof(struct region_map));
    }
    for (uint32_t region = 0; region < BED_REGIONS; region++) {
        bed_memory_free(bed, region);
    }
    bed->core = NULL;
    bed->queue_count = 0;
    bed->opened = bed->closed = false;
    bed->held = bed->held_next;
    bed->fail_count = 0;
    memset(bed->answered, 0, sizeof(bed->answered));
    bed->token = 0;
}

// A crash, if there was a life before: nothing that is under way happens.
static inline void bed_start(struct bed *bed) {
    bed_forget(bed);
    bed->core_bytes = core_size(&bed->config);
    bed->image = bed_map(sizeof(struct image));
    bed->maps = bed_map(REGION_NUMBERS * sizeof(struct region_map));
    bed->core = core_init(bed_map(bed->core_bytes), &bed->config, bed->image, bed->maps);
    bed_step(bed, (struct event){.kind = EVENT_START});
    bed_run(bed);
    bed->config.create = false;
}

static inline void bed_reopen(struct bed *bed) {
    bed_start(bed);
    if (!bed->opened && core_fault_get(bed->core) != NULL) {
        fail_msg("%s: %s", core_fault_get(bed->core)->what, core_fault_get(bed->core)->reason);
    }
    assert_true(bed->opened);
}

static inline struct bed *bed_new(uint32_t alignment) {
    struct bed *bed = bed_map(sizeof(*bed));
    bed->now_ms = 1000000;
    bed->config = (struct core_config){.create = true,
                                       .shelf_id = {1, 2, 3},
                                       .incarnation = {4},
                                       .alignment = alignment,
                                       .log_bytes_max = 3 * LOG_SEGMENT_BYTES,
                                       .checkpoint_log_bytes = UINT64_MAX / 2,
                                       .checkpoint_interval_ms = 1u << 30,
                                       .session_idle_ms = 3600000,
                                       .session_named_idle_ms = 7200000,
                                       .cheap_memory = true};
    bed_reopen(bed);
    return bed;
}

static inline void bed_free(struct bed *bed) {
    bed_forget(bed);
    for (uint32_t i = 0; i < BED_FILES; i++) {
        if (bed->files[i].bytes != NULL) {
            munmap(bed->files[i].bytes, BED_FILE_BYTES);
        }
    }
    munmap(bed, sizeof(*bed));
}

static inline void bed_stopped(struct bed *bed, shelf_result result, const char *what,
                               const char *reason_part) {
    const struct core_fault *fault = core_fault_get(bed->core);
    assert_non_null(fault);
    assert_false(bed->opened);
    assert_int_equal(fault->result, result);
    assert_string_equal(fault->what, what);
    assert_non_null(strstr(fault->reason, reason_part));
}

// ---- Requests ------------------------------------------------------------------------------------------------------

static inline uint64_t bed_submit(struct bed *bed, const void *bytes, size_t size) {
    bed->token++;
    bed_step(bed, (struct event){.kind = EVENT_SUBMIT,
                                 .request = bytes,
                                 .request_size = size,
                                 .token = bed->token,
                                 .credentials = bed->credentials});
    return bed->token;
}

static inline const struct reply *bed_reply(struct bed *bed, uint64_t token) {
    assert_true(bed->answered[token]);
    return &bed->replies[token];
}

// Runs until nothing is under way; what has been answered is the result.
static inline shelf_result bed_result(struct bed *bed, uint64_t token) {
    bed_run(bed);
    return (shelf_result)bed_reply(bed, token)->result;
}

struct bed_tx { // a commit request that grows
    union {
        struct commit_request head;
        uint8_t bytes[(2 << 20) + 4096];
    };
    size_t size;
};

static inline void bed_tx_end(struct bed_tx *tx) {
    tx->head.header.size = (uint32_t)tx->size;
}

static inline struct bed_tx *bed_tx(struct bed *bed, uint64_t sequence, uint64_t index) {
    static struct bed_tx tx;
    memset(&tx.head, 0, sizeof(tx.head));
    tx.head.header.kind = REQUEST_COMMIT;
    tx.head.session = bed->session;
    tx.head.holder = bed->holder;
    tx.head.sequence = sequence;
    tx.head.index = index;
    tx.head.epoch = atomic_load(&bed->image->epoch);
    tx.size = sizeof(tx.head);
    bed_tx_end(&tx);
    return &tx;
}

static inline void bed_tx_line(struct bed_tx *tx, uint64_t line) {
    memcpy(tx->bytes + tx->size, &line, sizeof(line));
    tx->size += sizeof(line);
    tx->head.line_count++;
    bed_tx_end(tx);
}

static inline void bed_tx_operation(struct bed_tx *tx, uint64_t address, uint64_t operand, uint32_t code) {
    struct request_operation operation = {.address = address, .operand = operand, .code = code};
    memcpy(tx->bytes + tx->size, &operation, sizeof(operation));
    tx->size += sizeof(operation);
    tx->head.operation_count++;
    bed_tx_end(tx);
}

static inline void bed_tx_range(struct bed_tx *tx, uint64_t address, uint32_t size, uint8_t byte) {
    struct record_range range = {.address = address, .size = size};
    uint32_t padded = (size + 7) & ~7u;
    assert_true(tx->size + sizeof(range) + padded <= sizeof(tx->bytes));
    memcpy(tx->bytes + tx->size, &range, sizeof(range));
    memset(tx->bytes + tx->size + sizeof(range), 0, padded);
    memset(tx->bytes + tx->size + sizeof(range), byte, size);
    tx->size += sizeof(range) + padded;
    tx->head.range_count++;
    tx->head.ranges_size += (uint32_t)(sizeof(range) + padded);
    bed_tx_end(tx);
}

static inline uint64_t bed_tx_send(struct bed *bed, const struct bed_tx *tx) {
    return bed_submit(bed, tx->bytes, tx->size);
}

static inline uint64_t bed_session_send(struct bed *bed, uint16_t kind, uint64_t session, uint64_t holder,
                                        uint64_t sequence, const char *name) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = kind},
                                      .session = session,
                                      .holder = holder,
                                      .sequence = sequence};
    strncpy(request.name, name, sizeof(request.name) - 1);
    return bed_submit(bed, &request, sizeof(request));
}

static inline void bed_session(struct bed *bed) {
    uint64_t token = bed_session_send(bed, REQUEST_SESSION_OPEN, 0, 0, 0, "");
    assert_int_equal(bed_result(bed, token), SHELF_OK);
    bed->session = bed_reply(bed, token)->session;
    bed->holder = bed_reply(bed, token)->holder;
}

static inline uint64_t bed_region_send(struct bed *bed, uint16_t kind, uint32_t region, uint64_t size,
                                       uint64_t size_max, const char *name) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = kind},
                                     .region = region,
                                     .size = size,
                                     .size_max = size_max};
    strncpy(request.name, name, sizeof(request.name) - 1);
    return bed_submit(bed, &request, sizeof(request));
}

static inline uint32_t bed_region(struct bed *bed, const char *name, uint64_t size) {
    uint64_t token = bed_region_send(bed, REQUEST_REGION_CREATE, 0, size, BED_MEMORY_MAX, name);
    assert_int_equal(bed_result(bed, token), SHELF_OK);
    return bed_reply(bed, token)->region;
}

static inline shelf_result bed_checkpoint(struct bed *bed) {
    bed->token++;
    bed_step(bed, (struct event){.kind = EVENT_CHECKPOINT, .token = bed->token});
    return bed_result(bed, bed->token);
}

// A commit of one range; its token.
static inline uint64_t bed_write(struct bed *bed, uint64_t sequence, uint64_t address, uint32_t size,
                                 uint8_t byte) {
    struct bed_tx *tx = bed_tx(bed, sequence, 0);
    bed_tx_range(tx, address, size, byte);
    return bed_tx_send(bed, tx);
}

static inline uint8_t bed_byte(const struct bed *bed, uint64_t address) {
    return bed->maps[shelf_addr_region(address)].data[shelf_addr_offset(address)];
}

#endif
