// SPDX-License-Identifier: Apache-2.0
//
// See script.h.

#include "script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/crc.h"
#include "report.h"
#include "world.h"

#define WORDS_MAX   5u
#define REQUEST_MAX 512u

struct script {
    struct world *world;
    FILE *out; // the transcript as it really is
    uint64_t session, holder, sequence;
    struct submission *opening; // whose answer tells the session
    struct submission *last;    // commit
};

// ---- Requests

static struct submission *send(struct script *script, const void *bytes, size_t size) {
    struct submission *submission = model_submission_new(script->world->model, 0, NULL, bytes, size);
    if (!world_submit(script->world, submission)) {
        sim_trace("refused for now");
    }
    return submission;
}

static void session_open(struct script *script, const char *name) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = REQUEST_SESSION_OPEN}};
    snprintf(request.name, sizeof(request.name), "%s", name);
    script->opening = send(script, &request, sizeof(request));
}

static void session_learn(struct script *script) {
    if (script->opening && script->opening->state == SUBMISSION_ANSWERED) {
        script->session = script->opening->reply.session;
        script->holder = script->opening->reply.holder;
        script->sequence = script->opening->reply.session_last;
        script->opening = NULL;
    }
}

static void outcome(struct script *script, uint64_t sequence) {
    struct session_request request = {.header = {.size = sizeof(request), .kind = REQUEST_SESSION_OUTCOME},
                                      .session = script->session,
                                      .holder = script->holder,
                                      .sequence = sequence};
    send(script, &request, sizeof(request));
}

static void region(struct script *script, enum request_kind kind, const char *name, uint64_t pages) {
    struct region_request request = {.header = {.size = sizeof(request), .kind = (uint16_t)kind},
                                     .size = pages * PAGE_SIZE,
                                     .size_max = 16 * PAGE_SIZE};
    if (kind == REQUEST_REGION_CREATE) {
        snprintf(request.name, sizeof(request.name), "%s", name);
    } else {
        request.region = (uint32_t)strtoul(name, NULL, 10);
    }
    send(script, &request, sizeof(request));
}

static void commit(struct script *script, uint64_t address, bool reads, const char *text,
                   const uint64_t *operand) {
    _Alignas(8) uint8_t bytes[REQUEST_MAX] = {0};
    struct commit_request *head = (void *)bytes;
    size_t used = sizeof(*head);
    if (reads) {
        uint64_t line = address >> LINE_SHIFT;
        memcpy(bytes + used, &line, sizeof(line));
        used += sizeof(line);
        head->line_count = 1;
    }
    if (operand) {
        struct request_operation operation = {.address = address, .operand = *operand, .code = OPERATION_ADD};
        memcpy(bytes + used, &operation, sizeof(operation));
        used += sizeof(operation);
        head->operation_count = 1;
    } else {
        struct record_range range = {.address = address, .size = (uint32_t)strlen(text)};
        memcpy(bytes + used, &range, sizeof(range));
        memcpy(bytes + used + sizeof(range), text, range.size);
        head->ranges_size = (uint32_t)(sizeof(range) + align_up(range.size, 8));
        used += head->ranges_size;
        head->range_count = 1;
    }
    head->header = (struct request_header){.size = (uint32_t)used, .kind = REQUEST_COMMIT};
    head->session = script->session;
    head->holder = script->holder;
    head->sequence = ++script->sequence;
    head->index = script->world->node.applied;
    head->epoch = script->world->node.epoch;
    script->last = send(script, bytes, used);
}

static void show(const struct script *script, uint32_t number, uint64_t offset, uint64_t size) {
    char text[80] = "";
    const struct region_view *view = &script->world->image->regions[number];
    if (atomic_load(&view->state) != REGION_LIVE || offset + size > atomic_load(&view->size) ||
        size >= sizeof(text)) {
        sim_trace("region %u: nothing there", number);
        return;
    }
    for (uint64_t i = 0; i < size; i++) {
        uint8_t byte = script->world->replica.maps[number].data[offset + i];
        text[i] = (char)(byte == 0 ? '.' : byte < ' ' || byte > '~' ? '?' : byte);
    }
    sim_trace("region %u at %llu: %s", number, (unsigned long long)offset, text);
}

// ---- Ios, oldest first

// Transcripts leave out what there is much of and what says little: zeros written ahead of the log's head, and segments
// read piece by piece.
static bool is_dull(const struct io *io) {
    return io->file.kind == FILE_LOG &&
           ((io->kind == IO_WRITE && !io->durable) || (io->kind == IO_READ && io->size > PAGE_SIZE));
}

