// A static program, which no preloading reaches: prints a line, or whether it is hooked, or what it is called, or executes what its
// arguments say with the environment that it has.
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdio>
#include <cstring>
#include <unistd.h>

namespace {

int say_whether_hooked() {
  char line[4096];
  bool hooked = false;
  FILE* const maps = fopen("/proc/self/maps", "r");
  while (maps != nullptr && fgets(line, sizeof line, maps) != nullptr) hooked |= strstr(line, "libzpstack.so") != nullptr;
  return puts(hooked ? "hooked" : "native") < 0;
}

int say_own_name() {
  char name[4096];
  const long length = readlink("/proc/self/exe", name, sizeof name - 1);
  name[length > 0 ? length : 0] = '\0';
  return puts(name) < 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && strcmp(arguments[1], "look") == 0) return say_whether_hooked();
  if (count > 1 && strcmp(arguments[1], "name") == 0) return say_own_name();
  if (count > 1) {
    execv(arguments[1], arguments + 1);
    return 1;
  }
  return write(1, "static: 42\n", 11) == 11 ? 0 : 1;
}
