// SPDX-License-Identifier: Apache-2.0
//
// See model.h. Every line has the history of its bytes, newest first, so that a read at any index can be looked up.
// The log is read with a parser of its own, from the definition of the format, and knows nothing of the core's.

#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/crc.h"
#include "base/hash.h"
#include "base/sometimes.h"
#include "report.h"

#define LINES_START   (1u << 12)
#define PATCHES_START 256u
#define BUCKETS       4096u
#define REGIONS       256u // that a simulated shelf ever has
#define REGION_PAGES  8192u
#define ARENA_BYTES   ((size_t)1 << 20)

struct line_state {
    struct line_state *older;
    uint64_t index;
    uint8_t bytes[LINE_SIZE];
};
struct line {
    uint64_t number; // 0: a free place; line 0 belongs to no region
    struct line_state *newest;
};

struct fate { // of a session's sequence, for ever
    struct fate *next;
    uint64_t session, sequence, index;
    uint32_t outcome; // enum session_outcome
    uint32_t result_count;
    uint64_t results[SHELF_TX_RESULTS_MAX];
    const struct submission *by; // of a commit
    uint64_t order;              // among the commits
    uint32_t first_answers;      // OK that were not marked as replayed
};

struct arena {
    struct arena *next;
    size_t used;
    uint8_t bytes[];
};

// Bytes that a transaction changes, a line at a time.
struct patch {
    uint64_t line;
    uint64_t mask; // a bit a byte
    uint8_t bytes[LINE_SIZE];
};
struct patches {
    struct patch *list;
    uint32_t count, max;
    uint32_t *slots;
    uint32_t slot_count;
};

struct model {
    const struct disk *disk;
    const struct model_node *node;
    struct line *lines;
    size_t line_count, line_max;
    struct arena *arena;
    struct fate *fates[BUCKETS];
    struct submission *peers[BUCKETS];
    struct submission **submissions; // by number
    uint64_t submission_count, submission_max;
    struct model_region regions[REGIONS];
    uint64_t *pages_changed[REGIONS]; // a bit for each page that ever changed
    struct model_position *positions; // by index; [0] unused
    size_t position_max;
    uint64_t known;
    uint64_t epoch;
    uint64_t commits;
    uint32_t alignment;
    uint64_t segment_sequence; // where the next record is expected
    uint64_t segment_place, segment_offset;
    uint64_t *changed; // lines that the last record changed
    size_t changed_count, changed_max;
    struct patches expected, actual;
    uint8_t *payload;
};

// ---- Lines

static void *arena_take(struct model *model, size_t size) {
    struct arena *arena = model->arena;
    if (!arena || arena->used + size > ARENA_BYTES) {
        arena = malloc(sizeof(*arena) + ARENA_BYTES);
        ASSERT(arena);
        arena->next = model->arena;
        arena->used = 0;
        model->arena = arena;
    }
    void *piece = arena->bytes + arena->used;
    arena->used += (size + 15) & ~(size_t)15;
    return piece;
}

static size_t line_slot(const struct line *lines, size_t max, uint64_t number) {
    size_t slot = (size_t)hash_bytes(0, &number, sizeof(number)) & (max - 1);
    while (lines[slot].number != 0 && lines[slot].number != number) {
        slot = (slot + 1) & (max - 1);
    }
    return slot;
}

static struct line *line_get(struct model *model, uint64_t number) {
    if (2 * model->line_count >= model->line_max) {
        size_t max = 2 * model->line_max;
        struct line *lines = calloc(max, sizeof(*lines));
        ASSERT(lines);
        for (size_t i = 0; i < model->line_max; i++) {
            if (model->lines[i].number != 0) {
                lines[line_slot(lines, max, model->lines[i].number)] = model->lines[i];
            }
        }
        free(model->lines);
        model->lines = lines;
        model->line_max = max;
    }
    struct line *line = &model->lines[line_slot(model->lines, model->line_max, number)];
    if (line->number == 0) {
        line->number = number;
        model->line_count++;
    }
    return line;
}

static const struct line_state *line_state_at(const struct model *model, uint64_t number, uint64_t index) {
    const struct line_state *state = model->lines[line_slot(model->lines, model->line_max, number)].newest;
    while (state && state->index > index) {
        state = state->older;
    }
    return state;
}

uint64_t model_line_index(const struct model *model, uint64_t line, uint64_t index) {
    const struct line_state *state = line_state_at(model, line, index);
    return state ? state->index : 0;
}

void model_read(const struct model *model, uint64_t address, uint64_t index, void *to, size_t size) {
    uint8_t *out = to;
    while (size > 0) {
        size_t begin = address % LINE_SIZE;
        size_t part = LINE_SIZE - begin < size ? LINE_SIZE - begin : size;
        const struct line_state *state = line_state_at(model, address >> LINE_SHIFT, index);
        if (state) {
            memcpy(out, state->bytes + begin, part);
        } else {
            memset(out, 0, part);
        }
        address += part;
        out += part;
        size -= part;
    }
}

static void line_write(struct model *model, uint64_t number, uint64_t index, size_t begin,
                       const uint8_t *from, size_t size) {
    struct line *line = line_get(model, number);
    uint32_t region = (uint32_t)(number >> (ADDRESS_OFFSET_BITS - LINE_SHIFT));
    uint64_t page = (number & (((uint64_t)1 << (ADDRESS_OFFSET_BITS - LINE_SHIFT)) - 1)) / LINES_PER_PAGE;
    if (!model->pages_changed[region]) {
        model->pages_changed[region] = calloc(REGION_PAGES / 64, sizeof(uint64_t));
        ASSERT(model->pages_changed[region]);
    }
    model->pages_changed[region][page / 64] |= (uint64_t)1 << page % 64;
    if (!line->newest || line->newest->index != index) {
        struct line_state *state = arena_take(model, sizeof(*state));
        state->older = line->newest;
        state->index = index;
        if (line->newest) {
            memcpy(state->bytes, line->newest->bytes, LINE_SIZE);
        } else {
            memset(state->bytes, 0, LINE_SIZE);
        }
        line->newest = state;
        if (model->changed_count == model->changed_max) {
            model->changed_max = model->changed_max ? 2 * model->changed_max : 256;
            model->changed = realloc(model->changed, model->changed_max * sizeof(model->changed[0]));
            ASSERT(model->changed);
        }
        model->changed[model->changed_count++] = number;
    }
    memcpy(line->newest->bytes + begin, from, size);
}

static void range_write(struct model *model, uint64_t address, uint64_t index, const uint8_t *from,
                        size_t size) {
    while (size > 0) {
        size_t begin = address % LINE_SIZE;
        size_t part = LINE_SIZE - begin < size ? LINE_SIZE - begin : size;
        line_write(model, address >> LINE_SHIFT, index, begin, from, part);
        address += part;
        from += part;
        size -= part;
    }
}

bool model_page_changed(const struct model *model, uint32_t region, uint64_t page) {
    const uint64_t *bits = model->pages_changed[region];
    return bits && (bits[page / 64] >> page % 64 & 1u);
}

// ---- Patches

static void patches_reset(struct patches *patches) {
    patches->count = 0;
    memset(patches->slots, 0, patches->slot_count * sizeof(patches->slots[0]));
}

static void patches_init(struct patches *patches) {
    patches->max = PATCHES_START;
    patches->slot_count = 4 * PATCHES_START;
    patches->list = malloc(patches->max * sizeof(patches->list[0]));
    patches->slots = malloc(patches->slot_count * sizeof(patches->slots[0]));
    ASSERT(patches->list && patches->slots);
    patches_reset(patches);
}

