// SPDX-License-Identifier: Apache-2.0
/* input.h: the events to work through, from a file or made up, and what tells one input from another. */
#ifndef EXCHANGE_INPUT_H
#define EXCHANGE_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "records.h"

struct input {
    struct origin origin;
    struct event *events; /* owned */
    size_t count;
};

#define INPUT_ERROR_MAX 512u

/* A CSV file (csv.h), plain or compressed with xz. False: `ret_error` says what is wrong with it, and where. */
bool input_load(const char *path, struct input *ret_input, char ret_error[INPUT_ERROR_MAX]);

/* The first `count` events of the flow (flow.h) of `seed`. */
bool input_generate(uint64_t seed, size_t count, struct input *ret_input, char ret_error[INPUT_ERROR_MAX]);

/* The input that a stored state follows from: the file if it is still where it was, the flow up to `position`. */
bool input_again(const struct origin *origin, size_t position, struct input *ret_input,
                 char ret_error[INPUT_ERROR_MAX]);

/* Keeps the events whose order id leaves `lane` when divided by `lanes`, in order. What happens to one order stays in one
 * lane, so lanes may overtake one another. */
void input_keep_lane(struct input *input, uint32_t lane, uint32_t lanes);

/* The first `count` events of a lane of the input that `origin` tells, as input_again(). Fewer if it has no more. */
bool input_lane_again(const struct origin *origin, uint32_t lane, uint32_t lanes, size_t count,
                      struct input *ret_input, char ret_error[INPUT_ERROR_MAX]);

void input_free(struct input *input);

/* Are these the same input? A flow is the same at any length, and a file at any place, compressed or not. */
bool origin_equal(const struct origin *a, const struct origin *b);

#define ORIGIN_TEXT_MAX (ORIGIN_PATH_MAX + 64u)

/* "the generated flow of seed 7", "orders.csv.xz (3326592 bytes of text, sha256 1b2f3344...)" */
void origin_text(const struct origin *origin, char ret_text[ORIGIN_TEXT_MAX]);

#endif
