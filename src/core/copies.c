// SPDX-License-Identifier: Apache-2.0
/*
 * copies.c: pages as they were when the running checkpoint began, kept because a record has changed them since (P2).
 *
 * They wait for the walk over the pending pages, which takes them from here instead of from the image. So a checkpoint is
 * written in large pieces, however many of its pages change meanwhile. A hash table with chains, by region and page.
 */
#include "core/state.h"

void copies_init(struct copies *copies) {
    copies->free_first = 0;
    for (uint32_t i = 0; i < copies->max; i++) {
        copies->heads[i] = copies->max;
        copies->pages[i].next = i + 1;
    }
}

static uint32_t *chain_head(const struct copies *copies, uint32_t region_place, uint64_t page) {
    return &copies->heads[hash_fold(page ^ HASH_SECRET_0, region_place ^ HASH_SECRET_1) & (copies->max - 1)];
}

/* What leads to the page in its chain; to the chain's end, if it is not there. */
static uint32_t *chain_link(const struct copies *copies, uint32_t region_place, uint64_t page) {
    uint32_t *link = chain_head(copies, region_place, page);
    while (*link != copies->max &&
           (copies->pages[*link].page != page || copies->pages[*link].region_place != region_place)) {
        link = &copies->pages[*link].next;
    }
    return link;
}

bool copies_has(const struct copies *copies, uint32_t region_place, uint64_t page) {
    return copies->count > 0 && *chain_link(copies, region_place, page) != copies->max;
}

void copies_add(struct copies *copies, uint32_t region_place, uint64_t page, const uint8_t *bytes) {
    ASSERT(copies->count < copies->max);
    uint32_t *head = chain_head(copies, region_place, page), at = copies->free_first;
    struct copied_page *copied = &copies->pages[at];
    copies->free_first = copied->next;
    copied->region_place = region_place;
    copied->page = page;
    copied->next = *head;
    memcpy(copied->bytes, bytes, PAGE_SIZE);
    *head = at;
    copies->count++;
}

bool copies_take(struct copies *copies, uint32_t region_place, uint64_t page, uint8_t *to) {
    uint32_t *link = copies->count > 0 ? chain_link(copies, region_place, page) : NULL;
    if (link == NULL || *link == copies->max) {
        return false;
    }
    uint32_t at = *link;
    struct copied_page *copied = &copies->pages[at];
    memcpy(to, copied->bytes, PAGE_SIZE);
    *link = copied->next;
    copied->next = copies->free_first;
    copies->free_first = at;
    copies->count--;
    return true;
}
