// Making, naming, connecting and ending sockets.
// SPDX-License-Identifier: BSD-3-Clause
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "tests/diff/random/datagrams.h"
#include "tests/diff/random/exclusions.h"
#include "tests/diff/random/operations.h"
#include "tests/diff/random/world.h"

namespace random_sequences {
namespace {

constexpr size_t kMostWaiting = 12;  // connections an agent's listener is asked to hold
constexpr uint64_t kPatienceUs = 3'000'000;

sockaddr* as_sockaddr(sockaddr_storage* name) { return reinterpret_cast<sockaddr*>(name); }

uint16_t remote_port(int fd) {
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;
  return getpeername(fd, as_sockaddr(&name), &bytes) == 0 ? port_of(name) : static_cast<uint16_t>(0);
}

bool is_own(int address) { return is_self(address) || is_loopback(address); }

// Where a connect() goes and who is known to answer there.
struct Target {
  int address;
  uint16_t port;
  File* listener = nullptr;
  PeerSlot* peer = nullptr;
  [[nodiscard]] bool full() const {
    if (listener != nullptr) return listener->waiting.size() > static_cast<size_t>(std::max(listener->backlog, 0));
    return peer != nullptr && peer->waiting.size() > kMostWaiting;
  }
};

// The books of a connection whose connect() has begun or succeeded.
void begin_connection(World& world, File* file, const Target& target, bool in_progress) {
  const uint16_t port = local_port(file->fd);
  if (!in_progress && file->end != nullptr && file->end->in_progress) {
    file->end->in_progress = false;
    return;
  }
  End* end = world.new_end();
  end->file = file;
  end->local_port = port;
  end->remote_port = target.port;
  end->by_loopback = is_loopback(target.address);
  end->in_progress = in_progress;
  end->answered = target.address != kNobody && target.address != kForeign;
  end->shut_read = (file->shut & 1) != 0;
  file->has_ended = false;
  file->kind = FileKind::stream;
  file->end = end;
  if (target.listener != nullptr) {
    end->listener = target.listener;
    target.listener->waiting.push_back(end);
  } else if (target.peer != nullptr) {
    target.peer->waiting.push_back(end);
  } else if (is_own(target.address) && port == target.port) {
    end->other = end;
    end->fin = (file->shut & 2) != 0;
  } else {
    end->reset = end->answered;
  }
  world.settle(end);
}

void connect_to(World& world, int slot, const Target& target) {
  const int fd = world.fd(slot);
  File* file = world.file(slot);
  if (is_datagram(file)) return connect_datagram(world, file, target.address, target.port);
  if (target.full()) return world.note(" full");
  const bool to_kernel = is_loopback(target.address);
  if (file != nullptr && target.address != kForeign && (to_kernel ? file->has_ended : file->is_the_kernels))
    return world.leave_out(kGoneToKernel);
  // Linux goes on using IPv4's ways for a connection that was made by them (ipv6_mapped of inet_connection_sock_af_ops).
  if (file != nullptr && file->has_ended && is_v6(fd) && (target.address == kSelf6 || target.address == kPeer6))
    return world.note(" mapped");
  if (file != nullptr && file->bound_to_self && is_loopback(target.address)) return world.leave_out(kSourceAddress);
  if (target.listener != nullptr && !target.listener->waiting.empty() &&
      target.listener->waiting.back()->by_loopback != is_loopback(target.address))
    return world.leave_out(kAcceptOrder);
  if (!target.peer && !is_own(target.address) && file != nullptr && !is_nonblocking(fd)) return world.note(" blocks");
  // Whatever address it names, it waits for the attempt that is under way (__inet_stream_connect()).
  const End* attempt = file == nullptr || file->has_ended ? nullptr : file->end;
  if (attempt != nullptr && attempt->in_progress && !attempt->answered && !is_nonblocking(fd)) return world.note(" blocks");
  sockaddr_storage name;
  const unsigned bytes = world.address(target.address, target.port, &name);
  const int result = connect(fd, as_sockaddr(&name), bytes);
  const int error = result == 0 ? 0 : errno;
  world.note_result(result);
  if (file == nullptr || file->kind == FileKind::epoll || file->kind == FileKind::pipe) return;
  if (to_kernel && error != EISCONN && error != EALREADY && error != EINVAL && error != EAFNOSUPPORT) file->is_the_kernels = true;
  if (error != EISCONN && error != EALREADY) file->failed = error != 0 && error != EINPROGRESS;
  if (error == 0 || error == EINPROGRESS) return begin_connection(world, file, target, error == EINPROGRESS);
  if (file->kind == FileKind::stream &&
      (error == ECONNREFUSED || error == ECONNABORTED || error == ECONNRESET || error == EHOSTUNREACH || error == ENETUNREACH)) {
    file->kind = FileKind::socket;
    file->end = nullptr;
    file->shut = 0;
    file->bound = file->bound_by_number;
  }
}

// Who of those that wait has this port; it is no longer waiting.
End* take_waiting(std::vector<End*>& waiting, uint16_t port, bool* first) {
  for (size_t i = 0; i < waiting.size(); i++) {
    if (waiting[i]->local_port != port) continue;
    End* found = waiting[i];
    *first = i == 0;
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(i));
    return found;
  }
  return nullptr;
}

bool is_v6_only(int fd) {
  int only = 0;
  socklen_t bytes = sizeof only;
  return getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &bytes) == 0 && only != 0;
}

