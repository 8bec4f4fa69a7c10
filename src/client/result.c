// SPDX-License-Identifier: Apache-2.0
/*
 * result.c: names and sentences of results, from the one list in shelf.h.
 */
#include "base/detail.h"
#include "shelf.h"

const char *shelf_version(void) {
    return SHELF_VERSION;
}

const char *shelf_result_name(shelf_result result) {
    switch (result) {
#define X(name, code, text) \
    case SHELF_##name:      \
        return #name;
        SHELF_RESULT_LIST(X)
#undef X
    }
    return "?";
}

const char *shelf_result_text(shelf_result result) {
    switch (result) {
#define X(name, code, text) \
    case SHELF_##name:      \
        return text;
        SHELF_RESULT_LIST(X)
#undef X
    }
    return "?";
}

const char *shelf_detail(void) {
    return detail_text();
}
