// SPDX-License-Identifier: Apache-2.0
/*
 * coordinator_etcd.c: etcd. A flight is an ask, a reading of all registers, or the watch; it goes to one endpoint, and on to the
 * next if that cannot be reached.
 *
 *     start ── reading ──> watch from the reading's revision + 1 ── ends for any reason ──> reading, after a pause
 *                 every probe_ms another reading shows whether etcd is there, and that the watch misses nothing
 *
 *  E1  A swap is sent to one endpoint, once. It goes on to another only if not a byte of it was sent (it could not connect), or if
 *      etcd has said that it looked at no more than who asks. Everything else that is no clear answer is UNKNOWN, errors of
 *      etcd included: with a quota exceeded, say, it may report "no space" for a transaction that it has carried out.
 *      (curl itself repeats a request on a new connection, if a kept one turns out to be closed before a byte of the answer: a
 *      swap may so lose against itself, see A2.)
 *  E2  Readings, gets and the comparison of a swap are linearizable, which is etcd's default. So no answer is older than
 *      what was known when it was asked for (the flight's floor): one that is comes from an etcd that has gone back.
 *  E3  Every answer is judged against the memory, and what is new in it is durable, before it is told (A7).
 *  E4  The watch is behind at times (it may be served by a member that lags), never wrong: its events are taken in their
 *      order, and those that a reading has overtaken are left out.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bits.h"
#include "base/random.h"
#include "coordinator/coordinator_state.h"
#include "coordinator/etcd_transfer.h"
#include "coordinator/memory_file.h"
#include "world/world.h"

#define FLIGHTS_MAX          32u /* asks under way; others wait */
#define PAUSE_MIN_MS         20u /* between attempts, doubled each time */
#define PAUSE_MAX_MS         1000u
#define REVISION_STORE_MS    10000u /* how far behind the remembered revision of the store may be */
#define CODE_INVALID         3u     /* of gRPC */
#define CODE_DENIED          7u
#define CODE_PRECONDITION    9u
#define CODE_UNAUTHENTICATED 16u

enum flight_kind { FLIGHT_ASK = 1, FLIGHT_READ, FLIGHT_WATCH };

struct flight {
    struct list link;
    struct etcd *etcd;
    enum flight_kind kind;
    bool login; /* what is under way is the login that comes first */
    uint32_t logins;
    uint32_t endpoint, tries;
    uint64_t begun_ns, end_ns;
    uint64_t floor; /* E2 */
    uint64_t start; /* of the watch: the first revision of interest */
    bool created;   /* the watch has begun */
    struct coordinator_ask *ask;
    struct etcd_transfer transfer;
};

struct etcd {
    struct coordinator base;
    struct etcd_settings settings;
    struct etcd_names names;
    struct memory_file memory;
    uint64_t memory_stored_ns;
    uint32_t timeout_ms, probe_ms;
    CURLM *multi;
    struct random random; /* for pauses */

    struct list flights;
    uint32_t ask_count;
    struct flight *reading, *watch; /* at most one each */
    uint32_t endpoint;              /* the one that worked last */
    uint32_t failures;              /* in a row, of readings and watches */
    uint64_t read_at_ns;            /* when the next reading is due */
    char token[ETCD_TOKEN_MAX];     /* "": none yet */
    bool open_to_all;               /* etcd has said that it knows no users */
};

static struct etcd *etcd_of(struct coordinator *coordinator) {
    return (struct etcd *)(void *)coordinator; /* its first member */
}

static void flight_send(struct flight *flight);
static bool on_watch_line(void *context, const char *line, size_t size);

static uint64_t later_ns(uint64_t ms) {
    return world_monotonic_ns() + ms * 1000000;
}

/* ---- Flights ------------------------------------------------------------------------------------------------------- */

