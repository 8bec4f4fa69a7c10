// SPDX-License-Identifier: Apache-2.0
/*
 * limits.h: the sizes that every part of Shelf agrees on. Those that programs see are in shelf.h.
 */
#ifndef WIRE_LIMITS_H
#define WIRE_LIMITS_H

#include "shelf.h"

#define LINE_SHIFT     6u
#define LINE_SIZE      (1u << LINE_SHIFT)
#define PAGE_SHIFT     12u
#define PAGE_SIZE      (1u << PAGE_SHIFT)
#define LINES_PER_PAGE (PAGE_SIZE / LINE_SIZE)

#define ADDRESS_OFFSET_BITS 48u
#define REGION_NUMBERS      65536u

#define REGION_SYSTEM 1u /* catalog of regions and table of sessions; never mapped by clients */

/* A request is what a client hands to the node: its encoded size bounds everything that follows from it. */
#define REQUEST_BYTES_MAX        ((size_t)40 << 20)
#define REQUEST_RANGES_BYTES_MAX ((size_t)24 << 20)

/* A record never leaves its segment; a full-sized transaction and its bookkeeping fit. */
#ifdef SHELF_SIM /* the simulator's own build: small enough that segments fill and come round within a short run */
#define LOG_SEGMENT_BYTES    ((uint64_t)512 << 10)
#define LOG_RECORD_BYTES_MAX ((size_t)360 << 10)
#else
#define LOG_SEGMENT_BYTES    ((uint64_t)32 << 20)
#define LOG_RECORD_BYTES_MAX ((size_t)26 << 20)
#endif
#define LOG_SEGMENTS_MAX 4096u
#define RECORD_TXS_MAX   4096u

#endif
