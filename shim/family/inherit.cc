// The new program's part of an exec: the family's memory and code where they were, and this process's place in it.
// SPDX-License-Identifier: BSD-3-Clause
#include <fcntl.h>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/syscall.h"
#include "shim/family/exec.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/family.h"
#include "shim/family/service.h"
#include "shim/family/wait.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

ExecTicket ticket;

template <class Visit>
void for_each_inherited(Visit visit) noexcept {
  for (unsigned fd = 0; fd < sizeof ticket.head.descriptors * 8; fd++) {
    if ((ticket.head.descriptors[fd / 64] >> fd % 64 & 1) != 0) visit(static_cast<int>(fd));
  }
}

}  // namespace

bool read_ticket(int fd) noexcept { return kernel_call(SYS_pread64, fd, as_arg(&ticket), sizeof ticket, 0) == sizeof ticket; }

bool ticket_is_of_own_place() noexcept { return family_would_overlap(ticket.family.address, reinterpret_cast<uintptr_t>(family)); }

const char* attach_by_ticket(SlotState state) noexcept {
  if (ticket.head.library_base != reinterpret_cast<uint64_t>(__ehdr_start)) return "something else lies where its code has to be";
  if (ticket.core != base::build_id_of(__ehdr_start)) return "they come from another build of zpstack";
  if (ticket.part_count > base::kMostSharedParts) return "what they come with is damaged";
  static base::Error error;
  if (auto loaded = netstack::load_code_again(ticket.code); !loaded) {
    error = loaded.error();
    return error.text;
  }
  if (!base::adopt_shared({ticket.parts, ticket.part_count}, ticket.shared_fd, ticket.shared_bytes, ticket.next_place) ||
      !attach_family(ticket.family)) {
    return "there is no room for their memory where it was";
  }
  ProcessSlot& slot = family->slots[ticket.slot];
  if (slot.state.load() != state || slot.pid != ticket.head.pid) return "the others have given this process up";
  my_slot = &slot;
  base::adopt_fd_range(ticket.first_fd, ticket.fd_count);
  adopt_keeper(ticket.keeper);
  if (state == SlotState::live) adopt_address_limit(ticket.address_limit);  // who joins was not executed by its writer
  return nullptr;
}

bool inherit_family() noexcept {
  if (engine->inherited < 0) return false;
  const long bytes = kernel_call(SYS_pread64, engine->inherited, as_arg(&ticket), sizeof ticket, 0);
  for_each_inherited(base::adopt_high_fd);
  base::adopt_fd_range(ticket.first_fd, ticket.fd_count);
  (void)kernel_call(SYS_close, engine->inherited);
  if (bytes == sizeof(PlaceTicket)) {
    avoid_family_at(reinterpret_cast<const PlaceTicket*>(&ticket)->family);
    return false;
  }
  const char* const why = bytes == sizeof ticket ? attach_by_ticket(SlotState::live) : "they come from another build of zpstack";
  if (why == nullptr) return true;
  for_each_inherited([](int fd) { (void)base::close_high_fd(fd); });
  family = nullptr;
  base::log(base::LogLevel::warn, "the sockets of the stack that this program was given are closed: %s", why);
  return false;
}

// The threads that had waited and moved are gone, and so are the numbers that exec() closed.
void settle_after_exec() noexcept {
  service_hold_slot(my_slot);
  measure_spinning();
  {
    const Guard guard;
    family->waiters.for_each([](Waiter* waiter) {
      if (waiter->process == my_slot) free_waiter(waiter);
    });
    files().sockets.for_each([](Socket* socket) {
      if (socket->mover == my_slot) socket->mover = nullptr;
    });
    for_each_entry(my_slot, [](int fd, Counted*) {
      if (kernel_call(SYS_fcntl, fd, F_GETFD) < 0) table_clear(fd);
    });
    guard.stack()->flush();
  }
  service_start();  // the others may end while this program waits for something else than sockets
}

}  // namespace shim
