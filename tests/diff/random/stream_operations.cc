// Moving bytes, on both sides of the wire, and what streams say about them.
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "tests/diff/random/datagrams.h"
#include "tests/diff/random/operations.h"
#include "tests/diff/random/world.h"

namespace random_sequences {
namespace {

constexpr unsigned kRoom = 65536;
// A connection never has more than this on its way: what fits into buffers is not what is compared here.
constexpr uint32_t kMostUnread = 12'000;
constexpr unsigned kMostHeld = 500;  // less than any segment

char bytes_in[kRoom];
char bytes_out[kRoom];

// The call's view of `total` bytes: parts of different lengths, one of them empty.
int split(char* data, unsigned total, iovec* parts) {
  const unsigned first = total / 3;
  parts[0] = {data, first};
  parts[1] = {data + first, 0};
  parts[2] = {data + first, total - first};
  return 3;
}

struct Received {
  long result;
  unsigned bytes;  // that came, in the order of bytes_in
};

Received receive_message(World& world, int fd, unsigned total, int flags) {
  iovec parts[3];
  sockaddr_storage name;
  char control[64];
  msghdr message{};
  message.msg_name = &name;
  message.msg_namelen = sizeof name;
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<size_t>(split(bytes_in, total, parts));
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const long result = recvmsg(fd, &message, flags);
  if (result >= 0)
    world.note(" [name %u control %zu flags %#x]", message.msg_namelen, message.msg_controllen, static_cast<unsigned>(message.msg_flags));
  return {result, result > 0 ? static_cast<unsigned>(result) : 0};
}

Received receive_messages(World& world, int fd, unsigned total, int flags) {
  iovec parts[2] = {{bytes_in, total / 2}, {bytes_in + total / 2, total - total / 2}};
  mmsghdr messages[2]{};
  for (int i = 0; i < 2; i++) {
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  const int result = recvmmsg(fd, messages, 2, flags | MSG_WAITFORONE, nullptr);
  unsigned bytes = 0;
  for (int i = 0; i < result; i++) {
    world.note(" [%u]", messages[i].msg_len);
    if (i == 1) memmove(bytes_in + bytes, parts[1].iov_base, messages[1].msg_len);
    bytes += messages[i].msg_len;
  }
  return {result, bytes};
}

Received call_receive(World& world, int fd, int call, unsigned total, int flags) {
  iovec parts[3];
  sockaddr_storage name;
  socklen_t name_bytes = sizeof name;
  long result;
  switch (call) {
    case kRead: result = read(fd, bytes_in, total); break;
    case kRecv: result = recv(fd, bytes_in, total, flags); break;
    case kRecvfrom:
      result = recvfrom(fd, bytes_in, total, flags, reinterpret_cast<sockaddr*>(&name), &name_bytes);
      if (result >= 0) world.note(" [name %u]", name_bytes);
      break;
    case kRecvmsg: return receive_message(world, fd, total, flags);
    case kReadv: result = readv(fd, parts, split(bytes_in, total, parts)); break;
    default: return receive_messages(world, fd, total, flags);
  }
  return {result, result > 0 ? static_cast<unsigned>(result) : 0};
}

// Where a look begins (SO_PEEK_OFF).
unsigned peek_offset(int fd, int flags) {
  int offset = -1;
  socklen_t bytes = sizeof offset;
  if ((flags & MSG_PEEK) != 0) (void)getsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &bytes);
  return offset > 0 ? static_cast<unsigned>(offset) : 0;
}

// A look for no bytes behind what there is waits as well, and ends with whatever wakes it (tcp_recvmsg_locked()).
bool receive_would_block(int fd, unsigned total, int flags) {
  if (is_nonblocking(fd) || (flags & MSG_DONTWAIT) != 0) return false;
  const short now = level(fd, POLLIN | POLLRDHUP);
  if (now == 0) return true;
  const unsigned offset = peek_offset(fd, flags), least = (flags & MSG_WAITALL) != 0 ? total : offset > 0 ? 1 : 0;
  return (now & (POLLRDHUP | POLLHUP | POLLERR)) == 0 && unread_bytes(fd) < offset + least;
}

long send_message(int fd, unsigned total, int flags) {
  iovec parts[3];
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = static_cast<size_t>(split(bytes_out, total, parts));
  return sendmsg(fd, &message, flags);
}

long send_messages(World& world, int fd, unsigned total, int flags, unsigned* moved) {
  iovec parts[2] = {{bytes_out, total / 2}, {bytes_out + total / 2, total - total / 2}};
  mmsghdr messages[2]{};
  for (int i = 0; i < 2; i++) {
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  const int result = sendmmsg(fd, messages, 2, flags);
  for (int i = 0; i < result; i++) {
    world.note(" [%u]", messages[i].msg_len);
    *moved += messages[i].msg_len;
  }
  return result;
}

long call_send(World& world, int fd, int call, unsigned total, int flags, unsigned* moved) {
  iovec parts[3];
  long result;
  switch (call) {
    case kWrite: result = write(fd, bytes_out, total); break;
    case kSend: result = send(fd, bytes_out, total, flags); break;
    case kSendto: result = sendto(fd, bytes_out, total, flags, nullptr, 0); break;
    case kSendmsg: result = send_message(fd, total, flags); break;
    case kWritev: result = writev(fd, parts, split(bytes_out, total, parts)); break;
    default: return send_messages(world, fd, total, flags, moved);
  }
  if (result > 0) *moved = static_cast<unsigned>(result);
  return result;
}

uint32_t on_the_way(const End* end) { return end == nullptr ? 0 : end->sent - (end->other == nullptr ? 0 : end->other->read); }

// The books of a send.
void sent(World& world, File* file, unsigned moved) {
  End* end = file == nullptr ? nullptr : file->end;
  if (end == nullptr) return;
  World::note_sent(end, moved);
  world.settle(end->other);
  world.settle(end);
}

bool will_be_reset(const End* end) { return end != nullptr && World::resets_data(*end); }

bool send_is_left_out(World& world, int slot, unsigned total, int flags) {
  const File* file = world.file(slot);
  if (file == nullptr) return false;
  if (on_the_way(file->end) + total > kMostUnread) {
    world.note(" too much");
    return true;
  }
  if (is_nonblocking(file->fd) || (flags & MSG_DONTWAIT) != 0 || (level(file->fd, POLLOUT) & (POLLOUT | POLLERR)) != 0) return false;
  world.note(" blocks");
  return true;
}

int source_file() {
  static const int made = [] {
    const int fd = memfd_create("source", MFD_CLOEXEC);
    fill(bytes_out, kRoom, 7);
    if (write(fd, bytes_out, kRoom) != kRoom) perror("memfd");
    const int high = fcntl(fd, F_DUPFD_CLOEXEC, 700);  // which low numbers are free decides what accept() says
    close(fd);
    return high;
  }();
  return made;
}

}  // namespace

void run_receive(World& world, const int* args) {
  const int fd = world.fd(args[0]);
  File* file = world.file(args[0]);
  if (is_datagram(file)) return receive_datagrams(world, args);
  const bool takes_flags = args[1] != kRead && args[1] != kReadv;
  const int flags = takes_flags ? args[3] : 0;
  const unsigned total = static_cast<unsigned>(args[2]);
  if (fd >= 0 && receive_would_block(fd, total, flags)) return world.note(" blocks");
  memset(bytes_in, 0, std::min(kRoom, total + 1));
  const Received got = call_receive(world, fd, args[1], total, flags);
  world.note_result(got.result);
  if (got.bytes > 0) world.note(" #%08x", digest(bytes_in, got.bytes));
  if (file == nullptr || file->end == nullptr || (flags & MSG_PEEK) != 0) return;
  file->end->read += got.bytes;
}

void run_send(World& world, const int* args) {
  const unsigned total = static_cast<unsigned>(args[2]);
  const bool takes_flags = args[1] != kWrite && args[1] != kWritev;
  const int flags = takes_flags ? args[3] : 0;
  if (is_datagram(world.file(args[0]))) return send_to_ones_peer(world, args);
  if (send_is_left_out(world, args[0], total, flags)) return;
  // The answer to the first message ends the connection before the second, or after it.
  if (args[1] == kSendmmsg && world.file(args[0]) != nullptr && will_be_reset(world.file(args[0])->end)) return world.note(" too late");
  fill(bytes_out, total, static_cast<unsigned>(world.step));
  unsigned moved = 0;
  world.note_result(call_send(world, world.fd(args[0]), args[1], total, flags, &moved));
  sent(world, world.file(args[0]), moved);
}

// What a cork holds back is not there yet, and what ends the cork sends it. In one operation, since any segment that comes meanwhile sends
// it too.
void run_corked(World& world, const int* args) {
  const unsigned first = static_cast<unsigned>(args[1]) % kMostHeld + 1, second = static_cast<unsigned>(args[2]) % kMostHeld + 1;
  File* file = world.file(args[0]);
  const int fd = world.fd(args[0]);
  if (file == nullptr || file->end == nullptr || will_be_reset(file->end)) return world.note(" nothing");
  if (send_is_left_out(world, args[0], first + second, 0)) return;
  world.await_acknowledged(file->end);
  const int on = 1, off = 0;
  if (args[3] == kOptionOnOff) (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
  fill(bytes_out, first + second, static_cast<unsigned>(world.step));
  const ssize_t held = send(fd, bytes_out, first, MSG_NOSIGNAL | (args[3] == kOptionOnOff ? 0 : MSG_MORE));
  world.note_result(held);
  const End* other = file->end->other;
  for (int turn = 0; turn < 3 && other != nullptr && other->file != nullptr; turn++) (void)level(other->file->fd, 0);
  if (held > 0 && other != nullptr && other->file != nullptr) world.note(" (%u unread)", unread_bytes(other->file->fd));
  ssize_t rest = 0;
  if (args[3] == kMoreThenSend) rest = send(fd, bytes_out + first, second, MSG_NOSIGNAL);
  if (args[3] == kOptionOnOff) rest = setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
  if (args[3] == kMoreThenNodelay) rest = setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (args[3] == kMoreThenShutdown) rest = shutdown(fd, SHUT_WR);
  world.note_result(rest);
  sent(world, file, static_cast<unsigned>((held > 0 ? held : 0) + (rest > 0 ? rest : 0)));
  if (args[3] == kMoreThenShutdown && rest == 0) world.note_fin(file->end);
}

void run_sendfile(World& world, const int* args) {
  const unsigned total = static_cast<unsigned>(args[1]);
  if (is_datagram(world.file(args[0]))) return world.note(" datagrams");
  if (send_is_left_out(world, args[0], total, 0)) return;
  off_t offset = args[2];
  const int source = source_file();
  if (args[2] < 0) (void)lseek(source, 100, SEEK_SET);
  const ssize_t result = sendfile(world.fd(args[0]), source, args[2] < 0 ? nullptr : &offset, total);
  world.note_result(result);
  world.note(" at %ld", static_cast<long>(args[2] < 0 ? lseek(source, 0, SEEK_CUR) : offset));
  sent(world, world.file(args[0]), result > 0 ? static_cast<unsigned>(result) : 0);
}

void run_unread(World& world, const int* args) {
  int count = -1;
  world.note_result(ioctl(world.fd(args[0]), FIONREAD, &count));
  world.note(" %d", count);
}

// What is not acknowledged depends on when the other side does that: only that it ends at 0 can be compared.
void run_unsent(World& world, const int* args) {
  const File* file = world.file(args[0]);
  int count = -1;
  const int result = ioctl(world.fd(args[0]), SIOCOUTQ, &count);
  world.note_result(result);
  if (result != 0 || file == nullptr || file->end == nullptr || file->end->other == nullptr || file->end->other->gone || file->end->reset)
    return;
  Patience patience(1'000'000);
  while (count != 0 && patience.goes_on()) {
    (void)level(file->fd, 0);
    (void)ioctl(file->fd, SIOCOUTQ, &count);
  }
  world.note(" %d", count);
}

void run_at_mark(World& world, const int* args) {
  int mark = -1;
  world.note_result(ioctl(world.fd(args[0]), SIOCATMARK, &mark));
  world.note(" %d", mark);
}

// A child does one thing with what it inherits and ends. Its status is the result, or 100 and errno.
void run_fork(World& world, const int* args) {
  File* file = world.file(args[0]);
  const int fd = world.fd(args[0]);
  const int what = args[1];
  if (what == 1 && (is_datagram(file) || send_is_left_out(world, args[0], 10, MSG_DONTWAIT))) return;
  fill(bytes_out, 10, static_cast<unsigned>(world.step));
  const pid_t child = fork();
  if (child == 0) {
    long result = 0;
    if (what == 1) result = send(fd, bytes_out, 10, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (what == 2) result = recv(fd, bytes_in, 20, MSG_DONTWAIT);
    if (what == 3) result = shutdown(fd, SHUT_WR);
    if (what == 4) result = close(fd);
    _exit(result < 0 ? 100 + errno : static_cast<int>(result));
  }
  int status = -1;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  world.note(" status %#x", static_cast<unsigned>(status));
  const unsigned result = WIFEXITED(status) && WEXITSTATUS(status) < 100 ? static_cast<unsigned>(WEXITSTATUS(status)) : 100;
  if (file == nullptr || file->end == nullptr || result == 100) return;
  if (what == 1) sent(world, file, result);
  if (what == 2) file->end->read += result;
  if (what == 3) world.note_fin(file->end);
}

namespace {

// The call on the peer's end of a connection, once everything has arrived there; the trace tells how that end stood.
AgentReply call_peer(World& world, PeerSlot& peer, AgentCall call, int a = 0) {
  Arrival before;
  if (peer.end != nullptr) before = world.expected_at(*peer.end);
  const AgentReply reply = world.agent.call(call, peer.fd, a, world.step, before);
  if (call != AgentCall::shutdown && peer.end != nullptr)
    world.note(" (revents %#x, %u unread%s)", static_cast<unsigned>(reply.revents), reply.unread, reply.arrived ? "" : ", not arrived");
  errno = reply.error;
  return reply;
}

PeerSlot* stream_of_peer(World& world, int slot) {
  PeerSlot& peer = world.peers[slot];
  if (peer.fd >= 0 && peer.end != nullptr) return &peer;
  world.note(" nothing");
  return nullptr;
}

void end_peer(World& world, int slot, bool reset) {
  PeerSlot& peer = world.peers[slot];
  if (peer.fd < 0) return;
  const AgentReply reply = call_peer(world, peer, reset ? AgentCall::reset : AgentCall::close);
  for (End* end : peer.waiting) {
    end->reset = true;
    world.settle(end);
  }
  End* end = peer.end;
  peer = {};
  if (end == nullptr) return;
  end->agent_fd = -1;
  end->fin = end->gone = true;
  if (end->other == nullptr) return;
  if (reset || reply.unread > 0) end->other->reset = true;
  world.settle(end->other);
}

}  // namespace

void run_peer_send(World& world, const int* args) {
  PeerSlot* peer = stream_of_peer(world, args[0]);
  if (peer == nullptr) return;
  if (on_the_way(peer->end) + static_cast<uint32_t>(args[1]) > kMostUnread) return world.note(" too much");
  const AgentReply reply = call_peer(world, *peer, AgentCall::send, args[1]);
  world.note_result(reply.result);
  if (reply.result <= 0) return;
  World::note_sent(peer->end, static_cast<unsigned>(reply.result));
  world.settle(peer->end->other);
}

void run_peer_receive(World& world, const int* args) {
  if (world.peers[args[0]].datagrams) return receive_at_peer(world, args);
  PeerSlot* peer = stream_of_peer(world, args[0]);
  if (peer == nullptr) return;
  const AgentReply reply = call_peer(world, *peer, AgentCall::receive, args[1]);
  world.note_result(reply.result);
  if (reply.result <= 0) return;
  world.note(" #%08x", reply.digest);
  peer->end->read += static_cast<uint32_t>(reply.result);
}

void run_peer_shutdown(World& world, const int* args) {
  PeerSlot* peer = stream_of_peer(world, args[0]);
  if (peer == nullptr) return;
  const AgentReply reply = call_peer(world, *peer, AgentCall::shutdown, args[1]);
  world.note_result(reply.result);
  if (reply.result != 0) return;
  if (args[1] != SHUT_WR) peer->end->shut_read = true;
  if (args[1] == SHUT_RD) return;
  peer->end->fin = true;
  world.settle(peer->end->other);
}

void run_peer_close(World& world, const int* args) { end_peer(world, args[0], false); }
void run_peer_reset(World& world, const int* args) { end_peer(world, args[0], true); }

void run_peer_look(World& world, const int* args) {
  PeerSlot* peer = stream_of_peer(world, args[0]);
  if (peer != nullptr) (void)call_peer(world, *peer, AgentCall::look);
}

}  // namespace random_sequences
