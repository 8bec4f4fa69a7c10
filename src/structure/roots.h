// SPDX-License-Identifier: Apache-2.0
//
// Roots as the map and the stream use them: their headers are named like everybody's.

#ifndef SHELF_STRUCTURE_ROOTS_H
#define SHELF_STRUCTURE_ROOTS_H

#include "structure/space.h"

// OK: a root of that name can be made. EXISTS, INVALID, NO_SPACE.
shelf_result root_vacant(shelf_tx *tx, shelf_region region, const char *name);

#endif