static struct flight *flight_new(struct etcd *etcd, enum flight_kind kind) {
    struct flight *flight = calloc(1, sizeof(*flight));
    if (!flight) {
        return NULL;
    }
    flight->etcd = etcd;
    flight->kind = kind;
    flight->endpoint = etcd->endpoint;
    flight->begun_ns = world_monotonic_ns();
    flight->end_ns = later_ns(etcd->timeout_ms);
    flight->floor = etcd->memory.memory.revision;
    flight->transfer.context = flight;
    list_push_back(&etcd->flights, &flight->link);
    return flight;
}

static void flight_free(struct flight *flight) {
    struct etcd *etcd = flight->etcd;
    etcd->reading = etcd->reading == flight ? NULL : etcd->reading;
    etcd->watch = etcd->watch == flight ? NULL : etcd->watch;
    etcd->ask_count -= flight->kind == FLIGHT_ASK;
    list_unlink(&flight->link);
    etcd_transfer_free(&flight->transfer, etcd->multi);
    free(flight);
}

/* The pause before the next reading grows with failures; chance keeps nodes from asking all at once. */
static void read_later(struct etcd *etcd) {
    uint64_t ms = min_u64((uint64_t)PAUSE_MIN_MS << min_u64(etcd->failures, 16), PAUSE_MAX_MS);
    etcd->failures++;
    etcd->read_at_ns = later_ns(ms / 2 + random_below(&etcd->random, ms / 2 + 1));
}

/* Ends a flight that did not get a good answer. */
static void flight_fail(struct flight *flight, uint32_t outcome, const char *text) {
    struct etcd *etcd = flight->etcd;
    if (outcome == COORDINATOR_UNKNOWN) {
        coordinator_remark(&etcd->base, text);
        etcd->read_at_ns = 0; /* is it there? */
    } else {
        coordinator_lost(&etcd->base, outcome == COORDINATOR_REFUSED, text);
    }
    if (flight->kind == FLIGHT_ASK) {
        coordinator_answer(&etcd->base, flight->ask, outcome);
    } else {
        read_later(etcd);
    }
    flight_free(flight);
}

static bool flight_changes(const struct flight *flight) {
    return flight->kind == FLIGHT_ASK && flight->ask->act != COORDINATOR_GET && !flight->login;
}

/* This endpoint did not do: the next one, or the end. */
static void flight_fail_over(struct flight *flight, uint32_t outcome, const char *text) {
    struct etcd *etcd = flight->etcd;
    uint32_t next = (flight->endpoint + 1) % etcd->settings.endpoint_count;
    if (etcd->endpoint == flight->endpoint) {
        etcd->endpoint = next;
    }
    flight->tries++;
    bool again = outcome == COORDINATOR_UNAVAILABLE || !flight_changes(flight);
    if (again && flight->tries < etcd->settings.endpoint_count && world_monotonic_ns() < flight->end_ns) {
        flight->endpoint = next;
        flight_send(flight);
        return;
    }
    flight_fail(flight, outcome, text);
}

static uint32_t flight_timeout_ms(const struct flight *flight) {
    uint64_t now = world_monotonic_ns();
    uint64_t left_ms = flight->end_ns > now ? (flight->end_ns - now) / 1000000 : 0;
    uint32_t endpoints = flight->etcd->settings.endpoint_count;
    uint32_t left = endpoints - (uint32_t)min_u64(flight->tries, endpoints - 1);
    return (uint32_t)max_u64(left_ms / left, 1);
}

static const char *flight_path(const struct flight *flight) {
    if (flight->login) {
        return "/v3/auth/authenticate";
    }
    if (flight->kind == FLIGHT_WATCH) {
        return "/v3/watch";
    }
    return flight_changes(flight) ? "/v3/kv/txn" : "/v3/kv/range";
}

static void flight_format(struct flight *flight) {
    struct etcd *etcd = flight->etcd;
    char *body = flight->transfer.request;
    if (flight->login) {
        bool fits = etcd_format_login(etcd->settings.user, etcd->settings.password, body);
        ASSERT(fits); /* as the open has seen */
    } else if (flight->kind == FLIGHT_READ) {
        etcd_format_read_all(&etcd->names, body);
    } else if (flight->kind == FLIGHT_WATCH) {
        etcd_format_watch(&etcd->names, flight->start, body);
    } else if (flight->ask->act == COORDINATOR_GET) {
        etcd_format_get(&etcd->names, flight->ask->id, body);
    } else {
        etcd_format_ask(&etcd->names, flight->ask, body);
    }
}

