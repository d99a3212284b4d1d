// What sleeps already when the first stack is made. One test per process: a stack is made once.
// SPDX-License-Identifier: BSD-3-Clause
#include <thread>

#include "shim/files/epoll_file.h"
#include "shim/family/family.h"
#include "shim/files/fd_table.h"
#include "shim_bed.h"

namespace shim_test {
namespace {

TEST(FirstStack, ASetThatSleepsInTheKernelSeesItsStackSocketsFromThenOn) {
  (void)hook();
  const int set = static_cast<int>(call(SYS_epoll_create1, 0));
  ASSERT_EQ(shim::the_stack(), nullptr);
  uint32_t events = 0;
  uint64_t data = 0;
  std::thread sleeper([&] { events = next_event(set, &data, 20'000); });
  while (true) {
    shim::Guard guard;
    if (static_cast<shim::EpollFile*>(shim::peek(set))->bare_waiters == 1) break;
  }
  {
    Listening listening;
    ASSERT_NE(shim::the_stack(), nullptr);
    ASSERT_EQ(control(set, EPOLL_CTL_ADD, listening.fd, EPOLLIN, 9), 0);
    FakeStream* far;
    {
      shim::Guard guard;
      far = FakeStack::get().connect_from_outside(listening.port_be);
    }
    sleeper.join();
    EXPECT_EQ(events, static_cast<uint32_t>(EPOLLIN));
    EXPECT_EQ(data, 9u);
    EXPECT_EQ(static_cast<shim::EpollFile*>(shim::peek(set))->kicked_ns, 0u);
    far_close(far);
  }
  EXPECT_EQ(call(SYS_close, set), 0);
  expect_all_closed();
}

}  // namespace
}  // namespace shim_test
