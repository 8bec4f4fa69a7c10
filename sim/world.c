// SPDX-License-Identifier: Apache-2.0
//
// See world.h. One step of the world is: an io is carried out and answered, or time passes, or a client does something, or
// something breaks. Everything is decided by one seeded generator, so a seed is a run.

#include "world.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/hash.h"
#include "base/mutant.h"
#include "base/sometimes.h"
#include "client.h"
#include "report.h"

#define CHECKPOINT_TOKEN ((uint64_t)1 << 63)
#define DRAIN_STEPS_MAX  200000u

static bool chance(struct world *world, uint64_t per_1000) {
    return per_1000 > 0 && random_chance(&world->random, per_1000, 1000);
}

// ---- Memory

static void node_free(struct world *world) {
    for (size_t i = 0; i < MAPS_MAX; i++) {
        map_free(&world->maps[i]);
    }
    for (size_t i = 0; i < world->map_old_count; i++) {
        map_free(&world->maps_old[i]);
    }
    world->map_old_count = 0;
    if (world->memory) {
        pages_give(world->memory, world->memory_size);
        pages_give(world->image, sizeof(struct image));
        pages_give(world->maps_readers, REGION_NUMBERS * sizeof(struct region_map));
    }
    world->memory = NULL;
    world->core = NULL;
    world->image = NULL;
    world->flight_count = 0;
}

// ---- Checks between steps

static uint64_t image_applied(const struct world *world) {
    return atomic_load_explicit(&world->image->applied, memory_order_relaxed);
}

// One line of the image: its bytes and version are those of the model at the applied index.
static void line_check(const struct world *world, uint32_t number, uint64_t place) {
    const struct map *map = &world->maps[number];
    const struct region_view *view = &world->image->regions[number];
    uint64_t applied = image_applied(world);
    uint64_t line = shelf_addr_make((shelf_region)number, place * LINE_SIZE) >> LINE_SHIFT;
    uint64_t word = atomic_load_explicit(&map->memory.versions[place], memory_order_relaxed);
    uint64_t floor = atomic_load_explicit(&view->floor, memory_order_relaxed);
    uint64_t right = model_line_index(world->model, line, applied);
    SIM_CHECK((word & VERSION_WRITING) == 0,
              "region %u line %llu is marked as being written between two steps", number,
              (unsigned long long)place);
    SIM_CHECK(version_index(word) <= applied, "region %u line %llu has version %llu, applied is %llu", number,
              (unsigned long long)place, (unsigned long long)version_index(word),
              (unsigned long long)applied);
    if (number != REGION_SYSTEM) {
        SIM_CHECK(floor <= applied, "region %u has floor %llu, applied is %llu", number,
                  (unsigned long long)floor, (unsigned long long)applied);
        SIM_CHECK(max_u64(version_index(word), floor) == max_u64(right, floor),
                  "region %u line %llu has version %llu, floor %llu, but changed last in record %llu", number,
                  (unsigned long long)place, (unsigned long long)version_index(word),
                  (unsigned long long)floor, (unsigned long long)right);
    }
    uint8_t bytes[LINE_SIZE];
    model_read(world->model, line << LINE_SHIFT, applied, bytes, sizeof(bytes));
    SIM_CHECK(memcmp(bytes, map->memory.data + place * LINE_SIZE, sizeof(bytes)) == 0,
              "region %u line %llu of the image differs from the log replayed up to %llu", number,
              (unsigned long long)place, (unsigned long long)applied);
}

// I5 of wire/image.h.
static void page_check(const struct world *world, uint32_t number, uint64_t page) {
    const struct region_memory *memory = &world->maps[number].memory;
    uint64_t word = atomic_load_explicit(&memory->page_versions[page], memory_order_relaxed);
    uint64_t newest = 0;
    for (uint64_t i = 0; i < LINES_PER_PAGE; i++) {
        newest = max_u64(
            newest, atomic_load_explicit(&memory->versions[page * LINES_PER_PAGE + i], memory_order_relaxed));
    }
    SIM_CHECK(word == newest, "region %u page %llu has version word %llu, but its newest line %llu", number,
              (unsigned long long)page, (unsigned long long)word, (unsigned long long)newest);
}