static void flight_send(struct flight *flight) {
    struct etcd *etcd = flight->etcd;
    flight->login = etcd->settings.user && etcd->token[0] == 0 && !etcd->open_to_all;
    flight_format(flight);
    uint32_t timeout_ms = flight_timeout_ms(flight);
    bool watching = flight->kind == FLIGHT_WATCH && !flight->login;
    flight->transfer.on_line = watching ? on_watch_line : NULL;
    const struct etcd_target target = {.endpoint = etcd->settings.endpoints[flight->endpoint],
                                       .path = flight_path(flight),
                                       .token = flight->login ? "" : etcd->token,
                                       .timeout_ms = watching ? 0 : timeout_ms,
                                       .connect_timeout_ms = timeout_ms};
    if (!etcd_transfer_begin(&flight->transfer, etcd->multi, &etcd->settings, &target)) {
        flight_fail(flight, COORDINATOR_UNAVAILABLE, "no memory to ask etcd");
    }
}

/* ---- Judging ------------------------------------------------------------------------------------------------------- */

static bool answer_has(const struct etcd_answer *answer, struct register_id id) {
    for (uint32_t i = 0; i < answer->count; i++) {
        if (register_id_same(answer->registers[i].id, id)) {
            return true;
        }
    }
    return false;
}

/* Is each register where it was, or further? */
static const char *registers_judge(const struct flight *flight, const struct etcd_answer *answer,
                                   struct coordinator_memory *memory) {
    const char *problem = NULL;
    for (uint32_t i = 0; !problem && i < answer->count; i++) {
        const struct etcd_register *entry = &answer->registers[i];
        problem =
            coordinator_memory_register(memory, entry->id, &entry->state, entry->history, answer->revision);
    }
    for (uint32_t i = 0; !problem && i < memory->count; i++) {
        struct register_id id = {memory->entries[i].kind, memory->entries[i].number};
        bool asked = flight->kind == FLIGHT_READ || register_id_same(id, flight->ask->id);
        if (asked && !answer_has(answer, id)) {
            problem = coordinator_memory_absent(memory, id, answer->revision);
        }
    }
    return problem;
}

/* Does an ask's answer say what the ask can have led to? */
static const char *ask_judge(const struct coordinator_ask *ask, const struct etcd_answer *answer) {
    uint64_t revision = answer->count > 0 ? answer->registers[0].state.revision : 0;
    if (answer->count > 1 || (answer->count == 1 && !register_id_same(answer->registers[0].id, ask->id))) {
        return "it is about another register";
    }
    if (ask->act == COORDINATOR_GET) {
        return NULL;
    }
    if (!answer->succeeded) {
        return revision == ask->expected ? "it lost against itself" : NULL;
    }
    if (ask->act == COORDINATOR_REMOVE) {
        return revision != 0 ? "what was removed is there" : NULL;
    }
    const struct register_state *state = &answer->registers[0].state;
    bool same = answer->count == 1 && revision == answer->revision && revision > ask->expected &&
                state->size == ask->size && memcmp(state->value, ask->value, ask->size) == 0;
    return same ? NULL : "what was written is not there";
}

/* E3. What is wrong goes to `ret_text` as a sentence. */
static bool memory_keep(struct etcd *etcd, char ret_text[COORDINATOR_TEXT_MAX]) {
    bool late = etcd->memory.memory.revision != etcd->memory.stored.revision &&
                world_monotonic_ns() >= etcd->memory_stored_ns + (uint64_t)REVISION_STORE_MS * 1000000;
    if (!late && !memory_file_dirty(&etcd->memory)) {
        return true;
    }
    etcd->memory_stored_ns = world_monotonic_ns();
    return memory_file_store(&etcd->memory, ret_text);
}

