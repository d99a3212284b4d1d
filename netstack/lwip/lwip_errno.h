// lwIP's error codes as Linux errno numbers: the one table.
// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cerrno>

#include "lwip/err.h"

namespace netstack {

// The positive errno for an lwIP error; 0 for ERR_OK.
inline int errno_of_lwip(err_t error) noexcept {
  static constexpr struct {
    err_t lwip;
    int number;
  } kTable[] = {
      {ERR_OK, 0},           {ERR_MEM, ENOBUFS},     {ERR_BUF, ENOBUFS},          {ERR_TIMEOUT, ETIMEDOUT}, {ERR_RTE, ENETUNREACH},
      {ERR_INPROGRESS, EINPROGRESS}, {ERR_VAL, EINVAL}, {ERR_WOULDBLOCK, EAGAIN}, {ERR_USE, EADDRINUSE},    {ERR_ALREADY, EALREADY},
      {ERR_ISCONN, EISCONN}, {ERR_CONN, ENOTCONN},   {ERR_IF, ENETDOWN},          {ERR_ABRT, ECONNABORTED}, {ERR_RST, ECONNRESET},
      {ERR_CLSD, ENOTCONN},  {ERR_ARG, EINVAL},
  };
  for (const auto& row : kTable) {
    if (row.lwip == error) return row.number;
  }
  return EIO;
}

}  // namespace netstack
