// The threads of own_thread.h in a build with ThreadSanitizer, which follows only those that pthread_create() makes. Such a build is linked
// into tests, not preloaded.
// SPDX-License-Identifier: BSD-3-Clause
#include <csignal>
#include <new>
#include <pthread.h>

#include "base/own_thread.h"

namespace base {
namespace {

constexpr size_t kSanitizersBytes = 8 << 20;

struct Start {
  OwnThread::Run run;
  void* argument;
  pthread_t thread;
};

void* begin(void* given) noexcept {
  const auto* start = static_cast<Start*>(given);
  start->run(start->argument);
  return nullptr;
}

}  // namespace

bool note_thread_locals(const void*) noexcept { return true; }

long OwnThread::start(Run run, void* argument, size_t stack_bytes) noexcept {
  auto* start = new Start{run, argument, {}};
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, stack_bytes + kSanitizersBytes);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(&start->thread, &attributes, begin, start);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  if (error == 0) memory_ = reinterpret_cast<uint8_t*>(start);
  else delete start;
  return -error;
}

void OwnThread::join() noexcept {
  if (memory_ == nullptr) return;
  pthread_join(reinterpret_cast<Start*>(memory_)->thread, nullptr);
  free_memory();
}

void OwnThread::free_memory() noexcept {
  delete reinterpret_cast<Start*>(memory_);
  memory_ = nullptr;
}

}  // namespace base
