// SPDX-License-Identifier: Apache-2.0
//
// Feeds each file of a directory, and nothing at all, to a fuzz target: the ordinary test of a corpus,
// without libFuzzer.

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_feed(const char *directory, const char *name) {
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return 0;
    }
    char *bytes = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&bytes, &size);
    char part[4096];
    size_t part_size;
    while (memory && (part_size = fread(part, 1, sizeof(part), file)) > 0) {
        fwrite(part, 1, part_size, memory);
    }
    fclose(file);
    if (!memory || fclose(memory) != 0) {
        perror("memory");
        return 0;
    }
    // A copy of exactly that size, so that a sanitizer sees a read beyond the end.
    uint8_t *exact = malloc(size ? size : 1);
    if (exact) {
        memcpy(exact, bytes, size);
        LLVMFuzzerTestOneInput(exact, size);
    }
    free(bytes);
    free(exact);
    return exact != NULL;
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: %s CORPUS_DIRECTORY\n", arguments[0]);
        return 2;
    }
    DIR *directory = opendir(arguments[1]);
    if (!directory) {
        perror(arguments[1]);
        return 1;
    }
    int passed = 0;
    int failed = 0;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        if (entry->d_name[0] != '.') {
            *(file_feed(arguments[1], entry->d_name) ? &passed : &failed) += 1;
        }
    }
    closedir(directory);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 || passed == 0;
}