void world_image_check(const struct world *world) {
    for (uint32_t number = 2; number < MAPS_MAX; number++) {
        const struct model_region *region = model_region(world->model, number);
        const struct region_view *view = &world->image->regions[number];
        uint32_t state = atomic_load_explicit(&view->state, memory_order_relaxed);
        if (region->changed_index > image_applied(world)) {
            continue; // is about to change
        }
        SIM_CHECK((state == REGION_LIVE) == region->live,
                  "region %u is %s, but in the image it is in state %u", number,
                  region->live ? "live" : "not live", state);
        if (!region->live) {
            continue;
        }
        uint64_t size = atomic_load_explicit(&view->size, memory_order_relaxed);
        SIM_CHECK(size == region->size && world->maps[number].size >= size,
                  "region %u has %llu bytes in the image, not %llu", number, (unsigned long long)size,
                  (unsigned long long)region->size);
        for (uint64_t place = 0; place < size / LINE_SIZE; place++) {
            line_check(world, number, place);
        }
        for (uint64_t page = 0; page < size / PAGE_SIZE; page++) {
            page_check(world, number, page);
        }
    }
    for (uint64_t page = 0; page < SYSTEM_REGION_BYTES / PAGE_SIZE; page++) {
        for (uint64_t i = 0; model_page_changed(world->model, REGION_SYSTEM, page) && i < LINES_PER_PAGE;
             i++) {
            line_check(world, REGION_SYSTEM, page * LINES_PER_PAGE + i);
        }
    }
}

static void step_check(struct world *world) {
    uint64_t applied = image_applied(world);
    uint64_t known = model_known(world->model);
    SIM_CHECK(applied >= world->node.applied, "applied went back from %llu to %llu",
              (unsigned long long)world->node.applied, (unsigned long long)applied);
    SIM_CHECK(applied <= known || !world->node.opened, "record %llu is applied, but only %llu are durable",
              (unsigned long long)applied, (unsigned long long)known);
    bool moved = applied != world->node.applied;
    world->node.applied = applied;
    struct core_status status;
    core_status_get(world->core, &status);
    SIM_CHECK(
        !world->node.opened || status.stopped || (status.applied == applied && status.checkpoint <= applied),
        "the status says applied %llu, checkpoint %llu; applied is %llu", (unsigned long long)status.applied,
        (unsigned long long)status.checkpoint, (unsigned long long)applied);
    if (status.no_space) {
        world->node.no_space_step = report.step;
    }
    const uint64_t *lines;
    size_t count = model_lines_changed(world->model, &lines);
    for (size_t i = 0; world->node.opened && moved && applied == known && i < count && i < 256; i++) {
        uint32_t number = (uint32_t)(lines[i] >> (ADDRESS_OFFSET_BITS - LINE_SHIFT));
        if (number == REGION_SYSTEM || model_region(world->model, number)->live) {
            line_check(world, number, shelf_addr_offset(lines[i] << LINE_SHIFT) / LINE_SIZE);
        }
    }
}

// ---- Events

const char *world_file_name(struct file_id id) {
    static const char *const names[] = {"?", "superblock", "log", "hint", "roots", "table", "pages"};
    return id.kind < ARRAY_COUNT(names) ? names[id.kind] : names[0];
}

static const char *io_name(uint32_t kind) {
    static const char *const names[] = {"?",       "read",   "write", "sync",  "reserve",   "length",
                                        "publish", "remove", "map",   "unmap", "swap-epoch"};
    return kind < ARRAY_COUNT(names) ? names[kind] : names[0];
}

static void io_trace(const struct io *io, const char *what) {
    if (report.hidden) {
        return;
    }
    sim_trace("%s %s %s.%u.%c %llu+%llu%s", what, io_name(io->kind), world_file_name(io->file),
              io->file.region, io->file.slot ? 'b' : 'a', (unsigned long long)io->offset,
              (unsigned long long)io->size, io->durable ? " durable" : "");
}

// The index of the record that a write to the log carries; 0: none.
static uint64_t write_index(const struct world *world, const struct io *io) {
    uint64_t offset = 0;
    const struct segment_header *segment = io->buffer;
    if (io->file.kind != FILE_LOG || io->size < sizeof(struct record_header)) {
        return 0;
    }
    if (segment->magic == SEGMENT_MAGIC && io->size > model_alignment(world->model)) {
        offset = model_alignment(world->model);
    }
    const struct record_header *record = (const void *)((const uint8_t *)io->buffer + offset);
    return record->magic == RECORD_MAGIC ? record->index : 0;
}

// The last record was damaged, cannot be told from a tear, and another one takes its place.
static void tail_cut_check(struct world *world, const struct io *io) {
    uint64_t known = model_known(world->model);
    if (world->damaged_record == 0 || world->damaged_record != known || world->node.opened ||
        audit_hint(world->audit) >= known || write_index(world, io) != known) {
        return;
    }
    sim_trace("the damaged last record %llu is cut: outside of the promise", (unsigned long long)known);
    model_last_record_forgotten(world->model);
    world->damaged_record = 0;
}

