// Who may have a ticket, and what is written into it.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/exec_ticket.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/permitted.h"
#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/epoll_file.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

int socket_option(int fd, int name) noexcept {
  int value = -1;
  unsigned bytes = sizeof value;
  return kernel_call(SYS_getsockopt, fd, SOL_SOCKET, name, as_arg(&value), as_arg(&bytes)) == 0 ? value : -1;
}

int write_file(const void* data, size_t bytes) noexcept {
  const long fd = kernel_call(SYS_memfd_create, as_arg("zpstack-exec"), 0);
  if (fd < 0) return static_cast<int>(fd);
  const long written = kernel_call(SYS_pwrite64, fd, as_arg(data), static_cast<long>(bytes), 0);
  if (written == static_cast<long>(bytes)) return static_cast<int>(fd);
  (void)kernel_call(SYS_close, fd);
  return written < 0 ? static_cast<int>(written) : -EIO;
}

void fill_head(zps_inheritance& head, int32_t pid) noexcept {
  memcpy(head.magic, ZPS_INHERITANCE, sizeof head.magic);
  head.pid = pid;
  head.size = sizeof head;
  head.library_base = reinterpret_cast<uint64_t>(__ehdr_start);
}

void fill(ExecTicket& ticket, const ProcessSlot* slot) noexcept {
  fill_head(ticket.head, slot->pid);
  base::list_high_fds(ticket.head.descriptors);
  ticket.core = base::build_id_of(__ehdr_start);
  ticket.code = netstack::stack_code();
  ticket.family = family_place();
  ticket.keeper = keeper();
  ticket.address_limit = address_limit();
  ticket.slot = static_cast<uint32_t>(slot - family->slots);
  ticket.first_fd = base::fd_floor();
  ticket.fd_count = base::high_fd_count();
  ticket.shared_fd = base::shared_fd();
  ticket.shared_bytes = base::shared_file_bytes();
  ticket.next_place = base::shared_place(0);
  const auto parts = base::shared_parts();
  ticket.part_count = static_cast<uint32_t>(parts.size());
  memcpy(ticket.parts, parts.data(), parts.size_bytes());
}

}  // namespace

const char* why_not_attach() noexcept {
  if (!the_stack()->wire().facts().survives_exec) return "this wire does not survive it";
  if (!base::is_whole() || family_place().offset < 0) return "its memory is in no file (RLIMIT_FSIZE, or huge pages)";
  if (!base::build_id_of(__ehdr_start).is_known()) return "nothing tells which build of zpstack this is (--build-id)";
  return nullptr;
}

const char* why_not_survive(const zps_call& call) noexcept {
  const char* const why = why_not_attach();
  return why != nullptr ? why : engine->leaves_hook(&call);
}

int64_t leave_place(const zps_call& call) noexcept {
  if (!hands_on_unix_socket() || !base::build_id_of(__ehdr_start).is_known() || engine->leaves_hook(&call) != nullptr) return 0;
  PlaceTicket ticket{{}, reinterpret_cast<uintptr_t>(family)};
  fill_head(ticket.head, static_cast<int32_t>(kernel_call(SYS_getpid)));
  const int fd = write_file(&ticket, sizeof ticket);
  if (fd <= 0) return 0;
  note_place(fd);
  return fd;
}

void tell_lost(int sockets, const char* why) noexcept {
  if (sockets > 0) base::log(base::LogLevel::warn, "%d sockets of the stack do not survive an exec: %s", sockets, why);
}

bool hands_on_unix_socket() noexcept {
  constexpr int kFirst = 3, kEnd = 64;
  if (!base::may_call(SYS_fcntl) || !base::may_call(SYS_getsockopt)) return false;
  for (int fd = kFirst; fd < kEnd; fd++) {
    const long flags = kernel_call(SYS_fcntl, fd, F_GETFD);
    if (flags >= 0 && (flags & FD_CLOEXEC) == 0 && socket_option(fd, SO_DOMAIN) == AF_UNIX) return true;
  }
  return false;
}

int write_ticket(const ProcessSlot* slot) noexcept {
  ExecTicket ticket{};
  fill(ticket, slot);
  return write_file(&ticket, sizeof ticket);
}

bool is_of_stack(const Counted* entry) noexcept {
  const auto* file = static_cast<const File*>(entry);
  if (file->kind == FileKind::epoll) return !static_cast<const EpollFile*>(file)->items.empty();
  if (file->kind == FileKind::datagram) return static_cast<const DatagramSocket*>(file)->endpoint != nullptr;
  const auto* socket = static_cast<const Socket*>(file);
  return socket->stream != nullptr || socket->listener != nullptr || socket->stack_bound;
}

bool goes_along(const Counted* entry) noexcept {
  return is_of_stack(entry) ||
         (static_cast<const File*>(entry)->kind == FileKind::socket && static_cast<const Socket*>(entry)->binding != nullptr);
}

}  // namespace shim
