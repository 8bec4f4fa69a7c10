// SPDX-License-Identifier: Apache-2.0
//
// The trace: what a program asked of its disk, in order. powerfs writes it, rebuild reads it. Both run in one test on
// one machine, so the structure is stored as it is in memory.
//
// A trace is a sequence of entries, numbered from 0 by their place. Each is a trace_entry followed by data_size bytes.
//
//   kind            node   directory   offset size   data             flags
//   MAKE_FILE       its    parent's    -      -      name             -
//   MAKE_DIRECTORY  its    parent's    -      -      name             -
//   RENAME          its    parent's    -      -      new name         -         the old name is that of the node
//   REMOVE          its    parent's    -      -      -                -         of a file or directory
//   WRITE           its    -           yes    yes    bytes or none    ZERO      none: `size` zero bytes
//   RESIZE          its    -           -      new    -                -         also by fallocate
//   SYNC            its    -           -      -      -                -         of a file or directory
//   DONE            its    -           -      -      -                -         `ticket` has ended without an error
//   MARK            -      -           -      -      text             -         written to the file /.mark
//   START           -      -           -      -      -                -         what came before was there already
//
// T1  A WRITE and a SYNC stand where they began; a DONE says that they ended, and stands before the program learns it.
// T2  WRITE with the flag SYNC (O_DSYNC, O_SYNC, RWF_DSYNC): its own bytes and their reachability are durable at DONE.
// T3  Names, sizes: stand where they took effect, which is before the program learns it. A rename over another node is
//     followed by no REMOVE of that node.
// T4  Nodes are numbered from 1; 0 is the root directory. Numbers are never used again.

#ifndef SHELF_CRASH_TRACE_H
#define SHELF_CRASH_TRACE_H

#include <stdint.h>

#define TRACE_MAGIC     0x4543524cu
#define TRACE_ROOT      0u
#define TRACE_MARK_NAME ".mark"

enum trace_kind {
    TRACE_MAKE_FILE = 1,
    TRACE_MAKE_DIRECTORY = 2,
    TRACE_RENAME = 3,
    TRACE_REMOVE = 4,
    TRACE_WRITE = 5,
    TRACE_RESIZE = 6,
    TRACE_SYNC = 7,
    TRACE_DONE = 8,
    TRACE_MARK = 9,
    TRACE_START = 10,
};

enum {
    TRACE_FLAG_SYNC = 1u << 0,
    TRACE_FLAG_ZERO = 1u << 1,
};

struct trace_entry {
    uint32_t magic;
    uint16_t kind;
    uint16_t flags;
    uint32_t node;
    uint32_t directory;
    uint64_t offset;
    uint64_t size;
    uint64_t ticket;
    uint32_t data_size;
    uint32_t zero;
};

_Static_assert(sizeof(struct trace_entry) == 48, "trace entries are stored as they are");

#endif