// What a listener answers to.
void note_listener(File* file) {
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;
  (void)getsockname(file->fd, as_sockaddr(&name), &bytes);
  file->port = port_of(name);
  file->family = name.ss_family;
  if (name.ss_family == AF_INET) {
    file->address_be = reinterpret_cast<const sockaddr_in&>(name).sin_addr.s_addr;
    return;
  }
  const in6_addr& address = reinterpret_cast<const sockaddr_in6&>(name).sin6_addr;
  file->address6 = IN6_IS_ADDR_UNSPECIFIED(&address) ? kAny6 : IN6_IS_ADDR_LOOPBACK(&address) ? kLoop6 : kSelf6;
  if (is_v6_only(file->fd)) return;
  file->family = IN6_IS_ADDR_V4MAPPED(&address) ? AF_INET : IN6_IS_ADDR_UNSPECIFIED(&address) ? AF_UNSPEC : AF_INET6;
  if (file->family == AF_INET) file->address_be = address.s6_addr32[3];
}

void join(End* one, End* two) {
  if (two == nullptr) return;
  one->other = two;
  two->other = one;
  one->by_loopback = two->by_loopback;
  two->listener = nullptr;
  if (two->gone && two->skips_fin_wait) one->reset = true;
}

// Somebody is known to wait: until accept() would see him.
void await_waiting(const File& listener) {
  Patience patience(kPatienceUs);
  while ((level(listener.fd, POLLIN) & POLLIN) == 0 && patience.goes_on()) {
    if (listener.accept_is_over != nullptr && listener.accept_is_over()) return;
  }
}

void accepted(World& world, File* listener, int slot, int fd, uint16_t port) {
  auto file = std::make_shared<File>();
  End* end = world.new_end();
  end->file = file.get();
  end->local_port = listener->port;
  end->remote_port = port;
  file->kind = FileKind::stream;
  file->end = end;
  end->shut_read = (listener->shut & 1) != 0;
  end->fin = (listener->shut & 2) != 0;
  file->linger_zero = listener->linger_zero;
  file->skips_fin_wait = listener->skips_fin_wait;
  file->chose_receive_buffer = listener->chose_receive_buffer;
  file->chose_send_buffer = listener->chose_send_buffer;
  file->bound = true;
  file->bound_by_number = listener->bound_by_number;
  file->may_share = listener->may_share;
  bool first = true;
  join(end, take_waiting(listener->waiting, port, &first));
  end->by_loopback = file->is_the_kernels = end->other != nullptr && end->other->by_loopback;
  if (!first) world.note(" out of turn");
  world.hold(slot, fd, std::move(file));
  world.settle(end);
}

