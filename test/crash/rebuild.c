// SPDX-License-Identifier: Apache-2.0
//
// rebuild: makes the disks that a loss of power could have left from a trace of powerfs, and has each one checked.
//
//   rebuild --trace FILE --out DIR [--seed N] [--images N] [--jobs N] [--timeout-s N] [--only POINT:INDEX]
//           [--marks FILE] -- COMMAND [ARGUMENT...]
//   rebuild --trace FILE [--seed N] [--images N] --count
//
// For each image, COMMAND is run; {image} at the beginning of an argument stands for the directory that holds it, {marks}
// for a file with the marks that the program had made by then, after the content of the file given with --marks, {some}
// for 2 on every fourth image and 0 on the others. It passes when COMMAND exits with 0 before the timeout. --only builds one
// image, checks it and leaves it. Images that fail are kept as DIR/failed-POINT-INDEX. --count
// builds nothing and only tells how many images there are. The last line is
// "points N exhaustive N images N failed N"; the exit code is 0 when nothing failed.
//
// The model: what a disk may hold when the power fails after trace entry k ("point k")
//   M1  The unit of writing is a sector of 512 bytes: it holds what one write left or what another did, never a mixture.
//   M2  A write that has not been made durable yet may have reached the disk or not, each sector for itself and in any
//       order: only for one sector does the newest that reached the disk win.
//   M3  A sync of a file makes durable, when it is done: all writes to the file that were done when it began, and
//       all sizes that the file had been given by then.
//   M4  A durable write (O_DSYNC, RWF_DSYNC) makes durable, when it is done: its own sectors, and as much of the file's
//       size as is needed to read them. Nothing else.
//   M5  Creation, renaming and removal of a name are durable once the directory that holds it has been synced after
//       them. (ext4 does that as well when the file is synced; POSIX does not say so, so the model does not.) Until
//       then each may be lost; within one directory they happen in order. A rename is never half done.
//   M6  A size that was set (by writing beyond the end, ftruncate, fallocate) may be lost until the file is synced: the
//       file has an older size then. Bytes inside of the size that were never written are zero. (So a size may come
//       before the bytes. ext4 in its ordered mode does better; the model does not rely on it.)
//   M7  Reserved space (fallocate) cannot be told from none: an image is sparse.
//
// The images of a point with n changes that are not durable (sectors, sizes, names):
//   n <= 10   all 2^n subsets
//   n > 10    none; all; the first i changes in order of time; all but one; all, but of one write only the first or only
//             the last part (a tear); seeded random subsets
// The first point is the one at which powerfs starts to serve.
// Points that have the same disk and the same promises as a later one are left out. When there are more images than
// --images, half of the budget goes to points that are done in full, the other half is spread over all the others.

#include "base/hash.h"
#include "base/random.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECTOR_SIZE     512u
#define CHUNK_SIZE      16384u // durable bytes are kept in pieces of that size; a missing one is zero
#define CHUNK_SECTORS   (CHUNK_SIZE / SECTOR_SIZE)
#define FILE_SIZE_MAX   ((uint64_t)1 << 38)
#define SUBSETS_MAX     10u // changes up to which all subsets are built
#define PREFIXES_MAX    32u
#define DROPS_MAX       32u
#define TEARS_MAX       16u
#define SAMPLES         32u
#define FAILURES_MAX    5u // after that many a job stops
#define CHANGES_PRINTED 20u
#define NEVER           UINT64_MAX

// A place of a name: where a node is found on the disk, if at all.
struct place {
    bool present;
    uint32_t directory;
    const char *name; // into the trace
    uint32_t name_size;
};

// A file or directory as the disk has it for sure.
struct node {
    bool directory;
    struct place place;
    uint64_t size;
    uint64_t size_now; // as the program sees it
    unsigned char **chunks;
    size_t chunk_count;
};

enum change_kind { CHANGE_SECTOR, CHANGE_SIZE, CHANGE_NAME };

// Something that the disk may have or not.
struct change {
    enum change_kind kind;
    uint32_t node;
    uint64_t entry; // that it came from
    uint64_t ended; // the entry of its DONE
    uint64_t sector;
    const unsigned char *bytes; // into the trace, or `owned`
    unsigned char *owned;       // NULL if it is not of this change alone
    uint64_t size;
    struct place place;
};

struct disk {
    struct node *nodes; // [0] is the root
    uint32_t node_count;
    struct change *changes; // in order of time
    size_t change_count, change_max;
    char *marks;
    size_t mark_size, mark_max;
};

struct options {
    const char *trace;
    const char *out;
    const char *marks;
    uint64_t seed, images_max, jobs, timeout_s;
    bool only, count;
    uint64_t only_point, only_index;
    char **command;
};

// A point whose images are to be built.
struct point {
    uint64_t entry;
    uint64_t images;
    uint64_t chosen; // how many of them are built
    bool exhaustive;
};

struct counts {
    uint64_t points, exhaustive, images, failed;
};

