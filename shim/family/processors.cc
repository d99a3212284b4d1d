// The request to the kernel, made and withdrawn.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/processors.h"

#include <fcntl.h>

#include <cstring>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/syscall.h"
#include "shim/family/family.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kManyAnswers = 100;     // in a moment. Fewer: a program that is idle, or that computes
constexpr uint64_t kMomentNs = 100'000'000;
constexpr int32_t kWakeUs = 2;                // the lightest sleep that processors have
constexpr int32_t kAnyUs = 2'000'000'000;     // the kernel's default

// Whether all that idle processors can do is poll or halt.
bool has_haltpoll() noexcept {
  constexpr char kDriver[] = "haltpoll";
  char driver[sizeof kDriver - 1] = {};
  const long file = kernel_call(SYS_openat, AT_FDCWD, as_arg("/sys/devices/system/cpu/cpuidle/current_driver"), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  (void)kernel_call(SYS_read, file, as_arg(driver), sizeof driver);
  (void)kernel_call(SYS_close, file);
  return memcmp(driver, kDriver, sizeof driver) == 0;
}

int kept_fd = -1;  // the device, opened before the right to do so was given up; a request is made by writing to it

// Out of the program's sight, or a negative errno.
int open_device() noexcept {
  return base::move_fd_high(static_cast<int>(kernel_call(SYS_openat, AT_FDCWD, as_arg("/dev/cpu_dma_latency"), O_WRONLY | O_CLOEXEC)));
}

void let_sleep(Processors& processors, bool light) noexcept {
  const int32_t wake_us = light ? processors.light_us : kAnyUs;
  (void)kernel_call(SYS_write, processors.request_fd, as_arg(&wake_us), sizeof wake_us);
  processors.light = light;
}

}  // namespace

void keep_processors() noexcept {
  if (kept_fd < 0 && config.cpu_sleep != base::CpuSleep::any) kept_fd = open_device();
}

void prepare_processors(const netstack::Wire& wire) noexcept {
  Processors& processors = family->processors;
  processors.request_fd = -1;
  if (config.cpu_sleep == base::CpuSleep::any || !wire.facts().ends_here) return;
  const int device = kept_fd >= 0 ? kept_fd : open_device();
  if (device < 0) {
    base::log(base::LogLevel::debug, "/dev/cpu_dma_latency cannot be used (%d): processors sleep as they like", -device);
    return;
  }
  processors.request_fd = device;
  processors.light_us = has_haltpoll() ? 0 : kWakeUs;
}

void count_answered_spin() noexcept {
  Processors& processors = family->processors;
  if (processors.request_fd < 0) return;
  // Two threads may write the same number, or ask both: it is a measure, not an account.
  const uint64_t spins = processors.answered_spins.load(std::memory_order_relaxed) + 1;
  processors.answered_spins.store(spins, std::memory_order_relaxed);
  if (processors.light.load(std::memory_order_relaxed)) return;
  if (spins - processors.judged_spins.load(std::memory_order_relaxed) >= kManyAnswers) let_sleep(processors, true);
}

void mind_processors(uint64_t now) noexcept {
  Processors& processors = family->processors;
  if (processors.request_fd < 0 || now - processors.judged_ns < kMomentNs) return;
  const uint64_t spins = processors.answered_spins.load(std::memory_order_relaxed);
  const netstack::SendCost cost = the_stack()->wire().send_cost();
  const netstack::SendCost before = processors.judged_cost;
  const bool many = spins - processors.judged_spins.load(std::memory_order_relaxed) >= kManyAnswers;
  processors.judged_ns = now;
  processors.judged_spins.store(spins, std::memory_order_relaxed);
  processors.judged_cost = cost;
  const bool was_light = processors.light.load(std::memory_order_relaxed);
  const bool cheaper = !many && processors.trial.judge(now, was_light, cost.messages - before.messages, cost.cycles - before.cycles);
  if (many || cheaper != processors.light) let_sleep(processors, many || cheaper);
}

}  // namespace shim
