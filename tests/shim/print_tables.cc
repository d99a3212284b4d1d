// Prints the documents that are made from the shim's tables: print_tables syscalls|options.
// SPDX-License-Identifier: BSD-3-Clause
//
// docs/syscalls.md and docs/options.md are its output, and a test compares them.
#include <cstdio>
#include <cstring>

#include "shim/files/file.h"
#include "shim/files/options.h"
#include "shim/calls/syscall_table.h"

namespace {

const char* claim_text(zps_claim claim) { return claim == ZPS_CLAIM_FULL ? "all" : claim == ZPS_CLAIM_SSE ? "xmm0-15" : "none"; }

void print_syscalls() {
  printf(
      "# System calls that the stack serves\n\n"
      "Made from the table in shim/calls/syscall_table.cc. A call on a descriptor that is not the stack's goes to the kernel; so does "
      "every call that is not\n"
      "listed. \"Kept\" are the vector registers that are saved around the call.\n\n"
      "| number | call | kept | what is served |\n|---|---|---|---|\n");
  for (const shim::SyscallRow& row : shim::syscall_rows())
    printf("| %d | %s | %s | %s |\n", row.nr, row.name, claim_text(row.claim), row.note);
}

const char* kind_text(shim::OptionKind kind) {
  switch (kind) {
    case shim::OptionKind::stored: return "kept";
    case shim::OptionKind::error:
    case shim::OptionKind::listening:
    case shim::OptionKind::info:
    case shim::OptionKind::memory:
    case shim::OptionKind::peer_name:
    case shim::OptionKind::local_port:
    case shim::OptionKind::path_mtu:
    case shim::OptionKind::path_mtu_info:
    case shim::OptionKind::saved_syn:
    case shim::OptionKind::read_only: return "read";
    case shim::OptionKind::refused:
    case shim::OptionKind::never: return "refused";
    default: return "in force";
  }
}

void print_options() {
  printf(
      "# Socket options of the stack's sockets\n\n"
      "Made from the table in shim/files/option_table.cc. \"In force\" means that the stack acts on it, \"kept\" that the value is checked "
      "and reported\n"
      "as Linux does and has no other effect, \"read\" that it can only be read. What is refused, or not listed, is logged once per "
      "process and\n"
      "counted in the ledger. Before connect() or listen() a socket is still the kernel's, and takes what Linux takes.\n\n"
      "| option | effect | note |\n|---|---|---|\n");
  for (const shim::OptionRow& row : shim::option_rows()) printf("| %s | %s | %s |\n", row.label, kind_text(row.kind), row.note);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "syscalls") == 0) return print_syscalls(), 0;
  if (argc == 2 && strcmp(argv[1], "options") == 0) return print_options(), 0;
  fprintf(stderr, "usage: %s syscalls|options\n", argv[0]);
  return 2;
}
