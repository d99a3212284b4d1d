// The generator keeps a rough idea of what each slot will hold, so that most operations meet a socket they mean something to. The idea may
// be wrong: an operation that fails is as good a test as one that works.
// SPDX-License-Identifier: BSD-3-Clause
//
// What is left out because of a row of docs/differences.md stands here as a comment that names the row, or in the table of options.
#include "tests/diff/random/generator.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <initializer_list>

#include "tests/lib/pattern.h"

namespace random_sequences {
namespace {

constexpr int kFewest = 6, kMost = 60;
constexpr uint64_t kStatesEvery = 6;  // one world of so many is about the states of sockets more than about what they move
constexpr uint64_t kDatagramsEvery = 3;  // and one about datagram sockets

enum class Idea : uint8_t { nothing, fresh, listener, stream, datagram, epoll, pipe };

class Generator {
 public:
  Generator(uint64_t seed, uint64_t world) : world_(world), random_(seed * 0x9e37'79b9'7f4a'7c15u + world * 0x2545'f491'4f6c'dd1du + 1) {
    (void)random_.next();
  }

  std::vector<Operation> run() {
    const int length = between(kFewest, kMost);
    threads_ = one_in(4);
    forks_ = one_in(20);
    kernel_side_ = one_in(6);
    states_ = world_ % kStatesEvery == kStatesEvery - 1;
    datagrams_ = world_ % kDatagramsEvery == 1;
    while (static_cast<int>(made_.size()) < length) datagrams_ ? step_of_datagrams() : step();
    return std::move(made_);
  }

 private:
  // --- chance ---
  int below(int bound) { return static_cast<int>(random_.next() % static_cast<uint64_t>(bound)); }
  int between(int low, int high) { return low + below(high - low + 1); }
  bool one_in(int n) { return below(n) == 0; }
  int any_of(std::initializer_list<int> values) { return values.begin()[below(static_cast<int>(values.size()))]; }
  int some_bits(std::initializer_list<int> values, int one_of) {
    int bits = 0;
    for (int value : values) {
      if (one_in(one_of)) bits |= value;
    }
    return bits;
  }
  int size() {
    switch (below(8)) {
      case 0: return 0;
      case 1: return 1;
      case 2: return between(1000, 6000);
      default: return between(2, 300);
    }
  }

  // --- slots ---
  int any_slot() { return one_in(40) ? kSlots : below(kSlots); }  // the last one is no slot: a bad descriptor
  int slot(Idea idea) {
    int found = -1, count = 0;
    for (int i = 0; i < kSlots; i++) {
      if (ideas_[i] == idea && one_in(++count)) found = i;
    }
    return found < 0 || one_in(30) ? any_slot() : found;
  }
  int free_slot() { return has(Idea::nothing) ? exactly(Idea::nothing) : below(kSlots); }
  int exactly(Idea idea) {
    while (true) {
      const int i = below(kSlots);
      if (ideas_[i] == idea) return i;
    }
  }
  bool has(Idea idea) const {
    for (Idea one : ideas_) {
      if (one == idea) return true;
    }
    return false;
  }
  int count(Idea idea) const {
    int sum = 0;
    for (Idea one : ideas_) sum += one == idea;
    return sum;
  }
  int socket_slot() { return slot(datagrams_ ? Idea::datagram : any_of_ideas()); }
  Idea any_of_ideas() {
    const int chance = below(10);
    return chance < 7 ? Idea::stream : chance < 9 ? Idea::listener : Idea::fresh;
  }
  int peer_slot(Idea idea) {
    for (int turn = 0; turn < 8; turn++) {
      const int i = below(kPeerSlots);
      if (peers_[i] == idea) return i;
    }
    return below(kPeerSlots);
  }

  void add(Kind kind, std::initializer_list<int> args = {}) {
    Operation operation{kind, {}};
    int i = 0;
    for (int arg : args) operation.args[i++] = arg;
    made_.push_back(operation);
  }
  void idea(int slot, Idea what) {
    if (slot < kSlots) ideas_[slot] = what;
  }

