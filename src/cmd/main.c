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
        .group = "regions",
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
        .about = "Shows names, numbers, sizes, and who may do what. If another process works in the "
                 "directory and lets "
                 "nobody attach, as of its last\n"
                 "checkpoint.",
        .argument_min = 1,
        .argument_max = 1,
        .examples = {"shelf list /var/lib/shop", "shelf list /var/lib/shop --json"},
        .run = cmd_list,
    },
    {
        .name = "grow",
        .synopsis = "PATH REGION SIZE",
        .summary = "make a region larger",
        .about = "Makes the region SIZE large, while programs use it; they need not know. Regions never "
                 "shrink. How far "
                 "one can\n"
                 "grow was said when it was made (`shelf create --max`).",
        .argument_min = 3,
        .argument_max = 3,
        .examples = {"shelf grow /var/lib/shop orders 128M"},
        .run = cmd_grow,
    },
    {
        .name = "drop",
        .synopsis = "PATH REGION --yes",
        .summary = "remove a region and all that is in it",
        .about = "The region is gone for good. Without --yes, only says what would be.",
        .argument_min = 2,
        .argument_max = 2,
        .options = {{"yes", NULL, "you mean it"}},
        .examples = {"shelf drop /var/lib/shop orders-old --yes"},
        .run = cmd_drop,
    },
    {
        .name = "access",
        .synopsis = "PATH REGION [--owner USER] [--group GROUP] [--mode MODE]",
        .summary = "show or set who may read and change a region",
        .about = "Works as with files: MODE has a digit each for the owner, the group, and all others: 4 may "
                 "read, 2 may "
                 "change,\n"
                 "6 both. Only the owner may change it, and only root may give it away. Programs that are "
                 "attached "
                 "feel it at their\n"
                 "next commit, and when they first touch the region.",
        .argument_min = 2,
        .argument_max = 2,
        .options = {{"owner", "USER", "name or number"},
                    {"group", "GROUP", "name or number"},
                    {"mode", "MODE", "octal, such as 0640"}},
        .examples = {"shelf access /var/lib/shop orders",
                     "shelf access /var/lib/shop orders --group staff --mode 0640"},
        .run = cmd_access,
    },
    {
        .name = "put",
        .group = "maps and streams",
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
                 "can be told apart.\n"
                 "All of it is of one moment, if it can be read between two changes. If not, it is read in "
                 "parts, each of one moment:\n"
                 "what is there all the time is shown once. That is told on standard error.",
        .argument_min = 2,
        .argument_max = 2,
        .options = {{"hex", NULL, "keys and values are written in hexadecimal digits"}},
        .examples = {"shelf scan /var/lib/shop orders/prices",
                     "shelf scan /var/lib/shop orders/prices --json"},
        .run = cmd_scan,
    },
    {
        .name = "append",
        .synopsis = "PATH REGION/STREAM VALUE|- [--keep-bytes SIZE] [--keep-time TIME]",
        .summary = "add a record to a stream",
        .about = "Adds VALUE as the newest record, durably, with the present time. Makes the stream if there "
                 "is none. With "
                 "- the value\n"
                 "is all of standard input, up to 16 MiB.",
        .argument_min = 3,
        .argument_max = 3,
        .options = {{"keep-bytes", "SIZE", "if the stream is made: how much it keeps (all)"},
                    {"keep-time", "TIME", "... and how long, such as 30d (for ever)"},
                    {"hex", NULL, "VALUE is written in hexadecimal digits"}},
        .examples = {"shelf append /var/lib/shop orders/events 'shop opened'",
                     "shelf append /var/lib/shop orders/log - --keep-bytes 64M < report.txt"},
        .run = cmd_append,
    },
    {
        .name = "tail",
        .synopsis = "PATH REGION/STREAM [--count N | --from POSITION] [--follow]",
        .summary = "print the newest records of a stream, and wait for more",
        .about = "One record a line, the oldest first. In JSON, with position and time.",
        .argument_min = 2,
        .argument_max = 2,
        .options = {{"count", "N", "how many of the newest (10)"},
                    {"from", "POSITION", "from that record on; 0 is the first one"},
                    {"follow", NULL, "go on with what is appended, until Ctrl-C"},
                    {"hex", NULL, "records are written in hexadecimal digits"}},
        .examples = {"shelf tail /var/lib/shop orders/events",
                     "shelf tail /var/lib/shop orders/events --follow --json",
                     "shelf tail /var/lib/shop orders/events --from 0"},
        .run = cmd_tail,
    },
    {
        .name = "status",
        .group = "the whole",
        .synopsis = "PATH [--watch]",
        .summary = "tell how a shelf is, and what it does",
        .about = "Tells whether a process serves it, how that is, what it has done, and what a restart would "
                 "have to do. If "
                 "none does,\n"
                 "tells what the last checkpoint says; nothing is opened or changed.",
        .argument_min = 1,
        .argument_max = 1,
        .options = {{"watch", NULL, "again every second, until Ctrl-C"}},
        .examples = {"shelf status /var/lib/shop", "shelf status /run/shelf/sock --watch"},
        .run = cmd_status,
    },
    {
        .name = "clients",
        .synopsis = "PATH",
        .summary = "list the programs that are attached, and what they hold",
        .about = "For each: its number, name, process and user, since when, its commits and the bytes that "
                 "it submitted, "
                 "the regions\n"
                 "that it has mapped, its requests under way, and its threads that wait for changes.",
        .argument_min = 1,
        .argument_max = 1,
        .examples = {"shelf clients /var/lib/shop", "shelf clients /run/shelf/sock --json"},
        .run = cmd_clients,
    },
    {
        .name = "verify",
        .synopsis = "PATH [--checkpoint | --files]",
        .summary = "check everything that a shelf has on disk",
        .about = "If no process serves the shelf: first reads all files, writing nothing: superblock, tables "
                 "and pages of the checkpoint, "
                 "the chain of records of\n"
                 "the log. If these are in order it opens the shelf and checks the allocator, the maps and "
                 "the streams of every\n"
                 "region. Says of everything what it is, where, and what to do. \"harmless\" is what a crash "
                 "leaves behind and\n"
                 "the next open puts right. Ends with 0 if there is no damage, with 9 if there is.\n"
                 "\n"
                 "If a process does: asks it for a checkpoint, and reads the files of that one, superblock "
                 "to pages, the log from\n"
                 "there to what the process has applied, and the structures, each at one index, while it "
                 "goes on. A structure that is\n"
                 "changed faster than it can be read is left out; that is told.",
        .argument_min = 1,
        .argument_max = 1,
        .options = {{"checkpoint", NULL, "only the last checkpoint, without asking for another one"},
                    {"files", NULL, "only the files: does not open the shelf, writes nothing"}},
        .examples = {"shelf verify /var/lib/shop", "shelf verify /var/lib/shop --checkpoint",
                     "shelf verify /mnt/backup/shop --files --json"},
        .run = cmd_verify,
    },
    {
        .name = "dump",
        .synopsis = "PATH REGION [FILE|-] [--force]",
        .summary = "copy a region into a portable file, also while a program uses it",
        .about = "Writes the region, with checksums, to FILE, or to standard output, as of now: a process "
                 "that serves the "
                 "shelf is asked\n"
                 "for a checkpoint first. (One that lets nobody attach cannot be asked; then as of its last "
                 "checkpoint.) The index that\n"
                 "the dump is exact at is told, on standard error if the dump goes to standard output. The "
                 "process holds "
                 "back its next\n"
                 "checkpoint meanwhile, unless its log is full.",
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
        .name = "up",
        .group = "a cluster on this machine",
        .synopsis = "[N] [--dir DIR]",
        .summary = "start a cluster of N nodes on this machine, to try it",
        .about = "Starts an etcd and N nodes (3; shelfd, each a process of its own) on 127.0.0.1, and waits "
                 "until all "
                 "are in sync.\n"
                 "Everything is in DIR (./shelf-cluster): DIR/node-1 is the directory of node 1, "
                 "DIR/node-1.log what "
                 "it says. Called\n"
                 "again, it starts what does not run, and adds nodes if N is larger. Each of N nodes keeps a "
                 "copy. For a cluster of\n"
                 "several machines, see shelfd(8).",
        .argument_min = 0,
        .argument_max = 1,
        .options = {{"dir", "DIR", "where it is (./shelf-cluster)"}},
        .examples = {"shelf up 3", "shelf up", "shelf up 5 --dir /tmp/trial"},
        .run = cmd_up,
    },
    {
        .name = "start",
        .synopsis = "N|etcd [--dir DIR]",
        .summary = "start a node of it that was killed, or its etcd",
        .about = "Starts the node with the data that it has, and waits until it is in sync.",
        .argument_min = 1,
        .argument_max = 1,
        .options = {{"dir", "DIR", "where the cluster is (./shelf-cluster)"}},
        .examples = {"shelf start 2", "shelf start etcd --dir /tmp/trial"},
        .run = cmd_start,
    },
    {
        .name = "kill",
        .synopsis = "N|etcd [--dir DIR]",
        .summary = "kill a node of it, or its etcd, to see what happens",
        .about =
            "As if it had crashed (SIGKILL). Nothing that was acknowledged is lost: another node takes over, "
            "within a second.\n"
            "Only processes that `shelf up` and `shelf start` have started are ever ended.",
        .argument_min = 1,
        .argument_max = 1,
        .options = {{"dir", "DIR", "where the cluster is (./shelf-cluster)"}},
        .examples = {"shelf kill 1", "shelf kill etcd"},
        .run = cmd_kill,
    },
    {
        .name = "down",
        .synopsis = "[--dir DIR]",
        .summary = "end all of it",
        .about = "Ends the nodes and the etcd. The data stays, `shelf up` starts it again; to be rid of it, "
                 "remove DIR.",
        .argument_min = 0,
        .argument_max = 0,
        .options = {{"dir", "DIR", "where the cluster is (./shelf-cluster)"}},
        .examples = {"shelf down", "shelf down --dir /tmp/trial"},
        .run = cmd_down,
    },
    {
        .name = "bench",
        .group = "other",
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
    {
        .name = "completion",
        .synopsis = "bash|zsh",
        .summary = "print what makes a shell complete commands and options",
        .about = "For bash: eval \"$(shelf completion bash)\" in ~/.bashrc. For zsh: save it as _shelf in a "
                 "directory of "
                 "$fpath. The\n"
                 "packages have done so.",
        .argument_min = 1,
        .argument_max = 1,
        .examples = {"shelf completion bash"},
        .run = cmd_completion,
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
        help_short(stderr);
        return SHELF_INVALID;
    }
    if (strcmp(name, "--version") == 0) {
        (void)printf("shelf %s\n", shelf_version());
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
