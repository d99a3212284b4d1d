// Calls that block, in a second thread, and what ends them.
// SPDX-License-Identifier: BSD-3-Clause
//
// The thread begins its call; when the kernel says that it sleeps, the first thread does what should end the call or should not. Whether it
// has is asked the same way: a thread that has been woken is not asleep any more, even where it did not get a processor yet. What still
// sleeps is brought to an end by a signal whose handler does not restart calls, and that is what the trace tells.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>

#include "tests/diff/random/datagrams.h"
#include "tests/diff/random/exclusions.h"
#include "tests/diff/random/operations.h"
#include "tests/diff/random/world.h"

namespace random_sequences {
namespace {

constexpr uint64_t kPatienceUs = 5'000'000;
constexpr int kLooks = 3;  // so many looks in a row find a sleeper asleep
constexpr int kInterrupting = SIGUSR2, kRestarting = SIGUSR1;

std::atomic<int> handled{0};

void count_signal(int) { handled.fetch_add(1); }

// A thread that runs one blocking call at a time.
struct Blocked {
  std::atomic<int> turn{0};      // calls begun
  std::atomic<int> finished{0};  // calls ended
  std::atomic<pid_t> tid{0};
  BlockingCall call;
  int fd;
  long result;
  int error;
  char bytes[256];
  short revents;
  sockaddr_storage name;  // where connect() goes
};

Blocked blocked;

long poll_for(int fd, short events) {
  pollfd one{fd, events, 0};
  const int result = poll(&one, 1, -1);
  blocked.revents = one.revents;
  return result;
}

long select_for(int fd) {
  fd_set in;
  FD_ZERO(&in);
  FD_SET(fd, &in);
  return select(fd + 1, &in, nullptr, nullptr, nullptr);
}

long wait_in_set(int fd) {
  const int set = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{EPOLLIN | EPOLLRDHUP, {.u64 = 5}};
  if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) != 0) {
    close(set);
    return -1;
  }
  const int result = epoll_wait(set, &event, 1, -1);
  const int error = errno;
  blocked.revents = result > 0 ? static_cast<short>(event.events) : static_cast<short>(0);
  close(set);
  errno = error;
  return result;
}

long connect_to_nobody(int fd) { return connect(fd, reinterpret_cast<const sockaddr*>(&blocked.name), sizeof(sockaddr_in)); }

long run_call() {
  switch (blocked.call) {
    case kBlockRead: return read(blocked.fd, blocked.bytes, 100);
    case kBlockAccept: return accept4(blocked.fd, nullptr, nullptr, SOCK_CLOEXEC);
    case kBlockPoll: return poll_for(blocked.fd, POLLIN | POLLRDHUP);
    case kBlockEpoll: return wait_in_set(blocked.fd);
    case kBlockSelect: return select_for(blocked.fd);
    case kBlockConnect: return connect_to_nobody(blocked.fd);
    case kBlockWaitall: return recv(blocked.fd, blocked.bytes, 20, MSG_WAITALL);
    default: return recv(blocked.fd, blocked.bytes, 100, MSG_PEEK);
  }
}

void pause_us(long us) {
  const timespec pause{0, us * 1000};
  (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
}

void* run_thread(void*) {
  blocked.tid = static_cast<pid_t>(syscall(SYS_gettid));
  for (int turn = 0;; turn++) {
    while (blocked.turn.load(std::memory_order_acquire) == turn) pause_us(50);
    blocked.result = run_call();
    blocked.error = blocked.result < 0 ? errno : 0;
    blocked.finished.store(turn + 1, std::memory_order_release);
  }
  return nullptr;
}

void start_thread() {
  struct sigaction action {};
  action.sa_handler = count_signal;
  sigaction(kInterrupting, &action, nullptr);
  action.sa_flags = SA_RESTART;
  sigaction(kRestarting, &action, nullptr);
  pthread_t thread;
  if (pthread_create(&thread, nullptr, run_thread, nullptr) != 0) abort();
  while (blocked.tid == 0) pause_us(50);
}

bool is_over() { return blocked.finished.load(std::memory_order_acquire) == blocked.turn.load(); }

// A file in which the kernel tells about the thread. Opened once, and high: which numbers are free decides what accept() says.
int open_about_thread(const char* name) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/%s", blocked.tid.load(), name);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const int high = fcntl(fd, F_DUPFD_CLOEXEC, 702);
  close(fd);
  return high;
}