  // --- operations ---
  int any_family() { return one_in(4) ? AF_INET6 : AF_INET; }
  int new_socket() {
    const int s = free_slot();
    const bool v6 = one_in(8);
    add(Kind::socket, {s, v6 ? AF_INET6 : AF_INET, some_bits({SOCK_NONBLOCK}, threads_ ? 8 : 2) | some_bits({SOCK_CLOEXEC}, 6)});
    six_[s] = v6;
    idea(s, Idea::fresh);
    if (!one_in(5)) add(Kind::set_option, {s, option("TCP_NODELAY"), 1, 0});
    return s;
  }
  static int option(const char* name) {
    for (int i = 0; i < kOptionCount; i++) {
      if (std::string_view(kOptions[i].name) == name) return i;
    }
    return 0;
  }
  int own_address(int s) {
    const bool v6 = s < kSlots && six_[s] != one_in(20);
    if (kernel_side_ && one_in(3)) return v6 ? any_of({kLoopMapped, kLoop6}) : kLoop;
    return v6 ? any_of({kSelfMapped, kSelf6}) : kSelf;
  }
  void new_listener() {
    const int s = new_socket();
    if (one_in(4)) set_option(s);
    const bool wildcard = !one_in(4);
    const int port = one_in(8) ? between(1, kFixedPorts) : 0;
    add(Kind::bind, {s, wildcard ? (six_[s] ? kAny6 : kAny) : own_address(s), port});
    add(Kind::listen, {s, any_of({1, 2, 5, 16})});
    idea(s, Idea::listener);
  }
  void accept_into(int listener) {
    const int s = free_slot();
    add(Kind::accept, {listener, s, some_bits({SOCK_NONBLOCK}, threads_ ? 8 : 2) | some_bits({SOCK_CLOEXEC}, 6), one_in(4)});
    if (s < kSlots && listener < kSlots) six_[s] = six_[listener];
    idea(s, Idea::stream);
  }
  void connect_to_own() {
    if (!has(Idea::listener)) new_listener();
    const int listener = slot(Idea::listener);
    const int s = has(Idea::fresh) && one_in(2) ? exactly(Idea::fresh) : new_socket();
    if (one_in(12)) bind(s);
    add(Kind::connect, {s, own_address(s), listener});
    idea(s, Idea::stream);
    if (!one_in(4)) accept_into(listener);
  }
  void connect_to_peer() {
    int p = peer_slot(Idea::listener);
    if (peers_[p] != Idea::listener) {
      add(Kind::peer_listen, {p, any_family()});
      peers_[p] = Idea::listener;
    }
    const int s = has(Idea::fresh) && one_in(2) ? exactly(Idea::fresh) : new_socket();
    if (one_in(12)) bind(s);
    add(Kind::connect_peer, {s, one_in(25) ? kNobody : kPeer, p});
    idea(s, Idea::stream);
    if (one_in(5)) return;
    int to = below(kPeerSlots);
    if (to == p) to = (to + 1) % kPeerSlots;
    add(Kind::peer_accept, {p, to});
    peers_[to] = Idea::stream;
  }
  void connect_from_peer() {
    if (!has(Idea::listener)) new_listener();
    const int listener = slot(Idea::listener);
    const int p = below(kPeerSlots);
    add(Kind::peer_connect, {p, listener, any_family()});
    peers_[p] = Idea::stream;
    if (!one_in(4)) accept_into(listener);
  }
  void bind(int s) {
    // Row "source-address": a socket bound to an address of the kernel's is the kernel's; hence no kLoop.
    const int address = any_of({kAny, kSelf, kSelf, kForeign, kAny6, kSelfMapped, kSelf6});
    if (one_in(3)) return add(Kind::bind_used, {s, address, socket_slot()});
    add(Kind::bind, {s, address, one_in(3) ? between(1, kFixedPorts) : 0});
  }
  void connect_elsewhere() {
    const int s = one_in(3) ? socket_slot() : slot(Idea::fresh);
    add(Kind::connect_port, {s, any_of({kSelf, kPeer, kNobody, kForeign, kAny, kLoop, kSelfMapped, kSelf6, kPeer6}), below(kFixedPorts)});
  }
  void receive(int s) {
    const int flags =
        some_bits({MSG_PEEK, MSG_DONTWAIT}, 4) | some_bits({MSG_WAITALL, MSG_TRUNC, MSG_NOSIGNAL}, 12) | some_bits({MSG_ERRQUEUE}, 60);
    add(Kind::receive, {s, below(kReceiveCalls), one_in(3) ? 20000 : size(), flags});
  }
  void send(int s) {
    const int flags = some_bits({MSG_NOSIGNAL, MSG_DONTWAIT}, 3);
    add(Kind::send, {s, below(kSendCalls), size(), flags});
  }
  void set_option(int s) {
    const int o = below(kOptionCount);
    if (kOptions[o].excluded != nullptr) return;
    const std::string_view name = kOptions[o].name;
    if (name == "SO_TIMESTAMP") return;  // when the kernel begins to take times is left to a work queue (net_enable_timestamp())
    int value = any_of({0, 1, 1, 2, 5, 100, -1});
    if (name == "SO_RCVBUF" || name == "SO_SNDBUF") value = any_of({16384, 65536, 100000});
    if (datagrams_ && name == "SO_RCVBUF") value = 200'000;  // what buffers hold is not compared here
    if (datagrams_ && name == "SO_SNDBUF") value = 100'000;
    if (name == "SO_LINGER") value = any_of({0, 1, 1, 2});
    if (name == "SO_RCVLOWAT") value = any_of({0, 1, 1, 2, 10, 100});
    if (name == "IPV6_V6ONLY") value = below(2);
    if (name == "TCP_NOTSENT_LOWAT") value = 100000;  // what is not sent of a connection's bytes depends on time
    if (name == "TCP_CORK") value = 0;  // a cork has an operation of its own
    add(Kind::set_option, {s, o, value, one_in(15) ? between(1, 2) : 0});
  }
  void get_option(int s) {
    const int o = one_in(3) ? option("SO_ERROR") : below(kOptionCount);
    if (kOptions[o].excluded == nullptr) add(Kind::get_option, {s, o, one_in(10) ? between(1, 2) : 0});
  }
  void duplicate() {
    const int from = one_in(8) ? any_slot() : socket_slot();
    const int to = one_in(3) ? below(kSlots) : free_slot();
    switch (below(4)) {
      case 0: add(Kind::dup2, {from, to}); break;
      case 1: add(Kind::dup3, {from, to, some_bits({SOCK_CLOEXEC}, 2)}); break;
      case 2: add(Kind::dup_from, {from, to, between(0, 40)}); break;
      default: add(Kind::dup, {from, to}); break;
    }
    if (from < kSlots) {
      idea(to, ideas_[from]);
      six_[to] = six_[from];
    }
  }
  void close(int s) {
    add(Kind::close, {s});
    idea(s, Idea::nothing);
  }
  void control() {
    if (!has(Idea::epoll)) {
      const int e = free_slot();
      add(Kind::epoll, {e});
      idea(e, Idea::epoll);
    }
    const int set = slot(Idea::epoll);
    int events = some_bits({EPOLLIN, EPOLLIN, EPOLLOUT, EPOLLRDHUP}, 2) |
                 some_bits({EPOLLPRI, EPOLLHUP, EPOLLRDNORM, static_cast<int>(EPOLLONESHOT)}, 8);
    if (one_in(3)) events |= static_cast<int>(EPOLLET);
    const int what = any_of({EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL});
    if (what != EPOLL_CTL_DEL && one_in(20)) events |= static_cast<int>(EPOLLEXCLUSIVE);
    const int target = one_in(10) ? any_slot() : socket_slot();
    if (datagrams_ && (events & static_cast<int>(EPOLLET | EPOLLONESHOT)) != 0) events &= ~EPOLLOUT;  // row "udp-edges"
    add(Kind::epoll_ctl, {set, what, target, events, ++registrations_});
  }
  void ask(int s) {
    switch (below(11)) {
      case 0: add(Kind::get_flags, {s}); break;
      case 1: add(Kind::set_flags, {s, some_bits({SOCK_NONBLOCK}, 2)}); break;
      case 2: add(Kind::fd_flags, {s, below(3)}); break;
      case 3: add(Kind::nonblocking, {s, below(2)}); break;
      case 4: add(Kind::unread, {s}); break;
      case 5: add(one_in(10) ? Kind::unsent : Kind::unread, {s}); break;
      case 6: add(Kind::at_mark, {s}); break;
      case 7: add(Kind::local_name, {s, one_in(8)}); break;
      case 8: add(Kind::peer_name, {s, one_in(8)}); break;
      case 9: add(Kind::status, {s}); break;
      default: add(Kind::seek, {s}); break;
    }
  }
  void act_as_peer() {
    const int p = peer_slot(Idea::stream);
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
      case 3: add(Kind::peer_send, {p, size()}); break;
      case 4:
      case 5:
      case 6: add(Kind::peer_receive, {p, one_in(2) ? 20000 : size()}); break;
      case 7: add(Kind::peer_look, {p}); break;
      case 8:
      case 9: add(Kind::peer_shutdown, {p, any_of({SHUT_RD, SHUT_WR, SHUT_WR, SHUT_RDWR})}); break;
      case 10:
        add(Kind::peer_close, {p});
        peers_[p] = Idea::nothing;
        break;
      default:
        add(Kind::peer_reset, {p});
        peers_[p] = Idea::nothing;
        break;
    }
  }
  void rarely() {
    switch (below(8)) {
      case 0: connect_elsewhere(); break;
      case 1: bind(slot(Idea::fresh)); break;
      case 2: add(Kind::listen, {socket_slot(), any_of({1, 3, 16})}); break;
      case 3: add(Kind::accept, {socket_slot(), free_slot(), some_bits({SOCK_NONBLOCK}, 2), 0}); break;
      case 4: pipe(); break;
      case 5: return add(Kind::fill, {slot(Idea::stream)});
      case 6: splice(); break;
      default:
        if (forks_) add(Kind::fork, {socket_slot(), below(5)});
        break;
    }
  }
  // Attempts that fail, sockets that are ended and begun again, and what is said to them between.
  void change_state() {
    const int s = slot(any_of({0, 0, 1, 2}) == 0 ? Idea::fresh : any_of_ideas());
    switch (below(12)) {
      case 0:
      case 1:
      case 2:
        return add(Kind::connect_port,
                   {s, any_of({kSelf, kSelf, kPeer, kNobody, kForeign, kSelfMapped, kSelf6, kPeer6}), below(kFixedPorts)});
      case 3:
      case 4: return add(Kind::shutdown, {s, any_of({SHUT_RD, SHUT_WR, SHUT_RDWR})});
      case 5:
      case 6: return add(Kind::disconnect, {s});
      case 7: return add(Kind::listen, {s, any_of({1, 3, 16})});
      case 8: return bind(s);
      case 9: return add(Kind::get_option, {s, option("SO_ERROR"), 0});
      case 10: return add(Kind::set_option, {s, option("IPV6_V6ONLY"), below(2), 0});
      default: return add(one_in(2) ? Kind::peer_name : Kind::local_name, {s, 0});
    }
  }
  void pipe() {
    const int reader = free_slot();
    idea(reader, Idea::pipe);
    const int writer = free_slot();
    add(Kind::pipe, {reader, writer});
    idea(writer, Idea::pipe);
    pipe_reader_ = reader;
    pipe_writer_ = writer;
  }
  // From a stream into a pipe, or the other way.
  void splice() {
    if (!has(Idea::pipe)) pipe();
    const int writer = pipe_writer_, reader = pipe_reader_;
    if (one_in(2)) {
      add(Kind::splice, {slot(Idea::stream), writer, between(1, 3000)});
      if (one_in(2)) return add(Kind::receive, {reader, kRead, 20000, 0});
    } else {
      add(Kind::send, {writer, kWrite, size(), 0});
    }
    add(Kind::splice, {reader, slot(Idea::stream), between(1, 6000)});
  }
  void block() {
    const int call = below(kBlockingCalls), wakening = below(kWakenings);
    const bool polls = call == kBlockPoll || call == kBlockSelect;
    if (polls && (wakening == kByClose || wakening == kByDup2)) return;  // select(2): "the result is unspecified"
    const int s = call == kBlockConnect                            ? slot(Idea::fresh)
                  : call == kBlockAccept || wakening == kByConnect ? slot(Idea::listener)
                                                                   : socket_slot();
    const int other = any_slot();
    add(Kind::block, {s, call, wakening, other});
    if (call == kBlockConnect) idea(s, Idea::stream);
    if (call == kBlockAccept && wakening == kByConnect) idea(other % kSlots, Idea::stream);
  }