void bind_to(World& world, int slot, int address, uint16_t port) {
  sockaddr_storage name;
  const unsigned bytes = world.address(address, port, &name);
  File* file = world.file(slot);
  if (file != nullptr && file->kind == FileKind::stream && tcp_state(file->fd) == TCP_CLOSE) return world.leave_out(kDeadBind);
  if (file != nullptr && file->is_the_kernels) return world.leave_out(kGoneToKernel);
  const int result = bind(world.fd(slot), as_sockaddr(&name), bytes);
  world.note_result(result);
  if (is_datagram(file)) note_datagram_port(world, slot);
  if (result != 0 || file == nullptr) return;
  file->bound_to_self = is_self(address);
  file->bound_to_loop = address == kLoop || address == kLoopMapped || address == kLoop6;
  file->bound = true;
  file->bound_by_number = port != 0;
}

// Whether it is settled what bind() says to the port of `user`. One that nobody has any more may be another's as well. So may one that
// connect() chose, which shares ports by destination, natively also with the many in TIME-WAIT; and one that bind() chose, at the addresses
// for which it did not. No matter where `user` is in the way itself.
bool is_settled(const World& world, const File& user, int address) {
  const bool closed = tcp_state(user.fd) == TCP_CLOSE;
  if (closed && (!user.bound || user.end != nullptr)) return false;
  if (user.bound && user.bound_by_number) return true;
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;
  if (is_v6_only(user.fd) || getsockname(user.fd, as_sockaddr(&name), &bytes) != 0) return false;
  const std::string place = world.name_of(name, bytes, 0);
  if (user.bound && place.compare(0, 3, "any") == 0) return true;
  if (place.compare(0, 5, "self6") == 0) return false;
  const bool at_self = is_self(address) && place.compare(0, 4, "self") == 0;
  return at_self ? user.bound || !user.may_share : address == kAny && !user.may_share;
}

}  // namespace

void note_accepted(World& world, File* listener, int slot, int fd) { accepted(world, listener, slot, fd, remote_port(fd)); }

void note_connecting_to_nobody(World& world, File* file) { begin_connection(world, file, {kNobody, world.fixed_port(3)}, true); }

void run_socket(World& world, const int* args) {
  const int fd = socket(args[1], SOCK_STREAM | args[2], 0);
  world.note_result(fd);
  if (fd >= 0) world.hold(args[0], fd, std::make_shared<File>());
}

void run_bind(World& world, const int* args) {
  bind_to(world, args[0], args[1], args[2] == 0 ? static_cast<uint16_t>(0) : world.claim_fixed_port(args[2] - 1));
}

void run_bind_used(World& world, const int* args) {
  const File* user = world.file(args[2]);
  if (user != nullptr && local_port(user->fd) != 0 && !is_settled(world, *user, args[1])) return world.note(" unsettled");
  bind_to(world, args[0], args[1], local_port(world.fd(args[2])));
}

void run_listen(World& world, const int* args) {
  File* file = world.file(args[0]);
  if (file != nullptr && file->kind == FileKind::socket && file->is_the_kernels) return world.leave_out(kGoneToKernel);
  // Two listeners at one port (SO_REUSEPORT) share what comes by a hash of the addresses: nobody's promise.
  if (file != nullptr && file->kind == FileKind::socket && world.port_is_listened_at(local_port(file->fd))) return world.note(" shared");
  const int result = listen(world.fd(args[0]), args[1]);
  world.note_result(result);
  if (result != 0 || file == nullptr) return;
  file->kind = FileKind::listener;
  file->end = nullptr;
  file->bound = true;
  file->backlog = args[1];
  note_listener(file);
  if (file->address6 == kLoop6 || file->address_be == htonl(INADDR_LOOPBACK)) file->is_the_kernels = true;
}

void run_connect(World& world, const int* args) {
  const File* to = world.file(args[2]);
  Target target{args[1], to == nullptr ? world.fixed_port(3) : to->port != 0 ? to->port : local_port(to->fd)};
  target.listener = world.listener_at(target.address, target.port);
  connect_to(world, args[0], target);
}

void run_connect_peer(World& world, const int* args) {
  PeerSlot& peer = world.peers[args[2]];
  Target target{kPeer, peer.port};
  if (peer.port != 0 && args[1] != kNobody) {
    target.address = address_of_peer(world.fd(args[0]), peer);
    if (!peer.datagrams) target.peer = &peer;
  } else {
    target = {args[1] == kNobody ? kNobody : kPeer, kNobodysPort};
  }
  connect_to(world, args[0], target);
}