static struct patch *patch_find(const struct patches *patches, uint64_t line, uint32_t *ret_slot) {
    uint32_t slot = (uint32_t)hash_bytes(0, &line, sizeof(line)) & (patches->slot_count - 1);
    while (patches->slots[slot] != 0) {
        struct patch *patch = &patches->list[patches->slots[slot] - 1];
        if (patch->line == line) {
            return patch;
        }
        slot = (slot + 1) & (patches->slot_count - 1);
    }
    *ret_slot = slot;
    return NULL;
}

static void patches_grow(struct patches *patches) {
    patches->max = patches->max < PATCHES_START ? PATCHES_START : 2 * patches->max;
    patches->slot_count = 4 * patches->max;
    patches->list = realloc(patches->list, patches->max * sizeof(patches->list[0]));
    patches->slots = realloc(patches->slots, patches->slot_count * sizeof(patches->slots[0]));
    ASSERT(patches->list && patches->slots);
    memset(patches->slots, 0, patches->slot_count * sizeof(patches->slots[0]));
    for (uint32_t i = 0; i < patches->count; i++) {
        uint32_t slot = 0;
        patch_find(patches, patches->list[i].line, &slot);
        patches->slots[slot] = i + 1;
    }
}

static struct patch *patch_get(struct patches *patches, uint64_t line) {
    uint32_t slot = 0;
    struct patch *patch = patch_find(patches, line, &slot);
    if (patch) {
        return patch;
    }
    if (patches->count == patches->max) {
        patches_grow(patches);
        patch_find(patches, line, &slot);
    }
    patch = &patches->list[patches->count++];
    *patch = (struct patch){.line = line};
    patches->slots[slot] = patches->count;
    return patch;
}

static void patches_write(struct patches *patches, uint64_t address, const uint8_t *from, size_t size) {
    while (size > 0) {
        size_t begin = address % LINE_SIZE;
        size_t part = LINE_SIZE - begin < size ? LINE_SIZE - begin : size;
        struct patch *patch = patch_get(patches, address >> LINE_SHIFT);
        memcpy(patch->bytes + begin, from, part);
        patch->mask |= (part == LINE_SIZE ? UINT64_MAX : (((uint64_t)1 << part) - 1)) << begin;
        address += part;
        from += part;
        size -= part;
    }
}

static bool patches_equal(const struct patches *a, const struct patches *b) {
    if (a->count != b->count) {
        return false;
    }
    for (uint32_t i = 0; i < a->count; i++) {
        uint32_t slot;
        const struct patch *other = patch_find(b, a->list[i].line, &slot);
        // Bytes that are not in the mask are zero in both.
        if (!other || other->mask != a->list[i].mask ||
            memcmp(other->bytes, a->list[i].bytes, LINE_SIZE) != 0) {
            return false;
        }
    }
    return true;
}

// The word as of everything before this transaction, with what it has already changed itself.
static uint64_t patched_word(const struct model *model, const struct patches *patches, uint64_t address) {
    uint64_t word;
    model_read(model, address, UINT64_MAX, &word, sizeof(word));
    uint32_t slot;
    const struct patch *patch = patch_find(patches, address >> LINE_SHIFT, &slot);
    for (size_t i = 0; patch && i < sizeof(word); i++) {
        size_t byte = address % LINE_SIZE + i;
        if (patch->mask >> byte & 1u) {
            ((uint8_t *)&word)[i] = patch->bytes[byte];
        }
    }
    return word;
}

// ---- Sessions as the state has them

static uint64_t session_header_address(uint64_t place) {
    return shelf_addr_make(REGION_SYSTEM, SYSTEM_SESSIONS_OFFSET + place * sizeof(struct session_header));
}

// False if there is no such session (any more).
static bool session_header_read(const struct model *model, uint64_t session,
                                struct session_header *ret_header) {
    uint64_t place = session & 0xffff;
    if (session == 0 || place >= SHELF_SESSIONS_MAX) {
        return false;
    }
    model_read(model, session_header_address(place), UINT64_MAX, ret_header, sizeof(*ret_header));
    return ret_header->id == session;
}

// ---- Requests

static uint16_t kind_of(const struct submission *submission) {
    return submission->size >= sizeof(struct request_header)
               ? ((const struct request_header *)submission->bytes)->kind
               : 0;
}

struct request_view { // a commit request taken apart
    const struct commit_request *request;
    const uint64_t *lines;
    const struct request_operation *operations;
    const uint8_t *ranges;
};

static size_t range_size(const struct record_range *range) {
    return sizeof(*range) + ((size_t)range->size + 7) / 8 * 8;
}

static bool ranges_fit(const uint8_t *ranges, uint64_t size, uint32_t count) {
    uint64_t offset = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct record_range *range = (const void *)(ranges + offset);
        if (size - offset < sizeof(*range) || size - offset < range_size(range)) {
            return false;
        }
        offset += range_size(range);
    }
    return offset == size;
}

// False if its counts and sizes do not add up.
static bool request_view(const struct submission *submission, struct request_view *ret_view) {
    const struct commit_request *request = (const void *)submission->bytes;
    if (submission->size < sizeof(*request) || request->header.kind != REQUEST_COMMIT ||
        request->header.size != submission->size) {
        return false;
    }
    uint64_t size = sizeof(*request) + (uint64_t)request->line_count * sizeof(uint64_t) +
                    (uint64_t)request->operation_count * sizeof(struct request_operation) +
                    request->ranges_size;
    if (size != submission->size) {
        return false;
    }
    ret_view->request = request;
    ret_view->lines = (const void *)(request + 1);
    ret_view->operations = (const void *)(ret_view->lines + request->line_count);
    ret_view->ranges = (const void *)(ret_view->operations + request->operation_count);
    return ranges_fit(ret_view->ranges, request->ranges_size, request->range_count);
}

static bool range_inside(const struct model *model, uint64_t address, uint64_t size) {
    uint32_t number = shelf_addr_region(address);
    const struct model_region *region = model_region(model, number);
    return region && region->live && size <= region->size &&
           shelf_addr_offset(address) <= region->size - size;
}

// ---- Rights

static bool is_root(const struct credentials *credentials) {
    return !credentials || credentials->user == 0;
}

static bool has_group(const struct credentials *credentials, uint32_t group) {
    for (uint32_t i = 0; i < credentials->group_count; i++) {
        if (credentials->groups[i] == group) {
            return true;
        }
    }
    return credentials->group == group;
}

// `bit`: 4 to read, 2 to write.
static bool access_allowed(const struct credentials *credentials, uint32_t owner, uint32_t group,
                           uint32_t mode, uint32_t bit) {
    if (is_root(credentials)) {
        return true;
    }
    uint32_t shift = credentials->user == owner ? 6 : has_group(credentials, group) ? 3 : 0;
    return (mode & bit << shift) != 0;
}

// What a right is looked up for: in which region, and whether it changed since the submission was made.
struct touch {
    const struct model *model;
    const struct submission *s;
    bool denied, moved;
};

static void touch(struct touch *touch, uint64_t address, uint32_t bit) {
    const struct model_region *region = model_region(touch->model, shelf_addr_region(address));
    if (region && shelf_addr_region(address) != REGION_SYSTEM) {
        touch->denied |=
            !access_allowed(touch->s->credentials, region->owner, region->group, region->mode, bit);
        touch->moved |= region->changed_index > touch->s->known;
    }
}

static struct touch touch_all(const struct model *model, const struct submission *s,
                              const struct request_view *view) {
    struct touch all = {.model = model, .s = s};
    uint64_t offset = 0;
    for (uint32_t i = 0; i < view->request->range_count; i++) {
        const struct record_range *range = (const void *)(view->ranges + offset);
        touch(&all, range->address, 2);
        offset += range_size(range);
    }
    for (uint32_t i = 0; i < view->request->operation_count; i++) {
        touch(&all, view->operations[i].address, 2);
        touch(&all, view->operations[i].address, 4); // for its result
    }
    for (uint32_t i = 0; i < view->request->line_count; i++) {
        touch(&all, view->lines[i] << LINE_SHIFT, 4);
    }
    return all;
}

