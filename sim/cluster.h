// SPDX-License-Identifier: Apache-2.0
//
// Whole nodes of a cluster in one process: each with the real core, a simulated disk and memory of its own; programs on all of
// them. Beside the facts of group_world.h, which hold here too:
//   Q7  Nodes that have applied the same index have the same bytes, and those that the log gives, replayed from its begin.
//   Q8  A sequence of a session takes effect at most once, and if it was answered with OK, exactly once, with those results.
//   Q9  What a program was told is committed stays, and it sees it on its node at once; what it reads on a node never goes back while
//       that node lives.
//   Q10 Nothing that a committed transaction has read, on whichever node, was changed between that and its own record.
//   Q11 What was refused with CONFLICT never commits, and something that it had read was changed by a committed record.

#ifndef SIM_CLUSTER_H
#define SIM_CLUSTER_H

#include "core/core.h"
#include "disk.h"
#include "memory.h"
#include "net.h"

#define CLUSTER_RECORDS_MAX 8192u
#define CLUSTER_FLIGHTS_MAX 128u
#define CLUSTER_REGIONS_MAX 16u
#define CLUSTER_CLIENTS_MAX NET_NODES_MAX
#define CLUSTER_LINES_MAX   4096u // of the programs' region
#define CLUSTER_REQUEST_MAX 65536u

struct seen_record { // as a node sent it to its disk
    uint64_t epoch;
    uint32_t chain;
    uint32_t size;
    bool durable;
    uint8_t *payload; // owned by the world's list of all payloads
};

struct cluster_flight {
    struct io *io;
    uint64_t stamp;
};

struct cluster_node {
    struct cluster_world *world;
    uint64_t id;
    bool alive;
    uint32_t life;
    uint8_t incarnation[16];
    struct disk *disk;
    void *memory;
    size_t memory_size;
    struct core *core;
    struct core_config config;
    struct image *image;
    struct region_map *maps_readers;
    struct map maps[CLUSTER_REGIONS_MAX];
    struct map maps_old[CLUSTER_REGIONS_MAX * 4];
    uint32_t map_old_count;
    struct cluster_flight flights[CLUSTER_FLIGHTS_MAX];
    uint32_t flight_count;
    uint64_t stamp;
    bool stopped, running, opened, more, hangs, doomed, eio;
    bool restarts; // it wants to be started again
    bool closing, closed;
    uint64_t close_ms;
    uint64_t led_epoch;
    uint64_t commit_seen, applied_seen;
    struct seen_record log[CLUSTER_RECORDS_MAX];
    struct core_status status;
};

struct cluster_attempt { // a commit, as it was asked for; sent again as it is, it is the same one
    uint64_t number;
    uint32_t client;
    uint64_t sequence;
    uint64_t index; // read at, these lines
    uint64_t lines[2];
    uint32_t line_count;
    bool ghost;      // of a sequence that was answered long ago
    bool other_life; // read in another image than that of the node's present life
    bool refused;
    uint64_t committed_index;
};

struct cluster_client {
    uint64_t session, holder, sequence;
    uint64_t effects; // so many of its transactions have been answered with OK
    uint32_t state;   // of cluster_client.c
    uint64_t node, token, attempt;
    uint64_t since_ms, known_floor, ghost;
    uint64_t read_node, read_index, read_epoch; // where it has read
    uint64_t sent_node;                         // the request was made for; 0: there is none
    size_t request_size;
    _Alignas(8) uint8_t request[CLUSTER_REQUEST_MAX];
};

struct cluster_plan {
    uint64_t seed;
    uint32_t steps;
    uint32_t nodes, members, copies, min_copies, clients;
    uint32_t alignment, log_segments, log_segments_others; // of nodes 2, 3, 5, 6
    uint32_t comeback;                                     // out of a million
    uint32_t damage; // of parts of checkpoints on their way, where no checksum of a message tells
    uint32_t tick_ms_max, flight_records_max;
    uint32_t loss, duplicate, late, register_fault;
    uint32_t close, crash, crash_install, power, wipe, partition, hang, register_down, doom, eio;
    uint32_t net_chance, io_chance, client_chance;
    uint32_t large_chance, checkpoint_chance, forward_ms;
    uint32_t region_pages, write_min, write_max; // at most 3 pages less
};

