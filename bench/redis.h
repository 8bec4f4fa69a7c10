// SPDX-License-Identifier: Apache-2.0
// redis.h: servers of Redis, and what is said to them. See redis.c.
#ifndef SHELF_BENCH_REDIS_H
#define SHELF_BENCH_REDIS_H

#include "bench.h"

#include <hiredis/hiredis.h>

struct redis_server {
    pid_t process;
    char name[16];            // of its directory in the scratch directory
    uint16_t port;            // on loopback; 0: it has only its socket
    redisContext *connection; // to its socket
};
// Starts a server and connects to it; as a replica of `primary`, unless that is NULL.
void redis_begin(struct redis_server *server, const char *name, uint16_t port,
                 const struct redis_server *primary);
void redis_end(struct redis_server *server);
// Another connection to its socket.
redisContext *redis_connect(const struct redis_server *server);
void redis_setting(const struct redis_server *server, const char *name, const char *value);

// A command with a key, and a value or none, laid out in advance: the bytes that go over the connection.
enum { REDIS_COMMAND_MAX = 1024 };
struct redis_command {
    char bytes[REDIS_COMMAND_MAX];
    size_t size, key_at, value_at, value_size;
};
struct redis_command redis_get_make(void);
struct redis_command redis_set_make(size_t value_size);
// value: of command->value_size bytes, or NULL if it has none.
void redis_append(redisContext *connection, struct redis_command *command, const struct key *key,
                  const void *value);
// The next reply, to be freed; fails if it is an error.
redisReply *redis_take(redisContext *connection);

// Sets all records.
void redis_load(redisContext *connection, struct redis_command *set, const struct records *records);

#endif