std::string read_about_thread(int fd) {
  char text[512] = {};
  return pread(fd, text, sizeof text - 1, 0) > 0 ? text : "";
}

// The thread sleeps in the kernel, and neither for a lock nor between two calls (clock_nanosleep: it has not seen yet that it has one to
// make, which on a busy machine may last). Its call alone does not tell: who is being woken on another processor is in it still.
bool is_asleep() {
  static const int stat_fd = open_about_thread("stat"), call_fd = open_about_thread("syscall");
  const std::string stat = read_about_thread(stat_fd), call = read_about_thread(call_fd);
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos || stat.compare(name_end, 3, ") S") != 0) return false;
  if (call.empty() || call[0] < '0' || call[0] > '9') return false;
  const int number = atoi(call.c_str());
  return number != SYS_futex && number != SYS_clock_nanosleep;
}

// Until the call is over or sleeps. True if it is over.
bool comes_to_rest() {
  const uint64_t end = now_us() + kPatienceUs;
  for (int looks = 0; looks < kLooks && now_us() < end; looks = is_asleep() ? looks + 1 : 0) {
    if (is_over()) return true;
    pause_us(100);
  }
  return is_over();
}

void interrupt(int number) { (void)syscall(SYS_tgkill, getpid(), blocked.tid.load(), number); }

bool fits(const File& file, int call) {
  if (call == kBlockConnect) return file.kind == FileKind::socket;
  if (file.kind == FileKind::listener) return call == kBlockAccept || call == kBlockPoll || call == kBlockEpoll || call == kBlockSelect;
  if (file.kind == FileKind::datagram) return call != kBlockAccept && call != kBlockWaitall;
  return file.kind == FileKind::stream && call != kBlockAccept;
}

// A call that ends by itself, since its socket has a timeout.
bool is_timed(int fd, int call) {
  timeval limit{};
  socklen_t bytes = sizeof limit;
  const bool receives = call == kBlockRead || call == kBlockAccept || call == kBlockWaitall || call == kBlockPeek;
  return receives && getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &bytes) == 0 && (limit.tv_sec != 0 || limit.tv_usec != 0);
}

int slot_of_peer(World& world, const End* end) {
  for (int slot = 0; slot < kPeerSlots; slot++) {
    if (end != nullptr && end->other != nullptr && world.peers[slot].end == end->other) return slot;
  }
  return -1;
}

int slot_of(World& world, const End* end) {
  for (int slot = 0; slot < kSlots; slot++) {
    if (end != nullptr && world.file(slot) != nullptr && world.file(slot)->end == end) return slot;
  }
  return -1;
}

void send_from_other_end(World& world, const End* end) {
  const int theirs = slot_of_peer(world, end), ours = end == nullptr ? -1 : slot_of(world, end->other);
  const int to_peer[] = {theirs, 30}, to_own[] = {ours, kSend, 30, MSG_DONTWAIT | MSG_NOSIGNAL};
  if (theirs >= 0) run_peer_send(world, to_peer);
  else if (ours >= 0 && ours < kSlots) run_send(world, to_own);
}

void send_datagram(World& world, int slot) {
  for (int peer = 0; peer < kPeerSlots; peer++) {
    const int args[] = {peer, slot, 30};
    if (world.peers[peer].datagrams && (world.peers[peer].family == AF_INET6) == is_v6(world.fd(slot)))
      return run_peer_send_to(world, args);
  }
}

void shut(World& world, int slot, int how) {
  const int args[] = {slot, how};
  run_shutdown(world, args);
}

void end_other_end(World& world, const End* end, bool reset) {
  const int theirs = slot_of_peer(world, end), ours = end == nullptr ? -1 : slot_of(world, end->other);
  if (theirs >= 0) (reset ? run_peer_reset : run_peer_close)(world, &theirs);
  else if (ours >= 0) run_close(world, &ours);
}

void connect_from_peer(World& world, int slot, int peer) {
  const int from_peer[] = {peer, slot, AF_INET};
  if (world.file(slot)->kind == FileKind::listener) run_peer_connect(world, from_peer);
}

