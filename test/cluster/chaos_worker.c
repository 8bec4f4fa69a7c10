// SPDX-License-Identifier: Apache-2.0
//
// chaos-worker: the programs of a cluster that is injured. What they do and are told they write as lines of a history (docs/history.md).
//
//   chaos-worker setup --where WHERE --registers N --sessions N      makes the region; done already: nothing
//   chaos-worker run   --where WHERE --out FILE --node N --client N --session N --clients N --registers N --sessions N
//                      --seed N --pause-us N
//   chaos-worker final --where WHERE --node N --registers N --sessions N --wait-ms N
//   chaos-worker look  --where WHERE                                 what the node says of its cluster, as JSON
//
// run: clients from number --client on, with sessions from number --session on, until SIGTERM. Each line is written by one call, before
// what it announces and after what it tells, so that a worker may be killed at any time.
// final: the last lines of a history: all registers, in one fresh read; tried again for so long.
//
// Memory: the word `place`, then a line for each register and each session.

#include "shelf.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE         64u
#define ID_CLIENT    32u // an id is the client's number and a count
#define TEXT_MAX     2048u
#define CHOSEN_MAX   4u
#define RETRY_US     5000u
#define DEADLINE_MS  3000u
#define OPEN_WAIT_MS 2000u
#define REGION_NAME  "chaos"

struct options {
    const char *command, *where, *out;
    uint64_t node, client, session, clients, registers, sessions, seed, pause_us, wait_ms;
};

struct worker {
    struct options options;
    shelf *s;
    shelf_region region;
    int out;
};

struct client {
    struct worker *worker;
    pthread_t thread;
    uint64_t number, session_number, count, random;
    char session_name[24];
    shelf_session *session;
    uint64_t sequence; // the next one
    uint64_t unknown;  // the sequence whose outcome was not learned; 0: none
};

static volatile sig_atomic_t told_to_end;

static void on_sigterm(int number) {
    (void)number;
    told_to_end = 1;
}

static uint64_t now_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void pause_us(uint64_t time_us) {
    struct timespec pause = {.tv_sec = (time_t)(time_us / 1000000),
                             .tv_nsec = (long)(time_us % 1000000) * 1000};
    (void)nanosleep(&pause, NULL);
}

static uint64_t random_below(struct client *client, uint64_t bound) {
    client->random ^= client->random << 13; // xorshift64: the same clients do the same with the same seed
    client->random ^= client->random >> 7;
    client->random ^= client->random << 17;
    return (client->random >> 11) % bound;
}

_Noreturn static void fail(const char *what, shelf_result result) {
    fprintf(stderr, "chaos-worker: %s: %s: %s\n", what, shelf_result_name(result), shelf_detail());
    _exit(1);
}

// What can be no matter of the cluster's state.
static void check(const char *what, shelf_result result) {
    if (result == SHELF_INVALID || result == SHELF_DENIED || result == SHELF_CORRUPT ||
        result == SHELF_FORMAT || result == SHELF_LAYOUT || result == SHELF_EXPIRED ||
        result == SHELF_FENCED || result == SHELF_IO || result == SHELF_TOO_LARGE) {
        fail(what, result);
    }
}

// ---- Lines

struct text {
    size_t size;
    char bytes[TEXT_MAX];
};

__attribute__((format(printf, 2, 3))) static void put(struct text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text->bytes + text->size, TEXT_MAX - text->size, format, arguments);
    va_end(arguments);
    if (size < 0 || (size_t)size >= TEXT_MAX - text->size) {
        fail("a line is too long", SHELF_TOO_LARGE);
    }
    text->size += (size_t)size;
}

static void put_event(struct text *text, const struct client *client, const char *event, uint64_t id) {
    put(text, "{\"event\":\"%s\",\"time\":%" PRIu64 ",\"client\":%" PRIu64 ",\"id\":%" PRIu64, event,
        now_ns(), client->number, id);
}

static void text_write(const struct client *client, struct text *text) {
    put(text, "}\n");
    if (write(client->worker->out, text->bytes, text->size) != (ssize_t)text->size) {
        fail("the history cannot be written", SHELF_IO);
    }
}

// More of an invoke is in `more`, of a printf's arguments.
__attribute__((format(printf, 4, 5))) static void tell_invoke(struct client *client, uint64_t id,
                                                              const char *kind, const char *more, ...) {
    struct text text = {0};
    char rest[200];
    va_list arguments;
    va_start(arguments, more);
    (void)vsnprintf(rest, sizeof(rest), more, arguments);
    va_end(arguments);
    put_event(&text, client, "invoke", id);
    put(&text, ",\"node\":%" PRIu64 ",\"kind\":\"%s\"%s", client->worker->options.node, kind, rest);
    text_write(client, &text);
}

