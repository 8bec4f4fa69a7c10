// SPDX-License-Identifier: Apache-2.0
// peer_lmdb.c: LMDB. One read transaction for many gets, no read-ahead (everything is in memory), no thread-local
// transaction slots; durable commits as it does them by default (writers take turns).
#include "bench.h"

#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct database {
    MDB_env *env;
    MDB_dbi dbi;
};

static void lmdb_must(int result, const char *what) {
    if (result)
        fail("LMDB: %s: %s", what, mdb_strerror(result));
}

static MDB_val val_of(const void *bytes, size_t size) {
    // LMDB reads only through it; its type just lacks the const.
    union {
        const void *constant;
        void *plain;
    } pointer = {bytes};
    return (MDB_val){size, pointer.plain};
}

static void *lmdb_open(const struct records *records) {
    struct database *d = calloc(1, sizeof(*d));
    unsigned char *value = malloc(records->value_size);
    if (!d || !value)
        fail("no memory");
    const char *path = scratch_path("lmdb");
    (void)mkdir(path, 0700);
    lmdb_must(mdb_env_create(&d->env), "mdb_env_create");
    lmdb_must(mdb_env_set_mapsize(d->env, (size_t)4 << 30), "mdb_env_set_mapsize");
    lmdb_must(mdb_env_open(d->env, path, MDB_NORDAHEAD | MDB_NOTLS, 0600), "mdb_env_open");

    MDB_txn *txn;
    lmdb_must(mdb_txn_begin(d->env, NULL, 0, &txn), "mdb_txn_begin");
    lmdb_must(mdb_dbi_open(txn, NULL, 0, &d->dbi), "mdb_dbi_open");
    for (size_t i = 0; i < records->count; i++) {
        struct key key = record_key(i);
        record_value(i, value, records->value_size);
        MDB_val k = val_of(&key, sizeof(key)), v = val_of(value, records->value_size);
        lmdb_must(mdb_put(txn, d->dbi, &k, &v, 0), "mdb_put");
    }
    lmdb_must(mdb_txn_commit(txn), "mdb_txn_commit");
    free(value);
    return d;
}

static void lmdb_close(void *database) {
    struct database *d = database;
    mdb_env_close(d->env);
    free(d);
}

static uint64_t lmdb_get(void *database, const struct key *keys, size_t count) {
    struct database *d = database;
    MDB_txn *txn;
    uint64_t digest = 0;
    lmdb_must(mdb_txn_begin(d->env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
    for (size_t i = 0; i < count; i++) {
        MDB_val k = val_of(&keys[i], KEY_SIZE), v;
        int result = mdb_get(txn, d->dbi, &k, &v);
        if (result)
            lmdb_must(result, "mdb_get");
        digest += value_digest(v.mv_data, v.mv_size);
    }
    mdb_txn_abort(txn);
    return digest;
}

static void *lmdb_writer_open(void *database) {
    return database;
}
static void lmdb_writer_close(void *writer) {
    (void)writer;
}

static void lmdb_put(void *writer, const struct key *key, const void *value, size_t size) {
    struct database *d = writer;
    MDB_txn *txn;
    MDB_val k = val_of(key, KEY_SIZE), v = val_of(value, size);
    lmdb_must(mdb_txn_begin(d->env, NULL, 0, &txn), "mdb_txn_begin");
    lmdb_must(mdb_put(txn, d->dbi, &k, &v, 0), "mdb_put");
    lmdb_must(mdb_txn_commit(txn), "mdb_txn_commit");
}

const struct peer peer_lmdb = {
    .name = "LMDB",
    .open = lmdb_open,
    .close = lmdb_close,
    .get = lmdb_get,
    .writer_open = lmdb_writer_open,
    .writer_close = lmdb_writer_close,
    .put = lmdb_put,
};
