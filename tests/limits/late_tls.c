// A library whose thread-local variables lie at a fixed distance from the thread's control block (initial-exec).
// SPDX-License-Identifier: BSD-3-Clause
static __thread volatile char bytes[TLS_BYTES] __attribute__((tls_model("initial-exec")));

int touch_late_tls(void);
int touch_late_tls(void) {
  for (int i = 0; i < TLS_BYTES; i++) bytes[i]++;
  return bytes[0];
}
