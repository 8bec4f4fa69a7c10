// SPDX-License-Identifier: Apache-2.0
/* cluster_words.h: what the state of a cluster means for people: what may fail now, and what to do. */
#ifndef CMD_CLUSTER_WORDS_H
#define CMD_CLUSTER_WORDS_H

#include <stdbool.h>
#include <stddef.h>

#include "shelf.h"

#define CLUSTER_WORDS_MAX 512u

/* "primary", "backup", "learner" */
const char *cluster_part_name(enum shelf_part part);

/* Of `in_sync` nodes so many may fail at once, and the rest goes on by itself: enough are left to take over, and then to
 * commit, in a set that is not made smaller than copies_min. */
uint32_t cluster_spare(uint32_t in_sync, uint32_t copies_min);

/* In sync, as far as is known, but not there at the moment. */
uint32_t cluster_away(const struct shelf_cluster_info *info);

/* Is a primary there, as far as the node that was asked knows? */
bool cluster_is_led(const struct shelf_cluster_info *info);

/* How it is, in a sentence; true: well. */
bool cluster_state_words(const struct shelf_cluster_info *info, char ret_text[CLUSTER_WORDS_MAX]);
/* What may fail now, and what to do, in a sentence or two. */
void cluster_outlook_words(const struct shelf_cluster_info *info, char ret_text[CLUSTER_WORDS_MAX]);

#endif
