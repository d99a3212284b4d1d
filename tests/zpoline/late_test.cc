// Code that comes late: dlopen and dlclose, addresses that are used again, threads that load and run at the same time, text that moves.
//
// Short by default; ZPS_TEST_ROUNDS=1000000 says how many cold sites are patched under a running thread.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

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
#include "tests/zpoline/rounds.h"

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

// Runs the site that the resolver hands over, until the test says that it is loaded; counts wrong results.
void run_cold_sites(const std::atomic<bool>& over, std::atomic<long>& wrong) {
  const long right = getpid();
  while (!over) {
    if (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) != 2) {
      sched_yield();
      continue;
    }
    __atomic_store_n(&meeting->wanted, 3, __ATOMIC_RELEASE);
    long (*const site)() = meeting->site;
    while (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) == 3) wrong += site() != right;
    wrong += site() != right;
    __atomic_store_n(&meeting->wanted, 5, __ATOMIC_RELEASE);
  }
}

class ColdSite : public Late, public ::testing::WithParamInterface<int> {};

TEST_P(ColdSite, IsPatchedUnderARunningThread) {
  std::atomic<bool> over{false};
  std::atomic<long> wrong{0};
  std::thread runner([&] { run_cold_sites(over, wrong); });
  const long rounds = tests::rounds(120) / kLateSites;
  for (long i = 0; i < rounds && wrong == 0; i++) {
    meeting->which = GetParam();
    __atomic_store_n(&meeting->wanted, 1, __ATOMIC_RELEASE);
    void* handle = dlopen(library("one").c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      ADD_FAILURE() << dlerror();
      break;
    }
    __atomic_store_n(&meeting->wanted, 4, __ATOMIC_RELEASE);
    while (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) != 5) sched_yield();
    dlclose(handle);
  }
  over = true;
  runner.join();
  meeting->wanted = 0;
  EXPECT_EQ(wrong, 0);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ColdSite, ::testing::Range(0, kLateSites));

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
    meeting->which = 0;
    meeting->wanted = 1;
    std::thread other([&] {
      while (__atomic_load_n(&meeting->wanted, __ATOMIC_ACQUIRE) != 2) sched_yield();
      text = reinterpret_cast<const volatile uint8_t*>(reinterpret_cast<uint64_t>(meeting->site) & ~4095ull);
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
