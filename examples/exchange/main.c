// SPDX-License-Identifier: Apache-2.0
/*
 * main.c: an exchange whose memory survives anything: the command line.
 *
 * To read this program as a tour of Shelf: records.h says what is kept, store.c how a program finds it again, engine.c
 * how it is changed, run.c how transactions are made of events, ladder.c how a data structure is built on addresses.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

#define EXIT_CODES_HELP                                                                                    \
    "Exit codes: 0 done, 1 check found a difference, 2 wrong usage, 3 the input is unreadable, malformed " \
    "or\n"                                                                                                 \
    "another one than the shelf's, 4 the shelf cannot be opened or failed.\n"

static const char general_help[] =
    "exchange: a limit-order exchange whose whole state lives in a Shelf region.\n"
    "\n"
    "  exchange run     works through order events, durably, and goes on where it was after anything\n"
    "  exchange check   replays the same events in ordinary memory and compares trades, book and balances\n"
    "  exchange book    shows the best prices\n"
    "  exchange trades  lists all trades\n"
    "\n"
    "exchange COMMAND --help explains a command.\n"
    "\n" EXIT_CODES_HELP;

static const char run_help[] =
    "exchange run --where dir:PATH (--input FILE | --generate N [--seed S])\n"
    "             [--batch N] [--kill-after N] [--acks FILE] [--json]\n"
    "\n"
    "Works through order events from wherever the shelf in PATH got to; makes the shelf if there is none. It "
    "remembers\n"
    "which input it follows from and refuses another.\n"
    "\n"
    "  --where dir:PATH   the directory of the shelf\n"
    "  --input FILE       CSV as id,timestamp,exchange.timestamp,price,volume,action,direction, plain or "
    ".xz\n"
    "  --generate N       the first N events of a made-up flow instead\n"
    "  --seed S           which flow (default 1)\n"
    "  --batch N          events a transaction, 1 to 10000 (default 1)\n"
    "  --kill-after N     SIGKILL itself about when the Nth event from now is being committed\n"
    "  --acks FILE        after each commit, write the durable position into FILE\n"
    "  --json             the summary as one JSON object\n"
    "\n"
    "Examples:\n"
    "  exchange run --where dir:/tmp/market --generate 100000 --seed 7\n"
    "  exchange run --where dir:/tmp/real --input orders.csv.xz --batch 64\n"
    "  exchange run --where dir:/tmp/market --generate 200000 --seed 7 --kill-after 5000\n"
    "\n" EXIT_CODES_HELP;

static const char check_help[] =
    "exchange check --where dir:PATH [--input FILE | --generate N --seed S] [--json]\n"
    "\n"
    "Replays the events up to the shelf's position through a second, plain engine and compares everything: "
    "outcomes of\n"
    "events, trades one by one and by SHA-256, the orders in the book in their precedence, balances, sums; "
    "and has Shelf\n"
    "check its structures. Without an input it takes the one that the shelf remembers.\n"
    "\n"
    "Examples:\n"
    "  exchange check --where dir:/tmp/market\n"
    "  exchange check --where dir:/tmp/real --input orders.csv.xz --json\n"
    "\n" EXIT_CODES_HELP;

static const char book_help[] =
    "exchange book --where dir:PATH [--depth N] [--json]\n"
    "\n"
    "Shows the best N prices of both sides (default 10, at most 1000): coins offered and number of orders.\n"
    "\n"
    "Examples:\n"
    "  exchange book --where dir:/tmp/market\n"
    "  exchange book --where dir:/tmp/market --depth 3 --json\n"
    "\n" EXIT_CODES_HELP;

static const char trades_help[] =
    "exchange trades --where dir:PATH\n"
    "\n"
    "Lists all trades, oldest first, as timestamp,maker,taker,price,volume,direction (of the taker). The "
    "SHA-256 of the\n"
    "list is the one that `run` and `check` print.\n"
    "\n"
    "Examples:\n"
    "  exchange trades --where dir:/tmp/market | tail\n"
    "  exchange trades --where dir:/tmp/market | sha256sum\n"
    "\n" EXIT_CODES_HELP;

enum option_key {
    KEY_WHERE = 256,
    KEY_INPUT,
    KEY_GENERATE,
    KEY_SEED,
    KEY_BATCH,
    KEY_KILL,
    KEY_ACKS,
    KEY_DEPTH,
    KEY_JSON,
    KEY_HELP
};

static const struct option option_list[] = {
    {"where", required_argument, NULL, KEY_WHERE},
    {"input", required_argument, NULL, KEY_INPUT},
    {"generate", required_argument, NULL, KEY_GENERATE},
    {"seed", required_argument, NULL, KEY_SEED},
    {"batch", required_argument, NULL, KEY_BATCH},
    {"kill-after", required_argument, NULL, KEY_KILL},
    {"acks", required_argument, NULL, KEY_ACKS},
    {"depth", required_argument, NULL, KEY_DEPTH},
    {"json", no_argument, NULL, KEY_JSON},
    {"help", no_argument, NULL, KEY_HELP},
    {NULL, 0, NULL, 0},
};

struct command {
    const char *name;
    const char *help;
    int (*run)(const struct options *options);
    uint32_t keys; /* bit (key - KEY_WHERE): the option means something here */
};

