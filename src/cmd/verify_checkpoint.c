// SPDX-License-Identifier: Apache-2.0
/*
 * verify_checkpoint.c: looks at everything that the superblock leads to, and goes on after each problem as far as what is
 * left allows.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/crc.h"
#include "cmd/superblock_read.h"
#include "cmd/verify.h"
#include "world/register_file.h"

const char *const todo_restore = "restore the shelf, or this region, from a dump or a copy; check the device";
const char *const todo_nothing = "nothing has to be done";
const char *const todo_repaired = "nothing has to be done: the next open repairs it";

/* ---- Superblock ---------------------------------------------------------------------------------------------------- */

static void superblock_report(struct verify *verify, const struct superblock_report *report) {
    struct findings *findings = &verify->findings;
    if (report->newer) {
        finding_add(findings, SEVERITY_DAMAGE, "superblock", 0, 0, "use the version of Shelf that wrote it",
                    "it was written by a newer version of Shelf");
        return;
    }
    for (uint32_t i = 0; i < SUPERBLOCK_COPIES; i++) {
        if (report->copies[i] != COPY_GOOD) {
            finding_add(findings, report->chosen < 0 ? SEVERITY_DAMAGE : SEVERITY_HARMLESS, "superblock",
                        (uint64_t)i * SUPERBLOCK_SIZE, 0, report->chosen < 0 ? todo_restore : todo_repaired,
                        "copy %u of four %s", i, copy_state_text(report->copies[i]));
        }
    }
    if (report->chosen < 0) {
        finding_add(
            findings, SEVERITY_DAMAGE, "superblock", 0, 0, todo_restore,
            "no two of its four copies are right and agree, so nothing leads to the rest of the checkpoint");
    } else if (!report->is_sane) {
        finding_add(findings, SEVERITY_DAMAGE, "superblock", (uint64_t)report->chosen * SUPERBLOCK_SIZE, 0,
                    todo_restore, "its checksum is right, but its values make no sense");
    }
}

static void superblock_verify(struct verify *verify) {
    uint8_t bytes[SUPERBLOCK_COPIES * SUPERBLOCK_SIZE];
    char text[DISK_TEXT_MAX];
    struct superblock_report report;
    struct disk_file file = disk_file_open(&verify->disk, "superblock");
    enum disk_result result = disk_read(&file, 0, bytes, sizeof(bytes));
    if (result != DISK_OK) {
        finding_add(&verify->findings, SEVERITY_DAMAGE, file.name, file.length, 0, todo_restore, "it %s",
                    disk_result_text(&file, result, text));
    }
    disk_file_close(&file);
    superblock_examine(bytes, &report, &verify->superblock);
    superblock_report(verify, &report);
    verify->superblock_known = !report.newer && report.chosen >= 0 && report.is_sane;
}

/* ---- Roots --------------------------------------------------------------------------------------------------------- */

static bool roots_verify(struct verify *verify) {
    const struct superblock *superblock = &verify->superblock;
    char text[DISK_TEXT_MAX], why[DISK_TEXT_MAX];
    uint64_t offset = 0;
    struct disk_file file =
        disk_file_open(&verify->disk, superblock->roots_slot == 0 ? "roots.a" : "roots.b");
    enum disk_result result = file.fd >= 0 && file.length < superblock->roots_size ? DISK_SHORT : DISK_OK;
    if (result == DISK_OK) {
        verify->roots = file.fd >= 0 ? malloc(superblock->roots_size) : NULL;
        result = verify->roots ? disk_read(&file, 0, verify->roots, superblock->roots_size) : DISK_MISSING;
    }
    bool right = result == DISK_OK && roots_parse(verify->roots, superblock, &verify->regions,
                                                  &verify->region_count, text, &offset);
    if (!right) {
        finding_add(&verify->findings, SEVERITY_DAMAGE, file.name, offset, superblock->index, todo_restore,
                    "%s%s", result == DISK_OK ? "" : "it ",
                    result == DISK_OK ? text : disk_result_text(&file, result, why));
    }
    disk_file_close(&file);
    return right;
}

/* ---- Tables and pages ---------------------------------------------------------------------------------------------- */

/* Bad pages that follow one another are one finding. */
struct page_run {
    struct verify *verify;
    uint64_t first, count;
    uint8_t state, slot;
};

