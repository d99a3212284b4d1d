// Forks the child of a trial and collects its verdict.
// SPDX-License-Identifier: BSD-3-Clause
#include "apps/zpstack/probes/trial.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace tool {

int in_child(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid < 0) return -1;
  if (pid == 0) _exit(body());
  int status;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return -1;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace tool