static void flight_add(struct world *world, struct io *io) {
    ASSERT(world->flight_count < FLIGHTS_MAX);
    for (uint32_t i = 0; i < world->flight_count; i++) {
        SIM_CHECK(world->flights[i].io != io, "an io is issued while it is under way");
    }
    struct flight *flight = &world->flights[world->flight_count++];
    *flight = (struct flight){.io = io, .stamp = world->stamp++};
    if (io->kind == IO_WRITE) {
        SIM_CHECK(io->offset % SECTOR_SIZE == 0 && io->size % SECTOR_SIZE == 0 && io->size > 0,
                  "a write of %llu bytes at %llu is not aligned", (unsigned long long)io->size,
                  (unsigned long long)io->offset);
        flight->digest = hash_bytes(0, io->buffer, io->size);
        tail_cut_check(world, io);
        audit_write(world->audit, io->file, io->offset, io->buffer, io->size);
    }
}

static void on_checkpoint_reply(struct world *world, const struct reply *reply) {
    SIM_CHECK(reply->result != SHELF_OK || reply->receipt.index <= audit_index(world->audit) ||
                  world->damaged,
              "a checkpoint at %llu was reported, but the durable one is of %llu",
              (unsigned long long)reply->receipt.index, (unsigned long long)audit_index(world->audit));
    sim_trace("checkpoint asked for: %s %llu", shelf_result_name((shelf_result)reply->result),
              (unsigned long long)reply->receipt.index);
}

static void on_reply(struct world *world, const struct reply *reply) {
    if (reply->token & CHECKPOINT_TOKEN) {
        on_checkpoint_reply(world, reply);
        return;
    }
    struct submission *submission = model_submission_of(world->model, reply->token);
    SIM_CHECK(submission, "an answer to token %llu, which nobody submitted",
              (unsigned long long)reply->token);
    sim_trace("client %u: request %llu (%llx.%llu): %s, index %llu%s", submission->client,
              (unsigned long long)submission->number, (unsigned long long)submission->session,
              (unsigned long long)submission->sequence, shelf_result_name((shelf_result)reply->result),
              (unsigned long long)reply->receipt.index, reply->receipt.replayed ? ", replayed" : "");
    model_answered(world->model, submission, reply);
    client_on_reply(world->clients[submission->client], submission, reply);
}

static void on_opened(struct world *world) {
    SIM_CHECK(!world->node.opened, "opened twice");
    size_t size; // nothing depends on it any more: what is in it now would be noticed
    void *memory = core_recovery_memory(world->core, &size);
    memset(memory, 0xa5, size);
    uint64_t known = model_known(world->model);
    SIM_CHECK(image_applied(world) == known, "opened at %llu, but record %llu is durable",
              (unsigned long long)image_applied(world), (unsigned long long)known);
    world->node.opened = true;
    if (world->life == 2) {
        world->io_number_recovery = world->io_number;
    }
    world->node.floor = known;
    model_node_opened(world->model);
    world_image_check(world);
    for (uint32_t i = 0; i < world->plan.clients; i++) {
        client_check(world->clients[i]);
    }
    sim_trace("opened: life %u at %llu", world->life, (unsigned long long)known);
}

static bool world_event(struct world *world, struct event *event) {
    struct effects effects;
    report.step++;
    event->now_ms = world->now_ms;
    event->hold_record = world->faults_on && chance(world, world->plan.hold_chance);
    event->defer_apply = world->faults_on && chance(world, world->plan.defer_chance);
    core_step(world->core, event, &effects);
    world->apply_due = effects.apply_due;
    bool stopped_before = world->node.stopped;
    world->node.stopped = effects.stopped;
    step_check(world);
    for (uint32_t i = 0; i < effects.io_count; i++) {
        SIM_CHECK(!effects.stopped || !stopped_before, "the node has stopped, but asks for ios");
        flight_add(world, effects.ios[i]);
    }
    for (uint32_t i = 0; i < effects.reply_count; i++) {
        on_reply(world, &effects.replies[i]);
    }
    if (effects.opened) {
        on_opened(world);
    }
    world->closed = effects.closed;
    SIM_CHECK(!world->eio_given || effects.stopped, "the disk reported an error, but the node goes on");
    return effects.refused;
}

bool world_submit(struct world *world, struct submission *submission) {
    model_submitted(world->model, submission);
    struct event event = {.kind = EVENT_SUBMIT,
                          .request = submission->bytes,
                          .request_size = submission->size,
                          .token = submission_token(submission),
                          .credentials = submission->credentials};
    sim_trace("client %u: submits request %llu, attempt %u (%llx.%llu)", submission->client,
              (unsigned long long)submission->number, submission->attempts,
              (unsigned long long)submission->session, (unsigned long long)submission->sequence);
    bool refused = world_event(world, &event);
    if (refused) {
        model_refused(submission);
    }
    return !refused;
}

void world_checkpoint(struct world *world) {
    struct event event = {.kind = EVENT_CHECKPOINT, .token = CHECKPOINT_TOKEN | world->checkpoint_tokens++};
    sim_trace("a checkpoint is asked for");
    world_event(world, &event);
}

// ---- Ios

