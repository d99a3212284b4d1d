// Code that comes late: dlopen and dlclose, addresses that are used again, threads that load and run at the same time, text that moves.
// SPDX-License-Identifier: BSD-3-Clause
//
// Short by default; ZPS_TEST_ROUNDS=1000000 says how many cold sites have to be patched while another thread runs them.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/zpoline/hooked.h"
#include "tests/zpoline/late_library.h"
#include "tests/lib/rounds.h"

namespace {

using Answers = LateAnswers (*)();

std::string library(const std::string& name) { return std::string(LATE_FOLDER) + "/libzpstack-test-late-" + name + ".so"; }
long probe_of(long argument) { return hooked::expected() ? argument + 1 : -ENOSYS; }

auto* const meeting = reinterpret_cast<LateMeeting*>(kLateMeeting);

void expect_right(const LateAnswers& answers, long answer) {
  EXPECT_EQ(answers.answer, answer);
  EXPECT_EQ(answers.in_constructor, probe_of(41));
  EXPECT_EQ(answers.probed, probe_of(answer));
  EXPECT_EQ(answers.probed_full, probe_of(answer));
  EXPECT_EQ(answers.process, getpid());
}

class Late : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    void* page = mmap(meeting, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    ASSERT_EQ(page, meeting);
  }
  static void TearDownTestSuite() { munmap(meeting, 4096); }
};

// Loads the library, calls it, and closes it; where its function was.
void* load_and_call(const std::string& path, long answer) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  EXPECT_NE(handle, nullptr) << dlerror();
  if (handle == nullptr) return nullptr;
  const auto answers = reinterpret_cast<Answers>(dlsym(handle, "late_answers"));
  expect_right(answers(), answer);
  EXPECT_EQ(dlclose(handle), 0);
  return reinterpret_cast<void*>(answers);
}

TEST_F(Late, ConstructorsResolversAndFunctions) {
  load_and_call(library("one"), 1);
  load_and_call(library("two"), 2);
}

// The second object needs the first, and both come with one dlopen.
TEST_F(Late, WithWhatItNeeds) {
  void* handle = dlopen(library("needing").c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr) << dlerror();
  expect_right(reinterpret_cast<Answers>(dlsym(handle, "late_answers"))(), 3);
  void* needed = dlopen(library("one").c_str(), RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(needed, nullptr);
  expect_right(reinterpret_cast<Answers>(dlsym(needed, "late_answers"))(), 1);
  dlclose(needed);
  dlclose(handle);
}

TEST_F(Late, AddressesAreUsedAgain) {
  std::map<void*, int> places;
  for (int i = 0; i < 100 && !HasFailure(); i++) places[load_and_call(library(i % 2 == 0 ? "one" : "two"), i % 2 == 0 ? 1 : 2)]++;
  int most = 0;
  for (const auto& place : places) most = std::max(most, place.second);
  EXPECT_GT(most, 10) << "no address was used again: this test tests nothing";
}

// Copies of one library, whose sites lie at the same places of their pages: each is hooked.
TEST_F(Late, SixtyCopiesAtOnce) {
  char folder[] = "/tmp/zpstack-late-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  std::vector<void*> handles;
  for (int i = 0; i < 60; i++) {
    const std::string copy = std::string(folder) + "/copy" + std::to_string(i) + ".so";
    std::ofstream(copy, std::ios::binary) << std::ifstream(library("one"), std::ios::binary).rdbuf();
    handles.push_back(dlopen(copy.c_str(), RTLD_NOW | RTLD_LOCAL));
    EXPECT_NE(handles.back(), nullptr) << dlerror();
    unlink(copy.c_str());
  }
  rmdir(folder);
  for (void* handle : handles) {
    if (handle == nullptr) continue;
    expect_right(reinterpret_cast<Answers>(dlsym(handle, "late_answers"))(), 1);
    dlclose(handle);
  }
}

// Four threads load and close, others change protections meanwhile, as malloc does: each finds its library hooked from the constructor on.
TEST_F(Late, FromManyThreads) {
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([t] {
      for (int i = 0; i < 25 && !HasFailure(); i++) load_and_call(library(t % 2 == 0 ? "one" : "two"), t % 2 == 0 ? 1 : 2);
    });
  }
  std::thread other([&over] {
    void* memory = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    while (!over) {
      mprotect(memory, 4096, PROT_READ);
      mprotect(memory, 4096, PROT_READ | PROT_WRITE);
      void* text = mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, self, 0);
      mprotect(text, 4096, PROT_READ);
      munmap(text, 4096);
    }
    close(self);
    munmap(memory, 8192);
  });
  for (auto& thread : threads) thread.join();
  over = true;
  other.join();
}

// The first and the last of the cores that the calling thread may use; all of them again in the end.
class TwoCores {
 public:
  TwoCores() {
    CPU_ZERO(&all_);
    EXPECT_EQ(sched_getaffinity(0, sizeof all_, &all_), 0);
    for (int core = 0; core < CPU_SETSIZE; core++) {
      if (!CPU_ISSET(core, &all_)) continue;
      if (first_ < 0) first_ = core;
      last_ = core;
    }
  }
  ~TwoCores() { EXPECT_EQ(sched_setaffinity(0, sizeof all_, &all_), 0); }
  TwoCores(const TwoCores&) = delete;
  TwoCores& operator=(const TwoCores&) = delete;
  void stay_on_first() const { stay_on(first_); }
  void stay_on_last() const { stay_on(last_); }

