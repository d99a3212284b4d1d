// What the library of the drivers has beside them: their thread-local variables, and the event descriptors of their interrupts.
// SPDX-License-Identifier: BSD-3-Clause
//
// The drivers are in a library of their own, which is loaded when a program asks for a device and uses the DPDK of the core. A program with
// another wire has nothing of them: no relocations, no constructors, no memory.
//
// Thread-local variables. All that drivers read and write are the core's, which knows where they are (shim/thread_storage.h); there are
// none in here but the one of EAL's epoll_wait(), which nobody calls.
//
// Event descriptors. A driver makes those of its interrupts when it starts and closes them when it stops. It stops and starts when a
// member of the family has died in it; the others have the first ones, and the kernel knows them by number. So they stay.
//
// Memory. What EAL has to give after a fork is not the same in all members, because the heads of its heap are private to each. virtio's
// driver does not give its rings up at a stop and has to be set up anew, which frees and takes the same again: it gets the same again.
//
// Threads. There are none (docs/decisions/no-dpdk-thread.md). ixgbe's driver makes one when it finds the link of a fibre down, to set it
// up, and takes the link for down until that has run. Here it runs where it is asked for: some tenths of a second in which nothing else
// happens, while the link is down.
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/eventfd.h>

struct rte_intr_handle;
struct rte_memzone;

extern "C" {

// The core's.
void* zps_thread_variable(const void* index);
int zps_dpdk_eventfd(unsigned value, int flags);
int rte_intr_nb_efd_get(rte_intr_handle* handle);
const rte_memzone* rte_memzone_lookup(const char* name);
const rte_memzone* rte_memzone_reserve_aligned(const char* name, size_t bytes, int socket, unsigned flags, unsigned align);
void* rte_zmalloc_socket(const char* type, size_t bytes, unsigned align, int socket);
// Of EAL's member for interrupts.
int zps_device_efd_enable(rte_intr_handle* handle, uint32_t count);
void rte_intr_efd_disable(rte_intr_handle* handle);

[[gnu::visibility("hidden")]] void* __tls_get_addr(const void* index) { return zps_thread_variable(index); }

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

struct Block {
  void* memory;
  size_t bytes;
  bool used;
};
constexpr int kMostBlocks = 64;
Block blocks[kMostBlocks];
int block_count = 0;

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

// Also where a driver enables what it has not disabled.
int rte_intr_efd_enable(rte_intr_handle* handle, uint32_t count) {
  if (rte_intr_nb_efd_get(handle) > 0) rte_intr_efd_disable(handle);
  return zps_device_efd_enable(handle, count);
}

void* zps_device_zmalloc_socket(const char* type, size_t bytes, unsigned align, int socket) {
  for (int i = 0; i < block_count; i++) {
    Block& block = blocks[i];
    if (block.used || block.bytes != bytes) continue;
    block.used = true;
    return memset(block.memory, 0, bytes);
  }
  if (block_count == kMostBlocks) return nullptr;
  void* const memory = rte_zmalloc_socket(type, bytes, align, socket);
  if (memory != nullptr) blocks[block_count++] = {memory, bytes, true};
  return memory;
}

void* zps_device_zmalloc(const char* type, size_t bytes, unsigned align) { return zps_device_zmalloc_socket(type, bytes, align, -1); }

void zps_device_free(void* memory) {
  for (int i = 0; i < block_count; i++) {
    if (blocks[i].memory == memory) blocks[i].used = false;
  }
}

int zps_device_run_here(void*, const char*, const void*, void* (*run)(void*), void* argument) {
  (void)run(argument);
  return 0;
}
int zps_device_detach(unsigned long) { return 0; }

int zps_device_memzone_free(const rte_memzone*) { return 0; }

const rte_memzone* zps_device_memzone_reserve_aligned(const char* name, size_t bytes, int socket, unsigned flags, unsigned align) {
  const rte_memzone* const there = rte_memzone_lookup(name);
  return there != nullptr ? there : rte_memzone_reserve_aligned(name, bytes, socket, flags, align);
}

}  // extern "C"