// The pointers stay readable until the node ends.
static void io_unmap(struct world *world, const struct io *io) {
    ASSERT(world->map_old_count < MAPS_MAX);
    SIM_CHECK(io->file.region < MAPS_MAX && world->maps[io->file.region].memory.data,
              "region %u has no memory to give back", io->file.region);
    world->maps_old[world->map_old_count++] = world->maps[io->file.region];
    world->maps[io->file.region] = (struct map){0};
}

static void io_swap_epoch(struct world *world, struct io *io) {
    if (world->node.epoch < io->epoch) {
        world->node.epoch = io->epoch;
        io->result = IO_RESULT_OK;
    } else {
        io->result = IO_RESULT_CONFLICT;
        io->epoch = world->node.epoch;
    }
}

// A write goes astray: reported as done, but the bytes are elsewhere in the file.
static void write_misdirect(struct world *world, const struct io *io) {
    uint64_t length = disk_length(world->disk, io->file);
    uint8_t *old = malloc(io->size);
    ASSERT(old);
    disk_read(world->disk, io->file, io->offset, old, io->size);
    disk_write(world->disk, io->file, io->offset, io->buffer, io->size, io->durable, world->stamp);
    model_follow(world->model); // what the node may believe
    uint64_t target = random_below(&world->random, length / SECTOR_SIZE + 1) * SECTOR_SIZE;
    if (io->kind == FILE_LOG || target < io->offset + io->size) {
        target = io->offset + io->size; // at least not over itself
    }
    if (audit_needs(world->audit, io->file, target, io->size)) {
        audit_off(world->audit);
    }
    disk_write(world->disk, io->file, io->offset, old, io->size, io->durable, world->stamp);
    disk_write(world->disk, io->file, target, io->buffer, io->size, io->durable, world->stamp);
    free(old);
    const struct model_position *last = model_position(world->model, model_known(world->model));
    if (io->file.kind == FILE_LOG && last && last->offset >= io->offset &&
        last->offset < io->offset + io->size) {
        world->damaged_record = last->index;
    }
    world->damaged = true;
    SOMETIMES(SIM_FAULT_MISDIRECTED);
    sim_trace("misdirected to %llu", (unsigned long long)target);
}

static bool misdirect_now(struct world *world, const struct io *io) {
    bool target = io->file.kind == FILE_LOG || io->file.kind == FILE_PAGES || io->file.kind == FILE_TABLE;
    bool record = io->file.kind != FILE_LOG || io->durable; // zeros that go astray are another fault
    return world->faults_on && !world->damaged && target && record && world->node.opened &&
           chance(world, world->plan.misdirect_chance);
}

static void io_write(struct world *world, const struct flight *flight) {
    struct io *io = flight->io;
    SIM_CHECK(hash_bytes(0, io->buffer, io->size) == flight->digest,
              "the bytes of a write changed while it was under way");
    if (world->no_space && chance(world, world->no_space_writes)) {
        io->result = IO_RESULT_NO_SPACE;
        world->node.no_space_step = report.step;
        if (io->file.kind != FILE_LOG || io->durable) {
            disk_write_torn(world->disk, &world->random, io->file, io->offset, io->buffer, io->size,
                            world->stamp);
        }
    } else if (misdirect_now(world, io)) {
        write_misdirect(world, io);
    } else {
        disk_write(world->disk, io->file, io->offset, io->buffer, io->size, io->durable, world->stamp);
    }
}

// Does what an io asks for, or fails it.
static void io_perform(struct world *world, const struct flight *flight) {
    struct io *io = flight->io;
    io->result = IO_RESULT_OK;
    bool device = io->kind <= IO_REMOVE;
    if (world->faults_on && device && chance(world, world->plan.eio_chance)) {
        io->result = IO_RESULT_ERROR;
        world->eio_given = true;
        SOMETIMES(SIM_FAULT_EIO);
        if (io->kind == IO_WRITE) {
            disk_write_torn(world->disk, &world->random, io->file, io->offset, io->buffer, io->size,
                            world->stamp);
        }
        return;
    }
    switch ((enum io_kind)io->kind) {
    case IO_WRITE:
        io_write(world, flight);
        break;
    case IO_RESERVE:
        if (world->no_space && io->size > disk_length(world->disk, io->file)) {
            io->result = IO_RESULT_NO_SPACE;
            world->node.no_space_step = report.step;
        } else {
            disk_io(world->disk, io, flight->stamp, world->stamp);
        }
        break;
    case IO_READ:
    case IO_SYNC:
    case IO_LENGTH:
    case IO_PUBLISH:
    case IO_REMOVE:
        disk_io(world->disk, io, flight->stamp, world->stamp);
        break;
    case IO_MAP:
        if (world->faults_on && chance(world, world->plan.no_memory_chance)) {
            io->result = IO_RESULT_NO_MEMORY;
            world->node.no_memory_step = report.step;
        } else {
            map_io(world->maps, MAPS_MAX, io);
        }
        break;
    case IO_UNMAP:
        io_unmap(world, io);
        break;
    case IO_SWAP_EPOCH:
        io_swap_epoch(world, io);
        break;
    }
}

