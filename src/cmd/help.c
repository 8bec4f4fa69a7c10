// SPDX-License-Identifier: Apache-2.0
/* help.c: see help.h. */
#include "cmd/help.h"

#include "cmd/output.h"

static void title(FILE *out, const char *text) {
    (void)fprintf(out, "\n%s%s%s\n", style(out, STYLE_BOLD), text, style(out, STYLE_PLAIN));
}

static void exit_codes(FILE *out) {
    title(out, "exit codes");
#define X(name, code, text) (void)fprintf(out, "  %3d  %-12s %s\n", code, #name, text);
    SHELF_RESULT_LIST(X)
#undef X
    (void)fprintf(out, "  %3d  %-12s %s\n", EXIT_INTERRUPTED, "",
                  "Interrupted by a signal; what was begun has been undone.");
    (void)fprintf(out, "  A wrong command line is INVALID. `bench` has codes of its own, see there.\n");
}

static void commands_show(FILE *out) {
    (void)fprintf(out, "%sshelf%s %s: memory that programs share, change in transactions, and never lose\n",
                  style(out, STYLE_BOLD), style(out, STYLE_PLAIN), shelf_version());
    (void)fprintf(out, "\nusage: shelf COMMAND ARGUMENTS... [OPTIONS]\n       shelf COMMAND --help\n");
    for (const struct command *command = commands; command->name; command++) {
        if (command->group) {
            char text[64];
            (void)snprintf(text, sizeof(text), "commands: %s", command->group);
            title(out, text);
        }
        (void)fprintf(out, "  %-10s %s\n", command->name, command->summary);
    }
}

void help_short(FILE *out) {
    commands_show(out);
    (void)fprintf(out,
                  "\n`shelf COMMAND --help` tells more about one, `shelf --help` about all. To begin with:\n"
                  "  shelf create ./shop orders 16M\n"
                  "  shelf put ./shop orders/prices apple 120\n"
                  "  shelf get ./shop orders/prices apple\n");
}

void help_program(FILE *out) {
    commands_show(out);
    title(out, "options of every command");
    (void)fprintf(out, "  --json   print one JSON object a line on standard output, errors included "
                       "(\"result\" is \"OK\" or\n"
                       "           the name of an exit code)\n"
                       "  --help   what the command does, with examples\n"
                       "  --       what follows is no option, even if it begins with a dash\n");
    title(out, "words");
    (void)fprintf(
        out,
        "  PATH     the directory of a shelf, or the socket of a node (with or without \"dir:\", \"unix:\" "
        "before "
        "it). If a\n"
        "           process serves the shelf, such as shelfd, a command attaches to it; else it opens the "
        "directory itself\n"
        "  REGION   the name of a region in it\n"
        "  SIZE     bytes, or a number with K, M, G or T (powers of 1024)\n"
        "  TIME     a number with ms, s, m, h or d\n");
    exit_codes(out);
    title(out, "environment");
    (void)fprintf(
        out, "  NO_COLOR  if it is set to anything, no colours are used; they never are but on a terminal\n");
    title(out, "examples");
    for (const struct command *command = commands; command->name; command++) {
        (void)fprintf(out, "  %s\n", command->examples[0]);
    }
}

void help_command(FILE *out, const struct command *command) {
    (void)fprintf(out, "%sshelf %s%s: %s\n", style(out, STYLE_BOLD), command->name, style(out, STYLE_PLAIN),
                  command->summary);
    (void)fprintf(out, "\nusage: shelf %s %s\n\n%s\n", command->name, command->synopsis, command->about);
    title(out, "options");
    for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command->options[i].name; i++) {
        char name[40];
        const struct option_spec *option = &command->options[i];
        (void)snprintf(name, sizeof(name), "--%s%s%s", option->name, option->argument ? " " : "",
                       option->argument ? option->argument : "");
        (void)fprintf(out, "  %-14s %s\n", name, option->help);
    }
    (void)fprintf(out, "  %-14s %s\n  %-14s %s\n", "--json", "answer in JSON", "--help", "this text");
    title(out, "examples");
    for (size_t i = 0; i < COMMAND_EXAMPLES_MAX && command->examples[i]; i++) {
        (void)fprintf(out, "  %s\n", command->examples[i]);
    }
}
