// SPDX-License-Identifier: Apache-2.0
/*
 * main.c: an exchange whose memory survives anything: the command line.
 *
 * To read this program as a tour of Shelf: records.h says what is kept, store.c how a program finds it again, engine.c
 * how it is changed, run.c how transactions are made of events, ladder.c how a data structure is built on addresses. Then
 * several processes: gateway.c and inbox.c submit, match.c takes, live.c looks on.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "records.h"

#define LANES_MAX    1024u
#define ENGINE_BATCH 256u /* unless another one is named */

#define EXIT_CODES_HELP                                                                                    \
    "Exit codes: 0 done, 1 check found a difference, 2 wrong usage, 3 the input is unreadable, malformed " \
    "or\n"                                                                                                 \
    "another one than the shelf's, 4 the shelf cannot be opened or failed, 5 another process has taken "   \
    "this\n"                                                                                               \
    "one's place.\n"

static const char general_help[] =
    "exchange: a limit-order exchange whose whole state lives in a Shelf region.\n"
    "\n"
    "  exchange run     works through order events, durably, and goes on where it was after anything\n"
    "\n"
    "  exchange gateway submits order events, one of several processes that do so at once\n"
    "  exchange engine  matches what they submit\n"
    "\n"
    "  exchange check   replays the same events in ordinary memory and compares trades, book and balances\n"
    "  exchange book    shows the best prices, with --live as they change\n"
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

#define WHERE_HELP                                                                                        \
    "  --where dir:PATH   the directory of the shelf; the first process there serves the others, and if " \
    "it dies\n"                                                                                           \
    "                     one of them does\n"                                                             \
    "  --where unix:PATH  the socket of a shelfd\n"

static const char gateway_help[] =
    "exchange gateway --where dir:PATH|unix:PATH --name NAME (--input FILE | --generate N [--seed S])\n"
    "                 [--lane K/N] [--rate R] [--batch N] [--kill-after N] [--acks FILE] [--json]\n"
    "\n"
    "Submits order events to the engine, beside other gateways, from wherever the gateway of that name got "
    "to. Makes the\n"
    "exchange if there is none. Ends when all are submitted; matching them is the engine's business.\n"
    "\n" WHERE_HELP
    "  --name NAME        of the gateway: letters, digits, '-', '_', '.', at most 31; there can be 16\n"
    "  --input FILE       CSV as id,timestamp,exchange.timestamp,price,volume,action,direction, plain or "
    ".xz\n"
    "  --generate N       the first N events of a made-up flow instead\n"
    "  --seed S           which flow (default 1)\n"
    "  --lane K/N         only the events whose order id leaves K when divided by N (default 0/1, all)\n"
    "  --rate R           R events a second at most\n"
    "  --batch N          events a transaction, 1 to 10000 (default 1)\n"
    "  --kill-after N     SIGKILL itself about when the Nth event from now is being committed\n"
    "  --acks FILE        after each commit, write the durable position into FILE\n"
    "  --json             the summary as one JSON object\n"
    "\n"
    "Examples:\n"
    "  exchange gateway --where dir:/tmp/many --name north --generate 100000 --lane 0/2 &\n"
    "  exchange gateway --where dir:/tmp/many --name south --generate 100000 --lane 1/2 &\n"
    "  exchange engine --where dir:/tmp/many --until 100000\n"
    "\n" EXIT_CODES_HELP;

static const char engine_help[] =
    "exchange engine --where dir:PATH|unix:PATH [--batch N] [--until N] [--kill-after N] [--acks FILE] "
    "[--json]\n"
    "\n"
    "Matches what gateways submit, and sleeps when there is nothing. Ends at Ctrl-C or --until. There is one "
    "engine: a\n"
    "second one takes over, and the first is told so and ends.\n"
    "\n" WHERE_HELP "  --batch N          events a transaction at most, 1 to 10000 (default 256)\n"
    "  --until N          end when N events in all have been matched\n"
    "  --kill-after N     SIGKILL itself about when the Nth event from now is being committed\n"
    "  --acks FILE        after each commit, write the durable position into FILE\n"
    "  --json             the summary as one JSON object\n"
    "\n"
    "Examples:\n"
    "  exchange engine --where dir:/tmp/many\n"
    "  exchange engine --where unix:/run/shelf/sock --batch 1000 --until 50000 --json\n"
    "\n" EXIT_CODES_HELP;

static const char check_help[] =
    "exchange check --where dir:PATH|unix:PATH [--input FILE | --generate N --seed S] [--json]\n"
    "\n"
    "Replays the events up to the shelf's position through a second, plain engine and compares everything: "
    "outcomes of\n"
    "events, trades one by one and by SHA-256, the orders in the book in their precedence, balances, sums; "
    "and has Shelf\n"
    "check its structures. Without an input it takes the one that the shelf remembers.\n"
    "\n"
    "With gateways: compares what each of them submitted with its input, and replays the inputs in the order "
    "in which the\n"
    "engine took them. Without --input each gateway's own is taken.\n"
    "\n"
    "Examples:\n"
    "  exchange check --where dir:/tmp/market\n"
    "  exchange check --where dir:/tmp/real --input orders.csv.xz --json\n"
    "\n" EXIT_CODES_HELP;

