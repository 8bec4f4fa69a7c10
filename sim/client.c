// SPDX-License-Identifier: Apache-2.0
//
// See client.h.

#include "client.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/sometimes.h"
#include "client/tx.h"
#include "report.h"
#include "shop.h"

#define READS_MAX    48u
#define WRITES_MAX   24u
#define OPS_MAX      16u
#define VIEWS_MAX    4u
#define RECENT_MAX   24u
#define SPAN_MAX     600u
#define NAMES        3u // of named sessions: clients share them, and fence one another
#define REGION_NAMES 5u
#define REGION_NEVER (MAPS_MAX - 1) // a number that no region gets to
#define REQUEST_MAX  ((size_t)700 << 10)

struct span { // bytes read, written, or looked at
    uint64_t address;
    size_t size;
    bool merged; // read with own writes on top: its lines count, its bytes were checked at once
    const void *view;
    uint8_t bytes[SPAN_MAX];
};

struct client {
    struct tx_host host; // first: the transactions' handle
    struct world *world;
    struct random *random;
    uint32_t number;
    const struct credentials *credentials;
    char name[64]; // of its session; "": unnamed
    uint64_t session, holder, sequence;
    struct submission *opening;
    struct submission *recent[RECENT_MAX];
    uint32_t recent_count; // ever; the place is modulo
    struct shelf_tx *tx;
    bool tx_read_only;
    uint32_t tx_calls_left;
    uint64_t tx_index; // that its reads were last checked at
    struct span reads[READS_MAX], writes[WRITES_MAX], views[VIEWS_MAX];
    uint64_t ops[OPS_MAX];
    uint32_t read_count, write_count, op_count, view_count;
    uint8_t *request;  // built here
    struct shop *shop; // of client 0 only
};

// Clients 2 and 4 are one user; the first is the node's own program, the second one root.
static const struct credentials *credentials_of(uint32_t number) {
    static const uint32_t groups[] = {201, 202, 203};
    static const struct credentials all[CLIENTS_MAX] = {
        [1] = {.user = 0, .group = 0},
        [2] = {.user = 101, .group = 201},
        [3] = {.user = 102, .group = 204, .group_count = 2, .groups = groups},
        [4] = {.user = 101, .group = 201, .group_count = 2, .groups = groups + 1},
        [5] = {.user = 103, .group = 203, .group_count = 1, .groups = groups},
    };
    return number == 0 ? NULL : &all[number];
}

static bool host_wait(struct tx_host *host, uint32_t round) {
    (void)host;
    (void)round;
    return false;
}

struct client *client_new(struct world *world, uint32_t number) {
    struct client *client = calloc(1, sizeof(*client));
    ASSERT(client);
    client->host.wait = host_wait;
    client->world = world;
    client->random = &world->random;
    client->number = number;
    client->credentials = world->plan.users ? credentials_of(number) : NULL;
    if (number % 2 == 1) {
        client->name[0] = 'n';
        client->name[1] = (char)('0' + number / 2 % NAMES);
    }
    client->shop = number == 0 ? shop_new(world) : NULL;
    client->request = malloc(REQUEST_MAX);
    ASSERT(client->request);
    return client;
}

static void tx_drop(struct client *client) {
    if (client->tx) {
        tx_end(client->tx);
        client->tx = NULL;
    }
}

void client_free(struct client *client) {
    tx_drop(client);
    if (client->shop) {
        shop_free(client->shop);
    }
    free(client->request);
    free(client);
}

static bool chance(struct client *client, uint64_t percent) {
    return random_chance(client->random, percent, 100);
}

// ---- Places

// A region that exists, or (rarely) did or never will; 0 if there is none yet.
static uint32_t region_pick(struct client *client) {
    uint32_t found[MAPS_MAX];
    uint32_t count = 0;
    uint32_t shop = shop_region(client->world);
    for (uint32_t i = 2; i < MAPS_MAX; i++) {
        if (i != shop && model_region(client->world->model, i)->live) {
            found[count++] = i;
        }
    }
    if (count == 0) {
        return 0;
    }
    // Not the next number: its region may be under way, and the structures' own.
    uint32_t odd =
        chance(client, 50) ? REGION_NEVER : (uint32_t)random_between(client->random, 2, found[count - 1]);
    return chance(client, 2) && odd != shop ? odd : found[random_below(client->random, count)];
}