static const unsigned char sector_zero[SECTOR_SIZE];

static const unsigned char *trace_bytes;
static size_t trace_size;

_Noreturn static void fail(const char *what) {
    fprintf(stderr, "rebuild: %s%s%s\n", what, errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
    _exit(2);
}

static void *memory(void *old, size_t count, size_t size) {
    void *bytes = reallocarray(old, count, size);
    if (bytes == NULL) {
        fail("no memory");
    }
    return bytes;
}

static uint64_t at_most(uint64_t value, uint64_t limit) {
    return value < limit ? value : limit;
}

// ---- The disk ---------------------------------------------------------------------------------------------

static struct node *disk_node(struct disk *disk, uint32_t number) {
    if (number > (1u << 20)) {
        errno = 0;
        fail("the trace names a node that cannot be");
    }
    while (disk->node_count <= number) {
        disk->nodes = memory(disk->nodes, disk->node_count + 1, sizeof(struct node));
        disk->nodes[disk->node_count++] = (struct node){0};
    }
    return &disk->nodes[number];
}

static struct change *disk_change(struct disk *disk, struct change change) {
    if (disk->change_count == disk->change_max) {
        disk->change_max = disk->change_max * 2 + 64;
        disk->changes = memory(disk->changes, disk->change_max, sizeof(struct change));
    }
    change.ended = NEVER;
    disk->changes[disk->change_count] = change;
    return &disk->changes[disk->change_count++];
}

static const unsigned char *node_sector(const struct node *node, uint64_t sector) {
    uint64_t chunk = sector / CHUNK_SECTORS;
    if (chunk >= node->chunk_count || node->chunks[chunk] == NULL) {
        return sector_zero;
    }
    return node->chunks[chunk] + sector % CHUNK_SECTORS * SECTOR_SIZE;
}

static void node_sector_set(struct node *node, uint64_t sector, const unsigned char *bytes) {
    uint64_t chunk = sector / CHUNK_SECTORS;
    if (chunk >= node->chunk_count) {
        size_t count = (size_t)chunk + 1;
        node->chunks = memory(node->chunks, count, sizeof(unsigned char *));
        memset(node->chunks + node->chunk_count, 0, (count - node->chunk_count) * sizeof(unsigned char *));
        node->chunk_count = count;
    }
    if (node->chunks[chunk] == NULL) {
        node->chunks[chunk] = memory(NULL, 1, CHUNK_SIZE);
        memset(node->chunks[chunk], 0, CHUNK_SIZE);
    }
    memcpy(node->chunks[chunk] + sector % CHUNK_SECTORS * SECTOR_SIZE, bytes, SECTOR_SIZE);
}

// The sector as the program sees it: the newest change, else what is durable.
static const unsigned char *sector_now(const struct disk *disk, uint32_t node, uint64_t sector,
                                       bool *ret_durable) {
    for (size_t i = disk->change_count; i-- > 0;) {
        const struct change *change = &disk->changes[i];
        if (change->kind == CHANGE_SECTOR && change->node == node && change->sector == sector) {
            *ret_durable = false;
            return change->bytes;
        }
    }
    *ret_durable = true;
    return node_sector(&disk->nodes[node], sector);
}

// Adds the change that `size` bytes from `start` in the sector become `bytes`. Bytes that are durable already are no
// change; bytes that are there but not durable are one, because this write may be made durable and the other not.
static void sector_change(struct disk *disk, uint32_t node, uint64_t sector, uint64_t start, uint64_t size,
                          const unsigned char *bytes, uint64_t entry) {
    struct change change = {
        .kind = CHANGE_SECTOR, .node = node, .entry = entry, .sector = sector, .bytes = bytes};
    bool durable = false;
    const unsigned char *old = sector_now(disk, node, sector, &durable);
    if (durable && memcmp(old + start, bytes, size) == 0) {
        return;
    }
    if (size < SECTOR_SIZE) {
        unsigned char *whole = memory(NULL, 1, SECTOR_SIZE);
        memcpy(whole, old, SECTOR_SIZE);
        memcpy(whole + start, bytes, size);
        change.bytes = whole;
        change.owned = whole;
    }
    disk_change(disk, change);
}

static void place_set(struct node *nodes, uint32_t node_count, uint32_t number, const struct place *place) {
    if (place->present) { // a rename replaces what is under the new name
        for (uint32_t i = 1; i < node_count; i++) {
            struct place *other = &nodes[i].place;
            if (i != number && other->present && other->directory == place->directory &&
                other->name_size == place->name_size &&
                memcmp(other->name, place->name, place->name_size) == 0) {
                other->present = false;
            }
        }
    }
    nodes[number].place = *place;
}

static void change_keep(struct disk *disk, const struct change *change) {
    struct node *node = &disk->nodes[change->node];
    if (change->kind == CHANGE_SECTOR) {
        node_sector_set(node, change->sector, change->bytes);
    } else if (change->kind == CHANGE_SIZE) {
        node->size = change->size;
    } else {
        place_set(disk->nodes, disk->node_count, change->node, &change->place);
    }
}

// ---- Entries of the trace ---------------------------------------------------------------------------------

static void on_name(struct disk *disk, const struct trace_entry *entry, uint64_t number,
                    const unsigned char *data) {
    struct node *node = disk_node(disk, entry->node);
    disk_node(disk, entry->directory);
    node->directory = node->directory || entry->kind == TRACE_MAKE_DIRECTORY;
    struct change change = {.kind = CHANGE_NAME, .node = entry->node, .entry = number};
    change.place = (struct place){.present = entry->kind != TRACE_REMOVE,
                                  .directory = entry->directory,
                                  .name = (const char *)data,
                                  .name_size = entry->data_size};
    disk_change(disk, change);
}

// Whether a sector of the chunk can be anything but zero.
static bool chunk_known(const struct disk *disk, uint32_t number, uint64_t chunk) {
    const struct node *node = &disk->nodes[number];
    bool known = chunk < node->chunk_count && node->chunks[chunk] != NULL;
    for (size_t i = 0; !known && i < disk->change_count; i++) {
        const struct change *change = &disk->changes[i];
        known = change->kind == CHANGE_SECTOR && change->node == number &&
                change->sector / CHUNK_SECTORS == chunk;
    }
    return known;
}

// The bytes [from, to) become those at `data`, or zeros if that is NULL. A write of zeros need only be followed where
// there is something else: a preallocation is large.
static void on_bytes(struct disk *disk, uint32_t number, uint64_t from, uint64_t to,
                     const unsigned char *data, uint64_t entry) {
    for (uint64_t at = from; at < to;) {
        uint64_t sector = at / SECTOR_SIZE;
        uint64_t start = at % SECTOR_SIZE;
        uint64_t size = at_most(to - at, SECTOR_SIZE - start);
        if (data == NULL && at % CHUNK_SIZE == 0 && !chunk_known(disk, number, at / CHUNK_SIZE)) {
            size = CHUNK_SIZE;
        } else {
            sector_change(disk, number, sector, start, size, data != NULL ? data + (at - from) : sector_zero,
                          entry);
        }
        at += size;
    }
}

static void on_write(struct disk *disk, const struct trace_entry *entry, uint64_t number,
                     const unsigned char *data) {
    struct node *node = disk_node(disk, entry->node);
    uint64_t end = entry->offset + entry->size;
    if (end < entry->offset || end > FILE_SIZE_MAX) {
        errno = 0;
        fail("the trace holds a write beyond every limit");
    }
    if (end > node->size_now) {
        node->size_now = end;
        disk_change(disk,
                    (struct change){.kind = CHANGE_SIZE, .node = entry->node, .entry = number, .size = end});
    }
    bool zero = (entry->flags & TRACE_FLAG_ZERO) != 0;
    on_bytes(disk, entry->node, entry->offset, end, zero ? NULL : data, number);
}

// What a shorter size cuts off reads as zeros if the file grows again.
static void on_resize(struct disk *disk, uint32_t number, uint64_t size, uint64_t entry) {
    struct node *node = disk_node(disk, number);
    uint64_t before = node->size_now;
    if (size > FILE_SIZE_MAX) {
        errno = 0;
        fail("the trace holds a size beyond every limit");
    }
    node->size_now = size;
    disk_change(disk, (struct change){.kind = CHANGE_SIZE, .node = number, .entry = entry, .size = size});
    if (size < before) {
        size_t first = disk->change_count;
        on_bytes(disk, number, size, before, NULL, entry);
        for (size_t i = first; i < disk->change_count; i++) {
            disk->changes[i].ended = entry;
        }
    }
}

// Whether the DONE of `ticket` makes the change durable (M3, M4, M5).
static bool change_covered(const struct change *change, const struct trace_entry *begun, uint64_t ticket) {
    if (begun->kind == TRACE_WRITE) {
        return change->kind == CHANGE_SECTOR && change->entry == ticket;
    }
    switch (change->kind) {
    case CHANGE_SECTOR:
        return change->node == begun->node && change->ended < ticket;
    case CHANGE_SIZE:
        return change->node == begun->node && change->entry < ticket;
    default:
        return change->place.directory == begun->node && change->entry < ticket;
    }
}

// Whether a durable change makes an earlier one on the same sector meaningless.
static bool change_hidden(const struct disk *disk, size_t index, const bool *covered) {
    const struct change *change = &disk->changes[index];
    for (size_t i = index + 1; change->kind == CHANGE_SECTOR && i < disk->change_count; i++) {
        const struct change *later = &disk->changes[i];
        if (covered[i] && later->kind == CHANGE_SECTOR && later->node == change->node &&
            later->sector == change->sector) {
            return true;
        }
    }
    return false;
}

static void disk_keep(struct disk *disk, const struct trace_entry *begun, uint64_t ticket) {
    if (disk->change_count == 0) {
        return;
    }
    bool *covered = memory(NULL, disk->change_count, sizeof(bool));
    for (size_t i = 0; i < disk->change_count; i++) {
        covered[i] = change_covered(&disk->changes[i], begun, ticket);
    }
    size_t kept = 0;
    for (size_t i = 0; i < disk->change_count; i++) {
        struct change *change = &disk->changes[i];
        if (covered[i]) {
            change_keep(disk, change);
            free(change->owned);
        } else if (change_hidden(disk, i, covered)) {
            free(change->owned);
        } else {
            disk->changes[kept++] = *change;
        }
    }
    disk->change_count = kept;
    free(covered);
}

// M4: the size that a durable write needs. Older sizes that would cut it off are out of the question from now on.
static void disk_keep_size(struct disk *disk, uint32_t number, uint64_t end, uint64_t ticket) {
    struct node *node = &disk->nodes[number];
    node->size = node->size < end ? end : node->size;
    size_t kept = 0;
    for (size_t i = 0; i < disk->change_count; i++) {
        const struct change *change = &disk->changes[i];
        if (change->kind != CHANGE_SIZE || change->node != number || change->entry > ticket ||
            change->size > end) {
            disk->changes[kept++] = *change;
        }
    }
    disk->change_count = kept;
}

static void on_done(struct disk *disk, const struct trace_entry *begun, uint64_t ticket, uint64_t number) {
    if (begun->kind == TRACE_SYNC) {
        disk_keep(disk, begun, ticket);
        return;
    }
    for (size_t i = 0; i < disk->change_count; i++) {
        struct change *change = &disk->changes[i];
        if (change->kind == CHANGE_SECTOR && change->entry == ticket) {
            change->ended = number;
        }
    }
    if ((begun->flags & TRACE_FLAG_SYNC) != 0) {
        disk_keep(disk, begun, ticket);
        disk_keep_size(disk, begun->node, begun->offset + begun->size, ticket);
    }
}

static void on_mark(struct disk *disk, const unsigned char *text, size_t size) {
    if (size == 0) {
        return;
    }
    if (disk->mark_size + size > disk->mark_max) {
        disk->mark_max = (disk->mark_size + size) * 2;
        disk->marks = memory(disk->marks, 1, disk->mark_max);
    }
    memcpy(disk->marks + disk->mark_size, text, size);
    disk->mark_size += size;
}

// Where each entry begins. The trace is from a process that may have been stopped: a torn end is cut.
static size_t *entry_offsets;
static uint64_t entry_count;

static struct trace_entry entry_at(uint64_t number) {
    struct trace_entry entry;
    memcpy(&entry, trace_bytes + entry_offsets[number], sizeof(entry));
    return entry;
}

static void trace_index(void) {
    size_t offset = 0;
    size_t room = 0;
    while (trace_size - offset >= sizeof(struct trace_entry)) {
        struct trace_entry entry;
        memcpy(&entry, trace_bytes + offset, sizeof(entry));
        if (entry.magic != TRACE_MAGIC) {
            errno = 0;
            fail("this is no trace");
        }
        if (trace_size - offset - sizeof(entry) < entry.data_size) {
            break;
        }
        if (entry_count == room) {
            room = room * 2 + 1024;
            entry_offsets = memory(entry_offsets, room, sizeof(size_t));
        }
        entry_offsets[entry_count++] = offset;
        offset += sizeof(entry) + entry.data_size;
    }
}

static void disk_step(struct disk *disk, uint64_t number) {
    struct trace_entry entry = entry_at(number);
    const unsigned char *data = trace_bytes + entry_offsets[number] + sizeof(entry);
    switch (entry.kind) {
    case TRACE_MAKE_FILE:
    case TRACE_MAKE_DIRECTORY:
    case TRACE_RENAME:
    case TRACE_REMOVE:
        on_name(disk, &entry, number, data);
        break;
    case TRACE_WRITE:
        on_write(disk, &entry, number, data);
        break;
    case TRACE_RESIZE:
        on_resize(disk, entry.node, entry.size, number);
        break;
    case TRACE_DONE: {
        struct trace_entry begun = entry_at(entry.ticket);
        on_done(disk, &begun, entry.ticket, number);
        break;
    }
    case TRACE_MARK:
        on_mark(disk, data, entry.data_size);
        break;
    default:
        break;
    }
}

static void disk_start(struct disk *disk) {
    *disk = (struct disk){0};
    struct node *root = disk_node(disk, TRACE_ROOT);
    root->directory = true;
    root->place.present = true;
}

static void disk_end(struct disk *disk) {
    for (size_t i = 0; i < disk->change_count; i++) {
        free(disk->changes[i].owned);
    }
    for (uint32_t i = 0; i < disk->node_count; i++) {
        for (size_t j = 0; j < disk->nodes[i].chunk_count; j++) {
            free(disk->nodes[i].chunks[j]);
        }
        free(disk->nodes[i].chunks);
    }
    free(disk->nodes);
    free(disk->changes);
    free(disk->marks);
}

// ---- The images of a point --------------------------------------------------------------------------------

// A point matters when the next entry neither leaves the disk as it is nor only adds promises.
static bool point_matters(uint64_t number, bool *started) {
    *started = *started || entry_at(number).kind == TRACE_START;
    if (!*started) {
        return false;
    }
    if (number + 1 == entry_count) {
        return true;
    }
    struct trace_entry this = entry_at(number);
    struct trace_entry next = entry_at(number + 1);
    return next.kind != TRACE_MARK && this.kind != TRACE_SYNC;
}

static size_t write_count(const struct disk *disk) {
    size_t count = 0;
    for (size_t i = 0; i < disk->change_count; i++) {
        bool same = i > 0 && disk->changes[i].entry == disk->changes[i - 1].entry;
        count += disk->changes[i].kind == CHANGE_SECTOR && !same;
    }
    return count;
}

static uint64_t image_count(const struct disk *disk) {
    uint64_t n = disk->change_count;
    if (n <= SUBSETS_MAX) {
        return (uint64_t)1 << n;
    }
    return 2 + PREFIXES_MAX + DROPS_MAX + at_most(write_count(disk), TEARS_MAX) + SAMPLES;
}

// Spreads `index` of `count` over [0, n): every place if there are few enough, else one at random in each part.
static uint64_t place_spread(struct random *random, uint64_t index, uint64_t count, uint64_t n) {
    uint64_t low = index * n / count;
    uint64_t high = (index + 1) * n / count;
    return high > low ? low + random_below(random, high - low) : at_most(low, n - 1);
}

// All changes, but of the write that change `index` belongs to only a first or a last part.
static void choose_tear(struct random *random, const struct disk *disk, uint64_t index, bool *chosen) {
    size_t first = index;
    size_t end = index;
    while (first > 0 && disk->changes[first - 1].entry == disk->changes[index].entry) {
        first--;
    }
    while (end < disk->change_count && disk->changes[end].entry == disk->changes[index].entry) {
        end++;
    }
    size_t cut = first + (size_t)random_below(random, end - first) + 1;
    bool keep_first = random_chance(random, 1, 2);
    for (size_t i = first; i < end; i++) {
        chosen[i] = keep_first == (i < cut);
    }
}

static void choose(struct random *random, const struct disk *disk, uint64_t index, bool *chosen) {
    size_t n = disk->change_count;
    if (n <= SUBSETS_MAX) {
        for (size_t i = 0; i < n; i++) {
            chosen[i] = (index >> i & 1) != 0;
        }
        return;
    }
    uint64_t tears = at_most(write_count(disk), TEARS_MAX);
    memset(chosen, index == 0 ? 0 : 1, n);
    if (index < 2) {
        return;
    }
    index -= 2;
    if (index < PREFIXES_MAX) {
        uint64_t count = place_spread(random, index, PREFIXES_MAX, n);
        memset(chosen + count, 0, n - count);
    } else if (index < PREFIXES_MAX + DROPS_MAX) {
        chosen[place_spread(random, index - PREFIXES_MAX, DROPS_MAX, n)] = false;
    } else if (index < PREFIXES_MAX + DROPS_MAX + tears) {
        choose_tear(random, disk, place_spread(random, index - PREFIXES_MAX - DROPS_MAX, tears, n), chosen);
    } else {
        static const uint64_t chances[] = {10, 50, 90};
        uint64_t chance = chances[index % 3];
        for (size_t i = 0; i < n; i++) {
            chosen[i] = random_chance(random, chance, 100);
        }
    }
}

// M5: within a directory, what comes after a lost change is lost too.
static void choose_in_order(const struct disk *disk, bool *chosen) {
    for (size_t i = 0; i < disk->change_count; i++) {
        const struct change *change = &disk->changes[i];
        for (size_t j = i + 1; change->kind == CHANGE_NAME && !chosen[i] && j < disk->change_count; j++) {
            if (disk->changes[j].kind == CHANGE_NAME &&
                disk->changes[j].place.directory == change->place.directory) {
                chosen[j] = false;
            }
        }
    }
}

// ---- Building an image ------------------------------------------------------------------------------------

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *at) {
    (void)stat;
    (void)kind;
    (void)at;
    return remove(path);
}