static void after_io(struct world *world, const struct io *io) {
    if (io->file.kind == FILE_LOG && io->kind != IO_READ) {
        model_follow(world->model);
    }
    if (io->file.kind == FILE_SUPERBLOCK && io->kind != IO_READ) {
        audit_look(world->audit);
    }
}

// An io that was under way when the node died.
static void io_perform_partly(struct world *world, const struct flight *flight, bool nothing) {
    struct io *io = flight->io;
    if (nothing) {
        return;
    }
    if (io->kind == IO_WRITE) {
        uint32_t sectors = disk_write_torn(world->disk, &world->random, io->file, io->offset, io->buffer,
                                           io->size, world->stamp++);
        if (io->file.kind == FILE_LOG && io->durable && sectors > 0 && sectors < io->size / SECTOR_SIZE) {
            SOMETIMES(SIM_CRASH_TORN_LOG_WRITE);
        }
    } else if (random_chance(&world->random, 1, 2)) {
        if (io->kind == IO_SWAP_EPOCH) {
            io_swap_epoch(world, io);
        } else if (disk_io_changes(io)) {
            disk_io(world->disk, io, flight->stamp, world->stamp);
        }
    }
}

// ---- Life and death

void world_start(struct world *world) {
    struct core_config *config = &world->config;
    config->create = !disk_published(world->disk);
    random_fill(&world->random, config->shelf_id, sizeof(config->shelf_id));
    random_fill(&world->random, config->incarnation, sizeof(config->incarnation));
    world->memory_size = core_size(config);
    world->memory = pages_take(world->memory_size);
    world->image = pages_take(sizeof(struct image));
    world->maps_readers = pages_take(REGION_NUMBERS * sizeof(struct region_map));
    world->core = core_init(world->memory, config, world->image, world->maps_readers);
    world->replica = (struct replica){.image = world->image, .maps = world->maps_readers};
    world->life++;
    world->node.opened = world->node.stopped = world->node.closing = false;
    world->node.applied = 0;
    world->node.life_step = report.step;
    world->eio_given = world->closed = world->crash_wanted = false;
    world->io_number = 0;
    sim_trace("life %u begins%s", world->life, config->create ? ": a new shelf" : "");
    struct event event = {.kind = EVENT_START};
    world_event(world, &event);
}

static void node_gone(struct world *world) {
    for (uint32_t i = 0; i < world->plan.clients; i++) {
        client_on_crash(world->clients[i]);
    }
    model_node_died(world->model);
    node_free(world);
}

static void crash_notice(const struct world *world, bool power) {
    struct core_status status;
    core_status_get(world->core, &status);
    if (power) {
        SOMETIMES(SIM_CRASH_POWER);
    } else {
        SOMETIMES(SIM_CRASH_PROCESS);
    }
    if (status.checkpoint_active) {
        SOMETIMES(SIM_CRASH_DURING_CHECKPOINT);
    }
    if (!world->node.opened && world->life > 1) {
        SOMETIMES(SIM_CRASH_DURING_RECOVERY);
    }
}

// The flight whose fate is not left to chance comes as `spared`.
void world_crash(struct world *world, bool power, const struct io *spared) {
    crash_notice(world, power);
    world->crashes++;
    for (uint32_t i = 0; i < world->flight_count; i++) {
        io_perform_partly(world, &world->flights[i], world->flights[i].io == spared);
    }
    uint32_t lost = power ? disk_power_cut(world->disk, &world->random) : 0;
    if (lost > 0) {
        SOMETIMES(SIM_CRASH_LOST_UNSYNCED);
    }
    sim_trace("%s; %u ios under way, %u unsynced sectors lost", power ? "power cut" : "kill",
              world->flight_count, lost);
    model_follow(world->model);
    audit_look(world->audit);
    node_gone(world);
}

static void fault_check(struct world *world) {
    const struct core_fault *fault = core_fault_get(world->core);
    SIM_CHECK(fault && fault->what && fault->reason, "the node stopped and does not say why");
    sim_trace("stopped: %s, %s: %s", shelf_result_name(fault->result), fault->what, fault->reason);
    bool right = false;
    switch (fault->result) {
    case SHELF_IO:
        right = world->eio_given ||
                (world->damaged && !world->damage_must_heal); // what was written reads back wrong
        break;
    case SHELF_CORRUPT:
        right = world->damaged && !world->damage_must_heal;
        world->over = true;
        break;
    case SHELF_NO_SPACE:
        right = !world->node.opened && world->node.no_space_step >= world->node.life_step;
        break;
    case SHELF_NO_MEMORY:
        right = !world->node.opened && world->node.no_memory_step >= world->node.life_step;
        break;
    default:
        break;
    }
    SIM_CHECK(right, "the node stopped without a cause: %s, %s: %s (offset %llu, index %llu)",
              shelf_result_name(fault->result), fault->what, fault->reason, (unsigned long long)fault->offset,
              (unsigned long long)fault->index);
}