static void tell_effect(struct client *client, uint64_t id, shelf_result result,
                        const struct shelf_receipt *receipt) {
    static const char *const durabilities[] = {"NOT", "LOCAL", "MAJORITY"};
    struct text text = {0};
    put_event(&text, client, "return", id);
    put(&text, ",\"result\":\"%s\"", shelf_result_name(result));
    if (result == SHELF_OK) {
        put(&text,
            ",\"index\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"place\":%" PRIu64
            ",\"durability\":\"%s\",\"replayed\":%s",
            receipt->index, receipt->epoch, receipt->result_count > 0 ? receipt->results[0] : 0,
            durabilities[receipt->durability], receipt->replayed ? "true" : "false");
    }
    text_write(client, &text);
}

// ---- Registers

static shelf_addr place_addr(const struct worker *worker) {
    return shelf_addr_make(worker->region, 0);
}

// The first ones are the registers, then come the sessions.
static shelf_addr register_addr(const struct worker *worker, uint64_t number) {
    return shelf_addr_make(worker->region, (number + 1) * LINE);
}

static void put_register(struct text *text, const struct worker *worker, uint64_t number) {
    if (number < worker->options.registers) {
        put(text, "r-%" PRIu64, number);
    } else {
        put(text, "s-%" PRIu64, number - worker->options.registers);
    }
}

static void put_operation(struct text *text, const struct worker *worker, char what, uint64_t number,
                          uint64_t value) {
    put(text, "%s[\"%c\",\"", text->bytes[text->size - 1] == '[' ? "" : ",", what);
    put_register(text, worker, number);
    put(text, "\",%" PRIu64 "]", value);
}

// Different ones below `bound`.
static uint64_t choose(struct client *client, uint64_t bound, uint64_t count, uint64_t chosen[CHOSEN_MAX]) {
    uint64_t done = 0;
    while (done < count && done < bound) {
        uint64_t number = random_below(client, bound);
        bool again = false;
        for (uint64_t i = 0; i < done; i++) {
            again = again || chosen[i] == number;
        }
        if (!again) {
            chosen[done++] = number;
        }
    }
    return done;
}

// ---- What clients do

static uint64_t id_next(struct client *client) {
    return client->number << ID_CLIENT | ++client->count;
}

static shelf_result update_body(struct client *client, shelf_tx *tx, uint64_t id, struct text *operations) {
    struct worker *worker = client->worker;
    uint64_t chosen[CHOSEN_MAX], value = 0, mine = worker->options.registers + client->session_number;
    shelf_result result = shelf_read(tx, register_addr(worker, mine), &value, sizeof(value));
    put_operation(operations, worker, 'r', mine, value);
    uint64_t count = choose(client, worker->options.registers, random_below(client, CHOSEN_MAX), chosen);
    for (uint64_t i = 0; i < count && result == SHELF_OK; i++) {
        result = shelf_read(tx, register_addr(worker, chosen[i]), &value, sizeof(value));
        put_operation(operations, worker, 'r', chosen[i], value);
    }
    if (result == SHELF_OK) {
        result = shelf_write(tx, register_addr(worker, mine), &id, sizeof(id));
        put_operation(operations, worker, 'w', mine, id);
    }
    count = choose(client, worker->options.registers, random_below(client, CHOSEN_MAX), chosen);
    for (uint64_t i = 0; i < count && result == SHELF_OK; i++) {
        result = shelf_write(tx, register_addr(worker, chosen[i]), &id, sizeof(id));
        put_operation(operations, worker, 'w', chosen[i], id);
    }
    return result == SHELF_OK ? shelf_add(tx, place_addr(worker), 1) : result;
}

static void update(struct client *client) {
    struct text operations = {0}, text = {0};
    struct shelf_receipt receipt = {0};
    shelf_tx *tx = NULL;
    uint64_t id = id_next(client), sequence = client->unknown ? client->unknown : client->sequence;
    tell_invoke(client, id, "update", "%s", "");
    put(&operations, "[");
    shelf_result result = shelf_session_begin(client->session, SHELF_READ_WRITE, &tx);
    if (result == SHELF_OK) {
        result = shelf_tx_sequence_set(tx, sequence);
        result = result == SHELF_OK ? update_body(client, tx, id, &operations) : result;
        if (result != SHELF_OK) {
            shelf_abort(tx);
        }
    }
    if (result == SHELF_OK) {
        put_event(&text, client, "submit", id);
        put(&text, ",\"session\":\"%s\",\"sequence\":%" PRIu64 ",\"operations\":%s]", client->session_name,
            sequence, operations.bytes);
        text_write(client, &text);
        result = shelf_commit(tx, &receipt);
    }
    tell_effect(client, id, result, &receipt);
    check("an update", result);
    if (result == SHELF_UNKNOWN) {
        client->unknown = sequence;
    } else if (result == SHELF_OK) {
        client->unknown = 0;
    }
    client->sequence = sequence >= client->sequence ? sequence + 1 : client->sequence;
}

