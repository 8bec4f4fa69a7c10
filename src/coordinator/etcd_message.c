// SPDX-License-Identifier: Apache-2.0
/* etcd_message.c: JSON by jansson, see etcd_message.h. */
#include "coordinator/etcd_message.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/base64.h"

#define KEY_TEXT_SIZE (BASE64_SIZE(ETCD_KEY_MAX) + 1)

/* ---- Names --------------------------------------------------------------------------------------------------------- */

bool etcd_names_make(const char *cluster, struct etcd_names *ret_names) {
    size_t size = strlen(cluster);
    size_t good = strspn(cluster, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
    if (size == 0 || size >= COORDINATOR_CLUSTER_MAX || good != size) {
        return false;
    }
    (void)snprintf(ret_names->prefix, sizeof(ret_names->prefix), "/shelf/%s/", cluster);
    return true;
}

static const char *kind_name(uint32_t kind) {
    return kind == REGISTER_NODE ? "nodes/" : "configuration/";
}

static void key_make(const struct etcd_names *names, struct register_id id, char ret_text[KEY_TEXT_SIZE]) {
    char key[ETCD_KEY_MAX];
    int size = snprintf(key, sizeof(key), "%s%s%" PRIu64, names->prefix, kind_name(id.kind), id.number);
    ASSERT(size > 0 && (size_t)size < sizeof(key));
    base64_encode(key, (size_t)size, ret_text);
}

/* The first key behind all that begin with the prefix: its last character, '/', plus one. */
static void prefix_make(const struct etcd_names *names, char ret_text[KEY_TEXT_SIZE],
                        char ret_end_text[KEY_TEXT_SIZE]) {
    char end[ETCD_KEY_MAX];
    size_t size = strlen(names->prefix);
    memcpy(end, names->prefix, size);
    end[size - 1]++;
    base64_encode(names->prefix, size, ret_text);
    base64_encode(end, size, ret_end_text);
}

/* Numbers have one spelling. */
static bool number_parse(const char *text, uint64_t *ret_number) {
    uint64_t number = 0;
    if (*text == 0 || (*text == '0' && text[1] != 0)) {
        return false;
    }
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(number, 10u, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*text - '0'), &number)) {
            return false;
        }
    }
    *ret_number = number;
    return true;
}

/* False: a key that is not ours to know. */
static bool key_parse(const struct etcd_names *names, const char *text, size_t text_size,
                      struct register_id *ret_id) {
    char key[ETCD_KEY_MAX];
    size_t size;
    size_t prefix_size = strlen(names->prefix);
    if (!base64_decode(text, text_size, key, sizeof(key) - 1, &size) || memchr(key, 0, size)) {
        return false;
    }
    key[size] = 0;
    if (strncmp(key, names->prefix, prefix_size) != 0) {
        return false;
    }
    for (uint32_t kind = REGISTER_CONFIGURATION; kind <= REGISTER_NODE; kind++) {
        size_t name_size = strlen(kind_name(kind));
        if (strncmp(key + prefix_size, kind_name(kind), name_size) == 0) {
            ret_id->kind = kind;
            return number_parse(key + prefix_size + name_size, &ret_id->number);
        }
    }
    return false;
}

/* ---- Requests ------------------------------------------------------------------------------------------------------- */

