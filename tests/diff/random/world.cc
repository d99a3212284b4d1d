// Slots, books, settling and the trace.
// SPDX-License-Identifier: BSD-3-Clause
#include "tests/diff/random/world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>

namespace random_sequences {
namespace {

constexpr uint64_t kPatienceUs = 2'000'000;
constexpr long kLongestSeconds = 8;
constexpr uint16_t kFirstFixedPort = 2000;
constexpr uint16_t kFixedPortRange = 30'000;  // below the ephemeral ports

in_addr_t address_in(const char* variable) {
  const char* text = getenv(variable);
  return text == nullptr ? INADDR_NONE : inet_addr(text);
}

in6_addr address6_in(const char* variable) {
  in6_addr made{};
  const char* text = getenv(variable);
  if (text != nullptr) (void)inet_pton(AF_INET6, text, &made);
  return made;
}

// What the address classes are in this run, in network order.
struct Addresses {
  in_addr_t self = address_in("ZPS_TEST_SELF");
  in_addr_t peer = address_in("ZPS_TEST_PEER");
  // In the wire's network, but nobody is there.
  in_addr_t nobody = (self & htonl(0xffff'ff00)) | htonl(77);
  // No address of this machine, in no network of it.
  in_addr_t foreign = htonl(0xc633'6401);
  in6_addr self6 = address6_in("ZPS_TEST_SELF6");
  in6_addr peer6 = address6_in("ZPS_TEST_PEER6");
};

const Addresses& addresses() {
  static const Addresses all;
  return all;
}

in_addr_t address_be(int kind) {
  switch (kind) {
    case kSelf:
    case kSelfMapped: return addresses().self;
    case kPeer:
    case kPeerMapped: return addresses().peer;
    case kLoop:
    case kLoopMapped: return htonl(INADDR_LOOPBACK);
    case kNobody: return addresses().nobody;
    case kForeign: return addresses().foreign;
    default: return INADDR_ANY;
  }
}

in6_addr address6(int kind) {
  in6_addr made{};
  switch (kind) {
    case kLoop6: return in6addr_loopback;
    case kSelf6: return addresses().self6;
    case kPeer6: return addresses().peer6;
    case kAny6: return made;
    default: break;
  }
  made.s6_addr32[2] = htonl(0xffff);
  made.s6_addr32[3] = address_be(kind);
  return made;
}

bool same(const in6_addr& a, const in6_addr& b) { return memcmp(&a, &b, sizeof a) == 0; }

// Those that a world may have made: the tester's own lie higher.
int open_descriptors() {
  constexpr int kHighest = 128;
  int count = 0;
  for (int fd = 0; fd < kHighest; fd++) count += fcntl(fd, F_GETFD) >= 0;
  return count;
}

// SIGALRM after so many seconds, and each second from then on; 0: no more.
void alarm_after(long seconds) {
  const itimerval time{{seconds != 0, 0}, {seconds, 0}};
  (void)setitimer(ITIMER_REAL, &time, nullptr);
}

std::string word_of(in_addr_t address) {
  if (address == INADDR_ANY) return "any";
  if (address == addresses().self) return "self";
  if (address == addresses().peer) return "peer";
  if (address == htonl(INADDR_LOOPBACK)) return "loop";
  if (address == addresses().nobody) return "nobody";
  in_addr text{address};
  return inet_ntoa(text);
}

std::string word_of(const in6_addr& address) {
  if (IN6_IS_ADDR_V4MAPPED(&address)) return word_of(address.s6_addr32[3]) + "46";
  for (const auto& [kind, word] :
       {std::pair(kAny6, "any6"), std::pair(kLoop6, "loop6"), std::pair(kSelf6, "self6"), std::pair(kPeer6, "peer6")}) {
    if (same(address, address6(kind))) return word;
  }
  return "other6";
}

}  // namespace

volatile int sigpipe_count = 0, sigalrm_count = 0;

bool is_nonblocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

bool is_v6(int fd) {
  int domain = 0;
  socklen_t bytes = sizeof domain;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_INET6;
}

bool is_self(int address) { return address == kSelf || address == kSelfMapped || address == kSelf6; }

bool shares_address() {
  static const bool shares = getenv("ZPS_TEST_SHARED") != nullptr;
  return shares;
}

// No address is the loopback's to connect() and sendto(). Where the address is shared what the machine sends to itself goes by the kernel.
bool is_loopback(int address) {
  if (shares_address() && is_self(address)) return true;
  return address == kLoop || address == kLoopMapped || address == kLoop6 || address == kAny || address == kAny6;
}

int address_of_peer(int fd, const PeerSlot& peer) { return peer.family == AF_INET6 ? kPeer6 : is_v6(fd) ? kPeerMapped : kPeer; }

uint16_t port_of(const sockaddr_storage& name) {
  return ntohs(reinterpret_cast<const sockaddr_in&>(name).sin_port);  // the same place for both families
}

uint16_t local_port(int fd) {
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;
  return getsockname(fd, reinterpret_cast<sockaddr*>(&name), &bytes) == 0 ? port_of(name) : static_cast<uint16_t>(0);
}

short level(int fd, short events) {
  pollfd one{fd, events, 0};
  return poll(&one, 1, 0) > 0 ? one.revents : static_cast<short>(0);
}

World::World(Agent& the_agent, Barrier& the_barrier) : agent(the_agent), barrier(the_barrier), descriptors_before_(open_descriptors()) {
  std::fill(fds_, fds_ + kSlots, -1);
}

World::~World() = default;

void World::run(const Operation& operation) {
  if (lost_) return;
  const int before = sigpipe_count, alarms_before = sigalrm_count;
  trace_ += to_text(operation);
  alarm_after(kLongestSeconds);
  row_of(operation.kind).run(*this, operation.args);
  if (sigalrm_count != alarms_before) {
    note(" (interrupted)");
    lost_ = true;
  }
  if (sigpipe_count != before) note(" SIGPIPE %d", sigpipe_count - before);
  trace_ += '\n';
  step++;
}

void World::finish() {
  run({Kind::look, {}});
  for (int slot = 0; slot < kPeerSlots; slot++) {
    if (peers[slot].fd >= 0) run({Kind::peer_look, {slot}});
  }
  const linger now{1, 0};
  for (int slot = 0; slot < kSlots; slot++) {
    if (files_[slot] == nullptr) continue;
    if (files_[slot]->kind == FileKind::stream) (void)setsockopt(fds_[slot], SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)close(fds_[slot]);
    files_[slot] = nullptr;
    fds_[slot] = -1;
  }
  (void)agent.call(AgentCall::forget, -1);
  alarm_after(0);
  note("%d descriptors left\n", open_descriptors() - descriptors_before_);
}

void World::hold(int slot, int fd, std::shared_ptr<File> file) {
  if (files_[slot] != nullptr) (void)close_slot(slot);
  fds_[slot] = fd;
  file->fd = fd;
  files_[slot] = std::move(file);
}

void World::replace(int slot, std::shared_ptr<File> file) { files_[slot] = std::move(file); }

int World::close_slot(int slot) {
  std::shared_ptr<File> file = std::move(files_[slot]);
  files_[slot] = nullptr;
  const bool had_unread = file->kind == FileKind::stream && file.use_count() == 1 && unread_bytes(fds_[slot]) > 0;
  if (had_unread) await_acknowledged(file->end);
  const int result = close(fds_[slot]);
  fds_[slot] = -1;
  if (file.use_count() == 1) {
    released(file, had_unread);
  } else {
    find_descriptor(file);
  }
  return result;
}

void World::find_descriptor(const std::shared_ptr<File>& file) {
  file->fd = -1;
  for (int other = 0; other < kSlots; other++) {
    if (files_[other] == file) file->fd = fds_[other];
  }
}

void World::released(const std::shared_ptr<File>& file, bool had_unread) {
  if (file->kind == FileKind::listener) forget_waiting(file.get());
  End* end = file->end;
  if (end == nullptr) return;
  end->file = nullptr;
  end->gone = end->fin = true;
  end->skips_fin_wait = file->skips_fin_wait;
  if (end->listener != nullptr) end->listener = nullptr;
  if (end->other != nullptr) {
    if (had_unread || file->linger_zero) end->other->reset = true;
    settle(end->other);
    if (file->skips_fin_wait && !end->other->fin && !end->other->reset) await_reset_of_fin_wait(end->other);
  }
}

void World::await_reset_of_fin_wait(End* other) {
  if (other->agent_fd >= 0) (void)agent.call(AgentCall::acknowledge, other->agent_fd, 0, 0, expected_at(*other));
  if (other->file != nullptr) acknowledge_now(other->file->fd);
  other->reset = true;
  settle(other);
}

// A listener that ends resets whoever it has not accepted.
void World::forget_waiting(File* listener) {
  for (End* end : listener->waiting) {
    end->listener = nullptr;
    end->reset = true;
    settle(end);
  }
  listener->waiting.clear();
}

File* World::listener_at(int address, uint16_t port) {
  for (int slot = 0; slot < kSlots; slot++) {
    File* one = files_[slot].get();
    if (one != nullptr && one->kind == FileKind::listener && one->port == port && answers(*one, address)) return one;
  }
  return nullptr;
}

bool World::port_is_listened_at(uint16_t port) const {
  return std::any_of(files_, files_ + kSlots,
                     [port](const auto& file) { return file != nullptr && file->kind == FileKind::listener && file->port == port; });
}

bool World::answers(const File& listener, int address) const {
  if (address == kPeer || address == kPeer6 || address == kPeerMapped || address == kNobody || address == kForeign) return false;
  if (address == kLoop6 || address == kAny6 || address == kSelf6) {
    const int at = address == kAny6 ? kLoop6 : address;
    return listener.family != AF_INET && (listener.address6 == kAny6 || listener.address6 == at);
  }
  const in_addr_t wanted = address == kAny ? htonl(INADDR_LOOPBACK) : address_be(address);  // connect() to no address goes to the loopback
  return listener.family != AF_INET6 && (listener.address_be == 0 || listener.address_be == wanted);
}

void World::note_sent(End* end, unsigned moved) {
  if (end == nullptr || moved == 0) return;
  end->sent += moved;
  if (!resets_data(*end)) return;
  end->reset = true;
  if (end->other != nullptr) end->other->reset = true;
}

// Who is closed answers data with a reset, and so does who has shut down both streams (RFC 1122 4.2.2.13).
bool World::resets_data(const End& end) {
  const End* other = end.other;
  if (other != nullptr) return other->gone || (other->fin && other->shut_read);
  return end.listener != nullptr && end.listener->shut == 3;
}

Arrival World::expected_at(const End& end) const {
  Arrival expected;
  expected.connected = end.answered;
  const End* other = end.other;
  // Who is not accepted yet has shut down what his listener had when it began to listen (tcp_rcv_state_process() in TCP_SYN_RECV).
  const bool other_fin = other != nullptr ? other->fin : end.listener != nullptr && (end.listener->shut & 2) != 0;
  expected.closed = end.reset || (end.fin && other_fin);
  expected.fin = other_fin;
  if (other == nullptr) return expected;
  expected.unread_bytes = other->sent - end.read;
  return expected;
}

void World::settle(End* end) {
  if (end == nullptr || end->file == nullptr || lost_) return;
  const Arrival expected = expected_at(*end);
  const int fd = end->file->fd;
  Patience patience(kPatienceUs);
  while (!has_arrived(fd, expected)) {
    if (end->reader_is_over != nullptr && end->reader_is_over()) return;
    (void)level(fd, 0);
    if (!patience.goes_on()) {
      note(" (not arrived: state %d, %u of %u unread)", tcp_state(fd), unread_bytes(fd), expected.unread_bytes);
      lost_ = true;
      return;
    }
  }
}

void World::settle_all() {
  for (End& end : ends_) settle(&end);
}

void World::await_acknowledged(End* end) {
  if (end == nullptr || end->file == nullptr || !end->answered || end->reset || lost_) return;
  const End nobody, &other = end->other == nullptr ? nobody : *end->other;  // who is not accepted yet acknowledges by himself
  if (other.agent_fd >= 0) (void)agent.call(AgentCall::acknowledge, other.agent_fd, 0, 0, expected_at(other));
  const int fd = end->file->fd;
  Patience patience(kPatienceUs);
  while (!is_acknowledged(fd)) {
    if (other.file != nullptr) acknowledge_now(other.file->fd);
    (void)level(fd, 0);
    if (!patience.goes_on()) {
      note(" (not acknowledged: state %d)", tcp_state(fd));
      lost_ = true;
      return;
    }
  }
}

void World::note_fin(End* end) {
  end->fin = true;
  settle(end->other);
  settle(end);
  if (end->file != nullptr && end->file->has_edges) await_acknowledged(end);
}

uint16_t World::fixed_port(int index) const { return fixed_ports_[index] != 0 ? fixed_ports_[index] : kNobodysPort; }

uint16_t World::claim_fixed_port(int index) {
  static unsigned claimed = 0;
  if (fixed_ports_[index] == 0) fixed_ports_[index] = static_cast<uint16_t>(kFirstFixedPort + claimed++ % kFixedPortRange);
  return fixed_ports_[index];
}

unsigned World::address(int kind, uint16_t port, sockaddr_storage* out) const {
  memset(out, 0, sizeof *out);
  if (kind < kAny6) {
    auto* v4 = reinterpret_cast<sockaddr_in*>(out);
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    v4->sin_addr.s_addr = address_be(kind);
    return sizeof *v4;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(out);
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons(port);
  v6->sin6_addr = address6(kind);
  return sizeof *v6;
}

std::string World::name_of(const sockaddr_storage& name, unsigned bytes, uint16_t expected_port) const {
  std::string text;
  uint16_t port = 0;
  if (name.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(name);
    text = word_of(v4.sin_addr.s_addr);
    port = ntohs(v4.sin_port);
  } else if (name.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(name);
    text = word_of(v6.sin6_addr);
    port = ntohs(v6.sin6_port);
  } else {
    return "family " + std::to_string(name.ss_family) + "/" + std::to_string(bytes);
  }
  text += ':';
  for (int i = 0; i < kFixedPorts; i++) {
    if (port == fixed_ports_[i] && port != 0) return text + "fixed" + std::to_string(i) + "/" + std::to_string(bytes);
  }
  text += port == 0 ? "0" : port == expected_port ? "expected" : expected_port == 0 ? "some" : "unexpected";
  return text + "/" + std::to_string(bytes);
}

void World::await_barrier() {
  if (lost_ || barrier.pass(agent)) return;
  note(" (barrier)");
  lost_ = true;
}

void World::note(const char* format, ...) {
  char text[400];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  trace_ += text;
}

void World::note_result(long result) {
  if (result >= 0) {
    note(" = %ld", result);
    return;
  }
  const char* name = strerrorname_np(errno);
  note(" = %s", name == nullptr ? "?" : name);
}

}  // namespace random_sequences
