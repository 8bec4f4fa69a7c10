// SPDX-License-Identifier: Apache-2.0
//
// See disk.h. A file is an array of chunks of 4 KiB. A chunk that has unsynced sectors also keeps its durable bytes;
// the unsynced sectors themselves are in a list, in the order in which they were written.

#include "disk.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"

#define CHUNK_SIZE  4096u
#define FILES_MAX   512u
#define FILE_CHUNKS 65536u // 256 MiB: no simulated file is larger

struct chunk {
    uint8_t now[CHUNK_SIZE];
    uint8_t *durable; // NULL: the same as now
};

struct unsynced {
    uint64_t sector;
    uint64_t stamp;
    uint8_t bytes[SECTOR_SIZE];
};

struct disk_file {
    struct file_id id;
    uint64_t size;
    struct chunk **chunks;
    size_t chunk_count;
    struct unsynced *unsynced;
    size_t unsynced_count, unsynced_max;
};

struct disk {
    struct disk_file files[FILES_MAX];
    size_t file_count;
    bool published;
};

struct disk *disk_new(void) {
    struct disk *disk = calloc(1, sizeof(*disk));
    ASSERT(disk);
    return disk;
}

static void file_clear(struct disk_file *file) {
    for (size_t i = 0; i < file->chunk_count; i++) {
        if (file->chunks[i]) {
            free(file->chunks[i]->durable);
            free(file->chunks[i]);
        }
    }
    free(file->chunks);
    free(file->unsynced);
    *file = (struct disk_file){.id = file->id};
}

void disk_free(struct disk *disk) {
    for (size_t i = 0; i < disk->file_count; i++) {
        file_clear(&disk->files[i]);
    }
    free(disk);
}

static bool id_equal(struct file_id a, struct file_id b) {
    return a.kind == b.kind && a.slot == b.slot && a.region == b.region;
}

static const struct disk_file *file_find(const struct disk *disk, struct file_id id) {
    for (size_t i = 0; i < disk->file_count; i++) {
        if (id_equal(disk->files[i].id, id)) {
            return &disk->files[i];
        }
    }
    return NULL;
}

static struct disk_file *file_get(struct disk *disk, struct file_id id) {
    for (size_t i = 0; i < disk->file_count; i++) {
        if (id_equal(disk->files[i].id, id)) {
            return &disk->files[i];
        }
    }
    ASSERT(disk->file_count < FILES_MAX);
    struct disk_file *file = &disk->files[disk->file_count++];
    *file = (struct disk_file){.id = id};
    return file;
}

static struct chunk *chunk_get(struct disk_file *file, uint64_t place) {
    ASSERT(place < FILE_CHUNKS);
    if (place >= file->chunk_count) {
        size_t count = place + 1 > 2 * file->chunk_count ? place + 1 : 2 * file->chunk_count;
        file->chunks = realloc(file->chunks, count * sizeof(file->chunks[0]));
        ASSERT(file->chunks);
        memset(file->chunks + file->chunk_count, 0, (count - file->chunk_count) * sizeof(file->chunks[0]));
        file->chunk_count = count;
    }
    if (!file->chunks[place]) {
        file->chunks[place] = calloc(1, sizeof(struct chunk));
        ASSERT(file->chunks[place]);
    }
    return file->chunks[place];
}

static void read_from(const struct disk_file *file, uint64_t offset, uint8_t *to, size_t size, bool durable) {
    while (size > 0) {
        size_t within = offset % CHUNK_SIZE;
        size_t part = CHUNK_SIZE - within < size ? CHUNK_SIZE - within : size;
        const struct chunk *chunk = NULL;
        if (file && offset / CHUNK_SIZE < file->chunk_count) {
            chunk = file->chunks[offset / CHUNK_SIZE];
        }
        if (!chunk) {
            memset(to, 0, part);
        } else {
            memcpy(to, (durable && chunk->durable ? chunk->durable : chunk->now) + within, part);
        }
        offset += part;
        to += part;
        size -= part;
    }
}

void disk_read(const struct disk *disk, struct file_id id, uint64_t offset, void *to, size_t size) {
    read_from(file_find(disk, id), offset, to, size, false);
}

void disk_read_durable(const struct disk *disk, struct file_id id, uint64_t offset, void *to, size_t size) {
    read_from(file_find(disk, id), offset, to, size, true);
}

uint64_t disk_length(const struct disk *disk, struct file_id id) {
    const struct disk_file *file = file_find(disk, id);
    return file ? file->size : 0;
}

bool disk_published(const struct disk *disk) {
    return disk->published;
}

// Takes the unsynced writes of a sector off the list: something newer is durable there.
static void unsynced_forget(struct disk_file *file, uint64_t sector) {
    size_t kept = 0;
    for (size_t i = 0; i < file->unsynced_count; i++) {
        if (file->unsynced[i].sector != sector) {
            if (kept != i) {
                file->unsynced[kept] = file->unsynced[i];
            }
            kept++;
        }
    }
    file->unsynced_count = kept;
}

