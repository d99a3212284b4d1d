// A static program, which no preloading reaches: prints a line, or executes what its arguments say with the environment that it has.
// SPDX-License-Identifier: BSD-3-Clause
#include <unistd.h>

int main(int count, char** arguments) {
  if (count > 1) {
    execv(arguments[1], arguments + 1);
    return 1;
  }
  return write(1, "static: 42\n", 11) == 11 ? 0 : 1;
}