static void body_format(char ret_body[ETCD_REQUEST_MAX], const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void body_format(char ret_body[ETCD_REQUEST_MAX], const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is, in the line above
    int size = vsnprintf(ret_body, ETCD_REQUEST_MAX, format, arguments);
    va_end(arguments);
    ASSERT(size > 0 && size < (int)ETCD_REQUEST_MAX); /* all that goes in is bounded */
}

void etcd_format_get(const struct etcd_names *names, struct register_id id, char ret_body[ETCD_REQUEST_MAX]) {
    char key[KEY_TEXT_SIZE];
    key_make(names, id, key);
    body_format(ret_body, "{\"key\":\"%s\"}", key);
}

void etcd_format_ask(const struct etcd_names *names, const struct coordinator_ask *ask,
                     char ret_body[ETCD_REQUEST_MAX]) {
    char key[KEY_TEXT_SIZE], value[BASE64_SIZE(REGISTER_VALUE_MAX) + 1];
    char change[KEY_TEXT_SIZE + sizeof(value) + 64];
    key_make(names, ask->id, key);
    if (ask->act == COORDINATOR_SWAP) {
        base64_encode(ask->value, ask->size, value);
        (void)snprintf(change, sizeof(change), "{\"request_put\":{\"key\":\"%s\",\"value\":\"%s\"}}", key,
                       value);
    } else {
        (void)snprintf(change, sizeof(change), "{\"request_delete_range\":{\"key\":\"%s\"}}", key);
    }
    body_format(
        ret_body,
        "{\"compare\":[{\"key\":\"%s\",\"target\":\"MOD\",\"result\":\"EQUAL\",\"mod_revision\":\"%" PRIu64
        "\"}],\"success\":[%s,{\"request_range\":{\"key\":\"%s\"}}],"
        "\"failure\":[{\"request_range\":{\"key\":\"%s\"}}]}",
        key, ask->expected, change, key, key);
}

void etcd_format_read_all(const struct etcd_names *names, char ret_body[ETCD_REQUEST_MAX]) {
    char key[KEY_TEXT_SIZE], end[KEY_TEXT_SIZE];
    prefix_make(names, key, end);
    body_format(ret_body, "{\"key\":\"%s\",\"range_end\":\"%s\",\"limit\":\"%u\"}", key, end,
                REGISTERS_MAX + 1);
}

void etcd_format_watch(const struct etcd_names *names, uint64_t start_revision,
                       char ret_body[ETCD_REQUEST_MAX]) {
    char key[KEY_TEXT_SIZE], end[KEY_TEXT_SIZE];
    prefix_make(names, key, end);
    body_format(ret_body,
                "{\"create_request\":{\"key\":\"%s\",\"range_end\":\"%s\",\"start_revision\":\"%" PRIu64
                "\"}}",
                key, end, start_revision);
}

bool etcd_format_login(const char *user, const char *password, char ret_body[ETCD_REQUEST_MAX]) {
    json_t *login = json_pack("{s:s, s:s}", "name", user, "password", password);
    char *text = login ? json_dumps(login, JSON_COMPACT) : NULL;
    size_t size = text ? strlen(text) : ETCD_REQUEST_MAX;
    if (size < ETCD_REQUEST_MAX) {
        memcpy(ret_body, text, size + 1);
    }
    free(text);
    json_decref(login);
    return size < ETCD_REQUEST_MAX;
}

/* ---- Answers ------------------------------------------------------------------------------------------------------- */

static bool wrong(char ret_reason[ETCD_REASON_MAX], const char *reason) {
    (void)snprintf(ret_reason, ETCD_REASON_MAX, "%s", reason);
    return false;
}

/* A member that may be left out, which means zero. */
static bool number_get(const json_t *object, const char *name, uint64_t *ret_number) {
    const json_t *member = json_object_get(object, name);
    *ret_number = 0;
    if (json_is_string(member)) {
        return json_string_length(member) == strlen(json_string_value(member)) &&
               number_parse(json_string_value(member), ret_number);
    }
    if (json_is_integer(member) && json_integer_value(member) >= 0) {
        *ret_number = (uint64_t)json_integer_value(member);
        return true;
    }
    return member == NULL;
}

static bool flag_get(const json_t *object, const char *name, bool *ret_flag) {
    const json_t *member = json_object_get(object, name);
    *ret_flag = json_is_true(member);
    return member == NULL || json_is_boolean(member);
}

static bool header_parse(const json_t *object, struct etcd_answer *answer, char ret_reason[ETCD_REASON_MAX]) {
    const json_t *header = json_object_get(object, "header");
    if (!json_is_object(header) || !number_get(header, "cluster_id", &answer->store) ||
        !number_get(header, "revision", &answer->revision) || answer->store == 0) {
        return wrong(ret_reason, "it has no header of etcd");
    }
    return true;
}

/* One key and its value, appended to the answer unless it is none of ours. */
static bool register_parse(const struct etcd_names *names, const json_t *kv, bool removed,
                           struct etcd_answer *answer, char ret_reason[ETCD_REASON_MAX]) {
    struct etcd_register *entry = &answer->registers[answer->count];
    const json_t *key = json_object_get(kv, "key");
    const json_t *value = json_object_get(kv, "value");
    if (!json_is_string(key) || (value && !json_is_string(value))) {
        return wrong(ret_reason, "a key or value in it is none");
    }
    if (!key_parse(names, json_string_value(key), json_string_length(key), &entry->id)) {
        return true;
    }
    entry->removed = removed;
    if (!number_get(kv, "mod_revision", &entry->state.revision) ||
        !number_get(kv, "create_revision", &entry->history.created) ||
        !number_get(kv, "version", &entry->history.version) || entry->state.revision == 0) {
        return wrong(ret_reason, "a register in it has no revision");
    }
    if (!removed) {
        size_t size = 0;
        if (value && !base64_decode(json_string_value(value), json_string_length(value), entry->state.value,
                                    REGISTER_VALUE_MAX, &size)) {
            return wrong(ret_reason, "a register in it is no base64 or too large");
        }
        if (size == 0) {
            return wrong(ret_reason, "a register in it is empty");
        }
        entry->state.size = (uint32_t)size;
    }
    answer->count++;
    return true;
}

static bool room_make(struct etcd_answer *answer, size_t count, char ret_reason[ETCD_REASON_MAX]) {
    answer->registers = calloc(count ? count : 1, sizeof(*answer->registers));
    return answer->registers != NULL || wrong(ret_reason, "there is no memory for it");
}

/* The part of an answer that a range makes. `count_max` keys at most. */
static bool kvs_parse(const struct etcd_names *names, const json_t *object, size_t count_max,
                      struct etcd_answer *answer, char ret_reason[ETCD_REASON_MAX]) {
    const json_t *kvs = json_object_get(object, "kvs");
    bool more;
    if ((kvs && !json_is_array(kvs)) || !flag_get(object, "more", &more)) {
        return wrong(ret_reason, "it has no list of keys");
    }
    if (json_array_size(kvs) > count_max || more) {
        return wrong(ret_reason, "it has more keys than were asked for");
    }
    if (!room_make(answer, json_array_size(kvs), ret_reason)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(kvs); i++) {
        if (!register_parse(names, json_array_get(kvs, i), false, answer, ret_reason)) {
            return false;
        }
    }
    return true;
}

static bool range_parse(const struct etcd_names *names, const json_t *object, struct etcd_answer *answer,
                        char ret_reason[ETCD_REASON_MAX]) {
    return header_parse(object, answer, ret_reason) &&
           kvs_parse(names, object, REGISTERS_MAX, answer, ret_reason);
}

/* The last response of a transaction is the range. */
static bool ask_parse(const struct etcd_names *names, const json_t *object, struct etcd_answer *answer,
                      char ret_reason[ETCD_REASON_MAX]) {
    const json_t *responses = json_object_get(object, "responses");
    if (!header_parse(object, answer, ret_reason)) {
        return false;
    }
    if (!flag_get(object, "succeeded", &answer->succeeded) ||
        json_array_size(responses) != (answer->succeeded ? 2 : 1)) {
        return wrong(ret_reason, "it is not the answer of a transaction");
    }
    const json_t *range =
        json_object_get(json_array_get(responses, json_array_size(responses) - 1), "response_range");
    if (!json_is_object(range)) {
        return wrong(ret_reason, "it does not tell what the register holds");
    }
    return kvs_parse(names, range, 1, answer, ret_reason);
}

static bool events_parse(const struct etcd_names *names, const json_t *events, struct etcd_answer *answer,
                         char ret_reason[ETCD_REASON_MAX]) {
    if (json_array_size(events) > ETCD_EVENTS_MAX) {
        return wrong(ret_reason, "it has too many events");
    }
    if (!room_make(answer, json_array_size(events), ret_reason)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(events); i++) {
        const json_t *event = json_array_get(events, i);
        const json_t *type = json_object_get(event, "type");
        bool removed = json_is_string(type) && strcmp(json_string_value(type), "DELETE") == 0;
        if (type && !removed && !(json_is_string(type) && strcmp(json_string_value(type), "PUT") == 0)) {
            return wrong(ret_reason, "an event in it is of no known type");
        }
        if (!register_parse(names, json_object_get(event, "kv"), removed, answer, ret_reason)) {
            return false;
        }
    }
    return true;
}

/* What people may be shown of a text from outside. */
static void message_copy(const json_t *message, char ret_text[ETCD_REASON_MAX]) {
    bool said = json_is_string(message) && json_string_value(message)[0] != 0;
    (void)snprintf(ret_text, ETCD_REASON_MAX, "%s",
                   said ? json_string_value(message) : "it failed and did not say why");
    for (char *at = ret_text; *at; at++) {
        *at = *at >= ' ' && *at <= '~' ? *at : '?';
    }
}

static bool watch_parse(const struct etcd_names *names, const json_t *object, struct etcd_answer *answer,
                        char ret_reason[ETCD_REASON_MAX]) {
    const json_t *result = json_object_get(object, "result");
    const json_t *events = json_object_get(result, "events");
    const json_t *error = json_object_get(object, "error");
    if (error) {
        message_copy(json_object_get(error, "message"), ret_reason);
        return false;
    }
    if (!header_parse(result, answer, ret_reason)) {
        return false;
    }
    if (!flag_get(result, "created", &answer->created) || !flag_get(result, "canceled", &answer->canceled) ||
        !number_get(result, "compact_revision", &answer->compact_revision) ||
        (events && !json_is_array(events))) {
        return wrong(ret_reason, "it is not the answer of a watch");
    }
    return events_parse(names, events, answer, ret_reason);
}

typedef bool answer_parser(const struct etcd_names *, const json_t *, struct etcd_answer *, char *);

static bool answer_parse(const struct etcd_names *names, const char *body, size_t size, answer_parser *parser,
                         struct etcd_answer *ret_answer, char ret_reason[ETCD_REASON_MAX]) {
    struct etcd_answer answer = {0};
    if (size > ETCD_ANSWER_MAX) {
        return wrong(ret_reason, "it is too long");
    }
    json_t *object = json_loadb(body, size, JSON_REJECT_DUPLICATES, NULL);
    bool good = json_is_object(object) ? parser(names, object, &answer, ret_reason)
                                       : wrong(ret_reason, "it is not JSON");
    json_decref(object);
    if (good) {
        *ret_answer = answer;
    } else {
        etcd_answer_free(&answer);
    }
    return good;
}

bool etcd_parse_range(const struct etcd_names *names, const char *body, size_t size,
                      struct etcd_answer *ret_answer, char ret_reason[ETCD_REASON_MAX]) {
    return answer_parse(names, body, size, range_parse, ret_answer, ret_reason);
}

bool etcd_parse_ask(const struct etcd_names *names, const char *body, size_t size,
                    struct etcd_answer *ret_answer, char ret_reason[ETCD_REASON_MAX]) {
    return answer_parse(names, body, size, ask_parse, ret_answer, ret_reason);
}

bool etcd_parse_watch(const struct etcd_names *names, const char *line, size_t size,
                      struct etcd_answer *ret_answer, char ret_reason[ETCD_REASON_MAX]) {
    return answer_parse(names, line, size, watch_parse, ret_answer, ret_reason);
}

void etcd_answer_free(struct etcd_answer *answer) {
    free(answer->registers);
    *answer = (struct etcd_answer){0};
}

bool etcd_parse_token(const char *body, size_t size, char ret_token[ETCD_TOKEN_MAX],
                      char ret_reason[ETCD_REASON_MAX]) {
    json_t *object = size <= ETCD_ANSWER_MAX ? json_loadb(body, size, JSON_REJECT_DUPLICATES, NULL) : NULL;
    const json_t *token = json_object_get(object, "token");
    size_t token_size = json_is_string(token) ? json_string_length(token) : 0;
    bool good = token_size > 0 && token_size < ETCD_TOKEN_MAX;
    for (size_t i = 0; good && i < token_size; i++) { /* it becomes a line of a header */
        good = json_string_value(token)[i] > ' ' && json_string_value(token)[i] <= '~';
    }
    if (good) {
        memcpy(ret_token, json_string_value(token), token_size + 1);
    }
    json_decref(object);
    return good || wrong(ret_reason, "it has no token");
}

void etcd_parse_error(const char *body, size_t size, struct etcd_error *ret_error) {
    json_t *object = size <= ETCD_ANSWER_MAX ? json_loadb(body, size, 0, NULL) : NULL;
    const json_t *code = json_object_get(object, "code");
    const json_t *message = json_object_get(object, "message");
    *ret_error = (struct etcd_error){0};
    if (json_is_integer(code) && json_integer_value(code) > 0 && json_integer_value(code) < 100) {
        ret_error->code = (uint32_t)json_integer_value(code);
    }
    message_copy(message, ret_error->message);
    json_decref(object);
}