struct grave_record { // what was durable in a directory that is gone
    uint8_t incarnation[16];
    uint32_t chains[CLUSTER_RECORDS_MAX];
};

struct cluster_world {
    struct random random;
    struct cluster_plan plan;
    struct net net;
    struct cluster_node nodes[NET_NODES_MAX];
    struct cluster_client clients[CLUSTER_CLIENTS_MAX];
    uint64_t tokens;
    struct cluster_attempt *attempts;
    uint64_t attempt_count, attempt_max;
    uint64_t versions[CLUSTER_LINES_MAX];
    uint64_t floor_max;                          // of the programs' region on any node
    void (*on_reply)(const struct reply *reply); // of a schedule; else the programs'
    uint64_t region;                             // that programs write to; 0: not made yet
    // Facts.
    struct seen_record committed[CLUSTER_RECORDS_MAX];
    uint64_t committed_in[CLUSTER_RECORDS_MAX]; // the epoch in which it was
    uint64_t committed_last, answered_last, answered_count, reads_count;
    uint8_t *image[CLUSTER_REGIONS_MAX]; // the committed log, replayed up to committed_last
    uint64_t image_size[CLUSTER_REGIONS_MAX];
    struct grave_record *graves;
    uint32_t grave_count;
    uint8_t **payloads;
    size_t payload_count, payload_max;
};

struct cluster_result {
    uint64_t commits, epochs;
};
struct cluster_plan cluster_plan_of_seed(uint64_t seed);
struct cluster_result cluster_world_run(const struct cluster_plan *plan);

// One thing at a time, for schedules.
void cluster_world_begin(struct cluster_world *world, const struct cluster_plan *plan);
void cluster_world_end(struct cluster_world *world);
void cluster_node_start(struct cluster_node *node);
void cluster_node_crash(struct cluster_node *node, bool power);
bool cluster_node_moves(const struct cluster_node *node); // has an io or more to do
void cluster_node_io(struct cluster_node *node);
void cluster_node_tick(struct cluster_node *node);
void cluster_node_checkpoint(struct cluster_node *node);
void cluster_node_close(struct cluster_node *node);

void cluster_node_run(struct cluster_node *node); // all its ios, one after the other
void cluster_node_restart(struct cluster_node *node);

// cluster_schedules.c, trim_schedules.c: violations end the run as everywhere; else the schedule's name.
uint32_t cluster_schedule_count(void);
const char *cluster_schedule_run(uint32_t number);
uint32_t trim_schedule_count(void);
const char *trim_schedule_run(uint32_t number);

// For the programs. False: refused for now.
bool cluster_submit(struct cluster_node *node, const void *bytes, size_t size, uint64_t token,
                    const struct credentials *credentials);
void cluster_read(struct cluster_node *node, uint64_t token);

// cluster_client.c
void cluster_client_act(struct cluster_world *world, uint32_t number);
void cluster_client_on_reply(struct cluster_world *world, struct cluster_node *node,
                             const struct reply *reply);
void cluster_client_on_crash(struct cluster_world *world, const struct cluster_node *node);
bool cluster_client_idle(const struct cluster_world *world, uint32_t number);

// cluster_attempts.c
struct cluster_attempt *cluster_attempt_new(struct cluster_world *world, uint32_t client);
struct cluster_attempt *cluster_attempt_of(struct cluster_world *world, uint64_t number);
void cluster_attempts_tx(struct cluster_world *world, uint64_t index,
                         const struct record_tx *tx); // committed
void cluster_attempt_refused(struct cluster_world *world, struct cluster_attempt *attempt);
void cluster_attempts_floor(struct cluster_node *node);

// cluster_facts.c
void cluster_facts_write(struct cluster_node *node, const struct io *io);   // is issued
void cluster_facts_written(struct cluster_node *node, const struct io *io); // is durable
void cluster_facts_recovered(struct cluster_node *node);                    // it knows its log
void cluster_facts_closed(struct cluster_node *node);
void cluster_facts_step(struct cluster_node *node);
void cluster_facts_image(const struct cluster_node *node);
void cluster_facts_wiped(struct cluster_node *node);
bool cluster_facts_may_wipe(const struct cluster_world *world, const struct cluster_node *node);
bool cluster_facts_healed(const struct cluster_world *world);

#endif
