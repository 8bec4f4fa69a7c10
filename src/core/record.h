// SPDX-License-Identifier: Apache-2.0
/*
 * record.h: which record, and where it lies in the log. Private to src/core.
 */
#ifndef CORE_RECORD_H
#define CORE_RECORD_H

#include <stdint.h>

#include "wire/log_format.h"

struct identity { /* of a record */
    uint64_t index;
    uint64_t epoch;
    uint32_t size; /* payload */
    uint32_t chain;
};

static inline struct identity record_identity(const struct record_header *header) {
    return (struct identity){
        .index = header->index, .epoch = header->epoch, .size = header->payload_size, .chain = header->chain};
}

struct position {              /* where a record begins, if it fits there */
    uint64_t segment_sequence; /* 0: none yet */
    uint64_t offset;           /* LOG_SEGMENT_BYTES: nothing fits, the next segment begins */
};

#endif
