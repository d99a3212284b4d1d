// Functions of libnuma and libbsd that EAL calls: no NUMA placement here, and two string functions.
// SPDX-License-Identifier: BSD-3-Clause
#include <cstddef>
#include <cstring>

extern "C" {

int numa_available() { return -1; }
void* numa_allocate_nodemask() { return nullptr; }
void numa_bitmask_free(void*) {}
void numa_set_localalloc() {}
void numa_set_preferred(int) {}
int get_mempolicy(int*, unsigned long*, unsigned long, void*, unsigned) { return -1; }
long set_mempolicy(int, const unsigned long*, unsigned long) { return -1; }

size_t strlcpy(char* to, const char* from, size_t capacity) {
  const size_t length = strlen(from);
  if (capacity > 0) {
    const size_t kept = length < capacity ? length : capacity - 1;
    memcpy(to, from, kept);
    to[kept] = '\0';
  }
  return length;
}

size_t strlcat(char* to, const char* from, size_t capacity) {
  const size_t before = strnlen(to, capacity);
  return before + (before == capacity ? strlen(from) : strlcpy(to + before, from, capacity - before));
}

}  // extern "C"