// An address in a region: mostly among few lines that everybody wants.
static uint64_t address_pick(struct client *client, uint32_t region, size_t size) {
    uint64_t limit = model_region(client->world->model, region)->size;
    uint64_t offset = random_below(client->random, 100) < 65 ? random_below(client->random, 8 * LINE_SIZE)
                                                             : random_below(client->random, limit + 1);
    if (offset + size > limit && limit >= size && !chance(client, 5)) {
        offset = limit - size;
    }
    return shelf_addr_make((shelf_region)region, offset);
}

// Words for operations lie apart, at the end of the third line: plain accesses there are rarer.
static uint64_t word_pick(struct client *client, uint32_t region) {
    uint64_t offset = chance(client, 80)
                          ? 12 * LINE_SIZE + 8 * random_below(client->random, 16)
                          : address_pick(client, region, 8) % ((uint64_t)1 << 48) & ~(uint64_t)7;
    return shelf_addr_make((shelf_region)region, offset);
}

static size_t size_pick(struct client *client) {
    uint64_t dice = random_below(client->random, 100);
    return (size_t)(dice < 50   ? 8
                    : dice < 90 ? random_between(client->random, 1, 150)
                                : random_between(client->random, 1, SPAN_MAX));
}

// ---- Submissions

static void submit(struct client *client, struct submission *submission) {
    world_submit(client->world, submission);
}

static struct submission *submit_new(struct client *client, const void *bytes, size_t size) {
    struct submission *submission =
        model_submission_new(client->world->model, client->number, client->credentials, bytes, size);
    client->recent[client->recent_count++ % RECENT_MAX] = submission;
    submit(client, submission);
    return submission;
}

// Opens a session and forgets it.
static void session_flood(struct client *client) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = REQUEST_SESSION_OPEN}};
    if (chance(client, 10)) { // a named one, not to be displaced before its time
        request.name[0] = 'f';
        request.name[1] = (char)('0' + random_below(client->random, 70));
        request.name[2] = (char)('0' + random_below(client->random, 70));
    }
    submit_new(client, &request, sizeof(request));
}

static void session_request(struct client *client, enum request_kind kind, uint64_t sequence) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = (uint16_t)kind},
                                      .session = client->session,
                                      .holder = client->holder,
                                      .sequence = sequence};
    if (kind == REQUEST_SESSION_OPEN) {
        request.session = request.holder = 0;
        memcpy(request.name, client->name, sizeof(request.name));
    }
    struct submission *submission = submit_new(client, &request, sizeof(request));
    if (kind == REQUEST_SESSION_OPEN && submission->state != SUBMISSION_ANSWERED) {
        client->opening = submission;
    }
}

// One of the ways in which it makes no sense.
static void region_spoil(struct client *client, struct region_request *request) {
    switch (random_below(client->random, 8)) {
    case 0:
        request->size = 0;
        break;
    case 1:
        request->size++;
        break;
    case 2:
        request->size = request->size_max + PAGE_SIZE;
        break;
    case 3:
        request->size_max = SHELF_REGION_BYTES_MAX + PAGE_SIZE;
        break;
    case 4:
        memset(request->name, chance(client, 50) ? 0 : 'x', sizeof(request->name));
        break;
    case 5:
        request->region = REGION_SYSTEM;
        break;
    case 6:
        request->region = (uint32_t)random_next(client->random);
        break;
    default:
        random_fill(client->random, &request->region,
                    sizeof(*request) - offsetof(struct region_request, region));
        break;
    }
}