static bool answer_judge(struct flight *flight, const struct etcd_answer *answer,
                         char ret_text[COORDINATOR_TEXT_MAX]) {
    struct etcd *etcd = flight->etcd;
    const char *endpoint = etcd->settings.endpoints[flight->endpoint];
    struct coordinator_memory memory = etcd->memory.memory;
    const char *problem = coordinator_memory_store(&memory, answer->store, answer->revision, flight->floor);
    problem = problem ? problem : registers_judge(flight, answer, &memory);
    if (problem) {
        coordinator_text(
            ret_text,
            "etcd at %.60s is not what it was: %s. If it was restored from an old backup, bring back newer "
            "data; see docs/operations.md, \"etcd has gone back\"",
            endpoint, problem);
        return false;
    }
    problem = flight->kind == FLIGHT_ASK ? ask_judge(flight->ask, answer) : NULL;
    if (problem) {
        coordinator_text(ret_text, "etcd at %.60s contradicts itself: %s", endpoint, problem);
        return false;
    }
    etcd->memory.memory = memory;
    return memory_keep(etcd, ret_text);
}

/* ---- Good answers --------------------------------------------------------------------------------------------------- */

static void ask_finish(struct flight *flight, const struct etcd_answer *answer) {
    struct coordinator_ask *ask = flight->ask;
    ask->state = answer->count > 0 ? answer->registers[0].state : (struct register_state){0};
    bool lost = ask->act != COORDINATOR_GET && !answer->succeeded;
    coordinator_answer(&flight->etcd->base, ask, lost ? COORDINATOR_LOST : COORDINATOR_OK);
    flight_free(flight);
}

/* Tells what is new. Returns whether anything was. */
static bool reading_tell(struct etcd *etcd, const struct etcd_answer *answer) {
    bool news = false;
    struct coordinator_table *table = coordinator_table_lock(&etcd->base);
    if (coordinator_table_begin(table, answer->revision)) {
        for (uint32_t i = 0; i < answer->count; i++) {
            bool changed = false;
            (void)coordinator_table_set(table, answer->registers[i].id, &answer->registers[i].state,
                                        &changed);
            news |= changed;
        }
        news |= coordinator_table_end(table, answer->revision);
    }
    coordinator_table_unlock(&etcd->base);
    return news;
}

static void watch_begin(struct etcd *etcd, uint32_t endpoint, uint64_t revision) {
    struct flight *flight = flight_new(etcd, FLIGHT_WATCH);
    if (flight) {
        etcd->watch = flight;
        flight->endpoint = endpoint;
        flight->start = revision + 1;
        flight->tries = etcd->settings.endpoint_count; /* no other one: a reading comes first */
        flight_send(flight);
    }
}

static void watch_end(struct etcd *etcd) {
    coordinator_watching_set(&etcd->base, false);
    if (etcd->watch) {
        flight_free(etcd->watch);
    }
}

static void reading_finish(struct flight *flight, const struct etcd_answer *answer) {
    struct etcd *etcd = flight->etcd;
    uint32_t endpoint = flight->endpoint;
    bool news = reading_tell(etcd, answer);
    flight_free(flight);
    etcd->read_at_ns = later_ns(etcd->probe_ms);
    etcd->failures = etcd->watch && etcd->watch->created ? 0 : etcd->failures;
    if (etcd->watch && (news || etcd->watch->endpoint != endpoint)) {
        watch_end(etcd); /* it missed something, or is at a place that was given up */
    }
    if (!etcd->watch) {
        watch_begin(etcd, endpoint, answer->revision);
    }
}

/* ---- The watch ------------------------------------------------------------------------------------------------------ */

static bool event_tell(struct etcd *etcd, struct coordinator_table *table,
                       const struct etcd_register *entry) {
    (void)etcd;
    if (entry->removed) {
        coordinator_table_remove(table, entry->id, entry->state.revision);
        return true;
    }
    return coordinator_table_set(table, entry->id, &entry->state, NULL);
}