static void tree_remove(const char *path) {
    struct stat stat;
    if (lstat(path, &stat) == 0 && nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0) {
        fail("cannot remove an old image");
    }
}

static void write_all(int fd, const void *bytes, size_t size, uint64_t offset) {
    if (pwrite(fd, bytes, size, (off_t)offset) != (ssize_t)size) {
        fail("cannot write an image");
    }
}

static void file_build(const char *path, const struct disk *disk, uint32_t number, uint64_t size,
                       const bool *chosen) {
    const struct node *node = &disk->nodes[number];
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        fail("cannot make an image");
    }
    for (size_t i = 0; i < node->chunk_count; i++) {
        if (node->chunks[i] != NULL) {
            write_all(fd, node->chunks[i], CHUNK_SIZE, (uint64_t)i * CHUNK_SIZE);
        }
    }
    for (size_t i = 0; i < disk->change_count; i++) {
        const struct change *change = &disk->changes[i];
        if (chosen[i] && change->kind == CHANGE_SECTOR && change->node == number) {
            write_all(fd, change->bytes, SECTOR_SIZE, change->sector * SECTOR_SIZE);
        }
    }
    if (ftruncate(fd, (off_t)size) != 0) {
        fail("cannot size an image");
    }
    close(fd);
}

static void directory_build(const char *path, const struct disk *disk, const struct node *nodes,
                            uint32_t number, const bool *chosen) {
    if (mkdir(path, 0700) != 0) {
        fail("cannot make an image");
    }
    for (uint32_t i = 1; i < disk->node_count; i++) {
        const struct place *place = &nodes[i].place;
        if (!place->present || place->directory != number) {
            continue;
        }
        char *child = NULL;
        if (asprintf(&child, "%s/%.*s", path, (int)place->name_size, place->name) < 0) {
            fail("no memory");
        }
        if (nodes[i].directory) {
            directory_build(child, disk, nodes, i, chosen);
        } else {
            file_build(child, disk, i, nodes[i].size, chosen);
        }
        free(child);
    }
}

