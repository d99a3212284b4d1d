// Kernel sockets kept under hidden numbers, and when they are given away.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/files/placeholders.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <atomic>

#include "base/high_fd.h"
#include "base/permitted.h"
#include "base/syscall.h"
#include "shim/family/family.h"

namespace shim {
namespace {

using base::kernel_call;

constexpr int kPlaces = 128;
constexpr int kParked = -1, kChosen = -2;  // in place of a number

struct Place {
  int hidden = -1;  // -1: free
  int number = kParked;
  uint32_t options = 0;
  uint8_t domain = 0;
  bool nonblocking = false;
};

Place places[kPlaces];
uint8_t parked[kPlaces];  // a stack
int parked_count = 0;
int taken_count = 0;  // places that are not free
bool full = false;    // there are no more hidden numbers to be had
uint32_t places_age = 1;
std::atomic<uint32_t> age{1};

uint32_t age_now() noexcept { return age.load(std::memory_order_relaxed); }

void free_place(int index) noexcept {
  (void)base::close_high_fd(places[index].hidden);
  places[index] = {};
  taken_count--;
}

void park(int index) noexcept {
  places[index].number = kParked;
  parked[parked_count++] = static_cast<uint8_t>(index);
}

// After a fork everything goes but what is being given away just now, which its own accept() judges.
void drop_what_is_too_old() noexcept {
  const uint32_t now = age_now();
  if (places_age == now) [[likely]] return;
  for (int i = 0; i < kPlaces; i++) {
    if (places[i].hidden >= 0 && places[i].number != kChosen) free_place(i);
  }
  parked_count = 0;
  full = false;
  places_age = now;
}

// Of those that match, the one that was closed last.
int take_parked(int domain, uint32_t options) noexcept {
  for (int i = parked_count; i-- > 0;) {
    const int index = parked[i];
    if (places[index].domain != domain || places[index].options != options) continue;
    for (parked_count--; i < parked_count; i++) parked[i] = parked[i + 1];
    return index;
  }
  return -1;
}

// Whether its kernel socket is as it was made, and nobody else's.
bool is_untouched(const Socket& socket) noexcept {
  return socket.placeholder_age == age_now() && socket.refs == 1 && socket.notice == nullptr && socket.state == SocketState::stream &&
         socket.ss_state == SsState::connected;
}

// Where this process keeps it, or -1.
int place_of(const Socket& socket, int number) noexcept {
  const int index = socket.placeholder_place - 1;
  return index >= 0 && places[index].hidden >= 0 && places[index].number == number ? index : -1;
}

int free_index() noexcept {
  int index = 0;
  while (places[index].hidden >= 0) index++;
  return index;
}

}  // namespace

void Placeholder::choose(const Socket& listening) noexcept {
  domain_ = listening.domain;
  options_ = listening.options_stamp;
  age_ = age_now();
  drop_what_is_too_old();
  if (parked_count == 0 || !base::may_call(SYS_fcntl)) return;
  place_ = take_parked(domain_, options_);
  if (place_ >= 0) places[place_].number = kChosen;
}

long Placeholder::make(int flags) const noexcept {
  if (place_ < 0) return kernel_call(SYS_socket, domain_, SOCK_STREAM | flags, 0);
  const Place& place = places[place_];
  const bool nonblocking = (flags & SOCK_NONBLOCK) != 0;
  const long number = kernel_call(SYS_fcntl, place.hidden, (flags & SOCK_CLOEXEC) != 0 ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
  if (number >= 0 && nonblocking != place.nonblocking) (void)kernel_call(SYS_fcntl, number, F_SETFL, nonblocking ? O_NONBLOCK : 0);
  return number;
}

bool Placeholder::give_to(Socket* socket, int number, const Socket& listening) noexcept {
  const bool is_for_it = listening.options_stamp == options_ && listening.domain == domain_;
  socket->placeholder_age = is_for_it ? age_ : 0;
  socket->options_stamp = options_;
  if (place_ < 0) return false;
  places[place_].number = number;
  socket->placeholder_place = static_cast<uint8_t>(place_ + 1);
  return is_for_it;
}

void Placeholder::put_back() noexcept {
  if (place_ < 0) return;
  if (age_ == age_now()) {
    park(place_);
  } else {
    free_place(place_);
  }
  place_ = -1;
}

void LeavingPlaceholder::leave(File* file) noexcept {
  auto* const socket = file != nullptr && file->kind == FileKind::socket ? static_cast<Socket*>(file) : nullptr;
  if (socket == nullptr || !is_untouched(*socket)) return;
  drop_what_is_too_old();
  if (const int index = place_of(*socket, number_); index >= 0) {
    places[index].nonblocking = socket->nonblocking;
    socket->placeholder_place = 0;
    park(index);
    return;
  }
  worth_keeping_ = !full && taken_count < kPlaces && base::may_call(SYS_fcntl);
  options_ = socket->options_stamp;
  domain_ = socket->domain;
  nonblocking_ = socket->nonblocking;
  age_ = socket->placeholder_age;
}

void LeavingPlaceholder::keep() noexcept {
  if (!worth_keeping_) return;
  const int hidden = base::copy_fd_high(number_);
  Guard guard;
  full = full || hidden < 0;
  if (hidden < 0) return;
  if (age_ != age_now() || places_age != age_ || taken_count == kPlaces) {
    (void)base::close_high_fd(hidden);
    return;
  }
  const int index = free_index();
  places[index] = {hidden, kParked, options_, domain_, nonblocking_};
  taken_count++;
  park(index);
}

void abandon_placeholder(Socket* socket, int number) noexcept {
  if (const int index = place_of(*socket, number); index >= 0) {
    free_place(index);
    socket->placeholder_place = 0;
  }
}

void forget_placeholders() noexcept {
  for_each_entry(my_slot, [](int number, Counted* entry) {
    if (static_cast<File*>(entry)->kind != FileKind::socket) return;
    abandon_placeholder(static_cast<Socket*>(entry), number);
    spoil_placeholder(static_cast<Socket*>(entry));
  });
  age_placeholders();
  drop_what_is_too_old();
}

void age_placeholders() noexcept {
  if (age.fetch_add(1, std::memory_order_relaxed) == UINT32_MAX) age.store(1, std::memory_order_relaxed);  // 0 is that of what is spoilt
}

}  // namespace shim
