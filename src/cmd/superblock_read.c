// SPDX-License-Identifier: Apache-2.0
/*
 * superblock_read.c: the rule is that two copies which agree count, the newest such two; they are written two by two, so
 * that after a crash at any point two agree. Knows bytes only: also a fuzz target.
 */
#include "cmd/superblock_read.h"

#include <string.h>

#include "base/crc.h"
#include "wire/limits.h"
#include "wire/log_format.h"

static bool is_blank(const uint8_t *bytes, size_t size) {
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

static uint32_t superblock_crc(const struct superblock *block) {
    struct superblock copy = *block;
    copy.crc = 0;
    copy.copy = 0;
    return crc32c(0, &copy, sizeof(copy));
}

static enum copy_state copy_examine(const struct superblock *block, uint32_t place) {
    if (is_blank((const uint8_t *)block, sizeof(*block))) {
        return COPY_BLANK;
    }
    if (block->magic != SUPERBLOCK_MAGIC) {
        return COPY_FOREIGN;
    }
    if (block->format > CHECKPOINT_FORMAT_VERSION) {
        return COPY_NEWER;
    }
    if (block->format != CHECKPOINT_FORMAT_VERSION || superblock_crc(block) != block->crc) {
        return COPY_CHECKSUM;
    }
    return block->copy == place ? COPY_GOOD : COPY_ELSEWHERE;
}

static bool is_usable(enum copy_state state) {
    return state == COPY_GOOD || state == COPY_ELSEWHERE;
}

static bool is_sane(const struct superblock *block) {
    const uint64_t roots_max = sizeof(struct roots_header) +
                               (SHELF_REGIONS_MAX + 1) * (uint64_t)sizeof(struct roots_region) +
                               SHELF_REGIONS_MAX * (SHELF_REGION_BYTES_MAX / PAGE_SIZE / TABLE_BLOCK_PAGES) *
                                   sizeof(struct block_entry);
    return (block->alignment == 512 || block->alignment == 4096) && block->roots_slot <= 1 &&
           block->roots_size >= sizeof(struct roots_header) && block->roots_size <= roots_max &&
           block->segment_offset <= LOG_SEGMENT_BYTES && block->segment_offset % block->alignment == 0 &&
           block->record_size <= LOG_RECORD_BYTES_MAX && block->log_anew <= LOG_ANEW_ALL &&
           (block->log_anew == LOG_ANEW_NO || block->segment_sequence != 0);
}

void superblock_examine(const uint8_t bytes[SUPERBLOCK_COPIES * SUPERBLOCK_SIZE],
                        struct superblock_report *ret_report, struct superblock *ret_block) {
    struct superblock blocks[SUPERBLOCK_COPIES];
    struct superblock_report report = {.chosen = -1};
    uint32_t newer = 0;
    memcpy(blocks, bytes, sizeof(blocks));
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        report.copies[i] = copy_examine(&blocks[i], i);
        newer += report.copies[i] == COPY_NEWER;
    }
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        uint32_t agree = 0;
        for (uint32_t j = 0; j < SUPERBLOCK_COPIES && is_usable(report.copies[i]); j++) {
            agree += is_usable(report.copies[j]) && blocks[j].crc == blocks[i].crc &&
                     blocks[j].sequence == blocks[i].sequence;
        }
        if (agree >= SUPERBLOCK_QUORUM &&
            (report.chosen < 0 || blocks[i].sequence > blocks[report.chosen].sequence)) {
            report.chosen = (int)i;
        }
    }
    report.newer = newer >= SUPERBLOCK_QUORUM;
    if (report.chosen >= 0) {
        *ret_block = blocks[report.chosen];
        report.is_sane = is_sane(ret_block);
        for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
            if (report.copies[i] == COPY_GOOD && blocks[i].crc != ret_block->crc) {
                report.copies[i] = COPY_OLDER;
            }
        }
    }
    *ret_report = report;
}

const char *copy_state_text(enum copy_state state) {
    switch (state) {
    case COPY_GOOD:
        return "is right";
    case COPY_BLANK:
        return "is all zero";
    case COPY_FOREIGN:
        return "is no superblock";
    case COPY_NEWER:
        return "is of a newer format than this program knows";
    case COPY_CHECKSUM:
        return "fails its checksum";
    case COPY_ELSEWHERE:
        return "belongs to another place";
    case COPY_OLDER:
        return "is of another checkpoint than the one that counts";
    }
    return "?";
}
