// SPDX-License-Identifier: Apache-2.0
/*
 * checkpoint_format.h: the checkpoint on disk. All integers are little-endian.
 *
 *     superblock       four copies, 4096 bytes each, in the file `superblock`
 *       └ roots        one blob in `roots.a` or `roots.b`: a roots_header, then for each region a roots_region and its
 *         │            block_entry array
 *         └ table      blocks of 512 page_entry in `table.N`, block i's two slots at (2i + slot) * 4096
 *           └ pages    page p's two slots at p * 4096 in `pages.N.a` and `pages.N.b`
 *
 * Each level holds the CRC32C of what it points to; nothing that a valid superblock reaches is ever overwritten.
 * A page that was never written has no slot (state 0) and is zero.
 */
#ifndef WIRE_CHECKPOINT_FORMAT_H
#define WIRE_CHECKPOINT_FORMAT_H

#include <stdint.h>

#define CHECKPOINT_FORMAT_VERSION 1u
#define SUPERBLOCK_COPIES         4u
#define SUPERBLOCK_QUORUM         2u
#define SUPERBLOCK_SIZE           4096u

#define SUPERBLOCK_MAGIC 0x505553464c454853ull /* "SHELFSUP" */
struct superblock {
    uint64_t magic;
    uint32_t crc;    /* CRC32C of the whole 4096 bytes with crc as zero and copy as zero */
    uint16_t format; /* of the whole directory: a program refuses what is newer than it knows */
    uint16_t group;
    uint8_t shelf_id[16];      /* made with the shelf, in all its records */
    uint8_t incarnation[16];   /* made with the directory: a copy of a shelf on another machine has its own */
    uint64_t sequence;         /* counts superblocks */
    uint64_t index;            /* the checkpoint is the image as of exactly this index */
    uint64_t epoch;            /* of that record */
    uint32_t chain;            /* of that record */
    uint32_t record_size;      /* of that record */
    uint64_t segment_sequence; /* where the record after it begins, if it fits there */
    uint64_t segment_offset;
    uint64_t time_ms;
    uint64_t roots_size;
    uint32_t roots_crc;
    uint32_t roots_slot;
    uint32_t alignment; /* 512 or 4096: of records, segments' headers and hints */
    uint32_t copy;      /* which of the four this is */
    /* enum log_anew. Not 0: the checkpoint came from a peer, and what is in the file `log` counts no more: it begins anew, in the segment
     * above (rule D1). 0 again once it has. */
    uint64_t log_anew;
    uint8_t reserved[3960];
};
_Static_assert(sizeof(struct superblock) == SUPERBLOCK_SIZE, "format");

enum log_anew {
    LOG_ANEW_NO = 0,
    LOG_ANEW_HEADERS = 1, /* the headers of its segments are to be wiped first */
    LOG_ANEW_ALL = 2,     /* all of it */
};

#define ROOTS_MAGIC 0x4f4f52464c454853ull /* "SHELFROO" */
struct roots_header {
    uint64_t magic;
    uint64_t index; /* of the checkpoint */
    uint32_t region_count;
    uint32_t reserved[3];
};
_Static_assert(sizeof(struct roots_header) == 32, "format");

struct roots_region {
    uint32_t region;
    uint32_t block_count; /* ceil(page_count / 512) */
    uint64_t page_count;
    uint64_t size_max;
    uint64_t reserved;
};
_Static_assert(sizeof(struct roots_region) == 32, "format");

enum slot_state { SLOT_NONE = 0, SLOT_A = 1, SLOT_B = 2 };

struct block_entry {
    uint32_t crc;
    uint32_t slot; /* enum slot_state; SLOT_NONE: all pages of the block are zero */
};
struct page_entry {
    uint32_t crc;
    uint32_t slot;
};
_Static_assert(sizeof(struct page_entry) == 8 && sizeof(struct block_entry) == 8, "format");
#define TABLE_BLOCK_SIZE  4096u
#define TABLE_BLOCK_PAGES (TABLE_BLOCK_SIZE / (uint32_t)sizeof(struct page_entry)) /* 512 */

#endif
