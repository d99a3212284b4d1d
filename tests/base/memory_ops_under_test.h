// base/memory_ops.cc compiled under other names, so that the test compares it with libc's.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>

extern "C" {
void* zps_test_memcpy(void* to, const void* from, size_t count);
void* zps_test_memmove(void* to, const void* from, size_t count);
void* zps_test_memset(void* to, int value, size_t count);
int zps_test_memcmp(const void* left, const void* right, size_t count);
}
