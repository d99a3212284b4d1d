// The broker's life, and the one message in each direction.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/kernel/link_broker.h"

#include <linux/capability.h>
#include <linux/prctl.h>
#include <csignal>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include <atomic>
#include <climits>
#include <cstring>
#include <initializer_list>

#include "base/high_fd.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kNeeded = uint64_t{1} << CAP_NET_ADMIN | uint64_t{1} << CAP_NET_RAW;
constexpr int kCapBpf = 39;
constexpr uint64_t kUseful = kNeeded | uint64_t{1} << CAP_SYS_ADMIN | uint64_t{1} << kCapBpf;  // a namespace of their own, and programs
constexpr int kMostDescriptors = 7 + BellFds::kCount;
constexpr char kAsk = 1, kAskWithBells = 2;

// Those that there are. Their count.
int list_descriptors(VethLinks& links, int* (&out)[kMostDescriptors]) noexcept {
  int count = 0;
  for (int* const always : {&links.packets.receiving, &links.packets.sending, &links.name_fd}) out[count++] = always;
  for (int* const maybe : {&links.drop_fd, &links.steering.board, &links.steering.egress, &links.steering.ingress}) {
    if (*maybe >= 0) out[count++] = maybe;
  }
  for (int i = 0; i < BellFds::kCount && links.packets.bells.exist(); i++) out[count++] = &links.packets.bells.at(i);
  return count;
}

std::atomic<bool> started{false};
int broker_fd = -1;
long broker_pid = 0;

struct Reply {
  VethLinks links;
  WireAddress address;
  base::Error error;  // empty: they are made, and their descriptors come along
};

// A message with room for the descriptors.
struct Message {
  iovec part;
  alignas(cmsghdr) char room[CMSG_SPACE(kMostDescriptors * sizeof(int))] = {};
  msghdr header{};

  explicit Message(Reply& reply) noexcept : part{&reply, sizeof reply} {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = room;
    header.msg_controllen = sizeof room;
  }
};

// Of the calling thread, as the kernel has them: two halves.
class Capabilities {
 public:
  Capabilities() noexcept { (void)kernel_call(SYS_capget, as_arg(&header_), as_arg(halves_)); }
  [[nodiscard]] uint64_t effective() const noexcept { return halves_[0].effective | uint64_t{halves_[1].effective} << 32; }
  [[nodiscard]] uint64_t permitted() const noexcept { return halves_[0].permitted | uint64_t{halves_[1].permitted} << 32; }
  void set(uint64_t effective, uint64_t permitted) noexcept {
    for (int half = 0; half < 2; half++) {
      halves_[half].effective = static_cast<uint32_t>(effective >> 32 * half);
      halves_[half].permitted = static_cast<uint32_t>(permitted >> 32 * half);
    }
    (void)kernel_call(SYS_capset, as_arg(&header_), as_arg(halves_));
  }

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct halves_[2] = {};
};