static bool events_judge(struct etcd *etcd, const struct etcd_answer *answer) {
    char text[COORDINATOR_TEXT_MAX];
    struct coordinator_memory memory = etcd->memory.memory;
    const char *problem = coordinator_memory_store(&memory, answer->store, answer->revision, 0);
    for (uint32_t i = 0; !problem && i < answer->count; i++) {
        const struct etcd_register *entry = &answer->registers[i];
        uint64_t at = entry->state.revision;
        problem = entry->removed
                      ? coordinator_memory_absent(&memory, entry->id, at)
                      : coordinator_memory_register(&memory, entry->id, &entry->state, entry->history, at);
        memory.revision = max_u64(memory.revision, at);
    }
    if (problem) {
        return false;
    }
    etcd->memory.memory = memory;
    return memory_keep(etcd, text);
}

/* False ends the watch; the reading that follows finds out, and says, what is wrong. */
static bool on_watch_line(void *context, const char *line, size_t size) {
    struct flight *flight = context;
    struct etcd *etcd = flight->etcd;
    struct etcd_answer answer;
    char reason[ETCD_REASON_MAX];
    if (!etcd_parse_watch(&etcd->names, line, size, &answer, reason)) {
        return false;
    }
    bool good = !answer.canceled && events_judge(etcd, &answer);
    if (good && answer.created) {
        flight->created = true;
        coordinator_watching_set(&etcd->base, true);
    }
    if (good && answer.count > 0) {
        struct coordinator_table *table = coordinator_table_lock(&etcd->base);
        for (uint32_t i = 0; good && i < answer.count; i++) {
            good = event_tell(etcd, table, &answer.registers[i]);
        }
        coordinator_table_unlock(&etcd->base);
    }
    etcd_answer_free(&answer);
    return good;
}

static void watch_over(struct flight *flight) {
    struct etcd *etcd = flight->etcd;
    bool lived =
        flight->created && world_monotonic_ns() - flight->begun_ns > (uint64_t)PAUSE_MAX_MS * 1000000;
    etcd->failures = lived ? 0 : etcd->failures;
    watch_end(etcd);
    read_later(etcd);
}

/* ---- Ends of transfers ---------------------------------------------------------------------------------------------- */

static void login_finish(struct flight *flight, long status) {
    struct etcd *etcd = flight->etcd;
    struct etcd_transfer *transfer = &flight->transfer;
    char reason[ETCD_REASON_MAX], text[COORDINATOR_TEXT_MAX];
    struct etcd_error error = {0};
    if (status == 200 && etcd_parse_token(transfer->answer, transfer->size, etcd->token, reason)) {
        flight_send(flight);
        return;
    }
    etcd_parse_error(transfer->answer, transfer->size, &error);
    if (status != 200 && error.code == CODE_PRECONDITION) { /* authentication is not enabled */
        etcd->open_to_all = true;
        flight_send(flight);
        return;
    }
    coordinator_text(text, "cannot log in to etcd at %.60s: %s", etcd->settings.endpoints[flight->endpoint],
                     status == 200 ? reason : error.message);
    if (error.code == CODE_INVALID || error.code == CODE_DENIED) {
        flight_fail(flight, COORDINATOR_REFUSED, text);
    } else {
        flight_fail_over(flight, COORDINATOR_UNAVAILABLE, text);
    }
}

