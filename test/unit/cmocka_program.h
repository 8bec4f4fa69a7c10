// SPDX-License-Identifier: Apache-2.0
//
// cmocka with the headers that it wants before itself.

#ifndef SHELF_TEST_CMOCKA_PROGRAM_H
#define SHELF_TEST_CMOCKA_PROGRAM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
