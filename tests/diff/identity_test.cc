// A server that becomes another user after it listens: every thread of the process does, those it does not know as well, and it serves on.
// SPDX-License-Identifier: BSD-3-Clause

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <thread>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

constexpr unsigned kNobody = 65534;

// What the kernel says of a thread's identity.
std::string identity_in(const std::filesystem::path& status) {
  std::ifstream file(status);
  std::string line, identity;
  while (std::getline(file, line)) {
    for (const char* field : {"Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:"}) {
      if (line.rfind(field, 0) == 0) identity += line + "; ";
    }
  }
  return identity;
}

std::set<std::string> identities() {
  std::set<std::string> found;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (const std::string identity = identity_in(task.path() / "status"); !identity.empty()) found.insert(identity);
  }
  return found;
}

class Identity : public DiffTest {
 protected:
  // In a child, which makes a stack of its own and may lose what this process needs; a failed expectation there is one here.
  void in_child(const std::function<void(int listener, const sockaddr_in& at)>& body) {
    const pid_t child = fork();
    if (child == 0) {
      sockaddr_in at{};
      const int listener = listen_here(&at);
      body(listener, at);
      fflush(nullptr);
      _exit(HasFailure() ? 1 : 0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  void expect_served(int listener, const sockaddr_in& at) {
    const int theirs = peer.socket();
    ASSERT_EQ(peer.connect(theirs, at).result, 0);
    const int mine = accept(listener, nullptr, nullptr);
    ASSERT_GE(mine, 0) << strerror(errno);
    peer.send(theirs, "in");
    EXPECT_EQ(read_all(mine, 2), "in");
    ASSERT_EQ(write(mine, "out", 3), 3) << strerror(errno);
    EXPECT_EQ(peer.recv_all(theirs, 3), "out");
    close(mine);
    peer.close(theirs);
  }
  static void expect_one_identity() {
    const std::set<std::string> found = identities();
    EXPECT_EQ(found.size(), 1u) << "the threads of one process are not all the same user";
    for (const std::string& identity : found) {
      if (found.size() > 1) fprintf(stderr, "%s\n", identity.c_str());
    }
  }
};

void become_nobody() {
  ASSERT_EQ(setgroups(0, nullptr), 0) << strerror(errno);
  ASSERT_EQ(setgid(kNobody), 0) << strerror(errno);
  ASSERT_EQ(setuid(kNobody), 0) << strerror(errno);
}

TEST_F(Identity, AllThreadsBecomeTheOtherUser) {
  in_child([&](int listener, const sockaddr_in& at) {
    expect_served(listener, at);
    become_nobody();
    expect_one_identity();
    expect_served(listener, at);
    EXPECT_EQ(setuid(0), -1);
    expect_one_identity();
  });
}

TEST_F(Identity, BesideThreadsOfTheProgram) {
  in_child([&](int listener, const sockaddr_in& at) {
    int gate[2];
    ASSERT_EQ(pipe(gate), 0);
    const auto wait_at_gate = [&] {
      char byte;
      EXPECT_EQ(read(gate[0], &byte, 1), 1);
    };
    std::thread first(wait_at_gate), second(wait_at_gate);
    become_nobody();
    expect_one_identity();
    expect_served(listener, at);
    ASSERT_EQ(write(gate[1], "..", 2), 2);
    first.join();
    second.join();
  });
}

TEST_F(Identity, ByResuidAndRegid) {
  in_child([&](int listener, const sockaddr_in& at) {
    ASSERT_EQ(setresgid(kNobody, kNobody, kNobody), 0);
    ASSERT_EQ(setresuid(kNobody, kNobody, kNobody), 0);
    expect_one_identity();
    expect_served(listener, at);
  });
  in_child([&](int listener, const sockaddr_in& at) {
    ASSERT_EQ(setregid(kNobody, kNobody), 0);
    ASSERT_EQ(setreuid(kNobody, kNobody), 0);
    expect_one_identity();
    expect_served(listener, at);
  });
}

TEST_F(Identity, WithoutCapabilities) {
  in_child([&](int listener, const sockaddr_in& at) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[2] = {};
    ASSERT_EQ(syscall(SYS_capset, &header, none), 0);
    expect_one_identity();
    expect_served(listener, at);
  });
}

TEST_F(Identity, AnEffectiveUserForAWhileIsTakenBack) {
  in_child([&](int listener, const sockaddr_in& at) {
    for (int i = 0; i < 50; i++) {
      ASSERT_EQ(seteuid(kNobody), 0);
      ASSERT_EQ(seteuid(0), 0);
    }
    expect_one_identity();
    expect_served(listener, at);
  });
}

TEST_F(Identity, AForkedChildsIsItsOwn) {
  in_child([&](int listener, const sockaddr_in& at) {
    for (int i = 0; i < 5; i++) {
      const pid_t child = fork();
      if (child == 0) {
        become_nobody();
        expect_one_identity();
        expect_served(listener, at);
        expect_one_identity();
        _exit(HasFailure() ? 1 : 0);
      }
      int status = -1;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      EXPECT_EQ(status, 0);
      EXPECT_EQ(getuid(), 0u);
      expect_one_identity();
      expect_served(listener, at);
    }
  });
}

TEST_F(Identity, AVforkedChildsIsItsOwn) {
  in_child([&](int listener, const sockaddr_in& at) {
    const pid_t child = vfork();
    if (child == 0) {
      if (syscall(SYS_setgid, kNobody) != 0 || syscall(SYS_setuid, kNobody) != 0) _exit(2);
      execl("/bin/true", "true", nullptr);
      _exit(3);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(getuid(), 0u);
    expect_one_identity();
    expect_served(listener, at);
  });
}

}  // namespace
