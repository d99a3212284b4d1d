// The table of kinds and the names of arguments.
// SPDX-License-Identifier: BSD-3-Clause
#include "tests/diff/random/operation.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <charconv>
#include <cstdlib>

#include "tests/diff/random/operations.h"

namespace random_sequences {
namespace {

constexpr KindRow kRows[] = {
    {Kind::socket, "socket", "sdy", run_socket},
    {Kind::bind, "bind", "san", run_bind},
    {Kind::bind_used, "bind_used", "sas", run_bind_used},
    {Kind::listen, "listen", "sn", run_listen},
    {Kind::connect, "connect", "sas", run_connect},
    {Kind::connect_peer, "connect_peer", "sap", run_connect_peer},
    {Kind::connect_port, "connect_port", "san", run_connect_port},
    {Kind::disconnect, "disconnect", "s", run_disconnect},
    {Kind::accept, "accept", "ssyn", run_accept},
    {Kind::receive, "receive", "srnm", run_receive},
    {Kind::send, "send", "swnm", run_send},
    {Kind::corked, "corked", "snnq", run_corked},
    {Kind::sendfile, "sendfile", "snn", run_sendfile},
    {Kind::splice, "splice", "ssn", run_splice},
    {Kind::fill, "fill", "s", run_fill},
    {Kind::shutdown, "shutdown", "sh", run_shutdown},
    {Kind::close, "close", "s", run_close},
    {Kind::dup, "dup", "ss", run_dup},
    {Kind::dup2, "dup2", "ss", run_dup2},
    {Kind::dup3, "dup3", "ssy", run_dup3},
    {Kind::dup_from, "dup_from", "ssn", run_dup_from},
    {Kind::fork, "fork", "sn", run_fork},
    {Kind::get_flags, "get_flags", "s", run_get_flags},
    {Kind::set_flags, "set_flags", "sy", run_set_flags},
    {Kind::fd_flags, "fd_flags", "sn", run_fd_flags},
    {Kind::nonblocking, "nonblocking", "sn", run_nonblocking},
    {Kind::unread, "unread", "s", run_unread},
    {Kind::unsent, "unsent", "s", run_unsent},
    {Kind::at_mark, "at_mark", "s", run_at_mark},
    {Kind::set_option, "set_option", "sonn", run_set_option},
    {Kind::get_option, "get_option", "son", run_get_option},
    {Kind::local_name, "local_name", "sn", run_local_name},
    {Kind::peer_name, "peer_name", "sn", run_peer_name},
    {Kind::status, "status", "s", run_status},
    {Kind::seek, "seek", "s", run_seek},
    {Kind::epoll, "epoll", "s", run_epoll},
    {Kind::epoll_ctl, "epoll_ctl", "scsen", run_epoll_ctl},
    {Kind::epoll_wait, "epoll_wait", "s", run_epoll_wait},
    {Kind::poll, "poll", "sk", run_poll},
    {Kind::select, "select", "ss", run_select},
    {Kind::pipe, "pipe", "ss", run_pipe},
    {Kind::look, "look", "", run_look},
    {Kind::block, "block", "sbts", run_block},
    {Kind::peer_listen, "peer_listen", "pd", run_peer_listen},
    {Kind::peer_connect, "peer_connect", "psd", run_peer_connect},
    {Kind::peer_accept, "peer_accept", "pp", run_peer_accept},
    {Kind::peer_send, "peer_send", "pn", run_peer_send},
    {Kind::peer_receive, "peer_receive", "pn", run_peer_receive},
    {Kind::peer_shutdown, "peer_shutdown", "ph", run_peer_shutdown},
    {Kind::peer_close, "peer_close", "p", run_peer_close},
    {Kind::peer_reset, "peer_reset", "p", run_peer_reset},
    {Kind::peer_look, "peer_look", "p", run_peer_look},
    {Kind::datagram, "datagram", "sdy", run_datagram},
    {Kind::send_to, "send_to", "saswnm", run_send_to},
    {Kind::send_to_peer, "send_to_peer", "spwnm", run_send_to_peer},
    {Kind::peer_datagram, "peer_datagram", "pd", run_peer_datagram},
    {Kind::peer_send_to, "peer_send_to", "psn", run_peer_send_to},
};
static_assert(sizeof kRows / sizeof kRows[0] == static_cast<size_t>(Kind::count));

struct Name {
  const char* text;
  int value;
};

#define NAMED(prefix, name) \
  { #name, static_cast < int>(prefix##name) }
constexpr Name kDomains[] = {NAMED(AF_, INET), NAMED(AF_, INET6), {}};
constexpr Name kTypes[] = {NAMED(SOCK_, NONBLOCK), NAMED(SOCK_, CLOEXEC), {}};
constexpr Name kAddressNames[] = {{"any", kAny},           {"self", kSelf},
                                  {"peer", kPeer},         {"loop", kLoop},
                                  {"nobody", kNobody},     {"foreign", kForeign},
                                  {"any6", kAny6},         {"loop6", kLoop6},
                                  {"self46", kSelfMapped}, {"loop46", kLoopMapped},
                                  {"self6", kSelf6},       {"peer6", kPeer6},
                                  {"peer46", kPeerMapped}, {}};
constexpr Name kReceiveNames[] = {
    {"read", kRead}, {"recv", kRecv}, {"recvfrom", kRecvfrom}, {"recvmsg", kRecvmsg}, {"readv", kReadv}, {"recvmmsg", kRecvmmsg}, {}};
constexpr Name kSendNames[] = {
    {"write", kWrite}, {"send", kSend}, {"sendto", kSendto}, {"sendmsg", kSendmsg}, {"writev", kWritev}, {"sendmmsg", kSendmmsg}, {}};
constexpr Name kMessageFlags[] = {NAMED(MSG_, PEEK),     NAMED(MSG_, WAITALL), NAMED(MSG_, DONTWAIT), NAMED(MSG_, TRUNC),
                                  NAMED(MSG_, NOSIGNAL), NAMED(MSG_, MORE),    NAMED(MSG_, ERRQUEUE), {}};
constexpr Name kCorkNames[] = {
    {"more", kMoreThenSend}, {"option", kOptionOnOff}, {"nodelay", kMoreThenNodelay}, {"shutdown", kMoreThenShutdown}, {}};
constexpr Name kHows[] = {NAMED(SHUT_, RD), NAMED(SHUT_, WR), NAMED(SHUT_, RDWR), {}};
constexpr Name kControls[] = {NAMED(EPOLL_CTL_, ADD), NAMED(EPOLL_CTL_, MOD), NAMED(EPOLL_CTL_, DEL), {}};
constexpr Name kEpollEvents[] = {NAMED(EPOLL, IN),  NAMED(EPOLL, OUT),     NAMED(EPOLL, PRI),       NAMED(EPOLL, ERR),
                                 NAMED(EPOLL, HUP), NAMED(EPOLL, RDHUP),   NAMED(EPOLL, RDNORM),    NAMED(EPOLL, WRNORM),
                                 NAMED(EPOLL, ET),  NAMED(EPOLL, ONESHOT), NAMED(EPOLL, EXCLUSIVE), {}};
constexpr Name kPollEvents[] = {NAMED(POLL, IN),   NAMED(POLL, OUT),   NAMED(POLL, PRI),    NAMED(POLL, ERR),    NAMED(POLL, HUP),
                                NAMED(POLL, NVAL), NAMED(POLL, RDHUP), NAMED(POLL, RDNORM), NAMED(POLL, WRNORM), {}};
constexpr Name kBlocking[] = {{"read", kBlockRead},     {"accept", kBlockAccept},   {"poll", kBlockPoll}, {"epoll_wait", kBlockEpoll},
                              {"select", kBlockSelect}, {"waitall", kBlockWaitall}, {"peek", kBlockPeek}, {"connect", kBlockConnect}, {}};
constexpr Name kWakenings_[] = {{"send", kBySend},
                                {"shut_rd", kByShutdownRead},
                                {"shut_wr", kByShutdownWrite},
                                {"shut_rdwr", kByShutdownBoth},
                                {"peer_close", kByPeerClose},
                                {"peer_reset", kByPeerReset},
                                {"close", kByClose},
                                {"dup2", kByDup2},
                                {"signal", kBySignal},
                                {"restarting_signal", kByRestartingSignal},
                                {"shut_wr_signal", kBySignalAfterShutdown},
                                {"connect", kByConnect},
                                {}};

// The names of a kind of argument, and whether they are bits.
struct Names {
  char letter;
  const Name* names;
  bool bits;
};
constexpr Names kNames[] = {{'d', kDomains, false},    {'y', kTypes, true},        {'a', kAddressNames, false}, {'r', kReceiveNames, false},
                            {'w', kSendNames, false},  {'m', kMessageFlags, true}, {'h', kHows, false},         {'c', kControls, false},
                            {'e', kEpollEvents, true}, {'k', kPollEvents, true},   {'b', kBlocking, false},     {'q', kCorkNames, false},
                            {'t', kWakenings_, false}};

const Names* names_of(char letter) {
  for (const Names& names : kNames) {
    if (names.letter == letter) return &names;
  }
  return nullptr;
}

std::string bits_to_text(const Name* names, unsigned value) {
  std::string text;
  for (; names->text != nullptr; names++) {
    const unsigned bit = static_cast<unsigned>(names->value);
    if ((value & bit) != bit) continue;
    text += (text.empty() ? "" : "|") + std::string(names->text);
    value &= ~bit;
  }
  if (value != 0 || text.empty()) text += (text.empty() ? "" : "|") + std::to_string(value);
  return text;
}

std::string argument_to_text(char letter, int value) {
  if (letter == 's') return "s" + std::to_string(value);
  if (letter == 'p') return "p" + std::to_string(value);
  if (letter == 'o') return kOptions[value].name;
  const Names* names = names_of(letter);
  if (names == nullptr) return std::to_string(value);
  if (names->bits) return bits_to_text(names->names, static_cast<unsigned>(value));
  for (const Name* name = names->names; name->text != nullptr; name++) {
    if (name->value == value) return name->text;
  }
  return std::to_string(value);
}

bool number(std::string_view text, int* value) {
  long wide = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), wide);
  *value = static_cast<int>(wide);
  return error == std::errc() && end == text.data() + text.size();
}

bool one_name(const Name* names, std::string_view text, int* value) {
  for (; names->text != nullptr; names++) {
    if (text == names->text) {
      *value = names->value;
      return true;
    }
  }
  return number(text, value);
}

bool argument_from_text(char letter, std::string_view text, int* value) {
  if (letter == 's' || letter == 'p') return !text.empty() && text[0] == letter && number(text.substr(1), value);
  if (letter == 'o') {
    for (*value = 0; *value < kOptionCount; ++*value) {
      if (text == kOptions[*value].name) return true;
    }
    return false;
  }
  const Names* names = names_of(letter);
  if (names == nullptr) return number(text, value);
  if (!names->bits) return one_name(names->names, text, value);
  for (*value = 0; !text.empty();) {
    const size_t end = text.find('|');
    int bit;
    if (!one_name(names->names, text.substr(0, end), &bit)) return false;
    *value |= bit;
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return true;
}

}  // namespace

#define OPTION(level, name) \
  { #name, level, name, nullptr }
#define EXCLUDED(level, name, row) \
  { #name, level, name, row }
const Option kOptions[] = {
    OPTION(SOL_SOCKET, SO_REUSEADDR),
    OPTION(SOL_SOCKET, SO_REUSEPORT),
    OPTION(SOL_SOCKET, SO_KEEPALIVE),
    OPTION(SOL_SOCKET, SO_LINGER),
    OPTION(SOL_SOCKET, SO_RCVBUF),
    OPTION(SOL_SOCKET, SO_SNDBUF),
    OPTION(SOL_SOCKET, SO_RCVTIMEO),
    OPTION(SOL_SOCKET, SO_SNDTIMEO),
    OPTION(SOL_SOCKET, SO_ERROR),
    OPTION(SOL_SOCKET, SO_ACCEPTCONN),
    OPTION(SOL_SOCKET, SO_TYPE),
    OPTION(SOL_SOCKET, SO_DOMAIN),
    OPTION(SOL_SOCKET, SO_PROTOCOL),
    OPTION(SOL_SOCKET, SO_BROADCAST),
    OPTION(SOL_SOCKET, SO_OOBINLINE),
    OPTION(SOL_SOCKET, SO_PRIORITY),
    OPTION(SOL_SOCKET, SO_MARK),
    OPTION(SOL_SOCKET, SO_RCVLOWAT),
    OPTION(IPPROTO_TCP, TCP_NODELAY),
    OPTION(IPPROTO_TCP, TCP_CORK),
    OPTION(IPPROTO_TCP, TCP_KEEPIDLE),
    OPTION(IPPROTO_TCP, TCP_KEEPINTVL),
    OPTION(IPPROTO_TCP, TCP_KEEPCNT),
    OPTION(IPPROTO_TCP, TCP_USER_TIMEOUT),
    OPTION(IPPROTO_TCP, TCP_SYNCNT),
    OPTION(IPPROTO_TCP, TCP_LINGER2),
    OPTION(IPPROTO_TCP, TCP_NOTSENT_LOWAT),
    OPTION(IPPROTO_IP, IP_TOS),
    OPTION(IPPROTO_IP, IP_TTL),
    OPTION(IPPROTO_IP, IP_MTU_DISCOVER),
    OPTION(IPPROTO_IP, IP_RECVERR),
    OPTION(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT),
    OPTION(IPPROTO_IPV6, IPV6_V6ONLY),
    OPTION(IPPROTO_IPV6, IPV6_TCLASS),
    OPTION(IPPROTO_IPV6, IPV6_UNICAST_HOPS),
    OPTION(SOL_SOCKET, SO_DEBUG),
    OPTION(SOL_SOCKET, SO_DONTROUTE),
    OPTION(SOL_SOCKET, SO_PEEK_OFF),
    OPTION(SOL_SOCKET, SO_TIMESTAMP),
    OPTION(SOL_SOCKET, SO_PASSCRED),
    OPTION(SOL_SOCKET, SO_SNDLOWAT),
    OPTION(IPPROTO_TCP, TCP_FASTOPEN),
    OPTION(IPPROTO_IP, IP_FREEBIND),
    // Each of these stands in docs/differences.md under the name given here.
    EXCLUDED(SOL_SOCKET, SO_ZEROCOPY, "* SO_ZEROCOPY"),
    EXCLUDED(IPPROTO_TCP, TCP_WINDOW_CLAMP, "* TCP_WINDOW_CLAMP"),
    EXCLUDED(IPPROTO_TCP, TCP_MAXSEG, "* TCP_MAXSEG"),
};
const int kOptionCount = sizeof kOptions / sizeof kOptions[0];

const KindRow& row_of(Kind kind) { return kRows[static_cast<int>(kind)]; }

int argument_count(Kind kind) { return static_cast<int>(std::string_view(row_of(kind).signature).size()); }

std::string to_text(const Operation& operation) {
  const KindRow& row = row_of(operation.kind);
  std::string text = row.name;
  for (int i = 0; row.signature[i] != 0; i++) text += ' ' + argument_to_text(row.signature[i], operation.args[i]);
  return text;
}

bool from_text(std::string_view line, Operation* operation) {
  const size_t name_end = line.find(' ');
  const std::string_view name = line.substr(0, name_end);
  for (const KindRow& row : kRows) {
    if (name != row.name) continue;
    *operation = {row.kind, {}};
    size_t at = name_end;
    for (int i = 0; row.signature[i] != 0; i++) {
      if (at == std::string_view::npos) return false;
      const size_t end = line.find(' ', at + 1);
      if (!argument_from_text(row.signature[i], line.substr(at + 1, end == std::string_view::npos ? end : end - at - 1),
                              &operation->args[i]))
        return false;
      at = end;
    }
    return at == std::string_view::npos;
  }
  return false;
}

}  // namespace random_sequences