static bool io_oldest(const struct world *world, const char *word, uint32_t *ret_place) {
    bool found = false;
    for (uint32_t i = 0; i < world->flight_count; i++) {
        const struct io *io = world->flights[i].io;
        if ((word[0] == 0 || strcmp(word, world_file_name(io->file)) == 0) &&
            (!found || world->flights[i].stamp < world->flights[*ret_place].stamp)) {
            *ret_place = i;
            found = true;
        }
    }
    return found;
}

static void ios(struct script *script, const char *word, bool all) {
    uint32_t place = 0;
    bool shown = true;
    while (io_oldest(script->world, word, &place) && (all || shown)) {
        bool dull = is_dull(script->world->flights[place].io);
        report.hidden = dull;
        world_io_complete(script->world, place);
        report.hidden = false;
        shown = dull;
    }
    session_learn(script);
}

static void fault_show(const struct world *world) {
    const struct core_fault *fault = world->core ? core_fault_get(world->core) : NULL;
    if (fault) {
        sim_trace("stopped: %s, %s: %s", shelf_result_name(fault->result), fault->what, fault->reason);
    }
}

static uint64_t number_of(const char *word) {
    return strtoull(word, NULL, 10);
}

static void rot_record(struct world *world, uint64_t index) {
    const struct model_position *position = model_position(world->model, index);
    SIM_CHECK(position, "there is no record %llu", (unsigned long long)index);
    const struct file_id id = {.kind = FILE_LOG};
    uint8_t sector[SECTOR_SIZE];
    disk_read(world->disk, id, position->offset, sector, sizeof(sector));
    sector[sizeof(struct record_header) + 1] ^= 1; // in the payload: what follows it in the sector is padding
    disk_write(world->disk, id, position->offset, sector, sizeof(sector), true, world->stamp);
}

// Of the ios under way nothing is done, but so many sectors of each write to the log.
static void die(struct world *world, bool power, const char *sectors) {
    uint64_t size = number_of(sectors) * SECTOR_SIZE;
    for (uint32_t i = 0; i < world->flight_count; i++) {
        const struct io *io = world->flights[i].io;
        if (size > 0 && io->kind == IO_WRITE && io->file.kind == FILE_LOG && io->durable) {
            disk_write(world->disk, io->file, io->offset, io->buffer, min_u64(size, io->size), true,
                       world->stamp);
        }
    }
    world->flight_count = 0;
    world_crash(world, power, NULL);
}

static void superblocks_newer(const struct world *world) {
    for (uint32_t copy = 0; copy < SUPERBLOCK_COPIES; copy++) {
        const struct file_id id = {.kind = FILE_SUPERBLOCK};
        struct superblock block;
        disk_read(world->disk, id, (uint64_t)copy * SUPERBLOCK_SIZE, &block, sizeof(block));
        block.format++;
        block.crc = 0;
        block.copy = 0;
        block.crc = crc32c(0, &block, sizeof(block));
        block.copy = copy;
        disk_write(world->disk, id, (uint64_t)copy * SUPERBLOCK_SIZE, &block, sizeof(block), true,
                   world->stamp);
    }
}

// ---- Commands

static bool is(const char *word, const char *name) {
    return strcmp(word, name) == 0;
}

static bool command_of_disk(struct script *script, char *const words[WORDS_MAX]) {
    struct world *world = script->world;
    if (is(words[0], "ios")) {
        ios(script, words[1], true);
    } else if (is(words[0], "io")) {
        ios(script, words[1], false);
    } else if (is(words[0], "rot")) {
        rot_record(world, number_of(words[1]));
    } else if (is(words[0], "newer")) {
        superblocks_newer(world);
    } else if (is(words[0], "full")) {
        world->no_space = true;
        world->no_space_writes = 1000;
    } else if (is(words[0], "space")) {
        world->no_space = false;
    } else {
        return false;
    }
    return true;
}

static bool command_of_node(struct script *script, char *const words[WORDS_MAX]) {
    struct world *world = script->world;
    if (is(words[0], "start")) {
        world_start(world);
    } else if (is(words[0], "tick")) {
        world_tick(world, number_of(words[1]));
    } else if (is(words[0], "checkpoint")) {
        world_checkpoint(world);
    } else if (is(words[0], "close")) {
        world_close(world, false);
    } else if (is(words[0], "kill") || is(words[0], "power")) {
        die(world, is(words[0], "power"), words[1]);
    } else {
        return false;
    }
    return true;
}