// ---- Rot

// Are all four copies whole, in the cache as on the disk?
static bool superblocks_same(const struct world *world) {
    const struct file_id id = {.kind = FILE_SUPERBLOCK};
    uint8_t first[SUPERBLOCK_SIZE];
    disk_read(world->disk, id, 0, first, sizeof(first));
    bool same = true;
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        uint8_t copies[2][SUPERBLOCK_SIZE];
        disk_read(world->disk, id, i * SUPERBLOCK_SIZE, copies[0], SUPERBLOCK_SIZE);
        disk_read_durable(world->disk, id, i * SUPERBLOCK_SIZE, copies[1], SUPERBLOCK_SIZE);
        for (uint32_t j = 0; j < 2; j++) {
            ((struct superblock *)(void *)copies[j])->copy = 0;
            same &= memcmp(copies[j], first, SUPERBLOCK_SIZE) == 0;
        }
    }
    return same;
}

static void rot_superblock(struct world *world) {
    bool same = superblocks_same(world);
    uint32_t count = (uint32_t)random_between(&world->random, 1, same ? 3 : 1);
    uint32_t first = (uint32_t)random_below(&world->random, SUPERBLOCK_COPIES);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset = (uint64_t)((first + i) % SUPERBLOCK_COPIES) * SUPERBLOCK_SIZE;
        disk_rot(world->disk, &world->random, (struct file_id){.kind = FILE_SUPERBLOCK}, offset);
    }
    // In the middle of a publication only two copies may be whole: then none may be lost on top.
    world->damage_must_heal = same && count <= SUPERBLOCK_COPIES - SUPERBLOCK_QUORUM;
    sim_trace("rot: %u copies of the superblock", count);
}

static void rot_log(struct world *world) {
    struct file_id id = {.kind = FILE_LOG};
    uint64_t known = model_known(world->model);
    uint64_t checkpoint = audit_index(world->audit);
    uint64_t offset =
        random_below(&world->random, disk_length(world->disk, id) / SECTOR_SIZE + 1) * SECTOR_SIZE;
    if (known > checkpoint && random_chance(&world->random, 3, 4)) {
        bool tail = random_chance(&world->random, audit_hint(world->audit) >= known ? 3 : 2, 4);
        uint64_t index = tail ? known : random_between(&world->random, checkpoint + 1, known);
        const struct model_position *position = model_position(world->model, index);
        offset = position->offset + random_below(&world->random, position->size / SECTOR_SIZE) * SECTOR_SIZE;
    }
    const struct model_position *last = model_position(world->model, known);
    if (last && offset >= last->offset && offset < last->offset + last->size) {
        world->damaged_record = known;
    }
    disk_rot(world->disk, &world->random, id, offset);
    sim_trace("rot: log at %llu, last record %llu, hint %llu", (unsigned long long)offset,
              (unsigned long long)known, (unsigned long long)audit_hint(world->audit));
}

static void rot_any(struct world *world) {
    struct file_id ids[MAPS_MAX];
    size_t count = disk_files(world->disk, ids, MAPS_MAX);
    struct file_id id = ids[random_below(&world->random, count)];
    uint64_t offset = random_below(&world->random, disk_length(world->disk, id) / SECTOR_SIZE) * SECTOR_SIZE;
    if (id.kind == FILE_LOG || id.kind == FILE_SUPERBLOCK) {
        return;
    }
    for (uint32_t i = 0; i < 64 && !audit_needs(world->audit, id, offset, SECTOR_SIZE);
         i++) { // rather where it hurts
        offset = random_below(&world->random, disk_length(world->disk, id) / SECTOR_SIZE) * SECTOR_SIZE;
    }
    world->damage_must_heal = !audit_needs(world->audit, id, offset, SECTOR_SIZE);
    disk_rot(world->disk, &world->random, id, offset);
    sim_trace("rot: %s.%u.%c at %llu%s", world_file_name(id), id.region, id.slot ? 'b' : 'a',
              (unsigned long long)offset, world->damage_must_heal ? ", not needed" : "");
}

static void rot(struct world *world) {
    if (!world->faults_on || world->damaged || !disk_published(world->disk) ||
        !chance(world, world->plan.rot_chance)) {
        return;
    }
    SOMETIMES(SIM_FAULT_ROT);
    world->damaged = true;
    uint64_t which = random_below(&world->random, 10);
    if (which < 5) {
        rot_log(world);
    } else if (which < 7) {
        rot_superblock(world);
    } else {
        rot_any(world);
    }
    audit_restart(world->audit);
}