void run_connect_port(World& world, const int* args) {
  // Not a fixed port of the peer's: over a veth its address is the kernel's as well, where our wildcard listeners listen.
  Target target{args[1], args[1] == kPeer ? kNobodysPort : world.fixed_port(args[2])};
  target.listener = world.listener_at(target.address, target.port);
  connect_to(world, args[0], target);
}

void run_disconnect(World& world, const int* args) {
  sockaddr_storage name{};
  name.ss_family = AF_UNSPEC;
  File* file = world.file(args[0]);
  End* end = file == nullptr ? nullptr : file->end;
  if (is_datagram(file)) return disconnect_datagram(world, file);
  if (end != nullptr && end->other == nullptr && end->answered && !end->reset) return world.note(" not accepted");
  if (end != nullptr) world.await_acknowledged(end);
  const int result = connect(world.fd(args[0]), as_sockaddr(&name), sizeof(sockaddr_in));
  world.note_result(result);
  if (result != 0 || file == nullptr) return;
  if (file->kind == FileKind::listener) world.forget_waiting(file);
  if (file->kind == FileKind::listener || end != nullptr) file->bound = file->bound_by_number;
  file->shut = 0;
  if (end != nullptr) file->failed = file->has_ended = true;
  file->kind = FileKind::socket;
  file->end = nullptr;
  if (end == nullptr) return;
  end->file = nullptr;
  end->gone = end->fin = true;
  if (end->other != nullptr) {
    end->other->reset = true;
    world.settle(end->other);
  }
}

void run_accept(World& world, const int* args) {
  const int fd = world.fd(args[0]);
  File* file = world.file(args[0]);
  if (file != nullptr && file->kind == FileKind::listener && !file->waiting.empty()) await_waiting(*file);
  if (file != nullptr && file->kind == FileKind::listener && !is_nonblocking(fd) && (level(fd, POLLIN) & POLLIN) == 0)
    return world.note(" blocks");
  const uint16_t expected = file == nullptr || file->waiting.empty() ? static_cast<uint16_t>(0) : file->waiting.front()->local_port;
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;
  const bool with_name = args[3] == 0;
  const int made = accept4(fd, with_name ? as_sockaddr(&name) : nullptr, with_name ? &bytes : nullptr, args[2]);
  world.note_result(made);
  if (made < 0) return;
  if (with_name) world.note(" %s", world.name_of(name, bytes, expected).c_str());
  accepted(world, file, args[1], made, with_name ? port_of(name) : remote_port(made));
}

void run_shutdown(World& world, const int* args) {
  File* file = world.file(args[0]);
  const int result = shutdown(world.fd(args[0]), args[1]);
  world.note_result(result);
  if (file == nullptr) return;
  if (result != 0 && errno == ENOTCONN) file->shut |= args[1] + 1;
  if (result != 0) return;
  if (file->kind == FileKind::listener && args[1] != SHUT_WR) {
    file->kind = FileKind::socket;
    file->shut = 0;
    file->bound = file->bound_by_number;
    world.forget_waiting(file);
    return;
  }
  if (file->end == nullptr) return;
  if (args[1] != SHUT_WR) file->end->shut_read = true;
  if (file->end->other == nullptr && !file->end->answered) {
    file->failed = file->has_ended = true;
    file->shut = 0;
    file->bound = file->bound_by_number;
  }
  if (args[1] != SHUT_RD) {
    if (file->failed) file->end->reset = true;
    world.note_fin(file->end);
  }
}

void run_close(World& world, const int* args) {
  if (world.file(args[0]) == nullptr) return world.note_result(close(world.fd(args[0])));
  const int result = world.close_slot(args[0]);
  world.note_result(result);
}

void run_dup(World& world, const int* args) {
  const int made = dup(world.fd(args[0]));
  world.note_result(made);
  if (made < 0) return;
  const auto file = world.shared(args[0]);
  world.hold(args[1], made, file);
}

void run_dup_from(World& world, const int* args) {
  const int made = fcntl(world.fd(args[0]), args[2] % 2 == 0 ? F_DUPFD : F_DUPFD_CLOEXEC, args[2]);
  world.note_result(made);
  if (made < 0) return;
  const auto file = world.shared(args[0]);
  world.hold(args[1], made, file);
}

