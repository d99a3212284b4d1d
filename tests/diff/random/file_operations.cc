// Flags, options, names, readiness: what a descriptor says about itself.
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "tests/diff/random/exclusions.h"
#include "tests/diff/random/operations.h"
#include "tests/diff/random/world.h"

namespace random_sequences {
namespace {

constexpr short kAllEvents = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLWRNORM;
constexpr int kMostEvents = 64;

int open_flags(int type) { return ((type & SOCK_NONBLOCK) != 0 ? O_NONBLOCK : 0); }

bool is_option(const Option& option, int level, int number) { return option.level == level && option.number == number; }

// The value of an option as the kernel wants it: its length.
unsigned encode(const Option& option, int value, char* out) {
  if (is_option(option, SOL_SOCKET, SO_LINGER)) {
    const linger encoded{value != 0, value - 1};
    memcpy(out, &encoded, sizeof encoded);
    return sizeof encoded;
  }
  if (is_option(option, SOL_SOCKET, SO_RCVTIMEO) || is_option(option, SOL_SOCKET, SO_SNDTIMEO)) {
    const timeval encoded{value < 0 ? -1 : value / 1000, value < 0 ? 0 : value % 1000 * 1000};
    memcpy(out, &encoded, sizeof encoded);
    return sizeof encoded;
  }
  memcpy(out, &value, sizeof value);
  return sizeof value;
}

// What an option that took effect means for the books.
void follow_option(File* file, const Option& option, int value) {
  if (is_option(option, SOL_SOCKET, SO_LINGER)) file->linger_zero = value == 1;
  if (is_option(option, IPPROTO_TCP, TCP_LINGER2)) file->skips_fin_wait = value < 0;
  if (is_option(option, SOL_SOCKET, SO_RCVBUF)) file->chose_receive_buffer = true;
  if (is_option(option, SOL_SOCKET, SO_SNDBUF)) file->chose_send_buffer = true;
  if (is_option(option, SOL_SOCKET, SO_REUSEADDR) || is_option(option, SOL_SOCKET, SO_REUSEPORT)) file->may_share = true;
}

bool is_automatic(const File* file, const Option& option) {
  if (file == nullptr) return false;
  if (is_option(option, SOL_SOCKET, SO_RCVBUF)) return !file->chose_receive_buffer;
  return is_option(option, SOL_SOCKET, SO_SNDBUF) && !file->chose_send_buffer;
}

void name_of_socket(World& world, int slot, int how, int (*ask)(int, sockaddr*, socklen_t*), bool local) {
  sockaddr_storage name{};
  socklen_t bytes = how == 1 ? 8 : sizeof name;
  File* file = world.file(slot);
  const int result = ask(world.fd(slot), reinterpret_cast<sockaddr*>(&name), &bytes);
  world.note_result(result);
  if (result != 0 || file == nullptr) return;
  const uint16_t port = ntohs(reinterpret_cast<const sockaddr_in&>(name).sin_port);  // the same place for both families
  const End* end = file->end;
  const uint16_t expected = local ? file->seen_port : end != nullptr ? end->remote_port : static_cast<uint16_t>(0);
  world.note(" %s", world.name_of(name, bytes, expected).c_str());
  if (local) file->seen_port = port;
}

const char* state_name(int state) {
  switch (state) {
    case TCP_ESTABLISHED: return "established";
    case TCP_SYN_SENT: return "syn-sent";
    case TCP_FIN_WAIT1:
    case TCP_FIN_WAIT2: return "fin-wait";  // which of the two is a matter of an acknowledgement on its way
    case TCP_CLOSE_WAIT: return "close-wait";
    case TCP_LAST_ACK: return "last-ack";
    case TCP_CLOSING: return "closing";
    case TCP_CLOSE: return "close";
    case TCP_LISTEN: return "listen";
    default: return "other";
  }
}

}  // namespace

void run_get_flags(World& world, const int* args) {
  const int flags = fcntl(world.fd(args[0]), F_GETFL);
  world.note_result(flags);
}

void run_set_flags(World& world, const int* args) { world.note_result(fcntl(world.fd(args[0]), F_SETFL, O_RDWR | open_flags(args[1]))); }

void run_fd_flags(World& world, const int* args) {
  const int fd = world.fd(args[0]);
  if (args[1] < 2) world.note_result(fcntl(fd, F_SETFD, args[1]));
  world.note_result(fcntl(fd, F_GETFD));
}

void run_nonblocking(World& world, const int* args) {
  int on = args[1];
  world.note_result(ioctl(world.fd(args[0]), FIONBIO, &on));
}

void run_set_option(World& world, const int* args) {
  const Option& option = kOptions[args[1]];
  char value[32];
  const unsigned bytes = encode(option, args[2], value);
  const unsigned given = args[3] == 0 ? bytes : args[3] == 1 ? 1 : bytes + 4;
  const File* file = world.file(args[0]);
  if (file != nullptr && !file->waiting.empty()) return world.leave_out(kInheritedLate);
  const int result = setsockopt(world.fd(args[0]), option.level, option.number, value, given);
  world.note_result(result);
  if (result == 0 && world.file(args[0]) != nullptr) follow_option(world.file(args[0]), option, args[2]);
}

void run_get_option(World& world, const int* args) {
  const Option& option = kOptions[args[1]];
  unsigned char value[32];
  memset(value, 0x5a, sizeof value);
  socklen_t bytes = args[2] == 1                               ? 1
                    : args[2] == 2                             ? sizeof value
                    : is_option(option, SOL_SOCKET, SO_LINGER) ? sizeof(linger)
                                                               : sizeof(int);
  const int result = getsockopt(world.fd(args[0]), option.level, option.number, value, &bytes);
  world.note_result(result);
  if (result != 0) return;
  if (is_automatic(world.file(args[0]), option)) return world.note(" automatic/%u", bytes);
  world.note(" ");
  for (unsigned i = 0; i < bytes && i < sizeof value; i++) world.note("%02x", value[i]);
}

void run_local_name(World& world, const int* args) { name_of_socket(world, args[0], args[1], getsockname, true); }
void run_peer_name(World& world, const int* args) { name_of_socket(world, args[0], args[1], getpeername, false); }

void run_status(World& world, const int* args) {
  struct stat status {};
  const int result = fstat(world.fd(args[0]), &status);
  world.note_result(result);
  if (result == 0) world.note(" mode %o size %ld", status.st_mode, static_cast<long>(status.st_size));
}

void run_seek(World& world, const int* args) {
  char byte;
  world.note_result(lseek(world.fd(args[0]), 0, SEEK_CUR));
  world.note_result(pread(world.fd(args[0]), &byte, 1, 0));
}

void run_epoll(World& world, const int* args) {
  const int fd = epoll_create1(EPOLL_CLOEXEC);
  world.note_result(fd);
  if (fd < 0) return;
  auto file = std::make_shared<File>();
  file->kind = FileKind::epoll;
  world.hold(args[0], fd, std::move(file));
}

void run_epoll_ctl(World& world, const int* args) {
  File* file = world.file(args[2]);
  if (file != nullptr && (static_cast<uint32_t>(args[3]) & EPOLLET) != 0) {
    world.await_acknowledged(file->end);
    file->has_edges = true;
  }
  epoll_event event{static_cast<uint32_t>(args[3]), {.u64 = static_cast<uint64_t>(args[4]) * 0x1'0000'0001}};
  world.note_result(epoll_ctl(world.fd(args[0]), args[1], world.fd(args[2]), &event));
}

// In an order of their own: which of several ready descriptors comes first is nobody's promise.
void run_epoll_wait(World& world, const int* args) {
  // On the stack one wait in many looks at the kernel's side while the stack's is ready, or one after this time (kKernelEveryNs).
  const timespec pause{0, 110'000};
  (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
  epoll_event events[kMostEvents];
  const int count = epoll_wait(world.fd(args[0]), events, kMostEvents, 0);
  world.note_result(count);
  if (count <= 0) return;
  std::sort(events, events + count, [](const epoll_event& a, const epoll_event& b) {
    return a.data.u64 != b.data.u64 ? a.data.u64 < b.data.u64 : a.events < b.events;
  });
  for (int i = 0; i < count; i++) world.note(" %llx:%#x", static_cast<unsigned long long>(events[i].data.u64), events[i].events);
}

void run_poll(World& world, const int* args) {
  pollfd one{world.fd(args[0]), static_cast<short>(args[1]), 0};
  world.note_result(poll(&one, 1, 0));
  world.note(" %#x", static_cast<unsigned>(one.revents));
}

void run_select(World& world, const int* args) {
  fd_set in, out, other;
  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_ZERO(&other);
  int most = -1;
  for (int i = 0; i < 2; i++) {
    const int fd = world.fd(args[i]);
    if (fd < 0) continue;
    most = std::max(most, fd);
    FD_SET(fd, &in);
    FD_SET(fd, i == 0 ? &out : &other);
  }
  timeval none{};
  world.note_result(select(most + 1, &in, &out, &other, &none));
  for (int i = 0; i < 2; i++) {
    const int fd = world.fd(args[i]);
    if (fd >= 0) world.note(" %d%d%d", FD_ISSET(fd, &in) != 0, FD_ISSET(fd, &out) != 0, FD_ISSET(fd, &other) != 0);
  }
}

void run_pipe(World& world, const int* args) {
  if (args[0] == args[1]) return world.note(" once");
  int ends[2];
  world.note_result(pipe2(ends, O_NONBLOCK | O_CLOEXEC));
  for (int i = 0; i < 2; i++) {
    auto file = std::make_shared<File>();
    file->kind = FileKind::pipe;
    file->pipe_writer = i == 1;
    world.hold(args[i], ends[i], std::move(file));
  }
}

// Everything at once: what all slots are ready for, how much there is to read, and the states of connections.
void run_look(World& world, const int*) {
  pollfd all[kSlots];
  for (int slot = 0; slot < kSlots; slot++) all[slot] = {world.fd(slot), kAllEvents, 0};
  world.note_result(poll(all, kSlots, 0));
  for (int slot = 0; slot < kSlots; slot++) {
    if (all[slot].fd < 0) continue;
    world.note(" s%d:%#x", slot, static_cast<unsigned>(all[slot].revents));
    if (world.file(slot)->kind == FileKind::datagram) world.note("/%u", unread_bytes(all[slot].fd));
    if (world.file(slot)->kind != FileKind::stream) continue;
    world.note("/%u/%s", unread_bytes(all[slot].fd), state_name(tcp_state(all[slot].fd)));
  }
}

}  // namespace random_sequences