static void settle(struct client *client) {
    struct shelf_receipt receipt = {0};
    uint64_t id = id_next(client);
    tell_invoke(client, id, "settle", ",\"session\":\"%s\",\"sequence\":%" PRIu64, client->session_name,
                client->unknown);
    shelf_result result = shelf_session_outcome(client->session, client->unknown, &receipt);
    tell_effect(client, id, result, &receipt);
    check("an outcome", result);
    if (result == SHELF_OK || result == SHELF_ABORTED) {
        client->unknown = 0;
    }
}

static void read_some(struct client *client, bool fresh) {
    struct worker *worker = client->worker;
    struct text operations = {0}, text = {0};
    uint64_t chosen[CHOSEN_MAX], value = 0, index = 0, id = id_next(client);
    uint64_t count = choose(client, worker->options.registers + worker->options.sessions, CHOSEN_MAX, chosen);
    shelf_tx *tx = NULL;
    tell_invoke(client, id, fresh ? "fresh" : "read", "%s", "");
    shelf_result result = shelf_begin(worker->s, SHELF_READ_ONLY | (fresh ? SHELF_FRESH : 0u), &tx);
    if (result == SHELF_OK) {
        result = shelf_read(tx, place_addr(worker), &value, sizeof(value));
        put(&operations, "[[\"r\",\"place\",%" PRIu64 "]", value);
        for (uint64_t i = 0; i < count && result == SHELF_OK; i++) {
            result = shelf_read(tx, register_addr(worker, chosen[i]), &value, sizeof(value));
            put_operation(&operations, worker, 'r', chosen[i], value);
        }
        index = shelf_tx_index(tx);
        shelf_abort(tx);
    }
    put_event(&text, client, "return", id);
    put(&text, ",\"result\":\"%s\"", shelf_result_name(result));
    if (result == SHELF_OK) {
        put(&text, ",\"index\":%" PRIu64 ",\"operations\":%s]", index, operations.bytes);
    }
    text_write(client, &text);
    check("a read", result);
}

static bool session_resume(struct client *client) {
    while (!told_to_end) {
        shelf_result result = shelf_session_open(client->worker->s, client->session_name, &client->session);
        if (result == SHELF_OK) {
            client->sequence = shelf_session_last(client->session) + 1;
            return true;
        }
        check("a session", result);
        pause_us(RETRY_US);
    }
    return false;
}

static void *client_main(void *context) {
    struct client *client = context;
    (void)snprintf(client->session_name, sizeof(client->session_name), "s-%" PRIu64, client->session_number);
    if (!session_resume(client)) {
        return NULL;
    }
    while (!told_to_end) {
        uint64_t what = random_below(client, 100);
        if (client->unknown && what < 50) {
            settle(client);
        } else if (what < 60) {
            update(client); // in place of one that is not settled yet, if there is one
        } else {
            read_some(client, what < 80);
        }
        pause_us(random_below(client, 2 * client->worker->options.pause_us + 1));
    }
    shelf_session_close(client->session);
    return NULL;
}

// ---- Commands

static void worker_open(struct worker *worker, bool region) {
    struct shelf_options options = {.commit_deadline_ms = DEADLINE_MS, .open_deadline_ms = OPEN_WAIT_MS};
    shelf_result result = SHELF_OK;
    do {
        result = shelf_open(worker->options.where, &options, &worker->s);
        check("the shelf", result == SHELF_IO ? SHELF_OK : result);
        if (result != SHELF_OK && !told_to_end) {
            pause_us(RETRY_US);
        }
    } while (result != SHELF_OK && !told_to_end);
    while (result == SHELF_OK && region && !told_to_end &&
           (result = shelf_region_open(worker->s, REGION_NAME, &worker->region)) != SHELF_OK) {
        check("the region", result);
        pause_us(RETRY_US);
        result = SHELF_OK;
    }
    if (told_to_end) {
        exit(0);
    }
}

static int command_setup(struct worker *worker) {
    uint64_t size = (worker->options.registers + worker->options.sessions + 1) * LINE;
    worker_open(worker, false);
    for (;;) {
        shelf_result result = shelf_region_create(worker->s, REGION_NAME, size, size, &worker->region);
        check("the region", result);
        if (result == SHELF_OK || result == SHELF_EXISTS) {
            (void)shelf_close(worker->s);
            return 0;
        }
        pause_us(RETRY_US);
    }
}

