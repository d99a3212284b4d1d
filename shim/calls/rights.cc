// Puts files of the stack into envelopes when they are sent, and takes them out where they are received.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/calls/rights.h"

#include <cerrno>
#include <climits>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "base/log.h"
#include "base/syscall.h"
#include "shim/calls/calls.h"
#include "shim/family/exec_ticket.h"
#include "shim/family/family.h"
#include "shim/family/join.h"
#include "shim/family/process.h"
#include "shim/family/succession.h"
#include "shim/family/wait.h"
#include "shim/files/fd_table.h"
#include "shim/files/placeholders.h"
#include "shim/files/routing.h"
#include "shim/files/user_memory.h"

// keep_everything.S
extern "C" long zps_keep_everything(long argument, long (*function)(long argument) noexcept) noexcept;

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr size_t kMostControl = 1280;   // SCM_MAX_FD descriptors, and credentials
constexpr unsigned kMostMessages = 1024;

// A control message in the program's memory.
struct ControlPart {
  char* at;
  cmsghdr header;
  [[nodiscard]] bool is_rights() const noexcept { return header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS; }
  [[nodiscard]] int count() const noexcept { return static_cast<int>((header.cmsg_len - sizeof header) / sizeof(int)); }
  [[nodiscard]] int* numbers() const noexcept { return reinterpret_cast<int*>(at + sizeof header); }
};

// Calls visit(part) for each, until it returns something else than 0, which is the result, as of memory that is none (-EFAULT).
template <class Visit>
long for_each_part(const msghdr& message, Visit visit) noexcept {
  size_t left = message.msg_controllen <= INT_MAX ? message.msg_controllen : 0;  // the kernel refuses more
  for (char* at = static_cast<char*>(message.msg_control); left >= sizeof(cmsghdr);) {
    ControlPart part{at, {}};
    if (const long error = copy_in(&part.header, at, sizeof part.header); error != 0) return error;
    if (part.header.cmsg_len < sizeof part.header || part.header.cmsg_len > left) return 0;
    if (const long result = visit(part); result != 0) return result;
    const size_t step = CMSG_ALIGN(part.header.cmsg_len);
    if (step >= left) return 0;
    at += step;
    left -= step;
  }
  return 0;
}

// Calls visit(number, place of the number) for each descriptor, likewise.
template <class Visit>
long for_each_right(const msghdr& message, Visit visit) noexcept {
  return for_each_part(message, [&](const ControlPart& part) noexcept -> long {
    for (int i = 0; part.is_rights() && i < part.count(); i++) {
      int number;
      if (const long error = copy_in(&number, part.numbers() + i, sizeof number); error != 0) return error;
      if (const long result = visit(number, part.numbers() + i); result != 0) return result;
    }
    return 0;
  });
}

// Who has made or connected the other end; 0: nobody.
pid_t peer_of(int fd) noexcept {
  ucred peer{};
  unsigned bytes = sizeof peer;
  return kernel_call(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, as_arg(&peer), as_arg(&bytes)) == 0 ? peer.pid : 0;
}

// Whether that is a member of the family. With the lock held.
bool leads_to_member(int fd) noexcept {
  const pid_t pid = peer_of(fd);
  for (const ProcessSlot& slot : all_slots()) {
    if (pid > 0 && !is_free(slot) && slot.pid == pid) return true;
  }
  return false;
}

// A call that a signal has ended: made again where the kernel would, which is where no timeout is set.
long after_signal(int fd, int timeout, const Interruption& interruption) noexcept {
  timeval limit{};
  unsigned bytes = sizeof limit;
  if (!interruption.came()) return kRestart;  // a signal of the engine's own
  const bool is_limited = kernel_call(SYS_getsockopt, fd, SOL_SOCKET, timeout, as_arg(&limit), as_arg(&bytes)) == 0 &&
                          (limit.tv_sec != 0 || limit.tv_usec != 0);
  return interruption.restarts() && !is_limited ? kRestart : -EINTR;
}

