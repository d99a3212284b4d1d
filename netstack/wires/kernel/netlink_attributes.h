// Reads the attributes of a message of rtnetlink.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <cstring>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include "netstack/socket_address.h"

namespace netstack {

// The attributes behind a message's fixed part, by number.
template <int N>
struct Attributes {
  const rtattr* at[N] = {};

  Attributes(const nlmsghdr& message, size_t fixed_bytes) noexcept
      : Attributes(reinterpret_cast<const rtattr*>(reinterpret_cast<const char*>(&message) + NLMSG_SPACE(fixed_bytes)),
                   message.nlmsg_len - NLMSG_SPACE(fixed_bytes)) {}
  Attributes(const rtattr* each, size_t bytes) noexcept {
    for (int left = static_cast<int>(bytes); RTA_OK(each, left); each = RTA_NEXT(each, left)) {
      if (each->rta_type < N) at[each->rta_type] = each;
    }
  }
  [[nodiscard]] uint32_t number(int which, uint32_t otherwise) const noexcept {
    uint32_t value = otherwise;
    if (at[which] != nullptr && RTA_PAYLOAD(at[which]) >= sizeof value) memcpy(&value, RTA_DATA(at[which]), sizeof value);
    return value;
  }
  [[nodiscard]] IpAddress address(int which, int family) const noexcept {
    IpAddress value = family == AF_INET ? IpAddress::v4(0) : IpAddress{};
    const size_t bytes = family == AF_INET ? 4 : 16;
    if (at[which] == nullptr || RTA_PAYLOAD(at[which]) < bytes) return value;
    memcpy(family == AF_INET ? &value.words_be[3] : value.words_be, RTA_DATA(at[which]), bytes);
    return value;
  }
};

}  // namespace netstack
