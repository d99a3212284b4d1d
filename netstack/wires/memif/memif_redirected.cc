// What DPDK's memif driver calls in place of libc, beyond what every driver's calls become (redirected.cc; prelink.sh says who calls what).
// SPDX-License-Identifier: BSD-3-Clause
//
// What the driver makes at any time (sockets, interrupts, the peer's regions) must come into being in every member of the family: Control
// hands it round. And what it maps and closes must not vanish under a member that is polling the rings.
#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/high_fd.h"
#include "base/syscall.h"
#include "netstack/wires/control.h"
#include "netstack/wires/memif/memif_peer.h"
#include "netstack/wires/redirected.h"

using base::as_arg;
using base::kernel_call;
using netstack::Control;
using netstack::to_libc;

namespace {

// A descriptor of memif: known to all members if there is a Control, which there is whenever memif runs.
int adopted(long fd) noexcept {
  if (fd < 0) return static_cast<int>(to_libc(fd));
  Control* control = Control::current();
  return control == nullptr ? netstack::moved_high(fd) : static_cast<int>(to_libc(control->adopt_fd(static_cast<int>(fd))));
}

}  // namespace

extern "C" {

// Sockets do not block: connect() would wait for a server whose program is busy elsewhere.
int zps_memif_socket(int domain, int type, int protocol) {
  return adopted(kernel_call(SYS_socket, domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
}
int zps_memif_accept(int fd, sockaddr* address, socklen_t* length) {
  return adopted(kernel_call(SYS_accept4, fd, as_arg(address), as_arg(length), SOCK_CLOEXEC | SOCK_NONBLOCK));
}
int zps_memif_eventfd(unsigned value, int flags) { return adopted(kernel_call(SYS_eventfd2, value, flags)); }
int zps_memif_memfd_create(const char* name, unsigned flags) {
  return adopted(kernel_call(SYS_memfd_create, as_arg(name), flags | MFD_CLOEXEC));
}
int zps_memif_close(int fd) {
  Control* control = Control::current();
  if (control != nullptr && control->memif != nullptr) control->memif->closing(fd, *control);
  if (control != nullptr && control->drop_fd(fd)) return 0;
  return static_cast<int>(to_libc(base::close_high_fd(fd)));
}
void* zps_memif_mmap(void*, size_t bytes, int, int, int fd, long) {
  Control* control = Control::current();
  void* address = control == nullptr ? nullptr : control->map_region(fd, bytes);
  if (address == nullptr) errno = ENOMEM;
  if (address == nullptr && control != nullptr && control->memif != nullptr) {
    control->memif->complain("its regions are larger than 48 MB, or a file is shorter than told or could become shorter");
  }
  return address == nullptr ? MAP_FAILED : address;
}
int zps_memif_munmap(void* address, size_t) {
  Control* control = Control::current();
  return control != nullptr && control->unmap_region(address) ? 0 : -1;
}

}  // extern "C"