// Owner, group and mode, for a creation (mostly open to all, or little would happen) or a change.
static void region_access_pick(struct client *client, struct region_request *request) {
    static const uint32_t owners[] = {SHELF_KEEP, 0, 101, 102};
    static const uint32_t shelf_groups[] = {SHELF_KEEP, 201, 202, 203};
    static const uint32_t modes[] = {0660, 0640, 0600, 0444, 0222, 0606, SHELF_KEEP, 01777};
    bool create = request->header.kind == REQUEST_REGION_CREATE;
    request->owner = owners[random_below(client->random, 4)];
    request->group = shelf_groups[random_below(client->random, 4)];
    request->mode = chance(client, create ? 70 : 40) ? 0666 : modes[random_below(client->random, 8)];
}

static void region_request(struct client *client, enum request_kind kind) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = (uint16_t)kind}};
    uint64_t pages_max = client->world->plan.region_pages_max;
    request.region = region_pick(client);
    request.size = random_between(client->random, 1, pages_max) * PAGE_SIZE;
    request.size_max = max_u64(request.size, pages_max * PAGE_SIZE);
    request.name[0] = 'r';
    request.name[1] = (char)('0' + random_below(client->random, REGION_NAMES));
    if (client->world->plan.users) {
        region_access_pick(client, &request);
    }
    if (chance(client, 12)) {
        region_spoil(client, &request);
    }
    submit_new(client, &request, sizeof(request));
}

// ---- Requests made by hand: writes that read nothing, lines as of any index, large ones, nonsense

struct builder {
    struct client *client;
    struct commit_request *head;
    size_t used;
};

static void *builder_take(struct builder *builder, size_t size) {
    ASSERT(builder->used + size <= REQUEST_MAX);
    void *piece = builder->client->request + builder->used;
    memset(piece, 0, size);
    builder->used += size;
    return piece;
}

static void build_lines(struct builder *builder, uint32_t region) {
    struct client *client = builder->client;
    uint32_t count = chance(client, 50) ? 0 : (uint32_t)random_between(client->random, 1, 5);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t *line = builder_take(builder, sizeof(*line));
        *line = address_pick(client, region, LINE_SIZE) >> LINE_SHIFT;
    }
    builder->head->line_count = count;
}

static void build_operations(struct builder *builder, uint32_t region) {
    struct client *client = builder->client;
    uint32_t count = chance(client, 60) ? 0 : (uint32_t)random_between(client->random, 1, 16);
    for (uint32_t i = 0; i < count; i++) {
        struct request_operation *operation = builder_take(builder, sizeof(*operation));
        operation->address = word_pick(client, region);
        operation->operand =
            chance(client, 50) ? random_below(client->random, 100) : random_next(client->random);
        operation->code = (uint32_t)random_between(client->random, OPERATION_ADD, OPERATION_OR);
    }
    builder->head->operation_count = count;
}

static void build_range(struct builder *builder, uint64_t address, size_t size) {
    struct record_range *range = builder_take(builder, sizeof(*range) + align_up(size, 8));
    range->address = address;
    range->size = (uint32_t)size;
    random_fill(builder->client->random, range + 1, size);
    builder->head->range_count++;
    builder->head->ranges_size += (uint32_t)(sizeof(*range) + align_up(size, 8));
}

// Spoils its counts and sizes.
static void spoil_head(struct client *client, struct commit_request *head, size_t *size) {
    switch (random_below(client->random, 8)) {
    case 0:
        head->header.size += 8;
        break;
    case 1:
        *size = random_below(client->random, *size);
        break;
    case 2:
        head->line_count = (uint32_t)random_next(client->random);
        break;
    case 3:
        head->operation_count = chance(client, 50) ? head->operation_count + 1 : UINT32_MAX;
        break;
    case 4:
        head->range_count += (uint32_t)random_between(client->random, 1, 3);
        break;
    case 5:
        head->ranges_size ^= (uint32_t)1 << random_below(client->random, 32);
        break;
    case 6:
        head->header.kind = (uint16_t)random_below(client->random, 12);
        break;
    default:
        random_fill(client->random, head, min_u64(*size, sizeof(*head)));
        break;
    }
}

