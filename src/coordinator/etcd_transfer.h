// SPDX-License-Identifier: Apache-2.0
/* etcd_transfer.h: one POST to one endpoint, and its answer: all of it, or line by line. Bounded in either case. */
#ifndef COORDINATOR_ETCD_TRANSFER_H
#define COORDINATOR_ETCD_TRANSFER_H

#include <curl/curl.h>

#include "coordinator/etcd_message.h"

struct etcd_settings { /* owned by the coordinator */
    char *endpoints[COORDINATOR_ENDPOINTS_MAX];
    uint32_t endpoint_count;
    char *user, *password, *ca_file, *certificate_file, *key_file;
};

struct etcd_transfer {
    CURL *easy; /* NULL: none is under way */
    struct curl_slist *headers;
    char request[ETCD_REQUEST_MAX]; /* to be filled in before the begin */
    char *answer;                   /* of this many bytes */
    size_t size, capacity;
    bool too_long;
    /* NULL: collect. Else told of each line as it comes; false ends the transfer. */
    bool (*on_line)(void *context, const char *line, size_t size);
    void *context; /* also what curl hands back with the finished transfer */
    char error[CURL_ERROR_SIZE];
};

struct etcd_target {
    const char *endpoint, *path;
    const char *token;                       /* "": none */
    uint32_t timeout_ms, connect_timeout_ms; /* 0: as long as it takes */
};

/* False: no memory. */
bool etcd_transfer_begin(struct etcd_transfer *transfer, CURLM *multi, const struct etcd_settings *settings,
                         const struct etcd_target *target);
/* Over, or given up. The answer stays until the next begin or free. */
void etcd_transfer_end(struct etcd_transfer *transfer, CURLM *multi);
void etcd_transfer_free(struct etcd_transfer *transfer, CURLM *multi);

#endif
