// SPDX-License-Identifier: Apache-2.0
//
// The hoard: a region that only grows, until the disk is full. It holds one stream of records of 8 KiB without any
// retention; record n is a function of n. When the region is full it is grown by a MiB, and when the disk is, that is
// refused until somebody makes space.

#ifndef SHELF_CRASH_HOARD_H
#define SHELF_CRASH_HOARD_H

#include "book.h"
#include "shelf.h"

struct hoard {
    shelf *s;          // owned by the caller
    struct book *book; // owned by the caller
    bool ready;
    shelf_region region;
    shelf_stream stream;
    uint64_t count; // records in it
};

// Finds the hoard; `ready` says whether there is one. With `create` it is made.
shelf_result hoard_open(struct hoard *hoard, bool create);

// Appends one record, growing the region if that is needed. NO_SPACE: the disk is full, nothing was changed.
shelf_result hoard_add(struct hoard *hoard);

// Reads all of it and compares it with the book. False, and a message on stderr, on the first difference.
bool hoard_check(struct hoard *hoard);

#endif