// Spoils one of its lines, operations or ranges, or its index.
static void spoil_body(struct client *client, struct commit_request *head) {
    uint64_t *lines = (void *)(head + 1);
    struct request_operation *operations = (void *)(lines + head->line_count);
    struct record_range *range = (void *)(operations + head->operation_count);
    uint64_t which = random_below(client->random, 10);
    if (which < 3 && head->line_count > 0) {
        lines[0] = which == 0   ? (uint64_t)REGION_SYSTEM << (ADDRESS_OFFSET_BITS - LINE_SHIFT)
                   : which == 1 ? lines[0] + ((uint64_t)1 << 30)
                                : random_next(client->random);
    } else if (which < 6 && head->operation_count > 0) {
        operations[0].code = which == 3 ? 0 : which == 4 ? OPERATION_OR + 1 : operations[0].code;
        operations[0].address += which == 5 ? 4 : 0;
    } else if (which < 9 && head->range_count > 0) {
        range->size = which == 6 ? 0 : which == 7 ? range->size + 4096 : range->size;
        range->reserved = which == 8;
    } else if (which == 9) {
        head->sequence = 0;
    } else {
        head->index += 1000;
    }
}

static void raw_commit(struct client *client, bool spoiled) {
    uint32_t region = region_pick(client);
    if (region == 0) {
        return;
    }
    struct builder builder = {.client = client};
    builder.head = builder_take(&builder, sizeof(*builder.head));
    build_lines(&builder, region);
    build_operations(&builder, region);
    uint32_t count = (uint32_t)random_between(client->random, builder.head->operation_count ? 0 : 1, 5);
    bool large = random_chance(client->random, client->world->plan.large_chance, 1000);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t target = spoiled && chance(client, 20) ? REGION_SYSTEM
                          : chance(client, 80)          ? region
                                                        : region_pick(client);
        uint64_t limit = model_region(client->world->model, target)->size;
        size_t size = large && i == 0
                          ? random_between(client->random, 1, min_u64(max_u64(limit, 8), (size_t)400 << 10))
                          : size_pick(client);
        build_range(&builder, address_pick(client, target, size), size);
    }
    uint64_t applied = client->world->node.applied;
    builder.head->header = (struct request_header){.size = (uint32_t)builder.used, .kind = REQUEST_COMMIT};
    builder.head->session = client->session;
    builder.head->holder = client->holder;
    builder.head->sequence = ++client->sequence;
    builder.head->index =
        applied - min_u64(applied, chance(client, 70) ? 0 : random_below(client->random, 6));
    builder.head->epoch = client->world->node.epoch;
    size_t size = builder.used;
    if (spoiled && chance(client, 50)) {
        spoil_head(client, builder.head, &size);
    } else if (spoiled) {
        spoil_body(client, builder.head);
    }
    submit_new(client, client->request, size);
}

// ---- Transactions

static bool overlaps(const struct span *span, uint64_t address, size_t size) {
    return span->address < address + size && address < span->address + span->size;
}

static bool touches_operation(const struct client *client, uint64_t address, size_t size) {
    for (uint32_t i = 0; i < client->op_count; i++) {
        if (client->ops[i] < address + size && address < client->ops[i] + 8) {
            return true;
        }
    }
    return false;
}

static bool touches_write(const struct client *client, uint64_t address, size_t size) {
    for (uint32_t i = 0; i < client->write_count; i++) {
        if (overlaps(&client->writes[i], address, size)) {
            return true;
        }
    }
    return false;
}

// M7: all that was read so far is as of the transaction's present index.
static void reads_check(struct client *client) {
    uint64_t index = shelf_tx_index(client->tx);
    SIM_CHECK(index <= client->world->node.applied || index <= model_known(client->world->model),
              "client %u reads at %llu, which is not durable", client->number, (unsigned long long)index);
    if (index != client->tx_index && client->read_count > 0) {
        SOMETIMES(SIM_TX_INDEX_EXTENDED);
    }
    uint32_t first = index == client->tx_index && client->read_count > 0 ? client->read_count - 1 : 0;
    for (uint32_t i = first; i < client->read_count; i++) {
        const struct span *read = &client->reads[i];
        if (read->merged) {
            continue;
        }
        uint8_t right[SPAN_MAX];
        model_read(client->world->model, read->address, index, right, read->size);
        SIM_CHECK(memcmp(right, read->bytes, read->size) == 0,
                  "client %u read %zu bytes at %llx in a transaction at index %llu, and they are not as of "
                  "that index",
                  client->number, read->size, (unsigned long long)read->address, (unsigned long long)index);
    }
    client->tx_index = index;
}

