// SPDX-License-Identifier: Apache-2.0
/*
 * request.h: what a client hands to the node, in one piece of memory: the same bytes embedded and, later, through a ring.
 *
 *     commit_request | line numbers read (u64 each) | operations | ranges (record_range, bytes, zeros up to 8)
 *
 * The ranges are already in the format of the log, so the node copies them once, into the record, and checks the copy.
 * Nothing in a request is trusted: lengths, addresses and counts are checked against its size, loaded once.
 */
#ifndef WIRE_REQUEST_H
#define WIRE_REQUEST_H

#include "shelf.h"
#include "wire/limits.h"
#include "wire/log_format.h"

enum request_kind {
    REQUEST_COMMIT = 1,          /* commit_request */
    REQUEST_SESSION_OPEN = 2,    /* session_request: a new unnamed session, or a named one made or resumed */
    REQUEST_SESSION_EXPIRE = 3,  /* session_request */
    REQUEST_SESSION_OUTCOME = 4, /* session_request */
    REQUEST_REGION_CREATE = 5,   /* region_request */
    REQUEST_REGION_GROW = 6,
    REQUEST_REGION_DROP = 7,
    REQUEST_REGION_ACCESS = 8, /* region_request: owner, group, mode; SHELF_KEEP leaves one as it is */
    REQUEST_SESSION_KEEP = 9,  /* session_request: it is in use, under this node, too */
};

struct request_header {
    uint32_t size; /* of the whole request in bytes */
    uint16_t kind;
    uint16_t reserved;
};

struct request_operation {
    uint64_t address; /* aligned to 8 */
    uint64_t operand;
    uint32_t code;
    uint32_t reserved;
};
enum operation_code { OPERATION_ADD = 1, OPERATION_MIN, OPERATION_MAX, OPERATION_AND, OPERATION_OR };

struct commit_request {
    struct request_header header;
    uint64_t session;  /* id */
    uint64_t holder;   /* the opening that the client knows */
    uint64_t sequence; /* from 1 */
    uint64_t index;    /* read at */
    uint64_t epoch;    /* of the image that it was read in; counts if there are lines */
    uint32_t line_count;
    uint32_t operation_count;
    uint32_t range_count;
    uint32_t ranges_size; /* bytes */
};
_Static_assert(sizeof(struct commit_request) == 64, "format");

struct session_request {
    struct request_header header;
    uint64_t session;
    uint64_t holder;
    uint64_t sequence; /* OUTCOME: the one asked for */
    char name[64];     /* OPEN: "" for an unnamed one */
};

struct region_request {
    struct request_header header;
    uint32_t region; /* GROW, DROP, ACCESS */
    uint32_t owner, group, mode;
    uint64_t size;
    uint64_t size_max;
    char name[64]; /* CREATE */
};

/* The answer to any request. */
struct reply {
    uint64_t token;  /* of the submitter */
    uint32_t result; /* shelf_result */
    uint32_t reason; /* enum reply_reason: which of several causes */
    struct shelf_receipt receipt;
    uint64_t session; /* SESSION_OPEN; SESSION_KEEP: 0 if it has a name */
    uint64_t holder;
    uint64_t session_last; /* highest sequence that has committed or was fenced: new ones begin after it */
    uint64_t session_committed; /* highest that has committed */
    uint32_t region;            /* REGION_CREATE */
};

/* X(name, sentence): the particular cause behind a result, for shelf_detail(). */
#define REPLY_REASON_LIST(X)                                                                               \
    X(NONE, "")                                                                                            \
    X(CERTIFY, "a line that was read has changed since")                                                   \
    X(REQUEST_MALFORMED, "the request's counts and sizes do not add up")                                   \
    X(REQUEST_RANGE, "a write lies outside of its region, or the region does not exist")                   \
    X(REQUEST_SYSTEM, "the system region belongs to the node")                                             \
    X(REQUEST_TOO_LARGE, "the encoded transaction is over 24 MiB; write fewer or larger pieces")           \
    X(SESSION_UNKNOWN, "the session has expired")                                                          \
    X(SESSION_FENCED, "the session was resumed by a newer holder")                                         \
    X(SESSION_WINDOW, "the sequence is below the window of 64 remembered results")                         \
    X(SESSION_TABLE_FULL, "all 1024 places of the table of sessions are in use")                           \
    X(SEQUENCE_FENCED, "the sequence was asked for before it committed, and fenced")                       \
    X(REGION_NAME, "a region of that name exists already")                                                 \
    X(REGION_UNKNOWN, "there is no such region")                                                           \
    X(REGION_TABLE_FULL, "all 1024 places of the catalog of regions are in use")                           \
    X(REGION_NUMBERS_FULL,                                                                                 \
      "all 65534 region numbers of this shelf have been used; dump and load into a new one")               \
    X(REGION_SIZE, "the size is 0, or over the region's growth limit")                                     \
    X(REGION_BUSY, "another change of the catalog is under way")                                           \
    X(DISK_FULL, "the disk has no space for the files of the region")                                      \
    X(LOG_FULL, "the log has no space left: the disk is full, or checkpoints do not keep up")              \
    X(NODE_STOPPED, "the node has stopped after a failure of its disk")                                    \
    X(NODE_NOT_READY, "the node is still recovering")                                                      \
    X(MEMORY, "the system refused memory for the region")                                                  \
    X(DENIED, "owner, group and mode of the region do not allow it")                                       \
    X(SESSION_DENIED, "the session belongs to another user")                                               \
    X(SESSION_SHARE_USER,                                                                                  \
      "the user has as many sessions as one may have; what is free of the table is for others")            \
    X(SESSION_SHARE_PROGRAM,                                                                               \
      "the program has as many unnamed sessions as one may have; what is free of the table is for others") \
    X(NOT_PRIMARY, "another node is the primary, or none is at the moment")                                \
    X(PRIMARY_LOST, "the node lost the lead before it was known whether others have the record")

enum reply_reason {
#define X(name, text) REASON_##name,
    REPLY_REASON_LIST(X)
#undef X
        REASON_COUNT
};

#endif
