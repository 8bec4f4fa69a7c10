// SPDX-License-Identifier: Apache-2.0
//
// The hoard: append until there is no space, and read all of it back.

#include "hoard.h"

#include "base/random.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define REGION_STEP     ((uint64_t)1 << 20)
#define REGION_SIZE_MAX ((uint64_t)1 << 30)
#define RECORD_SIZE     8192u

#define TRY(call)                         \
    do {                                  \
        shelf_result try_result = (call); \
        if (try_result != SHELF_OK) {     \
            return try_result;            \
        }                                 \
    } while (0)

static void record_fill(uint64_t n, unsigned char bytes[RECORD_SIZE]) {
    struct random random;
    random_seed(&random, n);
    random_fill(&random, bytes, RECORD_SIZE);
}

static shelf_result hoard_make(shelf_tx *tx, void *context) {
    struct hoard *hoard = context;
    static const struct shelf_stream_options options;
    TRY(shelf_format(tx, hoard->region));
    return shelf_stream_create(tx, hoard->region, "hoard", &options, &hoard->stream);
}

static shelf_result hoard_find(shelf_tx *tx, void *context) {
    struct hoard *hoard = context;
    unsigned char head[SHELF_LINE_SIZE];
    static const unsigned char zeros[SHELF_LINE_SIZE];
    uint64_t first = 0;
    hoard->ready = false;
    TRY(shelf_read(tx, shelf_addr_make(hoard->region, 0), head, sizeof(head)));
    if (memcmp(head, zeros, sizeof(head)) == 0) {
        return SHELF_OK; // created, but not formatted yet
    }
    TRY(shelf_stream_open(tx, hoard->region, "hoard", &hoard->stream));
    TRY(shelf_stream_bounds(tx, hoard->stream, &first, &hoard->count));
    hoard->ready = true;
    return SHELF_OK;
}

shelf_result hoard_open(struct hoard *hoard, bool create) {
    hoard->ready = false;
    shelf_result result = shelf_region_open(hoard->s, "hoard", &hoard->region);
    if (result == SHELF_NOT_FOUND) {
        if (!create) {
            return SHELF_OK;
        }
        result = shelf_region_create(hoard->s, "hoard", REGION_STEP, REGION_SIZE_MAX, &hoard->region);
    }
    TRY(result);
    TRY(shelf_run(hoard->s, SHELF_READ_ONLY, hoard_find, hoard, 0, NULL));
    if (!hoard->ready && create) {
        TRY(shelf_run(hoard->s, SHELF_READ_WRITE, hoard_make, hoard, 0, NULL));
        TRY(shelf_run(hoard->s, SHELF_READ_ONLY, hoard_find, hoard, 0, NULL));
    }
    return SHELF_OK;
}

static shelf_result hoard_append(shelf_tx *tx, void *context) {
    struct hoard *hoard = context;
    unsigned char bytes[RECORD_SIZE];
    record_fill(hoard->count, bytes);
    return shelf_stream_append(tx, hoard->stream, hoard->count, bytes, sizeof(bytes), NULL);
}

shelf_result hoard_add(struct hoard *hoard) {
    struct shelf_region_info info;
    book_note(hoard->book, "hoarding %" PRIu64, hoard->count + 1);
    shelf_result result = shelf_run(hoard->s, SHELF_READ_WRITE, hoard_append, hoard, 0, NULL);
    if (result == SHELF_NO_SPACE) {
        TRY(shelf_region_info_get(hoard->s, hoard->region, &info));
        TRY(shelf_region_grow(hoard->s, hoard->region, info.size + REGION_STEP));
        result = shelf_run(hoard->s, SHELF_READ_WRITE, hoard_append, hoard, 0, NULL);
    }
    if (result == SHELF_OK) {
        hoard->count++;
        book_note(hoard->book, "hoarded %" PRIu64, hoard->count);
    }
    return result;
}

// ---- Checking ---------------------------------------------------------------------------------------------

struct audit {
    struct hoard *hoard;
    uint64_t wrong; // position of the first record that is not as it was written, or the end
    uint64_t next;
};

static shelf_result hoard_audit(shelf_tx *tx, void *context) {
    struct audit *audit = context;
    uint64_t first = 0;
    TRY(shelf_stream_verify(tx, audit->hoard->stream));
    TRY(shelf_stream_bounds(tx, audit->hoard->stream, &first, &audit->next));
    struct shelf_alloc_sums allocator;
    TRY(shelf_alloc_audit(tx, audit->hoard->region, &allocator));
    for (audit->wrong = first; audit->wrong < audit->next; audit->wrong++) {
        unsigned char expected[RECORD_SIZE];
        unsigned char bytes[RECORD_SIZE];
        size_t size = 0;
        uint64_t time_ms = 0;
        record_fill(audit->wrong, expected);
        TRY(shelf_stream_read(tx, audit->hoard->stream, audit->wrong, bytes, sizeof(bytes), &size, &time_ms));
        if (size != RECORD_SIZE || time_ms != audit->wrong || memcmp(bytes, expected, RECORD_SIZE) != 0) {
            break;
        }
    }
    return SHELF_OK;
}

bool hoard_check(struct hoard *hoard) {
    const struct book *book = hoard->book;
    struct audit audit = {.hoard = hoard};
    if (!hoard->ready) {
        if (book->hoard_acked > 0) {
            fprintf(stderr, "check: the hoard is gone\n");
        }
        return book->hoard_acked == 0;
    }
    shelf_result result = shelf_run(hoard->s, SHELF_READ_ONLY, hoard_audit, &audit, 0, NULL);
    if (result != SHELF_OK) {
        fprintf(stderr, "check: reading the hoard: %s: %s\n", shelf_result_name(result), shelf_detail());
        return false;
    }
    bool good =
        audit.wrong == audit.next && audit.next >= book->hoard_acked && audit.next <= book->hoard_submitted;
    if (!good) {
        fprintf(stderr,
                "check: the hoard holds %" PRIu64 " records, the first bad one is %" PRIu64 "; %" PRIu64
                " were acknowledged, %" PRIu64 " submitted\n",
                audit.next, audit.wrong, book->hoard_acked, book->hoard_submitted);
    }
    return good;
}
