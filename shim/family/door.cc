// Who is on duty answers at the door: a slot, a ticket and the hidden descriptors for a process that joins.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/door.h"

#include <cerrno>
#include <cstring>
#include <sys/uio.h>

#include "base/high_fd.h"
#include "base/robust_lock.h"
#include "base/syscall.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/family.h"
#include "shim/family/identity.h"
#include "shim/family/join.h"
#include "shim/files/placeholders.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

struct Control {
  alignas(cmsghdr) char bytes[CMSG_SPACE(kMostPassed * sizeof(int)) + CMSG_SPACE(sizeof(ucred))];
};

constexpr char kElsewhere[] = "its code lies at another place";

void close_all(const int* fds, int count) noexcept {
  for (int i = 0; i < count; i++) (void)kernel_call(SYS_close, fds[i]);
}

// Whoever joins gets the descriptors of the wire, so it has to be allowed as much as who has opened it; and the name of a network can be
// seen by every process in its network namespace.
const char* judge_rights(pid_t pid) noexcept {
  if ((permitted_of(pid) & family->rights) != family->rights) return "it has fewer rights (capabilities)";
  return is_in_own_user_namespace(family->proc_fd, pid) ? nullptr : "it is in another user namespace";
}

// Why it cannot join, or nullptr.
const char* judge(const Visit& visit, const ucred& visitor) noexcept {
  if (visitor.uid != family->owner || visitor.pid <= 0) return "it is another user's process";
  if (visit.pid != visitor.pid) return "it is in another pid namespace";
  if (visit.core != base::build_id_of(__ehdr_start) || !visit.core.is_known()) return "it has another build of zpstack";
  if (const char* const why = why_not_attach(); why != nullptr) return why;
  return visit.library_base != reinterpret_cast<uint64_t>(__ehdr_start) ? kElsewhere : nullptr;
}

// A slot for the visitor, or nullptr.
ProcessSlot* slot_for(pid_t pid) noexcept {
  Guard guard;
  while (guard.stack()->lock.favour_allowed()) {
    guard.drop();
    the_stack()->lock.forbid_favour();
    guard.take();
  }
  ProcessSlot* const slot = slot_acquire();
  if (slot != nullptr) slot->pid = pid;
  forget_placeholders();  // what is kept for this process alone is not to be another's
  return slot;
}

bool pass_hidden(int over, const uint64_t (&hidden)[base::kHighFdWords]) noexcept {
  Passed message{};
  for (unsigned fd = 0; fd < base::kHighFdWords * 64; fd++) {
    if ((hidden[fd / 64] >> fd % 64 & 1) != 0) message.numbers[message.count++] = static_cast<int>(fd);
    if (message.count == kMostPassed || (fd + 1 == base::kHighFdWords * 64 && message.count > 0)) {
      if (send_with(over, &message, sizeof message, message.numbers, message.count) < 0) return false;
      message.count = 0;
    }
  }
  return true;
}

void admit(int over, pid_t pid) noexcept {
  Answer answer{};
  ProcessSlot* const slot = slot_for(pid);
  if (slot == nullptr) {
    strcpy(answer.why, "the family has no place for another process");
    (void)send_with(over, &answer, sizeof answer, nullptr, 0);
    return;
  }
  const Guard guard;  // nobody closes one of those that are listed meanwhile
  uint64_t hidden[base::kHighFdWords];
  base::list_high_fds(hidden);
  for (const uint64_t word : hidden) answer.count += __builtin_popcountll(word);
  const int ticket = write_ticket(slot);
  const bool is_admitted = ticket > 0 && send_with(over, &answer, sizeof answer, &ticket, 1) >= 0 && pass_hidden(over, hidden);
  if (ticket > 0) (void)kernel_call(SYS_close, ticket);
  if (!is_admitted) slot_release(slot);
}

