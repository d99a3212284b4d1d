// An interpreter for seccomp's filters, and the calls it is asked about.
// SPDX-License-Identifier: BSD-3-Clause
#include "zpoline/life/seccomp_filter.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <cstring>

#include "zpoline/life/copy.h"

namespace zpoline {

volatile uint64_t deadly_calls[ZPS_NR_COUNT / 64];

namespace {

// What base/, the shim and the engine do beside the program's own calls, and can do without.
constexpr int16_t kConveniences[] = {SYS_sched_yield, SYS_futex,  SYS_nanosleep, SYS_openat,  SYS_read,      SYS_close,          SYS_clone,
                                     SYS_ptrace,      SYS_wait4,  SYS_kill,      SYS_tgkill,  SYS_getpid,    SYS_rt_sigprocmask, SYS_fcntl,
                                     SYS_fstat,       SYS_socket, SYS_sendmsg, SYS_rt_sigreturn, SYS_prctl,  SYS_write, SYS_sigaltstack,
                                     SYS_ppoll,       SYS_getsockopt, SYS_newfstatat, SYS_faccessat2, SYS_access, SYS_memfd_create,
                                     SYS_pread64,     SYS_pwrite64, SYS_fgetxattr, SYS_readlink};

void mark(int nr) noexcept { deadly_calls[nr / 64] = deadly_calls[nr / 64] | uint64_t{1} << nr % 64; }

class Machine {
 public:
  Machine(uint64_t code, uint32_t length, int nr) noexcept : code_(code), length_(length), data_{} {
    data_.nr = nr;
    data_.arch = AUDIT_ARCH_X86_64;
  }

  // The filter's verdict. A program that the kernel would not take either is a permission.
  uint32_t run() noexcept {
    for (uint32_t at = 0; at < length_;) {
      sock_filter step;
      if (!copy_in(&step, code_ + at * sizeof step, sizeof step)) return SECCOMP_RET_ALLOW;
      at++;
      switch (BPF_CLASS(step.code)) {
        case BPF_RET: return BPF_RVAL(step.code) == BPF_A ? a_ : step.k;
        case BPF_JMP: at += BPF_OP(step.code) == BPF_JA ? step.k : is_true(step) ? step.jt : step.jf; break;
        case BPF_ALU: calculate(step); break;
        case BPF_LD: a_ = loaded(step, a_); break;
        case BPF_LDX: x_ = loaded(step, x_); break;
        case BPF_ST: memory_[step.k % BPF_MEMWORDS] = a_; break;
        case BPF_STX: memory_[step.k % BPF_MEMWORDS] = x_; break;
        default: (BPF_MISCOP(step.code) == BPF_TAX ? x_ : a_) = BPF_MISCOP(step.code) == BPF_TAX ? a_ : x_; break;
      }
    }
    return SECCOMP_RET_ALLOW;
  }

 private:
  [[nodiscard]] uint32_t operand(const sock_filter& step) const noexcept { return BPF_SRC(step.code) == BPF_X ? x_ : step.k; }

  [[nodiscard]] bool is_true(const sock_filter& step) const noexcept {
    const uint32_t other = operand(step);
    switch (BPF_OP(step.code)) {
      case BPF_JEQ: return a_ == other;
      case BPF_JGT: return a_ > other;
      case BPF_JGE: return a_ >= other;
      default: return (a_ & other) != 0;
    }
  }

  void calculate(const sock_filter& step) noexcept {
    const uint32_t other = operand(step);
    switch (BPF_OP(step.code)) {
      case BPF_ADD: a_ += other; break;
      case BPF_SUB: a_ -= other; break;
      case BPF_MUL: a_ *= other; break;
      case BPF_DIV: a_ = other != 0 ? a_ / other : 0; break;
      case BPF_OR: a_ |= other; break;
      case BPF_AND: a_ &= other; break;
      case BPF_XOR: a_ ^= other; break;
      case BPF_LSH: a_ = other < 32 ? a_ << other : 0; break;
      case BPF_RSH: a_ = other < 32 ? a_ >> other : 0; break;
      default: a_ = ~a_ + 1; break;  // BPF_NEG
    }
  }

  // Of the call's words, of the filter's own, a constant, or the length of what it looks at.
  [[nodiscard]] uint32_t loaded(const sock_filter& step, uint32_t before) const noexcept {
    switch (BPF_MODE(step.code)) {
      case BPF_IMM: return step.k;
      case BPF_MEM: return memory_[step.k % BPF_MEMWORDS];
      case BPF_LEN: return sizeof data_;
      case BPF_ABS: break;
      default: return before;
    }
    uint32_t word = 0;
    if (step.k <= sizeof data_ - sizeof word) memcpy(&word, reinterpret_cast<const char*>(&data_) + step.k, sizeof word);
    return word;
  }

  const uint64_t code_;
  const uint32_t length_;
  seccomp_data data_;
  uint32_t a_ = 0, x_ = 0;
  uint32_t memory_[BPF_MEMWORDS] = {};
};

// A trap is a SIGSYS that the program answers for its own calls.
bool is_death(uint32_t verdict) noexcept {
  const uint32_t action = verdict & SECCOMP_RET_ACTION_FULL;
  return action == SECCOMP_RET_KILL_PROCESS || action == SECCOMP_RET_KILL_THREAD || action == SECCOMP_RET_TRAP;
}

}  // namespace

void judge_filter(uint64_t program) noexcept {
  struct {
    uint16_t length;
    uint64_t code;
  } header;
  static_assert(sizeof header == sizeof(sock_fprog));
  if (!copy_in(&header, program, sizeof header)) return;
  for (const int16_t nr : kConveniences) {
    if (is_death(Machine(header.code, header.length, nr).run())) mark(nr);
  }
}

void judge_strict_mode() noexcept {
  for (const int16_t nr : kConveniences) {
    if (nr != SYS_read && nr != SYS_write && nr != SYS_rt_sigreturn) mark(nr);
  }
}

}  // namespace zpoline
