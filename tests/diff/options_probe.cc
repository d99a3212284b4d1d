// Prints, one line each, what getsockopt and setsockopt say on fresh, connected and listening sockets. The lines of a native and
// of a hooked run are compared by compare_options.py.
//
// Line: <socket> <option> get=<result> size=<n> value=<n> ; set <value>=<result> -> <value read back>

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "tests/lib/peer.h"

using namespace testing_lib;

namespace {

struct Option {
  const char* name;
  int level, number;
};

#define OPTION(level, name) {#name, level, name}
const Option kOptions[] = {
    OPTION(SOL_SOCKET, SO_TYPE),          OPTION(SOL_SOCKET, SO_DOMAIN),       OPTION(SOL_SOCKET, SO_PROTOCOL),
    OPTION(SOL_SOCKET, SO_ERROR),         OPTION(SOL_SOCKET, SO_ACCEPTCONN),   OPTION(SOL_SOCKET, SO_REUSEADDR),
    OPTION(SOL_SOCKET, SO_REUSEPORT),     OPTION(SOL_SOCKET, SO_KEEPALIVE),    OPTION(SOL_SOCKET, SO_BROADCAST),
    OPTION(SOL_SOCKET, SO_DEBUG),         OPTION(SOL_SOCKET, SO_DONTROUTE),    OPTION(SOL_SOCKET, SO_OOBINLINE),
    OPTION(SOL_SOCKET, SO_SNDBUF),        OPTION(SOL_SOCKET, SO_RCVBUF),       OPTION(SOL_SOCKET, SO_RCVLOWAT),
    OPTION(SOL_SOCKET, SO_SNDLOWAT),      OPTION(SOL_SOCKET, SO_PRIORITY),     OPTION(SOL_SOCKET, SO_MARK),
    OPTION(SOL_SOCKET, SO_TIMESTAMP),     OPTION(SOL_SOCKET, SO_INCOMING_CPU), OPTION(SOL_SOCKET, SO_BUSY_POLL),
    OPTION(SOL_SOCKET, SO_ZEROCOPY),      OPTION(SOL_SOCKET, SO_PEEK_OFF),     OPTION(SOL_SOCKET, SO_PASSCRED),
    OPTION(SOL_SOCKET, SO_BINDTODEVICE),
    OPTION(IPPROTO_TCP, TCP_NODELAY),     OPTION(IPPROTO_TCP, TCP_CORK),       OPTION(IPPROTO_TCP, TCP_MAXSEG),
    OPTION(IPPROTO_TCP, TCP_KEEPIDLE),    OPTION(IPPROTO_TCP, TCP_KEEPINTVL),  OPTION(IPPROTO_TCP, TCP_KEEPCNT),
    OPTION(IPPROTO_TCP, TCP_SYNCNT),      OPTION(IPPROTO_TCP, TCP_LINGER2),    OPTION(IPPROTO_TCP, TCP_DEFER_ACCEPT),
    OPTION(IPPROTO_TCP, TCP_QUICKACK),    OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT), OPTION(IPPROTO_TCP, TCP_FASTOPEN),
    OPTION(IPPROTO_TCP, TCP_NOTSENT_LOWAT), OPTION(IPPROTO_TCP, TCP_WINDOW_CLAMP), OPTION(IPPROTO_IP, IP_TOS),
    OPTION(IPPROTO_IP, IP_TTL),           OPTION(IPPROTO_IP, IP_MTU_DISCOVER), OPTION(IPPROTO_IP, IP_RECVERR),
    OPTION(IPPROTO_IP, IP_FREEBIND),      OPTION(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
};

std::string result_text(int result) { return result == 0 ? "ok" : strerrorname_np(errno); }

std::string read_back(int fd, const Option& option) {
  int value = 0x55555555;
  socklen_t size = sizeof value;
  int result = getsockopt(fd, option.level, option.number, &value, &size);
  if (result != 0) return result_text(result);
  return std::to_string(value) + "/" + std::to_string(size);
}

void probe(const char* kind, int fd) {
  for (const Option& option : kOptions) {
    std::string line = std::string(kind) + " " + option.name + " get=" + read_back(fd, option);
    for (int value : {0, 1, 5, 1000, -1}) {
      std::string set = result_text(setsockopt(fd, option.level, option.number, &value, sizeof value));
      line += " ; set " + std::to_string(value) + "=" + set + " -> " + read_back(fd, option);
    }
    puts(line.c_str());
  }
  int rest = 0;
  socklen_t size = sizeof rest;
  char name[16] = {};
  socklen_t name_size = sizeof name;
  printf("%s TCP_CONGESTION get=%s\n", kind, result_text(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &name_size)).c_str());
  printf("%s TCP_CONGESTION set-unknown=%s\n", kind, result_text(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "nothing", 7)).c_str());
  tcp_info info{};
  size = sizeof info;
  printf("%s TCP_INFO get=%s", kind, result_text(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size)).c_str());
  printf(" state=%d snd_mss=%d\n", info.tcpi_state, info.tcpi_snd_mss >= 500 && info.tcpi_snd_mss <= 1460);
}

class Probe : public DiffTest {};

TEST_F(Probe, Prints) {
  Connection accepted = connect_pair(Way::accepted), connected = connect_pair(Way::connected);
  sockaddr_in at{};
  int listener = listen_here(&at);
  puts("BEGIN");
  probe("fresh", socket(AF_INET, SOCK_STREAM, 0));
  probe("listening", listener);
  probe("accepted", accepted.mine);
  probe("connected", connected.mine);
  puts("END");
}

}  // namespace
