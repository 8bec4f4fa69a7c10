// SPDX-License-Identifier: Apache-2.0
//
// What must be true. The model knows the requests that clients submitted, and reads the log for itself, from the durable
// bytes of the simulated disk, as soon as they are there. From these two it says what every answer and every read had to be.
//
//   M1  Records are numbered without a gap, chained, and of epochs that never go back; none disappears again.
//   M2  Each transaction in a record is one that a client submitted, with exactly its effects, at most once for a session
//       and sequence, by the session's present holder, not below its window, never after a fence.
//   M3  No line that it read had changed since the index that it read at, in this life of the node.
//   M4  Its results are those of its operations on the state before it, and are stored in its session's slot.
//   M5  What the node itself writes lies in the system region.
//   M6  Every answer follows from the durable records: OK with index and results of the one commit; CONFLICT only if a line
//       really changed (or the node restarted since: floors); ABORTED only with a fence; and so on.
//   M8  Of what a transaction in a record touches, its user might read what it read and write what it wrote (of operations: both), as
//       of the state before it; its session is its user's. Changes of the catalog are of those who might make them; DENIED is only for those who might not.
//   M7  A read returns the bytes as of its transaction's index, whatever becomes of the transaction.

#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <stdbool.h>

#include "core/core.h"
#include "disk.h"
#include "wire/request.h"
#include "wire/system_region.h"

enum submission_state {
    SUBMISSION_REFUSED, // to be submitted (again)
    SUBMISSION_PENDING,
    SUBMISSION_ANSWERED,
    SUBMISSION_LOST, // the node died or its answer got lost
};

// One request with all its retries. Owned by the model.
struct submission {
    struct submission *peer; // of the same session and sequence
    uint64_t number;
    uint32_t client;
    const struct credentials *credentials;
    enum submission_state state;
    uint32_t attempts_open; // attempts that may still commit
    uint32_t attempts;
    uint64_t answered; // a bit for each attempt
    bool fenced;       // its session had another holder when it was last submitted
    // As classified when submitted: all right; the core may refuse it; it touches the system region.
    bool valid, odd, system;
    bool may_be_denied; // as of one of the states that it met, or may have met
    uint64_t known;     // the last durable record when it was first submitted in this life
    uint64_t step;      // when the first of the open attempts was submitted
    uint64_t session, holder, sequence, index;
    struct reply reply; // the last one
    size_t size;
    uint8_t *bytes;
};

#define ATTEMPTS_MAX 60u // of one submission

struct model_region {
    bool live;
    uint64_t size, size_max;
    uint64_t created_index;
    uint64_t changed_index; // of the last record that changed its entry of the catalog
    uint32_t owner, group, mode;
    char name[64];
};

struct model;

// What the model has to know of the present life of the node.
struct model_node {
    uint64_t floor;     // index at which its image began
    uint64_t life_step; // when it started
    uint64_t applied;   // now
    bool opened, stopped, closing;
    uint64_t no_space_step; // when the disk or a table was last full
    uint64_t no_memory_step;
    uint64_t epoch; // of the coordinator
};

struct model *model_new(const struct disk *disk, const struct model_node *node);
void model_free(struct model *model);

// The bytes are copied; the credentials (NULL: all is allowed) are not.
struct submission *model_submission_new(struct model *model, uint32_t client,
                                        const struct credentials *credentials, const void *bytes,
                                        size_t size);
void model_submitted(struct model *model, struct submission *submission);
// The token of its present attempt, and the submission that a token belongs to.
uint64_t submission_token(const struct submission *submission);
struct submission *model_submission_of(const struct model *model, uint64_t token);
// The core had no room: the attempt does not count.
void model_refused(struct submission *submission);
void model_answered(struct model *model, struct submission *submission, const struct reply *reply);
// The node is gone: no answers come any more. Once the next one serves, what is not durable can no longer happen.
void model_node_died(struct model *model);
void model_node_opened(struct model *model);

// Reads what is new in the durable log.
void model_follow(struct model *model);
// The last record was damaged beyond what can be told from a tear: forget it. Only for the very last one.
void model_last_record_forgotten(struct model *model);

uint64_t model_known(const struct model *model);
void model_read(const struct model *model, uint64_t address, uint64_t index, void *to, size_t size);
// Index at which the line last changed; 0: never.
uint64_t model_line_index(const struct model *model, uint64_t line, uint64_t index);
// Has any record changed the page? A quick way around pages that are zero.
bool model_page_changed(const struct model *model, uint32_t region, uint64_t page);
const struct model_region *model_region(const struct model *model, uint32_t region);
// Lines changed by record `index`, for checks of the image. At most count_max are told.
size_t model_lines_changed(const struct model *model, const uint64_t **ret_lines);
// Where a record lies: for faults and for the rule that the log is kept.
struct model_position {
    uint64_t index;
    uint64_t offset; // in the file
    uint64_t size;
    uint64_t epoch;
    uint64_t segment_sequence;
    uint32_t chain;
    uint32_t payload_size;
};
const struct model_position *model_position(const struct model *model, uint64_t index);
uint32_t model_alignment(const struct model *model);
void model_alignment_set(struct model *model, uint32_t alignment);
// The place of this submission's commit among all commits. False if it has not happened.
bool model_commit_order(const struct model *model, const struct submission *submission, uint64_t *ret_order);
uint64_t model_commit_count(const struct model *model);

#endif
