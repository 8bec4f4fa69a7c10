// SPDX-License-Identifier: Apache-2.0
//
// Simulated programs: they read the image through libshelf's own transactions at any moment, write, use sessions, retry,
// ask for outcomes, change regions, and send nonsense. Every read is checked against the model (M7).

#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "world.h"

struct client *client_new(struct world *world, uint32_t number);
void client_free(struct client *client);
// Does something. `draining`: only what is left to be done.
void client_act(struct client *client, bool draining);
void client_on_reply(struct client *client, struct submission *submission, const struct reply *reply);
void client_on_crash(struct client *client);
// Everything that it keeps in structures is as it must be.
void client_check(struct client *client);
// Is an answer still missing?
bool client_waits(const struct client *client);
// In the middle of the publication of a record: only reads.
void client_interleave(struct client *client);

#endif
