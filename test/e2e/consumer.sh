#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# A program outside of the tree finds the installed library through pkg-config, links it shared and static, and runs.
# Usage: consumer.sh BUILD_DIRECTORY
set -eu

build=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/shelf-consumer.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# Counts a command as a test; says what it printed if it fails.
try() {
    name=$1
    shift
    if "$@" >"$work/output" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $name: $*"
        cat "$work/output"
    fi
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
}

cat >"$work/consumer.c" <<'C'
#include <shelf.h>
#include <stdio.h>
#include <string.h>

#define CHECK(call)                                                                                                  \
    do {                                                                                                             \
        shelf_result result = (call);                                                                                \
        if (result != SHELF_OK) {                                                                                    \
            fprintf(stderr, "%s: %s: %s\n", #call, shelf_result_text(result), shelf_detail());                       \
            return 1;                                                                                                \
        }                                                                                                            \
    } while (0)

int main(int count, char **arguments) {
    if (count != 2) {
        return 2;
    }
    shelf *s;
    const struct shelf_options options = {.flags = SHELF_OPEN_CREATE};
    CHECK(shelf_open(arguments[1], &options, &s));
    CHECK(shelf_close(s));
    return strcmp(shelf_result_name(SHELF_CONFLICT), "CONFLICT") != 0;
}
C

try "install" env DESTDIR="$work/root" meson install -C "$build" --no-rebuild --quiet
pc=$(find "$work/root" -name shelf.pc)
[ -n "$pc" ] || { echo "no shelf.pc was installed"; failed=$((failed + 1)); finish; }
PKG_CONFIG_PATH=$(dirname "$pc")
# shelf.pc names the final prefix; below DESTDIR the root is put in front of it.
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR="$work/root"
library=$(dirname "$PKG_CONFIG_PATH")

for file in libshelf.so libshelf.so.0 libshelf.a; do
    try "$file is installed" test -e "$library/$file"
done

cd "$work"
# shellcheck disable=SC2046
try "link shared" cc -Wall -Wextra -Werror consumer.c -o shared $(pkg-config --cflags --libs shelf)
try "run shared" env LD_LIBRARY_PATH="$library" ./shared "dir:$work/one"
try "needs the shared library" sh -c 'readelf -d shared | grep -q "NEEDED.*libshelf.so.0"'

# shellcheck disable=SC2046
try "link static" cc -Wall -Wextra -Werror consumer.c -o static $(pkg-config --cflags shelf) \
    "$library/libshelf.a" $(pkg-config --libs-only-l --static shelf | sed 's/-lshelf//')
try "run static" ./static "dir:$work/two"
try "opens again" ./static "dir:$work/one"

cat >"$work/consumer.cpp" <<'CPP'
#include <shelf.hpp>

int main(int count, char **arguments) {
    return count == 2 && shelf::store(arguments[1]).info().state == SHELF_OK ? 0 : 1;
}
CPP
# shellcheck disable=SC2046
try "link C++" c++ -std=c++17 -Wall -Wextra -Werror consumer.cpp -o plus $(pkg-config --cflags --libs shelf)
try "run C++" env LD_LIBRARY_PATH="$library" ./plus "dir:$work/one"

finish
