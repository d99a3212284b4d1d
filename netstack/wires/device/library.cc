// What the library of the drivers has beside them: their thread-local variables, and the event descriptors of their interrupts.
// SPDX-License-Identifier: BSD-3-Clause
//
// The drivers are in a library of their own, which is loaded when a program asks for a device and uses the DPDK of the core. A program with
// another wire has nothing of them: no relocations, no constructors, no memory.
//
// Thread-local variables. Each thread of the program may run a driver, and none may have ld.so allocate for it (shim/thread_storage.h). The
// drivers write their errors into such a variable and read the number of their core; one of each is enough for all threads, because the
// stack's lock is around every use, and nobody reads the errors.
//
// Event descriptors. A driver makes those of its interrupts when it starts and closes them when it stops. It stops and starts when a
// member of the family has died in it; the others have the first ones, and the kernel knows them by number. So they stay.
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/eventfd.h>

extern "C" {

int zps_dpdk_eventfd(unsigned value, int flags);

thread_local int per_lcore__rte_errno = 0;
thread_local unsigned per_lcore__lcore_id = 0;
thread_local void* per_lcore_trace_mem = nullptr;
thread_local int per_lcore_trace_point_sz = 0;

// As compilers ask for a thread-local variable: whose, and where in that library's segment. All are of this one.
struct VariableIndex {
  uint64_t module, offset;
};
[[gnu::visibility("hidden")]] void* __tls_get_addr(const VariableIndex* index) {
  alignas(16) static char variables[64];
  return variables + index->offset;
}

// The library reads firmware through libarchive, which would come with it.
int rte_firmware_read(const char* name, void** out, size_t* bytes) {
  FILE* file = fopen(name, "rbe");
  if (file == nullptr) return -1;
  *out = nullptr;
  long size = -1;
  if (fseek(file, 0, SEEK_END) == 0) size = ftell(file);
  if (size > 0 && fseek(file, 0, SEEK_SET) == 0) *out = malloc(static_cast<size_t>(size));
  *bytes = *out == nullptr ? 0 : fread(*out, 1, static_cast<size_t>(size), file);
  (void)fclose(file);
  if (*out != nullptr && *bytes == static_cast<size_t>(size)) return 0;
  free(*out);
  return -1;
}

}  // extern "C"

namespace {

constexpr int kMostKept = 8;
int kept[kMostKept] = {-1, -1, -1, -1, -1, -1, -1, -1};

}  // namespace

extern "C" {

int zps_device_eventfd(unsigned value, int flags) {
  for (int& fd : kept) {
    if (fd < 0) continue;
    const int again = fd;
    fd = -1;
    return again;
  }
  return zps_dpdk_eventfd(value, flags);
}

int zps_device_close(int fd) {
  for (int& place : kept) {
    if (place >= 0) continue;
    place = fd;
    return 0;
  }
  return -EMFILE;
}

}  // extern "C"
