// The watched stack's wire, its beginning and its end.
// SPDX-License-Identifier: BSD-3-Clause
#include "watched_stack.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "base/log.h"

// What the files of the image keep (watched/sections.h).
extern "C" char __start_zps_zeros[], __stop_zps_zeros[], __start_zps_values[], __stop_zps_values[];

namespace fuzz {

uint64_t Bed::now_ns = 0;
bool Bed::autoconfigures = false;

namespace {

constexpr uint64_t kMs = 1'000'000;

[[noreturn]] void give_up(const char* what) {
  fprintf(stderr, "watched_stack: %s\n", what);
  abort();
}

// Between variables lies what AddressSanitizer forbids to touch.
[[clang::no_sanitize("address"), clang::optnone]] void copy_all(char* to, const char* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) to[i] = from != nullptr ? from[i] : 0;
}

void put_variables_back() {
  static char* const values = [] {
    const auto bytes = static_cast<size_t>(__stop_zps_values - __start_zps_values);
    char* const kept = static_cast<char*>(malloc(bytes));
    copy_all(kept, __start_zps_values, bytes);
    return kept;
  }();
  copy_all(__start_zps_values, values, static_cast<size_t>(__stop_zps_values - __start_zps_values));
  copy_all(__start_zps_zeros, nullptr, static_cast<size_t>(__stop_zps_zeros - __start_zps_zeros));
}

uint32_t field16(const uint8_t* at) { return static_cast<uint32_t>(at[0] << 8 | at[1]); }

void check_sent(const uint8_t* frame, uint32_t length) {
  if (length < 14 || length > 14u + ExactWire::kMtu) give_up("a frame of a length that it cannot have");
  const uint32_t packet = length - 14;
  const uint8_t* const d = frame + 14;
  switch (field16(frame + 12)) {
    case 0x0800:
      if (packet < 20 || d[0] >> 4 != 4 || (d[0] & 15) * 4u > packet || field16(d + 2) > packet) give_up("no IPv4 packet");
      break;
    case 0x86dd:
      if (packet < 40 || d[0] >> 4 != 6 || field16(d + 4) + 40 > packet) give_up("no IPv6 packet");
      break;
    case 0x0806:
      if (packet < 28) give_up("no ARP packet");
      break;
    default: give_up("a frame of no known type");
  }
}

}  // namespace

// ---------------------------------------------------------------- the wire

struct ExactWire::Frame {
  alignas(64) unsigned char scratch[netstack::kFramePrivateBytes];
  uint8_t* data;
  uint32_t length;
};

ExactWire::ExactWire() {
  facts_ = {"exact", {}, kMtu, true, false};
  memcpy(facts_.mac, kStackMac, sizeof kStackMac);
}

void ExactWire::deliver(const Bytes& bytes) {
  if (bytes.empty() || bytes.size() > 14 + kMtu || taken_ == kFrames) return;
  auto* const frame = new Frame;
  frame->data = static_cast<uint8_t*>(malloc(bytes.size()));
  frame->length = static_cast<uint32_t>(bytes.size());
  memcpy(frame->data, bytes.data(), bytes.size());
  inbox_.push_back(frame);
  taken_++;
}

void ExactWire::empty() {
  for (Frame* frame : inbox_) release(frame);
  inbox_.clear();
  refuse = crowd = false;
}

int ExactWire::receive(netstack::RxFrame* out, int capacity) noexcept {
  int count = 0;
  for (; count < capacity && count < static_cast<int>(inbox_.size()); count++) {
    Frame* const frame = inbox_[static_cast<size_t>(count)];
    out[count] = {frame->data, frame->length, frame, frame->scratch};
  }
  inbox_.erase(inbox_.begin(), inbox_.begin() + count);
  return count;
}

void ExactWire::release(void* handle) noexcept {
  auto* const frame = static_cast<Frame*>(handle);
  free(frame->data);
  delete frame;
  taken_--;
}

bool ExactWire::allocate(netstack::TxFrame* out) noexcept {
  if (refuse) return false;
  auto* const frame = new Frame;
  frame->length = 14 + kMtu;
  frame->data = static_cast<uint8_t*>(malloc(frame->length));
  *out = {frame->data, frame->length, frame};
  taken_++;
  return true;
}

void ExactWire::send(void* handle, uint32_t length) noexcept {
  check_sent(static_cast<Frame*>(handle)->data, length);
  release(handle);
}

// ---------------------------------------------------------------- the stack

Bed::Bed() : door_(netstack::zps_stack_door()) {
  base::set_log_level(base::LogLevel::error);
  if (door_.setup_bytes != sizeof(netstack::StackSetup)) give_up("another stack's header");
  region_ = mmap(nullptr, door_.region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region_ == MAP_FAILED) give_up("no memory");
}

void Bed::begin() {
  put_variables_back();
  heap_.reset();
  wire_.empty();
  if (madvise(region_, door_.region_bytes, MADV_DONTNEED) != 0) give_up("no zeros");
  now_ns = 1'000'000 * kMs;
  netstack::StackSetup setup{};
  setup.wire = &wire_;
  setup.arena = &heap_;
  setup.region = region_;
  setup.region_bytes = door_.region_bytes;
  setup.address_be = htonl(kStackIp);
  setup.prefix = 24;
  setup.gateway_be = htonl(kPeerIp);
  memcpy(setup.ip6[0].address.words_be, kStackIp6, 16);
  setup.ip6[0].prefix = 64;
  memcpy(setup.gateway6.words_be, kPeerIp6, 16);
  if (autoconfigures) setup.autoconfigure = true, setup.gateway6 = {};
  setup.time_wait_ms = 1000;
  setup.now_ns = [] { return now_ns; };
  stack_ = door_.make(&setup);
  if (stack_ == nullptr) give_up("no stack");
  open();
  announce();
}

