// SPDX-License-Identifier: Apache-2.0
/*
 * main.c: the `shelf` command: its table of commands, and the way from the command line to one of them.
 */
#include <stdio.h>
#include <string.h>

#include "cmd/arguments.h"
#include "cmd/help.h"
#include "cmd/output.h"

const struct command commands[] = {
    {
        .name = "create",
        .synopsis = "PATH [REGION SIZE [--max SIZE] [--raw]]",
        .summary = "make a shelf, and a region in it",
        .about = "Makes the directory and an empty shelf in it, if there is none. With REGION, also makes a "
                 "region of SIZE\n"
                 "bytes, all zero, and formats it: so it can have maps, streams and allocations.\n"
                 "Twice the size is reserved on the disk, so that a checkpoint never lacks space.",
        .argument_min = 1,
        .argument_max = 3,
        .options = {{"max", "SIZE", "up to which size it can grow later (64G, or SIZE if that is more)"},
                    {"raw", NULL, "do not format it: a plain range of bytes for a program of your own"}},
        .examples = {"shelf create /var/lib/shop orders 64M", "shelf create /var/lib/shop",
                     "shelf create /var/lib/shop log 1G --max 16G --raw"},
        .run = cmd_create,
    },
    {
        .name = "list",
        .synopsis = "PATH",
        .summary = "show the regions of a shelf",
        .about = "Shows names, numbers and sizes. If another process works in the directory, what its last "
                 "checkpoint has.",
        .argument_min = 1,
        .argument_max = 1,
        .examples = {"shelf list /var/lib/shop", "shelf list /var/lib/shop --json"},
        .run = cmd_list,
    },
    {
        .name = "put",
        .synopsis = "PATH REGION/MAP KEY VALUE|-",
        .summary = "store a value in a map",
        .about = "Stores VALUE under KEY, durably, in place of what is there. Makes the map if there is "
                 "none. With - the value\n"
                 "is read from standard input, byte by byte as it is; up to 16 MiB.",
        .argument_min = 4,
        .argument_max = 4,
        .options = {{"hex", NULL,
                     "KEY and VALUE are written in hexadecimal digits (what comes from - is not)"}},
        .examples = {"shelf put /var/lib/shop orders/prices apple 120",
                     "shelf put /var/lib/shop orders/pictures apple - < apple.jpg",
                     "shelf put --hex /var/lib/shop orders/ids 00ff 0102"},
        .run = cmd_put,
    },
    {
        .name = "get",
        .synopsis = "PATH REGION/MAP KEY",
        .summary = "print a value of a map",
        .about = "Prints the bytes as they are; on a terminal with a line end behind them. In JSON, what is "
                 "not UTF-8 is in\n"
                 "hexadecimal digits (\"value_encoding\": \"hex\").",
        .argument_min = 3,
        .argument_max = 3,
        .options = {{"hex", NULL, "KEY and the answer are written in hexadecimal digits"}},
        .examples = {"shelf get /var/lib/shop orders/prices apple",
                     "shelf get /var/lib/shop orders/pictures apple > apple.jpg"},
        .run = cmd_get,
    },
    {
        .name = "del",
        .synopsis = "PATH REGION/MAP KEY",
        .summary = "remove a key from a map",
        .about = "Removes the key and its value, durably.",
        .argument_min = 3,
        .argument_max = 3,
        .options = {{"hex", NULL, "KEY is written in hexadecimal digits"}},
        .examples = {"shelf del /var/lib/shop orders/prices apple"},
        .run = cmd_del,
    },
    {
        .name = "scan",
        .synopsis = "PATH REGION/MAP",
        .summary = "print all entries of a map",
        .about = "One entry a line: key, tab, value, in no particular order. With --json or --hex any bytes "
                 "can be told apart.",
        .argument_min = 2,
        .argument_max = 2,
        .options = {{"hex", NULL, "keys and values are written in hexadecimal digits"}},
        .examples = {"shelf scan /var/lib/shop orders/prices",
                     "shelf scan /var/lib/shop orders/prices --json"},
        .run = cmd_scan,
    },
    {
        .name = "verify",
        .synopsis = "PATH [--checkpoint | --files]",
        .summary = "check everything that a shelf has on disk",
        .about = "First reads all files, writing nothing: superblock, tables and pages of the checkpoint, "
                 "the chain of records of\n"
                 "the log. If these are in order it opens the shelf and checks the allocator, the maps and "
                 "the streams of every\n"
                 "region. Says of everything what it is, where, and what to do. \"harmless\" is what a crash "
                 "leaves behind and\n"
                 "the next open puts right. Ends with 0 if there is no damage, with 9 if there is.",
        .argument_min = 1,
        .argument_max = 1,
        .options = {{"checkpoint", NULL,
                     "only the last checkpoint; works beside a process that uses the directory"},
                    {"files", NULL, "only the files: does not open the shelf, writes nothing"}},
        .examples = {"shelf verify /var/lib/shop", "shelf verify /var/lib/shop --checkpoint",
                     "shelf verify /mnt/backup/shop --files --json"},
        .run = cmd_verify,
    },
    {
        .name = "dump",
        .synopsis = "PATH REGION [FILE|-] [--force]",
        .summary = "copy a region into a portable file, also while a program uses it",
        .about =
            "Writes the region, with checksums, to FILE, or to standard output. If a process works in the "
            "directory, the dump\n"
            "is of its last checkpoint, which may be minutes old; else of the present state. The index that "
            "the dump is\n"
            "exact at is told (on standard error, also with --json, if the dump goes to standard output).\n"
            "The process holds back its next checkpoint meanwhile, unless its log is full.",
        .argument_min = 2,
        .argument_max = 3,
        .options = {{"force", NULL, "replace FILE if it is there"}},
        .examples = {"shelf dump /var/lib/shop orders orders.dump",
                     "shelf dump /var/lib/shop orders | zstd > orders.dump.zst"},
        .run = cmd_dump,
    },
    {
        .name = "load",
        .synopsis = "PATH REGION [FILE|-] [--as NAME] [--same-number | --renumber]",
        .summary = "make a region out of a dump",
        .about =
            "Loads the dump of REGION from FILE, or from standard input, as a new region. All checksums are "
            "compared, for a\n"
            "file before anything is changed; a dump that is damaged or truncated leaves nothing behind.\n"
            "\n"
            "Regions have numbers, and addresses contain them. The allocator, the directory of roots, maps "
            "and streams do\n"
            "not store addresses; a region that has nothing but these can be loaded under any number "
            "(addresses that a\n"
            "program has put into values are not changed). Any other region is refused unless it gets the "
            "number that it\n"
            "had, or you say --renumber.",
        .argument_min = 2,
        .argument_max = 3,
        .options = {{"as", "NAME", "the new region's name (REGION)"},
                    {"same-number", NULL,
                     "use up numbers of the shelf until the region gets the one that it had"},
                    {"renumber", NULL, "any number will do: no addresses are stored in it"}},
        .examples = {"shelf load /var/lib/other orders orders.dump",
                     "shelf load /var/lib/shop orders orders.dump --as orders-old",
                     "zstd -dc orders.dump.zst | shelf load /var/lib/other orders -"},
        .run = cmd_load,
    },
    {
        .name = "bench",
        .synopsis = "all|NAME... [OPTIONS]",
        .summary = "measure this machine, and Shelf and other databases on it",
        .about = "Starts the program shelf-bench with the same arguments; `shelf bench -- --help` shows its "
                 "own help.",
        .argument_min = 0,
        .argument_max = 1000,
        .raw = true,
        .examples = {"shelf bench all", "shelf bench commit.1 --json", "shelf bench --list"},
        .run = cmd_bench,
    },
    {.name = NULL},
};

