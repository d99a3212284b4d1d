// Byte queues that look like TCP.
// SPDX-License-Identifier: BSD-3-Clause
#include "fake_stack.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>
#include <new>

namespace shim_test {
namespace {

// A wire that never has a frame and cannot wake anybody: waits are woken by the observers or look around by themselves.
class FakeWire final : public netstack::Wire {
 public:
  [[nodiscard]] const netstack::WireFacts& facts() const noexcept override { return facts_; }
  [[nodiscard]] int receive(netstack::RxFrame*, int) noexcept override { return 0; }
  [[nodiscard]] bool rests() const noexcept override { return FakeStack::get().rests; }
  void release(void*) noexcept override {}
  [[nodiscard]] bool allocate(netstack::TxFrame*) noexcept override { return false; }
  void send(void*, uint32_t) noexcept override {}
  void flush() noexcept override {}
  [[nodiscard]] int backlog() const noexcept override { return 0; }
  [[nodiscard]] int sleep_fd() noexcept override { return -1; }
  void arm() noexcept override {}
  void disarm() noexcept override {}
  [[nodiscard]] int control_fd() noexcept override { return -1; }
  void run_control() noexcept override {}
  [[nodiscard]] int free_frames() const noexcept override { return 0; }
  [[nodiscard]] int total_frames() const noexcept override { return 0; }
  void recover() noexcept override {}

