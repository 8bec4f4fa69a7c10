// SPDX-License-Identifier: Apache-2.0
/*
 * tx.h: a transaction as libshelf keeps it: the lines it read, the bytes it wants to write. It works on an image and
 * knows nothing of nodes, threads or files, so that the simulator drives the very same code.
 *
 * Reads follow TL2 (Dice, Shalev, Shavit, DISC 2006) with the extension of LSA / TinySTM (Riegel, Felber, Fetzer, DISC 2006),
 * the log's index as the clock:
 *
 *   R1  Every line read so far was unchanged from its version up to `index`: all reads are of one index exactly.
 *   R2  A line newer than `index` is accepted only after the transaction moved to an applied index that was sampled
 *       before all lines read so far were found unchanged (extension); else CONFLICT, and the transaction stays failed.
 *   R3  Reads never block the node; a wait for a line in mid-apply is bounded (in spins, then yields), then UNAVAILABLE.
 */
#ifndef CLIENT_TX_H
#define CLIENT_TX_H

#include "shelf.h"
#include "wire/image.h"
#include "wire/request.h"

/* The least that a handle must offer to its transactions; first member of struct shelf and of the simulator's clients. */
struct tx_host {
    /* What transactions read. Another one takes its place when the node was replaced; each transaction stays with the one
     * that it began with. */
    _Atomic(const struct replica *) replica;
    /* How a reader waits a little while a line is in mid-apply; returns false when it has waited long enough. `round`
     * counts from 0. The simulator's host returns false at once. */
    bool (*wait)(struct tx_host *host, uint32_t round);
    /* Maps a region that is live and not mapped in this process; NULL: all of them are. */
    shelf_result (*attach)(struct tx_host *host, const struct replica *replica, shelf_region region);
    /* Another node serves than before. Called without any lock, by a thread that must not be held up. NULL: nobody cares. */
    void (*renewed)(struct tx_host *host);
};

/* Does any transaction of this process still read from it? It must not be any host's any more. */
bool tx_replica_used(const struct replica *replica);

/* Takes a transaction from the cache of its kind (tx_pool.c) that begins at the newest applied index. */
shelf_result tx_begin(struct tx_host *host, unsigned flags, struct shelf_tx **ret_tx);
void tx_end(struct shelf_tx *tx);

/* Room inside of a transaction for its host, who must set what it uses after tx_begin(); aligned to 16. */
#define TX_HOST_BYTES 512u
void *tx_host_bytes(struct shelf_tx *tx);
/* What shelf_tx_hint() adds to the thread's number. */
void tx_hint_shift(struct shelf_tx *tx, uint32_t attempt);

/* Has it anything to commit (writes, operations)? */
bool tx_has_effects(const struct shelf_tx *tx);
/* CONFLICT etc. if the transaction has failed. */
shelf_result tx_failed(const struct shelf_tx *tx);
/* The encoded request, owned by the transaction, valid until tx_end() or the next tx_encode(). TOO_LARGE. */
shelf_result tx_encode(struct shelf_tx *tx, uint64_t session, uint64_t holder, uint64_t sequence,
                       const struct commit_request **ret_request);
/* Changes under what the encoded request commits. */
void tx_retarget(struct shelf_tx *tx, uint64_t session, uint64_t holder, uint64_t sequence);

#endif
