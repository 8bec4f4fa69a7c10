// SPDX-License-Identifier: Apache-2.0
//
// The simulated world around one node: it owns the disk, the memory, the clock and the coordinator's register, feeds events
// to the core and carries out its ios in a seeded order, lets faults happen, and kills and restarts the node.

#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "audit.h"
#include "core/core.h"
#include "disk.h"
#include "memory.h"
#include "model.h"

#define CLIENTS_MAX 6u
#define FLIGHTS_MAX 256u
#define MAPS_MAX    256u

enum crash_mode { CRASH_BEFORE, CRASH_DURING, CRASH_AFTER, CRASH_MODES };

// A seed's character. All chances are out of 1000 at each step.
struct plan {
    uint64_t seed;
    uint32_t steps; // with clients at work
    uint32_t clients;
    uint32_t alignment;
    uint64_t log_bytes_max, checkpoint_log_bytes;
    uint64_t checkpoint_interval_ms;
    uint64_t session_idle_ms, session_named_idle_ms;
    uint64_t region_pages_max;
    uint32_t io_chance; // that an io is completed, rather than something else happens
    uint32_t tick_chance;
    uint32_t tick_ms_max;
    uint32_t crash_chance;
    uint32_t crashes_max;
    uint32_t close_chance; // clean restarts
    bool users;            // clients are of different users; else all may do everything
    uint32_t hold_chance;  // that a step begins no record
    uint32_t defer_chance; // that a step need not apply
    uint32_t shop_chance;  // that a client works on structures
    uint32_t flood_chance; // of a session that nobody uses any more: the table fills
    uint32_t no_space_chance, no_memory_chance;
    uint32_t eio_chance; // at each io
    uint32_t misdirect_chance;
    uint32_t rot_chance;        // at each restart
    uint32_t large_chance;      // of large transactions
    uint32_t region_chance;     // of changes of the catalog
    uint32_t checkpoint_chance; // of asked-for checkpoints
    uint64_t crash_at;          // the n-th io of the first life (from 1; 0: none) ...
    uint64_t crash_again_at;    // ... and of the second
    enum crash_mode crash_mode;
};

struct flight { // an io between its issue and its answer
    struct io *io;
    uint64_t stamp;  // of its issue
    uint64_t digest; // of a write's bytes: they must stay as they are
};

struct client;

struct world {
    struct random random;
    struct plan plan;
    struct disk *disk;
    struct model *model;
    struct model_node node; // what the model may know
    struct audit *audit;
    struct core_config config;
    void *memory;
    size_t memory_size;
    struct core *core;
    struct image *image;
    struct region_map *maps_readers; /* where programs read each region */
    struct replica replica;          /* both, for them */
    struct map maps[MAPS_MAX], maps_old[MAPS_MAX];
    size_t map_old_count;
    struct flight flights[FLIGHTS_MAX];
    uint32_t flight_count;
    uint64_t stamp;
    uint64_t now_ms;
    uint64_t io_number;          // ios carried out in this life
    uint64_t io_number_recovery; // ... in the second, until it opened
    uint32_t life;
    uint32_t crashes;
    bool faults_on;
    bool no_space;
    uint32_t no_space_writes; // then so many out of 1000 writes fail, too; reservations always do
    bool hold_checkpoint;
    bool apply_due; // deferred: the core must be told to go on
    bool closed;
    bool eio_given;          // in this life: the node has to stop
    bool damaged;            // rot or misdirection has happened: CORRUPT is a right end
    uint64_t damaged_record; // index of the record that was damaged; 0: none
    bool damage_must_heal;   // the damage is of a kind that must be recovered from
    bool over;               // a right end before the end
    bool crash_wanted, crash_power;
    uint64_t checkpoint_tokens;
    struct client *clients[CLIENTS_MAX];
};

// Runs a whole seed; leaves by sim_fail() when something is wrong.
struct world_result {
    uint64_t ios_first_life;
    uint64_t ios_recovery; // of the second life, until it opened
    uint64_t commits, records, crashes;
};
struct world_result world_run(const struct plan *plan);
struct plan plan_of_seed(uint64_t seed);

// One thing at a time, for scripts: everything that world_run() does by chance.
struct world *world_new(const struct plan *plan);
void world_free(struct world *world);
void world_start(struct world *world);
void world_io_complete(struct world *world, uint32_t place); // of the flights
void world_tick(struct world *world, uint64_t time_ms);
void world_close(struct world *world, bool checkpoint);
// The ios under way are done in part, except `spared` (may be NULL), of which nothing is done.
void world_crash(struct world *world, bool power, const struct io *spared);
void world_image_check(const struct world *world); // against the model
const char *world_file_name(struct file_id id);

// For the clients.
bool world_submit(struct world *world, struct submission *submission); // false: refused for now
void world_checkpoint(struct world *world);

#endif
