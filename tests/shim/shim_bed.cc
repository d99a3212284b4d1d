// The engine's part, played by the test.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim_bed.h"

#include <netinet/in.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/syscall.h"
#include "shim/family/family.h"
#include "shim/files/file_pools.h"
#include "shim/thread_storage.h"

namespace shim_test {
namespace {

zps_thread words;
zps_thread* thread() { return &words; }
int64_t sleep_call(int64_t nr, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f) {
  return base::kernel_call(nr, a, b, c, d, e, f);
}
void no_ledger(int) {}

const char* const environment[] = {"ZPS_IP=198.18.0.2/24", "ZPS_LOG=error", "ZPS_SPIN_US=20", nullptr};
const zps_engine test_engine = {ZPS_HOOK_ABI, sizeof(zps_engine), "test",  environment, thread, sleep_call, no_ledger,
                                nullptr,      nullptr,            nullptr, nullptr,     0,      -1,         nullptr, nullptr};

}  // namespace
}  // namespace shim_test

// ld.so has places for a program's thread-local variables.
bool shim::take_thread_storage(const zps_engine&) noexcept { return true; }

namespace shim_test {

zps_thread& thread_words() { return words; }

const zps_hook& hook() {
  static const zps_hook opened = [] {
    zps_hook fresh{};
    fresh.size = sizeof fresh;
    if (zps_hook_open(&test_engine, &fresh) != 0) abort();
    return fresh;
  }();
  return opened;
}

long call(long nr, long a, long b, long c, long d, long e, long f) {
  zps_call made{nr, {a, b, c, d, e, f}, 0};
  if (hook().claim[nr] != ZPS_CLAIM_NONE) {
    const int64_t result = hook().on_syscall(&made);
    if (result != ZPS_PASS) return result;
  }
  return base::kernel_call(made.nr, made.arg[0], made.arg[1], made.arg[2], made.arg[3], made.arg[4], made.arg[5]);
}

bool passes(long nr, long a, long b, long c, long d, long e, long f) {
  zps_call made{nr, {a, b, c, d, e, f}, 0};
  return hook().claim[nr] == ZPS_CLAIM_NONE || hook().on_syscall(&made) == ZPS_PASS;
}

int forked() {
  hook().before_fork(SIGCHLD);
  const int pid = fork();
  if (pid == 0) {
    hook().after_fork_child(SIGCHLD);
  } else {
    hook().after_fork_parent(SIGCHLD, pid);
  }
  return pid;
}

Listening::Listening() {
  fd = static_cast<int>(call(SYS_socket, AF_INET, SOCK_STREAM, 0));
  EXPECT_EQ(call(SYS_listen, fd, 16), 0);
  sockaddr_in name{};
  socklen_t bytes = sizeof name;
  EXPECT_EQ(call(SYS_getsockname, fd, arg(&name), arg(&bytes)), 0);
  port_be = name.sin_port;
}

Listening::~Listening() { EXPECT_EQ(call(SYS_close, fd), 0); }

FakeStream* Listening::connect(int* accepted, int flags) {
  FakeStream* far;
  {
    shim::Guard guard;
    far = FakeStack::get().connect_from_outside(port_be);
  }
  EXPECT_NE(far, nullptr);
  *accepted = static_cast<int>(call(SYS_accept4, fd, 0, 0, flags));
  EXPECT_GE(*accepted, 0);
  return far;
}

void far_write(FakeStream* far, const std::string& text) {
  shim::Guard guard;
  const iovec part{const_cast<char*>(text.data()), text.size()};
  EXPECT_EQ(far->write(&part, 1, false), static_cast<long>(text.size()));
}

void far_close(FakeStream* far) {
  shim::Guard guard;
  far->release();
}

uint32_t next_event(int set, uint64_t* data, int timeout_ms) {
  epoll_event event{};
  const long count = call(SYS_epoll_wait, set, arg(&event), 1, timeout_ms);
  EXPECT_GE(count, 0);
  if (data != nullptr) *data = event.data.u64;
  return count > 0 ? event.events : 0;
}

long control(int set, int operation, int fd, uint32_t events, uint64_t data) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return call(SYS_epoll_ctl, set, operation, fd, arg(&event));
}

void expect_all_closed() {
  shim::Guard guard;
  EXPECT_EQ(shim::files().sockets.in_use(), 0u);
  EXPECT_EQ(shim::files().epolls.in_use(), 0u);
  EXPECT_EQ(shim::files().items.in_use(), 0u);
  EXPECT_EQ(shim::family->nodes.in_use(), 0u);
  EXPECT_EQ(shim::family->wire_watchers, 0u);
  EXPECT_EQ(FakeStack::get().levels().streams, 0);
  EXPECT_EQ(FakeStack::get().levels().listeners, 0);
}

}  // namespace shim_test
