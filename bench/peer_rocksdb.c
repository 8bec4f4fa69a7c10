// SPDX-License-Identifier: Apache-2.0
// peer_rocksdb.c: RocksDB. Everything in its block cache, Bloom filters, fully compacted before reading, values pinned
// instead of copied; commits with sync = 1, which it groups by itself, and recycled log files.
#include "bench.h"

#include <rocksdb/c.h>
#include <stdlib.h>

struct database {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_block_based_table_options_t *table;
    rocksdb_cache_t *cache;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *durable;
};

static void rocksdb_must(char *error, const char *what) {
    if (error)
        fail("RocksDB: %s: %s", what, error);
}

static void options_make(struct database *d) {
    d->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(d->options, 1);
    rocksdb_options_set_write_buffer_size(d->options, (size_t)256 << 20);
    rocksdb_options_set_compression(d->options, rocksdb_no_compression);
    rocksdb_options_set_recycle_log_file_num(d->options, 4);
    d->table = rocksdb_block_based_options_create();
    d->cache = rocksdb_cache_create_lru((size_t)1 << 30);
    rocksdb_block_based_options_set_block_cache(d->table, d->cache);
    rocksdb_block_based_options_set_filter_policy(d->table, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(d->options, d->table);
    d->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_verify_checksums(d->read, 0);
    d->durable = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(d->durable, 1);
}

static void records_load(struct database *d, const struct records *records) {
    char *error = NULL;
    char *value = malloc(records->value_size);
    if (!value)
        fail("no memory");
    rocksdb_writeoptions_t *fast = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(fast, 1);
    for (size_t i = 0; i < records->count; i++) {
        struct key key = record_key(i);
        record_value(i, value, records->value_size);
        rocksdb_put(d->db, fast, (const char *)key.bytes, sizeof(key), value, records->value_size, &error);
        rocksdb_must(error, "put");
    }
    rocksdb_writeoptions_destroy(fast);
    free(value);

    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(flush, 1);
    rocksdb_flush(d->db, flush, &error);
    rocksdb_must(error, "flush");
    rocksdb_flushoptions_destroy(flush);
    rocksdb_compact_range(d->db, NULL, 0, NULL, 0);
}

static uint64_t database_get(void *database, const struct key *keys, size_t count) {
    struct database *d = database;
    uint64_t digest = 0;
    for (size_t i = 0; i < count; i++) {
        char *error = NULL;
        size_t size;
        rocksdb_pinnableslice_t *slice =
            rocksdb_get_pinned(d->db, d->read, (const char *)keys[i].bytes, KEY_SIZE, &error);
        rocksdb_must(error, "get");
        const char *value = slice ? rocksdb_pinnableslice_value(slice, &size) : NULL;
        if (!value)
            fail("RocksDB: a key is missing");
        digest += value_digest(value, size);
        rocksdb_pinnableslice_destroy(slice);
    }
    return digest;
}

// Brings every block into the cache.
static void cache_warm(struct database *d) {
    rocksdb_iterator_t *i = rocksdb_create_iterator(d->db, d->read);
    for (rocksdb_iter_seek_to_first(i); rocksdb_iter_valid(i); rocksdb_iter_next(i))
        ;
    rocksdb_iter_destroy(i);
}

static void *database_open(const struct records *records) {
    struct database *d = calloc(1, sizeof(*d));
    if (!d)
        fail("no memory");
    options_make(d);
    char *error = NULL;
    d->db = rocksdb_open(d->options, scratch_path("rocksdb"), &error);
    rocksdb_must(error, "open");
    records_load(d, records);
    cache_warm(d);
    return d;
}

static void database_close(void *database) {
    struct database *d = database;
    rocksdb_close(d->db);
    rocksdb_readoptions_destroy(d->read);
    rocksdb_writeoptions_destroy(d->durable);
    rocksdb_block_based_options_destroy(d->table);
    rocksdb_cache_destroy(d->cache);
    rocksdb_options_destroy(d->options);
    free(d);
}

static void *writer_open(void *database) {
    return database;
}
static void writer_close(void *writer) {
    (void)writer;
}

static void database_put(void *writer, const struct key *key, const void *value, size_t size) {
    struct database *d = writer;
    char *error = NULL;
    rocksdb_put(d->db, d->durable, (const char *)key->bytes, KEY_SIZE, value, size, &error);
    rocksdb_must(error, "put");
}

const struct peer peer_rocksdb = {
    .name = "RocksDB",
    .open = database_open,
    .close = database_close,
    .get = database_get,
    .writer_open = writer_open,
    .writer_close = writer_close,
    .put = database_put,
};
