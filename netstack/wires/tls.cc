// Makes DPDK's thread-local variables static TLS.
// SPDX-License-Identifier: BSD-3-Clause
//
// The archives reach them through __tls_get_addr(), which on a thread's first use allocates with the program's malloc: not from
// inside a hook. One reference in the initial-exec model per variable makes the linker turn every other reference of the link into that
// model too (x86-64 psABI, TLS transitions).
extern "C" {
extern thread_local unsigned per_lcore__lcore_id [[gnu::tls_model("initial-exec")]];
thread_local int per_lcore__rte_errno [[gnu::tls_model("initial-exec")]] = 0;
extern thread_local int per_lcore__thread_id [[gnu::tls_model("initial-exec")]];
extern thread_local volatile int per_lcore_trace_point_sz [[gnu::tls_model("initial-exec")]];
extern thread_local void* per_lcore_trace_mem [[gnu::tls_model("initial-exec")]];

// EAL's own keeps 256 bytes per thread for the text; it is only printed where the number is known too.
const char* rte_strerror(int) { return "see the number"; }
}

namespace netstack {

// Does nothing at run time; being called keeps the references in the link.
void keep_thread_locals_static() noexcept {
  asm volatile("" ::"r"(&per_lcore__lcore_id), "r"(&per_lcore__rte_errno), "r"(&per_lcore__thread_id), "r"(&per_lcore_trace_point_sz),
               "r"(&per_lcore_trace_mem));
}

}  // namespace netstack
