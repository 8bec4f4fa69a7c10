// SPDX-License-Identifier: Apache-2.0
// bench.h: what the benchmarks share.
//
// Every benchmark measures two sides in one run: Shelf and, beside it, a floor (the same work without any of Shelf's
// promises: a plain load, a bare write loop) or a peer (another database that makes the same promise). The sides
// alternate in short rounds, A B A B, so that whatever else the machine does hits both alike:
//
//   B1  value and floor are medians over the rounds, ratio is the median of the ratios of the rounds. (Percentiles of
//       single operations are taken over all rounds together, because a round has too few for them.)
//   B2  Nothing but the operation is inside of a timed stretch: keys and addresses are drawn before it, and every
//       result flows into a digest that both sides must agree on.
//   B3  Shelf is used through shelf.h alone.
//   B4  A side that fails ends the benchmark; no number is printed from a run that went wrong.
#ifndef SHELF_BENCH_H
#define SHELF_BENCH_H

#include "base/random.h"
#include "shelf.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// ---- The list of benchmarks (main.c) ------------------------------------------------------------------------------

struct peer;

enum sense { AT_MOST, AT_LEAST };
// Our side's node: in this process, in another one, the primary of a cluster in one; or there is none, and our side is the
// bare program.
enum where { HERE, ATTACHED, CLUSTER, BARE };
enum judged { JUDGE_NOTHING, JUDGE_RATIO, JUDGE_VALUE };

struct bench {
    const char *name;
    const char *what; // one line for --list
    void (*run)(const struct bench *b);
    size_t parallel;         // threads or outstanding commits
    const struct peer *peer; // the other side, where it is a database
    enum judged judged;      // what the target is about
    enum sense sense;
    double target;
    enum where where;
};

struct settings {
    const char *dir; // scratch directory of this benchmark: exists, empty, removed afterwards
    double seconds;  // time to spend on alternating rounds
    size_t kills;    // failovers to measure; 0: as many as the time allows
    uint64_t missed; // bytes that the node of cluster.catchup lacks when it returns
    bool json;
    bool image_is_huge; // whether the shelf's image has huge pages here; set by the benchmark for its peer
};
extern struct settings settings;

// NAN means: there is no such number (null in JSON). Rates: more is better. Times: less is better.
struct outcome {
    const char *suffix; // appended to the benchmark's name; NULL for its main line
    double value;
    const char *unit;
    double p50, p99;
    double floor, ratio;
};
// Prints the line of one outcome. Only the main line and those with a target of their own are judged.
void outcome_print(const struct bench *b, const struct outcome *o);
void outcome_print_judged(const struct bench *b, const struct outcome *o, enum judged judged,
                          enum sense sense, double target);

// On a terminal: a line that says what is going on.
void progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Ends the benchmark with a message and exit code 1.
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Fails unless SHELF_OK.
void must(shelf_result result, const char *what);
// settings.dir/name in a static buffer of the calling thread (valid until the next call).
const char *scratch_path(const char *name);
// Removes what is under settings.dir/name.
void scratch_remove(const char *name);

// ---- Time, samples, rounds (measure.c) ----------------------------------------------------------------------------

uint64_t now_ns(void);

struct samples { // a growing array; release with samples_free()
    double *values;
    size_t count, count_max;
};
void samples_add(struct samples *s, double value);
void samples_append(struct samples *s, const struct samples *more);
// 0 <= fraction <= 1; sorts the samples. NAN if there are none.
double samples_percentile(struct samples *s, double fraction);
static inline double samples_median(struct samples *s) {
    return samples_percentile(s, 0.5);
}
void samples_free(struct samples *s);

// One side of one round: returns its result (a time or a rate). `round` counts from 0; both sides of a round get the
// same number, and draw the same addresses from it.
typedef double (*side)(void *context, size_t round);

struct rounds {
    struct samples ours, floor, ratio;
};
enum { ROUNDS_MIN = 5 };
// Alternates the sides until settings.seconds have passed, at least ROUNDS_MIN times, after one that does not count.
void rounds_run(struct rounds *r, side ours, side floor, void *context);
// Fills in value, floor, ratio, and p50 and p99 of the rounds of our side.
struct outcome rounds_outcome(struct rounds *r, const char *unit);
void rounds_free(struct rounds *r);