// May this user change owner, group and mode as asked for, on a region that has those?
static bool access_change_allowed(const struct credentials *credentials, const struct region_request *request,
                                  uint32_t owner, uint32_t group) {
    return is_root(credentials) ||
           (credentials->user == owner && (request->owner == SHELF_KEEP || request->owner == owner) &&
            (request->group == SHELF_KEEP || request->group == group ||
             has_group(credentials, request->group)));
}

static bool region_change_allowed(const struct submission *s, uint32_t owner, uint32_t group, uint32_t mode) {
    const struct region_request *request = (const void *)s->bytes;
    switch (request->header.kind) {
    case REQUEST_REGION_GROW:
        return access_allowed(s->credentials, owner, group, mode, 2);
    case REQUEST_REGION_DROP:
        return is_root(s->credentials) || s->credentials->user == owner;
    case REQUEST_REGION_ACCESS:
        return access_change_allowed(s->credentials, request, owner, group);
    default:
        return true;
    }
}

// Is there a session of that name that belongs to somebody else?
static bool name_is_taken(const struct model *model, const struct submission *s) {
    const struct session_request *request = (const void *)s->bytes;
    for (uint64_t place = 0; place < SHELF_SESSIONS_MAX && request->name[0] != 0; place++) {
        struct session_header header;
        model_read(model, session_header_address(place), UINT64_MAX, &header, sizeof(header));
        if (header.id != 0 && header.named && strncmp(header.name, request->name, sizeof(header.name)) == 0) {
            return header.owner != s->credentials->user;
        }
    }
    return false;
}

static bool session_is_anothers(const struct model *model, const struct submission *s) {
    struct session_header header;
    return !is_root(s->credentials) &&
           (kind_of(s) == REQUEST_SESSION_OPEN
                ? name_is_taken(model, s)
                : session_header_read(model, s->session, &header) && header.owner != s->credentials->user);
}

// Might the core deny it, as of the durable state, or of one that it has met since it was submitted?
static bool denial_possible(const struct model *model, const struct submission *s) {
    uint16_t kind = kind_of(s);
    struct request_view view;
    if (is_root(s->credentials) || !s->valid) {
        return false;
    }
    if (kind == REQUEST_COMMIT) {
        bool whole = request_view(s, &view);
        struct touch all = whole ? touch_all(model, s, &view) : (struct touch){0};
        return all.denied || all.moved || session_is_anothers(model, s);
    }
    if (kind >= REQUEST_SESSION_OPEN && kind <= REQUEST_SESSION_OUTCOME) {
        return session_is_anothers(model, s);
    }
    const struct region_request *request = (const void *)s->bytes;
    const struct model_region *region = model_region(model, request->region);
    return region && kind != REQUEST_REGION_CREATE &&
           (region->changed_index > s->known ||
            !region_change_allowed(s, region->owner, region->group, region->mode));
}

// ---- What kind of request it is

// Sets valid, odd and system of a commit request, as far as the durable state tells.
static void classify_commit(const struct model *model, struct submission *submission) {
    const struct commit_request *head = (const void *)submission->bytes;
    struct request_view view;
    if (submission->size >= sizeof(*head)) {
        submission->session = head->session;
        submission->holder = head->holder;
        submission->sequence = head->sequence;
        submission->index = head->index;
    }
    submission->valid = request_view(submission, &view);
    if (!submission->valid) {
        return;
    }
    submission->odd = submission->sequence == 0 || submission->index > model->node->applied ||
                      (view.request->operation_count == 0 && view.request->range_count == 0);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < view.request->range_count; i++) {
        const struct record_range *range = (const void *)(view.ranges + offset);
        submission->system |= shelf_addr_region(range->address) == REGION_SYSTEM;
        submission->valid &= range_inside(model, range->address, range->size);
        submission->odd |= range->size == 0 || range->reserved != 0;
        offset += range_size(range);
    }
    for (uint32_t i = 0; i < view.request->operation_count; i++) {
        const struct request_operation *operation = &view.operations[i];
        submission->system |= shelf_addr_region(operation->address) == REGION_SYSTEM;
        submission->valid &= operation->address % 8 == 0 && range_inside(model, operation->address, 8) &&
                             operation->code >= OPERATION_ADD && operation->code <= OPERATION_OR;
        submission->odd |= operation->reserved != 0;
    }
    submission->valid &= view.request->operation_count <= SHELF_TX_OPERATIONS_MAX;
    for (uint32_t i = 0; i < view.request->line_count; i++) {
        const struct model_region *region =
            model_region(model, shelf_addr_region(view.lines[i] << LINE_SHIFT));
        // A region may be larger already than the image says.
        submission->odd |= region && region->changed_index > model->node->applied;
        submission->odd |= !range_inside(model, view.lines[i] << LINE_SHIFT, LINE_SIZE) ||
                           view.lines[i] >> (64 - LINE_SHIFT) != 0 ||
                           shelf_addr_region(view.lines[i] << LINE_SHIFT) == REGION_SYSTEM;
    }
}

static void classify(const struct model *model, struct submission *submission) {
    bool was_valid = submission->attempts > 0 && submission->valid;
    submission->valid = submission->odd = submission->system = false;
    switch (kind_of(submission)) {
    case REQUEST_COMMIT:
        classify_commit(model, submission);
        break;
    case REQUEST_SESSION_OPEN:
    case REQUEST_SESSION_EXPIRE:
    case REQUEST_SESSION_OUTCOME:
        submission->valid = submission->size == sizeof(struct session_request) &&
                            ((const struct session_request *)(const void *)submission->bytes)->header.size ==
                                submission->size;
        if (submission->valid) {
            const struct session_request *request = (const void *)submission->bytes;
            submission->session = request->session;
            submission->holder = request->holder;
            submission->sequence = request->sequence;
        }
        break;
    case REQUEST_REGION_CREATE:
    case REQUEST_REGION_GROW:
    case REQUEST_REGION_DROP:
    case REQUEST_REGION_ACCESS:
        submission->valid = submission->size == sizeof(struct region_request);
        submission->odd = true;
        break;
    default:
        break;
    }
    // A region may have been dropped or made since the first attempt.
    submission->odd |= submission->attempts > 0 && was_valid != submission->valid;
}

static uint32_t bucket_of(uint64_t session, uint64_t sequence) {
    uint64_t key[2] = {session, sequence};
    return (uint32_t)hash_bytes(0, key, sizeof(key)) % BUCKETS;
}

struct submission *model_submission_new(struct model *model, uint32_t client,
                                        const struct credentials *credentials, const void *bytes,
                                        size_t size) {
    struct submission *submission = calloc(1, sizeof(*submission));
    ASSERT(submission);
    submission->bytes = malloc(size + 8);
    ASSERT(submission->bytes);
    memcpy(submission->bytes, bytes, size);
    submission->size = size;
    submission->client = client;
    submission->credentials = credentials;
    submission->number = model->submission_count;
    if (model->submission_count == model->submission_max) {
        model->submission_max = model->submission_max ? 2 * model->submission_max : 256;
        model->submissions =
            realloc(model->submissions, model->submission_max * sizeof(model->submissions[0]));
        ASSERT(model->submissions);
    }
    model->submissions[model->submission_count++] = submission;
    classify(model, submission);
    uint32_t bucket = bucket_of(submission->session, submission->sequence);
    submission->peer = model->peers[bucket];
    model->peers[bucket] = submission;
    return submission;
}

