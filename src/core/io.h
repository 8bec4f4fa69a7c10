// SPDX-License-Identifier: Apache-2.0
/*
 * io.h: what the core asks of the outside. An io is owned by the core from beginning to end; between its appearance in
 * struct effects and EVENT_IO_DONE the world may use its buffer. Every io is answered exactly once, in any order,
 * but never from within the core_step() that issued it. Ios issued together may be executed in any order.
 */
#ifndef CORE_IO_H
#define CORE_IO_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/checkpoint_format.h"

enum file_kind {
    FILE_SUPERBLOCK = 1, /* `superblock` */
    FILE_LOG,            /* `log` */
    FILE_HINT,           /* `hint` */
    FILE_ROOTS,          /* `roots.a`, `roots.b`: slot 0, 1 */
    FILE_TABLE,          /* `table.N` */
    FILE_PAGES,          /* `pages.N.a`, `pages.N.b`: slot 0, 1 */
    FILE_PROMISE,        /* `promise`: of a node of a cluster */
};
struct file_id {
    uint16_t kind;
    uint16_t slot;
    uint32_t region;
};

enum io_kind {
    /* Reads size bytes; what lies past the end of the file reads as zero. Not opened files are empty. */
    IO_READ = 1,
    /* Writes size bytes. With `durable` the bytes (and all metadata needed to read them) are on stable storage when done. */
    IO_WRITE,
    /* Makes all completed writes of the file durable. */
    IO_SYNC,
    /* Makes sure that the file has space for `size` bytes from its start, and is at least that long (durably, with its
     * name). Creates it if needed. New bytes read as zero. IO_RESULT_NO_SPACE leaves the file usable as it was. */
    IO_RESERVE,
    /* Tells the file's length in `size`; 0 if there is none. */
    IO_LENGTH,
    /* FILE_SUPERBLOCK only, when a shelf is made: all writes so far went to a temporary name; now it gets its real one,
     * durably. Afterwards there is a shelf, before there was none. */
    IO_PUBLISH,
    /* Removes the files of a region; they may not exist. */
    IO_REMOVE,
    /* Memory for a region: ret_memory is filled. On a region that has memory already: grow to `size`; no pointer changes. */
    IO_MAP,
    /* Gives the memory of a dropped region back. The view's pointers stay readable. */
    IO_UNMAP,
    /* Coordinator: compare-and-swap of the configuration from `epoch - 1`'s or older to `epoch`. Result OK, or
     * CONFLICT with `epoch` set to the present one. */
    IO_SWAP_EPOCH,
};

enum io_result {
    IO_RESULT_OK = 0,
    IO_RESULT_NO_SPACE, /* nothing is known of the bytes; the same io may be tried again */
    IO_RESULT_ERROR,    /* a fault of the device: never tried again */
    IO_RESULT_CONFLICT, /* IO_SWAP_EPOCH */
    IO_RESULT_NO_MEMORY,
};

/* Memory of one region, all of it zero at first, reserved for size_max so that nothing ever moves. */
struct region_memory {
    uint8_t *data;              /* the core's alias, writable */
    _Atomic uint64_t *versions; /* one a line */
    _Atomic uint64_t *page_versions;
    const uint8_t *data_view; /* the readers' aliases */
    const _Atomic uint64_t *versions_view;
    const _Atomic uint64_t *page_versions_view;
    struct page_entry *pages;   /* one a page */
    struct block_entry *blocks; /* one a table block */
    uint64_t *bits[3];          /* three bitmaps, one bit a page */
};

struct io {
    uint32_t kind; /* enum io_kind */
    uint32_t result;
    struct file_id file;
    uint64_t offset;
    uint64_t size;
    void *buffer;      /* aligned to 4096 when alignment allows O_DIRECT: always for pages, log, table */
    uint64_t size_max; /* IO_MAP */
    uint64_t epoch;    /* IO_SWAP_EPOCH */
    struct region_memory memory; /* IO_MAP */
    uint32_t durable;            /* IO_WRITE */
    uint32_t urgent;             /* 1: a commit waits for it. 0: a background thread may take its time */
    uint32_t purpose;            /* enum io_purpose, the core's own */
    uint32_t busy;               /* the core's own: 1 from issue to EVENT_IO_DONE */
    void *world;                 /* the world's own */
};

#endif
