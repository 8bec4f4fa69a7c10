// SPDX-License-Identifier: Apache-2.0
//
// An image built by hand, and a writer that follows the protocol of wire/image.h, for tests of transactions without a
// node. Region 2 and 3 are live from the start, with floor 1; applied begins at 1.

#ifndef SHELF_TEST_TX_BED_H
#define SHELF_TEST_TX_BED_H

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/detail.h"
#include "client/shared_copy.h"
#include "client/tx.h"
#include "cmocka_program.h"

enum { BED_REGION_A = 2, BED_REGION_B = 3, BED_REGIONS = 8 };

struct tx_bed {
    struct tx_host host; // first
    struct image *image;
    struct region_map *maps;
    struct replica replica;
    uint8_t *data[BED_REGIONS];
    _Atomic uint64_t *versions[BED_REGIONS];
    _Atomic uint64_t *page_versions[BED_REGIONS];
    uint64_t size;
    _Atomic uint64_t waits;                              // rounds that readers waited
    void (*on_wait)(struct tx_bed *bed, uint32_t round); // NULL: the wait is over at once
};

static inline void *bed_memory(size_t size) {
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(memory != MAP_FAILED);
    return memory;
}

static inline bool bed_wait(struct tx_host *host, uint32_t round) {
    struct tx_bed *bed = (struct tx_bed *)(void *)host;
    atomic_fetch_add(&bed->waits, 1);
    if (!bed->on_wait)
        return false;
    bed->on_wait(bed, round);
    return true;
}

static inline void bed_region_add(struct tx_bed *bed, shelf_region region, uint64_t floor) {
    bed->data[region] = bed_memory(bed->size);
    bed->versions[region] = bed_memory(bed->size / LINE_SIZE * 8);
    bed->page_versions[region] = bed_memory(bed->size / PAGE_SIZE * 8);
    struct region_view *view = &bed->image->regions[region];
    bed->maps[region].versions = bed->versions[region];
    bed->maps[region].page_versions = bed->page_versions[region];
    bed->maps[region].data = bed->data[region];
    atomic_store(&view->floor, floor);
    atomic_store(&view->size, bed->size);
    atomic_store(&view->state, REGION_LIVE);
}

static inline struct tx_bed *bed_make(uint64_t size) {
    struct tx_bed *bed = calloc(1, sizeof(*bed));
    assert_non_null(bed);
    bed->image = bed_memory(sizeof(*bed->image));
    bed->maps = bed_memory(REGION_NUMBERS * sizeof(struct region_map));
    bed->replica = (struct replica){.image = bed->image, .maps = bed->maps};
    bed->host.replica = &bed->replica;
    bed->host.wait = bed_wait;
    bed->size = size;
    atomic_store(&bed->image->applied, 1);
    bed_region_add(bed, BED_REGION_A, 1);
    bed_region_add(bed, BED_REGION_B, 1);
    return bed;
}

static inline void bed_free(struct tx_bed *bed) {
    for (int i = 0; i < BED_REGIONS; i++) {
        if (bed->data[i]) {
            munmap(bed->data[i], bed->size);
            void *versions = bed->versions[i];
            munmap(versions, bed->size / LINE_SIZE * 8);
            void *page_versions = bed->page_versions[i];
            munmap(page_versions, bed->size / PAGE_SIZE * 8);
        }
    }
    munmap(bed->image, sizeof(*bed->image));
    munmap(bed->maps, REGION_NUMBERS * sizeof(struct region_map));
    free(bed);
}

static inline _Atomic uint64_t *bed_line_version(struct tx_bed *bed, shelf_addr of) {
    return &bed->versions[shelf_addr_region(of)][shelf_addr_offset(of) / LINE_SIZE];
}
static inline _Atomic uint64_t *bed_page_version(struct tx_bed *bed, shelf_addr of) {
    return &bed->page_versions[shelf_addr_region(of)][shelf_addr_offset(of) / PAGE_SIZE];
}

// The writer's half of the protocol, one step a function, for records of whole words within one line.
static inline void bed_line_begin(struct tx_bed *bed, shelf_addr to, uint64_t index) {
    atomic_store_explicit(bed_page_version(bed, to), index << 1 | VERSION_WRITING, memory_order_relaxed);
    atomic_store_explicit(bed_line_version(bed, to), index << 1 | VERSION_WRITING, memory_order_relaxed);
#ifdef SHARED_THREAD_SANITIZER
    atomic_signal_fence(memory_order_release);
#else
    atomic_thread_fence(memory_order_release);
#endif
}
static inline void bed_word_store(struct tx_bed *bed, shelf_addr to, uint64_t word) {
    uint64_t *target = (uint64_t *)(void *)(bed->data[shelf_addr_region(to)] + shelf_addr_offset(to));
    __atomic_store_n(target, word, __ATOMIC_RELAXED);
}
static inline void bed_line_end(struct tx_bed *bed, shelf_addr to, uint64_t index) {
    atomic_store_explicit(bed_line_version(bed, to), index << 1, memory_order_release);
    atomic_store_explicit(bed_page_version(bed, to), index << 1, memory_order_release);
}
static inline void bed_applied(struct tx_bed *bed, uint64_t index) {
    atomic_store_explicit(&bed->image->applied, index, memory_order_release);
}
static inline uint64_t bed_next(struct tx_bed *bed) {
    return atomic_load(&bed->image->applied) + 1;
}

// A record that sets one word; returns its index.
static inline uint64_t bed_set(struct tx_bed *bed, shelf_addr to, uint64_t word) {
    uint64_t index = bed_next(bed);
    bed_line_begin(bed, to, index);
    bed_word_store(bed, to, word);
    bed_line_end(bed, to, index);
    bed_applied(bed, index);
    return index;
}

#endif