/* etcd has answered with an error. */
static void error_finish(struct flight *flight, long status) {
    struct etcd *etcd = flight->etcd;
    struct etcd_error error;
    char text[COORDINATOR_TEXT_MAX];
    etcd_parse_error(flight->transfer.answer, flight->transfer.size, &error);
    bool unknown_user =
        error.code == CODE_UNAUTHENTICATED || (error.code == CODE_INVALID && etcd->settings.user);
    if (unknown_user && etcd->settings.user && flight->logins < 2) {
        flight
            ->logins++; /* the token has expired, or users were switched on; nothing else was looked at (E1) */
        etcd->token[0] = 0;
        etcd->open_to_all = false;
        flight_send(flight);
        return;
    }
    coordinator_text(text, "etcd at %.60s answers with error %ld (%" PRIu32 "): %s",
                     etcd->settings.endpoints[flight->endpoint], status, error.code, error.message);
    bool not_done =
        error.code == CODE_UNAUTHENTICATED || error.code == CODE_INVALID || error.code == CODE_DENIED;
    if (not_done) {
        flight_fail(flight, COORDINATOR_REFUSED, text);
    } else if (error.code == 0) {
        flight_fail_over(flight, COORDINATOR_REFUSED, text); /* that is no etcd */
    } else {
        flight_fail_over(flight, flight_changes(flight) ? COORDINATOR_UNKNOWN : COORDINATOR_UNAVAILABLE,
                         text);
    }
}

static void answer_finish(struct flight *flight) {
    struct etcd *etcd = flight->etcd;
    struct etcd_transfer *transfer = &flight->transfer;
    struct etcd_answer answer = {0};
    char reason[ETCD_REASON_MAX], text[COORDINATOR_TEXT_MAX];
    bool parsed = flight_changes(flight)
                      ? etcd_parse_ask(&etcd->names, transfer->answer, transfer->size, &answer, reason)
                      : etcd_parse_range(&etcd->names, transfer->answer, transfer->size, &answer, reason);
    if (!parsed) {
        coordinator_text(text, "etcd at %.60s answers something else than etcd would: %s",
                         etcd->settings.endpoints[flight->endpoint], reason);
        flight_fail_over(flight, COORDINATOR_REFUSED, text);
        return;
    }
    if (!answer_judge(flight, &answer, text)) {
        etcd->endpoint = (flight->endpoint + 1) % etcd->settings.endpoint_count;
        flight_fail(flight, COORDINATOR_REFUSED, text);
    } else {
        etcd->endpoint = flight->endpoint;
        coordinator_reached(&etcd->base, etcd->settings.endpoints[flight->endpoint], answer.revision);
        if (flight->kind == FLIGHT_ASK) {
            ask_finish(flight, &answer);
        } else {
            reading_finish(flight, &answer);
        }
    }
    etcd_answer_free(&answer);
}

/* The endpoint could not be reached, or fell silent. */
static void transfer_fail(struct flight *flight, CURLcode code, long sent) {
    struct etcd_transfer *transfer = &flight->transfer;
    char text[COORDINATOR_TEXT_MAX];
    coordinator_text(text, "etcd at %.60s: %.150s", flight->etcd->settings.endpoints[flight->endpoint],
                     transfer->too_long        ? "its answer is too long"
                     : transfer->error[0] != 0 ? transfer->error
                                               : curl_easy_strerror(code));
    if (transfer->too_long) {
        flight_fail_over(flight, COORDINATOR_REFUSED, text);
    } else {
        flight_fail_over(
            flight, sent > 0 && flight_changes(flight) ? COORDINATOR_UNKNOWN : COORDINATOR_UNAVAILABLE, text);
    }
}

static void flight_over(struct flight *flight, CURLcode code) {
    struct etcd_transfer *transfer = &flight->transfer;
    long status = 0, sent = 0;
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &sent);
    etcd_transfer_end(transfer, flight->etcd->multi);
    if (flight->kind == FLIGHT_WATCH && !flight->login) {
        watch_over(flight);
    } else if (code != CURLE_OK) {
        transfer_fail(flight, code, sent);
    } else if (flight->login) {
        login_finish(flight, status);
    } else if (status == 200) {
        answer_finish(flight);
    } else {
        error_finish(flight, status);
    }
}

/* ---- The thread ---------------------------------------------------------------------------------------------------- */

