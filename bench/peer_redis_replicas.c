// SPDX-License-Identifier: Apache-2.0
// peer_redis_replicas.c: Redis with two replicas, all of them with appendfsync always.
//
// A batch of puts is SETs and then WAIT 1 on one connection: its reply comes when the puts are durable here (replies follow
// the sync), and one replica has told that it has them (which it does after its own sync). WAIT holds its connection up, so
// there may be several, which take turns. How many are best for OUTSTANDING puts under way is tried out when it begins, as
// the disk's floor does it. A batch is closed when it has its lane's share of them, or when it is waited for.
#include "redis.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REPLICAS = 2, LANES_MAX = 16, OUTSTANDING = 64, TRIAL_PUTS = 640, TRIAL_ROUNDS = 3 };

struct lane { // a connection, with at most one batch that has not been waited for
    redisContext *connection;
    size_t puts; // of its batch
    bool closed; // the batch has its WAIT
};

struct database {
    struct redis_server primary, replicas[REPLICAS];
    struct redis_command set;
    size_t value_size;
    struct lane lanes[LANES_MAX];
    size_t lane_count;      // that are used
    size_t filling, oldest; // batches; that of lane x % lane_count
    size_t answered;        // puts of the batches before `oldest` that nobody has awaited
};

// ---- Puts ---------------------------------------------------------------------------------------------------------

static void batch_close(struct database *d) {
    struct lane *l = &d->lanes[d->filling % d->lane_count];
    int done = 0;
    (void)redisAppendCommand(l->connection, "WAIT 1 0");
    while (!done)
        if (redisBufferWrite(l->connection, &done) != REDIS_OK)
            fail("Redis: %s", l->connection->errstr);
    l->closed = true;
    d->filling++;
}

static void batch_await(struct database *d) {
    struct lane *l = &d->lanes[d->oldest % d->lane_count];
    if (!l->closed)
        batch_close(d);
    for (size_t i = 0; i < l->puts; i++)
        freeReplyObject(redis_take(l->connection));
    redisReply *reply = redis_take(l->connection);
    if (reply->type != REDIS_REPLY_INTEGER || reply->integer < 1)
        fail("Redis does not wait for a replica");
    freeReplyObject(reply);
    d->answered += l->puts;
    d->oldest++;
    l->puts = 0;
    l->closed = false;
}

static void replicas_put_append(void *writer, const struct key *key, const void *value, size_t size) {
    struct database *d = writer;
    if (size != d->value_size)
        fail("Redis: a value of another size");
    if (d->filling - d->oldest == d->lane_count)
        batch_await(d);
    struct lane *l = &d->lanes[d->filling % d->lane_count];
    redis_append(l->connection, &d->set, key, value);
    if (++l->puts == OUTSTANDING / d->lane_count)
        batch_close(d);
}

static void replicas_put_await(void *writer) {
    struct database *d = writer;
    if (d->answered == 0)
        batch_await(d);
    d->answered--;
}

static void replicas_put(void *writer, const struct key *key, const void *value, size_t size) {
    replicas_put_append(writer, key, value, size);
    replicas_put_await(writer);
}

// ---- How many lanes -----------------------------------------------------------------------------------------------

static double trial_run(struct database *d, size_t lane_count) {
    unsigned char value[REDIS_COMMAND_MAX];
    size_t begun = 0;
    record_value(lane_count, value, d->value_size);
    d->lane_count = lane_count;
    d->filling = d->oldest = 0;
    uint64_t start = now_ns();
    for (size_t done = 0; done < TRIAL_PUTS; done++) {
        for (; begun < TRIAL_PUTS && begun - done < OUTSTANDING; begun++) {
            struct key key = record_key(begun);
            replicas_put_append(d, &key, value, d->value_size);
        }
        replicas_put_await(d);
    }
    return (double)(now_ns() - start);
}

static void lanes_choose(struct database *d) {
    static const size_t counts[] = {1, 2, 4, 8, 16};
    enum { COUNTS = sizeof(counts) / sizeof(counts[0]) };
    struct samples times[COUNTS] = {0};
    size_t best = 0;
    progress("trying Redis");
    for (size_t i = 0; i < (size_t)TRIAL_ROUNDS * COUNTS; i++)
        samples_add(&times[i % COUNTS], trial_run(d, counts[i % COUNTS]));
    for (size_t i = 1; i < COUNTS; i++)
        if (samples_median(&times[i]) < samples_median(&times[best]))
            best = i;
    d->lane_count = counts[best];
    d->filling = d->oldest = 0;
    for (size_t i = 0; i < COUNTS; i++)
        samples_free(&times[i]);
}

// ---- The peer -----------------------------------------------------------------------------------------------------

static size_t replicas_online(const struct database *d) {
    size_t count = 0;
    (void)redisAppendCommand(d->primary.connection, "INFO replication");
    redisReply *reply = redis_take(d->primary.connection);
    for (const char *at = reply->str; at && (at = strstr(at, "state=online")) != NULL; at++)
        count++;
    freeReplyObject(reply);
    return count;
}

static void replicas_begin(struct database *d) {
    redis_begin(&d->primary, "redis", loopback_port(), NULL);
    redis_begin(&d->replicas[0], "redis.1", loopback_port(), &d->primary);
    redis_begin(&d->replicas[1], "redis.2", loopback_port(), &d->primary);
    for (uint64_t until = now_ns() + 20000000000u; replicas_online(d) < REPLICAS; (void)usleep(10000))
        if (now_ns() > until)
            fail("the replicas of Redis do not follow");
}

static void *replicas_open(const struct records *records) {
    struct database *d = calloc(1, sizeof(*d));
    if (!d)
        fail("no memory");
    d->value_size = records->value_size;
    d->set = redis_set_make(records->value_size);
    replicas_begin(d);
    redis_load(d->primary.connection, &d->set, records);
    (void)redisAppendCommand(d->primary.connection, "WAIT %d 0", REPLICAS);
    freeReplyObject(redis_take(d->primary.connection));
    redis_setting(&d->primary, "appendfsync", "always");
    for (size_t i = 0; i < REPLICAS; i++)
        redis_setting(&d->replicas[i], "appendfsync", "always");
    for (size_t i = 0; i < LANES_MAX; i++)
        d->lanes[i].connection = redis_connect(&d->primary);
    lanes_choose(d);
    return d;
}

static void replicas_close(void *database) {
    struct database *d = database;
    for (size_t i = 0; i < LANES_MAX; i++)
        redisFree(d->lanes[i].connection);
    for (size_t i = 0; i < REPLICAS; i++)
        redis_end(&d->replicas[i]);
    redis_end(&d->primary);
    free(d);
}

static void *replicas_writer_open(void *database) {
    return database;
}
static void replicas_writer_close(void *writer) {
    (void)writer;
}

const struct peer peer_redis_replicas = {
    .name = "Redis with two replicas",
    .open = replicas_open,
    .close = replicas_close,
    .writer_open = replicas_writer_open,
    .writer_close = replicas_writer_close,
    .put = replicas_put,
    .put_append = replicas_put_append,
    .put_await = replicas_put_await,
};