// ---- Steps

// Carries out one of the ios under way, and tells the core, unless the node is to die here.
void world_io_complete(struct world *world, uint32_t place) {
    struct flight flight = world->flights[place];
    struct io *io = flight.io;
    uint64_t crash_at = world->life == 1   ? world->plan.crash_at
                        : world->life == 2 ? world->plan.crash_again_at
                                           : 0;
    world->io_number++;
    if (world->io_number == crash_at) {
        io_trace(io, "the node dies at");
        if (world->plan.crash_mode == CRASH_AFTER) {
            io_perform(world, &flight);
            world->stamp++;
            after_io(world, io);
        }
        bool power = random_chance(&world->random, 2, 3);
        world_crash(world, power, world->plan.crash_mode == CRASH_DURING ? NULL : io);
        return;
    }
    world->flights[place] = world->flights[--world->flight_count];
    io_perform(world, &flight);
    world->stamp++;
    io_trace(io, io->result == IO_RESULT_OK         ? "done"
                 : io->result == IO_RESULT_NO_SPACE ? "no space"
                                                    : "failed");
    after_io(world, io);
    struct event event = {.kind = EVENT_IO_DONE, .io = io};
    world_event(world, &event);
}

void world_tick(struct world *world, uint64_t time_ms) {
    world->now_ms += time_ms;
    struct event event = {.kind = EVENT_TICK, .hold_checkpoint = world->hold_checkpoint};
    world_event(world, &event);
}

static void space_comes_and_goes(struct world *world) {
    if (!world->no_space && world->faults_on && chance(world, world->plan.no_space_chance)) {
        world->no_space = true;
        SOMETIMES(SIM_FAULT_NO_SPACE);
        sim_trace("the disk is full");
    } else if (world->no_space && (!world->faults_on || chance(world, 10))) {
        world->no_space = false;
        world->node.no_space_step = report.step + 1000; // answers of a little later may still say so
        sim_trace("there is space again");
    }
}

// The node has stopped, closed or died: the next life.
static void node_replace(struct world *world) {
    if (world->node.stopped) {
        fault_check(world);
        if (random_chance(&world->random, 1, 2)) { // it answers, but does nothing any more
            client_act(world->clients[0], false);
            world_checkpoint(world);
        }
        world_crash(world, random_chance(&world->random, 1, 2), NULL);
    } else if (world->closed) {
        for (uint32_t i = 0; i < world->plan.clients; i++) {
            SIM_CHECK(!client_waits(world->clients[i]), "closed, but client %u waits for an answer", i);
        }
        for (uint32_t i = 0; i < world->flight_count; i++) {
            io_trace(world->flights[i].io, "under way");
        }
        SIM_CHECK(world->flight_count == 0, "closed with %u ios under way", world->flight_count);
        sim_trace("closed at %llu", (unsigned long long)world->node.applied);
        if (random_chance(&world->random, 1, 2)) {
            disk_power_cut(world->disk, &world->random);
        }
        node_gone(world);
    }
    if (!world->over) {
        rot(world);
        world_start(world);
    }
}

void world_close(struct world *world, bool checkpoint) {
    struct event event = {.kind = EVENT_CLOSE, .checkpoint = checkpoint};
    sim_trace("close%s", event.checkpoint ? " with a checkpoint" : "");
    world->node.closing = true;
    world_event(world, &event);
}

static bool anybody_waits(const struct world *world) {
    bool waits = false;
    for (uint32_t i = 0; i < world->plan.clients; i++) {
        waits |= client_waits(world->clients[i]);
    }
    return waits;
}

static void world_step(struct world *world, bool draining) {
    if (!world->core || world->node.stopped || world->closed) {
        node_replace(world);
        return;
    }
    space_comes_and_goes(world);
    if (world->apply_due && (draining || random_chance(&world->random, 1, 4))) {
        struct event event = {.kind = EVENT_GO_ON};
        world_event(world, &event);
        return;
    }
    if (world->faults_on && world->crashes < world->plan.crashes_max &&
        chance(world, world->plan.crash_chance)) {
        world_crash(world, random_chance(&world->random, 2, 3), NULL);
        return;
    }
    uint64_t dice = random_below(&world->random, 1000);
    if (world->flight_count > 0 && (dice < world->plan.io_chance || (!world->node.opened && dice < 900))) {
        world_io_complete(world, (uint32_t)random_below(&world->random, world->flight_count));
        return;
    }
    dice = random_below(&world->random, 1000);
    bool early = !world->node.opened && !draining && dice > 900;
    if ((dice < world->plan.tick_chance || !world->node.opened) && !early) {
        if (chance(world, 20)) {
            world->hold_checkpoint = !world->hold_checkpoint && world->faults_on;
        }
        world_tick(world, random_between(&world->random, 1, world->plan.tick_ms_max));
    } else if (!world->node.closing) {
        if (!draining && chance(world, world->plan.checkpoint_chance)) {
            for (uint64_t i = random_chance(&world->random, 1, 50) ? 40 : 1; i > 0; i--) {
                world_checkpoint(world);
            }
        } else if (!draining && world->faults_on && !anybody_waits(world) &&
                   chance(world, world->plan.close_chance)) {
            world_close(world, random_chance(&world->random, 1, 2));
        } else {
            client_act(world->clients[random_below(&world->random, world->plan.clients)], draining);
        }
    }
}