// Are these bytes there already, durably? Then a write of them changes nothing, whatever becomes of it.
static bool sector_is(const struct disk_file *file, uint64_t sector, const uint8_t *bytes) {
    static const uint8_t zeros[SECTOR_SIZE];
    uint64_t place = sector * SECTOR_SIZE / CHUNK_SIZE;
    const struct chunk *chunk = place < file->chunk_count ? file->chunks[place] : NULL;
    if (chunk && chunk->durable) {
        return false; // some of its sectors are not synced, perhaps this one
    }
    const uint8_t *present = chunk ? chunk->now + sector * SECTOR_SIZE % CHUNK_SIZE : zeros;
    return memcmp(present, bytes, SECTOR_SIZE) == 0;
}

static void sector_write(struct disk_file *file, uint64_t sector, const uint8_t *bytes, bool durable,
                         uint64_t stamp) {
    uint64_t offset = sector * SECTOR_SIZE;
    size_t within = offset % CHUNK_SIZE;
    if (sector_is(file, sector, bytes)) {
        file->size = file->size < offset + SECTOR_SIZE ? offset + SECTOR_SIZE : file->size;
        return;
    }
    struct chunk *chunk = chunk_get(file, offset / CHUNK_SIZE);
    if (durable) {
        if (chunk->durable) {
            memcpy(chunk->durable + within, bytes, SECTOR_SIZE);
            unsynced_forget(file, sector);
        }
    } else {
        if (!chunk->durable) {
            chunk->durable = malloc(CHUNK_SIZE);
            ASSERT(chunk->durable);
            memcpy(chunk->durable, chunk->now, CHUNK_SIZE);
        }
        if (file->unsynced_count == file->unsynced_max) {
            file->unsynced_max = file->unsynced_max ? 2 * file->unsynced_max : 64;
            file->unsynced = realloc(file->unsynced, file->unsynced_max * sizeof(file->unsynced[0]));
            ASSERT(file->unsynced);
        }
        struct unsynced *entry = &file->unsynced[file->unsynced_count++];
        entry->sector = sector;
        entry->stamp = stamp;
        memcpy(entry->bytes, bytes, SECTOR_SIZE);
    }
    memcpy(chunk->now + within, bytes, SECTOR_SIZE);
    if (file->size < offset + SECTOR_SIZE) {
        file->size = offset + SECTOR_SIZE;
    }
}

void disk_write(struct disk *disk, struct file_id id, uint64_t offset, const void *from, size_t size,
                bool durable, uint64_t stamp) {
    ASSERT(offset % SECTOR_SIZE == 0 && size % SECTOR_SIZE == 0);
    struct disk_file *file = file_get(disk, id);
    for (size_t done = 0; done < size; done += SECTOR_SIZE) {
        sector_write(file, (offset + done) / SECTOR_SIZE, (const uint8_t *)from + done, durable, stamp);
    }
}

static void make_durable(struct disk_file *file, const struct unsynced *entry) {
    uint64_t offset = entry->sector * SECTOR_SIZE;
    struct chunk *chunk = chunk_get(file, offset / CHUNK_SIZE);
    if (chunk->durable) {
        memcpy(chunk->durable + offset % CHUNK_SIZE, entry->bytes, SECTOR_SIZE);
    }
}

// Where no unsynced sector is left, the durable bytes are the present ones again.
static void durable_drop_copies(struct disk_file *file) {
    if (file->unsynced_count > 0) {
        return;
    }
    for (size_t i = 0; i < file->chunk_count; i++) {
        if (file->chunks[i] && file->chunks[i]->durable) {
            free(file->chunks[i]->durable);
            file->chunks[i]->durable = NULL;
        }
    }
}

void disk_sync(struct disk *disk, struct file_id id, uint64_t stamp) {
    struct disk_file *file = file_get(disk, id);
    if (file->unsynced_count == 0) {
        return;
    }
    size_t kept = 0;
    for (size_t i = 0; i < file->unsynced_count; i++) {
        if (file->unsynced[i].stamp < stamp) {
            make_durable(file, &file->unsynced[i]);
        } else {
            file->unsynced[kept++] = file->unsynced[i];
        }
    }
    file->unsynced_count = kept;
    durable_drop_copies(file);
}

void disk_reserve(struct disk *disk, struct file_id id, uint64_t size) {
    struct disk_file *file = file_get(disk, id);
    if (file->size < size) {
        file->size = size;
    }
}

void disk_publish(struct disk *disk) {
    disk_sync(disk, (struct file_id){.kind = FILE_SUPERBLOCK}, UINT64_MAX);
    disk->published = true;
}

void disk_remove_region(struct disk *disk, uint32_t region) {
    for (size_t i = 0; i < disk->file_count; i++) {
        struct disk_file *file = &disk->files[i];
        if ((file->id.kind == FILE_TABLE || file->id.kind == FILE_PAGES) && file->id.region == region) {
            file_clear(file);
        }
    }
}

