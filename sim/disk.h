// SPDX-License-Identifier: Apache-2.0
//
// A seeded disk under the ios of core/io.h. Every sector of 512 bytes has what a program reads now, and what a power
// cut would leave: unsynced writes are kept apart, and each of their sectors survives a power cut or not on its own.
//
//   D1  A durable write survives from its completion on; a synced one from the completion of a sync that was issued
//       after the write had completed.
//   D2  A sector is never half old, half new; a write of several sectors may be, in any combination.
//   D3  After a process crash nothing of what had completed is lost, but nothing becomes durable by it either.
//   D4  IO_RESERVE, IO_PUBLISH and IO_REMOVE are durable when they complete. A superblock that was not published is gone.

#ifndef SIM_DISK_H
#define SIM_DISK_H

#include <stdbool.h>

#include "base/random.h"
#include "core/io.h"

#define SECTOR_SIZE 512u

struct disk;

struct disk *disk_new(void);
void disk_free(struct disk *disk);

// What lies past the end reads as zero, and so do files that there are not.
void disk_read(const struct disk *disk, struct file_id id, uint64_t offset, void *to, size_t size);
// The same, as after a power cut that loses all that it may lose.
void disk_read_durable(const struct disk *disk, struct file_id id, uint64_t offset, void *to, size_t size);
uint64_t disk_length(const struct disk *disk, struct file_id id);
bool disk_published(const struct disk *disk);

// `stamp` counts completions; a sync covers the writes with a lower stamp than the one at which it was issued.
void disk_write(struct disk *disk, struct file_id id, uint64_t offset, const void *from, size_t size,
                bool durable, uint64_t stamp);
void disk_sync(struct disk *disk, struct file_id id, uint64_t stamp);
void disk_reserve(struct disk *disk, struct file_id id, uint64_t size);
void disk_publish(struct disk *disk);
void disk_remove_region(struct disk *disk, uint32_t region);

// What an io of a file asks for; its write's bytes get there whole. `issued`, `stamp`: of its issue, and now.
void disk_io(struct disk *disk, struct io *io, uint64_t issued, uint64_t stamp);
// Would it change anything, other than by writing bytes? Then it may have happened when it was under way at a death.
bool disk_io_changes(const struct io *io);

// A write that was under way when the machine or the process died: any of its sectors, durably or not.
// Returns how many sectors got there.
uint32_t disk_write_torn(struct disk *disk, struct random *random, struct file_id id, uint64_t offset,
                         const void *from, size_t size, uint64_t stamp);
// The power fails. Returns how many unsynced sectors were lost.
uint32_t disk_power_cut(struct disk *disk, struct random *random);
uint32_t disk_unsynced_count(const struct disk *disk);

// Bit rot: inverts some bits of one sector, in what is durable and in what is read. False if there is nothing there.
bool disk_rot(struct disk *disk, struct random *random, struct file_id id, uint64_t offset);

// The files that there are, in order of their making.
size_t disk_files(const struct disk *disk, struct file_id *ret_ids, size_t count_max);
// A digest of everything, for the tests of this file.
uint64_t disk_hash(const struct disk *disk);

#endif