  // --- datagrams ---
  void new_datagram_socket() {
    const int s = free_slot();
    six_[s] = one_in(2);
    add(Kind::datagram, {s, six_[s] ? AF_INET6 : AF_INET, some_bits({SOCK_NONBLOCK}, 2) | some_bits({SOCK_CLOEXEC}, 6)});
    idea(s, Idea::datagram);
    if (six_[s] && one_in(6)) add(Kind::set_option, {s, option("IPV6_V6ONLY"), 1, 0});
    if (one_in(4)) add(Kind::set_option, {s, option("IP_RECVERR"), 1, 0});
    const bool fixed = one_in(3);
    if (fixed) add(Kind::set_option, {s, option(one_in(4) ? "SO_REUSEPORT" : "SO_REUSEADDR"), 1, 0});
    if (!one_in(4)) add(Kind::bind, {s, one_in(2) ? (six_[s] ? kAny6 : kAny) : own_address(s), fixed ? between(1, 2) : 0});
  }
  int datagram_slot() { return slot(Idea::datagram); }
  int datagram_bytes() { return one_in(40) ? any_of({1472, 1473, 9000, 20'000, 66'000}) : size(); }
  int send_flags() { return some_bits({MSG_NOSIGNAL, MSG_DONTWAIT}, 3); }
  void new_datagram_peer() {
    const int p = below(kPeerSlots);
    add(Kind::peer_datagram, {p, one_in(3) ? AF_INET6 : AF_INET});
    peers_[p] = Idea::datagram;
  }
  void change_datagram_socket() {
    const int s = datagram_slot();
    switch (below(7)) {
      case 0: return add(Kind::connect, {s, own_address(s), datagram_slot()});
      case 1:
      case 2: return add(Kind::connect_peer, {s, kPeer, peer_slot(Idea::datagram)});
      case 3: return add(Kind::connect_port, {s, any_of({kSelf, kSelf6, kPeer, kForeign, kSelfMapped}), below(2)});
      case 4: return add(Kind::disconnect, {s});
      case 5: return add(Kind::shutdown, {s, any_of({SHUT_RD, SHUT_WR, SHUT_RDWR})});
      default: return bind(s);
    }
  }
  void send_datagram() {
    const int s = datagram_slot();
    switch (below(7)) {
      case 0:
      case 1:
        return add(Kind::send_to,
                   {s, own_address(s), datagram_slot(), any_of({kSendto, kSendmsg, kSendmmsg}), datagram_bytes(), send_flags()});
      case 2:
        return add(Kind::send_to_peer,
                   {s, peer_slot(Idea::datagram), any_of({kSendto, kSendmsg, kSendmmsg}), datagram_bytes(), send_flags()});
      case 3:
      case 4: return add(Kind::send, {s, below(kSendCalls), datagram_bytes(), send_flags()});
      default: return add(Kind::peer_send_to, {peer_slot(Idea::datagram), s, datagram_bytes() % 30'000});
    }
  }
  void receive_datagram() {
    if (one_in(5)) return add(Kind::peer_receive, {peer_slot(Idea::datagram), one_in(2) ? 20'000 : size()});
    const int flags = some_bits({MSG_PEEK}, 5) | some_bits({MSG_TRUNC, MSG_DONTWAIT, MSG_WAITALL}, 6) | some_bits({MSG_ERRQUEUE}, 12);
    add(Kind::receive, {datagram_slot(), below(kReceiveCalls), one_in(3) ? 30'000 : size(), flags});
  }
  void rarely_with_datagrams() {
    switch (below(8)) {
      case 0: return act_as_peer();
      case 1: return threads_ ? block() : duplicate();
      case 2: return duplicate();
      case 3: return add(Kind::listen, {datagram_slot(), 1});
      case 4: return add(Kind::accept, {datagram_slot(), free_slot(), 0, 0});
      case 5: return forks_ ? add(Kind::fork, {datagram_slot(), below(5)}) : add(Kind::look);
      case 6: return add(Kind::splice, {datagram_slot(), datagram_slot(), 100});
      default:
        return add(Kind::send_to, {datagram_slot(), any_of({kForeign, kSelf, kSelf6, kAny, kLoop6}), datagram_slot(), kSendto, 10, 0});
    }
  }
  void step_of_datagrams() {
    if (count(Idea::datagram) < 3 && !one_in(3)) return new_datagram_socket();
    const int chance = below(100);
    if (chance < 5) return new_datagram_socket();
    if (chance < 10) return new_datagram_peer();
    if (chance < 38) return send_datagram();
    if (chance < 60) return receive_datagram();
    if (chance < 69) return change_datagram_socket();
    if (chance < 72) return close(one_in(8) ? any_slot() : datagram_slot());
    if (chance < 78) return control();
    if (chance < 83) return add(Kind::epoll_wait, {slot(Idea::epoll)});
    if (chance < 85) return set_option(datagram_slot());
    if (chance < 88) return get_option(datagram_slot());
    if (chance < 92) return ask(datagram_slot());
    if (chance < 94) return add(Kind::poll, {datagram_slot(), some_bits({POLLIN, POLLOUT, POLLRDHUP, POLLPRI, POLLRDNORM}, 2)});
    if (chance < 95) return add(Kind::select, {datagram_slot(), any_slot()});
    if (chance < 97) return add(Kind::look);
    rarely_with_datagrams();
  }

  void step() {
    if (count(Idea::stream) < 2 && !one_in(3)) return connect();
    if (states_ && one_in(3)) return change_state();
    if (threads_ && one_in(20)) return block();
    const int chance = below(100);
    if (chance < 8) return connect();
    if (chance < 24) return send(slot(Idea::stream));
    if (chance < 42) return receive(slot(Idea::stream));
    if (chance < 46)
      return add(Kind::shutdown, {one_in(6) ? socket_slot() : slot(Idea::stream), any_of({SHUT_RD, SHUT_WR, SHUT_WR, SHUT_RDWR})});
    if (chance < 50) return close(one_in(8) ? any_slot() : socket_slot());
    if (chance < 53) return duplicate();
    if (chance < 61) return control();
    if (chance < 68) return add(Kind::epoll_wait, {slot(Idea::epoll)});
    if (chance < 72) return set_option(socket_slot());
    if (chance < 76) return get_option(socket_slot());
    if (chance < 80) return ask(socket_slot());
    if (chance < 92) return act_as_peer();
    if (chance < 94) return add(Kind::poll, {socket_slot(), some_bits({POLLIN, POLLOUT, POLLRDHUP, POLLPRI, POLLRDNORM}, 2)});
    if (chance < 95) return add(Kind::select, {socket_slot(), any_slot()});
    if (chance < 96) return add(Kind::look);
    if (chance < 97 && one_in(2)) return add(Kind::corked, {slot(Idea::stream), size(), size(), below(kCorks)});
    if (chance < 97) return add(Kind::sendfile, {slot(Idea::stream), size(), one_in(2) ? -1 : between(0, 1000)});
    if (chance < 98) return add(Kind::receive, {slot(Idea::stream), below(kReceiveCalls), 20000, MSG_DONTWAIT});
    rarely();
  }
  void connect() {
    switch (below(5)) {
      case 0:
      case 1: return connect_to_own();
      case 2:
      case 3: return connect_to_peer();
      default: return connect_from_peer();
    }
  }

  uint64_t world_;
  testing_lib::Random random_;
  std::vector<Operation> made_;
  Idea ideas_[kSlots] = {};
  Idea peers_[kPeerSlots] = {};
  bool six_[kSlots + 1] = {};
  int registrations_ = 0, pipe_reader_ = 0, pipe_writer_ = 0;
  bool threads_ = false, forks_ = false, kernel_side_ = false, states_ = false, datagrams_ = false;
};

}  // namespace

std::vector<Operation> generate(uint64_t seed, uint64_t world) { return Generator(seed, world).run(); }

}  // namespace random_sequences