// ---------------------------------------------------------------- sending

bool may_have_files() noexcept { return the_stack() != nullptr && my_slot->chunks != 0 && !kernel_only() && !in_vfork_child(); }

bool is_own_process(int fd) noexcept { return peer_of(fd) == static_cast<pid_t>(kernel_call(SYS_getpid)); }

// Whether it is bound to what the rules give to the stack: it is about to be listened at, by who receives it.
bool is_for_stack(int fd) noexcept {
  const Guard guard;
  const Socket* const socket = socket_at(fd);
  const bool is_bound = socket != nullptr && socket->state == SocketState::undecided && socket->has_port;
  return is_bound && (socket->stack_bound || socket->bound_to_all) &&
         side_of(IPPROTO_TCP, socket->bound.port_be, nullptr) == base::Side::stack;
}

// A socket that the stack will serve is passed on by a process that has none yet, over a pair of sockets that it has made itself, to a
// worker of its own (Node's cluster).
void make_stack_for(int fd, const msghdr& message) noexcept {
  if (my_slot->chunks == 0 || kernel_only() || in_vfork_child() || message.msg_control == nullptr) return;
  const long found = for_each_right(message, [](int number, int*) noexcept -> long { return is_for_stack(number) ? 1 : 0; });
  const auto make = [](long) noexcept { return static_cast<long>(ensure_stack() != nullptr); };
  if (found == 1 && is_own_process(fd)) (void)zps_keep_everything(0, make);
}

bool has_files(const msghdr& message) noexcept {
  if (message.msg_control == nullptr || message.msg_controllen < CMSG_LEN(sizeof(int))) return false;
  return for_each_right(message, [](int number, int*) noexcept -> long { return peek(number) != nullptr ? 1 : 0; }) == 1;
}

// Puts an envelope in the place of each file of ours. 0 or a negative errno.
long seal(int fd, const msghdr& message) noexcept {
  const Guard guard;
  discard_left_envelopes();
  const bool is_family = leads_to_member(fd);
  return for_each_right(message, [&](int number, int* place) noexcept -> long {
    File* const file = file_at(number);
    if (file == nullptr || !(is_family || is_of_stack(file))) return 0;
    if (file->kind == FileKind::socket) spoil_placeholder(static_cast<Socket*>(file));
    const long envelope = make_envelope(file, number);
    if (envelope < 0) return envelope;
    *place = static_cast<int>(envelope);
    return 0;
  });
}

void discard_all(const msghdr& message, bool is_sent) noexcept {
  const Guard guard;
  (void)for_each_right(message, [&](int number, int*) noexcept -> long {
    discard_envelope(number, is_sent);
    return 0;
  });
  guard.stack()->flush();
}

// With files of ours in it.
long send_message(int fd, msghdr message, int flags) noexcept {
  alignas(cmsghdr) char control[kMostControl];
  if (message.msg_controllen > sizeof control) return -ENOBUFS;
  if (const long error = copy_in(control, message.msg_control, message.msg_controllen); error != 0) return error;
  message.msg_control = control;
  const Interruption interruption;
  long result = seal(fd, message);
  if (result == 0) result = engine->sleep(SYS_sendmsg, fd, as_arg(&message), flags, 0, 0, 0);
  discard_all(message, result >= 0);
  if (result == -EINTR) return after_signal(fd, SO_SNDTIMEO, interruption);
  if (result == -ETOOMANYREFS || result == -ENOENT) {
    base::log(base::LogLevel::warn,
              "sockets of the stack could not be passed on (SCM_RIGHTS): too many are in flight, or there is no /proc");
    return -ETOOMANYREFS;
  }
  return result;
}

// ---------------------------------------------------------------- receiving

// join_family(), which runs any code there is.
const char* join(int envelope) noexcept {
  const auto function = [](long fd) noexcept { return reinterpret_cast<long>(join_family(static_cast<int>(fd))); };
  return reinterpret_cast<const char*>(zps_keep_everything(envelope, function));
}