static const char book_help[] =
    "exchange book --where dir:PATH|unix:PATH [--depth N] [--live [--updates N]] [--json]\n"
    "\n"
    "Shows the best N prices of both sides (default 10, at most 1000): coins offered and number of orders.\n"
    "\n" WHERE_HELP "  --depth N          prices of each side\n"
    "  --live             again whenever it has changed, until Ctrl-C; without a terminal a line each time\n"
    "  --updates N        ... until it has been shown N times\n"
    "  --json             one JSON object a line\n"
    "\n"
    "Examples:\n"
    "  exchange book --where dir:/tmp/market\n"
    "  exchange book --where dir:/tmp/market --depth 3 --json\n"
    "  exchange book --where dir:/tmp/many --live\n"
    "\n" EXIT_CODES_HELP;

static const char trades_help[] =
    "exchange trades --where dir:PATH|unix:PATH\n"
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
    KEY_NAME,
    KEY_LANE,
    KEY_RATE,
    KEY_UNTIL,
    KEY_LIVE,
    KEY_UPDATES,
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
    {"name", required_argument, NULL, KEY_NAME},
    {"lane", required_argument, NULL, KEY_LANE},
    {"rate", required_argument, NULL, KEY_RATE},
    {"until", required_argument, NULL, KEY_UNTIL},
    {"live", no_argument, NULL, KEY_LIVE},
    {"updates", required_argument, NULL, KEY_UPDATES},
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
    {"gateway", gateway_help, command_gateway,
     KEY_BIT(KEY_WHERE) | KEY_BIT(KEY_INPUT) | KEY_BIT(KEY_GENERATE) | KEY_BIT(KEY_SEED) | KEY_BIT(KEY_NAME) |
         KEY_BIT(KEY_LANE) | KEY_BIT(KEY_RATE) | KEY_BIT(KEY_BATCH) | KEY_BIT(KEY_KILL) | KEY_BIT(KEY_ACKS) |
         KEY_BIT(KEY_JSON)},
    {"engine", engine_help, command_engine,
     KEY_BIT(KEY_WHERE) | KEY_BIT(KEY_BATCH) | KEY_BIT(KEY_UNTIL) | KEY_BIT(KEY_KILL) | KEY_BIT(KEY_ACKS) |
         KEY_BIT(KEY_JSON)},
    {"book", book_help, command_book,
     KEY_BIT(KEY_WHERE) | KEY_BIT(KEY_DEPTH) | KEY_BIT(KEY_LIVE) | KEY_BIT(KEY_UPDATES) | KEY_BIT(KEY_JSON)},
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

/* "K/N", with K below N. */
static bool lane_parse(const char *text, struct options *options) {
    char *slash, *end;
    if (*text >= '0' && *text <= '9') {
        unsigned long lane = strtoul(text, &slash, 10);
        if (*slash == '/' && slash[1] >= '0' && slash[1] <= '9') {
            unsigned long lanes = strtoul(slash + 1, &end, 10);
            if (*end == '\0' && lanes <= LANES_MAX && lane < lanes) {
                options->lane = (uint32_t)lane;
                options->lanes = (uint32_t)lanes;
                return true;
            }
        }
    }
    fprintf(stderr, "exchange: --lane %s: K/N is needed, as in 0/3, 1/3, 2/3; N is at most %u\n", text,
            LANES_MAX);
    return false;
}

static bool name_check(const char *name) {
    size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    if (size > 0 && name[size] == '\0' && size <= GATEWAY_NAME_MAX)
        return true;
    fprintf(stderr, "exchange: --name %s: 1 to %u letters, digits, '-', '_' or '.' are needed\n", name,
            GATEWAY_NAME_MAX);
    return false;
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
    case KEY_NAME:
        options->name = optarg;
        return name_check(optarg);
    case KEY_LANE:
        return lane_parse(optarg, options);
    case KEY_RATE:
        return number_parse(name, optarg, 1, 1000000000, &options->rate);
    case KEY_UNTIL:
        return number_parse(name, optarg, 1, UINT64_MAX, &options->until);
    case KEY_LIVE:
        options->live = true;
        return true;
    case KEY_UPDATES:
        return number_parse(name, optarg, 1, UINT64_MAX, &options->updates);
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
    bool feeds = command->run == command_run || command->run == command_gateway;
    if (feeds && !options->generate && !options->input)
        return usage_error(command->name, "an input is missing: --input FILE or --generate N");
    if (command->run == command_gateway && !options->name)
        return usage_error(command->name, "--name NAME is missing");
    if (options->updates && !options->live)
        return usage_error(command->name, "--updates goes with --live");
    return EXIT_CODE_OK;
}

static int command_start(const struct command *command, int argc, char **argv) {
    struct options options = {
        .batch = command->run == command_engine ? ENGINE_BATCH : 1, .seed = 1, .depth = 10, .lanes = 1};
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