void model_submitted(struct model *model, struct submission *submission) {
    ASSERT(submission->attempts < ATTEMPTS_MAX);
    classify(model, submission);
    if (submission->attempts_open == 0) {
        submission->step = report.step;
        submission->known = model->known;
    }
    submission->may_be_denied |= denial_possible(model, submission);
    struct session_header header;
    submission->fenced =
        session_header_read(model, submission->session, &header) && header.holder != submission->holder;
    submission->state = SUBMISSION_PENDING;
    submission->attempts++;
    submission->attempts_open++;
}

void model_refused(struct submission *submission) {
    submission->state = SUBMISSION_REFUSED;
    submission->attempts--;
    submission->attempts_open--;
}

struct submission *model_submission_of(const struct model *model, uint64_t token) {
    uint64_t number = token / ATTEMPTS_MAX;
    return number < model->submission_count ? model->submissions[number] : NULL;
}

uint64_t submission_token(const struct submission *submission) {
    return submission->number * ATTEMPTS_MAX + submission->attempts - 1;
}

void model_node_died(struct model *model) {
    for (uint64_t i = 0; i < model->submission_count; i++) {
        struct submission *s = model->submissions[i];
        if (s->state == SUBMISSION_PENDING || s->state == SUBMISSION_REFUSED) {
            s->state = SUBMISSION_LOST;
        }
    }
}

void model_node_opened(struct model *model) {
    for (uint64_t i = 0; i < model->submission_count; i++) {
        model->submissions[i]->attempts_open = 0;
    }
}

// ---- Fates

static struct fate *fate_find(const struct model *model, uint64_t session, uint64_t sequence) {
    struct fate *fate = model->fates[bucket_of(session, sequence)];
    while (fate && (fate->session != session || fate->sequence != sequence)) {
        fate = fate->next;
    }
    return fate;
}

static struct fate *fate_add(struct model *model, uint64_t session, uint64_t sequence, uint32_t outcome,
                             uint64_t index) {
    struct fate *fate = arena_take(model, sizeof(*fate));
    uint32_t bucket = bucket_of(session, sequence);
    *fate = (struct fate){.next = model->fates[bucket],
                          .session = session,
                          .sequence = sequence,
                          .outcome = outcome,
                          .index = index};
    model->fates[bucket] = fate;
    return fate;
}

static struct session_result session_slot_read(const struct model *model, uint64_t session,
                                               uint64_t sequence) {
    struct session_result result;
    uint64_t slot = (session & 0xffff) * SHELF_SESSION_WINDOW + sequence % SHELF_SESSION_WINDOW;
    model_read(model, shelf_addr_make(REGION_SYSTEM, SYSTEM_RESULTS_OFFSET + slot * sizeof(result)),
               UINT64_MAX, &result, sizeof(result));
    if (result.index <= session >> 16) { // left by an earlier session at this place
        result = (struct session_result){.outcome = SESSION_OUTCOME_NONE};
    }
    return result;
}

static uint64_t session_last(const struct model *model, uint64_t session) {
    uint64_t last = 0;
    for (uint64_t i = 0; i < SHELF_SESSION_WINDOW; i++) {
        struct session_result result = session_slot_read(model, session, i);
        if (result.outcome != SESSION_OUTCOME_NONE && result.sequence > last) {
            last = result.sequence;
        }
    }
    return last;
}

// ---- Records

// The change that a submission asks for, on the newest state: into model->expected. Its results, too.
static void expect_effects(struct model *model, const struct request_view *view, uint64_t *ret_results) {
    patches_reset(&model->expected);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < view->request->range_count; i++) {
        const struct record_range *range = (const void *)(view->ranges + offset);
        patches_write(&model->expected, range->address, (const uint8_t *)(range + 1), range->size);
        offset += range_size(range);
    }
    for (uint32_t i = 0; i < view->request->operation_count; i++) {
        const struct request_operation *operation = &view->operations[i];
        uint64_t word = patched_word(model, &model->expected, operation->address);
        uint64_t operand = operation->operand;
        switch ((enum operation_code)operation->code) {
        case OPERATION_ADD:
            word += operand;
            break;
        case OPERATION_MIN:
            word = operand < word ? operand : word;
            break;
        case OPERATION_MAX:
            word = operand > word ? operand : word;
            break;
        case OPERATION_AND:
            word &= operand;
            break;
        case OPERATION_OR:
            word |= operand;
            break;
        }
        patches_write(&model->expected, operation->address, (const uint8_t *)&word, sizeof(word));
        if (i < SHELF_TX_RESULTS_MAX) {
            ret_results[i] = word;
        }
    }
}

static void check_reads_unchanged(const struct model *model, const struct request_view *view,
                                  uint64_t index) {
    SIM_CHECK(view->request->line_count == 0 || view->request->epoch == model->epoch,
              "record %llu of epoch %llu holds session %llx sequence %llu, which read under epoch %llu",
              (unsigned long long)index, (unsigned long long)model->epoch,
              (unsigned long long)view->request->session, (unsigned long long)view->request->sequence,
              (unsigned long long)view->request->epoch);
    for (uint32_t i = 0; i < view->request->line_count; i++) {
        uint64_t changed = model_line_index(model, view->lines[i], UINT64_MAX);
        SIM_CHECK(
            changed <= view->request->index,
            "record %llu holds session %llx sequence %llu, which read line %llx at index %llu, but that line "
            "changed in record %llu",
            (unsigned long long)index, (unsigned long long)view->request->session,
            (unsigned long long)view->request->sequence, (unsigned long long)view->lines[i],
            (unsigned long long)view->request->index, (unsigned long long)changed);
    }
}

// Which of the submissions under this session and sequence has exactly these effects?
static const struct submission *submission_match(struct model *model, const struct record_tx *tx,
                                                 uint64_t *ret_results) {
    const struct submission *closest = NULL;
    for (const struct submission *s = model->peers[bucket_of(tx->session, tx->sequence)]; s; s = s->peer) {
        struct request_view view;
        if (s->session != tx->session || s->sequence != tx->sequence || kind_of(s) != REQUEST_COMMIT ||
            !request_view(s, &view)) {
            continue;
        }
        closest = s;
        expect_effects(model, &view, ret_results);
        if (s->attempts_open > 0 && patches_equal(&model->expected, &model->actual)) {
            return s;
        }
    }
    SIM_CHECK(closest, "a transaction of session %llx sequence %llu is in the log that nobody submitted",
              (unsigned long long)tx->session, (unsigned long long)tx->sequence);
    SIM_CHECK(closest->attempts_open > 0,
              "session %llx sequence %llu is in the log although every attempt was answered with a result "
              "that promises "
              "no effect, or died with its node (last: %s)",
              (unsigned long long)tx->session, (unsigned long long)tx->sequence,
              shelf_result_name((shelf_result)closest->reply.result));
    sim_fail("session %llx sequence %llu is in the log with other effects than were asked for",
             (unsigned long long)tx->session, (unsigned long long)tx->sequence);
}