static bool span_changed(const struct client *client, const struct span *span, uint64_t index) {
    for (uint64_t line = span->address >> LINE_SHIFT; line <= (span->address + span->size - 1) >> LINE_SHIFT;
         line++) {
        if (model_line_index(client->world->model, line, UINT64_MAX) > index) {
            return true;
        }
    }
    const struct model_region *region = model_region(client->world->model, shelf_addr_region(span->address));
    return !region->live || region->changed_index > index;
}

// A transaction failed: something that it read must have changed.
static void conflict_check(struct client *client, uint64_t address, size_t size, bool in_apply) {
    // In mid-apply the first lines of the very range may have been read before they changed.
    bool changed =
        in_apply && span_changed(client, &(struct span){.address = address, .size = size}, client->tx_index);
    for (uint32_t i = 0; i < client->read_count; i++) {
        changed |= span_changed(client, &client->reads[i], client->tx_index);
    }
    for (uint32_t i = 0; i < client->view_count; i++) {
        changed |= span_changed(client, &client->views[i], client->tx_index);
    }
    SIM_CHECK(changed,
              "client %u: its transaction at %llu failed with CONFLICT, but nothing that it read has changed",
              client->number, (unsigned long long)client->tx_index);
    SOMETIMES(SIM_TX_READ_CONFLICT);
}

static bool region_gone(const struct client *client, uint64_t address, size_t size) {
    uint32_t number = shelf_addr_region(address);
    const struct model_region *region = number < MAPS_MAX ? model_region(client->world->model, number) : NULL;
    uint64_t offset = shelf_addr_offset(address);
    return !region || !region->live || region->changed_index >= client->world->node.applied ||
           offset > region->size || size > region->size - offset;
}

// Judges what a call on a transaction returned. True if it is of use.
static bool call_check(struct client *client, shelf_result result, uint64_t address, size_t size,
                       bool in_apply) {
    switch (result) {
    case SHELF_OK:
        return true;
    case SHELF_CONFLICT:
        conflict_check(client, address, size, in_apply);
        tx_drop(client);
        return false;
    case SHELF_UNAVAILABLE:
        SIM_CHECK(in_apply, "client %u: UNAVAILABLE, but nothing is being written", client->number);
        return false;
    case SHELF_INVALID:
    case SHELF_NOT_FOUND:
        SIM_CHECK(region_gone(client, address, size) || touches_operation(client, address, size) ||
                      touches_write(client, address, size),
                  "client %u: %s for %zu bytes at %llx", client->number, shelf_result_name(result), size,
                  (unsigned long long)address);
        return false;
    default:
        sim_fail("client %u: %s from a transaction", client->number, shelf_result_name(result));
    }
}

static void tx_read(struct client *client, bool in_apply) {
    uint32_t region = region_pick(client);
    if (region == 0 || client->read_count == READS_MAX) {
        return;
    }
    struct span *read = &client->reads[client->read_count];
    read->size = size_pick(client);
    read->address = address_pick(client, region, read->size);
    shelf_result result = shelf_read(client->tx, read->address, read->bytes, read->size);
    if (!call_check(client, result, read->address, read->size, in_apply)) {
        if (client->tx) { // its first lines may have been read
            read->merged = true;
            client->read_count++;
        }
        return;
    }
    SIM_CHECK(!touches_operation(client, read->address, read->size),
              "client %u read a word that it has changed blindly", client->number);
    read->merged = touches_write(client, read->address, read->size);
    client->read_count++;
    if (read->merged) { // own writes on top of what is there
        uint8_t right[SPAN_MAX];
        model_read(client->world->model, read->address, shelf_tx_index(client->tx), right, read->size);
        for (uint32_t i = 0; i < client->write_count; i++) {
            const struct span *write = &client->writes[i];
            for (size_t b = 0; b < write->size; b++) {
                uint64_t at = write->address + b;
                if (at >= read->address && at < read->address + read->size) {
                    right[at - read->address] = write->bytes[b];
                }
            }
        }
        SIM_CHECK(memcmp(right, read->bytes, read->size) == 0,
                  "client %u does not read its own writes at %llx", client->number,
                  (unsigned long long)read->address);
    }
    reads_check(client);
}

