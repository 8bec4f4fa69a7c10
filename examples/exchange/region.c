// SPDX-License-Identifier: Apache-2.0
/* region.c: see region.h. */
#include "region.h"

#include <string.h>

#include "try.h"

shelf_result region_take(shelf *s, const char *name, uint64_t size, bool create, shelf_region *ret_region) {
    shelf_result result = shelf_region_open(s, name, ret_region);
    if (result != SHELF_NOT_FOUND || !create)
        return result;
    result = shelf_region_create(s, name, size, 0, ret_region);
    return result == SHELF_EXISTS ? shelf_region_open(s, name, ret_region) : result;
}

/* Two may do this at once: what both ask for is the same size. */
shelf_result region_double(shelf *s, shelf_region region) {
    struct shelf_region_info info;
    TRY(shelf_region_info_get(s, region, &info));
    return shelf_region_grow(s, region, info.size * 2);
}

shelf_result root_add(shelf_tx *tx, shelf_region region, const char *name, uint64_t type, uint64_t layout,
                      shelf_addr address) {
    struct shelf_root root = {.type = type, .layout = layout, .address = address};
    strncpy(root.name, name, SHELF_NAME_MAX);
    return shelf_root_set(tx, region, &root);
}
