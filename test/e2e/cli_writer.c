// SPDX-License-Identifier: Apache-2.0
/*
 * cli_writer.c: programs that own a shelf while cli.py uses the command on it.
 *
 *     cli_writer fill DIR COUNT       a map `m`, a stream `s` and a root of its own in region `data`; then ends
 *                                     without closing, as if killed: the log has what the checkpoint has not
 *     cli_writer run DIR CHECKPOINTS [alone]  region `same`: every transaction writes one number into each of its words, so that a
 *                                     copy which is exact at one index has the same number everywhere; with CHECKPOINTS
 *                                     = 1 asks for checkpoints without end; alone: nobody may attach. Until killed
 *     cli_writer smash DIR            overwrites the map of `data` with nonsense, in a transaction
 *     cli_writer churn DIR COUNT      a map of COUNT entries in region `data`, and changes of some of them without end
 *     cli_writer root DIR             gives `data` a root of a type of its own
 *
 * Prints a line when it has begun what it does.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shelf.h>

#define SAME_BYTES ((size_t)1 << 20)

static void must(shelf_result result, const char *what) {
    if (result != SHELF_OK) {
        (void)fprintf(stderr, "%s: %s: %s\n", what, shelf_result_name(result), shelf_detail());
        exit(1);
    }
}

static void say(const char *text) {
    (void)puts(text);
    (void)fflush(stdout);
}

static shelf_result fill_body(shelf_tx *tx, void *context) {
    uint64_t number = *(const uint64_t *)context;
    shelf_region region;
    shelf_map map;
    shelf_stream stream;
    char key[32], value[4000];
    must(shelf_region_open(shelf_tx_shelf(tx), "data", &region), "region");
    must(shelf_map_open(tx, region, "m", &map), "map");
    must(shelf_stream_open(tx, region, "s", &stream), "stream");
    int size = snprintf(key, sizeof(key), "key %" PRIu64, number);
    memset(value, 'a' + (int)(number % 26), sizeof(value));
    shelf_result result = shelf_map_put(tx, map, key, (size_t)size, value, sizeof(value));
    return result != SHELF_OK ? result : shelf_stream_append(tx, stream, number, key, (size_t)size, NULL);
}

static shelf_result structures_body(shelf_tx *tx, void *context) {
    shelf_region region = *(const shelf_region *)context;
    shelf_map map;
    shelf_stream stream;
    must(shelf_format(tx, region), "format");
    must(shelf_map_create(tx, region, "m", &map), "map");
    return shelf_stream_create(tx, region, "s", NULL, &stream);
}

static void fill(shelf *s, uint64_t count) {
    shelf_region region;
    must(shelf_region_create(s, "data", (uint64_t)4 << 20, 0, &region), "create");
    must(shelf_run(s, SHELF_READ_WRITE, structures_body, &region, 0, NULL), "structures");
    for (uint64_t i = 0; i < count; i++) {
        must(shelf_run(s, SHELF_READ_WRITE, fill_body, &i, 0, NULL), "fill");
        if (i == count / 2) {
            must(shelf_checkpoint(s, NULL), "checkpoint");
        }
    }
    say("filled");
    _exit(0);
}

static void run(shelf *s, int checkpoints) {
    static uint64_t words[SAME_BYTES / sizeof(uint64_t)];
    shelf_region region;
    must(shelf_region_create(s, "same", SAME_BYTES, 0, &region), "create");
    must(shelf_checkpoint(s, NULL), "checkpoint");
    for (uint64_t number = 1;; number++) {
        shelf_tx *tx;
        for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
            words[i] = number;
        }
        must(shelf_begin(s, SHELF_READ_WRITE, &tx), "begin");
        must(shelf_write(tx, shelf_addr_make(region, 0), words, sizeof(words)), "write");
        must(shelf_commit(tx, NULL), "commit");
        if (number == 1) {
            must(shelf_checkpoint(s, NULL), "checkpoint");
            say("running");
        } else if (checkpoints) {
            must(shelf_checkpoint(s, NULL), "checkpoint");
        } else {
            (void)usleep(10000); /* leaves the machine to the command that is tested */
        }
    }
}

