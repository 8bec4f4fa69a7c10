// SPDX-License-Identifier: Apache-2.0
//
// A program that keeps its state in Shelf's structures: a map with a count of its own beside it, and blocks that it
// allocates and frees. It runs the structures' real code on simulated transactions, through crashes and conflicts, and
// what they hold must be what the committed transactions made of it, in the order of the log.

#ifndef SIM_SHOP_H
#define SIM_SHOP_H

#include "client/tx.h"
#include "world.h"

#define SHOP_REGION_NAME  "shop" // other clients keep away from it
#define SHOP_REGION_PAGES 128u

struct shop;

struct shop *shop_new(struct world *world);
void shop_free(struct shop *shop);
// A transaction of some calls; the next call of this function commits it: the request to be submitted comes back, and
// shop_submitted() must follow. NULL: nothing to submit now.
const struct commit_request *shop_step(struct shop *shop, struct tx_host *host, uint64_t session,
                                       uint64_t holder, uint64_t sequence);
void shop_submitted(struct shop *shop, const struct submission *submission);
// Ends the transaction, if there is one.
void shop_drop(struct shop *shop);
// Replays what was committed, and compares everything.
void shop_check(struct shop *shop, struct tx_host *host);
uint32_t shop_region(const struct world *world); // 0: not there

#endif
