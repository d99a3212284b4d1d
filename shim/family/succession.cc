// Whether a process may be handed over, and how.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/succession.h"

#include <cstring>
#include <sys/socket.h>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/own_thread.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/file_limit.h"
#include "shim/family/locked_memory.h"
#include "shim/family/process.h"
#include "shim/family/second_copy.h"
#include "shim/files/datagram_socket.h"
#include "shim/files/epoll_file.h"
#include "shim/files/fd_table.h"
#include "shim/files/file_pools.h"

namespace shim {
namespace {

TakeOver take_over = nullptr;
uintptr_t distance = 0;

const char* why_not() noexcept {
  if (take_over == nullptr || distance != 0) return "its code lies at another place";
  if (in_vfork_child()) return "its code lies at another place, and it is a vfork's child";
  if (!is_only_thread()) return "its code lies at another place, and it has threads";
  if (engine->thread()->sleeps != 0) return "its code lies at another place, and a handler of its has interrupted a wait";
  if (netstack::has_kept_rights() || file_limit_is_kept() || memory_is_locked())
    return "its code lies at another place, and it has locked memory, given up rights or lowered its limits";
  return nullptr;
}

// The first word of a part with virtual functions is the address of their table (Itanium C++ ABI).
template <class Part, class T>
void take_functions(T* object, const T& model) noexcept {
  memcpy(static_cast<void*>(static_cast<Part*>(object)), static_cast<const Part*>(&model), sizeof(void*));
}

void adopt(EpollFile* set) noexcept {
  const EpollFile model;
  take_functions<File>(set, model);
  take_functions<netstack::Pollable>(set, model);
}

}  // namespace

void prepare_succession(TakeOver function) noexcept { take_over = function; }
uintptr_t distance_to_successor() noexcept { return distance; }

const char* succeed(uintptr_t place) noexcept {
  if (const char* const why = why_not(); why != nullptr) return why;
  if (const char* const why = map_second_copy(place); why != nullptr) return why;
  const uintptr_t away = place - reinterpret_cast<uintptr_t>(__ehdr_start);
  const auto theirs = reinterpret_cast<TakeOver>(reinterpret_cast<uintptr_t>(take_over) + away);
  static zps_hook hook;
  hook = {};
  hook.size = sizeof hook;
  static Legacy legacy;
  legacy = {engine, &hook, &config, config_origins, family, my_slot, base::thread_locals(), netstack::image_file(),
            own_memory(), base::fd_floor(), base::high_fd_count(), {}};
  base::list_high_fds(legacy.hidden);
  if (!theirs(legacy)) return "its code lies at another place, where it cannot begin";
  distance = away;
  engine->exchange(&hook);
  base::log(base::LogLevel::debug, "this process's code lies where the family of what it was passed has it, from now on");
  return nullptr;
}

void adopt_own_files() noexcept {
  const Guard guard;
  for_each_entry(my_slot, [](int, Counted* entry) {
    switch (static_cast<File*>(entry)->kind) {
      case FileKind::socket: take_functions<File>(static_cast<Socket*>(entry), Socket(AF_INET)); break;
      case FileKind::datagram: take_functions<File>(static_cast<DatagramSocket*>(entry), DatagramSocket(AF_INET)); break;
      case FileKind::epoll: adopt(static_cast<EpollFile*>(entry)); break;
    }
  });
}

}  // namespace shim
