// Threads of ours: their variables, libc on them, signals, their end, fork.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/own_thread.h"

#include <cctype>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/syscall.h"

extern "C" void* __tls_get_addr(void* index);

namespace {

using base::kernel_call;

constexpr size_t kStackBytes = 64 << 10;
constexpr int kFirst = 4711;
constexpr size_t kLargeBytes = 1 << 20;

thread_local int with_value = kFirst;
thread_local int zeroed;
thread_local char large[kLargeBytes];

// Runs `code` on a thread of ours and waits for it.
template <class Code>
void on_own_thread(Code code) {
  base::OwnThread thread;
  ASSERT_EQ(0, thread.start([](void* given) noexcept { (*static_cast<Code*>(given))(); }, &code, kStackBytes));
  thread.join();
}

int count_threads() {
  int count = 0;
  DIR* tasks = opendir("/proc/self/task");
  for (const dirent* entry = readdir(tasks); entry != nullptr; entry = readdir(tasks)) count += entry->d_name[0] != '.';
  closedir(tasks);
  return count;
}

size_t mapped_pages() {
  FILE* file = fopen("/proc/self/statm", "r");
  size_t pages = 0;
  EXPECT_EQ(1, fscanf(file, "%zu", &pages));
  fclose(file);
  return pages;
}

TEST(OwnThread, HasVariablesOfItsOwnWithTheirFirstValues) {
  with_value = 1;
  zeroed = 2;
  large[kLargeBytes - 1] = 3;
  errno = ENOTTY;
  int seen[5] = {};
  on_own_thread([&] {
    seen[0] = with_value;
    seen[1] = zeroed;
    seen[2] = large[0] + large[kLargeBytes - 1];
    seen[3] = errno;
    with_value = 5;
    zeroed = 6;
    memset(large, 7, sizeof large);
    errno = EDOM;
    seen[4] = errno;
  });
  EXPECT_EQ(kFirst, seen[0]);
  EXPECT_EQ(0, seen[1]);
  EXPECT_EQ(0, seen[2]);
  EXPECT_EQ(0, seen[3]);
  EXPECT_EQ(EDOM, seen[4]);
  EXPECT_EQ(1, with_value);
  EXPECT_EQ(2, zeroed);
  EXPECT_EQ(3, large[kLargeBytes - 1]);
  EXPECT_EQ(ENOTTY, errno);
}

TEST(OwnThread, HasAVectorOfItsBlocks) {
  size_t first_of_program[2] = {1, 0};
  const auto here = reinterpret_cast<uintptr_t>(&with_value) - reinterpret_cast<uintptr_t>(__tls_get_addr(first_of_program));
  uintptr_t there = 0;
  on_own_thread([&] { there = reinterpret_cast<uintptr_t>(&with_value) - reinterpret_cast<uintptr_t>(__tls_get_addr(first_of_program)); });
  EXPECT_EQ(here, there);
}

TEST(OwnThread, LibcWorksOnIt) {
  bool letter = false, digit = false;
  long number = 0;
  char text[32] = "";
  long processor = -1;
  cpu_set_t one, set_there;
  CPU_ZERO(&one);
  cpu_set_t allowed;
  ASSERT_EQ(0, sched_getaffinity(0, sizeof allowed, &allowed));
  int last = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &allowed)) last = cpu;
  }
  CPU_SET(last, &one);
  on_own_thread([&] {
    letter = isalpha('x') && toupper('x') == 'X';
    digit = isdigit('7') && !isdigit('x');
    number = strtol(" 42", nullptr, 10);
    free(malloc(100));
    snprintf(text, sizeof text, "%d %s %.1f", 1, "two", 3.0);
    (void)pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    (void)pthread_getaffinity_np(pthread_self(), sizeof set_there, &set_there);
    processor = sched_getcpu();
  });
  EXPECT_TRUE(letter);
  EXPECT_TRUE(digit);
  EXPECT_EQ(42, number);
  EXPECT_STREQ("1 two 3.0", text);
  EXPECT_TRUE(CPU_EQUAL(&one, &set_there));
  EXPECT_EQ(last, processor);
  cpu_set_t after;
  ASSERT_EQ(0, sched_getaffinity(0, sizeof after, &after));
  EXPECT_TRUE(CPU_EQUAL(&allowed, &after)) << "it was the other thread that should be pinned";
}

TEST(OwnThread, IsAnotherOwnerOfARecursiveMutex) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_t mutex;
  pthread_mutex_init(&mutex, &attributes);
  int free_twice[2] = {-1, -1}, taken = -1;
  on_own_thread([&] {
    free_twice[0] = pthread_mutex_trylock(&mutex);
    free_twice[1] = pthread_mutex_trylock(&mutex);
    pthread_mutex_unlock(&mutex);
    pthread_mutex_unlock(&mutex);
  });
  ASSERT_EQ(0, pthread_mutex_lock(&mutex));
  on_own_thread([&] { taken = pthread_mutex_trylock(&mutex); });
  EXPECT_EQ(0, free_twice[0]);
  EXPECT_EQ(0, free_twice[1]);
  EXPECT_EQ(EBUSY, taken);
  EXPECT_EQ(0, pthread_mutex_unlock(&mutex));
}

TEST(OwnThread, BlocksEverySignalAndLeavesItsMakersMask) {
  uint64_t before = 0, there = 0, after = 0;
  const auto read_mask = [](uint64_t* into) { (void)kernel_call(SYS_rt_sigprocmask, SIG_SETMASK, 0, base::as_arg(into), sizeof *into); };
  read_mask(&before);
  on_own_thread([&] { read_mask(&there); });
  read_mask(&after);
  EXPECT_EQ(~uint64_t{0} & ~(1ULL << (SIGKILL - 1)) & ~(1ULL << (SIGSTOP - 1)), there);
  EXPECT_EQ(before, after);
}

TEST(OwnThread, LeavesNothingBehind) {
  on_own_thread([] {});
  const size_t pages = mapped_pages();
  const int threads = count_threads();
  for (int i = 0; i < 1000; i++) on_own_thread([] {});
  EXPECT_EQ(pages, mapped_pages());
  EXPECT_EQ(threads, count_threads());
}

TEST(OwnThread, MayMakeAnother) {
  int seen = 0;
  on_own_thread([&] { on_own_thread([&] { seen = with_value; }); });
  EXPECT_EQ(kFirst, seen);
}

TEST(OwnThread, IsForgottenByAForkedChildWhichMakesItsOwn) {
  base::OwnThread thread;
  int gate[2];
  ASSERT_EQ(0, pipe(gate));
  ASSERT_EQ(0, thread.start(
                   [](void* given) noexcept {
                     char byte;
                     (void)kernel_call(SYS_read, *static_cast<int*>(given), base::as_arg(&byte), 1);
                   },
                   gate, kStackBytes));
  const pid_t child = fork();
  if (child == 0) {
    thread.forget();
    int seen = 0;
    if (thread.start([](void* given) noexcept { *static_cast<int*>(given) = with_value; }, &seen, kStackBytes) != 0) _exit(2);
    thread.join();
    _exit(seen == kFirst ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(child, waitpid(child, &status, 0));
  EXPECT_EQ(0, status);
  ASSERT_EQ(1, write(gate[1], "", 1));
  thread.join();
  close(gate[0]);
  close(gate[1]);
}

TEST(OwnThread, IsRefusedWithoutAddressSpace) {
  base::OwnThread thread;
  EXPECT_EQ(-ENOMEM, thread.start([](void*) noexcept {}, nullptr, size_t{1} << 60));
  thread.join();
}

}  // namespace