static void image_build(const char *path, const struct disk *disk, const bool *chosen) {
    struct node *nodes = memory(NULL, disk->node_count, sizeof(struct node));
    memcpy(nodes, disk->nodes, disk->node_count * sizeof(struct node));
    for (size_t i = 0; i < disk->change_count; i++) {
        const struct change *change = &disk->changes[i];
        if (chosen[i] && change->kind == CHANGE_SIZE) {
            nodes[change->node].size = change->size;
        } else if (chosen[i] && change->kind == CHANGE_NAME) {
            place_set(nodes, disk->node_count, change->node, &change->place);
        }
    }
    tree_remove(path);
    directory_build(path, disk, nodes, TRACE_ROOT, chosen);
    free(nodes);
}

static void marks_build(const char *path, const struct disk *disk) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        fail("cannot write the marks");
    }
    if (disk->marks != NULL) {
        write_all(fd, disk->marks, disk->mark_size, 0);
    }
    close(fd);
}

// ---- Checking an image ------------------------------------------------------------------------------------

// An argument may begin with {image} or {marks}, or be {some}.
static char *argument_fill(const char *argument, const char *image, const char *marks, uint64_t serial) {
    const char *value = "";
    const char *rest = argument;
    if (strncmp(argument, "{image}", 7) == 0) {
        value = image;
        rest = argument + 7;
    } else if (strncmp(argument, "{marks}", 7) == 0) {
        value = marks;
        rest = argument + 7;
    }
    if (strcmp(argument, "{some}") == 0) {
        value = serial % 4 == 0 ? "2" : "0";
        rest = "";
    }
    char *filled = NULL;
    if (asprintf(&filled, "%s%s", value, rest) < 0) {
        fail("no memory");
    }
    return filled;
}

