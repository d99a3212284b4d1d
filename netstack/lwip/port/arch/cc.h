/* lwIP's view of compiler and platform: x86-64, no libc, assertions that count instead of aborting. */
/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ZPS_LWIP_CC_H
#define ZPS_LWIP_CC_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/types.h>

#define LWIP_NO_CTYPE_H 1
#define LWIP_NO_UNISTD_H 1
#define LWIP_NO_LIMITS_H 0
#define LWIP_NO_INTTYPES_H 0
#define LWIP_TIMEVAL_PRIVATE 0
#ifndef BYTE_ORDER
#define BYTE_ORDER LITTLE_ENDIAN
#endif
#define LWIP_ERRNO_STDINCLUDE 1


#ifdef __cplusplus
extern "C" {
#endif
/* Counts a failed assertion of lwIP and logs the first one; processing goes on. What could make one fail is
   filtered before it reaches lwIP (tcp_guard.cc), so a count above zero is a bug report. */
void zps_lwip_assert_failed(const char* message, const char* file, int line);
uint32_t zps_lwip_random(void);
uint16_t zps_lwip_checksum(const void* data, int length);
#ifdef __cplusplus
}
#endif

#define LWIP_PLATFORM_DIAG(x) do { } while (0)
#define LWIP_PLATFORM_ASSERT(x) zps_lwip_assert_failed((x), __FILE_NAME__, __LINE__)
#ifndef __FILE_NAME__
#define __FILE_NAME__ __FILE__
#endif
#define LWIP_RAND() zps_lwip_random()
#define LWIP_CHKSUM zps_lwip_checksum

#define lwip_htons(x) __builtin_bswap16(x)
#define lwip_htonl(x) __builtin_bswap32(x)

#endif