void waken(World& world, int slot, int how, int other_slot) {
  const End* end = world.file(slot)->end;
  const int to[] = {other_slot, slot};
  switch (how) {
    case kBySend: return is_datagram(world.file(slot)) ? send_datagram(world, slot) : send_from_other_end(world, end);
    case kByShutdownRead: return shut(world, slot, SHUT_RD);
    case kByShutdownWrite: return shut(world, slot, SHUT_WR);
    case kByShutdownBoth: return shut(world, slot, SHUT_RDWR);
    case kByPeerClose: return end_other_end(world, end, false);
    case kByPeerReset: return end_other_end(world, end, true);
    case kByClose: return run_close(world, &slot);
    case kByDup2: return run_dup2(world, to);
    case kBySignal: return interrupt(kInterrupting);
    case kByRestartingSignal: return interrupt(kRestarting);
    case kByConnect: return connect_from_peer(world, slot, other_slot % kPeerSlots);
    case kBySignalAfterShutdown: shut(world, slot, SHUT_WR); return interrupt(kInterrupting);
    default: return;
  }
}

// Books and trace of a call that is over.
void conclude(World& world, End* end, const char* how) {
  errno = blocked.error;
  world.note(" %s", how);
  world.note_result(blocked.result);
  if (blocked.revents != 0) world.note(" %#x", static_cast<unsigned>(blocked.revents) & 0xffff);
  const bool reads = blocked.call == kBlockRead || blocked.call == kBlockWaitall;
  if ((reads || blocked.call == kBlockPeek) && blocked.result > 0)
    world.note(" #%08x", digest(blocked.bytes, static_cast<unsigned>(blocked.result)));
  if (reads && blocked.result > 0 && end != nullptr) end->read += static_cast<uint32_t>(blocked.result);
}

}  // namespace

void run_block(World& world, const int* args) {
  static const bool started = (start_thread(), true);
  (void)started;
  const int slot = args[0], fd = world.fd(slot);
  if (world.file(slot) == nullptr || !fits(*world.file(slot), args[1]) || is_nonblocking(fd)) return world.note(" nothing");
  const bool connects = args[1] == kBlockConnect;
  if (connects && world.file(slot)->is_the_kernels) return world.leave_out(kGoneToKernel);
  if (connects && args[2] == kBySignalAfterShutdown) return world.note(" nothing");  // either ends it
  if (!connects && level(fd, POLLIN | POLLRDHUP) != 0) return world.note(" ready");
  std::shared_ptr<File> file = world.shared(slot);  // the call holds the file, whatever becomes of its descriptors
  End* const end = file->end;
  const int before = handled.load();
  blocked.call = static_cast<BlockingCall>(args[1]);
  blocked.fd = fd;
  blocked.revents = 0;
  if (connects) (void)world.address(kNobody, world.fixed_port(3), &blocked.name);
  blocked.turn.fetch_add(1, std::memory_order_release);
  if (is_timed(fd, args[1])) {  // which of several ends comes first depends on time
    while (!is_over()) pause_us(100);
    return conclude(world, end, "in time");
  }
  if (comes_to_rest()) return conclude(world, end, "at once");
  if (args[1] == kBlockEpoll) file.reset();  // but a set does not
  if (connects) note_connecting_to_nobody(world, world.file(slot));
  if (end != nullptr) end->reader_is_over = is_over;
  if (args[1] == kBlockAccept && file != nullptr) file->accept_is_over = is_over;
  waken(world, slot, args[2], args[3]);
  const bool awake = comes_to_rest();
  for (int tries = 0; !is_over() && tries < 1000; tries++) {
    interrupt(kInterrupting);
    (void)comes_to_rest();
  }
  if (!is_over()) return world.note(" never");
  if (end != nullptr) end->reader_is_over = nullptr;
  conclude(world, end, awake ? "awake" : "asleep");
  if (file != nullptr) file->accept_is_over = nullptr;
  if (args[1] == kBlockAccept && blocked.result >= 0) note_accepted(world, file.get(), args[3] % kSlots, static_cast<int>(blocked.result));
  if (awake) world.note(" handled %d", handled.load() - before);
  if (file != nullptr && file.use_count() == 1) world.released(file, false);
}

}  // namespace random_sequences
