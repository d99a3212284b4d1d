// Callbacks, late descriptors and late mappings of a wire; see control.h.
// SPDX-License-Identifier: BSD-3-Clause
#include "netstack/wires/control.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <linux/magic.h>
#include <new>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

#include "base/check.h"
#include "base/high_fd.h"
#include "base/syscall.h"

namespace netstack {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr uint64_t kTimerEvent = UINT64_MAX;

thread_local Control* current_control = nullptr;

bool is_error(long result) noexcept { return result < 0 && result > -4096; }

void* map(void* address, size_t bytes, int protection, int flags, int fd) noexcept {
  const long result = kernel_call(SYS_mmap, as_arg(address), static_cast<long>(bytes), protection, flags, fd, 0);
  return is_error(result) ? nullptr : reinterpret_cast<void*>(result);
}

size_t pages(size_t bytes) noexcept { return (bytes + 4095) & ~size_t{4095}; }

void* map_nothing(void* address, size_t bytes) noexcept {
  return map(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (address != nullptr ? MAP_FIXED : 0), -1);
}

// Of a file of huge pages whole ones are mapped and unmapped, whatever is asked for.
bool has_so_many(int fd, size_t bytes) noexcept {
  struct stat file {};
  struct statfs system {};
  if (kernel_call(SYS_fstat, fd, as_arg(&file)) != 0 || kernel_call(SYS_fstatfs, fd, as_arg(&system)) != 0) return false;
  const bool is_whole = system.f_type != HUGETLBFS_MAGIC || bytes % static_cast<size_t>(system.f_bsize) == 0;
  return is_whole && static_cast<size_t>(file.st_size) >= bytes;
}

// Who could make the file shorter could make us fault in the middle of a ring, and so could who takes huge pages out of it. Who could
// seal it against new writers later could keep other members from mapping it.
bool stays_as_it_is(int fd, size_t bytes) noexcept {
  struct statfs system {};
  const long seals = kernel_call(SYS_fcntl, fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return false;
  if ((seals & F_SEAL_SEAL) == 0 && kernel_call(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SEAL) != 0) return false;
  return has_so_many(fd, bytes) && kernel_call(SYS_fstatfs, fd, as_arg(&system)) == 0 && system.f_type == TMPFS_MAGIC;
}

}  // namespace

bool is_event(int fd) noexcept {
  struct stat file {};
  return kernel_call(SYS_fstat, fd, as_arg(&file)) == 0 && (file.st_mode & S_IFMT) == 0;
}

void take_event_away(int fd) noexcept {
  uint64_t count;
  const iovec place{&count, sizeof count};
  (void)kernel_call(SYS_preadv2, fd, as_arg(&place), 1, -1, -1, RWF_NOWAIT);
}

// eventfd_write() knows no RWF_NOWAIT.
void wake_by_event(int fd) noexcept {
  const long flags = kernel_call(SYS_fcntl, fd, F_GETFL);
  if (flags < 0) return;
  if ((flags & O_NONBLOCK) == 0) [[unlikely]] (void)kernel_call(SYS_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
  const uint64_t one = 1;
  (void)kernel_call(SYS_write, fd, as_arg(&one), sizeof one);
}

Control* Control::current() noexcept { return current_control; }
Control::Scope::Scope(Control* control) noexcept : before_(current_control) { current_control = control; }
Control::Scope::~Scope() { current_control = before_; }

base::Result<Control*> Control::create(base::Arena* arena, size_t range_bytes) noexcept {
  void* memory = arena->allocate(sizeof(Control));
  if (memory == nullptr) return base::make_error("the stack's memory is too small for its wire");
  Control* control = new (memory) Control(arena, range_bytes);
  if (!control->reserve())
    return base::make_error("cannot reserve descriptors and addresses for the wire: is the limit of open files over 100?");
  return control;
}

bool Control::reserve() noexcept {
  mine_ = static_cast<Mine*>(map(nullptr, sizeof(Mine), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1));
  range_ = static_cast<char*>(map_nothing(nullptr, range_bytes_));
  while (range_ == nullptr && range_bytes_ > kLeastRangeBytes) range_ = static_cast<char*>(map_nothing(nullptr, range_bytes_ /= 2));
  if (mine_ == nullptr || range_ == nullptr) return false;
  private_generation_ = &mine_->generation;

  int pair[2];
  if (kernel_call(SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, as_arg(pair)) != 0) return false;
  store_in_ = base::move_fd_high(pair[0]);
  store_out_ = base::move_fd_high(pair[1]);
  epoll_fd_ = base::move_fd_high(static_cast<int>(kernel_call(SYS_epoll_create1, EPOLL_CLOEXEC)));
  timer_fd_ = base::move_fd_high(static_cast<int>(kernel_call(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)));
  if (store_in_ < 0 || store_out_ < 0 || epoll_fd_ < 0 || timer_fd_ < 0) return false;
  for (Slot& slot : slots_) {
    slot.number = base::move_fd_high(static_cast<int>(kernel_call(SYS_dup, epoll_fd_)));
    if (slot.number < 0) return false;
  }
  epoll_event event{.events = EPOLLIN, .data = {.u64 = kTimerEvent}};
  return kernel_call(SYS_epoll_ctl, epoll_fd_, EPOLL_CTL_ADD, timer_fd_, as_arg(&event)) == 0;
}

Control::Entry* Control::find(const rte_intr_handle* handle, Callback callback, const void* argument) noexcept {
  for (Entry& entry : entries_) {
    const bool same_argument = argument == reinterpret_cast<void*>(-1) || entry.argument == argument;
    if (entry.used && entry.handle == handle && entry.callback == callback && same_argument) return &entry;
  }
  return nullptr;
}

int Control::add_callback(rte_intr_handle* handle, int fd, Callback callback, void* argument, bool counts) noexcept {
  for (int i = 0; i < kCallbacks; i++) {
    Entry& entry = entries_[i];
    if (entry.used) continue;
    epoll_event event{.events = EPOLLIN, .data = {.u64 = static_cast<uint64_t>(i)}};
    const long result = kernel_call(SYS_epoll_ctl, epoll_fd_, EPOLL_CTL_ADD, fd, as_arg(&event));
    if (result != 0) return static_cast<int>(result);
    entry = Entry{handle, fd, true, counts, false, false, callback, nullptr, argument};
    callback_count_++;
    return 0;
  }
  return -ENOMEM;
}

void Control::forget(Entry& entry) noexcept {
  epoll_event unused{};
  (void)kernel_call(SYS_epoll_ctl, epoll_fd_, EPOLL_CTL_DEL, entry.fd, as_arg(&unused));
  entry.used = false;
  callback_count_--;
}

int Control::remove_callback(rte_intr_handle* handle, Callback callback, void* argument) noexcept {
  Entry* entry = find(handle, callback, argument);
  if (entry == nullptr) return -ENOENT;
  if (entry->running) return -EAGAIN;
  forget(*entry);
  return 1;
}

int Control::remove_callback_later(rte_intr_handle* handle, Callback callback, void* argument, AfterUnregister after) noexcept {
  Entry* entry = find(handle, callback, argument);
  if (entry == nullptr) return -ENOENT;
  entry->remove = true;
  entry->after = after;
  if (!entry->running) run_entry(*entry);
  return 1;
}

void Control::run_entry(Entry& entry) noexcept {
  if (!entry.remove) {
    uint64_t events;
    if (entry.counts) (void)kernel_call(SYS_read, entry.fd, as_arg(&events), sizeof events);
    entry.running = true;
    entry.callback(entry.argument);
    entry.running = false;
  }
  if (!entry.remove) return;
  const Entry gone = entry;
  forget(entry);
  if (gone.after != nullptr) gone.after(gone.handle, gone.argument);
}

Control::Ran Control::run() noexcept {
  Scope scope(this);
  epoll_event events[kCallbacks];
  const long count = kernel_call(SYS_epoll_wait, epoll_fd_, as_arg(events), kCallbacks, 0);
  Ran ran{};
  for (long i = 0; i < count; i++) {
    if (events[i].data.u64 == kTimerEvent) {
      uint64_t ticks;
      (void)kernel_call(SYS_read, timer_fd_, as_arg(&ticks), sizeof ticks);
      ran.timer = true;
    } else if (Entry& entry = entries_[events[i].data.u64]; entry.used) {
      run_entry(entry);
      ran.callbacks++;
    }
  }
  return ran;
}

void Control::set_retry_ms(int milliseconds) noexcept {
  const timespec period{milliseconds / 1000, milliseconds % 1000 * 1'000'000L};
  const itimerspec times{period, period};
  (void)kernel_call(SYS_timerfd_settime, timer_fd_, 0, as_arg(&times), 0);
}

void Control::begin_change() noexcept {
  dirty_ = true;
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

int Control::adopt_fd(int fd) noexcept {
  for (int i = 0; i < kSlots; i++) {
    if (slots_[i].used) continue;
    begin_change();
    if (base::move_fd_to(fd, slots_[i].number) < 0) break;
    slots_[i].used = mine_->slot_used[i] = true;
    return slots_[i].number;
  }
  (void)kernel_call(SYS_close, fd);
  return -ENFILE;
}

void Control::put_placeholder(int number) noexcept {
  const base::RaisedFdLimit raised;
  (void)kernel_call(SYS_dup3, epoll_fd_, number, O_CLOEXEC);
}

bool Control::drop_fd(int fd) noexcept {
  for (int i = 0; i < kSlots; i++) {
    if (slots_[i].number != fd) continue;
    // Other members still hold copies: only a shutdown tells the peer now. On anything but a socket it fails without harm.
    begin_change();
    (void)kernel_call(SYS_shutdown, fd, SHUT_RDWR);
    put_placeholder(fd);
    slots_[i].used = mine_->slot_used[i] = false;
    return true;
  }
  return false;
}

void Control::end_fd(int fd) noexcept {
  for (Entry& entry : entries_) {
    if (entry.used && entry.fd == fd) forget(entry);
  }
  if (drop_fd(fd)) publish();
}

void* Control::map_region(int fd, size_t bytes, bool trusted) noexcept {
  if (bytes == 0 || bytes > range_bytes_ || !(trusted ? has_so_many(fd, bytes) : stays_as_it_is(fd, bytes))) return nullptr;
  const size_t offset = free_place(bytes);
  for (int i = 0; i < kRegions && offset < range_bytes_; i++) {
    Region& region = regions_[i];
    if (region.bytes != 0) continue;
    begin_change();
    if (map(range_ + offset, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd) == nullptr) {
      CHECK(map_nothing(range_ + offset, bytes) != nullptr);  // what was to be replaced may have gone: it would be anybody's
      return nullptr;
    }
    region = Region{next_serial_++, bytes, offset, fd};
    mine_->regions[i] = region;
    return range_ + offset;
  }
  return nullptr;
}

// The lowest one: the range's begin, or behind a region. range_bytes_ if there is none.
size_t Control::free_place(size_t bytes) const noexcept {
  size_t best = range_bytes_;
  const auto consider = [&](size_t offset) {
    if (offset >= best || bytes > range_bytes_ - offset) return;
    for (const Region& region : regions_) {
      if (region.bytes != 0 && offset < region.offset + pages(region.bytes) && region.offset < offset + bytes) return;
    }
    best = offset;
  };
  consider(0);
  for (const Region& region : regions_) {
    if (region.bytes != 0) consider(region.offset + pages(region.bytes));
  }
  return best;
}

bool Control::unmap_region(void* address) noexcept {
  for (int i = 0; i < kRegions; i++) {
    if (regions_[i].bytes == 0 || range_ + regions_[i].offset != address) continue;
    begin_change();
    CHECK(map_nothing(address, regions_[i].bytes) != nullptr);
    regions_[i].bytes = mine_->regions[i].bytes = 0;
    return true;
  }
  return false;
}

void* Control::region_of(int fd) const noexcept {
  for (int i = 0; i < kRegions; i++) {
    if (regions_[i].bytes != 0 && regions_[i].fd == fd) return range_ + regions_[i].offset;
  }
  return nullptr;
}

size_t Control::region_bytes(int fd) const noexcept {
  for (const Region& region : regions_) {
    if (region.bytes != 0 && region.fd == fd) return region.bytes;
  }
  return 0;
}

void Control::publish() noexcept {
  if (!dirty_) return;
  Message message{};
  message.generation = ++generation_;
  for (const Slot& slot : slots_) {
    if (slot.used) message.numbers[message.count++] = slot.number;
  }
  char old[sizeof(Message)];
  while (kernel_call(SYS_recvfrom, store_out_, as_arg(old), sizeof old, MSG_DONTWAIT, 0, 0) > 0) {
  }
  iovec part{&message, sizeof message};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof message.numbers)] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (message.count > 0) {
    header.msg_control = room;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * static_cast<size_t>(message.count));
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * static_cast<size_t>(message.count));
    memcpy(CMSG_DATA(rights), message.numbers, sizeof(int) * static_cast<size_t>(message.count));
  }
  CHECK(kernel_call(SYS_sendmsg, store_in_, as_arg(&header), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof message);
  mine_->generation = generation_;
  dirty_ = false;
}