// A word that looks random, of any word: what records are made of.
static inline uint64_t mix64(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Memory that holds still: zeroed, touched, aligned to 2 MiB, with huge pages or without. Never freed (the process is
// the benchmark).
void *memory_make(size_t size, bool huge);
// Whether the mapping that `address` lies in is mapped by huge pages, by what the kernel says of it.
bool memory_is_huge(const void *address);

// Puts the calling thread on the `position`-th CPU that it may use; false if not allowed or there is none.
bool thread_pin(size_t position);

// A crew: threads that stay, and run one operation in a closed loop for a given time.
enum { CREW_MAX = 64 };
struct crew;
// Does one operation as member `position`.
typedef void (*crew_operation)(void *context, size_t position, struct random *random);
struct crew *crew_make(size_t count, crew_operation operation, void *context);
// Returns operations a second; adds the time of each, in us, to `latencies` (may be NULL).
double crew_run(struct crew *c, double seconds, struct samples *latencies);
void crew_end(struct crew *c);

// ---- Other processes (process.c) ----------------------------------------------------------------------------------

// Like fork(), but fails instead; the child dies with its parent. With a handle open, only if the child makes none.
pid_t process_begin(void);
bool process_lives(pid_t process);
// In a child, before it becomes another program: nothing to read, and what it says is heard by nobody.
void process_quiet(void);
// By SIGKILL: what it leaves is removed with the scratch directory.
void process_end(pid_t process);

// A node in another process: shelfd, else a child that opens the directory.
struct server {
    pid_t process;
    char where[4096 + 16]; // for shelf_open()
};
void server_begin(struct server *server, const char *name);
struct server_setting { // a variable of its environment
    const char *name, *value;
};
// `list` ends with a name that is NULL. There must be a shelfd.
void server_begin_with(struct server *server, const char *name, const struct server_setting *list);
// Waits until it serves.
shelf *server_attach(const struct server *server);
void server_end(struct server *server);

// A team: what a crew is, of processes, each pinned to a CPU of its own.
enum { TEAM_MAX = 16 };
struct team;
struct team_work {
    void *(*open)(void *argument, size_t position); // in the process; its result is the operation's context
    crew_operation operation;
    void *argument;
};
struct team *team_make(size_t count, const struct team_work *work);
// The first `count` work; returns operations a second of all together.
double team_run(struct team *t, size_t count, double seconds);
void team_end(struct team *t);

// ---- Records (records.c): what is stored where databases are compared ----------------------------------------------

enum { KEY_SIZE = 16, VALUE_SIZE = 100, RECORD_COUNT = 1000000 };

struct key {
    unsigned char bytes[KEY_SIZE];
};
struct records {
    size_t count, value_size;
};
struct key record_key(size_t position);
void record_value(size_t position, void *value, size_t size);
// What is made of each value that was read: its first and last 8 bytes are loaded.
static inline uint64_t value_digest(const void *value, size_t size) {
    uint64_t first, last;
    __builtin_memcpy(&first, value, 8);
    __builtin_memcpy(&last, (const char *)value + size - 8, 8);
    return first + last;
}
// `count` keys of existing records, uniformly random.
struct lookups {
    struct key *keys;
    size_t count;
};
struct lookups lookups_make(const struct records *records, size_t count, uint64_t seed);

// ---- Peers --------------------------------------------------------------------------------------------------------

struct peer {
    const char *name;
    // Makes a database in settings.dir, loads the records, and leaves it ready to answer from memory.
    void *(*open)(const struct records *records);
    void (*close)(void *database);
    // Looks `count` existing keys up one by one, in one read transaction where there is such a thing; returns the sum
    // of the values' digests.
    uint64_t (*get)(void *database, const struct key *keys, size_t count);
    // A writer belongs to one thread. put: replaces one value; durable when it returns. NULL: not a database.
    void *(*writer_open)(void *database);
    void (*writer_close)(void *writer);
    void (*put)(void *writer, const struct key *key, const void *value, size_t size);
    // A server: many puts (parallel of them, see struct bench) may be under way of one writer. Begins one; waits for the oldest. NULL: it is none.
    void (*put_append)(void *writer, const struct key *key, const void *value, size_t size);
    void (*put_await)(void *writer);
};
extern const struct peer peer_lmdb, peer_rocksdb, peer_sqlite, peer_redis;
extern const struct peer peer_etcd, peer_redis_replicas; // three nodes each
extern const struct peer peer_plain;                     // a hash table without any promise

// ---- etcd (etcd.c) ------------------------------------------------------------------------------------------------

enum { ETCD_MEMBERS_MAX = 3 };
struct etcd {
    size_t count, leader; // leader: position of the one that led when it began
    struct etcd_member {
        pid_t process;
        uint16_t port, peer_port; // on loopback
    } members[ETCD_MEMBERS_MAX];
};
// Returns when it serves.
void etcd_begin(struct etcd *e, size_t count);
void etcd_end(struct etcd *e);

// ---- Disk floors (disk.c) -----------------------------------------------------------------------------------------

// How one write is made durable without anything around it.
enum disk_method { DISK_DSYNC_DIRECT, DISK_FDATASYNC_DIRECT, DISK_FDATASYNC_CACHED, DISK_METHOD_COUNT };

struct disk { // a file that was written in full before, overwritten in order and then from its start again
    enum disk_method method;
    size_t write_size;
    int fd;
    uint64_t size, position;
    unsigned char *buffer; // aligned, of write_size bytes
};
// Makes the file and picks the fastest method, and of the sizes that hold `payload` bytes the fastest.
void disk_open(struct disk *d, size_t payload);
// Makes another file, settings.dir/name, that is written in the same way.
void disk_open_like(struct disk *d, const struct disk *pattern, const char *name);
// One durable write of `size` bytes (a multiple of 512) of d->buffer or another aligned buffer.
void disk_write(struct disk *d, const void *buffer, size_t size);
void disk_close(struct disk *d);
const char *disk_method_name(enum disk_method method);

// A file of `size` bytes of noise, on the disk when this returns.
void disk_file_make(const char *path, uint64_t size);
// Reads the whole file past the page cache, in 1 MiB reads by `threads`; returns bytes a second.
double disk_read_rate(const char *path, uint64_t size, size_t threads);
// Overwrites a file in order, in durable 1 MiB writes; returns bytes a second.
double disk_write_rate(const char *name, uint64_t size);
// Fails with a clear message if the scratch directory is not on a disk.
void disk_check(void);

// ---- Loopback (loopback.c) ----------------------------------------------------------------------------------------

// A port that nobody uses now (somebody may take it before it is used again: then try another).
uint16_t loopback_port(void);
// Both ends of a new TCP connection over loopback, without delays for small messages.
void loopback_pair(int ret_fds[2]);
void loopback_send(int fd, const void *bytes, size_t size);
// False: the other end is closed.
bool loopback_receive(int fd, void *bytes, size_t size);
// Sends `size` bytes to another process in 1 MiB pieces; returns bytes a second.
double loopback_rate(uint64_t size);

// ---- The bare program (bare.c) ------------------------------------------------------------------------------------

// What a majority of three costs with nothing around it: every write is sent to the followers, which are processes of
// their own, over TCP, and written here meanwhile; it is done when it is durable here and at one follower. All files
// are of the same disk. Without followers it is the disk alone.
enum { FOLLOWERS_MAX = 2 };
struct bare {
    struct disk disk;
    size_t follower_count;
    struct follower {
        pid_t process;
        int fd;
        uint64_t durable; // writes that it has acknowledged
    } followers[FOLLOWERS_MAX];
    uint64_t written; // writes that were made here
};
void bare_open(struct bare *b, size_t payload, size_t follower_count);
// `size` is b->disk.write_size, unless there are no followers.
void bare_write(struct bare *b, const void *buffer, size_t size);
// Waits until all followers have everything.
void bare_settle(struct bare *b);
void bare_close(struct bare *b);

// ---- Our side (ours.c) --------------------------------------------------------------------------------------------

shelf *ours_open(const char *name, unsigned flags, struct shelf_options options);
// An empty shelf to work with: in this process, or, if ATTACHED, through `server`, which is begun (see server_begin()).
shelf *ours_make(const struct bench *b, struct server *server);
void ours_end(const struct bench *b, struct server *server, shelf *s);
// A new region whose lines are all written with noise; if `chain`, the first 8 bytes of each line are the offset of
// another one, so that they form a single cycle through the region.
shelf_region ours_region_fill(shelf *s, const char *name, uint64_t size, bool chain);
// A formatted region with a map of the records.
shelf_map ours_map_load(shelf *s, const struct records *records);

// ---- A cluster (cluster.c) ----------------------------------------------------------------------------------------

enum { CLUSTER_NODES = 3 };
struct cluster {
    struct etcd etcd;
    size_t count, primary; // primary: position of the one that led when it was made
    bool patient;          // nobody is suspected before 5 s of silence
    struct server nodes[CLUSTER_NODES];
    uint16_t ports[CLUSTER_NODES]; // for the other nodes
};
// Starts all nodes.
void cluster_begin(struct cluster *c, bool patient);
// Starts a node that has ended.
void cluster_node_begin(struct cluster *c, size_t position);
shelf *cluster_attach(const struct cluster *c, size_t position);
// Waits until so many nodes are in sync, by what the node of `s` knows; returns which leads.
size_t cluster_primary_wait(const struct cluster *c, shelf *s, size_t in_sync);
// Whether the node of `s` leads, and all are in sync and have everything; in which epoch.
bool cluster_is_level(const struct cluster *c, shelf *s, uint64_t *ret_epoch);
// A new cluster of patient nodes, all in sync, and its primary attached to.
shelf *cluster_make(struct cluster *c);
void cluster_end(struct cluster *c);

// ---- Benchmarks ---------------------------------------------------------------------------------------------------

void bench_read_independent(const struct bench *b);
void bench_read_chase(const struct bench *b);
void bench_read_scale(const struct bench *b);
void bench_read_processes(const struct bench *b);
void bench_map_get(const struct bench *b);
void bench_map_get_many(const struct bench *b);
void bench_commit_one(const struct bench *b);
void bench_commit_threads(const struct bench *b);
void bench_commit_outstanding(const struct bench *b);
void bench_commit_peer(const struct bench *b);
void bench_failover_kill(const struct bench *b);
void bench_failover_silent(const struct bench *b);
void bench_handover(const struct bench *b);
void bench_catchup(const struct bench *b);
void bench_read_backup(const struct bench *b);
void bench_recover_image(const struct bench *b);
void bench_recover_log(const struct bench *b);
void bench_open_empty(const struct bench *b);
void bench_open_create(const struct bench *b);
void bench_wait_wake(const struct bench *b);
void bench_idle(const struct bench *b);
void bench_idle_rss(const struct bench *b);

#endif
