// Runs system calls through the shim as the engine would, in a process that is not hooked.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <string>

#include "fake_stack.h"
#include "zpoline/hook.h"

namespace shim_test {

// Opens the shim once per process, with ZPS_IP set so that every choice of side is known.
const zps_hook& hook();
zps_thread& thread_words();

// Makes call `nr` through the shim, and in the kernel if the shim passes it on. The raw result.
long call(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);
// True if the shim passes this call on.
bool passes(long nr, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0);
template <class T>
long arg(T* pointer) {
  return reinterpret_cast<long>(pointer);
}

// fork() with the engine's callbacks around it.
int forked();

// A listener of the stack on a port the kernel has chosen, and connections to it.
struct Listening {
  Listening();
  ~Listening();
  // The far end of a new connection, and the descriptor accept() gave for the near one.
  FakeStream* connect(int* accepted, int flags = 0);
  int fd;
  uint16_t port_be;
};

// Writes from the far end of a connection, with the lock held.
void far_write(FakeStream* far, const std::string& text);
void far_close(FakeStream* far);

// One epoll_wait with timeout 0 and room for one event; 0 if there was none.
uint32_t next_event(int set, uint64_t* data = nullptr, int timeout_ms = 0);
long control(int set, int operation, int fd, uint32_t events, uint64_t data);

// Nothing is left in the pools: descriptions, items, streams, listeners.
void expect_all_closed();

}  // namespace shim_test
