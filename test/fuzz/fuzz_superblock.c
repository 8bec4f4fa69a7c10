// SPDX-License-Identifier: Apache-2.0
/*
 * fuzz_superblock.c: any bytes as the file `superblock` with the roots blob behind it. If the last byte is odd, checksums
 * are put right first, so that what they protect is tried, too.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "cmd/checkpoint_read.h"
#include "cmd/superblock_read.h"

#define SUPERBLOCKS_SIZE (SUPERBLOCK_COPIES * SUPERBLOCK_SIZE)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool good) {
    if (!good) {
        abort();
    }
}

static void checksums_repair(uint8_t *blocks, const uint8_t *roots, size_t roots_size) {
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        struct superblock block;
        memcpy(&block, blocks + (size_t)i * SUPERBLOCK_SIZE, sizeof(block));
        uint32_t copy = block.copy;
        block.magic = SUPERBLOCK_MAGIC;
        block.format = CHECKPOINT_FORMAT_VERSION;
        block.roots_size = roots_size;
        block.roots_crc = crc32c(0, roots, roots_size);
        block.crc = block.copy = 0;
        block.crc = crc32c(0, &block, sizeof(block));
        block.copy = copy;
        memcpy(blocks + (size_t)i * SUPERBLOCK_SIZE, &block, sizeof(block));
    }
}

static void roots_try(const struct superblock *superblock, const uint8_t *roots, size_t roots_size) {
    struct disk_region *regions = NULL;
    size_t count = 0;
    uint64_t offset = 0;
    char text[DISK_TEXT_MAX] = "";
    if (!roots_parse(roots, superblock, &regions, &count, text, &offset)) {
        require(text[0] != 0 && memchr(text, 0, sizeof(text)) && offset <= roots_size && regions == NULL);
        return;
    }
    require(count > 0 && regions[0].number == REGION_SYSTEM);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *end = (const uint8_t *)(regions[i].blocks + regions[i].block_count);
        require((const uint8_t *)regions[i].blocks >= roots && end <= roots + roots_size &&
                regions[i].page_count <= SHELF_REGION_BYTES_MAX / PAGE_SIZE);
    }
    free(regions);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t blocks[SUPERBLOCKS_SIZE];
    struct superblock_report report;
    struct superblock superblock;
    size_t roots_size = size > SUPERBLOCKS_SIZE ? size - SUPERBLOCKS_SIZE : 0;
    uint8_t *roots = malloc(roots_size + 1);
    if (!roots) {
        return 0;
    }
    memset(blocks, 0, sizeof(blocks));
    memcpy(blocks, data, size - roots_size);
    memcpy(roots, data + (size - roots_size), roots_size);
    if (roots_size > 0 && (roots[roots_size - 1] & 1) != 0) {
        checksums_repair(blocks, roots, roots_size);
    }
    superblock_examine(blocks, &report, &superblock);
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        require(copy_state_text(report.copies[i])[0] != '?');
    }
    if (report.chosen >= 0) {
        require(report.chosen < (int)SUPERBLOCK_COPIES && superblock.magic == SUPERBLOCK_MAGIC);
        if (report.is_sane && superblock.roots_size <= roots_size) {
            roots_try(&superblock, roots, roots_size);
        }
    }
    free(roots);
    return 0;
}