#define KEY_BIT(key) (1u << ((key)-KEY_WHERE))

static const struct command commands[] = {
    {"run", run_help, command_run,
     KEY_BIT(KEY_WHERE) | KEY_BIT(KEY_INPUT) | KEY_BIT(KEY_GENERATE) | KEY_BIT(KEY_SEED) |
         KEY_BIT(KEY_BATCH) | KEY_BIT(KEY_KILL) | KEY_BIT(KEY_ACKS) | KEY_BIT(KEY_JSON)},
    {"check", check_help, command_check,
     KEY_BIT(KEY_WHERE) | KEY_BIT(KEY_INPUT) | KEY_BIT(KEY_GENERATE) | KEY_BIT(KEY_SEED) | KEY_BIT(KEY_JSON)},
    {"book", book_help, command_book, KEY_BIT(KEY_WHERE) | KEY_BIT(KEY_DEPTH) | KEY_BIT(KEY_JSON)},
    {"trades", trades_help, command_trades, KEY_BIT(KEY_WHERE)},
};

static int usage_error(const char *command, const char *what) {
    fprintf(stderr, "exchange: %s; see exchange %s%s--help\n", what, command, *command ? " " : "");
    return EXIT_CODE_USAGE;
}

static bool number_parse(const char *option, const char *text, uint64_t min, uint64_t max,
                         uint64_t *ret_number) {
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || *end || end == text || *text < '0' || *text > '9' || number < min || number > max) {
        fprintf(stderr, "exchange: --%s %s: a number from %" PRIu64 " to %" PRIu64 " is needed\n", option,
                text, min, max);
        return false;
    }
    *ret_number = number;
    return true;
}

static bool option_take(int key, const char *name, struct options *options) {
    switch (key) {
    case KEY_WHERE:
        options->where = optarg;
        return true;
    case KEY_INPUT:
        options->input = optarg;
        return true;
    case KEY_GENERATE:
        options->generate = true;
        return number_parse(name, optarg, 0, 100000000, &options->generate_count);
    case KEY_SEED:
        return number_parse(name, optarg, 0, UINT64_MAX, &options->seed);
    case KEY_BATCH:
        return number_parse(name, optarg, 1, BATCH_MAX, &options->batch);
    case KEY_KILL:
        return number_parse(name, optarg, 1, 1000000000, &options->kill_after);
    case KEY_ACKS:
        options->acks = optarg;
        return true;
    case KEY_DEPTH:
        return number_parse(name, optarg, 1, 1000, &options->depth);
    default:
        options->json = true;
        return true;
    }
}

static int options_check(const struct command *command, const struct options *options) {
    if (!options->where)
        return usage_error(command->name, "--where dir:PATH is missing");
    if (options->generate && options->input)
        return usage_error(command->name, "--input and --generate exclude each other");
    if (command->run == command_run && !options->generate && !options->input)
        return usage_error(command->name, "an input is missing: --input FILE or --generate N");
    return EXIT_CODE_OK;
}

static int command_start(const struct command *command, int argc, char **argv) {
    struct options options = {.batch = 1, .seed = 1, .depth = 10};
    int key, index = 0;

    while ((key = getopt_long(argc, argv, "", option_list, &index)) != -1) {
        if (key == KEY_HELP) {
            fputs(command->help, stdout);
            return EXIT_CODE_OK;
        }
        if (key == '?')
            return usage_error(command->name, "that option cannot be used");
        if (!(command->keys & KEY_BIT(key))) {
            fprintf(stderr, "exchange: --%s means nothing to '%s'\n", option_list[index].name, command->name);
            return usage_error(command->name, "that option cannot be used");
        }
        if (!option_take(key, option_list[index].name, &options))
            return EXIT_CODE_USAGE;
    }
    if (optind < argc)
        return usage_error(command->name, "there is an argument too many");
    int code = options_check(command, &options);
    return code == EXIT_CODE_OK ? command->run(&options) : code;
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "help") == 0) {
        fputs(general_help, stdout);
        return EXIT_CODE_OK;
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(name, commands[i].name) == 0)
            return command_start(&commands[i], argc - 1, argv + 1);
    }
    return usage_error("", *name ? "there is no such command" : "a command is missing");
}