static bool command_of_client(struct script *script, char *const words[WORDS_MAX]) {
    uint64_t address = shelf_addr_make((shelf_region)number_of(words[1]), number_of(words[2]));
    uint64_t operand = number_of(words[3]);
    if (is(words[0], "session")) {
        session_open(script, words[1]);
    } else if (is(words[0], "create")) {
        region(script, REQUEST_REGION_CREATE, words[1], number_of(words[2]));
    } else if (is(words[0], "grow")) {
        region(script, REQUEST_REGION_GROW, words[1], number_of(words[2]));
    } else if (is(words[0], "drop")) {
        region(script, REQUEST_REGION_DROP, words[1], 0);
    } else if (is(words[0], "write") || is(words[0], "change")) {
        commit(script, address, is(words[0], "change"), words[3], NULL);
    } else if (is(words[0], "add")) {
        commit(script, address, false, "", &operand);
    } else if (is(words[0], "again")) {
        world_submit(script->world, script->last);
    } else if (is(words[0], "outcome")) {
        outcome(script, number_of(words[1]));
    } else if (is(words[0], "show")) {
        show(script, (uint32_t)number_of(words[1]), number_of(words[2]), number_of(words[3]));
    } else {
        return false;
    }
    return true;
}

static void command_run(struct script *script, char *line) {
    static char none[1];
    char *words[WORDS_MAX] = {none, none, none, none, none}; // words that are not given are empty
    char *rest = NULL;
    size_t count = 0;
    for (char *word = strtok_r(line, " \n", &rest); word && count < WORDS_MAX;
         word = strtok_r(NULL, " \n", &rest)) {
        words[count++] = word;
    }
    bool known = count > 0 && (command_of_disk(script, words) || command_of_node(script, words) ||
                               command_of_client(script, words));
    SIM_CHECK(known, "a command that there is not: %s", count > 0 ? words[0] : "");
    fault_show(script->world);
}

// ---- Files

static char *file_read(const char *path) {
    FILE *file = fopen(path, "r");
    if (!file) {
        return NULL;
    }
    char *text = NULL;
    size_t size = 0;
    FILE *copy = open_memstream(&text, &size);
    ASSERT(copy);
    for (int c = fgetc(file); c != EOF; c = fgetc(file)) {
        fputc(c, copy);
    }
    fclose(copy);
    fclose(file);
    return text;
}

static struct plan script_plan(void) {
    return (struct plan){.seed = 1,
                         .clients = 1,
                         .alignment = 512,
                         .log_bytes_max = 4 * LOG_SEGMENT_BYTES,
                         .checkpoint_log_bytes = LOG_SEGMENT_BYTES,
                         .checkpoint_interval_ms = 3600000,
                         .session_idle_ms = 3600000,
                         .session_named_idle_ms = 36000000,
                         .tick_ms_max = 1};
}

// Commands and comments go into the transcript as they are, each followed by what it really causes.
static void transcript_make(const char *expected, FILE *out) {
    struct plan plan = script_plan();
    struct script script = {.world = world_new(&plan), .out = out};
    script.world->faults_on = false;
    char *text = strdup(expected);
    char *rest = NULL;
    ASSERT(text);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] == '#') {
            fprintf(out, "%s\n", line);
        } else if (line[0] == '>') {
            fprintf(out, "%s\n", line);
            command_run(&script, line + 1);
        }
    }
    free(text);
    world_free(script.world);
}

static void difference_show(const char *expected, const char *actual) {
    size_t line_begin = 0;
    uint64_t line = 1;
    size_t i = 0;
    for (; expected[i] && expected[i] == actual[i]; i++) {
        if (expected[i] == '\n') {
            line_begin = i + 1;
            line++;
        }
    }
    printf("line %llu\n  expected: %.*s\n  actual:   %.*s\n", (unsigned long long)line,
           (int)strcspn(expected + line_begin, "\n"), expected + line_begin,
           (int)strcspn(actual + line_begin, "\n"), actual + line_begin);
}

// What really happens, as text of its own.
static char *transcript_of(const char *expected) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    ASSERT(out);
    report_begin(0, out);
    report.numbered = false;
    if (setjmp(report.escape) == 0) {
        transcript_make(expected, out);
    } else {
        fprintf(report.out, "violated: %s\n", report.failure);
    }
    fclose(report.out);
    report.out = NULL;
    return text;
}

static void file_replace(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    ASSERT(file);
    fputs(text, file);
    fclose(file);
}

int script_run(const char *path, bool accept) {
    char *expected = file_read(path);
    if (!expected) {
        printf("%s cannot be read\n0 passed, 1 failed\n", path);
        return 1;
    }
    char *actual = transcript_of(expected);
    bool same = strcmp(expected, actual) == 0;
    if (accept && !same) {
        file_replace(path, actual);
        printf("%s is rewritten\n", path);
    } else if (!same) {
        printf("%s: ", path);
        difference_show(expected, actual);
    }
    printf("%d passed, %d failed\n", same || accept, !same && !accept);
    free(actual);
    free(expected);
    return same || accept ? 0 : 1;
}
