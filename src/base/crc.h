// SPDX-License-Identifier: Apache-2.0
//
// CRC-32C (Castagnoli), the checksum of everything that Shelf writes to disk.

#ifndef SHELF_BASE_CRC_H
#define SHELF_BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

// Start with seed 0; to go on where another piece ended, give that piece's result as the seed:
// crc32c(crc32c(0, a), b) is the checksum of a followed by b.
uint32_t crc32c(uint32_t seed, const void *data, size_t size);

// The implementations behind it, for tests. A hardware one may be called only where it is named.
typedef uint32_t crc32c_function(uint32_t seed, const void *data, size_t size);

uint32_t crc32c_portable(uint32_t seed, const void *data, size_t size);
crc32c_function *crc32c_hardware(void); // NULL when this machine has none
const char *crc32c_name(void);          // of the one in use

#endif
