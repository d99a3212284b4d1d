// Prints, one line each, what getsockopt and setsockopt say about every option number in every state a socket can be in. The lines of a
// native and of a hooked run are compared by compare_options.py, which also gives the list: ZPS_TEST_OPTIONS names a file of lines
// "<level> <number> <name>".
// SPDX-License-Identifier: BSD-3-Clause
//
// Line: <state> <NAME> ; <question> <answer> ; ...    An answer is an errno, or size:bytes of the value.

#include <errno.h>
#include <fcntl.h>
#include <linux/in6.h>
#include <linux/tcp.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

struct Option {
  int level, number;
  std::string name;
};

std::vector<Option> read_options() {
  std::vector<Option> options;
  std::ifstream file(getenv("ZPS_TEST_OPTIONS"));
  for (Option option; file >> option.level >> option.number >> option.name;) options.push_back(option);
  return options;
}

// What differs from run to run, natively too: only whether it is there, and how long it is, can be compared.
bool is_measured(const std::string& name) {
  static const std::set<std::string> names = {"SO_COOKIE",     "SO_NETNS_COOKIE", "SO_INCOMING_CPU", "SO_MEMINFO", "SO_PEERNAME",
                                              "SO_INCOMING_NAPI_ID", "TCP_INFO",  "TCP_CC_INFO",     "TCP_TIMESTAMP", "IP_PROTOCOL"};
  return names.contains(name);
}

std::string result_text(int result) { return result == 0 ? "ok" : strerrorname_np(errno); }

std::string get(int fd, const Option& option, socklen_t room = 256) {
  unsigned char value[256];
  memset(value, 0xaa, sizeof value);
  socklen_t size = room;
  if (getsockopt(fd, option.level, option.number, value, &size) != 0) return result_text(-1);
  std::string text = std::to_string(size) + ":";
  if (is_measured(option.name)) return text;
  for (socklen_t i = 0; i < size && i < 16; i++) {
    char byte[3];
    snprintf(byte, sizeof byte, "%02x", value[i]);
    text += byte;
  }
  return text;
}

std::string set(int fd, const Option& option, const void* value, socklen_t bytes) {
  return result_text(setsockopt(fd, option.level, option.number, value, bytes));
}

void probe_option(const char* state, int fd, const Option& option) {
  std::string line = std::string(state) + " " + option.name + " ; get " + get(fd, option);
  for (const int value : {0, 1, -1, 5, 255, 1000, 70000, INT_MAX, INT_MIN}) {
    line += " ; set " + std::to_string(value) + " " + set(fd, option, &value, sizeof value) + " " + get(fd, option);
  }
  const int words[16] = {1};
  for (const int bytes : {0, 1, 2, 3, 8, 64, -1}) {
    line += " ; set-bytes " + std::to_string(bytes) + " " + set(fd, option, words, static_cast<socklen_t>(bytes)) + " " + get(fd, option);
  }
  line += " ; set-null " + set(fd, option, nullptr, sizeof(int)) + " " + set(fd, option, nullptr, 0);
  for (const int room : {0, 1, 2, 4, -1}) line += " ; room " + std::to_string(room) + " " + get(fd, option, static_cast<socklen_t>(room));
  socklen_t size = 4;
  line += " ; get-null " + result_text(getsockopt(fd, option.level, option.number, nullptr, &size));
  line += " " + result_text(getsockopt(fd, option.level, option.number, &size, nullptr));
  puts(line.c_str());
}

sockaddr_in6 mapped(const sockaddr_in& address) {
  sockaddr_in6 name{};
  name.sin6_family = AF_INET6;
  name.sin6_port = address.sin_port;
  name.sin6_addr.s6_addr32[2] = htonl(0xffff);
  name.sin6_addr.s6_addr32[3] = address.sin_addr.s_addr;
  return name;
}

class Probe : public DiffTest {
 protected:
  using Make = std::function<int()>;

  // Each option gets a socket of its own: nothing that one has brought about is seen by the next.
  void probe(const char* state, const Make& make) {
    for (const Option& option : options_) {
      const int fd = make();
      ASSERT_GE(fd, 0) << state << " " << option.name;
      probe_option(state, fd, option);
      close(fd);
    }
  }