static void tx_view(struct client *client) {
    uint32_t region = region_pick(client);
    if (region == 0 || client->view_count == VIEWS_MAX) {
        return;
    }
    struct span *view = &client->views[client->view_count];
    view->size = size_pick(client);
    view->address = address_pick(client, region, view->size);
    if (touches_write(client, view->address, view->size)) {
        return;
    }
    shelf_result result = shelf_view(client->tx, view->address, view->size, &view->view);
    if (call_check(client, result, view->address, view->size, false)) {
        client->view_count++;
    } else if (client->tx && client->read_count < READS_MAX) { // part of it may have been read
        struct span *read = &client->reads[client->read_count++];
        read->address = view->address;
        read->size = view->size;
        read->merged = true;
    }
}

static bool views_check(struct client *client) {
    shelf_result result = shelf_check(client->tx);
    if (!call_check(client, result, 0, 0, false)) {
        return false;
    }
    reads_check(client);
    for (uint32_t i = 0; i < client->view_count; i++) {
        const struct span *view = &client->views[i];
        uint8_t right[SPAN_MAX];
        model_read(client->world->model, view->address, shelf_tx_index(client->tx), right, view->size);
        SIM_CHECK(touches_write(client, view->address, view->size) ||
                      touches_operation(client, view->address, view->size) ||
                      memcmp(right, view->view, view->size) == 0,
                  "client %u: shelf_check() is content with a view that is not as of index %llu",
                  client->number, (unsigned long long)shelf_tx_index(client->tx));
    }
    return true;
}

static void tx_write(struct client *client) {
    uint32_t region = region_pick(client);
    if (region == 0 || client->write_count == WRITES_MAX) {
        return;
    }
    struct span *write = &client->writes[client->write_count];
    write->size = size_pick(client);
    write->address = address_pick(client, region, write->size);
    random_fill(client->random, write->bytes, write->size);
    shelf_result result = shelf_write(client->tx, write->address, write->bytes, write->size);
    if (call_check(client, result, write->address, write->size, false)) {
        client->write_count++;
    }
}

static void tx_operation(struct client *client) {
    typedef shelf_result operation_call(shelf_tx *, shelf_addr, uint64_t);
    static operation_call *const calls[] = {shelf_add, shelf_min, shelf_max, shelf_and, shelf_or};
    uint32_t region = region_pick(client);
    if (region == 0 || client->op_count == OPS_MAX) {
        return;
    }
    uint64_t word = word_pick(client, region);
    for (uint32_t i = 0; i < client->read_count; i++) {
        if (overlaps(&client->reads[i], word, 8)) {
            return; // not both
        }
    }
    uint64_t operand = random_below(client->random, 1000);
    shelf_result result = calls[random_below(client->random, ARRAY_COUNT(calls))](client->tx, word, operand);
    for (uint32_t i = 0; result == SHELF_INVALID && i < client->view_count; i++) {
        if (overlaps(&client->views[i], word, 8)) {
            return;
        }
    }
    if (call_check(client, result, word, 8, false)) {
        client->ops[client->op_count++] = word;
    }
}

static void tx_start(struct client *client) {
    atomic_store(&client->host.replica, &client->world->replica);
    client->tx_read_only = chance(client, 25);
    client->read_count = client->write_count = client->op_count = client->view_count = 0;
    client->tx_calls_left = (uint32_t)random_between(client->random, 1, 14);
    shelf_result result =
        tx_begin(&client->host, client->tx_read_only ? SHELF_READ_ONLY : SHELF_READ_WRITE, &client->tx);
    SIM_CHECK(result == SHELF_OK, "begin: %s", shelf_result_name(result));
    client->tx_index = shelf_tx_index(client->tx);
}

