// Threads that allocate, connect, talk, and end, many times; the first of them makes the process's first stack call. A forked child does
// it once more.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: short_threads ADDRESS PORT ROUNDS, where an echo server listens. Blocks change hands: who frees one is not who allocated it, and
// what a thread leaves behind is taken over by others, so an allocator has to touch what it keeps for each thread, the ended ones as well.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr size_t kMostBytes = 20000;
constexpr int kAtOnce = 3;

sockaddr_in server{};

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

void check(bool good, const char* what) {
  if (!good) fail(what);
}

// One block of many sizes for each step; every second one is freed here, the others are left to the caller.
std::vector<char*> allocate_some(unsigned seed) {
  std::vector<char*> left;
  for (unsigned i = 1; i <= 64; i++) {
    const size_t bytes = 1 + seed * 7919 * i % kMostBytes;
    auto* block = static_cast<char*>(malloc(bytes));
    check(block != nullptr, "malloc");
    memset(block, static_cast<int>(i), bytes);
    if (i % 2 == 0) free(block);
    else left.push_back(block);
  }
  return left;
}

void talk(unsigned seed) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  check(fd >= 0, "socket");
  check(connect(fd, reinterpret_cast<sockaddr*>(&server), sizeof server) == 0, "connect");
  std::vector<char> sent(1 + seed * 131 % 5000, static_cast<char>(seed)), received(sent.size());
  check(write(fd, sent.data(), sent.size()) == static_cast<ssize_t>(sent.size()), "write");
  check(recv(fd, received.data(), received.size(), MSG_WAITALL) == static_cast<ssize_t>(received.size()), "recv");
  check(sent == received, "other bytes");
  close(fd);
}

void run_threads(unsigned rounds) {
  std::vector<char*> kept;
  for (unsigned round = 0; round < rounds; round++) {
    std::vector<char*> left[kAtOnce];
    std::vector<std::thread> threads;
    const unsigned count = round == 0 ? 1 : 1 + round % kAtOnce;
    for (unsigned i = 0; i < count; i++) {
      threads.emplace_back([&, i] {
        left[i] = allocate_some(round * kAtOnce + i + 1);
        talk(round * kAtOnce + i + 1);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (char* block : kept) free(block);
    kept.clear();
    for (const std::vector<char*>& blocks : left) kept.insert(kept.end(), blocks.begin(), blocks.end());
  }
  for (char* block : kept) free(block);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return 2;
  const auto rounds = static_cast<unsigned>(atoi(arguments[3]));
  server.sin_family = AF_INET;
  server.sin_port = htons(static_cast<uint16_t>(atoi(arguments[2])));
  check(inet_pton(AF_INET, arguments[1], &server.sin_addr) == 1, arguments[1]);
  run_threads(rounds);
  const pid_t child = fork();
  check(child >= 0, "fork");
  if (child == 0) {
    run_threads(rounds / 4);
    _exit(0);
  }
  int status = -1;
  check(waitpid(child, &status, 0) == child, "waitpid");
  if (status != 0) {
    fprintf(stderr, "the child ended with status %#x\n", status);
    return 1;
  }
  printf("%u rounds\n", rounds);
  return 0;
}