 private:
  static void stay_on(int core) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    EXPECT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  }
  cpu_set_t all_;
  int first_ = -1;
  int last_ = -1;
};

// Runs cold sites while another thread loads them: one until it is patched, then one some way ahead, which the engine comes to soon.
class Chase {
 public:
  explicit Chase(const TwoCores& cores)
      : thread_([this, &cores] {
          cores.stay_on_last();
          run();
        }) {}
  ~Chase() {
    over_ = true;
    thread_.join();
    meeting->wanted = 0;
  }

  // How often a site was patched between two looks at it, while this thread ran it in between: of the shape that had it least.
  [[nodiscard]] long patched_under() const { return *std::min_element(std::begin(patched_under_), std::end(patched_under_)); }
  [[nodiscard]] long wrong() const { return wrong_; }

 private:
  static constexpr int kAhead = 5;  // all shapes have their turn
  static_assert(kAhead % kLateShapes != 0);

  static uint64_t code_of(uint64_t site, int shape) {
    const auto* code = reinterpret_cast<const volatile uint8_t*>(site + kLateLoadAt[shape]);
    uint64_t bytes = 0;
    for (int i = 0; i < 8; i++) bytes = bytes << 8 | code[i];
    return bytes;
  }
  static long call(uint64_t site, long argument) { return reinterpret_cast<long (*)(long)>(site)(argument); }

  void run() {
    while (!over_) {
      if (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) == 2) chase_one_library();
      else sched_yield();
    }
  }

  void chase_one_library() {
    const uint64_t first = meeting->sites;
    const int count = meeting->rows * kLateShapes;
    uint64_t cold[kLateShapes];
    for (int shape = 0; shape < kLateShapes; shape++) cold[shape] = code_of(first + kLateSiteBytes * shape, shape);
    __atomic_store_n(&meeting->wanted, 3, __ATOMIC_RELEASE);
    for (int i = turn_++ % kLateShapes; i < count;) {  // on a machine with one core the first one is the only one
      const int shape = i % kLateShapes;
      const uint64_t site = first + kLateSiteBytes * i;
      const bool loaded = __atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) == 4;
      bool is_cold = code_of(site, shape) == cold[shape];
      if (is_cold && !loaded) {
        const long result = call(site, i);
        wrong_ += result != probe_of(i) && (result != -ENOSYS || hooked::mode() == "sud");
        is_cold = code_of(site, shape) == cold[shape];
        patched_under_[shape] += !is_cold;
      }
      if (!is_cold || loaded) i += kAhead;
    }
    while (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) != 4) sched_yield();
    for (int i = 0; i < count; i++) wrong_ += call(first + kLateSiteBytes * i, i) != probe_of(i);
    __atomic_store_n(&meeting->wanted, 5, __ATOMIC_RELEASE);
  }

  int turn_ = 0;
  std::atomic<bool> over_{false};
  std::atomic<long> wrong_{0};
  std::atomic<long> patched_under_[kLateShapes] = {};
  std::thread thread_;  // last: it uses the others
};

TEST_F(Late, ColdSitesArePatchedUnderARunningThread) {
  const bool patches = hooked::mode() == "zpoline" || hooked::mode() == "nopage0";
  const long wanted = tests::rounds(1000) / kLateShapes;
  const TwoCores cores;
  Chase chase(cores);
  cores.stay_on_first();
  for (long loads = 0; patches ? chase.patched_under() < wanted : loads < 20; loads++) {
    __atomic_store_n(&meeting->wanted, 1, __ATOMIC_RELEASE);
    void* handle = dlopen(library("cold").c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(handle, nullptr) << dlerror();
    __atomic_store_n(&meeting->wanted, 4, __ATOMIC_RELEASE);
    while (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) != 5) sched_yield();
    dlclose(handle);
    ASSERT_EQ(chase.wrong(), 0);
    RecordProperty("loads", std::to_string(loads));
  }
}

struct Mapping {
  uint64_t begin, end;
  std::string permissions, path;
};

std::vector<Mapping> mappings() {
  std::vector<Mapping> all;
  std::ifstream file("/proc/self/maps");
  for (std::string line; std::getline(file, line);) {
    Mapping mapping;
    unsigned long begin = 0, end = 0;
    char permissions[8] = "", path[512] = "";
    sscanf(line.c_str(), "%lx-%lx %7s %*s %*s %*s %511s", &begin, &end, permissions, path);
    all.push_back({begin, end, permissions, path});
  }
  return all;
}

