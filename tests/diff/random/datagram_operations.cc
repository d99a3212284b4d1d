// Datagram sockets: where a datagram may go without its fate depending on time, and what receives tell.
// SPDX-License-Identifier: BSD-3-Clause
//
// Behind each operation that sends stands a barrier (barrier.h). Little is left out besides: what buffers hold, who of several that share a
// port by SO_REUSEPORT gets a datagram, and rows of docs/differences.md.
#include "tests/diff/random/datagrams.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

#include "tests/diff/random/exclusions.h"
#include "tests/diff/random/operations.h"

namespace random_sequences {
namespace {

constexpr unsigned kRoom = 70'000;
constexpr unsigned kMostDatagrams = 16, kMostBytes = 24'000;  // unread at a port: less than any receive buffer is given
constexpr int kMessages = 3;                                  // of a sendmmsg() or recvmmsg()

char bytes_in[kMessages][kRoom];
char bytes_out[kRoom];

// Where a datagram goes; a socket's own peer has no name to give.
struct Way {
  int address = -1;
  uint16_t port = 0;
  sockaddr_storage name{};
  socklen_t bytes = 0;
};

Way way_to(World& world, int address, uint16_t port) {
  Way made{address, port, {}, 0};
  made.bytes = world.address(address, port, &made.name);
  return made;
}

// The class of the address that a connected socket has as its peer; -1 if it is not connected.
Way way_to_ones_peer(World& world, int fd) {
  Way made;
  socklen_t bytes = sizeof made.name;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&made.name), &bytes) != 0) return {};
  made.port = port_of(made.name);
  for (const int kind : {kSelf, kPeer, kLoop, kLoop6, kSelfMapped, kLoopMapped, kSelf6, kPeer6, kPeerMapped}) {
    sockaddr_storage name;
    const unsigned length = world.address(kind, made.port, &name);
    if (length == bytes && memcmp(&name, &made.name, length) == 0) made.address = kind;
  }
  return made;
}

PeerSlot* peer_at(World& world, const Way& way) {
  for (PeerSlot& peer : world.peers) {
    if (peer.datagrams && peer.port == way.port && (peer.family == AF_INET6) == (way.address == kPeer6)) return &peer;
  }
  return nullptr;
}

bool is_peer(int address) { return address == kPeer || address == kPeer6 || address == kPeerMapped; }

bool has_option(int fd, int level, int number) {
  int value = 0;
  socklen_t bytes = sizeof value;
  return getsockopt(fd, level, number, &value, &bytes) == 0 && value != 0;
}

// What it is connected to, or bound to, is on the kernel's side, or on the stack's.
bool is_of_side(World& world, const File& file, bool kernel) {
  const Way peer = way_to_ones_peer(world, file.fd);
  if (peer.address >= 0) return is_loopback(peer.address) == kernel;
  return kernel ? file.bound_to_loop : file.bound_to_self;
}

// Whether the datagram sockets of ours at this port leave it open what becomes of a datagram to it.
bool is_left_out_at(World& world, uint16_t port, bool by_kernel, unsigned datagrams, unsigned total) {
  if (port == 0) return false;
  const File* seen[kSlots] = {};
  int sharing = 0;
  bool readable = false, deaf = false;
  for (int slot = 0; slot < kSlots; slot++) {
    const File* one = world.file(slot);
    if (!is_datagram(one) || std::find(seen, seen + kSlots, one) != seen + kSlots || local_port(one->fd) != port) continue;
    seen[slot] = one;
    sharing += has_option(one->fd, SOL_SOCKET, SO_REUSEPORT);
    readable |= (level(one->fd, POLLIN) & POLLIN) != 0;
    deaf |= by_kernel && is_of_side(world, *one, false);
  }
  Inbox& inbox = world.inboxes[port];
  if (!readable) inbox = {};
  if (sharing > 1) return world.note(" shared"), true;
  if (deaf) return world.leave_out(kDeaf), true;
  if (inbox.datagrams != 0 && inbox.by_kernel != by_kernel) return world.leave_out(kDatagramOrder), true;
  if (inbox.datagrams + datagrams > kMostDatagrams || inbox.bytes + total > kMostBytes) return world.note(" full"), true;
  inbox.datagrams += datagrams;
  inbox.bytes += total;
  inbox.by_kernel = by_kernel;
  return false;
}

// Who gets a name comes to both sides, and what it was shut for is told once more where edges are told.
bool tells_again(const File& file) {
  return file.has_edges && local_port(file.fd) == 0 && level(file.fd, POLLIN | POLLRDHUP) != 0;
}

