// Interfaces and routes of a test's own network namespace, by the command ip.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <arpa/inet.h>
#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "netstack/socket_address.h"

namespace netstack_test {

inline netstack::IpAddress ip(const char* text) {
  netstack::IpAddress made;
  if (inet_pton(AF_INET6, text, made.words_be) == 1) return made;
  in_addr v4{};
  EXPECT_EQ(1, inet_pton(AF_INET, text, &v4)) << text;
  return netstack::IpAddress::v4(v4.s_addr);
}

inline void run(const std::string& what) { ASSERT_EQ(0, system(("ip " + what).c_str())) << what; }

}  // namespace netstack_test
