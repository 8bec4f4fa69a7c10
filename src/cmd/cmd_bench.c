// SPDX-License-Identifier: Apache-2.0
/*
 * cmd_bench.c: `shelf bench` starts the program `shelf-bench`, which is apart because it is linked with other databases. It
 * lies beside this program (in a build directory), or where `meson install` puts helpers.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/arguments.h"
#include "cmd/output.h"

#ifndef SHELF_LIBEXEC_DIR
#define SHELF_LIBEXEC_DIR "/usr/local/libexec"
#endif

static void program_start(char **arguments, const char *directory) {
    char program[PATH_MAX];
    int length = snprintf(program, sizeof(program), "%s/shelf-bench", directory);
    if (length > 0 && (size_t)length < sizeof(program)) {
        arguments[0] = program;
        (void)execv(program, arguments);
    }
}

int cmd_bench(const struct call *call) {
    char own[PATH_MAX];
    char **arguments = calloc((size_t)call->argument_count + 2, sizeof(*arguments));
    if (!arguments) {
        return fail(call, SHELF_NO_MEMORY, "no memory");
    }
    for (int i = 0, count = 1; i < call->argument_count; i++) {
        bool ours =
            strcmp(call->arguments[i], "all") == 0 || (i == 0 && strcmp(call->arguments[i], "--") == 0);
        if (!ours) { /* to shelf-bench, no name at all means all of them */
            arguments[count++] = call->arguments[i];
        }
    }
    ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);
    if (length > 0) {
        own[length] = 0;
        *strrchr(own, '/') = 0;
        program_start(arguments, own);
    }
    program_start(arguments, SHELF_LIBEXEC_DIR);
    int code = fail(call, errno == ENOENT ? SHELF_NOT_FOUND : SHELF_IO,
                    "the program shelf-bench cannot be started from %s or %s: %s", length > 0 ? own : "?",
                    SHELF_LIBEXEC_DIR, strerror(errno));
    free(arguments);
    return code;
}
