// A gateway has to be in a network of the stack's, and somebody else.
// SPDX-License-Identifier: BSD-3-Clause
#include "base/config_whole.h"

#include <arpa/inet.h>

#include <cstring>

namespace base {
namespace {

bool is_near6(const Ip6Setting& own, const uint8_t* other) noexcept {
  for (int bit = 0; bit < own.prefix; bit++) {
    if (((own.address[bit / 8] ^ other[bit / 8]) >> (7 - bit % 8) & 1) != 0) return false;
  }
  return own.prefix != 0;
}

Error check_gateway6(const Config& config) noexcept {
  in6_addr gateway_address;
  memcpy(&gateway_address, config.gateway6, sizeof gateway_address);
  if (IN6_IS_ADDR_UNSPECIFIED(&gateway_address) || config.ip6[0].prefix == 0) return {};
  char gateway[INET6_ADDRSTRLEN];
  (void)inet_ntop(AF_INET6, config.gateway6, gateway, sizeof gateway);
  bool near = IN6_IS_ADDR_LINKLOCAL(&gateway_address);
  for (const Ip6Setting& own : config.ip6) {
    if (own.prefix != 0 && memcmp(own.address, config.gateway6, sizeof own.address) == 0)
      return make_error("gateway and ip are the same address, %s", gateway);
    near = near || is_near6(own, config.gateway6);
  }
  return near ? Error{} : make_error("gateway %s is in no network of ip, and no link-local address", gateway);
}

}  // namespace

Error check_together(const Config& config) noexcept {
  if (const Error error = check_gateway6(config); error.text[0] != '\0') return error;
  if (config.gateway_be == 0 || config.address_be == 0) return {};
  const uint32_t mask_be = htonl(config.prefix == 32 ? UINT32_MAX : ~(UINT32_MAX >> config.prefix));
  char gateway[INET_ADDRSTRLEN], address[INET_ADDRSTRLEN];
  (void)inet_ntop(AF_INET, &config.gateway_be, gateway, sizeof gateway);
  (void)inet_ntop(AF_INET, &config.address_be, address, sizeof address);
  if (((config.gateway_be ^ config.address_be) & mask_be) != 0)
    return make_error("gateway %s is not in the network of %s/%u", gateway, address, config.prefix);
  if (config.gateway_be == config.address_be) return make_error("gateway and ip are the same address, %s/%u", gateway, config.prefix);
  return {};
}

}  // namespace base
