// SPDX-License-Identifier: Apache-2.0
// redis.c: servers of Redis, by way of hiredis over Unix sockets; replicas get their data over TCP on loopback.
//
// All that would disturb them is off: snapshots, rewrites of the log, their own measurements. They begin without syncs, so
// that they are loaded quickly; who measures sets `appendfsync` to what it is to be.
#include "redis.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOAD_OUTSTANDING = 1000 };

// ---- Commands -----------------------------------------------------------------------------------------------------

static void command_add(struct redis_command *c, const char *text) {
    memcpy(c->bytes + c->size, text, strlen(text));
    c->size += strlen(text);
}

static size_t command_hole(struct redis_command *c, size_t size) {
    char text[32];
    (void)snprintf(text, sizeof(text), "$%zu\r\n", size);
    command_add(c, text);
    size_t at = c->size;
    memset(c->bytes + at, 0, size);
    c->size += size;
    command_add(c, "\r\n");
    return at;
}

struct redis_command redis_get_make(void) {
    struct redis_command c = {.size = 0};
    command_add(&c, "*2\r\n$3\r\nGET\r\n");
    c.key_at = command_hole(&c, KEY_SIZE);
    return c;
}

struct redis_command redis_set_make(size_t value_size) {
    struct redis_command c = {.value_size = value_size};
    if (value_size > REDIS_COMMAND_MAX / 2)
        fail("Redis: values of %zu bytes have no room in a command", value_size);
    command_add(&c, "*3\r\n$3\r\nSET\r\n");
    c.key_at = command_hole(&c, KEY_SIZE);
    c.value_at = command_hole(&c, value_size);
    return c;
}

void redis_append(redisContext *connection, struct redis_command *command, const struct key *key,
                  const void *value) {
    memcpy(command->bytes + command->key_at, key, KEY_SIZE);
    if (value)
        memcpy(command->bytes + command->value_at, value, command->value_size);
    (void)redisAppendFormattedCommand(connection, command->bytes, command->size);
}

redisReply *redis_take(redisContext *connection) {
    void *taken = NULL;
    if (redisGetReply(connection, &taken) != REDIS_OK)
        fail("Redis: %s", connection->errstr);
    redisReply *reply = taken;
    if (reply->type == REDIS_REPLY_ERROR)
        fail("Redis: %s", reply->str);
    return reply;
}

void redis_setting(const struct redis_server *server, const char *name, const char *value) {
    (void)redisAppendCommand(server->connection, "CONFIG SET %s %s", name, value);
    freeReplyObject(redis_take(server->connection));
}

void redis_load(redisContext *connection, struct redis_command *set, const struct records *records) {
    unsigned char value[REDIS_COMMAND_MAX];
    for (size_t sent = 0, taken = 0; taken < records->count;) {
        for (; sent < records->count && sent - taken < LOAD_OUTSTANDING; sent++) {
            struct key key = record_key(sent);
            record_value(sent, value, records->value_size);
            redis_append(connection, set, &key, value);
        }
        for (; taken < sent; taken++)
            freeReplyObject(redis_take(connection));
    }
}

// ---- Servers ------------------------------------------------------------------------------------------------------

_Noreturn static void redis_exec(const struct redis_server *server, const struct redis_server *primary) {
    char port[8], primary_port[8];
    (void)snprintf(port, sizeof(port), "%u", server->port);
    (void)snprintf(primary_port, sizeof(primary_port), "%u", primary ? (unsigned)primary->port : 0);
    const char *arguments[] = {"redis-server",
                               "--bind",
                               "127.0.0.1",
                               "--port",
                               port,
                               "--unixsocket",
                               "socket",
                               "--dir",
                               ".",
                               "--daemonize",
                               "no",
                               "--databases",
                               "1",
                               "--save",
                               "",
                               "--appendonly",
                               "yes",
                               "--appendfsync",
                               "no",
                               "--auto-aof-rewrite-percentage",
                               "0",
                               "--latency-tracking",
                               "no",
                               "--repl-diskless-sync-delay",
                               "0",
                               "--loglevel",
                               "warning",
                               "--logfile",
                               "log",
                               primary ? "--replicaof" : NULL,
                               "127.0.0.1",
                               primary_port,
                               NULL};
    process_quiet();
    // (execvp() does not write to what it is given; its type is older than const.)
    union {
        const char **given;
        char *const *wanted;
    } list = {arguments};
    if (chdir(scratch_path(server->name)) == 0)
        (void)execvp("redis-server", list.wanted);
    _exit(127);
}

// The path of a socket has little room, so it is named relative to the directory. NULL: nobody listens yet.
static redisContext *redis_try(const struct redis_server *server) {
    int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (before < 0 || chdir(scratch_path(server->name)) != 0)
        fail("cannot enter the directory of Redis: %s", strerror(errno));
    redisContext *connection = redisConnectUnix("socket");
    if (fchdir(before) != 0)
        fail("cannot leave the directory of Redis: %s", strerror(errno));
    (void)close(before);
    if (connection && !connection->err)
        return connection;
    if (connection)
        redisFree(connection);
    return NULL;
}

redisContext *redis_connect(const struct redis_server *server) {
    redisContext *connection;
    for (uint64_t until = now_ns() + 10000000000u; !(connection = redis_try(server)); (void)usleep(10000)) {
        if (!process_lives(server->process))
            fail("redis-server has ended at once (Debian package redis-server)");
        if (now_ns() > until)
            fail("redis-server does not answer");
    }
    return connection;
}

void redis_begin(struct redis_server *server, const char *name, uint16_t port,
                 const struct redis_server *primary) {
    *server = (struct redis_server){.port = port};
    (void)snprintf(server->name, sizeof(server->name), "%s", name);
    if (mkdir(scratch_path(name), 0700) != 0)
        fail("cannot make a directory for Redis: %s", strerror(errno));
    server->process = process_begin();
    if (server->process == 0)
        redis_exec(server, primary);
    server->connection = redis_connect(server);
}

void redis_end(struct redis_server *server) {
    redisFree(server->connection);
    process_end(server->process);
}