namespace {

void duplicate_onto(World& world, int from, int to, int result, bool had_unread) {
  world.note_result(result);
  if (result < 0 || from == to || world.file(from) == nullptr || world.file(to) == nullptr) return;
  const auto replaced = world.shared(to);
  const bool was_last = replaced.use_count() == 2;
  world.replace(to, world.shared(from));
  world.find_descriptor(replaced);
  if (was_last) world.released(replaced, had_unread);
}

bool loses_unread(World& world, int slot) {
  const bool loses = world.file(slot) != nullptr && world.file(slot)->kind == FileKind::stream && world.last_reference(slot) &&
                     unread_bytes(world.fd(slot)) > 0;
  if (loses) world.await_acknowledged(world.file(slot)->end);
  return loses;
}

}  // namespace

void run_dup2(World& world, const int* args) {
  if (world.fd(args[0]) >= 0 && world.fd(args[1]) < 0) return world.note(" onto nothing");
  const bool had_unread = loses_unread(world, args[1]);
  duplicate_onto(world, args[0], args[1], dup2(world.fd(args[0]), world.fd(args[1])), had_unread);
}

void run_dup3(World& world, const int* args) {
  if (world.fd(args[0]) >= 0 && world.fd(args[1]) < 0) return world.note(" onto nothing");
  const bool had_unread = loses_unread(world, args[1]);
  const int flags = (args[2] & SOCK_CLOEXEC) != 0 ? O_CLOEXEC : 0;
  duplicate_onto(world, args[0], args[1], dup3(world.fd(args[0]), world.fd(args[1]), flags), had_unread);
}

void run_peer_listen(World& world, const int* args) {
  run_peer_close(world, args);
  const AgentReply reply = world.agent.call(AgentCall::listen, -1, args[1]);
  PeerSlot& peer = world.peers[args[0]];
  peer.family = args[1];
  peer.fd = reply.result;
  peer.port = static_cast<uint16_t>(reply.port);
}

void run_peer_connect(World& world, const int* args) {
  File* listener = world.file(args[1]);
  if (listener == nullptr || listener->kind != FileKind::listener) return world.note(" nowhere");
  if (Target{kSelf, listener->port, listener, nullptr}.full()) return world.note(" full");
  if (!listener->waiting.empty() && listener->waiting.back()->by_loopback) return world.leave_out(kAcceptOrder);
  run_peer_close(world, args);
  const AgentReply reply = world.agent.call(AgentCall::connect, -1, listener->port, args[2]);
  PeerSlot& peer = world.peers[args[0]];
  End* end = world.new_end();
  end->agent_fd = reply.result;
  end->local_port = static_cast<uint16_t>(reply.port);
  end->remote_port = listener->port;
  peer = {reply.result, 0, {}, end};
  if (world.answers(*listener, args[2] == AF_INET6 ? kSelf6 : kSelf)) end->listener = listener;
  for (int turn = 0; turn < 3; turn++) (void)level(listener->fd, POLLIN);
  const AgentReply there = world.agent.call(AgentCall::look, reply.result, 0, 0, world.expected_at(*end));
  world.note(" revents %#x%s", static_cast<unsigned>(there.revents), there.arrived ? "" : " (not arrived)");
  if (end->listener == nullptr) return;
  listener->waiting.push_back(end);
  await_waiting(*listener);
}

void run_peer_accept(World& world, const int* args) {
  PeerSlot& listener = world.peers[args[0]];
  if (listener.port == 0 || listener.waiting.empty() || args[0] == args[1]) return world.note(" nobody");
  run_peer_close(world, args + 1);
  const uint16_t expected = listener.waiting.front()->local_port;
  const AgentReply reply = world.agent.call(AgentCall::accept, listener.fd);
  errno = reply.error;
  world.note_result(reply.result);
  if (reply.result < 0) return;
  bool first = true;
  End* theirs = take_waiting(listener.waiting, static_cast<uint16_t>(reply.port), &first);
  if (reply.port != expected) world.note(" out of turn");
  End* end = world.new_end();
  end->agent_fd = reply.result;
  end->local_port = listener.port;
  end->remote_port = static_cast<uint16_t>(reply.port);
  join(end, theirs);
  world.peers[args[1]] = {reply.result, 0, {}, end};
}

}  // namespace random_sequences