static void page_run_end(struct page_run *run, const struct disk_region *region) {
    static const char *const texts[] = {[PAGE_CHECKSUM] = "failing their checksums",
                                        [PAGE_UNREADABLE] = "missing from the file, or not readable",
                                        [PAGE_SLOT] = "with a place in the table that there is not"};
    char file[64];
    if (run->count == 0) {
        return;
    }
    if (run->state == PAGE_SLOT) {
        (void)snprintf(file, sizeof(file), "table.%u", region->number);
    } else {
        (void)snprintf(file, sizeof(file), "pages.%u.%c", region->number, run->slot == SLOT_B ? 'b' : 'a');
    }
    finding_add(&run->verify->findings, SEVERITY_DAMAGE, file,
                run->state == PAGE_SLOT ? run->first / TABLE_BLOCK_PAGES * 2 * TABLE_BLOCK_SIZE
                                        : run->first * PAGE_SIZE,
                run->verify->superblock.index, todo_restore,
                "%llu page%s from number %llu on of region %u, %s", (unsigned long long)run->count,
                run->count == 1 ? "" : "s", (unsigned long long)run->first, region->number,
                texts[run->state]);
    run->count = 0;
}

static bool state_is_bad(uint8_t state) {
    return state == PAGE_CHECKSUM || state == PAGE_UNREADABLE || state == PAGE_SLOT;
}

static bool on_chunk(void *context, const struct disk_region *region, const struct region_chunk *chunk) {
    struct page_run *run = context;
    struct verify *verify = run->verify;
    for (uint32_t i = 0; i < chunk->count; i++) {
        uint8_t state = chunk->states[i];
        bool goes_on = run->count > 0 && state == run->state && chunk->slots[i] == run->slot &&
                       run->first + run->count == chunk->page + i;
        if (!goes_on) {
            page_run_end(run, region);
        }
        if (state_is_bad(state)) {
            run->first = run->count == 0 ? chunk->page + i : run->first;
            run->count++;
            run->state = state;
            run->slot = chunk->slots[i];
        }
        verify->pages_checked += state != PAGE_ZERO && state != PAGE_UNKNOWN;
        if (region->number == REGION_SYSTEM && state != PAGE_GOOD && state != PAGE_ZERO) {
            verify->system_whole = false;
        }
    }
    if (region->number == REGION_SYSTEM && verify->system) {
        memcpy(verify->system + chunk->page * PAGE_SIZE, chunk->bytes, (size_t)chunk->count * PAGE_SIZE);
    }
    progress_add(&verify->progress, (uint64_t)chunk->count * PAGE_SIZE);
    return !interrupt_seen();
}

static void on_block(void *context, const struct disk_region *region, uint64_t block, uint64_t offset,
                     const char *text) {
    const struct page_run *run = context;
    char file[64];
    uint64_t first = block * TABLE_BLOCK_PAGES, end = min_u64(region->page_count, first + TABLE_BLOCK_PAGES);
    (void)snprintf(file, sizeof(file), "table.%u", region->number);
    finding_add(&run->verify->findings, SEVERITY_DAMAGE, file, offset, run->verify->superblock.index,
                todo_restore, "block %llu %s: nothing is known of pages %llu to %llu of region %u",
                (unsigned long long)block, text, (unsigned long long)first, (unsigned long long)end - 1,
                region->number);
}

static void pages_verify(struct verify *verify, const struct disk_region *region) {
    struct page_run run = {.verify = verify};
    struct region_walker walker = {.on_chunk = on_chunk, .on_block = on_block, .context = &run};
    (void)region_walk(&verify->disk, region, &walker);
    page_run_end(&run, region);
}

/* ---- Catalog ------------------------------------------------------------------------------------------------------- */

static const struct disk_region *region_of(const struct verify *verify, uint32_t number) {
    for (size_t i = 0; i < verify->region_count; i++) {
        if (verify->regions[i].number == number) {
            return &verify->regions[i];
        }
    }
    return NULL;
}

static void catalog_entry_verify(struct verify *verify, const struct catalog_entry *entry, uint32_t place) {
    char what[FINDING_WHAT_MAX] = "";
    const struct disk_region *region = region_of(verify, entry->region);
    uint64_t size = region ? region->page_count * PAGE_SIZE : 0;
    if (!catalog_entry_is_sane(entry)) {
        (void)snprintf(what, sizeof(what), "its values make no sense");
    } else if (!region) {
        (void)snprintf(what, sizeof(what), "region %u is not in the checkpoint", entry->region);
    } else if (size != entry->size) {
        (void)snprintf(what, sizeof(what), "region %u has %llu bytes, the checkpoint has %llu of it",
                       entry->region, (unsigned long long)entry->size, (unsigned long long)size);
    } else if (catalog_find_name(verify->system, entry->name) != entry ||
               catalog_find_number(verify->system, entry->region) != entry) {
        (void)snprintf(what, sizeof(what), "another entry has its name or number");
    }
    if (what[0]) {
        finding_add(&verify->findings, SEVERITY_DAMAGE, "", FINDING_NOWHERE, verify->superblock.index,
                    todo_restore, "catalog of regions (region 1, offset %llu): %s",
                    (unsigned long long)(SYSTEM_CATALOG_OFFSET + place * sizeof(*entry)), what);
    }
}

