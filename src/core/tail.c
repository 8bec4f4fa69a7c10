// SPDX-License-Identifier: Apache-2.0
/*
 * tail.c: of the last TAIL_MAX records of the log: what they are, and where they lie. Peers are served from them, and what is
 * not committed is always among them.
 */
#include "core/state.h"

static struct tail_record *slot(const struct core *core, uint64_t index) {
    return &core->cluster.tail[index % TAIL_MAX];
}

/* The log begins behind this record, which is not in it. */
void tail_begin(struct core *core, const struct identity *identity, struct position end) {
    core->cluster.tail_first = identity->index;
    *slot(core, identity->index) = (struct tail_record){.identity = *identity, .end = end};
}

void tail_add(struct core *core, const struct identity *identity, struct position begin, struct position end,
              uint32_t place) {
    if (identity->index - core->cluster.tail_first >= TAIL_MAX) {
        core->cluster.tail_first = identity->index - TAIL_MAX + 1;
    }
    *slot(core, identity->index) =
        (struct tail_record){.identity = *identity, .begin = begin, .end = end, .place = place};
}

const struct tail_record *tail_find(const struct core *core, uint64_t index) {
    bool known = index >= core->cluster.tail_first && index <= core->log.last.index;
    return known && slot(core, index)->identity.index == index ? slot(core, index) : NULL;
}

/* Its segment may have been trimmed and be another's by now. */
bool tail_on_disk(const struct core *core, const struct tail_record *record) {
    return record->begin.segment_sequence != 0 &&
           core->log.segments[record->place].sequence == record->begin.segment_sequence;
}