// SIGCHLD is blocked, so that its arrival can be waited for with a limit.
static bool command_wait(pid_t child, uint64_t timeout_s) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    struct timespec limit = {.tv_sec = (time_t)timeout_s};
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        if (sigtimedwait(&signals, NULL, &limit) < 0 && errno == EAGAIN) {
            fprintf(stderr, "rebuild: the check did not end within %llu s\n", (unsigned long long)timeout_s);
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
            return false;
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool image_check(const struct options *options, const char *image, const char *marks,
                        uint64_t serial) {
    char *arguments[32];
    size_t count = 0;
    do {
        arguments[count] = argument_fill(options->command[count], image, marks, serial);
        count++;
    } while (count < 31 && options->command[count] != NULL);
    arguments[count] = NULL;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    pid_t child = 0;
    errno = posix_spawnp(&child, arguments[0], NULL, &attributes, arguments, environ);
    if (errno != 0) {
        fail("cannot start the check");
    }
    posix_spawnattr_destroy(&attributes);
    bool passed = command_wait(child, options->timeout_s);
    for (size_t i = 0; i < count; i++) {
        free(arguments[i]);
    }
    return passed;
}

// Sectors of one write that were kept or lost together are one line.
static void changes_print(const struct disk *disk, const bool *chosen) {
    unsigned lines = 0;
    for (size_t i = 0; i < disk->change_count && lines < CHANGES_PRINTED; lines++) {
        const struct change *change = &disk->changes[i];
        fprintf(stderr, "    %s: entry %llu: node %u ", chosen[i] ? "kept" : "lost",
                (unsigned long long)change->entry, change->node);
        size_t end = i + 1;
        if (change->kind == CHANGE_SECTOR) {
            while (end < disk->change_count && disk->changes[end].kind == CHANGE_SECTOR &&
                   disk->changes[end].entry == change->entry && chosen[end] == chosen[i]) {
                end++;
            }
            fprintf(stderr, "%zu sectors from %llu\n", end - i, (unsigned long long)change->sector);
        } else if (change->kind == CHANGE_SIZE) {
            fprintf(stderr, "size %llu\n", (unsigned long long)change->size);
        } else {
            fprintf(stderr, "name %.*s\n", (int)change->place.name_size, change->place.name);
        }
        i = end;
    }
}

// What a job works with.
struct job {
    const struct options *options;
    char *image, *marks;
    struct counts counts;
};

static void image_failed(struct job *job, const struct disk *disk, const struct point *point, uint64_t index,
                         const bool *chosen) {
    char *kept = NULL;
    job->counts.failed++;
    fprintf(stderr, "rebuild: image %llu:%llu (seed %llu) failed; %zu changes were not durable\n",
            (unsigned long long)point->entry, (unsigned long long)index,
            (unsigned long long)job->options->seed, disk->change_count);
    changes_print(disk, chosen);
    if (asprintf(&kept, "%s/failed-%llu-%llu", job->options->out, (unsigned long long)point->entry,
                 (unsigned long long)index) < 0) {
        fail("no memory");
    }
    if (!job->options->only) {
        tree_remove(kept);
        if (rename(job->image, kept) != 0) {
            fail("cannot keep an image");
        }
    }
    free(kept);
}

static void image_run(struct job *job, const struct disk *disk, const struct point *point, uint64_t index) {
    struct random random;
    random_seed(&random, hash_u64(hash_u64(job->options->seed) + point->entry) + index);
    bool *chosen = memory(NULL, disk->change_count + 1, sizeof(bool));
    choose(&random, disk, index, chosen);
    choose_in_order(disk, chosen);
    image_build(job->image, disk, chosen);
    marks_build(job->marks, disk);
    job->counts.images++;
    if (!image_check(job->options, job->image, job->marks, job->counts.images)) {
        image_failed(job, disk, point, index, chosen);
    }
    free(chosen);
}

// ---- Choosing ---------------------------------------------------------------------------------------------

static struct point *points;
static size_t point_count;

static void points_find(void) {
    struct disk disk;
    disk_start(&disk);
    size_t room = 0;
    bool started = false;
    for (uint64_t number = 0; number < entry_count; number++) {
        disk_step(&disk, number);
        if (point_matters(number, &started)) {
            if (point_count == room) {
                room = room * 2 + 1024;
                points = memory(points, room, sizeof(struct point));
            }
            points[point_count++] = (struct point){.entry = number, .images = image_count(&disk)};
        }
    }
    disk_end(&disk);
}

// Spends the budget: half on whole points in random order, the other half on a few images of each other point.
static void points_choose(const struct options *options) {
    struct random random;
    random_seed(&random, options->seed);
    uint64_t budget = options->images_max / 2;
    size_t rest = point_count;
    size_t *order = memory(NULL, point_count + 1, sizeof(size_t));
    for (size_t i = 0; i < point_count; i++) {
        size_t j = (size_t)random_below(&random, i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (size_t i = 0; i < point_count; i++) {
        struct point *point = &points[order[i]];
        if (options->images_max == 0 || point->images <= budget) {
            budget -= options->images_max == 0 ? 0 : point->images;
            point->exhaustive = true;
            point->chosen = point->images;
            rest--;
        }
    }
    budget += options->images_max / 2;
    for (size_t i = 0; i < point_count; i++) {
        if (!points[i].exhaustive) {
            uint64_t share = budget / rest + random_chance(&random, budget % rest, rest);
            points[i].chosen = at_most(share, points[i].images);
        }
    }
    free(order);
}

// The index of the i-th image that is built of a point.
static uint64_t point_index(const struct options *options, const struct point *point, uint64_t i) {
    if (point->exhaustive) {
        return i;
    }
    struct random random;
    random_seed(&random, hash_u64(options->seed + point->entry) + i);
    return random_below(&random, point->images);
}

static void marks_load(struct disk *disk, const char *path) {
    unsigned char bytes[4096];
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        fail("cannot read the marks");
    }
    for (size_t size = fread(bytes, 1, sizeof(bytes), file); size > 0;
         size = fread(bytes, 1, sizeof(bytes), file)) {
        on_mark(disk, bytes, size);
    }
    fclose(file);
}

static void job_run(struct job *job, uint64_t number) {
    const struct options *options = job->options;
    if (asprintf(&job->image, "%s/image-%llu", options->out, (unsigned long long)number) < 0 ||
        asprintf(&job->marks, "%s/marks-%llu", options->out, (unsigned long long)number) < 0) {
        fail("no memory");
    }
    struct disk disk;
    disk_start(&disk);
    if (options->marks != NULL) {
        marks_load(&disk, options->marks);
    }
    uint64_t serial = 0;
    uint64_t entry = 0;
    for (size_t p = 0; p < point_count && job->counts.failed < FAILURES_MAX; p++) {
        for (; entry <= points[p].entry; entry++) {
            disk_step(&disk, entry);
        }
        if (options->only) {
            if (points[p].entry == options->only_point) {
                image_run(job, &disk, &points[p], options->only_index);
            }
            continue;
        }
        for (uint64_t i = 0; i < points[p].chosen && job->counts.failed < FAILURES_MAX; i++) {
            if (serial++ % options->jobs == number) {
                image_run(job, &disk, &points[p], point_index(options, &points[p], i));
            }
        }
    }
    disk_end(&disk);
    if (!options->only) {
        tree_remove(job->image);
        unlink(job->marks);
    }
}

// Each job is a process of its own and tells its counts through a pipe.
static int job_start(const struct options *options, uint64_t number) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        fail("cannot start a job");
    }
    pid_t child = fork();
    if (child < 0) {
        fail("cannot start a job");
    }
    if (child == 0) {
        struct job job = {.options = options};
        job_run(&job, number);
        bool told = write(ends[1], &job.counts, sizeof(job.counts)) == (ssize_t)sizeof(job.counts);
        _exit(told ? 0 : 2);
    }
    close(ends[1]);
    return ends[0];
}