void answer(int over, const char* why, pid_t pid) noexcept {
  if (why == nullptr) return admit(over, pid);
  Answer answer{};
  strncpy(answer.why, why, sizeof answer.why - 1);
  if (why == kElsewhere) answer.elsewhere = reinterpret_cast<uint64_t>(__ehdr_start);
  (void)send_with(over, &answer, sizeof answer, nullptr, 0);
}

// At the door of the envelopes. False: nobody is there.
bool answer_one() noexcept {
  Visit visit{};
  ucred visitor{};
  int over;
  const long got = receive_with(family->door_fd, &visit, sizeof visit, &over, 1, MSG_DONTWAIT, &visitor);
  if (got < 0) return false;
  answer(over, got == sizeof visit ? judge(visit, visitor) : "it speaks otherwise", visitor.pid);
  (void)kernel_call(SYS_close, over);
  return true;
}

long accept_visitor() noexcept {
  const long over = kernel_call(SYS_accept4, family->network_fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (over != -EMFILE) return over;
  const base::RaisedFdLimit raised;
  return kernel_call(SYS_accept4, family->network_fd, 0, 0, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

// At the name of the network. Whoever has connected and not said anything yet comes again.
bool answer_at_name() noexcept {
  const auto over = static_cast<int>(accept_visitor());
  if (over < 0) return false;
  Visit visit{};
  ucred visitor{};
  unsigned bytes = sizeof visitor;
  const bool is_known = kernel_call(SYS_getsockopt, over, SOL_SOCKET, SO_PEERCRED, as_arg(&visitor), as_arg(&bytes)) == 0;
  if (is_known && kernel_call(SYS_recvfrom, over, as_arg(&visit), sizeof visit, MSG_DONTWAIT, 0, 0) == sizeof visit) {
    const char* why = judge(visit, visitor);
    if (why == nullptr) why = judge_rights(visitor.pid);
    answer(over, why, visitor.pid);
  }
  (void)kernel_call(SYS_close, over);
  return true;
}

}  // namespace

long send_with(int over, const void* data, unsigned long bytes, const int* fds, int count) noexcept {
  Control control{};
  iovec part{const_cast<void*>(data), bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (count > 0) {
    const size_t length = static_cast<size_t>(count) * sizeof(int);
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(length);
    *CMSG_FIRSTHDR(&message) = {CMSG_LEN(length), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&message)), fds, length);
  }
  return kernel_call(SYS_sendmsg, over, as_arg(&message), MSG_DONTWAIT | MSG_NOSIGNAL);
}

long receive_with(int over, void* data, unsigned long bytes, int* fds, int count, int flags, ucred* sender) noexcept {
  Control control{};
  iovec part{data, bytes};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof control.bytes;
  const long got = kernel_call(SYS_recvmsg, over, as_arg(&message), flags | MSG_CMSG_CLOEXEC);
  if (got < 0) return got;
  int have = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET) continue;
    if (header->cmsg_type == SCM_CREDENTIALS && sender != nullptr) memcpy(sender, CMSG_DATA(header), sizeof *sender);
    if (header->cmsg_type != SCM_RIGHTS) continue;
    const int came = static_cast<int>((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    int all[sizeof control.bytes / sizeof(int)];
    memcpy(all, CMSG_DATA(header), static_cast<size_t>(came) * sizeof(int));
    if (came > count) {
      close_all(all, came);
      return -EPROTO;
    }
    memcpy(fds, all, static_cast<size_t>(came) * sizeof(int));
    have = came;
  }
  if (have == count) return got;
  close_all(fds, have);
  return -EPROTO;
}

void answer_door() noexcept {
  constexpr int kMostInTurn = 16;
  for (int i = 0; family->network_fd >= 0 && i < kMostInTurn && answer_at_name(); i++) {
  }
  if (family->flights == 0 || family->door_fd < 0) return;
  for (int i = 0; i < kMostInTurn && answer_one(); i++) {
  }
}

}  // namespace shim
