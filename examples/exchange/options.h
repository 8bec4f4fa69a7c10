// SPDX-License-Identifier: Apache-2.0
/* options.h: the command line, and the commands that it can name. */
#ifndef EXCHANGE_OPTIONS_H
#define EXCHANGE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

struct options {
    const char *where; /* "dir:PATH" or "unix:PATH" */
    const char *input; /* NULL if there is none */
    bool generate;     /* instead of `input` */
    uint64_t generate_count;
    uint64_t seed;
    uint64_t batch;      /* events a transaction */
    uint64_t kill_after; /* 0: never */
    const char *acks;    /* NULL if there is none */
    uint64_t depth;
    const char *name;     /* of the gateway */
    uint32_t lane, lanes; /* of the input that the gateway takes */
    uint64_t rate;        /* events a second; 0: as many as possible */
    uint64_t until;       /* the position at which the engine ends; 0: never */
    bool live;
    uint64_t updates; /* of the live book; 0: without end */
    bool json;
};

#define BATCH_MAX 10000u

enum exit_code {
    EXIT_CODE_OK = 0,
    EXIT_CODE_DIFFERENT = 1, /* check found a difference */
    EXIT_CODE_USAGE = 2,
    EXIT_CODE_INPUT =
        3, /* the input cannot be read, is malformed, or is not the one that the state follows from */
    EXIT_CODE_SHELF = 4,    /* the shelf cannot be opened, or refused or lost something */
    EXIT_CODE_REPLACED = 5, /* another process has taken this one's place, and goes on with its work */
};

int command_run(const struct options *options);
int command_gateway(const struct options *options);
int command_engine(const struct options *options);
int command_check(const struct options *options);
int command_book(const struct options *options);
int command_trades(const struct options *options);

#endif