enum { CHURN_KEYS = 32, FILL_KEYS = 1000 };

struct churn {
    uint64_t numbers[FILL_KEYS];
    int count;
};

static shelf_result churn_body(shelf_tx *tx, void *context) {
    const struct churn *churn = context;
    shelf_region region;
    shelf_map map;
    must(shelf_region_open(shelf_tx_shelf(tx), "data", &region), "region");
    shelf_result result = shelf_map_open(tx, region, "m", &map);
    for (int i = 0; i < churn->count && result == SHELF_OK; i++) {
        result = shelf_map_put(tx, map, &churn->numbers[i], 8, &churn->numbers[i], 8);
    }
    return result;
}

static void churn(shelf *s, uint64_t count) {
    static struct churn churn;
    shelf_region region;
    uint64_t next = 0, random = 1;
    must(shelf_region_create(s, "data", (uint64_t)32 << 20, 0, &region), "create");
    must(shelf_run(s, SHELF_READ_WRITE, structures_body, &region, 0, NULL), "structures");
    for (bool told = false;;) {
        churn.count = next < count ? FILL_KEYS : CHURN_KEYS;
        for (int i = 0; i < churn.count; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            churn.numbers[i] = next < count ? next++ : (random >> 33) % count;
        }
        must(shelf_run(s, SHELF_READ_WRITE, churn_body, &churn, 0, NULL), "churn");
        if (next == count && !told) {
            say("running");
            told = true;
        }
    }
}

static shelf_result smash_body(shelf_tx *tx, void *context) {
    shelf_region region = *(const shelf_region *)context;
    shelf_map map;
    uint8_t nonsense[4096];
    memset(nonsense, 0xee, sizeof(nonsense));
    must(shelf_map_open(tx, region, "m", &map), "map");
    uint64_t directory;
    must(shelf_read(tx, map.header, &directory, sizeof(directory)), "head");
    uint64_t segment;
    must(shelf_read(tx, shelf_addr_make(region, directory & (((uint64_t)1 << 40) - 1)), &segment,
                    sizeof(segment)),
         "directory");
    return shelf_write(tx, shelf_addr_make(region, segment), nonsense, sizeof(nonsense));
}

static shelf_result root_body(shelf_tx *tx, void *context) {
    shelf_region region = *(const shelf_region *)context;
    struct shelf_root root = {.name = "mine", .type = 77, .layout = 1};
    shelf_result result = shelf_alloc(tx, region, 100, &root.address);
    return result != SHELF_OK ? result : shelf_root_set(tx, region, &root);
}

static void change(shelf *s, shelf_body body) {
    shelf_region region;
    must(shelf_region_open(s, "data", &region), "region");
    must(shelf_run(s, SHELF_READ_WRITE, body, &region, 0, NULL), "change");
    must(shelf_close(s), "close");
    say("done");
}

int main(int argc, char **argv) {
    char where[4096];
    shelf *s;
    if (argc < 3) {
        (void)fprintf(stderr, "usage: cli_writer fill|run|smash|root DIR [NUMBER]\n");
        return 2;
    }
    struct shelf_options options = {.flags = SHELF_OPEN_CREATE | (argc > 4 ? SHELF_OPEN_ALONE : 0u)};
    (void)snprintf(where, sizeof(where), "dir:%s", argv[2]);
    must(shelf_open(where, &options, &s), "open");
    uint64_t number = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    if (strcmp(argv[1], "fill") == 0) {
        fill(s, number);
    } else if (strcmp(argv[1], "churn") == 0) {
        churn(s, number > 0 ? number : 1);
    } else if (strcmp(argv[1], "run") == 0) {
        run(s, number != 0);
    } else {
        change(s, strcmp(argv[1], "smash") == 0 ? smash_body : root_body);
    }
    return 0;
}