 private:
  netstack::WireFacts facts_{};
};

FakeWire the_wire;
uint16_t next_port = 40000;

}  // namespace

FakeStack::FakeStack() noexcept : Stack(the_wire) {}

FakeStack& FakeStack::get() {
  static FakeStack* stack = [] {
    void* memory = mmap(nullptr, sizeof(FakeStack), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return new (memory) FakeStack();
  }();
  return *stack;
}

uint32_t FakeStream::ready() const noexcept {
  uint32_t level = 0;
  if (fill > 0 || end_seen) level |= EPOLLIN;
  if (up && (other == nullptr || other->fill < kCapacity)) level |= EPOLLOUT;
  if (end_seen) level |= EPOLLRDHUP;
  if (end_seen && write_closed) level |= EPOLLHUP;
  if (error != 0) level |= EPOLLERR | EPOLLHUP;
  return level;
}

void FakeStream::tell(uint32_t events) noexcept {
  for (netstack::Observer* observer = observers.front(); observer != nullptr; observer = observers.after(observer)) {
    observer->on_ready(*this, events);
  }
}

long FakeStream::connect(const netstack::SocketAddress& to) noexcept {
  there = to;
  here = {kStackAddress, htons(next_port++)};
  FakeListener* listener = FakeStack::get().find(to.port_be);
  if (listener == nullptr || listener->waiting == FakeListener::kQueue) {
    error = ECONNREFUSED;
    tell(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP);
    return 0;
  }
  auto* far = static_cast<FakeStream*>(FakeStack::get().make_stream());
  other = far;
  far->other = this;
  far->here = to;
  far->there = here;
  up = far->up = true;
  listener->queue[listener->waiting++] = far;
  for (netstack::Observer* observer = listener->observers.front(); observer != nullptr; observer = listener->observers.after(observer)) {
    observer->on_ready(*listener, EPOLLIN);
  }
  tell(EPOLLOUT);
  return 0;
}

long FakeStream::read(const iovec* parts, int count, bool peek) noexcept {
  if (error != 0) return -take_error();
  if (!up) return -ENOTCONN;
  if (fill == 0) return end_seen ? 0 : -EAGAIN;
  size_t done = 0;
  for (int i = 0; i < count && done < fill; i++) {
    const size_t part = parts[i].iov_len < fill - done ? parts[i].iov_len : fill - done;
    memcpy(parts[i].iov_base, bytes + done, part);
    done += part;
  }
  if (!peek) {
    memmove(bytes, bytes + done, fill - done);
    const bool was_full = fill == kCapacity;
    fill -= done;
    if (was_full && other != nullptr) other->tell(EPOLLOUT);
  }
  return static_cast<long>(done);
}

long FakeStream::write_from(netstack::ByteSource& source, size_t wanted, bool) noexcept {
  if (write_closed || other == nullptr) return -EPIPE;
  const size_t room = kCapacity - other->fill;
  if (room == 0 && wanted > 0) return -EAGAIN;
  const long taken = source.take(other->bytes + other->fill, wanted < room ? wanted : room);
  if (taken <= 0) return 0;
  other->fill += static_cast<size_t>(taken);
  other->tell(EPOLLIN);
  return taken;
}

long FakeStream::write(const iovec* parts, int count, bool) noexcept {
  if (write_closed || other == nullptr) return -EPIPE;
  size_t done = 0;
  for (int i = 0; i < count && other->fill < kCapacity; i++) {
    const size_t room = kCapacity - other->fill;
    const size_t part = parts[i].iov_len < room ? parts[i].iov_len : room;
    memcpy(other->bytes + other->fill, parts[i].iov_base, part);
    other->fill += part;
    done += part;
  }
  if (done > 0) other->tell(EPOLLIN);
  size_t wanted = 0;
  for (int i = 0; i < count; i++) wanted += parts[i].iov_len;
  return done == 0 && wanted > 0 ? -EAGAIN : static_cast<long>(done);
}

long FakeStream::shutdown(int how) noexcept {
  if (!up) return -ENOTCONN;
  if (how != SHUT_RD) {
    write_closed = true;
    if (other != nullptr) {
      other->end_seen = true;
      other->tell(EPOLLIN | EPOLLRDHUP);
    }
  }
  if (how != SHUT_WR) end_seen = true;
  return 0;
}

int FakeStream::take_error() noexcept {
  const int pending = error;
  error = 0;
  return pending;
}

long FakeStream::set_option(netstack::TcpOption option, int value) noexcept {
  options[static_cast<int>(option)] = value;
  return 0;
}

long FakeStream::get_option(netstack::TcpOption option, int* value) const noexcept {
  *value = options[static_cast<int>(option)];
  return 0;
}

void FakeStream::release() noexcept {
  if (other != nullptr) {
    other->end_seen = true;
    other->other = nullptr;
    other->tell(EPOLLIN | EPOLLRDHUP);
  }
  used = false;
}

uint32_t FakeListener::ready() const noexcept { return waiting > 0 ? static_cast<uint32_t>(EPOLLIN) : 0u; }

netstack::TcpStream* FakeListener::accept(netstack::SocketAddress* peer, long* error) noexcept {
  if (waiting == 0) {
    *error = -EAGAIN;
    return nullptr;
  }
  FakeStream* first = queue[0];
  memmove(queue, queue + 1, static_cast<size_t>(--waiting) * sizeof queue[0]);
  *peer = first->there;
  return first;
}

void FakeListener::release() noexcept {
  while (waiting > 0) queue[--waiting]->release();
  used = false;
}

int FakeStack::poll(uint64_t now_ns) noexcept {
  polled_ns = now_ns;
  polls = polls + 1;
  if (turn_ns != 0) {
    for (const uint64_t end_ns = base::monotonic_ns() + turn_ns; base::monotonic_ns() < end_ns;) {
    }
  }
  return 0;
}

void FakeStack::flush() noexcept {
  flushes++;
  (void)syscall(SYS_futex, &flushes, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void FakeStack::wait_for_flush(uint32_t seen) noexcept { (void)syscall(SYS_futex, &flushes, FUTEX_WAIT, seen, nullptr, nullptr, 0); }

netstack::TcpStream* FakeStack::make_stream() noexcept {
  for (FakeStream& stream : streams) {
    if (stream.used) continue;
    FakeStream* made = new (&stream) FakeStream();
    made->used = true;
    return made;
  }
  return nullptr;
}

long FakeStack::bind_stream(netstack::TcpStream* stream, const netstack::SocketAddress& local) noexcept {
  static_cast<FakeStream*>(stream)->here = local;
  return 0;
}

netstack::PortBinding* FakeStack::bind(const netstack::PortRequest& request, long* error) noexcept {
  FakeBinding* free = nullptr;
  const uint16_t port_be = request.local.port_be != 0 ? request.local.port_be : htons(next_port++);
  *error = find(port_be) != nullptr ? -EADDRINUSE : 0;
  for (FakeBinding& binding : bindings) {
    if (!binding.used) free = &binding;
    if (binding.used && binding.here.port_be == port_be) *error = -EADDRINUSE;
  }
  if (*error == 0 && free == nullptr) *error = -ENOBUFS;
  if (*error != 0) return nullptr;
  free->used = true;
  free->here = {request.local.address, port_be};
  return free;
}

netstack::TcpListener* FakeStack::listen(const netstack::PortRequest& request, const netstack::PortBinding*, int, long* error) noexcept {
  const netstack::SocketAddress& local = request.local;
  if (find(local.port_be) != nullptr) {
    *error = -EADDRINUSE;
    return nullptr;
  }
  for (FakeListener& listener : listeners) {
    if (listener.used) continue;
    FakeListener* made = new (&listener) FakeListener();
    made->used = true;
    made->here = local;
    return made;
  }
  *error = -ENOBUFS;
  return nullptr;
}

bool FakeStack::routes(const netstack::IpAddress& address) const noexcept { return (ntohl(address.v4_be()) & 0xffff'ff00) == 0xc612'0000; }

netstack::PoolLevels FakeStack::levels() const noexcept {
  netstack::PoolLevels levels{};
  for (const FakeStream& stream : streams) levels.streams += stream.used;
  for (const FakeListener& listener : listeners) levels.listeners += listener.used;
  for (const FakeBinding& binding : bindings) levels.bindings += binding.used;
  return levels;
}

FakeListener* FakeStack::find(uint16_t port_be) noexcept {
  for (FakeListener& listener : listeners) {
    if (listener.used && listener.here.port_be == port_be) return &listener;
  }
  return nullptr;
}

FakeStream* FakeStack::connect_from_outside(uint16_t port_be) noexcept {
  auto* stream = static_cast<FakeStream*>(make_stream());
  (void)stream->connect({kStackAddress, port_be});
  return stream->up ? stream : nullptr;
}

}  // namespace shim_test

namespace netstack {

base::Result<Stack*> make_stack(const StackConfig&, StackPlace* place) noexcept {
  *place = StackPlace{};
  place->address_be = shim_test::kStackAddress;
  place->prefix = 24;
  return &shim_test::FakeStack::get();
}

base::Result<bool> prepare_wire(const char*) noexcept { return true; }
void keep_rights(const StackConfig&) noexcept {}
bool has_kept_rights() noexcept { return false; }
bool is_left_over(const IpAddress&) noexcept { return false; }
void let_rights_go() noexcept {}
void open_files() noexcept {}
StackCode stack_code() noexcept { return {}; }
void use_image_file(const char*) noexcept {}
const char* image_file() noexcept { return ""; }
base::Result<bool> load_code_again(const StackCode&) noexcept { return base::make_error("a stack of tests has no code of its own"); }

}  // namespace netstack