static void asks_begin(struct etcd *etcd) {
    struct coordinator_ask *ask;
    while (etcd->ask_count < FLIGHTS_MAX && (ask = coordinator_next(&etcd->base)) != NULL) {
        struct flight *flight = flight_new(etcd, FLIGHT_ASK);
        if (!flight) {
            coordinator_answer(&etcd->base, ask, COORDINATOR_UNAVAILABLE);
            continue;
        }
        etcd->ask_count++;
        flight->ask = ask;
        flight_send(flight);
    }
}

static void timers_run(struct etcd *etcd) {
    uint64_t now = world_monotonic_ns();
    if (etcd->watch && !etcd->watch->created && now > etcd->watch->end_ns) {
        watch_over(etcd->watch);
    }
    if (!etcd->reading && now >= etcd->read_at_ns) {
        etcd->read_at_ns = UINT64_MAX; /* its end says when the next one is due */
        etcd->reading = flight_new(etcd, FLIGHT_READ);
        if (etcd->reading) {
            flight_send(etcd->reading);
        } else {
            read_later(etcd);
        }
    }
}

static void transfers_run(struct etcd *etcd) {
    int count;
    CURLMsg *message;
    (void)curl_multi_perform(etcd->multi, &count);
    while ((message = curl_multi_info_read(etcd->multi, &count)) != NULL) {
        char *context = NULL;
        CURLcode code = message->data.result;
        if (message->msg == CURLMSG_DONE &&
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &context) == CURLE_OK) {
            flight_over((struct flight *)(void *)context, code);
        }
    }
}

static int pause_ms(const struct etcd *etcd) {
    uint64_t now = world_monotonic_ns();
    uint64_t until = etcd->reading ? UINT64_MAX : etcd->read_at_ns;
    if (etcd->watch && !etcd->watch->created) {
        until = min_u64(until, etcd->watch->end_ns);
    }
    return until <= now ? 0 : (int)min_u64((until - now) / 1000000 + 1, 1000);
}

static void etcd_run(struct coordinator *coordinator) {
    struct etcd *etcd = etcd_of(coordinator);
    while (!coordinator_closing(coordinator)) {
        asks_begin(etcd);
        timers_run(etcd);
        transfers_run(etcd);
        (void)curl_multi_poll(etcd->multi, NULL, 0, pause_ms(etcd), NULL);
    }
    LIST_FOREACH(link, &etcd->flights) {
        flight_free(LIST_ENTRY(link, struct flight, link));
    }
    char text[COORDINATOR_TEXT_MAX];
    if (etcd->memory.memory.revision != etcd->memory.stored.revision) {
        (void)memory_file_store(&etcd->memory, text);
    }
}

static void etcd_wake(struct coordinator *coordinator) {
    (void)curl_multi_wakeup(etcd_of(coordinator)->multi);
}

/* ---- Opening and closing -------------------------------------------------------------------------------------------- */

static void etcd_free(struct coordinator *coordinator) {
    struct etcd *etcd = etcd_of(coordinator);
    struct etcd_settings *settings = &etcd->settings;
    for (uint32_t i = 0; i < settings->endpoint_count; i++) {
        free(settings->endpoints[i]);
    }
    free(settings->user);
    if (settings->password) {
        explicit_bzero(settings->password, strlen(settings->password));
    }
    free(settings->password);
    free(settings->ca_file);
    free(settings->certificate_file);
    free(settings->key_file);
    memory_file_close(&etcd->memory);
    if (etcd->multi) {
        (void)curl_multi_cleanup(etcd->multi);
    }
    free(etcd);
}

static const struct coordinator_backend backend = {etcd_run, etcd_wake, etcd_free};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static bool curl_usable;
static void curl_begin(void) {
    curl_usable = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
}

static bool text_copy(char **ret_copy, const char *text) {
    *ret_copy = text ? strdup(text) : NULL;
    return !text || *ret_copy;
}

