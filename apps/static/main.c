// The program in whose place a static program begins: the engine, preloaded, takes over before main() (zpoline/life/static_program.h).
// SPDX-License-Identifier: BSD-3-Clause
#include <stdio.h>

int main(void) {
  fputs("zpstack-static: `zpstack run` executes this in front of a static program\n", stderr);
  return 127;
}
