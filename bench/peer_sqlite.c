// SPDX-License-Identifier: Apache-2.0
// peer_sqlite.c: SQLite. WAL with synchronous = FULL, one clustered table by a blob key (WITHOUT ROWID), prepared
// statements, the file mapped into memory, a read transaction over many gets. Writers have connections of their own;
// they take turns by a mutex of the program rather than by SQLite's busy handler, which sleeps.
#include "bench.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

struct connection {
    sqlite3 *db;
    sqlite3_stmt *get, *put;
    struct database *database;
};

struct database {
    char path[4096];
    struct connection reader;
    pthread_mutex_t writing; // held while a connection writes
};

static void sqlite_must(sqlite3 *db, int result, int wanted, const char *what) {
    if (result != wanted)
        fail("SQLite: %s: %s", what, db ? sqlite3_errmsg(db) : sqlite3_errstr(result));
}

static void execute(sqlite3 *db, const char *sql) {
    sqlite_must(db, sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, sql);
}

static void connection_open(struct connection *c, struct database *d) {
    c->database = d;
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    sqlite_must(NULL, sqlite3_open_v2(d->path, &c->db, flags, NULL), SQLITE_OK, "open");
    (void)sqlite3_busy_timeout(c->db, 10000);
    execute(c->db, "PRAGMA journal_mode = WAL");
    execute(c->db, "PRAGMA synchronous = FULL");
    execute(c->db, "PRAGMA mmap_size = 2147418112");
    execute(c->db, "PRAGMA cache_size = -262144");
    execute(c->db, "CREATE TABLE IF NOT EXISTS record (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID");
    unsigned flag = SQLITE_PREPARE_PERSISTENT;
    sqlite_must(c->db,
                sqlite3_prepare_v3(c->db, "SELECT value FROM record WHERE key = ?", -1, flag, &c->get, NULL),
                SQLITE_OK, "prepare");
    sqlite_must(c->db,
                sqlite3_prepare_v3(c->db, "REPLACE INTO record VALUES (?, ?)", -1, flag, &c->put, NULL),
                SQLITE_OK, "prepare");
}

static void connection_close(struct connection *c) {
    (void)sqlite3_finalize(c->get);
    (void)sqlite3_finalize(c->put);
    (void)sqlite3_close(c->db);
}

static void connection_put(struct connection *c, const struct key *key, const void *value, size_t size) {
    sqlite_must(c->db, sqlite3_bind_blob(c->put, 1, key, KEY_SIZE, SQLITE_STATIC), SQLITE_OK, "bind");
    sqlite_must(c->db, sqlite3_bind_blob(c->put, 2, value, (int)size, SQLITE_STATIC), SQLITE_OK, "bind");
    sqlite_must(c->db, sqlite3_step(c->put), SQLITE_DONE, "put");
    sqlite_must(c->db, sqlite3_reset(c->put), SQLITE_OK, "reset");
}

// Ordered by key, as a clustered table likes it.
static int position_compare(const void *a, const void *b) {
    struct key x = record_key(*(const size_t *)a), y = record_key(*(const size_t *)b);
    return __builtin_memcmp(&x, &y, sizeof(x));
}

static void records_load(struct database *d, const struct records *records) {
    unsigned char *value = malloc(records->value_size);
    size_t *order = malloc(records->count * sizeof(order[0]));
    if (!value || !order)
        fail("no memory");
    for (size_t i = 0; i < records->count; i++)
        order[i] = i;
    qsort(order, records->count, sizeof(order[0]), position_compare);
    execute(d->reader.db, "BEGIN IMMEDIATE");
    for (size_t i = 0; i < records->count; i++) {
        struct key key = record_key(order[i]);
        record_value(order[i], value, records->value_size);
        connection_put(&d->reader, &key, value, records->value_size);
    }
    execute(d->reader.db, "COMMIT");
    execute(d->reader.db, "PRAGMA wal_checkpoint(TRUNCATE)");
    free(order);
    free(value);
}

static void *database_open(const struct records *records) {
    struct database *d = calloc(1, sizeof(*d));
    if (!d)
        fail("no memory");
    (void)snprintf(d->path, sizeof(d->path), "%s", scratch_path("sqlite.db"));
    (void)pthread_mutex_init(&d->writing, NULL);
    connection_open(&d->reader, d);
    records_load(d, records);
    return d;
}

static void database_close(void *database) {
    struct database *d = database;
    connection_close(&d->reader);
    (void)pthread_mutex_destroy(&d->writing);
    free(d);
}

static uint64_t database_get(void *database, const struct key *keys, size_t count) {
    struct database *d = database;
    struct connection *c = &d->reader;
    uint64_t digest = 0;
    execute(c->db, "BEGIN");
    for (size_t i = 0; i < count; i++) {
        (void)sqlite3_bind_blob(c->get, 1, &keys[i], KEY_SIZE, SQLITE_STATIC);
        int result = sqlite3_step(c->get);
        if (result != SQLITE_ROW)
            sqlite_must(c->db, result, SQLITE_ROW, "get");
        const void *value = sqlite3_column_blob(c->get, 0);
        digest += value_digest(value, (size_t)sqlite3_column_bytes(c->get, 0));
        (void)sqlite3_reset(c->get);
    }
    execute(c->db, "COMMIT");
    return digest;
}

static void *writer_open(void *database) {
    struct connection *c = calloc(1, sizeof(*c));
    if (!c)
        fail("no memory");
    connection_open(c, database);
    return c;
}

static void writer_close(void *writer) {
    connection_close(writer);
    free(writer);
}

static void database_put(void *writer, const struct key *key, const void *value, size_t size) {
    struct connection *c = writer;
    (void)pthread_mutex_lock(&c->database->writing);
    connection_put(c, key, value, size);
    (void)pthread_mutex_unlock(&c->database->writing);
}

const struct peer peer_sqlite = {
    .name = "SQLite",
    .open = database_open,
    .close = database_close,
    .get = database_get,
    .writer_open = writer_open,
    .writer_close = writer_close,
    .put = database_put,
};