static int command_run(struct worker *worker) {
    struct options *options = &worker->options;
    struct client *clients = calloc(options->clients, sizeof(*clients));
    worker->out = open(options->out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (!clients || worker->out < 0) {
        fail(options->out, SHELF_IO);
    }
    worker_open(worker, true);
    for (uint64_t i = 0; i < options->clients; i++) {
        clients[i] = (struct client){.worker = worker,
                                     .number = options->client + i,
                                     .session_number = options->session + i,
                                     .random = (options->seed * 1000003u + options->client + i) | 1u};
        if (pthread_create(&clients[i].thread, NULL, client_main, &clients[i]) != 0) {
            fail("a thread", SHELF_NO_MEMORY);
        }
    }
    for (uint64_t i = 0; i < options->clients; i++) {
        (void)pthread_join(clients[i].thread, NULL);
    }
    free(clients);
    (void)shelf_close(worker->s);
    return 0;
}

static shelf_result final_read(struct worker *worker, struct text *text) {
    uint64_t value = 0, count = worker->options.registers + worker->options.sessions;
    shelf_tx *tx = NULL;
    shelf_result result = shelf_begin(worker->s, SHELF_READ_ONLY | SHELF_FRESH, &tx);
    if (result != SHELF_OK) {
        return result;
    }
    result = shelf_read(tx, place_addr(worker), &value, sizeof(value));
    put(text, ",\"registers\":{\"place\":%" PRIu64, value);
    for (uint64_t i = 0; i < count && result == SHELF_OK; i++) {
        result = shelf_read(tx, register_addr(worker, i), &value, sizeof(value));
        put(text, ",\"");
        put_register(text, worker, i);
        put(text, "\":%" PRIu64, value);
    }
    put(text, "},\"index\":%" PRIu64, shelf_tx_index(tx));
    shelf_abort(tx);
    return result;
}

static int command_final(struct worker *worker) {
    uint64_t until_ns = now_ns() + worker->options.wait_ms * 1000000u;
    shelf_result result = SHELF_OK;
    worker_open(worker, true);
    do {
        struct text text = {0};
        put(&text, "{\"event\":\"final\",\"time\":%" PRIu64 ",\"node\":%" PRIu64, now_ns(),
            worker->options.node);
        result = final_read(worker, &text);
        if (result == SHELF_OK) {
            printf("%s}\n", text.bytes);
            (void)shelf_close(worker->s);
            return 0;
        }
        check("the last read", result);
        pause_us(RETRY_US);
    } while (now_ns() < until_ns);
    fail("the last read", result);
}

static int command_look(struct worker *worker) {
    struct shelf_cluster_info info;
    worker_open(worker, false);
    shelf_result result = shelf_cluster_get(worker->s, &info);
    if (result != SHELF_OK) {
        fail("the cluster", result);
    }
    printf("{\"node\":%" PRIu64 ",\"part\":%d,\"serves\":%s,\"primary\":%" PRIu64 ",\"epoch\":%" PRIu64
           ",\"in_sync\":%u,\"applied\":%" PRIu64 "}\n",
           info.node, (int)info.part, info.serves ? "true" : "false", info.primary, info.epoch, info.in_sync,
           shelf_applied(worker->s));
    (void)shelf_close(worker->s);
    return 0;
}

static bool option_set(struct options *options, const char *name, const char *value) {
    struct {
        const char *name;
        uint64_t *value;
    } numbers[] = {{"--node", &options->node},           {"--client", &options->client},
                   {"--session", &options->session},     {"--clients", &options->clients},
                   {"--registers", &options->registers}, {"--sessions", &options->sessions},
                   {"--seed", &options->seed},           {"--pause-us", &options->pause_us},
                   {"--wait-ms", &options->wait_ms}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].value = strtoull(value, NULL, 10);
            return true;
        }
    }
    if (strcmp(name, "--where") == 0) {
        options->where = value;
        return true;
    }
    if (strcmp(name, "--out") == 0) {
        options->out = value;
        return true;
    }
    return false;
}

int main(int argc, char **argv) {
    struct worker worker = {.options = {.command = argc > 1 ? argv[1] : ""}};
    static const struct {
        const char *name;
        int (*run)(struct worker *worker);
    } commands[] = {
        {"setup", command_setup}, {"run", command_run}, {"final", command_final}, {"look", command_look}};
    bool good = argc % 2 == 0;
    for (int i = 2; i + 1 < argc && good; i += 2) {
        good = option_set(&worker.options, argv[i], argv[i + 1]);
    }
    (void)sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_sigterm}, NULL);
    for (size_t i = 0; good && worker.options.where && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(worker.options.command, commands[i].name) == 0) {
            return commands[i].run(&worker);
        }
    }
    fprintf(stderr, "chaos-worker: see the comment at its head\n");
    return 65;
}