void Control::take_changes() noexcept {
  take_descriptors();
  take_regions();
  mine_->generation = generation_;
}

void Control::take_descriptors() noexcept {
  const base::RaisedFdLimit raised;
  Message message{};
  iovec part{&message, sizeof message};
  alignas(cmsghdr) char room[CMSG_SPACE(sizeof message.numbers)];
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = room;
  header.msg_controllen = sizeof room;
  const long length = kernel_call(SYS_recvmsg, store_out_, as_arg(&header), MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (length != sizeof message) return;  // its sender died half way: recover() starts anew
  const cmsghdr* rights = CMSG_FIRSTHDR(&header);
  const size_t received = rights == nullptr ? 0 : (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  bool fresh[kSlots] = {};
  for (size_t i = 0; i < received; i++) {
    int fd;
    memcpy(&fd, CMSG_DATA(rights) + i * sizeof fd, sizeof fd);
    (void)base::move_fd_to(fd, message.numbers[i]);
    for (int s = 0; s < kSlots; s++) fresh[s] = fresh[s] || slots_[s].number == message.numbers[i];
  }
  for (int s = 0; s < kSlots; s++) {
    if (mine_->slot_used[s] && !fresh[s]) put_placeholder(slots_[s].number);
    mine_->slot_used[s] = fresh[s];
  }
}

void Control::take_regions() noexcept {
  const auto changed = [&](int i) {
    return regions_[i].serial != mine_->regions[i].serial || regions_[i].bytes != mine_->regions[i].bytes;
  };
  // What has gone first: something else may lie there now.
  for (int i = 0; i < kRegions; i++) {
    const Region& mine = mine_->regions[i];
    if (changed(i) && mine.bytes != 0) CHECK(map_nothing(range_ + mine.offset, mine.bytes) != nullptr);
  }
  for (int i = 0; i < kRegions; i++) {
    const Region& theirs = regions_[i];
    if (changed(i) && theirs.bytes != 0) {
      CHECK(map(range_ + theirs.offset, theirs.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, theirs.fd) != nullptr);
    }
    mine_->regions[i] = theirs;
  }
}

}  // namespace netstack
