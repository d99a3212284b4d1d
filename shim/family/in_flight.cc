// Envelopes and the records of what is in them.
// SPDX-License-Identifier: BSD-3-Clause
#include "shim/family/in_flight.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <utility>

#include "base/high_fd.h"
#include "base/log.h"
#include "base/permitted.h"
#include "base/robust_lock.h"
#include "base/syscall.h"
#include "shim/family/family.h"

namespace shim {
namespace {

using base::as_arg;
using base::kernel_call;

constexpr int kOutgoing = 512;
constexpr uint32_t kNone = UINT32_MAX;

// What an envelope says to whoever reads it.
struct Label {
  char text[60];
  uint32_t record;
};
constexpr Label kLabel{"a socket of zpstack's, for processes of one family alone\n", 0};

// Descriptors of envelopes that threads of this process are about to send or to close.
struct Outgoing {
  uint32_t thread;  // 0: none
  int fd;
  uint32_t record;
  bool is_kept;  // to be closed, without the lock
};
Outgoing outgoing[kOutgoing];
int outgoing_count = 0;

// The descriptors in an envelope: the placeholder, the locked description, the door.
constexpr int kContents = 3;
union Rights {
  cmsghdr header;
  char bytes[CMSG_SPACE(kContents * sizeof(int))];
};

// As fcntl() has it, of one byte.
long byte_of_record(int fd, int command, uint32_t record, flock* request) noexcept {
  *request = {};
  request->l_type = F_WRLCK;
  request->l_whence = SEEK_SET;
  request->l_start = record;
  request->l_len = 1;
  return kernel_call(SYS_fcntl, fd, command, as_arg(request));
}

bool is_held(uint32_t record) noexcept {
  flock answer;
  return byte_of_record(family->flight_fd, F_GETLK, record, &answer) != 0 || answer.l_type != F_UNLCK;
}

void drop(InFlight& record) noexcept {
  Counted* const file = record.file;
  record.file = nullptr;
  family->flights--;
  if (file != nullptr) drop_reference(file);
}

// A descriptor of the memory file that is not a copy of another: its locks are its own.
long new_description() noexcept {
  if (family->proc_fd < 0 || family->flight_fd < 0 || family->door_step_fd < 0) return -ENOENT;
  char path[] = "self/fd/0000000000";
  char* const end = path + sizeof path - 1;
  char* at = end;
  for (int number = family->flight_fd; number > 0; number /= 10) *--at = static_cast<char>('0' + number % 10);
  memmove(path + strlen("self/fd/"), at, static_cast<size_t>(end - at) + 1);
  return kernel_call(SYS_openat, family->proc_fd, as_arg(path), O_RDWR | O_CLOEXEC);
}

// Locks a record that is free for this description.
uint32_t lock_free_record(int description) noexcept {
  flock request;
  for (uint32_t i = 0; i < kInFlight; i++) {
    const uint32_t record = (family->next_flight + i) % kInFlight;
    if (family->in_flight[record].file != nullptr || byte_of_record(description, F_OFD_SETLK, record, &request) != 0) continue;
    family->next_flight = (record + 1) % kInFlight;
    return record;
  }
  return kNone;
}

void drop_the_dead() noexcept {
  for (uint32_t i = 0; i < kInFlight; i++) {
    if (family->in_flight[i].file != nullptr && !is_held(i)) drop(family->in_flight[i]);
  }
}

// The end of a pair that has the label and the descriptors in its queue, or a negative errno.
long fill_envelope(int placeholder, int description, uint32_t record) noexcept {
  int ends[2];
  if (const long error = kernel_call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, as_arg(ends)); error != 0) return error;
  Label label = kLabel;
  label.record = record;
  iovec part{&label, sizeof label};
  Rights rights{};
  rights.header = {CMSG_LEN(kContents * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
  const int numbers[kContents] = {placeholder, description, family->door_step_fd};
  memcpy(CMSG_DATA(&rights.header), numbers, sizeof numbers);
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = rights.bytes;
  message.msg_controllen = sizeof rights.bytes;
  const long sent = kernel_call(SYS_sendmsg, ends[1], as_arg(&message), MSG_DONTWAIT | MSG_NOSIGNAL);
  (void)kernel_call(SYS_close, ends[1]);
  if (sent == sizeof label) return ends[0];
  (void)kernel_call(SYS_close, ends[0]);
  return sent < 0 ? sent : -EIO;
}

Outgoing* free_outgoing() noexcept {
  for (Outgoing& entry : outgoing) {
    if (entry.thread == 0) return &entry;
  }
  return nullptr;
}

long make_with_description(Counted* file, int number, int description) noexcept {
  Outgoing* const entry = free_outgoing();
  uint32_t record = entry != nullptr ? lock_free_record(description) : kNone;
  if (record == kNone && entry != nullptr) {
    drop_the_dead();
    record = lock_free_record(description);
  }
  if (record == kNone) return -ETOOMANYREFS;
  const long fd = fill_envelope(number, description, record);
  if (fd < 0) return fd;
  add_reference(file);
  family->in_flight[record] = {file, 0};
  family->flights++;
  *entry = {base::thread_id(), static_cast<int>(fd), record, false};
  outgoing_count++;
  return fd;
}

long try_to_make(Counted* file, int number) noexcept {
  const long description = new_description();
  if (description < 0) return description;
  const long fd = make_with_description(file, number, static_cast<int>(description));
  (void)kernel_call(SYS_close, description);
  return fd;
}

void forget(Outgoing& entry) noexcept {
  entry.thread = 0;
  outgoing_count--;
  InFlight& flight = family->in_flight[entry.record];
  if (flight.file != nullptr && !is_held(entry.record)) drop(flight);
}

void discard(Outgoing& entry) noexcept {
  (void)kernel_call(SYS_close, entry.fd);
  forget(entry);
}

// It may have been refused and closed by now: whoever sweeps says so.
void leave_on_its_way(Outgoing& entry) noexcept {
  (void)kernel_call(SYS_close, entry.fd);
  entry.thread = 0;
  outgoing_count--;
}

// Reads the label, and what is with it if there is room for that. How many bytes of a label there are, or a negative errno.
long peek_into(int fd, Label* label, Rights* rights) noexcept {
  iovec part{label, sizeof *label};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = rights != nullptr ? rights->bytes : nullptr;
  message.msg_controllen = rights != nullptr ? sizeof rights->bytes : 0;
  const long got = kernel_call(SYS_recvmsg, fd, as_arg(&message), MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (rights != nullptr && message.msg_controllen < sizeof rights->header) rights->header.cmsg_len = 0;
  return got;
}

bool is_label(const Label& label) noexcept { return memcmp(label.text, kLabel.text, sizeof label.text) == 0; }

bool is_flight_file(int fd) noexcept {
  struct stat theirs{}, own{};
  return kernel_call(SYS_fstat, fd, as_arg(&theirs)) == 0 && kernel_call(SYS_fstat, family->flight_fd, as_arg(&own)) == 0 &&
         theirs.st_dev == own.st_dev && theirs.st_ino == own.st_ino;
}

// Whether it is this description that has the record's lock, which is no obstacle to itself: what a label says anybody may write.
bool has_lock(int description, uint32_t record) noexcept {
  flock answer;
  return is_held(record) && byte_of_record(description, F_OFD_GETLK, record, &answer) == 0 && answer.l_type == F_UNLCK;
}

// The descriptors, which are new ones. -EMFILE if there are no numbers for them. Whoever has made what looks like an envelope may have put
// anything into it, and asked the kernel for other control messages.
long unpack(int fd, Label* label, int (&numbers)[kContents]) noexcept {
  Rights rights{};
  const long got = peek_into(fd, label, &rights);
  if (got < 0) return got;
  const cmsghdr& header = rights.header;
  const bool is_rights = header.cmsg_level == SOL_SOCKET && header.cmsg_type == SCM_RIGHTS && header.cmsg_len >= CMSG_LEN(0);
  const size_t count = is_rights ? (header.cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
  int came[(sizeof rights - sizeof header) / sizeof(int)];
  memcpy(came, CMSG_DATA(&rights.header), sizeof came);
  memcpy(numbers, came, sizeof numbers);
  const bool is_one = got == sizeof *label && is_label(*label) && (is_rights || header.cmsg_len == 0);
  if (is_one && count == kContents) return 0;
  for (size_t i = 0; i < count; i++) (void)kernel_call(SYS_close, came[i]);
  return is_one ? -EMFILE : -ESTALE;
}

long unpack_all(int fd, Label* label, int (&numbers)[kContents]) noexcept {
  const long error = unpack(fd, label, numbers);
  if (error != -EMFILE) return error;
  const base::RaisedFdLimit raised;
  return unpack(fd, label, numbers);
}

}  // namespace

int door_of(int envelope) noexcept {
  Label label{};
  int numbers[kContents];
  if (const long error = unpack_all(envelope, &label, numbers); error != 0) return static_cast<int>(error);
  for (const int number : {numbers[0], numbers[1]}) (void)kernel_call(SYS_close, number);
  return numbers[2];
}

void prepare_flights() noexcept {
  int ends[2] = {-1, -1};
  const int on = 1;
  family->owner = static_cast<uint32_t>(kernel_call(SYS_getuid));
  (void)kernel_call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, as_arg(ends));
  (void)kernel_call(SYS_setsockopt, ends[0], SOL_SOCKET, SO_PASSCRED, as_arg(&on), sizeof on);
  family->door_fd = base::move_fd_high(ends[0]);
  family->door_step_fd = base::move_fd_high(ends[1]);
  family->flight_fd = base::move_fd_high(static_cast<int>(kernel_call(SYS_memfd_create, as_arg("zpstack-in-flight"), MFD_CLOEXEC)));
  family->proc_fd =
      base::move_fd_high(static_cast<int>(kernel_call(SYS_openat, AT_FDCWD, as_arg("/proc"), O_PATH | O_DIRECTORY | O_CLOEXEC)));
}

long make_envelope(Counted* file, int number) noexcept {
  const long fd = try_to_make(file, number);
  if (fd != -EMFILE) return fd;
  const base::RaisedFdLimit raised;
  return try_to_make(file, number);
}

void discard_envelope(int fd, bool is_sent) noexcept {
  for (Outgoing& entry : outgoing) {
    if (entry.thread != 0 && entry.fd == fd) return is_sent ? leave_on_its_way(entry) : discard(entry);
  }
}

void discard_left_envelopes() noexcept {
  if (outgoing_count == 0) return;
  for (Outgoing& entry : outgoing) {
    if (entry.thread == base::thread_id()) discard(entry);
  }
}

// The parent may have closed one just then, and given its number to something else.
void forget_envelopes() noexcept {
  if (outgoing_count == 0) return;  // each page that a child looks at costs it a fault
  for (Outgoing& entry : outgoing) {
    if (entry.thread != 0 && (!entry.is_kept || is_envelope(entry.fd))) (void)kernel_call(SYS_close, entry.fd);
    entry.thread = 0;
  }
  outgoing_count = 0;
}

int keep_envelope(int fd, uint32_t record) noexcept {
  Outgoing* const entry = free_outgoing();
  if (entry == nullptr) return -EMFILE;
  const base::RaisedFdLimit raised;
  // Not one of the hidden descriptors, which whoever joins is given.
  const auto kept = static_cast<int>(kernel_call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, base::fd_floor()));
  if (kept < 0) return kept;
  *entry = {base::thread_id(), kept, record, true};
  outgoing_count++;
  return kept;
}

void close_envelope(int kept) noexcept {
  (void)kernel_call(SYS_close, kept);
  const Guard guard;
  for (Outgoing& entry : outgoing) {
    if (entry.thread == base::thread_id() && entry.fd == kept) forget(entry);
  }
  guard.stack()->flush();
}

bool is_envelope(int fd) noexcept {
  if (!base::may_call(SYS_fstat) || !base::may_call(SYS_getsockopt)) return false;
  struct stat status{};
  if (kernel_call(SYS_fstat, fd, as_arg(&status)) != 0 || !S_ISSOCK(status.st_mode)) return false;
  int type = 0;
  unsigned bytes = sizeof type;
  if (kernel_call(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, as_arg(&type), as_arg(&bytes)) != 0 || type != SOCK_SEQPACKET) return false;
  Label label{};
  return peek_into(fd, &label, nullptr) == sizeof label && is_label(label);
}

long open_envelope(int fd, Opened* out) noexcept {
  if (the_stack() == nullptr || family->flight_fd < 0) return -ESTALE;
  Label label{};
  int numbers[kContents];
  if (const long error = unpack_all(fd, &label, numbers); error != 0) return error;
  const bool is_own = is_flight_file(numbers[1]) && label.record < kInFlight && family->in_flight[label.record].file != nullptr &&
                      has_lock(numbers[1], label.record);
  for (const int number : {numbers[1], numbers[2]}) (void)kernel_call(SYS_close, number);
  if (!is_own) {
    (void)kernel_call(SYS_close, numbers[0]);
    return -ESTALE;
  }
  InFlight& record = family->in_flight[label.record];
  record.received = 1;
  *out = {record.file, numbers[0], label.record};
  return 0;
}

void end_flights() noexcept {
  if (family->flights == 0) return;
  for (InFlight& record : family->in_flight) {
    if (record.file != nullptr) drop(record);
  }
}

void recount_flights(bool (*known)(Counted*)) noexcept {
  family->flights = 0;
  for (InFlight& record : family->in_flight) {
    if (record.file != nullptr && !known(record.file)) record.file = nullptr;
    if (record.file == nullptr) continue;
    record.file->refs++;
    family->flights++;
  }
}

void sweep_flights() noexcept {
  if (family->flights == 0) return;
  int lost = 0;
  {
    const Guard guard;
    for (uint32_t i = 0; i < kInFlight; i++) {
      InFlight& record = family->in_flight[i];
      if (record.file == nullptr || is_held(i)) continue;
      if (record.received == 0) lost++;
      drop(record);
    }
    guard.stack()->flush();
  }
  if (lost > 0) {
    static bool told = false;
    base::log(std::exchange(told, true) ? base::LogLevel::debug : base::LogLevel::warn,
              "%d sockets of the stack that were passed on (SCM_RIGHTS) are closed: no process of this family has received them", lost);
  }
}

}  // namespace shim