void disk_io(struct disk *disk, struct io *io, uint64_t issued, uint64_t stamp) {
    switch ((enum io_kind)io->kind) {
    case IO_READ:
        disk_read(disk, io->file, io->offset, io->buffer, io->size);
        break;
    case IO_WRITE:
        disk_write(disk, io->file, io->offset, io->buffer, io->size, io->durable, stamp);
        break;
    case IO_SYNC:
        disk_sync(disk, io->file, issued);
        break;
    case IO_RESERVE:
        disk_reserve(disk, io->file, io->size);
        break;
    case IO_LENGTH:
        io->size = disk_length(disk, io->file);
        break;
    case IO_PUBLISH:
        disk_publish(disk);
        break;
    case IO_REMOVE:
        disk_remove_region(disk, io->file.region);
        break;
    case IO_MAP:
    case IO_UNMAP:
    case IO_SWAP_EPOCH:
        UNREACHABLE("no io of a file");
    }
}

bool disk_io_changes(const struct io *io) {
    return io->kind == IO_SYNC || io->kind == IO_RESERVE || io->kind == IO_PUBLISH || io->kind == IO_REMOVE;
}

uint32_t disk_write_torn(struct disk *disk, struct random *random, struct file_id id, uint64_t offset,
                         const void *from, size_t size, uint64_t stamp) {
    struct disk_file *file = file_get(disk, id);
    uint64_t count = size / SECTOR_SIZE;
    uint64_t mode = random_below(random, 6); // nothing, all, a prefix, all but one, any
    uint64_t edge = random_below(random, count + 1);
    bool durable = random_chance(random, 1, 2);
    uint32_t written = 0;
    for (uint64_t i = 0; i < count; i++) {
        bool keep = mode == 1 || (mode == 2 && i < edge) || (mode == 3 && i != edge) ||
                    (mode >= 4 && random_chance(random, 1, 2));
        if (keep) {
            sector_write(file, offset / SECTOR_SIZE + i, (const uint8_t *)from + i * SECTOR_SIZE, durable,
                         stamp);
            written++;
        }
    }
    return written;
}

uint32_t disk_power_cut(struct disk *disk, struct random *random) {
    uint32_t lost = 0;
    for (size_t i = 0; i < disk->file_count; i++) {
        struct disk_file *file = &disk->files[i];
        uint64_t mode = random_below(random, 4); // nothing survives, all of it, any sector, any sector
        for (size_t j = 0; j < file->unsynced_count; j++) {
            if (mode == 1 || (mode >= 2 && random_chance(random, 1, 2))) {
                make_durable(file, &file->unsynced[j]);
            } else {
                lost++;
            }
        }
        for (size_t j = 0; j < file->chunk_count; j++) {
            struct chunk *chunk = file->chunks[j];
            if (chunk && chunk->durable) {
                memcpy(chunk->now, chunk->durable, CHUNK_SIZE);
            }
        }
        file->unsynced_count = 0;
        durable_drop_copies(file);
        if (file->id.kind == FILE_SUPERBLOCK && !disk->published) {
            file_clear(file);
        }
    }
    return lost;
}

uint32_t disk_unsynced_count(const struct disk *disk) {
    size_t count = 0;
    for (size_t i = 0; i < disk->file_count; i++) {
        count += disk->files[i].unsynced_count;
    }
    return (uint32_t)count;
}

bool disk_rot(struct disk *disk, struct random *random, struct file_id id, uint64_t offset) {
    struct disk_file *file = file_get(disk, id);
    uint64_t place = offset / CHUNK_SIZE;
    if (place >= file->chunk_count || !file->chunks[place]) {
        return false;
    }
    struct chunk *chunk = file->chunks[place];
    uint64_t bits = random_between(random, 1, 3);
    for (uint64_t i = 0; i < bits; i++) {
        size_t byte = offset % CHUNK_SIZE / SECTOR_SIZE * SECTOR_SIZE + random_below(random, SECTOR_SIZE);
        uint8_t flip = (uint8_t)(1u << random_below(random, 8));
        chunk->now[byte] ^= flip;
        if (chunk->durable) {
            chunk->durable[byte] ^= flip;
        }
    }
    return true;
}

size_t disk_files(const struct disk *disk, struct file_id *ret_ids, size_t count_max) {
    size_t count = 0;
    for (size_t i = 0; i < disk->file_count && count < count_max; i++) {
        if (disk->files[i].size > 0) {
            ret_ids[count++] = disk->files[i].id;
        }
    }
    return count;
}

uint64_t disk_hash(const struct disk *disk) {
    uint64_t hash = disk->published;
    for (size_t i = 0; i < disk->file_count; i++) {
        const struct disk_file *file = &disk->files[i];
        hash = hash_bytes(hash, &file->size, sizeof(file->size));
        for (size_t j = 0; j < file->chunk_count; j++) {
            if (file->chunks[j]) {
                hash = hash_bytes(hash, file->chunks[j]->now, CHUNK_SIZE);
            }
        }
    }
    return hash;
}