// Who of several at one port and address is told of a refusal is nobody's promise.
bool shares_port(World& world, const File& from) {
  int sharing = 0;
  for (int slot = 0; slot < kSlots; slot++) {
    const File* one = world.file(slot);
    sharing +=
        is_datagram(one) && one != &from && has_option(one->fd, SOL_SOCKET, SO_REUSEPORT) && local_port(one->fd) == local_port(from.fd);
  }
  return sharing > 0 && has_option(from.fd, SOL_SOCKET, SO_REUSEPORT) && local_port(from.fd) != 0;
}

bool send_is_left_out(World& world, const File& from, const Way& way, unsigned datagrams, unsigned total) {
  if (shares_port(world, from)) return world.note(" shared"), true;
  if (tells_again(from)) return world.leave_out(kDatagramEdges), true;
  // An error of one side's is told by what is sent there.
  if ((level(from.fd, 0) & POLLERR) != 0 && !from.bound_to_self && !from.bound_to_loop && way_to_ones_peer(world, from.fd).port == 0)
    return world.leave_out(kDatagramOrder), true;
  if (from.has_vague_peer) return world.note(" vague"), true;
  if (way.address < 0 || way.address == kForeign || way.address == kNobody) return false;
  if (is_peer(way.address)) {
    if (is_of_side(world, from, true)) return world.leave_out(kSourceAddress), true;
    PeerSlot* const peer = peer_at(world, way);
    if (peer == nullptr && datagrams > 1) return world.note(" refused"), true;  // before the second is sent, or after it
    if (peer == nullptr) return false;
    if (peer->queued + datagrams > kMostDatagrams || total > kMostBytes / 2) return world.note(" full"), true;
    peer->queued += datagrams;
    return false;
  }
  const bool by_kernel = is_loopback(way.address);
  if (is_of_side(world, from, !by_kernel)) return world.leave_out(kSourceAddress), true;
  return is_left_out_at(world, way.port, by_kernel, datagrams, total);
}

// The call's view of `total` bytes: parts of different lengths, one of them empty.
int split(char* data, unsigned total, iovec* parts) {
  const unsigned first = total / 3;
  parts[0] = {data, first};
  parts[1] = {data + first, 0};
  parts[2] = {data + first, total - first};
  return 3;
}

long send_message(int fd, const Way& way, unsigned total, int flags) {
  iovec parts[3];
  msghdr message{};
  message.msg_name = way.bytes == 0 ? nullptr : const_cast<sockaddr_storage*>(&way.name);
  message.msg_namelen = way.bytes;
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<size_t>(split(bytes_out, total, parts));
  return sendmsg(fd, &message, flags);
}

long send_messages(World& world, int fd, const Way& way, unsigned total, int flags) {
  iovec parts[kMessages] = {{bytes_out, total}, {bytes_out, 0}, {bytes_out, total / 2}};
  mmsghdr messages[kMessages]{};
  for (int i = 0; i < kMessages; i++) {
    msghdr& message = messages[i].msg_hdr;
    message.msg_name = way.bytes == 0 ? nullptr : const_cast<sockaddr_storage*>(&way.name);
    message.msg_namelen = way.bytes;
    message.msg_iov = &parts[i];
    message.msg_iovlen = 1;
  }
  const int result = sendmmsg(fd, messages, kMessages, flags);
  for (int i = 0; i < result; i++) world.note(" [%u]", messages[i].msg_len);
  return result;
}

long call_send(World& world, int fd, const Way& way, int call, unsigned total, int flags) {
  iovec parts[3];
  const auto* const name = way.bytes == 0 ? nullptr : reinterpret_cast<const sockaddr*>(&way.name);
  switch (call) {
    case kWrite: return write(fd, bytes_out, total);
    case kWritev: return writev(fd, parts, split(bytes_out, total, parts));
    case kSend: return send(fd, bytes_out, total, flags);
    case kSendto: return sendto(fd, bytes_out, total, flags, name, way.bytes);
    case kSendmsg: return send_message(fd, way, total, flags);
    default: return send_messages(world, fd, way, total, flags);
  }
}

// `way.bytes` 0: the call gives no name.
void send_on(World& world, int slot, const Way& way, const Way& there, int call, unsigned total, int flags) {
  const int fd = world.fd(slot);
  const bool many = call == kSendmmsg;
  File* const file = world.file(slot);
  if (is_datagram(file) && send_is_left_out(world, *file, there, many ? kMessages : 1, many ? 2 * total : total)) return;
  fill(bytes_out, total, static_cast<unsigned>(world.step));
  const long result = call_send(world, fd, way, call, total, flags);
  world.note_result(result);
  if (!is_datagram(file)) return;
  note_datagram_port(world, slot);
  world.await_barrier();
}

std::string name_of(World& world, const sockaddr_storage& name, socklen_t bytes) {
  const auto known = world.datagram_ports.find(port_of(name));
  std::string text = world.name_of(name, bytes, 0);
  if (known != world.datagram_ports.end() && text.find(":some/") != std::string::npos)
    text.replace(text.find(":some/"), 5, ":" + known->second);
  return text;
}