static void commit_check(struct model *model, const struct record_tx *tx, uint64_t index) {
    uint64_t results[SHELF_TX_RESULTS_MAX] = {0};
    const struct submission *s = submission_match(model, tx, results);
    struct request_view view;
    bool whole = request_view(s, &view);
    SIM_CHECK(whole, "session %llx sequence %llu: a malformed request was committed",
              (unsigned long long)tx->session, (unsigned long long)tx->sequence);
    check_reads_unchanged(model, &view, index);
    SIM_CHECK(
        !touch_all(model, s, &view).denied,
        "record %llu holds session %llx sequence %llu of user %u, who may not read or write what it touches",
        (unsigned long long)index, (unsigned long long)tx->session, (unsigned long long)tx->sequence,
        s->credentials->user);
    struct session_header header;
    bool open = session_header_read(model, tx->session, &header);
    SIM_CHECK(open, "record %llu commits for session %llx, which there is not", (unsigned long long)index,
              (unsigned long long)tx->session);
    SIM_CHECK(header.holder == s->holder,
              "record %llu commits for holder %llu of session %llx, whose holder is %llu",
              (unsigned long long)index, (unsigned long long)s->holder, (unsigned long long)tx->session,
              (unsigned long long)header.holder);
    SIM_CHECK(is_root(s->credentials) || header.owner == s->credentials->user,
              "record %llu commits for session %llx of user %u on behalf of another",
              (unsigned long long)index, (unsigned long long)tx->session, header.owner);
    const struct fate *old = fate_find(model, tx->session, tx->sequence);
    SIM_CHECK(!old, "session %llx sequence %llu is in record %llu, but it was %s by record %llu before",
              (unsigned long long)tx->session, (unsigned long long)tx->sequence, (unsigned long long)index,
              old && old->outcome == SESSION_OUTCOME_COMMITTED ? "committed" : "fenced",
              old ? (unsigned long long)old->index : 0);
    uint64_t last = session_last(model, tx->session);
    SIM_CHECK(tx->sequence + SHELF_SESSION_WINDOW > last,
              "session %llx sequence %llu is below its window, whose end is %llu",
              (unsigned long long)tx->session, (unsigned long long)tx->sequence, (unsigned long long)last);
    struct fate *fate = fate_add(model, tx->session, tx->sequence, SESSION_OUTCOME_COMMITTED, index);
    fate->by = s;
    fate->order = model->commits;
    uint32_t count = view.request->operation_count;
    fate->result_count = count < SHELF_TX_RESULTS_MAX ? count : SHELF_TX_RESULTS_MAX;
    memcpy(fate->results, results, sizeof(results));
    model->commits++;
}

// The results that a record has stored for sessions are those of what it committed, or new fences.
static void session_slots_check(struct model *model, uint64_t address, uint64_t size, uint64_t index) {
    uint64_t offset = shelf_addr_offset(address);
    uint64_t end = offset + size;
    for (uint64_t at = offset; at < end; at += LINE_SIZE) {
        if (at < SYSTEM_RESULTS_OFFSET) {
            continue;
        }
        uint64_t number = (at - SYSTEM_RESULTS_OFFSET) / sizeof(struct session_result);
        struct session_header header;
        model_read(model, session_header_address(number / SHELF_SESSION_WINDOW), UINT64_MAX, &header,
                   sizeof(header));
        struct session_result slot = session_slot_read(model, header.id, number % SHELF_SESSION_WINDOW);
        if (header.id == 0 || slot.outcome == SESSION_OUTCOME_NONE) {
            continue;
        }
        const struct fate *fate = fate_find(model, header.id, slot.sequence);
        if (!fate && slot.outcome == SESSION_OUTCOME_ABORTED) {
            fate_add(model, header.id, slot.sequence, slot.outcome, index);
            sim_trace("model: fence %llx.%llu in %llu", (unsigned long long)header.id,
                      (unsigned long long)slot.sequence, (unsigned long long)index);
            continue;
        }
        SIM_CHECK(fate && fate->outcome == slot.outcome,
                  "record %llu stores outcome %u for session %llx sequence %llu, which is not what happened",
                  (unsigned long long)index, slot.outcome, (unsigned long long)header.id,
                  (unsigned long long)slot.sequence);
    }
}

static void commit_stored_check(const struct model *model, const struct record_tx *tx, uint64_t index) {
    const struct fate *fate = fate_find(model, tx->session, tx->sequence);
    struct session_result slot = session_slot_read(model, tx->session, tx->sequence);
    SIM_CHECK(slot.sequence == tx->sequence && slot.outcome == SESSION_OUTCOME_COMMITTED &&
                  slot.index == index,
              "record %llu does not store the result of session %llx sequence %llu with it",
              (unsigned long long)index, (unsigned long long)tx->session, (unsigned long long)tx->sequence);
    SIM_CHECK(slot.result_count == fate->result_count &&
                  memcmp(slot.results, fate->results, slot.result_count * sizeof(slot.results[0])) == 0,
              "session %llx sequence %llu: its operations' results are stored wrongly (%u of them, first "
              "%llu; must be %u, "
              "%llu)",
              (unsigned long long)tx->session, (unsigned long long)tx->sequence, slot.result_count,
              (unsigned long long)slot.results[0], fate->result_count, (unsigned long long)fate->results[0]);
}

static void catalog_refresh(struct model *model, uint64_t index) {
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        uint64_t address = shelf_addr_make(REGION_SYSTEM, SYSTEM_CATALOG_OFFSET +
                                                              place * (uint32_t)sizeof(struct catalog_entry));
        if (model_line_index(model, address >> LINE_SHIFT, UINT64_MAX) != index &&
            model_line_index(model, (address >> LINE_SHIFT) + 1, UINT64_MAX) != index) {
            continue;
        }
        struct catalog_entry entry;
        model_read(model, address, UINT64_MAX, &entry, sizeof(entry));
        for (uint32_t i = 2; i < REGIONS; i++) { // what this place held before
            struct model_region *region = &model->regions[i];
            if (region->live && entry.live && i != entry.region && strcmp(region->name, entry.name) == 0) {
                sim_fail("record %llu makes a second region %s", (unsigned long long)index, entry.name);
            }
        }
        SIM_CHECK(entry.region < REGIONS, "region number %u in the catalog", entry.region);
        struct model_region *region = &model->regions[entry.region];
        SIM_CHECK(!entry.live || region->created_index == 0 || region->live, "region number %u is used again",
                  entry.region);
        SIM_CHECK(!entry.live || entry.size >= region->size, "region %u shrinks", entry.region);
        region->live = entry.live == 1;
        region->size = entry.size;
        region->size_max = entry.size_max;
        region->created_index = entry.created_index;
        region->changed_index = index;
        region->owner = entry.owner;
        region->group = entry.group;
        region->mode = entry.mode;
        SIM_CHECK((entry.mode & ~0666u) == 0, "region %u has mode %o", entry.region, entry.mode);
        memcpy(region->name, entry.name, sizeof(region->name));
    }
}

// A dropped region's catalog entry may just be zeroed, number and all.
static void catalog_check_drops(struct model *model, uint64_t index) {
    for (uint32_t i = 2; i < REGIONS; i++) {
        struct model_region *region = &model->regions[i];
        if (!region->live) {
            continue;
        }
        bool found = false;
        for (uint32_t place = 0; place < SHELF_REGIONS_MAX && !found; place++) {
            uint64_t address = shelf_addr_make(
                REGION_SYSTEM, SYSTEM_CATALOG_OFFSET + place * (uint32_t)sizeof(struct catalog_entry));
            if (model_line_index(model, address >> LINE_SHIFT, UINT64_MAX) == 0) {
                continue;
            }
            struct catalog_entry entry;
            model_read(model, address, UINT64_MAX, &entry, sizeof(entry));
            found = entry.live && entry.region == i;
        }
        if (!found) {
            region->live = false;
            region->changed_index = index;
        }
    }
}

