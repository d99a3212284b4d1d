// What DPDK calls of libnuma, libbsd and libm, so that none of these libraries is loaded (0.9 MB of address space with libm alone), and
// EAL's errno.
// SPDX-License-Identifier: BSD-3-Clause
//
// No NUMA placement here, two string functions, and what DPDK's telemetry would tell of the light in a transceiver, which nobody asks.
#include <cstddef>
#include <cstring>

#pragma GCC visibility push(default)
extern "C" {

int numa_available() { return -1; }
void* numa_allocate_nodemask() { return nullptr; }
void numa_bitmask_free(void*) {}
void numa_set_localalloc() {}
void numa_set_preferred(int) {}
int get_mempolicy(int*, unsigned long*, unsigned long, void*, unsigned) { return -1; }
long set_mempolicy(int, const unsigned long*, unsigned long) { return -1; }

double log10(double) { return 0; }

// EAL's own keeps 256 bytes per thread for the text; it is only printed where the number is known too.
thread_local int per_lcore__rte_errno = 0;
const char* rte_strerror(int) { return "see the number"; }

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
#pragma GCC visibility pop
