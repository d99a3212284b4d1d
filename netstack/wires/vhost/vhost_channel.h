// The control channel of vhost-user: messages with descriptors over a Unix stream socket.
// SPDX-License-Identifier: BSD-3-Clause
//
// A message is sent at once by everybody, and the kernel keeps what one call has sent together: one that is not there whole when its
// beginning is makes no sense, and ends the connection.
// Source: the vhost-user protocol (QEMU's docs/interop/vhost-user.rst).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "netstack/wires/control.h"

namespace netstack {

struct VhostMessage {
  static constexpr uint32_t kVersion = 1, kReply = 4;
  static constexpr int kMostFds = 8;
  static constexpr size_t kHeadBytes = 12, kMostBytes = 512;

  enum Request : uint32_t {
    kGetFeatures = 1,
    kSetFeatures = 2,
    kSetOwner = 3,
    kSetMemTable = 5,
    kSetVringNum = 8,
    kSetVringAddr = 9,
    kSetVringBase = 10,
    kGetVringBase = 11,
    kSetVringKick = 12,
    kSetVringCall = 13,
    kGetProtocolFeatures = 15,
    kSetProtocolFeatures = 16,
    kGetQueueNum = 17,
    kSetVringEnable = 18,
  };
  static constexpr uint64_t kProtocolFeatures = 1ULL << 30;  // among the features: the message of this name and kSetVringEnable are known

  uint32_t request = 0, flags = kVersion, size = 0;
  uint8_t payload[kMostBytes] = {};

  VhostMessage() = default;
  explicit VhostMessage(uint32_t what) : request(what) {}
  template <class T>
  VhostMessage& put(T value) noexcept {
    memcpy(payload + size, &value, sizeof value);
    size += static_cast<uint32_t>(sizeof value);
    return *this;
  }
  // Zero where it is shorter.
  template <class T>
  [[nodiscard]] T get(size_t offset) const noexcept {
    T value{};
    if (offset + sizeof value <= size) memcpy(&value, payload + offset, sizeof value);
    return value;
  }
};

// Of a ring that a message is about.
struct VringState {
  uint32_t index, number;
};

// Lies in memory the family shares; the socket is Control's, so its number holds in every member.
class VhostChannel {
 public:
  explicit VhostChannel(Control* control) noexcept : control_(control) {}

  [[nodiscard]] bool open() const noexcept { return fd_ >= 0; }
  // Has `callback` called when something comes on `socket`, which is the channel's from here on. False if there is no room for it.
  [[nodiscard]] bool begin(int socket, Control::Callback callback, void* argument) noexcept;
  void end() noexcept;

  enum class Got : uint8_t { message, nothing, end };
  // Descriptors that came with it are in `fds`, the caller's to close or adopt; *count says how many.
  [[nodiscard]] Got receive(VhostMessage* message, int (&fds)[VhostMessage::kMostFds], int* count) noexcept;
  [[nodiscard]] bool send(const VhostMessage& message, int fd = -1) noexcept;

 private:
  Control* const control_;
  int fd_ = -1;
};

}  // namespace netstack