// Takes one transaction of a record apart, checks it (M2 to M5), and adds it to the state.
static size_t tx_follow(struct model *model, const uint8_t *bytes, size_t size_left, uint64_t index) {
    const struct record_tx *tx = (const void *)bytes;
    SIM_CHECK(size_left >= sizeof(*tx) && tx->size <= size_left - sizeof(*tx),
              "record %llu: a transaction is cut off", (unsigned long long)index);
    patches_reset(&model->actual);
    const uint8_t *ranges = bytes + sizeof(*tx);
    size_t offset = 0;
    bool system_only = true;
    for (uint32_t i = 0; i < tx->range_count; i++) {
        const struct record_range *range = (const void *)(ranges + offset);
        size_t whole = range_size(range);
        SIM_CHECK(offset + whole <= tx->size, "record %llu: a range is cut off", (unsigned long long)index);
        bool inside = range_inside(model, range->address, range->size);
        SIM_CHECK(inside, "record %llu writes %u bytes to %llx, which is outside of its region",
                  (unsigned long long)index, range->size, (unsigned long long)range->address);
        if (shelf_addr_region(range->address) != REGION_SYSTEM) {
            patches_write(&model->actual, range->address, (const uint8_t *)(range + 1), range->size);
            system_only = false;
        }
        offset += whole;
    }
    SIM_CHECK(offset == tx->size, "record %llu: a transaction's size is wrong", (unsigned long long)index);
    bool commit =
        tx->session != 0 && !system_only; // else a fence, or the node's own; clients submit no empty commits
    SIM_CHECK(commit || system_only, "record %llu: the node itself writes outside of the system region",
              (unsigned long long)index);
    if (commit) {
        commit_check(model, tx, index);
    }
    offset = 0;
    for (uint32_t i = 0; i < tx->range_count; i++) {
        const struct record_range *range = (const void *)(ranges + offset);
        range_write(model, range->address, index, (const uint8_t *)(range + 1), range->size);
        offset += range_size(range);
    }
    if (commit) {
        commit_stored_check(model, tx, index);
    }
    offset = 0;
    bool catalog = false;
    for (uint32_t i = 0; i < tx->range_count; i++) {
        const struct record_range *range = (const void *)(ranges + offset);
        if (shelf_addr_region(range->address) == REGION_SYSTEM) {
            session_slots_check(model, range->address, range->size, index);
            catalog |= shelf_addr_offset(range->address) < SYSTEM_SESSIONS_OFFSET;
        }
        offset += range_size(range);
    }
    if (catalog) {
        catalog_check_drops(model, index);
        catalog_refresh(model, index);
    }
    return sizeof(*tx) + tx->size;
}

static struct file_id log_file(void) {
    return (struct file_id){.kind = FILE_LOG};
}

// Is record known + 1 at this place, whole and with the right chain? Its payload is then in model->payload.
static bool record_read(struct model *model, uint64_t place, uint64_t offset, uint64_t segment_sequence,
                        struct record_header *ret_header) {
    if (offset + sizeof(*ret_header) > LOG_SEGMENT_BYTES) {
        return false;
    }
    struct record_header header;
    disk_read_durable(model->disk, log_file(), place * LOG_SEGMENT_BYTES + offset, &header, sizeof(header));
    struct record_header zeroed = header;
    zeroed.header_crc = 0;
    if (header.magic != RECORD_MAGIC || header.index != model->known + 1 ||
        crc32c(0, &zeroed, sizeof(zeroed)) != header.header_crc ||
        header.segment_sequence != segment_sequence || header.segment_offset != offset ||
        header.payload_size > LOG_SEGMENT_BYTES - offset - sizeof(header)) {
        return false;
    }
    disk_read_durable(model->disk, log_file(), place * LOG_SEGMENT_BYTES + offset + sizeof(header),
                      model->payload, header.payload_size);
    zeroed.chain = 0;
    const struct model_position *last = model_position(model, model->known);
    uint32_t chain =
        crc32c(crc32c(last ? last->chain : 0, &zeroed, sizeof(zeroed)), model->payload, header.payload_size);
    if (chain != header.chain || header.previous_chain != (last ? last->chain : 0) ||
        header.previous_size != (last ? last->payload_size : 0) ||
        header.previous_epoch != (last ? last->epoch : 0)) {
        return false;
    }
    *ret_header = header;
    return true;
}

// Looks for record known + 1 where the last one ended, then at the beginning of later segments.
static bool record_find(struct model *model, struct record_header *ret_header) {
    if (model->segment_sequence != 0 && record_read(model, model->segment_place, model->segment_offset,
                                                    model->segment_sequence, ret_header)) {
        return true;
    }
    uint64_t count = disk_length(model->disk, log_file()) / LOG_SEGMENT_BYTES;
    for (uint64_t place = 0; place < count; place++) {
        struct segment_header header;
        disk_read_durable(model->disk, log_file(), place * LOG_SEGMENT_BYTES, &header, sizeof(header));
        struct segment_header zeroed = header;
        zeroed.crc = 0;
        if (header.magic == SEGMENT_MAGIC && crc32c(0, &zeroed, sizeof(zeroed)) == header.crc &&
            header.place == place && header.sequence > model->segment_sequence &&
            header.index_first == model->known + 1 &&
            record_read(model, place, model->alignment, header.sequence, ret_header)) {
            model->segment_sequence = header.sequence;
            model->segment_place = place;
            model->segment_offset = model->alignment;
            return true;
        }
    }
    return false;
}

static void record_follow(struct model *model, const struct record_header *header) {
    uint64_t index = header->index;
    SIM_CHECK(header->epoch >= model->epoch, "record %llu is of epoch %llu, after epoch %llu",
              (unsigned long long)index, (unsigned long long)header->epoch, (unsigned long long)model->epoch);
    bool opening = header->kind == RECORD_OPENING;
    SIM_CHECK((header->epoch > model->epoch) == opening,
              "record %llu of epoch %llu is %s opening record, but the record before is of epoch %llu",
              (unsigned long long)index, (unsigned long long)header->epoch, opening ? "an" : "no",
              (unsigned long long)model->epoch);
    SIM_CHECK(header->epoch <= model->node->epoch,
              "record %llu is of epoch %llu, but the coordinator is at %llu", (unsigned long long)index,
              (unsigned long long)header->epoch, (unsigned long long)model->node->epoch);
    SIM_CHECK(header->commit_hint < index, "record %llu says that record %llu is committed",
              (unsigned long long)index, (unsigned long long)header->commit_hint);
    model->epoch = header->epoch;
    model->changed_count = 0;
    size_t offset = 0;
    for (uint32_t i = 0; i < header->tx_count; i++) {
        offset += tx_follow(model, model->payload + offset, header->payload_size - offset, index);
    }
    SIM_CHECK(offset == header->payload_size, "record %llu: its payload's size is wrong",
              (unsigned long long)index);
    if (index >= model->position_max) {
        model->position_max = 2 * model->position_max;
        model->positions = realloc(model->positions, model->position_max * sizeof(model->positions[0]));
        ASSERT(model->positions);
    }
    uint64_t size =
        (sizeof(*header) + header->payload_size + model->alignment - 1) / model->alignment * model->alignment;
    model->positions[index] =
        (struct model_position){.index = index,
                                .offset = model->segment_place * LOG_SEGMENT_BYTES + model->segment_offset,
                                .size = size,
                                .epoch = header->epoch,
                                .segment_sequence = model->segment_sequence,
                                .chain = header->chain,
                                .payload_size = header->payload_size};
    model->segment_offset += size;
    model->known = index;
    sim_trace("model: record %llu epoch %llu%s, %u transactions, %u bytes, chain %08x",
              (unsigned long long)index, (unsigned long long)header->epoch, opening ? " opening" : "",
              header->tx_count, header->payload_size, header->chain);
}

void model_follow(struct model *model) {
    struct record_header header;
    while (record_find(model, &header)) {
        record_follow(model, &header);
    }
}

// ---- Answers

