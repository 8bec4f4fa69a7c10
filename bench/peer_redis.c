// SPDX-License-Identifier: Apache-2.0
// peer_redis.c: Redis, a server of its own on a Unix socket, by way of hiredis over one connection.
//
// It makes the promise that Shelf makes: appendfsync always, every reply follows the sync of what it acknowledges. All that
// would disturb it is off: snapshots, rewrites of its log, its own measurements. While it is loaded it need not sync.
// Commands are laid out in advance, since all keys and values have one size.
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { GETS_OUTSTANDING = 16, LOAD_OUTSTANDING = 1000, COMMAND_MAX = 1024 };

struct command { // the bytes that go over the connection
    char bytes[COMMAND_MAX];
    size_t size, key_at, value_at;
};

struct database {
    pid_t process;
    redisContext *connection;
    struct command get, set;
    size_t value_size;
};

// ---- Commands -----------------------------------------------------------------------------------------------------

static void command_add(struct command *c, const char *text) {
    memcpy(c->bytes + c->size, text, strlen(text));
    c->size += strlen(text);
}

static size_t command_hole(struct command *c, size_t size) {
    char text[32];
    (void)snprintf(text, sizeof(text), "$%zu\r\n", size);
    command_add(c, text);
    size_t at = c->size;
    memset(c->bytes + at, 0, size);
    c->size += size;
    command_add(c, "\r\n");
    return at;
}

static void commands_make(struct database *d) {
    if (d->value_size > COMMAND_MAX / 2)
        fail("Redis: values of %zu bytes have no room in a command", d->value_size);
    command_add(&d->get, "*2\r\n$3\r\nGET\r\n");
    d->get.key_at = command_hole(&d->get, KEY_SIZE);
    command_add(&d->set, "*3\r\n$3\r\nSET\r\n");
    d->set.key_at = command_hole(&d->set, KEY_SIZE);
    d->set.value_at = command_hole(&d->set, d->value_size);
}

static void get_append(struct database *d, const struct key *key) {
    memcpy(d->get.bytes + d->get.key_at, key, KEY_SIZE);
    (void)redisAppendFormattedCommand(d->connection, d->get.bytes, d->get.size);
}

static void set_append(struct database *d, const struct key *key, const void *value) {
    memcpy(d->set.bytes + d->set.key_at, key, KEY_SIZE);
    memcpy(d->set.bytes + d->set.value_at, value, d->value_size);
    (void)redisAppendFormattedCommand(d->connection, d->set.bytes, d->set.size);
}

static redisReply *reply_take(struct database *d) {
    void *taken = NULL;
    if (redisGetReply(d->connection, &taken) != REDIS_OK)
        fail("Redis: %s", d->connection->errstr);
    redisReply *reply = taken;
    if (reply->type == REDIS_REPLY_ERROR)
        fail("Redis: %s", reply->str);
    return reply;
}

static void setting_change(struct database *d, const char *name, const char *value) {
    (void)redisAppendCommand(d->connection, "CONFIG SET %s %s", name, value);
    freeReplyObject(reply_take(d));
}

// ---- The server ---------------------------------------------------------------------------------------------------

_Noreturn static void redis_exec(void) {
    const char *arguments[] = {"redis-server",
                               "--port",
                               "0",
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
                               "--loglevel",
                               "warning",
                               "--logfile",
                               "log",
                               NULL};
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    (void)dup2(nothing, STDIN_FILENO);
    (void)dup2(nothing, STDOUT_FILENO);
    // (execvp() does not write to what it is given; its type is older than const.)
    union {
        const char **given;
        char *const *wanted;
    } list = {arguments};
    if (chdir(scratch_path("redis")) == 0)
        (void)execvp("redis-server", list.wanted);
    fail("cannot start redis-server (Debian package redis-server): %s", strerror(errno));
}

// The path of a socket has little room, so it is named relative to the directory.
static redisContext *redis_connect(void) {
    int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (before < 0 || chdir(scratch_path("redis")) != 0)
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

static void redis_begin(struct database *d) {
    if (mkdir(scratch_path("redis"), 0700) != 0)
        fail("cannot make a directory for Redis: %s", strerror(errno));
    d->process = process_begin();
    if (d->process == 0)
        redis_exec();
    for (uint64_t until = now_ns() + 10000000000u; !(d->connection = redis_connect()); (void)usleep(10000)) {
        if (!process_lives(d->process))
            fail("redis-server has ended at once");
        if (now_ns() > until)
            fail("redis-server does not answer");
    }
}

// ---- The peer -----------------------------------------------------------------------------------------------------

static void redis_load(struct database *d, const struct records *records) {
    unsigned char value[COMMAND_MAX];
    for (size_t sent = 0, taken = 0; taken < records->count;) {
        for (; sent < records->count && sent - taken < LOAD_OUTSTANDING; sent++) {
            struct key key = record_key(sent);
            record_value(sent, value, records->value_size);
            set_append(d, &key, value);
        }
        for (; taken < sent; taken++)
            freeReplyObject(reply_take(d));
    }
}

static void *redis_open(const struct records *records) {
    struct database *d = calloc(1, sizeof(*d));
    if (!d)
        fail("no memory");
    d->value_size = records->value_size;
    commands_make(d);
    redis_begin(d);
    redis_load(d, records);
    setting_change(d, "appendfsync", "always");
    return d;
}

static void redis_close(void *database) {
    struct database *d = database;
    redisFree(d->connection);
    process_end(d->process);
    free(d);
}

static uint64_t redis_get(void *database, const struct key *keys, size_t count) {
    struct database *d = database;
    uint64_t digest = 0;
    for (size_t at = 0; at < count; at += GETS_OUTSTANDING) {
        size_t part = count - at < GETS_OUTSTANDING ? count - at : GETS_OUTSTANDING;
        for (size_t i = 0; i < part; i++)
            get_append(d, &keys[at + i]);
        for (size_t i = 0; i < part; i++) {
            redisReply *reply = reply_take(d);
            if (reply->type != REDIS_REPLY_STRING || (size_t)reply->len != d->value_size)
                fail("Redis does not find a value");
            digest += value_digest(reply->str, d->value_size);
            freeReplyObject(reply);
        }
    }
    return digest;
}

static void *redis_writer_open(void *database) {
    return database;
}
static void redis_writer_close(void *writer) {
    (void)writer;
}

static void redis_put_append(void *writer, const struct key *key, const void *value, size_t size) {
    struct database *d = writer;
    if (size != d->value_size)
        fail("Redis: a value of another size");
    set_append(d, key, value);
}

static void redis_put_await(void *writer) {
    freeReplyObject(reply_take(writer));
}

static void redis_put(void *writer, const struct key *key, const void *value, size_t size) {
    redis_put_append(writer, key, value, size);
    redis_put_await(writer);
}

const struct peer peer_redis = {
    .name = "Redis",
    .open = redis_open,
    .close = redis_close,
    .get = redis_get,
    .writer_open = redis_writer_open,
    .writer_close = redis_writer_close,
    .put = redis_put,
    .put_append = redis_put_append,
    .put_await = redis_put_await,
};
