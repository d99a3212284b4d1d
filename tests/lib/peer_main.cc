// The peer of a differential test: does over its own sockets what the test asks for through a unix socket.
// SPDX-License-Identifier: BSD-3-Clause
//
// Usage: diff_peer CONTROL. Serves one test and ends when the test closes the control connection. Its own sockets carry a
// timeout of 30 s, so that a broken counterpart turns into an error reply and never into a hang. Of such a socket a wait ends with EINTR
// when the process was stopped or frozen and goes on (signal(7)): it is made again.

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <future>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/lib/family.h"
#include "tests/lib/groups.h"
#include "tests/lib/pattern.h"
#include "tests/lib/peer_protocol.h"

namespace testing_lib {
namespace {

struct Answer {
  PeerReply reply{};
  std::string payload;
};

std::set<int> opened;

Answer answer(int64_t result) {
  Answer made;
  made.reply.result = result;
  made.reply.error = result < 0 ? errno : 0;
  return made;
}

sockaddr_in address_of(const PeerRequest& request) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = static_cast<uint32_t>(request.a);
  address.sin_port = static_cast<uint16_t>(request.b);
  return address;
}

Answer with_name(int64_t result, const sockaddr_in& name) {
  Answer made = answer(result);
  made.reply.address_be = name.sin_addr.s_addr;
  made.reply.port_be = name.sin_port;
  return made;
}

int limited(int fd) {
  if (fd < 0) return fd;
  timeval limit{30, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  return fd;
}

Answer do_accept(const PeerRequest& request) {
  sockaddr_in6 who{};
  socklen_t size = sizeof who;
  const int fd = limited(TEMP_FAILURE_RETRY(accept(request.fd, reinterpret_cast<sockaddr*>(&who), &size)));
  return with_name(fd, from_family(who));
}

Answer do_recv(const PeerRequest& request) {
  std::string data(std::min<size_t>(static_cast<size_t>(request.a), kMaxPayload), '\0');
  Answer made = answer(TEMP_FAILURE_RETRY(recv(request.fd, data.data(), data.size(), static_cast<int>(request.b))));
  if (made.reply.result > 0) made.payload.assign(data, 0, static_cast<size_t>(made.reply.result));
  return made;
}

Answer do_recv_from(const PeerRequest& request) {
  std::string data(std::min<size_t>(static_cast<size_t>(request.a), kMaxPayload), '\0');
  sockaddr_in6 who{};
  socklen_t size = sizeof who;
  const ssize_t count = TEMP_FAILURE_RETRY(
      recvfrom(request.fd, data.data(), data.size(), static_cast<int>(request.b), reinterpret_cast<sockaddr*>(&who), &size));
  Answer made = with_name(count, from_family(who));
  if (count > 0) made.payload.assign(data, 0, static_cast<size_t>(count));
  return made;
}

Answer do_send_to(const PeerRequest& request, const std::string& payload) {
  const Name to = in_family(address_of(request));
  return answer(TEMP_FAILURE_RETRY(sendto(request.fd, payload.data(), payload.size(), static_cast<int>(request.c), to.get(), to.bytes)));
}

Answer do_send_pattern(const PeerRequest& request) {
  Random random(static_cast<uint64_t>(request.a) + 1);
  std::vector<uint8_t> buffer(static_cast<size_t>(request.c));
  int64_t sent = 0;
  while (sent < request.b) {
    size_t part = std::min<size_t>(random.size(1, buffer.size()), static_cast<size_t>(request.b - sent));
    fill_pattern(static_cast<uint64_t>(request.a), static_cast<uint64_t>(sent), buffer.data(), part);
    ssize_t count = TEMP_FAILURE_RETRY(send(request.fd, buffer.data(), part, MSG_NOSIGNAL));
    if (count < 0) return answer(-1);
    sent += count;
  }
  return answer(sent);
}

Answer do_check_pattern(const PeerRequest& request) {
  Random random(static_cast<uint64_t>(request.a) + 2);
  std::vector<uint8_t> buffer(static_cast<size_t>(request.c));
  int64_t seen = 0;
  while (seen < request.b) {
    size_t part = std::min<size_t>(random.size(1, buffer.size()), static_cast<size_t>(request.b - seen));
    ssize_t count = TEMP_FAILURE_RETRY(recv(request.fd, buffer.data(), part, 0));
    if (count < 0) return answer(-1);
    if (count == 0) break;
    int64_t wrong =
        pattern_mismatch(static_cast<uint64_t>(request.a), static_cast<uint64_t>(seen), buffer.data(), static_cast<size_t>(count));
    if (wrong >= 0) {
      errno = static_cast<int>(wrong);
      return answer(-1);
    }
    seen += count;
  }
  return answer(seen);
}

bool send_all(int fd, const uint8_t* data, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t count = TEMP_FAILURE_RETRY(send(fd, data + done, length - done, MSG_NOSIGNAL));
    if (count < 0) return false;
    done += static_cast<size_t>(count);
  }
  return true;
}

Answer do_echo(const PeerRequest& request) {
  std::vector<uint8_t> buffer(kMaxPayload);
  int64_t done = 0;
  while (request.a == 0 || done < request.a) {
    ssize_t count = TEMP_FAILURE_RETRY(recv(request.fd, buffer.data(), buffer.size(), 0));
    if (count < 0) return answer(-1);
    if (count == 0) break;
    if (!send_all(request.fd, buffer.data(), static_cast<size_t>(count))) return answer(-1);
    done += count;
  }
  return answer(done);
}

Answer do_drain(const PeerRequest& request) {
  std::vector<uint8_t> buffer(kMaxPayload);
  int64_t seen = 0;
  for (ssize_t count; (count = TEMP_FAILURE_RETRY(recv(request.fd, buffer.data(), buffer.size(), 0))) != 0; seen += count)
    if (count < 0) return answer(-1);
  return answer(seen);
}

Answer do_name(const PeerRequest& request, int (*ask)(int, sockaddr*, socklen_t*)) {
  sockaddr_in6 name{};
  socklen_t size = sizeof name;
  int result = ask(request.fd, reinterpret_cast<sockaddr*>(&name), &size);
  return with_name(result, from_family(name));
}

Answer do_reset(int fd) {
  linger now{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  return answer(close(fd));
}

Answer do_option(const PeerRequest& request) {
  int value = static_cast<int>(request.c);
  int level = static_cast<int>(request.a), option = static_cast<int>(request.b);
  if (request.op == PeerOp::set_option) return answer(setsockopt(request.fd, level, option, &value, sizeof value));
  socklen_t size = sizeof value;
  int result = getsockopt(request.fd, level, option, &value, &size);
  return answer(result == 0 ? value : -1);
}

Answer run(const PeerRequest& request, const std::string& payload) {
  switch (request.op) {
    case PeerOp::socket: {
      const int type = request.b != 0 ? static_cast<int>(request.b) : int{SOCK_STREAM};
      return answer(limited(socket(domain(), type | SOCK_CLOEXEC | static_cast<int>(request.a), 0)));
    }
    case PeerOp::send_to: return do_send_to(request, payload);
    case PeerOp::recv_from: return do_recv_from(request);
    case PeerOp::bind: {
      const Name name = in_family(address_of(request));
      return answer(bind(request.fd, name.get(), name.bytes));
    }
    case PeerOp::listen: return answer(listen(request.fd, static_cast<int>(request.a)));
    case PeerOp::accept: return do_accept(request);
    case PeerOp::connect: {
      const Name name = request.c == 1 ? mapped(address_of(request)) : in_family(address_of(request));
      return answer(TEMP_FAILURE_RETRY(connect(request.fd, name.get(), name.bytes)));
    }
    case PeerOp::send: {
      const int flags = static_cast<int>(request.a) | MSG_NOSIGNAL;
      return answer(TEMP_FAILURE_RETRY(send(request.fd, payload.data(), payload.size(), flags)));
    }
    case PeerOp::recv: return do_recv(request);
    case PeerOp::send_pattern: return do_send_pattern(request);
    case PeerOp::check_pattern: return do_check_pattern(request);
    case PeerOp::echo: return do_echo(request);
    case PeerOp::drain: return do_drain(request);
    case PeerOp::shutdown: return answer(shutdown(request.fd, static_cast<int>(request.a)));
    case PeerOp::close: return answer(close(request.fd));
    case PeerOp::reset: return do_reset(request.fd);
    case PeerOp::set_option:
    case PeerOp::get_option: return do_option(request);
    case PeerOp::local_name: return do_name(request, getsockname);
    case PeerOp::peer_name: return do_name(request, getpeername);
    case PeerOp::join_group: return answer(change_membership(request.fd, address_of(request), true));
    case PeerOp::group_interface: return answer(send_by_interface(request.fd));
    case PeerOp::poll: {
      pollfd one{request.fd, static_cast<short>(request.a), 0};
      int result = poll(&one, 1, static_cast<int>(request.b));
      return answer(result < 0 ? -1 : one.revents);
    }
    case PeerOp::finish:
    case PeerOp::forget_all: break;
  }
  errno = ENOSYS;
  return answer(-1);
}

void note_descriptors(const PeerRequest& request, const Answer& made) {
  if (made.reply.result < 0) return;
  if (request.op == PeerOp::socket || request.op == PeerOp::accept) opened.insert(static_cast<int>(made.reply.result));
  if (request.op == PeerOp::close || request.op == PeerOp::reset) opened.erase(request.fd);
}

void serve(int control) {
  std::map<int, std::pair<PeerRequest, std::future<Answer>>> jobs;
  std::string packet(sizeof(PeerRequest) + kMaxPayload, '\0');
  for (int next_job = 1;;) {
    ssize_t size = recv(control, packet.data(), packet.size(), 0);
    if (size < static_cast<ssize_t>(sizeof(PeerRequest))) return;
    PeerRequest request;
    memcpy(&request, packet.data(), sizeof request);
    std::string payload = packet.substr(sizeof request, request.length);
    Answer made;
    if (request.in_background) {
      made.reply.result = next_job;
      jobs.emplace(next_job++, std::pair(request, std::async(std::launch::async, run, request, payload)));
    } else if (request.op == PeerOp::finish) {
      auto job = jobs.extract(static_cast<int>(request.a));
      made = job.mapped().second.get();
      note_descriptors(job.mapped().first, made);
    } else if (request.op == PeerOp::forget_all) {
      for (int fd : opened) close(fd);
      opened.clear();
    } else {
      made = run(request, payload);
      note_descriptors(request, made);
    }
    made.reply.length = static_cast<uint32_t>(made.payload.size());
    std::string out(reinterpret_cast<const char*>(&made.reply), sizeof made.reply);
    out += made.payload;
    if (send(control, out.data(), out.size(), MSG_NOSIGNAL) < 0) return;
  }
}

}  // namespace
}  // namespace testing_lib

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s CONTROL\n", argv[0]);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  snprintf(name.sun_path, sizeof name.sun_path, "%s.new", argv[1]);
  // Who waits for the name may connect as soon as it is there.
  if (bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 || listen(listener, 1) != 0 ||
      rename(name.sun_path, argv[1]) != 0) {
    perror(argv[1]);
    return 1;
  }
  for (;;) testing_lib::serve(accept(listener, nullptr, nullptr));
}