static bool conflict_is_real(const struct model *model, const struct submission *s) {
    struct request_view view;
    if (!request_view(s, &view)) {
        return false;
    }
    for (uint32_t i = 0; i < view.request->line_count; i++) {
        const struct model_region *region =
            model_region(model, shelf_addr_region(view.lines[i] << LINE_SHIFT));
        if (model_line_index(model, view.lines[i], model->known) > view.request->index || !region ||
            !region->live || region->changed_index > view.request->index) {
            return true;
        }
    }
    // The node has forgotten which lines changed before it started.
    return view.request->line_count > 0 &&
           (view.request->index < model->node->floor || view.request->epoch != model->node->epoch);
}

static void answer_ok_check(struct model *model, const struct submission *s, const struct reply *reply) {
    struct fate *fate = fate_find(model, s->session, s->sequence);
    SIM_CHECK(fate && fate->outcome == SESSION_OUTCOME_COMMITTED,
              "OK for session %llx sequence %llu, which is not durable", (unsigned long long)s->session,
              (unsigned long long)s->sequence);
    SIM_CHECK(reply->receipt.index == fate->index && reply->receipt.index <= model->node->applied,
              "OK for session %llx sequence %llu at index %llu; it is in record %llu, and %llu is applied",
              (unsigned long long)s->session, (unsigned long long)s->sequence,
              (unsigned long long)reply->receipt.index, (unsigned long long)fate->index,
              (unsigned long long)model->node->applied);
    SIM_CHECK(reply->receipt.sequence == s->sequence && reply->receipt.durability == SHELF_DURABLE_LOCAL,
              "the receipt of session %llx sequence %llu says sequence %llu, durability %u",
              (unsigned long long)s->session, (unsigned long long)s->sequence,
              (unsigned long long)reply->receipt.sequence, (unsigned)reply->receipt.durability);
    SIM_CHECK(reply->receipt.result_count == fate->result_count &&
                  memcmp(reply->receipt.results, fate->results, fate->result_count * sizeof(uint64_t)) == 0,
              "the receipt of session %llx sequence %llu has wrong results (%u of them, first %llu; must be "
              "%u, %llu)",
              (unsigned long long)s->session, (unsigned long long)s->sequence, reply->receipt.result_count,
              (unsigned long long)reply->receipt.results[0], fate->result_count,
              (unsigned long long)fate->results[0]);
    const struct model_position *position = model_position(model, fate->index);
    SIM_CHECK(reply->receipt.epoch == position->epoch || reply->receipt.replayed,
              "the receipt of session %llx sequence %llu says epoch %llu, its record %llu",
              (unsigned long long)s->session, (unsigned long long)s->sequence,
              (unsigned long long)reply->receipt.epoch, (unsigned long long)position->epoch);
    if (kind_of(s) == REQUEST_COMMIT && !reply->receipt.replayed) {
        SIM_CHECK(fate->first_answers++ == 0,
                  "session %llx sequence %llu was committed twice, as its receipts say",
                  (unsigned long long)s->session, (unsigned long long)s->sequence);
    }
}

// Nearly: the newest records may still be unknown.
// As of the durable state; a window's worth of others may be on its way.
static bool sessions_scarce(const struct model *model, const struct submission *s, uint32_t reason) {
    uint32_t count = 0, own_count = 0;
    for (uint64_t place = 0; place < SHELF_SESSIONS_MAX; place++) {
        struct session_header header;
        model_read(model, session_header_address(place), UINT64_MAX, &header, sizeof(header));
        count += header.id != 0;
        own_count += header.id != 0 && s->credentials && header.owner == s->credentials->user;
    }
    if (count == SHELF_SESSIONS_MAX) {
        SOMETIMES(SIM_SESSION_TABLE_FULL);
    }
    uint32_t free_count =
        SHELF_SESSIONS_MAX - (uint32_t)min_u64(count + SHELF_SESSION_WINDOW, SHELF_SESSIONS_MAX);
    return (reason == REASON_SESSION_TABLE_FULL && free_count == 0) ||
           (reason == REASON_SESSION_SHARE_USER && s->credentials &&
            own_count + SHELF_SESSION_WINDOW >= 3 * free_count);
}

static void answer_no_check(const struct model *model, const struct submission *s,
                            const struct reply *reply) {
    struct session_header header;
    bool open = session_header_read(model, s->session, &header);
    const struct fate *fate = fate_find(model, s->session, s->sequence);
    const char *name = shelf_result_name((shelf_result)reply->result);
    bool right = false;
    bool commit = kind_of(s) == REQUEST_COMMIT;
    switch ((shelf_result)reply->result) {
    case SHELF_CONFLICT:
        right = commit && (!fate || fate->by != s) && (!s->valid || s->odd || conflict_is_real(model, s));
        break;
    case SHELF_ABORTED:
        right = fate && fate->outcome == SESSION_OUTCOME_ABORTED;
        break;
    case SHELF_FENCED:
        right =
            !open || header.holder != s->holder || s->fenced; // it may have expired, or been resumed, since
        break;
    case SHELF_EXPIRED:
        right = !open || s->sequence == 0 ||
                session_last(model, s->session) >= s->sequence + SHELF_SESSION_WINDOW;
        break;
    case SHELF_DENIED: // (a session may have expired since)
        right = s->system || !s->valid || s->may_be_denied ||
                (reply->reason == REASON_SESSION_DENIED && !is_root(s->credentials) && !open);
        break;
    case SHELF_INVALID:
    case SHELF_NOT_FOUND:
        right = !s->valid || s->odd || s->system;
        break;
    case SHELF_EXISTS:
        right = kind_of(s) == REQUEST_REGION_CREATE;
        break;
    case SHELF_TOO_LARGE:
        right = s->size > LOG_RECORD_BYTES_MAX / 2 || !commit || !s->valid;
        break;
    case SHELF_NO_SPACE:
        right = model->node->no_space_step >= s->step || sessions_scarce(model, s, reply->reason);
        break;
    case SHELF_NO_MEMORY:
        right = model->node->no_memory_step >= s->step;
        break;
    case SHELF_IO:
    case SHELF_UNKNOWN:
        right = model->node->stopped;
        break;
    case SHELF_UNAVAILABLE:
        right = model->node->stopped || model->node->closing || !model->node->opened ||
                reply->reason == REASON_REGION_BUSY;
        break;
    default:
        break;
    }
    SIM_CHECK(right,
              "%s (reason %u) to a request of kind %u, session %llx sequence %llu read at %llu, is not right",
              name, reply->reason, kind_of(s), (unsigned long long)s->session,
              (unsigned long long)s->sequence, (unsigned long long)s->index);
}

static void session_open_check(const struct model *model, const struct submission *s,
                               const struct reply *reply) {
    const struct session_request *request = (const void *)s->bytes;
    struct session_header header;
    bool open = session_header_read(model, reply->session, &header);
    if (!open) {
        return; // expired since
    }
    SIM_CHECK(header.holder >= reply->holder && strncmp(header.name, request->name, sizeof(header.name)) == 0,
              "session %llx was opened with holder %llu, name %s; stored are holder %llu, name %s",
              (unsigned long long)reply->session, (unsigned long long)reply->holder, request->name,
              (unsigned long long)header.holder, header.name);
    SIM_CHECK(header.holder != reply->holder || reply->session_last <= session_last(model, reply->session),
              "session %llx is said to be at sequence %llu", (unsigned long long)reply->session,
              (unsigned long long)reply->session_last);
}

// The region's entry as of a record, also if it says that it was dropped; false: there is none.
static bool entry_find(const struct model *model, uint32_t region, uint64_t index,
                       struct catalog_entry *ret_entry) {
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        uint64_t address = shelf_addr_make(REGION_SYSTEM, SYSTEM_CATALOG_OFFSET +
                                                              place * (uint32_t)sizeof(struct catalog_entry));
        if (model_line_index(model, address >> LINE_SHIFT, index) == 0) {
            continue;
        }
        model_read(model, address, index, ret_entry, sizeof(*ret_entry));
        if (ret_entry->region == region) {
            return true;
        }
    }
    return false;
}