void Bed::open() {
  using netstack::SocketAddress;
  using netstack::UdpOption;
  const SocketAddress peer{htonl(kPeerIp), htons(1000)};
  SocketAddress peer6{};
  memcpy(peer6.address.words_be, kPeerIp6, 16);
  peer6.port_be = htons(1000);
  const SocketAddress locals[] = {{netstack::IpAddress{}, htons(53)}, {htonl(0), htons(54)}, {netstack::IpAddress{}, htons(55)}};
  for (const SocketAddress& local : locals) {
    netstack::UdpEndpoint* const endpoint = stack_->make_endpoint();
    if (endpoint->bind({local}) != 0 || endpoint->set_option(UdpOption::errors, 1) != 0) give_up("no endpoint");
    endpoints_.push_back(endpoint);
  }
  if (endpoints_[1]->connect(peer) != 0 || endpoints_[2]->connect(peer6) != 0) give_up("no peer");
  long error = 0;
  listener_ = stack_->listen({{netstack::IpAddress{}, htons(80)}}, nullptr, 8, &error);
  for (const SocketAddress& to : {peer, peer6}) {
    netstack::TcpStream* const stream = stack_->make_stream();
    const netstack::IpAddress any = to.address.is_v4() ? netstack::IpAddress::v4(0) : netstack::IpAddress{};
    if (stack_->bind_stream(stream, {any, htons(1000)}) == 0) (void)stream->connect(to);
    streams_.push_back(stream);
  }
}

// The peer says where it is.
void Bed::announce() {
  Bytes arp{0, 1, 8, 0, 6, 4, 0, 2};
  put(arp, kPeerMac, 6);
  put32(arp, kPeerIp);
  put(arp, kStackMac, 6);
  put32(arp, kStackIp);
  wire_.deliver(ethernet(0x0806, arp));
  Bytes advert{136, 0, 0, 0, 0x60, 0, 0, 0};
  put(advert, kPeerIp6, 16);
  put(advert, Bytes{2, 1});
  put(advert, kPeerMac, 6);
  wire_.deliver(ethernet(0x86dd, ip6({.next = kIcmp6}, advert)));
  poll();
}

void Bed::deliver(const Bytes& frame) {
  wire_.deliver(frame);
  poll();
}

void Bed::send(Input& input) {
  Bytes data(input.next<uint16_t>() % 5000, 'd');
  iovec part{data.data(), data.size()};
  netstack::UdpEndpoint& from = *endpoints_[input.next<uint8_t>() % endpoints_.size()];
  netstack::SendRequest request;
  netstack::SocketAddress to;
  const auto how = input.next<uint8_t>();
  to.port_be = htons(any_port(input));
  if ((how & 1) != 0) {
    to.address = netstack::IpAddress::v4(htonl(any_ip(input)));
  } else {
    Bytes address;
    put_any_ip6(address, input);
    memcpy(to.address.words_be, address.data(), 16);
  }
  if ((how & 2) != 0) request.to = &to;
  request.more = (how & 12) == 12;
  request.whole = (how & 48) == 48;
  (void)from.send(request, &part, 1);
}

void Bed::read() {
  static char buffer[70'000];
  iovec part{buffer, sizeof buffer};
  for (netstack::UdpEndpoint* endpoint : endpoints_) {
    netstack::Datagram about;
    netstack::UdpError error;
    while (endpoint->receive(&part, 1, true, &about) >= 0 && endpoint->receive(&part, 1, false, &about) >= 0) continue;
    while (endpoint->receive_error(&part, 1, &error) >= 0) continue;
    (void)endpoint->take_error();
  }
  netstack::SocketAddress peer;
  long error = 0;
  while (netstack::TcpStream* const accepted = listener_->accept(&peer, &error)) streams_.push_back(accepted);
  for (netstack::TcpStream* stream : streams_) (void)stream->read(&part, 1, false);
}

void Bed::act(Input& input) {
  const auto what = input.next<uint8_t>();
  switch (what % 8) {
    case 0: now_ns += (what / 8) * 200 * kMs; break;
    case 1: read(); break;
    case 2: wire_.refuse = !wire_.refuse; break;
    case 3: wire_.crowd = !wire_.crowd; break;
    default: send(input); break;
  }
  poll();
}

void Bed::end() {
  wire_.refuse = wire_.crowd = false;
  read();
  for (netstack::UdpEndpoint* endpoint : endpoints_) endpoint->release();
  endpoints_.clear();
  for (netstack::TcpStream* stream : streams_) {
    (void)stream->set_option(netstack::TcpOption::linger_s, 0);
    stream->release();
  }
  streams_.clear();
  listener_->release();
  poll();
  int turns = 0;
  for (uint64_t next = 0; (next = stack_->next_timer_ns()) != UINT64_MAX; turns++) {
    if (turns > 5000) give_up("there is no end of timers");
    now_ns = next > now_ns ? next : now_ns + kMs;
    poll();
  }
  if (wire_.free_frames() != ExactWire::kFrames) give_up("frames leak");
  if (heap_.used() != 0) give_up("memory leaks");
}

}  // namespace fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t count) {
  static fuzz::Bed bed;
  fuzz::Input input(bytes, count);
  bed.begin();
  while (!input.empty()) {
    if (input.next<uint8_t>() >= 224) {
      bed.act(input);
    } else {
      feed(bed, input);
    }
  }
  bed.end();
  return 0;
}
