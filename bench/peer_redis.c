// SPDX-License-Identifier: Apache-2.0
// peer_redis.c: Redis, a server of its own on a Unix socket, over one connection.
//
// It makes the promise that Shelf makes: appendfsync always, every reply follows the sync of what it acknowledges.
#include "redis.h"

#include <stdlib.h>

enum { GETS_OUTSTANDING = 16 };

struct database {
    struct redis_server server;
    struct redis_command get, set;
    size_t value_size;
};

static void *redis_open(const struct records *records) {
    struct database *d = calloc(1, sizeof(*d));
    if (!d)
        fail("no memory");
    d->value_size = records->value_size;
    d->get = redis_get_make();
    d->set = redis_set_make(records->value_size);
    redis_begin(&d->server, "redis", 0, NULL);
    redis_load(d->server.connection, &d->set, records);
    redis_setting(&d->server, "appendfsync", "always");
    return d;
}

static void redis_close(void *database) {
    struct database *d = database;
    redis_end(&d->server);
    free(d);
}

static uint64_t redis_get(void *database, const struct key *keys, size_t count) {
    struct database *d = database;
    uint64_t digest = 0;
    for (size_t at = 0; at < count; at += GETS_OUTSTANDING) {
        size_t part = count - at < GETS_OUTSTANDING ? count - at : GETS_OUTSTANDING;
        for (size_t i = 0; i < part; i++)
            redis_append(d->server.connection, &d->get, &keys[at + i], NULL);
        for (size_t i = 0; i < part; i++) {
            redisReply *reply = redis_take(d->server.connection);
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
    redis_append(d->server.connection, &d->set, key, value);
}

static void redis_put_await(void *writer) {
    freeReplyObject(redis_take(((struct database *)writer)->server.connection));
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