// Somebody who might has changed a region: before or in this record (which may hold several changes of it).
static void region_change_check(const struct model *model, const struct submission *s,
                                const struct reply *reply) {
    const struct region_request *request = (const void *)s->bytes;
    uint64_t index = reply->receipt.index;
    if (index == 0) {
        return; // it was large enough already
    }
    struct catalog_entry before, after;
    bool was = entry_find(model, request->region, index - 1, &before);
    bool is = entry_find(model, request->region, index, &after);
    SIM_CHECK((was && region_change_allowed(s, before.owner, before.group, before.mode)) ||
                  (is && region_change_allowed(s, after.owner, after.group, after.mode)) ||
                  (was && !is), // dropped, and its place taken by another one in the same record
              "user %u has changed region %u by a request of kind %u, and may not", s->credentials->user,
              request->region, request->header.kind);
}

static void region_owner_check(const struct model *model, const struct submission *s,
                               const struct reply *reply) {
    struct catalog_entry entry;
    if (s->credentials && entry_find(model, reply->region, reply->receipt.index, &entry) &&
        entry.size == ((const struct region_request *)(const void *)s->bytes)->size) {
        SIM_CHECK(entry.owner == s->credentials->user || entry.created_index != reply->receipt.index,
                  "region %u was created by user %u and belongs to %u", reply->region, s->credentials->user,
                  entry.owner);
    }
}

static void region_answer_check(const struct model *model, const struct submission *s,
                                const struct reply *reply) {
    const struct region_request *request = (const void *)s->bytes;
    const struct model_region *region = model_region(model, reply->region);
    SIM_CHECK(region && region->changed_index != 0, "region %u was created, but it is not in the catalog",
              reply->region);
    SIM_CHECK(!region->live || (strncmp(region->name, request->name, sizeof(region->name)) == 0 &&
                                region->size >= request->size),
              "region %u was created with another name or size than asked for", reply->region);
    region_owner_check(model, s, reply);
}

void model_answered(struct model *model, struct submission *s, const struct reply *reply) {
    uint64_t attempt = (uint64_t)1 << reply->token % ATTEMPTS_MAX;
    SIM_CHECK(reply->token % ATTEMPTS_MAX < s->attempts && !(s->answered & attempt),
              "a second answer to one request");
    s->answered |= attempt;
    s->reply = *reply;
    s->state = SUBMISSION_ANSWERED;
    if (reply->result != SHELF_UNKNOWN && s->attempts_open > 0) {
        s->attempts_open--;
    }
    struct submission now = *s; // regions may have come or gone while it waited
    classify(model, &now);
    s->odd |= now.odd || now.valid != s->valid;
    s->may_be_denied |= denial_possible(model, s);
    if (reply->result != SHELF_OK) {
        answer_no_check(model, s, reply);
        return;
    }
    SIM_CHECK(!model->node->stopped, "OK after the node has stopped");
    switch (kind_of(s)) {
    case REQUEST_COMMIT:
        SIM_CHECK(!s->system || reply->receipt.replayed, "OK to a request that writes to the system region");
        answer_ok_check(model, s, reply);
        break;
    case REQUEST_SESSION_OUTCOME:
        answer_ok_check(model, s, reply);
        break;
    case REQUEST_SESSION_OPEN:
        session_open_check(model, s, reply);
        break;
    case REQUEST_REGION_CREATE:
        region_answer_check(model, s, reply);
        break;
    case REQUEST_REGION_GROW:
    case REQUEST_REGION_DROP:
    case REQUEST_REGION_ACCESS:
        region_change_check(model, s, reply);
        break;
    default:
        break;
    }
}

// ---- The rest

struct model *model_new(const struct disk *disk, const struct model_node *node) {
    struct model *model = calloc(1, sizeof(*model));
    ASSERT(model);
    model->disk = disk;
    model->node = node;
    model->line_max = LINES_START;
    model->lines = calloc(model->line_max, sizeof(model->lines[0]));
    model->position_max = 1024;
    model->positions = calloc(model->position_max, sizeof(model->positions[0]));
    model->payload = malloc(LOG_SEGMENT_BYTES);
    ASSERT(model->lines && model->positions && model->payload);
    patches_init(&model->expected);
    patches_init(&model->actual);
    model->alignment = SECTOR_SIZE;
    model->regions[REGION_SYSTEM] =
        (struct model_region){.live = true, .size = SYSTEM_REGION_BYTES, .size_max = SYSTEM_REGION_BYTES};
    return model;
}

void model_free(struct model *model) {
    for (uint64_t i = 0; i < model->submission_count; i++) {
        free(model->submissions[i]->bytes);
        free(model->submissions[i]);
    }
    free(model->submissions);
    for (size_t i = 0; i < REGIONS; i++) {
        free(model->pages_changed[i]);
    }
    for (struct arena *arena = model->arena; arena;) {
        struct arena *next = arena->next;
        free(arena);
        arena = next;
    }
    free(model->expected.list);
    free(model->expected.slots);
    free(model->actual.list);
    free(model->actual.slots);
    free(model->changed);
    free(model->payload);
    free(model->positions);
    free(model->lines);
    free(model);
}

void model_last_record_forgotten(struct model *model) {
    ASSERT(model->known > 0);
    for (size_t i = 0; i < model->line_max; i++) {
        struct line_state *newest = model->lines[i].newest;
        if (newest && newest->index == model->known) {
            model->lines[i].newest = newest->older;
        }
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct fate **link = &model->fates[i]; *link;) {
            if ((*link)->index == model->known) {
                *link = (*link)->next;
            } else {
                link = &(*link)->next;
            }
        }
    }
    model->known--;
    const struct model_position *last = &model->positions[model->known]; // [0]: all zero
    model->segment_sequence = last->segment_sequence;
    model->segment_place = last->offset / LOG_SEGMENT_BYTES;
    model->segment_offset = last->offset % LOG_SEGMENT_BYTES + last->size;
    model->epoch = model->known ? model->positions[model->known].epoch : 0;
    model->changed_count = 0;
    memset(model->regions, 0, sizeof(model->regions));
    model->regions[REGION_SYSTEM] =
        (struct model_region){.live = true, .size = SYSTEM_REGION_BYTES, .size_max = SYSTEM_REGION_BYTES};
    for (uint64_t index = 1; index <= model->known; index++) {
        catalog_refresh(model, index);
    }
}

uint64_t model_known(const struct model *model) {
    return model->known;
}

const struct model_region *model_region(const struct model *model, uint32_t region) {
    return region < REGIONS ? &model->regions[region] : NULL;
}

size_t model_lines_changed(const struct model *model, const uint64_t **ret_lines) {
    *ret_lines = model->changed;
    return model->changed_count;
}

const struct model_position *model_position(const struct model *model, uint64_t index) {
    return index > 0 && index <= model->known ? &model->positions[index] : NULL;
}

uint32_t model_alignment(const struct model *model) {
    return model->alignment;
}

void model_alignment_set(struct model *model, uint32_t alignment) {
    model->alignment = alignment;
}

bool model_commit_order(const struct model *model, const struct submission *submission, uint64_t *ret_order) {
    const struct fate *fate = fate_find(model, submission->session, submission->sequence);
    if (!fate || fate->by != submission) {
        return false;
    }
    *ret_order = fate->order;
    return true;
}

uint64_t model_commit_count(const struct model *model) {
    return model->commits;
}
