// SPDX-License-Identifier: Apache-2.0
/*
 * arguments.c: getopt_long() fed from the table of commands, with guesses at what a misspelt word should have been.
 */
#include "cmd/arguments.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cmd/output.h"
#include "cmd/words.h"

const struct command *command_find(const char *name) {
    for (const struct command *command = commands; command->name; command++) {
        if (strcmp(command->name, name) == 0) {
            return command;
        }
    }
    return NULL;
}

const struct command *command_suggest(const char *name) {
    const struct command *found = NULL;
    size_t best = 3;
    for (const struct command *command = commands; command->name; command++) {
        if (word_is_close(name, command->name, &best)) {
            found = command;
        }
    }
    return found;
}

static const char *option_suggest(const struct option *options, const char *typed) {
    const char *found = NULL;
    size_t best = 4;
    for (const struct option *option = options; option->name; option++) {
        if (word_is_close(typed, option->name, &best)) {
            found = option->name;
        }
    }
    return found;
}

/* ---- Parsing ------------------------------------------------------------------------------------------------------- */

enum { OPTION_JSON = 1000, OPTION_HELP };

static void options_build(const struct command *command, struct option ret_options[COMMAND_OPTIONS_MAX + 3]) {
    size_t count = 0;
    for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command->options[i].name; i++) {
        ret_options[count++] = (struct option){
            .name = command->options[i].name, .has_arg = command->options[i].argument ? 1 : 0, .val = (int)i};
    }
    ret_options[count++] = (struct option){.name = "json", .val = OPTION_JSON};
    ret_options[count++] = (struct option){.name = "help", .val = OPTION_HELP};
    ret_options[count] = (struct option){0};
}

static void option_refuse(const struct call *call, const struct option *options, bool known,
                          const char *word) {
    char typed[WORD_MAX + 1];
    (void)snprintf(typed, sizeof(typed), "%s", word + strspn(word, "-"));
    typed[strcspn(typed, "=")] = 0;
    const char *suggested = known ? NULL : option_suggest(options, typed);
    if (known) {
        (void)fail(call, SHELF_INVALID, "option '%s' needs a value; `shelf %s --help` says which", word,
                   call->command->name);
    } else if (suggested) {
        (void)fail(call, SHELF_INVALID, "there is no option '%s'; did you mean --%s?", word, suggested);
    } else {
        (void)fail(call, SHELF_INVALID, "there is no option '%s' here; `shelf %s --help` lists them", word,
                   call->command->name);
    }
}

static enum arguments_result count_check(const struct call *call) {
    const struct command *command = call->command;
    if (call->argument_count < command->argument_min || call->argument_count > command->argument_max) {
        (void)fail(call, SHELF_INVALID, "%s arguments; usage: shelf %s %s",
                   call->argument_count < command->argument_min ? "too few" : "too many", command->name,
                   command->synopsis);
        return ARGUMENTS_WRONG;
    }
    return ARGUMENTS_RUN;
}

enum arguments_result arguments_parse(const struct command *command, int argc, char **argv,
                                      struct call *ret_call) {
    struct option options[COMMAND_OPTIONS_MAX + 3];
    *ret_call = (struct call){.command = command};
    if (command->raw) {
        ret_call->arguments = argv + 1;
        ret_call->argument_count = argc - 1;
        return argc > 1 && strcmp(argv[1], "--help") == 0 ? ARGUMENTS_HELP : count_check(ret_call);
    }
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        ret_call->json =
            ret_call->json || strcmp(argv[i], "--json") == 0; /* errors of parsing are JSON, too */
    }
    options_build(command, options);
    opterr = 0;
    optind = 1;
    for (;;) {
        int before = optind;
        int option = getopt_long(argc, argv, ":h", options, NULL);
        if (option == -1) {
            break;
        }
        if (option == OPTION_HELP || option == 'h') {
            return ARGUMENTS_HELP;
        }
        if (option == '?' || option == ':') {
            option_refuse(ret_call, options, option == ':', argv[optind > before ? optind - 1 : optind]);
            return ARGUMENTS_WRONG;
        }
        if (option != OPTION_JSON) {
            ret_call->values[option] = optarg ? optarg : "";
        }
    }
    ret_call->arguments = argv + optind;
    ret_call->argument_count = argc - optind;
    return count_check(ret_call);
}

/* ---- Values -------------------------------------------------------------------------------------------------------- */

const char *call_option(const struct call *call, const char *name) {
    for (size_t i = 0; i < COMMAND_OPTIONS_MAX && call->command->options[i].name; i++) {
        if (strcmp(call->command->options[i].name, name) == 0) {
            return call->values[i];
        }
    }
    return NULL;
}

const char *call_argument(const struct call *call, int place) {
    return place < call->argument_count ? call->arguments[place] : NULL;
}
