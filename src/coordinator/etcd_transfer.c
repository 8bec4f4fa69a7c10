// SPDX-License-Identifier: Apache-2.0
/* etcd_transfer.c: a POST by libcurl, see etcd_transfer.h. */
#include "coordinator/etcd_transfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define ANSWER_STEP ((size_t)4096)

/* Hands whole lines on, and keeps the rest. */
static bool lines_tell(struct etcd_transfer *transfer) {
    size_t at = 0;
    const char *end;
    while ((end = memchr(transfer->answer + at, '\n', transfer->size - at)) != NULL) {
        size_t size = (size_t)(end - transfer->answer) - at;
        if (size > 0 && !transfer->on_line(transfer->context, transfer->answer + at, size)) {
            return false;
        }
        at += size + 1;
    }
    memmove(transfer->answer, transfer->answer + at, transfer->size - at);
    transfer->size -= at;
    return true;
}

static bool answer_append(struct etcd_transfer *transfer, const char *bytes, size_t size) {
    if (size > ETCD_ANSWER_MAX - transfer->size) {
        transfer->too_long = true;
        return false;
    }
    if (size > transfer->capacity - transfer->size) {
        size_t capacity = (transfer->size + size) * 2 + ANSWER_STEP;
        char *answer = realloc(transfer->answer, capacity);
        if (!answer) {
            return false;
        }
        transfer->answer = answer;
        transfer->capacity = capacity;
    }
    memcpy(transfer->answer + transfer->size, bytes, size);
    transfer->size += size;
    return true;
}

static size_t on_write(char *bytes, size_t one, size_t size, void *context) {
    struct etcd_transfer *transfer = context;
    bool good = size == 0 || answer_append(transfer, bytes, size * one);
    if (good && transfer->on_line && transfer->size > 0) {
        good = lines_tell(transfer);
    }
    return good ? size * one : CURL_WRITEFUNC_ERROR;
}

/* No child of the program gets our connections. */
static curl_socket_t on_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address) {
    (void)context;
    (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static bool headers_make(struct etcd_transfer *transfer, const char *token) {
    char line[ETCD_TOKEN_MAX + 32];
    const char *lines[] = {"Content-Type: application/json", "Expect:", "Accept:", NULL, NULL};
    if (token[0] != 0) {
        (void)snprintf(line, sizeof(line), "Authorization: %s", token);
        lines[3] = line;
    }
    for (size_t i = 0; lines[i]; i++) {
        struct curl_slist *longer = curl_slist_append(transfer->headers, lines[i]);
        if (!longer) {
            return false;
        }
        transfer->headers = longer;
    }
    return true;
}

/* NULL, which is curl's preset, where a setting is not made. */
static bool security_set(CURL *easy, const struct etcd_settings *settings) {
    CURLcode code = CURLE_OK;
    if (settings->ca_file) {
        code = curl_easy_setopt(easy, CURLOPT_CAINFO, settings->ca_file);
    }
    if (code == CURLE_OK && settings->certificate_file) {
        code = curl_easy_setopt(easy, CURLOPT_SSLCERT, settings->certificate_file);
    }
    if (code == CURLE_OK && settings->key_file) {
        code = curl_easy_setopt(easy, CURLOPT_SSLKEY, settings->key_file);
    }
    return code == CURLE_OK;
}

static bool options_set(struct etcd_transfer *transfer, const struct etcd_target *target) {
    CURL *easy = transfer->easy;
    char url[1024];
    int size = snprintf(url, sizeof(url), "%s%s", target->endpoint, target->path);
    CURLcode code = size < (int)sizeof(url) ? curl_easy_setopt(easy, CURLOPT_URL, url) : CURLE_URL_MALFORMAT;
    code = code == CURLE_OK ? curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") : code;
    code = code == CURLE_OK ? curl_easy_setopt(easy, CURLOPT_PROXY, "") : code;
    code =
        code == CURLE_OK ? curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) : code;
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    (void)curl_easy_setopt(easy, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, transfer->request);
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)strlen(transfer->request));
    (void)curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    (void)curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    (void)curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer->context);
    (void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->error);
    (void)curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_socket);
    (void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 5L);
    (void)curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
    (void)curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)target->timeout_ms);
    (void)curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)target->connect_timeout_ms);
    return code == CURLE_OK;
}

bool etcd_transfer_begin(struct etcd_transfer *transfer, CURLM *multi, const struct etcd_settings *settings,
                         const struct etcd_target *target) {
    transfer->size = 0;
    transfer->too_long = false;
    transfer->error[0] = 0;
    transfer->easy = curl_easy_init();
    if (!transfer->easy) {
        return false;
    }
    bool good = headers_make(transfer, target->token) && options_set(transfer, target) &&
                security_set(transfer->easy, settings) &&
                curl_multi_add_handle(multi, transfer->easy) == CURLM_OK;
    if (!good) {
        etcd_transfer_end(transfer, multi);
    }
    return good;
}

void etcd_transfer_end(struct etcd_transfer *transfer, CURLM *multi) {
    if (transfer->easy) {
        (void)curl_multi_remove_handle(multi, transfer->easy);
        curl_easy_cleanup(transfer->easy);
        transfer->easy = NULL;
    }
    curl_slist_free_all(transfer->headers);
    transfer->headers = NULL;
}

void etcd_transfer_free(struct etcd_transfer *transfer, CURLM *multi) {
    etcd_transfer_end(transfer, multi);
    free(transfer->answer);
    *transfer = (struct etcd_transfer){0};
}
