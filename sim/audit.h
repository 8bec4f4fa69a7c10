// SPDX-License-Identifier: Apache-2.0
//
// Looks at the durable bytes of the disk, at any moment, with the eyes of a recovery that would start now:
//
//   A1  Whenever a newer superblock is durable in enough copies, everything that it reaches is durable, has its checksum,
//       and is the image as of exactly its index.
//   A2  Nothing that the durable superblock reaches is written to; neither is a record after its index.

#ifndef SIM_AUDIT_H
#define SIM_AUDIT_H

#include "disk.h"
#include "model.h"

struct audit;

struct audit *audit_new(const struct disk *disk, struct model *model);
void audit_free(struct audit *audit);
// Finds the durable superblock and checks what is new (A1).
void audit_look(struct audit *audit);
// A write is sent to the disk (A2).
void audit_write(const struct audit *audit, struct file_id id, uint64_t offset, const void *bytes,
                 uint64_t size);
// Would a write there destroy something that is needed? For faults that shall not.
bool audit_needs(const struct audit *audit, struct file_id id, uint64_t offset, uint64_t size);
// The disk was changed from outside: believe nothing that was seen before.
void audit_restart(struct audit *audit);
// A fault has destroyed something that was needed: nothing is checked any more.
void audit_off(struct audit *audit);
uint64_t audit_index(const struct audit *audit);    // of the durable checkpoint
uint64_t audit_sequence(const struct audit *audit); // of the durable superblock; 0: none
// Index in the newest hint that is durable; 0: none.
uint64_t audit_hint(const struct audit *audit);

#endif