static void jobs_run(const struct options *options, struct counts *total) {
    int *jobs = memory(NULL, options->jobs, sizeof(int));
    for (uint64_t i = 0; i < options->jobs; i++) {
        jobs[i] = job_start(options, i);
    }
    for (uint64_t i = 0; i < options->jobs; i++) {
        struct counts counts;
        if (read(jobs[i], &counts, sizeof(counts)) != (ssize_t)sizeof(counts)) {
            errno = 0;
            fail("a job died");
        }
        total->images += counts.images;
        total->failed += counts.failed;
        close(jobs[i]);
        wait(NULL);
    }
    free(jobs);
}

// ---- Start ------------------------------------------------------------------------------------------------

static int usage(void) {
    fprintf(stderr,
            "usage: rebuild --trace FILE --out DIR [--seed N] [--images N] [--jobs N] [--timeout-s N]\n"
            "               [--only POINT:INDEX] [--marks FILE] -- COMMAND [ARGUMENT...]\n"
            "       rebuild --trace FILE [--seed N] [--images N] --count\n");
    return 2;
}

static bool options_parse(int argc, char **argv, struct options *options) {
    *options = (struct options){.seed = 1, .jobs = 1, .timeout_s = 60};
    int i = 1;
    if (strcmp(argv[argc - 1], "--count") == 0) {
        options->count = true;
        argc--;
    }
    for (; i + 1 < argc && strcmp(argv[i], "--") != 0; i += 2) {
        char *value = argv[i + 1];
        if (strcmp(argv[i], "--trace") == 0) {
            options->trace = value;
        } else if (strcmp(argv[i], "--out") == 0) {
            options->out = value;
        } else if (strcmp(argv[i], "--marks") == 0) {
            options->marks = value;
        } else if (strcmp(argv[i], "--seed") == 0) {
            options->seed = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--images") == 0) {
            options->images_max = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--jobs") == 0) {
            options->jobs = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--timeout-s") == 0) {
            options->timeout_s = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--only") == 0) {
            options->only = true;
            options->only_point = strtoull(value, &value, 10);
            options->only_index = *value == ':' ? strtoull(value + 1, NULL, 10) : 0;
        } else {
            return false;
        }
    }
    options->command = i + 1 < argc ? argv + i + 1 : NULL;
    options->jobs = options->only ? 1 : options->jobs;
    bool complete = options->count || (options->out != NULL && options->command != NULL);
    return options->trace != NULL && complete && options->jobs > 0;
}

static void trace_map(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) != 0 || stat.st_size == 0) {
        fail("cannot read the trace");
    }
    trace_size = (size_t)stat.st_size;
    trace_bytes = mmap(NULL, trace_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (trace_bytes == MAP_FAILED) {
        fail("cannot read the trace");
    }
    close(fd);
    trace_index();
}

int main(int argc, char **argv) {
    struct options options;
    if (!options_parse(argc, argv, &options)) {
        return usage();
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    trace_map(options.trace);
    points_find();
    points_choose(&options);
    struct counts total = {.points = point_count};
    for (size_t i = 0; i < point_count; i++) {
        total.exhaustive += points[i].exhaustive;
        total.images += options.count ? points[i].chosen : 0;
    }
    if (!options.count) {
        jobs_run(&options, &total);
    }
    printf("points %llu exhaustive %llu images %llu failed %llu\n", (unsigned long long)total.points,
           (unsigned long long)total.exhaustive, (unsigned long long)total.images,
           (unsigned long long)total.failed);
    if (total.images == 0) {
        fprintf(stderr, "rebuild: there was nothing to build\n");
        return 1;
    }
    return total.failed == 0 ? 0 : 1;
}