static void catalog_verify(struct verify *verify) {
    for (uint32_t place = 0; place < SHELF_REGIONS_MAX; place++) {
        const struct catalog_entry *entry = catalog_at(verify->system, place);
        if (entry) {
            catalog_entry_verify(verify, entry, place);
        }
    }
    for (size_t i = 1; i < verify->region_count; i++) {
        if (!catalog_find_number(verify->system, verify->regions[i].number)) {
            finding_add(&verify->findings, SEVERITY_DAMAGE, "", FINDING_NOWHERE, verify->superblock.index,
                        todo_restore, "region %u is in the checkpoint, but not in the catalog of regions",
                        verify->regions[i].number);
        }
    }
}

void verify_checkpoint(struct verify *verify) {
    superblock_verify(verify);
    if (!verify->superblock_known || !roots_verify(verify)) {
        return;
    }
    verify->system = calloc(1, SYSTEM_REGION_BYTES);
    verify->system_whole = verify->system != NULL;
    for (size_t i = 0; i < verify->region_count && !interrupt_seen(); i++) {
        verify->progress.total += verify->regions[i].page_count * PAGE_SIZE;
    }
    for (size_t i = 0; i < verify->region_count && !interrupt_seen(); i++) {
        pages_verify(verify, &verify->regions[i]);
    }
    if (verify->system_whole) {
        catalog_verify(verify);
    }
}

/* ---- Other files --------------------------------------------------------------------------------------------------- */

/* One slot may be torn; without any valid one the node does not open. */
static void configuration_verify(struct verify *verify) {
    struct disk_file file = disk_file_open(&verify->disk, "configuration");
    bool valid[REGISTER_SLOT_COUNT];
    for (uint32_t slot = 0; slot < REGISTER_SLOT_COUNT && file.length > 0; slot++) {
        uint8_t bytes[REGISTER_SLOT_SIZE];
        valid[slot] =
            disk_read(&file, (uint64_t)slot * REGISTER_SLOT_SIZE, bytes, sizeof(bytes)) == DISK_OK &&
            register_slot_valid(bytes);
    }
    bool any = file.length > 0 && (valid[0] || valid[1]);
    for (uint32_t slot = 0; slot < REGISTER_SLOT_COUNT && file.length > 0; slot++) {
        if (!valid[slot]) {
            finding_add(&verify->findings, any ? SEVERITY_HARMLESS : SEVERITY_DAMAGE, file.name,
                        (uint64_t)slot * REGISTER_SLOT_SIZE, 0,
                        any ? todo_repaired : "remove the file: the log has what is needed",
                        "slot %u of two fails its checksum", slot);
        }
    }
    if (file.length == 0 && verify->superblock_known && verify->superblock.epoch > 0) {
        finding_add(&verify->findings, SEVERITY_HARMLESS, file.name, FINDING_NOWHERE, 0, todo_repaired,
                    "it is missing or empty");
    }
    disk_file_close(&file);
}

/* The region whose file this is; 0: of none. */
static uint32_t name_region(const char *name) {
    if (strncmp(name, "table.", 6) != 0 && strncmp(name, "pages.", 6) != 0) {
        return 0;
    }
    unsigned long number = strtoul(name + 6, NULL, 10);
    return number < REGION_NUMBERS ? (uint32_t)number : 0;
}

/* Files of regions that neither the checkpoint nor the log knows: what a crash left. */
static void leftovers_verify(struct verify *verify) {
    int fd = openat(verify->disk.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
    if (!directory) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        uint32_t number = name_region(entry->d_name);
        if (number > REGION_SYSTEM && !region_of(verify, number) &&
            !catalog_find_number(verify->system, number)) {
            finding_add(&verify->findings, SEVERITY_HARMLESS, entry->d_name, FINDING_NOWHERE, 0,
                        "nothing has to be done: the next open removes it", "it belongs to no region");
        }
    }
    (void)closedir(directory);
}

void verify_directory(struct verify *verify) {
    configuration_verify(verify);
    if (verify->system_whole && verify->regions && verify->log.is_whole) {
        leftovers_verify(verify);
    }
}