// Every segment of every object has the protection that its header asks for, byte for byte, and no other.
TEST_F(Late, ProtectionsAreExact) {
  void* handle = dlopen(library("one").c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr);
  static std::vector<Mapping> all;
  all = mappings();
  static int segments;
  segments = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* object, size_t, void*) {
        if (object->dlpi_name[0] != '/' && object->dlpi_name[0] != '\0') return 0;  // the vDSO
        for (int i = 0; i < object->dlpi_phnum; i++) {
          const ElfW(Phdr)& segment = object->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X)) continue;
          const std::string wanted = {segment.p_flags & PF_R ? 'r' : '-', segment.p_flags & PF_W ? 'w' : '-', 'x', 'p'};
          const uint64_t begin = (object->dlpi_addr + segment.p_vaddr) & ~4095ull;
          const uint64_t end = (object->dlpi_addr + segment.p_vaddr + segment.p_filesz + 4095) & ~4095ull;
          uint64_t at = begin;
          for (const Mapping& mapping : all) {
            if (at >= end || mapping.begin > at || mapping.end <= at) continue;
            EXPECT_EQ(mapping.permissions, wanted) << object->dlpi_name << " at " << std::hex << at;
            at = mapping.end;
          }
          EXPECT_EQ(at, end) << object->dlpi_name << " has one mapping per segment";
          segments++;
        }
        return 0;
      },
      nullptr);
  EXPECT_GT(segments, 4);
  for (const Mapping& mapping : all) {
    EXPECT_FALSE(mapping.permissions[1] == 'w' && mapping.permissions[2] == 'x') << mapping.path << " is writable and executable";
  }
  dlclose(handle);
}

// Another thread reads the text of libc and of the library while that is loaded and patched: no byte is unreadable at any time.
TEST_F(Late, TextStaysReadable) {
  std::atomic<bool> over{false};
  std::atomic<const volatile uint8_t*> text{nullptr};
  std::atomic<long> sum{0};
  std::thread reader([&] {
    while (!over) {
      const volatile uint8_t* at = text;
      if (at == nullptr) continue;
      for (int i = 0; i < 4096; i += 64) sum += at[i];
    }
  });
  for (int i = 0; i < 20; i++) {
    meeting->wanted = 1;
    std::thread other([&] {
      while (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) != 2) sched_yield();
      text = reinterpret_cast<const volatile uint8_t*>(meeting->sites & ~4095ull);
      __atomic_store_n(&meeting->wanted, 3, __ATOMIC_RELEASE);
    });
    void* handle = dlopen(library("one").c_str(), RTLD_NOW | RTLD_LOCAL);
    other.join();
    EXPECT_NE(handle, nullptr);
    text = reinterpret_cast<const volatile uint8_t*>(&printf);  // before the library goes
    const long seen = sum;
    while (sum == seen) sched_yield();  // the reader has left it
    const long again = sum;
    while (sum == again) sched_yield();
    dlclose(handle);
  }
  meeting->wanted = 0;
  over = true;
  reader.join();
  EXPECT_GT(sum, 0);
}

// What large-page tools do: a copy of text takes the place of the text.
TEST_F(Late, TextMayMoveOntoOtherPages) {
  for (const bool by_remap : {false, true}) {
    void* handle = dlopen(library("one").c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(handle, nullptr);
    const auto answers = reinterpret_cast<Answers>(dlsym(handle, "late_answers"));
    uint64_t begin = 0, end = 0;
    for (const Mapping& mapping : mappings()) {
      if (hooked::word(reinterpret_cast<void*>(answers)) < static_cast<long>(mapping.begin)) continue;
      if (hooked::word(reinterpret_cast<void*>(answers)) < static_cast<long>(mapping.end)) begin = mapping.begin, end = mapping.end;
    }
    ASSERT_GT(end, begin);
    const size_t bytes = end - begin;
    void* old = reinterpret_cast<void*>(begin);
    void* copy = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(copy, old, bytes);
    if (by_remap) {
      ASSERT_EQ(mprotect(copy, bytes, PROT_READ | PROT_EXEC), 0);
      ASSERT_EQ(mremap(copy, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, old), old);
    } else {
      ASSERT_EQ(mmap(old, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), old);
      memcpy(old, copy, bytes);
      ASSERT_EQ(mprotect(old, bytes, PROT_READ | PROT_EXEC), 0);
      munmap(copy, bytes);
    }
    expect_right(answers(), 1);
    dlclose(handle);
  }
}

// mseal() by its number, which glibc does not know yet: sealed text goes on working, and stays.
TEST_F(Late, SealedTextGoesOn) {
  constexpr long kMseal = 462;
  void* handle = dlopen(library("two").c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(handle, nullptr);
  const auto answers = reinterpret_cast<Answers>(dlsym(handle, "late_answers"));
  const uint64_t page = reinterpret_cast<uint64_t>(answers) & ~4095ull;
  const long sealed = syscall(kMseal, page, 4096, 0);
  if (sealed != 0) GTEST_SKIP() << "this kernel has no mseal";
  EXPECT_EQ(mprotect(reinterpret_cast<void*>(page), 4096, PROT_READ | PROT_WRITE | PROT_EXEC), -1);
  EXPECT_EQ(errno, EPERM);
  expect_right(answers(), 2);
  load_and_call(library("one"), 1);
  expect_right(answers(), 2);
}

}  // namespace