void note_control(World& world, msghdr* message) {
  for (cmsghdr* one = CMSG_FIRSTHDR(message); one != nullptr; one = CMSG_NXTHDR(message, one)) {
    world.note(" {%d %d/%zu", one->cmsg_level, one->cmsg_type, one->cmsg_len);
    if ((one->cmsg_level == IPPROTO_IP && one->cmsg_type == IP_RECVERR) ||
        (one->cmsg_level == IPPROTO_IPV6 && one->cmsg_type == IPV6_RECVERR)) {
      sock_extended_err error;
      memcpy(&error, CMSG_DATA(one), sizeof error);
      world.note(" error %u of %u: %u %u, %u", error.ee_errno, error.ee_origin, error.ee_type, error.ee_code, error.ee_info);
    }
    world.note("}");
  }
}

long receive_message(World& world, int fd, unsigned total, int flags) {
  iovec parts[3];
  sockaddr_storage name{};
  char control[256];
  msghdr message{};
  message.msg_name = &name;
  message.msg_namelen = sizeof name;
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<size_t>(split(bytes_in[0], total, parts));
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const long result = recvmsg(fd, &message, flags);
  if (result < 0) return result;
  world.note(" [%s flags %#x]", name_of(world, name, message.msg_namelen).c_str(), static_cast<unsigned>(message.msg_flags));
  note_control(world, &message);
  return result;
}

long receive_messages(World& world, int fd, unsigned total, int flags) {
  iovec parts[kMessages];
  sockaddr_storage names[kMessages]{};
  mmsghdr messages[kMessages]{};
  for (int i = 0; i < kMessages; i++) {
    parts[i] = {bytes_in[i], total};
    messages[i].msg_hdr.msg_name = &names[i];
    messages[i].msg_hdr.msg_namelen = sizeof names[i];
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  const int result = recvmmsg(fd, messages, kMessages, flags | MSG_WAITFORONE, nullptr);
  const int error = errno;
  for (int i = 0; i < result; i++) {
    const msghdr& message = messages[i].msg_hdr;
    world.note(" [%u %s flags %#x #%08x]", messages[i].msg_len, name_of(world, names[i], message.msg_namelen).c_str(),
               static_cast<unsigned>(message.msg_flags), digest(bytes_in[i], std::min(messages[i].msg_len, total)));
  }
  errno = error;
  return result;
}

long call_receive(World& world, int fd, int call, unsigned total, int flags) {
  iovec parts[3];
  sockaddr_storage name{};
  socklen_t name_bytes = sizeof name;
  switch (call) {
    case kRead: return read(fd, bytes_in[0], total);
    case kReadv: return readv(fd, parts, split(bytes_in[0], total, parts));
    case kRecv: return recv(fd, bytes_in[0], total, flags);
    case kRecvmsg: return receive_message(world, fd, total, flags);
    case kRecvmmsg: return receive_messages(world, fd, total, flags);
    default: break;
  }
  const long result = recvfrom(fd, bytes_in[0], total, flags, reinterpret_cast<sockaddr*>(&name), &name_bytes);
  if (result >= 0) world.note(" [%s]", name_of(world, name, name_bytes).c_str());
  return result;
}

bool would_block(int fd, int flags) {
  if (is_nonblocking(fd) || (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) != 0) return false;
  if ((flags & MSG_PEEK) != 0 && !has_option(fd, SOL_SOCKET, SO_PEEK_OFF)) return level(fd, POLLIN) == 0;
  const short now = level(fd, POLLIN);
  if ((now & POLLIN) != 0) return (flags & MSG_PEEK) != 0;  // from an offset on there may be nothing
  // An error may be the socket's, which ends the wait, or one of the queue's, which does not.
  return (now & POLLERR) == 0 || has_option(fd, IPPROTO_IP, IP_RECVERR) || has_option(fd, IPPROTO_IPV6, IPV6_RECVERR);
}

}  // namespace

void note_datagram_port(World& world, int slot) {
  const uint16_t port = local_port(world.fd(slot));
  if (port != 0) world.datagram_ports.emplace(port, "s" + std::to_string(slot));
}

void connect_datagram(World& world, File* file, int address, uint16_t port) {
  const bool to_kernel = is_loopback(address);
  if (address != kForeign && is_of_side(world, *file, !to_kernel)) return world.leave_out(kSourceAddress);
  if (to_kernel && (level(file->fd, POLLIN) & (POLLIN | POLLERR)) != 0) return world.leave_out(kDatagramTurn);
  if (file->has_vague_peer) return world.leave_out(kSourceAddress);
  if (tells_again(*file)) return world.leave_out(kDatagramEdges);
  const Way way = way_to(world, address, port);
  const int result = connect(file->fd, reinterpret_cast<const sockaddr*>(&way.name), way.bytes);
  world.note_result(result);
  if (result == 0) file->has_vague_peer = port == 0;
  for (int slot = 0; slot < kSlots; slot++) {
    if (world.file(slot) == file) note_datagram_port(world, slot);
  }
}

