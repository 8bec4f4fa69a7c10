// SPDX-License-Identifier: Apache-2.0
/*
 * etcd_message.h: requests to etcd's JSON gateway (/v3/...) and its answers. Answers are bytes from outside: whatever they
 * are, they are understood completely or refused with a reason, in bounded memory.
 *
 * In JSON etcd writes 64-bit numbers as strings, bytes in base64, and leaves out what is zero, false or empty.
 */
#ifndef COORDINATOR_ETCD_MESSAGE_H
#define COORDINATOR_ETCD_MESSAGE_H

#include "coordinator/coordinator.h"

#define ETCD_REQUEST_MAX 8192u
#define ETCD_ANSWER_MAX  (512u << 10) /* bytes: REGISTERS_MAX of the largest fit */
#define ETCD_EVENTS_MAX  1024u
#define ETCD_KEY_MAX     128u
#define ETCD_REASON_MAX  128u
#define ETCD_TOKEN_MAX   4096u

struct etcd_names {
    char prefix[ETCD_KEY_MAX]; /* "/shelf/CLUSTER/" */
};
/* False: not a name of a cluster. */
bool etcd_names_make(const char *cluster, struct etcd_names *ret_names);

/* Each writes a body with its NUL. */
void etcd_format_get(const struct etcd_names *names, struct register_id id, char ret_body[ETCD_REQUEST_MAX]);
/* Swaps and removals: if the register's last change is at `expected`, change it; what there is then is read in either case. */
void etcd_format_ask(const struct etcd_names *names, const struct coordinator_ask *ask,
                     char ret_body[ETCD_REQUEST_MAX]);
void etcd_format_read_all(const struct etcd_names *names, char ret_body[ETCD_REQUEST_MAX]);
void etcd_format_watch(const struct etcd_names *names, uint64_t start_revision,
                       char ret_body[ETCD_REQUEST_MAX]);
/* False: too long. */
bool etcd_format_login(const char *user, const char *password, char ret_body[ETCD_REQUEST_MAX]);

struct etcd_register {
    struct register_id id;
    bool removed; /* by an event of the watch; state.revision is that of the removal */
    struct register_state state;
    struct register_history history;
};

struct etcd_answer {
    uint64_t store;            /* cluster_id */
    uint64_t revision;         /* of the store */
    bool succeeded;            /* of a transaction: the comparison was true */
    bool created;              /* of a watch: it has begun */
    bool canceled;             /* of a watch: it is over */
    uint64_t compact_revision; /* of a cancelled watch: older changes have been forgotten */
    uint32_t count;
    struct etcd_register *registers; /* the others below the prefix are left out; malloc'd */
};

/* False: ret_reason says what is wrong, and ret_answer has nothing to free. */
bool etcd_parse_range(const struct etcd_names *names, const char *body, size_t size,
                      struct etcd_answer *ret_answer, char ret_reason[ETCD_REASON_MAX]);
bool etcd_parse_ask(const struct etcd_names *names, const char *body, size_t size,
                    struct etcd_answer *ret_answer, char ret_reason[ETCD_REASON_MAX]);
bool etcd_parse_watch(const struct etcd_names *names, const char *line, size_t size,
                      struct etcd_answer *ret_answer, char ret_reason[ETCD_REASON_MAX]);
void etcd_answer_free(struct etcd_answer *answer);

bool etcd_parse_token(const char *body, size_t size, char ret_token[ETCD_TOKEN_MAX],
                      char ret_reason[ETCD_REASON_MAX]);

struct etcd_error {
    uint32_t code;                 /* of gRPC; 0: none was told */
    char message[ETCD_REASON_MAX]; /* printable */
};
void etcd_parse_error(const char *body, size_t size, struct etcd_error *ret_error);

#endif