  int fresh(int domain = AF_INET) { return socket(domain, SOCK_STREAM, 0); }

  int listening(const sockaddr_in& at) {
    const int fd = fresh();
    EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
    EXPECT_EQ(listen(fd, 4), 0);
    return fd;
  }

  // Nobody is there to answer.
  int connecting() {
    sockaddr_in nobody = peer_address(htons(1));
    nobody.sin_addr.s_addr = (nobody.sin_addr.s_addr & htonl(0xffffff00)) | htonl(77);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&nobody), sizeof nobody), -1);
    EXPECT_EQ(errno, EINPROGRESS);
    return fd;
  }

  int connected(int domain = AF_INET) {
    if (peer_listener_ < 0) peer_listener_ = peer.listen(&peer_at_, 4096);
    const int fd = fresh(domain);
    const sockaddr_in6 v6 = mapped(peer_at_);
    EXPECT_EQ(domain == AF_INET ? connect(fd, reinterpret_cast<sockaddr*>(&peer_at_), sizeof peer_at_)
                                : connect(fd, reinterpret_cast<const sockaddr*>(&v6), sizeof v6), 0) << strerror(errno);
    return fd;
  }

  void forget_connections() {
    if (peer_listener_ >= 0) peer.close(peer_listener_);
    peer_listener_ = -1;
  }

  int shut() {
    const int fd = connected();
    EXPECT_EQ(shutdown(fd, SHUT_RDWR), 0);
    return fd;
  }

  int reset() {
    const int fd = connected();
    const int theirs = static_cast<int>(peer.accept(peer_listener_).result);
    peer.reset(theirs);
    EXPECT_NE(wait_for(fd, POLLIN) & POLLHUP, 0);
    return fd;
  }

  int accepted() {
    if (listener_ < 0) listener_ = listen_here(&at_);
    return accept_from(listener_, at_);
  }

  // With a byte, without which there may be nothing to accept.
  int accept_from(int listener, const sockaddr_in& at) {
    if (theirs_ >= 0) peer.close(theirs_);
    theirs_ = peer.socket();
    EXPECT_EQ(peer.connect(theirs_, at).result, 0);
    EXPECT_EQ(peer.send(theirs_, "x").result, 1);
    return accept(listener, nullptr, nullptr);
  }

  // What a connection has of its listener; no device but the wire's would bring one.
  void probe_inherited() {
    for (const Option& option : options_) {
      if (option.name == "SO_BINDTOIFINDEX") continue;
      sockaddr_in at{};
      const int listener = listen_here(&at);
      std::string line = "inherited " + option.name;
      for (const int value : {1, 7, 1000}) {
        if (setsockopt(listener, option.level, option.number, &value, sizeof value) != 0) continue;
        const int fd = accept_from(listener, at);
        line += " ; " + std::to_string(value) + " " + get(fd, option);
        close(fd);
        if (fd < 0) break;
      }
      puts(line.c_str());
      close(listener);
    }
  }

  // In a child that may do less.
  void probe_unprivileged() {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      if (setresuid(65534, 65534, 65534) != 0) _exit(1);
      probe("fresh-unprivileged", [&] { return fresh(); });
      probe("connected-unprivileged", [&] { return connected(); });
      fflush(stdout);
      _exit(0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }

  std::vector<Option> options_ = read_options();
  int peer_listener_ = -1, listener_ = -1, theirs_ = -1;
  sockaddr_in peer_at_{}, at_{};
};

TEST_F(Probe, Prints) {
  puts("BEGIN");
  probe("fresh", [&] { return fresh(); });
  sockaddr_in any{};
  any.sin_family = AF_INET;
  probe("listening", [&] { return listening(any); });
  probe("listening-there", [&] { return listening(self_address()); });
  probe("connecting", [&] { return connecting(); });
  probe("connected", [&] { return connected(); });
  probe("shut", [&] { return shut(); });
  forget_connections();
  probe("reset", [&] { return reset(); });
  forget_connections();
  probe("accepted", [&] { return accepted(); });
  probe_inherited();
  probe("fresh-v6", [&] { return fresh(AF_INET6); });
  probe("connected-v6", [&] { return connected(AF_INET6); });
  probe_unprivileged();
  puts("END");
}

}  // namespace
