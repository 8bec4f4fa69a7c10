// SPDX-License-Identifier: Apache-2.0
/*
 * region.c: regions by name and number. The node keeps the catalog; changes of it are requests like commits are.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/detail.h"
#include "client/handle.h"

#define SIZE_MAX_DEFAULT ((uint64_t)64 << 30)

shelf_result name_check(const char *what, const char *name) {
    size_t size = name ? strnlen(name, SHELF_NAME_MAX + 1) : 0;
    if (size == 0 || size > SHELF_NAME_MAX) {
        detail_set("a %s's name has 1 to %u bytes", what, SHELF_NAME_MAX);
        return SHELF_INVALID;
    }
    for (size_t i = 0; i < size; i++) {
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) {
            detail_set("byte %zu of the %s's name is a control character", i, what);
            return SHELF_INVALID;
        }
    }
    return SHELF_OK;
}

static shelf_result sizes_complete(uint64_t *size, uint64_t *size_max) {
    if (*size == 0) {
        detail_set("a region has at least one byte");
        return SHELF_INVALID;
    }
    if (*size > SHELF_REGION_BYTES_MAX || *size_max > SHELF_REGION_BYTES_MAX) {
        detail_set("a region has at most %" PRIu64 " bytes", SHELF_REGION_BYTES_MAX);
        return SHELF_TOO_LARGE;
    }
    *size = (*size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
    *size_max = (*size_max + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
    if (*size_max == 0)
        *size_max = *size > SIZE_MAX_DEFAULT ? *size : SIZE_MAX_DEFAULT;
    if (*size_max < *size) {
        detail_set("the region's size is over the limit to which it may grow");
        return SHELF_INVALID;
    }
    return SHELF_OK;
}

shelf_result shelf_region_create(struct shelf *s, const char *name, uint64_t size, uint64_t size_max,
                                 shelf_region *ret_region) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK)
        result = name_check("region", name);
    if (result == SHELF_OK)
        result = sizes_complete(&size, &size_max);
    if (result != SHELF_OK)
        return result;
    struct region_request request = {
        .header = {.size = sizeof(request), .kind = REQUEST_REGION_CREATE},
        .owner = geteuid(),
        .group = getegid(),
        .mode = 0660,
        .size = size,
        .size_max = size_max,
    };
    memcpy(request.name, name, strlen(name) + 1);
    struct reply reply;
    result = handle_call(s, &request, sizeof(request), &reply);
    if (result == SHELF_OK)
        *ret_region = (shelf_region)reply.region;
    return result;
}

static shelf_result region_find(struct shelf *s, const char *name, struct shelf_region_info *ret_info) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK)
        result = name_check("region", name);
    if (result == SHELF_OK)
        result = service_region_find(s->service, name, ret_info);
    return result;
}

/* So that a program hears at once of what it may not read. */
static shelf_result region_touch(struct shelf *s, shelf_region region) {
    shelf_result result;
    do {
        struct shelf_tx *tx;
        result = tx_begin(&s->host, SHELF_READ_ONLY, &tx);
        if (result != SHELF_OK)
            return result;
        result = tx_range_check(tx, shelf_addr_make(region, 0), 1);
        tx_end(tx);
    } while (result == SHELF_CONFLICT); /* the node was replaced meanwhile */
    return result;
}

shelf_result shelf_region_open(struct shelf *s, const char *name, shelf_region *ret_region) {
    struct shelf_region_info info;
    shelf_result result = region_find(s, name, &info);
    if (result == SHELF_OK)
        result = region_touch(s, info.region);
    if (result == SHELF_OK)
        *ret_region = info.region;
    return result;
}

shelf_result shelf_region_grow(struct shelf *s, shelf_region region, uint64_t size) {
    struct shelf_region_info info;
    shelf_result result = shelf_region_info_get(s, region, &info);
    if (result != SHELF_OK)
        return result;
    if (size > info.size_max) {
        detail_set("region %u may grow to %" PRIu64 " bytes, as it was created", region, info.size_max);
        return SHELF_TOO_LARGE;
    }
    if (size <= info.size)
        return SHELF_OK;
    struct region_request request = {
        .header = {.size = sizeof(request), .kind = REQUEST_REGION_GROW},
        .region = region,
        .size = (size + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE,
    };
    struct reply reply;
    return handle_call(s, &request, sizeof(request), &reply);
}

shelf_result shelf_region_drop(struct shelf *s, const char *name) {
    struct shelf_region_info info;
    shelf_result result = region_find(s, name, &info);
    if (result != SHELF_OK)
        return result;
    struct region_request request = {
        .header = {.size = sizeof(request), .kind = REQUEST_REGION_DROP},
        .region = info.region,
    };
    struct reply reply;
    return handle_call(s, &request, sizeof(request), &reply);
}

shelf_result shelf_region_info_get(struct shelf *s, shelf_region region, struct shelf_region_info *ret_info) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK)
        result = service_region_get(s->service, region, ret_info);
    return result;
}

shelf_result shelf_region_list(struct shelf *s, struct shelf_region_info *ret_infos, size_t count_max,
                               size_t *ret_count) {
    shelf_result result = handle_check(s);
    if (result == SHELF_OK)
        result = service_region_list(s->service, ret_infos, count_max, ret_count);
    return result;
}

shelf_result shelf_region_access(struct shelf *s, shelf_region region, uint32_t owner, uint32_t group,
                                 uint32_t mode) {
    shelf_result result = handle_check(s);
    if (result != SHELF_OK)
        return result;
    struct region_request request = {
        .header = {.size = sizeof(request), .kind = REQUEST_REGION_ACCESS},
        .region = region,
        .owner = owner,
        .group = group,
        .mode = mode,
    };
    struct reply reply;
    return handle_call(s, &request, sizeof(request), &reply);
}