static void tx_commit(struct client *client) {
    if (client->view_count > 0 && !views_check(client)) {
        return;
    }
    reads_check(client);
    if (client->tx_read_only || !tx_has_effects(client->tx)) {
        tx_drop(client);
        return;
    }
    const struct commit_request *request;
    shelf_result result =
        tx_encode(client->tx, client->session, client->holder, client->sequence + 1, &request);
    SIM_CHECK(result == SHELF_OK, "encode: %s", shelf_result_name(result));
    client->sequence++;
    submit_new(client, request, request->header.size);
    tx_drop(client);
}

static void tx_step(struct client *client) {
    if (!client->tx) {
        tx_start(client);
        return;
    }
    if (client->tx_calls_left-- == 0) {
        if (chance(client, 8)) {
            reads_check(client);
            tx_drop(client);
        } else {
            tx_commit(client);
        }
        return;
    }
    uint64_t dice = random_below(client->random, 100);
    if (dice < 55 || client->tx_read_only) {
        if (dice % 10 == 0) {
            tx_view(client);
        } else {
            tx_read(client, false);
        }
    } else if (dice < 85) {
        tx_write(client);
    } else {
        tx_operation(client);
    }
}

void client_interleave(struct client *client) {
    if (client->tx && client->tx_calls_left > 0) {
        SOMETIMES(SIM_READ_IN_MID_APPLY);
        tx_read(client, true);
    }
}

// ---- Retries, sessions

static struct submission *recent_pick(struct client *client) {
    uint32_t count = client->recent_count < RECENT_MAX ? client->recent_count : RECENT_MAX;
    return count == 0 ? NULL : client->recent[random_below(client->random, count)];
}

static void retry(struct client *client) {
    struct submission *submission = recent_pick(client);
    if (!submission || submission->attempts >= ATTEMPTS_MAX - 1 || submission == client->opening) {
        return;
    }
    if (submission->state == SUBMISSION_LOST) {
        SOMETIMES(SIM_RETRY_AFTER_CRASH);
    }
    submit(client, submission);
}

static void outcome(struct client *client) {
    uint64_t sequence = client->sequence + random_below(client->random, 2);
    struct submission *submission = recent_pick(client);
    if (submission && submission->session == client->session && chance(client, 70)) {
        sequence = submission->sequence;
    } else if (chance(client, 30)) {
        sequence = random_below(client->random, client->sequence + 3);
    }
    session_request(client, REQUEST_SESSION_OUTCOME, sequence);
}

static bool refused_again(struct client *client) {
    for (uint32_t i = 0; i < RECENT_MAX; i++) {
        struct submission *submission = client->recent[i];
        if (submission && submission->state == SUBMISSION_REFUSED) {
            submit(client, submission);
            return true;
        }
    }
    return false;
}

static bool waits(const struct submission *submission) {
    return submission && (submission->state == SUBMISSION_PENDING || submission->state == SUBMISSION_REFUSED);
}

bool client_waits(const struct client *client) {
    for (uint32_t i = 0; i < RECENT_MAX; i++) {
        if (waits(client->recent[i])) {
            return true;
        }
    }
    return false;
}

static bool region_exists(struct client *client) {
    uint32_t shop = shop_region(client->world);
    for (uint32_t i = 2; i < MAPS_MAX; i++) {
        if (i != shop && model_region(client->world->model, i)->live) {
            return true;
        }
    }
    return false;
}

// The region for the structures, then transactions on them.
static void shop_act(struct client *client) {
    atomic_store(&client->host.replica, &client->world->replica);
    if (shop_region(client->world) == 0) {
        struct region_request request = {.header = {.size = sizeof(request), .kind = REQUEST_REGION_CREATE},
                                         .size = SHOP_REGION_PAGES * PAGE_SIZE,
                                         .size_max = SHOP_REGION_PAGES * PAGE_SIZE,
                                         .name = SHOP_REGION_NAME};
        submit_new(client, &request, sizeof(request));
        return;
    }
    const struct commit_request *request =
        shop_step(client->shop, &client->host, client->session, client->holder, client->sequence + 1);
    if (request) {
        client->sequence++;
        shop_submitted(client->shop, submit_new(client, request, request->header.size));
    }
}