static bool settings_copy(struct etcd *etcd, const struct coordinator_etcd_options *options) {
    struct etcd_settings *settings = &etcd->settings;
    bool good = true;
    for (uint32_t i = 0; i < options->endpoint_count; i++) {
        const char *endpoint = options->endpoints[i];
        size_t size = strlen(endpoint);
        good &= text_copy(&settings->endpoints[i], endpoint);
        settings->endpoint_count++;
        if (good && size > 0 && endpoint[size - 1] == '/') {
            settings->endpoints[i][size - 1] = 0;
        }
    }
    good &= text_copy(&settings->user, options->user) & text_copy(&settings->password, options->password);
    good &= text_copy(&settings->ca_file, options->ca_file);
    good &= text_copy(&settings->certificate_file, options->certificate_file);
    return good & text_copy(&settings->key_file, options->key_file);
}

static const char *options_problem(const struct coordinator_etcd_options *options,
                                   struct etcd_names *ret_names) {
    char body[ETCD_REQUEST_MAX];
    if (options->endpoint_count == 0 || options->endpoint_count > COORDINATOR_ENDPOINTS_MAX) {
        return "1 to 8 endpoints of etcd are needed";
    }
    for (uint32_t i = 0; i < options->endpoint_count; i++) {
        const char *endpoint = options->endpoints[i];
        if (strlen(endpoint) > 512 ||
            (strncmp(endpoint, "http://", 7) != 0 && strncmp(endpoint, "https://", 8) != 0)) {
            return "an endpoint of etcd is http://HOST:PORT or https://HOST:PORT";
        }
    }
    if (!etcd_names_make(options->cluster, ret_names)) {
        return "the name of a cluster is 1 to 63 letters, digits, '.', '_' and '-'";
    }
    if ((options->user == NULL) != (options->password == NULL)) {
        return "a user of etcd and a password belong together";
    }
    bool fits = !options->user || etcd_format_login(options->user, options->password, body);
    explicit_bzero(body, sizeof(body));
    return fits ? NULL : "the user of etcd or the password is too long, or not UTF-8";
}

static shelf_result etcd_prepare(struct etcd *etcd, const struct coordinator_etcd_options *options,
                                 char ret_text[COORDINATOR_TEXT_MAX]) {
    uint64_t seed;
    const char *problem = options_problem(options, &etcd->names);
    if (problem) {
        coordinator_text(ret_text, "%s", problem);
        return SHELF_INVALID;
    }
    (void)pthread_once(&curl_once, curl_begin);
    etcd->multi = curl_usable ? curl_multi_init() : NULL;
    if (!etcd->multi || !settings_copy(etcd, options)) {
        coordinator_text(ret_text, "no memory for the coordinator");
        return SHELF_NO_MEMORY;
    }
    etcd->timeout_ms = options->timeout_ms ? options->timeout_ms : 2000;
    etcd->probe_ms = options->probe_ms ? options->probe_ms : 1000;
    world_random_fill(&seed, sizeof(seed));
    random_seed(&etcd->random, seed);
    coordinator_text(etcd->base.status.place, "%s", etcd->settings.endpoints[0]);
    return memory_file_open(&etcd->memory, options->directory, ret_text);
}

shelf_result coordinator_open_etcd(const struct coordinator_etcd_options *options,
                                   struct coordinator **ret_coordinator,
                                   char ret_text[COORDINATOR_TEXT_MAX]) {
    struct etcd *etcd = calloc(1, sizeof(*etcd));
    if (!etcd) {
        coordinator_text(ret_text, "no memory for the coordinator");
        return SHELF_NO_MEMORY;
    }
    etcd->memory.fd_directory = -1;
    list_init(&etcd->flights);
    bool made = coordinator_init(&etcd->base, &backend);
    shelf_result result = made ? etcd_prepare(etcd, options, ret_text) : SHELF_NO_MEMORY;
    if (result == SHELF_OK && !coordinator_begin(&etcd->base)) {
        result = SHELF_NO_MEMORY;
    }
    if (result != SHELF_OK) {
        if (result == SHELF_NO_MEMORY) {
            coordinator_text(ret_text, "no memory for the coordinator");
        }
        coordinator_free(&etcd->base);
        return result;
    }
    *ret_coordinator = &etcd->base;
    return SHELF_OK;
}
