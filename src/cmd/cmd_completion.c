// SPDX-License-Identifier: Apache-2.0
/* cmd_completion.c: `shelf completion`: what shells complete, made from the table of commands. */
#include <string.h>

#include "cmd/arguments.h"
#include "cmd/output.h"

static void bash_print(void) {
    (void)printf("# bash completion for shelf: eval \"$(shelf completion bash)\"\n"
                 "_shelf() {\n"
                 "    local word=${COMP_WORDS[COMP_CWORD]} options=\n"
                 "    COMPREPLY=()\n"
                 "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
                 "        COMPREPLY=($(compgen -W '");
    for (const struct command *command = commands; command->name; command++) {
        (void)printf("%s ", command->name);
    }
    (void)printf(
        "help --help --version' -- \"$word\"))\n        return\n    fi\n    case ${COMP_WORDS[1]} in\n");
    for (const struct command *command = commands; command->name; command++) {
        (void)printf("    %s) options='", command->name);
        for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command->options[i].name; i++) {
            (void)printf("--%s ", command->options[i].name);
        }
        (void)printf("--json --help' ;;\n");
    }
    (void)printf("    esac\n"
                 "    case $word in\n"
                 "    -*) COMPREPLY=($(compgen -W \"$options\" -- \"$word\")) ;;\n"
                 "    *) compopt -o default ;;\n"
                 "    esac\n"
                 "}\n"
                 "complete -F _shelf shelf\n");
}

/* In single quotes, where only the quote itself and, for _arguments, brackets and colons mean something. */
static void zsh_text(const char *text) {
    for (; *text; text++) {
        if (*text == '\'') {
            (void)fputs("'\\''", stdout);
        } else if (strchr("[]:\\", *text)) {
            (void)printf("\\%c", *text);
        } else {
            (void)putchar(*text);
        }
    }
}

static void zsh_command(const struct command *command) {
    (void)printf("    %s)\n        _arguments", command->name);
    for (size_t i = 0; i < COMMAND_OPTIONS_MAX && command->options[i].name; i++) {
        const struct option_spec *option = &command->options[i];
        (void)printf(" \\\n            '--%s[", option->name);
        zsh_text(option->help);
        (void)printf("]%s%s%s'", option->argument ? ":" : "", option->argument ? option->argument : "",
                     option->argument ? ":" : "");
    }
    (void)printf(" \\\n            '--json[answer in JSON]' \\\n            '--help[what it does]' \\\n"
                 "            '*:file:_files'\n        ;;\n");
}

static void zsh_print(void) {
    (void)printf("#compdef shelf\n# zsh completion for shelf: save as _shelf in a directory of $fpath\n"
                 "_shelf() {\n    local -a names\n    names=(\n");
    for (const struct command *command = commands; command->name; command++) {
        (void)printf("        '%s:", command->name);
        zsh_text(command->summary);
        (void)printf("'\n");
    }
    (void)printf(
        "    )\n    if (( CURRENT == 2 )); then\n        _describe command names\n        return\n    fi\n"
        "    shift words\n    (( CURRENT-- ))\n    case $words[1] in\n");
    for (const struct command *command = commands; command->name; command++) {
        zsh_command(command);
    }
    (void)printf("    esac\n}\nif [ \"$funcstack[1]\" = _shelf ]; then\n    _shelf \"$@\"\nelse\n    compdef "
                 "_shelf shelf\nfi\n");
}

int cmd_completion(const struct call *call) {
    const char *shell = call_argument(call, 0);
    if (strcmp(shell, "bash") == 0) {
        bash_print();
    } else if (strcmp(shell, "zsh") == 0) {
        zsh_print();
    } else {
        return fail(call, SHELF_INVALID, "there is no completion for '%s'; bash and zsh have one", shell);
    }
    return SHELF_OK;
}