void send_reply(int socket, Reply& reply) noexcept {
  Message message(reply);
  if (*reply.error.text == '\0') {
    int* descriptors[kMostDescriptors];
    const int count = list_descriptors(reply.links, descriptors);
    cmsghdr* rights = CMSG_FIRSTHDR(&message.header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(static_cast<size_t>(count) * sizeof(int));
    message.header.msg_controllen = CMSG_SPACE(static_cast<size_t>(count) * sizeof(int));
    for (int i = 0; i < count; i++) memcpy(CMSG_DATA(rights) + i * sizeof(int), descriptors[i], sizeof(int));
  } else {
    message.header.msg_controllen = 0;
  }
  (void)kernel_call(SYS_sendmsg, socket, as_arg(&message.header), MSG_NOSIGNAL);
}

// The broker's whole life, in the child of a fork that knows no locks of the program and blocks every signal.
[[noreturn]] void serve(int socket, const StackConfig& config, MakeLinks make) noexcept {
  (void)kernel_call(SYS_close_range, 0, socket - 1, 0);
  (void)kernel_call(SYS_close_range, socket + 1, UINT_MAX, 0);
  (void)kernel_call(SYS_chdir, as_arg("/"));
  (void)kernel_call(SYS_prctl, PR_SET_NAME, as_arg("zpstack-broker"));
  (void)kernel_call(SYS_prctl, PR_SET_DUMPABLE, 0);
  (void)kernel_call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  Capabilities own;
  const uint64_t kept = own.permitted() & kUseful;
  own.set(kept, kept);
  char asked = 0;
  if (kernel_call(SYS_recvfrom, socket, as_arg(&asked), sizeof asked, 0, 0, 0) == sizeof asked) {
    Reply reply{};
    const char* const colon = strchr(config.wire, ':');
    auto links = make(Opening{config, colon != nullptr ? colon + 1 : "", nullptr, &reply.address});
    if (links) {
      reply.links = *links;
      if (asked != kAskWithBells) close_bell_fds(reply.links.packets.bells);
    } else {
      reply.error = links.error();
    }
    send_reply(socket, reply);
  }
  for (;;) (void)kernel_call(SYS_exit_group, 0);
}

// It ends at once, unless others have the socket too.
void reap_broker() noexcept {
  constexpr int kMostLooks = 100;
  for (int i = 0; i < kMostLooks && kernel_call(SYS_wait4, broker_pid, 0, WNOHANG | __WALL, 0) == 0; i++) {
    const timespec nap{0, 100'000};
    (void)kernel_call(SYS_nanosleep, as_arg(&nap));
  }
}

// Moves what came with the message out of the program's sight, into `links`. False if something is missing.
bool take_descriptors(msghdr& header, VethLinks* links) noexcept {
  const cmsghdr* rights = CMSG_FIRSTHDR(&header);
  int* descriptors[kMostDescriptors];
  const int count = list_descriptors(*links, descriptors);
  if (rights == nullptr || rights->cmsg_len != CMSG_LEN(static_cast<size_t>(count) * sizeof(int))) return false;
  bool all = true;
  for (int i = 0; i < count; i++) {
    int received;
    memcpy(&received, CMSG_DATA(rights) + i * sizeof received, sizeof received);
    *descriptors[i] = base::move_fd_high(received);
    all = all && *descriptors[i] >= 0;
  }
  return all;
}

}  // namespace

void take_link_rights() noexcept {
  Capabilities own;
  const uint64_t missing = own.permitted() & kUseful & ~own.effective();
  if (missing != 0) own.set(own.effective() | missing, own.permitted());
}

bool has_link_rights() noexcept { return (Capabilities().effective() & kNeeded) == kNeeded; }

bool has_link_broker() noexcept { return broker_fd >= 0; }

void start_link_broker(const StackConfig& config, MakeLinks make) noexcept {
  if ((Capabilities().permitted() & kNeeded) != kNeeded || started.exchange(true)) return;
  int pair[2];
  if (kernel_call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, as_arg(pair)) != 0) return;
  broker_fd = base::move_fd_high(pair[0]);
  const uint64_t all = ~uint64_t{0};
  uint64_t before = 0;
  (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&all), as_arg(&before), sizeof all);
  broker_pid = kernel_call(SYS_clone, 0, 0, 0, 0, 0);
  if (broker_pid == 0) serve(pair[1], config, make);
  (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, as_arg(&before), 0, sizeof before);
  (void)kernel_call(SYS_close, pair[1]);
  if (broker_pid < 0) end_link_broker();
}

base::Result<VethLinks> ask_link_broker(WireAddress* out) noexcept {
  Reply reply{};
  Message message(reply);
  const char ask = has_room_for_bells() ? kAskWithBells : kAsk;
  bool taken = kernel_call(SYS_sendto, broker_fd, as_arg(&ask), sizeof ask, MSG_NOSIGNAL, 0, 0) == sizeof ask;
  {
    const base::RaisedFdLimit raised;
    taken = taken && kernel_call(SYS_recvmsg, broker_fd, as_arg(&message.header), MSG_CMSG_CLOEXEC) == sizeof reply;
    if (taken && *reply.error.text == '\0') taken = take_descriptors(message.header, &reply.links);
  }
  end_link_broker();
  if (!taken)
    return base::make_error(
        "the process that kept the right to make the wire's links has ended, or has served another process of this program");
  if (*reply.error.text != '\0') return reply.error;
  *out = reply.address;
  return reply.links;
}

void end_link_broker() noexcept {
  if (broker_fd < 0) return;
  (void)base::close_high_fd(broker_fd);
  broker_fd = -1;
  if (broker_pid > 0) reap_broker();
}

}  // namespace netstack