void disconnect_datagram(World& world, File* file) {
  sockaddr_storage none{};
  none.ss_family = AF_UNSPEC;
  if (!file->bound_by_number && (level(file->fd, POLLIN) & (POLLIN | POLLERR)) != 0) return world.leave_out(kDatagramTurn);
  const int result = connect(file->fd, reinterpret_cast<const sockaddr*>(&none), sizeof(sockaddr_in));
  world.note_result(result);
}

void run_datagram(World& world, const int* args) {
  const int fd = socket(args[1], SOCK_DGRAM | args[2], 0);
  world.note_result(fd);
  if (fd < 0) return;
  auto file = std::make_shared<File>();
  file->kind = FileKind::datagram;
  file->family = args[1];
  world.hold(args[0], fd, std::move(file));
}

void run_send_to(World& world, const int* args) {
  const File* to = world.file(args[2]);
  uint16_t port = to == nullptr ? world.fixed_port(3) : local_port(to->fd);
  if (is_datagram(to)) note_datagram_port(world, args[2]);
  const Way way = way_to(world, args[1], port);
  send_on(world, args[0], way, way, args[3], static_cast<unsigned>(args[4]), args[5]);
}

void run_send_to_peer(World& world, const int* args) {
  const PeerSlot& peer = world.peers[args[1]];
  const int address = peer.port == 0 ? (is_v6(world.fd(args[0])) ? kPeerMapped : kPeer) : address_of_peer(world.fd(args[0]), peer);
  const Way way = way_to(world, address, peer.port == 0 ? kNobodysPort : peer.port);
  send_on(world, args[0], way, way, args[2], static_cast<unsigned>(args[3]), args[4]);
}

void send_to_ones_peer(World& world, const int* args) {
  const Way there = way_to_ones_peer(world, world.fd(args[0]));
  send_on(world, args[0], Way{}, there, args[1], static_cast<unsigned>(args[2]), args[3]);
}

void receive_datagrams(World& world, const int* args) {
  const int fd = world.fd(args[0]), call = args[1];
  const int flags = call == kRead || call == kReadv ? 0 : args[3];
  const unsigned total = std::min(static_cast<unsigned>(args[2]), kRoom);
  if (would_block(fd, flags)) return world.note(" blocks");
  memset(bytes_in[0], 0, total);
  const long result = call_receive(world, fd, call, total, flags);
  world.note_result(result);
  if (result > 0 && call != kRecvmmsg) world.note(" #%08x", digest(bytes_in[0], std::min(static_cast<unsigned>(result), total)));
}

void run_peer_datagram(World& world, const int* args) {
  run_peer_close(world, args);
  const AgentReply reply = world.agent.call(AgentCall::datagram, -1, args[1]);
  PeerSlot& peer = world.peers[args[0]];
  peer.fd = reply.result;
  peer.port = static_cast<uint16_t>(reply.port);
  peer.family = args[1];
  peer.datagrams = true;
  world.datagram_ports[peer.port] = "p" + std::to_string(args[0]);
}

void run_peer_send_to(World& world, const int* args) {
  const PeerSlot& peer = world.peers[args[0]];
  const File* to = world.file(args[1]);
  if (!peer.datagrams || !is_datagram(to) || local_port(to->fd) == 0) return world.note(" nothing");
  const uint16_t port = local_port(to->fd);
  const unsigned bytes = static_cast<unsigned>(args[2]);
  const unsigned whole = peer.family == AF_INET6 ? 1452 : 1472;  // what is longer comes in fragments, which a kernel puts together
  if (is_left_out_at(world, port, shares_address() && bytes > whole, 1, bytes)) return;
  // An error that what was sent by the kernel has met is told before a datagram that comes by the stack.
  if (shares_address() && (level(to->fd, 0) & POLLERR) != 0) return world.leave_out(kDatagramOrder);
  const AgentReply reply = world.agent.call(AgentCall::send_to, peer.fd, port, args[2], {}, world.step);
  errno = reply.error;
  world.note_result(reply.result);
  world.await_barrier();
}

void receive_at_peer(World& world, const int* args) {
  PeerSlot& peer = world.peers[args[0]];
  const AgentReply reply = world.agent.call(AgentCall::receive, peer.fd, args[1]);
  errno = reply.error;
  world.note_result(reply.result);
  if (reply.result > 0) world.note(" #%08x", reply.digest);
  if (reply.result >= 0 && peer.queued > 0) peer.queued--;
  if (reply.result < 0) peer.queued = 0;
}

}  // namespace random_sequences