// `envelope` becomes what is in it. 0 or a negative errno.
long unseal(int envelope) noexcept {
  if (kernel_only()) return -ESTALE;
  int kept;
  long result;
  {
    const Guard guard;
    Opened opened{};
    if (const long error = open_envelope(envelope, &opened); error != 0) return error;
    const long flags = kernel_call(SYS_fcntl, envelope, F_GETFD);
    result = kept = keep_envelope(envelope, opened.record);
    if (kept >= 0) result = kernel_call(SYS_dup3, opened.placeholder, envelope, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
    if (result >= 0) result = table_set(envelope, static_cast<File*>(opened.file));
    (void)kernel_call(SYS_close, opened.placeholder);
  }
  if (kept >= 0) close_envelope(kept);
  return result < 0 ? result : 0;
}

// What follows a control message, which is what the kernel says of the sender (SO_PASSPIDFD).
struct Rest {
  char bytes[128];
  size_t count;
};

Rest rest_behind(const msghdr& message, const ControlPart& part) noexcept {
  Rest rest{};
  const char* const begin = part.at + CMSG_ALIGN(part.header.cmsg_len);
  const char* const end = static_cast<char*>(message.msg_control) + message.msg_controllen;
  if (begin < end) rest.count = static_cast<size_t>(end - begin) < sizeof rest.bytes ? static_cast<size_t>(end - begin) : sizeof rest.bytes;
  if (copy_in(rest.bytes, begin, rest.count) != 0) rest.count = 0;
  return rest;
}

// The descriptors of `part` from `index` on are not received, as where the kernel has no number for them.
void cut(msghdr* message, const ControlPart& part, int index) noexcept {
  for (int i = index; i < part.count(); i++) {
    int number;
    if (copy_in(&number, part.numbers() + i, sizeof number) == 0) (void)kernel_call(SYS_close, number);
  }
  const size_t before = static_cast<size_t>(part.at - static_cast<char*>(message->msg_control));
  const size_t bytes = static_cast<size_t>(index) * sizeof(int);
  const size_t length = CMSG_LEN(bytes);
  const Rest rest = rest_behind(*message, part);
  if (index > 0) (void)copy_out(part.at, &length, sizeof length);
  message->msg_controllen = before + (index > 0 ? CMSG_SPACE(bytes) : 0);
  (void)copy_out(static_cast<char*>(message->msg_control) + message->msg_controllen, rest.bytes, rest.count);
  message->msg_controllen += rest.count;
  message->msg_flags |= MSG_CTRUNC;
}

void unseal_all(msghdr* user) noexcept;

// By the copy of this library that has taken over: nothing here may run any more.
void unseal_in_successor(msghdr* user) noexcept {
  reinterpret_cast<decltype(&unseal_all)>(reinterpret_cast<uintptr_t>(&unseal_all) + distance_to_successor())(user);
}

// Takes what has come out of its envelopes.
void unseal_all(msghdr* user) noexcept {
  msghdr message;
  if (copy_in(&message, user, sizeof message) != 0 || message.msg_control == nullptr) return;
  long refused = 0;
  const char* why = nullptr;
  (void)for_each_part(message, [&](const ControlPart& part) noexcept -> long {
    for (int i = 0; part.is_rights() && i < part.count(); i++) {
      int number;
      if (copy_in(&number, part.numbers() + i, sizeof number) != 0) return -EFAULT;
      if (!is_envelope(number)) continue;
      refused = unseal(number);
      if (refused == -ESTALE) {
        why = join(number);
        if (distance_to_successor() != 0) return 1;
        refused = unseal(number);  // another thread may have joined meanwhile
      }
      if (refused == 0) continue;
      cut(&message, part, i);
      return 1;
    }
    return 0;
  });
  if (distance_to_successor() != 0) return unseal_in_successor(user);
  if (refused == 0) return;
  (void)copy_out(user, &message, sizeof message);
  if (refused == -ESTALE) {
    base::log(base::LogLevel::warn,
              "a socket of a stack that this process has no part in was passed on to it (SCM_RIGHTS): refused (MSG_CTRUNC), for %s",
              why != nullptr ? why : "it is gone");
  }
}

bool has_room(const msghdr* user) noexcept {
  msghdr message;
  return copy_in(&message, user, sizeof message) == 0 && message.msg_control != nullptr && message.msg_controllen >= CMSG_LEN(sizeof(int));
}

}  // namespace

