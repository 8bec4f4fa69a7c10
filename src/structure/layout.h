// SPDX-License-Identifier: Apache-2.0
//
// How the structures lie in a region: every byte that they store is described here and nowhere else.
//
// All numbers are little-endian. Places within a region are stored as offsets without the region's number, so that a
// region can be loaded under another one. Offset 0 and span 0 mean "none": nothing that is linked ever lies there.
//
//   offset        what
//   0             struct region_head
//   64            struct run_bins
//   4096          struct arena [ARENAS_MAX], 256 bytes apart
//   8192          struct root_slot [ROOTS_MAX]
//
// The rest is divided into spans, of 64 KiB, or of 4 KiB in a region that was small when it was formatted (and may have grown):
//
//   64 KiB        4 KiB
//   65536         40960         descriptors of the first 1024 or 256 spans
//   131072        57344         spans that are handed out
//   2^k * 65536   2^k * 4096    for k >= 10, k >= 8: descriptors of spans 2^k to 2^(k+1)-1
//
// The descriptors of a range lie at its own beginning, so the tables grow with the region, and the longest run of
// spans without a table in between is half of the region or more.

#ifndef SHELF_STRUCTURE_LAYOUT_H
#define SHELF_STRUCTURE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define LAYOUT_SIZE_CHECK(type, size) \
    _Static_assert(sizeof(type) == (size), #type " has another size on disk")

// ---- Region ---------------------------------------------------------------------------------------------------------

#define REGION_MAGIC 0x4e4752464c454853u // "SHELFRGN"

enum region_format {
    REGION_FORMAT_LARGE = 1, // spans of 64 KiB
    REGION_FORMAT_SMALL = 2, // spans of 4 KiB
};
#define REGION_SMALL_MAX ((uint64_t)4 << 20) // regions below are formatted with small spans

// How the spans lie.
struct span_layout {
    unsigned shift;        // a span has 1 << shift bytes
    uint32_t base;         // spans whose descriptors lie at table_offset
    uint32_t reserved;     // first spans: head, arenas and roots; descriptors
    uint32_t table_offset; // of the descriptors
};
#define SPAN_LAYOUT_LARGE \
    ((struct span_layout){.shift = 16, .base = 1024, .reserved = 2, .table_offset = 65536})
#define SPAN_LAYOUT_SMALL \
    ((struct span_layout){.shift = 12, .base = 256, .reserved = 14, .table_offset = 40960})
#define SPANS_MAX ((uint64_t)1 << 24)

#define ARENAS_MAX        16u
#define ARENA_CLASSES_MAX 48u
#define RUN_BINS          96u
#define ROOTS_MAX         256u

// Written when the region is formatted and when it has grown, read by everybody.
struct region_head {
    uint64_t magic;       //  0 REGION_MAGIC
    uint32_t format;      //  8 enum region_format
    uint32_t arena_count; // 12 arenas in use
    uint64_t span_count;  // 16 spans that the allocator manages: all of the region that it knew of
    uint64_t reserved[5]; // 24 0
};
LAYOUT_SIZE_CHECK(struct region_head, 64);

// Free runs of spans, in a doubly linked list for each bin of lengths.
struct run_bins {
    uint64_t filled[2];       //  0 bit b: bin b has a run
    uint64_t reserved[6];     // 16 0
    uint32_t first[RUN_BINS]; // 64 first span of the first run
};
LAYOUT_SIZE_CHECK(struct run_bins, 448);

// The slabs of an arena that have a free block, in a doubly linked list for each size class.
struct arena {
    uint32_t first[ARENA_CLASSES_MAX]; //   0 first span of the first slab
    uint32_t reserved[16];             // 192 0
};
LAYOUT_SIZE_CHECK(struct arena, 256);

#define REGION_HEAD_OFFSET 0u
#define RUN_BINS_OFFSET    64u
#define ARENAS_OFFSET      4096u
#define ROOTS_OFFSET       8192u

enum span_kind {
    SPAN_INTERIOR = 0,  // inside of a run; or never used
    SPAN_RESERVED = 1,  // first of `length` spans of the allocator's own
    SPAN_FREE = 2,      // first of `length` free spans
    SPAN_FREE_END = 3,  // last of `length` free spans, where they are two or more
    SPAN_LARGE = 4,     // first of `length` spans that are one allocation
    SPAN_SLAB = 5,      // first of `length` spans that are divided into blocks of one size
    SPAN_SLAB_REST = 6, // the `back`-th span after the first of a slab
};

// One line a span, so that transactions which use different spans do not conflict.
struct span {
    uint8_t kind;      //  0 enum span_kind
    uint8_t class;     //  1 slab: size class
    uint8_t arena;     //  2 slab: whose list it is in when it has a free block
    uint8_t back;      //  3 slab rest: distance from the first
    uint16_t used;     //  4 slab: blocks handed out
    uint16_t scan;     //  6 slab: no free block in the bitmap's words before this one
    uint32_t next;     //  8 slab, free: list
    uint32_t prev;     // 12 slab, free: list; 0: the list's head points here
    uint64_t length;   // 16 spans
    uint32_t self;     // 24 number of this span, where kind is not interior
    uint32_t reserved; // 28 0
    uint64_t
        bitmap[4]; // 32 slab of up to 256 blocks: which are handed out (bits past the last block are set)
};
LAYOUT_SIZE_CHECK(struct span, 64);
// Slabs with more blocks have the bitmap at their beginning; see class_shapes in alloc.c.

// ---- Roots ----------------------------------------------------------------------------------------------------------

enum root_state {
    ROOT_EMPTY = 0,
    ROOT_TAKEN = 1,
    ROOT_REMOVED = 2, // later slots may hold names that found this one taken
};

struct root_slot {
    char name[56];        //  0 with its NUL
    uint64_t type;        // 56
    uint64_t layout;      // 64
    uint64_t address;     // 72 region number 0: this region
    uint32_t state;       // 80 enum root_state
    uint32_t reserved0;   // 84 0
    uint64_t reserved[5]; // 88 0
};
LAYOUT_SIZE_CHECK(struct root_slot, 128);

// ---- Map ------------------------------------------------------------------------------------------------------------

#define MAP_MAGIC  0x50414d464c454853u // "SHELFMAP"
#define MAP_FORMAT 1u
#define MAP_WORD   0x5a17bu // 19 bits that tell a map's head from what else may be there once it was dropped

#define MAP_DEPTH_MAX       20u // a directory of 8 MiB: its doubling still fits into one transaction
#define MAP_SEGMENT_BUCKETS 256u
#define MAP_SEGMENT_SIZE    (MAP_SEGMENT_BUCKETS * 64u)
#define MAP_SLOTS           7u
#define MAP_GROUP           4u // an entry lies in its home bucket or another one of the home's aligned group
#define MAP_STRIPES         16u
#define MAP_KEY_MAX         65536u

// Changed only when the directory doubles.
struct map_head {
    uint64_t
        directory;   //  0 MAP_WORD << 45 | depth << 40 | offset of the directory, which has 2^depth entries
    uint64_t seed;   //  8 of the keys' hashes
    uint64_t magic;  // 16 MAP_MAGIC
    uint32_t format; // 24 MAP_FORMAT
    uint32_t reserved0;   // 28 0
    uint64_t reserved[4]; // 32 0
};
LAYOUT_SIZE_CHECK(struct map_head, 64);

// After the head, a line each: the sum of all stripes is the number of entries. Any transaction may use any stripe,
// so one alone may be "negative".
struct map_stripe {
    uint64_t count;       //  0
    uint64_t reserved[7]; //  8 0
};
LAYOUT_SIZE_CHECK(struct map_stripe, 64);
#define MAP_HEAD_SIZE (64u + MAP_STRIPES * 64u)

// Directory entry, found by the hash's top `depth` bits: segment's own depth << 48 | segment's offset. A segment whose
// depth is smaller than the directory's has several entries, side by side.

// One line. A slot is 0 or tag << 36 | entry's offset / 16; the tag is the hash's top 28 bits.
struct map_bucket {
    uint64_t slots[MAP_SLOTS]; //  0
    uint64_t meta;             // 56 see below
};
LAYOUT_SIZE_CHECK(struct map_bucket, 64);
//   bits  0..34  5 a slot: size of the entry in units of 16 bytes, 31: that much or more
//   bits 35..48  2 a slot: home bucket's number xor this bucket's
//   bits 49..55  how many entries with this home lie elsewhere in the group
//   bits 56..63  MAP_BUCKET_MARK
#define MAP_BUCKET_MARK 0xb7u

struct map_entry { // then the key, then the value
    uint32_t key_size;
    uint32_t value_size;
};
LAYOUT_SIZE_CHECK(struct map_entry, 8);

// ---- Stream ---------------------------------------------------------------------------------------------------------

#define STREAM_MAGIC       0x4d5254464c454853u // "SHELFTRM"
#define STREAM_FORMAT      1u
#define STREAM_CHUNK_SIZE  32768u
#define STREAM_CHUNK_MAGIC 0x4b4e4843u // "CHNK"

struct stream_head {
    uint64_t magic;       //   0 STREAM_MAGIC
    uint32_t format;      //   8 STREAM_FORMAT
    uint32_t reserved0;   //  12 0
    uint64_t bytes_max;   //  16 retention; 0: no bound
    uint64_t age_max_ms;  //  24 retention; 0: no bound
    uint64_t reserved[4]; //  32 0

    // The second line changes with each append.
    uint64_t first;    //  64 position of the oldest record
    uint64_t next;     //  72 position of the next append
    uint64_t oldest;   //  80 offset of the first chunk; 0: there is none
    uint64_t newest;   //  88 offset of the last chunk
    uint64_t bytes;    //  96 sizes of all records kept
    uint64_t time_max; // 104 largest time seen, ms
    uint64_t chunks;   // 112 chunks kept
    uint64_t spare;    // 120 0
};
LAYOUT_SIZE_CHECK(struct stream_head, 128);

// Records grow up from the chunk's head, the table of their offsets grows down from the chunk's end.
struct stream_chunk {
    uint32_t magic;         //   0 STREAM_CHUNK_MAGIC
    uint32_t size;          //   4 of the chunk, all in all
    uint64_t sequence;      //   8 chunks are numbered from 0
    uint64_t first;         //  16 position of its first record
    uint64_t prev;          //  24 chunk before; may be gone, like `jump`
    uint64_t jump;          //  32 some chunk further back: makes a search logarithmic
    uint64_t jump_first;    //  40 position of the first record of `jump`
    uint64_t jump_sequence; // 48 its number
    uint64_t next;          //  56 chunk after; 0: this is the newest

    // The second line changes with each append to the chunk.
    uint32_t count;       //  64 records
    uint32_t end;         //  68 where the next record goes
    uint64_t bytes;       //  72 sizes of the chunk's records
    uint64_t time_max;    //  80 largest time of its records, ms
    uint64_t reserved[5]; // 88 0
};
LAYOUT_SIZE_CHECK(struct stream_chunk, 128);

struct stream_record { // then its bytes, then padding to 8
    uint64_t time_ms;
    uint32_t size;
    uint32_t position; // low half, to check
};
LAYOUT_SIZE_CHECK(struct stream_record, 16);

#endif
