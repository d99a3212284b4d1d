// Two processes have a socket that is bound and nothing else: it becomes one listener, however they came by it.
// SPDX-License-Identifier: BSD-3-Clause
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

enum class Start { fork, exec_after_fork, exec_after_vfork };
constexpr uint16_t kPort = 7655;

std::string next_program() {
  char path[4096];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  const std::string own(path, length > 0 ? static_cast<size_t>(length) : 0);
  return own.substr(0, own.rfind('/') + 1) + "diff_exec_next";
}

sockaddr_in name(const char* address) {
  sockaddr_in made{};
  made.sin_family = AF_INET;
  made.sin_port = htons(kPort);
  EXPECT_EQ(inet_pton(AF_INET, address, &made.sin_addr), 1);
  return made;
}

int bind_to_all() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in all = name("0.0.0.0");
  return bind(fd, reinterpret_cast<const sockaddr*>(&all), sizeof all) == 0 ? fd : -1;
}

// Listens, says so by a byte into `said`, and gives back one message of one client's.
int listen_and_serve(int fd, int said) {
  if (listen(fd, 10) != 0 || write(said, "l", 1) != 1) return 3;
  const int connection = accept(fd, nullptr, nullptr);
  char data[100];
  const ssize_t count = read(connection, data, sizeof data);
  return count > 0 && write(connection, data, static_cast<size_t>(count)) == count ? 0 : 2;
}

bool hands_nothing_on() {
  const char* const mode = getenv("ZPS_TEST_MODE");
  return mode != nullptr && std::string(mode) == "zpstack-memif";
}

class BoundSocket : public DiffTest {
 protected:
  static void expect_end(pid_t child) {
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  void expect_service() {
    const int client = peer.socket();
    ASSERT_EQ(peer.connect(client, name(getenv("ZPS_TEST_SELF"))).result, 0);
    peer.send(client, "bound before");
    EXPECT_EQ(peer.recv_all(client, 12), "bound before");
  }
};

class SharedBoundSocket : public BoundSocket, public ::testing::WithParamInterface<Start> {
 protected:
  void SetUp() override {
    if (hands_nothing_on() && GetParam() != Start::fork) KNOWN_DIFFERENCE("exec-wire");
  }
  static pid_t start(int fd, int said) {
    const std::string program = next_program(), number = std::to_string(fd), to = std::to_string(said);
    const pid_t child = GetParam() == Start::exec_after_vfork ? vfork() : fork();
    if (child != 0) return child;
    if (GetParam() == Start::fork) _exit(listen_and_serve(fd, said));
    execl(program.c_str(), "exec_next", "listen", number.c_str(), to.c_str(), nullptr);
    _exit(97);
  }
};

TEST_P(SharedBoundSocket, IsOneListener) {
  int said[2];
  ASSERT_EQ(pipe(said), 0);
  const int fd = bind_to_all();
  ASSERT_GE(fd, 0);
  const pid_t children[] = {start(fd, said[1]), start(fd, said[1])};
  close(fd);
  char byte;
  for (int i = 0; i < 2; i++) ASSERT_EQ(read(said[0], &byte, 1), 1);
  for (int i = 0; i < 2; i++) expect_service();
  for (const pid_t child : children) expect_end(child);
  EXPECT_EQ(peer.connect(peer.socket(), name(getenv("ZPS_TEST_SELF"))).error, ECONNREFUSED);
}

// Nothing has been the stack's before.
TEST_F(BoundSocket, ListensInTheNextProgram) {
  if (hands_nothing_on()) KNOWN_DIFFERENCE("exec-wire");
  int said[2];
  ASSERT_EQ(pipe(said), 0);
  const pid_t child = fork();
  if (child == 0) {
    const int fd = bind_to_all();
    execl(next_program().c_str(), "exec_next", "listen", std::to_string(fd).c_str(), std::to_string(said[1]).c_str(), nullptr);
    _exit(97);
  }
  char byte;
  ASSERT_EQ(read(said[0], &byte, 1), 1);
  expect_service();
  expect_end(child);
}

std::string name_of(const ::testing::TestParamInfo<Start>& start) {
  static const char* const names[] = {"fork", "exec_after_fork", "exec_after_vfork"};
  return names[static_cast<int>(start.param)];
}
constexpr Start kStarts[] = {Start::fork, Start::exec_after_fork, Start::exec_after_vfork};
INSTANTIATE_TEST_SUITE_P(Start, SharedBoundSocket, ::testing::ValuesIn(kStarts), name_of);

}  // namespace