void client_check(struct client *client) {
    if (client->shop) {
        atomic_store(&client->host.replica, &client->world->replica);
        shop_check(client->shop, &client->host);
    }
}

// A named session of somebody else.
static void session_steal(struct client *client) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = REQUEST_SESSION_OPEN}};
    request.name[0] = 'n';
    request.name[1] = (char)('0' + random_below(client->random, NAMES));
    submit_new(client, &request, sizeof(request));
}

static void act_rarely(struct client *client) {
    if (client->world->plan.users && chance(client, 30)) {
        if (chance(client, 50)) {
            region_request(client, REQUEST_REGION_ACCESS);
        } else {
            session_steal(client);
        }
        return;
    }
    switch (random_below(client->random, 8)) {
    case 0:
        session_request(client, REQUEST_SESSION_OPEN, 0); // resumes a named one, and fences itself or another
        break;
    case 1:
        session_request(client, REQUEST_SESSION_EXPIRE, 0);
        break;
    case 2:
        client->sequence += random_below(client->random, 100); // leaves a gap
        break;
    case 3:
        client->sequence -=
            min_u64(client->sequence, random_below(client->random, 100)); // goes below its window
        break;
    case 4: // a session that is not its own
        client->session ^= random_below(client->random, 4);
        break;
    default:
        raw_commit(client, true);
        break;
    }
}

void client_act(struct client *client, bool draining) {
    if (refused_again(client) || draining || waits(client->recent[client->recent_count % RECENT_MAX])) {
        return;
    }
    if (!client->world->node.opened) {
        retry(client); // too early: it must be told so
        return;
    }
    if (client->session == 0) {
        if (!client->opening) {
            session_request(client, REQUEST_SESSION_OPEN, 0);
        }
        return;
    }
    if (random_chance(client->random, client->world->plan.flood_chance, 1000)) {
        session_flood(client);
        return;
    }
    if (!region_exists(client) || random_chance(client->random, client->world->plan.region_chance, 1000)) {
        uint64_t dice = random_below(client->random, 10);
        region_request(client, dice < 5 || !region_exists(client) ? REQUEST_REGION_CREATE
                               : dice < 8                         ? REQUEST_REGION_GROW
                                                                  : REQUEST_REGION_DROP);
        return;
    }
    if (client->shop && random_chance(client->random, client->world->plan.shop_chance, 1000)) {
        shop_act(client);
        return;
    }
    uint64_t dice = random_below(client->random, 100);
    if (dice < 62) {
        tx_step(client);
    } else if (dice < 84) {
        raw_commit(client, false);
    } else if (dice < 92) {
        retry(client);
    } else if (dice < 96) {
        outcome(client);
    } else {
        act_rarely(client);
    }
}

void client_on_reply(struct client *client, struct submission *submission, const struct reply *reply) {
    if (reply->result == SHELF_OK && reply->receipt.replayed) {
        SOMETIMES(SIM_RETRY_COMMITTED_BEFORE);
    }
    const struct request_header *header = (const void *)submission->bytes;
    bool opens = submission->size >= sizeof(*header) && header->kind == REQUEST_SESSION_OPEN;
    if (opens && submission != client->opening) {
        return; // of a flood, or asked for by act_rarely() and answered late
    }
    if (opens) {
        client->opening = client->opening == submission ? NULL : client->opening;
        if (reply->result == SHELF_OK && submission->size == sizeof(struct session_request)) {
            client->session = reply->session;
            client->holder = reply->holder;
            client->sequence = reply->session_last;
        }
    } else if ((reply->result == SHELF_FENCED || reply->result == SHELF_EXPIRED ||
                reply->reason == REASON_SESSION_DENIED) &&
               submission->session == client->session && random_chance(client->random, 2, 3)) {
        client->session = 0;
    }
}

void client_on_crash(struct client *client) {
    tx_drop(client);
    if (client->shop) {
        shop_drop(client->shop);
    }
    client->opening = NULL;
}
