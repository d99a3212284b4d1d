// Data through pipes, and buffers that are full.
// SPDX-License-Identifier: BSD-3-Clause
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include "tests/diff/random/datagrams.h"
#include "tests/diff/random/operations.h"
#include "tests/diff/random/world.h"

namespace random_sequences {
namespace {

constexpr uint32_t kMostUnread = 12'000;
constexpr int kQuietLooks = 8;  // so many looks find no more room: it is full
constexpr uint64_t kPatienceUs = 3'000'000;

bool is_pipe(const File* file) { return file != nullptr && file->kind == FileKind::pipe; }
bool is_stream(const File* file) { return file != nullptr && file->kind == FileKind::stream; }

// How much fits into a pipe depends on how the bytes lie in the kernel, so they go into an empty one.
const char* why_not_into_pipe(const World& world, int from, int to) {
  const int fd = world.fd(from);
  if (unread_bytes(world.fd(to)) != 0) return " not empty";
  return !is_nonblocking(fd) && level(fd, POLLIN | POLLRDHUP) == 0 ? " blocks" : nullptr;
}

const char* why_not_into_stream(const World& world, int from, int to) {
  const File* file = world.file(to);
  const End* end = file->end;
  const uint32_t waiting = end == nullptr ? 0 : end->sent - (end->other == nullptr ? 0 : end->other->read);
  if (waiting + unread_bytes(world.fd(from)) > kMostUnread) return " too much";
  return !is_nonblocking(file->fd) && (level(file->fd, POLLOUT) & (POLLOUT | POLLERR)) == 0 ? " blocks" : nullptr;
}

// Until nothing fits any more, whatever arrives at the other end meanwhile. How much that was; errno says why it ended.
uint32_t write_until_full(int fd) {
  static char data[65536];
  uint32_t total = 0;
  const uint64_t end = now_us() + kPatienceUs;
  for (int quiet = 0; quiet < kQuietLooks && now_us() < end;) {
    fill_endless(data, sizeof data, total);
    const ssize_t n = send(fd, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      total += static_cast<uint32_t>(n);
      quiet = 0;
      continue;
    }
    if (errno != EAGAIN) return total;
    for (int turn = 0; turn < 20; turn++) {
      (void)level(fd, 0);
      nap();
    }
    quiet++;
  }
  errno = EAGAIN;
  return total;
}

}  // namespace

void run_splice(World& world, const int* args) {
  File* from = world.file(args[0]);
  File* to = world.file(args[1]);
  if (is_datagram(from) || is_datagram(to)) return world.note(" datagrams");
  const char* why_not = nullptr;
  if (is_stream(from) && is_pipe(to)) why_not = why_not_into_pipe(world, args[0], args[1]);
  if (is_pipe(from) && is_stream(to)) why_not = why_not_into_stream(world, args[0], args[1]);
  if (why_not != nullptr) return world.note("%s", why_not);
  const ssize_t moved = splice(world.fd(args[0]), nullptr, world.fd(args[1]), nullptr, static_cast<size_t>(args[2]), 0);
  world.note_result(moved);
  if (moved <= 0) return;
  if (is_stream(from) && from->end != nullptr) from->end->read += static_cast<uint32_t>(moved);
  if (!is_stream(to) || to->end == nullptr) return;
  End* end = to->end;
  World::note_sent(end, static_cast<unsigned>(moved));
  world.settle(end->other);
  world.settle(end);
}

// What fits is each side's own affair: compared is that it ends, that all arrives, and that there is room then.
void run_fill(World& world, const int* args) {
  const File* file = world.file(args[0]);
  End* end = file == nullptr ? nullptr : file->end;
  End* other = end == nullptr ? nullptr : end->other;
  if (other == nullptr || end->fin || end->reset || other->gone || other->shut_read || other->in_progress) return world.note(" nothing");
  if (other->file == nullptr && other->agent_fd < 0) return world.note(" nobody");
  int limit_ms = 0;
  socklen_t bytes = sizeof limit_ms;
  (void)getsockopt(file->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &limit_ms, &bytes);
  if (limit_ms != 0) return world.note(" timed");  // a full buffer may last longer than that
  const uint32_t before = end->sent - other->read;
  const uint32_t total = write_until_full(file->fd);
  world.note_result(-1);
  end->sent += total;
  const bool all = other->file != nullptr
                       ? drain(other->file->fd, before, total)
                       : world.agent.call(AgentCall::drain, other->agent_fd, static_cast<int>(before), static_cast<int>(total)).result == 1;
  other->read = end->sent;
  world.note(all ? " intact" : " lost");
  world.await_acknowledged(end);
  Patience patience(kPatienceUs);
  while ((level(file->fd, POLLOUT) & POLLOUT) == 0 && patience.goes_on()) {
  }
  world.note(" level %#x", static_cast<unsigned>(level(file->fd, POLLOUT)));
}

}  // namespace random_sequences
