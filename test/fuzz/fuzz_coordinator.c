// SPDX-License-Identifier: Apache-2.0
/*
 * fuzz_coordinator.c: any bytes as an answer of etcd, and as a value that a register holds. The first byte says as what; either
 * everything is within bounds, or it is refused with a sentence. Values get a right checksum if that byte is
 * large, so that what it protects is tried, too.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "coordinator/etcd_message.h"
#include "wire/configuration.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good) {
    if (!good) {
        abort();
    }
}

static void reason_require(const char *reason, size_t size_max) {
    require(reason[0] != 0 && memchr(reason, 0, size_max));
}

typedef bool parser(const struct etcd_names *, const char *, size_t, struct etcd_answer *, char *);

static void answer_try(parser *parse, const char *text, size_t size, uint32_t count_max) {
    struct etcd_names names;
    struct etcd_answer answer = {0};
    char reason[ETCD_REASON_MAX] = "";
    require(etcd_names_make("fuzz", &names));
    if (!parse(&names, text, size, &answer, reason)) {
        reason_require(reason, sizeof(reason));
        require(!answer.registers);
        return;
    }
    require(answer.store != 0 && answer.count <= count_max);
    struct coordinator_memory memory = {0};
    (void)coordinator_memory_store(&memory, answer.store, answer.revision, 0);
    for (uint32_t i = 0; i < answer.count; i++) {
        const struct etcd_register *found = &answer.registers[i];
        require(found->id.kind == REGISTER_CONFIGURATION || found->id.kind == REGISTER_NODE);
        require(found->state.revision != 0 && found->state.size <= REGISTER_VALUE_MAX);
        require(found->removed == (found->state.size == 0));
        (void)coordinator_memory_register(&memory, found->id, &found->state, found->history, answer.revision);
    }
    require(!coordinator_memory_problem(&memory));
    etcd_answer_free(&answer);
}

static void token_try(const char *text, size_t size) {
    char token[ETCD_TOKEN_MAX], reason[ETCD_REASON_MAX] = "";
    if (!etcd_parse_token(text, size, token, reason)) {
        reason_require(reason, sizeof(reason));
        return;
    }
    size_t token_size = strnlen(token, sizeof(token));
    require(token_size > 0 && token_size < sizeof(token));
    for (size_t i = 0; i < token_size; i++) {
        require(token[i] > ' ' && token[i] <= '~');
    }
}

static void error_try(const char *text, size_t size) {
    struct etcd_error error;
    etcd_parse_error(text, size, &error);
    reason_require(error.message, sizeof(error.message));
    for (const char *at = error.message; *at; at++) {
        require(*at >= ' ' && *at <= '~');
    }
}

static void values_try(uint8_t *bytes, size_t size, bool repair) {
    struct configuration configuration;
    struct node_record record;
    uint8_t again[REGISTER_VALUE_MAX], shelf_id[16];
    if (repair && size >= 12) {
        uint32_t crc = 0;
        memcpy(bytes + 8, &crc, 4);
        crc = crc32c(0, bytes, size);
        memcpy(bytes + 8, &crc, 4);
    }
    if (!configuration_decode(bytes, size, &configuration, shelf_id)) { /* what is good has one spelling */
        require(configuration_encode(&configuration, shelf_id, again) == size &&
                memcmp(again, bytes, size) == 0);
    }
    if (!node_record_decode(bytes, size, &record)) {
        require(node_record_encode(&record, again) == size && memcmp(again, bytes, size) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    uint8_t which = data[0];
    char *text = malloc(size); /* of this size exactly, so that a sanitizer sees the end */
    if (!text) {
        return 0;
    }
    memcpy(text, data + 1, size - 1);
    switch (which % 6) {
    case 0:
        answer_try(etcd_parse_range, text, size - 1, REGISTERS_MAX);
        break;
    case 1:
        answer_try(etcd_parse_ask, text, size - 1, 1);
        break;
    case 2:
        answer_try(etcd_parse_watch, text, size - 1, ETCD_EVENTS_MAX);
        break;
    case 3:
        token_try(text, size - 1);
        break;
    case 4:
        error_try(text, size - 1);
        break;
    default:
        values_try((uint8_t *)text, size - 1, which >= 128);
        break;
    }
    free(text);
    return 0;
}