/* What messages about the command line itself are said by. */
static const struct command nobody = {.name = "", .synopsis = "COMMAND"};

static int command_unknown(const char *name, bool json) {
    const struct call call = {.command = &nobody, .json = json};
    const struct command *suggested = command_suggest(name);
    if (suggested) {
        return fail(&call, SHELF_INVALID, "there is no command '%s'; did you mean `shelf %s`?", name,
                    suggested->name);
    }
    return fail(&call, SHELF_INVALID, "there is no command '%s'; `shelf --help` lists them", name);
}

static int command_run(const struct command *command, int argc, char **argv) {
    struct call call;
    switch (arguments_parse(command, argc, argv, &call)) {
    case ARGUMENTS_HELP:
        help_command(stdout, command);
        return SHELF_OK;
    case ARGUMENTS_WRONG:
        return SHELF_INVALID;
    case ARGUMENTS_RUN:
        break;
    }
    return command->run(&call);
}

static int program_run(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    if (argc < 2) {
        help_program(stderr);
        return SHELF_INVALID;
    }
    if (strcmp(name, "--version") == 0) {
        (void)printf("shelf %s\n", SHELF_VERSION);
        return SHELF_OK;
    }
    const struct command *command = command_find(name);
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        command = argc > 2 ? command_find(argv[2]) : NULL;
        if (argc > 2 && !command) {
            return command_unknown(argv[2], false);
        }
        if (command) {
            help_command(stdout, command);
        } else {
            help_program(stdout);
        }
        return SHELF_OK;
    }
    if (!command) {
        return command_unknown(name, strcmp(argv[argc - 1], "--json") == 0);
    }
    return command_run(command, argc - 1, argv + 1);
}

int main(int argc, char **argv) {
    int code = program_run(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        (void)fputs("shelf: standard output cannot be written\n", stderr);
        code = code == SHELF_OK ? SHELF_IO : code;
    }
    return code;
}