// ---- A whole run

static struct world *world_now; // for readers in the middle of a publication

void sim_interleave(void) {
    struct world *world = world_now;
    if (!world || !world->node.opened || !random_chance(&world->random, 1, 6)) {
        return;
    }
    client_interleave(world->clients[random_below(&world->random, world->plan.clients)]);
}

struct world *world_new(const struct plan *plan) {
    struct world *world = calloc(1, sizeof(*world));
    ASSERT(world);
    world->plan = *plan;
    random_seed(&world->random, plan->seed);
    world->disk = disk_new();
    world->model = model_new(world->disk, &world->node);
    world->audit = audit_new(world->disk, world->model);
    world->now_ms = 1000000;
    world->faults_on = true;
    world->no_space_writes = 300;
    world->config = (struct core_config){.alignment = plan->alignment,
                                         .log_bytes_max = plan->log_bytes_max,
                                         .checkpoint_log_bytes = plan->checkpoint_log_bytes,
                                         .checkpoint_interval_ms = plan->checkpoint_interval_ms,
                                         .session_idle_ms = plan->session_idle_ms,
                                         .session_named_idle_ms = plan->session_named_idle_ms,
                                         .cheap_memory = true};
    model_alignment_set(world->model, plan->alignment);
    for (uint32_t i = 0; i < plan->clients; i++) {
        world->clients[i] = client_new(world, i);
    }
    world_now = world;
    return world;
}

void world_free(struct world *world) {
    world_now = NULL;
    for (uint32_t i = 0; i < world->plan.clients; i++) {
        client_free(world->clients[i]);
    }
    node_free(world);
    audit_free(world->audit);
    model_free(world->model);
    disk_free(world->disk);
    free(world);
}

// Faults end; everything that waits must get its answer, and nothing may be left to do.
static void drain(struct world *world) {
    sim_trace("faults end");
    world->faults_on = false;
    world->hold_checkpoint = false;
    for (uint64_t steps = 0; !world->over; steps++) {
        bool done = world->core && world->node.opened && !world->node.stopped && !world->no_space &&
                    !anybody_waits(world) && world->flight_count == 0 && !world->apply_due &&
                    !core_work_pending(world->core);
        if (done) {
            break;
        }
        SIM_CHECK(steps < DRAIN_STEPS_MAX, "no progress: %u ios under way, opened %u, somebody waits %u",
                  world->flight_count, world->node.opened, anybody_waits(world));
        world_step(world, true);
    }
}

static void last_checks(struct world *world) {
    world_image_check(world);
    for (uint32_t i = 0; i < world->plan.clients; i++) {
        client_check(world->clients[i]);
    }
    SIM_CHECK(!core_log_busy(world->core) && !core_work_pending(world->core),
              "nothing is under way, but the log is busy");
    uint64_t applied = world->node.applied;
    world_close(world, random_chance(&world->random, 1, 2));
    for (uint64_t steps = 0; !world->closed && !world->over; steps++) {
        SIM_CHECK(steps < DRAIN_STEPS_MAX && !world->node.stopped, "the node does not close");
        world_step(world, true);
    }
    node_replace(world);
    for (uint64_t steps = 0; !world->over && !world->node.opened; steps++) {
        SIM_CHECK(steps < DRAIN_STEPS_MAX, "the node does not open again");
        world_step(world, true);
    }
    SIM_CHECK(world->over || world->node.applied == applied + 1, "closed at %llu, opened at %llu",
              (unsigned long long)applied, (unsigned long long)world->node.applied);
}

struct world_result world_run(const struct plan *plan) {
    struct world *world = world_new(plan);
    struct world_result result = {0};
    world_start(world);
    for (uint32_t steps = 0; steps < plan->steps && !world->over; steps++) {
        world_step(world, false);
        result.ios_first_life = world->life <= 1 ? world->io_number : result.ios_first_life;
    }
    drain(world);
    if (!world->over) {
        last_checks(world);
    }
    sim_trace("end: %llu records, %llu commits, %u crashes", (unsigned long long)model_known(world->model),
              (unsigned long long)model_commit_count(world->model), world->crashes);
    result.ios_recovery = world->io_number_recovery;
    result.records = model_known(world->model);
    result.commits = model_commit_count(world->model);
    result.crashes = world->crashes;
    world_free(world);
    return result;
}
