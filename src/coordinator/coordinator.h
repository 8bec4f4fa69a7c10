// SPDX-License-Identifier: Apache-2.0
/*
 * coordinator.h: the coordinators of the real world: etcd, and files of one machine. What asks and news mean is in
 * core/coordinator.h. Each runs in a thread of its own, so no call here waits for a network or a disk.
 *
 *     coordinator_start      an ask; from any thread
 *     coordinator_fd         a descriptor that can be read as long as there is something to take; for poll()
 *     coordinator_take       an answered ask
 *     coordinator_news_take  a change of a register
 *
 * Files: a directory of register files (world/register_file.h), for several nodes on one machine. etcd: its v3 JSON gateway, over
 * HTTP or HTTPS; keys are below /shelf/CLUSTER/ (docs/formats.md).
 */
#ifndef COORDINATOR_COORDINATOR_H
#define COORDINATOR_COORDINATOR_H

#include "core/coordinator.h"
#include "shelf.h"

#define COORDINATOR_TEXT_MAX      256u
#define COORDINATOR_ENDPOINTS_MAX 8u
#define COORDINATOR_CLUSTER_MAX   64u /* of a cluster's name, with the NUL: letters, digits, . _ - */

struct coordinator;

struct coordinator_file_options {
    const char *directory; /* made if there is none; its parent exists */
    uint32_t timeout_ms;   /* how long an ask waits for others' locks; 0: 2000 */
    uint32_t probe_ms;     /* how often to look without being told of a change; 0: 1000 */
};

struct coordinator_etcd_options {
    const char *endpoints[COORDINATOR_ENDPOINTS_MAX]; /* http://HOST:PORT or https://HOST:PORT */
    uint32_t endpoint_count;
    const char *cluster;
    const char *
        directory; /* of the node; the file `coordinator` in it remembers what was seen. NULL: nobody remembers */
    const char *user; /* NULL: none */
    const char *password;
    const char *ca_file;                     /* https: whom to believe; NULL: the system's authorities */
    const char *certificate_file, *key_file; /* https: who we are; NULL: nobody */
    uint32_t timeout_ms;                     /* from the start of an ask to its answer; 0: 2000 */
    uint32_t probe_ms; /* how often to ask whether it is there, and nothing was missed; 0: 1000 */
};

/* INVALID, DENIED, NOT_FOUND, CORRUPT, FORMAT, IO, NO_MEMORY: ret_text says why. That etcd cannot be reached is no
 * failure. What the options point to is copied. */
shelf_result coordinator_open_file(const struct coordinator_file_options *options,
                                   struct coordinator **ret_coordinator, char ret_text[COORDINATOR_TEXT_MAX]);
shelf_result coordinator_open_etcd(const struct coordinator_etcd_options *options,
                                   struct coordinator **ret_coordinator, char ret_text[COORDINATOR_TEXT_MAX]);
/* Asks that were not taken are never answered; a swap among them may happen all the same. */
void coordinator_close(struct coordinator *coordinator);

void coordinator_start(struct coordinator *coordinator, struct coordinator_ask *ask);
int coordinator_fd(const struct coordinator *coordinator);
struct coordinator_ask *coordinator_take(struct coordinator *coordinator); /* NULL: none */
bool coordinator_news_take(struct coordinator *coordinator, struct coordinator_news *ret_news);

struct coordinator_status {
    bool reachable;  /* it has answered, and nothing has failed since */
    bool refused;    /* its answers cannot be right; see text */
    bool watching;   /* changes are told at once, not only with the next probe */
    uint64_t for_ms; /* so long it has been reachable, or not */
    uint64_t revision;
    char place[COORDINATOR_TEXT_MAX]; /* endpoint in use, or directory */
    char text[COORDINATOR_TEXT_MAX];  /* what is wrong, and what to do; "" */
};
void coordinator_status_get(struct coordinator *coordinator, struct coordinator_status *ret_status);

#endif