long send_rights(const zps_call& call) noexcept {
  msghdr message;
  if (my_slot->chunks == 0 || copy_in(&message, reinterpret_cast<void*>(call.arg[1]), sizeof message) != 0) return kPass;
  if (the_stack() == nullptr) make_stack_for(static_cast<int>(call.arg[0]), message);
  if (!may_have_files() || !has_files(message)) return kPass;
  return send_message(static_cast<int>(call.arg[0]), message, static_cast<int>(call.arg[2]));
}

long send_many_rights(const zps_call& call) noexcept {
  if (!may_have_files()) return kPass;
  auto* const messages = reinterpret_cast<mmsghdr*>(call.arg[1]);
  const auto wanted = static_cast<unsigned>(call.arg[2]);
  const unsigned count = wanted < kMostMessages ? wanted : kMostMessages;
  bool any = false;
  mmsghdr message;
  for (unsigned i = 0; i < count && !any; i++) {
    if (copy_in(&message, messages + i, sizeof message) != 0) break;
    any = has_files(message.msg_hdr);
  }
  if (!any) return kPass;
  const int fd = static_cast<int>(call.arg[0]), flags = static_cast<int>(call.arg[3]);
  const Interruption interruption;
  for (unsigned i = 0; i < count; i++) {
    long result = copy_in(&message, messages + i, sizeof message);
    if (result == 0) {
      result = has_files(message.msg_hdr) ? send_message(fd, message.msg_hdr, flags)
                                          : engine->sleep(SYS_sendmsg, fd, as_arg(&message.msg_hdr), flags, 0, 0, 0);
    }
    if (result == -EINTR) result = after_signal(fd, SO_SNDTIMEO, interruption);
    if (result < 0) return i > 0 ? static_cast<long>(i) : result;
    const auto bytes = static_cast<unsigned>(result);
    if (copy_out(&messages[i].msg_len, &bytes, sizeof bytes) != 0) return i > 0 ? static_cast<long>(i) : -EFAULT;
  }
  return count;
}

long receive_rights(const zps_call& call) noexcept {
  auto* const message = reinterpret_cast<msghdr*>(call.arg[1]);
  if (in_vfork_child() || !has_room(message)) return kPass;
  const Interruption interruption;
  const long result = engine->sleep(SYS_recvmsg, call.arg[0], call.arg[1], call.arg[2], 0, 0, 0);
  if (result == -EINTR) return after_signal(static_cast<int>(call.arg[0]), SO_RCVTIMEO, interruption);
  if (result >= 0) unseal_all(message);
  return result;
}

long receive_many_rights(const zps_call& call) noexcept {
  auto* const messages = reinterpret_cast<mmsghdr*>(call.arg[1]);
  const auto wanted = static_cast<unsigned>(call.arg[2]);
  const unsigned count = wanted < kMostMessages ? wanted : kMostMessages;
  bool any = false;
  for (unsigned i = 0; i < count && !any; i++) any = has_room(&messages[i].msg_hdr);
  if (in_vfork_child() || !any) return kPass;
  const Interruption interruption;
  const long result = engine->sleep(SYS_recvmmsg, call.arg[0], call.arg[1], call.arg[2], call.arg[3], call.arg[4], 0);
  if (result == -EINTR) return after_signal(static_cast<int>(call.arg[0]), SO_RCVTIMEO, interruption);
  for (long i = 0; i < result; i++) unseal_all(&messages[i].msg_hdr);
  return result;
}

}  // namespace shim
